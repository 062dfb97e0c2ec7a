"""Figures, logger sinks, result files, the summary table, and reports on the theory alone."""

from spectral_lightning.report.figures import emergence_figure, gain_figure, group_figure, overlay_figure
from spectral_lightning.report.files import RunFiles, free_directory, latest_run
from spectral_lightning.report.sinks import LoggerSinks
from spectral_lightning.report.summary import summarise, summary_table
from spectral_lightning.report.theory.command import draw_paper_figures, draw_theory, print_exponents

__all__ = [
    "LoggerSinks",
    "RunFiles",
    "draw_paper_figures",
    "draw_theory",
    "emergence_figure",
    "free_directory",
    "gain_figure",
    "group_figure",
    "latest_run",
    "overlay_figure",
    "print_exponents",
    "summarise",
    "summary_table",
]
