"""Published scores of molecules against answers worked out by hand, and the parts that they stand on."""

import math

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("rdkit", reason='rdkit is not installed: pip install "simulacra[chem]"')
from rdkit import Chem

from simulacra.sciences.drugs import chemnet, filters, measuring, metrics, ngram, properties, reading
from simulacra.sciences.drugs.measuring import FILTERS, IDENTITY, PROPERTIES, measured_here
from simulacra.sciences.drugs.simulate import simulated
from simulacra.study import Refused

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
DRUGS = (ASPIRIN, "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O", "C[NH+](C)CCOC(c1ccccc1)c1ccccc1", "NCCc1ccc(O)c(O)c1")


def table(*smiles, parts=(IDENTITY, PROPERTIES)):
    return measured_here(smiles, parts)


def bits(*rows):
    """Packed fingerprints with these bits set."""
    dense = np.zeros((len(rows), measuring.BITS), np.uint8)
    for row, on in enumerate(rows):
        dense[row, list(on)] = 1
    return np.packbits(dense, axis=1)


# -------------------------------------------------------------------------------------------------------------- of one set


def test_a_sampler_of_broken_strings_scores_validity_zero():
    broken = ["c1ccccc", "C(C", "", "None", "CC(C)(C)(C)C", "hello", "*", "C*", "[Xx]", "CC O", "CC\nCO", "C" * 1001]
    assert metrics.validity(table(*broken).valid).value == 0
    assert metrics.validity(np.zeros(0, bool)).value == 0


def test_failures_count_before_anything_else_is_looked_at():
    found = metrics.validity(table("CCO", "", "None", "c1ccccc1").valid)
    assert found.value == 0.5
    assert found.error == pytest.approx(0.25)


def test_uniqueness_is_that_of_the_first_k():
    names = ["a", "b", "a", "c", "d"]
    assert metrics.uniqueness(names, 3) == pytest.approx(2 / 3)
    assert metrics.uniqueness(names, 1000) == pytest.approx(4 / 5)
    assert metrics.uniqueness([], 1000) == 0


def test_two_ways_of_writing_one_molecule_are_not_two_molecules():
    assert len(set(table("OCC", "CCO", "C(O)C").canonical)) == 1


def test_novelty_counts_each_different_molecule_once():
    assert metrics.novelty(["a", "a", "b", "c", "c"], {"a"}) == pytest.approx(2 / 3)
    assert metrics.novelty(["a"], ["a", "b"]) == 0
    assert metrics.novelty([], ["a"]) == 0


def test_tanimoto_is_common_bits_over_all_bits():
    packed = bits({1, 2, 3}, {2, 3, 4, 5}, {9})
    alike = metrics.tanimoto(metrics.unpacked(packed), metrics.unpacked(packed))
    assert alike == pytest.approx(np.array([[1, 2 / 5, 0], [2 / 5, 1, 0], [0, 0, 1]]))


def test_similarities_are_those_of_rdkit():
    from rdkit import DataStructs
    from rdkit.Chem import rdFingerprintGenerator

    maker = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    prints = [maker.GetFingerprint(Chem.MolFromSmiles(s)) for s in DRUGS]
    expected = [DataStructs.BulkTanimotoSimilarity(one, prints) for one in prints]
    dense = metrics.unpacked(table(*DRUGS).bits)
    assert metrics.tanimoto(dense, dense) == pytest.approx(np.array(expected))


def test_the_nearest_of_a_set_to_itself_is_itself_in_whatever_blocks(monkeypatch):
    monkeypatch.setattr(metrics, "BLOCK", 2)
    packed = bits({1, 2}, {2, 3}, {4}, {5, 6}, {7})
    assert metrics.nearest(packed, packed) == pytest.approx(np.ones(5))
    assert metrics.nearest(packed, bits({2})) == pytest.approx([1 / 2, 1 / 2, 0, 0, 0])
    largest, first, second = metrics.within(packed)
    assert largest == pytest.approx([1 / 3, 1 / 3, 0, 0, 0])
    assert first == pytest.approx(np.array([4 / 3, 4 / 3, 1, 1, 1]) / 5)
    assert second == pytest.approx(np.array([10 / 9, 10 / 9, 1, 1, 1]) / 5)


def test_identical_molecules_have_no_internal_diversity_and_disjoint_ones_all_but_themselves():
    same, apart = bits({1}, {1}, {1}), bits({1}, {2})
    one, two = (metrics.internal_diversity(*metrics.within(packed)[1:]) for packed in (same, apart))
    assert [score.value for score in one] == pytest.approx([0, 0], abs=1e-7)
    assert [score.value for score in two] == pytest.approx([1 / 2, 1 - math.sqrt(1 / 2)])


