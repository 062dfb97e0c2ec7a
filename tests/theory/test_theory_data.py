"""The data that families are solved on: two ways to give a field, and what is refused."""

import numpy as np
import pytest

from spectral_lightning.theory import FullWidthConvolution, GaussianData, GaussianField, LocalConvolution, Objective
from tests.support.affine_oracle import random_moments

OBJECTIVE = Objective(1e-3)


@pytest.mark.parametrize(("size", "channels"), [((8,), 1), ((5,), 2), ((3, 4), 1), ((3, 3), 2)])
@pytest.mark.parametrize(
    "family", [FullWidthConvolution(OBJECTIVE, 0.2, "shared"), LocalConvolution(OBJECTIVE, 3, 0.2)]
)
def test_covariance_and_spectrum_give_the_same_curves(size, channels, family):
    n = int(np.prod(size))
    mean, covariance = random_moments(5, channels * n)
    unitary = np.fft.fftn(np.eye(n).reshape(n, *size), axes=tuple(range(1, 1 + len(size)))).reshape(n, n) / np.sqrt(n)
    spectrum = np.einsum("kx,cxdy,ky->kcd", unitary, covariance.reshape(channels, n, channels, n), unitary.conj())
    first = family.on(GaussianData(covariance, mean, size, channels))
    second = family.on(GaussianField(spectrum.reshape(*size, channels, channels), mean))
    np.testing.assert_allclose(first.variance, second.variance, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(first.kernel(30.0, 0.5), second.kernel(30.0, 0.5), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(first.bias(30.0, 0.5), second.bias(30.0, 0.5), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(first.generated_variance(30.0), second.generated_variance(30.0), rtol=1e-9)


def test_a_mean_is_given_per_channel_or_per_coordinate():
    wanted = np.repeat([1.0, -2.0], 6)
    for mean in ([1.0, -2.0], wanted, wanted.reshape(2, 2, 3)):
        data = GaussianData(np.eye(12), mean, (2, 3), 2)
        np.testing.assert_array_equal(data.mean, wanted)
        np.testing.assert_array_equal(data.field.mean, wanted.reshape(2, 2, 3))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((np.eye(8), None, (3, 3)), "size"),
        ((np.eye(8), None, (2, 2, 2)), "size"),
        ((np.eye(8), None, (8,), 0), "channels"),
        ((np.ones((8, 7)),), "covariance"),
        ((np.triu(np.ones((4, 4))),), "covariance"),
        ((-np.eye(4),), "covariance"),
        ((np.full((2, 2), np.inf),), "covariance"),
        ((np.eye(2)[None],), "covariance"),
        ((np.eye(8), np.zeros(3)), "mean"),
        ((np.eye(8), [np.nan]), "mean"),
    ],
)
def test_moments_are_checked(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        GaussianData(*arguments)


@pytest.mark.parametrize(
    ("spectrum", "reason"),
    [
        (np.ones(8), "square"),
        (np.eye(2), "shape"),
        (np.arange(8.0)[:, None, None], "real field"),
        (-np.ones((8, 1, 1)), "semidefinite"),
        (np.tile([[1.0, 1j], [1j, 1.0]], (4, 1, 1)), "symmetric"),
    ],
)
def test_spectral_matrices_are_checked(spectrum, reason):
    with pytest.raises(ValueError, match=f"`spectrum` .*{reason}"):
        GaussianField(spectrum)
