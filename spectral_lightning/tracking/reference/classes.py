"""The classes of the data as groups of a measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from spectral_lightning.diffusion import SupportsConditionalDenoise
from spectral_lightning.spectra import Basis, Groups, ModeStatistics, Ranks, group_moments, group_sums

__all__ = ["Classes", "HasClasses", "HasClassifier", "check_null_class", "find_classes"]

Classifier = Callable[[Tensor], Tensor]


@runtime_checkable
class HasClasses(Protocol):
    """A datamodule that knows its classes."""

    num_classes: int


@runtime_checkable
class HasClassNames(Protocol):
    """A datamodule that can name them."""

    class_names: list[str]


@runtime_checkable
class HasClassifier(Protocol):
    """A datamodule that can tell to which class a sample belongs."""

    def classify(self, x: Tensor) -> Tensor:
        """The class ``[B]`` of every sample ``[B, *S]``."""
        ...


@runtime_checkable
class DropsClasses(Protocol):
    """A module conditioned on classes that says how often it is trained without one."""

    num_classes: int | None
    class_dropout: float


def check_null_class(module: nn.Module) -> None:
    """Refuse to measure without labels what is never trained without them.

    Raises:
        ValueError: if the module has a null class that it never learns.
    """
    if isinstance(module, DropsClasses) and module.num_classes is not None and module.class_dropout == 0:
        raise ValueError(
            f"{type(module).__name__} is trained under labels only, and without a label its null class is evaluated, which "
            "never learns. Train with `class_dropout` above 0, measure with per_class=True and without `track_gain`, or pass "
            "labels as `condition`."
        )


class Classes:
    """Names of the classes, and the classifier where the model is not conditioned on them."""

    def __init__(self, names: tuple[str, ...], classify: Classifier | None) -> None:
        self.names, self.classify = names, classify

    def sums(self, basis: Basis, batches: Iterable[tuple[Tensor, Tensor | None]]) -> list[ModeStatistics]:
        """This rank's sums over the data of every class, which are classified as the samples will be.

        No rank waits for another.

        Args:
            basis: the modes.
            batches: this rank's examples, with labels where the model is conditioned on them.
        """
        return group_sums(basis, len(self.names), self._labelled(batches))

    def groups(self, sums: Sequence[ModeStatistics], ranks: Ranks) -> Groups:
        """Groups with the shares and variances of the data, from this rank's sums. Every rank has to call it."""
        return Groups(self.names, *group_moments(self.names, sums, ranks), self.classify)

    def _labelled(self, batches: Iterable[tuple[Tensor, Tensor | None]]) -> Iterable[tuple[Tensor, Tensor]]:
        for examples, label in batches:
            found = label if self.classify is None else self.classify(examples)
            if found is None:
                raise ValueError("Data without labels need `classify` to be measured by class.")
            yield examples, found


def find_classes(
    module: nn.Module,
    datamodule: Any,
    classify: Classifier | None,
    num_classes: int | None,
    takes_labels: bool = False,
) -> Classes:
    """The classes of a run: those the model is conditioned on, else those a classifier tells apart.

    A module of any kind is conditioned on classes where its denoiser takes labels and ``num_classes`` says how many.

    Args:
        module: that trains.
        datamodule: of its Trainer.
        classify: given by the user.
        num_classes: given by the user.
        takes_labels: whether the denoiser that was found for the module is called with a condition.

    Raises:
        ValueError: if the model is not conditioned and nothing classifies, or the number of classes is not known.
    """
    knows = isinstance(module, SupportsConditionalDenoise) and isinstance(module.num_classes, int)
    conditional = knows or (takes_labels and num_classes is not None)
    if classify is None and not conditional:
        if not isinstance(datamodule, HasClassifier):
            raise ValueError(
                f"`per_class` needs a model that is conditioned on classes, which {type(module).__name__} is not, or a "
                "`classify` that says to which class a sample [B, *S] belongs. Pass one, or use a datamodule that "
                "offers `classify(x)`; where `denoiser` is an Adapter or takes labels as a third argument, pass `num_classes`."
            )
        classify = datamodule.classify
    if classify is None and knows:
        num_classes = module.num_classes  # type: ignore[assignment]
    elif num_classes is None and isinstance(datamodule, HasClasses):
        num_classes = datamodule.num_classes
    if num_classes is None:
        raise ValueError("`num_classes` must be given with `classify`: how many classes it tells apart.")
    named = isinstance(datamodule, HasClassNames) and len(datamodule.class_names) == num_classes
    names = [str(n) for n in datamodule.class_names] if named else [str(n) for n in range(num_classes)]
    return Classes(tuple(names), classify)
