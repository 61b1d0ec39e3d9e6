"""The application on the server: plays a script on one connection and records what it reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from .clock import Clock
from .connection import Connection


class Finish(Enum):
    """When the application closes."""

    ON_CLIENT_FIN = "on client fin"  # after the client's FIN and all answers
    AFTER_LAST_ANSWER = "after last answer"  # half close, then reads on to the client's end
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is written once so many bytes have been read; an answer at 0 is a greeting."""

    after_bytes: int
    pieces: tuple[tuple[int, int], ...]  # (delay from the piece before in ns, bytes)
    after_fin: bool = False  # and not before the client's FIN has been read

    @property
    def length(self) -> int:
        """All bytes of the answer."""
        return sum(length for _, length in self.pieces)


@dataclass(frozen=True, slots=True)
class Script:
    """How the application behaves on one connection. Answers are given one after another."""

    answers: tuple[Answer, ...] = ()
    finish: Finish = Finish.ON_CLIENT_FIN
    read_chunk: int | None = None  # bytes read at once; None: all there is
    read_interval_ns: int = 0  # between two reads; the window closes meanwhile
    reset_after: int | None = None  # RST once so many bytes have been read
    close_after: int | None = None  # full close once so many bytes have been read


@dataclass(slots=True)
class Record:
    """What the application saw. `end` is its first ending: "fin", "reset", "timeout" or None."""

    data: bytearray = field(default_factory=bytearray)
    end: str | None = None
    then_reset: bool = False  # a RST came after the FIN
    gave_up: bool = False  # the application itself reset or closed early
    written: int = 0  # bytes of answers written
    reads: list[tuple[int, int]] = field(default_factory=list)  # (time, bytes read so far)
    writes: list[tuple[int, int]] = field(default_factory=list)  # (time, bytes written so far)


_PATTERN = bytes((index * 7 + index // 251) & 0xFF for index in range(65_536))


def answer_bytes(start: int, length: int) -> bytes:
    """Return what stands at `start` in the stream of answers; the same on every connection."""
    start %= len(_PATTERN)
    repeated = _PATTERN[start : start + length]
    while len(repeated) < length:
        repeated += _PATTERN[: length - len(repeated)]
    return repeated


class ScriptedApplication:
    """Plays `script` on `connection`."""

    __slots__ = (
        "_clock",
        "_connection",
        "_eof",
        "_next",
        "_reading",
        "_script",
        "_writing",
        "record",
    )

    def __init__(self, clock: Clock, connection: Connection, script: Script) -> None:
        self._clock = clock
        self._connection = connection
        self._script = script
        self._next = 0  # index of the next answer
        self._writing = False
        self._reading = False  # a slow read is set
        self._eof = False
        self.record = Record()
        clock.after(0, self._read)  # once the connection knows its application

    def readable(self) -> None:
        """Read now, or at the slow reader's next time."""
        if self._reading:
            return
        if self._script.read_interval_ns:
            self._reading = True
            self._clock.after(self._script.read_interval_ns, self._slow_read)
        else:
            self._read()

    def ended(self, how: str) -> None:
        """Read what is left, as Linux lets an application, and note the end."""
        record = self.record
        while not record.gave_up and self._read_once(self._connection.receiver.unread):
            pass
        if self._connection.receiver.finished and record.end is None:
            record.end = "fin"
        if record.end is None:
            record.end = how
        else:
            record.then_reset = True

    def _slow_read(self) -> None:
        self._reading = False
        if self.record.end is None:
            self._read()

    def _read(self) -> None:
        more = True
        while more and not self.record.gave_up:
            more = self._read_once(self._script.read_chunk or 1 << 30)
            if more and self._script.read_interval_ns and self._connection.receiver.unread:
                self.readable()
                self._advance()
                return
        receiver = self._connection.receiver
        if receiver.finished and not receiver.unread and not self._eof:
            self._eof = True
            if self.record.end is None:
                self.record.end = "fin"
        self._advance()

    def _read_once(self, limit: int) -> bool:
        """Read up to `limit` bytes, no further than where the script gives up."""
        record = self.record
        stops = [
            stop
            for stop in (self._script.reset_after, self._script.close_after)
            if stop is not None
        ]
        if stops:
            limit = min(limit, min(stops) - len(record.data))
        data = self._connection.read(limit) if limit > 0 else b""
        if data:
            record.data += data
            record.reads.append((self._clock.now_ns, len(record.data)))
        if stops and len(record.data) >= min(stops):
            record.gave_up = True
            if self._script.reset_after is not None:
                self._connection.abort()
            else:
                self._connection.close()
        return bool(data)

    def _advance(self) -> None:
        """Start the next answer when its time has come, close when all is done."""
        if self._writing or self.record.gave_up:
            return
        script = self._script
        while self._next < len(script.answers):
            answer = script.answers[self._next]
            ready = len(self.record.data) >= answer.after_bytes and (
                self._eof or not answer.after_fin
            )
            if not ready and not self._eof:
                return
            if not ready:
                break  # the client has closed without asking for the rest
            self._next += 1
            if answer.pieces:
                self._writing = True
                self._write_piece(answer, 0)
                return
        if script.finish is Finish.AFTER_LAST_ANSWER or (
            script.finish is Finish.ON_CLIENT_FIN and self._eof
        ):
            self._connection.shutdown()

    def _write_piece(self, answer: Answer, index: int) -> None:
        """Set the write of one piece; a delay of 0 writes at once."""
        delay_ns, length = answer.pieces[index]

        def write() -> None:
            record = self.record
            if record.gave_up or record.end in ("reset", "timeout"):
                return
            self._connection.write(answer_bytes(record.written, length))
            record.written += length
            record.writes.append((self._clock.now_ns, record.written))
            if index + 1 < len(answer.pieces):
                self._write_piece(answer, index + 1)
            else:
                self._writing = False
                self._advance()

        if delay_ns:
            self._clock.after(delay_ns, write)
        else:
            write()
