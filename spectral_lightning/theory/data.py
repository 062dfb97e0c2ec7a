"""The data that a family is solved on, if the variances of the modes are not enough."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.arguments import positive_integer

__all__ = ["GaussianData", "GaussianField"]

Array = NDArray[np.float64]
Field = NDArray[Any]

_ROUNDING = 1e-9


class GaussianData:
    """Mean and covariance of the data, laid out as images for the convolutions.

    Args:
        covariance: ``[d, d]``, ``d = channels * pixels``, coordinates ordered as ``[channels, *size]``.
        mean: ``[d]``, ``[channels, *size]``, or one number per channel; zero if not given.
        size: pixels per axis, ``(N,)`` or ``(H, W)``; all on one axis if not given.
        channels: C.

    Raises:
        ValueError: for shapes that do not fit each other, or a covariance that is not symmetric and positive
            semidefinite.

    Example:
        >>> GaussianData([[2.0, 0.0], [0.0, 1.0]], mean=[1.0, 0.0]).field.spectrum[:, 0, 0].real
        array([1.5, 1.5])
    """

    def __init__(
        self,
        covariance: ArrayLike,
        mean: ArrayLike | None = None,
        size: int | tuple[int, ...] | None = None,
        channels: int = 1,
    ) -> None:
        self.covariance: Array = checked_covariance("covariance", np.asarray(covariance, np.float64))
        if self.covariance.ndim != 2:
            raise ValueError(f"`covariance` must be a matrix [d, d], got shape {self.covariance.shape}.")
        self.channels = positive_integer("channels", channels)
        coordinates = len(self.covariance)
        size = coordinates // channels if size is None else size
        self.size = (size,) if isinstance(size, int) else tuple(int(n) for n in size)
        if len(self.size) not in (1, 2) or min(self.size) < 1 or channels * int(np.prod(self.size)) != coordinates:
            raise ValueError(
                f"`size` must be (N,) or (H, W) with channels * pixels = {coordinates} coordinates, got {self.size!r} "
                f"and {channels} channels."
            )
        self.mean = _mean_field(mean, self.size, channels).reshape(-1)

    @cached_property
    def field(self) -> GaussianField:
        """The data as a convolution sees them."""
        size, channels, pixels = self.size, self.channels, int(np.prod(self.size))
        folded, dims = self.covariance.reshape(channels, *size, channels, *size), len(size)
        first, second = tuple(range(1, 1 + dims)), tuple(range(2 + dims, 2 + 2 * dims))
        both = np.fft.ifftn(np.fft.fftn(folded, axes=first), axes=second)
        spectrum = np.einsum("ikjk->kij", both.reshape(channels, pixels, channels, pixels))
        return GaussianField(spectrum.reshape(*size, channels, channels), self.mean)


class GaussianField:
    """Second moments of a field on a circle or torus of pixels, averaged over shifts: all that a convolution sees of it.

    Args:
        spectrum: ``E x_k x_k'`` of the unitary DFT less the mean, at every frequency in the order of ``numpy.fft``:
            ``[N, C, C]`` or ``[H, W, C, C]``, Hermitian.
        mean: one number per channel, ``[C * pixels]`` or ``[C, *size]``; zero if not given.

    Raises:
        ValueError: for matrices that are not Hermitian and positive semidefinite or not those of a real field, and for a
            mean of another shape.
    """

    def __init__(self, spectrum: ArrayLike, mean: ArrayLike | None = None) -> None:
        matrices = checked_covariance("spectrum", np.asarray(spectrum))
        dims = matrices.ndim - 2
        if dims not in (1, 2):
            raise ValueError(f"`spectrum` must have shape [N, C, C] or [H, W, C, C], got {matrices.shape}.")
        axes = tuple(range(dims))
        mirrored = np.roll(np.flip(matrices, axes), 1, axes).conj()
        if np.abs(mirrored - matrices).max(initial=0.0) > _ROUNDING * np.abs(matrices).max(initial=0.0):
            raise ValueError("`spectrum` must belong to a real field: its value at -k is the conjugate of that at k.")
        self.spectrum = matrices.astype(np.complex128)
        self.size, self.channels = matrices.shape[:-2], matrices.shape[-1]
        self.mean = _mean_field(mean, self.size, self.channels)

    @property
    def pixels(self) -> int:
        """Number of pixels N."""
        return int(np.prod(self.size))

    @property
    def frequencies(self) -> NDArray[np.int64]:
        """Integer frequencies along each axis, in the order of ``numpy.fft``, ``[pixels, axis]``."""
        return lattice(*(np.rint(np.fft.fftfreq(n) * n).astype(np.int64) for n in self.size))


def lattice(*axes: NDArray[np.int64]) -> NDArray[np.int64]:
    """All points of a grid, row by row, ``[point, axis]``."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def checked_covariance(name: str, covariance: Field) -> Field:
    """Return Hermitian, positive semidefinite matrices ``[.., d, d]``, symmetrised; raise ``ValueError`` otherwise."""
    matrix = np.asarray(covariance)
    matrix = matrix.astype(np.complex128 if np.iscomplexobj(matrix) else np.float64)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or not np.isfinite(matrix).all():
        raise ValueError(f"`{name}` must be square with finite entries, got shape {matrix.shape}.")
    adjoint = np.swapaxes(matrix.conj(), -1, -2)
    scale = float(np.abs(matrix).max(initial=0.0))
    if np.abs(matrix - adjoint).max(initial=0.0) > _ROUNDING * scale:
        worst = float(np.abs(matrix - adjoint).max())
        raise ValueError(f"`{name}` must be symmetric (Hermitian), got entries that differ by {worst:.3g}.")
    matrix = np.asarray((matrix + adjoint) / 2)
    lowest = float(np.linalg.eigvalsh(matrix).min(initial=0.0))
    if lowest < -_ROUNDING * scale * matrix.shape[-1]:
        raise ValueError(
            f"`{name}` must be positive semidefinite, got an eigenvalue of {lowest:.3g}. Is it a covariance?"
        )
    return matrix


def _mean_field(mean: ArrayLike | None, size: tuple[int, ...], channels: int) -> Array:
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
