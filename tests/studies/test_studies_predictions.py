"""The prediction tests: their statistics on known answers, and by another route on what is stored."""

import numpy as np
import pytest
from scipy import stats

from spectral_lightning.datamodules import GaussianDataModule, SwapVariances
from spectral_lightning.emergence import emergence
from spectral_lightning.spectra import SpectralHistory
from studies import predictions
from studies.page import macros
from studies.predictions import GAUSSIAN_PAIRS, PHOTOGRAPH_PAIRS, SEEDS, SHARES, exchanged
from studies.statistics import Estimate
from studies.store import STORE, load
from studies.trainings import STUDIES
from tests.support.stored_orders import arrays, passages


def test_verdicts_follow_the_intervals():
    low, middle, high = Estimate(0.5, 0.4, 0.6), Estimate(1.0, 0.9, 1.1), Estimate(3.0, 2.0, 4.0)
    verdicts = [macros().even_verdict(one).strip() for one in (low, middle, high, Estimate())]
    assert verdicts == ["confirmed", "not decided", "not confirmed: reversed", "not determinable"]
    cases = (high, middle, 1.0), (high, middle, 0.8), (high, high, 5.0), (high, Estimate(), 1.0)
    white = [{"measured": {"plain": plain, "white": flat}, "noise": noise} for plain, flat, noise in cases]
    verdicts = [macros().white_verdict(one).strip() for one in white]
    assert verdicts == ["confirmed", "confirmed in part", "not confirmed", "not determinable"]
    before, after = np.array([[10.0, 40.0], [10.0, 40.0]]), np.array([[40.0, 10.0], [10.0, 40.0]])
    pairs = [exchanged(before[:1], after[:1]), exchanged(before, after), exchanged(before[1:], after[1:])]
    verdicts = [macros().swap_verdict(one).strip().partition(":")[0] for one in pairs]
    assert verdicts == ["confirmed; the times are exchanged too", "partly", "not confirmed"]


def test_sampling_noise_is_the_error_over_the_slope():
    """Powers of the step have one slope everywhere; an error of 5 %."""
    steps, slopes = [0, 1, 4, 16, 64], np.array([0.5, 0.7, 0.8])
    made = SpectralHistory({"target": np.ones(3), "fixed_point": np.ones(3)})
    for step in steps:
        row = 0.05 * np.maximum(step, 0.1) ** slopes
        made.append(step=step, variance=row, standard_error=0.05 * row)
    found = emergence(made.steps, made.variance, np.array([0.4, 0.6, 0.9]))
    width = stats.norm.ppf(0.9) - stats.norm.ppf(0.1)
    assert predictions.noise_ratio(made, found) == pytest.approx(np.exp(width * 0.05 / 0.7), rel=1e-6)


def test_the_pairs_are_those_that_were_trained():
    pairs = {run.name: run.configuration()["data"]["init_args"].get("edit") for run in STUDIES["predictions"]}
    for name, expected in (("swapped_seed1", GAUSSIAN_PAIRS), ("photographs_swapped_seed0", PHOTOGRAPH_PAIRS)):
        assert pairs[name]["init_args"]["pairs"] == [list(pair) for pair in expected]


def test_a_direction_is_found_at_the_rank_of_the_other_after_the_exchange():
    """Which rank is which direction, from the datamodules themselves."""
    options = {"dim": 32, "spectrum": "power_law", "exponent": 0.75, "scale": 4.0}
    plain = GaussianDataModule(**options)
    swapped = GaussianDataModule(**options, edit=SwapVariances([list(pair) for pair in GAUSSIAN_PAIRS]))
    rank_after = (plain.population.modes.T @ swapped.population.modes).abs().argmax(1).tolist()
    expected = list(range(32))
    for i, j in GAUSSIAN_PAIRS:
        expected[i], expected[j] = j, i
    assert rank_after == expected


def test_an_exchange_is_measured_by_the_times_of_one_variance():
    perfect = exchanged(np.array([[10.0, 40.0]]), np.array([[40.0, 10.0]]))
    assert (perfect["reversed"].tolist(), perfect["ratio"].value, perfect["ratio"].high) == ([True], 1.0, 1.0)
    late = exchanged(np.array([[10.0, 40.0]]), np.array([[80.0, 30.0]]))
    assert late["ratio"].value == pytest.approx(np.sqrt(3 * 2))
    missing = exchanged(np.array([[10.0, np.nan]]), np.array([[80.0, 30.0]]))
    assert (missing["reversed"].tolist(), missing["ratio"].determinable) == ([False], False)


def test_spread_of_a_known_distribution():
    generator = np.random.default_rng(5)
    many = [np.exp(0.3 * generator.standard_normal(4000)) for _ in range(2)]
    found = predictions.decile_ratio(many, draws=200)
    assert found.value == pytest.approx(np.exp(0.3 * (stats.norm.ppf(0.9) - stats.norm.ppf(0.1))), rel=0.03)
    # Standard error of the distance of the deciles of n normal numbers, about 2.4 / sqrt(n), and two trainings.
    half = 1.96 * 0.3 * 2.4 / np.sqrt(8000)
    assert np.log(found.high / found.low) / 2 == pytest.approx(half, rel=0.3)
    assert not predictions.decile_ratio([np.array([1.0, np.nan])]).determinable


