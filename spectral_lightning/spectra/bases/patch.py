"""The principal components of patches as modes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from spectral_lightning.arguments import one_of, positive_integer
from spectral_lightning.spectra.bases.basis import Basis, channels_and_size
from spectral_lightning.spectra.bases.fourier import FourierBasis, spectra_of
from spectral_lightning.spectra.bases.pca import PCABasis
from spectral_lightning.spectra.examples import Examples

__all__ = ["PatchBasis", "PatchComponents"]

Boundary = Literal["circular", "valid"]
_NUMBERS_AT_ONCE = 2**23


class PatchBasis(Basis):
    """Eigenvectors of the covariance of patches, all channels of a patch together.

    The patch covariance is averaged over the positions r of the patches ``x_r``, ``S = mean_r Cov(x_r)``; for circular
    patches at every pixel it is that of Wang & Pehlevan, arXiv 2503.03206, Prop. 5.4. A mode has one observable
    ``v_k' (x_r - mean_r)`` at each of R positions, and its variance is the mean over them. Patches overlap, so that
    errors count samples, not patches.

    Cost: d^3 once for the eigenmodes of the data; per sample R p K operations and R p numbers, p the coordinates of a
    patch (614 kB for 5 x 5 patches at all pixels of a 32 x 32 colour image). From examples (:meth:`from_examples`) no d x d
    matrix is needed: the patch covariance is exact, and the data's covariance is taken as that of a stationary field with
    the spectra of the examples, in the sampler's fixed point, in gains and in theories.

    Args:
        data: all eigenmodes of the data's covariance, or its Fourier modes.
        vectors: components as orthonormal columns, ``[p, K]``, coordinates ordered as ``[C, size]`` or ``[C, size, size]``.
        variance: data variance of each, descending, ``[K]``.
        size: pixels of a patch along each axis.
        stride: pixels from one patch to the next along each axis.
        boundary: ``"circular"`` (patches wrap around) or ``"valid"`` (patches lie within the image).
        axes: number of trailing axes of an example that are pixels; all but the first by default.

    Raises:
        ValueError: for a shape without pixels, a patch larger than the image, or components of another size.

    Example:
        >>> basis = PatchBasis.from_moments(torch.zeros(8), torch.eye(8), shape=(8,), size=3)
        >>> basis.variance.tolist(), basis.replicates, basis.multiplicity.tolist()
        ([1.0, 1.0, 1.0], 8, [8, 8, 8])
    """

    kind = "patch components"

    def __init__(
        self,
        data: Basis,
        vectors: Tensor,
        variance: Tensor,
        size: int,
        stride: int = 1,
        boundary: Boundary = "circular",
        axes: int | None = None,
    ) -> None:
        count, coordinates = patch_positions(data.shape, size, stride, boundary, axes).shape
        if vectors.shape != (coordinates, len(variance)):
            raise ValueError(
                f"`vectors` must have shape [{coordinates}, K], K the length of `variance`, got "
                f"{tuple(vectors.shape)} and {len(variance)}."
            )
        super().__init__(vectors, variance, data.mean, data.shape, data.source, replicates=count, data=data)
        self.size, self.stride, self.boundary, self.axes = size, stride, boundary, axes

    @classmethod
    def from_moments(
        cls,
        mean: Tensor,
        covariance: Tensor,
        shape: Sequence[int],
        size: int = 5,
        stride: int = 1,
        boundary: Boundary = "circular",
        num_modes: int | None = None,
        axes: int | None = None,
        source: str = "given moments",
    ) -> PatchBasis:
        """The ``num_modes`` leading patch components, or all, of data of this mean ``[d]`` and covariance ``[d, d]``.

        ``shape`` is that of one example, ``[N]``, ``[C, N]`` or ``[C, H, W]``, or ``[H, W]`` with ``axes=2``; ``source`` says
        what the moments describe, and the other arguments are those of the class.

        Raises:
            ValueError: as the class, and for moments that do not fit the shape or more modes than a patch has
                coordinates.
        """
        positions = patch_positions(shape, size, stride, boundary, axes)
        data = PCABasis.from_moments(mean, covariance, shape=shape, source=source)
        matrix = covariance.detach().cpu().double()
        average = torch.zeros((positions.shape[1],) * 2, dtype=torch.float64)
        for place in positions:
            average += matrix[place[:, None], place]
        own = PCABasis.from_moments(torch.zeros(len(average)), average / len(positions), num_modes)
        return cls(data, own.modes, own.variance, size, stride, boundary, axes)

    @classmethod
    def from_examples(
        cls,
        examples: Examples,
        size: int = 5,
        stride: int = 1,
        boundary: Boundary = "circular",
        num_modes: int | None = None,
        axes: int | None = None,
    ) -> PatchBasis:
        """The patch components of examples, in one pass and without a d x d matrix.

        The covariance of circular patches at all pixels follows from the spectral matrices, ``d log d`` operations per
        example; any other takes R p^2.

        Raises:
            ValueError: as :meth:`from_moments`.
        """
        channels, pixels = channels_and_size(examples.shape, axes)
        count, p = patch_positions(examples.shape, size, stride, boundary, axes).shape
        spectra, everywhere = spectra_of(examples.shape, axes), boundary == "circular" and stride == 1

        def patches(fields: Tensor) -> Tensor:
            images = fields.reshape(len(fields), channels, *pixels)
            return cut_patches(images, size, stride, boundary).reshape(-1, p)

        def sums(fields: Tensor) -> tuple[Tensor, ...]:
            if everywhere:
                return spectra(fields)
            outer = torch.zeros(p, p, dtype=fields.dtype, device=fields.device)
            for one in torch.split(fields, max(1, _NUMBERS_AT_ONCE // (count * p))):
                cut = patches(one)
                outer += cut.T @ cut
            return *spectra(fields), outer

        squares, *outer = examples.totals(sums)
        data = FourierBasis.from_spectra(squares, examples, axes)
        if everywhere:
            average = _of_spectra(data, size)
        else:
            mean = patches(examples.mean[None])
            average = (outer[0].cpu() / examples.count - mean.T @ mean) / count
        own = PCABasis.from_moments(torch.zeros(p), average, num_modes)
        return cls(data, own.modes, own.variance, size, stride, boundary, axes)

    def along(self, fields: Tensor) -> Tensor:
        """Components of the patches of float64 fields, ``[B, d] -> [B, R * K]``; see :class:`Basis`."""
        channels, pixels = channels_and_size(self.shape, self.axes)
        patches = cut_patches(fields.reshape(len(fields), channels, *pixels), self.size, self.stride, self.boundary)
        return (patches @ self._on(fields.device)[1]).flatten(1)

    @property
    def _layout(self) -> tuple[Any, ...]:
        return self.size, self.stride, self.boundary, self.axes

    def _fields(self) -> Tensor:
        fields = torch.zeros(self.vectors.shape[1], self.dim, dtype=torch.float64)
        place = patch_positions(self.shape, self.size, self.stride, self.boundary, self.axes)[0]
        fields[:, place] = self.vectors.T
        return fields

    @property
    def labels(self) -> list[str]:
        """``component 1`` for the component of largest variance, and so on."""
        return [f"component {k + 1}" for k in range(len(self.variance))]

    def describe(self) -> str:
        """One line for logs and files."""
        where = f"size {self.size}, stride {self.stride}, {self.boundary}, {self.replicates} positions"
        return f"{len(self.variance)} {self.kind} ({where}) of {self.source}, dimension {self.dim}"


@dataclass(frozen=True)
class PatchComponents:
    """The recipe of a :class:`PatchBasis`.

    Args:
        size: pixels of a patch along each axis.
        stride: pixels from one patch to the next along each axis.
        boundary: ``"circular"`` (patches wrap around) or ``"valid"`` (patches lie within the image).
        num_modes: number of components to keep; all if None.
        axes: 2 for grey images ``[H, W]`` without an axis of channels.

    Example:
        >>> PatchComponents(size=3).make(torch.zeros(8), torch.eye(8), (8,)).replicates
        8
    """

    size: int = 5
    stride: int = 1
    boundary: Boundary = "circular"
    num_modes: int | None = None
    axes: int | None = None

    def make(self, mean: Tensor, covariance: Tensor, shape: Sequence[int], source: str = "given moments") -> Basis:
        """The patch components of data of this covariance."""
        return PatchBasis.from_moments(
            mean, covariance, shape, self.size, self.stride, self.boundary, self.num_modes, self.axes, source
        )

    def make_from(self, examples: Examples) -> Basis:
        """The patch components of these examples."""
        return PatchBasis.from_examples(examples, self.size, self.stride, self.boundary, self.num_modes, self.axes)


def patch_positions(
    shape: Sequence[int], size: int, stride: int, boundary: Boundary, axes: int | None = None
) -> Tensor:
    """The flat coordinates of the patch at every position, ``[R, p]``."""
    channels, pixels = channels_and_size(shape, axes)
    positive_integer("stride", stride)
    one_of("boundary", boundary, ("circular", "valid"))
    if positive_integer("size", size) > min(pixels):
        raise ValueError(f"`size` must be at most {min(pixels)} for {pixels} pixels, got {size}.")
    return cut_patches(
        torch.arange(channels * math.prod(pixels)).reshape(1, channels, *pixels), size, stride, boundary
    )[0]


def cut_patches(images: Tensor, size: int, stride: int, boundary: Boundary) -> Tensor:
    """The patches of images ``[B, C, *pixels]``, ``[B, R, p]``."""
    dims, patches = images.ndim - 2, images
    for axis, n in enumerate(images.shape[2:], start=2):
        if boundary == "circular":
            patches = patches.index_select(axis, torch.arange(n + size - 1, device=images.device) % n)
        patches = patches.unfold(axis, size, stride)
    # [B, C, positions .., size ..] -> [B, positions, C * size ..]
    return patches.movedim(1, 1 + dims).flatten(1, dims).flatten(2)


def _of_spectra(data: FourierBasis, size: int) -> Tensor:
    """The covariance of circular patches at all pixels, from the spectral matrices: ``[p, p]``."""
    matrices, pixels = data.spectral_matrices, data.size
    # mean_r x_c(r) x_c'(r + t) at every shift t, [*pixels, c', c]
    shifted: Tensor = torch.fft.ifftn(matrices, dim=tuple(range(len(pixels)))).real
    offsets = torch.cartesian_prod(torch.arange(data.channels), *(torch.arange(size) for _ in pixels)).reshape(
        -1, 1 + len(pixels)
    )
    first, second = offsets[:, None], offsets[None]
    shift = [(second[..., 1 + a] - first[..., 1 + a]) % n for a, n in enumerate(pixels)]
    return shifted[(*shift, second[..., 0], first[..., 0])]
