"""Network namespaces of other containers: found by name, path or process id, entered and left.

Entering is for the calling thread alone: both programs replay in one thread, and a thread that
checks something elsewhere comes and goes by itself.
What a process has opened stays in the namespace it was opened in: rings go on to capture there, and
are bound there again after their device was made anew, wherever the process has gone since.

Source: setns(2), network_namespaces(7), ip-netns(8), ioctl_ns(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator
from typing import Final, NoReturn

from tcpcopy.errors import UsageError

HOST: Final = "host"  # the namespace that the command was started in
_FOLDER: Final = "/run/netns"  # of the names that `ip netns` gives
_PID_PREFIX: Final = "pid:"
_OWN: Final = "/proc/thread-self/ns/net"
_CLONE_NEWNET: Final = 0x40000000
_NS_GET_NSTYPE: Final = 0xB703
_MOST_PID: Final = 1 << 22  # PID_MAX_LIMIT of Linux
_FORMS: Final = "give a name of `ip netns`, a path such as /run/netns/NAME, or a process id"
_PRIVILEGE: Final = (
    "run it as root with CAP_SYS_ADMIN (and CAP_SYS_PTRACE for other users' processes), or start "
    "it there without this option: `nsenter -n`, `ip netns exec`"
)

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """One network namespace, held open: it stays while this does, even if all in it ends."""

    __slots__ = ("_fd", "identity", "option", "value")

    def __init__(self, option: str, value: str) -> None:
        """Open what `value` names: a name in /run/netns, a path, or a process id.

        `option` is what to blame. Raises: UsageError when there is no such namespace, or it may
        not be opened or entered.
        """
        self.option = option
        self.value = value
        self._fd = -1
        path = _path(option, value)
        try:
            # Not to be stopped by a pipe that was given by mistake.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            kind = fcntl.ioctl(self._fd, _NS_GET_NSTYPE)
        except OSError as error:
            self.close()
            self._refuse_opening(error, path)
        if kind != _CLONE_NEWNET:
            self.close()
            self._refuse("is a namespace, but not of the network", f"end it in /net, or {_FORMS}")
        status = os.fstat(self._fd)
        self.identity = (status.st_dev, status.st_ino)  # equal for the same namespace

    def enter(self) -> None:
        """Move this process there. Raises: UsageError."""
        if self.identity == _identity_of_own():
            return  # which takes no privilege
        if _libc.setns(self._fd, _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            if code == errno.EPERM:
                self._refuse("may not be entered: CAP_SYS_ADMIN is missing", _PRIVILEGE)
            self._refuse(f"cannot be entered ({os.strerror(code)})", _FORMS)

    def close(self) -> None:
        """Let go of it; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _refuse(self, problem: str, hint: str) -> NoReturn:
        raise UsageError(self.option, self.value, problem, hint) from None

    def _refuse_opening(self, error: OSError, path: str) -> NoReturn:
        pid = _pid(self.value)
        if error.errno in (errno.EACCES, errno.EPERM):
            self._refuse("may not be looked at by this user", _PRIVILEGE)
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP):
            self._refuse("is not a network namespace", _FORMS)
        if error.errno in (errno.ENOENT, errno.ESRCH, errno.ENOTDIR) and pid:
            self._refuse("there is no such process", "give the id of a process that runs there")
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            where = "" if path == self.value else f" in {_FOLDER}"
            self._refuse(f"there is no such network namespace{where}", _FORMS)
        self._refuse(f"cannot be opened ({error.strerror})", _FORMS)


def own(option: str) -> Namespace:
    """The namespace that this thread is in now. Raises: UsageError."""
    return Namespace(option, _OWN)


def same(one: Namespace | None, other: Namespace | None) -> bool:
    """Whether both are one namespace; None is the one that this thread is in."""
    if one is other:
        return True  # also where there is no /proc to ask
    return _identity(one) == _identity(other)


@contextlib.contextmanager
def inside(namespace: Namespace | None) -> Iterator[None]:
    """Be in a namespace for the time of a `with` block; None changes nothing.

    Raises: UsageError, also when the way back is barred, which takes the same privilege.
    """
    if namespace is None or same(namespace, None):
        yield
        return
    before = own(namespace.option)
    try:
        namespace.enter()
        try:
            yield
        finally:
            before.enter()
    finally:
        before.close()


def _identity_of_own() -> tuple[int, int]:
    try:
        status = os.stat(_OWN)
    except OSError:  # no /proc here: not known to be any namespace that was opened
        return -1, -1
    return status.st_dev, status.st_ino


def _identity(namespace: Namespace | None) -> tuple[int, int]:
    return _identity_of_own() if namespace is None else namespace.identity


def _pid(value: str) -> int:
    """The process id that a value names; 0 when it names none."""
    digits = value.removeprefix(_PID_PREFIX)
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        return 0
    return int(digits)


def _path(option: str, value: str) -> str:
    """Path of the file that a value names. Raises: UsageError for what cannot name one."""
    if "/" in value:
        return value
    if pid := _pid(value):
        if pid > _MOST_PID:
            raise UsageError(option, value, "is no process id", _FORMS)
        return f"/proc/{pid}/ns/net"
    if value.startswith(_PID_PREFIX) or value.isdigit() or value in ("", ".", ".."):
        raise UsageError(option, value, "names no network namespace", _FORMS)
    return f"{_FOLDER}/{value}"
