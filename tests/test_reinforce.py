"""Augmented likelihood, divergence, replay and buckets: by hand."""

import math
from collections import Counter

import pytest
import torch

from simulacra.families.reinforce import Buckets, Memory, augmented, divergence, packed, unpacked
from simulacra.families.sequence import END, PAD, START


def test_augmented_likelihood_by_hand():
    loss = augmented(torch.tensor([-20.0, -30.0]), torch.tensor([0.5, 0.0]), torch.tensor([-18.0, -30.0]), 10.0)
    assert loss.tolist() == [9.0, 0.0]  # (-20 + 5 + 18)^2, and nothing where agent and prior agree on what earned nothing


def test_augmented_likelihood_is_least_where_the_agent_is_the_prior_tilted_by_the_score():
    """Over a finite set the minimum of the loss is p exp(sigma s), up to a factor."""
    prior = torch.tensor([0.5, 0.3, 0.2]).log()
    score, sigma = torch.tensor([0.0, 0.5, 1.0]), 2.0
    logits = prior.clone().requires_grad_()
    offset = torch.zeros((), requires_grad=True)  # the factor, which a free constant takes up
    descent = torch.optim.Adam([logits, offset], lr=0.05)
    for _ in range(800):
        descent.zero_grad()
        augmented(prior, score, logits.log_softmax(0) + offset, sigma).mean().backward()
        descent.step()
    assert torch.allclose(logits.log_softmax(0), (prior + sigma * score).log_softmax(0), atol=1e-3)


def test_divergence_of_a_law_from_itself_is_0_and_of_two_letters_is_the_formula():
    tokens = torch.tensor([[START, 3, END, PAD], [START, 3, 3, END]])
    prior = torch.zeros(2, 3, 4)
    agent = prior.clone()
    assert divergence(prior, agent, tokens).tolist() == [0, 0]
    agent[..., 3] = math.log(3)  # of END and token 3: 1/2, 1/2 against 1/4, 3/4
    each = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert divergence(prior, agent, tokens).tolist() == pytest.approx([2 * each, 3 * each], abs=1e-6)  # padding is no part of it


def test_a_memory_holds_the_best_once_each_and_nothing_worthless():
    memory = Memory(3)
    memory.add(["a", "b", "c", "d"], [0.1, 0.5, 0.0, 0.3])
    memory.add(["b", "e"], [0.5, 0.2])
    assert memory.scores == {"b": 0.5, "d": 0.3, "e": 0.2}


def test_replay_takes_different_strings_in_proportion_to_their_scores():
    memory = Memory(4)
    memory.add(["a", "b"], [0.9, 0.1])
    torch.manual_seed(0)
    first = Counter(memory.sample(1)[0][0] for _ in range(2000))
    assert first["a"] / 2000 == pytest.approx(0.9, abs=0.03)
    strings, scores = memory.sample(5)
    assert sorted(zip(strings, scores, strict=True)) == [("a", 0.9), ("b", 0.1)]
    assert Memory(2).sample(3) == ([], [])


def test_a_kind_earns_only_so_often():
    buckets = Buckets(2, 0.4)
    # The last is below the minimum: not counted.
    assert buckets.earned(["x", "x", "y", "x", "x"], [0.5, 0.9, 0.7, 0.8, 0.3]) == [0.5, 0.9, 0.7, 0.0, 0.3]
    assert buckets.earned(["x", "y", "y"], [0.4, 0.4, 0.4]) == [0.0, 0.4, 0.0]
    assert Buckets(0, 0.4).earned(["x"] * 5, [1.0] * 5) == [1.0] * 5


def test_memory_and_buckets_come_back_from_their_tensors():
    memory, buckets = Memory(5), Buckets(2, 0.0)
    memory.add(["CC", "c1ccccc1", "N"], [0.3, 0.2, 0.9])
    buckets.earned(["", "x", "x"], [1, 1, 1])
    again, other = Memory(5), Buckets(2, 0.0)
    again.load_state_dict(memory.state_dict())
    other.load_state_dict(buckets.state_dict())
    assert list(again.scores.items()) == list(memory.scores.items())
    assert other.filled == buckets.filled
    assert unpacked(packed([])) == []
    assert unpacked(packed(["", "a", ""])) == ["", "a", ""]
