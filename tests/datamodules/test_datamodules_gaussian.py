"""The Gaussian data: its spectrum, its moments, and where its random numbers come from."""

import numpy as np
import pytest
import torch

from spectral_lightning.datamodules import GaussianDataModule, GaussianPopulation, SpectrumChoice
from spectral_lightning.datamodules.synthetic.population import haar_rotation


def small(**arguments):
    return GaussianDataModule(**{"dim": 6, "num_samples": 40, "num_val_samples": 20, "batch_size": 8, **arguments})


def numpy_moments(samples):
    x = samples.double().numpy()
    return x.mean(0), np.cov(x.T, bias=True)


def test_lognormal_spectrum_is_descending_with_the_mean_given_and_standard_normal_logarithm():
    variance = SpectrumChoice("lognormal", scale=3.0).variances(20_000, np.random.default_rng(0)).numpy()
    assert (np.diff(variance) <= 0).all()
    np.testing.assert_allclose(variance.mean(), 3.0, rtol=1e-12)  # rounding of a mean in float64
    log = np.log(variance / 3)
    # four standard errors: 4 / sqrt(2 * 20000) for the deviation, 4 / sqrt(20000) for the mean, which is -log E[e^g] = -1/2
    np.testing.assert_allclose(log.std(), 1.0, atol=0.02)
    np.testing.assert_allclose(log.mean(), -0.5, atol=0.06)


@pytest.mark.parametrize(("exponent", "scale"), [(0.0, 1.0), (1.0, 2.0), (2.5, 0.1)])
def test_power_law_spectrum(exponent, scale):
    data = small(spectrum="power_law", exponent=exponent, scale=scale)
    expected = [scale / k**exponent for k in range(1, 7)]
    np.testing.assert_allclose(data.population.variance.numpy(), expected, rtol=1e-14)


def test_given_variances_belong_to_the_coordinates_and_are_sorted_as_modes():
    given = [0.5, 4.0, 1.0, 0.0, 2.0, 1.0]
    data = small(spectrum="given", variance=given, rotation=False)
    assert data.population.covariance.tolist() == np.diag(given).tolist()
    assert data.population.variance.tolist() == sorted(given, reverse=True)
    assert (data.population.covariance @ data.population.modes).tolist() == (
        data.population.modes * data.population.variance
    ).tolist()


@pytest.mark.parametrize("spectrum", ["lognormal", "power_law"])
def test_modes_and_variance_are_the_eigenpairs_of_the_covariance(spectrum):
    data = GaussianDataModule(dim=32, spectrum=spectrum)
    covariance, modes = data.population.covariance.numpy(), data.population.modes.numpy()
    np.testing.assert_allclose(modes.T @ modes, np.eye(32), atol=1e-13)  # orthogonal to rounding
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance)[::-1], data.population.variance.numpy(), rtol=1e-12)
    np.testing.assert_allclose(covariance @ modes, modes * data.population.variance.numpy(), atol=1e-13)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() > 0.01  # it is rotated


def test_rotation_is_uniform_over_orthogonal_matrices():
    generator = np.random.default_rng(0)
    draws = torch.stack([haar_rotation(3, generator) for _ in range(4000)])
    # Entries of a Haar matrix have mean 0 and variance 1/3; LAPACK's Q alone has mean -1/2 in its first entry.
    assert draws.mean(0).abs().max() < 4 * (1 / 3 / 4000) ** 0.5
    assert abs(torch.linalg.det(draws).mean()) < 4 / 4000**0.5


@pytest.mark.parametrize(("mean", "expected"), [(0.0, [0] * 6), (2, [2] * 6), ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6])])
def test_mean(mean, expected):
    data = small(mean=mean, exact_moments=True)
    assert data.population.mean.tolist() == expected
    # rounding of float32 at magnitude 6
    np.testing.assert_allclose(data.train_rows.data.double().mean(0), expected, atol=1e-6)


@pytest.mark.parametrize("count", [65, 200, 3000])
def test_exact_moments_before_the_cast(count):
    data = GaussianDataModule(dim=64, spectrum="power_law", exponent=4.0, mean=3.0)
    samples = data.population.sample(count, np.random.default_rng(1), exact_moments=True)
    mean, covariance = numpy_moments(samples)
    np.testing.assert_allclose(mean, 3.0, rtol=1e-12)
    # relative to the eigenvalues, which reach down to 6e-8, seen from the modes
    scaled = (data.population.modes / data.population.variance.sqrt()).numpy()
    np.testing.assert_allclose(scaled.T @ covariance @ scaled, np.eye(64), atol=1e-8)
    np.testing.assert_allclose(covariance, data.population.covariance, atol=1e-12)


def test_samples_follow_the_population():
    data = GaussianDataModule(dim=4, mean=1.0, num_samples=200_000)
    mean, covariance = numpy_moments(data.train_rows.data)
    # five standard errors, at most lambda_1 sqrt(2 / n)
    np.testing.assert_allclose(
        covariance, data.population.covariance, atol=5 * float(data.population.variance[0]) * (2 / 200_000) ** 0.5
    )
    np.testing.assert_allclose(mean, 1.0, atol=5 * (float(data.population.variance[0]) / 200_000) ** 0.5)
    assert np.abs(covariance - data.population.covariance.numpy()).max() > 1e-5  # not exact unless asked


def test_the_sample_count_does_not_govern_the_population():
    few, many, other = small(seed=3), small(seed=3, num_samples=99), small(seed=4)
    assert torch.equal(few.val_rows.data, many.val_rows.data)
    assert torch.equal(few.population_moments()[1], many.population_moments()[1])
    assert not torch.equal(few.population.variance, other.population.variance)
    assert not torch.equal(few.population.modes, other.population.modes)
    assert torch.cdist(few.train_rows.data, few.val_rows.data).min() > 1e-3  # no sample is in both sets
    fixed = small(batch_size=40, shuffle=False)
    assert torch.equal(next(iter(fixed.train_dataloader())), fixed.train_rows.data)


@pytest.mark.parametrize(
    "arguments",
    [
        *({"dim": n} for n in (0, 6.0)),
        {"spectrum": "pink"},
        {"exponent": -1.0},
        *({"scale": scale} for scale in (0.0, float("nan"))),
        {"variance": [1.0] * 6},
        *({"variance": [1.0] * 5 + last, "spectrum": "given"} for last in ([], [float("inf")], [-1.0], [0.0, 0.0])),
        {"variance": [0.0] * 6, "spectrum": "given"},
        {"variance": None, "spectrum": "given"},
        *({"mean": mean} for mean in ([0.0] * 7, float("nan"))),
        {"num_samples": 0},
        {"num_samples": 6, "batch_size": 6, "exact_moments": True},
        {"num_val_samples": -1},
        {"num_val_samples": 6, "exact_moments": True},
    ],
)
def test_bad_input(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must"):
        small(**arguments)


def test_whitening_takes_more_samples_than_dimensions():
    population = GaussianPopulation(torch.zeros(3), torch.ones(3), torch.eye(3))
    with pytest.raises(ValueError, match="`samples` must be more than the dimension"):
        population.sample(3, np.random.default_rng(0), exact_moments=True)
