"""A run on disk: everything needed to know what was done, to go on, and to check that nothing was altered.

    recipe.json  environment.json  data.lock  history.jsonl  checkpoints/00001200/{state.safetensors, manifest.json}
    drawn/  evidence.json  report.html  ro-crate-metadata.json

A file appears whole or not at all: it is written under another name, flushed to disk, renamed, and the folder is flushed.
Weights are safetensors with a sha256 in the manifest; nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulacra import __version__
from simulacra.evidence import Evidence, Figure
from simulacra.study import Recipe, Refused

if TYPE_CHECKING:
    from torch import Tensor

_IMAGES = {b"\x89PNG": "png", b"GIF8": "gif", b"\xff\xd8": "jpg", b"RIFF": "webp"}
KEEP = 2  # checkpoints kept: the newest, and one to fall back to


class Damaged(Refused):
    """A file of a run does not hold what was written."""


class DiskFull(Refused):
    """No space left; everything saved before is still whole."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` so that `path` holds the old bytes or the new ones, never part of either."""
    with _explained(path, len(content)):
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _flush_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _explained(path: Path, size: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"no space left to write {path.name} ({size / 1e6:.1f} MB) in {path.parent}; what was saved before is whole. "
                "Free some space, then `simulacra resume` goes on."
            ) from error
        raise


