"""Pictures of samples from the same latents over a training."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectral_lightning.diffusion import Denoiser, Latents
from spectral_lightning.spectra import SpectralProbe, sample_images
from spectral_lightning.spectra.measurement.probe import at_one_level
from spectral_lightning.tracking.timing import Schedule

__all__ = ["SampleStrip"]

_PER_DECADE = 2
_PART = 3  # of the latents: parts 0 to 2 are measured
_SIDE = 64  # most pixels along a side


class SampleStrip:
    """Samples from a few fixed, independent latents, as pixels; twice per factor of ten in steps, and at the end.

    The latents are the same at every step, and for every rank and world size. Each sample costs as much as one more latent of
    a measurement; with several ranks, every rank makes them all. Images of more than 64 pixels along a side are thinned.

    Args:
        probe: basis and sampler of the measurements.
        count: number of samples.
    """

    def __init__(self, probe: SpectralProbe, count: int) -> None:
        self.basis, self.sampler, self.most = probe.basis, probe.sampler, probe.sample_batch_size
        self.rows = Latents(max(count, 2), self.basis.dim, "independent", probe.latents.seed, _PART).rows(0, count)
        self.schedule = Schedule(_PER_DECADE)

    @classmethod
    def wanted(cls, probe: SpectralProbe, count: int) -> SampleStrip | None:
        """A strip of ``count`` samples; None for 0, or for data that are not images."""
        images = count > 0 and sample_images(probe.basis, torch.zeros(1, *probe.basis.shape)) is not None
        return cls(probe, count) if images else None

    def due(self, last: int | None, step: int, final: bool) -> bool:
        """Whether to take the pictures at a step; ``last`` is that of the measurement before, None without one."""
        return final or last is None or self.schedule.due(last, step)

    @torch.no_grad()
    def pixels(
        self,
        denoiser: Denoiser,
        device: torch.device | str,
        dtype: torch.dtype,
        condition: Tensor | None = None,
    ) -> NDArray[np.uint8]:
        """The samples, ``[n, H, W]`` or ``[n, H, W, 3]``; sample i has row i modulo n of the condition.

        Every rank must call it, because a denoiser may gather sharded parameters; all get the same.
        """
        latents = self.rows.to(device=device, dtype=dtype).reshape(-1, *self.basis.shape)
        given = torch.as_tensor(() if condition is None else condition)
        rows = given[torch.arange(len(latents)) % len(given)].to(device) if len(given) else None
        made = []
        for first in range(0, len(latents), self.most):
            own = slice(first, first + self.most)
            part = None if rows is None else rows[own]
            if self.sampler is None:
                made.append(denoiser(latents[own], *(() if part is None else (part,))))
            else:
                made.append(self.sampler(at_one_level(denoiser, part), latents[own] * self.sampler.start))
        samples = torch.cat(made)
        found = sample_images(self.basis, samples)
        if found is None:
            raise RuntimeError("`probe` must measure data that are images.")
        stride = -(-max(found.shape[1:3]) // _SIDE)
        return np.ascontiguousarray(found[:, ::stride, ::stride])
