"""How a network becomes a denoiser: every kind against its definition, in three kinds of number."""

import math

import mpmath
import numpy as np
import pytest
import torch

from spectral_lightning.theory import FlowMatching, Objective, OneLayer, Preconditioning

SIGMAS = [1e-3, 0.1, 0.5, 1.0, 3.0, 80.0]
PREDICTIONS = ("variance_preserving", "velocity", "x0", "flow")


def path(kind, sigma):
    """Shares of data and noise in the network's input, and in what it predicts."""
    one, s = mpmath.mpf(1), mpmath.mpf(sigma)
    if kind == "flow":
        g = s / (one + s)
        return (one - g, g), (-one, one)
    alpha = one / mpmath.sqrt(one + s**2)  # alpha^2 + beta^2 = 1 and beta / alpha = sigma
    beta = s * alpha
    target = {"variance_preserving": (0, one), "velocity": (-beta, alpha), "x0": (one, 0)}
    return (alpha, beta), target[kind]


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_coefficients_recover_the_data_from_input_and_target(kind, sigma):
    mpmath.mp.dps = 40
    (a, _), (p, q) = path(kind, sigma)
    # z = x0 + sigma eps is the input over a; x0 = skip z + out target for every x0 and eps
    matrix = mpmath.matrix([[1, p], [mpmath.mpf(sigma), q]])
    skip, out = mpmath.lu_solve(matrix, mpmath.matrix([1, 0]))
    given = Preconditioning(kind)
    # rounding in float64; c_skip of x0 is zero
    np.testing.assert_allclose(given.c_skip(sigma), float(skip), rtol=1e-13, atol=1e-30)
    np.testing.assert_allclose(given.c_out(sigma), float(out), rtol=1e-13)
    np.testing.assert_allclose(given.c_in(sigma), float(a), rtol=1e-13)
    np.testing.assert_allclose(given.loss_weight(sigma), float(1 / out**2), rtol=1e-12)


@pytest.mark.parametrize("kind", ["edm", *PREDICTIONS, "none"])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_rate_factors_are_their_products(kind, sigma):
    p = Preconditioning(kind, sigma_data=0.7)
    expected = p.loss_weight(sigma) * (p.c_out(sigma) * p.c_in(sigma)) ** 2
    np.testing.assert_allclose(p.rate_factor(sigma), expected, rtol=1e-12)
    np.testing.assert_allclose(p.bias_rate_factor(sigma), p.loss_weight(sigma) * p.c_out(sigma) ** 2, rtol=1e-12)
    twice = Preconditioning(kind, sigma_data=0.7, weight=lambda s: 2.0)
    np.testing.assert_allclose(twice.rate_factor(sigma), 2 * (p.c_out(sigma) * p.c_in(sigma)) ** 2, rtol=1e-12)


@pytest.mark.parametrize(("kind", "limit"), [("edm", 1 / 0.49), ("velocity", 1.0), ("x0", 1.0), ("flow", 1.0)])
def test_rate_factor_is_finite_without_noise(kind, limit):
    assert Preconditioning(kind, sigma_data=0.7).rate_factor(0.0) == pytest.approx(limit, rel=1e-15)


@pytest.mark.parametrize("kind", ["edm", *PREDICTIONS, "none"])
@pytest.mark.parametrize("method", ["c_skip", "c_out", "c_in", "loss_weight", "rate_factor"])
def test_floats_arrays_and_tensors_agree(kind, method):
    call = getattr(Preconditioning(kind), method)
    floats = [call(s) for s in SIGMAS]
    np.testing.assert_allclose(call(np.array(SIGMAS)), floats, rtol=1e-15)
    np.testing.assert_allclose(call(torch.tensor(SIGMAS, dtype=torch.float64)), floats, rtol=1e-15)


@pytest.mark.parametrize("init", [0.0, 0.3, -1.0])
def test_flow_kind_of_one_layer_is_flow_matching(init):
    # The network predicts eps - x0, minus the velocity: the gains have opposite signs
    layer = OneLayer(Objective(1e-2, Preconditioning("flow")), -init)
    flow = FlowMatching(Objective(1e-2), init)
    times, variance = [0.0, 1.0, 50.0, 3e3, math.inf], [1e-3, 0.2, 1.0, 40.0]
    sigmas = [0.002, 0.1, 1.0, 7.0, 80.0]
    # exponentials of up to 2,400 in float64
    np.testing.assert_allclose(
        layer.on(variance).weight(times, sigmas), flow.on(variance).weight(times, sigmas), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "epsilon"}, "`kind` must be one of 'edm', 'variance_preserving', 'velocity', 'x0', 'flow', 'none'"),
        ({"kind": "flow", "skip": abs}, "`skip`, `out` and `scale` are used by kind='given' only, got kind='flow'"),
        ({"kind": "given", "skip": abs}, "`kind='given'` needs the callables"),
        ({"sigma_data": 0.0}, "`sigma_data` must be a positive, finite number, got 0.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Preconditioning(**arguments)
