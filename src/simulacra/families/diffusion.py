"""Diffusion models in discrete time: noise levels, what a network predicts, noising, ways back, and the likelihood bound.

    q(z_t | x) = N(alpha_t x, sigma_t^2),   alpha_t^2 + sigma_t^2 = 1,   t = 0, 1, ... T

(Sohl-Dickstein et al. 2015, arXiv:1503.03585; Ho et al. 2020, arXiv:2006.11239; in the terms of Kingma et al. 2021,
arXiv:2107.00630). gamma_t = log(sigma_t^2 / alpha_t^2), minus the log signal-to-noise ratio, rises with t. Everything is given for
predictions of the noise; networks that tell the data or the velocity instead are read by `denoising.Published`. Data that have
bounds are held in them on the way: `noise_of(z, data_of(z, noise, ...).clamp(low, high), ...)`. Tensors may have any
shape after the first axis, the batch. Nothing here knows a network or what the numbers mean. Clouds of points live in the subspace
of zero centre of mass: `centred` projects onto it.

Ways back, all through levels that the caller chooses, given the noise that a network tells in z:

    ancestral   a draw from the posterior (Ho et al.): the law of the data as the steps become many, of first order in the step
    ddim        the same at eta = 1, no randomness at eta = 0 (Song et al. 2021): of first order
    solved      DPM-Solver++(2M) (Lu et al. 2022): no randomness, of second order, few steps

The second-order solver is DPM-Solver++(2M) and not Heun's method, because it asks the network once per step where Heun's asks twice,
stops at levels that the network was trained at, and works on predicted data, so that holding them in bounds does not break it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import softplus

Teller = Callable[[Tensor, Tensor], Tensor]  # the noise told in z (n, ...) at steps (n,)


@dataclass(frozen=True)
class Schedule:
    """Noise levels by step. Steps are int64 tensors (n,) or plain integers; levels come back in that shape, on `gamma`'s device."""

    gamma: Tensor  # (T + 1,), float64 as made here; -inf at 0 where the first level is noiseless

    @property
    def steps(self) -> int:
        """T: levels run from 0, the least noisy, to T."""
        return len(self.gamma) - 1

    def alpha(self, t: Tensor | int) -> Tensor:
        """What is left of the signal."""
        return torch.sigmoid(-self.gamma[t]).sqrt()

    def sigma(self, t: Tensor | int) -> Tensor:
        """Standard deviation of the noise."""
        return torch.sigmoid(self.gamma[t]).sqrt()

    def bound_weight(self, t: Tensor | int, s: Tensor | int) -> Tensor:
        """SNR(s) / SNR(t) - 1 for s < t: weight of half the squared error of the noise in the likelihood bound (Kingma et al., eq. 14)."""
        return torch.expm1(self.gamma[t] - self.gamma[s])

    def respaced(self, steps: int) -> Schedule:
        """A schedule of fewer steps through levels of this one, the first and the last among them (Nichol & Dhariwal 2021)."""
        if not 1 <= steps <= self.steps:
            raise ValueError(f"a schedule of {self.steps} steps cannot be walked in {steps}")
        return Schedule(self.gamma[self.chosen(steps)])

    def chosen(self, steps: int) -> Tensor:
        """Which of the levels 0 ... T a walk in `steps` steps visits, (steps + 1,) int64."""
        return torch.linspace(0, self.steps, steps + 1, dtype=torch.float64).round().long()

    def nearest(self, wanted: Schedule) -> Tensor:
        """Which of the levels 0 ... T lie nearest in gamma to those of another schedule, int64, ascending, none twice: how a network
        that was trained at these levels walks along `karras`, say. A noiseless level is near to none but itself."""
        between = (self.gamma[1:] + self.gamma[:-1]) / 2
        return torch.tensor(sorted(set(torch.searchsorted(between, wanted.gamma.to(between)).tolist())))

    def to(self, device: torch.device) -> Schedule:
        return Schedule(self.gamma.to(device))


