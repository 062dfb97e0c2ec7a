"""The latents from which a measurement starts: a fixed set, or one slice of a block."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dct
from torch import Tensor

from spectral_lightning.arguments import one_of, positive_integer
from spectral_lightning.seeds import haar_directions, numpy_generator

__all__ = ["Latents"]

_STRUCTURED = 64  # dimensions from which the directions of a slice are structured
_ROUNDS = 3
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Latents:
    """``count`` standard normal latents in ``dim`` dimensions, the same for every rank, device and world size.

    ``"orthogonal"``: antithetic orthonormal blocks. A block holds ``+q_i`` and ``-q_i`` times ``sqrt(dim)`` for the
    columns q_i of a Haar-distributed orthogonal matrix, 2 ``dim`` latents whose second moment is exactly the identity:
    a linear denoiser is then measured without sampling error. Their norm is fixed at ``sqrt(dim)``, which biases high
    moments in very low dimension.

    Fewer than 2 ``dim`` orthogonal latents are a slice of one block: ``count / 2`` neighbours on the circle of its
    directions ``q_1 ... q_d``, from ``first`` on. One slice is hardly better than independent latents; the errors of
    several cancel, see :meth:`rotated`. From 64 dimensions on, the directions of slices are columns of

    ``S_1 C S_2 C S_3 C``

    with the orthonormal cosine transform C and diagonal matrices S of random signs: exactly orthonormal, any of them in
    ``O(d log d)``, without a d x d matrix (Yu et al., Orthogonal Random Features, 2016, section 4: "structured"). In 64 and
    256 dimensions, projected on pixels, cosines, sines and random directions, their fourth and sixth moments, the error of
    a variance measured by a slice, and that of two nonlinear networks' outputs are those of Haar matrices within the 2 %
    that 400 to 1,000 seeds resolve.

    ``"independent"``: independent draws.

    Every block has its own generator, so that any part can be drawn separately, in float64.

    Args:
        count: number of latents; even for ``"orthogonal"``.
        dim: dimension d.
        kind: ``"orthogonal"`` or ``"independent"``.
        seed: seed of the generators.
        part: another set of the same kind and seed, independent of set 0.
        first: first direction of a slice, counted from 0; 0 for ``2 dim`` latents or more.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> rows = Latents(count=8, dim=4).rows(0, 8)
        >>> torch.allclose(rows.T @ rows / 8, torch.eye(4, dtype=torch.float64))
        True
    """

    count: int
    dim: int
    kind: Literal["orthogonal", "independent"] = "orthogonal"
    seed: int = 0
    part: int = 0
    first: int = 0

    def __post_init__(self) -> None:
        positive_integer("num_samples", self.count, minimum=2)
        positive_integer("dim", self.dim)
        positive_integer("seed", self.seed, minimum=0)
        one_of("latents", self.kind, ("orthogonal", "independent"))
        positive_integer("first", self.first, minimum=0)
        if self.first >= (self.dim if self.sliced else 1):
            raise ValueError(f"`first` must be a direction of a slice, below `dim`, got {self.first}.")
        if self.kind == "orthogonal" and self.count % 2:
            raise ValueError(
                f"`num_samples` must be even for orthogonal latents, which come in pairs, got {self.count}."
            )

    @property
    def block(self) -> int:
        """Latents in a full block, 2 ``dim``."""
        return 2 * self.dim

    @property
    def sliced(self) -> bool:
        """Whether the latents are a slice of one block."""
        return self.kind == "orthogonal" and self.count < self.block

    def rotated(self, index: int) -> Latents:
        """The slice for scheduled measurement ``index``; the same latents if they are not a slice.

        Of m evenly spaced slices that cover the block, number ``floor(m frac(index g))`` with the golden ratio g = 0.618...
        Any m successive measurements cover most of the block, and so do they if only one in k of them is taken.

        Example:
            >>> [Latents(count=2, dim=4).rotated(index).first for index in range(8)]
            [0, 2, 0, 3, 1, 0, 2, 1]
        """
        slices = -(-self.block // self.count)
        return replace(self, first=int(slices * (index * _GOLDEN % 1)) * self.dim // slices) if self.sliced else self

    def rows(self, start: int, stop: int) -> Tensor:
        """Latents ``start`` to ``stop``, ``[stop - start, dim]``, float64 on the CPU.

        Raises:
            ValueError: for an empty range or one beyond the set.
        """
        if not 0 <= start < stop <= self.count:
            raise ValueError(
                f"`start` and `stop` must hold 0 <= start < stop <= {self.count}, got {start!r} and {stop!r}."
            )
        if self.sliced:
            lowest = start // 2
            return _pairs(self._slice(lowest, -(-stop // 2)), self.dim)[start - 2 * lowest : stop - 2 * lowest]
        firsts = range(start // self.block * self.block, stop, self.block)
        return torch.cat([self._block(n // self.block)[max(start - n, 0) : stop - n] for n in firsts])

    @staticmethod
    def condition(rows: Tensor, start: int, stop: int) -> Tensor:
        """The conditions of latents ``start`` to ``stop``, ``[stop - start, ...]``.

        Latents 2i and 2i + 1, an antithetic pair, have row i modulo n of ``rows [n, ...]``.

        Example:
            >>> Latents.condition(torch.tensor([7, 8]), 1, 6).tolist()
            [7, 8, 8, 7, 7]
        """
        return rows[(torch.arange(start, stop) // 2 % len(rows)).to(rows.device)]

    def _block(self, block: int) -> Tensor:
        generator = numpy_generator("latents", self.seed, block, self.part)
        size = min(self.block, self.count - block * self.block)
        if self.kind == "independent":
            return torch.from_numpy(generator.standard_normal((size, self.dim)))
        return _pairs(torch.from_numpy(haar_directions(generator, self.dim, size // 2)), self.dim)

    def _slice(self, start: int, stop: int) -> Tensor:
        """Directions ``start`` to ``stop`` of the slice, ``[stop - start, dim]``."""
        generator = numpy_generator("latents", self.seed, 0, self.part)
        chosen = (self.first + np.arange(start, stop)) % self.dim
        if self.dim < _STRUCTURED:
            return torch.from_numpy(haar_directions(generator, self.dim, self.dim)[chosen])
        directions: NDArray[np.float64] = np.zeros((len(chosen), self.dim))
        directions[np.arange(len(chosen)), chosen] = 1
        for signs in generator.choice([-1.0, 1.0], (_ROUNDS, self.dim)):
            directions = dct(directions, norm="ortho", overwrite_x=True)
            directions *= signs
        return torch.from_numpy(directions)


def _pairs(directions: Tensor, dim: int) -> Tensor:
    """Antithetic latents of norm ``sqrt(dim)`` along the directions ``[n, dim]``, ``[2 n, dim]``."""
    scaled = directions * dim**0.5
    return torch.stack([scaled, -scaled], dim=1).reshape(-1, dim)
