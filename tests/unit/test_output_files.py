"""Files that are written: no link is followed, nothing of somebody else's is added to."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tcpcopy import output_files
from tcpcopy.output_files import (
    Unfit,
    check_whole,
    descriptor_named,
    may_remove,
    open_exclusively,
    open_to_append,
    write_whole,
)
from tests.others import let_others_enter

OWN = {os.geteuid()}
STRANGER = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have files of others")


def append(path: Path, data: bytes = b"line\n") -> None:
    descriptor, _ = open_to_append(str(path), OWN)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def unfit(path: Path) -> str:
    with pytest.raises(Unfit) as caught:
        append(path)
    assert caught.value.hint and caught.value.strerror == caught.value.problem
    return caught.value.problem


def test_log_is_made_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    before = os.umask(0)
    try:
        append(path)
    finally:
        os.umask(before)
    append(path)
    assert path.read_bytes() == b"line\nline\n"
    assert path.stat().st_mode & 0o777 == 0o644


def test_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    for name, leads_to in (("link", "victim"), ("dangling", "none"), ("loop", "loop")):
        link = tmp_path / name
        link.symlink_to(leads_to)
        assert unfit(link) == "is a symbolic link" or name == "dangling"
        with pytest.raises(Unfit):
            append(link)
        with pytest.raises(Unfit):
            open_exclusively(str(link), OWN)
        for check in (check_whole, lambda path: write_whole(path, b"x", OWN)):
            with pytest.raises(Unfit, match="is a symbolic link"):
                check(str(link))
        assert link.is_symlink()
    (tmp_path / "hard").hardlink_to(tmp_path / "victim")
    assert unfit(tmp_path / "hard") == "has another name, too (a hard link)"
    with pytest.raises(Unfit):
        open_exclusively(str(tmp_path / "hard"), OWN)
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "none").exists()


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert unfit(tmp_path / "pipe") == "is a pipe that nobody reads"
    with pytest.raises(IsADirectoryError):
        append(tmp_path)
    with pytest.raises(Unfit, match="is not a file"):
        check_whole(str(tmp_path))
    for name in ("/dev/null", str(tmp_path / "pipe")):
        with pytest.raises(OSError, match=r"is not a file|nobody reads"):
            open_exclusively(name, OWN)


def test_descriptors_by_name(tmp_path: Path) -> None:
    assert (descriptor_named("/dev/stdout"), descriptor_named("/dev/stderr")) == (1, 2)
    assert (descriptor_named("/dev/fd/63"), descriptor_named("/proc/self/fd/7")) == (63, 7)
    assert descriptor_named("/dev/null") is descriptor_named("/dev/fd/x") is None
    assert descriptor_named("/tmp/dev/fd/1") is None
    with open(tmp_path / "file", "wb") as file:
        name = f"/dev/fd/{file.fileno()}"
        check_whole(name)
        write_whole(name, b"whole\n", OWN)
        append(Path(name))
    assert (tmp_path / "file").read_bytes() == b"whole\nline\n"


@needs_root
def test_files_of_others_in_shared_directories(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    path = shared / "log"
    path.touch()
    os.chown(path, STRANGER, STRANGER)
    append(path)  # a log may belong to anybody where others make no files
    shared.chmod(0o1777)
    assert unfit(path).startswith(f"belongs to user {STRANGER}, in a directory where everybody")
    with pytest.raises(Unfit, match="belongs to user"):
        open_exclusively(str(path), OWN)
    descriptor, _ = open_to_append(str(path), {0, STRANGER})
    os.close(descriptor)


def test_report_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report"
    check_whole(str(path))
    assert list(tmp_path.iterdir()) == []
    write_whole(str(path), b"first", OWN)
    path.chmod(0o606)
    with path.open("rb") as reader:
        check_whole(str(path))
        write_whole(str(path), b"second", OWN)
        assert reader.read() == b"first"
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == 0o604, "as before, but not for all to write"
    (tmp_path / "other").hardlink_to(path)
    write_whole(str(path), b"third", OWN)
    assert (tmp_path / "other").read_bytes() == b"second"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "report"]


def test_report_that_does_not_fit_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report"
    path.write_bytes(b"old")

    def full(descriptor: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(str(path), b"new", OWN)
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["report"]


@needs_root
def test_full_disk_leaves_the_old_report_whole(tmp_path: Path) -> None:
    """A file system of two pages, one of which is taken by the old report."""
    code = (
        "import os, sys\n"
        "from tcpcopy.output_files import write_whole\n"
        "path = sys.argv[1]\n"
        "write_whole(path, b'old' * 1000, {0})\n"
        "try:\n"
        "    write_whole(path, b'new' * 4000, {0})\n"
        "except OSError as error:\n"
        "    print(error.strerror)\n"
        "print(open(path, 'rb').read() == b'old' * 1000, os.listdir(os.path.dirname(path)))\n"
        "write_whole(path, b'new' * 1000, {0})\n"
        "print(open(path, 'rb').read() == b'new' * 1000)\n"
    )
    mounted = 'mount -t tmpfs -o size=8k none "$1" && exec "$2" -c "$3" "$1/report"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mounted, "sh", tmp_path, sys.executable, code],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "No space left on device", "True ['report']", "True"
    ], done  # fmt: skip


def test_report_into_a_pipe(tmp_path: Path) -> None:
    """More than a pipe holds, and a reader who takes its time."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    data = os.urandom(300_000)
    with subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE) as reader:
        found: list[bytes] = []
        assert reader.stdout is not None
        thread = threading.Thread(target=lambda: found.append(reader.stdout.read()))  # type: ignore[union-attr]
        thread.start()
        for _ in range(500):
            try:
                write_whole(str(path), data, OWN)
                break
            except Unfit:  # nobody reads it yet
                threading.Event().wait(0.01)
        thread.join(10)
    assert found == [data]


def test_reader_that_reads_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_files, "_PIPE_WAIT_S", 0.05)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(TimeoutError, match="nobody reads it"):
            write_whole(str(path), bytes(300_000), OWN)
    finally:
        os.close(reader)


@needs_root
def test_what_another_user_may_do(tmp_path: Path) -> None:
    """In a sticky directory each may remove and replace only what is its own."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    path, own = folder / "report", folder / "own"
    path.touch()
    own.touch()
    os.chown(own, STRANGER, STRANGER)
    let_others_enter(tmp_path)
    os.seteuid(STRANGER)
    try:
        with pytest.raises(Unfit, match="belongs to another user, and may not be replaced"):
            check_whole(str(path))
        check_whole(str(own))
        check_whole(str(folder / "new"))
        assert not may_remove(str(path), 0) and may_remove(str(own), 0)
        assert not may_remove(str(folder / "new"), 0)
        assert may_remove(str(folder / "new"), STRANGER)
        with pytest.raises(Unfit, match="no file may be made beside it"):
            check_whole(str(tmp_path / "report"))
        assert not may_remove(str(tmp_path / "report"), STRANGER)
    finally:
        os.seteuid(0)
