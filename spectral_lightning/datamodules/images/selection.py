"""Selects the images of a set, by class, fraction of a class and number, and reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from spectral_lightning.datamodules.images.sources import ImageSet
from spectral_lightning.datamodules.pixels import Framing, PixelScale
from spectral_lightning.datamodules.rows import CHUNK, Rows

__all__ = ["ClassChoice", "Selection"]


@dataclass(frozen=True, eq=False)
class Selection:
    """Selected images of a set, in random order, so that the first n of them represent the whole.

    Args:
        source: the set.
        order: positions in the set, ``[n]``.
        labels: class of each, counted among the classes kept, ``[n]``, int64.
        framing: size and channels of the images that :meth:`read` returns.
        scale: normalisation of their pixels; None leaves them in [0, 1].
    """

    source: ImageSet
    order: Tensor
    labels: Tensor
    framing: Framing = field(default_factory=Framing)
    scale: PixelScale | None = None

    def __len__(self) -> int:
        return len(self.order)

    def first(self, count: int) -> Selection:
        """The first ``count`` of them."""
        return replace(self, order=self.order[:count], labels=self.labels[:count])

    def read(self, indices: list[int]) -> Tensor:
        """Images ``[B, C, H, W]``, float32, read and transformed each time."""
        images = self.source.images.read(self.order[indices].tolist(), self.framing)
        return images if self.scale is None else self.scale(images)

    def held(self, shape: tuple[int, ...]) -> Tensor:
        """All images as one tensor ``[n, *shape]``, filled without a second copy.

        Raises:
            ValueError: for images of another shape.
        """
        images = torch.empty(len(self), *shape)
        for k, part in enumerate(Rows(self).parts()):
            if part.shape[1:] != images.shape[1:]:
                raise ValueError(
                    f"`resize` must be given for images of different sizes, got {shape} and {tuple(part.shape[1:])}."
                )
            images[CHUNK * k : CHUNK * k + len(part)] = part
        return images


@dataclass(frozen=True)
class ClassChoice:
    """The classes kept, and the fraction of each.

    See ``classes`` and ``class_fraction`` of :class:`~spectral_lightning.datamodules.ImageDataModule`. A class is given by
    its name or, if no class has that name, by its index in the set.

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
            ValueError: for a class that the set lacks, or fractions that do not match the classes.
        """
        kept = list(range(len(names)))
        if self.classes is not None:
            kept = [_index("classes", key, names) for key in self.classes]
        if len(set(kept)) < len(kept):
            raise ValueError(f"`classes` must not repeat a class, got {list(self.classes or [])!r}.")
        if isinstance(self.fractions, dict):
            given = {_index("class_fraction", key, names): float(v) for key, v in self.fractions.items()}
            if not set(given) <= set(kept):
                raise ValueError(f"`class_fraction` must name classes that are kept, got {self.fractions!r}.")
            return kept, [given.get(k, 1.0) for k in kept]
        fractions = [1.0] * len(kept) if self.fractions is None else [float(value) for value in self.fractions]
        if len(fractions) != len(kept):
            raise ValueError(
                f"`class_fraction` must hold one number per class kept, {len(kept)}, got {len(fractions)}."
            )
        return kept, fractions

    def select(self, source: ImageSet, order: Tensor) -> Selection:
        """The images at ``order`` that are kept, in that order.

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


def _index(argument: str, key: Any, names: Sequence[str]) -> int:
    """Position of a class given by name or index; names come first, because YAML may read a name such as "7" as a number."""
    if str(key) in names:
        return list(names).index(str(key))
    if not isinstance(key, bool) and str(key).isdecimal() and int(key) < len(names):
        return int(key)
    raise ValueError(f"`{argument}` must be names or indices of the set's classes, {list(names)}, got {key!r}.")
