"""The report: what the run's files hold, filled into a template that escapes every text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from spectral_lightning.report.html import charts, tables
from spectral_lightning.report.html.pictures import mode_pictures, sample_rows
from spectral_lightning.report.html.run import Run, find_runs, run_names
from spectral_lightning.report.html.svg import Axis, Chart, HeatMap, Series
from spectral_lightning.spectra.files import replacing

__all__ = ["write_report"]

_HOME = Path(__file__).parent
_LIGHT = ("#3b1f7a", "#2d5fb3", "#15848c", "#4c9a3f", "#b98600", "#c4481c")
_DARK = ("#c3a6ff", "#82b4ff", "#4fcfd0", "#93d977", "#f1cc55", "#ff9a6b")
_PANELS = 6
_MISSING = {
    "prediction.npz": "No prediction: attach AnalyticOverlay.",
    "emergence.json": "No emergence.json: the default criterion is used. Attach EmergenceFitter to choose another.",
    "gain": "No gains: measure them with Sampling(track_gain=True).",
    "over_floor": "No loss over its linear floor: it needs a denoiser, and Sampling(track_floor=True), the default.",
    "forecast.json": "No planned end: the run's directory has no forecast.json. Attach EmergenceFitter.",
    "overlay.json": "No theory to judge: attach AnalyticOverlay.",
}


def write_report(runs: list[str], output: str | None = None, name: str | None = None) -> Path:
    """Write an HTML report about one run, or several side by side, and print where it lies.

    It needs no network and no other file, and shows what the directories hold; a missing part costs a line that says how to
    get it.

    Args:
        runs: directories of runs, or parents, of which the newest run is taken, with all its trackers; or npz files with a
            history.
        output: the file to write; by default ``report.html`` in the first run's directory.
        name: of the tracker or monitor below a parent; all by default.

    Returns:
        The file.

    Raises:
        FileNotFoundError: if a directory holds no run.
        ValueError: if a history cannot be read, as one of a newer format, or no run is given.
    """
    if not runs:
        raise ValueError("`runs` must name at least one run, got none.")
    paths = list(dict.fromkeys(found for path in runs for found in find_runs(Path(path), name)))
    loaded = [Run(path, label) for path, label in zip(paths, run_names(paths), strict=True)]
    first = loaded[0]
    file = (
        Path(output)
        if output is not None
        else first.path.with_suffix(".html")
        if first.alone
        else first.path / "report.html"
    )
    if file.is_dir():
        file = file / "report.html"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = _template().render(_page(loaded))
    with replacing(file) as part:
        part.write_text(text, encoding="utf-8")
    print(f"Report: {file}")
    return file


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(_HOME), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("template.html")


def _page(runs: Sequence[Run]) -> dict[str, Any]:
    measured = [run for run in runs if len(run.history)]
    comparison = _comparison(measured) if len(measured) > 1 else None
    documents = [_run(run, f"run{index}") for index, run in enumerate(runs)]
    figures = [figure for part in [*documents, *([comparison] if comparison else [])] for figure in part["figures"]]
    return {
        "title": runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        "runs": documents,
        "comparison": comparison,
        "data": {figure.ident: figure.data for figure in figures},
        "style": Markup((_HOME / "style.css").read_text()),
        "ramps": Markup(_ramps()),
        "script": Markup((_HOME / "script.js").read_text()),
    }


def _run(run: Run, ident: str) -> dict[str, Any]:
    """Everything that the template shows about one run."""
    document: dict[str, Any] = {
        "name": run.name,
        "ident": ident,
        "problems": run.problems,
        "figures": [],
        "empty": not len(run.history),
    }
    if not len(run.history):
        return document
    overlay, forecast = run.document("overlay.json"), run.document("forecast.json")
    gains, floor = charts.gain_chart(run, f"{ident}-gain"), charts.floor_chart([run], f"{ident}-floor")
    document |= {
        "sentence": run.outlook.sentence,
        "tiles": tables.tiles(run),
        "about": tables.about(run),
        "config": run.config,
        "curves": charts.curve_chart(run, f"{ident}-curves"),
        "heat": charts.heat_map(run, f"{ident}-heat"),
        "emergence": charts.emergence_chart([run], f"{ident}-law"),
        "ratio": charts.ratio_chart([run], f"{ident}-ratio"),
        "gain": gains,
        "floor": floor,
        "laws": tables.law_rows(run),
        "groups": tables.group_rows(run),
        "modes": tables.mode_rows(run),
        "judgement": tables.judgement_rows(run),
        "departures": [str(text) for text in overlay.get("departures") or ()],
        "forecast": run.outlook.rows(),
        "cost": tables.cost_rows(run),
        "pictures": mode_pictures(run),
        "samples": sample_rows(run),
        "missing": {
            "prediction": "" if run.prediction is not None else _MISSING["prediction.npz"],
            "criterion": "" if run.document("emergence.json") else _MISSING["emergence.json"],
            "gain": "" if gains is not None else _MISSING["gain"],
            "floor": "" if floor is not None else _MISSING["over_floor"],
            "forecast": "" if forecast else _MISSING["forecast.json"],
            "overlay": "" if overlay else _MISSING["overlay.json"],
        },
    }
    shown = (document["curves"], document["heat"], document["emergence"], document["ratio"], gains, floor)
    document["figures"] = [figure for figure in shown if figure is not None]
    return document


def _comparison(runs: Sequence[Run]) -> dict[str, Any]:
    """Charts of several runs on common axes, and the table of differences."""
    panels = _panels(runs)
    floor = charts.floor_chart(runs, "all-floor")
    parts = [
        charts.emergence_chart(runs, "all-law"),
        charts.ratio_chart(runs, "all-ratio"),
        *([floor] if floor else []),
    ]
    figures: list[Chart | HeatMap] = [*panels, *parts]
    return {
        "names": [run.name for run in runs],
        "sentences": [(run.name, run.outlook.sentence) for run in runs],
        "differences": tables.differences(runs),
        "panels": panels,
        "charts": parts,
        "figures": figures,
        "note": "" if panels else "No common curves: the runs have different numbers of modes.",
    }


def _panels(runs: Sequence[Run]) -> list[Chart]:
    """One chart per mode, each with a curve per run, on common axes."""
    if len({len(run.history.target) for run in runs}) > 1:
        return []
    modes = charts.shown_modes(runs[0].history, _PANELS)
    x = Axis.over("optimizer updates", [[0], *(run.history.steps for run in runs)], "step", 0.02)
    y = Axis.over("variance of generated samples", [run.smooth.variance[:, modes] for run in runs])
    panels = []
    for k in modes:
        series = []
        for index, run in enumerate(runs):
            key, color, smooth = f"r{index}", f"r{index % 8}", run.smooth
            values = smooth.variance[:, k]
            series.append(Series(key, run.name, smooth.steps, values, color, dash=index % 4))
            end = [float(smooth.steps[-1])]
            series.append(
                Series(key, f"{run.name}, target", end, smooth.fixed_point[[k]], color, shape="target", hover=False)
            )
        labels = sorted({run.labels[k] for run in runs})
        variances = sorted({float(f"{run.history.target[k]:.3g}") for run in runs}, reverse=True)
        title = f"{' / '.join(labels)}, data variance {' / '.join(tables.number(v) for v in variances)}"
        panels.append(Chart(f"all-mode{k}", title, x, y, series))
    return panels


def _ramps() -> str:
    """Colours of modes and of earlier measurements as variables of the style sheet, for both themes."""

    def ramp(stops: Sequence[str]) -> str:
        colors = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in stops], np.float64)
        place = np.linspace(0, len(stops) - 1, charts.RAMP)
        mixed = np.stack([np.interp(place, range(len(stops)), colors[:, i]) for i in range(3)], 1).round().astype(int)
        return "".join(f"--m{i}:#{r:02x}{g:02x}{b:02x};" for i, (r, g, b) in enumerate(mixed.tolist()))

    dark = ramp(_DARK)
    return f":root{{{ramp(_LIGHT)}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
