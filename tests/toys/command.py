"""The command line in a process of its own, forked from one that has imported everything: each costs no seconds of importing torch.

The process that is forked from never computes anything, and a forked one answers signals as if it had been started from a shell.
"""

import os
import subprocess
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path

from simulacra import cli, comparing, drawing, pipeline, training
from simulacra.report import page, summary

IMPORTED = (cli, comparing, drawing, pipeline, training, page, summary)
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])
FOLDERS = os.pathsep.join(str(place) for place in (Path(__file__).parent.parent, os.environ.get("PYTHONPATH")) if place)
os.environ["PYTHONPATH"] = FOLDERS  # the process that is forked from finds this module there


class Command:
    """`simulacra words...`, running; studies of the toys are trusted. `saving_each_step` keeps a state after every step."""

    def __init__(self, *words, saving_each_step=False):
        self.said = Path(tempfile.mkdtemp())
        self.process = CONTEXT.Process(target=_run, args=([str(word) for word in words], self.said, saving_each_step))
        self.process.start()
        self.pid = self.process.pid

    def running(self):
        return self.process.exitcode is None

    def send(self, signal):
        os.kill(self.pid, signal)

    def done(self, seconds=600):
        """Wait for the end; what `subprocess.run` gives."""
        self.process.join(seconds)
        if self.running():
            self.process.kill()
            raise TimeoutError(f"not done after {seconds} s: {(self.said / 'out').read_text()}")
        out, err = ((self.said / name).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess([], self.process.exitcode, out, err)


def _run(words, said, saving_each_step):
    for name, stream in (("out", sys.stdout), ("err", sys.stderr)):
        file = os.open(said / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, stream.fileno())
    if saving_each_step:
        fit = training.fit
        pipeline.fit = lambda *parts, **options: fit(*parts, **options, save_every=0.0)
    sys.argv = ["simulacra", *words]
    cli.main()
