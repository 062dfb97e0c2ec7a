"""What stands between the linear network of the theory and the MLP of experiment 1."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from spectral_lightning.diffusion import Departure, GridNoise, LogNormalNoise, Reduction
from spectral_lightning.models import DiffusionModule, FourierEmbedding, LinearDenoiser, ResidualMLP
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import SpectralMoments
from spectral_lightning.theory import Preconditioning
from studies.shared_layer import SharedLayer

__all__ = [
    "EmpiricalLinearDenoiser",
    "LogUniformNoise",
    "RescaledNoiseMLP",
    "ResidualLinear",
    "SharedLinear",
    "SharedLinearDenoiser",
    "unit_weight",
]

_ENDS = (0.002, 80.0)


def unit_weight(sigma: Any) -> Any:
    """A loss that weighs all noise levels alike."""
    return sigma * 0 + 1


class LogUniformNoise:
    """``ln sigma`` uniform between the ends of the sampler.

    Args:
        sigma_min: lowest level.
        sigma_max: highest level.
    """

    def __init__(self, sigma_min: float = _ENDS[0], sigma_max: float = _ENDS[1]) -> None:
        self.low, self.high = math.log(sigma_min), math.log(sigma_max)

    def sample(self, count: int, device: torch.device) -> Tensor:
        """``count`` noise levels, ``[count]``."""
        return (self.low + (self.high - self.low) * torch.rand(count, device=device)).exp()

    def density(self, sigma: Any) -> Any:
        """Density of log sigma at ``sigma``."""
        inside = (np.log(sigma) >= self.low) & (np.log(sigma) <= self.high)
        return inside / (self.high - self.low)


class EmpiricalLinearDenoiser(LinearDenoiser):
    """The linear denoiser whose exact objective is the expected loss over the training samples, not their population.

    So its modes are those that the tracker measures, and mini-batches of the samples change nothing but the noise.
    """

    def setup(self, stage: str) -> None:
        """Take the moments of the training samples."""
        if stage == "fit" and self._moments is None:
            moments = SpectralMoments(self.dim)
            moments.update(self.trainer.datamodule.train_rows.data)  # type: ignore[attr-defined]
            self.set_moments(*moments.compute())
        super().setup(stage)


class SharedLinear(nn.Module):
    """``F(x, c) = sum_j phi_j(4 c) W_j x``, linear in x, with matrices that all noise levels share; zero before training.

    The ``phi_j`` are those of :func:`~studies.shared_layer.features`.

    Args:
        dim: dimension d.
        count: number of bumps among the ``phi_j``.
        share: what distant noise levels share; 0.65 in the MLP of experiment 1 before training.
    """

    centres: Tensor

    def __init__(self, dim: int, count: int = 8, share: float = 0.65) -> None:
        super().__init__()
        low, high = (math.log(end) for end in _ENDS)
        self.spacing, self.share = (high - low) / (count - 1), share
        self.register_buffer("centres", torch.linspace(low, high, count))
        self.weight = nn.Parameter(torch.zeros(1 + count, dim, dim))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """``[B, d]`` and ``[B]`` to ``[B, d]``."""
        near = torch.softmax(-(((4 * noise[:, None] - self.centres) / self.spacing) ** 2) / 0.6, dim=1)
        constant = torch.full_like(near[:, :1], self.share)
        phi = torch.cat([constant, (1 - self.share) * near], dim=1).sqrt().to(x.dtype)
        spread = (phi[:, :, None] * x[:, None, :]).flatten(1)
        return spread @ self.weight.transpose(1, 2).flatten(0, 1)


def _descent(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01)


class SharedLinearDenoiser(DiffusionModule):
    """A denoiser linear in its input, one network for all noise levels, whose learning is known (:class:`SharedLayer`).

    Args:
        dim: dimension d.
        count: number of bumps.
        share: what distant noise levels share.
        sampler: restricts the noise levels of the training to those of this sampler, in proportion to the density.
        preconditioning: EDM if not given.
        noise: EDM's log-normal density if not given.
        reduction: over coordinates.
        optimizer: plain gradient descent at 0.01 by default.
    """

    def __init__(
        self,
        dim: int,
        count: int = 8,
        share: float = 0.65,
        sampler: Sampler | None = None,
        preconditioning: Preconditioning | None = None,
        noise: LogNormalNoise | None = None,
        reduction: Reduction = "sum",
        optimizer: OptimizerCallable = _descent,
    ) -> None:
        density = noise or LogNormalNoise()
        levels = () if sampler is None else sampler.levels
        self._levels = GridNoise(levels, [float(density.density(s)) for s in levels]) if levels else density
        super().__init__(SharedLinear(dim, count, share), preconditioning, self._levels, reduction, optimizer)
        self.dim, self.count, self.share = dim, count, share

    def dynamics(self) -> SharedLayer:
        """The closed form of this module's training, one update of the optimizer as the unit of time."""
        rate = self.initial_learning_rate() / (self.dim if self.reduction == "mean" else 1)
        return SharedLayer(rate, self._levels, self.count, self.share, self.preconditioning)

    def departures(self) -> list[Departure]:
        """Mini-batches."""
        return [Departure("full-batch gradients assumed, mini-batches of noisy samples used", affects_clock=False)]


class _LinearBlock(nn.Module):
    """A block of the residual MLP without normalisation and activation."""

    def __init__(self, size_in: int, size_out: int, embedding: int) -> None:
        super().__init__()
        self.first = nn.Linear(size_in, size_out)
        self.modulation = nn.Linear(embedding, 2 * size_out)
        self.second = nn.Linear(size_out, size_out)
        self.skip: nn.Module = nn.Identity() if size_in == size_out else nn.Linear(size_in, size_out)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        scale, shift = self.modulation(embedded).chunk(2, dim=1)
        out: Tensor = self.skip(x) + self.second(self.first(x) * (1 + scale) + shift)
        return out


class ResidualLinear(nn.Module):
    """The residual MLP of experiment 1 without its nonlinearities: affine in x at every noise level, but deep.

    Args:
        dim: dimension d.
        width: of the blocks.
        num_blocks: number of residual blocks; a linear map to d follows.
        embedding: length of the noise embedding, which modulates every block as in the MLP.
    """

    def __init__(self, dim: int, width: int = 256, num_blocks: int = 5, embedding: int = 256) -> None:
        super().__init__()
        self.embedding = FourierEmbedding(embedding)
        sizes = [dim, *[width] * num_blocks]
        self.blocks = nn.ModuleList(_LinearBlock(a, b, embedding) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.out = nn.Linear(width, dim)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """``[B, d]`` and ``[B]`` to ``[B, d]``."""
        embedded, hidden = self.embedding(noise).to(x.dtype), x
        for block in self.blocks:
            hidden = block(hidden, embedded)
        out: Tensor = self.out(hidden)
        return out


class RescaledNoiseMLP(ResidualMLP):
    """The residual MLP of experiment 1 that sees ``factor`` times the noise level's logarithm.

    Args:
        dim: dimension d.
        width: of the blocks.
        num_blocks: number of residual blocks.
        embedding: length of the noise embedding.
        factor: 0 hides the noise level, so that all levels share all weights; above 1 it tells levels apart more finely.
    """

    def __init__(
        self, dim: int, width: int = 256, num_blocks: int = 5, embedding: int = 256, factor: float = 1.0
    ) -> None:
        super().__init__(dim, width, num_blocks, embedding)
        self.factor = factor

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """``[B, d]`` and ``[B]`` to ``[B, d]``."""
        return super().forward(x, self.factor * noise, label)
