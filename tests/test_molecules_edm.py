"""EDM: what it noises, what it draws, its likelihood, and what it refuses."""

import dataclasses
import math
import warnings

import numpy as np
import pytest
import torch

from simulacra.families import diffusion
from simulacra.sciences.molecules import data, edm
from simulacra.sciences.molecules.data import PROPERTIES, UNKNOWN, Molecule, Molecules, stacked
from simulacra.sciences.molecules.edm import EDMRecipe, Targets, half_of
from simulacra.study import Noise, Refused, Split

SMALL = EDMRecipe(width=16, depth=2, timesteps=1000, walk=12, steps=6, lr=1e-3, device="cpu")
GYRATION = PROPERTIES.index("radius_of_gyration")


def tetrahedron(length=1.09):
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / math.sqrt(3)
    return np.concatenate([np.zeros((1, 3)), length * corners]).astype(np.float32)


def molecule(symbols, positions):
    numbers = np.array([data.ATOMIC_NUMBER[s] for s in symbols], np.uint8)
    k = len(numbers)
    return Molecule(numbers, np.asarray(positions, np.float32), np.zeros(k, np.int8), np.zeros((k, k), np.int8))


METHANE = molecule("CHHHH", tetrahedron())
WATER = molecule("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
AMMONIA = molecule("NHHH", [[0, 0, 0], [0.94, 0, 0.38], [-0.47, 0.81, 0.38], [-0.47, -0.81, 0.38]])


def same(one, two):
    """Whether two samples agree in every number, properties that are not known included."""
    return all(torch.equal(v.nan_to_num(-99.0), two.fields()[k].nan_to_num(-99.0)) for k, v in one.fields().items())


@pytest.fixture(scope="module")
def few():
    """Molecules of 3, 4 and 5 atoms, ten of each, all of different shapes."""
    rng = np.random.default_rng(0)
    kinds = [WATER, AMMONIA, METHANE] * 10
    shaken = [m.positions + rng.normal(0, 0.02, m.positions.shape).astype(np.float32) for m in kinds]
    return stacked([dataclasses.replace(m, positions=positions) for m, positions in zip(kinds, shaken, strict=True)])


@pytest.fixture(scope="module")
def learner(few):
    torch.manual_seed(0)
    return edm.build(SMALL, few)


# ------------------------------------------------------------------------------------------------------------- what is noised


def test_features_are_one_hot_elements_over_four_and_atomic_numbers_over_ten(few, learner):
    x, mask = learner.coding.encoded(few, 5)
    assert x.shape == (30, 5, 9)
    assert torch.equal(mask.sum(1).long(), few.bucket)
    assert (x[..., :3].sum(1).abs() < 1e-5).all()
    oxygen = x[0, 0, 3:]
    assert torch.allclose(oxygen, torch.tensor([0, 0, 0, 0.25, 0, 0.8]))  # H C N O F and 8 / 10
    assert (x[0, 3:] == 0).all()
    assert torch.equal(learner.coding.atoms(x[..., 3:]) * mask.long(), few.numbers.long())


def test_a_conditional_model_has_elements_over_eight_and_no_atomic_number(few):
    coding = edm.Coding.of(EDMRecipe(condition=("alpha",)))
    assert coding.features == 5
    assert float(coding.encoded(few, 5)[0][..., 3:].max()) == 0.125


def test_the_prior_kl_of_molecules_is_nearly_nothing(few, learner):
    x, mask = learner.coding.encoded(few, 5)
    assert float(diffusion.prior_kl(x, 3 * (mask.sum(1) - 1) + 6 * mask.sum(1), learner.schedule).max()) < 1e-3


def test_the_noise_prediction_is_equivariant_and_has_no_net_translation():
    torch.manual_seed(1)
    net = edm.Denoiser(6, 1, width=12, depth=2).double()
    for block in net.network.blocks:
        torch.nn.init.xavier_uniform_(block.move[4].weight)
    z, time, context = torch.randn(2, 5, 9).double(), torch.tensor([0.3, 0.9]).double(), torch.tensor([[0.5], [-1.0]]).double()
    out = net(z, time, context)
    assert out[..., :3].abs().max() > 0.1
    assert out[..., :3].sum(1).abs().max() < 1e-12
    turn, _ = torch.linalg.qr(torch.randn(3, 3).double())
    for matrix in (turn, -turn):
        turned = net(torch.cat([z[..., :3] @ matrix + 2.0, z[..., 3:]], -1), time, context)
        assert torch.allclose(turned[..., :3], out[..., :3] @ matrix, atol=1e-9)
        assert torch.allclose(turned[..., 3:], out[..., 3:], atol=1e-9)
    order = torch.tensor([4, 2, 0, 1, 3])
    assert torch.allclose(net(z[:, order], time, context), out[:, order], atol=1e-9)
    assert (net(z, time, context + 1) - out).abs().max() > 1e-3


# ------------------------------------------------------------------------------------------------------------------ training


def test_a_step_sends_a_gradient_to_every_parameter(few):
    torch.manual_seed(0)
    learner = edm.build(SMALL, few)
    for _ in range(2):
        found = learner.step(few[few.bucket == 5])
    assert all(math.isfinite(float(v)) for v in found.values())
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in learner.descent.module.parameters())


