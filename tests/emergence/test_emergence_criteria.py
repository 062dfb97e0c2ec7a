"""Thresholds, directions and the gray zone against their formulas."""

import math

import numpy as np
import pytest

from spectral_lightning.emergence import CRITERIA, direction, gray_zone, threshold

PAIRS = [(0.01, 1.0), (1.0, 0.01), (3.0, 3.0), (0.0, 2.0), (2.0, 0.0), (0.0, 0.0), (1e-150, 1e150), (1e-12, 1e-9)]

FORMULAS = {
    "geometric": lambda a, b: math.exp((math.log(a) + math.log(b)) / 2) if a and b else 0.0,
    "harmonic": lambda a, b: 2 / (1 / a + 1 / b) if a and b else 0.0,
    "arithmetic": lambda a, b: (a + b) / 2,
    0.5: lambda a, b: b * 0.5 if b >= a else b / 0.5,
    0.9: lambda a, b: b * 0.9 if b >= a else b / 0.9,
}


@pytest.mark.parametrize("criterion", [*CRITERIA, 0.5, 0.9], ids=str)
@pytest.mark.parametrize(("initial", "target"), PAIRS)
def test_threshold_is_its_formula(criterion, initial, target):
    result = threshold(initial, target, criterion)
    # exp of a logarithm of 1e150 loses two digits in the twin.
    assert float(result) == pytest.approx(FORMULAS[criterion](initial, target), rel=1e-12, abs=0)
    assert result.dtype == np.float64


@pytest.mark.parametrize(
    "criterion", ["median", "", "Geometric", 0, 1, 0.0, 1.0, -0.5, 2.0, math.nan, None, True, (0.5,)]
)
def test_bad_criterion_is_refused(criterion):
    with pytest.raises(ValueError, match="`criterion`"):
        threshold(1.0, 2.0, criterion)


@pytest.mark.parametrize(("initial", "target"), [(-1.0, 1.0), (1.0, -1e-20), ([1.0, -1.0], [1.0, 1.0])])
@pytest.mark.parametrize("criterion", ["geometric", 0.5])
def test_negative_variance_is_refused(initial, target, criterion):
    with pytest.raises(ValueError, match="`initial` and `target`"):
        threshold(initial, target, criterion)


def test_direction_is_the_sign_of_the_way_to_go():
    initial = [1.0, 2.0, 1.0, 0.0, 0.0, math.nan, 1.0, math.inf]
    target = [2.0, 1.0, 1.0, 1.0, 0.0, 1.0, math.nan, math.inf]
    result = direction(initial, target)
    np.testing.assert_array_equal(result, [1, -1, 0, 1, 0, 0, 0, 0])
    assert result.dtype == np.int64


@pytest.mark.parametrize(
    ("initial", "target", "factor", "inside"),
    [
        (1.0, 1.0, 1.0, True),
        (1.0, 1.0000001, 1.0, False),
        (1.0, 2.0, 2.0, True),  # the boundary belongs to the zone, from both sides
        (2.0, 1.0, 2.0, True),
        (1.0, math.nextafter(2.0, 3.0), 2.0, False),
        (math.nextafter(2.0, 3.0), 1.0, 2.0, False),
        (1.0, 2.9, 3.0, True),
        (1.0, 3.1, 3.0, False),
        (0.0, 1.0, 2.0, False),
        (1.0, 0.0, 2.0, False),
        (0.0, 0.0, 2.0, True),
        (math.nan, 1.0, 2.0, False),
        (1.0, math.nan, 2.0, False),
        (1e-300, 1.5e-300, 2.0, True),
    ],
)
def test_gray_zone_with_its_boundaries(initial, target, factor, inside):
    assert bool(gray_zone(initial, target, factor)) is inside
    assert bool(gray_zone(target, initial, factor)) is inside


@pytest.mark.parametrize("factor", [0.99, 0.0, -2.0, math.nan])
def test_gray_factor_below_one_is_refused(factor):
    with pytest.raises(ValueError, match="`factor`"):
        gray_zone(1.0, 2.0, factor)
