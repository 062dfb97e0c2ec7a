"""Where the patches of one photograph lie, and which of them train and which validate.

The photograph is cut in cells, and some cells are drawn for validation. A window validates if it lies wholly inside
those cells; it trains if, grown by the guard on every side, it touches none of them. So no pixel is in patches of both
kinds, and at least ``guard`` pixels lie between them, while both kinds come from all over the photograph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from spectral_lightning.arguments import positive_integer

__all__ = ["PatchRegions"]

Mask = NDArray[np.bool_]
Corners = NDArray[np.int64]


@dataclass(frozen=True)
class PatchRegions:
    """The windows of ``size`` x ``size`` pixels of a photograph, split by regions.

    Args:
        size: side of a window in pixels.
        stride: distance of neighbouring windows in pixels.
        cell: least side of a cell in pixels.
        guard: pixels between training and validation windows.
        val_fraction: fraction of the cells that validate, at least one of them; 0 for none.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> regions = PatchRegions(size=4, stride=4, cell=8, guard=0, val_fraction=0.25)
        >>> train, val = regions.split(16, 16, torch.Generator().manual_seed(0))
        >>> len(train), len(val)
        (12, 4)
    """

    size: int
    stride: int
    cell: int
    guard: int
    val_fraction: float

    def __post_init__(self) -> None:
        positive_integer("size", self.size)
        positive_integer("stride", self.stride)
        positive_integer("cell", self.cell, minimum=self.size, remedy="A validation patch lies inside the cells.")
        positive_integer("guard", self.guard, minimum=0)
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"`val_fraction` must be a number of at least 0 and below 1, got {self.val_fraction!r}.")

    def split(self, height: int, width: int, generator: Generator) -> tuple[Corners, Corners]:
        """Upper left corners (row, column) of the training and of the validation windows, ``[n, 2]`` each.

        Raises:
            ValueError: if the photograph is smaller than a window, or too small to hold windows of both kinds.
        """
        if min(height, width) < self.size:
            raise ValueError(
                f"`size` must be at most the sides of the photograph, {height} x {width}, got {self.size}."
            )
        region = self._val_region(height, width, generator)
        train = self._corners(_counts(np.pad(region, self.guard), self.size + 2 * self.guard) == 0)
        val = self._corners(_counts(region, self.size) == self.size**2)
        if not len(train) or (self.val_fraction and not len(val)):
            raise ValueError(
                f"`cell` and `guard` must leave windows of {self.size} pixels for training and validation in a photograph "
                f"of {height} x {width}, got {self.cell} and {self.guard}. Make them smaller, or `val_fraction` 0."
            )
        return train, val

    def _val_region(self, height: int, width: int, generator: Generator) -> Mask:
        region = np.zeros((height, width), dtype=np.bool_)
        if not self.val_fraction:
            return region
        # A last cell narrower than the others could hold no window, so the remainder is shared out.
        rows = np.linspace(0, height, max(height // self.cell, 1) + 1).astype(int)
        columns = np.linspace(0, width, max(width // self.cell, 1) + 1).astype(int)
        cells = [(i, j) for i in range(len(rows) - 1) for j in range(len(columns) - 1)]
        for k in torch.randperm(len(cells), generator=generator)[
            : max(round(self.val_fraction * len(cells)), 1)
        ].tolist():
            i, j = cells[k]
            region[rows[i] : rows[i + 1], columns[j] : columns[j + 1]] = True
        return region

    def _corners(self, allowed: Mask) -> Corners:
        return np.argwhere(allowed[:: self.stride, :: self.stride]) * self.stride


def _counts(region: Mask, side: int) -> NDArray[np.int64]:
    """True pixels in every window of the given side, by the corners of the summed-area table."""
    table = np.pad(region.cumsum(0, dtype=np.int64).cumsum(1), ((1, 0), (1, 0)))
    count: NDArray[np.int64] = table[side:, side:] - table[:-side, side:] - table[side:, :-side] + table[:-side, :-side]
    return count
