"""A run that was killed, anywhere, ends with the parameters of one that was not, bit for bit."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from simulacra.runs import Run
from toys.command import Command

SHELL = [sys.executable, "-c", "from simulacra.cli import main; main()"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
TRUST = ("--trust", "toys.gaussian")
STEPS = ("--steps", 150, "--slow", 0.004)  # 0.6 s, and a little for the steps themselves


def simulacra(*words, **options):
    """The command line in a process of its own, to its end."""
    return Command(*TRUST, *words, **options).done()


def parameters(folder):
    return Run.open(folder).state()[1]


def same_to_the_bit(a, b):
    assert a.keys() == b.keys()
    return all(np.array_equal(a[k].numpy(), b[k].numpy()) for k in a)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run as a shell starts it."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    words = [*TRUST, "run", "toys.gaussian", *STEPS, "--out", folder, "-q"]
    done = subprocess.run([*SHELL, *map(str, words)], env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("attempt", range(3))
def test_a_run_killed_at_random_places_even_inside_a_save_ends_bit_identical(uninterrupted, tmp_path, attempt):
    rng = random.Random(attempt)
    folder, ends = tmp_path / "run", []
    words = ["run", "toys.gaussian", *STEPS, "--out", folder, "-q"]
    for _ in range(3):
        process = Command(*TRUST, *words, saving_each_step=True)  # so that many kills hit a save
        wait_for(lambda running=process: (folder / "recipe.json").is_file() or not running.running())
        time.sleep(rng.uniform(0.05, 0.8))
        process.send(signal.SIGKILL)
        ends.append(process.done().returncode)
        words = ["resume", folder, "-q"]
    assert ends[0] == -signal.SIGKILL
    done = simulacra(*words, saving_each_step=True)
    assert done.returncode == 0, done.stderr
    assert same_to_the_bit(parameters(folder), parameters(uninterrupted))
    assert (folder / "report.html").is_file()
    assert not list(folder.rglob("*.part")) or all(".part" in p.name for p in (folder / "checkpoints").glob(".*"))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_stop_signal_finishes_the_step_saves_and_exits_75(uninterrupted, tmp_path, name):
    folder = tmp_path / "run"
    process = Command(*TRUST, "run", "toys.gaussian", *STEPS, "--out", folder)
    wait_for(lambda: (folder / "history.jsonl").is_file() or not process.running())
    process.send(getattr(signal, name))
    done = process.done()
    assert done.returncode == 75, done.stderr
    assert name in done.stdout
    step, _ = Run.open(folder).state()
    assert 0 < step < 150
    assert simulacra("resume", folder, "-q").returncode == 0
    assert same_to_the_bit(parameters(folder), parameters(uninterrupted))
    steps = [row["step"] for row in Run.open(folder).history()]
    assert steps == sorted(set(steps))


def test_a_time_limit_stops_saved_with_exit_code_75_and_goes_on_later(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    done = simulacra("run", "toys.gaussian", *STEPS, "--out", folder, "--minutes", 0.003)
    assert done.returncode == 75, done.stderr
    assert "time limit" in done.stdout
    assert simulacra("resume", folder, "-q").returncode == 0
    assert same_to_the_bit(parameters(folder), parameters(uninterrupted))


def test_a_diverging_run_stops_with_exit_code_4_and_keeps_the_last_good_state(tmp_path):
    folder = tmp_path / "run"
    done = simulacra("run", "toys.gaussian", "--steps", 150, "--explode-at", 75, "--out", folder, saving_each_step=True)
    assert done.returncode == 4
    assert "not finite" in done.stderr
    step, state = Run.open(folder).state()
    assert 0 < step < 75
    assert all(np.isfinite(v.numpy()).all() for v in state.values())


def test_weights_flipped_by_one_bit_are_refused_and_repaired_by_resuming(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    assert simulacra("run", "toys.gaussian", "--steps", 60, "--out", folder, "-q", saving_each_step=True).returncode == 0
    whole = parameters(folder)
    newest = max((folder / "checkpoints").glob("[0-9]*")) / "state.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0b100
    newest.write_bytes(content)
    refused = simulacra("draw", folder, "-o", tmp_path / "x.npz")
    assert refused.returncode == 3
    assert "altered" in refused.stderr
    assert "resume" in refused.stderr
    repaired = simulacra("resume", folder, "-q")
    assert repaired.returncode == 0, repaired.stderr
    assert same_to_the_bit(parameters(folder), whole)


def test_two_processes_cannot_work_in_one_run_folder(tmp_path):
    folder = tmp_path / "run"
    process = Command(*TRUST, "run", "toys.gaussian", "--steps", 2000, "--slow", 0.02, "--out", folder, "-q")
    wait_for(lambda: (folder / "history.jsonl").is_file() or not process.running())
    second = simulacra("resume", folder)
    process.send(signal.SIGTERM)
    first = process.done()
    assert second.returncode == 3
    assert f"in use by process {process.pid}" in second.stderr
    assert first.returncode == 75


def test_a_full_disk_is_said_and_what_was_saved_stays_whole(tmp_path):
    disk = tmp_path / "small"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        folder = disk / "run"
        assert simulacra("run", "toys.gaussian", *STEPS, "--minutes", 0.003, "--out", folder, "-q").returncode == 75
        before = parameters(folder)
        filler = disk / "filler"
        fill(filler)
        full = simulacra("resume", folder)
        assert full.returncode == 3, full.stderr
        assert "no space left" in full.stderr
        assert same_to_the_bit(parameters(folder), before)
        filler.unlink()
        assert simulacra("resume", folder, "--minutes", 0.003).returncode == 75
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_run_folder_that_holds_files_is_not_overwritten(uninterrupted):
    done = simulacra("run", "toys.gaussian", "--out", uninterrupted)
    assert done.returncode == 3
    assert "already holds files" in done.stderr


def test_changed_data_are_refused_on_resume(tmp_path):
    from toys import gaussian

    rng = np.random.default_rng(0)
    data = tmp_path / "points.npz"
    np.savez(data, at=rng.normal(size=(300, 2)).astype(np.float32))
    words = ("run", "toys.gaussian", "--data", data, *STEPS, "--minutes", 0.003, "--out", tmp_path / "run")
    assert simulacra(*words).returncode == 75
    gaussian.write(gaussian.read(data)[:250], data)
    done = simulacra("resume", tmp_path / "run")
    assert done.returncode == 3
    assert "data changed" in done.stderr


def test_a_recipe_with_an_unknown_field_in_a_run_folder_is_refused(uninterrupted, tmp_path):
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    about = json.loads((folder / "recipe.json").read_text())
    about["recipe"]["stepz"] = 3
    (folder / "recipe.json").write_text(json.dumps(about))
    done = simulacra("resume", folder)
    assert done.returncode == 3
    assert "stepz" in done.stderr


def test_sample_i_depends_neither_on_how_many_are_drawn_nor_on_its_neighbours(uninterrupted, tmp_path):
    for n in (3, 64, 130):
        assert simulacra("draw", uninterrupted, "-n", n, "-o", tmp_path / f"{n}.npz").returncode == 0
    few, some, many = (np.load(tmp_path / f"{n}.npz")["at"] for n in (3, 64, 130))
    np.testing.assert_array_equal(few, many[:3])
    np.testing.assert_array_equal(some, many[:64])


def fill(path):
    """Write until the disk is full."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_a_run_folder_cannot_choose_what_code_runs(uninterrupted):
    refused = Command("report", uninterrupted).done()
    assert refused.returncode == 3
    assert "--trust toys.gaussian" in refused.stderr


def test_data_that_are_refused_leave_no_run_folder(tmp_path):
    (tmp_path / "points.npz").write_bytes(b"not an archive")
    done = simulacra("run", "toys.gaussian", "--data", tmp_path / "points.npz", "--out", tmp_path / "run")
    assert done.returncode == 3
    assert "holds no points" in done.stderr
    assert not (tmp_path / "run").exists()
