"""Classes of the data, measured separately."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectral_lightning.spectra.bases import Basis
from spectral_lightning.spectra.measurement.probe import GeneratedSamples, SpectralProbe
from spectral_lightning.spectra.measurement.statistics import ModeStatistics
from spectral_lightning.spectra.ranks import Ranks
from spectral_lightning.theory.solving.sampled import fixed_point

__all__ = ["Groups", "group_moments", "group_sums"]

Classifier = Callable[[Tensor], Tensor]
"""Maps samples ``[B, *S]`` to their groups ``[B]``, integers from 0."""


@dataclass(frozen=True)
class Groups:
    """The groups of a measurement, and how samples are assigned to them.

    A class-conditional model is sampled once per group, from the same latents under the label of the group; together the
    samples represent the mixture with the shares of the data. An unconditional model is sampled once, and ``classify``
    assigns each sample to its group.

    Args:
        names: names of the G groups.
        share: share of the data in each group, ``[G]``.
        target: variance of each group's data along the modes, about the mean of the group, ``[G, K]``.
        classify: classifier of samples for an unconditional model; None for a conditional one.

    Raises:
        ValueError: for shapes that do not match.
    """

    names: tuple[str, ...]
    share: Tensor
    target: Tensor
    classify: Classifier | None = None

    def __post_init__(self) -> None:
        if self.share.shape != (len(self.names),) or self.target.shape[:1] != self.share.shape:
            raise ValueError(
                f"`share` and `target` must have {len(self.names)} groups, as `names`, got shapes "
                f"{tuple(self.share.shape)} and {tuple(self.target.shape)}."
            )

    @cached_property
    def labels(self) -> list[int | None]:
        """The label of each sampling: one per group for a conditional model, a single None otherwise."""
        return list(range(len(self.names))) if self.classify is None else [None]

    def static(self, probe: SpectralProbe) -> dict[str, Any]:
        """The static fields of a history that describe the groups.

        The fixed point is that of each mode alone, exact if the covariance of the group is diagonal in the basis.
        """
        target, sampler = self.target.numpy(), probe.sampler
        return {
            "group_target": target,
            "group_fixed_point": target if sampler is None else np.stack([fixed_point(t, sampler) for t in target]),
            "group_share": self.share.numpy(),
        }

    def sums(self, probe: SpectralProbe, samples: Sequence[GeneratedSamples]) -> list[ModeStatistics]:
        """This rank's sums over the samples of each group; of an unconditional model, first over all samples.

        No rank waits for another.

        Args:
            probe: the probe that generated the samples.
            samples: one set per entry of :attr:`labels`.
        """
        if self.classify is None:
            return [probe.sums(one) for one in samples]
        return probe.sums_by_group(samples[0], self.classify, len(self.names))

    def row(
        self, probe: SpectralProbe, statistics: Sequence[ModeStatistics], step: int, **known: Any
    ) -> dict[str, Any]:
        """One row with the fields of the groups and of all samples together.

        Args:
            probe: the probe that generated the samples.
            statistics: result of :meth:`sums`, added up over all ranks.
            step: optimizer updates so far.
            known: additional row fields.
        """
        parts = list(statistics if self.classify is None else statistics[1:])
        errors, unbiased = torch.stack([probe.standard_error(p) for p in parts]), probe.latents.kind == "independent"
        if self.classify is None:
            error = (self.share[:, None] * errors).square().sum(0).sqrt()
            whole = ModeStatistics.mixture(parts, self.share)
            common = probe.summary(whole, step, error, len(parts) * probe.latents.count)
        else:
            common = probe.row_of(statistics[0], step)
        return {
            **common,
            # A group without samples has no variance: NaN, not 0.
            "group_variance": torch.stack([part.variance(unbiased) for part in parts]).numpy(),
            "group_standard_error": errors.numpy(),
            "group_mean_deviation": torch.stack([part.deviation for part in parts]).numpy(),
            "group_count": np.array([int(part.total) for part in parts]),
            **known,
        }


def group_sums(basis: Basis, count: int, labelled: Iterable[tuple[Tensor, Tensor]]) -> list[ModeStatistics]:
    """This rank's sums over the data of each group along the modes, batch by batch; no rank waits for another.

    Args:
        basis: the modes.
        count: number of groups.
        labelled: this rank's batches ``(examples [B, *S], label [B])``.

    Raises:
        ValueError: for a label out of range.
    """
    parts = [ModeStatistics.empty(1, basis.observables) for _ in range(count)]
    for examples, label in labelled:
        if len(label) and not 0 <= int(label.min()) <= int(label.max()) < count:
            raise ValueError(
                f"Labels of the data must be 0 to {count - 1}, got {int(label.min())} to {int(label.max())}."
            )
        observed = basis.project(examples)
        for g, part in enumerate(parts):
            part.add(0, observed[(label == g).to(observed.device)])
    return parts


def group_moments(names: Sequence[str], parts: Sequence[ModeStatistics], ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Share of each group in the data, ``[G]``, and its variance along the modes, ``[G, K]``. Every rank must call it.

    Args:
        names: names of the G groups.
        parts: this rank's :func:`group_sums`; replaced by those of all ranks.
        ranks: the processes that share the data.

    Raises:
        ValueError: for a group without data.
    """
    for part in parts:
        part.reduce(ranks)
    totals = torch.stack([part.total for part in parts])
    if not (totals > 0).all():
        empty = [name for name, total in zip(names, totals, strict=True) if total == 0]
        raise ValueError(f"Every class must have data, got none of {', '.join(empty)}.")
    return totals / totals.sum(), torch.stack([part.variance() for part in parts])
