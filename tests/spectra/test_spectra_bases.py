"""What every basis does: it is one class, has its way to disk and back, and maps variances to other bases."""

import numpy as np
import pytest
import torch

from spectral_lightning.diffusion import Latents
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
    overlap,
)
from spectral_lightning.spectra import overlap as package_overlap
from tests.support.bases import NAMES, SHAPE, bases, directions, moments

RECIPES = [
    (Eigenmodes(), PCABasis.from_moments(*moments(), shape=SHAPE, source="it")),
    (Eigenmodes(num_modes=3), PCABasis.from_moments(*moments(), 3, SHAPE, "it")),
    (FourierModes(bands=2), FourierBasis.from_moments(*moments(), SHAPE, bands=2, source="it")),
    (PatchComponents(size=3), PatchBasis.from_moments(*moments(), SHAPE, 3, source="it")),
    (PatchComponents(2, 2, "valid", 4), PatchBasis.from_moments(*moments(), SHAPE, 2, 2, "valid", 4, source="it")),
]


@pytest.mark.parametrize(("recipe", "expected"), RECIPES)
def test_recipes_make_their_basis(recipe, expected):
    made = recipe.make(*moments(), SHAPE, "it")
    assert type(made) is type(expected)
    assert (made.fingerprint, made.describe()) == (expected.fingerprint, expected.describe())
    assert isinstance(recipe, BasisRecipe)
    assert chosen_recipe(recipe) is recipe


@pytest.mark.parametrize("recipe", [FourierModes(axes=2), PatchComponents(size=3, axes=2)])
def test_grey_images_without_channels(recipe):
    basis = recipe.make(*moments((1, 4, 6)), (4, 6))
    with_channel = type(recipe)(**{**vars(recipe), "axes": None}).make(*moments((1, 4, 6)), (1, 4, 6))
    assert torch.equal(basis.vectors, with_channel.vectors)
    x = torch.randn(2, 4, 6)
    assert torch.equal(basis.project(x), with_channel.project(x[:, None]))


@pytest.mark.parametrize("name", NAMES)
def test_a_basis_made_before_is_its_own_recipe(name):
    basis = bases()[name]
    assert isinstance(basis, Basis)
    assert chosen_recipe(basis) is basis
    with pytest.raises(ValueError, match="`num_modes`"):
        chosen_recipe(basis, 3)


def test_names_of_recipes():
    assert chosen_recipe("pca", 5) == Eigenmodes(5)
    assert chosen_recipe("patch", 5) == PatchComponents(num_modes=5)
    assert chosen_recipe("fourier") == FourierModes()
    assert (
        Eigenmodes(2).make(*moments(), SHAPE, "it").describe() == "2 eigenmodes of the covariance of it, dimension 24"
    )
    for argument, error in [(("fourier", 3), ValueError), (("wavelets",), ValueError), ((3,), TypeError)]:
        with pytest.raises(error, match=r"`basis`|`num_modes`"):
            chosen_recipe(*argument)


@pytest.mark.parametrize("name", NAMES)
def test_save_and_load_give_the_same_basis(name, tmp_path):
    basis, x = bases()[name], torch.randn(3, *SHAPE)
    basis.save(tmp_path / "basis.pt")
    again = load_basis(tmp_path / "basis.pt")
    assert type(again) is type(basis)
    assert (again.fingerprint, again.shape, again.describe()) == (basis.fingerprint, basis.shape, basis.describe())
    assert (again.labels, again.data.fingerprint) == (basis.labels, basis.data.fingerprint)
    assert torch.equal(again.project(x), basis.project(x))
    flat = (torch.Tensor, str, int, float, list, type(None))
    assert all(isinstance(value, flat) for value in basis.state().values())


class Loaded:
    def __reduce__(self):
        return (open, ("must-not-exist", "w"))


