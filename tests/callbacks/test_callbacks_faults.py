"""What a training and its measurements survive. `docs/faults.md` is the table of these tests."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger

from spectral_lightning.callbacks import AnalyticOverlay, EmergenceFitter
from spectral_lightning.prediction import Prediction
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import HistoryDirectory, SpectralHistory, load_basis
from tests.support.tiny_training import (
    DIM,
    THEORY,
    OwnModule,
    blank_figure,
    loader,
    tracker,
    trainer,
    without_drawing,
)

ROOT = Path(__file__).parents[2]
FAULT, DUE = 5, [0, 1, 2, 5, 10]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Memory(Logger):
    """Keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.metrics, self.images = {}, []

    @property
    def name(self):
        return "memory"

    @property
    def version(self):
        return 0

    @property
    def experiment(self):
        return self

    def add_image(self, tag, img_tensor, global_step, dataformats):
        self.images.append((tag, global_step))

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


class Run:
    """A training, and a fault that is on at some of its steps."""

    def __init__(self, path, on_error, at=(FAULT,), ema=False, alone=True, **options):
        self.logger, self.second, self.module, self.at = Memory(), Memory(), None, at
        partners = [
            AnalyticOverlay(theory=THEORY, clock="learning_rate", figures_per_decade=3),
            EmergenceFitter(figures_per_decade=3),
        ]
        weights = {"weights": "ema"} if ema else {}
        self.tracker = tracker(on_error=on_error, track_gain=not alone, **weights, **options)
        self.callbacks = [self.tracker, *([] if alone else partners)]
        averaging = [EMAWeightAveraging(decay=0.5)] if ema else []
        loggers = [self.logger, self.second]
        self.trainer = trainer(path, [*self.callbacks, *averaging], max_steps=10, logger=loggers)

    @property
    def on(self):
        return self.module is not None and not self.module.training and self.trainer.global_step in self.at

    def fit(self):
        pl.seed_everything(11)
        self.module = Watched()
        self.trainer.fit(self.module, loader())
        return self

    @property
    def rows(self):
        return self.tracker.history.steps.tolist()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    without_drawing(monkeypatch)


_PLAIN = {}


def plain(path, max_steps=10, ema=False):
    """The training without callbacks of ours."""
    if (max_steps, ema) not in _PLAIN:
        pl.seed_everything(11)
        module = Watched()
        averaging = [EMAWeightAveraging(decay=0.5)] if ema else []
        trainer(path / "plain", averaging, max_steps=max_steps).fit(module, loader())
        _PLAIN[max_steps, ema] = module
    return _PLAIN[max_steps, ema]


def same(first, second):
    a, b = first.state_dict(), second.state_dict()
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


def fails(run, monkeypatch, owner, name, error, anywhere=False):
    """Let ``owner.name`` raise while the fault is on; in training mode too where ``anywhere``."""
    original = getattr(owner, name)

    def faulty(*args, **options):
        if run.on or (anywhere and run.trainer.global_step in run.at):
            raise error
        return original(*args, **options)

    monkeypatch.setattr(owner, name, faulty)


def broken_experiment(run, monkeypatch, error):
    def experiment(self):
        if self is run.logger and run.module is not None and run.trainer.global_step in run.at:
            raise error
        return self

    monkeypatch.setattr(Memory, "experiment", property(experiment))


OBSERVERS = "spectral_lightning.tracking.observers"
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")

# name -> (what to break, with which error, whether the row of the step is lost)
FAULTS = {
    "denoise": (lambda r, m, e: fails(r, m, Watched, "denoise", e), ZeroDivisionError("in the user's denoise"), True),
    "out of memory": (lambda r, m, e: fails(r, m, Watched, "denoise", e), torch.OutOfMemoryError("no memory"), True),
    "sampler": (lambda r, m, e: fails(r, m, Sampler, "__call__", e), FloatingPointError("in our sampler"), True),
    "weights": (
        lambda r, m, e: fails(r, m, torch.nn.Module, "named_buffers", e),
        RuntimeError("while the weights are put in"),
        True,
    ),
    "logger": (
        lambda r, m, e: fails(r, m, r.logger, "log_metrics", e, True),
        ConnectionError("the server does not answer"),
        False,
    ),
    "experiment": (broken_experiment, ConnectionError("no experiment"), False),
    "figure logging": (
        lambda r, m, e: fails(r, m, r.logger, "add_image", e, True),
        ConnectionError("no image taken"),
        False,
    ),
    "overlay": (lambda r, m, e: fails(r, m, Prediction, "extend", e, True), ArithmeticError("theory"), False),
    "fitter": (lambda r, m, e: fails(r, m, EmergenceFitter, "_evaluate", e, True), ArithmeticError("fit"), False),
    "matplotlib": (
        lambda r, m, e: [
            m.setattr(f"{OBSERVERS}.{where}", partial(_undrawn, r, e))
            for where in ("overlay.overlay_figure", "fitter.emergence_figure", "gain.gain_figure")
        ],
        ValueError("matplotlib"),
        False,
    ),
    "disk full": (lambda r, m, e: fails(r, m, np, "savez", e, True), NO_SPACE, False),
}


