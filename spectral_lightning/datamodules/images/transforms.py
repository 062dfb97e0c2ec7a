"""From stored pixels to the network's: size and channels, then scale."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

__all__ = ["Framing", "PixelScale", "channel_moments", "mirrored"]

# ITU-R 601, as Pillow and torchvision weigh the channels.
_LUMINANCE = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Framing:
    """Luminance where it is asked for, then the largest centred box of the aspect wanted, then an antialiased resize.

    The resize is bilinear with the filter widened to the reduction: what Pillow does, in float32 and without rounding to
    bytes. The box is cut to whole pixels.

    Args:
        size: height and width in pixels; None to keep those of the image.
        gray: whether three channels become their luminance, ``0.299 R + 0.587 G + 0.114 B``.

    Example:
        >>> Framing((2, 2))(torch.zeros(3, 4, 8)).shape
        torch.Size([3, 2, 2])
    """

    size: tuple[int, int] | None = None
    gray: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Images ``[..., C, h, w]`` in [0, 1] as ``[..., C', H, W]`` in [0, 1]."""
        if self.gray and images.shape[-3] == 3:
            weights = images.new_tensor(_LUMINANCE).view(3, 1, 1)
            images = (images * weights).sum(-3, keepdim=True)
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
    """

    mean: Tensor
    std: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Scale images ``[..., C, H, W]`` in place."""
        mean, std = (v.to(images.dtype).view(-1, 1, 1) for v in (self.mean, self.std))
        return images.sub_(mean).div_(std)


def channel_moments(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (1/n) of each channel over all pixels, ``[C]``, float64, in one pass.

    Args:
        parts: images ``[B, C, H, W]``, a part of the set each.

    Raises:
        ValueError: for no parts at all.

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
        raise ValueError("`parts` must hold at least one image, got none.")
    return mean, (squares / count).sqrt()


def mirrored(images: Tensor) -> Tensor:
    """Each image ``[B, C, H, W]`` as it is or left-right mirrored, by a fair coin of the run's own random state."""
    # Drawn on the CPU wherever the images are, so that every cache gives the same batches.
    heads = (torch.rand(len(images)) < 0.5).to(images.device, non_blocking=True)
    return torch.where(heads.view(-1, 1, 1, 1), images.flip(-1), images)
