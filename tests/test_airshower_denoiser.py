"""Denoisers of radio traces: the articles' autoencoder, and matched filters that a network corrects."""

import dataclasses
import math

import pytest
import torch

from simulacra.pipeline import draw_like
from simulacra.sciences.airshower import denoiser, simulate, statistics
from simulacra.sciences.airshower.denoiser import Bottleneck, Corrected
from simulacra.study import Noise, Refused, Split

QUICK = denoiser.study.recipes["quick"].model_copy(update={"background": "white", "device": "cpu", "widths": (8, 16), "templates": 6})
PAPER = denoiser.study.recipes["paper"].model_copy(update={"background": "white", "device": "cpu"})
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def traces():
    return simulate.simulate(600, "white", seed=1), simulate.simulate(160, "white", seed=2)


@pytest.fixture(scope="module")
def started(traces):
    """A corrected denoiser before its first step."""
    torch.manual_seed(0)
    return denoiser.build(QUICK, traces[0])


def told(learner, traces):
    return learner.draw(traces, Noise(0, range(len(traces))))


def taught(recipe, training, steps):
    torch.manual_seed(0)
    learner = denoiser.build(recipe.model_copy(update={"steps": steps}), training)
    losses = []
    for step in range(steps):
        torch.manual_seed(step)
        losses.append(learner.step(training[torch.randint(len(training), (32,))]))
    return learner, losses


# ------------------------------------------------------------------------------------------------------- autoencoder


def test_the_articles_autoencoder_squeezes_500_steps_into_16_times_31_numbers_and_back():
    net = Bottleneck(500, (16, 16, 16), 0.1, 0.2, -0.5, 0.5)
    assert net.lengths == [500, 250, 125, 62, 31]
    x = 0.1 * torch.randn(3, 500)
    assert net.squeeze(x).shape == (3, 16, 31)
    assert net(x).signal.shape == (3, 500)


def test_the_autoencoder_sees_traces_scaled_to_zero_and_one(traces):
    training = traces[0]
    net = denoiser.build(PAPER, training).descent.module
    seen = []
    net.encoder[0].register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    net(training.measured)
    assert float(seen[0].min()) >= 0
    assert float(seen[0].max()) <= 1
    assert max(float(seen[0].max()), 1 - float(seen[0].min())) == pytest.approx(1)


def test_readouts_of_spread_and_presence_do_not_move_the_autoencoder():
    net = Bottleneck(500, (8, 8, 8), 0.1, 0.2, -0.5, 0.5)
    found = net(0.1 * torch.randn(4, 500))
    (found.spread.log().mean() + found.logit.square().mean()).backward()
    assert all(p.grad is None for layer in (net.encoder, net.decoder, net.leave) for p in layer.parameters())
    assert float(net.readout.grad.abs().min()) > 0
    assert float(net.error.grad.abs()) > 0


# ----------------------------------------------------------------------------------------------------- matched filters


def test_before_it_learns_the_corrected_denoiser_says_what_its_matched_filters_say(started, traces):
    nature = traces[1]
    net = started.descent.average
    known = net.known(nature.measured)[1]
    found = told(started, nature)
    assert torch.allclose(found.signal, known.signal, atol=1e-6)
    assert torch.allclose(found.spread, known.spread, rtol=1e-2, atol=1e-4)
    assert torch.allclose(found.presence, known.logit.sigmoid(), atol=1e-5)
    reading = net.bank.read(nature.measured.double().numpy(), float(net.odds.exp()))
    assert found.signal.double().numpy() == pytest.approx(reading.mean, abs=1e-5)


def test_the_spread_is_that_of_a_pulse_that_is_there_with_the_corrected_presence(traces):
    learner, measured = denoiser.build(QUICK, traces[0]), traces[1].measured[:40]
    net = learner.descent.module
    _, before, mean, square = net._searched(measured)
    with torch.no_grad():
        net.net.leave[-1].bias[2 * QUICK.patch :] = 0.25  # of presence alone: 8 times as much in logarithms of odds
    found = net(measured)
    assert torch.allclose(found.logit, before + 2, atol=1e-5)
    sure = torch.sigmoid(before + 2)[:, None].double()
    variance = sure * square - (sure * mean) ** 2 + (denoiser.SMALLEST * net.unit) ** 2
    assert torch.allclose(found.spread.double().square(), variance, rtol=1e-2, atol=1e-3 * float(net.unit) ** 2)
    found.spread.log().sum().backward()
    assert not bool(net.net.leave[-1].bias.grad[2 * QUICK.patch :].any())  # an error that surprises does not make a pulse likelier


def test_even_then_it_errs_less_than_the_wiener_filter(started, traces):
    training, nature = traces
    linear = nature.measured.double() @ torch.from_numpy(statistics.Known.of(training).wiener)
    ours, theirs = ((v - nature.signal).square().mean() for v in (told(started, nature).signal, linear))
    assert ours < 0.7 * theirs


def test_in_white_noise_the_spread_of_the_matched_filters_is_that_of_their_errors():
    training, nature = simulate.simulate(2000, "white", seed=1), simulate.simulate(600, "white", seed=2)
    found = told(denoiser.build(QUICK.model_copy(update={"templates": 96}), training), nature)
    errors, promised = (found.signal - nature.signal).square(), found.spread.square()
    assert float(errors.mean() / promised.mean()) == pytest.approx(1, abs=0.2)


