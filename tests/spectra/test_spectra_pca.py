"""Eigenmodes of the covariance as a basis."""

import numpy as np
import pytest
import torch

from spectral_lightning.spectra import PCABasis


def moments(d=6, seed=0, null=0):
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    variance = torch.logspace(1, -2, d, dtype=torch.float64)
    variance[d - null :] = 0
    covariance = (rotation * variance) @ rotation.T
    return torch.randn(d, generator=generator, dtype=torch.float64), (covariance + covariance.T) / 2, variance


def test_modes_are_the_sorted_eigenpairs_with_a_fixed_sign():
    mean, covariance, variance = moments()
    basis = PCABasis.from_moments(mean, covariance)
    u = basis.modes.numpy()
    np.testing.assert_allclose(u.T @ u, np.eye(6), atol=1e-14)  # orthonormal to rounding
    np.testing.assert_allclose(basis.variance, variance, rtol=1e-12)
    np.testing.assert_allclose(covariance.numpy() @ u, u * variance.numpy(), atol=1e-13)
    assert (np.diff(basis.variance) < 0).all()
    assert (u[np.abs(u).argmax(0), range(6)] > 0).all()
    assert (basis.dim, basis.shape) == (6, (6,))
    assert basis.data is basis


@pytest.mark.parametrize("signs", [1, -1])
def test_signs_do_not_depend_on_the_solver(signs, monkeypatch):
    mean, covariance, _ = moments()
    expected = PCABasis.from_moments(mean, covariance).modes
    values, vectors = torch.linalg.eigh(covariance)
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: (values, signs * vectors))
    assert torch.equal(PCABasis.from_moments(mean, covariance).modes, expected)


@pytest.mark.parametrize("num_modes", [1, 3, 6])
def test_leading_modes(num_modes):
    mean, covariance, variance = moments()
    basis, full = PCABasis.from_moments(mean, covariance, num_modes), PCABasis.from_moments(mean, covariance)
    assert torch.equal(basis.modes, full.modes[:, :num_modes])
    np.testing.assert_allclose(basis.variance, variance[:num_modes], rtol=1e-12)
    assert basis.labels == ["mode 1", "mode 2", "mode 3", "mode 4", "mode 5", "mode 6"][:num_modes]
    assert (basis.replicates, basis.mode_of.tolist()) == (1, list(range(num_modes)))
    assert basis.multiplicity.tolist() == [1] * num_modes


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"num_modes": 0}, "num_modes"),
        ({"num_modes": 7}, "num_modes"),
        ({"covariance": torch.eye(5)}, "covariance"),
        ({"covariance": torch.eye(6) * torch.nan}, "covariance"),
        ({"mean": torch.full((6,), torch.inf)}, "mean"),
        ({"shape": (2, 2)}, "modes"),
    ],
)
def test_bad_moments(change, argument):
    mean, covariance, _ = moments()
    with pytest.raises(ValueError, match=f"`{argument}`"):
        PCABasis.from_moments(**{"mean": mean, "covariance": covariance, **change})


@pytest.mark.parametrize(
    ("modes", "variance", "mean"),
    [
        (torch.eye(4)[:, :2], torch.ones(3), torch.zeros(4)),
        (torch.eye(4), torch.ones(4), torch.zeros(3)),
        (torch.ones(4), torch.ones(4), torch.zeros(4)),
    ],
)
def test_shapes_that_do_not_match(modes, variance, mean):
    with pytest.raises(ValueError, match="`modes`"):
        PCABasis(modes, variance, mean, (4,))


def test_null_modes_are_those_without_variance():
    mean, covariance, _ = moments(6, null=2)
    basis = PCABasis.from_moments(mean, covariance)
    assert basis.null.tolist() == [False] * 4 + [True] * 2
    assert (basis.variance >= 0).all()
    assert not PCABasis.from_moments(mean, moments(6)[1]).null.any()
    assert PCABasis.from_moments(mean, torch.zeros(6, 6)).null.all()
    x = torch.randn(4, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    few = PCABasis.from_moments(x.mean(0), torch.from_numpy(np.cov(x.numpy().T, ddof=0)))
    assert few.null.sum() == 7  # four centred samples span three dimensions


@pytest.mark.parametrize("part", ["mean", "variance", "modes", "shape"])
def test_fingerprint_changes_with_every_part(part):
    mean, covariance, _ = moments(6)
    basis = PCABasis.from_moments(mean, covariance)
    parts = {"modes": basis.modes, "variance": basis.variance, "mean": basis.mean, "shape": (6,)}
    assert PCABasis(**parts).fingerprint == basis.fingerprint
    changed = (2, 3) if part == "shape" else parts[part] * (1 + 1e-15)
    assert PCABasis(**{**parts, part: changed}).fingerprint != basis.fingerprint
    assert len(basis.fingerprint) == 16
