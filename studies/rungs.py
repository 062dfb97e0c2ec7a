"""The steps from the linear network to the MLP, what each changes, and statistics of modes that two trainings share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.diffusion import GridNoise, LogNormalNoise
from spectral_lightning.emergence import PowerLaw, emergence
from spectral_lightning.models.solvable.solvable import RelativeDensity
from spectral_lightning.prediction import Comparison, compare
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.theory import LearningDynamics, OneLayer, Preconditioning
from studies.networks import unit_weight
from studies.results import Stored
from studies.shared_layer import SharedLayer

__all__ = ["CHANGES", "CRITERIA", "DECADES", "LADDER", "Change", "Mask", "Rung", "Step", "change", "theories"]

CRITERIA = ("geometric", "harmonic")
DECADES = 0.75  # of variance that a fit needs; the package asks for 1, and the rising modes of the MLP span 1.0
_DRAWS = 2000

_UNDONE = 0.05  # share of the modes that may fall back below their threshold; more, and first passage is not learning

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Step:
    """One training, or one way of measuring it, and the one thing in which it differs from another.

    Attributes:
        name: of the training, "mlp" for that of experiment 1.
        parent: name of the step it is compared with; empty for the first.
        short: what is changed, for figures.
        label: what is changed.
        tracker: that measured it.
    """

    name: str
    parent: str
    short: str
    label: str
    tracker: str = "spectral"

    @property
    def key(self) -> str:
        """Unique among the steps."""
        return self.name if self.tracker == "spectral" else f"{self.name}/{self.tracker}"


LADDER = (
    Step("linear", "", "linear", "one linear map per noise level, gain 0.1, expected loss, no preconditioning"),
    Step(
        "linear_edm_unweighted", "linear", "+ EDM coefficients", "EDM's preconditioning of the network, loss unweighted"
    ),
    Step("linear_edm", "linear_edm_unweighted", "+ EDM loss weight", "EDM's weight of noise levels in the loss"),
    Step("linear_edm_zero", "linear_edm", "+ gain 0", "linear maps of zero before training"),
    Step("linear_density", "linear_edm_zero", "+ noise density", "noise levels as often as EDM's density says"),
    Step("linear_samples", "linear_density", "+ mini-batches", "1,024 noisy samples a step for the expected loss"),
    Step("shared_levels", "linear_samples", "+ shared weights", "weights shared across noise levels, as the MLP's are"),
    Step("shared", "shared_levels", "+ continuous levels", "any noise level in training, not only the sampler's"),
    Step("shared_adam", "shared", "+ Adam", "Adam 1e-4 for plain gradient descent"),
    Step("deep_linear", "shared_adam", "+ depth", "the MLP's layers without their nonlinearities, random weights"),
    Step("mlp", "deep_linear", "+ nonlinearity = MLP", "activations and normalisation: the MLP of experiment 1"),
)

CHANGES = (
    Step("mlp_sgd", "mlp", "MLP, SGD", "SGD 0.1 with momentum 0.9 for Adam 1e-4"),
    Step("mlp_x0", "mlp", "MLP, predicts data", "prediction of the data, unweighted, for EDM's preconditioning"),
    Step("mlp_blind", "mlp", "MLP, blind to noise", "noise level hidden: all levels share all weights"),
    Step("mlp_flat_noise", "mlp", "MLP, flat noise", "noise levels even in ln sigma over the sampler's range"),
    Step("mlp_width_128", "mlp", "MLP, width 128", "width 128 for 256"),
    Step("mlp_samplers", "mlp", "MLP, 40-step sampler", "measured through a sampler of 40 steps for 20"),
    Step("mlp_samplers", "mlp", "MLP, open sampler", "measured through a sampler that ends at 0.002 for 0", "open_end"),
)


@dataclass(frozen=True)
class Rung:
    """A step with what it gave.

    Attributes:
        step: the step.
        stored: its result.
        dynamics: the exact theory of the step, None where there is none.
    """

    step: Step
    stored: Stored
    dynamics: LearningDynamics | None = None

    @cached_property
    def _comparisons(self) -> dict[str, Comparison]:
        prediction = self.stored.prediction(self.step.tracker)
        return {name: compare(self.history, prediction, name) for name in (*CRITERIA, "arithmetic")}

    def compared(self, criterion: str) -> Comparison:
        """Emergence measured and predicted."""
        return self._comparisons[criterion]

    def rose(self, criterion: str) -> Mask:
        """Rising modes that crossed."""
        return self.compared(criterion).measured.crossed("rising")

    def times(self, criterion: str) -> Array:
        """Emergence of rising modes, NaN for the others; for all of them where too many fell back."""
        known = self.rose(criterion) & (not self._undone(criterion))
        return np.where(known, self.compared(criterion).measured.time, np.nan)

    def fell_back(self, criterion: str) -> int:
        """Rising modes that crossed their threshold and were below it again later."""
        found = self.compared(criterion).measured
        later = self.history.steps[:, None] >= np.nan_to_num(found.time, nan=np.inf)
        below = later & (self.history.variance < found.threshold)
        return int((below.any(axis=0) & self.rose(criterion)).sum())

    def _undone(self, criterion: str) -> bool:
        return self.fell_back(criterion) > _UNDONE * float(self.rose(criterion).sum())

    def measured(self, criterion: str, way: str = "rising", modes: Mask | None = None) -> PowerLaw:
        """The measured law, over the modes of a mask where one is given; none where passages were undone."""
        fit = self.compared(criterion).measured.law(way, modes, DECADES)
        if way == "falling" or not self._undone(criterion):
            return fit
        reason = f"{self.fell_back(criterion)} of the {int(self.rose(criterion).sum())} modes that crossed fell back"
        return replace(fit, exponent=np.nan, low=np.nan, high=np.nan, reason=reason)

    def overlay(self, criterion: str, modes: Mask | None = None) -> PowerLaw | None:
        """The stored prediction's law over the rising modes that crossed in both."""
        found = self.compared(criterion)
        both = found.common("rising") if modes is None else found.common("rising") & modes
        return None if found.predicted is None else found.predicted.law("rising", both, DECADES)

    def theory(self, criterion: str, modes: Mask | None = None) -> PowerLaw | None:
        """The law of the step's own theory, not limited to the steps trained, over the modes that rose; None without one."""
        if self._table is None:
            return None
        history, (steps, variance) = self.history, self._table
        expected = emergence(steps, variance, history.target, history.fixed_point, criterion=criterion)
        rose = self.rose(criterion)
        return expected.law("rising", rose if modes is None else rose & modes, DECADES)

    @cached_property
    def history(self) -> SpectralHistory:
        """The measurement."""
        return self.stored.history(self.step.tracker)

    @cached_property
    def _table(self) -> tuple[Array, Array] | None:
        if self.dynamics is None:
            return None
        steps = np.unique(np.geomspace(1, 20 * float(self.history.steps[-1]), 400).round())
        steps = np.concatenate([[0.0], steps])
        return steps, self.dynamics.generated_variance(steps, self.history.target, Sampler(num_steps=20))

    @property
    def goodness(self) -> dict[str, float]:
        """Of the overlay."""
        return self.stored.goodness(self.step.tracker)


