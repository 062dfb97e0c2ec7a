"""The model under measurement: its denoiser, weights and sampler."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from spectral_lightning.diffusion import (
    BoundDenoiser,
    Denoiser,
    resolve_denoiser,
    undisturbed,
)
from spectral_lightning.diffusion.weights import Weights, WeightSource, find_weights
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory.solving.generation import tuned_sampler
from spectral_lightning.tracking.settings import PRESETS, DenoiserChoice, Sampling
from spectral_lightning.tracking.signals import deferred_signals

__all__ = ["MeasuredModel", "sharding_of"]


class MeasuredModel:
    """Finds the denoiser when the session is attached, and holds it ready for each measurement.

    Args:
        denoiser: as for :func:`~spectral_lightning.diffusion.resolve_denoiser`.
        weights: as for :func:`~spectral_lightning.diffusion.find_weights`.
        sampling: sampler and condition.
    """

    def __init__(self, denoiser: DenoiserChoice | None, weights: Weights, sampling: Sampling) -> None:
        self.given, self.kind, self.sampling = denoiser, weights, sampling
        self.description = ""
        self.denoiser: Any = None
        self._weights: WeightSource | None = None

    @property
    def key(self) -> Hashable:
        """Equal for two sessions on one module if they evaluate the same denoiser with the same weights."""
        return tuple(id(part) for part in (self.given, self.sampling.sampler, self.sampling.condition)), self.kind

    @property
    def weights(self) -> WeightSource:
        """The weights to measure, known once attached."""
        if self._weights is None:
            raise RuntimeError("The weights to measure are known once the session is attached.")
        return self._weights

    @property
    def takes_labels(self) -> bool:
        """Whether the denoiser can be called with a condition."""
        return isinstance(self.denoiser, BoundDenoiser) or _takes(self.denoiser, 3)

    @property
    def needs_label(self) -> bool:
        """Whether the denoiser requires a condition, judging by its signature."""
        if isinstance(self.denoiser, BoundDenoiser):
            return self.denoiser.adapter.default_condition is None
        return not self.sampling.samples_itself and not _takes(self.denoiser, 2)

    def attach(self, module: nn.Module, keepers: Iterable[object]) -> None:
        """Find denoiser and weights.

        Raises:
            TypeError: if the module has no denoiser.
            ValueError: if the named denoiser or weights do not exist.
        """
        self._weights = find_weights(self.kind, module, keepers)
        if self.sampling.samples_itself:
            function: Any = self.sampling.sampler
            self.denoiser = partial(function, module)
            name = getattr(function, "__qualname__", type(function).__name__)
            self.description = f"samples of {name}(module, latents)"
        else:
            self.denoiser, self.description = resolve_denoiser(module, self.given)

    def check_whole(self, module: nn.Module) -> None:
        """Refuse sharded parameters: one rank cannot evaluate the network alone.

        Raises:
            ValueError: if parameters are sharded and ``denoiser`` is not a function that can gather them.
        """
        kind = sharding_of(module)
        named = isinstance(self.given, str) and not isinstance(self.denoiser, BoundDenoiser)
        if kind is not None and not (callable(self.given) or named or self.sampling.samples_itself):
            raise ValueError(
                f"The parameters of {type(module).__name__} are sharded ({kind}): no rank can evaluate the network alone. "
                "Train with DDP, or pass a `denoiser=` that gathers them: a callable f(z, sigma), or the import path of a "
                "function (module, z, sigma). Every rank calls it equally often."
            )

    def sampler(self, module: nn.Module, variance: ArrayLike) -> Sampler | Literal["given"]:
        """The user's sampler, else the module's, else one tuned to the data's variances on the denoiser's noise levels."""
        given = self.sampling.sampler
        if given is not None:
            return given if isinstance(given, Sampler) else "given"
        own, preset = getattr(module, "sampler", None), PRESETS[self.sampling.preset]
        if isinstance(self.denoiser, BoundDenoiser):
            highest = self.denoiser.sigma_max
            return self.denoiser.sampler(tuned_sampler(variance, preset.evaluations, preset.bias, highest))
        return own if isinstance(own, Sampler) else tuned_sampler(variance, preset.evaluations, preset.bias)

    @contextmanager
    def held(self, module: nn.Module) -> Iterator[Denoiser]:
        """Yield the denoiser with the weights to measure in place; restore the module afterwards."""
        with deferred_signals(), undisturbed(module), self.weights.applied(module):
            yield self.denoiser

    def condition(self, label: int | None) -> Tensor | None:
        """The condition for sampling under a class label, or the user's condition without one."""
        return self.sampling.condition if label is None else torch.tensor([label])


def _takes(call: Any, count: int) -> bool:
    """Whether ``call`` accepts ``count`` positional arguments."""
    try:
        # The signature of nn.Module.__call__ accepts anything.
        inspect.signature(call.forward if isinstance(call, nn.Module) else call).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


def sharding_of(module: nn.Module) -> str | None:
    """How a module's parameters are sharded, judging by their types; None if they are whole."""
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
