"""Trainings on 1, 2 and 4 gloo processes, forked so that this is imported once.

Run as a script: ``OUT``. The last training is on processes that Lightning's own launcher starts.
"""

import os
import socket
import sys
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import distributed, multiprocessing, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader

from spectral_lightning.callbacks import AnalyticOverlay, EmergenceFitter, SpectralTracker
from spectral_lightning.datamodules import GaussianDataModule, MixtureDataModule
from spectral_lightning.models import DiffusionModule, LinearDenoiser, ResidualMLP
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import PatchComponents
from tests.support.flat import flat_tracker

SAMPLER = Sampler(num_steps=4)
BASES = {"pca": "pca", "fourier": "fourier", "patch": PatchComponents(size=3)}
DIM = 8


class AssertsWorldSize(SpectralTracker):
    """Sees from inside that the work is really shared."""

    def on_train_start(self, trainer, pl_module):
        world = trainer.world_size
        assert world == 1 or distributed.get_world_size() == world
        super().on_train_start(trainer, pl_module)
        assert self.session.probe.ranks.size == world
        assert self.session.probe.ranks.rank == trainer.global_rank


def trackers(**options):
    """One per basis; they share samples. 32 latents in chunks of 7: blocks are split, and ranks have unequal shares."""
    shared = {
        "num_samples": 32,
        "sampler": SAMPLER,
        "per_decade": 4,
        "batch_size": 7,
        "track_gain": True,
        "figures": False,
    }
    return [
        flat_tracker(AssertsWorldSize, name=name, basis=basis, **{**shared, **options}) for name, basis in BASES.items()
    ]


def with_partners(found):
    return [EmergenceFitter(tracker="pca"), AnalyticOverlay(tracker="pca"), *found]


def upper_half(x):
    return (x[:, 0] > 0).long()


def gaussian():
    return GaussianDataModule(dim=DIM, spectrum="power_law", exact_moments=True, num_samples=101, batch_size=4)


def linear():
    return LinearDenoiser(DIM, SAMPLER, init=0.1, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))


def trainer(world, root, callbacks, **options):
    defaults = {
        "accelerator": "cpu",
        "devices": world,
        "strategy": "ddp" if world > 1 else "auto",
        "max_steps": 15,
        "limit_val_batches": 0,
        "logger": False,
        "default_root_dir": str(root),
        "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": list(callbacks),
    }
    return Trainer(**{**defaults, **options})


# The trainings, each run by every process.


def linear_network(world, out):
    found = trackers(per_class=True, classify=upper_half, num_classes=2)
    trainer(world, out / f"linear_{world}", with_partners(found)).fit(linear(), gaussian())


def frozen_network(world, out):
    """Conditioned on classes, which are measured under their labels."""
    seed_everything(0)
    data = MixtureDataModule([DIM], [0.6, 0.4], separation=2.0, num_samples=101, batch_size=8, num_val_samples=0)
    network = ResidualMLP([DIM], 16, 1, 8, num_classes=2)
    model = DiffusionModule(network, num_classes=2, class_dropout=0.1, optimizer=frozen)
    trainer(world, out / f"frozen_{world}", trackers(per_class=True), max_steps=4).fit(model, data)


def frozen(parameters):
    return torch.optim.SGD(parameters, lr=0.0)


def part(world, out, steps, root, resumed=None):
    """A part of one long training, cut in mid-epoch."""
    saver = ModelCheckpoint(out / "checkpoints", filename=f"{steps}", every_n_train_steps=steps)
    found = [*with_partners(trackers()), saver]
    checkpoint = None if resumed is None else str(out / "checkpoints" / f"{resumed}.ckpt")
    trainer(world, out / root, found, max_steps=steps).fit(linear(), gaussian(), ckpt_path=checkpoint)


class Noisy(LightningModule):
    """A user's module whose training draws random numbers: noise, dropout."""

    def __init__(self, dropout=0.2):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(DIM + 1, 12), nn.SiLU(), nn.Dropout(dropout), nn.Linear(12, DIM))

    def denoise(self, z, sigma):
        s = sigma[:, None]
        return z / (1 + s**2) + s / (1 + s**2).sqrt() * self.body(torch.cat([z / (1 + s**2).sqrt(), s.log()], dim=1))

    def training_step(self, batch, batch_idx):
        sigma = torch.rand(len(batch)) + 0.1
        return (self.denoise(batch + sigma[:, None] * torch.randn_like(batch), sigma) - batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.5)


