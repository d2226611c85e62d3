"""Fragments: written in another order, put to a model, completed, kept."""

import itertools
import os
from pathlib import Path

import pytest
from rdkit import Chem

from simulacra.sciences.drugs import cutting, growing, reading, simulate, writing
from simulacra.study import Refused

DRUGS = (
    "CC(=O)Nc1ccc(O)cc1", "CN1CCC[C@H]1c1cccnc1", "C[C@H](N)C(=O)N[C@@H](CO)C(=O)O", "F/C=C/C(=O)N1CCOCC1",
    "CC(C)(C)OC(=O)N1CCC2(CC1)CCNC2", "C[N+](C)(C)CC([O-])=O", "O=C1c2ccccc2C(=O)N1CCBr", "C[C@@H]1O[C@H](Oc2ccccc2)[C@H](O)[C@@H]1O",
    "c1ccc2c(c1)[nH]c1ccccc12", "N#CC1(c2ccc(Cl)cc2)CC1",
    "C[S@](=O)c1ccccc1C", "OC[C@H]1O[C@@H](n2cnc3c2ncnc3N)C[C@@H]1O", "C/C(=N\\OC)c1ccc(F)cc1", "C1CC2CCC1CC2N",
)  # fmt: skip


def canonical(smiles):
    return Chem.MolToSmiles(Chem.MolFromSmiles(smiles))


def molecules():
    """Hand-written ones, simulated ones, and some of ZINC where there is any."""
    out = [*DRUGS, *simulate.simulated(150, seed=3)]
    folder = os.environ.get("SIMULACRA_DATA")
    path = Path(folder) / "molecules" / "zinc250k.csv.gz" if folder else None
    if path and path.is_file():
        out += [line.smiles for line in itertools.islice(reading.lines(path), 200)]
    return out


# ------------------------------------------------------------------------------------------------------------------ writing


def test_any_molecule_cut_at_any_bond_and_written_in_fragment_order_is_the_same_molecule():
    for i, smiles in enumerate(molecules()):
        for link in (False, True):
            text, beginning = growing.for_training(smiles, i + 1, link=link)
            assert canonical(text) == canonical(smiles), (smiles, text)
            assert text.startswith(beginning)
            if link and beginning:
                assert text.count(".") == beginning.count(".") == 1


def test_every_cut_of_a_molecule_can_be_written_last():
    for smiles in DRUGS:
        text = Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(smiles), 1, randomSeed=7)[0]
        for place in range(len(writing.cuttable(writing.read(text)))):
            trees = writing.read(text)
            cut = writing.cuttable(trees)[place]
            behind = len(writing.words([cut]))
            cut.first()
            assert canonical(writing.write(trees)) == canonical(smiles)
            assert writing.words(trees)[-behind:][-1] == writing.words([cut])[-1]


def test_two_parts_tied_by_a_ring_bond_are_the_molecule_that_was_cut():
    tied = 0
    for smiles in DRUGS:
        (tree,) = writing.read(smiles)
        for place in range(len(writing.cuttable([tree]))):
            (again,) = writing.read(smiles)
            text = writing.write(writing.tied(again, writing.cuttable([again])[place]))
            assert text.count(".") == 1
            assert canonical(text) == canonical(smiles), (smiles, text)
            tied += 1
    assert tied > 40


def test_what_is_cut_is_single_and_in_no_ring():
    (tree,) = writing.read("C1CC1C(=O)/C=C/c1ccc(-c2ccccc2)cc1")
    # cyclopropyl-C(=O), and the two rings' bond: all others are double, directed, or in a ring
    assert len(writing.cuttable([tree])) == 2


def test_strings_that_are_no_trees_are_unreadable():
    for wrong in ("C1CC", "C(C", "C)C", "", "C=", "(C)"):
        with pytest.raises(writing.Unreadable):
            writing.read(wrong)


def test_ring_bonds_beyond_nine_keep_their_numbers_apart():
    smiles = "C12C3C4C5C6C7C8C9C%10C1C2C3C4C5C6C7C8C9C%10"
    assert canonical(writing.write(writing.read(smiles))) == canonical(smiles)


