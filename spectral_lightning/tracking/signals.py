"""Signals that a scheduler sends before it ends a job, held back while a module is not as its training left it."""

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
    """Handlers of SIGTERM, SIGUSR1, SIGUSR2 and SIGHUP run when the context ends, not inside it.

    Lightning's handler for SLURM saves a checkpoint to requeue the job from, at once, wherever the signal comes. Inside a
    measurement the module may hold averaged weights, the history half a row, and the ranks be within a collective.

    A signal without a handler of Python's acts at once, as ever; so do all of them in another thread than the main one,
    where Python allows no other handlers.

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
