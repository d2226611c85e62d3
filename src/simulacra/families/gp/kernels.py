"""Covariance functions of time as values that add and multiply (Rasmussen & Williams 2006, chapter 4).

    trend = Matern(1.5, variance=40.0, lengthscale=6.0)
    year = Periodic(variance=120.0, lengthscale=1.5, period=365.25, fixed=("period",))
    kernel = trend + year + White(2.0)

Times are in any unit; lengthscales and periods are in the same. All parameters are positive and are learned on the log scale,
except those named in `fixed`. `White` is the noise of the observations: it belongs to a measurement, not to the function that is
measured, so `covariance` leaves it out and `noise` gives its variance. It can be added, not multiplied.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from simulacra.study import Refused

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """What every covariance function can do. One with parts has none but theirs; their names begin with the part's label."""

    label: ClassVar[str] = "kernel"
    stationary: ClassVar[bool] = True  # depends on t - s only

    def __post_init__(self) -> None:
        for name, value in self.parameters().items():
            if not (math.isfinite(value) and value > 0):
                raise Refused(f"{self.label}: {name} must be positive and finite, got {value}")

    def __add__(self, other: Kernel) -> Kernel:
        return Sum((*_terms(self), *_terms(other)))

    def __mul__(self, other: Kernel) -> Kernel:
        return Product((*_factors(self), *_factors(other)))

    def parameters(self) -> dict[str, float]:
        """All parameters by name, fixed ones too."""
        own = [f for f in dataclasses.fields(self) if f.name not in ("fixed", "order", "centre")]
        return {f.name: float(getattr(self, f.name)) for f in own}

    def free(self) -> list[str]:
        """Names of the parameters that are learned, in the order of the log-parameter vector."""
        return [name for name in self.parameters() if name not in getattr(self, "fixed", ())]

    def with_parameters(self, values: Mapping[str, float]) -> Kernel:
        """The same kernel with other values of the parameters named."""
        return dataclasses.replace(self, **values)

    def theta(self) -> Array:
        """Logarithms of the free parameters."""
        return np.log([self.parameters()[name] for name in self.free()])

    def at(self, theta: Array) -> Kernel:
        """The same kernel at other log-parameters."""
        return self.with_parameters(dict(zip(self.free(), np.exp(theta).tolist(), strict=True)))

    def covariance(self, t: Array, s: Array) -> Array:
        """Covariance (n, m) of the function at times t (n,) with itself at times s (m,), without noise."""
        raise NotImplementedError

    def diagonal(self, t: Array) -> Array:
        """Variance (n,) of the function at times t (n,), without noise."""
        return np.full(len(t), self.covariance(np.zeros(1), np.zeros(1))[0, 0])

    def derivatives(self, t: Array, s: Array) -> Iterator[tuple[str, Array]]:
        """One after the other: a free parameter and the derivative (n, m) of `covariance` with respect to its logarithm.

        Parameters of the noise are not among them: see `noise_derivatives`."""
        raise NotImplementedError

    def noise(self) -> float:
        """Variance of the noise of one observation."""
        return 0.0

    def noise_derivatives(self) -> dict[str, float]:
        """Derivative of `noise` with respect to the logarithm of each free parameter that it has."""
        return {}


@dataclasses.dataclass(frozen=True)
class White(Kernel):
    """Independent noise of each observation."""

    variance: float = 1.0
    fixed: tuple[str, ...] = ()
    label: ClassVar[str] = "white"

    def covariance(self, t: Array, s: Array) -> Array:
        return np.zeros((len(t), len(s)))

    def derivatives(self, t: Array, s: Array) -> Iterator[tuple[str, Array]]:
        return iter(())

    def noise(self) -> float:
        return self.variance

    def noise_derivatives(self) -> dict[str, float]:
        return dict.fromkeys(self.free(), self.variance)


@dataclasses.dataclass(frozen=True)
class ExponentiatedQuadratic(Kernel):
    """v exp(-d^2 / 2 l^2): functions with derivatives of all orders (eq. 4.9)."""

    variance: float = 1.0
    lengthscale: float = 1.0
    fixed: tuple[str, ...] = ()
    label: ClassVar[str] = "exponentiated quadratic"

    def covariance(self, t: Array, s: Array) -> Array:
        return self.variance * np.exp(-0.5 * (_lags(t, s) / self.lengthscale) ** 2)

    def derivatives(self, t: Array, s: Array) -> Iterator[tuple[str, Array]]:
        k = self.covariance(t, s)
        yield from _free(self, {"variance": lambda: k, "lengthscale": lambda: k * (_lags(t, s) / self.lengthscale) ** 2})


