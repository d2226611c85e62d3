"""A trained writer put to use: tuned, growing, led by a score. The writer of these tests knows chains of C, N and O, and benzene."""

import math
import random

import pytest
import torch
from rdkit import Chem

from simulacra.runs import Damaged, Run
from simulacra.sciences.drugs import asking, data, growing, recovery, scores, seeking, transfer, tuning
from simulacra.sciences.drugs import prior as priors
from simulacra.sciences.drugs.asking import TransferRecipe
from simulacra.sciences.drugs.writer import StringRecipe
from simulacra.study import Noise, Refused

SMALL = {"hidden": 32, "layers": 1, "embedding": 16, "longest": 30, "threads": 1, "precision": "float32", "slots": 64}


def chains(n, seed, letters="CCCNO"):
    """Different chains, some with a phenyl at their beginning, as canonical SMILES."""
    rng, out = random.Random(seed), {}
    while len(out) < n:
        text = "C" + "".join(rng.choice(letters) for _ in range(rng.randint(2, 8)))
        ring, branch = ("c1ccccc1" if rng.random() < 0.3 else ""), rng.random() < 0.3
        out[Chem.CanonSmiles(ring + (f"C({text[0]}){text[1:]}" if branch else text))] = None
    return list(out)


def trained(recipe, strings, steps, **more):
    learner = tuning.build(recipe.model_copy(update={"steps": steps, **more}), None, strings[50:], strings[:50])
    rng = random.Random(1)
    for step in range(steps):
        torch.manual_seed(step)
        learner.step(data.compounds(rng.choices(strings[50:], k=recipe.batch)))
    return learner


@pytest.fixture(scope="module")
def writer_on_disk(tmp_path_factory):
    """A run folder of a small writer."""
    torch.manual_seed(0)
    recipe = TransferRecipe(**SMALL, batch=64, lr=1e-2, warmup=5, ema=0.9, look=1000, fragments=0.4, links=0.5)
    learner = trained(recipe, chains(1500, 0), 160)
    run = Run.create(tmp_path_factory.mktemp("prior") / "run", study="drugs.transfer", name="grow", recipe=recipe)
    run.save(160, learner.writer.state_dict())
    return run.path


@pytest.fixture
def recipe(writer_on_disk):
    return TransferRecipe(**SMALL, prior=str(writer_on_disk), batch=16, lr=5e-3, warmup=0, ema=0.0, steps=40, searched=100)


@pytest.fixture
def prior(recipe):
    return priors.find(recipe.prior)


def decoded(writer, drawn):
    return writer.vocabulary.decoded(drawn.tokens)


# -------------------------------------------------------------------------------------------------------------------- prior


def test_a_transfer_begins_as_the_law_of_its_prior_even_with_room_for_a_new_token(recipe, prior):
    strings = data.compounds(chains(40, 7))
    plain = priors.writer_from(prior, recipe)
    wider = priors.writer_from(prior, recipe, ["[Si]"])
    assert len(wider.vocabulary) == len(plain.vocabulary) + 1
    assert torch.allclose(plain.score(strings), wider.score(strings), atol=1e-2)
    assert decoded(plain, plain.sampled(range(20), seed=1)) == decoded(plain, plain.sampled(range(20), seed=1, model=plain.descent.module))
    assert not any("[Si]" in text for text in decoded(wider, wider.sampled(range(200), seed=1)))


def test_a_prior_of_another_study_or_of_nothing_is_refused_and_no_code_is_chosen(tmp_path, prior):
    other = Run.create(tmp_path / "other", study="os.path", name="x", recipe=StringRecipe())
    other.save(1, {"weights.embedding.weight": torch.zeros(3, 2)})
    with pytest.raises(Refused, match=r"of the study 'os\.path'; a prior is a run of drugs\.lstm"):
        priors.find(str(tmp_path / "other"))
    broken = Run.create(tmp_path / "broken", study="drugs.lstm", name="x", recipe=StringRecipe())
    broken.save(1, {"weights.embedding.weight": torch.zeros(3, 2)})
    with pytest.raises(Damaged, match="does not hold a language model"):
        priors.find(str(tmp_path / "broken"))
    with pytest.raises(Refused, match="neither a run folder"):
        priors.find("drugs.nothing")


