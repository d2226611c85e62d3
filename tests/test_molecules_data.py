"""Molecules as tensors, what follows from a geometry, the enumerated family, QM9's bonds, and nature in three parts."""

import csv
import gzip
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem, rdBase

from simulacra.sciences.molecules import qm9, simulate
from simulacra.sciences.molecules.conformers import conformer
from simulacra.sciences.molecules.data import (
    PROPERTIES,
    SYMBOLS,
    UNKNOWN,
    Molecule,
    Molecules,
    connectivity,
    divide,
    from_rdkit,
    geometric_properties,
    load,
    read_geometries,
    stacked,
    to_rdkit,
    unstacked,
)
from simulacra.sciences.molecules.formats import drawn_smiles, write
from simulacra.sciences.molecules.qm9 import Mismatch, bonds_from_smiles
from simulacra.study import Refused


@pytest.fixture(scope="module")
def molecules() -> Molecules:
    return simulate.simulated(60, seed=0)


def shaped(smiles: str) -> Molecule:
    return conformer(smiles, seed=0, largest=500)


def value(molecules: Molecules, name: str) -> list[float]:
    return molecules.properties[:, PROPERTIES.index(name)].tolist()


# ------------------------------------------------------------------------------------------------------------------------- tensors


@pytest.mark.parametrize(
    ("field", "change", "reason"),
    [
        ("numbers", lambda v: v.flip(1), "heavy atoms first"),
        ("numbers", lambda v: v.to(torch.int64), "numbers has shape"),
        ("numbers", lambda v: v * 0, "has no atom"),
        ("numbers", lambda v: torch.where(v == 6, 92, v), "element beyond I"),
        ("positions", lambda v: v / 0, "not finite"),
        ("positions", lambda v: v[:, :, :2], "positions has shape"),
        ("bonds", lambda v: v.triu(1), "differs between its two ends"),
        ("bonds", lambda v: v * 5, "bond outside none, single"),
        ("charges", lambda v: v[:3], "fields differ in length"),
    ],
)
def test_tensors_that_are_no_molecules_are_refused(molecules, field, change, reason):
    with pytest.raises(Refused, match=reason):
        replace(molecules, **{field: change(molecules.fields()[field])})


def test_rows_come_apart_and_together_again_in_any_order_of_atoms(molecules):
    singles = unstacked(molecules)
    rng = np.random.default_rng(0)
    shuffled = []
    for m in singles:
        order = rng.permutation(len(m.numbers))
        shuffled.append(Molecule(m.numbers[order], m.positions[order], m.charges[order], m.bonds[np.ix_(order, order)]))
    again = stacked(shuffled)
    assert torch.equal(again.numbers > 1, molecules.numbers > 1)
    assert connectivity(again) == connectivity(molecules)
    assert torch.allclose(again.properties.nan_to_num(), molecules.properties.nan_to_num(), atol=1e-3)
    same = stacked(singles)
    assert all(torch.equal(v.nan_to_num(), same.fields()[k].nan_to_num()) for k, v in molecules.fields().items())


def test_joining_and_trimming_keep_every_molecule(molecules):
    small, large = molecules[molecules.bucket <= 14].trimmed(), molecules[molecules.bucket > 14]
    joined = Molecules.join([small, large])
    joined.check()
    assert small.numbers.shape[1] <= 14
    assert sorted(connectivity(joined)) == sorted(connectivity(molecules))


def test_sizes_count_atoms_and_heavy_atoms():
    water_and_methane = stacked([shaped("O"), shaped("C")])
    assert water_and_methane.bucket.tolist() == [3, 5]
    assert water_and_methane.heavy.tolist() == [1, 1]


@pytest.mark.parametrize("smiles", ["CCO", "c1ccccc1", "[NH3+]CC(=O)[O-]", "C#N", "C[N+](=O)[O-]", "c1cc[nH]c1", "FC(Cl)(Br)I"])
def test_rdkits_form_and_ours_say_the_same(smiles):
    molecule = shaped(smiles)
    mol = to_rdkit(molecule)
    back = from_rdkit(mol)
    assert np.array_equal(back.bonds, molecule.bonds)
    assert np.array_equal(back.charges, molecule.charges)
    assert np.array_equal(back.positions, molecule.positions)
    name, sanitises = drawn_smiles(molecule)
    assert sanitises
    assert Chem.CanonSmiles(name, useChiral=False) == Chem.CanonSmiles(smiles, useChiral=False)


