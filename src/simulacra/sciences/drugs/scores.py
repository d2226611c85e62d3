"""Scores of a molecule in [0, 1] that a writer can be led by.

    qed                           drug-likeness (Bickerton et al. 2012)
    logP:2:3                      a property of properties.py within a range; outside it falls off as a Gaussian, a tenth of the range's
                                  middle wide, or the range's own width
    similarity:CC(=O)Nc1...       Tanimoto similarity (counted ECFP4) to a molecule
    module:function               yours: SMILES -> number in [0, 1]. It is code that runs, so it must be trusted: `simulacra --trust module`
    and the oracles of PMO        (Gao et al. 2022, arXiv:2206.12411) that need nothing but RDKit

The oracles follow the code of TDC that PMO calls (mims-harvard/TDC, tdc/chem_utils/oracle/oracle.py at 1248915, read line by line), which
took them from GuacaMol (Brown et al. 2019, J. Chem. Inf. Model. 59:1096). With s the Tanimoto similarity to a named molecule, G(m, d) a
Gaussian of its argument, `at least` and `at most` the same with 1 beyond m, and geometric means where nothing else is said:

    X_rediscovery        s, counted ECFP4
    X_similarity         s / .75, at most 1; FCFP4, of mestranol atom pairs
    median1, median2     s to two molecules: camphor and menthol, ECFP4; tadalafil and sildenafil, ECFP6
    isomers_FORMULA      G(n, 1) of each element's count, hydrogens included, and G(N, 2) of the number of atoms
    X_mpo, valsartan_smarts, deco_hop (arithmetic mean), scaffold_hop (arithmetic mean)       see the code below

One departure: TDC counts the atoms of all of a molecule by reading its SMILES as if it were a formula, which GuacaMol does not
(common_scoring_functions.py at 0130f6d counts atoms); here they are counted. So isomers_*, zaleplon_mpo and sitagliptin_mpo are
GuacaMol's, and not quite PMO's. Left out are drd2, gsk3b and jnk3: classifiers that come pickled, and unpickling runs code.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from rdkit import Chem, DataStructs
from rdkit.Chem import GraphDescriptors, rdFingerprintGenerator, rdMolDescriptors

from simulacra import study
from simulacra.sciences.drugs import properties
from simulacra.sciences.drugs.tokens import shortened
from simulacra.study import Refused

Score = Callable[[Any], float]  # of a molecule of RDKit

# ------------------------------------------------------------------------------------------------------------------ modifiers


def gaussian(x: float, middle: float, width: float) -> float:
    """exp(-((x - middle) / width)^2 / 2)."""
    return math.exp(-0.5 * ((x - middle) / width) ** 2)


def at_least(x: float, middle: float, width: float) -> float:
    """1 from `middle` on, a Gaussian below."""
    return gaussian(min(x, middle), middle, width)


def at_most(x: float, middle: float, width: float) -> float:
    """1 up to `middle`, a Gaussian above."""
    return gaussian(max(x, middle), middle, width)


def clipped(x: float, full: float) -> float:
    """x / full, between 0 and 1."""
    return min(max(x / full, 0.0), 1.0)


def geometric(*parts: float) -> float:
    """Geometric mean; 0 where a part is."""
    return math.exp(sum(map(math.log, parts)) / len(parts)) if all(part > 0 for part in parts) else 0.0


def arithmetic(*parts: float) -> float:
    """Mean."""
    return sum(parts) / len(parts)


# --------------------------------------------------------------------------------------------------------------- fingerprints


@cache
def _generator(kind: str) -> Any:
    if kind == "AP":
        return rdFingerprintGenerator.GetAtomPairGenerator(maxDistance=10)
    features = {"atomInvariantsGenerator": rdFingerprintGenerator.GetMorganFeatureAtomInvGen()} if kind[0] == "F" else {}
    return rdFingerprintGenerator.GetMorganGenerator(radius=int(kind[-1]) // 2, **features)


@cache
def _target(smiles: str) -> Any:
    mol = properties.molecule(smiles)
    if mol is None:
        raise Refused(f"{shortened(smiles)!r} is no molecule that RDKit reads; similarity:SMILES needs one")
    return mol


@cache
def _print_of_target(smiles: str, kind: str) -> Any:
    return _generator(kind).GetSparseCountFingerprint(_target(smiles))


def similarity(mol: Any, smiles: str, kind: str = "ECFP4") -> float:
    """Tanimoto similarity of counted fingerprints: ECFP4, ECFP6, FCFP4 or AP (atom pairs up to 10 bonds)."""
    return float(DataStructs.TanimotoSimilarity(_print_of_target(smiles, kind), _generator(kind).GetSparseCountFingerprint(mol)))


@cache
def _pharmacophores(smiles: str) -> Any:
    return _pharmacophores_of(_target(smiles))


def _pharmacophores_of(mol: Any) -> Any:
    from rdkit.Chem.Pharm2D import Generate, Gobbi_Pharm2D

    made: Any = Generate.Gen2DFingerprint
    return made(mol, Gobbi_Pharm2D.factory)


@cache
def _pattern(smarts: str) -> Any:
    return Chem.MolFromSmarts(smarts)


def holds(mol: Any, smarts: str) -> float:
    """1 where the molecule has the substructure, else 0."""
    return float(mol.HasSubstructMatch(_pattern(smarts)))


# -------------------------------------------------------------------------------------------------------------------- oracles

CAMPHOR, MENTHOL = "CC1(C)C2CCC1(C)C(=O)C2", "CC(C)C1CCC(C)CC1O"
TADALAFIL = "O=C1N(CC(N2C1CC3=C(C2C4=CC5=C(OCO5)C=C4)NC6=C3C=CC=C6)=O)C"
SILDENAFIL = "CCCC1=NN(C2=C1N=C(NC2=O)C3=C(C=CC(=C3)S(=O)(=O)N4CCN(CC4)C)OCC)C"
OSIMERTINIB = "COc1cc(N(C)CCN(C)C)c(NC(=O)C=C)cc1Nc2nccc(n2)c3cn(C)c4ccccc34"
FEXOFENADINE = "CC(C)(C(=O)O)c1ccc(cc1)C(O)CCCN2CCC(CC2)C(O)(c3ccccc3)c4ccccc4"
RANOLAZINE = "COc1ccccc1OCC(O)CN2CCN(CC(=O)Nc3c(C)cccc3C)CC2"
PERINDOPRIL = "O=C(OCC)C(NC(C(=O)N1C(C(=O)O)CC2CCCCC12)C)CCC"
AMLODIPINE = "Clc1ccccc1C2C(=C(/N/C(=C2/C(=O)OCC)COCCN)C)\\C(=O)OC"
ZALEPLON = "O=C(C)N(CC)C1=CC=CC(C2=CC=NC3=C(C=NN23)C#N)=C1"
SITAGLIPTIN = "Fc1cc(c(F)cc1F)CC(N)CC(=O)N3Cc2nnc(n2CC3)C(F)(F)F"
PHARMACOPHORE = "CCCOc1cc2ncnc(Nc3ccc4ncsc4c3)c2cc1S(=O)(=O)C(C)(C)C"
QUINAZOLINE = "[#7]-c1n[c;h1]nc2[c;h1]c(-[#8])[c;h0][c;h1]c12"  # the scaffold of that molecule
BENZOTHIAZOLE = "[#7]-c1ccc2ncsc2c1"
REDISCOVERED = {
    "celecoxib": "CC1=CC=C(C=C1)C1=CC(=NN1C1=CC=C(C=C1)S(N)(=O)=O)C(F)(F)F",
    "troglitazone": "Cc1c(C)c2OC(C)(COc3ccc(CC4SC(=O)NC4=O)cc3)CCc2c(C)c1O",
    "thiothixene": "CN(C)S(=O)(=O)c1ccc2Sc3ccccc3C(=CCCN4CCN(C)CC4)c2c1",
}
RESEMBLED = {
    "albuterol": ("CC(C)(C)NCC(O)c1ccc(O)c(CO)c1", "FCFP4"),
    "mestranol": ("COc1ccc2[C@H]3CC[C@@]4(C)[C@@H](CC[C@@]4(O)C#C)[C@@H]3CCc2c1", "AP"),
}
C7H8N2O2 = {"C": 7, "H": 8, "N": 2, "O": 2}
C9H10N2O2PF2Cl = {"C": 9, "H": 10, "N": 2, "O": 2, "P": 1, "F": 2, "Cl": 1}


def _logp(mol: Any) -> float:
    return properties.MEASURES["logP"](mol)


def isomers(mol: Any, formula: Mapping[str, int]) -> float:
    """Nearness to a formula: each element's count, and the number of atoms."""
    counts = {symbol: sum(atom.GetSymbol() == symbol for atom in mol.GetAtoms()) for symbol in formula if symbol != "H"}
    hydrogens = sum(atom.GetTotalNumHs() for atom in mol.GetAtoms())
    counts["H"] = hydrogens
    atoms = mol.GetNumAtoms() + hydrogens
    return geometric(*(gaussian(counts[s], n, 1.0) for s, n in formula.items()), gaussian(atoms, sum(formula.values()), 2.0))


