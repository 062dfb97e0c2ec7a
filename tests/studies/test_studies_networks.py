"""The networks between the linear one and the MLP, and the theory of a layer that noise levels share."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from scipy import stats

from spectral_lightning.datamodules import GaussianDataModule
from spectral_lightning.diffusion import GridNoise, LogNormalNoise
from spectral_lightning.models import ResidualMLP
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import Objective, OneLayer, Preconditioning
from studies.networks import (
    SHARE,
    BlindMLP,
    EmpiricalLinearDenoiser,
    LogUniformNoise,
    ResidualLinear,
    SharedLayer,
    SharedLinearDenoiser,
    features,
)

F64 = torch.float64


@pytest.mark.parametrize("share", [0.0, 0.65, 1.0])
def test_features_of_one_level_have_norm_one_and_those_of_distant_levels_share(share):
    phi = features(torch.tensor([0.002, 0.37, 80.0], dtype=F64).log(), share).numpy()
    expected = np.array([[1, share, share], [share, 1, share], [share, share, 1]])
    np.testing.assert_allclose(phi @ phi.T, expected, atol=0.01)


def naive_gain(steps, rate, lam, sigma, levels, probability, share):
    """Descent on the expected loss of one mode over noise levels, gradients by central differences; EDM written out."""

    def denoiser(q, s):
        root = s**2 + 0.25
        return 0.25 / root + 0.5 * s / root * (features(torch.tensor(s, dtype=F64).log(), share).numpy() @ q)

    def loss(q):
        gain = denoiser(q, levels)
        weight = (levels**2 + 0.25) / (0.5 * levels) ** 2
        return (probability * weight * ((1 - gain) ** 2 * lam + gain**2 * levels**2)).sum()

    q, h = np.zeros(9), 1e-4
    for _ in range(steps):
        gradient = [(loss(q + h * e) - loss(q - h * e)) / (2 * h) for e in np.eye(9)]
        q = q - rate * np.array(gradient)
    return denoiser(q, np.asarray(sigma))


@pytest.mark.parametrize("grid", [True, False])
def test_the_shared_layer_is_descent_on_the_expected_loss(grid):
    if grid:
        levels, probability = np.array([10.0, 1.0, 0.3, 0.05]), np.array([0.1, 0.4, 0.3, 0.2])
        noise = GridNoise(levels.tolist(), probability.tolist())
    else:
        u = np.linspace(-1.2 - 8 * 1.2, -1.2 + 8 * 1.2, 1201)
        density = np.exp(-((u + 1.2) ** 2) / (2 * 1.44))
        levels, probability, noise = np.exp(u), density / density.sum(), LogNormalNoise()
    theory = SharedLayer(Objective(0.02, Preconditioning("edm"), discrete=True), noise, share=0.5)
    for lam in (4.0, 0.2):
        expected = naive_gain(30, 0.02, lam, [5.0, 0.4], levels, probability, 0.5)
        # Gauss and Hermite with 100 nodes
        np.testing.assert_allclose(theory.on(lam).weight(30, [5.0, 0.4]), expected, rtol=1e-5)


def test_levels_that_share_nothing_are_independent_layers():
    """Two levels at two centres far apart: each is the one layer, at the rate of its probability."""
    levels, share = [80.0, 0.002], [0.3, 0.7]
    objective = Objective(0.05, Preconditioning("edm"), discrete=True)
    theory = SharedLayer(objective, GridNoise(levels, share), share=0.0)
    often = dict(zip(levels, share, strict=True))
    density = np.vectorize(lambda s: often[float(s)])
    single = OneLayer(replace(objective, noise_density=density))
    variance = np.array([3.0, 0.5])
    np.testing.assert_allclose(theory.on(variance).weight(9, levels), single.on(variance).weight(9, levels), rtol=1e-6)


@pytest.mark.parametrize("levels", [True, False])
def test_a_step_of_the_shared_network_on_many_samples_is_the_theorys(levels):
    sampler = Sampler(num_steps=5, sigma_min=0.1, sigma_max=5.0) if levels else None
    module = SharedLinearDenoiser(3, sampler=sampler).double()
    variance = np.array([4.0, 1.0, 0.2])
    theory = module.dynamics().on(variance)
    torch.manual_seed(0)
    data = torch.randn(200_000, 3, dtype=F64) * torch.tensor(variance).sqrt()
    optimizer = module.configure_optimizers()
    module.loss(data).backward()
    optimizer.step()
    for sigma in (5.0, 0.5):
        out = module.denoise(torch.eye(3, dtype=F64), torch.full((3,), sigma, dtype=F64)).diag().detach().numpy()
        before = theory.weight(0, sigma)
        moved = theory.weight(1, sigma) - before
        np.testing.assert_allclose(out - before, moved, atol=0.03 * np.abs(moved).max())  # 200,000 samples


def test_distant_noise_levels_share_two_thirds_of_the_mlps_gradients():
    """Cosine of the gradients of one output at two noise levels."""
    cosines = []
    for seed in range(3):
        torch.manual_seed(seed)
        network, x = ResidualMLP(128, 256, 5, 256), torch.randn(1, 128)
        gradients = []
        for sigma in (80.0, 2.0, 0.05):
            network.zero_grad()
            network(x, torch.tensor([sigma]).log() / 4)[0, seed].backward()
            gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
        unit = torch.stack([g / g.norm() for g in gradients])
        cosines += (unit @ unit.T)[np.triu_indices(3, 1)].tolist()
    assert np.mean(cosines) == pytest.approx(SHARE, abs=0.06)


def test_the_residual_network_without_nonlinearities_is_affine():
    torch.manual_seed(0)
    network, noise = ResidualLinear(6, 10, 3, 8).double(), torch.tensor([0.3, -1.0], dtype=F64)
    x, y = torch.randn(2, 2, 6, dtype=F64)
    zero = network(torch.zeros(2, 6, dtype=F64), noise)
    parts = 2 * (network(x, noise) - zero) - 3 * (network(y, noise) - zero)
    torch.testing.assert_close(network(2 * x - 3 * y, noise) - zero, parts)
    one, other = (network(x[:1], n[None]) for n in noise)
    assert not torch.allclose(one, other)


def test_the_blind_network_is_the_mlp_at_one_noise_level():
    torch.manual_seed(0)
    blind, plain = BlindMLP(4, 8, 2, 6), ResidualMLP(4, 8, 2, 6)
    plain.load_state_dict(blind.state_dict())
    x, noise = torch.randn(3, 4), torch.tensor([-1.0, 0.0, 1.0])
    assert torch.equal(blind(x, noise), plain(x, torch.zeros(3)))
    assert not torch.equal(plain(x, noise), plain(x, torch.zeros(3)))


def test_the_exact_objective_is_that_of_the_training_samples():
    data = GaussianDataModule(dim=3, num_samples=20, num_val_samples=0, batch_size=4)
    module = EmpiricalLinearDenoiser(3, sigmas=[1.0, 0.5])
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    Trainer(accelerator="cpu", max_steps=1, enable_model_summary=False, **quiet).fit(module, datamodule=data)
    rows = data.train_rows.data.double().numpy()
    mean, covariance = module._moments
    np.testing.assert_allclose(mean, rows.mean(0), atol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(rows.T, bias=True), rtol=1e-10, atol=1e-12)


def test_log_uniform_noise_is_even_in_log_sigma():
    torch.manual_seed(0)
    noise = LogUniformNoise()
    log, width = noise.sample(20_000, torch.device("cpu")).log().double().numpy(), math.log(80 / 0.002)
    assert stats.kstest(log, stats.uniform(math.log(0.002), width).cdf).pvalue > 0.01
    assert [float(noise.density(sigma)) for sigma in (1.0, 100.0)] == pytest.approx([1 / width, 0])
