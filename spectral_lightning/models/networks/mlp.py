"""The residual multilayer perceptron of the paper's experiments."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectral_lightning.arguments import positive_integer
from spectral_lightning.models.checks import check_label, checked_shape

__all__ = ["FourierEmbedding", "ResidualMLP"]


class FourierEmbedding(nn.Module):
    """``[sin(2 pi f t), cos(2 pi f t)]`` with fixed random frequencies ``f ~ N(0, scale^2)``.

    Args:
        size: length of the embedding; even.
        scale: standard deviation of the frequencies.
    """

    frequencies: Tensor

    def __init__(self, size: int, scale: float = 1.0) -> None:
        super().__init__()
        if positive_integer("embedding", size) % 2:
            raise ValueError(f"`embedding` must be even, got {size}.")
        self.register_buffer("frequencies", torch.randn(size // 2) * scale)

    def forward(self, t: Tensor) -> Tensor:
        """``[B] -> [B, size]``, in single precision at least: in half precision the angles would be lost."""
        frequencies = self.frequencies.to(torch.promote_types(self.frequencies.dtype, torch.float32))
        angle = 2 * math.pi * t[:, None] * frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class _Block(nn.Module):
    """Normalise, transform, modulate by the noise level, transform, add to the input."""

    def __init__(self, size_in: int, size_out: int, embedding: int, normalise: bool) -> None:
        super().__init__()
        self.norm_in: nn.Module = nn.LayerNorm(size_in) if normalise else nn.Identity()
        self.first = nn.Linear(size_in, size_out)
        self.modulation = nn.Linear(embedding, 2 * size_out)
        self.norm_mid = nn.LayerNorm(size_out)
        self.second = nn.Linear(size_out, size_out)
        self.skip: nn.Module = nn.Identity() if size_in == size_out else nn.Linear(size_in, size_out)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        scale, shift = self.modulation(embedded).chunk(2, dim=1)
        hidden = self.norm_mid(self.first(functional.silu(self.norm_in(x))))
        hidden = functional.silu(hidden * (1 + scale) + shift)
        out: Tensor = self.skip(x) + self.second(hidden)
        return out


class ResidualMLP(nn.Module):
    """Residual blocks over the flattened input, modulated by a Fourier embedding of the noise level.

    The defaults suit grey 16x16 patches on a CPU: 4.1 million parameters.

    Reference: Wang & Pehlevan 2025, appendix I.2.

    Args:
        shape: of one example, whose d coordinates are flattened; a whole number d means ``[d]``.
        width: of the blocks.
        num_blocks: number of residual blocks; a linear map to d follows.
        embedding: length of the noise embedding.
        input_norm: whether the first block normalises the input; its amplitude then passes through the skip map only.
        zero_init: whether the last map starts at zero, so that F = 0 before training and D starts as the theory's q = 0:
            exactly ``c_skip z``.
        num_classes: adds the embedding of a label, 0 to ``num_classes``, to that of the noise level.

    Raises:
        ValueError: for an argument out of range, or an odd ``embedding``.
    """

    def __init__(
        self,
        shape: list[int] | int,
        width: int = 512,
        num_blocks: int = 6,
        embedding: int = 128,
        input_norm: bool = True,
        zero_init: bool = False,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        positive_integer("width", width)
        positive_integer("num_blocks", num_blocks)
        dim = math.prod(checked_shape(shape))
        self.embedding = FourierEmbedding(embedding)
        sizes = [dim, *[width] * num_blocks]
        self.blocks = nn.ModuleList(
            _Block(a, b, embedding, normalise=i > 0 or input_norm)
            for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:], strict=True))
        )
        self.out = nn.Linear(width, dim)
        if zero_init:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)
        self.classes: nn.Embedding | None = None
        if num_classes is not None:
            self.classes = nn.Embedding(positive_integer("num_classes", num_classes) + 1, embedding)

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """``[B, *S]``, ``[B]`` and, with classes, ``[B]`` to ``[B, *S]``."""
        check_label(label, self.classes is not None)
        embedded, hidden = self.embedding(noise).to(x.dtype), x.flatten(1)
        if self.classes is not None:
            embedded = embedded + self.classes(label)
        for block in self.blocks:
            hidden = block(hidden, embedded)
        out: Tensor = self.out(hidden)
        return out.reshape(x.shape)
