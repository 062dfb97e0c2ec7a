"""Intervals and the rule of order, by routes that share nothing with them."""

import numpy as np
import pytest
from scipy import stats

from studies.orders import orders
from studies.statistics import Estimate, judged, mean_ratio, rank_correlation, resampled
from tests.support.stored_orders import emergence_by_law, history, store


def falling(directory, time, variance):
    return orders(store(directory, {"spectral": history(variance, time)})[directory.name])[1]


def lawful(directory, count, exponent, prefactor=40.0, scatter=0.05):
    variance = np.geomspace(0.4, 0.004, count)
    return falling(directory, emergence_by_law(variance, exponent, prefactor, scatter), variance)


@pytest.mark.parametrize(
    ("exponent", "scatter", "verdict"),
    [
        (0.45, 0.05, "by variance"),
        (-0.45, 0.05, "against variance"),
        (0.01, 0.1, "together"),
        (0.0, 0.5, "between"),  # 20 modes leave the exponent open
        (0.2, 0.1, "between"),
    ],
)
def test_an_order_is_judged_by_the_intervals(tmp_path, exponent, scatter, verdict):
    assert lawful(tmp_path / "a", 20, exponent, 100 if exponent < 0 else 40, scatter).verdict == verdict


def test_modes_of_exponent_zero_that_are_apart_are_not_together(tmp_path):
    time = np.tile([20.0, 40.0, 80.0, 160.0], 60)
    assert falling(tmp_path / "a", time, np.geomspace(0.4, 0.004, 240)).verdict == "flat, yet spread"


def test_modes_that_wait_keep_an_order_from_being_called_together(tmp_path):
    """The quick half alone would lie together."""
    found = falling(tmp_path / "a", np.where(np.arange(40) < 20, 40.0, 1e9), np.geomspace(0.4, 0.004, 40))
    assert (found.law.count, found.law.total) == (20, 40)
    assert found.spread.bound
    assert found.verdict != "together"
    assert found.rank.value < -0.8


def test_a_claim_is_judged_by_every_direction_that_has_an_exponent(tmp_path):
    ordered, level, few = (
        lawful(tmp_path / "a", 20, 0.45),
        lawful(tmp_path / "b", 20, 0.0),
        lawful(tmp_path / "c", 9, 0.5),
    )
    assert judged("by variance", [ordered]) == judged("by variance", [ordered, few]) == "confirmed"
    assert judged("together", [ordered, level]) == judged("by variance", [ordered, level]) == "partly"
    assert judged("together", [ordered]) == "not confirmed"
    assert judged("together", [few]) == few.verdict == "not determinable"


def test_rank_correlation_is_spearmans_with_ties():
    rng = np.random.default_rng(1)
    variance = rng.lognormal(size=30)
    time = np.where(variance < 0.5, np.inf, np.exp(rng.normal(size=30)) / variance)
    found = rank_correlation(time, variance)
    r = np.corrcoef(stats.rankdata(time), stats.rankdata(variance))[0, 1]
    assert found.value == pytest.approx(r, abs=1e-12)
    half = 1.96 * np.sqrt((1 + r**2 / 2) / 27)
    assert np.arctanh([found.low, found.high]) == pytest.approx([np.arctanh(r) - half, np.arctanh(r) + half], rel=1e-3)
    assert not rank_correlation(np.full(9, np.inf), np.arange(9.0)).determinable


def test_the_interval_of_the_rank_correlation_covers_it():
    """Of 400 samples of a bivariate Gaussian of known Spearman correlation, 95 % within the error of counting."""
    rng, pearson = np.random.default_rng(2), -0.6
    truth = 6 / np.pi * np.arcsin(pearson / 2)
    hits = 0
    for _ in range(400):
        x, z = rng.normal(size=(2, 40))
        found = rank_correlation(np.exp(pearson * x + np.sqrt(1 - pearson**2) * z), np.exp(x))
        hits += found.low <= truth <= found.high
    assert hits / 400 == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize("count", [5, 8, 30])
def test_a_perfect_order_of_few_modes_has_an_interval(count):
    """As wide as that of an order in which one pair of neighbours is exchanged."""
    variance = np.arange(1.0, count + 1)
    exchanged = 1 / np.concatenate([variance[1::-1], variance[2:]])
    perfect, nearly = rank_correlation(1 / variance, variance), rank_correlation(exchanged, variance)
    assert [perfect.value, perfect.low] == pytest.approx([-1, -1], abs=1e-12)
    assert perfect.high == pytest.approx(nearly.high, abs=1e-9)


def test_spread_is_the_ratio_of_percentiles(tmp_path):
    time = 40 * np.exp(0.5 * np.random.default_rng(3).normal(size=200))
    low, high = np.exp(np.percentile(np.log(time), [10, 90]))
    found = falling(tmp_path / "a", time, np.geomspace(0.4, 0.004, 200)).spread
    assert found.value == pytest.approx(high / low, rel=1e-5)
    assert found.low == pytest.approx(found.value * np.exp(-1.96 * 0.121), rel=0.15)  # its error for a Gaussian
    assert not found.bound


def test_mean_ratio_has_the_interval_of_a_t_distribution():
    logs = np.log([0.8, 1.1, 1.3, 0.9])
    half = stats.t.ppf(0.975, 3) * logs.std(ddof=1) / 2
    found = mean_ratio(np.exp(logs))
    assert [found.value, found.low, found.high] == pytest.approx(np.exp(logs.mean() + half * np.array([0, -1, 1])))
    assert not mean_ratio([1.0, np.nan]).determinable


def test_the_interval_of_a_resampled_mean_is_that_of_its_standard_error():
    values = np.random.default_rng(4).normal(size=400)
    found = Estimate.of(resampled(lambda drawn: drawn.mean(axis=-1), values))
    assert found.value == values.mean()
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.05)  # 2,000 draws
