"""A judge of strings that must call nature nature, and notice every planted fault."""

import math

import numpy as np
import pytest
import torch

pytest.importorskip("rdkit", reason='rdkit is not installed: pip install "simulacra[chem]"')

from simulacra.evidence import Evidence
from simulacra.sciences.drugs import chemnet, data, measuring, statistics, tokens
from simulacra.sciences.drugs.data import Compounds, compounds, texts
from simulacra.sciences.drugs.simulate import simulated
from simulacra.sciences.drugs.statistics import NGRAM, ONE, SHUFFLED, WRITTEN, judge
from simulacra.study import Refused

TEXTUAL = {"validity", "length", "tokens", "repeats", "classifier two-sample test", "coverage (share missed)", "precision (share outside)"}


@pytest.fixture(scope="module")
def zoo() -> tuple[Compounds, Compounds, Compounds]:
    """Molecules made by one rule: to judge with, to pose as drawn, and to train on."""
    made = simulated(900, seed=3)
    return compounds(made[:250]), compounds(made[250:500]), compounds(made[500:])


def verdict(nature: Compounds, drawn: Compounds, training: Compounds | None = None) -> Evidence:
    return judge(nature, drawn, seed=0, training=training, permutations=199, halves=20)


def named(evidence: Evidence) -> dict:
    return {found.name: found for found in [*evidence.findings, *evidence.checks]}


def misspelt(samples: Compounds, share: float) -> Compounds:
    """Each token exchanged for another one of the set with this probability, as by a generator that is too hot."""
    rng = np.random.default_rng(1)
    words = [tokens.split(s) for s in texts(samples)]
    every = [token for row in words for token in row]
    return compounds(["".join(every[rng.integers(len(every))] if rng.random() < share else t for t in row) for row in words])


def test_nature_is_called_nature(zoo):
    evidence = verdict(*zoo)
    assert not evidence.differs
    for finding in evidence.findings:
        assert finding.floor < finding.ceiling, finding.name
        assert abs(finding.gap) < 0.25, finding.name
    found = named(evidence)
    assert TEXTUAL | {"logP", "QED", "SA", "weight", "functional groups", "memorisation"} <= set(found)
    for name in ("MOSES validity", "MOSES uniqueness@1,000", "MOSES SNN", "MOSES Frag", "MOSES IntDiv1", "GuacaMol KL score"):
        assert found[name].met, name
    assert found["MOSES validity"].value == 1
    assert found["MOSES novelty"].value == 1


def test_every_score_stands_beside_nature_a_copier_and_an_n_gram_model(zoo):
    found = named(verdict(*zoo))
    for name in ("MOSES SNN", "MOSES Frag", "MOSES Scaf", "MOSES IntDiv1", "MOSES Filters", "MOSES W1 logP", "GuacaMol KL score"):
        beside = found[name].beside
        assert set(beside) == {"halves of nature", "copied training", "n-gram strings"}, name
        assert all(map(math.isfinite, beside.values())), name
    assert found["MOSES novelty"].beside["copied training"] == 0
    assert found["MOSES validity"].beside["n-gram strings"] < 0.9
    assert found["MOSES Frag"].beside["n-gram strings"] < found["MOSES Frag"].beside["copied training"]


def test_a_sampler_of_broken_strings_is_judged_and_found_wanting(zoo):
    nature, drawn, training = zoo
    evidence = verdict(nature, compounds([f"{s[:9]}((" for s in texts(drawn)]), training)
    found = named(evidence)
    assert evidence.differs
    assert {f.name for f in evidence.findings} == TEXTUAL  # no law of properties is invented
    assert all(math.isfinite(f.distance) and f.floor < f.ceiling for f in evidence.findings)
    assert found["validity"].gap == pytest.approx(1, abs=0.05)
    assert found["coverage (share missed)"].distance == 1
    assert found["MOSES validity"].value == 0
    assert not any(check.met for check in evidence.checks)
    assert any("not judged" in remark for remark in evidence.remarks)


def test_empty_strings_and_strange_bytes_are_failures_and_no_accident(zoo):
    nature, _, training = zoo
    nothing = data.empty(len(nature))
    strange = compounds(["".join(map(chr, row)) for row in np.random.default_rng(0).integers(1, 127, (len(nature), 12)).tolist()])
    for drawn in (nothing, strange):
        found = named(verdict(nature, drawn, training))
        assert found["MOSES validity"].value < 0.05
        assert found["validity"].p <= 0.01


