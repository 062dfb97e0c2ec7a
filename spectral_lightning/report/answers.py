"""Answers about a run after the fact: what it has learnt, what is to come, and when each mode emerged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spectral_lightning.report.files import RunFiles, write_csv
from spectral_lightning.report.html import tables
from spectral_lightning.report.html.run import Run, find_runs
from spectral_lightning.spectra.files import replacing

__all__ = ["print_emergence", "print_forecast", "run_sentence"]


def run_sentence(files: RunFiles) -> str:
    """One sentence on what a run has learnt, what is missing, and when it will come."""
    return Run(files.path, "").outlook.sentence


def print_forecast(history: str, end: int | None = None, output: str | None = None, name: str | None = None) -> None:
    """Print what a run has learnt, what is missing, and when it will come.

    Modes are judged by the criterion of the run's ``emergence.json``, and the theory of its ``prediction.npz`` helps.

    Args:
        history: directory of a run, or a parent, of which the newest run is taken; or an npz file with a history.
        end: last step of the training, for what will be missing there; by default the one planned, if ``forecast.json`` has it.
        output: JSON file to write all numbers to.
        name: of the tracker or monitor below a parent; by default that of the newest.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if the history cannot be read, as one of a newer format, or ``output`` is not a JSON file.
    """
    run, file = _run(history, name), _file(output, ".json")
    found = run.outlook if end is None else run.forecast(end)
    console = Console()
    for text in (*run.problems, found.sentence):
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(_table(["", ""], found.rows(), show_header=False))
    if file is not None:
        RunFiles(file.parent).write_json(file.name, found.document())


def print_emergence(history: str, output: str | None = None, name: str | None = None) -> None:
    """Print the emergence of every mode of a run, and the law.

    Modes are judged by the criterion of the run's ``emergence.json``.

    Args:
        history: directory of a run, or a parent, of which the newest run is taken; or an npz file with a history.
        output: CSV file to write the modes to, or JSON file for modes and laws.
        name: of the tracker or monitor below a parent; by default that of the newest.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if the history cannot be read, as one of a newer format, or ``output`` is neither a CSV nor a JSON file.
    """
    run, file = _run(history, name), _file(output, ".csv", ".json")
    console = Console()
    for text in run.problems:
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if not len(run.history):
        console.print(run.outlook.sentence)
    else:
        kept = {0: "mode", 1: "data variance", 5: "last / target", 6: "status", 7: "step", 8: "theory"}
        rows = ([row[column] for column in kept] for row in tables.mode_rows(run))
        console.print(_table(list(kept.values()), rows))
    found = run.emergence
    for way, law in found.measured.items():
        theory = f"; theory {found.theory[way].text}" if way in found.theory else ""
        console.print(f"{way.capitalize()} modes: {law.text}{theory}", markup=False, highlight=False, soft_wrap=True)
    if file is None:
        return
    modes = {
        "label": run.labels,
        "variance": run.history.target.tolist(),
        "target": run.history.fixed_point.tolist(),
        "direction": found.way,
        "status": found.status,
        "emergence_step": found.time.tolist(),
        "theory_emergence_step": found.predicted.tolist(),
    }
    if file.suffix == ".csv":
        with replacing(file) as part:
            write_csv(
                part, ["mode", *modes], ((k + 1, *row) for k, row in enumerate(zip(*modes.values(), strict=True)))
            )
        return
    laws = {
        kind: {way: {"text": law.text, "exponent": law.exponent} for way, law in by_way.items()}
        for kind, by_way in (("measured", found.measured), ("theory", found.theory))
    }
    document = {"criterion": found.criterion, "last_step": run.history.last_step, "modes": modes, "laws": laws}
    RunFiles(file.parent).write_json(file.name, document)


def _run(path: str, name: str | None) -> Run:
    return Run(find_runs(Path(path), name)[0], "")


def _file(output: str | None, *suffixes: str) -> Path | None:
    if output is None:
        return None
    if Path(output).suffix not in suffixes:
        raise ValueError(f"`output` must be a file whose name ends with {' or '.join(suffixes)}, got {output!r}.")
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    return Path(output)


def _table(columns: list[str], rows: Any, **options: Any) -> Table:
    table = Table(*columns, **options)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    return table
