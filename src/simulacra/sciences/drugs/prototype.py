"""Variants of a molecule: a prototype's code, moved at random, is written as SMILES (Harel & Radinsky 2018, arXiv:1804.02668).

The authors call it a conditional diversity network: a variational autoencoder of strings (variation.py) whose codes are drawn wider or
narrower around the prototype's by a diversity, the dial of this study. Its loss, per molecule and in nats:

    -log p(x | z) + beta KL(q(z|x) || N(0, 1))

    paper    as in the authors' code: 37 characters (34, start, end, padding), strings of at most 48 characters in 50 places, embedding
             128, convolutions of widths 3, 4, 5, 6 with 128 filters, neither padded nor pooled, 450, 300; sigma a raw linear output; an
             LSTM of 150 whose state is the code. Cross-entropy over all 50 places, padding included: its mean + 1e-5 KL, which is
             1/50 of the above with beta = 5e-4. Adam 1e-3, x .96 every 5,000 steps, batches of 64; the likeliest character is written
    laptop   what the paper lacks: sigma = exp(log variance / 2), a loss that leaves padding out, beta that rises, whole tokens, the code
             beside every token that is written, half as many weights; and training without any molecule that will be asked for
             (`without`, leaks.py)
    quick    laptop, smaller, on molecules made by rule

A row of nature is a held-out molecule that is its own prototype. What the dial does is measured (dial.py) and shown in every report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from simulacra.descent import Descent, under
from simulacra.evidence import Check, Figure, Finding
from simulacra.families import sequence
from simulacra.families.autoencoder import kl_to_standard_normal, reparametrised
from simulacra.sciences.drugs import data, dial, exchange, leaks, pictures, reading, statistics, writer
from simulacra.sciences.drugs.data import Compounds, as_bytes, prompts, texts
from simulacra.sciences.drugs.tokens import PAD, Spelling, UnknownToken, Vocabulary, shortened
from simulacra.sciences.drugs.variation import Sizes, Spread, Variation, begin_as_published
from simulacra.study import Noise, Refused, Split, Study
from simulacra.training import device_of, dtype_of

SHOWN = 2000  # molecules drawn for the figures of all systems
ALPHABET = "#()+-/12345678=@BCFHINOPS[\\]clnors"  # the 34 characters of the paper, which are those of ZINC250k
CODED = 64  # prototypes whose codes are computed together, always as many: a row must not depend on how many are drawn
ROWS = 156 * CODED  # of one block of a draw: so many strings are held, however many are asked for
MOLECULES = (".smi", ".txt", ".smiles", ".csv", ".tsv", ".sdf")


class PrototypeRecipe(writer.StringRecipe):
    """An autoencoder of molecules whose codes can be varied."""

    diversity: float = Field(
        1.0, ge=0, le=10, description="The dial: deviations by which a prototype's code is moved; 0: its reconstruction.",
        json_schema_extra={"drawing": True},
    )  # fmt: skip
    temperature: float = Field(
        0.0, ge=0, le=3, description="Of writing: 0 takes the likeliest token, so that all variety is the dial's.",
        json_schema_extra={"drawing": True},
    )  # fmt: skip
    without: tuple[Path, ...] = Field(
        (), description="Files of molecules that must not be in training, flat or by InChIKey-14: those that will be asked for."
    )
    alike: float = Field(
        1.0, gt=0, le=1, description="Training molecules with this ECFP4 Tanimoto similarity to one of `without` go too; 1: only its own."
    )
    corrected: int = Field(0, ge=0, le=0, description="No such steps here: drugs.lstm and drugs.transfer have them.")
    notation: Spelling = Field(  # type: ignore[assignment]  # more than a writer takes
        "smiles", description="smiles: whole tokens; characters: every character a token, as published; selfies."
    )
    randomised: float = Field(
        0.0, ge=0, le=1, description="Share of training strings that are read from a random atom on; all are written canonical."
    )
    longest: int = Field(80, ge=8, le=500, description="Places of a string: tokens, end and at least one of padding.")
    latent: PositiveInt = Field(96, description="Numbers in a code.")
    widths: tuple[int, ...] = Field((3, 4, 5, 6), description="Tokens that the convolutions of the encoder span.")
    filters: PositiveInt = Field(64, description="Filters of each width.")
    narrow: int = Field(12, ge=0, description="Numbers that a second convolution leaves at each place; 0: all filters stay, unpadded.")
    dense: PositiveInt = Field(256, description="Width of the dense layer of the encoder.")
    spread: Spread = Field("log-variance", description="What the encoder gives: the log variance, or sigma raw, of any sign (published).")
    start: Literal["linear", "code"] = Field("linear", description="The decoder's first state: made of the code, or the code itself.")
    beside: bool = Field(True, description="The decoder reads the code beside each token too.")
    beta: float = Field(0.02, ge=0, description="Weight of the divergence, in nats, beside the cross-entropy of a whole string.")
    anneal: int = Field(0, ge=0, description="Steps over which beta rises from 0.")
    padded: bool = Field(False, description="Padding counts in the loss, as published.")
    stairs: int = Field(0, ge=0, description="Steps after which the learning rate falls by 4 %, again and again; 0: half cosine to 0.")
    mixed: bool = Field(False, description="Batches of all lengths, as published; else of about equal length, which saves time.")


class Mixed(Compounds):
    """Molecules whose batches hold all lengths."""

    @property
    def bucket(self) -> Tensor:
        """One class for all."""
        return torch.zeros(len(self), dtype=torch.long)


class Varier:
    """The autoencoder, its vocabulary and its training."""

    def __init__(self, recipe: PrototypeRecipe, vocabulary: Vocabulary, mean_length: float) -> None:
        self.recipe, self.vocabulary, self.mean_length = recipe, vocabulary, mean_length
        self.device = device_of(recipe.device)
        self.dtype = dtype_of(recipe.precision, self.device)
        self.latent = recipe.latent
        self.calibrations: dict[int, dial.Calibration] = {}
        model = Variation(len(vocabulary), Sizes.of(recipe))
        if recipe.start == "code":
            begin_as_published(model)
        self.descent = Descent(
            model.to(self.device), lr=recipe.lr, betas=(0.9, 0.999), clip=None if recipe.stairs else 1.0, ema=recipe.ema,
            warmup=min(recipe.warmup, recipe.steps // 10), horizon=None if recipe.stairs else recipe.steps,
            stairs=(0.96, recipe.stairs) if recipe.stairs else (1.0, 1),
        )  # fmt: skip

    @property
    def averaged(self) -> Variation:
        """The weights that code and write."""
        return cast(Variation, self.descent.average)

    # --- training ---

    def step(self, batch: Compounds) -> Mapping[str, Any]:
        strings = texts(batch)
        tokens = self.encoded(strings)
        seen = tokens[:, 1:] if not self.recipe.randomised else self.encoded(self._begun_anywhere(strings))[:, 1:]
        model = cast(Variation, self.descent.module)
        loss, kl = self.terms(model, tokens, seen, torch.randn(len(tokens), self.latent, device=self.device))
        # Divided by the tokens of a usual batch, not of this one: the few strings of a rare length must not weigh like many.
        norm = self.descent((loss + self.weight() * kl).sum() / (self.recipe.batch * self.mean_length))
        return {"nats": loss.detach().mean(), "divergence": kl.detach().mean(), "gradient": norm}

    def terms(self, model: Variation, tokens: Tensor, seen: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """-log p(x|z) at one draw of z, and KL(q || N(0, 1)), each (n,) in nats. `tokens` (n, longest + 1) are written, `seen` coded."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            mean, log_variance = model.posterior(seen)
            code = reparametrised(mean, log_variance, noise)
            if not self.recipe.padded:
                tokens = tokens[:, : int((tokens != PAD).sum(1).max())]
            logits = model(tokens[:, :-1], code)
        loss = sequence.log_loss_padded if self.recipe.padded else sequence.log_loss
        return loss(logits, tokens), kl_to_standard_normal(mean, log_variance)

    def weight(self) -> float:
        """Of the divergence in the coming step."""
        return self.recipe.beta * (min(1.0, (self.descent.count + 1) / self.recipe.anneal) if self.recipe.anneal else 1.0)

    def encoded(self, smiles: Sequence[str]) -> Tensor:
        """Strings as (n, longest + 1) token numbers: start, tokens, end, padding. Refused where one is too long or not known."""
        tokens = torch.full((len(smiles), self.recipe.longest + 1), PAD)
        numbers: dict[str, Tensor] = {}
        for row, one in enumerate(smiles):
            if one not in numbers:
                numbers[one] = torch.tensor([sequence.START, *self.numbers(one), sequence.END])
            tokens[row, : len(numbers[one])] = numbers[one]
        return tokens.to(self.device)

    def numbers(self, smiles: str) -> list[int]:
        """Token numbers of a molecule. Refused, by name and token, where it cannot be coded."""
        try:
            found = self.vocabulary.numbers(smiles)
        except UnknownToken as error:
            raise Refused(f"{error}; this model cannot code it. Train one on molecules that hold it") from None
        if len(found) > self.recipe.longest - 2:
            what = "characters" if self.vocabulary.notation == "characters" else "tokens"
            raise Refused(
                f"{shortened(smiles)} has {len(found)} {what}; this model codes molecules of at most {self.recipe.longest - 2}. Train one "
                f"with --longest {len(found) + 2}"
            )
        return found

    def _begun_anywhere(self, smiles: Sequence[str]) -> list[str]:
        """Strings to be read, some of them begun at a random atom where what they become is not too long."""
        chosen, seeds = torch.rand(len(smiles)) < self.recipe.randomised, torch.randint(2**31 - 1, (len(smiles),)).tolist()
        found = []
        for one, turn, seed in zip(smiles, chosen.tolist(), seeds, strict=True):
            other = writer.randomised(one, seed) if turn else one
            try:
                self.numbers(other)
            except Refused:
                other = one
            found.append(other)
        return found

    # --- drawing ---

    def at_once(self, like: Compounds) -> int:
        """Rows of a block. A row is drawn in the same way in a smaller one, so none has to be filled up."""
        return max(min(len(like), ROWS), 1)

    def draw(self, like: Compounds, noise: Noise) -> Compounds:
        """A variant of the prototype of each row of `like`, its prompt; where there is none, a string from the prior."""
        rows = noise.rows[: len(like)]
        moved = Noise(noise.seed, rows).normal(self.latent)
        drawn = self.written(self.codes(prompts(like), moved), rows, noise.seed)
        return Compounds(as_bytes(self.vocabulary.decoded(drawn.tokens)), like.prompt.cpu(), like.wish.cpu())

    @torch.no_grad()
    def codes(self, given: Sequence[str], moved: Tensor) -> Tensor:
        """Codes (n, latent) of prototypes, moved by `moved` (n, latent) times the diversity in units of their deviations."""
        mean, deviation = self._posterior(given)
        return mean + self.recipe.diversity * deviation * moved

    @torch.no_grad()
    def _posterior(self, given: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Mean and deviation (n, latent) of the codes of molecules; of an empty string those of the prior."""
        known = [row for row, one in enumerate(given) if one]
        mean, deviation = torch.zeros(len(given), self.latent), torch.ones(len(given), self.latent)
        for start in range(0, len(known), CODED):
            rows = known[start : start + CODED]
            filled = [*rows, *[rows[-1]] * (CODED - len(rows))]
            found = self.averaged.posterior(self.encoded([given[row] for row in filled])[:, 1:])
            mean[rows], deviation[rows] = found[0][: len(rows)].cpu(), (0.5 * found[1][: len(rows)]).exp().cpu()
        return mean, deviation

    @torch.no_grad()
    def written(self, codes: Tensor, rows: Sequence[int], seed: int) -> sequence.Drawn:
        """Strings of codes (n, latent)."""
        recipe, model = self.recipe, self.averaged
        codes = codes.to(self.device)
        padded = torch.nn.functional.pad(codes, (0, 0, 0, -len(codes) % CODED))
        states = [model.state(part) for part in torch.split(padded, CODED)]
        hidden, cell = (torch.cat(parts, 1)[:, : len(codes)] for parts in zip(*states, strict=True))
        return sequence.draw(
            model.decoder, rows, seed=seed, longest=recipe.longest, slots=recipe.slots, temperature=recipe.temperature,
            dtype=writer.drawn_in(recipe.precision, self.device), state=(hidden, cell), beside=codes if recipe.beside else None,
        )  # fmt: skip

    def ask(self, n: int, conditions: Mapping[str, str]) -> Compounds:
        """A template of n variants of the asked prototypes. Refused, in words, for one that this model cannot code."""
        found = ask(self.recipe, n, conditions)
        for one in dict.fromkeys(prompts(found)):
            if one:
                self.numbers(one)
        return found

    # --- codes ---

    def encode(self, samples: Compounds) -> Tensor:
        """Mean codes (n, latent) of molecules."""
        return self._posterior(texts(samples))[0]

    def decode(self, latent: Tensor) -> Compounds:
        """The molecules that codes (n, latent) are written as."""
        drawn = self.written(latent, range(len(latent)), self.recipe.seed)
        return data.compounds(self.vocabulary.decoded(drawn.tokens))

    # --- state ---

    def state_dict(self) -> dict[str, Tensor]:
        return {**self.descent.state_dict(), "vocabulary": self.vocabulary.state(), "mean_length": torch.tensor(self.mean_length)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.descent.load_state_dict(state)

    def to_ship(self) -> dict[str, Tensor]:
        """The averaged weights in half the room, and the vocabulary: all that drawing needs."""
        average = {f"average.{k}": v.to(torch.bfloat16) for k, v in self.descent.average.state_dict().items()}
        return {**average, "vocabulary": self.vocabulary.state(), "mean_length": torch.tensor(self.mean_length)}


def build(recipe: PrototypeRecipe, training: Compounds) -> Varier:
    """A learner with the vocabulary of the training molecules; by characters, with the paper's alphabet at least."""
    strings = texts(training)
    vocabulary = _vocabulary(recipe, strings)
    some = strings[:: max(len(strings) // 2000, 1)]
    mean_length = sum(len(vocabulary.numbers(s)) + 1 for s in some) / len(some)
    return Varier(recipe, vocabulary, float(recipe.longest) if recipe.padded else mean_length)


def _vocabulary(recipe: PrototypeRecipe, strings: Sequence[str]) -> Vocabulary:
    found = Vocabulary.of(strings, recipe.notation)
    return Vocabulary(sorted({*ALPHABET, *found.tokens[3:]}), "characters") if recipe.notation == "characters" else found


def restore(recipe: PrototypeRecipe, state: Mapping[str, Tensor]) -> Varier:
    """The learner that `to_ship` or `state_dict` describes, to draw with."""
    learner = Varier(recipe, Vocabulary.from_state(state["vocabulary"]), float(state["mean_length"]))
    weights = under(state, "average") or under(state, "weights")
    learner.descent.average.load_state_dict({k: v.float() for k, v in weights.items()})
    return learner


# ------------------------------------------------------------------------------------------------------ nature and templates


def load(recipe: PrototypeRecipe) -> Split[Compounds]:
    """Your molecules, or molecules made by rule, each its own prototype; from training goes what `without` forbids."""
    split = data.load(
        recipe.data, seed=recipe.seed, simulated=recipe.simulated, longest=recipe.longest - 2, stereo=recipe.stereo, strict=recipe.strict
    )
    rejected = list(split.rejected)
    parts = {name: getattr(split, name) for name in ("train", "validation", "held_out")}
    if recipe.notation == "characters":
        parts = {name: _short(part, recipe.longest - 2, rejected) for name, part in parts.items()}
    origin, files = split.origin, dict(split.files)
    if recipe.without:
        kept, said, known = leaks.checked(texts(parts["train"]), recipe.without, alike=recipe.alike)
        parts["train"] = parts["train"][torch.from_numpy(kept)]
        origin, files = f"{origin}; {said}", files | known
    vocabulary = _vocabulary(recipe, texts(parts["train"]))
    parts |= {name: _known(parts[name], vocabulary, rejected) for name in ("validation", "held_out")}
    kind = Mixed if recipe.mixed else Compounds
    train, validation, held_out = (kind(part.text, part.text, part.wish) for part in parts.values())
    return Split(train, validation, held_out, origin, files, rejected)


def _known(part: Compounds, vocabulary: Vocabulary, rejected: list[str]) -> Compounds:
    """Molecules that are made of the vocabulary's tokens: none other can be coded."""
    kept = []
    for row, smiles in enumerate(texts(part)):
        try:
            vocabulary.numbers(smiles)
            kept.append(row)
        except UnknownToken as reason:
            rejected.append(str(reason))
    return part if len(kept) == len(part) else part[kept]


def _short(part: Compounds, longest: int, rejected: list[str]) -> Compounds:
    """Molecules of at most `longest` characters."""
    size = (part.text > 0).sum(1)
    long = part[size > longest]
    rejected += [f"{shortened(s)}: {len(s)} characters; the recipe reads at most {longest}" for s in texts(long)]
    if int((size <= longest).sum()) < 4:
        raise Refused(f"fewer than 4 molecules have at most {longest} characters; give smaller molecules, or more --longest")
    return part[size <= longest]


def ask(recipe: PrototypeRecipe, n: int, conditions: Mapping[str, str]) -> Compounds:
    """A template of n rows that vary the asked prototypes, in turn; without a prototype, rows are drawn from the prior."""
    unknown = sorted(set(conditions) - {"prototype"})
    if unknown:
        raise Refused(f"drugs.prototype cannot be asked for {', '.join(unknown)}; it takes prototype=SMILES, several by comma, or a file")
    if n < 1:
        raise Refused(f"{n} molecules asked for; expected one or more")
    if "prototype" not in conditions:
        return data.empty(n)
    given = prototypes(conditions["prototype"], stereo=recipe.stereo)
    return data.compounds([""] * n, [given[row % len(given)] for row in range(n)])


def prototypes(text: str, *, stereo: bool = True) -> list[str]:
    """SMILES, canonical, of the molecules that are named: SMILES separated by commas, or the name of a file of molecules."""
    path = Path(text)
    if reading.kind_of(path) in MOLECULES:
        words = [(f"{path.name}, {line.where}: ", line.smiles) for line in reading.lines(path)]
    else:
        words = [("", word.strip()) for word in text.split(",") if word.strip()]
    if not words:
        raise Refused(f"prototype={text}: names no molecule; expected SMILES, several by comma, or a .smi, .csv or .sdf file")
    found = []
    for where, word in words:
        try:
            found.append(reading.clean(word, stereo=stereo)[0])
        except reading.Unusable as reason:
            raise Refused(f"prototype {where}{shortened(word)} {reason}") from None
    return found


def examine(learner: Varier, split: Split[Compounds], seed: int) -> tuple[list[Finding], list[Check]]:
    """What the dial does to held-out prototypes."""
    return dial.findings(calibration(learner, split, seed), learner.recipe.diversity, seed)


def figures(learner: Varier, split: Split[Compounds], seed: int) -> list[Figure]:
    """The dial's calibration, variants of some held-out prototypes at rising diversity, and how draws lie among nature."""
    nature = split.held_out[:: max(len(split.held_out) // SHOWN, 1)][:SHOWN]
    drawn = learner.draw(nature, Noise(seed, range(len(nature))))
    return [*dial.figures(calibration(learner, split, seed)), *pictures.figures(nature, drawn, seed)]


def calibration(learner: Varier, split: Split[Compounds], seed: int) -> dial.Calibration:
    """Variants of held-out prototypes at each diversity of the dial; kept with the learner, since a report asks twice."""
    count = min(dial.PROTOTYPES, max(learner.recipe.draws // 4, 20), len(split.held_out))
    if seed not in learner.calibrations:
        learner.calibrations[seed] = _calibrated(learner, split, seed, count)
    return learner.calibrations[seed]


def _calibrated(learner: Varier, split: Split[Compounds], seed: int, count: int) -> dial.Calibration:
    given = texts(split.held_out[torch.linspace(0, len(split.held_out) - 1, count).round().long()])
    asked = data.compounds([""] * (dial.EACH * len(given)), [one for one in given for _ in range(dial.EACH)])

    def at(diversity: float, from_prior: bool = False) -> list[str]:
        turned = restore(learner.recipe.model_copy(update={"diversity": diversity}), learner.state_dict())
        like = data.empty(len(asked)) if from_prior else asked
        return texts(turned.draw(like, Noise(seed, range(len(asked)))))

    return dial.calibrated(given, {value: at(value) for value in dial.VALUES}, at(1.0, from_prior=True), set(texts(split.train)))


paper = PrototypeRecipe(
    notation="characters", longest=50, embedding=128, filters=128, narrow=0, dense=450, latent=300, spread="raw", start="code", hidden=150,
    layers=1, beside=False, beta=5e-4, padded=True, mixed=True, lr=1e-3, warmup=0, stairs=5000, ema=0.0, batch=64, steps=260_000,
    precision="float32", draws=10_000, stereo=True,
)  # fmt: skip
laptop = PrototypeRecipe(hidden=256, layers=1, lr=3e-3, batch=64, steps=20_000, anneal=1_000, draws=10_000, threads=1)

study: Study[Any, Any] = Study(
    title="Molecules near a prototype from an autoencoder of SMILES",
    source="Harel & Radinsky 2018, arXiv:1804.02668",
    recipes={
        "quick": laptop.model_copy(
            update={"hidden": 128, "latent": 32, "filters": 24, "narrow": 8, "dense": 64, "embedding": 32, "steps": 300, "batch": 64,
                    "lr": 4e-3, "ema": 0.98, "warmup": 20, "anneal": 100, "draws": 400}
        ),
        "laptop": laptop,
        "paper": paper,
    },
    expect={
        "quick": "about 10 s of processor time to train (from single steps), and the verdict",
        "laptop": "ZINC250k: 37 minutes on one thread of a crowded 2-core machine, and the verdict",
        "paper": "not run here",
    },
    load=load,
    build=build,
    judge=statistics.judge,
    read=exchange.read,
    write=exchange.write,
    ask=ask,
    picture=pictures.picture,
    caption=pictures.caption,
    restore=restore,
    examine=examine,
    figures=figures,
    conditions={"prototype": "the molecule to be varied, as SMILES; several by comma, or a .smi, .csv or .sdf file, in turn"},
    formats=exchange.FORMATS,
    export=exchange.export,
    line_formats=exchange.LINE_FORMATS,
    header=exchange.header,
    lines=exchange.lines,
    tally=exchange.tally,
    summary=exchange.summary,
    citation="""@misc{harel2018prototype,
  title = {Accelerating Prototype-Based Drug Discovery using Conditional Diversity Networks},
  author = {Harel, Shahar and Radinsky, Kira},
  year = {2018},
  eprint = {1804.02668},
  archivePrefix = {arXiv},
}""",
)  # fmt: skip
