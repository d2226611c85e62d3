"""What every solver of the Gaussian-process equations gives. They differ in cost and in the kernels and times they can take.

    dense      Cholesky of the covariance matrix: any kernel, any times; O(n^3) time, O(n^2) memory
    toeplitz   Levinson-Durbin recursion: any stationary kernel, equidistant times without gaps; O(n^2) time, O(n) memory
    banded     state space of Matern terms, Fourier columns of periodic ones: any times, gaps too; O(n) time and memory
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulacra.families.gp.kernels import Kernel

Array = NDArray[np.float64]


class Solver(Protocol):
    """A kernel conditioned on observations `y` (n,) of mean zero at increasing times `t` (n,), all finite.

    Everything about the function leaves out the noise; whoever wants observations adds `kernel.noise()` to the variance.
    """

    name: str  # "dense", "toeplitz" or "banded"
    kernel: Kernel
    t: Array
    y: Array

    def log_likelihood(self) -> float:
        """log p(y | t, kernel), all constants included (Rasmussen & Williams 2006, eq. 2.30)."""
        ...

    def gradient(self) -> Array:
        """Its derivatives with respect to `kernel.theta()`, the logarithms of the free parameters (eq. 5.9)."""
        ...

    def mean(self, times: Array, part: str | None = None) -> Array:
        """Posterior mean (m,) of the function, or of one term of the sum, by its label in `Sum.named()` (eq. 2.25)."""
        ...

    def variance(self, times: Array, part: str | None = None) -> Array:
        """Posterior variance (m,) of the same."""
        ...

    def covariance(self, times: Array, part: str | None = None) -> Array:
        """Posterior covariance (m, m) of the same (eq. 2.26)."""
        ...

    def leave_one_out(self) -> tuple[Array, Array]:
        """Mean and variance (n,) of each observation, noise included, given all others (eq. 5.12)."""
        ...
