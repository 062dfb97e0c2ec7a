"""Spectrum edits against an independent eigendecomposition in NumPy, and as transforms of any data."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from spectral_lightning.datamodules import (
    EditedDataset,
    GaussianDataModule,
    ImageDataModule,
    PatchDataModule,
    Recolor,
    SwapVariances,
    Whiten,
)

SHAPE = (2, 3)


@pytest.fixture
def samples():
    """200 samples of six dimensions with distinct variances, far from the origin, not Gaussian."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, 6)) * [5, 3, 2, 1, 0.5, 0.1]
    return torch.from_numpy((rng.exponential(size=(200, 6)) @ mixing.T + 50.0).reshape(200, *SHAPE))


def numpy_eigh(samples):
    """Mean, variances in descending order and modes of samples ``[n, *S]``, by NumPy alone."""
    x = samples.double().reshape(len(samples), -1).numpy()
    variance, modes = np.linalg.eigh(np.cov(x.T, bias=True))
    return x.mean(0), variance[::-1], modes[:, ::-1]


def naive(samples, new):
    """The edit written out: a full matrix from the textbook formula."""
    mean, old, modes = numpy_eigh(samples)
    matrix = modes @ np.diag(np.sqrt(new(old) / old)) @ modes.T
    x = samples.double().reshape(len(samples), -1).numpy()
    return (mean + (x - mean) @ matrix.T).reshape(samples.shape)


def swapped(old):
    new = old.copy()
    new[[0, 5, 2, 3]] = old[[5, 0, 3, 2]]
    return new


EDITS = [
    (Whiten(), np.ones_like),
    (Whiten(variance=0.25), lambda old: 0.25 * np.ones_like(old)),
    (Whiten(floor=0.1), lambda old: np.minimum(1.0, old / (0.1 * old[0]))),
    (Recolor(exponent=2.0, scale=3.0), lambda old: 3.0 / np.arange(1, 7) ** 2),
    (Recolor(exponent=0.0, keep_total=True), lambda old: np.full(6, old.mean())),
    (Recolor(exponent=1.0, keep_total=True), lambda old: old.sum() / np.arange(1, 7) / (1 / np.arange(1, 7)).sum()),
    (SwapVariances([[0, 5], [3, 2]]), swapped),
]


@pytest.mark.parametrize(("edit", "new"), EDITS, ids=[type(edit).__name__ for edit, _ in EDITS])
def test_samples_and_moments_are_those_of_the_formula(samples, edit, new):
    fitted = edit.fit(samples)
    edited = fitted(samples)
    # rounding of float64: modes are known to 1e-16 lambda_0 / lambda_5, and stretched by up to the root of that ratio
    np.testing.assert_allclose(edited, naive(samples, new), rtol=0, atol=1e-8)
    mean, old, modes = numpy_eigh(samples)
    after = modes.T @ np.cov(edited.reshape(200, 6).numpy().T, bias=True) @ modes
    np.testing.assert_allclose(after, np.diag(new(old)), rtol=1e-8, atol=1e-9 * old[0])
    np.testing.assert_allclose(edited.reshape(200, 6).mean(0), mean, rtol=1e-12)
    np.testing.assert_allclose(fitted.moments()[0], mean, rtol=1e-14)
    np.testing.assert_allclose(
        modes.T @ fitted.moments()[1].numpy() @ modes, np.diag(new(old)), rtol=0, atol=1e-10 * old[0]
    )


def test_modes_that_keep_their_variance_are_not_touched():
    samples = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([4.0, 3.0, 2.0, 1.0])
    fitted = SwapVariances([[0, 3]]).fit(samples)
    _, _, modes = numpy_eigh(samples)
    moved = (fitted(samples.double()) - samples).numpy() @ modes
    np.testing.assert_allclose(moved[:, 1:3], 0, rtol=0, atol=1e-14)
    assert np.abs(moved[:, [0, 3]]).max() > 0.5


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.1])
def test_whitening_equal_variances_does_not_depend_on_the_choice_of_modes(angle):
    # Covariance diag(4, 4, 1) in any rotation of its first two axes is the same; so must the whitening be.
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    covariance = torch.from_numpy(rotation @ np.diag([4.0, 4.0, 1.0]) @ rotation.T)
    fitted = Whiten().fit_moments(torch.zeros(3), covariance)
    x = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    np.testing.assert_allclose(fitted(x), [[0.5, 1.0, 3.0]], rtol=1e-14)


@pytest.mark.parametrize("edit", [Whiten(), Recolor(exponent=1.0), SwapVariances([[0, 2]])])
def test_null_modes_are_left_alone(edit):
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(40, 3, generator=generator) @ torch.randn(3, 5, generator=generator) + 1.0  # rank 3 of 5
    fitted = edit.fit(flat)
    _, old, modes = numpy_eigh(flat)
    along_null = torch.from_numpy(modes[:, 3:].copy())
    off_plane = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    np.testing.assert_allclose(
        fitted(off_plane) @ along_null, off_plane @ along_null, rtol=0, atol=1e-5
    )  # float32 modes
    assert np.linalg.matrix_rank(np.cov(fitted(flat).double().T), tol=1e-6 * old[0]) == 3


