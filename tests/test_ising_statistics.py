"""Every statistic on a known answer, and the judge on planted faults."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch

from simulacra.evidence import Evidence
from simulacra.sciences.ising import kaufman, statistics
from simulacra.sciences.ising.data import Lattices, equilibrium
from simulacra.sciences.ising.statistics import judge
from simulacra.study import Refused

LADDER = [1.9, 2.3, 2.8]
SIDE, EACH = 16, 150


@functools.cache
def drawn_at(seed: int, warmer: float = 0.0, each: int = EACH, ladder: tuple[float, ...] = tuple(LADDER)) -> Lattices:
    """Equilibrium lattices, said to be at the ladder's temperatures."""
    claimed = torch.tensor(ladder).repeat_interleave(each)
    return Lattices(equilibrium(SIDE, [t + warmer for t in ladder], each, seed=seed).spins, claimed)


@functools.cache
def verdict_on_nature() -> Evidence:
    return judge(drawn_at(1), drawn_at(2), seed=0, training=drawn_at(3, each=300))


# --- known answers ---


def striped(side: int = 8) -> np.ndarray:
    """Rows alternate in pairs: ++--++--, constant along each row."""
    column = np.where(np.arange(side) % 4 < 2, 1, -1)
    return np.repeat(column[:, None], side, axis=1)[None].astype(np.int8)


def test_energies_of_ordered_antiordered_and_striped_lattices() -> None:
    up = np.ones((1, 8, 8), np.int8)
    chess = np.where(np.add.outer(np.arange(8), np.arange(8)) % 2, 1, -1)[None].astype(np.int8)
    assert statistics.energy(np.concatenate([up, chess, striped()])).tolist() == [-2.0, 2.0, -1.0]


def test_the_two_point_function_of_stripes_is_the_mean_of_a_square_wave_and_one() -> None:
    assert statistics.two_point(striped())[0] == pytest.approx((np.array([1, 0, -1, 0, 1]) + 1) / 2)


def test_the_two_point_function_starts_at_one_and_its_first_step_is_the_energy() -> None:
    spins = drawn_at(1).spins.numpy()[::50]
    g = statistics.two_point(spins)
    assert g[:, 0] == pytest.approx(1.0)
    assert g[:, 1] == pytest.approx(-statistics.energy(spins) / 2)
    by_hand = (spins * np.roll(spins, -3, 1) + spins * np.roll(spins, -3, 2)).mean((1, 2)) / 2
    assert g[:, 3] == pytest.approx(by_hand)


def test_structure_factors_hold_the_magnetisation_and_one_wave() -> None:
    wave = np.repeat(np.where(np.arange(8) < 4, 1, -1)[:, None], 8, axis=1)[None].astype(np.int8)
    s0, s1 = statistics.structure_factors(np.concatenate([wave, np.ones((1, 8, 8), np.int8)]))
    amplitude = abs(np.exp(-2j * np.pi * np.arange(8) / 8) @ np.where(np.arange(8) < 4, 1, -1))
    assert s0 == pytest.approx([0, 64])
    assert s1 == pytest.approx([amplitude**2 / 2, 0], abs=1e-12)


def test_one_turned_spin_has_no_aligned_neighbour_and_makes_two_clusters() -> None:
    spins = np.ones((1, 6, 6), np.int8)
    spins[0, 0, 0] = -1
    assert statistics.aligned_neighbours(spins)[0] == pytest.approx(np.array([1, 0, 0, 4, 31]) / 36)
    largest, mean = statistics.cluster_sizes(spins)
    assert largest == pytest.approx([35 / 36])
    assert mean == pytest.approx([(35**2 + 1) / 36])


def test_clusters_reach_around_the_torus() -> None:
    spins = -np.ones((1, 6, 6), np.int8)
    spins[0, [0, 5], :] = 1  # one band of two rows across the seam
    largest, mean = statistics.cluster_sizes(spins)
    assert largest == pytest.approx([24 / 36])
    assert mean == pytest.approx([(24**2 + 12**2) / 36])