# ---------------------------------------------------------------------------------------------------------------- fragments

GROWABLE = (
    "c1ccc(*)cc1", "*c1ccc(*)cc1", "c1ccc(*)cc1.*N1CCOCC1", "*n1cccc1", "*n1ccc(*)c1", "C[C@H](*)N", "C(*)(*)(C)C", "*F",
    "C[NH+](*)C", "*/C=C/F", "[1*]c1ccc([2*])cc1", "O=C(*)N1CC1.*[C@H](C)N", "*S(=O)(=O)c1ccccc1", "[*:1]C#N", "*c1nc(*)nc(*)n1",
    "*C(=O)c1ccc2[nH]ccc2c1",
    "*N1C[C@@H](O)C[C@H]1C(*)=O", "[O-][N+](=O)c1ccc(*)cc1",
    # a mark at a later point, at both, at a double bond and at a later point; in one ring; a form that a hydrogen would change
    "*NC(=O)N(C)[C@@H](*)C", "*[C@H](C)CC[C@@H](*)C", "*CC/C=C/*", "*[C@H](C)C/C=C/*", "*[C@@H]1CC[C@H](*)CC1", "*n1cc(CS(*)(=O)=O)cn1",
)  # fmt: skip
ENDS = ("CCl", "Br", "C(=O)NCI", "c1ccncc1", "[C@H](Cl)Br", "-c1ccsc1")


def by_hand(prompts, rows, seed):
    """Something that can be bound by a single bond; of two fragments also the ring bond that links them."""
    out = []
    for prompt, row in zip(prompts, rows, strict=True):
        end = ENDS[(seed + row) % len(ENDS)]
        end = "CS" if prompt[-1] in "/\\" else end  # the bond is written
        out.append(prompt + (f"OC{_open_ring(prompt)}" if "." in prompt else end))
    return out


def _open_ring(prompt):
    labels = [c for c in prompt if c.isdigit()]
    return next(c for c in labels if labels.count(c) % 2)


@pytest.mark.parametrize("text", GROWABLE)
def test_a_fragment_is_grown_at_every_attachment_point_and_nowhere_else(text):
    asked = growing.fragment(text)
    for one in growing.grow([asked] * 8, range(8), by_hand, seed=5):
        assert one
        assert "*" not in one
        assert growing.kept(asked, one)
        mol = Chem.MolFromSmiles(one)
        whole = Chem.MolFromSmiles(text)
        added = mol.GetNumHeavyAtoms() - sum(atom.GetAtomicNum() > 1 for atom in whole.GetAtoms())
        assert added >= (2 if asked.linking else asked.stages)


def test_a_prompt_is_the_beginning_of_a_string_that_ends_at_the_attachment_point():
    for text in GROWABLE:
        asked = growing.fragment(text)
        if asked.linking or asked.stages > 1:
            continue
        for seed in range(5):
            prompt, order = growing.begun(asked).prompt(seed)
            assert canonical(f"{prompt}*") == canonical(text.replace("[*:1]", "*"))
            assert len(set(order)) == len(order) == Chem.MolFromSmiles(prompt + "C").GetNumAtoms() - 1


def test_a_prompt_of_a_cut_molecule_is_the_beginning_of_that_molecules_training_string():
    """The prompt of the fragment, and the rest of the molecule behind it, are the molecule again."""
    for i, smiles in enumerate(molecules()[:120]):
        text, beginning = growing.for_training(smiles, i + 1, link=False)
        if not beginning:
            continue
        asked = growing.fragment(f"{beginning}*")
        rest = text[len(beginning) :]
        for seed in range(3):
            prompt = growing.begun(asked).prompt(seed)[0]
            whole = Chem.MolFromSmiles(prompt + rest)
            assert whole is not None
            assert Chem.MolToSmiles(whole) == canonical(smiles), (smiles, prompt, rest)


def test_prompts_differ_by_seed_so_that_one_way_of_writing_decides_nothing():
    asked = growing.fragment("Cc1ccc(*)c(OCC)c1")
    assert len({growing.begun(asked).prompt(seed)[0] for seed in range(20)}) > 5


