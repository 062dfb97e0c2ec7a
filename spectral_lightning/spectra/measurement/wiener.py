"""The best linear denoiser of data with given moments, and its loss: the floor that a network's loss is compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_lightning.spectra.bases import Basis

__all__ = ["WienerFilter"]

_TRANSFORM = 64


class WienerFilter:
    """``W(z; sigma) = mean + r (z - mean) + sum_k (g_k - r) u_k u_k' (z - mean)``, ``g_k = lambda_k / (lambda_k + sigma^2)``.

    Of all affine functions of ``z = x0 + sigma eps`` it has the least ``E|W - x0|^2``, which is the linear floor
    ``sum_k lambda_k sigma^2 / (lambda_k + sigma^2)``. If the basis holds fewer modes than dimensions, the remaining
    directions share one variance ``v = basis.data.rest`` and the gain ``r = v / (v + sigma^2)``.

    Args:
        basis: its ``data`` are the eigenmodes ``u_k`` of the covariance, with variances ``lambda_k``, about the mean; or the
            Fourier modes of data that are too large for eigenmodes, and W is the best filter of a stationary field.
        dtype: of the computation.

    Example:
        >>> from spectral_lightning.spectra import PCABasis
        >>> wiener = WienerFilter(PCABasis.from_moments(torch.zeros(2), torch.diag(torch.tensor([3.0, 1.0]))))
        >>> wiener(torch.tensor([[4.0, 4.0]]), torch.tensor([1.0])).tolist(), wiener.floor(1.0)
        ([[3.0, 2.0]], 1.25)
    """

    def __init__(self, basis: Basis, dtype: torch.dtype = torch.float64) -> None:
        self.modes = modes = basis.data
        self.dim, self.rest = modes.dim, modes.rest
        self.vectors = modes.vectors.to(dtype) if modes.keeps_vectors else None
        self.mean, self.variance = modes.mean.to(dtype), modes.variance[modes.mode_of].to(dtype)
        self.size = self.dim * _TRANSFORM if self.vectors is None else self.vectors.numel()
        """Numbers in the eigenvectors, or in vectors that would cost as much as a transform."""

    def __call__(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """Predict the clean data, ``[B, *S] -> [B, *S]`` at levels ``[B]``, where the noisy data are, in this dtype."""
        if self.mean.device != noisy.device:
            self.mean, self.variance = self.mean.to(noisy.device), self.variance.to(noisy.device)
            self.vectors = None if self.vectors is None else self.vectors.to(noisy.device)
        flat, square = noisy.flatten(1).to(self.mean) - self.mean, sigma.to(self.mean)[:, None] ** 2
        gain, remaining = self.variance / (self.variance + square), self.rest / (self.rest + square)
        return (self.mean + remaining * flat + self._scaled(flat, gain - remaining)).reshape(noisy.shape)

    def _scaled(self, flat: Tensor, factor: Tensor) -> Tensor:
        """Fields whose coordinates are multiplied by factors."""
        if self.vectors is not None:
            return ((flat @ self.vectors) * factor) @ self.vectors.T
        wide = flat.to("cpu" if flat.device.type == "mps" else flat.device, torch.float64)
        return self.modes.synthesize(self.modes.along(wide) * factor.to(wide)).to(flat)

    def floor(self, sigma: float) -> float:
        """The loss ``E|W - x0|^2`` on data that have exactly these moments."""
        square, variance = sigma**2, self.variance.double()
        others = self.dim - len(variance)
        return float((variance * square / (variance + square)).sum()) + others * self.rest * square / (
            self.rest + square
        )
