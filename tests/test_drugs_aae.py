"""Codes of fingerprints, molecules made of them, and wishes."""

import math

import numpy as np
import pytest
import torch
from rdkit import Chem
from safetensors.torch import load, save
from torch import nn

from simulacra.families import adversarial_autoencoder as coding
from simulacra.nets.dense import dense
from simulacra.sciences.drugs import aae, coding_verdict, data, fingerprints, simulate, wishing, wishing_verdict, writer
from simulacra.sciences.drugs.data import WISHES, texts
from simulacra.sciences.drugs.fingerprints import KEYS, Profiles
from simulacra.sciences.drugs.spelling import BLOCK, Speller, in_blocks, packed, told, unpacked
from simulacra.sciences.drugs.wishing import Range
from simulacra.study import Asks, Encodes, Noise, Refused, Scores, Ships
from simulacra.training import batches_from

LN2 = math.log(2)


def toy_game(*, blind=False):
    """A small game on 24 bits, of which 12 repeat the other 12; a blind discriminator says nothing and learns nothing."""
    torch.manual_seed(0)
    autoencoder = coding.Autoencoder(dense([24, 32, 3]), dense([3, 32, 24]))
    game = coding.Adversarial(autoencoder, dense([3, 32, 1], activation=nn.Tanh), latent=3, lr=3e-3)
    if blind:
        game.discriminator.lr = 0.0
        nn.init.zeros_(game.discriminator.module[-1].weight)
        nn.init.zeros_(game.discriminator.module[-1].bias)
    return game


def toy_bits(n):
    half = (torch.rand(n, 12) < torch.linspace(0.2, 0.8, 12)).float()
    return torch.cat([half, half], 1)


@pytest.fixture(scope="module")
def trained():
    """The quick recipe on few molecules made by rule, without stereochemistry: half a minute."""
    recipe = aae.quick.model_copy(update={"simulated": 900, "stereo": False, "batch": 48})
    split = aae.load(recipe)
    torch.manual_seed(0)
    learner = aae.build(recipe, split.train)
    rows = batches_from(split.train, recipe.batch, 0, 0)
    history = []
    for step in range(recipe.steps):
        torch.manual_seed(step)
        history.append({k: float(v) for k, v in learner.step(split.train[next(rows)]).items()})
    return learner, split, history


# ------------------------------------------------------------------------------------------------------------------- the game


def test_turns_follow_each_other_strictly_and_move_only_their_own_player():
    game = toy_game()
    players = {
        "discriminator": [game.discriminator.module], "encoder": [game.module.encoder],
        "autoencoder": [game.module.encoder, game.module.decoder],
    }  # fmt: skip
    everyone = {"D": game.discriminator.module, "E": game.module.encoder, "G": game.module.decoder}
    for turn in range(9):
        before = {name: [p.clone() for p in module.parameters()] for name, module in everyone.items()}
        (said,) = game.turn(toy_bits(16))
        moving = coding.TURNS[turn % 3]
        assert said == {"autoencoder": "reconstruction"}.get(moving, moving)
        for name, module in everyone.items():
            moved = any(not torch.equal(p, q) for p, q in zip(module.parameters(), before[name], strict=True))
            assert moved == any(module is player for player in players[moving]), (moving, name)
    assert game.discriminator.count == game.encoder.count == game.autoencoder.count == 3


def test_the_loss_of_coin_flips_is_166_ln_2():
    bits = (torch.rand(5, KEYS) < 0.3).float()
    assert coding.bernoulli_log_loss(torch.zeros(5, KEYS), bits).numpy() == pytest.approx(166 * LN2, rel=1e-6)


def test_a_discriminator_that_cannot_tell_loses_ln_2():
    assert float(coding.discriminator_loss(torch.zeros(3), torch.zeros(3)).mean()) == pytest.approx(LN2)
    assert float(coding.discriminator_loss(torch.tensor([20.0]), torch.tensor([-20.0]))) < 1e-6


