"""Exponents of Gaussians: of the MLP in experiment 1, and step by step from the linear network of the theory to that MLP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.diffusion import GridNoise, LogNormalNoise
from spectral_lightning.emergence import PowerLaw, emergence
from spectral_lightning.models.solvable.solvable import RelativeDensity
from spectral_lightning.prediction import Comparison
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.theory import LearningDynamics, Objective, OneLayer, Preconditioning
from studies.networks import SharedLayer, unit_weight
from studies.statistics import WAYS, Estimate, resampled
from studies.store import Results, Stored

__all__ = ["CHANGES", "CRITERIA", "LADDER", "Rung", "Step", "change", "exponent", "gaussian", "placed", "rungs"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

CRITERIA = ("geometric", "harmonic")

# Experiment 1.

_SEEDS = {128: (0, 1, 2), 256: (0, 1), 512: (0,)}


def gaussian(results: Results) -> dict[str, Any]:
    """What the page says of experiment 1: laws by dimension, direction and criterion, one per seed."""
    compared = {
        (dim, criterion): [results[f"d{dim}_seed{seed}"].compared(criterion) for seed in seeds]
        for dim, seeds in _SEEDS.items()
        for criterion in CRITERIA
    }
    cases = {}
    for (dim, criterion), found in compared.items():
        for way in WAYS:
            measured, predicted = [one.measured_law(way) for one in found], [one.predicted_law(way) for one in found]
            laws = [law for law in measured if law.determinable]
            theory = [law.exponent for law in predicted if law is not None and law.determinable]
            cases[dim, way, criterion] = {
                "measured": measured,
                "predicted": predicted,
                "laws": laws,
                "ordered": all(law.low > 0 for law in laws),
                "theory": float(np.mean(theory)) if theory else None,
                "range": float(np.ptp([law.exponent for law in laws])) if laws else 0.0,
                "half_width": float(np.mean([(law.high - law.low) / 2 for law in laws])) if laws else 0.0,
            }
    fits = [(dim, seed, results[f"d{dim}_seed{seed}"].goodness()) for dim, seeds in _SEEDS.items() for seed in seeds]
    ordered = [(dim, way, criterion) for dim in _SEEDS for way in WAYS for criterion in CRITERIA]
    return {"cases": {key: cases[key] for key in ordered}, "seeds": _SEEDS, "compared": compared, "fits": fits}


def placed(laws: Sequence[PowerLaw], value: float) -> str:
    """How intervals lie to a value."""
    held = [law.low <= value <= law.high for law in laws]
    if any(held):
        return "agrees with" if all(held) else "scatters about"
    if all(law.high < value for law in laws):
        return "below"
    return "above" if all(law.low > value for law in laws) else "about"


# From the linear network to the MLP.

_DECADES = 0.75  # of variance that a fit needs; the package asks for 1, and the rising modes of the MLP span 1.0
_UNDONE = 0.05  # share of the modes that may fall back below their threshold; more, and first passage is not learning
_SMALL = 0.02
_DRAWN = ("deep_linear", "mlp")  # trainings whose weights are drawn: another seed gives another exponent
_EDM = Objective(2e-3, Preconditioning("edm", sigma_data=0.5), discrete=True)
_SHARES = (0.0, 0.25, 0.5, 0.65, 0.8, 0.9)


@dataclass(frozen=True)
class Step:
    """One training, or one way to measure it, and the one thing in which it differs from another.

    Attributes:
        name: of the training, "mlp" for that of experiment 1.
        parent: name of the step it is compared with; empty for the first.
        short: what is changed.
        tracker: that measured it.
    """

    name: str
    parent: str
    short: str
    tracker: str = "spectral"

    @property
    def key(self) -> str:
        """Unique among the steps."""
        return self.name if self.tracker == "spectral" else f"{self.name}/{self.tracker}"


LADDER = (
    Step("linear", "", "linear"),
    Step("linear_edm_unweighted", "linear", "EDM coefficients"),
    Step("linear_edm", "linear_edm_unweighted", "EDM loss weight"),
    Step("linear_edm_zero", "linear_edm", "gain 0"),
    Step("linear_density", "linear_edm_zero", "noise density"),
    Step("linear_samples", "linear_density", "mini-batches"),
    Step("shared_levels", "linear_samples", "shared weights"),
    Step("shared", "shared_levels", "continuous levels"),
    Step("shared_adam", "shared", "Adam"),
    Step("deep_linear", "shared_adam", "depth"),
    Step("mlp", "deep_linear", "nonlinearity = MLP"),
)
CHANGES = (
    Step("mlp_sgd", "mlp", "SGD"),
    Step("mlp_x0", "mlp", "predicts data"),
    Step("mlp_blind", "mlp", "blind to noise"),
    Step("mlp_flat_noise", "mlp", "flat noise"),
    Step("mlp_width_128", "mlp", "width 128"),
    Step("mlp_samplers", "mlp", "40-step sampler"),
    Step("mlp_samplers", "mlp", "open sampler", "open_end"),
)


@dataclass(frozen=True)
class Rung:
    """A step with its result.

    Attributes:
        step: the step.
        stored: its result.
        dynamics: the exact theory of the step, if it has one.
    """

    step: Step
    stored: Stored
    dynamics: LearningDynamics | None = None

    def compared(self, criterion: str) -> Comparison:
        """Emergence measured and predicted."""
        return self.stored.compared(criterion, self.step.tracker)

    @property
    def history(self) -> SpectralHistory:
        """The measurement."""
        return self.stored.history(self.step.tracker)

    def rose(self, criterion: str) -> Mask:
        """Rising modes that crossed."""
        return self.compared(criterion).measured.crossed("rising")

    def fell_back(self, criterion: str) -> int:
        """Rising modes that crossed their threshold and were below it again later."""
        found = self.compared(criterion).measured
        later = self.history.steps[:, None] >= np.nan_to_num(found.time, nan=np.inf)
        return int(((later & (self.history.variance < found.threshold)).any(axis=0) & self.rose(criterion)).sum())

    def _undone(self, criterion: str) -> bool:
        return self.fell_back(criterion) > _UNDONE * float(self.rose(criterion).sum())

    def times(self, criterion: str) -> Array:
        """Emergence of rising modes, NaN for the others; for all of them if too many fell back."""
        known = self.rose(criterion) & (not self._undone(criterion))
        return np.where(known, self.compared(criterion).measured.time, np.nan)

    def measured(self, criterion: str, way: str = "rising", modes: Mask | None = None) -> PowerLaw:
        """The measured law, over the modes of a mask if given; none if too many passages were undone."""
        law = self.compared(criterion).measured.law(way, modes, _DECADES)
        if way == "falling" or not self._undone(criterion):
            return law
        reason = f"{self.fell_back(criterion)} of the {int(self.rose(criterion).sum())} modes that crossed fell back"
        return replace(law, exponent=np.nan, low=np.nan, high=np.nan, reason=reason)

    def overlay(self, criterion: str, modes: Mask | None = None) -> PowerLaw | None:
        """The stored prediction's law over the rising modes that crossed in both."""
        found = self.compared(criterion)
        both = found.common("rising") if modes is None else found.common("rising") & modes
        return None if found.predicted is None else found.predicted.law("rising", both, _DECADES)

    @cached_property
    def _table(self) -> tuple[Array, Array] | None:
        if self.dynamics is None:
            return None
        steps = np.append(0.0, np.unique(np.geomspace(1, 20 * float(self.history.steps[-1]), 400).round()))
        return steps, self.dynamics.on(self.history.target).generated_variance(steps, Sampler(num_steps=20))

    def theory(self, criterion: str, modes: Mask | None = None) -> PowerLaw | None:
        """The law of the step's own theory over the modes that rose, not limited to the steps trained."""
        if self._table is None:
            return None
        expected = emergence(*self._table, self.history.target, self.history.fixed_point, criterion=criterion)
        rose = self.rose(criterion)
        return expected.law("rising", rose if modes is None else rose & modes, _DECADES)

    @property
    def about(self) -> dict[str, Any]:
        """What the overlay reports of itself."""
        found: dict[str, Any] = self.stored.about["overlay"][self.step.tracker]
        return found

    @property
    def share(self) -> float:
        """Error of the overlay over that of no learning."""
        goodness: dict[str, float] = self.about["goodness_of_fit"]
        return goodness["rms"] / goodness["baseline"]


