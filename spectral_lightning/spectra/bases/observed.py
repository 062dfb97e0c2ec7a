"""What all bases have in common."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from spectral_lightning.spectra.bases.observables import NULL_SHARE, Observables
from spectral_lightning.spectra.files import replacing

if TYPE_CHECKING:
    from spectral_lightning.spectra.bases.pca import PCABasis

__all__ = ["ObservedBasis"]


class ObservedBasis(ABC):
    """The parts of a :class:`~spectral_lightning.spectra.Basis` that do not depend on how samples are projected.

    Args:
        variance: data variance of each mode, ``[K]``.
        mean: mean of the data, ``[d]``.
        shape: shape of one example, with d entries.
        source: what the moments are of, for logs and files.
        observables: which observables belong to which mode.
    """

    kind: ClassVar[str]

    def __init__(
        self, variance: Tensor, mean: Tensor, shape: Sequence[int], source: str, observables: Observables
    ) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.mean = mean.detach().cpu().double()
        self.variance = variance.detach().cpu().double().clamp_min(0)
        self.source, self.observables = source, observables
        self._placed: tuple[Tensor, Tensor] | None = None

    @property
    @abstractmethod
    def labels(self) -> list[str]:
        """A short name of each mode."""

    @property
    @abstractmethod
    def data(self) -> PCABasis:
        """The eigenmodes of the covariance that this basis was made from."""

    @property
    @abstractmethod
    def _vectors(self) -> Tensor:
        """What samples are multiplied with."""

    @abstractmethod
    def project(self, samples: Tensor) -> Tensor:
        """Observables about the data's mean in float64, ``[B, *S] -> [B, R * M]``."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Tensors and plain values, without nesting, for :meth:`from_state`."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The basis that :meth:`state` describes."""

    @abstractmethod
    def _identity(self) -> tuple[Tensor, ...]:
        """The tensors that make two bases of one shape the same basis."""

    @property
    def dim(self) -> int:
        """Number of coordinates d of one example."""
        return len(self.mean)

    @property
    def null(self) -> Tensor:
        """Modes without variance, ``[K]``."""
        return self.variance <= NULL_SHARE * self.variance.max()

    @property
    def replicates(self) -> int:
        """R, how often the coordinates are observed in one sample."""
        return self.observables.replicates

    @property
    def mode_of(self) -> Tensor:
        """The mode of every coordinate, ``[M]``."""
        return self.observables.mode_of

    @property
    def multiplicity(self) -> Tensor:
        """Observables of every mode, ``[K]``."""
        return self.observables.multiplicity

    @cached_property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of a SHA-256 over shape, mean, variances and modes."""
        digest = hashlib.sha256(repr(self.shape).encode())
        for tensor in self._identity():
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def describe(self) -> str:
        """One line for logs and files."""
        return f"{len(self.variance)} {self.kind} of {self.source}, dimension {self.dim}"

    def pool(self, values: Tensor) -> Tensor:
        """Average over the observables of each mode, ``[.., R * M] -> [.., K]``."""
        return self.observables.pool(values)

    def diffuse(self, latents: Tensor, sigma: float) -> Tensor:
        """Latents ``[B, d]`` with the mean and covariance ``Sigma + sigma^2 I`` of the noisy data, ``[B, *S]``."""
        return self.data.diffuse(latents, sigma)

    def save(self, path: str | Path) -> None:
        """Write the basis to a file that :meth:`load` reads."""
        with replacing(Path(path)) as part:
            torch.save(self.state(), part)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote; nothing in the file is executed."""
        return cls.from_state(torch.load(path, weights_only=True, map_location="cpu"))

    def _centred(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Samples about the mean, ``[B, d]``, and what they are multiplied with, on one device."""
        vectors, mean = self._on(samples.device)
        flat = samples.detach().flatten(1).to(vectors)
        if flat.shape[1] != self.dim:
            raise ValueError(
                f"`samples` must have shape [B, {', '.join(map(str, self.shape))}], got {tuple(samples.shape)}."
            )
        return flat - mean, vectors

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        # Apple's devices have no float64; the projection then runs on the CPU.
        target = torch.device("cpu") if device.type == "mps" else device
        if self._placed is None or self._placed[0].device != target:
            self._placed = (self._vectors.to(target), self.mean.to(target))
        return self._placed
