"""What each convolution alone promises: full width learns N times as fast; a patch learns long waves together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm

from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import (
    FullWidthConvolution,
    GaussianData,
    GaussianField,
    LocalConvolution,
    Objective,
    OneLayer,
    Preconditioning,
)
from tests.support.affine_oracle import circulant, convolution_problem, power_law_spectrum, random_moments

RATE, GAIN = 1e-3, 0.2
OBJECTIVE = Objective(RATE)
KINDS = {"none": OBJECTIVE, "edm": Objective(RATE, Preconditioning("edm", 0.7))}


def patch_moments(covariance: np.ndarray, width: int) -> np.ndarray:
    """Mean over positions of the covariance of circular patches."""
    n = len(covariance)
    windows = [(x + np.arange(width) - width // 2) % n for x in range(n)]
    return np.mean([covariance[np.ix_(window, window)] for window in windows], axis=0)


@pytest.mark.parametrize("width", [1, 3, 5, 7])
@pytest.mark.parametrize("sigma", [0.002, 0.4, 80.0])
def test_the_kernel_is_that_of_the_proposition(width, sigma):
    """``w = w* + expm(-2 N eta tau (sigma^2 I + S)) (w(0) - w*)``, with S from patches cut out one by one."""
    covariance = random_moments(1, 8)[1]
    model = LocalConvolution(OBJECTIVE, width, GAIN).on(GaussianData(covariance))
    centre = np.eye(width)[width // 2]
    patch = patch_moments(covariance, width)
    gram = sigma**2 * np.eye(width) + patch
    optimum = np.linalg.solve(gram, patch @ centre)
    for time in (0.0, 3.0, 200.0):
        expected = optimum + expm(-2 * 8 * RATE * time * gram) @ (GAIN * centre - optimum)
        np.testing.assert_allclose(model.kernel(time, sigma)[0, 0], expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.kernel(np.inf, sigma)[0, 0], optimum, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_transfer_and_gain_are_those_of_the_dense_matrix(kind):
    """From a kernel that is not mirror-symmetric, so that the transfer function is complex."""
    mean, covariance = random_moments(0, 12)
    start = np.random.default_rng(4).normal(size=(1, 1, 3, 3))
    model = LocalConvolution(KINDS[kind], 3, start).on(GaussianData(covariance, mean, (3, 4)))
    problem = convolution_problem((3, 4), 1, 3, None, mean, covariance, RATE)
    problem.start = start.ravel()
    weight = problem.trained(40.0, 0.5, kind)[0].reshape(3, 4, 3, 4)
    expected = np.einsum("hwhw->hw", np.fft.ifftn(np.fft.fftn(weight, axes=(0, 1)), axes=(2, 3)))
    assert np.abs(expected.imag).max() > 0.05
    np.testing.assert_allclose(model.transfer(40.0, 0.5)[..., 0, 0], expected, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(model.weight(40.0, 0.5), expected.real.ravel(), rtol=1e-8, atol=1e-11)
    for sampler in (None, Sampler(num_steps=6)):  # the quadrature of a single channel, and propagated matrices
        found, other = model.generated_variance(40.0, sampler), model.generated_spectrum(40.0, sampler).ravel()
        np.testing.assert_allclose(found, other, rtol=1e-9)


def test_its_limit_is_not_the_spectrum_of_the_data():
    spectrum = power_law_spectrum(16)
    model = LocalConvolution(OBJECTIVE, 3).on(GaussianData(circulant(spectrum)))
    limit = model.generated_variance(np.inf)
    assert np.abs(np.log(limit / spectrum)).max() > np.log(1.5)
    full = FullWidthConvolution(OBJECTIVE).on(GaussianData(circulant(spectrum)))
    np.testing.assert_allclose(full.generated_variance(np.inf), spectrum, rtol=0.01)


@pytest.mark.parametrize("pixels", [16, 64, 256])
@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_modes_emerge_nearly_together(pixels, exponent):
    """Modes of 8 pixels and longer emerge within 30 % under a kernel of 3, and spread as their variances at full width.

    Over all modes, down to 2 pixels, a local kernel spreads them as the eigenvalues of its patch covariance are.
    """
    spectrum = power_law_spectrum(pixels, exponent)
    covariance = circulant(spectrum)
    data = GaussianData(covariance)
    local = LocalConvolution(OBJECTIVE, 3).on(data).emergence_time()
    full = FullWidthConvolution(OBJECTIVE).on(data).emergence_time()

    def spread(tau: np.ndarray, shortest: int) -> float:
        chosen = tau[1 : pixels // shortest + 1]
        return chosen.max() / chosen.min()

    condition = np.linalg.cond(patch_moments(covariance, 3))
    assert spread(local, 8) < 1.3
    assert spread(full, 8) > 0.9 * (pixels / 8) ** exponent
    assert condition < spread(local, 2) < 2 * condition
    assert spread(local, 2) < spread(full, 2)


def test_an_arbitrary_kernel_may_be_the_start():
    kernel = np.random.default_rng(4).normal(size=(2, 2, 3))
    mean, covariance = random_moments(0, 10)
    model = LocalConvolution(OBJECTIVE, 3, kernel).on(GaussianData(covariance, mean, (5,), 2))
    problem = convolution_problem((5,), 2, 3, None, mean, covariance, RATE)
    problem.start = kernel.ravel()
    np.testing.assert_allclose(model.kernel(0.0, 0.5), kernel, rtol=1e-12)
    trained = problem.trained(9.0, 0.5)[0].reshape(2, 5, 2, 5)[:, 1, :, :3]  # the row of the second pixel
    np.testing.assert_allclose(model.kernel(9.0, 0.5), trained, rtol=1e-8, atol=1e-11)
    with pytest.raises(ValueError, match="`init`"):
        LocalConvolution(OBJECTIVE, 5, kernel).on(GaussianData(covariance, mean, (5,), 2))


@pytest.mark.parametrize("size", [0, 4, 3.0])
def test_a_kernel_has_a_centre(size):
    with pytest.raises(ValueError, match="`kernel_size`"):
        LocalConvolution(OBJECTIVE, size)


@pytest.mark.parametrize(
    ("bias", "data", "name"),
    [
        (None, GaussianData(np.eye(4)), "kernel_size"),
        (None, GaussianData(np.eye(21), None, (3, 7)), "kernel_size"),
        ("per_pixel", GaussianData(np.eye(8), np.arange(8.0)), "mean"),
    ],
)
def test_images_that_do_not_fit_are_refused(bias, data, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        LocalConvolution(OBJECTIVE, 5, bias=bias).on(data)


def test_gains_per_mode_cannot_replace_a_local_kernel():
    model, sampler = LocalConvolution(OBJECTIVE, 3).on(GaussianData(np.eye(8))), Sampler(num_steps=4)
    assert not model.family.takes_gain
    with pytest.raises(ValueError, match="`initial_gain`"):
        model.generated_variance(1.0, sampler, np.zeros((len(sampler.levels), 8)))


FIELD = GaussianData(circulant(power_law_spectrum(8)))


@pytest.mark.parametrize("pixels", [8, 16])
def test_sharing_weights_speeds_learning_up_by_the_number_of_pixels(pixels):
    spectrum = power_law_spectrum(pixels)
    model = FullWidthConvolution(OBJECTIVE).on(GaussianData(circulant(spectrum)))
    layer = OneLayer(OBJECTIVE).on(model.variance)
    np.testing.assert_allclose(model.variance, spectrum, rtol=1e-12)
    np.testing.assert_allclose(model.emergence_time() * pixels, layer.emergence_time(), rtol=1e-10)
    np.testing.assert_allclose(model.weight(7.0, 0.5), layer.weight(7.0 * pixels, 0.5), rtol=1e-11)
    np.testing.assert_allclose(model.stable_learning_rate(0.5) * pixels, layer.stable_learning_rate(0.5))
    ours, theirs = model.exponent()["rising"], layer.exponent()["rising"]
    assert ours.exponent == pytest.approx(theirs.exponent, rel=1e-8)
    assert ours.prefactor * pixels == pytest.approx(theirs.prefactor, rel=1e-8)


@pytest.mark.parametrize("density", [None, lambda s: 0.5 + 0 * s])
def test_discrete_generation_is_that_of_the_discrete_weights(density):
    sampler = Sampler(num_steps=6, sigma_max=3.0)
    model = FullWidthConvolution(Objective(0.002, noise_density=density, discrete=True), 0.2).on(FIELD)
    slow = sampler(lambda z, sigma: model.weight(50, sigma) * z, np.full(8, 3.0))
    np.testing.assert_allclose(model.generated_variance(50, sampler), slow**2, rtol=1e-11)


def test_frequencies_and_variances_share_their_order():
    spectrum = np.arange(12.0).reshape(3, 4)
    spectrum = spectrum + np.roll(np.flip(spectrum), 1, (0, 1))
    model = FullWidthConvolution(OBJECTIVE).on(GaussianField(spectrum[..., None, None]))
    np.testing.assert_allclose(model.variance, [spectrum[tuple(k)] for k in model.frequencies])
    assert model.frequencies.shape == (12, 2)


@pytest.mark.parametrize("time", [0.0, 50.0, 1e4])
def test_the_divergence_over_all_modes_is_that_of_the_dense_gaussians(time):
    """Of a stationary field, on which the generated Gaussian is compared with the data's as vectors of pixels."""
    covariance, mean = FIELD.covariance, np.full(8, 1.5)
    model = FullWidthConvolution(OBJECTIVE, 0.2, "shared", 0.3).on(GaussianData(covariance, mean))
    generated = circulant(model.generated_variance(time))
    inverse = np.linalg.inv(covariance)
    ratio, off = inverse @ generated, model.generated_mean(time)[0] - mean
    expected = (np.trace(ratio) - 8 - np.linalg.slogdet(ratio)[1] + off @ inverse @ off) / 2
    np.testing.assert_allclose(model.kl_divergence(time).sum(), expected, rtol=1e-9)
    np.testing.assert_allclose(model.joint_kl_divergence(time), expected, rtol=1e-9)
