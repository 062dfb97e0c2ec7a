"""Follows any training loop, without Lightning."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from shutil import rmtree
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import distributed, nn
from torch.optim import Optimizer

from spectral_lightning.arguments import positive_integer
from spectral_lightning.diffusion import Adapter
from spectral_lightning.diffusion.adapters.conventions import CONVENTIONS
from spectral_lightning.diffusion.adapters.levels import NAMED_SCHEDULES
from spectral_lightning.diffusion.weights import Weights
from spectral_lightning.spectra import Basis, SpectralHistory
from spectral_lightning.spectra.reading import DataSource
from spectral_lightning.tracking.observers import Fitter, Overlay, charts
from spectral_lightning.tracking.session import Observer, Session
from spectral_lightning.tracking.settings import (
    BasisChoice,
    DenoiserChoice,
    Output,
    Reference,
    Sampling,
    Settings,
    switched_off,
)
from spectral_lightning.tracking.timing import Schedule

__all__ = ["SpectralMonitor"]

Log = Callable[[dict[str, float], int], Any]

_WRAPPERS = ("DistributedDataParallel", "_FabricModule")


class SpectralMonitor:
    """Measures what a network has learnt, mode by mode, while a loop of any kind trains it.

    With ``optimizer``, the monitor follows that optimizer's step hooks and your loop stays as it is; it measures the
    untrained network before the first update. Without, it measures the untrained network at once, and you call :meth:`step`
    after every update; it then knows the steps but not the learning rates. Call :meth:`close` at the end, or use a ``with``
    block.

    Like :class:`~spectral_lightning.SpectralTracker`, the monitor leaves training unchanged to the bit, writes its files as
    they grow, shares the work among the ranks of ``torch.distributed``, and resumes: save :meth:`state_dict`, and call
    :meth:`load_state_dict` before the next update.

    Args:
        network: the network, or a module that holds it; wrappers of DDP and Fabric are removed.
        data: the data whose spectrum is tracked, as the network sees them: a tensor ``[N, *S]``, a map-style Dataset or a
            DataLoader over one, which is rebuilt and never iterated.
        denoiser: the denoiser, if it is not ``network.denoise(z, sigma)``: a callable ``D(z, sigma)``, the name of a
            convention, such as ``"edm"`` or ``"flow-matching"``, or an :class:`~spectral_lightning.diffusion.Adapter`, such as
            ``Adapter("diffusers-epsilon", schedule=noise_scheduler)``. Attribute paths start at ``network``.
        optimizer: the optimizer, or accelerate's or Fabric's wrapper of it.
        log: a callable ``(values, step)`` for rank 0, such as ``accelerator.log`` or ``wandb.log``; or a ``SummaryWriter``.
        observers: notified of every measurement; by default the theory's :class:`~spectral_lightning.tracking.Overlay` and
            the emergence :class:`~spectral_lightning.tracking.Fitter`.
        num_steps: optimizer updates of the whole training; ``max_overhead`` of the schedule needs it to plan ahead.
        basis: this and all further arguments: as for :class:`~spectral_lightning.SpectralTracker`.
        weights: see ``basis``.
        per_class: see ``basis``.
        on_error: see ``basis``.
        name: see ``basis``.
        sampling: see ``basis``.
        schedule: see ``basis``.
        reference: see ``basis``.
        output: see ``basis``; the default directory is ``runs``.
        held_out: data that are not trained on, as the network sees them: for the loss over its linear floor.

    Raises:
        ValueError: for an argument out of range, or a network that cannot be measured.
        TypeError: for a network without a denoiser, or data that cannot be read separately.

    Example:
        >>> import tempfile
        >>> network = nn.Linear(2, 2)
        >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        >>> data, place = torch.randn(64, 2) * torch.tensor([2.0, 0.1]), Output(tempfile.mkdtemp(), figures=False)
        >>> few = Sampling(num_samples=16)
        >>> with SpectralMonitor(network, data, lambda z, s: network(z), optimizer, sampling=few, output=place) as monitor:
        ...     for _ in range(3):
        ...         loss = (network(data + torch.randn_like(data)) - data).square().mean()
        ...         optimizer.zero_grad()
        ...         loss.backward()
        ...         _ = optimizer.step()  # doctest: +ELLIPSIS
        Overlay: ...
        SpectralMonitor: ...
        >>> monitor.history.steps.tolist()
        [0, 1, 2, 3]
    """

    def __init__(
        self,
        network: nn.Module,
        data: DataSource,
        denoiser: DenoiserChoice | None = None,
        optimizer: Optimizer | None = None,
        *,
        log: Log | Any = None,
        observers: Sequence[Observer] | None = None,
        num_steps: int | None = None,
        basis: BasisChoice = "pca",
        weights: Weights = "raw",
        per_class: bool = False,
        on_error: Literal["raise", "skip"] = "raise",
        name: str = "spectral",
        sampling: Sampling = Sampling(),
        schedule: Schedule = Schedule(),
        reference: Reference = Reference(),
        output: Output = Output(),
        held_out: DataSource | None = None,
    ) -> None:
        while type(network).__name__ in _WRAPPERS:
            network = next(network.children())
        inner = getattr(optimizer, "optimizer", optimizer)  # of accelerate's and Fabric's wrappers
        if inner is not None and not isinstance(inner, Optimizer):
            raise TypeError(f"`optimizer` must be a torch.optim.Optimizer, got {type(optimizer).__name__}.")
        if num_steps is not None:
            positive_integer("num_steps", num_steps)
        if log is not None and not callable(log) and not hasattr(log, "add_scalar"):
            raise TypeError(f"`log` must be a callable (values, step) or a SummaryWriter, got {log!r}.")
        trained = {id(p) for group in (inner.param_groups if inner else []) for p in group["params"]}
        if inner is not None and not any(id(p) in trained for p in network.parameters()):
            warnings.warn(
                f"`optimizer` holds no parameter of `network` ({type(network).__name__}), so the curves would stay flat. Pass "
                "the network that trains; for averaged weights, pass the average as `weights`.",
                stacklevel=2,
            )
        denoiser = from_here(denoiser, network)
        settings = Settings(
            basis, denoiser, data, weights, per_class, on_error, name, sampling, schedule, reference, output, held_out
        )
        self.session = Session(settings)
        self._training = BareLoop(network, data, inner, num_steps, log)
        self._handles: list[Any] = []
        self._closed = False
        if switched_off():
            return
        self.session.attach(self._training)
        if observers is None:
            observers = [Fitter()] if sampling.samples_itself else [Overlay(), Fitter()]
        for observer in [*observers, *charts(sampling)]:
            self.session.observe(observer)
        if inner is None:
            self.session.start()
        else:
            self._handles = [
                inner.register_step_pre_hook(self._before),
                inner.register_step_post_hook(self._after),
            ]

    @property
    def history(self) -> SpectralHistory | None:
        """The measurements so far; None until the untrained network has been measured."""
        return self.session.history

    @property
    def basis(self) -> Basis:
        """The modes of the data, known once the untrained network has been measured."""
        return self.session.basis

    def step(self, batch: Any = None) -> None:
        """Report one update of the weights, and measure if a measurement is due. Every rank must call it.

        Does nothing else than look at ``batch`` if the monitor follows an ``optimizer``.

        Args:
            batch: the batch of the update. If it is given and ``denoiser`` names a convention, the loss over its linear floor
                is also taken from the training's own passes, after an ``optimizer`` too.

        Raises:
            RuntimeError: after :meth:`close`.
        """
        if batch is not None:
            self.session.saw(batch)
        if switched_off() or self._handles:
            return
        if self._closed:
            raise RuntimeError("`step` was called after `close`. Make a new monitor to follow another training.")
        self._training.step += 1
        self.session.after_update()

    def close(self) -> None:
        """Measure the final weights, write the final files, and stop following. Every rank must call it."""
        self._stop()
        if not self._closed:
            if self._training.step == 0 and not switched_off():
                warnings.warn(
                    "SpectralMonitor has seen no update of the weights. Pass the `optimizer` that makes them, or call "
                    "`step()` after each.",
                    stacklevel=2,
                )
            self.session.end()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        self._stop()
        if not self._closed:
            self.session.fail()
        self._closed = True

    def state_dict(self) -> dict[str, Any]:
        """The history, the clock and the observers' state, as tensors and plain values."""
        observers = {observer.label: observer.state_dict() for observer in self.session.observers}
        return {"step": self._training.step, "session": self.session.state_dict(), "observers": observers}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Resume from :meth:`state_dict`; drop what this monitor has measured so far.

        Raises:
            RuntimeError: if the monitor has already followed an update.
            ValueError: if only one of the two monitors was given an ``optimizer``.
        """
        if self._training.step > 0:
            raise RuntimeError("`load_state_dict` must be called before the first update that the monitor follows.")
        saved = dict(state_dict.get("session", {}))
        if "history" in saved:
            knew = "cumulative_learning_rate" in SpectralHistory.from_state_dict(saved["history"])
            if knew != self.session.knows_rates:
                raise ValueError(
                    f"`state_dict` was saved {'with' if knew else 'without'} an `optimizer` to follow, but this monitor was "
                    f"made {'without' if knew else 'with'} one. Make it as before, so that all rows have the same clock."
                )
        fresh = self.session.started
        if fresh and self.session.results.files is not None:
            rmtree(self.session.results.files.path, ignore_errors=True)  # it holds only the untrained network
        self._training.step = int(state_dict.get("step", 0))
        self.session.load_state_dict(saved)
        for observer in self.session.observers:
            observer.load_state_dict(dict(state_dict.get("observers", {}).get(observer.label, {})))
        if fresh:
            self.session.start()

    def _before(self, optimizer: Optimizer, *_: Any) -> None:
        if not self.session.started:
            if self._training.step == 0 and optimizer.state:
                warnings.warn(
                    "`optimizer` has made updates before: step 0 of SpectralMonitor is not the untrained network.",
                    stacklevel=2,
                )
            self.session.start()
        self.session.count_update(optimizer)

    def _after(self, optimizer: Optimizer, *_: Any) -> None:
        self._training.step += 1
        self.session.after_update()

    def _stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


class BareLoop:
    """A :class:`~spectral_lightning.tracking.Training` that only reports its updates."""

    client = "SpectralMonitor"
    validation = None
    datamodule = None
    clipping = None
    keepers: tuple[object, ...] = ()

    def __init__(
        self, module: nn.Module, data: DataSource, optimizer: Optimizer | None, num_steps: int | None, log: Any
    ) -> None:
        self.module, self.loader, self.num_steps = module, data, num_steps
        self.step = 0
        self.optimizers = [] if optimizer is None else [optimizer]
        self.loggers = [] if log is None else [_Logger(log)]

    @property
    def device(self) -> torch.device:
        parameter = next(self.module.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def last_step(self) -> int | None:
        return None if self.num_steps is None else max(self.num_steps, self.step)

    def root(self) -> Path | None:
        return Path("runs") if _first_rank() else None

    def seen(self) -> None:
        return None

    def publish(self, values: Mapping[str, float]) -> None:
        """A bare loop has no other parts to inform."""

    def say(self, text: str) -> None:
        if _first_rank():
            print(text, flush=True)


class _Logger:
    """Gives a callable ``(values, step)`` or a ``SummaryWriter`` the interface of Lightning's loggers."""

    def __init__(self, log: Any) -> None:
        self.experiment = log

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        if callable(self.experiment):
            self.experiment(values, step)
            return
        for tag, value in values.items():
            self.experiment.add_scalar(tag, value, step)


