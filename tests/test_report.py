"""The report is one page that loads nothing, says the worst first, survives whatever the data holds and is written whole."""

from __future__ import annotations

import dataclasses
import html.parser
import io
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from rich.table import Table

from simulacra import evidence, report, verdict
from simulacra.evidence import Check, Evidence, Finding
from simulacra.report import curves, images

TEMPERATURES = (1.8, 2.27, 2.6, 3.0)
SITES = np.arange(1, 17, dtype=float)
HOSTILE = "<script>alert('x')</script> \"quoted\" & $x_{1$ \N{GREEK SMALL LETTER XI} \N{CJK UNIFIED IDEOGRAPH-7C89}"


CORRELATION = dict(zip(TEMPERATURES, (6.0, 3.5, 2.0, 1.2), strict=True))  # domain width in sites


@dataclasses.dataclass(frozen=True)
class Lattices:
    spins: np.ndarray
    temperature: np.ndarray

    def __len__(self) -> int:
        return len(self.spins)


def lattices(count: int, seed: int, *, wider: float = 1.0, side: int = 32) -> Lattices:
    """Spins in {-1, 1}, `count` at each temperature in turn: noise under a Gaussian filter, thresholded at 0."""
    rng = np.random.default_rng(seed)
    temperature = np.tile(TEMPERATURES, count)
    k2 = np.fft.fftfreq(side)[:, None] ** 2 + np.fft.fftfreq(side)[None, :] ** 2
    width = wider * np.array([CORRELATION[t] for t in temperature])[:, None, None]
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((len(temperature), side, side))) * np.exp(-2 * (np.pi * width) ** 2 * k2)).real
    return Lattices(np.where(field > 0, 1.0, -1.0), temperature)


def at(temperature: float, measure: Callable[[np.ndarray], np.ndarray]) -> Callable[[Lattices], np.ndarray]:
    """`measure` on the lattices of one temperature; nan on the others."""

    def one(samples: Lattices) -> np.ndarray:
        rows = measure(samples.spins)
        rows[samples.temperature != temperature] = np.nan
        return rows

    return one


def correlations(spins: np.ndarray) -> np.ndarray:
    return np.stack([(spins * np.roll(spins, int(r), axis=2)).mean(axis=(1, 2)) for r in SITES], axis=1)


def magnetisation(spins: np.ndarray) -> np.ndarray:
    return np.abs(spins.mean(axis=(1, 2)))


def power(spins: np.ndarray) -> np.ndarray:
    return (np.abs(np.fft.fft2(spins)) ** 2 / spins[0].size)[:, 0, 1:17]


def statistics(temperature: float) -> list[evidence.Statistic[Lattices]]:
    where = f"at T = {temperature:g}"
    about = "Average over all sites and both directions; the distance is the root mean square difference of the curves."
    exact = 2 / np.pi * np.arcsin(np.exp(-((SITES / (2 * CORRELATION[temperature])) ** 2)))
    return [
        evidence.average(
            f"two-point function {where}", "⟨s(0) s(r)⟩", about, at(temperature, correlations), SITES, "separation r (lattice sites)",
            rival="shuffled spins", exact=exact, exact_name="arcsine law",
        ),
        evidence.average(
            f"power spectrum {where}", "power (sites²)", about, at(temperature, power), SITES / 32, "wavenumber k (per site)",
            rival="shuffled spins", log_grid=True, log_values=True,
        ),
        evidence.distribution(
            f"magnetisation |m| {where}", "spin per site", "Law of |m| over lattices, compared by its W1 distance.",
            at(temperature, magnetisation), np.linspace(0, 1, 21), rival="wrong temperature",
        ),
    ]  # fmt: skip


