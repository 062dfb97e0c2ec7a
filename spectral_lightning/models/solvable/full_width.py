"""One convolution as wide as the image per noise level."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from spectral_lightning.diffusion import Reduction
from spectral_lightning.models.checks import checked_shape
from spectral_lightning.models.solvable.convolution import Bias, ConvolutionDenoiser, ConvolutionPerLevel, image_shape
from spectral_lightning.models.solvable.solvable import grid_of
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import FullWidthConvolution, Preconditioning

__all__ = ["CircularConvPerLevel", "FullWidthConvDenoiser"]


class CircularConvPerLevel(ConvolutionPerLevel):
    """``F(x)_o(p) = Sum_{i,a} w_oi(a) x_i(p + a mod N) + b_o(p)``, a kernel as wide as the image per noise level.

    The kernel ``weight``, ``[L, C, C, *size]``, has offset a from 0 upwards. Batches go through the FFT: at frequency k the
    convolution is the matrix ``T(k) = Sum_a w(a) exp(2 pi i k.a / N)``.

    Args:
        channels: C.
        size: pixels per axis, ``(N,)`` or ``(H, W)``.
        sigmas: the noise levels; another one raises.
        init: the kernel starts as ``init`` at offset zero from each channel to itself, and zero elsewhere.
        bias: None, ``"shared"`` by all pixels, or one ``"per_pixel"``; it starts at 0.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> network = CircularConvPerLevel(1, (4,), [1.0])
        >>> with torch.no_grad():
        ...     network.weight[0, 0, 0] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # the neighbour on the right
        >>> network(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.zeros(1)).round().tolist()
        [[2.0, 3.0, 4.0, 1.0]]
    """

    def __init__(
        self, channels: int, size: tuple[int, ...], sigmas: Sequence[float], init: float = 0.0, bias: Bias = None
    ) -> None:
        taps = torch.cartesian_prod(*(torch.arange(n) for n in size)).reshape(-1, len(size))
        super().__init__(channels, size, sigmas, taps, size, init, bias)

    def convolve(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Images ``[B, C, *size]`` to the same by a kernel ``[C, C, *size]``."""
        axes = tuple(range(2, 2 + len(self.size)))
        transfer = torch.fft.rfftn(kernel, dim=axes).conj()  # the offset is added, not subtracted
        wave = torch.einsum("oi...,bi...->bo...", transfer, torch.fft.rfftn(x, dim=axes))
        out: Tensor = torch.fft.irfftn(wave, s=self.size, dim=axes)
        return out


class FullWidthConvDenoiser(ConvolutionDenoiser):
    """Independent circular convolutions as wide as the image per noise level (``FullWidthConvolution``).

    ``D(z; sigma)_o(p) = c_skip z_o(p) + c_out (Sum_{i,a} w_oi(a) c_in z_i(p + a) + b_o(p))``, w = ``init`` at offset zero
    before training; trained on the expected loss or on samples as :class:`SolvableDenoiser` says. On stationary data it
    learns N times as fast as :class:`LinearDenoiser` at the same rate, because N pixels share its weights.

    Reference: Wang & Pehlevan 2025, proposition 5.3; channels, bias and preconditioning are beyond that paper.

    Args:
        shape: of one example, ``[N]``, ``[C, N]`` or ``[C, H, W]``.
        sampler: sets the noise levels: those at which sampling evaluates the denoiser.
        sigmas: explicit noise levels instead; sampling then needs a sampler with exactly these.
        init: initial gain of the convolution.
        bias: None, ``"shared"`` by all pixels, or one ``"per_pixel"``; without one, a mean counts as second moment.
        objective: ``"exact"`` descends the expected loss, from the data's moments by dense matrices ``[d, d]``;
            ``"samples"`` that of batches.
        preconditioning: coefficients and loss weight; EDM if not given. ``Preconditioning("none")`` is the paper's.
        reduction: over pixels and channels, ``"sum"`` (the theory's) or ``"mean"`` (which divides every rate by d).
        optimizer: plain gradient descent at 0.1 / N if not given.
        lr_scheduler: makes a scheduler, stepped after every update, from the optimizer.

    Raises:
        ValueError: for an argument out of range; when training starts, for a learning rate at which descent diverges or
            an exact objective without moments.

    Example:
        >>> module = FullWidthConvDenoiser([2, 8, 8], sigmas=[1.0, 4.0])
        >>> module.network.weight.shape, module.size, module.channels
        (torch.Size([2, 2, 2, 8, 8]), (8, 8), 2)
    """

    def __init__(
        self,
        shape: list[int] | int,
        sampler: Sampler | None = None,
        sigmas: list[float] | None = None,
        init: float = 0.0,
        bias: Literal["shared", "per_pixel"] | None = None,
        objective: Literal["exact", "samples"] = "exact",
        preconditioning: Preconditioning | None = None,
        reduction: Reduction = "sum",
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        grid, levels = grid_of(sampler, sigmas)
        channels, size = image_shape(shape)
        network = CircularConvPerLevel(channels, size, levels, init, bias)
        descent = optimizer or partial(torch.optim.SGD, lr=0.1 / torch.Size(size).numel())
        super().__init__(
            network, checked_shape(shape), grid, objective, preconditioning, reduction, descent, lr_scheduler
        )
        self.init, self.bias = init, bias

    def stable_learning_rate(self) -> float:
        """Largest learning rate at which descent converges for these levels and moments.

        One over N times the largest ``weight (c_out c_in)^2 (lambda + sigma^2)`` over levels and spectral eigenvalues, with
        the bias as ``FullWidthConvolution`` has it.
        """
        return self._slowdown * self.curves().stable_learning_rate(self.sigma_grid)

    def dynamics(self) -> FullWidthConvolution:
        """The theory of this module's training, one update of the optimizer as the unit of time."""
        return FullWidthConvolution(self._objective, self.init, self.bias)
