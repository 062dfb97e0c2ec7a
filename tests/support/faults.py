"""Trainings that are killed, or fail on one of two ranks, in processes of their own; run as a script: OUT.

One process imports everything and forks the others, which takes seconds less than starting each. Nothing ends a process
here but its own fault, so that a rank which waits for one that has stopped is seen to hang.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from spectral_lightning.spectra import files
from spectral_lightning.spectra.bases import basis
from tests.support.tiny_training import OwnModule, examples, loader, three, trainer

SAVE_EVERY, STEPS, FAULT = 3, 12, 5
KILLED = [
    "measurement",
    "row half written",
    "row not renamed",
    "basis half written",
    "history not renamed",
]
RANKS = [
    ("skip", "memory"),
    ("raise", "memory"),
    ("raise", "logger"),
    ("raise", "start"),
    ("raise", "classes"),
    ("skip", "classify"),
]
_SECONDS = 60


class Repeatable(OwnModule):
    """The noise of a step depends on nothing but the step, so that a resumed training is the uninterrupted one."""

    def training_step(self, batch, batch_idx):
        generator = torch.Generator().manual_seed(self.trainer.global_step)
        sigma = torch.rand(len(batch), generator=generator) + 0.1
        noise = torch.randn(batch.shape, generator=generator)
        return (self.denoise(batch + sigma[:, None] * noise, sigma) - batch).square().mean()


def whole_batch():
    """One batch per epoch, always the same."""
    return loader(examples(), batch_size=64, shuffle=False)


def checkpoints(root):
    """Saves often, and keeps all."""
    return ModelCheckpoint(root / "checkpoints", filename="{step}", every_n_train_steps=SAVE_EVERY, save_top_k=-1)


def train(root, callbacks, ckpt_path=None, make=Repeatable, **options):
    """The training that is killed, that goes on, or that nothing happens to."""
    torch.manual_seed(7)
    module = make()
    options = {"max_steps": STEPS, "enable_checkpointing": True, **options}
    run = trainer(root, [*callbacks, checkpoints(root)], **options)
    run.fit(module, whole_batch(), ckpt_path=ckpt_path)
    return module, run


def _die(*_args, **_options):
    os.kill(os.getpid(), signal.SIGKILL)


class _DiesMeasuring(Repeatable):
    def denoise(self, z, sigma):
        if not self.training and self.trainer.global_step == FAULT:
            _die()
        return super().denoise(z, sigma)


def _half(save, name):
    """Half of what ``save`` would write to a file of this name, and the end."""

    def saved(first, second=None, **arrays):
        path = Path(getattr(first, "name", second))
        if name not in path.name:
            return save(first, second, **arrays) if second is not None else save(first, **arrays)
        whole = path.with_name("whole")
        _ = save(first, whole) if second is not None else save(whole.open("wb"), **arrays)
        content = whole.read_bytes()
        whole.unlink()
        path.write_bytes(content[: len(content) // 2])
        return _die()

    return saved


def _not_renamed(name):
    replace = Path.replace

    def replaced(self, target):
        return _die() if Path(target).name == name else replace(self, target)

    Path.replace = replaced


def killed(root, fault):
    """Train until the fault."""
    row = f"step-{FAULT:012d}.npz"
    if fault == "row half written":
        files.np.savez = _half(files.np.savez, row)
    elif fault == "row not renamed":
        _not_renamed(row)
    elif fault == "basis half written":
        basis.torch.save = _half(basis.torch.save, "basis.pt")
    elif fault == "history not renamed":
        _not_renamed("history.npz")
    train(root, three(figures=False), make=_DiesMeasuring if fault == "measurement" else Repeatable)


class _FailsOnOneRank(Repeatable):
    def __init__(self, at):
        super().__init__()
        self.at = at

    def denoise(self, z, sigma):
        if not self.training and self.trainer.global_step == self.at and self.global_rank == 1:
            raise torch.OutOfMemoryError("no memory on this rank")
        return super().denoise(z, sigma)


class _FailsAtFive(CSVLogger):
    def log_metrics(self, metrics, step=None):
        if step == FAULT:
            raise ConnectionError("the server does not answer")
        super().log_metrics(metrics, step)


class _Classifier:
    """A user's classifier that fails on one rank at a step: of samples, or at step 0 of the data."""

    def __init__(self, at):
        self.module, self.at = None, at

    def __call__(self, x):
        run = self.module._trainer
        if run is not None and run.global_step == self.at and self.module.global_rank == 1:
            raise LookupError("no such class")
        return (x[:, 0] > 0).long()


class _Notes(Callback):
    """What a rank saw in the end."""

    def __init__(self):
        self.error = None

    def on_exception(self, trainer, pl_module, exception):
        self.error = f"{type(exception).__name__}: {exception}"


def one_rank(root, on_error, fault):
    """What one of two ranks does, and a file that says how it ended."""
    module = _FailsOnOneRank({"memory": FAULT, "start": 0}.get(fault, -1))
    options, notes = {}, _Notes()
    if fault in ("classify", "classes"):
        classifier = _Classifier(FAULT if fault == "classify" else 0)
        classifier.module = module
        options = {"per_class": True, "classify": classifier, "num_classes": 2}
    callbacks = three(on_error=on_error, batch_size=4, figures=False, **options)  # a share for each rank
    options = {"logger": _FailsAtFive(root)} if fault == "logger" else {}
    try:
        train(root, [*callbacks, notes], make=lambda: module, strategy="ddp", devices=2, **options)
    except Exception as error:
        notes.error = notes.error or str(error)
    history = callbacks[0].history
    document = {
        "world": torch.distributed.get_world_size(),
        "error": notes.error,
        "steps": [] if history is None else history.steps.tolist(),
        "failures": callbacks[0].session.errors.failures,
        "weights": [p.double().sum().item() for p in module.parameters()],
    }
    (root / f"rank_{os.environ['LOCAL_RANK']}.json").write_text(json.dumps(document))


def _forked(part, *arguments, **environment):
    pid = os.fork()
    if pid:
        return pid
    os.environ.update(environment)
    status = 1
    try:
        part(*arguments)
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def _ended(pids):
    """How the processes ended: minus the signal, the exit status, or None for one that hangs."""
    end, statuses = time.monotonic() + _SECONDS, {}
    while len(statuses) < len(pids) and time.monotonic() < end:
        for pid in set(pids) - set(statuses):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                statuses[pid] = os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    for pid in set(pids) - set(statuses):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return [statuses.get(pid) for pid in pids]


def _free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return str(opened.getsockname()[1])


def main(out: Path) -> None:
    """Run them all and write down how each process ended."""
    torch.set_num_threads(1)
    ended = {}
    for fault in KILLED:
        root = out / fault.replace(" ", "_")
        root.mkdir()
        ended[fault] = _ended([_forked(killed, root, fault)])
    for on_error, fault in RANKS:
        root = out / f"{on_error}_{fault}"
        root.mkdir()
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port(), "WORLD_SIZE": "2", "NODE_RANK": "0"}
        ended[f"{on_error} {fault}"] = _ended(
            [_forked(one_rank, root, on_error, fault, LOCAL_RANK=str(rank), **where) for rank in range(2)]
        )
    (out / "ended.json").write_text(json.dumps(ended))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
