"""The time-split protocol: leaks through salts, charges and stereo; hits in rankings made by hand; mutations; intervals."""

import numpy as np
import pytest

from simulacra.sciences.drugs import approvals, leaks, measuring, mutations
from simulacra.study import Refused

IDENTITY = (measuring.IDENTITY,)


def table(*smiles):
    return measuring.measured_here(smiles, IDENTITY)


def designs(*smiles):
    return approvals.Designs.ranked(table(*smiles), np.arange(len(smiles), dtype=float))


def pair(prototype, later, name="a"):
    both = table(prototype, later)
    shared = float(approvals.similarities(both.bits[:1], both.bits[1:])[0])
    return approvals.Pair(prototype, str(both.flat[0]), str(both.flat[1]), (name, "later"), (1950, 1990), shared, both.bits[1])


# --- leaks


@pytest.mark.parametrize(
    ("training", "drug"),
    [
        ("CC(=O)Oc1ccccc1C(=O)O", "CC(=O)Oc1ccccc1C(=O)[O-].[Na+]"),
        ("C[NH+](C)CCc1ccccc1", "CN(C)CCc1ccccc1"),
        ("C[C@@H]1CCCCN1C", "C[C@H]1CCCCN1C"),
        ("C[C@@H]1CCCCN1C", "CC1CCCCN1C.Cl"),
        ("C/C=C/C(=O)NC", "C/C=C\\C(=O)NC"),
        ("[O-]C(=O)C1CC1", "OC(=O)C1CC1.CCO"),
        ("[2H]C(F)(F)Cl", "FC(F)Cl"),
    ],
)
def test_a_drug_leaks_through_its_salts_charges_isotopes_and_stereoisomers(training, drug):
    found = leaks.found(table(training, "CCCCCCCCN"), table(drug))
    assert found.flat.tolist() == [True, False]
    assert found.any.tolist() == [True, False]


def test_a_tautomer_leaks_by_its_inchikey_and_not_by_its_string():
    found = leaks.found(table("O=c1cccc[nH]1", "Cc1c[nH]cn1", "CCO"), table("Oc1ccccn1", "Cc1cnc[nH]1"))
    assert not found.flat.any()
    assert found.skeleton.tolist() == [True, True, False]


def test_the_strict_check_also_drops_what_is_alike():
    names = "CCOC(=O)c1ccc(N)cc1", "CCCOC(=O)c1ccc(N)cc1", "CCN(CC)CCCl"
    both = table(*names)
    near = float(approvals.similarities(both.bits[:1], both.bits[1:2])[0])
    assert leaks.found(both, table(names[0])).any.tolist() == [True, False, False]
    assert leaks.found(both, table(names[0]), alike=near - 1e-6).any.tolist() == [True, True, False]
    assert leaks.found(both, table(names[0]), alike=near + 1e-6).any.tolist() == [True, False, False]


def test_a_file_of_drugs_may_hold_what_is_no_molecule():
    found = leaks.found(table("CCO", "nonsense"), table("C1CC", "CCO", ""))
    assert found.any.tolist() == [True, False]


def test_the_nearest_known_molecule_is_the_one_that_a_comparison_of_all_finds():
    rng = np.random.default_rng(0)
    share = rng.uniform(0.02, 0.3, (90, 1))
    bits, known = (np.packbits(rng.random((n, 256)) < share[:n], axis=1) for n in (90, 40))
    all_pairs = np.stack([approvals.similarities(bits, one[None]) for one in known], 1).max(1)
    np.testing.assert_allclose(leaks.nearest(bits, known), all_pairs)
    strict = leaks.nearest(bits, known, at_least=0.25)
    assert np.array_equal(strict >= 0.25, all_pairs >= 0.25)
    np.testing.assert_allclose(strict[strict >= 0.25], all_pairs[all_pairs >= 0.25])


def test_recipes_are_told_what_was_dropped(tmp_path):
    path = tmp_path / "drugs.smi"
    path.write_text("CCO.Cl\nOc1ccccn1\n")
    rows, said, files = leaks.checked(["CCO", "CCN", "O=c1cccc[nH]1", "CCCCCC"], [path])
    assert rows.tolist() == [1, 3]
    assert said == (
        "2 training molecules dropped that leak one of drugs.smi: 1 with the same flat form, 2 with that or the same InChIKey-14"
    )
    assert list(files) == [str(path)]
    again, _, _ = leaks.checked(["CCO", "CCN", "O=c1cccc[nH]1", "CCCCCC"], [path])
    assert again.tolist() == [1, 3]
    with pytest.raises(Refused, match="nothing is left to learn"):
        leaks.checked(["CCO"], [path])


