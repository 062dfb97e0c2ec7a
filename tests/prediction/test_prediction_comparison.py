"""Measured and predicted emergence, treated alike."""

import numpy as np
import pytest

from spectral_lightning.emergence import RULES, STATUS
from spectral_lightning.prediction import compare
from spectral_lightning.spectra import SpectralHistory
from tests.support.stored_orders import level, passages

LAM = np.geomspace(1e-3, 100, 24)
STEPS = np.unique(np.round(np.geomspace(1, 4000, 60)).astype(int))


def table(steps, rate, initial=0.3, target=LAM, fixed=1.05, null=None):
    """Log variance that runs from its start to the fixed point as 1 - exp(-rate * lambda^0.5 * step)."""
    static = {"target": target, "fixed_point": np.maximum(fixed * target, 1e-12)}
    if null is not None:
        static["null"] = null
    history = SpectralHistory(static)
    end = static["fixed_point"]
    for step in [0, *steps]:
        done = 1 - np.exp(-rate * np.sqrt(np.maximum(target, 1e-6)) * step)
        history.append(step=step, variance=initial * (end / initial) ** done)
    return history


@pytest.mark.parametrize("criterion", ["geometric", "harmonic", "arithmetic"])
@pytest.mark.parametrize("gray_factor", [2.0, 5.0])
def test_both_get_one_criterion_and_one_gray_zone(criterion, gray_factor):
    measured, predicted = table(STEPS, 0.01), table(STEPS, 0.02, initial=0.25)
    both = compare(measured, predicted, criterion, gray_factor)
    end = measured.fixed_point
    ratio = np.maximum(0.3 / end, end / 0.3)
    gray = ratio < gray_factor
    assert 0 < gray.sum() < len(LAM)
    for emergence, history in ((both.measured, measured), (both.predicted, predicted)):
        # Both pass the measurement's threshold, although the prediction starts elsewhere
        np.testing.assert_allclose(emergence.threshold, level(0.3, end, criterion), rtol=1e-12)
        assert emergence.criterion == criterion
        # and have its gray zone
        np.testing.assert_array_equal(emergence.initial, np.full(len(LAM), 0.3))
        expected = np.where(gray, np.nan, passages(history.steps, history.variance, end, criterion, 0.3))
        np.testing.assert_allclose(emergence.time, expected, rtol=1e-10)
    for way, direction in (("rising", end > 0.3), ("falling", end < 0.3)):
        np.testing.assert_array_equal(both.measured.eligible(way), direction & ~gray)
        np.testing.assert_array_equal(both.predicted.eligible(way), direction & ~gray)


def test_the_prediction_is_limited_to_what_was_measured():
    short = STEPS[STEPS <= 300]
    measured, predicted = table(short, 0.02), table(STEPS, 0.02)
    both, whole = compare(measured, predicted), compare(table(STEPS, 0.02), predicted)
    np.testing.assert_array_equal(both.predicted.time, both.measured.time)  # the same curves, window and records
    late = whole.predicted.time > short[-1]
    assert late.any()
    assert np.isnan(both.predicted.time[late]).all()


def test_laws_over_common_modes():
    measured, predicted = table(STEPS, 0.01), table(STEPS[STEPS <= 4000], 0.002)
    both = compare(measured, predicted)
    for way in ("rising", "falling"):
        common = both.measured.crossed(way) & both.predicted.crossed(way)
        np.testing.assert_array_equal(both.common(way), common)
    assert both.measured_law("falling").count == both.measured.crossed("falling").sum()
    assert both.measured_law("falling") is both.measured_law("falling")  # fitted once
    line = np.polyfit(np.log(LAM[both.common("falling")]), np.log(both.predicted.time[both.common("falling")]), 1)
    assert both.predicted_law("falling").count == both.common("falling").sum()
    shown = both.predicted_law("falling")
    assert shown.exponent == pytest.approx(-line[0]) if shown.determinable else shown.count < RULES.min_modes


def test_without_a_prediction():
    both = compare(table(STEPS, 0.01))
    assert both.predicted is None
    assert both.predicted_law("falling") is None
    assert not both.common("falling").any()
    empty = SpectralHistory({"target": LAM, "fixed_point": LAM})
    assert compare(table(STEPS, 0.01), empty).predicted is None


def test_an_empty_history_has_no_emergence():
    both = compare(SpectralHistory({"target": LAM, "fixed_point": LAM}))
    assert np.isnan(both.measured.time).all()
    assert both.measured_law("rising").count == 0


def test_null_modes_are_reported_apart():
    target = np.where(np.arange(24) < 3, 1e-15, LAM)
    both = compare(table(STEPS, 0.05, target=target, null=target < 1e-12))
    assert (both.measured.status[:3] == STATUS.index("null mode")).all()
    assert not (both.measured.status[3:] == STATUS.index("null mode")).any()


def test_unknown_criterion():
    with pytest.raises(ValueError, match="criterion"):
        compare(table(STEPS, 0.01), criterion="median")
