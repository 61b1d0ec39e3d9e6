"""`--state`: where a run leaves what the next one is to know, and the files there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from tcpcopy.arguments import Option, Word
from tcpcopy.capture.devices import is_local_address
from tcpcopy.copier_config import CopierConfig
from tcpcopy.local_side import part_of
from tcpcopy.run_files import Job, Possible, RunFiles, default_directory

NONE: Final = "none"


def state_option(group: str) -> Option:
    """`--state` under a heading."""
    return Option("state", "", "--state", group,
           "directory for a small file of each process with the sessions that it holds open, by "
           "which the start after a kill resets them; none: no file; /run/tcpcopy when not given, "
           "without root tcpcopy in XDG_RUNTIME_DIR", "DIR|none")  # fmt: skip


def state(words: Mapping[str, Word]) -> str | None:
    """The directory as an absolute path, or none; None when not given. Raises: UsageError."""
    word = words.get("state")
    if word is None or word.value == NONE:
        return None if word is None else NONE
    if not os.path.isdir(word.value):
        word.refuse("is not a directory", f"create it (mkdir -m 700), or give {NONE}")
    return os.path.abspath(word.value)


def run_files(
    given: str | None, job: Job, config: CopierConfig, workers: int, packets: bool
) -> RunFiles | None:
    """The files of a run, not open yet; None when none are wanted.

    `packets`: whether the target's sessions outlive this process, as those of packet modes do.
    """
    if given == NONE:
        return None
    directory = given or default_directory(os.environ, os.geteuid())
    owner = possible(config, workers) if packets else _nobody
    return RunFiles(directory, given is not None, job, owner, packets)


def _nobody(mapped: bytes, port: int, target: bytes, target_port: int) -> int:
    """The owner of sessions in a mode that sends no packets of its own."""
    return -1


def possible(config: CopierConfig, workers: int) -> Possible:
    """Which sessions a run with this config can have opened."""
    targets = config.transfers.targets()
    local = config.local
    if local is not None:
        parts = [part_of(local, (index, workers))[1] for index in range(workers)]
        is_own = is_local_address if local.keeps else None
        return Possible(targets, parts=parts, is_own=is_own, workers=workers)
    return Possible(targets, pool=config.pool, workers=workers)
