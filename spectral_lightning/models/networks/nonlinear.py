"""What the nonlinear networks share: the family they are compared with, where they leave it, their optional libraries."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from torch import Tensor

from spectral_lightning.arguments import positive_integer
from spectral_lightning.diffusion import Departure
from spectral_lightning.models.module import DiffusionModule
from spectral_lightning.theory import OneLayer

__all__ = ["check_label", "checked_image", "library", "nonlinear_departures", "one_layer"]


def one_layer(module: DiffusionModule) -> OneLayer:
    """The one-layer family under the module's preconditioning and loss weight; no density of noise levels."""
    # The clock is fitted: the rate sets the unit of its factor only, and one of zero has to pass.
    return OneLayer(module.initial_learning_rate() or 1.0, 0.0, module.preconditioning)


def nonlinear_departures(network: str) -> list[Departure]:
    """Where a nonlinear network leaves the one-layer family; ``network`` says which it is, in words."""
    return [
        Departure(f"one linear layer assumed, {network} trained"),
        Departure("weights independent between noise levels assumed, one network shared by all levels trained"),
        Departure("full-batch gradients assumed, mini-batches of noisy samples used", affects_clock=False),
    ]


def check_label(label: Tensor | None, expected: bool) -> None:
    """Raise ``ValueError`` for a label given to a network without classes, or missing for one with them."""
    if (label is not None) != expected:
        raise ValueError("`label` must be given where the network has `num_classes`, and only there.")


def checked_image(shape: Sequence[int] | int) -> tuple[int, int, int]:
    """Channels, height and width.

    Raises:
        ValueError: for anything but three positive integers.
    """
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if len(sizes) != 3:
        raise ValueError(
            f"`shape` must be [channels, height, width], got {shape!r}. Grey images have one channel, [1, height, width]."
        )
    channels, height, width = (positive_integer("shape", n) for n in sizes)
    return channels, height, width


def library(module: str, needed_by: str) -> Any:
    """Import a module of the optional networks; importing one takes seconds, so it waits until a network is built.

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