def test_padding_a_training_batch_changes_nothing(few):
    after = []
    for batch in (few[few.bucket == 3].trimmed(), few[few.bucket == 3].widened(9)):
        torch.manual_seed(0)
        learner = edm.build(SMALL, few)
        after.append((float(learner.step(batch)["loss"]), learner.descent.module.network.embedding.weight.clone()))
    assert after[0][0] == after[1][0]
    assert torch.equal(after[0][1], after[1][1])


def test_a_batch_of_mixed_sizes_has_the_loss_of_its_parts(few):
    """Over the room of the largest, as published."""
    torch.manual_seed(0)
    learner = edm.build(SMALL, few)
    calls = []
    learner.descent = lambda loss: calls.append(float(loss.detach())) or loss.detach()
    learner.descent.module = edm.build(SMALL, few).descent.module
    torch.manual_seed(7)
    learner.step(few[2:5])  # 5, 3 and 4 atoms
    torch.manual_seed(7)
    t, noise = torch.randint(1001, (3,)), torch.randn(3, 5, 9)
    expected = 0.0
    for row in range(3):
        atoms = int(few.bucket[2 + row])
        x, _ = learner.coding.encoded(few[2 + row : 3 + row], atoms)
        eps = torch.cat([diffusion.centred(noise[row : row + 1, :atoms, :3]), noise[row : row + 1, :atoms, 3:]], -1)
        z = diffusion.noised(x, eps, t[row : row + 1], learner.schedule)
        found = learner.descent.module(z, t[row : row + 1] / 1000, torch.zeros(1, 0))
        expected += float((found - eps).square().sum().detach()) / 2 / (9 * 5) / 3
    assert calls[0] == pytest.approx(expected, rel=1e-4)


def test_a_learner_that_was_saved_and_loaded_goes_on_exactly(few):
    def fresh():
        torch.manual_seed(0)
        return edm.build(SMALL, few)

    def work(learner, steps):
        for step in steps:
            torch.manual_seed(step)
            learner.step(few[few.bucket == 3 + step % 3])

    straight, stopped = fresh(), fresh()
    work(straight, range(6))
    half = fresh()
    work(half, range(3))
    stopped.load_state_dict({k: v.clone() for k, v in half.state_dict().items()})
    work(stopped, range(3, 6))
    assert straight.state_dict().keys() == stopped.state_dict().keys()
    assert all(torch.equal(v, stopped.state_dict()[k]) for k, v in straight.state_dict().items())


def test_it_learns_the_shape_of_methane():
    nature = stacked([METHANE] * 16)
    recipe = EDMRecipe(width=24, depth=2, walk=40, steps=500, lr=3e-3, warmup=20, decay=True, ema=0.98, device="cpu")
    torch.manual_seed(0)
    learner = edm.build(recipe, nature)
    shares, errors = [], []
    for steps in (0, recipe.steps):
        for step in range(steps):
            torch.manual_seed(step)
            learner.step(nature)
        drawn = learner.draw(nature, Noise(5, range(16)))
        shares.append(float((drawn.numbers == nature.numbers).all(1).float().mean()))
        lengths = (drawn.positions[:, 1:] - drawn.positions[:, :1]).norm(dim=-1)
        errors.append(float((lengths - 1.09).abs().median()))
    assert shares[0] < 0.2
    assert shares[1] > 0.5
    assert errors[1] < 0.3 < errors[0]


# ------------------------------------------------------------------------------------------------------------------- drawing


