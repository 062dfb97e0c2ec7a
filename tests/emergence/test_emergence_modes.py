"""From a table to a status per mode and a law per direction."""

import math

import numpy as np
import pytest

from spectral_lightning.emergence import STATUS, emergence

NAN = math.nan


def _one(start, end, lam=1.0, target=1.0, **options):
    """Status word, time and direction of one mode recorded at steps 1/2, 1 and 16."""
    found = emergence([0.5, 1, 16], [[start], [start], [end]], [lam], [target], **options)
    return STATUS[found.status[0]], float(found.time[0]), int(found.direction[0])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        # geometric threshold 0.1, met half way from 0.01 to 1 in log step: step 4
        ((0.01, 1.0), {}, ("crossed", 4.0, 1)),
        ((100.0, 1.0), {}, ("crossed", 4.0, -1)),
        ((0.01, 0.09), {}, ("not yet", NAN, 1)),
        ((100.0, 11.0), {}, ("not yet", NAN, -1)),
        ((0.5, 1.0), {}, ("gray zone", NAN, 1)),
        ((2.0, 1.0), {}, ("gray zone", NAN, -1)),
        ((1.0, 1.0), {}, ("gray zone", NAN, 0)),
        ((0.25, 1.0), {"gray_factor": 4.0}, ("gray zone", NAN, 1)),
        ((0.25, 1.0), {}, ("crossed", 4.0, 1)),
        ((0.01, 1.0), {"lam": 0.0}, ("null mode", NAN, 1)),
        ((0.01, 1.0), {"lam": 1e-9, "null_variance": 1e-8}, ("null mode", NAN, 1)),
        ((0.01, 1.0), {"lam": 1e-8, "null_variance": 1e-8}, ("null mode", NAN, 1)),
        ((0.01, 0.0), {"lam": 0.0, "target": 0.0}, ("null mode", NAN, -1)),
        ((NAN, 1.0), {"lam": 0.0}, ("null mode", NAN, 0)),
        ((0.0, 1.0), {}, ("undefined", NAN, 1)),  # no geometric mean with 0
        ((0.0, 1.0), {"criterion": "harmonic"}, ("undefined", NAN, 1)),
        ((0.0, 1.0), {"criterion": "arithmetic"}, ("crossed", 4.0, 1)),
        ((0.0, 1.0), {"criterion": 0.5}, ("crossed", 4.0, 1)),
        ((0.01, 0.0), {"target": 0.0}, ("undefined", NAN, -1)),
        ((NAN, 1.0), {}, ("undefined", NAN, 0)),
        ((math.inf, 1.0), {}, ("undefined", NAN, 0)),
        ((NAN, 0.0), {"target": 0.0}, ("undefined", NAN, 0)),
        ((0.01, 1.0), {"target": NAN}, ("undefined", NAN, 0)),
        ((0.01, 1.0), {"initial": [NAN]}, ("undefined", NAN, 0)),
        ((NAN, 1.0), {"initial": [1.0]}, ("undefined", NAN, 0)),
        ((0.01, 1.0), {"target": math.inf}, ("undefined", NAN, 0)),
        ((0.01, 1.0), {"initial": [50.0]}, ("early", 0.5, -1)),  # told to fall, and already below
        ((0.01, NAN), {}, ("not yet", NAN, 1)),
    ],
)
def test_status_time_and_direction(arguments, options, expected):
    status, time, way = _one(*arguments, **options)
    assert (status, way) == (expected[0], expected[2])
    np.testing.assert_allclose(time, expected[1], rtol=1e-12)


def test_target_defaults_to_the_data_and_may_differ():
    given = emergence([1, 16], [[0.01], [1.0]], [4.0])
    np.testing.assert_allclose(given.threshold, [0.2])
    np.testing.assert_array_equal(given.target, [4.0])
    biased = emergence([1, 16], [[0.01], [1.0]], [4.0], [1.0])
    np.testing.assert_allclose(biased.threshold, [0.1])
    np.testing.assert_array_equal(biased.variance, [4.0])


