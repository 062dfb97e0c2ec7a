"""The prediction tests: their statistics on tables with known answers, and by another route on what is stored."""

import json

import numpy as np
import pytest
from scipy import stats

from spectral_lightning.datamodules import GaussianDataModule, SwapVariances
from spectral_lightning.emergence import emergence
from spectral_lightning.spectra import SpectralHistory
from studies import predictions, predictions_classes, predictions_statistics
from studies.predictions_runs import (
    CLASS_SEEDS,
    GAUSSIAN_PAIRS,
    PHOTOGRAPH_PAIRS,
    PHOTOGRAPH_SEEDS,
    SAMPLER,
    SEEDS,
    SHARES,
)
from studies.results import Stored
from studies.running import STORE

STEPS = np.concatenate([[0], np.unique(np.geomspace(1, 800, 60).round())])
START = 0.05


def curves(target, time):
    """From START to the target as a power of the step, through the geometric mean at ``time``."""
    share = STEPS[:, None] / (STEPS[:, None] + np.asarray(time))
    return START * (np.asarray(target) / START) ** share


def history(target, time, **static):
    made = SpectralHistory({"target": target, "fixed_point": target, **static})
    for step, row in zip(STEPS, curves(target, time), strict=True):
        made.append(step=step, variance=row, standard_error=0.05 * row)
    return made


def class_history(share, high_time, low_time, seed=0):
    """Two classes of 16 modes each; along the other's modes a class stays where it starts. Modes in mixed order."""
    law = np.arange(1, 17) ** -0.5
    start, order = np.full(16, START), np.random.default_rng(seed).permutation(32)
    target = np.array([np.concatenate([4 * law, start])[order], np.concatenate([start, law])[order]])
    time = np.array([np.concatenate([high_time, np.full(16, 1e9)]), np.concatenate([np.full(16, 1e9), low_time])])
    tables = [curves(target[g], time[g][order]) for g in range(2)]
    weights = np.array([share, 1 - share])
    levels = np.array(SAMPLER.levels)
    static = {
        "target": weights @ target,
        "fixed_point": weights @ target,
        "levels": levels,
        "initial_gain": np.repeat(0.04 / (0.04 + levels[:, None] ** 2), 32, axis=1),
        "group_target": target,
        "group_fixed_point": target,
        "group_share": weights,
    }
    made = SpectralHistory(static, {"groups": ["0", "1"]})
    for i, step in enumerate(STEPS):
        rows = np.array([table[i] for table in tables])
        made.append(
            step=step,
            variance=weights @ rows,
            group_variance=rows,
            group_standard_error=0.05 * rows,
            group_mean_deviation=np.zeros_like(rows),
            group_count=np.array([64, 64]),
        )
    return made


def law(target, rising=True):
    return 40 * np.asarray(target) ** -0.7 if rising else 30 * np.asarray(target) ** -0.3


def synthetic(directory, exchange=True, white_scatter=0.0, rare=1.0):
    """A store in which the predictions come true to the letter, or not.

    A direction keeps its time where ``exchange`` is False; ``rare`` is the power of the odds in the ratio of the classes.
    """
    generator = np.random.default_rng(1)
    for name, pairs, seeds, target in (
        ("", GAUSSIAN_PAIRS, SEEDS, 4 * np.arange(1, 33) ** -0.75),
        ("photographs_", PHOTOGRAPH_PAIRS, PHOTOGRAPH_SEEDS, 2 * START * np.arange(2, 66) ** -1.2),
    ):
        times = law(target, rising=name == "")
        edited = times.copy()
        if not exchange:  # the direction of rank i is at rank j, with the time it had
            for i, j in pairs:
                edited[i], edited[j] = times[j], times[i]
        for seed in seeds:
            store(directory, f"{name}plain_seed{seed}", history(target, times), history(target, times))
            store(directory, f"{name}swapped_seed{seed}", history(target, edited), history(target, times))
    for seed in SEEDS:
        scattered = 60 * np.exp(white_scatter * generator.standard_normal(32))
        store(directory, f"white_seed{seed}", history(np.ones(32), scattered), history(np.ones(32), np.full(32, 60.0)))
    ranks = np.arange(1, 17) ** 0.3
    for share in SHARES:
        for seed in CLASS_SEEDS:
            high = 10 * ranks * ((1 - share) / share) ** rare
            store(directory, f"share{round(100 * share):02d}_seed{seed}", class_history(share, high, 25 * ranks, seed))
    return {one.name: Stored(one) for one in directory.iterdir()}


