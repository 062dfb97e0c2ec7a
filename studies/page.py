"""The page of results, its figures and the short table in the README, made from what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from spectral_lightning.emergence import EmergenceLaw, PowerLaw
from spectral_lightning.spectra.files import replacing
from studies import laws
from studies.exponents import exponent, gaussian
from studies.figures import FIGURES, save
from studies.orders import images, patches
from studies.predictions import predictions
from studies.statistics import Estimate, mean_ratio, placed
from studies.store import ROOT, STORE, load
from studies.trainings import NAMES, STUDIES

__all__ = ["computed", "macros", "page", "readme", "rendered", "write"]

_MARKS = ("<!-- results: made by `make results` -->", "<!-- end of results -->")


def _alpha(law: EmergenceLaw | PowerLaw | None, reason: bool = True) -> str:
    """An exponent with its interval, those of a curved law, or why there is none; "-" without a law.

    A theory has no interval; its local exponents are shown with the reasons.
    """
    if law is None:
        return "-"
    if isinstance(law, PowerLaw):
        if law.reason:
            return "-" if not reason else f"-: {law.reason}"
        local = f" ({', '.join(map(str, law.local))})" if reason and law.local else ""
        return f"{law.exponent:z.2f}{local}"
    if law.local:
        return f"curved: {', '.join(map(str, law.local))}"
    shown = str(Estimate(law.exponent, law.low, law.high))
    return f"{shown}: {law.reason}" if reason and law.reason else shown


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 600 else f"{seconds / 60:.0f} min"


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters |= {
    "alpha": _alpha,
    "duration": _duration,
    "g": lambda value, digits=2: f"{value:.{digits}g}",
    "mean": np.mean,
    "median": np.median,
    "range": np.ptp,
    "mean_ratio": mean_ratio,
    "scatter": lambda ratios: np.exp(np.sqrt(np.mean(np.log(ratios) ** 2))),
    "placed": placed,
    "updates": lambda value: f"{value:.1f}" if np.isfinite(value) else "not yet",
}
_TEMPLATES.globals["names"] = NAMES


def computed(store: Path = STORE) -> dict[str, Any]:
    """Everything that the page reports, by study; ``about`` holds the number of trainings and the wall time.

    Raises:
        FileNotFoundError: if a training is not stored.
    """
    results = {name: load(store / name, [run.name for run in runs]) for name, runs in STUDIES.items()}
    about = {}
    for name, runs in STUDIES.items():
        stored = [results[name][run.name].about for run in runs]
        seconds, tracking = (sum(one[key] for one in stored) for key in ("seconds", "tracking_seconds"))
        about[name] = {"runs": len(stored), "seconds": seconds, "tracking": tracking / seconds}
    return {
        "about": about,
        "gaussian": gaussian(results["gaussian"]),
        "patches": patches(results["patches"]),
        "images": images(results["images"]),
        "exponent": exponent(results["exponent"], results["gaussian"]),
        "predictions": predictions(results["predictions"]),
    }


def rendered(template: str, found: Mapping[str, Any]) -> str:
    """A template of the studies with its values, in Markdown."""
    return _TEMPLATES.get_template(template).render(found)


def page(found: Mapping[str, Any]) -> str:
    """The page, in Markdown."""
    return rendered("page.md.j2", found)


def macros() -> Any:
    """The templates' macros, which hold the rules of the verdicts."""
    return _TEMPLATES.get_template("macros.md.j2").module


def readme(found: Mapping[str, Any], text: str) -> str:
    """The README with its table of results regenerated.

    Raises:
        ValueError: if the text does not hold the marks of the table.
    """
    if any(text.count(mark) != 1 for mark in _MARKS):
        raise ValueError(f"`text` must hold each of {_MARKS} once. Put them where the table belongs.")
    before, _, rest = text.partition(_MARKS[0])
    table = _TEMPLATES.get_template("readme.md.j2").render(found).strip()
    return f"{before}{_MARKS[0]}\n{table}\n{_MARKS[1]}{rest.partition(_MARKS[1])[2]}"


def write(store: Path = STORE, readme_file: Path = ROOT / "README.md") -> None:
    """Write the page, its figures and the table of the README.

    Args:
        store: directory of the stored trainings, which the page is written to.
        readme_file: the README.
    """
    found = computed(store)
    for name, draw in FIGURES.items():
        save(draw(found[name]), store / f"{name}.png")
    texts = (store / "README.md", page(found)), (readme_file, readme(found, readme_file.read_text()))
    laws.write()
    for file, text in texts:
        with replacing(file) as part:
            part.write_text(text)
