"""How accurate a measurement is: its sampling error, and the bias of the sampler on the network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from spectral_lightning.diffusion import Denoiser
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import ModeStatistics, SpectralProbe
from spectral_lightning.spectra.measurement.scatter import Scatter
from spectral_lightning.tracking.first_look import is_due

__all__ = ["Accuracy"]

_FINE, _FEW = 24, 64  # evaluations of the comparison, latents


class Accuracy:
    """Repeats a measurement now and then: at steps 0, 100, 1000, ... and at the end.

    With fewer than two complete blocks of latents, it measures again with independent latents, and their
    :class:`~spectral_lightning.spectra.measurement.scatter.Scatter` is the standard error of all later rows.

    If the sampler is an Adams one of its own levels with fewer than 24 evaluations, it compares that sampler with one of 24
    evaluations on the same latents, at most 64: the log of the ratio of the variances estimates the bias on the network.

    Args:
        probe: the measurement.
    """

    def __init__(self, probe: SpectralProbe) -> None:
        self.scatter = Scatter()
        self.again: SpectralProbe | None = None
        self.pair: tuple[SpectralProbe, ...] = ()
        latents, sampler = probe.latents, probe.sampler

        def like(count: int, part: int, **changes: Any) -> SpectralProbe:
            changed: Sampler | Literal["given"] = "given" if sampler is None else replace(sampler, **changes)
            settings = (count, latents.kind, latents.seed, probe.sample_batch_size, probe.ranks, part)
            return SpectralProbe(probe.basis, changed, *settings)

        if latents.kind == "orthogonal" and not probe.error_from_blocks:
            self.again = like(latents.count, 1)
        if sampler is not None and sampler.solver == "adams" and sampler.grid is None and sampler.num_steps < _FINE:
            few = min(_FEW, latents.count)
            self.pair = like(few, 2), like(few, 2, num_steps=_FINE)

    @staticmethod
    def due(last: int, step: int, final: bool) -> bool:
        """Whether to repeat the measurement at ``step``, the last one having been at ``last``."""
        return final or step == 0 or is_due(last, step)

    @property
    def describe(self) -> str | None:
        """How the standard error is found; None if blocks of latents give it."""
        if self.again is None:
            return None
        return "repeated measurements at steps 0, 100, 1000, ... and the last, pooled over 17 modes"

    def sums(
        self, denoiser: Denoiser, device: torch.device, dtype: torch.dtype, condition: Tensor | None
    ) -> list[ModeStatistics]:
        """This rank's sums over the repetitions; no rank waits for another."""
        probes = [*([] if self.again is None else [self.again]), *self.pair]
        return [probe.sums(probe.generate(denoiser, device, dtype, condition)) for probe in probes]

    def fields(self, variance: Tensor, sums: list[ModeStatistics]) -> dict[str, Any]:
        """The fields of a row that hold errors.

        Args:
            variance: measured along each mode.
            sums: of all ranks, from :meth:`sums`; empty where the measurement was not repeated.
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
