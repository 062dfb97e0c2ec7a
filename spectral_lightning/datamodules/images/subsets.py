"""Which images of a set are used: by class, by fraction of a class, by number; and how they are split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from spectral_lightning.datamodules.images.sets import ImageSet

__all__ = ["ClassChoice", "Selection", "held_out"]


class Selection(NamedTuple):
    """Chosen images of a set, in random order, so that any first part of them represents the whole.

    Attributes:
        source: the set.
        order: positions in the set, ``[n]``.
        labels: class of each, counted among the classes kept, ``[n]``, int64.
    """

    source: ImageSet
    order: Tensor
    labels: Tensor

    def first(self, count: int) -> Selection:
        """The first ``count`` of them."""
        return Selection(self.source, self.order[:count], self.labels[:count])


@dataclass(frozen=True)
class ClassChoice:
    """The classes kept, and the fraction of each.

    A class is called by its name or, where no class has that name, by its index in the set.

    Args:
        classes: classes to keep, renumbered 0 ... n-1 in the order given; None for all.
        fractions: fraction in (0, 1] kept of each class: a list with one number per kept class, in their order, or a
            mapping from classes to numbers, 1 for those left out. None for everything.

    Raises:
        ValueError: for no class, a class twice, or a fraction out of range.

    Example:
        >>> ClassChoice(["cat", 0], {"cat": 0.5}).resolved(("dog", "cow", "cat"))
        ([2, 0], [0.5, 1.0])
    """

    classes: Sequence[int | str] | None = None
    fractions: dict[str, float] | Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.classes is not None and not self.classes:
            raise ValueError(f"`classes` must name at least one class, got {self.classes!r}. None keeps all.")
        given: Any = [] if self.fractions is None else self.fractions
        for value in given.values() if isinstance(given, dict) else given:
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) <= 1:
                raise ValueError(
                    f"`class_fraction` must hold numbers above 0 and at most 1, got {value!r}. "
                    "Leave classes out with `classes`."
                )

    @property
    def trivial(self) -> bool:
        """Whether everything is kept."""
        return self.classes is None and self.fractions is None

    def resolved(self, names: Sequence[str]) -> tuple[list[int], list[float]]:
        """Index in the set and fraction of each kept class.

        Args:
            names: the classes of the set.

        Raises:
            ValueError: for a class that the set has not, or fractions that do not match the classes.
        """
        kept = list(range(len(names)))
        if self.classes is not None:
            kept = [_index("classes", key, names) for key in self.classes]
        if len(set(kept)) < len(kept):
            raise ValueError(f"`classes` must be different classes, got {list(self.classes or [])!r}.")
        return kept, self._fractions(kept, names)

    def _fractions(self, kept: list[int], names: Sequence[str]) -> list[float]:
        if self.fractions is None:
            return [1.0] * len(kept)
        if isinstance(self.fractions, dict):
            given = {_index("class_fraction", key, names): float(v) for key, v in self.fractions.items()}
            if not set(given) <= set(kept):
                raise ValueError(f"`class_fraction` must be of classes that are kept, got {self.fractions!r}.")
            return [given.get(k, 1.0) for k in kept]
        if len(self.fractions) != len(kept):
            raise ValueError(
                f"`class_fraction` must hold one number per class kept, {len(kept)}, got {len(self.fractions)}."
            )
        return [float(value) for value in self.fractions]

    def select(self, source: ImageSet, order: Tensor) -> Selection:
        """Of the images at ``order``, those that are kept, in that order.

        Of n images of a class, the first ``round(fraction n)`` are kept, at least one.
        """
        labels = source.labels[order]
        if self.trivial:
            return Selection(source, order, labels)
        chosen = torch.zeros(len(order), dtype=torch.bool)
        renumbered = torch.zeros_like(labels)
        for new, (old, fraction) in enumerate(zip(*self.resolved(source.class_names), strict=True)):
            members = (labels == old).nonzero().flatten()
            members = members[: max(round(fraction * len(members)), 1)]
            chosen[members] = True
            renumbered[members] = new
        return Selection(source, order[chosen], renumbered[chosen])


def held_out(count: int, fraction: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """A random order of ``count`` images cut in two: the rest, and ``round(fraction count)`` of them, at least one."""
    order = torch.randperm(count, generator=generator)
    cut = max(round(fraction * count), 1) if fraction else 0
    return order[cut:], order[:cut]


def _index(argument: str, key: Any, names: Sequence[str]) -> int:
    """Position of a class given by name or index; names come first, as YAML may read a name such as "7" as a number."""
    if str(key) in names:
        return list(names).index(str(key))
    if not isinstance(key, bool) and str(key).isdecimal() and int(key) < len(names):
        return int(key)
    raise ValueError(f"`{argument}` must be names or indices of the set's classes, {list(names)}, got {key!r}.")