def test_draws_are_molecules_of_the_sizes_asked_with_bonds_unknown(few, learner):
    drawn = learner.draw(few[:9], Noise(1, range(9)))
    Molecules(**drawn.fields())  # keeps all that a file of molecules must keep
    assert torch.equal(drawn.bucket, few.bucket[:9])
    there = drawn.numbers > 0
    assert (drawn.bonds[there[:, :, None] & there[:, None]] == UNKNOWN).all()
    assert (drawn.charges == 0).all()
    assert torch.isfinite(drawn.properties[:, GYRATION]).all()


def test_a_draw_depends_on_its_row_and_on_nothing_else(few, learner):
    whole = learner.draw(few[:9], Noise(1, range(9)))
    part = learner.draw(few[3:5], Noise(1, range(3, 5)))
    padded = learner.draw(few[3:5].widened(11), Noise(1, range(3, 5)))
    assert same(whole[3:5], part)
    assert torch.equal(padded.positions[:, :5], part.positions)
    assert (padded.numbers[:, 5:] == 0).all()
    other = learner.draw(few[3:5], Noise(2, range(3, 5)))
    assert not torch.equal(other.positions, part.positions)


def test_the_centre_of_mass_stays_at_zero_through_every_step(few, learner):
    film = learner.trace(few[:3], Noise(1, range(3)), SMALL.walk + 1)
    assert len(film) == SMALL.walk + 1
    for frame in film:
        reach = frame.positions.abs().amax((1, 2))
        assert (frame.positions.sum(1).abs().amax(1) <= 1e-5 * reach.clamp_min(1)).all()


def test_a_trace_begins_with_noise_and_ends_with_the_draw(few, learner):
    film = learner.trace(few, Noise(1, range(30)), 4)
    drawn = learner.draw(few, Noise(1, range(30)))
    assert same(drawn, film[-1])
    start = film[0].positions[few.bucket == 5]
    assert float(start.var()) == pytest.approx(0.8, rel=0.25)  # standard normal, less the mean of five


def test_what_ships_draws_the_same(few, learner):
    again = edm.restore(SMALL, {k: v.clone() for k, v in learner.to_ship().items()})
    one, two = (x.draw(few[:3], Noise(1, range(3))) for x in (learner, again))
    assert torch.equal(one.positions, two.positions)
    assert torch.equal(again.ask(4, {}).bucket, learner.ask(4, {}).bucket)


def test_a_film_is_tried_again_until_its_molecules_are_stable():
    good, bad = stacked([METHANE]), stacked([molecule("CHHHH", 3 * tetrahedron())])

    class Lucky:
        def trace(self, like, noise, frames):
            return [bad, good if noise.seed == 9 else bad]

    film, attempts = edm.stable_trace(Lucky(), good, seed=7, frames=2)
    assert attempts == 3
    assert torch.equal(film[-1].positions, good.positions)
    with pytest.raises(Refused, match="no stable molecule in 2 attempts"):
        edm.stable_trace(Lucky(), good, seed=0, frames=2, attempts=2)


# ---------------------------------------------------------------------------------------------------------------- likelihood


def test_the_surprise_of_features_is_a_ratio_of_gaussian_masses(learner):
    coding, sigma = learner.coding, torch.tensor(0.05, dtype=torch.float64)
    x, mask = coding.encoded(stacked([WATER]), 3)
    noisy = x[..., 3:].double() + 0.04 * torch.randn(1, 3, 6, generator=torch.Generator().manual_seed(0)).double()
    expected = 0.0
    for atom, (kind, number) in enumerate([(3, 8), (0, 1), (0, 1)]):
        law = torch.distributions.Normal(noisy[0, atom, :5] * 4, sigma * 4)
        mass = law.cdf(torch.tensor(1.5)) - law.cdf(torch.tensor(0.5)) + 1e-10
        expected -= math.log(mass[kind] / mass.sum())
        law = torch.distributions.Normal(noisy[0, atom, 5] * 10, sigma * 10)
        expected -= math.log(law.cdf(torch.tensor(number + 0.5)) - law.cdf(torch.tensor(number - 0.5)) + 1e-10)
    assert float(coding.surprise(x[..., 3:], noisy, sigma, mask)[0]) == pytest.approx(expected, rel=1e-6)


