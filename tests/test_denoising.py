"""Heads against closed forms, draws against the Gaussian they come from, and what every learner must keep."""

import dataclasses
import math

import pytest
import torch

from simulacra.descent import Descent
from simulacra.families import denoising, diffusion
from simulacra.families.autoencoder import Axes
from simulacra.families.denoising import Denoising, Principal, Published, Spectral
from simulacra.families.gan import between_classes
from simulacra.nets.embedding import ClassEmbedding
from simulacra.nets.unet import UNet, into_patches, out_of_patches
from simulacra.study import Imagines, Noise, Samples, Ships, Traces

SCHEDULE = diffusion.karras(400, least=0.01, largest=60.0, rho=5.0)
NARROW = diffusion.karras(400, least=0.05, largest=10.0, rho=50.0)  # for numbers of order 1
SHORT = SCHEDULE.chosen(40).flip(0).tolist()


@dataclasses.dataclass(frozen=True)
class Rows(Samples):
    x: torch.Tensor
    kind: torch.Tensor


class Silent(torch.nn.Module):
    """A network that says nothing, so that what is told is what the head says."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, seen, level, condition=None):
        return torch.zeros_like(seen[:, : seen.shape[1] // 2]) + self.weight


def learner(network, head, shape, *, conditional=False, schedule=SCHEDULE, **more):
    options = {"levels": SHORT} | more
    return Denoising(
        Descent(network, lr=1e-3, ema=0.9), schedule, head=head, shape=shape,
        rows_of=lambda rows: (rows.x, rows.kind if conditional else None),
        samples_from=lambda x, like: Rows(x.cpu(), like.kind.cpu()), **options,
    )  # fmt: skip


def blank(n, shape, kind=0):
    return Rows(torch.zeros(n, *shape), torch.full((n,), kind))


def dense(head, numbers, shape, alpha, sigma):
    """The head's estimate as a matrix and what it says of zero, by asking it of each unit vector."""
    asked = torch.cat([torch.zeros(1, numbers), torch.eye(numbers)]).view(-1, *shape)
    one = torch.ones(len(asked))
    known = head(asked, alpha * one, sigma * one, None)
    flat = known.estimate.flatten(1)
    return (flat[1:] - flat[0]).T, flat[0], float(known.spread.flatten()[0])


def principal(pool, axes=3, channels=2, side=4):
    torch.manual_seed(0)
    rows = torch.randn(3000, channels, side, side) * 0.3
    rows = rows + torch.randn(3000, 1, 1, 1) * torch.linspace(-1, 2, channels * side * side).view(1, channels, side, side) + 0.5
    return Principal.of(rows, axes, pool=pool), rows


def covariance(head, numbers, shape):
    """Of the Gaussian that a head stands for: what `begin` makes of unit vectors where there is only signal."""
    one = torch.ones(numbers + 1)
    made = head.begin(torch.cat([torch.zeros(1, numbers), torch.eye(numbers)]).view(-1, *shape), one, 0 * one, None).flatten(1)
    root = made[1:] - made[0]
    return root @ root.T, made[0]


def measured(*shape):
    """Of a few rows, so that the power differs from mode to mode."""
    return Spectral.of(0.3 + torch.randn(6, *shape, generator=torch.Generator().manual_seed(2)))


