"""What a model has learnt so far, what is missing and when it will come: numbers, table, and one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.emergence import Criterion, Forecast, Interval, ModeEmergence, forecast
from spectral_lightning.emergence.forecasting import Course
from spectral_lightning.prediction.comparison import compare
from spectral_lightning.prediction.scales import Scales, within
from spectral_lightning.spectra.history import SpectralHistory

__all__ = ["METHOD_TEXTS", "Outlook", "outlook"]

METHOD_TEXTS: Mapping[str, str] = {
    "now": "every mode at once",
    "law": "line of log step over log variance",
    "curve": "one curve for all modes, shifted by log variance",
    "shift": "each mode goes on at the pace of all modes",
    "pace": "each mode goes on at the mean of its own pace and that of all modes",
    "regression": "steps left by progress, pace and variance, as of the modes before",
    "mean": "mean of pace and regression",
    "theory": "line of log step over the theory's log step",
}
"""The methods of a forecast, in words."""

_SHARE = 0.9
_QUARTER, _THIRD = 0.25, 1 / 3


@dataclass(frozen=True)
class Outlook:
    """What a history says about the past and the future of its training.

    Attributes:
        forecast: steps at which the modes pass their thresholds, up to the last record with a finite variance.
        close: modes whose variance is within 10 % of the one expected, or two standard errors, ``[K]``.
        weight: variance expected at the end of learning, of all coordinates of a mode, ``[K]``.
        scales: generated over expected variance by scale; None for modes without a wavelength.
        drift: root mean square of the samples' mean deviation over that of the data's standard deviation; NaN if unknown.
        reason: why nothing can be said about learning; empty if something can.
        last: step of the last record; NaN without one.
    """

    forecast: Forecast
    close: NDArray[np.bool_]
    weight: NDArray[np.float64]
    scales: Scales | None
    drift: float
    reason: str
    last: float

    def variance_learnt(self, step: float | None = None) -> Interval:
        """Share of the variance of the eligible modes that are learnt at a step; now by default."""
        return self.forecast.share(self.weight, step)

    def modes_learnt(self, step: float | None = None) -> Interval:
        """Share of the eligible modes that are learnt at a step; now by default."""
        return self.forecast.share_of_modes(step)

    @property
    def modes_close(self) -> float:
        """Share of the eligible modes that are learnt and whose variance is within 10 % of the one expected."""
        eligible = self.forecast.eligible
        return float((self.close & self.forecast.learnt)[eligible].mean()) if eligible.any() else math.nan

    @property
    def finest_scale(self) -> float:
        """Effective resolution: the finest scale learnt, in pixels per cycle; see :class:`Scales`. NaN if there is none."""
        return math.nan if self.scales is None else self.scales.finest

    @property
    def warning(self) -> str:
        """That the training will stop too early, once that can be said.

        That is when a quarter of the modes has been learnt and every direction's forecast was tested in this run, or when a
        third of the steps has been made.
        """
        found = self.forecast
        ahead = found.now < found.end
        tested = all(course.tests for course in found.courses if course.crossed < course.eligible)
        known = (tested and self.modes_learnt().value >= _QUARTER) or found.now >= _THIRD * found.end
        if self.reason or not (ahead and known and found.shortfall):
            return ""
        return " ".join(filter(None, (found.shortfall, self._doubt)))

    @property
    def sentence(self) -> str:
        """What has been learnt, what is missing, and when it will come, as far as the data say."""
        if self.reason:
            return self.reason
        now = self.forecast.now
        parts = [
            f"By step {now:,.0f} the model has learnt {_percent(self.variance_learnt().value)} of the variance and "
            f"{self._modes}",
            "" if self.scales is None else self.scales.sentence(),
            self._pace,
        ]
        stale = "" if self.last == now else f"Nothing measured since, up to step {self.last:,.0f}, is finite."
        doubt = self._doubt if self._ahead and self._tested else ""
        return " ".join(filter(None, ("; ".join(filter(None, parts)) + ".", stale, doubt)))

    @property
    def _modes(self) -> str:
        close, learnt = self.modes_close, self.modes_learnt().value
        text = f" ({_percent(close)} to within 10 % of their target)" if close < learnt else ""
        return f"{_percent(learnt)} of the modes{text}"

    @property
    def _doubt(self) -> str:
        doubts = " ".join(self.forecast.doubts)
        return f"Do not rely on this forecast. {doubts}" if doubts else ""

    @property
    def _ahead(self) -> bool:
        """Whether 90 % of the modes are still to come."""
        return self.forecast.reach(_SHARE).value > self.forecast.now

    @property
    def _tested(self) -> bool:
        """Whether forecasts of at least half the modes to come could be tested in this run."""
        left = [course.eligible - course.crossed for course in self.forecast.courses]
        tested = sum(n for n, course in zip(left, self.forecast.courses, strict=True) if course.tests)
        return 2 * tested >= sum(left)

    @property
    def _pace(self) -> str:
        reach = self.forecast.reach(_SHARE)
        if not self._ahead:
            return ""
        if not self._tested:
            return "too little has been learnt to say when the rest will be"
        if math.isinf(reach.value):
            return f"{_percent(_SHARE)} of the modes are not in sight"
        return f"at this pace {_percent(_SHARE)} of the modes need {_steps(reach.value)} steps {_ends(reach, _steps)}"

    def scalars(self) -> dict[str, float]:
        """The numbers to log, by name; only those that are known."""
        reach, end = self.forecast.reach(_SHARE), self.forecast.end
        known = {
            "share_of_variance": self.variance_learnt().value,
            "share_of_modes": self.modes_learnt().value,
            "share_of_modes_within_10_percent": self.modes_close,
            "finest_scale_pixels": self.finest_scale,
            "mean_drift": self.drift,
            **({} if self.scales is None else self.scales.biases),
        }
        if not self.reason:
            known |= {f"steps_to_90_percent{suffix}": v for suffix, v in zip(("", "_low", "_high"), reach, strict=True)}
            if end > self.forecast.now:
                known["share_of_modes_at_end"] = self.modes_learnt(end).value
                known["share_of_variance_at_end"] = self.variance_learnt(end).value
        return {name: float(value) for name, value in known.items() if math.isfinite(value)}

    def rows(self) -> list[tuple[str, str]]:
        """The same to read: title and text."""
        found, end = self.forecast, self.forecast.end
        rows = []
        if not self.reason:
            learnt, eligible = int(found.learnt.sum()), int(found.eligible.sum())
            rows.append(
                (
                    f"Learnt by step {found.now:,.0f}",
                    f"{_percent(self.variance_learnt().value)} of the variance, {self._modes}; {learnt:,} of {eligible:,}",
                )
            )
        if self.scales is not None:
            rows.append(("Scales", self.scales.sentence() or "all within 10 % of the expected variance"))
            names = (name.removesuffix("_norm_bias").replace("_", " ") for name in self.scales.biases)
            texts = (f"{name} {bias:+.1%}" for name, bias in zip(names, self.scales.biases.values(), strict=True))
            rows.append(("Bias of the spectrum", ", ".join(texts).replace("%", " %")))
        if math.isfinite(self.drift):
            rows.append(("Drift of the mean", f"{self.drift:.2g} of the data's standard deviation"))
        if self.reason:
            return rows
        if end > found.now and not found.learnt[found.eligible].all():
            shares = {"variance": self.variance_learnt(end), "modes": self.modes_learnt(end)}
            texts = (
                f"{_percent(share.value)} {_ends(share, _percent)} of the {name}" for name, share in shares.items()
            )
            rows.append((f"At the end, step {end:,.0f}", ", ".join(texts)))
        reach = found.reach(_SHARE)
        if reach.value <= found.now:
            text = f"learnt by step {_steps(reach.value)}"
        elif math.isinf(reach.value):
            text = "not in sight"
        else:
            text = f"by step {_steps(reach.value)} {_ends(reach, _steps)}, {_percent(found.confidence)} interval"
        rows.append((f"{_percent(_SHARE)} of the modes", text))
        rows += [(f"Forecast of {course.way} modes", _described(course)) for course in found.courses]
        return [*rows, *(("Warning", text) for text in found.warnings)]

    def document(self) -> dict[str, Any]:
        """All numbers, as plain values; infinite and NaN steps are null in JSON."""
        found, scales = self.forecast, self.scales
        end = found.end if found.end > 0 else found.now
        return {
            "sentence": self.sentence,
            "step": found.now,
            "end": found.end,
            "confidence": found.confidence,
            "least_variance": found.least_variance,
            "scalars": self.scalars(),
            "at_end": {
                "variance": self.variance_learnt(end)._asdict(),
                "modes": self.modes_learnt(end)._asdict(),
            },
            "steps_to_90_percent": found.reach(_SHARE)._asdict(),
            "courses": {course.way: vars(course) for course in found.courses},
            "warnings": list(found.warnings),
            "scales": None if scales is None else {name: array.tolist() for name, array in vars(scales).items()},
            "modes": {name: getattr(found, name).tolist() for name in ("step", "low", "high", "learnt", "eligible")},
        }


def outlook(
    history: SpectralHistory,
    prediction: SpectralHistory | None = None,
    *,
    criterion: Criterion = "geometric",
    gray_factor: float = 2.0,
    end: float | None = None,
    confidence: float = 0.8,
    least_variance: float | None = None,
) -> Outlook:
    """What a history says about the past and the future of its training.

    Args:
        history: the measurement; its first row precedes training.
        prediction: the theory's history of the same modes, whose order may help to forecast.
        criterion: as for :func:`compare`.
        gray_factor: as for :func:`compare`.
        end: planned last step of the training, if known.
        confidence: as for :func:`~spectral_lightning.emergence.forecast`.
        least_variance: as for :func:`~spectral_lightning.emergence.forecast`.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> history = SpectralHistory({"target": [1.0, 0.1], "fixed_point": [1.0, 0.1]})
        >>> outlook(history).sentence
        'Nothing has been measured yet.'
    """
    history = history.smoothed()
    result = compare(history, prediction, criterion, gray_factor)
    own, theory = result.measured, result.predicted
    finite = np.flatnonzero(np.isfinite(history.variance).any(1))
    used = slice(0, finite[-1] + 1 if len(finite) else 0)
    steps = history.steps[used]
    found = forecast(
        steps,
        history.variance[used],
        own.initial,
        own.target,
        own.threshold,
        own.direction,
        own.eligible("rising") | own.eligible("falling"),
        own.variance,
        theory=None if theory is None else theory.time,
        end=max(end, float(steps[-1])) if end and len(steps) else end or None,
        confidence=confidence,
        least_variance=least_variance,
    )
    count = history["multiplicity"] if "multiplicity" in history else np.ones(len(history.target))
    last = int(finite[-1]) if len(finite) else None
    return Outlook(
        found,
        np.zeros(count.shape, np.bool_) if last is None else _close(history, last),
        np.where(np.isfinite(history.fixed_point), count * history.fixed_point, 0.0),
        None if last is None else Scales.of(history, last),
        math.nan if last is None else _drift(history, last, count),
        _reason(history, own, found, gray_factor),
        math.nan if history.last_step is None else float(history.last_step),
    )


def _close(history: SpectralHistory, row: int) -> NDArray[np.bool_]:
    measured = history.row(row)
    error = np.nan_to_num(measured.get("standard_error", np.zeros_like(history.target)))
    with np.errstate(divide="ignore", invalid="ignore"):
        return within(measured["variance"] / history.fixed_point, error / history.fixed_point)


def _drift(history: SpectralHistory, row: int, count: NDArray[Any]) -> float:
    deviation = history.row(row).get("mean_deviation")
    spread = float((count * history.target).sum())
    if deviation is None or not spread > 0:
        return math.nan
    return math.sqrt(float((count * deviation**2).sum()) / spread)


def _reason(history: SpectralHistory, own: ModeEmergence, found: Forecast, gray_factor: float) -> str:
    """Why nothing can be said; empty if something can."""
    if not len(history):
        return "Nothing has been measured yet."
    count, eligible = len(history.target), int(found.eligible.sum())
    if not eligible:
        null = own.variance <= history.null_variance
        unknown = ~null & ~(own.threshold > 0)
        kinds = {
            "no variance in the data": int(null.sum()),
            "no finite variance before training": int(unknown.sum()),
            f"less than a factor of {gray_factor:g} to go from the start": int((~null & ~unknown).sum()),
        }
        why = ", ".join(f"{number:,} have {kind}" for kind, number in kinds.items() if number)
        return f"By step {history.last_step:,} nothing can be said about learning: of {count:,} modes {why}."
    if not found.now > 0:
        return f"Nothing finite has been measured since step 0. {eligible:,} of {count:,} modes have to be learnt."
    return ""


def _described(course: Course) -> str:
    learnt = f"{course.crossed:,} of {course.eligible:,} learnt"
    if not course.method:
        return learnt
    text = f"{learnt}; the others by the method {course.method!r} ({METHOD_TEXTS[course.method]}),"
    if not course.tests:
        return f"{text} the best in other experiments, not yet tested in this run"
    off, now = (math.exp(course.scores[name]) for name in (course.method, "now"))
    plural = "s" if course.tests > 1 else ""
    return (
        f"{text} chosen by {course.tests} test{plural} in this run: off by a factor of {off:.2f}, against {now:.2f} for every "
        "mode at once"
    )


def _percent(share: float) -> str:
    """Rounded down, so that 100 % means all."""
    return f"{math.floor(100 * share + 1e-9)} %" if math.isfinite(share) else "an unknown share"


def _steps(step: float) -> str:
    return f"{float(f'{step:.2g}'):,.0f}" if math.isfinite(step) else "unbounded"


def _ends(value: Interval, text: Callable[[float], str]) -> str:
    return f"[{text(value.low)}, {text(value.high)}]"