def test_marginals_have_the_cross_entropy_of_their_frequencies():
    bits = torch.tensor([[1, 0, 1], [1, 0, 0], [1, 0, 1], [1, 0, 0]]).float().repeat(500, 1)
    loss = coding.bernoulli_log_loss(coding.marginal_logits(bits).expand_as(bits), bits)
    assert float(loss.mean()) == pytest.approx(LN2, abs=0.01)  # one key is a coin flip, two are certain
    assert torch.isfinite(coding.marginal_logits(bits)).all()


def test_a_stall_is_told_from_success():
    assert coding.standing(LN2, 0.9, 10.0, 62.0) == "stalled"  # it sees nothing where there is something to be seen
    assert coding.standing(LN2, 0.0, 62.0, 62.0) == "stalled"  # codes that say nothing
    assert coding.standing(0.1, 0.9, 10.0, 62.0) == "apart"
    assert coding.standing(LN2 - 0.01, 0.02, 10.0, 62.0) == "converged"


def test_a_discriminator_that_learns_nothing_is_recognised_though_its_loss_is_that_of_a_finished_game():
    game, marginal = toy_game(blind=True), coding.marginal_logits(toy_bits(4000))
    for turn in range(3 * 200):
        torch.manual_seed(turn)
        seen = game.turn(toy_bits(256))
    bits = toy_bits(2000)
    reconstruction = float(coding.bernoulli_log_loss(game.logits(game.encode(bits)), bits).mean())
    least = float(coding.bernoulli_log_loss(marginal.expand_as(bits), bits).mean())
    assert float(seen["reconstruction"]) < 0.9 * least, "the autoencoder learns all the same"
    assert float(game.running) == pytest.approx(LN2, abs=1e-6)
    gap = coding_verdict.to_prior(game, bits, 0).gap
    assert coding.standing(float(game.running), gap, reconstruction, least) == "stalled"


def test_a_discriminator_that_sees_pulls_the_codes_towards_the_prior():
    gaps = []
    for blind in (True, False):
        game = toy_game(blind=blind)
        for turn in range(3 * 300):
            torch.manual_seed(turn)
            game.turn(toy_bits(256))
        gaps.append(coding_verdict.to_prior(game, toy_bits(2000), 0).distance)
    assert gaps[1] < 0.7 * gaps[0]


def test_a_game_that_is_saved_and_loaded_goes_on_as_if_nothing_had_happened():
    one, other = toy_game(), toy_game()
    for turn in range(8):
        torch.manual_seed(turn)
        one.turn(toy_bits(32))
    other.load_state_dict(load(save(one.state_dict())))
    assert other.count == one.count
    for turn in range(8, 14):
        for game in (one, other):
            torch.manual_seed(turn)
            game.turn(toy_bits(32))
    first, second = one.state_dict(), other.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_bound_weighs_reconstruction_and_code_and_takes_one_turn_in_three():
    torch.manual_seed(0)
    model = coding.Variational(coding.Autoencoder(dense([24, 32, 6]), dense([3, 32, 24])), latent=3, lr=3e-3)
    said = [model.turn(toy_bits(64)) for _ in range(6)]
    assert [bool(s) for s in said] == [False, False, True, False, False, True]
    assert model.autoencoder.count == 2
    mean, log_variance = model.posterior(toy_bits(5))
    assert mean.shape == log_variance.shape == (5, 3)


# --------------------------------------------------------------------------------------------------------------- the networks


def test_the_published_networks_have_as_many_parameters_as_by_hand():
    game = aae.player(aae.paper, "aae", 20, "tanh")
    linear = lambda a, b: a * b + b  # noqa: E731
    encoder = linear(166, 256) + 2 * 256 + linear(256, 256) + 2 * 256 + linear(256, 20)
    decoder = linear(20, 256) + 2 * 256 + linear(256, 256) + 2 * 256 + linear(256, 166)
    critic = linear(20, 64) + 2 * 64 + linear(64, 64) + 2 * 64 + linear(64, 8) + 2 * 8 + linear(8, 1)
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert (count(game.module.encoder), count(game.module.decoder)) == (encoder, decoder)
    assert count(game.discriminator.module) == critic
    assert (encoder, decoder) == (114_708, 114_854)
    kinds = [type(layer).__name__ for layer in game.module.encoder]
    assert kinds == ["Linear", "Tanh", "BatchNorm1d", "Linear", "Tanh", "BatchNorm1d", "Linear"]
    rival = aae.player(aae.paper, "vae", 10, "relu")
    assert rival.module.encoder[-1].out_features == 20
    assert rival.module.decoder[0].in_features == 10


