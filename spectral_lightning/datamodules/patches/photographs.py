"""Photographs from a folder, or from those that scikit-image ships in its wheel: found, measured and read."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spectral_lightning.arguments import one_of

__all__ = ["COLOR_PHOTOGRAPHS", "PHOTOGRAPHS", "folder_images", "image_size", "read_image", "shipped_photographs"]

COLOR_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket")
"""Photographs in colour that scikit-image ships, used where colour is asked for and none are named."""

PHOTOGRAPHS = (*COLOR_PHOTOGRAPHS, "brick", "camera", "coins", "grass", "gravel", "moon")
"""Photographs that scikit-image ships, used where none are named. Micrographs, drawings and text are left out."""

_ALSO_SHIPPED = ("hubble_deep_field", "ihc", "motorcycle_right", "retina")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def shipped_photographs(names: list[str] | None = None, *, color: bool = False) -> list[Path]:
    """Files of photographs that scikit-image ships, found without a download.

    Args:
        names: as in ``skimage.data``; None takes all of :data:`PHOTOGRAPHS`, or of :data:`COLOR_PHOTOGRAPHS`.
        color: whether colour is wanted.

    Raises:
        ImportError: if scikit-image is not installed.
        ValueError: for a name that is not known, twice the same, or no name at all.
    """
    chosen = list(COLOR_PHOTOGRAPHS if color else PHOTOGRAPHS) if names is None else list(names)
    for name in chosen:
        one_of("photographs", name, (*PHOTOGRAPHS, *_ALSO_SHIPPED))
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"`photographs` must be one or more different names, got {names!r}.")
    files = {path.stem: path for path in _image_files(_scikit_image_folder())}
    return [files[name] for name in chosen]


def folder_images(folder: str | Path) -> list[Path]:
    """Image files anywhere below ``folder``, in the order of their paths; hidden files are left out.

    Raises:
        ValueError: if there is no such folder, or no image in it.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise ValueError(f"`folder` must be an existing folder, got {str(folder)!r}.")
    found = _image_files(root)
    if not found:
        raise ValueError(f"`folder` must hold images ({', '.join(_SUFFIXES)}), got {str(folder)!r} with none.")
    return found


def image_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels, from the header alone.

    Raises:
        ValueError: if the file is not a readable image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error


def read_image(path: Path, *, color: bool = False) -> NDArray[np.float32]:
    """Pixels in [0, 1], ``[C, H, W]``: C is 3 in colour; or 1, the luminance (ITU-R 601), in grey.

    Grey images are repeated in all three channels where colour is wanted; transparency is ignored.

    Raises:
        ValueError: if the file is not a readable image of 8 or 16 bits a channel.
    """
    try:
        with Image.open(path) as image:
            pixels = _unit_pixels(image, color)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error
    if pixels.ndim == 2:
        return np.repeat(pixels[None], 3 if color else 1, axis=0)
    return pixels.transpose(2, 0, 1)


def _unit_pixels(image: Image.Image, color: bool) -> NDArray[np.float32]:
    if image.mode in ("I", "F"):
        raise OSError("32 bits a pixel, and which value is white is not known")
    if image.mode.startswith("I;16"):
        return np.asarray(image, dtype=np.float32) / np.float32(65_535)
    return np.asarray(image.convert("RGB" if color else "L"), dtype=np.float32) / np.float32(255)


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"`folder` must hold readable images only, got {str(path)!r} ({error}). Repair or remove it.")


def _image_files(root: Path) -> list[Path]:
    paths = (p for p in root.rglob("*") if p.suffix.lower() in _SUFFIXES and not p.name.startswith("."))
    return sorted(p for p in paths if p.is_file())


def _scikit_image_folder() -> Path:
    try:
        module = import_module("skimage.data")
    except ImportError as error:
        raise ImportError(
            "The photographs ship with scikit-image, which is not installed: pip install 'spectral-lightning[data]'. "
            "Or pass `folder`, any folder of images."
        ) from error
    # The files, not the functions of skimage.data: those download what they do not find.
    return Path(str(module.__file__)).parent
