"""What the full-width convolution alone promises: one layer per frequency, N times as fast, and means."""

from __future__ import annotations

import numpy as np
import pytest

from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import FullWidthConvolution, GaussianData, GaussianField, Objective, OneLayer
from tests.support.affine_oracle import circulant, power_law_spectrum, random_moments

RATE = 1e-3
OBJECTIVE = Objective(RATE)
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


@pytest.mark.parametrize(("bias", "speed"), [("shared", 8.0), ("per_pixel", 1.0)])
def test_a_bias_relaxes_at_its_own_rate(bias, speed):
    model = FullWidthConvolution(OBJECTIVE, 0.0, bias, 0.3).on(GaussianData(np.eye(8)))
    np.testing.assert_allclose(model.bias(50.0, 1.0), np.full((1, 8), 0.3 * np.exp(-2 * RATE * speed * 50.0)))


def test_without_a_bias_a_mean_is_learnt_as_second_moment():
    model = FullWidthConvolution(OBJECTIVE).on(GaussianData(FIELD.covariance, [1.5]))
    expected = power_law_spectrum(8)
    expected[0] += 8 * 1.5**2
    np.testing.assert_allclose(model.variance, expected, rtol=1e-12)
    limit = 6400 * (expected + 4e-6) / (expected + 6400)
    np.testing.assert_allclose(model.generated_variance(np.inf), limit, rtol=1e-10)


def test_with_a_bias_the_mean_is_generated_and_the_spectrum_is_the_data_s():
    mean, covariance = random_moments(0, 12)
    model = FullWidthConvolution(OBJECTIVE, 0.2, "per_pixel").on(GaussianData(covariance, mean, (2, 3), 2))
    lam = model.variance
    np.testing.assert_allclose(model.generated_variance(np.inf), 6400 * (lam + 4e-6) / (lam + 6400), rtol=1e-9)
    # atol: what is left of sigma_max = 80, a share sqrt(lambda) / 80 of the mean along each mode.
    np.testing.assert_allclose(model.generated_mean(np.inf), mean.reshape(2, 2, 3), atol=0.1)


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