def test_the_published_recipe_is_the_published_game():
    paper = aae.paper
    assert (paper.objective, paper.latent, paper.activation, paper.fingerprints, paper.rounds) == ("aae", 20, "tanh", 1024, 1)
    assert (paper.code_lr, paper.code_decay, paper.critic_norm) == (1e-3, False, True)
    assert aae.RIVAL["aae"] == ("vae", 10, "relu")


def test_the_gradient_reaches_every_parameter(trained):
    learner = trained[0]
    players = {
        "autoencoder": learner.coding.autoencoder, "discriminator": learner.coding.discriminator, "rival": learner.rival.autoencoder,
        "reader": learner.reader, "strings": learner.speller.descent,
    }  # fmt: skip
    silent = []
    for name, player in players.items():
        for parameter, value in player.module.named_parameters():
            moments = player.optimiser.state[value]
            if not float(moments["exp_avg_sq"].abs().sum()) > 0:
                silent.append(f"{name}.{parameter}")
    assert not silent, silent


# --------------------------------------------------------------------------------------------------------------- fingerprints


def test_keys_are_the_166_of_maccs_and_what_is_no_molecule_has_none():
    mols = [Chem.MolFromSmiles(s) for s in ("c1ccccc1", "CCO", "C[C@H](F)Cl", "C[C@@H](F)Cl")]
    bits = fingerprints.keys([*mols, None])
    assert bits.shape == (5, 166)
    assert bits[0, 162 - 1] == 1  # key 162: an aromatic atom
    assert bits[1, 162 - 1] == 0
    assert bits[1, 164 - 1] == 1  # key 164: oxygen
    assert (bits[2] == bits[3]).all(), "keys do not see stereochemistry"
    assert not bits[4].any()


def test_tanimoto_similarity_of_hand_made_keys():
    one = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], np.uint8)
    other = np.array([[1, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], np.uint8)
    assert fingerprints.tanimoto(one, other) == pytest.approx([1 / 3, 1, 1])
    assert fingerprints.nearest(one[:2], np.concatenate([other[1:2], one[:1]])).tolist() == [1, 0]


def test_profiles_know_their_molecules_and_measure_others(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMULACRA_CACHE", str(tmp_path))
    monkeypatch.setattr(fingerprints, "REMEMBERED", 10)
    strings = simulate.simulated(20, seed=3)
    first, again = Profiles(strings), Profiles(strings)
    assert len(list(tmp_path.glob("keys-*.npz"))) == 1
    assert torch.equal(first.bits, again.bits)
    assert torch.equal(first.values, again.values)
    bits, values = first.of([strings[4], "c1ccccc1O", "no molecule"])
    assert torch.equal(bits[0], first.bits[4])
    assert float(values[1, 0]) == pytest.approx(1.39, abs=0.01)  # logP of phenol
    assert values[2].isnan().all()


# ---------------------------------------------------------------------------------------------------------------------- wishes


def test_wishes_are_read_as_they_are_written():
    asked = wishing.ask(6, {"wish": "logP=1,2,3,QED=0.8"})
    assert asked.wish[:, 0].tolist() == [1, 1, 2, 2, 3, 3]
    assert asked.wish[:, 1].tolist() == pytest.approx([0.8] * 6)
    assert asked.wish[:, 2].isnan().all()
    assert wishing.ask(2, {"wish": "solubility=-3"}).wish[:, 2].tolist() == [-3, -3]
    assert wishing.ask(3, {}).wish.isnan().all()


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ("QED=3", "between 0 and 1"), ("logP=nan", "no molecule has that"), ("logP=inf", "no molecule has that"),
        ("colour=2", "no property 'colour'"), ("logP=much", "expected a number"), ("2.5", "expected NAME=VALUE"),
    ],
)  # fmt: skip
def test_impossible_wishes_are_refused_in_words(wish, said):
    with pytest.raises(Refused, match=said):
        wishing.ask(2, {"wish": wish})


