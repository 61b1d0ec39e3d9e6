"""The log: one line an event, survives rotation and full disks, holds repeats back."""

from __future__ import annotations

import io
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tcpcopy.errors import UsageError
from tcpcopy.report import log
from tests.unit.report.samples import SECOND

STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d ")


def record_of(message: str, name: str = "tcpcopy") -> logging.LogRecord:
    """A warning with this text."""
    return logging.LogRecord(name, logging.WARNING, __file__, 1, message, None, None)


@pytest.fixture(autouse=True)
def _clean_logger() -> Iterator[None]:
    yield
    log.shut_down()


def lines_of(path: Path) -> list[str]:
    """The lines of a log without their time."""
    lines = path.read_text().splitlines()
    assert all(STAMP.match(line) for line in lines)
    return [STAMP.sub("", line) for line in lines]


def test_format_has_time_zone_level_and_part() -> None:
    stream = io.StringIO()
    logger = log.set_up(stream=stream)
    logger.info("%d sessions", 3)
    logging.getLogger("tcpcopy.relay").warning("lost")
    first, second = stream.getvalue().splitlines()
    assert STAMP.sub("", first) == "INFO 3 sessions"
    assert STAMP.sub("", second) == "WARNING relay: lost"
    assert STAMP.match(first)


def test_what_came_from_the_network_cannot_fake_a_line() -> None:
    text = log.LineFormatter().format(record_of("a\r\n2025-01-01 INFO faked"))
    assert "a\\r\\n2025-01-01 INFO faked" in text
    assert "\n" not in text


def test_terminal_sequences_are_escaped_and_words_are_not() -> None:
    text = log.LineFormatter().format(record_of("\x1b[2J caf\u00e9 \u2028"))
    assert text.endswith("\\x1b[2J caf\u00e9 \\u2028")


def test_traceback_follows() -> None:
    stream = io.StringIO()
    logger = log.set_up(stream=stream)
    try:
        raise ValueError("inner")
    except ValueError:
        logger.exception("session ended")
    assert "ERROR session ended\nTraceback" in stream.getvalue()


def test_level_is_kept() -> None:
    stream = io.StringIO()
    logger = log.set_up(stream=stream, level=logging.WARNING)
    logger.info("quiet")
    logger.warning("heard")
    assert "quiet" not in stream.getvalue()
    assert "heard" in stream.getvalue()


def test_set_up_again_replaces(tmp_path: Path) -> None:
    stream = io.StringIO()
    log.set_up(stream=stream)
    logger = log.set_up(str(tmp_path / "log"))
    logger.info("one")
    assert stream.getvalue() == ""
    assert lines_of(tmp_path / "log") == ["INFO one"]


def test_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for text in ("one", "two"):
        log.set_up(str(path)).info(text)
    assert lines_of(path) == ["INFO one", "INFO two"]


