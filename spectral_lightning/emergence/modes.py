"""From a table of variances [step, mode] to one emergence time, direction and status per mode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.arguments import one_of
from spectral_lightning.emergence.criteria import direction, gray_zone, threshold
from spectral_lightning.emergence.passage import first_passage
from spectral_lightning.emergence.powerlaw import PowerLaw, fit_power_law

__all__ = ["STATUS", "ModeEmergence", "emergence"]

Array = NDArray[np.float64]

STATUS = ("crossed", "not yet", "gray zone", "null mode", "undefined")
"""What can be said of a mode: it passed its threshold; it did not yet; it started within the gray zone; the data
have no variance there; its start or its target is not finite or its threshold is zero, so that no passage exists."""

DIRECTIONS = {"rising": 1, "falling": -1}


@dataclass(frozen=True)
class ModeEmergence:
    """Emergence of every mode of one trajectory table.

    Attributes:
        variance: the data's variance of the modes, ``[K]``; the x axis of the law.
        initial: variance before training that decided on direction and gray zone, ``[K]``.
        target: variance at the end of learning, ``[K]``.
        threshold: variance to pass, ``[K]``.
        direction: +1 rising, -1 falling, 0 where neither can be said, ``[K]``.
        status: index into :data:`STATUS`, ``[K]``.
        time: step of first passage, NaN unless the status is "crossed", ``[K]``.
        criterion: the criterion the threshold came from.
    """

    variance: Array
    initial: Array
    target: Array
    threshold: Array
    direction: NDArray[np.int64]
    status: NDArray[np.int64]
    time: Array
    criterion: str | float

    def eligible(self, way: str) -> NDArray[np.bool_]:
        """Modes of one direction (``"rising"`` or ``"falling"``) that could cross: no gray zone, no null mode."""
        one_of("way", way, DIRECTIONS)
        return np.asarray((self.direction == DIRECTIONS[way]) & (self.status <= STATUS.index("not yet")))

    def crossed(self, way: str) -> NDArray[np.bool_]:
        """Modes of one direction that have passed their threshold."""
        return np.asarray(self.eligible(way) & (self.status == STATUS.index("crossed")))

    def law(self, way: str, modes: NDArray[np.bool_] | None = None, min_decades: float = 1.0) -> PowerLaw:
        """The power law through the modes of one direction.

        Args:
            way: ``"rising"`` or ``"falling"``.
            modes: only those of this mask, ``[K]``.
            min_decades: a narrower range of variance gives no exponent.
        """
        chosen = self.eligible(way) if modes is None else self.eligible(way) & np.asarray(modes, np.bool_)
        return fit_power_law(self.variance[chosen], self.time[chosen], min_decades=min_decades)


def emergence(
    steps: ArrayLike,
    variance: ArrayLike,
    mode_variance: ArrayLike,
    target: ArrayLike | None = None,
    *,
    criterion: str | float = "geometric",
    gray_factor: float = 2.0,
    null_variance: float = 0.0,
    initial: ArrayLike | None = None,
) -> ModeEmergence:
    """Emergence of every mode in a table of variances.

    Args:
        steps: steps of the records, ``[T]``.
        variance: variance of the generated samples, ``[T, K]``.
        mode_variance: the data's variance per mode, ``[K]``.
        target: variance at the end of learning, ``[K]``; the data's where it is not given.
        criterion: a name from :data:`CRITERIA`, or a fraction of the target.
        gray_factor: modes that start within this factor of the target are left out.
        null_variance: modes of the data with this variance or less are null modes, reported apart.
        initial: variance before training that decides on direction and gray zone, ``[K]``; the first record of
            ``variance`` where it is not given. A prediction takes the measurement's, so that both leave out the same
            modes.

    Raises:
        ValueError: if the shapes do not match, or as :func:`threshold`, :func:`gray_zone` and :func:`first_passage`.
    """
    table, lam = np.asarray(variance, np.float64), np.asarray(mode_variance, np.float64)
    end = lam if target is None else np.asarray(target, np.float64)
    if table.ndim != 2 or not table.shape[1:] == lam.shape == end.shape:
        raise ValueError(
            "`variance` must have shape [T, K], `mode_variance` and `target` shape [K], "
            f"got {table.shape}, {lam.shape} and {end.shape}."
        )
    own = table[0] if len(table) else np.full(lam.shape, np.nan)
    first = own if initial is None else np.broadcast_to(np.asarray(initial, np.float64), lam.shape)
    known = np.isfinite(own) & np.isfinite(first) & np.isfinite(end)
    level = np.where(known, threshold(own, end, criterion), np.nan)
    sign = np.where(known, direction(first, end), 0)
    time = first_passage(steps, table, level, sign)
    status = np.where(np.isfinite(time), STATUS.index("crossed"), STATUS.index("not yet"))
    status = np.where(~(level > 0), STATUS.index("undefined"), status)
    status = np.where(known & gray_zone(first, end, gray_factor), STATUS.index("gray zone"), status)
    status = np.where(lam <= null_variance, STATUS.index("null mode"), status)
    time = np.where(status == STATUS.index("crossed"), time, np.nan)
    return ModeEmergence(lam, first, end, level, sign, status.astype(np.int64), time, criterion)
