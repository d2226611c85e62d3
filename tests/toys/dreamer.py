"""Points that a linear map makes of standard normal positions and of a shift that is asked for: a generator that imagines."""

import dataclasses

import torch

from toys import gaussian, walker
from toys.gaussian import Points


class Dreamer:
    """Learns centre and scale along either axis; the asked shift of a row, its first coordinate in the template, is added."""

    latent = 2

    def __init__(self):
        self.law, self.seen = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.zeros(())

    step, state_dict, load_state_dict = walker.Walker.step, walker.Walker.state_dict, walker.Walker.load_state_dict

    def draw(self, like, noise):
        return self.imagine(noise.normal(self.latent), like)

    def imagine(self, position, like, towards=None, share=None):
        shift = like.at if towards is None else torch.lerp(like.at, towards.at, share[:, None])
        return Points(self.law[0] + self.law[1] * position + shift)


def ask(recipe, n, conditions):
    """Points moved along the first axis by the asked shifts in turn."""
    asked = torch.tensor([float(part) for part in conditions.get("shift", "0").split(",")])
    return Points(torch.stack([asked[torch.arange(n) % len(asked)], torch.zeros(n)], 1))


study = dataclasses.replace(
    gaussian.study, title="Points from a linear map", recipes={"quick": gaussian.GaussianRecipe(steps=20, batch=64, draws=200)},
    build=lambda recipe, training: Dreamer(), ask=ask, conditions={"shift": "Length by which the first axis is moved, in m."},
    caption=lambda points: [f"shift {x:g}" for x in points.at[:, 0].tolist()],
)  # fmt: skip