def test_the_ensemble_functions_give_the_enumerated_4x4_torus() -> None:
    t = kaufman.critical_temperature()
    o = statistics.observe(equilibrium(4, [t], 6000, seed=1))
    states = kaufman.enumerate_4x4(t)
    absolute, m2, m4 = np.abs(o.m).mean(), (o.m**2).mean(), (o.m**4).mean()
    assert statistics.heat_capacity(o.e.mean(), (o.e**2).mean(), 4, t) == pytest.approx(states.heat_capacity, rel=0.05)
    exact_chi = 16 * (states.magnetisation_squared - states.magnetisation**2) / t
    assert statistics.susceptibility(absolute, m2, 4, t) == pytest.approx(exact_chi, rel=0.06)
    assert float(statistics.binder(m2, m4)) == pytest.approx(states.binder, abs=0.006)


def test_binder_is_two_thirds_when_ordered_and_zero_for_a_gaussian() -> None:
    assert float(statistics.binder(np.array(0.81), np.array(0.81**2))) == pytest.approx(2 / 3)
    assert float(statistics.binder(np.array(1.0), np.array(3.0))) == pytest.approx(0)


def test_the_second_moment_length_is_that_of_the_lattice_propagator() -> None:
    """S(k) ~ 1 / (xi^-2 + 4 sin^2(k/2)) is the form that defines it."""
    for xi in (0.5, 3.0, 20.0):
        s0, s1 = xi**2, 1 / (xi**-2 + 4 * np.sin(np.pi / 32) ** 2)
        assert float(statistics.correlation_length(np.array(s0), np.array(s1), 32)) == pytest.approx(xi)


def test_the_second_moment_length_approaches_the_exact_length_above_the_critical_temperature() -> None:
    o = statistics.observe(equilibrium(32, [3.0], 600, seed=2))
    exact = float(kaufman.correlation_length(3.0))
    assert float(statistics.correlation_length(o.s0.mean(), o.s1.mean(), 32)) == pytest.approx(exact, rel=0.08)


@pytest.mark.parametrize("temperature", [1.9, 2.27, 3.0, 6.0])
def test_the_local_thermometer_reads_the_temperature(temperature: float) -> None:
    a1, a3 = statistics.aligned_neighbours(equilibrium(16, [temperature], 2000, seed=3).spins)[:, [1, 3]].T
    excess = a3 - a1 * np.exp(4 / temperature)
    assert abs(excess.mean()) < 3 * excess.std() / np.sqrt(len(excess))
    assert float(statistics.local_temperature(a1.mean(), a3.mean())) == pytest.approx(temperature, rel=0.02)


def test_the_nearest_training_lattice_is_found_up_to_a_global_flip() -> None:
    training = drawn_at(3)
    copies = Lattices(-training.spins[5:8], training.temperature[5:8])
    changed = copies.spins.clone()
    changed[0, 3, :5] *= -1
    found = statistics.nearest_training(dataclasses.replace(copies, spins=changed), training, block=100)
    assert found == pytest.approx(np.log1p([5, 0, 0]))


# --- floors, ceilings ---


def test_every_finding_tells_nature_from_its_rival() -> None:
    for finding in verdict_on_nature().findings:
        assert finding.floor < finding.ceiling, f"{finding.name} cannot tell nature from {finding.rival_name}"


def test_every_finding_of_a_single_temperature_tells_nature_from_its_rival() -> None:
    one = [drawn_at(seed)[150:300] for seed in (1, 2)]
    evidence = judge(*one, seed=0)
    assert not evidence.differs
    for finding in evidence.findings:
        assert finding.floor < finding.ceiling, f"{finding.name} cannot tell nature from {finding.rival_name}"


def test_curves_carry_kaufmans_exact_values() -> None:
    findings = {f.name: f for f in verdict_on_nature().findings}
    assert findings["u(T)"].exact == pytest.approx(kaufman.energy(SIDE, LADDER), abs=1e-3)
    assert findings["u(T)"].drawn == pytest.approx(kaufman.energy(SIDE, LADDER), abs=0.05)
    assert findings["c(T)"].exact == pytest.approx(kaufman.heat_capacity(SIDE, LADDER), abs=1e-2)
    assert findings["T_local(T)"].exact == pytest.approx(LADDER, abs=1e-6)


def test_equilibrium_lattices_are_not_called_different_more_often_than_promised() -> None:
    """At one false alarm in a hundred, two among four pairs of sets have probability 6e-4. (Seed 11 is one: p = 0.007 by the
    signs of m at T = 2.8. Over sixty other pairs p was uniform: 5 % below 0.05, 10 % below 0.1, half below 0.5.)"""
    p = [judge(drawn_at(seed), drawn_at(seed + 100), seed=seed).p for seed in (11, 12, 13, 14)]
    assert sum(value <= 0.01 for value in p) < 2
    assert max(p) > 0.1


