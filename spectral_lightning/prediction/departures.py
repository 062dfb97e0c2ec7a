"""Departures of a training from the assumptions that every theory makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.optim import Optimizer

from spectral_lightning.diffusion import Departure
from spectral_lightning.prediction.start import Start
from spectral_lightning.spectra import Basis, FourierBasis

__all__ = ["data_departures", "optimizer_departures", "start_departures"]

_NEGLIGIBLE, _ALIGNED = 1e-4, 0.05


def optimizer_departures(optimizers: Sequence[Optimizer], clipping: float | None = None) -> list[Departure]:
    """Departures from plain gradient descent by one optimizer without clipping.

    Args:
        optimizers: the training's optimizers; empty if unknown.
        clipping: norm or value at which gradients are clipped.
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
    """Departures of the data: a mean that is not negligible, which couples to the weights, and modes that are assumed."""
    found = []
    share = float(basis.mean.square().sum() / basis.spectrum.sum())
    if share > _NEGLIGIBLE:
        text = f"zero mean of the data assumed, squared mean is {share:.2g} of the total variance"
        found.append(Departure(text, affects_clock=False))
    if isinstance(basis.data, FourierBasis):
        text = "stationary data assumed: Fourier modes as eigenmodes of a covariance too large to keep"
        found.append(Departure(text, affects_clock=False))
    return found


def start_departures(start: Start, errors: Mapping[str, float] | None) -> list[Departure]:
    """Departure from weights that are aligned with the modes before training, as the closed solutions assume.

    Args:
        start: what the prediction starts from.
        errors: of :meth:`~spectral_lightning.prediction.Prediction.start_errors`; None without a measurement.
    """
    if start.gain is None or errors is None or not errors["gains"] > _ALIGNED:
        return []
    return [
        Departure(
            "weights aligned with the modes at the start assumed, from which variances before training are off by "
            f"{errors['gains']:.2g} rms log: {start.describe()} used, off by {errors['used']:.2g}",
            affects_clock=False,
        )
    ]
