"""What is read off each of many strings, once: a table with one row per string, made by as many processes as there are cores.

    identity     the molecule's canonical SMILES, its flat form (properties.flat) and its Morgan fingerprint of radius 2 in 1,024 bits
                 (Rogers & Hahn 2010, J. Chem. Inf. Model. 50:742), which stands for Tanimoto similarity everywhere
    laws         the numbers of LAWS
    properties   the numbers of COLUMNS, LAWS among them, the Murcko scaffold (Bemis & Murcko 1996, J. Med. Chem. 39:2887) and the
                 BRICS fragments (Degen et al. 2008, ChemMedChem 3:1503)
    filters      whether the medicinal filters of MOSES let it pass, and how many alerts of Brenk it sets off (filters.py)
    activations  what ChemNet makes of it (chemnet.py)

A string that is no molecule has empty strings, no bits and nan. Nothing here needs torch but the activations. Work goes to processes
of this module, over pipes: nothing is pickled or forked, so threads of torch do no harm and a script needs no main guard. What was
read off nature is remembered in the user's cache folder (SIMULACRA_CACHE), by the strings' checksum.

The worker is this same file: python -m simulacra.sciences.drugs.measuring PARTS
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import pooch
import rdkit
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem import QED, GraphDescriptors, rdFingerprintGenerator, rdMolDescriptors, rdmolops
from rdkit.Chem.Scaffolds import MurckoScaffold

from simulacra.runs import write_atomically
from simulacra.sciences.drugs import chemnet, filters, properties

Array = NDArray[np.float64]
Strings = NDArray[np.object_]  # of str

BITS = 1024
IDENTITY, SIX, PROPERTIES, FILTERS, ACTIVATIONS = "identity", "laws", "properties", "filters", "activations"
PARTS = (IDENTITY, SIX, PROPERTIES, FILTERS, ACTIVATIONS)
ELEMENTS = ("C", "N", "O", "F", "P", "S", "Cl", "Br", "I")
RINGS = ("3", "4", "5", "6", "7", "8 or more")  # atoms
GROUPS = {
    "amide": "[NX3][CX3]=[OX1]",
    "sulfonamide": "[NX3]S(=O)=O",
    "sulfone or sulfoxide": "[#6]S(=O)[#6]",
    "ester": "[CX3](=O)[OX2H0][#6]",
    "carboxylic acid": "[CX3](=O)[OX2H,OX1-]",
    "ketone": "[#6][CX3](=O)[#6]",
    "aldehyde": "[CX3H1]=O",
    "hydroxyl": "[OX2H;!$(OC=O)][#6]",
    "ether": "[OX2;!$(OC=O);R0]([#6])[#6]",
    "amine": "[NX3,NX4+;!$(N~[!#6;!#1]);!$(NC=[O,N,S]);!$(N-a)]",
    "aniline": "[NX3;!$(NC=[O,S]);!$(NS)]-a",
    "urea or carbamate": "[NX3]C(=O)[N,O]",
    "nitrile": "C#N",
    "nitro": "[$([NX3](=O)=O),$([N+](=O)[O-])]",
    "halide": "[F,Cl,Br,I]",
    "trifluoromethyl": "C(F)(F)F",
    "thioether": "[#16X2;!a]([#6])[#6]",
    "alkene": "[CX3;!$(C=[!#6])]=[CX3;!$(C=[!#6])]",
    "alkyne": "[CX2]#[CX2]",
    "imine": "[CX3;!a]=[NX2]",
    "aromatic nitrogen": "n",
    "aromatic oxygen or sulfur": "[o,s]",
}
COUNTS = ("donors", "acceptors", "rotatable", "rings", "aromatic rings", "aliphatic rings", "heavy atoms", "stereocentres", "charged atoms")
LAWS = ("logP", "QED", "SA", "weight", "TPSA", "solubility")
COLUMNS = (
    *LAWS, "complexity", *COUNTS, "scaffold atoms", "scaffold rings", *(f"element {e}" for e in (*ELEMENTS, "other")),
    *(f"ring {r}" for r in RINGS), *(f"group {g}" for g in GROUPS),
)  # fmt: skip

SINGLY = 400  # strings below which starting processes costs more than it saves
FORGOTTEN = 50  # strings that are not worth a file
REVISION = 4  # of what is measured: what is remembered of another one is not used
WORKER = (sys.executable, "-P", "-m", "simulacra.sciences.drugs.measuring")  # -P: what lies in the working folder is no library


@dataclass(frozen=True)
class Table:
    """What was read off n strings, row for row."""

    valid: NDArray[np.bool_]  # (n,)
    canonical: Strings  # (n,), with stereo; "" where the string is no molecule
    flat: Strings
    bits: NDArray[np.uint8]  # (n, BITS / 8), packed
    numbers: Array  # (n, len(COLUMNS)); nan where not measured
    scaffold: Strings  # "" where there is no ring
    fragments: Strings  # joined by "."
    passes: Array  # (n,) 1 where MOSES's filters let it pass; nan where not measured
    alerts: Array  # (n,) of Brenk; nan where not measured
    activations: NDArray[np.float32]  # (n, chemnet.WIDTH), or (n, 0)

    def __len__(self) -> int:
        return len(self.valid)

    def __getitem__(self, rows: Any) -> Self:
        return dataclasses.replace(self, **{f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)})

    def column(self, name: str) -> Array:
        """One of COLUMNS, (n,)."""
        return np.asarray(self.numbers[:, COLUMNS.index(name)])

    def columns(self, start: str) -> Array:
        """All COLUMNS that begin so, (n, k)."""
        return np.asarray(self.numbers[:, [i for i, name in enumerate(COLUMNS) if name.startswith(start)]])

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Tables one below the other."""
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(cls)})


