"""What can be measured in molecules that are written as strings, and the verdict on strings that claim to come from the same nature.

The independent thing is the row: one string, one molecule or none. A string that is no molecule is a failure and stays in: it counts in
`validity`, `tokens`, `length`, `repeats`, and in the tests of all measurements together, where it has a mark of its own. Laws of
properties are those of the molecules among the rows; they say nothing about a generator of which few strings are valid, and are left out,
with a remark, where fewer than ENOUGH are.

At most LOOKED_AT rows of each side, equally many, chosen at random, are compared; tests that look at all pairs take PAIRS of them. The
published scores (MOSES, GuacaMol) stand among the checks and take all rows up to MOST, in draw order.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from simulacra.evidence import Evidence, Statistic, average, compare, counted, distribution
from simulacra.measures import distance
from simulacra.sciences.drugs import chemnet, metrics
from simulacra.sciences.drugs.checks import COPIED, NGRAM, checks
from simulacra.sciences.drugs.data import Compounds, prompts, texts
from simulacra.sciences.drugs.measuring import (
    ACTIVATIONS,
    BITS,
    ELEMENTS,
    FILTERS,
    GROUPS,
    IDENTITY,
    PROPERTIES,
    RINGS,
    VERSION,
    Table,
    measure,
)  # fmt: skip
from simulacra.sciences.drugs.ngram import NGram
from simulacra.sciences.drugs.properties import UNITS
from simulacra.sciences.drugs.tokens import UnknownToken, split
from simulacra.study import Refused

Array = NDArray[np.float64]

MOST = 30_000  # rows of a side that are measured
FILTERED = 5_000  # of those that the filters look at
LOOKED_AT = 4_000  # rows of a side that are compared
PAIRS = 1_500  # rows of a side for what looks at all pairs
TO_TRAINING = 1_000  # rows of a side that are held against all of training
ENOUGH = 20  # valid rows on each side for the laws of properties to be judged
SERIOUS = 500  # valid n-gram strings from which on these are the rival of the laws of properties
NGRAM_ROWS = (400, 10_000)  # strings drawn from the n-gram model, five per row of nature, but at least and at most so many
TOKENS, FRAGMENTS = 30, 40  # commonest ones that are told apart
CARRIED = 30  # rows of nature that must have a fragment for it to be told apart
MOST_COUNTED = 60  # of one kind in a molecule

ONE, SHUFFLED, WRITTEN = "one molecule repeated", "tokens of nature in random order", "n-gram strings, valid ones"

LAWS: Mapping[str, tuple[str, tuple[float, float]]] = {
    "logP": ("Octanol-water partition by Wildman & Crippen 1999.", (-5, 9)),
    "QED": ("Desirability as an oral drug, Bickerton et al. 2012.", (0, 1)),
    "SA": ("Synthetic accessibility, 1 easy to 10 hard, Ertl & Schuffenhauer 2009.", (1, 8)),
    "weight": ("Molecular weight.", (0, 800)),
    "TPSA": ("Topological polar surface, Ertl et al. 2000.", (0, 250)),
    "solubility": ("Solubility in water by ESOL, Delaney 2004.", (-10, 2)),
}


# ----------------------------------------------------------------------------------------------------------- measuring


class _Sheet:
    """Rows that are compared, and what the statistics read of them."""

    def __init__(self, strings: Sequence[str], table: Table) -> None:
        self.table = table
        # Of a molecule the canonical string: a program may write it from another atom on, or without aromatic atoms, and be right.
        self.words = [_words(c or s) for c, s in zip(table.canonical.tolist(), strings, strict=True)]
        self._known: dict[str, Array] = {}

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, name: str) -> Array:
        return self._known[name]

    def put(self, name: str, rows: Array) -> None:
        self._known[name] = rows

    @property
    def names(self) -> list[str]:
        """What tells a row from another: the canonical molecule, or the string where there is none."""
        return [c or "?" + "".join(w) for c, w in zip(self.table.canonical.tolist(), self.words, strict=True)]


def _words(string: str) -> list[str]:
    """Tokens; of a string with what is no token, its characters."""
    try:
        return split(string)
    except UnknownToken:
        return list(string)


def _parts(n: int) -> tuple[str, ...]:
    """What is read off sets of which the smaller has n rows: FCD needs many, and its package."""
    return (IDENTITY, PROPERTIES, FILTERS, ACTIVATIONS) if n >= chemnet.FEWEST and chemnet.installed() else (IDENTITY, PROPERTIES, FILTERS)


def _measured(strings: Sequence[str], parts: Sequence[str], remember: bool) -> Table:
    first = measure(strings[:FILTERED], parts, remember=remember)
    if len(strings) <= FILTERED:
        return first
    rest = tuple(part for part in parts if part != FILTERS)
    return Table.join([first, measure(strings[FILTERED:], rest, remember=remember)])


# ---------------------------------------------------------------------------------------------------------------- judge


def judge(
    nature: Compounds, drawn: Compounds, *, seed: int, training: Compounds | None = None, permutations: int = 999, halves: int = 100
) -> Evidence:
    """Held-out against drawn strings; neither side knows where the other came from.

    Rivals: the valid ones among `n-gram strings` (ngram.py) for the laws of properties, from SERIOUS on, else `one molecule repeated`
    (the one of nature nearest to the mean of its properties), which also stands against tokens, repeats and coverage; all n-gram strings
    for precision; `tokens of nature in random order` for validity; `copied training` for memorisation.
    """
    if min(len(nature), len(drawn)) < 20:
        raise Refused(f"{len(nature)} molecules of nature and {len(drawn)} drawn; fewer than 20 on a side cannot be told apart: draw more")
    rng = np.random.default_rng([seed, 0xD2065])
    strings = {"nature": texts(nature[:MOST]), "drawn": texts(drawn[:MOST])}
    parts = _parts(min(map(len, strings.values())))
    tables = {name: _measured(found, parts, remember=name == "nature") for name, found in strings.items()}
    told = [f"Molecules were read by {VERSION}."]
    if max(len(nature), len(drawn)) > MOST:
        told.append(f"Of {len(nature):,} rows of nature and {len(drawn):,} drawn, the first {MOST:,} of each are judged.")
    known = texts(training) if training is not None else []
    ngram, copied, shown = _beside(strings, tables, known, parts)
    found, more = checks(
        tables["nature"], tables["drawn"], ngram[1], training=shown, copied=copied, counted_on="training" if known else "nature itself",
        new=_new(tables["drawn"], prompts(drawn[:MOST])),
    )  # fmt: skip
    told += more
    if not known:
        told.append("Without training molecules novelty and memorisation are not judged, and no copier stands beside the scores.")
    sheets = _sheets(strings, tables, ngram, rng)
    chosen, left_out = _statistics(sheets, _add_tokens(sheets), _add_fragments(sheets))
    if shown is not None:
        memorised, more = _memorisation(sheets, shown, rng)
        chosen, left_out = [*chosen, *memorised], [*left_out, *more]
    rivals = {name: sheet for name, sheet in sheets.items() if name not in ("nature", "drawn")}
    evidence = compare(chosen, sheets["nature"], sheets["drawn"], rivals, seed=seed, permutations=permutations, halves=halves)
    counts = [_counts(name, tables[name], len(sheets[name])) for name in ("nature", "drawn")]
    return dataclasses.replace(evidence, checks=found, remarks=[*counts, *told, *left_out])


def _new(drawn: Table, asked: Sequence[str]) -> NDArray[np.bool_] | None:
    """Which rows are not the molecule that they began with; None where rows began with nothing."""
    if not any(asked):
        return None
    flat = {text: name for text, name in zip(asked, measure(asked, (IDENTITY,)).flat.tolist(), strict=True) if name}
    return np.array([name != flat.get(text) for text, name in zip(asked, drawn.flat.tolist(), strict=True)])


def _counts(name: str, table: Table, compared: int) -> str:
    valid = int(table.valid.sum())
    different = len(set(table.canonical[table.valid].tolist()))
    chosen = f"; {compared:,} rows, chosen at random, are compared in the findings" if compared < len(table) else ""
    return f"{name}: {len(table):,} strings, {valid:,} valid, {different:,} different molecules{chosen}."


def _beside(
    strings: Mapping[str, list[str]], tables: Mapping[str, Table], known: Sequence[str], parts: Sequence[str]
) -> tuple[tuple[list[str], Table], Table | None, Table | None]:
    """Strings of an n-gram model and their table, the table of training molecules that stand for a copier, and that of all of training.
    They are the same for every seed of the judge, so that they need not be measured again."""
    least, most = NGRAM_ROWS
    imitated = NGram(known or strings["nature"]).draw(min(max(least, 5 * len(strings["nature"])), most), seed=0)
    ngram = imitated, _measured(imitated, parts, remember=True)
    if not known:
        return ngram, None, None
    shown = measure(known, (IDENTITY,), remember=True)
    rows = np.random.default_rng(0xC0B1).permutation(len(known))[: min(len(strings["drawn"]), metrics.PAIRED)]
    copied = _measured([known[i] for i in rows], parts, remember=True)
    return ngram, copied[copied.valid][: max(int(tables["drawn"].valid.sum()), 1)], shown


# --------------------------------------------------------------------------------------------------------------- rivals


def _sheets(
    strings: Mapping[str, list[str]], tables: Mapping[str, Table], ngram: tuple[list[str], Table], rng: np.random.Generator
) -> dict[str, _Sheet]:
    """Equally many rows of nature and drawn, and the rivals."""
    few = min(LOOKED_AT, *(len(table) for table in tables.values()))
    sheets: dict[str, _Sheet] = {}
    for name, table in tables.items():
        rows = np.sort(rng.permutation(len(table))[:few])
        sheets[name] = _Sheet([strings[name][i] for i in rows], table[rows])
    nature = sheets["nature"]
    typical = _typical(nature.table)
    sheets[ONE] = _Sheet(["".join(nature.words[typical])] * few, nature.table[np.full(few, typical)])
    sheets[NGRAM] = _Sheet(ngram[0][:few], ngram[1][:few])
    written = np.flatnonzero(ngram[1].valid)[:few]
    sheets[WRITTEN] = _Sheet([ngram[0][i] for i in written], ngram[1][written])
    mixed = ["".join(np.array(words, object)[rng.permutation(len(words))]) for words in nature.words]
    sheets[SHUFFLED] = _Sheet(mixed, measure(mixed, (IDENTITY,)))
    _add_features(sheets, rng)
    return sheets


def _typical(table: Table) -> int:
    """The valid row whose numbers are nearest to the mean, each on the scale of its spread."""
    values = table.numbers
    measured = np.isfinite(values).all(axis=1)
    if not measured.any():
        raise Refused("nature holds no molecule that RDKit can read")
    spread = np.maximum(values[measured].std(axis=0), 1e-9)
    off = np.where(measured, (((values - values[measured].mean(axis=0)) / spread) ** 2).sum(axis=1), np.inf)
    return int(np.argmin(off))


def _add_tokens(sheets: Mapping[str, _Sheet]) -> list[str]:
    """Tokens by kind, length and repeats of each row. Returns the kinds: the commonest of nature and drawn alike, others together."""
    seen = Counter(token for name in ("nature", "drawn") for words in sheets[name].words for token in words)
    kinds = [token for token, _ in seen.most_common(TOKENS)]
    place = {token: i for i, token in enumerate(kinds)}
    for sheet in sheets.values():
        counts = np.zeros((len(sheet), len(kinds) + 1))
        for row, words in enumerate(sheet.words):
            for token in words:
                counts[row, place.get(token, len(kinds))] += 1
        times = Counter(sheet.names)
        sheet.put("tokens", counts)
        sheet.put("length", np.array([len(words) for words in sheet.words], float))
        sheet.put("repeats", np.log2([times[name] for name in sheet.names]))
    return [*kinds, "others"]


def _add_fragments(sheets: Mapping[str, _Sheet]) -> list[str]:
    """How often each row has those BRICS fragments that enough rows of nature have; nan for invalid rows. Returns the fragments."""
    rows = {name: [Counter(f.split(".")) if f else Counter() for f in sheet.table.fragments.tolist()] for name, sheet in sheets.items()}
    carriers = Counter(fragment for row in rows["nature"] for fragment in row)
    kinds = [fragment for fragment, count in carriers.most_common(FRAGMENTS) if count >= CARRIED]
    for name, sheet in sheets.items():
        counts = np.array([[row[kind] for kind in kinds] for row in rows[name]], float).reshape(len(sheet), len(kinds))
        counts[~np.isfinite(sheet.table.numbers).all(axis=1)] = np.nan
        sheet.put("fragments", counts)
    return kinds


# ---------------------------------------------------------------------------------------------- all measurements at once


def _add_features(sheets: Mapping[str, _Sheet], rng: np.random.Generator) -> None:
    """Vectors for the tests of all measurements at once, on scales set by nature and drawn alike, of at most PAIRS rows, else nan.

    All numbers of a molecule and whether there is one; what an invalid row lacks is the median, and its mark lies ten spreads off.
    Scales must not know which side is which, or the permutation test would not be exact.
    """
    both = np.concatenate([sheets[s].table.numbers for s in ("nature", "drawn")])
    known = both[np.isfinite(both).all(axis=1)]
    centre, scale = np.median(known, axis=0), known.std(axis=0)
    scale[scale < 1e-9] = 1.0
    for name in ("nature", "drawn", ONE, NGRAM):
        sheet = sheets[name]
        numbers = sheet.table.numbers
        vectors = np.where(np.isfinite(numbers), (numbers - centre) / scale, 0.0).clip(-10, 10)
        vectors = np.concatenate([vectors, 10.0 * ~sheet.table.valid[:, None]], axis=1)
        kept = np.zeros(len(sheet), bool)
        kept[rng.permutation(len(sheet))[:PAIRS]] = True
        sheet.put("features", np.where(kept[:, None], vectors, np.nan))


def _joint() -> list[Statistic[_Sheet]]:
    what = "By all measurements (physicochemical, elements, rings, groups, whether it is a molecule), standardised. "
    kinds: Sequence[tuple[str, str, distance.Distance, str, bool]] = (
        (
            "classifier two-sample test", "Share beyond one half of rows whose nearest neighbour is of their own set.",
            distance.neighbour_test, ONE, True,
        ),
        ("coverage (share missed)", "Share of nature that no drawn row comes near.", distance.missed, ONE, False),
        ("precision (share outside)", "Share of drawn rows outside nature.", distance.unlikely, NGRAM, False),
    )  # fmt: skip
    bins = np.linspace(0, 30, 61)

    def curve(values: Array, weights: Array) -> Array:
        radius = np.clip(np.linalg.norm(values, axis=1), bins[0], bins[-1] - 1e-9)
        column = np.searchsorted(bins, radius, side="right") - 1
        return np.asarray(weights @ np.eye(len(bins) - 1)[column] / np.diff(bins), np.float64)

    return [
        Statistic(
            name, "density", what + about, lambda sheet: sheet["features"], rule, rival, "distance of the features from their median",
            (bins[1:] + bins[:-1]) / 2, curve, tested=tested, bars=True,
        )
        for name, about, rule, rival, tested in kinds
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- statistics


def _statistics(
    sheets: Mapping[str, _Sheet], tokens: Sequence[str], fragments: Sequence[str]
) -> tuple[list[Statistic[_Sheet]], list[str]]:
    """What can be judged of these rows, and what cannot."""
    chosen = [*_textual(sheets, tokens), *_joint()]
    measured = {name: int(np.isfinite(sheets[name].table.numbers).all(axis=1).sum()) for name in ("nature", "drawn", WRITTEN)}
    if min(measured["nature"], measured["drawn"]) < ENOUGH:
        return chosen, [
            f"Laws of properties are not judged: of the rows compared {measured['nature']} of nature and {measured['drawn']} drawn are "
            f"molecules; {ENOUGH} on each side are needed."
        ]
    rival = WRITTEN if min(measured[WRITTEN], measured["nature"]) >= SERIOUS else ONE
    told = [f"Rival of the laws of properties: {rival}."]
    if measured["drawn"] < len(sheets["drawn"]) / 2:
        told.append(
            f"Only {measured['drawn'] / len(sheets['drawn']):.0%} of the drawn rows are molecules: the laws of properties are of those "
            "that came out, and no praise of the generator."
        )
    return [*chosen, *_properties(sheets, fragments, rival)], told


def _textual(sheets: Mapping[str, _Sheet], tokens: Sequence[str]) -> list[Statistic[_Sheet]]:
    most = int(max(sheets[s]["tokens"].max() for s in ("nature", "drawn")))
    longest = max(1.0, *(sheets[s]["length"].max() for s in ("nature", "drawn")))
    copies = np.log2(max(2, len(sheets["nature"])))
    return [
        average(
            "validity", "share of rows", "Share of rows that are no molecule. Distance: difference of the shares.",
            lambda sheet: np.where(sheet.table.valid, 0.0, 1.0)[:, None], np.zeros(1), "no molecule", rival=SHUFFLED, bars=True,
        ),
        distribution(
            "length", "tokens", "Tokens of the canonical string; of what is no molecule, of its own. Distance: Wasserstein-1.",
            lambda sheet: sheet["length"], np.linspace(0, longest + 1, 61), rival=ONE,
        ),
        counted(
            "tokens", "row", "How often each token stands in the canonical string; in what is no molecule, in its own", tokens,
            lambda sheet: sheet["tokens"], rival=ONE,
            most=max(1, min(most, MOST_COUNTED)),
        ),
        distribution(
            "repeats", "log2 of times",
            "How often the molecule of a row (of an invalid row: the string) occurs in its set. Distance: Wasserstein-1.",
            lambda sheet: sheet["repeats"], np.linspace(0, copies + 0.5, 41), rival=ONE, tested=False,
        ),
    ]  # fmt: skip


def _column(name: str) -> Callable[[_Sheet], Array]:
    return lambda sheet: sheet.table.column(name)


def _columns(start: str) -> Callable[[_Sheet], Array]:
    return lambda sheet: sheet.table.columns(start)


def _several(names: Sequence[str]) -> Callable[[_Sheet], Array]:
    return lambda sheet: np.stack([sheet.table.column(name) for name in names], axis=1)


def _most(sheets: Mapping[str, _Sheet], measure: Callable[[_Sheet], Array]) -> int:
    """The largest count that has to be told apart."""
    return max(1, min(int(max(np.nanmax(measure(sheets[s])) for s in ("nature", "drawn"))), MOST_COUNTED))


def _properties(sheets: Mapping[str, _Sheet], fragments: Sequence[str], rival: str) -> list[Statistic[_Sheet]]:
    chosen = [
        distribution(name, UNITS.get(name, ""), f"{about} Distance: Wasserstein-1.", _column(name), np.linspace(*ends, 61), rival=rival)
        for name, (about, ends) in LAWS.items()
    ]
    about = "Heavy atoms of the Murcko scaffold; 0 without a ring. Distance: Wasserstein-1."
    chosen.append(distribution("scaffold size", "atoms", about, _column("scaffold atoms"), np.arange(-0.5, 60.5), rival=rival))
    sizes = ("donors", "acceptors", "rotatable", "stereocentres", "charged atoms", "aromatic rings", "aliphatic rings")
    kinds: list[tuple[str, str, Sequence[str], Callable[[_Sheet], Array]]] = [
        ("counts", "Per molecule", sizes, _several(sizes)),
        ("atoms by element", "Heavy atoms per molecule of each element", (*ELEMENTS, "others"), _columns("element ")),
        ("rings by size", "Rings per molecule of each size", RINGS, _columns("ring ")),
        ("functional groups", "Groups per molecule of each kind, by SMARTS", tuple(GROUPS), _columns("group ")),
    ]
    if len(fragments) >= 3:
        kinds.append(("BRICS fragments", "Fragments per molecule, the commonest of nature", fragments, lambda sheet: sheet["fragments"]))
    found = [counted(name, "molecule", about, names, rows, rival=rival, most=_most(sheets, rows)) for name, about, names, rows in kinds]
    return [*chosen, *found]


def _memorisation(sheets: dict[str, _Sheet], training: Table, rng: np.random.Generator) -> tuple[list[Statistic[_Sheet]], list[str]]:
    """How much nearer to training drawn molecules lie than held-out ones: of at most TO_TRAINING rows of a side, else nan."""
    known = training.bits[training.valid]
    for name in ("nature", "drawn"):
        sheet = sheets[name]
        rows = np.flatnonzero(sheet.table.valid)
        rows = rows[np.sort(rng.permutation(len(rows))[:TO_TRAINING])]
        far = np.full((len(sheet), 1), np.nan)
        far[rows, 0] = 1 - metrics.nearest(sheet.table.bits[rows], known)
        sheet.put("to training", far)
    if min(np.isfinite(sheets[s]["to training"]).sum() for s in ("nature", "drawn")) < ENOUGH:
        return [], [f"Nearness to training is not judged: fewer than {ENOUGH} valid rows."]
    copies = _Sheet([], training[:0])
    copies.put("to training", np.zeros((len(sheets["nature"]), 1)))
    sheets[COPIED] = copies
    about = (
        f"1 - Tanimoto similarity (Morgan, radius 2, {BITS} bits) to the nearest training molecule. Distance: how far drawn molecules lie "
        "nearer to training than held-out ones do (one-sided Wasserstein-1)."
    )
    return [
        distribution(
            "memorisation", "1 - Tanimoto", about, lambda sheet: sheet["to training"], np.linspace(0, 1, 41), rival=COPIED,
            distance=distance.shortfall, tested=False,
        )
    ], []  # fmt: skip
