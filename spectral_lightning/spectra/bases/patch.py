"""The principal components of patches as modes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor

from spectral_lightning.arguments import one_of, positive_integer
from spectral_lightning.spectra.bases.layout import channels_and_size
from spectral_lightning.spectra.bases.observables import Observables
from spectral_lightning.spectra.bases.observed import ObservedBasis
from spectral_lightning.spectra.bases.pca import PCABasis

__all__ = ["PatchBasis"]

Boundary = Literal["circular", "valid"]


class PatchBasis(ObservedBasis):
    """Eigenvectors of the covariance of patches, all channels of a patch together.

    The patch covariance is the mean over positions r of that of the patches ``x_r`` there, ``S = mean_r Cov(x_r)``;
    for circular patches at every pixel it is that of Wang & Pehlevan, arXiv 2503.03206, Prop. 5.4. A mode has one
    observable ``v_k' (x_r - mean_r)`` at each of R positions, about the data's mean there, and its variance is the mean
    over them. Patches overlap, so that errors count samples, not patches.

    Cost: d^3 once for the eigenmodes of the data; per sample R p K operations and R p numbers, p the coordinates of a
    patch (614 kB for 5 x 5 patches at all pixels of a 32 x 32 colour image).

    Args:
        data: all eigenmodes of the data's covariance.
        components: orthonormal columns, ``[p, K]``, coordinates ordered as ``[C, size]`` or ``[C, size, size]``.
        variance: data variance of each, falling, ``[K]``.
        size: pixels of a patch along each axis.
        stride: pixels from one patch to the next along each axis.
        boundary: ``"circular"``, patches continue at the opposite side, or ``"valid"``, patches lie within the image.
        axes: how many of the last axes of an example are pixels; all but the first if not given.

    Raises:
        ValueError: for a shape that is no field of pixels, a patch larger than the image, or components of another size.

    Example:
        >>> basis = PatchBasis.from_moments(torch.zeros(8), torch.eye(8), shape=(8,), size=3)
        >>> basis.variance.tolist(), basis.replicates, basis.multiplicity.tolist()
        ([1.0, 1.0, 1.0], 8, [8, 8, 8])
    """

    kind = "patch components"

    def __init__(
        self,
        data: PCABasis,
        components: Tensor,
        variance: Tensor,
        size: int,
        stride: int = 1,
        boundary: Boundary = "circular",
        axes: int | None = None,
    ) -> None:
        self.positions = patch_positions(data.shape, size, stride, boundary, axes)
        replicates, coordinates = self.positions.shape
        if components.shape != (coordinates, len(variance)):
            raise ValueError(
                f"`components` must have shape [{coordinates}, K], K the length of `variance`, got "
                f"{tuple(components.shape)} and {len(variance)}."
            )
        observables = Observables(torch.arange(len(variance)), replicates)
        super().__init__(variance, data.mean, data.shape, data.source, observables)
        self.components, self._data = components.detach().cpu().double(), data
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
        """The patch components of data of this mean and covariance.

        Args:
            mean: ``[d]``.
            covariance: ``[d, d]``, symmetric.
            shape: of one example: ``[N]``, ``[C, N]`` or ``[C, H, W]``.
            size: pixels of a patch along each axis.
            stride: pixels from one patch to the next along each axis.
            boundary: ``"circular"`` or ``"valid"``.
            num_modes: number of components to keep; all if None.
            axes: 2 for grey images ``[H, W]`` without an axis of channels.
            source: what the moments are of.

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
    def data(self) -> PCABasis:
        """All eigenmodes of the data's covariance."""
        return self._data

    @property
    def labels(self) -> list[str]:
        """``component 1`` for the component of largest variance, and so on."""
        return [f"component {k + 1}" for k in range(len(self.variance))]

    def describe(self) -> str:
        """One line for logs and files."""
        where = f"size {self.size}, stride {self.stride}, {self.boundary}, {self.replicates} positions"
        return f"{len(self.variance)} {self.kind} ({where}) of {self.source}, dimension {self.dim}"

    def project(self, samples: Tensor) -> Tensor:
        """``v_k' (x_r - mean_r)`` in float64, position by position, ``[B, *S] -> [B, R * K]``. Cost: B R p K."""
        centred, components = self._centred(samples)
        return (centred[:, self.positions.to(centred.device)] @ components).flatten(1)

    def state(self) -> dict[str, Any]:
        """Everything the constructor takes, the data's eigenmodes as ``data_modes`` and ``data_variance``."""
        tensors = {"components": self.components, "variance": self.variance}
        data = {"data_modes": self.data.modes, "data_variance": self.data.variance, "mean": self.mean}
        plain = {"size": self.size, "stride": self.stride, "boundary": self.boundary, "axes": self.axes}
        return {"kind": self.kind, **tensors, **data, **plain, "shape": list(self.shape), "source": self.source}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The basis that :meth:`state` describes."""
        names = ("components", "variance", "size", "stride", "boundary", "axes")
        return cls(PCABasis.from_data_state(state), **{name: state[name] for name in names})

    @property
    def _vectors(self) -> Tensor:
        return self.components

    def _identity(self) -> tuple[Tensor, ...]:
        return self.mean, self.variance, self.components, self.positions, self.data.variance, self.data.modes


def patch_positions(
    shape: Sequence[int], size: int, stride: int, boundary: Boundary, axes: int | None = None
) -> Tensor:
    """The flat coordinates of the patch at every position, ``[R, p]``."""
    channels, pixels = channels_and_size(shape, axes)
    positive_integer("stride", stride)
    one_of("boundary", boundary, ("circular", "valid"))
    if positive_integer("size", size) > min(pixels):
        raise ValueError(f"`size` must be at most {min(pixels)} for {pixels} pixels, got {size}.")
    lines = []  # along each axis, the pixels of the patch at each position
    for n in pixels:
        starts = torch.arange(0, n if boundary == "circular" else n - size + 1, stride)
        lines.append((starts[:, None] + torch.arange(size)) % n)
    flat = torch.arange(channels * math.prod(pixels)).reshape(channels, *pixels)
    patches = []
    for place in itertools.product(*lines):
        patch = flat
        for axis, line in enumerate(place, start=1):
            patch = patch.index_select(axis, line)
        patches.append(patch.flatten())
    return torch.stack(patches)
