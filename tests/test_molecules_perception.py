"""Bonds from positions: the table against its own words, and a process that no molecule can hold up."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from rdkit import Chem, rdBase
from rdkit.Chem import AllChem

from simulacra.sciences.molecules import perception
from simulacra.sciences.molecules.data import ATOMIC_NUMBER, SYMBOLS, UNKNOWN, Molecule, from_rdkit, stacked, to_rdkit, unstacked
from simulacra.sciences.molecules.perception import edm_bonds, perceive
from simulacra.sciences.molecules.timebox import WORKER, TimeBox, Unanswered
from simulacra.study import Refused


def embedded(smiles):
    """A molecule with the geometry that RDKit's force field gives it."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=7) == 0
    AllChem.MMFFOptimizeMolecule(mol)
    return from_rdkit(mol)


def without_bonds(molecule):
    return Molecule(molecule.numbers, molecule.positions, np.zeros_like(molecule.charges), None)


def pair(first, second, angstrom):
    numbers = np.array([ATOMIC_NUMBER[first], ATOMIC_NUMBER[second]], np.uint8)
    return Molecule(numbers, np.array([[0, 0, 0], [angstrom, 0, 0]], np.float32), np.zeros(2, np.int8), None)


def order_of(first, second, picometres):
    return int(edm_bonds(stacked([pair(first, second, picometres / 100)]))[0, 0, 1])


# ------------------------------------------------------------------------------------------------------------------ the table


@pytest.mark.parametrize(
    ("first", "second", "edges"),
    [
        ("C", "C", (164, 139, 123)), ("C", "N", (157, 134, 119)), ("C", "O", (153, 125, 116)), ("N", "N", (155, 130, 113)),
        ("N", "O", (150, 126)), ("O", "O", (158, 126)), ("C", "H", (119,)), ("O", "H", (106,)), ("H", "H", (84,)), ("C", "F", (145,)),
    ],
)  # fmt: skip
def test_each_bond_order_begins_just_below_its_length_and_margin(first, second, edges):
    for order, edge in enumerate(edges, start=1):
        assert order_of(first, second, edge - 0.1) == order
        assert order_of(first, second, edge + 0.1) == order - 1


def test_a_carbonyl_of_130_pm_is_read_as_a_single_bond():
    assert order_of("C", "O", 122) == 2
    assert order_of("C", "O", 130) == 1


def test_the_table_is_the_same_from_both_ends_and_orders_never_rise_with_distance():
    limits = perception.LIMITS
    assert torch.equal(limits, limits.transpose(1, 2))
    assert ((limits[1:] < limits[:-1]) | (limits[1:] == 0)).all()


def test_elements_and_pairs_outside_the_table_are_never_bonded():
    assert order_of("Na", "Cl", 100) == 0
    assert order_of("B", "N", 100) == 0


def test_padding_and_an_atom_itself_are_never_bonded():
    orders = edm_bonds(stacked([embedded("CCO"), pair("H", "H", 0.74)]))
    assert orders[1].sum() == 2
    assert (orders.diagonal(dim1=1, dim2=2) == 0).all()


def test_many_blocks_give_what_one_block_gives(monkeypatch):
    molecules = stacked([without_bonds(embedded(s)) for s in ("C", "CCO", "c1ccccc1", "CC#N", "C=O")])
    whole = edm_bonds(molecules)
    monkeypatch.setattr(perception, "BLOCK", 2 * molecules.numbers.shape[1] ** 2)
    assert torch.equal(edm_bonds(molecules), whole)


def test_the_table_finds_the_bonds_of_small_molecules_without_resonance():
    for smiles in ("C", "CCO", "CC#N", "C=O", "C=C", "N", "O", "CC(C)C", "FC"):
        molecule = embedded(smiles)
        assert np.array_equal(edm_bonds(stacked([molecule]))[0].numpy(), stacked([molecule]).bonds[0].numpy()), smiles


def test_turning_moving_and_renumbering_a_molecule_does_not_change_its_bonds():
    molecule = embedded("CC(=O)N")
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    order = np.r_[rng.permutation(4), 4 + rng.permutation(len(molecule.numbers) - 4)]
    moved = Molecule(molecule.numbers[order], (molecule.positions @ turn + 5)[order].astype(np.float32), molecule.charges[order], None)
    first, second = (edm_bonds(stacked([m]))[0].numpy() for m in (molecule, moved))
    assert np.array_equal(first[np.ix_(order, order)], second)


# ------------------------------------------------------------------------------------------------------------------- perceive


def test_only_molecules_with_unknown_bonds_are_touched():
    known = embedded("CC=O")
    planted = Molecule(known.numbers, known.positions, known.charges, np.zeros_like(known.bonds))
    found = perceive(stacked([planted, without_bonds(known)]))
    assert (found.bonds[0] == 0).all()
    assert np.array_equal(found.bonds[1].numpy(), stacked([known]).bonds[0].numpy())
    whole = stacked([known])
    assert perceive(whole) is whole


def test_rdkit_finds_bonds_charges_and_aromatic_rings():
    names = ["c1ccccc1", "C[N+](=O)[O-]", "O=C1C=CC(=O)C=C1", "c1cc[nH]c1"]
    found = perceive(stacked([without_bonds(embedded(s)) for s in names]), "rdkit", seconds=30)
    with rdBase.BlockLogs():
        for molecule, smiles in zip(unstacked(found), names, strict=True):
            mol = to_rdkit(molecule)
            Chem.SanitizeMol(mol)
            assert Chem.MolToSmiles(Chem.RemoveHs(mol)) == Chem.CanonSmiles(smiles)


