"""The likelihood of strings and the sampler with refilled slots, on models whose law is known."""

import numpy as np
import pytest
import torch
from torch import nn

from simulacra.families import sequence
from simulacra.families.sequence import END, PAD, START
from simulacra.nets.language import LanguageModel


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    made = LanguageModel(12, embedding=8, hidden=16, layers=3).eval()
    with torch.no_grad():
        made.out.weight.mul_(3)
        made.out.bias[END] += 0.5
    return made


def drawn(model, rows=range(40), **options):
    return sequence.draw(model, rows, **{"seed": 7, "longest": 30, "slots": 8, **options})


def memoryless(law):
    """A model whose next token follows `law` (V - END,) whatever came before."""
    made = LanguageModel(len(law) + END, embedding=4, hidden=4, layers=1).eval()
    with torch.no_grad():
        made.out.weight.zero_()
        made.out.bias[END:] = torch.tensor(law).log()
    return made


def test_the_likelihood_of_a_string_is_the_product_of_its_tokens_and_its_end():
    made = memoryless([0.2, 0.5, 0.3])
    tokens = torch.tensor([[START, 3, 4, END, PAD], [START, END, PAD, PAD, PAD]])
    expected = -torch.tensor([0.5 * 0.3 * 0.2, 0.2]).log()
    torch.testing.assert_close(sequence.log_loss(made(tokens[:, :-1]), tokens), expected)


def test_padding_is_no_part_of_the_loss_and_gets_no_gradient(model):
    short = torch.tensor([[START, 5, 6, END]])
    padded = torch.tensor([[START, 5, 6, END, PAD, PAD, PAD]])
    one, other = (sequence.log_loss(model(t[:, :-1]), t) for t in (short, padded))
    torch.testing.assert_close(one, other)
    logits = model(padded[:, :-1]).detach().requires_grad_()
    sequence.log_loss(logits, padded).sum().backward()
    assert logits.grad[:, 3:].abs().max() == 0
    assert logits.grad[..., :END].abs().max() == 0  # marks that never follow


def test_a_row_does_not_depend_on_which_other_rows_are_drawn(model):
    many, few = drawn(model), drawn(model, range(10, 25))
    width = few.tokens.shape[1]
    assert torch.equal(many.tokens[10:25, :width], few.tokens)
    assert not bool(many.tokens[10:25, width:].any())
    assert not torch.equal(drawn(model, seed=8).tokens[:, :5], many.tokens[:, :5])


def test_slots_do_not_change_a_row(model):
    one, other = drawn(model, slots=3), drawn(model, slots=64)
    width = min(one.tokens.shape[1], other.tokens.shape[1])
    assert torch.equal(one.tokens[:, :width], other.tokens[:, :width])


def test_the_likelihood_of_what_was_drawn_is_the_one_it_is_scored_with(model):
    found = drawn(model)
    tokens = torch.cat([torch.full((40, 1), START), found.tokens], 1)
    scored = sequence.log_loss(model(tokens[:, :-1]), tokens)
    torch.testing.assert_close(scored, found.log_loss, rtol=1e-4, atol=1e-4)


def test_the_sampler_computes_what_the_model_computes(model):
    cell = sequence._Cell(model, 5, torch.float32, None)
    tokens = torch.randint(END, 12, (5, 7), generator=torch.Generator().manual_seed(1))
    stepwise = torch.stack([cell(tokens[:, k]) for k in range(7)], 1)
    torch.testing.assert_close(stepwise, model(tokens), rtol=1e-4, atol=1e-5)


def test_frequencies_are_those_of_the_law_and_lengths_are_geometric():
    found = sequence.draw(memoryless([0.25, 0.6, 0.15]), range(20_000), seed=1, longest=80, slots=500)
    counts = torch.bincount(found.tokens[:, 0], minlength=5)[END:] / 20_000
    np.testing.assert_allclose(counts, [0.25, 0.6, 0.15], atol=4 * 0.5 / np.sqrt(20_000))
    length = (found.tokens != PAD).sum(1).float()
    assert float(length.mean()) == pytest.approx(4.0, abs=4 * 3.5 / np.sqrt(20_000))
    assert bool(found.ended.all())


def test_temperature_sharpens_the_law_and_zero_takes_the_likeliest():
    made = memoryless([0.25, 0.6, 0.15])
    cold = sequence.draw(made, range(20_000), seed=1, longest=1, slots=500, temperature=0.5)
    weights = np.array([0.25, 0.6, 0.15]) ** 2
    counts = torch.bincount(cold.tokens[:, 0], minlength=5)[END:] / 20_000
    np.testing.assert_allclose(counts, weights / weights.sum(), atol=0.015)
    assert bool((sequence.draw(made, range(9), seed=1, longest=6, slots=4, temperature=0.0).tokens == 3).all())


def test_strings_stop_at_the_longest_length_unfinished():
    found = sequence.draw(memoryless([1e-9, 0.5, 0.5]), range(10), seed=0, longest=12, slots=4)
    assert found.tokens.shape == (10, 12)
    assert not bool(found.ended.any())


