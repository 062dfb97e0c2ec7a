"""Loss over its linear floor: how much more a denoiser knows about data than their mean and covariance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectral_lightning.diffusion import Denoiser
from spectral_lightning.seeds import torch_generator
from spectral_lightning.spectra.bases import Basis
from spectral_lightning.spectra.measurement.probe import at_one_level, gain_sums, samples_at_once
from spectral_lightning.spectra.measurement.wiener import WienerFilter
from spectral_lightning.spectra.ranks import Ranks

__all__ = ["LinearFloor", "paired_ratio"]


def paired_ratio(error: Tensor, floor: Tensor) -> tuple[Tensor, Tensor]:
    """The ratio of two means over the same points and its standard error, ``[.., N] -> [..]``.

    ``R = sum e_n / sum f_n``, ``se = (sum (e_n - R f_n)^2 / (N (N - 1)))^(1/2) / mean f_n`` (delta method): what the points
    have in common cancels.

    Example:
        >>> paired_ratio(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0]))
        (tensor(0.5000), tensor(0.))
    """
    count, mean = floor.shape[-1], floor.mean(-1)
    ratio = error.mean(-1) / mean
    square = (error - ratio[..., None] * floor).square().sum(-1)
    return ratio, (square / (count * (count - 1))).sqrt() / mean if count > 1 else torch.full_like(ratio, torch.nan)


class LinearFloor:
    """Error of a denoiser on fixed points and noise over that of the Wiener filter on the same points and noise.

    ``R(sigma) = sum_n |D(z_n; sigma) - x_n|^2 / sum_n |W(z_n; sigma) - x_n|^2``, ``z_n = x_n + sigma eps_n``. R = 1 for the best
    linear denoiser; on points that were not trained on, R < 1 shows knowledge beyond mean and covariance. W has the moments
    of the training data, so that its error exceeds the closed floor where these were estimated from few examples.

    The same pass gives the gain of the denoiser at the data, along each mode,
    ``g_k = sum_n u_k'(D - mean) u_k'(z - mean) / sum_n (u_k'(z - mean))^2``. It is no variance of generated samples.

    Noise is drawn once per point and used at all levels and in all measurements. Ranks share the points; the results are
    those of one process. Cost of a measurement: one evaluation per point and level.

    Args:
        basis: modes of the gains, and the eigenmodes of the data.
        levels: noise levels, ``[L]``.
        points: ``[N, *S]``, the same on every rank.
        label: classes of the points ``[N]`` for a denoiser ``D(z, sigma, label)``; None calls ``D(z, sigma)``.
        classes: eigenmodes of every class, for the floor within classes; needs ``label``.
        seed: of the noise.
        dtype: in which the denoiser gets z.
        batch_size: most points in one call.
        ranks: the processes that share the points.

    Attributes:
        linear: errors of the Wiener filter, ``[L, N]``, float64.
        within: errors of the filter of each point's own class, or None.
        closed: the closed floor ``sum_k lambda_k sigma^2 / (lambda_k + sigma^2)``, ``[L]``.
        closed_within: the mean over the points of the closed floor of their class, or None.
    """

    def __init__(
        self,
        basis: Basis,
        levels: Sequence[float],
        points: Tensor,
        label: Tensor | None = None,
        classes: Sequence[Basis] | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 512,
        ranks: Ranks | None = None,
    ) -> None:
        self.basis, self.levels, self.label = basis, tuple(levels), label
        self.points, self.seed, self.dtype, self.batch_size = points.to(dtype), seed, dtype, batch_size
        self.ranks = ranks or Ranks()
        everything, wiener = torch.arange(len(points)), WienerFilter(basis)
        self.linear = self._errors_of([(everything, wiener)])
        self.closed = np.array([wiener.floor(sigma) for sigma in self.levels])
        self.within: Tensor | None = None
        self.closed_within: Any = None
        if classes is not None and label is not None:
            members = [(everything[label == c], WienerFilter(one)) for c, one in enumerate(classes)]
            self.within = self._errors_of(members)
            floors = [[len(own) * one.floor(sigma) for sigma in self.levels] for own, one in members]
            self.closed_within = np.sum(floors, 0) / len(points)

    @property
    def evaluations(self) -> int:
        """Evaluations of the network per measurement, over all ranks."""
        return len(self.points) * len(self.levels)

    @torch.no_grad()
    def measure(self, denoiser: Denoiser, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """This rank's share: errors ``[L, N]``, 0 for other points, and the two sums of the gains ``[2, L, K]``.

        No rank waits for another. Every rank calls the denoiser equally often.
        """
        error = torch.zeros(len(self.levels), len(self.points), dtype=torch.float64)
        sums = torch.zeros(2, len(self.levels), len(self.basis.variance), dtype=torch.float64)
        count, size = len(self.points), self.ranks.size
        turns = torch.arange(self.ranks.rank, -(-count // size) * size, size)
        for turn in torch.split(turns, self.batch_size):
            index, counted = turn % count, turn < count
            clean, eps = self._drawn(index)
            call = at_one_level(denoiser, None if self.label is None else self.label[index].to(device))
            for i, sigma in enumerate(self.levels):
                z = self._noisy(clean, eps, sigma).to(device)
                out = call(z, sigma)
                found = (out.cpu().double() - clean).flatten(1).square().sum(1)
                error[i, index[counted]] = found[counted]
                sums[:, i] += gain_sums(self.basis, z[counted], out[counted])
        return error, sums

    def fields(self, error: Tensor, sums: Tensor) -> dict[str, Any]:
        """The fields of a row, from every rank's :meth:`measure`. Every rank must call it."""
        error, sums = self.ranks.sum(error), self.ranks.sum(sums)
        ratio, deviation = paired_ratio(error, self.linear)
        found = {
            "held_out_error": error.mean(1).numpy(),
            "over_floor": ratio.numpy(),
            "over_floor_error": deviation.numpy(),
            "data_gain": (sums[0] / sums[1]).numpy(),
        }
        if self.within is not None:
            ratio, deviation = paired_ratio(error, self.within)
            found |= {"over_class_floor": ratio.numpy(), "over_class_floor_error": deviation.numpy()}
        return found

    def static(self) -> dict[str, Any]:
        """The fields of a history that do not change."""
        found = {"linear_floor": self.closed, "linear_error": self.linear.mean(1).numpy()}
        if self.within is not None:
            found |= {"class_floor": self.closed_within, "class_error": self.within.mean(1).numpy()}
        return found

    def _errors_of(self, filters: Sequence[tuple[Tensor, WienerFilter]]) -> Tensor:
        """Errors ``[L, N]`` of filters that each denoise the points of an index."""
        error = torch.zeros(len(self.levels), len(self.points), dtype=torch.float64)
        for members, wiener in filters:
            for index in torch.split(members, min(self.batch_size, samples_at_once(self.basis))):
                clean, eps = self._drawn(index)
                for i, sigma in enumerate(self.levels):
                    z = self._noisy(clean, eps, sigma)
                    out = wiener(z, torch.full((len(z),), sigma, dtype=torch.float64))
                    error[i, index] = (out - clean).flatten(1).square().sum(1)
        return error

    def _drawn(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Points and their noise, float64 on the CPU; the noise of a point depends on nothing but the point."""
        shape = self.points.shape[1:]
        rows = [torch.randn(shape, generator=torch_generator("floor", self.seed, n)) for n in index.tolist()]
        clean = self.points[index].double()
        return clean, torch.stack(rows).double() if rows else torch.empty_like(clean)

    def _noisy(self, clean: Tensor, eps: Tensor, sigma: float) -> Tensor:
        return (clean + sigma * eps).to(self.dtype)
