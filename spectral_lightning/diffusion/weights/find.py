"""Find the weights to measure: raw ones, or the average that a module or its trainer keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal

from torch import nn

from spectral_lightning.arguments import one_of
from spectral_lightning.diffusion.weights.averages import Average, offers, recognised
from spectral_lightning.diffusion.weights.source import AveragedWeights, RawWeights, ScopedWeights, WeightSource

__all__ = ["Weights", "find_weights"]

Weights = Literal["raw", "ema"] | Callable[[Any], AbstractContextManager[Any]]
"""``"raw"``, ``"ema"``, or a callable that maps the module to a context manager in which it holds the weights."""


def find_weights(kind: Weights, module: nn.Module, keepers: Iterable[object] = ()) -> WeightSource:
    """The source of the weights to measure.

    Averages are looked for among the keepers and their attributes (Lightning's ``WeightAveraging`` and
    ``EMAWeightAveraging``, and everything :func:`recognised` accepts), among the attributes of the module and its
    submodules, and in ``ema_scope()`` of the module.

    Args:
        kind: ``"raw"``; ``"ema"``, the only average there is; an average itself; or a callable that is called with the
            module for every measurement and returns a context manager within which the module holds the weights.
        module: the module that trains.
        keepers: objects that may keep an average, such as the callbacks of a Trainer.

    Raises:
        ValueError: for another kind; for ``"ema"`` without exactly one average; for an average of an unknown part of the
            module.

    Example:
        >>> from lightning.pytorch.callbacks import EMAWeightAveraging
        >>> find_weights("ema", nn.Linear(1, 1), [EMAWeightAveraging()]).describe()
        'averaged weights of callback EMAWeightAveraging, raw until its first update'
    """
    keepers = list(keepers)
    if not isinstance(kind, str) and (given := recognised(kind)) is not None:
        given.pairs(module)  # raises now, not at the first measurement
        return AveragedWeights(lambda: given, f"the {type(kind).__name__} given")
    if not isinstance(kind, str) and callable(kind):
        return ScopedWeights(kind, f"the context of {getattr(kind, '__qualname__', type(kind).__name__)}")
    kind = one_of("weights", kind, ("raw", "ema"))  # type: ignore[assignment]
    found = list(_averages(module, keepers))
    if kind == "raw":
        others = [k for k in keepers if _replaces(k) and not _averages_weights(k)]
        return RawWeights([*(source.where for source in found), *map(_name, others)])
    if len(found) != 1:
        raise _not_one(module, keepers, found)
    (source,) = found
    if isinstance(source, AveragedWeights):
        source.pairs(module)  # raises now, not at the first measurement
    return source


def _averages(module: nn.Module, keepers: list[object]) -> Iterator[AveragedWeights | ScopedWeights]:
    seen: set[int] = set()
    for thing, where in _places(module, keepers):
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if _averages_weights(thing):
            yield AveragedWeights(partial(_average_of, thing), where, swaps=True)
        elif recognised(thing) is not None:
            yield AveragedWeights(partial(recognised, thing), where)
    if _has_scope(module):
        yield ScopedWeights(lambda m: m.ema_scope(), f"{type(module).__name__}.ema_scope()")


def _places(module: nn.Module, keepers: list[object]) -> Iterator[tuple[Any, str]]:
    """Everything that may be an average, with a name for it."""
    for keeper in keepers:
        yield keeper, _name(keeper)
        if not _replaces(keeper):
            yield from ((value, f"{_name(keeper)}.{key}") for key, value in vars(keeper).items())
    if _has_scope(module):
        return  # its averages are those of the scope
    for path, part in module.named_modules():
        name = ".".join(filter(None, ("module", path)))
        yield part, name
        yield from ((value, f"{name}.{key}") for key, value in vars(part).items())


def _replaces(keeper: Any) -> bool:
    """Lightning's ``WeightAveraging`` and ``StochasticWeightAveraging``, which replace the weights when training ends."""
    return offers(keeper, "_average_model")


def _averages_weights(keeper: Any) -> bool:
    """Lightning's ``WeightAveraging`` and its subclasses, such as ``EMAWeightAveraging``."""
    return offers(keeper, "_average_model", "should_update")


def _average_of(callback: Any) -> Average | None:
    """The average of a callback that creates it in its ``setup``, perhaps after ours, and again for every fit."""
    return recognised(callback._average_model)


def _has_scope(module: nn.Module) -> bool:
    """A module of the latent-diffusion family, which holds its averages within ``with module.ema_scope():``."""
    return offers(module, "use_ema", "ema_scope") and bool(module.use_ema)


def _name(keeper: object) -> str:
    return f"callback {type(keeper).__name__}"


def _not_one(module: nn.Module, keepers: list[object], found: list[Any]) -> ValueError:
    if not found:
        looked = ", ".join([f"module {type(module).__name__}", *map(_name, keepers)])
        return ValueError(
            f"`weights` must be 'raw' or a callable if no average is kept, got 'ema'. Looked at {looked}. Add Lightning's "
            "EMAWeightAveraging() to the callbacks, or pass a callable that returns a context manager."
        )
    names = ", ".join(source.where for source in found)
    return ValueError(
        f"`weights` must be one of several averages, or a callable that returns a context manager for one, got 'ema': found "
        f"{names}."
    )
