"""drugs.prototype: the published network to the number, its repairs, the dial, and what may be asked for."""

import gzip
import math

import numpy as np
import pytest
import torch

from simulacra.families import sequence
from simulacra.families.autoencoder import kl_to_standard_normal
from simulacra.nets.language import LanguageModel
from simulacra.nets.strings import ParallelConvolutions
from simulacra.sciences.drugs import data, dial, prototype, tokens
from simulacra.sciences.drugs.variation import Sizes, Variation
from simulacra.study import Noise, Refused
from simulacra.training import batches_from

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
SMALL = prototype.study.recipes["quick"].model_copy(update={"precision": "float32", "slots": 64})


@pytest.fixture(scope="module")
def nature():
    return prototype.load(SMALL.model_copy(update={"simulated": 1500, "stereo": False}))


def taught(recipe, samples, known):
    """A learner with the vocabulary of `known`, taught on `samples`."""
    torch.manual_seed(recipe.seed)
    learner = prototype.build(recipe, known)
    rows = batches_from(samples, recipe.batch, 0, 0)
    for step in range(recipe.steps):
        torch.manual_seed(step)
        learner.step(samples[next(rows)])
    return learner


@pytest.fixture(scope="module")
def learner(nature):
    """Few molecules, many times: within seconds it has them by heart, so that the dial has something to lose."""
    recipe = SMALL.model_copy(update={"steps": 700, "stereo": False, "anneal": 50, "beta": 0.01, "lr": 6e-3})
    return taught(recipe, nature.train[:64], nature.train)


def turned(learner, **changes):
    return prototype.restore(learner.recipe.model_copy(update=changes), learner.state_dict())


def asked(smiles, each=1):
    return data.compounds([""] * (each * len(smiles)), [s for s in smiles for _ in range(each)])


# ------------------------------------------------------------------------------------------------------------ as published


@pytest.fixture(scope="module")
def published():
    recipe = prototype.study.recipes["paper"]
    return prototype.build(recipe, data.compounds([ASPIRIN, "CCO", "c1ccccc1Br", "CN"]))


def test_the_published_network_has_as_many_weights_as_a_hand_counts(published):
    model = published.descent.module
    embedding = 37 * 128
    convolutions = 128 * 128 * (3 + 4 + 5 + 6) + 4 * 128
    places = (48 + 47 + 46 + 45) * 128
    dense = places * 450 + 450
    mean_and_sigma = 2 * (450 * 300 + 300)
    lstm = 4 * 150 * (128 + 150) + 4 * 150
    out = 150 * 37 + 37
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == embedding + convolutions + dense + mean_and_sigma + lstm + out
    assert len(published.vocabulary) == 37
    assert model.start is None, "the code itself is the state"


def test_the_published_code_is_the_cell_and_the_hidden_state(published):
    code = torch.randn(2, 300)
    hidden, cell = published.descent.module.state(code)
    assert torch.equal(cell[0], code[:, :150])
    assert torch.equal(hidden[0], code[:, 150:])


def test_every_character_is_a_token_of_the_published_network(published):
    assert published.vocabulary.decoded(torch.tensor([[*published.numbers("[C@@H]"), tokens.END]])) == ["[C@@H]"]
    assert len(published.numbers("[C@@H]Cl")) == 8
    again = tokens.Vocabulary.from_state(published.vocabulary.state())
    assert (again.notation, again.tokens) == ("characters", published.vocabulary.tokens)


def test_the_published_loss_is_the_mean_over_50_places_and_1e_5_of_the_divergence(published):
    learner = published
    noise = torch.randn(3, 300)
    written = learner.encoded([ASPIRIN, "CCO", "CN"])
    loss, kl = learner.terms(learner.descent.module, written, written[:, 1:], noise)
    model = learner.descent.module
    seen = model.encoder(model.decoder.embedding(written[:, 1:]))
    mean, sigma = model.mean(seen), model.deviation(seen)
    hidden = 0.5 * (mean**2 + sigma**2 - (sigma**2).log() - 1).sum(1)
    torch.testing.assert_close(kl, hidden, rtol=1e-4, atol=1e-3)  # a raw sigma may lie near 0, where its logarithm is steep
    logits = model(written[:, :-1], mean + sigma.abs() * noise)
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), written[:, 1:].flatten())
    torch.testing.assert_close(loss.mean() / 50, plain)
    assert written.shape == (3, 51)
    assert learner.mean_length == 50
    assert learner.weight() / 50 == pytest.approx(1e-5)


