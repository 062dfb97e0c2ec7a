"""What each step from the linear network to the MLP did: rows, tables and figure of the experiment on the exponent."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from experiments.definition import Report, Row
from experiments.results import Results, load
from experiments.rungs import CHANGES, CRITERIA, LADDER, Change, Rung, change, law, theories
from experiments.shared_layer import SharedLayer
from experiments.tables import interval, markdown
from spectral_lightning.diffusion import LogNormalNoise
from spectral_lightning.emergence import PowerLaw

__all__ = ["changes", "report", "rungs"]

_SEEDS = ("d128_seed0", "d128_seed1", "d128_seed2")
_COLOR = {"geometric": "#b2432f", "harmonic": "#2b5c8a"}
_DRAWN = ("deep_linear", "mlp")  # trainings whose weights are drawn: another seed gives another exponent

Rungs = Mapping[str, Rung]


def rungs(results: Results) -> Rungs:
    """Every step with its result; that of the MLP is stored with experiment 1."""
    gaussian = next(iter(results.values())).directory.parents[1] / "gaussian"
    stored, known = {**results, "mlp": load(gaussian, [_SEEDS[0]])[_SEEDS[0]]}, theories()
    return {step.key: Rung(step, stored[step.name], known.get(step.name)) for step in (*LADDER, *CHANGES)}


def changes(found: Rungs, criterion: str) -> dict[str, Change]:
    """How each step changes the exponent of rising modes, by its key; the first one has no parent."""
    steps = [rung.step for rung in found.values() if rung.step.parent]
    return {step.key: _between(found, step.key, step.parent, criterion) for step in steps}


def report(results: Results) -> Report:
    """Rows, tables and figure."""
    found = rungs(results)
    rows = [_preconditioning(found), *(_largest(found, way) for way in ("ladder", "mlp")), _explained(found)]
    return Report([*rows, _criterion(found), _error(found)], _text(results, found), _figure(found))


def _between(found: Rungs, child: str, parent: str, criterion: str) -> Change:
    one, other = (found[name].compared(criterion).measured for name in (child, parent))
    if not np.allclose(one.variance, other.variance, rtol=1e-6):
        raise ValueError(f"{child} and {parent} were not measured along the same modes.")
    times = (np.where(e.crossed("rising"), e.time, np.nan) for e in (one, other))
    return change(one.variance, *times)


def _alpha(fit: PowerLaw | None) -> str:
    if fit is None:
        return "-"
    return interval(fit.exponent, fit.low, fit.high) if fit.determinable else f"not determinable: {fit.reason}"


def _difference(one: Change) -> str:
    if not one.determinable:
        return f"not determinable: {one.count} modes in both"
    return f"{one.value:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"


# Rows of the table of results.


def _preconditioning(found: Rungs) -> Row:
    plain, edm = (found[name].measured("geometric") for name in ("linear", "linear_edm"))
    both = _between(found, "linear_edm", "linear", "geometric")
    expected = [found[name].theory("geometric") for name in ("linear", "linear_edm")]
    reached = abs(plain.exponent - 1) < 0.1 and abs(edm.exponent - 0.5) < 0.1
    verdict = "not confirmed"
    if both.high < 0:
        verdict = "confirmed" if reached else "lowered, but not from 1 to 0.5"
    return Row(
        "EDM's preconditioning and weight alone bring the exponent of the linear network from about 1 to about 0.5 "
        "(rising, geometric)",
        "-",
        f"{_alpha(plain)} to {_alpha(edm)}; over the same {both.count} modes {_difference(both)}",
        " to ".join(f"{fit.exponent:.2f}" for fit in expected if fit is not None),
        verdict,
        headline=True,
    )


def _largest(found: Rungs, where: str) -> Row:
    steps = LADDER[1:] if where == "ladder" else CHANGES
    found_changes = changes(found, "geometric")
    known = {step.key: found_changes[step.key] for step in steps if found_changes[step.key].determinable}
    order = sorted(known, key=lambda key: -abs(known[key].value))
    first, second = known[order[0]], known[order[1]]
    apart = min(abs(first.low), abs(first.high)) > max(abs(second.low), abs(second.high)) and first.shown
    between = "from the linear network to the MLP" if where == "ladder" else "away from the MLP"
    named = [f"{found[key].step.label.removeprefix('+ ')} {_difference(known[key])}" for key in order[:2]]
    return Row(
        f"Which single change {between} moves the exponent most (rising, geometric)",
        "-",
        f"{named[0]}; next: {named[1]}",
        "-",
        "apart from the next" if apart else "largest, but not apart from the next",
        headline=True,
    )


def _agreeing(found: Rungs, criterion: str) -> tuple[list[str], dict[str, Change]]:
    """Linear steps whose exponent is not told from the MLP's, over the modes that crossed in both."""
    apart = {step.key: _between(found, "mlp", step.key, criterion) for step in LADDER[:-1]}
    return [key for key, one in apart.items() if one.determinable and not one.shown], apart


