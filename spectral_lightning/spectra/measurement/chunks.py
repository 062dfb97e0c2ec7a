"""Latents in chunks that go through the network together, shared among ranks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from spectral_lightning.arguments import positive_integer
from spectral_lightning.diffusion import Latents
from spectral_lightning.spectra.ranks import Ranks

__all__ = ["LatentChunks"]

Part = tuple[int, int, int]
"""``(block, start, stop)``: latents of one block."""


class LatentChunks:
    """A set of latents in chunks; each rank takes every R-th chunk, R the number of ranks.

    A chunk holds several blocks if they fit, or a part of one block, and at most an R-th of the latents, so that all ranks work.

    Args:
        latents: all latents.
        most: the largest chunk.
        ranks: the processes that share the chunks.

    Attributes:
        parts: the parts ``(block, start, stop)`` of every chunk.
    """

    def __init__(self, latents: Latents, most: int, ranks: Ranks) -> None:
        self.latents, self.ranks = latents, ranks
        share = -(-latents.count // (2 * ranks.size)) * 2  # even: antithetic pairs stay together
        self.parts = list(_cut(latents, min(positive_integer("sample_batch_size", most), share)))
        self._drawn: dict[tuple[int, torch.dtype], Tensor] = {}

    def rotate(self, index: int) -> None:
        """Go on with another slice, see :meth:`Latents.rotated`, and forget the rows of the last one."""
        rotated = self.latents.rotated(index)
        if rotated != self.latents:
            self.latents, self._drawn = rotated, {}

    def turns(self) -> Iterator[tuple[int, bool]]:
        """The indices of this rank's chunks, each with whether it is a repetition to leave out of the results.

        A rank with fewer chunks than others repeats one, so that every rank calls the denoiser equally often, as a denoiser
        that gathers sharded parameters requires.
        """
        count, size = len(self.parts), self.ranks.size
        for index in range(self.ranks.rank, -(-count // size) * size, size):
            yield index % count, index >= count

    def rows(self, index: int, dtype: torch.dtype) -> Tensor:
        """The latents of a chunk, ``[n, d]``, on the CPU; kept, because orthogonal blocks of high dimension are slow."""
        if (index, dtype) not in self._drawn:
            self._drawn[index, dtype] = self.latents.rows(*self._range(index)).to(dtype)
        return self._drawn[index, dtype]

    def condition(self, condition: Tensor | None, index: int, device: torch.device | str) -> Tensor | None:
        """The conditions of a chunk's latents, see :meth:`Latents.condition`."""
        return None if condition is None else self.latents.condition(condition, *self._range(index)).to(device)

    def _range(self, index: int) -> tuple[int, int]:
        """The first latent of a chunk and one past its last."""
        return self.parts[index][0][1], self.parts[index][-1][2]


def _cut(latents: Latents, most: int) -> Iterator[list[Part]]:
    size = latents.block if latents.block <= most else most
    parts: list[Part] = []
    for first in range(0, latents.count, latents.block):
        end = min(first + latents.block, latents.count)
        for start in range(first, end, size):
            stop = min(start + size, end)
            if parts and stop - parts[0][1] > most:
                yield parts
                parts = []
            parts.append((first // latents.block, start, stop))
    yield parts
