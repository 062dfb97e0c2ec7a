"""Bases as settings, and their ways to disk and back."""

import pytest
import torch

from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import (
    Basis,
    BasisRecipe,
    Eigenmodes,
    FourierBasis,
    FourierModes,
    PatchBasis,
    PatchComponents,
    PCABasis,
    SpectralProbe,
    basis_from_state,
    chosen_recipe,
    load_basis,
)

SHAPE = (2, 4, 4)
ROOT = torch.randn(32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MOMENTS = (ROOT[0], ROOT @ ROOT.T)

CASES = [
    (Eigenmodes(), PCABasis.from_moments(*MOMENTS, shape=SHAPE, source="it")),
    (Eigenmodes(num_modes=3), PCABasis.from_moments(*MOMENTS, 3, SHAPE, "it")),
    (FourierModes(), FourierBasis.from_moments(*MOMENTS, SHAPE, source="it")),
    (FourierModes(bands=3), FourierBasis.from_moments(*MOMENTS, SHAPE, bands=3, source="it")),
    (PatchComponents(size=2), PatchBasis.from_moments(*MOMENTS, SHAPE, 2, source="it")),
    (
        PatchComponents(size=3, stride=2, boundary="valid", num_modes=4),
        PatchBasis.from_moments(*MOMENTS, SHAPE, 3, 2, "valid", 4, source="it"),
    ),
]


@pytest.mark.parametrize(("recipe", "expected"), CASES)
def test_recipes_make_their_basis(recipe, expected):
    made = recipe.make(*MOMENTS, SHAPE, "it")
    assert type(made) is type(expected)
    assert made.fingerprint == expected.fingerprint
    assert made.describe() == expected.describe()
    assert isinstance(recipe, BasisRecipe)


@pytest.mark.parametrize("recipe", [FourierModes(axes=2), PatchComponents(size=3, axes=2)])
def test_grey_images_without_channels(recipe):
    basis = recipe.make(torch.zeros(16), torch.eye(16), (4, 4))
    assert basis.project(torch.zeros(2, 4, 4)).shape == (2, basis.replicates * len(basis.mode_of))
    assert basis.data.source == "given moments"


@pytest.mark.parametrize(("recipe", "basis"), CASES)
def test_any_basis_is_read_from_its_file(recipe, basis, tmp_path):
    basis.save(tmp_path / "basis.pt")
    again = load_basis(tmp_path / "basis.pt")
    assert type(again) is type(basis)
    assert (again.fingerprint, again.describe()) == (basis.fingerprint, basis.describe())
    assert basis_from_state(basis.state()).fingerprint == basis.fingerprint
    flat = (torch.Tensor, str, int, list, type(None))
    assert all(isinstance(value, flat) for value in basis.state().values())


def test_unknown_kind(tmp_path):
    torch.save({"kind": "wavelets"}, tmp_path / "basis.pt")
    with pytest.raises(ValueError, match=r"`kind` must be one of 'eigenmodes of the covariance', .* got 'wavelets'"):
        load_basis(tmp_path / "basis.pt")


class Loaded:
    def __reduce__(self):
        return (open, ("must-not-exist", "w"))


def test_load_executes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"kind": Loaded()}, tmp_path / "evil.pt")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        load_basis(tmp_path / "evil.pt")
    assert not (tmp_path / "must-not-exist").exists()


class HaarBasis(Basis):
    """A basis of somebody else: sums and differences of neighbours on a line."""

    kind = "Haar modes"

    def __init__(self, data, vectors, variance):
        super().__init__(vectors, variance, data.mean, data.shape, data.source, data=data)

    @property
    def labels(self):
        return [f"haar {k}" for k in range(len(self.variance))]

    def arguments(self):
        return {"vectors": self.vectors, "variance": self.variance}


def test_a_new_basis_is_one_class(tmp_path):
    data = PCABasis.from_moments(*MOMENTS, shape=(32,))
    eye = torch.eye(32, dtype=torch.float64)
    vectors = torch.cat([eye[::2] + eye[1::2], eye[::2] - eye[1::2]]).T / 2**0.5
    basis = HaarBasis(data, vectors, (vectors.T @ MOMENTS[1] @ vectors).diagonal())
    assert chosen_recipe(basis) is basis
    basis.save(tmp_path / "basis.pt")
    again = load_basis(tmp_path / "basis.pt")
    assert (type(again), again.fingerprint, again.describe()) == (HaarBasis, basis.fingerprint, basis.describe())
    probe = SpectralProbe(again, Sampler(num_steps=6), 64)
    mean, covariance = MOMENTS
    wiener = lambda z, s: mean + (z - mean) @ torch.linalg.solve(covariance + s[0] ** 2 * eye, covariance)  # noqa: E731
    row = probe.measure(wiener, 0, dtype=torch.float64)
    torch.testing.assert_close(
        torch.from_numpy(row["variance"]), torch.from_numpy(probe.fixed_point), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize("basis", [basis for _, basis in CASES])
def test_a_basis_made_before_is_its_own_recipe(basis):
    assert isinstance(basis, Basis)
    assert chosen_recipe(basis) is basis
    with pytest.raises(ValueError, match="num_modes"):
        chosen_recipe(basis, 3)


@pytest.mark.parametrize("basis", [3, None, torch.eye(2)])
def test_what_is_no_basis(basis):
    with pytest.raises(TypeError, match="basis"):
        chosen_recipe(basis)
