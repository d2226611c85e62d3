"""Files of radio traces: read, checked, set aside where they cannot be used, and written with what was recovered.

    .npz, .h5   `traces` or `measured` (n, steps) or (steps,), `rate` or `sampling_rate` in MHz (one, or one for each; in HDF5 an attribute
                or a data set); where known `signals` or `signal`, `spread`, `presence`; `unit` (text: V, mV, uV; default mV)
    .csv        one trace per line, with a line `# rate 180` (MHz) above; or a first column `time_us` (or _ns, _s) and a column for each
                trace; or named columns measured_0, ..., signal_0, ..., spread_0, ..., presence, rate, as they are written here

A trace that is dead, or holds values that are not numbers, is set aside, not fatal; one that is clipped is used, with a warning.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import itertools
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from simulacra.sciences.airshower.data import RATES, Traces, traces
from simulacra.sciences.airshower.simulate import LEVEL
from simulacra.study import Refused

Array = NDArray[Any]

FORMATS = (".npz", ".h5", ".hdf5", ".csv")  # that are read and written
NAMES = {
    "measured": ("measured", "traces", "trace"), "signal": ("signal", "signals"), "spread": ("spread",), "presence": ("presence",),
    "rate": ("rate", "sampling_rate", "rate_mhz", "sampling_rate_mhz"), "unit": ("unit", "units"),
}  # fmt: skip
UNITS = {"mv": 1.0, "v": 1e3, "uv": 1e-3, "\N{MICRO SIGN}v": 1e-3, "\N{GREEK SMALL LETTER MU}v": 1e-3}  # in mV
CLOCKS = {"time_us": 1.0, "time_ns": 1e3, "time_s": 1e-6, "time_ms": 1e-3}  # steps per us of a time column, over its step
SAME_RATE = 1e-3  # relative difference of rates that are one rate
SAME_LEVEL = 1.25  # ratio of two levels of noise that are one level
CLAIMED, FEW = 0.9, 20  # share of so many traces with a pulse that is told to be suspicious
FLAT_TOP = 5  # steps at the very highest or lowest value of a trace: the range of the digitiser ended there
DAMAGE = (OSError, ValueError, EOFError, KeyError, TypeError, zlib.error, zipfile.BadZipFile)  # what readers raise on broken files


class Wanted(Protocol):
    """What a recipe says of the traces that its model takes."""

    @property
    def length(self) -> int: ...

    @property
    def rate(self) -> float: ...

    @property
    def data(self) -> Path | None: ...


@dataclasses.dataclass(frozen=True)
class Given:
    """What a file holds: the traces that can be used, the rows of the file that they are, and what there is to say about the others."""

    usable: Traces
    rows: Array  # (len(usable),): row of the file of each
    measured: Array  # (rows of the file, steps) float32: all of them
    rejected: Sequence[str]  # one line for each that is set aside
    dead: int  # of those: all values are the same
    clipped: int  # of the usable ones
    rate: float
    scale: float = 1.0  # that the usable ones were multiplied by, for a model that learned at another level of noise

    @property
    def remarks(self) -> list[str]:
        """What must be known of the traces that are used."""
        lines = []
        if self.scale != 1:
            lines.append(
                f"the noise of these traces is {1 / self.scale:.3g} times as strong as what the model learned from: they are scaled for "
                "it, and what it recovers is scaled back"
            )
        if self.clipped:
            lines.append(
                f"Warning: {self.clipped} of {len(self.rows)} traces are clipped ({FLAT_TOP} steps or more at their very highest or "
                "lowest value): the pulses recovered in them are too small"
            )
        return lines

    def write(self, drawn: Traces, path: Path) -> list[str]:
        """A file with a row for each of the input: what was recovered, nan in rows that were set aside. Returns it in words."""
        n, steps = self.measured.shape
        arrays = {"measured": self.measured, "rate": np.full(n, self.rate, np.float32)}
        for name, shape in (("signal", (n, steps)), ("spread", (n, steps)), ("presence", (n,))):
            arrays[name] = np.full(shape, np.nan, np.float32)
            arrays[name][self.rows] = getattr(drawn, name).cpu().numpy() / (1 if name == "presence" else self.scale)
        _write(arrays, path)
        found = int((drawn.presence > 0.5).sum())
        lines = [f"{len(drawn)} traces denoised: {found} hold a pulse (p > 0.5)"]
        if found > CLAIMED * len(drawn) >= CLAIMED * FEW:
            lines.append(
                "Warning: nearly all traces are said to hold a pulse; unless they were triggered on one, your noise is not what the model "
                "learned from: train one with noise of yours"
            )
        if self.rejected:
            lines.append(f"{len(self.rejected)} set aside, nan in the file; {self.dead} of them from dead channels")
        return lines


# ------------------------------------------------------------------------------------------------------------- reading


def read(path: Path | str, rate: float | None = None) -> Traces:
    """All traces of a file; `rate` in MHz where the file does not say. Refused where one of them cannot be used: `given` sets it aside."""
    found = _content(Path(path), rate)
    return traces(found.pop("measured"), found.pop("rate"), **found)


def given(path: Path | str, recipe: Wanted, rate: float | None = None, start: int | None = None) -> Given:
    """The traces of a file that a model for `recipe.length` steps at `recipe.rate` MHz takes; of longer ones the steps from `start` on.

    Refused where lengths or rates do not fit the model, and where no trace can be used.
    """
    path = Path(path)
    found = _content(path, rate)
    _check_length(path, found["measured"].shape[1], recipe, start)
    first = start or 0
    for name in ("measured", "signal", "spread"):
        if name in found:
            found[name] = found[name][:, first : first + recipe.length]
    rates = np.broadcast_to(np.asarray(found["rate"], np.float64).reshape(-1), (len(found["measured"]),))
    fits = np.abs(rates / recipe.rate - 1) < SAME_RATE
    if not fits.any():
        raise Refused(
            f"{path}: traces are sampled at {rates[0]:g} MHz, but the model takes {recipe.rate:g} MHz; resample them "
            f"(scipy.signal.resample_poly), or train a model at their rate: --rate {rates[0]:g}"
        )
    measured = found["measured"]
    finite = np.isfinite(measured).all(1)
    dead = finite & (np.ptp(np.where(finite[:, None], measured, 0), axis=1) == 0)
    reasons = {"holds values that are not numbers": ~finite, "is from a dead channel: all values are the same": dead}
    reasons[f"is not sampled at {recipe.rate:g} MHz"] = ~fits & finite & ~dead
    rejected = [(int(row), f"{path} trace {row} {why}") for why, bad in reasons.items() for row in np.flatnonzero(bad)]
    rows = np.flatnonzero(finite & ~dead & fits)
    if not len(rows):
        raise Refused(f"{path}: none of {len(measured)} traces can be used; the first {rejected[0][1].removeprefix(f'{path} ')}")
    chosen = {name: value if np.ndim(value) == 0 else np.asarray(value)[rows] for name, value in found.items() if name != "rate"}
    usable = traces(chosen.pop("measured"), rates[rows], **chosen)
    clipped = int(is_clipped(measured[rows]).sum())
    return Given(usable, rows, measured, [line for _, line in sorted(rejected)], int(dead.sum()), clipped, recipe.rate)


def records(path: Path | str, recipe: Wanted, rate: float | None = None, start: int | None = None) -> Given:
    """The same for a model that learned from simulated traces, whose noise has an RMS of LEVEL: traces of another level are scaled."""
    found = given(path, recipe, rate, start)
    level = float(found.usable.measured.double().square().mean(1).sqrt().median())  # of most traces: pulses are rare, or short
    if recipe.data is not None or 1 / SAME_LEVEL < level / LEVEL < SAME_LEVEL:
        return found
    scale = LEVEL / level
    measured = (found.usable.measured.double() * scale).float()
    return dataclasses.replace(found, usable=dataclasses.replace(found.usable, measured=measured), scale=scale)


def _check_length(path: Path, steps: int, recipe: Wanted, start: int | None) -> None:
    end = (start or 0) + recipe.length
    if start is not None and not 0 <= start <= steps - recipe.length:
        raise Refused(f"{path}: traces have {steps} steps; a window of {recipe.length} from step {start} on does not lie within them")
    if steps < recipe.length:
        raise Refused(
            f"{path}: traces have {steps} steps, but the model takes {recipe.length}; record longer ones, or train a model for them: "
            f"--length {steps}"
        )
    if steps > end and start is None:
        raise Refused(
            f"{path}: traces have {steps} steps, but the model takes {recipe.length}; say where the window of {recipe.length} about the "
            f"trigger begins (--start {(steps - recipe.length) // 2} takes the middle), or train a model for them: --length {steps}"
        )


def is_clipped(measured: Array) -> NDArray[np.bool_]:
    """Which of the traces (n, steps) reach their highest, or their lowest, value in several steps. They need not be neighbours: at 180 MHz
    a wave of 55 MHz is above a limit for less than two."""
    edges = measured.max(1, keepdims=True), measured.min(1, keepdims=True)
    return np.asarray(np.logical_or(*((measured == edge).sum(1) >= FLAT_TOP for edge in edges)))


def checksum(path: Path) -> str:
    """The file's sha256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _content(path: Path, rate: float | None) -> dict[str, Any]:
    """Arrays of a file under the names of the fields, in mV and MHz; measured always, with its rate."""
    if not path.is_file():
        raise Refused(f"{path}: no such file; expected radio traces as {', '.join(FORMATS)}")
    ending = path.suffix.lower()
    readers = {".npz": _npz, ".csv": _csv, ".h5": _hdf5, ".hdf5": _hdf5}
    if ending not in readers:
        raise Refused(f"{path}: radio traces are read from {', '.join(FORMATS)}")
    found = readers[ending](path)
    if "measured" not in found:
        raise Refused(f"{path}: holds no `traces` of shape (traces, steps)")
    found["measured"] = np.atleast_2d(_numbers(path, "traces", found["measured"]))
    shape = found["measured"].shape
    if len(shape) != 2 or not shape[0]:
        raise Refused(f"{path}: `traces` has shape {shape}; expected (traces, steps), one channel each")
    scale = _in_millivolts(path, found.pop("unit", "mV"))
    for name in ("measured", "signal", "spread", "presence"):
        if name in found:
            values = np.asarray(_numbers(path, name, found[name]), np.float32)
            values = values if name == "presence" else np.atleast_2d(values) * np.float32(scale)
            expected = shape[:1] if name == "presence" else shape
            found[name] = values.reshape(-1) if name == "presence" else values
            if found[name].shape != expected:
                raise Refused(f"{path}: `{name}` has shape {values.shape}, but `traces` {shape}; expected {expected}")
    found["rate"] = _rate(path, found.get("rate"), rate, shape[0])
    return found


