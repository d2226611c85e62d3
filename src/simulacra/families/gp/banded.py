"""Likelihood, gradient and posterior of Matern, periodic, drifting and linear terms in a time that grows as n: exact, gaps are free.

The decaying terms are a Markov process (`statespace`): given the state at a boundary, what lies on its two sides is independent. So
the times are cut into stretches of k; each is condensed to how it moves the state from its start to its end and what its
observations say of the start; neighbours are joined pairwise, log2(n/k) levels up, and the law of every boundary given all before
it and all after it comes down again (the associative form of filter and smoother: Saerkkae & Garcia-Fernandez 2021, "Temporal
parallelization of Bayesian smoothers"; it is block cyclic reduction of a block-tridiagonal matrix). On equidistant times all
stretches with the same gaps share their matrices. Terms that never decay are p columns of a regression on standard normal numbers,
joined by the matrix inversion lemma (Rasmussen & Williams 2006, eq. A.9).

Everything here is in covariances, never in inverses of what is new in a step: those grow as (lengthscale / step)^(2 order) and take
digits of a band Cholesky factorisation of the states' precision with them (Matern 5/2 at 1,000 steps, n = 300: 7e-5 of the
likelihood; here 3e-15).

The gradient is analytic in every parameter. With a = K^-1 y it is half the trace of (a a' - K^-1) dK; per stretch only the block of
a a' - K^-1 that belongs to it and to its end is needed, and derivatives of covariances are contracted with that (eq. 5.9).

Cost: n (k + d)(1 + p) for the columns, n d^2 for the states, n k^2 where stretches differ; k, about max(16, d), is their length. A
cycle that drifts has d = (2 order + 1)/2 (2J + 1) states: some 35 for a Matern 3/2 at lengthscale 1.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from simulacra.families.gp.kernels import Kernel, White, part_of
from simulacra.families.gp.statespace import Block, State, StateSpace, split, symmetric, why_not
from simulacra.study import Refused

Array = NDArray[np.float64]
CHUNK = 128  # times, as columns of right-hand sides, that a posterior covariance treats at once


def applies(kernel: Kernel) -> str:
    """Empty where this solver can take the kernel at its present parameters; else why not."""
    if reason := why_not(kernel):
        return reason
    try:
        StateSpace.of(kernel)
    except Refused as refusal:
        return str(refusal)
    return ""


@dataclasses.dataclass(frozen=True)
class Layout:
    """n times cut into b stretches of k. Equidistant ones (with gaps) have one geometry for all; others one each."""

    tau: Array  # (g, k): times after the stretch's start, g = 1 or b; all positive, so that no state is observed twice
    end: Array  # (g,): the end, which is the next stretch's start, after its own
    start: Array  # (b,)
    observed: NDArray[np.bool_]  # (u, k): kinds of gaps; u = b where g = b
    which: NDArray[np.intp]  # (b,): the kind of each stretch
    place: NDArray[np.intp]  # (n,): where each time stands in the b x k places
    k: int

    @property
    def alike(self) -> bool:
        """Whether all stretches have the same times after their start."""
        return len(self.tau) == 1

    def spread(self, values: Array) -> Array:
        """Rows (n, r) put where they stand in time: (b, k, r), zeros where nothing was observed."""
        out = np.zeros((len(self.start) * self.k, values.shape[1]))
        out[self.place] = values
        return out.reshape(len(self.start), self.k, -1)

    def gathered(self, values: Array) -> Array:
        """The reverse: (b, k, ...) to (n, ...)."""
        return np.asarray(values.reshape(-1, *values.shape[2:])[self.place])

    @classmethod
    def of(cls, t: Array, d: int, *, grid: bool = True) -> Layout:
        """Times t (n,), increasing, for a state of d numbers. With `grid`, equidistant times with gaps are recognised.

        Stretches are so long that joining them costs no more than condensing them, which is cheaper where many are alike."""
        places = _grid(t) if grid else None
        if places is None:
            return cls._irregular(t, max(16, d))
        k = min(max(24, 2 * d), int(places[-1]) + 1)
        b = -(-(int(places[-1]) + 1) // k)
        step = (t[-1] - t[0]) / places[-1] if len(t) > 1 else 1.0
        seen = np.zeros(b * k, bool)
        seen[places] = True
        packed = np.packbits(seen.reshape(b, k), axis=1)
        _, first, which = np.unique(packed, axis=0, return_index=True, return_inverse=True)
        return cls(
            tau=np.asarray(step * np.arange(1, k + 1)[None]),
            end=np.array([step * k]),
            start=t[0] + step * (k * np.arange(b) - 1),
            observed=seen.reshape(b, k)[first],
            which=which,
            place=places,
            k=k,
        )

    @classmethod
    def _irregular(cls, t: Array, size: int) -> Layout:
        k = min(size, len(t))
        b = -(-len(t) // k)
        padded = np.concatenate([t, np.full(b * k - len(t), t[-1])]).reshape(b, k)
        before = (t[-1] - t[0]) / (len(t) - 1) if len(t) > 1 else 1.0
        start = np.concatenate([t[:1] - before, padded[:-1, -1]])
        return cls(
            tau=padded - start[:, None],
            end=padded[:, -1] - start,
            start=start,
            observed=(np.arange(b * k) < len(t)).reshape(b, k),
            which=np.arange(b),
            place=np.arange(len(t)),
            k=k,
        )


def _grid(t: Array) -> NDArray[np.intp] | None:
    """Places of the times on an equidistant grid, to a hundred-millionth of its step; None where there is none or it is mostly empty."""
    if len(t) < 2:
        return np.zeros(len(t), np.intp)
    rough = float(np.diff(t).min())
    if (t[-1] - t[0]) / rough > 4 * len(t):
        return None
    gaps = np.rint(np.diff(t) / rough)
    places = np.concatenate([[0], np.cumsum(gaps)]).astype(np.intp)
    step = (t[-1] - t[0]) / places[-1]
    return places if np.abs(t - t[0] - step * places).max() < 1e-8 * step else None


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The equations of the decaying terms solved for r right-hand sides Y, given all observations.

    Per stretch (b of them), start s and end e: what lies before gives s mean and covariance `before`, what lies after gives e the
    information `after` (already joined with what is known of e from before). `pull` is the multiplier of e: the derivative of the
    log density with respect to a shift of it."""

    solved: Array  # (b, k, r): K^-1 Y
    start: Array  # (b, d, r): mean of s given everything
    end: Array  # (b, d, r): mean of e given all up to it
    pull: Array  # (b, d, r)
    before: Array  # (b, d, d)
    kept: Array  # (b, d, d): (1 + before information)^-1
    halfway: Array  # (b, d, d): covariance of s given its past and its stretch
    until: Array  # (b, d, d): covariance of e given all up to it
    after: Array  # (b, d, d)
    logdet: float  # of K


