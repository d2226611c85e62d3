"""The equivariant network in dense form: against the same function written edge by edge, and under the symmetries it claims."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from simulacra.nets import egnn
from simulacra.nets.egnn import EGNN

spec = importlib.util.spec_from_file_location("egnn_dense", Path(__file__).parent.parent / "benchmarks" / "egnn_dense.py")
oracle = importlib.util.module_from_spec(spec)
spec.loader.exec_module(oracle)


def lively(net, gain=0.02):
    """As built, the network hardly moves atoms; with these weights every part of it matters."""
    for block in net.blocks:
        nn.init.xavier_uniform_(block.move[4].weight, gain=gain)
    return net


@pytest.fixture
def small():
    torch.manual_seed(3)
    return lively(EGNN(5, 4, width=12, depth=3, factor=2.0), gain=1.0).double()


@pytest.fixture
def cloud():
    rng = torch.Generator().manual_seed(4)
    return tuple(torch.randn(3, 6, k, generator=rng, dtype=torch.float64) for k in (3, 5))


def test_the_published_network_has_5339920_parameters():
    assert sum(p.numel() for p in EGNN(7, 7, width=256, depth=9).parameters()) == 5_339_920


def test_the_dense_form_equals_the_padded_edge_list_at_full_size():
    torch.manual_seed(0)
    net = lively(EGNN(7, 7))
    sizes = [3, 18, 29]
    x, h, mask = oracle.padded(sizes)
    with torch.no_grad():
        moved, features = oracle.edge_list(net, x, h, mask)
        assert moved.abs().max() > 0.1
        for row, atoms in enumerate(sizes):
            dense = net(x[row : row + 1, :atoms], h[row : row + 1, :atoms])
            assert torch.allclose(dense[0][0], moved[row, :atoms], atol=1e-5)
            assert torch.allclose(dense[1][0], features[row, :atoms], atol=1e-5)


def test_gradients_equal_those_of_the_edge_list(small, cloud):
    mask = torch.ones(3, 6, dtype=torch.float64)
    found = []
    for form in (small, lambda x, h: oracle.edge_list(small, x, h, mask)):
        x, h = (value.clone().requires_grad_() for value in cloud)
        small.zero_grad()
        moved, features = form(x, h)
        (moved.pow(3).sum() + features.square().sum()).backward()
        found.append([x.grad, h.grad, *(p.grad.clone() for p in small.parameters())])
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(*found, strict=True))


def test_gradients_are_those_of_finite_differences(cloud):
    torch.manual_seed(5)
    net = lively(EGNN(5, 2, width=4, depth=2), gain=1.0).double()
    x, h = (value[:2, :3].clone().requires_grad_() for value in cloud)
    assert torch.autograd.gradcheck(net, (x, h))


def test_how_the_batch_is_cut_for_the_cache_changes_nothing(small, cloud, monkeypatch):
    def outcome():
        small.zero_grad()
        moved, features = small(*cloud)
        (moved.sum() + features.sum() + moved.square().sum()).backward()
        return [moved.detach(), features.detach(), *(p.grad.clone() for p in small.parameters())]

    whole = outcome()
    monkeypatch.setattr(egnn, "PIECE", 1)
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-10) for a, b in zip(whole, outcome(), strict=True))


def test_rotations_and_reflections_turn_displacements_and_leave_features(small, cloud):
    x, h = cloud
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    moved, features = small(x, h)
    assert moved.abs().max() > 0.1
    for matrix in (turn, -turn):  # one of them is a rotation, the other a reflection
        again, same = small(x @ matrix, h)
        assert torch.allclose(again, moved @ matrix, atol=1e-9)
        assert torch.allclose(same, features, atol=1e-9)


def test_translations_change_nothing(small, cloud):
    x, h = cloud
    moved, features = small(x, h)
    again, same = small(x + torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64), h)
    assert torch.allclose(again, moved, atol=1e-9)
    assert torch.allclose(same, features, atol=1e-9)


def test_atoms_in_another_order_come_out_in_that_order(small, cloud):
    x, h = cloud
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    moved, features = small(x, h)
    again, same = small(x[:, order], h[:, order])
    assert torch.allclose(again, moved[:, order], atol=1e-9)
    assert torch.allclose(same, features[:, order], atol=1e-9)


def test_padding_changes_no_output_and_comes_out_as_zero(small, cloud):
    x, h = cloud
    moved, features = small(x, h)
    pad = torch.full((3, 2, 8), 7.0, dtype=torch.float64)  # what stands in padding must not matter
    mask = torch.cat([torch.ones(3, 6), torch.zeros(3, 2)], 1).double()
    again, same = small(torch.cat([x, pad[..., :3]], 1), torch.cat([h, pad[..., 3:]], 1), mask)
    assert torch.allclose(again[:, :6], moved, atol=1e-12)
    assert torch.allclose(same[:, :6], features, atol=1e-12)
    assert (again[:, 6:] == 0).all()
    assert (same[:, 6:] == 0).all()


def test_molecules_of_a_batch_do_not_influence_each_other(small, cloud):
    x, h = cloud
    alone, _ = small(x[1:2], h[1:2])
    assert torch.allclose(small(x, h)[0][1:2], alone, atol=1e-12)


def test_the_gradient_reaches_every_parameter(small, cloud):
    moved, features = small(*cloud)
    (moved.square().sum() + features.square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in small.parameters())


def test_as_built_the_network_hardly_moves_atoms():
    torch.manual_seed(0)
    moved, _ = EGNN(5, 5, width=32, depth=2)(torch.randn(2, 6, 3), torch.randn(2, 6, 5))
    assert 0 < moved.abs().max() < 0.2


def test_nothing_is_kept_for_the_way_back_where_none_is_taken(small, cloud):
    with torch.no_grad():
        silent, _ = small(*cloud)
    assert torch.equal(silent, small(*cloud)[0].detach())
