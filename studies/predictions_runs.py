"""The trainings of the prediction tests: variances swapped, data whitened, classes out of balance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import Preconditioning
from studies.definition import Run, trackers

__all__ = [
    "CLASS_PRECONDITIONING",
    "CLASS_SEEDS",
    "GAUSSIAN_PAIRS",
    "NUM_SAMPLES",
    "PHOTOGRAPH_PAIRS",
    "PHOTOGRAPH_SEEDS",
    "SAMPLER",
    "SEEDS",
    "SHARES",
    "classes",
    "gaussian",
    "photographs",
]

SEEDS = (0, 1)
GAUSSIAN_PAIRS = ((0, 7), (1, 15), (3, 31))  # each a factor of 8^0.75 = 4.8 apart
PHOTOGRAPH_PAIRS = ((6, 30), (8, 40), (12, 55))  # all of them fall; factors of 9 to 14 apart
PHOTOGRAPH_SEEDS = (0,)
SHARES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)  # of the class of higher variance
CLASS_SEEDS = (0,)
NUM_SAMPLES = 20_000
_DIM, _LATENTS = 32, 512
CLASS_PRECONDITIONING = Preconditioning("edm", sigma_data=0.2)
SAMPLER = Sampler(num_steps=12)
_EDITS = "spectral_lightning.datamodules"

Pairs = Sequence[tuple[int, int]]


def gaussian(edit: str, seed: int) -> Run:
    """Gaussian data of variances 4 (k + 1)^-0.75 along a random rotation, "plain", "swapped" or "white"."""
    data = {"dim": _DIM, "spectrum": "power_law", "exponent": 0.75, "scale": 4.0, "exact_moments": True, "seed": seed}
    data |= {"num_samples": NUM_SAMPLES, "batch_size": 256, "edit": _edit(edit, GAUSSIAN_PAIRS)}
    # An untrained variance of about 0.06: every mode starts below the gray zone.
    changes = {**_network(seed, [_DIM], 0.2, steps=800), "data.init_args": data}
    changes["trainer.callbacks"] = trackers(_LATENTS, per_decade=15, num_steps=SAMPLER.num_steps, moments="population")
    return Run(f"{edit}_seed{seed}", "gaussian_mlp", changes)


def photographs(edit: str, seed: int) -> Run:
    """Patches of 8x8 pixels, whose directions differ in more than variance, "plain" or "swapped"."""
    # As many patches as the tracker reads: edit and modes are of the same data.
    data = {"size": 8, "stride": 4, "max_patches": 50_000, "batch_size": 256, "edit": _edit(edit, PHOTOGRAPH_PAIRS)}
    changes = {**_network(seed, [1, 8, 8], 1.0, steps=1500), "data.init_args": data, "trainer.limit_val_batches": 0}
    changes["trainer.callbacks"] = trackers(_LATENTS, per_decade=15, num_steps=SAMPLER.num_steps)
    return Run(f"photographs_{edit}_seed{seed}", "natural_patches_mlp", changes)


def classes(share: float, seed: int) -> Run:
    """Two Gaussian classes, each with modes of its own, of variances 4/sqrt(k) (of this share) and 1/sqrt(k)."""
    half = _DIM // 2
    law = [(k + 1) ** -0.5 for k in range(half)]
    # Along the modes of the other class each class has the variance it starts with: there it has nothing to learn.
    start = [CLASS_PRECONDITIONING.sigma_data**2] * half
    spectra = [[4 * v for v in law] + start, start + law]
    changes = {
        **_network(seed, [_DIM], CLASS_PRECONDITIONING.sigma_data, steps=2000),
        "data.init_args.weights": [share, round(1 - share, 6)],
        "data.init_args.spectra": [{"spectrum": "given", "variance": variance} for variance in spectra],
        "data.init_args.rotation": "none",
        "data.init_args.separation": 0.0,
        "data.init_args.exact_moments": True,
        "data.init_args.num_samples": NUM_SAMPLES,
        "data.init_args.num_val_samples": 0,
        "data.init_args.batch_size": 256,
        "data.init_args.seed": seed,
    }
    tracker, _ = trackers(_LATENTS, per_decade=15, num_steps=SAMPLER.num_steps, moments="population", per_class=True)
    changes["trainer.callbacks"] = [tracker]
    return Run(f"share{round(100 * share):02d}_seed{seed}", "class_imbalance", changes)


def _network(seed: int, shape: list[int], sigma_data: float, steps: int) -> dict[str, Any]:
    # From zero, every mode starts at the variance of `sigma_data`, the same in all trainings.
    sizes = {"width": 128, "num_blocks": 3, "embedding": 128, "zero_init": True}
    optimizer = {"class_path": "torch.optim.Adam", "init_args": {"lr": 3e-4}}
    return {
        "seed_everything": seed,
        "trainer.max_steps": steps,
        "trainer.log_every_n_steps": 100,
        "model.init_args.network": {"class_path": "spectral_lightning.models.ResidualMLP", "init_args": sizes},
        "model.init_args.shape": shape,
        "model.init_args.preconditioning": {"kind": "edm", "sigma_data": sigma_data},
        "model.init_args.optimizer": optimizer,
    }


def _edit(name: str, pairs: Pairs) -> Mapping[str, Any] | None:
    if name == "swapped":
        return {"class_path": f"{_EDITS}.SwapVariances", "init_args": {"pairs": [list(pair) for pair in pairs]}}
    return {"class_path": f"{_EDITS}.Whiten", "init_args": {"variance": 1.0}} if name == "white" else None
