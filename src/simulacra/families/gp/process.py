"""A Gaussian process: prior draws, conditioning on observations, and learning the kernel's parameters from them.

Which solver does the work is decided here, by kernel, times and number of observations, and named with the reason in what is
returned. The caller chooses units: starting values of parameters are those of the kernel, in the units of times and observations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.optimize import minimize

from simulacra.families.gp import banded, toeplitz
from simulacra.families.gp.dense import Dense
from simulacra.families.gp.kernels import Kernel, Linear, Periodic, functions, leaves, part_of
from simulacra.families.gp.solver import Solver
from simulacra.study import Refused

Array = NDArray[np.float64]

SOLVERS = ("auto", "dense", "toeplitz", "banded")
FEW = 200  # up to so many observations the dense solver is as fast as any
MANY = 3000  # up to so many it takes the place of one that fails


def zero(times: Array) -> Array:
    """The mean function that is 0 everywhere."""
    return np.zeros(len(times))


@dataclasses.dataclass(frozen=True)
class GaussianProcess:
    """A law of functions of time: covariance `kernel` and mean function `mean`, any callable of times (n,)."""

    kernel: Kernel
    mean: Callable[[Array], Array] = zero

    def draw(self, t: Array, n: int, rng: np.random.Generator, *, noise: bool = False) -> Array:
        """n functions of the prior at times t (m,), shape (n, m); with `noise`, n sets of observations."""
        t = _times(t, "times to draw at")
        covariance = self.kernel.covariance(t, t) + np.diag(np.full(len(t), self.kernel.noise() if noise else 0.0))
        return draw_normal(mean_at(self, t), covariance, n, rng)

    def condition(self, t: Array, y: Array, *, solver: str = "auto") -> Posterior:
        """The law of the function given observations y (n,) at increasing times t (n,). NaN in y is missing and left out.

        Raises Refused where times or observations cannot be used, or where a solver that was asked for by name does not apply.
        """
        t, y = observations(t, y)
        seen = np.isfinite(y)
        name, why = choose(self.kernel, t[seen], solver)
        solved, why = solve(name, why, self.kernel, t[seen], y[seen] - mean_at(self, t[seen]))
        return Posterior(self, t, y, solved, why)


@dataclasses.dataclass(frozen=True, eq=False)
class Posterior:
    """The law of the function given observations, and of any term of the kernel's sum (`part`, its label; without gp.mean).

    Times asked for are any finite numbers, in any order. Variances and covariances are those of the function, or, with `noise`, of
    observations: one number per observation is added to the diagonal.
    """

    gp: GaussianProcess
    t: Array
    y: Array  # NaN where missing
    solved: Solver
    why: str  # one sentence: why this solver

    @property
    def solver(self) -> str:
        """Its name: dense, toeplitz or banded."""
        return self.solved.name

    @cached_property
    def log_likelihood(self) -> float:
        """log p(y | t) of the observations that are not missing, in nats (Rasmussen & Williams 2006, eq. 2.30)."""
        return self.solved.log_likelihood()

    def gradient(self) -> Array:
        """Derivatives of the log-likelihood with respect to the logarithms of the kernel's free parameters (eq. 5.9)."""
        return self.solved.gradient()

    def parts(self) -> list[str]:
        """Labels of the terms of the kernel that `part` takes."""
        return list(functions(self.gp.kernel))

    def mean(self, times: Array, part: str | None = None) -> Array:
        """Mean (m,) at times (m,)."""
        part_of(self.gp.kernel, part)
        times, back = self._sorted(times)
        found = self.solved.mean(times, part)
        return (found + mean_at(self.gp, times) if part is None else found)[back]

    def variance(self, times: Array, *, noise: bool = False, part: str | None = None) -> Array:
        """Variance (m,) at times (m,)."""
        part_of(self.gp.kernel, part)
        times, back = self._sorted(times)
        return self.solved.variance(times, part)[back] + self._noise(noise, part)

    def covariance(self, times: Array, *, noise: bool = False, part: str | None = None) -> Array:
        """Covariance (m, m) of the values at times (m,)."""
        part_of(self.gp.kernel, part)
        times, back = self._sorted(times)
        found = self.solved.covariance(times, part)[np.ix_(back, back)]
        found[np.diag_indices_from(found)] += self._noise(noise, part)
        return found

    def draw(self, times: Array, n: int, rng: np.random.Generator, *, noise: bool = False) -> Array:
        """n functions of the posterior at times (m,), shape (n, m); with `noise`, n sets of observations."""
        return draw_normal(self.mean(times), self.covariance(times, noise=noise), n, rng)

    def leave_one_out(self) -> tuple[Array, Array]:
        """Mean and variance (n,) of the observation at each of the times `t`, given all others (eq. 5.12); where one is missing,
        given all there are."""
        seen = np.isfinite(self.y)
        mean, variance = np.empty(len(self.t)), np.empty(len(self.t))
        residual, variance[seen] = self.solved.leave_one_out()
        mean[seen] = residual + mean_at(self.gp, self.t[seen])
        if not seen.all():
            mean[~seen], variance[~seen] = self.mean(self.t[~seen]), self.variance(self.t[~seen], noise=True)
        return mean, variance

    def _sorted(self, times: Array) -> tuple[Array, NDArray[np.intp]]:
        """Times once each in increasing order, and where each of those asked for stands."""
        return np.unique(_times(times, "times asked for"), return_inverse=True)

    def _noise(self, noise: bool, part: str | None) -> float:
        if noise and part is not None:
            raise Refused("noise belongs to whole observations, not to a part; leave out noise=True or the part")
        return self.gp.kernel.noise() if noise else 0.0


