"""Solvers of the probability-flow ODE ``dz/dsigma = (z - D(z; sigma)) / sigma``.

One function per method, ``solver(denoiser, z, sigmas) -> z``. ``denoiser(z, sigma)`` gets the state and a Python float;
the state may be of any type with ``+ - * /``. A step to ``sigma = 0`` is an Euler step in every method, because the
right-hand side does not exist there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["SOLVERS", "euler", "heun"]


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
