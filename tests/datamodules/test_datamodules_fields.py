"""Stationary Gaussian fields: spectrum, channels and moments, by NumPy and the definition."""

import numpy as np
import pytest
import torch

from spectral_lightning.datamodules import GaussianFieldDataModule
from spectral_lightning.datamodules.synthetic.fields import real_fourier

SIZES = [[1], [7], [8], [4, 6], [5, 3], [6, 6]]
CHANNELS = [[2.0, 0.5, 0.0], [0.5, 1.0, -0.3], [0.0, -0.3, 0.7]]


def field(size=(8,), **arguments):
    return GaussianFieldDataModule(
        list(size), **{"num_samples": 400, "num_val_samples": 20, "batch_size": 8, **arguments}
    )


def naive_spectrum(size, exponent, cutoff, scale):
    """The law written out frequency by frequency."""
    law = np.zeros(size)
    for index in np.ndindex(*size):
        cycles = [min(k, n - k) * max(size) / n for k, n in zip(index, size, strict=True)]
        law[index] = (sum(k**2 for k in cycles) + cutoff**2) ** (-exponent / 2)
    return scale * law / law.mean()


def brute_covariance(spectrum, channels):
    """Covariance from the definition: complex exponentials at every frequency, ``[C N, C N]``."""
    size, pixels = spectrum.shape, spectrum.size
    where = np.array(list(np.ndindex(*size)))
    waves = np.exp(2j * np.pi * where @ (where / size).T) / np.sqrt(pixels)
    return np.kron(channels, ((waves * spectrum.ravel()) @ waves.conj().T).real)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 64])
def test_real_fourier_vectors(size):
    vectors, frequency = (t.numpy() for t in real_fourier(size))
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(size), rtol=0, atol=1e-14)
    power = np.abs(np.fft.fft(vectors, axis=0, norm="ortho")) ** 2  # [frequency, vector]
    cycles = np.abs(np.fft.fftfreq(size, 1 / size))
    np.testing.assert_allclose(power[cycles[:, None] != frequency[None]], 0, rtol=0, atol=1e-28)
    assert sorted(frequency) == sorted(cycles)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("exponent", "cutoff", "scale"), [(0.0, 1.0, 2.0), (2.0, 1.0, 1.0), (3.5, 0.1, 0.5)])
def test_spectrum_and_covariance_are_those_of_the_formula(size, exponent, cutoff, scale):
    data = field(size, exponent=exponent, cutoff=cutoff, scale=scale, channels=3, channel_covariance=CHANNELS)
    expected = naive_spectrum(tuple(size), exponent, cutoff, scale)
    np.testing.assert_allclose(data.spectrum, expected, rtol=1e-13)
    _, covariance = data.population_moments()
    np.testing.assert_allclose(covariance, brute_covariance(expected, CHANNELS), rtol=0, atol=1e-13 * expected.max())
    # a pixel has the mean of the spectrum as variance, times that of its channel
    np.testing.assert_allclose(covariance.diagonal(), np.repeat(np.diag(CHANNELS), np.prod(size)) * scale, rtol=1e-12)


def test_population_modes_are_eigenvectors_in_descending_order():
    data = field([6, 4], channels=3, channel_covariance=CHANNELS)
    population = data.population
    np.testing.assert_allclose(population.modes.T @ population.modes, np.eye(72), rtol=0, atol=1e-13)
    np.testing.assert_allclose(
        np.linalg.eigvalsh(data.population.covariance)[::-1],
        population.variance,
        rtol=0,
        atol=1e-13 * float(population.variance[0]),
    )
    assert (np.diff(population.variance) <= 0).all()


def test_samples_follow_mean_and_channel_covariance():
    data = field([4], channels=3, channel_covariance=CHANNELS, mean=[1.0, 2.0, 3.0], num_samples=100_000)
    x = data.train_rows.data.double().numpy()
    mean, covariance = data.population_moments()
    error = 5 * float(covariance.diagonal().max()) * (2 / 100_000) ** 0.5  # five standard errors at most
    np.testing.assert_allclose(np.cov(x.reshape(len(x), -1).T, bias=True), covariance, rtol=0, atol=error)
    np.testing.assert_allclose(x.reshape(len(x), -1).mean(0), mean, rtol=0, atol=error)
    assert mean.tolist() == [1.0] * 4 + [2.0] * 4 + [3.0] * 4
    mixed = np.einsum("nix,njx->ij", x - x.mean(0), x - x.mean(0)) / (4 * len(x))
    np.testing.assert_allclose(mixed, CHANNELS, rtol=0, atol=error)


@pytest.mark.parametrize("size", [[9], [8], [4, 5]])
@pytest.mark.parametrize("which", ["train_rows", "val_rows"])
def test_exact_moments(size, which):
    data = field(size, channels=2, mean=[0.5, 3.0], exact_moments=True, num_val_samples=100)
    x = getattr(data, which).data.double().flatten(1).numpy()
    mean, covariance = data.population_moments()
    # rounding of float32 at magnitude 3, nearly independent between samples
    np.testing.assert_allclose(x.mean(0), mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.cov(x.T, bias=True), covariance, rtol=0, atol=1e-6)


def test_perfectly_correlated_channels_are_equal():
    x = field(channels=2, channel_covariance=[[1.0, 1.0], [1.0, 1.0]]).train_rows.data
    np.testing.assert_allclose(x[:, 0], x[:, 1], rtol=0, atol=1e-6)  # rounding of float32
    assert x.std() > 0.5


def test_extreme_laws_stay_finite():
    spectrum = field([64], exponent=60.0, cutoff=1e-9).spectrum
    assert torch.isfinite(spectrum).all()
    np.testing.assert_allclose(spectrum[0], 64.0, rtol=1e-12)


@pytest.mark.parametrize(
    "arguments",
    [
        *({"size": size} for size in ([], [2, 2, 2], [0])),
        {"channels": 0},
        {"exponent": -1.0},
        {"cutoff": 0.0},
        {"scale": 0.0},
        {"mean": [0.0, 1.0]},
        *({"channel_covariance": rows} for rows in ([[1.0], [1.0]], [[1.0, 2.0]], [[0.0]])),
        *({"channel_covariance": [[1.0, a], [b, 1.0]], "channels": 2} for a, b in ((2.0, 2.0), (0.2, 0.1))),
        {"num_samples": 8, "exact_moments": True},
    ],
)
def test_bad_input(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must"):
        field(**arguments)
