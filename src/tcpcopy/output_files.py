"""Files that both commands write: opened so that nobody else decides where the bytes go.

Who may write in the directory of a file can put a link in its place, and root would write through
it. So the last part of a path is never followed when it is a link, a log is only appended to when
it is a plain file of one name, and a report is written beside the old one and takes its place
whole. `/dev/stdout`, `/dev/stderr` and `/dev/fd/N` are links by nature: they are taken by name.

Source: open(2) (O_NOFOLLOW, O_EXCL), rename(2), fifo(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import select
import stat
import time
from collections.abc import Collection
from typing import Final

_STANDARD: Final = {"/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR: Final = re.compile(r"/(?:dev|proc/self)/fd/(\d{1,7})")
_SAFE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_NEW_MODE: Final = 0o644  # less the umask
_PIPE_WAIT_S: Final = 5.0  # for the reader of a pipe
_TRIES: Final = 8
LINK_HINT: Final = "name the file that it leads to"


class Unfit(OSError):
    """What stands at a path is not written to: `problem` (`strerror`, too) and `hint` say why."""

    def __init__(self, problem: str, hint: str = "name another file") -> None:
        super().__init__(errno.EPERM, problem)
        self.problem = problem
        self.hint = hint


def descriptor_named(path: str) -> int | None:
    """The number of the open file that a path names; None when it names none."""
    if path in _STANDARD:
        return _STANDARD[path]
    named = _DESCRIPTOR.fullmatch(path)
    return int(named[1]) if named else None


def open_to_append(path: str, owners: Collection[int]) -> tuple[int, bool]:
    """Open a log: its descriptor, and whether the file is new. Raises: OSError (`Unfit`).

    `owners` are the users whose files may be appended to where everybody may make files.
    A pipe is opened without waiting for a reader, and writing to it does not wait either.
    """
    number = descriptor_named(path)
    if number is not None:
        return os.dup(number), False
    return _open_plain(path, os.O_WRONLY | os.O_APPEND, owners)


def open_exclusively(path: str, owners: Collection[int]) -> int:
    """Open a plain file to read and write, made when it is not there. Raises: OSError (`Unfit`)."""
    descriptor, _ = _open_plain(path, os.O_RDWR, owners)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unfit("is not a file", "name a file of its own")
    return descriptor


def _open_plain(path: str, flags: int, owners: Collection[int]) -> tuple[int, bool]:
    """Open what is there, or make it; without O_CREAT for what is there.

    Kernels refuse root that in shared directories (fs.protected_regular).
    """
    for _ in range(_TRIES):
        try:
            descriptor = os.open(path, flags | _SAFE)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                made = os.open(path, flags | _SAFE | os.O_CREAT | os.O_EXCL, _NEW_MODE)
                return made, True
            # Made by somebody else meanwhile, or a link to nothing: the next try tells.
            continue
        except OSError as error:
            raise _explained(error) from None
        try:
            _check(os.fstat(descriptor), path, owners)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, False
    raise Unfit("comes and goes")


def _explained(error: OSError) -> OSError:
    if error.errno == errno.ELOOP:
        return Unfit("is a symbolic link", LINK_HINT)
    if error.errno == errno.ENXIO:
        return Unfit("is a pipe that nobody reads", "start its reader first, or name a file")
    return error


def _check(status: os.stat_result, path: str, owners: Collection[int]) -> None:
    """Refuse what somebody else may have put there. Raises: Unfit."""
    mode = status.st_mode
    if stat.S_ISCHR(mode):
        return  # only root makes devices
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        raise Unfit("is not a file", "name a file")
    if status.st_nlink > 1:
        raise Unfit("has another name, too (a hard link)")
    if status.st_uid not in owners and os.stat(os.path.dirname(path) or ".").st_mode & stat.S_IWOTH:
        raise Unfit(
            f"belongs to user {status.st_uid}, in a directory where everybody may make files",
            "name a file in a directory of its own",
        )


def write_whole(path: str, data: bytes, owners: Collection[int]) -> None:
    """Write a file in place of the one that is there, which stays until all is written.

    A pipe or device is written to. Raises: OSError (`Unfit`), with nothing left behind.
    """
    number = descriptor_named(path)
    if number is not None or _takes_a_stream(path):
        descriptor, _ = open_to_append(path, owners)
        try:
            _write_all(descriptor, data)
        finally:
            os.close(descriptor)
        return
    name, descriptor = _make_beside(path)
    try:
        try:
            with contextlib.suppress(FileNotFoundError):
                # The rights of the old one, but nobody gets to write it who should not.
                mode = stat.S_IMODE(os.lstat(path).st_mode) & 0o775
                os.fchmod(descriptor, mode)
            _write_all(descriptor, data)
        finally:
            os.close(descriptor)  # a full disk behind a network may be told only here
        os.rename(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def is_replaced(path: str) -> bool:
    """Whether `write_whole` puts a new file in the place of this one, or makes the first."""
    try:
        return descriptor_named(path) is None and not _takes_a_stream(path)
    except OSError:
        return False  # what writes it says why


def check_whole(path: str) -> None:
    """Try whether `write_whole` will work, by this user and without privileges; nothing is left.

    Raises: OSError (`Unfit`).
    """
    if descriptor_named(path) is not None or _takes_a_stream(path):
        return
    name, descriptor = _make_beside(path)
    os.close(descriptor)
    os.unlink(name)
    folder = os.stat(os.path.dirname(path) or ".")
    with contextlib.suppress(FileNotFoundError):
        if folder.st_mode & stat.S_ISVTX and os.geteuid() not in (
            folder.st_uid,
            os.lstat(path).st_uid,
        ):
            raise Unfit("belongs to another user, and may not be replaced in this directory")


def may_remove(path: str, creator: int) -> bool:
    """Whether this user may remove a file without privileges, which `creator` makes if needed."""
    folder = os.path.dirname(path) or "."
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        return False
    status = os.stat(folder)
    owner = creator
    with contextlib.suppress(OSError):
        owner = os.lstat(path).st_uid
    return not status.st_mode & stat.S_ISVTX or os.geteuid() in (status.st_uid, owner)


def _takes_a_stream(path: str) -> bool:
    """Whether a pipe or device is there. Raises: Unfit for what is neither that nor a file."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(mode):
        raise Unfit("is a symbolic link", LINK_HINT)
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        raise Unfit("is not a file", "name a file")
    return not stat.S_ISREG(mode)


def _make_beside(path: str) -> tuple[str, int]:
    """Make a new file in the same directory; its path and descriptor."""
    folder, base = os.path.split(path)
    for _ in range(_TRIES):
        # Names have 255 bytes at most.
        name = os.path.join(folder, f".{base[:100]}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE
            return name, os.open(name, flags, _NEW_MODE)
        except FileExistsError:
            continue
        except PermissionError:
            hint = "give a file in a directory where files may be made: it is replaced whole"
            raise Unfit("no file may be made beside it", hint) from None
    raise Unfit("no new name is free beside it")


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    until = time.monotonic() + _PIPE_WAIT_S
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            wait_s = until - time.monotonic()
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            if wait_s <= 0 or not poll.poll(wait_s * 1000):
                raise TimeoutError(errno.ETIMEDOUT, "nobody reads it") from None
