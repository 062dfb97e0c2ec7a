"""From stored pixels to the network's: size and channels, then scale."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

__all__ = ["Framing", "PixelScale"]


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
            parts: images ``[B, C, H, W]``, a part of the set each.

        Raises:
            ValueError: for no images, or a channel of one brightness.

        Reference: Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", equation 2.1: the parts are
        merged by their own means, so that no digits cancel.
        """
        count = 0
        mean = squares = torch.zeros(0, dtype=torch.float64)
        for part in parts:
            pixels = part.transpose(0, 1).flatten(1).double()
            n, own = pixels.shape[1], pixels.mean(1)
            deviation = (pixels - own[:, None]).square().sum(1)
            if not count:
                count, mean, squares = n, own, deviation
                continue
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
                "Images must vary in every channel to be standardised, got a channel of one brightness. Scale them otherwise."
            )
        return cls(mean, std)
