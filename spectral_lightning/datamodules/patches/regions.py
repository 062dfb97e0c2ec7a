"""Where the patches of one photograph lie, and which of them train and which validate.

The photograph is divided into cells, and some are drawn for validation. A window validates if it lies wholly inside those
cells; it trains if, grown by the guard on every side, it touches none of them. So no pixel is in windows of both kinds, at
least ``guard`` pixels lie between them, and both kinds come from all over the photograph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

from spectral_lightning.arguments import fraction, positive_integer

__all__ = ["PatchRegions"]


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
        fraction("val_fraction", self.val_fraction, zero=True)

    def split(self, height: int, width: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Upper left corners (row, column) of the training and of the validation windows, ``[n, 2]`` each.

        Raises:
            ValueError: if the photograph is smaller than a window, or too small to hold windows of both kinds.
        """
        if min(height, width) < self.size:
            raise ValueError(
                f"`size` must be at most the sides of the photograph, {height} x {width}, got {self.size}."
            )
        region = self._val_region(height, width, generator)
        train = self._windows_without(functional.pad(region, [self.guard] * 4), self.size + 2 * self.guard)
        val = self._windows_without(1 - region, self.size)
        if not len(train) or (self.val_fraction and not len(val)):
            raise ValueError(
                f"`cell` and `guard` must leave windows of {self.size} pixels for training and validation in a photograph "
                f"of {height} x {width}, got {self.cell} and {self.guard}. Make them smaller, or `val_fraction` 0."
            )
        return train, val

    def _val_region(self, height: int, width: int, generator: Generator) -> Tensor:
        """1 in the cells that validate and 0 elsewhere, ``[1, height, width]``."""
        region = torch.zeros(1, height, width)
        if not self.val_fraction:
            return region
        # A last cell narrower than the others could hold no window, so the remainder is shared out.
        rows, columns = (np.linspace(0, n, max(n // self.cell, 1) + 1).astype(int) for n in (height, width))
        count = (len(rows) - 1) * (len(columns) - 1)
        chosen = torch.randperm(count, generator=generator)[: max(round(self.val_fraction * count), 1)]
        for k in chosen.tolist():
            i, j = divmod(k, len(columns) - 1)
            region[:, rows[i] : rows[i + 1], columns[j] : columns[j + 1]] = 1
        return region

    def _windows_without(self, mask: Tensor, side: int) -> Tensor:
        """Corners of the windows of a side that hold no pixel of the mask, ``[n, 2]``."""
        found = functional.max_pool2d(mask, (side, 1), (self.stride, 1))
        found = functional.max_pool2d(found, (1, side), (1, self.stride))
        return (found[0] == 0).nonzero() * self.stride