def median(mol: Any, one: str, other: str, kind: str) -> float:
    """Between two molecules."""
    return geometric(similarity(mol, one, kind), similarity(mol, other, kind))


def resembling(mol: Any, smiles: str, kind: str) -> float:
    """Like a molecule, to a similarity of .75."""
    return clipped(similarity(mol, smiles, kind), 0.75)


def osimertinib(mol: Any) -> float:
    """Like osimertinib, though not too much, more polar."""
    return geometric(
        at_least(rdMolDescriptors.CalcTPSA(mol), 100, 10), at_most(_logp(mol), 1, 1),
        clipped(similarity(mol, OSIMERTINIB, "FCFP4"), 0.8), at_most(similarity(mol, OSIMERTINIB, "ECFP6"), 0.85, 0.1),
    )  # fmt: skip


def fexofenadine(mol: Any) -> float:
    """Like fexofenadine, more polar."""
    return geometric(
        at_least(rdMolDescriptors.CalcTPSA(mol), 90, 10), at_most(_logp(mol), 4, 1),
        clipped(similarity(mol, FEXOFENADINE, "AP"), 0.8),
    )  # fmt: skip


def ranolazine(mol: Any) -> float:
    """Like ranolazine, with one fluorine, more polar and more lipophilic."""
    fluorines = sum(atom.GetAtomicNum() == 9 for atom in mol.GetAtoms())
    return geometric(
        at_least(rdMolDescriptors.CalcTPSA(mol), 95, 20), at_least(_logp(mol), 7, 1),
        clipped(similarity(mol, RANOLAZINE, "AP"), 0.7), gaussian(fluorines, 1, 1),
    )  # fmt: skip


