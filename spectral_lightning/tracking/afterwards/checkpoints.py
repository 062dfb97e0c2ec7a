"""A history from checkpoints that were saved during a training."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.tracking.afterwards.reading import read_examples, step_of
from spectral_lightning.tracking.afterwards.samples import say_first, say_where
from spectral_lightning.tracking.monitor import BareLoop, from_here
from spectral_lightning.tracking.observers import Fitter
from spectral_lightning.tracking.session import Session
from spectral_lightning.tracking.settings import BasisChoice, DenoiserChoice, Output, Sampling, Settings
from spectral_lightning.tracking.timing import Schedule

__all__ = ["track_checkpoints"]

_ENDINGS = (".ckpt", ".pt", ".pth", ".bin")
_SLICES = Schedule(per_decade=100)  # successive checkpoints take different slices of a block of latents


def track_checkpoints(
    checkpoints: str | Path,
    data: str | Path | Tensor,
    factory: Callable[[], nn.Module] | str,
    *,
    denoiser: DenoiserChoice | None = None,
    basis: BasisChoice = "pca",
    key: str | None = None,
    prefix: str | None = None,
    trusted: bool = False,
    pattern: str | None = None,
    sampling: Sampling = Sampling(track_floor=False),
    output: Output = Output(),
    name: str = "spectral",
) -> SpectralHistory:
    """The history of a training from its checkpoints: each is loaded into a network, which is measured as by a tracker.

    A checkpoint is one of Lightning or a state dict. Its step is ``global_step`` if it holds that, else the integer after the
    word ``step`` in the file's name, else the last integer of the name. The first one stands for the untrained network.

    Args:
        checkpoints: a folder with one file (.ckpt, .pt, .pth, .bin) per step.
        data: the data, as the network sees them: a tensor ``[N, *S]``, or a folder or file as for :func:`track_samples`.
        factory: makes the network or module, on the device that shall evaluate it: a function without arguments, or its
            import path ``module:function``.
        denoiser: as for :class:`~spectral_lightning.SpectralMonitor`: a convention's name such as ``"edm"``, an adapter or a
            callable; by default the network's ``denoise(z, sigma)``.
        basis: ``"pca"``, ``"fourier"``, ``"patch"``, a recipe or a basis.
        key: name of the entry of a checkpoint that holds the state dict, such as ``"ema"``; ``"state_dict"``, if there is one,
            or else the whole checkpoint by default.
        prefix: what the names in the state dict have before those of the network; found by default.
        trusted: whether the files come from a trusted source and may hold any Python objects, which are executed as they
            are read.
        pattern: a regular expression to find the step in a file's name; its one group is the step.
        sampling: as for the monitor.
        output: where the files go; by default ``runs``.
        name: of the results' directory.

    Raises:
        FileNotFoundError: if there are no checkpoints or no data.
        ValueError: for a file that cannot be read or does not fit the network, two of the same step, a name without a step,
            or a network that cannot be measured.
        TypeError: if ``factory`` does not make a network.
    """
    module = _made(factory)
    files = _by_step(Path(checkpoints), pattern, trusted)
    examples = data if isinstance(data, Tensor) else read_examples(data)
    settings = Settings(
        basis, from_here(denoiser, module), examples, name=name, sampling=sampling, schedule=_SLICES, output=output
    )
    loop, session = BareLoop(module, examples, None, None, None), Session(settings)
    loop.client = "track_checkpoints"
    say_first(next(iter(files)))
    for step, file in files.items():
        loop.step = step
        _load(module, file, key, prefix, trusted)
        if session.started:
            session.measure()
        else:
            session.attach(loop)
            session.observe(Fitter())
            session.start()
    session.end()
    say_where(session.measured, session.results)
    return session.measured


def _made(factory: Callable[[], nn.Module] | str) -> nn.Module:
    """The network that a factory makes."""
    make: Any = factory
    if isinstance(factory, str):
        home, _, function = factory.partition(":")
        try:
            make = getattr(importlib.import_module(home), function)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(
                f"`factory` must be the import path module:function of a function that makes the network, got {factory!r}: "
                f"{error}. Modules of the current folder are found with PYTHONPATH=. before the command."
            ) from error
    module = make()
    if not isinstance(module, nn.Module):
        raise TypeError(f"`factory` must make a torch.nn.Module, got {type(module).__name__}.")
    return module


def _by_step(folder: Path, pattern: str | None, trusted: bool) -> dict[int, Path]:
    """The checkpoints by their own ``global_step``, or the step in their names."""
    found: dict[int, Path] = {}
    paths = [path for path in sorted(folder.glob("*")) if path.is_file() and path.suffix.lower() in _ENDINGS]
    if not paths:
        raise FileNotFoundError(f"{str(folder)!r} must hold checkpoints ({', '.join(_ENDINGS)}), got none.")
    for path in paths:
        own = None if pattern else _read(path, trusted).get("global_step")
        step = own if isinstance(own, int) else step_of(path, pattern)
        if step in found:
            raise ValueError(
                f"{str(found[step])!r} and {str(path)!r} are both of step {step}. Keep one of them, or pass `pattern`."
            )
        found[step] = path
    return dict(sorted(found.items()))


def _read(file: Path, trusted: bool) -> dict[str, Any]:
    try:
        document = torch.load(file, map_location="cpu", weights_only=not trusted)
    except UnpicklingError as error:
        raise ValueError(
            f"{str(file)!r} holds more than tensors and plain values. If you trust whoever made it, pass trusted=True."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        text = str(error).partition("\n")[0]
        raise ValueError(f"{str(file)!r} cannot be read as a checkpoint: {text}. Move it away.") from error
    if not isinstance(document, Mapping):
        raise ValueError(f"{str(file)!r} must be a checkpoint or state dict, got {type(document).__name__}.")
    return dict(document)


def _load(module: nn.Module, file: Path, key: str | None, prefix: str | None, trusted: bool) -> None:
    """Load a checkpoint's weights into the module."""
    document = _read(file, trusted)
    if key is not None and key not in document:
        raise ValueError(f"`key` must name an entry of {str(file)!r}, got {key!r}. It holds {list(document)[:12]}.")
    state = document[key] if key is not None else document.get("state_dict", document)
    names, found = list(module.state_dict()), state if isinstance(state, Mapping) else {}
    starts = [prefix] if prefix is not None else _prefixes(names, found)
    if len(starts) != 1:
        what = f"prefixes {starts} fit: pass `prefix`" if starts else f"it holds {list(document)[:12]}: pass `key`"
        raise ValueError(
            f"{str(file)!r} must hold the weights of {type(module).__name__}, such as {', '.join(names[:3])}; {what}, or "
            "correct `factory`."
        )
    own = {name: found[starts[0] + name] for name in names if starts[0] + name in found}
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(f"{str(file)!r} does not fit {type(module).__name__}: {error}") from error


def _prefixes(names: list[str], state: Mapping[str, Any]) -> list[str]:
    """What stands before every name of the network in a state dict."""
    if not names:
        return [""]
    starts = {one.removesuffix(names[0]) for one in state if one.endswith(names[0])}
    return sorted(start for start in starts if all(start + name in state for name in names))
