"""How the run is going: a line in the log every few seconds, a live line on a terminal."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple, TextIO

from tcpcopy.report.counters import Snapshot
from tcpcopy.report.text import byte_size, clock, number, rate

_FALLBACK_WIDTH = 80
_BAR_WIDTH = 20
_ECHO_WIDTH = 2  # "^C", which the terminal itself shows behind the live line


class Sample(NamedTuple):
    """What rates are computed from."""

    now_ns: int
    sessions: int
    turns: int
    delivered_bytes: int
    datagrams: int = 0


def sample(snapshot: Snapshot, now_ns: int) -> Sample:
    """The totals of `snapshot` at `now_ns` (any monotonic clock)."""
    return Sample(
        now_ns,
        snapshot.sessions_captured,
        snapshot.turns_replayed,
        snapshot.bytes_delivered,
        snapshot.udp_datagrams_sent,
    )


def render(snapshot: Snapshot, now: Sample, before: Sample, width: int = 0) -> str:
    """One line: time, sessions, turns, bytes, losses, drops; rates since `before`.

    With a `width`, at most that many columns: what tells least is left out first. Losses and
    drops are the last to go.
    """
    seconds = max(0, now.now_ns - before.now_ns) / 1e9

    def per_second(part: int, earlier: int) -> float:
        return max(0, part - earlier) / seconds if seconds else 0.0

    byte_rate = byte_size(int(per_second(now.delivered_bytes, before.delivered_bytes)))
    lost = f"lost {number(snapshot.sessions_lost + snapshot.udp_flows_lost)}"
    skipped = snapshot.sessions_skipped + snapshot.udp_flows_skipped
    if skipped:
        lost += f"  skipped {number(skipped)}"
    # Each with its rank: the highest is left out first.
    parts = [
        *_progress(snapshot, is_drawn=bool(width)),
        (0, clock(snapshot.duration_ns)),
        (2, f"sessions {number(now.sessions)}"),
        (3, f"live {number(snapshot.sessions_live)}"),
        (4, f"{rate(per_second(now.sessions, before.sessions))} new/s"),
        (6, f"replayed {number(snapshot.sessions_replayed)}"),
        (2, f"{rate(per_second(now.turns, before.turns))} turns/s"),
        (5, f"{byte_rate}/s"),
        *_flood_part(snapshot),
        *_udp_parts(snapshot, per_second(now.datagrams, before.datagrams)),
        (0, lost),
        (1, f"drops {number(snapshot.kernel_dropped)}"),
    ]
    line = "  ".join(text for _, text in parts)
    while width and len(line) > width and len(parts) > 1:
        rank = max(rank for rank, _ in parts)
        index = max(i for i, part in enumerate(parts) if part[0] == rank)
        del parts[index]
        line = "  ".join(text for _, text in parts)
    return line[:width] if width else line


def _progress(snapshot: Snapshot, *, is_drawn: bool) -> list[tuple[int, str]]:
    """How far files have been replayed, and the time left; nothing when the end is unknown."""
    done, total = snapshot.file.bytes_read, snapshot.file.bytes_total
    if not total:
        return []
    parts = [(0, f"{100 * done // total} %")]
    if is_drawn:
        full = _BAR_WIDTH * done // total
        parts.insert(0, (1, f"[{'#' * full}{'.' * (_BAR_WIDTH - full)}]"))
    if 0 < done < total:
        left_ns = snapshot.duration_ns * (total - done) // done
        parts.append((1, f"{clock(left_ns)} left"))
    return parts


def _flood_part(snapshot: Snapshot) -> list[tuple[int, str]]:
    """That there is a SYN flood, while there is one."""
    if not snapshot.syn_flood_rate:
        return []
    return [(1, f"SYN flood {number(snapshot.syn_flood_rate)}/s")]


def _udp_parts(snapshot: Snapshot, datagram_rate: float) -> list[tuple[int, str]]:
    """What UDP adds, once there was any."""
    if not snapshot.udp_flows_captured:
        return []
    return [
        (3, f"flows {number(snapshot.udp_flows_captured)}"),
        (4, f"live flows {number(snapshot.udp_flows_live)}"),
        (2, f"{rate(datagram_rate)} datagrams/s"),
    ]


class StatusReporter:
    """Renders a snapshot every `interval_ns`.

    On a terminal (`is_tty`) one line of `stream` is drawn over and over, at once and then each
    interval; else a line is written for each interval, by `write_line` (a logger's method) or to
    `stream`. A stream that fails is left alone from then on. `width` gives the columns (tests).
    """

    __slots__ = (
        "_before",
        "_drawn",
        "_due_ns",
        "_interval_ns",
        "_is_broken",
        "_is_tty",
        "_stream",
        "_width",
        "_write_line",
    )

    def __init__(
        self,
        stream: TextIO,
        is_tty: bool,
        interval_ns: int,
        write_line: Callable[[str], object] | None = None,
        width: Callable[[], int] | None = None,
    ) -> None:
        self._stream = stream
        self._is_tty = is_tty
        self._interval_ns = max(1, interval_ns)
        self._write_line = write_line
        self._width = width if width is not None else self._columns
        self._before: Sample | None = None  # what the next rates are measured from
        self._due_ns = 0  # when the next line is due, once there is a `_before`
        self._drawn = 0  # columns of the live line that stands on the terminal
        self._is_broken = False  # the stream failed

    @property
    def due_ns(self) -> int:
        """When `tick` has something to do next, on the clock it is given; 0 before the first."""
        return self._due_ns

    def is_due(self, now_ns: int) -> bool:
        """Whether `tick` would write now: ask before making a snapshot, which costs more."""
        return self._before is None or now_ns >= self._due_ns

    def tick(self, snapshot: Snapshot, now_ns: int) -> bool:
        """Draw or write when the interval is over; whether it did."""
        now = sample(snapshot, now_ns)
        if self._before is None:
            self._before = now
            self._due_ns = now_ns + self._interval_ns
            if self._is_tty:
                self._draw(render(snapshot, now, now, self._room()))
            return self._is_tty
        if now_ns < self._due_ns:
            return False
        if self._is_tty:
            self._draw(render(snapshot, now, self._before, self._room()))
        else:
            self._line(render(snapshot, now, self._before))
        self._before = now
        # From the due time, so that lines keep their rhythm; intervals that were missed are.
        self._due_ns += self._interval_ns
        if self._due_ns <= now_ns:
            self._due_ns = now_ns + self._interval_ns
        return True

    def clear(self) -> None:
        """Wipe the live line, before something else is written to the terminal."""
        if self._drawn:
            self._put("\r" + " " * self._to_wipe() + "\r")
            self._drawn = 0

    def finish(self) -> None:
        """Leave the terminal clean for the summary; further ticks do nothing."""
        self.clear()
        self._is_broken = True

    def _room(self) -> int:
        """Columns to draw in: the last one stays free, or some terminals would wrap."""
        return max(1, self._width() - 1)

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or _FALLBACK_WIDTH
        except (OSError, ValueError):
            return _FALLBACK_WIDTH

    def _to_wipe(self) -> int:
        """Columns in which something may stand."""
        return min(self._drawn + _ECHO_WIDTH, max(self._drawn, self._room())) if self._drawn else 0

    def _draw(self, line: str) -> None:
        # Over what stands there; blanks instead of a control sequence, for terminals that have
        # none. After the window became narrower the old rest may be beyond it: no blanks then.
        blanks = min(self._to_wipe(), self._room()) - len(line)
        if self._put("\r" + line + " " * max(0, blanks)):
            self._drawn = len(line)

    def _line(self, line: str) -> None:
        if self._is_broken:
            return
        if self._write_line is not None:
            self._write_line(line)
        else:
            self._put(line + "\n")

    def _put(self, text: str) -> bool:
        if self._is_broken:
            return False
        try:
            self._stream.write(text)
            self._stream.flush()
        except BlockingIOError:
            return False  # a terminal that is held (Ctrl-S): this line is left out
        except (OSError, ValueError):
            self._is_broken = True
            return False
        return True