def expected_bound(schedule, x, variance):
    """Mean over the noise of the bound on -log p(x) in nats where the denoiser knows that x follows N(0, variance)."""
    t = torch.arange(schedule.steps + 1)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    gain = sigma / (alpha**2 * variance + sigma**2)
    error = (gain * alpha * x) ** 2 + (gain * sigma - 1) ** 2
    bound = 0.5 * (schedule.bound_weight(t[1:], t[:-1]) * error[1:]).sum()
    bound += 0.5 * (error[0] + schedule.gamma[0] + math.log(2 * math.pi))
    return float(bound + diffusion.prior_kl(torch.tensor([[x]]), 1, schedule)[0])


class EveryLevel(Noise):
    """Noise whose uniform numbers meet every level equally often: less scatter, the same mean."""

    def uniform(self, *shape):
        return ((torch.tensor(self.rows) + 0.5) / len(self.rows)).view(-1, 1)


def test_the_likelihood_of_an_exact_denoiser_is_that_of_its_law(monkeypatch):
    """Positions of a Gaussian law without centre of mass, elements always those of water: so the rest is exact."""
    variance, rows = 0.5, 8000
    water = stacked([WATER])
    learner = edm.build(SMALL, stacked([WATER] * 3 + [METHANE]))
    features = learner.coding.encoded(water, 3)[0][..., 3:]

    def exact(network, z, t, context, mask):
        alpha, sigma = (level.to(z)[:, None, None] for level in (learner.schedule.alpha(t), learner.schedule.sigma(t)))
        gain = sigma / (alpha**2 * variance + sigma**2)
        return torch.cat([gain * z[..., :3], (z[..., 3:] - alpha * features) / sigma], -1)

    monkeypatch.setattr(learner, "_predicted", exact)
    found = learner.nll(water[torch.zeros(rows, dtype=torch.int64)], EveryLevel(0, range(rows)))
    # Six coordinates of an orthonormal basis of the subspace: the density knows them by their squared length only.
    length = float(diffusion.centred(water.positions).square().sum())
    expected = 6 * expected_bound(learner.schedule, math.sqrt(length / 6), variance) - math.log(0.75)
    assert float(found.mean()) == pytest.approx(expected, abs=0.5)
    exact_nll = 0.5 * length / variance + 3 * math.log(2 * math.pi * variance) - math.log(0.75)
    assert exact_nll < expected < exact_nll + 6 * 0.4  # a thousand steps lose something per dimension, see test_diffusion


def test_the_number_of_atoms_enters_the_likelihood_by_its_share_in_training(few):
    learner = edm.build(SMALL, few[torch.tensor([0, 1, 3, 4])])  # two of 3 atoms, two of 4, none of 5
    assert torch.allclose(learner._log_sizes(torch.tensor([3, 4])), torch.tensor([0.5, 0.5]).double().log())
    assert learner.nll(few[2:3], Noise(0, range(1))).isinf().all()


def test_the_likelihood_does_not_depend_on_neighbours_or_padding(few, learner):
    whole = learner.nll(few[:6], Noise(3, range(6)))
    part = learner.nll(few[2:4].widened(8), Noise(3, range(2, 4)))
    assert torch.allclose(whole[2:4], part, rtol=1e-4)


def test_the_examination_rates_what_it_can_and_leaves_the_rest_out(few, learner):
    strange = stacked([molecule("FH", [[0, 0, 0], [0.92, 0, 0]]), molecule("CHHHH", tetrahedron()), WATER, AMMONIA])
    split = Split(few, few, strange, "made by hand")
    findings, checks = edm.examine(learner, split, 0)
    assert not findings
    assert math.isfinite(checks[0].value)  # HF has a size that training lacks
    assert checks[0].beside.keys() == {"training molecules"}
    assert edm.examine(learner, Split(few, few, strange[:1], ""), 0) == ([], [])


# ---------------------------------------------------------------------------------------------------------------- conditions


def test_a_conditional_model_is_told_the_property_in_deviations(few):
    targets = Targets.of(("radius_of_gyration",), few)
    values = targets.of_rows(few)
    told = targets.told(values)
    assert float(told.mean()) == pytest.approx(0, abs=1e-5)
    assert float(told.abs().mean()) == pytest.approx(1, rel=1e-5)


