"""Galaxy images from Wasserstein's game with a gradient penalty.

With r = D(x), f = D(G(z)) and x^ = u x + (1 - u) G(z), u uniform on [0, 1) for each pair (Gulrajani et al. 1704.00028):

    min over D of E f - E r + lambda E (|grad D(x^)| - 1)^2          min over G of -E f          lambda = 10

The norm is over the whole image. A critic of slope 1 tells the earth mover's distance between drawn and real, which has a gradient
however far apart the two are: the generator need not, as in the plain game, chase the critic of the moment.

    paper            the published pair of networks at 128 px, its critic normalised row by row; five moves of the critic for each
                     of the generator, Adam 1e-4 with beta1 0, beta2 0.9 (Gulrajani et al., algorithm 1)
    laptop, quick    our networks (players.py) at 64 px and 32 px, one move of the critic for each of the generator
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from simulacra.families.gan import Game, Rules, wasserstein
from simulacra.sciences.galaxies import adversarial, framing
from simulacra.sciences.galaxies.adversarial import AdversarialRecipe
from simulacra.sciences.galaxies.data import Images
from simulacra.sciences.galaxies.gan import PUBLISHED
from simulacra.study import Study


def rules(recipe: AdversarialRecipe) -> Rules:
    """Wasserstein's game; `penalty` is lambda."""
    return wasserstein(penalty=recipe.penalty)


def build(recipe: AdversarialRecipe, training: Images) -> Game[Images]:
    """The game of `recipe`."""
    return adversarial.build(recipe, training, rules(recipe))


def restore(recipe: AdversarialRecipe, state: Mapping[str, Tensor]) -> Game[Images]:
    """The game in a saved state, to draw from."""
    return adversarial.restore(recipe, state, rules(recipe))


laptop = AdversarialRecipe(penalty=10.0, batch=16, steps=4000, threads=1)

study = Study(
    title="Galaxy images by Wasserstein's game with gradient penalty",
    source="Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville 2017, arXiv:1704.00028",
    recipes={
        "quick": laptop.model_copy(update={"side": 32, "simulated": 1200, "steps": 300, "draws": 120, "ema": 0.98}),
        "laptop": laptop,
        "paper": PUBLISHED.model_copy(
            update={"penalty": 10.0, "penalised": 64, "critic_steps": 5, "batch": 320}
            | {"lr": 1e-4, "critic_lr": 1e-4, "beta1": 0.0, "beta2": 0.9}
        ),
    },
    expect={
        "quick": "41 s of processor time on one core, data and verdict included",
        "laptop": "14 min on one thread of a 2-core machine with 7,500 training images, and 1 min for the verdict",
        "paper": "more than 0.35 s of processor time per image of a step, so a GPU's work (not run)",
    },
    build=build,
    restore=restore,
    examine=adversarial.examine,
    figures=adversarial.figures,
    citation="""@inproceedings{gulrajani2017improved,
  title = {Improved Training of Wasserstein {GANs}},
  author = {Gulrajani, Ishaan and Ahmed, Faruk and Arjovsky, Martin and Dumoulin, Vincent and Courville, Aaron},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {30},
  year = {2017},
  eprint = {1704.00028},
}""",
    **framing.UNCONDITIONAL,
)
