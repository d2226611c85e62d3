"""Molecules with wished properties: an adversarial autoencoder of fingerprints, and a decoder that makes molecules of them.

druGAN (Kadurin et al. 2017, doi:10.1021/acs.molpharmaceut.7b00346) learns codes z of 20 numbers for fingerprints x of 166 MACCS keys, in
a game that presses the law of codes into N(0, I) (families/adversarial_autoencoder.py). It ends at a fingerprint, for which one then
looks up the nearest known molecule. Here three things stand on its codes:

    p(w | z)      a small network reads the properties w of a molecule (logP, QED, solubility) off its code
    p(s | x, w)   a language model writes the SMILES string s under a fingerprint and wishes (spelling.py)
    draw          z ~ N(0, I); with wishes, one of `candidates` such z, chosen with probability proportional to p(wishes | z), which is
                  p(z | wishes) up to what so few candidates miss; x ~ p(x | z), s ~ p(s | x, w); with `best_of`, the molecule that
                  comes nearest to the wishes among so many drawn like this

    paper    the published networks and game: tanh, batch normalisation after it, Adam 1e-3, batches of 1024, turns 1 : 1 : 1
    laptop   the same game with a discriminator that normalises nothing, falling rates, and a larger string decoder
    quick    the same on molecules made by rule

The game draws its batches from all training molecules, not from the strings of the step, which are of one length. Beside it the
published rival, a variational autoencoder with ReLU and 10 numbers, reconstructs the same batches, for the verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from simulacra.descent import Descent, under
from simulacra.families import adversarial_autoencoder as coding
from simulacra.nets.dense import dense
from simulacra.sciences.drugs import data, exchange, fingerprints, pictures, prior, properties, statistics, wishing, wishing_verdict
from simulacra.sciences.drugs.data import WISHES, Compounds, as_bytes, texts
from simulacra.sciences.drugs.fingerprints import KEYS, Profiles
from simulacra.sciences.drugs.spelling import BLOCK, Speller, in_blocks, told
from simulacra.sciences.drugs.tokens import MARKS, Vocabulary
from simulacra.sciences.drugs.wishing import Range
from simulacra.sciences.drugs.writer import StringRecipe
from simulacra.study import Noise, Split, Study
from simulacra.training import device_of

ROWS = 2048  # of one block of a draw: candidates are held for all of them
WIDTHS = (256, 256)
CRITIC = (64, 64, 8)
READER = 64
EPSILON = 1e-4  # of batch normalisation, as published
ANEW = 2**40  # between the numbers of a row's attempts, which chance belongs to: rows that are asked for lie below
LEAST_LOG_VARIANCE = -6.0  # of read properties, in units of their variance: none is read off a code more sharply

Objective = Literal["aae", "vae"]


class FingerprintRecipe(StringRecipe):
    """An autoencoder of fingerprints, and a decoder from fingerprints to strings."""

    corrected: int = Field(0, ge=0, le=0, description="No such steps here: drugs.lstm and drugs.transfer have them.")
    objective: Objective = Field("aae", description="How codes are made standard normal: aae, by a game; vae, by a bound.")
    latent: PositiveInt = Field(20, description="Numbers of a code.")
    activation: Literal["tanh", "relu"] = Field("tanh", description="Of encoder and decoder.")
    critic_norm: bool = Field(False, description="Whether the discriminator normalises over the batch, as in the authors' code.")
    fingerprints: PositiveInt = Field(1024, description="Fingerprints per turn of the game.")
    rounds: PositiveInt = Field(1, description="Rounds of the game per step; each is a turn of discriminator, encoder and autoencoder.")
    code_lr: float = Field(1e-3, gt=0, description="Learning rate of encoder and decoder.")
    critic_lr: float = Field(1e-3, gt=0, description="Learning rate of the discriminator.")
    code_decay: bool = Field(True, description="Whether both fall to 0 on a half cosine over the steps.")
    rival: bool = Field(True, description="Train the published rival beside (a vae; of a vae run: an aae), for the verdict.")
    prior: str = Field(
        "", description="Run of drugs.lstm, or drugs.lstm for the weights that ship: the string decoder begins as it; empty: from nothing."
    )
    state_width: PositiveInt = Field(64, description="Hidden numbers of the network that makes the string decoder's first state.")
    recoded: float = Field(
        0.5, ge=0, le=1, description="Share of training strings that are told the fingerprint which the autoencoder makes of theirs."
    )
    smeared: float = Field(
        0.0, ge=0, le=3, description="Noise on the codes of those fingerprints, in the prior's deviations: wishes then weigh more."
    )
    candidates: PositiveInt = Field(
        256, le=4096, description="Codes among which one is chosen for each row with wishes; 1: any code.",
        json_schema_extra={"drawing": True},
    )  # fmt: skip
    best_of: int = Field(
        1, ge=1, le=64, description="Strings written for each row with wishes, of which the nearest to them is given out.",
        json_schema_extra={"drawing": True},
    )  # fmt: skip


class FingerprintAutoencoder:
    """Codes of fingerprints, what can be read off them, and strings."""

    def __init__(self, recipe: FingerprintRecipe, speller: Speller, held: Range, marginal: Tensor, profiles: Profiles | None) -> None:
        """`marginal`: logits (KEYS,) of the keys' frequencies in training; `profiles`: the training molecules, None where nothing is
        learned."""
        self.recipe, self.speller, self.range, self.profiles = recipe, speller, held, profiles
        self.device = device_of(recipe.device)
        self.marginal = marginal.to(self.device)
        self.coding = player(recipe, recipe.objective, recipe.latent, recipe.activation)
        self.rival = player(recipe, *RIVAL[recipe.objective]) if recipe.rival and profiles is not None else None
        reader = dense([recipe.latent, READER, READER, 2 * len(WISHES)]).to(self.device)
        self.reader = Descent(reader, lr=recipe.code_lr, horizon=_horizon(recipe))

    # --- training ---

    def step(self, batch: Compounds) -> Mapping[str, Any]:
        watched = self._rounds()
        strings = texts(batch)
        bits, values = (part.to(self.device) for part in self._profiles().of(strings))
        return watched | self.speller.step(strings, told(self._shown(bits), self._told(values)))

    def _rounds(self) -> dict[str, Tensor]:
        """The turns of the step, each on fingerprints from all of training: the strings of a batch are of one length."""
        profiles = self._profiles()
        watched: dict[str, Tensor] = {}
        for _ in range(3 * self.recipe.rounds):
            rows = torch.randint(len(profiles), (min(self.recipe.fingerprints, len(profiles)),))
            bits, values = profiles.bits[rows].to(self.device).float(), profiles.values[rows].to(self.device)
            watched |= self.coding.turn(bits)
            if self.rival is not None:
                watched |= {f"rival {name}": loss for name, loss in self.rival.turn(bits).items()}
        return watched | {"reading": self._read(bits, values)}

    def _read(self, bits: Tensor, values: Tensor) -> Tensor:
        """One gradient of the network that reads properties off codes; the codes stay as they are."""
        code = self.coding.codes(bits, torch.randn(len(bits), self.recipe.latent).to(bits))
        loss = _surprise(self.reader.module, code, self.range.standard(values)).sum(1).mean()
        self.reader(loss)
        return loss.detach()

    def _shown(self, bits: Tensor) -> Tensor:
        """The fingerprints that the strings are told: their own, or what the autoencoder makes of them, which is what they are drawn
        from later. A code of the prior is never quite that of a molecule, nor of one that is as wished: where codes are smeared in
        training, strings learn to follow the wish where fingerprint and wish disagree."""
        code = self.coding.codes(bits.float(), torch.randn(len(bits), self.recipe.latent).to(self.device))
        if self.recipe.smeared:
            code = code + self.recipe.smeared * torch.randn(code.shape).to(self.device)
        again = torch.rand(bits.shape).to(self.device) < self.coding.logits(code).sigmoid()
        recoded = torch.rand(len(bits), 1).to(self.device) < self.recipe.recoded
        return torch.where(recoded, again, bits.bool())

    def _told(self, values: Tensor) -> Tensor:
        """The wishes that the strings are told, in standard deviations: none, some or all of their properties, nan where one is not."""
        share = torch.rand(len(values), 1)
        hidden = torch.rand(values.shape) >= share
        return self.range.standard(values).masked_fill(hidden.to(values.device), torch.nan)

    def _profiles(self) -> Profiles:
        if self.profiles is None:
            raise ValueError("weights that were restored to draw with cannot be trained on")
        return self.profiles

    # --- drawing ---

    def at_once(self, like: Compounds) -> int:
        """Rows of a block. A row is drawn in the same way in a smaller one, so none has to be filled up."""
        return max(min(len(like), ROWS // self.recipe.best_of), 1)

    def draw(self, like: Compounds, noise: Noise) -> Compounds:
        """New molecules, as strings; where a row of `like` has wishes, near them."""
        wish, rows = self.range.standard(like.wish.to(self.device)), list(noise.rows[: len(like)])
        asked = torch.nonzero((~wish.isnan()).any(1)).flatten().tolist() if self.recipe.best_of > 1 else []
        again = [rows[i] + k * ANEW for k in range(1, self.recipe.best_of) for i in asked]
        found = self._written(torch.cat([wish, wish[asked].repeat(self.recipe.best_of - 1, 1)]), Noise(noise.seed, [*rows, *again]))
        strings, others = found[: len(rows)], found[len(rows) :]
        if asked:
            attempts = [[strings[i] for i in asked], *(others[k : k + len(asked)] for k in range(0, len(others), len(asked)))]
            for i, nearest in zip(asked, wishing.nearest(attempts, wish[asked], self.range), strict=True):
                strings[i] = nearest
        return Compounds(as_bytes(strings), like.prompt.cpu(), like.wish.cpu())

    def _written(self, wish: Tensor, noise: Noise) -> list[str]:
        """A string for each row of wishes, in standard deviations."""
        return self.spelled(self.drawn_fingerprints(wish, noise), wish, noise.rows, seed=noise.seed)

    def drawn_fingerprints(self, wish: Tensor, noise: Noise) -> Tensor:
        """Fingerprints (n, KEYS) for wishes (n, len(WISHES)) in standard deviations."""
        count = self.recipe.candidates if bool((~wish.isnan()).any()) else 1
        codes, chance = noise.normal(count, self.recipe.latent)[: len(wish)], noise.uniform(count)[: len(wish)]
        dice = noise.uniform(KEYS)[: len(wish)]
        code = self._chosen(codes.to(self.device), wish, chance.to(self.device)) if count > 1 else codes[:, 0].to(self.device)
        return dice.to(self.device) < in_blocks(self.coding.logits, code).sigmoid()

    @torch.no_grad()
    def _chosen(self, codes: Tensor, wish: Tensor, chance: Tensor) -> Tensor:
        """Of codes (n, count, latent) one per row (n, latent), with probability proportional to p(wish | z): the largest of log p plus
        Gumbel noise, made of `chance` (n, count). Where nothing is wished for, the first."""
        n, count, latent = codes.shape
        rows = torch.cat([codes.flatten(0, 1), wish.repeat_interleave(count, 0)], 1)

        def surprise(block: Tensor) -> Tensor:
            return _surprise(self.reader.module, block[:, :latent], block[:, latent:]).sum(1)

        log_p = -in_blocks(surprise, rows, 16 * BLOCK).reshape(n, count)
        gumbel = -(-chance.clamp(1e-7, 1 - 1e-7).log()).log()
        place = torch.where(wish.isnan().all(1), 0, (log_p + gumbel).argmax(1))
        return codes[torch.arange(n, device=codes.device), place]

    def spelled(self, bits: Tensor, wish: Tensor, rows: Any, *, seed: int, temperature: float | None = None) -> list[str]:
        """Strings for fingerprints (n, KEYS) and wishes in standard deviations."""
        heat = self.recipe.temperature if temperature is None else temperature
        return self.speller.sampled(told(bits, wish), rows, seed=seed, temperature=heat)

    def ask(self, n: int, conditions: Mapping[str, str]) -> Compounds:
        """A template of n rows with wishes (wishing.py). Warns of a wish that training never met."""
        template = wishing.ask(n, conditions)
        self.range.warn(template.wish)
        return template

    # --- the latent space ---

    def encode(self, samples: Compounds) -> Tensor:
        """Code (n, latent) of each molecule's fingerprint."""
        bits = torch.from_numpy(fingerprints.keys([properties.molecule(s) for s in texts(samples)]))
        return in_blocks(self.coding.encode, bits.to(self.device).float())

    def decode(self, latent: Tensor) -> Compounds:
        """The likeliest fingerprint at each code, and of it the likeliest string, token by token."""
        bits = in_blocks(self.coding.logits, latent.to(self.device)) > 0
        return data.compounds(self.spelled(bits, _nothing(len(bits), self.device), range(len(bits)), seed=0, temperature=0.0))

    def score(self, samples: Compounds) -> Tensor:
        """Cross-entropy in nats of each molecule's fingerprint and what the autoencoder makes of it: high for molecules unlike those of
        training; infinite where a string is none."""
        mols = [properties.molecule(s) for s in texts(samples)]
        bits = torch.from_numpy(fingerprints.keys(mols)).to(self.device).float()
        loss = coding.bernoulli_log_loss(in_blocks(self.coding.logits, in_blocks(self.coding.encode, bits)), bits).cpu()
        return torch.where(torch.tensor([mol is not None for mol in mols]), loss, torch.inf)

    # --- state ---

    def state_dict(self) -> dict[str, Tensor]:
        parts: dict[str, Any] = {"coding": self.coding, "reader": self.reader, "speller": self.speller}
        if self.rival is not None:
            parts["rival"] = self.rival
        return {f"{name}.{k}": v for name, part in parts.items() for k, v in part.state_dict().items()} | self._learnt()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        parts: dict[str, Any] = {"coding": self.coding, "reader": self.reader, "speller": self.speller}
        for name, part in parts.items():
            part.load_state_dict(under(state, name))
        if self.rival is not None:
            self.rival.load_state_dict(under(state, "rival"))

    def _learnt(self) -> dict[str, Tensor]:
        return {"range": self.range.state(), "marginal": self.marginal}

    def to_ship(self) -> dict[str, Tensor]:
        """All that drawing needs, in half the room: autoencoder, reader, the averaged string decoder. Players of games stay at home."""
        needed = ("coding.autoencoder.weights.", "reader.weights.")
        small = {k: _halved(v) for k, v in self.state_dict().items() if k.startswith(needed)}
        return small | {f"speller.{k}": v for k, v in self.speller.to_ship().items()} | self._learnt()


