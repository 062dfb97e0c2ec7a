"""Patches of photographs: real data with a steep spectrum, small enough to train on anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from spectral_lightning.arguments import fraction, one_of, positive_integer
from spectral_lightning.datamodules.pixels import PixelScale, image_files, image_size, package_folder, read_image
from spectral_lightning.datamodules.rows import Rows, RowsDataModule
from spectral_lightning.datamodules.spectrum_edit import SpectrumEdit
from spectral_lightning.seeds import numpy_generator

__all__ = ["COLOR_PHOTOGRAPHS", "PHOTOGRAPHS", "PatchDataModule", "PatchRegions", "shipped_photographs"]

COLOR_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket")
"""The photographs in colour, used if colour is requested and none are named."""

PHOTOGRAPHS = (*COLOR_PHOTOGRAPHS, "brick", "camera", "coins", "grass", "gravel", "moon")
"""The photographs used if none are named. Micrographs, drawings and text are left out."""

_ALSO_SHIPPED = ("hubble_deep_field", "ihc", "motorcycle_right", "retina")


def shipped_photographs(names: list[str] | None = None, *, color: bool = False) -> list[Path]:
    """Files of photographs that scikit-image ships.

    Args:
        names: as in ``skimage.data``; None takes all of :data:`PHOTOGRAPHS`, or of :data:`COLOR_PHOTOGRAPHS`.
        color: whether colour is requested.

    Raises:
        ImportError: if scikit-image is not installed.
        ValueError: for an unknown or repeated name, or no name at all.
    """
    chosen = list(COLOR_PHOTOGRAPHS if color else PHOTOGRAPHS) if names is None else list(names)
    for name in chosen:
        one_of("photographs", name, (*PHOTOGRAPHS, *_ALSO_SHIPPED))
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"`photographs` must be one or more different names, got {names!r}.")
    # The files, not the functions of skimage.data: those download what they do not find.
    folder = package_folder("skimage", "scikit-image") / "data"
    files = {path.stem: path for path in image_files(folder, "photographs")}
    return [files[name] for name in chosen]


@dataclass(frozen=True)
class PatchRegions:
    """The windows of ``size`` x ``size`` pixels of a photograph, split into training and validation by region.

    The photograph is divided into cells, and some are drawn for validation. A window is for validation if it lies wholly inside
    those cells, and for training if, extended by the guard on every side, it touches none of them. So no pixel is in windows of
    both kinds, at least ``guard`` pixels lie between them, and both kinds come from all over the photograph.

    Arguments and errors are those of :class:`PatchDataModule`.

    Example:
        >>> regions = PatchRegions(size=4, stride=4, cell=8, guard=0, val_fraction=0.25)
        >>> train, val = regions.split(16, 16, np.random.default_rng(0))
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
        positive_integer("cell", self.cell, minimum=self.size, remedy="A validation patch must fit into a cell.")
        positive_integer("guard", self.guard, minimum=0)
        fraction("val_fraction", self.val_fraction, zero=True)

    def split(self, height: int, width: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
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

    def _val_region(self, height: int, width: int, generator: np.random.Generator) -> Tensor:
        """1 in the validation cells and 0 elsewhere, ``[1, height, width]``."""
        region = torch.zeros(1, height, width)
        if not self.val_fraction:
            return region
        # A last cell narrower than the others could hold no window, so the remainder is distributed over all cells.
        rows, columns = (np.linspace(0, n, max(n // self.cell, 1) + 1).astype(int) for n in (height, width))
        count = (len(rows) - 1) * (len(columns) - 1)
        chosen = generator.permutation(count)[: max(round(self.val_fraction * count), 1)]
        for k in chosen.tolist():
            i, j = divmod(k, len(columns) - 1)
            region[:, rows[i] : rows[i + 1], columns[j] : columns[j + 1]] = 1
        return region

    def _windows_without(self, mask: Tensor, side: int) -> Tensor:
        """Corners of the windows of this side that contain no pixel of the mask, ``[n, 2]``."""
        found = functional.max_pool2d(mask, (side, 1), (self.stride, 1))
        found = functional.max_pool2d(found, (1, side), (1, self.stride))
        return (found[0] == 0).nonzero() * self.stride


class PatchDataModule(RowsDataModule):
    """Square patches of photographs, with training and validation from disjoint regions of each photograph.

    Every photograph is cut into cells, and a random fraction of them is for validation. Validation patches lie wholly inside
    those cells, training patches at least ``guard`` pixels away from them: both sets follow one distribution, and no pixel is in
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
        stride: distance between neighbouring patches in pixels.
        color: whether to keep colour instead of the luminance; grey photographs are then repeated in all three channels.
        standardize: whether to standardise; otherwise pixels lie in [0, 1].
        val_fraction: fraction of the cells used for validation, at least one per photograph; 0 for no validation.
        guard: pixels between training and validation patches; None for half a patch.
        cell: smallest side of a cell in pixels; None for two patches.
        max_patches: largest number of training patches, chosen at random; validation is reduced in proportion. None for all.
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
    def scale(self) -> PixelScale:
        """Mean and standard deviation of each channel, which turned pixels into what the network sees."""
        return self._sets[2]

    @cached_property
    def _sets(self) -> tuple[Rows, Rows, PixelScale]:
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

        A row is the photograph, and the row and column of the upper left corner, ``[n, 3]``; their order is random, so that
        the first n of them represent the whole.
        """
        generator = numpy_generator("split", self.seed)
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
        orders = [torch.from_numpy(generator.permutation(len(windows))) for windows in joined]
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
