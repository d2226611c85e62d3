"""Which of several runs should a user take? Planted better, worse, equal and copying runs are told apart, others warned of."""

import dataclasses
import html.parser
import re

import numpy as np
import pytest

from simulacra import comparing, verdict
from simulacra.evidence import Check, Evidence, Finding
from simulacra.report import comparison as page
from simulacra.report.comparison import Comparison, Entry
from test_cli import call_quietly

HOSTILE = "<script>alert('x')</script> & \"quoted\""
GRID = np.linspace(0, 1, 12)


def curve(name, gap, interval=None, *, rival="shuffled pixels", shift=0.0):
    """A finding whose drawn curve lies `gap` above nature's."""
    low, high = interval or (gap - 0.05, gap + 0.05)
    truth = np.sin(GRID) + shift
    return Finding(
        name, "power", "What is measured.", "wavenumber k (1/px)", GRID, truth, truth + gap, truth + 1, 0.05 + 0 * GRID, rival,
        0.1 + gap, 0.1, 1.1, gap, low, high, 0.5,
    )  # fmt: skip


def judged(spectrum, colour, memory=0.0, **options):
    return Evidence(
        [curve("power spectrum", spectrum, **options), curve("colour", colour, **options), curve("memorisation", memory, rival="copies")],
        [Check("share of the asked class", 0.93, 0.01, "at least 0.9", True)], p=0.4, nature_rows=100, drawn_rows=100,
    )  # fmt: skip


def entry(name, evidence, **options):
    pictures = np.random.default_rng(0).uniform(size=(4, 8, 8, 3))
    given = {"files": {"galaxies.zip": "ab12"}, "steps": 100, "batch": 8, "seconds": 60.0, "nature": pictures, "drawn": pictures[::-1]}
    return Entry(name, "toys.gaussian", "quick", evidence, **{**given, **options})


# ------------------------------------------------------------------------------------------------------------- the rule


def test_the_run_whose_largest_gap_is_smallest_is_taken_and_the_others_are_named():
    choice = verdict.choose({"worse": judged(0.1, 0.6), "better": judged(0.3, 0.2)})
    assert choice.best == ["better"]
    assert choice.sentence == (
        "Take better: its largest gap is the smallest, 0.30 [0.25, 0.35] (power spectrum). Further from nature: "
        "worse, 0.60 [0.55, 0.65] (colour)."
    )


def test_runs_whose_intervals_overlap_cannot_be_told_apart():
    choice = verdict.choose({"a": judged(0.33, 0.2), "b": judged(0.3, 0.2), "c": judged(0.9, 0.2)})
    assert choice.best == ["b", "a"]
    assert choice.sentence.startswith("b and a cannot be told apart: the intervals of their largest gaps overlap, 0.30 [0.25, 0.35]")
    assert "Further from nature: c, 0.90" in choice.sentence


def test_a_run_that_copies_is_left_out_however_good_it_looks():
    choice = verdict.choose({"copier": judged(0.0, 0.0, memory=0.8), "honest": judged(0.5, 0.2)})
    assert choice.best == ["honest"]
    assert choice.sentence.startswith("Take honest, the only run that does not memorise: its largest gap is 0.50")
    assert "Left out because it memorises training data: copier." in choice.sentence
    none = verdict.choose({"a": judged(0, 0, memory=0.8), "b": judged(0, 0, memory=0.4)})
    assert none.best == ()
    assert none.sentence == "Every run memorises its training data, so none can be recommended."


def test_a_missed_check_of_memorisation_counts_as_copying():
    clean = judged(0.1, 0.1)
    assert not verdict.memorises(clean)
    assert verdict.memorises(clean.with_more(checks=[Check("memorisation, ratio", 0.1, 0.01, "near 1", False)]))