@dataclass(frozen=True)
class Change:
    """How much larger one exponent is than another over the same modes.

    Attributes:
        value: the difference; NaN where it cannot be had.
        low: lower end of its 95 % interval.
        high: upper end of its 95 % interval.
        count: modes that rose and crossed in both.
    """

    value: float
    low: float
    high: float
    count: int

    @property
    def determinable(self) -> bool:
        """Whether there is one."""
        return bool(np.isfinite(self.value))

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.determinable and (self.low > 0 or self.high < 0)


def change(variance: ArrayLike, child: ArrayLike, parent: ArrayLike, *, seed: int = 0) -> Change:
    """Difference of the exponents of two trainings over the modes that crossed in both, with a paired interval.

    The difference of two least-squares slopes over the same modes is the slope of the log ratio of the times. Its interval
    is from a bootstrap over modes: percentiles of 2,000 draws. It holds how differently the modes respond to the change,
    not what another seed of the network would do.

    Args:
        variance: of the data along the modes, ``[K]``.
        child: emergence times, NaN where there is none, ``[K]``.
        parent: those of the training it is compared with, ``[K]``.
        seed: of the bootstrap.
    """
    lam, ratio = np.asarray(variance, np.float64), np.asarray(child) / np.asarray(parent)
    both = np.isfinite(ratio) & (ratio > 0)
    x, y = np.log(lam[both]), np.log(ratio[both])
    if len(x) < 10 or np.ptp(x) < DECADES * np.log(10):
        return Change(np.nan, np.nan, np.nan, len(x))
    drawn = np.random.default_rng(seed).integers(len(x), size=(_DRAWS, len(x)))
    low, high = np.quantile(-_slope(x[drawn], y[drawn]), [0.025, 0.975])
    return Change(float(-_slope(x, y)), float(low), float(high), len(x))


def _slope(x: Array, y: Array) -> Array:
    """Of least squares along the last axis."""
    dx = x - x.mean(axis=-1, keepdims=True)
    return np.asarray((dx * y).sum(axis=-1) / (dx**2).sum(axis=-1))


def theories() -> Mapping[str, LearningDynamics]:
    """The exact theory of each step that has one, put together from its settings."""
    levels, noise = Sampler(num_steps=20).levels, LogNormalNoise(-1.2, 1.2)
    edm, drawn = Preconditioning("edm", sigma_data=0.5), RelativeDensity(noise, levels)
    unweighted = Preconditioning("edm", sigma_data=0.5, weight=unit_weight)
    sampled = OneLayer(5e-4, 0.0, edm, noise_density=drawn, discrete=True)
    return {
        "linear": OneLayer(1.5e-4, 0.1, discrete=True),
        "linear_edm_unweighted": OneLayer(0.1, 0.1, unweighted, discrete=True),
        "linear_edm": OneLayer(2e-3, 0.1, edm, discrete=True),
        "linear_edm_zero": OneLayer(2e-3, 0.0, edm, discrete=True),
        "linear_density": sampled,
        "linear_samples": sampled,
        "shared_levels": SharedLayer(2e-3, GridNoise(levels, [float(noise.density(s)) for s in levels])),
        "shared": SharedLayer(2e-3, noise),
    }