def test_checks_are_met_by_nature_up_to_its_own_error_bars() -> None:
    checks = verdict_on_nature().checks
    assert len(checks) == 5 * len(LADDER)
    for check in checks:
        if not check.met:  # 150 lattices leave c uncertain by a tenth
            assert check.error > 0.002, check


def test_evidence_of_lattices_survives_json() -> None:
    evidence = verdict_on_nature()
    assert [f.gap for f in Evidence.from_json(evidence.to_json()).findings] == [f.gap for f in evidence.findings]


# --- planted faults ---


def gap(evidence: Evidence, name: str) -> float:
    return next(f.gap for f in evidence.findings if f.name == name)


def test_a_generator_warmer_by_a_tenth_is_caught() -> None:
    evidence = judge(drawn_at(1), drawn_at(2, warmer=0.1), seed=0)
    assert evidence.differs
    assert gap(evidence, "u(T)") > 0.15
    assert not next(c for c in evidence.checks if c.name == "|u - Kaufman|, T = 2.3").met
    local = next(f for f in evidence.findings if f.name == "T_local(T)")
    assert local.drawn == pytest.approx(np.array(LADDER) + 0.1, abs=0.06)


def test_a_collapsed_generator_is_caught() -> None:
    few = torch.cat([torch.arange(EACH) % 15 + EACH * i for i in range(len(LADDER))])
    evidence = judge(drawn_at(1), drawn_at(2)[few], seed=0)
    assert evidence.differs
    assert gap(evidence, "classifier two-sample test") > 0.5
    assert gap(evidence, "coverage (share missed)") > 0.15


def test_copied_training_lattices_are_caught_and_independent_ones_are_not() -> None:
    training = drawn_at(3, each=300)
    copies = training[torch.cat([torch.arange(EACH) + 300 * i for i in range(len(LADDER))])]
    evidence = judge(drawn_at(1), copies, seed=0, training=training)
    assert evidence.differs
    assert evidence.worst_first()[0].name == "memorisation"
    assert gap(evidence, "memorisation") == pytest.approx(1, abs=0.01)
    assert abs(gap(verdict_on_nature(), "memorisation")) < 0.05


def test_a_generator_of_one_sign_is_caught() -> None:
    drawn = drawn_at(2)
    sign = torch.where(drawn.spins.sum((1, 2), dtype=torch.int32) < 0, -1, 1).to(torch.int8)
    evidence = judge(drawn_at(1), dataclasses.replace(drawn, spins=drawn.spins * sign[:, None, None]), seed=0)
    assert evidence.differs
    assert not next(c for c in evidence.checks if c.name == "share of m > 0, T = 1.9").met
    assert evidence.worst_first()[0].name.startswith("m, T")


def test_a_thin_grain_of_wrong_spins_is_caught() -> None:
    """One spin in a hundred turned at random: invisible to the eye, and to |m|."""
    drawn = drawn_at(2)
    grain = torch.rand(drawn.spins.shape, generator=torch.Generator().manual_seed(0)) < 0.01
    evidence = judge(drawn_at(1), dataclasses.replace(drawn, spins=torch.where(grain, -drawn.spins, drawn.spins)), seed=0)
    assert evidence.differs


# --- refusals ---


def test_lattices_of_another_side_or_other_temperatures_are_refused() -> None:
    other = equilibrium(8, LADDER, EACH, seed=0)
    with pytest.raises(Refused, match="side 16, drawn ones 8"):
        judge(drawn_at(1), other, seed=0)
    with pytest.raises(Refused, match="both need at least 8"):
        judge(drawn_at(1)[:4], drawn_at(2)[:4], seed=0)


def test_where_counts_differ_the_judge_uses_as_many_of_both_and_says_so() -> None:
    evidence = judge(drawn_at(1), drawn_at(2)[: len(LADDER) * EACH - 5], seed=0)
    assert evidence.nature_rows == evidence.drawn_rows == len(LADDER) * EACH - 5
    assert any("judged on what both have" in remark for remark in evidence.remarks)


def test_long_ladders_show_six_temperatures_with_the_critical_one() -> None:
    ladder = np.round(np.linspace(1.5, 3.5, 25), 4)
    shown = statistics._featured(ladder)
    assert len(shown) == 6
    assert ladder[np.argmin(abs(ladder - kaufman.critical_temperature()))] in shown
