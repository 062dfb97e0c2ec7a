"""The fixed set of latents from which a measurement starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spectral_lightning.arguments import one_of, positive_integer
from spectral_lightning.seeds import numpy_generator

__all__ = ["Latents"]


@dataclass(frozen=True)
class Latents:
    """``count`` standard normal latents in ``dim`` dimensions, the same for every rank, device and world size.

    ``"orthogonal"``: antithetic orthonormal blocks. A block holds ``+q_i`` and ``-q_i`` times ``sqrt(dim)`` for the
    columns q_i of a Haar-distributed orthogonal matrix, 2 ``dim`` latents whose second moment is exactly the identity:
    a linear denoiser is then measured without sampling error. Fewer than 2 ``dim`` latents are no better than
    independent ones. Their norm is fixed at ``sqrt(dim)``, which biases high moments in very low dimension.

    ``"independent"``: independent draws.

    Every block has its own generator, so that any part can be drawn separately, in float64.

    Args:
        count: number of latents; even for ``"orthogonal"``.
        dim: dimension d.
        kind: ``"orthogonal"`` or ``"independent"``.
        seed: seed of the generators.
        part: another set of the same kind and seed, independent of set 0.

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

    def __post_init__(self) -> None:
        positive_integer("num_samples", self.count, minimum=2)
        positive_integer("dim", self.dim)
        positive_integer("seed", self.seed, minimum=0)
        one_of("latents", self.kind, ("orthogonal", "independent"))
        if self.kind == "orthogonal" and self.count % 2:
            raise ValueError(
                f"`num_samples` must be even for orthogonal latents, which come in pairs, got {self.count}."
            )

    @property
    def block(self) -> int:
        """Latents in a full block, 2 ``dim``."""
        return 2 * self.dim

    def rows(self, start: int, stop: int) -> Tensor:
        """Latents ``start`` to ``stop``, ``[stop - start, dim]``, float64 on the CPU.

        Raises:
            ValueError: for an empty range or one beyond the set.
        """
        if not 0 <= start < stop <= self.count:
            raise ValueError(
                f"`start` and `stop` must hold 0 <= start < stop <= {self.count}, got {start!r} and {stop!r}."
            )
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
        gaussian = torch.from_numpy(generator.standard_normal((self.dim, size // 2)))
        q, r = torch.linalg.qr(gaussian)
        # Without the signs of R's diagonal, Q is not Haar-distributed.
        directions = (q * torch.sign(torch.diagonal(r))).T * self.dim**0.5
        return torch.stack([directions, -directions], dim=1).reshape(size, self.dim)
