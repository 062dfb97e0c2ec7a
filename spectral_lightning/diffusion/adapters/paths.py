"""Look things up by name: an attribute of a module, an object in a package."""

from __future__ import annotations

import pkgutil
from operator import attrgetter
from typing import Any

from torch import nn

__all__ = ["attribute_at", "object_at"]


def attribute_at(module: nn.Module, path: str, argument: str) -> Any:
    """The attribute ``path``, such as ``"model.unet"``, of ``module``; the module itself for ``""``.

    Raises:
        ValueError: if there is none; lists the submodules.
    """
    try:
        return attrgetter(path)(module) if path else module
    except AttributeError as error:
        children = ", ".join(name for name, _ in module.named_children()) or "none"
        raise ValueError(
            f"`{argument}` must be an attribute path on {type(module).__name__}, got {path!r}: {error}. "
            f"Its submodules: {children}."
        ) from error


def object_at(path: str, argument: str) -> Any:
    """The object ``"package.module:name"`` or ``"package.module.name"``, imported.

    Raises:
        ValueError: if the module cannot be imported or does not define the name.
    """
    try:
        return pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"`{argument}` must be importable as 'package.module:name', got {path!r}: {error}.") from error
