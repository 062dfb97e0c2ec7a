"""A folder of images as a set: with or without classes, with or without a validation part."""

from __future__ import annotations

from pathlib import Path

import torch

from spectral_lightning.datamodules.images.sets import ImageFiles, ImageSet

__all__ = ["folder_sets"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
_VALIDATION = ("val", "valid", "validation", "test")


def folder_sets(root: str | Path, *, color: bool = True) -> tuple[ImageSet, ImageSet | None]:
    """The images below ``root``, and those for validation where they have a folder of their own.

    - ``root/train`` and one of ``root/val``, ``valid``, ``validation`` or ``test`` (the first of these that exists) are
      training and validation part; otherwise all images below ``root`` are one set, and there is no second.
    - In each part the folders right below it are the classes, sorted by name, as in torchvision's ImageFolder; images may
      lie deeper. If an image lies in the part itself, the set is flat and has no classes.

    A set cut in numbered folders for convenience, such as the thumbnails of FFHQ, has those as classes, which does not
    matter as long as no labels are asked for.

    Args:
        root: folder of images (png, jpg, bmp, ppm, pgm, tif, webp); hidden files are left out.
        color: whether to read in colour.

    Raises:
        ValueError: if there is no such folder or no image in it, or validation has a class that training has not.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise ValueError(f"`root` must be an existing folder, got {str(root)!r}.")
    second = next((folder / name for name in _VALIDATION if (folder / name).is_dir()), None)
    if second is None or not (folder / "train").is_dir():
        return _part(folder, color, None), None
    train = _part(folder / "train", color, None)
    return train, _part(second, color, train.class_names)


def _part(folder: Path, color: bool, class_names: tuple[str, ...] | None) -> ImageSet:
    """One part, with the classes of ``class_names`` or, where that is None, its own."""
    paths = _image_files(folder)
    parents = [path.relative_to(folder).parts[:-1] for path in paths]
    own = tuple(sorted({parent[0] for parent in parents})) if all(parents) else ()
    names = own if class_names is None else class_names
    if names and set(own) - set(names):
        raise ValueError(
            f"`root` must have the same classes for validation as for training, {list(names)}, got {list(own)}."
        )
    if class_names and not own:
        raise ValueError(f"`root` must have classes for validation as for training, {list(names)}, got a flat folder.")
    position = {name: k for k, name in enumerate(names)}
    labels = [position[parent[0]] if names else 0 for parent in parents]
    return ImageSet(ImageFiles(paths, color=color), torch.tensor(labels, dtype=torch.int64), names)


def _image_files(folder: Path) -> list[Path]:
    paths = (p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and not p.name.startswith("."))
    found = sorted(p for p in paths if p.is_file())
    if not found:
        raise ValueError(f"`root` must hold images ({', '.join(_SUFFIXES)}), got {str(folder)!r} with none.")
    return found
