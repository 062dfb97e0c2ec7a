"""Every experiment, in the order of the page."""

from __future__ import annotations

from collections.abc import Sequence

from studies import exponent, gaussian, images, patches, predictions
from studies.definition import Experiment

__all__ = ["EXPERIMENTS", "chosen"]

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT for module in (gaussian, patches, images, exponent, predictions)
}


def chosen(names: Sequence[str]) -> list[Experiment]:
    """The experiments of these names, all of them if none is given.

    Raises:
        ValueError: for a name that is not in the catalogue.
    """
    unknown = sorted(set(names) - set(EXPERIMENTS))
    if unknown:
        raise ValueError(f"`names` must be among {', '.join(EXPERIMENTS)}, got {', '.join(unknown)}.")
    return [EXPERIMENTS[name] for name in names or EXPERIMENTS]
