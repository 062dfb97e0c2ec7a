"""Networks between the linear one of the theory and the MLP of experiment 1, and the theory of a layer shared by noise levels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from numpy.typing import NDArray
from torch import Tensor, nn

from spectral_lightning.diffusion import Departure, GridNoise, LogNormalNoise
from spectral_lightning.models import DiffusionModule, LinearDenoiser, ResidualMLP
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import SpectralMoments
from spectral_lightning.theory import ModewiseDynamics, Objective, Preconditioning

__all__ = ["SHARE", "BlindMLP", "EmpiricalLinearDenoiser", "LogUniformNoise", "ResidualLinear", "SharedLayer"]
__all__ += ["SharedLinear", "SharedLinearDenoiser", "features", "unit_weight"]

Array = NDArray[np.float64]

SHARE = 0.65  # of the MLP of experiment 1 before training: cosine of its gradients at distant noise levels
_LOW, _HIGH = math.log(0.002), math.log(80.0)  # range of the sampler
_BUMPS, _SHARPNESS = 8, 0.6
_NODES = 100  # of Gauss and Hermite: the second moments of 8 bumps are good to 1e-6


def unit_weight(sigma: Any) -> Any:
    """A loss that weighs all noise levels equally."""
    return sigma * 0 + 1


class LogUniformNoise:
    """``ln sigma`` uniform over the range of the sampler."""

    def sample(self, count: int, device: torch.device) -> Tensor:
        """``count`` noise levels, ``[count]``."""
        return (_LOW + (_HIGH - _LOW) * torch.rand(count, device=device)).exp()

    def density(self, sigma: Any) -> Any:
        """Density of log sigma at ``sigma``."""
        return ((np.log(sigma) >= _LOW) & (np.log(sigma) <= _HIGH)) / (_HIGH - _LOW)


class EmpiricalLinearDenoiser(LinearDenoiser):
    """The linear denoiser whose exact objective is the expected loss over the training samples instead of the population.

    Its modes are those that the tracker measures, and mini-batches of the samples add only noise.
    """

    def setup(self, stage: str) -> None:
        """Take the moments of the training samples."""
        if stage == "fit" and self._moments is None:
            moments = SpectralMoments(self.dim)
            moments.update(self.trainer.datamodule.train_rows.data)  # type: ignore[attr-defined]
            self.set_moments(*moments.compute())
        super().setup(stage)


# One linear layer for all noise levels: network, module, theory.


def features(log_sigma: Tensor, share: float) -> Tensor:
    """Features of the noise level that the shared layer sees: a constant and 8 bumps, ``[*log_sigma, 9]``.

    ``phi_0 = sqrt(share)`` and ``phi_j = sqrt((1 - share) softmax_j(-((ln sigma - c_j) / spacing)^2 / 0.6))`` with centres
    c_j evenly spaced from ln 0.002 to ln 80. How much a step at one level moves another, ``phi(s) . phi(t)``, is 1 for
    equal levels and falls to ``share`` for distant ones, over about one spacing.
    """
    centres = torch.linspace(_LOW, _HIGH, _BUMPS, dtype=log_sigma.dtype, device=log_sigma.device)
    distance = (log_sigma[..., None] - centres) / (_HIGH - _LOW) * (_BUMPS - 1)
    near = torch.softmax(-(distance**2) / _SHARPNESS, dim=-1)
    return torch.cat([torch.full_like(near[..., :1], share), (1 - share) * near], dim=-1).sqrt()


class SharedLinear(nn.Module):
    """``F(x, c) = sum_j phi_j(4 c) W_j x``, linear in x, zero before training; the phi_j are :func:`features`.

    Args:
        dim: dimension d.
        share: overlap of the features at distant noise levels.
    """

    def __init__(self, dim: int, share: float) -> None:
        super().__init__()
        self.share = share
        self.weight = nn.Parameter(torch.zeros(1 + _BUMPS, dim, dim))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """``[B, d]`` and ``[B]`` to ``[B, d]``."""
        phi = features(4 * noise, self.share).to(x.dtype)
        return (phi[:, :, None] * x[:, None, :]).flatten(1) @ self.weight.transpose(1, 2).flatten(0, 1)


def _descent(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01)


class SharedLinearDenoiser(DiffusionModule):
    """A denoiser linear in its input, one network for all noise levels, whose learning is solved by :class:`SharedLayer`.

    Args:
        dim: dimension d.
        sampler: restricts the noise levels of the training to those of this sampler, in proportion to the density.
        preconditioning: EDM if not given.
        noise: EDM's log-normal density if not given.
        optimizer: plain gradient descent at 0.01 by default.
    """

    def __init__(
        self,
        dim: int,
        sampler: Sampler | None = None,
        preconditioning: Preconditioning | None = None,
        noise: LogNormalNoise | None = None,
        optimizer: OptimizerCallable = _descent,
    ) -> None:
        density = noise or LogNormalNoise()
        levels = () if sampler is None else sampler.levels
        self._levels = GridNoise(levels, [float(density.density(s)) for s in levels]) if levels else density
        super().__init__(SharedLinear(dim, SHARE), preconditioning, self._levels, "sum", optimizer)

    def dynamics(self) -> SharedLayer:
        """The closed form of this module's training, one update of the optimizer as the unit of time."""
        return SharedLayer(Objective(self.initial_learning_rate(), self.preconditioning, discrete=True), self._levels)

    def departures(self) -> list[Departure]:
        """Mini-batches."""
        return [Departure("full-batch gradients assumed, mini-batches of noisy samples used", affects_clock=False)]


