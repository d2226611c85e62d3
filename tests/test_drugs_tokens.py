"""SMILES in tokens and back, on strings whose tokens can be counted by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simulacra.sciences.drugs import data, simulate, tokens
from simulacra.sciences.drugs.tokens import UnknownToken, Vocabulary, split

STRINGS = simulate.simulated(300, seed=3)


def test_two_letter_atoms_brackets_and_ring_numbers_above_nine_are_single_tokens():
    assert split("ClCCBr") == ["Cl", "C", "C", "Br"]
    assert split("[C@@H](N)C") == ["[C@@H]", "(", "N", ")", "C"]
    assert split("C%12CC%12") == ["C", "%12", "C", "C", "%12"]
    assert split("C%(123)C%(123)") == ["C", "%(123)", "C", "%(123)"]
    assert split("[13CH3][S@+]([O-])/C=C\\[se]") == ["[13CH3]", "[S@+]", "(", "[O-]", ")", "/", "C", "=", "C", "\\", "[se]"]
    assert split("Cn1ccnc1") == ["C", "n", "1", "c", "c", "n", "c", "1"]
    assert split("C#N.O$B~P:I") == ["C", "#", "N", ".", "O", "$", "B", "~", "P", ":", "I"]


@pytest.mark.parametrize(("text", "place"), [("CCX", 3), ("C[NH", 2), ("qC", 1), ("C%1C", 2), ("CC N", 3), ("C]C", 2)])
def test_what_is_no_token_is_named_with_its_place(text, place):
    with pytest.raises(UnknownToken, match=rf"at character {place} is no token"):
        split(text)


def test_a_long_string_is_shortened_in_messages():
    with pytest.raises(UnknownToken) as error:
        split("C" * 10_000 + "X")
    assert len(str(error.value)) < 200


@given(st.lists(st.sampled_from(["C", "Cl", "Br", "[nH]", "[C@@H]", "%10", "(", ")", "1", "=", "c", "B", "[13C]", "%11"]), max_size=30))
def test_tokens_are_counted_from_bytes_as_they_are_split(parts):
    text = "".join(parts)
    assert tokens.counted(data.as_bytes([text, "C"]).numpy()).tolist() == [len(split(text)), 1]


def test_strings_survive_their_numbers():
    vocabulary = Vocabulary.of(STRINGS)
    assert vocabulary.decoded(vocabulary.encoded(STRINGS)) == STRINGS
    again = Vocabulary.from_state(vocabulary.state())
    assert again.tokens == vocabulary.tokens
    assert again.notation == "smiles"


def test_an_unknown_token_names_the_molecule_and_the_token():
    vocabulary = Vocabulary.of(["CCO"])
    with pytest.raises(UnknownToken, match=r"CC\[S@\+\]C: token '\[S@\+\]' does not occur"):
        vocabulary.numbers("CC[S@+]C")


def test_what_stands_behind_the_end_is_not_read():
    vocabulary = Vocabulary.of(["CCO"])
    c, o = vocabulary.numbers("CO")
    rows = torch.tensor([[1, c, o, 2, c, c], [1, c, c, c, o, o], [1, 2, 0, 0, 0, 0]])
    assert vocabulary.decoded(rows) == ["CO", "CCCOO", ""]


def test_kekule_strings_have_no_aromatic_atoms_and_bonds_are_one_token_with_their_atoms():
    from rdkit import Chem

    vocabulary = Vocabulary.of(["N#Cc1ccccc1/C=C/[O-]", "CC(=O)[NH+]1CC1", "C=1CCCCC=1"], "kekule")
    assert {"#C", "=C", "/C", "/[O-]", "=O", "[NH+]", "1", "("} <= set(vocabulary.tokens)
    assert not {"c", "=", "#", "/"} & set(vocabulary.tokens)
    assert tokens.kekulised("Clc1ccccc1") == "ClC1=CC=CC=C1"
    every = Vocabulary.of(STRINGS, "kekule")
    written = every.decoded(every.encoded(STRINGS))
    assert [Chem.CanonSmiles(one) for one in written] == STRINGS
    assert every.numbers(written[0]) == every.numbers(STRINGS[0])  # a Kekulé string is its own translation
    assert Vocabulary.from_state(every.state()).notation == "kekule"


@pytest.mark.parametrize(("text", "message"), [("c1cccc1", "is no molecule"), ("CCX", "is no token"), ("C1CC", "is no molecule")])
def test_what_has_no_kekule_string_is_named(text, message):
    with pytest.raises(UnknownToken, match=message):
        Vocabulary.of(["CCO"], "kekule").numbers(text)


def test_selfies_write_the_same_molecules_and_any_sequence_is_one():
    from rdkit import Chem

    vocabulary = Vocabulary.of(STRINGS[:100], "selfies")
    written = vocabulary.decoded(vocabulary.encoded(STRINGS[:100]))
    flat = [Chem.CanonSmiles(one) for one in written]
    assert sum(a == b for a, b in zip(flat, STRINGS[:100], strict=True)) >= 98  # charges and stereo of a few are written otherwise
    noise = torch.randint(3, len(vocabulary), (50, 20), generator=torch.Generator().manual_seed(0))
    assert all(Chem.MolFromSmiles(one) is not None for one in vocabulary.decoded(noise))
