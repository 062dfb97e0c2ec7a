"""What each step from the linear network to the MLP did to the exponent: rows of the table of results."""

from __future__ import annotations

import numpy as np

from studies.definition import Report, Row
from studies.exponent_figure import figure
from studies.exponent_text import agreeing, text
from studies.ladder import Rungs, between, changes, difference, rungs, seeds, share
from studies.results import Results
from studies.rungs import CHANGES, CRITERIA, LADDER, change
from studies.tables import alpha

__all__ = ["report"]


def report(results: Results) -> Report:
    """Rows, tables and figure."""
    found = rungs(results)
    rows = [
        _preconditioning(found),
        _on_the_way(found),
        _away(found),
        _explained(found),
        _criterion(found),
        _error(found),
    ]
    return Report(rows, text(found), figure(found))


def _preconditioning(found: Rungs) -> Row:
    plain, edm = (found[name].measured("geometric") for name in ("linear", "linear_edm"))
    both = between(found, "linear_edm", "linear", "geometric")
    expected = [found[name].theory("geometric") for name in ("linear", "linear_edm")]
    reached = abs(plain.exponent - 1) < 0.1 and abs(edm.exponent - 0.5) < 0.1
    verdict = "not confirmed"
    if both.high < 0:
        verdict = "confirmed" if reached else "lowered, but not from 1 to 0.5"
    return Row(
        "EDM's preconditioning and loss weight alone bring the exponent of a linear network from about 1 to about 0.5 "
        "(rising, geometric)",
        "-",
        f"{alpha(plain)} to {alpha(edm)}; over the same {both.count} modes {difference(both)}",
        " to ".join(f"{fit.exponent:.2f}" for fit in expected if fit is not None),
        verdict,
        headline=True,
    )


def _on_the_way(found: Rungs) -> Row:
    moved = changes(found, "geometric")
    order = sorted(LADDER[1:], key=lambda step: -np.nan_to_num(abs(moved[step.key].value)))
    first, second = (moved[step.key] for step in order[:2])
    apart = min(abs(first.low), abs(first.high)) > max(abs(second.low), abs(second.high)) and first.shown
    return Row(
        "Which single change on the way from the linear network to the MLP moves the exponent most (rising, geometric)",
        "-",
        "; ".join(f"{step.short.removeprefix('+ ')} {difference(moved[step.key])}" for step in order[:3]),
        "-",
        f"{order[0].short.removeprefix('+ ')}, {'apart' if apart else 'but not apart'} from the next",
        headline=True,
    )


def _away(found: Rungs) -> Row:
    moved = changes(found, "geometric")
    known = [step for step in CHANGES if moved[step.key].determinable]
    order = sorted(known, key=lambda step: -abs(moved[step.key].value))
    spread = float(np.ptp(seeds(found, "geometric")))
    large = [step.short.removeprefix("MLP, ") for step in order if abs(moved[step.key].value) > spread]
    none = [step.short.removeprefix("MLP, ") for step in CHANGES if step not in known]
    verdict = f"beyond the range of seeds, {spread:.2f}: {', '.join(large) or 'none'}"
    return Row(
        "Which single change away from the MLP of experiment 1 moves the exponent most (rising, geometric)",
        "-",
        "; ".join(f"{step.short.removeprefix('MLP, ')} {difference(moved[step.key])}" for step in order[:3]),
        "-",
        f"{verdict}; not determinable: {', '.join(none)}" if none else verdict,
    )


def _explained(found: Rungs) -> Row:
    same = [key for key in agreeing(found, "geometric") if key != "linear"]
    solvable = [found[key].step.short for key in same if found[key].dynamics is not None]
    moved = changes(found, "geometric")
    after = LADDER[[step.key for step in LADDER].index("linear_edm") + 1 :]
    raising = [step for step in after if moved[step.key].shown and moved[step.key].value > 0.1]
    raised = ", ".join(f"{step.short.removeprefix('+ ')} {difference(moved[step.key])}" for step in raising)
    if solvable:
        verdict = f"explained by the theory of: {', '.join(solvable)}"
    elif same:
        verdict = f"not by the theory; reached at: {', '.join(found[key].step.short for key in same)}"
    else:
        verdict = "not explained: no linear step with EDM's preconditioning has it"
    return Row(
        "The exponent of the MLP of experiment 1 is that of preconditioned linear theory (rising, geometric)",
        "-",
        f"{alpha(found['mlp'].measured('geometric'))}; raised after preconditioning by: {raised or 'nothing'}",
        alpha(found["mlp"].overlay("geometric")),
        verdict,
        headline=True,
    )


def _criterion(found: Rungs) -> Row:
    mlp, every = found["mlp"], (*CRITERIA, "arithmetic")
    moved = change(mlp.history.target, mlp.times("harmonic"), mlp.times("geometric"))
    return Row(
        "The exponent depends on the criterion: one training, the MLP of experiment 1, geometric, harmonic and arithmetic "
        "threshold (rising)",
        "-",
        f"{', '.join(alpha(mlp.measured(name)) for name in every)}; harmonic over geometric {difference(moved)}",
        ", ".join(alpha(mlp.overlay(name)) for name in every),
        "confirmed" if moved.shown else "not shown",
    )


def _error(found: Rungs) -> Row:
    errors = {step.key: share(found[step.key]) for step in LADDER}
    most = max(LADDER[1:], key=lambda step: errors[step.key] - errors[step.parent])
    exact = [step.short for step in LADDER if errors[step.key] < 0.01]
    return Row(
        "Which step costs the overlay its accuracy (rms log error over that of no learning)",
        "-",
        f"{most.short.removeprefix('+ ')}: from {errors[most.parent]:.2g} to {errors[most.key]:.2g}; the MLP "
        f"{errors['mlp']:.2g}",
        "-",
        f"{len(exact)} of {len(LADDER)} steps below 1 %, the last of them: {exact[-1] if exact else 'none'}",
    )
