"""Deposited energies made Gaussian, first of layers, then of the cells within them, and what decides their law.

    total     E_sum / E        of the incident energy E
    layers    E_l / E_sum      of what was deposited
    cells     E_lij / E_l      of what was deposited in the layer

Each is a number x >= 0 whose law depends on one known number c: log E for the first two (for each kind of particle), log E_l for a cell.

    P(x = 0 | c)                           exact zeros, among them whatever lies below the readout's threshold
    log x = t(c) + q(Phi^-1(v); c)         the rest: a cubic trend t and quantiles q of what is left, v uniform on (0, 1)
    g = Phi^-1(P0 + (1 - P0) v)            standard normal; zeros spread evenly over (0, P0), and whatever lands there is a zero again

So g of every number is standard normal whatever c is; what a generator has to learn is how they hang together (the idea of
Gaussianisation, as in lensing/gaussian.py). Drawn fractions are divided by their sum: total and layers, once drawn, are kept exactly.
Cells at the same distance from the axis of the shower share their law in a layer. P0 and q are tables on evenly spaced c, with straight
lines between; each of their rows is measured on the showers around it, wherever these lie, so that training may hold a few energies
or all.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.polynomial.polynomial import polyval
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor, nn

from simulacra.sciences.calorimeter import framing
from simulacra.sciences.calorimeter.data import PARTICLES, Showers
from simulacra.study import Refused

Array = NDArray[np.float64]

REACH, KNOTS = 3.5, 29  # quantiles from -REACH to REACH standard deviations of the positive part; beyond, straight on
STRIDES = (16, 8, 4, 2, 1)  # of a search among the knots
PLACES = 12  # rows of a table
NEIGHBOURS = 200  # numbers that a row of a table is measured on, at least, where there are as many
MEASURED = 100_000  # numbers from which the law of one group of cells is measured, at most
WIDEST = 0.02  # of the trained range of log E: how far outside it an energy may lie before a warning
LEAST = 1e-30  # a fraction that stands for nothing


class Laws(nn.Module):
    """Laws of `groups` numbers x >= 0 given c. Of every number, `which`, int64, says under which law it stands."""

    low: Tensor
    width: Tensor
    trend: Tensor
    scale: Tensor
    most: Tensor
    nothing: Tensor
    quantile: Tensor

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(groups))  # first place of c
        self.register_buffer("width", torch.ones(groups))  # from there to the last
        self.register_buffer("trend", torch.zeros(groups, 4))  # of log x, by powers of c from -1 to 1 over the places
        self.register_buffer("scale", torch.zeros(groups, 4))  # of the logarithm of its typical deviation from that
        self.register_buffer("most", torch.zeros(groups))  # largest of training: nothing beyond it is drawn
        self.register_buffer("nothing", torch.ones(groups, PLACES))
        self.register_buffer("quantile", torch.zeros(groups, PLACES, KNOTS))

    def measure(self, group: int, x: Array, c: Array) -> None:
        """Set the law of `group` to that of numbers x (m,) at c (m,)."""
        low, high = float(c.min()), float(c.max())
        self.low[group], self.width[group] = low, max(high - low, 1e-6)
        u = np.clip(2 * (c - low) / max(high - low, 1e-6) - 1, -1, 1)
        some = x > 0
        at = u[some]
        trend = _trend(at, np.log(x[some]))
        left = np.log(x[some]) - polyval(at, trend)
        scale = _trend(at, np.log(np.abs(left) + 1e-4))
        unit: Array = np.asarray(left / np.exp(polyval(at, scale)), np.float64)
        order = np.argsort(unit)
        unit, at = unit[order], at[order]
        self.most[group] = float(x.max())
        self.trend[group], self.scale[group] = torch.from_numpy(trend), torch.from_numpy(scale)
        for place, centre in enumerate(np.linspace(-1, 1, PLACES)):
            weight = _around(u, centre)
            self.nothing[group, place] = 1 - weight[some].sum() / weight.sum()
            self.quantile[group, place] = torch.from_numpy(_quantiles(unit, _around(at, centre)))

    def _place(self, which: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c from -1 to 1, the row of the flat table before it, and the share of the way to the next."""
        u = (2 * (c - self.low[which]) / self.width[which] - 1).clamp(-1, 1)
        place = (u + 1) * ((PLACES - 1) / 2)
        row = place.long().clamp(max=PLACES - 2)
        return u, row + which * PLACES, place - row

    def _nothing(self, row: Tensor, share: Tensor) -> Tensor:
        table = self.nothing.flatten()
        return torch.lerp(table[row], table[row + 1], share)

    def _quantile(self, row: Tensor, share: Tensor, knot: Tensor) -> Tensor:
        table, start = self.quantile.flatten(), row * KNOTS + knot
        return torch.lerp(table[start], table[start + KNOTS], share)

    def numbers(self, g: Tensor, which: Tensor, c: Tensor) -> Tensor:
        """x of standard normal g (n, m) under the laws `which` at c, both of a shape that can be broadcast to g's."""
        u, row, share = (part.expand(g.shape) for part in self._place(which, c))
        nothing = self._nothing(row, share)
        chance = torch.special.ndtr(g)
        some = chance > nothing  # few cells of a shower have energy: what follows is for those alone
        u, row, share, nothing, which = u[some], row[some], share[some], nothing[some], which.expand(g.shape)[some]
        v = (chance[some] - nothing) / (1 - nothing)
        place = (torch.special.ndtri(v.clamp(1e-6, 1 - 1e-6)) + REACH) * ((KNOTS - 1) / (2 * REACH))
        knot = place.long().clamp(0, KNOTS - 2)
        one, two = (self._quantile(row, share, k) for k in (knot, knot + 1))
        left = (one + (place - knot) * (two - one)) * _polynomial(self.scale[which], u).exp()
        x = torch.zeros_like(g)
        x[some] = torch.minimum((_polynomial(self.trend[which], u) + left).exp(), self.most[which])
        return x

    def gaussian(self, x: Tensor, which: Tensor, c: Tensor, spread: Tensor | None = None) -> Tensor:
        """The inverse: g of x (n, m). Zeros are spread by numbers uniform on [0, 1); without, all lie in the middle of theirs."""
        u, row, share = (part.expand(x.shape) for part in self._place(which, c))
        nothing = self._nothing(row, share)
        chance = nothing * (0.5 if spread is None else spread)
        some = x > 0
        u, row, share, nothing, which = u[some], row[some], share[some], nothing[some], which.expand(x.shape)[some]
        left = (x[some].log() - _polynomial(self.trend[which], u)) / _polynomial(self.scale[which], u).exp()
        knot = torch.zeros_like(row)  # the last, or the last but one, whose quantile does not lie above
        for stride in STRIDES:
            ahead = (knot + stride).clamp(max=KNOTS - 2)
            knot = torch.where(self._quantile(row, share, ahead) <= left, ahead, knot)
        one, two = (self._quantile(row, share, k) for k in (knot, knot + 1))
        place = knot + ((left - one) / (two - one)).clamp(-8, 9)
        v = torch.special.ndtr(place * (2 * REACH / (KNOTS - 1)) - REACH)
        chance[some] = nothing + (1 - nothing) * v
        found: Tensor = torch.special.ndtri(chance.clamp(1e-6, 1 - 1e-6))
        return found


