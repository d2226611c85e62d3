"""What judging strings costs, beside plain ways of doing the same, and what nature scores against itself.

    python benchmarks/drugs_metrics.py                                     times, on molecules that are made here
    python benchmarks/drugs_metrics.py --floors DATA [--drawn FILE ...]    scores of nature, of a copier and of an n-gram model
                                                                           at 1,000 and 10,000 molecules, and of files that were drawn

Times are of processor time on one core:

activations    ChemNet by chemnet.activations, against the package fcd with its own loop; both must agree
neighbours     SNN by products of blocks of fingerprints, against RDKit's BulkTanimotoSimilarity; both must agree
table          everything that is read off a string, per part

Floors: every row is held against the first n held-out molecules of DATA (a file with a column `split`, or any).
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from simulacra.sciences.drugs import chemnet, data, measuring, metrics, reading
from simulacra.sciences.drugs.measuring import ACTIVATIONS, FILTERS, IDENTITY, PARTS, PROPERTIES, SIX, Table, measure, measured_here
from simulacra.sciences.drugs.ngram import NGram
from simulacra.sciences.drugs.simulate import simulated


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time, and what came."""
    start = time.process_time()
    found = run()
    return time.process_time() - start, found


def times(n: int) -> None:
    """Prints what each part costs."""
    strings = simulated(n, seed=0)
    print(f"{n:,} molecules made by rule; processor time on one core")
    measured_here(strings[:20], PARTS)  # libraries are loaded, catalogues compiled
    if chemnet.installed():
        import fcd

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = fcd.load_ref_model()
            ours, one = seconds(lambda: chemnet.activations(strings))
            theirs, other = seconds(lambda: fcd.get_predictions(network, strings, n_jobs=0))
        if np.abs(one - other).max() > 1e-4:
            raise SystemExit("activations differ from those of the package fcd")
        print(f"  activations: {n / ours:,.0f}/s; package fcd in one process {n / theirs:,.0f}/s   ({theirs / ours:.2f} times faster)")
        took, _ = seconds(lambda: chemnet.fcd(one[: n // 2], one[n // 2 :]))
        print(f"  Fréchet distance of two sets of activations: {took:.2f} s")
    table = measured_here(strings, (IDENTITY,))
    maker = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=measuring.BITS)
    prints = [maker.GetFingerprint(Chem.MolFromSmiles(s)) for s in strings]
    theirs, plain = seconds(lambda: [max(DataStructs.BulkTanimotoSimilarity(p, prints[: n // 2])) for p in prints])
    ours, blocks = seconds(lambda: metrics.nearest(table.bits, table.bits[: n // 2]))
    if np.abs(np.array(plain) - blocks).max() > 1e-5:
        raise SystemExit("similarities differ from those of RDKit")
    print(f"  nearest of {n // 2:,}: {n / ours:,.0f}/s; RDKit in bulk {n / theirs:,.0f}/s   ({theirs / ours:.1f} times faster)")
    for parts in ((), (SIX,), (PROPERTIES,), (FILTERS,), PARTS):
        took, _ = seconds(lambda parts=parts: measured_here(strings, (IDENTITY, *parts)))
        print(f"  table of {', '.join(parts) or IDENTITY}: {1e3 * took / n:.2f} ms per string")


SHOWN = (
    "FCD", "SNN", "Frag", "Scaf", "IntDiv1", "IntDiv2", "Filters", metrics.BRENK, "W1 logP", "W1 SA", "W1 QED", "W1 weight", "KL score",
)  # fmt: skip


def floors(path: Path, drawn: Sequence[Path], sizes: Sequence[int]) -> None:
    """Prints the table of scores."""
    split = data.load(path, seed=0, simulated=1)
    print(split.origin)
    known = data.texts(split.train)
    shown = measure(known, (IDENTITY,), remember=True)
    written = NGram(known).draw(max(10_000, *sizes), seed=0)
    rows = np.random.default_rng(0).permutation(len(known))
    rivals: dict[str, list[str]] = {
        "validation": data.texts(split.validation), "copied training": [known[i] for i in rows[: max(sizes)]], "n-gram strings": written,
        **{file.name: reading.read_lines(file) for file in drawn},
    }  # fmt: skip
    print("n | drawn | valid | unique | novel | " + " | ".join(SHOWN) + " | memorisation (95 %)")
    for n in sizes:
        nature = _measured(data.texts(split.held_out)[:n])
        halves = metrics.distribution_scores(nature[::2], nature[1::2])
        if len(nature) // 2 >= chemnet.FEWEST:
            scaled = chemnet.expected(n, n, halves["FCD"].value, n)
            print(f"{n:,} | halves of nature | | | | {scaled:.3f} (brought to n) | " + _told({**halves, "FCD": metrics.Score(np.nan)}))
        for name, strings in rivals.items():
            table = _measured(strings if name == "n-gram strings" else strings[:n])
            valid = table[table.valid]
            names = valid.canonical.tolist()
            scores = metrics.distribution_scores(valid, nature[nature.valid])
            copied = metrics.memorisation(valid.flat.tolist(), shown.flat.tolist(), nature.flat.tolist())
            shares = f"{table.valid.mean():.4f} | {metrics.uniqueness(names, 10_000):.4f} | {metrics.novelty(names, shown.canonical):.4f}"
            ratio = f"{copied.ratio:.2f} ({copied.low:.2f} to {copied.high:.2f}; {copied.in_training} and {copied.in_held_out} hits)"
            print(f"{n:,} | {name} ({len(valid):,}) | {shares} | {_told(scores)} | {ratio}", flush=True)


def _measured(strings: Sequence[str]) -> Table:
    return measure(strings, (IDENTITY, PROPERTIES, FILTERS, ACTIVATIONS), remember=True)


def _told(scores: dict[str, metrics.Score]) -> str:
    return " | ".join(f"{scores[name].value:.4g} ± {scores[name].error:.1g}" if name in scores else "" for name in SHOWN)


def main() -> None:
    torch.set_num_threads(1)
    asked = argparse.ArgumentParser()
    asked.add_argument("--molecules", type=int, default=2_000)
    asked.add_argument("--floors", type=Path)
    asked.add_argument("--drawn", type=Path, nargs="*", default=())
    asked.add_argument("--sizes", type=int, nargs="*", default=(1_000, 10_000))
    given = asked.parse_args()
    if given.floors:
        floors(given.floors, given.drawn, given.sizes)
    else:
        times(given.molecules)


if __name__ == "__main__":
    main()
