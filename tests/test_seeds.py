"""What a measurement draws meets neither the data nor the training, whatever the seeds."""

from typing import get_args

import numpy as np
import pytest
import torch

from spectral_lightning.datamodules import GaussianDataModule, MixtureDataModule
from spectral_lightning.diffusion import Latents
from spectral_lightning.seeds import Domain, numpy_generator, torch_generator

DOMAINS = get_args(Domain)


def test_small_seeds_give_streams_that_differ():
    keys = [(domain, *key) for domain in DOMAINS for seed in range(100) for key in ((), (seed,), (seed, 1), (1, seed))]
    keys = sorted(set(keys))
    ours = {torch.randint(2**62, (1,), generator=torch_generator(*key)).item() for key in keys}
    users = {torch.randint(2**62, (1,), generator=torch.Generator().manual_seed(seed)).item() for seed in range(10_000)}
    assert len(ours) == len(keys) > 800
    assert not ours & users
    assert len({int(numpy_generator(*key).integers(2**62)) for key in keys}) == len(keys)
    assert torch.equal(torch_generator("check", 3).get_state(), torch_generator("check", 3).get_state())


def directions(dim: int, seed: int) -> dict[str, np.ndarray]:
    """Unit vectors of everything that is drawn at a seed, also of what a training draws from torch's own generator."""
    common = {
        "dim": dim,
        "spectrum": "power_law",
        "num_samples": 2 * dim,
        "num_val_samples": dim,
        "batch_size": dim,
        "seed": seed,
    }
    rotated, white = GaussianDataModule(**common), GaussianDataModule(**common, exponent=0.0, rotation=False)
    mixture = MixtureDataModule(
        shape=[dim], weights=[0.5, 0.5], separation=1.0, num_samples=2 * dim, batch_size=dim, seed=seed
    )
    means = mixture.populations[0].mean - mixture.populations[1].mean
    rows = {
        "eigenvectors": rotated.population.modes.T,
        "rotated samples": rotated.train_rows.data,
        "samples": white.train_rows.data,
        "validation": white.val_rows.data,
        "means of classes": means[None],
        "latents": Latents(6 * dim, dim, seed=seed).rows(0, 6 * dim)[::2],
        "independent latents": Latents(2 * dim, dim, "independent", seed).rows(0, 2 * dim),
        "training": torch.randn(2 * dim, dim, generator=torch.Generator().manual_seed(seed)),
        "initialisation": torch.nn.init.orthogonal_(
            torch.empty(dim, dim), generator=torch.Generator().manual_seed(seed)
        ),
    }
    return {name: torch.nn.functional.normalize(row.double()).numpy() for name, row in rows.items()}


@pytest.mark.parametrize("dim", [8, 16, 64])
def test_no_two_draws_coincide(dim):
    """From one generator, for example, the directions of latents were once the eigenvectors of the data."""
    drawn = {(name, seed): rows for seed in range(6) for name, rows in directions(dim, seed).items()}
    owner = np.concatenate([np.full(len(rows), i) for i, rows in enumerate(drawn.values())])
    cosine = np.abs(np.concatenate(list(drawn.values())) @ np.concatenate(list(drawn.values())).T)
    same = np.argwhere((cosine > 1 - 1e-9) & (owner[:, None] < owner))
    names = list(drawn)
    assert not len(same), {(names[owner[i]], names[owner[j]]) for i, j in same}


def test_blocks_of_latents_differ_from_each_other_and_between_kinds():
    orthogonal, independent = (Latents(32, 4, kind).rows(0, 32).numpy() for kind in ("orthogonal", "independent"))
    blocks = [*np.split(orthogonal, 4), *np.split(independent, 4)]
    assert all(np.abs(a - b).max() > 0.1 for i, a in enumerate(blocks) for b in blocks[:i])
