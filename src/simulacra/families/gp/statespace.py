"""Kernels as Markov processes: a state of a few numbers that is all the past has to say about the future.

Matern processes of order 1/2, 3/2, 5/2 are the first entry of a state with 1, 2, 3 entries (Hartikainen & Saerkkae 2010, "Kalman
filtering and smoothing solutions to temporal Gaussian process regression models"). With lam = sqrt(2 order) / lengthscale and the
state f, f'/lam, f''/lam^2, one matrix N serves all lengthscales: the transition over a time s is exp(N lam s), and the law of the
state does not depend on the lengthscale. Variances stand in the observation row.

A periodic covariance v exp(z (cos(w d) - 1)), z = 1/lengthscale^2, w = 2 pi / period, is a sum of cosines with the weights
v e^-z I_0(z) and 2 v e^-z I_j(z) (Solin & Saerkkae 2014, "Explicit link between periodic covariance functions and state space
models"): each harmonic is a pair that turns. Times a Matern process, pair and state multiply. How many harmonics are kept follows
from the tail of the Bessel coefficients: what is left out is below 1e-10 of the cycle's variance and below 1e-11 of the noise's, down
to rounding.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import ive

from simulacra.families.gp.kernels import Kernel, Linear, Matern, Periodic, Product, Sum, White
from simulacra.study import Refused

Array = NDArray[np.float64]
K = TypeVar("K", bound=Kernel)
TAIL, TAIL_OF_NOISE = 1e-10, 1e-11  # covariance of a cycle left out, of its own variance and of the noise's
STATIC, DRIFTING = 128, 40  # most harmonics of a cycle that repeats exactly; of one that drifts, where they swell every matrix

_GENERATORS = {
    0.5: np.array([[-1.0]]),
    1.5: np.array([[0.0, 1.0], [-1.0, -2.0]]),
    2.5: np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, -3.0, -3.0]]),
}
_LAWS = {
    0.5: np.eye(1),
    1.5: np.eye(2),
    2.5: np.array([[1.0, 0.0, -1 / 3], [0.0, 1 / 3, 0.0], [-1 / 3, 0.0, 1.0]]),
}


@dataclasses.dataclass(frozen=True)
class Term:
    """One term of the sum as a state. A cycle that repeats exactly is a cycle times a process that never moves (`rate` 0)."""

    label: str  # in `Sum.named()`
    prefix: str  # of its parameters' names in the whole kernel
    kernel: Kernel
    order: float  # of the Matern factor
    rate: float  # lam, per unit of time; 0: a constant
    frequency: float  # of the first harmonic, radians per unit of time; 0: no cycle
    weights: Array  # (1 + J,): variance of the harmonics 0 .. J

    @property
    def decays(self) -> bool:
        """Whether the state forgets; else it is a handful of unknown constants."""
        return self.rate > 0

    @property
    def linear(self) -> bool:
        """Whether it is a straight line, whose state is its height over that at the centre and its slope, at unit variance."""
        return isinstance(self.kernel, Linear)

    @property
    def size(self) -> int:
        """Numbers in the state."""
        return 2 if self.linear else len(self.law_of_one()) * (2 * len(self.weights) - 1)

    def law_of_one(self) -> Array:
        """Stationary covariance of the state of one harmonic."""
        return _LAWS[self.order]

    def law(self) -> Array:
        """Stationary covariance (size, size); of a line, its law at the centre."""
        return np.diag([0.0, 1.0]) if self.linear else np.asarray(np.kron(np.eye(2 * len(self.weights) - 1), self.law_of_one()))

    def exponential(self, lag: Array) -> Array:
        """Transition (..., m, m) of the Matern factor: exp(N u) = e^-u sum_i u^i (N + 1)^i / i!, as (N + 1)^m = 0."""
        u = self.rate * lag[..., None, None]
        shifted = _GENERATORS[self.order] + np.eye(len(self.law_of_one()))
        total, power = np.eye(len(shifted)) + np.zeros_like(u), np.eye(len(shifted))
        for i in range(1, len(shifted)):
            power = power @ shifted / i
            total = total + u**i * power
        return np.asarray(total * np.exp(-u))

    def _turned(self, lag: Array, one: Array, sign: float) -> Array:
        """A vector (..., m) of one harmonic spread over all of them, (..., size), turned by the angle of the lag, weighted."""
        root, m = np.sqrt(self.weights), one.shape[-1]
        out = np.empty((*lag.shape, self.size))
        out[..., :m] = root[0] * one
        first = np.exp(1j * sign * self.frequency * lag)
        turned = np.ones_like(first)
        for j in range(1, len(root)):  # powers of the first harmonic: a cosine costs ten products
            turned = turned * first
            out[..., (2 * j - 1) * m : 2 * j * m] = root[j] * turned.real[..., None] * one
            out[..., 2 * j * m : (2 * j + 1) * m] = root[j] * turned.imag[..., None] * one
        return out

    def row(self, lag: Array) -> Array:
        """Regression (..., size) of the function on the state a time `lag` before."""
        if self.linear:
            return np.asarray(np.sqrt(self.weights[0]) * np.stack([np.ones_like(lag), lag], axis=-1))
        return self._turned(lag, self.exponential(lag)[..., 0, :], 1.0)

    def cross(self, lag: Array) -> Array:
        """Covariance (..., size) of the state with the function a time `lag` before."""
        return self._turned(lag, self.exponential(lag) @ self.law_of_one()[:, 0], -1.0)

    def transition(self, lag: Array) -> Array:
        """Regression (..., size, size) of the state on the state a time `lag` before."""
        out = np.zeros((*lag.shape, self.size, self.size))
        if self.linear:
            out[..., 0, 0] = out[..., 1, 1] = 1.0
            out[..., 0, 1] = lag
            return out
        one = self.exponential(lag)
        m = one.shape[-1]
        out[..., :m, :m] = one
        for j in range(1, len(self.weights)):
            angle = (j * self.frequency * lag)[..., None, None]
            first, second, third = (2 * j - 1) * m, 2 * j * m, (2 * j + 1) * m
            out[..., first:second, first:second] = out[..., second:third, second:third] = np.cos(angle) * one
            out[..., first:second, second:third] = np.sin(angle) * one
            out[..., second:third, first:second] = -np.sin(angle) * one
        return out

    def scales(self) -> Iterator[tuple[str, Array]]:
        """Free parameters that the variances of harmonics depend on, and derivative (1 + J,) of their logarithms."""
        for name in self.kernel.free():
            if name.endswith("variance"):
                yield self.prefix + name, np.ones(len(self.weights))
            elif (name == "lengthscale" and self.frequency) or name == "periodic.lengthscale":
                cycle = _factor(self.kernel, Periodic)
                z, j = cycle.lengthscale**-2.0, np.arange(len(self.weights))
                slope = 0.5 * (ive(np.abs(j - 1), z) + ive(j + 1, z)) / ive(j, z) - 1  # I_j' = (I_j-1 + I_j+1) / 2
                yield self.prefix + name, -2 * z * slope

    def rates(self) -> Iterator[tuple[str, Array]]:
        """Free parameters that set the pace, and the matrix L (size, size) with d transition(s) = s L transition(s), per logarithm."""
        m = len(self.law_of_one())
        for name in self.kernel.free():
            if name.endswith("lengthscale") and self.decays and not name.startswith("periodic"):
                yield self.prefix + name, np.asarray(np.kron(np.eye(self.size // m), -self.rate * _GENERATORS[self.order]))
            elif name.endswith("period"):
                turn = np.zeros((self.size // m, self.size // m))
                for j in range(1, len(self.weights)):
                    turn[2 * j - 1, 2 * j], turn[2 * j, 2 * j - 1] = -j * self.frequency, j * self.frequency
                yield self.prefix + name, np.asarray(np.kron(turn, np.eye(m)))

    def each(self, per_harmonic: Array) -> Array:
        """One number per harmonic (1 + J,) given to each entry of the state (size,)."""
        return np.repeat(per_harmonic, [1] + [2] * (len(per_harmonic) - 1)).repeat(len(self.law_of_one()))


@dataclasses.dataclass(frozen=True)
class State:
    """What is known of a state at one time: mean (d,), covariance (d, d)."""

    mean: Array
    covariance: Array
    time: float


@dataclasses.dataclass(frozen=True)
class Block:
    """Stretches of k times each: the end of a stretch and what was observed in it, given the state `s` at its start.

    With the observations y: s has the information `information` (d, d) and `read` y; the state at the end is `transition` s +
    `gain` y with covariance `covariance`. Times that were not observed have zeros in `read`, `gain` and `precision`. All arrays
    have a leading axis, one entry per kind of stretch; `rows`, `step` and `cross` may have one for all.
    """

    transition: Array  # (u, d, d)
    covariance: Array  # (u, d, d)
    information: Array  # (u, d, d)
    read: Array  # (u, d, k)
    gain: Array  # (u, d, k)
    precision: Array  # (u, k, k): inverse covariance of the observations given s
    logdet: Array  # (u,): of that covariance
    rows: Array  # (g, k, d): regression of the function on s
    step: Array  # (g, d, d): transition from start to end
    cross: Array  # (g, k, d): covariance of the state at the end with the function


@dataclasses.dataclass(frozen=True)
class StateSpace:
    """A kernel as a Markov process: the states of its terms one after the other, and white noise of the observations."""

    terms: tuple[Term, ...]
    noise: float

    @classmethod
    def of(cls, kernel: Kernel) -> StateSpace:
        """The process of a kernel; its entries that never decay (cycles, lines) are states too.

        Refused where a term has no finite state, or where a cycle needs too many harmonics."""
        if reason := why_not(kernel):
            raise Refused(reason)
        noise = kernel.noise()
        return cls(tuple(_term(*named, noise) for named in _labelled(kernel) if not isinstance(named[2], White)), noise)

    @property
    def dimension(self) -> int:
        """d, numbers in the state."""
        return sum(term.size for term in self.terms)

    @property
    def observation(self) -> Array:
        """Row h (d,): the function is h times the state."""
        return self.rows(np.zeros(()))

    @property
    def stationary(self) -> Array:
        """Covariance (d, d) before anything is observed; of a line, at its centre."""
        return _diagonal([term.law() for term in self.terms])

    @property
    def decaying(self) -> Array:
        """The same with zeros for the states that never decay, which add nothing new with time."""
        return _diagonal([term.law() * term.decays for term in self.terms])

    def slices(self) -> Iterator[tuple[Term, slice]]:
        """Each term and where its state stands."""
        start = 0
        for term in self.terms:
            yield term, slice(start, start + term.size)
            start += term.size

    def rows(self, lag: Array) -> Array:
        """Regression (..., d) of the function on the state a time `lag` before."""
        return np.concatenate([np.zeros((*np.shape(lag), 0)), *(term.row(lag) for term in self.terms)], axis=-1)

    def cross(self, lag: Array) -> Array:
        """Covariance (..., d) of the decaying states with the function a time `lag` before; zeros for the others."""
        found = [term.cross(lag) if term.decays else np.zeros((*np.shape(lag), term.size)) for term in self.terms]
        return np.concatenate([np.zeros((*np.shape(lag), 0)), *found], axis=-1)

    def steps(self, lag: Array) -> Array:
        """Transitions (..., d, d) over several times."""
        out = np.zeros((*np.shape(lag), self.dimension, self.dimension))
        for term, at in self.slices():
            out[..., at, at] = term.transition(lag)
        return out

    def transition(self, step: float) -> tuple[Array, Array]:
        """Regression A (d, d) of the state on that a time `step` before, and covariance Q (d, d) of what is new."""
        a, law = self.steps(np.asarray(float(step))), self.decaying
        return a, law - a @ law @ a.T

    def covariance(self, lag: Array) -> Array:
        """Covariance (...) of the decaying terms of the function with themselves."""
        total = np.zeros(lag.shape)
        for term in self.terms:
            if term.decays:
                total += term.kernel.covariance(lag.ravel(), np.zeros(1)).reshape(lag.shape)
        return total

    def condensed(self, tau: Array, end: Array, observed: NDArray[np.bool_]) -> tuple[Block, float]:
        """Stretches with times `tau` (g, k) after their start, which end `end` (g,) after it; `observed` (u, k), with g = 1 or u.
        Beside them what had to be added to the noise for positive-definite matrices, in units of the variance of an observation (but
        for what never decays); usually 0.

        Within a stretch the covariance matrix is dense; so long as k is about d, all costs are of the order d^2 a time."""
        scale = float(self.covariance(np.zeros(1))[0]) + self.noise
        for jitter in (0.0, 1e-10, 1e-8, 1e-6):
            try:
                return self._block(tau, end, observed, self.noise + jitter * scale), jitter
            except np.linalg.LinAlgError:
                continue
        raise Refused(
            "the covariance of neighbouring observations is singular even with a millionth of the variance added: "
            "add White noise to the kernel, or bound its lengthscale from above"
        )

    def _block(self, tau: Array, end: Array, observed: NDArray[np.bool_], noise: float) -> Block:
        law = self.decaying
        rows, step, cross = self.rows(tau), self.steps(end), self.cross(end[:, None] - tau)
        onward = rows @ law  # (g, k, d)
        inner = self.covariance(np.abs(tau[:, :, None] - tau[:, None, :])) - onward @ rows.mT + noise * np.eye(tau.shape[1])
        outer = cross.mT - step @ onward.mT  # (g, d, k)
        new = law - step @ law @ step.mT
        seen = observed.astype(float)
        missing = np.eye(tau.shape[1]) * (1 - seen)[:, None, :]
        factor = np.linalg.cholesky(inner * seen[:, :, None] * seen[:, None, :] + missing)
        root = np.linalg.inv(factor)
        precision = root.mT @ root - missing
        read, gain = rows.mT @ precision, outer @ precision
        return Block(
            transition=step - gain @ rows,
            covariance=symmetric(new - gain @ outer.mT),
            information=symmetric(read @ rows),
            read=read,
            gain=gain,
            precision=precision,
            logdet=2 * np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1),
            rows=rows,
            step=step,
            cross=cross,
        )

    def filtered(self, t: Array, y: Array) -> State:
        """The state at the last time, given all observations y (n,) at times t (n,); NaN: not observed."""
        from simulacra.families.gp.banded import last_state

        return last_state(self, np.asarray(t, float), np.asarray(y, float))

    def forecasts(self, state: State, windows: Array, last: Array, step: float, horizon: int) -> tuple[Array, Array]:
        """The law of the function at the next `horizon` steps, without noise: mean (b, H), covariance (b, H, H).

        Each row of `windows` (b, P) holds the observations (NaN: none) at P equidistant times up to `last` (b,). They update what
        `state` says of the window's first time. Where that is not after the state's time, the state may have seen the window
        itself: then only its cycles and lines are taken, and what decays starts from its stationary law."""
        windows, last = np.asarray(windows, float), np.asarray(last, float)
        width = windows.shape[1]
        patterns, which = np.unique(np.isfinite(windows), axis=0, return_inverse=True)
        grid = np.asarray(step * np.arange(width)[None])
        blocks, _ = self.condensed(grid, np.array([step * (width - 1)]), patterns)
        ahead = np.asarray(step * np.arange(1, horizon + 1))
        rows, law = self.rows(ahead), self.decaying
        new = self.covariance(np.abs(ahead[:, None] - ahead[None])) - rows @ law @ rows.T
        mean, covariance = np.empty((len(windows), horizon)), np.empty((len(windows), horizon, horizon))
        many = max(1, 2**20 // max(1, self.dimension) ** 2)
        for start in range(0, len(windows), many):
            chunk = slice(start, start + many)
            m, p = self._carried(state, last[chunk] - step * (width - 1) - state.time)
            m, p = _passed(blocks, which[chunk], np.nan_to_num(windows[chunk])[..., None], m[..., None], p)
            mean[chunk] = (rows @ m)[..., 0]
            covariance[chunk] = symmetric(rows @ p @ rows.T + new)
        return mean, covariance

    def carried(self, state: State, time: float) -> State:
        """What `state` says of a later time."""
        mean, covariance = self._carried(state, np.array([time - state.time]))
        return State(mean[0], covariance[0], time)

    def _carried(self, state: State, gap: Array) -> tuple[Array, Array]:
        """`state` after times `gap` (b,): mean (b, d), covariance (b, d, d)."""
        law, steps = self.decaying, self.steps(np.where(gap > 0, gap, 0.0))
        m, p = np.broadcast_to(state.mean, (len(gap), self.dimension)), np.broadcast_to(state.covariance, steps.shape)
        if (back := gap <= 0).any():
            lasting = np.concatenate([np.full(term.size, not term.decays) for term in self.terms])
            steps[back] = np.where(np.outer(lasting, lasting), self._lasting_steps(gap[back]), 0.0)
        return (steps @ m[..., None])[..., 0], symmetric(steps @ p @ steps.mT + law - steps @ law @ steps.mT)

    def _lasting_steps(self, gap: Array) -> Array:
        """Transitions of what never decays, which run backwards too; the others stand still."""
        out = np.zeros((len(gap), self.dimension, self.dimension))
        for term, at in self.slices():
            if not term.decays:
                out[:, at, at] = term.transition(gap)
        return out


def _passed(blocks: Block, which: NDArray[np.intp], y: Array, m: Array, p: Array) -> tuple[Array, Array]:
    """Mean (b, d, r) and covariance (b, d, d) of the state at the end of a stretch, from those at its start, observations y (b, k, r)."""
    information, onward = blocks.information[which], blocks.transition[which]
    kept = np.linalg.inv(np.eye(p.shape[-1]) + p @ information)
    after = kept @ (m + p @ (blocks.read[which] @ y))
    return onward @ after + blocks.gain[which] @ y, symmetric(onward @ kept @ p @ onward.mT + blocks.covariance[which])


@dataclasses.dataclass(frozen=True)
class Columns:
    """What never decays, as a regression: the function is `at(t)` (n, p) times p independent standard normal numbers."""

    terms: tuple[Term, ...]
    origin: float  # where the phases are zero

    def at(self, t: Array, part: str | None = None) -> Array:
        """Columns (n, p); zeros for all terms but `part`, if given."""
        found = [np.zeros((len(t), 0))]
        for term in self.terms:
            columns = term.row(t - self._zero(term))
            columns = columns[:, 1:] if term.linear else columns
            found.append(columns if part in (None, term.label) else np.zeros_like(columns))
        return np.concatenate(found, axis=1)

    def _zero(self, term: Term) -> float:
        return term.kernel.centre if isinstance(term.kernel, Linear) else self.origin

    def slices(self) -> Iterator[tuple[Term, slice]]:
        """Each term and where its columns stand."""
        start = 0
        for term in self.terms:
            size = 1 if term.linear else term.size
            yield term, slice(start, start + size)
            start += size

    def states(self, t: float) -> Array:
        """The states at time t as a matrix (d, p) times the p numbers."""
        found = [term.transition(np.asarray(t - self._zero(term)))[:, 1 if term.linear else 0 :] for term in self.terms]
        return _diagonal(found)


def why_not(kernel: Kernel) -> str:
    """Empty where the kernel is a sum of terms with a finite state; else the first that is not, and why."""
    for _, _, part in _labelled(kernel):
        if isinstance(part, Product):
            factors = sorted(type(factor).__name__ for factor in part.parts)
            if factors != ["Matern", "Periodic"]:
                return f"a product has a finite state only as Periodic times one Matern, and this is {' times '.join(factors)}"
        elif not isinstance(part, Matern | Periodic | Linear | White):
            return f"{part.label!r} has no finite state: use Matern (and Periodic, Linear, White), or the dense solver"
    return ""


def split(kernel: Kernel, origin: float) -> tuple[StateSpace, Columns]:
    """The terms that decay as a process, and the others as columns."""
    whole = StateSpace.of(kernel)
    decaying = StateSpace(tuple(term for term in whole.terms if term.decays), whole.noise)
    return decaying, Columns(tuple(term for term in whole.terms if not term.decays), origin)


def symmetric(matrices: Array) -> Array:
    """Their symmetric part: rounding takes the symmetry of covariances away bit by bit."""
    return 0.5 * (matrices + matrices.mT)


def _diagonal(blocks: list[Array]) -> Array:
    out = np.zeros((sum(len(b) for b in blocks), sum(b.shape[1] for b in blocks)))
    row = column = 0
    for b in blocks:
        out[row : row + len(b), column : column + b.shape[1]] = b
        row, column = row + len(b), column + b.shape[1]
    return out


def _labelled(kernel: Kernel) -> list[tuple[str, str, Kernel]]:
    """Terms of a sum: label, prefix of the parameters' names, kernel."""
    if isinstance(kernel, Sum):
        return [(label, f"{label}.", part) for label, part in kernel.named().items()]
    return [(kernel.label, "", kernel)]


