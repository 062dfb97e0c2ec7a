"""The studies and their trainings: files of ``configs/`` with the changes that ``trainings.yaml`` makes in them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

__all__ = ["STUDIES", "Run", "chosen", "trackers"]

_HERE = Path(__file__).parent
_CALLBACKS = "spectral_lightning.callbacks"


def trackers(given: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The callbacks that measure a training and predict what is measured.

    Args:
        given: arguments of every tracker; its ``overlay`` holds arguments of the prediction, or False for none.
    """
    found = []
    for one in given:
        about = {name: value for name, value in one.items() if name != "overlay"}
        found.append({"class_path": f"{_CALLBACKS}.SpectralTracker", "init_args": about})
        if one.get("overlay") is not False:
            overlay = {"tracker": one["name"], "figures_per_decade": 1, **one.get("overlay", {})}
            found.append({"class_path": f"{_CALLBACKS}.AnalyticOverlay", "init_args": overlay})
    return found


@dataclass(frozen=True)
class Run:
    """One training: a configuration and its changes.

    Attributes:
        name: unique in its study.
        config: name of a file in ``configs/``, without ``.yaml``.
        changes: values by dotted key, such as ``{"trainer.max_steps": 10}``; each replaces what was there.
    """

    name: str
    config: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    def configuration(self) -> dict[str, Any]:
        """The whole configuration, as ``spectral-lightning fit --config`` reads it.

        Raises:
            ValueError: for a change inside something that is not a table.
        """
        whole: dict[str, Any] = yaml.safe_load((_HERE.parent / "configs" / f"{self.config}.yaml").read_text())
        for key, value in self.changes.items():
            *parents, last = key.split(".")
            place: Any = whole
            for parent in parents:
                place = place.setdefault(parent, {}) if isinstance(place, dict) else None
            if not isinstance(place, dict):
                raise ValueError(f"`changes` must name entries of tables, got {key!r}. Give the list as a whole.")
            place[last] = copy.deepcopy(value)
        return whole


def _run(name: str, given: Mapping[str, Any]) -> Run:
    changes = {key: value for key, value in given.items() if key not in ("config", "trackers")}
    return Run(name, given["config"], {**changes, "trainer.callbacks": trackers(given["trackers"])})


STUDIES: dict[str, list[Run]] = {
    study: [_run(name, given) for name, given in runs.items()]
    for study, runs in yaml.safe_load((_HERE / "trainings.yaml").read_text()).items()
    if not study.startswith(".")
}
"""The trainings of every study by name, the longest ones first."""


def chosen(names: Sequence[str]) -> list[str]:
    """The named studies, or all of them.

    Raises:
        ValueError: for an unknown name.
    """
    unknown = sorted(set(names) - set(STUDIES))
    if unknown:
        raise ValueError(f"`names` must be among {', '.join(STUDIES)}, got {', '.join(unknown)}.")
    return list(names or STUDIES)
