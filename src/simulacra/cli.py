"""The command line. It imports nothing heavy until a command needs it, so `simulacra --help` answers at once.

Exit codes: 0 done; 1 unexpected error; 2 wrong command line; 3 input refused; 4 training diverged;
75 stopped by a signal or the time limit, saved, and ready for `simulacra resume`; 130 interrupted before anything began.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulacra import flags

if TYPE_CHECKING:
    from rich.console import Console

    from simulacra.study import Study

REFUSED, DIVERGED, STOPPED, INTERRUPTED = 3, 4, 75, 130

app = typer.Typer(
    help="Generative models for science, held to the statistics of the real thing.\n\n"
    "Begin with [bold]simulacra list[/], then [bold]simulacra show ising.gan[/], then [bold]simulacra run ising.gan --recipe quick[/].",
    no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done · 1 unexpected error · 2 wrong command line · 3 input refused · 4 diverged · 75 stopped, can be resumed.",
)  # fmt: skip

StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="science.system, as `simulacra list` shows it.")]
Trained = Annotated[str, typer.Argument(metavar="RUN|STUDY", help="A run folder, or a study or folder of shipped weights.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Minutes = Annotated[float | None, typer.Option(help="Stop after this many minutes, saved and ready to be resumed.", min=0.0)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only the verdict; no progress.")]


@app.callback()
def _trust(
    studies: Annotated[
        list[str] | None,
        typer.Option("--trust", metavar="MODULE", help="A module of yours, a study or a score, that a run may name; may be repeated."),
    ] = None,
) -> None:
    if studies:
        from simulacra import study

        for name in studies:
            study.trust(name)


@app.command("list")
def list_studies() -> None:
    """Every system that can be run."""
    from rich.table import Table

    from simulacra import study

    table = Table("study", "what it does", box=None, header_style="bold")
    for name in study.names():
        table.add_row(name, study.headline(name))
    _console().print(table)


@app.command()
def show(name: StudyName) -> None:
    """What a study is: paper, recipes with meaning and range of every field, expected time."""
    from simulacra import study

    asked = study.find(name)
    console = _console()
    console.print(f"[bold]{name}[/]: {asked.title}\n{asked.source}\n")
    console.print(_recipe_table(asked))
    for recipe, time in asked.expect.items():
        console.print(f"  {recipe}: {time}")
    console.print()
    _show_drawing(console, name, asked)
    console.print(f"\nTry: simulacra run {name} --recipe quick")


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="STUDY", help="science.system, as `simulacra list` shows it.")] = "",
    recipe: Annotated[str, typer.Option(help="quick, laptop or paper.")] = "quick",
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/<study>-<recipe>, numbered if taken.")] = None,
    minutes: Minutes = None,
    quiet: Quiet = False,
    help: Annotated[bool, typer.Option("--help", help="This message; with a study, also its recipe's flags.")] = False,
) -> None:
    """Train, draw, judge and report. Every field of the study's recipe is a flag: `--steps 500 --seed 1`."""
    from simulacra import study

    if help or not name:
        typer.echo(context.get_help())
        if name:
            _console().print(_recipe_table(study.find(name)))
        raise typer.Exit(0 if help else 2)
    asked = study.find(name)
    chosen = flags.recipe_of(asked, recipe, context.args)
    from simulacra import pipeline

    folder = out or _free(Path("runs") / f"{name}-{recipe}")
    with _progress(chosen.steps, quiet) as (watch, say):
        say(f"run folder: {folder}")
        done, outcome = pipeline.run(name, recipe, chosen, folder, seconds=_seconds(minutes), watch=watch, say=say)
    _conclude(done, outcome)


