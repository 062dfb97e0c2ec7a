"""Counterparts of the theory's figures in Wang & Pehlevan 2025 (WP), and figures of propositions that WP does not draw.

Figures 2, 5, 6, 7 and 8 follow the captions of WP; variances, learning rate and times are ours where a caption does not
give them. The others show convolutions, and a mean learnt with the covariance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from spectral_lightning.emergence import StaysWithin
from spectral_lightning.report.theory.curves import TheoryCurves
from spectral_lightning.report.theory.figures import (
    CURVE_COLUMNS,
    EMERGENCE,
    TIME,
    Row,
    TheoryFigure,
    curve_rows,
    curves_figure,
    draw_variance,
    emergence_grid,
    name_axes,
    panel_grid,
)
from spectral_lightning.theory import (
    FlowMatching,
    FullWidthConvolution,
    GaussianData,
    GaussianField,
    LocalConvolution,
    ModewiseDynamics,
    NonCenteredOneLayer,
    Objective,
    OneLayer,
    SymmetricTwoLayer,
)
from spectral_lightning.theory.families.local_convolution import LocalCurves

__all__ = ["FIGURES", "convolution", "flow_velocities", "non_centered", "power_law_field", "scaling", "two_families"]

Array = NDArray[np.float64]
Families = Mapping[str, Callable[[Objective, float], ModewiseDynamics]]

OBJECTIVE = Objective(1e-3)
TWO: Families = {"one layer": OneLayer, "symmetric two layer": SymmetricTwoLayer}
VARIANCES = np.array([10, 3, 1, 0.3, 0.1, 0.03, 0.01, 0.001])  # WP figure 7
CRITERIA = ("geometric", StaysWithin(0.1))  # the second extends the curves until they have settled
SCALING = np.geomspace(1e2, 1e-3, 20)
INITS = (0.0, 0.1, 0.5, 0.6, 1.0)  # WP figures 6 and 8
FLOW_TIMES = (0.1, 0.5, 0.9, 0.99)  # WP figure 7
PIXELS, KERNEL = 64, 3
LONG = 8  # pixels from which on a wave is long compared with the kernel
_STYLE = {"one layer": ("o", "0.45"), "full width": ("^", "#b2432f"), "local": ("s", "#2b5c8a")}


def two_families(init: float, title: str) -> TheoryFigure:
    """WP figures 2 and 5: one layer and two symmetric layers from one gain; weight at sigma = 1, variance, emergence."""
    drawn = []
    for name, make in TWO.items():
        solved = make(OBJECTIVE, init).on(VARIANCES)
        drawn.append(TheoryCurves(solved, name, weights={"sigma = 1": partial(solved.weight, sigma=1.0)}))
    return curves_figure(drawn, title, CRITERIA)


def flow_velocities(title: str) -> TheoryFigure:
    """WP figure 7: one layer of flow matching from Q = 0.1; velocity weights at four flow times, variance."""
    solved = FlowMatching(OBJECTIVE, 0.1).on(VARIANCES)
    weights = {f"t = {t:g}": partial(solved.velocity_weight, flow_time=t) for t in FLOW_TIMES}
    drawn = TheoryCurves(solved, "flow matching, Q = 0.1", weights=weights, model="velocity")
    return curves_figure([drawn], title, CRITERIA)


def scaling(families: Families, title: str) -> TheoryFigure:
    """WP figures 6 and 8: emergence time against variance for five initial gains and two criteria."""

    def panel(name: str, q: float, family: ModewiseDynamics) -> tuple[str, TheoryCurves]:
        return f"Q = {q:g}", TheoryCurves(family.on(SCALING), f"{name}, Q={q:g}")

    rows = [
        (f"{name}, {criterion}", criterion, [panel(name, q, make(OBJECTIVE, q)) for q in INITS])
        for criterion in ("harmonic", "geometric")
        for name, make in families.items()
    ]
    return emergence_grid(rows, title)


def power_law_field(pixels: int) -> Array:
    """Variances ``10 / max(k, 1)^2`` of the Fourier modes of a field on a circle, in the order of ``numpy.fft``."""
    waves = np.abs(np.fft.fftfreq(pixels) * pixels)
    return np.asarray(10 / np.maximum(waves, 1.0) ** 2, np.float64)


def convolution() -> TheoryFigure:
    """WP propositions 5.3 and 5.4: full-width and local kernels on one field of 64 pixels, from Q = 0."""
    field = GaussianField(power_law_field(PIXELS)[:, None, None])
    full, local = FullWidthConvolution(OBJECTIVE).on(field), LocalConvolution(OBJECTIVE, KERNEL).on(field)
    waves = np.arange(1, PIXELS // 2 + 1)
    data, limit = full.variance[waves], local.generated_variance(np.inf)[waves]
    times = {
        "one layer": OneLayer(OBJECTIVE).on(data).emergence_time(),
        "full width": full.emergence_time()[waves],
        "local": local.emergence_time()[waves],
    }
    title = f"WP propositions 5.3 and 5.4: a field of {PIXELS} pixels with spectrum $1/k^2$, Q = 0"
    figure, grid, color = panel_grid(2, 3, data, title, "Fourier mode")
    rows: list[Row] = []
    for axes, name, solved in ((grid[0], "full width", full), (grid[1], f"local, {KERNEL} taps", local)):
        curves = TheoryCurves(solved, name)
        shown = TheoryCurves(solved, name, modes=2 ** np.arange(int(np.log2(PIXELS))))
        rows += draw_variance(axes, shown, curves.span([curves.times("geometric")], 200), color, f"{name}: ")
    _draw_times(grid[2], PIXELS / waves, times)
    kernels, gains = _draw_kernel(grid[3], local), _draw_transfer(grid[4], local, waves)
    _draw_limit(grid[5], waves, data, limit)
    emerged = [
        row
        for name, time in times.items()
        for row in zip([name] * len(waves), waves, PIXELS / waves, data, time, strict=True)
    ]
    return TheoryFigure(
        figure,
        {
            "curves": (CURVE_COLUMNS, rows),
            "emergence": (("family", "periods", "wavelength", "variance", "time"), emerged),
            "kernel": (("offset", "time", "value"), kernels),
            "transfer": (("time", "periods", "gain"), gains),
            "limit": (("periods", "variance", "limit"), list(zip(waves, data, limit, strict=True))),
        },
    )


def non_centered() -> TheoryFigure:
    """WP section 4.2, data with a mean: the gain along its direction overshoots until the bias takes over."""
    mean, sigma, time = np.array([0.0, 2.0]), 1.0, np.geomspace(1.0, 3e5, 300)
    theory = NonCenteredOneLayer(OBJECTIVE).on(GaussianData(np.diag([1.0, 0.05]), mean))
    modes, variance = theory.modes, theory.variance
    curves: dict[str, tuple[Callable[[Any], Array], Array | None]] = {
        "gain": (lambda t: theory.weight(t, sigma), None),
        "bias": (lambda t: theory.bias(t, sigma) @ modes, None),
        "generated mean": (lambda t: theory.generated_mean(t) @ modes, mean @ modes),
        "generated variance": (theory.generated_variance, variance),
    }
    title = "WP section 4.2, data with a mean: the gain overshoots until the bias has learnt the mean (dots: optimum)"
    figure, grid, color = panel_grid(1, 4, variance, title, "data")
    rows: list[Row] = []
    for axes, (name, (of, target)) in zip(grid, curves.items(), strict=True):
        table, end = of(time), of(np.inf) if target is None else target
        for k, lam in enumerate(variance):
            shade = color.to_rgba(np.asarray(lam))
            axes.plot(time, table[:, k], color=shade, label=f"$\\lambda$ = {lam:g}, mean {(mean @ modes)[k]:g}")
            axes.axhline(end[k], color=shade, linestyle=":", linewidth=0.9)
        level = "sigma = 1" if target is None else ""
        head = name + level.replace("sigma", " at $\\sigma$")
        name_axes(axes, head, xscale="log", xlabel=TIME, ylabel=f"{name} along the mode")
        rows += curve_rows("one layer with bias", name, level, variance, time, table)
    grid[3].set_yscale("log")
    grid[0].legend(fontsize=8, loc="best")
    return TheoryFigure(figure, {"curves": (CURVE_COLUMNS, rows)})


def _draw_times(axes: Axes, wavelength: Array, times: dict[str, Array]) -> None:
    axes.axvspan(LONG, wavelength.max() * 1.15, color="0.93", zorder=0)
    for name, time in times.items():
        marker, shade = _STYLE[name]
        spread = time[wavelength >= LONG]
        label = f"{name}: $\\times$ {spread.max() / spread.min():.3g} over long waves"
        axes.plot(wavelength, time, marker, color=shade, markersize=3.5, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xlim(1.8, wavelength.max() * 1.15)
    head = "emergence, geometric (gray: long waves)"
    name_axes(axes, head, 7.5, yscale="log", xlabel="wavelength, pixels", ylabel=EMERGENCE)


def _draw_kernel(axes: Axes, local: LocalCurves) -> list[Row]:
    time = np.geomspace(1e-2, 1e3, 200)
    kernel, half = local.kernel(time, 1.0)[:, 0, 0], KERNEL // 2
    for offset in range(half + 1):
        shade = "0.2" if offset == 0 else "0.55"
        axes.plot(time, kernel[:, half + offset], color=shade, label="centre" if offset == 0 else f"offset {offset}")
    name_axes(axes, "local: kernel at $\\sigma$ = 1", 8, xscale="log", xlabel=TIME, ylabel="weight of the tap")
    return [(a - half, t, v) for a in range(KERNEL) for t, v in zip(time, kernel[:, a], strict=True)]


def _draw_transfer(axes: Axes, local: LocalCurves, waves: NDArray[np.int64]) -> list[Row]:
    time = np.array([1.0, 3.0, 10.0, 100.0, np.inf])
    gain = local.weight(time, 1.0)[:, waves]
    for t, row, shade in zip(time, gain, np.linspace(0.8, 0.0, len(time)), strict=True):
        axes.plot(waves, row, color=str(shade), label="$\\infty$" if np.isinf(t) else f"{t:g}")
    axes.plot(waves, local.optimal_weight(1.0)[waves], ":", color="#b2432f", label="exact denoiser")
    axes.set_xscale("log", base=2)
    head = "local: transfer function at $\\sigma$ = 1, by time"
    name_axes(axes, head, xlabel="periods per field, k", ylabel="gain of the denoiser on the mode")
    axes.legend(fontsize=7, title="$\\tau$, steps", title_fontsize=7, loc="lower left", ncols=3)
    return [(t, k, v) for t, row in zip(time, gain, strict=True) for k, v in zip(waves, row, strict=True)]


def _draw_limit(axes: Axes, waves: NDArray[np.int64], data: Array, limit: Array) -> None:
    axes.plot(waves, data, "-", color="0.45", label="data, and the limit of full width")
    axes.plot(waves, limit, "s", color=_STYLE["local"][1], markersize=3.5, label="limit of the local kernel")
    axes.set_xscale("log", base=2)
    names = {"xlabel": "periods per field, k", "ylabel": "variance of the Fourier mode"}
    name_axes(axes, "generated spectrum at the end of learning", 8, yscale="log", **names)


FIGURES: dict[str, Callable[[], TheoryFigure]] = {
    "figure_2": partial(two_families, 0.1, "Counterpart of WP figure 2: learning from a small initial gain, Q = 0.1"),
    "figure_5": partial(two_families, 0.5, "Counterpart of WP figure 5: learning from a large initial gain, Q = 0.5"),
    "figure_6": partial(
        scaling, TWO, "Counterpart of WP figure 6: the law depends on the initial gain and on the criterion"
    ),
    "figure_7": partial(
        flow_velocities, "Counterpart of WP figure 7: one layer of flow matching, Q = 0.1, gain of the velocity"
    ),
    "figure_8": partial(
        scaling, {"flow matching": FlowMatching}, "Counterpart of WP figure 8: one layer of flow matching"
    ),
    "convolution": convolution,
    "non_centered": non_centered,
}
"""What ``paper-figures`` draws, by name."""
