"""The price of ``DiffusionModule`` under a Trainer: its training step beside a bare PyTorch loop on the same network.

Run ``OMP_NUM_THREADS=1 python benchmarks/training.py``. Both sides have the same network, loss, data and optimizer, and
the batch is sized to give steps of the requested length. Rounds are interleaved because a machine's speed drifts: the
ratio is the median over rounds of the ratio of medians, printed with its range over rounds.
"""

from __future__ import annotations

import argparse
import copy
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from spectral_lightning.models import DiffusionModule, ResidualMLP

DIM, WIDTH, BLOCKS = 128, 256, 5
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
WARM_UP = 3  # steps at the start of each round that are not counted

Now = Callable[[], float]


class Batches(Dataset[Tensor]):
    """Batches made in advance, so that loading is not measured."""

    def __init__(self, steps: int, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.batches = [torch.randn(size, DIM, generator=generator) for _ in range(min(steps, 4))]
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> Tensor:
        return self.batches[index % len(self.batches)]


class Clock(Callback):
    """Records when each step ends."""

    def __init__(self, now: Now) -> None:
        self.now, self.ends = now, list[float]()

    def on_train_batch_end(self, *_: Any) -> None:
        """Record the end of a step."""
        self.ends.append(self.now())


def milliseconds(ends: list[float]) -> float:
    """Median length of a step."""
    return 1e3 * median(b - a for a, b in pairwise(ends[WARM_UP:]))


def bare(network: nn.Module, batches: Batches, now: Now) -> float:
    """A hand-written loop: EDM's preconditioning and loss, Adam."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    ends = []
    for x in DataLoader(batches, batch_size=None):
        sigma = (torch.randn(len(x)) * 1.2 - 1.2).exp()[:, None]
        noisy = x + sigma * torch.randn_like(x)
        total = sigma**2 + 0.25
        f = network(noisy / total.sqrt(), sigma[:, 0].log() / 4)
        denoised = 0.25 / total * noisy + 0.5 * sigma / total.sqrt() * f
        loss = (total / (0.5 * sigma) ** 2 * (denoised - x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ends.append(now())
    return milliseconds(ends)


def lightning(network: nn.Module, batches: Batches, now: Now) -> float:
    """The same under a Trainer, with nothing else attached."""
    clock = Clock(now)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(DiffusionModule(network), DataLoader(batches, batch_size=None))
    return milliseconds(clock.ends)


def batch_size(network: nn.Module, target: float, now: Now) -> int:
    """The number of examples that makes a bare step last ``target`` milliseconds."""
    size = 64
    for _ in range(3):
        size = max(8, round(size * target / bare(copy.deepcopy(network), Batches(WARM_UP + 5, size), now)))
    return size


def rounds(network: nn.Module, batches: Batches, count: int, now: Now) -> Iterator[tuple[float, float]]:
    """Milliseconds per step of both sides, which take turns to go first."""
    for i in range(count):
        sides = [bare, lightning] if i % 2 else [lightning, bare]
        spent = {side: side(copy.deepcopy(network), batches, now) for side in sides}
        yield spent[bare], spent[lightning]


def main() -> None:
    """Time steps of every length and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=float, nargs="+", default=[5.0, 50.0, 100.0], help="lengths of a step [ms]")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=1.5, help="per round and side")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: for one thread on a shared machine")
    given = parser.parse_args()
    now = CLOCKS[given.clock]
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.manual_seed(0)
    network = ResidualMLP(DIM, WIDTH, BLOCKS, embedding=256)
    threads = torch.get_num_threads()
    table = Table(
        "batch", "bare loop [ms]", "DiffusionModule [ms]", "added [ms]", "bare / module", "range over rounds",
        title=f"Median milliseconds per step, {given.rounds} interleaved rounds, {given.clock} clock, {threads} thread(s)",
    )  # fmt: skip
    for target in given.steps:
        size = batch_size(network, target, now)
        batches = Batches(WARM_UP + max(10, round(1e3 * given.seconds / target)), size)
        pairs = list(rounds(network, batches, given.rounds, now))
        plain, ours = (median(side) for side in zip(*pairs, strict=True))
        ratios = sorted(a / b for a, b in pairs)
        table.add_row(
            str(size), f"{plain:.2f}", f"{ours:.2f}", f"{median(b - a for a, b in pairs):.2f}", f"{median(ratios):.3f}",
            f"{ratios[0]:.3f} - {ratios[-1]:.3f}",
        )  # fmt: skip
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