def test_a_molecule_of_unknown_bonds_has_no_rdkit_form(molecules):
    with pytest.raises(Refused, match="perceive them first"):
        to_rdkit(replace(unstacked(molecules[:1])[0], bonds=None))


# ------------------------------------------------------------------------------------------------------------------------ geometry


def test_two_equal_atoms_have_the_moments_of_a_dumbbell():
    """Radius of gyration d/2, moments 0, m d^2/2, m d^2/2."""
    apart = np.array([[[0, 0, 0], [0, 0, 3.0]]], np.float32)
    found = geometric_properties(np.array([[6, 6]], np.uint8), apart)[0]
    mass = 12.011
    expected = {"radius_of_gyration": 1.5, "inertia_a": 0, "inertia_b": mass * 4.5, "inertia_c": mass * 4.5}
    for name, wanted in expected.items():
        assert found[PROPERTIES.index(name)] == pytest.approx(wanted, rel=1e-4, abs=1e-4)
    assert np.isnan(found[PROPERTIES.index("alpha")])


def test_methane_is_a_spherical_top_and_flat_molecules_obey_the_perpendicular_axes():
    """Four masses m at distance r in a tetrahedron: every moment is 8/3 m r^2. In a plane the largest is the sum of the others."""
    corners = np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 1.09 / np.sqrt(3)
    methane = geometric_properties(np.array([[6, 1, 1, 1, 1]], np.uint8), corners[None].astype(np.float32))[0]
    assert methane[PROPERTIES.index("inertia_a") :] == pytest.approx([8 / 3 * 1.008 * 1.09**2] * 3, rel=1e-5)
    water = np.array([[[0, 0.1, 0], [0.76, -0.5, 0], [-0.7, -0.5, 0]]], np.float32)
    a, b, c = geometric_properties(np.array([[8, 1, 1]], np.uint8), water)[0][PROPERTIES.index("inertia_a") :]
    assert a + b == pytest.approx(c, rel=1e-5)
    assert 0 < a < b < c


def test_geometric_properties_do_not_change_when_a_molecule_is_turned_and_moved(molecules):
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    numbers, places = molecules.numbers.numpy(), molecules.positions.numpy()
    moved = np.where(numbers[..., None] > 0, places @ turn + [5, -3, 2], 0).astype(np.float32)
    before, after = geometric_properties(numbers, places)[:, 6:], geometric_properties(numbers, moved)[:, 6:]
    assert np.allclose(before, after, rtol=2e-4, atol=2e-3)


# ---------------------------------------------------------------------------------------------------------------- the enumerated family


def test_the_family_is_what_it_says(molecules):
    names = [drawn_smiles(m) for m in unstacked(molecules)]
    assert all(sanitises for _, sanitises in names)
    assert len({Chem.CanonSmiles(name, useChiral=False) for name, _ in names}) == 60
    assert {SYMBOLS[z] for z in molecules.numbers.unique().tolist() if z} == {"C", "N", "O", "H"}
    assert int(molecules.heavy.max()) <= 9
    assert not molecules.charges.any()
    mols = [Chem.MolFromSmiles(name) for name, _ in names]
    assert all(sum(a.GetNumRadicalElectrons() for a in m.GetAtoms()) == 0 for m in mols)
    assert all("." not in name for name, _ in names)
    heavy = [m.GetNumAtoms() + sum(a.GetTotalNumHs() for a in m.GetAtoms()) for m in mols]
    assert sorted(heavy) == sorted(molecules.bucket.tolist())


def test_bond_lengths_of_the_family_are_those_of_chemistry(molecules):
    """C-H 1.09 within a few hundredths; C-C single 1.40 (conjugated) to 1.60 (strained); C=O 1.15 to 1.30."""
    ranges = {(6, 1, 1): (1.05, 1.13), (6, 6, 1): (1.36, 1.62), (6, 8, 2): (1.15, 1.30), (6, 7, 3): (1.14, 1.18), (6, 6, 4): (1.34, 1.45)}
    seen = dict.fromkeys(ranges, 0)
    for m in unstacked(molecules):
        for i, j in np.argwhere(np.triu(m.bonds)):
            kind = (max(6, int(m.numbers[i])), int(m.numbers[j]), int(m.bonds[i, j]))
            if kind in ranges and m.numbers[i] == 6:
                low, high = ranges[kind]
                assert low < np.linalg.norm(m.positions[i] - m.positions[j]) < high, kind
                seen[kind] += 1
    assert min(seen.values()) > 0


