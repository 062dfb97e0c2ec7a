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

__all__ = ["CONVENTIONS", "LEVELS", "PATHS", "PREDICTIONS", "TIMES", "Coefficients"]

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

LEVELS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sigma": lambda t: t,
    "log-sigma/4": lambda t: torch.exp(4 * t),
    "log-snr": lambda t: torch.exp(-t / 2),
    "noise-share": lambda t: t / (1 - t),
    "data-share": lambda t: (1 - t) / t,
}
"""Sigma as a function of the network's time."""


def _preset(
    network: str, prediction: str, time: str, path: str = "variance-preserving", **more: Any
) -> Mapping[str, Any]:
    return {"network": network, "prediction": prediction, "time": time, "path": path, **more}


_DIFFUSERS: Mapping[str, Any] = {"schedule": "noise_scheduler", "output": "sample"}
_DDPM: Mapping[str, Any] = {"schedule": "diffusion", "self_conditioning": "none"}

CONVENTIONS: Mapping[str, Mapping[str, Any]] = {
    "affine": {},
    "edm": _preset("net", "x0", "sigma", "variance-exploding"),
    "edm-backbone": _preset("net", "edm", "log-sigma/4", "edm"),
    "diffusers-epsilon": _preset("unet", "epsilon", "index", **_DIFFUSERS),
    "diffusers-v": _preset("unet", "v", "index", **_DIFFUSERS),
    "diffusers-sample": _preset("unet", "x0", "index", **_DIFFUSERS),
    "diffusers-flow-match": _preset(
        "transformer", "eps-x0", "noise-share", "linear", time_scale=1000.0, output="sample"
    ),
    "ddpm-epsilon": _preset("diffusion.model", "epsilon", "index", **_DDPM),
    "ddpm-x0": _preset("diffusion.model", "x0", "index", **_DDPM),
    "ddpm-v": _preset("diffusion.model", "v", "index", **_DDPM),
    "log-snr": _preset("model", "epsilon", "log-snr"),
    "flow-matching": _preset("net", "x0-eps", "data-share", "linear", order="time-x"),
    "flow-matching-xt": _preset("net", "x0-eps", "data-share", "linear"),
    "posterior": _preset("denoiser", "x0", "schedule", "schedule", schedule="denoiser.schedule", output="mean"),
    "latent-diffusion": _preset("apply_model", "epsilon", "index", schedule="", condition="cond", extra={"cond": None}),
}
"""The fields of :class:`~spectral_lightning.diffusion.Adapter` that each named convention sets."""