# -------------------------------------------------------------------------------------------------------------- of two sets


def test_the_cosine_of_counts_is_that_of_the_school():
    assert metrics.cosine({"a": 1, "b": 2}, {"b": 3}) == pytest.approx(2 / math.sqrt(5))
    assert metrics.cosine({"a": 1}, {"b": 1}) == 0
    assert math.isnan(metrics.cosine({}, {"b": 1}))


def test_fragments_are_what_is_left_when_an_ether_is_cut():
    found = metrics.fragments(table("CCOc1ccccc1", "CCOc1ccccc1"))
    assert found == {"[4*]CC": 2, "[3*]O[3*]": 2, "[16*]c1ccccc1": 2}


def test_only_scaffolds_of_two_rings_or_more_count():
    found = metrics.scaffolds(table("Cc1ccccc1", "CCO", "Cc1ccccc1-c1ccccc1", "CCc1ccc(cc1)Cc1ccccc1"))
    assert found == {"c1ccc(-c2ccccc2)cc1": 1, "c1ccc(Cc2ccccc2)cc1": 1}


def test_kl_of_equal_sets_is_zero_and_their_score_one():
    drawn = table(*simulated(60, seed=1))
    assert metrics.kl_score(drawn, drawn) == pytest.approx(1)
    assert metrics.kl_whole(np.array([0.0, 1, 2]), np.array([0.0, 1, 2])) == pytest.approx(0)


def test_kl_of_whole_numbers_is_that_of_the_frequencies():
    reference, drawn = np.array([0.0, 0, 9, 9]), np.array([0.0, 9, 9, 9])
    assert metrics.kl_whole(reference, drawn) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), abs=1e-6)
    assert math.isinf(metrics.kl_whole(reference, np.array([50.0, 60.0])))


def test_kl_of_two_gaussians_is_half_their_squared_distance():
    rng = np.random.default_rng(0)
    found = metrics.kl_continuous(rng.normal(size=4000), 1 + rng.normal(size=4000))
    assert found == pytest.approx(0.5, abs=0.07)
    assert metrics.kl_continuous(np.zeros(5), np.zeros(5)) == 0
    assert math.isinf(metrics.kl_continuous(np.zeros(5), np.arange(5.0)))
    assert math.isinf(metrics.kl_continuous(np.arange(5.0), np.array([np.nan])))


def test_a_set_against_itself_has_the_best_scores():
    drawn = measured_here(simulated(60, seed=1), (IDENTITY, PROPERTIES, FILTERS))
    found = metrics.distribution_scores(drawn, drawn)
    assert found["SNN"].value == pytest.approx(1)
    assert found["Frag"].value == pytest.approx(1)
    assert found["Scaf"].value == pytest.approx(1)
    assert found["KL score"].value == pytest.approx(1)
    assert all(found[f"W1 {name}"].value == 0 for name in metrics.LAWS)
    assert "FCD" not in found


# ------------------------------------------------------------------------------------------------------------------ ChemNet


def test_frechet_of_uncorrelated_gaussians_has_its_closed_form():
    mean, other = np.zeros(3), np.array([1.0, 2.0, 0.0])
    found = chemnet.frechet((mean, np.diag([1.0, 4.0, 0.0])), (other, np.diag([4.0, 9.0, 1.0])))
    assert found == pytest.approx(5 + (1 - 2) ** 2 + (2 - 3) ** 2 + (0 - 1) ** 2)


def test_the_error_of_frechet_is_that_of_drawing_again():
    rng = np.random.default_rng(0)
    target = np.zeros(6), np.eye(6)
    again = np.array([chemnet.jackknifed(0.3 + rng.normal(size=(500, 6)), target, 10) for _ in range(60)])
    assert again[0, 0] == pytest.approx(chemnet.frechet(chemnet.moments(0.3 + np.random.default_rng(0).normal(size=(500, 6))), target))
    assert again[:, 1].mean() == pytest.approx(again[:, 0].std(), rel=0.3)


def test_the_bias_of_frechet_is_told_by_halves():
    rng = np.random.default_rng(0)
    n, m = 400, 1600
    halves, whole = [], []
    for _ in range(12):
        nature, drawn = rng.normal(size=(n, 12)), rng.normal(size=(m, 12))
        halves.append(chemnet.fcd(nature[::2], nature[1::2]))
        whole.append(chemnet.fcd(nature, drawn))
    assert chemnet.expected(n, m, float(np.mean(halves)), n) == pytest.approx(np.mean(whole), rel=0.15)


