from .answers import print_emergence, print_forecast
from .figures import emergence_figure, gain_figure, group_figure, overlay_figure
from .files import RunFiles, free_directory, history_document, latest_run
from .floor import floor_figure
from .html import write_report
from .ratio import training_ratio
from .sinks import LoggerSinks
from .summary import summarise, summary_table
from .theory.command import draw_paper_figures, draw_theory, print_exponents

__all__ = [
    "LoggerSinks",
    "RunFiles",
    "draw_paper_figures",
    "draw_theory",
    "emergence_figure",
    "floor_figure",
    "free_directory",
    "gain_figure",
    "group_figure",
    "history_document",
    "latest_run",
    "overlay_figure",
    "print_emergence",
    "print_exponents",
    "print_forecast",
    "summarise",
    "summary_table",
    "training_ratio",
    "write_report",
]
