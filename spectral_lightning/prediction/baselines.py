"""Judges a prediction beside baselines of the same kind."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

__all__ = ["BASELINES", "FORMULA", "Curve", "Errors", "Judgement", "fit_curve", "judge"]

Array = NDArray[np.float64]

BASELINES = {
    "unchanged": "nothing learnt",
    "one_curve": "one curve for all",
    "curve_by_variance": "curves by variance",
}
"""The baselines and what they are called."""

FORMULA = (
    "log v_k(t) = log v_k(0) + p_k(t) [log v*_k - log v_k(0)], p_k(t) = 1 / (1 + (tau_k / t)^(1/w)), "
    "tau_k = tau (lambda_k / lambda_0)^-a; t training time, v* the sampler's fixed point, lambda_0 the geometric mean of "
    "lambda; a = 0 for one curve"
)
"""The curves."""

_WIDTHS, _EXPONENTS = (0.3, 0.7, 1.5), (-0.5, 0.0, 0.5, 1.0)
_SMALLEST, _LARGEST = 0.02, 20.0  # widths


@dataclass(frozen=True)
class Curve:
    """Logistic progress in log time, from each mode's variance before training to its target.

    With time t, target v* and data variance lambda::

        log v_k(t) = log v_k(0) + p_k(t) [log v*_k - log v_k(0)]
        p_k(t)     = 1 / (1 + (tau_k / t)^(1/w)),   tau_k = tau (lambda_k / lambda_0)^-a

    with lambda_0 the geometric mean of the variances. Without an exponent all modes move together: no spectral bias.

    Attributes:
        tau: training time at which a mode of variance lambda_0 is half way.
        width: w, in units of log time.
        exponent: a.
    """

    tau: float
    width: float
    exponent: float = 0.0

    def progress(self, time: Array, variance: Array) -> Array:
        """``p_k(t)``, ``[T, K]``.

        Args:
            time: training time, ``[T]``; no progress at 0.
            variance: variance of the data along each mode, ``[K]``.
        """
        level = np.log(variance) - np.log(variance).mean()
        with np.errstate(divide="ignore", over="ignore"):
            late = (np.log(self.tau) - self.exponent * level - np.log(time)[:, None]) / self.width
            return np.asarray(1 / (1 + np.exp(late)))


def fit_curve(time: Array, measured: Array, target: Array, variance: Array, by_variance: bool) -> Curve:
    """The curve with the least sum of squared errors of log variance.

    Searches a grid of times, widths and exponents, then refines the best by ``scipy.optimize.least_squares``. Points that are
    not positive and finite are left out.

    Args:
        time: training time, ``[T]``; the first row is before training.
        measured: variances, ``[T, K]``.
        target: variances of the fully trained model, ``[K]``, positive.
        variance: variances of the data, ``[K]``, positive.
        by_variance: whether to fit the exponent.
    """
    good = np.isfinite(measured) & (measured > 0) & (measured[0] > 0)
    log = np.log(np.where(good, measured, 1.0))
    gap = np.log(target) - log[0]

    def curve(x: Array) -> Curve:
        return Curve(float(np.exp(x[0])), float(np.exp(x[1])), float(x[2]) if by_variance else 0.0)

    def errors(x: Array) -> Array:
        return np.asarray((log - log[0] - curve(x).progress(time, variance) * gap)[good])

    later = time[time > 0]
    ends = (0.0, 0.0) if not len(later) else (float(np.log(later.min())), float(np.log(later.max())))
    exponents = _EXPONENTS if by_variance else ()
    starts = [
        np.array([middle, np.log(width), *end])
        for middle in np.linspace(ends[0], ends[1] + 1, 10)
        for width in _WIDTHS
        for end in ([[a] for a in exponents] or [[]])
    ]
    best = min(starts, key=lambda x: float(np.square(errors(x)).sum()))
    low, high = [ends[0] - 7, np.log(_SMALLEST), -5.0], [ends[1] + 7, np.log(_LARGEST), 5.0]
    count = len(best)
    return curve(least_squares(errors, best, bounds=(low[:count], high[:count])).x)


@dataclass(frozen=True)
class Errors:
    """Root mean square errors of log variance over the same points.

    Attributes:
        theory: of the theory.
        unchanged: of variances that never change.
        one_curve: of one curve for all modes.
        curve_by_variance: of curves whose times follow a power of the variance.
        cells: number of points, measurements times modes.
    """

    theory: float
    unchanged: float
    one_curve: float
    curve_by_variance: float
    cells: int

    def beaten(self) -> list[str]:
        """Names of the baselines whose error is larger than the theory's."""
        return [name for name in BASELINES if self.theory < getattr(self, name)]


