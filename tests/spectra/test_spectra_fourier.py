"""Fourier modes against naive transforms, brute-force counts, NumPy's FFT and the theory's own ordering."""

import itertools
import math

import numpy as np
import pytest
import torch

from spectral_lightning.spectra import FourierBasis
from spectral_lightning.theory import FullWidthConvolution, GaussianData, Objective
from tests.support.bases import moments, pixels_of

SHAPES = [(7,), (8,), (2, 5), (3, 6), (1, 4, 4), (1, 5, 5), (1, 3, 4), (2, 4, 3), (3, 4, 2)]


def basis_of(shape, **options):
    return FourierBasis.from_moments(*moments(shape), shape, **options)


def naive_spectral_matrix(covariance, shape, k):
    """E X_i(k) conj(X_j(k)) by two sums over pixels."""
    channels, size = pixels_of(shape)
    pixels = list(itertools.product(*map(range, size)))
    wave = [np.exp(-2j * np.pi * sum(a * b / n for a, b, n in zip(k, x, size, strict=True))) for x in pixels]
    folded = covariance.reshape(channels, len(pixels), channels, len(pixels))
    out = np.zeros((channels, channels), complex)
    for x, y in itertools.product(range(len(pixels)), repeat=2):
        out += wave[x] * np.conj(wave[y]) * folded[:, x, :, y] / len(pixels)
    return out


