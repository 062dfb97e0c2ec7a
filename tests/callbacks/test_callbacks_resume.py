"""Interrupted, requeued and resumed against uninterrupted; and the order of the callbacks."""

import itertools
import os
import signal

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint

from spectral_lightning.callbacks import AnalyticOverlay, SpectralTracker
from spectral_lightning.report import RunFiles
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import HistoryDirectory, SpectralHistory, SpectralProbe, load_basis
from tests.support.tiny_training import OwnModule, fit, repeatable, three, tracker, whole_batch

KEPT = ["prediction.csv", "overlay.json", "emergence.csv", "emergence.json"]


def everything():
    """Trackers in two bases and by class, an overlay with a fitted clock for each basis, a fitter."""
    classes = {"per_class": True, "classify": lambda x: (x[:, 0] > 0).long(), "num_classes": 2}
    options = {"per_decade": 5, "sampler": Sampler(num_steps=4)}
    others = [
        tracker(name="fourier", basis="fourier", track_gain=True, **options),
        tracker(name="by", **classes, **options),
    ]
    overlay = AnalyticOverlay(calibrate_after=0.1, tracker="fourier")
    return [*three("fitted", **options), *others, overlay]


def train(root, steps, callbacks=None, ckpt_path=None, save_at=None, **options):
    callbacks = everything() if callbacks is None else callbacks
    saver = [ModelCheckpoint(root / "ckpt", filename="{step}", every_n_train_steps=save_at)] if save_at else []
    module, options = repeatable(), {"max_steps": steps, "enable_checkpointing": bool(save_at), **options}
    fit(root, [*callbacks, *saver], module, whole_batch(), ckpt_path=ckpt_path, **options)
    return callbacks, module


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The training that is not interrupted."""
    root = tmp_path_factory.mktemp("whole")
    return root, *train(root, 40)


def check_equal(whole, root, callbacks, module):
    """Histories, predictions and files of a run that went on are those of the uninterrupted one."""
    for k in (0, 1, 3, 4, 5):  # all but the fitter
        a, b = callbacks[k].history, whole[1][k].history
        # Measurements to the bit; predictions are made of several rows at once, or of one.
        rtol = 0 if isinstance(callbacks[k], SpectralTracker) else 1e-12
        for name in set(a.names) - {"seconds", "final"}:
            np.testing.assert_allclose(a[name], b[name], rtol=rtol, err_msg=name)
    seconds = callbacks[0].history["seconds"]
    assert (np.diff(seconds) >= 0).all()
    for name in ("spectral", "fourier", "by"):
        files, first = RunFiles(root / name), RunFiles(whole[0] / name)
        on_disk = HistoryDirectory(files.path / "history").load()
        np.testing.assert_array_equal(on_disk.variance, SpectralHistory.load(first / "history.npz").variance)
        np.testing.assert_array_equal(SpectralHistory.load(files / "history.npz").variance, on_disk.variance)
        assert load_basis(files / "basis.pt").fingerprint == load_basis(first / "basis.pt").fingerprint
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), whole[2].parameters(), strict=True))


@pytest.mark.parametrize("same_directory", [True, False])
def test_resumed_equals_uninterrupted(tmp_path, whole, same_directory):
    first, _ = train(tmp_path / "cut", 29, save_at=29)
    assert first[0].history["final"].tolist()[-1]
    assert first[0].history.last_step == 29
    state = torch.load(tmp_path / "cut" / "ckpt" / "step=29.ckpt", weights_only=True)["callbacks"]
    assert (
        len(SpectralHistory.from_state_dict(state["SpectralTracker[spectral]"]["history"])) == len(first[0].history) - 1
    )
    root = tmp_path / ("cut" if same_directory else "elsewhere")
    second, module = train(root, 40, ckpt_path=tmp_path / "cut" / "ckpt" / "step=29.ckpt")
    assert 29 not in second[0].history.steps  # measured only because that training ended
    # The clock of the run that goes on is kept, fitted before the cut in one basis, after it in the other.
    assert second[1].calibrated_at == whole[1][1].calibrated_at
    assert second[-1].calibrated_at == whole[1][-1].calibrated_at < 29
    check_equal(whole, root, second, module)


def test_a_fresh_run_never_writes_over_another(tmp_path):
    fit(tmp_path, [tracker()])
    before = (tmp_path / "spectral" / "history.npz").read_bytes()
    fit(tmp_path, [tracker()], max_steps=12)
    assert (tmp_path / "spectral" / "history.npz").read_bytes() == before
    assert SpectralHistory.load(tmp_path / "spectral_1" / "history.npz").last_step == 12


def test_a_history_without_a_row_keeps_the_gain_it_began_with(tmp_path, monkeypatch):
    """Every measurement before the checkpoint fails; the model has learnt something since the history was begun."""

    def fails(*_args, **_options):
        raise FloatingPointError("no sample yet")

    def run(max_steps, ckpt_path=None):
        own, saver = tracker(on_error="skip", track_gain=True), ModelCheckpoint(tmp_path, filename="{step}")
        options = {"max_steps": max_steps, "enable_checkpointing": True, "ckpt_path": ckpt_path}
        fit(tmp_path, [own, saver], OwnModule(rate=0.1), **options)
        return own

    generate = SpectralProbe.generate
    monkeypatch.setattr(SpectralProbe, "generate", fails)
    with pytest.warns(UserWarning, match="no sample yet"):
        first = run(8)
    monkeypatch.setattr(SpectralProbe, "generate", generate)
    assert len(first.history) == 0
    second = run(10, tmp_path / "step=8.ckpt")
    np.testing.assert_array_equal(second.history["initial_gain"], first.history["initial_gain"])
    assert second.history.steps.tolist() == [10]
    assert np.abs(second.history["gain"][0] - first.history["initial_gain"]).max() > 0.01


@pytest.mark.slow
def test_the_order_of_the_callbacks_does_not_matter(tmp_path):
    seen = []
    for i, order in enumerate(itertools.permutations(range(3))):
        callbacks = three("fitted", per_decade=5)
        train(tmp_path / str(i), 40, [callbacks[j] for j in order])
        run = RunFiles(tmp_path / str(i) / "spectral")
        history = SpectralHistory.load(run / "history.npz")
        arrays = {name: history[name].tolist() for name in history.names if name != "seconds"}
        seen.append(([(run / name).read_text() for name in KEPT], repr(arrays)))
    assert all(one == seen[0] for one in seen)


@pytest.fixture
def slurm(monkeypatch, tmp_path):
    """A job of one task, and a scheduler that writes down what it is asked for."""
    job = {"JOB_ID": "17", "JOB_NAME": "train", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for key, value in job.items():
        monkeypatch.setenv(f"SLURM_{key}", value)
    asked, command = tmp_path / "asked", tmp_path / "bin" / "scontrol"
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
def test_a_requeued_job_carries_the_history_on(slurm, tmp_path, whole, same_directory):
    """The signal's checkpoint is found by the next job without being named."""
    # Until the scheduler ends the job it trains on, and measures.
    first, _ = train(tmp_path / "job", 22, [*everything(), Announced(13)])
    assert slurm.read_text() == "requeue 17\n"
    assert [p.name for p in (tmp_path / "job").glob("*.ckpt")] == ["hpc_ckpt_1.ckpt"]
    assert first[0].history.last_step == 22
    root = tmp_path / ("job" if same_directory else "next")
    root.mkdir(exist_ok=True)
    (tmp_path / "job" / "hpc_ckpt_1.ckpt").rename(root / "hpc_ckpt_1.ckpt")
    *second, _ = train(root, 40, [*everything(), Announced(29)])[0]
    assert second[0].history.steps.tolist() == whole[1][0].history.steps.tolist()
    assert {p.name for p in root.glob("*.ckpt")} == {"hpc_ckpt_1.ckpt", "hpc_ckpt_2.ckpt"}
    check_equal(whole, root, *train(root, 40))


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

    raw, module, own = {}, Signals(), tracker(weights="ema")
    fit(tmp_path, [*[EMAWeightAveraging(decay=0.5), own][::order], Sees()], module, max_steps=7)
    assert module.sent
    state = torch.load(tmp_path / "hpc_ckpt_1.ckpt", weights_only=True)
    assert not torch.equal(module.held["body.layers.0.weight"], raw["body.layers.0.weight"])
    assert all(torch.equal(state["current_model_state"][name], value) for name, value in raw.items())
    # The measurement that the signal came into is whole, and in the checkpoint.
    kept = SpectralHistory.from_state_dict(state["callbacks"]["SpectralTracker[spectral]"]["history"])
    assert kept.steps.tolist() == [0, 1, 2, 5]
    assert not signal.getsignal(signal.SIGUSR1)
