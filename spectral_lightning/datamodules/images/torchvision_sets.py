"""The sets that torchvision reads and downloads, opened without a copy of their pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import datasets

from spectral_lightning.arguments import one_of
from spectral_lightning.datamodules.images.sets import ImageFiles, ImageSet, PixelArray

__all__ = ["torchvision_sets"]


def torchvision_sets(
    dataset: str, root: str | Path, *, download: bool = False, attribute: str | None = None, color: bool = True
) -> tuple[ImageSet, ImageSet]:
    """Training and test part of a set, in the folders and file formats of :mod:`torchvision.datasets`.

    Args:
        dataset: ``"mnist"``, ``"fashion_mnist"``, ``"cifar10"`` or ``"celeba"``.
        root: folder below which torchvision keeps the set.
        download: whether to download what is missing.
        attribute: for CelebA, the attribute that makes its two classes; None for no classes.
        color: whether to read files in colour.

    Raises:
        ValueError: if files are missing or damaged and ``download`` is False; for an unknown set or attribute.
        RuntimeError: if a download fails.
    """
    one_of("dataset", dataset, ("mnist", "fashion_mnist", "cifar10", "celeba"))
    folder = Path(root).expanduser()
    try:
        if dataset == "celeba":
            train, test = (_celeba(folder, split, download, attribute, color) for split in ("train", "test"))
        else:
            train, test = (_array(dataset, folder, part, download) for part in (True, False))
    except (RuntimeError, OSError) as error:
        if download:
            raise
        raise ValueError(
            f"`root` must hold the files of {dataset!r} as torchvision stores them, got {str(root)!r} ({error}). "
            "Pass `download=True`, or copy them there."
        ) from error
    return train, test


def _array(dataset: str, root: Path, train: bool, download: bool) -> ImageSet:
    if dataset == "cifar10":
        colored = datasets.CIFAR10(root, train=train, download=download)
        pixels = torch.from_numpy(colored.data).permute(0, 3, 1, 2).contiguous()
        return ImageSet(PixelArray(pixels), torch.tensor(colored.targets), tuple(colored.classes))
    kind = datasets.MNIST if dataset == "mnist" else datasets.FashionMNIST
    found = kind(root, train=train, download=download)
    names = tuple("0123456789") if dataset == "mnist" else tuple(found.classes)
    return ImageSet(PixelArray(found.data[:, None]), found.targets.long(), names)


def _celeba(root: Path, split: str, download: bool, attribute: str | None, color: bool) -> ImageSet:
    found: Any = datasets.CelebA(str(root), split=split, download=download)
    folder = root / found.base_folder / "img_align_celeba"
    images = ImageFiles([folder / name for name in found.filename], color=color)
    if attribute is None:
        return ImageSet(images, torch.zeros(len(found), dtype=torch.int64), ())
    # The header of the list ends in a blank.
    names = [name for name in found.attr_names if name]
    column: Tensor = found.attr[:, names.index(one_of("attribute", attribute, names))]
    return ImageSet(images, column.long(), (f"not {attribute}", attribute))
