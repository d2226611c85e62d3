"""One Gaussian process for the curves of many states: its parameters are learned from all of them together.

The logarithm of weekly cases, y = log(1 + cases), of any state is taken to be

    y(t) = level + walk(t) + wave(t) + noise(t),

a level that could be anything, a Matern 1/2 walk (shocks that stay), an exponentiated-quadratic wave (growth that goes on for a few
weeks and bends) and noise of variance white + overdispersion / (1 + cases): for counts with variance proportional to their mean that
is the variance of their logarithm, to first order. How restless a state is differs, so the covariance of each window of one state is
scaled by a factor that is itself unknown, inverse-gamma about 1: the law is a Student-t process (Shah, Wilson & Ghahramani 2014,
arXiv:1402.4306), whose forecasts widen after a window with surprises and narrow after a quiet one.

What is maximised is the mean of log p(next weeks | past weeks) over windows of all states: the likelihood of what the process is for.
On the scale `identity` the same process is put on cases / (mean of the window's cases), where the noise is in proportion.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import digamma, gammaln, stdtrit
from scipy.stats import chi2

from simulacra.families.gp import ExponentiatedQuadratic, Kernel, Matern
from simulacra.study import Refused

Array = NDArray[np.float64]
Scale = Literal["log1p", "identity"]

LEVEL = 100.0  # prior variance of a window's level, in units of y^2: wider than any two states differ
KERNEL: Kernel = Matern(0.5, variance=0.5, lengthscale=30.0) + ExponentiatedQuadratic(variance=0.3, lengthscale=5.0)  # weeks
NAMES = ("walk variance", "walk lengthscale", "wave variance", "wave lengthscale", "white", "overdispersion", "freedom")
START = np.log([*np.exp(KERNEL.theta()), 0.005, 3.0, 20.0])
BOUNDS = np.log([(1e-4, 100), (1, 400), (1e-4, 100), (1, 26), (1e-5, 1), (1e-2, 1000), (0.5, 1000)])


@dataclasses.dataclass(frozen=True)
class Windows:
    """What is known and what came, of n origins: P past and H future weeks on the scale of the process; NaN: missing."""

    past: Array  # (n, P)
    future: Array  # (n, H)
    unit: Array  # (n,) one unit of y in cases (identity scale); 1 on the logarithmic one
    scale: Scale

    @classmethod
    def of(cls, past: Array, future: Array, scale: Scale) -> Windows:
        """From cases; what is not finite is missing."""
        past, future = (np.where(np.isfinite(v), v, np.nan).astype(np.float64) for v in (past, future))
        if not np.isfinite(past).any(axis=1).all():
            row = int(np.flatnonzero(~np.isfinite(past).any(axis=1))[0])
            raise Refused(f"row {row}: none of the {past.shape[1]} weeks before its origin is known, so nothing can be said of the next")
        if scale == "log1p":
            return cls(np.log1p(past), np.log1p(future), np.ones(len(past)), scale)
        unit = np.maximum(np.nanmean(past, axis=1), 1.0)
        return cls(past / unit[:, None], future / unit[:, None], unit, scale)

    def cases(self, y: Array) -> Array:
        """Cases of values y (n, M, H) of the process; none is negative."""
        return np.maximum(np.expm1(np.minimum(y, 25.0)) if self.scale == "log1p" else y * self.unit[:, None, None], 0.0)

    def count_noise(self, y: Array) -> Array:
        """Variance of the noise at values y (n, k), where a count's variance is its mean + 1."""
        if self.scale == "log1p":
            return np.asarray(np.exp(-np.maximum(y, 0.0)))
        return np.asarray((np.maximum(y, 0.0) + 1 / self.unit[:, None]) / self.unit[:, None])

    def __len__(self) -> int:
        return len(self.past)

    def __getitem__(self, rows: NDArray[np.int64]) -> Windows:
        return Windows(self.past[rows], self.future[rows], self.unit[rows], self.scale)


