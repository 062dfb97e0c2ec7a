"""Patches of photographs: real data of a steep spectrum, small enough to train on anywhere."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from spectral_lightning.arguments import positive_integer
from spectral_lightning.datamodules.loading import Rows, batches_loader, check_batch_size
from spectral_lightning.datamodules.patches.photographs import (
    folder_images,
    image_size,
    read_image,
    shipped_photographs,
)
from spectral_lightning.datamodules.patches.regions import PatchRegions
from spectral_lightning.datamodules.spectrum_edit import FittedEdit, SpectrumEdit
from spectral_lightning.spectra import SpectralMoments

__all__ = ["PatchDataModule"]

Windows = NDArray[np.int64]
"""Photograph, row and column of the upper left corner of each patch, ``[n, 3]``."""


class _Patches(NamedTuple):
    train: Rows
    val: Rows
    mean: Tensor
    std: Tensor
    edit: FittedEdit | None


class PatchDataModule(LightningDataModule):
    """Square patches of photographs, training and validation from disjoint regions of each of them.

    Every photograph is cut in cells, of which a fraction drawn at random validates. Validation patches lie wholly inside
    those cells, training patches at least ``guard`` pixels away from them: both sets are of one distribution, and no
    pixel is in both. A batch is a float32 tensor ``[B, C, size, size]``, with C = 1 in grey and 3 in colour.

    Standardised pixels are ``(x - m_c) / s_c`` with one mean and one standard deviation per channel c, taken over all
    pixels of all training patches and used for both sets: the training patches then have a mean variance of 1 per pixel,
    and the shape of the spectrum is that of the photographs.

    The patches are held in memory: 4 C size^2 bytes each.

    Args:
        folder: folder of images (png, jpg, bmp, tif, webp), with all folders below it; None for those of scikit-image.
        photographs: names of photographs that scikit-image ships, as in ``skimage.data``; None for all natural ones, in
            colour for those that are in colour. Nothing is downloaded.
        size: side of a patch in pixels.
        stride: distance of neighbouring patches in pixels.
        color: whether to keep colour; otherwise the luminance. Grey photographs are repeated in all three channels.
        standardize: whether to standardise; otherwise pixels lie in [0, 1].
        val_fraction: fraction of the cells that validate, at least one per photograph; 0 for no validation.
        guard: pixels between training and validation patches; None for half a patch.
        cell: least side of a cell in pixels; None for two patches.
        max_patches: largest number of training patches, chosen at random; validation is cut in proportion. None for all.
        batch_size: patches per batch; an incomplete last training batch is dropped.
        seed: of the regions and of the order of the patches. The order of the batches is the run's own.
        num_workers: processes that load batches.
        edit: new variances for the eigenmodes of the training patches, after standardisation; both sets go through it.

    Raises:
        ValueError: for an argument out of range, at construction; for photographs that are missing, unreadable or too
            small, when they are first read.
        ImportError: if photographs of scikit-image are wanted and it is not installed.

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
        super().__init__()
        if folder is not None and photographs is not None:
            raise ValueError(f"`photographs` must be left out where `folder` is given, got {photographs!r}.")
        self.folder = folder
        self.photographs = photographs
        self.size = positive_integer("size", size)
        self.color = color
        self.standardize = standardize
        self.regions = PatchRegions(
            size=size,
            stride=stride,
            cell=2 * size if cell is None else cell,
            guard=size // 2 if guard is None else guard,
            val_fraction=val_fraction,
        )
        self.max_patches = None if max_patches is None else positive_integer("max_patches", max_patches)
        self.batch_size = positive_integer("batch_size", batch_size)
        self.seed = positive_integer("seed", seed, minimum=0)
        self.num_workers = positive_integer("num_workers", num_workers, minimum=0)
        self.edit = edit

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one patch, ``(C, size, size)``."""
        return (3 if self.color else 1, self.size, self.size)

    @property
    def dim(self) -> int:
        """Dimension of one patch, ``C size^2``."""
        return self.shape[0] * self.size**2

    @property
    def train_rows(self) -> Rows:
        """The training patches, in random order. Reads the photographs, once."""
        return self._patches.train

    @property
    def val_rows(self) -> Rows:
        """The validation patches, in random order. Reads the photographs, once."""
        return self._patches.val

    @property
    def mean_pixel(self) -> Tensor:
        """What was subtracted from each channel, ``[C]``, float64: zero without standardisation."""
        return self._patches.mean

    @property
    def std_pixel(self) -> Tensor:
        """What each channel was divided by, ``[C]``, float64: one without standardisation."""
        return self._patches.std

    @property
    def fitted_edit(self) -> FittedEdit | None:
        """The edit as it was fitted to the standardised training patches; None without one."""
        return self._patches.edit

    def training_moments(self) -> tuple[Tensor, Tensor]:
        """Mean ``[d]`` and covariance ``[d, d]`` of the training patches as they go to the network, float64."""
        moments = SpectralMoments(self.dim)
        for part in torch.split(self.train_rows.data, 4096):
            moments.update(part)
        return moments.compute()

    def setup(self, stage: str | None = None) -> None:
        """Read the photographs, once."""
        check_batch_size(self.batch_size, len(self.train_rows), "training patches")

    def describe(self) -> str:
        """One line: how many patches of how many photographs."""
        c, h, w = self.shape
        train, val = len(self.train_rows), len(self.val_rows)
        return f"{len(self._paths)} photographs, {train} training and {val} validation patches of {c} x {h} x {w}"

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Batches ``[B, C, size, size]`` of the training patches."""
        self.setup()
        return batches_loader(
            self.train_rows, self.batch_size, shuffle=True, drop_last=True, num_workers=self.num_workers
        )

    def val_dataloader(self) -> DataLoader[Tensor] | list[DataLoader[Tensor]]:
        """Batches ``[B, C, size, size]`` of the validation patches, in a fixed order; no loader where there are none."""
        if not self.regions.val_fraction:
            return []
        return batches_loader(self.val_rows, self.batch_size, num_workers=self.num_workers)

    @cached_property
    def _paths(self) -> list[Path]:
        if self.folder is not None:
            return folder_images(self.folder)
        return shipped_photographs(self.photographs, color=self.color)

    @cached_property
    def _patches(self) -> _Patches:
        train, val = self._read(*self._windows())
        mean = torch.zeros(self.shape[0], dtype=torch.float64)
        std = torch.ones_like(mean)
        if self.standardize:
            mean, std = _channel_moments(train)
            if not (std > 0).all():
                raise ValueError("`standardize` must be False for photographs of one brightness, got True.")
            for patches in (train, val):
                patches.sub_(mean.float().view(-1, 1, 1)).div_(std.float().view(-1, 1, 1))
        edit = None if self.edit is None else self.edit.fit(train)
        if edit is not None:
            train, val = edit(train), edit(val)
        return _Patches(Rows(train), Rows(val), mean, std, edit)

    def _windows(self) -> tuple[Windows, Windows]:
        """Training and validation windows of all photographs in random order, known from the sizes alone."""
        generator = Generator().manual_seed(self.seed)
        train: list[Windows] = []
        val: list[Windows] = []
        for k, path in enumerate(self._paths):
            try:
                corners = self.regions.split(*image_size(path), generator)
            except ValueError as error:
                raise ValueError(f"{error} The photograph is {path.name!r}.") from error
            for windows, found in zip((train, val), corners, strict=True):
                windows.append(np.insert(found, 0, k, axis=1))
        share = 1.0 if self.max_patches is None else min(1.0, self.max_patches / sum(len(windows) for windows in train))
        return _draw(train, share, generator), _draw(val, share, generator)

    def _read(self, *kinds: Windows) -> list[Tensor]:
        """The pixels of each kind of windows, ``[n, C, size, size]``, one photograph in memory at a time."""
        patches = [torch.empty(len(windows), *self.shape) for windows in kinds]
        for k, path in enumerate(self._paths):
            pixels = read_image(path, color=self.color)
            view = sliding_window_view(pixels, (self.size, self.size), axis=(1, 2))
            for windows, out in zip(kinds, patches, strict=True):
                chosen = np.flatnonzero(windows[:, 0] == k)
                _, rows, columns = windows[chosen].T
                out[torch.from_numpy(chosen)] = torch.from_numpy(view[:, rows, columns].swapaxes(0, 1))
        return patches


def _draw(windows: list[Windows], share: float, generator: Generator) -> Windows:
    """A random share of the windows, in random order, so that any first part of them represents the whole."""
    joined = np.concatenate(windows)
    count = max(round(share * len(joined)), 1) if len(joined) else 0
    order: NDArray[np.int64] = torch.randperm(len(joined), generator=generator)[:count].numpy()
    return np.take(joined, order, axis=0)


def _channel_moments(patches: Tensor, chunk: int = 4096) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, ``[C]``, in float64 without a float64 copy of all patches."""
    pixels = patches[:, 0].numel()
    total = torch.stack([part.double().sum((0, 2, 3)) for part in torch.split(patches, chunk)])
    mean = total.sum(0) / pixels
    squares = [(part - mean.view(-1, 1, 1)).square().sum((0, 2, 3)) for part in torch.split(patches, chunk)]
    return mean, (torch.stack(squares).sum(0) / pixels).sqrt()
