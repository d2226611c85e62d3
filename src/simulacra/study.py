"""The nouns that everything else is made of: Recipe, Samples, Split, Learner, Study.

A study is a claim about nature that can be tried: how to load what was measured, how to build something
that imitates it, and how to judge the imitation. It lives in one file, `sciences/<science>/<system>.py`,
as the module attribute `study`; its name is its path, `science.system`.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, Self, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from simulacra.evidence import Check, Evidence, Figure, Finding


class Refused(ValueError):
    """Input that cannot be used, said in the words of the science: what came, what was expected, what to do."""


class Recipe(BaseModel):
    """Everything that decides how a run goes. Two runs with equal recipes on one platform give equal results."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0, lt=2**31, description="Root of all random numbers: data order, noise, initial weights.")
    steps: PositiveInt = Field(1000, description="Moves forward of the learner; one batch each.")
    batch: PositiveInt = Field(64, description="Samples per step.")
    draws: PositiveInt = Field(
        1000, description="Samples drawn at the end for the verdict, at most one per held-out row.", json_schema_extra={"drawing": True}
    )
    data: Path | None = Field(None, description="Your own data (see `simulacra show` for formats); without it, simulated.")
    threads: int = Field(
        0, ge=0, le=1024, description="CPU threads; 0: as many as torch takes. Small networks gain nothing from more.",
        json_schema_extra={"drawing": True},
    )  # fmt: skip
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where to compute; auto takes a GPU if there is one.", json_schema_extra={"drawing": True}
    )

    @classmethod
    def of_drawing(cls) -> list[str]:
        """Fields that may be changed when a trained run is drawn from: those declared with json_schema_extra={"drawing": True}."""
        extra = {name: field.json_schema_extra for name, field in cls.model_fields.items()}
        return [name for name, more in extra.items() if isinstance(more, dict) and more.get("drawing")]


@dataclasses.dataclass(frozen=True)
class Samples:
    """Tensors that share axis 0: row i of every field describes the same thing of nature.

    Subclasses add fields and check their values in `check`, in the words of their science.
    """

    def __post_init__(self) -> None:
        lengths = {name: len(value) for name, value in self.fields().items()}
        if len(set(lengths.values())) > 1:
            raise Refused(f"{type(self).__name__}: fields differ in length: {lengths}; every field needs one row per sample")
        self.check()

    def check(self) -> None:
        """Raise Refused where a field cannot describe the thing of nature that it names."""

    def fields(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def __len__(self) -> int:
        return len(next(iter(self.fields().values())))

    def __getitem__(self, rows: Any) -> Self:
        """The samples at `rows` (slice, index tensor, mask or list of indices)."""
        return self._of({name: value[rows] for name, value in self.fields().items()})

    def to(self, device: Any) -> Self:
        return self._of({name: value.to(device) for name, value in self.fields().items()})

    def _of(self, fields: Mapping[str, Tensor]) -> Self:
        """Rows of samples that were checked when they came in: checking each batch again would read all of it."""
        new = object.__new__(type(self))
        for name, value in fields.items():
            object.__setattr__(new, name, value)
        return new

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        import torch

        return cls(**{name: torch.cat([p.fields()[name] for p in parts]) for name in parts[0].fields()})


S = TypeVar("S", bound=Samples)
R = TypeVar("R", bound=Recipe)


@dataclasses.dataclass(frozen=True)
class Split(Generic[S]):
    """Nature in three parts that share no sample, and where it came from."""

    train: S
    validation: S
    held_out: S
    origin: str  # one line for people: what it is, how many, where from
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)  # path or generator call -> sha256
    rejected: Sequence[str] = ()  # one line per record that could not be used, with the reason


