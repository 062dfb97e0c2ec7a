"""Figures of propositions that WP states and does not draw: convolutions, and a mean learnt beside the covariance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from spectral_lightning.report.theory.curves import CURVE_COLUMNS, TheoryCurves
from spectral_lightning.report.theory.figures import draw_variance, panel_grid, time_label, variance_colors
from spectral_lightning.report.theory.paper import OBJECTIVE, PaperFigure
from spectral_lightning.theory import (
    FullWidthConvolution,
    GaussianData,
    GaussianField,
    LocalConvolution,
    NonCenteredOneLayer,
    OneLayer,
)
from spectral_lightning.theory.families.local_convolution import LocalCurves

__all__ = ["convolution", "non_centered", "power_law_field"]

Array = NDArray[np.float64]

PIXELS, KERNEL = 64, 3
LONG = 8  # pixels: from here on a wave is long compared with the kernel
_STYLE = {"one layer": ("o", "0.45"), "full width": ("^", "#b2432f"), "local": ("s", "#2b5c8a")}


def power_law_field(pixels: int) -> Array:
    """Variances ``10 / max(k, 1)^2`` of the Fourier modes of a field on a circle, in the order of ``numpy.fft``."""
    waves = np.abs(np.fft.fftfreq(pixels) * pixels)
    return np.asarray(10 / np.maximum(waves, 1.0) ** 2, np.float64)


def convolution() -> PaperFigure:
    """WP propositions 5.3 and 5.4: full-width and local kernels on one field of 64 pixels, from Q = 0."""
    field = GaussianField(power_law_field(PIXELS)[:, None, None])
    full = FullWidthConvolution(OBJECTIVE).on(field)
    local = LocalConvolution(OBJECTIVE, KERNEL).on(field)
    waves = np.arange(1, PIXELS // 2 + 1)
    times = {
        "one layer": OneLayer(OBJECTIVE).on(full.variance[waves]).emergence_time(),
        "full width": full.emergence_time()[waves],
        "local": local.emergence_time()[waves],
    }
    limit = local.generated_variance(np.inf)

    figure, grid, bar = panel_grid(2, 3)
    shown = 2 ** np.arange(int(np.log2(PIXELS)))
    color = variance_colors(full.variance[waves])
    rows: list[Sequence[Any]] = []
    for axes, name, solved in ((grid[0], "full width", full), (grid[1], f"local, {KERNEL} taps", local)):
        curves = TheoryCurves.of(solved, (), label=name).subset(shown)
        draw_variance(axes, curves, color)
        axes.set_title(f"{name}: {axes.get_title(loc='left')}", loc="left", fontsize=10)
        rows += curves.curve_rows()
    _draw_times(grid[2], PIXELS / waves, times)
    kernels = _draw_kernel(grid[3], local)
    gains = _draw_transfer(grid[4], local, waves)
    _draw_limit(grid[5], waves, full.variance[waves], limit[waves])
    figure.colorbar(color, cax=bar, label="variance of the Fourier mode, $\\lambda$")
    title = f"WP propositions 5.3 and 5.4: a field of {PIXELS} pixels with spectrum $1/k^2$, Q = 0"
    figure.text(0.01, 0.985, title, fontsize=12, va="top")
    emerged = [
        [name, k, PIXELS / k, full.variance[k], t]
        for name, all_ in times.items()
        for k, t in zip(waves, all_, strict=True)
    ]
    return PaperFigure(
        figure,
        {
            "curves": (CURVE_COLUMNS, rows),
            "emergence": (("family", "periods", "wavelength", "variance", "time"), emerged),
            "kernel": (("offset", "time", "value"), kernels),
            "transfer": (("time", "periods", "gain"), gains),
            "limit": (("periods", "variance", "limit"), [[k, full.variance[k], limit[k]] for k in waves]),
        },
    )


def non_centered() -> PaperFigure:
    """WP section 4.2, data with a mean: weights of the direction that holds it overshoot before the bias takes it over."""
    mean, sigma, time = np.array([0.0, 2.0]), 1.0, np.geomspace(1.0, 3e5, 300)
    theory = NonCenteredOneLayer(OBJECTIVE).on(GaussianData(np.diag([1.0, 0.05]), mean))
    modes = theory.modes  # one column per mode, smallest variance first
    tables = {
        "gain": theory.weight(time, sigma),
        "bias": theory.bias(time, sigma) @ modes,
        "generated mean": theory.generated_mean(time) @ modes,
        "generated variance": theory.generated_variance(time),
    }
    ends = {
        "gain": theory.weight(np.inf, sigma),
        "bias": theory.bias(np.inf, sigma) @ modes,
        "generated mean": mean @ modes,
        "generated variance": theory.variance,
    }
    figure, grid, bar = panel_grid(1, 4)
    color = variance_colors(theory.variance)
    for axes, (name, table) in zip(grid, tables.items(), strict=True):
        for k, lam in enumerate(theory.variance):
            shade = color.to_rgba(np.asarray(lam))
            axes.plot(time, table[:, k], color=shade, label=f"$\\lambda$ = {lam:g}, mean {(mean @ modes)[k]:g}")
            axes.axhline(ends[name][k], color=shade, linestyle=":", linewidth=0.9)
        axes.set_xscale("log")
        axes.set_xlabel(time_label(discrete=False))
        axes.set_ylabel(f"{name} along the mode")
        axes.set_title(f"{name} at $\\sigma$ = 1" if name in ("gain", "bias") else name, loc="left", fontsize=10)
    grid[3].set_yscale("log")
    grid[0].legend(fontsize=8, loc="best")
    figure.colorbar(color, cax=bar, label="variance of the data, $\\lambda$")
    title = "WP section 4.2, data with a mean: the gain overshoots until the bias has learnt the mean (dots: optimum)"
    figure.text(0.01, 0.985, title, fontsize=12, va="top")
    rows = [
        ["one layer with bias", name, "sigma = 1" if name in ("gain", "bias") else "", lam, t, value]
        for name, table in tables.items()
        for k, lam in enumerate(theory.variance)
        for t, value in zip(time, table[:, k], strict=True)
    ]
    return PaperFigure(figure, {"curves": (CURVE_COLUMNS, rows)})


def _draw_times(axes: Axes, wavelength: Array, times: dict[str, Array]) -> None:
    axes.axvspan(LONG, wavelength.max() * 1.15, color="0.93", zorder=0)
    for name, time in times.items():
        marker, shade = _STYLE[name]
        spread = time[wavelength >= LONG]
        label = f"{name}: $\\times$ {spread.max() / spread.min():.3g} over long waves"
        axes.plot(wavelength, time, marker, color=shade, markersize=3.5, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xlim(1.8, wavelength.max() * 1.15)
    axes.set_yscale("log")
    axes.set_xlabel("wavelength, pixels")
    axes.set_ylabel("emergence time $\\tau^*$, steps")
    axes.set_title("emergence, geometric (gray: long waves)", loc="left", fontsize=10)
    axes.legend(fontsize=7.5)


def _draw_kernel(axes: Axes, local: LocalCurves) -> list[Sequence[Any]]:
    time = np.geomspace(1e-2, 1e3, 200)
    kernel = local.kernel(time, 1.0)[:, 0, 0]
    half = local.family.kernel_size // 2
    for offset in range(half + 1):
        shade = "0.2" if offset == 0 else "0.55"
        axes.plot(time, kernel[:, half + offset], color=shade, label="centre" if offset == 0 else f"offset {offset}")
    axes.set_xscale("log")
    axes.set_xlabel(time_label(discrete=False))
    axes.set_ylabel("weight of the tap")
    axes.set_title("local: kernel at $\\sigma$ = 1", loc="left", fontsize=10)
    axes.legend(fontsize=8)
    return [[a - half, t, v] for a in range(kernel.shape[1]) for t, v in zip(time, kernel[:, a], strict=True)]


def _draw_transfer(axes: Axes, local: LocalCurves, waves: NDArray[np.int64]) -> list[Sequence[Any]]:
    time = np.array([1.0, 3.0, 10.0, 100.0, np.inf])
    gain = local.weight(time, 1.0)[:, waves]
    for t, row, shade in zip(time, gain, np.linspace(0.8, 0.0, len(time)), strict=True):
        axes.plot(waves, row, color=str(shade), label="$\\infty$" if np.isinf(t) else f"{t:g}")
    axes.plot(waves, local.optimal_weight(1.0)[waves], ":", color="#b2432f", label="exact denoiser")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("periods per field, k")
    axes.set_ylabel("gain of the denoiser on the mode")
    axes.set_title("local: transfer function at $\\sigma$ = 1, by time", loc="left", fontsize=10)
    axes.legend(fontsize=7, title="$\\tau$, steps", title_fontsize=7, loc="lower left", ncols=3)
    return [[t, k, v] for t, row in zip(time, gain, strict=True) for k, v in zip(waves, row, strict=True)]


def _draw_limit(axes: Axes, waves: NDArray[np.int64], data: Array, limit: Array) -> None:
    axes.plot(waves, data, "-", color="0.45", label="data, and the limit of full width")
    axes.plot(waves, limit, "s", color=_STYLE["local"][1], markersize=3.5, label="limit of the local kernel")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("periods per field, k")
    axes.set_ylabel("variance of the Fourier mode")
    axes.set_title("what a local kernel ends at", loc="left", fontsize=10)
    axes.legend(fontsize=8)
