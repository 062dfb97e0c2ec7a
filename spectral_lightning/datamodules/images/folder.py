"""A folder of images as a set: with or without classes, with or without a validation part."""

from __future__ import annotations

from pathlib import Path

import torch

from spectral_lightning.datamodules.files import image_files
from spectral_lightning.datamodules.images.sets import ImageFiles, ImageSet

__all__ = ["folder_sets"]

_VALIDATION = ("val", "valid", "validation", "test")


def folder_sets(root: str | Path, *, color: bool = True) -> tuple[ImageSet, ImageSet | None]:
    """The images below ``root``, and those for validation if a separate folder holds them.

    - ``root/train`` and one of ``root/val``, ``valid``, ``validation`` or ``test`` (the first of these that exists) are
      training and validation part; otherwise all images below ``root`` are one set, and there is no second.
    - In each part the folders right below it are the classes, sorted by name, as in torchvision's ImageFolder; images may
      lie deeper. If an image lies in the part itself, the set is flat and has no classes.

    A set stored in numbered folders for convenience, such as the thumbnails of FFHQ, has those as classes, which does not
    matter as long as no labels are requested.

    Args:
        root: folder of images, as in :func:`~spectral_lightning.datamodules.files.image_files`.
        color: whether to read in colour.

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
    """One part, with the classes of ``class_names`` or, if that is None, those found."""
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
