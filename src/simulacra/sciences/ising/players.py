"""The networks that play the Ising game: a generator that ends in learned checkerboard rounds, a critic that knows what to look at.

Generator. A pyramid of circular convolutions, fed with a global latent vector and with noise at every scale, gives two maps at full
resolution: where to start, and a field g that goes on acting. Spins start from the first map. Then come `rounds` rounds; each draws
the even and then the odd sites of the checkerboard anew, given their neighbours:

    s_i = sign(f(h_i) + c g_i + noise),   f(2) = a, f(1) = a/2 + b, f odd,   h_i = half the sum of the 4 neighbours, noise standard normal

with a, b, c learned per round as functions of temperature, starting near 0. Two numbers hold any odd law of h, so the
exact one, P(s_i = +1) = 1 / (1 + exp(-4 h_i / T)), is among those that can be learned; nothing but the critic says so. `alignment`
reads off what was learned. Backwards, the sign is replaced by the mean spin erf(. / sqrt 2) (straight through): for a critic that is
linear in each single spin, as every energy and correlation is, that gradient is the exact one of a layer. Near T_c a lattice
amplifies small changes, so through many rounds gradients grow until they say nothing; each half round fades them a little.

Critic. It sees each lattice's spins and local energies through convolutions of stride 2, and the lattice's observables (energy,
magnetisation, correlations, block spins) through a small dense net, in units of their spread at the nearest training temperature.

`Deconvolving` and `Convolving` are the conditional DCGAN of the paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CRITICAL = 0.5 * math.log1p(math.sqrt(2))  # K_c = 1 / T_c
LATENT = 8  # global numbers: the order parameter and whatever else has no place
MAPS = 4  # noise maps per scale
FADE = 0.9  # per half round, of gradients on their way back: early rounds else shout down the late ones, whose errors are seen
MOTION = 6  # numbers that choose sign, shift and turn of a drawn lattice


def couplings(temperature: Tensor) -> Tensor:
    """What the networks are told of T (n,): K - K_c on a wide and on a narrow scale, and its square; shape (n, 3)."""
    k = 1 / temperature - CRITICAL
    return torch.stack([8 * k, torch.tanh(40 * k), (8 * k) ** 2], dim=1)


# --- the checkerboard: two sublattices, each stored without gaps ---


def unravel(lattice: Tensor) -> tuple[Tensor, Tensor]:
    """Even and odd sites (row + column) of (n, L, L), each (n, L, L/2)."""
    n, side, _ = lattice.shape
    v = lattice.reshape(n, side // 2, 2, side // 2, 2)
    even, odd = torch.stack([v[:, :, 0, :, 0], v[:, :, 1, :, 1]], 2), torch.stack([v[:, :, 0, :, 1], v[:, :, 1, :, 0]], 2)
    return even.view(n, side, side // 2), odd.view(n, side, side // 2)


def ravel(even: Tensor, odd: Tensor) -> Tensor:
    """The inverse of `unravel`."""
    n, side, half = even.shape
    e, o = even.view(n, half, 2, half), odd.view(n, half, 2, half)
    rows = [torch.stack([e[:, :, 0], o[:, :, 0]], -1), torch.stack([o[:, :, 1], e[:, :, 1]], -1)]
    return torch.stack([r.view(n, half, side) for r in rows], 2).view(n, side, side)


def around(other: Tensor, *, even: bool) -> Tensor:
    """Half the sum of the four neighbours of each even (else odd) site; `other` holds the opposite sublattice."""
    n, side, half = other.shape
    v, step = other.view(n, half, 2, half), 1 if even else -1
    # One horizontal neighbour has the same index within the row; the other lies to the left or right, by the row's parity.
    aside = torch.stack([v[:, :, 0].roll(step, -1), v[:, :, 1].roll(-step, -1)], 2).view(n, side, half)
    return (other + other.roll(1, 1) + other.roll(-1, 1) + aside) / 2


class _Drawn(torch.autograd.Function):
    """sign(a h / 2 + b (4 h - h^3) / 3 + field + noise), backwards as erf(x / sqrt 2), faded towards the neighbours. One function
    because autograd's own bookkeeping took twice as long."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, a: Tensor, b: Tensor, field: Tensor, noise: Tensor) -> Tensor:
        x = law(h, a, b) + field
        ctx.save_for_backward(h, a, b, x)
        return torch.where(x + noise < 0, -1.0, 1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        h, a, b, x = ctx.saved_tensors
        g = gradients[0] * torch.exp(-0.5 * x * x) * math.sqrt(2 / math.pi)
        to_a, to_b = ((g * value).sum((1, 2), keepdim=True) for value in (h / 2, (4 * h - h**3) / 3))
        return FADE * g * (a / 2 + b * (4 / 3 - h * h)), to_a, to_b, g, None


def law(h: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Odd function of h in {-2, ..., 2} with value a at 2 and a/2 + b at 1; b is small for the exact law (0.1 at T_c)."""
    return a * h / 2 + b * (4 * h - h**3) / 3


def draw_spins(h: Tensor, a: Tensor, b: Tensor, field: Tensor, noise: Tensor) -> Tensor:
    """Spins (n, L, L/2) for local sums h, law a, b (n, 1, 1), field and standard normal noise, both like h."""
    spins: Tensor = _Drawn.apply(h, a, b, field, noise)  # type: ignore[no-untyped-call]
    return spins


# --- pieces ---


class Periodic(nn.Conv2d):
    """3 x 3 convolution on a torus. Joining the edges by hand, because torch's circular padding is slow to differentiate."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, 3, stride)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[..., -1:], x, x[..., :1]], -1)
        return super().forward(torch.cat([x[..., -1:, :], x, x[..., :1, :]], -2))


class Tuning(nn.Module):
    """Scale and offset of every feature map as functions of temperature (FiLM, Perez et al. 1709.07871)."""

    def __init__(self, widths: Sequence[int], hidden: int = 48) -> None:
        super().__init__()
        self.widths = list(widths)
        self.net = nn.Sequential(nn.Linear(3, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 2 * sum(widths)))

    def forward(self, known: Tensor) -> list[tuple[Tensor, Tensor]]:
        scale, offset = self.net(known)[:, :, None, None].chunk(2, 1)
        return list(zip((1 + scale / 2).split(self.widths, 1), offset.split(self.widths, 1), strict=True))


def moved(lattice: Tensor, z: Tensor) -> Tensor:
    """Lattices (n, L, L) shifted, turned, mirrored and turned over at random by z (n, 6): every law becomes symmetric as nature's is."""
    n, side, _ = lattice.shape
    shift = (torch.special.ndtr(z[:, :2]) * side).long().clamp_(max=side - 1)
    mirror = 1 - 2 * (z[:, 2:4] < 0).long()
    site = torch.arange(side, device=z.device)
    y, x = ((mirror[:, i, None] * site + shift[:, i, None]) % side for i in (0, 1))
    straight = y[:, :, None] * side + x[:, None, :]
    where = torch.where(z[:, 4, None, None] < 0, straight, straight.transpose(1, 2))
    return lattice.reshape(n, -1).gather(1, where.view(n, -1)).view(n, side, side) * torch.where(z[:, 5] < 0, -1.0, 1.0)[:, None, None]


def majority_up(lattices: Tensor) -> Tensor:
    """Each lattice (n, L, L) turned over where most of its spins are down: E(-s) = E(s), so the critic need not learn both."""
    return lattices * torch.where(lattices.detach().mean((1, 2), keepdim=True) < 0, -1.0, 1.0)


def observables(lattices: Tensor) -> Tensor:
    """Per lattice (n, L, L): m, m^2, four moments of the local energy (they tell how many spins have 0 ... 4 neighbours aligned),
    diagonal bonds, G(2), G(4), ... up to half the side, and fourth moments of block spins."""
    s, side = lattices, lattices.shape[-1]
    right, down, m = s.roll(1, 2), s.roll(1, 1), s.mean((1, 2))
    local = s * (right + down + s.roll(-1, 2) + s.roll(-1, 1)) / 4
    square = local * local
    found = [m, m * m, *(moment.mean((1, 2)) for moment in (local, square, local * square, square * square))]
    found.append((right * down + s * right.roll(1, 1)).mean((1, 2)) / 2)
    lags = [2**i for i in range(1, side.bit_length()) if 2**i <= side // 2]
    found += [(s * (s.roll(r, 1) + s.roll(r, 2))).mean((1, 2)) / 2 for r in lags]
    block = s[:, None]
    for _ in range(3):
        block = F.avg_pool2d(block, 2)
        found.append((block**4).mean((1, 2, 3)))
    return torch.stack(found, 1)


# --- the players ---


class Resampling(nn.Module):
    """The generator: z (n, latent) and temperature (n,) to spins (n, side, side); `widths` are those of sides side/2^k, ..., side/2."""

    def __init__(self, side: int, widths: Sequence[int], rounds: int) -> None:
        super().__init__()
        self.side, self.rounds = side, rounds
        self.sides = [side >> k for k in range(len(widths), 0, -1)]
        before = [LATENT, *widths[:-1]]
        self.tuning = Tuning(widths)
        self.convolutions = nn.ModuleList(Periodic(i + MAPS, o) for i, o in zip(before, widths, strict=True))
        self.maps = Periodic(widths[-1], 2 * 4)
        self.law = nn.Sequential(nn.Linear(3, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 3 * rounds))
        self.slope = nn.Linear(3, 3 * rounds, bias=False)
        with torch.no_grad():
            # All rounds begin alike and nearly neutral. From random beginnings some learn to oppose what others do.
            last = self.law[-1]
            assert isinstance(last, nn.Linear)
            last.weight.zero_()
            last.bias.copy_(torch.tensor([0.3, 0.0, 0.3]).repeat(rounds))
            self.slope.weight.zero_()
        self.parts = [MOTION, LATENT, *(MAPS * s * s for s in self.sides), (rounds + 1) * side**2]
        self.latent = sum(self.parts)

    def forward(self, z: Tensor, temperature: Tensor) -> Tensor:
        motion, world, *maps, luck = torch.split(z, self.parts, 1)
        return moved(self.in_place(world, maps, luck, temperature), motion)

    def in_place(self, world: Tensor, maps: Sequence[Tensor], luck: Tensor, temperature: Tensor) -> Tensor:
        """Spins before the random motion: shifting all maps and `luck` by a whole coarsest cell shifts them likewise."""
        known = couplings(temperature)
        start, field = self.landscape(world, maps, known).unbind(1)
        noise = luck.view(len(luck), self.rounds + 1, 2, self.side, self.side // 2)
        (start_even, start_odd), (field_even, field_odd) = unravel(start), unravel(field)
        free = torch.zeros(1, 1, 1, device=luck.device)
        even = draw_spins(torch.zeros_like(start_even), free, free, start_even, noise[:, 0, 0])
        odd = draw_spins(torch.zeros_like(start_odd), free, free, start_odd, noise[:, 0, 1])
        for r, numbers in enumerate(self.laws(known)[..., None, None].unbind(1)):
            a, b, c = numbers.unbind(1)
            even = draw_spins(around(odd, even=True), a, b, c * field_even, noise[:, r + 1, 0])
            odd = draw_spins(around(even, even=False), a, b, c * field_odd, noise[:, r + 1, 1])
        return ravel(even, odd)

    def landscape(self, world: Tensor, maps: Sequence[Tensor], known: Tensor) -> Tensor:
        """Where to start and the field, shape (n, 2, side, side)."""
        x = world[:, :, None, None].expand(-1, -1, self.sides[0], self.sides[0])
        for side, noise, convolution, (scale, offset) in zip(self.sides, maps, self.convolutions, self.tuning(known), strict=True):
            if x.shape[-1] < side:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = F.silu(convolution(torch.cat([x, noise.view(-1, MAPS, side, side)], 1)) * scale + offset)
        return F.pixel_shuffle(self.maps(x), 2)

    def laws(self, known: Tensor) -> Tensor:
        """a, b and c of every round, shape (n, rounds, 3)."""
        numbers: Tensor = self.law(known) + self.slope(known)
        return numbers.view(-1, self.rounds, 3)

    @torch.no_grad()
    def alignment(self, temperature: Tensor) -> Tensor:
        """Learned P(s_i = +1) where the field is 0 and the neighbours sum to 2 and to 4, shape (n, rounds, 2)."""
        a, b, _ = self.laws(couplings(temperature))[..., None].unbind(2)
        learned: Tensor = torch.special.ndtr(law(torch.tensor([1.0, 2.0], device=a.device), a, b))
        return learned


class Judging(nn.Module):
    """The critic: lattices (n, side, side) and temperature (n,) to scores (n,). Built from observables (t, k) of the training
    temperatures (t,): their means and spreads set the units in which it sees a lattice."""

    def __init__(self, temperatures: Tensor, mean: Tensor, spread: Tensor, widths: Sequence[int], hidden: int = 64) -> None:
        super().__init__()
        self.ladder: Tensor
        self.mean: Tensor
        self.spread: Tensor
        for name, value in (("ladder", temperatures), ("mean", mean), ("spread", spread)):
            self.register_buffer(name, value.clone())
        self.tuning = Tuning(widths)
        before = [2 * 4, *widths[:-1]]
        self.convolutions = nn.ModuleList(Periodic(i, o, stride=2) for i, o in zip(before, widths, strict=True))
        self.pooled = nn.Linear(widths[-1], hidden)
        self.on_maps = nn.Linear(hidden + 3, 1)
        self.on_observables = nn.Sequential(
            nn.Linear(mean.shape[1] + 3, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1)
        )
        # A mean or a spread that is off at one temperature only is seen at once by weights that belong to that temperature.
        self.on_rung = nn.Embedding(len(temperatures), 2 * mean.shape[1])
        nn.init.zeros_(self.on_rung.weight)

    def forward(self, lattices: Tensor, temperature: Tensor) -> Tensor:
        known = couplings(temperature)
        nearest = (temperature[:, None] - self.ladder).abs().argmin(1)
        seen = (observables(lattices) - self.mean[nearest]) / self.spread[nearest]
        maps = self.pooled(self._maps(lattices, known).mean((2, 3)))
        scores: Tensor = self.on_maps(torch.cat([F.leaky_relu(maps, 0.2), known], 1)) + self.on_observables(torch.cat([seen, known], 1))
        at_rung: Tensor = (self.on_rung(nearest) * torch.cat([seen, seen.square() / 3], 1)).sum(1)
        return scores[:, 0] + at_rung

    def _maps(self, lattices: Tensor, known: Tensor) -> Tensor:
        s = lattices[:, None]
        local = s * (s.roll(1, 2) + s.roll(-1, 2) + s.roll(1, 3) + s.roll(-1, 3)) / 4
        x = F.pixel_unshuffle(torch.cat([s, local], 1), 2)
        for convolution, (scale, offset) in zip(self.convolutions, self.tuning(known), strict=True):
            x = F.leaky_relu(convolution(x) * scale + offset, 0.2)
        return x


# --- the players of the paper ---


class Deconvolving(nn.Module):
    """DCGAN's generator (Radford et al. 1511.06434): z and temperature to real numbers (n, side, side) in (-1, 1), zero padding."""

    def __init__(self, side: int, latent: int, filters: int) -> None:
        super().__init__()
        self.latent = latent
        depth = side.bit_length() - 3  # doublings from a core of 4 x 4
        widths = [filters << k for k in range(depth - 1, -1, -1)]
        layers: list[nn.Module] = [nn.Linear(latent + 3, widths[0] * 16), nn.Unflatten(1, (widths[0], 4, 4)), *_normed(widths[0])]
        for before, after in zip(widths, [*widths[1:], 1], strict=True):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1), *(_normed(after) if after > 1 else [nn.Tanh()])]
        self.net = nn.Sequential(*layers)

    def forward(self, z: Tensor, temperature: Tensor) -> Tensor:
        drawn: Tensor = self.net(torch.cat([z, couplings(temperature)], 1))
        return drawn[:, 0]


class Convolving(nn.Module):
    """DCGAN's discriminator; the temperature enters as constant maps beside the lattice (Mirza & Osindero 1411.1784)."""

    def __init__(self, side: int, filters: int) -> None:
        super().__init__()
        depth = side.bit_length() - 3
        widths = [filters << k for k in range(depth)]
        layers: list[nn.Module] = []
        for before, after in zip([4, *widths[:-1]], widths, strict=True):
            layers += [nn.Conv2d(before, after, 4, 2, 1), *([nn.BatchNorm2d(after)] if before > 4 else []), nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * 16, 1))

    def forward(self, lattices: Tensor, temperature: Tensor) -> Tensor:
        known = couplings(temperature)[:, :, None, None].expand(-1, -1, *lattices.shape[1:])
        scores: Tensor = self.net(torch.cat([lattices[:, None], known], 1))
        return scores[:, 0]


def _normed(width: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(width), nn.ReLU()]
