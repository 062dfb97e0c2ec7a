"""Exponents of Gaussians: of the MLP in experiment 1, and step by step from the linear network of the theory to that MLP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from spectral_lightning.diffusion import GridNoise, LogNormalNoise
from spectral_lightning.emergence import (
    RULES,
    EmergenceLaw,
    PowerLaw,
    combined_law,
    emergence,
    fit_power_law,
)
from spectral_lightning.models.solvable.solvable import RelativeDensity
from spectral_lightning.prediction import Comparison
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.theory import LearningDynamics, Objective, OneLayer, Preconditioning
from studies.laws import law
from studies.networks import SharedLayer, unit_weight
from studies.statistics import WAYS, Array, Estimate, Mask, resampled
from studies.store import Results, Stored
from studies.trainings import NAMES

__all__ = ["CHANGES", "CRITERIA", "LADDER", "Rung", "change", "exponent", "gaussian"]

CRITERIA = ("geometric", "harmonic")
_SEEDS = {128: (0, 1, 2), 256: (0, 1), 512: (0,)}


def gaussian(results: Results) -> dict[str, Any]:
    """Results of experiment 1: laws by dimension, direction and criterion, one per seed."""
    cases = {}
    for dim, way, criterion in product(_SEEDS, WAYS, CRITERIA):
        compared = [results[f"d{dim}_seed{seed}"].compared(criterion) for seed in _SEEDS[dim]]
        measured = [law(one.measured, way) for one in compared]
        predicted = [one.predicted_law(way) for one in compared]
        cases[dim, way, criterion] = {
            "compared": compared,
            "measured": measured,
            "predicted": predicted,
            "laws": [one for one in measured if one.determinable],
            "combined": combined_law([one.measured for one in compared], way, law),
            "theory": [one.exponent for one in predicted if one is not None and one.determinable],
        }
    fits = [(dim, s, results[f"d{dim}_seed{s}"].overlay["goodness_of_fit"]) for dim in _SEEDS for s in _SEEDS[dim]]
    return {"cases": cases, "seeds": _SEEDS, "fits": fits}


# From the linear network to the MLP: trainings, or ways to measure them, and the one thing changed in each.

LADDER, CHANGES = NAMES["ladder"], NAMES["changes"]  # each against the one before; each against the MLP
_PARENTS = {child: parent for parent, child in pairwise(LADDER)} | dict.fromkeys(CHANGES, "mlp")
_UNDONE = 0.05  # share of the modes that may fall back below their threshold; more, and first passage is not learning
_SMALL = 0.02
_DRAWN = ("deep_linear", "mlp")  # trainings whose weights are drawn: another seed gives another exponent
_EDM = Objective(2e-3, Preconditioning("edm", sigma_data=0.5), discrete=True)
_NOISE = LogNormalNoise(-1.2, 1.2)
_SHARES = (0.0, 0.25, 0.5, 0.65, 0.8, 0.9)


def _theories() -> Mapping[str, LearningDynamics]:
    """The exact theory of each step that has one, put together from its settings."""
    levels = Sampler(num_steps=20).levels
    unweighted = Objective(0.1, Preconditioning("edm", sigma_data=0.5, weight=unit_weight), discrete=True)
    drawn = replace(_EDM, learning_rate=5e-4, noise_density=RelativeDensity(_NOISE, levels))
    return {
        "linear": OneLayer(Objective(1.5e-4, discrete=True), 0.1),
        "linear_edm_unweighted": OneLayer(unweighted, 0.1),
        "linear_edm": OneLayer(_EDM, 0.1),
        "linear_edm_zero": OneLayer(_EDM, 0.0),
        "linear_density": OneLayer(drawn, 0.0),
        "linear_samples": OneLayer(drawn, 0.0),
        "shared_levels": SharedLayer(_EDM, GridNoise(levels, [float(_NOISE.density(s)) for s in levels])),
        "shared": SharedLayer(_EDM, _NOISE),
    }


def _table(theory: LearningDynamics, history: SpectralHistory) -> tuple[Array, Array]:
    """Steps and variances of a theory along measured modes, not limited to the steps trained."""
    steps = np.append(0.0, np.unique(np.geomspace(1, 20 * float(history.steps[-1]), 400).round()))
    return steps, theory.on(history.target).generated_variance(steps, Sampler(num_steps=20))


def _line(variance: Array, time: Array) -> PowerLaw:
    """The line through a theory's times, where a measurement may have an exponent."""
    return fit_power_law(variance, time, min_modes=RULES.min_modes, min_decades=RULES.min_decades)


