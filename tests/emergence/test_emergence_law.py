"""The law of emergence times: censoring, correlation, curvature, several runs, and reasons for no exponent."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from spectral_lightning.emergence import RULES, Rules, combine, fit_law, local_exponents, regress

K = 60
X = np.linspace(-2.3, 2.3, K)


def _times(seed: int, rho: float = 0.0, bend: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    e = rng.standard_normal(K)
    for k in range(1, K):
        e[k] = rho * e[k - 1] + (1 - rho**2) ** 0.5 * e[k]
    return np.exp(5 - 0.9 * X + bend * X**2 + 0.3 * e)


def test_without_censoring_and_correlation_it_is_least_squares() -> None:
    ratio = []
    for seed in range(6):
        time = _times(seed)
        law, fit = fit_law(np.exp(X), time, np.zeros(K)), stats.linregress(X, np.log(time))
        assert law.exponent == pytest.approx(-fit.slope, abs=0.02)
        assert law.prefactor == pytest.approx(np.exp(fit.intercept), rel=0.02)
        ratio.append((law.high - law.low) / (2 * fit.stderr * stats.t.ppf(0.975, K - 2)))
    assert np.mean(ratio) == pytest.approx(1, abs=0.15)  # the correlation is estimated too


def test_censored_modes_remove_the_bias_of_those_that_crossed() -> None:
    errors = []
    for seed in range(8):
        time = _times(seed)
        end = np.quantile(time, 0.6)
        law = fit_law(np.exp(X), np.minimum(time, end), time > end)
        plain = stats.linregress(X[time < end], np.log(time[time < end]))
        errors.append((law.exponent - 0.9, -plain.slope - 0.9))
        assert (law.crossed, law.pending) == ((time <= end).sum(), (time > end).sum())
    censored, plain = np.mean(errors, 0)
    assert abs(censored) < 0.03
    assert plain < -0.05


def test_correlated_neighbours_widen_the_interval() -> None:
    wide, narrow = (fit_law(np.exp(X), _times(3, rho), np.zeros(K)) for rho in (0.85, 0.0))
    assert wide.correlation > 0.5 > narrow.correlation
    assert wide.high - wide.low > 1.8 * (narrow.high - narrow.low)


def test_a_curved_law_has_two_local_exponents_and_no_single_one() -> None:
    law = fit_law(np.exp(X), _times(1, bend=0.12), np.zeros(K))
    assert abs(law.curvature) > RULES.max_curvature
    assert not law.determinable
    assert np.isnan(law.exponent)
    small, large = law.local
    for found in (small, large):
        truth = 0.9 - 0.24 * np.log(found.variance)
        assert found.low < truth < found.high
    assert str(law).startswith("no single power law")


def test_bounds_before_the_second_record_are_upper_ones() -> None:
    time = _times(2)
    first = np.quantile(time, 0.3)
    side = np.where(time < first, -1, 0)
    law = fit_law(np.exp(X), np.maximum(time, first), side)
    assert law.early == (side < 0).sum()
    assert law.low < 0.9 < law.high
    assert law.exponent > -stats.linregress(X, np.log(np.maximum(time, first))).slope + 0.02


def test_errors_of_the_times_weigh_the_modes() -> None:
    time, error = _times(4), np.where(np.arange(K) % 2, 3.0, 0.0)
    time[1::2] *= 20
    law = fit_law(np.exp(X), time, np.zeros(K), error)
    clean = fit_law(np.exp(X[::2]), time[::2], np.zeros(K // 2))
    assert law.prefactor == pytest.approx(clean.prefactor, rel=0.3)


@pytest.mark.parametrize(
    ("keep", "reason"),
    [(slice(0, 5), "fewer than 10 modes"), (slice(0, 12), "less than 1")],
    ids=["few modes", "short range"],
)
def test_too_little_gives_the_reason(keep: slice, reason: str) -> None:
    law = fit_law(np.exp(X[keep]), _times(0)[keep], np.zeros(K)[keep], never=3)
    assert reason in law.reason
    assert law.never == 3
    assert "3 never will" in str(law)


def test_everything_censored_and_nothing_at_all() -> None:
    assert fit_law(np.exp(X), np.full(K, 10.0), np.ones(K)).pending == K
    assert fit_law([], [], []).total == 0


@pytest.mark.parametrize("time", [[1.0], [0.0, 1.0], [np.nan, 1.0]], ids=["shape", "zero", "nan"])
def test_bad_times_are_refused(time: list[float]) -> None:
    with pytest.raises(ValueError, match="`time` must"):
        fit_law([1.0, 2.0], time, np.zeros(len(time)))


def test_random_effects_equal_a_t_interval_when_runs_scatter_beyond_their_errors() -> None:
    a = np.array([0.7, 0.9, 1.1, 1.3])
    found = combine(a, np.full(4, 1e-4))
    reach = stats.t.ppf(0.975, 3) * a.std(ddof=1) / 2
    assert (found.exponent, found.low, found.high) == pytest.approx((1.0, 1 - reach, 1 + reach), rel=1e-4)
    assert found.between == pytest.approx(a.std(ddof=1), rel=1e-4)
    assert "one run" in combine([1.0], [0.1]).reason
    with pytest.raises(ValueError, match="`errors` positive"):
        combine([1.0, 2.0], [0.1, 0.0])


def test_local_exponents_of_a_table_are_its_derivative() -> None:
    lam = np.geomspace(1e-3, 1, 200)
    found = local_exponents(lam, np.exp(-0.5 * np.log(lam) + 0.05 * np.log(lam) ** 2), at=[0.01, 0.1])
    assert [one.exponent for one in found] == pytest.approx([0.5 - 0.1 * np.log(v) for v in (0.01, 0.1)], rel=1e-6)
    assert local_exponents([1.0, 1.0, 1.0, 1.0], [1, 2, 3, 4]) == ()


def test_regressions_of_several_data_sets_at_once_equal_single_ones() -> None:
    y = np.log([_times(0), _times(1)])
    both, one = regress(X, y, 0), regress(X, y[1], 0)
    np.testing.assert_allclose(both.coefficients[1], one.coefficients, rtol=0.02, atol=0.01)
    with pytest.raises(ValueError, match="more than 3 values"):
        regress(X[:3], y[0, :3], 0)
    with pytest.raises(ValueError, match="must be finite"):
        regress(X, np.full(K, np.nan), 0)


@pytest.mark.parametrize(
    "wrong",
    [{"min_modes": 3}, {"max_curvature": 0}, {"begun": 2}, {"stall_share": 0}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_rules_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"):
        Rules(**wrong)  # type: ignore[arg-type]
