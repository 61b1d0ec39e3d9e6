"""The status line: what it shows, how it fits, when it is drawn, and how it goes."""

from __future__ import annotations

import io
import os
import pty

import pytest

from tcpcopy.report.counters import RingCounts, Snapshot
from tcpcopy.report.outcome import Outcome
from tcpcopy.report.status import Sample, StatusReporter, render, sample
from tests.unit.report.samples import SECOND, clean, with_outcome

BEFORE = Sample(0, 80, 400, 20_000)


def shown(snapshot: Snapshot, width: int = 0) -> str:
    return render(snapshot, sample(snapshot, 2 * SECOND), BEFORE, width)


def test_line_has_totals_and_rates_since_the_one_before() -> None:
    snapshot = with_outcome(Outcome.REFUSED)
    snapshot.sessions_live = 5
    snapshot.rings = {"eth0": RingCounts(100, 4)}
    assert shown(snapshot) == (
        "1:05  sessions 100  live 5  10 new/s  replayed 93  50 turns/s  9.77 KiB/s  lost 7  drops 4"
    )


def test_skipped_shows_when_there_are_any() -> None:
    assert "lost 0  skipped 7" in shown(with_outcome(Outcome.SKIPPED_SAMPLING))
    assert "skipped" not in shown(clean())


def test_a_flood_shows_while_there_is_one() -> None:
    snapshot = clean()
    assert "flood" not in shown(snapshot)
    snapshot.syn_flood_rate = 4_993
    assert "  SYN flood 4,993/s  lost 0" in shown(snapshot)


def test_no_time_passed_means_no_rate() -> None:
    now = sample(clean(), 0)
    assert "  0 new/s" in render(clean(), now, now)
    assert "  0 new/s" in render(clean(), now, sample(Snapshot(), 5 * SECOND))


def test_counts_that_fall_give_no_negative_rate() -> None:
    """A worker that ended takes its counts along."""
    now = sample(Snapshot(), SECOND)
    assert "  0 new/s" in render(Snapshot(), now, BEFORE)


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (78, "1:05  sessions 100  live 0  10 new/s  50 turns/s  9.77 KiB/s  lost 0  drops 0"),
        (70, "1:05  sessions 100  live 0  10 new/s  50 turns/s  lost 0  drops 0"),
        (56, "1:05  sessions 100  live 0  50 turns/s  lost 0  drops 0"),
        (46, "1:05  sessions 100  lost 0  drops 0"),
        (21, "1:05  lost 0  drops 0"),
        (20, "1:05  lost 0"),
        (11, "1:05"),
        (3, "1:0"),
    ],
)
def test_narrow_terminals_lose_what_tells_least(width: int, line: str) -> None:
    assert shown(clean(), width) == line
    assert len(line) <= width


def screen(text: str) -> str:
    """What the line of a terminal shows after `text`: a carriage return, then overwriting."""
    line: list[str] = []
    column = 0
    for character in text:
        if character == "\r":
            column = 0
            continue
        assert character not in "\n\x1b"
        line[column : column + 1] = [character]
        column += 1
    return "".join(line).rstrip()


def terminal(stream: io.StringIO, columns: int = 120) -> StatusReporter:
    return StatusReporter(stream, True, SECOND, width=lambda: columns)


def test_live_line_is_drawn_at_once_and_over_itself() -> None:
    stream = io.StringIO()
    reporter = terminal(stream)
    long, short = clean(), clean()
    long.sessions_captured = 1_000_000
    assert reporter.tick(long, 0)
    assert "sessions 1,000,000" in screen(stream.getvalue())
    assert not reporter.tick(short, SECOND - 1)
    assert reporter.tick(short, SECOND)
    assert screen(stream.getvalue()) == render(short, sample(short, SECOND), sample(long, 0))


def test_live_line_never_reaches_the_last_column() -> None:
    stream = io.StringIO()
    reporter = terminal(stream, 50)
    reporter.tick(clean(), 0)
    reporter.tick(clean(), SECOND)
    assert max(len(part) for part in stream.getvalue().split("\r")) <= 49


