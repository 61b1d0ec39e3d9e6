"""The file of --json: whole at any time, and what is in the way of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tcpcopy.output_files import is_replaced, write_whole
from tcpcopy.report_file import ReportFile


def test_a_pipe_is_written_once(tmp_path: Path) -> None:
    """Its reader wants one report, that of the end."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert not is_replaced(str(path))
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    ReportFile(str(path)).tick(0, lambda: b"not yet")
    write_whole(str(path), b"the end", {os.geteuid()})
    assert os.read(reader, 100) == b"the end"
    os.close(reader)


def test_it_is_written_at_once_and_then_every_ten_seconds(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    report = ReportFile(str(path))
    made: list[int] = []

    def text(second: int) -> bytes:
        made.append(second)
        return b"%d" % second

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
    report.tick(10, lambda: b"a")
    report.tick(20, lambda: b"b")
    assert [record.getMessage() for record in caplog.records] == [
        f"--json {path}: No such file or directory; trying on"
    ]
    folder.mkdir()
    report.tick(30, lambda: b"c")
    assert path.read_text() == "c"
