"""A theory beside baselines of its own kind, which are known curves here."""

import numpy as np
import pytest
from scipy.special import expit

from spectral_lightning.prediction import BASELINES, fit_curve, judge, start_departures
from spectral_lightning.prediction.start import Start

VARIANCE = np.geomspace(3.0, 1e-3, 12)
START, TARGET = np.linspace(0.2, 0.5, 12), 1.05 * VARIANCE
STEPS = np.array([0, *np.unique(np.geomspace(1, 10_000, 30).round().astype(int))])
TIME = STEPS.astype(float)


def curves(tau=200.0, width=0.6, exponent=0.0, time=TIME):
    """Logistic progress in log time, written with the inverse of the logit."""
    middle = np.log(tau) - exponent * (np.log(VARIANCE) - np.log(VARIANCE).mean())
    share = expit((np.log(np.maximum(time, 1e-300))[:, None] - middle) / width)
    return START ** (1 - share) * TARGET**share


def noisy(table, size=0.03):
    noise = np.random.default_rng(0).normal(size=table.shape) * size
    noise[0] = 0
    return table * np.exp(noise)


def judged(measured, predicted, **options):
    return judge(STEPS, TIME, measured, predicted, TARGET, VARIANCE, **options)


@pytest.mark.parametrize(("tau", "width", "exponent"), [(3.0, 0.4, 0.0), (200.0, 0.6, 0.9), (4000.0, 1.2, -0.4)])
def test_known_curves_are_recovered(tau, width, exponent):
    table = curves(tau, width, exponent)
    found = fit_curve(TIME, table, TARGET, VARIANCE, by_variance=True)
    np.testing.assert_allclose([found.tau, found.width, found.exponent], [tau, width, exponent], rtol=1e-4, atol=1e-5)
    plain = fit_curve(TIME, curves(tau, width), TARGET, VARIANCE, by_variance=False)
    np.testing.assert_allclose([plain.tau, plain.width, plain.exponent], [tau, width, 0], rtol=1e-4)


def relaxing(factor=1.0):
    """Each mode relaxes at a rate that goes with its variance: not the form of any baseline."""
    left = np.exp(-np.outer(TIME, 0.05 * factor * VARIANCE))
    return TARGET + (START - TARGET) * left


@pytest.mark.parametrize(
    ("measured", "predicted", "beaten"),
    [
        (relaxing(), relaxing(), ["unchanged", "one_curve", "curve_by_variance"]),
        (relaxing(), relaxing(5.0), ["unchanged", "one_curve"]),
        (relaxing(), relaxing(10.0), ["unchanged"]),
        (curves(), relaxing(), ["unchanged"]),
        (relaxing(1e-9), relaxing(), []),
    ],
    ids=["exact", "early", "much too early", "no spectral bias", "nothing learnt"],
)
def test_the_verdict_names_what_the_theory_beats(measured, predicted, beaten):
    found = judged(noisy(measured), predicted)
    assert found.all_steps.beaten() == beaten
    wins, _, loses = found.verdict(found.all_steps).partition("does not beat")
    assert [name for name in BASELINES if f"{BASELINES[name]} {getattr(found.all_steps, name):.3f}" in wins] == beaten
    assert [name for name in BASELINES if BASELINES[name] in loses] == [n for n in BASELINES if n not in beaten]
    assert (found.numbers["theory"], found.after_calibration, found.refit) == (0, None, None)


def test_errors_against_loops_and_only_rows_up_to_the_calibration_are_fitted():
    measured, predicted = noisy(relaxing(), 0.2), relaxing(1.5)
    measured[9, 2], measured[20, 4] = 0.0, np.nan
    found = judged(measured, predicted, fitted_to=STEPS[14], refit=relaxing())
    early = judge(STEPS[:15], TIME[:15], measured[:15], predicted[:15], TARGET, VARIANCE)
    assert found.curves == early.curves
    assert found.fitted_to == STEPS[14]
    tables = {"theory": predicted, "unchanged": np.broadcast_to(START, measured.shape)}
    for name, curve in found.curves.items():
        tables[name] = curves(curve.tau, curve.width, curve.exponent)
    for errors, rows in ((found.all_steps, range(len(STEPS))), (found.after_calibration, range(15, len(STEPS)))):
        cells = [(t, k) for t in rows for k in range(12) if measured[t, k] > 0]
        assert errors.cells == len(cells)
        for name, table in tables.items():
            squares = [np.log(measured[t, k] / table[t, k]) ** 2 for t, k in cells]
            assert getattr(errors, name) == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-9)
    again = judged(measured, relaxing()).all_steps
    assert found.refit == again
    assert found.document()["refit"]["verdict"] == found.verdict(again)


def test_without_points_there_is_no_verdict():
    nothing = judged(np.zeros((len(STEPS), 12)), relaxing())
    assert (nothing.all_steps.cells, nothing.curves) == (0, {})
    assert "not determinable" in nothing.lines()[0]


def test_a_start_off_the_modes_is_a_departure():
    gains = Start(np.ones((2, 3)))
    assert start_departures(gains, {"gains": 0.01, "used": 0.01}) == start_departures(Start(), None) == []
    (found,) = start_departures(Start(gains.gain, np.ones((2, 3, 3))), {"gains": 0.4, "used": 0.002})
    assert "0.4 rms log: full response of the untrained network used, off by 0.002" in found.text
    assert not found.affects_clock
