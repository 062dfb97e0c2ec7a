"""In which order networks learn the modes of images and of patches of photographs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from spectral_lightning.emergence import STATUS, ModeEmergence, emergence, first_passage
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.theory import GaussianData, LocalConvolution, Objective
from studies.statistics import WAYS, Estimate, Ordering, correlation_interval, judged, rank_correlation, resampled
from studies.store import Results, Stored

__all__ = [
    "circular_modes",
    "constant_share",
    "distance",
    "images",
    "last_passage",
    "local_limit",
    "moving",
    "orderings",
    "partial_correlations",
    "patches",
    "rate_ratio",
    "returned",
    "until_end",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_SIDE, _KERNEL, _TOKEN = 16, 3, 2  # pixels along the side of a patch, of a local kernel, of a token of the transformer
_BASES = {"spectral": "eigenmodes", "fourier": "Fourier modes", "patch": "patch components"}
_IMAGES = {"faces": "faces", "mnist": "digits"}
_IMAGE_NETWORKS = {"mlp": "MLP", "unet": "U-Net"}
_NETWORKS = {
    "mlp": "MLP",
    "full_width_conv": "full-width conv.",
    "local_conv": "local conv.",
    "unet": "U-Net",
    "dit": "DiT",
}
_CONTROLS = {
    "linear_descent": "linear, descent",
    "full_width_descent": "full-width conv., descent",
    "local_descent": "local conv., descent",
}
# The claimed order of each network, in the basis the claim is about.
_CLAIMED = {
    "mlp": ("spectral", "by variance"),
    "full_width_conv": ("fourier", "by variance"),
    "full_width_descent": ("fourier", "by variance"),
    "local_conv": ("fourier", "together"),
    "local_descent": ("fourier", "together"),
    "unet": ("spectral", "together"),
    "dit": ("spectral", "none claimed"),
}


def images(results: Results) -> dict[str, Any]:
    """What the page says of faces and digits."""
    orders = _orders(results)
    runs = {f"{d}_{n}": f"{network} on {data}" for d, data in _IMAGES.items() for n, network in _IMAGE_NETWORKS.items()}
    return {
        "runs": runs,
        "bases": {basis: _BASES[basis] for basis in ("spectral", "fourier")},
        "orders": orders,
        "claims": {run: _claim(results[run], orders(run), _CLAIMED[run.partition("_")[2]][1]) for run in runs},
        "progress": {name: _progress(results[run]) for run, name in runs.items()},
        "rows": _IMAGES,
        "columns": _IMAGE_NETWORKS,
        "panels": {(data, net): orders(f"{data}_{net}") for data in _IMAGES for net in _IMAGE_NETWORKS},
        "null": STATUS.index("null mode"),
    }


def patches(results: Results) -> dict[str, Any]:
    """What the page says of patches of photographs."""
    orders, local = _orders(results), results["local_conv"]
    fourier, found = local.history("fourier"), local.compared("geometric", "fourier").measured
    limit, share = local_limit(fourier, _SIDE, _KERNEL), constant_share(circular_modes(fourier), _SIDE, _TOKEN)
    able = found.direction * (limit - found.threshold) >= 0
    tokens = {run: partial_correlations(orders(run, "fourier")[1], share) for run in _NETWORKS}
    variance, constant, *_ = tokens["dit"]
    linear, full = results["linear_descent"], results["full_width_descent"]
    rate = rate_ratio(linear, full, "fourier")
    ends = {}
    for run in ("local_conv", "local_descent"):
        histories = {basis: results[run].history(basis) for basis in _BASES}
        last = {basis: orderings(until_end(history), history) for basis, history in histories.items()}
        ends[run] = last, orderings(until_end(histories["fourier"], limit), histories["fourier"])
    return {
        "runs": _NETWORKS,
        "controls": _CONTROLS,
        "bases": _BASES,
        "orders": orders,
        "claims": {
            run: _claim(results[run], orders(run, basis), said, basis) for run, (basis, said) in _CLAIMED.items()
        },
        "limits": {
            run: {"found": limited, "verdict": judged("together", limited)} for run, (_, limited) in ends.items()
        },
        "ends": ends,
        "reachable": {way: able[found.eligible(way)] for way in WAYS},
        "tokens": {_NETWORKS[run]: correlations for run, correlations in tokens.items()},
        "tokens_first": constant.low > max(abs(variance.low), abs(variance.high)),
        "rate": rate,
        "rate_verdict": "confirmed" if abs(rate.value / _SIDE**2 - 1) < 0.1 else "not confirmed",
        "predicted_rate": rate_ratio(linear, full, "fourier", predicted=True),
        "progress": {name: _progress(results[run]) for run, name in {**_NETWORKS, **_CONTROLS}.items()},
        "rows": _BASES,
        "columns": _NETWORKS,
        "panels": {(basis, run): orders(run, basis) for basis in _BASES for run in _NETWORKS},
    }


def orderings(found: ModeEmergence, history: SpectralHistory) -> list[Ordering]:
    """Orders of rising and falling modes."""
    return [Ordering(found, way, history.last_step or 0) for way in WAYS]


def _orders(results: Results) -> Callable[..., list[Ordering]]:
    """Orders of rising and falling modes by training, basis and criterion, each computed once."""

    @cache
    def orders(run: str, basis: str = "spectral", criterion: str = "geometric") -> list[Ordering]:
        return orderings(results[run].compared(criterion, basis).measured, results[run].history(basis))

    return orders


def _claim(stored: Stored, found: list[Ordering], claimed: str, basis: str = "spectral") -> dict[str, Any]:
    """Orders, whether they are the claimed one, and laws of the theory over the modes that crossed in both."""
    compared = stored.compared("geometric", basis)
    laws = {way: law for way in WAYS if (law := compared.predicted_law(way)) and law.determinable}
    return {"found": found, "verdict": judged(claimed, found), "theory": laws}


def _progress(stored: Stored) -> dict[str, Any]:
    """How far a training got, in eigenmodes, and how far off its overlays are."""
    history, found = stored.history(), stored.compared().measured
    return {
        "distance": [distance(history, found, row) for row in (0, -1)],
        "moving": moving(history, found),
        "returned": returned(history, found),
        "last": last_passage(history, found).law("falling"),
        "errors": [stored.goodness(basis) for basis in ("spectral", "fourier")],
        "seconds": stored.about["seconds"],
    }


# How far a training got, over modes outside the gray zone.


def _chosen(found: ModeEmergence) -> Mask:
    return found.eligible("rising") | found.eligible("falling")


def distance(history: SpectralHistory, found: ModeEmergence, row: int) -> float:
    """Rms of log variance over the end of learning at one measurement."""
    chosen = _chosen(found)
    return float(np.sqrt(np.mean(np.log(history.variance[row, chosen] / found.target[chosen]) ** 2)))


def moving(history: SpectralHistory, found: ModeEmergence) -> float:
    """Share of the modes whose log variance made a tenth of its way in the second half of the steps."""
    log = np.log(history.variance[:, _chosen(found)])
    half = int(np.argmin(np.abs(history.steps - history.steps[-1] / 2)))
    return float(np.mean(np.abs(log[-1] - log[half]) > 0.1 * np.abs(log[-1] - log[0])))


def _past(history: SpectralHistory, found: ModeEmergence) -> Mask:
    return np.asarray(found.direction * (history.variance - found.threshold) >= 0)


def returned(history: SpectralHistory, found: ModeEmergence) -> float:
    """Share of the modes that crossed which a later measurement finds back over the threshold."""
    past = _past(history, found)[:, found.status == STATUS.index("crossed")]
    return float(np.mean((past[:-1] & ~past[1:]).any(axis=0)))


def last_passage(history: SpectralHistory, found: ModeEmergence) -> ModeEmergence:
    """Emergence by the last passage, since when every measurement finds a mode past its threshold."""
    past = _past(history, found)
    entry = len(past) - np.argmin(past[::-1], axis=0)  # the first measurement after the last one that is not past
    rows = np.arange(len(past))[:, None]
    kept = np.where((rows > 0) & (rows < entry - 1), np.nan, history.variance)
    time = first_passage(history.steps, kept, found.threshold, found.direction)
    crossed = found.status == STATUS.index("crossed")
    status = np.where(crossed & ~np.isfinite(time), STATUS.index("not yet"), found.status)
    return replace(found, status=status, time=np.where(crossed, time, np.nan))


def circular_modes(history: SpectralHistory) -> NDArray[np.int64]:
    """Cycles along both axes of every mode of a history in single Fourier modes, ``[K, 2]``."""
    return np.asarray([re.findall(r"-?\d+", label) for label in history.metadata["modes"]], np.int64)


def constant_share(waves: NDArray[np.int64], side: int, token: int) -> Array:
    """Share of a wave's power in its means over tokens of ``token x token`` pixels, ``[K]``.

    ``prod_axes |1/p Sum_{j<p} exp(2 pi i k j / N)|^2``: what a token can only learn from the others.

    Example:
        >>> constant_share(np.array([[0, 0], [0, 8], [4, 4]]), 16, 2).round(6).tolist()
        [1.0, 0.0, 0.25]
    """
    phase = np.exp(2j * np.pi * waves[..., None] * np.arange(token) / side)
    return np.asarray((np.abs(phase.mean(axis=-1)) ** 2).prod(axis=-1))


def partial_correlations(order: Ordering, share: Array) -> list[Estimate]:
    """Rank correlations of the step with variance and with ``share``, then partial ones: each at equal other quantity.

    Args:
        order: the modes of one direction, of which those that crossed count.
        share: of every mode, ``[K]``.
    """
    chosen = order.found.crossed(order.way)
    time, variance = order.found.time[chosen], order.found.variance[chosen]
    inverse = np.linalg.inv(np.corrcoef([stats.rankdata(values) for values in (time, variance, share[chosen])]))
    partial = [-inverse[0, k] / math.sqrt(inverse[0, 0] * inverse[k, k]) for k in (1, 2)]
    plain = [rank_correlation(time, variance), rank_correlation(time, share[chosen])]
    return [*plain, *(correlation_interval(float(r), len(time), given=1) for r in partial)]


def local_limit(history: SpectralHistory, side: int, kernel_size: int) -> Array:
    """Variance that the sampler makes of the best kernel at every noise level, ``[K]``.

    The best kernel depends only on the covariance of circular patches, a part of the autocovariance, which is the Fourier
    transform of the power spectrum.

    Args:
        history: of grey images of ``side x side`` pixels in single Fourier modes.
        side: of the images.
        kernel_size: of the convolution, along both axes.
    """
    waves = circular_modes(history)
    power = np.zeros((side, side))
    for wave in (waves % side, -waves % side):  # k and -k are one mode
        power[wave[:, 0], wave[:, 1]] = history.target
    autocovariance = np.fft.ifft2(power).real
    place = np.stack(np.unravel_index(np.arange(side**2), (side, side)), axis=-1)
    lags = (place[:, None] - place[None]) % side
    stationary = autocovariance[lags[..., 0], lags[..., 1]]
    theory = LocalConvolution(Objective(1.0), kernel_size).on(GaussianData(stationary, size=(side, side)))
    limit = theory.generated_variance([np.inf], Sampler(grid=(*history["levels"].tolist(), 0.0)))[0]
    return np.asarray(limit[(waves[:, 0] % side) * side + waves[:, 1] % side])


def until_end(history: SpectralHistory, end: Array | None = None) -> ModeEmergence:
    """Emergence with the geometric threshold between the first variance and where the network itself ends.

    For a network that cannot represent the data's spectrum: its modes may never reach a threshold that refers to the data.

    Args:
        history: the measurement.
        end: where the network would end if trained forever, ``[K]``; the last measurement if not given.
    """
    last = history.variance[-1] if end is None else end
    return emergence(history.steps, history.variance, history.target, last, null_variance=history.null_variance)


def rate_ratio(slow: Stored, fast: Stored, basis: str, predicted: bool = False) -> Estimate:
    """By how much faster one training learns: median over modes of learning rate times emergence, slow over fast.

    Args:
        slow: trained at a constant learning rate.
        fast: the same.
        basis: in which to compare.
        predicted: whether to compare the tables of the theory.
    """
    times = []
    for one in (slow, fast):
        compared, history = one.compared("geometric", basis), one.history(basis)
        found = compared.predicted if predicted else compared.measured
        rate = history["cumulative_learning_rate"][-1] / history.steps[-1]
        times.append(rate * found.time if found is not None else np.full(len(history.target), np.nan))
    log = np.log(times[0] / times[1])
    log = log[np.isfinite(log)]
    if len(log) < 10:
        return Estimate()
    return Estimate.of(resampled(lambda rows: np.median(log[rows], axis=-1), len(log), 500)).exp()
