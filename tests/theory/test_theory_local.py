"""The local convolution, against its trained kernels, the patch formula written out, and integrated flows."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import expm

from spectral_lightning.emergence import StaysWithin
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import FullWidthConvolution, LocalConvolution, OneLayer, Preconditioning
from tests.support.affine_oracle import (
    circulant,
    convolution_problem,
    power_law_spectrum,
    random_moments,
    train_by_expm,
    train_by_ode,
    train_by_steps,
)

pytestmark = pytest.mark.slow

RATE, GAIN = 1e-3, 0.2
KINDS = {"none": None, "edm": Preconditioning("edm", 0.7)}
FIELDS = [((8,), 1), ((5,), 2), ((3, 4), 1), ((3, 3), 2)]
BIASES = [None, "shared", "per_pixel"]


def pair(size, channels, bias, kind="none", rate=RATE, kernel=3, **options):
    """The theory and the brute-force problem on the same data; one bias per pixel needs a uniform mean."""
    mean, covariance = random_moments(0, channels * int(np.prod(size)), channels, uniform=bias == "per_pixel")
    start = 0.0 if bias is None else 0.3
    model = LocalConvolution(rate, kernel, GAIN, bias, start, KINDS[kind], **options)
    problem = convolution_problem(size, channels, kernel, bias, mean, covariance, rate, GAIN, start)
    return model.bind(mean, covariance, size, channels), problem


def dense(kernel: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The matrix of a centred kernel ``[C, C, *K]``, tap by tap."""
    channels, shape = kernel.shape[0], kernel.shape[2:]
    matrix = np.zeros((channels, *size, channels, *size))
    for o, i in np.ndindex(channels, channels):
        for place in np.ndindex(*size):
            for tap in np.ndindex(*shape):
                other = tuple((p + t - k // 2) % n for p, t, k, n in zip(place, tap, shape, size, strict=True))
                matrix[(o, *place, i, *other)] += kernel[(o, i, *tap)]
    return matrix.reshape(channels * int(np.prod(size)), -1)


def patch_moments(covariance: np.ndarray, width: int) -> np.ndarray:
    """Mean over positions of the covariance of circular patches."""
    n = len(covariance)
    windows = [(x + np.arange(width) - width // 2) % n for x in range(n)]
    return np.mean([covariance[np.ix_(window, window)] for window in windows], axis=0)


@pytest.mark.parametrize(("size", "channels"), FIELDS)
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("route", [train_by_ode, train_by_expm])
def test_kernel_and_bias_lie_on_the_trained_parameters(size, channels, bias, kind, route):
    model, problem = pair(size, channels, bias, kind)
    weight, offset = problem.trained(40.0, 0.5, kind, route)
    # rtol/atol: the ODE solver's own 1e-11.
    np.testing.assert_allclose(dense(model.kernel(40.0, 0.5), size), weight, rtol=1e-8, atol=1e-10)
    pixels = int(np.prod(size))
    np.testing.assert_allclose(np.repeat(model.bias(40.0, 0.5), pixels), offset, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("width", [1, 3, 5, 7])
@pytest.mark.parametrize("sigma", [0.002, 0.4, 80.0])
def test_the_kernel_is_that_of_the_proposition(width, sigma):
    """``w = w* + expm(-2 N eta tau (sigma^2 I + S)) (w(0) - w*)``, with S from patches cut out one by one."""
    covariance = random_moments(1, 8)[1]
    model = LocalConvolution(RATE, width, GAIN).bind(None, covariance)
    centre = np.eye(width)[width // 2]
    patch = patch_moments(covariance, width)
    gram = sigma**2 * np.eye(width) + patch
    optimum = np.linalg.solve(gram, patch @ centre)
    for time in (0.0, 3.0, 200.0):
        expected = optimum + expm(-2 * 8 * RATE * time * gram) @ (GAIN * centre - optimum)
        np.testing.assert_allclose(model.kernel(time, sigma)[0, 0], expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.kernel(np.inf, sigma)[0, 0], optimum, rtol=1e-9, atol=1e-12)


def test_without_a_bias_the_mean_enters_as_a_second_moment():
    covariance = random_moments(1, 8)[1]
    model = LocalConvolution(RATE, 3, GAIN).bind([1.5], covariance)
    shifted = LocalConvolution(RATE, 3, GAIN).bind(None, covariance + 1.5**2)
    np.testing.assert_allclose(model.kernel(20.0, 0.5), shifted.kernel(20.0, 0.5), rtol=1e-10)
    patch = patch_moments(covariance, 3) + 1.5**2
    optimum = np.linalg.solve(patch + 0.25 * np.eye(3), patch[1])
    np.testing.assert_allclose(model.kernel(np.inf, 0.5)[0, 0], optimum, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_transfer_and_gain_are_those_of_the_dense_matrix(kind):
    """From a kernel that is not mirror-symmetric, so that the transfer function is complex."""
    mean, covariance = random_moments(0, 12)
    start = np.random.default_rng(4).normal(size=(1, 1, 3, 3))
    model = LocalConvolution(RATE, 3, start, preconditioning=KINDS[kind]).bind(mean, covariance, (3, 4))
    problem = convolution_problem((3, 4), 1, 3, None, mean, covariance, RATE)
    problem.start = start.ravel()
    weight = problem.trained(40.0, 0.5, kind)[0].reshape(3, 4, 3, 4)
    expected = np.einsum("hwhw->hw", np.fft.ifftn(np.fft.fftn(weight, axes=(0, 1)), axes=(2, 3)))
    assert np.abs(expected.imag).max() > 0.05
    np.testing.assert_allclose(model.transfer(40.0, 0.5)[..., 0, 0], expected, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(model.weight(40.0, 0.5), expected.real.ravel(), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(("channels", "bias"), [(1, None), (1, "shared"), (2, None), (2, "shared"), (2, "per_pixel")])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("time", [0.0, 20.0, 500.0])
def test_the_generated_distribution_lies_on_the_integrated_flow(channels, bias, kind, time):
    model, problem = pair((5,), channels, bias, kind)
    mean, covariance = problem.generated(time, kind)
    wave = np.exp(-2j * np.pi * np.outer(np.arange(5), np.arange(5)) / 5) / np.sqrt(5)
    folded = np.einsum("kx,cxdy,ky->kcd", wave, covariance.reshape(channels, 5, channels, 5), wave.conj())
    # rtol: DOP853 at 1e-10 over 10 e-folds.
    np.testing.assert_allclose(model.generated_mean(time).ravel(), mean, rtol=2e-8, atol=1e-9)
    np.testing.assert_allclose(model.generated_spectrum(time), folded, rtol=2e-8, atol=1e-9)
    along = np.einsum("kcm,kcd,kdm->km", model.blocks.modes.conj(), folded, model.blocks.modes).real
    np.testing.assert_allclose(model.generated_variance(time), along.ravel(), rtol=2e-8)


@pytest.mark.parametrize("size", [(8,), (3, 4)])
@pytest.mark.parametrize("time", [0.0, 20.0, np.inf])
def test_the_quadrature_meets_adaptive_quadrature_and_the_integrator(size, time):
    model, _ = pair(size, 1, None)
    variance = model.generated_variance(time)
    np.testing.assert_allclose(model.generated_spectrum(time).real.ravel(), variance, rtol=1e-9)
    low, high = np.log(0.002), np.log(80.0)
    for mode in (0, 3):
        integral = quad(lambda u, k=mode: 1 - model.weight(time, np.exp(u))[k], low, high, epsabs=1e-11, limit=400)[0]
        np.testing.assert_allclose(np.log(variance[mode]), 2 * high - 2 * integral, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("size", "channels", "bias"), [((6,), 1, None), ((3, 4), 1, "shared"), ((4,), 2, "shared")])
def test_the_given_sampler_is_followed_step_by_step(size, channels, bias):
    sampler = Sampler(num_steps=6)
    model, problem = pair(size, channels, bias)
    mean, covariance = problem.sampled(30.0, sampler.sigmas)
    dims = len(size)
    lags = covariance.reshape(channels, *size, channels, *size)
    origin = lags[(slice(None),) * (1 + dims) + (slice(None), *(0,) * dims)]  # stationary: lags from the origin
    spectrum = np.moveaxis(np.fft.fftn(origin, axes=tuple(range(1, 1 + dims))), 0, -2)
    np.testing.assert_allclose(model.generated_mean(30.0, sampler).ravel(), mean, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(model.generated_spectrum(30.0, sampler), spectrum, rtol=1e-8, atol=1e-10)
    along = model.blocks.along(spectrum.reshape(-1, channels, channels))
    np.testing.assert_allclose(model.generated_variance(30.0, sampler=sampler), along, rtol=1e-8, atol=1e-10)


def test_its_limit_is_not_the_spectrum_of_the_data():
    spectrum = power_law_spectrum(16)
    model = LocalConvolution(RATE, 3).bind(None, circulant(spectrum))
    limit = model.generated_variance(np.inf)
    assert np.abs(np.log(limit / spectrum)).max() > np.log(1.5)
    full = FullWidthConvolution(RATE).bind(None, circulant(spectrum))
    np.testing.assert_allclose(full.generated_variance(np.inf), spectrum, rtol=0.01)


def test_as_wide_as_the_image_it_is_the_full_width_convolution():
    covariance = random_moments(2, 7)[1]
    local = LocalConvolution(RATE, 7, GAIN).bind(None, covariance)
    full = FullWidthConvolution(RATE, GAIN).bind(None, covariance)
    time = [0.0, 3.0, 100.0, np.inf]
    np.testing.assert_allclose(local.transfer(time, 0.5), full.transfer(time, 0.5), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(local.generated_variance(time), full.generated_variance(time), rtol=1e-9)


def test_white_data_leave_one_tap_with_the_gain_of_one_layer():
    model = LocalConvolution(RATE, 3, GAIN).bind(None, 2.0 * np.eye(8))
    time = np.array([0.0, 1.0, 30.0, np.inf])
    layer = OneLayer(8 * RATE, GAIN)
    expected = np.repeat(layer.weight(time, 0.5, [2.0]), 8, axis=-1)
    np.testing.assert_allclose(model.weight(time, 0.5), expected, rtol=1e-11)
    # rtol: one is measured against its own limit, the other against the data's variance, 0.03 % apart.
    np.testing.assert_allclose(model.emergence_time(), layer.emergence_time(np.full(8, 2.0)), rtol=1e-3)


@pytest.mark.parametrize("pixels", [16, 64, 256])
@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_modes_emerge_nearly_together(pixels, exponent):
    """Modes of 8 pixels and longer emerge within 30 % under a kernel of 3, and spread as their variances at full width.

    Over all modes, down to 2 pixels, a local kernel spreads them as the eigenvalues of its patch covariance are.
    """
    spectrum = power_law_spectrum(pixels, exponent)
    covariance = circulant(spectrum)
    local = LocalConvolution(RATE, 3).bind(None, covariance).emergence_time()
    full = FullWidthConvolution(RATE).bind(None, covariance).emergence_time()

    def spread(tau: np.ndarray, shortest: int) -> float:
        chosen = tau[1 : pixels // shortest + 1]
        return chosen.max() / chosen.min()

    condition = np.linalg.cond(patch_moments(covariance, 3))
    assert spread(local, 8) < 1.3
    assert spread(full, 8) > 0.9 * (pixels / 8) ** exponent
    assert condition < spread(local, 2) < 2 * condition
    assert spread(local, 2) < spread(full, 2)


@pytest.mark.parametrize(("channels", "sampler"), [(1, None), (1, Sampler(num_steps=10)), (2, None)])
@pytest.mark.parametrize("criterion", ["geometric", 0.8, StaysWithin(0.2)])
def test_emergence_is_where_the_generated_variance_meets_its_threshold(channels, sampler, criterion):
    model, _ = pair((5,), channels, None)
    start, end = (model.generated_variance(t, sampler=sampler) for t in (0.0, np.inf))
    tau = model.emergence_time(None, criterion, sampler)
    found = np.flatnonzero(np.isfinite(tau) & (tau > 0))
    assert len(found) >= 4
    at = model.generated_variance(tau[found], sampler=sampler)[np.arange(len(found)), found]
    if criterion == "geometric":
        np.testing.assert_allclose(at, np.sqrt(start * end)[found], rtol=1e-8)
    elif criterion == 0.8:
        np.testing.assert_allclose(at, np.where(end > start, 0.8 * end, end / 0.8)[found], rtol=1e-8)
    else:
        np.testing.assert_allclose(np.abs(at / end[found] - 1), 0.2, rtol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", BIASES)
def test_the_loss_is_that_of_the_trained_parameters(kind, bias):
    model, problem = pair((3, 4), 1, bias, kind)
    expected = [problem.loss(t, 0.5, kind) for t in (0.0, 30.0)]
    np.testing.assert_allclose(model.loss([0.0, 30.0], 0.5), expected, rtol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", ["shared", "per_pixel"])
def test_discrete_descent_is_followed_step_by_step(kind, bias):
    model, problem = pair((5,), 2, bias, kind, rate=0.01, discrete=True)
    weight, offset = problem.trained(9, 0.5, kind, train_by_steps)
    np.testing.assert_allclose(dense(model.kernel(9, 0.5), (5,)), weight, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.repeat(model.bias(9, 0.5), 5), offset, rtol=1e-9, atol=1e-12)


def test_unstable_descent_is_refused_where_it_does_diverge():
    covariance = random_moments(1, 8)[1]
    edge = LocalConvolution(RATE, 3).bind(None, covariance).stable_learning_rate(1.0)
    stable = LocalConvolution(0.99 * edge, 3, GAIN, discrete=True).bind(None, covariance)
    assert np.isfinite(stable.kernel(1000, 1.0)).all()
    model = LocalConvolution(1.01 * edge, 3, GAIN, discrete=True).bind(None, covariance)
    with pytest.raises(ValueError, match="`learning_rate` must be below"):
        model.kernel(1000, 1.0)
    problem = convolution_problem((8,), 1, 3, None, np.zeros(8), covariance, 1.01 * edge, GAIN)
    assert np.abs(problem.trained(2000, 1.0, "none", train_by_steps)[0]).max() > 1e6


def test_an_arbitrary_kernel_may_be_the_start():
    kernel = np.random.default_rng(4).normal(size=(2, 2, 3))
    mean, covariance = random_moments(0, 10)
    model = LocalConvolution(RATE, 3, kernel).bind(mean, covariance, (5,), 2)
    problem = convolution_problem((5,), 2, 3, None, mean, covariance, RATE)
    problem.start = kernel.ravel()
    np.testing.assert_allclose(model.kernel(0.0, 0.5), kernel, rtol=1e-12)
    np.testing.assert_allclose(dense(model.kernel(9.0, 0.5), (5,)), problem.trained(9.0, 0.5)[0], rtol=1e-8, atol=1e-11)
    with pytest.raises(ValueError, match="`init` must be a number or a finite kernel of shape"):
        LocalConvolution(RATE, 5, kernel).bind(mean, covariance, (5,), 2)


@pytest.mark.parametrize(("size", "channels"), FIELDS)
def test_both_ways_of_binding_give_the_same(size, channels):
    mean, covariance = random_moments(5, channels * int(np.prod(size)))
    family = LocalConvolution(RATE, 3, GAIN, "shared")
    first = family.bind(mean, covariance, size, channels)
    n = int(np.prod(size))
    unitary = np.fft.fftn(np.eye(n).reshape(n, *size), axes=tuple(range(1, 1 + len(size)))).reshape(n, n) / np.sqrt(n)
    spectrum = np.einsum("kx,cxdy,ky->kcd", unitary, covariance.reshape(channels, n, channels, n), unitary.conj())
    second = family.bind_spectrum(spectrum.reshape(*size, channels, channels), mean)
    np.testing.assert_allclose(first.kernel(30.0, 0.5), second.kernel(30.0, 0.5), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(first.generated_variance(30.0), second.generated_variance(30.0), rtol=1e-9)


def test_binding_again_forgets_the_first_data():
    first = LocalConvolution(RATE, 3).bind(None, np.eye(8))
    assert first.generated_variance(1.0).shape == (8,)
    second = first.bind(None, circulant(power_law_spectrum(16)))
    assert second.generated_variance(1.0).shape == (16,)
    np.testing.assert_allclose(first.variance, np.ones(8))


def test_limits_are_exact_and_silent():
    covariance = circulant(np.array([1e2, 1.0, 0.0, 1e-12, 1e-12, 1e-12, 0.0, 1.0]))
    model = LocalConvolution(RATE, 3, 0.3).bind(None, covariance)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weight = model.weight([0.0, 1e-12, 1.0, 1e12, np.inf], [0.0, 1e-12, 1.0, 1e12])
        variance = model.generated_variance([0.0, 1e-12, 1e12, np.inf])
        null = LocalConvolution(RATE, 3, 0.3).bind(None, np.zeros((8, 8))).weight([0.0, np.inf], [0.0, 1.0])
    assert np.isfinite(weight).all()
    np.testing.assert_allclose(weight[0], 0.3, rtol=1e-12)
    np.testing.assert_allclose(variance[0], 6400 * (0.002 / 80) ** 1.4, rtol=1e-11)
    np.testing.assert_allclose(variance[1], variance[0], rtol=1e-6)
    assert (variance[-1] > 0).all()
    np.testing.assert_allclose(null[:, 0], 0.3, rtol=1e-12)  # without noise and data nothing moves
    np.testing.assert_allclose(null[1, 1], 0.0, atol=1e-15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 0}, "`kernel_size` must be a positive integer"),
        ({"kernel_size": 4}, "`kernel_size` must be odd, got 4"),
        ({"kernel_size": 3.0}, "`kernel_size` must be a positive integer"),
        ({"kernel_size": 3, "bias": "each"}, "`bias` must be one of"),
        ({"kernel_size": 3, "init": np.inf}, "`init` must be a finite number"),
    ],
)
def test_constructor_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        LocalConvolution(RATE, **arguments)


@pytest.mark.parametrize(
    ("bias", "arguments", "message"),
    [
        (None, (None, np.eye(4)), "`kernel_size` must be at most 4"),
        (None, (None, np.eye(21), (3, 7)), "`kernel_size` must be at most 3"),
        (None, (None, np.eye(8), (3, 3)), "`size` must be"),
        (None, (None, np.triu(np.ones((8, 8)))), "`covariance` must be symmetric"),
        ("per_pixel", (np.arange(8.0), np.eye(8)), "`mean` must be the same at all pixels"),
    ],
)
def test_bind_refuses(bias, arguments, message):
    with pytest.raises(ValueError, match=message):
        LocalConvolution(RATE, 5, bias=bias).bind(*arguments)


def test_gains_per_mode_cannot_replace_a_local_kernel():
    sampler = Sampler(num_steps=4)
    model = LocalConvolution(RATE, 3).bind(None, np.eye(8))
    with pytest.raises(ValueError, match="`initial_gain` must be left out"):
        model.generated_variance(1.0, None, sampler, np.zeros((len(sampler.levels), 8)))
    with pytest.raises(ValueError, match="`initial_gain` must be left out"):
        model.weight(1.0, 1.0, None, np.zeros(8))
    with pytest.raises(ValueError, match="must be bound to data"):
        LocalConvolution(RATE, 3).kernel(1.0, 1.0)