def test_published_steps_shrink_by_four_per_cent_every_5000(published):
    descent, before = published.descent, published.descent.count
    rates = []
    for descent.count in (0, 4999, 5000, 10_000):
        rates.append(descent.rate())
    descent.count = before
    assert rates == pytest.approx([1e-3, 1e-3, 0.96e-3, 0.9216e-3])


def test_the_published_alphabet_is_that_of_zinc(data_folder):
    path = data_folder / "molecules" / "zinc250k.csv.gz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with gzip.open(path, "rt") as file:
        next(file)
        assert set().union(*(set(line.split(",")[0]) for line in file)) == set(prototype.ALPHABET)
    assert len(prototype.ALPHABET) == 34


def test_molecules_of_more_than_48_characters_are_set_aside_with_the_reason():
    recipe = prototype.study.recipes["paper"].model_copy(update={"simulated": 800})
    split = prototype.load(recipe)
    assert max(map(len, data.texts(split.train))) <= 48
    assert any("characters; the recipe reads at most 48" in line for line in split.rejected)
    assert len(split.train.bucket.unique()) == 1, "batches hold all lengths"


# -------------------------------------------------------------------------------------------------------------- the repairs


def test_a_raw_sigma_of_any_sign_has_the_divergence_of_its_square_and_zero_does_not_break_it():
    sizes = Sizes.of(prototype.study.recipes["paper"])
    torch.manual_seed(0)
    model = Variation(37, sizes)
    text = torch.randint(3, 37, (4, 50))
    mean, log_variance = model.posterior(text)
    model.deviation.weight.data.neg_()
    model.deviation.bias.data.neg_()
    torch.testing.assert_close(model.posterior(text)[1], log_variance)
    exact = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1)
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), exact)
    model.deviation.weight.data.zero_()
    model.deviation.bias.data.zero_()
    flat = kl_to_standard_normal(*model.posterior(text))
    assert bool(flat.isfinite().all())
    flat.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_padding_is_no_part_of_the_repaired_loss_and_one_of_the_published():
    logits, written = torch.randn(2, 9, 12), torch.tensor([[1, 5, 6, 2, 0, 0, 0, 0, 0, 0], [1, 7, 8, 9, 4, 5, 2, 0, 0, 0]])
    other = logits.clone()
    other[0, 3:], other[1, 6:] = 7 * torch.randn(6, 12), 7 * torch.randn(3, 12)
    torch.testing.assert_close(sequence.log_loss(logits, written), sequence.log_loss(other, written))
    assert not torch.allclose(sequence.log_loss_padded(logits, written), sequence.log_loss_padded(other, written))
    each = -logits.log_softmax(2).gather(2, written[:, 1:, None]).sum((1, 2))
    torch.testing.assert_close(sequence.log_loss_padded(logits, written), each)


def test_beta_rises_from_nothing():
    learner = prototype.build(SMALL.model_copy(update={"anneal": 10, "beta": 0.5}), data.compounds(["CCO", "CCN"]))
    first = learner.weight()
    learner.descent.count = 100
    assert (first, learner.weight()) == (pytest.approx(0.05), 0.5)


def test_the_gradient_reaches_every_weight(nature):
    learner = prototype.build(SMALL, nature.train)
    before = {name: p.clone() for name, p in learner.descent.module.named_parameters()}
    for start in (0, 64, 128):
        learner.step(nature.train[start : start + 64])
    still = [name for name, p in learner.descent.module.named_parameters() if torch.equal(before[name], p)]
    assert not still, still


