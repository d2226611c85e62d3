"""Galaxy images from the plain adversarial game: what it draws, and how many different images it draws.

With r = D(x) of real images, f = D(G(z)) of drawn ones (Goodfellow et al. 1406.2661):

    min over D of E softplus(-r) + E softplus(f)          min over G of E softplus(-f)

The second is the loss that does not saturate; for log(1 - sigmoid(f)) itself a generator that is losing has no gradient. Nothing
keeps the critic flat where the images are, so the game circles (Mescheder et al. 1801.04406), and the generator may serve the
critic of the moment with a few images. The verdict counts them: coverage, class shares, different images among the draws.

    laptop, paper    the published pair of networks and its settings (Radford et al. 1511.06434: Adam 2e-4 with beta1 0.5, batch
                     normalisation, no penalty, the last weights draw) at 64 px and 128 px
    quick            the same at 32 px on simulated galaxies

What cures it is an option: `--penalty 1` (R1: |grad D|^2 on real images; the critic then normalises row by row), `--ema 0.995`,
`--augment`, `--network styled`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from simulacra.families.gan import Game, Rules, non_saturating
from simulacra.sciences.galaxies import adversarial, framing
from simulacra.sciences.galaxies.adversarial import AdversarialRecipe
from simulacra.sciences.galaxies.data import Images
from simulacra.study import Study

PUBLISHED = AdversarialRecipe(
    network="dcgan", latent=100, width=64, critic_width=64, lr=2e-4, critic_lr=2e-4, decay=False, beta1=0.5, beta2=0.999, ema=0.0,
    turned=False, side=128, batch=128, steps=20_000, threads=1,
)  # fmt: skip


def rules(recipe: AdversarialRecipe) -> Rules:
    """The plain game, or with a penalty on real images where the recipe weighs one."""
    return non_saturating(penalty=recipe.penalty)


def build(recipe: AdversarialRecipe, training: Images) -> Game[Images]:
    """The game of `recipe`."""
    return adversarial.build(recipe, training, rules(recipe))


def restore(recipe: AdversarialRecipe, state: Mapping[str, Tensor]) -> Game[Images]:
    """The game in a saved state, to draw from."""
    return adversarial.restore(recipe, state, rules(recipe))


study = Study(
    title="Galaxy images by the plain adversarial game",
    source="Goodfellow et al. 2014, arXiv:1406.2661; networks of Radford, Metz, Chintala, arXiv:1511.06434",
    recipes={
        "quick": PUBLISHED.model_copy(
            update={"side": 32, "simulated": 1200, "width": 32, "critic_width": 32, "batch": 32, "steps": 200, "draws": 120}
        ),
        "laptop": PUBLISHED.model_copy(update={"side": 64, "width": 32, "critic_width": 32, "batch": 16, "steps": 1450, "turned": True}),
        "paper": PUBLISHED,
    },
    expect={
        "quick": "about 45 s of processor time on one core (from single steps)",
        "laptop": "8 min on one thread of a busy 2-core machine with 7,500 training images, and 1 min for the verdict",
        "paper": "0.35 s of processor time per image of a step, so a GPU's work (a step was tried)",
    },
    build=build,
    restore=restore,
    examine=adversarial.examine,
    figures=adversarial.figures,
    citation="""@inproceedings{goodfellow2014generative,
  title = {Generative Adversarial Nets},
  author = {Goodfellow, Ian and Pouget-Abadie, Jean and Mirza, Mehdi and Xu, Bing and Warde-Farley, David and Ozair, Sherjil and
            Courville, Aaron and Bengio, Yoshua},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {27},
  year = {2014},
  eprint = {1406.2661},
}""",
    **framing.UNCONDITIONAL,
)
