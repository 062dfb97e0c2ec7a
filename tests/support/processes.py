"""Trainings on one, two and four gloo processes, some of which fail or are killed.

All are forked from the process of the tests, which takes seconds less than starting each. Nothing ends a process here but
its own fault, so that a rank which waits for one that has stopped is seen to hang.
"""

import json
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import distributed
from torch.distributed.fsdp import fully_shard
from torch.utils.data import TensorDataset

from spectral_lightning.callbacks import AnalyticOverlay, EmergenceFitter, SpectralTracker
from spectral_lightning.datamodules import GaussianDataModule, MixtureDataModule
from spectral_lightning.models import DiffusionModule, LinearDenoiser, ResidualMLP
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import PatchComponents, files
from spectral_lightning.spectra.bases import basis
from tests.support.flat import flat_tracker
from tests.support.tiny_training import (
    DIM,
    Body,
    OwnModule,
    Repeatable,
    examples,
    loader,
    repeatable,
    three,
    trainer,
    whole_batch,
)

BASES = {"pca": "pca", "fourier": "fourier", "patch": PatchComponents(size=3)}
SAVE_EVERY, FAULT = 3, 5
KILLED = ["measurement", "row half written", "row not renamed", "basis half written", "history not renamed"]
RANKS = ["skip memory", "raise memory", "raise logger", "raise start", "raise classes", "skip classify"]
_SECONDS = 60


# Several processes as one.


class AssertsWorldSize(SpectralTracker):
    """Sees from inside that the work is really shared."""

    def on_train_start(self, trainer, pl_module):
        world = trainer.world_size
        assert world == 1 or distributed.get_world_size() == world
        super().on_train_start(trainer, pl_module)
        assert (self.session.probe.ranks.size, self.session.probe.ranks.rank) == (world, trainer.global_rank)


def trackers(**options):
    """One per basis; they share samples. 32 latents in chunks of 7: blocks are split, and ranks have unequal shares."""
    shared = {"num_samples": 32, "sampler": Sampler(num_steps=4), "batch_size": 7, "track_gain": True, "figures": False}
    settings = {"per_decade": 4, "held_out": examples(7, seed=5), **shared, **options}
    return [flat_tracker(AssertsWorldSize, name=name, basis=basis, **settings) for name, basis in BASES.items()]


def parallel(world, root, callbacks, **options):
    strategy = {"devices": world, "strategy": "ddp" if world > 1 else "auto", "limit_val_batches": 0}
    return trainer(root, callbacks, **{**strategy, **options})


def upper_half(x):
    return (x[:, 0] > 0).long()


