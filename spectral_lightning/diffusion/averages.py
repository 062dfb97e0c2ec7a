"""Averages of weights that other libraries keep, recognised by their attributes without importing the libraries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

__all__ = ["Average", "ModuleAverage", "Pairs", "ParameterAverage", "offers", "recognised"]

Pairs = Sequence[tuple[Tensor, Tensor]]
"""Tensors of a module, each with the value to copy into it."""


@dataclass(frozen=True)
class ModuleAverage:
    """An average kept as a copy of a module; the averaged part has parameters of the same names and shapes.

    Attributes:
        holder: torch's ``AveragedModel``, timm's ``ModelEmaV2`` or ``ModelEmaV3``, ema-pytorch's ``EMA``, or similar.
        copy: name of the submodule that is the copy; it may be created later.
        counter: name of the buffer that is positive once the average was updated; None if it always counts as updated.
    """

    holder: nn.Module
    copy: str = "module"
    counter: str | None = None

    @property
    def started(self) -> bool:
        """Whether it has been updated."""
        return self.counter is None or bool(self.holder.get_buffer(self.counter) > 0)

    def pairs(self, module: nn.Module) -> Pairs:
        """Parameters of the averaged part of ``module``, and the buffers that both have, with their averages.

        Raises:
            ValueError: unless exactly one part fits.
        """
        copy = dict(self.holder.named_children()).get(self.copy)
        if copy is None:
            return []
        own, averages = _counterpart(copy, module), dict(copy.named_buffers())
        common = [(b, averages[n]) for n, b in own.named_buffers() if n in averages and averages[n].shape == b.shape]
        return [*zip(own.parameters(), copy.parameters(), strict=True), *common]


@dataclass(frozen=True)
class ParameterAverage:
    """An average kept as a list of tensors, one per parameter or per trainable parameter of a part of a module.

    Attributes:
        holder: diffusers' ``EMAModel``, or similar.
    """

    holder: Any

    @property
    def started(self) -> bool:
        """Whether it has been updated."""
        return bool(self.holder.optimization_step > 0)

    def pairs(self, module: nn.Module) -> Pairs:
        """The only list of parameters in ``module`` with the shapes of the averages; buffers are not averaged.

        Raises:
            ValueError: unless exactly one list fits.
        """
        shapes = [value.shape for value in self.holder.shadow_params]
        found: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for part in module.modules():
            every = list(part.parameters())
            for parameters in (every, [p for p in every if p.requires_grad]):
                if [p.shape for p in parameters] == shapes:
                    found[tuple(map(id, parameters))] = parameters
        if len(found) != 1:
            raise _unclear(len(found), f"a list of {len(shapes)} parameters")
        return list(zip(*found.values(), self.holder.shadow_params, strict=True))


Average = ModuleAverage | ParameterAverage
"""An average of the weights of a module or of a part of it."""


def offers(thing: Any, *names: str) -> bool:
    """Whether ``thing`` has all these attributes; False if looking them up raises.

    Some models of other libraries forward attributes to their configuration, with a warning or arbitrary errors: name the
    rarest attribute first.
    """
    try:
        return all(hasattr(thing, name) for name in names)
    except Exception:
        return False


def recognised(thing: Any) -> Average | None:
    """``thing`` as an average of torch, timm, ema-pytorch or diffusers; None if it is not one.

    Recognises torch's ``AveragedModel``, timm's ``ModelEmaV2`` and ``ModelEmaV3``, ema-pytorch's ``EMA`` and
    ``KarrasEMA``, and diffusers' ``EMAModel``.

    Example:
        >>> recognised(AveragedModel(nn.Linear(1, 1))).started
        False
        >>> recognised(nn.Linear(1, 1)) is None
        True
    """
    if offers(thing, "shadow_params", "optimization_step", "store", "copy_to", "restore"):  # diffusers
        return ParameterAverage(thing) if isinstance(thing.shadow_params, list) else None
    if isinstance(thing, AveragedModel):
        return ModuleAverage(thing, counter="n_averaged")
    if isinstance(thing, nn.Module) and offers(thing, "update_moving_average", "update"):  # ema-pytorch
        return ModuleAverage(thing, "ema_model", "initted")
    if isinstance(thing, nn.Module) and offers(thing, "set", "decay", "update"):  # timm
        return ModuleAverage(thing)
    return None


def _counterpart(copy: nn.Module, module: nn.Module) -> nn.Module:
    inside, shapes = set(copy.modules()), _shapes(copy)
    found = [part for part in module.modules() if part not in inside and _shapes(part) == shapes]
    if len(found) != 1 or not shapes:
        raise _unclear(len(found), type(copy).__name__)
    return found[0]


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: p.shape for name, p in module.named_parameters()}


def _unclear(count: int, what: str) -> ValueError:
    return ValueError(
        f"`weights` must be a callable that returns a context manager for this average of {what}: {count} parts of the "
        "module have such parameters."
    )
