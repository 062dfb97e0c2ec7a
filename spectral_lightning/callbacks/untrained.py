"""The first look at a model: can it be measured at all, and where does it start."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_lightning.callbacks.instrument import Instrument, Subject
from spectral_lightning.diffusion import self_check
from spectral_lightning.spectra import SpectralProbe

__all__ = ["checked", "untrained_gain"]

_EXAMPLES = 32


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
        condition = condition[(torch.arange(count) // 2 % len(condition)).to(condition.device)].to(subject.device)
    try:
        self_check(subject.denoiser, clean, levels[-1], levels[0], condition, levels)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{error} It was called with examples of shape {probe.basis.shape}, the shape of the data the spectrum is of: "
            "pass `data=` or `transform=` if the network sees another one, `denoiser=` if it is not what should be called."
        ) from error


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