def test_narrowed_window_is_not_overdrawn() -> None:
    """After the window shrank, neither line nor blanks go beyond it."""
    stream = io.StringIO()
    columns = [120, 40]
    reporter = StatusReporter(stream, True, SECOND, width=lambda: columns[0])
    reporter.tick(clean(), 0)
    del columns[0]
    stream.truncate(stream.seek(0))
    reporter.tick(clean(), SECOND)
    assert len(stream.getvalue().removeprefix("\r")) <= 39


def test_clear_wipes_and_the_next_tick_draws_again() -> None:
    stream = io.StringIO()
    reporter = terminal(stream)
    reporter.tick(clean(), 0)
    reporter.clear()
    assert screen(stream.getvalue()) == ""
    assert stream.getvalue().endswith("\r")
    before = stream.getvalue()
    reporter.clear()
    assert stream.getvalue() == before
    reporter.tick(clean(), SECOND)
    assert screen(stream.getvalue()).startswith("1:05  ")


def test_finish_leaves_nothing_and_ends_it() -> None:
    stream = io.StringIO()
    reporter = terminal(stream)
    reporter.tick(clean(), 0)
    reporter.finish()
    assert screen(stream.getvalue()) == ""
    before = stream.getvalue()
    reporter.tick(clean(), 5 * SECOND)
    reporter.finish()
    assert stream.getvalue() == before


def test_lines_come_each_interval_and_not_at_once() -> None:
    lines: list[str] = []
    reporter = StatusReporter(io.StringIO(), False, 10 * SECOND, write_line=lines.append)
    due = [now for now in range(0, 35) if reporter.tick(clean(), now * SECOND)]
    assert due == [10, 20, 30]
    assert len(lines) == 3
    reporter.finish()
    reporter.tick(clean(), 100 * SECOND)
    assert len(lines) == 3


def test_late_ticks_keep_the_rhythm_and_missed_ones_are_not_made_up() -> None:
    reporter = StatusReporter(io.StringIO(), False, 10)
    reporter.tick(clean(), 100)
    assert reporter.due_ns == 110
    assert reporter.tick(clean(), 113)
    assert reporter.due_ns == 120
    assert reporter.tick(clean(), 155)
    assert reporter.due_ns == 165


def test_is_due_spares_the_snapshot() -> None:
    reporter = StatusReporter(io.StringIO(), False, 10)
    assert reporter.is_due(0)
    reporter.tick(clean(), 0)
    assert [now for now in range(12) if reporter.is_due(now)] == [10, 11]


def test_without_terminal_lines_go_to_the_stream() -> None:
    stream = io.StringIO()
    reporter = StatusReporter(stream, False, 10)
    reporter.tick(clean(), 0)
    reporter.tick(clean(), 10)
    assert stream.getvalue().startswith("1:05  sessions 100")
    assert stream.getvalue().endswith("\n")


class Failing(io.StringIO):
    """A stream whose writes fail."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error
        self.tries = 0

    def write(self, text: str) -> int:
        self.tries += 1
        raise self.error


def test_broken_stream_is_left_alone() -> None:
    stream = Failing(BrokenPipeError())
    reporter = terminal(stream)
    for now in range(5):
        reporter.tick(clean(), now * SECOND)
    assert stream.tries == 1


def test_terminal_that_is_held_is_tried_again() -> None:
    stream = Failing(BlockingIOError())
    reporter = terminal(stream)
    for now in range(5):
        reporter.tick(clean(), now * SECOND)
    assert stream.tries == 5


def test_closed_stream_never_raises() -> None:
    stream = io.StringIO()
    stream.close()
    terminal(stream).tick(clean(), 0)


def test_width_is_that_of_the_terminal() -> None:
    """A real terminal of 44 columns."""
    controller, terminal_end = pty.openpty()
    try:
        os.set_blocking(controller, False)
        import fcntl
        import struct
        import termios

        fcntl.ioctl(terminal_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 44, 0, 0))
        with open(terminal_end, "w", closefd=False) as stream:
            StatusReporter(stream, stream.isatty(), SECOND).tick(clean(), 0)
        drawn = os.read(controller, 4096).decode()
    finally:
        os.close(controller)
        os.close(terminal_end)
    assert drawn == "\r1:05  sessions 100  lost 0  drops 0"
