"""What it saves to list the neighbours of each row once for all weightings, in the tests of a judge that look at neighbours.

    python benchmarks/neighbour_tests.py [--rows 4000] [--weightings 200]

Beside the rule as it is written in the papers: all distances once, and for each weighting those of its rows. Both in one process, one
thread; the slower one on a tenth of the weightings, but what either does once is shared over all of them.
"""

import argparse
import os
import time

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from simulacra.measures import distance


def whole(apart, p, q, rule):
    """The rules without lists, from all distances."""
    found = []
    for a, c in zip(p > 0, q > 0, strict=True):
        if rule == "neighbour_test":
            rows = np.flatnonzero(a | c)
            among = apart[np.ix_(rows, rows)]
            np.fill_diagonal(among, np.inf)
            found.append(max(np.mean(a[rows] == a[rows][among.argmin(axis=1)]) - 0.5, 0.0))
            continue
        own, other = apart[np.ix_(a, a)], apart[np.ix_(a, c)]
        within = np.partition(own, 5, axis=1)[:, 5]
        found.append(np.mean(other.min(axis=1) > within) if rule == "missed" else np.mean((other > within[:, None]).all(axis=0)))
    return np.array(found)


def halves(n, count, rng):
    """Weightings (count, n) of two halves of all rows, chosen at random."""
    p, q = np.zeros((2, count, n))
    for row in range(count):
        order = rng.permutation(n)
        p[row, order[: n // 4]] = q[row, order[n // 4 : n // 2]] = 4 / n
    return p, q


def main():
    """Print milliseconds per weighting, and their ratio."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rows", type=int, default=4000)
    asked.add_argument("--weightings", type=int, default=200)
    given = asked.parse_args()
    rng = np.random.default_rng(0)
    values = rng.normal(size=(given.rows, 20))
    p, q = halves(given.rows, given.weightings, rng)
    few = slice(0, max(1, given.weightings // 10))
    for rule in ("neighbour_test", "missed", "unlikely"):
        began = time.process_time()
        found = getattr(distance, rule)(values, p, q)
        listed = (time.process_time() - began) / len(p)
        began = time.process_time()
        apart = distance.pairwise(values, values)
        once = (time.process_time() - began) / len(p)
        began = time.process_time()
        exact = whole(apart, p[few], q[few], rule)
        spent = once + (time.process_time() - began) / len(p[few])
        assert np.allclose(found[few], exact)
        print(f"{rule:14s} {1e3 * spent:8.1f} ms whole {1e3 * listed:8.1f} ms listed, ratio {spent / listed:.0f}")


if __name__ == "__main__":
    main()