def _polynomial(coefficient: Tensor, u: Tensor) -> Tensor:
    """Of third degree, coefficients (..., 4) at u (...)."""
    a, b, c, d = coefficient.unbind(-1)
    return a + u * (b + u * (c + u * d))


def _around(u: Array, centre: float) -> Array:
    """Weights of places u about `centre`: a triangle as wide as to the next place, or as it takes to hold NEIGHBOURS."""
    off = np.abs(u - centre)
    wide = 2 / (PLACES - 1)
    if np.count_nonzero(off < 0.8 * wide) < NEIGHBOURS and len(off):
        nearest = min(NEIGHBOURS, len(off)) - 1
        wide = max(wide, 1.25 * float(np.partition(off, nearest)[nearest]))
    return np.asarray(np.maximum(1 - off / wide, 0))


def _trend(u: Array, y: Array) -> Array:
    """Coefficients (4,) of a polynomial in u, of the highest degree, 3 at most, that the number and the places of u allow."""
    found: Array = np.zeros(4)
    if not len(y):
        return found
    degree = min(3, len(np.unique(np.round(u, 3))) - 1, len(y) // 50)
    if degree < 1 or float(u.max() - u.min()) < 0.05:
        found[0] = y.mean()
        return found
    terms = np.vander(u, degree + 1, increasing=True)
    found[: degree + 1] = np.linalg.solve(terms.T @ terms + 1e-6 * len(u) * np.eye(degree + 1), terms.T @ y)
    return found


def _quantiles(values: Array, weight: Array) -> Array:
    """Quantiles (KNOTS,) of sorted values under weights, straight on where there are too few to know; rising."""
    values, weight = values[weight > 0], weight[weight > 0]
    at = np.linspace(-REACH, REACH, KNOTS)
    if len(values) < 5:
        return np.asarray((values.mean() if len(values) else 0.0) + at)
    weight = weight / weight.sum()
    score = ndtri(np.clip(np.cumsum(weight) - weight / 2, 1e-6, 1 - 1e-6))
    found = np.interp(at, score, values)
    slope = max(float(weight @ ((score - weight @ score) * values) / (weight @ (score - weight @ score) ** 2)), 1e-4)
    found += slope * (np.minimum(at - score[0], 0) + np.maximum(at - score[-1], 0))
    return np.asarray(found + 1e-5 * np.arange(KNOTS))


# ---------------------------------------------------------------------------------------------------- layers and cells


class Asked(nn.Module):
    """What can be asked for: the particles of training, and the range of its incident energies E."""

    kinds: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, kinds: int) -> None:
        super().__init__()
        self.register_buffer("kinds", torch.zeros(kinds, dtype=torch.int64))
        self.register_buffer("low", torch.zeros(()))  # log E
        self.register_buffer("high", torch.zeros(()))

    @classmethod
    def of(cls, training: Showers) -> Asked:
        """What training showers allow."""
        kinds, log_incident = torch.tensor(sorted(set(training.particle.tolist()))), training.incident.log()
        found = cls(len(kinds))
        for name, value in (("kinds", kinds), ("low", log_incident.min()), ("high", log_incident.max())):
            getattr(found, name).copy_(value)
        return found

    @property
    def numbers(self) -> int:
        """How many `forward` gives."""
        return 1 + len(self.kinds)

    def forward(self, showers: Showers) -> Tensor:
        """(n, numbers): log E from -1 to 1 over the trained range, and 1 for the particle. Raises Refused for particles that training
        did not hold, and warns of energies outside its range."""
        among = showers.particle.long()[:, None] == self.kinds
        if not bool(among.any(1).all()):
            wrong = PARTICLES[int(showers.particle[~among.any(1)][0])]
            known = ", ".join(f"{PARTICLES[kind]}s" for kind in self.kinds.tolist())
            raise Refused(f"{wrong}s are asked for, but training held {known} only")
        log_incident = showers.incident.log()
        margin = WIDEST * (self.high - self.low) + 1e-4
        outside = (log_incident < self.low - margin) | (log_incident > self.high + margin)
        if bool(outside.any()):
            warnings.warn(
                f"{float(showers.incident[outside][0]):g} GeV lies outside the {float(self.low.exp()):g} to {float(self.high.exp()):g} GeV "
                "of training: such showers are drawn with the shape of the nearest energy of training", stacklevel=2,
            )  # fmt: skip
        half = (self.high - self.low).clamp_min(1e-3) / 2
        place = ((log_incident - (self.high + self.low) / 2) / half).clamp(-1, 1)
        return torch.cat([place[:, None], among.to(place)], 1)

    def template(self, grid: tuple[int, int, int], n: int, conditions: Mapping[str, str]) -> Showers:
        """n empty showers as asked; what is not asked for is as in training."""
        energies = float(self.low.exp()), float(self.high.exp())
        found = framing.template(grid, n, conditions, energies, self.kinds.tolist())
        self(found)
        return found


