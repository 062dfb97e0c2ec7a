"""The solvable denoiser: one affine map per noise level."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from spectral_lightning.arguments import positive_integer
from spectral_lightning.diffusion import Reduction
from spectral_lightning.models.checks import checked_shape
from spectral_lightning.models.solvable.per_level import PerLevel
from spectral_lightning.models.solvable.solvable import ContinuousNoise, SolvableDenoiser, grid_of
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import OneLayer, Preconditioning

__all__ = ["AffinePerLevel", "LinearDenoiser"]


class AffinePerLevel(PerLevel):
    """``F(x, ln(sigma)/4) = W_sigma x + b_sigma``, independent for each of the given noise levels.

    Args:
        dim: dimension d.
        sigmas: the noise levels; another one raises.
        init: the weights start as ``init`` times the identity, the biases at 0.
        bias: whether there are biases.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> network = AffinePerLevel(2, [1.0, 4.0], init=0.5)
        >>> network(torch.ones(1, 2), torch.tensor([4.0]).log() / 4).tolist()
        [[0.5, 0.5]]
    """

    def __init__(self, dim: int, sigmas: Sequence[float], init: float = 0.0, bias: bool = True) -> None:
        super().__init__(sigmas)
        positive_integer("dim", dim)
        self.weight = nn.Parameter(init * torch.eye(dim).expand(len(sigmas), dim, dim).clone())
        self.bias = nn.Parameter(torch.zeros(len(sigmas), dim)) if bias else None

    def affine(self) -> tuple[Tensor, Tensor]:
        """Weights ``[L, d, d]`` and biases ``[L, d]``."""
        return self.weight, self.weight.new_zeros(self.weight.shape[:2]) if self.bias is None else self.bias

    def at_level(self, x: Tensor, level: int) -> Tensor:
        """``[B, *S]`` to the same."""
        y = x.flatten(1) @ self.weight[level].T
        return (y if self.bias is None else y + self.bias[level]).reshape(x.shape)


class LinearDenoiser(SolvableDenoiser):
    """Independent affine denoisers per noise level, whose learning is known in closed form (``OneLayer``).

    ``D(z; sigma) = c_skip z + c_out (W_sigma c_in z + b_sigma)``, ``W_sigma = init I`` before training; trained on the
    expected loss or on samples as :class:`SolvableDenoiser` says.

    Reference: Wang & Pehlevan 2025, section 4.2 (without preconditioning); the rates with it are beyond that paper.

    Args:
        shape: of one example; its d coordinates are flattened.
        sampler: sets the noise levels: those at which sampling evaluates the denoiser.
        sigmas: explicit noise levels instead; sampling then needs a sampler with exactly these.
        init: initial gain of the linear layer.
        bias: whether the layer has one.
        objective: ``"exact"`` descends the expected loss, from the data's moments; ``"samples"`` that of batches.
        preconditioning: coefficients and loss weight; EDM if not given. ``Preconditioning("none")`` is the paper's layer.
        reduction: over coordinates, ``"sum"`` (the theory's) or ``"mean"`` (which divides every rate by d).
        optimizer: plain gradient descent at 0.1 if not given.
        lr_scheduler: makes a scheduler, stepped after every update, from the optimizer.
        noise: its density of log sigma sets how often each level is trained; equally if not given. A rarely trained level
            is hardly learnt: EDM's density at sigma = 80 is 2e-5 of its largest.

    Raises:
        ValueError: for an argument out of range; when training starts, for a learning rate at which descent diverges or
            an exact objective without moments.

    Example:
        >>> LinearDenoiser([1, 4, 4], sigmas=[1.0, 4.0]).network.weight.shape
        torch.Size([2, 16, 16])
    """

    def __init__(
        self,
        shape: list[int] | int,
        sampler: Sampler | None = None,
        sigmas: list[float] | None = None,
        init: float = 0.0,
        bias: bool = True,
        objective: Literal["exact", "samples"] = "exact",
        preconditioning: Preconditioning | None = None,
        reduction: Reduction = "sum",
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        noise: ContinuousNoise | None = None,
    ) -> None:
        sizes = checked_shape(shape)
        grid, levels = grid_of(sampler, sigmas)
        network = AffinePerLevel(torch.Size(sizes).numel(), levels, init, bias)
        descent = optimizer or partial(torch.optim.SGD, lr=0.1)
        super().__init__(network, sizes, grid, objective, preconditioning, reduction, descent, lr_scheduler, noise)
        self.init, self.bias = init, bias

    def stable_learning_rate(self) -> float:
        """Largest learning rate at which descent converges for these levels and moments.

        One over the largest eigenvalue, over all levels, of half the loss's second derivative by ``[W b]``,
        ``p weight c_out^2 [[c_in^2 (Sigma + sigma^2 I + mu mu'), c_in mu], [c_in mu', 1]]``.

        1.56e-4 without preconditioning at sigma = 80, whatever the data.
        """
        curvature = [self._curvature(sigma) for sigma in self.sigma_grid]
        return self._slowdown / max(p * c for p, c in zip(self._often, curvature, strict=True))

    def _curvature(self, sigma: float) -> float:
        p, (mean, covariance) = self.preconditioning, self._moments_or_zero()
        # The bias is the weight of one more input, which is always 1.
        inputs = torch.cat([p.c_in(sigma) * mean, torch.ones(1, dtype=mean.dtype)])
        second = torch.outer(inputs, inputs)
        second[:-1, :-1] += p.c_in(sigma) ** 2 * (covariance + sigma**2 * torch.eye(self.dim, dtype=mean.dtype))
        trained = second if self.bias else second[:-1, :-1]
        return float(p.bias_rate_factor(sigma) * torch.linalg.eigvalsh(trained)[-1])

    def dynamics(self) -> OneLayer:
        """The closed form of this module's training, one update of the optimizer as the unit of time."""
        return OneLayer(self._objective, self.init)
