"""What the benchmarks of generators share: the time that a sample takes, finished runs, and when training has paid."""

import statistics
import time

from simulacra.pipeline import restored
from simulacra.runs import Run


def seconds(work, n, rounds=3):
    """Processor time per sample of `work()`, which makes n: the median of a few rounds, after one that is not counted."""
    work()
    found = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        found.append((time.process_time() - began) / n)
    return statistics.median(found)


def trained(path):
    """Of a finished run: its name, its learner, its recipe, and the seconds that it was trained."""
    folder = Run.open(path)
    _, recipe, learner = restored(folder)
    return str(path), learner, recipe, folder.seconds()


def pays(spent, slow, fast, many, noun):
    """From how many samples on a generator that was trained for `spent` seconds (None: not at all) beats a source that takes `slow`
    seconds where it takes `fast`; where never, how slow a source must be for it to pay within `many`."""
    if spent is None:
        return "not trained"
    if fast < slow:
        return f"{spent / (slow - fast):,.0f} {noun} after {spent:.0f} s of training"
    return f"never; within {many:,} {noun} where one takes {1e3 * (fast + spent / many):.1f} ms or more"