def test_initial_of_the_measurement_decides_on_zone_and_direction():
    """A prediction starts elsewhere, keeps its own threshold, and leaves out the modes the measurement leaves out."""
    table, lam = np.array([[0.01, 0.6, 100.0], [1.0, 1.0, 1.0]]), np.ones(3)
    table = table[[0, 0, 1]]
    alone = emergence([0.5, 1, 16], table, lam)
    assert [STATUS[i] for i in alone.status] == ["crossed", "gray zone", "crossed"]
    told = emergence([0.5, 1, 16], table, lam, initial=[0.7, 0.01, 50.0])
    assert [STATUS[i] for i in told.status] == ["gray zone", "crossed", "crossed"]
    np.testing.assert_array_equal(told.direction, [1, 1, -1])
    np.testing.assert_array_equal(told.eligible("rising"), [False, True, False])
    np.testing.assert_array_equal(told.threshold, alone.threshold)
    np.testing.assert_array_equal(told.initial, [0.7, 0.01, 50.0])
    np.testing.assert_allclose(told.time[2], alone.time[2], rtol=1e-15)


def _family(count=24):
    """Rising and falling modes that follow (t / tau)^(+-1.5) and cross at tau = 6 lambda^-0.8 and 9 lambda^-0.3."""
    lam = np.geomspace(1e-3, 0.5, count)
    tau = np.concatenate([6 * lam**-0.8, 9 * lam**-0.3])
    power = np.repeat([1.5, -1.5], count)
    both = np.tile(lam, 2)
    steps = np.array([1.0, 5.0, 30.0, 700.0, 1e4])
    table = both * (steps[:, None] / tau) ** power
    target = both**2 / table[0]  # so that the geometric mean of start and target is lambda itself
    return steps, table, both, target, tau, power


def test_law_per_direction_is_recovered():
    steps, table, lam, target, tau, power = _family()
    found = emergence(steps, table, lam, target)
    np.testing.assert_allclose(found.time, tau, rtol=1e-10)
    np.testing.assert_array_equal(found.direction, np.sign(power))
    rising, falling = found.law("rising"), found.law("falling")
    assert (rising.exponent, rising.prefactor) == pytest.approx((0.8, 6.0), rel=1e-9)
    assert (falling.exponent, falling.prefactor) == pytest.approx((0.3, 9.0), rel=1e-9)
    assert (rising.count, rising.total, falling.count, falling.total) == (24, 24, 24, 24)
    np.testing.assert_array_equal(found.eligible("rising"), power > 0)


def test_mask_restricts_the_law():
    steps, table, lam, target, *_ = _family()
    found = emergence(steps, table, lam, target)
    law = found.law("rising", np.arange(48) < 14)
    assert (law.count, law.total) == (14, 14)
    assert law.decades == pytest.approx(13 / 23 * math.log10(500))
    assert found.law("rising", np.arange(48) >= 24).total == 0


def test_modes_that_did_not_cross_are_counted():
    steps, table, lam, target, tau, power = _family()
    found = emergence(steps[:3], table[:3], lam, target)
    law = found.law("rising")
    assert law.total == 24
    assert law.count == np.sum((tau <= 30) & (power > 0)) == np.sum(found.crossed("rising"))
    assert 0 < law.count < 24


def test_no_records_leave_everything_undefined():
    found = emergence([], np.empty((0, 3)), np.ones(3))
    assert [STATUS[i] for i in found.status] == ["undefined"] * 3
    assert found.law("rising").reason == "fewer than 10 modes crossed at a known time"


def test_unknown_direction_is_refused():
    found = emergence([1, 16], [[0.01], [1.0]], [1.0])
    for way in ("up", "", None, 1):
        with pytest.raises(ValueError, match="`way`"):
            found.law(way)


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"mode_variance": np.ones(4)}, "variance"),
        ({"variance": np.ones(2), "mode_variance": np.ones(1)}, "variance"),
        ({"target": np.ones(2)}, "variance"),
        ({"steps": [1, 2, 3]}, "variance"),
        ({"steps": [2, 1]}, "steps"),
        ({"variance": -np.ones((2, 3))}, "initial"),
        ({"mode_variance": -np.ones(3)}, "target"),
        ({"criterion": "median"}, "criterion"),
        ({"criterion": 1.5}, "criterion"),
        ({"gray_factor": 0.5}, "factor"),
    ],
)
def test_bad_arguments_are_refused(change, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        emergence(**{"steps": [1, 2], "variance": np.ones((2, 3)), "mode_variance": np.ones(3), **change})
