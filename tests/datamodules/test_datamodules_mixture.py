"""Gaussian mixtures: moments, counts and Bayes' rule, by brute force and SciPy's densities."""

import pickle

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule
from scipy.spatial.distance import pdist
from scipy.stats import multivariate_normal, norm

from spectral_lightning.datamodules import MixtureDataModule, SpectrumChoice
from spectral_lightning.spectra.population import HasPopulationMoments

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
        m, s = (t.numpy() for t in data.class_moments(c))
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
        m, s = data.class_moments(c)
        error = 5 * float(s.diagonal().max()) * (2 / len(samples)) ** 0.5
        np.testing.assert_allclose(np.cov(samples.T, bias=True), s, rtol=0, atol=error)
        np.testing.assert_allclose(samples.mean(0), m, rtol=0, atol=error)


def test_exact_moments_of_each_class_and_of_the_mixture():
    data = mixture(exact_moments=True)
    for rows in (data.train_rows, data.val_rows):
        for c, samples in enumerate(split(rows)):
            m, s = data.class_moments(c)
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
    means = np.stack([data.class_moments(c)[0] for c in range(3)])
    np.testing.assert_allclose(pdist(means), separation, rtol=0, atol=1e-13)


def test_given_means():
    means = [[0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 1.0, 1.0], [-5.0, 0.0, 0.0, 0.0]]
    data = mixture(separation=0.0, means=means)
    assert [data.class_moments(c)[0].tolist() for c in range(3)] == means


def test_rotations():
    shared, own, none = (mixture(rotation=r) for r in ("shared", "own", "none"))
    first, second = (shared.class_moments(c)[1].numpy() for c in (0, 1))
    np.testing.assert_allclose(first @ second, second @ first, rtol=0, atol=1e-13)  # the same modes: they commute
    _, modes = np.linalg.eigh(first)
    modes = modes[:, ::-1]
    np.testing.assert_allclose(
        modes.T @ second @ modes, np.diag([0.5, 2.0, 1.0, 0.25]), rtol=0, atol=1e-13
    )  # k goes with k
    first, second = (own.class_moments(c)[1].numpy() for c in (0, 1))
    assert np.abs(first @ second - second @ first).max() > 0.01
    np.testing.assert_allclose(np.linalg.eigvalsh(second), [0.25, 0.5, 1.0, 2.0], rtol=1e-12)
    assert none.class_moments(1)[1].tolist() == np.diag([0.5, 2.0, 1.0, 0.25]).tolist()


