"""The learner that writes SMILES: likelihood, drawing, randomised strings, weights that travel, and files of many rows."""

import dataclasses

import pytest
import torch
from rdkit import Chem

from simulacra import drawing, pipeline, streaming
from simulacra.families import sequence
from simulacra.sciences.drugs import data, lstm, properties, simulate, writer
from simulacra.sciences.drugs.ngram import NGram
from simulacra.study import Noise, Refused

SMILES = simulate.simulated(400, seed=5)
SAMPLES = data.compounds(SMILES)


def recipe(**changes):
    small = {"hidden": 48, "layers": 1, "steps": 60, "batch": 32, "lr": 1e-2, "slots": 32, "precision": "float32", "ema": 0.9}
    return lstm.study.recipes["quick"].model_copy(update=small | changes)


def trained(**changes):
    torch.manual_seed(0)
    learner = writer.build(recipe(**changes), SAMPLES)
    rng = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(learner.recipe.steps):
        losses.append(float(learner.step(SAMPLES[torch.randint(400, (32,), generator=rng)])["nats per token"]))
    return learner, losses


@pytest.fixture(scope="module")
def learner():
    return trained()[0]


def test_training_makes_the_molecules_likelier_and_every_weight_moves():
    made, losses = trained(steps=40)
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    torch.manual_seed(0)
    begun = writer.build(recipe(steps=40), SAMPLES)
    before, after = begun.descent.module.state_dict(), made.descent.module.state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_a_batch_of_few_strings_moves_the_weights_as_little_as_it_weighs():
    torch.manual_seed(0)
    made = writer.build(recipe(), SAMPLES)
    large, small = (float(made.step(SAMPLES[torch.arange(n)])["gradient"]) for n in (32, 1))
    assert small < large / 4


def test_the_score_is_the_negative_log_likelihood_in_bits_and_infinite_for_tokens_never_seen(learner):
    scores = learner.score(data.compounds([SMILES[0], SMILES[1], "C[Te]C", "", "not smiles"]))
    tokens = learner.vocabulary.encoded([SMILES[0]])
    with torch.no_grad():
        expected = sequence.log_loss(learner.descent.average(tokens[:, :-1]), tokens) / torch.log(torch.tensor(2.0))
    torch.testing.assert_close(scores[:1], expected, rtol=1e-4, atol=1e-3)
    assert bool(scores[1].isfinite())
    assert bool(scores[2:].isinf().all())


def test_molecules_of_training_are_likelier_than_strings_put_in_disorder(learner):
    turned = [s[::-1].translate(str.maketrans("()", ")(")) for s in SMILES[:60] if "[" not in s and "Cl" not in s and "Br" not in s]
    straight = [s for s in SMILES[:60] if "[" not in s and "Cl" not in s and "Br" not in s]
    assert learner.score(data.compounds(straight)).mean() < learner.score(data.compounds(turned)).mean()


def test_rows_are_drawn_alike_at_once_and_in_parts(learner):
    at_once = data.texts(learner.draw(data.empty(50), Noise(3, range(50))))
    parts = [data.texts(learner.draw(data.empty(n), Noise(3, range(a, a + n)))) for a, n in ((0, 20), (20, 30))]
    assert parts[0] + parts[1] == at_once


def test_a_prompt_begins_the_string(learner):
    drawn = learner.draw(data.empty(20, "c1ccc("), Noise(3, range(20)))
    assert all(text.startswith("c1ccc(") for text in data.texts(drawn))
    assert set(data.prompts(drawn)) == {"c1ccc("}
    with pytest.raises(Refused, match=r"token '\[Te\]' does not occur"):
        learner.draw(data.empty(2, "C[Te]"), Noise(3, range(2)))


def test_a_low_temperature_draws_from_fewer_beginnings(learner):
    def drawn(temperature):
        learner.recipe = learner.recipe.model_copy(update={"temperature": temperature})
        return learner.draw(data.empty(200), Noise(0, range(200)))

    cold, warm = drawn(0.3), drawn(1.0)
    beginnings = [len({text[:6] for text in data.texts(one)}) for one in (cold, warm)]
    assert beginnings[0] < beginnings[1]


def test_randomised_strings_are_the_same_molecules_written_otherwise():
    turned = [writer.randomised(s, seed) for seed, s in enumerate(SMILES[:100])]
    assert [Chem.CanonSmiles(s) for s in turned] == [Chem.CanonSmiles(s) for s in SMILES[:100]]
    assert sum(a != b for a, b in zip(turned, SMILES, strict=False)) > 80
    assert writer.randomised(SMILES[0], 7) == writer.randomised(SMILES[0], 7)
    assert writer.randomised("no molecule", 7) == "no molecule"
    torch.manual_seed(0)
    made = writer.build(recipe(randomised=0.5), SAMPLES)
    spelled = made.spelled(SMILES)
    assert 0.35 < sum(a != b for a, b in zip(spelled, SMILES, strict=True)) / 400 < 0.6


def test_shipped_weights_are_half_as_large_and_draw_nearly_the_same(learner):
    state = learner.to_ship()
    size = sum(v.numel() * v.element_size() for v in state.values())
    assert size < 0.52 * sum(p.numel() * 4 for p in learner.descent.average.parameters()) + 2000
    again = writer.restore(recipe(), state)
    assert again.vocabulary.tokens == learner.vocabulary.tokens
    one, other = (made.score(SAMPLES[:100]) for made in (learner, again))
    torch.testing.assert_close(one, other, rtol=0.02, atol=0.5)