def test_reversal_of_a_power_law_is_where_it_is_one():
    odds = np.array([1.0, 4.0, 9.0, 99.0])
    power, scale = np.array([1.0, 0.5]), np.array([0.2, 0.7])
    table = np.log(scale)[:, None] + power[:, None] * np.log(odds)
    np.testing.assert_allclose(predictions.reversal(odds, table), scale ** (-1 / power), rtol=1e-12)
    np.testing.assert_allclose(predictions.response(odds, table), power, rtol=1e-12)
    table[:, 1:] = np.inf  # not yet, at every other share: between which shares, but not where
    assert np.isnan(predictions.reversal(odds, table)).all()


def test_ratio_of_classes_and_its_interval_by_a_plain_bootstrap():
    generator = np.random.default_rng(3)
    high, low = np.exp(generator.normal(0, 0.5, 16)), np.exp(generator.normal(0.7, 0.5, 16))
    found = Estimate.of(predictions.ratio_table([(high, low)], draws=4000)[:, 0])
    values = []
    for _ in range(4000):
        ranks = generator.choice(16, 16)
        values.append(np.log(np.median(high[ranks]) / np.median(low[ranks])))
    # Two bootstraps of 4,000 draws: their quantiles scatter by about 0.02.
    np.testing.assert_allclose([found.low, found.high], np.quantile(values, [0.025, 0.975]), atol=0.08)
    assert found.value == pytest.approx(np.log(np.median(high)) - np.log(np.median(low)))
    assert np.isposinf(predictions.ratio_table([(np.full(16, np.inf), np.ones(16))], draws=5)).all()


# On what is stored, by loops over the arrays alone.


@pytest.fixture(scope="module")
def stored():
    return predictions.predictions(load(STORE / "predictions", [run.name for run in STUDIES["predictions"]]))


def times(name):
    table = arrays("predictions", name)
    return passages(table["step"], table["variance"], table["fixed_point"])


@pytest.mark.parametrize(
    ("data", "prefix", "seeds", "pairs"),
    [("Gaussian", "", SEEDS, GAUSSIAN_PAIRS), ("photographs", "photographs_", (0,), PHOTOGRAPH_PAIRS)],
)
def test_stored_directions_exchange_as_reported(stored, data, prefix, seeds, pairs):
    count, logs = 0, []
    for seed in seeds:
        before, after = times(f"{prefix}plain_seed{seed}"), times(f"{prefix}swapped_seed{seed}")
        for i, j in pairs:
            count += (before[i] < before[j]) != (after[j] < after[i])
            logs += [np.log(after[i] / before[i]), np.log(after[j] / before[j])]
    found = stored["swaps"][data]["measured"]
    half = stats.t.ppf(0.975, len(logs) - 1) * np.std(logs, ddof=1) / np.sqrt(len(logs))
    assert found["reversed"].sum() == count
    expected = np.exp(np.mean(logs) + half * np.array([0, -1, 1]))
    assert [found["ratio"].value, found["ratio"].low, found["ratio"].high] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("edit", ["white", "plain"])
def test_stored_modes_spread_as_reported(stored, edit):
    logs = []
    for seed in SEEDS:
        table = arrays("predictions", f"{edit}_seed{seed}")
        assert (table["fixed_point"] > 2 * table["variance"][0]).all()  # outside the gray zone
        logs.append(np.diff(np.log(np.quantile(times(f"{edit}_seed{seed}"), [0.1, 0.9])))[0])
    assert stored["white"]["measured"][edit].value == pytest.approx(np.exp(np.mean(logs)), rel=1e-9)


@pytest.mark.parametrize("share", SHARES)
def test_stored_classes_emerge_as_reported(stored, share):
    table = arrays("predictions", f"share{round(100 * share):02d}_seed0")
    target, ends, tables = table["group_target"], table["group_fixed_point"], table["group_variance"]
    medians = []
    for g in range(2):
        own = [k for k in range(32) if target[g, k] > target[1 - g, k]]
        # The population's variances, by the samples: the modes are the directions of one class each.
        expected = sorted((4, 1)[g] * np.arange(1, 17) ** -0.5)
        np.testing.assert_allclose(sorted(target[g, own]), expected, rtol=1e-4)
        assert (ends[g, own] > 2 * tables[0, g, own]).all()
        own_times = passages(table["step"], tables[:, g, own], ends[g, own])
        medians.append(np.median(np.nan_to_num(own_times, nan=np.inf)))
    assert stored["classes"]["ratios"][share].value == pytest.approx(medians[0] / medians[1], rel=1e-9)
    assert (share in stored["classes"]["bounds"]) == np.isinf(medians[0])
    assert 0 < stored["classes"]["times"][share]["theory"] < 1  # the larger variances are learnt first


def test_the_stored_reversal_by_another_route(stored):
    """Straight in logarithms between the shares of which one ratio is below and one above 1."""
    classes = stored["classes"]
    shares = [share for share in SHARES if share not in classes["bounds"]]
    logs = np.log([classes["ratios"][share].value for share in shares])
    odds = np.exp(np.interp(0, logs, np.log(1 / np.array(shares) - 1)))
    assert (np.diff(logs) > 0).all()
    assert classes["reversal"].value == pytest.approx(1 / (1 + odds), rel=1e-9)
    assert classes["since"] == max(share for share in shares if classes["ratios"][share].low > 1)
