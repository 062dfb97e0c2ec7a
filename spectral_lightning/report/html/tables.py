"""The texts and tables of a report, each number from the run's files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from spectral_lightning.prediction import BASELINES
from spectral_lightning.report.html.law import WAYS, emerged
from spectral_lightning.report.html.run import Run, finite

__all__ = [
    "about",
    "cost_rows",
    "differences",
    "entries",
    "group_rows",
    "judgement_rows",
    "law_rows",
    "mode_rows",
    "number",
    "tiles",
]

NOTHING = "-"

_MOST_MODES = 1024
_THEORY = {"theory": "Theory", "modes": "Modes", "start": "Start", "clock": "Clock"}
_FITS = {"goodness_of_fit": "Whole run after step 0", "goodness_after_calibration": "After calibration"}
_JUDGED = {"all_steps": "all steps", "after_calibration": "after calibration", "refit": "all fitted to all steps"}
_SAMPLING = (
    ("Data", "basis"), ("Moments", "moments"), ("Denoiser", "denoiser"), ("Weights", "weights"), ("Sampler", "sampler"),
    ("Latents", "latents"), ("Standard error", "standard_error"), ("Held-out data", "held_out"),
)  # fmt: skip


def number(value: Any, digits: int = 4) -> str:
    """A number to read: four digits, thousands separated; a dash if there is none."""
    if value is None or (isinstance(value, float | np.floating) and not math.isfinite(value)):
        return NOTHING
    if isinstance(value, bool | np.bool_ | str) or not isinstance(value, int | float | np.number):
        return str(value)
    known = float(value)
    if known.is_integer() and abs(known) < 1e15:
        return f"{int(known):,}"
    if 1e4 <= abs(known) < 1e9:
        return f"{known:,.0f}"
    return f"{known:,.{digits}g}"


def tiles(run: Run) -> list[tuple[str, str, str]]:
    """The numbers at the head: text, value, remark."""
    history, found = run.history, run.emergence
    crossed, eligible = int(found.crossed.sum()), int(found.eligible.sum())
    shown = [
        ("modes emerged", f"{crossed:,} / {eligible:,}", f"of {len(history.target):,}; {found.criterion} threshold")
    ]
    shown += [
        (
            f"exponent, {way} modes",
            law.exponent,
            f"theory {found.theory[way].exponent or NOTHING}" if way in found.theory else "",
        )
        for way, law in found.measured.items()
        if law.exponent
    ]
    shown.append(("last step", number(history.last_step), f"{len(history):,} measurement{'s' * (len(history) != 1)}"))
    overlay = run.document("overlay.json")
    fit, judgement = overlay.get("goodness_of_fit") or {}, overlay.get("judgement")
    judged = judgement.get("all_steps") if isinstance(judgement, dict) else None
    if isinstance(judged, dict) and judged.get("cells"):
        others = [float(judged[key]) for key in BASELINES if isinstance(judged.get(key), float)]
        best = f"rms log; {number(min(others), 3)} for the best baseline" if others else "rms log"
        shown.append(("theory's error", number(judged.get("theory"), 3), best))
    elif fit.get("cells") and {"rms", "baseline"} <= set(fit):
        shown.append(
            ("theory's error", number(fit["rms"], 3), f"rms log; {number(fit['baseline'], 3)} for unchanged variances")
        )
    seconds, total = _cost(run)
    if total:
        spent = sum(seconds.values())
        shown.append(("cost of tracking", f"{spent / total:.1%}", f"{spent:.1f} of {total:.1f} s"))
    return shown


def about(run: Run) -> list[tuple[str, str]]:
    """What was measured and how."""
    history = run.history
    rows = [(title, str(history.metadata[key])) for title, key in _SAMPLING if key in history.metadata]
    rows.append(("Measurements", f"{len(history):,}, at steps {history.steps[0]:,} to {history.last_step:,}"))
    if "num_samples" in history:
        rows.append(
            (
                "Samples per measurement",
                " to ".join(
                    number(n) for n in sorted({int(history["num_samples"].min()), int(history["num_samples"].max())})
                ),
            )
        )
    if "standard_error" in history:
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = finite(history["standard_error"][-1] / history.variance[-1])
        if len(relative):
            rows.append(
                (
                    "Accuracy",
                    f"standard error {np.median(relative):.1%} of a variance, median over modes at the last step",
                )
            )
    if "sampler_bias" in history:
        bias = np.abs(history["sampler_bias"])
        known = np.flatnonzero(np.isfinite(bias).any(1))
        if len(known):
            text = ", ".join(f"{np.nanmedian(bias[i]):.1%} at step {history.steps[i]:,}" for i in known)
            rows.append(("Sampler's bias on the network", f"median over modes: {text}"))
    if "non_finite" in history and history["non_finite"].any():
        rows.append(("Samples left out", f"{int(history['non_finite'].sum()):,} with NaN or infinity"))
    null = int(history["null"].sum()) if "null" in history else 0
    rows.append(
        ("Modes", f"{len(history.target):,}" + (f", {null:,} of them without variance in the data" if null else ""))
    )
    return rows


def law_rows(run: Run) -> list[list[str]]:
    """Direction, measured law, and the theory's of the modes that crossed in both."""
    found = run.emergence
    return [
        [f"{way} modes", found.measured[way].text, *([found.theory[way].text] if way in found.theory else [])]
        for way in WAYS
    ]