@pytest.mark.filterwarnings("ignore:`row_stack`")
@pytest.mark.skipif(not chemnet.installed(), reason='fcd is not installed: pip install "simulacra[chem]"')
def test_activations_are_those_of_the_package_fcd():
    import fcd

    smiles = [*map(Chem.CanonSmiles, DRUGS), *simulated(30, seed=2)]
    found = chemnet.activations(smiles)
    expected = fcd.get_predictions(fcd.load_ref_model(), smiles, n_jobs=0)
    assert found == pytest.approx(expected, abs=1e-5)
    assert chemnet.activations([]).shape == (0, chemnet.WIDTH)
    assert np.isfinite(chemnet.activations(["C" * 400, "CC"])).all()


def test_without_fcd_the_message_says_what_brings_it(monkeypatch):
    monkeypatch.setattr(chemnet, "installed", lambda: False)
    chemnet._chemnet.cache_clear()
    with pytest.raises(Refused, match=r"simulacra\[chem\]"):
        chemnet._chemnet()


# ------------------------------------------------------------------------------------------------------------ memorisation


def test_the_memorisation_ratio_is_one_where_training_is_drawn_as_often_as_held_out():
    shown, hidden = [f"t{i}" for i in range(900)], [f"h{i}" for i in range(100)]
    found = metrics.memorisation([*shown[:90], *hidden[:10], "new"], shown, hidden)
    assert (found.in_training, found.in_held_out) == (90, 10)
    assert found.ratio == pytest.approx(1)
    assert found.error == pytest.approx(math.sqrt(1 / 90 + 1 / 10))
    assert 0.4 < found.low < 1 < found.high < 2.5


def test_a_copier_has_an_endless_ratio_with_a_lower_bound_and_who_draws_nothing_known_has_none():
    copier = metrics.memorisation(["a"] * 20, ["a", "b"], ["c", "d"])
    assert math.isinf(copier.ratio)
    assert copier.low > 4
    stranger = metrics.memorisation(["x"], ["a"], ["c"])
    assert math.isnan(stranger.ratio)
    assert (stranger.low, stranger.high) == (0, math.inf)


def test_the_interval_of_the_ratio_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    shown, hidden = [f"t{i}" for i in range(400)], [f"h{i}" for i in range(100)]
    inside = 0
    for _ in range(300):
        k, l = rng.poisson(24), rng.poisson(3)  # twice as often what was shown
        found = metrics.memorisation([*rng.choice(shown, k), *rng.choice(hidden, l)], shown, hidden)
        inside += found.low <= 2 <= found.high
    assert inside / 300 >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 300)


# --------------------------------------------------------------------------------------------------------------- measuring


def test_aspirin_has_its_properties():
    found = dict(zip(properties.MEASURES, properties.measured([Chem.MolFromSmiles(ASPIRIN)], list(properties.MEASURES))[0], strict=True))
    assert found["weight"] == pytest.approx(180.16, abs=0.005)  # 9 C, 8 H, 4 O
    assert found["logP"] == pytest.approx(1.3101, abs=1e-4)  # Crippen in RDKit
    assert found["TPSA"] == pytest.approx(63.60, abs=0.01)  # carboxyl 37.30 and ester 26.30
    assert (found["donors"], found["acceptors"], found["rings"]) == (1, 3, 1)
    assert found["QED"] == pytest.approx(0.55, abs=0.01)
    assert 1 < found["SA"] < 2


def test_solubility_is_delaneys_regression():
    benzene = Chem.MolFromSmiles("c1ccccc1")
    logp, weight = 6 * 0.1581 + 6 * 0.123, 78.114  # Wildman & Crippen: aromatic CH 0.1581, its hydrogen 0.1230
    assert properties.solubility(benzene) == pytest.approx(0.16 - 0.63 * logp - 0.0062 * weight - 0.74, abs=1e-4)
    hexane = Chem.MolFromSmiles("CCCCCC")
    assert properties.esol(0, 0, 3, 0) == pytest.approx(0.16 + 0.066 * 3)
    assert properties.solubility(hexane) < properties.solubility(Chem.MolFromSmiles("CCO"))
    assert math.isfinite(properties.solubility(Chem.MolFromSmiles("[H][H]")))


def test_the_table_holds_what_the_properties_are():
    found = table(*DRUGS)
    expected = properties.measured([Chem.MolFromSmiles(s) for s in DRUGS], list(properties.MEASURES))
    for i, name in enumerate(properties.MEASURES):
        assert found.column(name) == pytest.approx(expected[:, i]), name
    assert found.columns("element ").sum(axis=1) == pytest.approx(found.column("heavy atoms"))
    assert found.columns("ring ").sum(axis=1) == pytest.approx(found.column("rings"))


