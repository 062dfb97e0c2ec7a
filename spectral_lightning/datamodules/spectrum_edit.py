"""New variances for the modes of a data set, to choose what a network learns first and keep all else unchanged.

Notation: the data have mean ``mu`` and covariance ``U diag(lambda) U'``, with the eigenvalues lambda in descending order
and the modes u_k in the columns of U, counted from 0. An edit chooses new variances ``lambda'_k``; fitted to data it is
the linear map

    x -> mu + U diag(sqrt(lambda'_k / lambda_k)) U' (x - mu),

after which the data it was fitted to have the mean mu and the covariance ``U diag(lambda') U'``. It is symmetric and
does not depend on the signs of the modes. Modes with less than 1e-10 of the largest variance are null modes: the data do
not vary along them, so they are left unchanged. Directions of modes of equal variance are arbitrary, so an edit that
treats such modes differently depends on the solver's choice.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from spectral_lightning.arguments import non_negative, positive, positive_integer
from spectral_lightning.datamodules.synthetic.population import power_law_spectrum
from spectral_lightning.spectra import NULL_SHARE, PCABasis, SpectralMoments

__all__ = ["EditedDataset", "FittedEdit", "Recolor", "SpectrumEdit", "SwapVariances", "Whiten"]

_CHUNK = 4_096


@dataclass(frozen=True, eq=False)
class FittedEdit:
    """The map ``x -> mu + U diag(sqrt(lambda'/lambda)) U' (x - mu)``, ready for samples, batches and datasets.

    Computed in float64, returned in the type and on the device of its input. Only modes whose variance changes are
    touched. Cost: 2 d times their number, per sample.

    Args:
        basis: modes, variances lambda and mean of the data it was fitted to.
        variance: new variances lambda', ``[d]``, in the order of the modes of ``basis``.

    Raises:
        ValueError: when called with samples that are not ``[..., *S]``.

    Example:
        >>> samples = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> SwapVariances([[0, 1]]).fit(samples)(samples).tolist()
        [[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]]
    """

    basis: PCABasis
    variance: Tensor

    def __call__(self, samples: Tensor) -> Tensor:
        """The edited samples, ``[..., *S]`` to the same shape."""
        shape = self.basis.shape
        if samples.ndim < len(shape) or tuple(samples.shape[samples.ndim - len(shape) :]) != shape:
            raise ValueError(
                f"`samples` must have shape [..., {', '.join(map(str, shape))}], got {tuple(samples.shape)}."
            )
        parts = torch.split(samples.reshape(-1, self.basis.dim), _CHUNK)
        return torch.cat([self._edited(part) for part in parts]).reshape(samples.shape)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean ``[d]`` and covariance ``[d, d]`` that the fitted data have after the edit, float64."""
        modes = self.basis.modes
        return self.basis.mean, (modes * self.variance) @ modes.T

    def _edited(self, rows: Tensor) -> Tensor:
        # Apple's devices have no float64; the edit then runs on the CPU.
        device = torch.device("cpu") if rows.device.type == "mps" else rows.device
        modes, stretch, mean = (t.to(device) for t in self._changed)
        exact = rows.to(device, torch.float64)
        return (exact + (((exact - mean) @ modes) * stretch) @ modes.T).to(rows)

    @cached_property
    def _changed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Modes whose variance changes ``[d, m]``, ``sqrt(lambda'/lambda) - 1`` of each, and the mean."""
        old = self.basis.variance
        chosen = self.variance != old
        return self.basis.modes[:, chosen], (self.variance[chosen] / old[chosen]).sqrt() - 1, self.basis.mean


class SpectrumEdit(ABC):
    """A choice of new variances for the modes of any data.

    An edit is fitted to data by :meth:`fit`, from samples, or :meth:`fit_moments`, from known moments.
    """

    @abstractmethod
    def variances(self, variance: Tensor) -> Tensor:
        """New variances of the modes.

        Args:
            variance: the variances lambda that are not null, ``[K]``, float64, in descending order.

        Returns:
            lambda', ``[K]``, zero or more, in the order of the modes they belong to.
        """

    def edited(self, variance: Tensor) -> Tensor:
        """New variances of all modes ``[d]``; null modes keep theirs."""
        alive = int((variance > NULL_SHARE * variance.max()).sum())
        return torch.cat([self.variances(variance[:alive]), variance[alive:]])

    def fit(self, samples: Tensor) -> FittedEdit:
        """The edit for the modes of ``samples``, ``[n, *S]``.

        Cost: n d^2 for the covariance, with 1/n, and d^3 for its modes. At most n - 1 modes have a variance.

        Raises:
            ValueError: for samples that are not finite or are all equal, or an edit that does not fit their modes.
        """
        if samples.ndim < 2 or len(samples) < 2:
            raise ValueError(f"`samples` must have shape [n, *S] with 2 or more of them, got {tuple(samples.shape)}.")
        moments, centre = SpectralMoments(math.prod(samples.shape[1:])), samples.double().mean(0)
        for part in torch.split(samples, _CHUNK):
            # Centred first: a large mean would cancel the digits of small variances.
            moments.update(part.double() - centre)
        shift, covariance = moments.compute()
        return self.fit_moments(centre.flatten().cpu() + shift, covariance, samples.shape[1:])

    def fit_moments(self, mean: Tensor, covariance: Tensor, shape: Sequence[int] | None = None) -> FittedEdit:
        """The edit for the modes of a mean ``[d]`` and covariance ``[d, d]``.

        Args:
            mean: ``[d]``.
            covariance: ``[d, d]``, symmetric.
            shape: shape S of one sample; ``[d]`` by default.

        Raises:
            ValueError: for moments that do not match or have no variance, or an edit that does not fit their modes.
        """
        basis = PCABasis.from_moments(mean, covariance, shape=shape)
        if not (basis.variance > 0).any():
            raise ValueError("`samples` must vary, got samples that are all equal: they have no modes to edit.")
        return FittedEdit(basis, self.edited(basis.variance))


class Whiten(SpectrumEdit):
    """The same variance along every mode: the second moments of white noise, the higher-order structure of the data.

    ``lambda'_k = variance * lambda_k / max(lambda_k, floor * lambda_0)``: a mode below the floor is amplified as much as
    one at the floor, and stays below the others.

    Args:
        variance: the variance given to every mode above the floor.
        floor: smallest variance that becomes ``variance``, as a fraction of the largest; 0 includes all that are not null,
            which also amplifies the data's noise.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> Whiten(floor=0.1).variances(torch.tensor([4.0, 2.0, 0.2])).tolist()
        [1.0, 1.0, 0.5]
    """

    def __init__(self, variance: float = 1.0, floor: float = 0.0) -> None:
        self.variance = positive("variance", variance)
        self.floor = non_negative("floor", floor)
        if floor > 1:
            raise ValueError(f"`floor` must be at most 1, the largest variance, got {floor!r}.")

    def variances(self, variance: Tensor) -> Tensor:
        """``variance * lambda_k / max(lambda_k, floor * lambda_0)``, ``[K]``."""
        return self.variance * variance / variance.clamp_min(self.floor * float(variance[0]))


class Recolor(SpectrumEdit):
    """A power law along the modes of the data, in their order.

    ``lambda'_k = scale * (k + 1)^-exponent`` for k = 0 ... K - 1.

    Args:
        exponent: of the power law in the rank; 0 for equal variances.
        scale: variance of the first mode.
        keep_total: whether to keep the sum of all variances, which sets the scale.

    Raises:
        ValueError: for an argument out of range, or a scale together with ``keep_total``.

    Example:
        >>> Recolor(exponent=1.0, keep_total=True).variances(torch.tensor([2.0, 1.0])).tolist()
        [2.0, 1.0]
    """

    def __init__(self, exponent: float = 1.0, scale: float = 1.0, keep_total: bool = False) -> None:
        self.exponent = non_negative("exponent", exponent)
        self.scale = positive("scale", scale)
        self.keep_total = keep_total
        if keep_total and scale != 1:
            raise ValueError(f"`scale` must be 1 with `keep_total`, which sets it, got {scale!r}.")

    def variances(self, variance: Tensor) -> Tensor:
        """``scale * (k + 1)^-exponent``, ``[K]``."""
        law = power_law_spectrum(len(variance), self.exponent).to(variance)
        return law * (variance.sum() / law.sum() if self.keep_total else self.scale)


class SwapVariances(SpectrumEdit):
    """The variances of chosen pairs of modes exchanged, every other mode unchanged.

    If modes are learnt in the order of their variances, each pair changes places in that order; if something else decides,
    such as spatial frequency, it does not.

    Args:
        pairs: pairs of modes, counted from 0 in descending order of variance; each mode once.

    Raises:
        ValueError: for anything but pairs of different modes, at construction; for null modes or modes that the data lack,
            when it is fitted.

    Example:
        >>> SwapVariances([[0, 2]]).variances(torch.tensor([4.0, 2.0, 1.0])).tolist()
        [1.0, 2.0, 4.0]
    """

    def __init__(self, pairs: list[list[int]]) -> None:
        if not pairs or any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"`pairs` must be one or more pairs of modes, such as [[0, 5]], got {pairs!r}.")
        modes = [positive_integer("pairs", k, minimum=0, remedy="Modes count from 0.") for pair in pairs for k in pair]
        self.pairs = list(zip(modes[::2], modes[1::2], strict=True))
        if len(set(modes)) < len(modes):
            raise ValueError(f"`pairs` must name each mode once, got {pairs!r}.")

    def variances(self, variance: Tensor) -> Tensor:
        """Lambda with the pairs exchanged, ``[K]``."""
        first, second = torch.tensor(self.pairs, device=variance.device).T
        if (last := max(map(max, self.pairs))) >= len(variance):
            raise ValueError(f"`pairs` must name modes that have a variance, 0 to {len(variance) - 1}, got {last}.")
        swapped = variance.clone()
        swapped[first], swapped[second] = variance[second], variance[first]
        return swapped


class EditedDataset(Dataset[Any]):
    """Any map-style dataset with its samples edited; labels and other parts of an item are kept.

    Args:
        dataset: items are samples, or tuples or lists that start with one; samples are tensors ``[*S]``.
        edit: an edit, which is fitted to all samples of ``dataset``, or a fitted one, such as that of the training set for a
            validation set.

    Raises:
        TypeError: if the samples are not tensors.
        ValueError: as in :meth:`SpectrumEdit.fit`.

    Example:
        >>> train = EditedDataset(torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), Whiten())
        >>> [round(value, 3) for value in train[0].tolist()]
        [1.414, 0.0]
        >>> val = EditedDataset(torch.tensor([[4.0, 4.0]]), train.edit)
        >>> [round(value, 3) for value in val[0].tolist()]
        [2.828, 5.657]
    """

    def __init__(self, dataset: Dataset[Any] | Tensor, edit: SpectrumEdit | FittedEdit) -> None:
        self.dataset: Any = dataset
        if isinstance(edit, SpectrumEdit):
            # By length, because a dataset need not raise IndexError at its end.
            edit = edit.fit(torch.stack([_sample(self.dataset[index]) for index in range(len(self))]))
        self.edit = edit

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """Many items at once, which a DataLoader asks for if it can."""
        items = [self.dataset[index] for index in indices]
        edited = self.edit(torch.stack([*map(_sample, items)]))
        return [
            (new, *item[1:]) if isinstance(item, tuple | list) else new for item, new in zip(items, edited, strict=True)
        ]


def _sample(item: Any) -> Tensor:
    found = item[0] if isinstance(item, tuple | list) else item
    if not isinstance(found, Tensor):
        raise TypeError(f"`dataset` must hold tensors, got {type(found).__name__}. Convert them in its transform.")
    return found
