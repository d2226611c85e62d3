"""Compiled Monte Carlo moves for s_i in {-1, +1} with P(s) ~ exp(K sum_<ij> s_i s_j), K = J / (kB T), periodic square lattice.

Wolff 1989 (PRL 62:361). Grow a cluster from a random site, adding aligned neighbours with probability 1 - exp(-2K), and turn
    it over: always accepted. Critical slowing down almost vanishes (z about 0.25).
Metropolis 1953 (J. Chem. Phys. 21:1087), checkerboard, 64 replicas in the bits of one word. With a of the 4 neighbours aligned,
    turning the spin costs 4 (a - 2) J: always accepted for a <= 2, with exp(-4K) for a = 3, with exp(-4K)^2 for a = 4. The
    neighbours are counted by bitwise adders. A word of Bernoulli(p) bits compares random words with the binary digits of p, the
    most significant first, until every lane that asked is decided: lane by lane independent, two words expected per lane.

Random numbers: xoshiro256++ (Blackman & Vigna 2021), one state of four words per stream. This module needs numba.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Spins = NDArray[np.int8]

ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
ZERO = np.uint64(0)
ONE = np.uint64(1)
S11, S17, S19, S23, S41, S45 = (np.uint64(n) for n in (11, 17, 19, 23, 41, 45))
DIGITS = 53  # binary digits of a probability


@njit(cache=True, inline="always")  # type: ignore[untyped-decorator]
def advance(a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64, np.uint64]:
    """64 random bits and the next state."""
    total = a + d
    word = ((total << S23) | (total >> S41)) + a
    c ^= a
    d ^= b
    return word, a ^ d, b ^ c, c ^ (b << S17), (d << S45) | (d >> S19)


@njit(cache=True, inline="always")  # type: ignore[untyped-decorator]
def next_word(state: Words) -> np.uint64:
    """64 random bits; moves the stream on."""
    word: np.uint64
    word, state[0], state[1], state[2], state[3] = advance(state[0], state[1], state[2], state[3])
    return word


@njit(cache=True)  # type: ignore[untyped-decorator]
def bernoulli(state: Words, digits: Words, asked: np.uint64) -> np.uint64:
    """Bits that are 1 with the probability whose binary digits (0 or ALL, first digit first) are given, in the lanes asked for."""
    result, undecided = ZERO, asked
    a, b, c, d = state[0], state[1], state[2], state[3]  # in registers while it runs
    for digit in digits:
        word, a, b, c, d = advance(a, b, c, d)
        result |= undecided & digit & ~word  # random 0 against digit 1: below p
        undecided &= ~(word ^ digit)  # equal so far: look at the next digit
        if undecided == ZERO:
            break
    state[0], state[1], state[2], state[3] = a, b, c, d
    return result


@njit(cache=True)  # type: ignore[untyped-decorator]
def metropolis(lanes: Words, state: Words, digits: Words, sweeps: int) -> None:
    """`sweeps` checkerboard sweeps in place; lanes (side, side) hold 64 replicas, bit 1 for spin up; side even."""
    side = lanes.shape[0]
    for half in range(2 * sweeps):
        for i in range(side):
            above, below = (i - 1) % side, (i + 1) % side
            for j in range((i + half) % 2, side, 2):
                s = lanes[i, j]
                left = lanes[i, j - 1 if j > 0 else side - 1]
                right = lanes[i, j + 1 if j + 1 < side else 0]
                a, b, c, d = ~(s ^ lanes[above, j]), ~(s ^ lanes[below, j]), ~(s ^ left), ~(s ^ right)
                odd = a ^ b ^ c ^ d
                three = odd & ((a & b) | (c & d))
                four = a & b & c & d
                asked = three | four
                flip = ~asked
                if asked != ZERO:
                    first = bernoulli(state, digits, asked)
                    flip |= first & three
                    twice = first & four
                    if twice != ZERO:
                        flip |= bernoulli(state, digits, twice)
                lanes[i, j] = s ^ flip


@njit(cache=True)  # type: ignore[untyped-decorator]
def random_lanes(side: int, state: Words) -> Words:
    """64 lattices at infinite temperature."""
    lanes = np.empty((side, side), np.uint64)
    for i in range(side):
        for j in range(side):
            lanes[i, j] = next_word(state)
    return lanes


@njit(cache=True)  # type: ignore[untyped-decorator]
def pack(spins: Spins) -> Words:
    """Up to 64 lattices (n, side, side) as lanes (side, side)."""
    lanes = np.zeros(spins.shape[1:], np.uint64)
    for lane in range(spins.shape[0]):
        bit = ONE << np.uint64(lane)
        for i in range(spins.shape[1]):
            for j in range(spins.shape[2]):
                if spins[lane, i, j] > 0:
                    lanes[i, j] |= bit
    return lanes


@njit(cache=True)  # type: ignore[untyped-decorator]
def unpack(lanes: Words, count: int) -> Spins:
    """The first `count` of the 64 lattices, shape (count, side, side)."""
    spins = np.empty((count, *lanes.shape), np.int8)
    for lane in range(count):
        shift = np.uint64(lane)
        for i in range(lanes.shape[0]):
            for j in range(lanes.shape[1]):
                spins[lane, i, j] = 2 * np.int8((lanes[i, j] >> shift) & ONE) - 1
    return spins


@njit(cache=True)  # type: ignore[untyped-decorator]
def turn_cluster(spins: Spins, neighbours: NDArray[np.int32], stack: NDArray[np.int32], threshold: np.uint64, state: Words) -> int:
    """Grow one Wolff cluster on the flat lattice `spins` (side^2,), turn it over and return its size."""
    sites = np.uint64(len(spins))
    seed = np.int32(((next_word(state) >> np.uint64(32)) * sites) >> np.uint64(32))
    own = spins[seed]
    spins[seed] = -own
    stack[0] = seed
    top, size = 1, 1
    while top > 0:
        top -= 1
        site = stack[top]
        for k in range(4):
            other = neighbours[site, k]
            if spins[other] == own and (next_word(state) >> S11) < threshold:
                spins[other] = -own
                stack[top] = other
                top += 1
                size += 1
    return size


@njit(cache=True)  # type: ignore[untyped-decorator]
def wolff(spins: Spins, neighbours: NDArray[np.int32], threshold: np.uint64, states: Words, flips: int) -> None:
    """Turn `flips` clusters in each lattice of spins (n, side^2), lattice i drawing on stream states[i]; in place."""
    stack = np.empty(spins.shape[1], np.int32)
    for chain in range(spins.shape[0]):
        for _ in range(flips):
            turn_cluster(spins[chain], neighbours, stack, threshold, states[chain])


@njit(cache=True)  # type: ignore[untyped-decorator]
def mean_cluster(spins: Spins, neighbours: NDArray[np.int32], threshold: np.uint64, state: Words, sweeps: int) -> float:
    """Mean size of a Wolff cluster along one chain, over the second half of `sweeps` times side^2 turned spins."""
    stack = np.empty(len(spins), np.int32)
    turned = counted = clusters = 0
    while turned < sweeps * len(spins):
        size = turn_cluster(spins, neighbours, stack, threshold, state)
        turned += size
        if 2 * turned > sweeps * len(spins):
            counted += size
            clusters += 1
    return counted / clusters