def _nothing(n: int, device: torch.device) -> Tensor:
    """No wishes, for n rows."""
    return torch.full((n, len(WISHES)), torch.nan, device=device)


def _halved(value: Tensor) -> Tensor:
    return value.to(torch.bfloat16) if value.is_floating_point() else value


def _surprise(reader: nn.Module, code: Tensor, wish: Tensor) -> Tensor:
    """-log p of each wish (n, len(WISHES)), in standard deviations, under the law that the reader gives at the code, less a constant; 0
    where nothing is wished for."""
    mean, log_variance = reader(code).chunk(2, 1)
    log_variance = log_variance.clamp_min(LEAST_LOG_VARIANCE)
    known = ~wish.isnan()
    off = torch.where(known, wish, 0.0) - mean
    return torch.where(known, 0.5 * (off.square() * (-log_variance).exp() + log_variance), 0.0)


# ---------------------------------------------------------------------------------------------------------------------- building

RIVAL: Mapping[Objective, tuple[Objective, int, Literal["tanh", "relu"]]] = {"aae": ("vae", 10, "relu"), "vae": ("aae", 20, "tanh")}


def _horizon(recipe: FingerprintRecipe) -> int | None:
    return recipe.steps * recipe.rounds if recipe.code_decay else None


def player(recipe: FingerprintRecipe, objective: Objective, latent: int, activation: str) -> coding.Coding:
    """An autoencoder of KEYS bits under an objective."""
    active = nn.Tanh if activation == "tanh" else nn.ReLU
    device = device_of(recipe.device)
    encoder = dense([KEYS, *WIDTHS, latent * (1 if objective == "aae" else 2)], activation=active, norm=_norm)
    autoencoder = coding.Autoencoder(encoder, dense([latent, *reversed(WIDTHS), KEYS], activation=active, norm=_norm)).to(device)
    if objective == "vae":
        return coding.Variational(autoencoder, latent=latent, lr=recipe.code_lr, horizon=_horizon(recipe))
    critic = dense([latent, *CRITIC, 1], activation=nn.Tanh, norm=_norm if recipe.critic_norm else None).to(device)
    return coding.Adversarial(
        autoencoder, critic, latent=latent, lr=recipe.code_lr, critic_lr=recipe.critic_lr, horizon=_horizon(recipe)
    )


