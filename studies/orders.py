"""The order in which networks learn the modes of images and of patches of photographs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.emergence import STATUS, ModeEmergence, emergence, first_passage
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.theory import GaussianData, LocalConvolution, Objective
from studies.laws import law
from studies.statistics import (
    WAYS,
    Array,
    Estimate,
    Ordering,
    judged,
    rank_correlation,
    resampled,
)
from studies.store import Results, Stored
from studies.trainings import NAMES

__all__ = ["circular_modes", "constant_share", "correlations", "ended", "images", "last_passage", "local_limit"]
__all__ += ["orders", "patches", "progress", "rate_ratio"]

_SIDE, _KERNEL, _TOKEN = 16, 3, 2  # pixels along the side of a patch, of a local kernel, of a token of the transformer
_LOCAL = ("local_conv", "local_descent")


def images(results: Results) -> dict[str, Any]:
    """Results on faces and digits."""
    panels = {(data, network): f"{data}_{network}" for data in NAMES["images"] for network in ("mlp", "unet")}
    runs = {run: f"{NAMES['networks'][net]} on {NAMES['images'][data]}" for (data, net), run in panels.items()}
    return {
        "runs": runs,
        "orders": _all(results),
        "claims": {run: _claim(results[run], NAMES["claimed"][network][1]) for (_, network), run in panels.items()},
        "progress": {name: progress(results, run) for run, name in runs.items()},
        "panels": {place: orders(results[run]) for place, run in panels.items()},
        "null": STATUS.index("null mode"),
    }


def patches(results: Results) -> dict[str, Any]:
    """Results on patches of photographs."""
    bases, networks, local = NAMES["bases"], NAMES["networks"], results["local_conv/fourier"]
    limit, found = local_limit(local.history, _SIDE, _KERNEL), local.compared().measured
    able = found.direction * (limit - found.threshold) >= 0
    share = constant_share(circular_modes(local.history), _SIDE, _TOKEN)
    limited = {run: ended(results[f"{run}/fourier"].history, limit) for run in _LOCAL}
    rates = results["linear_descent/fourier"], results["full_width_descent/fourier"]
    return {
        "orders": _all(results),
        "claims": {run: _claim(results[f"{run}/{basis}"], said) for run, (basis, said) in NAMES["claimed"].items()},
        "limits": {run: {"found": one, "verdict": judged("together", one)} for run, one in limited.items()},
        "ends": {run: {basis: ended(results[f"{run}/{basis}"].history) for basis in bases} for run in _LOCAL},
        "reachable": {way: able[found.eligible(way)] for way in WAYS},
        "tokens": {run: correlations(orders(results[f"{run}/fourier"])[1], share) for run in networks},
        "rate": rate_ratio(*rates),
        "predicted_rate": rate_ratio(*rates, predicted=True),
        "progress": {name: progress(results, run) for run, name in (networks | NAMES["controls"]).items()},
        "panels": {(basis, run): orders(results[f"{run}/{basis}"]) for basis in bases for run in networks},
    }


@cache
def orders(stored: Stored, criterion: str = "geometric") -> list[Ordering]:
    """Orders of rising and falling modes."""
    return _both(stored.compared(criterion).measured, stored.history)


def _both(found: ModeEmergence, history: SpectralHistory) -> list[Ordering]:
    return [Ordering(found, way, history.last_step or 0) for way in WAYS]


def _all(results: Results) -> Callable[..., list[Ordering]]:
    return lambda run, basis="spectral", criterion="geometric": orders(results[f"{run}/{basis}"], criterion)


def _claim(stored: Stored, claimed: str) -> dict[str, Any]:
    """Orders, whether they are the claimed one, and laws of the theory over the modes that crossed in both."""
    compared, found = stored.compared(), orders(stored)
    laws = {way: one for way in WAYS if (one := compared.predicted_law(way)) and one.determinable}
    return {"found": found, "verdict": judged(claimed, found), "theory": laws}


def progress(results: Results, run: str) -> dict[str, Any]:
    """How far a training got, in eigenmodes outside the gray zone, and how far off its overlays are.

    ``distance`` is the rms log ratio of the variance to the end of learning, at the first and last measurement; ``moving`` the
    share of the modes whose log variance covered a tenth of its way in the second half of the steps; ``returned`` the share of
    the crossed modes that a later measurement finds on the near side of the threshold again.
    """
    history, found = results[run].history, results[run].compared().measured
    chosen = found.eligible("rising") | found.eligible("falling")
    log, crossed = np.log(history.variance[:, chosen] / found.target[chosen]), found.status == STATUS.index("crossed")
    half = int(np.argmin(np.abs(history.steps - history.steps[-1] / 2)))
    past = _past(history, found)[:, crossed]
    return {
        "distance": np.sqrt(np.mean(log[[0, -1]] ** 2, axis=1)).tolist(),
        "moving": float(np.mean(np.abs(log[-1] - log[half]) > 0.1 * np.abs(log[-1] - log[0]))),
        "returned": float(np.mean((past[:-1] & ~past[1:]).any(axis=0))),
        "last": law(last_passage(history, found), "falling"),
        "errors": [results[f"{run}/{basis}"].overlay["goodness_of_fit"] for basis in ("spectral", "fourier")],
        "seconds": results[run].about["seconds"],
    }


def _past(history: SpectralHistory, found: ModeEmergence) -> NDArray[np.bool_]:
    return np.asarray(found.direction * (history.variance - found.threshold) >= 0)


def last_passage(history: SpectralHistory, found: ModeEmergence) -> ModeEmergence:
    """Emergence by the last passage, after which every measurement finds a mode past its threshold."""
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

    ``prod_axes |1/p Sum_{j<p} exp(2 pi i k j / N)|^2``: what a token can learn only from the others.

    Example:
        >>> constant_share(np.array([[0, 0], [0, 8], [4, 4]]), 16, 2).round(6).tolist()
        [1.0, 0.0, 0.25]
    """
    phase = np.exp(2j * np.pi * waves[..., None] * np.arange(token) / side)
    return np.asarray((np.abs(phase.mean(axis=-1)) ** 2).prod(axis=-1))


