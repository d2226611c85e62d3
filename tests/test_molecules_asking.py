"""Templates for drawing: sizes, formulas, scaffolds and properties, and what is refused."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from simulacra.sciences.molecules.asking import ask, sizes
from simulacra.sciences.molecules.data import (
    ATOMIC_NUMBER,
    ELEMENT_GIVEN,
    POSITION_GIVEN,
    PROPERTIES,
    SYMBOLS,
    Molecules,
    stacked,
    unstacked,
)
from simulacra.sciences.molecules.formats import write
from simulacra.sciences.molecules.simulate import simulated
from simulacra.study import Refused

QM9 = (1, 6, 7, 8)
SEEN = torch.tensor([[5, 1], [12, 4], [18, 9], [18, 8], [18, 8], [18, 7], [21, 9], [29, 9]])


def formula(template: Molecules, row: int) -> dict[str, int]:
    return dict(Counter(SYMBOLS[z] for z in template.numbers[row].tolist() if z))


def column(template: Molecules, name: str) -> list[float]:
    return template.properties[:, PROPERTIES.index(name)].tolist()


@pytest.fixture
def ethanol_core(tmp_path):
    """C-C-O in place with the hydrogen of the oxygen, carbons open: heavy and hydrogen atoms mixed in the file."""
    block = """core
  test              3D

  4  3  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 C   0  0
    1.9000    1.7000    0.3000 H   0  0
    1.5100    0.0000    0.0000 C   0  0
    2.0400    0.8000    0.1000 O   0  0
  1  3  1  0
  3  4  1  0
  4  2  1  0
