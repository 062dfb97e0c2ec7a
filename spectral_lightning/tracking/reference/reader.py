"""Batches of the reference as the network sees them: after the hooks, transforms and encoders of the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from spectral_lightning.diffusion import undisturbed
from spectral_lightning.diffusion.adapters.paths import attribute_at
from spectral_lightning.spectra import Ranks
from spectral_lightning.spectra.reading import (
    DataSource,
    labelled_batches,
    preserved_generators,
    reference_batches,
)

__all__ = ["Reader", "named_transform", "transfer_hooks"]

Hook = Callable[[Any], Any]

_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")

_NOT_THE_USERS = {*vars(nn.Module()), "trainer", "_trainer", "_fabric", "_device_mesh"}


@dataclass(frozen=True)
class Reader:
    """One pass, or several, over this rank's share of the data.

    Attributes:
        source: what to read.
        ranks: the processes that share it.
        limit: the most examples read, over all ranks.
        batch_key: name or position of the examples in a batch.
        transform: applied to the examples.
        seen: applied to a batch as it comes from the loader.
        module: whose modes are put back, where a transform is one of its methods.
    """

    source: DataSource
    ranks: Ranks
    limit: int
    batch_key: int | str | None
    transform: Callable[[Tensor], Tensor] | None
    seen: Hook | None
    module: LightningModule

    def batches(self) -> Iterator[Tensor]:
        """The examples."""
        return reference_batches(self.source, self.ranks, self.limit, self.batch_key, self.transform, seen=self.seen)

    def labelled(self, label_key: int | str | None) -> Iterator[tuple[Tensor, Tensor]]:
        """The examples with their labels."""
        return labelled_batches(
            self.source, self.ranks, self.limit, self.batch_key, label_key, self.transform, seen=self.seen
        )

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Read without leaving a trace in the generators of the data, or in the modes and generators of the module."""
        with undisturbed(self.module), preserved_generators(self.source), ExitStack() as stack:
            for attributes in self._attributes():
                stack.enter_context(preserved_generators(attributes))
            yield

    def _attributes(self) -> Iterator[Any]:
        """What hooks on a batch may hold a generator in: the user's attributes of the module's parts and the datamodule."""
        datamodule = getattr(self.module.trainer, "datamodule", None)
        for owner in (*self.module.modules(), *([] if datamodule is None else [datamodule])):
            yield [value for key, value in vars(owner).items() if key not in _NOT_THE_USERS]


def named_transform(transform: Callable[[Tensor], Tensor] | str | None, module: LightningModule) -> Any:
    """The transform, or the method of the module that is named, called with examples on the module's device.

    Raises:
        ValueError: if the module has no such attribute, or one that cannot be called.
    """
    if not isinstance(transform, str):
        return transform
    method = attribute_at(module, transform, "transform")
    if not (transform and callable(method)):
        raise ValueError(f"`transform` must name a method of {type(module).__name__}, got {transform!r}.")
    return lambda x: method(x.to(module.device))


def transfer_hooks(trainer: Trainer, module: LightningModule) -> Hook | None:
    """What the training does to a batch between its loader and its step, None where that is nothing of the user's.

    The hooks ``on_before_batch_transfer``, ``transfer_batch_to_device`` and ``on_after_batch_transfer`` of the datamodule
    or the module, as Lightning chooses between them.
    """
    owners = [one for one in (getattr(trainer, "datamodule", None), module) if one is not None]
    if not any(_overrides(one, hook) for one in owners for hook in _HOOKS):
        return None
    before = next((one for one in owners if _overrides(one, _HOOKS[0])), module)

    def seen(batch: Any) -> Any:
        # The strategy calls the other two by itself.
        return trainer.strategy.batch_to_device(before.on_before_batch_transfer(batch, 0), module.device)

    return seen


def _overrides(owner: Any, hook: str) -> bool:
    """Whether a hook is the user's own, of a module of either package of Lightning."""
    home = getattr(type(owner), hook).__module__
    return not home.startswith(("lightning.pytorch.", "pytorch_lightning."))
