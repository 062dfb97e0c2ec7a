"""Every parametrisation is its own paper's: the loss of its target, and the exact denoiser of a Gaussian."""

import pytest
import torch
from torch import nn

from spectral_lightning.diffusion import LogNormalNoise, default_noise
from spectral_lightning.models import DiffusionModule
from spectral_lightning.theory import Preconditioning

F64 = torch.float64
SIGMAS = [0.02, 0.3, 1.0, 2.5, 30.0]

# Input x_t and target, from data, noise and noise-to-data ratio, as each paper writes them
PAPERS = {
    "variance_preserving": lambda x0, eps, abar, g: (abar.sqrt() * x0 + (1 - abar).sqrt() * eps, eps),
    "velocity": lambda x0, eps, abar, g: (
        abar.sqrt() * x0 + (1 - abar).sqrt() * eps,
        abar.sqrt() * eps - (1 - abar).sqrt() * x0,
    ),
    "x0": lambda x0, eps, abar, g: (abar.sqrt() * x0 + (1 - abar).sqrt() * eps, x0),
    "flow": lambda x0, eps, abar, g: ((1 - g) * x0 + g * eps, eps - x0),
}


class Levels:
    """The noise levels of the test, in order."""

    def sample(self, count, device):
        return torch.tensor(SIGMAS, dtype=F64).repeat(count // len(SIGMAS))


class Net(nn.Module):
    """Couples the coordinates, and sees the noise level."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.8, dtype=F64))

    def forward(self, x, noise):
        return torch.tanh(self.scale * x.flip(-1)) + noise.reshape(-1, *(1,) * (x.ndim - 1))


class Linear(nn.Module):
    """The best linear prediction of the target, per example: ``mean of target + gain (x - mean of x)``."""

    def __init__(self, gain, mean_x, mean_target):
        super().__init__()
        self.gain, self.mean_x, self.mean_target = gain, mean_x, mean_target

    def forward(self, x, noise):
        return self.mean_target + torch.einsum("bij,bj->bi", self.gain, x - self.mean_x)


def paper(kind, x0, eps, sigma):
    s = sigma.reshape(-1, *(1,) * (x0.ndim - 1))
    return PAPERS[kind](x0, eps, 1 / (1 + s**2), s / (1 + s))


@pytest.mark.parametrize("kind", PAPERS)
@pytest.mark.parametrize("shape", [(3,), (2, 3, 3)])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_loss_is_the_plain_squared_error_of_the_target(kind, shape, reduction):
    module = DiffusionModule(Net(), Preconditioning(kind), Levels(), reduction)
    clean = torch.randn(10, *shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    torch.manual_seed(1)
    loss = module.loss(clean)
    torch.manual_seed(1)
    eps, sigma = torch.randn_like(clean), torch.tensor(SIGMAS * 2, dtype=F64)
    x, target = paper(kind, clean, eps, sigma)
    square = (module.network(x, sigma.log() / 4) - target).square().flatten(1)
    expected = (square.sum(1) if reduction == "sum" else square.mean(1)).mean()
    # float64; at the smallest level the difference from the data loses two digits
    torch.testing.assert_close(loss, expected, rtol=1e-11, atol=0.0)


@pytest.mark.parametrize("kind", PAPERS)
def test_the_best_prediction_of_a_gaussian_is_the_wiener_filter(kind):
    generator = torch.Generator().manual_seed(0)
    root, mean = torch.randn(3, 3, generator=generator, dtype=F64), torch.tensor([1.0, -2.0, 0.5], dtype=F64)
    covariance, eye = root @ root.T, torch.eye(3, dtype=F64)
    sigma, zero, one = torch.tensor(SIGMAS, dtype=F64), torch.zeros(5, 1, dtype=F64), torch.ones(5, 1, dtype=F64)
    # Shares of data and noise in input and target, read off by asking for one without the other
    (a, p), (b, q) = paper(kind, one, zero, sigma), paper(kind, zero, one, sigma)
    cross = (p * a)[..., None] * covariance + (q * b)[..., None] * eye
    own = (a * a)[..., None] * covariance + (b * b)[..., None] * eye
    module = DiffusionModule(Linear(cross @ torch.linalg.inv(own), a * mean, p * mean), Preconditioning(kind))
    z = torch.randn(5, 3, generator=generator, dtype=F64) * 3
    filters = [covariance @ torch.linalg.inv(covariance + s**2 * eye) for s in SIGMAS]
    expected = torch.stack([mean + f @ (row - mean) for f, row in zip(filters, z, strict=True)])
    # inverses of matrices of condition up to 1e5 in float64
    torch.testing.assert_close(module.denoise(z, sigma), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["none", "velocity", "flow"])
def test_noise_is_that_of_the_paper_unless_given(kind):
    preconditioning, given = Preconditioning(kind), LogNormalNoise(0.0, 1.0)
    assert type(DiffusionModule(Net(), preconditioning).noise) is type(default_noise(preconditioning))
    assert DiffusionModule(Net(), preconditioning, given).noise is given
