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
    basis with a faster projection than a matrix product leaves the columns out and overrides :meth:`along` and
    :meth:`synthesize`.

    Args:
        vectors: orthonormal columns ``w_m``, ``[p, M]``; p = d for one replicate. None if they are computed on demand.
        variance: data variance of each mode, descending, ``[K]``.
        mean: mean of the data, flattened, ``[d]``.
        shape: shape ``S`` of one example, with d entries.
        source: what the moments describe, for logs and files.
        mode_of: the mode of every column, ``[M]``; by default each column is a mode.
        replicates: R.
        data: the modes along which the data's covariance is known; by default this basis.
        rest: mean variance of the data in the directions orthogonal to all columns.

    Attributes:
        kind: what the modes are, in words.
        mean: as given, float64 on the CPU; so are ``variance`` and :attr:`vectors`.
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
        vectors: Tensor | None,
        variance: Tensor,
        mean: Tensor,
        shape: Sequence[int],
        source: str,
        mode_of: Tensor | None = None,
        replicates: int = 1,
        data: Basis | None = None,
        rest: float = 0.0,
    ) -> None:
        self.shape = tuple(int(n) for n in shape)
        self._vectors = None if vectors is None else vectors.detach().cpu().double()
        self.mean, self.variance = mean.detach().cpu().double(), variance.detach().cpu().double().clamp_min(0)
        self.source, self._data, self.rest = source, data, max(float(rest), 0.0)
        self.observables = Observables(torch.arange(len(variance)) if mode_of is None else mode_of, replicates)
        self.replicates, self.mode_of = self.observables.replicates, self.observables.mode_of
        self.multiplicity = self.observables.multiplicity
        self.dim, self.null = len(self.mean), self.variance <= NULL_SHARE * self.variance.max()
        self._placed: tuple[Tensor, ...] | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "kind" in vars(cls):
            _KINDS[cls.kind] = cls

    @property
    @abstractmethod
    def labels(self) -> list[str]:
        """A short name for each mode, ``[K]``."""

    @property
    def wavelength(self) -> Tensor | None:
        """Pixels per cycle of each mode, ``[K]``; None for modes without one."""
        return None

    @property
    def vectors(self) -> Tensor:
        """The columns ``w_m``, ``[p, M]``; for bases that do not keep them, as large as a covariance."""
        if self._vectors is not None:
            return self._vectors
        return self.synthesize(torch.eye(len(self.mode_of), dtype=torch.float64)).T

    @property
    def keeps_vectors(self) -> bool:
        """Whether :attr:`vectors` are kept, not computed on demand."""
        return self._vectors is not None

    @property
    def data(self) -> Basis:
        """The modes along which the data's covariance is known: its eigenmodes if it was kept, else approximate ones."""
        return self if self._data is None else self._data

    @property
    def spectrum(self) -> Tensor:
        """Variance of the data along d orthogonal directions, as far as it is known: along each column, and the rest."""
        data = self.data
        rest = torch.full((self.dim - len(data.mode_of),), data.rest, dtype=torch.float64)
        return torch.cat([data.variance[data.mode_of], rest])

    @cached_property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of a SHA-256 over shape, mean, variances and what defines the modes."""
        digest = hashlib.sha256(
            repr((self.shape, *self._layout)).encode() if self._layout else repr(self.shape).encode()
        )
        parts = [self.mean, self.variance, *self._defining()]
        if self.rest:
            parts.append(torch.tensor(self.rest, dtype=torch.float64))
        if self.data is not self:
            parts += [self.data.variance, *self.data._defining()]
        for tensor in parts:
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def _layout(self) -> tuple[Any, ...]:
        """Plain values that define the observables, besides tensors."""
        return ()

    def _defining(self) -> tuple[Tensor, ...]:
        """The tensors that define the modes, kept on the device of the samples."""
        return (self.vectors,)

    def describe(self) -> str:
        """One line for logs and files."""
        return f"{len(self.variance)} {self.kind} of {self.source}, dimension {self.dim}"

    def project(self, samples: Tensor) -> Tensor:
        """Observables about the data's mean, float64, replicate by replicate: ``[B, *S] -> [B, R * M]``.

        Cost: ``B R p M`` operations, on the device of the samples; Apple's devices have no float64, so there on the CPU.

        Raises:
            ValueError: for samples of another size.
        """
        flat = samples.detach().flatten(1)
        if flat.shape[1] != self.dim:
            raise ValueError(
                f"`samples` must have shape [B, {', '.join(map(str, self.shape))}], got {tuple(samples.shape)}."
            )
        mean = self._on(flat.device)[0]
        return self.along(flat.to(mean) - mean)

    def along(self, fields: Tensor) -> Tensor:
        """The linear part of :meth:`project`: ``w_m' x_r`` of float64 rows, ``[B, d] -> [B, R * M]``."""
        return fields @ self._on(fields.device)[1]

    def synthesize(self, coordinates: Tensor) -> Tensor:
        """The transpose of :meth:`along` for one replicate, ``sum_m c_m w_m``: ``[B, M] -> [B, d]``."""
        return coordinates @ self._on(coordinates.device)[1].T

    def pool(self, values: Tensor) -> Tensor:
        """Average over the observables of each mode, ``[.., R * M] -> [.., K]``."""
        return self.observables.pool(values)

    def diffuse(self, latents: Tensor, sigma: float) -> Tensor:
        """Turn white latents into noisy data: mean and covariance ``Sigma + sigma^2 I``, ``[B, d] -> [B, *S]``, float64.

        ``mean + s eps + sum_m (sqrt(lambda_k(m) + sigma^2) - s) w_m w_m' eps`` along the modes of :attr:`data`, with
        ``s^2 = rest + sigma^2``: directions without a mode of their own share what is left of the total variance.
        """
        eigen = self.data
        mean = eigen._on(latents.device)[0]
        eps, spread = latents.to(mean), math.hypot(sigma, eigen.rest**0.5)
        stretch = (eigen.variance[eigen.mode_of] + sigma**2).sqrt().to(mean) - spread
        return (mean + spread * eps + eigen.synthesize(eigen.along(eps) * stretch)).reshape(-1, *self.shape)

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

    def _on(self, device: torch.device) -> tuple[Tensor, ...]:
        """Mean and defining tensors on a device."""
        # Apple's devices have no float64; the projection then runs on the CPU.
        target = torch.device("cpu") if device.type == "mps" else device
        if self._placed is None or self._placed[0].device != target:
            self._placed = tuple(tensor.to(target) for tensor in (self.mean, *self._defining()))
        return self._placed

    def _fields(self) -> Tensor:
        """The vector of every coordinate of one replicate as a sample, ``[M, d]``."""
        return self.vectors.T

    def _shares(self, basis: Basis) -> Tensor:
        """:func:`overlap` with this basis as the natural one."""
        if self.replicates > 1:
            raise ValueError(
                f"`natural` must have modes of whole examples, got {self.kind} of {self.replicates} parts."
            )
        rows = self._fields().contiguous()
        most = max(1, _NUMBERS_AT_ONCE // (basis.replicates * max(basis.dim, len(basis.mode_of))))
        shares = [basis.pool(basis.along(part).square()) for part in torch.split(rows, most)]
        matrix = torch.zeros(len(self.variance), len(basis.variance), dtype=torch.float64)
        return matrix.index_add(0, self.mode_of, torch.cat(shares)).T


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
    if natural.dim != basis.dim:
        raise ValueError(f"`natural` must have the dimension of `basis`, {basis.dim}, got {natural.dim}.")
    return natural._shares(basis)


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