@app.command()
def resume(path: RunFolder, minutes: Minutes = None, quiet: Quiet = False) -> None:
    """Go on with a run that was stopped or killed; it ends as if it had never stopped."""
    from simulacra import pipeline
    from simulacra.runs import Run

    _, recipe = pipeline.recipe_of(Run.open(path))
    with _progress(recipe.steps, quiet) as (watch, say):
        done, outcome = pipeline.resume(path, seconds=_seconds(minutes), watch=watch, say=say)
    _conclude(done, outcome)


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def draw(
    context: typer.Context,
    what: Trained = "",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write: .npz, .png grid, .gif or .mp4 movie, or a format of the study's.")
    ] = None,
    n: Annotated[int | None, typer.Option("-n", help="How many samples; default 64, in a movie 4.", min=1)] = None,
    condition: Annotated[list[str] | None, typer.Option(help="Asked condition, name=value; the same as --name value.")] = None,
    seed: Annotated[int, typer.Option(help="Sample i depends only on this seed, i and its condition.", min=0)] = 0,
    against: Annotated[Path | None, typer.Option(help="File of known samples that those drawn are compared with.")] = None,
    movie: Annotated[
        str,
        typer.Option(
            help="Movies: trace (of a draw), path (from draw to draw), morph (from one asked condition to the next), truncation (to the "
            "most typical and back); default: what there is."
        ),
    ] = "",
    images: Annotated[Path | None, typer.Option(help="Path of an autoencoder: file of samples to go through; default: held-out.")] = None,
    through: Annotated[
        str, typer.Option(help="Path: rows of them, or numbers of random positions, from the last back to the first.")
    ] = "0,1,2,3",
    frames: Annotated[int | None, typer.Option(help="Movies: frames of a trace (100), or from one stop to the next (24).", min=2)] = None,
    truncation: Annotated[
        float, typer.Option(help="Scale of the random positions that are drawn from; below 1 samples are more typical, and less diverse.")
    ] = 1.0,
    quiet: Quiet = False,
    help: Annotated[bool, typer.Option("--help", help="This message; with a run or a study, also its conditions.")] = False,
) -> None:
    """Draw samples from a trained run, or from the weights that ship for a study, into a format that the file's ending names.

    What a study can be asked for is a flag: `simulacra draw ising.gan --temperature 2.1`; `simulacra show STUDY` explains them. A flag
    that is repeated adds to it. Recipe fields that matter only when drawing are flags too.
    """
    if help or not what:
        typer.echo(context.get_help())
        if what:
            _describe(what)
        raise typer.Exit(0 if help else 2)
    if what.startswith("-"):
        raise typer.BadParameter(f"say first what to draw from, a run folder or a study; {what!r} came first")
    if out is None:
        raise typer.BadParameter("say with -o which file to write, e.g. -o samples.npz")
    from simulacra import drawing, streaming

    source = drawing.opened(what)
    changes, conditions = flags.asked_of(source, context.args, flags.named(condition or [], "--condition", "name=value"))
    source = source.changed(changes)
    if not quiet:
        _console().print(source.told(), markup=False)
    if out.suffix.lower() in drawing.MOVIES:
        wish = drawing.Movie(movie, n or drawing.Movie.rows, conditions, seed, images, flags.rows(through), frames, truncation)
        lines = drawing.draw_movie(source, out, wish, lambda count: _watched(count, quiet, "frames"))
    elif streaming.fits(source, out, n or 64) and not against:
        order = streaming.Order(what, changes, conditions, seed, n or 64, out.suffix.lower())
        with _watched(order.rows, quiet, "samples") as watch:
            outcome = streaming.stream(source, order, out, workers=source.recipe.threads, watch=watch)
        lines = outcome.lines()
        if not outcome.finished:
            kept = f"stopped after {outcome.rows:,} of {order.rows:,}, kept in {out}.part; the same command goes on"
            _console().print(kept, markup=False, soft_wrap=True)
            raise typer.Exit(STOPPED)
    else:
        with _watched(n or 64, quiet, "samples") as watch:
            lines = drawing.draw(
                source, out, n=n or 64, conditions=conditions, seed=seed, against=against, truncation=truncation, watch=watch
            )
    for line in lines:
        _console().print(line, markup=False)
    _console().print(f"wrote {out}", markup=False, soft_wrap=True)


