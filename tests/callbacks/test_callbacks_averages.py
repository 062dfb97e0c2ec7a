"""Raw or averaged weights in every row of a history, the last one too, however a training ends."""

from datetime import timedelta

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging

from spectral_lightning.spectra import SpectralHistory, SpectralProbe
from tests.support.tiny_training import SAMPLER, OwnModule, examples, loader, tracker, trainer

DECAY = 0.6


class Records(pl.Callback):
    """The raw weights after every update, seen where no callback can have replaced them."""

    def __init__(self):
        self.raw = {}

    def record(self, trainer, pl_module):
        if trainer.training:
            self.raw[trainer.global_step] = {name: p.detach().clone() for name, p in pl_module.named_parameters()}

    def on_train_start(self, trainer, pl_module):
        self.record(trainer, pl_module)

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.record(trainer, pl_module)


def averaged(raw):
    """The exponential average after every update, from its formula; raw before the first."""
    found, mean = {0: raw[0]}, raw[1]
    for step in sorted(raw)[1:]:
        mean = raw[1] if step == 1 else {k: DECAY * mean[k] + (1 - DECAY) * raw[step][k] for k in mean}
        found[step] = mean
    return found


def variances(own, weights):
    """What a probe of its own measures of given weights."""
    probe = SpectralProbe(own.basis, SAMPLER, 16)
    module = OwnModule().eval()
    module.load_state_dict(weights)
    return probe.measure(module.denoise, 0)["variance"]


ENDS = {
    "in mid-epoch": {"max_steps": 7},
    "with an epoch": {"max_steps": -1, "max_epochs": 2, "limit_train_batches": 3},
    "within an accumulation": {"max_steps": 6, "accumulate_grad_batches": 3},
    "early": {"max_steps": 50, "limit_train_batches": 3},
    "out of time": {"max_steps": 100_000, "max_time": timedelta(seconds=1)},
}


def run(path, callbacks, end):
    pl.seed_everything(3)
    stop = EarlyStopping("val/loss", patience=0, divergence_threshold=-1.0) if end == "early" else None
    defaults = {"val_check_interval": 2, "num_sanity_val_steps": 1}
    options = {**defaults, **ENDS[end]} if end != "within an accumulation" else ENDS[end]
    fitted = trainer(path, [*callbacks, *([stop] if stop else [])], **options)
    fitted.fit(OwnModule(rate=0.05), loader(), loader(examples(16, seed=9), shuffle=False))
    return fitted


@pytest.mark.parametrize("first", [True, False], ids=["trackers first", "average first"])
@pytest.mark.parametrize("end", ENDS)
def test_every_row_is_of_the_weights_that_were_asked_for(tmp_path, end, first):
    """With validations, before which the average is swapped in and after which it is swapped out."""
    average, records = EMAWeightAveraging(decay=DECAY), Records()
    raw, mean = tracker(name="raw"), tracker(name="mean", weights="ema")
    # The record is made behind the average in the list, which updates itself but does not touch the weights there.
    callbacks = [raw, mean, average, records] if first else [average, raw, mean, records]
    fitted = run(tmp_path, callbacks, end)
    last = fitted.global_step
    assert raw.history.steps[-1] == mean.history.steps[-1] == last
    if end in ("in mid-epoch", "with an epoch", "within an accumulation"):
        assert raw.history["final"].tolist()[-1]  # off the schedule
    means = averaged(records.raw)
    for step, row in zip(raw.history.steps, raw.history.variance, strict=True):
        np.testing.assert_allclose(row, variances(raw, records.raw[step]), rtol=1e-6, err_msg=f"raw, {step}")
    for step, row in zip(mean.history.steps, mean.history.variance, strict=True):
        # Ahead of the average in the list, a tracker sees it before it is updated; after the last update it is whole.
        behind = first and step > 0 and not mean.history["final"][list(mean.history.steps).index(step)]
        wanted = means[step - behind] if step - behind > 0 else records.raw[step]
        np.testing.assert_allclose(row, variances(mean, wanted), rtol=1e-5, err_msg=f"average, {step}")
    assert not np.allclose(raw.history.variance[-1], mean.history.variance[-1], rtol=1e-3)


def test_the_files_say_which_weights_were_measured(tmp_path):
    raw, mean = tracker(name="raw"), tracker(name="mean", weights="ema")
    run(tmp_path, [raw, EMAWeightAveraging(decay=DECAY), mean], "in mid-epoch")
    said = [SpectralHistory.load(tmp_path / n / "history.npz").metadata["weights"] for n in ("raw", "mean")]
    assert said[0] == "raw weights, kept while callback EMAWeightAveraging may replace them"
    assert said[1].startswith("averaged weights of callback EMAWeightAveraging")


def test_trackers_of_raw_and_averaged_weights_do_not_share_samples(tmp_path):
    """At a step of the schedule, where one could take the other's."""
    raw, mean = tracker(name="raw"), tracker(name="mean", weights="ema")
    run(tmp_path, [EMAWeightAveraging(decay=DECAY), raw, mean], "in mid-epoch")
    assert raw.session.probe.sampling_key == mean.session.probe.sampling_key
    at = list(raw.history.steps).index(5)
    assert not np.allclose(raw.history.variance[at], mean.history.variance[at], rtol=1e-3)
    assert torch.isfinite(torch.from_numpy(raw.history.variance)).all()
