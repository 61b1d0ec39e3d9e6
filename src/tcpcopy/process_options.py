"""Options about the process: its files, its user, `--workers`, `--no-check`."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Mapping
from typing import Any, Final

from tcpcopy.arguments import Option, Word, file_to_write, refuse_same_files
from tcpcopy.privileges import User

MIB: Final = 1 << 20
_MAX_WORKERS: Final = 64
_WORKER_BYTES: Final = 128 * MIB  # least share of -m: the program itself takes a part of it
_MOST_ID: Final = (1 << 32) - 2  # the next one means: no change


def workers_option(group: str) -> Option:
    """`--workers` under a heading."""
    return Option("workers", "", "--workers", group,
           f"processes that share the work, 1 to {_MAX_WORKERS} (default 1); auto: as many as "
           "there are CPUs; they share -m and -B, too", "NUM|auto")  # fmt: skip


def no_check_option(group: str, program: str) -> Option:
    """`--no-check` of a program under a heading."""
    return Option("no_check", "", "--no-check", group,
                  f"do not check this host at the start; `{program} doctor` checks it, and "
                  + ("more; nor stop sessions while the assistant passes answers on to clients"
                     if program == "tcpcopy" else "more"))  # fmt: skip


def user_option(group: str) -> Option:
    """`--user` under a heading."""
    return Option("user", "", "--user", group,
                  "become this user once all is open, with GROUP or all of the user's own groups; "
                  "names or numbers", "NAME[:GROUP]")  # fmt: skip


def user(words: Mapping[str, Word]) -> User | None:
    """The user of --user. Raises: UsageError when there is none of that name."""
    word = words.get("user")
    if word is None:
        return None
    name, colon, group = word.value.partition(":")
    entry = _entry(name)
    gid = _group(word, group) if colon else None
    if entry is None:
        uid = _number(name)
        if uid is None:
            word.refuse("there is no such user", "see `getent passwd`")
        if gid is None:
            word.refuse("is no user that has a group of its own", f"write {name}:GROUP")
        groups: tuple[int, ...] = (gid,)
    else:
        uid = entry.pw_uid
        groups = (gid,) if gid is not None else ()
        if gid is None:
            gid = entry.pw_gid
            groups = tuple(os.getgrouplist(entry.pw_name, gid))
    if not uid:
        word.refuse(
            "is root, with every right to root's files", "name another user, or leave it out"
        )
    return User(name, uid, gid, groups)


def _entry(name: str) -> pwd.struct_passwd | None:
    number = _number(name)
    try:
        return pwd.getpwnam(name) if number is None else pwd.getpwuid(number)
    except KeyError:
        return None


def _group(word: Word, name: str) -> int:
    number = _number(name)
    if number is not None:
        return number
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        word.refuse(f"there is no group {name}" if name else "names no group", "see `getent group`")


def _number(text: str) -> int | None:
    """The number of a user or group; None when it is no number that one can have."""
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        return None
    number = int(text)
    return number if number <= _MOST_ID else None


def files(words: Mapping[str, Word]) -> dict[str, Any]:
    """The files that are written, as absolute paths. Raises: UsageError."""
    names = ("log", "json", "pid_file")
    refuse_same_files(words, names)
    log, report, pid = (file_to_write(words.get(name)) for name in names)
    return {"log_file": log, "json_file": report, "pid_file": pid}


def workers(words: Mapping[str, Word], memory_bytes: int, recorded: object | None) -> int:
    """How many processes `--workers` asks for; files (`recorded`) are replayed by one.

    Raises: UsageError.
    """
    word = words.get("workers")
    is_recorded = recorded is not None
    if word is None:
        return 1
    if "single" in words and word.value != "1":
        word.refuse("the answers of --single come to any of them", "leave one of the two out")
    if is_recorded and word.value not in ("auto", "1"):
        word.refuse("files are replayed by one process", "leave it out")
    if word.value == "auto":
        if is_recorded:
            return 1
        wanted = len(os.sched_getaffinity(0))
        return max(1, min(wanted, _MAX_WORKERS, memory_bytes // _WORKER_BYTES))
    hint = f"give a whole number from 1 to {_MAX_WORKERS}, or auto"
    text = word.value
    if not (text.isascii() and text.isdigit()):
        word.refuse("is neither a whole number nor auto", hint)
    if len(text) > 10 or not 1 <= int(text) <= _MAX_WORKERS:
        word.refuse("is out of range", hint)
    count = int(text)
    if count > 1 and memory_bytes < count * _WORKER_BYTES:
        least = count * _WORKER_BYTES // MIB
        word.refuse(
            f"workers share {memory_bytes // MIB} MiB of memory (-m), which is too little",
            f"give -m {least}, or fewer workers",
        )
    return count
