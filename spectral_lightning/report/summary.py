"""Summary table of a run, computed from its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from spectral_lightning.prediction import Comparison, compare
from spectral_lightning.report.files import RunFiles, latest_run
from spectral_lightning.spectra import HistoryDirectory, SpectralHistory

__all__ = ["read_history", "summarise", "summary_lines", "summary_table"]

_SHOWN = 3  # noise levels


def summary_table(run: RunFiles) -> Table:
    """Crossed modes and exponents per direction, measured and predicted.

    Emergence is recomputed from ``history.npz`` (or ``history/`` if the run was killed) and ``prediction.npz``.

    Raises:
        FileNotFoundError: if the directory holds no history.
    """
    history, predicted = read_history(run), run / "prediction.npz"
    prediction = SpectralHistory.load(predicted) if predicted.exists() else None
    settings = run.read_json("emergence.json")
    criterion, gray = settings.get("criterion", "geometric"), float(settings.get("gray_factor", 2.0))
    result = compare(history, prediction, criterion, gray)
    table = Table(title=f"{history.metadata.get('basis', 'modes')}, {criterion} threshold, by step {history.last_step}")
    for column in ("", "rising modes", "falling modes"):
        table.add_column(column)
    for name, cells in _rows(result):
        table.add_row(name, *cells)
    return table


def summary_lines(run: RunFiles) -> list[str]:
    """Lines on the whole run: its size, the theory's fit, the cost of tracking."""
    history, fit, cost = (
        read_history(run),
        run.read_json("overlay.json").get("goodness_of_fit"),
        run.read_json("cost.json"),
    )
    lines = [f"{len(history.target)} modes, {len(history)} measurement{'s' if len(history) != 1 else ''}."]
    if "sampler_bias" in history:
        bias = np.abs(history["sampler_bias"])
        known = np.flatnonzero(np.isfinite(bias).any(1))
        if len(known):
            text = ", ".join(f"{np.nanmedian(bias[i]):.1%} at step {history.steps[i]}" for i in known)
            lines.append(f"Bias of the sampler on the network, median over modes: {text}.")
    if "over_floor" in history:
        lines.append(_below_floor(history))
    if fit and fit["cells"]:
        lines.append(f"Theory's fit: rms log error {fit['rms']:.2f}; {fit['baseline']:.2f} for unchanged variances.")
    if cost:
        seconds, total = cost["seconds"], cost["total"]
        parts = ", ".join(f"{kind} {value:.1f} s" for kind, value in sorted(seconds.items(), key=lambda item: -item[1]))
        lines.append(f"Tracking took {sum(seconds.values()) / total:.0%} of {total:.0f} s: {parts}.")
    else:
        lines.append("The run has not ended, so its cost is unknown.")
    return lines


def _below_floor(history: SpectralHistory) -> str:
    """Where the denoiser knows more than mean and covariance, by two standard errors, the clearest levels first."""
    row, levels = history.row(-1), history["levels"]
    ratio, error = row["over_floor"], row["over_floor_error"]
    below = np.flatnonzero(ratio + 2 * error < 1)
    where = "nowhere"
    if len(below):
        shown = below[np.argsort(ratio[below])][:_SHOWN]
        found = ", ".join(f"{ratio[i]:.2f} +- {error[i]:.2f} at sigma = {levels[i]:.3g}" for i in shown)
        where = f"at {len(below)} of {len(levels)} noise levels: {found}" + (", ..." if len(below) > _SHOWN else "")
    about = history.metadata.get("held_out", "held-out points")
    return f"Loss below its linear floor on {about}, step {history.last_step}, {where}."


def read_history(run: RunFiles) -> SpectralHistory:
    """The history of a run, also of one that was killed.

    Raises:
        FileNotFoundError: if the directory holds no history.
    """
    saved = run / "history.npz"
    return SpectralHistory.load(saved) if saved.exists() else HistoryDirectory(run.history).load()


def summarise(path: str, name: str = "spectral") -> None:
    """Print a run's summary table and the paths of its results.

    Args:
        path: directory of a run, or a parent, of which the newest run is taken.
        name: of the tracker or monitor.
    """
    from spectral_lightning.report.answers import run_sentence  # noqa: PLC0415  # which reads runs by `read_history`

    run = latest_run(path, name)
    console = Console()
    console.print(summary_table(run))
    console.print(run_sentence(run), highlight=False, soft_wrap=True)
    for line in summary_lines(run):
        console.print(line, highlight=False)
    console.print(f"Results: {run.path}", soft_wrap=True, highlight=False)
    for file in sorted(Path(run.path).rglob("*.png")):
        console.print(f"Figure:  {file}", soft_wrap=True, highlight=False)


def _rows(result: Comparison) -> list[tuple[str, list[str]]]:
    ways, own = ("rising", "falling"), result.measured
    theory = [result.predicted_law(way) for way in ways]
    back = [np.flatnonzero(own.crossed(way) & (own.back > 0)) for way in ways]
    rows = [
        ("crossed / eligible", [f"{own.crossed(way).sum()} / {own.eligible(way).sum()}" for way in ways]),
        ("stopped short", [f"{(own.eligible(way) & ~own.able(way)).sum()}" for way in ways]),
        ("exponent alpha [95 %]", [str(result.measured_law(way)) for way in ways]),
        ("alpha of the theory", ["no theory" if law is None else str(law) for law in theory]),
    ]
    if any(map(len, back)):
        rows.append(("crossed, then went back", [_named(modes) for modes in back]))
    return rows


def _named(modes: NDArray[np.intp]) -> str:
    shown = ", ".join(str(k + 1) for k in modes[:_SHOWN])
    return f"{len(modes)}: modes {shown}{', ...' if len(modes) > _SHOWN else ''}" if len(modes) else "none"
