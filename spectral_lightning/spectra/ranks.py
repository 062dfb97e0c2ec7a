"""Sums, copies and gathered objects across the processes of a run; nothing to do in a single process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

__all__ = ["DistributedRanks", "Ranks", "current_ranks", "together"]


class Ranks:
    """The processes of a run, which share its work; this class stands for a single process.

    Every rank must call each method.

    Attributes:
        rank: number of this process.
        size: number of processes.
    """

    rank, size = 0, 1

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, the same on every rank."""
        return tensor

    def copy_from_first(self, tensor: Tensor) -> Tensor:
        """Rank 0's tensor on every rank."""
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in the order of the ranks."""
        return [value]


class DistributedRanks(Ranks):
    """The ranks of the default process group of ``torch.distributed``.

    Args:
        device: where collectives run: the GPU of the rank under NCCL, the CPU under gloo.

    Raises:
        RuntimeError: if there is no process group.
    """

    def __init__(self, device: torch.device) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise RuntimeError("`DistributedRanks` needs a process group: call torch.distributed.init_process_group.")
        self.rank, self.size, self._device = dist.get_rank(), dist.get_world_size(), device

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks."""
        on_device = tensor.to(self._device, copy=True)
        dist.all_reduce(on_device)
        return on_device.to(tensor.device)

    def copy_from_first(self, tensor: Tensor) -> Tensor:
        """Rank 0's tensor."""
        on_device = tensor.to(self._device, copy=True).contiguous()
        dist.broadcast(on_device, src=0)
        return on_device.to(tensor.device)

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, which must be picklable."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found


def current_ranks(device: torch.device) -> Ranks:
    """The ranks of the default process group, or this process alone."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return DistributedRanks(device)
    return Ranks()


@contextmanager
def together(ranks: Ranks) -> Iterator[None]:
    """Raise on every rank if the body fails on any. Every rank must enter; the body must not wait for another rank.

    Raises:
        RuntimeError: on ranks where the body did not fail, with the errors of the others.
        Exception: whatever the body raises on this rank.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    reports = ranks.gather(None if error is None else f"rank {ranks.rank}: {type(error).__name__}: {error}")
    if error is not None:
        raise error
    if any(reports):
        raise RuntimeError(f"failed on {'; '.join(filter(None, reports))}")
