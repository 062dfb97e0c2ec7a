"""Classes of the data, as groups of a measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from spectral_lightning.diffusion import SupportsConditionalDenoise
from spectral_lightning.spectra import Basis, Groups, ModeStatistics, Ranks, group_moments, group_sums

__all__ = ["Classes", "check_null_class", "find_classes", "num_labels"]

Classifier = Callable[[Tensor], Tensor]


def check_null_class(module: nn.Module) -> None:
    """Refuse to measure a module without labels if it never trains without them.

    Raises:
        ValueError: if the module never trains its null class.
    """
    if getattr(module, "num_classes", None) is not None and getattr(module, "class_dropout", None) == 0:
        raise ValueError(
            f"{type(module).__name__} is trained under labels only, but would be measured without one, on a null class that "
            "is never trained. Train with `class_dropout` above 0, measure with per_class=True and without `track_gain`, or "
            "pass labels as `condition`."
        )


class Classes:
    """Names of the classes, and a classifier unless the model is conditioned on them."""

    def __init__(self, names: tuple[str, ...], classify: Classifier | None) -> None:
        self.names, self.classify = names, classify

    def sums(self, basis: Basis, batches: Iterable[tuple[Tensor, Tensor | None]]) -> list[ModeStatistics]:
        """This rank's sums over the data of every class; the same classifier sorts data and samples.

        No rank waits for another.

        Args:
            basis: the modes.
            batches: this rank's examples, with labels if the model is conditioned on them.
        """
        return group_sums(basis, len(self.names), self._labelled(batches))

    def groups(self, sums: Sequence[ModeStatistics], ranks: Ranks) -> Groups:
        """Combine all ranks' sums into groups with the data's shares and variances. Every rank must call it."""
        return Groups(self.names, *group_moments(self.names, sums, ranks), self.classify)

    def _labelled(self, batches: Iterable[tuple[Tensor, Tensor | None]]) -> Iterable[tuple[Tensor, Tensor]]:
        for examples, label in batches:
            found = label if self.classify is None else self.classify(examples)
            if found is None:
                raise ValueError("`classify` must be given for data without labels. Pass it, or data with labels.")
            yield examples, found


def num_labels(module: nn.Module, num_classes: int | None, takes_labels: bool) -> int | None:
    """How many labels the denoiser of ``module`` takes; None unless it is conditioned on classes.

    Args:
        module: the module being trained, which may know.
        num_classes: the user's number of classes.
        takes_labels: whether the resolved denoiser accepts a condition.
    """
    if isinstance(module, SupportsConditionalDenoise) and isinstance(module.num_classes, int):
        return module.num_classes
    return num_classes if takes_labels else None


def find_classes(
    module: nn.Module,
    datamodule: Any,
    classify: Classifier | None,
    num_classes: int | None,
    takes_labels: bool = False,
) -> Classes:
    """The classes of a run: those the model is conditioned on, else those of a classifier.

    A model counts as conditioned on classes if its denoiser takes labels and ``num_classes`` is known.

    Args:
        module: the module being trained.
        datamodule: the Trainer's datamodule, which may have ``classify(x)``, ``num_classes`` and ``class_names``.
        classify: the user's classifier.
        num_classes: the user's number of classes.
        takes_labels: whether the resolved denoiser accepts a condition.

    Raises:
        ValueError: if the model is not conditioned on classes and there is no classifier, or if the number of classes is
            unknown.
    """
    labels = num_labels(module, num_classes, takes_labels)
    if classify is None and labels is None:
        classify = getattr(datamodule, "classify", None)
        if classify is None:
            raise ValueError(
                f"`per_class` needs a model that is conditioned on classes, which {type(module).__name__} is not, or a "
                "`classify` that maps samples [B, *S] to classes [B]. Pass one, or use a datamodule with `classify(x)`; if "
                "`denoiser` is an Adapter or takes labels as a third argument, pass `num_classes`."
            )
    if classify is None and labels is not None:
        num_classes = labels
    elif num_classes is None:
        num_classes = getattr(datamodule, "num_classes", None)
    if num_classes is None:
        raise ValueError("`num_classes` must be given with `classify`. Pass the number of classes it distinguishes.")
    names = getattr(datamodule, "class_names", ())
    return Classes(tuple(map(str, names if len(names) == num_classes else range(num_classes))), classify)
