"""The interface of all bases: what is observed of a sample, to which mode it belongs, and how two bases overlap."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from spectral_lightning.arguments import positive_integer
from spectral_lightning.spectra.files import replacing
from spectral_lightning.spectra.history import NULL_SHARE

__all__ = ["Basis", "Observables", "basis_from_state", "channels_and_size", "load_basis", "overlap"]

_KINDS: dict[str, type[Basis]] = {}
_NUMBERS_AT_ONCE = 2**24


class Observables:
    """R replicates of M real coordinates, each belonging to one of K modes.

    Args:
        mode_of: the mode of every coordinate, ``[M]``, int64; each of 0 to K - 1 at least once.
        replicates: R.

    Attributes:
        num_modes: K.
        coordinates: coordinates of every mode, ``[K]``.
        multiplicity: observables of every mode, ``[K]``: R times its coordinates.
        count: observables of one sample, ``R * M``.

    Raises:
        ValueError: for a mode without coordinates, or an R that is not a positive integer.

    Example:
        >>> pairs = Observables(torch.tensor([0, 1, 1]), replicates=2)
        >>> pairs.pool(torch.tensor([1.0, 2.0, 4.0, 3.0, 6.0, 8.0])).tolist(), pairs.multiplicity.tolist()
        ([2.0, 5.0], [2, 4])
    """

    def __init__(self, mode_of: Tensor, replicates: int = 1) -> None:
        self.mode_of = mode_of.detach().cpu().long()
        self.replicates = positive_integer("replicates", replicates)
        present = torch.unique(self.mode_of)
        if self.mode_of.ndim != 1 or not len(present) or not torch.equal(present, torch.arange(len(present))):
            raise ValueError(f"`mode_of` must be a vector that holds each of 0 to K - 1, got {present.tolist()!r}.")
        self.coordinates = torch.bincount(self.mode_of)
        self.num_modes, self.multiplicity = len(self.coordinates), self.replicates * self.coordinates
        self.count = self.replicates * len(self.mode_of)

    @cached_property
    def single(self) -> bool:
        """Whether every mode has one observable, in the order of the modes."""
        return self.replicates == 1 and torch.equal(self.mode_of, torch.arange(len(self.mode_of)))

    def pool(self, values: Tensor) -> Tensor:
        """Average over the observables of each mode, ``[.., R * M] -> [.., K]``."""
        if self.single:
            return values
        at_coordinates = values.reshape(*values.shape[:-1], self.replicates, len(self.mode_of)).mean(-2)
        index, share = self._members
        pooled: Tensor = (at_coordinates[..., index.to(values.device)] * share.to(values)).sum(-1)
        return pooled

    @cached_property
    def _members(self) -> tuple[Tensor, Tensor]:
        """Coordinates of every mode and their shares, ``[K, most]``; gathering adds in a fixed order, scattering does not."""
        order = torch.argsort(self.mode_of, stable=True)
        place = torch.arange(int(self.coordinates.max()))
        present = place < self.coordinates[:, None]
        first = self.coordinates.cumsum(0) - self.coordinates
        index = torch.where(present, first[:, None] + place, 0)
        return order[index], present / self.coordinates[:, None].double()


class Basis(ABC):
    """Modes of the data with their variances.

    A sample x is observed along orthonormal columns, ``w_m' (x_r - mean_r)`` for m = 1 .. M, at each of R replicates
    ``x_r``: the whole sample, once, or R parts of it such as the patches of an image. Every column belongs to one of K
    modes, and every quantity measured along a mode is the average over its ``R M_k`` observables.

    To add a basis, write one file with a subclass that has a ``kind``, :attr:`labels` and its constructor's arguments as
    attributes, and a recipe that makes it from the moments of data (:class:`~spectral_lightning.spectra.BasisRecipe`). A
    basis with a faster projection than a matrix product overrides :meth:`project`.

    Args:
        vectors: orthonormal columns ``w_m``, ``[p, M]``; p = d unless ``positions`` are given.
        variance: data variance of each mode, descending, ``[K]``.
        mean: mean of the data, flattened, ``[d]``.
        shape: shape ``S`` of one example, with d entries.
        source: what the moments describe, for logs and files.
        mode_of: the mode of every column, ``[M]``; by default each column is a mode.
        positions: the flat coordinates that make up each replicate, ``[R, p]``; by default all d, once.
        data: the eigenmodes of the covariance that the variances come from; by default this basis.

    Attributes:
        kind: what the modes are, in words.
        vectors: as given, float64 on the CPU; so are ``mean`` and ``variance``.
        positions: as given.
        observables: which observables belong to which mode.
        replicates: R, how often the columns are observed in one sample.
        mode_of: the mode of every column, ``[M]``, int64.
        multiplicity: number of observables of every mode, ``[K]``, int64: R times its columns.
        dim: number of coordinates d of one example.
        null: modes without variance, ``[K]``, bool.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        vectors: Tensor,
        variance: Tensor,
        mean: Tensor,
        shape: Sequence[int],
        source: str,
        mode_of: Tensor | None = None,
        positions: Tensor | None = None,
        data: Basis | None = None,
    ) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.vectors, self.mean = vectors.detach().cpu().double(), mean.detach().cpu().double()
        self.variance = variance.detach().cpu().double().clamp_min(0)
        self.source, self.positions, self._data = source, positions, data
        one_each = torch.arange(vectors.shape[1]) if mode_of is None else mode_of
        self.observables = Observables(one_each, 1 if positions is None else len(positions))
        self.replicates, self.mode_of = self.observables.replicates, self.observables.mode_of
        self.multiplicity = self.observables.multiplicity
        self.dim, self.null = len(self.mean), self.variance <= NULL_SHARE * self.variance.max()
        self._placed: tuple[Tensor, Tensor] | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "kind" in vars(cls):
            _KINDS[cls.kind] = cls

    @property
    @abstractmethod
    def labels(self) -> list[str]:
        """A short name for each mode, ``[K]``."""

    @property
    def data(self) -> Basis:
        """The eigenmodes of the covariance that this basis was made from."""
        return self if self._data is None else self._data

    @cached_property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of a SHA-256 over shape, mean, variances and vectors."""
        digest = hashlib.sha256(repr(self.shape).encode())
        parts = [self.mean, self.variance, self.vectors]
        if self.data is not self:
            layout = self.mode_of if self.positions is None else self.positions
            parts += [layout, self.data.variance, self.data.vectors]
        for tensor in parts:
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def describe(self) -> str:
        """One line for logs and files."""
        return f"{len(self.variance)} {self.kind} of {self.source}, dimension {self.dim}"

    def project(self, samples: Tensor) -> Tensor:
        """Observables about the data's mean, float64, replicate by replicate: ``[B, *S] -> [B, R * M]``.

        Cost: ``B R p M`` operations.

        Raises:
            ValueError: for samples of another size.
        """
        vectors, mean = self._on(samples.device)
        flat = samples.detach().flatten(1).to(vectors)
        if flat.shape[1] != self.dim:
            raise ValueError(
                f"`samples` must have shape [B, {', '.join(map(str, self.shape))}], got {tuple(samples.shape)}."
            )
        centred = flat - mean
        if self.positions is None:
            return centred @ vectors
        return (centred[:, self.positions.to(centred.device)] @ vectors).flatten(1)

    def pool(self, values: Tensor) -> Tensor:
        """Average over the observables of each mode, ``[.., R * M] -> [.., K]``."""
        return self.observables.pool(values)

    def diffuse(self, latents: Tensor, sigma: float) -> Tensor:
        """Turn white latents into noisy data: mean and covariance ``Sigma + sigma^2 I``, ``[B, d] -> [B, *S]``, float64.

        ``mean + sigma eps + sum_k (sqrt(lambda_k + sigma^2) - sigma) u_k u_k' eps`` with the eigenmodes ``u_k`` of the
        data.
        """
        eigen = self.data
        u, mean = eigen._on(latents.device)
        eps = latents.to(u)
        stretch = (eigen.variance + sigma**2).sqrt().to(u) - sigma
        return (mean + sigma * eps + ((eps @ u) * stretch) @ u.T).reshape(-1, *self.shape)

    def state(self) -> dict[str, Any]:
        """The constructor's arguments as tensors and plain values, without nesting, for :func:`basis_from_state`."""
        own = {name: getattr(self, name) for name in signature(type(self)).parameters if name != "data"}
        own = {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}
        data = {} if self.data is self else {f"data_{name}": value for name, value in self.data.state().items()}
        return {"kind": self.kind, **own, **data}

    def save(self, path: str | Path) -> None:
        """Write the basis to a file that :func:`load_basis` reads."""
        with replacing(Path(path)) as part:
            torch.save(self.state(), part)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Vectors and mean on a device."""
        # Apple's devices have no float64; the projection then runs on the CPU.
        target = torch.device("cpu") if device.type == "mps" else device
        if self._placed is None or self._placed[0].device != target:
            self._placed = (self.vectors.to(target), self.mean.to(target))
        return self._placed


def basis_from_state(state: Mapping[str, Any]) -> Basis:
    """The basis that ``basis.state()`` describes, of any kind whose class has been imported.

    Raises:
        ValueError: for an unknown kind.
    """
    kind = state.get("kind")
    if kind not in _KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(map(repr, _KINDS))}, got {kind!r}.")
    data = {name.removeprefix("data_"): value for name, value in state.items() if name.startswith("data_")}
    arguments = {name: value for name, value in state.items() if name != "kind" and not name.startswith("data_")}
    if data:
        arguments["data"] = basis_from_state(data)
    return _KINDS[kind](**arguments)


def load_basis(path: str | Path) -> Basis:
    """Read what ``basis.save(path)`` wrote, of any kind; nothing in the file is executed.

    Raises:
        ValueError: for an unknown kind.
    """
    return basis_from_state(torch.load(path, weights_only=True, map_location="cpu"))


def overlap(basis: Basis, natural: Basis) -> Tensor:
    """The matrix A that maps variances along ``natural`` to variances along ``basis``, ``[K, K_natural]``.

    A Gaussian of covariance ``sum_j v_j P_j``, with ``P_j`` the projector on the coordinates of natural mode j, has the
    variances ``A v`` along ``basis``: ``A_kj`` is the mean of ``|P_j o|^2`` over the observables o of mode k. Rows sum
    to 1 if the natural modes span the space. Cost: the projection of as many samples as there are natural vectors.

    Args:
        basis: the modes whose variances are wanted.
        natural: the modes in which the covariance is diagonal.

    Raises:
        ValueError: if the natural modes do not have the dimension of the examples of ``basis``.

    Example:
        >>> from spectral_lightning.spectra import FourierBasis, PCABasis
        >>> covariance = torch.diag(torch.tensor([3.0, 1.0]))
        >>> overlap(FourierBasis.from_moments(torch.zeros(2), covariance, (2,)),
        ...         PCABasis.from_moments(torch.zeros(2), covariance)).round(decimals=3).tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    if len(natural.vectors) != basis.dim:
        raise ValueError(
            f"`natural` must have vectors of the dimension of `basis`, {basis.dim}, got {len(natural.vectors)}. "
            "Patch components cannot serve as natural modes."
        )
    rows = natural.vectors.T.contiguous()
    most = max(1, _NUMBERS_AT_ONCE // (basis.replicates * max(basis.dim, len(basis.mode_of))))
    shares = [basis.pool(basis.project(part + basis.mean).square()) for part in torch.split(rows, most)]
    matrix = torch.zeros(len(natural.variance), len(basis.variance), dtype=torch.float64)
    return matrix.index_add(0, natural.mode_of, torch.cat(shares)).T


def channels_and_size(shape: Sequence[int], axes: int | None = None) -> tuple[int, tuple[int, ...]]:
    """Channels and pixels per axis of examples of a shape.

    ``[N]`` is one channel on a line, ``[C, N]`` channels on a line, ``[C, H, W]`` channels of an image. A grey image
    ``[H, W]`` without an axis of channels needs ``axes=2``.

    Args:
        shape: shape of one example.
        axes: number of trailing axes that are pixels, 1 or 2; all but the first by default.

    Raises:
        ValueError: for any other shape.

    Example:
        >>> channels_and_size((3, 8, 8)), channels_and_size((8, 8), axes=2)
        ((3, (8, 8)), (1, (8, 8)))
    """
    pixels = max(len(shape) - 1, 1) if axes is None else axes
    if pixels not in (1, 2) or not 0 <= len(shape) - pixels <= 1:
        raise ValueError(
            f"`shape` must be [N], [C, N] or [C, H, W], or [H, W] with axes=2, got {tuple(shape)} and axes={axes!r}. "
            "Use PCABasis for data without pixels."
        )
    cut = len(shape) - pixels
    return math.prod(shape[:cut]), tuple(int(n) for n in shape[cut:])
