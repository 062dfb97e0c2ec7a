"""What an experiment is: trainings made from the files in ``configs/``, and a report computed from what they stored."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from studies.results import Results

__all__ = ["CONFIGS", "Experiment", "Report", "Row", "Run", "trackers"]

CONFIGS = Path(__file__).parents[1] / "configs"
_PACKAGE = "spectral_lightning.callbacks"


@dataclass(frozen=True)
class Run:
    """One training: a configuration and what is changed in it.

    Attributes:
        name: of the run, unique in its experiment.
        config: name of a file in ``configs/``, without ``.yaml``.
        changes: values by dotted key, such as ``{"trainer.max_steps": 10}``; each replaces what was there.
    """

    name: str
    config: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    def configuration(self) -> dict[str, Any]:
        """The whole configuration, as the command ``spectral-lightning fit --config`` reads it.

        Raises:
            ValueError: if a change goes into something that is not a table.
        """
        whole: dict[str, Any] = yaml.safe_load((CONFIGS / f"{self.config}.yaml").read_text())
        for key, value in self.changes.items():
            *parents, last = key.split(".")
            place: Any = whole
            for parent in parents:
                place = place.setdefault(parent, {}) if isinstance(place, dict) else None
            if not isinstance(place, dict):
                raise ValueError(f"`changes` must name entries of tables, got {key!r}. Give the list as a whole.")
            place[last] = copy.deepcopy(value)
        return whole


@dataclass(frozen=True)
class Row:
    """One line of the table of results; every text is computed from the stored histories.

    Attributes:
        claim: what was claimed, and by whom.
        published: the published figure, "-" where there is none.
        measured: measured here, with its interval.
        theory: of the solvable theory over the same modes and steps, "-" where it says nothing.
        verdict: "confirmed", "not confirmed", or what lies between, decided by a rule on the numbers.
        headline: whether the README shows it too.
    """

    claim: str
    published: str
    measured: str
    theory: str
    verdict: str
    headline: bool = False


@dataclass(frozen=True)
class Report:
    """What an experiment gave.

    Attributes:
        rows: lines of the table of results.
        text: Markdown with the tables that hold every run, and what they mean.
        figure: that tells the story.
    """

    rows: list[Row]
    text: str
    figure: Figure


@dataclass(frozen=True)
class Experiment:
    """Trainings and their report.

    Attributes:
        name: as in ``make results-<name>``.
        title: a heading.
        question: what the trainings decide.
        runs: the trainings, the longest first.
        report: from the stored results of all runs.
    """

    name: str
    title: str
    question: str
    runs: tuple[Run, ...]
    report: Callable[[Results], Report]


def trackers(
    num_samples: int,
    per_decade: int = 20,
    num_steps: int = 20,
    bases: Mapping[str, Any] | None = None,
    overlay: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """The callbacks of a training: a tracker in eigenmodes, one more per basis by name, and a prediction beside each.

    Args:
        num_samples: per measurement.
        per_decade: measurements per factor of ten in steps.
        num_steps: of the Heun sampler.
        bases: name and ``basis`` of further trackers; "patch" gets no prediction, its modes have none.
        overlay: arguments of the first prediction; None leaves it at its defaults.
        options: further arguments of the first tracker.
    """
    found = []
    for name, basis in {"spectral": None, **(bases or {})}.items():
        about: dict[str, Any] = {"num_samples": num_samples, "per_decade": per_decade}
        about |= {"sampler": {"num_steps": num_steps}, "log_modes": 10}
        about |= options if basis is None else {"basis": basis}
        found.append({"class_path": f"{_PACKAGE}.SpectralTracker", "init_args": {"name": name, **about}})
        if name != "patch":
            given = {"tracker": name, "figures_per_decade": 1, **((overlay or {}) if basis is None else {})}
            found.append({"class_path": f"{_PACKAGE}.AnalyticOverlay", "init_args": given})
    return found
