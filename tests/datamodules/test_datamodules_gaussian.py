"""The Gaussian data: its spectrum, its moments, and where its random numbers come from."""

import pickle
import random

import numpy as np
import pytest
import torch

from spectral_lightning.datamodules import GaussianDataModule, GaussianPopulation
from spectral_lightning.datamodules.synthetic.population import haar_rotation, lognormal_spectrum
from spectral_lightning.spectra.population import HasPopulationMoments


def small(**arguments):
    return GaussianDataModule(**{"dim": 6, "num_samples": 40, "num_val_samples": 20, "batch_size": 8, **arguments})


def numpy_moments(samples):
    x = samples.double().numpy()
    return x.mean(0), np.cov(x.T, bias=True)


def test_lognormal_spectrum_is_descending_with_mean_one_and_standard_normal_logarithm():
    variance = lognormal_spectrum(20_000, torch.Generator().manual_seed(0)).numpy()
    assert (np.diff(variance) <= 0).all()
    np.testing.assert_allclose(variance.mean(), 1.0, rtol=1e-12)  # rounding of a mean in float64
    log = np.log(variance)
    # four standard errors: 4 / sqrt(2 * 20000) for the deviation, 4 / sqrt(20000) for the mean, which is -log E[e^g] = -1/2
    np.testing.assert_allclose(log.std(), 1.0, atol=0.02)
    np.testing.assert_allclose(log.mean(), -0.5, atol=0.06)


@pytest.mark.parametrize(("exponent", "scale"), [(0.0, 1.0), (1.0, 2.0), (2.5, 0.1)])
def test_power_law_spectrum(exponent, scale):
    data = small(spectrum="power_law", exponent=exponent, scale=scale)
    expected = [scale / k**exponent for k in range(1, 7)]
    np.testing.assert_allclose(data.variance.numpy(), expected, rtol=1e-14)


def test_scale_is_the_mean_variance_of_the_lognormal_spectrum():
    np.testing.assert_allclose(small(scale=3.0).variance.mean(), 3.0, rtol=1e-14)


def test_given_variances_belong_to_the_coordinates_and_are_sorted_as_modes():
    given = [0.5, 4.0, 1.0, 0.0, 2.0, 1.0]
    data = small(spectrum="given", variance=given, rotation=False)
    assert data.covariance.tolist() == np.diag(given).tolist()
    assert data.variance.tolist() == sorted(given, reverse=True)
    assert (data.covariance @ data.modes).tolist() == (data.modes * data.variance).tolist()


@pytest.mark.parametrize("spectrum", ["lognormal", "power_law"])
def test_modes_and_variance_are_the_eigenpairs_of_the_covariance(spectrum):
    data = GaussianDataModule(dim=32, spectrum=spectrum)
    covariance, modes = data.covariance.numpy(), data.modes.numpy()
    np.testing.assert_allclose(modes.T @ modes, np.eye(32), atol=1e-13)  # orthogonal to rounding
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance)[::-1], data.variance.numpy(), rtol=1e-12)
    np.testing.assert_allclose(covariance @ modes, modes * data.variance.numpy(), atol=1e-13)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() > 0.01  # it is rotated


def test_rotation_is_uniform_over_orthogonal_matrices():
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([haar_rotation(3, generator) for _ in range(4000)])
    # Entries of a Haar matrix have mean 0 and variance 1/3; LAPACK's Q alone has mean -1/2 in its first entry.
    assert draws.mean(0).abs().max() < 4 * (1 / 3 / 4000) ** 0.5
    assert abs(torch.linalg.det(draws).mean()) < 4 / 4000**0.5


@pytest.mark.parametrize(("mean", "expected"), [(0.0, [0] * 6), (2, [2] * 6), ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6])])
def test_mean(mean, expected):
    data = small(mean=mean, exact_moments=True)
    assert data.mean.tolist() == expected
    # rounding of float32 at magnitude 6
    np.testing.assert_allclose(data.train_rows.data.double().mean(0), expected, atol=1e-6)


@pytest.mark.parametrize("count", [65, 200, 3000])
@pytest.mark.parametrize("which", ["train_rows", "val_rows"])
def test_exact_moments_of_the_float32_samples(which, count):
    data = GaussianDataModule(
        dim=64, mean=0.5, exact_moments=True, num_samples=count, num_val_samples=count, batch_size=8
    )
    mean, covariance = numpy_moments(getattr(data, which).data)
    # each sample is rounded to 6e-8 of its magnitude, and the roundings are nearly independent
    np.testing.assert_allclose(mean, data.mean, atol=1e-6)
    np.testing.assert_allclose(covariance, data.covariance, atol=1e-6)


@pytest.mark.parametrize("count", [65, 200, 3000])
def test_exact_moments_before_the_cast(count):
    data = GaussianDataModule(dim=64, spectrum="power_law", exponent=4.0, mean=3.0)
    samples = data.population.sample(count, torch.Generator().manual_seed(1), exact_moments=True)
    mean, covariance = numpy_moments(samples)
    np.testing.assert_allclose(mean, 3.0, rtol=1e-12)
    # relative to the eigenvalues, which reach down to 6e-8, seen from the modes
    whitened = data.modes.T.numpy() @ covariance @ data.modes.numpy() / np.sqrt(np.outer(data.variance, data.variance))
    np.testing.assert_allclose(whitened, np.eye(64), atol=1e-8)
    np.testing.assert_allclose(covariance, data.covariance, atol=1e-12)


