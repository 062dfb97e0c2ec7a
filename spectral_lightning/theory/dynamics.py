"""A solvable family, and its curves on given data: gains, losses, generated variances and emergence times."""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.emergence import PowerLaw, StaysWithin, direction, fit_power_law, gray_zone, threshold
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory.objective import Objective, shown
from spectral_lightning.theory.solving.generation import wiener_gain
from spectral_lightning.theory.solving.passage import passage_time, settling_time, time_grid

__all__ = ["Curves", "LearningDynamics", "checked", "outer"]

Array = NDArray[np.float64]


class LearningDynamics(ABC):
    """A family of solvable denoisers, trained on an objective; solved on data, it gives :class:`Curves`.

    Attributes:
        solved_in: the modes it is solved in: the covariance's eigenmodes, or the Fourier modes of an image.
        needs_moments: whether :meth:`on` takes the data's moments, or only the variances of the modes.
        takes_gain: whether a prediction can start from the gains measured before training.
        takes_response: whether it can start from the whole response matrix: one layer, learnt column by column.
        ends_at_data: whether its weights can represent the data's spectrum, so that learning ends there.
        default_nodes: number of noise levels at which the exact flow is evaluated, unless the objective sets it.

    Args:
        objective: learning rate, preconditioning, and how the loss is descended.
    """

    solved_in: ClassVar[Literal["eigenmodes", "fourier"]] = "eigenmodes"
    needs_moments: ClassVar[bool] = False
    takes_gain: bool = True
    takes_response: bool = False
    ends_at_data: ClassVar[bool] = True
    default_nodes: ClassVar[int] = 200

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    @abstractmethod
    def on(self, data: Any) -> Curves:
        """The curves of the family on data: variances of the modes, or moments if it :attr:`needs_moments`."""

    def gradient_flow(self) -> Self:
        """The same family in continuous time."""
        twin = copy.copy(self)
        twin.objective = replace(self.objective, discrete=False)
        return twin

    @property
    def nodes(self) -> int:
        """Number of noise levels at which the exact flow is evaluated without a closed form."""
        return self.objective.nodes or self.default_nodes

    def __repr__(self) -> str:
        """The objective's settings, then the family's own."""
        names = [name for name in inspect.signature(type(self)).parameters if name != "objective"]
        own = "".join(f", {name}={shown(getattr(self, name))}" for name in names if getattr(self, name) is not None)
        return f"{type(self).__name__}({self.objective.describe()}{own})"


