"""Galaxy images of an asked class: the adversarial game whose critic also names the class.

With r = D(x), f = D(G(z, c)) and C the critic's law of the class (Odena et al. 1610.09585, in logits and per image):

    min over D of E softplus(-r) + E softplus(f) - E log C(c | x) - E log C(c | G(z, c)) + (w/2) E |grad D(x)|^2
    min over G of E softplus(-f) - E log C(c | G(z, c))

The last term of the first line is ours in `laptop` and `quick` and absent in `paper` (w = 0): a critic that stays flat on the images
keeps the game near its equilibrium (R1, Mescheder et al. 1801.04406). That the critic names drawn galaxies rightly says little: both
players gain by galaxies that are easily named. The verdict measures the class anew on every draw, by what defines it in nature.

    paper            the published pair of networks at 128 px, told of the class
    laptop, quick    our networks (players.py) at 64 px and 32 px

Classes are those of your labels (`--classes`), three without: barred spiral, elliptical, spiral in simulated galaxies.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from simulacra.families.gan import Game, Rules, auxiliary_classifier, non_saturating
from simulacra.sciences.galaxies import adversarial, data, framing, statistics
from simulacra.sciences.galaxies.adversarial import ClassGameRecipe
from simulacra.sciences.galaxies.data import Images
from simulacra.sciences.galaxies.gan import PUBLISHED
from simulacra.study import Study


def rules(recipe: ClassGameRecipe) -> Rules:
    """The plain game with an auxiliary classifier, and a penalty on real images where the recipe weighs one."""
    return auxiliary_classifier(non_saturating(penalty=recipe.penalty))


def build(recipe: ClassGameRecipe, training: Images) -> Game[Images]:
    """The game of `recipe`."""
    return adversarial.build(recipe, training, rules(recipe), recipe.classes)


def restore(recipe: ClassGameRecipe, state: Mapping[str, Tensor]) -> Game[Images]:
    """The game in a saved state, to draw from."""
    return adversarial.restore(recipe, state, rules(recipe), recipe.classes)


laptop = ClassGameRecipe(penalty=1.0, batch=16, steps=4000, critic_width=16, beta2=0.99, threads=1)

study = Study(
    title="Galaxy images of an asked class by an auxiliary-classifier game",
    source="Odena, Olah, Shlens 2016, arXiv:1610.09585",
    recipes={
        "quick": laptop.model_copy(update={"side": 32, "simulated": 1200, "steps": 300, "draws": 120, "ema": 0.98}),
        "laptop": laptop,
        "paper": ClassGameRecipe(**PUBLISHED.model_dump()),
    },
    expect={"quick": "", "laptop": "", "paper": ""},
    load=framing.load_labelled,
    build=build,
    restore=restore,
    judge=statistics.judge,
    read=framing.read,
    read_as=framing.read_as,
    write=data.write,
    ask=framing.ask_class,
    picture=data.picture,
    caption=framing.caption,
    examine=adversarial.examine,
    figures=adversarial.figures,
    conditions=framing.CONDITIONS,
    citation="""@inproceedings{odena2017conditional,
  title = {Conditional Image Synthesis with Auxiliary Classifier {GANs}},
  author = {Odena, Augustus and Olah, Christopher and Shlens, Jonathon},
  booktitle = {International Conference on Machine Learning},
  year = {2017},
  eprint = {1610.09585},
}""",
)
