"""The file of --json: whole at any time, and what is in the way of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tcpcopy.report_file import ReportFile, is_replaced, write_report


def test_a_new_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    with path.open() as reader:
        write_report(str(path), "new\n")
        assert reader.read() == "old", "who reads it has all of it"
    assert path.read_text() == "new\n"
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_full_disk_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_report(str(path), "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["report.json"]


def test_a_file_in_the_way_is_not_written_through(tmp_path: Path) -> None:
    """Somebody has guessed the name of the new file, and put a link there."""
    path, victim = tmp_path / "report.json", tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / f"report.json.{os.getpid()}.new").symlink_to(victim)
    write_report(str(path), "new")
    assert victim.read_text() == "mine" and path.read_text() == "new"


def test_in_a_directory_of_others_the_own_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError):
        write_report(str(path), "new")
    monkeypatch.undo()
    path.write_text("old")
    monkeypatch.setattr(os, "open", refuse)
    write_report(str(path), "new")
    assert path.read_text() == "new"


def test_a_pipe_is_written_once(tmp_path: Path) -> None:
    """Its reader wants one report, that of the end."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert not is_replaced(str(path))
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    ReportFile(str(path)).tick(0, lambda: "not yet")
    write_report(str(path), "the end")
    assert os.read(reader, 100) == b"the end"
    os.close(reader)


def test_it_is_written_at_once_and_then_every_ten_seconds(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    report = ReportFile(str(path))
    made: list[int] = []

    def text(second: int) -> str:
        made.append(second)
        return str(second)

    for second in range(100, 135):
        report.tick(second * 1_000_000_000, lambda: text(second))  # noqa: B023
    assert made == [100, 110, 120, 130]
    assert path.read_text() == "130"


def test_a_fault_is_logged_once_and_tried_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    path = folder / "report.json"
    report = ReportFile(str(path), 1)
    report.tick(10, lambda: "a")
    report.tick(20, lambda: "b")
    assert [record.getMessage() for record in caplog.records] == [
        f"--json {path}: No such file or directory; trying on"
    ]
    folder.mkdir()
    report.tick(30, lambda: "c")
    assert path.read_text() == "c"