def linear(steps: int, *, first: float = 0.1, last: float = 20.0) -> Schedule:
    """beta_t = 1 - alpha_t^2 / alpha_(t-1)^2 rises evenly from first / T to last / T, level 0 is noiseless (Ho et al. 2020).

    At T = 1000 these are the published 1e-4 to 0.02; at another T they keep the last level's signal about where it was. Raises
    ValueError where a step would lose everything (T of 20 or less): walk a finer schedule, respaced.
    """
    if steps <= last:
        raise ValueError(f"{steps} steps of a linear schedule lose everything before the end; at least {math.floor(last) + 1}, or respaced")
    beta = torch.linspace(first, last, steps, dtype=torch.float64) / steps
    log_kept = torch.log1p(-beta).cumsum(0)  # log alpha^2
    return Schedule(torch.cat([beta.new_tensor([-math.inf]), (-torch.expm1(log_kept)).log() - log_kept]))


def karras(steps: int, *, least: float = 0.002, largest: float = 80.0, rho: float = 7.0) -> Schedule:
    """sigma / alpha, the noise added to data that are not shrunk, goes evenly in its rho-th root from `least` at level 1 to `largest`
    at T, and level 0 is noiseless (Karras et al. 2022, arXiv:2206.00364, eq. 5; a walk of T steps). `largest` is for data of about
    unit variance. States are kept at unit variance here: theirs are z / alpha."""
    if steps < 2:
        raise ValueError(f"{steps} steps: levels from {least:g} to {largest:g} and then none take two or more")
    root = torch.linspace(least ** (1 / rho), largest ** (1 / rho), steps, dtype=torch.float64)
    return Schedule(torch.cat([root.new_tensor([-math.inf]), 2 * rho * root.log()]))


def even(steps: int, walk: int, *, least: float, largest: float) -> tuple[Schedule, list[int]]:
    """Levels whose noise over signal goes from `least` to `largest` evenly in the logarithm (to a few percent), and those of them,
    falling, that a walk of `walk` steps visits: the ones nearest to the levels of `karras`."""
    schedule = karras(steps, least=least, largest=largest, rho=100.0)
    return schedule, [int(level) for level in schedule.nearest(karras(max(2, walk), least=least, largest=largest)).flip(0)]


def polynomial(steps: int, *, power: float = 2.0, precision: float = 1e-5, least: float = 1e-3) -> Schedule:
    """alpha_t^2 = (1 - 2 s) (1 - (t / T)^power)^2 + s, s the precision (Hoogeboom et al. 2022, arXiv:2203.17003).

    Before the precision is applied, no step may keep less than `least` of alpha^2, or the last one would lose everything at once.
    """
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    kept = _no_step_below(least, (1 - u**power).square())
    return Schedule(_gamma((1 - 2 * precision) * kept + precision))


def cosine(steps: int, *, offset: float = 0.008, least: float = 1e-3) -> Schedule:
    """alpha_t^2 = cos^2(pi/2 (t/T + offset) / (1 + offset)), relative to t = 0, which is noiseless (Nichol & Dhariwal 2021,
    arXiv:2102.09672); no step keeps less than `least` of alpha^2."""
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    kept = torch.cos(0.5 * math.pi * (u + offset) / (1 + offset)).square()
    return Schedule(_gamma(_no_step_below(least, kept / kept[0])))


def _no_step_below(least: float, kept: Tensor) -> Tensor:
    """alpha^2 whose ratio from step to step is clipped to [least, 1]; the first is its ratio to 1."""
    before = torch.cat([kept.new_ones(1), kept[:-1]])
    return (kept / before).clamp(least, 1.0).cumprod(0)


def _gamma(squared: Tensor) -> Tensor:
    return torch.log1p(-squared) - torch.log(squared)


# -------------------------------------------------------------------------------------------------------- there and back


