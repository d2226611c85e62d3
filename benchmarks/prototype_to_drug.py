"""Does varying an older drug lead to a newer one? A network's variants against what costs nothing, on pairs by year of approval.

    python benchmarks/prototype_to_drug.py --run drugs.prototype --prior drugs.lstm [--data FOLDER] [--n 1000] [--pairs 0]
        [--diversity 1.5] [--seed 0] [--minutes M] [--out FOLDER]

FOLDER (default: SIMULACRA_DATA) holds molecules/ with zinc250k.csv.gz, approved_prototype_pairs.csv.gz, approved_drugs_year.csv.gz and
fda_drugs_cdn.csv.gz. --run and --prior name a run folder, or a study whose weights ship. What is compared, at n designs per prototype:

    network              variants of the prototype, ranked by the likelihood of their strings
    shuffled prototypes  the same variants, given to the pair of another prototype: what a match by chance looks like
    prior                strings of a language model that never saw a prototype, ranked by their likelihood: n of POOL x n for each
    mutations            molecules that are one change of the graph away (mutations.py), ranked by the prior's likelihood
    neighbours           the training molecules nearest to the prototype by ECFP4, nearest first
    random               as many random training molecules

The prior is trained on all of ZINC, drugs included; network, neighbours and random molecules know only what its leak check left.
First the leak check itself is reported. Outcomes of each prototype are kept in --out (prototype_to_drug.jsonl) as they are found, so that
a run that was stopped goes on where it was. Prototypes come in random order; after --minutes those that are done are reported. One line
per method goes to standard output, as a table.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from simulacra import drawing
from simulacra.pipeline import recipe_of
from simulacra.runs import Run
from simulacra.sciences.drugs import approvals, data, leaks, measuring, mutations
from simulacra.sciences.drugs.measuring import IDENTITY
from simulacra.study import Noise, Refused

OURS = "network"
POOL = 4  # times n: strings of the prior that are drawn in all


def opened(what, **changes):
    """A learner of a finished run or of shipped weights, or, for development, in the newest state of a run that goes on."""
    path = Path(what)
    if path.is_dir() and (path / "recipe.json").is_file():
        asked, recipe = recipe_of(Run.open(path))
        step, state = Run.open(path).state()
        if step < recipe.steps:
            print(f"{what} is at step {step} of {recipe.steps}: not its final weights", file=sys.stderr)
        return asked.restore(recipe.model_copy(update={**changes, "threads": 1}), state), recipe
    source = drawing.opened(what)
    return source.changed(changes).learner(), source.recipe


def designed(table, surprise):
    return approvals.Designs.ranked(table, np.asarray(surprise, float))


def coded(learner):
    def able(smiles):
        try:
            learner.numbers(smiles)
        except Refused:
            return False
        return True

    return able


class Makers:
    """The ways to make designs for a prototype."""

    def __init__(self, learner, prior, known, n, seed):
        self.learner, self.prior, self.known, self.n, self.seed = learner, prior, known, n, seed
        drawn = prior.sampled(range(POOL * n), seed=seed)
        self.pool = measuring.measured_here(prior.vocabulary.decoded(drawn.tokens), (IDENTITY,))
        self.pool_surprise = drawn.log_loss.numpy()

    def network(self, smiles, number):
        rows = range(self.n)
        moved = Noise(self.seed + 1000 * number, rows).normal(self.learner.latent)
        drawn = self.learner.written(self.learner.codes([smiles] * self.n, moved), rows, self.seed)
        strings = self.learner.vocabulary.decoded(drawn.tokens)
        surprise = {}
        for one, loss in zip(strings, drawn.log_loss.tolist(), strict=True):
            surprise[one] = min(loss, surprise.get(one, loss))
        found = measuring.measured_here(list(surprise), (IDENTITY,))  # each string once: many come again
        valid = {one for one, good in zip(surprise, found.valid, strict=True) if good}
        return designed(found, list(surprise.values())), float(np.mean([one in valid for one in strings]))

    def drawn_from_prior(self, smiles, number):
        rows = np.random.default_rng([self.seed, 0xD, number]).choice(len(self.pool), self.n, replace=False)
        found = self.pool[rows]
        return designed(found, self.pool_surprise[rows]), float(found.valid.mean())

    def mutated(self, smiles, number):
        near = mutations.one_step(smiles)
        chosen = np.random.default_rng([self.seed, number]).permutation(len(near))[: self.n]
        some = [near[i] for i in sorted(chosen)]
        surprise = self.prior.score(data.compounds(some)).numpy() if some else np.zeros(0)
        return designed(measuring.measured_here(some, (IDENTITY,)), np.nan_to_num(surprise, posinf=1e9)), 1.0

    def neighbours(self, smiles, number):
        own = measuring.measured_here([smiles], (IDENTITY,))
        near = approvals.similarities(self.known.bits, own.bits)
        rows = np.argsort(-near, kind="stable")[: self.n]
        return designed(self.known[rows], -near[rows]), 1.0

    def random(self, smiles, number):
        rng = np.random.default_rng([self.seed, 0xF, number])
        rows = rng.choice(len(self.known), self.n, replace=False)
        return designed(self.known[rows], rng.random(self.n)), 1.0


def outcomes_of(pair_rows, found, designs):
    return {i: vars(approvals.outcome(found[i], designs)) for i in pair_rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="drugs.prototype")
    parser.add_argument("--prior", default="drugs.lstm")
    parser.add_argument("--data", type=Path, default=os.environ.get("SIMULACRA_DATA"))
    parser.add_argument("--n", type=int, default=1000, help="designs per prototype")
    parser.add_argument("--pairs", type=int, default=0, help="pairs, chosen at random; 0: all that can be used")
    parser.add_argument("--diversity", type=float, default=1.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which those that are done are reported")
    parser.add_argument("--out", type=Path, default=Path("runs/prototype_to_drug"))
    args = parser.parse_args()
    if args.data is None:
        parser.error("--data FOLDER, or SIMULACRA_DATA, must name the folder that holds molecules/")
    torch.set_num_threads(1)
    folder = Path(args.data) / "molecules"
    learner, recipe = opened(args.run, diversity=args.diversity)
    prior, _ = opened(args.prior)
    drugs = (folder / "approved_drugs_year.csv.gz", folder / "fda_drugs_cdn.csv.gz")
    nature = data.load(folder / "zinc250k.csv.gz", seed=0, simulated=1)
    everything = [s for part in (nature.train, nature.validation, nature.held_out) for s in data.texts(part)]
    count, same = approvals.leaked(everything, drugs[1])
    print(f"leak check: {count:,} drugs of {drugs[1].name} that differ in more than stereo, {len(same)} of them in ZINC250k as they stand")
    strings = data.texts(nature.train)
    rows, said, _ = leaks.checked(strings, drugs, alike=recipe.alike)
    print(f"leak check: {said}; {len(rows):,} are left" + ("" if recipe.without else " (THE NETWORK WAS TRAINED WITHOUT THIS CHECK)"))
    known = measuring.measure(strings, (IDENTITY,), remember=True)[rows]

    found, dropped = approvals.pairs(folder / "approved_prototype_pairs.csv.gz")
    able = approvals.usable(found, coded(learner))
    print(
        f"pairs: {len(found)} of different flat molecules ({'; '.join(dropped)}); {len(able)} of them with a similarity of "
        f"{approvals.LEAST:g} to {approvals.MOST:g} whose molecules the network can write"
    )
    if args.pairs and args.pairs < len(able):
        chosen = np.random.default_rng([args.seed, 0x9A]).permutation(len(able))[: args.pairs]
        able = [able[i] for i in sorted(chosen)]

    makers = Makers(learner, prior, known, args.n, args.seed)
    ways = {
        OURS: makers.network, "prior": makers.drawn_from_prior, "mutations": makers.mutated, "neighbours": makers.neighbours,
        "random": makers.random,
    }  # fmt: skip
    outcomes, valid, done = compared(able, ways, args)
    if len(done) < len(able):
        print(f"{len(done)} of {len(able)} pairs, whose prototypes were done when time was over")
    able = [able[i] for i in done]
    print(f"valid: {', '.join(f'{name} {np.mean(v):.3f}' for name, v in valid.items() if name in (OURS, 'prior'))}")
    for line in approvals.summary(able, outcomes, OURS, seed=args.seed):
        print(line)
    for name, each in outcomes.items():
        for pair, one in zip(able, each, strict=True):
            if one.rank is not None:
                print(f"hit, {name}, rank {one.rank} of {one.size}: {pair.sentence()}")


def compared(pairs, ways, args):
    """Outcomes of every way, pair by pair, the shares of valid strings, and which pairs are done; prototypes that the file of an earlier
    run holds are read."""
    args.out.mkdir(parents=True, exist_ok=True)
    key = [args.run, args.prior, args.n, args.diversity, args.seed, args.pairs]
    path = args.out / "prototype_to_drug.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {line["prototype"]: line for line in lines if line["key"] == key}
    named = sorted({p.prototype_flat for p in pairs})
    prototypes = [named[i] for i in np.random.default_rng([args.seed, 0x0D]).permutation(len(named))]
    shuffle = approvals.shuffled(pairs, prototypes)
    began = time.monotonic()
    with open(path, "a") as file:
        for number, flat in enumerate(prototypes):
            if flat in done:
                continue
            if time.monotonic() - began > 60 * args.minutes:
                break
            own = [i for i, p in enumerate(pairs) if p.prototype_flat == flat]
            others = [i for i, j in enumerate(shuffle) if pairs[j].prototype_flat == flat]
            line = {"key": key, "prototype": flat, "outcomes": {}, "valid": {}}
            for name, way in ways.items():
                designs, line["valid"][name] = way(pairs[own[0]].prototype, number)
                line["outcomes"][name] = outcomes_of(own, pairs, designs)
                if name == OURS:
                    line["outcomes"]["shuffled prototypes"] = outcomes_of(others, pairs, designs)
            line = json.loads(json.dumps(line))
            done[flat] = line
            print(json.dumps(line), file=file, flush=True)
            if number % 20 == 19:
                spent = time.monotonic() - began
                print(f"{number + 1}/{len(prototypes)} prototypes, {spent:.0f} s", file=sys.stderr)
    prototypes = [flat for flat in prototypes if flat in done]
    names = [OURS, "shuffled prototypes", *(name for name in ways if name != OURS)]
    table = {name: {} for name in names}
    for flat in prototypes:
        for name in names:
            table[name].update({int(i): approvals.Outcome(**one) for i, one in done[flat]["outcomes"][name].items()})
    valid = {name: [done[flat]["valid"][name] for flat in prototypes] for name in ways}
    # A pair is done where its own designs and those that it is given in place of them are.
    complete = [i for i in range(len(pairs)) if all(i in table[name] for name in names)]
    return {name: [table[name][i] for i in complete] for name in names}, valid, complete


if __name__ == "__main__":
    main()
