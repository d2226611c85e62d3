"""SMILES as a tree of tokens, so that the same molecule can be written in another order: one part first, then the rest.

    CC(=O)Nc1ccc(O)cc1   ->   c1cc(O)ccc1 NC(C)=O       the ring first, its attachment atom last; what follows is bound to that atom
                         ->   N2C(C)=O . c1cc2ccc1 O    two parts that are bound by the ring bond 2, then what binds to the second

(blanks only show where the parts end). A SMILES string is a depth-first walk: what a node's last child writes stands outside of brackets,
so moving a child to the end, at each atom on the way to it, writes everything else before it. That changes no bond. It changes the order of
the neighbours of an atom, and with an odd permutation @ becomes @@ (OpenSMILES 1.0). Ring bonds are numbered anew, each with the smallest
number that is free where it opens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from simulacra.sciences.drugs import tokens

BONDS = frozenset("-=#$:/\\~")


class Unreadable(ValueError):
    """A string that is no SMILES tree: a bracket or a ring bond that is not closed, a bond without an atom."""


@dataclass(eq=False)
class Node:
    """An atom, the bond that leads to it from the atom before, its ring bonds in order, and the atoms that follow it."""

    atom: str  # its token
    bond: str  # "" where the string has none
    number: int  # how many atoms stand before it in the string that was read
    rings: list[tuple[str, int]] = field(default_factory=list)  # bond symbol ("" mostly) and which ring bond
    children: list[Node] = field(default_factory=list)
    parent: Node | None = None

    def walk(self) -> Iterator[Node]:
        """This node and all below it, in the order in which they are written."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(node.children)

    def last(self, child: Node) -> None:
        """Write `child` behind the other children."""
        place = self.children.index(child)
        if (len(self.children) - 1 - place) % 2:
            self.atom = mirrored(self.atom)
        self.children.append(self.children.pop(place))

    def first(self) -> None:
        """Write everything else before this node."""
        node = self
        while node.parent is not None:
            node.parent.last(node)
            node = node.parent


def mirrored(atom: str) -> str:
    """The token of an atom with its neighbours in an order of other parity."""
    if "@" not in atom:
        return atom
    return atom.replace("@@", "@") if "@@" in atom else atom.replace("@", "@@")


def read(smiles: str) -> list[Node]:
    """The connected parts of a string, as trees. Unreadable where it has none."""
    roots: list[Node] = []
    open_rings: dict[str, int] = {}
    branches: list[Node] = []
    here: Node | None = None
    bond, rings, atoms = "", 0, 0
    for word in tokens.split(smiles):
        if word in BONDS:
            bond = word
        elif word == "(":
            if here is None:
                raise Unreadable(smiles)
            branches.append(here)
        elif word == ")":
            if not branches:
                raise Unreadable(smiles)
            here = branches.pop()
        elif word == ".":
            here = None
        elif word[0].isdigit() or word[0] == "%":
            if here is None:
                raise Unreadable(smiles)
            label = word.lstrip("%").strip("()").lstrip("0") or "0"
            ring = open_rings.pop(label, None)
            if ring is None:
                ring, rings = rings, rings + 1
                open_rings[label] = ring
            here.rings.append((bond, ring))
            bond = ""
        else:
            node = Node(word, bond, atoms, parent=here)
            if here is None:
                roots.append(node)
            else:
                here.children.append(node)
            here, bond, atoms = node, "", atoms + 1
    if open_rings or branches or bond or not roots:
        raise Unreadable(smiles)
    return roots


def write(roots: Sequence[Node]) -> str:
    """The string of trees, as parts that dots divide. Ring bonds may go from one tree to another."""
    return "".join(words(roots))


def words(roots: Sequence[Node]) -> list[str]:
    """`write`, as tokens."""
    out: list[str] = []
    taken: dict[int, int] = {}  # which ring bond is open -> its number
    for root in roots:
        if out:
            out.append(".")
        waiting: list[Node | str] = [root]
        while waiting:
            node = waiting.pop()
            if isinstance(node, str):
                out.append(node)
                continue
            out += [node.bond, node.atom] if node.bond else [node.atom]
            for bond, ring in node.rings:
                number = taken.pop(ring, None)
                if number is None:
                    number = next(k for k in range(1, 1000) if k not in taken.values())
                    taken[ring] = number
                if bond:
                    out.append(bond)
                out.append(_label(number))
            waiting += node.children[-1:]
            for branch in reversed(node.children[:-1]):
                waiting += [")", branch, "("]
    return out


def _label(number: int) -> str:
    return str(number) if number < 10 else f"%{number}" if number < 100 else f"%({number})"


def cuttable(roots: Sequence[Node]) -> list[Node]:
    """Nodes whose bond to the atom before is single, in no ring, and says nothing of stereochemistry: where a molecule may be cut."""
    found = []
    for root in roots:
        nodes = list(root.walk())
        closing: dict[int, list[int]] = {}
        for place, node in enumerate(nodes):
            for _, ring in node.rings:
                closing.setdefault(ring, []).append(place)
        end = _ends(nodes)
        for place, node in enumerate(nodes):
            if node.parent is None or node.bond not in ("", "-"):
                continue
            inside = range(place, end[place])
            if all((ends[0] in inside) == (ends[-1] in inside) for ends in closing.values()):
                found.append(node)
    return found


def _ends(nodes: Sequence[Node]) -> list[int]:
    """For each node, in written order, where its subtree ends."""
    place = {id(node): i for i, node in enumerate(nodes)}
    end = list(range(1, len(nodes) + 1))
    for i in reversed(range(len(nodes))):
        above = place.get(id(nodes[i].parent))
        if above is not None:
            end[above] = max(end[above], end[i])
    return end


def tied(root: Node, inner: Node) -> list[Node]:
    """Cut the bond that leads to `inner`, somewhere below `root`, and tie its ends by a ring bond: `inner`'s part, then `root`'s.

    The number of the ring bond stands first among those of `inner`, and last among those of the atom that it was cut from, where the
    symbol of the bond stays.
    """
    outer, bond = inner.parent, inner.bond
    assert outer is not None
    ring = max((number for node in root.walk() for _, number in node.rings), default=-1) + 1
    place = outer.children.index(inner)
    if place % 2:  # the neighbour moves from behind as many children to before all of them
        outer.atom = mirrored(outer.atom)
    outer.children.pop(place)
    outer.rings.append((bond, ring))
    return [loosened(inner, ring), root]


def loosened(node: Node, ring: int) -> Node:
    """`node` as a root, bound by the ring bond number `ring` to what it followed before."""
    if "H" in node.atom[1:]:  # that neighbour stood before a hydrogen in the same brackets, and stands behind it now
        node.atom = mirrored(node.atom)
    node.rings.insert(0, ("", ring))
    node.bond, node.parent = "", None
    return node
