"""Moments of a training set as the network sees it, and the exact descent on them."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from spectral_lightning.callbacks import AnalyticOverlay
from spectral_lightning.datamodules import ImageDataModule, PatchDataModule, Recolor
from spectral_lightning.models import LinearDenoiser
from spectral_lightning.spectra import HasPopulationMoments, HasTrainingMoments
from spectral_lightning.theory import Preconditioning
from tests.support.flat import flat_tracker

SETS = {
    "patches": lambda: PatchDataModule(photographs=["camera"], size=4, max_patches=5_000, batch_size=8),
    "edited": lambda: PatchDataModule(photographs=["coins"], size=4, stride=9, edit=Recolor(2.0), batch_size=8),
    "held": lambda: ImageDataModule("digits", cache="memory", labels=True, batch_size=8),
    "read": lambda: ImageDataModule("digits", cache="none", resize=6, normalize="unit", batch_size=8),
}


@pytest.mark.parametrize("name", SETS)
def test_moments_are_those_of_one_epoch(name):
    data = SETS[name]()
    assert isinstance(data, HasTrainingMoments)
    assert not isinstance(data, HasPopulationMoments)  # which nobody knows
    rows = data.train_rows
    items = [rows[i] for i in range(len(rows))]
    x = torch.stack([i[0] if isinstance(i, tuple) else i for i in items]).flatten(1).double().numpy()
    mean, covariance = data.training_moments()
    # Sums of squares in float64 about zero: a mean of order 1 costs no digit that matters.
    np.testing.assert_allclose(mean, x.mean(0), rtol=0, atol=1e-9)
    np.testing.assert_allclose(covariance, np.cov(x.T, bias=True), rtol=0, atol=1e-9)
    assert (mean.dtype, mean.device.type) == (torch.float64, "cpu")


def test_mirrored_images_count_both_ways():
    data = ImageDataModule("digits", flip=True, normalize="unit", batch_size=8)
    x = data.train_rows.images.double().numpy()
    both = np.concatenate([x, x[..., ::-1]]).reshape(2 * len(x), -1)
    mean, covariance = data.training_moments()
    np.testing.assert_allclose(mean, both.mean(0), rtol=0, atol=1e-9)
    np.testing.assert_allclose(covariance, np.cov(both.T, bias=True), rtol=0, atol=1e-9)


@pytest.mark.slow
def test_exact_descent_on_photographs_lies_on_the_theory(tmp_path):
    """The moments of the training set are all that the descent depends on, and those that the tracker's modes are of."""
    data = PatchDataModule(photographs=["camera"], size=4, max_patches=5_000, batch_size=8)
    tracker, overlay = flat_tracker(num_samples=32), AnalyticOverlay()
    model = LinearDenoiser(
        data.shape, preconditioning=Preconditioning("edm", 1.0), optimizer=lambda p: torch.optim.SGD(p, lr=0.05)
    )
    trainer = Trainer(
        max_steps=150,
        callbacks=[tracker, overlay],
        accelerator="cpu",
        logger=False,
        limit_val_batches=0,
        default_root_dir=tmp_path,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data)
    assert "nothing fitted" in overlay.describe_clock()
    # Single precision in 150 updates; a clock that is 10 % off is 0.1 off on the steep part of the curves.
    np.testing.assert_allclose(np.log(overlay.history.variance), np.log(tracker.history.variance), rtol=0, atol=2e-3)
    assert np.abs(np.log(tracker.history.variance[-1] / tracker.history.variance[0])).max() > 2
