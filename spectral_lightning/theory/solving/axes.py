"""Arguments of the theory as arrays: checked, and broadcast as outer products."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["checked", "outer"]

Array = NDArray[np.float64]


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