@dataclass(frozen=True)
class Rung:
    """A step of the ladder under one criterion of emergence."""

    stored: Stored
    criterion: str
    table: tuple[Array, Array] | None = None  # steps and variances of the step's own theory, if it has one

    @cached_property
    def compared(self) -> Comparison:
        """Emergence measured and predicted."""
        return self.stored.compared(self.criterion)

    @property
    def rose(self) -> Mask:
        """Rising modes that crossed."""
        return self.compared.measured.crossed("rising")

    @cached_property
    def fell_back(self) -> int:
        """Rising modes that crossed their threshold and were below it again later."""
        history, found = self.stored.history, self.compared.measured
        later = history.steps[:, None] >= np.nan_to_num(found.time, nan=np.inf)
        return int(((later & (history.variance < found.threshold)).any(axis=0) & self.rose).sum())

    @property
    def _undone(self) -> bool:
        return self.fell_back > _UNDONE * float(self.rose.sum())

    @property
    def times(self) -> Array:
        """Emergence of rising modes, NaN for the others; for all of them if too many fell back."""
        return np.where(self.rose & (not self._undone), self.compared.measured.time, np.nan)

    def measured(self, modes: Mask | None = None, way: str = "rising") -> EmergenceLaw:
        """The measured law, over the modes of a mask if given; none if too many passages were undone."""
        found = law(self.compared.measured, way, modes)
        if way == "falling" or not self._undone:
            return found
        reason = f"{self.fell_back} of the {int(self.rose.sum())} modes that crossed fell back"
        return replace(found, exponent=np.nan, low=np.nan, high=np.nan, local=(), reason=reason)

    def overlay(self, modes: Mask | bool = True) -> PowerLaw | None:
        """The line through the stored prediction's times of the rising modes that crossed in both."""
        predicted, both = self.compared.predicted, self.compared.common("rising") & modes
        return None if predicted is None else _line(predicted.variance[both], predicted.time[both])

    def theory(self, modes: Mask | bool = True) -> PowerLaw | None:
        """The line through the times of the step's own theory of the modes that rose, not limited to the steps trained."""
        if self.table is None:
            return None
        history, chosen = self.stored.history, self.rose & modes
        level = self.compared.measured.threshold
        expected = emergence(*self.table, history.target, history.fixed_point, criterion=self.criterion, level=level)
        return _line(history.target[chosen], expected.time[chosen])

    @property
    def share(self) -> float:
        """Error of the overlay over that for unchanged variances."""
        goodness: dict[str, float] = self.stored.overlay["goodness_of_fit"]
        return goodness["rms"] / goodness["baseline"]

    def against(self, parent: Rung, modes: Mask | bool = True) -> Estimate:
        """The change of the exponent against another step, over the modes that crossed in both.

        Raises:
            ValueError: if the two were not measured along the same modes.
        """
        target = self.stored.history.target
        if not np.allclose(target, parent.stored.history.target, rtol=1e-6):
            raise ValueError(f"`parent` must be measured along the modes of {self.stored}, got {parent.stored}.")
        return change(target, np.where(modes, self.times, np.nan), parent.times)


def change(variance: ArrayLike, child: ArrayLike, parent: ArrayLike) -> Estimate:
    """Difference of the exponents of two trainings over the modes that crossed in both, with a paired interval.

    The difference of two least-squares slopes over the same modes is the slope of the log ratio of the times. The interval
    is from a bootstrap over modes: it reflects how differently the modes respond, not the effect of another seed. All arguments
    are ``[K]``: the data's variance, and emergence times, NaN if there is none.
    """
    ratio = np.asarray(child) / np.asarray(parent)
    both = np.isfinite(ratio) & (ratio > 0)
    x, y = np.log(np.asarray(variance, np.float64)[both]), np.log(ratio[both])
    if len(x) < RULES.min_modes or np.ptp(x) < RULES.min_decades * np.log(10):
        return Estimate(count=len(x))

    def exponent(x: Array, y: Array) -> Array:
        dx = x - x.mean(axis=-1, keepdims=True)
        return np.asarray(-(dx * y).sum(axis=-1) / (dx**2).sum(axis=-1))

    return replace(Estimate.of(resampled(exponent, x, y)), count=len(x))


