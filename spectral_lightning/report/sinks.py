"""Sends scalars, figures and chart layouts to any logger, according to the methods it offers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from spectral_lightning.spectra.files import replacing

__all__ = ["LoggerSinks"]


class LoggerSinks:
    """Writes to all loggers of a training, with explicit steps.

    Figures and layouts use the methods that a logger or its ``experiment`` offers: ``add_image`` and ``add_custom_scalars``
    (a ``SummaryWriter``), the logger's ``log_image`` (Weights & Biases), or ``log_image`` of the client of a logger with a
    ``run_id`` (MLflow).

    ``self.log`` would lose, re-date and repeat values measured on a logarithmic schedule. Use one object per run:
    TensorBoard keeps only the last custom-scalar layout, so all charts are collected and written once.

    Args:
        loggers: objects with ``log_metrics(values, step=...)`` and optionally an ``experiment``.
        figure_dir: directory for PNG copies of the figures; None keeps none.
    """

    def __init__(self, loggers: Iterable[Any], figure_dir: Path | None = None) -> None:
        self.loggers = list(loggers)
        self.figure_dir = figure_dir
        self._layout: dict[str, dict[str, list[Any]]] = {}
        self._layout_written = False

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log values at a step, which may be a past one."""
        for logger in self.loggers:
            logger.log_metrics(dict(values), step=step)

    def chart(self, category: str, title: str, tags: Sequence[str], *, first: bool = False) -> None:
        """Add a chart that shows several tags together; call before :meth:`write_layout`.

        With ``first``, a new category comes before those known so far.
        """
        if first and category not in self._layout:
            self._layout = {category: {}, **self._layout}
        # TensorBoard matches a tag as a regular expression at its start.
        patterns = [f"^{re.escape(tag)}$" for tag in tags]
        self._layout.setdefault(category, {})[title] = ["Multiline", patterns]

    def write_layout(self) -> None:
        """Write the layout of all charts, once."""
        if self._layout_written or not self._layout:
            return
        self._layout_written = True
        for logger in self.loggers:
            experiment = logger.experiment
            if hasattr(experiment, "add_custom_scalars"):
                experiment.add_custom_scalars(self._layout)

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        """Send a figure to the loggers that accept one, and save it as PNG, replacing the previous one of its tag."""
        # Drawn once for all loggers: drawing is nearly the whole cost of a figure.
        pixels = _pixels(figure)
        for logger in self.loggers:
            experiment = logger.experiment
            if hasattr(experiment, "add_image"):
                experiment.add_image(tag, pixels, step, dataformats="HWC")
            elif hasattr(logger, "log_image"):
                logger.log_image(tag, [pixels], step=step)
            elif hasattr(logger, "run_id") and hasattr(experiment, "log_image"):
                experiment.log_image(str(logger.run_id), pixels, key=tag, step=step)
        if self.figure_dir is not None:
            self.figure_dir.mkdir(parents=True, exist_ok=True)
            with replacing(self.figure_dir / (tag.rsplit("/", 1)[-1] + ".png")) as part:
                Image.fromarray(pixels).save(part, format="PNG")


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    figure.set_dpi(150)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]
