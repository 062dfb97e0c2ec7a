"""Error of a measured variance against the exact flow, and its cost: Heun beside the presets.

`OMP_NUM_THREADS=1 python benchmarks/estimators.py` trains two networks and prints a table for three moments of each training.
The truth is an Adams flow of 64 evaluations from 8,192 latents (for the U-Net 2,048). Errors are root mean squares over
the modes of the relative error of the variance, in percent; the part that the sampler makes with infinitely many latents is
its bias. The error of emergence times is that of a whole training measured on the preset's schedule (Heun: ten per decade),
against 32 evaluations of 2,048 latents (for the U-Net 512) at the steps of all schedules together.

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


def steps_of(per_decade, last):
    """Step 0 and the scheduled steps up to the last one."""
    schedule = Schedule(per_decade)
    return [0, *(step for step in range(1, last + 1) if schedule.due(step - 1, step))]


def trained_at(network, rows, steps):
    """The modules of a training by step."""
    return dict(zip(steps, trained(network, rows, steps), strict=True))


def table_of(probe, modules, steps):
    """The history of measurements at some steps, by rotated slices if the probe has less than a block of latents."""
    table = probe.history()
    for turn, step in enumerate(steps):
        probe.rotate(turn)
        table.append(**probe.measure(modules[step].denoise, step))
    return table


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
        heun = {"Heun 18": (Sampler(), 1024, 10), "Heun 20": (Sampler(num_steps=20), 2048, 10)}
        ways = heun | {
            key: (
                tuned_sampler(spectrum, preset.evaluations, preset.bias),
                preset.latents(basis.dim),
                preset.per_decade,
            )
            for key, preset in PRESETS.items()
        }
        schedules = {per_decade: steps_of(per_decade, MOMENTS[-1]) for _, _, per_decade in ways.values()}
        modules = trained_at(network, rows, sorted(set(MOMENTS).union(*schedules.values())))
        exact = tuned_sampler(spectrum, 64, 0.0, most=64)
        truths = [variances(basis, modules[step], exact, many, seed=99) for step in MOMENTS]
        dense = SpectralProbe(basis, tuned_sampler(spectrum, 32, 0.0, most=32), many // 4, seed=98)
        times = compare(table_of(dense, modules, list(modules))).measured.time
        print(f"\n{name}\n| estimator | evaluations | error at steps {MOMENTS} [%] | of emergence times [%], modes |")
        print("|---|---|---|---|")
        for key, (sampler, count, per_decade) in ways.items():
            errors = []
            for step, truth in zip(MOMENTS, truths, strict=True):
                found = np.array([variances(basis, modules[step], sampler, count, seed) for seed in range(3)])
                errors.append(100 * np.sqrt(np.mean((found / truth - 1) ** 2)))
            tables = []
            for seed in range(1 if key in heun else 3):
                table = table_of(SpectralProbe(basis, sampler, count, seed=seed), modules, schedules[per_decade])
                tables.append(compare(table).measured.time)
            shift = np.log(np.array(tables) / times)
            shifts = f"{100 * np.sqrt(np.nanmean(shift**2)):.1f}, {int(np.isfinite(shift).any(0).sum())}"
            cost = count * sampler.evaluations
            print(
                f"| {key}: {sampler.evaluations} x {count} | {cost:,} | {' / '.join(f'{e:.1f}' for e in errors)} | {shifts} |",
                flush=True,
            )


def slices(count=128, seeds=6, last=3000) -> None:
    """Train, measure by slices of a block, print the errors of variances and emergence times."""
    patches = PatchDataModule(size=16, stride=4, batch_size=256, max_patches=30_000)
    patches.setup("fit")
    rows = patches.train_rows.data
    basis = basis_of(rows)
    sampler = tuned_sampler(basis.variance.numpy(), PRESETS["standard"].evaluations, PRESETS["standard"].bias)
    steps = steps_of(12, last)
    torch.manual_seed(0)
    modules = trained_at(ResidualMLP([1, 16, 16], 256, 4), rows, steps)
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