@pytest.mark.parametrize(
    ("smiles", "group", "count"),
    [
        ("CC(=O)NC", "amide", 1), ("CC(=O)OC", "ester", 1), ("CC(=O)O", "carboxylic acid", 1), ("CC(=O)[O-]", "carboxylic acid", 1),
        ("CC(=O)C", "ketone", 1), ("CC(=O)O", "ketone", 0), ("CC=O", "aldehyde", 1), ("CCO", "hydroxyl", 1), ("CC(=O)O", "hydroxyl", 0),
        ("COC", "ether", 1), ("CC(=O)OC", "ether", 0), ("CN", "amine", 1), ("C[NH3+]", "amine", 1), ("CC(=O)N", "amine", 0),
        ("Nc1ccccc1", "aniline", 1), ("Nc1ccccc1", "amine", 0), ("CS(=O)(=O)NC", "sulfonamide", 1), ("CC#N", "nitrile", 1),
        ("C[N+](=O)[O-]", "nitro", 1), ("FC(F)(F)C", "trifluoromethyl", 1), ("FC(F)(F)C", "halide", 3),
        ("c1ccncc1", "aromatic nitrogen", 1), ("C=CC", "alkene", 1), ("CNC(=O)NC", "urea or carbamate", 1), ("CSC", "thioether", 1),
    ],
)  # fmt: skip
def test_functional_groups_are_what_a_chemist_calls_them(smiles, group, count):
    assert table(smiles).column(f"group {group}")[0] == count


@pytest.mark.parametrize(
    ("smiles", "passes"),
    [
        (ASPIRIN, True), ("CC(=O)[O-]", False), ("CCI", False), ("C1CCCCCCC1", False), ("C1CCCCCC1", True),
        ("O=C1NC(=S)SC1=Cc1ccccc1", False),  # a benzylidene rhodanine, the first of all PAINS
        ("CC=O", False), ("C1CO1", False), ("CCBr", False), ("NCN", False), ("C=CC(=O)NC", False), ("CC1OCCO1", True), ("c1ccsc1", True),
    ],
)  # fmt: skip
def test_the_filters_let_pass_what_moses_lets_pass(smiles, passes):
    assert table(smiles, parts=(IDENTITY, FILTERS)).passes[0] == passes


@pytest.mark.parametrize(
    ("smiles", "name"),
    [
        ("COCOC", "acetal"), ("CC=O", "aldehyde"), ("CCCl", "alkyl halide"), ("CNCNC", "aminal"), ("CN=[N+]=[N-]", "azide"),
        ("C1CN1", "aziridine"), ("CN=NC", "azo"), ("CSSC", "disulfide"), ("C1CO1", "epoxide"), ("CNNC", "hydrazine"),
        ("CC(C)=N", "imine"), ("CC(C)=NC", ""), ("CN=C=O", "isocyanate"),
        ("C=CC(=O)N", "Michael acceptor, acrylamide"), ("C=CC#N", "Michael acceptor, acrylonitrile"),
        ("C=CS(C)(=O)=O", "Michael acceptor, vinyl sulfone"), ("BrC(Br)(Br)C", "more than two bromines"),
        ("Clc1ncccc1", "aromatic halide that may be substituted"), ("Clc1ccccc1", ""), ("FC(F)(F)C(F)(F)F", ""),
        ("FC(F)(F)C(F)(F)C(F)(F)F", "more than six fluorines"), ("Nc1ccccc1", ""), ("c1ccoc1", ""), ("c1ccsc1", ""), ("CC1OCCO1", ""),
    ],
)  # fmt: skip
def test_medicinal_filters_find_what_they_are_named_after(smiles, name):
    assert filters.medicinal(Chem.MolFromSmiles(smiles)) == name


def test_many_strings_are_measured_in_processes_as_few_are_here():
    strings = [*simulated(measuring.SINGLY + 3, seed=5), "broken(", ""]
    parts = (IDENTITY, PROPERTIES)
    many, few = measuring.measure(strings, parts), measured_here(strings[-12:], parts)
    assert len(many) == len(strings)
    assert many.canonical[-12:].tolist() == few.canonical.tolist()
    assert many.scaffold[-12:].tolist() == few.scaffold.tolist()
    assert many.numbers[-12:] == pytest.approx(few.numbers, nan_ok=True)
    assert (many.bits[-12:] == few.bits).all()
    assert many.valid.tolist() == [True] * (len(strings) - 2) + [False] * 2