def test_only_findings_that_all_runs_share_with_one_rival_count():
    one = judged(0.2, 0.1).with_more([curve("only here", 5.0), curve("undefined", np.nan), curve("rivals differ", 0.9)])
    two = judged(0.4, 0.1).with_more([curve("undefined", 0.1), curve("rivals differ", 0.1, rival="blurred")])
    assert verdict.shared({"one": one, "two": two}) == ["power spectrum", "colour", "memorisation"]
    assert verdict.choose({"one": one, "two": two}).best == ["one"]
    apart = {"one": Evidence([curve("spectrum", 0.1)]), "two": Evidence([curve("energy", 0.1)])}
    assert verdict.choose(apart).sentence == "The runs share no finding that is held to one rival, so none can be recommended."


def test_a_best_run_that_is_no_better_than_the_rival_is_called_so():
    sentence = verdict.choose({"a": judged(1.2, 0.1), "b": judged(3.0, 0.1)}).sentence
    assert sentence.endswith("Even so a is no better there than the rival.")


# -------------------------------------------------------------------------------------------------------- what is warned


def test_other_data_are_warned_of_and_the_numbers_speak_for_themselves_only():
    same = Comparison([entry("a", judged(0.1, 0.1)), entry("b", judged(0.6, 0.1), files={"elsewhere/renamed.zip": "ab12"})])
    assert same.warnings() == []
    assert same.remarks()[0] == "The runs were trained on the same data and judged on the same held-out rows."
    other = Comparison([same.entries[0], entry("b", judged(0.6, 0.1), files={"galaxies.zip": "cd34"})])
    assert other.warnings() == ["The runs were trained on different data: a; b."]
    assert other.sentence().startswith("By these numbers alone: Take a")
    assert "These runs cannot be compared" in page.render(other)
    simulated = Comparison([entry("a", judged(0.1, 0.1), files={}, origin="50 maps"), entry("b", judged(0, 0), files={}, origin="60 maps")])
    assert not simulated.same_data


def test_other_held_out_rows_unequal_times_and_unknown_memory_are_said():
    without = dataclasses.replace(judged(0.6, 0.1), findings=judged(0.6, 0.1, shift=0.3).findings[:2])
    compared = Comparison([entry("a", judged(0.1, 0.1)), entry("b", without, seconds=3600.0)])
    assert compared.warnings() == ["Not judged on the same held-out rows as a: b."]
    assert compared.remarks() == ["They were not trained equally long: 60 s to 1 h 0 min.", "Memorisation was not measured: b."] or (
        compared.remarks() == ["They were not trained equally long: 1 min 0 s to 1 h 0 min.", "Memorisation was not measured: b."]
    )


# --------------------------------------------------------------------------------------------------------------- the page