def store(directory, name, measured, predicted=None):
    (directory / name).mkdir()
    measured.save(directory / name / "spectral.npz")
    if predicted is not None:
        predicted.save(directory / name / "spectral_theory.npz")
    (directory / name / "run.json").write_text(json.dumps({"seconds": 1.0, "tracking_seconds": 0.5, "overlay": {}}))


@pytest.fixture(scope="module")
def true_to_the_letter(tmp_path_factory):
    return synthetic(tmp_path_factory.mktemp("true"))


def test_predictions_that_come_true_are_confirmed(true_to_the_letter):
    report = predictions.report(true_to_the_letter)
    assert [row.verdict for row in report.rows] == [
        "confirmed; the times too are exchanged",
        "confirmed; the times too are exchanged",
        "confirmed: no wider than sampling noise (" + noise_of(true_to_the_letter) + ")",
        "confirmed",
        "confirmed from a share of 0.2 on",
    ]
    # Median times of 10 (1-s)/s against 25: equal at odds of 2.5.
    assert f"{1 / 3.5:.2f}" in report.rows[-1].measured


def noise_of(results):
    """By hand: an error of 5 % over the slope of the curve between the records about the passage."""
    found = []
    for seed in SEEDS:
        table = results[f"white_seed{seed}"].history()
        steps, variance = table["step"].astype(float), table["variance"]
        after = np.argmax(variance >= np.sqrt(START), axis=0)
        slopes = []
        for k, i in enumerate(after):
            slopes.append(np.log(variance[i, k] / variance[i - 1, k]) / np.log(steps[i] / steps[i - 1]))
        found.append(np.exp((stats.norm.ppf(0.9) - stats.norm.ppf(0.1)) * np.median(0.05 / np.array(slopes))))
    return f"{np.mean(found):.2f}"


def test_predictions_that_fail_are_not_confirmed(tmp_path):
    report = predictions.report(synthetic(tmp_path, exchange=False, white_scatter=0.8, rare=0.0))
    swapped, photographs, white, balanced, imbalance = (row.verdict for row in report.rows)
    assert swapped == photographs == "not confirmed"
    assert white == "not confirmed"
    assert balanced == "confirmed"
    assert imbalance == "not confirmed down to the smallest share"


def test_direction_is_found_at_the_rank_of_the_other_after_the_exchange():
    """Which rank is which direction, from the datamodules themselves."""
    options = {"dim": 32, "spectrum": "power_law", "exponent": 0.75, "scale": 4.0}
    plain = GaussianDataModule(**options)
    swapped = GaussianDataModule(**options, edit=SwapVariances([list(pair) for pair in GAUSSIAN_PAIRS]))
    rank_after = (plain.modes.T @ swapped.modes).abs().argmax(1).tolist()
    expected = list(range(32))
    for i, j in GAUSSIAN_PAIRS:
        expected[i], expected[j] = j, i
    assert rank_after == expected
    # A time that tells the direction: its rank before, plus one.
    before = emergence(STEPS, curves(plain.variance.numpy(), np.arange(1, 33)), plain.variance.numpy())
    after = emergence(STEPS, curves(plain.variance.numpy(), np.array(expected) + 1), plain.variance.numpy())
    for one in predictions_statistics.exchanges(before, after, GAUSSIAN_PAIRS):
        assert one.after == pytest.approx(one.before)
        assert not one.reversed


def test_exchange_that_is_perfect_has_ratios_of_one():
    one = predictions_statistics.Exchange((0, 7), before=(10.0, 40.0), after=(40.0, 10.0))
    assert one.reversed
    assert one.ratios == (1.0, 1.0)
    late = predictions_statistics.Exchange((0, 7), before=(10.0, 40.0), after=(80.0, 30.0))
    assert late.ratios == (3.0, 2.0)