Rungs = Mapping[str, Rung]


def change(variance: ArrayLike, child: ArrayLike, parent: ArrayLike) -> Estimate:
    """Difference of the exponents of two trainings over the modes that crossed in both, with a paired interval.

    The difference of two least-squares slopes over the same modes is the slope of the log ratio of the times. The interval
    is from a bootstrap over modes: it holds how differently the modes respond, not what another seed would do.

    Args:
        variance: of the data along the modes, ``[K]``.
        child: emergence times, NaN if there is none, ``[K]``.
        parent: those of the training it is compared with, ``[K]``.
    """
    ratio = np.asarray(child) / np.asarray(parent)
    both = np.isfinite(ratio) & (ratio > 0)
    x, y = np.log(np.asarray(variance, np.float64)[both]), np.log(ratio[both])
    if len(x) < 10 or np.ptp(x) < _DECADES * np.log(10):
        return Estimate(count=len(x))
    return replace(Estimate.of(resampled(lambda rows: -_slope(x[rows], y[rows]), len(x), 2000)), count=len(x))


def _slope(x: Array, y: Array) -> Array:
    """Of least squares along the last axis."""
    dx = x - x.mean(axis=-1, keepdims=True)
    return np.asarray((dx * y).sum(axis=-1) / (dx**2).sum(axis=-1))


