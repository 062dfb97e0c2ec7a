"""The principal components of patches as modes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spectral_lightning.arguments import one_of, positive_integer
from spectral_lightning.spectra.bases.basis import Basis, channels_and_size
from spectral_lightning.spectra.bases.pca import PCABasis

__all__ = ["PatchBasis", "PatchComponents"]

Boundary = Literal["circular", "valid"]


class PatchBasis(Basis):
    """Eigenvectors of the covariance of patches, all channels of a patch together.

    The patch covariance is averaged over the positions r of the patches ``x_r``, ``S = mean_r Cov(x_r)``; for circular
    patches at every pixel it is that of Wang & Pehlevan, arXiv 2503.03206, Prop. 5.4. A mode has one observable
    ``v_k' (x_r - mean_r)`` at each of R positions, and its variance is the mean over them. Patches overlap, so that
    errors count samples, not patches.

    Cost: d^3 once for the eigenmodes of the data; per sample R p K operations and R p numbers, p the coordinates of a
    patch (614 kB for 5 x 5 patches at all pixels of a 32 x 32 colour image).

    Args:
        data: all eigenmodes of the data's covariance.
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
        positions = patch_positions(data.shape, size, stride, boundary, axes)
        coordinates = positions.shape[1]
        if vectors.shape != (coordinates, len(variance)):
            raise ValueError(
                f"`vectors` must have shape [{coordinates}, K], K the length of `variance`, got "
                f"{tuple(vectors.shape)} and {len(variance)}."
            )
        super().__init__(vectors, variance, data.mean, data.shape, data.source, positions=positions, data=data)
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


def patch_positions(
    shape: Sequence[int], size: int, stride: int, boundary: Boundary, axes: int | None = None
) -> Tensor:
    """The flat coordinates of the patch at every position, ``[R, p]``."""
    channels, pixels = channels_and_size(shape, axes)
    positive_integer("stride", stride)
    one_of("boundary", boundary, ("circular", "valid"))
    if positive_integer("size", size) > min(pixels):
        raise ValueError(f"`size` must be at most {min(pixels)} for {pixels} pixels, got {size}.")
    patches = torch.arange(channels * math.prod(pixels)).reshape(channels, *pixels)
    for axis, n in enumerate(pixels, start=1):
        if boundary == "circular":
            patches = patches.index_select(axis, torch.arange(n + size - 1) % n)
        patches = patches.unfold(axis, size, stride)
    # [C, positions .., size ..] -> [positions, C * size ..]
    return patches.movedim(0, len(pixels)).flatten(0, len(pixels) - 1).flatten(1)
