"""Spectra of fields on a circle or a torus of pixels, and kernels seen at their Fourier modes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.arguments import positive_integer
from spectral_lightning.theory.solving.blocks import Blocks, checked_covariance

__all__ = ["autocovariance", "checked_size", "circular_blocks", "kernel_offsets", "mean_field", "phases", "spectrum_of"]

Array = NDArray[np.float64]
Field = NDArray[Any]


def checked_size(size: int | tuple[int, ...] | None, coordinates: int, channels: int) -> tuple[int, ...]:
    """Pixels per axis, checked against the number of coordinates; all on one axis where not given."""
    positive_integer("channels", channels)
    if size is None:
        size = coordinates // channels
    size = (size,) if isinstance(size, int) else tuple(int(n) for n in size)
    if len(size) not in (1, 2) or min(size) < 1 or channels * int(np.prod(size)) != coordinates:
        raise ValueError(
            f"`size` must be (N,) or (H, W) with channels * pixels = {coordinates} coordinates, got {size!r} and "
            f"{channels} channels."
        )
    return size


def spectrum_of(covariance: ArrayLike, size: tuple[int, ...], channels: int) -> Field:
    """Spectral matrices ``E x_k x_k'`` of the unitary DFT at every frequency, ``[*size, channels, channels]``.

    The field need not be stationary: this is its average over shifts.
    """
    matrix = checked_covariance("covariance", np.asarray(covariance, np.float64))
    folded = matrix.reshape(channels, *size, channels, *size)
    dims = len(size)
    first, second = tuple(range(1, 1 + dims)), tuple(range(2 + dims, 2 + 2 * dims))
    both = np.fft.ifftn(np.fft.fftn(folded, axes=first), axes=second)
    pixels = int(np.prod(size))
    square = both.reshape(channels, pixels, channels, pixels)
    return np.asarray(np.einsum("ikjk->kij", square).reshape(*size, channels, channels))


def mean_field(mean: ArrayLike | None, size: tuple[int, ...], channels: int) -> Array:
    """The mean as ``[channels, *size]``, from that shape, the flat one, or one number per channel."""
    pixels = int(np.prod(size))
    given = np.zeros(channels) if mean is None else np.asarray(mean, np.float64)
    if given.shape not in ((channels,), (channels * pixels,), (channels, *size)) or not np.isfinite(given).all():
        raise ValueError(
            f"`mean` must be finite with shape ({channels},), ({channels * pixels},) or {(channels, *size)}, "
            f"got shape {given.shape}."
        )
    field = given[:, None] if given.shape == (channels,) else given
    return np.broadcast_to(field.reshape(channels, -1), (channels, pixels)).reshape(channels, *size).copy()


def checked_spectrum(spectrum: ArrayLike) -> Field:
    """Spectral matrices ``[*size, channels, channels]`` of a real field; ``ValueError`` otherwise."""
    matrices = checked_covariance("spectrum", np.asarray(spectrum))
    dims = matrices.ndim - 2
    if dims not in (1, 2):
        raise ValueError(f"`spectrum` must have shape [N, C, C] or [H, W, C, C], got {matrices.shape}.")
    axes = tuple(range(dims))
    mirrored = np.roll(np.flip(matrices, axes), 1, axes).conj()
    if np.abs(mirrored - matrices).max(initial=0.0) > 1e-9 * np.abs(matrices).max(initial=0.0):
        raise ValueError("`spectrum` must be that of a real field: at frequency -k the conjugate of that at k.")
    return matrices.astype(np.complex128)


def circular_blocks(spectrum: ArrayLike, mean: Array, bias: str | None) -> Blocks:
    """One block of channels per frequency; a mean that no bias can carry counts as second moment."""
    matrices = checked_spectrum(spectrum)
    channels, size = mean.shape[0], mean.shape[1:]
    if matrices.shape != (*size, channels, channels):
        raise ValueError(f"`spectrum` must have shape {(*size, channels, channels)}, got {matrices.shape}.")
    pixels = int(np.prod(size))
    flat = matrices.reshape(pixels, channels, channels)
    wave = np.fft.fftn(mean, axes=tuple(range(1, mean.ndim)), norm="ortho").reshape(channels, pixels).T
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
