"""Checks of a denoiser before it is measured; an error names the likely mistake."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spectral_lightning.diffusion.adapters.bound import BoundDenoiser
from spectral_lightning.diffusion.adapters.conventions import PATHS, PREDICTIONS, TIMES
from spectral_lightning.diffusion.adapters.levels import NAMED_SCHEDULES, LevelGrid
from spectral_lightning.diffusion.denoiser import Denoiser
from spectral_lightning.seeds import numpy_generator

__all__ = ["self_check", "unexplained"]

_HALF = (torch.float16, torch.bfloat16)


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

    Other mistakes show only in a trained network, which denoises under just one reading of its sign, target and time. At
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
    spread = (clean - clean.mean(0)).square().mean().sqrt().item()
    noise = torch.from_numpy(numpy_generator("check").standard_normal(clean.shape)).to(clean)
    inner = [min(max(factor * spread, low), high) for factor in (0.3, 1.0, 3.0)]
    middle = [_nearest(bound.sigma_grid if bound is not None else levels, sigma) for sigma in inner]
    with torch.no_grad():
        for sigma in (low, middle[1], high):
            _called(denoiser, clean + sigma * noise, sigma, condition)
            _one_by_one(denoiser, clean[:4] + sigma * noise[:4], sigma, condition)
        if len(clean) >= 16:
            _best_as_given(denoiser, clean, noise, middle, condition)
        at = partial(_at, denoiser, condition=condition)
        _at_the_ends(at, bound, clean + low * noise, low, clean + high * noise, high)
        _in_range(bound, clean)


def _nearest(levels: Sequence[float] | None, sigma: float) -> float:
    """The level closest to ``sigma``; ``sigma`` itself if there is no grid."""
    return min(levels, key=lambda level: abs(level - sigma)) if levels else sigma


def _at(denoiser: Callable[..., Any], z: Tensor, sigma: float, condition: Tensor | None) -> Any:
    """The denoiser's output at one level, under the first conditions."""
    level = torch.full((len(z),), sigma, dtype=z.dtype, device=z.device)
    return denoiser(z, level) if condition is None else denoiser(z, level, condition[: len(z)])


def _rms(x: Tensor) -> float:
    return x.double().square().mean().sqrt().item()


def _called(denoiser: Denoiser, z: Tensor, sigma: float, condition: Tensor | None) -> None:
    """The denoiser returns a finite tensor of the shape of ``z``."""
    try:
        out = _at(denoiser, z, sigma, condition)
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, IndexError, RuntimeError, TypeError) as error:
        if isinstance(error, TypeError) and "argument" not in str(error):
            raise  # already explains itself
        raise ValueError(
            f"The denoiser failed on input of shape {tuple(z.shape)} and {z.dtype} at sigma = {sigma:g}: {error}. If it "
            "takes an index instead of sigma, use an Adapter with time='index'; if it takes (time, x), order='time-x'; if "
            "it takes two arguments only, self_conditioning='off'. Times and "
            "noise levels are at least float32: cast them in `forward` if the network is in half precision."
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


def _one_by_one(denoiser: Any, z: Tensor, sigma: float, condition: Tensor | None) -> None:
    """An example gives the same result alone as in a batch, up to rounding (float32: 1e-6, a sum in bfloat16: 1 %)."""
    together = _at(denoiser, z, sigma, condition).to(z.dtype)
    own = [None if condition is None else condition[i:] for i in range(len(z))]
    alone = torch.cat([_at(denoiser, z[i : i + 1], sigma, own[i]).to(z.dtype) for i in range(len(z))])
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
    at: Callable[..., Tensor], bound: BoundDenoiser | None, z: Tensor, low: float, far: Tensor, high: float
) -> None:
    out = at(z, low).to(z.dtype)
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
    if bound is None and away > 0.5 * _rms(z) and _rms(at(far, high).to(far.dtype) - far) < 0.1 * _rms(far):
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


def unexplained(
    denoiser: Callable[..., Any], clean: Tensor, noise: Tensor, levels: list[float], condition: Tensor | None = None
) -> float:
    """Squared error of D divided by that of the best scalar filter ``mean + g (z - mean)``, averaged over levels.

    The best g leaves ``s^2 sigma^2 / (s^2 + sigma^2)`` per coordinate of data with variance s^2. The ratio is 1 for
    that filter, below 1 for a filter that knows the data's spectrum, and infinite for NaN.
    """
    spread = max((clean - clean.mean(0)).square().mean().item(), 1e-30)
    grid = denoiser.sigma_grid if isinstance(denoiser, BoundDenoiser) else None
    ratios = []
    for sigma in (_nearest(grid, level) for level in levels):
        error = (_at(denoiser, clean + sigma * noise, sigma, condition) - clean).square().mean().item()
        ratios.append(error * (1 / spread + 1 / sigma**2))
    mean = sum(ratios) / len(ratios)
    return math.inf if math.isnan(mean) else mean