def test_rdkit_is_told_the_total_charge():
    ammonium = stacked([without_bonds(embedded("[NH4+]"))])
    reasons = []
    assert (perceive(ammonium, "rdkit", seconds=30, failed=lambda row, why: reasons.append((row, why))).bonds == UNKNOWN).all()
    assert reasons[0][0] == 0
    assert reasons[0][1]
    found = perceive(ammonium, "rdkit", seconds=30, charge=1)
    assert found.charges.sum() == 1
    assert (found.bonds[0, 0, 1:] == 1).all()


def test_what_rdkit_cannot_explain_stays_unknown_with_the_reason_and_the_next_is_done():
    positions = np.array([[0, 0, 0], [1.0, 0, 0], [-1.0, 0, 0], [0, 1.0, 0]], np.float32)
    nonsense = Molecule(np.array([8, 1, 1, 1], np.uint8), positions, np.zeros(4, np.int8), None)
    reasons = {}
    found = perceive(stacked([nonsense, without_bonds(embedded("CO"))]), "rdkit", seconds=30, failed=reasons.__setitem__)
    assert list(reasons) == [0]
    assert (found.bonds[0, :4, :4] == UNKNOWN).all()
    assert (found.bonds[1] != UNKNOWN).all()


@pytest.mark.parametrize("wrong", [{"method": "openbabel"}, {"method": "rdkit", "seconds": 0}])
def test_a_method_or_limit_that_there_is_not_is_refused(wrong):
    with pytest.raises(Refused):
        perceive(stacked([pair("C", "O", 1.2)]), **wrong)


# ------------------------------------------------------------------------------------------------------------------ the time box

SLEEPER = "import sys, time; print('ready', flush=True); [time.sleep(600) for _ in sys.stdin]"
DYING = "import os, sys; print('ready', flush=True); sys.stdin.readline(); os._exit(1)"
ECHO = "import sys; print('ready', flush=True); [print(line, end='', flush=True) for line in sys.stdin]"


def test_a_question_without_an_end_is_given_up_within_the_limit_and_its_process_killed():
    with TimeBox(0.3, [sys.executable, "-c", SLEEPER]) as box:
        process = box._started()
        start = time.monotonic()
        with pytest.raises(Unanswered, match=r"longer than 0\.3 s"):
            box.ask({"task": "bonds"})
        assert time.monotonic() - start < 5
        assert process.poll() is not None
        with pytest.raises(Unanswered, match="longer"):  # a new worker is asked, and is no better
            box.ask({"task": "bonds"})


def test_a_worker_that_dies_is_reported_and_replaced():
    with TimeBox(30, [sys.executable, "-c", DYING]) as box:
        for _ in range(2):
            with pytest.raises(Unanswered, match="ended"):
                box.ask({"task": "bonds"})


def test_one_worker_serves_many_questions_and_ends_with_its_box():
    with TimeBox(30, [sys.executable, "-c", ECHO]) as box:
        process = box._started()
        answers = [box.ask({"number": i})["number"] for i in range(20)]
        assert box._process is process
    assert answers == list(range(20))
    assert process.poll() is not None


def sulphur_chain(atoms):
    """A zigzag of sulphur that RDKit tries every combination of valences of, when it is asked for a charge that cannot be."""
    place = np.array([[1.6 * i, 0.9 * (i % 2), 0] for i in range(atoms)], np.float32)
    return Molecule(np.full(atoms, 16, np.uint8), place, np.zeros(atoms, np.int8), None)


def test_a_molecule_that_rdkit_would_work_on_for_years_is_given_up_and_the_next_is_done():
    reasons = {}
    molecules = stacked([sulphur_chain(24), pair("S", "S", 2.0)])
    start = time.monotonic()
    found = perceive(molecules, "rdkit", seconds=2, charge=1, failed=reasons.__setitem__)
    assert time.monotonic() - start < 60
    assert reasons[0] == "took longer than 2 s"
    assert (found.bonds[0] == UNKNOWN).all()
    assert "longer" not in reasons.get(1, "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no interval timer")
def test_the_system_ends_a_worker_whose_asker_is_gone():
    chain = sulphur_chain(24)
    question = {"task": "bonds", "numbers": chain.numbers.tolist(), "positions": chain.positions.tolist(), "charge": 1, "seconds": 0.5}
    pipe = subprocess.PIPE
    with subprocess.Popen(WORKER, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as worker:
        assert worker.stdout.readline() == "ready\n"
        worker.stdin.write(json.dumps(question) + "\n")
        worker.stdin.close()
        assert worker.wait(timeout=60) == -signal.SIGALRM


def test_a_worker_loads_no_torch():
    code = "import sys; import simulacra.sciences.molecules.timebox; print(sorted({'torch', 'rdkit', 'numpy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_worker_takes_no_library_from_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "rdkit.py").write_text("raise SystemExit('not the library')")
    monkeypatch.chdir(tmp_path)
    found = perceive(stacked([without_bonds(embedded("CO"))]), "rdkit", seconds=30)
    assert (found.bonds != UNKNOWN).all()


def test_every_symbol_of_the_tables_is_an_element():
    for table in (perception.SINGLE, perception.DOUBLE, perception.TRIPLE):
        assert {s for a, row in table.items() for s in (a, *row)} <= set(SYMBOLS[1:])
