"""What equivariance means for the network of molecules.edm, as one picture for the documentation, with the errors that were measured.

    python benchmarks/molecule_pictures.py [FILE]            default: docs/images/molecules-equivariance.png

A network is trained as the recipe `quick` says, on molecules made by rule: half a minute of one core. A molecule of that family that
it was not trained on is given some noise, and the arrows show what the network answers at each atom. Then the same noisy
molecule is turned, mirrored, moved, and its atoms listed in another order. Under each stands the largest deviation from the first
answer carried along, over all atoms and features, in float64; and the same for the network as published (9 blocks of width 256)
with weights at random, since equivariance holds for any weights.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from simulacra.families import diffusion
from simulacra.sciences.molecules import pictures
from simulacra.sciences.molecules.data import Molecule, unstacked
from simulacra.sciences.molecules.edm import EDM, Coding, Denoiser, build, load, study
from simulacra.training import batches_from

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patheffects import withStroke
from PIL import Image

FILE = Path(__file__).parent.parent / "docs" / "images" / "molecules-equivariance.png"
LEVEL = 150  # of 1000: how much noise is in the molecule
LONGEST = 1.3  # Angstrom in the picture of the longest arrow
SIDE, FINER = 420, 3


class Motion(NamedTuple):
    """A way to move a molecule: atoms at `positions @ matrix + shift`, listed in `order`."""

    name: str
    matrix: NDArray[np.float64]
    shift: NDArray[np.float64]
    order: NDArray[np.int64]


def main(file: Path = FILE) -> None:
    learner, molecule = trained()
    noisy = with_noise(molecule, learner)
    order = np.arange(len(molecule.numbers))
    plain, nothing = np.eye(3), np.zeros(3)
    motions = [
        Motion("a noisy molecule", plain, nothing, order),
        Motion("turned", Rotation.from_euler("zx", [75, 30], degrees=True).as_matrix().T, nothing, order),
        Motion("mirrored", np.diag([-1.0, 1, 1]), nothing, order),
        Motion("moved by 100 Å", plain, np.array([60.0, 80, 0]), order),
        Motion("atoms in another order", plain, nothing, np.random.default_rng(1).permutation(order)),
    ]
    torch.manual_seed(0)
    published = Denoiser(learner.coding.features, 0, width=256, depth=9)
    networks = [network.double() for network in (learner.descent.average, published)]
    found = [[noise_found(network, learner.coding, noisy, motion) for motion in motions] for network in networks]
    errors = [[deviation(f[0], answer, motion) for answer, motion in zip(f, motions, strict=True)] for f in found]
    largest = [float(f[0].abs().max()) for f in found]
    for k, motion in enumerate(motions[1:], start=1):
        print(f"{motion.name:24s} trained {errors[0][k]:.1e} of {largest[0]:.2g}, as published {errors[1][k]:.1e} of {largest[1]:.2g}")
    show(noisy, motions, found[0], errors, file)
    print(f"{file}: {file.stat().st_size / 1e3:.0f} kB")


def trained() -> tuple[EDM, Molecule]:
    """A network after the recipe `quick`, and a held-out molecule of nine heavy atoms, N and O among them."""
    recipe = study.recipes["quick"]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    split = load(recipe)
    learner = build(recipe, split.train)
    rows = batches_from(split.train, recipe.batch, recipe.seed, 0)
    for _ in range(recipe.steps):
        learner.step(split.train[next(rows)])
    held_out = unstacked(split.held_out)
    return learner, next(m for m in held_out if (m.numbers > 1).sum() == 9 and {7, 8} <= set(m.numbers.tolist()))


def with_noise(molecule: Molecule, learner: EDM) -> Molecule:
    """The molecule along its axes, at LEVEL of the diffusion."""
    along = pictures.along_principal_axes(molecule.positions.astype(float))
    noise = np.random.default_rng(0).normal(size=along.shape)
    noise -= noise.mean(0)
    both = (torch.from_numpy(a)[None] for a in (along, noise))
    z = diffusion.noised(*both, torch.tensor([LEVEL]), learner.schedule)[0].numpy()
    return Molecule(molecule.numbers, z, molecule.charges, molecule.bonds)


def placed(molecule: Molecule, motion: Motion) -> Molecule:
    """The molecule moved, its atoms listed in the order of the motion."""
    order = motion.order
    bonds = None if molecule.bonds is None else molecule.bonds[np.ix_(order, order)]
    return Molecule(molecule.numbers[order], (molecule.positions @ motion.matrix + motion.shift)[order], molecule.charges[order], bonds)


def noise_found(network: Denoiser, coding: Coding, molecule: Molecule, motion: Motion) -> Tensor:
    """What the network says of the moved molecule: (atoms, 3 + features), positions first."""
    moved = placed(molecule, motion)
    numbers = torch.from_numpy(moved.numbers.astype(np.int64))[None]
    kinds = (numbers[..., None] == coding.atomic_numbers(torch.device("cpu"))).double() / coding.element_scale
    z = torch.cat([torch.from_numpy(moved.positions)[None], kinds, numbers[..., None] / 10], dim=2)
    with torch.no_grad():
        found: Tensor = network(z, torch.full((1,), LEVEL / 1000, dtype=torch.float64), torch.zeros(1, 0, dtype=torch.float64))[0]
    return found


def deviation(first: Tensor, found: Tensor, motion: Motion) -> float:
    """Largest difference between what was found for the moved molecule and the first answer, moved likewise."""
    carried = torch.cat([first[:, :3] @ torch.from_numpy(motion.matrix), first[:, 3:]], dim=1)[torch.from_numpy(motion.order)]
    return float((found - carried).abs().max())


def show(molecule: Molecule, motions: list[Motion], found: list[Tensor], errors: list[list[float]], file: Path) -> None:
    figure, axes = plt.subplots(1, len(motions), figsize=(15, 4.0), dpi=100)
    longest = float(found[0][:, :3].norm(dim=1).max())
    reach = max(float(np.abs(molecule.positions @ m.matrix)[:, :2].max()) for m in motions) + 1.1
    for k, (panel, motion, answer) in enumerate(zip(axes, motions, found, strict=True)):
        moved = placed(molecule, motion)
        view = pictures.View(np.eye(3), motion.shift, 0.5 / reach, 3.0, -3.0)
        panel.imshow(pictures.shaded(moved, view, SIDE, FINER), extent=(-reach, reach, -reach, reach))
        (x, y, _), (dx, dy, _) = (moved.positions - motion.shift).T, answer[:, :3].numpy().T * LONGEST / longest
        panel.quiver(x, y, dx, dy, angles="xy", scale_units="xy", scale=1, color="#d95f02", width=0.012, zorder=3)
        if (motion.order != motions[0].order).any():
            for place in range(len(x)):
                label = panel.text(x[place], y[place], str(place + 1), fontsize=9, ha="center", va="center", zorder=4)
                label.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        panel.set_title(motion.name, fontsize=15)
        off, full_size = powers(errors[0][k]), powers(errors[1][k])
        below = f"off by {off}\npublished size: {full_size}" if k else "arrows: the network's\nanswer at each atom"
        panel.set_xlabel(below, fontsize=13)
        panel.set_xticks([])
        panel.set_yticks([])
        for side in panel.spines.values():
            side.set_visible(False)
    figure.tight_layout()
    figure.savefig(file)
    Image.open(file).convert("RGB").quantize(128).save(file, optimize=True)  # a third of the bytes


def powers(value: float) -> str:
    """1.2e-15 as 1 x 10 to the -15, or 0."""
    if value == 0:
        return "0"
    digits, exponent = f"{value:.0e}".split("e")
    return rf"{digits} $\times\,10^{{{int(exponent)}}}$"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