def test_few_valid_strings_earn_no_praise(zoo):
    nature, drawn, training = zoo
    mixed = compounds([s if i % 4 == 0 else f"{s}(" for i, s in enumerate(texts(drawn))])
    evidence = verdict(nature, mixed, training)
    found = named(evidence)
    assert abs(found["logP"].gap) < 0.3  # what came out is nature
    assert found["validity"].gap == pytest.approx(0.75, abs=0.05)
    assert found["classifier two-sample test"].gap > 0.5
    assert evidence.differs
    assert not found["MOSES validity"].met
    assert any("no praise" in remark for remark in evidence.remarks)


def test_a_generator_that_says_one_thing_is_caught(zoo):
    nature, drawn, training = zoo
    found = named(verdict(nature, compounds(texts(drawn[:1]) * len(nature)), training))
    assert found["repeats"].gap == pytest.approx(1, abs=0.05)
    assert found["coverage (share missed)"].gap > 0.8
    assert found["MOSES uniqueness@1,000"].value == 1 / len(nature)
    assert found["MOSES IntDiv1"].value == pytest.approx(0, abs=1e-6)
    assert not found["MOSES IntDiv1"].met
    assert not found["MOSES uniqueness@1,000"].met


def test_a_generator_that_knows_ten_molecules_is_caught(zoo):
    nature, drawn, training = zoo
    evidence = verdict(nature, compounds(texts(drawn[:10]) * 25), training)
    assert evidence.differs
    assert named(evidence)["coverage (share missed)"].gap > 0.4


def test_a_variant_that_is_its_prototype_is_no_memory_of_held_out_nature(zoo):
    nature, _, training = zoo
    plain = named(verdict(nature, nature, training))["memorisation ratio"]
    assert plain.beside["drawn in held-out"] == len(nature)
    asked = compounds(texts(nature), [*texts(nature[:-3]), *texts(training[:3])])
    assert named(verdict(nature, asked, training))["memorisation ratio"].beside["drawn in held-out"] == 3


def test_molecules_that_are_written_in_another_way_are_no_other_molecules(zoo):
    from rdkit import Chem

    def rewritten(smiles, seed):
        mol = Chem.MolFromSmiles(smiles)
        if seed % 2:
            Chem.Kekulize(mol, clearAromaticFlags=True)
            return Chem.MolToSmiles(mol, kekuleSmiles=True)
        return Chem.MolToRandomSmilesVect(mol, 1, randomSeed=seed + 1)[0]

    nature, drawn, _ = zoo
    written = compounds([rewritten(smiles, i) for i, smiles in enumerate(texts(drawn))])
    assert texts(written) != texts(drawn)
    plain, other = (named(verdict(nature, one)) for one in (drawn, written))
    for name in ("tokens", "length", "repeats", "logP"):
        assert other[name].distance == plain[name].distance, name


def test_a_copier_is_caught(zoo):
    nature, _, training = zoo
    found = named(verdict(nature, training[:250], training))
    assert found["memorisation"].gap == pytest.approx(1, abs=0.05)
    assert found["MOSES novelty"].value == 0
    assert not found["MOSES novelty"].met
    assert found["memorisation ratio"].value == math.inf
    assert not found["memorisation ratio"].met
    assert found["MOSES Frag"].met  # in all else it is as good as nature


def test_a_sampler_that_is_too_hot_is_caught(zoo):
    nature, drawn, training = zoo
    evidence = verdict(nature, misspelt(drawn, 0.03), training)
    found = named(evidence)
    assert evidence.differs
    assert found["validity"].distance > 0.1
    assert not found["MOSES validity"].met


def test_training_molecules_with_one_carbon_more_are_new_and_still_copies(zoo):
    nature, _, training = zoo
    evidence = verdict(nature, compounds([f"C{s}" for s in texts(training[:250])]), training)
    found = named(evidence)
    assert found["MOSES novelty"].value > 0.5
    assert found["memorisation"].gap > 0.4
    assert evidence.differs


