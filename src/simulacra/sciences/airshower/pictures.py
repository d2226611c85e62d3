"""Pictures of recovered pulses for a report: traces, spectra as the articles show them, and the detection beside the matched filter's."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulacra.evidence import Figure
from simulacra.sciences.airshower import filters, statistics
from simulacra.sciences.airshower.data import Traces, signal_to_noise
from simulacra.sciences.airshower.statistics import Known

SHOWN = 6  # traces
SPECTRA = 3
INK = {"measured": "0.75", "truth": "#c83c1e", "recovered": "#145aaa", "other": "#3a8a3a"}


def figures(nature: Traces, found: Traces, known: Known | None) -> list[Figure]:
    """Of held-out traces and what was recovered of them, row by row."""
    there = (nature.signal != 0).any(1).numpy()
    drawn = [
        Figure(
            "Pulses recovered", "Held-out traces, none chosen, two of them without a pulse where there are such: measured (grey), true "
            "signal (red), recovered (blue) on a band of twice its spread.", _traces(nature, found, there),
        ),
        Figure(
            "Spectra", "Amplitude of the Fourier modes of held-out traces with a pulse: measured (grey), true (red), recovered (blue). "
            "The antenna sees 30 to 80 MHz.", _spectra(nature, found, there),
        ),
    ]  # fmt: skip
    if known and statistics.FEWEST <= there.sum() <= len(there) - statistics.FEWEST:
        caption = "Share of pulses found against the rate of false alarms, by thirds of the signal-to-noise ratio where that differs."
        drawn.append(Figure("Detection", caption, _roc(nature, found, there, known)))
    return drawn


def _canvas(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, NDArray[Any]]:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=size, layout="constrained")
    return canvas, canvas.subplots(rows, columns, squeeze=False).ravel()


def _png(canvas: Any) -> bytes:
    file = io.BytesIO()
    canvas.savefig(file, format="png", dpi=130)
    return file.getvalue()


def _traces(nature: Traces, found: Traces, there: NDArray[np.bool_]) -> bytes:
    none = np.flatnonzero(~there)[: SHOWN // 3]
    rows = np.concatenate([np.flatnonzero(there)[: SHOWN - len(none)], none])
    canvas, panels = _canvas(2, SHOWN // 2, (12, 5.6))
    time = np.arange(nature.steps) / float(nature.rate[0])
    snr = signal_to_noise(nature)[0]
    for axes, row in zip(panels, rows, strict=False):
        measured, truth, signal, spread = (v[row].numpy() for v in (nature.measured, nature.signal, found.signal, found.spread))
        axes.plot(time, measured, color=INK["measured"], lw=0.8, label="measured")
        axes.plot(time, truth, color=INK["truth"], lw=1.4, label="true")
        if np.isfinite(spread).all():
            axes.fill_between(time, signal - 2 * spread, signal + 2 * spread, color=INK["recovered"], alpha=0.2, lw=0)
        axes.plot(time, signal, color=INK["recovered"], lw=1.0, label="recovered")
        told = f", p = {float(found.presence[row]):.3f}" if np.isfinite(float(found.presence[row])) else ""
        axes.set_title(f"SNR {float(snr[row]):.2f}{told}" if there[row] else f"no pulse{told}", fontsize=10)
        axes.set(xlabel="time (\N{MICRO SIGN}s)", ylabel="voltage (mV)", xlim=(0, time[-1]))
    panels[0].legend(fontsize=8, loc="upper right")
    return _png(canvas)


def _spectra(nature: Traces, found: Traces, there: NDArray[np.bool_]) -> bytes:
    canvas, panels = _canvas(1, SPECTRA, (12, 3.4))
    frequency = np.fft.rfftfreq(nature.steps, 1 / float(nature.rate[0]))
    for axes, row in zip(panels, np.flatnonzero(there)[:SPECTRA], strict=False):
        for name, values in (("measured", nature.measured), ("truth", nature.signal), ("recovered", found.signal)):
            axes.plot(frequency, np.abs(np.fft.rfft(values[row].numpy())), color=INK[name], lw=1.2, label=name)
        axes.axvspan(*filters.BAND, color="0.5", alpha=0.08, lw=0)
        axes.set(xlabel="frequency (MHz)", ylabel="|FFT| (mV)", xlim=(0, frequency[-1]))
    panels[0].legend(fontsize=8)
    return _png(canvas)


def _roc(nature: Traces, found: Traces, there: NDArray[np.bool_], known: Known) -> bytes:
    canvas, (axes,) = _canvas(1, 1, (6.4, 4.4))
    score = known.bank.read(nature.measured.double().numpy()).score
    snr = signal_to_noise(nature)[0].numpy()
    edges = np.quantile(snr[there], [0, 1 / 3, 2 / 3, 1])
    thirds = list(pairwise(edges)) if edges[-1] > 2 * edges[0] else [(edges[0], edges[-1])]
    for number, (low, high) in enumerate(thirds):
        inside = there & (snr >= low) & (snr <= high)
        for name, values, style in (("recovered", statistics.confidence(found), "-"), ("matched filter", score, "--")):
            curve = statistics.curve_of_detection(values[~there], values[inside])
            label = f"{name}, SNR {low:.2g} to {high:.2g}" if len(thirds) > 1 else name
            axes.plot(statistics.ALARMS, curve, style, color=f"C{number}", label=label)
    axes.set(xscale="log", xlabel="rate of false alarms", ylabel="share of pulses found", ylim=(0, 1.02))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(fontsize=8, loc="lower right")
    return _png(canvas)