def judged(seed: int = 1, count: int = 60) -> Evidence:
    """Seventeen findings: three statistics at each of four temperatures, and what every generator is judged by."""
    nature, drawn = lattices(count, seed), lattices(count, seed + 1, wider=0.85)
    rivals = {"shuffled spins": lattices(count, seed + 2, wider=0.05), "wrong temperature": lattices(count, seed + 3, wider=2.5)}
    measured = [s for t in TEMPERATURES for s in statistics(t)]
    found = evidence.compare(measured, nature, drawn, rivals, seed=seed, condition=lambda s: s.temperature, permutations=199, halves=40)
    checks = [
        Check("critical exponent β/ν", 0.1263, 0.0042, "0.125 within 2 standard errors", True, {"exact": 0.125, "rival": 0.4}),
        Check("energy per site", -1.3921, 0.0011, "within 0.001 of -1.4142", False, {"exact": -math.sqrt(2), "floor": 0.0007}),
    ]
    made = [
        scalar("memorisation: nearest neighbour in training", 0.02, (-0.03, 0.09), "copied training data"),
        scalar("coverage", 1.38, (1.1, 1.7), "mode collapse"),
        scalar("precision", 0.18, (0.1, 0.26), "noise"),
        scalar("classifier two-sample test", 0.62, (0.5, 0.74), "shuffled spins"),
        scalar("susceptibility", math.nan, (math.nan, math.nan), "wrong temperature"),
    ]
    remarks = ["Temperatures were drawn from four values only.", "Lattices of 32 x 32 sites; finite-size effects are in both sides."]
    return dataclasses.replace(found.with_more(made, checks), remarks=remarks)


def scalar(name: str, gap: float, interval: tuple[float, float], rival: str) -> Finding:
    one = np.ones(1)
    return Finding(
        name, "share of samples", "One number per sample set.", "", 0 * one, 0.05 * one, (0.05 + 0.3 * np.nan_to_num(gap)) * one,
        0.35 * one, 0.02 * one, rival, 0.1, 0.05, 0.35, gap, *interval,
    )  # fmt: skip


def history(steps: int = 2000) -> list[dict[str, float]]:
    rng = np.random.default_rng(5)
    rows: list[dict[str, float]] = []
    for step in range(0, steps, 2):
        loss = 30 * math.exp(-step / 250) + 0.05
        row = {
            "step": step,
            "critic": -3 * math.exp(-step / 600) + 0.3 * rng.standard_normal(),
            "loss": loss * math.exp(0.3 * rng.standard_normal()),
        }
        rows.append(row | ({"validation": loss * 1.1} if step % 100 == 0 else {}))
    return rows


def coloured(samples: Lattices) -> np.ndarray:
    up, down = np.array([0.96, 0.95, 0.90]), np.array([0.10, 0.20, 0.33])
    return np.where(samples.spins[..., None] > 0, up, down)