def _flush_folder(folder: Path) -> None:
    if os.name != "nt":  # a folder cannot be opened on Windows, where rename is already durable
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256(path: Path) -> str:
    """Digest of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Run:
    """One run folder. `Run.create` makes one, `Run.open` finds one again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, *, study: str, name: str, recipe: Recipe) -> Run:
        """A new folder for `recipe` (called `name`) of `study`. Refused where `path` already holds something."""
        if path.exists() and any(p.name != "lock" for p in path.iterdir()):
            raise Refused(f"{path} already holds files; choose another folder with --out, or go on with `simulacra resume {path}`")
        (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        run = cls(path)
        run.write_json("environment.json", environment())
        run.write_json("recipe.json", {"study": study, "name": name, "recipe": recipe.model_dump(mode="json")})
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        if not (path / "recipe.json").is_file():
            raise Refused(f"{path} is not a run folder: it has no recipe.json (runs are made by `simulacra run`)")
        return cls(path)

    # -- what was asked ------------------------------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """study, name and recipe, as asked."""
        return self.read_json("recipe.json")

    def read_json(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise Damaged(f"{self.path / name} cannot be read as JSON ({error}); the file was altered after it was written") from error
        if not isinstance(content, dict):
            raise Damaged(f"{self.path / name} should hold a JSON object, it holds a {type(content).__name__}")
        return content

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        write_atomically(self.path / name, (json.dumps(content, indent=1, default=str) + "\n").encode())

    def add_time(self, seconds: float) -> None:
        """Add to the wall time that training took, over all sessions."""
        self.write_json("time.json", self.times() | {"training_seconds": self.seconds() + seconds})

    def note_rate(self, rate: float) -> None:
        """Remember how many samples were drawn per second of wall time."""
        self.write_json("time.json", self.times() | {"drawn_per_second": rate})

    def seconds(self) -> float:
        """Wall time of training so far."""
        return float(self.times().get("training_seconds", 0.0))

    def times(self) -> dict[str, float]:
        """training_seconds and, once drawn from, drawn_per_second."""
        return self.read_json("time.json") if (self.path / "time.json").is_file() else {}

    # -- one process at a time -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder for this process; Refused where another one works in it. A crash releases it."""
        try:
            import fcntl
        except ImportError:  # Windows: no advisory locks; atomic files still protect what is on disk
            yield
            return
        with open(self.path / "lock", "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                holder = file.read().strip() or "?"
                raise Refused(f"{self.path} is in use by process {holder}; wait for it, or choose another folder") from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    # -- states --------------------------------------------------------------------------------------------------

    def save(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Keep `state` as that of `step`; older states beyond the last KEEP are removed afterwards."""
        from safetensors.torch import save

        content = save({k: v.detach().cpu().contiguous() for k, v in state.items()})
        folder = self.path / "checkpoints" / f"{step:08d}"
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        shutil.rmtree(temporary, ignore_errors=True)
        with _explained(folder, len(content)):
            try:
                temporary.mkdir(parents=True)
                write_atomically(temporary / "state.safetensors", content)
                manifest = {"step": step, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "simulacra": __version__}
                write_atomically(temporary / "manifest.json", json.dumps(manifest).encode())
                if folder.exists():  # the same step, saved by an attempt that was cut off later
                    shutil.rmtree(folder)
                os.replace(temporary, folder)
                _flush_folder(folder.parent)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        for old in self._states()[:-KEEP]:
            shutil.rmtree(old)

    def _states(self) -> list[Path]:
        return sorted(p for p in (self.path / "checkpoints").glob("[0-9]*") if p.is_dir())

    def newest_step(self) -> int:
        states = self._states()
        return int(states[-1].name) if states else 0

    def state(self, folder: Path | None = None) -> tuple[int, dict[str, Tensor]]:
        """Step and state of a checkpoint folder (default: the newest). Raises Damaged where its bytes were altered."""
        from safetensors.torch import load

        states = self._states()
        if not states:
            raise Refused(f"{self.path} holds no trained state yet; `simulacra resume {self.path}` starts it")
        folder = folder or states[-1]
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            content = (folder / "state.safetensors").read_bytes()
            expected = manifest["sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Damaged(f"checkpoint {folder} is incomplete or altered ({error})") from error
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise Damaged(
                f"{folder / 'state.safetensors'} was altered after it was saved: sha256 is {found[:12]}..., the manifest says "
                f"{str(expected)[:12]}... `simulacra resume {self.path}` repairs it from the state before."
            )
        return int(manifest["step"]), load(content)

    def restore(self, learner: Any) -> int:
        """Put the newest undamaged state into `learner`; returns its step (0: nothing was saved). Damaged ones are removed."""
        step = 0
        for folder in reversed(self._states()):
            try:
                step, state = self.state(folder)
            except Damaged as error:
                print(f"note: {error}\n      going on from the state before it", file=sys.stderr)
                shutil.rmtree(folder)
                continue
            learner.load_state_dict(state)
            break
        self._forget_history_after(step)
        return step

    # -- history -------------------------------------------------------------------------------------------------

    def append_history(self, row: Mapping[str, float]) -> None:
        with _explained(self.path / "history.jsonl", 200), open(self.path / "history.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def history(self) -> list[dict[str, float]]:
        """Rows of `step` and losses. A last line cut short by a kill is left out."""
        rows = []
        if (self.path / "history.jsonl").is_file():
            for line in (self.path / "history.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    rows.append(json.loads(line))
        return rows

    # -- the verdict ---------------------------------------------------------------------------------------------

    def write_evidence(self, evidence: Evidence) -> None:
        write_atomically(self.path / "evidence.json", evidence.to_json().encode())

    def evidence(self) -> Evidence:
        if not (self.path / "evidence.json").is_file():
            raise Refused(f"{self.path} has not been judged yet; `simulacra resume {self.path}` trains what is left and judges")
        try:
            return Evidence.read(self.path / "evidence.json")
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(f"{self.path / 'evidence.json'} was altered ({error}); `simulacra resume {self.path}` judges again") from error

    def write_figures(self, figures: Sequence[Figure]) -> None:
        shutil.rmtree(self.path / "figures", ignore_errors=True)
        (self.path / "figures").mkdir()
        index = []
        for i, figure in enumerate(figures):
            content = figure.image.encode() if isinstance(figure.image, str) else figure.image
            ending = next((e for magic, e in _IMAGES.items() if content.startswith(magic)), "svg")
            index.append({"title": figure.title, "caption": figure.caption, "file": f"{i + 1:02d}.{ending}"})
            write_atomically(self.path / "figures" / f"{i + 1:02d}.{ending}", content)
        self.write_json("figures/index.json", {"figures": index})

    def figures(self) -> list[Figure]:
        if not (self.path / "figures" / "index.json").is_file():
            return []
        rows = self.read_json("figures/index.json")["figures"]
        images = [(self.path / "figures" / Path(r["file"]).name).read_bytes() for r in rows]
        return [Figure(r["title"], r["caption"], i.decode() if r["file"].endswith("svg") else i) for r, i in zip(rows, images, strict=True)]

    def write_crate(self, title: str, source: str) -> None:
        names = sorted(
            str(p.relative_to(self.path)) for p in self.path.rglob("*")
            if p.is_file() and p.name not in ("lock", "ro-crate-metadata.json") and not p.name.startswith(".")
        )  # fmt: skip
        self.write_json("ro-crate-metadata.json", crate(self.about(), title, source, {n: sha256(self.path / n) for n in names}))

    def _forget_history_after(self, step: int) -> None:
        if (self.path / "history.jsonl").is_file():
            kept = [row for row in self.history() if row["step"] <= step]
            write_atomically(self.path / "history.jsonl", "".join(json.dumps(r) + "\n" for r in kept).encode())


def crate(about: Mapping[str, Any], title: str, source: str, files: Mapping[str, str]) -> dict[str, Any]:
    """RO-Crate 1.1 metadata (https://w3id.org/ro/crate/1.1): one CreateAction that made the files of a run."""
    parts = [{"@id": name, "@type": "File", "sha256": digest} for name, digest in files.items()]
    root = {
        "@id": "./", "@type": "Dataset", "name": f"{about['study']}, recipe {about['name']}",
        "description": f"{title}. After {source}. Trained, drawn and judged by simulacra {__version__}.",
        "hasPart": [{"@id": p["@id"]} for p in parts], "mentions": {"@id": "#run"},
    }  # fmt: skip
    action = {
        "@id": "#run", "@type": "CreateAction", "instrument": {"@id": "#simulacra"}, "object": {"@id": "recipe.json"},
        "result": [{"@id": p["@id"]} for p in parts if p["@id"] != "recipe.json"],
    }  # fmt: skip
    software = {"@id": "#simulacra", "@type": "SoftwareApplication", "name": "simulacra", "softwareVersion": __version__}
    descriptor = {
        "@id": "ro-crate-metadata.json", "@type": "CreativeWork", "about": {"@id": "./"},
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
    }  # fmt: skip
    return {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": [descriptor, root, action, software, *parts]}


def environment() -> dict[str, Any]:
    """What a reader needs to know of the machine and the software; no user names, no environment variables with secrets."""
    import torch

    packages = ("torch", "numpy", "scipy", "pydantic", "safetensors", "numba", "galsim", "photutils")
    return {
        "simulacra": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": {p: v for p in packages if (v := _version(p))},
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