class Curves(ABC):
    """Learning of one family on given data, mode by mode.

    Shapes: ``*mode`` is the shape of :attr:`variance`; times and noise levels may have any shape too. Times are
    gradient-flow time, or numbers of gradient-descent steps if the objective is ``discrete``: zero or more, infinity
    allowed.

    Attributes:
        family: the family.
        variance: data variance of the modes, ``[*mode]``; second moments if no bias can carry the mean.
    """

    family: LearningDynamics

    def __init__(self, family: LearningDynamics, variance: Array) -> None:
        self.family, self.variance = family, variance

    @property
    def objective(self) -> Objective:
        """The objective of the family."""
        return self.family.objective

    @property
    @abstractmethod
    def longest_descent(self) -> float:
        """Largest number of descent steps that :meth:`emergence_time` follows."""

    @abstractmethod
    def weight(self, time: ArrayLike, sigma: ArrayLike, initial_gain: ArrayLike | None = None) -> Array:
        """Gain psi of the denoiser along each mode, ``[*time, *sigma, *mode]``.

        Args:
            time: training time.
            sigma: noise levels.
            initial_gain: gain before training, ``[*sigma, *mode]``, which replaces the family's own initialisation; a
                measured one makes the prediction start where the network does.

        Raises:
            ValueError: for a negative argument, descent that diverges, or a gain the family cannot start from.
        """

    @abstractmethod
    def loss(self, time: ArrayLike, sigma: ArrayLike, initial_gain: ArrayLike | None = None) -> Array:
        """Expected squared error of the denoiser at each noise level, without loss weight, ``[*time, *sigma]``.

        Arguments as for :meth:`weight`; summed over the coordinates, so the variances have to be those of all modes.
        """

    def generated_variance(
        self, time: ArrayLike, sampler: Sampler | None = None, initial_gain: ArrayLike | None = None
    ) -> Array:
        """Variance lambda~ of the generated samples along each mode, ``[*time, *mode]``.

        Args:
            time: training time.
            sampler: a discrete sampler, whose discretisation error is then included; the exact flow from ``sigma_max`` to
                ``sigma_min`` if not given.
            initial_gain: gain before training at ``sampler.levels``, ``[levels, *mode]``.

        Raises:
            ValueError: for a negative argument, or ``initial_gain`` without a sampler.
        """
        gain, flat = self._level_gains(initial_gain, sampler), checked(time=time)[0].reshape(-1, 1)
        log = self._log_variance(flat, np.arange(self.variance.size)[None], sampler, gain)
        return np.exp(log, out=log).reshape(np.shape(time) + self.variance.shape)

    @abstractmethod
    def _log_variance(self, time: Array, mode: NDArray[np.int64], sampler: Sampler | None, gain: Array | None) -> Array:
        """Log of the generated variance of flat modes by their index, ``time`` and ``mode`` broadcast."""

    @abstractmethod
    def _time_range(self) -> tuple[float, float]:
        """Times before the first emergence and after the last."""

    def _times(self) -> Array:
        """The grid of times to search."""
        discrete = self.objective.discrete
        return time_grid(*((1.0, self.longest_descent) if discrete else self._time_range()), whole=discrete)

    def optimal_weight(self, sigma: ArrayLike) -> Array:
        """Gain of the exact denoiser of the data, whether the family can reach it or not, ``[*sigma, *mode]``."""
        return wiener_gain(*outer(*checked(sigma=sigma), self.variance))

    def initial_weight(self, sigma: ArrayLike) -> Array:
        """Gain of the denoiser before training, ``[*sigma, *mode]``."""
        return self.weight(0.0, sigma)

    def ends(self, sampler: Sampler | None = None, initial_gain: ArrayLike | None = None) -> tuple[Array, Array]:
        """Generated variance before training, and the target of learning, each ``[*mode]``.

        The target is the data's variance; through a sampler, or if the family cannot represent it, the limit of learning.
        """
        start = self.generated_variance(0.0, sampler, initial_gain)
        if sampler is None and self.family.ends_at_data:
            return start, self.variance
        return start, self.generated_variance(np.inf, sampler, initial_gain)

    def emergence_time(
        self,
        criterion: str | float | StaysWithin = "geometric",
        sampler: Sampler | None = None,
        initial_gain: ArrayLike | None = None,
    ) -> Array:
        """Time tau* at which a mode is learnt by a criterion, by root finding, ``[*mode]``.

        First passage through a threshold between the two :meth:`ends`; or, for
        :class:`~spectral_lightning.emergence.StaysWithin`, the last entry into a band about the second. NaN for a mode that
        never gets there, and for the passage of one that starts at its target; descent is interpolated between its steps.

        Args:
            criterion: as for :func:`~spectral_lightning.emergence.threshold`, or a ``StaysWithin``.
            sampler: as for :meth:`generated_variance`.
            initial_gain: as for :meth:`generated_variance`.
        """
        start, end = (part.reshape(-1) for part in self.ends(sampler, initial_gain))
        gain, grid, whole = self._level_gains(initial_gain, sampler), self._times(), self.objective.discrete

        def curve(time: Array, mode: NDArray[np.int64]) -> Array:
            return self._log_variance(time, mode, sampler, gain)

        if isinstance(criterion, StaysWithin):
            result = settling_time(curve, *criterion.band(end), grid, start, whole=whole)
        else:
            level, sign = threshold(start, end, criterion), direction(start, end)
            result = passage_time(curve, level, sign, grid, whole=whole)
        return result.reshape(self.variance.shape)

    def exponent(
        self,
        criterion: str | float | StaysWithin = "geometric",
        sampler: Sampler | None = None,
        initial_gain: ArrayLike | None = None,
        gray_factor: float = 2.0,
        min_modes: int = 3,
    ) -> dict[str, PowerLaw]:
        """The emergence law ``tau* = C lambda^(-alpha)`` over the modes, for ``"rising"`` and ``"falling"`` ones.

        Args:
            criterion: as for :meth:`emergence_time`.
            sampler: as for :meth:`generated_variance`.
            initial_gain: as for :meth:`generated_variance`.
            gray_factor: modes whose initial variance lies within this factor of the target are left out.
            min_modes: fewer modes than this give no exponent; without noise, three are enough.
        """
        start, end = self.ends(sampler, initial_gain)
        time = self.emergence_time(criterion, sampler, initial_gain)
        sign = np.where(gray_zone(start, end, gray_factor), 0, direction(start, end))
        return {
            name: fit_power_law(self.variance[sign == way], time[sign == way], min_modes=min_modes)
            for name, way in (("rising", 1), ("falling", -1))
        }

    def kl_divergence(
        self, time: ArrayLike, sampler: Sampler | None = None, initial_gain: ArrayLike | None = None
    ) -> Array:
        """KL(generated || data) of Gaussians in nats along each mode, ``[*time, *mode]``.

        ``(r - 1 - log r) / 2``, ``r = lambda~ / lambda``. Infinite for a null mode of the data and for a mode that the
        sampler gives no variance. Arguments as for :meth:`generated_variance`.
        """
        generated = self.generated_variance(time, sampler, initial_gain)
        known = self.variance > 0
        ratio = np.divide(generated, self.variance, out=np.full(generated.shape, np.inf), where=known)
        with np.errstate(divide="ignore"):
            plain = ratio - 1 - np.log(np.where(np.isinf(ratio), 1.0, ratio))
        # Near 1 the logarithm and r - 1 cancel.
        x = np.where(np.abs(ratio - 1) < 1e-3, ratio - 1, 0.0)
        series = x**2 * (1 / 2 - x * (1 / 3 - x * (1 / 4 - x * (1 / 5 - x / 6))))
        return np.asarray(np.where(np.abs(ratio - 1) < 1e-3, series, plain) / 2)

    def _gain(self, initial_gain: ArrayLike, sigma: ArrayLike) -> Array:
        """A given gain before training, ``[*sigma, *mode]``."""
        if not self.family.takes_gain:
            raise ValueError(
                f"`initial_gain` must be left out: gains per mode do not fix the weights of {self.family!r}. Give its `init`."
            )
        return np.broadcast_to(np.asarray(initial_gain, np.float64), np.shape(sigma) + self.variance.shape)

    def _level_gains(self, initial_gain: ArrayLike | None, sampler: Sampler | None) -> Array | None:
        """The gains before training at the levels of a sampler, ``[levels, flat mode]``."""
        if initial_gain is None:
            return None
        if sampler is None:
            raise ValueError("`initial_gain` must come with a `sampler`, at whose levels it was measured.")
        return self._gain(initial_gain, sampler.levels).reshape(len(sampler.levels), -1)


def checked(**arguments: ArrayLike) -> list[Array]:
    """The arguments as arrays; raise ``ValueError`` unless all their numbers are zero or more."""
    arrays = []
    for name, value in arguments.items():
        array = np.asarray(value, np.float64)
        if not (array >= 0).all():
            raise ValueError(f"`{name}` must hold numbers of zero or more, got one that is negative or NaN.")
        arrays.append(array)
    return arrays


def outer(*arrays: Array) -> list[Array]:
    """Arrays of any shape, broadcast against each other as an outer product."""
    total, offset, shaped = sum(a.ndim for a in arrays), 0, []
    for a in arrays:
        shaped.append(a.reshape((1,) * offset + a.shape + (1,) * (total - offset - a.ndim)))
        offset += a.ndim
    return shaped