def test_the_likelihood_of_a_sampled_string_is_its_scored_likelihood(recipe, prior):
    writer = priors.writer_from(prior, recipe)
    drawn = writer.sampled(range(40), seed=3)
    texts = decoded(writer, drawn)
    rows = [i for i in range(40) if drawn.ended[i]]
    scored = writer.log_loss(writer.descent.average, writer.vocabulary.encoded([texts[i] for i in rows]))
    assert torch.allclose(scored, drawn.log_loss[rows], atol=1e-3)


# ------------------------------------------------------------------------------------------------------------------ actives


def file_of(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_of_a_handful_of_actives_all_are_learned_from_and_known_ones_are_held_out(recipe, tmp_path):
    few, others = chains(5, 11), chains(40, 12)
    files = {"data": file_of(tmp_path / "few.smi", few), "known": str(file_of(tmp_path / "known.smi", few + others))}
    asked = recipe.model_copy(update=files)
    split = transfer.load(asked)
    assert set(data.texts(split.train)) == set(few)
    assert len(split.validation) == 0
    assert set(data.texts(split.held_out)) == set(others) - set(few)
    assert split.files["prior"]


def test_a_handful_without_known_actives_is_held_against_molecules_of_the_prior(recipe, tmp_path):
    split = transfer.load(recipe.model_copy(update={"data": file_of(tmp_path / "few.smi", chains(5, 11))}))
    assert "molecules of the prior" in split.origin
    assert len(split.held_out) > 100


def test_twenty_actives_keep_some_to_validate_and_sixty_some_to_hold_out(recipe, tmp_path):
    twenty = transfer.load(recipe.model_copy(update={"data": file_of(tmp_path / "a.smi", chains(20, 13))}))
    assert (len(twenty.train), len(twenty.validation)) == (16, 4)
    sixty = transfer.load(recipe.model_copy(update={"data": file_of(tmp_path / "b.smi", chains(60, 14))}))
    assert (len(sixty.train), len(sixty.validation), len(sixty.held_out)) == (48, 6, 6)
    parts = [set(data.texts(part)) for part in (sixty.train, sixty.validation, sixty.held_out)]
    assert not parts[0] & parts[1] | parts[1] & parts[2] | parts[0] & parts[2]


def test_a_table_that_marks_what_to_learn_from_is_kept_to(recipe, tmp_path):
    some = chains(20, 15)
    path = file_of(tmp_path / "t.csv", ["smiles,fine_tune", *(f"{s},{int(i < 5)}" for i, s in enumerate(some))])
    split = transfer.load(recipe.model_copy(update={"data": path}))
    assert set(data.texts(split.train)) == set(some[:5])
    assert set(data.texts(split.held_out)) == set(some[5:])


def test_an_active_with_a_token_that_the_prior_never_saw_is_named_and_set_aside(recipe, tmp_path):
    path = file_of(tmp_path / "few.smi", [*chains(6, 11), "CC[Si](C)(C)C", "not a molecule"])
    split = transfer.load(recipe.model_copy(update={"data": path}))
    assert len(split.train) == 6
    assert any("[Si]" in line and "does not occur" in line for line in split.rejected)
    assert any("not" in line and "is not SMILES" in line for line in split.rejected)
    with pytest.raises(Refused, match="holds no active that can be learned from"):
        transfer.load(recipe.model_copy(update={"data": file_of(tmp_path / "si.smi", ["C[Si](C)(C)C"])}))


def test_a_goal_without_a_prior_and_known_actives_without_others_are_refused(recipe, monkeypatch):
    monkeypatch.setattr(transfer, "found", lambda recipe: None)
    with pytest.raises(Refused, match="a goal needs a trained writer"):
        transfer.load(recipe.model_copy(update={"prior": "", "score": "qed"}))
    with pytest.raises(Refused, match="name those with --data"):
        transfer.load(recipe.model_copy(update={"known": "known.smi"}))


# ------------------------------------------------------------------------------------------------------------------- tuning


def tuned(recipe, training, validation=(), steps=40, **changes):
    asked = recipe.model_copy(update={"steps": steps, **changes})
    learner = tuning.build(asked, priors.find(recipe.prior), training, list(validation))
    for step in range(steps):
        torch.manual_seed(step)
        learner.step(data.compounds([training[k % len(training)] for k in range(asked.batch)]))
    return learner


def test_tuning_makes_the_actives_likelier_and_the_guard_keeps_what_the_prior_knew(recipe, prior):
    actives, others = ["CCCCCCCCNO", "CCCCCCCONO", "CCCCCCCNNO"], data.compounds(chains(200, 21))
    before = priors.writer_from(prior, recipe)
    free, guarded = (tuned(recipe, actives, guard=weight) for weight in (0.0, 3.0))
    assert free.writer.score(data.compounds(actives)).mean() < before.score(data.compounds(actives)).mean() - 3
    assert guarded.writer.score(data.compounds(actives)).mean() < before.score(data.compounds(actives)).mean() - 1
    lost = [float(one.score(others).mean() - before.score(others).mean()) for one in (guarded.writer, free.writer)]
    assert lost[0] < lost[1] - 3


def test_the_state_that_draws_is_the_one_that_found_the_validation_molecules_likeliest(recipe):
    pool = chains(60, 22, letters="CN")
    learner = tuned(recipe, pool[:12], pool[12:], steps=60, look=5, lr=2e-2)
    last = learner.writer.score(data.compounds(pool[12:])).mean()
    kept = learner.writer.log_loss(learner.model, learner.validation).mean() * tuning.BITS
    assert float(kept) == pytest.approx(learner.best, rel=1e-5)
    assert kept < last - 0.3  # it went on learning its twelve by heart


def test_corrections_go_on_from_fragments_and_draw_from_the_last_state(recipe):
    pool, told = chains(80, 24), []
    asked = recipe.model_copy(update={"steps": 60, "corrected": 60, "fragments": 0.8, "links": 0.5, "batch": 64, "lr": 1e-2})
    learner = tuning.build(asked, priors.find(recipe.prior), pool[:64], pool[64:])
    for step in range(60):
        torch.manual_seed(step)
        told.append(float(learner.step(data.compounds(pool[:64]))["molecules among own strings"]))
    assert sum(told[-10:]) / 10 > sum(told[:10]) / 10 + 0.02
    assert not learner.looking
    assert learner.model is learner.writer.descent.average
    begun = learner._beginnings(["CCCCOCCN", "C", "c1ccccc1CCO"])
    assert begun[1] == ""
    assert begun[0]


@pytest.mark.parametrize("corrected", [0, 2])
def test_tuning_resumed_from_its_tensors_goes_on_bit_for_bit(recipe, corrected):
    pool = chains(40, 23)
    changes = {"guard": 0.5, "look": 3, "randomised": 0.5, "fragments": 0.5, "ema": 0.9, "corrected": corrected}
    whole = tuned(recipe, pool[:30], pool[30:], steps=8, **changes)
    half = tuning.build(whole.recipe, priors.find(recipe.prior), pool[:30], pool[30:])
    again = tuning.build(whole.recipe, priors.find(recipe.prior), pool[:30], pool[30:])
    batch = data.compounds([pool[k % 30] for k in range(recipe.batch)])
    for step in range(8):
        torch.manual_seed(step)
        if step == 4:
            again.load_state_dict({k: v.clone() for k, v in half.state_dict().items()})
        (half if step < 4 else again).step(batch)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())


