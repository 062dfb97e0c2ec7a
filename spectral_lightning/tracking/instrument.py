"""What one tracker measures of a model at one moment, whatever the moment is."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spectral_lightning.diffusion import Denoiser
from spectral_lightning.spectra import GeneratedSamples, Groups, ModeStatistics, SpectralHistory, SpectralProbe

__all__ = ["Instrument", "Subject"]


@dataclass(frozen=True)
class Subject:
    """The model as it is measured.

    Attributes:
        denoiser: what is evaluated.
        device: where it is.
        dtype: what the sampler's state is kept in.
        condition: rows given by the user.
        needs_label: whether it is not known to do without a condition.
    """

    denoiser: Denoiser
    device: torch.device
    dtype: torch.dtype
    condition: Tensor | None = None
    needs_label: bool = False

    def under(self, label: int | None) -> Tensor | None:
        """The condition: one label for every sample where there is one."""
        return self.condition if label is None else torch.tensor([label])


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
        return (self.probe.sampling_key, tuple(self.labels))

    @property
    def evaluations(self) -> int:
        """Evaluations of the network for one measurement, over all ranks."""
        count, sampler = self.probe.latents.count, self.probe.sampler
        if sampler is None:
            return count * len(self.labels)
        return count * (len(self.labels) * sampler.evaluations + self.track_gain * len(sampler.levels))

    def describe(self) -> str:
        """Modes, samples and sampler, for logs."""
        probe, groups = self.probe, self.groups
        classes = "" if groups is None else f" for each of {len(groups.names)} classes" * (groups.classify is None)
        sampler = "the sampler given" if probe.sampler is None else probe.sampler.describe()
        return f"{probe.basis.describe()}; {probe.latents.count} samples{classes}, {sampler}"

    def history(self, initial_gain: Tensor | None, **metadata: Any) -> SpectralHistory:
        """An empty history for this instrument's rows."""
        gain = None if initial_gain is None else initial_gain.numpy()
        if self.groups is None:
            return self.probe.history(gain, **metadata)
        static = self.groups.static(self.probe)
        return self.probe.history(gain, static, groups=list(self.groups.names), **metadata)

    def generate(self, subject: Subject) -> list[GeneratedSamples]:
        """This rank's samples, one set per label; no rank waits for another."""
        at = (subject.denoiser, subject.device, subject.dtype)
        return [self.probe.generate(*at, condition=subject.under(g)) for g in self.labels]

    def gain_sums(self, subject: Subject) -> Tensor | None:
        """This rank's share of the gains, where they are tracked; no rank waits for another."""
        return self.first_gain_sums(subject) if self.track_gain else None

    def first_gain_sums(self, subject: Subject) -> Tensor:
        """This rank's share of the gains, tracked or not.

        Measured once for all classes: without a label, or for a model that needs one under every class in turn.
        """
        labels = [g for g in self.labels if g is not None]
        in_turn = torch.tensor(labels) if labels and subject.needs_label else None
        condition = in_turn if subject.condition is None else subject.condition
        return self.probe.gain_sums(subject.denoiser, subject.device, subject.dtype, condition)

    def sums(self, samples: Sequence[GeneratedSamples]) -> list[ModeStatistics]:
        """This rank's sums over its samples, of all together or group by group; no rank waits for another."""
        return [self.probe.sums(samples[0])] if self.groups is None else self.groups.sums(self.probe, samples)

    def row(self, sums: Sequence[ModeStatistics], gain_sums: Tensor | None, step: int, **known: Any) -> dict[str, Any]:
        """One row of the history from all ranks' shares. Every rank has to call it."""
        for statistics in sums:
            statistics.reduce(self.probe.ranks)
        if gain_sums is not None:
            known["gain"] = self.probe.gain_of(gain_sums).numpy()
        if self.groups is not None:
            return self.groups.row(self.probe, sums, step, **known)
        return self.probe.row_of(sums[0], step, **known)

    @property
    def labels(self) -> list[int | None]:
        """The label of each sampling; one without a label where there are no classes to be conditioned on."""
        return [None] if self.groups is None else self.groups.labels