def test_fewer_samples_than_dimensions():
    samples = torch.randn(5, 20, generator=torch.Generator().manual_seed(0))
    _, variance, _ = numpy_eigh(Whiten().fit(samples)(samples))
    np.testing.assert_allclose(variance[:4], 1.0, rtol=1e-5)  # rounding of float32 samples
    np.testing.assert_allclose(variance[4:], 0.0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_type_and_leading_axes_come_back(samples, dtype):
    fitted = Whiten().fit(samples)
    exact = fitted(samples)
    given = samples.to(dtype)
    assert fitted(given).dtype == dtype
    np.testing.assert_array_equal(fitted(given).double(), fitted(given.double()).to(dtype).double())
    single, grid = fitted(samples[3]), fitted(samples.reshape(10, 20, *SHAPE))
    np.testing.assert_allclose(single, exact[3], rtol=0, atol=1e-11)
    np.testing.assert_allclose(grid, exact.reshape(10, 20, *SHAPE), rtol=0, atol=1e-11)
    assert fitted(samples[:0]).shape == (0, *SHAPE)


def test_any_dataset_keeps_its_labels(samples):
    labels = torch.arange(200)
    train = EditedDataset(TensorDataset(samples, labels), Whiten())
    expected = naive(samples, np.ones_like)
    assert len(train) == 200
    np.testing.assert_allclose(train[7][0], expected[7], rtol=0, atol=1e-10)
    x, y = next(iter(DataLoader(train, batch_size=16)))
    np.testing.assert_allclose(x, expected[:16], rtol=0, atol=1e-10)
    assert y.tolist() == list(range(16))


def test_validation_goes_through_the_edit_of_the_training_set(samples):
    train = EditedDataset(samples[:100], Whiten())
    val = EditedDataset(samples[100:], train.edit)
    mean, old, modes = numpy_eigh(samples[:100])
    x = samples[100:].reshape(100, 6).numpy()
    expected = mean + (x - mean) @ modes / np.sqrt(old) @ modes.T
    np.testing.assert_allclose(torch.stack([val[k] for k in range(100)]).reshape(100, 6), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (PatchDataModule, {"photographs": ["camera"], "size": 6, "max_patches": 500}),
        *((ImageDataModule, {"dataset": "digits", "cache": cache}) for cache in ("memory", "device")),
    ],
    ids=["patches", "memory", "device"],
)
def test_both_parts_of_images_go_through_the_edit_of_the_training_part(kind, arguments):
    plain, white = (kind(**arguments, batch_size=8, edit=edit) for edit in (None, Whiten(floor=1e-3)))
    mean, old, modes = numpy_eigh(plain.train_rows.data)
    gain = np.where(old > 1e-10 * old[0], 1 / np.sqrt(np.maximum(old, 1e-3 * old[0])), 1.0)
    for which in ("train_rows", "val_rows"):
        x = getattr(plain, which).data.double().flatten(1).numpy()
        edited = getattr(white, which).data.flatten(1)
        # rounding of float32, amplified by at most 1 / sqrt(1e-3 * old[0])
        np.testing.assert_allclose(edited, mean + ((x - mean) @ modes) * gain @ modes.T, rtol=0, atol=1e-4)
        assert np.abs(edited.numpy() - x).max() > 0.1


@pytest.mark.parametrize("rotation", [False, True])
def test_gaussian_data_follow_an_edit_of_their_population(rotation):
    arguments = {"dim": 4, "spectrum": "power_law", "rotation": rotation, "num_samples": 50, "batch_size": 10}
    plain = GaussianDataModule(**arguments)
    edited = GaussianDataModule(**arguments, edit=SwapVariances([[0, 3]]), exact_moments=True)
    u = plain.population.modes.numpy()
    expected = u @ np.diag([1 / 4, 1 / 2, 1 / 3, 1]) @ u.T
    np.testing.assert_allclose(edited.population_moments()[1], expected, rtol=0, atol=1e-15)
    np.testing.assert_allclose(
        np.cov(edited.train_rows.data.double().T, bias=True), expected, rtol=0, atol=1e-6
    )  # float32
    np.testing.assert_allclose(edited.population.variance, plain.population.variance)  # still in descending order


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        *((Whiten, given) for given in ({"variance": 0.0}, {"floor": -0.1}, {"floor": 2.0})),
        *((Recolor, given) for given in ({"exponent": -1.0}, {"scale": 0.0}, {"scale": 2.0, "keep_total": True})),
        *((SwapVariances, {"pairs": p}) for p in ([], [[0, 1, 2]], [[0, -1]], [[0, 0]], [[0, 1], [2, 1]])),
    ],
)
def test_bad_arguments(kind, arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must"):
        kind(**arguments)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (torch.zeros(10, 3), "`samples` must vary"),
        (torch.zeros(1, 3), "`samples` must have shape"),
        (torch.zeros(10), "`samples` must have shape"),
        (torch.full((10, 3), torch.nan), "must be finite"),
        (torch.randn(10, 3), "`pairs` must name modes that have a variance, 0 to 2"),
        (torch.randn(10, 4) * torch.tensor([1, 1, 1, 0.0]), "`pairs` must name modes that have a variance, 0 to 2"),
    ],
)
def test_data_that_an_edit_cannot_be_fitted_to(samples, message):
    with pytest.raises(ValueError, match=message):
        SwapVariances([[0, 3]]).fit(samples)


def test_other_shapes_and_items_are_refused(samples):
    fitted = Whiten().fit(samples)
    with pytest.raises(ValueError, match="`samples` must have shape"):
        fitted(samples[:4].transpose(1, 2))
    with pytest.raises(TypeError, match="`dataset` must hold tensors"):
        EditedDataset([np.zeros(3), np.ones(3)], Whiten())
