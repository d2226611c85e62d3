"""Evidence, history and pictures of one run as one self-contained HTML page, and as one picture for a talk.

The page loads nothing: style, curves and pictures are inside it, and its own content security policy forbids the rest. It holds no
script, unless its samples have models in three dimensions: then it holds the viewer, allowed by its sha256. It reads on paper, on a
telephone, by day and by night. Equal pages give equal bytes: no clock is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulacra.evidence import Figure
from simulacra.runs import write_atomically

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from simulacra.evidence import Evidence

    Images = NDArray[np.floating[Any]]

__all__ = ["Figure", "Page", "render", "summary_figure", "write"]


@dataclasses.dataclass(frozen=True)
class Page:
    """All that a report says. Whatever is left empty is left out of the page, or said to be missing."""

    title: str
    study: str  # its name, e.g. "ising.gan"
    source: str  # the paper, with its identifier
    evidence: Evidence
    recipe_name: str = ""
    recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    recipe_about: Mapping[str, str] = dataclasses.field(default_factory=dict)  # what each field of the recipe means
    history: Sequence[Mapping[str, float]] = ()  # rows of "step" and scalars
    nature_pictures: Images | None = None  # (n, height, width, 3) in [0, 1]; row i of each stands under the same condition
    drawn_pictures: Images | None = None
    rival_pictures: Images | None = None
    rival_name: str = ""
    nature_models: Sequence[str] = ()  # the first rows as SDF or XYZ records, to be turned in the page in place of their pictures
    drawn_models: Sequence[str] = ()
    captions: Sequence[str] = ()  # row i in words, e.g. its condition, "T = 2.27"; empty or one per row
    drawn_captions: Sequence[str] = ()  # the same of the drawn rows; empty: as those of nature
    figures: Sequence[Figure] = ()
    origin: str = ""  # of the data, one line
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)  # name -> sha256
    rejected: Sequence[str] = ()  # one line per record set aside
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float | None = None  # wall time of the run
    command: str = ""  # that makes this run again
    citation: str = ""  # BibTeX

    def __post_init__(self) -> None:
        for side in ("nature_pictures", "drawn_pictures", "rival_pictures"):
            images = getattr(self, side)
            if images is not None and (images.ndim != 4 or images.shape[3] != 3):
                raise ValueError(f"{side} must have shape (n, height, width, 3), got {images.shape}")
        for captions in (self.captions, self.drawn_captions):
            if captions and len(captions) < self.pictured:
                raise ValueError(f"{len(captions)} captions for {self.pictured} pictures; give one per picture or none")

    @property
    def pictured(self) -> int:
        """How many pictures can be shown on every side; none unless nature and drawn both have some."""
        if self.nature_pictures is None or self.drawn_pictures is None:
            return 0
        sides = (self.nature_pictures, self.drawn_pictures, self.rival_pictures)
        return min(len(side) for side in sides if side is not None)


def render(page: Page) -> str:
    """The page as HTML text."""
    from simulacra.report.page import page_as_html

    return page_as_html(page)


def write(page: Page, path: Path) -> None:
    """Write the page to `path` in one move: a reader sees the old file or the new one, never half of either."""
    write_atomically(path, render(page).encode())


def summary_figure(page: Page) -> bytes:
    """One PNG of 1600 x 900: held-out and drawn pictures, the worst findings as curves, all gaps."""
    from simulacra.report.summary import summary_as_png

    return summary_as_png(page)
