"""``python -m studies``: train the studies and make their page."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import auto_cli

from studies import forecasts, simulation, trainings
from studies.page import write


def run(names: Sequence[str] = (), jobs: int = 2) -> None:
    """Train what is not stored yet, continue what was interrupted, then make the pages.

    Args:
        names: studies; all of them by default.
        jobs: trainings at a time, each on one thread.
    """
    trainings.run_all(trainings.chosen(names), jobs)
    write()
    forecasts.write()


def adopt(names: Sequence[str] = ()) -> None:
    """Accept stored results for configurations in which settings were renamed; print what differs.

    Args:
        names: studies; all of them by default.
    """
    trainings.adopt(trainings.chosen(names))


if __name__ == "__main__":
    auto_cli(
        {"run": run, "page": write, "forecasts": forecasts.write, "simulate": simulation.write, "adopt": adopt},
        prog="python -m studies",
    )