def _norm(width: int) -> nn.Module:
    return nn.BatchNorm1d(width, eps=EPSILON)


def build(recipe: FingerprintRecipe, training: Compounds) -> FingerprintAutoencoder:
    """A learner with the vocabulary, the fingerprints and the properties of the training molecules."""
    strings = texts(training)
    profiles = Profiles(strings)
    held, marginal = Range.of(profiles.values), coding.marginal_logits(profiles.bits.float())
    return FingerprintAutoencoder(recipe, speller_of(recipe, strings), held, marginal, profiles)


def speller_of(recipe: FingerprintRecipe, strings: Sequence[str]) -> Speller:
    """A string decoder with the vocabulary of the training strings, that begins as the recipe's prior where it names one."""
    known = prior.find(recipe.prior) if recipe.prior else None
    vocabulary = Vocabulary.of(strings, recipe.notation if known is None else known.vocabulary.notation)
    if known is None:
        some = strings[:: max(len(strings) // 2000, 1)]
        return Speller(recipe, vocabulary, sum(len(vocabulary.numbers(s)) + 1 for s in some) / len(some), recipe.state_width)
    writer = prior.writer_from(known, recipe, vocabulary.tokens[len(MARKS) :])
    speller = Speller(writer.recipe, writer.vocabulary, known.mean_length, recipe.state_width)
    speller.begin_as(writer.descent.average.state_dict())
    return speller


def restore(recipe: FingerprintRecipe, state: Mapping[str, Tensor]) -> FingerprintAutoencoder:
    """The learner that `to_ship` or `state_dict` describes, to draw with."""
    words, length = Vocabulary.from_state(state["speller.vocabulary"]), float(state["speller.mean_length"])
    language = under(state, "speller.average.language") or under(state, "speller.weights.language")
    recipe = recipe.model_copy(update={"layers": sum(name.startswith("lstm.weight_hh_l") and name[-1].isdigit() for name in language)})
    recipe = recipe.model_copy(update={"hidden": language["out.weight"].shape[1], "embedding": language["embedding.weight"].shape[1]})
    speller = Speller(recipe, words, length, recipe.state_width)
    learner = FingerprintAutoencoder(recipe, speller, Range(*state["range"].float()), state["marginal"].float(), None)
    learner.speller.load_shipped(under(state, "speller"))
    whole = {k: _whole(v) for k, v in state.items() if k.startswith(("coding.", "reader."))}
    learner.coding.load_drawing(under(whole, "coding"))
    learner.reader.module.load_state_dict(under(whole, "reader.weights"))
    return learner


def _whole(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def load(recipe: FingerprintRecipe) -> Split[Compounds]:
    """Your molecules, or molecules made by rule."""
    known = prior.find(recipe.prior) if recipe.prior else None
    split = data.load(
        recipe.data, seed=recipe.seed, simulated=recipe.simulated, longest=recipe.longest - 1, stereo=recipe.stereo, strict=recipe.strict
    )
    if known is None:
        return split
    return replace(split, origin=f"{split.origin}; {known.sentence()}", files={**split.files, "prior": known.digest})


def ask(recipe: FingerprintRecipe, n: int, conditions: Mapping[str, str]) -> Compounds:
    """A template of n rows with wishes."""
    return wishing.ask(n, conditions)


paper = FingerprintRecipe(
    critic_norm=True, code_decay=False, hidden=128, layers=2, steps=10_000, batch=256, draws=10_000, lr=1e-3, threads=1,
)  # fmt: skip
laptop = FingerprintRecipe(
    prior="drugs.lstm", critic_lr=4e-3, steps=5_000, batch=128, lr=2e-3, ema=0.99, state_width=128, draws=10_000, threads=1,
    recoded=0.75, smeared=0.7,
)  # fmt: skip
quick = FingerprintRecipe(
    hidden=128, layers=2, steps=600, batch=64, fingerprints=256, code_lr=2e-3, lr=5e-3, ema=0.98, warmup=20, draws=400, longest=80,
    simulated=2000, threads=1,
)  # fmt: skip

study: Study[Any, Any] = Study(
    title="Molecules with wished properties from an adversarial autoencoder of fingerprints",
    source="Kadurin, Nikolenko, Khrabrov, Aliper, Zhavoronkov 2017, doi:10.1021/acs.molpharmaceut.7b00346",
    recipes={"quick": quick, "laptop": laptop, "paper": paper},
    expect={
        "quick": "about a minute of processor time on one core, half of it training",
        "laptop": "about 0.28 s of processor time a step on one busy core, so 25 minutes (from a trial of 1,200 steps), and the verdict; "
        "fingerprints of 220,000 molecules once before, 8 minutes",
        "paper": "0.05 s of processor time a round of the game, strings not counted (from 400 rounds; not run to its end)",
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
    examine=wishing_verdict.examine,
    figures=wishing_verdict.figures,
    conditions=wishing.CONDITIONS,
    formats=exchange.FORMATS,
    export=exchange.export,
    summary=exchange.summary,
    citation="""@article{kadurin2017drugan,
  title = {{druGAN}: An Advanced Generative Adversarial Autoencoder Model for de Novo Generation of New Molecules with Desired Molecular
    Properties in Silico},
  author = {Kadurin, Artur and Nikolenko, Sergey and Khrabrov, Kuzma and Aliper, Alex and Zhavoronkov, Alex},
  journal = {Molecular Pharmaceutics},
  year = {2017},
  doi = {10.1021/acs.molpharmaceut.7b00346},
}""",
)
