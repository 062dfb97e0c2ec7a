"""The results of all steps together: which modes they share, and how each changes the exponent."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from studies.results import Results, load
from studies.rungs import CHANGES, DECADES, LADDER, Change, Mask, Rung, change, theories

__all__ = ["Rungs", "between", "changes", "common", "difference", "rungs", "seeds", "share"]

_SEEDS = ("d128_seed0", "d128_seed1", "d128_seed2")

Rungs = Mapping[str, Rung]


def rungs(results: Results) -> Rungs:
    """Every step with its result; that of the MLP is stored with experiment 1."""
    gaussian = next(iter(results.values())).directory.parents[1] / "gaussian"
    stored, known = {**results, "mlp": load(gaussian, [_SEEDS[0]])[_SEEDS[0]]}, theories()
    return {step.key: Rung(step, stored[step.name], known.get(step.name)) for step in (*LADDER, *CHANGES)}


def common(found: Rungs, criterion: str) -> Mask:
    """Modes that rise and cross in every step from the linear network to the MLP."""
    return np.asarray(np.all([found[step.key].rose(criterion) for step in LADDER], axis=0))


def changes(found: Rungs, criterion: str) -> dict[str, Change]:
    """How each step changes the exponent of rising modes, by its key; the first one has no parent.

    From the linear network to the MLP over the modes common to all these steps; away from the MLP over those of both.
    """
    steps = [rung.step for rung in found.values() if rung.step.parent]
    return {step.key: between(found, step.key, step.parent, criterion, step in LADDER) for step in steps}


def between(found: Rungs, child: str, parent: str, criterion: str, everywhere: bool = True) -> Change:
    """How much larger the exponent of one step is than that of another.

    Args:
        found: all steps.
        child: key of the one.
        parent: key of the other.
        criterion: of emergence.
        everywhere: over the :func:`common` modes only, else over all that crossed in both.

    Raises:
        ValueError: for steps measured along other modes.
    """
    one, other = found[child], found[parent]
    if not np.allclose(one.history.target, other.history.target, rtol=1e-6):
        raise ValueError(f"{child} and {parent} were not measured along the same modes.")
    times = np.where(common(found, criterion), one.times(criterion), np.nan) if everywhere else one.times(criterion)
    return change(one.history.target, times, other.times(criterion))


def difference(one: Change) -> str:
    """A change with its sign and interval, or why there is none."""
    if not one.determinable:
        return "not determinable"
    return f"{one.value:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"


def share(rung: Rung) -> float:
    """Error of the overlay over that of no learning."""
    return float(rung.goodness["rms"] / rung.goodness["baseline"])


def seeds(found: Rungs, criterion: str) -> list[float]:
    """Exponents of the MLP of experiment 1 on the seeds that are stored, each with data and weights of its own."""
    gaussian = found["mlp"].stored.directory.parent
    there = [name for name in _SEEDS if (gaussian / name / "run.json").is_file()]
    return [
        one.compared(criterion).measured.law("rising", None, DECADES).exponent for one in load(gaussian, there).values()
    ]
