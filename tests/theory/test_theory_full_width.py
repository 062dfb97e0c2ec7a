"""The full-width convolution, against its trained kernels written into dense matrices and integrated flows."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from spectral_lightning.emergence import StaysWithin
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import FullWidthConvolution, OneLayer, Preconditioning
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
FIELDS = [((8,), 1), ((5,), 2), ((3, 4), 1), ((2, 3), 2)]
BIASES = [None, "shared", "per_pixel"]


def pair(size, channels, bias, kind="none", centred=False, rate=RATE, **options):
    """The theory and the brute-force problem on the same data."""
    mean, covariance = random_moments(0, channels * int(np.prod(size)))
    mean = mean * (not centred)
    start = 0.0 if bias is None else 0.3
    model = FullWidthConvolution(rate, GAIN, bias, start, KINDS[kind], **options).bind(mean, covariance, size, channels)
    return model, convolution_problem(size, channels, None, bias, mean, covariance, rate, GAIN, start)


def dense(kernel: np.ndarray) -> np.ndarray:
    """The matrix of a kernel ``[C, C, *size]``."""
    channels, size = kernel.shape[0], kernel.shape[2:]
    rows = [
        np.roll(kernel[o], place, axis=tuple(range(1, 1 + len(size)))).ravel()
        for o in range(channels)
        for place in np.ndindex(*size)
    ]
    return np.stack(rows)


@pytest.mark.parametrize(("size", "channels"), FIELDS)
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("route", [train_by_ode, train_by_expm])
def test_kernel_and_bias_lie_on_the_trained_parameters(size, channels, bias, kind, route):
    model, problem = pair(size, channels, bias, kind)
    weight, offset = problem.trained(40.0, 0.5, kind, route)
    # rtol/atol: the ODE solver's own 1e-11.
    np.testing.assert_allclose(dense(model.kernel(40.0, 0.5)), weight, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(model.bias(40.0, 0.5).ravel(), offset, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("sigma", [0.002, 0.1, 3.0, 80.0])
def test_kernel_at_other_noise_levels(sigma):
    model, problem = pair((5,), 2, "shared")
    np.testing.assert_allclose(dense(model.kernel(10.0, sigma)), problem.trained(10.0, sigma)[0], rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("time", [0.0, 20.0, 500.0])
def test_the_generated_distribution_lies_on_the_integrated_flow(bias, kind, time):
    """Two channels and a mean that varies: nothing commutes, and the dense flow knows of no frequencies."""
    model, problem = pair((4,), 2, bias, kind)
    mean, covariance = problem.generated(time, kind)
    wave = np.exp(-2j * np.pi * np.outer(np.arange(4), np.arange(4)) / 4) / 2
    folded = np.einsum("kx,cxdy,ky->kcd", wave, covariance.reshape(2, 4, 2, 4), wave.conj())
    # rtol: DOP853 at 1e-10 over 10 e-folds.
    np.testing.assert_allclose(model.generated_mean(time).ravel(), mean, rtol=2e-8, atol=1e-9)
    np.testing.assert_allclose(model.generated_spectrum(time), folded, rtol=2e-8, atol=1e-9)
    along = np.einsum("kcm,kcd,kdm->km", model.blocks.modes.conj(), folded, model.blocks.modes).real
    np.testing.assert_allclose(model.generated_variance(time), along.ravel(), rtol=2e-8)


@pytest.mark.parametrize("bias", BIASES)
def test_the_given_sampler_is_followed_step_by_step(bias):
    sampler = Sampler(num_steps=6)
    model, problem = pair((2, 3), 1, bias)
    mean, covariance = problem.sampled(30.0, sampler.sigmas)
    spectrum = np.fft.fftn(covariance.reshape(6, 2, 3)[0])  # generated fields are stationary
    np.testing.assert_allclose(model.generated_mean(30.0, sampler).ravel(), mean, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(model.generated_spectrum(30.0, sampler)[..., 0, 0], spectrum, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(
        model.generated_variance(30.0, sampler=sampler), spectrum.real.ravel(), rtol=1e-8, atol=1e-10
    )


@pytest.mark.parametrize("pixels", [8, 16])
def test_sharing_weights_speeds_learning_up_by_the_number_of_pixels(pixels):
    spectrum = power_law_spectrum(pixels)
    model = FullWidthConvolution(RATE).bind(None, circulant(spectrum))
    layer = OneLayer(RATE)
    lam = model.variance
    np.testing.assert_allclose(lam, spectrum, rtol=1e-12)
    np.testing.assert_allclose(model.emergence_time() * pixels, layer.emergence_time(lam), rtol=1e-10)
    np.testing.assert_allclose(model.weight(7.0, 0.5), layer.weight(7.0 * pixels, 0.5, lam), rtol=1e-11)
    np.testing.assert_allclose(model.stable_learning_rate(0.5) * pixels, layer.stable_learning_rate(0.5, lam))


def test_the_speed_up_holds_between_trained_networks():
    """A dense layer trained N times as long ends at the matrix of the trained kernel, on stationary data."""
    covariance = circulant(power_law_spectrum(8))
    kernel = convolution_problem((8,), 1, None, None, np.zeros(8), covariance, RATE).trained(5.0, 0.5)[0]
    gram = covariance + 0.25 * np.eye(8)
    optimum = np.linalg.solve(gram, covariance)
    values, vectors = np.linalg.eigh(gram)
    layer = optimum - optimum @ (vectors * np.exp(-2 * RATE * 8 * 5.0 * values)) @ vectors.T
    np.testing.assert_allclose(kernel, layer, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("bias", "speed"), [("shared", 8.0), ("per_pixel", 1.0)])
def test_a_bias_relaxes_at_its_own_rate(bias, speed):
    model = FullWidthConvolution(RATE, 0.0, bias, 0.3).bind(None, np.eye(8))
    np.testing.assert_allclose(model.bias(50.0, 1.0), np.full((1, 8), 0.3 * np.exp(-2 * RATE * speed * 50.0)))


def test_transfer_is_the_fourier_transform_of_the_dense_matrix():
    model, problem = pair((3, 4), 1, None)
    weight = problem.trained(40.0, 0.5)[0].reshape(3, 4, 3, 4)
    both = np.fft.ifftn(np.fft.fftn(weight, axes=(0, 1)), axes=(2, 3))
    expected = np.einsum("hwhw->hw", both)
    np.testing.assert_allclose(model.transfer(40.0, 0.5)[..., 0, 0], expected, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(model.weight(40.0, 0.5), expected.real.ravel(), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(("size", "channels"), FIELDS)
def test_both_ways_of_binding_give_the_same(size, channels):
    mean, covariance = random_moments(5, channels * int(np.prod(size)))
    n, dims = int(np.prod(size)), len(size)
    places = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1).reshape(n, dims)
    wave = np.exp(-2j * np.pi * (places / size) @ places.T) / np.sqrt(n)
    spectrum = np.einsum("kx,cxdy,ky->kcd", wave, covariance.reshape(channels, n, channels, n), wave.conj())
    family = FullWidthConvolution(RATE, GAIN, "per_pixel")
    first = family.bind(mean, covariance, size, channels)
    second = family.bind_spectrum(spectrum.reshape(*size, channels, channels), mean)
    np.testing.assert_allclose(first.variance, second.variance, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(first.kernel(30.0, 0.5), second.kernel(30.0, 0.5), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(first.bias(30.0, 0.5), second.bias(30.0, 0.5), rtol=1e-9, atol=1e-12)


def test_without_a_bias_a_mean_is_learnt_as_second_moment():
    covariance = circulant(power_law_spectrum(8))
    model = FullWidthConvolution(RATE).bind([1.5], covariance)
    expected = power_law_spectrum(8)
    expected[0] += 8 * 1.5**2
    np.testing.assert_allclose(model.variance, expected, rtol=1e-12)
    limit = 6400 * (expected + 4e-6) / (expected + 6400)
    np.testing.assert_allclose(model.generated_variance(np.inf), limit, rtol=1e-10)


def test_with_a_bias_the_mean_is_generated_and_the_spectrum_is_the_data_s():
    model, _ = pair((2, 3), 2, "per_pixel")
    lam = model.variance
    np.testing.assert_allclose(model.generated_variance(np.inf), 6400 * (lam + 4e-6) / (lam + 6400), rtol=1e-9)
    # atol: what is left of sigma_max = 80, a share sqrt(lambda) / 80 of the mean along each mode.
    mean = random_moments(0, 12)[0].reshape(2, 2, 3)
    np.testing.assert_allclose(model.generated_mean(np.inf), mean, atol=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_discrete_descent_is_followed_step_by_step(kind):
    model, problem = pair((5,), 2, "shared", kind, rate=0.01, discrete=True)
    weight, offset = problem.trained(9, 0.5, kind, train_by_steps)
    np.testing.assert_allclose(dense(model.kernel(9, 0.5)), weight, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.bias(9, 0.5).ravel(), offset, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("density", [None, lambda s: 0.5 + 0 * s])
def test_discrete_generation_is_that_of_the_discrete_weights(density):
    sampler = Sampler(num_steps=6, sigma_max=3.0)
    model = FullWidthConvolution(0.002, GAIN, noise_density=density, discrete=True)
    model = model.bind(None, circulant(power_law_spectrum(8)))
    slow = sampler(lambda z, sigma: model.weight(50, sigma) * z, np.full(8, 3.0))
    np.testing.assert_allclose(model.generated_variance(50, sampler=sampler), slow**2, rtol=1e-11)


@pytest.mark.parametrize("centred", [True, False])
def test_unstable_descent_names_the_learning_rate_that_was_given(centred):
    model = FullWidthConvolution(0.03, bias="shared", discrete=True).bind([0.0 if centred else 2.0], np.eye(8))
    with pytest.raises(ValueError, match=r"`learning_rate` must be below .* got 0\.03"):
        model.weight(10, 2.0)
    with pytest.raises(ValueError, match=r"`learning_rate` must be below .* got 0\.03"):
        model.generated_variance(10)
    stable = FullWidthConvolution(0.99 * model.stable_learning_rate(2.0), discrete=True).bind(None, np.eye(8))
    assert np.isfinite(stable.weight(1000, 2.0)).all()


@pytest.mark.parametrize("criterion", ["geometric", "harmonic", StaysWithin(0.2)])
def test_emergence_of_coupled_and_uncoupled_modes_is_where_the_threshold_is(criterion):
    """With a constant mean only frequency 0 couples to the bias; the others emerge as without a mean."""
    covariance = circulant(power_law_spectrum(8))
    coupled = FullWidthConvolution(RATE, 0.1, "shared").bind([2.0], covariance)
    plain = FullWidthConvolution(RATE, 0.1).bind(None, covariance)
    first, second = coupled.emergence_time(criterion=criterion), plain.emergence_time(criterion=criterion)
    np.testing.assert_allclose(first[1:], second[1:], rtol=1e-8)
    assert first[0] != pytest.approx(second[0], rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("bias", "centred"), [(None, False), ("per_pixel", False), ("shared", False), (None, True)])
def test_the_loss_is_that_of_the_trained_parameters(kind, bias, centred):
    model, problem = pair((3, 4), 1, bias, kind, centred)
    expected = [problem.loss(t, 0.5, kind) for t in (0.0, 30.0)]
    np.testing.assert_allclose(model.loss([0.0, 30.0], 0.5), expected, rtol=1e-8)


@pytest.mark.parametrize("bias", BIASES)
def test_limits_are_exact_and_silent(bias):
    covariance = circulant(np.array([1e2, 1.0, 0.0, 1e-12, 1e-12, 1e-12, 0.0, 1.0]))
    model = FullWidthConvolution(RATE, 0.3, bias).bind(None, covariance)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weight = model.weight([0.0, 1e-12, 1.0, 1e12, np.inf], [0.0, 1e-12, 1.0, 1e12])
        variance = model.generated_variance([0.0, 1e-12, 1e12, np.inf])
    assert np.isfinite(weight).all()
    np.testing.assert_allclose(weight[0], 0.3, rtol=1e-12)
    np.testing.assert_allclose(weight[-1, 2], model.variance / (model.variance + 1), atol=1e-12)
    np.testing.assert_allclose(variance[0], 6400 * (0.002 / 80) ** 1.4, rtol=1e-12)
    np.testing.assert_allclose(variance[-1], 6400 * (model.variance + 4e-6) / (model.variance + 6400), rtol=1e-10)


def test_frequencies_and_variances_share_their_order():
    spectrum = np.arange(12.0).reshape(3, 4)
    spectrum = spectrum + np.roll(np.flip(spectrum), 1, (0, 1))
    model = FullWidthConvolution(RATE).bind_spectrum(spectrum[..., None, None])
    for frequency, variance in zip(model.frequencies, model.variance, strict=True):
        assert variance == pytest.approx(spectrum[tuple(frequency)])
    assert model.frequencies.shape == (12, 2)


@pytest.mark.parametrize("time", [0.0, 50.0, 1e4])
def test_the_divergence_over_all_modes_is_that_of_the_dense_gaussians(time):
    """Of a stationary field, on which the generated Gaussian is compared with the data's as vectors of pixels."""
    covariance, mean = circulant(power_law_spectrum(8)), np.full(8, 1.5)
    model = FullWidthConvolution(RATE, GAIN, "shared", 0.3).bind(mean, covariance)
    generated = circulant(model.generated_variance(time))
    inverse = np.linalg.inv(covariance)
    ratio, off = inverse @ generated, model.generated_mean(time)[0] - mean
    expected = (np.trace(ratio) - 8 - np.linalg.slogdet(ratio)[1] + off @ inverse @ off) / 2
    np.testing.assert_allclose(model.kl_divergence(time).sum(), expected, rtol=1e-9)
    np.testing.assert_allclose(model.joint_kl_divergence(time), expected, rtol=1e-9)


