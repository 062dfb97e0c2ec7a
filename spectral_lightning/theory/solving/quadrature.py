"""Integrals over the noise level, refined for each mode and time until their error is small."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["NODES_PER_PANEL", "Integrand", "integrate"]

Array = NDArray[np.float64]
Integrand = Callable[[Array, Array, Array], Array]
"""``f(u, time, variance)``, arguments broadcast."""

_ORDER = 8
NODES_PER_PANEL = 3 * _ORDER + 2
"""Evaluations of a panel that is not divided: a rule on the panel, one on each half, and its ends."""

_PANELS, _COINCIDENCE = 20, 10.0  # shares of the tolerance: of a panel, and of what two rules may miss together
_DEEPEST, _MOST = 40, 256  # bisections of a panel; panels of one integral under way


def _rules() -> tuple[Array, Array, Array]:
    """Nodes of the panel ``[-1, 1]``, those of its halves and its ends, and what is taken of the values at all 26.

    The rows: both integrals; by how much each end is off the polynomial through the nearest half; and each value on the
    halves off that through the panel.
    """
    x, w = np.polynomial.legendre.leggauss(_ORDER)
    n, both, halves = _ORDER, np.tile(w, 2) / 2, np.concatenate([(x - 1) / 2, (x + 1) / 2])
    vander = np.polynomial.legendre.legvander
    inverse = np.linalg.inv(vander(x, n - 1))
    beyond = vander(np.array([-1.0, 1.0]), n - 1) @ inverse
    rows = np.zeros((4 + 2 * n, NODES_PER_PANEL))
    rows[0, :n], rows[1, n : 3 * n] = w, both
    rows[2, n : 2 * n], rows[3, 2 * n : 3 * n], rows[2:4, 3 * n :] = -beyond[0], -beyond[1], np.eye(2)
    rows[4:, :n], rows[4:, n : 3 * n] = -vander(halves, n - 1) @ inverse, np.eye(2 * n)
    rows[2:4] *= (1 - x[-1]) / 2
    rows[4:] *= both[:, None]
    return x, np.concatenate([halves, [-1.0, 1.0]]), rows


_OUTER, _INNER, _TAKEN = _rules()


def integrate(
    integrand: Integrand, low: float, high: float, time: Array, variance: Array, tolerance: float, panels: int
) -> tuple[Array, Array]:
    """Integral of f over u from ``low`` to ``high`` for every time and variance, and the error that is left of each.

    Gauss-Legendre quadrature with 8 nodes on a panel and on its two halves. A panel is bisected until the two rules agree
    within a twentieth of the tolerance; the values at its ends are those expected to the same accuracy, because no rule sees
    a jump between its last node and the end; and the values on the halves are those expected within ten times the tolerance,
    because two rules can agree by accident at a kink. Panels differ between integrals, so that each pays for its own kinks
    and fronts; a jump takes about 25 bisections.

    Args:
        integrand: f.
        low: lower limit.
        high: upper limit.
        time: first parameter of f, broadcast with the second.
        variance: second parameter of f.
        tolerance: of each integral.
        panels: equal panels to begin with.

    Returns:
        Integrals and errors, in the broadcast shape. The error is 0, or what is left where 40 bisections or 256 panels at a
        time were not enough.
    """
    shape = np.broadcast_shapes(time.shape, variance.shape)
    edges = np.linspace(low, high, panels + 1)
    half = (high - low) / panels / 2
    at = (edges[:-1] + half)[:, None] + half * np.concatenate([_OUTER, _INNER])
    values = integrand(at.reshape(-1, *(1,) * len(shape)), time[None], variance[None])
    values = np.broadcast_to(values, (at.size, *shape)).reshape(panels, NODES_PER_PANEL, -1)
    fine, gap, bad = _judge(values, half, tolerance)
    total, left = np.where(bad, 0.0, fine).sum(axis=0), np.zeros(values.shape[-1])
    panel, cell = np.nonzero(bad)
    times, variances = (np.broadcast_to(a, shape).reshape(-1) for a in (time, variance))
    middle, inner, gap = edges[panel] + half, values[panel, _ORDER:, cell].T, gap[panel, cell]
    fine = fine[panel, cell]
    for _ in range(_DEEPEST):
        if not cell.size:
            break
        crowded = np.bincount(cell, minlength=len(total))[cell] > _MOST
        if crowded.any():
            np.add.at(left, cell[crowded], gap[crowded])
            np.add.at(total, cell[crowded], fine[crowded])
            middle, inner, cell = middle[~crowded], inner[:, ~crowded], cell[~crowded]
        half /= 2
        middle = np.concatenate([middle - half, middle + half])
        outer, cell = np.concatenate([inner[:_ORDER], inner[_ORDER : 2 * _ORDER]], axis=1), np.tile(cell, 2)
        inner = integrand(middle + half * _INNER[:, None], times[cell], variances[cell])
        fine, gap, bad = _judge(np.concatenate([outer, inner]), half, tolerance)
        np.add.at(total, cell[~bad], fine[~bad])
        middle, inner, cell, gap, fine = middle[bad], inner[:, bad], cell[bad], gap[bad], fine[bad]
    else:
        np.add.at(total, cell, fine)
        np.add.at(left, cell, gap)
    return total.reshape(shape), left.reshape(shape)


def _judge(values: Array, half: float, tolerance: float) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Integral over the halves, its likely error, and whether to bisect, from ``[.., 26, cells]``."""
    taken = _TAKEN @ values
    off = np.abs(taken[..., 2:, :])
    fine = half * taken[..., 1, :]
    gap = half * np.maximum(np.abs(taken[..., 1, :] - taken[..., 0, :]), off[..., :2, :].max(axis=-2))
    return (
        fine,
        gap,
        ~((gap <= tolerance / _PANELS) & (half * off[..., 2:, :].sum(axis=-2) <= _COINCIDENCE * tolerance)),
    )