def _explained(found: Rungs) -> Row:
    same, apart = _agreeing(found, "geometric")
    theory = found["mlp"].overlay("geometric")
    solvable = [key for key in same if found[key].dynamics is not None and key != "linear"]
    known = {key: one for key, one in apart.items() if one.determinable and key != "linear"}
    nearest = min(known, key=lambda key: abs(known[key].value)) if known else ""
    if solvable:
        verdict = f"explained by a solvable step: {', '.join(solvable)}"
    elif [key for key in same if key != "linear"]:
        verdict = f"not by a solvable theory; reached at: {', '.join(key for key in same if key != 'linear')}"
    else:
        verdict = "not explained: no linear step with EDM's preconditioning has it"
    near = f"; nearest step before it, {nearest}, lies {_difference(known[nearest])} below" if nearest else ""
    return Row(
        "The exponent of the MLP of experiment 1 is that of preconditioned linear theory (rising, geometric)",
        "-",
        f"{_alpha(found['mlp'].measured('geometric'))}{near}",
        _alpha(theory),
        verdict,
        headline=True,
    )


def _criterion(found: Rungs) -> Row:
    one, other = (found["mlp"].compared(name).measured for name in CRITERIA)
    moved = change(one.variance, *(np.where(e.crossed("rising"), e.time, np.nan) for e in (other, one)))
    alphas = [_alpha(found["mlp"].measured(name)) for name in (*CRITERIA, "arithmetic")]
    theory = [found["mlp"].overlay(name) for name in (*CRITERIA, "arithmetic")]
    return Row(
        "The exponent depends on the criterion: the MLP of experiment 1, one training, geometric, harmonic, arithmetic "
        "threshold",
        "-",
        f"{', '.join(alphas)}; harmonic over geometric {_difference(moved)}",
        ", ".join(_alpha(fit) for fit in theory),
        "confirmed" if moved.shown else "not shown",
    )


def _error(found: Rungs) -> Row:
    shares = {step.key: _share(found[step.key]) for step in LADDER}
    grown = {step.key: shares[step.key] - shares[step.parent] for step in LADDER[1:]}
    most = max(grown, key=lambda key: grown[key])
    exact = [key for key, share in shares.items() if share < 0.01]
    return Row(
        "Which step costs the overlay its accuracy (rms log error over that of no learning)",
        "-",
        f"{most}: from {shares[found[most].step.parent]:.2g} to {shares[most]:.2g}; MLP {shares['mlp']:.2g}",
        "0",
        f"below 1 % in {len(exact)} steps: {', '.join(exact) or 'none'}",
    )


def _share(rung: Rung) -> float:
    return float(rung.goodness["rms"] / rung.goodness["baseline"])


# Text.