def test_the_family_is_seeded_and_grows_without_changing_what_came_before():
    first, again, other = simulate.family(12, seed=5), simulate.family(15, seed=5), simulate.family(12, seed=6)
    assert torch.equal(first.positions, again[:12].trimmed().positions)
    assert connectivity(first) != connectivity(other)


def test_simulated_molecules_are_remembered_and_a_damaged_memory_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMULACRA_CACHE", str(tmp_path / "cache"))
    first = simulate.simulated(10, seed=1)
    (file,) = (tmp_path / "cache").iterdir()
    monkeypatch.setattr(simulate, "family", lambda n, seed: pytest.fail("made again"))
    assert torch.equal(simulate.simulated(10, seed=1).positions, first.positions)
    monkeypatch.undo()
    monkeypatch.setenv("SIMULACRA_CACHE", str(tmp_path / "cache"))
    file.write_bytes(file.read_bytes()[:500])
    assert torch.equal(simulate.simulated(10, seed=1).positions, first.positions)
    (tmp_path / "blocked").write_text("a file where a folder should be")
    monkeypatch.setenv("SIMULACRA_CACHE", str(tmp_path / "blocked"))
    assert torch.equal(simulate.simulated(10, seed=1).positions, first.positions)


def test_three_hundred_molecules_are_made_in_seconds():
    """60 here, and a bar that a busy machine passes."""
    start = time.process_time()
    simulate.family(60, seed=9)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("n", [0, -1, 5001])
def test_too_many_or_no_simulated_molecules_are_refused(n):
    with pytest.raises(Refused, match="expected 1 to 5000"):
        simulate.simulated(n, seed=0)


# ----------------------------------------------------------------------------------------------------------------- QM9 and its bonds


@pytest.mark.parametrize("smiles", ["CCO", "c1ccncc1", "C#CC=O", "C1CC2CC12", "C[N+]#[C-]", "N=C1COC1", "c1cn[nH]c1", "C=C=O"])
def test_bonds_of_a_smiles_are_laid_onto_shuffled_atoms(smiles):
    whole = shaped(smiles)
    order = np.random.default_rng(2).permutation(len(whole.numbers))
    found = bonds_from_smiles(whole.numbers[order], whole.positions[order], smiles)
    assert np.array_equal(found.bonds, whole.bonds[np.ix_(order, order)])
    assert np.array_equal(found.charges, whole.charges[order])


def test_double_bonds_sit_where_distances_are_short():
    """Hydrogen counts alone would let the double bonds of this ring lie in two ways."""
    whole = shaped("CC1=CC(C)=CC=CC=C1")
    found = bonds_from_smiles(whole.numbers, whole.positions, "CC1=CC=CC=CC(C)=C1")
    lengths = {kind: [] for kind in (1, 2)}
    for i, j in np.argwhere(np.triu(found.bonds)):
        if found.numbers[i] == found.numbers[j] == 6:
            lengths[int(found.bonds[i, j])].append(np.linalg.norm(found.positions[i] - found.positions[j]))
    assert max(lengths[2]) < min(lengths[1])


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("CCC", "cannot be laid onto"),  # one oxygen missing
        ("CCCO", "has 4 heavy atoms, the geometry 3"),
        ("COC", "cannot be laid onto"),
        ("C1CO1", "cannot be laid onto"),
        ("C(C)(C)(C)(C)C", "does not sanitise"),
    ],
)
def test_a_smiles_of_another_molecule_is_a_mismatch(smiles, reason):
    ethanol = shaped("CCO")
    with rdBase.BlockLogs(), pytest.raises(Mismatch, match=reason):
        bonds_from_smiles(ethanol.numbers, ethanol.positions, smiles)


def test_hydrogen_that_flew_away_is_a_mismatch():
    ethanol = shaped("CCO")
    places = ethanol.positions.copy()
    places[-1] += 9
    with pytest.raises(Mismatch, match="bonded to no heavy atom"):
        bonds_from_smiles(ethanol.numbers, places, "CCO")


