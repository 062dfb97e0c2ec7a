"""Error of a measured variance against the exact flow, and its cost: Heun beside the presets.

`OMP_NUM_THREADS=1 python benchmarks/estimators.py` trains two networks and prints a table for three moments of each training.
The truth is an Adams flow of 64 evaluations from 8,192 latents (for the U-Net 2,048). Errors are root mean squares over
the modes of the relative error of the variance, in percent; the part that the sampler makes with infinitely many latents is
its bias.

`benchmarks/estimators.py --slices` instead measures one training in 256 dimensions by a quarter of a block of latents: by one
slice, by rotated slices, and by rotated slices smoothed, against 8,192 latents and the same sampler.
"""

from __future__ import annotations

import argparse
import copy

import numpy as np
import torch

from spectral_lightning import (
    DiffusionModule,
    GaussianDataModule,
    PatchDataModule,
    ResidualMLP,
    Sampler,
    SpectralProbe,
    UNet,
)
from spectral_lightning.prediction import compare
from spectral_lightning.spectra import PCABasis
from spectral_lightning.theory import Preconditioning
from spectral_lightning.theory.solving.generation import tuned_sampler
from spectral_lightning.tracking.settings import PRESETS
from spectral_lightning.tracking.timing import Schedule

MOMENTS = (10, 100, 1000)


def trained(network, rows, steps):
    """Copies of a module at the given, increasing steps of a training."""
    torch.manual_seed(0)
    module = DiffusionModule(network, preconditioning=Preconditioning("edm", sigma_data=float(rows.std())))
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    kept = []
    for step in range(steps[-1] + 1):
        if step:
            optimizer.zero_grad()
            module.loss(rows[torch.randint(len(rows), (128,))]).backward()
            optimizer.step()
        if step in steps:
            kept.append(copy.deepcopy(module).eval())
    return kept


def basis_of(rows):
    """The eigenmodes of the data."""
    flat = rows.double().flatten(1)
    return PCABasis.from_moments(flat.mean(0), torch.cov(flat.T, correction=0), shape=tuple(rows.shape[1:]))


def variances(basis, module, sampler, count, seed=0):
    """Variance of the samples along each mode."""
    return SpectralProbe(basis, sampler, count, seed=seed).measure(module.denoise, 0)["variance"]


def presets() -> None:
    """Train, measure by every preset, print."""
    gaussian = GaussianDataModule(dim=64, spectrum="power_law", exponent=1.5, scale=10.0, num_samples=20_000)
    patches = PatchDataModule(size=8, stride=4, batch_size=256, max_patches=20_000)
    patches.setup("fit")
    sets = {
        "Gaussian, 64 modes, MLP": (ResidualMLP(64, 192, 3), gaussian.train_rows.data, 8192),
        "patches 8x8, MLP": (ResidualMLP([1, 8, 8], 192, 3), patches.train_rows.data, 8192),
        "patches 8x8, U-Net": (UNet([1, 8, 8], width=16), patches.train_rows.data, 2048),
    }
    for name, (network, rows, many) in sets.items():
        basis = basis_of(rows)
        spectrum = basis.variance.numpy()
        ways = {"Heun 18, 1,024 latents": (Sampler(), 1024), "Heun 20, 2,048 latents": (Sampler(num_steps=20), 2048)}
        for key, preset in PRESETS.items():
            ways[f"{key}"] = tuned_sampler(spectrum, preset.evaluations, preset.bias), preset.latents(basis.dim)
        modules = trained(network, rows, MOMENTS)
        exact = tuned_sampler(spectrum, 64, 0.0, most=64)
        truths = [variances(basis, module, exact, many, seed=99) for module in modules]
        print(f"\n{name}\n| estimator | evaluations | error at steps {MOMENTS} [%] |\n|---|---|---|")
        for key, (sampler, count) in ways.items():
            errors = []
            for module, truth in zip(modules, truths, strict=True):
                found = np.array([variances(basis, module, sampler, count, seed) for seed in range(3)])
                errors.append(100 * np.sqrt(np.mean((found / truth - 1) ** 2)))
            cost = count * sampler.evaluations
            print(
                f"| {key}: {sampler.evaluations} x {count} | {cost:,} | {' / '.join(f'{e:.1f}' for e in errors)} |",
                flush=True,
            )


def slices(count=128, seeds=6, last=3000) -> None:
    """Train, measure by slices of a block, print the errors of variances and emergence times."""
    patches = PatchDataModule(size=16, stride=4, batch_size=256, max_patches=30_000)
    patches.setup("fit")
    rows = patches.train_rows.data
    basis, dense = basis_of(rows), Schedule(12)
    sampler = tuned_sampler(basis.variance.numpy(), PRESETS["standard"].evaluations, PRESETS["standard"].bias)
    steps = [0, *(step for step in range(1, last + 1) if dense.due(step - 1, step))]
    torch.manual_seed(0)
    modules = dict(zip(steps, trained(ResidualMLP([1, 16, 16], 256, 4), rows, steps), strict=True))
    whole = SpectralProbe(basis, sampler, 8192, seed=99)
    truths = {step: whole.measure(module.denoise, step) for step, module in modules.items()}
    print(f"{count} of {2 * basis.dim} latents, {len(basis.variance)} modes, {seeds} seeds; rms errors [%]")
    print(
        "| per decade | latents | variance | at step 0 | emergence time | within 1.96 standard errors |\n"
        + "|---" * 6
        + "|"
    )
    for per_decade, thin in ((6, 1), (12, 1), (12, 4)):
        schedule = Schedule(per_decade)
        chosen = [0, *[step for step in steps[1:] if schedule.due(step - 1, step)][::thin]]
        exact = whole.history()
        for step in chosen:
            exact.append(**truths[step])
        tables = {"one slice": [], "rotated slices": [], "smoothed": []}
        for seed in range(seeds):
            for name in ("one slice", "rotated slices"):
                probe = SpectralProbe(basis, sampler, count, seed=seed)
                table = probe.history()
                for step in chosen:
                    if name == "rotated slices":
                        probe.rotate(schedule.count(0, step))
                    table.append(**probe.measure(modules[step].denoise, step))
                tables[name].append(table)
            tables["smoothed"].append(table.smoothed())
            for raw in (tables["one slice"][-1], table):
                del raw.metadata["slices"]  # so that nothing smooths it
        times = compare(exact).measured.time
        for name, found in tables.items():
            errors = np.array([one.variance / exact.variance - 1 for one in found])
            shift = np.log(np.array([compare(one).measured.time for one in found]) / times)
            inside = [np.abs(one.variance - exact.variance) < 1.96 * one["standard_error"] for one in found]
            cells = [np.sqrt(np.mean(errors**2)), np.sqrt(np.mean(errors[:, 0] ** 2)), np.sqrt(np.nanmean(shift**2))]
            shown = " | ".join(f"{100 * cell:.1f}" for cell in cells)
            thinned = f"{per_decade}" if thin == 1 else f"{per_decade}, one in {thin} measured"
            print(f"| {thinned} | {name} | {shown} | {100 * np.mean(inside):.0f} % |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", action="store_true", help="measure the slices only")
    slices() if parser.parse_args().slices else presets()