class Law(nn.Module):
    """What is known of showers before a network learns: laws of total, layers and cells; how they hang together is left open.

    `orbit` (rows, columns) numbers cells by where they lie about the `centre`, the axis of the showers.
    """

    orbit: Tensor
    centre: Tensor

    def __init__(self, layers: int, rows: int, columns: int, *, kinds: int, orbits: int) -> None:
        super().__init__()
        self.grid = (layers, rows, columns)
        self.asked = Asked(kinds)
        self.register_buffer("orbit", torch.zeros(rows, columns, dtype=torch.int64))
        self.register_buffer("centre", torch.zeros(2))
        self.of_layers = Laws(kinds * (layers + 1))
        self.of_cells = Laws(layers * orbits)

    @classmethod
    def fitted(cls, training: Showers, *, symmetric: bool = True) -> Law:
        """Measured on training showers; `symmetric` about their mean axis, or each cell for itself."""
        grid = training.grid
        centre = axis(training.energy)
        orbit = orbits(centre, *grid[1:]) if symmetric else torch.arange(grid[1] * grid[2]).view(*grid[1:])
        asked = Asked.of(training)
        found = cls(*grid, kinds=len(asked.kinds), orbits=int(orbit.max()) + 1)
        found.asked = asked
        found.orbit.copy_(orbit)
        found.centre.copy_(torch.tensor(centre))
        shares, total = _layer_shares(training)
        for number, kind in enumerate(asked.kinds.tolist()):
            chosen = training.particle == kind
            c = training.incident[chosen].log().double().numpy()
            for column, x in enumerate(shares[chosen].T.double().numpy()):
                found.of_layers.measure(number * shares.shape[1] + column, x, c)
        found._measure_cells(training.energy, total)
        return found

    def _measure_cells(self, energy: Tensor, total: Tensor) -> None:
        count = int(self.orbit.max()) + 1
        for layer in range(self.grid[0]):
            some = total[:, layer] > 0
            if not bool(some.any()):
                continue
            within = (energy[some, layer] / total[some, layer, None, None]).flatten(1)
            c = total[some, layer].log()
            for number in range(count):
                x = within[:, self.orbit.flatten() == number]
                each = c[:, None].expand_as(x).flatten().double().numpy()
                stride = max(1, x.numel() // MEASURED)
                self.of_cells.measure(layer * count + number, x.flatten().double().numpy()[::stride], each[::stride])

    @classmethod
    def blank(cls, state: Mapping[str, Tensor]) -> Law:
        """One with the numbers of a saved one."""
        kinds, (rows, columns) = len(state["asked.kinds"]), state["orbit"].shape
        layers = len(state["of_layers.low"]) // kinds - 1
        found = cls(layers, rows, columns, kinds=kinds, orbits=len(state["of_cells.low"]) // layers)
        found.load_state_dict(dict(state))
        return found

    def _kind(self, showers: Showers) -> Tensor:
        """(n, 1): first of the laws of each shower's particle."""
        number: Tensor = (showers.particle.long()[:, None] == self.asked.kinds).long().argmax(1)
        return number[:, None] * (self.grid[0] + 1)

    # --- layers ---

    def layers_gaussian(self, showers: Showers, spread: Tensor | None = None) -> Tensor:
        """g (n, 1 + layers) of E_sum / E and of each layer's share of E_sum."""
        shares, _ = _layer_shares(showers)
        which = self._kind(showers) + torch.arange(shares.shape[1], device=shares.device)
        return self.of_layers.gaussian(shares, which, showers.incident.log()[:, None], spread)

    def layers(self, g: Tensor, like: Showers) -> Tensor:
        """Energies (n, layers) in MeV under the conditions of `like`."""
        which = self._kind(like) + torch.arange(g.shape[1], device=g.device)
        x = self.of_layers.numbers(g, which, like.incident.log()[:, None])
        total = x[:, :1] * 1000 * like.incident[:, None]
        return total * _summing_to_one(x[:, 1:], g[:, 1:])

    # --- cells ---

    def told(self, showers: Showers) -> Tensor:
        """What is known of showers before their cells are, (n, asked.numbers + 1 + layers): what was asked for, g of total and layers."""
        return torch.cat([self.asked(showers), self.layers_gaussian(showers)], 1)

    def following(self, cells: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """How g of cells (n, layers, rows, columns) follows what is told (n, k), in the least squares: mean (layers, rows, columns) and
        slope (k, layers, rows, columns). Cells that share their law share these. A small ridge holds numbers that do not vary."""
        count, number = int(self.orbit.max()) + 1, self.orbit.flatten()
        share = torch.nn.functional.one_hot(number, count).to(cells)
        each = cells.flatten(2) @ (share / share.sum(0).clamp_min(1))  # (n, layers, orbits)
        centre = told.mean(0)
        off = told - centre
        scatter = off.T @ off / len(off) + 1e-3 * torch.eye(told.shape[1], device=told.device)
        slope = torch.linalg.solve(scatter, off.T @ (each - each.mean(0)).flatten(1) / len(off)).view(-1, self.grid[0], count)
        mean = each.mean(0) - torch.tensordot(centre, slope, dims=1)
        return mean[:, number].view(self.grid), slope[:, :, number].view(-1, *self.grid)

    def _which_cell(self) -> Tensor:
        count = len(self.of_cells.low) // self.grid[0]
        start = count * torch.arange(self.grid[0], device=self.orbit.device)
        return (start[:, None] + self.orbit.flatten()).flatten()

    def _given(self, total: Tensor) -> Tensor:
        """log E_l for every cell, (n, cells)."""
        return total.clamp_min(LEAST).log().repeat_interleave(self.grid[1] * self.grid[2], 1)

    def cells_gaussian(self, energy: Tensor, spread: Tensor | None = None) -> Tensor:
        """g (n, layers, rows, columns) of cells of `energy` in MeV, within their layers."""
        total = energy.sum((2, 3))
        within = energy / total.clamp_min(LEAST)[..., None, None]
        flat = None if spread is None else spread.flatten(1)
        return self.of_cells.gaussian(within.flatten(1), self._which_cell(), self._given(total), flat).view(energy.shape)

    def cells(self, g: Tensor, total: Tensor) -> Tensor:
        """Energies (n, layers, rows, columns) in MeV whose layers sum to `total` (n, layers)."""
        x = self.of_cells.numbers(g.flatten(1), self._which_cell(), self._given(total))
        layers = len(g), self.grid[0], -1
        shares = _summing_to_one(_filled(x.view(*layers), self._core()), g.reshape(*layers))
        return (total[..., None] * shares).view(g.shape)

    def _core(self) -> Tensor:
        """Which cells of a layer (cells,) lie next to the axis."""
        row, column = (min(int(place), side - 1) for place, side in zip(self.centre.tolist(), self.grid[1:], strict=True))
        return self.orbit.flatten() == self.orbit[row, column]


def _filled(x: Tensor, core: Tensor) -> Tensor:
    """Shares x (n, layers, cells), those of the `core` scaled so that all sum to 1, where they can be. The core holds most of a layer's
    energy: what it holds and what others hold is one fluctuation, and dividing all by their sum would move the mean of both."""
    inside = (x * core).sum(-1, keepdim=True)
    left = 1 - (x * ~core).sum(-1, keepdim=True)
    scale = torch.where((left > 0) & (inside > 0), left / inside.clamp_min(LEAST), torch.ones_like(left))
    return torch.where(core, x * scale, x)


def _summing_to_one(x: Tensor, g: Tensor) -> Tensor:
    """x (..., m) over its sum; where all are 0, all goes to the one with the largest g."""
    total = x.sum(-1, keepdim=True)
    lonely = torch.nn.functional.one_hot(g.argmax(-1), g.shape[-1]).to(x)
    return torch.where(total > 0, x / total.clamp_min(LEAST), lonely)


def _layer_shares(showers: Showers) -> tuple[Tensor, Tensor]:
    """E_sum / E and E_l / E_sum, (n, 1 + layers), and E_l (n, layers) in MeV."""
    total = showers.energy.sum((2, 3))
    all_of_it = total.sum(1, keepdim=True)
    return torch.cat([all_of_it / (1000 * showers.incident[:, None]), total / all_of_it.clamp_min(LEAST)], 1), total


# ------------------------------------------------------------------------------------------------------------ symmetry

WAYS = 8  # of turning and flipping a square


def axis(energy: Tensor) -> tuple[float, float]:
    """Row and column, in cells and to the nearest half, at which showers (n, layers, rows, columns) come in on average."""
    image = energy.double().sum((0, 1))
    places = []
    for other in (1, 0):
        profile = image.sum(other)
        # About the peak alone: a calorimeter that ends nearer on one side would shift the mean of all.
        peak = int(profile.argmax())
        near = slice(max(0, peak - 1), peak + 2)
        places.append(float((profile[near] * torch.arange(len(profile))[near]).sum() / profile[near].sum()))
    return round(2 * places[0]) / 2, round(2 * places[1]) / 2


def orbits(centre: Sequence[float], rows: int, columns: int) -> Tensor:
    """Numbers (rows, columns) from 0, the same for cells that turns by quarters and flips about the axis bring upon each other."""
    down = (torch.arange(rows) - centre[0]).abs()[:, None].expand(rows, columns)
    across = (torch.arange(columns) - centre[1]).abs().expand(rows, columns)
    near, far = torch.minimum(down, across), torch.maximum(down, across)
    keys = (2 * near + 1000 * 2 * far).long().flatten().tolist()
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}
    return torch.tensor([numbers[key] for key in keys]).view(rows, columns)


def turned(g: Tensor, centre: Sequence[float], way: Tensor) -> Tensor:
    """Rows (n, layers, rows, columns) flipped and turned about the axis, each in its `way` (n,) of eight: flipped along rows (1) and along
    columns (2), their rows and columns exchanged (4) where the axis lies on the diagonal of a square. Where the axis is not in the middle,
    cells whose image would lie outside stay where they are: they are far from it, and hold little."""
    way = way.to(g.device)[:, None, None, None]
    rows, columns = g.shape[2:]
    for axis_of, bit, side in ((2, 1, rows), (3, 2, columns)):
        place = torch.arange(side)
        image = round(2 * centre[axis_of - 2]) - place
        image = torch.where((image >= 0) & (image < side), image, place).to(g.device)
        g = torch.where((way & bit).bool(), g.index_select(axis_of, image), g)
    return torch.where((way & 4).bool(), g.transpose(2, 3), g) if rows == columns and centre[0] == centre[1] else g
