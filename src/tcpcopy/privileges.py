"""Privileges given up for good: capabilities, the way to new ones, and the user.

Linux keeps capabilities for each thread. `drop` is for a process that has only one yet: threads
that are started later have what is left.

Source: capabilities(7), prctl(2), capget(2), credentials(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

CAP_SETGID: Final = 6
CAP_SETUID: Final = 7
CAP_SETPCAP: Final = 8
CAP_NET_ADMIN: Final = 12
CAP_NET_RAW: Final = 13
_NAMES: Final = {CAP_NET_ADMIN: "CAP_NET_ADMIN", CAP_NET_RAW: "CAP_NET_RAW"}
_MOST_CAPABILITIES: Final = 64

_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL = 47, 4
_VERSION_3: Final = 0x20080522
_HEADER = struct.Struct("=Ii")  # version, process: 0 for this thread
_SETS = struct.Struct("=6I")  # effective, permitted, inheritable: bits 0 to 31, then 32 to 63

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class User:
    """A user to become."""

    name: str  # as it was given
    uid: int
    gid: int
    groups: tuple[int, ...]  # all of its groups

    @property
    def is_this(self) -> bool:
        """Whether this process is that user already, with the same group."""
        return set(os.getresuid()) == {self.uid} and set(os.getresgid()) == {self.gid}


def permitted() -> frozenset[int]:
    """The capabilities that this thread may use."""
    _, held, _ = _read()
    return _as_set(held)


def may_change_user() -> bool:
    """Whether this process may become any other user."""
    effective, _, _ = _read()
    return {CAP_SETUID, CAP_SETGID} <= _as_set(effective)


def drop(keep: Collection[int], user: User | None = None) -> None:
    """Keep these capabilities, as far as they are there, and no others; become `user`.

    New ones cannot be had by executing a program. What takes a privilege to give up, and the
    process has not, is left as it is (the bounding set). Raises: OSError when the kernel refuses.
    """
    effective, held, _ = _read()
    left = held & _as_bits(keep)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    with contextlib.suppress(OSError):  # before Linux 4.3 there is no such set
        _prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    if CAP_SETPCAP in _as_set(effective):
        _bound(keep)
    if user is not None and not user.is_this:
        _prctl(_PR_SET_KEEPCAPS, 1)
        os.setgroups(user.groups)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    _write(left, left, 0)
    _prctl(_PR_SET_KEEPCAPS, 0)


def said(capabilities: Collection[int]) -> str:
    """The names of capabilities that are kept, for the log."""
    return ", ".join(_NAMES.get(each, f"capability {each}") for each in sorted(capabilities))


def _bound(keep: Collection[int]) -> None:
    for number in range(_MOST_CAPABILITIES):
        try:
            has = _prctl(_PR_CAPBSET_READ, number)
        except OSError:  # the kernel knows no more
            return
        if has and number not in keep:
            _prctl(_PR_CAPBSET_DROP, number)


def _prctl(option: int, argument: int) -> int:
    words = [ctypes.c_ulong(word) for word in (argument, 0, 0, 0)]
    result = int(_libc.prctl(option, *words))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _read() -> tuple[int, int, int]:
    """This thread's sets as bits: effective, permitted, inheritable. Raises: OSError."""
    header = ctypes.create_string_buffer(_HEADER.pack(_VERSION_3, 0))
    data = ctypes.create_string_buffer(_SETS.size)
    if _libc.capget(header, data) != 0:
        code = ctypes.get_errno() or errno.EPERM
        raise OSError(code, os.strerror(code))
    low = _SETS.unpack_from(data)
    effective, held, inheritable = (low[at] | low[at + 3] << 32 for at in range(3))
    return effective, held, inheritable


def _write(effective: int, held: int, inheritable: int) -> None:
    header = ctypes.create_string_buffer(_HEADER.pack(_VERSION_3, 0))
    sets = (effective, held, inheritable)
    words = [bits & 0xFFFFFFFF for bits in sets] + [bits >> 32 for bits in sets]
    data = ctypes.create_string_buffer(_SETS.pack(*words), _SETS.size)
    if _libc.capset(header, data) != 0:
        code = ctypes.get_errno() or errno.EPERM
        raise OSError(code, os.strerror(code))


def _as_set(bits: int) -> frozenset[int]:
    return frozenset(n for n in range(_MOST_CAPABILITIES) if bits >> n & 1)


def _as_bits(capabilities: Collection[int]) -> int:
    return sum(1 << number for number in set(capabilities))
