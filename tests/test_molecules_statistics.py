"""Measurements of molecules against known geometry and chemistry, and a judge that must catch planted faults and nothing else."""

import csv
import dataclasses
import gzip
import itertools
import time

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.transform import Rotation

pytest.importorskip("rdkit", reason='rdkit is not installed: pip install "simulacra[chem]"')
from rdkit import Chem, rdBase
from rdkit.Chem import AllChem

from simulacra.evidence import Evidence
from simulacra.measures.distance import counts_wasserstein, exceedances
from simulacra.sciences.molecules import checks, descriptors, pictures, protocols
from simulacra.sciences.molecules.data import UNKNOWN, Molecule, Molecules, from_rdkit, stacked
from simulacra.sciences.molecules.descriptors import GROUPS, Values
from simulacra.sciences.molecules.statistics import judge, pooled_wasserstein, shared_between_nodes, with_bonds
from simulacra.study import Refused

ENDS = ("C", "CC", "CO", "CN", "CC#N", "C(C)(C)O", "C(C)=O", "C#C", "OC", "NC", "C1CC1", "CCC")
CORES = ("C1CCCC1", "C1=CCOC1", "CC(=O)C", "COC(=O)", "c1ccoc1", "C1CN1", "CC(O)", "C=C", "NC(=O)", "c1ccncc1", "C", "C1OC1")
OTHER_CORES = (
    "C1CCC1", "C1=CCNC1", "CCC(=O)", "CCOC(=O)", "c1cc[nH]c1", "C1CCN1", "CCC(O)", "CC=C", "CNC(=O)", "c1ccccc1", "CC(C)", "C1OC1C",
)  # fmt: skip


