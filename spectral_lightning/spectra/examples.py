"""The examples of a data set, for sums over them that take one pass or several."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from itertools import chain

import torch
from torch import Tensor

from spectral_lightning.spectra.moments import checked_rows
from spectral_lightning.spectra.ranks import Ranks, together

__all__ = ["Examples"]

_NUMBERS_AT_ONCE = 2**23
_NUMBERS_JOINED = 2**20


class Examples:
    """The examples of a data set; each rank reads its share and has the sums of all.

    Args:
        batches: reads this rank's batches ``[B, *S]``, the same at every call.
        ranks: the processes that share the data. Every rank must call every method.
        memory: the most bytes of examples that a rank keeps.
        device: where sums are taken, in float64.

    Attributes:
        shape: shape S of one example.
        dim: number of its coordinates d.
        count: number of examples over all ranks; known after the first :meth:`totals`, as are the following.
        mean: their mean, ``[d]``.
        variance: their total variance, the trace of the covariance.
        kept: this rank's batches of examples, if they were to be kept and fit in ``memory`` on every rank.

    Raises:
        ValueError: if this rank has no examples.

    Example:
        >>> examples = Examples(lambda: iter([torch.tensor([[0.0, 1.0], [2.0, 1.0]])]))
        >>> [outer] = examples.totals(lambda x: (x.T @ x,))
        >>> outer.tolist(), examples.mean.tolist(), examples.variance
        ([[4.0, 2.0], [2.0, 2.0]], [1.0, 1.0], 1.0)
    """

    def __init__(
        self,
        batches: Callable[[], Iterator[Tensor]],
        ranks: Ranks | None = None,
        memory: int = 2**30,
        device: torch.device | str = "cpu",
    ) -> None:
        self.ranks, self.memory, self.device = ranks or Ranks(), memory, torch.device(device)
        self._batches = batches
        with together(self.ranks):
            self._opened: Generator[Tensor] | None = self._read()
            first = next(self._opened, None)
            if first is None:
                raise ValueError(f"The data must hold at least one example per rank, got fewer than {self.ranks.size}.")
        self._first: Tensor = first
        self.shape = tuple(self._first.shape[1:]) or (1,)
        self.dim = self._first[0].numel()
        self.count, self.variance = 0, 0.0
        self.mean = torch.zeros(self.dim, dtype=torch.float64)
        self.kept: list[Tensor] | None = None

    def close(self) -> None:
        """End a pass that was only begun, which leaves the data's random generators as they were."""
        if self._opened is not None:
            self._opened.close()

    def _read(self) -> Generator[Tensor]:
        yield from self._batches()

    @property
    def source(self) -> str:
        """What the moments describe, for logs and files."""
        return f"{self.count} training examples"

    def batches(self) -> Iterator[Tensor]:
        """This rank's batches, flattened, ``[B, d]``; small ones are joined, which makes sums over them faster.

        Raises:
            ValueError: for examples of different shapes, or values that are not finite.
        """
        if self.kept is not None:
            yield from self.kept
            return
        if self._opened is not None:  # the first batch has been read already
            first, opened, self._opened = [self._first], self._opened, None
            del self._first
        else:
            first, opened = [], self._read()
        joined, size = list[Tensor](), 0
        for batch in chain(first, opened):
            joined.append(checked_rows(batch, self.dim))
            size += batch.numel()
            if size >= _NUMBERS_JOINED:
                yield torch.cat(joined)
                joined, size = [], 0
        if joined:
            yield torch.cat(joined)

    def totals(
        self, of: Callable[[Tensor], tuple[Tensor, ...]] = lambda x: (), keep: bool = False
    ) -> tuple[Tensor, ...]:
        """Sums over all examples of all ranks, in one pass.

        Args:
            of: sums over some examples ``x [n, d]``, float64.
            keep: whether to keep the examples for later passes, if they fit.

        Raises:
            ValueError: as :meth:`batches`, and if all examples are the same.
        """
        known, kept, size = self.count > 0, list[Tensor](), 0
        sums: list[Tensor] = []
        with together(self.ranks):
            for batch in self.batches():
                if keep and size <= self.memory:
                    size += batch.nbytes
                    kept = [*kept, batch.cpu()] if size <= self.memory else []
                for part in torch.split(batch, self._rows):
                    x = part.to(self.device, torch.float64)
                    number = torch.tensor(float(len(x)), dtype=torch.float64)
                    found = of(x) if known else (number, x.sum(0), x.square().sum(), *of(x))
                    sums = [a.add_(b) for a, b in zip(sums, found, strict=True)] if sums else [s.clone() for s in found]
        sums = [self.ranks.sum(part) for part in sums]
        if not known:
            count, total, squares, *sums = sums
            self.count, self.mean = int(count), (total / count.to(total)).cpu()
            self.variance = max(float(squares) / self.count - float(self.mean.square().sum()), 0.0)
            # Rounding leaves a trace of the mean's square even of examples that are all the same.
            if self.variance <= 1e-14 * float(squares) / self.count:
                raise ValueError(f"The data must vary, got {self.count} identical examples, which have no modes.")
        if keep and all(self.ranks.gather(size <= self.memory)):
            self.kept = kept
        return tuple(sums)

    def product(self, vectors: Tensor) -> Tensor:
        """The covariance times vectors ``[d, b]``, float64, in one pass."""
        mean = self.mean.to(vectors)
        centre = mean @ vectors

        def of(x: Tensor) -> tuple[Tensor, ...]:
            along = x @ vectors - centre
            return x.T @ along, along.sum(0)

        outer, sums = self.totals(of)
        return (outer - torch.outer(mean, sums)) / self.count

    @property
    def _rows(self) -> int:
        return max(1, _NUMBERS_AT_ONCE // self.dim)
