"""Standard errors from repeated measurements, for sets of latents without two complete blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Scatter"]

_NEIGHBOURS = 8  # on either side, in the order of the modes


class Scatter:
    """Relative standard error of a variance, from pairs of measurements of one denoiser with independent latents.

    ``r_k^2 = mean (ln v_k - ln v'_k)^2 / 2`` over the pairs so far and over mode k with its 8 neighbours on either side,
    which have about the same error. Each pair adds one degree of freedom per mode.

    Example:
        >>> scatter = Scatter()
        >>> scatter.add(torch.tensor([1.0, 2.0]), torch.tensor([1.1, 2.0]))
        >>> scatter.relative().round(decimals=3).tolist()  # ln 1.1 / 2
        [0.048, 0.048]
    """

    def __init__(self) -> None:
        self.squares: Tensor | None = None
        """Sum over pairs of the squared differences, ``[mode]``, without pairs that are not positive."""
        self.pairs: Tensor | None = None
        """Number of pairs, ``[mode]``."""

    def add(self, first: Tensor, second: Tensor) -> None:
        """Add a pair of variances ``[mode]``."""
        difference = (first.double() / second.double()).log()
        valid = torch.isfinite(difference)
        squares, pairs = torch.where(valid, difference, 0).square(), valid.double()
        self.squares = squares if self.squares is None else self.squares + squares
        self.pairs = pairs if self.pairs is None else self.pairs + pairs

    def relative(self) -> Tensor | None:
        """Relative standard error, ``[mode]``, NaN where no pair was positive; None before the first pair."""
        if self.squares is None or self.pairs is None:
            return None
        return (_summed(self.squares) / _summed(self.pairs) / 2).sqrt()

    def state_dict(self) -> dict[str, Any]:
        """Tensors for a checkpoint."""
        return {"squares": self.squares, "pairs": self.pairs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`."""
        self.squares, self.pairs = state.get("squares"), state.get("pairs")


def _summed(values: Tensor) -> Tensor:
    """Sums over each mode and its neighbours."""
    width = 2 * _NEIGHBOURS + 1
    return functional.avg_pool1d(values[None], width, 1, _NEIGHBOURS)[0] * width
