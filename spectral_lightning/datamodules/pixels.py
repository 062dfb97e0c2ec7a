"""Finds images in a folder, reads their pixels, and brings them to one size and the network's scale."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset
from torchvision.transforms.v2 import functional

__all__ = ["Framing", "PixelScale", "image_files", "image_size", "package_folder", "read_image"]


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
    # torchvision lists files by class; the folder itself serves as the only class.
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


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"Every image must be readable, got {str(path)!r} ({error}). Repair or remove it.") from error


def image_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels, from the header alone.

    Raises:
        ValueError: if the file is not a readable image.
    """
    with _opened(path) as image:
        return image.height, image.width


def read_image(path: Path, *, color: bool = False) -> Tensor:
    """Pixels in [0, 1], ``[C, H, W]``: C is 3 in colour; or 1, the luminance (ITU-R 601), in grey.

    Grey images are repeated in all three channels if colour is requested; transparency is ignored.

    Raises:
        ValueError: if the file is not a readable image of 8 or 16 bits a channel.
    """
    with _opened(path) as image:
        return _unit_pixels(image, color).expand(3 if color else 1, -1, -1)


def _unit_pixels(image: Image.Image, color: bool) -> Tensor:
    if image.mode in ("I", "F"):
        raise OSError("32 bits per pixel, with an unknown white level")
    if image.mode.startswith("I;16"):
        return torch.from_numpy(np.asarray(image, dtype=np.float32) / np.float32(65_535))[None]
    pixels: Tensor = functional.pil_to_tensor(image.convert("RGB" if color else "L"))
    return pixels.float().div_(255)


@dataclass(frozen=True)
class Framing:
    """Luminance if requested, then the largest centred box of the requested aspect, then an antialiased resize.

    The resize is bilinear with the filter widened to the reduction, as in Pillow, but in float32 and without rounding to
    bytes. The box is cut to whole pixels.

    Args:
        size: height and width in pixels; None to keep those of the image.
        gray: whether three channels become their luminance, ``0.2989 R + 0.587 G + 0.114 B``.

    Example:
        >>> Framing((2, 2))(torch.zeros(3, 4, 8)).shape
        torch.Size([3, 2, 2])
    """

    size: tuple[int, int] | None = None
    gray: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Images ``[..., C, h, w]`` in [0, 1] as ``[..., C', H, W]`` in [0, 1]."""
        if self.gray:
            images = functional.rgb_to_grayscale(images)
        if self.size is None or tuple(images.shape[-2:]) == self.size:
            return images
        scale = min(have / want for have, want in zip(images.shape[-2:], self.size, strict=True))
        box: Tensor = functional.center_crop(images, [max(round(scale * side), 1) for side in self.size])
        resized: Tensor = functional.resize(box, list(self.size), antialias=True)
        # Rounding may leave the range by one part in 10^7.
        return resized.clamp_(0, 1)


@dataclass(frozen=True, eq=False)
class PixelScale:
    """``(x - mean_c) / std_c`` for each channel c.

    Args:
        mean: ``[C]``, float64.
        std: ``[C]``, float64.

    Example:
        >>> PixelScale.constant(1, mean=0.5, std=0.5)(torch.tensor([[[0.0, 1.0]]])).tolist()
        [[[-1.0, 1.0]]]
    """

    mean: Tensor
    std: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Scale images ``[..., C, H, W]`` in place."""
        mean, std = (v.to(images.dtype).view(-1, 1, 1) for v in (self.mean, self.std))
        return images.sub_(mean).div_(std)

    @classmethod
    def constant(cls, channels: int, mean: float = 0.0, std: float = 1.0) -> PixelScale:
        """The same scale for every channel; without numbers it changes nothing."""
        return cls(*(torch.full((channels,), value, dtype=torch.float64) for value in (mean, std)))

    @classmethod
    def standard(cls, parts: Iterable[Tensor]) -> PixelScale:
        """The scale that gives all pixels of each channel mean 0 and standard deviation (1/n) 1, in one pass.

        Args:
            parts: images ``[B, C, H, W]``, each a part of the set.

        Raises:
            ValueError: for no images, or a constant channel.

        Reference: Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", equation 2.1: the parts are
        merged by their own means, which avoids cancellation.
        """
        count = 0
        mean = squares = torch.zeros((), dtype=torch.float64)
        for part in parts:
            pixels = part.transpose(0, 1).flatten(1).double()
            n, own = pixels.shape[1], pixels.mean(1)
            deviation = (pixels - own[:, None]).square().sum(1)
            delta = own - mean
            squares = squares + deviation + delta.square() * (count * n / (count + n))
            mean = mean + delta * (n / (count + n))
            count += n
        if not count:
            raise ValueError("The training set must hold at least one image, got none.")
        std = (squares / count).sqrt()
        # Rounding leaves about 1e-17 of a constant.
        if not (std > 1e-12).all():
            raise ValueError(
                "Images must vary in every channel to be standardised, got a constant channel. Choose another normalisation."
            )
        return cls(mean, std)