def test_what_is_shipped_draws_what_the_tuned_writer_draws(recipe):
    learner = tuned(recipe, chains(20, 24), steps=5)
    again = tuning.restore(learner.recipe, learner.to_ship())
    like = data.empty(30)
    same = [a == b for a, b in zip(*(data.texts(one.draw(like, Noise(1, range(30)))) for one in (learner, again)), strict=True)]
    assert sum(same) >= 25  # weights were rounded to bfloat16


# ------------------------------------------------------------------------------------------------------------------ growing


@pytest.mark.parametrize("text", ["c1ccc(*)cc1", "*CC(*)N", "c1ccc(*)cc1.*CCN", "*OCC"])
def test_what_is_grown_keeps_the_fragment_and_rows_do_not_depend_on_how_many(recipe, prior, text):
    drawer = tuning.restore(recipe, {**{f"average.{k}": v for k, v in prior.state.items()}, "vocabulary": prior.vocabulary.state(),
                                     "mean_length": torch.tensor(prior.mean_length)})  # fmt: skip
    like = drawer.ask(30, {"fragment": text})
    made = data.texts(drawer.draw(like, Noise(4, range(30))))
    asked = growing.fragment(text)
    assert sum(map(bool, made)) >= 20
    assert all(growing.kept(asked, one) for one in made if one)
    assert len(set(made)) > 5
    assert data.texts(drawer.draw(like[:7], Noise(4, range(7)))) == made[:7]
    assert "0 could not be" in asking.summary(like, drawer.draw(like, Noise(4, range(30))))[0] or not all(made)


