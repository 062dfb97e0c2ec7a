"""Maps training time to theory time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from spectral_lightning.spectra import SpectralHistory

__all__ = ["Fit", "fit_time_scale", "goodness_of_fit", "training_time"]

Array = NDArray[np.float64]
Predict = Callable[[Array], Array]
"""Predicted variance ``[T, K]`` at theory times ``[T]``."""


def training_time(history: SpectralHistory, base: float | None) -> Array:
    """Updates weighted by their learning rate over ``base``: the updates themselves at a constant rate, ``[T]``.

    The plain number of updates if no rate is known, as with manual optimization around Lightning's own.

    Args:
        history: with ``cumulative_learning_rate``, if that is known.
        base: learning rate of which one update is one unit of time.
    """
    steps = history.steps.astype(np.float64)
    rates = history["cumulative_learning_rate"] if "cumulative_learning_rate" in history else np.zeros(len(steps))
    if not base or not (rates > 0).any():
        return steps
    time = rates / base
    # At a constant rate the quotient is a whole number up to rounding, and the discrete recursion needs one.
    return np.where(np.abs(time - steps) < 1e-6 * steps, steps, time)


@dataclass(frozen=True)
class Fit:
    """Goodness of fit of a prediction, beside one that needs no theory.

    Attributes:
        rms: root mean square of log measured over log predicted variance.
        baseline: the same for a variance that stays what it was before training.
        cells: measurements times modes that went into both.
    """

    rms: float
    baseline: float
    cells: int

    def __str__(self) -> str:
        """Both numbers and what they mean."""
        if self.cells == 0:
            return "not determinable: no mode outside the gray zone was measured"
        verdict = "better" if self.rms < self.baseline else "no better"
        return (
            f"rms error of log variance {self.rms:.3f}, {verdict} than {self.baseline:.3f} for variances that stay as "
            f"they began ({self.cells} points)"
        )


def goodness_of_fit(measured: Array, predicted: Array, initial: Array, modes: NDArray[np.bool_]) -> Fit:
    """Compare tables ``[T, K]`` over some of the modes; points that are not positive in all three are left out."""
    m, p = measured[:, modes], predicted[:, modes]
    start = np.broadcast_to(initial[modes], m.shape)
    good = (m > 0) & (p > 0) & (start > 0) & np.isfinite(m)
    if not good.any():
        return Fit(np.nan, np.nan, 0)
    log = np.log(m[good])
    rms = float(np.sqrt(np.mean((log - np.log(p[good])) ** 2)))
    baseline = float(np.sqrt(np.mean((log - np.log(start[good])) ** 2)))
    return Fit(rms, baseline, int(good.sum()))


def fit_time_scale(
    time: Array, measured: Array, predict: Predict, modes: NDArray[np.bool_], center: float = 1.0
) -> float:
    """The factor on ``time`` with the least rms error of log variance over all records and the given modes.

    A grid of four points per decade over sixteen decades about ``center``, then a bounded search around the best.

    Args:
        time: of the records, ``[T]``.
        measured: variances, ``[T, K]``.
        predict: the theory, for the K modes.
        modes: those to fit, ``[K]``.
        center: a factor to search around.
    """
    initial = measured[0]

    def error(log_factor: float) -> float:
        return goodness_of_fit(measured, predict(time * np.exp(log_factor)), initial, modes).rms

    grid = np.log(center) + np.log(10) * np.arange(-32, 33) / 4
    errors = [error(g) for g in grid]
    best = float(grid[int(np.argmin(errors))])
    width = float(np.log(10) / 4)
    refined = minimize_scalar(error, bounds=(best - width, best + width), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(refined.x))
