"""A timer descriptor with nanoseconds, for deadlines that epoll's milliseconds are too coarse for.

Source: timerfd_create(2). Python has it from 3.13 on (os.timerfd_create).
"""

from __future__ import annotations

import ctypes
import os

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_NS = 1_000_000_000


class _Itimerspec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Alarm:
    """Polls readable from a given time (CLOCK_MONOTONIC) on."""

    __slots__ = ("_fd", "_libc", "_set_ns", "_spec")

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS)
        if self._fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._spec = _Itimerspec()
        self._set_ns = 0

    def fileno(self) -> int:
        """The descriptor to poll."""
        fd: int = self._fd
        return fd

    def set(self, at_ns: int) -> None:
        """Ring at `at_ns`; a time that has passed rings at once, 0 turns it off."""
        if at_ns == self._set_ns:
            return
        self._set_ns = at_ns
        self._spec.value_s, self._spec.value_ns = divmod(at_ns, _NS)
        self._libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(self._spec), None)

    def quiet(self) -> None:
        """It has rung: stop polling readable."""
        self.set(0)

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
