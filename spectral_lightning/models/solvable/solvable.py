"""The base of the denoisers with a solvable theory: the exact objective and its unit of time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from spectral_lightning.arguments import one_of
from spectral_lightning.diffusion import Departure, GridNoise, LogNormalNoise, Reduction, UniformTimeNoise
from spectral_lightning.models.checks import checked_shape
from spectral_lightning.models.module import DiffusionModule
from spectral_lightning.models.solvable.per_level import PerLevel
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import HasPopulationMoments, HasTrainingMoments
from spectral_lightning.theory import LearningDynamics, Objective, Preconditioning

__all__ = ["ContinuousNoise", "RelativeDensity", "SolvableDenoiser"]

ContinuousNoise = LogNormalNoise | UniformTimeNoise
"""Noise with a density of log sigma."""


@dataclass(frozen=True, repr=False)
class RelativeDensity:
    """Density of log sigma divided by its mean over some levels: how often each is drawn, relative to equal probabilities.

    Attributes:
        noise: the density.
        sigmas: the levels.

    Example:
        >>> float(RelativeDensity(LogNormalNoise(mean=0.0, std=1.0), (1.0, 1e9))(1.0))
        2.0
    """

    noise: ContinuousNoise
    sigmas: tuple[float, ...]

    def __call__(self, sigma: Any) -> Any:
        """At ``sigma``, a float or NumPy array."""
        return self.noise.density(sigma) / float(np.mean(self.noise.density(np.array(self.sigmas))))

    def __repr__(self) -> str:
        settings = ", ".join(f"{k}={v!r}" for k, v in vars(self.noise).items())
        return f"RelativeDensity({type(self.noise).__name__}({settings}), {len(self.sigmas)} levels)"


class SolvableDenoiser(DiffusionModule, ABC):
    """Independent affine denoisers per noise level, trained on the expected loss or on samples.

    ``D(z; sigma) = c_skip z + c_out (W_sigma c_in z + b_sigma)`` on flattened data. With the data's moments,

    ``L = sum_sigma p(sigma) weight(sigma) (tr[(A-I) Sigma (A-I)'] + sigma^2 ||A||^2 + ||(A-I) mu + c_out b||^2)``,

    ``A = c_skip I + c_out c_in W``, whatever parameters make up W and b: this is ``objective="exact"``, for which batches only
    count the steps. ``objective="samples"`` trains like any other denoiser, at the levels of the grid with equal
    probability, ``p = 1``. With ``noise`` their probabilities are in proportion to its density of log sigma, and p is 1 on
    average over the levels, so that every rate is multiplied by p. The sampler still chooses the levels.

    Args:
        network: makes the affine maps, one per noise level, from the levels.
        shape: of one example.
        sampler: sets the noise levels: those at which sampling evaluates the denoiser.
        sigmas: explicit noise levels instead; sampling then needs a sampler with exactly these.
        default_rate: learning rate of the default optimizer.
        noise: a density that sets how often each level is trained; equally if not given.
        objective: ``"exact"`` descends the expected loss, from the data's moments by dense matrices ``[d, d]``;
            ``"samples"`` that of batches.
        preconditioning: coefficients and loss weight; EDM if not given. ``Preconditioning("none")`` is the paper's.
        reduction: over pixels and channels, ``"sum"`` (the theory's) or ``"mean"`` (which divides every rate by d).
        optimizer: makes the optimizer from the parameters; plain gradient descent if not given, at 0.1 (linear), 0.02
            (deep linear), 0.1 / N (full-width convolution) or 0.02 / N (local convolution).
        lr_scheduler: makes a scheduler, stepped after every update, from the optimizer.

    Raises:
        ValueError: for an argument out of range, or ``noise`` without density at any level; when training starts, for a
            learning rate at which descent diverges or an exact objective without moments.
    """

    network: PerLevel

    def __init__(
        self,
        network: Callable[[list[float]], PerLevel],
        shape: Sequence[int] | int,
        sampler: Sampler | None,
        sigmas: list[float] | None,
        default_rate: float,
        noise: ContinuousNoise | None,
        objective: Literal["exact", "samples"] = "exact",
        preconditioning: Preconditioning | None = None,
        reduction: Reduction = "sum",
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        one_of("objective", objective, ("exact", "samples"))
        grid = sampler or Sampler()
        levels = network(list(grid.levels) if sigmas is None else list(sigmas))
        density = None if noise is None else [float(noise.density(sigma)) for sigma in levels.sigmas]
        drawn = GridNoise(levels.sigmas, density)
        descent = optimizer or partial(torch.optim.SGD, lr=default_rate)
        super().__init__(levels, preconditioning, drawn, reduction, descent, lr_scheduler)
        self.shape, self.sampler, self.objective = checked_shape(shape), grid, objective
        self.sigma_grid = levels.sigmas
        self.noise_density = None if noise is None else RelativeDensity(noise, levels.sigmas)
        self._often = [1.0 if noise is None else len(levels.sigmas) * p for p in drawn.probabilities]
        self._moments: tuple[Tensor, Tensor] | None = None

    @abstractmethod
    def dynamics(self) -> LearningDynamics:
        """The closed form of this module's training, one update of the optimizer as the unit of time."""

    @abstractmethod
    def stable_learning_rate(self) -> float:
        """Largest learning rate at which descent converges for these levels and moments (zero if not yet known)."""

    @property
    def dim(self) -> int:
        """Number of coordinates d of the data."""
        return int(torch.Size(self.shape).numel())

    def set_moments(self, mean: Tensor, covariance: Tensor) -> None:
        """Set the data's moments ``[d]`` and ``[d, d]``, from which the exact objective is computed."""
        if mean.shape != (self.dim,) or covariance.shape != (self.dim, self.dim):
            raise ValueError(
                f"`mean` and `covariance` must have shapes ({self.dim},) and ({self.dim}, {self.dim}), "
                f"got {tuple(mean.shape)} and {tuple(covariance.shape)}."
            )
        self._moments = (mean, covariance)

    def setup(self, stage: str) -> None:
        """Take the datamodule's moments of the population, else of the training set; refuse a rate that diverges."""
        super().setup(stage)
        if stage != "fit" or self.objective != "exact":
            return
        datamodule = getattr(self.trainer, "datamodule", None)
        if self._moments is None and isinstance(datamodule, HasPopulationMoments):
            self.set_moments(*datamodule.population_moments())
        elif self._moments is None and isinstance(datamodule, HasTrainingMoments):
            self.set_moments(*datamodule.training_moments())
        if self._moments is None:
            raise ValueError(
                "`objective='exact'` needs the data's moments: use a datamodule with `population_moments()` or "
                "`training_moments()`, such as GaussianDataModule and PatchDataModule, call "
                "`set_moments(mean, covariance)`, or train with objective='samples'."
            )
        limit = self.stable_learning_rate()
        plain = isinstance(self.optimizer([nn.Parameter(torch.zeros(1))]), torch.optim.SGD)
        if plain and self.initial_learning_rate() > limit:
            raise ValueError(
                f"`lr` must be at most {limit:.3g} for gradient descent to converge at every noise level and mode, got "
                f"{self.initial_learning_rate():g}. Lower it, or precondition (Preconditioning('edm'))."
            )

    def expected_loss(self) -> Tensor:
        """The exact objective, summed over the noise levels with weights p."""
        if self._moments is None:
            raise ValueError("`set_moments` must be called before `expected_loss`.")
        weight, bias = self.network.affine()
        sigma = torch.tensor(self.sigma_grid, dtype=weight.dtype, device=weight.device)[:, None, None]
        mean, covariance = (m.to(weight) for m in self._moments)
        p, eye = self.preconditioning, torch.eye(self.dim, dtype=weight.dtype, device=weight.device)
        a = p.c_skip(sigma) * eye + p.c_out(sigma) * p.c_in(sigma) * weight
        shift = (a - eye) @ mean + p.c_out(sigma)[:, :, 0] * bias
        error = (((a - eye) @ covariance) * (a - eye)).sum((1, 2))
        error = error + sigma[:, 0, 0] ** 2 * a.square().sum((1, 2)) + shift.square().sum(1)
        loss: Tensor = (sigma.new_tensor(self._often) * p.loss_weight(sigma[:, 0, 0]) * error).sum()
        return loss / self.dim if self.reduction == "mean" else loss

    def loss(self, batch: Any) -> Tensor:
        """The exact objective, or that of a batch."""
        return self.expected_loss() if self.objective == "exact" else super().loss(batch)

    def departures(self) -> list[Departure]:
        """None for the exact objective; mini-batches otherwise."""
        if self.objective == "exact":
            return []
        return [Departure("full-batch gradients assumed, mini-batches of noisy samples used", affects_clock=False)]

    def _moments_or_zero(self) -> tuple[Tensor, Tensor]:
        """The moments in double precision on the CPU."""
        if self._moments is None:
            return torch.zeros(self.dim, dtype=torch.float64), torch.zeros(self.dim, self.dim, dtype=torch.float64)
        mean, covariance = (m.detach().double().cpu() for m in self._moments)
        return mean, covariance

    @property
    def _slowdown(self) -> float:
        """The factor by which a mean over coordinates, and over a batch of levels, reduces the learning rate."""
        levels = len(self.sigma_grid) if self.objective == "samples" else 1
        return levels * (self.dim if self.reduction == "mean" else 1)

    @property
    def _objective(self) -> Objective:
        """This module's loss in the theory's terms: summed over coordinates and levels."""
        return Objective(
            self.initial_learning_rate() / self._slowdown,
            self.preconditioning,
            self.noise_density,
            discrete=True,
            sigma_min=min(self.sigma_grid),
            sigma_max=max(self.sigma_grid),
        )
