"""The rules by which emergence is judged: one set, the same for every run, experiment and page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.arguments import fraction, non_negative, positive, positive_integer

__all__ = ["RULES", "Rules"]


@dataclass(frozen=True)
class Rules:
    """When the data support a conclusion.

    Args:
        min_modes: fewer modes that crossed at a known time give no exponent.
        min_decades: a narrower range of their variance gives no exponent.
        max_curvature: a quadratic term of more than this many standard deviations means that there is no single exponent;
            local exponents are given instead.
        least_bend: and only if the local exponents at a small and a large variance differ by more than this: without scatter,
            a deviation of 1e-3 is significant.
        confidence: coverage of intervals.
        errors: standard errors by which a curve must go back, or pass its target, to be named.
        least_change: change of log variance below which neither is named.
        begun: a mode has begun once it has gone this share of the way to its threshold, in log variance, beyond the errors.
        stall_factor: a mode that has begun and has not moved during this last factor in steps never crosses.
        stall_share: the most that it may have moved then, as a share of its whole way so far.

    Raises:
        ValueError: for a value out of range.
    """

    min_modes: int = 10
    min_decades: float = 1.0
    max_curvature: float = 3.0
    least_bend: float = 0.1
    confidence: float = 0.95
    errors: float = 3.0
    least_change: float = 0.1
    begun: float = 0.1
    stall_factor: float = 3.0
    stall_share: float = 0.1

    def __post_init__(self) -> None:
        positive_integer("min_modes", self.min_modes, minimum=6, remedy="A parabola with an error needs six points.")
        non_negative("min_decades", self.min_decades)
        for name in ("max_curvature", "least_bend", "errors", "least_change", "stall_factor"):
            positive(name, getattr(self, name))
        fraction("confidence", self.confidence)
        fraction("begun", self.begun)
        fraction("stall_share", self.stall_share)

    def curved(self, curvature: ArrayLike, bend: ArrayLike) -> NDArray[np.bool_]:
        """Whether there is no single exponent: the quadratic term in standard deviations, the difference of local exponents."""
        return np.asarray((np.abs(curvature) > self.max_curvature) & (np.abs(bend) > self.least_bend))


RULES = Rules()
"""Written down before the studies were judged by them, but for ``least_bend``: exact lines were judged curved without it."""