def rungs(results: Results, mlp: Stored) -> Rungs:
    """Every step with its result; that of the MLP is stored with experiment 1."""
    stored, known = {**results, "mlp": mlp}, _theories()
    return {step.key: Rung(step, stored[step.name], known.get(step.name)) for step in (*LADDER, *CHANGES)}


def _theories() -> Mapping[str, LearningDynamics]:
    """The exact theory of each step that has one, put together from its settings."""
    levels, noise = Sampler(num_steps=20).levels, LogNormalNoise(-1.2, 1.2)
    unweighted = Objective(0.1, Preconditioning("edm", sigma_data=0.5, weight=unit_weight), discrete=True)
    drawn = replace(_EDM, learning_rate=5e-4, noise_density=RelativeDensity(noise, levels))
    return {
        "linear": OneLayer(Objective(1.5e-4, discrete=True), 0.1),
        "linear_edm_unweighted": OneLayer(unweighted, 0.1),
        "linear_edm": OneLayer(_EDM, 0.1),
        "linear_edm_zero": OneLayer(_EDM, 0.0),
        "linear_density": OneLayer(drawn, 0.0),
        "linear_samples": OneLayer(drawn, 0.0),
        "shared_levels": SharedLayer(_EDM, GridNoise(levels, [float(noise.density(s)) for s in levels])),
        "shared": SharedLayer(_EDM, noise),
    }


def _between(found: Rungs, child: str, parent: str, criterion: str, modes: Mask | None) -> Estimate:
    one, other = found[child], found[parent]
    if not np.allclose(one.history.target, other.history.target, rtol=1e-6):
        raise ValueError(f"{child} and {parent} were not measured along the same modes.")
    times = np.where(True if modes is None else modes, one.times(criterion), np.nan)
    return change(one.history.target, times, other.times(criterion))


