"""Fields on a circle or a torus of pixels as blocks of channels, and kernels seen at their Fourier modes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.theory.data import GaussianField
from spectral_lightning.theory.solving.blocks import Blocks

__all__ = ["autocovariance", "circular_blocks", "kernel_offsets", "phases"]

Array = NDArray[np.float64]
Field = NDArray[Any]


def circular_blocks(field: GaussianField, bias: str | None) -> Blocks:
    """One block of channels per frequency; a mean that no bias can carry counts as second moment."""
    pixels, channels = field.pixels, field.channels
    flat = field.spectrum.reshape(pixels, channels, channels)
    axes = tuple(range(1, field.mean.ndim))
    wave = np.fft.fftn(field.mean, axes=axes, norm="ortho").reshape(channels, pixels).T
    carried = np.zeros((pixels, 1), bool)
    carried[: {None: 0, "shared": 1, "per_pixel": pixels}[bias]] = True
    rest = np.where(carried, 0.0, wave)
    return Blocks(flat + rest[:, :, None] * rest[:, None, :].conj(), np.where(carried, wave, 0.0))


def autocovariance(spectrum: Field, size: tuple[int, ...]) -> Array:
    """``R(delta) = mean over x of E x(x + delta) x(x)'``, ``[*size, channels, channels]``, from ``[pixels, ..]``."""
    folded = spectrum.reshape(*size, *spectrum.shape[1:])
    return np.asarray(np.fft.ifftn(folded, axes=tuple(range(len(size)))).real, np.float64)


def kernel_offsets(kernel_size: int, dims: int) -> NDArray[np.int64]:
    """Offsets of the taps of a centred kernel, row by row, ``[taps, dims]``."""
    line = np.arange(kernel_size) - kernel_size // 2
    return np.stack(np.meshgrid(*(line,) * dims, indexing="ij"), axis=-1).reshape(-1, dims)


def phases(offsets: NDArray[np.int64], size: tuple[int, ...]) -> Field:
    """``exp(2 pi i k . a / N)`` for every tap a and frequency k, ``[taps, pixels]``."""
    waves = np.stack(np.meshgrid(*(np.arange(n) / n for n in size), indexing="ij"), axis=-1).reshape(-1, len(size))
    return np.asarray(np.exp(2j * np.pi * (offsets @ waves.T)))
