"""Time to score 10,000 molecules by EDM's protocol, against the plain loop over atoms and pairs, in one process on one core.

    python benchmarks/molecule_protocols.py [molecules]

plain loop   one molecule after another, one pair of atoms after another, the table looked up by symbol
all at once  simulacra.sciences.molecules.protocols.edm, the same table as tensors

Both must agree on every atom before a time is printed. Then come the times of the other protocols, per 1,000 molecules. The
molecules are made here: ETKDG conformers of drug-like fragments, copied and shaken, so that stable and unstable ones both occur.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from simulacra.sciences.molecules.data import SYMBOLS, Molecule, Molecules, from_rdkit, stacked, unstacked
from simulacra.sciences.molecules.perception import DOUBLE, MARGINS, SINGLE, TRIPLE
from simulacra.sciences.molecules.protocols import EDM_VALENCES, columns, edm, edm_validity, strain, strict

FRAGMENTS = (
    "CC1COC(=O)N1", "c1ccc(O)cc1", "CC(C)CC#N", "O=C1CCCN1C", "c1cc[nH]c1C=O", "OCC1CC1N", "CC(=O)NCCO", "C1CC2CC1CO2", "N#CCC(O)C=O",
    "Cc1ncco1", "CCOC(C)=O", "CC12CC1C(O)C2",
)  # fmt: skip


def shaken(n: int, spread: float = 0.02) -> Molecules:
    """`n` molecules whose atoms lie some 0.02 Angstrom beside the minimum of their force field, bonds known."""
    rng, kinds = np.random.default_rng(0), []
    for smiles in FRAGMENTS:
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        AllChem.EmbedMolecule(mol, randomSeed=1)
        AllChem.MMFFOptimizeMolecule(mol)
        kinds.append(from_rdkit(mol))
    made = []
    for row in range(n):
        kind = kinds[row % len(kinds)]
        places = kind.positions + rng.normal(scale=spread, size=kind.positions.shape).astype(np.float32)
        made.append(Molecule(kind.numbers, places, kind.charges, kind.bonds))
    return stacked(made)


def order_of(first: str, second: str, picometres: float) -> int:
    order = 0
    for table, margin in zip((SINGLE, DOUBLE, TRIPLE), MARGINS, strict=True):
        length = table.get(first, {}).get(second) or table.get(second, {}).get(first)
        if length is None or not picometres < length + margin:
            break
        order += 1
    return order


def stable_by_loop(molecules: list[Molecule]) -> list[int]:
    """Stable atoms of each molecule, the plain way."""
    found = []
    for molecule in molecules:
        symbols, places = [SYMBOLS[z] for z in molecule.numbers.tolist()], molecule.positions.tolist()
        bonds = [0] * len(symbols)
        for i in range(len(symbols)):
            for j in range(i + 1, len(symbols)):
                order = order_of(symbols[i], symbols[j], 100 * math.dist(places[i], places[j]))
                bonds[i] += order
                bonds[j] += order
        found.append(sum(b in EDM_VALENCES[s] for s, b in zip(symbols, bonds, strict=True)))
    return found


def seconds(run: Callable[[], Any], repeats: int) -> float:
    """Processor time, the best of a few goes."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    torch.set_num_threads(1)
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    molecules = shaken(n)
    single = unstacked(molecules)
    by_loop, at_once = stable_by_loop(single), edm(molecules)
    differ = int((at_once.stable_atoms != np.array(by_loop)).sum())
    if differ > n // 1000:  # a distance on an edge of the table may round to either side
        raise SystemExit(f"the two disagree on {differ} of {n} molecules")
    loop, together = seconds(lambda: stable_by_loop(single), 2), seconds(lambda: edm(molecules), 5)
    validity = seconds(lambda: edm_validity(molecules), 2)
    print(f"{n} molecules, {int(molecules.bucket.sum()) / n:.1f} atoms on average, {at_once.molecule_stability:.0%} stable; processor time")
    print(f"  stability, plain loop          {loop:8.2f} s")
    print(f"  stability, all at once         {together:8.2f} s   ({loop / together:.1f} times faster)")
    print(f"  validity and uniqueness        {validity:8.2f} s   (stability and validity together: {together + validity:.2f} s)")
    part = molecules[:1000]
    print(f"{len(part)} molecules")
    print(f"  strict                         {seconds(lambda: strict(part), 2):8.2f} s")
    print(f"  columns without strain         {seconds(lambda: columns(part, with_strain=False), 2):8.2f} s")
    start = time.perf_counter()
    strain(part)
    print(f"  strain, by the clock           {time.perf_counter() - start:8.2f} s   (in a process of its own)")


if __name__ == "__main__":
    main()