def sweep(blocks: Block, which: NDArray[np.intp], law: Array, y: Array) -> Sweep:
    """Solve for right-hand sides y (b, k, r); `law` (d, d) is the covariance of the first state."""
    a, c, j = blocks.transition[which], blocks.covariance[which], blocks.information[which]
    read = _each(blocks.read, which) @ y
    gained = _each(blocks.gain, which) @ y
    m, p, eta, info = _both_ways(a, c, j, gained, read, law)
    one = np.eye(len(law))
    kept = np.asarray(np.linalg.inv(one + p @ j), float)
    halfway = symmetric(kept @ p)
    until = symmetric(a @ halfway @ a.mT + c)
    end = a @ (kept @ (m + p @ read)) + gained
    known = np.linalg.inv(one + info @ until)
    pull = known @ (eta - info @ end)
    start = np.asarray(m + halfway @ (read - j @ m + a.mT @ pull))
    solved = _each(blocks.precision, which) @ y - _each(blocks.read, which).mT @ start - _each(blocks.gain, which).mT @ pull
    logdet = blocks.logdet[which].sum() - np.linalg.slogdet(kept)[1].sum()
    return Sweep(np.asarray(solved), start, end, pull, p, kept, halfway, until, symmetric(known @ info), float(logdet))


def _both_ways(a: Array, c: Array, j: Array, b: Array, eta: Array, law: Array) -> tuple[Array, Array, Array, Array]:
    """For each of the stretches in a row: mean and covariance of the state at its start given all before, and information (vector and
    matrix) on the state at its end from all after. A stretch moves a state x to a x + b + noise of covariance c and says
    exp(eta' x - x' j x / 2) of it."""
    one = np.eye(len(law))
    levels = [(a, c, j, b, eta)]
    while len(levels[-1][0]) > 1:
        pairs = len(levels[-1][0]) // 2
        (a1, c1, j1, b1, e1), (a2, c2, j2, b2, e2) = (tuple(x[i : 2 * pairs : 2] for x in levels[-1]) for i in (0, 1))
        through = np.linalg.inv(one + c1 @ j2)
        onward, backward = a2 @ through, (through @ a1).mT
        joined = (
            onward @ a1,
            symmetric(onward @ c1 @ a2.mT + c2),
            symmetric(backward @ j2 @ a1 + j1),
            onward @ (b1 + c1 @ e2) + b2,
            backward @ (e2 - j2 @ b1) + e1,
        )
        levels.append(tuple(np.concatenate([x, y[2 * pairs :]]) for x, y in zip(joined, levels[-1], strict=True)))  # type: ignore[arg-type]
    m, p = np.zeros((1, *b.shape[1:])), law[None]
    after, info = np.zeros_like(m), np.zeros_like(p)
    for a, c, j, b, eta in reversed(levels[:-1]):
        pairs = len(a) // 2
        first, second, lone = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2), slice(2 * pairs, None)
        up, pp, ua, ui = (np.empty((len(a), *x.shape[1:])) for x in (m, p, after, info))
        for new, old in ((up, m), (pp, p), (ua, after), (ui, info)):
            new[lone] = old[pairs:]
        m, p, after, info = m[:pairs], p[:pairs], after[:pairs], info[:pairs]
        up[first], pp[first], ua[second], ui[second] = m, p, after, info
        onward = a[first] @ np.linalg.inv(one + p @ j[first])
        up[second] = onward @ (m + p @ eta[first]) + b[first]
        pp[second] = symmetric(onward @ p @ a[first].mT + c[first])
        backward = (np.linalg.inv(one + c[second] @ info) @ a[second]).mT
        ua[first] = backward @ (after - info @ b[second]) + eta[second]
        ui[first] = symmetric(backward @ info @ a[second] + j[second])
        m, p, after, info = up, pp, ua, ui
    return m, p, after, info


