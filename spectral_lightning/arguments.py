"""Argument checks with one pattern of message: name, requirement, value, remedy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

__all__ = ["finite", "fraction", "non_negative", "one_of", "positive", "positive_integer"]


def _fail(name: str, requirement: str, value: Any, remedy: str) -> ValueError:
    return ValueError(f"`{name}` must be {requirement}, got {value!r}.{' ' + remedy if remedy else ''}")


def positive_integer(name: str, value: Any, *, minimum: int = 1, remedy: str = "") -> int:
    """Return ``value`` as an int if it is a whole number of at least ``minimum``; raise ``ValueError`` otherwise."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < minimum:
        requirement = "a positive integer" if minimum == 1 else f"an integer of at least {minimum}"
        raise _fail(name, requirement, value, remedy)
    return int(value)


def finite(name: str, value: Any, *, remedy: str = "") -> float:
    """Return ``value`` as a float if it is a finite number; raise ``ValueError`` otherwise."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise _fail(name, "a finite number", value, remedy)
    return float(value)


def positive(name: str, value: Any, *, remedy: str = "") -> float:
    """Return ``value`` as a float if it is a finite number above zero; raise ``ValueError`` otherwise."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
        raise _fail(name, "a positive, finite number", value, remedy)
    return float(value)


def non_negative(name: str, value: Any, *, remedy: str = "") -> float:
    """Return ``value`` as a float if it is a finite number of zero or more; raise ``ValueError`` otherwise."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise _fail(name, "a finite number of zero or more", value, remedy)
    return float(value)


def fraction(name: str, value: Any, *, zero: bool = False, remedy: str = "") -> float:
    """Return ``value`` as a float if it lies between 0 and 1, with 0 itself if ``zero``; raise ``ValueError`` otherwise."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < 1 or (value == 0 and not zero):
        raise _fail(
            name, f"a number {'of at least 0 and below 1' if zero else 'strictly between 0 and 1'}", value, remedy
        )
    return float(value)


def one_of(name: str, value: Any, choices: Iterable[str], remedy: str = "") -> str:
    """Return ``value`` if it is one of ``choices``; raise ``ValueError`` listing them otherwise."""
    choices = list(choices)
    if not isinstance(value, str) or value not in choices:
        raise _fail(name, f"one of {', '.join(map(repr, choices))}", value, remedy)
    return value
