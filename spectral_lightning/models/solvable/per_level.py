"""Networks with separate parameters for each of a few noise levels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["PerLevel"]


class PerLevel(nn.Module, ABC):
    """An affine map of the input for each of the given noise levels, ``F(x, ln(sigma)/4) = W_sigma x + b_sigma``.

    Called like any network of a denoiser, ``(x [B, *S], noise [B]) -> [B, *S]``. A subclass applies one level to a batch and
    gives its matrices.

    Args:
        sigmas: the noise levels; another one raises.

    Raises:
        ValueError: for levels that are not positive; when called, for any other level.
    """

    def __init__(self, sigmas: Sequence[float]) -> None:
        super().__init__()
        levels = torch.tensor(sigmas, dtype=torch.float64)
        if levels.ndim != 1 or len(levels) == 0 or not (levels > 0).all():
            raise ValueError(f"`sigmas` must be one or more noise levels above 0, got {tuple(sigmas)!r}.")
        # Not a buffer: half precision would round it to other levels.
        self.sigmas = tuple(levels.tolist())

    @abstractmethod
    def affine(self) -> tuple[Tensor, Tensor]:
        """Weights ``[L, d, d]`` and biases ``[L, d]`` on flattened inputs at all L levels, differentiable."""

    @abstractmethod
    def at_level(self, x: Tensor, level: int) -> Tensor:
        """The map of one level, ``[B, *S]`` to the same."""

    def level(self, noise: Tensor) -> Tensor:
        """Index of the noise level of each example; raises ``ValueError`` for one that is not on the grid."""
        known = torch.tensor(self.sigmas, dtype=noise.dtype, device=noise.device).log() / 4
        nearest = (noise[:, None] - known).abs().min(1)
        # A quarter of a logarithm in single precision is good to about 1e-7.
        if (nearest.values > 1e-5).any():
            sigma = float((4 * noise[nearest.values.argmax()]).exp())
            grid = ", ".join(f"{s:.4g}" for s in self.sigmas)
            raise ValueError(
                f"`sigma` must be one of the levels this denoiser has weights for, {grid}, got {sigma:.6g}. "
                "Sample with the module's own sampler."
            )
        return nearest.indices

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """``[B, *S]`` and ``[B]`` to ``[B, *S]``."""
        index, out = self.level(noise), torch.empty_like(x)
        for level in set(index.tolist()):
            rows = index == level
            out[rows] = self.at_level(x[rows], level).to(out.dtype)  # autocast computes in another one
        return out
