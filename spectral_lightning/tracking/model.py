"""The model as a tracker measures it: which denoiser, with which weights, through which sampler."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from spectral_lightning.diffusion import (
    Adapter,
    BoundDenoiser,
    Denoiser,
    HasSampler,
    WeightSource,
    resolve_denoiser,
    state_dtype,
    undisturbed,
)
from spectral_lightning.diffusion.weights.find import Weights, find_weights
from spectral_lightning.sampling import Sampler
from spectral_lightning.tracking.instrument import Subject
from spectral_lightning.tracking.signals import deferred_signals

__all__ = ["MeasuredModel", "SampleFunction", "sharding_of"]

SampleFunction = Callable[[Any, Tensor], Tensor]
"""``f(module, latents [B, *S]) -> samples [B, *S]``, from standard normal latents."""


class MeasuredModel:
    """What is evaluated in a measurement, found once when the Trainer is set up.

    Args:
        denoiser: as for :func:`~spectral_lightning.diffusion.resolve_denoiser`.
        weights: as for :func:`~spectral_lightning.diffusion.weights.find.find_weights`.
        sampler: a discrete sampler; a function that samples by itself; or None for what suits the denoiser.
        condition: rows ``[n, ...]``, of which the latents 2i and 2i + 1 take row i modulo n.
    """

    def __init__(
        self,
        denoiser: Denoiser | Adapter | str | None = None,
        weights: Weights = "raw",
        sampler: Sampler | SampleFunction | None = None,
        condition: Tensor | None = None,
    ) -> None:
        self.given, self.kind, self.chosen_sampler, self.condition = denoiser, weights, sampler, condition
        self.description = ""
        self._denoiser: Denoiser | None = None
        self._weights: WeightSource | None = None

    @property
    def key(self) -> Hashable:
        """Equal for two trackers of one module that evaluate the same thing."""
        return tuple(id(part) for part in (self.given, self.chosen_sampler, self.condition)), self.kind

    @property
    def weights(self) -> WeightSource:
        """The weights that are measured, known once the Trainer is set up."""
        if self._weights is None:
            raise RuntimeError("The weights to measure are known once the Trainer is set up.")
        return self._weights

    @property
    def samples_itself(self) -> bool:
        """Whether a function of the user samples, of which nothing but its samples is known."""
        return self.chosen_sampler is not None and not isinstance(self.chosen_sampler, Sampler)

    @property
    def takes_labels(self) -> bool:
        """Whether the denoiser can be called with a condition."""
        return isinstance(self._denoiser, BoundDenoiser) or _takes(self._denoiser, 3)

    @property
    def needs_label(self) -> bool:
        """Whether the denoiser is not known to do without a condition where there can be one."""
        if isinstance(self._denoiser, BoundDenoiser):
            return self._denoiser.adapter.default_condition is None
        return not self.samples_itself and not _takes(self._denoiser, 2)

    def attach(self, module: LightningModule, callbacks: Iterable[object]) -> None:
        """Find denoiser and weights.

        Raises:
            TypeError: if there is no denoiser.
            ValueError: for a denoiser or weights that lead nowhere.
        """
        self._weights = find_weights(self.kind, module, callbacks)
        if self.samples_itself:
            function: Any = self.chosen_sampler
            self.description = (
                f"samples of {getattr(function, '__qualname__', type(function).__name__)}(module, latents)"
            )
            return
        self._denoiser, self.description = resolve_denoiser(module, self.given)

    def check_whole(self, module: nn.Module) -> None:
        """Refuse sharded parameters, which one rank cannot evaluate alone.

        Raises:
            ValueError: if there are any and no denoiser is given that gathers them.
        """
        kind = sharding_of(module)
        own = callable(self.given) or (isinstance(self.given, str) and not isinstance(self._denoiser, BoundDenoiser))
        if kind is not None and not own and not self.samples_itself:
            raise ValueError(
                f"The parameters of {type(module).__name__} are sharded ({kind}): no rank can evaluate the network alone. "
                "Train with DDP, or pass a `denoiser=` that gathers them: a callable f(z, sigma), or the import path of a "
                "function (module, z, sigma). Every rank calls it equally often."
            )

    def sampler(self, module: LightningModule) -> Sampler | Literal["given"]:
        """The sampler: that given, else the module's own, else one over the denoiser's levels."""
        if self.samples_itself:
            return "given"
        if isinstance(self.chosen_sampler, Sampler):
            return self.chosen_sampler
        if isinstance(self._denoiser, BoundDenoiser):
            return self._denoiser.sampler()
        own = module.sampler if isinstance(module, HasSampler) else None
        return own if isinstance(own, Sampler) else Sampler()

    @contextmanager
    def held(self, module: LightningModule) -> Iterator[Subject]:
        """The model ready to be evaluated: undisturbed, with the weights to measure."""
        function: Any = self.chosen_sampler
        call: Any = partial(function, module) if self.samples_itself else self._denoiser
        with deferred_signals(), undisturbed(module), self.weights.applied(module):
            yield Subject(call, module.device, state_dtype(module), self.condition, self.needs_label)


def _takes(call: Any, count: int) -> bool:
    """Whether something can be called with so many positional arguments."""
    try:
        # The call of a torch module takes anything.
        inspect.signature(call.forward if isinstance(call, nn.Module) else call).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


def sharding_of(module: nn.Module) -> str | None:
    """How the parameters of a module are sharded, None where they are whole; read off the parameters themselves."""
    for parameter in module.parameters():
        name = type(parameter).__name__
        data = type(parameter.data).__name__
        if "DTensor" in (name, data):
            return "DTensor, as with FSDP2 or tensor parallelism"
        if name == "FlatParameter" or getattr(parameter, "_is_flat_param", False):
            return "flat parameters, as with FSDP"
        if getattr(parameter, "ds_id", None) is not None:
            return "DeepSpeed ZeRO 3"
    return None