M  END
"""
    path = tmp_path / "core.sdf"
    path.write_text(block)
    return path


def test_without_conditions_sizes_follow_training_and_are_the_same_in_every_call():
    molecules = simulated(60, seed=0)
    template = ask(sizes(molecules), 600, {}, QM9)
    template.check()
    pairs = Counter(zip(molecules.bucket.tolist(), molecules.heavy.tolist(), strict=True))
    asked = Counter(zip(template.bucket.tolist(), template.heavy.tolist(), strict=True))
    assert asked == {pair: 10 * count for pair, count in pairs.items()}
    again = ask(sizes(molecules), 600, {}, QM9)
    assert torch.equal(template.numbers, again.numbers)
    assert not template.given.any()
    assert template.properties.isnan().all()


def test_a_few_rows_are_spread_over_the_quantiles_of_size():
    assert ask(SEEN, 2, {}, QM9).bucket.tolist() == [18, 21]  # the quartiles
    assert ask(SEEN, 8, {}, QM9).bucket.tolist() == [5, 12, 18, 18, 18, 18, 21, 29]


def test_atoms_count_hydrogens_and_heavy_atoms_are_as_in_training_molecules_of_that_size():
    template = ask(SEEN, 4, {"atoms": "18"}, QM9)
    assert template.bucket.tolist() == [18] * 4
    assert template.heavy.tolist() == [7, 8, 8, 9]


def test_a_size_between_those_of_training_borrows_the_heavy_atoms_of_the_nearest():
    assert ask(SEEN, 1, {"atoms": "22"}, QM9).heavy.tolist() == [9]


def test_several_sizes_are_spread_over_the_rows():
    assert ask(SEEN, 4, {"atoms": "12,21"}, QM9).bucket.tolist() == [12, 12, 21, 21]


@pytest.mark.parametrize("text", ["C7H10O2", "H10O2C7", "CO2C6H10"])
def test_a_formula_gives_every_element(text):
    template = ask(SEEN, 3, {"formula": text}, QM9)
    template.check()
    for row in range(3):
        assert formula(template, row) == {"C": 7, "O": 2, "H": 10}
    assert (template.given == ELEMENT_GIVEN).all()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("C7H11O2", "unpaired electron"),
        ("C2H8", "can bind 6 hydrogens, not 8"),
        ("C3H10N", "unpaired|can bind"),
        ("N2H8", "can bind 4 hydrogens"),
        ("C7Xy2", "Xy is no element"),
        ("C4H9Cl", "never seen Cl"),
        ("c7h10", "expected symbols and counts"),
        ("C7H10O2+", "expected symbols and counts"),
        ("(CH3)2CO", "expected symbols and counts"),
        ("", "expected symbols and counts"),
        ("C0H4", "no sensible number"),
        ("C40H82", "learned from molecules of 5 to 29 atoms"),
    ],
)
def test_an_impossible_formula_is_refused_with_the_reason(text, reason):
    with pytest.raises(Refused, match=reason):
        ask(SEEN, 1, {"formula": text}, QM9)


def test_halogens_count_as_hydrogens_do():
    elements = (*QM9, ATOMIC_NUMBER["F"])
    ask(SEEN, 1, {"formula": "CF4"}, elements)
    with pytest.raises(Refused, match="can bind 4 hydrogens and halogens, not 6"):
        ask(SEEN, 1, {"formula": "CH3F3"}, elements)


def test_every_simulated_molecule_has_a_possible_formula():
    molecules = simulated(60, seed=0)
    for row in range(60):
        text = "".join(f"{symbol}{count}" for symbol, count in formula(molecules, row).items())
        assert formula(ask(sizes(molecules), 1, {"formula": text}, QM9), 0) == formula(molecules, row)


def test_a_scaffold_stays_in_place_with_its_bonds_and_atoms_are_added(ethanol_core):
    template = ask(SEEN, 5, {"fix": str(ethanol_core), "atoms": "18"}, QM9)
    template.check()
    assert template.bucket.tolist() == [18] * 5
    assert template.heavy.tolist() == [7, 8, 8, 8, 9]
    for row, heavy in enumerate(template.heavy.tolist()):
        held = (template.given[row] == POSITION_GIVEN).nonzero()[:, 0].tolist()
        assert held == [0, 1, 2, heavy]  # its hydrogen comes first among the hydrogens
        assert template.numbers[row, held].tolist() == [6, 6, 8, 1]
        expected = [[0, 0, 0], [1.51, 0, 0], [2.04, 0.8, 0.1], [1.9, 1.7, 0.3]]
        assert torch.allclose(template.positions[row, held], torch.tensor(expected))
        bonds = template.bonds[row][held][:, held]
        assert bonds.tolist() == [[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0]]
        assert int(template.bonds[row].sum()) == 6
        others = [i for i in range(template.numbers.shape[1]) if i not in held]
        asked = (template.numbers[row, others] == 1).int()  # by their number: `atoms` makes hydrogens of all that are not heavy
        assert template.given[row, others].tolist() == asked.tolist()


def test_a_scaffold_without_a_size_takes_training_sizes_with_room_for_it(ethanol_core):
    template = ask(SEEN, 7, {"fix": str(ethanol_core)}, QM9)
    assert template.bucket.tolist() == [12, 18, 18, 18, 18, 21, 29]


def test_a_scaffold_within_a_formula_leaves_the_rest_to_be_placed(ethanol_core):
    template = ask(SEEN, 2, {"fix": str(ethanol_core), "formula": "C7H10O2"}, QM9)
    template.check()
    assert formula(template, 1) == {"C": 7, "O": 2, "H": 10}
    assert Counter(template.given[0].tolist()) == {POSITION_GIVEN: 4, ELEMENT_GIVEN: 15}
    with pytest.raises(Refused, match="holds more O than"):
        ask(SEEN, 2, {"fix": str(ethanol_core), "formula": "C7H16"}, QM9)


def test_a_scaffold_may_be_a_whole_molecule_of_training(tmp_path):
    molecules = simulated(60, seed=0)
    small = molecules[molecules.bucket <= 14][:1]
    write(small, tmp_path / "small.sdf")
    template = ask(sizes(molecules), 3, {"fix": str(tmp_path / "small.sdf")}, QM9)
    held = template.given[0] == POSITION_GIVEN
    assert int(held.sum()) == int(small.bucket[0])
    assert torch.allclose(template.positions[0][held], small.positions[0, : int(small.bucket[0])], atol=1e-4)


def test_a_scaffold_that_does_not_fit_the_asked_size_or_formula_is_refused(ethanol_core):
    assert ask(SEEN, 1, {"fix": str(ethanol_core), "atoms": "5"}, QM9).heavy.tolist() == [4]
    for conditions, reason in (
        ({"atoms": "4"}, "learned from molecules of 5 to 29"),
        ({"formula": "C7H10O2", "atoms": "18"}, "has 19 atoms"),
    ):
        with pytest.raises(Refused, match=reason):
            ask(SEEN, 1, {"fix": str(ethanol_core), **conditions}, QM9)
    with pytest.raises(Refused, match=r"4 atoms \(3 heavy\) and something must be added; asked for 4"):
        ask(torch.tensor([[3, 1], [12, 4]]), 1, {"fix": str(ethanol_core), "atoms": "4"}, QM9)


def test_a_scaffold_as_large_as_the_largest_molecule_is_refused(tmp_path):
    molecules = simulated(60, seed=0)
    write(molecules[molecules.bucket.argmax()[None]], tmp_path / "largest.sdf")
    with pytest.raises(Refused, match="something must be added"):
        ask(sizes(molecules), 1, {"fix": str(tmp_path / "largest.sdf")}, QM9)


def test_scaffolds_that_say_too_much_or_too_little_are_refused(tmp_path):
    molecules = simulated(60, seed=0)
    write(molecules[:2], tmp_path / "two.sdf")
    unbonded = stacked([replace(m, bonds=None) for m in unstacked(molecules[:1])])
    write(unbonded, tmp_path / "bare.xyz")
    wrong = {"two.sdf": "holds 2 molecules", "bare.xyz": "bonds of the scaffold are not known", "none.sdf": "no such file"}
    for name, reason in wrong.items():
        with pytest.raises(Refused, match=reason):
            ask(sizes(molecules), 1, {"fix": str(tmp_path / name)}, QM9)
    write(molecules[:1], tmp_path / "one.sdf")
    with pytest.raises(Refused, match="never seen C"):
        ask(sizes(molecules), 1, {"fix": str(tmp_path / "one.sdf")}, (1, 7, 8))


def test_properties_are_asked_by_name_alone_together_and_as_sweeps():
    one = ask(SEEN, 3, {"property": "radius_of_gyration=2.1"}, QM9)
    assert column(one, "radius_of_gyration") == pytest.approx([2.1] * 3)
    assert one.properties.isnan().sum() == 3 * (len(PROPERTIES) - 1)
    both = ask(SEEN, 4, {"property": "alpha=70,80,mu=1.5"}, QM9)
    assert column(both, "alpha") == [70, 70, 80, 80]
    assert column(both, "mu") == [1.5] * 4


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("volume=3", r"'volume' is no property.*alpha \(Bohr\^3\).*radius_of_gyration \(Angstrom\)"),
        ("80", "'80' is no property"),
        ("alpha=much", "'much' is no number; expected e.g. alpha=80, in Bohr"),
        ("alpha=nan", "'nan' is no number"),
        ("alpha=1,2,mu=1,2,3", "different lengths"),
    ],
)
def test_targets_that_mean_nothing_are_refused(text, reason):
    with pytest.raises(Refused, match=reason):
        ask(SEEN, 6, {"property": text}, QM9)


def test_unknown_conditions_and_counts_are_refused():
    with pytest.raises(Refused, match=r"under colour; known conditions: atoms, formula, fix, property"):
        ask(SEEN, 1, {"colour": "red"}, QM9)
    with pytest.raises(Refused, match="eighteen"):
        ask(SEEN, 1, {"atoms": "eighteen"}, QM9)
    with pytest.raises(Refused, match="atoms=300 asks for 300 atoms"):
        ask(SEEN, 1, {"atoms": "300"}, QM9)
    with pytest.raises(Refused, match="0 molecules"):
        ask(SEEN, 0, {}, QM9)
