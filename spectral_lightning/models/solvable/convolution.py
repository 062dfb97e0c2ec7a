"""The base of full-width and local convolutions: kernels per noise level, and their theory on the data's moments."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from spectral_lightning.arguments import positive_integer
from spectral_lightning.models.checks import checked_shape
from spectral_lightning.models.solvable.per_level import PerLevel
from spectral_lightning.models.solvable.solvable import SolvableDenoiser
from spectral_lightning.spectra import channels_and_size
from spectral_lightning.theory import FullWidthConvolution, GaussianData, LocalConvolution
from spectral_lightning.theory.families.full_width_convolution import FullWidthCurves
from spectral_lightning.theory.families.local_convolution import LocalCurves

__all__ = ["Bias", "ConvolutionDenoiser", "ConvolutionPerLevel", "image_shape", "shifted"]

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


def shifted(size: tuple[int, ...], offsets: Tensor, *, circular: bool) -> Tensor:
    """Flat index of the pixel at ``x + a`` for every pixel x and offset a ``[T, dims]``, ``[N, T]``.

    Outside an image that is not circular it is N.
    """
    where = torch.cartesian_prod(*(torch.arange(n) for n in size)).reshape(-1, 1, len(size)) + offsets
    extent = torch.tensor(size)
    inside = ((where >= 0) & (where < extent)).all(-1)
    wrapped = where % extent
    flat = wrapped[..., 0] if len(size) == 1 else wrapped[..., 0] * size[1] + wrapped[..., 1]
    return flat if circular else torch.where(inside, flat, int(extent.prod()))


class ConvolutionPerLevel(PerLevel):
    """``F(x)_o(p) = Sum_{i,a} w_oi(a) x_i(p + a) + b_o(p)`` with a separate kernel for each of the given noise levels.

    Args:
        channels: C.
        size: pixels per axis, ``(N,)`` or ``(H, W)``.
        sigmas: the noise levels; another one raises.
        taps: T offsets a in the order of the flattened kernel, ``[T, dims]``; that of zero is among them.
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
        self.register_buffer("source", shifted(size, taps, circular=circular), persistent=False)

    @abstractmethod
    def convolve(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Images ``[B, C, *size]`` to the same by a kernel ``[C, C, *extent]``, without the bias."""

    def at_level(self, x: Tensor, level: int) -> Tensor:
        """``[B, *S]`` to the same, as images ``[C, *size]``."""
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
        return weight, self._pixel_bias().reshape(levels, -1)

    def bias_inputs(self, like: Tensor) -> Tensor:
        """The inputs that multiply the bias of one channel at each pixel, ``[N, F]`` with F = 0, 1 or N."""
        pixels = self.source.shape[0]
        if self.bias_kind == "per_pixel":
            return torch.eye(pixels, dtype=like.dtype)
        return like.new_ones(pixels, 0 if self.bias_kind is None else 1)

    def _pixel_bias(self) -> Tensor:
        shape = (len(self.sigmas), self.channels, *self.size)
        return self.weight.new_zeros(shape) if self.bias is None else self.bias.expand(shape)


class ConvolutionDenoiser(SolvableDenoiser):
    """A denoiser made of one convolution per noise level, whose theory is solved on the data's moments.

    Arguments and errors are those of :class:`SolvableDenoiser`.
    """

    @abstractmethod
    def dynamics(self) -> FullWidthConvolution | LocalConvolution:
        """The theory of this module's training, one update of the optimizer as the unit of time."""

    def curves(self) -> FullWidthCurves | LocalCurves:
        """:meth:`dynamics` solved on the data's moments, or on zeros if they are not yet known."""
        mean, covariance = self._moments_or_zero()
        symmetric = ((covariance + covariance.T) / 2).numpy()
        return self.dynamics().on(GaussianData(symmetric, mean.numpy(), self.size, self.channels))

    @property
    def channels(self) -> int:
        """Number of channels C of an image."""
        return image_shape(self.shape)[0]

    @property
    def size(self) -> tuple[int, ...]:
        """Pixels of an image per axis."""
        return image_shape(self.shape)[1]