def test_narrow_convolutions_see_every_place_and_plain_ones_are_not_pooled():
    torch.manual_seed(0)
    for narrow in (0, 3):
        net = ParallelConvolutions(4, 12, widths=(3, 4, 5, 6), filters=5, dense=40, narrow=narrow).double()
        x = torch.randn(1, 12, 4, dtype=torch.double)
        moved = [(net(x + 0.5 * torch.eye(12)[k][None, :, None]) - net(x)).abs().sum() for k in range(12)]
        assert min(moved) > 0
        assert not torch.allclose(net(x), net(x.roll(1, 1))), "places are kept"


def test_the_sampler_gives_a_string_the_likelihood_that_the_model_gives_it_with_a_code_beside():
    torch.manual_seed(1)
    model = LanguageModel(9, embedding=5, hidden=16, layers=2, beside=3)
    beside, state = torch.randn(40, 3), (torch.randn(2, 40, 16), torch.randn(2, 40, 16))
    drawn = sequence.draw(model, range(40), seed=3, longest=12, slots=8, state=state, beside=beside)
    whole = torch.cat([torch.full((40, 1), sequence.START), drawn.tokens], 1)
    logits = model(whole[:, :-1], state, beside)
    torch.testing.assert_close(drawn.log_loss, sequence.log_loss(logits, whole), rtol=1e-4, atol=1e-4)
    few = sequence.draw(model, range(7), seed=3, longest=12, slots=8, state=(state[0][:, :7], state[1][:, :7]), beside=beside[:7])
    assert torch.equal(few.tokens, drawn.tokens[:7, : few.tokens.shape[1]])


# ----------------------------------------------------------------------------------------------------------------- the dial


def test_at_diversity_0_nothing_is_random(learner, nature):
    like = asked(data.texts(nature.held_out[:20]))
    first, second = (data.texts(turned(learner, diversity=0.0).draw(like, Noise(seed, range(20)))) for seed in (0, 1))
    assert first == second
    loose = data.texts(turned(learner, diversity=2.0).draw(like, Noise(1, range(20))))
    assert loose != first


def test_similarity_falls_along_the_dial(learner, nature):
    known = nature.train[:40]
    values = (0.0, 4.0, 8.0)
    like = asked(data.texts(known), each=3)
    drawn = {v: data.texts(turned(learner, diversity=v).draw(like, Noise(2, range(120)))) for v in values}
    found = dial.calibrated(data.texts(known), drawn, data.texts(learner.draw(data.empty(120), Noise(3, range(120)))), set())
    mean = found.similarity.mean((1, 2))
    assert mean[0] > mean[1] + 0.2 > mean[2] + 0.4, mean
    assert found.same[0].mean() > 0.9
    assert found.to_another.mean() < 0.2


def test_a_calibration_tells_copies_from_strangers():
    names = [ASPIRIN, "CCOC(=O)c1ccccc1", "CN1CCC[C@H]1c1cccnc1"]
    copies, broken = [n for n in names for _ in range(2)], ["CC(", "c1cc"] * 3
    found = dial.calibrated(names, {0.0: copies, 1.0: broken, 0.5: names[1:] + names[:1] + names[::-1]}, copies, set(names[:1]))
    assert found.values.tolist() == [0.0, 0.5, 1.0]
    assert found.same[0].all()
    assert (found.similarity[0] == 1).all()
    assert not found.valid[2].any()
    assert np.isnan(found.unique[2]).all()
    assert found.unique[0].tolist() == [0.5] * 3
    assert found.novel[0].tolist() == [0.0, 1.0, 1.0]
    findings, checks = dial.findings(found, 0.0, 0)
    assert findings[0].distance == 0
    assert findings[0].ceiling > 0.5
    assert checks[0].met
    assert len(dial.figures(found)) == 2


# -------------------------------------------------------------------------------------------------------- what is asked for


