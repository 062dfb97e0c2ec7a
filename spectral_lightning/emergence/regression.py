"""Linear regression on censored values whose residuals are correlated along an order. NumPy and SciPy only.

Least squares over the uncensored values alone is biased, and its interval is too short if neighbours are correlated. Here
the line takes both into account, and its interval is that of the posterior under both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr, ndtr, ndtri

__all__ = ["Regression", "regress"]

Array = NDArray[np.float64]

_SWEEPS, _BURN = 240, 60
_CORRELATIONS = np.linspace(-0.5, 0.99, 75)
_FLOOR = 1e-12  # of the mean square of the values: exact lines have no scatter


@dataclass(frozen=True)
class Regression:
    """A fitted line or parabola ``y = b_0 + b_1 x + ...`` of each of several data sets ``[..]``.

    Attributes:
        coefficients: the point estimate, ``[.., p]``.
        draws: coefficients drawn from the posterior, ``[S, .., p]``.
        correlation: posterior mean of the correlation of neighbouring residuals, ``[..]``.
        scatter: posterior mean of the residuals' standard deviation, ``[..]``.
    """

    coefficients: Array
    draws: Array
    correlation: Array
    scatter: Array

    def interval(self, weights: ArrayLike, confidence: float = 0.95) -> tuple[Array, Array]:
        """Ends of the interval of ``weights @ coefficients``, ``[..]`` each."""
        ends = np.quantile(
            self.draws @ np.asarray(weights, np.float64), [(1 - confidence) / 2, (1 + confidence) / 2], 0
        )
        return ends[0], ends[1]


def regress(
    x: ArrayLike,
    y: ArrayLike,
    side: ArrayLike,
    error: ArrayLike = 0.0,
    *,
    degree: int = 1,
    chains: int = 24,
    seed: int = 0,
) -> Regression:
    """Fit ``y_k = sum_p b_p x_k^p + e_k``, with e a stationary Gaussian AR(1) process along k.

    Of a value y_k the data give the value itself, up to a normal measurement error, or a bound. The point estimate is from
    the EM algorithm: bounded values are replaced by their expectation given the line (Tobit), the line is fitted by
    generalised least squares with the correlation below and weights from the errors. Censoring leaves it nearly unbiased, unless
    correlation and censoring are both strong: where it leaves the middle half of the posterior, the median replaces it.
    The interval is from a Gibbs sampler of the full model: hidden values given their neighbours, truncated to their bounds;
    coefficients and scatter given all values, under the prior ``1 / scatter^2``; the correlation on a grid from -0.5 to
    0.99, all equally likely beforehand. Without censoring and correlation this is Student's interval of least squares.

    Coverage by simulation: ``python -m studies simulate``.

    Reference: Tobin 1958; Chib 1992 (Gibbs sampling of censored regression); Zeger & Brookmeyer 1986 (censored
    autoregression).

    Args:
        x: ``[.., K]``, in the order along which residuals are correlated.
        y: values or bounds, ``[.., K]``.
        side: 0 for a value, 1 for a lower bound, -1 for an upper bound, ``[.., K]``.
        error: standard deviation of the error of measuring a value, ``[.., K]``.
        degree: of the polynomial.
        chains: independent chains of the sampler, of 180 kept sweeps each.
        seed: of the sampler.

    Raises:
        ValueError: for values that are not finite, or no more values than coefficients.
    """
    x, y, side, error = np.broadcast_arrays(*(np.asarray(a, np.float64) for a in (x, y, side, error)))
    if not all(np.isfinite(a).all() for a in (x, y, error)) or (error < 0).any():
        raise ValueError("`x`, `y` and `error` must be finite, and `error` zero or more.")
    if y.shape[-1] <= degree + 2:
        raise ValueError(f"`y` must hold more than {degree + 2} values for degree {degree}, got {y.shape[-1]}.")
    design = np.stack([x**p for p in range(degree + 1)], axis=-1)
    _, value = _most_likely(design, y, side)
    sampler = _Gibbs([np.broadcast_to(a, (chains, *a.shape)) for a in (design, y, side, error, value)], seed)
    kept = [sampler.sweep() for _ in range(_SWEEPS)][_BURN:]
    draws, correlation, scatter = (np.concatenate(part) for part in zip(*kept, strict=True))
    rho, spread = correlation.mean(0), scatter.mean(0)
    weight = 1 / np.sqrt(1 + (error / spread[..., None]) ** 2)
    likely = _most_likely(design, y, side, rho, weight)[0]
    low, middle, high = np.quantile(draws, (0.25, 0.5, 0.75), axis=0)
    inside = ((likely >= low) & (likely <= high))[..., 1:].all(-1, keepdims=True)
    return Regression(np.where(inside, likely, middle), draws, rho, spread)


def _most_likely(
    design: Array, y: Array, side: Array, rho: ArrayLike = 0.0, weight: ArrayLike = 1.0
) -> tuple[Array, Array]:
    """Coefficients and expected values by the EM algorithm: values given the line, the line by weighted least squares."""
    r, value, w = np.broadcast_to(np.asarray(rho, np.float64), y.shape[:-1]), np.array(y), np.asarray(weight)
    inverse = np.linalg.pinv(np.stack([w * _whitened(column, r) for column in np.moveaxis(design, -1, 0)], axis=-1))
    scale = np.asarray(y.std(-1) + 1e-9)
    for _ in range(200 if side.any() else 1):
        coefficients = (inverse @ (w * _whitened(value, r))[..., None])[..., 0]
        line = (design @ coefficients[..., None])[..., 0]
        s = scale[..., None]
        z = np.where(side == 0, 0.0, np.sign(side) * (y - line) / s)
        hazard = np.exp(-(z**2) / 2 - log_ndtr(-z)) / np.sqrt(2 * np.pi)
        value = np.where(side == 0, y, line + np.sign(side) * s * hazard)
        spread = np.where(side == 0, 0.0, np.clip(1 + z * hazard - hazard**2, 0, 1)) * s**2
        scale = np.sqrt(((value - line) ** 2 + spread).mean(-1)) + 1e-9
    return (inverse @ (w * _whitened(value, r))[..., None])[..., 0], value


def _whitened(values: Array, rho: Array) -> Array:
    """``v_k - rho v_(k-1)``, and ``(1 - rho^2)^(1/2) v_0`` first, along the last axis."""
    r = rho[..., None]
    return np.concatenate([np.sqrt(1 - r**2) * values[..., :1], values[..., 1:] - r * values[..., :-1]], axis=-1)


class _Gibbs:
    """The sampler; every array has leading axes for chains and data sets."""

    def __init__(self, parts: list[Array], seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.design, y, side, self.error, value = parts
        self.y, self.side, self.value = y, side, np.array(value)
        self.low, self.high = np.where(side > 0, y, -np.inf), np.where(side < 0, y, np.inf)
        self.hidden = bool(((side != 0) | (self.error > 0)).any())
        self.floor = _FLOOR * (1 + (y**2).mean(-1))
        self.rho = self.rng.uniform(0, 0.6, y.shape[:-1])

    def sweep(self) -> tuple[Array, Array, Array]:
        """Draw everything once: coefficients, correlation and scatter."""
        b = self._coefficients()
        line = (self.design @ b[..., None])[..., 0]
        innovation = self._correlation(self.value - line)
        if self.hidden:
            for half in (0, 1):  # neighbours of even places are odd
                self._values(half, line, innovation)
        return b, self.rho, np.sqrt(innovation / (1 - self.rho**2))

    def _coefficients(self) -> Array:
        """Given values and correlation, with the scatter integrated out."""
        rows = np.stack([_whitened(column, self.rho) for column in np.moveaxis(self.design, -1, 0)], axis=-1)
        target, count, p = _whitened(self.value, self.rho), *self.design.shape[-2:]
        across = np.swapaxes(rows, -1, -2)
        inverse = np.linalg.inv(across @ rows)
        mean = (inverse @ (across @ target[..., None]))[..., 0]
        square = ((target - (rows @ mean[..., None])[..., 0]) ** 2).sum(-1) + self.floor
        innovation = square / self.rng.chisquare(count - p, square.shape)
        draw = np.linalg.cholesky(inverse) @ self.rng.standard_normal((*mean.shape, 1))
        return np.asarray(mean + np.sqrt(innovation)[..., None] * draw[..., 0])

    def _correlation(self, e: Array) -> Array:
        """Correlation given the residuals, with the scatter integrated out; then the innovations' variance given both."""
        count = e.shape[-1]
        first, later = e[..., 0] ** 2, (e[..., 1:] ** 2).sum(-1)
        earlier, cross = (e[..., :-1] ** 2).sum(-1), (e[..., 1:] * e[..., :-1]).sum(-1)

        def square(rho: Array) -> Array:
            return np.asarray((1 - rho**2) * first + later - 2 * rho * cross + rho**2 * earlier + self.floor)

        grid = _CORRELATIONS.reshape(-1, *[1] * first.ndim)
        log = 0.5 * np.log1p(-(grid**2)) - count / 2 * np.log(square(grid))
        weight = np.exp(log - log.max(0)).cumsum(0)
        pick = (self.rng.random(first.shape) * weight[-1] > weight).sum(0).clip(0, len(_CORRELATIONS) - 1)
        step = _CORRELATIONS[1] - _CORRELATIONS[0]
        self.rho = np.clip(_CORRELATIONS[pick] + step * (self.rng.random(first.shape) - 0.5), -0.5, 0.995)
        return square(self.rho) / self.rng.chisquare(count, first.shape)

    def _values(self, half: int, line: Array, innovation: Array) -> None:
        """Hidden values in even or odd places given their neighbours."""
        at, count = slice(half, None, 2), line.shape[-1]
        e, edge, rho = self.value - line, np.zeros_like(line[..., :1]), self.rho[..., None]
        neighbours = np.concatenate([edge, e[..., :-1]], -1)[..., at] + np.concatenate([e[..., 1:], edge], -1)[..., at]
        inside = np.isin(np.arange(count)[at], (0, count - 1), invert=True)
        precision = (1 + rho**2 * inside) / innovation[..., None]
        center = line[..., at] + rho * neighbours / innovation[..., None] / precision
        y, error = self.y[..., at], self.error[..., at]
        bounded = self._truncated(center, precision**-0.5, self.low[..., at], self.high[..., at])
        known = np.maximum(error, 1e-12) ** -2
        noise = self.rng.standard_normal(center.shape) / np.sqrt(precision + known)
        measured = np.where(error > 0, (center * precision + y * known) / (precision + known) + noise, y)
        self.value[..., at] = np.where(self.side[..., at] == 0, measured, bounded)

    def _truncated(self, mean: Array, sd: Array, low: Array, high: Array) -> Array:
        """Normal draws between bounds, in the tail where the distribution function keeps its precision."""
        a, b = (low - mean) / sd, (high - mean) / sd
        upper = a > 0
        a, b = np.where(upper, -b, a), np.where(upper, -a, b)
        below, above = ndtr(a), ndtr(b)
        z = ndtri(below + self.rng.random(mean.shape) * (above - below))
        z = np.where(np.isfinite(z), z, np.where(np.isfinite(b), b, 0.0))
        return np.asarray(mean + sd * np.where(upper, -z, z))
