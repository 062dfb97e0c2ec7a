"""Curves of one family of the theory to draw and write: for which modes, through which sampler, over which times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.arguments import positive, positive_integer
from spectral_lightning.emergence import Criterion, PowerLaw, StaysWithin, direction, fit_power_law, gray_zone
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import Curves, GaussianData, GaussianField, LearningDynamics

__all__ = ["WAYS", "Criterion", "ModeTimes", "TheoryCurves", "criterion_name", "on_spectrum", "power_law"]

Array = NDArray[np.float64]
Weight = Callable[[ArrayLike], Array]
"""Gains ``[*time, mode]`` at training times."""

_BEFORE, _AFTER = 30.0, 10.0  # how far beyond the first and the last emergence the curves are drawn
WAYS = {"rising": 1, "falling": -1}


@dataclass(frozen=True)
class ModeTimes:
    """Emergence times of the modes of a family by one criterion.

    Attributes:
        criterion: the criterion.
        variance: data variance of the modes, ``[K]``.
        way: 1 rising, -1 falling, 0 in the gray zone, ``[K]``.
        time: emergence time, NaN if a mode never emerges, ``[K]``.
    """

    criterion: Criterion
    variance: Array
    way: NDArray[np.int64]
    time: Array

    def law(self, way: str) -> PowerLaw:
        """The power law through the modes of one direction; without noise, three modes are enough."""
        chosen = self.way == WAYS[way]
        return fit_power_law(self.variance[chosen], self.time[chosen])


@dataclass(frozen=True, eq=False)
class TheoryCurves:
    """Curves of one family under a name.

    Attributes:
        solved: the family on its data.
        label: its name.
        sampler: a discrete sampler; the exact flow if None.
        modes: index of the modes that are shown.
        weights: gains to show, by the level they belong to (``"sigma = 1"``).
        model: whose gains they are, the denoiser's or the velocity's.
    """

    solved: Curves
    label: str
    sampler: Sampler | None = None
    modes: slice | NDArray[np.int64] = field(default_factory=lambda: slice(None))
    weights: Mapping[str, Weight] = field(default_factory=dict)
    model: str = "denoiser"
    _known: dict[Criterion, ModeTimes] = field(default_factory=dict, init=False, repr=False)

    @property
    def variance(self) -> Array:
        """Data variance of the modes shown, ``[K]``."""
        return self.solved.variance[self.modes]

    def ends(self) -> tuple[Array, Array]:
        """Generated variance before training, and the one learning is measured against, ``[K]`` each."""
        start, end = self.solved.ends(self.sampler)
        return start[self.modes], end[self.modes]

    def generated(self, time: ArrayLike) -> Array:
        """Variance of the generated samples, ``[*time, K]``."""
        return self.solved.generated_variance(time, self.sampler)[..., self.modes]

    def times(self, criterion: Criterion) -> ModeTimes:
        """Emergence times by one criterion; modes that start within a factor of two of their target are gray."""
        if criterion not in self._known:
            start, end = self.ends()
            way = np.where(gray_zone(start, end, 2.0), 0, direction(start, end))
            time = self.solved.emergence_time(criterion, self.sampler)[self.modes]
            self._known[criterion] = ModeTimes(criterion, self.variance, way, time)
        return self._known[criterion]

    def span(self, emerged: Sequence[ModeTimes], count: int) -> Array:
        """Times from well before the first emergence to well after the last; about 1 / eta if nothing emerges."""
        positive_integer("num_times", count, minimum=2)
        times = np.concatenate([entry.time for entry in emerged])
        known = times[np.isfinite(times) & (times > 0)]
        first, last = (known.min(), known.max()) if len(known) else (1 / self.solved.objective.learning_rate,) * 2
        if not self.solved.objective.discrete:
            return np.geomspace(first / _BEFORE, last * _AFTER, count)
        last = min(last * _AFTER, self.solved.longest_descent)
        return np.unique(np.rint(np.geomspace(max(1.0, first / _BEFORE), max(2.0, last), count)))


def criterion_name(criterion: Criterion) -> str:
    """A criterion in words."""
    if isinstance(criterion, StaysWithin):
        return f"stays within {100 * criterion.share:g} %"
    return criterion if isinstance(criterion, str) else f"{criterion:g} of target"


def power_law(lowest: float, highest: float, modes: int) -> Array:
    """Variances spaced evenly in their logarithm, largest first.

    Raises:
        ValueError: for fewer than two modes, or a range that is empty or does not lie above zero.
    """
    low, high = positive("lowest", lowest), positive("highest", highest)
    positive_integer("modes", modes, minimum=2)
    if low >= high:
        raise ValueError(f"`lowest` must be below `highest`, got {lowest!r} and {highest!r}.")
    return np.geomspace(high, low, modes)


def on_spectrum(family: LearningDynamics, variance: ArrayLike, mean: float = 0.0) -> Curves:
    """The family on data of these variances and this mean.

    A family that needs moments gets uncorrelated coordinates. Convolutions get a field on a circle whose waves of 0, 1,
    2, .. periods have these variances; K variances give 2 (K - 1) pixels, and every wave but the first and the last counts
    twice.

    Args:
        family: any family.
        variance: data variance of the modes, ``[K]``.
        mean: of every coordinate.

    Raises:
        ValueError: for no variance or one that is not above zero, for a single one if a convolution needs a field, and
            for a mean other than zero with a family of zero mean.
    """
    lam = np.asarray(variance, np.float64)
    if lam.ndim != 1 or not len(lam) or not (np.isfinite(lam) & (lam > 0)).all():
        raise ValueError(f"`spectrum` must hold at least one variance, all finite and above 0, got {variance!r}.")
    if family.solved_in == "fourier":
        if len(lam) < 2:
            raise ValueError(f"`spectrum` must hold at least two variances for a convolution, got {variance!r}.")
        return family.on(GaussianField(np.concatenate([lam, lam[-2:0:-1]])[:, None, None], [mean]))
    if family.needs_moments:
        return family.on(GaussianData(np.diag(lam), np.full(len(lam), mean)))
    if mean != 0:
        raise ValueError(f"`mean` must be 0 for {type(family).__name__}, got {mean!r}. Use NonCenteredOneLayer.")
    return family.on(lam)
