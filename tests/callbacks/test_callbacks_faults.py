"""What a training and its measurements survive. `docs/faults.md` is the table of these tests."""

import errno
import json
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger

from spectral_lightning.callbacks import EmergenceFitter
from spectral_lightning.prediction import Prediction
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import HistoryDirectory, SpectralHistory, load_basis
from spectral_lightning.tracking.observers import Forecaster
from spectral_lightning.tracking.timing import schedule
from tests.support.tiny_training import (
    OwnModule,
    blank_figure,
    draw_blanks,
    fit,
    loader,
    same,
    three,
    tracker,
    trainer,
    values,
)

ROOT = Path(__file__).parents[2]
FAULT, DUE = 5, [0, 1, 2, 5, 10]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Memory(Logger):
    """Keeps what it is given."""

    name, version = "memory", 0

    def __init__(self):
        super().__init__()
        self.metrics = {}

    @property
    def experiment(self):
        return self

    def add_image(self, tag, img_tensor, global_step, dataformats):
        pass

    def log_hyperparams(self, params):
        pass

    def log_metrics(self, metrics, step=None):
        for name, value in metrics.items():
            self.metrics.setdefault(name, {})[step] = value


class Watched(OwnModule):
    """Counts its training steps."""

    steps = 0

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return super().training_step(batch, batch_idx)


def seeded():
    torch.manual_seed(11)
    return Watched()