def measure(strings: Sequence[str], parts: Sequence[str] = PARTS, *, remember: bool = False) -> Table:
    """The table of `parts` (IDENTITY always) of strings, each parsed once; many are shared out to one process per core. With
    `remember`, kept between runs."""
    parts = tuple(part for part in PARTS if part == IDENTITY or part in parts)
    place = _place(strings, parts) if remember and len(strings) > FORGOTTEN else None
    if place and place.is_file():
        with contextlib.suppress(OSError, ValueError, KeyError, zlib.error, EOFError):
            return _unpacked(place.read_bytes())
    cores = min(_cores(), -(-len(strings) // SINGLY))
    table = _shared_out(strings, parts, cores) if len(strings) > SINGLY else measured_here(strings, parts)
    if place:
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, _packed(table))
    return table


def _place(strings: Sequence[str], parts: Sequence[str]) -> Path:
    versions = [REVISION, rdBase.rdkitVersion, chemnet.version() if ACTIVATIONS in parts else ""]
    digest = hashlib.sha256(json.dumps([parts, versions]).encode())
    for string in strings:
        digest.update(string.encode() + b"\n")
    return Path(os.environ.get("SIMULACRA_CACHE") or pooch.os_cache("simulacra")) / f"drugs-table-{digest.hexdigest()[:16]}.npz"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ------------------------------------------------------------------------------------------------------------- one molecule


def measured_here(strings: Sequence[str], parts: Sequence[str]) -> Table:
    """`measure` without processes, nothing remembered."""
    n = len(strings)
    numbers = np.full((n, len(COLUMNS)), np.nan)
    passes, alerts = np.full(n, np.nan), np.full(n, np.nan)
    bits = np.zeros((n, BITS // 8), np.uint8)
    canonical, flat, scaffold, fragments = ([""] * n for _ in range(4))
    with rdBase.BlockLogs():
        for row, string in enumerate(strings):
            mol = properties.molecule(string)
            if mol is None:
                continue
            canonical[row], flat[row] = str(Chem.MolToSmiles(mol)), properties.flattened(mol)
            bits[row] = np.packbits(_morgan().GetFingerprintAsNumPy(mol))
            if PROPERTIES in parts:
                scaffold[row], fragments[row], numbers[row] = _described(mol)
            elif SIX in parts:
                numbers[row, : len(LAWS)] = _laws(mol)
            if FILTERS in parts:
                passes[row], alerts[row] = filters.passes(mol), filters.alerts(mol)
    valid = np.array([bool(c) for c in canonical], bool)
    activations = np.zeros((n, 0), np.float32)
    if ACTIVATIONS in parts:
        activations = np.zeros((n, chemnet.WIDTH), np.float32)
        activations[valid] = chemnet.activations([c for c in canonical if c])
    names, alike, frames, parts_of = (_strings(v) for v in (canonical, flat, scaffold, fragments))
    return Table(valid, names, alike, bits, numbers, frames, parts_of, passes, alerts, activations)


def _strings(values: Sequence[str]) -> Strings:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


@cache
def _morgan() -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=BITS)


@cache
def _patterns() -> list[Any]:
    return [Chem.MolFromSmarts(smarts) for smarts in GROUPS.values()]


def scaffold_of(mol: Any) -> tuple[str, int, int]:
    """Canonical SMILES of the Murcko scaffold, its heavy atoms and its rings; "", 0, 0 without a ring."""
    try:
        frame: Any = MurckoScaffold.GetScaffoldForMol
        found = frame(mol)
        return str(Chem.MolToSmiles(found)), found.GetNumHeavyAtoms(), rdMolDescriptors.CalcNumRings(found)
    except (ValueError, RuntimeError):
        return "", 0, 0


def fragments_of(mol: Any) -> str:
    """SMILES of what is left when all bonds of BRICS are cut, joined by "."."""
    try:
        return str(Chem.MolToSmiles(rdmolops.FragmentOnBRICSBonds(mol)))
    except (ValueError, RuntimeError):
        return ""


def _laws(mol: Any) -> list[float]:
    """The numbers of LAWS. Wildman's logP and the weight are those that QED computes anyway."""
    aromatic = sum(atom.GetIsAromatic() for atom in mol.GetAtoms()) / max(mol.GetNumHeavyAtoms(), 1)
    desirable: Any = QED
    parts = desirable.properties(mol)
    solubility = properties.esol(parts.ALOGP, parts.MW, rdMolDescriptors.CalcNumRotatableBonds(mol), aromatic)
    qed = desirable.qed(mol, qedProperties=parts)
    return [parts.ALOGP, qed, properties.sa_score(mol), parts.MW, rdMolDescriptors.CalcTPSA(mol), solubility]


def _described(mol: Any) -> tuple[str, str, list[float]]:
    """Scaffold, fragments, and the numbers of COLUMNS."""
    atoms = list(mol.GetAtoms())
    symbols = [atom.GetSymbol() for atom in atoms if atom.GetAtomicNum() > 1]
    rings = [len(ring) for ring in mol.GetRingInfo().AtomRings()]
    scaffold, scaffold_atoms, scaffold_rings = scaffold_of(mol)
    bertz: Any = GraphDescriptors.BertzCT  # Bertz 1981, J. Am. Chem. Soc. 103:3599
    counts = [
        rdMolDescriptors.CalcNumHBD(mol), rdMolDescriptors.CalcNumHBA(mol), rdMolDescriptors.CalcNumRotatableBonds(mol), len(rings),
        rdMolDescriptors.CalcNumAromaticRings(mol), rdMolDescriptors.CalcNumAliphaticRings(mol), mol.GetNumHeavyAtoms(),
        rdMolDescriptors.CalcNumAtomStereoCenters(mol), sum(atom.GetFormalCharge() != 0 for atom in atoms),
    ]  # fmt: skip
    elements = [symbols.count(e) for e in ELEMENTS]
    sizes = [rings.count(int(r)) for r in RINGS[:-1]]
    groups = [len({match[0] for match in mol.GetSubstructMatches(pattern)}) for pattern in _patterns()]
    more = [bertz(mol), *counts, scaffold_atoms, scaffold_rings]
    numbers = [*_laws(mol), *more, *elements, len(symbols) - sum(elements), *sizes, len(rings) - sum(sizes), *groups]
    return scaffold, fragments_of(mol), [float(v) for v in numbers]


# ----------------------------------------------------------------------------------------------------------------- processes


def _shared_out(strings: Sequence[str], parts: Sequence[str], cores: int) -> Table:
    """Every core takes each `cores`-th string, so that all have about as much to do."""
    answers: list[bytes] = [b""] * cores
    failures: list[str] = [""] * cores

    def ask(core: int) -> None:
        surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        process = subprocess.Popen([*WORKER, *parts], stdin=pipe, stdout=pipe, stderr=pipe, env=surroundings)
        question = json.dumps(strings[core::cores] if isinstance(strings, list) else list(strings)[core::cores]).encode()
        answers[core], said = process.communicate(question)
        failures[core] = said.decode(errors="replace").strip()[-500:] if process.returncode else ""

    threads = [threading.Thread(target=ask, args=(core,)) for core in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if any(failures):
        raise RuntimeError(f"a process that measures molecules ended with an error: {next(f for f in failures if f)}")
    together = Table.join([_unpacked(answer) for answer in answers])
    order = np.concatenate([np.arange(core, len(strings), cores) for core in range(cores)])
    return together[np.argsort(order)]


def _packed(table: Table) -> bytes:
    """A table as the bytes of an npz: strings as lines, and of what was not measured only the width."""
    content = io.BytesIO()
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(table):
        value = getattr(table, field.name)
        if value.dtype.kind == "O":
            value = np.frombuffer("".join(f"{s}\n" for s in value.tolist()).encode(), np.uint8)
        elif value.dtype == np.float64 and np.isnan(value).all():
            value = value[:0]
        fields[field.name] = value
    np.savez(content, **fields)
    return content.getvalue()


def _unpacked(content: bytes) -> Table:
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        values = {field.name: found[field.name] for field in dataclasses.fields(Table)}
    for name in ("canonical", "flat", "scaffold", "fragments"):
        values[name] = _strings(values[name].tobytes().decode().split("\n")[:-1])
    for name in ("numbers", "passes", "alerts"):
        if not len(values[name]):
            values[name] = np.full((len(values["valid"]), *values[name].shape[1:]), np.nan)
    return Table(**values)


def main() -> None:
    """Measure the strings of a JSON list on standard input; the table goes to standard output as an npz."""
    answers, sys.stdout = sys.stdout.buffer, sys.stderr  # what a library prints must not come between the answers
    answers.write(_packed(measured_here(json.load(sys.stdin), sys.argv[1:])))
    answers.flush()


VERSION = f"RDKit {rdkit.__version__}"

if __name__ == "__main__":
    main()
