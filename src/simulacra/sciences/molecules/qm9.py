"""QM9: where it comes from, and how the bonds of its geometries are known.

QM9 (Ramakrishnan et al. 2014, Sci. Data 1:140022) holds 133,885 molecules of up to nine heavy atoms, relaxed with
B3LYP/6-31G(2df,p). Its geometries carry no bonds; they are taken from the SMILES of the same record, laid onto the geometry by
matching heavy atoms with their hydrogen counts (`bonds_from_smiles`), so no bond is guessed from a distance alone. Records where
geometry and SMILES tell two molecules are set aside and counted.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import torch
from numpy.typing import NDArray

from simulacra import __version__
from simulacra.runs import sha256, write_atomically
from simulacra.sciences.molecules.data import COVALENT_RADIUS, PROPERTIES, Molecule, Molecules, read_geometries, stacked
from simulacra.study import Split

HELD_OUT = 15_000  # molecules of QM9's validation part that are kept to judge with


class Mismatch(ValueError):
    """A geometry and a SMILES that tell two different molecules."""


def bonds_from_smiles(numbers: NDArray[np.uint8], positions: NDArray[np.float32], smiles: str) -> Molecule:
    """Geometry (atoms,), (atoms, 3) with the bonds and charges of `smiles`.

    Atoms closer than 1.3 times the sum of their covalent radii may be bonded (across a small cage they need not be), those closer
    than 1.1 times must be; each hydrogen belongs to its nearest heavy atom. The heavy atoms of the SMILES, with their hydrogen
    counts, are matched onto this graph. Of several matches (a ring where double bonds can sit in two places) the one whose bond
    orders fit the distances best is taken: short bonds are the high ones.
    Raises Mismatch where there is none.
    """
    from rdkit import Chem

    template = Chem.MolFromSmiles(smiles)
    if template is None:
        raise Mismatch(f"SMILES {smiles} does not sanitise")
    template = Chem.RemoveAllHs(template)  # also those that tell the two sides of an imine apart
    heavy = np.flatnonzero(numbers > 1)
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    owner, hydrogens = _hydrogen_owners(numbers, distance, heavy)
    target = Chem.RWMol()
    for i in heavy:
        atom = Chem.Atom(int(numbers[i]))
        atom.SetIsotope(1 + int(hydrogens[i]))
        atom.SetNoImplicit(True)
        target.AddAtom(atom)
    reach = np.array([COVALENT_RADIUS[int(z)] for z in numbers[heavy]])
    near = distance[np.ix_(heavy, heavy)] < 1.3 * (reach[:, None] + reach[None])
    for a, b in zip(*np.nonzero(np.triu(near, 1)), strict=True):
        target.AddBond(int(a), int(b), Chem.BondType.SINGLE)
    query = Chem.RWMol()
    for atom in template.GetAtoms():
        copy = Chem.Atom(atom.GetAtomicNum())
        copy.SetIsotope(1 + atom.GetTotalNumHs())
        copy.SetNoImplicit(True)
        query.AddAtom(copy)
    for bond in template.GetBonds():
        query.AddBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), Chem.BondType.SINGLE)
    if query.GetNumAtoms() != len(heavy):
        raise Mismatch(f"SMILES {smiles} has {query.GetNumAtoms()} heavy atoms, the geometry {len(heavy)}")
    matches = target.GetSubstructMatches(query, uniquify=False, maxMatches=256)
    if not matches:
        raise Mismatch(f"the atoms of SMILES {smiles} cannot be laid onto the geometry")
    order = {Chem.BondType.SINGLE: 1, Chem.BondType.DOUBLE: 2, Chem.BondType.TRIPLE: 3, Chem.BondType.AROMATIC: 4}
    ends = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx(), order[b.GetBondType()]) for b in template.GetBonds()]
    weight = np.array([0.0, 1.0, 2.0, 3.0, 1.5])
    best = min(matches, key=lambda m: sum(weight[o] * distance[heavy[m[a]], heavy[m[b]]] for a, b, o in ends))
    bonds = np.zeros((len(numbers), len(numbers)), np.int8)
    for a, b, o in ends:
        i, j = heavy[best[a]], heavy[best[b]]
        bonds[i, j] = bonds[j, i] = o
    certain = distance[np.ix_(heavy, heavy)] < 1.1 * (reach[:, None] + reach[None])
    if (np.triu(certain, 1) & (bonds[np.ix_(heavy, heavy)] == 0)).any():
        raise Mismatch(f"two atoms that SMILES {smiles} does not join are at the distance of a bond")
    for hydrogen, heavy_atom in owner.items():
        bonds[heavy_atom, hydrogen] = bonds[hydrogen, heavy_atom] = 1
    charges = np.zeros(len(numbers), np.int8)
    for atom in template.GetAtoms():
        charges[heavy[best[atom.GetIdx()]]] = atom.GetFormalCharge()
    return Molecule(numbers, positions, charges, bonds)


def _hydrogen_owners(numbers: Any, distance: Any, heavy: Any) -> tuple[dict[int, int], Any]:
    counts = np.zeros(len(numbers), int)
    owner = {}
    for h in np.flatnonzero(numbers == 1):
        if not len(heavy):
            raise Mismatch("a molecule of hydrogen only")
        i = int(heavy[distance[h, heavy].argmin()])
        if distance[h, i] > 1.3 * (COVALENT_RADIUS[1] + COVALENT_RADIUS[int(numbers[i])]):
            raise Mismatch("a hydrogen is bonded to no heavy atom")
        owner[int(h)] = i
        counts[i] += 1
    return owner, counts


def qm9(geometry: Path, smiles: Path) -> tuple[Molecules, NDArray[Any], list[str]]:
    """QM9 with bonds: molecules, their index and part (0 train, 1 validation), and one line per record that was set aside.

    Matching takes two minutes; the outcome is remembered in the user's cache folder (SIMULACRA_CACHE), keyed by both files.
    """
    arrays = read_geometries(geometry)
    with gzip.open(smiles, "rt", encoding="utf-8", newline="") as lines:
        known = {int(row["index"]): row["smiles"] for row in csv.DictReader(lines)}
    key = hashlib.sha256(f"{__version__} 2 {sha256(geometry)} {sha256(smiles)}".encode()).hexdigest()[:32]
    path = Path(os.environ.get("SIMULACRA_CACHE") or pooch.os_cache("simulacra")) / f"qm9-{key}.npz"
    fields, which, rejected = _remembered(path) or _matched(arrays, known, path)
    kept = np.column_stack([arrays["index"][which], arrays["split"][which]])
    return Molecules(**{k: torch.from_numpy(v) for k, v in fields.items()}), kept, rejected


def _matched(geometries: Mapping[str, Any], known: Mapping[int, str], path: Path) -> tuple[dict[str, Any], Any, list[str]]:
    ends = np.cumsum(geometries["n_atoms"], dtype=np.int64)
    molecules, which, rejected = [], [], []
    for row, (stop, size) in enumerate(zip(ends, geometries["n_atoms"], strict=True)):
        part = slice(int(stop) - int(size), int(stop))
        name = int(geometries["index"][row])
        try:
            if name not in known:
                raise Mismatch("no SMILES is known")
            molecules.append(bonds_from_smiles(geometries["atomic_numbers"][part], geometries["positions"][part], known[name]))
            which.append(row)
        except Mismatch as reason:
            rejected.append(f"QM9 record {name}: {reason}")
    fields = {k: v.numpy() for k, v in stacked(molecules).fields().items()}
    buffer = io.BytesIO()
    arrays = {**fields, "which": np.array(which), "rejected": np.array(rejected, str)}
    save: Any = np.savez_compressed  # its annotations take every keyword for an option
    save(buffer, **arrays)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
    return fields, np.array(which), rejected


def _remembered(path: Path) -> tuple[dict[str, Any], Any, list[str]] | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        which, rejected = found.pop("which"), found.pop("rejected")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return found, which, rejected.tolist()


def qm9_split(folder: Path) -> Split[Molecules]:
    """QM9 from a folder with qm9_geometry.npz and qm9_smiles.csv.gz, in the parts of Hoogeboom et al. (2022) as far as the files
    hold them: their training part trains; of their validation part 15,000 are held out to judge with, the rest validates."""
    geometry, smiles = folder / "qm9_geometry.npz", folder / "qm9_smiles.csv.gz"
    molecules, kept, rejected = qm9(geometry, smiles)
    molecules = with_labels(molecules, kept[:, 0], folder)
    train = np.flatnonzero(kept[:, 1] == 0)
    rest = np.random.default_rng(0).permutation(np.flatnonzero(kept[:, 1] == 1))
    held_out, validation = np.sort(rest[:HELD_OUT]), np.sort(rest[HELD_OUT:])
    origin = f"QM9 (B3LYP geometries): {len(train):,} to train, {len(validation):,} to validate, {len(held_out):,} held out"
    files = {str(path.name): sha256(path) for path in (geometry, smiles)}
    parts = [molecules[torch.from_numpy(rows)] for rows in (train, validation, held_out)]
    return Split(parts[0], parts[1], parts[2], origin, files, rejected)


LABELS = {"alpha": "alpha", "homo": "homo", "lumo": "lumo", "gap": "gap", "mu": "mu", "cv": "cv"}
HARTREE = 27.211386245988  # eV, CODATA 2018


def with_labels(molecules: Molecules, index: NDArray[Any], folder: Path) -> Molecules:
    """QM9's computed properties where the folder has them (3,000 molecules, and the gap of 26,125), joined by record number."""
    place = {int(name): row for row, name in enumerate(index)}
    values = molecules.properties.clone()
    for name, scale in (("qm9_gap_eV.csv.gz", {}), ("qm9_properties_3000.csv.gz", {"homo": HARTREE, "lumo": HARTREE, "gap": HARTREE})):
        if not (folder / name).exists():
            continue
        with gzip.open(folder / name, "rt", encoding="utf-8", newline="") as lines:
            for record in csv.DictReader(lines):
                row = place.get(int(record["index"]))
                if row is None:
                    continue
                columns = {"gap": record["gap_eV"]} if "gap_eV" in record else {k: record[v] for k, v in LABELS.items()}
                for label, value in columns.items():
                    values[row, PROPERTIES.index(label)] = float(value) * scale.get(label, 1.0)
    return Molecules(**{**molecules.fields(), "properties": values})