def test_a_property_that_is_not_asked_follows_the_molecules_of_that_size(few):
    targets = Targets.of(("radius_of_gyration", "inertia_a"), few)
    n = 2000
    atoms = torch.full((n,), 4)
    asked = torch.full((n, 2), math.nan)
    asked[0, 0] = 0.5
    found = targets.filled(asked, atoms, Noise(0, range(n)).uniform(3))
    assert float(found[0, 0]) == 0.5
    same = targets.values[targets.atoms == 4]
    width = (same.amax(0) - same.amin(0)) / edm.BINS
    assert ((found[1:] >= same.amin(0)) & (found[1:] <= same.amax(0) + 1e-6)).all()
    nearest = (found[1:, None] - same[None]).abs().amin(1)
    assert (nearest <= width + 1e-6).all()
    assert torch.allclose(found[1:].mean(0), same.mean(0), rtol=0.02)


def test_halves_share_no_molecule_and_miss_none_that_is_labelled(few):
    labelled = few.properties.clone()
    labelled[:, PROPERTIES.index("alpha")] = torch.arange(30).float()
    labelled[::5, PROPERTIES.index("alpha")] = math.nan
    molecules = Molecules(**{**few.fields(), "properties": labelled})
    first, second = (half_of(molecules, ("alpha",), which).properties[:, PROPERTIES.index("alpha")] for which in (0, 1))
    assert len(first) == len(second) == 12
    assert set(first.tolist()) | set(second.tolist()) == {float(i) for i in range(30) if i % 5}
    with pytest.raises(Refused, match="no training molecule has values of mu"):
        half_of(molecules, ("mu",), 0)


def test_a_target_outside_training_is_warned_of_once_with_the_range(few):
    recipe = SMALL.model_copy(update={"condition": ("radius_of_gyration",), "walk": 2})
    learner = edm.build(recipe, few)
    template = learner.ask(2, {"property": "radius_of_gyration=50"})
    with pytest.warns(UserWarning, match=r"radius_of_gyration = 50 Angstrom lies outside what was trained, 0\.\d+ to") as caught:
        learner.draw(template, Noise(0, range(2)))
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner.draw(template, Noise(0, range(2)))
        learner.draw(learner.ask(2, {}), Noise(0, range(2)))


def test_what_is_asked_changes_what_is_drawn(few):
    recipe = SMALL.model_copy(update={"condition": ("radius_of_gyration",), "walk": 4})
    torch.manual_seed(0)
    learner = edm.build(recipe, few)
    templates = [learner.ask(3, {"property": f"radius_of_gyration={value}", "atoms": "4"}) for value in (0.4, 0.5)]
    low, high = (learner.draw(template, Noise(0, range(3))) for template in templates)
    assert not torch.equal(low.positions, high.positions)


# ------------------------------------------------------------------------------------------------------------------- refusals


def test_a_schedule_too_noisy_for_its_features_is_refused(few):
    with pytest.raises(Refused, match="lower `precision`"):
        edm.build(SMALL.model_copy(update={"precision": 1e-3}), few)


def test_an_element_that_the_model_lacks_is_refused_by_name(few):
    with pytest.raises(Refused, match=r"hold O, but the model is of H, C, N"):
        edm.build(SMALL.model_copy(update={"elements": ("H", "C", "N")}), few)


def test_given_atoms_are_refused(few, learner):
    given = dataclasses.replace(few[:2], given=torch.ones_like(few.given[:2]))
    with pytest.raises(Refused, match="cannot keep given atoms"):
        learner.draw(given, Noise(0, range(2)))


@pytest.mark.parametrize(
    ("conditions", "words"),
    [({"formula": "CH4"}, "cannot be asked for `formula`"), ({"property": "mu=1"}, "without properties; train one with --condition mu")],
)
def test_what_cannot_be_asked_is_refused(learner, conditions, words):
    with pytest.raises(Refused, match=words):
        learner.ask(2, conditions)


@pytest.mark.parametrize("wrong", [{"elements": ("H", "Qq")}, {"elements": ("H", "H")}, {"condition": ("weight",)}])
def test_a_recipe_refuses_unknown_elements_and_properties(wrong):
    with pytest.raises(ValueError, match=r"elements|no property"):
        EDMRecipe(**wrong)


def test_the_paper_recipe_is_the_published_one():
    recipe = edm.study.recipes["paper"]
    assert (recipe.width, recipe.depth, recipe.timesteps, recipe.walk, recipe.batch, recipe.precision) == (256, 9, 1000, 0, 64, 1e-5)
    assert (recipe.lr, recipe.ema, recipe.decay, recipe.warmup, recipe.elements) == (1e-4, 0.9999, False, 0, ("H", "C", "N", "O", "F"))
    assert recipe.steps == 3000 * 1562  # epochs of 100,000 molecules in batches of 64
