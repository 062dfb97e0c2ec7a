"""Error of a measured variance against the exact flow, and its cost: Heun beside the presets.

`OMP_NUM_THREADS=1 python benchmarks/estimators.py` trains two networks and prints a table for three moments of each training.
The truth is an Adams flow of 64 evaluations from 8,192 latents (for the U-Net 2,048). Errors are root mean squares over
the modes of the relative error of the variance, in percent; the part that the sampler makes with infinitely many latents is
its bias.
"""

from __future__ import annotations

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
from spectral_lightning.spectra import PCABasis
from spectral_lightning.theory import Preconditioning
from spectral_lightning.theory.solving.generation import tuned_sampler
from spectral_lightning.tracking.settings import PRESETS

MOMENTS = (10, 100, 1000)


def trained(network, rows, steps):
    """Copies of a module at the given steps of a training."""
    torch.manual_seed(0)
    module = DiffusionModule(network, preconditioning=Preconditioning("edm", sigma_data=float(rows.std())))
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    kept = []
    for step in range(1, steps[-1] + 1):
        optimizer.zero_grad()
        module.loss(rows[torch.randint(len(rows), (128,))]).backward()
        optimizer.step()
        if step in steps:
            kept.append(copy.deepcopy(module).eval())
    return kept


def variances(basis, module, sampler, count, seed=0):
    """Variance of the samples along each mode."""
    return SpectralProbe(basis, sampler, count, seed=seed).measure(module.denoise, 0)["variance"]


def main() -> None:
    """Train, measure, print."""
    gaussian = GaussianDataModule(dim=64, spectrum="power_law", exponent=1.5, scale=10.0, num_samples=20_000)
    patches = PatchDataModule(size=8, stride=4, batch_size=256, max_patches=20_000)
    patches.setup("fit")
    sets = {
        "Gaussian, 64 modes, MLP": (ResidualMLP(64, 192, 3), gaussian.train_rows.data, 8192),
        "patches 8x8, MLP": (ResidualMLP([1, 8, 8], 192, 3), patches.train_rows.data, 8192),
        "patches 8x8, U-Net": (UNet([1, 8, 8], width=16), patches.train_rows.data, 2048),
    }
    for name, (network, rows, many) in sets.items():
        flat = rows.double().flatten(1)
        basis = PCABasis.from_moments(flat.mean(0), torch.cov(flat.T, correction=0), shape=tuple(rows.shape[1:]))
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


if __name__ == "__main__":
    main()
