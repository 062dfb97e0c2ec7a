"""The forward passes that a training makes, for whoever wants to look at them, without an evaluation of the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from spectral_lightning.diffusion.adapters import BoundDenoiser

__all__ = ["Listener", "NetworkPasses", "listen", "publish"]


class Listener(Protocol):
    """Gets passes of a training; must not change them, draw random numbers or wait for the device."""

    def due(self) -> bool:
        """Count a pass; whether to look at it."""
        ...

    def add(self, clean: Tensor, noisy: Tensor, sigma: Tensor, denoised: Tensor) -> None:
        """Look at data, noisy data ``x0 + sigma eps`` and the denoiser's output ``[B, *S]``, and levels ``[B]``."""
        ...


# Not on the module: copies and pickles of it must not hold the listeners.
_LISTENERS: WeakKeyDictionary[nn.Module, list[Listener]] = WeakKeyDictionary()


def publish(module: nn.Module, clean: Tensor, noisy: Tensor, sigma: Tensor, denoised: Tensor) -> None:
    """Called by a module in its loss, with what it has computed; does nothing outside training, or inside a compiled graph."""
    if torch.compiler.is_compiling() or not module.training:
        return
    for listener in _LISTENERS.get(module, ()):
        if listener.due():
            listener.add(clean, noisy, sigma, denoised)


def listen(module: nn.Module, listener: Listener) -> Callable[[], None]:
    """Let ``listener`` look at the passes that ``module`` publishes; returns the function that ends it.

    The listener must not refer to the module.
    """
    _LISTENERS.setdefault(module, []).append(listener)

    def end() -> None:
        if listener in _LISTENERS.get(module, []):
            _LISTENERS[module].remove(listener)

    return end


class NetworkPasses:
    """Catches passes of a network in another library's convention, by a forward hook, and pairs them with their batches.

    Of each batch it takes the network's first pass with gradients, and waits for :meth:`saw` to name the data. Whether the
    examples went through the network in the order of the batch, with noise of the recovered level, is up to the listener to
    check.

    Args:
        denoiser: the network and its convention.
        listener: gets the passes.

    Raises:
        ValueError: for a network that cannot be hooked: a function, or a compiled module.
    """

    def __init__(self, denoiser: BoundDenoiser, listener: Listener) -> None:
        network = denoiser.network
        if not isinstance(network, nn.Module):
            raise ValueError(f"`network` must be a module to look at its passes, got {type(network).__name__}.")
        # A hook would be compiled with it.
        if type(network).__name__ == "OptimizedModule" or getattr(network, "_compiled_call_impl", None) is not None:
            raise ValueError(f"`network` must not be compiled to look at its passes, got {type(network).__name__}.")
        self.denoiser, self.listener = denoiser, listener
        self._first = True  # of a batch
        self._caught: tuple[Tensor, Tensor, Tensor] | Exception | None = None
        self._handle = network.register_forward_hook(_Hook(self), with_kwargs=True)

    def catch(self, arguments: tuple[Any, ...], output: Any) -> None:
        """Take a pass of the training."""
        if not self._first or not torch.is_grad_enabled():
            return
        self._first = False
        if self.listener.due():
            try:
                self._caught = self.denoiser.recover(arguments, output)
            except (TypeError, ValueError) as error:  # the training itself has not failed
                self._caught = error

    def saw(self, clean: Tensor) -> None:
        """Name the data ``[B, *S]`` of the pass that was taken last.

        Raises:
            ValueError: if the network was not called as its convention says, or with data of another shape.
            TypeError: if its output is of another kind.
        """
        caught, self._caught, self._first = self._caught, None, True
        if isinstance(caught, Exception):
            raise caught
        if caught is None:
            return
        if caught[0].shape != clean.shape:
            raise ValueError(
                f"The batch must have the shape of the network's input, {tuple(caught[0].shape)}, got {tuple(clean.shape)}."
            )
        self.listener.add(clean, *caught)

    def end(self) -> None:
        """Remove the hook."""
        self._handle.remove()
        self._caught = None


class _Hook:
    """A forward hook that copies and pickles of the network hold as one that does nothing."""

    def __init__(self, passes: NetworkPasses | None = None) -> None:
        self.passes = passes

    def __call__(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if self.passes is not None and network.training and not torch.compiler.is_compiling():
            self.passes.catch((*args, *kwargs.values()), output)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, ()
