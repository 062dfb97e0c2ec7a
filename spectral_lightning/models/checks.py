"""Checks shared by the networks: shapes, labels, and the optional libraries they are built from."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from torch import Tensor

from spectral_lightning.arguments import positive_integer

__all__ = ["check_label", "checked_image", "checked_shape", "library"]


def check_label(label: Tensor | None, expected: bool) -> None:
    """Raise ``ValueError`` for a label given to a network without classes, or missing for one with them."""
    if (label is not None) != expected:
        raise ValueError("`label` must be given exactly if the network has `num_classes`.")


def checked_shape(shape: Sequence[int] | int) -> tuple[int, ...]:
    """The shape of one example as a tuple, where a number d means ``[d]``; ``ValueError`` unless all are positive.

    Example:
        >>> checked_shape(64), checked_shape([3, 8, 8])
        ((64,), (3, 8, 8))
    """
    sizes = [shape] if isinstance(shape, int) else list(shape)
    if not sizes:
        raise ValueError(f"`shape` must hold at least one size, got {shape!r}.")
    return tuple(positive_integer("shape", n) for n in sizes)


def checked_image(shape: Sequence[int] | int) -> tuple[int, int, int]:
    """Channels, height and width.

    Raises:
        ValueError: for anything but three positive integers.
    """
    sizes = checked_shape(shape)
    if len(sizes) != 3:
        raise ValueError(
            f"`shape` must be [channels, height, width], got {shape!r}. Grey images have one channel, [1, height, width]."
        )
    return sizes[0], sizes[1], sizes[2]


def library(module: str, needed_by: str) -> Any:
    """Import an optional library. Called only when a network is built, because the import takes seconds.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{needed_by} is built from {module.partition('.')[0]}, which cannot be imported: "
            "pip install 'spectral-lightning[networks]'."
        ) from error