def correlations(order: Ordering, share: Array) -> list[Estimate]:
    """Rank correlations of the step with variance and with ``share``, then the partial correlations, each given the other.

    Only the modes of one direction that crossed count; ``share`` holds every mode, ``[K]``.
    """
    chosen = order.found.crossed(order.way)
    pair = order.found.variance[chosen], share[chosen]
    return [rank_correlation(order.found.time[chosen], *given) for given in (pair[:1], pair[1:], pair, pair[::-1])]


def local_limit(history: SpectralHistory, side: int, kernel_size: int) -> Array:
    """Variance that the sampler generates with the best kernel at every noise level, ``[K]``.

    The best kernel depends only on the covariance of circular patches, a part of the autocovariance, which is the Fourier
    transform of the power spectrum. The history is that of grey images of ``side x side`` pixels in single Fourier modes.
    """
    waves = circular_modes(history)
    power = np.zeros((side, side))
    for wave in (waves % side, -waves % side):  # k and -k are one mode
        power[wave[:, 0], wave[:, 1]] = history.target
    place = np.stack(np.unravel_index(np.arange(side**2), (side, side)))
    stationary = np.fft.ifft2(power).real[tuple((place[:, :, None] - place[:, None]) % side)]
    theory = LocalConvolution(Objective(1.0), kernel_size).on(GaussianData(stationary, size=(side, side)))
    limit = theory.generated_variance([np.inf], Sampler(grid=(*history["levels"].tolist(), 0.0)))[0]
    return np.asarray(limit[(waves[:, 0] % side) * side + waves[:, 1] % side])


def ended(history: SpectralHistory, end: Array | None = None) -> list[Ordering]:
    """Orders by the geometric threshold between the first variance and where the network itself ends.

    For a network that cannot represent the data's spectrum: its modes may never reach a threshold that refers to the data.
    ``end`` is where it would end if trained forever, ``[K]``; the last measurement if not given.
    """
    last = history.variance[-1] if end is None else end
    null = history.null_variance
    return _both(emergence(history.steps, history.variance, history.target, last, null_variance=null), history)


def rate_ratio(slow: Stored, fast: Stored, predicted: bool = False) -> Estimate:
    """Ratio of the rates of two trainings: median over modes of learning rate times emergence, slow over fast.

    Both are trained at a constant learning rate; measured, or predicted by the theory.
    """
    rates = [one.history["cumulative_learning_rate"][-1] / one.history.steps[-1] for one in (slow, fast)]
    ratio = rates[0] * slow.time(predicted) / (rates[1] * fast.time(predicted))
    ratio = ratio[np.isfinite(ratio)]
    if len(ratio) < 10:
        return Estimate()
    return Estimate.of(resampled(lambda ratio: np.median(ratio, axis=-1), ratio, draws=500))
