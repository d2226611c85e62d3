"""A correlated Gaussian in the plane, imitated by a linear map trained on its first two moments with noise in every step."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from simulacra.descent import Descent, under
from simulacra.evidence import average, compare, distribution
from simulacra.measures import distance
from simulacra.study import Recipe, Refused, Samples, Split, Study


@dataclasses.dataclass(frozen=True)
class Points(Samples):
    at: Tensor  # (n, 2)

    def check(self):
        if not torch.isfinite(self.at).all():
            raise Refused("points must be finite")


class GaussianRecipe(Recipe):
    rows: int = Field(2000, ge=20, le=100_000, description="Points of nature to simulate.")
    explode_at: int = Field(0, ge=0, description="Step at which the loss becomes infinite; 0: never.")
    slow: float = Field(0.0, ge=0, le=1, description="Seconds of sleep per step.")
    scales: tuple[float, ...] = Field((2.0, 0.5), description="Standard deviations along the two axes.")


class Linear:
    def __init__(self, recipe):
        self.recipe, self.net = recipe, nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
        self.descent = Descent(self.net, lr=1e-2, ema=0.9, clip=5.0, warmup=3, horizon=recipe.steps)

    def step(self, batch):
        import time

        time.sleep(self.recipe.slow)
        fake = self.net(torch.randn(len(batch), 2))
        loss = ((fake.mean(0) - batch.at.mean(0)) ** 2).sum() + ((fake.T.cov() - batch.at.T.cov()) ** 2).sum()
        if self.descent.count + 1 == self.recipe.explode_at:
            loss = loss * float("inf")
        norm = self.descent(loss)
        return {"loss": loss.detach(), "norm": norm}

    def draw(self, like, noise):
        return Points(self.descent.average(noise.normal(2)))

    def state_dict(self):
        return {f"map.{k}": v for k, v in self.descent.state_dict().items()}

    def load_state_dict(self, state):
        self.descent.load_state_dict(under(state, "map"))


def load(recipe):
    if recipe.data:
        points = read(recipe.data)
    else:
        rng = np.random.default_rng(recipe.seed)
        points = Points(torch.from_numpy(rng.normal(size=(recipe.rows, 2)) * recipe.scales).float())
    n = len(points) // 10
    digest = str(float(points.at.sum()))
    return Split(points[2 * n :], points[:n], points[n : 2 * n], f"{len(points)} points", files={"points": digest})


def read(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            return Points(torch.from_numpy(file["at"]))
    except (OSError, KeyError, ValueError) as error:
        raise Refused(f"{path} holds no points ({error})") from error


def write(points, path: Path):
    np.savez(path, at=points.at.numpy())


def judge(nature, drawn, *, seed, training=None):
    statistics = [
        distribution("x", "m", "first coordinate", lambda s: s.at[:, 0].numpy(), np.linspace(-6, 6, 25), rival="origin"),
        average("spread", "m2", "mean squares", lambda s: s.at.numpy() ** 2, np.arange(2), "axis", rival="origin"),
        dataclasses.replace(
            average("coverage", "", "share missed", lambda s: s.at.numpy().astype(float), np.arange(2), "axis", rival="origin"),
            distance=distance.missed, tested=False,
        ),
    ]  # fmt: skip
    rival = Points(nature.at * 0 + nature.at.mean(0))
    return compare(statistics, nature, drawn, {"origin": rival}, seed=seed, permutations=199, halves=20)


study = Study(
    title="A Gaussian in the plane", source="Gauss 1809, doi:10.1000/none",
    recipes={"quick": GaussianRecipe(steps=60, batch=32, draws=200), "laptop": GaussianRecipe(steps=500, batch=64, draws=200)},
    expect={"quick": "one second"}, load=load, build=lambda recipe, train: Linear(recipe), judge=judge, read=read, write=write,
    ask=lambda recipe, n, conditions: Points(torch.zeros(n, 2)),
    picture=lambda s: np.repeat(s.at.abs().clamp(0, 1).numpy()[:, :, None, None], 3, axis=3).astype(float),
)  # fmt: skip
