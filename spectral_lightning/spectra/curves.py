"""Variances as curves over the logarithm of the step: freed from the noise of slices, and between measurements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ERRORS", "interpolate", "smooth"]

Array = NDArray[np.float64]

ERRORS = {"variance": "standard_error", "group_variance": "group_standard_error"}
"""Row fields that are interpolated in the logarithm, and their standard errors."""

_BY_LOG_STEP = ("mean_deviation", "group_mean_deviation", "gain", "alignment")
_BY_STEP = ("cumulative_learning_rate", "seconds")
_DECADE = float(np.log(10))
_BENDS = (1.0, 2.0, 4.0, 8.0, 16.0)  # changes of the slope d ln v / d ln t over a decade, root mean square
_MEMORY = 2.0  # decades in which the correlation of the errors of one slice falls by e
_FRESH = 0.03  # share of the error's variance that a full block of directions would leave
_LEAST = 3  # measurements after step 0, one more than a straight line needs


def smooth(
    steps: NDArray[np.int64],
    first: NDArray[np.int64],
    slices: Mapping[str, int],
    variance: Array,
    error: Array | None = None,
) -> tuple[Array, Array]:
    """Variances measured with slices of one block of latents, freed from most of the error that the slices make.

    The log variance of a mode is modelled as ``f(ln t) + e``. The slope of f changes at random, by 1 per decade (root mean
    square), or by the first of 2, 4, 8 and 16 with which the modes deviate from the model no more than it expects: a mean
    generalised residual chi^2 of at most 1 per degree of freedom. If none does, all errors grow by chi. The error e of two
    slices of ``width`` out of d ``directions``, h decades apart, has the covariance

    ``r^2 c exp(-h / 2)``,   ``c = (s - width / d) / (1 - width / d)``

    with the share s of common directions: c is 1 for the same slice and negative for disjoint ones, whose errors cancel
    over a block. The relative standard error r is the median over modes and measurements. The result is the best linear
    unbiased estimate of f, a smoothing spline with correlated errors ("universal kriging"; Cressie, Statistics for Spatial
    Data, 1993, section 3.4). Power laws of the step pass unchanged. The value of f at step 0 is independent of the others:
    later measurements only help to estimate the error of its slice.

    A second pass over the ratios to the first estimate removes the bias of the mean logarithm.

    Args:
        steps: optimizer updates, ``[T]``.
        first: first direction of each measurement's slice, on the circle of the block's directions, ``[T]``.
        slices: the directions of a block, ``directions``, and of a slice, ``width``.
        variance: measured variances, ``[T, ...]``; cells that are not positive and finite are left as they are.
        error: their standard errors, in the same shape; by default those of a linear denoiser.

    Returns:
        The variances and their standard errors, which combine the remaining error of the slices with the bend of f.
        Fewer than three measurements after step 0 are returned as they are.
    """
    table, width, directions = variance.reshape(len(steps), -1), slices["width"], slices["directions"]
    expected = np.sqrt(2 / width - 2 / directions)
    errors = expected * table if error is None else error.reshape(table.shape).copy()
    with np.errstate(divide="ignore", invalid="ignore"):
        log, relative = np.log(table), errors / table
    valid = np.isfinite(log)
    noise: Array = np.ma.median(np.ma.masked_invalid(relative), axis=0).filled(expected)  # type: ignore[no-untyped-call]
    typical = float(np.median(noise)) if len(noise) else 0.0
    found = table.copy()
    for pattern in np.unique(valid, axis=1).T:
        rows, modes = np.flatnonzero(pattern), np.flatnonzero((valid == pattern[:, None]).all(0))
        if (steps[rows] > 0).sum() < _LEAST or not typical > 0:
            continue
        cells = np.ix_(rows, modes)
        for size in _BENDS:
            weights, scatter, bend, residual = _weights(steps[rows], first[rows], directions, width, typical, size)
            excess = float(np.mean(((residual @ log[cells]) * log[cells]).sum(0)))
            if excess <= 1:
                break
        estimate = np.exp(weights @ log[cells])
        estimate *= np.exp(weights @ (table[cells] / estimate) - 1)
        found[cells] = estimate
        errors[cells] = estimate * np.sqrt(max(excess, 1) * (np.outer(scatter, noise[modes] ** 2) + bend[:, None]))
    return found.reshape(variance.shape), errors.reshape(variance.shape)


def _weights(
    steps: NDArray[np.int64], first: NDArray[np.int64], directions: int, width: int, noise: float, bend: float
) -> tuple[Array, Array, Array, Array]:
    """Weights ``[T, T]`` of the estimate, its variance by scatter, in units of ``noise``^2, and by bend, ``[T]``.

    Last, the quadratic form of chi^2 per degree of freedom, ``[T, T]``.
    """
    start = steps == 0
    x = np.log(np.where(start, steps[~start].min(), steps)) / _DECADE
    gap = np.abs(x[:, None] - x)
    apart = np.abs(first[:, None] - first)
    common = np.maximum(width - apart, 0) + np.maximum(width - directions + apart, 0)
    pairs = (common / width - width / directions) / (1 - width / directions)
    errors = (1 - _FRESH) * pairs * np.exp(-gap / _MEMORY) + _FRESH * np.eye(len(x))
    bends = (bend * _DECADE) ** 2 * gap**3 / 12 * ~(start[:, None] | start)
    line = np.stack([~start, np.where(start, 0.0, x), start][: 2 + bool(start.any())], axis=1).astype(np.float64)
    free = line.shape[1]
    system = np.block([[bends + noise**2 * errors, line], [line.T, np.zeros((free, free))]])
    inverse = np.linalg.inv(system)[:, : len(x)]
    weights, residual = bends @ inverse[: len(x)] + line @ inverse[len(x) :], inverse[: len(x)] / (len(x) - free)
    rest = weights - np.eye(len(x))
    return weights, ((weights @ errors) * weights).sum(1), np.maximum(((rest @ bends) * rest).sum(1), 0), residual


def interpolate(rows: Mapping[str, NDArray[Any]], wanted: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Row fields at the steps ``wanted``, see :meth:`~spectral_lightning.spectra.SpectralHistory.interpolated`.

    Args:
        rows: stacked row fields, each ``[T, ...]``.
        wanted: steps from the first to the last of these rows, ``[N]``.

    Returns:
        The fields at the N steps, and ``measured``.
    """
    steps = rows["step"].astype(np.float64)
    lower = np.searchsorted(steps, wanted, side="right") - 1
    upper = np.minimum(lower + 1, len(steps) - 1)
    exact = steps[lower] == wanted
    start, end = steps[lower], np.where(exact, steps[lower] + 1, steps[upper])
    by_step = (wanted - start) / (end - start)
    by_log, later = by_step.copy(), start > 0
    by_log[later] = np.log(wanted[later] / start[later]) / np.log(end[later] / start[later])
    found: dict[str, NDArray[Any]] = {}
    for name, array in rows.items():
        low, high = array[lower], array[upper]
        share = _along(by_step if name in _BY_STEP else by_log, low)
        if name in ERRORS:
            value = _geometric(low, high, share)
        elif name in _BY_STEP or name in _BY_LOG_STEP:
            value = low + share * (high - low)
        else:
            value = np.full_like(low, np.nan if low.dtype.kind == "f" else 0)
        found[name] = np.where(_along(exact, low), low, value)
    for name, error in ERRORS.items():
        if name in rows and error in rows:
            with np.errstate(divide="ignore", invalid="ignore"):
                relative = rows[error] / rows[name]
            worst = np.maximum(relative[lower], relative[upper]) * found[name]
            found[error] = np.where(_along(exact, worst), rows[error][lower], worst)
    before = rows["measured"][lower] if "measured" in rows else np.ones(len(wanted), np.bool_)
    return {**found, "step": wanted, "measured": exact & before}


def _geometric(low: Array, high: Array, share: Array) -> Array:
    """Linear in the logarithm, or if one of both is not positive, as 0 is not, plainly linear."""
    positive = (low > 0) & (high > 0)
    logs = [np.log(np.where(positive, value, 1)) for value in (low, high)]
    return np.where(positive, np.exp(logs[0] + share * (logs[1] - logs[0])), low + share * (high - low))


def _along(values: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    """Values per row, broadcast over the other axes."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))
