"""The charts of one run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.report.html.law import WAYS
from spectral_lightning.report.html.run import Run
from spectral_lightning.report.html.svg import Axis, Chart, HeatMap, Series
from spectral_lightning.report.ratio import training_ratio
from spectral_lightning.spectra import SpectralHistory

__all__ = [
    "RAMP", "curve_chart", "emergence_chart", "floor_chart", "gain_chart", "heat_map", "law_series", "ratio_chart", "shown_modes",
]  # fmt: skip

Array = NDArray[np.float64]

RAMP = 12
"""Number of colours ``m0``, ``m1``, ... for modes, by variance."""

_STEP, _VARIANCE = "optimizer updates", "variance of generated samples"
_DATA = "variance of the data along the mode"
_LEVEL = "noise level \N{GREEK SMALL LETTER SIGMA}"
_95 = 1.96
_EARLIER = 4  # measurements of the loss over its floor that are shown beside the last one


def shown_modes(history: SpectralHistory, most: int = RAMP) -> list[int]:
    """Modes evenly spread over the logarithm of their rank, without null modes."""
    null = history["null"] if "null" in history else np.zeros(len(history.target), np.bool_)
    count = int((~null).sum())
    if count <= most:
        return list(range(count))
    return sorted({int(rank) for rank in (np.geomspace(1, count, most) - 1).round()})


def curve_chart(run: Run, ident: str) -> Chart:
    """Variance of generated samples against steps: measured, smoothed, predicted."""
    raw, smooth, theory = run.history, run.smooth, run.prediction
    modes, low, high = shown_modes(raw), *_band(smooth)
    sliced = smooth is not raw
    line = "smoothed" if sliced else "measured"
    series, end = [], [float(raw.last_step or 0) * 1.12 + 0.2]
    about = {k: f"{run.labels[k]} · {raw.target[k]:.3g}" for k in modes}
    for k, color in _colors(modes):
        ends = (None, None) if low is None or high is None else (low[:, k], high[:, k])
        values = smooth.variance[:, k]
        series.append(Series(f"{k}", about[k], smooth.steps, values, color, line, low=ends[0], high=ends[1]))
        if theory is not None:
            series.append(Series(f"{k}", about[k], theory.steps, theory.variance[:, k], color, "theory", dash=1))
        target = Series(f"{k}", about[k], end, raw.fixed_point[[k]], color, "target", "target")
        series.append(target)
    for k, color in _colors(modes):
        series.append(Series(f"{k}", about[k], raw.steps, raw.variance[:, k], color, "measured", "dots", hover=sliced))
    x = Axis.over(_STEP, [raw.steps, end, [0]], "step", 0.0)
    tables = [raw.variance[:, modes], smooth.variance[:, modes], raw.fixed_point[modes]]
    tables += [] if theory is None else [theory.variance[:, modes]]
    note = f"{len(modes)} of {len(raw.target)} modes, with their data variance. Triangles: target, the sampler's fixed point."
    note += (" Band: 95 % interval." if low is not None else "") + (
        " Lines smooth over slices of a block of latents." if sliced else ""
    )
    return Chart(ident, "What has been learnt, mode by mode", x, Axis.over(_VARIANCE, tables), series, note)


def heat_map(run: Run, ident: str) -> HeatMap:
    """Variance over target by step and mode, with the emergence times."""
    smooth, found = run.smooth, run.emergence
    number = HeatMap.middle(np.arange(1, len(smooth.target) + 1))
    series = [
        Series("time", "emergence", found.time, number, "ink", "emergence", "dots", names=run.labels, hover=False)
    ]
    if np.isfinite(found.predicted).any():
        series.append(Series("theory", "theory", found.predicted, number, "ink", "theory", dash=1, hover=False))
    note = "Colour: generated variance over its target, the sampler's fixed point. Dots: emergence of each mode."
    return HeatMap(
        ident, "Every mode at every step", smooth.steps, smooth.variance, smooth.fixed_point, run.labels, series, note
    )


def emergence_chart(runs: Sequence[Run], ident: str) -> Chart:
    """Emergence step against data variance, with censored modes as arrows and the laws; colours tell runs or directions."""
    several = len(runs) > 1
    series: list[Series] = []
    for index, run in enumerate(runs):
        for way in WAYS:
            key, name, color = (f"r{index}", run.name, f"r{index % 8}") if several else (way, way, way)
            series += law_series(run, way, key, name, color, index if several else 0)
    x = Axis.over(_DATA, [s.x for s in series])
    y = Axis.over("emergence, optimizer updates", [np.maximum(np.asarray(s.y, np.float64), 0.5) for s in series])
    criteria = sorted({run.emergence.criterion for run in runs})
    note = f"Threshold: {', '.join(criteria)}. Arrows: not emerged by the last step; crosses: will not."
    return Chart(ident, "When each mode emerged", x, y, series, note)


def law_series(run: Run, way: str, key: str, name: str, color: str, dash: int) -> list[Series]:
    """Points and lines of one direction in one run."""
    found, variance, last = run.emergence, run.history.target, float(max(run.history.last_step or 0, 1))
    series = []

    def points(modes: NDArray[np.intp], y: Array, kind: str, shape: str) -> None:
        if len(modes):
            names = [f"{name}, {run.labels[k]}, {kind}" for k in modes]
            series.append(Series(key, name, variance[modes], y, color, kind, shape, names=names))  # type: ignore[arg-type]

    predicted = np.flatnonzero(np.isfinite(found.predicted) & np.array([w == way for w in found.way], bool))
    points(predicted, found.predicted[predicted], "theory", "rings")
    for status, kind, shape in (("early", "emerged", "down"), ("crossed", "emerged", "dots")):
        modes = found.modes(way, status)
        points(modes, found.time[modes], kind, shape)
    for status, kind, shape in (("not yet", "not yet", "up"), ("never", "never", "cross")):
        modes = found.modes(way, status)
        points(modes, np.full(len(modes), last * 1.15), kind, shape)
    for kind, laws, pattern in (("law", found.measured, 0), ("theory", found.theory, 1)):
        if way in laws and len(laws[way].x):
            law = laws[way]
            series.append(Series(key, name, law.x, law.y, color, kind, dash=pattern or dash, hover=False))
    return series


def ratio_chart(runs: Sequence[Run], ident: str) -> Chart:
    """Generated over data variance at the last step."""
    series: list[Series] = []
    for index, run in enumerate(runs):
        smooth, variance = run.smooth, run.history.target
        several = len(runs) > 1
        key, name, color = (
            (f"r{index}", run.name, f"r{index % 8}") if several else ("now", "at the last step", "accent")
        )
        low, high = _band(smooth)
        with np.errstate(divide="ignore", invalid="ignore"):
            limit = Series(key, name, variance, smooth.fixed_point / variance, color if several else "ink",
                           "fixed point", dash=1, hover=False)  # fmt: skip
            ends = {} if low is None or high is None else {"low": low[-1] / variance, "high": high[-1] / variance}
            now = Series(
                key,
                name,
                variance,
                smooth.variance[-1] / variance,
                color,
                "generated",
                "dots",
                **ends,
                names=run.labels,
            )
        series += [limit, now]
    x, y = Axis.over(_DATA, [s.x for s in series]), Axis.over("generated / data variance", [[1], *_with_bars(series)])
    note = "Bars: 95 % intervals. Dashed: what the sampler makes of an exact linear denoiser."
    return Chart(ident, "Ratio of the spectra at the end", x, y, series, note, levels=(1.0,))


def gain_chart(run: Run, ident: str) -> Chart | None:
    """Gain of the denoiser along the modes against noise level at the last step; None if it was not measured."""
    history = run.history
    field = next((name for name in ("gain", "data_gain") if name in history and np.isfinite(history[name]).any()), None)
    if field is None or "levels" not in history:
        return None
    levels, table = history["levels"], np.asarray(history[field], np.float64)
    at = int(np.flatnonzero(np.isfinite(table).any((1, 2)))[-1])
    modes, order, series = shown_modes(history, 8), np.argsort(levels), []
    dense = np.geomspace(levels[levels > 0].min(), levels.max(), 80)
    for k, color in _colors(modes):
        lam, name = history.target[k], f"{run.labels[k]} · {history.target[k]:.3g}"
        series.append(Series(f"{k}", name, dense, lam / (lam + dense**2), color, "exact, λ/(λ+σ²)", hover=False))
        if run.prediction is not None and "gain" in run.prediction:
            gains = run.prediction["gain"][-1, :, k]
            series.append(Series(f"{k}", name, levels[order], gains[order], color, "theory", dash=1))
        series.append(Series(f"{k}", name, levels[order], table[at, order, k], color, "measured", "dots"))
    x = Axis.over(_LEVEL, [levels])
    y = Axis.over("gain of the denoiser", [[0, 1], table[at][:, modes]], "linear")
    where = "along the sampler's path" if field == "gain" else "at held-out points"
    return Chart(
        ident, "Gain per noise level", x, y, series, f"At step {int(history.steps[at]):,}, {where}.", levels=(0.0, 1.0)
    )


def floor_chart(runs: Sequence[Run], ident: str) -> Chart | None:
    """Loss over its linear floor against noise level; None if it was not measured."""
    series: list[Series] = []
    for index, run in enumerate(runs):
        series += _floor_series(run) if len(runs) == 1 else _held_out(run, f"r{index}", run.name, f"r{index % 8}", 0)
    if not series:
        return None
    x, y = (
        Axis.over(_LEVEL, [s.x for s in series]),
        Axis.over("loss / linear floor", [[1], *_with_bars(series)]),
    )
    note = "Below 1 the denoiser knows more than mean and covariance. Bars: 95 % intervals."
    return Chart(ident, "Loss over its linear floor", x, y, series, note, levels=(1.0,))


def _floor_series(run: Run) -> list[Series]:
    history, series = run.history, []
    if "over_floor" in history:
        rows = np.flatnonzero(np.isfinite(history["over_floor"]).any(1))
        earlier = np.unique(np.linspace(0, len(rows) - 1, min(_EARLIER + 1, len(rows))).round().astype(int))[:-1]
        order = np.argsort(history["levels"])
        for place, row in enumerate(rows[earlier]):
            name = f"step {int(history.steps[row]):,}"
            series.append(
                Series(name, name, history["levels"][order], history["over_floor"][row, order], f"t{place}", "earlier")
            )
        series += _held_out(run, "held out", "held-out data", "accent", 0)
    if "over_class_floor" in history:
        series += _held_out(run, "class", "floor within classes", "r3", 0, "over_class_floor")
    if "training_error" in history:
        row = history.row(-1)
        ratio = training_ratio(row["training_error"], row["training_linear_error"], row["training_count"])
        if np.isfinite(ratio).any():
            series.append(Series("training", "training passes", history["bins"], ratio, "r1", "training", dash=1))
    return series


def _held_out(run: Run, key: str, name: str, color: str, dash: int, field: str = "over_floor") -> list[Series]:
    history = run.history
    if field not in history or not np.isfinite(history[field][-1]).any():
        return []
    order, ratio, error = np.argsort(history["levels"]), history[field][-1], history[f"{field}_error"][-1]
    levels, low, high = history["levels"][order], (ratio - _95 * error)[order], (ratio + _95 * error)[order]
    return [Series(key, name, levels, ratio[order], color, key, "dots", low=np.maximum(low, 1e-6), high=high)]


def _with_bars(series: Sequence[Series]) -> list[Array]:
    """Values and the ends of their bars, which lie within a factor of 3 of all values."""
    values = [np.asarray(one.y, np.float64) for one in series]
    shown = np.concatenate(values)
    shown = shown[np.isfinite(shown) & (shown > 0)]
    if not len(shown):
        return values
    ends = [np.asarray(end, np.float64) for one in series for end in (one.low, one.high) if end is not None]
    return values + [end.clip(shown.min() / 3, shown.max() * 3) for end in ends]


def _band(history: SpectralHistory) -> tuple[Array | None, Array | None]:
    """95 % intervals of the variances, from the standard error of their logarithm; None if it is unknown."""
    if "standard_error" not in history or not np.isfinite(history["standard_error"]).any():
        return None, None
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        factor = np.exp(np.minimum(_95 * history["standard_error"] / history.variance, 50.0))
        return history.variance / factor, history.variance * factor


def _colors(modes: Sequence[int]) -> list[tuple[int, str]]:
    last = max(len(modes) - 1, 1)
    return [(k, f"m{round(i * (RAMP - 1) / last)}") for i, k in enumerate(modes)]