def test_as_they_stand_18_of_1357_drugs_are_in_zinc(data_folder):
    """The figure that the reference of this project measured; leaks.found, which sees through charges, finds more."""
    from simulacra.sciences.drugs import reading

    folder = data_folder / "molecules"
    if not (folder / "zinc250k.csv.gz").exists() or not (folder / "fda_drugs_cdn.csv.gz").exists():
        pytest.skip(f"{folder} holds no zinc250k.csv.gz and fda_drugs_cdn.csv.gz")
    zinc = [line.smiles for line in reading.lines(folder / "zinc250k.csv.gz")]
    count, same = approvals.leaked(zinc, folder / "fda_drugs_cdn.csv.gz")
    assert count == 1357
    assert len(same) == 18
    assert leaks.without_stereo("C[C@]12CC[C@H]3[C@@H](CCC4=CC(=O)CC[C@@]43C)[C@@H]1CC[C@@H]2O") in same, "testosterone"


# --- pairs and outcomes


def test_pairs_lose_what_is_equal_when_flat_and_what_came_before(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(
        "prototype_name,prototype_year,prototype_smiles,later_name,later_year,later_smiles\n"
        "A,1950,CC(=O)Oc1ccccc1C(=O)O,A SODIUM,1960,CC(=O)Oc1ccccc1C(=O)[O-].[Na+]\n"
        "B,1950,C[C@H](N)Cc1ccccc1.Cl,C,1970,CN[C@H](C)Cc1ccccc1\n"
        "B,1950,CC(N)Cc1ccccc1,C HYDROCHLORIDE,1980,CNC(C)Cc1ccccc1.Cl\n"
    )
    found, dropped = approvals.pairs(path)
    assert [(p.prototype_flat, p.later_flat) for p in found] == [("CC(N)Cc1ccccc1", "CNC(C)Cc1ccccc1")]
    assert found[0].prototype == "C[C@H](N)Cc1ccccc1", "as it is to be varied: with its stereo, without its salt"
    assert dropped[:2] == ["1 pairs of equal flat molecules", "1 that came before"]
    assert 0.3 < found[0].similarity < 0.8
    assert approvals.usable(found, lambda smiles: True) == found
    assert not approvals.usable(found, lambda smiles: len(smiles) < 15)
    assert not approvals.usable(found, lambda smiles: True, most=0.3)


def test_a_table_without_its_columns_is_refused(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("smiles\nCCO\n")
    with pytest.raises(Refused, match=r"pairs\.csv has no column prototype_name"):
        approvals.pairs(path)


def test_designs_are_ranked_each_once_where_they_are_least_surprising():
    found = table("CCO", "C1CC", "CCN", "OCC", "CCC", "C[NH3+]", "CN")
    ranked = approvals.Designs.ranked(found, np.array([5.0, 0.0, 3.0, 1.0, 2.0, 9.0, 8.0]))
    assert ranked.flat == ["CCO", "CCC", "CCN", "CN"]
    assert np.array_equal(ranked.bits[1], found.bits[4])


def test_hits_and_gain_of_a_ranking_made_by_hand():
    wanted = pair("CCOC(=O)c1ccccc1", "CCCOC(=O)c1ccccc1")
    found = [approvals.outcome(wanted, d) for d in (
        designs("CCOC(=O)c1ccccc1", "CCC", "CCCOC(=O)c1ccccc1", "CCCC"),  # the prototype is no design: the drug is second of three
        designs("CCC", "CCCC"), designs("CCOC(=O)c1ccccc1"),
    )]  # fmt: skip
    assert [o.rank for o in found] == [2, None, None]
    assert [o.size for o in found] == [3, 2, 0]
    assert approvals.hit(found).tolist() == [1, 0, 0]
    assert approvals.hit(found, 1).tolist() == [0, 0, 0]
    assert approvals.hit(found, 2).tolist() == [1, 0, 0]
    assert found[0].best == 1
    assert found[0].gain == pytest.approx(1 - wanted.similarity)
    assert found[1].gain < 0
    assert found[2].gain == pytest.approx(-wanted.similarity)


def test_every_pair_gets_the_designs_of_another_prototype():
    found = [pair("CCO", "CCOC", "a"), pair("CCO", "CCOCC", "a"), pair("CCN", "CCNC", "b"), pair("CCS", "CCSC", "c")]
    other = approvals.shuffled(found)
    assert all(found[i].prototype_flat != found[j].prototype_flat for i, j in enumerate(other))
    assert sorted({found[j].prototype_flat for j in other}) == ["CCN", "CCO", "CCS"]
    with pytest.raises(Refused, match="two or more"):
        approvals.shuffled(found[:2])


def test_a_generator_that_ignores_its_prototype_does_as_well_on_shuffled_ones():
    rng = np.random.default_rng(0)
    cores = ["c1ccccc1", "c1ccncc1", "C1CCCCC1", "c1ccsc1"]
    molecules = [f"{'C' * k}{end}{core}" for core in cores for k in range(1, 6) for end in ("", "O", "N", "C(=O)N")]
    drugs = [str(f) for f in table(*molecules).flat]
    found = [pair(drugs[i], drugs[(i * 7 + 3) % len(drugs)], str(i)) for i in range(0, len(drugs), 2)]
    blind = [designs(*rng.choice(drugs, 15, replace=False)) for _ in found]
    own = np.array([approvals.outcome(p, blind[i]).gain for i, p in enumerate(found)])
    other = np.array([approvals.outcome(p, blind[j]).gain for p, j in zip(found, approvals.shuffled(found), strict=True)])
    _, low, high = approvals.interval(own - other, [p.prototype_flat for p in found])
    assert low < 0 < high
    oracle = np.array([approvals.outcome(p, designs(p.later_flat)).gain for p in found])
    assert approvals.interval(oracle - other, [p.prototype_flat for p in found])[1] > 0


def test_pairs_of_one_prototype_count_as_one_in_the_interval():
    rng = np.random.default_rng(1)
    means = rng.normal(size=40)
    once, often = (np.repeat(means, k) for k in (1, 9))
    narrow = [np.subtract(*approvals.interval(v, [str(i) for i in np.repeat(range(40), len(v) // 40)])[:0:-1]) for v in (once, often)]
    assert narrow[0] == pytest.approx(narrow[1])
    assert narrow[0] == pytest.approx(2 * 1.96 * means.std() / np.sqrt(40), rel=0.15)


def test_the_summary_holds_every_method_and_its_difference_from_ours():
    found = [pair("CCO", "CCOC", "a"), pair("CCN", "CCNC", "b"), pair("CCS", "CCSC", "c")]
    methods = {
        "network": [approvals.outcome(p, designs(p.later_flat)) for p in found],
        "random": [approvals.outcome(p, designs("CCCC")) for p in found],
    }
    lines = approvals.summary(found, methods, "network")
    assert lines[0] == "3 pairs, 3 prototypes"
    assert "| network | 1 | 3 | 3 | 3 |" in lines[3]
    assert lines[4].startswith("| random | 1 | 0 | 0 | 0 |")


# --- mutations


def test_one_step_reaches_what_one_change_reaches_and_nothing_else():
    near = mutations.one_step("CCO")
    assert {"CO", "CC", "CCC", "CCN", "CCCO", "C=CO", "C1CO1", "CC(=O)O", "CC=O", "CCOC", "OCCO"} <= set(near)
    assert "CCCCO" not in near
    assert "CCO" not in near
    assert near == sorted(set(near))


def test_rings_open_close_and_change_an_atom():
    assert "CCCCCC" in mutations.one_step("C1CCCCC1")
    assert "C1CCCCC1" in mutations.one_step("CCCCCC")
    assert {"c1ccncc1", "Cc1ccccc1", "Oc1ccccc1"} <= set(mutations.one_step("c1ccccc1"))
    assert "c1ccccc1" in mutations.one_step("c1ccncc1")


def test_mutations_go_both_ways_between_neighbours():
    for one, other in (("CCO", "CCCO"), ("CC(=O)Nc1ccccc1", "CC(=O)Nc1ccncc1"), ("C1CCNC1", "C1CCOC1"), ("CC=C", "CCC")):
        one, other = (str(f) for f in table(one, other).canonical)
        assert other in mutations.one_step(one)
        assert one in mutations.one_step(other)


def test_every_mutant_is_one_molecule_without_stereo():
    found = table(*mutations.one_step("C[C@@H](O)c1c[nH]c2ccccc12"))
    assert found.valid.all()
    assert len(found) > 100
    assert not any("@" in c or "." in c for c in found.canonical)


def test_what_is_no_molecule_has_no_mutants():
    assert mutations.one_step("C1CC") == []
