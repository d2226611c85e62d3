"""Galaxy images of an asked class: the adversarial game whose critic also names the class.

With r = D(x), f = D(G(z, c)) and C the critic's law of the class (Odena et al. 1610.09585, in logits and per image):

    min over D of E softplus(-r) + E softplus(f) - E log C(c | x) - E log C(c | G(z, c))
    min over G of E softplus(-f) - E log C(c | G(z, c))

Classes can be named in any game (`game`): with `wasserstein`, -r + f and -f stand for the softplus terms, and the critic's slope
between real and drawn is penalised (Gulrajani et al. 1704.00028). The last term of the first line teaches the critic to call a draw
by the class that was asked for, right or wrong; without it (`named_draws`) names are learned from nature alone. That the critic names
drawn galaxies rightly says little: the generator gains by galaxies that this critic names easily. The verdict measures the class
anew on every draw, by what defines it in nature.

    paper            the published game and the published pair of networks at 128 px, told of the class
    laptop, quick    names learned from nature, in Wasserstein's game, our networks (players.py) at 64 px and 32 px. In short trials
                     the published game with a penalty on real images (R1) drew a few images over and over

Classes are those of your labels (`--classes`), three without: barred spiral, elliptical, spiral in simulated galaxies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch import Tensor

from simulacra.families.gan import Game, Rules, auxiliary_classifier, non_saturating, wasserstein
from simulacra.sciences.galaxies import adversarial, framing, wgan_gp
from simulacra.sciences.galaxies.adversarial import ClassGameRecipe
from simulacra.sciences.galaxies.data import Images
from simulacra.sciences.galaxies.gan import PUBLISHED
from simulacra.study import Study


class NamingRecipe(ClassGameRecipe):
    """A game whose generator is told a class and whose critic names it."""

    game: Literal["wasserstein", "non-saturating"] = Field(
        "wasserstein", description="What is played beside the naming; `penalty` weighs the slope between the two, or R1 on real images."
    )
    naming: float = Field(1.0, ge=0, le=100, description="Weight of the loss on the names of classes, for both players.")
    named_draws: bool = Field(True, description="The critic learns names from drawn images too, as published; false: from nature alone.")


def rules(recipe: NamingRecipe) -> Rules:
    """The recipe's game with an auxiliary classifier."""
    known = {"wasserstein": wasserstein, "non-saturating": non_saturating}
    return auxiliary_classifier(known[recipe.game](penalty=recipe.penalty), weight=recipe.naming, named_draws=recipe.named_draws)


def build(recipe: NamingRecipe, training: Images) -> Game[Images]:
    """The game of `recipe`."""
    return adversarial.build(recipe, training, rules(recipe), recipe.classes)


def restore(recipe: NamingRecipe, state: Mapping[str, Tensor]) -> Game[Images]:
    """The game in a saved state, to draw from."""
    return adversarial.restore(recipe, state, rules(recipe), recipe.classes)


laptop = NamingRecipe(**(wgan_gp.laptop.model_dump() | {"steps": 8000}), naming=2.0, named_draws=False)

study = Study(
    title="Galaxy images of an asked class by an auxiliary-classifier game",
    source="Odena, Olah, Shlens 2016, arXiv:1610.09585",
    recipes={
        "quick": laptop.model_copy(update={"side": 32, "simulated": 1200, "steps": 300, "draws": 120, "ema": 0.98}),
        "laptop": laptop,
        "paper": NamingRecipe(**(PUBLISHED.model_dump() | {"game": "non-saturating"})),
    },
    expect={
        "quick": "about 50 s of processor time on one core (from single steps)",
        "laptop": "28 min on one thread of a 2-core machine with 7,500 training images, and 1 min for the verdict",
        "paper": "0.35 s of processor time per image of a step, so a GPU's work (not run)",
    },
    build=build,
    restore=restore,
    examine=adversarial.examine,
    figures=adversarial.figures,
    citation="""@inproceedings{odena2017conditional,
  title = {Conditional Image Synthesis with Auxiliary Classifier {GANs}},
  author = {Odena, Augustus and Olah, Christopher and Shlens, Jonathon},
  booktitle = {International Conference on Machine Learning},
  year = {2017},
  eprint = {1610.09585},
}""",
    **framing.BY_CLASS,
)
