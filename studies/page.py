"""The page of results, its figures and its short version in the README, made from what is stored."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from spectral_lightning.spectra.files import replacing
from studies.catalogue import EXPERIMENTS
from studies.definition import Experiment, Report
from studies.results import Results, load
from studies.running import ROOT, STORE, is_done
from studies.tables import duration, markdown

__all__ = ["Part", "page", "parts", "short_version", "write"]

_MARKS = ("<!-- results: made by `make results` -->", "<!-- end of results -->")
_COLUMNS = ("experiment", "claim", "published", "measured [95 %]", "theory", "verdict")


@dataclass(frozen=True)
class Part:
    """An experiment with all its results.

    Attributes:
        experiment: the experiment.
        report: what it gave.
        seconds: wall time of its trainings, added up.
        tracking_seconds: what tracking took of that.
    """

    experiment: Experiment
    report: Report
    seconds: float
    tracking_seconds: float

    @property
    def time(self) -> str:
        """Wall time of the trainings, added up."""
        return duration(self.seconds)

    @property
    def tracking(self) -> int:
        """Share of tracking in it, in percent."""
        return round(100 * self.tracking_seconds / self.seconds)

    @property
    def anchor(self) -> str:
        """Of the heading, as GitHub makes it."""
        return re.sub(r"[^\w\- ]", "", self.experiment.title.lower()).replace(" ", "-")


def parts(store: Path = STORE) -> Iterator[Part]:
    """Every experiment whose trainings are all stored, with its report."""
    for experiment in EXPERIMENTS.values():
        directory = store / experiment.name
        if not all(is_done(one, directory / one.name) for one in experiment.runs):
            continue
        results = load(directory, [one.name for one in experiment.runs])
        yield Part(experiment, experiment.report(results), *_seconds(results))


def page(found: list[Part]) -> str:
    """The page, in Markdown."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    here = {part.experiment.name for part in found}
    waiting = [name for name in EXPERIMENTS if name not in here]
    total = duration(sum(part.seconds for part in found))
    made = environment.get_template("page.md.j2").render(parts=found, waiting=waiting, total=total)
    return re.sub(r"\n{3,}", "\n\n", made).rstrip() + "\n"


def short_version(found: list[Part]) -> str:
    """The headlines, for the README."""
    rows = [
        [
            f"`make results-{part.experiment.name}`, {part.time}, [figure](docs/results/{part.experiment.name}.png)",
            *(row.claim, row.published, row.measured, row.theory, row.verdict),
        ]
        for part in found
        for row in part.report.rows
        if row.headline
    ]
    return markdown(_COLUMNS, rows)


def write(store: Path = STORE, readme: Path = ROOT / "README.md") -> None:
    """Write page and figures, and the short version between its marks in the README.

    Raises:
        ValueError: if the README has lost the marks.
    """
    found = list(parts(store))
    for part in found:
        with replacing(store / f"{part.experiment.name}.png") as file:
            part.report.figure.savefig(file, format="png", dpi=110)
    with replacing(store / "README.md") as file:
        file.write_text(page(found))
    whole = readme.read_text()
    if any(whole.count(mark) != 1 for mark in _MARKS):
        raise ValueError(f"`readme` must hold each of {_MARKS} once, got {readme}. Put them where the table belongs.")
    before, after = whole.split(_MARKS[0])[0], whole.split(_MARKS[1])[1]
    with replacing(readme) as file:
        file.write_text(f"{before}{_MARKS[0]}\n{short_version(found)}\n{_MARKS[1]}{after}")


def _seconds(results: Results) -> tuple[float, float]:
    about = [one.about for one in results.values()]
    return sum(one["seconds"] for one in about), sum(one["tracking_seconds"] for one in about)
