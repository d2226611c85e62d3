"""Masked autoencoders (He et al. 2021, 2111.06377): hide most of an image, learn to fill it in.

    image      x, (channels, side, side), cut into square patches, one token each
    hidden     a share of the patches, chosen anew for each row and step: 75 % in the paper
    encoder    sees the visible patches only, which makes it cheap
    decoder    lighter; takes the encoded tokens and, where a patch is hidden, one learned token; paints every patch
    loss       squared error on what was hidden

The loss is least for the conditional mean E[x_hidden | x_visible]: the fill-in is smoother than nature, and on Gaussian fields the
best that can be reached is known (`conditional_mean`).

Ours, not the paper's: a patch may be hidden in part, by any mask of pixels. Its token holds what is visible, zero elsewhere, and the
mask; only patches without a visible pixel are kept from the encoder. And the network may learn what a `start` misses, a fill-in that is
computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simulacra.descent import Descent

# ------------------------------------------------------------------------------------------------------------ patches


def in_patches(images: Tensor, patch: int) -> Tensor:
    """Images (n, channels, side, side) -> (n, patches, channels * patch^2), row by row of patches."""
    n, channels, side, _ = images.shape
    count = side // patch
    tiles = images.reshape(n, channels, count, patch, count, patch)
    return tiles.permute(0, 2, 4, 1, 3, 5).reshape(n, count**2, channels * patch**2)


def from_patches(patches: Tensor, channels: int, patch: int) -> Tensor:
    """The inverse of `in_patches`."""
    n, count = len(patches), math.isqrt(patches.shape[1])
    tiles = patches.reshape(n, count, count, channels, patch, patch)
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(n, channels, count * patch, count * patch)


def hide_patches(u: Tensor, share: float) -> Tensor:
    """Which of (n, patches) are hidden: in each row the round(share * patches) with the smallest u, which are uniform on [0, 1)."""
    count = u.shape[1]
    kept = torch.zeros_like(u, dtype=torch.bool)
    return kept.scatter(1, u.argsort(dim=1)[:, : round(share * count)], True)


def over_pixels(hidden: Tensor, patch: int) -> Tensor:
    """Hidden patches (n, patches) as hidden pixels (n, side, side)."""
    count = math.isqrt(hidden.shape[1])
    return hidden.view(-1, count, count).repeat_interleave(patch, 1).repeat_interleave(patch, 2)


def hidden_error(filled: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error per row, (n,), over the hidden pixels (n, side, side) of all channels; 0 where none is hidden."""
    squared = (filled - images).square().mean(dim=1) * hidden
    return squared.flatten(1).sum(1) / hidden.flatten(1).sum(1).clamp(min=1)


# -------------------------------------------------------------------------------------------------- linear fill-ins