def test_without_training_the_rest_is_judged_and_the_lack_is_told(zoo):
    nature, drawn, _ = zoo
    evidence = verdict(nature, drawn)
    found = named(evidence)
    assert not {"memorisation", "memorisation ratio", "MOSES novelty"} & set(found)
    assert set(found["MOSES SNN"].beside) == {"halves of nature", "n-gram strings"}
    assert any("Without training" in remark for remark in evidence.remarks)
    assert any("counted on nature itself" in remark for remark in evidence.remarks)


def test_a_nature_of_sixty_rows_gives_a_verdict_that_can_be_read():
    split = data.load(None, seed=0, simulated=600)
    evidence = verdict(split.held_out, misspelt(split.validation, 0.2), split.train)
    assert len(evidence.findings) >= 5
    assert all(math.isfinite(f.distance) and f.floor < f.ceiling for f in evidence.findings)
    assert Evidence.from_json(evidence.to_json()).findings[0].name == evidence.findings[0].name


def test_fewer_than_twenty_rows_are_refused(zoo):
    with pytest.raises(Refused, match="fewer than 20"):
        judge(zoo[0], zoo[1][:19], seed=0)


def test_the_same_seed_gives_the_same_verdict_whatever_torch_did_before(zoo):
    nature, drawn, training = zoo
    first = verdict(nature, drawn[:60], training).to_json()
    torch.rand(7)
    assert verdict(nature, drawn[:60], training).to_json() == first


def test_rivals_are_what_they_are_called(zoo):
    nature, drawn, _ = zoo
    strings = {"nature": texts(nature), "drawn": texts(drawn)}
    tables = {name: statistics._measured(found, statistics._parts(1), False) for name, found in strings.items()}
    imitated = simulated(300, seed=9) + ["broken("] * 10
    ngram = imitated, statistics._measured(imitated, statistics._parts(1), False)
    sheets = statistics._sheets(strings, tables, ngram, np.random.default_rng(0))
    assert len(set(sheets[ONE].names)) == 1
    assert sheets[ONE].names[0] in sheets["nature"].names
    mixed, plain = (["".join(sorted("".join(words))) for words in sheets[name].words] for name in (SHUFFLED, "nature"))
    broken = np.flatnonzero(~sheets[SHUFFLED].table.valid)  # those that are molecules by chance are written canonically again
    assert [mixed[i] for i in broken] == [plain[i] for i in broken]
    assert sheets[SHUFFLED].table.valid.mean() < 0.05
    assert sheets[WRITTEN].table.valid.all()
    assert len(sheets[NGRAM]) == len(nature)


# --------------------------------------------------------------------------------------------------------------- real data


@pytest.fixture(scope="module")
def zinc(data_folder, tmp_path_factory):
    """A few thousand molecules of ZINC in random order: to judge with, to pose as drawn, and to train on."""
    import csv
    import gzip

    with gzip.open(data_folder / "molecules" / "zinc250k.csv.gz", "rt") as file:
        rows = [row["smiles"] for row, _ in zip(csv.DictReader(file), range(9_000), strict=False)]
    rows = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    return compounds(rows[:1050]), compounds(rows[1050:2100]), compounds(rows[2100:])


@pytest.mark.skipif(not chemnet.installed(), reason='fcd is not installed: pip install "simulacra[chem]"')
def test_on_real_molecules_a_copier_has_natures_fcd_and_the_n_gram_is_the_rival(zinc, monkeypatch):
    monkeypatch.setattr(measuring, "SINGLY", 10_000)  # processes would each load ChemNet anew
    nature, drawn, training = zinc
    evidence = verdict(nature, drawn, training)
    found = named(evidence)
    assert not evidence.differs
    assert found["logP"].rival_name == WRITTEN
    for finding in evidence.findings:
        assert finding.floor < finding.ceiling, finding.name
    fcd = found["MOSES FCD"]
    assert fcd.met
    assert fcd.beside["halves of nature"] == pytest.approx(fcd.beside["copied training"], rel=0.15)
    assert fcd.value == pytest.approx(2600 / 1050, rel=0.15)  # about 1,300 (1/m + 1/n) of nature against nature
    assert fcd.beside["n-gram strings"] > 2 * fcd.value
    assert found["GuacaMol FCD score"].value == pytest.approx(math.exp(-0.2 * fcd.value))
