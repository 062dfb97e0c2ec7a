"""The studies and their trainings: files of ``configs/`` with the changes that ``trainings.yaml`` makes in them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["NAMES", "STUDIES", "Run", "Studies", "chosen"]

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Run:
    """One training: a configuration and its changes.

    Attributes:
        name: unique in its study.
        given: ``config``, the name of a file in ``configs/`` without ``.yaml``; ``trackers``, the arguments of each
            tracker, whose ``overlay`` holds those of the prediction, or False for none; all else are values by dotted key,
            such as ``{"trainer.max_steps": 10}``, each of which replaces what was there.
    """

    name: str
    given: Mapping[str, Any]

    def configuration(self) -> dict[str, Any]:
        """The whole configuration, as ``spectral-lightning fit --config`` reads it.

        Raises:
            ValueError: for a change inside something that is not a table.
        """
        changes = {**self.given, "trainer.callbacks": self._callbacks()}
        del changes["trackers"]
        whole: dict[str, Any] = yaml.safe_load((_HERE.parent / "configs" / f"{changes.pop('config')}.yaml").read_text())
        for key, value in changes.items():
            *parents, last = key.split(".")
            place: Any = whole
            for parent in parents:
                place = place.setdefault(parent, {}) if isinstance(place, dict) else None
            if not isinstance(place, dict):
                raise ValueError(f"`changes` must name entries of tables, got {key!r}. Give the list as a whole.")
            place[last] = copy.deepcopy(value)
        return whole

    def _callbacks(self) -> list[dict[str, Any]]:
        found = []
        for one in self.given["trackers"]:
            about = {name: value for name, value in one.items() if name != "overlay"}
            found.append({"class_path": "spectral_lightning.callbacks.SpectralTracker", "init_args": about})
            if one.get("overlay") is not False:
                overlay = {"tracker": one["name"], "figures_per_decade": 1, **one.get("overlay", {})}
                found.append({"class_path": "spectral_lightning.callbacks.AnalyticOverlay", "init_args": overlay})
        return found


Studies = Mapping[str, Sequence[Run]]

STUDIES: Studies = {
    study: [Run(name, given) for name, given in runs.items()]
    for study, runs in yaml.safe_load((_HERE / "trainings.yaml").read_text()).items()
    if not study.startswith(".")
}
"""The trainings of every study by name, the longest ones first."""

NAMES: dict[str, dict[str, Any]] = yaml.safe_load((_HERE / "names.yaml").read_text())
"""What the page calls them."""


def chosen(names: Sequence[str]) -> Studies:
    """The named studies, or all of them.

    Raises:
        ValueError: for an unknown name.
    """
    unknown = sorted(set(names) - set(STUDIES))
    if unknown:
        raise ValueError(f"`names` must be among {', '.join(STUDIES)}, got {', '.join(unknown)}.")
    return {name: STUDIES[name] for name in names or STUDIES}
