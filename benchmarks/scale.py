"""How the reference and the statistics scale: ratios to bare products of the same run, and memory at 3x256x256.

Run ``OMP_NUM_THREADS=1 python benchmarks/scale.py``, or name parts: ``statistics moments reuse eigenmodes images``. Times are
of the CPU clock, the least of several rounds that take turns. Memory is the rise of the peak of the resident set of a
separate process (Linux) above that of the same training without a tracker.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.linalg.blas import dsyrk
from torch import Tensor, nn

from spectral_lightning import Output, Sampling, SpectralMonitor
from spectral_lightning.spectra import (
    BasisRecipe,
    Examples,
    FourierModes,
    ModeStatistics,
    PatchComponents,
    PCABasis,
    SpectralMoments,
    load_basis,
)

CONSOLE = Console(width=140)
Work = Callable[[], Any]


def least(*works: Work, rounds: int = 5) -> list[float]:
    """The least CPU time of each, taking turns after one that does not count."""

    def seconds(work: Work) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    spent = [[seconds(work) for work in works] for _ in range(rounds + 1)][1:]
    return [min(column) for column in zip(*spent, strict=True)]


def table(title: str, *columns: str) -> Table:
    drawn = Table(title=title)
    for column in columns:
        drawn.add_column(column, justify="right")
    return drawn


def steep(count: int, dim: int, power: float = 1.3) -> Tensor:
    """Rows of a power-law spectrum along the coordinates, float32."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, dim, generator=generator) * torch.arange(1, dim + 1.0) ** (-power / 2)


def leading(dim: int, count: int) -> PCABasis:
    """Random directions as leading modes of a power-law spectrum."""
    modes = torch.linalg.qr(torch.randn(dim, count, dtype=torch.float64))[0]
    variance = torch.arange(1, count + 1.0).double() ** -1.3
    return PCABasis(modes, variance, torch.zeros(dim), (dim,), rest=float(variance[-1]) / 3)


def statistics(samples: int = 2048, dim: int = 3072, modes: int = 256) -> Table:
    basis, x = leading(dim, modes), torch.randn(samples, dim)
    u = basis.modes

    def full() -> Tensor:
        centred = x.double() - basis.mean
        return u.T @ (centred.T @ centred / samples) @ u

    def full_single() -> Tensor:
        centred, single = x - basis.mean.float(), u.float()
        return single.T @ (centred.T @ centred / samples) @ single

    def double() -> Tensor:
        return basis.along(x.double() - basis.mean)

    def ours() -> ModeStatistics:
        found = ModeStatistics.empty(1, basis.observables, samples)
        for first in range(0, samples, 512):
            found.add(0, basis.project(x[first : first + 512]), first=first)
        found.alignment()
        return found

    exact = full().diagonal()
    error = float((ours().second[0] / samples / exact - 1).abs().max())
    spent = least(full, full_single, double, lambda: basis.project(x), ours)
    drawn = table(
        f"Statistics of {samples:,} samples, {dim:,} dimensions, {modes} modes", "work", "s", "ours is faster by"
    )
    names = (
        "full covariance and U'CU, float64",
        "the same, float32",
        "projection alone, float64",
        "projection alone, ours",
    )
    for name, seconds in zip((*names, "all statistics, ours"), spent, strict=True):
        drawn.add_row(name, f"{seconds:.3f}", f"{seconds / spent[-1]:.1f}")
    CONSOLE.print(f"largest relative error of a second moment: {error:.1e}")
    return drawn


def moments(examples: int = 50_000, dim: int = 3072) -> Table:
    batch, large = torch.randn(256, dim), torch.randn(2048, dim)
    double, single = large.double(), large
    ours, outer, gram = SpectralMoments(dim), np.zeros((dim, dim)), torch.zeros(dim, dim)
    doubled = torch.zeros(dim, dim, dtype=torch.float64)
    works: dict[str, tuple[int, Work]] = {
        "product, float64": (2048, lambda: doubled.addmm_(double.T, double)),
        "dsyrk, float64": (
            2048,
            lambda: dsyrk(1.0, double.numpy().T, beta=1.0, c=outer.T, lower=1, overwrite_c=1),
        ),
        "product, float32": (2048, lambda: gram.addmm_(single.T, single)),
        "SpectralMoments, batches of 256": (256, lambda: ours.update(batch)),
    }
    spent = least(*(work for _, work in works.values()))
    scaled = [s * examples / rows for s, (rows, _) in zip(spent, works.values(), strict=True)]
    drawn = table(f"Moments of {examples:,} x {dim:,} (measured on {2048:,} rows)", "work", "s", "in dsyrk")
    for name, seconds in zip(works, scaled, strict=True):
        drawn.add_row(name, f"{seconds:.1f}", f"{seconds / scaled[1]:.2f}")
    return drawn