def test_selfies_are_always_molecules_even_before_anything_is_learned():
    torch.manual_seed(0)
    made = writer.build(recipe(notation="selfies"), SAMPLES[:100])
    drawn = data.texts(made.draw(data.empty(60), Noise(0, range(60))))
    written = [text for text in drawn if text]
    assert len(written) > 40
    assert all(properties.molecule(text) is not None for text in written)


def test_the_learning_rate_falls_once_more_where_the_corrections_begin():
    assert writer.falls(recipe(steps=80)) == []
    assert writer.falls(recipe(steps=80, corrected=40)) == [(40, 0.1)]
    assert writer.falls(recipe(steps=80, corrected=40, restart=20)) == [(20, 0.5), (40, 0.1)]
    assert "molecules among own strings" not in writer.build(recipe(corrected=40), SAMPLES).step(SAMPLES[:32])


def test_a_step_down_their_likelihood_makes_own_mistakes_less_likely():
    torch.manual_seed(0)
    made = writer.build(recipe(corrected=60), SAMPLES)
    drawn = made.sampled(range(writer.OWN), seed=-1, model=made.descent.module).tokens
    wrong = [properties.molecule(text) is None for text in made.vocabulary.decoded(drawn)]
    tokens = torch.cat([torch.full_like(drawn[:, :1], sequence.START), drawn], 1)[wrong]
    made.mistakes()[1].backward()
    with torch.no_grad():
        before = made.log_loss(made.descent.module, tokens).mean()
        for weight in made.descent.module.parameters():
            weight -= 0.05 * weight.grad
        assert made.log_loss(made.descent.module, tokens).mean() > before


def test_the_likelihood_of_mistakes_is_that_of_the_strings_that_are_none():
    torch.manual_seed(0)
    made = writer.build(recipe(corrected=60), SAMPLES)
    valid, likelihood = made.mistakes()
    assert made.mistakes()[0] == valid  # the strings of a step are decided by the step
    drawn = made.sampled(range(writer.OWN), seed=-1, model=made.descent.module)
    wrong = [i for i, text in enumerate(made.vocabulary.decoded(drawn.tokens)) if properties.molecule(text) is None]
    assert valid == 1 - len(wrong) / writer.OWN < 0.5
    torch.testing.assert_close(likelihood, -drawn.log_loss[wrong].sum() / (writer.OWN * made.mean_length), rtol=1e-3, atol=1e-3)
    told = made.step(SAMPLES[:32])
    assert float(told["molecules among own strings"]) == pytest.approx(valid)


def test_of_strings_that_go_on_from_a_beginning_only_what_was_written_counts():
    torch.manual_seed(0)
    made = writer.build(recipe(corrected=60), SAMPLES)
    begun = ["CC(", "c1ccccc1", "", "CN"] * 8
    valid, likelihood = made.mistakes(begun)
    drawn = made.sampled(range(32), seed=-1, model=made.descent.module, prompt=made._begun(begun))
    texts = made.vocabulary.decoded(drawn.tokens)
    wrong = [i for i, text in enumerate(texts) if properties.molecule(text) is None]
    assert all(text.startswith(start) for text, start in zip(texts, begun, strict=True))
    assert valid == 1 - len(wrong) / 32
    torch.testing.assert_close(likelihood, -drawn.log_loss[wrong].sum() / (32 * made.mean_length), rtol=1e-3, atol=1e-3)


def test_where_every_string_is_a_molecule_there_is_nothing_to_correct():
    torch.manual_seed(0)
    made = writer.build(recipe(notation="selfies", corrected=60), SAMPLES[:100])
    made.vocabulary.decoded = lambda tokens: ["C"] * len(tokens)
    valid, likelihood = made.mistakes()
    assert (valid, likelihood.item()) == (1.0, 0.0)


def test_likelihood_of_an_n_gram_model_is_that_of_its_laws():
    counts = NGram(["CC", "CO"], order=2, alpha=1e-9)
    assert lstm.counted_bits(counts, "CO") == pytest.approx(-torch.tensor([1.0, 1 / 3, 1.0]).log2().sum().item(), abs=1e-3)
    assert lstm.counted_bits(counts, "N") == pytest.approx(2 * 19.93, abs=0.1)


def test_nothing_can_be_asked_of_it_and_the_message_says_where_one_can():
    with pytest.raises(Refused, match=r"drugs\.transfer grows fragments"):
        lstm.ask(recipe(), 3, {"fragment": "C*"})


def test_two_processes_write_the_file_that_one_writes(tmp_path):
    tiny = recipe(hidden=8, embedding=8, steps=2, draws=40, simulated=400, longest=60)
    run, _ = pipeline.run("drugs.lstm", "quick", tiny, tmp_path / "run")
    source = drawing.opened(str(run.path))
    assert streaming.fits(source, tmp_path / "a.smi", 1_000_000)
    order = streaming.Order(str(run.path), {}, {}, 9, 250, ".smi", 100)
    outcome = streaming.stream(source, order, tmp_path / "two.smi", workers=2)
    lines = (tmp_path / "two.smi").read_text().splitlines()
    assert outcome.finished
    assert len(lines) == 250
    assert outcome.counts["are molecules"] == sum(properties.molecule(line) is not None for line in lines)
    drawn = data.texts(source.learner().draw(data.empty(250), Noise(9, range(250))))
    assert [line if line != "None" else "" for line in lines] == drawn
    streaming.stream(source, dataclasses.replace(order, rows=100), tmp_path / "one.smi", workers=1)
    assert (tmp_path / "one.smi").read_text().splitlines() == lines[:100]