def _factor(kernel: Kernel, kind: type[K]) -> K:
    return next(part for part in (kernel.parts if isinstance(kernel, Product) else (kernel,)) if isinstance(part, kind))


def _term(label: str, prefix: str, kernel: Kernel, noise: float) -> Term:
    if isinstance(kernel, Linear):
        return Term(label, prefix, kernel, 0.5, 0.0, 0.0, np.array([kernel.variance]))
    if isinstance(kernel, Periodic):
        weights = kernel.variance * _harmonics(kernel, STATIC, noise / kernel.variance)
        return Term(label, prefix, kernel, 0.5, 0.0, 2 * math.pi / kernel.period, weights)
    trend = _factor(kernel, Matern)
    rate = math.sqrt(2 * trend.order) / trend.lengthscale
    if trend is kernel:
        return Term(label, prefix, kernel, trend.order, rate, 0.0, np.array([trend.variance]))
    cycle = _factor(kernel, Periodic)
    variance = trend.variance * cycle.variance
    weights = variance * _harmonics(cycle, DRIFTING, noise / variance)
    return Term(label, prefix, kernel, trend.order, rate, 2 * math.pi / cycle.period, weights)


def _harmonics(cycle: Periodic, most: int, noise: float) -> Array:
    """Variances (1 + J,) of the harmonics of a cycle of variance 1 beside observations with noise of variance `noise`."""
    z = cycle.lengthscale**-2.0
    weights = 2 * ive(np.arange(2 * most), z)
    weights[0] /= 2
    if 1 - weights[: most + 1].sum() > TAIL:
        raise Refused(
            f"lengthscale {cycle.lengthscale:.3g} of 'periodic' needs more than {most} harmonics for an error below {TAIL:g}: "
            "bound it from below, or use the dense solver"
        )
    left = weights[::-1].cumsum()[::-1] - weights  # beyond each harmonic
    enough = np.flatnonzero(left <= max(min(TAIL, TAIL_OF_NOISE * noise), 1e-16))
    return np.asarray(weights[: min(int(enough[0]), most) + 1])
