"""Forecasts of emergence put to the test on the stored trainings: each run cut short, the rest predicted.

Rules, written before any score was computed. An experiment is a study of ``trainings.yaml``. In alphabetical order the first,
third, ... tune constants and quantiles; the second, fourth, ... are judged, once. A run is one stored history in one
direction, rising or falling, with at least ten eligible modes. It is cut at the first measurement by which 25, 40, 55, 70 and
85 % of its eligible modes have crossed, if at least three cross later. The error of a forecast is ``|log(predicted /
actual)|``, the actual step that of the whole history; its median over the modes that cross later, then over the cuts, then
over the runs.
"""

from __future__ import annotations

from studies.trainings import STUDIES

__all__ = ["CUTS", "JUDGED", "LEAST", "TUNED"]

CUTS = (0.25, 0.40, 0.55, 0.70, 0.85)  # share of the eligible modes that have crossed
LEAST = (10, 3)  # eligible modes of a run; modes that cross after a cut
TUNED, JUDGED = sorted(STUDIES)[::2], sorted(STUDIES)[1::2]