def perindopril(mol: Any) -> float:
    """Like perindopril, with two aromatic rings."""
    return geometric(similarity(mol, PERINDOPRIL), gaussian(rdMolDescriptors.CalcNumAromaticRings(mol), 2, 0.5))


def amlodipine(mol: Any) -> float:
    """Like amlodipine, with three rings."""
    return geometric(similarity(mol, AMLODIPINE), gaussian(rdMolDescriptors.CalcNumRings(mol), 3, 0.5))


def zaleplon(mol: Any) -> float:
    """Like zaleplon, of another formula."""
    return geometric(similarity(mol, ZALEPLON), isomers(mol, {"C": 19, "H": 17, "N": 3, "O": 2}))


@cache
def _of_sitagliptin() -> tuple[float, float, float]:
    mol = _target(SITAGLIPTIN)
    return _logp(mol), rdMolDescriptors.CalcTPSA(mol), _complexity(mol)


def _complexity(mol: Any) -> float:
    bertz: Any = GraphDescriptors.BertzCT
    return float(bertz(mol))


def sitagliptin(mol: Any) -> float:
    """Unlike sitagliptin, of its formula, logP and polar surface."""
    logp, polar, _ = _of_sitagliptin()
    return geometric(
        gaussian(similarity(mol, SITAGLIPTIN), 0, 0.1), gaussian(_logp(mol), logp, 0.2),
        gaussian(rdMolDescriptors.CalcTPSA(mol), polar, 5), isomers(mol, {"C": 16, "H": 15, "F": 6, "N": 5, "O": 1}),
    )  # fmt: skip


def valsartan(mol: Any) -> float:
    """With a part of valsartan, and logP, polar surface and complexity of sitagliptin."""
    logp, polar, complexity = _of_sitagliptin()
    return geometric(
        holds(mol, "CN(C=O)Cc1ccc(c2ccccc2)cc1"), gaussian(rdMolDescriptors.CalcTPSA(mol), polar, 5),
        gaussian(_logp(mol), logp, 0.2), gaussian(_complexity(mol), complexity, 30),
    )  # fmt: skip


def _like_pharmacophore(mol: Any, full: float) -> float:
    return clipped(DataStructs.TanimotoSimilarity(_pharmacophores(PHARMACOPHORE), _pharmacophores_of(mol)), full)


def deco_hop(mol: Any) -> float:
    """The scaffold of a molecule, its pharmacophores, and not its decoration."""
    unlike = [1 - holds(mol, "CS([#6])(=O)=O"), 1 - holds(mol, BENZOTHIAZOLE)]
    return arithmetic(_like_pharmacophore(mol, 0.85), *unlike, holds(mol, QUINAZOLINE))


def scaffold_hop(mol: Any) -> float:
    """The decoration of a molecule, its pharmacophores, and not its scaffold."""
    decoration = "[#6]-[#6]-[#6]-[#8]-[#6]~[#6]~[#6]~[#6]~[#6]-[#7]-c1ccc2ncsc2c1"
    return arithmetic(_like_pharmacophore(mol, 0.75), holds(mol, decoration), 1 - holds(mol, QUINAZOLINE))


