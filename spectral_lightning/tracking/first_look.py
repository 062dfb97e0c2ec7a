"""Checks the denoiser: can it be measured, and is its convention the right one?"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from spectral_lightning.diffusion import Denoiser, Latents, self_check
from spectral_lightning.spectra import SpectralProbe
from spectral_lightning.tracking.timing.schedule import Schedule

__all__ = ["check", "check_again", "check_gain", "is_due"]

_EXAMPLES = 64
_AGAIN, _FIRST = Schedule(1), 100


def check(
    probe: SpectralProbe, denoiser: Denoiser, device: torch.device, dtype: torch.dtype, condition: Tensor | None
) -> None:
    """Check the denoiser on Gaussian examples with the data's moments; do nothing if a function does the sampling.

    Args:
        probe: basis, sampler and latents.
        denoiser: ``D(z, sigma)``, or ``D(z, sigma, condition)``.
        device: where the network is.
        dtype: of the examples.
        condition: rows ``[n, ...]`` assigned to the latents in turn.

    Raises:
        TypeError: if its output is not a tensor.
        ValueError: if it fails on examples of the data's shape, or its convention is wrong; the message names the likely
            mistake.
    """
    if probe.sampler is None:
        return
    levels = probe.sampler.levels
    count = min(_EXAMPLES, max(2, probe.latents.count // 2 * 2))
    clean = probe.basis.diffuse(Latents(count, probe.basis.dim).rows(0, count), 0.0).to(device, dtype)
    if condition is not None:
        condition = Latents.condition(condition, 0, count).to(device)
    try:
        self_check(denoiser, clean, levels[-1], levels[0], condition, levels)
    except torch.OutOfMemoryError:
        raise  # clear enough without our remedy
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{error} It was called with examples of shape {probe.basis.shape}, that of the data whose spectrum is measured: "
            "pass `data=` or `transform=` if the network sees another shape, `denoiser=` if something else is to be called."
        ) from error


def is_due(last: int, step: int) -> bool:
    """Whether 100, 1000, ... lies in ``(last, step]``."""
    return step >= _FIRST and _AGAIN.due(last, step)


def check_again(look: Callable[[], None], last: int, step: int, first_rank: bool = True, final: bool = False) -> None:
    """Check again at steps 100, 1000, ... and at the end: the output of an untrained network does not reveal a wrong convention.

    A mistake found by then only warns: it affects the measurement, not the training.

    Args:
        look: calls :func:`check`.
        last: step of the last measurement.
        step: step of this one.
        first_rank: whether this process warns.
        final: whether this is the last measurement.
    """
    if not final and not is_due(last, step):
        return
    try:
        look()
    except (TypeError, ValueError) as error:
        if first_rank:
            warnings.warn(
                f"What is measured at step {step} is probably not the model: {error} The training is not affected, but all "
                "variances measured in this run are wrong. Correct `denoiser`, then resume or start again.",
                stacklevel=4,
            )


def check_gain(probe: SpectralProbe, gain: Tensor) -> None:
    """Check the gains before training, ``[level, mode]``.

    Raises:
        ValueError: if they are NaN or infinite at some noise level.
    """
    levels = () if probe.sampler is None else probe.sampler.levels
    for sigma, row in zip(levels, gain, strict=True):
        if not torch.isfinite(row).all():
            raise ValueError(f"`denoiser` must return finite values, got NaN or infinity at sigma = {sigma:g}.")