@app.command()
def denoise(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Your measurements: radio traces as .npz, .h5 or .csv.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write: .npz, .h5 or .csv.")] = None,
    run: Annotated[
        str, typer.Option(metavar="RUN|STUDY", help="Denoise with this run, or with the weights that ship for a study.")
    ] = "airshower.denoiser",
    rate: Annotated[float | None, typer.Option(help="Sampling rate in MHz, where the file does not say.")] = None,
    start: Annotated[int | None, typer.Option(help="Of longer traces: first step of the window to take.", min=0)] = None,
    seed: Annotated[int, typer.Option(help="Seed of denoisers that draw at random.", min=0)] = 0,
    quiet: Quiet = False,
) -> None:
    """Recover the signal in your own measurements: radio traces of air showers.

    FILE holds [bold]traces[/] (n, steps) in mV and [bold]rate[/] in MHz: .npz, HDF5, or CSV with one trace per line below a line
    `# rate 180`. What is written has a row for each of them: [bold]signal[/], the pulse alone (mV); [bold]spread[/], its standard error
    step by step (mV); [bold]presence[/], the probability that there is a pulse. Dead channels and traces with values that are not
    numbers are set aside, their rows nan; clipped traces are used, with a warning.

    Without --run the weights that ship with the package are used: traces of 500 steps at 180 MHz, 30 to 80 MHz. Length and rate
    must be those of the model; train one for yours with [bold]simulacra run airshower.denoiser --length 1024 --rate 200[/].

    Try: [bold]simulacra denoise traces.h5 -o clean.h5[/]
    """
    if out is None:
        raise typer.BadParameter("say with -o which file to write, e.g. -o clean.h5")
    from simulacra import drawing

    console = _console()

    def say(line: str) -> None:
        if not quiet or line.startswith("Warning"):
            console.print(line, markup=False)

    source = drawing.opened(run)
    say(source.sentence())
    lines = drawing.denoise(
        source, path, out, rate=rate, start=start, seed=seed, say=say, progress=lambda count: _watched(count, quiet, "traces")
    )
    for line in lines:
        console.print(line, markup=False)
    console.print(f"wrote {out}", markup=False, soft_wrap=True)


@app.command()
def ship(
    path: RunFolder,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write; default: the package's own place for weights.")] = None,
) -> None:
    """Write a finished run's weights, as far as drawing needs them, with a card: for the package, or for others to draw from."""
    from simulacra import drawing
    from simulacra.runs import Run

    shipped = drawing.ship(Run.open(path), out)
    _console().print(shipped.sentence(), markup=False)
    _console().print(f"wrote {shipped.path}", markup=False, soft_wrap=True)


