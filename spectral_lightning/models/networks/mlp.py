"""The residual multilayer perceptron of the paper's experiments."""

from __future__ import annotations

import math

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional

from spectral_lightning.arguments import positive_integer
from spectral_lightning.diffusion import Departure, NoiseDistribution, Reduction
from spectral_lightning.models.module import DiffusionModule, _adam
from spectral_lightning.models.networks.nonlinear import check_label, nonlinear_departures, one_layer
from spectral_lightning.models.solvable.per_level import checked_shape
from spectral_lightning.theory import OneLayer, Preconditioning

__all__ = ["FourierEmbedding", "MLPDenoiser", "ResidualMLP"]


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

    Reference: Wang & Pehlevan 2025, appendix I.2.

    Args:
        dim: number of coordinates d of one example.
        width: of the blocks.
        num_blocks: number of residual blocks; a linear map to d follows.
        embedding: length of the noise embedding.
        input_norm: whether the first block normalises the input, whose amplitude then passes by its skip map only.
        zero_init: whether the last map starts at zero, so that F = 0 before training.
        num_classes: adds the embedding of a label, 0 to ``num_classes``, to that of the noise level.
    """

    def __init__(
        self,
        dim: int,
        width: int = 256,
        num_blocks: int = 5,
        embedding: int = 256,
        input_norm: bool = True,
        zero_init: bool = False,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        positive_integer("width", width)
        positive_integer("num_blocks", num_blocks)
        self.embedding = FourierEmbedding(embedding)
        sizes = [positive_integer("dim", dim), *[width] * num_blocks]
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


class MLPDenoiser(DiffusionModule):
    """A residual multilayer perceptron trained as EDM does; compared with the preconditioned one-layer theory.

    The defaults are for grey 16x16 patches on a CPU: 4.1 million parameters.

    Reference: Wang & Pehlevan 2025, appendix I.2 (network) and section 6 (experiments).

    Args:
        shape: shape of one example; a whole number d means ``[d]``.
        width: of the blocks.
        num_blocks: number of residual blocks.
        embedding: length of the noise embedding.
        input_norm: whether the first block normalises the input.
        zero_init: whether F = 0 before training, so that D starts as the theory's q = 0: exactly ``c_skip z``.
        preconditioning: EDM with ``sigma_data=0.5`` if not given.
        noise: that of the preconditioning's own paper if not given, EDM's log-normal for EDM.
        reduction: of the squared error over coordinates.
        optimizer: Adam at 1e-4 by default.
        lr_scheduler: makes a scheduler, stepped after every update, from the optimizer.
        num_classes: number of classes, for training on ``(x, label)``; unconditional if not given.
        class_dropout: share of the labels that training replaces by the null class.
        compile: whether to compile the network when the Trainer configures the model.

    Raises:
        ValueError: for an argument out of range.
    """

    def __init__(
        self,
        shape: list[int] | int,
        width: int = 512,
        num_blocks: int = 6,
        embedding: int = 128,
        input_norm: bool = True,
        zero_init: bool = False,
        preconditioning: Preconditioning | None = None,
        noise: NoiseDistribution | None = None,
        reduction: Reduction = "mean",
        optimizer: OptimizerCallable = _adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        num_classes: int | None = None,
        class_dropout: float = 0.0,
        compile: bool = False,
    ) -> None:
        dim = math.prod(checked_shape(shape))
        network = ResidualMLP(dim, width, num_blocks, embedding, input_norm, zero_init, num_classes)
        super().__init__(
            network,
            preconditioning,
            noise,
            reduction,
            optimizer,
            lr_scheduler,
            num_classes=num_classes,
            class_dropout=class_dropout,
            compile=compile,
        )

    def dynamics(self) -> OneLayer:
        """The one-layer family under the same preconditioning and loss weight; no density of noise levels."""
        return one_layer(self)

    def departures(self) -> list[Departure]:
        """A deep network is not the linear one."""
        return nonlinear_departures("a deep nonlinear network")
