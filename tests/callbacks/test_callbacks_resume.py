"""Interrupted, requeued and resumed against uninterrupted; and the order of the callbacks."""

import itertools
import os
import signal

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint

from spectral_lightning.callbacks import AnalyticOverlay, EmergenceFitter
from spectral_lightning.datamodules import GaussianDataModule
from spectral_lightning.models import LinearDenoiser
from spectral_lightning.report import RunFiles
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import HistoryDirectory, SpectralHistory, SpectralProbe
from tests.support.flat import flat_tracker
from tests.support.tiny_training import OwnModule, loader, tracker, without_drawing
from tests.support.tiny_training import trainer as small_trainer

SAMPLER = Sampler(num_steps=4)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    without_drawing(monkeypatch)


def parts(per_decade=5):
    return [flat_tracker(num_samples=16, per_decade=per_decade), AnalyticOverlay(), EmergenceFitter()]


def fit(root, callbacks, max_steps, ckpt_path=None, save_at=None, adam=False):
    saver = ModelCheckpoint(root / "ckpt", every_n_train_steps=save_at) if save_at else None
    trainer = Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        limit_val_batches=0,
        logger=False,
        default_root_dir=root,
        enable_checkpointing=saver is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, *([saver] if saver else [])],
    )
    optimizer = (lambda p: torch.optim.Adam(p, lr=0.02)) if adam else (lambda p: torch.optim.SGD(p, lr=0.1))
    model = LinearDenoiser(8, SAMPLER, init=0.1, optimizer=optimizer)
    data = GaussianDataModule(dim=8, spectrum="power_law", exact_moments=True, num_samples=64, batch_size=8)
    trainer.fit(model, data, ckpt_path=ckpt_path)
    return callbacks, (saver.best_model_path if saver else None)


@pytest.mark.parametrize("adam", [False, True])
@pytest.mark.parametrize("same_directory", [True, False])
def test_resumed_equals_uninterrupted(tmp_path, same_directory, adam):
    whole, _ = fit(tmp_path / "whole", parts(), 60, adam=adam)
    first, checkpoint = fit(tmp_path / "cut", parts(), 29, save_at=29, adam=adam)
    assert first[0].history["final"].tolist()[-1]
    assert first[0].history.last_step == 29
    root = tmp_path / ("cut" if same_directory else "elsewhere")
    second, _ = fit(root, parts(), 60, ckpt_path=checkpoint, adam=adam)

    a, b = whole[0].history, second[0].history
    assert a.steps.tolist() == b.steps.tolist()
    assert 29 not in b.steps
    before = b.steps <= 29
    np.testing.assert_array_equal(b.variance[before], first[0].history.variance[:-1])
    np.testing.assert_array_equal(a.variance, b.variance)
    np.testing.assert_allclose(a["cumulative_learning_rate"], b["cumulative_learning_rate"], rtol=1e-12)
    assert (np.diff(b["seconds"]) >= 0).all()
    # The clock of the run that goes on is kept: where it was fitted before the cut, the predictions agree to the digit.
    if whole[1].calibrated_at is not None and whole[1].calibrated_at <= 29:
        assert second[1].scale == whole[1].scale
        np.testing.assert_array_equal(whole[1].history.variance, second[1].history.variance)
    # The files hold the whole history, in the old directory or in the new one.
    on_disk = SpectralHistory.load(RunFiles(root / "spectral") / "history.npz")
    np.testing.assert_array_equal(on_disk.variance, a.variance)
    np.testing.assert_array_equal(HistoryDirectory(root / "spectral" / "history").load().variance, a.variance)


def test_checkpoint_loads_under_weights_only(tmp_path):
    _, checkpoint = fit(tmp_path, parts(), 20, save_at=20)
    state = torch.load(checkpoint, weights_only=True)["callbacks"]
    key = "SpectralTracker[spectral]"
    assert len(SpectralHistory.from_state_dict(state[key]["history"])) > 5
    assert state["AnalyticOverlay[spectral]"]["scale"] == 1.0


def test_a_longer_run_measures_at_the_same_steps(tmp_path):
    short, _ = fit(tmp_path / "short", parts(), 30)
    long, _ = fit(tmp_path / "long", parts(), 60)
    kept = short[0].history.steps[~short[0].history["final"]]
    assert kept.tolist() == [s for s in long[0].history.steps if s <= 30 and s in kept]
    assert len(kept) >= 8


def test_a_fresh_run_never_writes_over_another(tmp_path):
    fit(tmp_path, parts(), 10)
    before = (tmp_path / "spectral" / "history.npz").read_bytes()
    fit(tmp_path, parts(), 12)
    assert (tmp_path / "spectral" / "history.npz").read_bytes() == before
    assert SpectralHistory.load(tmp_path / "spectral_1" / "history.npz").last_step == 12


def test_a_history_without_a_row_keeps_the_gain_it_began_with(tmp_path, monkeypatch):
    """Every measurement before the checkpoint fails; the model has learnt something since the history was begun."""

    def fails(*_args, **_options):
        raise FloatingPointError("no sample yet")

    def run(max_steps, ckpt_path=None):
        own = tracker(on_error="skip", track_gain=True)
        saver = ModelCheckpoint(tmp_path, filename="{step}")
        training = small_trainer(tmp_path, [own, saver], max_steps=max_steps, enable_checkpointing=True)
        training.fit(OwnModule(rate=0.1), loader(), ckpt_path=ckpt_path)
        return own

    with monkeypatch.context() as patch:
        patch.setattr(SpectralProbe, "generate", fails)
        with pytest.warns(UserWarning, match="no sample yet"):
            first = run(8)
    assert len(first.history) == 0
    second = run(10, tmp_path / "step=8.ckpt")
    np.testing.assert_array_equal(second.history["initial_gain"], first.history["initial_gain"])
    assert second.history.steps.tolist() == [10]
    assert np.abs(second.history["gain"][0] - first.history["initial_gain"]).max() > 0.01