@dataclass(frozen=True)
class Judgement:
    """A theory beside its baselines.

    Attributes:
        numbers: how many numbers were fitted for the theory and each baseline.
        curves: the two fitted curves.
        fitted_to: last step of the rows that the numbers were fitted to.
        all_steps: errors over all steps, step 0 included.
        after_calibration: errors over the steps after ``fitted_to``; None if the theory has no fitted number.
        refit: errors over all steps with all numbers fitted to all of them; None if the theory has no fitted number.
    """

    numbers: dict[str, int]
    curves: dict[str, Curve]
    fitted_to: int
    all_steps: Errors
    after_calibration: Errors | None = None
    refit: Errors | None = None

    def verdict(self, errors: Errors) -> str:
        """Whether the theory beats each baseline, in words: rms errors, and in brackets how many numbers were fitted."""
        if not errors.cells:
            return "not determinable: no points outside the gray zone"
        won = errors.beaten()

        def named(names: list[str]) -> str:
            return ", ".join(f"{BASELINES[n]} {getattr(errors, n):.3f} ({self.numbers[n]})" for n in names)

        groups = {"beats": won, "does not beat": [name for name in BASELINES if name not in won]}
        parts = [f"{verb} {named(names)}" for verb, names in groups.items() if names]
        return f"theory {errors.theory:.3f} ({self.numbers['theory']}) " + "; ".join(parts)

    def lines(self) -> list[str]:
        """The verdicts as lines of a caption."""
        found = [f"all steps: {self.verdict(self.all_steps)}"]
        if self.after_calibration is not None:
            found.append(f"after step {self.fitted_to}: {self.verdict(self.after_calibration)}")
        return found

    def document(self) -> dict[str, object]:
        """Plain values for a file."""
        windows = {"all_steps": self.all_steps, "after_calibration": self.after_calibration, "refit": self.refit}
        return {
            "formula": FORMULA,
            "numbers": self.numbers,
            "curves": {name: asdict(curve) for name, curve in self.curves.items()},
            "fitted_to_step": self.fitted_to,
            **{
                name: None if errors is None else asdict(errors) | {"verdict": self.verdict(errors)}
                for name, errors in windows.items()
            },
        }


def judge(
    steps: NDArray[np.int64],
    time: Array,
    measured: Array,
    predicted: Array,
    target: Array,
    variance: Array,
    fitted_to: int | None = None,
    refit: Array | None = None,
) -> Judgement:
    """Compare a prediction with the baselines, whose numbers are fitted to the same rows and modes as the theory's.

    The errors are over points that are positive and finite in all tables; every point has the same weight.

    Args:
        steps: optimizer updates, ``[T]``, the first before training.
        time: the theory's training time before any factor, ``[T]``.
        measured: variances, ``[T, K]``.
        predicted: the theory's.
        target: variances of the fully trained model, ``[K]``.
        variance: variances of the data, ``[K]``.
        fitted_to: last step of the rows that the theory's factor was fitted to; None if nothing is fitted, and the baselines
            are fitted to all rows, in their favour.
        refit: the theory's variances with a factor fitted to all rows.
    """
    modes = (target > 0) & (variance > 0)
    measured, predicted, target, variance = measured[:, modes], predicted[:, modes], target[modes], variance[modes]
    tables = [measured, predicted, np.broadcast_to(measured[0], measured.shape)]
    good = np.all([np.isfinite(table) & (table > 0) for table in tables], axis=0)
    last = int(steps[-1]) if fitted_to is None else fitted_to

    def fitted(rows: NDArray[np.bool_]) -> dict[str, Curve]:
        if not good[rows].any():
            return {}
        return {
            name: fit_curve(time[rows], measured[rows], target, variance, name == "curve_by_variance")
            for name in ("one_curve", "curve_by_variance")
        }

    def errors(theory: Array, curves: dict[str, Curve], rows: NDArray[np.bool_]) -> Errors:
        cells = good & rows[:, None]
        if not cells.any():
            return Errors(np.nan, np.nan, np.nan, np.nan, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            log, gap = np.log(measured), np.log(target) - np.log(measured[0])
            logs = {"theory": np.log(theory), "unchanged": np.broadcast_to(log[0], log.shape)}
            logs |= {name: log[0] + curve.progress(time, variance) * gap for name, curve in curves.items()}
        return Errors(
            **{name: float(np.sqrt(np.mean((log - table)[cells] ** 2))) for name, table in logs.items()},
            cells=int(cells.sum()),
        )

    everything, curves = np.ones(len(steps), bool), fitted(steps <= last)
    return Judgement(
        {"theory": int(fitted_to is not None), "unchanged": 0, "one_curve": 2, "curve_by_variance": 3},
        curves,
        last,
        errors(predicted, curves, everything),
        None if fitted_to is None else errors(predicted, curves, steps > last),
        None if refit is None else errors(refit[:, modes], fitted(everything), everything),
    )
