"""Fragments to be grown: what is asked for, how it is put to a model that writes from left to right, and whether it was kept.

    c1ccc(*)cc1                  one attachment point: the model goes on where the * is
    *c1ccc(*)cc1                 several: they are grown one after another, each on what the others have become
    c1ccc(*)cc1.*N1CCOCC1        two fragments with one * each: what links them is drawn

A model goes on at the right end of a string, and a chemist points anywhere. So the fragment is written with its attachment atom last
(writing.py): c1ccccc1, and whatever the model writes next is bound there. Of two fragments the first stands before a dot with a ring bond
that is left open, N12CCOCC2.c2ccccc2, and the model closes it where the link ends. A model that is to do so must have read such strings:
`for_training` writes any molecule as a fragment and the rest, begun at a random atom and cut at a random bond, so that a prompt is the
beginning of a training string. (SAFE, Noutahi et al. 2023, arXiv:2310.10773, writes molecules as blocks that dots divide; here only a
link needs that, and all other strings are plain SMILES.)

A fragment is kept when the molecule holds it with every atom bound to as many others as in the fragment, attachment points counted:
they are all taken, and nothing is added elsewhere.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rdkit import Chem, rdBase

from simulacra.sciences.drugs import properties, reading, tokens, writing
from simulacra.study import Refused

MOST = 6  # attachment points of a fragment
ATTEMPTS = 8  # at each attachment point, before a row is left empty
STARTS = 200  # random ways of writing a fragment, until one does not begin at its attachment point
FORM = "expected e.g. c1ccc(*)cc1 (grow), *c1ccc(*)cc1 (decorate) or c1ccc(*)cc1.*N1CCOCC1 (link)"

Complete = Callable[[Sequence[str], Sequence[int], int], Sequence[str]]  # prompts, row numbers, seed -> whole strings


@dataclass(frozen=True)
class Part:
    """A molecule with one attachment point, and the atoms that are to be grown after it."""

    mol: Any
    later: tuple[int, ...] = ()


@dataclass(frozen=True)
class Fragment:
    """What was asked for."""

    text: str
    parts: tuple[Part, ...]  # one, or two that are to be linked
    queries: tuple[Any, ...]  # what `kept` looks for: each part, any atom at its attachment points
    apart: Any  # and all parts at once, without their attachment points

    @property
    def linking(self) -> bool:
        """Whether two fragments are to be linked."""
        return len(self.parts) == 2

    @property
    def stages(self) -> int:
        """How many times the model is asked to go on."""
        return 1 + len(self.parts[0].later)


# ------------------------------------------------------------------------------------------------------------ what is asked for


def fragment(text: str) -> Fragment:
    """The fragment that is meant by a SMILES string with attachment points. Refused, in words, where it is none or none can be grown."""
    text = text.strip()
    name = tokens.shortened(text)
    if "*" not in text:
        raise Refused(f"fragment {name!r} says nowhere where it is to be grown: mark each attachment point with *; {FORM}")
    with rdBase.BlockLogs():
        try:
            whole = reading.parsed(text)
        except reading.Unusable as reason:
            raise Refused(f"fragment {name!r}: {reason}; {FORM}") from None
        for atom in whole.GetAtoms():
            _check_star(atom, name)
        parts = [_part(mol, name) for mol in Chem.GetMolFrags(whole, asMols=True)]
        adjusted = _adjusted(whole)
    points = [1 + len(part.later) for part in parts]
    if len(parts) > 2 or (len(parts) == 2 and points != [1, 1]):
        raise Refused(f"fragment {name!r} has {len(parts)} parts with {points} attachment points; two fragments are linked by one * each")
    if sum(points) > MOST:
        raise Refused(f"fragment {name!r} has {sum(points)} attachment points; at most {MOST} are grown")
    return Fragment(text, tuple(parts), Chem.GetMolFrags(adjusted, asMols=True, sanitizeFrags=False), _without_stars(adjusted))


def _check_star(atom: Any, name: str) -> None:
    if atom.GetAtomicNum():
        return
    if atom.GetDegree() != 1:
        raise Refused(
            f"fragment {name!r}: an attachment point has {atom.GetDegree()} bonds; a * stands at the end of one single bond, not within a "
            f"ring or a chain and not alone; {FORM}"
        )
    bond = atom.GetBonds()[0]
    if bond.GetBondType() != Chem.BondType.SINGLE:
        raise Refused(f"fragment {name!r}: an attachment point has a {str(bond.GetBondType()).lower()} bond; only single bonds are grown")
    if bond.GetOtherAtom(atom).GetAtomicNum() < 2:
        raise Refused(f"fragment {name!r}: an attachment point is bound to no atom that could be kept; {FORM}")


def _part(mol: Any, name: str) -> Part:
    """A part with hydrogens instead of all attachment points but the one that is grown first."""
    stars = [atom for atom in mol.GetAtoms() if not atom.GetAtomicNum()]
    if not stars:
        raise Refused(f"fragment {name!r} has a part without attachment point; each part needs one *; {FORM}")
    marked = [star for star in stars if any(bond.GetStereo() > Chem.BondStereo.STEREOANY for bond in _site(star).GetBonds())]
    if len(marked) > 1:
        raise Refused(
            f"fragment {name!r}: only one attachment point may stand at a double bond with / or \\; leave the marks out at the others"
        )
    stars = _in_order(stars, marked)
    later = [_site(star) for star in stars[1:]]
    gone = {star.GetIdx() for star in stars[1:]}
    place = {atom.GetIdx(): i for i, atom in enumerate(a for a in mol.GetAtoms() if a.GetIdx() not in gone)}
    capped = Chem.RWMol(mol)
    for atom in capped.GetAtoms():
        atom.SetAtomMapNum(0)
        if not atom.GetAtomicNum():
            atom.SetIsotope(0)
        if atom.GetIdx() in gone:
            atom.SetAtomicNum(1)
    return Part(Chem.RemoveHs(capped.GetMol()), tuple(place[atom.GetIdx()] for atom in later))


def _site(star: Any) -> Any:
    """The atom that an attachment point is bound to."""
    return star.GetNeighbors()[0]


def _in_order(stars: Sequence[Any], marked: Sequence[Any]) -> list[Any]:
    """Attachment points in the order of growing. A hydrogen in place of one takes from its atom what the hydrogen cannot hold: stereo
    marks, or a form that models know (sulfonyl becomes [SH]). Such a point is grown first, a second one last (`_as_asked`)."""
    delicate = [
        star for star in stars
        if _site(star).GetChiralTag() != Chem.ChiralType.CHI_UNSPECIFIED or _site(star).GetTotalValence() > 4
    ]  # fmt: skip
    first = [*marked, *delicate, *stars][0]
    rest = [star for star in stars if star.GetIdx() != first.GetIdx()]
    last = {star.GetIdx() for star in delicate}
    return [first, *sorted(rest, key=lambda star: star.GetIdx() in last)]


def _adjusted(whole: Any) -> Any:
    """The fragments as a query: each atom with its number of neighbours as a condition, any atom at an attachment point."""
    adjust: Any = Chem.AdjustQueryParameters.NoAdjustments()
    adjust.adjustDegree = True
    adjust.adjustDegreeFlags = Chem.ADJUST_IGNOREDUMMIES
    adjust.makeDummiesQueries = True
    plain = Chem.RWMol(whole)
    for atom in plain.GetAtoms():
        atom.SetAtomMapNum(0)
        if not atom.GetAtomicNum():
            atom.SetIsotope(0)
    return Chem.AdjustQueryProperties(plain.GetMol(), adjust)


def _without_stars(query: Any) -> Any:
    rest = Chem.RWMol(query)
    rest.BeginBatchEdit()
    for atom in query.GetAtoms():
        if not atom.GetAtomicNum():
            rest.RemoveAtom(atom.GetIdx())
    rest.CommitBatchEdit()
    return rest.GetMol()


def kept(asked: Fragment, smiles: str) -> bool:
    """Whether the molecule, in one piece, holds the fragments, grown at every attachment point and nowhere else."""
    mol = properties.molecule(smiles)
    if mol is None or len(Chem.GetMolFrags(mol)) > 1 or not mol.HasSubstructMatch(asked.apart):
        return False
    return all(mol.HasSubstructMatch(query, useChirality=True) for query in asked.queries)


# ------------------------------------------------------------------------------------------------------------- as a string


@dataclass(frozen=True)
class Growth:
    """A molecule on its way: what there is, with the attachment point that comes next."""

    asked: Fragment
    parts: tuple[Part, ...]  # none: finished
    result: str = ""  # what was written last

    def prompt(self, seed: int) -> tuple[str, list[int]]:
        """What the model is to go on from, and which atom of the molecule each of its atoms is. Of two parts, both."""
        *more, part = reversed(self.parts)
        tree, order = _to_the_point(part.mol, seed)
        trees = [tree]
        if more:
            trees = [_from_the_point(more[0].mol, seed), tree]
            for node in tree.walk():  # the two trees counted their ring bonds from 0 each
                node.rings = [(bond, ring + 1000) for bond, ring in node.rings]
        return "".join(writing.words(trees)[:-1]), [order[node.number] for node in tree.walk()][:-1]

    def grown(self, smiles: str, order: Sequence[int]) -> Growth | None:
        """With what the model wrote, which begins with a prompt; None where that is no molecule or does not keep the fragments."""
        mol = properties.molecule(smiles)
        if mol is None or len(Chem.GetMolFrags(mol)) > 1:
            return None
        later = () if self.asked.linking else tuple(order.index(site) for site in self.parts[0].later)
        if not later:
            return Growth(self.asked, (), smiles) if kept(self.asked, smiles) else None
        ready = opened(mol, later[0])
        if ready is None:
            return None
        return Growth(self.asked, (Part(ready if later[1:] else _as_asked(self.asked, ready), later[1:]),), smiles)


def begun(asked: Fragment) -> Growth:
    """Nothing is grown yet."""
    return Growth(asked, asked.parts)


def opened(mol: Any, site: int) -> Any | None:
    """The molecule with an attachment point, its last atom, instead of a hydrogen of atom `site`; None where that has none."""
    n = mol.GetNumAtoms()
    full = Chem.RWMol(Chem.AddHs(mol, onlyOnAtoms=[site]))
    free = [atom.GetIdx() for atom in full.GetAtomWithIdx(site).GetNeighbors() if atom.GetIdx() >= n]
    if not free:
        return None
    full.GetAtomWithIdx(free[0]).SetAtomicNum(0)
    return Chem.RemoveHs(full.GetMol())


def _as_asked(asked: Fragment, ready: Any) -> Any:
    """The molecule, whose last atom is its last attachment point, with the stereo marks that the fragment has: those at atoms of the
    fragment that lost them to a hydrogen are set again."""

    def marked(mol: Any) -> bool:
        return all(mol.HasSubstructMatch(query, useChirality=True) for query in asked.queries)

    if marked(ready):
        return ready
    within = {i for query in asked.queries for i in ready.GetSubstructMatch(query)}
    find: Any = Chem.FindMolChiralCenters
    centres = find(ready, includeUnassigned=True, useLegacyImplementation=False)
    open_ones = [i for i, label in centres if label == "?" and i in within][:MOST]
    for tags in itertools.product((Chem.ChiralType.CHI_TETRAHEDRAL_CW, Chem.ChiralType.CHI_TETRAHEDRAL_CCW), repeat=len(open_ones)):
        tried = Chem.Mol(ready)
        for place, tag in zip(open_ones, tags, strict=True):
            tried.GetAtomWithIdx(place).SetChiralTag(tag)
        Chem.AssignStereochemistry(tried, cleanIt=True, force=True)
        if marked(tried):
            return tried
    return ready


def _to_the_point(mol: Any, seed: int) -> tuple[writing.Node, list[int]]:
    """A random way of writing `mol` that ends with its attachment point: the tree, and the atoms in the order of its nodes' numbers."""
    for attempt in range(STARTS):
        text = Chem.MolToRandomSmilesVect(mol, 1, randomSeed=_seed(seed, attempt))[0]
        order = [int(i) for i in mol.GetProp("_smilesAtomOutputOrder").strip("[],").split(",")]
        (tree,) = writing.read(text)
        star = next(node for node in tree.walk() if node.atom == "*")
        if star is not tree:
            star.first()
            return tree, order
    raise RuntimeError(f"{Chem.MolToSmiles(mol)} cannot be written so that it ends at its attachment point")


