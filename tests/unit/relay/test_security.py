"""Whose secret file is taken."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tcpcopy.errors import UsageError
from tcpcopy.relay.security import read_secret
from tests.others import let_others_enter

SECRET = b"0123456789abcdef"
OTHER = 12345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="files of other users need root")


def secret_file(directory: Path, owner: int, group: int, mode: int) -> str:
    path = directory / "secret"
    path.write_bytes(SECRET)
    os.chown(path, owner, group)
    path.chmod(mode)
    return str(path)


@needs_root
def test_root_takes_only_its_own(tmp_path: Path) -> None:
    assert read_secret("--secret-file", secret_file(tmp_path, 0, 0, 0o600)) == SECRET
    with pytest.raises(UsageError, match=f"belongs to user {OTHER}"):
        read_secret("--secret-file", secret_file(tmp_path, OTHER, OTHER, 0o600))
    with pytest.raises(UsageError, match="others than its owner"):
        read_secret("--secret-file", secret_file(tmp_path, 0, 0, 0o440))


@needs_root
@pytest.mark.parametrize(
    ("owner", "group", "mode", "problem"),
    [
        (OTHER, OTHER, 0o600, ""),
        (0, OTHER, 0o440, ""),  # Kubernetes, with fsGroup
        (0, OTHER, 0o460, "others than its owner"),
        (0, OTHER + 1, 0o440, "Permission denied"),
        (0, OTHER, 0o444, "others than its owner"),
        (OTHER, OTHER, 0o640, "others than its owner"),
        (OTHER + 1, OTHER, 0o640, f"belongs to user {OTHER + 1}"),
    ],
)
def test_a_user_takes_its_own_and_roots(
    tmp_path: Path, owner: int, group: int, mode: int, problem: str
) -> None:
    """In a process of its own, which is that user."""
    let_others_enter(tmp_path)
    path = secret_file(tmp_path, owner, group, mode)
    child = os.fork()
    if not child:
        said = ""
        try:
            os.setgroups([])
            os.setgid(OTHER)
            os.setuid(OTHER)
            assert read_secret("--secret-file", path) == SECRET
        except UsageError as error:
            said = str(error)
        finally:
            is_right = problem in said if problem else not said
            sys.stderr.write(said)
            os._exit(0 if is_right and sys.exc_info()[0] is None else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
