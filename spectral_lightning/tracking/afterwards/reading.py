"""Reads what others have saved: which step a name holds, and examples as tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

__all__ = ["by_step", "read_examples", "step_of"]

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
EXAMPLES = (".npy", ".npz", ".pt", ".pth", *_IMAGES)

_STEP, _INTEGER = re.compile(r"step\D?(\d+)", re.IGNORECASE), re.compile(r"(\d+)(?!.*\d)")
_NAMES = ("samples", "images", "data", "arr_0")  # of the array that holds the examples, among several


def step_of(path: Path, pattern: str | None = None) -> int:
    """The step in a name: the integer after the word ``step``, as in ``epoch=3-step=1000.ckpt``, else the last integer.

    Endings of files do not count.

    Args:
        path: a file or folder.
        pattern: a regular expression to search in the name instead, whose one group is the step.

    Raises:
        ValueError: for a name without a step, or a pattern that is not one with one group of digits.
    """
    name = path.name if path.is_dir() else path.stem
    try:
        rules = [_STEP, _INTEGER] if pattern is None else [re.compile(pattern)]
        match = next((found for rule in rules if (found := rule.search(name))), None)
        if match is not None:
            (digits,) = match.groups()
            return int(digits)
    except (re.error, TypeError, ValueError) as error:
        raise ValueError(
            rf"`pattern` must have one group of digits, such as 'it(\d+)', got {pattern!r}: {error}."
        ) from error
    raise ValueError(
        f"{str(path)!r} has no step in its name. Name it like step_1000, move it away, or pass `pattern`, a regular "
        "expression whose one group is the step."
    )


def by_step(folder: str | Path, pattern: str | None = None) -> dict[int, list[Path]]:
    """The subfolders and files of examples in a folder by :func:`step_of`, in increasing order; hidden ones do not count.

    Raises:
        FileNotFoundError: if there is no such folder, or nothing in it.
        ValueError: as :func:`step_of`.
    """
    root, found = Path(folder), dict[int, list[Path]]()
    if not root.is_dir():
        raise FileNotFoundError(f"A folder with one subfolder or file per step is needed, got {str(root)!r}.")
    for path in sorted(root.iterdir()):
        if not path.name.startswith(".") and (path.is_dir() or path.suffix.lower() in EXAMPLES):
            found.setdefault(step_of(path, pattern), []).append(path)
    if not found:
        raise FileNotFoundError(
            f"{str(root)!r} must hold one subfolder or file ({', '.join(EXAMPLES)}) per step, got none."
        )
    return dict(sorted(found.items()))


def read_examples(source: str | Path | Sequence[Path]) -> Tensor:
    """The examples ``[N, *S]`` in a file, in a folder and its subfolders, or in several of them.

    Arrays ``[N, *S]`` are in .npy, .npz, .pt or .pth files; of several in one file, the one called ``samples``, ``images``,
    ``data`` or ``arr_0``. Floating-point numbers are taken as they are. Images, and arrays of bytes, are scaled from 0 ... 255
    to -1 ... 1, with channels first. Nothing that a file holds is executed.

    Raises:
        FileNotFoundError: if there is no such file, or no file of examples in a folder.
        ValueError: for a file that cannot be read, or examples of different shapes.
    """
    given = [Path(source)] if isinstance(source, str | Path) else source
    files = [file for path in given for file in _files(path)]
    if not files:
        raise FileNotFoundError(f"{_listed(given)} must hold examples ({', '.join(EXAMPLES)}), got no such file.")
    parts = [_examples(file) for file in files]
    for file, part in zip(files, parts, strict=True):
        if part.shape[1:] != parts[0].shape[1:]:
            raise ValueError(
                f"{str(file)!r} holds examples of shape {tuple(part.shape[1:])}, {str(files[0])!r} of "
                f"{tuple(parts[0].shape[1:])}. Keep examples of one shape."
            )
    return torch.cat(parts)


def _files(path: Path) -> Iterable[Path]:
    if not path.is_dir():
        return [path]
    inside = (file for file in path.rglob("*") if file.is_file() and file.suffix.lower() in EXAMPLES)
    return sorted(file for file in inside if not file.name.startswith("."))


def _examples(file: Path) -> Tensor:
    ending = file.suffix.lower()
    if ending not in EXAMPLES:
        raise ValueError(f"{str(file)!r} must be a folder or end in {', '.join(EXAMPLES)}.")
    try:
        if ending in _IMAGES:
            with Image.open(file) as image:
                grey = image.mode in ("1", "L", "LA", "I", "I;16", "F")
                return _scaled(np.asarray(image.convert("L" if grey else "RGB"))[None], file)
        if ending in (".pt", ".pth"):
            found: Any = torch.load(file, map_location="cpu", weights_only=True)
        else:
            loaded = np.load(file, allow_pickle=False)
            found = loaded if ending == ".npy" else dict(loaded)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RuntimeError, EOFError, KeyError, BadZipFile, UnpicklingError) as error:
        text = str(error).partition("\n")[0]
        raise ValueError(f"{str(file)!r} cannot be read: {text}. Save arrays of numbers or images.") from error
    return _scaled(_chosen(found, file), file)


def _chosen(found: Any, file: Path) -> NDArray[Any]:
    """The array of examples in what a file holds."""
    named = found if isinstance(found, dict) else {"": found}
    arrays = {name: np.asarray(value) for name, value in named.items() if isinstance(value, Tensor | np.ndarray)}
    many = [name for name in (*_NAMES, "") if name in arrays] or [name for name in arrays if arrays[name].ndim > 1]
    if not many or (many[0] not in (*_NAMES, "") and len(many) > 1):
        raise ValueError(
            f"{str(file)!r} must hold one array of examples, or one called {', '.join(_NAMES)}, got {list(named)}."
        )
    return arrays[many[0]]


def _scaled(array: NDArray[Any], file: Path) -> Tensor:
    if array.ndim < 2:
        raise ValueError(f"{str(file)!r} must hold examples [N, ...], got an array of shape {array.shape}.")
    if array.dtype == np.uint8:
        last = array.ndim == 4 and array.shape[-1] in (1, 3) and array.shape[1] not in (1, 3)
        colour = np.moveaxis(array, -1, 1) if last else array
        single = colour[:, None] if colour.ndim == 3 else colour
        return torch.from_numpy(np.ascontiguousarray(single)).float() / 127.5 - 1
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{str(file)!r} must hold bytes or floating-point numbers, got {array.dtype}.")
    return torch.from_numpy(np.ascontiguousarray(array, np.float64 if array.dtype == np.float64 else np.float32))


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(repr(str(path)) for path in paths)
