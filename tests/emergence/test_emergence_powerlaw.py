"""The power law against scipy's regression, by simulation, and where it refuses."""

import math

import numpy as np
import pytest
from scipy import stats

from spectral_lightning.emergence import fit_power_law


def _noisy(seed, count=25, alpha=0.7, noise=0.3):
    rng = np.random.default_rng(seed)
    variance = np.exp(rng.uniform(np.log(1e-3), np.log(10), count))
    return variance, 40 * variance**-alpha * np.exp(noise * rng.standard_normal(count))


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.48, 1.0, 2.5])
@pytest.mark.parametrize("prefactor", [1e-5, 3.0, 1e6])
def test_exact_law_is_recovered(alpha, prefactor):
    variance = np.geomspace(1e-4, 1e2, 12)
    law = fit_power_law(variance, prefactor * variance**-alpha)
    assert law.exponent == pytest.approx(alpha, abs=1e-12)
    assert law.prefactor == pytest.approx(prefactor, rel=1e-11)
    assert [one.exponent for one in law.local] == pytest.approx([alpha, alpha], abs=1e-9)
    assert law.decades == pytest.approx(6)
    assert (law.count, law.total, law.reason) == (12, 12, "")
    assert law.determinable
    if alpha:
        assert law.r2 == pytest.approx(1)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_linear_regression(seed):
    variance, time = _noisy(seed)
    law = fit_power_law(variance, time)
    line = stats.linregress(np.log(variance), np.log(time))
    expected = -line.slope, math.exp(line.intercept), line.rvalue**2
    assert (law.exponent, law.prefactor, law.r2) == pytest.approx(expected, rel=1e-10)


def test_local_exponents_are_the_slopes_of_a_curved_table():
    variance = np.geomspace(1e-3, 10, 41)
    law = fit_power_law(variance, np.exp(-0.1 * np.log(variance) ** 2))  # slope -0.2 log variance
    assert [one.exponent for one in law.local] == pytest.approx([0.2 * math.log(one.variance) for one in law.local])


def test_modes_that_cannot_be_used_are_left_out_and_counted():
    variance, time = _noisy(2)
    spoilt = [(1.0, np.nan), (0.0, 5.0), (np.nan, 5.0), (np.inf, 5.0), (-1.0, 5.0), (1.0, 0.0), (1.0, np.inf)]
    lam, tau = (np.append(good, bad) for good, bad in zip((variance, time), zip(*spoilt, strict=True), strict=True))
    law, clean = fit_power_law(lam, tau), fit_power_law(variance, time)
    assert (law.count, law.total) == (25, 32)
    assert (law.exponent, law.local, law.decades) == (clean.exponent, clean.local, clean.decades)


@pytest.mark.parametrize(
    ("variance", "time", "options", "reason"),
    [
        (np.geomspace(1, 1e3, 9), np.ones(9), {"min_modes": 10}, "fewer than 10 modes crossed"),
        (np.geomspace(1, 1e3, 30), np.where(np.arange(30) < 2, 1.0, np.nan), {}, "fewer than 3 modes crossed"),
        (np.geomspace(1, 1e3, 30), np.full(30, np.nan), {}, "fewer than 3 modes crossed"),
        (np.empty(0), np.empty(0), {}, "fewer than 3 modes crossed"),
        (np.geomspace(1, 1e3, 30), np.ones(30), {"min_modes": 31}, "fewer than 31 modes crossed"),
        (np.geomspace(1, 9, 30), np.ones(30), {"min_decades": 1}, "variances span 0.9542 decades, less than 1"),
        (np.geomspace(1, 99, 30), np.ones(30), {"min_decades": 2.0}, "variances span 1.996 decades, less than 2"),
        (np.ones(30), np.ones(30), {"min_decades": 0.0}, "variances span 0 decades"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_no_number_where_the_data_do_not_carry_one(variance, time, options, reason):
    law = fit_power_law(variance, time, **options)
    assert law.reason.startswith(reason)
    assert not law.determinable
    assert np.isnan([law.exponent, law.prefactor, law.r2]).all()
    assert law.local == ()
    crossed = int(np.isfinite(time).sum())
    assert (law.count, law.total) == (crossed, len(time))
    assert str(law) == f"not determinable ({law.reason}; {crossed} of {len(time)} crossed)"


@pytest.mark.filterwarnings("error")
def test_equal_times_give_a_flat_law():
    law = fit_power_law(np.geomspace(1, 1e3, 12), np.full(12, 7.0))
    assert (law.exponent, law.r2) == pytest.approx((0, 0), abs=1e-9)
    assert str(law).startswith("0.00 (0.00 at variance ")


def test_text_shows_the_local_exponents_and_the_count():
    variance = np.geomspace(1e-2, 1e2, 40)
    time = np.append(3 * variance[:30] ** -1.25, np.full(10, np.nan))
    assert str(fit_power_law(variance, time)) == "1.25 (1.25 at variance 0.02, 1.25 at variance 4.8), 30 of 40 crossed"


@pytest.mark.parametrize(
    ("arguments", "options", "argument"),
    [
        ((np.ones(3), np.ones(4)), {}, "time"),
        ((np.ones((2, 3)), np.ones((2, 3))), {}, "time"),
        ((1.0, 1.0), {}, "time"),
        *(((np.ones(3), np.ones(3)), {"min_modes": value}, "min_modes") for value in (1, 10.0)),
        *(((np.ones(3), np.ones(3)), {"min_decades": value}, "min_decades") for value in (-1.0, math.nan)),
    ],
)
def test_bad_arguments_are_refused(arguments, options, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        fit_power_law(*arguments, **options)
