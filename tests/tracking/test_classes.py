"""Classes measured apart: conditional models under their labels, others by a classifier; and rows of conditions."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from spectral_lightning import Sampler, SpectralMonitor
from spectral_lightning.diffusion import Adapter
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.theory.solving.generation import fixed_point
from spectral_lightning.tracking.reference.classes import find_classes
from tests.support.flat import flat_tracker

SAMPLER, DIM, COUNTS = Sampler(num_steps=12), 4, (100, 300)
VARIANCES = torch.tensor([[4.0, 1.0, 0.25, 0.0625], [0.5, 2.0, 0.125, 1.0]], dtype=torch.float64)
MEANS = torch.tensor([[3.0, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
SHARES = (0.25, 0.75)


def exact_class(c):
    """Rows whose mean and covariance are exactly those of the class."""
    x = torch.randn(COUNTS[c], DIM, generator=torch.Generator().manual_seed(c), dtype=torch.float64)
    q = torch.linalg.qr(x - x.mean(0)).Q * COUNTS[c] ** 0.5
    return MEANS[c] + q * VARIANCES[c].sqrt()


ROWS = torch.cat([exact_class(0), exact_class(1)]).float()
LABELLED = TensorDataset(ROWS, torch.repeat_interleave(torch.arange(2), torch.tensor(COUNTS)))


class Exact(nn.Module):
    """The exact denoiser of each class, of class 0 without a label."""

    def __init__(self, num_classes=2):
        super().__init__()
        self.num_classes = num_classes

    def denoise(self, z, sigma, label=None):
        label = torch.zeros(len(z), dtype=torch.int64) if label is None else label
        lam, mean = VARIANCES.to(z)[label], MEANS.to(z)[label]
        return mean + lam / (lam + sigma[:, None] ** 2) * (z - mean)

    def by_label(self, z, sigma, label):
        return self.denoise(z, sigma, label)


def looked_at(path, network=None, **options):
    """A monitor that has measured the network."""
    defaults = {"num_samples": 16, "sampler": SAMPLER, "per_class": True, "directory": str(path), "figures": False}
    settings = {"network": network or Exact(), "data": LABELLED, **defaults, **options}
    return flat_tracker(SpectralMonitor, **settings)


def spreads(basis):
    """Covariance of each class along the modes: of the data, and of what the sampler makes."""
    modes = basis.modes.numpy()
    both = [(lam, fixed_point(lam, SAMPLER)) for lam in VARIANCES.numpy()]
    return [[modes.T @ np.diag(lam) @ modes for lam in pair] for pair in both], MEANS.numpy() @ modes


WAYS = {
    "module": lambda network: {},
    "adapter": lambda network: {"num_classes": 2, "denoiser": Adapter("edm", "by_label")},
    "callable": lambda network: {"num_classes": 2, "denoiser": network.by_label},
}


@pytest.mark.parametrize("gains", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_every_class_of_a_conditional_model_is_measured_under_its_label(tmp_path, way, gains):
    network = Exact(2 if way == "module" else None)
    found = looked_at(tmp_path, network, track_gain=gains, **WAYS[way](network))
    history, (classes, centres) = found.history, spreads(found.basis)
    assert history.groups == ["0", "1"]
    np.testing.assert_allclose(history["group_share"], SHARES)
    assert history["group_count"][-1].tolist() == [16, 16]
    assert history["num_samples"][-1] == 32
    levels = len(SAMPLER.levels)
    assert found.session.evaluations == 16 * (2 * SAMPLER.evaluations + gains * levels)
    for g, (data, made) in enumerate(classes):
        np.testing.assert_allclose(history["group_target"][g], np.diag(data), rtol=1e-5)
        np.testing.assert_allclose(history["group_variance"][0, g], np.diag(made), rtol=1e-5)
    mean = sum(s * c for s, c in zip(SHARES, centres, strict=True))
    pooled = sum(
        s * (made + np.outer(c - mean, c - mean)) for s, (_, made), c in zip(SHARES, classes, centres, strict=True)
    )
    # The sampler starts at sigma = 80, not infinity, so that the classes' means are reached to (lambda / 80^2)^(1/2).
    np.testing.assert_allclose(history.variance[0], np.diag(pooled), rtol=5e-2)
    np.testing.assert_allclose(history["group_mean_deviation"][0], centres - mean, rtol=0, atol=0.1)


def test_a_group_has_a_history_and_files(tmp_path):
    with looked_at(tmp_path) as found:
        pass
    history = SpectralHistory.load(tmp_path / "spectral" / "history.npz")
    one = history.group("1")
    np.testing.assert_array_equal(one.variance, history["group_variance"][:, 1])
    np.testing.assert_array_equal(one.fixed_point, fixed_point(history["group_target"][1], SAMPLER))
    assert one.metadata["group"] == "1"
    with pytest.raises(KeyError, match="'2'"):
        history.group("2")
    (fitter,) = [o for o in found.session.observers if o.label == "Fitter"]
    document = json.loads((tmp_path / "spectral" / "emergence.json").read_text())
    assert set(document["groups"]) == set(fitter.groups) == {"0", "1"}
    assert (tmp_path / "spectral" / "emergence_group_1.csv").read_text().count("\n") == DIM + 1


def test_samples_of_an_unconditional_model_go_where_the_classifier_says(tmp_path):
    def classify(x):
        return (x[:, 0] < 1).long()

    found = looked_at(tmp_path, Exact(None), classify=classify, num_classes=2, num_samples=64)
    history, low = found.history, classify(ROWS).bool()
    assert history["group_count"][-1].sum() == history["num_samples"][-1] == 64
    # The data are classified as the samples are.
    np.testing.assert_allclose(history["group_share"], [(~low).double().mean(), low.double().mean()])
    for g, rows in enumerate((ROWS[~low], ROWS[low])):
        seen = rows.double().numpy() @ found.basis.modes.numpy()
        np.testing.assert_allclose(history["group_target"][g], seen.var(axis=0), rtol=1e-6)
    # Samples are those of class 0, cut at its mean less a standard deviation.
    np.testing.assert_allclose(history["group_count"][0] / 64, [0.84, 0.16], atol=0.14)  # three standard errors


def test_a_class_without_samples_has_no_variance(tmp_path):
    """Four of the data lie in a class that no sample ever falls into."""
    found = looked_at(tmp_path, Exact(None), classify=lambda x: (x[:, 0] < -3).long(), num_classes=2)
    assert found.history["group_count"][0].tolist() == [16, 0]
    assert found.history["group_share"][1] > 0
    assert np.isnan(found.history["group_variance"][:, 1]).all()
    assert np.isfinite(found.history.variance).all()


def test_which_classes_there_are():
    network = Exact(None)
    for takes, count, name in ((True, None, "num_classes"), (False, 3, "per_class")):
        with pytest.raises(ValueError, match=f"`{name}`"):
            find_classes(network, None, None, count, takes_labels=takes)
    assert find_classes(network, None, None, 3, takes_labels=True).names == ("0", "1", "2")
    # What is given classifies, whatever the denoiser takes.
    assert find_classes(network, None, len, 3, takes_labels=True).classify is len


def test_rows_of_conditions_are_those_of_the_samples(tmp_path):
    """Half of the latents under each of two labels: the variance of both together, by hand."""
    labels = torch.tensor([0, 1])
    found = looked_at(tmp_path, per_class=False, condition=labels, num_samples=64)
    probe, network = found.session.probe, Exact()
    rows = labels[torch.arange(64) // 2 % 2]
    start = probe.latents.rows(0, 64) * SAMPLER.start
    samples = SAMPLER(lambda z, s: network.denoise(z, torch.full((64,), s, dtype=z.dtype), rows), start)
    by_hand = found.basis.project(samples).double().var(0, correction=0)
    np.testing.assert_allclose(found.history.variance[0], by_hand, rtol=1e-4)