class Sharded(Noisy):
    """The same with the parameters of every layer spread over the processes."""

    def configure_model(self):
        for layer in (self.body[0], self.body[3]):
            fully_shard(layer, mesh=self.device_mesh["data_parallel"])

    def gathered(self, z, sigma):
        """The network on whole parameters, which all processes put together in every call."""
        whole = {name: p.full_tensor() for name, p in self.body.named_parameters()}
        s = sigma[:, None]
        x = torch.cat([z / (1 + s**2).sqrt(), s.log()], dim=1)
        x = nn.functional.silu(nn.functional.linear(x, whole["0.weight"], whole["0.bias"]))
        out = nn.functional.linear(x, whole["3.weight"], whole["3.bias"])
        return z / (1 + s**2) + s / (1 + s**2).sqrt() * out


def rows():
    noise = torch.randn(64, DIM, generator=torch.Generator().manual_seed(0))
    return DataLoader(noise * torch.logspace(0.5, -2, DIM), batch_size=4, shuffle=True)


def with_and_without(world, out):
    for callbacks in ([], trackers()):
        seed_everything(3)
        module = Noisy()
        root = out / "bits" / ("with" if callbacks else "without")
        # 8 batches an epoch and process: the last group of an epoch has two of three.
        fitted = trainer(world, root, callbacks, max_epochs=2, max_steps=-1, accumulate_grad_batches=3)
        fitted.fit(module, rows())
        root.mkdir(parents=True, exist_ok=True)
        state = {"weights": module.state_dict(), "generator": torch.get_rng_state(), "steps": fitted.global_step}
        torch.save(state, root / f"rank_{fitted.global_rank}.pt")


def sharded_network(world, out):
    """With whole parameters, with sharded ones and a denoiser that gathers them, and refused without it."""
    parallel = {"strategy": ModelParallelStrategy(data_parallel_size=world, tensor_parallel_size=1), "max_steps": 6}
    # As many chunks for one process as for the other.
    options = {"num_samples": 40, "batch_size": 8}
    seed_everything(3)
    trainer(world, out / "whole", trackers(**options), max_steps=6).fit(Noisy(dropout=0.0), rows())
    seed_everything(3)
    module = Sharded(dropout=0.0)
    found = trackers(denoiser=module.gathered, **options)
    trainer(world, out / "sharded", found, **parallel).fit(module, rows())
    assert type(module.body[0].weight).__name__ == "DTensor"
    refused = trainer(
        world,
        out / "refused",
        trackers(),
        **{**parallel, "strategy": ModelParallelStrategy(data_parallel_size=world, tensor_parallel_size=1)},
    )
    try:
        refused.fit(Sharded(), rows())
    except ValueError as error:
        (out / f"refused_{refused.global_rank}.txt").write_text(str(error))


# Processes.


def forked(world, out, *tasks):
    """Run tasks ``(function, *arguments)`` one after another on so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.start_processes(_process, (world, port, out, tasks), nprocs=world, start_method="fork")


def _process(rank, world, port, out, tasks):
    where = {"LOCAL_RANK": rank, "NODE_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for function, *arguments in tasks:
        # Lightning takes the world size out of the environment after every training.
        os.environ.update({key: str(value) for key, value in {**where, "WORLD_SIZE": world}.items()})
        function(world, out, *arguments)
    if distributed.is_initialized():
        distributed.destroy_process_group()


def main(out):
    forked(1, out, (linear_network,), (frozen_network,), (part, 15, "uncut"))
    forked(
        2,
        out,
        (linear_network,),
        (frozen_network,),
        (with_and_without,),
        (sharded_network,),
        (part, 4, "first"),
    )
    forked(1, out, (part, 8, "second", 4))
    forked(4, out, (linear_network,), (frozen_network,), (part, 15, "third", 8))


if __name__ == "__main__":
    torch.set_num_threads(1)
    where = Path(sys.argv[1])
    # Lightning's own launcher runs the script again in its other process, with its rank in the environment.
    if "LOCAL_RANK" not in os.environ:
        main(where)
    linear_network(2, where / "launched")
