"""Maps training time to theory time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from spectral_lightning.spectra import SpectralHistory

__all__ = ["Fit", "Predict", "fit_time_scale", "goodness_of_fit", "training_time"]

Array = NDArray[np.float64]
Predict = Callable[[Array], Array]
"""Predicted variance ``[T, K]`` at theory times ``[T]``."""


def training_time(history: SpectralHistory, base: float | None) -> Array:
    """Updates weighted by learning rate over ``base``, ``[T]``; at a constant rate, the number of updates.

    If the rates are unknown, as in a loop without an optimizer to follow, also the number of updates.

    Args:
        history: the measurement, with ``cumulative_learning_rate`` if known.
        base: learning rate at which one update is one unit of time.
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
    """Goodness of fit of a prediction, compared with a baseline without theory.

    Attributes:
        rms: root mean square of the log of measured over predicted variance.
        baseline: the same for variances that never change.
        cells: number of points, measurements times modes, in both.
    """

    rms: float
    baseline: float
    cells: int

    def __str__(self) -> str:
        """Both numbers in one sentence."""
        if self.cells == 0:
            return "not determinable: no points outside the gray zone"
        verdict = "better" if self.rms < self.baseline else "no better"
        return (
            f"rms error of log variance {self.rms:.3f}, {verdict} than {self.baseline:.3f} for unchanged variances "
            f"({self.cells} points)"
        )


def goodness_of_fit(measured: Array, predicted: Array, initial: Array, modes: NDArray[np.bool_]) -> Fit:
    """Compare tables ``[T, K]`` over the given modes, leaving out points that are not positive in all three."""
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
    """The factor on ``time`` that minimises the rms error of log variance over all rows and the given modes.

    Searches four points per decade over sixteen decades around ``center``, then refines the best by a bounded search.

    Args:
        time: training time of each row, ``[T]``.
        measured: variances, ``[T, K]``.
        predict: the theory's variances of the K modes.
        modes: mask of the modes to fit, ``[K]``.
        center: centre of the search.
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
