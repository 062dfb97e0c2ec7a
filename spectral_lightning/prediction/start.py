"""Where a prediction starts: what the network does before training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Start"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Start:
    """The denoiser before training at the sampler's levels, in the family's natural modes of the data.

    Attributes:
        gain: its gain on each mode, ``[level, mode]``; None for the family's own.
        response: leading rows of its response matrix, ``[level, m, mode]``; None to start from the gains alone.
    """

    gain: Array | None = None
    response: Array | None = None

    @property
    def without_response(self) -> Start:
        """The start from the gains alone."""
        return Start(self.gain)

    def describe(self) -> str:
        """One phrase for logs and files."""
        if self.response is None:
            return "the family's own weights" if self.gain is None else "gains of the untrained network along the modes"
        rows, modes = self.response.shape[1:]
        which = "" if rows == modes else f", rows of the {rows} leading modes, gains of the others"
        return f"full response of the untrained network{which}"