def test_conditions_that_do_not_exist_are_refused_with_those_that_do():
    with pytest.raises(Refused, match="--wish NAME=VALUE"):
        wishing.ask(2, {"scaffold": "c1ccccc1"})


def test_a_wish_outside_of_training_is_warned_of():
    held = Range.of(torch.tensor([[0.0, 0.2, -4.0], [4.0, 0.9, -1.0]]))
    with pytest.warns(UserWarning, match="training molecules had 0 to 4"):
        held.warn(wishing.ask(1, {"wish": "logP=9"}).wish)


def test_missing_wishes_are_told_as_missing():
    about = told(torch.zeros(2, KEYS), torch.tensor([[torch.nan, 1.5, torch.nan], [torch.nan] * 3]))
    assert about[0, KEYS:].tolist() == [0, 1.5, 0, 0, 1, 0]
    assert about[1].abs().sum() == 0


def test_training_leaves_wishes_out_at_random_and_never_invents_one(trained):
    learner = trained[0]
    values = learner.profiles.values[:400]
    torch.manual_seed(0)
    wish = learner._told(values)
    known = ~wish.isnan()
    assert torch.allclose(wish[known], learner.range.standard(values)[known])
    assert 0.4 < float(known.float().mean()) < 0.6
    assert {0, 1, 2, 3} == set(known.sum(1).tolist())


def test_smeared_codes_show_fingerprints_that_are_less_the_molecules_own(trained, monkeypatch):
    learner, bits = trained[0], trained[0].profiles.bits[:300]
    differ = {}
    for recoded, smeared in ((0.0, 3.0), (1.0, 0.0), (1.0, 0.5), (1.0, 3.0)):
        monkeypatch.setattr(learner, "recipe", learner.recipe.model_copy(update={"recoded": recoded, "smeared": smeared}))
        torch.manual_seed(0)
        differ[recoded, smeared] = float((learner._shown(bits) != bits.bool()).float().mean())
    assert differ[0.0, 3.0] == 0 < differ[1.0, 0.0] < differ[1.0, 0.5] < differ[1.0, 3.0]


# ----------------------------------------------------------------------------------------------------------------- the learner


def test_it_has_the_powers_that_the_command_line_looks_for(trained):
    for power in (Encodes, Scores, Asks, Ships):
        assert isinstance(trained[0], power)


def test_the_history_shows_both_players_and_the_reconstruction(trained):
    _, _, history = trained
    assert {"discriminator", "encoder", "reconstruction", "rival reconstruction", "rival kl", "nats per token"} <= set(history[-1])
    assert abs(np.mean([h["discriminator"] for h in history[-50:]]) - LN2) < 0.15
    assert history[-1]["reconstruction"] < 0.6 * history[0]["reconstruction"]


def test_wishes_move_the_property_in_the_asked_direction(trained):
    learner = trained[0]
    low, high = (float(v) for v in np.percentile(learner.profiles.values[:, 0], [10, 90]))
    like = learner.ask(1200, {"wish": f"logP={low:.2f},{high:.2f}"})
    got = wishing.achieved(learner.draw(like, Noise(0, range(1200))))[:, 0]
    below, above = (part[np.isfinite(part)] for part in (got[:600], got[600:]))
    assert min(len(below), len(above)) > 15, "too few molecules to compare"
    error = math.hypot(below.std() / math.sqrt(len(below)), above.std() / math.sqrt(len(above)))
    assert above.mean() - below.mean() > max(0.6, 2 * error)  # 4.5 were asked for; so short a training gives a quarter of it


def test_of_several_attempts_the_nearest_to_the_wish_is_given_out(trained):
    learner = aae.restore(trained[0].recipe.model_copy(update={"best_of": 6}), trained[0].state_dict())
    like = learner.ask(40, {"wish": "logP=3"})
    like.wish[7] = torch.nan
    plain, best = texts(trained[0].draw(like, Noise(0, range(40)))), texts(learner.draw(like, Noise(0, range(40))))
    few = texts(learner.draw(like[[3, 7]], Noise(0, [3, 7])))
    assert few == [best[3], best[7]], "a row depends on the others"
    assert best[7] == plain[7], "nothing was wished for there"
    one, many = (np.abs(wishing.achieved(data.compounds(strings))[:, 0] - 3) for strings in (plain, best))
    both = np.isfinite(one)
    assert np.isfinite(many).sum() > 1.3 * both.sum(), "a molecule is nearer than a broken string"
    both[7] = False
    assert (many[both] <= one[both]).all()
    assert many[both].mean() < one[both].mean()


