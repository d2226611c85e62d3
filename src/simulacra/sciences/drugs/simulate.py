"""Embedded nature: drug-like molecules made by rule. No network, no file.

What it is: a core (a ring or two) with two or three places, at each a linker and an end, drawn with the weights below; every string is
a molecule by construction, made canonical by RDKit. What it is not: chemistry that anyone made. Its laws of size, lipophilicity and
rings are those of a grammar. It shows that every part works; claims need a data set or your own molecules.
"""

from __future__ import annotations

import numpy as np
from rdkit import Chem

from simulacra.study import Refused

MOST = 200_000  # different molecules that are made at once
# Ring numbers 1 and 2 belong to cores, 3 and 4 to ends: none is open twice at a time.
CORES = (
    "c1ccc({0})cc1{1}", "c1cc({0})cc({1})c1", "c1cc({0})ccc1{1}", "c1cnc({0})cc1{1}", "c1nc({0})cnc1{1}", "c1cc({0})sc1{1}",
    "c1cc({0})oc1{1}", "c1nc({0})sc1{1}", "n1nc({0})oc1{1}", "c1cn({0})nc1{1}", "C1CN({0})CCN1{1}", "C1CC({0})CCN1{1}",
    "C1CC({0})CN1{1}", "C1CN({0})CCC1{1}", "c1ccc2c(c1{0})ccn2{1}", "c1cc2nc({0})[nH]c2cc1{1}", "c1cc2ncc({0})cc2cc1{1}",
    "c1cc2c(cc1{0})OCO2", "O=C1N({0})CC({1})C1", "c1cc({0})c({1})cc1{2}", "N({0})({1}){2}", "[C@@H]({0})({1}){2}",
    "[C@H]({0})({1}){2}",
)  # fmt: skip
LINKERS = (
    "", "", "", "C", "C", "CC", "O", "OC", "CO", "NC(=O)", "C(=O)N", "CNC(=O)", "CC(=O)N", "S(=O)(=O)N", "CN", "CS", "C=C",
    "NC(=O)N",
)  # fmt: skip
ENDS = (
    "C", "C", "C", "CC", "C(C)C", "C3CC3", "C3CCCC3", "C3CCCCC3", "c3ccccc3", "c3ccccc3", "c3ccc(F)cc3", "c3ccc(Cl)cc3",
    "c3cccc(Cl)c3", "c3ccccc3F", "c3ccc(OC)cc3", "c3ccc(C)cc3", "c3ccc(C#N)cc3", "c3ccc(Br)cc3", "c3cccnc3", "c3ccncc3", "c3ccco3",
    "c3cccs3", "c3ncccn3", "C3CCOC3", "C3CCOCC3", "C[C@H]3CCCO3", "C(F)(F)F", "CC(F)F", "C#N", "CC(=O)O", "C(N)=O", "CN(C)C",
    "CN3CCOCC3", "CN3CCCC3", "C[NH+](C)C", "CC(=O)[O-]", "[C@@H](C)O", "c3ccc4c(c3)OCO4", "c3ccc([N+](=O)[O-])cc3",
)  # fmt: skip


def simulated(n: int, *, seed: int, stereo: bool = True) -> list[str]:
    """n different molecules as canonical SMILES, the same for the same seed; without `stereo` the strings say nothing of it.
    Refused for more than MOST."""
    if not 1 <= n <= MOST:
        raise Refused(f"{n} simulated molecules; expected 1 to {MOST:,}. For more, give data (.smi, .csv, .sdf)")
    rng = np.random.default_rng([seed, 0xD2])
    found: dict[str, None] = {}
    while len(found) < n:
        core = CORES[rng.integers(len(CORES))]
        arms = [LINKERS[i] + ENDS[j] for i, j in zip(rng.integers(len(LINKERS), size=3), rng.integers(len(ENDS), size=3), strict=True)]
        mol = Chem.MolFromSmiles(core.format(*arms))
        found[Chem.MolToSmiles(mol, isomericSmiles=stereo)] = None
    return list(found)
