"""Gaussian mixtures: moments, counts and Bayes' rule, by brute force and SciPy's densities."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import multivariate_normal

from spectral_lightning.datamodules import MixtureDataModule, SpectrumChoice

WEIGHTS = [5.0, 3.0, 2.0]
SPECTRA = [
    SpectrumChoice("power_law", exponent=1.0, scale=4.0),
    SpectrumChoice("given", variance=[0.5, 2.0, 1.0, 0.25]),
    SpectrumChoice("lognormal", scale=0.5),
]


def mixture(**arguments):
    return MixtureDataModule(
        **{
            "shape": 4,
            "weights": WEIGHTS,
            "spectra": SPECTRA,
            "separation": 3.0,
            "num_samples": 400,
            "num_val_samples": 100,
            "batch_size": 8,
            **arguments,
        }
    )


def split(rows):
    return [rows.data[rows.labels == c].double().flatten(1).numpy() for c in range(int(rows.labels.max()) + 1)]


@pytest.mark.parametrize("rotation", ["shared", "own", "none"])
def test_moments_against_brute_force(rotation):
    data = mixture(rotation=rotation)
    mean, covariance = data.population_moments()
    second, first = np.zeros((4, 4)), np.zeros(4)
    for c, w in enumerate([0.5, 0.3, 0.2]):
        m, s = (t.numpy() for t in data.populations[c].moments)
        first += w * m
        second += w * (s + np.outer(m, m))
    np.testing.assert_allclose(mean, first, rtol=0, atol=1e-14)
    np.testing.assert_allclose(covariance, second - np.outer(first, first), rtol=0, atol=1e-13)
    np.testing.assert_allclose(mean, 0, rtol=0, atol=1e-14)


@pytest.mark.parametrize("stratified", [False, True])
def test_samples_follow_the_mixture(stratified):
    data = mixture(num_samples=200_000, stratified=stratified)
    x = data.train_rows.data.double().numpy()
    mean, covariance = data.population_moments()
    # five standard errors; a mixture's fourth moment is at most a few times that of a Gaussian
    error = 10 * float(covariance.diagonal().max()) * (2 / 200_000) ** 0.5
    np.testing.assert_allclose(x.mean(0), mean, rtol=0, atol=error)
    np.testing.assert_allclose(np.cov(x.T, bias=True), covariance, rtol=0, atol=error)
    for c, samples in enumerate(split(data.train_rows)):
        m, s = data.populations[c].moments
        error = 5 * float(s.diagonal().max()) * (2 / len(samples)) ** 0.5
        np.testing.assert_allclose(np.cov(samples.T, bias=True), s, rtol=0, atol=error)
        np.testing.assert_allclose(samples.mean(0), m, rtol=0, atol=error)


def test_exact_moments_of_each_class_and_of_the_mixture():
    data = mixture(exact_moments=True)
    for rows in (data.train_rows, data.val_rows):
        for c, samples in enumerate(split(rows)):
            m, s = data.populations[c].moments
            # rounding of float32 at magnitude 5
            np.testing.assert_allclose(samples.mean(0), m, rtol=0, atol=1e-6)
            np.testing.assert_allclose(np.cov(samples.T, bias=True), s, rtol=0, atol=1e-5)
        # 400 and 100 samples divide by the weights, so the whole has the moments of the mixture too
        np.testing.assert_allclose(
            np.cov(rows.data.double().T, bias=True), data.population_moments()[1], rtol=0, atol=1e-5
        )


@pytest.mark.parametrize(
    ("weights", "count", "expected"),
    [
        (WEIGHTS, 400, [200, 120, 80]),
        ([1, 1, 1], 100, [34, 33, 33]),
        ([0.29, 0.71], 100, [29, 71]),
        ([0.995, 0.005], 1000, [995, 5]),
        ([1.0], 50, [50]),
    ],
)
def test_exact_class_counts(weights, count, expected):
    data = MixtureDataModule(4, weights, num_samples=count, batch_size=8)
    labels = data.train_rows.labels
    assert (labels.dtype, labels.bincount().tolist()) == (torch.int64, expected)
    if len(weights) > 1 and min(expected) > 20:
        assert len(labels[:20].unique()) > 1  # in random order


def test_random_class_counts_scatter_about_the_weights():
    counts = np.array([mixture(stratified=False, seed=k).train_rows.labels.bincount().tolist() for k in range(60)])
    share = np.array([0.5, 0.3, 0.2])
    deviation = np.sqrt(400 * share * (1 - share))
    assert (counts.sum(1) == 400).all()
    np.testing.assert_allclose(counts.mean(0), 400 * share, rtol=0, atol=4 * deviation.max() / 60**0.5)
    np.testing.assert_allclose(counts.std(0), deviation, rtol=4 / 120**0.5)  # four standard errors


@pytest.mark.parametrize("separation", [0.0, 0.7, 12.0])
def test_separation_is_the_distance_of_every_two_means(separation):
    data = mixture(separation=separation)
    means = np.stack([data.populations[c].moments[0] for c in range(3)])
    np.testing.assert_allclose(pdist(means), separation, rtol=0, atol=1e-13)


def test_given_means():
    means = [[0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 1.0, 1.0], [-5.0, 0.0, 0.0, 0.0]]
    data = mixture(separation=0.0, means=means)
    assert [data.populations[c].moments[0].tolist() for c in range(3)] == means


def test_rotations():
    shared, own, none = (mixture(rotation=r) for r in ("shared", "own", "none"))
    first, second = (shared.populations[c].moments[1].numpy() for c in (0, 1))
    np.testing.assert_allclose(first @ second, second @ first, rtol=0, atol=1e-13)  # the same modes: they commute
    _, modes = np.linalg.eigh(first)
    modes = modes[:, ::-1]
    # k goes with k
    np.testing.assert_allclose(modes.T @ second @ modes, np.diag([0.5, 2.0, 1.0, 0.25]), rtol=0, atol=1e-13)
    first, second = (own.populations[c].moments[1].numpy() for c in (0, 1))
    assert np.abs(first @ second - second @ first).max() > 0.01
    np.testing.assert_allclose(np.linalg.eigvalsh(second), [0.25, 0.5, 1.0, 2.0], rtol=1e-12)
    assert none.populations[1].moments[1].tolist() == np.diag([0.5, 2.0, 1.0, 0.25]).tolist()


@pytest.mark.parametrize("rotation", ["shared", "own", "none"])
def test_bayes_rule_against_scipy(rotation):
    data = mixture(rotation=rotation, separation=1.0, num_samples=2000)
    x = data.train_rows.data
    log = np.stack(
        [
            np.log(w) + multivariate_normal(*map(np.asarray, data.populations[c].moments)).logpdf(x.double().numpy())
            for c, w in enumerate([0.5, 0.3, 0.2])
        ],
        axis=1,
    )
    expected = log - np.log(np.exp(log).sum(1, keepdims=True))
    np.testing.assert_allclose(data.log_posterior(x), expected, rtol=1e-9, atol=1e-11)  # rounding of the densities
    assert torch.equal(data.classify(x), torch.from_numpy(expected.argmax(1)))
    # and no rule from the same samples is better than chance allows: its error is the mean of 1 - max posterior
    error = float((data.classify(x) != data.train_rows.labels).double().mean())
    predicted = 1 - np.exp(expected).max(1)
    assert abs(error - predicted.mean()) < 4 * 0.5 / 2000**0.5


def test_classifier_is_stable_far_away_and_with_null_modes():
    data = MixtureDataModule(
        3,
        [1.0, 1.0, 1.0],
        spectra=[
            SpectrumChoice("given", variance=[1.0, 0.0, 0.0]),  # a line
            SpectrumChoice("given", variance=[1.0, 1.0, 0.0]),  # a plane that holds it
            SpectrumChoice("given", variance=[1.0, 1.0, 1.0]),
        ],
        rotation="none",
        num_samples=300,
        batch_size=8,
    )
    points = torch.tensor([[0.5, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.5], [1e6, 1e6, 1e6]])
    assert data.classify(points).tolist() == [0, 1, 2, 2]
    assert torch.isfinite(data.log_posterior(points)).all()
    assert torch.equal(data.classify(data.train_rows.data), data.train_rows.labels)


def test_images_are_the_flat_samples_reshaped():
    data, flat = mixture(shape=[1, 2, 2]), mixture()
    assert (data.shape, data.num_classes, flat.shape) == ((1, 2, 2), 3, (4,))
    assert torch.equal(data.train_rows.data.flatten(1), flat.train_rows.data)
    assert torch.equal(data.classify(data.train_rows.data), flat.classify(flat.train_rows.data))
    assert torch.equal(mixture(labels=False).train_rows.data, flat.train_rows.data)
    with pytest.raises(ValueError, match="`samples` must have shape"):
        data.classify(torch.zeros(2, 5))


@pytest.mark.parametrize(
    "arguments",
    [
        *({"shape": shape} for shape in (0, [2, 0])),
        *({"weights": weights} for weights in ([], [1.0, 0.0, 1.0])),
        {"spectra": SPECTRA[:2]},
        {"separation": -1.0},
        {"separation": 3.0, "shape": 2, "spectra": None},
        {"separation": 3.0, "means": [[0.0] * 4] * 3},
        *({"means": means, "separation": 0.0} for means in ([[0.0] * 4] * 2, [[0.0] * 3] * 3)),
        {"rotation": "some"},
        {"stratified": False, "exact_moments": True},
        {"num_samples": 20, "exact_moments": True},
        {"num_val_samples": 10, "exact_moments": True},
    ],
)
def test_bad_input(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must"):
        mixture(**arguments)