def test_what_was_measured_is_remembered_until_a_string_differs(monkeypatch):
    strings = simulated(measuring.SINGLY + 1, seed=6)
    first = measuring.measure(strings, (IDENTITY,), remember=True)
    monkeypatch.setattr(measuring, "_shared_out", lambda *_: pytest.fail("measured again"))
    again = measuring.measure(strings, (IDENTITY,), remember=True)
    assert again.flat.tolist() == first.flat.tolist()
    with pytest.raises(pytest.fail.Exception):
        measuring.measure([*strings[:-1], "CCO"], (IDENTITY,), remember=True)


def test_a_flat_molecule_knows_no_salt_no_charge_no_stereo_and_no_isotope():
    forms = ("C[C@H](N)C(=O)[O-].[Na+]", "C[C@@H]([NH3+])C(=O)[O-]", "[13CH3]C(N)C(=O)O", "CC(N)C(=O)O")
    assert {properties.flat(form) for form in forms} == {"CC(N)C(=O)O"}
    assert properties.flat("[2H]OC") == "CO"
    assert properties.flat("C[N+](=O)[O-]") == "C[N+](=O)[O-]"
    assert properties.flat("broken(") == "broken("


# ------------------------------------------------------------------------------------------------------------------ n-gram


def test_an_n_gram_model_gives_the_mixture_of_its_counts():
    model = ngram.NGram(["CO", "CN"], order=2, alpha=1.0)
    law = model.probabilities(["C"])  # C was seen twice; all six places: C C, O, N, end end
    assert law["O"] == pytest.approx(2 / 3 * 1 / 2 + 1 / 3 * 1 / 6)
    assert law[""] == pytest.approx(1 / 3 * 1 / 3)
    assert sum(law.values()) == pytest.approx(1)
    assert model.probabilities([])["C"] == pytest.approx(2 / 3 + 1 / 3 * 1 / 3)


def test_strings_are_drawn_by_the_probabilities_of_the_model():
    model = ngram.NGram(["CO", "CN", "CCO"], order=3, alpha=0.5)
    drawn = model.draw(4000, seed=1)
    assert drawn == model.draw(4000, seed=1)
    law, beyond = {}, 0.0
    for word in ("CO", "CN", "CCO", "C", "O"):
        steps = [*word, ""]
        law[word] = math.prod(model.probabilities(list(word[:i]))[step] for i, step in enumerate(steps))
    counts = [drawn.count(word) for word in law]
    expected = [4000 * p for p in law.values()]
    beyond = 4000 - sum(expected)
    assert stats.chisquare([*counts, 4000 - sum(counts)], [*expected, beyond]).pvalue > 1e-3


def test_a_long_context_repeats_what_it_saw_and_strange_strings_are_passed_over():
    model = ngram.NGram(["CCOC(=O)c1ccccc1", "no smiles!"], alpha=0.0)
    assert set(model.draw(5, seed=0)) == {"CCOC(=O)c1ccccc1"}
    with pytest.raises(Refused, match="no string"):
        ngram.NGram(["no smiles!"])


# --------------------------------------------------------------------------------------------------------------- real files


@pytest.mark.parametrize(
    ("name", "validity", "uniqueness"), [("samples_digress_moses", 0.8603, 0.9996), ("samples_digress_guacamol", 0.8455, 1.0)]
)
def test_published_samples_have_the_validity_and_uniqueness_that_their_folder_states(data_folder, name, validity, uniqueness):
    """MOSES and GuacaMol themselves are not in that folder, so published FCD and SNN of these files cannot be checked here."""
    strings = reading.read_lines(data_folder / "molecules" / f"{name}.txt.gz")
    mols = [properties.molecule(s) for s in strings]
    assert sum(mol is not None for mol in mols) / len(strings) == pytest.approx(validity, abs=5e-5)
    names = [Chem.MolToSmiles(mol) for mol in mols if mol is not None]
    assert metrics.uniqueness(names, len(names)) == pytest.approx(uniqueness, abs=1e-4)


def test_published_samples_pass_the_filters_as_often_as_published(data_folder):
    """DiGress's MOSES samples: 97.1 % (Vignac et al. 2023, arXiv:2209.14734, as FragFM, arXiv:2502.15805, quotes it)."""
    strings = reading.read_lines(data_folder / "molecules" / "samples_digress_moses.txt.gz")[:4000]
    mols = [mol for mol in map(properties.molecule, strings) if mol is not None]
    passing = np.array([filters.passes(mol) for mol in mols])
    assert passing.mean() == pytest.approx(0.971, abs=3 * passing.std() / np.sqrt(len(mols)))