def test_mean_ratio_is_the_interval_of_a_t_test():
    ratios = np.array([0.8, 1.1, 1.3, 0.9])
    expected = stats.ttest_1samp(np.log(ratios), 0).confidence_interval(0.95)
    found = predictions_statistics.mean_ratio(ratios)
    np.testing.assert_allclose([found.low, found.high], np.exp([expected.low, expected.high]), rtol=1e-9)
    assert found.value == pytest.approx(stats.gmean(ratios))
    assert not predictions_statistics.mean_ratio([1.0, np.nan]).determinable


def test_spread_of_a_known_distribution():
    generator = np.random.default_rng(5)
    many = [np.exp(0.3 * generator.standard_normal(4000)) for _ in range(2)]
    found = predictions_statistics.spread(many, draws=200)
    assert found.value == pytest.approx(np.exp(0.3 * (stats.norm.ppf(0.9) - stats.norm.ppf(0.1))), rel=0.03)
    # Standard error of the distance of the deciles of n normal numbers, about 2.4 / sqrt(n), and two trainings.
    half = 1.96 * 0.3 * 2.4 / np.sqrt(8000)
    assert np.log(found.high / found.low) / 2 == pytest.approx(half, rel=0.3)
    assert not predictions_statistics.spread([np.array([1.0, np.nan])]).determinable


def test_reversal_of_a_power_law_is_where_it_is_one():
    odds = np.array([1.0, 4.0, 9.0, 99.0])
    power, scale = np.array([1.0, 0.5]), np.array([0.2, 0.7])
    table = np.log(scale)[:, None] + power[:, None] * np.log(odds)
    np.testing.assert_allclose(predictions_statistics.reversal(odds, table), scale ** (-1 / power), rtol=1e-12)
    np.testing.assert_allclose(predictions_statistics.response(odds, table), power, rtol=1e-12)
    table[:, 1:] = np.inf  # not yet, at every other share: between which shares, but not where
    assert np.isnan(predictions_statistics.reversal(odds, table)).all()


def test_ratio_of_classes_and_its_interval_by_a_plain_bootstrap():
    generator = np.random.default_rng(3)
    trainings = []
    for _ in range(2):
        high, low = np.exp(generator.normal(0, 0.5, 16)), np.exp(generator.normal(0.7, 0.5, 16))
        trainings.append(predictions_statistics.ClassTimes(high, low, high, low, 1))
    found = predictions_statistics.drawn(predictions_statistics.ratio_table([trainings], draws=4000)[:, 0])
    values = []
    for _ in range(4000):
        logs = []
        for one in trainings:
            ranks = generator.choice(16, 16)
            logs.append(np.log(np.median(one.high[ranks]) / np.median(one.low[ranks])))
        values.append(np.mean(logs))
    # Two bootstraps of 4,000 draws: their quantiles scatter by about 0.02.
    np.testing.assert_allclose([found.low, found.high], np.quantile(values, [0.025, 0.975]), atol=0.08)
    assert found.value == pytest.approx(
        np.mean([np.log(np.median(one.high)) - np.log(np.median(one.low)) for one in trainings])
    )


def test_modes_that_have_not_emerged_make_the_ratio_infinite():
    one = predictions_statistics.ClassTimes(np.full(16, np.inf), np.ones(16), np.ones(16), np.ones(16), 100)
    assert np.isposinf(predictions_statistics.ratio_table([[one]], draws=5)).all()
    assert one.at_least == 100


def test_times_of_a_class_are_those_of_its_own_modes(true_to_the_letter):
    found = predictions_classes.Balance.of(true_to_the_letter).trainings[SHARES.index(0.1)][0]
    ranks = np.arange(1, 17) ** 0.3
    # Curves cross their threshold at the time they were made with; records are 11 % apart.
    np.testing.assert_allclose(found.high, 90 * ranks, rtol=0.01)
    np.testing.assert_allclose(found.low, 25 * ranks, rtol=0.01)
    assert (np.diff(found.high_theory) > 0).all()
    assert found.high_theory[0] < found.low_theory[0]


# On what is stored, by loops over the arrays alone.

DIRECTORY = STORE / "predictions"
NAMES = [run.name for run in predictions.EXPERIMENT.runs]
needs_results = pytest.mark.skipif(
    not all((DIRECTORY / name / "run.json").is_file() for name in NAMES), reason="the trainings are not stored"
)


