"""How far the coordinates of samples are uncorrelated, by the cheaper of two matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from spectral_lightning.spectra.bases.basis import Observables
from spectral_lightning.spectra.ranks import Ranks

__all__ = ["Alignment"]

_NUMBERS_KEPT = 2**23


class Alignment:
    """Sum of squared diagonal over sum of squares of the coordinates' covariance C; 1 if they are uncorrelated.

    ``C = sum w y y' / sum w - m m'`` over rows y, one per sample and replicate, with the mean m of each replicate. If there
    are at least as many rows as the M coordinates, ``sum w y y'`` is added up, ``[M, M]``. With fewer rows they are kept, and
    ``sum_kl C_kl^2 = sum_ij (z_i' z_j)^2`` for the n rows ``z = (w / sum w)^(1/2) (y - m)``: n^2 M operations, and the same
    number.

    Rows are kept up to 8.4 million numbers (67 MB), and the samples beyond, the last ones, left out: with all Fourier modes
    of 3x256x256 pixels, 42 samples are used.

    Args:
        observables: which observables belong to which mode.
        samples: the number of samples to come, over all ranks.
    """

    def __init__(self, observables: Observables, samples: int) -> None:
        self.observables = observables
        coordinates = len(observables.mode_of)
        rows = samples * observables.replicates
        self.most = samples if rows >= coordinates else min(samples, max(1, _NUMBERS_KEPT // observables.count))
        self.cross = torch.zeros((coordinates,) * 2 if rows >= coordinates else 0, dtype=torch.float64)
        self.sums, self.weight = torch.zeros(observables.count, dtype=torch.float64), 0.0
        self.rows: list[tuple[int, float, Tensor]] = []
        """First sample, weight of each, and observables ``[n, R * M]`` of samples kept."""

    @classmethod
    def mixture(cls, parts: Sequence[Alignment], weights: Sequence[float]) -> Alignment:
        """The alignment of all parts together, samples counted with a weight for each part."""
        whole = cls(parts[0].observables, parts[0].most)
        for weight, part in zip(weights, parts, strict=True):
            whole.cross = whole.cross + weight * part.cross
            whole.sums, whole.weight = whole.sums + weight * part.sums, whole.weight + weight * part.weight
            whole.rows += [(first, weight * own, rows) for first, own, rows in part.rows]
        return whole

    def add(self, observations: Tensor, first: int) -> None:
        """Add samples ``[n, R * M]``, the first of which is number ``first`` of all."""
        used = observations[: max(0, self.most - first)]
        self.sums += used.sum(0).cpu()
        self.weight += len(used)
        if self.cross.ndim == 1:
            self.rows.append((first, 1.0, used.cpu().clone()))
        else:
            rows = used.reshape(-1, len(self.cross))
            self.cross += (rows.T @ rows).cpu()

    def reduce(self, ranks: Ranks) -> None:
        """Add up the ranks' shares, in place. Every rank must call it."""
        self.sums = ranks.sum(self.sums)
        self.weight = float(ranks.sum(torch.tensor(self.weight, dtype=torch.float64)))
        if self.cross.ndim == 2:
            self.cross = ranks.sum(self.cross)
        else:
            gathered = [rows for part in ranks.gather(self.rows) for rows in part]
            self.rows = sorted(gathered, key=lambda rows: rows[0])  # one order, whatever the number of ranks

    def value(self) -> float:
        """The alignment; NaN without samples."""
        replicates, coordinates = self.observables.replicates, len(self.observables.mode_of)
        if not self.weight:
            return math.nan
        mean = self.sums / self.weight
        if self.cross.ndim == 2:
            means = mean.reshape(replicates, coordinates)
            covariance = (self.cross / self.weight - means.T @ means) / replicates
            return float(covariance.diagonal().square().sum() / covariance.square().sum())
        scaled = [(weight / self.weight / replicates) ** 0.5 * (rows - mean) for _, weight, rows in self.rows]
        z = torch.cat(scaled).reshape(-1, coordinates)
        return float(z.square().sum(0).square().sum() / (z @ z.T).square().sum())