@app.command()
def score(
    path: Trained,
    samples: Annotated[Path, typer.Argument(help="Samples in any format that the study reads.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="CSV file; without it, printed.")] = None,
) -> None:
    """One number per sample from a learner that scores (novelty of an image, likelihood of a string)."""
    from simulacra import drawing

    text = drawing.scores(drawing.opened(path), samples)
    if out:
        from simulacra.runs import write_atomically

        write_atomically(out, text.encode())
        _console().print(f"wrote {out}")
    else:
        sys.stdout.write(text)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def judge(
    context: typer.Context,
    what: Annotated[str, typer.Argument(metavar="STUDY|RUN", help="A study, to judge files; or a run folder, to judge it again.")],
    drawn: Annotated[Path | None, typer.Option(help="Samples that any program wrote.")] = None,
    nature: Annotated[
        Path | None, typer.Option("--nature", "--reference", help="Held-out nature; default: what the recipe loads.")
    ] = None,
    training: Annotated[Path | None, typer.Option(help="What the other program was trained on: looks for copies.")] = None,
    recipe: Annotated[str, typer.Option(help="Recipe whose nature is used without --nature; its fields are flags.")] = "quick",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write evidence (.json) or a report (.html).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of drawing (RUN) and of the judge.", min=0)] = 0,
) -> None:
    """Hold samples against nature: any study's judge on anyone's samples, or a run once more with another seed."""
    from simulacra import pipeline, study

    if Path(what).is_dir():
        from simulacra.runs import Run

        folder = Run.open(Path(what))
        _, before = pipeline.recipe_of(folder)
        changes = flags.changes_of(before, flags.only(context.args, type(before), type(before).of_drawing()))
        pipeline.judge_again(folder, seed, _console().print, changes)
        _verdict(folder.evidence())
        return
    if drawn is None:
        raise typer.BadParameter("a study's judge needs --drawn FILE (or give a run folder instead of a study)")
    asked = study.find(what)
    chosen = flags.recipe_of(asked, recipe, [*context.args, "--seed", str(seed)])
    evidence, reference, samples = pipeline.judge_files(asked, drawn, nature, training, chosen)
    _verdict(evidence)
    if out:
        pipeline.write_judgement(asked, what, evidence, reference, samples, out)
        _console().print(f"wrote {out}")


@app.command()
def report(path: RunFolder) -> None:
    """Write report.html again from what the run folder holds."""
    from simulacra import pipeline
    from simulacra.runs import Run

    folder = Run.open(path)
    with folder.alone():
        _console().print(f"wrote {pipeline.write_report(folder)}")


@app.command()
def compare(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders that were judged.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write all of it, with samples and curves, as .html page.")] = None,
) -> None:
    """Which of several runs should a user take? Their gaps side by side, and what follows from them."""
    from simulacra import comparing, verdict
    from simulacra.report import comparison as page

    if out and out.suffix.lower() != ".html":
        raise typer.BadParameter(f"a comparison is written as .html, not as {out.suffix or 'a file without ending'}")
    compared, console = comparing.comparison(paths), _console()
    console.print(verdict.compare_table(compared.evidence))
    for line in compared.warnings():
        console.print(f"Warning: {line}", markup=False)
    for line in compared.remarks():
        console.print(f"note: {line}", markup=False)
    console.print(compared.sentence(), markup=False)
    if out:
        page.write(compared, out)
        console.print(f"wrote {out}", markup=False, soft_wrap=True)


@app.command()
def forecast(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, TSV (also .gz) or Parquet with a column of dates, daily or weekly.")],
    column: Annotated[str | None, typer.Option(help="Column to forecast; default: the only numeric one.")] = None,
    date_column: Annotated[str | None, typer.Option(help="Column of dates; default: the one that is called so, or holds some.")] = None,
    series_column: Annotated[str | None, typer.Option(help="Column that tells several series apart: a station, a state.")] = None,
    series: Annotated[str | None, typer.Option(metavar="NAME", help="Which of the series; default: each of them.")] = None,
    unit: Annotated[str | None, typer.Option(help="Unit of the column, e.g. F; default: as its name says.")] = None,
    cumulative: Annotated[
        bool | None,
        typer.Option("--cumulative/--no-cumulative", help="Running totals, to be differenced; or not so, whatever they look like."),
    ] = None,
    horizon: Annotated[int, typer.Option(help="Days (of weekly series: weeks) ahead.", min=1, max=366)] = 14,
    run: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Forecast with this finished run of weather.gp or weather.lstm; nothing is fitted.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="RIVAL", help="Look ahead by a simple forecast, e.g. damped-anomaly, where the backtest says so.")
    ] = None,
    origins: Annotated[int, typer.Option(help="Past days from which the backtest looks ahead.", min=2, max=5000)] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the paths and of the bootstrap.", min=0)] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the forecast: .csv (quantiles) or .npz (all paths); default: print it.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write all of it, with pictures, as one .html page.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings, the backtest and its verdict.")] = False,
) -> None:
    """Forecast your own daily or weekly series, and say first what such forecasts were worth.

    A Gaussian process is made from what the record shows (memory, trend, year, week), fitted to its first four fifths and tried out on
    the last fifth, beside persistence, climatology and other simple forecasts; then it is fitted to everything and looks ahead. If a simple
    forecast is as good, that is what it says.

    Try: [bold]simulacra forecast my.csv --column tmax --horizon 14 -o forecast.csv --report out.html[/]
    """
    import os
    import time

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy comes in: matrices are small, and threads would wait for each other

    from simulacra import forecasting
    from simulacra.forecasting import outcome as told

    began = time.monotonic()
    for file, endings in ((out, (".csv", ".npz")), (report, (".html",))):
        if file:
            told.check_file(file, endings)
    console = _console()
    columns: dict[str, Any] = {"column": column, "date_column": date_column, "series_column": series_column, "series": series}
    columns |= {"unit": unit, "cumulative": cumulative}
    given, table = _given(run, path, columns) if run else (None, forecasting.read(path, **columns))
    for remark in table.remarks:
        if not quiet or remark.startswith("Warning"):
            console.print(remark if remark.startswith("Warning") else f"note: {remark}", markup=False)
    outcome = forecasting.forecast(
        table, horizon=horizon, origins=origins, seed=seed, given=given, by=by,
        say=lambda line: None if quiet else console.print(line, markup=False),
    )  # fmt: skip
    for remark in outcome.evidence.remarks[1:]:
        if remark not in table.remarks and (not quiet or remark.startswith("Warning")):
            console.print(remark if remark.startswith("Warning") else f"note: {remark}", markup=False)
    console.print(told.backtest_table(outcome))
    console.print(told.coverage(outcome), markup=False)
    for name, said in outcome.each.items():
        console.print(f"{name}: {said}", markup=False)
    console.print(f"{'All series together: ' if outcome.each else ''}{outcome.verdict}", markup=False)
    if not quiet or not (out or report):
        for line in told.summary(outcome):
            console.print(line, markup=False)
    if out:
        told.write(outcome, out)
        console.print(f"wrote {out}", markup=False, soft_wrap=True)
    if report:
        options = {**columns, "horizon": horizon, "origins": origins, "seed": seed, "run": run, "by": by}
        told.write_report(outcome, report, options, time.monotonic() - began)
        console.print(f"wrote {report}", markup=False, soft_wrap=True)