class Banded:
    """A sum of Matern, Periodic, Periodic x Matern, Linear and White terms conditioned on observations (see `solver.Solver`).

    `jitter`: what had to be added to the noise for a positive-definite matrix, in units of the variance; usually 0. Where the noise is
    below 1e-7 of the variance, likelihood and gradient may differ from the dense solver's by more than 1e-6."""

    name = "banded"

    def __init__(self, kernel: Kernel, t: Array, y: Array, *, grid: bool = True) -> None:
        self.kernel, self.t, self.y = kernel, np.asarray(t, float), np.asarray(y, float)
        self._space, self._columns = split(kernel, origin=float(0.5 * (self.t[0] + self.t[-1])))
        self._law = self._space.decaying
        self._layout = Layout.of(self.t, self._space.dimension, grid=grid)
        self._blocks, self.jitter = self._space.condensed(self._layout.tau, self._layout.end, self._layout.observed)
        self._phi = self._columns.at(self.t)
        sides = np.column_stack([self.y, self._phi])
        self._sweep = self._solve(sides)
        self._solved = self._layout.gathered(self._sweep.solved)
        gram = sides.T @ self._solved
        if not np.isfinite(gram).all():
            raise Refused("the likelihood is not finite; give observations and parameters in units in which they are of order 1")
        p = self._phi.shape[1]
        self._inner = cho_factor(np.eye(p) + symmetric(gram[1:, 1:])) if p else None
        self._constants = self._inner_solve(gram[1:, 0])  # posterior mean of the p standard normal numbers
        self._quadratic = float(gram[0, 0] - gram[0, 1:] @ self._constants)

    def _solve(self, sides: Array) -> Sweep:
        return sweep(self._blocks, self._layout.which, self._law, self._layout.spread(sides))

    def _inner_solve(self, right: Array) -> Array:
        """(1 + Phi' K^-1 Phi)^-1 times `right`: the posterior covariance of the p numbers."""
        return np.asarray(cho_solve(self._inner, right)) if self._inner is not None else right

    @property
    def _mixing(self) -> Array:
        """(1 + p, 1 + p): with K^-1 [y, Phi] on both sides it is a a' - K^-1, but for the part without columns."""
        ahead = np.concatenate([[1.0], -self._constants])
        out = np.outer(ahead, ahead)
        out[1:, 1:] += self._inner_solve(np.eye(len(self._constants)))
        return out

    def log_likelihood(self) -> float:
        """log p(y | t, kernel), all constants included (eq. 2.30)."""
        columns = 2 * float(np.log(np.diag(self._inner[0])).sum()) if self._inner is not None else 0.0
        return -0.5 * (self._quadratic + self._sweep.logdet + columns + len(self.t) * math.log(2 * math.pi))

    def gradient(self) -> Array:
        """Its derivatives with respect to the logarithms of the free parameters, all analytic."""
        found = {**self._chain_gradient(), **self._column_gradient()}
        return np.array([found[name] for name in self.kernel.free()])

    def _chain_gradient(self) -> dict[str, float]:
        """Derivatives by the parameters of the decaying terms and of the noise.

        Given the state s at its start, observations and end of a stretch are F s plus noise of covariance Psi, with Psi = C - F S F'
        for the stationary covariances C and S. `inner`, `outer`, `far` are the parts of the gradient with respect to Psi (of
        observations with themselves, of the end with observations, of the end with itself); `by_rows`, `by_step` those with
        respect to F. What C and F owe to a parameter is contracted with them."""
        inner, outer, far, by_rows, by_step = self._adjoints()
        bl, lay, law = self._blocks, self._layout, self._law
        by_rows = by_rows - inner @ bl.rows @ law - outer.mT @ bl.step @ law
        by_step = by_step - outer @ bl.rows @ law - far @ bl.step @ law
        lags = np.abs(lay.tau[:, :, None] - lay.tau[:, None, :])
        out = {
            name: 0.5 * slope * float(np.trace(inner, axis1=1, axis2=2).sum()) for name, slope in self.kernel.noise_derivatives().items()
        }
        pace = np.einsum("gk,gkd,gke->de", lay.tau, bl.rows, by_rows)  # by L where rows change by tau rows L
        pace += np.einsum("gk,gdk,gke->de", lay.end[:, None] - lay.tau, outer, bl.cross)  # cross by (end - tau) L cross
        pace += np.einsum("g,gdc,gec->de", lay.end, by_step, bl.step)
        weight = np.einsum("gkd,gkd->d", bl.rows, by_rows) + np.einsum("gkd,gdk->d", bl.cross, outer)
        for term, at in self._space.slices():
            for name, slope in term.kernel.derivatives(lags.ravel(), np.zeros(1)):
                out[term.prefix + name] = 0.5 * float(slope[:, 0] @ inner.ravel())
            for name, by_harmonic in term.scales():
                out[name] += 0.5 * float(term.each(by_harmonic) @ weight[at])
            for name, matrix in term.rates():
                out[name] += float((matrix * pace[at, at]).sum())
        return out

    def _adjoints(self) -> tuple[Array, Array, Array, Array, Array]:
        """Gradients of the log-likelihood, (g, k, k), (g, d, k), (g, d, d), (g, k, d), (g, d, d); see `_chain_gradient`."""
        bl, lay, sw = self._blocks, self._layout, self._sweep
        forward = bl.transition[lay.which] @ sw.halfway  # covariance of e with s, given the past and the stretch
        seen = sw.after @ forward
        here = forward.mT @ seen - sw.halfway
        # with the stretch's [read, gain], these 2d x 2d, d x 2d and 2d x d matrices give the block of K^-1 that belongs to it
        small = np.concatenate([here, seen.mT], axis=2), np.concatenate([seen, sw.after], axis=2), np.concatenate([here, seen], axis=1)
        kinds, count = len(bl.logdet), np.bincount(lay.which)
        if lay.alike:  # stretches of one kind share their matrices: add up what multiplies them
            small = _added(small[0], lay.which, kinds), _added(small[1], lay.which, kinds), _added(small[2], lay.which, kinds)
        both = np.concatenate([bl.read, bl.gain], axis=1)
        inner = -count[:, None, None] * bl.precision - both.mT @ np.concatenate(small[:2], axis=1) @ both
        outer, by_rows = small[1] @ both, both.mT @ small[2]
        solved, pull, start = sw.solved @ self._mixing, sw.pull @ self._mixing, sw.start
        far, by_step = pull @ sw.pull.mT - sw.after, pull @ start.mT - seen
        if not lay.alike:
            return inner + solved @ sw.solved.mT, outer + pull @ sw.solved.mT, far, by_rows + solved @ start.mT, by_step
        return (
            inner.sum(axis=0, keepdims=True) + _outer(solved, sw.solved),
            outer.sum(axis=0, keepdims=True) + _outer(pull, sw.solved),
            far.sum(axis=0, keepdims=True),
            by_rows.sum(axis=0, keepdims=True) + _outer(solved, start),
            by_step.sum(axis=0, keepdims=True),
        )

    def _column_gradient(self) -> dict[str, float]:
        """Derivatives by the parameters of the columns: half the trace of (a a' - K^-1) (dPhi Phi' + Phi dPhi')."""
        out: dict[str, float] = {}
        inverse = self._inner_solve(np.eye(self._phi.shape[1]))
        size = 0.5 * (self._constants**2 - 1 + np.diag(inverse))  # half the derivative by the logarithm of each column's variance
        a = self._solved[:, 0] - self._solved[:, 1:] @ self._constants
        for term, at in self._columns.slices():
            for name, by_harmonic in term.scales():
                out[name] = float(term.each(by_harmonic) @ size[at])
            for name, matrix in term.rates():
                turned = (self.t - self._columns.origin)[:, None] * (self._phi[:, at] @ matrix)
                whole = self._solved[:, 1:] @ inverse[:, at]
                out[name] = float((a @ turned) @ self._constants[at] - (turned * whole).sum())
        return out

    def mean(self, times: Array, part: str | None = None) -> Array:
        """Posterior mean (m,) of the function or of one term."""
        times = np.asarray(times, float)
        local = self._local_means(times, part, self._sweep)
        return np.asarray(local[:, 0] + (self._columns.at(times, part) - local[:, 1:]) @ self._constants)

    def variance(self, times: Array, part: str | None = None) -> Array:
        """Posterior variance (m,) of the same, at a cost that grows as m."""
        times = np.asarray(times, float)
        off = self._columns.at(times, part) - self._local_means(times, part, self._sweep)[:, 1:]
        columns = np.einsum("mp,pm->m", off, self._inner_solve(off.T))
        return np.asarray(np.maximum(self._local_variances(times, part) + columns, 0.0))

    def covariance(self, times: Array, part: str | None = None) -> Array:
        """Posterior covariance (m, m) of the same: m right-hand sides."""
        times, kernel = np.asarray(times, float), part_of(self.kernel, part)
        out = kernel.covariance(times, times)
        phi = self._columns.at(times, part)
        for first in range(0, len(times), CHUNK):
            chunk = slice(first, first + CHUNK)
            solved = self._solve(kernel.covariance(self.t, times[chunk]))
            constants = self._inner_solve(self._phi.T @ self._layout.gathered(solved.solved))
            own = self._local_means(times, part, self._sweep)[:, 1:]
            out[:, chunk] -= self._local_means(times, part, solved) + (phi - own) @ constants
        return symmetric(out)

    def leave_one_out(self) -> tuple[Array, Array]:
        """Mean and variance (n,) of each observation given all others (eq. 5.12)."""
        bl, lay, sw = self._blocks, self._layout, self._sweep
        forward = bl.transition[lay.which] @ sw.halfway
        read, gain = _each(bl.read, lay.which), _each(bl.gain, lay.which)
        later = gain + forward @ read
        diagonal = np.diagonal(bl.precision, axis1=1, axis2=2)[lay.which] - (read * (sw.halfway @ read)).sum(axis=1)
        diagonal = lay.gathered(diagonal + (later * (sw.after @ later)).sum(axis=1))
        columns = self._solved[:, 1:]
        diagonal = diagonal - np.einsum("np,pn->n", columns, self._inner_solve(columns.T))
        return self.y - (self._solved[:, 0] - columns @ self._constants) / diagonal, 1 / diagonal

    def _chosen(self, part: str | None) -> tuple[StateSpace, Array]:
        """The decaying terms that are asked for, and where their states stand (d,)."""
        part_of(self.kernel, part)  # refuses what there is not
        terms = tuple(term for term in self._space.terms if part in (None, term.label))
        on = [np.full(term.size, part in (None, term.label)) for term in self._space.terms]
        return StateSpace(terms, 0.0), np.concatenate([np.zeros(0), *on])

    def _local_means(self, times: Array, part: str | None, solved: Sweep) -> Array:
        """Mean (m, r) of the decaying terms at any times, were the right-hand sides observations of them."""
        out = np.empty((len(times), solved.solved.shape[2]))
        chosen, on = self._chosen(part)
        early, late, b, u = self._located(times)
        lead = on * self._space.cross(self._layout.start[0] - times[early])
        out[early] = lead @ (self._blocks.rows[:1].mT @ solved.solved[:1] + self._blocks.step[:1].mT @ solved.pull[:1])[0]
        out[late] = on * self._space.rows(u[late]) @ solved.end[-1]
        within = np.flatnonzero(~early & ~late)
        for i in np.array_split(within, max(1, len(within) * self._layout.k // 2**15)):
            row, own, end = self._beside(chosen, on, b[i], u[i])
            out[i] = ((row[:, None] @ solved.start[b[i]]) + own[:, None] @ solved.solved[b[i]] + end[:, None] @ solved.pull[b[i]])[:, 0]
        return out

    def _local_variances(self, times: Array, part: str | None) -> Array:
        """Variance (m,) of the decaying terms given the observations and the constants of the columns."""
        chosen, on = self._chosen(part)
        early, late, b, u = self._located(times)
        bl, lay, sw, law = self._blocks, self._layout, self._sweep, self._law
        out = np.full(len(times), float(chosen.covariance(np.zeros(1))[0]))
        info = self._first_information()
        lead = on * self._space.cross(self._layout.start[0] - times[early])
        out[early] -= ((lead @ info) * lead).sum(axis=1)
        row = on * self._space.rows(u[late])
        out[late] += ((row @ (sw.until[-1] - law)) * row).sum(axis=1)
        within = np.flatnonzero(~early & ~late)
        for i in np.array_split(within, max(1, len(within) * lay.k**2 // 2**19)):
            at, kind = b[i], lay.which[b[i]]
            row, own, end = self._beside(chosen, on, at, u[i])
            past = row[:, None] @ sw.before[at]
            own = own[:, None] + past @ _each(bl.rows, at).mT
            end = end[:, None] + past @ _each(bl.step, at).mT
            read = own @ _each(bl.read, kind).mT
            ahead = end - own @ _each(bl.gain, kind).mT - read @ sw.halfway[at] @ bl.transition[kind].mT
            known = ((own @ _each(bl.precision, kind)) * own).sum(axis=(1, 2)) - ((read @ sw.halfway[at]) * read).sum(axis=(1, 2))
            known += ((ahead @ sw.after[at]) * ahead).sum(axis=(1, 2))
            out[i] += (((past - row[:, None] @ law) * row[:, None]).sum(axis=(1, 2))) - known
        return out

    def _first_information(self) -> Array:
        """(d, d): by how much all observations narrow the state at the first time, S^-1 (S - covariance given all) S^-1."""
        bl, sw, kind = self._blocks, self._sweep, self._layout.which[0]
        onward = bl.transition[kind] @ sw.kept[0]
        return np.asarray(symmetric(bl.information[kind] @ sw.kept[0] + onward.T @ sw.after[0] @ onward))

    def _located(self, times: Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.intp], Array]:
        """Which times lie before all stretches, which after; the stretch of each, and the time after its start (or, after all, end)."""
        lay = self._layout
        b = np.clip(np.searchsorted(lay.start, times, side="left") - 1, 0, len(lay.start) - 1)
        early, u = times <= lay.start[0], times - lay.start[b]
        finish = lay.start[-1] + lay.end[-1]
        late = times > finish
        return early, late, b, np.where(late, times - finish, u)

    def _beside(self, chosen: StateSpace, on: Array, b: NDArray[np.intp], u: Array) -> tuple[Array, Array, Array]:
        """For times u (m,) after the start of their stretches b (m,): regression (m, d) of the function on s, and its covariance, given
        s, with the stretch's observations (m, k) and with its end (m, d)."""
        bl, lay = self._blocks, self._layout
        tau, end = _each(lay.tau, b), _each(lay.end, b)
        row = on * self._space.rows(u)
        past = (row @ self._law)[:, None]
        own = chosen.covariance(np.abs(u[:, None] - tau)) - (past @ _each(bl.rows, b).mT)[:, 0]
        later = on * self._space.cross(end - u) - (past @ _each(bl.step, b).mT)[:, 0]
        return row, own, later

    def last_state(self) -> State:
        """Decaying states, then those that never decay, at the end of the last stretch."""
        constants = self._inner_solve(np.eye(self._phi.shape[1]))
        time = float(self._layout.start[-1] + self._layout.end[-1])
        lift = np.concatenate([-self._sweep.end[-1][:, 1:], self._columns.states(time)])  # of the constants
        d = len(self._law)
        mean = lift @ self._constants
        mean[:d] += self._sweep.end[-1][:, 0]
        covariance = lift @ constants @ lift.T
        covariance[:d, :d] += self._sweep.until[-1]
        return State(mean, symmetric(covariance), time)


def last_state(space: StateSpace, t: Array, y: Array) -> State:
    """The state of `space` at the last of times t (n,), given observations y (n,), NaN where there is none."""
    seen = np.isfinite(y)
    parts = [term.kernel for term in space.terms] + ([White(space.noise)] if space.noise else [])
    if not seen.any():
        raise Refused("a state needs at least one observation")
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    found = Banded(total, t[seen], y[seen], grid=False).last_state()
    order = _order(space)
    state = State(found.mean[order], found.covariance[np.ix_(order, order)], found.time)
    return space.carried(state, float(t[-1])) if t[-1] > state.time else state


def _order(space: StateSpace) -> NDArray[np.intp]:
    """Where the states of `space` stand when the decaying ones come first."""
    decays = np.concatenate([np.full(term.size, term.decays) for term in space.terms])
    return np.argsort(np.argsort(~decays, kind="stable"), kind="stable")


def _each(array: Array, which: NDArray[np.intp]) -> Array:
    """One entry per stretch; where there is only one for all, that one."""
    return array if len(array) == 1 else array[which]


def _added(array: Array, which: NDArray[np.intp], kinds: int) -> Array:
    out = np.zeros((kinds, *array.shape[1:]))
    np.add.at(out, which, array)
    return out


def _outer(x: Array, y: Array) -> Array:
    """Sum over stretches and right-hand sides of x (b, i, r) times y (b, j, r): (1, i, j)."""
    return np.tensordot(x, y, axes=((0, 2), (0, 2)))[None]
