"""First passage against a loop over modes, exact trajectories and analytic times."""

import math

import numpy as np
import pytest

from spectral_lightning.emergence import first_passage


def _naive(steps, values, level, sign):
    """One mode, record by record: the rule in words."""
    previous = None
    for t, v in zip(steps, values, strict=True):
        if not math.isfinite(v):
            continue
        if sign != 0 and (v >= level if sign > 0 else v <= level):
            if previous is None:
                return t
            t0, v0 = previous
            share = math.log(level / v0) / math.log(v / v0) if v0 > 0 and v > 0 else (level - v0) / (v - v0)
            return t0 * (t / t0) ** share if t0 > 0 else share * t
        previous = t, v
    return math.nan


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("from_zero", [True, False])
def test_agrees_with_the_loop_on_random_tables(seed, from_zero):
    rng = np.random.default_rng(seed)
    count, modes = int(rng.integers(1, 12)), 60
    steps = np.sort(rng.choice(np.arange(1, 500), count, replace=False)).astype(float)
    if from_zero:
        steps[0] = 0
    values = np.exp(rng.standard_normal((count, modes)) * 2)
    values[rng.random(values.shape) < 0.15] = np.nan
    values[rng.random(values.shape) < 0.05] = np.inf
    values[rng.random(values.shape) < 0.1] = 0.0
    level, sign = np.exp(rng.standard_normal(modes) * 2), rng.integers(-1, 2, modes)
    expected = [_naive(steps, values[:, k], level[k], sign[k]) for k in range(modes)]
    assert 0 < np.isnan(expected).sum() < modes
    # The same formula in another order of operations.
    np.testing.assert_allclose(first_passage(steps, values, level, sign), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("slope", [-2.0, -0.5, 0.5, 3.0])
def test_exact_where_log_variance_is_linear_in_log_step(slope):
    steps = np.array([1.0, 3.0, 50.0, 51.0, 900.0, 1e4])
    truth = np.geomspace(1.01, 9.9e3, 200)
    level = np.geomspace(1e-6, 1e6, 200)
    values = level * (steps[:, None] / truth) ** slope
    time = first_passage(steps, values, level, np.full(200, np.sign(slope)))
    np.testing.assert_allclose(time, truth, rtol=1e-11)


@pytest.mark.parametrize("rate", [-0.3, 0.3])
def test_exact_where_log_variance_is_linear_in_the_step_from_zero(rate):
    """Between 0 and the first later record there is no log step: an exponential is met exactly."""
    truth = np.linspace(0.1, 9.9, 50)
    values = 2.0 * np.exp(rate * (np.array([0.0, 10.0])[:, None] - truth))
    time = first_passage([0, 10], values, np.full(50, 2.0), np.full(50, np.sign(rate)))
    np.testing.assert_allclose(time, truth, rtol=1e-12)


def _relaxation_error(per_decade, initial, target, level):
    """Largest relative error of the passage of exponential relaxations with rates over three decades."""
    rates = np.geomspace(1e-3, 1, 151)
    steps = 10 ** (np.arange(0, 6 * per_decade + 1) / per_decade - 2)
    values = target + (initial - target) * np.exp(-rates * steps[:, None])
    truth = np.log((initial - target) / (level - target)) / rates
    sign = np.full(151, np.sign(target - initial))
    found = first_passage(steps, values, np.full(151, level), sign)
    index = np.searchsorted(steps, truth)
    assert np.all((steps[index - 1] <= found) & (found <= steps[index]))
    return np.max(np.abs(found / truth - 1))


@pytest.mark.parametrize(("initial", "target", "level"), [(0.01, 1.0, 0.1), (4.0, 1.0, 2.0), (1.0, 1e-3, 0.1)])
def test_relaxations_are_found_to_second_order_in_the_grid(initial, target, level):
    coarse, fine = (_relaxation_error(count, initial, target, level) for count in (10, 40))
    assert coarse < 0.02  # the distance of two records is 26 %
    assert 10 < coarse / fine < 24  # four times the records, a sixteenth of the error


@pytest.mark.parametrize(
    ("steps", "values", "level", "sign", "expected"),
    [
        ([0, 10], [5.0, 6.0], 2.0, 1, 0.0),
        ([3, 10], [5.0, 6.0], 2.0, 1, 3.0),
        ([3, 10], [2.0, 1.0], 2.0, 1, 3.0),  # at the threshold is past it
        ([3, 10], [1.0, 1.9], 2.0, 1, math.nan),
        ([0, 10], [1.0, 1.0], 2.0, 1, math.nan),
        ([3, 10], [1.0, 3.0], 2.0, -1, 3.0),
        ([3, 10], [1.0, 3.0], 2.0, 0, math.nan),
        ([3, 10], [2.0, 2.0], 2.0, 0, math.nan),
        ([3, 12], [1.0, 4.0], 2.0, 1, 6.0),
        ([3, 5, 12], [1.0, math.nan, 4.0], 2.0, 1, 6.0),
        ([3, 5, 12], [1.0, math.inf, 4.0], 2.0, 1, 6.0),  # a blown-up measurement is none
        ([1, 3, 12], [math.nan, 1.0, 4.0], 2.0, 1, 6.0),
        ([1, 3, 12], [math.nan, math.nan, 4.0], 2.0, 1, 12.0),
        ([1, 3, 12], [math.nan, math.nan, math.nan], 2.0, 1, math.nan),
        ([3, 12, 20, 30], [1.0, 4.0, 1.0, 8.0], 2.0, 1, 6.0),  # the first passage, not the last
        ([3, 12], [1.0, 4.0], math.nan, 1, math.nan),
        ([7], [3.0], 2.0, 1, 7.0),
        ([7], [1.0], 2.0, 1, math.nan),
        ([0, 4, 12], [1.0, math.nan, 4.0], 2.0, 1, 6.0),  # linear from 0, across the gap
    ],
)
@pytest.mark.filterwarnings("error")
def test_particular_trajectories(steps, values, level, sign, expected):
    result = first_passage(steps, np.array(values)[:, None], [level], [sign])
    np.testing.assert_allclose(result, [expected], rtol=1e-12)


def test_no_records_and_no_modes():
    np.testing.assert_array_equal(first_passage([], np.empty((0, 3)), np.ones(3), np.ones(3)), [np.nan] * 3)
    assert first_passage([1, 2], np.empty((2, 0)), [], []).shape == (0,)


@pytest.mark.parametrize(
    ("steps", "values", "level", "sign", "argument"),
    [
        ([1, 2], np.ones((3, 2)), np.ones(2), np.ones(2), "variance"),
        ([1, 2], np.ones((2, 3)), np.ones(2), np.ones(2), "variance"),
        ([1, 2], np.ones((2, 2)), np.ones(2), np.ones(3), "variance"),
        ([1, 2], np.ones(2), np.ones(1), np.ones(1), "variance"),
        ([1, 2], np.ones((2, 2)), 1.0, np.ones(2), "variance"),
        ([[1, 2]], np.ones((1, 2, 2)), np.ones(2), np.ones(2), "variance"),
        *(
            (steps, np.ones((2, 1)), [1.0], [1], "steps")
            for steps in ([2, 1], [1, 1], [-1, 1], [math.nan, 1], [1, math.inf])
        ),
        ([math.nan], np.ones((1, 1)), [1.0], [1], "steps"),
    ],
)
def test_bad_arguments_are_refused(steps, values, level, sign, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        first_passage(steps, values, level, sign)