HEADS = {
    "principal": (lambda: principal(1)[0], (2, 4, 4)),
    "principal, volumes": (lambda: Principal.of(torch.randn(60, 1, 2, 3, 4), 5), (1, 2, 3, 4)),
    "spectral, traces": (lambda: measured(1, 10), (1, 10)),
    "spectral, volumes": (lambda: measured(1, 4, 2, 6), (1, 4, 2, 6)),
    "principal, shrunk": (lambda: principal(2)[0], (2, 4, 4)),
    "spectral": (lambda: Spectral(0.1 + torch.rand(6, 4, generator=torch.Generator().manual_seed(1)), mean=0.3), (1, 6, 6)),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("ratio", [0.05, 0.7, 20.0])
def test_a_linear_head_is_the_posterior_mean_of_its_gaussian_and_knows_its_error(name, ratio):
    make, shape = HEADS[name]
    head, numbers = make(), math.prod(shape)
    if name == "spectral":  # a real field's spectrum is the same at opposite wave vectors, which two columns hold both of
        for column in (0, -1):
            head.power[1:, column] = (head.power[1:, column] + head.power[1:, column].flip(0)) / 2
    alpha = 1 / math.sqrt(1 + ratio**2)
    sigma = ratio * alpha
    law, mean = covariance(head, numbers, shape)
    gain = alpha * law @ torch.linalg.inv(alpha**2 * law + sigma**2 * torch.eye(numbers))
    matrix, offset, spread = dense(head, numbers, shape, alpha, sigma)
    assert torch.allclose(matrix, gain, atol=2e-5)
    assert torch.allclose(offset, mean - alpha * gain @ mean, atol=2e-5)
    assert spread**2 == pytest.approx(float(torch.trace(law - alpha * gain @ law)) / numbers, rel=1e-3)


def test_under_a_condition_a_principal_head_is_the_one_whose_mean_is_moved():
    plain, _ = principal(1)
    slope = torch.randn(3, 2, 4, 4)
    axes = Axes(torch.zeros(32), plain.directions, plain.variance.sqrt(), 0.0)
    told, moved = (Principal(axes, plain.mean, pool=1, detail=0.0, slope=part) for part in (slope, None))
    z, c, alpha, sigma = torch.randn(5, 2, 4, 4), torch.randn(5, 3), torch.full((5,), 0.8), torch.full((5,), 0.6)
    for row in range(5):
        moved.mean.copy_(plain.mean + (c[row, :, None, None, None] * slope).sum(0))
        part = slice(row, row + 1)
        one, other = (head(z[part], alpha[part], sigma[part], c[part]) for head in (told, moved))
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        begun = [head.begin(z[part], alpha[part], sigma[part], c[part]) for head in (told, moved)]
        torch.testing.assert_close(*begun, rtol=1e-4, atol=1e-5)
    kept = Principal.blank((2, 4, 4), 3, told=3)
    kept.load_state_dict(told.state_dict())
    torch.testing.assert_close(kept(z, alpha, sigma, c).estimate, told(z, alpha, sigma, c).estimate)
    assert "slope" not in moved.state_dict()  # weights of before it was there go on loading


def test_a_principal_head_measures_the_covariance_of_what_it_is_shown():
    head, rows = principal(1, axes=32)
    law, mean = covariance(head, 32, (2, 4, 4))
    assert torch.allclose(law, torch.cov(rows.flatten(1).T, correction=0), atol=1e-3)
    assert torch.allclose(mean, rows.mean(0).flatten(), atol=1e-5)
    for axes, pool in ((3, 1), (3, 2)):  # whatever is left out of the axes, the variance of all numbers together is kept
        few, rows = principal(pool, axes=axes)
        assert float(torch.trace(covariance(few, 32, (2, 4, 4))[0])) == pytest.approx(32 * float(rows.var(0).mean()), rel=1e-3)


def test_a_spectral_head_measures_the_spectrum_and_takes_one_that_depends_on_the_condition():
    rows = 3 + 2 * torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    head = Spectral.of(rows)
    assert float(head.mean) == pytest.approx(3, abs=0.1)
    assert head.power.mean().item() == pytest.approx(4, rel=0.05)
    known = head(rows, torch.full((400,), 0.6), torch.full((400,), 0.8), None)
    assert float(known.spread[0]) == pytest.approx(math.sqrt(0.64 * 4 / (0.36 * 4 + 0.64)), rel=0.05)

    class Amplitude(torch.nn.Module):
        def forward(self, condition):
            return condition[:, :1, None] * torch.ones(8, 5)

    told = Spectral(torch.ones(8, 5), power_of=Amplitude())
    z, half = torch.randn(2, 1, 8, 8), torch.full((2,), math.sqrt(0.5))
    known = told(z, half, half, torch.tensor([[1.0], [3.0]]))
    assert torch.allclose(known.estimate, z * math.sqrt(2) * torch.tensor([0.5, 0.75])[:, None, None, None], atol=1e-5)


@pytest.mark.parametrize("kind", ["epsilon", "x0", "v"])
def test_a_published_head_asks_the_network_for_what_its_paper_does(kind):
    torch.manual_seed(1)
    x, noise, t = torch.randn(5, 1, 4, 4), torch.randn(5, 1, 4, 4), torch.tensor([1, 50, 150, 300, 399])
    z = diffusion.noised(x, noise, t, SCHEDULE)
    known = Published(kind)(z, SCHEDULE.alpha(t), SCHEDULE.sigma(t), None)
    alpha, sigma = (level(t)[:, None, None, None].float() for level in (SCHEDULE.alpha, SCHEDULE.sigma))
    wanted = {"epsilon": noise, "x0": x, "v": alpha * noise - sigma * x}[kind]
    # Where alpha z and sigma v nearly cancel, single precision leaves fewer digits.
    assert torch.allclose((x - known.estimate) / known.spread, wanted, atol=2e-3)


@pytest.mark.parametrize("sampler", ["solved", "ddim", "ancestral"])
def test_every_sampler_gives_back_the_gaussian_of_the_head(sampler):
    head, _ = principal(2)
    steps = SCHEDULE.chosen(40 if sampler == "solved" else 120).flip(0).tolist()
    one = learner(Silent(), head, (2, 4, 4), sampler=sampler, levels=steps)
    drawn = one.draw(blank(1500, (2, 4, 4)), Noise(3, range(1500))).x.flatten(1)
    law, mean = covariance(head, 32, (2, 4, 4))
    found = torch.cov(drawn.T)
    error = ((law.diagonal()[:, None] * law.diagonal() + law.square()) / 1500).sqrt()
    assert (found - law).abs().max() < 5 * error.max()
    assert float(torch.trace(found)) == pytest.approx(float(torch.trace(law)), rel=0.15)
    assert torch.allclose(drawn.mean(0), mean, atol=5 * float(law.diagonal().max().sqrt()) / 38)


def test_the_solver_maps_noise_to_the_gaussian_exactly_along_each_axis():
    head, _ = principal(1)
    one = learner(Silent(), head, (2, 4, 4), levels=SCHEDULE.chosen(100).flip(0).tolist())
    z = torch.randn(6, 32, generator=torch.Generator().manual_seed(2))
    found = one.imagine(z, blank(6, (2, 4, 4))).x
    exact = head.begin(z.view(6, 2, 4, 4), torch.ones(6), torch.zeros(6), None)
    assert torch.allclose(found, exact, atol=0.01 * float(head.contrast))


def test_the_bound_of_a_gaussian_lies_just_above_its_entropy():
    head, _ = principal(1)
    law, mean = covariance(head, 32, (2, 4, 4))
    one = learner(Silent(), head, (2, 4, 4), schedule=diffusion.karras(3000, least=0.01, largest=60.0, rho=50.0))
    drawn = head.begin(torch.randn(400, 2, 4, 4, generator=torch.Generator().manual_seed(4)), torch.ones(400), torch.zeros(400), None)
    rows = Rows(drawn, torch.zeros(400))
    surprise = -torch.distributions.MultivariateNormal(mean, law).log_prob(drawn.flatten(1)) / 32 / math.log(2)
    full, estimated = one.bits(rows[:100], seed=0), one.bits(rows, seed=0, evaluations=40)
    assert float(surprise[:100].mean()) - 0.01 < float(full.mean()) < float(surprise[:100].mean()) + 0.04
    assert float(surprise.mean()) - 0.05 < float(estimated.mean()) < float(surprise.mean()) + 0.08


# --- learning ---


def networked(*, sampler="solved", dropped=0.0, padding="zeros", **more):
    torch.manual_seed(0)
    network = UNet(
        1, (8, 16), inputs=2, patch=2, embed=16, condition=ClassEmbedding(2, 16), attention_at=(1,), padding=padding, dropout=0.0
    )
    head = Principal.of(stripes(200).x, 8, pool=2)
    return learner(
        network, head, (1, 8, 8), conditional=True, sampler=sampler, blend=between_classes(2), dropped=dropped,
        schedule=NARROW, levels=NARROW.chosen(8).flip(0).tolist(), bounds=(-2.0, 2.0), **more,
    )  # fmt: skip


def stripes(n):
    """Two kinds of things that no Gaussian is: lines along one axis or along the other, bright or dark."""
    rng = torch.Generator().manual_seed(n)
    kind, sign = torch.randint(2, (n,), generator=rng), torch.randint(2, (n,), generator=rng) * 2.0 - 1
    line = torch.zeros(n, 8)
    line[torch.arange(n), torch.randint(8, (n,), generator=rng)] = 1.0
    image = torch.where(kind[:, None, None] == 0, line[:, :, None], line[:, None, :]) * sign[:, None, None]
    return Rows(image[:, None].expand(n, 1, 8, 8) + 0.05 * torch.randn(n, 1, 8, 8, generator=rng), kind)


@pytest.fixture(scope="module")
def taught():
    """A learner after some steps on two kinds of lines."""
    one = networked(dropped=0.2)
    one.descent.lr = 4e-3
    for step in range(160):
        torch.manual_seed(step)
        one.step(stripes(3000)[torch.randint(3000, (32,))])
    return one


def test_learning_tells_more_than_the_head_and_obeys_the_condition(taught):
    held = stripes(501)
    levels = [130, 165, 200]
    linear, learned = (taught.errors(held, levels, seed=0, linear=flag) for flag in (True, False))
    assert (learned < 0.8 * linear).all()
    other = taught.errors(Rows(held.x, 1 - held.kind), levels, seed=0)
    assert (learned < other).all()


def test_a_new_network_tells_what_the_head_tells():
    one, held = networked(), stripes(64)
    assert torch.equal(one.errors(held, [50, 300], seed=1), one.errors(held, [50, 300], seed=1, linear=True))


def test_guidance_goes_from_what_is_told_without_the_condition(taught):
    held, t = stripes(16), torch.full((16,), 220)
    z = diffusion.noised(held.x, torch.randn(16, 1, 8, 8), t, NARROW)
    taught.bounds, told = None, []
    for w in (0.0, 1.0, 3.0):
        taught.guidance = w
        told.append(taught.told(z, t, held.kind))
    taught.bounds, taught.guidance = (-2.0, 2.0), 1.0
    assert torch.allclose(told[2], torch.lerp(told[0], told[1], 3.0), atol=1e-5)
    assert not torch.allclose(told[0], told[1], atol=1e-3)
    with pytest.raises(ValueError, match="without conditions"):
        networked(guidance=2.0)


@pytest.mark.parametrize("sampler", ["solved", "ddim", "ancestral"])
def test_a_row_is_drawn_the_same_in_any_batch_and_a_trace_ends_in_it(taught, sampler):
    taught.sampler = sampler
    like = stripes(6)
    many = taught.draw(like, Noise(1, range(6))).x
    few = taught.draw(like[2:4], Noise(1, range(2, 4))).x
    film = taught.trace(like, Noise(1, range(6)), 5)
    taught.sampler = "solved"
    assert torch.allclose(many[2:4], few, atol=1e-4)
    assert len(film) == 5
    assert torch.equal(film[-1].x, many)
    assert film[0].x.std() > 0.5 > many.std()


def test_positions_give_draws_and_shares_lead_from_one_condition_to_the_other(taught):
    assert isinstance(taught, Imagines)
    assert isinstance(taught, Traces)
    assert isinstance(taught, Ships)
    noise = Noise(7, range(4)).normal(1, 8, 8)
    here, there = blank(4, (1, 8, 8), 0), blank(4, (1, 8, 8), 1)
    first, last = (taught.draw(like, Noise(7, range(4))).x for like in (here, there))
    at = [taught.imagine(noise.flatten(1), here, there, torch.full((4,), share)).x for share in (0.0, 0.5, 1.0)]
    assert torch.allclose(at[0], first, atol=1e-5)
    assert torch.allclose(at[2], last, atol=1e-5)
    assert (at[1] - first).abs().max() > 0.01
    assert (at[1] - last).abs().max() > 0.01


def test_what_ships_draws_the_same(taught):
    again = networked()
    again.load_shipped(taught.to_ship())
    like = stripes(4)
    assert torch.equal(again.draw(like, Noise(0, range(4))).x, taught.draw(like, Noise(0, range(4))).x)
    taught.ship_as = torch.float16
    half = taught.to_ship()
    taught.ship_as = torch.float32
    again.load_shipped(half)
    assert sum(v.nbytes for v in half.values()) < 0.6 * sum(v.nbytes for v in taught.to_ship().values())
    assert torch.allclose(again.draw(like, Noise(0, range(4))).x, taught.draw(like, Noise(0, range(4))).x, atol=0.02)


def test_the_whole_state_goes_on_where_it_was(taught):
    again = networked(dropped=0.2)
    again.load_state_dict({k: v.clone() for k, v in taught.state_dict().items()})
    again.descent.lr = taught.descent.lr
    before = {k: v.clone() for k, v in taught.state_dict().items()}
    found = []
    for one in (taught, again):
        torch.manual_seed(9)
        found.append(float(one.step(stripes(32))["loss"]))
    assert found[0] == found[1]
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in taught.state_dict().items())
    taught.load_state_dict(before)


