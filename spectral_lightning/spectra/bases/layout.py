"""Which axes of an example are pixels and which are channels."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["channels_and_size"]


def channels_and_size(shape: Sequence[int], axes: int | None = None) -> tuple[int, tuple[int, ...]]:
    """Channels and pixels per axis of examples of a shape.

    ``[N]`` is one channel on a line, ``[C, N]`` channels on a line, ``[C, H, W]`` channels of an image. A grey image
    ``[H, W]`` without an axis of channels needs ``axes=2``.

    Args:
        shape: shape of one example.
        axes: number of trailing axes that are pixels, 1 or 2; all but the first by default.

    Raises:
        ValueError: for any other shape.

    Example:
        >>> channels_and_size((3, 8, 8)), channels_and_size((8, 8), axes=2)
        ((3, (8, 8)), (1, (8, 8)))
    """
    pixels = max(len(shape) - 1, 1) if axes is None else axes
    if pixels not in (1, 2) or not 0 <= len(shape) - pixels <= 1:
        raise ValueError(
            f"`shape` must be [N], [C, N] or [C, H, W], or [H, W] with axes=2, got {tuple(shape)} and axes={axes!r}. "
            "Use PCABasis for data without pixels."
        )
    cut = len(shape) - pixels
    return math.prod(shape[:cut]), tuple(int(n) for n in shape[cut:])
