"""How long `simulacra --help` takes, beside an interpreter that does nothing: `python benchmarks/startup.py`.

The two are started in turn, so that whatever else the machine does falls on both alike; medians are printed.
"""

import statistics
import subprocess
import sys
import time

ROUNDS = 15
NOTHING = [sys.executable, "-c", "pass"]
HELP = [sys.executable, "-c", "from simulacra.cli import main; main()", "--help"]


def seconds(command):
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


for command in (NOTHING, HELP):  # once unmeasured: compiles what was never imported
    seconds(command)
pairs = [(seconds(NOTHING), seconds(HELP)) for _ in range(ROUNDS)]
nothing, help_ = (statistics.median(column) for column in zip(*pairs, strict=True))
print(f"python -c pass      {nothing:.3f} s")
print(f"simulacra --help    {help_:.3f} s    {help_ / nothing:.1f} times")
