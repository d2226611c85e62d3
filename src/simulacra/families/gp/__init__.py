"""Exact Gaussian processes on an axis of time, in NumPy and SciPy alone: kernels, three solvers, one interface.

    from simulacra.families.gp import GaussianProcess, Matern, Periodic, White, fit

    kernel = Matern(1.5, variance=40.0, lengthscale=6.0) + Periodic(120.0, 1.5, 365.25, fixed=("period",)) + White(2.0)
    fitted = fit(GaussianProcess(kernel), days, temperature)
    posterior = fitted.gp.condition(days, temperature)
    posterior.mean(next_days), posterior.variance(next_days, noise=True)

Source of what is computed: Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006.
"""

from simulacra.families.gp.kernels import (
    ExponentiatedQuadratic,
    Kernel,
    Linear,
    Matern,
    Periodic,
    Product,
    RationalQuadratic,
    Sum,
    White,
)
from simulacra.families.gp.process import Fit, GaussianProcess, Posterior, fit, suggested_bounds

__all__ = [
    "ExponentiatedQuadratic",
    "Fit",
    "GaussianProcess",
    "Kernel",
    "Linear",
    "Matern",
    "Periodic",
    "Posterior",
    "Product",
    "RationalQuadratic",
    "Sum",
    "White",
    "fit",
    "suggested_bounds",
]
