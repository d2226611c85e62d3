"""The networks that play adversarial games over galaxy images.

`Deconvolving` and `Convolving` are the deep convolutional pair of Radford et al. (1511.06434) as the tutorials built on it write it:
kernels of 4 px and strides of 2 from 4 px to the side of the image, batch normalisation everywhere but next to the image, ReLU in
the generator, LeakyReLU(0.2) in the critic, tanh at the end, weights from N(0, 0.02), no biases beside a normalisation. They see
brightness as it is, from -1 to 1.

    classes     joined to the latent numbers, one number each that is 1 for the class drawn (Odena et al. 1610.09585)
    penalty     a critic whose slope is penalised row by row may not couple rows: it normalises each row over all its channels and
                pixels, as Gulrajani et al. (1704.00028) advise

`Styled` and `Seeing` are ours, for minutes on one core. Four things make them quick:

    brightness  on an asinh scale (`stretched`), where the noise of the sky is not lost beside the light of the galaxy. The generator
                rounds to whole counts as cameras and files do; backwards the rounding is the identity
    start       the generator starts from the principal components of the training images, drawn with their means and spreads in each
                class, and learns what is missing: curved laws of the components, sharp structure, noise
    noise       real skies differ from pixel to pixel, and a generator without noise would have to invent it from a few numbers.
                A position holds `style` numbers for the galaxy and one standard normal number per pixel and band for its noise,
                which a learned kernel correlates and a learned map scales: bright pixels are noisier
    spectrum    the critic also sees each row's power spectrum, in units of its spread in training. What a network of a few layers
                learns late (fine-scaled power is weak) is told from the start (compare Jung & Keuper 2012.03110)
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simulacra.families.autoencoder import Axes
from simulacra.nets import conv
from simulacra.nets.embedding import ClassEmbedding

KNEE = 8.0  # counts of 255 where the brightness scale turns from linear to logarithmic: about twice the noise of the sky
TOP = math.asinh(255 / KNEE)
COUNTS = torch.asinh(torch.arange(256) / KNEE) * (2 / TOP) - 1  # whole counts on the stretched scale
CORE = 4  # px: side of the smallest maps
DETAILS = 6  # maps at the full side from which details are added to the picture
SMOOTH = 32  # px: largest side at which principal components are kept


def stretched(brightness: Tensor) -> Tensor:
    """Brightness in [0, 1] as asinh(255 x / KNEE), scaled to [-1, 1]."""
    return torch.asinh(255 / KNEE * brightness) * (2 / TOP) - 1


def unstretched(y: Tensor) -> Tensor:
    """The inverse of `stretched`."""
    return torch.sinh((y + 1) * (TOP / 2)) * (KNEE / 255)


def whole(y: Tensor) -> Tensor:
    """Stretched brightness at whole counts between 0 and 255; the gradient passes as if nothing had been rounded."""
    with torch.no_grad():
        step = COUNTS.to(y)[(255 * unstretched(y)).round_().clamp_(0, 255).long()] - y
    return y + step


def shares(condition: Tensor, classes: int) -> Tensor:
    """Class numbers (n,), or weights (n, classes), as weights (n, classes)."""
    return F.one_hot(condition.long(), classes).float() if condition.ndim == 1 else condition


# ------------------------------------------------------------------------------------------------------- the published pair


class Deconvolving(nn.Module):
    """z (n, latent) and, with `classes`, a class -> images (n, bands, side, side) in [-1, 1]; `width` maps at half the side."""

    def __init__(self, side: int, bands: int, latent: int, width: int, classes: int = 0) -> None:
        super().__init__()
        self.latent, self.classes = latent, classes
        doublings = conv.core_side(side, 0).bit_length() - CORE.bit_length()
        widths = [width << k for k in reversed(range(doublings))]
        first = nn.ConvTranspose2d(latent + classes, widths[0], CORE, bias=False)
        layers: list[nn.Module] = [first, nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for before, after in pairwise(widths):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], bands, 4, 2, 1, bias=False), nn.Tanh())
        self.apply(_as_published)

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        if condition is not None and self.classes:
            z = torch.cat([z, shares(condition, self.classes)], 1)
        images: Tensor = self.net(z[:, :, None, None])
        return images


class Convolving(nn.Module):
    """Images (n, bands, side, side) -> a score (n,), or with `classes` (n, 1 + classes): a score and logits of the classes.
    `coupled`: batch normalisation; false: normalisation of each row, for a penalty on the slope."""

    def __init__(self, side: int, bands: int, width: int, classes: int = 0, *, coupled: bool = True) -> None:
        super().__init__()
        self.classes = classes
        halvings = conv.core_side(side, 0).bit_length() - CORE.bit_length()
        widths = [width << k for k in range(halvings)]
        layers: list[nn.Module] = [nn.Conv2d(bands, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        for before, after in pairwise(widths):
            norm = nn.BatchNorm2d(after) if coupled else nn.GroupNorm(1, after)
            layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), norm, nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1 + classes, CORE, bias=False))
        self.apply(_as_published)

    def forward(self, images: Tensor) -> Tensor:
        said: Tensor = self.net(images).flatten(1)
        return said if self.classes else said[:, 0]


def _as_published(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d | nn.GroupNorm):
        nn.init.normal_(layer.weight, 1.0, 0.02)
        nn.init.zeros_(layer.bias)


# --------------------------------------------------------------------------------------------------------------- our pair


class Styled(nn.Module):
    """Positions (n, latent) and, with `classes`, a class -> images (n, bands, side, side) on the stretched scale, at whole counts.

    The first `style` numbers say which galaxy. In units of the spread of training they are its principal components, but for what a
    small dense net adds to them; the same net makes a core of 4 px, and scale and offset of the feature maps at every stage (Perez
    et al. 1709.07871). Every stage sees the smooth picture of the components, and the last one adds to it. The other numbers are maps
    of noise, one per band: every stage sees them, averaged down to its side; and correlated by a kernel of 5 px and scaled by a map
    they are the grain of the picture.
    """

    centre: Tensor
    axes: Tensor

    def __init__(self, side: int, bands: int, style: int, width: int, classes: int = 0, hidden: int = 128) -> None:
        super().__init__()
        self.side, self.bands, self.style = side, bands, style
        self.latent = style + bands * side * side
        self.named = ClassEmbedding(classes, style) if classes else None
        doublings = conv.core_side(side, 0).bit_length() - CORE.bit_length()
        widths = [width << k for k in reversed(range(doublings))]  # at 4 px, 8 px, ..., half the side
        inputs = style * (2 if classes else 1)
        self.mapping = nn.Sequential(nn.Linear(inputs, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, hidden), nn.LeakyReLU(0.2))
        self.core = nn.Linear(hidden, widths[0] * CORE**2)
        self.stages = nn.ModuleList(conv.doubling(before, after) for before, after in pairwise(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(math.gcd(conv.GROUPS, w), w, affine=False) for w in widths)
        self.tuning = nn.ModuleList(nn.Linear(hidden, 2 * w) for w in widths)
        self.taken = nn.ModuleList(nn.Conv2d(2 * bands, w, 1) for w in widths)  # from the smooth picture and from the noise
        self.smooth = min(side, SMOOTH)
        self.register_buffer("centre", torch.zeros(bands * self.smooth**2))
        self.register_buffer("axes", torch.zeros(style, bands * self.smooth**2))
        self.middle = nn.Parameter(torch.zeros(max(classes, 1), style))
        self.spread = nn.Parameter(torch.ones(max(classes, 1), style))
        self.bent = nn.Linear(hidden, style)
        # Linear interpolation and kernels that all pixels share: transposed kernels left a grid of 2 px on every galaxy.
        self.coarse = nn.Conv2d(widths[-1], DETAILS, 3, padding=1)
        self.fine = nn.Conv2d(DETAILS, bands, 3, padding=1)
        self.loudness = nn.Conv2d(widths[-1], 1, 1)
        self.grain = nn.Conv2d(bands, bands, 5, padding=2, bias=False)
        with torch.no_grad():
            for tuning in self.tuning:
                assert isinstance(tuning, nn.Linear)
                tuning.weight.mul_(0.5)
            self.bent.weight.mul_(0.1)
            for taken in self.taken:
                assert isinstance(taken, nn.Conv2d)
                taken.weight[:, bands:] = 0  # no noise yet
            assert self.fine.bias is not None
            assert self.loudness.bias is not None
            self.fine.weight.mul_(0.3)
            self.fine.bias.zero_()
            self.loudness.bias.fill_(-1.0)

    def forward(self, position: Tensor, condition: Tensor | None = None) -> Tensor:
        style, noise = position[:, : self.style], position[:, self.style :].view(-1, self.bands, self.side, self.side)
        joined = style
        if self.named is not None and condition is not None:
            joined = torch.cat([style, self.named(condition) * math.sqrt(self.style)], 1)
        code = self.mapping(joined)
        smooth = self._smooth(style, code, condition)
        x = self.core(code).view(len(code), -1, CORE, CORE)
        for k, (norm, tuning, taken) in enumerate(zip(self.norms, self.tuning, self.taken, strict=True)):
            if k:
                x = self.stages[k - 1](x)
            pool = self.side // x.shape[-1]
            around = [F.adaptive_avg_pool2d(smooth, x.shape[-1]), F.avg_pool2d(noise, pool) * pool]
            x = x + taken(torch.cat(around, 1))
            scale, offset = tuning(code)[:, :, None, None].chunk(2, 1)
            x = F.leaky_relu(torch.addcmul(offset, norm(x), 1 + scale), 0.2)
        size = (self.side, self.side)
        detail = F.leaky_relu(F.interpolate(self.coarse(x), size=size, mode="bilinear", align_corners=False), 0.2)
        light = F.interpolate(smooth, size=size, mode="bilinear", align_corners=False) + self.fine(detail)
        # One bounded, smooth map for all bands: with more freedom the noise is shouted into neighbours that should be drawn.
        loudness = F.interpolate(torch.sigmoid(self.loudness(x)), size=size, mode="bilinear", align_corners=False)
        return whole(light + loudness * self.grain(noise))

    def _smooth(self, style: Tensor, code: Tensor, condition: Tensor | None) -> Tensor:
        """The picture that the principal components make, (n, bands, smooth, smooth)."""
        none = style.new_ones(len(style), 1)
        weight = none if condition is None else shares(condition, len(self.middle)).to(style)
        components: Tensor = weight @ self.middle + weight @ self.spread * style + self.bent(code)
        return (self.centre + components @ self.axes).view(-1, self.bands, self.smooth, self.smooth)

    @torch.no_grad()
    def fit(self, images: Tensor, label: Tensor, axes: Axes) -> None:
        """Start from the principal axes of training images, shrunk to `smooth` px and laid out flat (n, numbers), and from the mean and
        spread of their components in each class."""
        self.centre.copy_(axes.centre)
        self.axes.copy_((axes.directions * axes.scales).T)
        components = (images - axes.centre) @ (axes.directions / axes.scales)
        for kind in range(len(self.middle) if self.named is not None else 0):
            known = components[label == kind]
            if len(known) > 1:
                self.middle[kind], self.spread[kind] = known.mean(0), known.std(0)


class Seeing(nn.Module):
    """Images (n, bands, side, side) on the stretched scale -> a score (n,), or with `classes` (n, 1 + classes): a score and logits.
    Strided convolutions without normalisation, which leaves rows apart, and each row's power spectrum."""

    def __init__(self, side: int, bands: int, width: int, classes: int = 0, hidden: int = 128) -> None:
        super().__init__()
        self.classes = classes
        halvings = conv.core_side(side, 0).bit_length() - CORE.bit_length()
        widths = [min(width << k, 8 * width) for k in range(halvings)]
        layers: list[nn.Module] = []
        for before, after in pairwise([bands, *widths]):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * CORE**2, hidden))
        self.spectrum = Spectrum(side, bands)
        self.heard = nn.Linear(self.spectrum.numbers, hidden)
        self.last = nn.Sequential(nn.LeakyReLU(0.2), nn.Linear(hidden, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1 + classes))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, 0.2)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.heard.weight.mul_(0.3)

    def forward(self, images: Tensor) -> Tensor:
        said: Tensor = self.last(self.net(images) + self.heard(self.spectrum(images)))
        return said if self.classes else said[:, 0]