class Run:
    """A training, and a fault that is on at some of its steps."""

    def __init__(self, path, on_error, at=(FAULT,), ema=False, alone=True, save_at=None, **options):
        self.logger, self.second, self.module, self.at = Memory(), Memory(), None, at
        settings = {"on_error": on_error, **({"weights": "ema"} if ema else {}), **options}
        figures = {"figures_per_decade": 3, "figures": True, "track_gain": True}
        self.callbacks = [tracker(**settings)] if alone else three("learning_rate", **figures, **settings)
        others = [EMAWeightAveraging(decay=0.5)] if ema else []
        others += [ModelCheckpoint(path, filename="{step}", every_n_train_steps=save_at)] if save_at else []
        loggers = [self.logger, self.second]
        self.trainer = trainer(path, [*self.callbacks, *others], logger=loggers, enable_checkpointing=bool(save_at))

    def fit(self, ckpt_path=None):
        self.module = seeded()
        pl.seed_everything(11, verbose=False)
        self.trainer.fit(self.module, loader(), ckpt_path=ckpt_path)
        return self

    @property
    def on(self):
        return self.module is not None and self.trainer.global_step in self.at

    @property
    def rows(self):
        return self.callbacks[0].history.steps.tolist()

    @property
    def failures(self):
        return self.callbacks[0].session.errors.failures


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The training without callbacks of ours, up to a step."""
    found = {}

    def trained(max_steps=10, ema=False):
        if (max_steps, ema) not in found:
            averaging, path = [EMAWeightAveraging(decay=0.5)] if ema else [], tmp_path_factory.mktemp("plain")
            found[max_steps, ema] = module = seeded()
            fit(path, averaging, module, max_steps=max_steps)
        return found[max_steps, ema]

    return trained


def on_disk(path):
    return HistoryDirectory(path / "spectral" / "history").load().steps.tolist()


def saved(path):
    return SpectralHistory.load(path / "spectral" / "history.npz").steps.tolist()


def fails(run, monkeypatch, owner, name, error, training=False):
    """Let ``owner.name`` raise while the fault is on: in a measurement, or in the training too."""
    original = getattr(owner, name)

    def faulty(*args, **options):
        if run.on and (training or not run.module.training):
            raise error
        return original(*args, **options)

    monkeypatch.setattr(owner, name, faulty)


@pytest.fixture(autouse=True)
def early_figures(monkeypatch):
    """These runs are short; figures may fail from the first step on."""
    monkeypatch.setattr(schedule.Schedule, "figure_due", lambda self, last, step, end=None: self.due(last, step))


def broken_experiment(run, monkeypatch, error):
    def experiment(self):
        if self is run.logger and run.on:
            raise error
        return self

    monkeypatch.setattr(Memory, "experiment", property(experiment))


def broken_drawing(run, monkeypatch, error):
    def draw(*_args, **_options):
        if run.on:
            raise error
        return blank_figure()

    draw_blanks(monkeypatch, draw)


NO_SPACE = OSError(errno.ENOSPC, "No space left on device")
DENOISE, NO_MEMORY = ZeroDivisionError("in the user's denoise"), torch.OutOfMemoryError("no memory")

# name -> (what to break, with which error, whether the row of the step is lost)
FAULTS = {
    "denoise": (lambda r, m, e: fails(r, m, Watched, "denoise", e), DENOISE, True),
    "out of memory": (lambda r, m, e: fails(r, m, Watched, "denoise", e), NO_MEMORY, True),
    "sampler": (lambda r, m, e: fails(r, m, Sampler, "__call__", e), FloatingPointError("in our sampler"), True),
    "weights": (lambda r, m, e: fails(r, m, torch.nn.Module, "named_buffers", e), RuntimeError("put in"), True),
    "logger": (lambda r, m, e: fails(r, m, r.logger, "log_metrics", e, True), ConnectionError("no answer"), False),
    "experiment": (broken_experiment, ConnectionError("no experiment"), False),
    "figure logging": (lambda r, m, e: fails(r, m, r.logger, "add_image", e, True), ConnectionError("image"), False),
    "overlay": (lambda r, m, e: fails(r, m, Prediction, "extend", e, True), ArithmeticError("theory"), False),
    "fitter": (lambda r, m, e: fails(r, m, EmergenceFitter, "_evaluate", e, True), ArithmeticError("fit"), False),
    "forecaster": (lambda r, m, e: fails(r, m, Forecaster, "_look", e, True), ArithmeticError("forecast"), False),
    "matplotlib": (broken_drawing, ValueError("matplotlib"), False),
    "disk full": (lambda r, m, e: fails(r, m, np, "savez", e, True), NO_SPACE, False),
}


def broken(path, monkeypatch, name, on_error):
    install, error, lost = FAULTS[name]
    run = Run(path, on_error, ema=name == "weights", alone=lost)
    draw_blanks(monkeypatch)
    install(run, monkeypatch, error)
    return run, error, lost


@pytest.mark.parametrize("name", FAULTS)
def test_skipped_the_training_goes_on_to_the_same_bits(name, tmp_path, monkeypatch, plain):
    run, error, lost = broken(tmp_path, monkeypatch, name, "skip")
    with pytest.warns(UserWarning, match=f"step 5: .*{re.escape(str(error))}.* Training goes on"):
        run.fit()
    assert same(run.module, plain(ema=name == "weights"))
    # Tried again at the next step of the schedule, not at every step; in the files, what failed is made up for.
    assert run.rows == on_disk(tmp_path) == saved(tmp_path) == ([0, 1, 2, 10] if lost else DUE)
    listed = json.loads((tmp_path / "spectral" / "cost.json").read_text())["failures"]
    assert {f["step"] for f in listed} == {FAULT}
    assert all(str(error) in f["error"] for f in listed)
    run.trainer.save_checkpoint(tmp_path / "last.ckpt")
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]["SpectralTracker[spectral]"]
    assert state["failures"] == [[f["step"], f["error"]] for f in listed]
    # Nor does an observer that failed once miss a row, and one logger that fails costs the others nothing.
    pictures = {p.name for p in tmp_path.rglob("*.png")}
    assert pictures == (set() if lost else {"emergence.png", "gain.png", "overlay.png"})
    assert [len(SpectralHistory.load(p)) for p in tmp_path.rglob("prediction.npz")] == ([] if lost else [len(DUE)])
    assert list(run.second.metrics["spectral/variance/mode_0001"])[-1] == 10


@pytest.mark.parametrize("name", FAULTS)
def test_raised_the_training_ends_with_what_was_measured(name, tmp_path, monkeypatch, plain):
    run, error, lost = broken(tmp_path, monkeypatch, name, "raise")
    with pytest.raises(type(error), match=re.escape(str(error))):
        run.fit()
    assert run.module.steps == FAULT
    # At the step of the error: raw weights, every submodule in the mode it trained in.
    assert same(run.module, plain(FAULT)) or name == "weights"
    assert all(m.training for m in run.module.modules())
    rows, disk = [0, 1, 2] if lost else [0, 1, 2, 5], name == "disk full"
    assert run.rows == rows
    assert on_disk(tmp_path) == rows[: 3 if disk else None]
    assert disk or saved(tmp_path) == rows
    listed = json.loads((tmp_path / "spectral" / "cost.json").read_text())["failures"]
    assert any(f["step"] == FAULT and str(error) in f["error"] for f in listed)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_denoiser_that_fails_at_start_stops_before_training(on_error, tmp_path, monkeypatch):
    run = Run(tmp_path, on_error, at=(0,))
    fails(run, monkeypatch, Watched, "denoise", RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(ValueError, match=r"mat1 and mat2 .* `denoiser=`"):
        run.fit()
    assert run.module.steps == 0


class Looks(pl.Callback):
    """At the weights that train on after the fault, or that an exception leaves."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == FAULT:
            self.seen.append(values(pl_module))

    def on_exception(self, trainer, pl_module, exception):
        self.seen.append(values(pl_module))


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_weights_are_put_back_where_the_average_fails(on_error, tmp_path, monkeypatch, plain):
    """The network fails while it holds the averages, at a step where the training stops to be looked at."""
    run, looks = Run(tmp_path, on_error, ema=True), Looks()
    fails(run, monkeypatch, Watched, "denoise", ZeroDivisionError("with averages"))
    run.trainer.callbacks.append(looks)
    with suppress(ZeroDivisionError):
        run.fit()
    assert run.trainer.global_step == (FAULT if on_error == "raise" else 10)
    (seen,) = looks.seen
    assert same(seen, plain(FAULT))  # an average of Lightning's does not touch the weights that train