@pytest.mark.slow
def test_the_order_of_the_callbacks_does_not_matter(tmp_path):
    seen = []
    for i, order in enumerate(itertools.permutations(range(3))):
        root = tmp_path / str(i)
        callbacks = parts()
        fit(root, [callbacks[j] for j in order], 40)
        run = RunFiles(root / "spectral")
        texts = [
            (run / n).read_text()
            for n in ("emergence.csv", "emergence.json", "overlay.json", "prediction.csv", "history.csv")
        ]
        arrays = [dict(np.load(run / n)) for n in ("history.npz", "prediction.npz")]
        arrays[0].pop("seconds")
        seen.append((texts, arrays))
    for texts, arrays in seen[1:]:
        assert texts == seen[0][0]
        for mine, first in zip(arrays, seen[0][1], strict=True):
            assert set(mine) == set(first)
            for name in mine:
                np.testing.assert_array_equal(mine[name], first[name], err_msg=name)


@pytest.fixture
def slurm(monkeypatch, tmp_path):
    """A job of one task, and a scheduler that writes down what it is asked for."""
    job = {"JOB_ID": "17", "JOB_NAME": "train", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for key, value in job.items():
        monkeypatch.setenv(f"SLURM_{key}", value)
    asked = tmp_path / "asked"
    command = tmp_path / "bin" / "scontrol"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    return asked


class Announced(Callback):
    """The scheduler's signal at the end of one step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, *args):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGUSR1)


@pytest.mark.parametrize("same_directory", [True, False])
def test_a_requeued_job_carries_the_history_on(slurm, tmp_path, same_directory):
    """The signal's checkpoint, made in mid-epoch, is found by the next job without being named."""
    whole, _ = fit(tmp_path / "whole", parts(), 40)
    # Until the scheduler ends the job it trains on, and measures.
    first, _ = fit(tmp_path / "job", [*parts(), Announced(13)], 22)
    assert slurm.read_text() == "requeue 17\n"
    assert [p.name for p in (tmp_path / "job").glob("*.ckpt")] == ["hpc_ckpt_1.ckpt"]
    assert first[0].history.last_step == 22
    if not same_directory:
        (tmp_path / "next").mkdir()
        (tmp_path / "job" / "hpc_ckpt_1.ckpt").rename(tmp_path / "next" / "hpc_ckpt_1.ckpt")
    root = tmp_path / ("job" if same_directory else "next")
    second, _ = fit(root, [*parts(), Announced(29)], 40)
    assert {p.name for p in root.glob("*.ckpt")} == {"hpc_ckpt_1.ckpt", "hpc_ckpt_2.ckpt"}
    third, _ = fit(root, parts(), 40)
    for again in (second, third):
        assert again[0].history.steps.tolist() == whole[0].history.steps.tolist()
        np.testing.assert_array_equal(again[0].history.variance, whole[0].history.variance)
        np.testing.assert_array_equal(again[1].history.variance, whole[1].history.variance)
    on_disk = HistoryDirectory(root / "spectral" / "history").load()
    np.testing.assert_array_equal(on_disk.variance, whole[0].history.variance)


@pytest.mark.parametrize("order", [1, -1], ids=["average first", "tracker first"])
def test_a_signal_in_the_middle_of_a_measurement_finds_the_trained_weights(slurm, tmp_path, order):
    """While averaged weights are being measured the module holds those; no checkpoint may take them for the raw ones."""

    class Signals(OwnModule):
        sent = False

        def denoise(self, z, sigma):
            if not torch.is_grad_enabled() and self.global_step == 5 and not self.sent:
                self.sent = True
                os.kill(os.getpid(), signal.SIGUSR1)
                self.held = {name: value.clone() for name, value in self.state_dict().items()}
            return super().denoise(z, sigma)

    class Sees(Callback):
        def on_train_batch_start(self, trainer, pl_module, *args):
            if trainer.global_step == 5:
                raw.update({name: value.clone() for name, value in pl_module.state_dict().items()})

    raw = {}
    module, own = Signals(), tracker(weights="ema")
    run = small_trainer(tmp_path, [*[EMAWeightAveraging(decay=0.5), own][::order], Sees()], max_steps=7)
    run.fit(module, loader())
    assert module.sent
    state = torch.load(tmp_path / "hpc_ckpt_1.ckpt", weights_only=True)
    assert not torch.equal(module.held["body.layers.0.weight"], raw["body.layers.0.weight"])
    assert all(torch.equal(state["current_model_state"][name], value) for name, value in raw.items())
    # The measurement that the signal came into is whole, and in the checkpoint.
    kept = SpectralHistory.from_state_dict(state["callbacks"]["SpectralTracker[spectral]"]["history"])
    assert kept.steps.tolist() == [0, 1, 2, 5]
    assert not signal.getsignal(signal.SIGUSR1)
