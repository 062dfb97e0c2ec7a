"""The denoising loss and the noise levels at which it is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from spectral_lightning.arguments import fraction, one_of, positive, positive_integer
from spectral_lightning.theory import LogNormalDensity, Preconditioning

__all__ = [
    "DDPMNoise",
    "GridNoise",
    "LogNormalNoise",
    "NoiseDistribution",
    "Reduction",
    "UniformTimeNoise",
    "default_noise",
    "denoising_loss",
]

Reduction = Literal["sum", "mean"]


def denoising_loss(
    denoised: Tensor, clean: Tensor, sigma: Tensor, preconditioning: Preconditioning, reduction: Reduction = "mean"
) -> Tensor:
    """``mean over the batch of weight(sigma) ||D - x0||^2``, the square summed or averaged over the coordinates.

    The theory's rates hold for the sum. The mean over d coordinates divides the gradient by d, which slows plain
    gradient descent but not Adam.

    Reference: Karras et al. 2022, equation 8 and table 1.

    Args:
        denoised: output of the denoiser, ``[B, *S]``.
        clean: the data, ``[B, *S]``.
        sigma: noise levels, ``[B]``.
        preconditioning: gives the weight.
        reduction: over the coordinates, ``"sum"`` or ``"mean"``.

    Returns:
        Scalar.

    Raises:
        ValueError: for an unknown reduction.
    """
    one_of("reduction", reduction, ("sum", "mean"))
    square = (denoised - clean).flatten(1).square()
    per_example = square.sum(1) if reduction == "sum" else square.mean(1)
    loss: Tensor = (preconditioning.loss_weight(sigma) * per_example).mean()
    return loss


class NoiseDistribution(Protocol):
    """Draws the noise level of each training example."""

    def sample(self, count: int, device: torch.device) -> Tensor:
        """``count`` noise levels, ``[count]``, from the global generator, as part of the training."""
        ...


def _dtype() -> torch.dtype:
    """At least single precision: half precision would resolve levels to 1 % only."""
    return torch.promote_types(torch.get_default_dtype(), torch.float32)


class LogNormalNoise:
    """``ln sigma ~ N(mean, std^2)``, the training noise of EDM.

    With ``mean=0, std=1`` the flow time ``g = sigma / (1 + sigma)`` is logit-normal, as Stable Diffusion 3 draws it.

    Reference: Karras et al. 2022, table 1 (P_mean, P_std); Esser et al. 2024, section 3.1 (logit-normal).

    Args:
        mean: mean of ln sigma.
        std: standard deviation of ln sigma.

    Raises:
        ValueError: if ``std`` is not above 0.
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2) -> None:
        self.mean, self.std = float(mean), positive("std", std)

    def sample(self, count: int, device: torch.device) -> Tensor:
        """``count`` noise levels, ``[count]``."""
        return (torch.randn(count, device=device, dtype=_dtype()) * self.std + self.mean).exp()

    def density(self, sigma: Any) -> Any:
        """Density of log sigma at ``sigma`` (a float or NumPy array), per natural logarithm."""
        return LogNormalDensity(self.mean, self.std)(sigma)


class UniformTimeNoise:
    """``sigma = g / (1 - g)`` with g uniform in ``[min_time, 1 - min_time]``, the plain time of flow matching.

    This is the ratio of noise to data in ``x_t = (1 - g) x0 + g eps``. The ends are cut off because sigma is 0 at one
    and infinite at the other: levels lie between ``min_time / (1 - min_time)`` and its inverse.

    Reference: Lipman et al. 2023, section 4.1; Liu et al. 2023, equation 1.

    Args:
        min_time: length cut off at either end of the flow's time.

    Raises:
        ValueError: if ``min_time`` does not lie between 0 and 1/2.

    Example:
        >>> UniformTimeNoise(min_time=0.2).density(1.0)
        0.4166666666666667
    """

    def __init__(self, min_time: float = 1e-3) -> None:
        self.min_time = fraction("min_time", min_time)
        if self.min_time >= 0.5:
            raise ValueError(f"`min_time` must be below 1/2, got {min_time!r}: it is cut off at either end.")

    def sample(self, count: int, device: torch.device) -> Tensor:
        """``count`` noise levels, ``[count]``."""
        uniform = torch.rand(count, device=device, dtype=_dtype())
        g = self.min_time + (1 - 2 * self.min_time) * uniform
        return g / (1 - g)

    def density(self, sigma: Any) -> Any:
        """Density of log sigma at ``sigma`` (a float or NumPy array), ``g (1 - g) / (1 - 2 min_time)`` or 0 outside."""
        g = 1 / (1 + 1 / sigma)
        inside = (g >= self.min_time) & (1 - g >= self.min_time)
        return g * (1 - g) / (1 - 2 * self.min_time) * inside