def _undrawn(run, error, *args, **options):
    if run.trainer.global_step in run.at:
        raise error
    return blank_figure()


def broken(path, monkeypatch, name, on_error, **options):
    install, error, lost = FAULTS[name]
    run = Run(path, on_error, ema=name == "weights", alone=lost, **options)
    install(run, monkeypatch, error)
    return run, error, lost


@pytest.mark.parametrize("name", FAULTS)
def test_skipped_the_training_goes_on_to_the_same_bits(name, tmp_path, monkeypatch):
    run, error, lost = broken(tmp_path, monkeypatch, name, "skip")
    with pytest.warns(UserWarning, match=f"step 5: .*{re.escape(str(error))}.* Training goes on"):
        run.fit()
    assert same(run.module, plain(tmp_path, ema=name == "weights"))
    # Tried again at the next step of the schedule, not at every step.
    assert run.rows == ([0, 1, 2, 10] if lost else DUE)
    # In the files, what failed at one step is made up for later.
    assert HistoryDirectory(tmp_path / "spectral" / "history").load().steps.tolist() == run.rows
    assert SpectralHistory.load(tmp_path / "spectral" / "history.npz").steps.tolist() == run.rows
    listed = json.loads((tmp_path / "spectral" / "cost.json").read_text())["failures"]
    assert {f["step"] for f in listed} == {5}
    assert all(str(error) in f["error"] for f in listed)
    run.trainer.save_checkpoint(tmp_path / "last.ckpt")
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]["SpectralTracker[spectral]"]
    assert state["failures"] == [[f["step"], f["error"]] for f in listed]
    if not lost:  # nor does a partner that failed once miss a row
        assert SpectralHistory.load(tmp_path / "spectral" / "prediction.npz").steps.tolist() == DUE
        assert sorted(p.name for p in tmp_path.rglob("*.png")) == ["emergence.png", "gain.png", "overlay.png"]
    # One logger that fails costs the others nothing of what comes after.
    assert list(run.second.metrics["spectral/variance/mode_0001"])[-1] == 10


