"""Monotone curves, their passage and its error, and what they hide."""

from __future__ import annotations

import numpy as np
import pytest

from spectral_lightning.emergence import first_passage, monotone_passage, reversals, stalled

STEPS = np.concatenate([[0.0], np.geomspace(1, 1000, 19)])


def _curves(times: np.ndarray, ends: float = 30.0) -> np.ndarray:
    with np.errstate(divide="ignore"):
        progress = 1 / (1 + (times / STEPS[:, None]) ** 2)
    return ends**progress


@pytest.mark.parametrize("sign", [1, -1], ids=["rising", "falling"])
def test_without_noise_it_is_the_first_passage(sign: int) -> None:
    times = np.geomspace(3, 700, 25)
    table, level = _curves(times) ** sign, np.full(25, 30.0 ** (sign / 2))
    found = monotone_passage(STEPS, table, level, np.full(25, sign))
    np.testing.assert_allclose(found.time, first_passage(STEPS, table, level, np.full(25, sign)), rtol=1e-12)
    assert not found.bound.any()
    assert not found.error.any()
    np.testing.assert_allclose(np.exp(found.way), table)


def test_noise_does_not_make_it_early_and_its_error_is_the_scatter() -> None:
    rng, steps = np.random.default_rng(0), np.geomspace(1, 1000, 60)
    clean = 4.0 ** (1 / (1 + 60 / steps))[:, None] * np.ones(400)
    table = clean * np.exp(0.15 * rng.standard_normal(clean.shape))
    level, up = np.full(400, 2.0), np.ones(400, int)
    found = monotone_passage(steps, table, level, up, 0.15 * table)
    log = np.log(found.time / 60)
    assert abs(log.mean()) < 0.05
    assert np.log(first_passage(steps, table, level, up) / 60).mean() < -0.2
    # One record's error is an upper bound for that of the fit, which pools neighbours.
    assert log.std() < np.mean(found.error) < 3 * log.std()


def test_a_stretch_that_went_back_counts_once_at_its_middle() -> None:
    found = monotone_passage([1, 10, 100, 1000], [[1.0], [9.0], [4.0], [100.0]], [6.0], [1])
    assert found.time == pytest.approx(np.sqrt(1000))
    assert np.exp(found.way[:, 0]) == pytest.approx([1, 6, 6, 100])


def test_passages_before_the_second_record_are_bounds() -> None:
    found = monotone_passage([0, 5, 50], [[1.0, 1.0, 4.0], [9.0, 2.0, 5.0], [9.0, 9.0, 6.0]], [3.0] * 3, [1, 1, 1])
    assert found.time == pytest.approx([2.5, 5 * np.exp(np.log(1.5) / np.log(4.5) * np.log(10)), 0])
    assert found.bound.tolist() == [True, False, True]


def test_records_without_a_logarithm_are_left_out() -> None:
    table = np.array([[1.0, np.nan, 0.0], [np.nan, np.nan, 2.0], [4.0, np.nan, 4.0]])
    found = monotone_passage([1, 2, 4], table, [2.0, 2.0, 3.0], [1, 1, 0])
    assert found.time[0] == pytest.approx(2)
    assert np.isnan(found.time[1:]).all()


def test_steps_back_and_excess_are_named_beyond_their_errors_only() -> None:
    table = np.array([[1.0, 1.0, 1.0], [5.0, 5.0, 5.0], [3.0, 4.9, 8.0]])
    exact = reversals(table, [1, 1, 1], [5.0, 5.0, 5.0])
    assert exact.back == pytest.approx([np.log(5 / 3), 0, 0])
    assert exact.over == pytest.approx([0, 0, np.log(8 / 5)])
    noisy = reversals(table, [1, 1, 1], [5.0, 5.0, 5.0], 0.2 * table)
    assert not noisy.back.any()
    assert not noisy.over.any()
    assert reversals(np.empty((0, 2)), [1, 1], [1.0, 1.0]).back.tolist() == [0, 0]


def test_only_modes_that_began_and_stopped_are_stalled() -> None:
    stopped = 30.0 ** (0.35 * np.log(_curves(np.array([20.0]))) / np.log(30.0))
    begins, waits = _curves(np.array([1500.0])), np.ones((20, 1))
    table, level = np.concatenate([stopped, begins, waits], 1), np.full(3, 30.0**0.5)
    found = monotone_passage(STEPS, table, level, [1, 1, 1])
    assert stalled(STEPS, table, found, level).tolist() == [True, False, False]
    assert not stalled(STEPS[:1], table[:1], monotone_passage(STEPS[:1], table[:1], level, [1, 1, 1]), level).any()
