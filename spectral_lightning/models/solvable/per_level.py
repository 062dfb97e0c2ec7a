"""Networks with separate parameters for each of a few noise levels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spectral_lightning.arguments import positive_integer

__all__ = ["AffinePerLevel", "DeepLinearPerLevel", "PerLevel"]


class PerLevel(nn.Module, ABC):
    """An affine map of the input for each of the given noise levels, ``F(x, ln(sigma)/4) = W_sigma x + b_sigma``.

    Called like any network of a denoiser, ``(x [B, *S], noise [B]) -> [B, *S]``. A subclass defines how one level acts on a
    batch, and its matrices.

    Args:
        sigmas: the noise levels; any other raises an error.

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


class AffinePerLevel(PerLevel):
    """``F(x, ln(sigma)/4) = W_sigma x + b_sigma``, independent for each of the given noise levels.

    Args:
        dim: dimension d.
        sigmas: the noise levels; any other raises an error.
        init: the weights start as ``init`` times the identity, the biases at 0.
        bias: whether there are biases.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> network = AffinePerLevel(2, [1.0, 4.0], init=0.5)
        >>> network(torch.ones(1, 2), torch.tensor([4.0]).log() / 4).tolist()
        [[0.5, 0.5]]
    """

    def __init__(self, dim: int, sigmas: Sequence[float], init: float = 0.0, bias: bool = True) -> None:
        super().__init__(sigmas)
        positive_integer("dim", dim)
        self.weight = nn.Parameter(init * torch.eye(dim).expand(len(sigmas), dim, dim).clone())
        self.bias = nn.Parameter(torch.zeros(len(sigmas), dim)) if bias else None

    def affine(self) -> tuple[Tensor, Tensor]:
        """Weights ``[L, d, d]`` and biases ``[L, d]``."""
        return self.weight, self.weight.new_zeros(self.weight.shape[:2]) if self.bias is None else self.bias

    def at_level(self, x: Tensor, level: int) -> Tensor:
        """``[B, *S]`` to the same."""
        y = x.flatten(1) @ self.weight[level].T
        return (y if self.bias is None else y + self.bias[level]).reshape(x.shape)


class DeepLinearPerLevel(PerLevel):
    """``F(x, ln(sigma)/4) = W_L .. W_1 x`` with separate layers for each of the given noise levels, no bias.

    Before training all layers are ``|init|^(1/L)`` times the identity, which is balanced and aligned with any data; the
    first layer (the only one, if tied) carries the sign of a negative ``init``.

    Args:
        dim: dimension d.
        sigmas: the noise levels; any other raises an error.
        depth: number of layers L.
        tied: whether one layer is used L times.
        init: gain of the product of the layers before training.

    Raises:
        ValueError: for an argument out of range: an ``init`` of 0 from depth 2 on, a fixed point, or below 0 for an even
            number of tied layers, which have no negative gain.

    Example:
        >>> network = DeepLinearPerLevel(2, [1.0, 4.0], depth=3, init=0.125)
        >>> network.weight.shape, network.affine()[0][0].tolist()
        (torch.Size([3, 2, 2, 2]), [[0.125, 0.0], [0.0, 0.125]])
    """

    def __init__(
        self, dim: int, sigmas: Sequence[float], depth: int = 2, tied: bool = False, init: float = 0.1
    ) -> None:
        super().__init__(sigmas)
        positive_integer("dim", dim)
        self.depth, self.tied = positive_integer("depth", depth), tied
        if depth > 1 and init == 0:
            raise ValueError(
                "`init` must not be 0 from depth 2 on, because nothing is ever learnt from there. Try 0.1."
            )
        if tied and depth % 2 == 0 and init < 0:
            raise ValueError(f"`init` must be above 0 for an even number of tied layers, got {init!r}.")
        layers = torch.eye(dim).expand(1 if tied else depth, len(sigmas), dim, dim) * abs(init) ** (1 / depth)
        if init < 0:
            layers = torch.cat([-layers[:1], layers[1:]])
        self.weight = nn.Parameter(layers.clone())

    @property
    def _layers(self) -> list[Tensor]:
        """``[L, d, d]`` of each layer, the first one first."""
        return [self.weight[0]] * self.depth if self.tied else list(self.weight)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Products ``[L, d, d]`` of the layers, and zeros ``[L, d]``."""
        first, *others = self._layers
        for layer in others:
            first = layer @ first
        return first, first.new_zeros(first.shape[:2])

    def at_level(self, x: Tensor, level: int) -> Tensor:
        """``[B, *S]`` to the same, layer by layer."""
        hidden = x.flatten(1)
        for layer in self._layers:
            hidden = hidden @ layer[level].T
        return hidden.reshape(x.shape)
