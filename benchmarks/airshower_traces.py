"""Traces per second of the air-shower simulator beside a plain loop over traces, and how hard each background is.

    OMP_NUM_THREADS=1 python benchmarks/airshower_traces.py [traces] [--quality]

The loop makes the same trace one at a time: white noise coloured by the square root of its spectrum, waves of the transmitters, a pulse
from its spectrum. Seconds are of processor time, the best of three rounds.

With --quality, on 1,000 traces of SNR 2 in each background but the cosine, which leaves the rest of the band empty: the matched filter
with 16 templates at every quarter of a step, whitened by the exact covariance. Its d' is |whitened pulse|; `place` is how often the
largest value of the best template, put where it fits best, lies within 10 steps of the true one; `accuracy` and `found` take as threshold
the best one, and the one that 1 % of traces without a pulse exceed.
"""

import sys
import time

import numpy as np
from scipy.linalg import cholesky, solve_triangular, toeplitz
from scipy.signal import resample

from simulacra.sciences.airshower import simulate as air

ROUNDS = 3
FINER = 4  # places per step


def plainly(n, rng):
    """The measured background with pulses, trace by trace."""
    steps, rate, ring = air.STEPS, air.RATE, 640
    f, time_us = np.fft.rfftfreq(ring, 1 / rate), np.arange(steps) / rate
    colour = np.abs(air.receiver(f)) * np.maximum(f, 1) ** (-air.SLOPE / 2)
    antenna = air.receiver(f) / np.maximum(f, 1)
    traces = []
    for _ in range(n):
        trace = np.fft.irfft(np.fft.rfft(rng.normal(size=ring)) * colour, ring)[:steps]
        for line in air.TRANSMITTERS:
            trace += rng.lognormal(sigma=air.UNSTEADY) * np.cos(2 * np.pi * (line * time_us + rng.random()))
        if rng.random() < 0.5:
            begin, delay, width = 0.3 + 1.9 * rng.random(), air.DELAY * rng.random(), rng.uniform(*air.WIDTHS)
            late = begin * f + delay * (80 * f - f**2 / 2) / 50
            pulse = np.fft.irfft(antenna * np.exp(-f / width - 2j * np.pi * late), ring)[:steps]
            trace += 0.2 * pulse / np.abs(pulse).max()
        traces.append(trace)
    return np.array(traces)


def seconds(work):
    """Of processor time, the best of ROUNDS."""
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def quality(name):
    """d', share placed, accuracy and share found at 1 % false alarms of the matched filter in the background `name`."""
    nature = air.simulate(1000, name, seed=99)
    factor = cholesky(toeplitz(air.autocovariance(name)), lower=True)
    white = solve_triangular(factor, nature.measured.numpy().T.astype(float), lower=True)
    truth, there = nature.signal.numpy().astype(float), nature.presence.numpy() == 1
    strength = np.linalg.norm(solve_triangular(factor, truth[there].T, lower=True), axis=0)
    best, place = np.zeros(len(nature)), np.zeros(len(nature), int)
    for template in air.templates(4):
        fine = resample(template, FINER * air.STEPS)
        for shift in range(FINER):
            moved = np.roll(fine, shift)[::FINER]
            bank = np.stack([np.roll(moved, k) for k in range(-220, 190)], axis=1)
            peaks = np.abs(bank).argmax(axis=0)
            bank = solve_triangular(factor, bank, lower=True)
            score = np.abs((bank / np.linalg.norm(bank, axis=0)).T @ white)
            top, where = score.max(axis=0), peaks[score.argmax(axis=0)]
            place = np.where(top > best, where, place)
            best = np.maximum(best, top)
    placed = np.abs(place - np.abs(truth).argmax(axis=1))[there] <= 10
    accuracy = max(np.mean((best > threshold) == there) for threshold in np.quantile(best, np.linspace(0.01, 0.99, 99)))
    found = np.mean(best[there] > np.quantile(best[~there], 0.99))
    return strength.mean(), placed.mean(), accuracy, found


def main():
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    n = numbers[0] if numbers else 16_384
    few = min(n, 1024)
    for name in air.BACKGROUNDS:
        air.simulate(256, name)
    loop = few / seconds(lambda: plainly(few, np.random.default_rng(0)))
    print(f"{'background':<12}traces/s   ratio to a plain loop ({loop:,.0f}/s)")
    for name in air.BACKGROUNDS:
        rate = n / seconds(lambda: air.simulate(n, name))  # noqa: B023  # called at once
        print(f"{name:<12}{rate:>8,.0f}   {rate / loop:.1f}")
    if "--quality" in sys.argv:
        print("\nbackground     d'   place   accuracy   found at 1 % false alarms")
        for name in ("measured", "uniform", "white"):
            strength, placed, accuracy, found = quality(name)
            print(f"{name:<12}{strength:5.2f}   {placed:.3f}   {accuracy:.3f}      {found:.3f}")


if __name__ == "__main__":
    main()