def _text(results: Results, found: Rungs) -> str:
    parts = [
        "From the linear network that lies on its theory to the MLP of experiment 1, one change at a time (each step keeps "
        "those above it), then single changes away from that MLP. Data, samples, 20-step sampler and latents are those of "
        "experiment 1, seed 0; the linear steps on the expected loss take the moments of the same 10,000 samples. *Change* "
        "is against the step it starts from, over the rising modes that crossed in both; its interval is from a bootstrap "
        "over these modes. It does not hold the scatter between seeds, which is below. Fits take 10 modes and 0.75 decades "
        "of variance: the modes that rise under EDM span about one.",
    ]
    for criterion in CRITERIA:
        parts += [f"**{criterion.capitalize()} threshold, rising modes.**", _table(found, criterion)]
    parts += [
        "*Theory of the step* is put together from its settings and not limited to the steps trained: one layer per noise "
        "level, or, beyond Wang & Pehlevan, one layer that all levels share as much as the MLP does before training. *Overlay* "
        "is the prediction drawn beside the training: that same theory where there is one, else one layer under the "
        "network's preconditioning, from the gain measured before training.",
        _scatter(results, found),
        _falling(found),
        "**The overlay's error**, rms of log variance over all modes outside the gray zone and all steps:",
        _errors(found),
        "**Sharing, in the theory alone**: exponents of the shared layer over the modes that rose in the step `shared`, by how "
        "much distant noise levels share (0: nothing; 0.65: what the MLP's gradients share before training):",
        _sharing(found),
        _reading(found),
    ]
    return "\n\n".join(part for part in parts if part)


def _table(found: Rungs, criterion: str) -> str:
    moved, rows = changes(found, criterion), []
    for key, rung in found.items():
        fit = rung.measured(criterion)
        crossed = f"{fit.count} of {fit.total}"
        cells = [_alpha(fit), crossed, _alpha(rung.theory(criterion)), _alpha(rung.overlay(criterion))]
        last = [_difference(moved[key]), str(moved[key].count)] if key in moved else ["-", "-"]
        rows.append([f"`{key}`", rung.step.label, *cells, *last])
    columns = ["step", "what is changed", "alpha [95 %]", "crossed", "theory of the step", "overlay", "change [95 %]"]
    return markdown([*columns, "modes in both"], rows)


def _scatter(results: Results, found: Rungs) -> str:
    """What another seed does, and which changes are larger than that."""
    gaussian = found["mlp"].stored.directory.parent
    there = [name for name in _SEEDS if (gaussian / name / "run.json").is_file()]
    seeds = load(gaussian, there).values()
    said = []
    for criterion in CRITERIA:
        values = [law(one.compared(criterion).measured, "rising").exponent for one in seeds]
        spread = float(np.ptp(values))
        moved = changes(found, criterion)
        drawn = [key for key in moved if key.startswith(_DRAWN) and moved[key].shown]
        clear = [f"`{key}`" for key in drawn if abs(moved[key].value) > spread]
        said.append(
            f"{criterion}: {', '.join(f'{value:.2f}' for value in values)} (range {spread:.2f}); changes of networks with "
            f"random weights that are shown and larger than it: {', '.join(clear) or 'none'}."
        )
    return (
        f"The MLP on {len(there)} seeds, each with a spectrum, samples and weights of its own, so that their range is more "
        f"than weights alone would give. {' '.join(said)}"
    )


def _falling(found: Rungs) -> str:
    rows, reasons = [], set()
    for key, rung in found.items():
        for criterion in CRITERIA:
            fit = rung.measured(criterion, "falling")
            if fit.determinable:
                rows.append([f"`{key}`", criterion, _alpha(fit), f"{fit.count} of {fit.total}"])
            else:
                reasons.add(fit.reason)
    other = f"Elsewhere not determinable: {'; '.join(sorted(reasons))}." if reasons else ""
    if not rows:
        return f"**Falling modes**: in no training an exponent. {other}"
    return f"**Falling modes.** {other}\n\n" + markdown(["step", "threshold", "alpha [95 %]", "crossed"], rows)


def _errors(found: Rungs) -> str:
    rows = []
    for key, rung in found.items():
        fit, about = rung.goodness, rung.stored.about["overlay"][rung.step.tracker]
        clock = "one factor fitted" if about["scale"] != 1.0 else "nothing fitted"
        share = f"{_share(rung):.2g}"
        family = about["theory"].partition("(")[0]
        rows.append([f"`{key}`", family, clock, f"{fit['rms']:.2g}", f"{fit['baseline']:.2g}", share])
    return markdown(["step", "theory", "clock", "rms", "nothing learnt", "ratio"], rows)