def noised(x: Tensor, noise: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """z_t of data x (n, ...) with standard normal `noise` of its shape, at steps t (n,)."""
    return _per_row(schedule.alpha(t), x) * x + _per_row(schedule.sigma(t), x) * noise


def data_of(z: Tensor, noise: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """The data that z_t (n, ...) was made of, if `noise` is the noise in it."""
    return (z - _per_row(schedule.sigma(t), z) * noise) / _per_row(schedule.alpha(t), z)


def noise_of(z: Tensor, x: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """The noise in z_t (n, ...), if it was made of data x."""
    return (z - _per_row(schedule.alpha(t), z) * x) / _per_row(schedule.sigma(t), z)


# ------------------------------------------------------------------------------------------------------------- ways back


def ancestral(
    z: Tensor, predicted: Tensor, fresh: Tensor, t: Tensor, s: Tensor, schedule: Schedule, *, variance: Tensor | None = None
) -> Tensor:
    """A draw from q(z_s | z_t, x), s < t, with x the data that `predicted` noise leaves in z_t; `fresh` is standard normal.

    Mean z_t / a - v / (a sigma_t) noise and standard deviation sqrt(v) sigma_s / sigma_t, where a = alpha_t / alpha_s and
    v = sigma_t^2 - a^2 sigma_s^2. Another `variance`, per row or of z's shape, takes the place of the posterior's (see `variances`).
    """
    ratio, spread = _step(t, s, schedule)
    sigma = schedule.sigma(t)
    scatter = spread.sqrt() * schedule.sigma(s) / sigma if variance is None else variance.sqrt()
    mean = z / _per_row(ratio, z) - _per_row(spread / (ratio * sigma), z) * predicted
    return mean + _over(scatter, z) * fresh


def variances(t: Tensor, s: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """The least and the largest variance that a step from t to s can need, (n,) each: v sigma_s^2 / sigma_t^2, the posterior's, which
    is exact where the data are one point, and v = 1 - alpha_t^2 / alpha_s^2, exact where they are standard normal (Ho et al., 3.2)."""
    _, spread = _step(t, s, schedule)
    return spread * (schedule.sigma(s) / schedule.sigma(t)).square(), spread


def _step(t: Tensor, s: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """a = alpha_t / alpha_s, and v = sigma_t^2 - a^2 sigma_s^2, exact for levels that lie close together."""
    fall = softplus(schedule.gamma[s]) - softplus(schedule.gamma[t])
    return (0.5 * fall).exp(), -torch.expm1(fall)


def ddim(
    z: Tensor, predicted: Tensor, fresh: Tensor | None, t: Tensor, s: Tensor, schedule: Schedule, *, eta: float = 0.0
) -> Tensor:
    """A step from t to s < t with `eta` times the posterior's standard deviation, and less of the predicted noise the more is fresh
    (Song et al. 2021, arXiv:2010.02502, eqs. 12 and 16): `ancestral` at eta = 1, a map without randomness at 0, where `fresh` may be
    None. Raises ValueError for an eta outside 0 to 1."""
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta:g}: expected 0 (no randomness) to 1 (as much as the posterior has)")
    fall = torch.expm1(schedule.gamma[s] - schedule.gamma[t])  # SNR(t) / SNR(s) - 1
    sigma = schedule.sigma(s)
    x = data_of(z, predicted, t, schedule)
    kept = _per_row(schedule.alpha(s), z) * x + _per_row(sigma * (1 + eta**2 * fall).sqrt(), z) * predicted
    if eta == 0:
        return kept
    if fresh is None:
        raise ValueError(f"a step with eta = {eta:g} takes fresh noise")
    return kept + _per_row(eta * sigma * (-fall).sqrt(), z) * fresh


def walked(tell: Teller, z: Tensor, levels: Sequence[int], step: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Iterator[Tensor]:
    """z (n, ...) at each of the falling `levels` after the first, at which it is given. `step(z, noise, t, s)` is `ancestral` or `ddim`
    on a schedule, and whatever else the caller does to z."""
    for now, then in pairwise(levels):
        t, s = _full(now, z), _full(then, z)
        z = step(z, tell(z, t), t, s)
        yield z


def solved(tell: Teller, z: Tensor, levels: Sequence[int], schedule: Schedule) -> Iterator[Tensor]:
    """z (n, ...) at each of the falling `levels` after the first, at which it is given, by DPM-Solver++(2M): the probability-flow
    equation in lambda = -gamma / 2, with the data of the middle of a step carried on from its start and the start of the one before
    (Lu et al. 2022, arXiv:2211.01095, algorithm 2). The first step, and one to a noiseless level, have the data of their start: let
    the first be short and the last from little noise, as levels of `karras` are.
    """
    before: Tensor | None = None
    last = math.nan
    for now, then in pairwise(levels):
        t, s = _full(now, z), _full(then, z)
        x = data_of(z, tell(z, t), t, schedule)
        stride = float(schedule.gamma[now] - schedule.gamma[then]) / 2
        ahead = x if before is None or math.isinf(stride) else x + stride / (2 * last) * (x - before)
        shrunk, gained = schedule.sigma(s) / schedule.sigma(t), -schedule.alpha(s) * math.expm1(-stride)
        z = _per_row(shrunk, z) * z + _per_row(gained, z) * ahead
        before, last = x, stride
        yield z


def _full(level: int, z: Tensor) -> Tensor:
    return torch.full((len(z),), level, device=z.device)


def centred(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Points (n, points, k) less their mean: the projection onto zero centre of mass. `mask` (n, points) is 0 for what is no point;
    it comes out as 0. Standard normal numbers become a draw from the standard normal of the subspace."""
    if mask is None:
        return x - x.mean(1, keepdim=True)
    weight = mask[..., None].to(x)
    return (x - (x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)) * weight


# ------------------------------------------------------------------------------------------------- the likelihood bound


def prior_kl(x: Tensor, freedom: Tensor | int, schedule: Schedule) -> Tensor:
    """KL(q(z_T | x) || N(0, 1)) in nats for data x (n, ...): (n,). `freedom` is the dimension of the space that x and its noise live
    in: the count of its numbers, 3 less per molecule in the subspace of zero centre of mass."""
    alpha, sigma = schedule.alpha(schedule.steps), schedule.sigma(schedule.steps)
    spent = 0.5 * (sigma.square() - 1) - sigma.log()
    return spent * freedom + 0.5 * alpha.square() * x.double().square().flatten(1).sum(1)


def step_kl(noise: Tensor, predicted: Tensor, t: Tensor, s: Tensor, schedule: Schedule, *, variance: Tensor | None = None) -> Tensor:
    """KL(q(z_s | z_t, x) || p(z_s | z_t)) in nats, (n,) float64, for levels s < t: the law of `ancestral` under the `noise` that is in
    z_t, and under the noise `predicted`, with `variance` where the model's is another.

    Without, it is half the squared error of the noise under `bound_weight`. Infinite for a noiseless s: see `surprise`.
    """
    squared = (predicted - noise).double().square()
    if variance is None:
        return 0.5 * schedule.bound_weight(t, s) * squared.flatten(1).sum(1)
    ratio, spread = _step(t, s, schedule)
    moved = _per_row(spread / (ratio * schedule.sigma(t)), squared).square() * squared
    own = _over(variance, squared)
    excess = _per_row(variances(t, s, schedule)[0], squared) / own - 1
    return 0.5 * (moved / own + excess - excess.log1p()).flatten(1).sum(1)


@dataclass(frozen=True)
class Grid:
    """Values that data take: from `low` to `high` in steps of `width`, all in the units of the data."""

    low: float
    high: float
    width: float


EIGHT_BITS = Grid(-1.0, 1.0, 2 / 255)  # 0 ... 255 scaled to +-1


def surprise(
    z: Tensor, x: Tensor, predicted: Tensor, t: Tensor, schedule: Schedule, *, variance: Tensor | None = None, grid: Grid | None = None
) -> Tensor:
    """-log p(x | z_t) in nats, (n,) float64, of data x (n, ...): a normal about the data that `predicted` noise leaves in z_t, of
    `variance`, or without of sigma_t^2 / alpha_t^2; on a `grid`, its mass by `binned_surprise`. `t` is the first level that has noise.
    """
    mean = data_of(z.double(), predicted.double(), t, schedule)
    own = _over(schedule.gamma[t].exp() if variance is None else variance, mean)
    if grid is not None:
        return binned_surprise(x, mean, own.sqrt(), grid)
    return 0.5 * ((mean - x.double()).square() / own + own.log() + math.log(2 * math.pi)).flatten(1).sum(1)


def binned_surprise(x: Tensor, mean: Tensor, deviation: Tensor, grid: Grid) -> Tensor:
    """-log P(x) in nats, (n,) float64, of data (n, ...) on a grid: the mass of N(mean, deviation^2) within half a width of x, and all
    beyond where x is the lowest or highest (Ho et al. 2020, eq. 13). `deviation` is per row or of x's shape."""
    half = grid.width / 2
    off = (x - mean).double()
    deviation = _over(deviation, off)
    upper = torch.where(x > grid.high - half, math.inf, (off + half) / deviation)
    lower = torch.where(x < grid.low + half, -math.inf, (off - half) / deviation)
    flip = lower + upper > 0  # in the lower tail a difference of two small numbers is exact
    a, b = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
    top = torch.special.log_ndtr(b)
    mass: Tensor = top + (-torch.expm1(torch.special.log_ndtr(a) - top)).log()
    return -mass.flatten(1).sum(1)


def bound_terms(
    tell: Teller, x: Tensor, fresh: Callable[[], Tensor], levels: Sequence[int], schedule: Schedule,
    *, wide: bool = False, grid: Grid | None = None,
) -> Tensor:
    """Terms of the bound on -log p(x) in nats, (levels + 1, n) float64, for data x (n, ...) that may lie anywhere: the prior's, one per
    step along the falling `levels`, and the surprise at the last. Their sum over the first axis is an unbiased estimate of the bound
    of a model that draws by `ancestral` along these levels.

    `fresh` gives standard normal numbers of x's shape. Steps have the least of `variances`, or, `wide`, the largest, and then the
    surprise sigma_t^2. Data on a `grid` have probabilities, others densities. The sum over all steps costs as many predictions; T
    times the term of one random step of T is unbiased too. Raises ValueError where the last level is noiseless.
    """
    if float(schedule.sigma(levels[-1])) == 0:
        raise ValueError(f"level {levels[-1]} has no noise: the bound ends at one that has, such as {levels[-1] + 1}")
    terms = [prior_kl(x, math.prod(x.shape[1:]), Schedule(schedule.gamma[: levels[0] + 1]))]
    for now, then in pairwise(levels):
        t, s, noise = _full(now, x), _full(then, x), fresh()
        predicted = tell(noised(x, noise, t, schedule), t)
        terms.append(step_kl(noise, predicted, t, s, schedule, variance=variances(t, s, schedule)[1] if wide else None))
    t = _full(levels[-1], x)
    z = noised(x, fresh(), t, schedule)
    variance = schedule.sigma(t).square() if wide else schedule.gamma[t].exp()
    terms.append(surprise(z, x, tell(z, t), t, schedule, variance=variance, grid=grid))
    return torch.stack(terms)


def bits(nats: Tensor, numbers: int) -> Tensor:
    """Nats of a whole as bits per number in it: nats / (numbers log 2)."""
    return nats / (numbers * math.log(2))


def _over(level: Tensor, like: Tensor) -> Tensor:
    """Per row (n,) or already of `like`'s shape (n, ...)."""
    return _per_row(level, like) if level.dim() <= 1 else level.to(like)


def _per_row(level: Tensor, like: Tensor) -> Tensor:
    return level.to(like).view(-1, *[1] * (like.dim() - 1))
