"""What one tracker measures of a model at one moment, whatever the moment is."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spectral_lightning.diffusion import Denoiser
from spectral_lightning.spectra import GeneratedSamples, Groups, SpectralHistory, SpectralProbe

__all__ = ["Instrument", "Subject"]


@dataclass(frozen=True)
class Subject:
    """The model as it is measured: its denoiser, where it is, and what the sampler's state is kept in."""

    denoiser: Denoiser
    device: torch.device
    dtype: torch.dtype

    def under(self, label: int | None) -> Denoiser:
        """The denoiser, with one label for every sample where there is one."""
        if label is None:
            return self.denoiser
        return partial(_labelled, self.denoiser, label)


class Instrument:
    """Samples, gains and groups of one tracker, put together to rows.

    Args:
        probe: basis, sampler and latents.
        groups: classes that are measured apart; None for none.
        track_gain: whether every row holds the denoiser's gains.
    """

    def __init__(self, probe: SpectralProbe, groups: Groups | None = None, track_gain: bool = False) -> None:
        self.probe, self.groups, self.track_gain = probe, groups, track_gain

    @property
    def key(self) -> Hashable:
        """Equal for instruments that generate the same samples from one model."""
        return (self.probe.sampling_key, tuple(self._labels))

    @property
    def evaluations(self) -> int:
        """Evaluations of the network for one measurement, over all ranks."""
        count, sampler = self.probe.latents.count, self.probe.sampler
        return count * (len(self._labels) * sampler.evaluations + self.track_gain * len(sampler.levels))

    def history(self, initial_gain: Tensor, **metadata: Any) -> SpectralHistory:
        """An empty history for this instrument's rows."""
        if self.groups is None:
            return self.probe.history(initial_gain.numpy(), **metadata)
        static = self.groups.static(self.probe)
        return self.probe.history(initial_gain.numpy(), static, groups=list(self.groups.names), **metadata)

    def generate(self, subject: Subject) -> list[GeneratedSamples]:
        """This rank's samples, one set per label."""
        return [self.probe.generate(subject.under(g), subject.device, subject.dtype) for g in self._labels]

    def row(self, subject: Subject, samples: Sequence[GeneratedSamples], step: int, **known: Any) -> dict[str, Any]:
        """One row of the history. Every rank has to call it."""
        if self.track_gain:
            known["gain"] = self.probe.gain(subject.denoiser, subject.device, subject.dtype).numpy()
        if self.groups is not None:
            return self.groups.row(self.probe, samples, step, **known)
        return self.probe.row(samples[0], step, **known)

    @property
    def _labels(self) -> list[int | None]:
        return [None] if self.groups is None else self.groups.labels


def _labelled(denoiser: Any, label: int, z: Tensor, sigma: Tensor) -> Tensor:
    out: Tensor = denoiser(z, sigma, torch.full((len(z),), label, dtype=torch.int64, device=z.device))
    return out
