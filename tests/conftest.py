"""What all tests share: one thread, so that sums come out in one order, and the folder of real data where there is one."""

import os
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start

import torch

torch.set_num_threads(1)

# The same examples in every run: a failure must be one that others can see. (Look for new ones with --hypothesis-profile=default.)
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items):
    """A module stays in one process, so that its fixtures are made once; with a fixture `finished` for each study, a study does."""
    for item in items:
        study = item.callspec.params.get("finished", "") if hasattr(item, "callspec") else ""
        item.add_marker(pytest.mark.xdist_group(f"{item.module.__name__} {study}".strip()))


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory):
    """Simulated lattices are remembered between runs; a test run neither reads nor writes what the user's runs left."""
    os.environ["SIMULACRA_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def data_folder():
    """The folder named by SIMULACRA_DATA; tests that need real data are skipped where it is not set."""
    name = os.environ.get("SIMULACRA_DATA")
    if not name:
        pytest.skip("SIMULACRA_DATA is not set: no real data here (docs/user_data.md says what lies in such a folder)")
    folder = Path(name)
    if not folder.is_dir():
        pytest.fail(f"SIMULACRA_DATA names {folder}, which is no folder")
    return folder