PMO: Mapping[str, Score] = {
    "qed": properties.MEASURES["QED"],
    **{f"{name}_rediscovery": partial(similarity, smiles=smiles) for name, smiles in REDISCOVERED.items()},
    **{f"{name}_similarity": partial(resembling, smiles=smiles, kind=kind) for name, (smiles, kind) in RESEMBLED.items()},
    "median1": partial(median, one=CAMPHOR, other=MENTHOL, kind="ECFP4"),
    "median2": partial(median, one=TADALAFIL, other=SILDENAFIL, kind="ECFP6"),
    "isomers_c7h8n2o2": partial(isomers, formula=C7H8N2O2),
    "isomers_c9h10n2o2pf2cl": partial(isomers, formula=C9H10N2O2PF2Cl),
    "osimertinib_mpo": osimertinib, "fexofenadine_mpo": fexofenadine, "ranolazine_mpo": ranolazine, "perindopril_mpo": perindopril,
    "amlodipine_mpo": amlodipine, "zaleplon_mpo": zaleplon, "sitagliptin_mpo": sitagliptin, "valsartan_smarts": valsartan,
    "deco_hop": deco_hop, "scaffold_hop": scaffold_hop,
}  # fmt: skip
LEFT_OUT = ("drd2", "gsk3b", "jnk3")
RANGED = tuple(properties.MEASURES)

# ------------------------------------------------------------------------------------------------------------------ by name


def find(name: str) -> Score:
    """The score called `name`. Refused, with what there is, for one that is not known, and for a module that was not trusted."""
    head, colon, rest = name.partition(":")
    if name in PMO:
        return PMO[name]
    if name in LEFT_OUT:
        raise Refused(f"score {name!r} is a classifier that comes pickled, and unpickling runs code; it is left out. {_known()}")
    if head == "similarity" and colon:
        _target(rest)
        return partial(similarity, smiles=rest)
    if head in RANGED and colon:
        return _ranged(name, head, rest)
    if colon and all(part.isidentifier() for part in head.split(".")) and rest.isidentifier():
        return _own(name, head, rest)
    raise Refused(f"score {name!r} is not known. {_known()}")


def _known() -> str:
    return (
        f"There are {', '.join(PMO)}; a property within a range, NAME:LOW:HIGH, of {', '.join(RANGED)}; similarity:SMILES; and your own, "
        "module:function"
    )


def _ranged(name: str, measure: str, limits: str) -> Score:
    try:
        low, high = (float(limit) for limit in limits.split(":"))
        if not -math.inf < low <= high < math.inf:
            raise ValueError
    except ValueError:
        raise Refused(f"score {name!r}: expected two numbers, the lower first, e.g. {measure}:2:3") from None
    width = max(high - low, abs(high + low) / 20, 1e-6)
    return lambda mol: at_least(value := properties.MEASURES[measure](mol), low, width) * at_most(value, high, width)


def _own(name: str, module: str, function: str) -> Score:
    """A user's function of a SMILES string."""
    if not study.trusted(module):
        raise Refused(
            f"score {name!r} is code in {module}, which is not part of simulacra; if you trust it, say so before the command: "
            f"simulacra --trust {module} run drugs.transfer --score {name}"
        )
    found = getattr(importlib.import_module(module), function, None)
    if not callable(found):
        raise Refused(f"module {module} has no function {function!r}; expected one that takes a SMILES string and gives a number")
    return lambda mol: float(found(Chem.MolToSmiles(mol)))


class Oracle:
    """A score that may fail: a molecule for which it raises, or gives no number in [0, 1], counts 0. The first failure is told, once."""

    def __init__(self, name: str, *, patience: int = 50) -> None:
        self.name, self.score, self.patience = name, find(name), patience
        self.failed, self.asked = 0, 0
        self.first = ""

    def __call__(self, smiles: Sequence[str]) -> list[float]:
        """Scores of canonical molecules, in order. Refused where it failed for all of at least `patience`: then the score is wrong."""
        values = [self._one(one) for one in smiles]
        if self.asked >= self.patience and self.failed == self.asked:
            raise Refused(f"score {self.name!r} failed for all of the first {self.asked} molecules; the first: {self.first}")
        return values

    def _one(self, smiles: str) -> float:
        self.asked += 1
        try:
            value = float(self.score(properties.molecule(smiles)))
            if not 0 <= value <= 1 + 1e-9:
                raise ValueError(f"the score is {value}, expected a number from 0 to 1")
            return min(value, 1.0)
        except Exception as error:  # a user's function may raise anything
            self.failed += 1
            if not self.first:
                self.first = f"{smiles}: {type(error).__name__}: {error}"
                warnings.warn(f"score {self.name!r}, counted as 0: {self.first}; further failures are only counted", stacklevel=4)
            return 0.0