@dataclasses.dataclass(frozen=True)
class Fit:
    """What `fit` found, and how."""

    gp: GaussianProcess  # with the best parameters
    log_likelihood: float  # in nats
    solver: str
    why: str  # why this solver
    evaluations: int  # of likelihood and gradient, over all starts
    converged: bool  # the best start ended where the gradient vanishes, or nearly, within the bounds
    starts: list[float]  # the log-likelihood that each start ended with; -inf where it failed
    best: int  # which of them won
    at_bound: list[str]  # parameters that ended on a bound: their values say little


def fit(
    gp: GaussianProcess,
    t: Array,
    y: Array,
    *,
    restarts: int = 1,
    seed: int = 0,
    solver: str = "auto",
    bounds: Mapping[str, tuple[float, float]] | None = None,
    evaluations: int = 300,
) -> Fit:
    """Free parameters of the kernel that maximise the likelihood of observations y (n,) at times t (n,); NaN is missing.

    L-BFGS-B over the logarithms of the parameters (Byrd et al. 1995). The first start is the kernel as given: choose it in the units of
    times and observations. Each of `restarts` - 1 further ones draws lengthscales between the smallest spacing and the span, and
    periods within their bounds, uniformly on the log scale, and moves other logarithms by a standard normal number; a `seed` gives the
    same ones again. `bounds` replace those of `suggested_bounds` by name; `evaluations` is the most that one start may use. Raises
    Refused where the input cannot be used or the first start cannot be evaluated.
    """
    t, y = observations(t, y)
    seen = np.isfinite(y)
    t, residual = t[seen], (y - mean_at(gp, t))[seen]
    if len(t) < 3 or np.ptp(residual) == 0:
        raise Refused(f"{len(t)} observations{', all equal,' if len(t) > 2 else ''} tell nothing about a kernel; give more, or fix it")
    names = gp.kernel.free()
    limits = np.log(np.array(list(_limits(gp.kernel, t, residual, bounds or {}).values())).reshape(-1, 2))
    search = _Search(gp.kernel, t, residual, solver)
    starts = _starts(gp.kernel, t, limits, restarts, np.random.default_rng(seed))
    found = [search.climb(start, limits, evaluations) for start in starts]
    best = int(np.argmax([likelihood for _, likelihood, _ in found]))
    theta, likelihood, converged = found[best]
    kernel = gp.kernel.at(theta)
    final, why = solve(*choose(kernel, t, solver), kernel, t, residual)
    on_bound = [name for name, value, (low, high) in zip(names, theta, limits, strict=True) if min(value - low, high - value) < 1e-6]
    return Fit(
        dataclasses.replace(gp, kernel=kernel), likelihood, final.name, why, search.evaluations, converged, [f[1] for f in found], best,
        on_bound,
    )  # fmt: skip


