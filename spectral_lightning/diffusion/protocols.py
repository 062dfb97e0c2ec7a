"""Looking at what objects of other libraries offer."""

from __future__ import annotations

from typing import Any

__all__ = ["offers"]


def offers(thing: Any, protocol: Any) -> bool:
    """``isinstance(thing, protocol)`` for objects whose attributes are made up as they are asked for.

    Some models of other libraries pass every attribute on to their configuration and raise what they please where it has
    none: what cannot be looked at offers nothing.
    """
    try:
        return isinstance(thing, protocol)
    except Exception:
        return False