def _ladder(rungs: Mapping[str, Rung], seeds: Sequence[Rung]) -> dict[str, Any]:
    """Results under one criterion.

    Changes on the way to the MLP are over the modes common to all those steps; away from it, over those of both trainings.
    """
    common = np.asarray(np.all([rungs[key].rose for key in LADDER], axis=0))
    moved = {
        child: rungs[child].against(rungs[parent], common if child in LADDER else True)
        for child, parent in _PARENTS.items()
    }
    known = {key: one for key, one in moved.items() if one.determinable}
    large = {key: one.value for key, one in known.items() if one.shown and abs(one.value) >= _SMALL}
    apart = {key: rungs["mlp"].against(rungs[key], common) for key in LADDER if key != "mlp"}
    laws = [one.measured() for one in seeds]
    exponents = [one.exponent for one in laws if one.determinable]
    spread = float(np.ptp(exponents)) if len(exponents) > 1 else np.nan
    return {
        "rungs": rungs,
        "common": common,
        "moved": moved,
        "raised": [key for key, value in large.items() if value > 0],
        "lowered": [key for key, value in large.items() if value < 0],
        "left": [key for key in known if key not in large],
        "like_mlp": [key for key, one in apart.items() if one.determinable and not one.shown],
        "seeds": laws,
        "combined": combined_law([one.compared.measured for one in seeds], "rising", law),
        "spread": spread,
        "beyond": [
            key for key, one in known.items() if key.startswith(_DRAWN) and one.shown and abs(one.value) > spread
        ],
    }


def exponent(results: Results, gaussian: Results) -> dict[str, Any]:
    """Results of the steps from the linear network to the MLP."""
    seeds = [gaussian["d128_seed0/heun" if seed == 0 else f"d128_seed{seed}"] for seed in _SEEDS[128]]
    stored = {**results, "mlp": seeds[0]}
    tables = {key: _table(theory, stored[key].history) for key, theory in _theories().items()}
    by = {}
    for criterion in CRITERIA:
        rungs = {key: Rung(stored[key], criterion, tables.get(key)) for key in (*LADDER, *CHANGES)}
        by[criterion] = _ladder(rungs, [Rung(one, criterion) for one in seeds])
    rungs, moved, mlp = by["geometric"]["rungs"], by["geometric"]["moved"], stored["mlp"]
    way = sorted(list(LADDER)[1:], key=lambda key: -np.nan_to_num(abs(moved[key].value)))
    away = sorted((key for key in CHANGES if moved[key].determinable), key=lambda key: -abs(moved[key].value))
    layers = {share: _table(SharedLayer(_EDM, _NOISE, share), stored["shared"].history) for share in _SHARES}
    return {
        "by": by,
        "rungs": rungs,
        "steps": LADDER | CHANGES,
        "solvable": list(tables),
        "mlp": {c: Rung(mlp, c) for c in (*CRITERIA, "arithmetic")},
        "edm": rungs["linear_edm"].against(rungs["linear"], by["geometric"]["common"]),
        "way": way,
        "away": away,
        "beyond": [key for key in away if abs(moved[key].value) > by["geometric"]["spread"]],
        "raising": [key for key in list(LADDER)[3:] if moved[key].shown and moved[key].value > 0.1],
        "harmonic": by["harmonic"]["rungs"]["mlp"].against(rungs["mlp"]),
        "costly": max(list(LADDER)[1:], key=lambda key: rungs[key].share - rungs[_PARENTS[key]].share),
        "parents": _PARENTS,
        "exact": [key for key in LADDER if rungs[key].share < 0.01],
        "falling": [(key, c, by[c]["rungs"][key].measured(way="falling")) for key in rungs for c in CRITERIA],
        "sharing": {s: [Rung(stored["shared"], c, table).theory() for c in CRITERIA] for s, table in layers.items()},
    }
