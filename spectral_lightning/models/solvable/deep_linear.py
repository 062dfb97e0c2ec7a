"""Several linear layers per noise level."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from spectral_lightning.arguments import positive_integer
from spectral_lightning.diffusion import Departure, Reduction
from spectral_lightning.models.checks import checked_shape
from spectral_lightning.models.solvable.per_level import PerLevel
from spectral_lightning.models.solvable.solvable import SolvableDenoiser, grid_of
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import DeepLinear, Preconditioning

__all__ = ["DeepLinearDenoiser", "DeepLinearPerLevel"]


class DeepLinearPerLevel(PerLevel):
    """``F(x, ln(sigma)/4) = W_L .. W_1 x`` with separate layers for each of the given noise levels, no bias.

    Before training all layers are ``|init|^(1/L)`` times the identity, which is balanced and aligned with any data; the
    first layer (the only one, if tied) carries the sign of a negative ``init``.

    Args:
        dim: dimension d.
        sigmas: the noise levels; another one raises.
        depth: number of layers L.
        tied: whether one layer is used L times.
        init: gain of the product of the layers before training.

    Raises:
        ValueError: for an argument out of range: an ``init`` of 0 from depth 2 on, a fixed point, or below 0 for an even
            number of tied layers, which have no negative gain.

    Example:
        >>> network = DeepLinearPerLevel(2, [1.0, 4.0], depth=3, init=0.125)
        >>> network.weight.shape, network.affine()[0][0].tolist()
        (torch.Size([3, 2, 2, 2]), [[0.125, 0.0], [0.0, 0.125]])
    """

    def __init__(
        self, dim: int, sigmas: Sequence[float], depth: int = 2, tied: bool = False, init: float = 0.1
    ) -> None:
        super().__init__(sigmas)
        positive_integer("dim", dim)
        self.depth, self.tied = positive_integer("depth", depth), tied
        if depth > 1 and init == 0:
            raise ValueError(
                "`init` must not be 0 from depth 2 on, because nothing is ever learnt from there. Try 0.1."
            )
        if tied and depth % 2 == 0 and init < 0:
            raise ValueError(f"`init` must be above 0 for an even number of tied layers, got {init!r}.")
        layers = torch.eye(dim).expand(1 if tied else depth, len(sigmas), dim, dim) * abs(init) ** (1 / depth)
        if init < 0:
            layers = torch.cat([-layers[:1], layers[1:]])
        self.weight = nn.Parameter(layers.clone())

    @property
    def _layers(self) -> list[Tensor]:
        """``[L, d, d]`` of each layer, the first one first."""
        return [self.weight[0]] * self.depth if self.tied else list(self.weight)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Products ``[L, d, d]`` of the layers, and zeros ``[L, d]``."""
        first, *others = self._layers
        for layer in others:
            first = layer @ first
        return first, first.new_zeros(first.shape[:2])

    def at_level(self, x: Tensor, level: int) -> Tensor:
        """``[B, *S]`` to the same, layer by layer."""
        hidden = x.flatten(1)
        for layer in self._layers:
            hidden = hidden @ layer[level].T
        return hidden.reshape(x.shape)


class DeepLinearDenoiser(SolvableDenoiser):
    """Independent deep linear denoisers per noise level, whose learning is known (``DeepLinear``).

    ``D(z; sigma) = c_skip z + c_out W_L .. W_1 c_in z``, the product ``init I`` before training; trained on the expected
    loss or on samples as :class:`SolvableDenoiser` says.

    There is no bias: the theory holds for data of zero mean, and :meth:`departures` reports a mean of the data (the layers
    then learn second moments about zero).

    From depth 2 on a gain keeps its sign, so that modes whose best gain has the other one (under EDM those of variance
    below ``sigma_data^2``, for a positive ``init``) end at the saddle ``F = 0``, where the theory stays. Rounding slowly
    unbalances the layers until they leave it: at half the stable rate, after some 400 updates in single precision and
    1,000 in double.

    Reference: Wang & Pehlevan 2025, appendix F; tied layers and preconditioning are beyond that paper.

    Args:
        shape: of one example; its d coordinates are flattened.
        depth: number of layers.
        tied: whether one layer is used ``depth`` times.
        sampler: sets the noise levels: those at which sampling evaluates the denoiser.
        sigmas: explicit noise levels instead; sampling then needs a sampler with exactly these.
        init: gain of the product of the layers before training.
        objective: ``"exact"`` descends the expected loss, from the data's moments; ``"samples"`` that of batches.
        preconditioning: coefficients and loss weight; EDM if not given. ``Preconditioning("none")`` is the paper's.
        reduction: over coordinates, ``"sum"`` (the theory's) or ``"mean"`` (which divides every rate by d).
        optimizer: plain gradient descent at 0.02 if not given.
        lr_scheduler: makes a scheduler, stepped after every update, from the optimizer.

    Raises:
        ValueError: for an argument out of range; when training starts, for a learning rate at which descent diverges or
            an exact objective without moments.

    Example:
        >>> DeepLinearDenoiser(4, depth=3).dynamics().depth
        3
    """

    def __init__(
        self,
        shape: list[int] | int,
        depth: int = 2,
        tied: bool = False,
        sampler: Sampler | None = None,
        sigmas: list[float] | None = None,
        init: float = 0.1,
        objective: Literal["exact", "samples"] = "exact",
        preconditioning: Preconditioning | None = None,
        reduction: Reduction = "sum",
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        sizes = checked_shape(shape)
        grid, levels = grid_of(sampler, sigmas)
        network = DeepLinearPerLevel(torch.Size(sizes).numel(), levels, depth, tied, init)
        descent = optimizer or partial(torch.optim.SGD, lr=0.02)
        super().__init__(network, sizes, grid, objective, preconditioning, reduction, descent, lr_scheduler)
        self.init, self.depth, self.tied = init, depth, tied

    def stable_learning_rate(self) -> float:
        """Learning rate at which descent just converges near the optimum, or near the start if that is steeper.

        ``1 / max f (lambda + sigma^2) m max(|q*|, |init|)^(2 - 2/L)`` over levels and eigenvalues lambda of the second
        moments, in the terms of ``DeepLinear``: a local bound, sharp for a small ``init``.
        """
        mean, covariance = self._moments_or_zero()
        variance = torch.linalg.eigvalsh(covariance + torch.outer(mean, mean)).clamp(min=0)
        return self._slowdown / max(self._curvature(sigma, variance) for sigma in self.sigma_grid)

    def _curvature(self, sigma: float, variance: Tensor) -> float:
        p = self.preconditioning
        optimum = (variance / (variance + sigma**2) - p.c_skip(sigma)) / (p.c_out(sigma) * p.c_in(sigma))
        steepest = optimum.abs().clamp(min=abs(self.init)) ** (2 - 2 / self.depth)
        count = self.depth**2 if self.tied else self.depth
        return float((p.rate_factor(sigma) * (variance + sigma**2) * count * steepest).max())

    def dynamics(self) -> DeepLinear:
        """The theory of this module's training, one update of the optimizer as the unit of time."""
        return DeepLinear(self._objective, self.init, self.depth, self.tied)

    def departures(self) -> list[Departure]:
        """Mini-batches, and a mean of the data."""
        mean, _ = self._moments_or_zero()
        if not mean.any():
            return super().departures()
        text = "zero mean of the data assumed, but without a bias the layers learn second moments about zero"
        return [*super().departures(), Departure(text, affects_clock=False)]
