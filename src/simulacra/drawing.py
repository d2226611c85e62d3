"""What a trained run is good for: samples, pictures, movies and scores, as files; and weights for others to draw from."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from simulacra import study, travels, weights
from simulacra.families.autoencoder import latent_path
from simulacra.movie import captioned, resting, write_movie
from simulacra.pipeline import BLOCK, TOLD, Say, Watch, as_grid, draw_like, filmed, recipe_of, restored, trace_like
from simulacra.runs import Damaged, Run
from simulacra.study import Asks, Encodes, Imagines, Learner, Recipe, Refused, Samples, Scores, Ships, Study, Traces
from simulacra.training import device_of

PICTURES, MOVIES = (".png",), (".gif", ".mp4")
MOST_ROWS = 36  # in a movie; more could not be told apart
FURTHEST = 1000  # number of a random position
PATH_FRAMES, TRACE_FRAMES = 24, 100

Progress = Callable[[int], AbstractContextManager[Watch]]  # how many frames there will be -> who is told how many there are


@dataclasses.dataclass(frozen=True)
class Movie:
    """What a movie is to show.

    `trace`       rows under the conditions from noise to sample, in `frames` frames
    `path`        a closed way, `frames` from one to the next: through the encodings of the rows `through` of the file `images`
                  (default: held-out) where the learner encodes, else, for each row, through its random positions `through`
    `morph`       the same positions under the first of the asked conditions, the next, ..., and the first again
    `truncation`  the same positions scaled from 1 to 0 and back
    """

    choice: str = ""  # one of these; empty: the first that the learner gives
    rows: int = 4  # side by side
    conditions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seed: int = 0
    images: Path | None = None
    through: Sequence[int] = (0, 1, 2, 3)
    frames: int | None = None
    truncation: float = 1.0


@dataclasses.dataclass(frozen=True)
class Source:
    """What can be drawn from: a finished run, or weights that were shipped. The recipe's fields of drawing may be changed."""

    name: str  # of the study
    asked: Study[Any, Any]
    recipe: Recipe
    place: Run | weights.Shipped
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def sentence(self) -> str:
        """What is drawn from, in one line."""
        return f"run {self.place.path}" if isinstance(self.place, Run) else self.place.sentence()

    def told(self) -> str:
        """What is drawn from, and what differs from its recipe."""
        changes = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in self.changes.items())
        return f"{self.sentence()}; with {changes}" if changes else self.sentence()

    def changed(self, changes: Mapping[str, Any]) -> Source:
        """The same, drawn from with other values of the recipe's fields of drawing."""
        return dataclasses.replace(self, recipe=self.recipe.model_copy(update=dict(changes)), changes=dict(changes))

    def learner(self) -> Learner[Any]:
        """The trained learner. Damaged where its state was altered on disk."""
        if isinstance(self.place, Run):
            return restored(self.place, self.changes)[2]
        if self.recipe.threads:
            torch.set_num_threads(self.recipe.threads)
        learner: Learner[Any] = _restore(self.asked, self.name)(self.recipe, self.place.state())
        return learner


def opened(what: str) -> Source:
    """The run folder, the folder of shipped weights, or the study with shipped weights that `what` names."""
    path = Path(what)
    if (path / weights.CARD).is_file():
        return _shipped(weights.read(path))
    if path.is_dir():
        run = Run.open(path)
        asked, recipe = recipe_of(run)
        return Source(run.about()["study"], asked, recipe, run)
    if "/" in what or "\\" in what or path.exists():
        raise Refused(f"{what} is neither a run folder nor the name of a study")
    study.find(what)
    return _shipped(weights.find(what))


def _shipped(place: weights.Shipped) -> Source:
    asked = study.find_recorded(place.study)
    kind = type(next(iter(asked.recipes.values())))
    try:
        recipe = kind.model_validate(place.card["recipe"])
    except ValueError as error:
        raise Damaged(f"{place.path / weights.CARD} does not hold a recipe that this version of simulacra takes: {error}") from error
    # Threads and device were those of the machine that trained.
    return Source(place.study, asked, recipe.model_copy(update={"threads": 0, "device": "auto"}), place)