def test_samples_follow_the_population():
    data = GaussianDataModule(dim=4, mean=1.0, num_samples=200_000)
    mean, covariance = numpy_moments(data.train_rows.data)
    # five standard errors, at most lambda_1 sqrt(2 / n)
    np.testing.assert_allclose(covariance, data.covariance, atol=5 * float(data.variance[0]) * (2 / 200_000) ** 0.5)
    np.testing.assert_allclose(mean, 1.0, atol=5 * (float(data.variance[0]) / 200_000) ** 0.5)
    assert np.abs(covariance - data.covariance.numpy()).max() > 1e-5  # not exact unless asked


def test_global_random_states_are_neither_read_nor_moved():
    def build():
        data = small(exact_moments=True)
        data.setup()
        return data.train_rows.data, data.val_rows.data, data.population_moments()[1]

    torch.manual_seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    first = build()
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, build(), strict=True))


def test_seed_governs_everything_and_the_sample_count_not_the_population():
    a, same, other, more = small(seed=3), small(seed=3), small(seed=4), small(seed=3, num_samples=99)
    assert torch.equal(a.train_rows.data, same.train_rows.data)
    assert torch.equal(a.val_rows.data, more.val_rows.data)
    assert torch.equal(a.covariance, more.covariance)
    assert not torch.equal(a.variance, other.variance)
    assert not torch.equal(a.modes, other.modes)
    assert torch.cdist(a.train_rows.data, a.val_rows.data).min() > 1e-3  # no sample is in both sets


def test_batches_are_plain_float32_tensors():
    data = small(num_samples=20)
    batches = list(data.train_dataloader())
    assert [(type(b), b.dtype, tuple(b.shape)) for b in batches] == [(torch.Tensor, torch.float32, (8, 6))] * 2
    assert [len(b) for b in data.val_dataloader()] == [8, 8, 4]
    assert (data.shape, data.dim) == ((6,), 6)


def test_shuffle():
    data, fixed = small(batch_size=40), small(batch_size=40, shuffle=False)
    assert torch.equal(next(iter(fixed.train_dataloader())), fixed.train_rows.data)
    shuffled = next(iter(data.train_dataloader()))
    assert not torch.equal(shuffled, data.train_rows.data)
    assert torch.equal(shuffled.sort(0).values, data.train_rows.data.sort(0).values)


@pytest.mark.parametrize("exact_moments", [False, True])
def test_no_validation_set_means_no_loader(exact_moments):
    data = small(num_val_samples=0, exact_moments=exact_moments)
    data.setup()
    assert data.val_dataloader() == []


def test_population_moments_before_any_setup():
    data = small(mean=1.5)
    assert isinstance(data, HasPopulationMoments)
    mean, covariance = data.population_moments()
    assert (mean.dtype, covariance.dtype) == (torch.float64, torch.float64)
    assert mean.tolist() == [1.5] * 6
    assert torch.equal(covariance, data.covariance)
    assert not isinstance(torch.nn.Linear(1, 1), HasPopulationMoments)


def test_pickled_module_gives_the_same_data():
    data = small()
    assert torch.equal(pickle.loads(pickle.dumps(data)).train_rows.data, data.train_rows.data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "`dim` must be a positive integer, got 0"),
        ({"dim": 6.0}, "`dim` must be a positive integer, got 6.0"),
        ({"spectrum": "pink"}, "`spectrum` must be one of 'lognormal', 'power_law', 'given', got 'pink'"),
        ({"spectrum": "power_law", "exponent": -1.0}, "`exponent` must be a finite number of zero or more"),
        ({"scale": 0.0}, "`scale` must be a positive"),
        ({"scale": float("nan")}, "`scale` must be a positive"),
        ({"spectrum": "given"}, "`variance` must be given with `spectrum` 'given' and only then"),
        ({"variance": [1.0] * 6}, "`variance` must be given with `spectrum` 'given' and only then"),
        ({"spectrum": "given", "variance": [1.0] * 5}, "`variance` must be 6 finite numbers"),
        ({"spectrum": "given", "variance": [1.0] * 5 + [float("inf")]}, "`variance` must be 6 finite numbers"),
        ({"spectrum": "given", "variance": [1.0] * 5 + [-1.0]}, "`variance` must be zero or more and not all zero"),
        ({"spectrum": "given", "variance": [0.0] * 6}, "`variance` must be zero or more and not all zero"),
        ({"mean": [0.0] * 7}, "`mean` must be 6 finite numbers"),
        ({"mean": float("nan")}, "`mean` must be 6 finite numbers"),
        ({"num_samples": 0}, "`num_samples` must be a positive integer"),
        ({"num_val_samples": -1}, "`num_val_samples` must be an integer of at least 0"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer"),
        ({"batch_size": 41}, "`batch_size` must be at most the number of training samples .* 40, got 41"),
        ({"num_samples": 8, "dim": 8, "exact_moments": True}, "`num_samples` must be more than the dimension, 8"),
        ({"num_val_samples": 6, "exact_moments": True}, "`num_val_samples` must be more than the dimension, 6"),
        ({"seed": -1}, "`seed` must be an integer of at least 0"),
        ({"num_workers": -1}, "`num_workers` must be an integer of at least 0"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def test_whitening_takes_more_samples_than_dimensions():
    population = GaussianPopulation(torch.zeros(3), torch.ones(3), torch.eye(3))
    with pytest.raises(ValueError, match="must be more than the dimension, 3, to be whitened, got 3"):
        population.sample(3, torch.Generator(), exact_moments=True)
