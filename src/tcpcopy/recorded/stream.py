"""Recorded traffic as one stream of IP packets, out of one capture file or many.

Files are merged by time, whatever the order they are given in. Only those whose time has come are
open, so that a set of a thousand rotated files needs one descriptor and one window at a time.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

from tcpcopy.errors import UsageError
from tcpcopy.packet.handler import PacketHandler
from tcpcopy.recorded import files as recorded_files
from tcpcopy.recorded import records
from tcpcopy.recorded.counts import FileCounts
from tcpcopy.recorded.records import RecordReader

_READY = records.READY
_ENDED = records.ENDED
_NOT_YET = records.NOT_YET
_NEVER_NS = 0x7FFF_FFFF_FFFF_FFFF  # later than any packet


def open_recorded(
    paths: Sequence[str], *, option: str = "-i", strip_tunnels: bool = True
) -> PacketStream:
    """Open capture files, pcap or pcapng, plain, .gz or .zst; `-` is standard input.

    With `strip_tunnels`, packets in tunnels are handed on without them (`packet.unwrap`). Fragments
    of TCP are put together in any case. Raises: UsageError naming `option` and the path for what is
    no capture file as a whole. Damage further on ends that file with a line in `problems`.
    """
    return PacketStream(
        recorded_files.open_files(paths, option, strips_tunnels=strip_tunnels), option
    )


class PacketStream:
    """The packets of all files, in the order of their times.

    The order is that of the files where times go back within one of them. Not thread-safe.
    """

    __slots__ = (
        "_counts",  # FileCounts of each file that was begun, by its number
        "_current",  # reader of the packet that comes next; None before it is looked for
        "_current_number",
        "_heap",  # (time, number, reader) of the other open files
        "_is_ready",  # `_current` stands at a packet that was not handed on
        "_next_file",  # number of the first file that is not open yet
        "_option",
        "_read_before",  # bytes read of the files that are closed again
        "_rival_ns",  # up to this time the current file goes on
        "files",  # RecordedFile, in the order of their first packets
    )

    def __init__(self, files: list[Any], option: str) -> None:
        self.files = files
        self._option = option
        self._counts: dict[int, FileCounts] = {}
        self._begin()

    def _begin(self) -> None:
        self._current: RecordReader | None = None
        self._current_number = -1
        self._heap: list[Any] = []
        self._is_ready = False
        self._next_file = 0
        self._read_before = 0
        self._rival_ns = -1

    def next_ns(self) -> int:
        """Time of the packet that comes next, nanoseconds since the epoch; -1 at the end.

        Waits for it when it comes through a pipe.
        """
        if self._is_ready or self._settle(True) == _READY:
            return self._current.timestamp_ns  # type: ignore[union-attr]
        return -1

    def is_ready(self) -> bool:
        """Whether `next_ns` would answer without waiting: always, but for pipes.

        Of a compressed pipe only the compressed bytes are looked at: it may wait for more of them.
        """
        return self._is_ready or self._settle(False) != _NOT_YET

    def fileno(self) -> int:
        """What becomes readable when `is_ready` is worth asking again; -1: it is always ready."""
        if self._current is None:
            return self.files[0].open().raw.fileno()  # type: ignore[no-any-return]
        return self._current.raw.fileno()  # type: ignore[no-any-return]

    def hand_on(self, handler: PacketHandler) -> int:
        """Give the packet that comes next to `handler`, and go past it; what the handler returned.

        0 at the end. The handler's contract is that of `packet.handler`.
        """
        if not self._is_ready and self._settle(True) != _READY:
            return 0
        self._is_ready = False
        return self._current.hand_on(handler)  # type: ignore[union-attr]

    def hand_on_all(self, handler: PacketHandler) -> None:
        """Give all packets that are left to `handler`, whatever it returns. Waits for pipes."""
        while self._is_ready or self._settle(True) == _READY:
            self._is_ready = False
            self._current.hand_on(handler)  # type: ignore[union-attr]

    def rewind(self) -> None:
        """Go back to the first packet; the counts go on. Raises: UsageError for pipes."""
        for file in self.files:
            if not file.is_regular:
                raise UsageError(
                    self._option, file.path, "cannot be read twice", "save it to a file first"
                )
        self._close_all()
        self._begin()

    def close(self) -> None:
        """Close all files. Nothing can be read afterwards; the counts stay."""
        self._close_all()
        self._begin()
        self._next_file = len(self.files)

    @property
    def total_bytes(self) -> int:
        """Size of all files, compressed as they are; 0 when one is a pipe."""
        if any(not file.is_regular for file in self.files):
            return 0
        return sum(file.size for file in self.files)

    @property
    def bytes_read(self) -> int:
        """How much of `total_bytes` has been read since the beginning or `rewind`."""
        total: int = self._read_before
        for _, reader in self._open_readers():
            total += reader.raw.bytes_read
        return total

    @property
    def counts(self) -> FileCounts:
        """Packets read so far, by what became of them, of all files together."""
        total = FileCounts("", "", "")
        for counts in self.file_counts:
            total.add(counts)
        return total

    @property
    def file_counts(self) -> list[FileCounts]:
        """The same for each file, in the order of `files`."""
        shown = {number: counts.copy() for number, counts in self._counts.items()}
        for number, reader in self._open_readers():
            shown.setdefault(number, self._new_counts(number)).take(reader)
        return [shown.get(number) or self._new_counts(number) for number in range(len(self.files))]

    @property
    def problems(self) -> list[str]:
        """What was wrong with files: a line for each that could not be used to its end."""
        return [
            f"{counts.path}: {problem}"
            for counts in self.file_counts
            for problem in counts.problems
        ]

    def _new_counts(self, number: int) -> FileCounts:
        file = self.files[number]
        return FileCounts(file.path, file.format, file.compression)

    def _open_readers(self) -> list[Any]:
        readers = [(number, reader) for _, number, reader in self._heap]
        if self._current is not None:
            readers.append((self._current_number, self._current))
        return readers

    def _settle(self, wait: bool) -> int:
        """Find the packet that comes next: READY, ENDED, or NOT_YET unless `wait`."""
        if self._current is not None:
            status = self._current.advance(wait)
            if status == _NOT_YET:
                return _NOT_YET
            if status == _ENDED:
                self._finish(self._current_number, self._current)
                self._current = None
            elif self._current.timestamp_ns <= self._rival_ns:
                self._is_ready = True
                return _READY
            else:
                self._push(self._current_number, self._current)
                self._current = None
        return self._choose(wait)

    def _choose(self, wait: bool) -> int:
        """Make the file with the earliest packet the current one, opening those that are due."""
        while True:
            while self._next_file < len(self.files) and (
                not self._heap or self.files[self._next_file].first_ns <= self._heap[0][0]
            ):
                number = self._next_file
                status = self._open_next(number, wait)
                if status == _NOT_YET:
                    return _NOT_YET
            if not self._heap:
                return _ENDED
            _, number, reader = heapq.heappop(self._heap)
            self._current = reader
            self._current_number = number
            self._rival_ns = self._heap[0][0] if self._heap else _NEVER_NS
            if self._next_file < len(self.files):
                self._rival_ns = min(self._rival_ns, self.files[self._next_file].first_ns - 1)
            self._is_ready = True
            return _READY

    def _open_next(self, number: int, wait: bool) -> int:
        """Open a file at its first IP packet; NOT_YET leaves it for the next time."""
        try:
            reader = self.files[number].open()
        except UsageError as error:
            self._lost(number, f"{error.problem} any more")
            self._next_file = number + 1
            return _ENDED
        status: int = reader.advance(wait)
        if status == _NOT_YET:
            return _NOT_YET
        self._next_file = number + 1
        if status == _READY:
            self._push(number, reader)
        else:
            self._finish(number, reader)
        return status

    def _push(self, number: int, reader: RecordReader) -> None:
        heapq.heappush(self._heap, (reader.timestamp_ns, number, reader))

    def _finish(self, number: int, reader: RecordReader) -> None:
        """Close a file and keep its counts."""
        if not self._heap and self._next_file >= len(self.files):
            reader.unwrapper.finish()  # it was the last one
        self._read_before += reader.raw.bytes_read
        self._counts.setdefault(number, self._new_counts(number)).take(reader)
        self.files[number].close()

    def _lost(self, number: int, problem: str) -> None:
        self._counts.setdefault(number, self._new_counts(number)).note(problem)

    def _close_all(self) -> None:
        for number, reader in self._open_readers():
            reader.unwrapper.finish()
            self._finish(number, reader)
        for file in self.files:
            file.close()