@dataclasses.dataclass(frozen=True)
class Matern(Kernel):
    """Matern of order 1/2, 3/2 or 5/2: functions with 0, 1 or 2 derivatives (eq. 4.14). With r = sqrt(2 order) d / l it is
    v e^-r, v (1 + r) e^-r or v (1 + r + r^2/3) e^-r."""

    order: float = 1.5
    variance: float = 1.0
    lengthscale: float = 1.0
    fixed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.order not in (0.5, 1.5, 2.5):
            raise Refused(f"Matern: order must be 0.5, 1.5 or 2.5 (closed forms), got {self.order}")
        super().__post_init__()

    @property
    def label(self) -> str:  # type: ignore[override]
        return f"matern {int(2 * self.order)}/2"

    def _distance(self, t: Array, s: Array) -> Array:
        return math.sqrt(2 * self.order) * np.abs(_lags(t, s)) / self.lengthscale

    def covariance(self, t: Array, s: Array) -> Array:
        r = self._distance(t, s)
        decay = self.variance * np.exp(-r)
        if self.order == 0.5:
            return decay
        return np.asarray(decay * (1 + r if self.order == 1.5 else 1 + r + r * r / 3))

    def derivatives(self, t: Array, s: Array) -> Iterator[tuple[str, Array]]:
        r = self._distance(t, s)

        def of_lengthscale() -> Array:  # -r times the derivative with respect to r
            polynomial = {0.5: r, 1.5: r * r, 2.5: r * r * (1 + r) / 3}[self.order]
            return self.variance * polynomial * np.exp(-r)

        yield from _free(self, {"variance": lambda: self.covariance(t, s), "lengthscale": of_lengthscale})


@dataclasses.dataclass(frozen=True)
class Periodic(Kernel):
    """v exp(-2 sin^2(pi d / p) / l^2): functions that repeat exactly (eq. 4.31). Times Matern: repetitions that drift."""

    variance: float = 1.0
    lengthscale: float = 1.0
    period: float = 1.0
    fixed: tuple[str, ...] = ()
    label: ClassVar[str] = "periodic"

    def covariance(self, t: Array, s: Array) -> Array:
        return self.variance * np.exp(-2 * (np.sin(np.pi * _lags(t, s) / self.period) / self.lengthscale) ** 2)

    def derivatives(self, t: Array, s: Array) -> Iterator[tuple[str, Array]]:
        k, angle = self.covariance(t, s), np.pi * _lags(t, s) / self.period
        yield from _free(
            self,
            {
                "variance": lambda: k,
                "lengthscale": lambda: k * 4 * (np.sin(angle) / self.lengthscale) ** 2,
                "period": lambda: k * 2 * np.sin(2 * angle) * angle / self.lengthscale**2,
            },
        )


@dataclasses.dataclass(frozen=True)
class RationalQuadratic(Kernel):
    """v (1 + d^2 / 2 a l^2)^-a: a scale mixture of exponentiated quadratics (eq. 4.19)."""

    variance: float = 1.0
    lengthscale: float = 1.0
    alpha: float = 1.0
    fixed: tuple[str, ...] = ()
    label: ClassVar[str] = "rational quadratic"

    def covariance(self, t: Array, s: Array) -> Array:
        return np.asarray(self.variance * (1 + self._scaled(t, s)) ** -self.alpha)

    def _scaled(self, t: Array, s: Array) -> Array:
        return (_lags(t, s) / self.lengthscale) ** 2 / (2 * self.alpha)

    def derivatives(self, t: Array, s: Array) -> Iterator[tuple[str, Array]]:
        k, q = self.covariance(t, s), self._scaled(t, s)
        yield from _free(
            self,
            {
                "variance": lambda: k,
                "lengthscale": lambda: k * 2 * self.alpha * q / (1 + q),
                "alpha": lambda: k * self.alpha * (q / (1 + q) - np.log1p(q)),
            },
        )


@dataclasses.dataclass(frozen=True)
class Linear(Kernel):
    """v (t - c)(s - c): straight lines through zero at the time c, `centre`, which is not learned (eq. 4.1)."""

    variance: float = 1.0
    centre: float = 0.0
    fixed: tuple[str, ...] = ()
    label: ClassVar[str] = "linear"
    stationary: ClassVar[bool] = False

    def covariance(self, t: Array, s: Array) -> Array:
        return self.variance * np.outer(t - self.centre, s - self.centre)

    def diagonal(self, t: Array) -> Array:
        return np.asarray(self.variance * (t - self.centre) ** 2)

    def derivatives(self, t: Array, s: Array) -> Iterator[tuple[str, Array]]:
        yield from _free(self, {"variance": lambda: self.covariance(t, s)})