class Noise:
    """Random numbers that belong to rows: row i gets the same numbers in whatever batch or worker it is drawn.

    Each call to `normal` or `uniform` opens a new stream, so calls must come in a fixed order. Row i of stream s is
    the counter-based generator Philox with key (seed, s), started at i (Salmon et al. 2011).
    """

    def __init__(self, seed: int, rows: range | Sequence[int]) -> None:
        self.seed, self.rows, self._stream = seed, rows, 0

    def _row_generators(self) -> Iterator[np.random.Generator]:
        import numpy as np

        for row in self.rows:
            yield np.random.Generator(np.random.Philox(key=[self.seed, self._stream], counter=[0, 0, 0, row]))
        self._stream += 1

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, shape (rows, *shape), float32 on the CPU."""
        import numpy as np
        import torch

        return torch.from_numpy(np.stack([g.standard_normal(shape, np.float32) for g in self._row_generators()]))

    def uniform(self, *shape: int) -> Tensor:
        """Numbers uniform on [0, 1), shape (rows, *shape), float32 on the CPU."""
        import numpy as np
        import torch

        return torch.from_numpy(np.stack([g.random(shape, np.float32) for g in self._row_generators()]))


class Learner(Protocol[S]):
    """Whatever learns is a state and a step. The loop seeds torch's random numbers from (seed, step) before each step."""

    def step(self, batch: S) -> Mapping[str, Any]:
        """One move forward; returns what to watch, as numbers or 0-d tensors (losses, gradient norms)."""
        ...

    def draw(self, like: S, noise: Noise) -> S:
        """Complete a copy of nature: one row per row of `like`, under its conditions; rows do not influence each other."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """The whole state, optimisers included, as a flat mapping of names to tensors."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


@runtime_checkable
class Encodes(Protocol):
    """A learner with a latent space: the command line offers latent paths and reconstructions."""

    def encode(self, samples: Any) -> Tensor:
        """Latent position of each row, shape (n, d)."""
        ...

    def decode(self, latent: Tensor) -> Any:
        """Samples at latent positions of shape (n, d)."""
        ...


@runtime_checkable
class Imagines(Protocol):
    """A generator whose draws are a smooth map of standard normal numbers and a condition: the command line offers paths between
    draws, morphs from one condition to another, and truncation."""

    latent: int  # numbers in a position

    def imagine(self, position: Tensor, like: Any, towards: Any = None, share: Tensor | None = None) -> Any:
        """Samples at positions (n, latent) under the conditions of `like`, or `share` (n,) of the way from them, 0, to those of the
        samples `towards`, 1. At standard normal positions, without `towards`, these are draws."""
        ...


@runtime_checkable
class Scores(Protocol):
    """A learner that gives one number per row: novelty, log-likelihood, effect of a mutation."""

    def score(self, samples: Any) -> Tensor:
        """Shape (n,); the learner's docstring says what a high number means."""
        ...


@runtime_checkable
class Traces(Protocol):
    """A learner that can show how a draw comes about: the command line makes a movie of it, and the report shows one."""

    def trace(self, like: Any, noise: Noise, frames: int) -> Sequence[Any]:
        """`frames` samples with one row per row of `like`: the first is noise, the last is what `draw` gives."""
        ...


@runtime_checkable
class Asks(Protocol):
    """A learner that knows more of what can be asked for than its recipe says: sizes and ranges seen in training, say."""

    def ask(self, n: int, conditions: Mapping[str, str]) -> Any:
        """What `Study.ask` gives, for this learner: when drawing, it is asked instead, so that no data need be loaded."""
        ...


@runtime_checkable
class Blocks(Protocol):
    """A learner whose rows may be large or many: it says how many are drawn together, which is else a fixed number."""

    def at_once(self, like: Any) -> int:
        """Rows of one block of a draw for `like`: the same however many rows `like` has, unless a row comes out alike in any block."""
        ...


@runtime_checkable
class Ships(Protocol):
    """A learner that needs less to draw than to go on learning: optimiser states and critics need not travel."""

    def to_ship(self) -> dict[str, Tensor]:
        """The part of the state from which `Study.restore` makes a learner that draws."""
        ...


class Records(Protocol[S]):
    """Measurements of the user's own file, to be cleaned by `draw`."""

    @property
    def usable(self) -> S:
        """Those that can be used, as a template for `draw`."""
        ...

    @property
    def rejected(self) -> Sequence[str]:
        """One line for each that is set aside, with the reason."""
        ...

    @property
    def remarks(self) -> Sequence[str]:
        """What must be known of those that are used."""
        ...

    def write(self, drawn: S, path: Path) -> Sequence[str]:
        """What was drawn as a file with a row for each record of the input; returns in words what was found."""
        ...


