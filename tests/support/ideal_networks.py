"""What a perfectly trained network of each convention returns, on Gaussian data: written from the conventions' own papers."""

import math

import torch
from torch import nn

F64 = torch.float64
DIM = 6


def population(seed=0):
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(DIM, DIM, generator=generator, dtype=F64))[0]
    variance = torch.logspace(1, -3, DIM, dtype=F64)
    covariance = (rotation * variance) @ rotation.T
    return 0.5 * torch.randn(DIM, generator=generator, dtype=F64), (covariance + covariance.T) / 2


MEAN, COVARIANCE = population()


def draw(count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return MEAN + torch.randn(count, DIM, generator=generator, dtype=F64) @ torch.linalg.cholesky(COVARIANCE).T


def posterior(x, a, s, mean=MEAN, covariance=COVARIANCE):
    """E[x0 | x] for ``x = a x0 + s eps``, one a and s a row, by a dense solve for each."""
    flat, a, s = x.flatten(1).double(), a.double()[:, None], s.double()[:, None]
    observed = a[..., None] ** 2 * covariance + s[..., None] ** 2 * torch.eye(len(covariance), dtype=F64)
    solved = torch.linalg.solve(observed, (flat - a * mean)[..., None])[..., 0]
    return (mean + a * (solved @ covariance)).reshape(x.shape)


def wiener(z, sigma):
    """``mean + C (C + sigma^2 I)^-1 (z - mean)``."""
    return posterior(z, torch.ones_like(sigma), sigma)


TARGETS = {
    "x0": lambda x0, eps, a, s: x0,
    "epsilon": lambda x0, eps, a, s: eps,
    "v": lambda x0, eps, a, s: a * eps - s * x0,
    "eps-x0": lambda x0, eps, a, s: eps - x0,
    "x0-eps": lambda x0, eps, a, s: x0 - eps,
    "score": lambda x0, eps, a, s: -eps / s,
}


def ideal(x, a, s, target, *moments):
    """The conditional mean of a target that is linear in data and noise."""
    shape = (-1, *(1,) * (x.ndim - 1))
    x0, a, s = posterior(x, a, s, *moments), a.reshape(shape), s.reshape(shape)
    return TARGETS[target](x0, (x.double() - a * x0) / s, a, s)


class Ideal(nn.Module):
    """``net(x, t)`` with the given times: ``of_time(t) -> (a, s)``; the moments are those of :data:`MEAN` unless given."""

    def __init__(self, of_time, target, sign=1.0, wrap=lambda out: out, order="x-time", moments=()):
        super().__init__()
        self.of_time, self.target, self.sign, self.wrap, self.order = of_time, target, sign, wrap, order
        self.moments = moments
        self.anchor = nn.Parameter(torch.zeros(1, dtype=F64))  # gives the dtype

    def forward(self, *args, **kwargs):
        x, t = args[:2] if self.order == "x-time" else args[1::-1]
        a, s = (part.expand(len(x)) for part in self.of_time(t))
        return self.wrap((self.sign * ideal(x, a, s, self.target, *self.moments)).to(x.dtype))


def abar(steps=200, start=1e-4, end=0.06):
    return torch.cumprod(1 - torch.linspace(start, end, steps, dtype=F64), 0)


def of_index(alphas_cumprod):
    def of_time(i):
        if i.is_floating_point():
            raise TypeError("indices must be whole numbers")
        return alphas_cumprod[i].sqrt(), (1 - alphas_cumprod[i]).sqrt()

    return of_time


def of_log_snr(t):
    """a^2 = sigmoid(log snr), s^2 = sigmoid(-log snr)."""
    return torch.sigmoid(t).sqrt(), torch.sigmoid(-t).sqrt()


def of_data_share(t):
    return t, 1 - t


def of_noise_share(t):
    return 1 - t, t


def of_thousandth(t):
    return 1 - t / 1000, t / 1000


def of_sigma(t):
    return torch.ones_like(t), t


def trigonometric(t):
    return torch.cos(math.pi / 2 * t), torch.sin(math.pi / 2 * t)


class Backbone(nn.Module):
    """EDM's F, from D = c_skip z + c_out F(c_in z, ln(sigma)/4) solved for F."""

    def __init__(self, sigma_data=0.5):
        super().__init__()
        self.sigma_data = sigma_data

    def forward(self, x, t):
        sigma = (4 * t).exp()
        sd, s = self.sigma_data, sigma[:, None]
        z = x * (s**2 + sd**2).sqrt()
        skip, out = sd**2 / (s**2 + sd**2), s * sd / (s**2 + sd**2).sqrt()
        return (wiener(z, sigma) - skip * z) / out
