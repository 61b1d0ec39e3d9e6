"""`--workers`: how many processes share the work."""

from __future__ import annotations

import os
from typing import Final

from tcpcopy.arguments import Word
from tcpcopy.recorded.player import RecordedConfig

_MIB: Final = 1 << 20
MAX_WORKERS: Final = 64
_WORKER_BYTES: Final = 128 * _MIB  # least share of -m: the program itself takes a part of it


def workers(word: Word | None, memory_bytes: int, recorded: RecordedConfig | None) -> int:
    """What --workers comes to, with so much memory for all of them. Raises: UsageError."""
    if word is None:
        return 1
    if recorded is not None and word.value not in ("auto", "1"):
        word.refuse("files are replayed by one process", "leave it out")
    if word.value == "auto":
        if recorded is not None:
            return 1
        wanted = len(os.sched_getaffinity(0))
        return max(1, min(wanted, MAX_WORKERS, memory_bytes // _WORKER_BYTES))
    hint = f"give a whole number from 1 to {MAX_WORKERS}, or auto"
    text = word.value
    if not (text.isascii() and text.isdigit()):
        word.refuse("is neither a whole number nor auto", hint)
    if len(text) > 10 or not 1 <= int(text) <= MAX_WORKERS:
        word.refuse("is out of range", hint)
    count = int(text)
    if count > 1 and memory_bytes < count * _WORKER_BYTES:
        least = count * _WORKER_BYTES // _MIB
        word.refuse(
            f"workers share {memory_bytes // _MIB} MiB of memory (-m), which is too little",
            f"give -m {least}, or fewer workers",
        )
    return count
