"""Tables of what published networks predict, at which time, from which input.

A network F trained on ``x_t = a x0 + s eps`` works at the noise level ``sigma = s / a`` and takes ``a z`` with
``z = x0 + sigma eps``. Every convention has the form ``D(z, sigma) = skip z + out F(a z, time(sigma))``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from spectral_lightning.theory import Preconditioning

__all__ = ["PATHS", "PREDICTIONS", "PRESETS", "TIMES", "Coefficients"]

Coefficients = Callable[[Any, Any, float], tuple[Any, Any]]
"""``(sigma, a, sigma_data) -> (skip, out)``."""


def _edm(sigma: Any, a: Any, sigma_data: float) -> tuple[Any, Any]:
    edm = Preconditioning("edm", sigma_data)
    return edm.c_skip(sigma), edm.c_out(sigma)


PREDICTIONS: Mapping[str, Coefficients] = {
    "epsilon": lambda sigma, a, _: (1, -sigma),
    "x0": lambda sigma, a, _: (0, 1),
    "v": lambda sigma, a, _: (1 / (1 + sigma**2), -sigma / (a * (1 + sigma**2))),
    "eps-x0": lambda sigma, a, _: (1 / (1 + sigma), -sigma / (1 + sigma)),
    "x0-eps": lambda sigma, a, _: (1 / (1 + sigma), sigma / (1 + sigma)),
    "score": lambda sigma, a, _: (1, a * sigma**2),
    "edm": _edm,
}
"""``(skip, out)`` by target: the noise, the data, ``v = a eps - s x0``, either velocity of the straight path, the score
``grad log p(x_t) = -eps / s``, EDM's F."""

PATHS: Mapping[str, Callable[[Any, float], Any]] = {
    "variance-preserving": lambda sigma, _: 1 / (1 + sigma**2) ** 0.5,
    "variance-exploding": lambda sigma, _: sigma * 0 + 1,
    "linear": lambda sigma, _: 1 / (1 + sigma),
    "edm": lambda sigma, sigma_data: 1 / (sigma**2 + sigma_data**2) ** 0.5,
}
"""``a`` as a function of ``(sigma, sigma_data)``: a^2 + s^2 = 1, a = 1, a + s = 1, EDM's c_in."""

TIMES: Mapping[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "sigma": (lambda sigma: sigma * 1, lambda t: 1 / t),
    "log-sigma/4": (lambda sigma: torch.log(sigma) / 4, lambda t: -t),
    "log-snr": (lambda sigma: -2 * torch.log(sigma), lambda t: -t),
    "noise-share": (lambda sigma: sigma / (1 + sigma), lambda t: 1 - t),
    "data-share": (lambda sigma: 1 / (1 + sigma), lambda t: 1 - t),
}
"""The network's time as a function of sigma, and the map that reverses the direction of time."""

_DIFFUSERS: Mapping[str, Any] = {"network": "unet", "schedule": "noise_scheduler", "time": "index", "output": "sample"}
_DDPM: Mapping[str, Any] = {
    "network": "diffusion.model",
    "schedule": "diffusion",
    "time": "index",
    "self_conditioning": "none",
}
_FLOW: Mapping[str, Any] = {"network": "net", "prediction": "x0-eps", "time": "data-share", "path": "linear"}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "affine": {},
    "edm": {"network": "net", "prediction": "x0", "time": "sigma", "path": "variance-exploding"},
    "edm-backbone": {"network": "net", "prediction": "edm", "time": "log-sigma/4", "path": "edm"},
    "diffusers-epsilon": {**_DIFFUSERS, "prediction": "epsilon"},
    "diffusers-v": {**_DIFFUSERS, "prediction": "v"},
    "diffusers-sample": {**_DIFFUSERS, "prediction": "x0"},
    "diffusers-flow-match": {
        "network": "transformer",
        "prediction": "eps-x0",
        "time": "noise-share",
        "time_scale": 1000.0,
        "path": "linear",
        "output": "sample",
    },
    "ddpm-epsilon": {**_DDPM, "prediction": "epsilon"},
    "ddpm-x0": {**_DDPM, "prediction": "x0"},
    "ddpm-v": {**_DDPM, "prediction": "v"},
    "log-snr": {"network": "model", "prediction": "epsilon", "time": "log-snr"},
    "flow-matching": {**_FLOW, "order": "time-x"},
    "flow-matching-xt": _FLOW,
    "posterior": {
        "network": "denoiser",
        "schedule": "denoiser.schedule",
        "prediction": "x0",
        "time": "schedule",
        "path": "schedule",
        "output": "mean",
    },
    "latent-diffusion": {
        "network": "apply_model",
        "schedule": "",
        "prediction": "epsilon",
        "time": "index",
        "condition": "cond",
        "extra": {"cond": None},
    },
}
"""The fields of :class:`~spectral_lightning.diffusion.Adapter` that each named convention sets."""
