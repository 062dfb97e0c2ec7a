"""Which denoiser of a module is measured."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from spectral_lightning.diffusion.adapters.adapter import Adapter, object_at
from spectral_lightning.diffusion.adapters.bound import BoundDenoiser
from spectral_lightning.diffusion.adapters.conventions import PRESETS
from spectral_lightning.diffusion.denoiser import Denoiser, SupportsDenoise

__all__ = ["resolve_denoiser"]


def resolve_denoiser(module: nn.Module, denoiser: Denoiser | Adapter | str | None = None) -> tuple[Denoiser, str]:
    """The denoiser of ``module`` and one line on where it comes from.

    In this order:

    1. ``denoiser``, if given: an :class:`Adapter`; the name of a convention, optionally with the attribute path of the
       network, ``"diffusers-v"`` or ``"diffusers-v:model.unet"``; a callable ``f(z, sigma)``; or the import path
       ``"package.module:name"`` of an adapter or of a function, which is called as ``f(module, z, sigma)``.
    2. ``module.denoise(z, sigma)``.

    Raises:
        TypeError: if there is none.
        ValueError: if nothing has the name.

    Example:
        >>> resolve_denoiser(nn.Identity(), lambda z, sigma: z)[1]
        'the callable <lambda>(z, sigma)'
    """
    if isinstance(denoiser, str):
        return _named(module, denoiser)
    if isinstance(denoiser, Adapter):
        denoiser = BoundDenoiser(denoiser, module)
    if isinstance(denoiser, BoundDenoiser):
        return denoiser, denoiser.describe()
    if callable(denoiser):
        name = getattr(denoiser, "__name__", type(denoiser).__name__)
        return denoiser, f"the callable {name}(z, sigma)"
    if denoiser is None and isinstance(module, SupportsDenoise):
        return module.denoise, f"{type(module).__name__}.denoise(z, sigma)"
    raise TypeError(_ways(module, denoiser))


def _named(module: nn.Module, name: str) -> tuple[Denoiser, str]:
    convention, _, network = name.partition(":")
    if convention in PRESETS:
        return resolve_denoiser(module, Adapter(convention, network or None))
    if "." not in name and ":" not in name:
        raise ValueError(
            f"`denoiser` must be one of {', '.join(PRESETS)}, or importable as 'package.module:function', got {name!r}."
        )
    found = object_at(name, "denoiser")
    if isinstance(found, Adapter):
        return resolve_denoiser(module, found)
    if not callable(found):
        raise ValueError(
            f"`denoiser` must name a function f(module, z, sigma), got {name!r}, a {type(found).__name__}."
        )

    return partial(found, module), f"{name}(module, z, sigma)"


def _ways(module: nn.Module, denoiser: Any) -> str:
    problem = (
        f"{type(module).__name__} offers no `denoise(z, sigma)`."
        if denoiser is None
        else f"`denoiser` must be a callable, an Adapter or a name, got {type(denoiser).__name__}."
    )
    return (
        f"{problem} Give the module a method `denoise(z, sigma)` that predicts the clean data from z = x0 + sigma eps, "
        "z [B, *S], sigma [B]; or pass `denoiser=`: such a callable, the import path of a function (module, z, sigma), "
        "an Adapter, or the name of a convention with the attribute path of the network, such as "
        f"'diffusers-epsilon:unet' ({', '.join(PRESETS)})."
    )