def arrays(name):
    with np.load(DIRECTORY / name / "spectral.npz") as file:
        return {key: file[key] for key in file.files}


def passage(steps, curve, start, end):
    """First crossing of the geometric mean, in straight lines of the logarithms; infinite where there is none."""
    level, sign = np.sqrt(start * end), np.sign(end - start)
    for i in range(1, len(steps)):
        if sign * (curve[i] - level) >= 0:
            part = np.log(level / curve[i - 1]) / np.log(curve[i] / curve[i - 1])
            return steps[i - 1] * (steps[i] / steps[i - 1]) ** part if steps[i - 1] else steps[i] * part
    return np.inf


def times(name):
    table = arrays(name)
    curves, ends = table["variance"], table["fixed_point"]
    return np.array([passage(table["step"], curves[:, k], curves[0, k], ends[k]) for k in range(len(ends))])


@pytest.fixture(scope="module")
def stored_report():
    return predictions.report({name: Stored(DIRECTORY / name) for name in NAMES})


@needs_results
@pytest.mark.parametrize(
    ("row", "prefix", "seeds", "pairs"),
    [(0, "", SEEDS, GAUSSIAN_PAIRS), (1, "photographs_", PHOTOGRAPH_SEEDS, PHOTOGRAPH_PAIRS)],
)
def test_stored_directions_exchange_as_reported(stored_report, row, prefix, seeds, pairs):
    count, logs = 0, []
    for seed in seeds:
        before, after = times(f"{prefix}plain_seed{seed}"), times(f"{prefix}swapped_seed{seed}")
        for i, j in pairs:
            count += (before[i] < before[j]) != (after[j] < after[i])
            logs += [np.log(after[i] / before[i]), np.log(after[j] / before[j])]
            assert f"| {before[i]:.1f} | {before[j]:.1f} | {after[j]:.1f} | {after[i]:.1f} |" in stored_report.text
    measured = stored_report.rows[row].measured
    assert measured.startswith(f"{count} of {len(pairs) * len(seeds)} pairs reversed")
    interval = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    assert "{:.2f} [{:.2f}, {:.2f}]".format(*np.exp([np.mean(logs), interval.low, interval.high])) in measured


@needs_results
def test_stored_modes_spread_as_reported(stored_report):
    for edit, row in (("white", 0), ("plain", 1)):
        logs = []
        for seed in SEEDS:
            low, high = np.quantile(times(f"{edit}_seed{seed}"), [0.1, 0.9])
            logs.append(np.log(high / low))
        said = stored_report.rows[2].measured.split("; ")[row]
        assert f" {np.exp(np.mean(logs)):.2f} [" in said


@needs_results
def test_stored_modes_start_outside_the_gray_zone():
    for name in (f"{edit}_seed{seed}" for edit in ("plain", "swapped", "white") for seed in SEEDS):
        table = arrays(name)
        assert (table["fixed_point"] > 2 * table["variance"][0]).all()


@needs_results
def test_stored_classes_emerge_as_reported(stored_report):
    for share in SHARES:
        logs = []
        for seed in CLASS_SEEDS:
            table = arrays(f"share{round(100 * share):02d}_seed{seed}")
            target, ends, curves = table["group_target"], table["group_fixed_point"], table["group_variance"]
            medians = []
            for g in range(2):
                own = [k for k in range(32) if target[g, k] > target[1 - g, k]]
                assert len(own) == 16
                # The population's variances, by the samples: the modes are the directions of one class each.
                np.testing.assert_allclose(
                    sorted(target[g, own]), sorted((4, 1)[g] * np.arange(1, 17) ** -0.5), rtol=1e-4
                )
                assert (ends[g, own] > 2 * curves[0, g, own]).all()
                medians.append(
                    np.median([passage(table["step"], curves[:, g, k], curves[0, g, k], ends[g, k]) for k in own])
                )
            logs.append(np.log(medians[0] / medians[1]))
        line = next(one for one in stored_report.text.splitlines() if one.startswith(f"| {share:g} |"))
        assert f"{round(20_000 * share):,}" in line
        ratio = np.exp(np.mean(logs))
        assert f"| {ratio:.2f} [" in line if np.isfinite(ratio) else "| above " in line
