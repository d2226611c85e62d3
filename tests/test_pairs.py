"""The pair transformer: what turns with the input, what does not change, and what padding may not touch."""

import pytest
import torch

from simulacra.nets.pairs import PairTransformer, RadialFunctions, centred


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = PairTransformer(
        node_in=5, pair_in=4, conditions=6, node_out=7, pair_out=3, nodes=32, pairs=16, layers=3, heads=4, radial=8,
    ).double()  # fmt: skip
    for parameter in made.parameters():  # norms start silent: make every path count
        torch.nn.init.normal_(parameter, std=0.2)
    return made


def given(sets=3, points=6, seed=1):
    rng = torch.Generator().manual_seed(seed)
    s, c = torch.randn(sets, points, 5, generator=rng).double(), torch.randn(sets, 6, generator=rng).double()
    e = torch.randn(sets, points, points, 4, generator=rng).double()
    x, start, other = torch.randn(3, sets, points, 3, generator=rng).double()
    mask = torch.ones(sets, points, dtype=torch.bool)
    mask[1, 4:] = False
    there = mask.double()[..., None]
    return s * there, e + e.transpose(1, 2), x * there, start * there, other * there, c, mask


@pytest.mark.parametrize("determinant", [1, -1], ids=["rotation", "reflection"])
def test_positions_turn_with_the_input_and_classes_do_not_change(network, determinant):
    s, e, x, start, other, c, mask = given()
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(5)).double())
    q = q * torch.sign(torch.linalg.det(q)) * determinant
    before = network(s, e, x, start, other, c, mask)
    after = network(s, e, x @ q.T, start @ q.T, other @ q.T, c, mask)
    assert (before[2] @ q.T - after[2]).abs().max() < 1e-9
    assert (before[0] - after[0]).abs().max() < 1e-9
    assert (before[1] - after[1]).abs().max() < 1e-9
    assert before[2].abs().max() > 1e-3


def test_moving_the_input_changes_nothing(network):
    s, e, x, start, other, c, mask = given()
    shift = torch.tensor([3.0, -2.0, 5.0]).double() * mask[..., None]
    moved = network(s, e, x + shift, start + shift, other + shift, c, mask)
    for before, after in zip(network(s, e, x, start, other, c, mask), moved, strict=True):
        there = mask[..., None] if before.ndim == 3 else mask[:, :, None, None] & mask[:, None, :, None]
        assert ((before - after) * there).abs().max() < 1e-9


def test_renaming_points_renames_the_outcome(network):
    s, e, x, start, other, c, mask = (v[:1] for v in given())
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    before = network(s, e, x, start, other, c, mask)
    after = network(s[:, order], e[:, order][:, :, order], x[:, order], start[:, order], other[:, order], c, mask)
    assert (before[0][:, order] - after[0]).abs().max() < 1e-9
    assert (before[1][:, order][:, :, order] - after[1]).abs().max() < 1e-9
    assert (before[2][:, order] - after[2]).abs().max() < 1e-9


def test_padding_changes_no_outcome(network):
    s, e, x, start, other, c, mask = (v[:1] for v in given())
    wide = network(
        torch.nn.functional.pad(s, (0, 0, 0, 2)), torch.nn.functional.pad(e, (0, 0, 0, 2, 0, 2)),
        *(torch.nn.functional.pad(y, (0, 0, 0, 2)) for y in (x, start, other)), c, torch.nn.functional.pad(mask, (0, 2)),
    )  # fmt: skip
    plain = network(s, e, x, start, other, c, mask)
    assert (wide[0][:, :6] - plain[0]).abs().max() < 1e-9
    assert (wide[1][:, :6, :6] - plain[1]).abs().max() < 1e-9
    assert (wide[2][:, :6] - plain[2]).abs().max() < 1e-9
    assert (wide[2][:, 6:] == 0).all()


def test_pairs_come_out_symmetric_and_positions_centred(network):
    s, e, x, start, other, c, mask = given()
    _, pairs, moved = network(s, e, x, start, other, c, mask)
    assert (pairs - pairs.transpose(1, 2)).abs().max() < 1e-12
    assert moved.sum(1).abs().max() < 1e-9


def test_the_gradient_reaches_every_parameter(network):
    out = network(*given())
    sum(part.square().sum() for part in out).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == []


def test_radial_functions_tell_bond_lengths_apart():
    functions = RadialFunctions(24)
    at = functions(torch.tensor([1.20, 1.23, 1.34, 1.40, 1.54]))
    assert torch.pdist(at).min() > 0.05
    assert (at > 0).any(1).all()
    assert functions(torch.tensor([0.0, 8.0])).argmax(1).tolist() == [23, 0]


def test_centring_leaves_padding_at_zero():
    mask = torch.tensor([[True, True, False]])
    assert centred(torch.tensor([[[1.0, 0, 0], [3.0, 0, 0], [9.0, 9, 9]]]), mask).tolist() == [[[-1, 0, 0], [1, 0, 0], [0, 0, 0]]]