def _restore(asked: Study[Any, Any], name: str) -> Any:
    if asked.restore is None:
        raise Refused(f"{name} cannot make a learner from weights alone (its study has no `restore`); draw from a run folder")
    return asked.restore


def draw(
    source: Source, out: Path, *, n: int, conditions: Mapping[str, str], seed: int, against: Path | None = None, truncation: float = 1.0,
    watch: Watch | None = None,
) -> list[str]:  # fmt: skip
    """Write `n` samples under `conditions` to `out`, in the format of its ending, compared there with the samples of the file
    `against` where the study's format does so. A `truncation` below 1 scales the random positions that they are drawn from: samples
    are more typical, and differ less. Returns what was achieved, in lines of the study.

    Raises Refused for an ending that cannot be written and for conditions that the study does not know or cannot meet.
    """
    _check_file(source.asked, out, against)
    learner = _truncated(source, source.learner(), truncation)
    like = template(source, learner, n, conditions)
    drawn = draw_like(learner, like, seed=seed, device=device_of(source.recipe.device), watch=watch)
    ending = out.suffix.lower()
    if ending in PICTURES:
        write_png(as_grid(source.asked.picture(drawn)), out)
    elif ending in source.asked.formats and source.asked.export:
        source.asked.export(drawn, out, against)
    else:
        source.asked.write(drawn, out)
    return list(source.asked.summary(like, drawn)) if source.asked.summary else []


def denoise(
    source: Source, path: Path, out: Path, *, rate: float | None = None, start: int | None = None, seed: int = 0,
    say: Say = lambda line: None, progress: Progress | None = None,
) -> list[str]:  # fmt: skip
    """Write to `out`, in the format of its ending, what the learner recovers from the measurements in the file `path`, sampled at `rate`
    MHz where the file does not say, of longer ones the steps from `start` on. `say` is told what was set aside, and what must be known
    of the others. Returns what was found, in lines.

    Raises Refused where the study does not denoise, for an ending that cannot be written, and where no measurement can be used.
    """
    if source.asked.denoises is None:
        able = [name for name in study.names() if study.find(name).denoises]
        raise Refused(f"{source.name} denoises nothing; {', '.join(able)} does")
    check_folder(out)
    if out.suffix.lower() not in (".npz", *source.asked.formats):
        raise Refused(f"cannot write {out.suffix or 'a file without ending'}: choose {', '.join(('.npz', *source.asked.formats))}")
    if out.exists() and path.exists() and out.samefile(path):
        raise Refused(f"{out} is the file of the measurements; what is recovered goes into another one")
    records = source.asked.denoises(path, source.recipe, rate, start)
    for line in [*told(records.rejected), *records.remarks]:
        say(line)
    like = records.usable
    with progress(len(like)) if progress else contextlib.nullcontext() as watch:
        drawn = draw_like(source.learner(), like, seed=seed, device=device_of(source.recipe.device), watch=watch)
    return list(records.write(drawn, out))


def told(rejected: Sequence[str]) -> list[str]:
    """The first few of the records that were set aside, in words, and how many more there are."""
    more = [f"and {len(rejected) - TOLD} more"] if len(rejected) > TOLD else []
    return [*(f"set aside: {line}" for line in rejected[:TOLD]), *more]


def _truncated(source: Source, learner: Learner[Any], psi: float) -> Any:
    if psi == 1:
        return learner
    _check_truncation(source, learner, psi)
    return travels.Truncated(learner, psi)  # type: ignore[arg-type]  # checked to imagine


def _check_truncation(source: Source, learner: Learner[Any], psi: float) -> None:
    if not 0 < psi <= 1:
        raise Refused(f"truncation {psi:g} is not above 0 and at most 1; 1 draws as trained, 0.7 more typical samples")
    if psi < 1 and not isinstance(learner, Imagines):
        raise Refused(f"{source.name} does not draw from positions that could be scaled; leave --truncation out")