@pytest.mark.parametrize("name", FAULTS)
def test_raised_the_training_ends_with_what_was_measured(name, tmp_path, monkeypatch):
    run, error, lost = broken(tmp_path, monkeypatch, name, "raise")
    with pytest.raises(type(error), match=re.escape(str(error))):
        run.fit()
    assert run.module.steps == FAULT
    # At the step of the error: raw weights, every submodule in the mode it trained in.
    assert same(run.module, plain(tmp_path, FAULT, ema=False)) or name == "weights"
    assert all(m.training for m in run.module.modules())
    rows = [0, 1, 2] if lost else [0, 1, 2, 5]
    assert run.rows == rows
    kept = [0, 1, 2] if name == "disk full" else rows
    assert HistoryDirectory(tmp_path / "spectral" / "history").load().steps.tolist() == kept
    if name != "disk full":
        assert SpectralHistory.load(tmp_path / "spectral" / "history.npz").steps.tolist() == rows
    listed = json.loads((tmp_path / "spectral" / "cost.json").read_text())["failures"]
    assert any(f["step"] == FAULT and str(error) in f["error"] for f in listed)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_denoiser_that_fails_at_start_stops_before_training(on_error, tmp_path, monkeypatch):
    run = Run(tmp_path, on_error, at=(0,))
    fails(run, monkeypatch, Watched, "denoise", RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(ValueError, match=r"The denoiser failed on input of shape .* mat1 and mat2 .* `denoiser=`"):
        run.fit()
    assert run.module.steps == 0


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_weights_are_put_back_where_the_average_fails(on_error, tmp_path, monkeypatch):
    """The network fails while it holds the averages, at a step where the training stops to be looked at."""
    run = Run(tmp_path, on_error, ema=True)
    fails(run, monkeypatch, Watched, "denoise", ZeroDivisionError("with averages"))
    seen = []

    class Looks(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == FAULT:
                seen.append({k: v.clone() for k, v in pl_module.state_dict().items()})

        def on_exception(self, trainer, pl_module, exception):
            seen.append({k: v.clone() for k, v in pl_module.state_dict().items()})

    run.trainer.callbacks.append(Looks())
    if on_error == "raise":
        with pytest.raises(ZeroDivisionError):
            run.fit()
    else:
        run.fit()
    raw = plain(tmp_path, FAULT).state_dict()  # an average of Lightning's does not touch the weights that train
    assert len(seen) == 1
    assert all(torch.equal(raw[key], seen[0][key]) for key in raw)


def test_an_error_of_the_training_is_the_one_to_be_seen(tmp_path, monkeypatch):
    """An error in the user's training_step, while the disk is full, too."""
    run = Run(tmp_path, "raise", at=(7,), alone=False)
    fails(run, monkeypatch, Watched, "training_step", LookupError("in the user's step"), anywhere=True)
    fails(run, monkeypatch, np, "savez", NO_SPACE, anywhere=True)
    with (
        pytest.warns(UserWarning, match="writing failed: OSError.*No space left.*The training had already ended"),
        pytest.raises(LookupError, match="in the user's step"),
    ):
        run.fit()
    assert HistoryDirectory(tmp_path / "spectral" / "history").load().steps.tolist() == [0, 1, 2, 5]
    assert {"emergence.json", "cost.json"} <= {p.name for p in (tmp_path / "spectral").iterdir()}


def test_an_error_of_the_training_leaves_whole_files(tmp_path, monkeypatch):
    run = Run(tmp_path, "raise", at=(7,), alone=False)
    fails(run, monkeypatch, Watched, "training_step", LookupError("in the user's step"), anywhere=True)
    with pytest.raises(LookupError, match="in the user's step"):
        run.fit()
    assert SpectralHistory.load(tmp_path / "spectral" / "history.npz").steps.tolist() == [0, 1, 2, 5]
    assert json.loads((tmp_path / "spectral" / "cost.json").read_text())["failures"] == []


@pytest.mark.parametrize("where", ["training", "measurement"])
@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "SIGTERM"])
def test_interrupted(kind, where, tmp_path, monkeypatch):
    run = Run(tmp_path, "skip")  # not an error to be skipped
    name = "training_step" if where == "training" else "denoise"
    original = getattr(Watched, name)

    def interrupting(self, *args):
        if run.trainer.global_step == FAULT and self.training is (where == "training"):
            if kind == "KeyboardInterrupt":
                raise KeyboardInterrupt
            signal.raise_signal(signal.SIGTERM)
        return original(self, *args)

    monkeypatch.setattr(Watched, name, interrupting)
    with pytest.raises(SystemExit):
        run.fit()
    # SIGTERM ends the training after its batch, with the measurement made; an interrupt ends it at once.
    measured = DUE[:-1] if kind == "SIGTERM" or where == "training" else [0, 1, 2]
    assert run.rows == measured
    assert SpectralHistory.load(tmp_path / "spectral" / "history.npz").steps.tolist() == measured
    assert all(m.training for m in run.module.modules())
    assert same(run.module, plain(tmp_path, run.trainer.global_step))
    assert run.tracker.session.errors.failures == []


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_weights_that_are_nan_are_shown_and_end_nothing(on_error, tmp_path):
    class Breaks(pl.Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            if trainer.global_step == 3:
                next(pl_module.parameters()).data.fill_(torch.nan)

    measuring = tracker(on_error=on_error)
    run = trainer(tmp_path, [Breaks(), measuring], max_steps=110)
    with pytest.warns(UserWarning, match="16 of 16 samples at step 100 held NaN or infinity"):
        run.fit(OwnModule(), loader())
    history = measuring.history
    assert run.global_step == 110
    assert history.steps.tolist()[-2:] == [100, 110]
    broken_rows = history.steps > 3
    assert (history["non_finite"] == np.where(broken_rows, 16, 0)).all()
    assert np.isnan(history.variance[broken_rows]).all()
    assert np.isfinite(history.variance[~broken_rows]).all()


def mounted(path, size=None):
    """A file system of its own at ``path``: of so many kB, or one that cannot be written to."""
    path.mkdir()
    options = "ro" if size is None else f"size={size}k"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", path], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.decode().strip()}")