def group_rows(run: Run) -> list[list[str]]:
    """Emergence in every class: name, share of the data, crossed and eligible modes, laws."""
    history, rows = run.history, []
    for place, name in enumerate(history.groups):
        found = emerged(history.group(name), None, run.document("emergence.json"))
        share = number(float(history["group_share"][place]), 3) if "group_share" in history else NOTHING
        counts = f"{int(found.crossed.sum()):,} / {int(found.eligible.sum()):,}"
        rows.append([name, share, counts, *(found.measured[way].text for way in WAYS)])
    return rows


def mode_rows(run: Run) -> list[list[str]]:
    """Every mode: name, variances, emergence. At most 1,024."""
    raw, smooth, found = run.history, run.smooth, run.emergence
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = smooth.variance[-1] / smooth.fixed_point
    variances = (raw.target, raw.fixed_point, raw.variance[0], raw.variance[-1], ratio)
    columns = (run.labels, *variances, found.status, found.time, found.predicted)
    rows = list(zip(*columns, strict=True))[:_MOST_MODES]
    return [[number(cell, 5) for cell in row] for row in rows]


def judgement_rows(run: Run) -> list[tuple[str, str]]:
    """What the theory was, how its time was fitted, and how well it does beside baselines."""
    document = dict(run.document("overlay.json"))
    document.pop("departures", None)
    rows = [(title, str(document.pop(key))) for key, title in _THEORY.items() if document.get(key)]
    judgement = document.get("judgement")
    if isinstance(judgement, dict):
        document["judgement"] = {key: value for key, value in judgement.items() if key not in _JUDGED}
        judged = {title: judgement[key] for key, title in _JUDGED.items() if isinstance(judgement.get(key), dict)}
        rows += [
            (f"Rms log error (fitted numbers), {title}", f"{errors['verdict']}; {number(errors.get('cells'))} points")
            for title, errors in judged.items()
            if errors.get("verdict")
        ]
    for key, title in _FITS.items():
        fit = document.get(key)
        if isinstance(fit, dict) and {"rms", "baseline", "cells"} <= set(fit):
            del document[key]
            beside = f"{number(fit['baseline'])} for unchanged variances; {number(fit['cells'])} cells"
            rows.append((title, f"rms log error {number(fit['rms'])}; {beside}"))
    return rows + entries(document)