def page(found: Evidence) -> report.Page:
    return report.Page(
        title="Configurations of the two-dimensional Ising model from a conditional adversarial network",
        study="ising.gan",
        source="Liu, Rodrigues & Cai 2017, arXiv:1710.04987",
        evidence=found,
        recipe_name="laptop",
        recipe={"seed": 0, "steps": 2000, "batch": 64, "temperatures": TEMPERATURES, "rate": 2e-4, "data": None, "device": "auto"},
        recipe_about={"steps": "Moves forward of the learner; one batch each."},
        history=history(),
        nature_pictures=coloured(lattices(4, 11)),
        drawn_pictures=coloured(lattices(4, 12, wider=0.85)),
        rival_pictures=coloured(lattices(4, 13, wider=0.05)),
        rival_name="shuffled spins",
        captions=[f"T = {TEMPERATURES[i % 4]:g}" for i in range(16)],
        figures=[report.Figure("Latent path", "Between two temperatures.", images.png(images.as_bytes(coloured(lattices(1, 3)))[0]))],
        origin="4096 lattices of 32 x 32 sites by Wolff's algorithm, four temperatures",
        files={"wolff(side=32, seed=0)": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
        rejected=["row 17: spin 0 is neither -1 nor 1"],
        environment={"python": "3.12.4", "platform": "Linux x86_64", "packages": {"torch": "2.10.0", "numpy": "2.4.0"}, "device": "cpu"},
        seconds=312.4,
        command="simulacra run ising.gan --recipe laptop --seed 0",
        citation="@article{liu2017,\n  title = {Simulating the Ising model with a deep convolutional GAN},\n  eprint = {1710.04987}\n}",
    )  # fmt: skip


@pytest.fixture(scope="module")
def found() -> Evidence:
    return judged()


@pytest.fixture(scope="module")
def shown(found: Evidence) -> str:
    return report.render(page(found))


class Seen(html.parser.HTMLParser):
    """Tags with their attributes, and the text of headings, row headers and list items, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.texts[tag][-1] += data


def plain(table: Table, width: int = 160) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    written = console.file
    assert isinstance(written, io.StringIO)
    return written.getvalue()


def blank(found: Evidence | None = None) -> report.Page:
    return report.Page(title="t", study="s.t", source="nobody", evidence=found or Evidence([]))


def test_the_page_loads_nothing_from_outside_and_runs_nothing(shown: str) -> None:
    seen = Seen(shown)
    for tag, attributes in seen.tags:
        assert tag not in {"script", "iframe", "object", "embed", "base", "form"}
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href", "srcset", "poster", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value[:80])
    assert "@import" not in shown
    assert re.findall(r"url\((?!#)", shown) == []
    assert "default-src 'none'" in shown


def test_every_inner_link_and_reference_has_its_target_and_no_identifier_is_given_twice(shown: str) -> None:
    seen = Seen(shown)
    ids = [a["id"] for _, a in seen.tags if a.get("id")]
    links = {target[1:] for _, a in seen.tags if (target := a.get("href") or "").startswith("#")}
    links |= set(re.findall(r"url\(#([^)]*)\)", shown))
    assert len(ids) == len(set(ids))
    assert links <= set(ids)


def test_pictures_have_alternative_texts_and_tables_have_headers(shown: str) -> None:
    seen = Seen(shown)
    assert all(attributes.get("alt") for tag, attributes in seen.tags if tag == "img")
    drawings = [attributes for tag, attributes in seen.tags if tag == "svg" and "y" not in attributes]  # y: a mark inside another
    assert all(attributes.get("aria-hidden") or attributes.get("role") == "img" for attributes in drawings)
    assert all(attributes.get("scope") in {"row", "col"} for tag, attributes in seen.tags if tag == "th")


def test_every_finding_appears_worst_first_in_the_gap_plot_and_in_the_verdict(found: Evidence, shown: str) -> None:
    names = [f.name for f in found.worst_first()]
    seen = Seen(shown)
    assert [text for text in seen.texts["summary"] if text in names] == names
    assert [text for text in seen.texts["a"] if text in names] == names
    assert sorted(text for text in seen.texts["h3"] if text in names) == sorted(names)
    assert names[-1] == "susceptibility"


def test_what_every_generator_is_judged_by_stands_in_a_section_of_its_own(shown: str) -> None:
    section = shown[shown.index('id="memory"') : shown.index('id="figures"')]
    for name in ("memorisation: nearest neighbour in training", "coverage", "precision", "classifier two-sample test"):
        assert f"<h3>{name}</h3>" in section
    assert "Not measured" in report.render(blank())


def test_hostile_strings_are_shown_and_not_obeyed(found: Evidence) -> None:
    one = dataclasses.replace(
        found.findings[0], name=HOSTILE, unit=HOSTILE, about=HOSTILE, grid_name=HOSTILE, rival_name=HOSTILE, exact_name=HOSTILE
    )
    number = dataclasses.replace(found.findings[-1], name=HOSTILE, unit=HOSTILE, rival_name=HOSTILE)
    judged_by = Evidence([one, number], [Check(HOSTILE, 1.0, math.nan, HOSTILE, True, {HOSTILE: 1.0})], remarks=[HOSTILE])
    texts = dict.fromkeys(("title", "study", "source", "recipe_name", "origin", "command", "citation", "rival_name"), HOSTILE)
    lists = {"recipe": {HOSTILE: HOSTILE}, "files": {HOSTILE: HOSTILE}, "environment": {HOSTILE: {HOSTILE: HOSTILE}}, "rejected": [HOSTILE]}
    figure = report.Figure(HOSTILE, HOSTILE, f"<svg xmlns='http://www.w3.org/2000/svg'>{HOSTILE}</svg>")
    hostile = dataclasses.replace(
        page(judged_by), **texts, **lists, figures=[figure], captions=[HOSTILE] * 16, history=[{"step": 1, HOSTILE: 2.0}]
    )  # type: ignore[arg-type]
    text = report.render(hostile)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert all(tag != "script" for tag, _ in Seen(text).tags)
    assert "alert" in plain(verdict.table(judged_by)) + plain(verdict.checks_table(judged_by), 400)
    assert len(report.summary_figure(hostile)) > 10_000


def test_brackets_in_a_name_are_no_markup_in_the_terminal(found: Evidence) -> None:
    one = dataclasses.replace(found.findings[0], name="[bold]m[/bold] [/red]")
    assert "[bold]m[/bold] [/red]" in plain(verdict.table(Evidence([one])))
    assert "[bold]m[/bold] [/red]" in plain(verdict.compare_table({"[run": Evidence([one])}))


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_table_fits_the_terminal_and_cuts_no_number(found: Evidence, width: int) -> None:
    lines = plain(verdict.table(found, width), width)
    first = [lines.index(verdict.gap(f)) for f in found.worst_first()]
    assert first[:3] == sorted(first[:3])
    assert "…" not in lines
    assert all(verdict.number(f.ceiling) in lines and f.rival_name.split()[0] in lines for f in found.findings)
    assert max(map(len, lines.splitlines())) <= width


def test_a_gap_without_a_scale_and_numbers_that_are_not_finite_survive(found: Evidence) -> None:
    whole = found.findings[0]
    holes = np.where(np.arange(len(whole.grid)) % 3 == 0, np.nan, whole.drawn)
    broken = [
        dataclasses.replace(whole, name="holes", drawn=holes, gap=math.inf, distance=math.inf),
        dataclasses.replace(whole, name="lost", drawn=np.full_like(whole.drawn, np.nan), gap=math.nan, p=math.nan),
        dataclasses.replace(whole, name="infinite", drawn=np.full_like(whole.drawn, np.inf), band=np.full_like(whole.band, np.nan)),
        dataclasses.replace(
            whole, name="zeros", log_values=True, truth=0 * whole.truth, drawn=0 * whole.drawn, rival=0 * whole.rival, exact=None
        ),
        dataclasses.replace(whole, name="minus", log_grid=True, grid=-whole.grid, gap_low=math.nan),
        dataclasses.replace(whole, name="far", rival=1e9 * whole.rival, gap=-7.0, gap_low=-9.0, gap_high=-5.0),
    ]
    seen = Seen(report.render(blank(Evidence(broken, [Check("c", math.nan, math.nan, "any", False)]))))
    assert seen.texts["td"].count("not defined") >= 4
    assert "not defined" in plain(verdict.table(Evidence(broken)))
    assert len(report.summary_figure(blank(Evidence(broken)))) > 10_000


def test_an_empty_judgement_gives_a_page_that_says_so() -> None:
    text = report.render(dataclasses.replace(blank(), seconds=math.nan))
    assert "Nothing was measured" in text
    assert "not recorded" in text
    assert len(report.summary_figure(blank())) > 1000


def test_equal_pages_give_equal_bytes(found: Evidence) -> None:
    small = dataclasses.replace(page(found), evidence=Evidence(found.findings[:1]), history=history(200)[:20])
    assert report.render(small) == report.render(small)
    assert report.summary_figure(small) == report.summary_figure(small)


def test_the_page_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    report.write(blank(), path)
    before = path.read_text(encoding="utf-8")
    assert before == report.render(blank())
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        report.write(dataclasses.replace(blank(), title="new"), path)
    assert path.read_text(encoding="utf-8") == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_page_stays_small_even_with_large_noisy_pictures(shown: str) -> None:
    noise = np.random.default_rng(0).random((16, 128, 128, 3))
    text = report.render(dataclasses.replace(blank(), nature_pictures=noise, drawn_pictures=noise, rival_pictures=noise))
    assert len(shown.encode()) < 600_000
    assert len(text.encode()) < 3_000_000 - 500_000  # leaves the findings their room


def test_small_pictures_are_shown_pixel_for_pixel_and_large_ones_over_whole_blocks() -> None:
    lattice = coloured(lattices(1, 3))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(images.png(images.as_bytes(lattice)[0])))), images.as_bytes(lattice)[0])
    assert images.shrunk(lattice)[1] == 1
    large, block = images.shrunk(np.repeat(np.repeat(lattice, 20, axis=1), 20, axis=2))
    assert (block, large.shape[1]) == (3, 213)
    assert images.enlargement(32, 32, 96) == 3
    lost = lattice.copy()
    lost[0, 0, 0] = np.nan
    assert images.as_bytes(lost)[0, 0, 0].tolist() == [204, 121, 167]


def test_pictures_that_do_not_fit_each_other_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"shape \(n, height, width, 3\)"):
        dataclasses.replace(blank(), nature_pictures=np.zeros((4, 8, 8)))
    with pytest.raises(ValueError, match="one per picture"):
        dataclasses.replace(blank(), nature_pictures=np.zeros((2, 8, 8, 3)), drawn_pictures=np.zeros((2, 8, 8, 3)), captions=["T = 1"])
    with pytest.raises(ValueError, match="must be PNG"):
        images.data_uri(b"MZ nothing")


def test_the_summary_is_one_picture_of_1600_by_900(found: Evidence) -> None:
    with Image.open(io.BytesIO(report.summary_figure(page(found)))) as picture:
        assert picture.size == (1600, 900)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.0012345, "0.00123"),
        (12345.6, "12300"),
        (-2.0, "-2.00"),
        (1.2e-7, "1.20e-07"),
        (9.999, "10.0"),
        (math.nan, "not defined"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert verdict.number(value) == text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [(2.26918, 0.0042, "2.2692 ± 0.0042"), (-1.4, math.nan, "-1.400"), (123456.0, 1300.0, "123456 ± 1300"), (1.0, 0.0, "1.000")],
)
def test_a_measured_value_ends_where_its_error_does(value: float, error: float, text: str) -> None:
    assert verdict.measured(value, error) == text


@pytest.mark.parametrize(
    ("gap", "low", "high", "expected"),
    [
        (0.02, -0.1, 0.2, "as nature"), (0.2, 0.1, 0.3, "near"), (0.6, 0.4, 0.8, "apart"), (0.8, 0.5, 1.1, "as the rival"),
        (0.3, -0.1, 0.9, "undecided"), (math.nan, math.nan, math.nan, "not defined"), (0.1, math.nan, math.nan, "near"),
    ],
)  # fmt: skip
def test_the_word_for_a_gap_follows_its_interval(gap: float, low: float, high: float, expected: str) -> None:
    assert verdict.standing(scalar("x", gap, (low, high), "r")).word == expected


def test_the_sentence_says_told_apart_worst_best_and_how_many_are_near(found: Evidence) -> None:
    said = verdict.sentence(found)
    assert said.startswith(
        "Drawn samples can be told from nature (p = 0.005, alarm at 0.01; 240 held-out and 240 drawn). Worst: coverage, gap 1.38"
    )
    assert "of 17 findings have a gap below 0.25; 1 gap is not defined." in said


def test_the_sentence_claims_no_more_than_was_tested(found: Evidence) -> None:
    alike = dataclasses.replace(found, p=0.4)
    assert verdict.sentence(alike).startswith("These findings cannot tell drawn samples from nature (p = 0.4")
    assert "was not tested" in verdict.sentence(Evidence([scalar("coverage", 0.1, (0.0, 0.2), "r")]))
    assert verdict.sentence(Evidence([])) == "Nothing was measured, so nothing can be said."


def test_runs_side_by_side_mark_the_smallest_gap_and_rivals_that_differ() -> None:
    a = Evidence([scalar("coverage", 0.4, (0.3, 0.5), "collapse"), scalar("precision", 0.1, (0.0, 0.2), "noise")])
    b = Evidence(
        [scalar("coverage", 0.2, (0.1, 0.3), "collapse"), scalar("precision", 0.3, (0.2, 0.4), "blur"), scalar("new", 0.9, (0.8, 1.0), "r")]
    )
    lines = plain(verdict.compare_table({"first": a, "second": b}))
    assert lines.index("new") < lines.index("coverage") < lines.index("precision")
    assert "0.20 [0.10, 0.30] *" in lines
    assert "0.40 [0.30, 0.50] *" not in lines
    assert "so not comparable: precision" in " ".join(lines.split())


def test_smoothing_keeps_constants_and_thinning_keeps_extremes() -> None:
    steps = np.arange(5000.0)
    values = np.random.default_rng(0).standard_normal(5000)
    values[1234] = 99.0
    x, y = curves.thinned(steps, values)
    assert len(x) <= 800
    assert 99.0 in y
    assert np.all(np.diff(x) > 0)
    assert np.allclose(curves.smoothed(np.full(1000, 3.0), log=True), 3.0)
    assert abs(curves.smoothed(np.r_[np.zeros(2500), np.ones(2500)])[2500] - 0.5) < 0.02


def test_bins_lie_between_their_edges() -> None:
    assert np.allclose(curves.bin_edges(np.array([0.5, 1.5, 2.5]), log=False), [0, 1, 2, 3])
    assert np.allclose(curves.bin_edges(np.array([1.0, 10.0, 100.0]), log=True), 10.0 ** np.array([-0.5, 0.5, 1.5, 2.5]))
