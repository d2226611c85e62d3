"""A whole fit of a Gaussian process to a daily series (trend, year, noise; 5 free parameters), ours beside three libraries.

    python benchmarks/gp_solvers.py [--sizes 700 2000 5000 20000] [--limit 60] [--only banded celerite2 ...]

Each fit runs in a process of its own, on one core, on the same simulated days, from the same starting point, without restarts.
Printed are CPU seconds of the fit (imports left out), evaluations of the likelihood, the log-likelihood reached, peak memory with
imports, and how many times faster than our dense solver. A fit whose cost, extrapolated by n^3 (n^2 for toeplitz, n for the O(n)
ones) from its last, is over three times the limit is not tried; one that runs into the limit is stopped. Both are said.

Kernels are the same but for celerite2's, whose Matern 3/2 is an approximation (eps = 0.01) and whose year is 9 cosines; it has no
gradient with respect to the parameters without JAX or PyMC, so that its fit takes differences.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

METHODS = {  # name: (package it needs, power of n that its cost grows with)
    "ours, dense": ("simulacra", 3),
    "ours, toeplitz": ("simulacra", 2),
    "ours, banded": ("simulacra", 1),
    "scikit-learn": ("sklearn", 3),
    "GPyTorch, Cholesky": ("gpytorch", 3),
    "celerite2": ("celerite2", 1),
}
YEAR = 365.25
START = {"variance": 4.0, "lengthscale": 10.0, "cycle": 50.0, "shape": 1.0, "noise": 1.0}
Result = tuple[float, int]  # log-likelihood, evaluations


def simulated(n):
    """Days 0 .. n - 1 and a series of them: an Ornstein-Uhlenbeck trend, a year of two harmonics, noise; mean subtracted."""
    import numpy as np

    rng = np.random.default_rng(20)
    t, shocks, trend = np.arange(n, dtype=float), rng.normal(size=n), np.zeros(n)
    for i in range(1, n):
        trend[i] = 0.8 * trend[i - 1] + 1.8 * shocks[i]
    y = 10 * np.cos(2 * np.pi * t / YEAR) + 3 * np.sin(4 * np.pi * t / YEAR) + trend + rng.normal(size=n)
    return t, y - y.mean()


def ours(solver: str) -> Callable[..., Result]:
    from simulacra.families.gp import GaussianProcess, Matern, Periodic, White, fit

    kernel = Matern(1.5, START["variance"], START["lengthscale"]) + White(START["noise"])
    kernel = kernel + Periodic(START["cycle"], START["shape"], YEAR, fixed=("period",))

    def run(t, y) -> Result:
        found = fit(GaussianProcess(kernel), t, y, solver=solver)
        return found.log_likelihood, found.evaluations

    return run


def sklearn() -> Callable[..., Result]:
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels

    kernel = (
        kernels.ConstantKernel(START["variance"]) * kernels.Matern(START["lengthscale"], nu=1.5)
        + kernels.ConstantKernel(START["cycle"]) * kernels.ExpSineSquared(START["shape"], YEAR, periodicity_bounds="fixed")
        + kernels.WhiteKernel(START["noise"])
    )

    def run(t, y) -> Result:
        model = GaussianProcessRegressor(kernel, alpha=0.0)
        evaluated, counted = model.log_marginal_likelihood, [0]

        def counting(*given, **named):
            counted[0] += 1
            return evaluated(*given, **named)

        model.log_marginal_likelihood = counting
        model.fit(t[:, None], y)
        return float(model.log_marginal_likelihood_value_), counted[0]

    return run


def gpytorch() -> Callable[..., Result]:
    import gpytorch as library
    import torch

    torch.set_num_threads(1)

    class Model(library.models.ExactGP):
        def __init__(self, t, y, likelihood):
            super().__init__(t, y, likelihood)
            self.mean_module = library.means.ZeroMean()
            trend = library.kernels.ScaleKernel(library.kernels.MaternKernel(nu=1.5))
            year = library.kernels.ScaleKernel(library.kernels.PeriodicKernel())
            trend.outputscale, trend.base_kernel.lengthscale = START["variance"], START["lengthscale"]
            year.outputscale, year.base_kernel.lengthscale = START["cycle"], START["shape"] ** 2  # the square stands in its formula
            year.base_kernel.period_length = YEAR
            year.base_kernel.raw_period_length.requires_grad_(False)
            self.covar_module = trend + year

        def forward(self, t):
            return library.distributions.MultivariateNormal(self.mean_module(t), self.covar_module(t))

    def run(t, y) -> Result:
        times, values = torch.from_numpy(t), torch.from_numpy(y)
        likelihood = library.likelihoods.GaussianLikelihood(noise_constraint=library.constraints.GreaterThan(1e-8)).double()
        model = Model(times, values, likelihood).double()
        likelihood.noise = START["noise"]
        model.train()
        marginal, counted = library.mlls.ExactMarginalLogLikelihood(likelihood, model), [0]
        free = [p for p in model.parameters() if p.requires_grad]
        climb = torch.optim.LBFGS(free, max_iter=200, max_eval=300, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

        def loss():
            counted[0] += 1
            climb.zero_grad()
            value = -marginal(model(times), values)
            value.backward()
            return value

        with library.settings.max_cholesky_size(10**6):
            climb.step(loss)
            with torch.no_grad():
                return float(marginal(model(times), values)) * len(t), counted[0]

    return run


def celerite2() -> Callable[..., Result]:
    import celerite2 as library
    import numpy as np
    from celerite2 import terms
    from scipy.optimize import minimize
    from scipy.special import ive

    def run(t, y) -> Result:
        def loss(theta) -> float:
            variance, lengthscale, cycle, shape, noise = np.exp(theta)
            weights = cycle * ive(np.arange(10), 1 / shape**2) * np.r_[1, np.full(9, 2)]
            kernel = terms.Matern32Term(sigma=math.sqrt(variance), rho=lengthscale) + terms.RealTerm(a=weights[0], c=0.0)
            for j in range(1, 10):
                kernel = kernel + terms.ComplexTerm(a=weights[j], b=0.0, c=0.0, d=2 * np.pi * j / YEAR)
            model = library.GaussianProcess(kernel)
            try:
                model.compute(t, diag=np.full(len(t), noise))
            except library.backprop.LinAlgError:
                return 1e3
            return -float(model.log_likelihood(y)) / len(t)

        found = minimize(loss, np.log(list(START.values())), method="L-BFGS-B", bounds=[(-12, 12)] * 5)
        return -float(found.fun) * len(t), int(found.nfev)

    return run


def one(method: str, n: int, limit: float) -> None:
    """Fit once, in this process, and print what came."""
    warnings.simplefilter("ignore")
    t, y = simulated(n)
    makers = {"scikit-learn": sklearn, "GPyTorch, Cholesky": gpytorch, "celerite2": celerite2}
    run = makers[method]() if method in makers else ours(method.split(", ")[1])
    began = time.process_time()
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(began + limit), resource.RLIM_INFINITY))
    likelihood, evaluations = run(t, y)
    seconds = time.process_time() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(json.dumps({"seconds": seconds, "likelihood": likelihood, "evaluations": evaluations, "memory": memory}))


def cell(method: str, n: int, limit: float) -> dict[str, float] | str:
    """The same in a new process; a word where nothing came."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
    command = [sys.executable, __file__, "--one", method, "--sizes", str(n), "--limit", str(limit)]
    done = subprocess.run(command, env={**os.environ, **threads}, capture_output=True, text=True, check=False)
    if done.returncode == -signal.SIGXCPU:
        return f"stopped at the limit of {limit:g} s"
    if done.returncode:
        return f"failed: {(done.stderr.strip().splitlines() or [f'exit {done.returncode}'])[-1][:90]}"
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[700, 2000, 5000, 20000])
    parser.add_argument("--limit", type=float, default=60.0, help="CPU seconds for each fit")
    parser.add_argument("--only", nargs="+", default=list(METHODS), help="methods, by a part of their names")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        return one(asked.one, asked.sizes[0], asked.limit)
    chosen = [name for name in METHODS if any(word.lower() in name.lower() for word in asked.only)]
    for name in [name for name in chosen if importlib.util.find_spec(METHODS[name][0]) is None]:
        chosen.remove(name)
        print(f'{name} is not installed: pip install "simulacra[bench]"')
    print(f"{'n':>6}  {'method':<20}{'fit, CPU s':>11}{'evaluations':>13}{'log-likelihood':>16}{'MB':>7}{'dense / this':>14}")
    last: dict[str, tuple[int, float]] = {}
    for n in sorted(asked.sizes):
        dense = None
        for name in chosen:
            power = METHODS[name][1]
            expected = last[name][1] * (n / last[name][0]) ** power if name in last else 0.0
            note = f"from n = {last[name][0]:,} by n^{power}" if name in last else ""
            found = f"not tried: {expected:,.0f} s expected {note}" if expected > 3 * asked.limit else cell(name, n, asked.limit)
            if isinstance(found, str):
                dense = (expected, "~") if name == "ours, dense" and expected else dense
                after = f" ({expected:,.0f} s expected {note})" if expected and "stopped" in found else ""
                print(f"{n:>6}  {name:<20}  {found}{after}", flush=True)
                continue
            last[name] = (n, found["seconds"])
            dense = (found["seconds"], "") if name == "ours, dense" else dense
            ratio = f"{dense[1]}{dense[0] / found['seconds']:,.2f}" if dense else ""
            print(
                f"{n:>6}  {name:<20}{found['seconds']:>11.2f}{found['evaluations']:>13.0f}{found['likelihood']:>16.3f}"
                f"{found['memory']:>7.0f}{ratio:>14}",
                flush=True,
            )  # fmt: skip
    print('"~": of a dense fit that was not run, extrapolated')


if __name__ == "__main__":
    main()