def test_several_fragments_are_spread_over_the_rows():
    like = asking.ask(None, 6, {"fragment": "c1ccc(*)cc1,*CC,*N"})
    assert data.prompts(like) == ["c1ccc(*)cc1"] * 2 + ["*CC"] * 2 + ["*N"] * 2


def test_what_these_weights_cannot_grow_is_refused_with_what_they_can(recipe, prior):
    writer = priors.writer_from(prior, recipe)
    with pytest.raises(Refused, match=r"'Cl'.*these weights know .*C"):
        asking.ask(writer, 3, {"fragment": "Clc1ccc(*)cc1"})
    with pytest.raises(Refused, match=r"takes 3\d tokens, and these weights write at most 29"):
        asking.ask(writer, 3, {"fragment": "*" + "C" * 30})
    with pytest.raises(Refused, match="known: fragment"):
        asking.ask(writer, 3, {"fragments": "*C"})
    without = tuning.build(recipe.model_copy(update={"fragments": 0.0}), None, ["CCN", "CCO", "c1ccccc1"], [])
    with pytest.raises(Refused, match="never saw two fragments"):
        asking.ask(without.writer, 3, {"fragment": "*CC.*CC"})


# -------------------------------------------------------------------------------------------------------------------- goals


def nitrogens(mol):
    """Share of nitrogen among the atoms."""
    return sum(atom.GetAtomicNum() == 7 for atom in mol.GetAtoms()) / mol.GetNumAtoms()


@pytest.fixture
def goal(recipe, monkeypatch):
    monkeypatch.setattr(scores, "find", lambda name: nitrogens)
    return recipe.model_copy(update={"score": "nitrogens", "batch": 32, "sigma": 60.0, "replay": 8, "bucket": 0, "calls": 2000})


def led(recipe, steps, learner=None, start=0):
    learner = learner or transfer.build(recipe, data.empty(1))
    told = {}
    for step in range(start, steps):
        torch.manual_seed(step)
        told = learner.step(data.empty(1))
    return learner, told


def test_learning_from_a_score_raises_it(goal):
    learner, told = led(goal, 40)
    value = {}
    for name, model in (("agent", learner.writer.descent.average), ("prior", learner.prior)):
        mols = [Chem.MolFromSmiles(s) for s in decoded(learner.writer, learner.writer.sampled(range(300), seed=9, model=model))]
        value[name] = sum(nitrogens(mol) for mol in mols if mol and mol.GetNumAtoms()) / 300
    assert value["agent"] > value["prior"] + 0.2
    assert told["calls"] == len(learner.seen)


