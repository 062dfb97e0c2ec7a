"""``python -m studies``: run the experiments and make their page."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import auto_cli

from studies.catalogue import chosen
from studies.page import write
from studies.running import run_all


def run(names: Sequence[str] = (), jobs: int = 2) -> None:
    """Train what is not yet stored, going on where a training was interrupted, then make the page.

    Args:
        names: experiments; all of them if none is given.
        jobs: trainings at a time, each on one thread.
    """
    run_all(chosen(names), jobs)
    write()


def page() -> None:
    """Make ``docs/results`` and the short version in the README from what is stored."""
    write()


if __name__ == "__main__":
    auto_cli({"run": run, "page": page}, prog="python -m studies")
