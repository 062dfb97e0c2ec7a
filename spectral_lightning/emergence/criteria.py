"""Thresholds between the initial and the target variance, and the modes that start too close to the target.

Notation: ``v0`` is the variance of the generated samples before training, ``v1`` the target (the sampler's own fixed
point, or the data's variance). A mode is rising if ``v1 > v0`` and falling if ``v1 < v0``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.arguments import fraction, one_of

__all__ = ["CRITERIA", "Criterion", "StaysWithin", "as_criterion", "direction", "gray_zone", "threshold"]

CRITERIA = ("geometric", "harmonic", "arithmetic")


@dataclass(frozen=True)
class StaysWithin:
    """A criterion: the variance stays within ``share`` of its target from some time on.

    This is the last entry into the band from ``(1 - share) v1`` to ``(1 + share) v1``. Falling modes undershoot their
    target, so that their first passage does not mean that they are learnt.

    Args:
        share: half the width of the band, between 0 and 1.

    Raises:
        ValueError: for a share outside (0, 1).

    Example:
        >>> StaysWithin(0.1).band(2.0)
        (array(1.8), array(2.2))
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        fraction("share", self.share)

    def __str__(self) -> str:
        """As in ``within 10 %``, which :func:`as_criterion` reads."""
        return f"within {100 * self.share:g} %"

    def band(self, target: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper edge, of the shape of ``target``."""
        v1 = np.asarray(target, np.float64)
        return np.asarray((1 - self.share) * v1), np.asarray((1 + self.share) * v1)


Criterion = str | float | StaysWithin
"""A name from :data:`CRITERIA`, a fraction of the target, or a band about it."""


def as_criterion(value: Criterion) -> Criterion:
    """A criterion as given in a file or on the command line: ``"within 10 %"`` is ``StaysWithin(0.1)``.

    Raises:
        ValueError: for an unknown name, or a fraction outside (0, 1).

    Example:
        >>> as_criterion("within 10 %"), as_criterion("harmonic")
        (StaysWithin(share=0.1), 'harmonic')
    """
    if isinstance(value, str) and (found := re.fullmatch(r"within ([0-9.]+) ?%", value.strip())):
        return StaysWithin(float(found[1]) / 100)
    if not isinstance(value, StaysWithin):
        threshold(0.5, 1.0, value)
    return value


def threshold(initial: ArrayLike, target: ArrayLike, criterion: str | float = "geometric") -> NDArray[np.float64]:
    """The variance that a mode must pass to count as learnt, in the broadcast shape of ``initial`` and ``target``.

    - ``"geometric"``: ``sqrt(v0 v1)``; ``"harmonic"``: ``2 v0 v1 / (v0 + v1)``; ``"arithmetic"``: ``(v0 + v1) / 2``;
    - a number f in (0, 1): within a factor f of the target, ``f v1`` for rising and ``v1 / f`` for falling modes.

    Reference: Wang & Pehlevan 2025, figure 3 and appendix (geometric and harmonic means).

    Args:
        initial: variance before training, per mode.
        target: variance at the end of learning, per mode.
        criterion: a name from :data:`CRITERIA`, or a fraction.

    Raises:
        ValueError: for an unknown criterion, a fraction outside (0, 1), or a negative variance.

    Example:
        >>> float(threshold(0.01, 1.0)), round(float(threshold(0.01, 1.0, "harmonic")), 4)
        (0.1, 0.0198)
    """
    v0, v1 = np.broadcast_arrays(np.asarray(initial, np.float64), np.asarray(target, np.float64))
    if (v0 < 0).any() or (v1 < 0).any():
        raise ValueError("`initial` and `target` must be variances of zero or more, got a negative one.")
    if not isinstance(criterion, str):
        f = fraction("criterion", criterion, remedy=f"Or choose one of {CRITERIA}.")
        return np.asarray(np.where(v1 >= v0, f * v1, v1 / f))
    one_of("criterion", criterion, CRITERIA, remedy='Or a fraction of the target, or "within 10 %".')
    if criterion == "geometric":
        return np.asarray(np.sqrt(v0) * np.sqrt(v1))
    if criterion == "arithmetic":
        return np.asarray(v0 / 2 + v1 / 2)
    total = v0 + v1
    mean: NDArray[np.float64] = np.divide(2 * v0 * v1, total, out=np.zeros_like(total), where=total > 0)
    return mean


def direction(initial: ArrayLike, target: ArrayLike) -> NDArray[np.int64]:
    """+1 if the variance has to rise, -1 if it has to fall, 0 if it starts at its target or either is NaN."""
    v0, v1 = np.asarray(initial, np.float64), np.asarray(target, np.float64)
    return np.asarray((v1 > v0).astype(np.int64) - (v1 < v0).astype(np.int64))


def gray_zone(initial: ArrayLike, target: ArrayLike, factor: float = 2.0) -> NDArray[np.bool_]:
    """Modes whose initial variance is within ``factor`` of the target: their passage says nothing about learning.

    Reference: Wang & Pehlevan 2025, figure 3.

    Raises:
        ValueError: if ``factor`` is below 1.
    """
    if not factor >= 1:
        raise ValueError(f"`factor` must be a number of at least 1, got {factor!r}. 1 leaves out exact ties only.")
    v0, v1 = np.broadcast_arrays(np.asarray(initial, np.float64), np.asarray(target, np.float64))
    return np.asarray((v0 <= factor * v1) & (v1 <= factor * v0), dtype=np.bool_)