def _sharing(found: Rungs) -> str:
    rows = []
    for share in (0.0, 0.25, 0.5, 0.65, 0.8, 0.9):
        theory = SharedLayer(2e-3, LogNormalNoise(-1.2, 1.2), share=share)
        like = Rung(found["shared"].step, found["shared"].stored, theory)
        rows.append([f"{share:g}", *(_alpha(like.theory(criterion)) for criterion in CRITERIA)])
    return markdown(["share", *CRITERIA], rows)


def _reading(found: Rungs) -> str:
    """Every step in a sentence, chosen by whether its change is shown."""
    moved = changes(found, "geometric")
    groups: dict[str, list[str]] = {"raise": [], "lower": [], "leave it, as far as the modes can tell,": []}
    for key, one in moved.items():
        if one.determinable:
            name = "leave it, as far as the modes can tell," if not one.shown else "raise" if one.value > 0 else "lower"
            groups[name].append(f"`{key}`")
    said = [
        f"{', '.join(keys)} {verb} {'' if 'leave' in verb else 'it'}".rstrip() for verb, keys in groups.items() if keys
    ]
    same = {criterion: _agreeing(found, criterion)[0] for criterion in CRITERIA}
    agree = "; ".join(f"{name}: {', '.join(f'`{key}`' for key in keys) or 'none'}" for name, keys in same.items())
    return (
        f"**In short.** Of the geometric exponent of rising modes: {'; '.join(said)}. Linear steps whose exponent cannot be "
        f"told from the MLP's over the modes of both: {agree}."
    )


# Figure.


def _figure(found: Rungs) -> Figure:
    figure = Figure(figsize=(10, 6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[2, 1])
    places = {key: -i - (0.6 if rung.step in CHANGES else 0.0) for i, (key, rung) in enumerate(found.items())}
    for criterion, shift in zip(CRITERIA, (0.14, -0.14), strict=True):
        for key, rung in found.items():
            fit, at = rung.measured(criterion), places[key] + shift
            if fit.determinable:
                half = [[fit.exponent - fit.low], [fit.high - fit.exponent]]
                left.errorbar(fit.exponent, at, xerr=half, fmt="o", color=_COLOR[criterion], markersize=4.5, capsize=2)
            theory = rung.theory(criterion) or rung.overlay(criterion)
            if theory is not None and theory.determinable:
                mark = "+" if rung.dynamics is None else "x"
                left.plot(theory.exponent, at, mark, color="0.15", markersize=6, markeredgewidth=1.2, zorder=3)
        left.plot([], [], "o", color=_COLOR[criterion], label=f"{criterion} threshold")
    left.plot([], [], "x", color="0.15", linestyle="", label="theory of the step")
    left.plot([], [], "+", color="0.15", linestyle="", label="one layer, measured initial gain")
    for key, rung in found.items():
        right.plot(rung.goodness["rms"], places[key], "s", color="0.2", markersize=5)
        right.plot(rung.goodness["baseline"], places[key], "|", color="0.55", markersize=9, markeredgewidth=1.6)
    right.plot([], [], "s", color="0.2", label="overlay")
    right.plot([], [], "|", color="0.55", linestyle="", label="nothing learnt")
    border = (places["mlp"] + places[CHANGES[0].key]) / 2
    for axes in (left, right):
        axes.axhline(border, color="0.75", linewidth=0.8)
        axes.grid(axis="x", color="0.92")
        axes.legend(fontsize=7.5, framealpha=0.9)
    left.set_yticks(list(places.values()), list(places))
    left.set_xlabel("exponent of rising modes, 95 %")
    left.set_title("One change at a time; below the line: away from the MLP", loc="left", fontsize=10)
    right.set_xscale("log")
    right.set_xlabel("rms error of log variance")
    right.set_title("What the overlay misses", loc="left", fontsize=10)
    return figure