def test_a_prompt_is_kept_token_for_token_and_costs_nothing(model):
    prompt = torch.tensor([[5, 6, 7], [9, PAD, PAD]] * 20)
    found = drawn(model, prompt=prompt)
    assert bool((found.tokens[::2, :3] == torch.tensor([5, 6, 7])).all())
    assert bool((found.tokens[1::2, 0] == 9).all())
    tokens = torch.cat([torch.full((40, 1), START), found.tokens], 1)
    logits, ahead = model(tokens[:, :-1])[..., END:], (tokens[:, 1:] - END).clamp_min(0)
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), ahead, reduction="none") * (tokens[:, 1:] != PAD)
    told = (prompt != PAD).sum(1)
    expected = torch.stack([row[k:].sum() for row, k in zip(losses, told.tolist(), strict=True)])
    torch.testing.assert_close(found.log_loss, expected, rtol=1e-4, atol=1e-4)


def test_a_row_begins_in_its_own_state(model):
    state = tuple(torch.randn(3, 40, 16, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    found = drawn(model, state=state)
    tokens = torch.cat([torch.full((40, 1), START), found.tokens], 1)
    torch.testing.assert_close(sequence.log_loss(model(tokens[:, :-1], state), tokens), found.log_loss, rtol=1e-4, atol=1e-4)


def test_slots_are_refilled_so_that_little_is_wasted(model):
    found = drawn(model, range(400), slots=16)
    used = int((found.tokens != PAD).sum())
    assert found.steps * 16 < 1.25 * used + 16 * 30
    waiting = 400 / 16 * 30  # steps of a loop that always runs to the longest length
    assert found.steps < 0.6 * waiting


def test_random_numbers_of_rows_and_positions_are_uniform_and_apart():
    rows, positions = np.meshgrid(np.arange(400), np.arange(50), indexing="ij")
    u = sequence.uniform(3, rows.ravel(), positions.ravel()).numpy().reshape(400, 50)
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 4 * np.sqrt(1 / 12 / u.size)
    assert np.abs(np.corrcoef(u[:, :20].T) - np.eye(20)).max() < 0.25
    assert len(np.unique(u)) > 0.998 * u.size


def test_bfloat16_draws_nearly_from_the_same_law():
    made = memoryless([0.25, 0.6, 0.15])
    found = sequence.draw(made, range(20_000), seed=1, longest=1, slots=500, dtype=torch.bfloat16)
    counts = torch.bincount(found.tokens[:, 0], minlength=5)[END:] / 20_000
    np.testing.assert_allclose(counts, [0.25, 0.6, 0.15], atol=0.02)


in_eight_bits = pytest.mark.skipif(not sequence.draws_in_eight_bits(), reason="this torch has no products of whole numbers (oneDNN on x86)")


@in_eight_bits
def test_eight_bits_give_the_likelihood_of_what_was_drawn_nearly_as_floats_do(model):
    first = tuple(torch.rand(3, 200, 16, generator=torch.Generator().manual_seed(k)) * 2 - 1 for k in (1, 2))
    found = drawn(model, range(200), state=first, dtype=torch.int8)
    tokens = torch.cat([torch.full((200, 1), START), found.tokens], 1)
    exact = sequence.log_loss(model(tokens[:, :-1], first), tokens).detach()
    per_token = (found.log_loss - exact).abs().sum() / (found.tokens != PAD).sum()
    assert float(per_token) < 0.01
    assert abs(float(found.log_loss.mean() - exact.mean())) < 0.02


@in_eight_bits
def test_a_row_in_eight_bits_does_not_depend_on_the_others(model):
    many, few = (drawn(model, rows, dtype=torch.int8) for rows in (range(40), range(10, 25)))
    assert torch.equal(many.tokens[10:25, : few.tokens.shape[1]], few.tokens)


@in_eight_bits
def test_whole_numbers_lie_within_half_a_step_of_what_they_stand_for():
    rows = torch.linspace(-1, 1, 1001)[:, None].repeat(1, 64)
    product = sequence._InEightBits(torch.eye(64))
    assert (product(product.rounded(rows), torch.zeros(64)) - rows).abs().max() <= 0.5 / 63 + 1e-6
    far = product(product.rounded(torch.tensor([[5.0] * 64, [-5.0] * 64])), torch.zeros(64))
    torch.testing.assert_close(far, torch.tensor([[1.0] * 64, [-1.0] * 64]))


def test_the_gradient_reaches_every_parameter_of_the_language_model(model):
    made = LanguageModel(12, embedding=8, hidden=16, layers=2, dropout=0.1)
    tokens = torch.cat([torch.full((6, 1), START), torch.arange(END, 12).repeat(6, 1)], 1)
    sequence.log_loss(made(tokens[:, :-1]), tokens).sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in made.parameters())


def test_networks_that_the_sampler_does_not_know_are_refused():
    made = LanguageModel(5, embedding=4, hidden=4, layers=1)
    made.lstm = nn.LSTM(4, 4, 1, bidirectional=True)
    with pytest.raises(ValueError, match="plain LSTMs"):
        drawn(made)
