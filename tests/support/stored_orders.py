"""Stored results whose emergence is known: variances that go from 1.2 to where they end in the logarithm of the step."""

import json

import numpy as np

from spectral_lightning.spectra import SpectralHistory
from studies.results import Stored

STEPS = np.unique(np.round(10 ** (np.arange(0, 31) / 10)).astype(int))  # 1 to 1000
START = 1.2


def emergence_by_law(variance, exponent, prefactor):
    """Steps at which modes shall pass their geometric threshold."""
    return prefactor * variance**-exponent


def trajectories(end, time):
    """Log variance is linear in log step about ``time``, where it is half way, ``[1 + T, K]``."""
    share = np.clip(0.5 + np.log(STEPS[:, None] / time) / 4, 0, 1)
    table = np.exp(np.log(START) + share * np.log(end / START))
    return np.concatenate([np.full((1, len(end)), START), table])


def history(variance, time, end=None, labels=None):
    end = variance if end is None else end
    found = SpectralHistory(
        {"target": variance, "null": variance <= 0, "fixed_point": variance, "levels": np.geomspace(80, 0.002, 12)},
        {"modes": labels or [f"mode {k}" for k in range(len(variance))]},
    )
    for step, row in zip([0, *STEPS], trajectories(end, time), strict=True):
        found.append(step=step, variance=row, cumulative_learning_rate=0.5 * step)
    return found


def store(directory, measured, predicted=None):
    """A run with trackers by name, and predictions beside them."""
    directory.mkdir(parents=True)
    for name, table in measured.items():
        table.save(directory / f"{name}.npz")
    for name, table in (predicted or {}).items():
        table.save(directory / f"{name}_theory.npz")
    fit = {"goodness_of_fit": {"rms": 0.1, "baseline": 0.5, "cells": 10}}
    about = {"seconds": 60.0, "tracking_seconds": 6.0, "overlay": dict.fromkeys(predicted or {}, fit)}
    (directory / "run.json").write_text(json.dumps(about))
    return Stored(directory)


def half_plane(side):
    """Labels of the Fourier modes of a real image, one of k and -k, and their cycles."""
    waves = [(a, b) for a in range(side) for b in range(side)]
    kept = [k for k in waves if k <= ((-k[0]) % side, (-k[1]) % side)]
    signed = [tuple(c - side if c > side // 2 else c for c in k) for k in kept]
    return [f"k={k}" for k in signed], np.array(kept)
