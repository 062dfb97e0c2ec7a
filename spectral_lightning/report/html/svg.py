"""A small writer of charts as inline SVG; colours come from the page's style sheet, so that they follow its theme."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import ArrayLike, NDArray
from PIL import Image

__all__ = ["Axis", "Chart", "HeatMap", "Series", "png"]

Array = NDArray[np.float64]

WIDTH, HEIGHT = 560, 390
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 20, 36, 50
_LINEAR = 0.4  # length of steps 0 to 1, in decades
_MOST_TICKS = 7
_FINEST = 1.0  # points of a curve closer than this many units are not drawn
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_FEW = 60  # larger numbers of dots are drawn smaller
_SVG = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}"><g class="axes">{}</g>{}</svg>')
_GRID = Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>')
_LEVEL = Markup('<line class="level" x1="{}" x2="{}" y1="{}" y2="{}"/>')
_TEXT = Markup('<text class="{}" x="{}" y="{}">{}</text>')
_MAP = (420, 400)  # most columns and rows of a heat map


@dataclass(frozen=True)
class Axis:
    """An axis: what it shows and how values become places on it.

    Attributes:
        label: text beside it.
        start: transformed value at its beginning.
        stop: transformed value at its end.
        kind: ``"log"``, ``"linear"``, or ``"step"``, which is linear from 0 to 1 and logarithmic beyond.
    """

    label: str
    start: float
    stop: float
    kind: Literal["log", "linear", "step"]

    @classmethod
    def over(
        cls, label: str, values: Iterable[ArrayLike], kind: Literal["log", "linear", "step"] = "log", pad: float = 0.04
    ) -> Axis:
        """An axis that holds all finite values, and a share ``pad`` more at both ends."""
        flat = np.concatenate([np.ravel(np.asarray(v, np.float64)) for v in values] or [np.empty(0)])
        found = _transformed(flat, kind)
        found = found[np.isfinite(found)]
        low, high = (float(found.min()), float(found.max())) if len(found) else (0.0, 1.0)
        least = 0.2 if kind == "log" else 1.0 if kind == "step" else 1e-12 + 0.02 * max(abs(low), abs(high))
        short = max(least - (high - low), 0.0) / 2
        low, high = low - (0 if kind == "step" else short), high + short * (1 + (kind == "step"))
        return cls(label, low - pad * (high - low), high + pad * (high - low), kind)

    def place(self, values: ArrayLike) -> Array:
        """Places from 0 to 1; NaN for values that the axis cannot show."""
        return (_transformed(np.asarray(values, np.float64), self.kind) - self.start) / (self.stop - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Values to mark, and their texts."""
        if self.kind == "linear":
            return [(v, f"{v:.6g}") for v in _even(self.start, self.stop)]
        shift = _LINEAR if self.kind == "step" else 0.0
        decades = range(math.ceil(self.start - shift - 1e-9), math.floor(self.stop - shift + 1e-9) + 1)
        if self.kind == "step":
            decades = range(max(decades.start, 0), decades.stop)
            zero = [(0.0, "0")] if self.start <= 0 else []
            stride = -(-len(decades) // _MOST_TICKS)
            return zero + [(10.0**k, _steps(k)) for k in decades[::stride]]
        if len(decades) < 3:
            fine = (1, 1.5, 2, 3, 5, 7) if self.stop - self.start < 1 else (1, 2, 5)
            values = [m * 10.0**k for k in range(decades.start - 1, decades.stop + 1) for m in fine]
            shown = [v for v in values if self.start <= math.log10(v) <= self.stop]
            return [(v, f"{v:.6g}") for v in (shown if len(shown) > 2 else _even(10**self.start, 10**self.stop))]
        stride = -(-len(decades) // _MOST_TICKS)
        return [(10.0**k, "10" + str(k).translate(_SUPERSCRIPT)) for k in decades if k % stride == 0]


@dataclass(frozen=True, eq=False)
class Series:
    """Points of one colour: a line, dots or signs.

    Attributes:
        key: what one legend button shows and hides.
        name: text of that button, and of the points unless they have ``names``.
        x: values along the horizontal axis.
        y: values along the vertical axis.
        color: name of a colour variable of the style sheet.
        kind: what the buttons of the second row show and hide.
        shape: how the points are drawn.
        dash: number of a dash pattern, 0 for a solid line.
        low: lower ends of a band about a line, or of bars about dots.
        high: upper ends.
        names: a name for each point.
        hover: whether the pointer finds the points.
    """

    key: str
    name: str
    x: ArrayLike
    y: ArrayLike
    color: str
    kind: str = ""
    shape: Literal["line", "dots", "rings", "up", "down", "cross", "target"] = "line"
    dash: int = 0
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    names: Sequence[str] | None = None
    hover: bool = True


class Chart:
    """Axes and series, drawn as SVG, with the numbers that a script shows under the pointer.

    Args:
        ident: unique among the charts of a page.
        title: heading.
        x: horizontal axis.
        y: vertical axis.
        series: what is drawn, the first below the others.
        note: text below the heading.
        levels: values of y that are marked by a line.
        under: SVG below the series, escaped already.
        ticks: values of y to mark, and their texts; by default those of its axis.
    """

    def __init__(
        self,
        ident: str,
        title: str,
        x: Axis,
        y: Axis,
        series: Sequence[Series],
        note: str = "",
        levels: Sequence[float] = (),
        under: str = "",
        ticks: Sequence[tuple[float, str]] | None = None,
    ) -> None:
        self.ident, self.title, self.x, self.y, self.note = ident, title, x, y, note
        self.series = list(series)
        self._points: list[dict[str, Any]] = []
        marks = [
            _LEVEL.format(_LEFT, WIDTH - _RIGHT, up, up)
            for up in (_number(float(_vertical(y, level))) for level in levels if 0 <= float(y.place(level)) <= 1)
        ]
        drawn = Markup("").join([Markup(under), *marks, *map(self._draw, self.series)])
        self.svg = _svg(title, x, y, drawn, y.ticks() if ticks is None else ticks)

    @property
    def keys(self) -> list[Series]:
        """The first series of every key, for the legend."""
        return list({one.key: one for one in reversed(self.series)}.values())[::-1]

    @property
    def kinds(self) -> list[Series]:
        """The first series of every kind, for the legend; none if there is one kind only."""
        found = {one.kind: one for one in reversed(self.series) if one.kind}
        return list(found.values())[::-1] if len(found) > 1 else []

    @property
    def data(self) -> dict[str, Any]:
        """Places and values of the points that the pointer finds."""
        return {"x": self.x.label, "y": self.y.label, "series": self._points}

    def _draw(self, one: Series) -> Markup:
        """One series as SVG; its points are added to :attr:`data`."""
        x, y = np.ravel(np.asarray(one.x, np.float64)), np.ravel(np.asarray(one.y, np.float64))
        px, py = _horizontal(self.x, x), _vertical(self.y, y)
        keep = np.flatnonzero(np.isfinite(px) & np.isfinite(py))
        if one.shape == "line":
            keep = _thinned(px, keep)
        parts = []
        if one.low is not None and one.high is not None:
            ends = [
                _vertical(self.y, np.asarray(v, np.float64)).clip(_TOP, HEIGHT - _BOTTOM) for v in (one.low, one.high)
            ]
            low, high = (np.where(np.isfinite(v), v, py) for v in ends)
            parts.append((_band if one.shape == "line" else _bars)(px[keep], low[keep], high[keep]))
        if one.shape == "line":
            parts.append(Markup('<path class="line d{}" d="{}"/>').format(one.dash, _polyline(px, py, keep)))
        else:
            size = " many" if len(keep) > _FEW else ""
            parts.append(
                Markup('<path class="{}{}" d="{}"/>').format(one.shape, size, _signs(px[keep], py[keep], one.shape))
            )
        if one.hover and len(keep):
            self._points.append(self._values(one, x, y, px, py, keep))
        return Markup('<g class="s" data-key="{}" data-kind="{}" style="--c:var(--{})">{}</g>').format(
            one.key, one.kind, one.color, Markup("").join(parts)
        )

    def _values(self, one: Series, x: Array, y: Array, px: Array, py: Array, keep: NDArray[np.intp]) -> dict[str, Any]:
        found: dict[str, Any] = {
            "key": one.key, "kind": one.kind, "name": one.name,
            "px": [round(float(v), 1) for v in px[keep]], "py": [round(float(v), 1) for v in py[keep]],
            "x": _rounded(x[keep]), "y": _rounded(y[keep]),
        }  # fmt: skip
        if one.low is not None and one.high is not None:
            found["low"], found["high"] = (
                _rounded(np.ravel(np.asarray(v, np.float64))[keep]) for v in (one.low, one.high)
            )
        if one.names is not None:
            found["names"] = [one.names[i] for i in keep]
        return found


class HeatMap:
    """Logarithms of ratios by step and mode as colours, with points and lines on top.

    Args:
        ident: unique among the charts of a page.
        title: heading.
        steps: ``[T]``.
        values: the numbers whose ratio is shown, ``[T, K]``.
        reference: what they are divided by, ``[K]``.
        names: of the modes, ``[K]``.
        series: what is drawn on top, at y = :meth:`middle`.
        note: text below the heading.
    """

    def __init__(
        self,
        ident: str,
        title: str,
        steps: ArrayLike,
        values: Array,
        reference: Array,
        names: Sequence[str],
        series: Sequence[Series] = (),
        note: str = "",
    ) -> None:
        shown = _fewer(np.asarray(steps, np.float64), _MAP[0])
        t, values, count = np.asarray(steps, np.float64)[shown], values[shown], len(reference)
        inside = np.minimum(10 ** np.linspace(0, math.log10(count + 1), _MAP[1] + 1)[:-1], count).astype(int) - 1
        rows = np.unique(np.arange(count) if count <= _MAP[1] else inside)
        self.x = Axis.over("optimizer updates", [t, [0]], "step", 0.0)
        self.y = Axis(
            "mode, by data variance", math.log10(count + 1), 0.0, "log"
        )  # mode k from k to k + 1, the first on top
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.log10(values / reference)
        finite = np.abs(ratio[np.isfinite(ratio)])
        reach = 10 ** float(np.quantile(finite, 0.98)) if len(finite) else 10.0
        self.most = next(most for k in range(300) for most in (3 * 10.0**k, 10.0 ** (k + 1)) if most >= reach * 0.99)
        place = _transformed(t, "step")
        inner = np.linspace(self.x.start, self.x.stop, _MAP[0])
        index = _levels(ratio / math.log10(self.most))[np.abs(place[:, None] - inner).argmin(0)].T[inside]
        box = Markup('x="{}" y="{}" width="{}" height="{}"').format(
            _LEFT, _TOP, WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
        )
        images = [
            Markup('<image class="{}" {} preserveAspectRatio="none" href="{}"/>').format(
                theme, box, png(index, palette)
            )
            for theme, palette in _PALETTES.items()
        ]
        ticks = [(self.middle(k), f"{k:,}") for n in range(7) for k in (10**n, 2 * 10**n, 5 * 10**n) if k <= count]
        chart = Chart(ident, title, self.x, self.y, series, note, under=Markup("").join(images), ticks=ticks)
        self.ident, self.title, self.note, self.svg, self.kinds = ident, title, note, chart.svg, chart.kinds
        edges = self.x.start, *((place[1:] + place[:-1]) / 2), self.x.stop
        scale = (WIDTH - _LEFT - _RIGHT) / (self.x.stop - self.x.start)
        self.data = {
            "heat": True,
            "steps": [int(step) for step in t],
            "edges": [round(float(_LEFT + (edge - self.x.start) * scale), 1) for edge in edges],
            "top": _TOP,
            "bottom": HEIGHT - _BOTTOM,
            "rows": rows.tolist(),
            "count": count,
            "names": [names[row] for row in rows],
            "reference": _rounded(reference[rows]),
            "values": base64.b64encode(np.ascontiguousarray(values[:, rows], dtype="<f4").tobytes()).decode(),
        }

    @staticmethod
    def middle(mode: ArrayLike) -> Any:
        """Where the middle of a mode, counted from 1, lies on the vertical axis."""
        return np.sqrt(np.asarray(mode) * (np.asarray(mode) + 1.0))


def png(pixels: NDArray[np.uint8], palette: NDArray[np.uint8] | None = None) -> str:
    """A data URI of grey ``[H, W]``, colour ``[H, W, 3]``, or indexed pixels."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if palette is not None:
        image = Image.fromarray(np.ascontiguousarray(pixels), mode="P")
        image.putpalette(palette.tobytes())
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _palette(below: str, middle: str, above: str, unknown: str) -> NDArray[np.uint8]:
    """255 colours from below over the middle to above, and the last for unknown."""
    stops = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in (below, middle, above)]
    place = np.linspace(0, 2, 255)
    ramp = np.stack([np.interp(place, [0, 1, 2], [stop[i] for stop in stops]) for i in range(3)], 1)
    last = [[int(unknown[i : i + 2], 16) for i in (1, 3, 5)]]
    return np.concatenate([ramp, last]).round().astype(np.uint8)


_PALETTES = {
    "light": _palette("#1f5f9e", "#f3f1ec", "#b5402a", "#c9c7c2"),
    "dark": _palette("#6aaaf0", "#23262d", "#f08468", "#4a4d55"),
}


def _levels(share: Array) -> NDArray[np.uint8]:
    """Colour of each share of the largest deviation, -1 to 1; the last for NaN."""
    clipped = np.nan_to_num(share, nan=0.0, posinf=1.0, neginf=-1.0).clip(-1, 1)
    return np.where(np.isnan(share), 255, ((clipped + 1) * 127).round()).astype(np.uint8)


def _transformed(values: Array, kind: str) -> Array:
    if kind == "linear":
        return np.where(np.isfinite(values), values, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "step":
            found = np.where(values < 1, _LINEAR * values, _LINEAR + np.log10(np.maximum(values, 1)))
        else:
            found = np.log10(np.where(values > 0, values, np.nan))
    return np.where(np.isfinite(found), found, np.nan)


def _horizontal(axis: Axis, values: ArrayLike) -> Array:
    return _LEFT + axis.place(values) * (WIDTH - _LEFT - _RIGHT)


def _vertical(axis: Axis, values: ArrayLike) -> Array:
    return HEIGHT - _BOTTOM - axis.place(values) * (HEIGHT - _TOP - _BOTTOM)


def _svg(title: str, x: Axis, y: Axis, inside: Markup, ticks: Sequence[tuple[float, str]]) -> Markup:
    bottom, parts = HEIGHT - _BOTTOM, []
    for value, text in x.ticks():
        across = _number(float(_horizontal(x, value)))
        parts.append(_GRID.format(across, across, _TOP, bottom))
        parts.append(_TEXT.format("tx", across, bottom + 18, text))
    for value, text in ticks:
        up = float(_vertical(y, value))
        if _TOP <= up <= bottom:
            parts.append(_GRID.format(_LEFT, WIDTH - _RIGHT, _number(up), _number(up)))
            parts.append(_TEXT.format("ty", _LEFT - 8, _number(up + 4), text))
    parts.append(_TEXT.format("lx", WIDTH - _RIGHT, HEIGHT - 8, x.label))
    parts.append(_TEXT.format("ly", 4, 16, y.label))
    return _SVG.format(WIDTH, HEIGHT, title, Markup("").join(parts), inside)


def _fewer(steps: Array, most: int) -> NDArray[np.intp]:
    """At most that many of the steps, spread evenly over the axis."""
    place = _transformed(steps, "step")
    if len(steps) <= most:
        return np.arange(len(steps))
    return np.unique(np.abs(place[:, None] - np.linspace(place[0], place[-1], most)).argmin(0))


def _thinned(px: Array, keep: NDArray[np.intp]) -> NDArray[np.intp]:
    """Points of a curve that are at least one unit apart, and its ends."""
    if len(keep) < 3:
        return keep
    cell = np.floor(px[keep] / _FINEST)
    first = np.flatnonzero(np.diff(cell, prepend=-np.inf))
    return np.asarray(keep[np.unique([*first, len(keep) - 1])])


def _polyline(px: Array, py: Array, keep: NDArray[np.intp]) -> str:
    """A path through the points; it breaks where values between them are missing."""
    missing = np.cumsum(~(np.isfinite(px) & np.isfinite(py)))
    parts, last = [], -1
    for i in keep:
        parts.append(f"{'L' if missing[i] == last else 'M'}{px[i]:.1f} {py[i]:.1f}")
        last = missing[i]
    return "".join(parts)


def _band(px: Array, low: Array, high: Array) -> Markup:
    there = "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(px, high, strict=True))
    back = "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(px[::-1], low[::-1], strict=True))
    return Markup('<path class="band" d="M{}L{}Z"/>').format(there, back) if len(px) else Markup("")


def _bars(px: Array, low: Array, high: Array) -> Markup:
    path = "".join(f"M{x:.1f} {a:.1f}V{b:.1f}" for x, a, b in zip(px, low, high, strict=True))
    return Markup('<path class="bars" d="{}"/>').format(path)


_SIGNS = {
    "dots": "h0",
    "rings": "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0",
    "up": "m0 7v-12m-3.5 4l3.5 -5l3.5 5",
    "down": "m0 -7v12m-3.5 -4l3.5 5l3.5 -5",
    "cross": "m-3 -3l6 6m0 -6l-6 6",
    "target": "l8 -4v8z",
}


def _signs(px: Array, py: Array, shape: str) -> str:
    return "".join(f"M{x:.1f} {y:.1f}{_SIGNS[shape]}" for x, y in zip(px, py, strict=True))


def _rounded(values: ArrayLike) -> list[float | None]:
    """Numbers of six digits for a script; None where they are not finite."""
    return [float(f"{v:.6g}") if math.isfinite(v) else None for v in np.ravel(np.asarray(values, np.float64)).tolist()]


def _number(value: float) -> str:
    return str(escape(f"{value:.1f}"))


def _even(low: float, high: float) -> list[float]:
    """About five round numbers from low to high, 1, 2, 2.5 or 5 times a power of ten apart."""
    least = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(least))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= least * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _steps(power: int) -> str:
    """``10**power`` as 1, 10, 100, 1k, ..."""
    return f"{10 ** (power % 3)}{('', 'k', 'M', 'G', 'T')[power // 3]}" if power < 15 else f"1e{power}"
