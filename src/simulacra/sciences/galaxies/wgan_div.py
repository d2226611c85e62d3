"""Galaxy images from the game of the Wasserstein divergence.

With r = D(x), f = D(G(z)) and x^ = u x + (1 - u) G(z), u uniform on [0, 1) for each pair (Wu et al. 1712.01026):

    min over D of E f - E r + k E |grad D(x^)|^p          min over G of -E f          k = 2, p = 6

No slope is asked of the critic: it may be as steep as pays for itself. To first order the divergence needs no bound on the critic, so
none is broken where networks cannot keep one.

    paper            the published pair of networks at 128 px, its critic normalised row by row; five moves of the critic for each of
                     the generator, Adam 2e-4 with beta1 0.5
    laptop, quick    our networks (players.py) at 64 px and 32 px, one move of the critic for each of the generator
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor

from simulacra.families.gan import Game, Rules, wasserstein_div
from simulacra.sciences.galaxies import adversarial, framing, wgan_gp
from simulacra.sciences.galaxies.adversarial import AdversarialRecipe
from simulacra.sciences.galaxies.data import Images
from simulacra.sciences.galaxies.gan import PUBLISHED
from simulacra.study import Study


class DivergenceRecipe(AdversarialRecipe):
    """A game whose penalty has a power of its own."""

    power: float = Field(6.0, ge=2, le=12, description="Power p of the critic's slope in the penalty.")


def rules(recipe: DivergenceRecipe) -> Rules:
    """The game of the Wasserstein divergence; `penalty` is k, `power` is p."""
    return wasserstein_div(penalty=recipe.penalty, power=recipe.power)


def build(recipe: DivergenceRecipe, training: Images) -> Game[Images]:
    """The game of `recipe`."""
    return adversarial.build(recipe, training, rules(recipe))


def restore(recipe: DivergenceRecipe, state: Mapping[str, Tensor]) -> Game[Images]:
    """The game in a saved state, to draw from."""
    return adversarial.restore(recipe, state, rules(recipe))


laptop = DivergenceRecipe(**(wgan_gp.laptop.model_dump() | {"penalty": 2.0, "steps": 8000}))

study = Study(
    title="Galaxy images by the game of the Wasserstein divergence",
    source="Wu, Huang, Thoma, Acharya, Van Gool 2018, arXiv:1712.01026",
    recipes={
        "quick": laptop.model_copy(update={"side": 32, "simulated": 1200, "steps": 300, "draws": 120, "ema": 0.98}),
        "laptop": laptop,
        "paper": DivergenceRecipe(**(PUBLISHED.model_dump() | {"penalty": 2.0, "critic_steps": 5, "batch": 320, "penalised": 64})),
    },
    expect={
        "quick": "about 45 s of processor time on one core (from single steps)",
        "laptop": "17 min on one thread of a shared core with 7,500 training images, and 1 min for the verdict",
        "paper": "more than 0.35 s of processor time per image of a step, so a GPU's work (not run)",
    },
    build=build,
    restore=restore,
    examine=adversarial.examine,
    figures=adversarial.figures,
    citation="""@inproceedings{wu2018wasserstein,
  title = {Wasserstein Divergence for {GANs}},
  author = {Wu, Jiqing and Huang, Zhiwu and Thoma, Janine and Acharya, Dinesh and Van Gool, Luc},
  booktitle = {European Conference on Computer Vision},
  year = {2018},
  eprint = {1712.01026},
}""",
    **framing.UNCONDITIONAL,
)