def test_file_that_cannot_be_opened_is_bad_usage(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "log"
    with pytest.raises(UsageError) as caught:
        log.set_up(str(path))
    assert str(caught.value) == (
        f"-l {path}: No such file or directory; give a file that can be written"
    )


def test_failed_set_up_keeps_the_log_there_was(tmp_path: Path) -> None:
    stream = io.StringIO()
    logger = log.set_up(stream=stream)
    with pytest.raises(UsageError):
        log.set_up(str(tmp_path / "missing" / "log"))
    logger.info("still here")
    assert "still here" in stream.getvalue()


def test_rotated_file_is_opened_anew(tmp_path: Path) -> None:
    path, rotated = tmp_path / "log", tmp_path / "log.1"
    logger = log.set_up(str(path))
    logger.info("one")
    path.rename(rotated)
    logger.info("two")
    assert lines_of(rotated) == ["INFO one"]
    assert lines_of(path) == ["INFO two"]


def test_reopen_makes_the_new_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log.set_up(str(path))
    path.rename(tmp_path / "log.1")
    log.reopen()
    assert path.exists()


def test_directory_that_moves_takes_the_log_along(tmp_path: Path) -> None:
    """The new one cannot be opened: lines go on where somebody can read them."""
    folder = tmp_path / "logs"
    folder.mkdir()
    logger = log.set_up(str(folder / "log"))
    logger.info("one")
    folder.rename(tmp_path / "gone")
    logger.info("two")
    log.reopen()
    logger.info("three")
    folder.mkdir()
    logger.info("four")
    assert lines_of(tmp_path / "gone" / "log") == [
        "INFO one",
        f"WARNING the new log {folder / 'log'}: No such file or directory; going on in the old one",
        "INFO two",
        "INFO three",
    ]
    assert lines_of(folder / "log") == ["INFO four"]


def test_deleted_directory_costs_lines_but_never_raises(tmp_path: Path) -> None:
    """What could not be written is told once it can be again."""
    folder = tmp_path / "logs"
    folder.mkdir()
    logger = log.set_up(str(folder / "log"))
    logger.info("one")
    shutil.rmtree(folder)
    logger.info("two")
    log.reopen()
    logger.info("three")
    folder.mkdir()
    logger.info("four")
    logger.info("five")
    assert lines_of(folder / "log") == [
        "INFO four",
        "WARNING 2 log lines before this one could not be written",
        "INFO five",
    ]


def test_link_put_in_place_of_a_rotated_log_is_not_followed(tmp_path: Path) -> None:
    path, rotated, victim = tmp_path / "log", tmp_path / "log.1", tmp_path / "victim"
    victim.write_text("precious")
    logger = log.set_up(str(path))
    logger.info("one")
    path.rename(rotated)
    path.symlink_to(victim)
    logger.info("two")
    assert victim.read_text() == "precious"
    assert lines_of(rotated) == [
        "INFO one",
        f"WARNING the new log {path}: is a symbolic link; going on in the old one",
        "INFO two",
    ]
    path.unlink()
    logger.info("three")
    assert lines_of(path) == ["INFO three"]


def test_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("victim")
    with pytest.raises(UsageError, match=r"^-l .*link: is a symbolic link; name the file that"):
        log.set_up(str(tmp_path / "link"))
    assert not (tmp_path / "victim").exists()


def test_new_log_is_not_writable_for_all(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        log.set_up(str(tmp_path / "log"))
    finally:
        os.umask(before)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_never_raises() -> None:
    logger = log.set_up("/dev/full")
    logger.info("one")
    (handler,) = logger.handlers
    assert isinstance(handler, log.FileHandler)
    assert handler.lost_lines == 1
    log.shut_down()


def test_stderr_that_is_gone_never_raises(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    logger = log.set_up(stream=stream)
    stream.close()
    logger.info("one")
    assert capsys.readouterr().err == ""


def test_status_line_is_wiped_before_each_record() -> None:
    stream = io.StringIO()
    logger = log.set_up(stream=stream)

    def wipe() -> None:
        stream.write("<wiped>")

    log.wipe_before(wipe)
    logger.info("one")
    assert stream.getvalue().startswith("<wiped>2")
    log.wipe_before(None)
    logger.info("two")
    assert stream.getvalue().count("<wiped>") == 1


class Sink(logging.Handler):
    """Keeps messages."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()}")


@pytest.fixture
def sink() -> Iterator[Sink]:
    logger = logging.getLogger("tcpcopy.test_rate")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    handler = Sink()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def limited(burst: int = 2, max_keys: int = 256) -> log.RateLimited:
    logger = logging.getLogger("tcpcopy.test_rate")
    return log.RateLimited(logger, 10 * SECOND, burst, max_keys)


def test_burst_passes_and_the_rest_is_counted(sink: Sink) -> None:
    rate = limited()
    passed = [rate.warning("send", now, "failed: %d", now) for now in range(5)]
    assert passed == [True, True, False, False, False]
    assert sink.lines == ["WARNING failed: 0", "WARNING failed: 1"]
    assert rate.held_back == 3


def test_what_was_held_back_is_told_before_the_next(sink: Sink) -> None:
    rate = limited(burst=1)
    for now in (0, 1, 2, 10 * SECOND):
        rate.warning("send", now, "failed: %d", now)
    assert sink.lines == [
        "WARNING failed: 0",
        "WARNING failed: 2 (and 1 more like this)",
        f"WARNING failed: {10 * SECOND}",
    ]


def test_each_interval_begins_with_the_first_after_the_last(sink: Sink) -> None:
    """At 12 s the second interval begins; at 21 s it is not over yet."""
    rate = limited(burst=1)
    passed = [rate.warning("send", now * SECOND, "%d", now) for now in (0, 12, 21, 22)]
    assert passed == [True, True, False, True]


def test_a_single_one_held_back_is_simply_told(sink: Sink) -> None:
    rate = limited(burst=1)
    rate.log(logging.INFO, "send", 0, "a")
    rate.log(logging.ERROR, "send", 1, "b")
    rate.flush()
    assert sink.lines == ["INFO a", "ERROR b"]


def test_kinds_do_not_share_their_burst(sink: Sink) -> None:
    rate = limited(burst=1)
    assert rate.warning("send", 0, "a")
    assert rate.warning(("relay", 3), 0, "b")
    assert not rate.warning("send", 0, "a")


def test_flush_tells_only_intervals_that_are_over(sink: Sink) -> None:
    rate = limited(burst=1)
    for now, key in ((0, "old"), (1, "old"), (9 * SECOND, "new"), (9 * SECOND, "new")):
        rate.warning(key, now, f"{key} %d", now)
    rate.flush(10 * SECOND)
    assert sink.lines[2:] == ["WARNING old 1"]
    rate.flush()
    assert sink.lines[3:] == [f"WARNING new {9 * SECOND}"]
    rate.flush()
    assert len(sink.lines) == 4


def test_kinds_are_bounded_and_none_is_dropped_untold(sink: Sink) -> None:
    rate = limited(burst=1, max_keys=3)
    for key in range(10):
        rate.warning(key, 0, "%d", key)
        rate.warning(key, 0, "again %d", key)
    assert len(sink.lines) == 10 + 7  # the seven that made room have been told
    rate.flush()
    assert sorted(sink.lines) == sorted(
        [f"WARNING {key}" for key in range(10)] + [f"WARNING again {key}" for key in range(10)]
    )