class GridNoise:
    """One of the given noise levels, with equal or given probabilities.

    Args:
        sigmas: the levels; positive.
        probabilities: one per level, up to a common factor, zero or more; equal by default.

    Raises:
        ValueError: for no levels, a level that is not positive, or probabilities that do not fit the levels.

    Example:
        >>> GridNoise([80.0, 1.0], [1.0, 3.0]).probabilities
        (0.25, 0.75)
    """

    def __init__(self, sigmas: Sequence[float], probabilities: Sequence[float] | None = None) -> None:
        if not sigmas:
            raise ValueError("`sigmas` must hold at least one noise level, got none.")
        self.sigmas = tuple(positive("sigmas", float(s)) for s in sigmas)
        self._levels = torch.tensor(self.sigmas, dtype=torch.float64)
        self._shares: Tensor | None = None
        if probabilities is not None:
            shares = torch.tensor(probabilities, dtype=torch.float64)
            fits = shares.shape == self._levels.shape and ((shares >= 0) & (shares < math.inf)).all()
            if not fits or not shares.any():
                raise ValueError(
                    f"`probabilities` must hold {len(self.sigmas)} finite numbers of zero or more, one per level and not "
                    f"all zero, got {tuple(probabilities)!r}."
                )
            self._shares = shares / shares.sum()

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Probability of each level; the sum is 1."""
        return (1 / len(self.sigmas),) * len(self.sigmas) if self._shares is None else tuple(self._shares.tolist())

    def sample(self, count: int, device: torch.device) -> Tensor:
        """``count`` noise levels, ``[count]``."""
        if (self._levels.device, self._levels.dtype) != (device, _dtype()):
            self._levels = torch.tensor(self.sigmas, dtype=_dtype(), device=device)
        if self._shares is None:
            return self._levels[torch.randint(len(self.sigmas), (count,), device=device)]
        shares = self._shares.to(device, _dtype())
        return self._levels[torch.multinomial(shares, count, replacement=True)]


class DDPMNoise:
    """``sigma_i = sqrt((1 - abar_i) / abar_i)`` with i uniform in 1, ..., ``num_steps``, the discrete time of DDPM.

    ``abar_i = prod_(j <= i) (1 - beta_j)``; the betas of ``"linear"`` are evenly spaced from ``beta_start`` to
    ``beta_end``, those of ``"cosine"`` are ``min(1 - f(i) / f(i-1), 0.999)`` with
    ``f(i) = cos^2(pi/2 (i/num_steps + 0.008) / 1.008)``. The levels (:attr:`sigmas`) ascend, from 0.01 to 157 for
    ``"linear"`` and from 0.0064 to 20,291 for ``"cosine"``.

    Reference: Ho et al. 2020, section 4 (linear); Nichol & Dhariwal 2021, equation 17 (cosine).

    Args:
        schedule: ``"linear"`` or ``"cosine"``.
        num_steps: number of levels.
        beta_start: first beta of ``"linear"``.
        beta_end: last beta of ``"linear"``, for any number of levels.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> [round(s, 4) for s in DDPMNoise(num_steps=3, beta_start=0.2, beta_end=0.5).sigmas]
        [0.5, 0.9608, 1.6871]
    """

    def __init__(
        self,
        schedule: Literal["linear", "cosine"] = "linear",
        num_steps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
    ) -> None:
        self.schedule = one_of("schedule", schedule, ("linear", "cosine"))
        steps = positive_integer("num_steps", num_steps)
        if schedule == "linear":
            beta = np.linspace(fraction("beta_start", beta_start), fraction("beta_end", beta_end), steps)
        else:
            share = np.cos(np.pi / 2 * (np.linspace(0, 1, steps + 1) + 0.008) / 1.008) ** 2
            beta = np.minimum(1 - share[1:] / share[:-1], 0.999)
        abar = np.cumprod(1 - beta)
        self._grid = GridNoise(np.sqrt((1 - abar) / abar).tolist())

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The levels, ascending."""
        return self._grid.sigmas

    def sample(self, count: int, device: torch.device) -> Tensor:
        """``count`` noise levels, ``[count]``."""
        return self._grid.sample(count, device)


def default_noise(preconditioning: Preconditioning) -> NoiseDistribution:
    """The training noise of the paper that introduced a preconditioning.

    =================== ==================================== ==========================
    kind                noise                                paper
    =================== ==================================== ==========================
    edm, none, given    ``LogNormalNoise()``                 Karras et al. 2022
    variance_preserving ``DDPMNoise("linear")``              Ho et al. 2020
    velocity, x0        ``DDPMNoise("cosine")``              Salimans & Ho 2022
    flow                ``UniformTimeNoise()``               Lipman et al. 2023
    =================== ==================================== ==========================

    Salimans & Ho use the continuous cosine schedule without offset; most code uses the discrete one given here.
    """
    if preconditioning.kind == "flow":
        return UniformTimeNoise()
    if preconditioning.kind == "variance_preserving":
        return DDPMNoise("linear")
    return DDPMNoise("cosine") if preconditioning.kind in ("velocity", "x0") else LogNormalNoise()
