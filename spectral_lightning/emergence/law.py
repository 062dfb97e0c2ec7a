"""The law of emergence times ``tau* = C lambda^(-alpha)``: its exponent with an interval, or why there is no single one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import stdtrit

from spectral_lightning.emergence.regression import Regression, regress
from spectral_lightning.emergence.rules import RULES, Rules

__all__ = ["CombinedLaw", "EmergenceLaw", "LocalExponent", "combine", "fit_law", "local_exponents"]

Array = NDArray[np.float64]

_ENDS = (0.1, 0.9)  # quantiles of log variance at which local exponents are given


@dataclass(frozen=True)
class LocalExponent:
    """``-d log tau / d log lambda`` at one variance.

    Attributes:
        variance: where.
        exponent: its value.
        low: lower end of its interval; NaN for a theory, which has none.
        high: upper end.
    """

    variance: float
    exponent: float
    low: float = math.nan
    high: float = math.nan

    def __str__(self) -> str:
        """The exponent, its interval and where it holds."""
        interval = f" [{self.low:z.2f}, {self.high:z.2f}]" if math.isfinite(self.low) else ""
        return f"{self.exponent:z.2f}{interval} at variance {self.variance:.2g}"


@dataclass(frozen=True)
class EmergenceLaw:
    """What the emergence times of one run say about ``tau* ~ lambda^(-alpha)``.

    Attributes:
        exponent: alpha; NaN if there is no single one.
        low: lower end of its interval.
        high: upper end.
        prefactor: C, the time at variance 1.
        scatter: standard deviation of log time about the law.
        correlation: of the residuals of neighbours in rank.
        curvature: quadratic term over its standard deviation.
        local: exponents at a small and a large variance, if the law is curved.
        crossed: modes that crossed at a known time.
        early: modes that crossed before the second record.
        pending: modes that have not crossed yet, but may.
        never: modes that will not cross; the law is that of the others.
        decades: range of the variance of the modes that crossed, in decades.
        reason: why there is no single exponent; empty if there is one.
    """

    exponent: float
    low: float
    high: float
    prefactor: float
    scatter: float
    correlation: float
    curvature: float
    local: tuple[LocalExponent, ...]
    crossed: int
    early: int
    pending: int
    never: int
    decades: float
    reason: str = ""

    @property
    def determinable(self) -> bool:
        """Whether there is a single exponent."""
        return not self.reason

    @property
    def count(self) -> int:
        """Modes that have crossed."""
        return self.crossed + self.early

    @property
    def total(self) -> int:
        """Modes that have crossed, may yet or never will."""
        return self.count + self.pending + self.never

    @property
    def counts(self) -> str:
        """How many modes crossed, and why the others did not."""
        more = [(self.early, "before the second record"), (self.never, "never will"), (self.pending, "not yet")]
        parts = [f"{self.count} of {self.total} crossed", *(f"{number} {text}" for number, text in more if number)]
        return ", ".join(parts)

    def __str__(self) -> str:
        """The exponent with its interval, or why there is no single one."""
        if self.local:
            return f"no single power law ({'; '.join(map(str, self.local))}; {self.counts})"
        if self.reason:
            return f"not determinable ({self.reason}; {self.counts})"
        return f"{self.exponent:z.2f} [{self.low:z.2f}, {self.high:z.2f}], {self.counts}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From the values of :meth:`as_dict`, None for NaN, as JSON has it."""

        def known(given: Mapping[str, Any]) -> dict[str, Any]:
            return {key: math.nan if value is None else value for key, value in given.items()}

        return cls(**{**known(values), "local": tuple(LocalExponent(**known(one)) for one in values["local"])})


