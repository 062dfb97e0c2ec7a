"""Numbers as the page of results shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from spectral_lightning.emergence import PowerLaw

__all__ = ["alpha", "duration", "exponent", "interval", "markdown"]


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    Example:
        >>> print(markdown(["run", "alpha"], [["a", "1.00"]]))
        | run | alpha |
        | --- | --- |
        | a | 1.00 |
    """
    cells = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def interval(value: float, low: float, high: float) -> str:
    """A number with its 95 % interval, "-" where there is none.

    Example:
        >>> interval(0.5, 0.4, 0.6)
        '0.50 [0.40, 0.60]'
    """
    return f"{value:z.2f} [{low:z.2f}, {high:z.2f}]" if math.isfinite(value) else "-"


def exponent(law: PowerLaw | None, counted: bool = True) -> str:
    """An exponent with its interval and how many modes it rests on, or why there is none; "-" without a law."""
    if law is None:
        return "-"
    if not counted:
        return interval(law.exponent, law.low, law.high) if law.determinable else "not determinable"
    return str(law)


def alpha(law: PowerLaw | None) -> str:
    """An exponent with its interval, or why there is none; "-" without a law."""
    if law is None:
        return "-"
    return interval(law.exponent, law.low, law.high) if law.determinable else f"not determinable: {law.reason}"


def duration(seconds: float) -> str:
    """Wall time, to the minute from ten minutes on.

    Example:
        >>> duration(42), duration(330), duration(4000)
        ('42 s', '5.5 min', '67 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 10 else f"{minutes:.0f} min"
