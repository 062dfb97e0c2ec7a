"""What a transformer's tokens see of a mode: whether that orders its modes, rather than their variance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from studies.estimate import Estimate
from studies.ordering import Ordering, correlation_interval, rank_correlation
from studies.tables import markdown

__all__ = ["TokenOrder", "constant_share", "token_order", "token_table"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TokenOrder:
    """Rank correlations of the step of emergence over falling Fourier modes that crossed.

    Attributes:
        variance: with the variance.
        constant: with the share of a mode that is constant within the tokens.
        variance_alone: partial, with the variance at equal share.
        constant_alone: partial, with the share at equal variance.
    """

    variance: Estimate
    constant: Estimate
    variance_alone: Estimate
    constant_alone: Estimate


def constant_share(waves: NDArray[np.int64], side: int, token: int) -> Array:
    """Share of a wave's power that lies in its means over tokens of ``token x token`` pixels, ``[K]``.

    ``prod_axes |1/p Sum_{j<p} exp(2 pi i k j / N)|^2``: what a token can only learn from the others.

    Example:
        >>> constant_share(np.array([[0, 0], [0, 8], [4, 4]]), 16, 2).round(6).tolist()
        [1.0, 0.0, 0.25]
    """
    phase = np.exp(2j * np.pi * waves[..., None] * np.arange(token) / side)
    return np.asarray((np.abs(phase.mean(axis=-1)) ** 2).prod(axis=-1))


def token_order(order: Ordering, waves: NDArray[np.int64], side: int, token: int) -> TokenOrder:
    """Correlations of the modes of one direction, in single Fourier modes.

    Args:
        order: the falling modes.
        waves: cycles along both axes, ``[K, 2]``.
        side: of the images.
        token: side of a token.
    """
    chosen = order.found.crossed(order.way)
    time, variance = order.found.time[chosen], order.found.variance[chosen]
    share = constant_share(waves[chosen], side, token)
    by_variance, by_share = rank_correlation(time, variance), rank_correlation(time, share)
    r = np.corrcoef([rankdata(time), rankdata(variance), rankdata(share)])
    partial = [_partial(r[0, k], r[0, other], r[k, other]) for k, other in ((1, 2), (2, 1))]
    alone = [correlation_interval(one, len(time), given=1) for one in partial]
    return TokenOrder(by_variance, by_share, *alone)


def _partial(first: float, second: float, between: float) -> float:
    """Correlation with the first quantity at equal second one."""
    return float((first - second * between) / np.sqrt((1 - second**2) * (1 - between**2)))


def token_table(found: Mapping[str, TokenOrder]) -> str:
    """A line per network."""
    columns = ["network", "with variance", "with share constant in tokens", "variance, at equal share"]
    rows = [
        [name, *(value.cell for value in (one.variance, one.constant, one.variance_alone, one.constant_alone))]
        for name, one in found.items()
    ]
    return markdown([*columns, "share, at equal variance"], rows)
