"""Sums over samples along modes, and the moments and errors that follow from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spectral_lightning.spectra.bases.basis import Observables
from spectral_lightning.spectra.measurement.alignment import Alignment
from spectral_lightning.spectra.ranks import Ranks

__all__ = ["ModeStatistics"]

_SUMS = ("count", "sums", "second", "third", "fourth")


@dataclass
class ModeStatistics:
    """Counts and sums over samples along K modes, kept per block of samples and added in block order.

    The pooled square ``p_k`` of a sample is the mean square of its observables of mode k. Samples are the independent
    units, not observables: the patches of one image count as one observation in every error.

    Partial sums belong to fixed blocks, not to ranks, so that the totals do not depend on the world size.

    Attributes:
        observables: which observables belong to which mode.
        count: samples, ``[blocks]``.
        sums: sum of the observables, ``[blocks, R * M]``.
        second: sum of the pooled squares, ``[blocks, K]``.
        third: sum of the pooled cubes, ``[blocks, K]``.
        fourth: sum of the squares of the pooled squares, ``[blocks, K]``.
        non_finite: samples left out because of NaN or infinity, ``[]``.
        aligned: correlations of the coordinates; None if they were not asked for.

    Example:
        >>> statistics = ModeStatistics.empty(1, Observables(torch.tensor([0, 1, 1])))
        >>> statistics.add(0, torch.tensor([[1.0, 3.0, 0.0], [-1.0, -3.0, 0.0]], dtype=torch.float64))
        >>> statistics.variance().tolist(), statistics.deviation.tolist()
        ([1.0, 4.5], [0.0, 0.0])
    """

    observables: Observables
    count: Tensor
    sums: Tensor
    second: Tensor
    third: Tensor
    fourth: Tensor
    non_finite: Tensor
    aligned: Alignment | None = None

    @classmethod
    def empty(cls, blocks: int, observables: Observables, samples: int | None = None) -> ModeStatistics:
        """No samples yet; float64 on the CPU.

        Args:
            blocks: number of blocks.
            observables: which observables belong to which mode.
            samples: the number of samples to come, over all ranks and blocks, if the alignment is wanted.
        """

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64)

        second, third, fourth = (zeros(blocks, observables.num_modes) for _ in range(3))
        aligned = None if samples is None else Alignment(observables, samples)
        sums = zeros(blocks, observables.count)
        return cls(observables, zeros(blocks), sums, second, third, fourth, zeros(), aligned)

    @classmethod
    def mixture(cls, parts: Sequence[ModeStatistics], share: Tensor) -> ModeStatistics:
        """Sums for a mixture of distributions with shares ``[G]``, each represented by its samples."""
        size = sum(float(part.total) for part in parts)
        weights = [
            float(w) * size / float(part.total) if part.total else 0.0 for w, part in zip(share, parts, strict=True)
        ]

        def weighted(name: str) -> Tensor:
            return torch.stack([w * getattr(part, name) for w, part in zip(weights, parts, strict=True)]).sum(0)

        non_finite = torch.stack([part.non_finite for part in parts]).sum(0)
        aligned = [part.aligned for part in parts if part.aligned is not None]
        whole = Alignment.mixture(aligned, weights) if len(aligned) == len(parts) else None
        return cls(
            parts[0].observables,
            **{name: weighted(name) for name in _SUMS},
            non_finite=non_finite,
            aligned=whole,
        )

    def add(self, block: int, observations: Tensor, non_finite: int = 0, first: int = 0) -> None:
        """Add the float64 observables ``[n, R * M]`` of n samples to a block; ``first`` is the number of the first of them."""
        squares = observations.square()
        pooled = self.observables.pool(squares)
        self.count[block] += len(observations)
        self.sums[block] += observations.sum(0).cpu()
        self.second[block] += pooled.sum(0).cpu()
        self.fourth[block] += pooled.square().sum(0).cpu()
        self.third[block] += self.observables.pool(squares.mul_(observations)).sum(0).cpu()
        if self.aligned is not None:
            self.aligned.add(observations, first)
        self.non_finite += non_finite

    def reduce(self, ranks: Ranks) -> None:
        """Add up the ranks' shares, in place."""
        for name in (*_SUMS, "non_finite"):
            setattr(self, name, ranks.sum(getattr(self, name)))
        if self.aligned is not None:
            self.aligned.reduce(ranks)

    @property
    def total(self) -> Tensor:
        """Number of samples."""
        return self.count.sum()

    @property
    def mean(self) -> Tensor:
        """Mean of each observable, ``[R * M]``."""
        return self.sums.sum(0) / self.total

    @property
    def deviation(self) -> Tensor:
        """Mean along each mode, ``[K]``: signed if every mode has one observable, else the root mean square over them."""
        if self.observables.single:
            return self.mean
        return self.observables.pool(self.mean.square()).sqrt()

    def variance(self, unbiased: bool = False) -> Tensor:
        """Variance along each mode, ``[K]``; divided by n, or by n - 1 if ``unbiased``."""
        central = self.second.sum(0) / self.total - self.observables.pool(self.mean.square())
        variance: Tensor = central.clamp_min(0) * (self.total / (self.total - 1) if unbiased else 1)
        return variance

    def block_error(self) -> Tensor:
        """Standard error of the variance from the scatter of the blocks' second moments about the common mean, ``[K]``."""
        used = self.count > 0
        shift = self.observables.pool(2 * self.mean * self.sums[used])
        moments = (self.second[used] - shift) / self.count[used, None]
        error: Tensor = moments.std(0) / len(moments) ** 0.5
        return error

    def moment_error(self, independent: float) -> Tensor:
        """Standard error of the variance from the fourth moment of this number of independent samples, ``[K]``.

        About the mean of the samples if every mode has one observable; else about the data's mean, the origin of the
        observables, which gives an upper bound if the two means differ.
        """
        second, fourth = self.second.sum(0) / self.total, self.fourth.sum(0) / self.total
        if self.observables.single:
            m, third = self.mean, self.third.sum(0) / self.total
            fourth = fourth - 4 * m * third + 6 * m.square() * second - 3 * m**4
            second = second - m.square()
        return ((fourth - second.square()).clamp_min(0) / independent).sqrt()

    def alignment(self) -> float:
        """See :class:`~spectral_lightning.spectra.measurement.alignment.Alignment`; NaN if it was not asked for."""
        return math.nan if self.aligned is None else self.aligned.value()