def _numbers(path: Path, name: str, value: Any) -> Array:
    values = np.asarray(value)
    if values.dtype.kind not in "fiub":
        raise Refused(f"{path}: `{name}` is {values.dtype.name}; expected numbers")
    return values


def _in_millivolts(path: Path, unit: Any) -> float:
    text = np.asarray(unit).reshape(-1)[0]
    name = (text.decode() if isinstance(text, bytes) else str(text)).strip()
    if name.lower() not in UNITS:
        raise Refused(f"{path}: traces are in {name!r}; expected V, mV or uV: convert them, counts of a digitiser by its volts per count")
    return UNITS[name.lower()]


def _rate(path: Path, own: Any, asked: float | None, n: int) -> Array:
    if own is None and asked is None:
        raise Refused(f"{path}: does not say how fast it was sampled; add `rate` in MHz to the file, or say it: --rate 180")
    try:
        rates = np.asarray(asked if own is None else own, np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise Refused(f"{path}: `rate` is {own!r}; expected the sampling rate in MHz, one for all or one for each trace") from error
    if len(rates) not in (1, n):
        raise Refused(f"{path}: `rate` has {len(rates)} values for {n} traces; expected one for all, or one for each")
    low, high = RATES
    wrong = ~((rates >= low) & (rates <= high))
    if wrong.any():
        value = float(rates[wrong][0])
        hint = f"; in MHz that may be {value / 1e6:g}" if value > high else ""
        raise Refused(f"{path}: the sampling rate is {value:g}; expected MHz, from {low:g} to {high:g}{hint}")
    if own is not None and asked is not None and np.abs(rates / asked - 1).max() > SAME_RATE:
        raise Refused(f"{path}: says that it was sampled at {rates[0]:g} MHz, but --rate says {asked:g}; one of them is wrong")
    return rates


def _named(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a file holds, under the names of the fields; other arrays of it are left alone."""
    return {field: found[name] for field, names in NAMES.items() for name in names[::-1] if name in found}


def _npz(path: Path) -> dict[str, Any]:
    wanted = {name for names in NAMES.values() for name in names}
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _named({name: archive[name] for name in archive.files if name in wanted})
    except DAMAGE as error:
        raise Refused(f"{path}: is damaged, or no .npz of plain arrays ({error})") from error


def _hdf5(path: Path) -> dict[str, Any]:
    h5py = _h5py(path)
    try:
        with h5py.File(path, "r") as file:
            found = {name: file.attrs[name] for name in file.attrs}
            found |= {name: file[name][()] for names in NAMES.values() for name in names if isinstance(file.get(name), h5py.Dataset)}
            for name in NAMES["measured"]:  # what the traces' own attributes say
                found |= dict(file[name].attrs) if name in file else {}
            return _named(found)
    except DAMAGE as error:
        raise Refused(f"{path}: is damaged, or no HDF5 file ({error})") from error


def _h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise Refused(f'{path}: HDF5 needs h5py; pip install "simulacra[astro]", or convert the traces to .npz') from error
    return h5py


def _csv(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(itertools.islice(file, 100))
        comments = [line for line in lines if line.startswith("#")]
        head = next((line for line in lines if not line.startswith("#")), "")
        names = [name.strip() for name in next(csv.reader([head]), [])]
        titled = not any(_is_number(name) for name in names)
        if len(lines) <= len(comments) + titled:
            raise ValueError("it holds none")
        skipped = len(comments) + 1 if titled else 0
        values = np.loadtxt(path, delimiter=",", skiprows=skipped, ndmin=2, encoding="utf-8-sig")
    except DAMAGE as error:
        raise Refused(f"{path}: is no table of numbers separated by commas, one trace per line ({error})") from error
    rate = [float(hit[1]) for line in comments if (hit := re.search(r"rate\D*?([0-9][0-9.eE+]*)", line))]
    found: dict[str, Any] = {"rate": rate[0]} if rate else {}
    if not titled:
        return found | {"measured": values}
    if names[0] in CLOCKS:
        return found | {"measured": values[:, 1:].T, "rate": _rate_of(path, values[:, 0], CLOCKS[names[0]])}
    return found | _columns(path, names, values)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _rate_of(path: Path, time: Array, per_microsecond: float) -> float:
    """Sampling rate in MHz of the column of times."""
    step = np.diff(time)
    if len(step) < 1 or not (step > 0).all() or np.ptp(step) > 0.02 * step.mean():
        raise Refused(f"{path}: the times of the first column do not rise in equal steps; expected a trace without gaps")
    return float(per_microsecond / step.mean())


def _columns(path: Path, names: Sequence[str], values: Array) -> dict[str, Any]:
    """Fields from columns called measured_0, measured_1, ..., presence, rate."""
    found: dict[str, Any] = {}
    for field in ("measured", "signal", "spread"):
        columns = [k for k, name in enumerate(names) if re.fullmatch(rf"{field}_\d+", name)]
        if columns:
            found[field] = values[:, columns]
    found |= {name: values[:, names.index(name)] for name in ("presence", "rate") if name in names}
    if "measured" not in found:
        raise Refused(
            f"{path}: columns are {', '.join(names[:6])}, ...; expected lines of numbers, a first column time_us, or columns measured_0 on"
        )
    return found


# ------------------------------------------------------------------------------------------------------------- writing


def write(found: Traces, path: Path | str) -> None:
    """All fields as .npz, .h5 or .csv, which `read` reads."""
    _write({name: value.cpu().numpy() for name, value in found.fields().items()}, Path(path))


def export(found: Traces, path: Path, against: Path | None = None) -> None:
    """The same, for the command line."""
    if against:
        raise Refused("recovered traces are not compared with known ones here; `simulacra judge airshower.denoiser --drawn FILE` does that")
    write(found, path)


def _write(arrays: Mapping[str, Array], path: Path) -> None:
    ending = path.suffix.lower()
    if ending == ".npz":
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    elif ending in (".h5", ".hdf5"):
        with _h5py(path).File(path, "w") as file:
            for name, value in arrays.items():
                file.create_dataset(name, data=value, compression="gzip", compression_opts=1)
            file.attrs["unit"] = "mV"
    elif ending == ".csv":
        _write_csv(arrays, path)
    else:
        raise Refused(f"{path}: radio traces are written as {', '.join(FORMATS)}")


def _write_csv(arrays: Mapping[str, Array], path: Path) -> None:
    names = [f"{name}_{k}" for name in ("measured", "signal", "spread") for k in range(arrays[name].shape[1])]
    table = np.concatenate(
        [arrays["presence"][:, None], arrays["rate"][:, None], *(arrays[name] for name in ("measured", "signal", "spread"))], axis=1
    )
    np.savetxt(path, table, fmt="%.9g", delimiter=",", header=",".join(["presence", "rate", *names]), comments="", encoding="utf-8")