def template(source: Source, learner: Any, n: int, conditions: Mapping[str, str]) -> Any:
    """`n` rows under `conditions` for `learner` to complete."""
    return learner.ask(n, conditions) if isinstance(learner, Asks) else source.asked.ask(source.recipe, n, conditions)


def _check_file(asked: Study[Any, Any], out: Path, against: Path | None) -> None:
    """Refused, before anything is drawn, where the outcome could not be written or the known ones not be read."""
    own = tuple(asked.formats) if asked.export else ()
    ending = out.suffix.lower()
    more = f", {', '.join(own)} (formats of the field)" if own else ""
    if ending not in (".npz", *PICTURES, *own):
        raise Refused(f"cannot write {ending or 'a file without ending'}: choose .npz (samples), .png (grid), .gif or .mp4 (movie){more}")
    check_folder(out)
    if against and ending not in own:
        raise Refused(f"--against needs a format that has room for the outcome; {ending} has none{more.replace(', ', '; these have: ', 1)}")
    if against and not against.is_file():
        raise Refused(f"{against} is not a file of known samples to compare with")


def check_folder(out: Path) -> None:
    """Refused where the folder that a file is to be written into does not exist."""
    if not out.parent.is_dir():
        raise Refused(f"there is no folder {out.parent} to write {out.name} into")


POWERS = (("path", Encodes), ("trace", Traces), ("path", Imagines), ("morph", Imagines), ("truncation", Imagines))


def movie_of(source: Source, learner: Learner[Any], choice: str) -> str:
    """Which movie a learner gives, of those that `Movie` tells. An empty choice takes the first."""
    offers = list(dict.fromkeys(name for name, power in POWERS if isinstance(learner, power)))
    if not offers:
        raise Refused(f"{source.name} has no latent space to travel through and shows no trace of its draws; write .npz or .png instead")
    if choice and choice not in offers:
        raise Refused(f"{source.name} gives no movie called {choice!r}; it gives {' and '.join(offers)}")
    return choice or offers[0]


def draw_movie(source: Source, out: Path, wish: Movie, progress: Progress | None = None) -> list[str]:
    """Write the movie that is wished for as .gif or .mp4. Returns what was achieved, in lines of the study."""
    check_folder(out)
    if wish.rows > MOST_ROWS:
        raise Refused(f"a movie shows at most {MOST_ROWS} samples side by side, {wish.rows} were asked for; take fewer with -n")
    learner: Any = source.learner()
    choice = movie_of(source, learner, wish.choice)
    encoded = choice == "path" and isinstance(learner, Encodes)
    if encoded or choice == "trace":
        if wish.truncation != 1:
            raise Refused(f"a {choice} of {source.name} does not start from positions that could be scaled; leave --truncation out")
        return _path(source, learner, out, wish) if encoded else _trace(source, learner, out, wish)
    return _travel(source, learner, out, choice, wish, progress)


def _trace(source: Source, learner: Any, out: Path, wish: Movie) -> list[str]:
    like = template(source, learner, wish.rows, wish.conditions)
    traced = trace_like(learner, like, seed=wish.seed, frames=wish.frames or TRACE_FRAMES, device=device_of(source.recipe.device))
    write_movie(resting(filmed(source.asked, traced)), out)
    return list(source.asked.summary(like, traced[-1])) if source.asked.summary else []


def _path(source: Source, learner: Any, out: Path, wish: Movie) -> list[str]:
    samples, through = _read(source, wish.images) if wish.images else _held_out(source), list(wish.through)
    if len(through) < 2 or not all(0 <= r < len(samples) for r in through):
        raise Refused(f"a latent path needs at least two rows between 0 and {len(samples) - 1}, got {through}")
    path = latent_path(learner.encode(samples[through]), (wish.frames or PATH_FRAMES) * len(through))
    write_movie(source.asked.picture(learner.decode(path)), out)
    return []


def _travel(source: Source, learner: Any, out: Path, choice: str, wish: Movie, progress: Progress | None) -> list[str]:
    _check_truncation(source, learner, wish.truncation)
    count, moments = _moments(source, learner, choice, wish)
    with progress(count) if progress else contextlib.nullcontext() as watch:
        words, seen = zip(*travels.imagined(learner, moments, device_of(source.recipe.device), BLOCK, watch), strict=True)
    frames = filmed(source.asked, seen)
    write_movie(captioned(frames, words) if any(words) else frames, out)
    return []


