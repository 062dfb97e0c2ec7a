"""Which observables of a sample belong to which mode."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from spectral_lightning.arguments import positive_integer

__all__ = ["NULL_SHARE", "Observables"]

NULL_SHARE = 1e-10
"""Modes with at most this share of the largest variance are null modes."""


class Observables:
    """R replicates of M real coordinates, each belonging to one of K modes.

    Args:
        mode_of: the mode of every coordinate, ``[M]``, int64; each of 0 to K - 1 at least once.
        replicates: R.

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

    @property
    def num_modes(self) -> int:
        """K."""
        return len(self.coordinates)

    @property
    def multiplicity(self) -> Tensor:
        """Observables of every mode, ``[K]``."""
        return self.replicates * self.coordinates

    @property
    def count(self) -> int:
        """Observables of one sample, ``R * M``."""
        return self.replicates * len(self.mode_of)

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