def molecule(smiles: str, seed: int = 1) -> Molecule:
    """A molecule with hydrogens and a geometry by distance geometry."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    with rdBase.BlockLogs():
        assert AllChem.EmbedMolecule(mol, randomSeed=seed) == 0, smiles
    return from_rdkit(mol)


def made(*smiles: str) -> Molecules:
    return stacked([molecule(s) for s in smiles])


def placed(symbols: str, positions: np.ndarray, bonds: dict[tuple[int, int], int]) -> Molecules:
    """One molecule at given places; `bonds` by pairs of atoms."""
    numbers = np.array([{"H": 1, "C": 6, "N": 7, "O": 8}[s] for s in symbols], np.uint8)
    matrix = np.zeros((len(numbers), len(numbers)), np.int8)
    for (i, j), order in bonds.items():
        matrix[i, j] = matrix[j, i] = order
    return stacked([Molecule(numbers, np.asarray(positions, np.float32), np.zeros(len(numbers), np.int8), matrix)])


def geometry(molecules: Molecules) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return molecules.numbers.numpy(), molecules.positions.numpy().astype(float), molecules.bonds.numpy()


def with_fields(molecules: Molecules, **fields: torch.Tensor) -> Molecules:
    return Molecules(**{**molecules.fields(), **fields})


def turned(molecules: Molecules, mirror: bool = False) -> Molecules:
    """Each molecule turned by a rotation of its own, moved, and mirrored if asked for."""
    turns = Rotation.random(len(molecules), random_state=3).as_matrix() * (-1 if mirror else 1)
    moved = np.einsum("nij,naj->nai", turns, molecules.positions.numpy()) + np.arange(3.0)
    real = (molecules.numbers > 0).numpy()[..., None]
    return with_fields(molecules, positions=torch.from_numpy((moved * real).astype(np.float32)))


@pytest.fixture(scope="module")
def zoo() -> tuple[Molecules, Molecules, Molecules]:
    """Small molecules in two parts drawn at random, to judge with, and others of the same build to train on."""
    known = {Chem.CanonSmiles(core + end) for core, end in itertools.product(CORES, ENDS)}
    others = {Chem.CanonSmiles(core + end) for core, end in itertools.product(OTHER_CORES, ENDS)} - known
    nature = [molecule(smiles, seed=7) for smiles in sorted(known)]
    order = np.random.default_rng(2).permutation(len(nature))
    first, second = (stacked([nature[i] for i in half]) for half in np.array_split(order[:132], 2))
    return first, second, stacked([molecule(smiles, seed=8) for smiles in sorted(others)])


def verdict(nature: Molecules, drawn: Molecules, training: Molecules | None = None) -> Evidence:
    return judge(nature, drawn, seed=0, training=training, permutations=199, halves=20)


def named(evidence: Evidence) -> dict[str, object]:
    return {f.name: f for f in [*evidence.findings, *evidence.checks]}


# ------------------------------------------------------------------------------------------------------- known geometry


def test_methane_has_the_tetrahedral_angle_and_no_contact():
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 1.09 / 3**0.5
    methane = placed("CHHHH", np.concatenate([np.zeros((1, 3)), corners]), {(0, h): 1 for h in range(1, 5)})
    angles = descriptors.bond_angles(*geometry(methane))
    assert angles.value == pytest.approx(np.full(6, np.degrees(np.arccos(-1 / 3))), abs=1e-4)
    assert set(angles.kind.tolist()) == {6}
    assert descriptors.bond_lengths(*geometry(methane)).value == pytest.approx(np.full(4, 1.09), abs=1e-6)
    assert np.isnan(descriptors.closest_contact(*geometry(methane))[0])
    assert len(descriptors.dihedrals(*geometry(methane)).value) == 0


def test_a_regular_benzene_has_one_ring_of_six_and_angles_of_120_degrees():
    turn = np.radians(60 * np.arange(6))
    ring = np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1)
    bonds = {(i, (i + 1) % 6): 4 for i in range(6)} | {(i, i + 6): 1 for i in range(6)}
    benzene = placed("CCCCCCHHHHHH", np.concatenate([1.395 * ring, 2.48 * ring]), bonds)
    graph = descriptors.read_graphs(benzene)
    assert graph.rings[0].tolist() == [0, 0, 0, 1, 0]
    assert graph.smiles == ["c1ccccc1"]
    assert descriptors.bond_angles(*geometry(benzene)).value == pytest.approx(np.full(18, 120), abs=1e-3)
    lengths = descriptors.bond_lengths(*geometry(benzene))
    assert lengths.value[lengths.kind == descriptors.bond_kind(6, 6, 4)] == pytest.approx(np.full(6, 1.395), abs=1e-5)
    assert lengths.value[lengths.kind == descriptors.bond_kind(1, 6, 1)] == pytest.approx(np.full(6, 1.085), abs=1e-5)
    assert descriptors.closest_contact(*geometry(benzene))[0] == pytest.approx(2.48, abs=1e-5)  # hydrogens on neighbouring carbons


@pytest.mark.parametrize(
    ("twist", "expected"), [(0, [0] * 3 + [120] * 6), (60, [60] * 6 + [180] * 3), (40, [40] * 3 + [80] * 3 + [160] * 3)]
)
def test_ethane_has_its_nine_dihedral_angles(twist, expected):
    around = np.radians(120 * np.arange(3))
    near = np.stack([np.cos(around), np.sin(around), 0 * around - 0.36], axis=1)
    far = np.stack([np.cos(around + np.radians(twist)), np.sin(around + np.radians(twist)), 0 * around + 1.54 + 0.36], axis=1)
    carbons = np.array([[0, 0, 0], [0, 0, 1.54]])
    bonds = {(0, 1): 1} | {(0, h): 1 for h in (2, 3, 4)} | {(1, h): 1 for h in (5, 6, 7)}
    found = descriptors.dihedrals(*geometry(placed("CCHHHHHH", np.concatenate([carbons, near, far]), bonds)))
    assert np.sort(found.value) == pytest.approx(np.array(expected), abs=1e-3)
    assert set(found.kind.tolist()) == {0}  # every chain ends in a hydrogen


def test_a_planar_zigzag_of_four_carbons_has_one_heavy_dihedral_of_180_degrees():
    places = np.array([[0, 0, 0], [1.3, 0.8, 0], [2.6, 0, 0], [3.9, 0.8, 0]])
    found = descriptors.dihedrals(*geometry(placed("CCCC", places, {(0, 1): 1, (1, 2): 1, (2, 3): 1})))
    assert found.value == pytest.approx([180])
    assert found.kind.tolist() == [1]


def test_straight_chains_and_triangles_have_no_dihedral():
    straight = placed("CCCC", np.arange(4.0)[:, None] * [1.2, 0, 0], {(0, 1): 1, (1, 2): 1, (2, 3): 1})
    triangle = placed("CCC", np.array([[0, 0, 0], [1.5, 0, 0], [0.75, 1.3, 0]]), {(0, 1): 1, (1, 2): 1, (0, 2): 1})
    assert len(descriptors.dihedrals(*geometry(straight)).value) == 0
    assert len(descriptors.dihedrals(*geometry(triangle)).value) == 0


def test_angles_and_dihedrals_equal_those_of_rdkit():
    from rdkit.Chem import rdMolTransforms

    from simulacra.sciences.molecules.data import to_rdkit, unstacked

    molecules = made("CC(N)C(=O)OC", "C1CC1CO")
    angles, torsions = descriptors.bond_angles(*geometry(molecules)), descriptors.dihedrals(*geometry(molecules))
    for row, single in enumerate(unstacked(molecules)):
        mol = to_rdkit(single)
        shape, neighbours = mol.GetConformer(), [[a.GetIdx() for a in atom.GetNeighbors()] for atom in mol.GetAtoms()]
        pairs = [(i, j, k) for j, near in enumerate(neighbours) for i, k in itertools.combinations(near, 2)]
        expected = [rdMolTransforms.GetAngleDeg(shape, *p) for p in pairs]
        assert np.sort(angles.value[angles.row == row]) == pytest.approx(np.sort(expected), abs=1e-3)
        single_bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds() if b.GetBondType() == Chem.BondType.SINGLE]
        heavy = [(b, c) for b, c in single_bonds if mol.GetAtomWithIdx(b).GetAtomicNum() > 1 and mol.GetAtomWithIdx(c).GetAtomicNum() > 1]
        chains = [(a, b, c, d) for b, c in heavy for a in neighbours[b] for d in neighbours[c] if a != c and d != b and a != d]
        found = [abs(rdMolTransforms.GetDihedralDeg(shape, *chain)) for chain in chains]
        assert np.sort(torsions.value[torsions.row == row]) == pytest.approx(np.sort(found), abs=1e-3)


# --------------------------------------------------------------------------------------------------------- known graphs


@pytest.mark.parametrize(
    ("smiles", "groups"),
    [
        ("CCO", {"hydroxyl": 1}),
        ("CC(=O)O", {"carboxylic acid": 1}),
        ("CC(=O)OC", {"ester": 1}),
        ("COC", {"ether": 1}),
        ("C1CO1", {"epoxide": 1}),
        ("CC=O", {"aldehyde": 1}),
        ("C=O", {"aldehyde": 1}),
        ("CC(=O)C", {"ketone": 1}),
        ("CC(=O)NC", {"amide": 1}),
        ("CC#N", {"nitrile": 1}),
        ("CN", {"primary amine": 1}),
        ("CNC", {"secondary amine": 1}),
        ("CN(C)C", {"tertiary amine": 1}),
        ("C1CN1", {"aziridine": 1}),
        ("CC=N", {"imine": 1}),
        ("CC(N)=N", {"primary amine": 0, "amidine or imidate": 1}),
        ("C=CC=C", {"alkene": 2}),
        ("C#CC", {"alkyne": 1}),
        ("c1ccccc1O", {"hydroxyl": 1, "aromatic ring atom": 6}),
        ("c1ccoc1", {"aromatic ring atom": 5}),
        ("CF", {"halide": 1}),
        ("C[N+](=O)[O-]", {"nitro": 1}),
        ("OCC(=O)N(C)C", {"hydroxyl": 1, "amide": 1}),
    ],
)
def test_functional_groups_are_counted_once_and_not_taken_for_others(smiles, groups):
    counts = dict(zip(GROUPS, descriptors.read_graphs(made(smiles)).groups[0].tolist(), strict=True))
    expected = dict.fromkeys(GROUPS, 0) | groups
    assert counts == expected


@pytest.mark.parametrize(
    ("smiles", "rotatable"), [("CCCC", 1), ("CCO", 0), ("CCCCCC", 3), ("Cc1ccccc1", 0), ("CCC#CC", 0), ("C1CC1C1CC1", 1)]
)
def test_rotatable_bonds_are_single_outside_rings_and_not_at_the_ends(smiles, rotatable):
    assert descriptors.read_graphs(made(smiles)).rotatable.tolist() == [rotatable]


def test_rings_are_counted_by_size():
    found = descriptors.read_graphs(made("C1CC1", "C1CCC1", "C1CC2CCC1C2", "c1ccc2ccccc2c1", "C1CCCCCC1", "CC")).rings
    assert found.tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 2, 0, 0], [0, 0, 0, 2, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]


def test_a_graph_reads_the_same_whether_its_rings_are_written_aromatic_or_kekule():
    aromatic = Chem.AddHs(Chem.MolFromSmiles("Cc1ccncc1"))
    AllChem.EmbedMolecule(aromatic, randomSeed=1)
    kekule = Chem.Mol(aromatic)
    Chem.Kekulize(kekule, clearAromaticFlags=True)
    pair = [descriptors.read_graphs(stacked([from_rdkit(mol)])) for mol in (aromatic, kekule)]
    for field in dataclasses.fields(descriptors.Graph):
        assert np.array_equal(*(np.asarray(getattr(graph, field.name)) for graph in pair)), field.name


def test_a_heap_of_sixty_atoms_is_read_at_once_without_a_smiles():
    heap = stacked([Molecule(np.full(60, 6, np.uint8), np.zeros((60, 3), np.float32), np.zeros(60, np.int8), None)])
    known = with_bonds(heap)[0]
    began = time.process_time()
    graph = descriptors.read_graphs(known)
    assert time.process_time() - began < 5
    assert graph.smiles == [""]
    assert graph.rings[0].tolist() == [60 * 59 // 2 - 59, 0, 0, 0, 0]
    assert pictures.caption(known) == ["C60"]


def test_the_skeleton_hash_sees_constitution_and_neither_order_of_atoms_nor_bond_orders():
    one = molecule("CC(O)CC=O")
    order = np.random.default_rng(0).permutation(len(one.numbers))
    mixed = Molecule(one.numbers[order], one.positions[order], one.charges[order], one.bonds[np.ix_(order, order)])
    single = dataclasses.replace(one, bonds=(one.bonds > 0).astype(np.int8))
    same = descriptors.skeleton_hash(stacked([one, mixed, single]))
    assert len(set(same.tolist())) == 1
    others = descriptors.skeleton_hash(made("CC(O)CC=O", "CCC(O)C=O", "CC(=O)CCO", "CCCC(=O)O", "CC(N)CC=O", "CCO"))
    assert len(set(others.tolist())) == 6
    assert others[0] == same[0]


def test_the_coulomb_spectrum_does_not_change_under_rotation_reflection_and_order_and_tells_conformers_apart():
    molecules = stacked([molecule("CCCO", seed) for seed in (1, 2, 3)])
    one = descriptors.coulomb_spectrum(*geometry(molecules)[:2], 6)
    for mirror in (False, True):
        assert descriptors.coulomb_spectrum(*geometry(turned(molecules, mirror))[:2], 6) == pytest.approx(one, abs=1e-4)
    back = molecules.positions.clone()
    back[:, :4] = back[:, [2, 1, 0, 3]]  # the three carbons in another order
    assert descriptors.coulomb_spectrum(molecules.numbers.numpy(), back.numpy().astype(float), 6) == pytest.approx(one, abs=1e-9)
    assert np.abs(one[0] - one[1:]).max(axis=1).min() > 1e-3
    assert (one[:, 4:] == 0).all()


def test_one_carbon_has_the_coulomb_eigenvalue_of_a_free_atom():
    spectrum = descriptors.coulomb_spectrum(np.array([[6, 1]], np.uint8), np.zeros((1, 2, 3)), 2)
    assert spectrum == pytest.approx(np.array([[0.5 * 6**2.4, 0]]))


# ------------------------------------------------------------------------------------------------------------ distances


def test_a_shift_of_all_values_by_less_than_a_step_is_measured_exactly():
    rng = np.random.default_rng(0)
    grid = np.linspace(0, 1, 11)
    row, value = np.repeat(np.arange(40), 3), rng.uniform(0.2, 0.8, 120)
    before = shared_between_nodes(Values(row, value, row), 40, grid)
    after = shared_between_nodes(Values(row, value + 0.013, row), 40, grid)
    both, half = np.concatenate([before, after]), np.concatenate([np.ones(40), np.zeros(40)]) / 40
    assert pooled_wasserstein(0.1)(both, half[None], half[None, ::-1]) == pytest.approx(0.013, abs=1e-12)


def test_pooled_laws_are_compared_as_scipy_compares_all_values():
    rng = np.random.default_rng(1)
    grid = np.linspace(0, 20, 21)
    a, b = Values(rng.integers(0, 5, 30), rng.integers(0, 21, 30).astype(float), np.zeros(30, int)), None
    b = Values(rng.integers(0, 5, 50), rng.integers(5, 21, 50).astype(float), np.zeros(50, int))
    rows = np.concatenate([shared_between_nodes(v, 5, grid) for v in (a, b)])
    first = np.repeat([0.2, 0.0], 5)
    found = pooled_wasserstein(1.0)(rows, first[None], first[None, ::-1])
    assert found == pytest.approx(stats.wasserstein_distance(a.value, b.value))


def test_a_law_without_values_is_as_far_away_as_the_axis_is_long():
    rows = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    p, q = np.array([[1.0, 0, 0], [0, 1.0, 0]]), np.array([[0, 1.0, 0], [0, 0, 1.0]])
    assert pooled_wasserstein(0.5)(rows, p, q).tolist() == [1.0, 0.0]


def test_counts_are_compared_as_scipy_compares_each_kind():
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 6, (30, 3)), rng.integers(1, 4, (30, 3))
    rows = exceedances(np.concatenate([a, b]), 6)
    first = np.repeat([1 / 30, 0.0], 30)
    expected = sum(stats.wasserstein_distance(a[:, k], b[:, k]) for k in range(3))
    assert counts_wasserstein(rows, first[None], first[None, ::-1]) == pytest.approx(expected)


# -------------------------------------------------------------------------------------------------------------- verdict


def test_two_halves_of_nature_are_judged_equal_and_every_floor_lies_below_its_ceiling(zoo):
    evidence = verdict(zoo[0], zoo[1], zoo[2])
    assert not evidence.differs
    assert {f.name for f in evidence.findings if not f.floor < f.ceiling} == set()
    names = [f.name for f in evidence.findings]
    assert len(set(names)) == len(names)
    recognised = ("memorisation", "coverage (share missed)", "precision (share outside)", "classifier two-sample test")
    assert set(recognised) <= set(names)
    assert {"length C-H", "length C-C", "length C-O", "bond angle at C", "bond angle at O", "dihedral angle (heavy atoms)"} <= set(names)
    gaps = np.array([f.gap for f in evidence.findings])
    assert np.isfinite(gaps).all()
    assert abs(np.median(gaps)) < 0.1
    assert Evidence.from_json(evidence.to_json()).worst_first()[0].name == evidence.worst_first()[0].name


def test_the_verdict_does_not_change_when_drawn_molecules_are_turned_or_mirrored(zoo):
    plain, mirrored = named(verdict(zoo[0], zoo[1])), named(verdict(zoo[0], turned(zoo[1], mirror=True)))
    assert plain.keys() == mirrored.keys()
    for name, found in plain.items():
        if hasattr(found, "distance"):
            assert mirrored[name].distance == pytest.approx(found.distance, rel=1e-3, abs=1e-4), name
            assert mirrored[name].p == pytest.approx(found.p, abs=0.03) if found.p is not None else True, name
        elif np.isfinite(found.value):
            assert mirrored[name].value == pytest.approx(found.value, rel=1e-3, abs=1e-4), name


def test_bonds_two_percent_too_long_are_caught(zoo):
    evidence = verdict(zoo[0], with_fields(zoo[1], positions=zoo[1].positions * 1.02))
    found = named(evidence)
    assert evidence.differs
    assert found["length C-H"].p <= 0.01
    assert found["length C-H"].distance == pytest.approx(0.02 * 1.1, rel=0.15)
    assert found["bond angle at C"].gap < 0.3  # scaling changes no angle
    assert found["functional groups"].p > 0.01


def test_mode_collapse_is_caught_by_coverage_and_by_the_composition(zoo):
    evidence = verdict(zoo[0], zoo[1][[5] * len(zoo[1])])
    found = named(evidence)
    assert evidence.differs
    assert found["coverage (share missed)"].gap > 0.8
    assert found["classifier two-sample test"].gap > 0.5
    assert found["functional groups"].p <= 0.01
    assert not found["MiDi uniqueness"].met
    assert found["MiDi uniqueness"].value == pytest.approx(1 / len(zoo[1]))


def test_copied_training_molecules_are_caught_and_novel_ones_are_not(zoo):
    copied, honest = named(verdict(zoo[0], turned(zoo[2][: len(zoo[0])]), zoo[2])), named(verdict(zoo[0], zoo[1], zoo[2]))
    assert copied["memorisation"].gap > 0.8
    assert not copied["memorisation ratio"].met
    assert honest["memorisation"].gap < 0.3
    assert honest["memorisation ratio"].met


def test_a_generator_that_finds_training_and_held_out_molecules_alike_has_memorisation_ratio_one(zoo):
    nature, training = zoo[0], zoo[2]
    held = round(len(nature) ** 2 / (len(nature) + len(training)))
    drawn = Molecules.join([nature[:held], training[: len(nature) - held]])
    found = named(verdict(nature, drawn, training))["memorisation ratio"]
    assert found.value == pytest.approx(1, rel=0.1)
    assert found.met
    assert 0.1 < found.error < 0.5


def test_single_bonds_written_double_are_caught(zoo):
    evidence = verdict(zoo[0], with_fields(zoo[1], bonds=torch.where(zoo[1].bonds == 1, 2, zoo[1].bonds.int()).to(torch.int8)))
    found = named(evidence)
    assert evidence.differs
    assert found["bonds by type"].gap > 1
    assert found["length C-C"].distance == pytest.approx(0.8)  # none there: the length of the axis
    for name in ("MiDi molecule stability", "strict validity"):
        assert found[name].value < 0.05
        assert found[name].beside[checks.NATURE] == pytest.approx(1, abs=0.05)
    assert found["EDM molecule stability"].value > 0.5  # the table sees distances only, and they are right


def test_missing_hydrogens_are_caught(zoo):
    numbers = torch.where(zoo[1].numbers == 1, 0, zoo[1].numbers.int()).to(torch.uint8)
    heavy = numbers > 0
    bare = with_fields(
        zoo[1], numbers=numbers, positions=zoo[1].positions * heavy[..., None], bonds=zoo[1].bonds * (heavy[:, None] & heavy[:, :, None])
    )
    evidence = verdict(zoo[0], bare)
    found = named(evidence)
    assert evidence.differs
    assert found["atoms by element"].p <= 0.01
    assert found["atoms per molecule"].p <= 0.01
    assert found["strict validity"].value == 0
    assert any("unpaired electrons" in remark for remark in evidence.remarks)


def test_charged_molecules_are_caught_and_counted(zoo):
    charges = zoo[1].charges.clone()
    charges[:, 0] = -1
    evidence = verdict(zoo[0], with_fields(zoo[1], charges=charges))
    assert named(evidence)["formal charges"].p <= 0.01
    assert any(f"{len(charges)} are not neutral" in remark for remark in evidence.remarks)


def test_clouds_of_atoms_are_judged_without_failing_and_all_of_them_count(zoo):
    rng = np.random.default_rng(0)
    real = (zoo[1].numbers > 0)[..., None]
    cloud = torch.from_numpy(rng.normal(size=zoo[1].positions.shape).astype(np.float32)) * real
    cloud[:6] = 0  # atoms on top of each other
    cloud[6:12] *= 50  # nothing is bonded
    drawn = with_fields(zoo[1], positions=cloud, bonds=torch.full_like(zoo[1].bonds, UNKNOWN))
    evidence = verdict(zoo[0], drawn, zoo[2])
    found = named(evidence)
    assert evidence.differs
    assert evidence.drawn_rows == len(drawn)
    assert found["precision (share outside)"].gap > 0.6
    assert found["EDM molecule stability"].value < 0.05
    assert any(f"nobody stated the bonds of {len(drawn)} molecules" in remark for remark in evidence.remarks)


def test_bonds_that_nobody_stated_are_read_from_the_distances():
    ethanol = made("CCO")
    unknown = with_fields(ethanol, bonds=torch.full_like(ethanol.bonds, UNKNOWN))
    known, count = with_bonds(unknown)
    assert count == 1
    assert torch.equal(known.bonds, ethanol.bonds)
    assert with_bonds(ethanol)[1] == 0


def test_equal_sizes_are_a_condition_and_others_a_finding(zoo):
    same = named(verdict(zoo[0], turned(zoo[0])))
    assert "atoms per molecule" not in same
    assert "atoms per molecule" in named(verdict(zoo[0], zoo[1]))


def test_of_unequal_numbers_as_many_are_compared_as_the_smaller_side_has_and_scores_take_all(zoo):
    evidence = verdict(zoo[0], zoo[1][:40])
    assert (evidence.nature_rows, evidence.drawn_rows) == (40, 40)
    assert any(f"40 of {len(zoo[0])} molecules were chosen at random" in remark for remark in evidence.remarks)
    assert named(evidence)["EDM atom stability"].beside[checks.NATURE] == protocols.edm(zoo[0]).atom_stability


def test_too_few_molecules_are_refused(zoo):
    with pytest.raises(Refused, match="fewer than 20"):
        judge(zoo[0], zoo[1][:10], seed=0)


# --------------------------------------------------------------------------------------------------------------- checks


def test_the_error_of_a_ratio_is_that_of_the_jackknife():
    rng = np.random.default_rng(0)
    whole = rng.integers(5, 25, 200)
    part = rng.binomial(whole, 0.9)
    value, error = checks._ratio(part, whole)
    left_out = np.array([(part.sum() - a) / (whole.sum() - b) for a, b in zip(part, whole, strict=True)])
    assert value == part.sum() / whole.sum()
    assert error == pytest.approx(np.sqrt((len(whole) - 1) * left_out.var()), rel=0.02)


def test_checks_say_what_the_protocols_say(zoo):
    found = named(verdict(zoo[0], zoo[1]))
    edm, midi = protocols.edm(zoo[1]), protocols.midi(zoo[1], zoo[0])
    assert found["EDM atom stability"].value == edm.atom_stability
    assert found["EDM molecule stability"].value == edm.molecule_stability
    assert found["strict validity"].value == protocols.strict(zoo[1]).validity
    assert found["MiDi atom stability"].value == midi.atom_stability
    assert found["MiDi validity"].value == midi.smiles.validity
    assert found["MiDi BondLengthsW1 (Å)"].value == pytest.approx(midi.distances["BondLengthsW1"])
    assert found["MiDi AtomTV"].value == pytest.approx(midi.distances["AtomTV"])


# ------------------------------------------------------------------------------------------------------------- pictures


def runs_of_ink(picture: np.ndarray, column: int) -> int:
    """How many separate things a vertical line through the picture crosses."""
    ink = (picture[:, column].min(axis=1) < 0.9).astype(int)
    return int((np.diff(ink) == 1).sum())


def test_single_double_and_triple_bonds_can_be_seen():
    images = pictures.picture(made("CC", "C=C", "C#C"))
    assert images.shape == (3, 200, 200, 3)
    assert images.min() >= 0
    assert images.max() <= 1
    assert (images[:, :5] == 1).all()
    assert [runs_of_ink(image, 100) for image in images] == [1, 2, 3]


def test_pictures_show_colours_of_elements_and_do_not_depend_on_how_a_molecule_lies():
    amine, ether = pictures.picture(made("CN", "COC"))
    assert ((amine[..., 2] - amine[..., 0]) > 0.3).sum() > 100
    assert ((ether[..., 0] - ether[..., 2]) > 0.3).sum() > 100
    one = made("CC(N)C=O")
    assert np.abs(pictures.picture(one) - pictures.picture(turned(one))).mean() < 2e-3


def test_molecules_are_not_mirrored_in_their_pictures():
    places = made("CC(N)C=O").positions[0].double().numpy()
    seen = pictures.along_principal_axes(places)
    volume = [np.linalg.det(x[1:4] - x[0]) for x in (places, seen)]
    assert volume[0] == pytest.approx(volume[1])
    spread = seen.std(axis=0)
    assert spread[0] > spread[1] > spread[2]


@pytest.mark.parametrize(("atoms", "spread"), [(1, 0.0), (12, 0.0), (12, 40.0)])
def test_single_atoms_heaps_and_scattered_atoms_have_a_picture(atoms, spread):
    places = spread * np.random.default_rng(0).normal(size=(atoms, 3)).astype(np.float32)
    image = pictures.picture(stacked([Molecule(np.full(atoms, 8, np.uint8), places, np.zeros(atoms, np.int8), None)]))[0]
    assert np.isfinite(image).all()
    assert ((image[..., 0] - image[..., 2]) > 0.1).any()  # the red of oxygen
    assert (image[:5] == 1).all()


def test_captions_are_smiles_or_formulas():
    molecules = made("OCC", "C#N")
    assert pictures.caption(molecules) == ["CCO", "C#N"]
    unknown = with_fields(molecules, bonds=torch.full_like(molecules.bonds, UNKNOWN))
    assert pictures.caption(unknown) == ["C2H6O", "CHN"]
    assert pictures.formula([8, 1, 1, 0]) == "H2O"


# ------------------------------------------------------------------------------------------------------------ real data


@pytest.fixture(scope="module")
def held_out(data_folder):
    from simulacra.sciences.molecules.data import read_geometries
    from simulacra.sciences.molecules.qm9 import bonds_from_smiles

    folder = data_folder / "molecules"
    if not (folder / "qm9_geometry.npz").exists():
        pytest.skip(f"{folder} holds no qm9_geometry.npz")
    arrays = read_geometries(folder / "qm9_geometry.npz")
    with gzip.open(folder / "qm9_smiles.csv.gz", "rt") as lines:
        smiles = {int(row["index"]): row["smiles"] for row in csv.DictReader(lines)}
    ends = np.cumsum(arrays["n_atoms"].astype(np.int64))
    found = []
    for row in np.random.default_rng(0).permutation(len(ends))[:1000]:
        part = slice(ends[row] - int(arrays["n_atoms"][row]), ends[row])
        found.append(bonds_from_smiles(arrays["atomic_numbers"][part], arrays["positions"][part], smiles[int(arrays["index"][row])]))
    return stacked(found)


def test_two_halves_of_qm9_are_judged_equal_and_every_floor_lies_below_its_ceiling(held_out):
    evidence = verdict(held_out[:500], held_out[500:])
    assert not evidence.differs
    assert {f.name for f in evidence.findings if not f.floor < f.ceiling} == set()
    assert all(check.met for check in evidence.checks)
    assert named(evidence)["EDM molecule stability"].value == pytest.approx(0.957, abs=0.03)


def test_published_samples_of_gschnet_are_told_from_qm9(held_out, data_folder):
    path = data_folder / "molecules" / "samples_gschnet_qm9.npz"
    if not path.exists():
        pytest.skip(f"no {path.name} in the folder of real data")
    with np.load(path, allow_pickle=False) as arrays:
        sizes, positions, numbers = arrays["n_atoms"], arrays["positions"], arrays["atomic_numbers"]
    ends = np.cumsum(sizes.astype(np.int64))
    chosen = np.random.default_rng(0).permutation(len(sizes))[:500]
    parts = [slice(ends[i] - int(sizes[i]), ends[i]) for i in chosen]
    drawn = stacked([Molecule(numbers[p], positions[p], np.zeros(len(numbers[p]), np.int8), None) for p in parts])
    evidence = verdict(held_out[:500], drawn)
    found = named(evidence)
    assert evidence.differs
    assert found["EDM molecule stability"].value == pytest.approx(0.68, abs=0.06)
    assert found["EDM molecule stability"].error == pytest.approx(0.021, abs=0.003)
    assert found["strict validity"].value < 0.9