class _Search:
    """Likelihoods of one set of observations under kernels that differ in their parameters."""

    def __init__(self, kernel: Kernel, t: Array, y: Array, solver: str) -> None:
        self.kernel, self.t, self.y, self.evaluations = kernel, t, y, 0
        self.name, self.why = choose(kernel, t, solver)
        self._worst: float | None = None  # loss of the present climb

    def climb(self, start: Array, limits: Array, evaluations: int) -> tuple[Array, float, bool]:
        """Where L-BFGS-B ends from `start`: log-parameters, log-likelihood, and whether it converged."""
        self._worst = None
        options = {"maxfun": evaluations, "maxiter": evaluations, "ftol": 1e-11, "gtol": 1e-6}
        try:
            if not len(start):
                return start, -self._loss(start)[0] * len(self.y), True
            done = minimize(self._guarded, start, jac=True, method="L-BFGS-B", bounds=limits, options=options)
        except Refused:
            if self.evaluations == 1:  # the kernel as the caller gave it
                raise
            return start, -np.inf, False
        return done.x, float(-done.fun * len(self.y)), bool(done.success)

    def _loss(self, theta: Array) -> tuple[float, Array]:
        """Minus the log-likelihood per observation, and its gradient. Raises Refused where they cannot be computed."""
        self.evaluations += 1
        with np.errstate(all="ignore"):
            try:
                solved, _ = solve(self.name, self.why, self.kernel.at(theta), self.t, self.y)
                loss, gradient = -solved.log_likelihood() / len(self.y), -solved.gradient() / len(self.y)
            except np.linalg.LinAlgError as problem:
                raise Refused(f"the likelihood cannot be computed: {problem}") from problem
        if not (np.isfinite(loss) and np.isfinite(gradient).all()):
            raise Refused("the likelihood is not finite; give observations and parameters in units in which they are of order 1")
        return loss, gradient

    def _guarded(self, theta: Array) -> tuple[float, Array]:
        """The same. After the first, one that cannot be computed counts as 10 nats per observation worse than all that could, so that the
        line search steps back; infinity would end it, since it interpolates."""
        try:
            loss, gradient = self._loss(theta)
        except Refused:
            if self._worst is None:
                raise
            return self._worst + 10, np.zeros(len(theta))
        self._worst = loss if self._worst is None else max(self._worst, loss)
        return loss, gradient


def _starts(kernel: Kernel, t: Array, limits: Array, restarts: int, rng: np.random.Generator) -> list[Array]:
    if restarts < 1:
        raise Refused(f"restarts is the number of starts, at least 1, got {restarts}")
    low, high = limits.T
    first, from_, to = kernel.theta(), low.copy(), high.copy()
    lengths, periods = _anywhere(kernel)
    from_[lengths], to[lengths] = np.log(np.diff(t).min()), np.log(t[-1] - t[0])
    moved = [
        np.where(lengths | periods, rng.uniform(from_, to), first + rng.standard_normal(len(first))) for _ in range(restarts - 1)
    ]
    return [np.clip(start, low, high) for start in (first, *moved)]


