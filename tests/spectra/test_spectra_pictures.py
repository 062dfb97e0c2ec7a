"""Pictures of modes and samples against the arrays they show."""

import numpy as np
import pytest
import torch

from spectral_lightning.spectra import FourierBasis, PatchBasis, PCABasis, mode_images, sample_images


def covariance(d):
    factor = torch.randn(d, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return factor @ factor.T / d


def scaled(vector, shape):
    return np.round(127.5 + 127.5 * (vector / vector.abs().max()).reshape(shape).numpy())


@pytest.mark.parametrize(("shape", "picture"), [((1, 4, 6), (4, 6)), ((4, 6), (4, 6)), ((3, 4, 5), (3, 4, 5))])
def test_an_eigenmode_is_its_vector(shape, picture):
    d = int(np.prod(shape))
    basis = PCABasis.from_moments(torch.zeros(d), covariance(d), shape=shape)
    pixels = mode_images(basis, [0, 7])
    expected = scaled(basis.vectors[:, 7], picture)
    np.testing.assert_array_equal(pixels[1], np.moveaxis(expected, 0, -1) if len(picture) == 3 else expected)


def test_a_fourier_mode_is_a_wave_and_a_patch_component_a_patch():
    white = torch.zeros(64), torch.eye(64, dtype=torch.float64)
    basis = FourierBasis.from_moments(*white, shape=(1, 8, 8))
    wave = mode_images(basis, range(len(basis.variance)))[:, :, :] / 127.5 - 1
    for k, image in enumerate(wave):
        peaks = {tuple(place) for place in np.argwhere(np.abs(np.fft.fft2(image)) > 5)}
        first = tuple(int(n) % 8 for n in basis.wavevector[k])
        assert peaks == {first, tuple(-n % 8 for n in first)}
    patches = PatchBasis.from_moments(torch.zeros(64), covariance(64), shape=(1, 8, 8), size=5)
    np.testing.assert_array_equal(mode_images(patches, [2])[0], scaled(patches.vectors[:, 2], (5, 5)))


def test_samples_are_scaled_by_the_data():
    basis = PCABasis.from_moments(torch.full((16,), 2.0), 9 * torch.eye(16), shape=(1, 4, 4))
    samples = torch.full((5, 1, 4, 4), 2.0) + torch.tensor([-90.0, -4.5, 0.0, 4.5, torch.nan])[:, None, None, None]
    found = sample_images(basis, samples)[:, 0, 0]
    np.testing.assert_array_equal(found, [0, 64, 128, 191, 128])


@pytest.mark.parametrize("shape", [(64,), (2, 4, 8), (1, 2, 32), (2, 32), (1, 4, 4, 4)])
def test_data_that_are_no_images_have_no_pictures(shape):
    basis = PCABasis.from_moments(torch.zeros(64), torch.eye(64), shape=shape)
    assert mode_images(basis, [0]) is None
    assert sample_images(basis, torch.zeros(1, *shape)) is None
