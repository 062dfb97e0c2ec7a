"""Convolutions with separate kernels for each of a few noise levels."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectral_lightning.arguments import one_of, positive_integer
from spectral_lightning.models.checks import checked_shape
from spectral_lightning.models.solvable.per_level import PerLevel
from spectral_lightning.spectra import channels_and_size

__all__ = ["Bias", "CircularConvPerLevel", "ConvolutionPerLevel", "LocalConvPerLevel", "image_shape"]

Bias = Literal["shared", "per_pixel"] | None


def image_shape(shape: Sequence[int] | int) -> tuple[int, tuple[int, ...]]:
    """Channels and pixels per axis of ``[N]``, ``[C, N]`` or ``[C, H, W]``.

    Example:
        >>> image_shape(8), image_shape([2, 8]), image_shape([3, 4, 5])
        ((1, (8,)), (2, (8,)), (3, (4, 5)))
    """
    sizes = checked_shape(shape)
    if len(sizes) > 3:
        raise ValueError(f"`shape` must be [N], [C, N] or [C, H, W], got {shape!r}.")
    return channels_and_size(sizes)


def _shifted(size: tuple[int, ...], offsets: Tensor, *, circular: bool) -> Tensor:
    """Flat index of the pixel at ``x + a`` for every pixel x and offset a ``[T, dims]``, ``[N, T]``.

    Pixels outside an image that is not circular have the index N.
    """
    where = torch.cartesian_prod(*(torch.arange(n) for n in size)).reshape(-1, 1, len(size)) + offsets
    wrapped = where % torch.tensor(size)
    flat = wrapped[..., 0] if len(size) == 1 else wrapped[..., 0] * size[1] + wrapped[..., 1]
    return flat if circular else torch.where((wrapped == where).all(-1), flat, math.prod(size))


class ConvolutionPerLevel(PerLevel):
    """``F(x)_o(p) = Sum_{i,a} w_oi(a) x_i(p + a) + b_o(p)`` with a separate kernel for each of the given noise levels.

    Args:
        channels: C.
        size: pixels per axis, ``(N,)`` or ``(H, W)``.
        sigmas: the noise levels; any other raises an error.
        taps: T offsets a in the order of the flattened kernel, ``[T, dims]``, zero among them.
        extent: shape of the kernel, T elements.
        init: the kernel starts as ``init`` at offset zero from each channel to itself, and zero elsewhere.
        bias: None, ``"shared"`` by all pixels, or one ``"per_pixel"``; it starts at 0.
        circular: whether the image wraps around instead of being padded with zeros.

    Raises:
        ValueError: for an argument out of range.
    """

    source: Tensor

    def __init__(
        self,
        channels: int,
        size: tuple[int, ...],
        sigmas: Sequence[float],
        taps: Tensor,
        extent: tuple[int, ...],
        init: float,
        bias: Bias,
        circular: bool = True,
    ) -> None:
        super().__init__(sigmas)
        if bias not in (None, "shared", "per_pixel"):
            raise ValueError(f"`bias` must be one of None, 'shared', 'per_pixel', got {bias!r}.")
        self.channels, self.size, self.bias_kind = positive_integer("channels", channels), size, bias
        centre = (taps == 0).all(1).to(torch.get_default_dtype()).reshape(extent)
        same = torch.eye(channels).reshape(channels, channels, *(1,) * len(size))
        self.weight = nn.Parameter((init * same * centre).expand(len(sigmas), *(-1,) * (2 + len(size))).clone())
        pixels = tuple(1 for _ in size) if bias == "shared" else size
        self.bias = None if bias is None else nn.Parameter(torch.zeros(len(sigmas), channels, *pixels))
        self.register_buffer("source", _shifted(size, taps, circular=circular), persistent=False)

    @abstractmethod
    def convolve(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Convolve images ``[B, C, *size]`` with a kernel ``[C, C, *extent]``, without the bias; keeps their shape."""

    def at_level(self, x: Tensor, level: int) -> Tensor:
        """The map of one level, ``[B, *S]`` to the same; examples are images ``[C, *size]``."""
        y = self.convolve(x.reshape(-1, self.channels, *self.size), self.weight[level])
        return (y if self.bias is None else y + self.bias[level]).reshape(x.shape)

    def affine(self) -> tuple[Tensor, Tensor]:
        """The convolutions as matrices ``[L, C N, C N]``, and the biases ``[L, C N]``."""
        levels, channels, pixels = len(self.sigmas), self.channels, self.source.shape[0]
        kernel = self.weight.reshape(levels, channels, channels, 1, -1).expand(-1, -1, -1, pixels, -1)
        # Column N collects taps outside the image.
        dense = kernel.new_zeros(levels, channels, channels, pixels, pixels + 1)
        dense = dense.scatter_add(-1, self.source.expand(kernel.shape), kernel)[..., :pixels]
        weight = dense.transpose(2, 3).reshape(levels, channels * pixels, channels * pixels)
        shape = (levels, channels, *self.size)
        bias = self.weight.new_zeros(shape) if self.bias is None else self.bias.expand(shape)
        return weight, bias.reshape(levels, -1)


