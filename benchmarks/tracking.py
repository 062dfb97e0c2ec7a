"""What a measurement costs: seconds, memory and files, beside training steps of the same network in the same run.

Run ``OMP_NUM_THREADS=1 python benchmarks/tracking.py``. A training step of a batch of 128 and a measurement take turns;
what is reported is the median of either and their ratio, which another machine, busy or not, should give again. Times
are of the CPU clock, which a shared machine leaves alone, or of the wall clock on a GPU. Memory is the rise of the peak
of the resident set above what the process held before (Linux), or of the GPU's allocator.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, distributed, multiprocessing

from spectral_lightning.diffusion import undisturbed
from spectral_lightning.models import ResidualMLP
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import (
    Groups,
    HistoryDirectory,
    PCABasis,
    SpectralHistory,
    SpectralProbe,
    current_ranks,
)

WIDTH, BLOCKS, BATCH, CLASSES = 256, 3, 128, 4
SAMPLER = Sampler(num_steps=8, solver="adams")
CONSOLE = Console(width=140)

Work = Callable[[], Any]


class Meter:
    """Seconds and peak memory of pieces of work on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.cuda = device, device.type == "cuda"

    def now(self) -> float:
        """Wall time of all that is done on a GPU, else CPU time."""
        if self.cuda:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def seconds(self, work: Work) -> float:
        """Once."""
        start = self.now()
        work()
        return self.now() - start

    def together(self, *works: Work, rounds: int = 3) -> list[float]:
        """The median of each, taking turns; the first turn does not count."""
        spent = [[self.seconds(work) for work in works] for _ in range(rounds + 1)]
        return [median(column) for column in zip(*spent[1:], strict=True)]

    def peak(self, work: Work) -> float:
        """MB beyond what was held before."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated()
            work()
            return (torch.cuda.max_memory_allocated() - held) / 1e6
        Path("/proc/self/clear_refs").write_text("5")
        held = _status("VmRSS")
        work()
        return (_status("VmHWM") - held) / 1e3


def _status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])


class Model:
    """An EDM denoiser of ``dim`` coordinates, and its training step."""

    def __init__(self, dim: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.net = ResidualMLP(dim, WIDTH, BLOCKS, embedding=256).to(device)
        self.x = torch.randn(BATCH, dim, device=device)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-4)
        self.evaluated = 0

    def denoise(self, z: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """``D(z, sigma)``; labels cost nothing here but the sampling they ask for."""
        self.evaluated += len(z)
        s = sigma[:, None]
        root = (s**2 + 0.25).sqrt()
        return 0.25 / root**2 * z + 0.5 * s / root * self.net(z / root, sigma.log() / 4)

    def steps(self, count: int) -> None:
        """Training steps as one writes them by hand."""
        for _ in range(count):
            sigma = (torch.randn(BATCH, device=self.x.device) * 1.2 - 1.2).exp()
            noisy = self.x + sigma[:, None] * torch.randn_like(self.x)
            loss = (self.denoise(noisy, sigma) - self.x).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


def axes(dim: int) -> PCABasis:
    """The coordinates as modes, which projecting on costs as much as on any others."""
    return PCABasis(torch.eye(dim).double(), torch.logspace(0, -3, dim).double(), torch.zeros(dim).double(), (dim,))


def measuring(model: Model, probe: SpectralProbe) -> Work:
    """One measurement of the model as it is."""

    def work() -> None:
        with undisturbed(model.net):
            probe.measure(model.denoise, 0, model.x.device)

    return work


def table(title: str, *columns: str) -> Table:
    drawn = Table(title=title)
    for column in columns:
        drawn.add_column(column, justify="right")
    return drawn


def by_dimension(meter: Meter, dims: list[int], count: int) -> Table:
    drawn = table(
        f"By dimension: {count} samples, {SAMPLER.evaluations} evaluations each, all modes",
        "dimension", "training step [ms]", "measurement [ms]", "in training steps", "of it sampling",
        "of it projection", "latents, once [ms]", "peak [MB]",
    )  # fmt: skip
    for dim in dims:
        model, probe = Model(dim, meter.device), SpectralProbe(axes(dim), SAMPLER, count)
        latents = meter.seconds(lambda probe=probe: probe.latents.rows(0, count))
        sample = partial(probe.generate, model.denoise, meter.device)
        samples = sample()
        step, whole, sampled, row = meter.together(
            partial(model.steps, 1), measuring(model, probe), sample, partial(probe.row, samples, 0)
        )
        drawn.add_row(
            f"{dim:,}", f"{1e3 * step:.1f}", f"{1e3 * whole:.0f}", f"{whole / step:.0f}", f"{sampled / whole:.0%}",
            f"{row / whole:.1%}", f"{1e3 * latents:.0f}", f"{meter.peak(measuring(model, probe)):.0f}",
        )  # fmt: skip
    return drawn


def by_samples(meter: Meter, dim: int, counts: list[int]) -> Table:
    drawn = table(f"By samples: dimension {dim}", "samples", "evaluations", "in training steps")
    model = Model(dim, meter.device)
    for count in counts:
        work = measuring(model, SpectralProbe(axes(dim), SAMPLER, count))
        step, whole = meter.together(partial(model.steps, 1), work)
        drawn.add_row(f"{count:,}", f"{count * SAMPLER.evaluations:,}", f"{whole / step:.0f}")
    return drawn


def by_option(meter: Meter, dim: int, count: int) -> Table:
    drawn = table(
        f"By option: dimension {dim}, {count} samples", "option", "evaluations", "in training steps", "in measurements"
    )
    model, probe = Model(dim, meter.device), SpectralProbe(axes(dim), SAMPLER, count)
    works = options(model, probe, meter.device)
    evaluations = {}
    for name, work in works.items():
        model.evaluated = 0
        work()
        evaluations[name] = model.evaluated
    step, *spent = meter.together(partial(model.steps, 1), *works.values())
    for name, seconds in zip(works, spent, strict=True):
        drawn.add_row(name, f"{evaluations[name]:,}", f"{seconds / step:.0f}", f"{seconds / spent[0]:.2f}")
    return drawn


def options(model: Model, probe: SpectralProbe, device: torch.device) -> dict[str, Work]:
    """What a tracker does in one measurement under each option."""
    share, target = torch.full((CLASSES,), 1 / CLASSES).double(), probe.basis.variance.expand(CLASSES, -1)
    told_apart = Groups(tuple("abcd"), share, target, lambda x: (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long())
    conditioned = Groups(tuple("abcd"), share, target)
    other = SpectralProbe(probe.basis, SAMPLER, probe.latents.count, seed=1)

    def one(by: SpectralProbe = probe, groups: Groups | None = None, track_gain: bool = False) -> None:
        labels = [None] if groups is None else groups.labels
        conditions = [None if label is None else torch.tensor([label]) for label in labels]
        samples = [by.generate(model.denoise, device, condition=condition) for condition in conditions]
        if track_gain:
            by.gain(model.denoise, device)
        if groups is None:
            by.row_of(by.sums(samples[0]), 0)
        else:
            groups.row(by, groups.sums(by, samples), 0)

    def shared() -> None:
        samples = probe.generate(model.denoise, device)
        probe.row(samples, 0)
        probe.row(samples, 0)

    return {
        "one tracker": one,
        "two trackers, samples shared": shared,
        "two trackers of different seeds": lambda: (one(), one(other)),
        "track_gain": lambda: one(track_gain=True),
        f"per_class, {CLASSES} classes told apart by classify": lambda: one(groups=told_apart),
        f"per_class, conditioned on {CLASSES} classes": lambda: one(groups=conditioned),
    }


def files(dims: list[int]) -> Table:
    drawn = table("Files: bytes of one measurement", "modes", "row", "row with gains", "in a checkpoint", "header")
    for dim in dims:
        probe = SpectralProbe(axes(dim), SAMPLER, 16)
        row = probe.measure(lambda z, sigma: z / (1 + sigma[:, None]), 0)
        gain = torch.rand(len(SAMPLER.levels), dim).numpy()
        plain, gains = written(probe.history(gain), row), written(probe.history(gain), {**row, "gain": gain})
        state = 8 * sum(value.size for value in probe_row(probe, row).values())
        drawn.add_row(f"{dim:,}", f"{plain[0]:,}", f"{gains[0]:,}", f"{state:,}", f"{plain[1]:,}")
    return drawn


def probe_row(probe: SpectralProbe, row: dict[str, Any]) -> Any:
    history = probe.history()
    history.append(**row)
    return history.row(0)


def written(history: SpectralHistory, row: dict[str, Any]) -> tuple[int, int]:
    """Bytes of a row and of the header."""
    with tempfile.TemporaryDirectory() as folder:
        history.append(**row)
        HistoryDirectory(folder).begin(history)
        sizes = {path.name: path.stat().st_size for path in Path(folder).iterdir()}
    return next(size for name, size in sizes.items() if name.startswith("step")), sizes["header.npz"]


def rank(index: int, size: int, folder: str, dim: int, count: int) -> None:
    """One of several processes: what it evaluates, and its CPU time for a measurement and a training step."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store{size}", rank=index, world_size=size)
    torch.set_num_threads(1)
    device = torch.device("cpu")
    model, meter = Model(dim, device), Meter(device)
    work = measuring(
        model, SpectralProbe(axes(dim), SAMPLER, count, sample_batch_size=128, ranks=current_ranks(device))
    )
    work()
    model.evaluated = 0
    work()
    evaluated = model.evaluated
    step, whole = meter.together(partial(model.steps, 1), work)
    if index == 0:
        torch.save((evaluated, whole / step), f"{folder}/{size}.pt")
    distributed.destroy_process_group()


def by_ranks(dim: int, count: int) -> Table:
    drawn = table(
        f"By processes (gloo, CPU): dimension {dim}, {count} samples",
        "processes",
        "evaluations per rank",
        "in training steps",
    )
    with tempfile.TemporaryDirectory() as folder:
        for size in (1, 2):
            multiprocessing.spawn(rank, (size, folder, dim, count), nprocs=size)
            evaluated, ratio = torch.load(f"{folder}/{size}.pt")
            drawn.add_row(str(size), f"{evaluated:,}", f"{ratio:.0f}")
    return drawn


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 256, 1024, 3072])
    parser.add_argument("--samples", type=int, nargs="+", default=[128, 256, 512, 1024])
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    meter = Meter(torch.device(given.device))
    small = given.dims[0]
    CONSOLE.print(f"{torch.get_num_threads()} thread(s), torch {torch.__version__}, {given.device}")
    CONSOLE.print(by_dimension(meter, given.dims, 256))
    CONSOLE.print(by_samples(meter, small, given.samples))
    CONSOLE.print(by_option(meter, small, 256))
    CONSOLE.print(files(given.dims))
    CONSOLE.print(by_ranks(small, 256))


if __name__ == "__main__":
    main()