def reuse(dim: int = 3072, modes: int = 256) -> Table:
    basis = leading(dim, modes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "basis.pt"
        basis.save(path)
        [spent] = least(lambda: load_basis(path).fingerprint)
        size = path.stat().st_size
    drawn = table("A resumed run finds its basis", "dimension", "modes", "basis.pt [MB]", "read and checked [s]")
    drawn.add_row(f"{dim:,}", str(modes), f"{1e-6 * size:.1f}", f"{spent:.3f}")
    return drawn


def eigenmodes(dims: list[int], count: int = 256) -> Table:
    drawn = table(
        f"{count} eigenmodes of 2 d examples (d / 2 above 8,192) with a spectrum of power -1.3",
        "dimension", "moments [s]", "eigh [s]", "Lanczos on the covariance [s]", "Lanczos on examples kept [s]",
        "reading them each time [s]", "passes", "largest error",
    )  # fmt: skip
    for dim in dims:
        x = steep(2 * dim if dim <= 8192 else dim // 2, dim)
        row, exact = ["", "", ""], None
        if dim <= 4096:
            sums = SpectralMoments(dim)
            row[0] = seconds_of(lambda sums=sums, x=x: [sums.update(part) for part in x.split(256)])[0]
            mean, covariance = sums.compute()
            row[1], values = seconds_of(lambda c=covariance: torch.linalg.eigh(c)[0].flip(0)[:count])
            row[2], _ = seconds_of(lambda m=mean, c=covariance: PCABasis.from_moments(m, c, count))
            exact = values
        kept, found = seconds_of(lambda x=x: PCABasis.from_examples(Examples(lambda: iter(x.split(256))), count))
        passes: list[int] = []

        def batches(x: Tensor = x, passes: list[int] = passes) -> Any:
            passes.append(1)
            return iter(x.split(256))

        read, again = seconds_of(lambda read=batches: PCABasis.from_examples(Examples(read, memory=0), count))
        error = max(
            float((one.variance / (found.variance if exact is None else exact) - 1).abs().max())
            for one in (found, again)
        )
        drawn.add_row(f"{dim:,}", *row, kept, read, str(len(passes)), f"{error:.0e}")
    return drawn


def seconds_of(work: Work) -> tuple[str, Any]:
    start = time.process_time()
    result = work()
    return f"{time.process_time() - start:.1f}", result


class Small(nn.Module):
    """An EDM denoiser of colour images: three convolutions."""

    sigma_data = 1.0

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU(),
            nn.Conv2d(width, 3, 3, padding=1),
        )  # fmt: skip

    def forward(self, z: Tensor, sigma: Tensor) -> Tensor:
        """``D(z, sigma)``."""
        s = sigma.reshape(-1, 1, 1, 1)
        root = (1 + s**2).sqrt()
        found: Tensor = z / root**2 + s / root * self.body(z / root)
        return found


def images(count: int, pixels: int) -> Tensor:
    """Colour images whose amplitude falls with the frequency."""
    wave = torch.fft.rfftn(
        torch.randn(count, 3, pixels, pixels, generator=torch.Generator().manual_seed(0)), dim=(2, 3)
    )
    radius = (torch.fft.fftfreq(pixels)[:, None] ** 2 + torch.fft.rfftfreq(pixels) ** 2).sqrt()
    x = torch.fft.irfftn(wave / (radius + 1 / pixels), s=(pixels, pixels), dim=(2, 3))
    return x / x.std()


RECIPES: dict[str, BasisRecipe | None] = {
    "no tracker": None,
    "Fourier, single frequencies": FourierModes(),
    "Fourier, 64 bands": FourierModes(bands=64),
    "patches of 5x5": PatchComponents(),
}


def training(name: str, count: int = 256, pixels: int = 256, steps: int = 5, samples: int = 16) -> dict[str, float]:
    """Peak memory of this process and seconds of a training, with or without a tracker."""
    torch.manual_seed(0)
    x, network, recipe = images(count, pixels), Small(), RECIPES[name]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    Path("/proc/self/clear_refs").write_text("5")
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {
            "sampling": Sampling(num_samples=samples, batch_size=8),
            "output": Output(folder, figures=False),
        }
        monitor = None if recipe is None else SpectralMonitor(network, x, "edm", optimizer, basis=recipe, **options)
        for _ in range(steps):
            clean, sigma = x[torch.randint(count, (8,))], torch.rand(8) + 0.1
            noisy = clean + sigma.reshape(-1, 1, 1, 1) * torch.randn_like(clean)
            loss = (network(noisy, sigma) - clean).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        result: dict[str, float] = {}
        if monitor is not None:
            monitor.close()
            session = monitor.session
            result = {"measurements": len(session.measured), "modes": len(session.basis.variance)}
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return {**result, "peak": int(peak.split()[1]) / 2**20, "seconds": time.process_time() - start}


def large() -> Table:
    drawn = table(
        "3x256x256, 256 examples, 5 steps of batch 8, 16 samples of a small convolutional network",
        "tracker", "modes", "measurements", "CPU time beyond the training [s]", "memory beyond the training [GiB]",
    )  # fmt: skip
    bare = None
    for name in RECIPES:
        run = subprocess.run([sys.executable, __file__, "--training", name], check=True, capture_output=True, text=True)
        found = json.loads(run.stdout.splitlines()[-1])
        bare = bare or found
        if found is not bare:
            seconds, memory = found["seconds"] - bare["seconds"], found["peak"] - bare["peak"]
            drawn.add_row(name, f"{found['modes']:,}", str(found["measurements"]), f"{seconds:.0f}", f"{memory:.2f}")
    return drawn


def main() -> None:
    """Print the tables of the parts that are named, or of all."""
    parts: dict[str, Callable[[], Table]] = {
        "statistics": statistics,
        "moments": moments,
        "reuse": reuse,
        "eigenmodes": lambda: eigenmodes(given.dims),
        "images": large,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *parts])
    parser.add_argument("--dims", type=int, nargs="+", default=[1024, 3072, 4096, 8192, 16384])
    parser.add_argument("--training", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.training:
        CONSOLE.file.write(json.dumps(training(given.training)) + "\n")
        return
    CONSOLE.print(f"{torch.get_num_threads()} thread(s), torch {torch.__version__}")
    for part in given.parts or parts:
        CONSOLE.print(parts[part]())


if __name__ == "__main__":
    main()