@dataclasses.dataclass(frozen=True)
class Study(Generic[R, S]):
    """One system that can be run: data, learner, judge and recipes."""

    title: str
    source: str  # the paper, with its identifier
    recipes: Mapping[str, R]  # quick · laptop · paper
    expect: Mapping[str, str]  # recipe name -> measured time and machine
    load: Callable[[R], Split[S]]
    build: Callable[[R, S], Learner[S]]  # from the recipe and the training samples
    judge: Callable[..., Evidence]  # judge(nature, drawn, *, seed, training=None); sees samples, never a model
    read: Callable[[Path], S]  # samples that another program wrote
    write: Callable[[S, Path], None]  # samples as a file that another program reads
    ask: Callable[[R, int, Mapping[str, str]], S]  # n rows under asked conditions, as a template for `draw`
    picture: Callable[[S], np.ndarray]  # rows as images (n, height, width, 3) in [0, 1]
    read_as: Callable[[Path, R], S] | None = None  # the same, brought into the form that a recipe trains on (size, bands)
    film: Callable[[Sequence[S]], Iterable[np.ndarray]] | None = None  # `picture` of each moment of a draw, all from one point of view
    caption: Callable[[S], Sequence[str]] | None = None  # each row in words: its condition, "T = 2.27", or what it is
    examine: Callable[[Any, Split[S], int], tuple[list[Finding], list[Check]]] | None = None  # what a learner's powers are worth
    figures: Callable[[Any, Split[S], int], list[Figure]] | None = None  # further pictures for the report
    restore: Callable[[R, Mapping[str, Tensor]], Learner[S]] | None = None  # a learner that draws, from its state or `to_ship` alone
    conditions: Mapping[str, str] | None = None  # what `ask` takes: name -> what it means; None: `ask` alone knows
    formats: Sequence[str] = ()  # endings that `export` writes, e.g. ".sdf"
    export: Callable[[S, Path, Path | None], None] | None = None  # samples, file to write, file of known ones to compare them with
    line_formats: Sequence[str] = ()  # of `formats`, those of which a file may be written row by row, however long it gets
    header: Callable[[str], str] | None = None  # first line of such a file, from its ending
    lines: Callable[[S, str], str] | None = None  # samples as further lines, from the ending: a line for each
    tally: Callable[[S], Mapping[str, int]] | None = None  # what is counted of them, e.g. the valid ones, to be added up over the file
    summary: Callable[[S, S], Sequence[str]] | None = None  # template that was asked for, what was drawn -> lines: what was achieved
    denoises: Callable[..., Records[S]] | None = None  # denoises(path, recipe, rate=None, start=None): records for `simulacra denoise`
    models: Callable[[S], Sequence[str]] | None = None  # rows as text of one SDF or XYZ record each, for the viewer in the report
    citation: str = ""  # BibTeX of the paper


def names() -> list[str]:
    """All studies in the package, as `science.system`, in alphabetical order, without importing any of them."""
    return sorted(f"{path.parent.name}.{path.stem}" for path in _sciences().glob("*/*.py") if _declares_study(path))


def headline(name: str) -> str:
    """First line of the study's module docstring, read without importing it."""
    science, system = name.split(".")
    tree = ast.parse((_sciences() / science / f"{system}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").split("\n")[0]


def find(name: str) -> Study[Any, Any]:
    """The study called `name`: `science.system` of this package, or `package.module` of yours with an attribute `study`.

    Raises Refused with the list of known names.
    """
    known = names()
    target = f"simulacra.sciences.{name}" if name in known else name
    if target == name and ("." not in name or not _importable(name)):
        raise Refused(f"no study is called {name!r}; known: {', '.join(known)} (or the dotted path of your own module)")
    study = getattr(importlib.import_module(target), "study", None)
    if not isinstance(study, Study):
        raise Refused(f"module {target} has no attribute `study` of type simulacra.study.Study")
    _trusted.add(name)
    return study


def find_recorded(name: str) -> Study[Any, Any]:
    """The study that a file names. A file must not choose what code runs: Refused unless the study is of this package, or was
    found by name in this process before (`simulacra --trust NAME` on the command line)."""
    if name not in names() and name not in _trusted:
        raise Refused(f"this run is of the study {name!r}, which is not part of simulacra; if you trust it, say so: --trust {name}")
    return find(name)


def trust(name: str) -> None:
    """Let files name the user's module `name`: a study, or a module with a function that a recipe names. Refused where there is none."""
    if name not in names() and not _importable(name):
        raise Refused(f"no module is called {name!r}; name one that Python finds (PYTHONPATH), as package.module")
    _trusted.add(name)


def trusted(name: str) -> bool:
    """Whether the user trusted the module `name` in this process: what a file names is run only then."""
    return name in _trusted


_trusted: set[str] = set()


def _sciences() -> Path:
    return Path(__file__).parent / "sciences"


def _declares_study(path: Path) -> bool:
    return any(line.startswith(("study = ", "study: ")) for line in path.read_text(encoding="utf-8").splitlines())


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):  # the second for what is no name of a module
        return False
