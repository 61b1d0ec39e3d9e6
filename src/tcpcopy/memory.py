"""How much memory this process has resident."""

from __future__ import annotations

import ctypes
import os
import resource


class ResidentMemory:
    """Reads it again and again: the file stays open, so that a limit of open files never matters.

    Where there is no /proc, the most that has ever been resident stands for it.
    Source: proc(5), statm; getrusage(2).
    """

    def __init__(self) -> None:
        """Raises: OSError when no more files may be opened."""
        try:
            self._fd = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._fd = -1

    def bytes(self) -> int:
        """Bytes resident now."""
        if self._fd < 0:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return int(os.pread(self._fd, 128, 0).split()[1]) * resource.getpagesize()

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def give_back() -> None:
    """Let the C library give free pages back to the kernel; some 10 ms for 200 MB of them.

    Source: malloc_trim(3). Does nothing where the C library has no such call.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def resident_bytes() -> int:
    """Bytes resident now, asked for once. Raises: OSError as `ResidentMemory`."""
    memory = ResidentMemory()
    try:
        return memory.bytes()
    finally:
        memory.close()
