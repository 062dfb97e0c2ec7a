"""Does a trained network denoise better if its output, time or input is read in another way?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from spectral_lightning.diffusion.adapters.bound import BoundDenoiser
from spectral_lightning.diffusion.adapters.conventions import PATHS, PREDICTIONS, TIMES
from spectral_lightning.diffusion.adapters.levels import NAMED_SCHEDULES, LevelGrid
from spectral_lightning.diffusion.denoiser import Denoiser

__all__ = ["best_reading", "level_near", "unexplained"]

Reading = tuple[str, Denoiser]


def level_near(levels: Sequence[float] | None, sigma: float) -> float:
    """The level closest to ``sigma``; ``sigma`` itself if there is no grid."""
    return min(levels, key=lambda level: abs(level - sigma)) if levels else sigma


def _own_grid(denoiser: Any) -> Sequence[float] | None:
    return denoiser.sigma_grid if isinstance(denoiser, BoundDenoiser) else None


def unexplained(
    denoiser: Callable[..., Any], clean: Tensor, noise: Tensor, levels: list[float], condition: Tensor | None = None
) -> float:
    """Squared error of D divided by that of the best scalar filter ``mean + g (z - mean)``, averaged over levels.

    The best g leaves ``s^2 sigma^2 / (s^2 + sigma^2)`` per coordinate of data with variance s^2. The ratio is 1 for
    that filter, below 1 for a filter that knows the data's spectrum, and infinite for NaN.
    """
    spread = max((clean - clean.mean(0)).square().mean().item(), 1e-30)
    more = () if condition is None else (condition,)
    ratios = []
    for sigma in (level_near(_own_grid(denoiser), level) for level in levels):
        level = torch.full((len(clean),), sigma, dtype=clean.dtype, device=clean.device)
        error = (denoiser(clean + sigma * noise, level, *more) - clean).square().mean().item()
        ratios.append(error * (1 / spread + 1 / sigma**2))
    mean = sum(ratios) / len(ratios)
    return math.inf if math.isnan(mean) else mean


def best_reading(
    denoiser: Callable[..., Any], clean: Tensor, noise: Tensor, levels: list[float], condition: Tensor | None = None
) -> None:
    """Refuse a denoiser that is worse than a scalar filter if another reading of it is much better.

    Args:
        denoiser: a :class:`BoundDenoiser`, or any denoiser.
        clean: clean examples, ``[B, *S]``.
        noise: standard normal, of the same shape.
        levels: noise levels at which to compare.
        condition: condition of each example.

    Raises:
        ValueError: naming the better reading.
    """
    given = unexplained(denoiser, clean, noise, levels, condition)
    if given <= 1:
        return
    # An index beyond an embedding raises on the CPU; on a GPU it would make the process unusable.
    foreign = clean.device.type == "cpu"
    bound = isinstance(denoiser, BoundDenoiser)
    readings = _of_adapter(denoiser, foreign) if bound else _of_callable(denoiser, foreign)
    best, what = math.inf, ""
    for name, other in readings:
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


def _of_adapter(bound: Any, foreign_times: bool) -> Iterator[Reading]:
    """The network with another sign, direction of time, target, time or input."""
    now = bound.adapter

    def read(**changes: Any) -> Denoiser:
        return BoundDenoiser(replace(now, **changes), bound.module)

    sign, turned = -now.output_scale, not now.reverse_time
    yield f"the target has the wrong sign (output_scale={sign:g})", read(output_scale=sign)
    yield f"the time is reversed (reverse_time={turned})", read(reverse_time=turned)
    both = f"the time is reversed and the target has the wrong sign (reverse_time={turned}, output_scale={sign:g})"
    yield both, read(reverse_time=turned, output_scale=sign)
    for prediction in PREDICTIONS:
        yield f"prediction={prediction!r} instead of {now.prediction!r}", read(prediction=prediction)
    if now.path == "schedule":
        return
    for path in PATHS:
        yield f"path={path!r} instead of {now.path!r}", read(path=path)
    if not foreign_times:
        return
    for time in TIMES:
        for scale in (1.0, 1000.0):
            change = {"time": time, "time_scale": scale, "reverse_time": False}
            yield f"time={time!r} times {scale:g} instead of {now.time!r}", read(**change)
    for schedule in NAMED_SCHEDULES:
        change = {"time": "index", "schedule": schedule, "reverse_time": False}
        yield f"an index instead of {now.time!r} (time='index', schedule={schedule!r})", read(**change)


def _of_callable(denoiser: Callable[..., Any], foreign_times: bool) -> Iterator[Reading]:
    """What a callable may return instead of the data, or take instead of z and sigma."""

    def of_output(combine: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Denoiser:
        def read(z: Tensor, sigma: Tensor, *more: Tensor) -> Tensor:
            s = sigma.reshape(-1, *(1,) * (z.ndim - 1))
            return combine(z, s, denoiser(z, sigma, *more))

        return read

    def scaled(z: Tensor, sigma: Tensor) -> Tensor:
        return z / (1 + sigma.reshape(-1, *(1,) * (z.ndim - 1)) ** 2) ** 0.5

    def index(sigma: Tensor) -> Tensor:
        grid = torch.tensor(LevelGrid.named("linear").sigmas, dtype=sigma.dtype, device=sigma.device)
        return (grid - sigma[:, None]).abs().argmin(1)

    yield "it has the wrong sign (-D)", of_output(lambda z, s, out: -out)
    yield "the target has the wrong sign (2 z - D)", of_output(lambda z, s, out: 2 * z - out)
    yield (
        "the velocity has the wrong sign (2 z/(1 + sigma) - D)",
        of_output(lambda z, s, out: 2 * z / (1 + s) - out),
    )
    yield "v has the wrong sign (2 z/(1 + sigma^2) - D)", of_output(lambda z, s, out: 2 * z / (1 + s**2) - out)
    yield "it returns the noise (z - sigma output)", of_output(lambda z, s, out: z - s * out)
    yield "it returns the noise with the wrong sign (z + sigma output)", of_output(lambda z, s, out: z + s * out)
    yield "it returns v", of_output(lambda z, s, out: z / (1 + s**2) - s / (1 + s**2) ** 0.5 * out)
    yield "it returns the velocity eps - x0", of_output(lambda z, s, out: (z - s * out) / (1 + s))
    yield "it returns the velocity x0 - eps", of_output(lambda z, s, out: (z + s * out) / (1 + s))
    yield "the time is reversed (D(z, 1/sigma))", lambda z, sigma, *more: denoiser(z, 1 / sigma, *more)
    yield (
        "it takes z/sqrt(1 + sigma^2), not z",
        lambda z, sigma, *more: denoiser(scaled(z, sigma), sigma, *more),
    )
    if not foreign_times:
        return
    yield (
        "it takes an index instead of sigma, and z/sqrt(1 + sigma^2)",
        lambda z, sigma, *more: denoiser(scaled(z, sigma), index(sigma), *more),
    )
