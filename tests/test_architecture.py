"""The plan of the house, read from the source: who may import whom, what things are called, what is never done."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from simulacra import study

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "simulacra"

# From the ground up. A module imports only what stands on a lower line; what stands on one line does not import each other.
LAYERS = (
    ("study", "descent"),
    ("measures", "families", "nets"),
    ("evidence", "movie", "travels"),
    ("runs",),
    ("training", "weights", "series"),
    ("sciences",),
    ("verdict",),
    ("report",),
    ("pipeline", "forecasting"),
    ("drawing", "comparing", "flags"),
    ("streaming",),
    ("cli",),
)
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}
GROUND = set(LAYERS[0])
MODELS = {"families", "nets", "descent", "training"}

NO_NAME = {"utils", "util", "misc", "common", "helpers", "helper", "manager", "base", "core"}
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "pandas.read_pickle"}
FORBIDDEN_CALLS = {
    "eval", "exec", "__import__", "os.system", "torch.load", "torch.jit.load", "torch.export.load", "torch.hub.load",
    "yaml.load", "yaml.full_load", "yaml.unsafe_load",
}  # fmt: skip


def dotted(path):
    """The module that a file of the package is: `simulacra.sciences.ising.gan`."""
    parts = ["simulacra", *path.relative_to(SOURCE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {dotted(path): path for path in sorted(SOURCE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def at_run_time(tree):
    """All nodes but those that only a type checker sees."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for child in ast.iter_child_nodes(node):
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING") and child not in node.orelse:
                continue
            waiting.append(child)


def imported(tree):
    """Every module, or name in a module, that the code imports when it runs, at the top or inside a function."""
    for node in at_run_time(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: import by full name, not relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(name):
    """What module `name` imports of this package, as modules."""
    for target in imported(TREES[name]):
        if target.split(".")[0] == "simulacra":
            yield target if target in FILES else target.rpartition(".")[0]


def room(name):
    """Where a module stands in LAYERS: `sciences` for all of them; empty for the package itself."""
    return name.split(".")[1] if "." in name else ""


def science(name):
    parts = name.split(".")
    return parts[2] if len(parts) > 2 and parts[1] == "sciences" else None


def declares_a_study(tree):
    plain = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    annotated = [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    return any(isinstance(target, ast.Name) and target.id == "study" for target in plain + annotated)


SYSTEMS = {name for name, tree in TREES.items() if science(name) and declares_a_study(tree)}


def test_every_module_has_a_place():
    without = {room(name) for name in FILES if room(name)} - set(HEIGHT)
    assert not without, f"say in LAYERS (tests/test_architecture.py) where {sorted(without)} stand"


def test_imports_run_downwards_only():
    wrong = [
        f"{name} imports {target}"
        for name in FILES
        for target in ours(name)
        if room(name) and room(target) and room(name) != room(target) and HEIGHT[room(target)] >= HEIGHT[room(name)]
    ]
    assert not wrong, wrong


def test_study_imports_nothing_of_the_package():
    assert not list(ours("simulacra.study"))


def test_families_nets_and_measures_stand_on_the_ground_and_apart():
    wrong = [
        f"{name} imports {target}"
        for name in FILES
        if room(name) in ("families", "nets", "measures")
        for target in ours(name)
        if room(target) not in GROUND | {room(name)}
    ]
    assert not wrong, wrong


def test_no_science_imports_another():
    wrong = [
        f"{name} imports {target}"
        for name in FILES
        if science(name)
        for target in ours(name)
        if science(target) and science(target) != science(name)
    ]
    assert not wrong, wrong


def test_a_science_says_what_nature_is_and_what_can_be_measured():
    for folder in (p for p in (SOURCE / "sciences").iterdir() if p.is_dir() and p.name != "__pycache__"):
        assert (folder / "data.py").is_file(), f"{folder.name} has no data.py"
        assert (folder / "statistics.py").is_file(), f"{folder.name} has no statistics.py"


def test_nature_and_its_statistics_never_meet_a_model():
    assert not [name for name in SYSTEMS if name.endswith((".data", ".statistics"))]
    parts = [name for name in FILES if name.endswith((".data", ".statistics"))]
    for name in parts:  # and whatever of their science they stand on: a simulator, exact values
        parts += [target for target in ours(name) if science(target) and target not in parts]
    wrong = [f"{name} imports {target}" for name in parts for target in ours(name) if room(target) in MODELS or target in SYSTEMS]
    wrong += [f"{name} imports {t}" for name in parts if name.endswith(".data") for t in ours(name) if t.endswith(".statistics")]
    assert not wrong, wrong


def test_the_file_system_is_the_registry():
    assert set(study.names()) == {name.removeprefix("simulacra.sciences.") for name in SYSTEMS}


def test_modules_are_named_after_what_they_are():
    wrong = [name for name in FILES if NO_NAME & set(name.split("."))]
    assert not wrong, wrong


def test_nothing_is_unpickled_and_no_text_is_run_as_code():
    wrong = []
    for name, tree in TREES.items():
        taken = {t for t in imported(tree) if t.split(".")[0] in UNPICKLERS or t in UNPICKLERS | FORBIDDEN_CALLS}
        wrong += [f"{name} imports {t}" for t in sorted(taken)]
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func) if isinstance(node.func, ast.Name | ast.Attribute) else ""
            if called in FORBIDDEN_CALLS:
                wrong.append(f"{name}:{node.lineno} calls {called}")
            for keyword in node.keywords:
                on = not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
                if keyword.arg in ("allow_pickle", "shell") and on:
                    wrong.append(f"{name}:{node.lineno} sets {keyword.arg}")
    assert not wrong, wrong


def test_every_module_and_every_public_name_says_what_it_is():
    silent = [name for name, tree in TREES.items() if not ast.get_docstring(tree)]
    silent += [
        f"{name}.{node.name}"
        for name, tree in TREES.items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert not silent, silent


def test_nothing_is_left_for_later():
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    files = [p for folder in ("src", "tests", "benchmarks", "docs") for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".md")]
    wrong = [f"{path.relative_to(ROOT)}: {found[0]}" for path in files if (found := marks.search(path.read_text(encoding="utf-8")))]
    assert not wrong, wrong


def test_the_package_and_its_command_line_start_without_torch():
    code = "import sys, simulacra.study, simulacra.cli; print(*({'torch', 'rdkit', 'scipy', 'matplotlib', 'numba'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# Libraries are read once, by the parent: those that a child which imports every module has afterwards. Each module then has a child of its
# own, in which nothing of simulacra has been imported.
IMPORT_EACH = """
import contextlib, importlib, os, sys, traceback

def child(names):
    reads, writes = os.pipe()
    number = os.fork()
    if number == 0:
        try:
            for name in names:
                importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        with open(writes, "w") as file:
            file.write(" ".join(sys.modules))
        os._exit(0)
    os.close(writes)
    with open(reads) as file:
        told = file.read()
    return os.waitpid(number, 0)[1], told.split()

ours = sys.argv[1:]
for name in child(ours)[1]:
    if name.split(".")[0] not in ("simulacra", "__main__"):
        with contextlib.suppress(Exception):
            importlib.import_module(name)
assert not any(m.split(".")[0] == "simulacra" for m in sys.modules)
failed = [name for name in ours if child([name])[0]]
sys.exit(f"cannot be imported alone: {failed}" if failed else 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, to import every module in a process of its own within seconds")
def test_every_module_imports_alone():
    done = subprocess.run([sys.executable, "-c", IMPORT_EACH, *FILES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
