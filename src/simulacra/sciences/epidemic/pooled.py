"""One Gaussian process for the curves of many states: its parameters are learned from all of them together.

The logarithm of weekly cases, y = log(1 + cases), of any state is taken to be

    y(t) = level + walk(t) + wave(t) + noise(t),

a level that could be anything, a Matern 1/2 walk (shocks that stay), an exponentiated-quadratic wave (growth that goes on for a few
weeks and bends) and noise of variance white + overdispersion / (1 + cases): for counts with variance proportional to their mean that
is the variance of their logarithm, to first order. How restless a state is differs, so the covariance of each window of one state is
scaled by a factor that is itself unknown, inverse-gamma about 1: the law is a Student-t process (Shah, Wilson & Ghahramani 2014,
arXiv:1402.4306), whose forecasts widen after a window with surprises and narrow after a quiet one.

Reports go wrong: a week is missed by half of a state's counties, old cases are added at once. So any of the last RECENT weeks, and any
week to come, may be an anomaly with a small probability, and then has noise of a large variance besides; at most one in a window. Its
posterior probability says how far a sudden change is believed, and the forecast is the mixture of the laws with and without.

What is maximised is the mean of log p(next weeks | past weeks) over windows of all states: the likelihood of what the process is for.
On the scale `identity` the same process is put on cases / (mean of the window's cases), where the noise is in proportion.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import digamma, gammaln, logsumexp, stdtr
from scipy.stats import chi2

from simulacra.families.gp import ExponentiatedQuadratic, Kernel, Matern
from simulacra.study import Refused

Array = NDArray[np.float64]
Scale = Literal["log1p", "identity"]

LEVEL = 100.0  # prior variance of a window's level, in units of y^2: wider than any two states differ
KERNEL: Kernel = Matern(0.5, variance=0.5, lengthscale=30.0) + ExponentiatedQuadratic(variance=0.3, lengthscale=5.0)  # weeks
RECENT = 3  # weeks up to the origin that may be anomalies
GRID = 140  # points at which the law of a week is tabulated, to be inverted
NAMES = (
    "walk variance", "walk lengthscale", "wave variance", "wave lengthscale", "white", "overdispersion", "freedom", "anomaly probability",
    "anomaly variance",
)  # fmt: skip
START = np.log([*np.exp(KERNEL.theta()), 0.005, 3.0, 20.0, 0.01, 0.5])
BOUNDS = np.log([
    (1e-4, 100), (1, 400), (1e-4, 100), (1, 26), (1e-5, 1), (1e-2, 1000), (0.5, 1000), (1e-4, 0.05), (0.02, 20),
])  # fmt: skip


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

    bounds = BOUNDS.copy()  # at most one anomaly in a window: its places share less than all of the probability
    bounds[7, 1] = min(bounds[7, 1], np.log(0.5 / (RECENT + windows.future.shape[1])))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxfun": evaluations, "maxiter": evaluations})
    return np.asarray(found.x), -float(found.fun), int(found.nfev)


def start_of(number: int, seed: int) -> Array:
    """Where start `number` begins: the first at START, the others about it, by a factor of e or so, within BOUNDS."""
    if number == 0:
        return START.copy()
    rng = np.random.default_rng([seed, number, 0x6B])
    return np.clip(START + rng.normal(size=len(START)), BOUNDS[:, 0] + 0.1, BOUNDS[:, 1] - 0.1)


@dataclasses.dataclass(frozen=True)
class Law:
    """The law of the next H weeks, for n origins, on the scale of the process: a mixture of C multivariate Student-t laws."""

    weight: Array  # (n, C), sums to 1
    mean: Array  # (n, C, H)
    covariance: Array  # (n, C, H, H) of observations that are no anomalies
    freedom: Array  # (n,) degrees of freedom, above 2
    anomaly: Array  # (n, C) further variance of a week that is an anomaly
    probability: float  # of that, each week

    def paths(self, normal: Array, uniform: Array) -> Array:
        """Paths (n, M, H) from standard normal (n, M, 2H) and uniform (n, M, H + 2) numbers."""
        horizon = self.mean.shape[2]
        edges = np.cumsum(self.weight, axis=1)[:, None, :-1]
        which = (uniform[..., :1] > edges).sum(axis=2)  # (n, M): the component of each member
        row = np.arange(len(which))[:, None]
        root = np.linalg.cholesky(self.covariance)[row, which]
        mixed = chi2.ppf(uniform[..., 1], self.freedom[:, None]) / (self.freedom[:, None] - 2)  # 1 on average of its inverse
        strange = uniform[..., 2:] < self.probability
        kick = strange * normal[..., horizon:] * np.sqrt(self.anomaly[row, which])[..., None]
        moved = np.einsum("nmij,nmj->nmi", root, normal[..., :horizon]) + kick
        return np.asarray(self.mean[row, which] + moved / np.sqrt(mixed)[..., None])

    def quantiles(self, levels: Array) -> Array:
        """Quantiles (n, M, H) at levels (n, M, H) of the law of each week, from its distribution function at GRID points."""
        variance = np.diagonal(self.covariance, axis1=2, axis2=3)
        shrink = ((self.freedom - 2) / self.freedom)[:, None, None]
        plain, strange = np.sqrt(variance * shrink), np.sqrt((variance + self.anomaly[..., None]) * shrink)
        low, high = (self.mean - 4 * plain).min(axis=1), (self.mean + 4 * plain).max(axis=1)
        reach = np.sqrt(self.anomaly.max(axis=1) * shrink[:, 0, 0])[:, None]
        bend = np.tan(np.linspace(-1.45, 1.45, GRID)) / np.tan(1.45)  # dense in the middle, far at the ends
        x = ((low + high) / 2)[..., None] + ((high - low) / 2 + 4 * reach)[..., None] * bend
        found = np.empty(levels.shape)
        for week in range(levels.shape[2]):
            z = x[:, None, week] - self.mean[:, :, week, None]
            law = (1 - self.probability) * stdtr(self.freedom[:, None, None], z / plain[:, :, week, None])
            law = law + self.probability * stdtr(self.freedom[:, None, None], z / strange[:, :, week, None])
            below = np.einsum("nc,ncg->ng", self.weight, law)
            for row in range(len(levels)):
                found[row, :, week] = np.interp(levels[row, :, week], below[row], x[row, week])
        return found


def forecast(theta: Array, windows: Windows) -> Law:
    """The law of the next weeks given the past ones. The noise of weeks to come is that of the cases they are expected to bring."""
    horizon, length = windows.future.shape[1], windows.past.shape[1]
    s, probability = np.exp(theta[6]), float(np.exp(theta[7]))
    joint = _Joint.of(theta, windows, np.full_like(windows.future, np.nan))
    across = joint.kernel[None, :, length:] * joint.observed[:, :, None]
    strange = joint.places < length
    weights = np.einsum("nij,njk->nik", joint.precision, across)  # K^-1 k
    mean = [np.einsum("npk,np->nk", across, joint.a)]
    covariance = [joint.kernel[None, length:, length:] - across.transpose(0, 2, 1) @ weights]
    for k in np.flatnonzero(strange):
        gain, at = joint.extra[:, k] / joint.g[:, k], joint.places[k]
        mean.append(mean[0] - (gain * joint.a[:, at])[:, None] * weights[:, at])
        covariance.append(covariance[0] + gain[:, None, None] * weights[:, at, :, None] * weights[:, at, None, :])
    means, spread = np.stack(mean, axis=1) + joint.anchor[:, None, None], np.stack(covariance, axis=1)
    of = np.concatenate([[0], 1 + np.flatnonzero(strange)])
    prior = np.log([1 - RECENT * probability, *[probability] * int(strange.sum())])
    chosen = joint.log_densities[:, of] + prior
    weight = np.exp(chosen - logsumexp(chosen, axis=1, keepdims=True))
    scale = (s + joint.q[:, of]) / (s + joint.d[:, None])
    ahead = np.exp(theta[4]) + np.exp(theta[5]) * np.stack([windows.count_noise(means[:, c]) for c in range(len(of))], axis=1)
    spread = (spread + spread.transpose(0, 1, 3, 2)) / 2 + (ahead[..., None] + 1e-10) * np.eye(horizon)
    return Law(weight, means, spread * scale[..., None, None], s + 2 + joint.d, np.exp(theta[8]) * scale, probability)


# --- the joint law of a window ---


def kernel_of(theta: Array) -> Kernel:
    """Walk and wave at log-parameters `theta`."""
    return KERNEL.at(theta[:4])


@dataclasses.dataclass(frozen=True)
class _Joint:
    """All known values of n windows under the law without an anomaly, and what changes with one at each of K places.

    With K the covariance, a = K^-1 y, q = y'a, an anomaly of variance v at place j gives K + v e_j e_j', so with g = 1 + v (K^-1)_jj
    log|K| grows by log g, q falls by v a_j^2 / g, and a becomes a - (v a_j / g) K^-1 e_j.
    """

    anchor: Array  # (n,) each window's last known value
    observed: NDArray[np.bool_]  # (n, D)
    values: Array  # (n, D) on the scale of the process, 0 where missing
    kernel: Array  # (D, D) of walk, wave and level
    precision: Array  # (n, D, D) K^-1; 1 on the diagonal of missing values
    a: Array  # (n, D)
    d: NDArray[np.int64]  # (n,) known values
    places: NDArray[np.int64]  # (K,)
    extra: Array  # (n, K) variance of an anomaly; 0 where the value is missing
    g: Array  # (n, K)
    q: Array  # (n, 1 + K)
    log_densities: Array  # (n, 1 + K): without an anomaly, and with one at each place

    @classmethod
    def of(cls, theta: Array, windows: Windows, future: Array) -> _Joint:
        """log p = lgamma((nu + d)/2) - lgamma(nu/2) - d/2 log(pi s) - log|K|/2 - (nu + d)/2 log(1 + q/s), s = nu - 2."""
        y = np.concatenate([windows.past, future], axis=1)
        observed, length = np.isfinite(y), windows.past.shape[1]
        weeks, where = np.arange(y.shape[1], dtype=float), np.arange(y.shape[1])
        kernel = kernel_of(theta).covariance(weeks, weeks) + LEVEL
        last = length - 1 - observed[:, :length][:, ::-1].argmax(axis=1)
        anchor = windows.past[np.arange(len(y)), last]
        values, y = np.where(observed, y, 0.0), np.where(observed, y - anchor[:, None], 0.0)
        noise = np.exp(theta[4]) + np.exp(theta[5]) * windows.count_noise(values)
        covariance = kernel * (observed[:, :, None] & observed[:, None, :])
        covariance[:, where, where] += np.where(observed, noise, 1.0)
        factor = np.linalg.cholesky(covariance)
        inverse = np.linalg.inv(factor)
        precision = inverse.transpose(0, 2, 1) @ inverse
        a, d = np.einsum("nij,nj->ni", precision, y), observed.sum(axis=1)
        places = np.arange(length - RECENT, y.shape[1])
        extra = np.exp(theta[8]) * observed[:, places]
        g = 1 + extra * precision[:, places, places]
        q = (y * a).sum(axis=1)[:, None] - np.concatenate([np.zeros((len(y), 1)), extra * a[:, places] ** 2 / g], axis=1)
        log_det = 2 * np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)[:, None]
        log_det = log_det + np.concatenate([np.zeros((len(y), 1)), np.log(g)], axis=1)
        s, half = np.exp(theta[6]), ((np.exp(theta[6]) + 2 + d) / 2)[:, None]
        constant = gammaln(half) - gammaln((s + 2) / 2) - d[:, None] / 2 * np.log(np.pi * s)
        return cls(
            anchor, observed, values, kernel, precision, a, d, places, extra, g, q, constant - log_det / 2 - half * np.log1p(q / s),
        )  # fmt: skip


def _joint(theta: Array, windows: Windows, future: Array) -> tuple[float, Array]:
    """Sum over windows of the log density of all known values, and its gradient.

    d log p / dK = (w a a' - K^-1)/2 with w = (nu + d)/(s + q), of each component by its posterior probability.
    """
    joint = _Joint.of(theta, windows, future)
    s, probability, count = np.exp(theta[6]), np.exp(theta[7]), len(joint.places)
    prior = np.log(np.concatenate([[1 - count * probability], np.full(count, probability)]))
    total = logsumexp(joint.log_densities + prior, axis=1)
    share = np.exp(joint.log_densities + prior - total[:, None])  # (n, 1 + K)
    nu, d, q = s + 2, joint.d[:, None], joint.q
    w = (nu + d) / (s + q)
    gain, columns = joint.extra / joint.g, joint.precision[:, :, joint.places]  # (n, D, K)
    shifted = joint.a[:, :, None] - (gain * joint.a[:, joint.places])[:, None] * columns
    every = np.concatenate([joint.a[:, :, None], shifted], axis=2)  # (n, D, 1 + K)
    scaled = every * np.sqrt(share * w)[:, None]
    lost = columns * np.sqrt(share[:, 1:] * gain)[:, None]
    both = joint.observed[:, :, None] & joint.observed[:, None, :]
    slope = (_summed(scaled) - (joint.precision * both).sum(axis=0) + _summed(lost)) / 2
    weeks = np.arange(joint.kernel.shape[0], dtype=float)
    gradient = [float((slope * derivative).sum()) for _, derivative in kernel_of(theta).derivatives(weeks, weeks)]
    diagonal = (scaled**2).sum(axis=2) - np.diagonal(joint.precision, axis1=1, axis2=2) + (lost**2).sum(axis=2)
    diagonal = np.where(joint.observed, diagonal, 0.0) / 2
    by_nu = digamma((nu + d) / 2) / 2 - digamma(nu / 2) / 2 - d / (2 * s) - np.log1p(q / s) / 2 + (nu + d) / 2 * q / (s * (s + q))
    own = joint.precision[:, joint.places, joint.places] / joint.g
    by_extra = share[:, 1:] * joint.extra * (w[:, 1:] * (joint.a[:, joint.places] / joint.g) ** 2 - own) / 2
    by_probability = share[:, 1:].sum() - count * probability / (1 - count * probability) * share[:, 0].sum()
    gradient += [
        np.exp(theta[4]) * diagonal.sum(), np.exp(theta[5]) * (diagonal * windows.count_noise(joint.values)).sum(),
        s * (share * by_nu).sum(), by_probability, by_extra.sum(),
    ]  # fmt: skip
    return float(total.sum()), np.array(gradient)


def _summed(vectors: Array) -> Array:
    """Sum over n and k of v v' for vectors (n, D, k)."""
    flat = vectors.transpose(1, 0, 2).reshape(vectors.shape[1], -1)
    return np.asarray(flat @ flat.T)
