"""Both convolutions against their trained kernels written into dense matrices, and integrated flows."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import FullWidthConvolution, GaussianData, LocalConvolution, Objective, Preconditioning
from tests.support.affine_oracle import (
    circulant,
    convolution_problem,
    random_moments,
    train_by_expm,
    train_by_ode,
    train_by_steps,
)

pytestmark = pytest.mark.slow

RATE, GAIN = 1e-3, 0.2
KINDS = {"none": Preconditioning("none"), "edm": Preconditioning("edm", 0.7)}
FIELDS = [((8,), 1), ((5,), 2), ((3, 4), 1), ((3, 3), 2)]
BIASES = [None, "shared", "per_pixel"]
WIDTHS = [None, 3]  # of the kernel; None for that of the image

every_width = pytest.mark.parametrize("width", WIDTHS, ids=["full", "local"])
every_kind = pytest.mark.parametrize("kind", KINDS)
every_bias = pytest.mark.parametrize("bias", BIASES)


def family(width, *settings, rate=RATE, kind="none", **objective):
    given = Objective(rate, KINDS[kind], **objective)
    return FullWidthConvolution(given, *settings) if width is None else LocalConvolution(given, width, *settings)


def pair(width, size, channels, bias, kind="none", rate=RATE, **objective):
    """The curves and the brute-force problem on the same data; local kernels with a bias per pixel want a uniform mean."""
    uniform = width is not None and bias == "per_pixel"
    mean, covariance = random_moments(0, channels * int(np.prod(size)), channels, uniform)
    start = 0.0 if bias is None else 0.3
    data = GaussianData(covariance, mean, size, channels)
    model = family(width, GAIN, bias, start, rate=rate, kind=kind, **objective).on(data)
    return model, convolution_problem(size, channels, width, bias, mean, covariance, rate, GAIN, start)


def dense(model, time, sigma):
    """The kernel written into a matrix tap by tap, and the bias of every coordinate."""
    kernel, size, channels = model.kernel(time, sigma), model.size, model.channels
    shape = kernel.shape[2:]
    shift = 0 if isinstance(model.family, FullWidthConvolution) else model.family.kernel_size // 2
    matrix = np.zeros((channels, *size, channels, *size))
    for o, i in np.ndindex(channels, channels):
        for place in np.ndindex(*size):
            for tap in np.ndindex(*shape):
                other = tuple((p + t - shift) % n for p, t, n in zip(place, tap, size, strict=True))
                matrix[(o, *place, i, *other)] += kernel[(o, i, *tap)]
    d = channels * model.pixels
    return matrix.reshape(d, d), np.broadcast_to(
        model.bias(time, sigma).reshape(channels, -1), (channels, d // channels)
    ).ravel()


def assert_generated(model, when, mean, covariance, **tolerances):
    """The generated mean, spectral matrices and variances are those of a dense Gaussian, seen by plane waves."""
    n, channels, places = model.pixels, model.channels, np.array(list(np.ndindex(*model.size)))
    wave = np.exp(-2j * np.pi * (places / np.array(model.size)) @ places.T) / np.sqrt(n)
    spectrum = np.einsum("kx,cxdy,ky->kcd", wave, covariance.reshape(channels, n, channels, n), wave.conj())
    np.testing.assert_allclose(model.generated_mean(*when).ravel(), mean, **tolerances)
    np.testing.assert_allclose(model.generated_spectrum(*when).reshape(spectrum.shape), spectrum, **tolerances)
    along = np.einsum("kcm,kcd,kdm->km", model.blocks.modes.conj(), spectrum, model.blocks.modes).real
    np.testing.assert_allclose(model.generated_variance(*when), along.ravel(), **tolerances)


@every_width
@pytest.mark.parametrize(("size", "channels"), FIELDS)
@every_bias
@every_kind
@pytest.mark.parametrize("route", [train_by_ode, train_by_expm])
def test_kernel_and_bias_lie_on_the_trained_parameters(width, size, channels, bias, kind, route):
    model, problem = pair(width, size, channels, bias, kind)
    weight, offset = dense(model, 40.0, 0.5)
    trained = problem.trained(40.0, 0.5, kind, route)
    # rtol/atol: the ODE solver's own 1e-11.
    np.testing.assert_allclose(weight, trained[0], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(offset, trained[1], rtol=1e-8, atol=1e-10)


@every_width
@every_bias
@every_kind
@pytest.mark.parametrize(("time", "channels"), [(20.0, 1), (20.0, 2), (500.0, 2)])
def test_the_generated_distribution_lies_on_the_integrated_flow(width, bias, kind, time, channels):
    """Two channels and a mean that varies: nothing commutes, and the dense flow knows of no frequencies."""
    model, problem = pair(width, (4,), channels, bias, kind)
    mean, covariance = problem.generated(time, kind)
    # rtol: DOP853 at 1e-10 over 10 e-folds.
    assert_generated(model, (time,), mean, covariance, rtol=2e-8, atol=1e-9)


@every_width
@pytest.mark.parametrize(
    ("size", "channels", "bias"), [((6,), 1, None), ((3, 4), 1, "shared"), ((3,), 2, "shared"), ((3,), 1, "per_pixel")]
)
def test_the_given_sampler_is_followed_step_by_step(width, size, channels, bias):
    sampler = Sampler(num_steps=6)
    model, problem = pair(width, size, channels, bias)
    mean, covariance = problem.sampled(30.0, sampler.sigmas)
    assert_generated(model, (30.0, sampler), mean, covariance, rtol=1e-8, atol=1e-10)


@every_width
@every_kind
@every_bias
def test_the_loss_is_that_of_the_trained_parameters(width, kind, bias):
    model, problem = pair(width, (3, 4), 1, bias, kind)
    expected = [problem.loss(t, 0.5, kind) for t in (0.0, 30.0)]
    np.testing.assert_allclose(model.loss([0.0, 30.0], 0.5), expected, rtol=1e-8)


@every_width
@every_kind
@pytest.mark.parametrize("bias", ["shared", "per_pixel"])
def test_discrete_descent_is_followed_step_by_step(width, kind, bias):
    model, problem = pair(width, (5,), 2, bias, kind, rate=0.01, discrete=True)
    weight, offset = problem.trained(9, 0.5, kind, train_by_steps)
    found = dense(model, 9, 0.5)
    np.testing.assert_allclose(found[0], weight, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[1], offset, rtol=1e-9, atol=1e-12)


@every_width
@pytest.mark.parametrize("mean", [0.0, 2.0])
def test_unstable_descent_names_the_given_learning_rate(width, mean):
    data = GaussianData(np.eye(8), [mean])
    model = family(width, 0.0, "shared", rate=0.03, discrete=True).on(data)
    for call in (lambda: model.weight(10, 2.0), lambda: model.generated_variance(10)):
        with pytest.raises(ValueError, match=r"`learning_rate` .* got 0\.03"):
            call()
    edge = model.stable_learning_rate(2.0)
    stable = family(width, 0.0, "shared", rate=0.99 * edge, discrete=True).on(data)
    assert np.isfinite(stable.weight(1000, 2.0)).all()


@every_width
@every_bias
def test_limits_are_exact_and_silent(width, bias):
    covariance = circulant(np.array([1e2, 1.0, 0.0, 1e-12, 1e-12, 1e-12, 0.0, 1.0]))
    model = family(width, 0.3, bias).on(GaussianData(covariance))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weight = model.weight([0.0, 1e-12, 1.0, 1e12, np.inf], [0.0, 1e-12, 1.0, 1e12])
        variance = model.generated_variance([0.0, 1e-12, 1e12, np.inf])
        null = family(width, 0.3, bias).on(GaussianData(np.zeros((8, 8)))).weight([0.0, np.inf], [0.0, 1.0])
    assert np.isfinite(weight).all()
    np.testing.assert_allclose(weight[0], 0.3, rtol=1e-12)
    np.testing.assert_allclose(variance[0], 6400 * (0.002 / 80) ** 1.4, rtol=1e-11)
    np.testing.assert_allclose(variance[1], variance[0], rtol=1e-6)
    assert (variance[-1] > 0).all()
    np.testing.assert_allclose(null[:, 0], 0.3, rtol=1e-12)  # without noise and data nothing moves
    np.testing.assert_allclose(null[1, 1], 0.0, atol=1e-15)


@every_width
@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ((np.nan,), "init"),
        ((0.0, "each"), "bias"),
        ((0.0, None, 0.1), "init_bias"),
        ((0.0, "shared", np.inf), "init_bias"),
    ],
)
def test_settings_are_checked(width, settings, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        family(width, *settings)


@every_width
def test_variances_alone_are_not_enough(width):
    with pytest.raises(TypeError, match="`data`"):
        family(width).on([1.0, 2.0])
