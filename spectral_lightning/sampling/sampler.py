"""Solvers of the probability-flow ODE ``dz/dsigma = (z - D(z; sigma)) / sigma``, and a sampler as one value.

A solver is a function ``solver(denoiser, z, sigmas) -> z``. ``denoiser(z, sigma)`` gets the state and a Python float; the
state may be of any type with ``+ - * /``. A step to ``sigma = 0`` is an Euler step in every method, because the right-hand
side does not exist there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from spectral_lightning.arguments import one_of, positive, positive_integer

__all__ = ["SOLVERS", "Sampler", "euler", "heun", "karras_sigmas"]


def euler(denoiser: Callable[[Any, float], Any], z: Any, sigmas: Sequence[float]) -> Any:
    """First order: ``z += (sigma' - sigma) (z - D(z; sigma)) / sigma``; one evaluation a step."""
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        z = z + (z - denoiser(z, sigma)) * ((following - sigma) / sigma)
    return z


def heun(denoiser: Callable[[Any, float], Any], z: Any, sigmas: Sequence[float]) -> Any:
    """Second order, the trapezoidal rule after an Euler step: two evaluations a step, one for a last step to 0.

    Reference: Karras et al. 2022, algorithm 1.
    """
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        noise = z - denoiser(z, sigma)
        ahead = z + noise * ((following - sigma) / sigma)  # the factor is exactly -1 for a step to 0
        if following > 0:
            noise_ahead = ahead - denoiser(ahead, following)
            ahead = z + (noise / sigma + noise_ahead / following) * ((following - sigma) / 2)
        z = ahead
    return z


SOLVERS: dict[str, Callable[[Callable[[Any, float], Any], Any, Sequence[float]], Any]] = {"euler": euler, "heun": heun}


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
