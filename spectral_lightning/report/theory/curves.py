"""What is drawn and written of one family of the theory: weights, generated variances and emergence times."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.arguments import positive, positive_integer
from spectral_lightning.emergence import PowerLaw, StaysWithin, direction, fit_power_law, gray_zone
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import Curves, GaussianData, GaussianField, LearningDynamics

__all__ = ["Criterion", "ModeTimes", "TheoryCurves", "criterion_name", "on_spectrum", "power_law", "write_csv"]

Array = NDArray[np.float64]
Criterion = float | str | StaysWithin

_BEFORE, _AFTER = 30.0, 10.0  # how far beyond the first and the last emergence the curves are drawn
WAYS = {"rising": 1, "falling": -1}


@dataclass(frozen=True)
class ModeTimes:
    """Emergence times of the modes of a family by one criterion.

    Attributes:
        criterion: the criterion.
        variance: data variance of the modes, ``[K]``.
        way: 1 rising, -1 falling, 0 in the gray zone, ``[K]``.
        time: emergence time, NaN where a mode never gets there, ``[K]``.
    """

    criterion: Criterion
    variance: Array
    way: NDArray[np.int64]
    time: Array

    def chosen(self, way: str) -> NDArray[np.bool_]:
        """Modes of one direction, ``"rising"`` or ``"falling"``, outside the gray zone."""
        return np.asarray(self.way == WAYS[way])

    def law(self, way: str) -> PowerLaw:
        """The power law through the modes of one direction; there is no noise here, so that three modes will do."""
        chosen = self.chosen(way)
        return fit_power_law(self.variance[chosen], self.time[chosen], min_modes=3, min_decades=0.0)


@dataclass(frozen=True)
class TheoryCurves:
    """Curves of one family on one spectrum.

    Attributes:
        label: name of the family and its settings, for titles.
        variance: data variance of the modes, ``[K]``.
        time: training time, ``[T]``.
        levels: what the weight belongs to (``"sigma = 1"``), ``[S]``.
        weight: gain on each mode, ``[T, S, K]``.
        optimum: gain at the end of learning, ``[S, K]``.
        generated: variance of the generated samples, ``[T, K]``.
        initial: the same before training, ``[K]``.
        target: the variance learning is measured against, ``[K]``.
        times: emergence times, one entry per criterion.
        discrete: whether time counts steps of gradient descent.
        model: what has the weight, the denoiser or the velocity.
    """

    label: str
    variance: Array
    time: Array
    levels: tuple[str, ...]
    weight: Array
    optimum: Array
    generated: Array
    initial: Array
    target: Array
    times: tuple[ModeTimes, ...]
    discrete: bool = False
    model: str = "denoiser"

    @classmethod
    def of(
        cls,
        curves: Curves,
        sigma: Sequence[float] = (1.0,),
        criteria: Sequence[Criterion] = ("geometric",),
        sampler: Sampler | None = None,
        label: str = "",
        num_times: int = 200,
        gray_factor: float = 2.0,
    ) -> TheoryCurves:
        """Evaluate a family from well before its first emergence time to well after its last, by any of the criteria.

        Args:
            curves: those of a family on its data.
            sigma: noise levels of the weights; none of them gives no weights.
            criteria: of emergence.
            sampler: a discrete sampler in place of the exact flow.
            label: name for titles; the family's own settings if empty.
            num_times: number of times.
            gray_factor: modes that start within this factor of their target belong to no law.

        Raises:
            ValueError: for no criterion, and as the family's own methods.

        Example:
            >>> from spectral_lightning.theory import Objective, OneLayer
            >>> curves = TheoryCurves.of(OneLayer(Objective(1e-3)).on(np.geomspace(1e-3, 1e2, 20)))
            >>> round(curves.times[0].law("rising").exponent, 3)
            0.985
        """
        if not len(criteria):
            raise ValueError("`criteria` must hold at least one criterion, got none. Choose 'geometric'.")
        positive_integer("num_times", num_times, minimum=2)
        lam = curves.variance
        start, end = curves.ends(sampler)
        way = np.where(gray_zone(start, end, gray_factor), 0, direction(start, end))
        times = tuple(ModeTimes(c, lam, way, curves.emergence_time(c, sampler)) for c in criteria)
        time = _range(curves, np.concatenate([entry.time for entry in times]), num_times)
        return cls(
            label or repr(curves.family),
            lam,
            time,
            tuple(f"$\\sigma$ = {level:g}" for level in sigma),
            curves.weight(time, sigma) if len(sigma) else np.empty((len(time), 0, len(lam))),
            curves.weight(np.inf, sigma) if len(sigma) else np.empty((0, len(lam))),
            curves.generated_variance(time, sampler),
            start,
            end,
            times,
            curves.objective.discrete,
        )

    def subset(self, modes: ArrayLike) -> TheoryCurves:
        """The curves of some modes, by their index."""
        index = np.asarray(modes, np.int64)
        return replace(
            self,
            variance=self.variance[index],
            weight=self.weight[..., index],
            optimum=self.optimum[..., index],
            generated=self.generated[:, index],
            initial=self.initial[index],
            target=self.target[index],
            times=tuple(
                ModeTimes(entry.criterion, entry.variance[index], entry.way[index], entry.time[index])
                for entry in self.times
            ),
        )

    def curve_rows(self) -> Iterable[list[Any]]:
        """Rows ``family, quantity, level, variance, time, value`` of all curves."""
        for s, level in enumerate(self.levels):
            name = level.replace("$", "").replace("\\", "")
            for k, lam in enumerate(self.variance):
                for time, value in zip(self.time, self.weight[:, s, k], strict=True):
                    yield [self.label, "weight", name, lam, time, value]
        for k, lam in enumerate(self.variance):
            for time, value in zip(self.time, self.generated[:, k], strict=True):
                yield [self.label, "generated variance", "", lam, time, value]

    def emergence_rows(self) -> Iterable[list[Any]]:
        """Rows ``family, criterion, variance, initial, target, direction, time`` of all modes."""
        names = {1: "rising", -1: "falling", 0: "gray zone"}
        for entry in self.times:
            for k, lam in enumerate(self.variance):
                way = names[int(entry.way[k])]
                yield [
                    self.label,
                    criterion_name(entry.criterion),
                    lam,
                    self.initial[k],
                    self.target[k],
                    way,
                    entry.time[k],
                ]


CURVE_COLUMNS = ("family", "quantity", "level", "variance", "time", "value")
EMERGENCE_COLUMNS = ("family", "criterion", "variance", "initial", "target", "direction", "time")


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
    2, .. periods have these variances; of K variances that are 2 (K - 1) pixels, and every wave but the first and the last
    counts twice.

    Args:
        family: any family.
        variance: data variance of the modes, ``[K]``.
        mean: of every coordinate.

    Raises:
        ValueError: for no variance or one that is not above zero, for a single one where a convolution wants a field, and
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


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table with the full precision of its numbers."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([float(cell) if isinstance(cell, np.floating) else cell for cell in row] for row in rows)


def _range(curves: Curves, emergence: Array, count: int) -> Array:
    """Times about the emergence; about one over the learning rate where nothing emerges."""
    known = emergence[np.isfinite(emergence) & (emergence > 0)]
    first, last = (known.min(), known.max()) if len(known) else (1 / curves.objective.learning_rate,) * 2
    if not curves.objective.discrete:
        return np.geomspace(first / _BEFORE, last * _AFTER, count)
    last = min(last * _AFTER, curves.longest_descent)
    return np.unique(np.rint(np.geomspace(max(1.0, first / _BEFORE), max(2.0, last), count)))
