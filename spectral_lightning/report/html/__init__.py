"""One self-contained HTML file about one or several runs: inline SVG, a little JavaScript, nothing from the network."""

from spectral_lightning.report.html.page import write_report

__all__ = ["write_report"]
