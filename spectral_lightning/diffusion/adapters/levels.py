"""The noise levels that a network accepts: a discrete grid, or the path of a continuous time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from spectral_lightning.arguments import one_of, positive_integer
from spectral_lightning.diffusion.loss import DDPMNoise

__all__ = ["NAMED_SCHEDULES", "LevelGrid", "ScheduleTime"]

NAMED_SCHEDULES = ("linear", "scaled-linear", "cosine")

Values = Literal["alphas_cumprod", "betas", "sigmas"]


class LevelGrid:
    """The levels ``sigma_i = sqrt((1 - abar_i) / abar_i)`` of a network that takes the index i.

    Infinite levels (``abar_i = 0``, zero terminal signal-to-noise ratio) and levels of zero are left out; the others
    keep their index. A level off the grid raises; nothing is rounded.

    Reference: Ho et al. 2020, equation 4; Lin et al. 2024 (zero terminal signal-to-noise ratio).

    Args:
        values: one number per index.
        kind: meaning of the numbers, ``"alphas_cumprod"``, ``"betas"`` or ``"sigmas"``, the levels themselves.
        sigma_min: drops lower levels.
        sigma_max: drops higher levels.

    Attributes:
        levels: the levels, ascending, float64 on the CPU.
        indices: the index of each level.
        size: number of indices, including those of dropped levels.

    Raises:
        ValueError: if fewer than two levels are left, or they are not monotonic.

    Example:
        >>> grid = LevelGrid([0.8, 0.5, 0.0])
        >>> len(grid.sigmas), grid.locate(torch.tensor([1.0, 0.5])).tolist()
        (2, [1, 0])
    """

    def __init__(
        self,
        values: Tensor | Sequence[float],
        kind: Values = "alphas_cumprod",
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
    ) -> None:
        one_of("schedule_values", kind, ("alphas_cumprod", "betas", "sigmas"))
        given = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
        abar = torch.cumprod(1 - given, 0) if kind == "betas" else given
        sigma = given if kind == "sigmas" else ((1 - abar) / abar).sqrt()
        steps = sigma.diff()
        if given.ndim != 1 or not ((steps > 0).all() or (steps < 0).all()) or torch.isnan(sigma).any():
            raise ValueError(
                f"`schedule` must give monotonic noise levels, got {kind} of shape {tuple(given.shape)} from "
                f"{given.flatten()[0]:g} to {given.flatten()[-1]:g}. "
                "Set `schedule_values` to what its numbers are: alphas_cumprod, betas or sigmas."
            )
        keep = torch.isfinite(sigma) & (sigma > 0) & (sigma >= sigma_min) & (sigma <= sigma_max)
        self.size = len(given)
        self.levels, order = sigma[keep].sort()
        self.indices = torch.arange(self.size)[keep][order]
        if len(self.levels) < 2:
            raise ValueError(
                f"`schedule` must hold at least two finite noise levels, got {len(self.levels)} of {self.size}."
            )

    @classmethod
    def named(cls, name: str, num_steps: int = 1000, sigma_min: float = 0.0, sigma_max: float = math.inf) -> LevelGrid:
        """The schedule of DDPM (``"linear"``), Stable Diffusion (``"scaled-linear"``) or improved DDPM (``"cosine"``)."""
        one_of("schedule", name, NAMED_SCHEDULES)
        if name == "scaled-linear":
            count = positive_integer("num_train_steps", num_steps)
            betas = torch.linspace(0.00085**0.5, 0.012**0.5, count, dtype=torch.float64) ** 2
            return cls(betas, "betas", sigma_min, sigma_max)
        levels = DDPMNoise("linear" if name == "linear" else "cosine", num_steps).sigmas
        return cls(levels, "sigmas", sigma_min, sigma_max)

    @property
    def sigmas(self) -> tuple[float, ...]:
        """All levels, ascending."""
        return tuple(self.levels.tolist())

    def locate(self, sigma: Tensor) -> Tensor:
        """Position of each of ``sigma [B]`` among :attr:`sigmas`.

        Raises:
            ValueError: for a level that is not on the grid.
        """
        asked = sigma.detach().cpu().double()
        above = torch.searchsorted(self.levels, asked).clamp(1, len(self.levels) - 1)
        nearest = torch.where(asked - self.levels[above - 1] < self.levels[above] - asked, above - 1, above)
        # Levels arrive rounded to float32 (6e-8); neighbours of a 1000-step schedule lie 5e-3 apart.
        off = (asked / self.levels[nearest] - 1).abs() > 1e-5
        if bool(off.any()):
            raise ValueError(
                f"`sigma` must be one of the {len(self.levels)} noise levels of the network's own grid, "
                f"{self.sigmas[0]:.4g} to {self.sigmas[-1]:.4g}, got {asked[off][0].item():g}. Pass noise levels, not "
                "indices, and sample with the denoiser's `sampler`, which stays on the grid."
            )
        return nearest

    def by_index(self) -> Tensor:
        """The level of every index, ``[size]``; NaN for those left out."""
        table = torch.full((self.size,), math.nan, dtype=torch.float64)
        table[self.indices] = self.levels
        return table

    def closest(self, wanted: Sequence[float]) -> tuple[float, ...]:
        """Distinct levels of the grid, descending, each as close to one of ``wanted``, descending, as the grid allows."""
        count, total = len(wanted), len(self.levels)
        if count > total:
            raise ValueError(f"`num_steps` must be at most {total}, the size of the network's grid, got {count!r}.")
        nearest = np.abs(np.log(self.levels.numpy())[:, None] - np.log(wanted)[::-1]).argmin(0)
        rank = np.arange(count)
        # Strictly rising even where `wanted` is denser than the grid.
        apart = np.maximum.accumulate(nearest - rank) + rank
        chosen = np.minimum(apart, total - count + rank)
        return tuple(self.levels[torch.from_numpy(chosen)].flip(0).tolist())


class ScheduleTime:
    """The time t at which a schedule ``t -> (alpha, sigma)`` has a given ratio ``sigma(t) / alpha(t)``, by bisection.

    Args:
        schedule: maps float64 times ``[B]`` to ``alpha`` and ``sigma``; the ratio is monotonic from 0 to 1.

    Example:
        >>> straight = ScheduleTime(lambda t: (1 - t, t))
        >>> straight(torch.tensor([1.0], dtype=torch.float64)).item()
        0.5
    """

    def __init__(self, schedule: Callable[[Tensor], Any]) -> None:
        self.schedule = schedule
        first, last = self._ratio(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        self.rises = last > first
        self.sigma_min, self.sigma_max = sorted((first, last))

    def __call__(self, sigma: Tensor) -> Tensor:
        """Times ``[B]`` of ``sigma [B]``, float64 on the CPU."""
        asked = sigma.detach().cpu().double()
        low, high = torch.zeros_like(asked), torch.ones_like(asked)
        for _ in range(64):  # down to neighbouring floats
            middle = (low + high) / 2
            later = (self._ratio(middle) < asked) == self.rises
            low, high = torch.where(later, middle, low), torch.where(later, high, middle)
        return (low + high) / 2

    def alpha(self, time: Tensor) -> Tensor:
        """Factor on the data, ``[B]``, at ``time [B]``."""
        return torch.as_tensor(self.schedule(time)[0]).detach().cpu().double()

    def _ratio(self, time: Tensor) -> Tensor:
        alpha, sigma = (torch.as_tensor(part).detach().cpu().double() for part in self.schedule(time))
        return sigma / alpha