class SharedLayer(ModewiseDynamics):
    """``F(x; sigma) = sum_j phi_j(ln sigma) W_j x``: one linear layer for all noise levels, learnt from zero.

    Along a mode of variance lambda the gains ``q_j`` of the ``W_j`` have the quadratic loss

    ``L = E_sigma[w a^2 (lambda + sigma^2) (sum_j phi_j q_j - q*)^2] + const``, ``a = c_out c_in``,
    ``q* = (lambda / (lambda + sigma^2) - c_skip) / a``,

    so that ``dq/dtau = -2 eta (M q - v)`` with ``M_jk = E[w a^2 (lambda + sigma^2) phi_j phi_k]`` and
    ``v_j = E[w a^2 (lambda + sigma^2) phi_j q*]``. What the phi_j cannot resolve is learnt as a compromise; directions that
    M does not see stay at zero. A level learns from the others through ``phi(s) . phi(t)``; if that were 0 between
    different levels, this would be :class:`OneLayer`. Not in Wang & Pehlevan.

    Args:
        objective: learning rate, preconditioning, and how the loss is descended.
        noise: distribution of the noise levels.
        share: overlap of the features at distant noise levels.
    """

    takes_gain = False

    def __init__(self, objective: Objective, noise: GridNoise | LogNormalNoise, share: float = SHARE) -> None:
        super().__init__(objective)
        self.noise, self.share = noise, share
        if isinstance(noise, GridNoise):
            self._levels, self._probability = np.array(noise.sigmas), np.array(noise.probabilities)
        else:
            x, weight = np.polynomial.hermite_e.hermegauss(_NODES)
            self._levels, self._probability = np.exp(noise.mean + noise.std * x), weight / weight.sum()

    def _features(self, sigma: Array) -> Array:
        return np.asarray(features(torch.as_tensor(np.log(sigma)), self.share))

    def gain(self, time: Array, sigma: Array, variance: Array, initial: Array) -> Array:
        """Gain of the denoiser, arguments broadcast; see :class:`ModewiseDynamics`."""
        unique, index = np.unique(variance, return_inverse=True)
        index, levels, lam = index.reshape(variance.shape), self._levels, unique[:, None]
        rate = self._probability * self.objective.rate(levels, lam + levels**2)
        optimum = self.objective.network_gain(levels, lam / (lam + levels**2))
        phi = self._features(levels)
        values, vectors = np.linalg.eigh(np.einsum("km,mi,mj->kij", rate, phi, phi, optimize=True))  # of 2 eta M
        values = np.maximum(values, 0.0)  # rounding of directions that no noise level sees
        along = np.einsum("kji,kj->ki", vectors, (rate * optimum) @ phi)  # 2 eta v
        end = np.divide(along, values, out=np.zeros(along.shape), where=values > 1e-14 * values.max())
        left = self.objective.remaining(np.asarray(time)[..., None], values[index])
        gains = np.einsum("...ji,...i->...j", vectors[index], end[index] * (1 - left), optimize=True)
        return self.objective.output_gain(sigma, (self._features(sigma) * gains).sum(axis=-1))

    def start(self, sigma: Array, variance: Array) -> Array:
        """Gain of the denoiser at time 0, where F = 0."""
        return self.objective.output_gain(sigma, 0.0)


# Variants of the MLP.


class ResidualLinear(ResidualMLP):
    """The residual MLP without normalisation and activation: affine in x at every noise level, but deep."""

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """``[B, *S]`` and ``[B]`` to ``[B, *S]``."""
        embedded, hidden = self.embedding(noise).to(x.dtype), x.flatten(1)
        blocks: Any = self.blocks
        for block in blocks:
            scale, shift = block.modulation(embedded).chunk(2, dim=1)
            hidden = block.skip(hidden) + block.second(block.first(hidden) * (1 + scale) + shift)
        out: Tensor = self.out(hidden)
        return out.reshape(x.shape)


class BlindMLP(ResidualMLP):
    """The residual MLP that does not see the noise level, so that all levels share all weights."""

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """``[B, *S]`` and ``[B]`` to ``[B, *S]``."""
        return super().forward(x, torch.zeros_like(noise), label)
