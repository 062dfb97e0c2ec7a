"""The power law ``tau* = C lambda^(-alpha)`` of emergence times, or the reason why it cannot be determined."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from spectral_lightning.arguments import fraction, non_negative, positive_integer

__all__ = ["PowerLaw", "fit_power_law"]


@dataclass(frozen=True)
class PowerLaw:
    """Least-squares line of log time over log variance; ``exponent`` is ``alpha`` in ``tau* ~ lambda^(-alpha)``.

    Attributes:
        exponent: alpha, NaN if not determinable.
        low: lower end of the exponent's confidence interval.
        high: upper end of the exponent's confidence interval.
        prefactor: C, the time at variance 1.
        r2: share of the variance of log time that the line explains.
        count: number of modes in the fit, those that crossed.
        total: number of eligible modes.
        decades: range of variance of the fit in decades.
        reason: why there is no exponent; empty if there is one.
    """

    exponent: float
    low: float
    high: float
    prefactor: float
    r2: float
    count: int
    total: int
    decades: float
    reason: str = ""

    @property
    def determinable(self) -> bool:
        """Whether there is an exponent."""
        return not self.reason

    def __str__(self) -> str:
        """The exponent with its interval, or the reason why there is none."""
        crossed = f"{self.count} of {self.total} crossed"
        if self.reason:
            return f"not determinable ({self.reason}; {crossed})"
        return f"{self.exponent:z.2f} [{self.low:z.2f}, {self.high:z.2f}], R2 {self.r2:.2f}, {crossed}"


def fit_power_law(
    variance: ArrayLike,
    time: ArrayLike,
    *,
    min_modes: int = 10,
    min_decades: float = 1.0,
    confidence: float = 0.95,
) -> PowerLaw:
    """Fit ``log tau* = log C - alpha log lambda`` by least squares over the modes that crossed.

    The interval is Student's, from the scatter of the modes about the line. It does not include the effect of another
    seed, criterion or smoothing. Modes that did not cross are left out and counted; if there are many, the exponent is
    biased towards the fast modes.

    Args:
        variance: target variance of each mode, ``[K]``; positive.
        time: emergence time of each mode, ``[K]``; NaN if it did not cross.
        min_modes: fewer crossed modes give no exponent.
        min_decades: a narrower range of variance gives no exponent.
        confidence: coverage of the interval.

    Raises:
        ValueError: if the shapes differ, or an option is out of range.

    Example:
        >>> law = fit_power_law(np.geomspace(1e-3, 1, 20), 3 / np.geomspace(1e-3, 1, 20))
        >>> round(law.exponent, 6), round(law.prefactor, 6)
        (1.0, 3.0)
    """
    lam, tau = np.asarray(variance, np.float64), np.asarray(time, np.float64)
    if lam.shape != tau.shape or lam.ndim != 1:
        raise ValueError(f"`variance` and `time` must have the same shape [K], got {lam.shape} and {tau.shape}.")
    positive_integer("min_modes", min_modes, minimum=3, remedy="A line with an error needs three points.")
    non_negative("min_decades", min_decades)
    fraction("confidence", confidence)
    keep = np.isfinite(tau) & (tau > 0) & np.isfinite(lam) & (lam > 0)
    count, total = int(keep.sum()), len(lam)
    x, y = np.log(lam[keep]), np.log(tau[keep])
    decades = float(np.ptp(x) / math.log(10)) if count else 0.0

    def none(reason: str) -> PowerLaw:
        return PowerLaw(math.nan, math.nan, math.nan, math.nan, math.nan, count, total, decades, reason)

    if count < min_modes:
        return none(f"fewer than {min_modes} modes crossed")
    if decades < min_decades or decades == 0:
        return none(f"variances span {decades:.4g} decades, less than {min_decades:g}")
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    residual = float(((dy - slope * dx) ** 2).sum())
    spread = float(dy @ dy)
    error = math.sqrt(residual / (count - 2) / float(dx @ dx)) * float(stdtrit(count - 2, (1 + confidence) / 2))
    prefactor = math.exp(y.mean() - slope * x.mean())
    r2 = 1 - residual / spread if spread > 0 else 0.0
    return PowerLaw(-slope, -slope - error, -slope + error, prefactor, r2, count, total, decades)
