"""Two-dimensional Ising model: E(s) = -J sum_<ij> s_i s_j on a periodic square lattice, s_i in {-1, +1}; J = kB = 1 throughout.

A sample of nature is one lattice drawn from the Boltzmann law P(s) = exp(-E(s) / T) / Z at its temperature T (unit J / kB).
The model orders below T_c = 2 / ln(1 + sqrt 2) = 2.269185 (Onsager 1944, Phys. Rev. 65:117).

`equilibrium` gives every lattice a Markov chain of its own, with its own start and its own random stream, so the lattices of a
set are independent: no autocorrelation time enters any error bar. Chains move by Wolff clusters (their number fixed beforehand:
stopping after a given amount of work would favour large clusters) or, far above T_c, by bit-sliced Metropolis. Without numba
they move by Swendsen-Wang clusters (1987, PRL 58:86), in numpy and scipy.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import logging
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pooch
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from simulacra import __version__
from simulacra.runs import write_atomically
from simulacra.study import Refused, Samples

Array = NDArray[np.float64]
Spins = NDArray[np.int8]
Progress = Callable[[int, int], None]  # lattices done, lattices asked for

CRITICAL = 2 / math.log1p(math.sqrt(2))  # T_c
LARGEST = 10**9  # elements in one array of a file
UP, DOWN = (0.96, 0.64, 0.35), (0.16, 0.44, 0.59)  # apricot and steel blue: apart in lightness and hue, visible on white and on black
LANES = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lattices(Samples):
    """Spin configurations, each with the temperature at which it was drawn."""

    spins: Tensor  # (n, side, side) int8 in {-1, +1}
    temperature: Tensor  # (n,) float32, unit J / kB

    @property
    def side(self) -> int:
        """Spins along one edge."""
        return int(self.spins.shape[-1])

    def check(self) -> None:
        _refuse_shape(tuple(self.spins.shape))
        if self.spins.dtype != torch.int8:
            raise Refused(f"spins are stored as {self.spins.dtype}; expected int8 (`from_real` takes the sign of real numbers)")
        if self.temperature.ndim != 1 or self.temperature.dtype != torch.float32:
            came = f"shape {tuple(self.temperature.shape)} and type {self.temperature.dtype}"
            raise Refused(f"temperature has {came}; expected one float32 per lattice")
        _refuse_spins(self.spins)
        _refuse_temperatures(self.temperature)


def from_real(values: Tensor, temperature: Tensor) -> tuple[Lattices, float]:
    """Lattices from real numbers (n, side, side) by their sign (0 counts as up), and the mean of | |value| - 1 |, which says how
    far the numbers were from being spins."""
    _refuse_shape(tuple(values.shape))
    bad = ~torch.isfinite(values)
    if bad.any():
        raise Refused(f"{int(bad.sum())} of {values.numel()} drawn numbers are not finite, first in lattice {int(bad.nonzero()[0, 0])}")
    spins = torch.where(values < 0, -1, 1).to(torch.int8)
    return Lattices(spins, temperature.to(torch.float32)), float((values.abs() - 1).abs().mean()) if values.numel() else 0.0


def _refuse_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 3:
        raise Refused(f"spins have shape {shape}; expected (lattices, side, side)")
    if shape[1] != shape[2] or shape[1] < 2:
        raise Refused(f"lattices of {shape[1]} x {shape[2]} spins; expected squares of side 2 or more")


def _refuse_spins(spins: Any) -> None:
    """For tensors and arrays alike."""
    wrong = (spins != 1) & (spins != -1)
    if wrong.any():
        lattice = int(wrong.reshape(len(wrong), -1).any(1).nonzero()[0][0])
        value = spins[lattice][wrong[lattice]][0].item()
        raise Refused(f"{int(wrong.sum())} spins are neither -1 nor +1; the first is in lattice {lattice}, with value {value}")


def _refuse_temperatures(temperature: Any) -> None:
    good = (temperature > 0) & (temperature < math.inf)
    if not good.all():
        row = int((~good).nonzero()[0][0])
        raise Refused(
            f"temperatures must be positive and finite, in units J / kB; lattice {row} has {temperature[row].item()} "
            f"({int((~good).sum())} in all)"
        )


# --- simulate ---


def equilibrium(side: int, temperatures: Sequence[float], each: int, *, seed: int, progress: Progress | None = None) -> Lattices:
    """`each` independent equilibrium lattices per temperature, rows in the order of `temperatures`.

    The lattice of (seed, side, temperature, row) is the same whatever else is asked for. With and without numba the lattices
    are different draws from the same law.
    """
    if side < 2 or each < 1 or seed < 0:
        raise Refused(f"side {side}, {each} lattices per temperature, seed {seed}: expected side >= 2, at least one lattice, seed >= 0")
    asked = np.asarray(temperatures, np.float32)
    if asked.ndim != 1 or len(asked) == 0:
        raise Refused("no temperature asked for; give a list such as [2.0, 2.27, 2.6]")
    _refuse_temperatures(asked)
    if asked.min() < 0.05:
        raise Refused(f"temperature {asked.min():g} is below 0.05, where all but one lattice in 10^60 is fully ordered; ask for more")
    spins = np.empty((len(asked) * each, side, side), np.int8)
    for i, temperature in enumerate(asked):
        spins[i * each : (i + 1) * each] = _equilibrated(side, float(temperature), each, seed)
        if progress is not None:
            progress((i + 1) * each, len(spins))
    return Lattices(torch.from_numpy(spins), torch.from_numpy(np.repeat(asked, each)))


def simulated(side: int, temperatures: Sequence[float], each: int, *, seed: int) -> Lattices:
    """`equilibrium`, remembered between runs: a study asks for the same lattices again when it resumes, draws or judges.

    Files lie in the user's cache folder, or the one that SIMULACRA_CACHE names; one that is damaged is made anew, and where none
    can be written nothing is lost but time.
    """
    asked = [float(np.float32(t)) for t in temperatures]
    key = hashlib.sha256(json.dumps([side, asked, each, seed, _numba(), __version__]).encode()).hexdigest()[:16]
    path = Path(os.environ.get("SIMULACRA_CACHE") or pooch.os_cache("simulacra")) / f"ising-{key}.npz"
    if path.is_file():
        with contextlib.suppress(Refused):
            found = read(path)
            if found.spins.shape == (len(asked) * each, side, side):
                return found
    lattices = equilibrium(side, temperatures, each, seed=seed)
    with contextlib.suppress(OSError, Refused):
        path.parent.mkdir(parents=True, exist_ok=True)
        write(lattices, path)
    return lattices


def sweeps_to_equilibrium(side: int) -> int:
    """Sweeps after which a start is forgotten, a sweep being side^2 turned spins: 20 relaxation times and more.

    From all up, energy and |m| of Wolff chains approach equilibrium by a factor of about 2 per sweep at T_c, side 16 to 64, and
    faster elsewhere (measured against Kaufman's energies); the time grows as side^z, z about 0.25.
    """
    return math.ceil(40 * math.sqrt(math.sqrt(max(side / 32, 1))))


def _equilibrated(side: int, temperature: float, each: int, seed: int) -> Spins:
    if not _numba():
        method = _by_swendsen_wang
    elif metropolis_is_fast(side, temperature):
        method = _by_metropolis
    else:
        method = _by_wolff
    return method(side, temperature, each, seed) * _signs(side, temperature, each, seed)


def metropolis_is_fast(side: int, temperature: float) -> bool:
    """Where local moves forget within ten sweeps: xi < 2.2 above, while far above, where nearly every move is accepted, a
    checkerboard only turns all spins over and over."""
    return side % 2 == 0 and 3.0 <= temperature <= 8.0


def _by_swendsen_wang(side: int, temperature: float, each: int, seed: int) -> Spins:
    rngs = [np.random.default_rng(_entropy(seed, side, temperature, row)) for row in range(each)]
    spins = _start(side, each)
    for _ in range(sweeps_to_equilibrium(side)):
        swendsen_wang(spins, temperature, rngs)
    return spins


def _by_wolff(side: int, temperature: float, each: int, seed: int) -> Spins:
    from simulacra.sciences.ising import montecarlo

    neighbours, threshold = _neighbours(side), np.uint64(-math.expm1(-2 / temperature) * 2**53)
    sweeps = sweeps_to_equilibrium(side)
    pilot = _start(side, 1).reshape(-1)
    size = montecarlo.mean_cluster(pilot, neighbours, threshold, _stream(seed, side, temperature, -1), 2 * sweeps)
    spins = _start(side, each).reshape(each, -1)
    streams = np.stack([_stream(seed, side, temperature, row) for row in range(each)])
    montecarlo.wolff(spins, neighbours, threshold, streams, math.ceil(sweeps * side**2 / size))
    return spins.reshape(each, side, side)


def _by_metropolis(side: int, temperature: float, each: int, seed: int, sweeps: int = 250) -> Spins:
    from simulacra.sciences.ising import montecarlo

    digits, parts = binary_digits(math.exp(-4 / temperature)), []
    for block in range(0, each, LANES):
        state = _stream(seed, side, temperature, block)
        lanes = montecarlo.random_lanes(side, state)
        montecarlo.metropolis(lanes, state, digits, sweeps)
        parts.append(montecarlo.unpack(lanes, min(LANES, each - block)))
    return np.concatenate(parts)


def metropolis(lattices: Lattices, sweeps: int, *, seed: int) -> Lattices:
    """The lattices after `sweeps` checkerboard sweeps of local Metropolis dynamics, each at its own temperature; side even.

    This is how a magnet relaxes; near T_c it takes about side^2.17 sweeps, so `equilibrium` does not rely on it.
    """
    if lattices.side % 2:
        raise Refused(f"a checkerboard needs an even side, got {lattices.side}")
    spins = lattices.spins.numpy().copy()
    temperatures = lattices.temperature.numpy()
    for temperature in np.unique(temperatures):
        rows = np.flatnonzero(temperatures == temperature)
        for block in range(0, len(rows), LANES):
            some = rows[block : block + LANES]
            spins[some] = _relaxed(spins[some], float(temperature), sweeps, _entropy(seed, lattices.side, temperature, block))
    return Lattices(torch.from_numpy(spins), lattices.temperature)


def _relaxed(spins: Spins, temperature: float, sweeps: int, entropy: list[int]) -> Spins:
    if not _numba():
        checkerboard(spins, temperature, sweeps, np.random.default_rng(entropy))
        return spins
    from simulacra.sciences.ising import montecarlo

    lanes, state = montecarlo.pack(spins), np.random.SeedSequence(entropy).generate_state(4, np.uint64)
    montecarlo.metropolis(lanes, state, binary_digits(math.exp(-4 / temperature)), sweeps)
    relaxed: Spins = montecarlo.unpack(lanes, len(spins))
    return relaxed


def checkerboard(spins: Spins, temperature: float, sweeps: int, rng: np.random.Generator) -> None:
    """Metropolis sweeps in plain numpy, in place; spins (n, side, side), side even."""
    side = spins.shape[-1]
    odd = np.add.outer(np.arange(side), np.arange(side)) % 2
    accept = np.exp(-2 * np.arange(-4, 5) / temperature).astype(np.float32)  # by s_i times the sum of its neighbours
    for half in range(2 * sweeps):
        around = np.roll(spins, 1, 1) + np.roll(spins, -1, 1) + np.roll(spins, 1, 2) + np.roll(spins, -1, 2)
        flip = (rng.random(spins.shape, np.float32) < accept[spins * around + 4]) & (odd == half % 2)
        spins[flip] *= -1


def swendsen_wang(spins: Spins, temperature: float, rngs: Sequence[np.random.Generator]) -> None:
    """One cluster sweep in place: join aligned neighbours with probability 1 - exp(-2/T), then give each cluster a random sign."""
    n, side = len(spins), spins.shape[-1]
    luck = np.stack([rng.random((3, side, side), np.float32) for rng in rngs], axis=1)
    down, right = (
        (spins == np.roll(spins, -1, axis)) & (chance < -math.expm1(-2 / temperature)) for axis, chance in ((1, luck[0]), (2, luck[1]))
    )
    cluster = clusters(down, right)
    sign = np.zeros(cluster.max() + 1, np.int8)
    sign[cluster] = np.where(luck[2] < 0.5, -1, 1)  # any one of the cluster's sites decides
    spins[:] = sign[cluster].reshape(n, side, side)


def clusters(down: NDArray[np.bool_], right: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Number of the cluster that each site (n, side, side) belongs to, where bonds tie sites to those below and to the right."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    site = np.arange(down.size).reshape(down.shape)
    ends = [np.stack([site[bond], np.roll(site, -1, axis)[bond]]) for axis, bond in ((1, down), (2, right))]
    one, other = np.concatenate(ends, axis=1)
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(down.size, down.size))
    return np.asarray(connected_components(graph, directed=False)[1], np.int32).reshape(down.shape)


def binary_digits(p: float) -> NDArray[np.uint64]:
    """The first 53 binary digits of p in [0, 1), each as a word of zeros or of ones."""
    scaled = int(p * 2**53)
    return np.array([(2**64 - 1) * (scaled >> k & 1) for k in range(52, -1, -1)], np.uint64)


def _start(side: int, each: int) -> Spins:
    """All up in every chain. Wolff clusters forget it in a few sweeps, in which local moves would not (T_c and below)."""
    return np.ones((each, side, side), np.int8)


def _signs(side: int, temperature: float, each: int, seed: int) -> Spins:
    """E(-s) = E(s): turning a whole lattice over is an exact symmetry, and makes both signs of m equally likely at any T."""
    rows = (np.random.SeedSequence([*_entropy(seed, side, temperature, row), 1]).generate_state(1)[0] & 1 for row in range(each))
    return (1 - 2 * np.fromiter(rows, np.int8, each))[:, None, None].astype(np.int8)


def _entropy(seed: int, side: int, temperature: float, row: int) -> list[int]:
    """What a random stream is derived from; row -1 is the pilot chain."""
    return [seed, side, int(np.float32(temperature).view(np.uint32)), row + 1]


def _stream(seed: int, side: int, temperature: float, row: int) -> NDArray[np.uint64]:
    return np.asarray(np.random.SeedSequence(_entropy(seed, side, temperature, row)).generate_state(4, np.uint64), np.uint64)


@functools.cache
def _neighbours(side: int) -> NDArray[np.int32]:
    """(side^2, 4): the sites above, below, left and right of each site."""
    site = np.arange(side * side, dtype=np.int32).reshape(side, side)
    return np.stack([np.roll(site, shift, axis).reshape(-1) for axis in (0, 1) for shift in (1, -1)], axis=1)


@functools.cache
def _numba() -> bool:
    try:
        import numba  # noqa: F401
    except ImportError:
        log.warning('numba is missing, so lattices are simulated several times more slowly; `pip install "simulacra[ising]"` brings it')
        return False
    return True


def divide(lattices: Lattices, *, validation: float = 0.1, held_out: float = 0.2, seed: int) -> tuple[Lattices, Lattices, Lattices]:
    """Train, validation and held-out lattices, with these shares of every temperature."""
    rng = np.random.default_rng([seed, 0xD1])
    rows: tuple[list[int], list[int], list[int]] = ([], [], [])
    for temperature in np.unique(lattices.temperature.numpy()):
        here = rng.permutation(np.flatnonzero(lattices.temperature.numpy() == temperature))
        first, second = round(len(here) * held_out), round(len(here) * (held_out + validation))
        for part, some in zip(rows, (here[second:], here[first:second], here[:first]), strict=True):
            part.extend(sorted(some.tolist()))
    train, between, kept = (lattices[torch.tensor(part, dtype=torch.long)] for part in rows)
    return train, between, kept


# --- read and write ---


def write(lattices: Lattices, path: Path) -> None:
    """An .npz file with arrays `spins` (n, side, side) int8 and `temperature` (n,) float32; appears whole or not at all."""
    content = io.BytesIO()
    np.savez_compressed(content, spins=lattices.spins.cpu().numpy(), temperature=lattices.temperature.cpu().numpy())
    write_atomically(Path(path), content.getvalue())


def read(path: Path) -> Lattices:
    """Lattices from an .npz file with arrays `spins` (n, side, side), every entry -1 or +1, and `temperature` (n,) or a single
    number, in units J / kB. Headers are examined before anything is allocated, and nothing is unpickled."""
    path = Path(path)
    if not path.is_file():
        raise Refused(f"{path}: no such file")
    with path.open("rb") as file:
        if file.read(6) == b"\x93NUMPY":
            raise Refused(f"{path}: a bare .npy array holds no temperature; save both with np.savez(path, spins=..., temperature=...)")
    try:
        with zipfile.ZipFile(path) as archive:
            spins, temperature = (_array(path, archive, name) for name in ("spins", "temperature"))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise Refused(f"{path}: not a complete .npz file ({error}); it may be cut off, so copy or write it again") from error
    try:
        return _lattices(spins, temperature)
    except Refused as refusal:
        raise Refused(f"{path}: {refusal}") from None


def _lattices(spins: NDArray[Any], temperature: NDArray[Any]) -> Lattices:
    _refuse_shape(spins.shape)
    if len(spins) == 0:
        raise Refused("no lattice in it")
    _refuse_spins(spins)  # before the conversion to int8, which would turn 257 into 1
    if temperature.ndim == 0:
        temperature = np.full(len(spins), temperature)
    return Lattices(torch.from_numpy(spins.astype(np.int8)), torch.from_numpy(temperature.astype(np.float32)))


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    held = [entry.removesuffix(".npy") for entry in archive.namelist()]
    if name not in held:
        raise Refused(f"{path}: array `{name}` is missing; it holds {', '.join(held) or 'nothing'}; expected spins and temperature")
    entry = archive.getinfo(archive.namelist()[held.index(name)])
    with archive.open(entry) as file:
        _examine(path, name, file, entry.file_size)
    with archive.open(entry) as file:
        try:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
        except ValueError as error:
            raise Refused(f"{path}: array `{name}` cannot be read ({error})") from error


def _examine(path: Path, name: str, file: IO[bytes], size: int) -> None:
    """Refuse by the array's header alone: type, number of elements, and whether the bytes can be there."""
    try:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
    except ValueError as error:
        raise Refused(f"{path}: array `{name}` has no readable header ({error})") from error
    if dtype.kind not in "iuf":
        raise Refused(f"{path}: array `{name}` is of type {dtype}; expected integers or real numbers (objects are never unpickled)")
    if math.prod(shape) > LARGEST:
        claim = f"{math.prod(shape):.3g} elements (shape {shape})"
        raise Refused(f"{path}: array `{name}` claims {claim}; at most {LARGEST:.0e} are read, so split the file")
    if size - file.tell() < math.prod(shape) * dtype.itemsize:
        raise Refused(f"{path}: array `{name}` claims shape {shape} but its data are cut off")


def picture(lattices: Lattices) -> Array:
    """Images (n, side, side, 3) in [0, 1]: spin up apricot, spin down steel blue."""
    return np.where(lattices.spins.cpu().numpy()[..., None] > 0, np.array(UP), np.array(DOWN))


def label(temperature: ArrayLike) -> Array:
    """Temperatures rounded to 1e-4, so that equal ones compare equal in whatever precision they were stored."""
    return np.round(np.asarray(temperature, float), 4)