def _anywhere(kernel: Kernel) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which free parameters are lengthscales in units of time, and which are periods: the likelihood has several maxima in these."""
    of_time = {f"{prefix}lengthscale" for prefix, leaf in leaves(kernel) if not isinstance(leaf, Periodic)}
    lengths = [name in of_time for name in kernel.free()]
    return np.array(lengths, bool), np.array([name.rpartition(".")[2] == "period" for name in kernel.free()], bool)


def suggested_bounds(kernel: Kernel, t: Array, y: Array) -> dict[str, tuple[float, float]]:
    """Bounds of the free parameters for observations y (n,) of mean zero at times t (n,).

    Lengthscales from a tenth of the smallest spacing to 100 times the span, those of periodic kernels, which have no unit, from 0.05 to
    100; variances from 1e-8 to 1e4 times that of y (of lines: over the squared span); periods within 20 % of the kernel's; alpha from
    0.01 to 1000. A value of the kernel outside them widens them.
    """
    spacing, span, variance = float(np.diff(t).min()), float(t[-1] - t[0]), float(np.var(y))
    found = {}
    for prefix, leaf in leaves(kernel):
        values = leaf.parameters()
        per = variance / span**2 if isinstance(leaf, Linear) else variance
        for name in leaf.free():
            low, high = {
                "variance": (1e-8 * per, 1e4 * per),
                "lengthscale": (0.05, 100.0) if isinstance(leaf, Periodic) else (0.1 * spacing, 100 * span),
                "period": (0.8 * values[name], 1.2 * values[name]),
                "alpha": (0.01, 1000.0),
            }[name]
            found[prefix + name] = (min(low, values[name]), max(high, values[name]))
    return found


def _limits(kernel: Kernel, t: Array, y: Array, bounds: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    limits = suggested_bounds(kernel, t, y)
    for name, (low, high) in bounds.items():
        if name not in limits:
            raise Refused(f"bounds name {name!r}, which is not a free parameter of the kernel; it has {', '.join(limits) or 'none'}")
        if not 0 < low < high < np.inf:
            raise Refused(f"the bounds of {name!r} must be positive, finite and increasing, got {low} to {high}")
        limits[name] = (low, high)
    return limits


# -------------------------------------------------------------------------------------------------------------- the solvers


def choose(kernel: Kernel, t: Array, asked: str) -> tuple[str, str]:
    """Name of the solver for a kernel and observed times, and one sentence that says why. Raises Refused where `asked` does not apply."""
    if asked not in SOLVERS:
        raise Refused(f"there is no solver {asked!r}; there are {', '.join(SOLVERS)}")
    if asked == "dense":
        return asked, "asked for"
    hindrances = {"banded": banded.applies(kernel), "toeplitz": toeplitz.applies(kernel, t)}
    if asked != "auto":
        if hindrances[asked]:
            raise Refused(f"the {asked} solver cannot be used: {hindrances[asked]}; ask for 'auto' or 'dense'")
        return asked, "asked for"
    if len(t) <= FEW:
        return "dense", f"{len(t)} observations, up to {FEW}: nothing is faster"
    if not hindrances["banded"]:
        return "banded", f"{len(t)} observations, and a kernel that has a state space"
    if not hindrances["toeplitz"]:
        return "toeplitz", f"{len(t)} equidistant observations without gaps; no state space, since {hindrances['banded']}"
    return "dense", f"no state space, since {hindrances['banded']}; no Toeplitz matrix, since {hindrances['toeplitz']}"


def solve(name: str, why: str, kernel: Kernel, t: Array, y: Array) -> tuple[Solver, str]:
    """The solver called `name` at work, and why it was chosen. Dense takes over where Toeplitz loses too many digits."""
    if name == "banded":
        return banded.Banded(kernel, t, y), why
    if name == "toeplitz":
        try:
            return toeplitz.Toeplitz(kernel, t, y), why
        except toeplitz.IllConditioned as problem:
            why = f"the covariance matrix is too near to singular for the toeplitz solver: {problem}"
            if len(t) > MANY:
                raise Refused(f"{why}; raise the noise or bound it from below, or ask for solver='dense' (minutes, gigabytes)") from problem
    solved = Dense(kernel, t, y)
    if solved.jitter:
        why = f"{why}; {solved.jitter:.0e} of the mean variance was added to the diagonal for its Cholesky factor to exist"
    return solved, why


# ---------------------------------------------------------------------------------------------------------------- the input


def observations(t: Array, y: Array) -> tuple[Array, Array]:
    """Times and observations as arrays of floats. Raises Refused, naming the row, where they cannot be used."""
    t, y = _times(t, "times"), np.asarray(y, float)
    if y.shape != t.shape:
        raise Refused(f"one observation is needed per time; got {len(t)} times and observations of shape {y.shape}")
    steps = np.diff(t)
    if (steps <= 0).any():
        row = int(np.argmax(steps <= 0)) + 1
        what = "occurs twice" if steps[row - 1] == 0 else "is earlier than the one before"
        raise Refused(f"times must increase; the one in row {row}, {t[row]:g}, {what}; sort them and merge duplicates")
    if np.isinf(y).any():
        raise Refused(f"the observation in row {int(np.argmax(np.isinf(y)))} is infinite; write NaN where one is missing")
    if not np.isfinite(y).any():
        raise Refused(f"all {len(y)} observations are missing; at least one is needed")
    return t, y


def _times(t: Array, what: str) -> Array:
    try:
        t = np.asarray(t, float)
    except (TypeError, ValueError) as wrong:
        raise Refused(f"{what} must be numbers, in the unit of the lengthscales: {wrong}") from wrong
    if t.ndim != 1:
        raise Refused(f"{what} must be a row of numbers, got an array of shape {t.shape}")
    if not np.isfinite(t).all():
        raise Refused(f"{what} must be finite; row {int(np.argmax(~np.isfinite(t)))} is {t[~np.isfinite(t)][0]}")
    return t


def mean_at(gp: GaussianProcess, times: Array) -> Array:
    """The mean function (m,) at times (m,). Raises Refused where it gives anything else than m finite numbers."""
    found = np.asarray(gp.mean(times), float)
    if found.shape != times.shape or not np.isfinite(found).all():
        raise Refused(f"the mean function must give one finite number per time: {len(times)} times gave shape {found.shape}")
    return found


def draw_normal(mean: Array, covariance: Array, n: int, rng: np.random.Generator) -> Array:
    """n draws (n, m) of the normal law with this mean (m,) and covariance (m, m), which may be singular.

    By Cholesky's factor with complete pivoting (Higham 1990): it ends where what is left is rounding, so that nothing need be added to
    the diagonal.
    """
    factor, pivots, rank, _ = lapack.dpstrf(covariance, lower=0)
    root = np.zeros((len(mean), len(mean)))
    root[:rank, pivots - 1] = np.triu(factor)[:rank]
    return np.asarray(mean + rng.standard_normal((n, len(mean))) @ root)
