"""Checks of single values that both commands share; the rest is tested with their tables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tcpcopy.arguments import Word, file_to_write, refuse_same_files
from tcpcopy.errors import UsageError


def refused(value: object) -> str:
    with pytest.raises(UsageError) as caught:
        file_to_write(Word("-l", str(value)))
    assert caught.value.option == "-l" and caught.value.hint
    return caught.value.problem


def test_no_file() -> None:
    assert file_to_write(None) is None


def test_nothing_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert file_to_write(Word("-l", "new")) == str(tmp_path / "new")
    assert file_to_write(Word("-l", "../x/./new".replace("x", tmp_path.name))) == str(
        tmp_path / "new"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_text("kept")
    assert file_to_write(Word("-l", str(path))) == str(path)
    assert path.read_text() == "kept"


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refused(tmp_path) == "is a directory"
    assert refused(tmp_path / "none" / "file") == "its directory does not exist"
    assert refused(tmp_path / "file" / "below") == "its directory does not exist"
    assert refused(tmp_path / ("n" * 300)) == "File name too long"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert refused(tmp_path / "loop") == "is a symbolic link"
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert refused(tmp_path / "link") == "is a symbolic link"
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    assert refused(tmp_path / "dangling") == "is a symbolic link"
    for name in ("/dev/stdout", "/dev/stderr", "/dev/fd/1", "/proc/self/fd/2"):
        assert file_to_write(Word("-l", name)) == name


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """No more rights than any user, for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_may_not_be_looked_at(tmp_path: Path, as_nobody: None) -> None:
    if os.getuid() == 0:
        hidden = Path("/root/file")
    else:
        hidden = tmp_path / "hidden" / "file"
        hidden.parent.mkdir(mode=0)
    assert refused(hidden) == "Permission denied"


def test_pipe_counts_when_it_is_read(tmp_path: Path) -> None:
    """A shell's `>(reader)` is one; without reader, opening it would hang."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert refused(pipe) == "is a pipe that nobody reads"
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert file_to_write(Word("-l", str(pipe))) == str(pipe)
    finally:
        os.close(reader)


def test_same_file_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    names = ("log", "pid_file", "json")
    for other in ("./a", str(tmp_path / "a"), "link"):
        words = {"log": Word("-l", "a"), "pid_file": Word("-P", other)}
        with pytest.raises(UsageError) as caught:
            refuse_same_files(words, names)
        assert str(caught.value) == f"-P {other}: is the file of -l already; name another file"
        refuse_same_files(words, ("log", "json"))
    refuse_same_files({"log": Word("-l", "a"), "json": Word("--json", "b")}, names)
    refuse_same_files({n: Word("-l", "/dev/null") for n in names}, names)
