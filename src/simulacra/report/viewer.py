"""Samples as models in three dimensions, to be turned with the mouse, inside a page that loads nothing.

3Dmol.js (Rego and Koes 2015, Bioinformatics 31:1322; BSD-3-Clause, its licence lies beside it and in every page that holds it) is
put into the page as gzip in base64, 209 kB instead of 538, and inflated by the browser. The page's policy allows the two scripts by
their sha256 and nothing else. Where a browser cannot show models, the pictures stay.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import gzip
import hashlib
from collections.abc import Sequence
from importlib.resources import files

LIBRARY, LICENCE, VERSION = "third_party/3Dmol-min.js", "third_party/3Dmol-LICENSE.txt", "2.5.5"
MOST_MODELS = 6  # per side
COLUMNS = 3


@dataclasses.dataclass(frozen=True)
class Model:
    """One sample for the viewer."""

    text: str
    format: str  # "sdf" or "xyz"


@dataclasses.dataclass(frozen=True)
class Viewer:
    """What a page with models holds once."""

    library: str  # gzip, base64
    script: str  # ours, which inflates it and fills the stages
    policy: str  # sources of scripts for the content security policy
    licence: str
    version: str = VERSION


def models(texts: Sequence[str]) -> list[Model]:
    """At most MOST_MODELS records, each with its format: an SDF record has an end or a counts line that says its version."""
    return [Model(text, "sdf" if "M  END" in text or "V2000" in text or "V3000" in text else "xyz") for text in texts[:MOST_MODELS]]


@functools.cache
def viewer() -> Viewer:
    """The viewer, read from the package."""
    library, script = _read(LIBRARY), _read("viewer.js")
    packed = base64.b64encode(gzip.compress(library.encode(), 9, mtime=0)).decode()
    return Viewer(packed, script, f"{_digest(script)} {_digest(library)}", _read(LICENCE))


def _read(name: str) -> str:
    return files("simulacra.report").joinpath(name).read_bytes().decode()  # as it is: a changed line end would change the digest


def _digest(script: str) -> str:
    """A script by its sha256, as a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