def fit_law(
    variance: ArrayLike,
    time: ArrayLike,
    side: ArrayLike,
    error: ArrayLike = 0.0,
    *,
    never: int = 0,
    rules: Rules = RULES,
    seed: int = 0,
) -> EmergenceLaw:
    """Censored regression of log time on log variance, with residuals correlated along the rank.

    ``log tau_k = log C - alpha log lambda_k + e_k``, e_k of the form AR(1) in the order of the variance. A mode that has not
    crossed contributes that its time is later; one that crossed before the second record, that it is earlier. Exponent and
    interval are those of :func:`~spectral_lightning.emergence.regress`, which joins censoring, correlation and the errors
    of the times.A parabola is
    fitted as well: if its quadratic term exceeds ``rules.max_curvature`` standard deviations and bends the line, there is no
    single exponent, and local ones are given where 10 and 90 % of the modes that crossed have less variance.

    The interval is for these modes in this run. It does not include another seed, see :func:`combine`, or criterion.

    Args:
        variance: of the modes in the data, positive, ``[K]``.
        time: steps at which they crossed, or the bounds of these, positive, ``[K]``.
        side: 0 for a time, 1 for a lower bound (not crossed yet), -1 for an upper bound, ``[K]``.
        error: standard error of log time, ``[K]``.
        never: number of further modes that never cross, to be reported.
        rules: least numbers and ranges.
        seed: of the sampler of the posterior.

    Raises:
        ValueError: for arrays of different shapes, or values that are not positive.

    Example:
        >>> variance = np.geomspace(1e-3, 1, 20)
        >>> print(fit_law(variance, 3 / variance, np.zeros(20)))
        1.00 [1.00, 1.00], 20 of 20 crossed
    """
    lam, tau = np.asarray(variance, np.float64), np.asarray(time, np.float64)
    kind, spread = np.broadcast_arrays(np.asarray(side), np.asarray(error, np.float64))
    kind, spread = np.broadcast_to(kind, lam.shape), np.broadcast_to(spread, lam.shape)
    if lam.ndim != 1 or lam.shape != tau.shape:
        raise ValueError(f"`variance` and `time` must have the same shape [K], got {lam.shape} and {tau.shape}.")
    if not ((lam > 0).all() and (tau > 0).all() and np.isfinite(lam).all() and np.isfinite(tau).all()):
        raise ValueError("`variance` and `time` must be positive and finite. Leave the other modes out.")
    order = np.argsort(lam, kind="stable")
    lam, kind, spread = lam[order], kind[order], spread[order]
    x, y = np.log(lam), np.log(tau[order])
    known = kind == 0
    decades = float(np.ptp(x[known]) / math.log(10)) if known.any() else 0.0
    counts = (int(known.sum()), int((kind < 0).sum()), int((kind > 0).sum()), never)

    def law(reason: str = "", curvature: float = math.nan, local: tuple[LocalExponent, ...] = ()) -> EmergenceLaw:
        nothing = (math.nan,) * 6
        return EmergenceLaw(*nothing, curvature, local, *counts, decades, reason)

    if counts[0] < rules.min_modes:
        return law(f"fewer than {rules.min_modes} modes crossed at a known time")
    if decades < rules.min_decades or decades == 0:
        return law(f"the variances of crossed modes span {decades:.4g} decades, less than {rules.min_decades:g}")
    origin = float(x[known].mean())
    line, bent = (regress(x - origin, y, kind, spread, degree=degree, seed=seed) for degree in (1, 2))
    curvature = _over_deviation(bent)
    local = tuple(_local(bent, float(at), origin, rules.confidence) for at in np.quantile(x[known], _ENDS))
    if rules.curved(curvature, local[0].exponent - local[1].exponent):
        return law("the law is curved", curvature, local)
    low, high = line.interval([0.0, -1.0], rules.confidence)
    intercept, slope = line.coefficients
    prefactor = math.exp(min(float(intercept - slope * origin), 700.0))
    exponent, about = (-float(slope), float(low), float(high)), (float(line.scatter), float(line.correlation))
    return EmergenceLaw(*exponent, prefactor, *about, curvature, (), *counts, decades)


def _over_deviation(bent: Regression) -> float:
    """The quadratic term over its standard deviation."""
    deviation = float(bent.draws[..., 2].std())
    return float(bent.coefficients[..., 2]) / deviation if deviation > 0 else 0.0


def _local(bent: Regression, x: float, origin: float, confidence: float) -> LocalExponent:
    weights = np.array([0.0, -1.0, -2 * (x - origin)])
    low, high = bent.interval(weights, confidence)
    return LocalExponent(math.exp(x), float(weights @ bent.coefficients), float(low), float(high))


