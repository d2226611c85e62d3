"""Evidence in words and in terminal tables. What is said here is said the same way in the report.

A gap is read on one scale for all findings: 0 is nature's own scatter, 1 is the named rival. `standing` puts that scale
into words so that no reader depends on colour; the words are a reading aid, the numbers beside them are the result.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from simulacra.evidence import ALARM

if TYPE_CHECKING:
    from simulacra.evidence import Check, Evidence, Finding

NEAR = 0.25  # a gap below this is called near: three quarters of the way from the rival to nature
WIDE = 116  # columns of a terminal from which rivals get a column of their own
ABSENT = "-"
UNDEFINED = "not defined"


class Standing(Enum):
    """Where a gap stands between nature and the rival: (word, sign, colour of the terminal)."""

    NATURE = ("as nature", "●", "green")
    NEAR = ("near", "◆", "cyan")
    APART = ("apart", "▲", "yellow")
    RIVAL = ("as the rival", "■", "red")
    UNDECIDED = ("undecided", "○", "magenta")
    UNDEFINED = (UNDEFINED, "?", "magenta")

    @property
    def word(self) -> str:
        return str(self.value[0])

    @property
    def sign(self) -> str:
        return str(self.value[1])

    @property
    def colour(self) -> str:
        return str(self.value[2])


def standing(finding: Finding) -> Standing:
    """As nature: the interval reaches 0. As the rival: it reaches 1 or lies beyond. Undecided: it reaches 0 and beyond a half."""
    if not math.isfinite(finding.gap):
        return Standing.UNDEFINED
    low, high = _interval_or_point(finding)
    if low <= 0.0:
        return Standing.UNDECIDED if high > 0.5 else Standing.NATURE
    if high >= 1.0:
        return Standing.RIVAL
    return Standing.NEAR if finding.gap < NEAR else Standing.APART


def _interval_or_point(finding: Finding) -> tuple[float, float]:
    low, high = finding.gap_low, finding.gap_high
    return (low if math.isfinite(low) else finding.gap), (high if math.isfinite(high) else finding.gap)


def number(value: float, digits: int = 3) -> str:
    """`value` to `digits` significant digits: 0.0123, 12300, 1.23e-06; words where it is not finite."""
    value = float(value)
    if math.isnan(value):
        return UNDEFINED
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    if value == 0.0:
        return "0"
    shown = float(f"{value:.{digits - 1}e}")
    size = math.floor(math.log10(abs(shown)))
    if not -4 <= size < 6:
        return f"{shown:.{digits - 1}e}"
    return f"{shown:.{max(digits - 1 - size, 0)}f}"


def exactly(value: float) -> str:
    """A number that is known without error: up to five digits, none of them idle."""
    text = number(value, 5)
    mantissa, mark, exponent = text.partition("e")
    return (mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa) + mark + exponent


def measured(value: float, error: float) -> str:
    """`value ± error`, the error to two significant digits and the value to the same place."""
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return number(value, 4)
    size = math.floor(math.log10(error))
    largest = max(size, math.floor(math.log10(abs(value))) if value else size)
    if size < -8 or largest >= 9:
        return f"{number(value, max(largest - size + 2, 2))} ± {number(error, 2)}"
    places = max(1 - size, 0)
    return f"{value:.{places}f} ± {error:.{places}f}"


def gap(finding: Finding) -> str:
    """The gap with its 95 % interval, `0.31 [0.22, 0.41]`."""
    if not math.isfinite(finding.gap):
        return UNDEFINED
    if not (math.isfinite(finding.gap_low) and math.isfinite(finding.gap_high)):
        return _gap(finding.gap)
    return f"{_gap(finding.gap)} [{_gap(finding.gap_low)}, {_gap(finding.gap_high)}]"


def _gap(value: float) -> str:
    text = f"{value:.2f}" if abs(value) < 10 else number(value)
    return "0.00" if text == "-0.00" else text


def probability(p: float | None) -> str:
    """A p-value; a finding without one takes no part in the verdict."""
    if p is None:
        return "not tested"
    return UNDEFINED if math.isnan(p) else f"{p:.2g}"


def tested(evidence: Evidence) -> bool:
    """Whether any finding took part in the permutation test."""
    return any(f.p is not None for f in evidence.findings)


def can_be_told(evidence: Evidence) -> str:
    """The answer to the one question of the verdict, without numbers."""
    if not tested(evidence):
        return "Whether drawn samples can be told from nature was not tested"
    if evidence.differs:
        return "Drawn samples can be told from nature"
    return "These findings cannot tell drawn samples from nature"


def sentence(evidence: Evidence) -> str:
    """The verdict in plain words: told apart or not, the worst and the best finding, how many are near nature."""
    if not evidence.findings:
        return "Nothing was measured, so nothing can be said."
    answer = can_be_told(evidence)
    if tested(evidence):
        answer += f" (p = {probability(evidence.p)}, alarm at {ALARM:g}; {evidence.nature_rows} held-out and {evidence.drawn_rows} drawn)"
    return f"{answer}. {extremes(evidence)}"


def extremes(evidence: Evidence) -> str:
    """Worst and best gap by name, the count of near ones, and how many gaps are not defined."""
    findings = evidence.worst_first()
    defined = [f for f in findings if math.isfinite(f.gap)]
    if not defined:
        return "No gap is defined: no rival is further from nature than nature is from itself."
    parts = [f"Worst: {defined[0].name}, gap {gap(defined[0])}"]
    if len(defined) > 1:
        parts.append(f"best: {defined[-1].name}, gap {gap(defined[-1])}")
    near = sum(f.gap < NEAR for f in defined)
    parts.append(f"{near} of {len(findings)} {_plural('finding', len(findings))} {'has' if near == 1 else 'have'} a gap below {NEAR:g}")
    missing = len(findings) - len(defined)
    if missing:
        parts.append(f"{missing} {_plural('gap', missing)} {'is' if missing == 1 else 'are'} not defined")
    return "; ".join(parts) + "."


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def table(evidence: Evidence, width: int | None = None) -> Table:
    """All findings, worst first: gap with interval, distance between floor and ceiling, p. Fits `width` (the terminal's)."""
    wide = (width or shutil.get_terminal_size().columns) >= WIDE
    result = _plain_table("Verdict, worst first", _legend())
    result.add_column("Finding", overflow="fold")
    result.add_column("  Gap [95 %]", no_wrap=True)
    for side in ("Distance", "Floor", "Ceiling"):
        result.add_column(side, justify="right", no_wrap=True)
    if wide:
        result.add_column("Rival", overflow="fold")
    result.add_column("p", justify="right", no_wrap=True)
    for f in evidence.worst_first():
        what = Text(f.name) if wide else Text.assemble(f.name, (f"\nrival: {f.rival_name}", "dim"))
        cells = [number(f.distance), number(f.floor), number(f.ceiling), *([f.rival_name] if wide else [])]
        result.add_row(what, _standing_and_gap(f, wide), *map(Text, cells), Text(ABSENT if f.p is None else probability(f.p)))
    return result


def _standing_and_gap(finding: Finding, wide: bool) -> Text:
    kind = standing(finding)
    word = f"  {kind.word}" if wide and kind is not Standing.UNDEFINED else ""
    return Text.assemble((f"{kind.sign} ", kind.colour), f"{gap(finding):<20}" if word else gap(finding), (word, kind.colour))


def _plain_table(title: str, note: Text | None = None) -> Table:
    return Table(
        title=Text(title, style="bold"), title_justify="left", caption=note, caption_justify="left",
        box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True,
    )  # fmt: skip


def _legend() -> Text:
    kinds = "  ".join(f"{kind.sign} {kind.word}" for kind in Standing)
    return Text(
        f"gap 0: nature's own scatter (floor); 1: the rival (ceiling); p {ABSENT}: takes no part in the verdict\n{kinds}", style="dim"
    )


def checks_table(evidence: Evidence) -> Table:
    """Every number that is held to a target outside the samples."""
    result = _plain_table("Checks")
    for name in ("Check", "Value", "Target", "Met", "Beside"):
        result.add_column(name, overflow="fold", justify="right" if name == "Value" else "left", no_wrap=name in ("Value", "Met"))
    for check in evidence.checks:
        met = Text("✓ met", style="green") if check.met else Text("✗ missed", style="red")
        result.add_row(Text(check.name), Text(measured(check.value, check.error)), Text(check.target), met, Text(beside(check)))
    return result


def beside(check: Check) -> str:
    """The numbers to read a check with, in one line."""
    return "; ".join(f"{name} {exactly(value)}" for name, value in check.beside.items())


# --------------------------------------------------------------------------------------------------- which of several runs

RULE = (
    f"Of the runs that do not memorise (memorisation stands below {NEAR:g} or its interval reaches 0), the one whose largest gap is the "
    "smallest. Only findings count that all runs share, held to the same rival. A run whose largest gap has an interval that overlaps with "
    "that of the best one cannot be told from it."
)


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which of several runs a user should take, by `RULE`."""

    sentence: str
    best: Sequence[str]  # names: one, or several that cannot be told apart; none where nothing can be recommended
    memorising: Sequence[str]


def memorises(evidence: Evidence) -> bool:
    """Whether memorisation stands apart from nature, or a check of it is missed."""
    found = [f for f in evidence.findings if f.name.lower().startswith("memoris")]
    missed = any(not check.met for check in evidence.checks if check.name.lower().startswith("memoris"))
    return missed or any(standing(f) in (Standing.APART, Standing.RIVAL) for f in found)


def shared(runs: Mapping[str, Evidence]) -> list[str]:
    """Names of the findings that all runs have with the same rival and a defined gap, worst of any run first."""
    by_run = [{f.name: f for f in evidence.findings} for evidence in runs.values()]
    return [
        name for name in _names_worst_first(by_run)
        if all(name in found and math.isfinite(found[name].gap) for found in by_run)
        and len({found[name].rival_name for found in by_run}) == 1
    ]  # fmt: skip


def choose(runs: Mapping[str, Evidence]) -> Choice:
    """Which run to take, by `RULE`, in a sentence that says why."""
    names, memorising = set(shared(runs)), [name for name, evidence in runs.items() if memorises(evidence)]
    if not names:
        return Choice("The runs share no finding that is held to one rival, so none can be recommended.", (), memorising)
    if len(memorising) == len(runs):
        return Choice("Every run memorises its training data, so none can be recommended.", (), memorising)
    largest = {
        run: max((f for f in evidence.findings if f.name in names), key=lambda f: f.gap)
        for run, evidence in runs.items()
        if run not in memorising
    }
    order = sorted(largest, key=lambda run: largest[run].gap)
    best = [run for run in order if overlap(largest[run], largest[order[0]])]
    others = [run for run in order if run not in best]
    return Choice(_reasons(largest, best, others, memorising), best, memorising)


def overlap(one: Finding, other: Finding) -> bool:
    """Whether the intervals of two gaps have a point in common."""
    (low, high), (bottom, top) = _interval_or_point(one), _interval_or_point(other)
    return low <= top and bottom <= high


def _reasons(largest: Mapping[str, Finding], best: Sequence[str], others: Sequence[str], memorising: Sequence[str]) -> str:
    said = {run: f"{gap(finding)} ({finding.name})" for run, finding in largest.items()}
    if len(best) > 1:
        text = f"{_listed(best)} cannot be told apart: the intervals of their largest gaps overlap, {_listed([said[run] for run in best])}."
    elif others:
        text = f"Take {best[0]}: its largest gap is the smallest, {said[best[0]]}."
    else:
        text = f"Take {best[0]}, the only run that does not memorise: its largest gap is {said[best[0]]}."
    if others:
        text += f" Further from nature: {_listed([f'{run}, {said[run]}' for run in others])}."
    if memorising:
        text += f" Left out because {'it memorises' if len(memorising) == 1 else 'they memorise'} training data: {_listed(memorising)}."
    hopeless = [run for run in best if standing(largest[run]) is Standing.RIVAL]
    if hopeless:
        text += f" Even so {_listed(hopeless)} {'is' if len(hopeless) == 1 else 'are'} no better there than the rival."
    return text


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def compare_table(runs: Mapping[str, Evidence]) -> Table:
    """Gaps of several runs side by side, one row per finding, worst first; an asterisk marks the smallest gap of a row."""
    result = _plain_table("Gaps of the runs, worst first", _comparison_note(runs))
    result.add_column("Finding", overflow="fold")
    for name in runs:
        result.add_column(Text(name), justify="right")
    by_run = [{f.name: f for f in evidence.findings} for evidence in runs.values()]
    for name in _names_worst_first(by_run):
        result.add_row(Text(name), *_compared([findings.get(name) for findings in by_run]))
    result.add_section()
    result.add_row(Text("told from nature"), *(Text(told(evidence)) for evidence in runs.values()))
    return result


def told(evidence: Evidence) -> str:
    """Whether drawn samples can be told from nature, with the probability of it."""
    if not tested(evidence):
        return "not tested"
    return f"{'yes' if evidence.differs else 'no'}, p = {probability(evidence.p)}"


def _names_worst_first(by_run: Sequence[Mapping[str, Finding]]) -> list[str]:
    worst: dict[str, float] = {}
    for findings in by_run:
        for name, finding in findings.items():
            worst[name] = max(worst.get(name, -math.inf), finding.gap if math.isfinite(finding.gap) else -math.inf)
    return sorted(worst, key=lambda name: -worst[name])


def _compared(row: Sequence[Finding | None]) -> list[Text]:
    gaps = [f.gap for f in row if f is not None and math.isfinite(f.gap)]
    smallest = min(gaps) if len(set(gaps)) > 1 else None
    cells = []
    for finding in row:
        if finding is None:
            cells.append(Text(ABSENT, style="dim"))
        else:
            best = smallest is not None and finding.gap == smallest
            cells.append(Text(gap(finding) + (" *" if best else "  "), style="bold" if best else ""))
    return cells


def _comparison_note(runs: Mapping[str, Evidence]) -> Text:
    rivals: dict[str, set[str]] = {}
    for evidence in runs.values():
        for finding in evidence.findings:
            rivals.setdefault(finding.name, set()).add(finding.rival_name)
    unlike = [name for name, names in rivals.items() if len(names) > 1]
    note = "gap 0: nature's own scatter; 1: the rival; * smallest of its row (look at the intervals before calling it better)"
    return Text(note + (f". Held to different rivals, so not comparable: {', '.join(unlike)}" if unlike else ""), style="dim")
