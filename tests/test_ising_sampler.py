"""The sampler against exact truths: Kaufman's finite torus, the enumerated 4 x 4 lattice, Onsager's infinite one."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from simulacra.sciences.ising import data, kaufman
from simulacra.sciences.ising.data import Lattices, equilibrium, from_real, metropolis, read, write
from simulacra.sciences.ising.statistics import energy, magnetisation
from simulacra.study import Refused

TC = kaufman.critical_temperature()

# u and c per spin on the L x L torus at T = 2.0, 2.2, Tc, 2.4, 3.0 (Kaufman 1949, evaluated with 40 digits)
TORUS = {
    4: ((-1.755380, 0.605533), (-1.618743, 0.750508), (-1.565624, 0.783267), (-1.460660, 0.814773), (-1.017070, 0.603135)),
    8: ((-1.745683, 0.714123), (-1.568042, 1.058401), (-1.491589, 1.145559), (-1.337220, 1.184149), (-0.841315, 0.483966)),
    16: ((-1.745531, 0.725509), (-1.550106, 1.290536), (-1.453065, 1.498705), (-1.255043, 1.408170), (-0.817689, 0.404333)),
    32: ((-1.745565, 0.724874), (-1.546586, 1.401074), (-1.433658, 1.846768), (-1.212601, 1.283588), (-0.817310, 0.401382)),
    64: ((-1.745565, 0.724871), (-1.546479, 1.414893), (-1.423938, 2.192211), (-1.204232, 1.134059), (-0.817310, 0.401380)),
}
# T: (m, u, c, xi) of the infinite lattice
ONSAGER = {
    1.0: (0.999276, -1.997160, 0.023380, 0.2894),
    1.5: (0.986500, -1.951117, 0.197275, 0.6302),
    2.0: (0.911319, -1.745565, 0.724871, 2.1924),
    2.1: (0.868748, -1.662082, 0.962735, 3.6070),
    2.2: (0.784755, -1.546489, 1.414278, 9.1072),
    2.3: (0.0, -1.342866, 1.822369, 42.165),
    2.4: (0.0, -1.203974, 1.123034, 10.228),
    2.5: (0.0, -1.106079, 0.861698, 5.9624),
    3.0: (0.0, -0.817310, 0.401380, 2.1365),
    4.0: (0.0, -0.557272, 0.171188, 1.1027),
}
# T: (<|m|>, <m^2>, U4, ln Z) over the 2^16 states of the 4 x 4 torus
ENUMERATED = {
    2.0: (0.91894327, 0.86892168, 0.64481079, 17.10536712),
    TC: (0.84386044, 0.76135891, 0.61719932, 15.52191546),
    2.4: (0.79984566, 0.70139977, 0.59824891, 14.93987272),
    3.0: (0.60129133, 0.45098814, 0.48054066, 13.28103346),
}


# --- exact values ---


@pytest.mark.parametrize("side", TORUS)
def test_kaufman_gives_the_tabulated_energies_and_heat_capacities(side: int) -> None:
    temperatures = np.array([2.0, 2.2, TC, 2.4, 3.0])
    u, c = np.array(TORUS[side]).T
    np.testing.assert_allclose(kaufman.energy(side, temperatures), u, atol=1e-6)
    np.testing.assert_allclose(kaufman.heat_capacity(side, temperatures), c, atol=1e-6)


@pytest.mark.parametrize("temperature", ENUMERATED)
def test_every_state_of_the_4x4_torus_adds_up_to_the_tabulated_averages(temperature: float) -> None:
    states = kaufman.enumerate_4x4(temperature)
    found = (states.magnetisation, states.magnetisation_squared, states.binder, states.ln_z)
    np.testing.assert_allclose(found, ENUMERATED[temperature], atol=1e-8)


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.3, 2.0, TC, 2.4, 3.0, 10.0, 300.0])
def test_kaufman_agrees_with_summing_all_states_of_the_4x4_torus(temperature: float) -> None:
    states = kaufman.enumerate_4x4(temperature)
    assert float(kaufman.ln_z(4, temperature)) == pytest.approx(states.ln_z, rel=1e-12)
    assert float(kaufman.energy(4, temperature)) == pytest.approx(states.energy, abs=1e-10)
    assert float(kaufman.heat_capacity(4, temperature)) == pytest.approx(states.heat_capacity, abs=1e-10)


def test_heat_capacity_is_the_slope_of_the_energy_on_any_torus() -> None:
    t, h = np.array([1.5, 2.2, TC, 2.5, 4.0]), 1e-4
    for side in (5, 32, 128):
        slope = (kaufman.energy(side, t + h) - kaufman.energy(side, t - h)) / (2 * h)
        np.testing.assert_allclose(kaufman.heat_capacity(side, t), slope, rtol=1e-5)


@pytest.mark.parametrize("temperature", ONSAGER)
def test_onsager_gives_the_tabulated_infinite_lattice(temperature: float) -> None:
    m, u, c, xi = ONSAGER[temperature]
    assert float(kaufman.onsager_magnetisation(temperature)) == pytest.approx(m, abs=1e-6)
    assert float(kaufman.onsager_energy(temperature)) == pytest.approx(u, abs=1e-6)
    assert float(kaufman.onsager_heat_capacity(temperature)) == pytest.approx(c, abs=1e-6)
    assert float(kaufman.correlation_length(temperature)) == pytest.approx(xi, rel=1e-4)


def test_the_critical_point_has_its_closed_forms() -> None:
    catalan = 0.915965594177219
    assert abs(TC - 2.269185314213) < 1e-12
    assert float(kaufman.onsager_energy(TC)) == pytest.approx(-np.sqrt(2), abs=1e-8)
    assert float(kaufman.onsager_free_energy(TC)) == pytest.approx(-TC * (np.log(2) / 2 + 2 * catalan / np.pi), abs=1e-8)


def test_the_free_energy_of_large_tori_tends_to_the_infinite_lattice() -> None:
    np.testing.assert_allclose(kaufman.free_energy(256, [2.5, 3.0]), kaufman.onsager_free_energy([2.5, 3.0]), atol=1e-8)
    two_ground_states = 1.5 * np.log(2) / 256**2
    assert float(kaufman.free_energy(256, 1.5)) == pytest.approx(float(kaufman.onsager_free_energy(1.5)) - two_ground_states, abs=1e-8)


# --- equilibrium ---


def standard_errors_off(spins: np.ndarray, side: int, temperature: float) -> float:
    e = energy(spins)
    return abs(float(e.mean() - kaufman.energy(side, temperature))) / float(e.std(ddof=1) / np.sqrt(len(e)))


@pytest.mark.parametrize("side", [16, 32])
@pytest.mark.parametrize("temperature", [1.8, 2.1, TC, 2.4, 3.0])
def test_wolff_energies_are_kaufmans(side: int, temperature: float) -> None:
    pytest.importorskip("numba")
    spins = data._by_wolff(side, float(np.float32(temperature)), 300, seed=4)
    assert standard_errors_off(spins, side, temperature) < 3


@pytest.mark.parametrize("side", [16, 32])
@pytest.mark.parametrize("temperature", [1.8, 2.1, TC, 2.4, 3.0])
def test_bit_sliced_metropolis_keeps_kaufmans_energies(side: int, temperature: float) -> None:
    """Started in equilibrium, which local moves must leave as it is (reaching it at side 32 and T_c takes them 10^4 sweeps)."""
    pytest.importorskip("numba")
    spins = metropolis(equilibrium(side, [temperature], 256, seed=6), 300, seed=7).spins.numpy()
    assert standard_errors_off(spins, side, temperature) < 3


@pytest.mark.parametrize("temperature", [1.8, TC, 3.0])
def test_bit_sliced_metropolis_reaches_kaufmans_energies_from_infinite_temperature(temperature: float) -> None:
    pytest.importorskip("numba")
    spins = data._by_metropolis(8, temperature, 512, seed=8, sweeps=2000)
    assert standard_errors_off(spins, 8, temperature) < 3


@pytest.mark.parametrize("temperature", [1.8, TC, 3.0])
def test_without_numba_the_energies_are_kaufmans_too(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_numba", lambda: False)
    assert standard_errors_off(equilibrium(16, [temperature], 200, seed=3).spins.numpy(), 16, temperature) < 3
    moved = metropolis(equilibrium(8, [temperature], 200, seed=3), 50, seed=1)
    assert standard_errors_off(moved.spins.numpy(), 8, temperature) < 3


@pytest.mark.parametrize("temperature", [2.0, 3.0])
def test_energies_of_4x4_lattices_follow_the_enumerated_law(temperature: float) -> None:
    n, states = 4000, kaufman.enumerate_4x4(temperature)
    e = energy(equilibrium(4, [temperature], n, seed=1).spins.numpy())
    count = np.array([np.isclose(e, level).sum() for level in states.levels])
    assert count.sum() == n
    expected = n * states.level_probability
    often = expected > 5
    chi2 = ((count - expected)[often] ** 2 / expected[often]).sum()
    assert chi2 < often.sum() + 3 * np.sqrt(2 * often.sum())


def test_magnetisation_of_4x4_lattices_has_the_enumerated_moments() -> None:
    m = magnetisation(equilibrium(4, [TC], 4000, seed=2).spins.numpy())
    states = kaufman.enumerate_4x4(TC)
    assert abs(np.abs(m).mean() - states.magnetisation) < 3 * np.abs(m).std() / np.sqrt(len(m))
    assert abs((m**2).mean() - states.magnetisation_squared) < 3 * (m**2).std() / np.sqrt(len(m))


def test_both_signs_of_the_magnetisation_are_equally_likely_below_the_critical_temperature() -> None:
    m = magnetisation(equilibrium(16, [1.5, 2.0], 400, seed=5).spins.numpy())
    assert np.abs(m).mean() > 0.9
    assert abs((m > 0).mean() - 0.5) < 3 * 0.5 / np.sqrt(len(m))


@pytest.mark.parametrize("temperature", [2.0, 3.0])
def test_lattices_of_one_temperature_are_independent(temperature: float) -> None:
    """Replicas that shared random bits would coalesce: their overlaps would be those of one lattice with itself."""
    flat = equilibrium(16, [temperature], 128, seed=9).spins.numpy().reshape(128, -1).astype(float)
    m2 = (flat.mean(1) ** 2).mean()
    overlap = (flat @ flat.T / flat.shape[1])[np.triu_indices(128, 1)]
    assert abs(overlap.mean()) < 0.1
    assert np.abs(overlap).max() < 0.99
    assert overlap.std() < 1.5 * m2 + 0.1
    assert len(np.unique(flat, axis=0)) == 128


def test_lanes_of_one_word_started_alike_go_separate_ways() -> None:
    pytest.importorskip("numba")
    alike = Lattices(torch.ones(64, 16, 16, dtype=torch.int8), torch.full((64,), 3.0))
    moved = metropolis(alike, 100, seed=1).spins.reshape(64, -1).float()
    overlap = (moved @ moved.T / 256)[~torch.eye(64, dtype=torch.bool)]
    assert abs(float(overlap.mean())) < 0.02
    assert float(overlap.abs().max()) < 0.7


def test_random_words_are_those_of_xoshiro256_plus_plus() -> None:
    pytest.importorskip("numba")
    from simulacra.sciences.ising import montecarlo

    a, b, c, d = 1, 2, 3, 4  # the generator restated in whole numbers; its authors' test starts 41943041, 58720359
    state, expected = np.array([a, b, c, d], np.uint64), []
    for _ in range(50):
        total = (a + d) % 2**64
        expected.append(((total << 23 | total >> 41) + a) % 2**64)
        shifted, c, d = b << 17, c ^ a, d ^ b
        b, a, c, d = b ^ c, a ^ d, (c ^ shifted) % 2**64, (d << 45 | d >> 19) % 2**64
    assert [int(montecarlo.next_word(state)) for _ in range(50)] == expected
    assert expected[:2] == [41943041, 58720359]


def test_bernoulli_words_have_the_asked_frequency_in_every_lane() -> None:
    pytest.importorskip("numba")
    from simulacra.sciences.ising import montecarlo

    state, p, n = data._stream(1, 2, 3.0, 4), 0.1690133154, 20000
    digits = data.binary_digits(p)
    words = np.array([montecarlo.bernoulli(state, digits, montecarlo.ALL) for _ in range(n)], np.uint64)
    bits = (words[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    z = (bits.mean(0) - p) / np.sqrt(p * (1 - p) / n)
    assert np.abs(z).max() < 4
    correlation = np.corrcoef(bits.T.astype(float))[np.triu_indices(64, 1)]
    assert np.abs(correlation).max() < 5 / np.sqrt(n)


# --- reproducible ---


def test_lattices_do_not_depend_on_what_else_is_asked_for() -> None:
    few, many = equilibrium(8, [2.3], 3, seed=1), equilibrium(8, [1.9, 3.0, 2.3, 5.0], 70, seed=1)
    assert torch.equal(few.spins, many[140:143].spins)
    hot = equilibrium(8, [3.0], 65, seed=1)
    assert torch.equal(hot.spins, many[70:135].spins)


def test_seeds_decide_the_lattices() -> None:
    one, same, other = (equilibrium(8, [2.3, 3.0], 20, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.spins, same.spins)
    assert not torch.equal(one.spins[:20], other.spins[:20])
    assert not torch.equal(one.spins[20:], other.spins[20:])


def test_progress_is_told_after_each_temperature() -> None:
    seen: list[tuple[int, int]] = []
    equilibrium(4, [2.0, 3.0], 5, seed=0, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(5, 10), (10, 10)]


def test_division_keeps_the_share_of_every_temperature_and_no_lattice_twice() -> None:
    whole = equilibrium(8, [2.5, 3.5], 50, seed=1)
    parts = data.divide(whole, validation=0.2, held_out=0.4, seed=0)
    assert [len(p) for p in parts] == [40, 20, 40]
    assert all((p.temperature == 2.5).sum() == len(p) // 2 for p in parts)
    assert len(torch.unique(torch.cat([p.spins for p in parts]).reshape(100, -1), dim=0)) == 100


# --- what is refused ---


def lattices(n: int = 3, side: int = 4) -> Lattices:
    return Lattices(torch.ones(n, side, side, dtype=torch.int8), torch.full((n,), 2.0))


@pytest.mark.parametrize(
    ("spins", "temperature", "words"),
    [
        (torch.zeros(2, 4, 4, dtype=torch.int8), torch.ones(2), "32 spins are neither.*lattice 0, with value 0"),
        (torch.ones(2, 4, 5, dtype=torch.int8), torch.ones(2), "4 x 5"),
        (torch.ones(4, 4, dtype=torch.int8), torch.ones(4), "shape"),
        (torch.ones(2, 4, 4), torch.ones(2), "from_real"),
        (torch.ones(2, 4, 4, dtype=torch.int8), torch.tensor([1.0, 0.0]), "positive and finite"),
        (torch.ones(2, 4, 4, dtype=torch.int8), torch.tensor([-1.0, 1.0]), "lattice 0 has -1"),
        (torch.ones(2, 4, 4, dtype=torch.int8), torch.tensor([1.0, float("nan")]), "lattice 1 has nan"),
        (torch.ones(2, 4, 4, dtype=torch.int8), torch.tensor([1.0, float("inf")]), "positive and finite"),
        (torch.ones(2, 4, 4, dtype=torch.int8), torch.ones(3), "differ in length"),
        (torch.ones(2, 4, 4, dtype=torch.int8), torch.ones(2, dtype=torch.float64), "float32"),
    ],
)
def test_what_is_no_lattice_is_refused_in_words(spins: torch.Tensor, temperature: torch.Tensor, words: str) -> None:
    with pytest.raises(Refused, match=words):
        Lattices(spins, temperature)


@pytest.mark.parametrize(
    ("side", "temperatures", "each", "words"),
    [
        (1, [2.0], 1, "side"),
        (8, [], 1, "no temperature"),
        (8, [0.0], 1, "positive"),
        (8, [0.01], 1, "below 0.05"),
        (8, [2.0], 0, "at least one"),
    ],
)
def test_simulations_that_make_no_sense_are_refused(side: int, temperatures: list[float], each: int, words: str) -> None:
    with pytest.raises(Refused, match=words):
        equilibrium(side, temperatures, each, seed=0)


def test_a_checkerboard_of_odd_side_is_refused() -> None:
    with pytest.raises(Refused, match="even side"):
        metropolis(lattices(side=5), 1, seed=0)


def test_real_numbers_become_spins_by_their_sign_and_tell_how_far_they_were() -> None:
    drawn, off = from_real(torch.tensor([[[0.5, -0.9], [1.0, -1.0]]]), torch.tensor([2.0]))
    assert drawn.spins.flatten().tolist() == [1, -1, 1, -1]
    assert off == pytest.approx((0.5 + 0.1) / 4)
    with pytest.raises(Refused, match="not finite"):
        from_real(torch.full((1, 2, 2), float("nan")), torch.tensor([2.0]))


# --- files ---


def test_lattices_survive_a_file(tmp_path: Path) -> None:
    drawn = equilibrium(8, [2.0, 3.0], 3, seed=1)
    write(drawn, tmp_path / "a.npz")
    back = read(tmp_path / "a.npz")
    assert torch.equal(back.spins, drawn.spins)
    assert torch.equal(back.temperature, drawn.temperature)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("kind", [np.int64, np.float32, np.float64, np.int16])
def test_spins_of_other_types_and_a_single_temperature_are_read(tmp_path: Path, kind: type) -> None:
    np.savez(tmp_path / "a.npz", spins=np.ones((3, 4, 4), kind), temperature=2.5)
    assert read(tmp_path / "a.npz").temperature.tolist() == [2.5, 2.5, 2.5]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"spins": np.ones((2, 4, 4))}, "`temperature` is missing; it holds spins"),
        ({"x": np.ones(3), "temperature": np.ones(2)}, "`spins` is missing; it holds x, temperature"),
        ({"spins": np.ones((0, 4, 4)), "temperature": np.ones(0)}, "no lattice"),
        ({"spins": np.ones((2, 4, 4)), "temperature": np.ones(3)}, "differ in length"),
        ({"spins": np.full((2, 4, 4), 257), "temperature": np.ones(2)}, "value 257"),
        ({"spins": np.full((2, 4, 4), np.nan), "temperature": np.ones(2)}, "value nan"),
        ({"spins": np.ones((2, 4, 4)) > 0, "temperature": np.ones(2)}, "type bool"),
        ({"spins": np.ones((2, 4, 6)), "temperature": np.ones(2)}, "4 x 6"),
        ({"spins": np.ones(()), "temperature": np.ones(())}, "shape"),
        ({"spins": np.ones((2, 4, 4)), "temperature": np.array([2.0, -1.0])}, "positive"),
        ({"spins": np.ones((2, 4, 4)), "temperature": np.ones((2, 1))}, "temperature has shape"),
    ],
)
def test_files_that_hold_no_lattices_are_refused_by_name(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(Refused, match=words) as refusal:
        read(tmp_path / "a.npz")
    assert "a.npz" in str(refusal.value)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", spins=np.array([{"a": 1}], object), temperature=np.ones(1), allow_pickle=True)
    with pytest.raises(Refused, match="never unpickled"):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize("keep", [0, 3, 40, 200, 0.5, 0.98])
def test_files_cut_off_anywhere_are_refused(tmp_path: Path, keep: float) -> None:
    write(equilibrium(8, [2.0], 20, seed=1), tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(Refused, match="not a complete"):
        read(tmp_path / "a.npz")


def test_damaged_bytes_are_refused(tmp_path: Path) -> None:
    write(equilibrium(8, [2.0], 20, seed=1), tmp_path / "a.npz")
    whole = bytearray((tmp_path / "a.npz").read_bytes())
    whole[200:240] = b"\xff" * 40
    (tmp_path / "a.npz").write_bytes(whole)
    with pytest.raises(Refused):
        read(tmp_path / "a.npz")


def forged(path: Path, shape: tuple[int, ...], body: bytes = b"") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("spins", "temperature"):
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array_header_1_0(file, {"descr": "|i1", "fortran_order": False, "shape": shape})
                file.write(body)


def test_a_header_that_asks_for_more_than_a_billion_elements_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    forged(tmp_path / "a.npz", (10**6, 10**6, 10**6))
    with pytest.raises(Refused, match="claims 1e\\+18 elements"):
        read(tmp_path / "a.npz")


def test_a_header_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    forged(tmp_path / "a.npz", (900, 1000, 1000), b"\x01" * 100)
    with pytest.raises(Refused, match="cut off"):
        read(tmp_path / "a.npz")


def test_a_bare_array_is_refused_because_its_temperature_is_unknown(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 4, 4), np.int8))
    with pytest.raises(Refused, match="temperature"):
        read(tmp_path / "a.npy")


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no such file"):
        read(tmp_path / "none.npz")
    (tmp_path / "a.npz").write_text("spins")
    with pytest.raises(Refused, match="not a complete"):
        read(tmp_path / "a.npz")


def test_pictures_show_up_and_down_in_two_colours() -> None:
    spins = torch.ones(1, 2, 2, dtype=torch.int8)
    spins[0, 0, 0] = -1
    image = data.picture(Lattices(spins, torch.ones(1)))
    assert image.shape == (1, 2, 2, 3)
    assert image.min() >= 0
    assert image.max() <= 1
    assert len(np.unique(image.reshape(-1, 3), axis=0)) == 2


def test_simulated_lattices_are_remembered_and_a_damaged_memory_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMULACRA_CACHE", str(tmp_path / "cache"))
    first = data.simulated(8, [2.0, 2.6], 5, seed=3)
    assert torch.equal(first.spins, data.equilibrium(8, [2.0, 2.6], 5, seed=3).spins)
    (kept,) = (tmp_path / "cache").glob("ising-*.npz")
    monkeypatch.setattr(data, "equilibrium", lambda *a, **k: pytest.fail("made again though remembered"))
    assert torch.equal(data.simulated(8, [2.0, 2.6], 5, seed=3).spins, first.spins)
    monkeypatch.undo()
    monkeypatch.setenv("SIMULACRA_CACHE", str(tmp_path / "cache"))
    kept.write_bytes(kept.read_bytes()[:200])
    assert torch.equal(data.simulated(8, [2.0, 2.6], 5, seed=3).spins, first.spins)
    monkeypatch.setenv("SIMULACRA_CACHE", "/proc/nowhere")
    assert torch.equal(data.simulated(8, [2.0, 2.6], 5, seed=3).spins, first.spins)
