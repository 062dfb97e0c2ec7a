"""Emergence times and exponents of the theory, against the printed table and against plain scans."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.optimize import brentq

from spectral_lightning.emergence import StaysWithin, first_passage, gray_zone
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import (
    DeepLinear,
    FlowMatching,
    FullWidthConvolution,
    GaussianData,
    LocalConvolution,
    NonCenteredOneLayer,
    Objective,
    OneLayer,
    Preconditioning,
    SymmetricTwoLayer,
)
from tests.support.affine_oracle import random_moments

VARIANCE = np.geomspace(1e-3, 1e2, 20)
RATE, EDM = Objective(1e-3), Objective(1.0, Preconditioning("edm", sigma_data=0.5))


@pytest.mark.parametrize("sampler", [None, Sampler(num_steps=18)], ids=["exact", "heun"])
@pytest.mark.parametrize("criterion", ["geometric", "harmonic", "arithmetic", 0.8])
@pytest.mark.parametrize(
    "theory",
    [
        OneLayer(RATE, 0.1),
        SymmetricTwoLayer(replace(EDM, learning_rate=1e-3), 0.1),
        DeepLinear(RATE, 0.1, 3),
        FlowMatching(RATE, 0.3),
    ],
    ids=["one", "two edm", "deep", "flow"],
)
def test_emergence_is_where_a_scan_and_brentq_find_it(theory, criterion, sampler):
    variance = np.array([0.01, 3.0, 20.0])
    found = theory.on(variance).emergence_time(criterion, sampler)
    times, expected = np.geomspace(1e-6, 1e9, 301), []
    for lam in variance:
        one = theory.on(lam)
        v0 = float(one.generated_variance(0.0, sampler))
        v1 = lam if sampler is None else float(one.generated_variance(np.inf, sampler))
        fraction = 0.8 * v1 if v1 > v0 else v1 / 0.8
        means = {"geometric": (v0 * v1) ** 0.5, "harmonic": 2 * v0 * v1 / (v0 + v1), "arithmetic": (v0 + v1) / 2}
        level = np.log(means.get(criterion, fraction))

        def excess(t, one=one, level=level, rises=v1 > v0):
            return (1 if rises else -1) * (np.log(one.generated_variance(t, sampler)) - level)

        passed = np.flatnonzero(excess(times) >= 0)
        first = passed[0] if len(passed) else 0
        expected.append(brentq(excess, times[first - 1], times[first], rtol=1e-13) if first else np.nan)
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    assert np.isfinite(expected).sum() >= 2  # a mode may stay short of its threshold, or start beyond it


def test_harmonic_emergence_of_the_two_layer_weight():
    # tau = ln 2 / (8 eta lambda) halves the way of 1/psi, whatever Q.
    variance = np.array([1e-3, 1.0, 50.0])
    for q in (1e-6, 0.1, 0.9):
        theory = SymmetricTwoLayer(RATE, q)
        for lam in variance:
            psi, goal = theory.on(lam).weight(np.log(2) / (8e-3 * lam), 1.3), lam / (lam + 1.69)
            np.testing.assert_allclose(psi, 2 * q * goal / (q + goal), rtol=1e-12)


def test_staying_within_is_later_than_passing_where_modes_undershoot():
    lam = 0.07
    theory = OneLayer(RATE, 0.5).on(lam)
    first, settled = theory.emergence_time(0.9), theory.emergence_time(StaysWithin(0.1))
    assert settled > 2 * first
    times = np.geomspace(float(settled) * 1.0001, 1e9, 2000)
    later = theory.generated_variance(times)
    assert (abs(later / lam - 1) <= 0.1).all()
    assert abs(float(theory.generated_variance(settled)) / lam - 1) == pytest.approx(0.1, rel=1e-8)
    assert theory.generated_variance(np.geomspace(1e-3, 1e6, 400)).min() < 0.0025


def test_staying_within_where_it_never_leaves_and_where_it_never_ends():
    theory = OneLayer(RATE, 1.0).on(100.0)
    # With Q = 1 the start is sigma_T^2, and the exact flow of a mode of 100 ends 1.5 % short of it.
    assert np.isnan(theory.emergence_time(StaysWithin(0.01)))
    assert np.isfinite(theory.emergence_time(StaysWithin(0.02)))
    start = float(OneLayer(RATE, 0.5).on(1.0).generated_variance(0.0))
    assert OneLayer(Objective(1e-9), 0.5).on(start).emergence_time(StaysWithin(0.9)) >= 0


def test_modes_that_start_at_their_target_or_never_arrive_have_no_emergence():
    assert np.isnan(SymmetricTwoLayer(RATE, 0.0).on(1.0).emergence_time())
    assert np.isnan(OneLayer(RATE).on(0.0).emergence_time())
    theory = OneLayer(RATE, 0.5).on(VARIANCE)
    start, laws = theory.generated_variance(0.0), theory.exponent()
    assert laws["rising"].total + laws["falling"].total == (~gray_zone(start, VARIANCE)).sum()


@pytest.mark.parametrize(
    ("theory", "rate"),
    [
        (OneLayer, 0.05),
        (OneLayer, 0.1),
        pytest.param(partial(SymmetricTwoLayer, init=0.2), 0.03, marks=pytest.mark.slow),
    ],
    ids=["one", "one, oscillating", "two"],
)
def test_emergence_under_descent_is_the_first_passage_of_the_recorded_steps(theory, rate):
    sampler, steps = Sampler(num_steps=6, final="sigma_min"), np.arange(1000.0)
    curves = theory(replace(EDM, learning_rate=rate, discrete=True)).on([0.01, 1.0, 2.0])
    table, end = (curves.generated_variance(t, sampler) for t in (steps, np.inf))
    level = np.sqrt(table[0] * end)
    expected = first_passage(steps, table, level, np.sign(end - table[0]).astype(int))
    # From step 0 the record is interpolated in log variance.
    np.testing.assert_allclose(curves.emergence_time("geometric", sampler), expected, rtol=1e-9)
    assert np.isfinite(expected).all()


@pytest.mark.parametrize("theory", [OneLayer, SymmetricTwoLayer, partial(DeepLinear, depth=3)])
def test_descent_approaches_gradient_flow_at_first_order(theory):
    error = []
    for steps in (200, 400, 800):
        flow, descent = (theory(replace(EDM, learning_rate=1 / steps, discrete=d), init=0.4) for d in (False, True))
        first, second = (family.on([1.0, 4.0]).weight(steps / 4, [0.3, 1.0]) for family in (flow, descent))
        error.append(np.abs(first - second).max())
    np.testing.assert_allclose(np.log2(np.array(error[:-1]) / error[1:]), 1, atol=0.1)


MEAN, COVARIANCE = random_moments(0, 10)
IMAGE = GaussianData(COVARIANCE[:5, :5], MEAN[:5], (5,))
AFFINE = {
    "affine": NonCenteredOneLayer(RATE, 0.1).on(GaussianData(COVARIANCE[:6, :6], MEAN[:6])),
    "full width": FullWidthConvolution(RATE, 0.1).on(IMAGE),
    "full width with a bias": FullWidthConvolution(RATE, 0.1, "shared").on(IMAGE),
    "local": LocalConvolution(RATE, 3, 0.2).on(IMAGE),
    "local, two channels": LocalConvolution(RATE, 3, 0.2).on(GaussianData(COVARIANCE, MEAN, (5,), 2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("sampler", [None, Sampler(num_steps=10)], ids=["exact", "heun"])
@pytest.mark.parametrize("criterion", ["geometric", 0.8, StaysWithin(0.2)], ids=["geometric", "share", "band"])
def test_affine_families_emerge_where_their_variance_meets_its_threshold(name, sampler, criterion):
    curves = AFFINE[name]
    start, end = curves.ends(sampler)
    tau = curves.emergence_time(criterion, sampler)
    settles, way = isinstance(criterion, StaysWithin), np.sign(end - start)
    level = np.sqrt(start * end) if criterion == "geometric" else np.where(way > 0, 0.8 * end, end / 0.8)

    def missing(share, k):
        """How far the mode is from being learnt at a share of its time; negative beyond it."""
        found = curves.generated_variance(share * tau[k], sampler)[..., k]
        return np.abs(found / end[k] - 1) - 0.2 if settles else way[k] * (1 - found / level[k])

    emerged = np.flatnonzero(np.isfinite(tau) & (tau > 0))
    assert len(emerged) >= 4
    for k in emerged:
        assert missing(1.0, k) == pytest.approx(0, abs=1e-8)
        # A passage is the first, settling the last.
        other = -missing(np.geomspace(1.001, 1e4, 9), k) if settles else missing(np.geomspace(1e-2, 0.999, 7), k)
        assert (other > 0).all()


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("family", [NonCenteredOneLayer, FullWidthConvolution])
def test_measured_initial_gains_replace_the_start(family, discrete):
    sampler, data = Sampler(num_steps=6, sigma_max=5.0), GaussianData(COVARIANCE, None, (5,), 2)
    plain, other = (family(replace(RATE, discrete=discrete), q).on(data) for q in (0.3, 0.0))
    gain = np.full((len(sampler.levels), 10), 0.3)
    first, second = other.generated_variance([0.0, 9.0], sampler, gain), plain.generated_variance([0.0, 9.0], sampler)
    np.testing.assert_allclose(first, second, rtol=1e-12)
    np.testing.assert_allclose(other.weight(9.0, 1.0, gain[0]), plain.weight(9.0, 1.0), rtol=1e-12)
