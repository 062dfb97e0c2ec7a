"""The prediction tests: their statistics on tables with known answers, and by another route on what is stored."""

import numpy as np
import pytest
from scipy import stats

from spectral_lightning.datamodules import GaussianDataModule, SwapVariances
from spectral_lightning.emergence import emergence
from spectral_lightning.spectra import SpectralHistory
from studies import predictions
from studies.catalogue import STUDIES
from studies.page import macros
from studies.predictions import GAUSSIAN_PAIRS, PHOTOGRAPH_PAIRS, SAMPLER, SEEDS, SHARES, exchanged
from studies.statistics import Estimate
from studies.store import STORE, load
from tests.support.stored_orders import arrays, passages, store

STEPS = np.concatenate([[0], np.unique(np.geomspace(1, 800, 60).round())])
START = 0.05
RANKS = np.arange(1, 17) ** 0.3


def curves(target, time):
    """From START to the target as a power of the step, through the geometric mean at ``time``."""
    share = STEPS[:, None] / (STEPS[:, None] + np.asarray(time))
    return START * (np.asarray(target) / START) ** share


def history(target, time):
    made = SpectralHistory({"target": target, "fixed_point": target})
    for step, row in zip(STEPS, curves(target, time), strict=True):
        made.append(step=step, variance=row, standard_error=0.05 * row)
    return made


def class_history(share, high_time, low_time):
    """Two classes of 16 modes each; along the other's modes a class stays where it starts. Modes in mixed order."""
    law, start = np.arange(1, 17) ** -0.5, np.full(16, START)
    order, never = np.random.default_rng(0).permutation(32), np.full(16, 1e9)
    target = np.array([np.concatenate([4 * law, start])[order], np.concatenate([start, law])[order]])
    time = [np.concatenate([high_time, never])[order], np.concatenate([never, low_time])[order]]
    tables = [curves(target[g], time[g]) for g in range(2)]
    weights, levels = np.array([share, 1 - share]), np.array(SAMPLER.levels)
    static = {"target": weights @ target, "fixed_point": weights @ target, "levels": levels, "group_share": weights}
    static |= {"group_target": target, "group_fixed_point": target}
    static["initial_gain"] = np.repeat(0.04 / (0.04 + levels[:, None] ** 2), 32, axis=1)
    made = SpectralHistory(static, {"groups": ["0", "1"]})
    for i, step in enumerate(STEPS):
        rows = np.array([table[i] for table in tables])
        about = {"group_standard_error": 0.05 * rows, "group_mean_deviation": 0 * rows, "group_count": [64, 64]}
        made.append(step=step, variance=weights @ rows, group_variance=rows, **about)
    return made


def synthetic(directory, exchange=True, white_scatter=0.0, rare=1.0):
    """A store in which the predictions come true to the letter, or not.

    A direction keeps its time where ``exchange`` is False; ``rare`` is the power of the odds in the ratio of the classes.
    """
    generator, results = np.random.default_rng(1), {}

    def add(name, measured, predicted=None):
        results.update(store(directory / name, {"spectral": measured}, predicted and {"spectral": predicted}))

    power, photographs = 4 * np.arange(1, 33) ** -0.75, 2 * START * np.arange(2, 66) ** -1.2
    for prefix, pairs, seeds, target, times in (
        ("", GAUSSIAN_PAIRS, SEEDS, power, 40 * power**-0.7),
        ("photographs_", PHOTOGRAPH_PAIRS, (0,), photographs, 30 * photographs**-0.3),
    ):
        edited = times.copy()
        for i, j in () if exchange else pairs:  # the direction of rank i is at rank j, with the time it had
            edited[i], edited[j] = times[j], times[i]
        for seed in seeds:
            add(f"{prefix}plain_seed{seed}", history(target, times), history(target, times))
            add(f"{prefix}swapped_seed{seed}", history(target, edited), history(target, times))
    for seed in SEEDS:
        scattered = 60 * np.exp(white_scatter * generator.standard_normal(32))
        add(f"white_seed{seed}", history(np.ones(32), scattered), history(np.ones(32), np.full(32, 60.0)))
    for share in SHARES:
        high = 10 * RANKS * ((1 - share) / share) ** rare
        add(f"share{round(100 * share):02d}_seed0", class_history(share, high, 25 * RANKS))
    return results


@pytest.fixture(scope="module")
def true_to_the_letter(tmp_path_factory):
    results = synthetic(tmp_path_factory.mktemp("true"))
    return results, predictions.predictions(results)


def verdicts(found):
    """Of the page."""
    return [
        *(macros().swap_verdict(swap["measured"]).strip().partition(";")[0] for swap in found["swaps"].values()),
        macros().white_verdict(found["white"]).strip(),
        macros().even_verdict(found["classes"]["even"]).strip(),
    ]


def test_predictions_that_come_true_are_confirmed(true_to_the_letter):
    _, found = true_to_the_letter
    assert verdicts(found) == ["confirmed"] * 4
    for swap in found["swaps"].values():
        assert [swap["measured"]["ratio"].value, swap["measured"]["ratio"].high] == pytest.approx([1, 1], abs=1e-6)
    assert found["classes"]["since"] == 0.2
    # Median times of 10 (1-s)/s against 25: equal at odds of 2.5.
    assert found["classes"]["reversal"].value == pytest.approx(1 / 3.5, abs=0.005)
    assert found["classes"]["response"].value == pytest.approx(1, abs=0.01)
    # Curves cross their threshold at the time they were made with; records are 11 % apart.
    times = found["classes"]["times"][0.1]
    np.testing.assert_allclose([times["high"], times["low"]], [90 * RANKS, 25 * RANKS], rtol=0.01)
    assert 0 < times["theory"] < 1  # the larger variances are learnt first


def test_sampling_noise_is_the_error_over_the_slope(true_to_the_letter):
    """By hand: an error of 5 % over the slope of the curve between the records about the passage."""
    results, found = true_to_the_letter
    table = results["white_seed0"].history
    steps, variance = table["step"].astype(float), table["variance"]
    after = np.argmax(variance >= np.sqrt(START), axis=0)
    pairs = [(i, k) for k, i in enumerate(after)]
    slopes = [np.log(variance[i, k] / variance[i - 1, k]) / np.log(steps[i] / steps[i - 1]) for i, k in pairs]
    width = stats.norm.ppf(0.9) - stats.norm.ppf(0.1)
    assert found["white"]["noise"] == pytest.approx(np.exp(width * np.median(0.05 / np.array(slopes))), rel=1e-6)


def test_predictions_that_fail_are_not_confirmed(tmp_path):
    found = predictions.predictions(synthetic(tmp_path, exchange=False, white_scatter=0.8, rare=0.0))
    assert verdicts(found) == [*["not confirmed"] * 3, "confirmed"]
    assert found["classes"]["since"] is None


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
    # A time that tells the direction: its rank before, plus one.
    variance = plain.population.variance.numpy()
    before, after = (
        emergence(STEPS, curves(variance, rank + 1), variance).time for rank in (np.arange(32), np.array(expected))
    )
    ranks = np.array(GAUSSIAN_PAIRS)
    assert after[ranks[:, ::-1]] == pytest.approx(before[ranks])


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
