"""The overlap of two bases against dense covariances."""

import functools
import math

import numpy as np
import pytest
import torch

from spectral_lightning.spectra import FourierBasis, PatchBasis, PCABasis, overlap
from spectral_lightning.spectra import overlap as package_overlap

SHAPE = (2, 3, 4)


def moments(shape=SHAPE, seed=0):
    d = math.prod(shape)
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((d, d)) * np.linspace(0.3, 2, d)
    return torch.from_numpy(5 * rng.standard_normal(d)), torch.from_numpy(root @ root.T)


@functools.cache
def bases(seed=0):
    given = moments(seed=seed)
    return {
        "pca": PCABasis.from_moments(*given, shape=SHAPE),
        "leading": PCABasis.from_moments(*given, num_modes=4, shape=SHAPE),
        "fourier": FourierBasis.from_moments(*given, SHAPE),
        "bands": FourierBasis.from_moments(*given, SHAPE, bands=2),
        "patch": PatchBasis.from_moments(*given, SHAPE, 2, num_modes=5),
        "valid": PatchBasis.from_moments(*given, SHAPE, 2, 2, "valid"),
    }


def directions(basis):
    """The vector of every observable, from the projection of the unit vectors about the mean."""
    unit = torch.eye(basis.dim, dtype=torch.float64)
    return basis.project((unit + basis.mean).reshape(-1, *basis.shape)).numpy()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("natural", ["pca", "leading", "fourier", "bands"])
@pytest.mark.parametrize("name", ["pca", "leading", "fourier", "bands", "patch", "valid"])
def test_variances_of_a_gaussian_diagonal_in_the_natural_basis(name, natural, seed):
    basis, other = bases()[name], bases(seed)[natural]
    v = np.random.default_rng(2).random(len(other.variance))
    w = other.vectors.numpy()
    covariance = (w * v[other.mode_of.numpy()]) @ w.T
    along = np.einsum("io,ij,jo->o", directions(basis), covariance, directions(basis))
    modes = np.tile(basis.mode_of.numpy(), basis.replicates)
    expected = [along[modes == k].mean() for k in range(len(basis.variance))]
    matrix = overlap(basis, other)
    assert matrix.shape == (len(basis.variance), len(other.variance))
    np.testing.assert_allclose(matrix.numpy() @ v, expected, rtol=1e-11, atol=1e-15)
    if natural != "leading":
        np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-12)


@pytest.mark.parametrize("name", ["pca", "fourier", "bands", "patch", "valid"])
def test_a_basis_variances_are_those_of_its_data(name):
    basis = bases()[name]
    np.testing.assert_allclose(overlap(basis, basis.data) @ basis.data.variance, basis.variance, rtol=1e-11)


def test_a_basis_overlaps_only_with_itself():
    np.testing.assert_allclose(overlap(bases()["fourier"], bases()["fourier"]), np.eye(14), atol=1e-13)


@pytest.mark.parametrize("most", [1, 100, 1000])
def test_parts_change_nothing(most, monkeypatch):
    basis = bases()["patch"]
    whole = overlap(basis, basis.data)
    monkeypatch.setitem(package_overlap.__globals__, "_NUMBERS_AT_ONCE", most)
    np.testing.assert_allclose(overlap(basis, basis.data), whole, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("natural", [PCABasis.from_moments(torch.zeros(3), torch.eye(3)), bases()["patch"]])
def test_natural_modes_must_be_of_the_same_examples(natural):
    with pytest.raises(ValueError, match="`natural`"):
        overlap(bases()["fourier"], natural)