def test_variants_keep_their_prototypes_and_take_them_in_turn(learner, nature):
    one, two = data.texts(nature.held_out[:2])
    like = learner.ask(5, {"prototype": f"{one},{two}"})
    drawn = learner.draw(like, Noise(0, range(5)))
    assert data.prompts(drawn) == [one, two, one, two, one]
    assert len(data.texts(drawn)) == 5


def test_a_file_of_prototypes_is_taken_in_turn_and_made_canonical(learner, tmp_path):
    path = tmp_path / "leads.smi"
    path.write_text("OCC ethanol\nCCN.Cl\n")
    assert prototype.prototypes(str(path)) == ["CCO", "CCN"]
    path.write_text("CCO\nC1CC\n")
    with pytest.raises(Refused, match=r"leads\.smi, line 2: C1CC is not SMILES"):
        prototype.prototypes(str(path))


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("CC[Si](C)(C)C", r"CC\[Si\]\(C\)\(C\)C: token '\[Si\]' does not occur .*cannot code it"),
        ("C" * 90, "has 90 tokens; this model codes molecules of at most 78"),
        ("CC(", "is not SMILES"),
        ("[Na+]", "holds Na"),
    ],
)
def test_a_prototype_that_cannot_be_coded_is_refused_by_name_and_token(learner, smiles, reason):
    with pytest.raises(Refused, match=reason):
        learner.ask(3, {"prototype": smiles})


def test_conditions_that_are_unknown_are_refused():
    with pytest.raises(Refused, match="takes prototype=SMILES"):
        prototype.ask(SMALL, 3, {"logP": "2"})


def test_without_a_prototype_strings_come_from_the_prior(learner):
    drawn = learner.draw(learner.ask(6, {}), Noise(0, range(6)))
    assert data.prompts(drawn) == [""] * 6
    assert len(set(data.texts(drawn))) > 1


def test_rows_are_the_same_however_many_are_drawn(learner, nature):
    like = asked(data.texts(nature.held_out[:100]))
    many = data.texts(learner.draw(like, Noise(4, range(100))))
    few = data.texts(learner.draw(like[:9], Noise(4, range(9))))
    assert few == many[:9]


def test_shipped_weights_code_and_write_without_data(learner, nature):
    again = prototype.restore(learner.recipe, {k: v.clone() for k, v in learner.to_ship().items()})
    known = nature.train[:30]
    one, two = (data.texts(coder.decode(coder.encode(known))) for coder in (again, learner))
    assert np.mean([a == b for a, b in zip(one, two, strict=True)]) > 0.8
    assert again.vocabulary.tokens == learner.vocabulary.tokens


def test_held_out_molecules_with_tokens_that_training_lacks_are_set_aside(tmp_path):
    path = tmp_path / "mine.csv"
    common = [f"{'C' * k}O{'C' * j}" for k in range(1, 8) for j in range(k, 9)]
    rows = [f"{s},{'train' if i % 3 else 'test' if i % 2 else 'valid'}" for i, s in enumerate(common)]
    path.write_text("\n".join(["smiles,split", *rows, "CC[Si](C)(C)C,test", "CCP,valid"]) + "\n")
    split = prototype.load(SMALL.model_copy(update={"data": path}))
    assert "CC[Si](C)(C)C" not in data.texts(split.held_out)
    assert "CCP" not in data.texts(split.validation)
    assert [line for line in split.rejected if "does not occur in the training molecules" in line and "Si" in line]


def test_a_molecule_that_must_not_be_trained_on_is_not(tmp_path):
    recipe = SMALL.model_copy(update={"simulated": 600})
    victim = data.texts(prototype.load(recipe).train)[5]
    path = tmp_path / "drugs.smi"
    path.write_text(f"{victim}.Cl\n")
    split = prototype.load(recipe.model_copy(update={"without": (path,)}))
    assert victim not in data.texts(split.train)
    assert "training molecules dropped that leak one of drugs.smi" in split.origin
    assert str(path) in split.files
    assert math.isclose(len(split.train), len(prototype.load(recipe).train), rel_tol=0.02)