def linear(world, out, steps=15, root=None, resumed=None):
    """A training, or a part of it that is cut in mid-epoch."""
    found = trackers(per_class=True, classify=upper_half, num_classes=2)
    saver = ModelCheckpoint(out / "checkpoints", filename=f"{steps}", every_n_train_steps=steps)
    observers = [EmergenceFitter(tracker="pca"), AnalyticOverlay(tracker="pca")]
    data = GaussianDataModule(dim=DIM, spectrum="power_law", exact_moments=True, num_samples=101, batch_size=4)
    model = LinearDenoiser(DIM, Sampler(num_steps=4), init=0.1, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    options = {"max_steps": steps, "enable_checkpointing": True}
    run = parallel(world, out / (root or f"linear_{world}"), [*observers, *found, saver], **options)
    run.fit(model, data, ckpt_path=None if resumed is None else str(out / "checkpoints" / f"{resumed}.ckpt"))


def frozen(world, out):
    """Conditioned on classes, which are measured under their labels."""
    seed_everything(0)
    data = MixtureDataModule([DIM], [0.6, 0.4], separation=2.0, num_samples=101, batch_size=8, num_val_samples=0)
    network, still = ResidualMLP([DIM], 8, 1, 4, num_classes=2), {"optimizer": lambda p: torch.optim.SGD(p, lr=0.0)}
    model = DiffusionModule(network, num_classes=2, class_dropout=0.1, **still)
    labelled = TensorDataset(examples(7, seed=5), torch.arange(7) % 2)
    callbacks = trackers(per_class=True, held_out=labelled)
    parallel(world, out / f"frozen_{world}", callbacks, max_steps=2).fit(model, data)


class Sharded(OwnModule):
    """The parameters of every layer spread over the processes."""

    def configure_model(self):
        for layer in (self.body.layers[0], self.body.layers[4]):
            fully_shard(layer, mesh=self.device_mesh["data_parallel"])

    def gathered(self, z, sigma):
        """The network on whole parameters, which all processes put together in every call."""
        body = Body()
        body.load_state_dict({name: p.full_tensor() for name, p in self.body.named_parameters()})
        return body(z, sigma)


def user_training(world, out, root, callbacks, make=OwnModule, **options):
    """Draws random numbers; 8 batches an epoch and process, of which the last group has two of three."""
    seed_everything(3)
    module = make(momentum=0.5)
    options = {"max_epochs": 2, "max_steps": -1, "accumulate_grad_batches": 3, **options}
    run = parallel(world, out / root, callbacks, **options)
    run.fit(module, loader(batch_size=4))
    return module, run


def with_and_without(world, out):
    for root, callbacks in (("without", []), ("with", trackers())):
        module, run = user_training(world, out, root, callbacks)
        state = {"weights": module.state_dict(), "generator": torch.get_rng_state(), "steps": run.global_step}
        (out / root).mkdir(exist_ok=True)
        torch.save(state, out / root / f"rank_{run.global_rank}.pt")


def sharded(world, out):
    """With a denoiser that gathers the parameters, and refused without it; in one basis, as the others share its samples."""

    def strategy():
        return {"strategy": ModelParallelStrategy(data_parallel_size=world, tensor_parallel_size=1)}

    gathering = {"denoiser": "tests.support.processes:gathered"}
    module, _ = user_training(world, out, "sharded", trackers(**gathering)[:1], Sharded, **strategy())
    assert type(module.body.layers[0].weight).__name__ == "DTensor"
    try:
        user_training(world, out, "refused", trackers()[:1], Sharded, **strategy())
    except ValueError as error:
        (out / f"refused_{distributed.get_rank()}.txt").write_text(str(error))


def gathered(module, z, sigma):
    """The whole network, by its import path."""
    return module.gathered(z, sigma)


# Trainings that are killed.


def train(root, callbacks, ckpt_path=None, make=Repeatable, **options):
    """The training that is killed, that goes on, or that nothing happens to."""
    module = repeatable(make)
    saver = ModelCheckpoint(root / "checkpoints", filename="{step}", every_n_train_steps=SAVE_EVERY, save_top_k=-1)
    run = trainer(root, [*callbacks, saver], **{"max_steps": 12, "enable_checkpointing": True, **options})
    run.fit(module, whole_batch(), ckpt_path=ckpt_path)
    return module


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


def killed(world, root, fault):
    """Train until the fault."""
    row = f"step-{FAULT:012d}.npz"
    if fault == "row half written":
        files.np.savez = _half(files.np.savez, row)
    elif fault == "basis half written":
        basis.torch.save = _half(basis.torch.save, "basis.pt")
    elif fault != "measurement":
        _not_renamed(row if fault == "row not renamed" else "history.npz")
    train(root, three(), make=_DiesMeasuring if fault == "measurement" else Repeatable)


# Faults on one of two ranks.


class _FailsOnOneRank(Repeatable):
    """Out of memory in its denoiser at one step, and a classifier of samples, or at step 0 of data, that fails at another."""

    memory = classes = -1

    def denoise(self, z, sigma):
        if not self.training and self.global_rank == 1 and self.trainer.global_step == self.memory:
            raise torch.OutOfMemoryError("no memory on this rank")
        return super().denoise(z, sigma)

    def classify(self, x):
        if self._trainer is not None and self.global_rank == 1 and self._trainer.global_step == self.classes:
            raise LookupError("no such class")
        return upper_half(x)


class _FailsAtFive(CSVLogger):
    def log_metrics(self, metrics, step=None):
        if step == FAULT:
            raise ConnectionError("the server does not answer")
        super().log_metrics(metrics, step)


class _Notes(Callback):
    """What a rank saw in the end."""

    error = None

    def on_exception(self, trainer, pl_module, exception):
        self.error = f"{type(exception).__name__}: {exception}"


def one_rank(world, root, on_error, fault):
    """What one of two ranks does, and a file that says how it ended."""
    module, notes = repeatable(_FailsOnOneRank), _Notes()
    module.memory = {"memory": FAULT, "start": 0}.get(fault, -1)
    module.classes = {"classify": FAULT, "classes": 0}.get(fault, -1)
    classes = {"per_class": True, "classify": module.classify, "num_classes": 2} if "class" in fault else {}
    callbacks = three(on_error=on_error, batch_size=4, **classes)  # a share for each rank
    options = {"logger": _FailsAtFive(root)} if fault == "logger" else {}
    try:
        train(root, [*callbacks, notes], make=lambda rate: module, strategy="ddp", devices=world, **options)
    except Exception as error:
        notes.error = notes.error or str(error)
    session = callbacks[0].session
    document = {
        "world": distributed.get_world_size(),
        "error": notes.error,
        "steps": [] if session.history is None else session.history.steps.tolist(),
        "failures": session.errors.failures,
        "weights": [p.double().sum().item() for p in module.parameters()],
    }
    (root / f"rank_{os.environ['LOCAL_RANK']}.json").write_text(json.dumps(document))


# Processes.


def _forked(world, out, tasks, **where):
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        torch.set_num_threads(1)
        for function, *arguments in tasks:
            # Lightning takes the world size out of the environment after every training.
            os.environ.update(where, WORLD_SIZE=str(world))
            function(world, out, *arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
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


def processes(world, out, *tasks):
    """Run tasks ``(function, *arguments)`` one after another on so many processes; how they ended."""
    out.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "NODE_RANK": "0"}
    return _ended([_forked(world, out, tasks, LOCAL_RANK=str(rank), **where) for rank in range(world)])


def run_all(out):
    """How each process of all trainings ended, which work in ``out``."""
    two = [(linear,), (frozen,), (with_and_without,), (sharded,), (linear, 4, "first")]
    ended = {
        "one": processes(1, out, (linear,), (frozen,)),
        "two": processes(2, out, *two),
        "again one": processes(1, out, (linear, 8, "second", 4)),
        "four": processes(4, out, (linear,), (frozen,), (linear, 15, "third", 8)),
    }
    for fault in KILLED:
        ended[fault] = processes(1, out / fault.replace(" ", "_"), (killed, fault))
    for scenario in RANKS:
        ended[scenario] = processes(2, out / scenario.replace(" ", "_"), (one_rank, *scenario.split()))
    return ended
