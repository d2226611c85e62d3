"""Diffusion models as learners: a network that is taught to tell the data in what is left of them under noise, and ways to draw.

    z = alpha x + sigma noise                          the data x at a level of noise (families/diffusion.py)
    x_hat = estimate + spread * net(seen, log SNR, c)  what is told of x, under the condition c
    loss = |(x - estimate) / spread - net|^2           its mean over numbers, rows and levels

A *head* says what is known before anything is learned: an estimate of x given z, and how far off it is. The network learns the rest.
What networks are asked for in the literature are heads that know nothing of the data (`Published`):

    epsilon    z / alpha,  -sigma / alpha    the network tells the noise: Ho et al. 2020, arXiv:2006.11239, with their simple loss
    x0         0,           1                the data
    v          alpha z,    -sigma            alpha noise - sigma x: Salimans & Ho 2022, arXiv:2202.00512

But the best linear estimate needs no learning. For data of mean m and covariance S it is (Wiener 1949), with the covariance E of its error,

    estimate = m + alpha S (alpha^2 S + sigma^2)^-1 (z - alpha m),    E = sigma^2 S (alpha^2 S + sigma^2)^-1,    spread^2 = tr E / numbers,

of which `v` is the case m = 0, S = 1 and the preconditioning of Karras et al. 2022 (arXiv:2206.00364) the case m = 0, S a number. With
the covariance measured on the data it is exact at high noise, where it leaves the network nothing to say, and if the data are Gaussian
it is exact everywhere. Two such heads stand here: `Principal` for images of things that stand in a frame, `Spectral` for stationary
fields. Both show the network two images: the estimate, and the noise that goes with it, each in units of its own size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simulacra.descent import Descent, under
from simulacra.families import diffusion
from simulacra.families.autoencoder import Axes, principal_axes
from simulacra.families.diffusion import Grid, Schedule
from simulacra.families.gan import Blend, between
from simulacra.study import Noise, S

Sampler = Literal["solved", "ancestral", "ddim"]
Prediction = Literal["epsilon", "x0", "v"]  # the noise, the data, or alpha noise - sigma data


class Known(NamedTuple):
    """What a head says of z (n, ...)."""

    estimate: Tensor  # of the data, (n, ...)
    spread: Tensor  # its typical error, and the unit in which the network corrects it, (n, 1, ...)
    seen: Tensor  # what the network is shown, (n, ...): see `Head.shown`


class Head(Protocol):
    """What is known of data under noise before anything is learned."""

    shown: int  # images of the data's channels that the network is shown

    def __call__(self, z: Tensor, alpha: Tensor, sigma: Tensor, condition: Tensor | None) -> Known:
        """Of z (n, ...) with signal `alpha` and noise `sigma`, each (n,)."""
        ...

    def begin(self, noise: Tensor, alpha: Tensor, sigma: Tensor, condition: Tensor | None) -> Tensor:
        """Standard normal `noise` (n, ...) as z at a level where the data are Gaussian as far as can be told: where draws begin."""
        ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> object: ...

    def to(self, device: torch.device) -> Head: ...


# ---------------------------------------------------------------------------------------------------------------- heads


class Published(nn.Module):
    """A head that knows nothing of the data; the network is shown z."""

    shown = 1

    def __init__(self, kind: Prediction) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, z: Tensor, alpha: Tensor, sigma: Tensor, condition: Tensor | None) -> Known:
        a, s = _column(alpha, z), _column(sigma, z)
        if self.kind == "epsilon":
            return Known(z / a, -s / a, z)
        return Known(torch.zeros_like(z), torch.ones_like(s), z) if self.kind == "x0" else Known(a * z, -s, z)

    def begin(self, noise: Tensor, alpha: Tensor, sigma: Tensor, condition: Tensor | None) -> Tensor:
        return noise


class Principal(nn.Module):
    """Best linear estimate of images (n, channels, side, side) from their mean and covariance, the covariance taken as that of k
    principal axes of the images shrunk by `pool`, one variance for all else at that size, and one for detail below it. With `pool` 1
    rows may have any shape.

    `axes` are those of shrunk images laid out flat (`principal_axes`); `mean` has the shape of a row; `detail` the variance of one pixel
    about the mean of its pool x pool block. Where a condition (n, k) decides the mean, `slope` (k, ...) says how: the mean under c is
    `mean` + c @ slope. See `of`.
    """

    shown = 2
    mean: Tensor
    directions: Tensor
    variance: Tensor
    rest: Tensor
    contrast: Tensor
    slope: Tensor

    def __init__(self, axes: Axes, mean: Tensor, *, pool: int, detail: float, slope: Tensor | None = None) -> None:
        super().__init__()
        self.pool = pool
        numbers, count = axes.directions.shape
        # In units of whole images: a shrunk image repeated to full size, each block's pixels sharing its norm.
        own = pool**2 * axes.residual * numbers / max(1, numbers - count)
        # Pixels of a block have pool^2 - 1 ways to differ from its mean, over which their variance about it is shared.
        below = detail * pool**2 / (pool**2 - 1) if pool > 1 else own
        rest = torch.tensor([own, below]).clamp_min(1e-8)
        variance = (pool**2 * axes.scales.square()).clamp_min(float(rest[0]))
        whole = numbers * pool**2
        contrast = math.sqrt(float(variance.sum() + rest[0] * (numbers - count) + rest[1] * (whole - numbers)) / whole)
        for name, value in (("mean", mean), ("directions", axes.directions), ("variance", variance), ("rest", rest)):
            self.register_buffer(name, value.float().clone())
        self.register_buffer("contrast", torch.tensor(contrast))
        slope = mean.new_zeros(0, *mean.shape) if slope is None else slope
        self.register_buffer("slope", slope.float().clone(), persistent=len(slope) > 0)

    @classmethod
    def of(cls, rows: Tensor, axes: int, *, pool: int = 1, seed: int = 0) -> Principal:
        """Measured on rows (m, ...), with at most `axes` axes; no condition decides their mean."""
        small = _pooled(rows, pool)
        found = principal_axes(small.flatten(1), min(axes, len(rows) - 1, small[0].numel()), seed=seed)
        detail = float((rows - _grown(small, pool) - (rows - _grown(small, pool)).mean(0)).square().mean())
        return cls(found, rows.mean(0), pool=pool, detail=detail)

    @classmethod
    def blank(cls, shape: Sequence[int], axes: int, *, pool: int = 1, told: int = 0) -> Principal:
        """One whose numbers are still to be loaded, for rows of `shape` whose mean `told` numbers decide."""
        numbers = math.prod(shape) // pool**2
        nothing = Axes(torch.zeros(numbers), torch.zeros(numbers, axes), torch.ones(axes), 1.0)
        return cls(nothing, torch.zeros(*shape), pool=pool, detail=1.0, slope=torch.zeros(told, *shape))

    def forward(self, z: Tensor, alpha: Tensor, sigma: Tensor, condition: Tensor | None) -> Known:
        a, s = alpha.to(z)[:, None], sigma.to(z)[:, None]
        mean = self._centre(condition)
        off = z - _column(alpha, z) * mean

        def shrunk(variance: Tensor) -> Tensor:
            return a * variance / (a.square() * variance + s.square())

        estimate = mean + self._through(off, shrunk(self.variance), shrunk(self.rest))
        left = [s.square() * v / (a.square() * v + s.square()) for v in (self.variance, self.rest)]
        spread = _column(self._mean(*left).sqrt(), z)
        return Known(estimate, spread, _shown(z, estimate, mean, self.contrast, alpha, sigma))

    def begin(self, noise: Tensor, alpha: Tensor, sigma: Tensor, condition: Tensor | None) -> Tensor:
        a, s = alpha.to(noise)[:, None], sigma.to(noise)[:, None]
        scales = [(a.square() * v + s.square()).sqrt() for v in (self.variance, self.rest)]
        return _column(alpha, noise) * self._centre(condition) + self._through(noise, *scales)

    def _centre(self, condition: Tensor | None) -> Tensor:
        """The mean of rows, of one row for all or under each condition."""
        if condition is None or not len(self.slope):
            return self.mean
        centre: Tensor = self.mean + torch.tensordot(condition.to(self.slope), self.slope, dims=1)
        return centre

    def _through(self, x: Tensor, along: Tensor, rest: Tensor) -> Tensor:
        """x (n, ...) with its parts along the axes times `along` (n, k), and the rest and the detail times `rest` (n, 2)."""
        small = _pooled(x, self.pool)
        own, below = (_column(part, x) for part in rest.unbind(1))
        flat = small.flatten(1) @ self.directions * (along - rest[:, :1])
        grown: Tensor = below * x + _grown((flat @ self.directions.T).view_as(small) + (own - below) * small, self.pool)
        return grown

    def _mean(self, along: Tensor, rest: Tensor) -> Tensor:
        """Mean over all numbers of a row, (n,), of what is `along` (n, k) on the axes and `rest` (n, 2) elsewhere."""
        numbers, count = self.directions.shape
        whole = numbers * self.pool**2
        return (along.sum(1) + rest[:, 0] * (numbers - count) + rest[:, 1] * (whole - numbers)) / whole


class Spectral(nn.Module):
    """Best linear estimate of stationary periodic fields (n, channels, ...) on axes of any number from their mean and power spectrum.

    `power` (h, ..., w // 2 + 1), or (channels, h, ..., w // 2 + 1), is the mean |a(k)|^2 / (h ... w) of each Fourier mode as
    `torch.fft.rfftn` lays them out: 1 everywhere for white noise of variance 1. `dims` axes, the last of even length w. A module
    `power_of(condition)` -> (n, h, ..., w // 2 + 1) takes its place where the power depends on the condition, and `power` is then what
    sets the scale of what the network sees. `mean` is one number, or one per channel.
    """

    shown = 2
    power: Tensor
    mean: Tensor
    weight: Tensor
    contrast: Tensor

    def __init__(self, power: Tensor, *, mean: Tensor | float = 0.0, power_of: nn.Module | None = None, dims: int = 2) -> None:
        super().__init__()
        self.power_of, self.dims = power_of, dims
        *others, half = power.shape[-dims:]
        width = 2 * (half - 1)
        both = torch.full((half,), 2.0)  # a mode and its opposite, but for the first and the last column
        both[[0, -1]] = 1.0
        self.register_buffer("power", power.float().clone())
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).reshape(-1, *[1] * dims).clone())
        self.register_buffer("weight", both / (math.prod(others) * width), persistent=False)
        self.register_buffer("contrast", (self.power * self.weight).sum(self._axes).mean().sqrt())

    @classmethod
    def of(cls, rows: Tensor, power_of: nn.Module | None = None) -> Spectral:
        """Measured on rows (m, channels, h, ..., w), w even, each channel for itself."""
        dims = rows.dim() - 2
        axes = tuple(range(2, rows.dim()))
        mean = rows.mean((0, *axes))
        modes = torch.fft.rfftn(rows - mean.view(-1, *[1] * dims), dim=axes)
        return cls(modes.abs().square().mean(0) / math.prod(rows.shape[2:]), mean=mean, power_of=power_of, dims=dims)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-self.dims, 0))

    def forward(self, z: Tensor, alpha: Tensor, sigma: Tensor, condition: Tensor | None) -> Known:
        a, s = _column(alpha, z), _column(sigma, z)
        power = self._power(condition)
        told = a.square() * power + s.square()
        estimate = self.mean + _filtered(z - a * self.mean, a * power / told)
        left = (s.square() * power / told * self.weight).sum(self._axes).mean(1)
        return Known(estimate, _column(left.sqrt(), z), _shown(z, estimate, self.mean, self.contrast, alpha, sigma))

    def begin(self, noise: Tensor, alpha: Tensor, sigma: Tensor, condition: Tensor | None) -> Tensor:
        a, s = _column(alpha, noise), _column(sigma, noise)
        return a * self.mean + _filtered(noise, (a.square() * self._power(condition) + s.square()).sqrt())

    def _power(self, condition: Tensor | None) -> Tensor:
        """(n or 1, channels or 1, h, ..., w // 2 + 1)."""
        if self.power_of is None:
            return self.power[None] if self.power.dim() == 1 + self.dims else self.power[None, None]
        found: Tensor = self.power_of(condition)[:, None]
        return found


def _filtered(x: Tensor, gain: Tensor) -> Tensor:
    """x (n, channels, ...) with each Fourier mode times `gain`."""
    axes = tuple(range(2, x.dim()))
    found: Tensor = torch.fft.irfftn(torch.fft.rfftn(x, dim=axes) * gain, s=x.shape[2:], dim=axes)
    return found


def _shown(z: Tensor, estimate: Tensor, mean: Tensor, contrast: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The estimate and the noise that goes with it, (n, 2 channels, ...), each of order 1."""
    noise = (z - _column(alpha, z) * estimate) / _column(sigma, z)
    return torch.cat([(estimate - mean) / contrast, noise], 1)


def _pooled(x: Tensor, pool: int) -> Tensor:
    return F.avg_pool2d(x, pool) if pool > 1 else x


def _grown(small: Tensor, pool: int) -> Tensor:
    return F.interpolate(small, scale_factor=float(pool), mode="nearest") if pool > 1 else small


# -------------------------------------------------------------------------------------------------------------- learner


class Denoising(Generic[S]):
    """A network, a head and a schedule; `draw` takes the running average of the network down the falling `levels` of the schedule.

    `descent.module(seen, log_snr, condition)` answers in the shape of the rows; `seen` has `head.shown` times their channels. `rows_of`
    takes samples apart into rows (n, *shape) and a condition (one tensor, or None), `samples_from` puts drawn rows together under the
    conditions of `like`, `blend` makes conditions between two. Draws are walked by `sampler` and end, where the last level has noise,
    in what is told there. Data told on the way are held in `bounds`. `augment` changes training rows at random into others as likely.

    With `dropped`, that share of training rows is told no condition (zero weights of every class, so that conditions must be class
    numbers and `blend` one that makes weights of them), and a draw with `guidance` w goes w times the way from what is told without
    the condition to what is told with it (Ho & Salimans 2022, arXiv:2207.12598); w = 1 is the law that was learned.
    """

    def __init__(
        self, descent: Descent, schedule: Schedule, *, head: Head, shape: Sequence[int],
        rows_of: Callable[[S], tuple[Tensor, Tensor | None]], samples_from: Callable[[Tensor, S], S], levels: Sequence[int],
        sampler: Sampler = "solved", bounds: tuple[float, float] | None = None, blend: Blend = between, dropped: float = 0.0,
        guidance: float = 1.0, augment: Callable[[Tensor], Tensor] | None = None, ship_as: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        device = next(descent.module.parameters()).device
        self.descent, self.schedule, self.head, self.shape = descent, schedule.to(device), head.to(device), tuple(shape)
        self.rows_of, self.samples_from, self.levels, self.sampler = rows_of, samples_from, list(levels), sampler
        self.bounds, self.blend, self.dropped, self.guidance, self.ship_as = bounds, blend, dropped, guidance, ship_as
        self.latent, self.augment = math.prod(shape), augment
        if guidance != 1 and not dropped:
            raise ValueError(f"guidance {guidance:g} needs a network that was also trained without conditions (`dropped`)")

    # --- training ---

    def step(self, batch: S) -> Mapping[str, Tensor]:
        """One batch, each row at its own level: one from each of n equal parts of 1 ... T, so that no batch lacks any."""
        x, condition = self.rows_of(batch)
        x = x if self.augment is None else self.augment(x)
        n = len(x)
        place = (torch.arange(n) + torch.rand(n)) / n
        t = (1 + (place * self.schedule.steps).long().clamp(max=self.schedule.steps - 1)).to(x.device)
        z = diffusion.noised(x, torch.randn_like(x), t, self.schedule)
        known = self._known(z, t, condition)
        if self.dropped and condition is not None:
            told = (torch.rand(n) >= self.dropped).to(x)
            condition = self._weights(condition) * told[:, None]
        error = (x - known.estimate) / known.spread - self._net(self.descent.module, known.seen, t, condition)
        loss = error.square().mean()
        norm = self.descent(loss)
        return {"loss": loss.detach(), "gradient": norm}

    def _known(self, z: Tensor, t: Tensor, condition: Tensor | None) -> Known:
        return self.head(z, self.schedule.alpha(t), self.schedule.sigma(t), condition)

    def _net(self, network: nn.Module, seen: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        level = -self.schedule.gamma[t].to(seen)
        found: Tensor = network(seen, level) if condition is None else network(seen, level, condition)
        return found

    def _weights(self, condition: Tensor) -> Tensor:
        return condition if condition.ndim > 1 else self.blend(condition, condition, torch.zeros(len(condition)))

    # --- telling ---

    @torch.no_grad()
    def told(self, z: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """x_hat (n, *shape) of z at steps t (n,), by the running average."""
        known = self._known(z, t, condition)
        said = self._net(self.descent.average, known.seen, t, condition)
        if self.guidance != 1 and condition is not None:
            freely = self._net(self.descent.average, known.seen, t, torch.zeros_like(self._weights(condition)))
            said = torch.lerp(freely, said, self.guidance)
        x = known.estimate + known.spread * said
        return x if self.bounds is None else x.clamp(*self.bounds)

    @torch.no_grad()
    def guessed(self, z: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """The same by the head alone, as before any training."""
        return self._known(z, t, condition).estimate

    def _teller(self, condition: Tensor | None, told: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> diffusion.Teller:
        return lambda z, t: diffusion.noise_of(z, told(z, t, condition), t, self.schedule)

    # --- drawing ---

    def draw(self, like: S, noise: Noise) -> S:
        """One row per row of `like`, under its conditions."""
        rows, condition = self.rows_of(like)
        start = noise.normal(*self.shape).to(rows.device)
        return self.samples_from(_last(self._walk(start, condition, self._step(noise))), like)

    def trace(self, like: S, noise: Noise, frames: int) -> list[S]:
        """`frames` moments of a draw, evenly spaced over its levels: noise first, the drawn rows last."""
        rows, condition = self.rows_of(like)
        states = list(self._walk(noise.normal(*self.shape).to(rows.device), condition, self._step(noise)))
        at = torch.linspace(0, len(states) - 1, frames).round().long().tolist() if frames > 1 else [len(states) - 1]
        return [self.samples_from(states[i], like) for i in at]

    def imagine(self, position: Tensor, like: S, towards: S | None = None, share: Tensor | None = None) -> S:
        """What the deterministic walk makes of positions (n, latent): see `study.Imagines`. `ancestral` draws use other random numbers
        on the way; their positions are walked by the solver here."""
        rows, condition = self.rows_of(like)
        if towards is not None and share is not None and condition is not None:
            other = self.rows_of(towards)[1]
            assert other is not None
            condition = self.blend(condition, other, share.to(rows.device))
        start = position.to(rows.device).float().view(-1, *self.shape)
        return self.samples_from(_last(self._walk(start, condition, self._ddim if self.sampler == "ddim" else None)), like)

    @torch.no_grad()
    def _walk(self, noise: Tensor, condition: Tensor | None, step: Callable[..., Tensor] | None) -> Iterator[Tensor]:
        """States from standard normal `noise` down the levels, by `step` or, without one, by the solver; data at the end."""
        first, last = (torch.full((len(noise),), level, device=noise.device) for level in (self.levels[0], self.levels[-1]))
        z = self.head.begin(noise, self.schedule.alpha(first), self.schedule.sigma(first), condition)
        tell = self._teller(condition, self.told)
        yield z
        along = diffusion.walked(tell, z, self.levels, step) if step else diffusion.solved(tell, z, self.levels, self.schedule)
        for z in along:
            yield z
        if float(self.schedule.sigma(self.levels[-1])) > 0:
            yield self.told(z, last, condition)

    def _step(self, noise: Noise) -> Callable[..., Tensor] | None:
        if self.sampler == "solved":
            return None
        if self.sampler == "ddim":
            return self._ddim

        def ancestral(z: Tensor, predicted: Tensor, t: Tensor, s: Tensor) -> Tensor:
            return diffusion.ancestral(z, predicted, noise.normal(*self.shape).to(z), t, s, self.schedule)

        return ancestral

    def _ddim(self, z: Tensor, predicted: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return diffusion.ddim(z, predicted, None, t, s, self.schedule)

    # --- what it is worth ---

    @torch.no_grad()
    def bits(
        self, samples: S, *, seed: int, evaluations: int | None = None, grid: Grid | None = None, linear: bool = False
    ) -> Tensor:  # fmt: skip
        """Upper bound on -log2 p(row) per number, (n,) float64, of the model that draws by `ancestral` along all levels down to 1.

        With `evaluations`, an unbiased estimate from that many steps per row, one from each of as many equal parts. Rows on a `grid`
        have probabilities, others densities. `linear`: of the head alone.
        """
        x, condition = self.rows_of(samples)
        rng = torch.Generator().manual_seed(seed)
        tell = self._teller(condition, self.guessed if linear else self.told)
        steps = self.schedule.steps - 1
        if evaluations is None:
            chosen = torch.arange(steps)[:, None].expand(steps, len(x))
        else:
            parts = torch.arange(evaluations)[:, None] + torch.rand(evaluations, len(x), generator=rng)
            chosen = (parts / evaluations * steps).long().clamp(max=steps - 1)
        spent = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for t in chosen.to(x.device) + 2:
            noise = torch.randn(x.shape, generator=rng).to(x)
            predicted = tell(diffusion.noised(x, noise, t, self.schedule), t)
            spent += diffusion.step_kl(noise, predicted, t, t - 1, self.schedule)
        last = torch.ones(len(x), dtype=torch.int64, device=x.device)
        z = diffusion.noised(x, torch.randn(x.shape, generator=rng).to(x), last, self.schedule)
        ends = diffusion.prior_kl(x, self.latent, self.schedule) + diffusion.surprise(z, x, tell(z, last), last, self.schedule, grid=grid)
        return diffusion.bits(ends + spent * steps / len(chosen), self.latent)

    @torch.no_grad()
    def errors(self, samples: S, levels: Sequence[int], *, seed: int, linear: bool = False) -> Tensor:
        """Mean squared error (levels,) of the data told at each level, in the units of the rows; `linear`: by the head alone."""
        x, condition = self.rows_of(samples)
        rng = torch.Generator().manual_seed(seed)
        found = []
        for level in levels:
            t = torch.full((len(x),), level, device=x.device)
            z = diffusion.noised(x, torch.randn(x.shape, generator=rng).to(x), t, self.schedule)
            found.append(((self.guessed if linear else self.told)(z, t, condition) - x).square().mean())
        return torch.stack(found)

    # --- state ---

    def state_dict(self) -> dict[str, Tensor]:
        return self.descent.state_dict() | self._head_state()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.descent.load_state_dict(state)
        self.head.load_state_dict(under(state, "head"))

    def to_ship(self) -> dict[str, Tensor]:
        """The averaged weights and the head: all that drawing needs. Matrices and larger are rounded to `ship_as`."""
        state = {f"average.{k}": v for k, v in self.descent.average.state_dict().items()} | self._head_state()
        return {k: v.to(self.ship_as) if v.ndim > 1 and v.is_floating_point() else v for k, v in state.items()}

    def load_shipped(self, state: Mapping[str, Tensor]) -> None:
        """Take what draws from `to_ship` or `state_dict`; training cannot go on from there."""
        self.descent.average.load_state_dict(under(state, "average"))
        self.head.load_state_dict(under(state, "head"))

    def _head_state(self) -> dict[str, Tensor]:
        return {f"head.{k}": v for k, v in self.head.state_dict().items()}


def _last(states: Iterator[Tensor]) -> Tensor:
    for state in states:
        found = state
    return found


def _column(level: Tensor, like: Tensor) -> Tensor:
    """Numbers (n,) against rows (n, ...)."""
    return level.to(like).view(-1, *[1] * (like.dim() - 1))
