"""Sets of images behind one interface: an array in memory, or files read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from spectral_lightning.datamodules.files import read_image

__all__ = ["ImageFiles", "ImageSet", "PixelArray"]

Frame = Callable[[Tensor], Tensor]
"""Brings images ``[..., C, h, w]`` in [0, 1] to their final size and channels."""


class PixelArray:
    """Images of one size in memory.

    Args:
        pixels: ``[n, C, H, W]``, 0 ... 255 as bytes or [0, 1] as floating-point numbers.

    Example:
        >>> PixelArray(torch.full((2, 1, 1, 1), 51, dtype=torch.uint8)).read([1], lambda images: images).tolist()
        [[[[0.20000000298023224]]]]
    """

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    def read(self, indices: Sequence[int], frame: Frame) -> Tensor:
        """The images at ``indices`` after ``frame``, ``[B, C, H, W]``, float32 in [0, 1]."""
        chosen = self.pixels[torch.tensor(indices, dtype=torch.int64)]
        return frame(chosen if chosen.is_floating_point() else chosen.float().div_(255))


class ImageFiles:
    """Images in files, of any sizes.

    Args:
        paths: one per image.
        color: whether to keep colour instead of the luminance.
    """

    def __init__(self, paths: Sequence[Path], *, color: bool = True) -> None:
        self.paths = list(paths)
        self.color = color

    def read(self, indices: Sequence[int], frame: Frame) -> Tensor:
        """The images at ``indices`` after ``frame``, ``[B, C, H, W]``, float32 in [0, 1].

        Raises:
            ValueError: for a file that cannot be read, and for images of different sizes after ``frame``.
        """
        images = [frame(read_image(self.paths[k], color=self.color)) for k in indices]
        for k, image in zip(indices, images, strict=True):
            if image.shape != images[0].shape:
                raise ValueError(
                    f"`resize` must be given for images of different sizes, got {list(images[0].shape[1:])} and "
                    f"{list(image.shape[1:])} ({self.paths[k].name!r})."
                )
        return torch.stack(images)


class ImageSet(NamedTuple):
    """Images with their labels.

    Attributes:
        images: an array or files.
        labels: class of each image, ``[n]``, int64; all zero in a set without classes.
        class_names: one name per class; empty for a set without classes.
    """

    images: PixelArray | ImageFiles
    labels: Tensor
    class_names: tuple[str, ...]
