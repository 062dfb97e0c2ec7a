"""Stored trainings whose emergence is known, and emergence computed independently, by loops in NumPy."""

import json

import numpy as np
from scipy import stats

from spectral_lightning.spectra import SpectralHistory
from studies.store import STORE, load, write_tables

STEPS = np.append(0, np.unique(np.round(10 ** (np.arange(0, 31) / 10)).astype(int)))  # 0, and 1 to 1000
START = 1.2


def emergence_by_law(variance, exponent, prefactor, scatter=0.0, seed=0):
    """Steps about a power law."""
    noise = np.random.default_rng(seed).normal(size=len(variance))
    return prefactor * variance**-exponent * np.exp(scatter * noise)


def history(variance, time, end=None, labels=None):
    """Log variance goes from 1.2 to its end, linear in log step about ``time``, where it is half way."""
    end = variance if end is None else end
    with np.errstate(divide="ignore"):
        share = np.clip(0.5 + np.log(STEPS[:, None] / time) / 4, 0, 1)
    found = SpectralHistory(
        {"target": variance, "null": variance <= 0, "fixed_point": variance, "levels": np.geomspace(80, 0.002, 12)},
        {"modes": labels or [f"mode {k}" for k in range(len(variance))]},
    )
    for step, row in zip(STEPS, np.exp(np.log(START) + share * np.log(end / START)), strict=True):
        found.append(step=step, variance=row, cumulative_learning_rate=0.5 * step)
    return found


def rewritten(table, rows):
    """The same history with other variances."""
    other = SpectralHistory(table.static, table.metadata)
    for step, row in zip(table.steps, rows, strict=True):
        other.append(step=step, variance=row, cumulative_learning_rate=0.5 * step)
    return other


def store(directory, measured, predicted=None):
    """A training with trackers by name, of which one is ``spectral``, and predictions beside them: results of a study."""
    directory.mkdir(parents=True)
    for name, table in measured.items():
        write_tables(directory / f"{name}.npz", table, (predicted or {}).get(name))
    about = {
        "theory": "OneLayer(learning_rate=1)",
        "scale": 1.0,
        "goodness_of_fit": {"rms": 0.1, "baseline": 0.5, "cells": 10},
    }
    document = {"seconds": 60.0, "tracking_seconds": 6.0, "overlay": dict.fromkeys(measured, about)}
    (directory / "run.json").write_text(json.dumps(document))
    return load(directory.parent, [directory.name])


def half_plane(side):
    """Labels of the Fourier modes of a real image, one of k and -k, and their cycles."""
    waves = [(a, b) for a in range(side) for b in range(side)]
    kept = [k for k in waves if k <= ((-k[0]) % side, (-k[1]) % side)]
    signed = [tuple(c - side if c > side // 2 else c for c in k) for k in kept]
    return [f"k={k}" for k in signed], np.array(kept)


def arrays(study, name, tracker="spectral"):
    """What is stored of a training, tables in double precision."""
    with np.load(STORE / study / name / f"{tracker}.npz", allow_pickle=False) as file:
        return {key: value.astype(float) if value.dtype == np.float32 else value for key, value in file.items()}


def level(start, end, criterion="geometric"):
    """The threshold of a criterion, written out."""
    means = {"geometric": np.sqrt(start * end), "harmonic": 2 / (1 / start + 1 / end), "arithmetic": (start + end) / 2}
    return means[criterion]


def passages(steps, table, end, criterion="geometric", start=None):
    """First crossings, in straight lines of log variance over log step, from step 0 over the step; NaN without one."""
    found = np.full(len(end), np.nan)
    for k, (curve, threshold) in enumerate(
        zip(table.T, level(table[0] if start is None else start, end, criterion), strict=True)
    ):
        sign = np.sign(end[k] - curve[0])
        for i in range(1, len(steps)):
            if sign * (curve[i] - threshold) >= 0:
                part = np.log(threshold / curve[i - 1]) / np.log(curve[i] / curve[i - 1])
                found[k] = steps[i - 1] * (steps[i] / steps[i - 1]) ** part if steps[i - 1] else part * steps[i]
                break
    return found


def check_law(law, variance, time):
    """A law against the plain line through the times of plain first passage, ``[K]`` each, NaN where there is none.

    Making curves monotone, weights and correlation change the law, but not by more than the two intervals together; with a
    tenth of the modes censored, the plain line is biased, and only the counts are compared.
    """
    good = np.isfinite(time) & (time > 0)
    reach = np.ptp(np.log10(variance[good])) if good.any() else 0.0
    assert law.total == len(time)
    assert abs(law.count - good.sum()) <= max(2, 0.05 * len(time))
    if law.crossed >= 12 and reach > 1.05 and not law.early:
        assert law.determinable or law.local
    if not (law.determinable or law.local):
        return
    line = stats.linregress(np.log(variance[good]), np.log(time[good]))
    if good.mean() > 0.9:
        ends = law.local or (law,)
        slack = 0.15 + 3 * line.stderr
        assert min(one.low for one in ends) - slack < -line.slope < max(one.high for one in ends) + slack