@pytest.mark.parametrize("bands", [None, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_vectors_are_an_orthonormal_basis(shape, bands):
    basis, d = basis_of(shape, bands=bands), math.prod(shape)
    w = basis.vectors.numpy()
    assert w.shape == (d, d)
    np.testing.assert_allclose(w.T @ w, np.eye(d), atol=1e-13)  # rounding of d products
    x = torch.randn(9, *shape, dtype=torch.float64)
    energy = (basis.project(x).square()).sum(1)
    np.testing.assert_allclose(energy, (x.flatten(1) - basis.mean).square().sum(1), rtol=1e-12)
    assert (np.diff(basis.mode_of) >= 0).all()
    assert (np.diff(basis.variance) <= 0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_observables_are_the_unitary_transform(shape):
    basis = basis_of(shape)
    channels, size = pixels_of(shape)
    x = np.random.default_rng(1).standard_normal((4, channels, *size))
    field = x - basis.mean.numpy().reshape(channels, *size)
    axes = tuple(range(2, 2 + len(size)))
    transform = np.fft.fftn(field, axes=axes, norm="ortho")
    power = basis.pool(basis.project(torch.from_numpy(x).reshape(4, *shape)).square()).numpy()
    waves = [tuple(k) for k in basis.wavevector.tolist()]
    for k in set(waves):  # the modes of a frequency share out the power of its channels
        here = [i for i, other in enumerate(waves) if other == k]
        assert len(here) == channels
        np.testing.assert_allclose(
            power[:, here].sum(1), (np.abs(transform[(slice(None), slice(None), *k)]) ** 2).sum(1), rtol=1e-11
        )


@pytest.mark.parametrize("shape", SHAPES)
def test_variances_are_the_eigenvalues_of_the_spectral_matrices(shape):
    basis, channels = basis_of(shape), pixels_of(shape)[0]
    covariance = moments(shape)[1].numpy()
    waves = [tuple(k) for k in basis.wavevector.tolist()]
    for k in set(waves):
        found = sorted(v for v, other in zip(basis.variance.tolist(), waves, strict=True) if other == k)
        expected = np.linalg.eigvalsh(naive_spectral_matrix(covariance, shape, k))
        np.testing.assert_allclose(found, expected, rtol=1e-10)
        assert len(found) == channels
    along = basis.vectors.T @ torch.from_numpy(covariance) @ basis.vectors
    np.testing.assert_allclose(basis.pool(along.diagonal()), basis.variance, rtol=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
def test_multiplicities_by_counting(shape):
    basis = basis_of(shape)
    channels, size = pixels_of(shape)
    classes = {
        min(k, tuple(-a % n for a, n in zip(k, size, strict=True))) for k in itertools.product(*map(range, size))
    }
    assert len(basis.variance) == channels * len(classes)
    for k, count in zip(basis.wavevector.tolist(), basis.multiplicity.tolist(), strict=True):
        own_negative = all(2 * a % n == 0 for a, n in zip(k, size, strict=True))
        assert count == (1 if own_negative else 2)
    assert basis.multiplicity.sum() == basis.dim
    assert basis.replicates == 1


@pytest.mark.parametrize(
    ("shape", "bands"), [((8,), 3), ((1, 6, 6), 1), ((1, 6, 6), 4), ((2, 5, 8), 3), ((3, 4, 4), 2)]
)
def test_bands_by_counting(shape, bands):
    basis = basis_of(shape, bands=bands)
    channels, size = pixels_of(shape)
    covariance, longest = moments(shape)[1].numpy(), max(size)
    radius = {
        k: math.sqrt(sum((min(a, n - a) * longest / n) ** 2 for a, n in zip(k, size, strict=True)))
        for k in itertools.product(*map(range, size))
    }
    members = [[] for _ in range(bands)]
    for k, r in radius.items():
        members[min(int(r / max(radius.values()) * bands + 1e-9), bands - 1)].append(k)
    expected = []
    for b in range(bands):
        power = [np.trace(naive_spectral_matrix(covariance, shape, k)).real / channels for k in members[b]]
        expected.append((np.mean(power), channels * len(members[b]), np.mean([radius[k] for k in members[b]])))
    expected.sort(reverse=True)
    variance, count, frequency = zip(*expected, strict=True)
    np.testing.assert_allclose(basis.variance, variance, rtol=1e-10)
    assert basis.multiplicity.tolist() == list(count)
    np.testing.assert_allclose(basis.frequency, frequency, rtol=1e-12)
    assert basis.labels == [f"|k|={f:.4g}" for f in frequency]


@pytest.mark.parametrize("bands", [None, 3])
def test_white_noise_is_flat(bands):
    basis = FourierBasis.from_moments(torch.ones(24), 2.5 * torch.eye(24), (1, 4, 6), bands)
    np.testing.assert_allclose(basis.variance, 2.5, rtol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
def test_theory_index_finds_the_modes_of_the_theory(shape):
    basis, covariance = basis_of(shape), moments(shape)[1]
    channels, size = pixels_of(shape)
    theory = FullWidthConvolution(Objective(1e-3)).on(GaussianData(covariance.numpy(), None, size, channels))
    index = basis.theory_index.numpy()
    np.testing.assert_allclose(theory.variance[index], basis.variance, rtol=1e-10)
    assert len(set(index.tolist())) == len(index)
    flat = np.ravel_multi_index(tuple(np.mod(basis.wavevector.numpy(), size).T), size)
    np.testing.assert_array_equal(index // channels, flat)


def test_labels():
    assert set(basis_of((4,)).labels) == {"k=0", "k=1", "k=2"}
    assert set(basis_of((2, 2)).labels) == {f"k={k}, channel mode {j}" for k in (0, 1) for j in (1, 2)}
    assert "k=(1, -1)" in basis_of((1, 4, 4)).labels
    assert basis_of((1, 4, 4)).describe() == "10 Fourier modes of given moments, dimension 16"
    assert basis_of((8,), bands=2, source="9 waves").describe() == "2 radial Fourier bands of 9 waves, dimension 8"


def test_fingerprint_tells_bands_and_data_apart():
    prints = {basis_of((8,)).fingerprint, basis_of((8,), bands=2).fingerprint, basis_of((8,), bands=3).fingerprint}
    prints.add(FourierBasis.from_moments(*moments((8,), seed=1), (8,)).fingerprint)
    assert len(prints) == 4


@pytest.mark.parametrize(
    ("shape", "options", "argument"),
    [
        ((2, 2, 2, 2), {}, "shape"),
        ((2, 2, 4), {"axes": 1}, "shape"),
        ((16,), {"axes": 2}, "shape"),
        ((16,), {"axes": 3}, "shape"),
        ((4, 4), {"bands": 0}, "bands"),
        ((1, 4, 4), {"bands": 9}, "bands"),
        ((3, 5), {}, "modes"),
    ],
)
def test_bad_arguments(shape, options, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        FourierBasis.from_moments(*moments((16,)), shape, **options)


def test_bands_have_no_wavevector_and_vectors_must_fit():
    with pytest.raises(ValueError, match="`bands`"):
        _ = basis_of((8,), bands=2).theory_index
    basis = basis_of((4,))
    with pytest.raises(ValueError, match="`channel_modes`"):
        FourierBasis(basis.channel_modes[1:], basis.variance, basis.mode_of, basis.entries, basis.mean, basis.shape)
