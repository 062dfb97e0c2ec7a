"""Constants of the forecasts, tuned on half of the stored experiments by ``studies/forecasts.py``, whose tests compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["QUANTILES", "SMALLEST", "SPREAD", "TYPICAL", "UNTESTED", "spread", "width"]

TYPICAL: Mapping[str, float] = {
    "law": 0.159,
    "curve": 0.188,
    "shift": 0.070,
    "pace": 0.055,
    "regression": 0.070,
    "mean": 0.059,
    "theory": 0.092,
}
"""Error ``|log(predicted / actual step)|`` by method: the median over modes, cuts and runs, the mean over experiments."""

SPREAD, UNTESTED = (-0.11, 0.77), 0.25
"""Line of the log error on that of the tests in the same run, intercept and slope; the typical error without tests."""

QUANTILES: Mapping[float, tuple[float, float]] = {0.5: (-0.58, 1.38), 0.8: (-1.30, 4.66), 0.9: (-1.76, 8.95)}
"""By confidence, ends of the interval of ``log(actual / predicted step)`` over width and spread."""

_NEAR = 0.1
SMALLEST = 0.005


def width(ahead: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit of the error of a forecast, by the log of predicted step over now."""
    return _NEAR + ahead


def spread(tests: Sequence[float] | NDArray[np.float64]) -> float:
    """Factor on the width, from the median errors of the tests in units of it: a power of their geometric mean."""
    if not len(tests):
        return UNTESTED
    return float(np.exp(SPREAD[0] + SPREAD[1] * np.mean(np.log(SMALLEST + np.asarray(tests)))))
