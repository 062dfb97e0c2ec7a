"""Files written atomically; arrays in npz files, read without pickle."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["flush", "read_arrays", "replacing", "write_arrays"]


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """A path to write to; on success it replaces ``path``.

    If the process dies, ``path`` holds either its former content or the whole new file; if the machine dies, only if it is
    ``durable``. If writing fails, the incomplete file is removed, because it may be what filled the disk.
    """
    part = path.with_name(path.name + ".part")
    try:
        yield part
        if durable:
            flush(part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def flush(path: Path) -> None:
    """Wait until a file is on the disk, safe from a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], durable: bool = True) -> None:
    """Write named arrays; if the process dies, ``path`` holds either its former content or all of them."""
    with replacing(path, durable) as part, part.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of a file; nothing in it is executed.

    Raises:
        ValueError: if it is not an npz file, or contains pickled objects.
    """
    with path.open("rb") as opened:
        if not zipfile.is_zipfile(opened):
            raise ValueError(f"`path` must be a whole npz file, got {str(path)!r}.")
        opened.seek(0)
        with np.load(opened, allow_pickle=False) as file:
            return dict(file)