def _first_rank() -> bool:
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


def from_here(denoiser: DenoiserChoice | None, network: nn.Module) -> DenoiserChoice | None:
    """Shorten a convention's attribute paths, which lead from a module to its network, if this is the network itself."""
    if isinstance(denoiser, str) and denoiser in CONVENTIONS:
        denoiser = Adapter(denoiser)
    if not isinstance(denoiser, Adapter):
        return denoiser
    schedule = denoiser.schedule
    if isinstance(schedule, str) and ":" not in schedule and schedule not in NAMED_SCHEDULES:
        shorter = _shorter(schedule, network)
        if not shorter and schedule and "." not in schedule and not hasattr(network, "alphas_cumprod"):
            raise ValueError(
                f"`denoiser` must specify the network's noise levels: {denoiser.convention!r} looks for `{schedule}`, which "
                f"{type(network).__name__} does not have. Pass Adapter({denoiser.convention!r}, schedule=...) with the "
                "scheduler, its alphas_cumprod, or 'linear', 'scaled-linear' or 'cosine'."
            )
        schedule = shorter
    return replace(denoiser, network=_shorter(denoiser.network or "", network), schedule=schedule)


def _shorter(path: str, network: nn.Module) -> str:
    """``path`` without the first parts that lead nowhere from ``network``, which is then what they lead to."""
    try:
        reduce(getattr, path.split(".") if path else [], network)
    except AttributeError:
        return _shorter(path.partition(".")[2], network)
    return path
