"""What it saves when freed memory is kept for the next step of training (training.keep_memory).

    python benchmarks/kept_memory.py          # one thread; about half a minute

Steps of the `laptop` language model of drugs on strings made by rule, in two processes, with and without; CPU seconds per step, of which
in the system, and the largest size of the process.
"""

import resource
import subprocess
import sys
import time

WARM, STEPS = 25, 20  # steps that are not measured: memory grows in them; and those that are


def one(kept):
    import torch

    from simulacra.sciences.drugs import data, simulate, writer
    from simulacra.training import batches_from, keep_memory

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if kept and not keep_memory():
        sys.exit("this C library has no such setting, or the environment decides")
    samples = data.compounds(simulate.simulated(2000, seed=0))
    learner = writer.build(writer.StringRecipe(batch=256), samples)
    rows = batches_from(samples, 256, 0, 0)
    for _ in range(WARM):
        learner.step(samples[next(rows)])
    began, system = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_stime
    for _ in range(STEPS):
        learner.step(samples[next(rows)])
    spent, usage = time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF)
    print(spent / STEPS, (usage.ru_stime - system) / STEPS, usage.ru_maxrss / 1e6)


def main():
    found = {}
    for word in ("given back", "kept"):
        done = subprocess.run([sys.executable, __file__, word], capture_output=True, text=True, check=True)
        found[word] = [float(v) for v in done.stdout.split()]
        step, system, size = found[word]
        print(f"{word:11} {step:.4f} s per step, {system:.4f} s of it in the system; {size:.2f} GB")
    print(f"ratio {found['given back'][0] / found['kept'][0]:.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one(sys.argv[1] == "kept")
    else:
        main()