def _moments(source: Source, learner: Any, choice: str, wish: Movie) -> tuple[int, Iterator[travels.Moment]]:
    """How many frames a travel has, and what each shows."""
    through, frames = list(wish.through), wish.frames or PATH_FRAMES
    if wish.images:
        raise Refused(f"{source.name} cannot say where a sample lies in its latent space; without --images its path is through random ones")
    if choice != "path":
        through = [0]
    elif len(through) < 2 or not all(0 <= number <= FURTHEST for number in through):
        raise Refused(f"a path needs at least two numbers of random positions between 0 and {FURTHEST}, got {through}")
    stops = [wish.truncation * stop for stop in travels.positions(learner.latent, wish.seed, wish.rows, through)]
    if choice == "morph":
        between = _stops(source, learner, wish.conditions)
        names = source.asked.caption(between) if source.asked.caption else [""] * len(between)
        return len(between) * frames, travels.morphing(stops[0], between, names, frames)
    like = template(source, learner, wish.rows, wish.conditions)
    if choice == "path":
        return len(stops) * frames, travels.along_path(stops, like, frames)
    return 2 * frames, travels.truncating(stops[0], like, frames)


def _stops(source: Source, learner: Any, conditions: Mapping[str, str]) -> Any:
    """One row for each of the asked conditions, of which at least two must differ."""
    count = max((len(asked.split(",")) for asked in conditions.values()), default=1)
    between = template(source, learner, count, conditions)
    if all(bool((field == field[:1]).all()) for field in between.fields().values()):
        known = ", ".join(f"--{name}" for name in source.asked.conditions or conditions)
        hint = f"ask for two or more, separated by commas ({known})" if known else "this study takes none"
        raise Refused(f"a morph goes from one condition to another: {hint}")
    return between


def _held_out(source: Source) -> Samples:
    if not isinstance(source.place, Run):
        raise Refused("shipped weights carry no samples to travel through: name some with --images FILE")
    held_out: Samples = source.asked.load(source.recipe).held_out
    return held_out


def scores(source: Source, samples: Path) -> str:
    """CSV text: one row per sample of the file `samples`, scored by the trained learner."""
    learner = source.learner()
    if not isinstance(learner, Scores):
        raise Refused(f"{type(learner).__name__} gives no score per sample; studies that do say so in `simulacra show`")
    values = learner.score(_read(source, samples).to(device_of(source.recipe.device)))
    return "row,score\n" + "".join(f"{i},{v:.6g}\n" for i, v in enumerate(values.tolist()))


def _read(source: Source, path: Path) -> Any:
    return source.asked.read_as(path, source.recipe) if source.asked.read_as else source.asked.read(path)


def ship(run: Run, out: Path | None) -> weights.Shipped:
    """Write the weights of a finished, judged run, as far as drawing needs them, with their card into the folder `out` (default: the
    package's own place for the study). They are tried before they are written: what cannot be drawn from is not shipped."""
    asked, recipe = recipe_of(run)
    name = run.about()["study"]
    restore = _restore(asked, name)
    learner = restored(run)[2]
    state = learner.to_ship() if isinstance(learner, Ships) else learner.state_dict()
    again = restore(recipe, state)
    like = template(Source(name, asked, recipe, run), again, 1, {})
    draw_like(again, like, seed=0, device=device_of(recipe.device))
    return weights.write(out or weights.PLACE / name, run, state)


def write_png(picture: np.ndarray, out: Path, scale: int = 0) -> None:
    """One image (h, w, 3) in [0, 1], enlarged by whole pixels so that small lattices can be seen."""
    from PIL import Image

    scale = scale or max(1, round(900 / max(picture.shape[:2])))
    sheet = Image.fromarray((picture.clip(0, 1) * 255).round().astype(np.uint8))
    sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST).save(out)