def test_the_nearest_attempt_by_hand():
    held = wishing.Range.of(torch.tensor([[1.0, 0.4, -4.0], [3.0, 0.8, -2.0]]))
    logp = {s: float(wishing.achieved(data.compounds([s]))[0, 0]) for s in ("CCO", "CCCCCC", "c1ccccc1")}
    wish = held.standard(torch.tensor([[logp["c1ccccc1"], torch.nan, torch.nan], [0.0, torch.nan, torch.nan], [9.0, 0.9, torch.nan]]))
    attempts = [["CCO", "CCO", "C1CC"], ["c1ccccc1", "CCCCCC", "(("], ["broken(", "", ""]]
    assert wishing.nearest(attempts, wish, held) == ["c1ccccc1", "CCO", "C1CC"]


def test_the_nearest_of_groups_by_hand():
    missed = np.array([[8.0, 7, 6, 5, 4, 3, 2, np.nan, 1, 1, 1], [np.nan] * 11])
    assert wishing_verdict.nearest_of(missed) == 2.0
    assert math.isnan(wishing_verdict.nearest_of(missed[:, :5]))


def test_codes_chosen_for_a_wish_have_it_in_their_fingerprints(trained):
    """Before any string is written: the reader's wish moves the code."""
    learner = trained[0]
    lean = []
    for target in (-1.5, 1.5):
        wish = torch.full((200, len(WISHES)), torch.nan)
        wish[:, 0] = target
        bits = learner.drawn_fingerprints(wish, Noise(1, range(200)))
        mean = learner.reader.module(learner.coding.encode(bits.float()))[:, 0].detach()
        lean.append(float(mean.mean()))
    assert lean[1] - lean[0] > 1.0


def test_a_row_without_wishes_is_drawn_as_if_the_others_had_none(trained):
    learner = trained[0]
    plain = learner.ask(6, {})
    mixed = data.Compounds(plain.text, plain.prompt, plain.wish.clone())
    mixed.wish[3, 0] = 2.0
    one, other = (learner.drawn_fingerprints(learner.range.standard(like.wish), Noise(3, range(6))) for like in (plain, mixed))
    rows = [0, 1, 2, 4, 5]
    assert torch.equal(one[rows], other[rows])


def test_dense_networks_give_a_row_whatever_else_is_in_the_block():
    torch.manual_seed(0)
    network, rows = dense([30, 64, 5]), torch.randn(BLOCK + 9, 30)
    whole = in_blocks(network, rows)
    assert torch.equal(whole[:7], in_blocks(network, rows[:7]))
    assert torch.allclose(whole, network(rows), atol=1e-5)


def test_what_is_no_molecule_has_no_score_and_a_code_all_the_same(trained):
    learner = trained[0]
    samples = data.compounds(["c1ccccc1O", "c1cccc", ""])
    score = learner.score(samples)
    assert torch.isfinite(score).tolist() == [True, False, False]
    assert learner.encode(samples).shape == (3, learner.recipe.latent)


def test_decoding_a_code_is_repeatable_and_gives_a_string_for_each(trained):
    learner, split, _ = trained
    codes = learner.encode(split.held_out[:5])
    one, two = learner.decode(codes), learner.decode(codes)
    assert texts(one) == texts(two)
    assert len(one) == 5


def test_shipped_weights_draw_without_data_and_are_asked_without_it(trained):
    learner = trained[0]
    shipped = learner.to_ship()
    assert not any(name.startswith(("rival", "coding.discriminator", "coding.encoder")) or "optimiser" in name for name in shipped)
    again = aae.restore(learner.recipe, shipped)
    like = again.ask(40, {"wish": "logP=2"})
    strings = texts(again.draw(like, Noise(0, range(40))))
    exact = aae.restore(learner.recipe, learner.state_dict())
    assert texts(exact.draw(like, Noise(0, range(40)))) == texts(learner.draw(like, Noise(0, range(40))))
    assert len(strings) == 40
    with pytest.raises(ValueError, match="cannot be trained on"):
        again.step(data.compounds(["CCO"]))


