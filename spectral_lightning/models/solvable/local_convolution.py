"""One convolution with a small kernel per noise level."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn import functional

from spectral_lightning.arguments import one_of, positive_integer
from spectral_lightning.diffusion import Departure, Reduction
from spectral_lightning.models.checks import checked_shape
from spectral_lightning.models.solvable.convolution import Bias, ConvolutionDenoiser, ConvolutionPerLevel, image_shape
from spectral_lightning.models.solvable.solvable import grid_of
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import LocalConvolution, Preconditioning

__all__ = ["LocalConvDenoiser", "LocalConvPerLevel"]


class LocalConvPerLevel(ConvolutionPerLevel):
    """``F(x)_o(p) = Sum_{i,a} w_oi(a) x_i(p + a) + b_o(p)``, offsets a within a small centred kernel per noise level.

    The kernel ``weight``, ``[L, C, C, *K]``, has offset a from ``-(K - 1)/2`` upwards, as PyTorch's own convolutions.

    Args:
        channels: C.
        size: pixels per axis, ``(N,)`` or ``(H, W)``.
        sigmas: the noise levels; another one raises.
        kernel_size: K along every axis, odd and at most the size.
        padding: of the image, ``"circular"`` or ``"zeros"``.
        init: the kernel starts as ``init`` at its centre from each channel to itself, and zero elsewhere.
        bias: None, ``"shared"`` by all pixels, or one ``"per_pixel"``; it starts at 0.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> network = LocalConvPerLevel(1, (4,), [1.0], padding="zeros")
        >>> with torch.no_grad():
        ...     network.weight[0, 0, 0] = torch.tensor([0.0, 0.0, 1.0])  # the neighbour on the right
        >>> network(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.zeros(1)).tolist()
        [[2.0, 3.0, 4.0, 0.0]]
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, ...],
        sigmas: Sequence[float],
        kernel_size: int = 3,
        padding: Literal["circular", "zeros"] = "circular",
        init: float = 0.0,
        bias: Bias = None,
    ) -> None:
        width = positive_integer("kernel_size", kernel_size)
        if width % 2 == 0 or width > min(size):
            raise ValueError(
                f"`kernel_size` must be odd and at most {min(size)}, the image's size, got {kernel_size!r}. "
                "An even kernel has no centre; FullWidthConvDenoiser is as wide as the image."
            )
        one_of("padding", padding, ("circular", "zeros"))
        line = torch.arange(width) - width // 2
        taps = torch.cartesian_prod(*(line for _ in size)).reshape(-1, len(size))
        extent = tuple(width for _ in size)
        super().__init__(channels, size, sigmas, taps, extent, init, bias, padding == "circular")
        self.kernel_size, self.padding = width, padding

    def convolve(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Images ``[B, C, *size]`` to the same by a kernel ``[C, C, *K]``."""
        mode = "circular" if self.padding == "circular" else "constant"
        padded = functional.pad(x, (self.kernel_size // 2,) * (2 * len(self.size)), mode=mode)
        conv = functional.conv1d if len(self.size) == 1 else functional.conv2d
        out: Tensor = conv(padded, kernel)
        return out

    def input_moments(self, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Moments of the inputs that multiply the kernel and the bias of one channel, summed over the pixels.

        Of the patches ``P_p`` (channels by taps) and the bias' features ``e_p`` of every pixel p: ``Sum_p E P_p P_p'``,
        ``[C T, C T]``, ``Sum_p E P_p e_p'``, ``[C T, F]``, and ``Sum_p e_p e_p'``, ``[F, F]`` with F = 0, 1 or N.

        Args:
            mean: of the noisy images, ``[C N]``.
            covariance: of the noisy images, ``[C N, C N]``.
        """
        pixels = self.source.shape[0]
        second = covariance + torch.outer(mean, mean)
        padded = second.new_zeros(self.channels, pixels + 1, self.channels, pixels + 1)
        padded[:, :pixels, :, :pixels] = second.reshape(self.channels, pixels, self.channels, pixels)
        source = self.source.cpu()
        patch = sum(padded[:, taps][:, :, :, taps] for taps in source)
        middle = functional.pad(mean.reshape(self.channels, pixels), (0, 1))[:, source]
        bias = self.bias_inputs(mean)
        count = self.channels * source.shape[1]
        cross = torch.einsum("cpt,pf->ctf", middle, bias).reshape(count, -1)
        return torch.as_tensor(patch).reshape(count, count), cross, bias.T @ bias


class LocalConvDenoiser(ConvolutionDenoiser):
    """Independent convolutions with a small kernel per noise level (``LocalConvolution``): modes emerge nearly together.

    ``D(z; sigma)_o(p) = c_skip z_o(p) + c_out (Sum_{i,a} w_oi(a) c_in z_i(p + a) + b_o(p))``, w = ``init`` at its centre
    before training; trained on the expected loss or on samples as :class:`SolvableDenoiser` says. A local kernel cannot
    hold the data's spectrum: the generated one ends at the theory's limit.

    The theory is that of the circular boundary; zero padding is declared by :meth:`departures`. It takes one bias per
    pixel only where the mean is the same at all pixels.

    Reference: Wang & Pehlevan 2025, proposition 5.4; channels, bias and preconditioning are beyond that paper.

    Args:
        shape: of one example, ``[N]``, ``[C, N]`` or ``[C, H, W]``.
        kernel_size: K along every axis, odd.
        padding: of the image, ``"circular"`` or ``"zeros"``.
        sampler: sets the noise levels: those at which sampling evaluates the denoiser.
        sigmas: explicit noise levels instead; sampling then needs a sampler with exactly these.
        init: initial gain of the convolution.
        bias: None, ``"shared"`` by all pixels, or one ``"per_pixel"``; without one, a mean counts as second moment.
        objective: ``"exact"`` descends the expected loss, from the data's moments by dense matrices ``[d, d]``;
            ``"samples"`` that of batches.
        preconditioning: coefficients and loss weight; EDM if not given. ``Preconditioning("none")`` is the paper's.
        reduction: over pixels and channels, ``"sum"`` (the theory's) or ``"mean"`` (which divides every rate by d).
        optimizer: plain gradient descent at 0.02 / N if not given.
        lr_scheduler: makes a scheduler, stepped after every update, from the optimizer.

    Raises:
        ValueError: for an argument out of range; when training starts, for a learning rate at which descent diverges or
            an exact objective without moments.

    Example:
        >>> LocalConvDenoiser([2, 8, 8], kernel_size=5, sigmas=[1.0, 4.0]).network.weight.shape
        torch.Size([2, 2, 2, 5, 5])
    """

    network: LocalConvPerLevel

    def __init__(
        self,
        shape: list[int] | int,
        kernel_size: int = 3,
        padding: Literal["circular", "zeros"] = "circular",
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
        network = LocalConvPerLevel(channels, size, levels, kernel_size, padding, init, bias)
        descent = optimizer or partial(torch.optim.SGD, lr=0.02 / torch.Size(size).numel())
        super().__init__(
            network, checked_shape(shape), grid, objective, preconditioning, reduction, descent, lr_scheduler
        )
        self.kernel_size, self.padding, self.init, self.bias = kernel_size, padding, init, bias

    def stable_learning_rate(self) -> float:
        """Largest learning rate at which descent converges for these levels and moments, with the padding as it is.

        One over the largest eigenvalue, over all levels, of half the loss's second derivative by the kernel and the bias.
        """
        return self._slowdown / max(self._curvature(sigma) for sigma in self.sigma_grid)

    def _curvature(self, sigma: float) -> float:
        p, (mean, covariance) = self.preconditioning, self._moments_or_zero()
        noisy = covariance + sigma**2 * torch.eye(self.dim, dtype=mean.dtype)
        patch, cross, corner = self.network.input_moments(p.c_in(sigma) * mean, p.c_in(sigma) ** 2 * noisy)
        second = torch.cat([torch.cat([patch, cross], 1), torch.cat([cross.T, corner], 1)])
        return float(p.bias_rate_factor(sigma) * torch.linalg.eigvalsh(second)[-1])

    def dynamics(self) -> LocalConvolution:
        """The theory of this module's training, one update of the optimizer as the unit of time."""
        return LocalConvolution(self._objective, self.kernel_size, self.init, self.bias)

    def departures(self) -> list[Departure]:
        """Mini-batches, and zero padding."""
        if self.padding == "circular":
            return super().departures()
        text = "circular boundary assumed, images padded with zeros used"
        return [*super().departures(), Departure(text, affects_clock=False)]