@pytest.fixture
def small_qm9(tmp_path, molecules):
    """A folder like that of QM9, of 40 simulated molecules, one with the SMILES of another, one without."""
    few = molecules[:40]
    real = few.numbers > 0
    np.savez(
        tmp_path / "qm9_geometry.npz", positions=few.positions[real].numpy(), atomic_numbers=few.numbers[real].numpy(),
        n_atoms=few.bucket.numpy().astype(np.uint8), index=np.arange(1, 41, dtype=np.int32), split=(np.arange(40) >= 30).astype(np.uint8),
    )  # fmt: skip
    names = [drawn_smiles(m)[0] for m in unstacked(few)]
    with gzip.open(tmp_path / "qm9_smiles.csv.gz", "wt", newline="") as file:
        table = csv.writer(file)
        table.writerow(["index", "smiles"])
        table.writerows([[i, "CCCCCCCCC" if i == 7 else name] for i, name in enumerate(names, 1) if i != 9])
    with gzip.open(tmp_path / "qm9_properties_3000.csv.gz", "wt", newline="") as file:
        file.write("index,alpha,homo,lumo,gap,mu,cv\n3,70.5,-0.25,0.05,0.3,1.5,30\n9,1,1,1,1,1,1\n")
    return tmp_path


def test_a_folder_with_qm9_is_read_with_bonds_parts_and_labels(small_qm9, molecules, monkeypatch):
    monkeypatch.setattr(qm9, "HELD_OUT", 6)
    split = load(data=small_qm9, seed=0, simulated=10)
    assert [len(part) for part in (split.train, split.validation, split.held_out)] == [28, 4, 6]
    kept = [i for i in range(30) if i not in (6, 8)]
    assert torch.equal(split.train.bonds, molecules[kept].bonds[:, : split.train.numbers.shape[1], : split.train.numbers.shape[1]])
    assert len(split.rejected) == 2
    assert split.rejected[0].startswith("QM9 record 7: ")
    assert "SMILES CCCCCCCCC" in split.rejected[0]
    assert "QM9 record 9: no SMILES is known" in split.rejected[1]
    assert set(split.files) == {"qm9_geometry.npz", "qm9_smiles.csv.gz"}
    assert "28 to train" in split.origin
    assert value(split.train, "alpha")[2] == 70.5
    assert value(split.train, "homo")[2] == pytest.approx(-0.25 * 27.211386, rel=1e-6)
    assert np.isnan(value(split.train, "alpha")[3])
    assert value(split.train, "radius_of_gyration")[2] == pytest.approx(value(molecules, "radius_of_gyration")[2])
    again = load(data=small_qm9, seed=0, simulated=10)
    assert torch.equal(again.train.bonds, split.train.bonds)


def test_a_folder_without_qm9_is_refused(tmp_path):
    with pytest.raises(Refused, match=r"lacks qm9_geometry\.npz and qm9_smiles\.csv\.gz"):
        load(data=tmp_path, seed=0, simulated=10)


def test_bonds_of_qm9_give_back_its_smiles(data_folder):
    folder = data_folder / "molecules"
    if not (folder / "qm9_geometry.npz").is_file():
        pytest.skip("molecules/qm9_geometry.npz is not in the folder of real data")
    found = read_geometries(folder / "qm9_geometry.npz")
    with gzip.open(folder / "qm9_smiles.csv.gz", "rt") as lines:
        known = {int(row["index"]): row["smiles"] for row in csv.DictReader(lines)}
    ends = np.cumsum(found["n_atoms"], dtype=np.int64)
    rows = range(0, len(ends), 400)
    for row in rows:
        part = slice(int(ends[row]) - int(found["n_atoms"][row]), int(ends[row]))
        smiles = known[int(found["index"][row])]
        molecule = bonds_from_smiles(found["atomic_numbers"][part], found["positions"][part], smiles)
        name, sanitises = drawn_smiles(molecule)
        assert sanitises
        drawn = Chem.RemoveAllHs(Chem.MolFromSmiles(name))
        assert Chem.MolToSmiles(drawn, isomericSmiles=False) == Chem.CanonSmiles(smiles, useChiral=False)
    assert len(rows) > 250


# ---------------------------------------------------------------------------------------------------------------- nature in three parts


def test_without_data_simulated_molecules_are_divided_eight_to_one_to_one():
    split = load(data=None, seed=0, simulated=60)
    assert [len(part) for part in (split.train, split.validation, split.held_out)] == [48, 6, 6]
    assert "60 molecules of an enumerated family" in split.origin
    assert "simulated, seed 0" in split.origin
    (line,) = split.files
    assert line == "simulated(60, seed=0)"
    assert split.files == load(data=None, seed=0, simulated=60).files
    names = [set(connectivity(part)) for part in (split.train, split.validation, split.held_out)]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]