def test_training_makes_the_signal_better(started, traces):
    learner, _ = taught(QUICK, traces[0], 100)
    before, after = (float((told(one, traces[1]).signal - traces[1].signal).square().mean()) for one in (started, learner))
    assert after < before  # by little: in white noise the matched filters are nearly all that can be known
    _, losses = taught(PAPER.model_copy(update={"widths": (8, 8, 8), "spectral": 0.0, "lr": 3e-3}), traces[0], 40)
    error = [float(loss["squared error"]) for loss in losses]
    assert sum(error[-10:]) < sum(error[:10])


def test_the_gradient_reaches_every_parameter(traces):
    for recipe in (QUICK, PAPER):
        learner, _ = taught(recipe, traces[0], 5)  # layers that begin at zero wake one after the other
        still = [name for name, p in learner.descent.module.named_parameters() if p.grad is None or not bool(p.grad.any())]
        assert not still


# --------------------------------------------------------------------------------------------------------- as a learner


def test_only_what_was_measured_is_looked_at(started, traces):
    nature = traces[1]
    blank = dataclasses.replace(
        nature, signal=torch.full_like(nature.signal, math.nan), spread=torch.full_like(nature.spread, math.nan),
        presence=torch.full_like(nature.presence, math.nan),
    )  # fmt: skip
    one, two = told(started, nature), told(started, blank)
    assert all(torch.equal(getattr(one, name), getattr(two, name)) for name in ("signal", "spread", "presence", "measured"))


def test_a_trace_is_denoised_alike_alone_and_among_others(started, traces):
    nature = traces[1]
    many, few = (draw_like(started, nature[:n], seed=0, device=CPU) for n in (100, 3))
    assert torch.equal(many.signal[:3], few.signal)


def test_a_flipped_trace_gives_a_flipped_pulse_with_filters_of_both_signs(traces):
    training = traces[0]
    learner = denoiser.build(QUICK, training)
    net = learner.descent.average
    net.pulses.copy_(torch.cat([net.pulses[:3], -net.pulses[:3]]))
    net.strength.copy_(net.strength[[0, 1, 2, 0, 1, 2]])
    one, two = (told(learner, dataclasses.replace(traces[1], measured=sign * traces[1].measured)) for sign in (1, -1))
    assert torch.allclose(one.signal, -two.signal, atol=1e-5)
    assert torch.allclose(one.presence, two.presence, atol=1e-5)


def test_what_is_shipped_denoises_as_what_was_trained(traces):
    for recipe in (QUICK, PAPER.model_copy(update={"widths": (8, 8, 8)})):
        learner, _ = taught(recipe, traces[0], 3)
        state = learner.to_ship()
        assert sum(v.numel() * v.element_size() for v in state.values()) < 2_000_000
        again = denoiser.restore(recipe, state)
        one, two = told(learner, traces[1][:8]), told(again, traces[1][:8])
        assert torch.equal(one.signal, two.signal)
        assert torch.equal(one.presence, two.presence)
        whole = denoiser.restore(recipe, learner.state_dict())
        assert torch.equal(told(whole, traces[1][:8]).spread, one.spread)


def test_the_shipped_recipe_stays_below_two_megabytes():
    recipe = denoiser.study.recipes["laptop"]
    bank = denoiser.Bank(torch.zeros(recipe.templates, 500), torch.zeros(500, 500), torch.zeros(recipe.templates, 500))
    net = Corrected(recipe, bank, 1.0, 1.0, 1.0, 0.5)
    assert sum(v.numel() * v.element_size() for v in net.state_dict().values()) < 2_000_000


def test_traces_of_another_length_or_rate_are_refused(started, traces):
    nature = traces[1]
    short = dataclasses.replace(
        nature, measured=nature.measured[:, :400], signal=nature.signal[:, :400], spread=nature.spread[:, :400]
    )
    with pytest.raises(Refused, match=r"400 steps at 180 MHz.*learned from 500 at 180 MHz"):
        told(started, short)
    with pytest.raises(Refused, match="500 steps at 200 MHz"):
        told(started, dataclasses.replace(nature, rate=torch.full_like(nature.rate, 200.0)))


def test_training_without_pulses_or_without_empty_traces_is_refused():
    for share in (0.0, 1.0):
        with pytest.raises(Refused, match="traces without one"):
            denoiser.build(QUICK, simulate.simulate(100, "white", share=share, seed=3))


def test_the_articles_bars_are_held_to_on_their_backgrounds_alone(started, traces):
    training, nature = traces
    split = Split(training, nature, nature, "simulated")
    assert denoiser.examine(started, split, 0) == ([], [])
    started.recipe, before = QUICK.model_copy(update={"background": "uniform"}), started.recipe
    try:
        (found,) = denoiser.examine(started, split, 0)[1]
    finally:
        started.recipe = before
    assert "95" in found.target
    pulses = nature[(nature.signal != 0).any(1)]
    place, _ = statistics.true_reconstruction(told(started, pulses).signal.double().numpy(), pulses.signal.double().numpy())
    assert found.value == pytest.approx(100 * place.mean())


def test_a_report_shows_traces_spectra_and_detection(started, traces):
    training, nature = traces
    shown = denoiser.figures(started, Split(training, nature, nature, "simulated"), 0)
    assert [figure.title for figure in shown] == ["Pulses recovered", "Spectra", "Detection"]
    assert all(figure.image[:4] == b"\x89PNG" for figure in shown)
