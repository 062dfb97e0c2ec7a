"""The affine layer with a mean, against its trained parameters, dense exponentials and integrated flows."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import GaussianData, NonCenteredOneLayer, Objective, Preconditioning
from spectral_lightning.theory.families.non_centered import NonCenteredCurves
from spectral_lightning.theory.solving.generation import flow_propagator
from tests.support.affine_oracle import (
    Problem,
    dense_network,
    random_moments,
    train_by_expm,
    train_by_ode,
    train_by_steps,
)

pytestmark = pytest.mark.slow

D, RATE = 6, 1e-3
MEAN, COVARIANCE = random_moments(0, D)
INIT = 0.3 * np.random.default_rng(1).normal(size=(D, D))
BIAS = 0.2 * np.random.default_rng(2).normal(size=D)
KINDS = {"none": Preconditioning("none"), "edm": Preconditioning("edm", 0.7)}
OBJECTIVE, DATA = Objective(RATE), GaussianData(COVARIANCE, MEAN)


def problem(mean=MEAN, covariance=COVARIANCE, init=INIT, bias=BIAS, rate=RATE) -> Problem:
    start = np.concatenate([init, bias[:, None]], axis=1).ravel()
    return Problem(dense_network(len(mean)), start, mean, covariance, rate)


def theory(kind="none", rate=RATE, **options) -> NonCenteredCurves:
    return NonCenteredOneLayer(Objective(rate, KINDS[kind], **options), INIT, BIAS).on(DATA)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sigma", [0.002, 0.4, 5.0])
@pytest.mark.parametrize("route", [train_by_ode, train_by_expm])
def test_weights_and_bias_lie_on_the_trained_parameters(kind, sigma, route):
    weight, bias = problem().trained(300.0, sigma, kind, route)
    model = theory(kind)
    # rtol/atol: the ODE solver's own 1e-11.
    np.testing.assert_allclose(model.weight_matrix(300.0, sigma), weight, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(model.bias(300.0, sigma), bias, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("time", [0.0, 30.0, 1000.0, np.inf])
def test_generated_mean_and_covariance_lie_on_the_integrated_flow(kind, time):
    some = slice(0, 3)  # the oracle trains anew at some 700 noise levels
    data = MEAN[some], COVARIANCE[some, some]
    mean, covariance = problem(*data, INIT[some, some], BIAS[some]).generated(time, kind)
    family = NonCenteredOneLayer(Objective(RATE, KINDS[kind]), INIT[some, some], BIAS[some])
    model = family.on(GaussianData(data[1], data[0]))
    # rtol: DOP853 at 1e-10 over 10 e-folds; at infinity the oracle's pseudo-inverse has condition 1e6.
    np.testing.assert_allclose(model.generated_mean(time), mean, rtol=2e-8, atol=1e-9)
    np.testing.assert_allclose(model.generated_covariance(time), covariance, rtol=2e-8, atol=1e-9)
    along = np.diag(model.modes.T @ covariance @ model.modes)
    np.testing.assert_allclose(model.generated_variance(time), along, rtol=2e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
def test_the_given_sampler_is_followed_step_by_step(kind, final):
    sampler = Sampler(num_steps=7, final=final)
    model = theory(kind)
    mean, covariance = problem().sampled(100.0, sampler.sigmas, kind)
    np.testing.assert_allclose(model.generated_mean(100.0, sampler), mean, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(model.generated_covariance(100.0, sampler), covariance, rtol=1e-8, atol=1e-10)


def test_a_noise_density_slows_weights_and_bias_alike():
    thinned = theory(noise_density=lambda s: 0.25 + 0 * s)
    np.testing.assert_allclose(thinned.weight_matrix(400.0, 0.5), theory().weight_matrix(100.0, 0.5), rtol=1e-12)
    np.testing.assert_allclose(thinned.bias(400.0, 0.5), theory().bias(100.0, 0.5), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_the_trained_parameters(kind):
    loss = theory(kind).loss([0.0, 50.0, 1e4], [0.1, 2.0])
    expected = [[problem().loss(t, s, kind) for s in (0.1, 2.0)] for t in (0.0, 50.0, 1e4)]
    np.testing.assert_allclose(loss, expected, rtol=1e-8)


@pytest.mark.parametrize("time", [0.0, 200.0, 1e5])
def test_the_joint_divergence_is_that_of_the_two_gaussians(time):
    model = theory()
    mean, covariance = model.generated_mean(time), model.generated_covariance(time)
    inverse = np.linalg.inv(COVARIANCE)
    ratio, off = inverse @ covariance, mean - MEAN
    expected = (np.trace(ratio) - D - np.log(np.linalg.det(ratio)) + off @ inverse @ off) / 2
    np.testing.assert_allclose(model.joint_kl_divergence(time), expected, rtol=1e-9)
    assert model.kl_divergence(time).sum() <= expected * (1 + 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_discrete_descent_is_followed_step_by_step(kind):
    weight, bias = problem(rate=0.05).trained(17, 0.4, kind, train_by_steps)
    model = theory(kind, 0.05, discrete=True)
    np.testing.assert_allclose(model.weight_matrix(17, 0.4), weight, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(model.bias(17, 0.4), bias, rtol=1e-9, atol=1e-11)


def test_unstable_descent_is_refused_where_it_does_diverge():
    edge = theory(discrete=True).stable_learning_rate(1.0)
    lower, upper = (theory(rate=share * edge, discrete=True) for share in (0.99, 1.05))
    assert np.isfinite(lower.weight(1000, 1.0)).all()
    with pytest.raises(ValueError, match="`learning_rate`"):
        upper.weight(1000, 1.0)
    growing, _ = problem(rate=1.05 * edge).trained(300, 1.0, "none", train_by_steps)
    assert np.abs(growing).max() > 1e6


@pytest.mark.parametrize("kind", KINDS)
def test_limits_are_exact(kind):
    model = theory(kind)
    sigma = np.array([0.0, 0.002, 1.0, 80.0])
    outer = np.linalg.inv(COVARIANCE + np.eye(D))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start, end = model.weight_matrix(0.0, sigma), model.weight_matrix(np.inf, sigma)
        bias = model.bias(np.inf, sigma)
    skip = np.zeros(4) if kind == "none" else 0.49 / (sigma**2 + 0.49)
    scale = np.ones(4) if kind == "none" else 0.7 * sigma / (sigma**2 + 0.49)
    np.testing.assert_allclose(start, skip[:, None, None] * np.eye(D) + scale[:, None, None] * INIT, atol=1e-14)
    np.testing.assert_allclose(end[2], COVARIANCE @ outer, atol=1e-13)
    np.testing.assert_allclose(bias[2], MEAN - COVARIANCE @ outer @ MEAN, atol=1e-13)
    np.testing.assert_allclose(end[0], np.eye(D), atol=1e-13)


def test_null_modes_keep_their_start_at_zero_noise():
    model = NonCenteredOneLayer(OBJECTIVE, 0.3).on(GaussianData(np.diag([2.0, 0.0]), [1.0, 0.0]))
    np.testing.assert_allclose(model.weight([0.0, 1e3, np.inf], 0.0)[:, 1], 0.3, rtol=1e-12)
    np.testing.assert_allclose(model.weight(np.inf, 1.0), [2 / 3, 0.0], atol=1e-12)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_extreme_arguments_give_finite_numbers_without_warnings(scale):
    model = NonCenteredOneLayer(Objective(1e-6), 0.1).on(GaussianData(scale * COVARIANCE, np.sqrt(scale) * MEAN))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        variance = model.generated_variance([0.0, 1e-12, 1.0, 1e12, np.inf])
    assert np.isfinite(variance).all()
    limit = 6400 * (model.variance + 4e-6) / (model.variance + 6400)
    np.testing.assert_allclose(variance[-1], limit, rtol=1e-6)


def test_the_integrator_is_of_order_eight():
    model = theory()

    def end(nodes: int) -> np.ndarray:
        return flow_propagator(lambda s: model.affine(np.array([50.0]), s), 0.002, 80.0, nodes)

    exact = end(800)
    coarse, fine = (np.abs(end(nodes) - exact).max() for nodes in (48, 96))
    assert np.log2(coarse / fine) > 7
    assert np.abs(end(200) - exact).max() < 1e-9 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("settings", "name"),
    [(([1.0, 2.0],), "init"), ((np.nan,), "init"), ((0.0, np.eye(2)), "init_bias"), ((0.0, np.inf), "init_bias")],
)
def test_settings_are_checked(settings, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        NonCenteredOneLayer(OBJECTIVE, *settings)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="`init`"):
        NonCenteredOneLayer(OBJECTIVE, np.eye(2)).on(GaussianData(np.eye(3)))
    with pytest.raises(TypeError, match="`data`"):
        NonCenteredOneLayer(OBJECTIVE).on([1.0, 2.0])
    with pytest.raises(ValueError, match="`time`"):
        theory().weight(-1.0, 1.0)
    with pytest.raises(ValueError, match="`initial_gain`"):
        theory().generated_variance(1.0, initial_gain=np.zeros(D))
