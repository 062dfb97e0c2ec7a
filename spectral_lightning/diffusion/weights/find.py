"""Finds the weights to measure: averages among the callbacks of a Trainer and on its module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from torch import nn

from spectral_lightning.arguments import one_of
from spectral_lightning.diffusion.protocols import offers
from spectral_lightning.diffusion.weights.averages import Average, HasEmaScope, Pairs, recognised
from spectral_lightning.diffusion.weights.source import AveragedWeights, RawWeights, ScopedWeights, WeightSource

__all__ = ["Weights", "find_weights"]

Weights = Literal["raw", "ema"] | Callable[[Any], AbstractContextManager[Any]]
"""``"raw"``, ``"ema"``, or a callable that takes the module and returns a context in which it holds the weights."""


@runtime_checkable
class _KeepsAverageModel(Protocol):
    """Lightning's ``WeightAveraging`` and ``StochasticWeightAveraging``, which replace the weights when training ends."""

    _average_model: nn.Module | None


@runtime_checkable
class _WeightAveraging(_KeepsAverageModel, Protocol):
    """Lightning's ``WeightAveraging`` and what derives from it, such as ``EMAWeightAveraging``."""

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool: ...


@dataclass(frozen=True)
class _CallbackAverage:
    """The average of a callback that makes it in its ``setup``, perhaps after ours, and anew for every fit."""

    callback: _WeightAveraging
    swaps = True

    @property
    def started(self) -> bool:
        average = self._average()
        return average is not None and average.started

    def pairs(self, module: nn.Module) -> Pairs:
        average = self._average()
        return [] if average is None else average.pairs(module)

    def _average(self) -> Average | None:
        return recognised(self.callback._average_model)


def find_weights(kind: Weights, module: nn.Module, callbacks: Iterable[object] = ()) -> WeightSource:
    """The source of the weights to measure.

    An average is one that a callback *is* (Lightning's ``WeightAveraging`` and ``EMAWeightAveraging``), ``ema_scope()`` of
    the module, or an attribute of a callback, of the module or of a part of it that
    :func:`~spectral_lightning.diffusion.recognised` knows.

    Args:
        kind: ``"raw"``; ``"ema"``, the only average to be found; an average itself; or a callable that is called with the
            module for every measurement and returns a context manager inside which the module holds the weights.
        module: the module that trains.
        callbacks: those of its Trainer.

    Raises:
        ValueError: for another kind; for ``"ema"`` if there is no average or more than one, or it is unclear of which part
            of the module it is the average.

    Example:
        >>> from lightning.pytorch.callbacks import EMAWeightAveraging
        >>> find_weights("ema", nn.Linear(1, 1), [EMAWeightAveraging()]).describe()
        'averaged weights of callback EMAWeightAveraging, raw until its first update'
    """
    callbacks = list(callbacks)
    if not isinstance(kind, str) and (given := recognised(kind)) is not None:
        given.pairs(module)  # raises now for what would raise later
        return AveragedWeights(given, f"the {type(kind).__name__} given")
    if not isinstance(kind, str) and callable(kind):
        return ScopedWeights(kind, f"the context of {getattr(kind, '__qualname__', type(kind).__name__)}")
    kind = one_of("weights", kind, ("raw", "ema"))  # type: ignore[assignment]
    found = list(_averages(module, callbacks))
    if kind == "raw":
        others = [
            _name(c) for c in callbacks if isinstance(c, _KeepsAverageModel) and not isinstance(c, _WeightAveraging)
        ]
        return RawWeights([*(source.where for source in found), *others])
    if len(found) != 1:
        raise _not_one(module, callbacks, found)
    (source,) = found
    if isinstance(source, AveragedWeights):
        source.average.pairs(module)  # raises now for what would raise later
    return source


def _averages(module: nn.Module, callbacks: list[object]) -> Iterator[AveragedWeights | ScopedWeights]:
    seen: set[int] = set()
    for thing, where in _places(module, callbacks):
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if offers(thing, _WeightAveraging):
            yield AveragedWeights(_CallbackAverage(thing), where)
        elif (average := recognised(thing)) is not None:
            yield AveragedWeights(average, where)
    if _has_scope(module):
        yield ScopedWeights(lambda m: m.ema_scope(), f"{type(module).__name__}.ema_scope()")


def _places(module: nn.Module, callbacks: list[object]) -> Iterator[tuple[Any, str]]:
    """What may be an average, with a name for it; a module that offers ``ema_scope()`` speaks for itself."""
    for callback in callbacks:
        yield callback, _name(callback)
        if not isinstance(callback, _KeepsAverageModel):
            yield from ((value, f"{_name(callback)}.{key}") for key, value in vars(callback).items())
    if _has_scope(module):
        return
    for path, part in module.named_modules():
        name = ".".join(filter(None, ("module", path)))
        yield part, name
        yield from ((value, f"{name}.{key}") for key, value in vars(part).items())


def _has_scope(module: nn.Module) -> bool:
    return isinstance(module, HasEmaScope) and module.use_ema


def _name(callback: object) -> str:
    return f"callback {type(callback).__name__}"


def _not_one(module: nn.Module, callbacks: list[object], found: list[Any]) -> ValueError:
    if not found:
        looked = ", ".join([f"module {type(module).__name__}", *map(_name, callbacks)])
        return ValueError(
            f"`weights` must be 'raw' or a callable where there is no average, got 'ema'. Looked at {looked}. Add Lightning's "
            "EMAWeightAveraging() to the callbacks, or pass a callable that returns a context manager."
        )
    names = ", ".join(source.where for source in found)
    return ValueError(
        f"`weights` must be a callable where there are several averages, got 'ema': found {names}. Let it return a context "
        "manager that puts the right one into the module."
    )
