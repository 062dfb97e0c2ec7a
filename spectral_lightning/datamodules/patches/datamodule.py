"""Patches of photographs: real data of a steep spectrum, small enough to train on anywhere."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.nn import functional

from spectral_lightning.arguments import positive_integer
from spectral_lightning.datamodules.files import image_files, image_size, read_image
from spectral_lightning.datamodules.patches.photographs import shipped_photographs
from spectral_lightning.datamodules.patches.regions import PatchRegions
from spectral_lightning.datamodules.pixels import PixelScale
from spectral_lightning.datamodules.rows import Rows, RowsDataModule
from spectral_lightning.datamodules.spectrum_edit import SpectrumEdit

__all__ = ["PatchDataModule"]


class PatchDataModule(RowsDataModule):
    """Square patches of photographs, training and validation from disjoint regions of each of them.

    Every photograph is cut into cells, and a random fraction of them validates. Validation patches lie wholly inside those
    cells, training patches at least ``guard`` pixels away from them: both sets follow one distribution, and no pixel is in
    both. A batch is a float32 tensor ``[B, C, size, size]``, with C = 1 in grey and 3 in colour.

    Standardised pixels are ``(x - m_c) / s_c`` with one mean and one standard deviation per channel c, taken over all
    pixels of all training patches and used for both sets: the training patches then have a mean variance of 1 per pixel,
    and the spectrum keeps the shape it has in the photographs.

    The patches are held in memory: 4 C size^2 bytes each.

    Args:
        folder: folder of images (png, jpg, bmp, ppm, pgm, tif, webp), with all folders below it; None for the photographs
            of scikit-image.
        photographs: names of photographs that scikit-image ships, as in ``skimage.data``; None for all natural ones, or all
            in colour with ``color``. Nothing is downloaded.
        size: side of a patch in pixels.
        stride: distance of neighbouring patches in pixels.
        color: whether to keep colour instead of the luminance; grey photographs are then repeated in all three channels.
        standardize: whether to standardise; otherwise pixels lie in [0, 1].
        val_fraction: fraction of the cells that validate, at least one per photograph; 0 for no validation.
        guard: pixels between training and validation patches; None for half a patch.
        cell: least side of a cell in pixels; None for two patches.
        max_patches: largest number of training patches, chosen at random; validation is cut in proportion. None for all.
        batch_size: patches per batch; an incomplete last training batch is dropped.
        seed: of the regions and of the order of the patches; the seed of the run governs the order of the batches.
        num_workers: processes that load batches.
        edit: new variances for the eigenmodes of the standardised training patches; applied to both sets.

    Raises:
        ValueError: for an argument out of range, at construction; for photographs that are missing, unreadable or too
            small, when they are first read.
        ImportError: if photographs of scikit-image are requested and it is not installed.

    Example:
        >>> data = PatchDataModule(photographs=["camera"], size=8, batch_size=32)
        >>> next(iter(data.train_dataloader())).shape
        torch.Size([32, 1, 8, 8])
    """

    def __init__(
        self,
        folder: str | None = None,
        photographs: list[str] | None = None,
        size: int = 16,
        stride: int = 4,
        color: bool = False,
        standardize: bool = True,
        val_fraction: float = 0.1,
        guard: int | None = None,
        cell: int | None = None,
        max_patches: int | None = None,
        batch_size: int = 256,
        seed: int = 0,
        num_workers: int = 0,
        edit: SpectrumEdit | None = None,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        if folder is not None and photographs is not None:
            raise ValueError(f"`photographs` must be left out if `folder` is given, got {photographs!r}.")
        self.folder, self.photographs = folder, photographs
        self.size, self.color = positive_integer("size", size), color
        self.shape = (3 if color else 1, size, size)
        self.standardize, self.edit = standardize, edit
        self.regions = PatchRegions(
            size=size,
            stride=stride,
            cell=2 * size if cell is None else cell,
            guard=size // 2 if guard is None else guard,
            val_fraction=val_fraction,
        )
        self.max_patches = None if max_patches is None else positive_integer("max_patches", max_patches)

    @property
    def train_rows(self) -> Rows:
        """The training patches, in random order. Reads the photographs, once."""
        return self._patches[0]

    @property
    def val_rows(self) -> Rows:
        """The validation patches, in random order. Reads the photographs, once."""
        return self._patches[1]

    @property
    def scale(self) -> PixelScale:
        """Mean and standard deviation of each channel, which turned pixels into what the network sees."""
        return self._patches[2]

    @cached_property
    def _patches(self) -> tuple[Rows, Rows, PixelScale]:
        if self.folder is None:
            paths = shipped_photographs(self.photographs, color=self.color)
        else:
            paths = image_files(self.folder, "folder")
        windows = self._windows(paths)
        self._check_batch_size(len(windows[0]), "training patches")
        train, val = torch.split(self._read(paths, torch.cat(windows)), [len(part) for part in windows])
        scale = (
            PixelScale.standard(torch.split(train, 4_096)) if self.standardize else PixelScale.constant(self.shape[0])
        )
        train, val = scale(train), scale(val)
        if self.edit is not None:
            fitted = self.edit.fit(train)
            train, val = fitted(train), fitted(val)
        return Rows(train), Rows(val), scale

    def _windows(self, paths: list[Path]) -> list[Tensor]:
        """Training and validation windows of all photographs, known from the sizes alone.

        A row is the photograph, the row and the column of the upper left corner, ``[n, 3]``; their order is random, so that
        any first part of them represents the whole.
        """
        generator = Generator().manual_seed(self.seed)
        found: list[tuple[Tensor, Tensor]] = []
        for k, path in enumerate(paths):
            try:
                train, val = self.regions.split(*image_size(path), generator)
            except ValueError as error:
                raise ValueError(f"{error} The photograph is {path.name!r}.") from error
            found.append((functional.pad(train, (1, 0), value=k), functional.pad(val, (1, 0), value=k)))
        joined = [torch.cat(kind) for kind in zip(*found, strict=True)]
        share = 1.0 if self.max_patches is None else min(1.0, self.max_patches / len(joined[0]))
        counts = [max(round(share * len(windows)), 1) if len(windows) else 0 for windows in joined]
        orders = [torch.randperm(len(windows), generator=generator) for windows in joined]
        return [windows[order[:n]] for windows, order, n in zip(joined, orders, counts, strict=True)]

    def _read(self, paths: list[Path], windows: Tensor) -> Tensor:
        """The pixels of the windows, ``[n, C, size, size]``, one photograph in memory at a time."""
        patches = torch.empty(len(windows), *self.shape)
        for k, path in enumerate(paths):
            chosen = windows[:, 0] == k
            if chosen.any():
                view = read_image(path, color=self.color).unfold(1, self.size, 1).unfold(2, self.size, 1)
                patches[chosen] = view[:, windows[chosen, 1], windows[chosen, 2]].transpose(0, 1)
        return patches