def predictive(theta: Array, windows: Windows) -> tuple[float, Array]:
    """Mean over windows of log p(future | past) in nats, and its gradient with respect to `theta`, the logarithms of NAMES."""
    both, both_gradient = _joint(theta, windows, windows.future)
    past, past_gradient = _joint(theta, windows, np.full_like(windows.future, np.nan))
    return (both - past) / len(windows), (both_gradient - past_gradient) / len(windows)


def learn(windows: Windows, start: Array, evaluations: int) -> tuple[Array, float, int]:
    """Log-parameters after at most `evaluations` evaluations of L-BFGS-B from `start`, their `predictive`, and evaluations done."""

    def loss(theta: Array) -> tuple[float, Array]:
        try:
            value, gradient = predictive(theta, windows)
        except np.linalg.LinAlgError:  # a step of the line search too far: come back
            return 1e10, np.zeros(len(theta))
        return -value, -gradient

    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=BOUNDS, options={"maxfun": evaluations, "maxiter": evaluations})
    return np.asarray(found.x), -float(found.fun), int(found.nfev)


def start_of(number: int, seed: int) -> Array:
    """Where start `number` begins: the first at START, the others about it, by a factor of e or so, within BOUNDS."""
    if number == 0:
        return START.copy()
    rng = np.random.default_rng([seed, number, 0x6B])
    return np.clip(START + rng.normal(size=len(START)), BOUNDS[:, 0] + 0.1, BOUNDS[:, 1] - 0.1)


@dataclasses.dataclass(frozen=True)
class Law:
    """The multivariate Student-t law of the next H weeks, for n origins, on the scale of the process."""

    mean: Array  # (n, H)
    covariance: Array  # (n, H, H); of observations, or of the curve without noise
    freedom: Array  # (n,) degrees of freedom, above 2

    def paths(self, normal: Array, uniform: Array) -> Array:
        """Paths (n, M, H) from standard normal (n, M, H) and uniform (n, M) numbers."""
        root = np.linalg.cholesky(self.covariance)
        mixed = chi2.ppf(uniform, self.freedom[:, None]) / (self.freedom[:, None] - 2)  # variance 1 on average of its inverse
        return self.mean[:, None] + np.einsum("nij,nmj->nmi", root, normal) / np.sqrt(mixed)[..., None]

    def quantiles(self, levels: Array) -> Array:
        """Quantiles (n, M, H) at levels (n, M, H) of the law of each week."""
        freedom = self.freedom[:, None, None]
        spread = np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2) * ((self.freedom - 2) / self.freedom)[:, None])
        return np.asarray(self.mean[:, None] + spread[:, None] * stdtrit(freedom, levels))


def forecast(theta: Array, windows: Windows, *, noise: bool = True) -> Law:
    """The law of the next weeks given the past ones. The noise of weeks to come is that of the cases they are expected to bring."""
    horizon, length = windows.future.shape[1], windows.past.shape[1]
    y, anchor, observed, factor, kernel = _conditioned(theta, windows, np.full_like(windows.future, np.nan))
    across = kernel[None, :, length:] * observed[:, :, None]
    weights = _solved(factor, across)
    mean = np.einsum("npk,np->nk", weights, y) + anchor[:, None]
    covariance = kernel[None, length:, length:] - np.einsum("npk,npl->nkl", across, weights)
    covariance = (covariance + covariance.transpose(0, 2, 1)) / 2
    known, energy = observed.sum(axis=1), (y * _solved(factor, y[:, :, None])[..., 0]).sum(axis=1)
    spare = np.exp(theta[6])
    covariance = covariance + 1e-10 * np.eye(horizon)
    if noise:
        ahead = np.exp(theta[4]) + np.exp(theta[5]) * windows.count_noise(mean)
        covariance = covariance + ahead[:, :, None] * np.eye(horizon)
    return Law(mean, covariance * ((spare + energy) / (spare + known))[:, None, None], spare + 2 + known)


