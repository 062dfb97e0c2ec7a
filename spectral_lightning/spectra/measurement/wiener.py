"""The best linear denoiser of data with given moments, and its loss: the floor that a network's loss is compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_lightning.spectra.bases import Basis

__all__ = ["WienerFilter"]


class WienerFilter:
    """``W(z; sigma) = mean + r (z - mean) + sum_k (g_k - r) u_k u_k' (z - mean)``, ``g_k = lambda_k / (lambda_k + sigma^2)``.

    Of all affine functions of ``z = x0 + sigma eps`` it has the least ``E|W - x0|^2``, which is the linear floor
    ``sum_k lambda_k sigma^2 / (lambda_k + sigma^2)``. If the basis holds fewer modes than dimensions, the remaining
    directions share one variance v and the gain ``r = v / (v + sigma^2)``.

    Args:
        basis: its ``data`` are the eigenmodes ``u_k`` of the covariance, with variances ``lambda_k``, about the mean.
        rest: variance v of each remaining direction.
        dtype: of the computation.

    Example:
        >>> from spectral_lightning.spectra import PCABasis
        >>> wiener = WienerFilter(PCABasis.from_moments(torch.zeros(2), torch.diag(torch.tensor([3.0, 1.0]))))
        >>> wiener(torch.tensor([[4.0, 4.0]]), torch.tensor([1.0])).tolist(), wiener.floor(1.0)
        ([[3.0, 2.0]], 1.25)
    """

    def __init__(self, basis: Basis, rest: float = 0.0, dtype: torch.dtype = torch.float64) -> None:
        modes = basis.data
        self.dim, self.rest = modes.dim, rest
        self.vectors, self.mean = modes.vectors.to(dtype), modes.mean.to(dtype)
        self.variance = modes.variance[modes.mode_of].to(dtype)

    def __call__(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """Predict the clean data, ``[B, *S] -> [B, *S]`` at levels ``[B]``, where the noisy data are, in this dtype."""
        if self.vectors.device != noisy.device:
            self.vectors, self.mean, self.variance = (
                part.to(noisy.device) for part in (self.vectors, self.mean, self.variance)
            )
        flat, square = noisy.flatten(1).to(self.vectors) - self.mean, sigma.to(self.vectors)[:, None] ** 2
        gain, remaining = self.variance / (self.variance + square), self.rest / (self.rest + square)
        clean = self.mean + remaining * flat + ((flat @ self.vectors) * (gain - remaining)) @ self.vectors.T
        return clean.reshape(noisy.shape)

    def floor(self, sigma: float) -> float:
        """The loss ``E|W - x0|^2`` on data that have exactly these moments."""
        square, variance = sigma**2, self.variance.double()
        others = self.dim - len(variance)
        return float((variance * square / (variance + square)).sum()) + others * self.rest * square / (
            self.rest + square
        )
