"""The figure of the prediction tests: variances exchanged, data whitened, shares of a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from spectral_lightning.emergence import ModeEmergence
from studies.estimate import Estimate
from studies.predictions_statistics import Exchange

__all__ = ["figure"]

_RED, _BLUE, _GRAY = "#b2432f", "#2b5c8a", "0.6"


def figure(
    plain: Sequence[ModeEmergence],
    white: Sequence[ModeEmergence],
    exchanged: Mapping[str, Sequence[Exchange]],
    ratios: Mapping[float, Estimate],
    theory: Mapping[float, float],
    bounds: Mapping[float, float],
) -> Figure:
    """Three panels.

    Args:
        plain: of the data as they are, one per seed.
        white: of the whitened data.
        exchanged: pairs of directions by name of the data.
        ratios: of the classes' times, by share of the class of higher variance.
        theory: the same for classes learnt independently.
        bounds: what the ratio is above, where the first class has not got to its median.
    """
    made = Figure(figsize=(10, 3.9), layout="constrained")
    left, middle, right = made.subplots(1, 3)
    _exchange_panel(left, exchanged)
    _white_panel(middle, plain, white)
    _class_panel(right, ratios, theory, bounds)
    return made


def _exchange_panel(axes: Axes, exchanged: Mapping[str, Sequence[Exchange]]) -> None:
    for marker, (name, pairs) in zip("os", exchanged.items(), strict=True):
        for pair in pairs:
            axes.plot(pair.before[0], pair.after[0], marker, color=_RED, markersize=4, alpha=0.8)
            axes.plot(pair.before[1], pair.after[1], marker, color=_BLUE, markersize=4, alpha=0.8)
            # Where both would be if each direction took over the time of the other.
            axes.plot(*pair.before, "+", color="0.2", markersize=6)
            axes.plot(*pair.before[::-1], "+", color="0.2", markersize=6)
        axes.plot([], [], marker, color=_GRAY, label=name)
    _log(axes, "xy")
    low, high = (f(axes.get_xlim()[i], axes.get_ylim()[i]) for i, f in enumerate((min, max)))
    axes.plot([low, high], [low, high], "-", color=_GRAY, linewidth=1)
    handles = [
        Line2D([], [], color=_RED, marker="o", linestyle="", label="had the larger variance"),
        Line2D([], [], color=_BLUE, marker="o", linestyle="", label="had the smaller variance"),
        Line2D([], [], color="0.2", marker="+", linestyle="", label="times exchanged exactly"),
        Line2D([], [], color=_GRAY, linewidth=1, label="times unchanged"),
        *(Line2D([], [], color=_GRAY, marker=m, linestyle="", label=n) for m, n in zip("os", exchanged, strict=True)),
    ]
    axes.legend(handles=handles, fontsize=6.5, framealpha=0.85)
    axes.set_xlabel("emergence of a direction, updates")
    axes.set_ylabel("the same direction, variances exchanged")
    axes.set_title("Exchanged variances", loc="left", fontsize=10)


def _white_panel(axes: Axes, plain: Sequence[ModeEmergence], white: Sequence[ModeEmergence]) -> None:
    for name, color, found in (("variances 4/k^0.75", _BLUE, plain), ("whitened", _RED, white)):
        for number, one in enumerate(found):
            time = np.sort(one.time[one.crossed("rising")])
            share = np.arange(1, len(time) + 1) / max(len(time), 1)
            axes.plot(time, share, drawstyle="steps-post", color=color, linewidth=1.2, label="" if number else name)
    _log(axes, "x")
    axes.set_xlabel("updates")
    axes.set_ylabel("share of the modes that have emerged")
    axes.legend(fontsize=7, framealpha=0.85)
    axes.set_title("White data", loc="left", fontsize=10)


def _class_panel(
    axes: Axes, ratios: Mapping[float, Estimate], theory: Mapping[float, float], bounds: Mapping[float, float]
) -> None:
    known = {share: one for share, one in ratios.items() if one.determinable}
    value = np.array([one.value for one in known.values()])
    ends = np.array([[one.value - one.low, one.high - one.value] for one in known.values()]).reshape(-1, 2).T
    axes.errorbar(
        list(known), value, np.where(np.isfinite(ends), ends, 0), fmt="o", color=_RED, label="measured [95 %]"
    )
    if bounds:
        axes.plot(list(bounds), list(bounds.values()), "^", color=_RED, fillstyle="none", label="above this")
    axes.plot(
        list(theory), list(theory.values()), "--", color=_BLUE, linewidth=1.5, label="classes learnt independently"
    )
    axes.axhline(1, color=_GRAY, linewidth=1)
    _log(axes, "xy")
    axes.invert_xaxis()
    axes.set_xticks(list(ratios), [f"{share:g}" for share in ratios])
    axes.set_xlabel("share of the class of higher variance")
    axes.set_ylabel("its median emergence over the other's")
    axes.legend(fontsize=7, framealpha=0.85)
    axes.set_title("Classes out of balance", loc="left", fontsize=10)


def _log(axes: Axes, which: str) -> None:
    """Logarithmic axes with plain numbers that do not crowd."""
    for name in which:
        getattr(axes, f"set_{name}scale")("log")
        axis = getattr(axes, f"{name}axis")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())