# --- the joint law of a window ---


def kernel_of(theta: Array) -> Kernel:
    """Walk and wave at log-parameters `theta`."""
    return KERNEL.at(theta[:4])


def _conditioned(theta: Array, windows: Windows, future: Array) -> tuple[Array, Array, NDArray[np.bool_], Array, Array]:
    """Values (n, D) about each window's last known one, that anchor (n,), which of them are known, the Cholesky factor (n, D, D) of
    the covariance of the known ones (1 for the others), and the kernel (D, D) of walk, wave and level."""
    y = np.concatenate([windows.past, future], axis=1)
    observed = np.isfinite(y)
    weeks = np.arange(y.shape[1], dtype=float)
    kernel = kernel_of(theta).covariance(weeks, weeks) + LEVEL
    known = np.isfinite(windows.past)
    last = known.shape[1] - 1 - known[:, ::-1].argmax(axis=1)
    anchor = windows.past[np.arange(len(y)), last]
    noise = np.exp(theta[4]) + np.exp(theta[5]) * windows.count_noise(np.where(observed, y, 0.0))
    covariance = kernel * (observed[:, :, None] & observed[:, None, :])
    where = np.arange(y.shape[1])
    covariance[:, where, where] += np.where(observed, noise, 1.0)
    return np.where(observed, y - anchor[:, None], 0.0), anchor, observed, np.linalg.cholesky(covariance), kernel


def _solved(factor: Array, right: Array) -> Array:
    """K^-1 right (n, D, k) from the Cholesky factor of K."""
    inverse = np.linalg.inv(factor)
    return np.asarray(inverse.transpose(0, 2, 1) @ (inverse @ right))


def _joint(theta: Array, windows: Windows, future: Array) -> tuple[float, Array]:
    """Sum over windows of the log density of all known values (a multivariate Student-t), and its gradient.

    With K the covariance, q = y'K^-1 y, d values and nu degrees of freedom (s = nu - 2),
    log p = lgamma((nu + d)/2) - lgamma(nu/2) - d/2 log(pi s) - log|K|/2 - (nu + d)/2 log(1 + q/s),
    so d log p / dK = (w a a' - K^-1)/2 with a = K^-1 y and w = (nu + d)/(s + q).
    """
    y, _, observed, factor, _ = _conditioned(theta, windows, future)
    inverse = np.linalg.inv(factor)
    precision = inverse.transpose(0, 2, 1) @ inverse
    a = np.einsum("nij,nj->ni", precision, y)
    q, d, s = (y * a).sum(axis=1), observed.sum(axis=1), np.exp(theta[6])
    nu = s + 2
    log_det = 2 * np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
    value = gammaln((nu + d) / 2) - gammaln(nu / 2) - d / 2 * np.log(np.pi * s) - log_det / 2 - (nu + d) / 2 * np.log1p(q / s)
    w = (nu + d) / (s + q)
    both = observed[:, :, None] & observed[:, None, :]
    slope = (np.einsum("n,ni,nj->ij", w, a, a) - (precision * both).sum(axis=0)) / 2
    weeks = np.arange(y.shape[1], dtype=float)
    gradient = [float((slope * derivative).sum()) for _, derivative in kernel_of(theta).derivatives(weeks, weeks)]
    diagonal = np.where(observed, w[:, None] * a**2 - np.diagonal(precision, axis1=1, axis2=2), 0.0) / 2
    values = np.where(observed, np.concatenate([windows.past, future], axis=1), 0.0)
    gradient += [np.exp(theta[4]) * diagonal.sum(), np.exp(theta[5]) * (diagonal * windows.count_noise(values)).sum()]
    by_nu = digamma((nu + d) / 2) / 2 - digamma(nu / 2) / 2 - d / (2 * s) - np.log1p(q / s) / 2 + (nu + d) / 2 * q / (s * (s + q))
    return float(value.sum()), np.array([*gradient, s * by_nu.sum()])