def conditional_mean(covariance: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
    """Images (n, channels, side, side) of a Gaussian law with mean 0 and `covariance` (pixels, pixels) of their numbers, hidden ones
    (n, side, side) at E[x_h | x_v] = S_hv S_vv^-1 x_v: Wiener's filter, the least squared error that any fill-in can have."""
    filled = images.flatten(1).to(covariance)
    for row, mask in zip(filled, hidden[:, None].expand_as(images).flatten(1), strict=True):
        if mask.any() and not mask.all():
            row[mask] = covariance[mask][:, ~mask] @ torch.linalg.solve(covariance[~mask][:, ~mask], row[~mask])
    return filled.view_as(images).to(images)


class Linear(nn.Module):
    """The best linear fill-in from d principal axes, x ~ centre + L z + noise with z standard normal in d dimensions:

        z = (L_v' L_v + s^2)^-1 L_v' (x_v - centre_v),    x_h = centre_h + L_h z

    v the visible and h the hidden pixels, s^2 what the axes leave of a pixel's variance. If the images are a Gaussian field and d all
    its dimensions, nothing is better.
    """

    centre: Tensor
    loadings: Tensor
    noise: Tensor
    grams: Tensor

    def __init__(self, centre: Tensor, loadings: Tensor, noise: Tensor) -> None:
        """centre (channels, side, side), loadings L (channels, side, side, d), noise s^2 ()."""
        super().__init__()
        pixels = loadings.flatten(1, 2)
        self.register_buffer("centre", centre)
        self.register_buffer("loadings", loadings)
        self.register_buffer("noise", noise)
        self.register_buffer("grams", torch.einsum("cpd,cpe->pde", pixels, pixels).flatten(1))  # of each pixel

    def forward(self, images: Tensor, hidden: Tensor) -> Tensor:
        """The estimate of every pixel, visible ones too, of images (n, channels, side, side) with hidden pixels (n, side, side)."""
        d = self.loadings.shape[-1]
        seen = (~hidden).to(images)[:, None]
        visible = ((images - self.centre) * seen).flatten(1)
        gram = (seen.flatten(1) @ self.grams).view(-1, d, d) + self.noise * torch.eye(d, device=images.device)
        loadings = self.loadings.flatten(0, 2)
        z: Tensor = torch.linalg.solve(gram, (visible @ loadings)[..., None])[..., 0]
        estimate: Tensor = self.centre + (z @ loadings.T).view_as(images)
        return estimate


class Smooth(nn.Module):
    """The smoothest fill-in: the departure f from a centre that makes the sum of (k2 f - Laplacian f)^2 over the frame least, given the
    visible pixels. It is the conditional mean of a Whittle-Matern field of correlation length 1 / sqrt(k2) px (Lindgren, Rue &
    Lindstrom 2011): far from what is visible it falls back to the centre, near by it carries values and slopes on, and at k2 = 0 it is
    the biharmonic fill.

    Solved by `rounds` of conjugate gradients at each of the halved grids, the coarsest first, each beginning with what the one before
    found (cascadic multigrid). Few rounds leave large holes flatter than the exact solution, which costs little.
    """

    centre: Tensor

    def __init__(self, centre: Tensor, *, k2: float, rounds: int) -> None:
        """centre (channels, side, side), k2 in px^-2."""
        super().__init__()
        self.k2, self.rounds = k2, rounds
        self.register_buffer("centre", centre.clone())

    def forward(self, images: Tensor, hidden: Tensor) -> Tensor:
        """The estimate of every pixel of images (n, channels, side, side); visible ones as they are."""
        hole = hidden[:, None].to(images)
        return self.centre + self._solved((images - self.centre) * (1 - hole), hole, self.k2)

    def _solved(self, x: Tensor, hole: Tensor, k2: float) -> Tensor:
        """x (n, channels, side, side), 0 in the hole (n, 1, side, side) of ones, there filled in."""
        if x.shape[-1] > COARSEST and x.shape[-1] % 2 == 0:
            seen = F.avg_pool2d(1 - hole, 2)
            coarse = self._solved(F.avg_pool2d(x, 2) / seen.clamp(min=0.25), (seen == 0).to(x), 4 * k2)
            x = x + hole * F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        left = -hole * bending(bending(x, k2), k2)
        way, size = left, left.square().sum((2, 3), keepdim=True)
        for _ in range(self.rounds):
            bent = hole * bending(bending(way, k2), k2)
            length = size / (way * bent).sum((2, 3), keepdim=True).clamp(min=1e-30)
            x, left = x + length * way, left - length * bent
            before, size = size, left.square().sum((2, 3), keepdim=True)
            way = left + size / before.clamp(min=1e-30) * way
        return x


COARSEST = 8  # px


def bending(x: Tensor, k2: float) -> Tensor:
    """k2 x - Laplacian x of images (n, channels, side, side), with nothing beyond the frame to bend towards."""
    out = k2 * x
    for axis in (2, 3):
        step = x.diff(dim=axis)
        ahead, behind = ([slice(None)] * axis + [part] for part in (slice(1, None), slice(None, -1)))
        out[tuple(ahead)] += step
        out[tuple(behind)] -= step
    return out


# -------------------------------------------------------------------------------------------------------------- network


class MaskedAutoencoder(nn.Module):
    """Images with hidden pixels -> images without.

    `encoder` and `decoder` take tokens (n, t, width) and which of them may be attended to, (n, t) or None for all;
    `positions` say where each patch stands, (patches, width) for either. `centre` (channels, side, side) and `contrast` () of nature
    set the units. With a `start`, (images, hidden) -> estimates of every pixel, the network is told that fill-in too, begins as it, and
    adds what it misses, about one `unit` ().
    """

    centre: Tensor
    contrast: Tensor
    unit: Tensor
    at_encoder: Tensor
    at_decoder: Tensor

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, positions: tuple[Tensor, Tensor], *, patch: int, centre: Tensor, contrast: Tensor,
        start: nn.Module | None = None, unit: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if centre.shape[1] % patch:
            raise ValueError(f"patches of {patch} px do not tile {centre.shape[1]} px")
        self.patch, self.start = patch, start
        numbers = len(centre) * patch**2
        width, decoder_width = (p.shape[1] for p in positions)
        self.register_buffer("centre", centre.clone())
        self.register_buffer("contrast", contrast.clone())
        self.register_buffer("unit", (contrast if unit is None else unit).clone())
        self.register_buffer("at_encoder", positions[0], persistent=False)
        self.register_buffer("at_decoder", positions[1], persistent=False)
        self.encoder, self.decoder = encoder, decoder
        self.embed = nn.Linear((2 if start else 1) * numbers + patch**2, width)
        self.narrow = nn.Linear(width, decoder_width)
        self.unseen = nn.Parameter(0.02 * torch.randn(decoder_width))
        self.told = nn.Linear(numbers, decoder_width) if start else None
        self.paint = nn.Linear(decoder_width, numbers)
        if start:
            for parameter in self.paint.parameters():
                nn.init.zeros_(parameter)

    def forward(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Images (n, channels, side, side) whose hidden pixels (n, side, side) are filled in; what those hold is not looked at."""
        seen = ~hidden[:, None]
        images = torch.where(seen, images, self.centre)
        base = self.start(images, hidden) if self.start else self.centre.expand_as(images)
        tokens = self.embed(self._tokens(images, base, seen))
        patches = in_patches(seen.float(), self.patch).any(dim=2)  # (n, patches): with a visible pixel
        decoded = torch.where(patches[..., None], self.narrow(self._encoded(tokens, patches)), self.unseen) + self.at_decoder
        if self.told is not None:
            decoded = decoded + self.told(in_patches((base - self.centre) / self.contrast, self.patch))
        painted = from_patches(self.paint(self.decoder(decoded, None)), images.shape[1], self.patch)
        return torch.where(seen, images, base + self.unit * painted)

    def _tokens(self, images: Tensor, base: Tensor, seen: Tensor) -> Tensor:
        """Per patch: the visible pixels, with a start also how they depart from it, and which are hidden."""
        parts = [(images - self.centre) / self.contrast, ~seen]
        if self.start:
            parts.insert(1, (images - base) * seen / self.unit)
        return in_patches(torch.cat([part.to(images) for part in parts], dim=1), self.patch)

    def _encoded(self, tokens: Tensor, patches: Tensor) -> Tensor:
        """Tokens (n, patches, width) that have seen each other; where a patch is hidden, the token says nothing."""
        tokens = tokens + self.at_encoder
        counts = patches.sum(dim=1)
        kept = int(counts[0])
        if not self.training or kept in (0, patches.shape[1]) or bool((counts != kept).any()):
            return cast(Tensor, self.encoder(tokens, patches))
        # As many in every row: the others need not be computed. In training only, so that a row does not depend on its neighbours.
        rows = patches.nonzero()[:, 1].view(-1, kept, 1).expand(-1, -1, tokens.shape[2])
        return tokens.scatter(1, rows, cast(Tensor, self.encoder(tokens.gather(1, rows), None)))


# --------------------------------------------------------------------------------------------------------------- learner


class Filling:
    """A masked autoencoder in training: `step` takes images and masks, `fill` fills with the running mean of the weights."""

    def __init__(self, net: MaskedAutoencoder, descent: Descent) -> None:
        self.net, self.descent = net, descent  # of `net`

    def step(self, *groups: tuple[Tensor, Tensor]) -> Mapping[str, Tensor]:
        """One gradient on the mean of `hidden_error` over all rows of all groups (images, hidden); a group whose rows hide equally many
        patches whole is encoded without them."""
        rows = sum(len(images) for images, _ in groups)
        errors = [hidden_error(self.net(images, hidden), images, hidden) for images, hidden in groups]
        loss = torch.stack([error.sum() for error in errors]).sum() / rows
        norm = self.descent(loss / self.net.unit ** 2)  # of order one: Adam adds 1e-8 to the scale of gradients
        return {"loss": loss.detach(), "gradient": norm} | {f"mse_{k}": error.detach().mean() for k, error in enumerate(errors)}

    @torch.no_grad()
    def fill(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Images (n, channels, side, side) whose hidden pixels (n, side, side) are filled in, rows independent of each other."""
        was = self.descent.average.training
        filled: Tensor = self.descent.average.eval()(images, hidden)
        self.descent.average.train(was)
        return filled
