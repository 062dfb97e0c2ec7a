"""Images as a dataset: held in one tensor, or read from their source batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from spectral_lightning.datamodules.images.subsets import Selection
from spectral_lightning.datamodules.images.transforms import Framing, PixelScale, mirrored

__all__ = ["Example", "ImageReader", "ImageRows"]

Example = Tensor | tuple[Tensor, Tensor]
"""Images, alone or with their labels."""

_CHUNK = 1_024


@dataclass(frozen=True, eq=False)
class ImageReader:
    """Selected images, read and transformed each time they are asked for.

    Args:
        selection: which images of which set.
        framing: their size and channels.
        scale: of their pixels; None leaves them in [0, 1].
    """

    selection: Selection
    framing: Framing
    scale: PixelScale | None = None

    def __len__(self) -> int:
        return len(self.selection.order)

    def read(self, indices: list[int]) -> Tensor:
        """Images ``[B, C, H, W]``, float32."""
        positions = self.selection.order[indices].tolist()
        images = self.selection.source.images.read(positions, self.framing)
        return images if self.scale is None else self.scale(images)

    def parts(self, limit: int | None = None) -> Iterator[Tensor]:
        """The first ``limit`` images, or all, some at a time."""
        stop = len(self) if limit is None else min(limit, len(self))
        for start in range(0, stop, _CHUNK):
            yield self.read(list(range(start, min(start + _CHUNK, stop))))

    def everything(self, shape: tuple[int, int, int]) -> Tensor:
        """All images as one tensor ``[n, *shape]``, without a second copy of them on the way.

        Raises:
            ValueError: for images of another shape.
        """
        images = torch.empty(len(self), *shape)
        start = 0
        for part in self.parts():
            if tuple(part.shape[1:]) != shape:
                raise ValueError(
                    f"`resize` must be given for images of different sizes, got {shape} and {tuple(part.shape[1:])}."
                )
            images[start : start + len(part)] = part
            start += len(part)
        return images


class ImageRows(Dataset[Example]):
    """Images ``[C, H, W]``, or pairs of an image and its label, as the network sees them.

    Args:
        images: all of them, ``[n, C, H, W]``, or how to read them.
        labels: class of each, ``[n]``, int64; None for images alone.
        flip: whether each image is mirrored with probability 1/2 whenever it is asked for.

    Example:
        >>> rows = ImageRows(torch.arange(6.0).view(3, 1, 1, 2), labels=torch.tensor([4, 5, 6]))
        >>> rows.batch([2, 0])
        (tensor([[[[4., 5.]]],
        <BLANKLINE>
        <BLANKLINE>
                [[[0., 1.]]]]), tensor([6, 4]))
    """

    def __init__(self, images: Tensor | ImageReader, labels: Tensor | None = None, *, flip: bool = False) -> None:
        self.images = images
        self.labels = labels
        self.flip = flip

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        batch = self.batch([range(len(self))[index]])
        return batch[0] if isinstance(batch, Tensor) else (batch[0][0], batch[1][0])

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """Many at once, which a DataLoader asks for where it can."""
        batch = self.batch(indices)
        return list(batch) if isinstance(batch, Tensor) else list(zip(*batch, strict=True))

    def batch(self, indices: list[int]) -> Example:
        """Images ``[B, C, H, W]``, with their labels ``[B]`` where there are some."""
        if isinstance(self.images, Tensor):
            images = self.images[torch.tensor(indices, device=self.images.device)]
        else:
            images = self.images.read(indices)
        if self.flip:
            images = mirrored(images)
        if self.labels is None:
            return images
        return images, self.labels[torch.tensor(indices, device=self.labels.device)]

    def parts(self) -> Iterator[Tensor]:
        """All images in their order, none mirrored, some at a time."""
        if isinstance(self.images, Tensor):
            yield from torch.split(self.images, _CHUNK)
        else:
            yield from self.images.parts()

    def move(self, device: torch.device) -> None:
        """Move images held in a tensor, and their labels, to ``device``; those that are there stay as they are."""
        if isinstance(self.images, Tensor):
            self.images = self.images.to(device)
            self.labels = None if self.labels is None else self.labels.to(device)