def local_exponents(
    variance: ArrayLike, time: ArrayLike, at: Sequence[float] | None = None
) -> tuple[LocalExponent, ...]:
    """Local slopes of a table of times without scatter, such as a theory's: ``-d log tau / d log lambda``, without interval.

    Each is that of the parabola through log time over log variance, weighted by a normal kernel about the given variance,
    half a decade wide.

    Args:
        variance: ``[K]``.
        time: ``[K]``; modes whose time is not finite and positive are left out.
        at: variances; where 10 and 90 % of the modes have less, by default.

    Returns:
        One for each; none with fewer than four modes or different variances.

    Example:
        >>> variance = np.geomspace(1e-3, 1, 20)
        >>> [str(found) for found in local_exponents(variance, 3 * variance**-0.5, at=[0.01])]
        ['0.50 at variance 0.01']
    """
    lam, tau = np.asarray(variance, np.float64), np.asarray(time, np.float64)
    keep = np.isfinite(tau) & (tau > 0) & np.isfinite(lam) & (lam > 0)
    x, y = np.log(lam[keep]), np.log(tau[keep])
    if len(np.unique(x)) < 4:
        return ()
    found = []
    for place in np.quantile(x, _ENDS) if at is None else np.log(np.asarray(at)):
        weight = np.exp(-(((x - place) / math.log(10) / 0.5) ** 2) / 4)
        slope = np.polyfit(x - place, y, 2, w=weight)[1]
        found.append(LocalExponent(math.exp(place), -float(slope)))
    return tuple(found)


@dataclass(frozen=True)
class CombinedLaw:
    """The exponent over several runs.

    Attributes:
        exponent: mean over runs; NaN if there is none.
        low: lower end of its interval, which includes the scatter between runs.
        high: upper end.
        between: standard deviation of the runs' own exponents.
        runs: number of runs.
        reason: why there is no exponent; empty if there is one.
    """

    exponent: float
    low: float
    high: float
    between: float
    runs: int
    reason: str = ""

    def __str__(self) -> str:
        """The exponent with its interval, or why there is none."""
        if self.reason:
            return f"not determinable ({self.reason})"
        return f"{self.exponent:z.2f} [{self.low:z.2f}, {self.high:z.2f}], {self.runs} runs"


def combine(exponents: ArrayLike, errors: ArrayLike, confidence: float = 0.95) -> CombinedLaw:
    """Random-effects mean of the exponents of independent runs, with the interval of Hartung and Knapp.

    ``alpha_i = alpha + u_i + e_i``, u of variance ``between^2`` by the method of Paule and Mandel; the interval is Student's with
    one degree of freedom per run less one, from the weighted scatter of the runs.

    References: Hartung & Knapp 2001; Paule & Mandel 1982; IntHout, Ioannidis & Borm 2014.

    Args:
        exponents: one per run, ``[R]``.
        errors: their standard errors, positive, ``[R]``.
        confidence: coverage of the interval.

    Raises:
        ValueError: for other shapes, or errors that are not positive.

    Example:
        >>> print(combine([0.9, 1.0, 1.1], [0.05, 0.05, 0.05]))
        1.00 [0.75, 1.25], 3 runs
    """
    a, s = np.asarray(exponents, np.float64), np.asarray(errors, np.float64)
    if a.ndim != 1 or a.shape != s.shape or not (np.isfinite(a).all() and (s > 0).all()):
        raise ValueError("`exponents` and `errors` must be finite [R] of one shape, `errors` positive.")
    count = len(a)
    if count < 2:
        return CombinedLaw(math.nan, math.nan, math.nan, math.nan, count, "one run says nothing about other seeds")

    def excess(between: float) -> float:
        w = 1 / (s**2 + between)
        return float((w * (a - w @ a / w.sum()) ** 2).sum() - (count - 1))

    between = 0.0 if excess(0.0) <= 0 else float(brentq(excess, 0.0, float(np.ptp(a)) ** 2 * count + 1e-12))
    w = 1 / (s**2 + between)
    mean = float(w @ a / w.sum())
    error = math.sqrt(float((w * (a - mean) ** 2).sum()) / (count - 1) / float(w.sum()))
    reach = error * float(stdtrit(count - 1, (1 + confidence) / 2))
    return CombinedLaw(mean, mean - reach, mean + reach, math.sqrt(between), count)