class Spectrum(nn.Module):
    """log10 of the power of images (n, bands, side, side) under a Hann taper, averaged over rings one cycle per side wide, in units of
    its spread in training (`fit`), (n, numbers)."""

    def __init__(self, side: int, bands: int) -> None:
        super().__init__()
        f = torch.fft.fftfreq(side) * side
        ring = torch.hypot(f[:, None], f[None, : side // 2 + 1]).round().long()
        weight = torch.ones(side, side // 2 + 1)
        weight[:, 1 : side // 2] = 2  # the half plane that is not kept
        # The corners beyond Nyquist's ring stay out: there is least power, so a logarithm is steepest, and slopes are penalised.
        rings = (F.one_hot(ring).float() * weight[:, :, None]).flatten(0, 1)[:, : side // 2 + 1]
        taper = torch.hann_window(side, periodic=False)
        self.numbers = bands * rings.shape[1]
        self.register_buffer("rings", rings / rings.sum(0), persistent=False)
        self.register_buffer("taper", taper[:, None] * taper, persistent=False)
        self.register_buffer("centre", torch.zeros(self.numbers))
        self.register_buffer("scale", torch.ones(self.numbers))
        self.rings: Tensor
        self.taper: Tensor
        self.centre: Tensor
        self.scale: Tensor

    def forward(self, images: Tensor) -> Tensor:
        return (self._log_power(images) - self.centre) / self.scale

    def _log_power(self, images: Tensor) -> Tensor:
        # Black is -1. Counted from there, the lowest rings tell how much light each band has, and so the colour.
        waves = torch.view_as_real(torch.fft.rfft2((images + 1) * self.taper, norm="ortho"))
        power = waves.square().sum(-1).flatten(2) @ self.rings
        # The floor bounds slopes where there is little power; it is that of noise of half a count on the sky.
        return torch.log10(power + 1e-4).flatten(1)

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Take the spread of training images as the unit."""
        known = self._log_power(images)
        self.centre.copy_(known.mean(0))
        self.scale.copy_(known.std(0).clamp_min(1e-3))