@pytest.mark.parametrize("full", [True, False])
def test_an_error_of_the_training_is_seen_and_leaves_whole_files(full, tmp_path, monkeypatch):
    """An error in the user's training_step, while the disk is full, too."""
    run = Run(tmp_path, "raise", at=(7,), alone=False)
    draw_blanks(monkeypatch)
    fails(run, monkeypatch, Watched, "training_step", LookupError("in the user's step"), True)
    if full:
        fails(run, monkeypatch, np, "savez", NO_SPACE, True)
    with pytest.raises(LookupError, match="in the user's step"):
        run.fit()
    assert on_disk(tmp_path) == [0, 1, 2, 5]
    assert (tmp_path / "spectral" / "history.npz").exists() is not full
    assert (tmp_path / "spectral" / "emergence.json").exists()
    listed = json.loads((tmp_path / "spectral" / "cost.json").read_text())["failures"]
    assert ["No space left" in f["error"] for f in listed] == [True] * len(listed)
    assert bool(listed) is full


@pytest.mark.parametrize("where", ["training", "measurement"])
@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "SIGTERM"])
def test_interrupted(kind, where, tmp_path, monkeypatch, plain):
    run = Run(tmp_path, "skip")  # not an error to be skipped
    name = "training_step" if where == "training" else "denoise"
    original = getattr(Watched, name)

    def interrupting(self, *args):
        if run.on and self.training is (where == "training"):
            if kind == "KeyboardInterrupt":
                raise KeyboardInterrupt
            signal.raise_signal(signal.SIGTERM)
        return original(self, *args)

    monkeypatch.setattr(Watched, name, interrupting)
    with pytest.raises(SystemExit):
        run.fit()
    # SIGTERM ends the training after its batch, with the measurement made; an interrupt ends it at once.
    measured = DUE[:-1] if kind == "SIGTERM" or where == "training" else [0, 1, 2]
    assert run.rows == saved(tmp_path) == measured
    assert all(m.training for m in run.module.modules())
    assert same(run.module, plain(run.trainer.global_step))
    assert run.failures == []


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_weights_that_are_nan_are_shown_and_stop_nothing(on_error, tmp_path):
    class Breaks(pl.Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            if trainer.global_step == 3:
                next(pl_module.parameters()).data.fill_(torch.nan)

    measuring = tracker(on_error=on_error, per_decade=1)
    with pytest.warns(UserWarning, match="16 of 16 samples at step 100"):
        run = fit(tmp_path, [Breaks(), measuring], max_steps=102)
    history = measuring.history
    assert run.global_step == 102
    assert history.steps.tolist() == [0, 1, 10, 100, 102]
    assert history["non_finite"].tolist() == [0, 0, 16, 16, 16]
    assert np.isnan(history.variance).all(axis=1).tolist() == [False, False, True, True, True]
    assert np.isfinite(history.variance[:2]).all()


@pytest.fixture
def disk(tmp_path, request):
    """A file system of so many kB, or one that cannot be written to."""
    path, size = tmp_path / "disk", request.param
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "ro" if size is None else f"size={size}k", "none", path]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", path], check=True)