def test_packed_weights_are_whole_numbers_and_come_back_within_half_a_step():
    torch.manual_seed(0)
    weights = {"matrix": torch.randn(40, 30) * torch.logspace(-3, 1, 40)[:, None], "bias": torch.randn(40)}
    small = packed(weights)
    assert small["matrix"].dtype == torch.int8
    back = unpacked(small)
    assert torch.equal(back["bias"], weights["bias"])
    step = weights["matrix"].abs().amax(1, keepdim=True) / 127
    assert bool(((back["matrix"] - weights["matrix"]).abs() <= 0.5001 * step).all())
    assert all(torch.equal(unpacked(weights)[name], weights[name]) for name in weights)


def test_a_string_decoder_that_begins_as_a_trained_writer_writes_as_it_did():
    """Before it has learned anything of fingerprints, it says of every string what the writer says."""
    split = data.load(None, seed=1, simulated=60)
    recipe = aae.quick.model_copy(update={"hidden": 32, "precision": "float32"})
    torch.manual_seed(0)
    known = writer.build(recipe, split.train)
    for parameter in known.descent.module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    speller = Speller(recipe, known.vocabulary, known.mean_length, 16)
    speller.begin_as(known.descent.module.state_dict())
    tokens = known.vocabulary.encoded(texts(split.train)[:9])
    about = told((torch.rand(9, KEYS) < 0.3), torch.randn(9, len(WISHES)))
    assert torch.allclose(speller.log_loss(tokens, about), known.log_loss(known.descent.module, tokens), rtol=1e-5)


# ----------------------------------------------------------------------------------------------------------------- the verdict


def test_ridge_regression_finds_a_linear_law_and_not_a_random_one():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((400, 6))
    target = features @ np.array([1.0, -2.0, 0.5, 0.0, 0.0, 3.0]) + 0.1 * rng.standard_normal(400)
    assert coding_verdict.rms(coding_verdict.ridge_errors(features, target, rng)) == pytest.approx(0.1, rel=0.15)
    assert coding_verdict.rms(coding_verdict.ridge_errors(rng.standard_normal((400, 6)), target, rng)) > 0.95 * target.std()


def test_laws_of_keys_tell_independent_keys_from_nature():
    """Pairs that are always set together: independent keys have the same frequencies, and other pairs."""
    rng = np.random.default_rng(1)
    half = (rng.random((600, KEYS // 2)) < 0.3).astype(np.float64)
    nature = np.concatenate([half, half], 1)
    one, other = coding_verdict.strongest_pairs(nature.astype(np.uint8))
    assert set((other - one)[: KEYS // 2].tolist()) == {KEYS // 2}
    pairs = coding_verdict.laws(one[: KEYS // 2], other[: KEYS // 2])[1]
    independent = (rng.random((600, KEYS)) < 0.3).astype(np.float64)
    found = coding_verdict.compare([pairs], nature, nature[::-1].copy(), {coding_verdict.INDEPENDENT: independent}, seed=0).findings[0]
    assert found.floor < 0.2 * found.ceiling
    assert found.ceiling == pytest.approx(0.21, abs=0.03)  # 0.3 - 0.09


def test_codes_that_are_standard_normal_have_no_gap_and_wider_ones_do():
    rng = np.random.default_rng(2)
    prior, codes, narrow = rng.standard_normal((300, 20)), rng.standard_normal((300, 20)), 0.5 * rng.standard_normal((300, 20))
    rivals = {coding_verdict.WIDER: 1.5 * rng.standard_normal((300, 20))}
    gap = lambda drawn: coding_verdict.compare([coding_verdict.code_law(20)], prior, drawn, rivals, seed=0).findings[0].gap  # noqa: E731
    assert abs(gap(codes)) < 0.05
    assert gap(narrow) > 0.5
