"""The order of batches, the gradient step and the random numbers that belong to rows."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from simulacra.descent import Descent
from simulacra.study import Noise, Refused, Samples
from simulacra.training import batches_from, device_of, epoch_order


@dataclasses.dataclass(frozen=True)
class Sized(Samples):
    value: Tensor
    bucket: Tensor


@dataclasses.dataclass(frozen=True)
class Plain(Samples):
    value: Tensor


def test_an_epoch_holds_every_row_at_most_once_and_every_batch_is_full():
    order = epoch_order(Plain(torch.arange(103)), 10, seed=3, epoch=7)
    assert {len(rows) for rows in order} == {10}
    assert len(torch.cat(order).unique()) == 100


def test_a_batch_holds_one_bucket_and_small_buckets_are_used_whole():
    bucket = torch.tensor([0] * 50 + [1] * 33 + [2] * 4)
    samples = Sized(torch.arange(87), bucket)
    order = epoch_order(samples, 8, seed=0, epoch=0)
    assert all(len(bucket[rows].unique()) == 1 for rows in order)
    assert sorted(len(rows) for rows in order) == [4] + [8] * 10


def test_batches_from_a_later_step_are_the_same_as_those_of_a_run_from_the_start():
    samples = Plain(torch.arange(37))
    from_start = batches_from(samples, 5, seed=1, step=0)
    all_steps = [next(from_start) for _ in range(40)]
    for start in (0, 3, 7, 14, 29):
        later = batches_from(samples, 5, seed=1, step=start)
        assert all(torch.equal(next(later), all_steps[s]) for s in range(start, 40))


def test_epochs_and_seeds_shuffle_differently():
    samples = Plain(torch.arange(100))
    orders = [torch.cat(epoch_order(samples, 10, s, e)) for s, e in ((0, 0), (0, 1), (1, 0))]
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_descent_takes_adams_step_and_follows_its_schedule():
    net = nn.Linear(1, 1, bias=False)
    descent = Descent(net, lr=0.1, warmup=4, horizon=100)
    before = net.weight.item()
    norm = descent(3.0 * net.weight.sum())
    assert float(norm) == pytest.approx(3.0)
    assert before - net.weight.item() == pytest.approx(0.1 / 4, rel=1e-4)  # Adam's first step has the length of the rate
    descent.count = 50
    assert descent.rate() == pytest.approx(0.05)
    descent.count = 100
    assert descent.rate() == pytest.approx(0.0, abs=1e-12)


def test_clipping_bounds_the_gradient_but_reports_its_norm():
    net = nn.Linear(2, 1, bias=False)
    descent = Descent(net, lr=0.1, clip=1.0)
    assert float(descent(30 * net.weight[0, 0] + 40 * net.weight[0, 1])) == pytest.approx(50.0)
    assert float(net.weight.grad.norm()) == pytest.approx(1.0, rel=1e-4)


def test_adaptive_clipping_follows_the_norms_of_the_last_fifty_steps():
    torch.manual_seed(0)
    net = nn.Linear(1, 1, bias=False)
    descent = Descent(net, lr=1e-9, clip="adaptive")
    remembered = [3000.0]  # as published: the first gradients are not clipped
    for step, size in enumerate([*torch.rand(70).mul(3).add(1).tolist(), 1000.0, 2.0]):
        limit = 1.5 * np.mean(remembered[-50:]) + 2 * np.std(remembered[-50:])
        assert float(descent(size * net.weight.sum())) == pytest.approx(size, rel=1e-5)
        taken = min(size, limit)
        assert float(net.weight.grad) == pytest.approx(taken, rel=1e-4), step
        remembered.append(taken)
    assert max(remembered[-50:]) < 15  # the thousand came in as clipped, and did not lift the limit


def test_amsgrad_never_forgets_the_largest_gradient():
    moved = []
    for amsgrad in (False, True):
        net = nn.Linear(1, 1, bias=False)
        descent = Descent(net, lr=0.1, amsgrad=amsgrad, betas=(0.0, 0.5))
        descent(100.0 * net.weight.sum())
        for _ in range(30):
            descent(net.weight.sum())
        before = net.weight.item()
        descent(net.weight.sum())
        moved.append(before - net.weight.item())
    assert moved[0] == pytest.approx(0.1, rel=1e-3)
    assert moved[1] < 0.1 * moved[0]


def test_nesterov_turns_with_the_gradient_where_adam_goes_on():
    moved = []
    for nesterov in (False, True):
        net = nn.Linear(1, 1, bias=False)
        descent = Descent(net, lr=0.1, nesterov=nesterov)
        for _ in range(50):
            descent(net.weight.sum())
        before = net.weight.item()
        descent(-net.weight.sum())
        moved.append(net.weight.item() - before)
    assert moved[0] == pytest.approx(-0.08, rel=0.02)  # 0.9 of the old direction less 0.1
    assert moved[1] > 0


def test_the_average_forgets_the_initial_weights_early_and_is_long_later():
    net = nn.Linear(1, 1, bias=False)
    descent = Descent(net, lr=1e-9, ema=0.99)
    with torch.no_grad():
        net.weight.fill_(5.0)
    for _ in range(30):
        descent(net.weight.sum() * 0)
    assert descent.average.weight.item() == pytest.approx(5.0, abs=0.05)
    assert not descent.average.weight.requires_grad


@pytest.mark.parametrize("options", [{"clip": 1.0}, {"clip": "adaptive", "amsgrad": True}, {"nesterov": True}])
def test_a_saved_descent_goes_on_as_if_it_had_not_been_saved(options):
    def fresh():
        torch.manual_seed(0)
        return Descent(nn.Linear(3, 2), lr=0.01, ema=0.9, warmup=2, horizon=20, **options)

    def work(descent, steps):
        for _ in range(steps):
            descent(descent.module(torch.randn(4, 3)).square().sum())

    straight, stopped = fresh(), fresh()
    torch.manual_seed(1)
    work(straight, 4)
    state = {k: v.clone() for k, v in straight.state_dict().items()}
    rng = torch.get_rng_state()
    work(straight, 4)
    stopped.load_state_dict(state)
    torch.set_rng_state(rng)
    work(stopped, 4)
    assert straight.state_dict().keys() == stopped.state_dict().keys()
    assert all(torch.equal(v, stopped.state_dict()[k]) for k, v in straight.state_dict().items())


def test_noise_belongs_to_rows_and_streams_are_independent():
    whole, part = Noise(7, range(100)), Noise(7, range(40, 60))
    first, second = whole.normal(3, 2), whole.normal(3, 2)
    assert torch.equal(first[40:60], part.normal(3, 2))
    assert torch.equal(second[40:60], part.normal(3, 2))
    assert not torch.equal(first, second)
    many = Noise(1, range(4000)).normal(5).numpy()
    assert abs(np.corrcoef(many.T) - np.eye(5)).max() < 0.06
    assert abs(np.corrcoef(many[:-1, 0], many[1:, 0])[0, 1]) < 0.06
    assert 0.48 < float(Noise(1, range(4000)).uniform(1).mean()) < 0.52


def test_fields_of_different_length_are_refused():
    with pytest.raises(Refused, match="differ in length"):
        Sized(torch.zeros(3), torch.zeros(4))


def test_asking_for_a_gpu_that_is_not_there_says_what_to_do():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(Refused, match="'cpu' or 'auto'"):
        device_of("cuda")


def test_the_learning_rate_falls_to_zero_and_again_from_shares_of_its_height():
    descent = Descent(nn.Linear(1, 1), lr=2.0, horizon=180, restarts=[(100, 0.5), (160, 0.1)])
    found = []
    for descent.count in (0, 50, 99, 100, 130, 159, 160, 170, 180, 500):
        found.append(descent.rate())
    np.testing.assert_allclose(found[:2], [2.0, 1.0])
    np.testing.assert_allclose(found[3:5], [1.0, 0.5])
    np.testing.assert_allclose(found[6:8], [0.2, 0.1])
    assert max(found[2], found[5]) < 1e-3
    np.testing.assert_allclose(found[8:], 0, atol=1e-12)


def test_freed_memory_is_kept_for_the_next_step_unless_the_environment_decides():
    code = (
        "import sys, resource, torch; from simulacra.training import keep_memory; kept = keep_memory();\n"
        "for _ in range(3): torch.ones(40_000_000)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(3): torch.ones(40_000_000)\n"
        "print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    plain = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}

    def said(environment):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        return [int(v) for v in done.stdout.split()]

    # Once in many runs nothing was kept, perhaps because the heap could not grow where it lay: the best of three processes counts.
    kept, faults = min((said(plain) for _ in range(3)), key=lambda one: one[1])
    decided, paid = said({**plain, "MALLOC_TRIM_THRESHOLD_": "131072"})
    assert decided == 0
    if kept:  # on glibc
        assert faults < paid / 10