@pytest.mark.parametrize("rotation", ["shared", "own", "none"])
def test_bayes_rule_against_scipy(rotation):
    data = mixture(rotation=rotation, separation=1.0, num_samples=2000)
    x = data.train_rows.data
    log = np.stack(
        [
            np.log(w) + multivariate_normal(*map(np.asarray, data.class_moments(c))).logpdf(x.double().numpy())
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


@pytest.mark.parametrize("weights", [[1.0, 1.0], [9.0, 1.0]])
def test_error_rate_of_a_separated_pair_is_the_closed_form(weights):
    data = MixtureDataModule(
        6,
        weights,
        spectra=SpectrumChoice("power_law", exponent=0.0, scale=2.0),
        separation=3.0,
        num_samples=50_000,
        num_val_samples=0,
    )
    # Two classes of one covariance 2 I, a distance 3 apart: a threshold on the line between them.
    w, distance = np.array(weights) / sum(weights), 3.0 / np.sqrt(2.0)
    shift = np.log(w[0] / w[1]) / distance
    expected = w[0] * norm.cdf(-distance / 2 - shift) + w[1] * norm.cdf(-distance / 2 + shift)
    rows = data.train_rows
    error = float((data.classify(rows.data) != rows.labels).double().mean())
    assert abs(error - expected) < 4 * (expected / 50_000) ** 0.5  # four standard errors


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


def test_images_and_batches():
    data = mixture(shape=[1, 2, 2])
    x, label = next(iter(data.train_dataloader()))
    assert (tuple(x.shape), x.dtype, tuple(label.shape), label.dtype) == (
        (8, 1, 2, 2),
        torch.float32,
        (8,),
        torch.int64,
    )
    flat = mixture()
    assert torch.equal(data.train_rows.data.flatten(1), flat.train_rows.data)
    assert torch.equal(data.classify(data.train_rows.data), flat.classify(flat.train_rows.data))
    assert (data.shape, data.dim, data.num_classes, flat.shape) == ((1, 2, 2), 4, 3, (4,))
    assert isinstance(data, HasPopulationMoments)
    assert [len(batch[1]) for batch in mixture(num_val_samples=20).val_dataloader()] == [8, 8, 4]
    assert mixture(num_val_samples=0).val_dataloader() == []


def test_items_and_batches_go_together():
    data = mixture(shuffle=False)
    rows = data.train_rows
    x, label = next(iter(data.train_dataloader()))
    assert torch.equal(x, rows.data[:8])
    assert torch.equal(label, rows.labels[:8])
    assert torch.equal(rows[3][0], rows.data[3])
    assert rows[3][1] == rows.labels[3]


def test_without_labels_batches_are_plain_tensors():
    labelled, plain = mixture(shuffle=False), mixture(shuffle=False, labels=False)
    batch = next(iter(plain.train_dataloader()))
    assert type(batch) is torch.Tensor
    assert torch.equal(batch, next(iter(labelled.train_dataloader()))[0])
    assert torch.equal(plain.train_rows[5], plain.train_rows.data[5])


def test_seed_and_global_random_state():
    state = torch.get_rng_state()
    first = mixture(seed=1)
    first.setup()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    again, other, more = mixture(seed=1), mixture(seed=2), mixture(seed=1, num_samples=500)
    assert torch.equal(again.train_rows.data, first.train_rows.data)
    assert not torch.equal(other.train_rows.data, first.train_rows.data)
    assert torch.equal(more.population_moments()[1], first.population_moments()[1])
    assert torch.equal(pickle.loads(pickle.dumps(first)).val_rows.data, first.val_rows.data)


def test_from_yaml():
    text = """
data:
  class_path: spectral_lightning.datamodules.MixtureDataModule
  init_args:
    shape: [1, 2, 2]
    weights: [9, 1]
    spectra:
      - {spectrum: power_law, exponent: 0, scale: 1}
      - {spectrum: given, variance: [4, 3, 2, 1], scale: 2}
    rotation: none
    means: [[0, 0, 0, 0], [1, 1, 1, 1]]
    num_samples: 100
    batch_size: 10
"""
    parser = ArgumentParser()
    parser.add_subclass_arguments(LightningDataModule, "data")
    data = parser.instantiate_classes(parser.parse_string(text)).data
    assert data.class_moments(0)[1].tolist() == np.eye(4).tolist()
    assert data.class_moments(1)[1].tolist() == np.diag([8.0, 6.0, 4.0, 2.0]).tolist()
    assert data.train_rows.labels.bincount().tolist() == [90, 10]
    np.testing.assert_allclose(data.population_moments()[0], 0.1, rtol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": 0}, "`shape` must be a positive integer, got 0"),
        ({"shape": [2, 0]}, "`shape` must be a positive integer, got 0"),
        ({"weights": []}, "`weights` must be one positive number per class"),
        ({"weights": [1.0, 0.0, 1.0]}, "`weights` must be a positive, finite number, got 0.0"),
        ({"weights": [1.0, 1.0]}, "`spectra` must be one for all or 2, one per class, got 3"),
        ({"shape": 5}, "`variance` must be 5 finite numbers"),
        ({"separation": -1.0}, "`separation` must be a finite number of zero or more"),
        ({"shape": 2, "spectra": None}, "`separation` must be 0 with more classes than dimensions, 2, got 3.0"),
        ({"means": [[0.0] * 4] * 3}, "`separation` must be left at 0 where `means` are given"),
        ({"means": [[0.0] * 4] * 2, "separation": 0.0}, "`means` must be 3 lists, one per class, got 2"),
        ({"means": [[0.0] * 3] * 3, "separation": 0.0}, "`means` must be 4 finite numbers"),
        ({"rotation": "some"}, "`rotation` must be one of 'shared', 'own', 'none', got 'some'"),
        ({"exact_moments": True, "stratified": False}, "`stratified` must be True for `exact_moments`"),
        ({"exact_moments": True, "num_samples": 20}, "`num_samples` must be enough .* got 20 with 4 in the smallest"),
        ({"exact_moments": True, "num_val_samples": 10}, "`num_val_samples` must be enough"),
        ({"batch_size": 500}, "`batch_size` must be at most the number of training samples"),
        ({"seed": -1}, "`seed` must be an integer of at least 0"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        mixture(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spectrum": "pink"}, "`spectrum` must be one of 'lognormal', 'power_law', 'given'"),
        ({"exponent": -1.0}, "`exponent` must be a finite number of zero or more"),
        ({"scale": 0.0}, "`scale` must be a positive"),
        ({"spectrum": "given"}, "`variance` must be given with `spectrum` 'given' and only then"),
        ({"variance": [1.0]}, "`variance` must be given with `spectrum` 'given' and only then"),
    ],
)
def test_bad_spectrum(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpectrumChoice(**arguments)


def test_other_classes_and_shapes_are_refused():
    data = mixture()
    with pytest.raises(ValueError, match="`label` must be one of 0 to 2, got 3"):
        data.class_moments(3)
    with pytest.raises(ValueError, match=r"`samples` must have shape \[n, 4\], got \(2, 5\)"):
        data.classify(torch.zeros(2, 5))
