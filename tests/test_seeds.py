"""What a measurement draws meets neither the data nor the training, whatever the seeds."""

from typing import get_args

import numpy as np
import pytest
import torch

from spectral_lightning.datamodules import GaussianDataModule
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


@pytest.mark.parametrize("dim", [8, 16, 64])
def test_latents_do_not_meet_the_data(dim):
    """Both are Haar-distributed; from one generator, the directions of latents would be the data's eigenvectors."""
    for seed in range(4):
        data = GaussianDataModule(dim=dim, spectrum="power_law", num_samples=2 * dim, batch_size=dim, seed=seed)
        modes = torch.linalg.eigh(data.population.covariance)[1]
        samples = torch.nn.functional.normalize(data.train_rows.data.double().flatten(1))
        for other in range(4):
            directions = Latents(6 * dim, dim, seed=other).rows(0, 6 * dim)[::2] / dim**0.5
            for rows in (modes.T, samples):
                assert (directions @ rows.T).abs().max() < 1 - 1e-6


def test_blocks_of_latents_differ_from_each_other_and_between_kinds():
    orthogonal, independent = (Latents(32, 4, kind).rows(0, 32).numpy() for kind in ("orthogonal", "independent"))
    blocks = [*np.split(orthogonal, 4), *np.split(independent, 4)]
    assert all(np.abs(a - b).max() > 0.1 for i, a in enumerate(blocks) for b in blocks[:i])