def _ladder(found: Rungs, criterion: str, seeds: Sequence[Stored]) -> dict[str, Any]:
    """What the page says under one criterion.

    Changes on the way to the MLP are over the modes common to all steps to it; away from the MLP over those of both.
    """
    common = np.asarray(np.all([found[step.key].rose(criterion) for step in LADDER], axis=0))
    moved = {
        step.key: _between(found, step.key, step.parent, criterion, common if step in LADDER else None)
        for step in (*LADDER[1:], *CHANGES)
    }
    known = {key: one for key, one in moved.items() if one.determinable}
    large = {key: one for key, one in known.items() if one.shown and abs(one.value) >= _SMALL}
    apart = {step.key: _between(found, "mlp", step.key, criterion, common) for step in LADDER[:-1]}
    exponents = [one.compared(criterion).measured.law("rising", None, _DECADES).exponent for one in seeds]
    adam, sgd, spread = moved["shared_adam"], moved["mlp_sgd"], float(np.ptp(exponents))
    drawn = {key: one for key, one in known.items() if key.startswith(_DRAWN) and one.shown}
    return {
        "common": common,
        "moved": moved,
        "raised": [key for key, one in large.items() if one.value > 0],
        "lowered": [key for key, one in large.items() if one.value < 0],
        "left": [key for key in known if key not in large],
        "like_mlp": [key for key, one in apart.items() if one.determinable and not one.shown],
        "seeds": exponents,
        "spread": spread,
        "beyond_seeds": [key for key, one in drawn.items() if abs(one.value) > spread],
        # Without Adam the MLP would change by the opposite of what Adam did to the linear network.
        "adam_adds_up": -sgd.high <= adam.high and -sgd.low >= adam.low,
    }


def exponent(results: Results, gaussian: Results) -> dict[str, Any]:
    """What the page says of the steps from the linear network to the MLP."""
    seeds = [gaussian[f"d128_seed{seed}"] for seed in _SEEDS[128]]
    found = rungs(results, seeds[0])
    by = {criterion: _ladder(found, criterion, seeds) for criterion in CRITERIA}
    moved, common, mlp = by["geometric"]["moved"], by["geometric"]["common"], found["mlp"]
    edm = _between(found, "linear_edm", "linear", "geometric", common)
    way = sorted(LADDER[1:], key=lambda step: -np.nan_to_num(abs(moved[step.key].value)))
    first, second = (moved[step.key] for step in way[:2])
    away = sorted((s for s in CHANGES if moved[s.key].determinable), key=lambda step: -abs(moved[step.key].value))
    after = LADDER[[step.key for step in LADDER].index("linear_edm") + 1 :]
    like = [key for key in by["geometric"]["like_mlp"] if key != "linear"]
    layers = {share: SharedLayer(_EDM, LogNormalNoise(-1.2, 1.2), share) for share in _SHARES}
    shared = {share: replace(found["shared"], dynamics=layer) for share, layer in layers.items()}
    falling = [(key, c, rung.measured(c, "falling")) for key, rung in found.items() for c in CRITERIA]
    return {
        "rungs": found,
        "ladder": LADDER,
        "by": by,
        "edm": edm,
        "edm_verdict": _edm_verdict(edm, *(found[key].measured("geometric") for key in ("linear", "linear_edm"))),
        "way": way,
        "way_apart": min(abs(first.low), abs(first.high)) > max(abs(second.low), abs(second.high)) and first.shown,
        "away": away,
        "away_beyond": [step for step in away if abs(moved[step.key].value) > by["geometric"]["spread"]],
        "away_none": [step for step in CHANGES if step not in away],
        "like_mlp": [found[key].step for key in like],
        "solvable_like_mlp": [found[key].step for key in like if found[key].dynamics is not None],
        "raising": [step for step in after if moved[step.key].shown and moved[step.key].value > 0.1],
        "harmonic": change(mlp.history.target, mlp.times("harmonic"), mlp.times("geometric")),
        "costly": max(LADDER[1:], key=lambda step: found[step.key].share - found[step.parent].share),
        "exact": [step for step in LADDER if found[step.key].share < 0.01],
        "falling": [row for row in falling if row[2].determinable],
        "falling_reasons": sorted({law.reason for *_, law in falling if not law.determinable}),
        "sharing": {share: [rung.theory(criterion) for criterion in CRITERIA] for share, rung in shared.items()},
    }


def _edm_verdict(moved: Estimate, plain: PowerLaw, edm: PowerLaw) -> str:
    if not moved.high < 0:
        return "not confirmed"
    reached = abs(plain.exponent - 1) < 0.1 and abs(edm.exponent - 0.5) < 0.1
    return "confirmed" if reached else "lowered, but not from 1 to 0.5"