def _given(run: Path, path: Path, columns: Mapping[str, Any]) -> tuple[Any, Any]:
    """A finished run to forecast with, and the series of the file as it reads them."""
    from simulacra import drawing, forecasting, pipeline
    from simulacra.training import device_of

    source = drawing.opened(str(run))
    learner, device = source.learner(), device_of(source.recipe.device)

    def draw(rows: Any, seed: int) -> Any:
        return pipeline.draw_like(learner, rows, seed=seed, device=device)

    return forecasting.given(source.place, source.recipe, draw, path, **columns)


@app.command()
def fetch(
    archive: Annotated[str, typer.Argument(help="gsod or ghcn (NOAA, by station), nyt (The New York Times, cases by state).")],
    station: Annotated[str, typer.Argument(help="GSOD: 11 digits; GHCN-Daily: 11 characters, USW00024233 is Seattle-Tacoma.")] = "",
    years: Annotated[str, typer.Option(help="GSOD only: years, as 2012-2015 or 2012,2014.")] = "",
    column: Annotated[str | None, typer.Option(help="What to fetch; default: daily maximum temperature, or cases.")] = None,
    inputs: Annotated[str, typer.Option(help="Further columns, e.g. TMIN,PRCP.")] = "",
    refresh: Annotated[bool, typer.Option("--refresh", help="Fetch again what is in the cache.")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="CSV file to write.")] = Path("series.csv"),
) -> None:
    """Daily series from a public archive, as CSV for `forecast` and `run`. Licence and citation are printed first."""
    from simulacra.series import fetch as archives
    from simulacra.series.writing import write_table

    say = _console().print
    more: dict[str, Any] = {"refresh": refresh, "say": lambda line: say(line, markup=False)} | ({"column": column} if column else {})
    more["inputs"] = tuple(filter(None, inputs.split(",")))
    if archive not in ("gsod", "ghcn", "nyt"):
        raise typer.BadParameter(f"no archive is called {archive!r}; there are gsod, ghcn and nyt")
    if archive != "nyt" and not station:
        raise typer.BadParameter(f"{archive} needs a station: simulacra fetch {archive} STATION")
    if archive == "nyt":
        table = archives.nyt_states(**more)
    elif archive == "ghcn":
        table = archives.ghcn_daily(station, **more)
    else:
        table = archives.gsod(station, flags.years(years), **more)
    for remark in table.remarks[1:]:
        say(remark, markup=False)
    write_table(table, out)
    say(f"wrote {out}", markup=False, soft_wrap=True)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="One SELECT in BigQuery's dialect, or a file that holds it.")],
    table: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE: a local CSV or Parquet file under the name that the query uses; may be repeated.")
    ] = None,
    project: Annotated[str, typer.Option(help="Ask BigQuery itself, billed to this project, after a free trial.")] = "",
    maximum_bytes: Annotated[int, typer.Option(help="BigQuery: refuse to read more.", min=1)] = 2**30,
    price_per_tib: Annotated[float | None, typer.Option(help="BigQuery: what your contract says a TiB costs, to be told the cost.")] = None,
    parameter: Annotated[list[str] | None, typer.Option(help="name=value of an @name in the query; may be repeated.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="CSV file to write.")] = Path("query.csv"),
) -> None:
    """SQL of BigQuery's dialect on local files (extra `series`), or on the service (extra `bigquery`), into a CSV file.

    Try: [bold]simulacra query cases.sql --table bigquery-public-data.covid19_nyt.us_states=us-states.csv -o cases.csv[/]
    """
    from simulacra.series import sql as databases
    from simulacra.series.writing import write_rows

    if bool(table) == bool(project):
        raise typer.BadParameter("say where the tables are: --table NAME=FILE for local files, or --project for BigQuery")
    text = Path(sql).read_text(encoding="utf-8") if sql.lower().endswith(".sql") else sql
    say = _console().print
    if project:
        source = databases.bigquery(
            project, maximum_bytes=maximum_bytes, price_per_tib=price_per_tib, say=lambda line: say(line, markup=False)
        )
    else:
        source = databases.local(flags.named(table or [], "--table", "NAME=FILE"))
    rows = source.query(text, flags.named(parameter or [], "--parameter", "name=value"))
    write_rows(rows, out)
    say(f"wrote {len(rows)} rows to {out}", markup=False, soft_wrap=True)


def main() -> None:
    """Entry point: errors become one clear message and a documented exit code."""
    sys.path.append("")  # studies of your own, in the folder you are in; last, so that they shadow nothing
    try:
        app()
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except Exception as error:
        code = _codes().get(type(error).__name__)
        if code is None:
            raise
        _fail(str(error), code)


def _codes() -> dict[str, int]:
    """Exit codes of our own errors by name: importing their modules would make `--help` wait for pydantic and torch."""
    return {"Refused": REFUSED, "Damaged": REFUSED, "DiskFull": REFUSED, "Diverged": DIVERGED}


def _fail(message: str, code: int) -> None:
    from rich.console import Console

    Console(stderr=True).print(f"[bold red]simulacra:[/] {_escaped(message)}", highlight=False, soft_wrap=True)
    sys.exit(code)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def _seconds(minutes: float | None) -> float:
    return float("inf") if minutes is None else 60 * minutes


def _free(path: Path) -> Path:
    """`path`, or `path`-2, -3, ... where it is taken."""
    candidates = [path, *(path.with_name(f"{path.name}-{i}") for i in range(2, 10_000))]
    return next(p for p in candidates if not p.exists())


def _recipe_table(asked: Study[Any, Any]) -> Any:
    from rich.table import Table

    table = Table("flag", "meaning", "range", *asked.recipes, box=None, header_style="bold", pad_edge=False)
    kind = type(next(iter(asked.recipes.values())))
    for name, field in kind.model_fields.items():
        values = [flags.shown(getattr(recipe, name)) for recipe in asked.recipes.values()]
        table.add_row(f"--{name.replace('_', '-')}", field.description or "", flags.allowed(field), *values)
    return table


def _describe(what: str) -> None:
    """What can be asked of a run, of shipped weights, or of a study."""
    from simulacra import drawing, study

    if Path(what).is_dir():
        source = drawing.opened(what)
        _show_drawing(_console(), source.name, source.asked)
    else:
        _show_drawing(_console(), what, study.find(what))


def _show_drawing(console: Console, name: str, asked: Study[Any, Any]) -> None:
    """Conditions, fields of drawing, formats and shipped weights of a study."""
    from rich.table import Table

    from simulacra import weights

    kind = type(next(iter(asked.recipes.values())))
    table = Table("when drawing", "meaning", box=None, header_style="bold", pad_edge=False)
    for condition, meaning in (asked.conditions or {}).items():
        table.add_row(flags.as_flags([condition]), _escaped(meaning))
    for field in kind.of_drawing():
        if field != "draws":
            table.add_row(flags.as_flags([field]), _escaped(kind.model_fields[field].description or ""))
    console.print(table)
    if asked.export:
        console.print(f"writes {', '.join(asked.formats)}, besides .npz, .png, .gif, .mp4")
    if name in weights.names():
        console.print(weights.find(name).sentence(), markup=False)
        console.print(f"Draw from them: simulacra draw {name} -n 100 -o samples{(*asked.formats, '.npz')[0]}")


@contextlib.contextmanager
def _progress(
    steps: int, quiet: bool, doing: str = "training", unit: str = "steps"
) -> Iterator[tuple[Callable[..., None], Callable[[str], None]]]:
    """A progress bar on a terminal, a plain line every ten seconds elsewhere, nothing where quiet."""
    console = _console()
    if quiet:
        yield lambda *_: None, lambda _: None
    elif not console.is_terminal:
        yield _plain_watch(steps, unit), lambda line: print(line, flush=True)
    else:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(doing, total=steps, note="")

            def watch(step: int, losses: Mapping[str, float], rate: float) -> None:
                bar.update(task, completed=step, note=f"{rate:.1f} {unit}/s  {_losses(losses)}")

            yield watch, lambda line: bar.console.print(line, markup=False)


@contextlib.contextmanager
def _watched(count: int, quiet: bool, unit: str) -> Iterator[Callable[..., None]]:
    with _progress(count, quiet, "drawing", unit) as (watch, _):
        yield watch


def _plain_watch(steps: int, unit: str) -> Callable[[int, Mapping[str, float], float], None]:
    import time

    last = 0.0

    def watch(step: int, losses: Mapping[str, float], rate: float) -> None:
        nonlocal last
        if time.monotonic() - last > 10 or step == steps:
            last = time.monotonic()
            left = (steps - step) / rate
            print(f"{unit.removesuffix('s')} {step}/{steps}  {rate:.1f} {unit}/s  {left:.0f} s left  {_losses(losses)}", flush=True)

    return watch


def _losses(losses: Mapping[str, float]) -> str:
    return "  ".join(f"{k} {v:.4g}" for k, v in losses.items() if k != "step")


def _conclude(done: Any, outcome: Any) -> None:
    console = _console()
    if not outcome.finished:
        console.print(f"stopped at step {outcome.step} ({outcome.reason}); saved. Go on with: simulacra resume {done.path}", soft_wrap=True)
        raise typer.Exit(STOPPED)
    _verdict(done.evidence())
    console.print(f"report: {done.path / 'report.html'}", soft_wrap=True)


def _verdict(evidence: Any) -> None:
    from simulacra import verdict

    console = _console()
    console.print(verdict.table(evidence))
    if evidence.checks:
        console.print(verdict.checks_table(evidence))
    for remark in evidence.remarks:
        console.print(f"note: {remark}", markup=False)
    console.print(verdict.sentence(evidence), markup=False)
