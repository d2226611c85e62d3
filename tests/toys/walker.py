"""Points that a straight flow carries from noise to a learned Gaussian, with every optional power that a study may have."""

import dataclasses

import numpy as np
import torch
from pydantic import Field

from simulacra.study import Recipe, Refused, Split
from toys import gaussian
from toys.gaussian import Points


class WalkerRecipe(Recipe):
    evaluations: int = Field(8, ge=1, le=1000, description="Steps of the flow.", json_schema_extra={"drawing": True})
    spoiled: int = Field(0, ge=0, description="Records of nature that cannot be used.")


class Walker:
    """Draws x_1 = centre + scale * x_0 by Euler steps of equal length; more steps than one change nothing but the last bits."""

    def __init__(self, recipe):
        self.recipe, self.law = recipe, torch.tensor([[0.0, 0.0], [1.0, 1.0]])  # centre, scale
        self.seen = torch.zeros(())  # needed to go on learning, not to draw

    def step(self, batch):
        self.seen += 1
        self.law = self.law + (torch.stack([batch.at.mean(0), batch.at.std(0)]) - self.law) / self.seen
        return {"centre": self.law[0].norm()}

    def trace(self, like, noise, frames):
        start = noise.normal(2)
        end = self.law[0] + self.law[1] * start + like.at
        steps = [Points(start + (end - start) * k / self.recipe.evaluations) for k in range(self.recipe.evaluations + 1)]
        return [steps[i] for i in np.linspace(0, len(steps) - 1, frames).round().astype(int)]

    def draw(self, like, noise):
        return self.trace(like, noise, 2)[-1]

    def state_dict(self):
        return {"law": self.law, "seen": self.seen}

    def load_state_dict(self, state):
        self.law, self.seen = state["law"], state["seen"]

    def to_ship(self):
        return {"law": self.law}


def restore(recipe, state):
    learner = Walker(recipe)
    learner.law = state["law"]
    learner.seen = state.get("seen", learner.seen)
    return learner


def load(recipe):
    split = gaussian.load(gaussian.GaussianRecipe(seed=recipe.seed, data=recipe.data))
    bad = [f"record {i}: lies at infinity" for i in range(recipe.spoiled)]
    return Split(split.train, split.validation, split.held_out, f"{split.origin} of {recipe.data}", split.files, bad)


def ask(recipe, n, conditions):
    """Points moved by the sum of the asked shifts, along the first axis."""
    try:
        shift = sum(float(part) for part in conditions.get("shift", "0").split(","))
    except ValueError:
        raise Refused(f"shift {conditions['shift']!r} is not a length") from None
    return Points(torch.tensor([[shift, 0.0]]).repeat(n, 1))


def export(points, out, against):
    known = {tuple(row) for row in np.loadtxt(against, delimiter=",").tolist()} if against else set()
    rows = [[*row, *([tuple(row) not in known] if against else [])] for row in points.at.double().numpy().round(3).tolist()]
    out.write_text("".join(",".join(f"{float(v):.3f}" for v in row) + "\n" for row in rows), encoding="utf-8")


def summary(asked, drawn):
    return [f"mean of x is {float(drawn.at[:, 0].mean()):.1f}, asked {float(asked.at[:, 0].mean()):.1f}", "[bold]not markup[/bold]"]


study = dataclasses.replace(
    gaussian.study, title="A straight flow", recipes={"quick": WalkerRecipe(steps=20, batch=64, draws=200)}, load=load,
    build=lambda recipe, training: Walker(recipe), restore=restore, ask=ask, export=export, formats=(".csv",), summary=summary,
    conditions={"shift": "Length by which the first axis is moved, in m; several add up.", "frame_of_rest": "Nothing moves in it."},
    models=lambda points: [f"2\n</script><script>alert(1)</script>\nH 0 0 0\nH {x:.3f} {y:.3f} 1\n" for x, y in points.at.tolist()],
)  # fmt: skip
