"""A look at a model: can it be measured at all, is it read in the right way, and where does it start."""

from __future__ import annotations

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from spectral_lightning.diffusion import self_check
from spectral_lightning.spectra import SpectralProbe
from spectral_lightning.tracking.instrument import Instrument, Subject
from spectral_lightning.tracking.schedule import LogSchedule

__all__ = ["checked", "rechecked", "untrained_gain"]

_EXAMPLES = 32
_RECHECKS, _FIRST_RECHECK = LogSchedule(1), 100


def checked(instrument: Instrument, subject: Subject) -> None:
    """Look at the denoiser on Gaussian examples of the data's moments; nothing where a function samples by itself.

    Raises:
        TypeError: if its output is not a tensor.
        ValueError: if it fails on examples of the data's shape, or is called or read in the wrong way; the message names
            the likely mistake.
    """
    probe = instrument.probe
    if probe.sampler is None:
        return
    levels = probe.sampler.levels
    count = min(_EXAMPLES, probe.latents.count)
    clean = probe.basis.diffuse(probe.latents.rows(0, count), 0.0).to(subject.device, subject.dtype)
    labels = [g for g in instrument.labels if g is not None]
    condition = torch.tensor(labels) if labels else subject.condition
    if condition is not None:
        condition = probe.latents.condition(condition, 0, count).to(subject.device)
    try:
        self_check(subject.denoiser, clean, levels[-1], levels[0], condition, levels)
    except torch.OutOfMemoryError:
        raise  # says all there is to say
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{error} It was called with examples of shape {probe.basis.shape}, the shape of the data the spectrum is of: "
            "pass `data=` or `transform=` if the network sees another one, `denoiser=` if it is not what should be called."
        ) from error


def rechecked(instrument: Instrument, subject: Subject, last: int, step: int) -> None:
    """Look again at step 100, 1000, ...: an untrained network has no convention that a wrong one would differ from.

    What is found by then is said and ends nothing: the training itself is right, whatever it is measured by.

    Args:
        instrument: what measures.
        subject: the model as it is now.
        last: step of the last measurement.
        step: that of this one.
    """
    if step < _FIRST_RECHECK or not _RECHECKS.due(last, step):
        return
    try:
        checked(instrument, subject)
    except (TypeError, ValueError) as error:
        rank_zero_warn(
            f"What is measured at step {step} is probably not the model: {error} The training goes on and is not affected; "
            "the variances so far and from here are those of the wrong reading. Correct `denoiser` and resume or start anew.",
            stacklevel=6,
        )


def untrained_gain(probe: SpectralProbe, sums: Tensor) -> Tensor:
    """Gain of the denoiser before training from this rank's sums, ``[level, mode]``. Every rank has to call it.

    Raises:
        ValueError: if it is NaN or infinite at some noise level.
    """
    gain = probe.gain_of(sums)
    levels = () if probe.sampler is None else probe.sampler.levels
    for sigma, row in zip(levels, gain, strict=True):
        if not torch.isfinite(row).all():
            raise ValueError(f"`denoiser` must return finite values, got NaN or infinity at sigma = {sigma:g}.")
    return gain
