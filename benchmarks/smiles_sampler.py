"""How many molecules a second a language model of SMILES writes: slots that are refilled, against the loops in use; one network.

    python benchmarks/smiles_sampler.py RUN              # or drugs.lstm: the weights that ship; about three minutes of one core
    python benchmarks/smiles_sampler.py RUN --wall       # drawn and validated in as many processes as there are cores, wall clock

    MOSES     64 strings at a time, always 100 steps, packed and unpacked at each, one call per row to draw its
              token (as molecularsets/moses, char_rnn, does)
    REINVENT  128 strings at a time until the longest ends, one call for all rows (as MolecularAI/REINVENT4 does)
    ours      families/sequence.py, in float32, bfloat16 and int8

All in one process on one thread, CPU seconds, the same trained network, temperature 1. What bfloat16 and int8 cost in quality is measured
beside it: likelihood of the same molecules by the sampler's own arithmetic, validity, and FCD between 10,000 strings of each (two sets in
float32 stand beside it). Where the processor has no bfloat16, torch computes it so slowly that it is left out.
"""

import argparse
import math
import time

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from simulacra import drawing
from simulacra.families import sequence
from simulacra.sciences.drugs import chemnet, data, properties
from simulacra.training import dtype_of

LONGEST = 100


@torch.no_grad()
def moses_loop(model, n, batch=64):
    """Strings of n molecules, LONGEST steps for each batch whatever is drawn."""
    found, lengths = [], torch.ones(batch, dtype=torch.long)
    while len(found) < n:
        token, state, rows, ended = torch.full((batch, 1), sequence.START), None, [[] for _ in range(batch)], [False] * batch
        for _ in range(LONGEST):
            packed = pack_padded_sequence(model.embedding(token), lengths, batch_first=True)
            packed, state = model.lstm(packed, state)
            law = [torch.softmax(row, dim=-1) for row in model.out(pad_packed_sequence(packed, batch_first=True)[0])]
            drawn = [torch.multinomial(p, 1) for p in law]
            for j, top in enumerate(drawn):
                if not ended[j]:
                    number = top[0].item()
                    ended[j] = number == sequence.END
                    rows[j].append(number)
            token = torch.tensor([[top.item()] for top in drawn])
        found += rows
    return len(found)


@torch.no_grad()
def reinvent_loop(model, n, batch=128):
    """Strings of n molecules; each batch runs until its longest string ends."""
    found = 0
    while found < n:
        token, state, ended = torch.full((batch, 1), sequence.START), None, torch.zeros(batch, dtype=torch.bool)
        loss = torch.zeros(batch)
        for _ in range(LONGEST):
            hidden, state = model.lstm(model.embedding(token), state)
            logits = model.out(hidden[:, 0])
            token = torch.multinomial(logits.softmax(1), 1)
            loss += torch.nn.functional.nll_loss(logits.log_softmax(1), token[:, 0], reduction="none") * ~ended
            ended |= token[:, 0] == sequence.END
            if bool(ended.all()):
                break
        found += batch
    return found


def rate(work):
    """Molecules per CPU second of `work`, which says how many it made."""
    began = time.process_time()
    made = work()
    return made / (time.process_time() - began)


def precisions():
    """Types of products that this machine draws in at a speed worth looking at."""
    found = {"float32": torch.float32}
    if dtype_of("auto", torch.device("cpu")) == torch.bfloat16:
        found["bfloat16"] = torch.bfloat16
    if sequence.draws_in_eight_bits():
        found["int8"] = torch.int8
    return found


@torch.no_grad()
def bits(writer, strings, dtype, at_once=256):
    """-log2 p of strings by the sampler's arithmetic."""
    found, model = [], writer.descent.average
    for start in range(0, len(strings), at_once):
        tokens = writer.vocabulary.encoded(strings[start : start + at_once])
        cell = sequence._Cell(model, len(tokens), dtype, None)
        cell.begin(torch.arange(len(tokens)), torch.arange(len(tokens)), None)
        loss = torch.zeros(len(tokens))
        for now, following in zip(tokens[:, :-1].T, tokens[:, 1:].T, strict=True):
            law = cell(now)[:, sequence.END :].float().log_softmax(1)
            real = following >= sequence.END
            loss -= law.gather(1, (following - sequence.END).clamp_min(0)[:, None])[:, 0] * real
        found.append(loss)
    return torch.cat(found) / math.log(2)


def speeds(writer, n):
    """The table of speeds, after a short warm-up of each line."""
    model, slots = writer.descent.average, writer.recipe.slots

    def ours(dtype):
        return lambda count=n: len(sequence.draw(model, range(count), seed=1, longest=LONGEST, slots=slots, dtype=dtype).tokens)

    lines = {
        "MOSES's loop": lambda: moses_loop(model, n // 16), "REINVENT's loop": lambda: reinvent_loop(model, n // 4),
        **{f"ours, {name}": ours(dtype) for name, dtype in precisions().items()},
    }  # fmt: skip
    moses_loop(model, 1)
    reinvent_loop(model, 1)
    found = {name: rate(work) for name, work in lines.items()}
    slowest = found["MOSES's loop"]
    for name, value in found.items():
        print(f"{name:20} {value:8.0f} molecules per CPU second   {value / slowest:6.1f} x MOSES's")


def quality(writer, n, held_out):
    """What less precision does to likelihood, validity and FCD."""
    drawn, known = {}, data.texts(held_out[writer.score(held_out).isfinite()])
    exact = bits(writer, known, torch.float32)
    kinds = {"float32, other seed": torch.float32, **precisions()}
    for seed, (name, dtype) in enumerate(kinds.items()):
        tokens = sequence.draw(writer.descent.average, range(n), seed=seed, longest=LONGEST, slots=writer.recipe.slots, dtype=dtype).tokens
        drawn[name] = writer.vocabulary.decoded(tokens)
        valid = sum(properties.molecule(s) is not None for s in drawn[name]) / n
        print(f"validity, {name}: {valid:.4f} +- {(valid * (1 - valid) / n) ** 0.5:.4f}")
    for name, dtype in precisions().items():
        more = bits(writer, known, dtype) - exact
        error = more.std() / len(more) ** 0.5
        print(f"bits per held-out molecule, {name}: {(exact + more).mean():.3f}, {more.mean():.4f} +- {error:.4f} more")
    seen = {name: chemnet.activations([s for s in strings if properties.molecule(s) is not None]) for name, strings in drawn.items()}
    for name in seen:
        if name != "float32":
            print(f"FCD, float32 to {name}, valid ones of {n} each: {chemnet.fcd(seen['float32'], seen[name]):.3f}")


def wall(source, n):
    """Drawn, validated and written per second of the clock, in all cores."""
    import tempfile
    from pathlib import Path

    from simulacra import streaming

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "drawn.smi"
        order = streaming.Order(source.name if source.place.path.name == source.name else str(source.place.path), {}, {}, 1, n, ".smi")
        began = time.monotonic()
        streaming.stream(source, order, out)
        print(f"{n / (time.monotonic() - began):.0f} molecules a second, start of the processes included")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("-n", type=int, default=10_000)
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--held-out", help="file of molecules whose likelihood is compared; default: simulated ones")
    asked = parser.parse_args()
    source = drawing.opened(asked.run)
    if asked.wall:
        wall(source, max(asked.n, 100_000))
    else:
        torch.set_num_threads(1)
        learner = source.learner()
        speeds(learner, asked.n)
        molecules = data.load(asked.held_out, seed=0, simulated=2000).held_out[:2000]
        quality(learner, asked.n, molecules)