class CircularConvPerLevel(ConvolutionPerLevel):
    """``F(x)_o(p) = Sum_{i,a} w_oi(a) x_i(p + a mod N) + b_o(p)``, a kernel as wide as the image per noise level.

    The kernel ``weight``, ``[L, C, C, *size]``, has offset a from 0 upwards. Batches go through the FFT: at frequency k the
    convolution is the matrix ``T(k) = Sum_a w(a) exp(2 pi i k.a / N)``.

    Arguments and errors are those of :class:`ConvolutionPerLevel`, whose kernel is here as wide as the image.

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
        """Convolve images ``[B, C, *size]`` with a kernel ``[C, C, *size]``."""
        axes = tuple(range(2, 2 + len(self.size)))
        transfer = torch.fft.rfftn(kernel, dim=axes).conj()  # the offset is added, not subtracted
        wave = torch.einsum("oi...,bi...->bo...", transfer, torch.fft.rfftn(x, dim=axes))
        out: Tensor = torch.fft.irfftn(wave, s=self.size, dim=axes)
        return out


class LocalConvPerLevel(ConvolutionPerLevel):
    """``F(x)_o(p) = Sum_{i,a} w_oi(a) x_i(p + a) + b_o(p)``, offsets a within a small centred kernel per noise level.

    The kernel ``weight``, ``[L, C, C, *K]``, has offset a from ``-(K - 1)/2`` upwards, as PyTorch's own convolutions.

    The other arguments and errors are those of :class:`ConvolutionPerLevel`.

    Args:
        kernel_size: K along every axis, odd and at most the size.
        padding: of the image, ``"circular"`` or ``"zeros"``.

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
        """Convolve images ``[B, C, *size]`` with a kernel ``[C, C, *K]``."""
        mode = "circular" if self.padding == "circular" else "constant"
        padded = functional.pad(x, (self.kernel_size // 2,) * (2 * len(self.size)), mode=mode)
        conv = functional.conv1d if len(self.size) == 1 else functional.conv2d
        out: Tensor = conv(padded, kernel)
        return out

    def input_moments(self, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Moments of the inputs that multiply the kernel and the bias of one channel, summed over the pixels.

        With the patch ``P_p`` (channels by taps) and the bias's features ``e_p`` of pixel p: ``Sum_p E P_p P_p'``,
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
        bias = torch.eye(pixels, dtype=mean.dtype)
        if self.bias_kind != "per_pixel":
            bias = mean.new_ones(pixels, 0 if self.bias_kind is None else 1)
        count = self.channels * source.shape[1]
        cross = torch.einsum("cpt,pf->ctf", middle, bias).reshape(count, -1)
        return torch.as_tensor(patch).reshape(count, count), cross, bias.T @ bias