def entries(document: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A JSON document as rows, nested keys joined."""
    rows: list[tuple[str, str]] = []
    for key, value in document.items():
        title = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, dict):
            rows += entries(value, f"{title}: ")
        elif isinstance(value, list):
            rows.append((title, ", ".join(number(item) for item in value)))
        else:
            rows.append((title, number(value)))
    return rows


def cost_rows(run: Run) -> tuple[list[tuple[str, str, float]], str]:
    """Kinds of work, their seconds and shares of the longest; and a sentence on the whole."""
    seconds, total = _cost(run)
    if not total:
        return [], "The run has not ended, so its cost is unknown."
    spent, most = sum(seconds.values()), max([*seconds.values(), 1e-9])
    rows = [
        (kind, f"{value:,.2f} s", value / most) for kind, value in sorted(seconds.items(), key=lambda item: -item[1])
    ]
    failed = len(run.document("cost.json").get("failures", ()))
    text = f"Tracking took {spent:,.1f} of {total:,.1f} s, {spent / total:.1%}."
    return rows, text + (f" {failed} measurement{'s' * (failed != 1)} failed." if failed else "")


def _cost(run: Run) -> tuple[dict[str, float], float]:
    """Seconds by kind of work, and in total; 0 if unknown."""
    cost = run.document("cost.json")
    return cost.get("seconds") or {}, float(cost.get("total") or 0.0)


def differences(runs: Sequence[Run]) -> list[list[str]]:
    """One row per quantity, one column per run; the emergence times are compared with those of the first run."""

    def row(title: str, cell: Any) -> list[str]:
        return [title, *(cell(run) for run in runs)]

    def meta(key: str) -> Any:
        return lambda run: str(run.history.metadata.get(key, NOTHING))

    setting = [row(key, meta(key)) for key in ("weights", "basis", "sampler", "denoiser", "held_out")]
    rows = [
        *(cells for cells in setting if len(set(cells[1:])) > 1),
        row("last step", lambda run: number(run.history.last_step)),
        row("modes emerged", lambda run: f"{int(run.emergence.crossed.sum()):,} / {int(run.emergence.eligible.sum()):,}"),
    ]  # fmt: skip
    for way in WAYS:
        rows.append(row(f"law, {way} modes", lambda run, way=way: run.emergence.measured[way].text))
    rows.append(row("generated / target variance at the end, median [10 %, 90 %]", _final_ratio))
    rows.append(
        row("emergence step / that of the first run, median [10 %, 90 %]", lambda run: _time_ratio(runs[0], run))
    )
    rows.append(row("generated variance / that of the first run at the end", lambda run: _variance_ratio(runs[0], run)))
    return rows


def _final_ratio(run: Run) -> str:
    with np.errstate(divide="ignore", invalid="ignore"):
        return _quantiles(run.smooth.variance[-1] / run.smooth.fixed_point)


def _time_ratio(first: Run, run: Run) -> str:
    if not _same_modes(first, run):
        return "other modes"
    both = first.emergence.crossed & run.emergence.crossed & (first.emergence.time > 0)
    ratio = run.emergence.time[both] / first.emergence.time[both]
    return f"{_quantiles(ratio)}, {len(ratio):,} mode{'s' * (len(ratio) != 1)}" if len(ratio) else "no common mode"


def _variance_ratio(first: Run, run: Run) -> str:
    if not _same_modes(first, run):
        return "other modes"
    with np.errstate(divide="ignore", invalid="ignore"):
        return _quantiles(run.smooth.variance[-1] / first.smooth.variance[-1])


def _same_modes(first: Run, run: Run) -> bool:
    mine, other = (one.history.metadata.get("fingerprint") for one in (first, run))
    same = mine == other if mine and other else np.array_equal(first.history.target, run.history.target)
    return bool(same) and len(first.history.target) == len(run.history.target)


def _quantiles(values: Any) -> str:
    found = finite(values)
    if not len(found):
        return NOTHING
    low, middle, high = np.quantile(found, (0.1, 0.5, 0.9))
    return f"{number(middle, 3)} [{number(low, 3)}, {number(high, 3)}]"
