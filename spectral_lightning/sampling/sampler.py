"""A sampler as one value: a solver and its noise levels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from spectral_lightning.arguments import one_of, positive, positive_integer
from spectral_lightning.sampling.solvers import SOLVERS

__all__ = ["Sampler", "angular_sigmas", "karras_sigmas"]


def karras_sigmas(
    num_steps: int = 18, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0, final: str = "zero"
) -> tuple[float, ...]:
    """Noise levels of the EDM sampler, from ``sigma_max`` downwards: ``num_steps + 1`` values, ``num_steps`` steps.

    ``sigma_i = (sigma_max^(1/rho) + i/(n-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho`` for i = 0 .. n-1.

    With ``final="zero"`` the n = ``num_steps`` levels end at ``sigma_min`` and a last step goes on to exactly 0, as in
    EDM; with ``final="sigma_min"`` the n = ``num_steps + 1`` levels end at ``sigma_min`` and nothing follows.

    Reference: Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models*, 2022, equation 5.

    Args:
        num_steps: number of solver steps; at least 2.
        sigma_min: lowest positive noise level.
        sigma_max: noise level at which sampling starts.
        rho: larger values put more levels near ``sigma_min``.
        final: where the last step ends, ``"zero"`` or ``"sigma_min"``.

    Raises:
        ValueError: for an argument out of range, or ``sigma_min >= sigma_max``.

    Example:
        >>> [round(s, 3) for s in karras_sigmas(3, 0.01, 10.0, 7.0, final="zero")]
        [10.0, 0.718, 0.01, 0.0]
    """
    one_of("final", final, ("zero", "sigma_min"))
    num_steps, rho = positive_integer("num_steps", num_steps, minimum=2), positive("rho", rho)
    sigma_min, sigma_max = positive("sigma_min", sigma_min), positive("sigma_max", sigma_max)
    if sigma_min >= sigma_max:
        raise ValueError(f"`sigma_min` must be below `sigma_max`, got {sigma_min!r} and {sigma_max!r}.")
    count = num_steps if final == "zero" else num_steps + 1
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    levels = [(top + i / (count - 1) * (bottom - top)) ** rho for i in range(count)]
    levels[0], levels[-1] = sigma_max, sigma_min
    return (*levels, 0.0) if final == "zero" else tuple(levels)


def angular_sigmas(
    num_steps: int = 8, sigma_max: float = 80.0, scale: float = 1.0, grading: float = 1.375
) -> tuple[float, ...]:
    """Noise levels of the Adams solver, from ``sigma_max`` down to 0: ``num_steps + 1`` values.

    ``sigma_i = scale tan(theta_i)`` with ``theta_i = atan(sigma_max / scale) (1 - i / num_steps)^grading``.

    Args:
        num_steps: number of solver steps; at least 2.
        sigma_max: noise level at which sampling starts.
        scale: noise level at which the angle is 45 degrees.
        grading: larger values put more levels near 0.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> [round(s, 3) for s in angular_sigmas(4)]
        [80.0, 1.74, 0.685, 0.236, 0.0]
    """
    num_steps, sigma_max = positive_integer("num_steps", num_steps, minimum=2), positive("sigma_max", sigma_max)
    scale, grading = positive("scale", scale), positive("grading", grading)
    top = math.atan2(sigma_max, scale)
    between = (scale * math.tan(top * (1 - i / num_steps) ** grading) for i in range(1, num_steps))
    return (sigma_max, *between, 0.0)


@dataclass(frozen=True)
class Sampler:
    """Deterministic sampling from ``z ~ N(0, sigma_max^2 I)`` down the probability-flow ODE.

    The sampler is part of every measurement: with few steps even the exact denoiser does not reproduce the variances of
    the data. The levels are ``grid``, or those of :func:`angular_sigmas` for the Adams solver and of :func:`karras_sigmas`
    for the others.

    Args:
        solver: ``"adams"`` (third order, one evaluation a step), ``"heun"`` (second order, two) or ``"euler"`` (first order).
        num_steps: number of solver steps.
        sigma_min: lowest positive noise level; not used by Adams.
        sigma_max: noise level at which sampling starts.
        rho: spacing of the levels; larger values put more near ``sigma_min``; not used by Adams.
        final: where the last step ends, ``"zero"`` or ``"sigma_min"``; Adams always goes to zero.
        grid: strictly decreasing noise levels that replace all arguments but ``solver`` and ``scale``; may end at 0.
        scale: of the Adams solver's angle; about twice the data's standard deviation is best for 8 steps.
        grading: spacing of the Adams solver's levels; larger values put more near 0.

    Raises:
        ValueError: for an unknown name, or levels that are not positive and strictly decreasing.

    Example:
        >>> sampler = Sampler(num_steps=18)
        >>> round(sampler(lambda z, sigma: z / (1 + sigma**2), 80.0), 3)  # exact denoiser of unit variance
        1.045
    """

    solver: Literal["heun", "euler", "adams"] = "heun"
    num_steps: int = 18
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    final: Literal["zero", "sigma_min"] = "zero"
    grid: tuple[float, ...] | None = None
    scale: float = 1.0
    grading: float = 1.375

    def __post_init__(self) -> None:
        one_of("solver", self.solver, SOLVERS)
        positive("scale", self.scale)
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
        if self.solver == "adams":
            return angular_sigmas(self.num_steps, self.sigma_max, self.scale, self.grading)
        return karras_sigmas(self.num_steps, self.sigma_min, self.sigma_max, self.rho, self.final)

    @property
    def levels(self) -> tuple[float, ...]:
        """The noise levels at which the denoiser is evaluated; only a Heun step evaluates its end."""
        looks_at_end = self.solver == "heun" and self.sigmas[-1] > 0
        return self.sigmas if looks_at_end else self.sigmas[:-1]

    @property
    def start(self) -> float:
        """The highest noise level, the standard deviation of the initial state."""
        return self.sigmas[0]

    @property
    def evaluations(self) -> int:
        """Number of denoiser evaluations for one sample."""
        steps = len(self.sigmas) - 1
        return 2 * steps - (self.sigmas[-1] == 0) if self.solver == "heun" else steps

    def describe(self) -> str:
        """One line for logs and files."""
        ends = f"{self.start:g} to {self.sigmas[-1]:g}"
        return f"{self.solver}, {len(self.sigmas) - 1} steps from sigma = {ends}, {self.evaluations} evaluations"

    def __call__(self, denoiser: Callable[[Any, float], Any], z: Any) -> Any:
        """Integrate ``z``, given at :attr:`start`, to the last noise level."""
        options = {"scale": self.scale} if self.solver == "adams" else {}
        return SOLVERS[self.solver](denoiser, z, self.sigmas, **options)
