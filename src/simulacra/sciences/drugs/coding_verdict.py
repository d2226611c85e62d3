"""What codes of fingerprints are worth: beside what knows less, and beside the published rival.

    reconstruction   -log p(x | code of x) of held-out fingerprints; rivals: the keys' frequencies in training, the variational autoencoder
    laws             frequencies of keys, of pairs of keys, and the number of keys, of fingerprints drawn from the prior
    codes            energy distance of held-out codes to N(0, I); floor: N(0, I) to itself
    regression       logP and solubility (ESOL), computed by RDKit, from codes by ridge regression, cross-validated on held-out molecules;
                     beside the raw keys, and a random projection of them of the same width
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulacra.evidence import Check, Finding, Statistic, average, compare, distribution, scored
from simulacra.families import adversarial_autoencoder as coding
from simulacra.families.autoencoder import kl_to_standard_normal
from simulacra.measures import distance
from simulacra.sciences.drugs.data import WISHES
from simulacra.sciences.drugs.fingerprints import KEYS
from simulacra.sciences.drugs.spelling import in_blocks
from simulacra.study import Noise

Array = NDArray[np.float64]

PAIRS = 400  # of keys: those whose covariance in training is largest
DISTANT = 1000  # codes whose distances are all looked at
FOLDS, RIDGE, PROJECTIONS = 5, 1.0, 5
MARGINAL, INDEPENDENT, EQUAL = "frequencies of keys", "independent keys", "all keys equally frequent"
WIDER = "a normal law 1.5 times as wide"


def verdict(learner: Any, bits: Tensor, values: Tensor, seed: int) -> tuple[list[Finding], list[Check]]:
    """All of the above, for held-out fingerprints (n, KEYS) and their properties (n, len(WISHES)). `learner` has `coding`, `rival`
    (another coding or None), `marginal`, `profiles` and `drawn_fingerprints`."""
    x = bits.float().to(learner.device)
    finding, reconstructed = reconstruction(learner, x, seed)
    laws, lawful = prior_laws(learner, bits, seed)
    latent, told_apart = codes_against_prior(learner, x, seed)
    read = [regression(learner, x, values, name, seed) for name in ("logP", "solubility")]
    return [finding, *laws, latent], [reconstructed, *lawful, *told_apart, *game(learner, x, latent.gap), *read]


# ------------------------------------------------------------------------------------------------------------- reconstruction


def per_key(model: coding.Coding, bits: Tensor, code: Tensor) -> Tensor:
    """Cross-entropy of each key of each row (n, KEYS), nats, at codes."""
    return torch.nn.functional.binary_cross_entropy_with_logits(in_blocks(model.logits, code), bits, reduction="none")


def reconstruction(learner: Any, bits: Tensor, seed: int) -> tuple[Finding, Check]:
    """Cross-entropy of held-out fingerprints at their codes, against that under the frequencies of training."""
    ours = per_key(learner.coding, bits, in_blocks(learner.coding.encode, bits)).cpu().double()
    marginal = torch.nn.functional.binary_cross_entropy_with_logits(learner.marginal.expand_as(bits), bits, reduction="none").cpu().double()
    zeros = np.zeros(KEYS)
    curves = (zeros, ours.mean(0).numpy(), marginal.mean(0).numpy(), zeros)
    finding = scored(
        "fingerprints from their codes", "nats",
        "Cross-entropy of held-out MACCS keys and what is decoded from their codes, key by key; the score is the mean over keys. "
        "The floor is 0, which no finite code need reach.", "MACCS key", np.arange(1.0, KEYS + 1), curves, ours.mean(1).numpy(),
        marginal.mean(1).numpy(), 0.0, rival=MARGINAL, seed=seed, bars=True,
    )  # fmt: skip
    beside = {MARGINAL: float(marginal.mean()), "coin flips": math.log(2)}
    rival = learner.rival
    if rival is not None:
        kind = "variational" if isinstance(rival, coding.Variational) else "adversarial"
        theirs = per_key(rival, bits, in_blocks(rival.encode, bits))
        beside[f"{kind} autoencoder, {rival.latent} numbers"] = float(theirs.mean())
        if isinstance(rival, coding.Variational):
            drawn = per_key(rival, bits, rival.codes(bits, _normal(len(bits), rival.latent, seed).to(bits)))
            mean, log_variance = rival.posterior(bits)
            beside["the same, code drawn"] = float(drawn.mean())
            beside["its code in nats per key"] = float(kl_to_standard_normal(mean, log_variance).mean()) / KEYS
    met = float(ours.mean()) < min(v for k, v in beside.items() if not k.startswith("its"))
    check = Check(
        "cross-entropy of held-out fingerprints at their codes (nats per key)", float(ours.mean()),
        float(ours.mean(1).std()) / math.sqrt(len(bits)), "below all beside it", met, beside,
    )  # fmt: skip
    return finding, check


# ----------------------------------------------------------------------------------------------------------------- laws of keys


def prior_laws(learner: Any, bits: Tensor, seed: int) -> tuple[list[Finding], list[Check]]:
    """Fingerprints drawn from the prior against held-out ones."""
    n = len(bits)
    nature, drawn = bits.numpy().astype(np.float64), drawn_keys(learner, n, seed)
    rng = np.random.default_rng([seed, 0xAAE])
    marginal = learner.marginal.cpu().double().sigmoid().numpy()
    rivals = {INDEPENDENT: _flips(rng, np.tile(marginal, (n, 1))), EQUAL: _flips(rng, np.full((n, KEYS), marginal.mean()))}
    known = learner.profiles.bits.numpy() if learner.profiles is not None else bits.numpy()
    statistics = laws(*strongest_pairs(known))
    findings = [dataclasses.replace(f, p=None) for f in compare(statistics, nature, drawn, rivals, seed=seed).findings]
    checks = []
    if learner.rival is not None:
        theirs = compare(statistics, nature, _decoded(learner.rival, n, seed, rng), rivals, seed=seed).findings
        for own, other in zip(findings, theirs, strict=True):
            error = (own.gap_high - own.gap_low) / 3.92
            beside = {"the rival autoencoder": other.gap, "nature": 0.0, own.rival_name: 1.0}
            checks.append(Check(f"{own.name}: gap", own.gap, error, "below the rival autoencoder's", own.gap < other.gap, beside))
    return findings, checks


def drawn_keys(learner: Any, n: int, seed: int) -> Array:
    """Fingerprints (n, KEYS) drawn without wishes."""
    nothing = torch.full((n, len(WISHES)), torch.nan, device=learner.device)
    drawn: Array = learner.drawn_fingerprints(nothing, Noise(seed, range(n))).cpu().numpy().astype(np.float64)
    return drawn


def _decoded(model: Any, n: int, seed: int, rng: np.random.Generator) -> Array:
    code = _normal(n, model.latent, seed).to(next(model.module.parameters()).device)
    return _flips(rng, model.logits(code).sigmoid().cpu().double().numpy())


def _normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def _flips(rng: np.random.Generator, chance: Array) -> Array:
    return (rng.random(chance.shape) < chance).astype(np.float64)


def strongest_pairs(bits: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The PAIRS pairs of keys (columns) whose covariance is largest in absolute value."""
    x = bits[:: max(len(bits) // 20_000, 1)].astype(np.float64)
    covariance = np.abs(np.cov(x.T))
    one, other = np.triu_indices(KEYS, 1)
    order = np.argsort(-covariance[one, other], kind="stable")[:PAIRS]
    return one[order], other[order]


def laws(one: NDArray[np.int64], other: NDArray[np.int64]) -> list[Statistic[Any]]:
    """What is compared of fingerprints; `one` and `other`: the pairs of keys."""
    pairs: Callable[[Array], Array] = lambda x: x[:, one] * x[:, other]  # noqa: E731
    return [
        average(
            "keys drawn from the prior", "frequency", "How often each MACCS key is set in fingerprints drawn from the prior; root mean "
            "square difference over keys.", lambda x: x, np.arange(1.0, KEYS + 1), "MACCS key", rival=EQUAL, tested=False, bars=True,
        ),
        average(
            "pairs of keys drawn from the prior", "frequency", f"How often both of two keys are set, for the {len(one)} pairs with the "
            "largest covariance in training; root mean square difference over pairs.", pairs, np.arange(1.0, len(one) + 1),
            "pair of keys, by falling covariance", rival=INDEPENDENT, tested=False,
        ),
        distribution(
            "number of keys drawn from the prior", "", "How many keys are set in a fingerprint.", lambda x: x.sum(1),
            np.arange(0.0, 121.0, 4.0), rival=INDEPENDENT, tested=False,
        ),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------------ codes


def codes_against_prior(learner: Any, bits: Tensor, seed: int) -> tuple[Finding, list[Check]]:
    """Energy distance of held-out codes to the prior."""
    finding = to_prior(learner.coding, bits, seed)
    error = (finding.gap_high - finding.gap_low) / 3.92
    beside = {"N(0, I) to itself": 0.0, WIDER: 1.0}
    if learner.rival is not None:
        beside["the rival autoencoder"] = to_prior(learner.rival, bits, seed).gap
    return finding, [Check("codes against the prior: gap", finding.gap, error, "at most 0.1", finding.gap <= 0.1, beside)]


def to_prior(model: Any, bits: Tensor, seed: int) -> Finding:
    """Codes of bits (n, k) against draws of the prior."""
    bits = bits[:DISTANT]
    n, d = len(bits), model.latent
    noise = _normal(3 * n, d, seed + 1).double().numpy()
    codes = model.codes(bits, _normal(n, d, seed + 2).to(bits)).cpu().double().numpy()
    return compare([code_law(d)], noise[:n], codes, {WIDER: 1.5 * noise[2 * n :]}, seed=seed).findings[0]


def code_law(d: int) -> Statistic[Any]:
    """The law of codes of d numbers, all at once."""
    return Statistic(
        "codes against the prior", "variance", "Energy distance between codes of held-out molecules and draws of N(0, I); shown is the "
        "variance of each number of the code.", lambda codes: codes, distance.energy, WIDER, "number of the code", np.arange(1.0, d + 1),
        lambda values, weights: weights @ values**2 - (weights @ values) ** 2, tested=False, bars=True,
    )  # fmt: skip


def game(learner: Any, bits: Tensor, gap: float) -> list[Check]:
    """Where the game stands: both players near ln 2 mean nothing without the `gap` of codes to the prior, and the reconstruction."""
    model = learner.coding
    if not isinstance(model, coding.Adversarial):
        return []
    with torch.no_grad():
        critic, codes = model.discriminator.module.eval(), model.encode(bits)
        on_code, on_prior = critic(codes), critic(_normal(len(bits), model.latent, 0).to(bits))
        critic.train()
        now = float(coding.discriminator_loss(on_prior, on_code).mean())
        encoder = float(torch.nn.functional.softplus(-on_code).mean())
        ours = float(coding.bernoulli_log_loss(model.logits(codes), bits).mean())
        marginal = float(coding.bernoulli_log_loss(learner.marginal.expand_as(bits), bits).mean())
    beside = {
        "ln 2": math.log(2), "the encoder's loss": encoder, "its own lowest in training": float(model.lowest),
        "gap of codes to the prior": gap, "reconstruction (nats per molecule)": ours, MARGINAL: marginal,
    }  # fmt: skip
    met = coding.standing(now, gap, ours, marginal) == "converged"
    target = "near ln 2, with codes that follow the prior and tell more than frequencies"
    return [Check("the discriminator's loss on held-out codes (nats)", now, math.nan, target, met, beside)]


# ------------------------------------------------------------------------------------------------------------------- regression


def regression(learner: Any, bits: Tensor, values: Tensor, name: str, seed: int) -> Check:
    """Error of a property that ridge regression reads off codes, cross-validated."""
    target = values[:, list(WISHES).index(name)].double().numpy()
    rng = np.random.default_rng([seed, 0x21D6])
    raw = bits.cpu().double().numpy()
    code = learner.coding.encode(bits).cpu().double().numpy()
    squares = ridge_errors(code, target, rng) ** 2
    projected = [ridge_errors(raw @ rng.standard_normal((KEYS, code.shape[1])), target, rng) for _ in range(PROJECTIONS)]
    beside = {
        "raw keys": rms(ridge_errors(raw, target, rng)),
        f"random projection to {code.shape[1]} numbers": float(np.mean([rms(p) for p in projected])),
        "mean of training": rms(target - target.mean()),
    }
    if isinstance(learner.rival, coding.Variational):  # its authors gave means and log variances to the regression
        both = torch.cat(learner.rival.posterior(bits), 1).cpu().double().numpy()
        beside[f"variational autoencoder, {both.shape[1]} numbers"] = rms(ridge_errors(both, target, rng))
    value = math.sqrt(squares.mean())
    error = float(squares.std() / math.sqrt(len(squares)) / (2 * value))
    met = value < min(v for k, v in beside.items() if k != "raw keys")
    unit = f" ({WISHES[name]})" if WISHES[name] else ""
    return Check(f"{name} read off codes{unit}: error", value, error, "below all beside it but the raw keys", met, beside)


def rms(errors: Array) -> float:
    """Root mean square."""
    return math.sqrt(float(np.mean(errors**2)))


def ridge_errors(features: Array, target: Array, rng: np.random.Generator) -> Array:
    """Error (n,) of each row, predicted by ridge regression on the other FOLDS - 1 parts of the rows."""
    fold, errors = rng.permutation(len(target)) % FOLDS, np.empty(len(target))
    for k in range(FOLDS):
        known, asked = fold != k, fold == k
        centre, scale = features[known].mean(0), features[known].std(0) + 1e-9
        x, y = (features[known] - centre) / scale, target[known]
        weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (y - y.mean()))
        errors[asked] = target[asked] - y.mean() - ((features[asked] - centre) / scale) @ weights
    return errors
