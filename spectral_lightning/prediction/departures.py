"""Where a training departs from what the theory assumes of any training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.optim import Optimizer

from spectral_lightning.diffusion import Departure
from spectral_lightning.spectra import Basis

__all__ = ["data_departures", "optimizer_departures"]

_NEGLIGIBLE = 1e-4


def optimizer_departures(optimizers: Sequence[Optimizer], clipping: float | None = None) -> list[Departure]:
    """Everything but one plain gradient descent without clipping.

    Args:
        optimizers: of the training; none if they are not known.
        clipping: what gradients are clipped at.
    """
    found = []
    if len(optimizers) != 1:
        found.append(Departure(f"one optimizer assumed, {len(optimizers) or 'none known'}"))
    for optimizer in optimizers:
        name, groups = type(optimizer).__name__, optimizer.param_groups
        if type(optimizer) is not torch.optim.SGD:
            found.append(Departure(f"plain gradient descent assumed, {name} used"))
            continue
        for option in ("momentum", "weight_decay", "nesterov"):
            if any(group.get(option) for group in groups):
                found.append(Departure(f"plain gradient descent assumed, SGD with {option} = {groups[0][option]} used"))
        if len({group["lr"] for group in groups}) > 1:
            found.append(Departure("one learning rate assumed, parameter groups with several used"))
    if clipping:
        found.append(Departure(f"unclipped gradients assumed, clipping at {clipping} used"))
    return found


def data_departures(basis: Basis) -> list[Departure]:
    """A mean that couples to the weights."""
    share = float(basis.mean.square().sum() / basis.variance.sum())
    if share <= _NEGLIGIBLE:
        return []
    text = f"zero mean of the data assumed, squared mean is {share:.2g} of the total variance"
    return [Departure(text, affects_clock=False)]
