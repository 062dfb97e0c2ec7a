"""The weights to measure: raw, or an average that the module, its trainer or the user keeps.

A source is a context in which a module holds these weights.

Values are copied into the module's tensors and back through ``.data``. Parameters keep their identity, a compiled network
is not compiled again, and no version counter moves, so that a live autograd graph stays valid. Nothing here draws a random
number or waits for another process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spectral_lightning.arguments import one_of
from spectral_lightning.diffusion.averages import Average, ModuleAverage, Pairs, offers, recognised

__all__ = [
    "AveragedWeights",
    "RawWeights",
    "ScopedWeights",
    "WeightSource",
    "Weights",
    "find_weights",
    "holding",
    "recognised",
]

Weights = Literal["raw", "ema"] | Callable[[Any], AbstractContextManager[Any]]
"""``"raw"``, ``"ema"``, or a callable that maps the module to a context manager in which it holds the weights."""


class WeightSource(ABC):
    """Which weights are measured.

    Lightning's weight averaging replaces the weights during validation, and permanently when training ends. A callback that
    may run meanwhile calls :meth:`keep` in ``on_validation_start`` and ``on_train_epoch_end``, and :meth:`release` in
    ``on_train_batch_start``. The raw weights do not change in between.

    Memory: between ``keep`` and ``release`` a copy of parameters and buffers on the host; nothing if ``replaced_by`` is
    empty.

    Args:
        replaced_by: names of everything that may replace the weights of the module.
    """

    def __init__(self, replaced_by: Sequence[str] = ()) -> None:
        self.replaced_by = tuple(replaced_by)
        self._kept: dict[str, Tensor] = {}

    @abstractmethod
    def describe(self) -> str:
        """One line for the log."""

    @abstractmethod
    def applied(self, module: nn.Module) -> AbstractContextManager[None]:
        """A context in which ``module`` holds these weights; afterwards it holds the same bits as before."""

    def keep(self, module: nn.Module) -> None:
        """Copy the raw weights, which ``module`` holds now, if something may replace them and no copy exists."""
        if self.replaced_by and not self._kept:
            self._kept = {name: t.detach().to("cpu", copy=True) for name, t in _tensors(module).items()}

    def release(self) -> None:
        """Forget the copy: ``module`` holds the raw weights again and is about to change them."""
        self._kept = {}

    def replaced(self, module: nn.Module) -> bool:
        """Whether ``module`` holds other weights than those that were kept."""
        # Not torch.equal, for which NaN differs from itself.
        same = (
            torch.isclose(now.detach().cpu(), kept, rtol=0, atol=0, equal_nan=True).all()
            for now, kept in self.kept(module)
        )
        return not all(same)

    def kept(self, module: nn.Module) -> Pairs:
        """The tensors of ``module`` with the raw values that were kept; empty if none were."""
        now = _tensors(module)
        return [(now[name], value) for name, value in self._kept.items() if name in now]


@contextmanager
def restored(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Restore the values of the tensors on exit, also after an exception.

    Memory: a copy of the tensors, on their device, while the context is open.
    """
    saved = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        for tensor, value in saved:
            tensor.data.copy_(value)


@contextmanager
def holding(pairs: Pairs) -> Iterator[None]:
    """Copy the second of each pair into the first; restore the first on exit.

    Memory: a copy of the first tensors, on their device, while the context is open.

    Example:
        >>> weight, average = nn.Parameter(torch.ones(2)), torch.zeros(2)
        >>> with holding([(weight, average)]):
        ...     print(weight.tolist())
        [0.0, 0.0]
        >>> weight.tolist()
        [1.0, 1.0]
    """
    with restored(target for target, _ in pairs):
        for target, value in pairs:
            target.data.copy_(value.detach())
        yield


class RawWeights(WeightSource):
    """The weights that the optimizer updates.

    The module usually holds them. If something has replaced them, the values that :meth:`keep` remembered are put back.

    Example:
        >>> net = nn.Linear(1, 1)
        >>> raw = RawWeights(["an average"])
        >>> raw.keep(net)
        >>> weight = net.weight.item()
        >>> _ = net.weight.data.zero_()
        >>> with raw.applied(net):
        ...     net.weight.item() == weight
        True
        >>> net.weight.item()
        0.0
    """

    def describe(self) -> str:
        """One line for the log."""
        if not self.replaced_by:
            return "raw weights"
        return f"raw weights, kept while {' or '.join(self.replaced_by)} may replace them"

    def applied(self, module: nn.Module) -> AbstractContextManager[None]:
        """A context in which ``module`` holds the raw weights."""
        return holding(self.kept(module))


