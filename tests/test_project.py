"""What the project says of itself is true: tables, commands, versions, examples."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import simulacra
from simulacra import study

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + PAGES


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


PROJECT = tomllib.loads(text("pyproject.toml"))["project"]
PINS = dict(line.split("==") for line in text("constraints.txt").splitlines() if line and not line.startswith("#"))
PINNED = {canonicalize_name(name): version for name, version in PINS.items()}


def rows(page, heading):
    """First cells, without backticks, of the table rows below a heading of a page, up to the next heading."""
    part = re.split(r"^## ", page, flags=re.MULTILINE)
    body = next(p for p in part if p.startswith(heading))
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in body.splitlines() if line.startswith("| `")]
    return [([name.strip("`") for name in re.findall(r"`[\w.]+`", cell[0])], cell) for cell in cells]


def test_the_readme_says_of_every_study_that_it_works_and_of_no_other():
    table = rows(text("README.md"), "The systems")
    working = {name for names, cells in table for name in names if cells[-1] == "works"}
    assert working == set(study.names())
    assert {cells[-1] for _, cells in table} <= {"works", "planned"}


def test_the_page_on_systems_agrees_with_the_readme():
    page, readme = text("docs/systems.md"), rows(text("README.md"), "The systems")
    for heading, word in (("Working", "works"), ("Planned", "planned")):
        listed = {name for names, _ in rows(page, heading) for name in names}
        assert listed == {name for names, cells in readme for name in names if cells[-1] == word}


def test_the_readme_holds_no_gap_to_be_filled():
    assert not re.findall(r"\b(?:TIME|RESULTS)_[A-Z]+\b", text("README.md"))


@pytest.mark.parametrize("name", study.names())
def test_every_study_names_a_paper_that_can_be_looked_up(name):
    assert re.search(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\d{4,}/\S+|ISBN", study.find(name).source)


def test_every_command_that_the_documents_show_exists():
    from simulacra.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    for path in TEXTS:
        blocks = re.findall(r"^```\w*\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        shown = {m for block in blocks for m in re.findall(r"^simulacra ([a-z]+)", block, flags=re.MULTILINE)}
        shown |= set(re.findall(r"`simulacra ([a-z]+)", path.read_text(encoding="utf-8")))
        assert shown <= known, f"{path.name} shows {sorted(shown - known)}"


def test_every_make_target_that_the_documents_name_exists():
    targets = set(re.findall(r"^([a-z]+):", text("Makefile"), flags=re.MULTILINE))
    for path in TEXTS:
        named = set(re.findall(r"(?:`|^)make ([a-z]+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE))
        assert named <= targets, f"{path.name} names {sorted(named - targets)}"


def test_every_link_between_the_documents_leads_somewhere():
    for path in TEXTS:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_documentation_lists_every_page_once():
    listed = re.findall(r"^ +- .*: (\S+\.md)$", text("mkdocs.yml"), flags=re.MULTILINE)
    assert sorted(listed) == [str(path.relative_to(ROOT / "docs")) for path in PAGES]


def test_the_constraints_pin_torch_and_every_dependency_that_is_declared():
    assert PINS["torch"] == "2.13.0"
    declared = [*PROJECT["dependencies"], *(d for extra in PROJECT["optional-dependencies"].values() for d in extra)]
    for requirement in map(Requirement, declared):
        if requirement.name != "simulacra":
            version = PINNED.get(canonicalize_name(requirement.name))
            assert version, f"constraints.txt does not pin {requirement.name}"
            assert requirement.specifier.contains(version), f"constraints.txt has {version}, pyproject wants {requirement}"


def test_tests_of_a_group_share_a_process(request):
    """pytest-xdist writes the group into a test's name; where it does not, every process makes all fixtures, and nothing says so."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("not run in several processes by groups")
    assert request.node.nodeid.endswith(f"@{request.node.module.__name__}")


def test_one_version_everywhere():
    newest = re.search(r"^## (\S+)", text("CHANGELOG.md"), flags=re.MULTILINE)[1]
    assert PROJECT["version"] == simulacra.__version__ == newest


def test_the_licence_is_what_the_project_says():
    assert PROJECT["license"] == "Apache-2.0"
    licence = text("LICENSE")
    assert "Apache License" in licence
    assert "Version 2.0, January 2004" in licence


def test_no_data_lie_in_the_repository():
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    data = (".zip", ".csv", ".gz", ".npz", ".npy", ".fits", ".h5", ".hdf5", ".parquet", ".sdf", ".smi", ".xyz", ".pt", ".pth", ".pkl")
    ours = "src/simulacra/weights/"
    assert not [name for name in listed if name.endswith(data) and not name.startswith(ours)]


def test_the_example_of_a_system_of_your_own_runs(tmp_path):
    name, code = re.search(r'^```python title="(\S+)"\n(.*?)^```', text("docs/concepts.md"), flags=re.MULTILINE | re.DOTALL).groups()
    file = tmp_path / name
    file.parent.mkdir()
    file.write_text(code, encoding="utf-8")
    command = [sys.executable, "-c", "from simulacra.cli import main; main()", "run", "mylab.lifetimes", "--out", "run", "--seed", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cannot tell drawn samples from nature" in " ".join(done.stdout.split())
    assert (tmp_path / "run" / "report.html").is_file()
