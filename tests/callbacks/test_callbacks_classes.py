"""Classes measured apart: conditional models under their labels, others by a classifier."""

import json

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from spectral_lightning.callbacks import EmergenceFitter
from spectral_lightning.datamodules import MixtureDataModule
from spectral_lightning.models import DiffusionModule, ResidualMLP
from spectral_lightning.report import RunFiles
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.theory.solving.sampled import fixed_point
from tests.support.flat import flat_tracker
from tests.support.tiny_training import without_drawing

SAMPLER = Sampler(num_steps=12)
DIM = 4
VARIANCES = torch.tensor([[4.0, 1.0, 0.25, 0.0625], [0.5, 2.0, 0.125, 1.0]], dtype=torch.float64)
MEANS = torch.tensor([[3.0, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
COUNTS = (100, 300)


def exact_class(c):
    """Rows whose mean and covariance are exactly those of the class."""
    x = torch.randn(COUNTS[c], DIM, generator=torch.Generator().manual_seed(c), dtype=torch.float64)
    q = torch.linalg.qr(x - x.mean(0)).Q * COUNTS[c] ** 0.5
    return MEANS[c] + q * VARIANCES[c].sqrt()


class Mixture(LightningDataModule):
    num_classes, class_names = 2, ["wide", "narrow"]

    def train_dataloader(self):
        x, y = (
            torch.cat([exact_class(0), exact_class(1)]),
            torch.repeat_interleave(torch.arange(2), torch.tensor(COUNTS)),
        )
        return DataLoader(TensorDataset(x.float(), y), batch_size=40, shuffle=True)


class Exact(LightningModule):
    """The exact denoiser of each class, or of a mixture of two far apart; nothing is learnt."""

    def __init__(self, conditional=True):
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))
        self.num_classes = 2 if conditional else None

    def of_class(self, z, sigma, label):
        lam, mean = VARIANCES.to(z)[label], MEANS.to(z)[label]
        return mean + lam / (lam + sigma[:, None] ** 2) * (z - mean)

    def denoise(self, z, sigma, label=None):
        if label is None:
            label = torch.zeros(len(z), dtype=torch.int64)
        return self.of_class(z, sigma, label)

    def training_step(self, batch, batch_idx):
        return self.nothing.square().sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(root, callbacks, model=None, data=None, max_steps=3, **options):
    trainer = Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        limit_val_batches=0,
        logger=False,
        default_root_dir=root,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    trainer.fit(model or Exact(), data or Mixture(), **options)
    return trainer


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    without_drawing(monkeypatch)


def tracker(**options):
    return flat_tracker(**{"num_samples": 16, "sampler": SAMPLER, "per_class": True, **options})


def test_every_class_of_a_conditional_model_is_measured_under_its_label(tmp_path):
    one = tracker()
    fit(tmp_path, [one])
    history, modes = one.history, one.basis.modes.numpy()
    assert history.groups == ["wide", "narrow"]
    np.testing.assert_allclose(history["group_share"], [0.25, 0.75])
    assert history["group_count"][-1].tolist() == [16, 16]
    assert history["num_samples"][-1] == 32
    pooled, mean = 0.0, 0.0
    for g, share in enumerate((0.25, 0.75)):
        spread = modes.T @ np.diag(VARIANCES[g].numpy()) @ modes
        np.testing.assert_allclose(history["group_target"][g], np.diag(spread), rtol=1e-5)
        made = modes.T @ np.diag(fixed_point(VARIANCES[g].numpy(), SAMPLER)) @ modes
        np.testing.assert_allclose(history["group_variance"][0, g], np.diag(made), rtol=1e-5)
        pooled, mean = pooled + share * made, mean + share * (modes.T @ MEANS[g].numpy())
    centres = [modes.T @ MEANS[g].numpy() for g in range(2)]
    between = sum(s * np.outer(c - mean, c - mean) for s, c in zip((0.25, 0.75), centres, strict=True))
    # The sampler starts at sigma = 80, not infinity, so that the classes' means are reached to (lambda / 80^2)^(1/2).
    np.testing.assert_allclose(history.variance[0], np.diag(pooled + between), rtol=5e-2)
    np.testing.assert_allclose(history["group_mean_deviation"][0], [c - mean for c in centres], rtol=0, atol=0.1)


def test_a_group_is_a_history_of_its_own(tmp_path):
    one, fitter = tracker(), EmergenceFitter()
    fit(tmp_path, [one, fitter])
    history = SpectralHistory.load(RunFiles(tmp_path / "spectral") / "history.npz")
    narrow = history.group("narrow")
    np.testing.assert_array_equal(narrow.variance, history["group_variance"][:, 1])
    np.testing.assert_array_equal(narrow.target, history["group_target"][1])
    np.testing.assert_array_equal(narrow.fixed_point, fixed_point(narrow.target, SAMPLER))
    assert narrow.steps.tolist() == history.steps.tolist()
    assert narrow.metadata["group"] == "narrow"
    with pytest.raises(KeyError, match="broad"):
        history.group("broad")
    assert set(fitter.groups) == {"wide", "narrow"}
    document = json.loads((tmp_path / "spectral" / "emergence.json").read_text())
    assert set(document["groups"]) == {"wide", "narrow"}
    assert (tmp_path / "spectral" / "emergence_group_wide.csv").read_text().count("\n") == DIM + 1


def by_first_coordinate(x):
    return (x[:, 0] < 1).long()


def test_samples_of_an_unconditional_model_go_where_the_classifier_says(tmp_path):
    one = tracker(classify=by_first_coordinate, num_classes=2, num_samples=64)
    fit(tmp_path, [one], Exact(conditional=False))
    history = one.history
    assert history["group_count"][-1].sum() == 64
    assert history["num_samples"][-1] == 64
    # The data are classified as the samples are.
    x = torch.cat([exact_class(0), exact_class(1)]).float()
    low = by_first_coordinate(x).bool()
    np.testing.assert_allclose(history["group_share"], [(~low).double().mean(), low.double().mean()])
    for g, rows in enumerate((x[~low], x[low])):
        seen = rows.double().numpy() @ one.basis.modes.numpy()
        np.testing.assert_allclose(history["group_target"][g], seen.var(axis=0), rtol=1e-6)
    # Samples are those of class 0, cut at its mean less a standard deviation.
    from_samples = history["group_count"][0] / 64
    np.testing.assert_allclose(from_samples, [0.84, 0.16], atol=0.07)


def test_a_class_without_samples_has_no_variance(tmp_path):
    """Four of the data lie in a class that no sample ever falls into."""
    one, fitter = tracker(classify=lambda x: (x[:, 0] < -3).long(), num_classes=2), EmergenceFitter()
    fit(tmp_path, [one, fitter], Exact(conditional=False))
    assert one.history["group_count"][0].tolist() == [16, 0]
    assert one.history["group_share"][1] > 0
    assert np.isnan(one.history["group_variance"][:, 1]).all()
    assert np.isfinite(one.history.variance).all()
    assert fitter.groups["narrow"].measured.crossed("rising").sum() == 0


def test_a_datamodule_that_classifies_is_asked(tmp_path):
    data = MixtureDataModule([DIM], [0.5, 0.5], separation=8.0, labels=False, num_samples=400, batch_size=40)
    one = tracker(num_samples=32)
    model = DiffusionModule(ResidualMLP([DIM], 8, 1, 4))
    fit(tmp_path, [one], model, data)
    assert len(one.history.groups) == 2
    np.testing.assert_allclose(one.history["group_share"], 0.5, atol=0.01)


def test_a_conditional_network_of_the_package(tmp_path):
    data = MixtureDataModule([DIM], [0.5, 0.5], separation=4.0, num_samples=400, batch_size=40)
    one = tracker(num_samples=16, track_gain=True)
    model = DiffusionModule(ResidualMLP([DIM], 8, 1, 4, num_classes=2), num_classes=2, class_dropout=0.1)
    fit(tmp_path, [one], model, data)
    assert one.history["group_variance"].shape == (len(one.history), 2, DIM)
    assert one.session.evaluations == 16 * (2 * SAMPLER.evaluations + len(SAMPLER.levels))


def test_resumed_by_class_equals_uninterrupted(tmp_path):
    def run(root, steps, *more, **options):
        torch.manual_seed(0)
        data = MixtureDataModule([DIM], [0.7, 0.3], num_samples=400, batch_size=40, shuffle=False)
        model = DiffusionModule(ResidualMLP([DIM], 8, 1, 4, num_classes=2), num_classes=2, optimizer=_frozen)
        one = tracker()
        fit(root, [one, *more], model, data, steps, **options)
        return one.history

    saver = ModelCheckpoint(tmp_path / "ckpt", every_n_train_steps=7)
    whole = run(tmp_path / "whole", 20)
    run(tmp_path / "cut", 7, saver)
    again = run(tmp_path / "cut", 20, ckpt_path=saver.best_model_path)
    for name in ("step", "variance", "group_variance", "group_count", "group_share", "group_target"):
        np.testing.assert_array_equal(whole[name], again[name])


def _frozen(parameters):
    return torch.optim.SGD(parameters, lr=0.0)


@pytest.mark.parametrize(
    ("arguments", "conditional", "message"),
    [
        ({}, False, "`per_class` needs a model that is conditioned on classes, which Exact is not"),
        ({"label_key": 7}, True, "`label_key` must name the integer labels"),
        ({"label_key": 0}, True, "`label_key` must name the integer labels"),
    ],
)
def test_wrong_classes_say_what_is_right(tmp_path, arguments, conditional, message):
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, [tracker(**arguments)], Exact(conditional))
    assert not (tmp_path / "spectral").exists()


def test_labels_out_of_range(tmp_path):
    model = Exact()
    model.num_classes = 1
    with pytest.raises(ValueError, match="Labels of the data must be 0 to 0, got 0 to 1"):
        fit(tmp_path, [tracker()], model)


@pytest.mark.parametrize("options", [{"per_class": False}, {"track_gain": True}])
def test_a_null_class_that_never_learns_is_not_measured(tmp_path, options):
    data = MixtureDataModule([DIM], [0.5, 0.5], num_samples=400, batch_size=40)
    model = DiffusionModule(ResidualMLP([DIM], 8, 1, 4, num_classes=2), num_classes=2)
    with pytest.raises(ValueError, match="DiffusionModule is trained under labels only"):
        fit(tmp_path, [tracker(**options)], model, data)
    model = DiffusionModule(ResidualMLP([DIM], 8, 1, 4, num_classes=2), num_classes=2)
    one = tracker(**options, condition=torch.tensor([0, 1]))
    fit(tmp_path, [one], model, data)
    assert np.isfinite(one.history.variance).all()


def test_a_classifier_is_used_per_class_only():
    with pytest.raises(ValueError, match="`classify` is used with per_class=True only"):
        flat_tracker(classify=by_first_coordinate)
