"""Eigenmodes of the covariance as a basis."""

import numpy as np
import pytest
import torch

from spectral_lightning.diffusion import Latents
from spectral_lightning.spectra import PCABasis, load_basis


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


@pytest.mark.parametrize("signs", [1, -1])
def test_signs_do_not_depend_on_the_solver(signs, monkeypatch):
    mean, covariance, _ = moments()
    expected = PCABasis.from_moments(mean, covariance).modes
    eigh = torch.linalg.eigh

    def other(matrix):
        values, vectors = eigh(matrix)
        return values, signs * vectors

    monkeypatch.setattr(torch.linalg, "eigh", other)
    assert torch.equal(PCABasis.from_moments(mean, covariance).modes, expected)


@pytest.mark.parametrize("num_modes", [1, 3, 6])
def test_leading_modes(num_modes):
    mean, covariance, variance = moments()
    basis, full = PCABasis.from_moments(mean, covariance, num_modes), PCABasis.from_moments(mean, covariance)
    assert basis.modes.shape == (6, num_modes)
    assert torch.equal(basis.modes, full.modes[:, :num_modes])
    np.testing.assert_allclose(basis.variance, variance[:num_modes], rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_modes": 0}, "`num_modes` must be a positive integer, got 0"),
        ({"num_modes": 7}, "`num_modes` must be at most the dimension of the data, 6, got 7"),
        ({"covariance": torch.eye(5)}, r"`covariance` must have shape \(6, 6\) as `mean` has 6, got \(5, 5\)"),
        ({"covariance": torch.eye(6) * torch.nan}, "`mean` and `covariance` must be finite"),
        ({"mean": torch.full((6,), torch.inf)}, "`mean` and `covariance` must be finite"),
        ({"shape": (2, 2)}, r"`modes` must have shape \[d, K\]"),
    ],
)
def test_bad_moments(change, message):
    mean, covariance, _ = moments()
    with pytest.raises(ValueError, match=message):
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
    with pytest.raises(ValueError, match="`modes` must have shape"):
        PCABasis(modes, variance, mean, (4,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_project_is_the_naive_projection(dtype):
    mean, covariance, _ = moments(4)
    basis = PCABasis.from_moments(mean, covariance, 3, shape=(1, 2, 2))
    x = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    expected = [
        [sum(float(basis.modes[i, k]) * (float(row.flatten()[i]) - float(mean[i])) for i in range(4)) for k in range(3)]
        for row in x
    ]
    np.testing.assert_allclose(basis.project(x), expected, rtol=1e-12, atol=1e-14)
    assert basis.project(x).dtype == torch.float64


def test_project_refuses_another_size():
    mean, covariance, _ = moments(4)
    with pytest.raises(ValueError, match=r"`samples` must have shape \[B, 1, 2, 2\], got \(5, 3\)"):
        PCABasis.from_moments(mean, covariance, shape=(1, 2, 2)).project(torch.zeros(5, 3))


@pytest.mark.parametrize("sigma", [0.0, 0.3, 80.0])
@pytest.mark.parametrize("num_modes", [2, 6])
def test_diffuse_has_exactly_the_noisy_moments(sigma, num_modes):
    mean, covariance, variance = moments()
    basis = PCABasis.from_moments(mean, covariance, num_modes, shape=(2, 3))
    latents = Latents(24, 6)
    z = basis.diffuse(latents.rows(0, 24), sigma)
    assert z.shape == (24, 2, 3)
    flat = z.flatten(1).numpy()
    u, kept = np.linalg.eigh(covariance.numpy())[1][:, ::-1], variance.numpy() * (np.arange(6) < num_modes)
    expected = (u * kept) @ u.T + sigma**2 * np.eye(6)
    # orthogonal latents have exactly the identity as second moment: rounding is all that is left
    np.testing.assert_allclose(np.cov(flat.T, ddof=0), expected, atol=1e-13 * (10 + sigma**2))
    np.testing.assert_allclose(flat.mean(0), mean, atol=1e-13 * (1 + sigma))


def test_null_modes_are_those_without_variance():
    mean, covariance, _ = moments(6, null=2)
    basis = PCABasis.from_moments(mean, covariance)
    assert basis.null.tolist() == [False] * 4 + [True] * 2
    assert (basis.variance >= 0).all()
    assert not PCABasis.from_moments(mean, moments(6)[1]).null.any()
    constant = PCABasis.from_moments(mean, torch.zeros(6, 6))
    assert constant.null.all()


def test_fewer_samples_than_dimensions_leave_null_modes():
    x = torch.randn(4, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = PCABasis.from_moments(x.mean(0), torch.from_numpy(np.cov(x.numpy().T, ddof=0)))
    assert basis.null.sum() == 7  # four centred samples span three dimensions


def test_save_and_load_give_the_same_basis(tmp_path):
    mean, covariance, _ = moments(6)
    basis = PCABasis.from_moments(mean, covariance, 4, shape=(1, 2, 3), source="60 photographs")
    basis.save(tmp_path / "basis.pt")
    again = load_basis(tmp_path / "basis.pt")
    assert again.fingerprint == basis.fingerprint
    assert (again.shape, again.source, again.describe()) == (basis.shape, basis.source, basis.describe())
    for name in ("modes", "variance", "mean"):
        assert torch.equal(getattr(again, name), getattr(basis, name))
    state = torch.load(tmp_path / "basis.pt", weights_only=True)
    assert set(state) == {"kind", "modes", "variance", "mean", "shape", "source"}


def test_every_mode_has_one_observable():
    basis = PCABasis.from_moments(*moments(6)[:2], num_modes=3)
    assert (basis.replicates, basis.mode_of.tolist(), basis.multiplicity.tolist()) == (1, [0, 1, 2], [1, 1, 1])
    assert basis.labels == ["mode 1", "mode 2", "mode 3"]
    assert basis.data is basis
    values = torch.randn(2, 3)
    assert torch.equal(basis.pool(values), values)
    assert torch.equal(basis.vectors, basis.modes)


class Loaded:
    def __reduce__(self):
        return (open, ("must-not-exist", "w"))


def test_load_executes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"modes": Loaded()}, tmp_path / "evil.pt")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        load_basis(tmp_path / "evil.pt")
    assert not (tmp_path / "must-not-exist").exists()


@pytest.mark.parametrize("part", ["mean", "variance", "modes", "shape"])
def test_fingerprint_changes_with_every_part(part):
    mean, covariance, _ = moments(6)
    basis = PCABasis.from_moments(mean, covariance)
    parts = {"modes": basis.modes, "variance": basis.variance, "mean": basis.mean, "shape": (6,)}
    assert PCABasis(**parts).fingerprint == basis.fingerprint
    changed = (2, 3) if part == "shape" else parts[part] * (1 + 1e-15)
    assert PCABasis(**{**parts, part: changed}).fingerprint != basis.fingerprint
    assert len(basis.fingerprint) == 16


def test_describe():
    mean, covariance, _ = moments(6)
    line = PCABasis.from_moments(mean, covariance, 2, source="60 photographs").describe()
    assert line == "2 eigenmodes of the covariance of 60 photographs, dimension 6"