def test_the_exponent_is_that_of_one_layer():
    spectrum = power_law_spectrum(32)
    model = FullWidthConvolution(RATE).bind(None, circulant(spectrum))
    ours, theirs = model.exponent()["rising"], OneLayer(RATE).exponent(spectrum)["rising"]
    assert ours.exponent == pytest.approx(theirs.exponent, rel=1e-8)
    assert ours.prefactor * 32 == pytest.approx(theirs.prefactor, rel=1e-8)


def test_measured_initial_gains_replace_the_start():
    sampler = Sampler(num_steps=6)
    covariance = random_moments(0, 10)[1]
    plain = FullWidthConvolution(RATE, 0.3).bind(None, covariance, (5,), 2)
    other = FullWidthConvolution(RATE).bind(None, covariance, (5,), 2)
    gain = np.full((len(sampler.levels), 10), 0.3)
    np.testing.assert_allclose(
        other.generated_variance([0.0, 9.0], None, sampler, gain),
        plain.generated_variance([0.0, 9.0], None, sampler),
        rtol=1e-12,
    )
    np.testing.assert_allclose(other.weight(9.0, 1.0, None, gain[0]), plain.weight(9.0, 1.0), rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init": np.nan}, "`init` must be a finite number"),
        ({"bias": "each"}, "`bias` must be one of None, 'shared', 'per_pixel'"),
        ({"init_bias": 0.1}, "`init_bias` must be 0 without a bias"),
        ({"sigma_max": 0.001}, "`sigma_min` must be below"),
    ],
)
def test_constructor_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        FullWidthConvolution(RATE, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, np.eye(8), (3, 3)), "`size` must be"),
        ((None, np.eye(8), (2, 2, 2)), "`size` must be"),
        ((None, np.eye(8), (8,), 0), "`channels` must be a positive integer"),
        ((None, np.ones((8, 7))), "`covariance` must be a square matrix"),
        ((None, np.triu(np.ones((4, 4)))), "`covariance` must be symmetric"),
        ((None, -np.eye(4)), "`covariance` must be positive semidefinite"),
        ((np.zeros(3), np.eye(8)), "`mean` must be finite with shape"),
        (([np.nan], np.eye(8)), "`mean` must be finite"),
    ],
)
def test_bind_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        FullWidthConvolution(RATE).bind(*arguments)


@pytest.mark.parametrize(
    ("spectrum", "message"),
    [
        (np.ones(8), "`spectrum` must be square"),
        (np.eye(2), "`spectrum` must have shape"),
        (np.arange(8.0)[:, None, None], "`spectrum` must be that of a real field"),
        (-np.ones((8, 1, 1)), "`spectrum` must be positive semidefinite"),
        (np.tile([[1.0, 1j], [1j, 1.0]], (4, 1, 1)), "`spectrum` must be symmetric"),
    ],
)
def test_bind_spectrum_refuses(spectrum, message):
    with pytest.raises(ValueError, match=message):
        FullWidthConvolution(RATE).bind_spectrum(spectrum)


def test_unbound_is_refused():
    with pytest.raises(ValueError, match="`FullWidthConvolution` must be bound to data"):
        FullWidthConvolution(RATE).kernel(1.0, 1.0)
    with pytest.raises(ValueError, match="must be bound to data"):
        FullWidthConvolution(RATE).frequencies  # noqa: B018
