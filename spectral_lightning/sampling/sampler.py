"""A sampler as one value: a solver and its noise levels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from spectral_lightning.arguments import one_of
from spectral_lightning.sampling.grid import karras_sigmas
from spectral_lightning.sampling.solvers import SOLVERS

__all__ = ["Sampler"]


@dataclass(frozen=True)
class Sampler:
    """Deterministic sampling from ``z ~ N(0, sigma_max^2 I)`` down the probability-flow ODE.

    The sampler is part of every measurement: with few steps even the exact denoiser does not reproduce the variances of
    the data. The levels are those of :func:`karras_sigmas`, or ``grid``.

    Args:
        solver: ``"heun"`` (second order) or ``"euler"`` (first order).
        num_steps: number of solver steps.
        sigma_min: lowest positive noise level.
        sigma_max: noise level at which sampling starts.
        rho: spacing of the levels; larger values put more near ``sigma_min``.
        final: where the last step ends, ``"zero"`` or ``"sigma_min"``.
        grid: strictly decreasing noise levels that replace all arguments but ``solver``; may end at 0.

    Raises:
        ValueError: for an unknown name, or levels that are not positive and strictly decreasing.

    Example:
        >>> sampler = Sampler(num_steps=18)
        >>> round(sampler(lambda z, sigma: z / (1 + sigma**2), 80.0), 3)  # exact denoiser of unit variance
        1.045
    """

    solver: Literal["heun", "euler"] = "heun"
    num_steps: int = 18
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    final: Literal["zero", "sigma_min"] = "zero"
    grid: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        one_of("solver", self.solver, SOLVERS)
        if self.grid is not None:  # a list, from YAML, would make the sampler unhashable and unequal to its twin
            object.__setattr__(self, "grid", tuple(float(level) for level in self.grid))
        levels = self.sigmas
        falling = all(a > b for a, b in zip(levels[:-1], levels[1:], strict=True))
        if len(levels) < 2 or not falling or levels[-1] < 0 or levels[0] == math.inf:
            raise ValueError(
                f"`grid` must hold at least two finite, strictly decreasing noise levels, none below 0, got {levels!r}."
            )

    @cached_property
    def sigmas(self) -> tuple[float, ...]:
        """All noise levels, decreasing; the last may be 0."""
        if self.grid is not None:
            return self.grid
        return karras_sigmas(self.num_steps, self.sigma_min, self.sigma_max, self.rho, self.final)

    @property
    def levels(self) -> tuple[float, ...]:
        """The noise levels at which the denoiser is evaluated; an Euler step does not evaluate its end."""
        looks_at_end = self.solver != "euler" and self.sigmas[-1] > 0
        return self.sigmas if looks_at_end else self.sigmas[:-1]

    @property
    def start(self) -> float:
        """The highest noise level, the standard deviation of the initial state."""
        return self.sigmas[0]

    @property
    def evaluations(self) -> int:
        """Number of denoiser evaluations for one sample."""
        steps = len(self.sigmas) - 1
        return steps if self.solver == "euler" else 2 * steps - (self.sigmas[-1] == 0)

    def describe(self) -> str:
        """One line for logs and files."""
        ends = f"{self.start:g} to {self.sigmas[-1]:g}"
        return f"{self.solver}, {len(self.sigmas) - 1} steps from sigma = {ends}, {self.evaluations} evaluations"

    def __call__(self, denoiser: Callable[[Any, float], Any], z: Any) -> Any:
        """Integrate ``z``, given at :attr:`start`, to the last noise level."""
        return SOLVERS[self.solver](denoiser, z, self.sigmas)