def test_a_call_is_a_molecule_and_learning_ends_when_all_are_spent(goal):
    asked = []
    learner = transfer.build(goal.model_copy(update={"calls": 60}), data.empty(1))
    learner.oracle.score = lambda mol: asked.append(Chem.MolToSmiles(mol)) or 0.5
    led(goal, 12, learner)
    assert len(asked) == len(set(asked)) == len(learner.seen) == 60
    before = {k: v.clone() for k, v in learner.writer.descent.module.state_dict().items()}
    led(goal, 15, learner, start=12)
    assert all(torch.equal(v, before[k]) for k, v in learner.writer.descent.module.state_dict().items())
    assert learner.scored(["CCN", "NCC", ""])[2] == 0


def test_a_goal_resumed_from_its_tensors_goes_on_bit_for_bit(goal):
    goal = goal.model_copy(update={"bucket": 3, "minimum": 0.1})
    whole, _ = led(goal, 6)
    half, _ = led(goal, 3)
    again = transfer.build(goal, data.empty(1))
    again.load_state_dict({k: v.clone() for k, v in half.state_dict().items()})
    led(goal, 6, again, start=3)
    one, two = whole.state_dict(), again.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(v, two[k]) for k, v in one.items())


def test_a_score_that_fails_for_some_is_told_once_and_learning_goes_on(goal, monkeypatch):
    def picky(mol):
        if any(atom.GetAtomicNum() == 8 for atom in mol.GetAtoms()):
            raise ValueError("no oxygen")
        return nitrogens(mol)

    monkeypatch.setattr(scores, "find", lambda name: picky)
    with pytest.warns(UserWarning, match="ValueError: no oxygen") as told:
        last = led(goal, 4)[1]
    assert len(told) == 1
    assert 0 < last["failed"] < last["calls"]


def test_a_run_folder_cannot_choose_a_score_of_a_module_that_was_not_trusted(recipe):
    with pytest.raises(Refused, match="--trust some_module"):
        transfer.load(recipe.model_copy(update={"score": "some_module:function"}))


def test_the_area_under_the_best_ten_by_hand():
    # Two of 200 calls score 1, the mean of the best 10 is .2 from call 100 on; by trapezia: 0 to .2, then .2; nothing more until 400.
    values = [0.0] * 98 + [1.0, 1.0] + [0.0] * 100
    assert seeking.area(values, 400) == pytest.approx((100 * 0.1 + 100 * 0.2 + 200 * 0.2) / 400)
    assert seeking.area([], 100) == 0
    assert seeking.area([1.0] * 50, 50) == pytest.approx(0.5)  # one trapezium, from 0
    assert seeking.curve(values)[:, 1].tolist() == [0.2, 0.2]


# ----------------------------------------------------------------------------------------------------------------- recovery


def test_recovery_and_verbatim_shares_of_sets_made_by_hand():
    actives, held = ["CCCCO", "CCCCN"], ["CCCCCO", "c1ccccc1O", "CCCCCN", "CC(C)CO", "NCCCCN"]
    tuned_draws, untuned = ["OCCCC", "OCCCCC", "CCCCN", "C(("], ["CCO", "c1ccccc1", "CCCC", "CCCl"]
    out = {check.name.split(",")[0]: check for check in recovery.checks(actives, held, tuned_draws, untuned, 0)}
    verbatim = out["draws that are actives learned from"]
    assert verbatim.value == 0.5  # two of four strings, written another way
    assert verbatim.beside["share of the actives that were drawn"] == 1
    assert verbatim.beside["untuned prior"] == 0
    exact = out["held-out actives drawn exactly"]
    assert exact.value == pytest.approx(1 / 5)
    assert exact.error == pytest.approx(math.sqrt(0.2 * 0.8 / 5), rel=0.1)
    moved = out["similarity of a draw to the nearest active learned from"]
    assert moved.value > moved.beside["untuned prior"]


def test_the_interval_of_a_gain_is_that_of_paired_things():
    import numpy as np

    rng = np.random.default_rng(0)
    one = np.array([1.0] * 60 + [0.0] * 40)
    error, low, high = recovery.difference(one, one, rng)
    assert (low, high) == (0, 0)
    assert error == pytest.approx(math.sqrt(0.6 * 0.4 / 100), rel=0.1)
    error, low, high = recovery.difference(one, np.zeros(100), rng)
    assert low < 0.6 < high
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)
