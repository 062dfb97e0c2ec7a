"""Calls a network in its own convention as ``D(z, sigma)``, and decides which denoiser of a module is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spectral_lightning.diffusion.adapters.adapter import Adapter, attribute_at, object_at
from spectral_lightning.diffusion.adapters.conventions import CONVENTIONS, LEVELS, PATHS, PREDICTIONS, TIMES
from spectral_lightning.diffusion.adapters.levels import NAMED_SCHEDULES, LevelGrid, ScheduleTime
from spectral_lightning.diffusion.denoiser import Denoiser, SupportsDenoise
from spectral_lightning.sampling import Sampler

__all__ = ["BoundDenoiser", "resolve_denoiser"]

_SIGMA_MIN, _SIGMA_MAX = 0.002, 80.0


class BoundDenoiser:
    """``D(z, sigma)``, and ``D(z, sigma, condition)``, of a network on a module.

    The network gets copies of its input, time and condition in its own dtype; levels, factors and the result have the
    dtype of ``z``. Modes, gradients and autocast are up to the caller, see
    :func:`~spectral_lightning.diffusion.undisturbed`.

    Args:
        adapter: how the network is called and what it returns.
        module: holds the network and its schedule; neither is changed.

    Attributes:
        network: the object that is called.
        levels: the grid of a network that takes an index, or the time of a schedule.
        sigma_min: lowest noise level.
        sigma_max: highest noise level.

    Raises:
        ValueError: if the network or the schedule is not found.

    Example:
        >>> module = nn.Module()
        >>> module.net = nn.Linear(3, 3)
        >>> BoundDenoiser(Adapter("affine", "net", prediction="epsilon", time="sigma"), module).describe()
        'affine: net(x, time) predicts epsilon, time sigma, path variance-preserving, sigma 0.002 to 80'
    """

    def __init__(self, adapter: Adapter, module: nn.Module) -> None:
        self.adapter, self.module = adapter, module
        self.network, self.levels = adapter.network_of(module), adapter.levels_of(module)
        low, high, scale = adapter.sigma_min or _SIGMA_MIN, adapter.sigma_max or _SIGMA_MAX, adapter.data_scale
        if isinstance(self.levels, LevelGrid):
            low, high = self.levels.sigmas[0] / scale, self.levels.sigmas[-1] / scale
        elif self.levels is not None:
            low, high = max(low, self.levels.sigma_min / scale), min(high, self.levels.sigma_max / scale)
        self.sigma_min, self.sigma_max = low, high
        self._by_index: Tensor | None = None

    @property
    def sigma_grid(self) -> tuple[float, ...] | None:
        """The noise levels of a discrete network, ascending; None if it takes every level of its range."""
        if not isinstance(self.levels, LevelGrid):
            return None
        return tuple(s / self.adapter.data_scale for s in self.levels.sigmas)

    @property
    def dtype(self) -> torch.dtype | None:
        """Floating type of the network's parameters; None without any."""
        source = self.network if isinstance(self.network, nn.Module) else self.module
        return next((p.dtype for p in source.parameters() if p.is_floating_point()), None)

    @property
    def near_identity(self) -> bool:
        """Whether ``D(z, sigma_min)`` is close to z for any weights, which holds unless the network predicts x0."""
        return self.adapter.prediction != "x0"

    @property
    def normalized(self) -> tuple[float, float] | None:
        """Images of 0 and 1 under the ``normalize`` of a GaussianDiffusion object; None if it leaves data as they are."""
        path = self.adapter.schedule
        if not self.adapter.convention.startswith("ddpm") or not isinstance(path, str) or path in NAMED_SCHEDULES:
            return None
        normalize = getattr(attribute_at(self.module, path, "schedule"), "normalize", None)
        if not callable(normalize):
            return None
        low, high = normalize(torch.tensor([0.0, 1.0])).tolist()
        return None if (low, high) == (0.0, 1.0) else (low, high)

    def sampler(self, wanted: Sampler) -> Sampler:
        """The sampler closest to ``wanted`` on the levels of this denoiser: from its highest level, on a discrete grid.

        Raises:
            ValueError: for more levels than the grid has.
        """
        ranged = replace(wanted, sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        levels, scale = [s for s in ranged.sigmas if s > 0], self.adapter.data_scale
        if isinstance(self.levels, LevelGrid):
            levels = [s / scale for s in self.levels.closest([s * scale for s in levels])]
        elif levels[-1] < self.sigma_min:
            levels = [*(s for s in levels if s > self.sigma_min), self.sigma_min]
        else:
            return ranged
        return replace(ranged, grid=(*levels, 0.0) if ranged.sigmas[-1] == 0 else tuple(levels))

    def describe(self) -> str:
        """One line: convention, network, prediction, time, levels."""
        a = self.adapter
        call = "(time, x)" if a.order == "time-x" else "(x, time)"
        sign = "" if a.output_scale == 1 else f" times {1 / a.output_scale:g}"
        time = f"{a.time}{' reversed' if a.reverse_time else ''}"
        time += f" times {a.time_scale:g}" if a.time_scale != 1 else ""
        grid = self.sigma_grid
        levels = f"sigma {self.sigma_min:.4g} to {self.sigma_max:.4g}" + (f", {len(grid)} levels" if grid else "")
        line = f"{a.convention}: {a.network or 'module'}{call} predicts {a.prediction}{sign}, time {time}, "
        line += f"path {a.path}, {levels}"
        if (a.data_scale, a.data_shift) != (1, 0):
            return f"{line}; the network sees {a.data_scale:g} x {a.data_shift:+g}"
        if self.normalized is not None:
            return f"{line}; data in [0, 1] are normalised to [{self.normalized[0]:g}, {self.normalized[1]:g}]"
        return line

    def __call__(self, z: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """Predict the clean data.

        Args:
            z: ``x0 + sigma eps``, ``[B, *S]``.
            sigma: noise levels, ``[B]``, within the range or on the grid.
            condition: one row per example, ``[B, ...]``, as the network expects it.

        Returns:
            ``[B, *S]``, in the dtype of ``z``.

        Raises:
            ValueError: for a level that is not on the grid, or an output of another shape.
            TypeError: if the network does not return a tensor.
        """
        scale, shift = self.adapter.data_scale, self.adapter.data_shift
        inner, level = scale * z + shift, scale * sigma
        level, a, time = self._coordinates(level)
        skip, out = PREDICTIONS[self.adapter.prediction or ""](level, a, self.adapter.sigma_data)

        def predict(third: Tensor | None) -> Tensor:
            raw = self._run(_like(a, inner) * inner, time, third, condition).to(inner.dtype)
            return _like(skip, inner) * inner + _like(out * self.adapter.output_scale, inner) * raw

        first = torch.zeros_like(inner) if self.adapter.self_conditioning == "zeros" else None
        clean = predict(first)
        if self.adapter.self_conditioning == "estimate":
            clean = predict(clean)
        return (clean - shift) / scale

    def recover(self, arguments: Sequence[Any], output: Any) -> tuple[Tensor, Tensor, Tensor]:
        """What one call of the network by somebody else amounts to: the inverse of :meth:`__call__`.

        Args:
            arguments: of the network, input and time first.
            output: of the network.

        Returns:
            ``z [B, *S]``, ``sigma [B]`` and ``D [B, *S]``, in single precision or better, on the network's device.

        Raises:
            ValueError: if the arguments do not begin with input and time, or the output has another shape.
            TypeError: if the output is not a tensor.
        """
        adapter, scale, shift = self.adapter, self.adapter.data_scale, self.adapter.data_shift
        x, time = (
            arguments[1::-1] if adapter.order == "time-x" else arguments[:2] if len(arguments) > 1 else (None, None)
        )
        if not isinstance(x, Tensor) or not isinstance(time, Tensor | float | int):
            raise ValueError(f"The network must be called with input and time, got {len(arguments)} other arguments.")
        raw = self._selected(output, x).detach()
        exact = torch.promote_types(x.dtype, torch.float32)
        level, a = self._level(torch.as_tensor(time, device=x.device).detach().flatten().expand(len(x)))
        skip, out = PREDICTIONS[adapter.prediction or ""](level, a, adapter.sigma_data)
        inner = x.detach().to(exact) / _like(a, x.to(exact))
        clean = _like(skip, inner) * inner + _like(out * adapter.output_scale, inner) * raw.to(exact)
        return (inner - shift) / scale, level / scale, (clean - shift) / scale

    def _level(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Level and factor ``a`` on the input at times ``[B]`` of the network, where these are."""
        adapter, levels = self.adapter, self.levels
        if isinstance(levels, LevelGrid):
            index = levels.size - 1 - time.long() if adapter.reverse_time else time.long()
            if self._by_index is None or self._by_index.device != index.device:
                self._by_index = levels.by_index().to(index.device, torch.float32)
            level = self._by_index[index.clamp(0, levels.size - 1)]
        elif isinstance(levels, ScheduleTime):
            t = time / (adapter.time_scale or 1)
            alpha, s = levels.schedule(1 - t if adapter.reverse_time else t)
            return s / alpha, alpha
        else:
            t = time.to(torch.promote_types(time.dtype, torch.float32)) / (adapter.time_scale or 1)
            t = TIMES[adapter.time or ""][1](t) if adapter.reverse_time else t
            level = LEVELS[adapter.time or ""](t)
        return level, PATHS[adapter.path or ""](level, adapter.sigma_data)

    def _coordinates(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Level, factor ``a`` on the input and time, each ``[B]``."""
        adapter, levels = self.adapter, self.levels
        if isinstance(levels, LevelGrid):
            at = levels.locate(sigma)
            sigma, index = levels.levels[at], levels.indices[at]
            time = levels.size - 1 - index if adapter.reverse_time else index
        elif isinstance(levels, ScheduleTime):
            t = levels(sigma)
            time = 1 - t if adapter.reverse_time else t
            return sigma.cpu().double(), levels.alpha(t), time * (adapter.time_scale or 1)
        else:
            forward, reverse = TIMES[adapter.time or ""]
            time = reverse(forward(sigma)) if adapter.reverse_time else forward(sigma)
            time = time * (adapter.time_scale or 1)
        return sigma, PATHS[adapter.path or ""](sigma, adapter.sigma_data), time

    def _run(self, x: Tensor, time: Tensor, third: Tensor | None, condition: Tensor | None) -> Tensor:
        """The network's output for a scaled input, in the network's dtype."""
        dtype = self.dtype or x.dtype
        # Half precision resolves the time to 1 % only, and half-precision networks embed it in single precision.
        of_time = torch.float32 if dtype.itemsize < 4 else dtype
        time = time.to(x.device, of_time) if time.is_floating_point() else time.to(x.device)
        x = x.to(dtype)
        positional: list[Any] = [time, x] if self.adapter.order == "time-x" else [x, time]
        keywords = dict(self.adapter.extra or {})
        if self.adapter.self_conditioning != "off":
            positional.append(None if third is None else third.to(dtype))
        given = self._condition(x, condition)
        if given is not None and self.adapter.condition is None:
            positional.append(given)
        elif given is not None:
            keywords[str(self.adapter.condition)] = given
        return self._selected(self.network(*positional, **keywords), x)

    def _condition(self, x: Tensor, condition: Tensor | None) -> Tensor | None:
        if condition is None and self.adapter.default_condition is not None:
            return torch.full((len(x),), self.adapter.default_condition, device=x.device)
        if condition is None:
            return None
        if len(condition) != len(x):
            raise ValueError(f"`condition` must hold one row per example, {len(x)}, got {len(condition)}.")
        return condition.to(x.device, x.dtype if condition.is_floating_point() else condition.dtype, copy=True)

    def _selected(self, output: Any, x: Tensor) -> Tensor:
        take = self.adapter.output
        if isinstance(take, int):
            output = output[take]
        elif take and not isinstance(output, Tensor):
            output = getattr(output, take)
        if not isinstance(output, Tensor):
            raise TypeError(
                f"The network must return a tensor of shape {tuple(x.shape)}, got {type(output).__name__}. Set `output`, now "
                f"{take!r}, to the attribute or index that holds the tensor."
            )
        if self.adapter.learned_variance:
            output = output[:, : x.shape[1]]
        if output.shape != x.shape:
            doubled = output.ndim > 1 and output.shape[1] == 2 * x.shape[1]
            remedy = " It also predicts a variance: set `learned_variance`." if doubled else ""
            raise ValueError(
                f"The network must return the shape of its input, {tuple(x.shape)}, got {tuple(output.shape)}.{remedy}"
            )
        result: Tensor = output
        return result


def _like(factor: Any, x: Tensor) -> Tensor:
    """A factor per example, or one for all, broadcast to the axes and cast to the type of ``x``."""
    per_example = torch.as_tensor(factor, dtype=x.dtype).to(x.device)
    return per_example.reshape(-1, *(1,) * (x.ndim - 1))


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
    problem = (
        f"{type(module).__name__} offers no `denoise(z, sigma)`."
        if denoiser is None
        else f"`denoiser` must be a callable, an Adapter or a name, got {type(denoiser).__name__}."
    )
    raise TypeError(
        f"{problem} Give the module a method `denoise(z, sigma)` that predicts the clean data from z = x0 + sigma eps, "
        "z [B, *S], sigma [B]; or pass `denoiser=`: such a callable, the import path of a function (module, z, sigma), "
        "an Adapter, or the name of a convention with the attribute path of the network, such as "
        f"'diffusers-epsilon:unet' ({', '.join(CONVENTIONS)})."
    )


def _named(module: nn.Module, name: str) -> tuple[Denoiser, str]:
    convention, _, network = name.partition(":")
    if convention in CONVENTIONS:
        return resolve_denoiser(module, Adapter(convention, network or None))
    if "." not in name and ":" not in name:
        raise ValueError(
            f"`denoiser` must be one of {', '.join(CONVENTIONS)}, or importable as 'package.module:function', got {name!r}."
        )
    found = object_at(name, "denoiser")
    if isinstance(found, Adapter):
        return resolve_denoiser(module, found)
    if not callable(found):
        raise ValueError(
            f"`denoiser` must name a function f(module, z, sigma), got {name!r}, a {type(found).__name__}."
        )

    return partial(found, module), f"{name}(module, z, sigma)"
