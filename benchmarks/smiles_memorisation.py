"""Whether a language model of SMILES draws what it was shown rather than what it was not, with as many draws as it takes to tell.

    python benchmarks/smiles_memorisation.py drugs.lstm RUN ... --data zinc250k.csv.gz -n 300000

For each source, a finished run or a study with weights that ship, and for all of them together: the memorisation ratio of
sciences/drugs/metrics.py, against held-out molecules, and against held-out and validation molecules. The latter were never trained on,
either, but recipes were chosen by them.

ZINC250k: 300,000 draws from a source, five to ten minutes of one core, hit about 1,000 training molecules and 40 held-out ones.
"""

import argparse
from pathlib import Path

from simulacra import drawing
from simulacra.sciences.drugs import data, measuring, metrics
from simulacra.study import Noise

BLOCK = 50_000


def names(strings):
    """Flat forms of those strings that are molecules."""
    table = measuring.measure(strings, (measuring.IDENTITY,))
    return table.flat[table.valid].tolist()


def drawn(source, n, seed, known):
    """Flat forms of n draws, as far as they are `known`."""
    learner = drawing.opened(source).learner()
    hits = []
    for start in range(0, n, BLOCK):
        rows = range(start, min(start + BLOCK, n))
        strings = data.texts(learner.draw(data.empty(len(rows)), Noise(seed, rows)))
        hits += [name for name in names(strings) if name in known]
    return hits


def told(source, found):
    ratio = f"{found.ratio:.2f} ± {found.error:.2f} [{found.low:.2f}, {found.high:.2f}]"
    return f"{source:30} {found.in_training:8} {found.in_held_out:8}   {ratio}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", help="run folders, or studies whose weights ship")
    parser.add_argument("--data", type=Path, required=True, help="the molecules that they were trained on")
    parser.add_argument("-n", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    split = data.load(asked.data, seed=0, simulated=1)
    shown, validation, hidden = (set(names(data.texts(part))) for part in (split.train, split.validation, split.held_out))
    known = shown | validation | hidden
    hits = {source: drawn(source, asked.n, asked.seed, known) for source in asked.sources}
    if len(hits) > 1:
        hits["together"] = [name for found in hits.values() for name in found]
    for title, unseen in (("held-out", hidden), ("held-out and validation", hidden | validation)):
        print(f"against {title} molecules ({asked.n:,} draws of each)\n{'':30} {'training':>8} {'unseen':>8}   ratio")
        for source, found in hits.items():
            print(told(source, metrics.memorisation(found, shown, unseen)))


if __name__ == "__main__":
    main()