def test_load_executes_nothing_and_names_the_kinds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"kind": Loaded()}, tmp_path / "evil.pt")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        load_basis(tmp_path / "evil.pt")
    assert not (tmp_path / "must-not-exist").exists()
    with pytest.raises(ValueError, match=r"`kind` must be one of 'eigenmodes of the covariance', .* got 'wavelets'"):
        basis_from_state({"kind": "wavelets"})


class HaarBasis(Basis):
    """A basis of somebody else: sums and differences of neighbours on a line."""

    kind = "Haar modes"

    def __init__(self, data, vectors, variance):
        super().__init__(vectors, variance, data.mean, data.shape, data.source, data=data)

    @property
    def labels(self):
        return [f"haar {k}" for k in range(len(self.variance))]


def test_a_new_basis_is_one_class():
    mean, covariance = moments((24,))
    eye = torch.eye(24, dtype=torch.float64)
    vectors = torch.cat([eye[::2] + eye[1::2], eye[::2] - eye[1::2]]).T / 2**0.5
    data = PCABasis.from_moments(mean, covariance)
    basis = HaarBasis(data, vectors, (vectors.T @ covariance @ vectors).diagonal())
    assert chosen_recipe(basis) is basis
    again = basis_from_state(basis.state())
    assert (type(again), again.fingerprint) == (HaarBasis, basis.fingerprint)

    def wiener(z, sigma):
        return mean + (z - mean) @ torch.linalg.solve(covariance + sigma[0] ** 2 * eye, covariance)

    probe = SpectralProbe(again, Sampler(num_steps=6), 48)
    row = probe.measure(wiener, 0, dtype=torch.float64)
    np.testing.assert_allclose(row["variance"], probe.fixed_point, rtol=1e-9)


@pytest.mark.parametrize("sigma", [0.0, 0.7, 80.0])
@pytest.mark.parametrize("name", NAMES)
def test_diffuse_has_exactly_the_noisy_moments(name, sigma):
    mean, covariance = moments()
    basis = bases()[name]
    z = basis.diffuse(Latents(48, 24).rows(0, 48), sigma)
    assert z.shape == (48, *SHAPE)
    values, u = np.linalg.eigh(covariance.numpy())
    # Four modes are kept, and the mean variance of the others; eigenvalues ascend
    kept = np.where(np.arange(24) < 20, values[:20].mean(), values) if name == "leading" else values
    # Orthogonal latents have exactly the identity as second moment: rounding is all that is left
    expected, flat = (u * kept) @ u.T + sigma**2 * np.eye(24), z.flatten(1).numpy()
    np.testing.assert_allclose(np.cov(flat.T, ddof=0), expected, atol=1e-12 * (10 + sigma**2))
    np.testing.assert_allclose(flat.mean(0), mean, atol=1e-13 * (1 + sigma))


@pytest.mark.parametrize("name", NAMES)
def test_project_refuses_another_size(name):
    with pytest.raises(ValueError, match="`samples`"):
        bases()[name].project(torch.zeros(5, 3))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("natural", ["pca", "leading", "fourier", "bands"])
@pytest.mark.parametrize("name", NAMES)
def test_overlap_gives_the_variances_of_a_gaussian_diagonal_in_the_natural_basis(name, natural, seed):
    basis, other = bases(mean=5.0)[name], bases(seed=seed)[natural]
    v = np.random.default_rng(2).random(len(other.variance))
    w = other.vectors.numpy()
    covariance = (w * v[other.mode_of.numpy()]) @ w.T
    vectors, modes = directions(basis)
    along = np.einsum("io,ij,jo->o", vectors, covariance, vectors)
    matrix = overlap(basis, other)
    expected = [along[modes == k].mean() for k in range(len(basis.variance))]
    np.testing.assert_allclose(matrix.numpy() @ v, expected, rtol=1e-11, atol=1e-14)
    if natural != "leading":
        np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_basis_variances_are_those_of_its_data(name):
    basis = bases()[name]
    np.testing.assert_allclose(overlap(basis, basis.data) @ basis.data.variance, basis.variance, rtol=1e-11)


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