class FillsTheDisk(pl.Callback):
    """From step 3 to step 8."""

    def __init__(self, disk):
        self.ballast = disk / "ballast"

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 3:
            with suppress(OSError), self.ballast.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        if trainer.global_step == 8:
            self.ballast.unlink()


@pytest.mark.parametrize("disk", [256], indirect=True)
def test_a_disk_that_was_full_is_made_up_for(tmp_path, disk, plain):
    run = Run(tmp_path, "skip", directory=str(disk))
    run.trainer.callbacks.insert(0, FillsTheDisk(disk))
    with pytest.warns(UserWarning, match="step 5: writing failed: OSError: .*No space"):
        run.fit()
    assert same(run.module, plain())
    assert on_disk(disk) == saved(disk) == DUE
    assert not list(disk.rglob("*.part"))


@pytest.mark.parametrize("disk", [256], indirect=True)
def test_a_disk_that_is_full_keeps_what_it_has(tmp_path, disk):
    run = Run(tmp_path, "raise", directory=str(disk))
    run.trainer.callbacks.insert(0, FillsTheDisk(disk))
    with pytest.raises(OSError, match=r"No space left on device.*directory="):
        run.fit()
    assert on_disk(disk) == [0, 1, 2]
    assert not list(disk.rglob("*.part"))


def refused(tmp_path, where):
    """Nothing is trained, or everything is kept but on disk."""
    run = Run(tmp_path, "raise", directory=str(where))
    with pytest.raises(OSError, match=f"cannot be written to {where}.*directory="):
        run.fit()
    assert run.module.steps == 0
    run = Run(tmp_path, "skip", directory=str(where))
    with pytest.warns(UserWarning, match=f"cannot be written to {where}"):
        run.fit()
    assert run.rows == list(run.logger.metrics["spectral/variance/mode_0001"]) == DUE
    assert {step for step, _ in run.failures} == set(DUE)
    return run.module


def test_a_directory_that_is_a_file(tmp_path, plain):
    (tmp_path / "taken").write_text("a file")
    assert same(refused(tmp_path, tmp_path / "taken"), plain())


@pytest.mark.parametrize("disk", [None], indirect=True)
def test_a_directory_that_is_read_only(tmp_path, disk, plain):
    assert same(refused(tmp_path, disk), plain())


def test_a_resumed_training_does_not_try_again_before_the_schedule(tmp_path, monkeypatch):
    run = Run(tmp_path, "skip", save_at=6)
    fails(run, monkeypatch, Watched, "denoise", ZeroDivisionError("once"))
    run.fit()
    again = Run(tmp_path, "skip", at=()).fit(tmp_path / "step=6.ckpt")
    assert again.rows == [0, 1, 2, 10]
    assert [step for step, _ in again.failures] == [FAULT]


def test_a_damaged_basis_is_made_anew(tmp_path):
    Run(tmp_path, "raise", save_at=6).fit()
    basis = tmp_path / "spectral" / "basis.pt"
    before = load_basis(basis)
    basis.write_bytes(basis.read_bytes()[:500])
    again = Run(tmp_path, "raise")
    with pytest.warns(UserWarning, match=r"basis\.pt cannot be read"):
        again.fit(tmp_path / "step=6.ckpt")
    assert again.rows == DUE
    assert load_basis(basis).fingerprint == before.fingerprint


def test_every_line_of_the_table_names_a_test():
    lines = [line for line in (ROOT / "docs" / "faults.md").read_text().splitlines() if line.startswith("| ")][1:]
    both = [Path(__file__), Path(__file__).with_name("test_callbacks_processes.py")]
    here, there = (set(re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)) for path in both)
    named = [set(re.findall(r"`(test_\w+)", line)) for line in lines]
    assert len(lines) >= 20
    assert all(named)
    every = set().union(*named)
    assert here - {"test_every_line_of_the_table_names_a_test"} <= every <= here | there
    # Faults of processes that are killed or fail have the tests that end the other file.
    assert {name for name in there if "killed" in name or "ranks" in name} <= every
    cases = {case for line in lines for case in re.findall(r"\[([^\]]+)\]`", line)}
    assert set(FAULTS) <= cases
