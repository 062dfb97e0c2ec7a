"""The theory's time from the training's: weighted updates, one fitted factor, and what forbids a clock without one."""

import numpy as np
import pytest
import torch

from spectral_lightning.prediction import (
    Fit,
    data_departures,
    fit_time_scale,
    goodness_of_fit,
    optimizer_departures,
    training_time,
)
from spectral_lightning.spectra import PCABasis, SpectralHistory

STEPS = np.array([0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0])
ALL = np.array([True, True, True])


def saturating(time, rates=(0.5, 0.1, 0.02)):
    """From 1 to 0.01 at a rate per mode."""
    return 0.01 + 0.99 * np.exp(-np.outer(time, rates))


@pytest.mark.parametrize("factor", [3e-4, 0.37, 1.0, 25.0, 4e3])
def test_a_known_factor_is_recovered(factor):
    rates = np.array([0.5, 0.1, 0.02]) * (1e-4 if factor > 100 else 1)  # not all over by the first record
    measured = saturating(STEPS * factor, rates)
    # xatol is 1e-4 in the logarithm, beside which nothing is lost on noiseless curves.
    assert fit_time_scale(STEPS, measured, lambda t: saturating(t, rates), ALL) == pytest.approx(factor, rel=3e-4)


def test_only_the_given_modes_count_and_noise_moves_the_factor_little():
    measured = saturating(STEPS * 2.0)
    measured[:, 0] = saturating(STEPS * 50.0)[:, 0]
    found = fit_time_scale(STEPS, measured, saturating, np.array([False, True, True]))
    assert found == pytest.approx(2, rel=3e-4)
    assert abs(fit_time_scale(STEPS, measured, saturating, ALL) - 2) > 0.1
    noise = np.exp(0.05 * np.random.default_rng(0).normal(size=(len(STEPS), 3)))
    # 5 % noise on about ten informative points: a few percent, five sigma at 10 %.
    assert fit_time_scale(STEPS, saturating(STEPS * 1.7) * noise, saturating, ALL) == pytest.approx(1.7, rel=0.1)


def test_goodness_of_fit_against_loops():
    rng = np.random.default_rng(1)
    measured, predicted = rng.uniform(0.1, 2, (4, 5)), rng.uniform(0.1, 2, (4, 5))
    measured[1, 2], measured[2, 0], predicted[3, 3] = 0.0, np.nan, 0.0
    initial, modes = measured[0], np.array([True, False, True, True, True])
    errors, trivial = [], []
    for t in range(4):
        for k in (0, 2, 3, 4):
            if measured[t, k] > 0 and predicted[t, k] > 0:
                errors.append(np.log(measured[t, k] / predicted[t, k]) ** 2)
                trivial.append(np.log(measured[t, k] / initial[k]) ** 2)
    fit = goodness_of_fit(measured, predicted, initial, modes)
    assert fit.cells == len(errors) == 13
    np.testing.assert_allclose([fit.rms, fit.baseline], np.sqrt([np.mean(errors), np.mean(trivial)]), rtol=1e-12)


def test_a_fit_says_whether_it_beats_no_theory():
    assert "no better" not in str(Fit(0.1, 0.5, 3))
    assert "no better" in str(Fit(0.6, 0.5, 3))
    nothing = goodness_of_fit(np.ones((2, 1)), np.ones((2, 1)), np.ones(1), np.array([False]))
    assert nothing.cells == 0
    assert "not determinable" in str(nothing)


def time_of(steps, rates, base):
    history = SpectralHistory({"target": [1.0], "fixed_point": [1.0]})
    for step, rate in zip(steps, rates, strict=True):
        history.append(step=step, variance=[1.0], cumulative_learning_rate=rate)
    return training_time(history, base)


def test_updates_are_weighted_by_their_rate():
    rates = np.cumsum(np.full(1000, 0.1))  # not a multiple of 0.1 in floating point
    steps = [0, 1, 7, 333, 1000]
    assert time_of(steps, [0.0, *(rates[s - 1] for s in steps[1:])], 0.1).tolist() == steps
    np.testing.assert_allclose(time_of([0, 1, 2, 3], [0.0, 0.2, 0.3, 0.35], 0.2), [0, 1, 1.5, 1.75], rtol=1e-12)


@pytest.mark.parametrize(("base", "rates"), [(None, [0.0, 0.1, 0.2]), (0.1, [0.0, 0.0, 0.0]), (0.0, [0.0, 0.1, 0.2])])
def test_without_a_known_rate_time_is_updates(base, rates):
    assert time_of([0, 4, 9], rates, base).tolist() == [0.0, 4.0, 9.0]


P = [torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))]
SGD = torch.optim.SGD(P, 0.1)
DEPARTURES = {
    "plain": ([SGD], None, []),
    "momentum": ([torch.optim.SGD(P, 0.1, momentum=0.9)], None, ["momentum = 0.9"]),
    "weight decay": ([torch.optim.SGD(P, 0.1, weight_decay=0.1)], None, ["weight_decay = 0.1"]),
    "Adam": ([torch.optim.Adam(P)], None, ["Adam used"]),
    "AdamW": ([torch.optim.AdamW(P)], None, ["AdamW used"]),
    "clipping": ([SGD], 0.5, ["clipping at 0.5"]),
    "two rates": ([torch.optim.SGD([{"params": P[:1]}, {"params": P[1:], "lr": 0.2}], 0.1)], None, ["learning rate"]),
    "two": ([SGD, SGD], None, ["one optimizer"]),
    "none known": ([], None, ["none known"]),
}


@pytest.mark.parametrize(("optimizers", "clipping", "wanted"), DEPARTURES.values(), ids=DEPARTURES)
def test_departures_of_the_optimizer(optimizers, clipping, wanted):
    found = optimizer_departures(optimizers, clipping)
    assert len(found) == len(wanted)
    assert all(text in departure.text for text, departure in zip(wanted, found, strict=True))
    assert all(departure.affects_clock for departure in found)


@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_a_mean_is_a_departure_that_leaves_the_clock(mean):
    basis = PCABasis.from_moments(torch.full((4,), mean), torch.diag(torch.arange(1.0, 5)))
    found = data_departures(basis)
    assert [(departure.affects_clock, "0.4 of" in departure.text) for departure in found] == [(False, True)] * int(mean)