class AveragedWeights(WeightSource):
    """An average of the weights that some library keeps, read when it is applied.

    Parameters, and the buffers that the average includes, take the average's values; other buffers stay. Before its first
    update the average counts as equal to the raw weights, because libraries initialise it with those of an earlier step.

    Args:
        find: returns the average, see :func:`recognised`, or None while it does not exist.
        where: its name in messages.
        swaps: whether its library sometimes swaps it with the weights of the module.

    Example:
        >>> net = nn.Linear(1, 1)
        >>> mean = torch.optim.swa_utils.AveragedModel(net)
        >>> mean.update_parameters(net)
        >>> _ = net.weight.data.add_(1)
        >>> with AveragedWeights(lambda: recognised(mean), "mean").applied(net):
        ...     bool(net.weight == mean.module.weight)
        True
        >>> bool(net.weight == mean.module.weight)
        False
    """

    def __init__(self, find: Callable[[], Average | None], where: str, swaps: bool = False) -> None:
        super().__init__([where] if swaps else [])
        self.find, self.where = find, where

    def describe(self) -> str:
        """One line for the log."""
        return f"averaged weights of {self.where}" + ("" if self.started else ", raw until its first update")

    @property
    def started(self) -> bool:
        """Whether the average exists and has been updated."""
        average = self.find()
        return average is not None and average.started

    def pairs(self, module: nn.Module) -> Pairs:
        """The averaged tensors of ``module`` with their averages."""
        average = self.find()
        return [] if average is None else average.pairs(module)

    def applied(self, module: nn.Module) -> AbstractContextManager[None]:
        """A context in which ``module`` holds the average."""
        if not self.started:
            return holding(self.kept(module))
        # After a swap the module holds the average, and the average the raw weights.
        return nullcontext() if self.replaced(module) else holding(self.pairs(module))


class ScopedWeights(WeightSource):
    """The weights that a module holds within a context manager supplied by the user.

    The context must copy values, not exchange tensors. Parameters and buffers are restored afterwards in any case.

    Args:
        scope: called with the module each time; returns the context manager.
        where: its name in messages.

    Raises:
        TypeError: when applied, if ``scope`` does not return a context manager.
    """

    def __init__(self, scope: Callable[[Any], AbstractContextManager[Any]], where: str) -> None:
        super().__init__()
        self.scope, self.where = scope, where

    def describe(self) -> str:
        """One line for the log."""
        return f"weights inside {self.where}"

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """The context of ``scope(module)``, with all values restored afterwards."""
        scope: Any = self.scope(module)
        if not isinstance(scope, AbstractContextManager):
            raise TypeError(
                f"`weights` must return a context manager, got {type(scope).__name__}. It is called with the module, which "
                "holds the weights to measure within the context."
            )
        with restored(_tensors(module).values()), scope:
            yield


def find_weights(kind: Weights, module: nn.Module, keepers: Iterable[object] = ()) -> WeightSource:
    """The source of the weights to measure.

    Averages are looked for among the keepers and their attributes (Lightning's ``WeightAveraging`` and
    ``EMAWeightAveraging``, and everything :func:`recognised` accepts), among the attributes of the module and its
    submodules, and in ``ema_scope()`` of the module.

    Args:
        kind: ``"raw"``; ``"ema"``, the only average found; an average itself, or a copy of the network that you average; or
            a callable that is called with the module for every measurement and returns a context manager within which the
            module holds the weights.
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
    given = recognised(kind)
    if given is None and isinstance(kind, nn.Module):  # a copy that the user averages
        given = ModuleAverage(nn.ModuleDict({"module": kind}))
    if given is not None:
        given.pairs(module)  # raises now, not at the first measurement
        return AveragedWeights(lambda: given, f"the {type(kind).__name__} given")
    if callable(kind):
        return ScopedWeights(kind, f"the context of {getattr(kind, '__qualname__', type(kind).__name__)}")
    kind = one_of("weights", kind, ("raw", "ema"))  # type: ignore[assignment]
    found = list(_averages(module, keepers))
    if kind == "raw":
        others = [k for k in keepers if _replaces(k) and not _averages_weights(k)]
        return RawWeights([*(source.where for source in found), *map(_name, others)])
    if not found:
        looked = ", ".join([f"module {type(module).__name__}", *map(_name, keepers)])
        raise ValueError(
            f"`weights` must be 'raw' or a callable if no average is kept, got 'ema'. Looked at {looked}. Pass the "
            "average itself, add Lightning's EMAWeightAveraging() to the callbacks, or pass a callable that returns a context "
            "manager."
        )
    if len(found) > 1:
        raise ValueError(
            "`weights` must be one of several averages, or a callable that returns a context manager for one, got 'ema': "
            f"found {', '.join(source.where for source in found)}."
        )
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
            # The callback creates its average in `setup`, perhaps after ours, and again for every fit.
            found = partial(lambda keeper: recognised(keeper._average_model), thing)
            yield AveragedWeights(found, where, swaps=True)
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


def _has_scope(module: nn.Module) -> bool:
    """A module of the latent-diffusion family, which holds its averages within ``with module.ema_scope():``."""
    return offers(module, "use_ema", "ema_scope") and bool(module.use_ema)


def _name(keeper: object) -> str:
    return f"callback {type(keeper).__name__}"


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
