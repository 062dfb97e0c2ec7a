"""Solvers of the probability-flow ODE ``dz/dsigma = (z - D(z; sigma)) / sigma``.

One function per method, ``solver(denoiser, z, sigmas) -> z``. ``denoiser(z, sigma)`` gets the state and a Python float;
the state may be of any type with ``+ - * /``. None evaluates the denoiser at ``sigma = 0``, where the right-hand side does
not exist: the last step of Euler and Heun is an Euler step, that of Adams an extrapolation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["SOLVERS", "adams", "euler", "heun"]

_PREDICTED, _CORRECTED = 3, 4  # slopes used by the predictor and by the corrector


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


def adams(denoiser: Callable[[Any, float], Any], z: Any, sigmas: Sequence[float], scale: float = 1.0) -> Any:
    """Third order in the angle ``theta = atan(sigma / scale)``, one evaluation a step.

    With ``r^2 = sigma^2 + scale^2`` and ``y = z / r`` the flow is ``dy/dtheta = -F``,
    ``F = (D - z scale^2 / r^2) r / (sigma scale)``: what an EDM network with ``sigma_data = scale`` predicts, bounded and
    smooth at all noise levels. Each step extrapolates F through three points (Adams-Bashforth), evaluates it, and repeats
    the step with F interpolated through four (Adams-Moulton), without a further evaluation. The first steps use the points
    that exist.

    Args:
        denoiser: ``D(z, sigma)``.
        z: the state at ``sigmas[0]``.
        sigmas: decreasing noise levels; the last may be 0.
        scale: noise level at which the angle is 45 degrees.
    """
    angles = [math.atan2(sigma, scale) for sigma in sigmas]
    y = ahead = z / math.hypot(sigmas[0], scale)
    slopes: list[Any] = []
    for i, (sigma, angle) in enumerate(zip(sigmas[:-1], angles[:-1], strict=True)):
        r = math.hypot(sigma, scale)
        z = ahead * r
        slopes = [(z * (scale / r) ** 2 - denoiser(z, sigma)) * (r / (sigma * scale)), *slopes][:_CORRECTED]
        seen = angles[i::-1]
        if i > 0:
            y = _step(y, slopes, seen, angles[i - 1], angle)
        ahead = _step(y, slopes[:_PREDICTED], seen, angle, angles[i + 1])
    return ahead * math.hypot(sigmas[-1], scale)


def _step(y: Any, slopes: Sequence[Any], angles: Sequence[float], start: float, stop: float) -> Any:
    """``y`` plus the integral from ``start`` to ``stop`` of the polynomial through the slopes at ``angles``."""
    at = [angle - start for angle in angles[: len(slopes)]]
    for i, slope in enumerate(slopes):
        power = [1.0]  # coefficients of the Lagrange polynomial, rising
        for other in (*at[:i], *at[i + 1 :]):
            shifted, scaled = [0.0, *power], [*(other * c for c in power), 0.0]
            power = [(a - b) / (at[i] - other) for a, b in zip(shifted, scaled, strict=True)]
        y = y + slope * sum(c * (stop - start) ** (k + 1) / (k + 1) for k, c in enumerate(power))
    return y


SOLVERS: dict[str, Callable[..., Any]] = {"adams": adams, "euler": euler, "heun": heun}