class Parser(html.parser.HTMLParser):
    """Tags and their attributes, and text outside of style."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.inside = [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside != "style":
            self.text += data


def test_the_page_says_the_answer_first_shows_every_run_and_loads_nothing():
    many = [entry(f"run-{i}", judged(0.1 + 0.2 * i, 0.1), trained=1234567, to_draw=4321, drawn_per_second=2.5) for i in range(page.MOST)]
    text = page.render(Comparison(many))
    read = Parser(text)
    assert read.text.index("Take run-0: its largest gap is the smallest") < read.text.index("The runs")
    assert " ".join(verdict.RULE.split()) in " ".join(read.text.split())
    for i in range(page.MOST):
        assert read.text.count(f"run-{i}") > 4
        assert f"var(--run-{i + 1})" in text
    assert "1,234,567" in read.text
    assert "at least 0.9" in read.text
    assert "#0101" not in text
    assert not {tag for tag, _ in read.tags} & {"script", "iframe", "object", "form"}
    targets = [a[name] for _, a in read.tags for name in ("src", "href", "data", "poster") if name in a]
    assert all(target.startswith(("data:", "#")) for target in targets)
    assert "script-src" not in text
    assert "default-src 'none'" in text
    assert text == page.render(Comparison(many))


def test_the_smallest_gap_of_a_row_is_ticked_with_those_it_cannot_be_told_from():
    text = page.render(Comparison([entry("a", judged(0.1, 0.5)), entry("b", judged(0.13, 0.5)), entry("c", judged(0.9, 0.5))]))
    table = text[text.index('id="gaps"') : text.index('id="memory"')]
    ticked = re.findall(r'class="good">([^<]*)<', table)
    assert ticked == ["0.10 [0.05, 0.15]", "0.13 [0.08, 0.18]"]


def test_nature_is_shown_once_where_all_runs_show_the_same():
    other = np.zeros((4, 8, 8, 3))
    same = Comparison([entry("a", judged(0.1, 0.1)), entry("b", judged(0.2, 0.1))])
    differing = Comparison([same.entries[0], entry("b", judged(0.2, 0.1), nature=other)])
    titles = [page.render(c).count('aria-label="Nature, held out"') for c in (same, differing)]
    assert titles == [1, 2]


def test_whatever_names_and_data_hold_is_text_on_the_page():
    hostile = Evidence([curve(HOSTILE, 0.2, rival=HOSTILE)], [Check(HOSTILE, 0.1, 0.1, HOSTILE, False)], remarks=[HOSTILE])
    bad = entry(HOSTILE, hostile, origin=HOSTILE, command=HOSTILE, machine=HOSTILE, captions=[HOSTILE] * 4)
    text = page.render(Comparison([bad, dataclasses.replace(bad, name="b")]))
    assert "<script" not in text
    assert "&lt;script&gt;" in text


# ------------------------------------------------------------------------------------------------------- the command line


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs alike but for the seed of their judge, one that was hardly trained, and one on other data."""
    folder = tmp_path_factory.mktemp("compared")
    for name, words in (("long", ("--steps", 60)), ("short", ("--steps", 2)), ("other", ("--steps", 2, "--rows", 1000))):
        assert call_quietly("run", "toys.gaussian", *words, "--out", folder / name, "-q")[0] == 0
    return folder


def test_the_trained_run_is_recommended_before_the_untrained_and_the_page_is_written(runs, tmp_path):
    code, out, err = call_quietly("compare", runs / "short", runs / "long", "-o", tmp_path / "page.html")
    assert code == 0, err
    said = " ".join(out.split())
    assert "Take long: its largest gap is the smallest" in said
    assert "spread" in said
    assert "note: The runs were trained on the same data" in said
    text = (tmp_path / "page.html").read_text()
    assert "simulacra run toys.gaussian --recipe quick --steps 2" in text
    assert "numbers" not in text[: text.index("</head>")]
    read = Parser(text).text
    assert "Numbers trained" in read
    assert re.search(r"Draws per second\s*[\d.,]+", read)


def test_runs_on_other_data_are_warned_of_on_the_terminal(runs):
    code, out, _ = call_quietly("compare", runs / "short", runs / "other")
    assert code == 0
    assert "Warning: The runs were trained on different data" in " ".join(out.split())


def test_runs_of_one_folder_name_are_told_apart_by_their_parents(tmp_path):
    paths = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "c" / "other"]
    assert [name.replace("\\", "/") for name in comparing.names(paths)] == ["a/run", "b/run", "c/other"]
    assert comparing.names([tmp_path / "x"]) == ["x"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [(("long", "long"), 3, "named twice"), (("long", "-o", "x.png"), 2, "written as .html"), (("long", ".."), 3, "not a run folder")],
)
def test_what_cannot_be_compared_is_refused(runs, monkeypatch, words, code, said):
    monkeypatch.chdir(runs)
    got, _, err = call_quietly("compare", *words)
    assert got == code
    assert said in err


def test_more_runs_than_can_be_told_apart_are_refused(tmp_path):
    code, _, err = call_quietly("compare", *(tmp_path / str(i) for i in range(page.MOST + 1)))
    assert code == 3
    assert "more than can be told apart" in err