def test_levels_of_a_batch_cover_the_schedule_evenly():
    one, seen = networked(), []
    one._known = lambda z, t, condition: seen.append(t) or denoising.Known(z, torch.ones(len(z), 1, 1, 1), torch.cat([z, z], 1))
    one.step(stripes(40))
    t = seen[0]
    assert bool(((t - 1) // (NARROW.steps // 40) == torch.arange(40)).all())
    assert 1 <= int(t.min()) <= int(t.max()) <= NARROW.steps


def test_a_walk_that_ends_in_noise_ends_in_what_is_told_there():
    head, _ = principal(1)
    one = learner(Silent(), head, (2, 4, 4), levels=[400, 300, 200])
    states = list(one._walk(torch.randn(3, 2, 4, 4), None, None))
    assert torch.equal(states[-1], one.told(states[-2], torch.full((3,), 200), None))


# --- the network ---


def test_the_gradient_reaches_every_parameter_of_a_unet():
    torch.manual_seed(0)
    net = UNet(3, (8, 16), blocks=2, embed=16, condition=ClassEmbedding(3, 16), attention_at=(0, 1))
    for parameter in net.parameters():  # the layers that begin at zero hold back what lies before them
        torch.nn.init.normal_(parameter, std=0.1)
    x, level = torch.randn(2, 3, 8, 8), torch.tensor([-1.0, 3.0])
    net(x, level, torch.tensor([[0.5, 0.2, 0.3], [0.0, 0.0, 1.0]])).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or float(p.grad.abs().max()) == 0] == []


@pytest.mark.parametrize("sides", [(48,), (16, 24), (8, 16, 24)])
def test_a_new_unet_says_nothing_and_keeps_the_shape_of_traces_maps_and_volumes(sides):
    net = UNet(1, (8, 8), inputs=2, patch=4, embed=8, dims=len(sides), attention_at=(1,))
    out = net(torch.randn(2, 2, *sides), torch.zeros(2))
    assert out.shape == (2, 1, *sides)
    assert not out.any()


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_periodic_unet_moves_with_its_field(dims):
    torch.manual_seed(0)
    net = UNet(1, (8, 16, 16), patch=2, embed=8, padding="circular", attention_at=(2,), dims=dims)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    net.requires_grad_(False)
    x, level = torch.randn(2, 1, *[16] * dims), torch.zeros(2)
    way = (8,) * dims, tuple(range(2, 2 + dims))
    moved = net(x.roll(*way), level)
    still = net(x, level)
    assert torch.allclose(moved, still.roll(*way), atol=1e-3 * float(still.abs().max()))
    assert not torch.allclose(net(x.roll(1, 2), level), still.roll(1, 2), atol=1e-2 * float(still.abs().max()))


@pytest.mark.parametrize("sides", [(12,), (8, 12), (4, 8, 12)])
def test_patches_become_channels_and_back_as_torch_lays_them_out(sides):
    x = torch.randn(2, 3, *sides)
    parted = into_patches(x, 4)
    assert parted.shape == (2, 3 * 4 ** len(sides), *(side // 4 for side in sides))
    assert torch.equal(out_of_patches(parted, 4), x)
    if len(sides) == 2:
        assert torch.equal(parted, torch.nn.functional.pixel_unshuffle(x, 4))