@pytest.fixture
def small_disk(tmp_path):
    path = tmp_path / "small"
    try:
        mounted(path, 256)
        yield path
    finally:
        if path.is_mount():
            subprocess.run(["umount", path], check=True)


@pytest.fixture
def frozen_disk(tmp_path):
    path = tmp_path / "frozen"
    try:
        mounted(path)
        yield path
    finally:
        if path.is_mount():
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


def test_a_disk_that_was_full_is_made_up_for(tmp_path, small_disk):
    run = Run(tmp_path, "skip", directory=str(small_disk))
    run.trainer.callbacks.insert(0, FillsTheDisk(small_disk))
    with pytest.warns(UserWarning, match="step 5: writing failed: OSError: The results cannot be written .*No space"):
        run.fit()
    assert same(run.module, plain(tmp_path))
    assert HistoryDirectory(small_disk / "spectral" / "history").load().steps.tolist() == DUE
    assert SpectralHistory.load(small_disk / "spectral" / "history.npz").steps.tolist() == DUE
    assert not list(small_disk.rglob("*.part"))


def test_a_disk_that_is_full_keeps_what_it_has(tmp_path, small_disk):
    run = Run(tmp_path, "raise", directory=str(small_disk))
    run.trainer.callbacks.insert(0, FillsTheDisk(small_disk))
    with pytest.raises(OSError, match=r"No space left on device. Make room there, or name another place"):
        run.fit()
    assert HistoryDirectory(small_disk / "spectral" / "history").load().steps.tolist() == [0, 1, 2]
    assert not list(small_disk.rglob("*.part"))


def refused(tmp_path, on_error, where):
    run = Run(tmp_path, on_error, directory=str(where))
    if on_error == "raise":
        with pytest.raises(OSError, match=f"cannot be written to {where}"):
            run.fit()
        assert run.module.steps == 0
        return
    with pytest.warns(UserWarning, match=f"cannot be written to {where}"):
        run.fit()
    assert same(run.module, plain(tmp_path))
    assert run.rows == DUE
    assert {step for step, _ in run.tracker.session.errors.failures} == set(DUE)
    assert list(run.logger.metrics["spectral/variance/mode_0001"]) == DUE


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_directory_that_is_a_file(on_error, tmp_path):
    (tmp_path / "taken").write_text("a file")
    refused(tmp_path, on_error, tmp_path / "taken")


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_directory_that_is_read_only(on_error, tmp_path, frozen_disk):
    refused(tmp_path, on_error, frozen_disk)


def test_a_resumed_training_does_not_try_again_before_the_schedule(tmp_path, monkeypatch):
    run = Run(tmp_path, "skip")
    fails(run, monkeypatch, Watched, "denoise", ZeroDivisionError("once"))
    run.trainer.callbacks.append(ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=6))
    run.fit()
    again = Run(tmp_path, "skip", at=())
    pl.seed_everything(11)
    again.trainer.fit(Watched(), loader(), ckpt_path=tmp_path / "step=6.ckpt")
    assert again.rows == [0, 1, 2, 10]
    assert [step for step, _ in again.tracker.session.errors.failures] == [5]


def test_a_damaged_basis_is_made_anew(tmp_path):
    run = Run(tmp_path, "raise")
    run.trainer.callbacks.append(ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=6))
    run.fit()
    basis = tmp_path / "spectral" / "basis.pt"
    before = load_basis(basis)
    basis.write_bytes(basis.read_bytes()[:500])
    again = Run(tmp_path, "raise")
    with pytest.warns(UserWarning, match="basis.pt cannot be read .* the basis is made anew"):
        again.trainer.fit(Watched(), loader(), ckpt_path=tmp_path / "step=6.ckpt")
    assert again.rows == DUE
    assert load_basis(basis).fingerprint == before.fingerprint


