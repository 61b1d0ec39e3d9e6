"""Work beside the loop: threads that take no signal, because signals are the loop's."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable


def start_beside(name: str, work: Callable[..., object], *arguments: object) -> threading.Thread:
    """Do `work(*arguments)` in a thread that does not keep the process; the thread, started.

    Raises RuntimeError when there is no room for one.
    """
    thread = threading.Thread(target=_work, args=(work, *arguments), name=name, daemon=True)
    thread.start()
    return thread


def _work(work: Callable[..., object], *arguments: object) -> None:
    # A signal taken here would only break off what is being done.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    work(*arguments)
