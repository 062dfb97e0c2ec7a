"""Checks of a denoiser before it is measured; an error names the likely mistake."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from spectral_lightning.diffusion.adapters.bound import BoundDenoiser
from spectral_lightning.diffusion.adapters.readings import best_reading, level_near
from spectral_lightning.diffusion.denoiser import Denoiser

__all__ = ["self_check"]

_HALF = (torch.float16, torch.bfloat16)
_SEED = 790_519  # unlikely to be a seed of the data: noise equal to the data would be easy to remove


def self_check(
    denoiser: Denoiser,
    clean: Tensor,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    condition: Tensor | None = None,
    levels: Sequence[float] | None = None,
) -> None:
    """Refuse a denoiser that is called or interpreted in the wrong way; accept every correct one, trained or not.

    Two properties hold for any weights, and are checked from ``sigma_min`` to ``sigma_max``:

    - the output is a finite tensor of the shape of z, and each example is treated independently of the others;
    - a network that is known to predict anything but x0 has ``D(z, sigma_min) = z + O(sigma_min)``: deviations above
      half of z plus ten times ``sigma_min`` are refused. An x0-prediction, or a callable that may be one, is refused
      only if it returns -z, or returns z at ``sigma_max`` but not at ``sigma_min``.

    Other mistakes show on a trained network only, which denoises in one reading of its sign, target and time. At
    sigma = 0.3, 1 and 3 times the standard deviation of the data, the squared error of D is compared with that of the
    best scalar filter ``mean + g (z - mean)``. If D is worse, and another reading of the network removes more than 15 %
    of the filter's error and half of D's, the error names that reading. Check a resumed model again.

    Draws from its own generator; evaluates the network 3 to 60 times per example.

    Args:
        denoiser: the denoiser; more can be checked of a :class:`BoundDenoiser`.
        clean: clean examples, or Gaussian ones with the data's mean and covariance, ``[B, *S]``; at least 2, and at
            least 16 for the comparison with a scalar filter.
        sigma_min: lowest level; ignored for a :class:`BoundDenoiser`, which has its own.
        sigma_max: highest level; likewise.
        condition: condition of each example, as the denoiser takes it.
        levels: the noise levels of a discrete denoiser; ignored for a :class:`BoundDenoiser`.

    Raises:
        TypeError: if the output is not a tensor.
        ValueError: if a check fails.

    Example:
        >>> self_check(lambda z, sigma: z / (1 + sigma[:, None] ** 2), torch.randn(8, 3))
    """
    if len(clean) < 2:
        raise ValueError(f"`clean` must hold at least two examples, got {len(clean)}.")
    bound = denoiser if isinstance(denoiser, BoundDenoiser) else None
    low, high = (bound.sigma_min, bound.sigma_max) if bound is not None else (sigma_min, sigma_max)
    call = _fixed(denoiser, condition)
    spread = (clean - clean.mean(0)).square().mean().sqrt().item()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(_SEED), dtype=clean.dtype).to(clean.device)
    inner = [min(max(factor * spread, low), high) for factor in (0.3, 1.0, 3.0)]
    middle = [level_near(bound.sigma_grid if bound is not None else levels, sigma) for sigma in inner]
    with torch.no_grad():
        for sigma in (low, middle[1], high):
            _called(call, clean + sigma * noise, sigma)
            _one_by_one(call, denoiser, clean[:4] + sigma * noise[:4], sigma, condition)
        if len(clean) >= 16:
            best_reading(denoiser, clean, noise, middle, condition)
        _at_the_ends(call, bound, clean, noise, low, high)
        _in_range(bound, clean)


def _fixed(denoiser: Callable[..., Any], condition: Tensor | None) -> Denoiser:
    if condition is None:
        return denoiser
    return lambda z, sigma: denoiser(z, sigma, condition[: len(z)])


def _at(denoiser: Denoiser, z: Tensor, sigma: float) -> Tensor:
    return denoiser(z, torch.full((len(z),), sigma, dtype=z.dtype, device=z.device)).to(z.dtype)


def _rms(x: Tensor) -> float:
    return x.double().square().mean().sqrt().item()


def _called(denoiser: Denoiser, z: Tensor, sigma: float) -> None:
    """The denoiser returns a finite tensor of the shape of ``z``."""
    try:
        out: Any = denoiser(z, torch.full((len(z),), sigma, dtype=z.dtype, device=z.device))
    except torch.OutOfMemoryError:
        raise
    except (IndexError, RuntimeError) as error:
        raise ValueError(
            f"The denoiser failed on input of shape {tuple(z.shape)} and {z.dtype} at sigma = {sigma:g}: {error}. If it "
            "takes an index instead of sigma, use an Adapter with time='index'; if it takes (time, x), order='time-x'."
        ) from error
    if not isinstance(out, Tensor):
        raise TypeError(
            f"`denoiser` must return a tensor of shape {tuple(z.shape)}, got {type(out).__name__}. "
            "Many libraries wrap their output: return its `.sample` or its first element."
        )
    if out.shape != z.shape:
        raise ValueError(f"`denoiser` must return the shape of its input, {tuple(z.shape)}, got {tuple(out.shape)}.")
    if not torch.isfinite(out).all():
        raise ValueError(f"`denoiser` must return finite values, got NaN or infinity at sigma = {sigma:g}.")


def _one_by_one(call: Denoiser, denoiser: Any, z: Tensor, sigma: float, condition: Tensor | None) -> None:
    """One example alone gives what it gives in a batch, up to rounding (float32: 1e-6, a sum in bfloat16: 1 %)."""
    together = _at(call, z, sigma)
    alone = torch.cat(
        [
            _at(_fixed(denoiser, None if condition is None else condition[i:]), z[i : i + 1], sigma)
            for i in range(len(z))
        ]
    )
    dtype = denoiser.dtype if isinstance(denoiser, BoundDenoiser) else z.dtype
    tolerance = 5e-2 if dtype in _HALF else 1e-3
    difference = _rms(together - alone) / max(_rms(together), 1e-12)
    if difference > tolerance:
        raise ValueError(
            f"`denoiser` must treat examples independently, but a batch of one and a batch of {len(z)} differ by "
            f"{difference:.1%} at sigma = {sigma:g}. Likely causes: batch normalisation in train mode, dropout, noise "
            "drawn inside the denoiser, or one sigma applied to the whole batch."
        )


def _at_the_ends(
    call: Denoiser, bound: BoundDenoiser | None, clean: Tensor, noise: Tensor, low: float, high: float
) -> None:
    z, far = clean + low * noise, clean + high * noise
    out = _at(call, z, low)
    away = _rms(out - z)
    if bound is not None and bound.near_identity:
        if away > 0.5 * _rms(z) + 10 * low:
            raise ValueError(
                f"D(z, sigma_min) must be close to z, got a deviation of {away:.3g} at sigma = {low:.3g} for z of size "
                f"{_rms(z):.3g}. The output is far larger than its target: check `prediction` and `output_scale`, and "
                "whether the weights have diverged."
            )
        return
    if bound is None and _rms(out + z) < 0.1 * _rms(z):
        raise ValueError("D(z, sigma_min) must be close to z, got -z. The denoiser has the wrong sign.")
    if bound is None and away > 0.5 * _rms(z) and _rms(_at(call, far, high) - far) < 0.1 * _rms(far):
        raise ValueError(
            f"D must return z at low noise and the data's mean at high noise, got z at sigma = {high:g} but not at "
            f"sigma = {low:g}. Reverse the time: 0 and 1 are exchanged between data and noise."
        )


def _in_range(bound: BoundDenoiser | None, clean: Tensor) -> None:
    if bound is None or bound.normalized is None or (bound.adapter.data_scale, bound.adapter.data_shift) != (1, 0):
        return
    low, high = bound.normalized
    if low < 0 <= clean.min().item() and clean.max().item() <= 1:
        warnings.warn(
            f"The data lie in [0, 1], but the network is trained on its normalised range [{low:g}, {high:g}]. Measure data "
            f"as the network sees them (`transform=`), or set data_scale={high - low:g}, data_shift={low:g}.",
            stacklevel=3,
        )