@pytest.mark.parametrize("ending", [".sdf", ".xyz", ".npz", ".xyz.gz"])
def test_conformers_mirror_images_and_shuffled_copies_of_a_molecule_stay_on_one_side(molecules, tmp_path, ending):
    rng = np.random.default_rng(3)
    singles = unstacked(molecules[:40])
    twice = []
    for m in singles:
        order = rng.permutation(len(m.numbers))
        mirrored = m.positions[order] * np.array([-1, 1, 1], np.float32) + 7
        twice.append(Molecule(m.numbers[order], mirrored, m.charges[order], m.bonds[np.ix_(order, order)]))
    both = singles + twice
    bare = stacked([replace(m, bonds=None) for m in both]) if ending.startswith(".xyz") else stacked(both)
    write(bare, tmp_path / f"x{ending}")
    split = load(data=tmp_path / f"x{ending}", seed=0, simulated=10)
    parts = [connectivity(part) for part in (split.train, split.validation, split.held_out)]
    assert [len(part) for part in parts] == [64, 8, 8]
    assert not set(parts[0]) & set(parts[1])
    assert not set(parts[0]) & set(parts[2])
    assert not set(parts[1]) & set(parts[2])
    assert f"x{ending}: 80 molecules" in split.origin
    assert len(next(iter(split.files.values()))) == 64


def test_the_division_does_not_depend_on_the_order_of_records(molecules):
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    names = np.array(connectivity(molecules))
    for rows, shuffled in zip(divide(molecules), divide(molecules[order]), strict=True):
        assert set(names[rows]) == set(names[order.numpy()][shuffled])


def test_connectivity_tells_isomers_apart_and_resonance_forms_not():
    names = connectivity(stacked([shaped(s) for s in ("CCO", "COC", "CC(=O)O", "OC(C)=O", "OCC=O", "CC(O)C", "CCCO")]))
    assert len(set(names)) == 6
    assert names[2] == names[3]
    benzene = shaped("c1ccccc1")
    kekule = to_rdkit(benzene)
    Chem.SanitizeMol(kekule)
    Chem.Kekulize(kekule, clearAromaticFlags=True)
    bare = replace(benzene, bonds=None)
    assert len(set(connectivity(stacked([benzene, from_rdkit(kekule), bare])))) == 1


def test_rejected_records_and_what_was_added_are_told(tmp_path):
    names = ["C" * k + end for k in range(1, 7) for end in ("O", "N", "=O")]
    (tmp_path / "x.smi").write_text("\n".join([*names, "C1CC broken"]) + "\n")
    split = load(data=tmp_path / "x.smi", seed=4, simulated=10)
    assert len(split.train) + len(split.validation) + len(split.held_out) == 18
    assert "conformers made from SMILES by ETKDG and MMFF94" in split.origin
    assert len(split.rejected) == 1
    assert "broken" in split.rejected[0]
    again = load(data=tmp_path / "x.smi", seed=4, simulated=10)
    assert torch.equal(again.train.positions, split.train.positions)


def test_a_trajectory_of_one_molecule_is_refused(molecules, tmp_path):
    write(molecules[[0] * 30], tmp_path / "x.sdf")
    with pytest.raises(Refused, match="30 conformations of 1 different molecules"):
        load(data=tmp_path / "x.sdf", seed=0, simulated=10)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_whatever_the_seed_the_grammar_gives_closed_shells_of_at_most_nine_heavy_atoms(seed):
    for _, smiles in zip(range(5), simulate.enumerated(seed), strict=False):
        mol = Chem.MolFromSmiles(smiles)
        assert mol.GetNumAtoms() <= 9
        assert Chem.MolToSmiles(mol) == smiles
        assert not any(a.GetNumRadicalElectrons() or a.GetFormalCharge() for a in mol.GetAtoms())


def test_bonds_are_unknown_throughout_or_known_throughout(molecules):
    mixed = stacked([unstacked(molecules[:1])[0], replace(unstacked(molecules[1:2])[0], bonds=None)])
    assert (mixed.bonds[0] >= 0).all()
    k = int(mixed.bucket[1])
    assert (mixed.bonds[1, :k, :k] == UNKNOWN).all()
    assert unstacked(mixed)[1].bonds is None
