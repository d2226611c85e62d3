"""How well fragments are grown: molecules at the first try, fragments kept, what is delivered; beside a model that goes on at the end.

    python benchmarks/fragment_growing.py GROWN MOLECULES [PLAIN] [per row] [seeds]

GROWN and PLAIN are runs, folders of weights or studies; PLAIN is the baseline, a model of canonical strings that is given each fragment's
canonical SMILES without its attachment points. MOLECULES is a file that neither learned from; of a file with a split, the validation part,
whose other half is held out, is taken. Fragments are cut from it at single bonds and at bonds of BRICS (cutting.py), and some are written
by hand. Errors: scatter over the seeds of drawing.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from simulacra import drawing
from simulacra.sciences.drugs import asking, cutting, data, growing, tokens
from simulacra.sciences.drugs.properties import flat

BY_HAND = (
    "c1ccc(*)cc1", "*c1ccncc1", "*N1CCOCC1", "*N1CCN(C)CC1", "*C(=O)Nc1ccccc1", "*c1ccc(S(N)(=O)=O)cc1", "*c1nc2ccccc2[nH]1", "*OCc1ccccc1",
    "*[C@H](C)c1ccc(F)cc1", "*c1cnn(C)c1", "*C1CCNCC1", "*c1csc(N)n1", "*n1ccc2ccccc21", "*CC(=O)O", "*C(F)(F)F", "[O-][N+](=O)c1ccc(*)cc1",
    "*c1ccc(*)cc1", "*c1cc(*)ncn1", "*N1CCN(*)CC1", "*C(=O)N*", "*c1ccc2c(c1)N(*)CC2", "*c1cc(*)cc(*)c1",
    "*[C@@H]1CC[C@H](*)CC1", "*C(*)(C)O",
    "c1ccc(*)cc1.*N1CCOCC1", "*c1ccncc1.*c1ccc(Cl)cc1", "*C(N)=O.*c1ccccc1", "*N1CCCC1.*c1ccc(F)cc1", "*c1cnc[nH]1.*OC", "*C1CC1.*c1nccs1",
)  # fmt: skip


def row(grown, plain, texts, seed):
    """Valid at the first try, kept of these, delivered, different of those; of the baseline valid and kept."""
    asked = [growing.fragment(text) for text in texts]
    rows = range(len(asked))
    valid, kept, _ = cutting.trial(asked, rows, asking.completion(grown.writer, grown.writer.descent.average), seed)
    made = growing.grow(asked, rows, asking.completion(grown.writer, grown.writer.descent.average), seed=seed)
    there = [(one, text) for one, text in zip(asked, made, strict=True) if text]
    assert all(growing.kept(one, text) for one, text in there)
    out = [valid, kept, len(there) / len(asked), len({flat(text) for _, text in there}) / max(len(there), 1)]
    return out + list(baseline(plain, asked, seed) if plain else (np.nan, np.nan))


def baseline(plain, asked, seed):
    """Shares of `cutting.at_the_right_end`; of linked fragments there is none."""
    if asked[0].linking:
        return np.nan, np.nan

    writer = plain.writer if hasattr(plain, "writer") else plain

    def known(text):
        return all(word in writer.vocabulary.number for word in tokens.split(text))

    def write(prompts):
        rows = [i for i, text in enumerate(prompts) if known(text)]  # of the others nothing can be written
        out = [""] * len(prompts)
        if not rows:
            return out
        begun = writer._begun([prompts[i] for i in rows])
        for i, text in zip(rows, writer.vocabulary.decoded(writer.sampled(rows, seed=seed, prompt=begun).tokens), strict=True):
            out[i] = text
        return out

    return cutting.at_the_right_end(asked, write)


def main(what, molecules, plain="", per_row="300", seeds="3"):
    torch.set_num_threads(1)
    grown, other = drawing.opened(what), drawing.opened(plain) if plain else None
    learner, beside = grown.learner(), other.learner() if other else None
    pool = data.texts(data.load(Path(molecules), seed=0, simulated=1).held_out)
    sets = {f"{kind}, {'BRICS' if brics else 'single bonds'}": cutting.fragments(pool, kind, int(per_row), brics=brics)
            for kind in cutting.KINDS for brics in (False, True)}  # fmt: skip
    per = max(int(per_row) // len(BY_HAND), 1)
    sets["by hand, one or more points"] = [text for text in BY_HAND if "." not in text for _ in range(per)]
    sets["by hand, link"] = [text for text in BY_HAND if "." in text for _ in range(per)]
    print(f"{grown.sentence()}\nbaseline: {other.sentence() if other else 'none'}; {seeds} seeds")
    print(f"{'fragments':32s}    n   molecules, 1st try   kept of these   delivered   different   baseline molecules   baseline kept")
    for name, texts in sets.items():
        found = np.array([row(learner, beside, texts, seed) for seed in range(int(seeds))])
        mean, spread = found.mean(0), found.std(0, ddof=1) if int(seeds) > 1 else np.zeros(6)
        cells = [f"{m:.4f} ± {s:.4f}" for m, s in zip(mean, spread, strict=True)]
        print(f"{name:32s} {len(texts):4d}   {'   '.join(cells)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