def _best_as_given(
    denoiser: Callable[..., Any], clean: Tensor, noise: Tensor, levels: list[float], condition: Tensor | None = None
) -> None:
    """Refuse a denoiser that is worse than a scalar filter if another reading of it is much better."""
    given = unexplained(denoiser, clean, noise, levels, condition)
    if given <= 1:
        return
    # An index beyond an embedding's size raises on the CPU; on a GPU it would make the process unusable.
    foreign = clean.device.type == "cpu"
    of = _of_adapter if isinstance(denoiser, BoundDenoiser) else _of_callable
    best, what = math.inf, ""
    for name, other in of(denoiser, foreign):
        try:
            fit = unexplained(other, clean, noise, levels, condition)
        except Exception:
            continue  # a network that refuses a time was not trained on it
        if fit < best:
            best, what = fit, name
    # Sampling error: the mean square of n numbers scatters by sqrt(2 / n).
    better = 1 - max(0.15, 4 * (2 / clean.numel()) ** 0.5)
    if best < min(better, 0.5 * given):
        raise ValueError(
            f"The denoiser does not denoise, but another reading of the same network does: {what}. Its squared error is "
            f"{given:.2f} times that of the best scalar filter as given, and {best:.2f} times in that reading."
        )


def _of_adapter(bound: Any, foreign_times: bool) -> Iterator[tuple[str, Denoiser]]:
    """The network with another sign, direction of time, target, time or input."""
    now = bound.adapter
    sign, turned = -now.output_scale, not now.reverse_time
    changes: dict[str, dict[str, Any]] = {
        f"the target has the wrong sign (output_scale={sign:g})": {"output_scale": sign},
        f"the time is reversed (reverse_time={turned})": {"reverse_time": turned},
        f"the time is reversed and the target has the wrong sign (reverse_time={turned}, output_scale={sign:g})": {
            "reverse_time": turned,
            "output_scale": sign,
        },
    }
    for prediction in PREDICTIONS:
        changes[f"prediction={prediction!r} instead of {now.prediction!r}"] = {"prediction": prediction}
    if now.path != "schedule":
        for path in PATHS:
            changes[f"path={path!r} instead of {now.path!r}"] = {"path": path}
    if now.path != "schedule" and foreign_times:
        forwards = {"reverse_time": False}
        for time in TIMES:
            for scale in (1.0, 1000.0):
                name = f"time={time!r} times {scale:g} instead of {now.time!r}"
                changes[name] = {"time": time, "time_scale": scale, **forwards}
        for schedule in NAMED_SCHEDULES:
            name = f"an index instead of {now.time!r} (time='index', schedule={schedule!r})"
            changes[name] = {"time": "index", "schedule": schedule, **forwards}
    for name, change in changes.items():
        yield name, BoundDenoiser(replace(now, **change), bound.module)


_OUTPUTS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "it has the wrong sign (-D)": lambda z, s, out: -out,
    "the target has the wrong sign (2 z - D)": lambda z, s, out: 2 * z - out,
    "the velocity has the wrong sign (2 z/(1 + sigma) - D)": lambda z, s, out: 2 * z / (1 + s) - out,
    "v has the wrong sign (2 z/(1 + sigma^2) - D)": lambda z, s, out: 2 * z / (1 + s**2) - out,
    "it returns the noise (z - sigma output)": lambda z, s, out: z - s * out,
    "it returns the noise with the wrong sign (z + sigma output)": lambda z, s, out: z + s * out,
    "it returns v": lambda z, s, out: z / (1 + s**2) - s / (1 + s**2) ** 0.5 * out,
    "it returns the velocity eps - x0": lambda z, s, out: (z - s * out) / (1 + s),
    "it returns the velocity x0 - eps": lambda z, s, out: (z + s * out) / (1 + s),
}
"""The data, from what a callable may return instead."""


def _of_callable(denoiser: Callable[..., Any], foreign_times: bool) -> Iterator[tuple[str, Denoiser]]:
    """What a callable may return instead of the data, or take instead of z and sigma."""

    def wide(sigma: Tensor, z: Tensor) -> Tensor:
        return sigma.reshape(-1, *(1,) * (z.ndim - 1))

    def scaled(z: Tensor, sigma: Tensor) -> Tensor:
        return z / (1 + wide(sigma, z) ** 2) ** 0.5

    def index(sigma: Tensor) -> Tensor:
        grid = torch.tensor(LevelGrid.named("linear").sigmas, dtype=sigma.dtype, device=sigma.device)
        return (grid - sigma[:, None]).abs().argmin(1)

    for name, data in _OUTPUTS.items():
        yield name, lambda z, sigma, *more, data=data: data(z, wide(sigma, z), denoiser(z, sigma, *more))
    yield "the time is reversed (D(z, 1/sigma))", lambda z, sigma, *more: denoiser(z, 1 / sigma, *more)
    yield "it takes z/sqrt(1 + sigma^2), not z", lambda z, sigma, *more: denoiser(scaled(z, sigma), sigma, *more)
    if foreign_times:
        yield (
            "it takes an index instead of sigma, and z/sqrt(1 + sigma^2)",
            lambda z, sigma, *more: denoiser(scaled(z, sigma), index(sigma), *more),
        )