def _from_the_point(mol: Any, seed: int) -> writing.Node:
    """A random way of writing `mol` that begins at its attachment atom, with an open ring bond there."""
    star = next(atom.GetIdx() for atom in mol.GetAtoms() if not atom.GetAtomicNum())
    Chem.MolToRandomSmilesVect(mol, 1, randomSeed=_seed(seed, STARTS))  # seeds the generator that the next line draws from
    (tree,) = writing.read(Chem.MolToSmiles(mol, doRandom=True, rootedAtAtom=star))
    ring = max((number for node in tree.walk() for _, number in node.rings), default=-1) + 1
    return writing.loosened(tree.children[0], ring)


def _seed(*numbers: int) -> int:
    """A positive seed for RDKit from several numbers."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=4).digest(), "little") % (2**31 - 2) + 1


# ------------------------------------------------------------------------------------------------------------------ growing


def grow(asked: Sequence[Fragment], rows: Sequence[int], complete: Complete, *, seed: int, attempts: int = ATTEMPTS) -> list[str]:
    """A molecule for each fragment, as canonical SMILES, grown at all attachment points by `complete`; empty where `attempts` did not
    suffice.

    What is drawn for row i depends on (seed, i) alone: each round asks for all rows that are not finished.
    """
    growths = [begun(one) for one in asked]
    tries = [attempts] * len(growths)
    for turn in range(max((one.stages for one in asked), default=0) * attempts):
        waiting = [i for i, growth in enumerate(growths) if growth.parts and tries[i]]
        if not waiting:
            break
        prompts = [growths[i].prompt(_seed(seed, rows[i], turn)) for i in waiting]
        written = complete([text for text, _ in prompts], [rows[i] for i in waiting], _seed(seed, turn))
        for i, text, (_, order) in zip(waiting, written, prompts, strict=True):
            after = growths[i].grown(text, order)
            tries[i] = attempts if after else tries[i] - 1
            growths[i] = after or growths[i]
    return ["" if growth.parts else joined(growth.result) for growth in growths]


def joined(smiles: str) -> str:
    """Canonical SMILES of a molecule, without the dots that stand in strings of linked parts; any other string as it is."""
    mol = properties.molecule(smiles)
    return smiles if mol is None else str(Chem.MolToSmiles(mol))


# ----------------------------------------------------------------------------------------------------------------- training


def for_training(smiles: str, seed: int, *, link: bool) -> tuple[str, str]:
    """A molecule written as a fragment and the rest, and the beginning that is the fragment: from a random atom on, cut at a random
    single bond that is in no ring. With `link`, as two fragments and what links them. A molecule without such bonds is written from
    a random atom on, and the beginning is empty."""
    mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        return smiles, ""
    text = Chem.MolToRandomSmilesVect(mol, 1, randomSeed=_seed(seed, 0))[0]
    trees = writing.read(text)
    rng = random.Random(seed)
    cuts = writing.cuttable(trees) if len(trees) == 1 else []
    inner = {id(cut): found for cut in cuts if (found := [node for node in writing.cuttable([cut]) if node is not cut])} if link else {}
    chosen = [cut for cut in cuts if id(cut) in inner] if link else cuts
    if not chosen:
        return text, ""
    cut = rng.choice(chosen)
    cut.first()
    if link:
        trees = writing.tied(trees[0], rng.choice(inner[id(cut)]))
    return _divided(trees, cut)


def _divided(trees: Sequence[writing.Node], cut: writing.Node) -> tuple[str, str]:
    """The string, and what of it stands before `cut`'s subtree, which is written last."""
    words = writing.words(trees)
    return "".join(words), "".join(words[: len(words) - len(writing.words([cut]))])