# In processes of their own.


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Where the processes of the script worked, and how each ended."""
    out = tmp_path_factory.mktemp("faults")
    env = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE")}
    command = [sys.executable, "-m", "tests.support.faults", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return out, json.loads((out / "ended.json").read_text())


@pytest.fixture(scope="module")
def script():
    """The trainings of the script, to go on with here."""
    from tests.support import faults

    return faults


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, script):
    measuring = tracker()
    module, _ = script.train(tmp_path_factory.mktemp("whole"), [measuring])
    return measuring.history, module


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "rows", "checkpoint"),
    [
        ("measurement", [0, 1, 2], 3),
        ("row half written", [0, 1, 2], 3),
        ("row not renamed", [0, 1, 2], 3),
        ("history not renamed", [0, 1, 2, 5, 10, 12], 9),
    ],
)
def test_killed_and_resumed(fault, rows, checkpoint, processes, script, uninterrupted):
    out, ended = processes
    root = out / fault.replace(" ", "_")
    assert ended[fault] == [-signal.SIGKILL]
    history, module = uninterrupted
    left = HistoryDirectory(root / "spectral" / "history").load()
    assert left.steps.tolist() == rows
    np.testing.assert_array_equal(left.variance, history.variance[: len(rows)])
    assert not (root / "spectral" / "history.npz").exists()
    load_basis(root / "spectral" / "basis.pt")
    # On from the last checkpoint.
    callbacks = script.three()
    again, _ = script.train(root, callbacks, root / "checkpoints" / f"step={checkpoint}.ckpt")
    assert callbacks[0].history.steps.tolist() == [0, 1, 2, 5, 10, 12]
    np.testing.assert_array_equal(callbacks[0].history.variance, history.variance)
    for whole in (
        HistoryDirectory(root / "spectral" / "history").load(),
        SpectralHistory.load(root / "spectral" / "history.npz"),
    ):
        np.testing.assert_array_equal(whole.steps, history.steps)
        np.testing.assert_array_equal(whole.variance, history.variance)
    assert same(again, module)
    assert not [p for p in root.rglob("*.part") if p.with_suffix("").exists()]


@pytest.mark.slow
def test_killed_while_the_basis_is_written(processes, script, uninterrupted):
    out, ended = processes
    root = out / "basis_half_written"
    assert ended["basis half written"] == [-signal.SIGKILL]
    # Before the first step, so that there is nothing to go on from but nothing half written either.
    assert [p.name for p in root.rglob("*") if p.is_file()] == ["basis.pt.part"]
    callbacks = script.three()
    script.train(root, callbacks)
    np.testing.assert_array_equal(callbacks[0].history.variance, uninterrupted[0].variance)
    assert load_basis(root / "spectral" / "basis.pt").dim == DIM


def ranks(processes, scenario):
    out, ended = processes
    assert ended[scenario] == [0, 0]  # neither had to be ended from outside
    documents = [json.loads((out / scenario.replace(" ", "_") / f"rank_{r}.json").read_text()) for r in range(2)]
    assert [d["world"] for d in documents] == [2, 2]
    return documents


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "error"), [("skip memory", "no memory on this rank"), ("skip classify", "no such class")]
)
def test_skipped_on_one_of_two_ranks_both_go_on(scenario, error, processes):
    first, second = ranks(processes, scenario)
    for document in (first, second):
        assert document["error"] is None
        assert document["steps"] == [0, 1, 2, 10, 12]
        ((step, text),) = document["failures"]
        assert step == FAULT
        assert error in text
    assert "rank 1" in first["failures"][0][1]
    assert first["weights"] == second["weights"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "failing", "error", "steps"),
    [
        ("raise memory", 1, "OutOfMemoryError: no memory on this rank", [0, 1, 2]),
        ("raise start", 1, "OutOfMemoryError: no memory on this rank", []),
        ("raise classes", 1, "LookupError: no such class", []),
        ("raise logger", 0, "ConnectionError: the server does not answer", [0, 1, 2, 5]),
    ],
)
def test_raised_on_one_of_two_ranks_both_end_at_once(scenario, failing, error, steps, processes):
    documents = ranks(processes, scenario)
    assert documents[failing]["error"] == error
    assert documents[1 - failing]["error"] == f"RuntimeError: failed on rank {failing}: {error}"
    assert [d["steps"] for d in documents] == [steps, steps]


def test_every_line_of_the_table_names_a_test():
    lines = [line for line in (ROOT / "docs" / "faults.md").read_text().splitlines() if line.startswith("| ")][1:]
    tests = set(re.findall(r"^def (test_\w+)", Path(__file__).read_text(), re.MULTILINE))
    named = [set(re.findall(r"`(test_\w+)", line)) for line in lines]
    assert len(lines) >= 20
    assert all(named)
    assert set().union(*named) == tests - {"test_every_line_of_the_table_names_a_test"}
    cases = {case for line in lines for case in re.findall(r"\[([^\]]+)\]`", line)}
    assert set(FAULTS) <= cases
