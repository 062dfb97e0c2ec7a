"""How accurate a measurement is: its sampling error, and the bias of the sampler on the network."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectral_lightning.spectra import ModeStatistics, SpectralHistory, SpectralProbe
from spectral_lightning.spectra.measurement.scatter import Scatter
from spectral_lightning.theory.solving.generation import sampler_bias
from spectral_lightning.tracking.first_look import is_due

__all__ = ["Accuracy", "expected_error", "linear_bias"]

_FINE, _FEW = 24, 64  # evaluations of the comparison, latents


class Accuracy:
    """Repeats a measurement now and then: at steps 0, 100, 1000, ... and at an end that is not on the schedule.

    With fewer than two complete blocks of latents, it measures again with independent latents, and their
    :class:`~spectral_lightning.spectra.measurement.scatter.Scatter` is the standard error of all later rows.

    An Adams sampler on its own levels with fewer than 24 evaluations is compared with one of 24 on the same latents, half as
    many as measured and at most 64: the log of the ratio of the two variances estimates the sampler's bias on the network.

    Args:
        probe: the measurement.
    """

    def __init__(self, probe: SpectralProbe) -> None:
        self.scatter = Scatter()
        self.again: SpectralProbe | None = None
        self.pair: tuple[SpectralProbe, ...] = ()
        sampler = probe.sampler
        if probe.latents.kind == "orthogonal" and not probe.error_from_blocks:
            self.again = probe.like(part=1)
        if sampler is not None and sampler.solver == "adams" and sampler.grid is None and sampler.num_steps < _FINE:
            coarse = probe.like(num_samples=min(_FEW, max(2, probe.latents.count // 4 * 2)), part=2)
            self.pair = coarse, coarse.like(sampler=replace(sampler, num_steps=_FINE))

    @property
    def probes(self) -> list[SpectralProbe]:
        """All repetitions."""
        return [*([] if self.again is None else [self.again]), *self.pair]

    @staticmethod
    def due(last: int, step: int, final: bool) -> bool:
        """Whether to repeat the measurement at ``step``, the last one having been at ``last``."""
        return final or step == 0 or is_due(last, step)

    @property
    def describe(self) -> str | None:
        """How the standard error is found; None if blocks of latents give it."""
        if self.again is None:
            return None
        return "repeated measurements at steps 0, 100, 1000, ... and an unscheduled last one, pooled over 17 modes"

    def fields(self, variance: Tensor, sums: list[ModeStatistics]) -> dict[str, Any]:
        """The fields of a row that hold errors.

        Args:
            variance: measured along each mode.
            sums: of all ranks, one for each of :attr:`probes`; empty where the measurement was not repeated.
        """
        found, rest = {}, list(sums)
        if self.again is not None:
            if rest:
                self.scatter.add(variance, rest.pop(0).variance())
            relative = self.scatter.relative()
            if relative is not None:
                found["standard_error"] = (relative * variance).numpy()
        if self.pair:
            bias = torch.full_like(variance, torch.nan)
            if rest:
                coarse, fine = (part.variance() for part in rest)
                bias = (coarse / fine).log()
            found["sampler_bias"] = np.asarray(bias)
        return found


def expected_error(history: SpectralHistory) -> float:
    """Median over the modes of the relative standard error of the first row; NaN without one."""
    if not len(history):
        return math.nan
    row = history.row(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = row["standard_error"] / row["variance"]
    found = relative[np.isfinite(relative)]
    return float(np.median(found)) if len(found) else math.nan


def linear_bias(probe: SpectralProbe) -> float:
    """Root mean square over the modes of the sampler's bias on a linear denoiser, in log variance; 0 without a sampler."""
    variance = probe.basis.spectrum.numpy()
    if probe.sampler is None:
        return 0.0
    return float(np.sqrt(np.mean(sampler_bias(variance[variance > 0], probe.sampler) ** 2)))