@dataclasses.dataclass(frozen=True)
class _Composed(Kernel):
    """Kernels joined into one; the parameters are theirs, named `label.parameter`."""

    parts: tuple[Kernel, ...] = ()

    @property
    def stationary(self) -> bool:  # type: ignore[override]
        return all(part.stationary for part in self.parts)

    def named(self) -> dict[str, Kernel]:
        """Parts by label; a label that occurs again is numbered: `matern 3/2`, `matern 3/2 #2`."""
        found: dict[str, Kernel] = {}
        for part in self.parts:
            times = sum(name.split(" #")[0] == part.label for name in found)
            found[part.label if not times else f"{part.label} #{times + 1}"] = part
        return found

    def parameters(self) -> dict[str, float]:
        return {f"{label}.{name}": value for label, part in self.named().items() for name, value in part.parameters().items()}

    def free(self) -> list[str]:
        return [f"{label}.{name}" for label, part in self.named().items() for name in part.free()]

    def with_parameters(self, values: Mapping[str, float]) -> Kernel:
        known = self.parameters()
        if unknown := [name for name in values if name not in known]:
            raise Refused(f"the kernel has no parameter {unknown[0]!r}; it has {', '.join(known)}")
        return type(self)(
            tuple(
                part.with_parameters({n.removeprefix(f"{label}."): v for n, v in values.items() if n.startswith(f"{label}.")})
                for label, part in self.named().items()
            )
        )


@dataclasses.dataclass(frozen=True)
class Sum(_Composed):
    """The covariance of a sum of independent functions; `parts` are its terms."""

    label: ClassVar[str] = "sum"

    def covariance(self, t: Array, s: Array) -> Array:
        total = np.zeros((len(t), len(s)))
        for part in self.parts:
            total += part.covariance(t, s)
        return total

    def diagonal(self, t: Array) -> Array:
        return np.asarray(np.sum([part.diagonal(t) for part in self.parts], axis=0))

    def derivatives(self, t: Array, s: Array) -> Iterator[tuple[str, Array]]:
        for label, part in self.named().items():
            for name, derivative in part.derivatives(t, s):
                yield f"{label}.{name}", derivative

    def noise(self) -> float:
        return sum(part.noise() for part in self.parts)

    def noise_derivatives(self) -> dict[str, float]:
        return {f"{label}.{name}": v for label, part in self.named().items() for name, v in part.noise_derivatives().items()}


@dataclasses.dataclass(frozen=True)
class Product(_Composed):
    """The covariance of a product of independent functions of mean zero; `parts` are its factors."""

    label: ClassVar[str] = "product"

    def __post_init__(self) -> None:
        if any(part.noise() for part in self.parts):
            raise Refused("white noise can be added to a kernel but not multiplied: it belongs to the observations")
        super().__post_init__()

    def covariance(self, t: Array, s: Array) -> Array:
        total = np.ones((len(t), len(s)))
        for part in self.parts:
            total *= part.covariance(t, s)
        return total

    def diagonal(self, t: Array) -> Array:
        return np.asarray(np.prod([part.diagonal(t) for part in self.parts], axis=0))

    def derivatives(self, t: Array, s: Array) -> Iterator[tuple[str, Array]]:
        values = {label: part.covariance(t, s) for label, part in self.named().items()}
        for label, part in self.named().items():
            rest = np.ones((len(t), len(s)))
            for other, value in values.items():
                if other != label:
                    rest *= value
            for name, derivative in part.derivatives(t, s):
                yield f"{label}.{name}", rest * derivative


def functions(kernel: Kernel) -> dict[str, Kernel]:
    """The terms of a sum by their labels, or the kernel itself by its own; without white noise, which is no function of time."""
    terms = kernel.named() if isinstance(kernel, Sum) else {kernel.label: kernel}
    return {label: term for label, term in terms.items() if not isinstance(term, White)}


def part_of(kernel: Kernel, part: str | None) -> Kernel:
    """One of `functions` by its label; None: the whole kernel. Raises Refused where there is none of that name."""
    if part is None:
        return kernel
    found = functions(kernel)
    if part not in found:
        raise Refused(f"the kernel has no term {part!r} that is a function; it has {', '.join(found) or 'white noise alone'}")
    return found[part]


def leaves(kernel: Kernel, prefix: str = "") -> Iterator[tuple[str, Kernel]]:
    """The kernels without parts that it is made of, each with what its parameters' names begin with: `product.matern 3/2.`."""
    if not isinstance(kernel, Sum | Product):
        yield prefix, kernel
        return
    for label, part in kernel.named().items():
        yield from leaves(part, f"{prefix}{label}.")


def _lags(t: Array, s: Array) -> Array:
    lags: Array = np.subtract.outer(t, s)
    return lags


def _free(kernel: Kernel, makers: Mapping[str, Callable[[], Array]]) -> Iterator[tuple[str, Array]]:
    """The derivatives of the free parameters only, each made when it is asked for: n x n matrices are large."""
    for name in kernel.free():
        yield name, makers[name]()


def _terms(kernel: Kernel) -> tuple[Kernel, ...]:
    return kernel.parts if isinstance(kernel, Sum) else (kernel,)


def _factors(kernel: Kernel) -> tuple[Kernel, ...]:
    return kernel.parts if isinstance(kernel, Product) else (kernel,)
