"""Files of images: found in a folder, measured by their header, and read."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset
from torchvision.transforms.v2 import functional

__all__ = ["image_files", "image_size", "package_folder", "read_image"]


def image_files(root: str | Path, argument: str) -> list[Path]:
    """Image files anywhere below ``root`` (png, jpg, bmp, ppm, pgm, tif, webp), sorted by path; hidden ones are skipped.

    Args:
        root: the folder.
        argument: name of the argument that gave it, for errors.

    Raises:
        ValueError: if there is no such folder, or no image in it.
    """
    folder = Path(root).expanduser().absolute()
    if not folder.is_dir():
        raise ValueError(f"`{argument}` must be an existing folder, got {str(root)!r}.")
    # torchvision lists the files of classes: here of one, the folder itself.
    found = make_dataset(folder.parent, {folder.name: 0}, is_valid_file=_is_image, allow_empty=True)
    if not found:
        raise ValueError(f"`{argument}` must hold images ({', '.join(IMG_EXTENSIONS)}), got {str(root)!r} with none.")
    return sorted(Path(path) for path, _ in found)


def _is_image(path: str) -> bool:
    return path.lower().endswith(IMG_EXTENSIONS) and not Path(path).name.startswith(".")


def package_folder(package: str, project: str) -> Path:
    """Folder of an installed package, which is not imported.

    Raises:
        ImportError: if it is not installed; ``project`` is its name in the package index.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(
            f"These images ship with {project}, which is not installed: pip install 'spectral-lightning[data]'."
        )
    return Path(spec.origin).parent


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


def read_image(path: Path, *, color: bool = False) -> Tensor:
    """Pixels in [0, 1], ``[C, H, W]``: C is 3 in colour; or 1, the luminance (ITU-R 601), in grey.

    Grey images are repeated in all three channels if colour is requested; transparency is ignored.

    Raises:
        ValueError: if the file is not a readable image of 8 or 16 bits a channel.
    """
    try:
        with Image.open(path) as image:
            pixels = _unit_pixels(image, color)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error
    return pixels.expand(3 if color else 1, -1, -1)


def _unit_pixels(image: Image.Image, color: bool) -> Tensor:
    if image.mode in ("I", "F"):
        raise OSError("32 bits a pixel, and which value is white is not known")
    if image.mode.startswith("I;16"):
        return torch.from_numpy(np.asarray(image, dtype=np.float32) / np.float32(65_535))[None]
    pixels: Tensor = functional.pil_to_tensor(image.convert("RGB" if color else "L"))
    return pixels.float().div_(255)


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"Every image must be readable, got {str(path)!r} ({error}). Repair or remove it.")
