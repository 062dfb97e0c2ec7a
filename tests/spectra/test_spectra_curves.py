"""Variances as curves: slices of a block smoothed, values between measurements, both against independent routes."""

import csv

import numpy as np
import pytest

from spectral_lightning.diffusion import Latents
from spectral_lightning.emergence import first_passage
from spectral_lightning.prediction import compare
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.spectra.curves import smooth
from spectral_lightning.tracking import Schedule

DIM, COUNT = 64, 32
GRID = [0, *(s for s in range(1, 2001) if Schedule(6).due(s - 1, s))]
SLICES = {"directions": DIM, "width": COUNT // 2}


def firsts():
    return np.array([Latents(COUNT, DIM).rotated(index).first for index in range(len(GRID))])


def history(variance, error=None, steps=GRID, sliced=True, **rows):
    static = {"target": np.ones(variance.shape[1]), "fixed_point": np.ones(variance.shape[1])}
    table = SpectralHistory(static, {"slices": SLICES} if sliced else {})
    error = 0.1 * variance if error is None else error
    for i, step in enumerate(steps):
        known = {"slice": firsts()[i]} if sliced else {}
        known |= {name: values[i] for name, values in rows.items()}
        table.append(step=step, variance=variance[i], standard_error=error[i], **known)
    return table


def power_laws(steps, start=0.7):
    exponents = np.linspace(-2, 3, 7)
    return np.stack([np.full(7, start) if s == 0 else 0.3 * float(s) ** exponents for s in steps])


def test_power_laws_pass_unchanged_and_keep_an_error():
    exact = power_laws(GRID)
    found = history(exact).smoothed()
    np.testing.assert_allclose(found.variance, exact, rtol=1e-8)
    assert (found["standard_error"] < 0.1 * exact)[1:].all()
    assert "slice" not in found
    assert found.smoothed() is found


def test_smoothing_is_the_conditional_mean_of_a_gaussian_process():
    """The same model another way: f as Brownian motion integrated from an unknown start, everything jointly normal."""
    rng, first = np.random.default_rng(0), firsts()
    measured = np.exp(0.1 * rng.standard_normal((len(GRID), 3)))
    noise = 0.2
    found, errors = smooth(np.array(GRID), first, SLICES, measured, noise * measured)
    x = np.log10(np.maximum(GRID, 1))
    later, earlier = np.maximum.outer(x, x), np.minimum.outer(x, x)
    vague = 1e5
    prior = np.log(10) ** 2 * (earlier**3 / 3 + earlier**2 * (later - earlier) / 2) + vague * (1 + np.outer(x, x))
    prior[0, :] = prior[:, 0] = 0
    prior[0, 0] = vague
    members = np.array([np.isin(np.arange(DIM), (a + np.arange(COUNT // 2)) % DIM) for a in first])
    correlation = np.corrcoef(members.astype(float))
    scatter = noise**2 * (0.97 * correlation * np.exp(-(later - earlier) / 2) + 0.03 * np.eye(len(x)))
    gain = prior @ np.linalg.inv(prior + scatter)
    estimate = np.exp(gain @ np.log(measured))
    estimate *= np.exp(gain @ (measured / estimate) - 1)
    np.testing.assert_allclose(found, estimate, rtol=1e-4)  # of the vague prior
    left = np.sqrt(np.diag(gain @ scatter))  # prior - gain prior, without the cancellation
    np.testing.assert_allclose(errors / found, np.tile(left[:, None], 3), rtol=1e-3)


@pytest.mark.parametrize("thin", [1, 2])
def test_slices_together_are_far_better_than_one_and_their_errors_are_honest(thin):
    """Linear denoisers whose rows turn by 0.7 radian per decade, on the true latents of 20 blocks."""
    steps, share = np.array(GRID[::thin]), np.linspace(0, 1, 24)
    rise = 1 / (1 + (30 / np.maximum(steps, 0.1)) ** 2)
    truth = np.exp(-2 + 3 * rise[:, None] * share)
    raw, smoothed, errors = [], [], []
    for seed in range(20):
        block, chosen = Latents(2 * DIM, DIM, seed=seed).rows(0, 2 * DIM)[::2].numpy(), firsts()[::thin]
        means = []
        for first, angle in zip(chosen, 0.7 * np.log10(np.maximum(steps, 1)), strict=True):
            one, other = np.roll(block, -first, axis=0)[: COUNT // 2, :48].reshape(-1, 2, 24).swapaxes(0, 1)
            means.append(np.square(np.cos(angle) * one + np.sin(angle) * other).mean(0))
        raw.append(truth * np.stack(means))
        found, error = smooth(steps, chosen, SLICES, raw[-1])
        smoothed.append(np.log(found / truth))
        errors.append(error / found)
    before, after = np.sqrt(np.mean(np.log(raw / truth) ** 2)), np.sqrt(np.mean(np.square(smoothed)))
    assert after < (0.35, 0.65)[thin - 1] * before
    inside = np.mean(np.abs(smoothed) < 1.96 * np.array(errors))
    assert 0.93 < inside < 0.995
    assert abs(np.mean(smoothed)) < 0.15 * before  # no bias of the mean logarithm, which is before^2 / 2


def test_an_abrupt_curve_is_followed_and_its_error_grows():
    jump = np.where(np.array(GRID) < 100, 0.01, 1.0)[:, None] * np.ones(5)
    found = history(jump).smoothed()
    deviation = np.abs(np.log(found.variance / jump))
    assert deviation.max() < 0.1  # of 4.6; 1.3 with slopes that change by 1 per decade
    assert (deviation < 2.5 * found["standard_error"] / found.variance).all()
    smooth_error = history(np.ones((len(GRID), 5))).smoothed()["standard_error"]
    assert (found["standard_error"] / found.variance)[1:].mean() > 1.5 * smooth_error[1:].mean()


def test_what_cannot_be_smoothed_is_left_as_it_is():
    measured = power_laws(GRID)
    measured[3, 0], measured[:, 1], measured[5, 2] = np.nan, 0.0, np.inf
    found = history(measured).smoothed()
    np.testing.assert_array_equal(np.isnan(found.variance), np.isnan(measured))
    np.testing.assert_array_equal(found.variance[:, 1], 0)
    np.testing.assert_allclose(found.variance[:, 3:], measured[:, 3:], rtol=1e-8)
    np.testing.assert_allclose(found.variance[~np.isnan(measured[:, 0]), 0], measured[~np.isnan(measured[:, 0]), 0])
    short = history(measured[:3], steps=GRID[:3])
    np.testing.assert_array_equal(short.smoothed().variance, short.variance)
    whole = history(measured, sliced=False)
    assert whole.smoothed() is whole


def test_groups_are_smoothed_alike_and_emergence_is_that_of_the_smoothed_rows():
    rng = np.random.default_rng(1)
    measured = power_laws(GRID)[:, 3:] * np.exp(0.1 * rng.standard_normal((len(GRID), 4)))
    both = np.stack([measured, measured], axis=1)
    names = ("group_variance", "group_standard_error", "group_mean_deviation")
    groups = dict.fromkeys(names, both) | {"group_count": np.ones((len(GRID), 2), int)}
    table = history(measured, error=measured, **groups)
    table.metadata["groups"] = ["a", "b"]
    table.static |= {"group_target": np.ones((2, 4)), "group_fixed_point": np.ones((2, 4))}
    found = table.smoothed()
    assert np.abs(np.log(found.variance / measured)).max() > 0.01
    np.testing.assert_allclose(found["group_variance"], np.stack([found.variance] * 2, axis=1), rtol=1e-12)
    np.testing.assert_allclose(table.group("b").smoothed().variance, found.variance, rtol=1e-12)
    np.testing.assert_array_equal(compare(table).measured.time, compare(found).measured.time)
    assert (compare(table).measured.time != compare(history(measured, sliced=False)).measured.time).any()


# Between measurements.


def test_interpolation_is_exact_on_power_laws_and_marks_its_rows(tmp_path):
    few, dense = [0, 1, 10, 1000], [1, 2, 10, 77, 400, 1000]
    measured = power_laws(few)
    error = measured * np.array([[0.3], [0.1], [0.2], [0.4]])
    extra = {"cumulative_learning_rate": 0.01 * np.array(few), "num_samples": np.full(4, 8), "seconds": np.arange(4.0)}
    found = history(measured, error, steps=few, **extra).interpolated(dense)
    np.testing.assert_allclose(found.variance, power_laws(dense), rtol=1e-12)
    assert found["measured"].tolist() == [True, False, True, False, False, True]
    np.testing.assert_array_equal(found.variance[found["measured"]], measured[1:])
    relative = found["standard_error"] / found.variance
    np.testing.assert_allclose(relative, np.array([[0.1], [0.2], [0.2], [0.4], [0.4], [0.4]]) + np.zeros(7))
    np.testing.assert_allclose(found["cumulative_learning_rate"], 0.01 * np.array(dense))
    assert found["num_samples"].tolist() == [8, 0, 8, 0, 0, 8]
    again = found.interpolated([2, 5, 10])
    assert again["measured"].tolist() == [False, False, True]  # what was interpolated before is not measured now
    found.to_csv(tmp_path / "dense.csv")
    with (tmp_path / "dense.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(int(line["step"]), line["measured"]) for line in lines[::7]] == list(zip(dense, "101001", strict=True))


def test_interpolation_does_not_move_an_emergence():
    few, dense = GRID[::3], np.arange(GRID[::3][-1] + 1)
    rng = np.random.default_rng(0)
    measured = np.exp(np.cumsum(rng.standard_normal((len(few), 20)), axis=0))
    found = history(measured, steps=few, sliced=False).interpolated(dense)
    level, sign = np.full(20, 1.5), np.ones(20)
    before, after = (first_passage(t.steps, t.variance, level, sign) for t in (history(measured, steps=few), found))
    later = before > few[1]
    assert later.sum() > 5
    np.testing.assert_allclose(after[later], before[later], rtol=1e-9)
    np.testing.assert_allclose(after, before, atol=0.5 * few[1])


@pytest.mark.parametrize("steps", [[-1, 3], [3, 3], [5, 3], [1, 1001], [], 7])
def test_nothing_is_extrapolated(steps):
    with pytest.raises(ValueError, match="`steps`"):
        history(power_laws([0, 10, 1000]), steps=[0, 10, 1000]).interpolated(steps)
