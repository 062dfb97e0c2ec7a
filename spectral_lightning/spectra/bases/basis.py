"""What every basis offers to a measurement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from spectral_lightning.spectra.bases.pca import PCABasis

__all__ = ["Basis"]


class Basis(Protocol):
    """Modes of the data with their variances.

    A basis takes ``R * M`` real observables of every sample: M coordinates at each of R replicates, such as the
    positions of a patch. Every coordinate belongs to one of K modes, and whatever is measured of a mode is the average
    over its observables.

    Attributes:
        shape: shape ``S`` of one example.
        mean: mean of the data, flattened, ``[d]``.
        variance: data variance of each mode, falling, ``[K]``, float64.
        source: what the moments are of.
    """

    shape: tuple[int, ...]
    mean: Tensor
    variance: Tensor
    source: str

    @property
    def kind(self) -> str:
        """What the modes are, in words."""
        ...

    @property
    def labels(self) -> list[str]:
        """A short name of each mode, K of them."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever the basis does."""
        ...

    @property
    def null(self) -> Tensor:
        """Modes without variance, ``[K]``, bool."""
        ...

    @property
    def dim(self) -> int:
        """Number of coordinates d of one example."""
        ...

    @property
    def replicates(self) -> int:
        """R, how often the coordinates are observed in one sample."""
        ...

    @property
    def mode_of(self) -> Tensor:
        """The mode of every coordinate, ``[M]``, int64."""
        ...

    @property
    def multiplicity(self) -> Tensor:
        """Observables of every mode, ``[K]``, int64: R times its coordinates."""
        ...

    @property
    def data(self) -> PCABasis:
        """The eigenmodes of the covariance that this basis was made from."""
        ...

    def describe(self) -> str:
        """One line for logs and files."""
        ...

    def project(self, samples: Tensor) -> Tensor:
        """Observables about the data's mean, float64, replicate by replicate: ``[B, *S] -> [B, R * M]``."""
        ...

    def pool(self, values: Tensor) -> Tensor:
        """Average over the observables of each mode, ``[.., R * M] -> [.., K]``."""
        ...

    def diffuse(self, latents: Tensor, sigma: float) -> Tensor:
        """Latents ``[B, d]`` coloured to the noisy data's mean and covariance ``Sigma + sigma^2 I``, ``[B, *S]``."""
        ...

    def state(self) -> dict[str, Any]:
        """Tensors and plain values that the basis can be made from again."""
        ...

    def save(self, path: str | Path) -> None:
        """Write the basis to a file that :func:`~spectral_lightning.spectra.load_basis` reads."""
        ...
