"""Holds back the signals that a job scheduler sends before it ends a job, while a measurement is in progress."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["deferred_signals"]

_ANNOUNCING = [
    signal.Signals[name] for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP") if name in signal.Signals.__members__
]


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Run handlers of SIGTERM, SIGUSR1, SIGUSR2 and SIGHUP when the context ends, not inside it.

    Lightning's SLURM handler saves a checkpoint as soon as the signal arrives. During a measurement the module may hold
    averaged weights, the history half a row, and the ranks may be inside a collective.

    Signals without a Python handler are not held back. Outside the main thread no signal is, because Python sets handlers
    in the main thread only.

    Example:
        >>> came = []
        >>> previous = signal.signal(signal.SIGUSR1, lambda number, frame: came.append("handled"))
        >>> with deferred_signals():
        ...     signal.raise_signal(signal.SIGUSR1)
        ...     came.append("measured")
        >>> _ = signal.signal(signal.SIGUSR1, previous)
        >>> came
        ['measured', 'handled']
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: handler for number in _ANNOUNCING if callable(handler := signal.getsignal(number))}
    came: dict[int, None] = {}
    for number in handlers:
        signal.signal(number, lambda received, _frame: came.setdefault(received))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for received in came:
            signal.raise_signal(received)
