"""What a run gives up once all is open, and beforehand whether it can do without.

Root's right to any file goes, too, and with `--user` root itself. Whether the files of the run can
still be written at its end is found out before anything starts, by a child process that has given
up all that the run will: it tries, and ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, NoReturn

from tcpcopy import output_files, privileges
from tcpcopy.errors import UsageError
from tcpcopy.privileges import User

_log = logging.getLogger("tcpcopy.privileges")
_OPTION: Final = "--user"
TUN: Final = "/dev/net/tun"


@dataclass(frozen=True, slots=True)
class OutputFiles:
    """Files that are opened or removed after privileges are given up; absolute paths."""

    log: str | None = None
    report: str | None = None
    pid: str | None = None
    read_again: tuple[str, ...] = ()  # capture files that are opened more than once, or late
    makes_tun: bool = False  # a TUN device may have to be made anew


def rehearse(files: OutputFiles, keep: Collection[int], user: User | None) -> tuple[str, ...]:
    """Try in a child what will have to work without the privileges that are given up.

    Returns what will not, and matters little. Raises: UsageError for what matters.
    """
    if user is not None and not user.is_this and not privileges.may_change_user():
        raise UsageError(
            _OPTION,
            user.name,
            "to become another user takes CAP_SETUID and CAP_SETGID, which are missing here",
            "run it as root, or leave it out",
        )
    if user is None and files == OutputFiles():
        return ()
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if not child:
        _be_child(write_fd, files, keep, user)
    os.close(write_fd)
    with open(read_fd, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    if not told:
        raise UsageError("start", None, "a process that tried ended at once", "see dmesg")
    refusal, warnings = json.loads(told)
    if refusal is not None:
        raise UsageError(*refusal)
    return tuple(warnings)


def _be_child(
    write_fd: int, files: OutputFiles, keep: Collection[int], user: User | None
) -> NoReturn:
    try:
        refusal, warnings = None, []
        try:
            warnings = _try(files, keep, user)
        except UsageError as error:
            refusal = [error.option, error.value, error.problem, error.hint]
        os.write(write_fd, json.dumps([refusal, warnings]).encode())
    finally:
        os._exit(0)


def _try(files: OutputFiles, keep: Collection[int], user: User | None) -> list[str]:
    creator = os.geteuid()
    try:
        privileges.drop(keep, user)
    except OSError as error:
        if user is not None:
            raise _no_change(user, error) from None
    who = f"user {user.name}" if user is not None else "this user"
    hint = f"give {who} the right to it, or name a file elsewhere"
    if files.report is not None:
        try:
            output_files.check_whole(files.report)
        except OSError as error:
            problem = f"{error.strerror or error}, once privileges are given up"
            raise UsageError(
                "--json", files.report, problem, getattr(error, "hint", hint)
            ) from None
    for path in files.read_again:
        _try_to_read(path, hint)
    warnings = []
    if files.log is not None and (problem := _problem_with_log(files.log)):
        warnings.append(
            f"-l {files.log}: when it is rotated, {who} cannot open it again ({problem}), and goes "
            "on in the old file; let it own the file, or rotate with copytruncate"
        )
    if files.pid is not None and not output_files.may_remove(files.pid, creator):
        warnings.append(f"-P {files.pid}: {who} may not remove it; it stays at the end, empty")
    if files.makes_tun and not os.access(TUN, os.R_OK | os.W_OK, effective_ids=True):
        warnings.append(
            f"{TUN} may not be opened by {who}: a device that is lost, or whose worker died, "
            f"cannot be made anew (chmod 666 {TUN})"
        )
    return warnings


def _try_to_read(path: str, hint: str) -> None:
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        problem = f"cannot be opened again once privileges are given up ({error.strerror})"
        raise UsageError("-i", path, problem, hint) from None


def _problem_with_log(path: str) -> str:
    """Why a log that is there cannot be opened by this user; "" when it can, or is new."""
    if output_files.descriptor_named(path) is not None:
        return ""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return ""
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC))
    except FileNotFoundError:
        return ""  # it is made for this user
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _no_change(user: User, error: OSError) -> UsageError:
    problem = f"the kernel does not let this process become that user ({error.strerror})"
    return UsageError(_OPTION, user.name, problem, "leave it out, or run it as root of this host")


def give_up(
    keep: Collection[int], user: User | None = None, warnings: Collection[str] = ()
) -> None:
    """Keep these capabilities alone, and become `user`; log it, with what was found out before.

    Raises: UsageError when the user cannot be changed.
    """
    for line in warnings:
        _log.warning("%s", line)
    try:
        privileges.drop(keep, user)
    except OSError as error:
        if user is not None and not user.is_this:
            raise _no_change(user, error) from None
        _log.warning("they cannot be given up here: %s", error.strerror)
        return
    threads = 1
    with contextlib.suppress(OSError):  # no /proc here
        threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        _log.warning("%d threads of this process began before and keep their privileges", threads)
    kept = privileges.said(privileges.permitted()) or "none"
    _log.info("user %d, capabilities kept: %s", os.geteuid(), kept)