def test_a_molecule_that_lost_the_fragment_or_bears_more_than_asked_does_not_count_as_kept():
    asked = growing.fragment("c1ccc(*)cc1")
    assert growing.kept(asked, "c1ccccc1CCO")
    for wrong in (
        "C1CCCCC1CC",  # another ring
        "c1ccccc1",  # the attachment point is lost
        "Cc1ccccc1CC",  # a stray substituent
        "c1ccc2ccccc2c1",  # a ring closed on the fragment
        "c1ccccc1CC.O", "c1ccccc1(", "",
    ):  # fmt: skip
        assert not growing.kept(asked, wrong), wrong
    chiral = growing.fragment("C[C@H](*)N")
    assert growing.kept(chiral, "C[C@H](CCl)N") != growing.kept(chiral, "C[C@@H](CCl)N")
    both = growing.fragment("c1ccc(*)cc1.*c1ccccc1")
    assert growing.kept(both, "c1ccc(Cc2ccccc2)cc1")
    assert not growing.kept(both, "c1ccccc1CCC")  # one ring cannot be both fragments


def test_strings_that_close_a_ring_on_the_fragment_are_never_given_out():
    asked = growing.fragment("CC(*)C")
    bad = itertools.cycle(["C1", "(F)Cl", ".C", "=O", ""])
    made = growing.grow([asked] * 6, range(6), lambda prompts, rows, seed: [p + next(bad) for p in prompts], seed=0)
    assert set(made) == {""}


def test_what_cannot_be_grown_is_refused_in_words():
    for wrong, why in (
        ("CCO", "says nowhere"), ("c1ccc(cc1*", "unclosed ring"), ("*", "has 0 bonds"), ("C*C", "has 2 bonds"),
        ("c1cc*cc1", "within a ring"),
        ("C(*)(C)(C)(C)C", "greater than permitted"), ("C=*", "double bond"), ("**", "no atom that could be kept"), ("*[H]", "no atom"),
        ("*C.*C.*C", "3 parts"), ("CC.*C", "part without attachment point"), ("C*.*C*", "one \\* each"), ("xx*", "is not SMILES"),
        ("*c1cccc1", "kekulize"),
        ("*C(*)(*)C(*)(*)C(*)(*)*", "at most 6"), ("*/C=C/CC/C=C/*", "only one attachment point"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=f"(?i){why}"):
            growing.fragment(wrong)


def test_rows_are_grown_alike_whatever_other_rows_are_grown_with_them():
    asked = growing.fragment("*c1ccc(*)cc1")
    many = growing.grow([asked] * 9, range(9), by_hand, seed=2)
    few = growing.grow([asked] * 3, [4, 7, 8], by_hand, seed=2)
    assert few == [many[4], many[7], many[8]]


# ------------------------------------------------------------------------------------------------------------------ cutting


def test_fragments_cut_from_molecules_have_the_attachment_points_of_their_kind():
    pool = molecules()
    for kind, stars in (("one point", 1), ("two points", 2), ("link", 2)):
        found = cutting.fragments(pool, kind, 30)
        assert len(found) >= 10
        for text in found:
            assert text.count("*") == stars
            assert growing.fragment(text).linking == (kind == "link")


def test_a_trial_counts_molecules_and_what_was_kept():
    asked = [growing.fragment("c1ccc(*)cc1")] * 4
    ends = iter(["CC", "C(", "O", "=O"])
    valid, kept, made = cutting.trial(asked, range(4), lambda prompts, rows, seed: [p + next(ends) for p in prompts], 0)
    assert valid == 0.5
    assert kept == 1
    assert [bool(one) for one in made] == [True, False, True, False]


def test_the_baseline_grows_at_the_right_end_wherever_that_is():
    asked = [growing.fragment("*CCc1ccccc1")]
    assert Chem.CanonSmiles("CCc1ccccc1") == "CCc1ccccc1"
    whole, kept = cutting.at_the_right_end(asked, lambda plain: [f"{text}CO" for text in plain])
    assert (whole, kept) == (1.0, 0.0)
