"""The power law ``tau* = C lambda^(-alpha)`` through a table of times without scatter, such as a theory's: no interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from spectral_lightning.arguments import non_negative, positive_integer
from spectral_lightning.emergence.law import LocalExponent, local_exponents

__all__ = ["PowerLaw", "fit_power_law"]


@dataclass(frozen=True)
class PowerLaw:
    """Least-squares line of log time over log variance; ``exponent`` is ``alpha`` in ``tau* ~ lambda^(-alpha)``.

    A theory's times have no scatter: what is left about the line is its curvature, and an interval would say nothing. The
    local exponents show it instead.

    Attributes:
        exponent: alpha, NaN if there is none.
        prefactor: C, the time at variance 1.
        r2: share of the variance of log time that the line explains.
        local: exponents at a small and a large variance.
        count: number of modes in the fit, those that crossed.
        total: number of eligible modes.
        decades: range of variance of the fit in decades.
        reason: why there is no exponent; empty if there is one.
    """

    exponent: float
    prefactor: float
    r2: float
    local: tuple[LocalExponent, ...]
    count: int
    total: int
    decades: float
    reason: str = ""

    @property
    def determinable(self) -> bool:
        """Whether there is an exponent."""
        return not self.reason

    def __str__(self) -> str:
        """The exponent and the local ones, or the reason why there is none."""
        crossed = f"{self.count} of {self.total} crossed"
        if self.reason:
            return f"not determinable ({self.reason}; {crossed})"
        local = f" ({', '.join(map(str, self.local))})" if self.local else ""
        return f"{self.exponent:z.2f}{local}, {crossed}"


def fit_power_law(variance: ArrayLike, time: ArrayLike, *, min_modes: int = 3, min_decades: float = 0.0) -> PowerLaw:
    """Fit ``log tau* = log C - alpha log lambda`` by least squares over the modes that crossed, and its local slopes.

    For tables without scatter; :func:`~spectral_lightning.emergence.fit_law` is for measurements.

    Args:
        variance: target variance of each mode, ``[K]``; positive.
        time: emergence time of each mode, ``[K]``; NaN if it did not cross.
        min_modes: fewer crossed modes give no exponent.
        min_decades: a narrower range of variance gives no exponent.

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
    positive_integer("min_modes", min_modes, minimum=2, remedy="A line needs two points.")
    non_negative("min_decades", min_decades)
    keep = np.isfinite(tau) & (tau > 0) & np.isfinite(lam) & (lam > 0)
    count, total = int(keep.sum()), len(lam)
    x, y = np.log(lam[keep]), np.log(tau[keep])
    decades = float(np.ptp(x) / math.log(10)) if count else 0.0

    def none(reason: str) -> PowerLaw:
        return PowerLaw(math.nan, math.nan, math.nan, (), count, total, decades, reason)

    if count < min_modes:
        return none(f"fewer than {min_modes} modes crossed")
    if decades < min_decades or decades == 0:
        return none(f"variances span {decades:.4g} decades, less than {min_decades:g}")
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    spread = float(dy @ dy)
    prefactor = math.exp(y.mean() - slope * x.mean())
    r2 = 1 - float(((dy - slope * dx) ** 2).sum()) / spread if spread > 0 else 0.0
    return PowerLaw(-slope, prefactor, r2, local_exponents(lam, tau), count, total, decades)
