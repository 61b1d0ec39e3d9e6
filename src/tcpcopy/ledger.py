"""The file of one worker that outlives it: the sessions it holds open at the targets.

A session is written down before its SYN and crossed out when it is forgotten: one store each into a
mapped file, no system call. The kernel keeps the pages when the process is killed, so that the next
start can reset what was left open. Nobody else writes the file, which is locked while its worker or
the parent of that lives.

What is read of a file that a dead process left is trusted in nothing: any bytes give sessions or
none, never an error, and whoever reads them decides which are possible.

    header    fixed, with the table of targets behind it; a checksum over both
    places    8 bytes each (24 where a target has an IPv6 address), from the next page on:
              address of IPv4 (32 bits), mapped port (16), number of the target (16; 0: free);
              an address of IPv6 in the 16 bytes behind. A free place has the number of the next
              free one instead of the address.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import zlib
from array import array
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

_LOW = 0xFFFFFFFFFFFFFFFF  # typed: as a literal it would be a Python object when compiled
_MAGIC: Final = b"tcpcopy\x01"
# Magic, words of a place, targets, worker, zero, process, start, namespace, run, job.
_HEADER: Final = struct.Struct("=8sIIIIQQQ16s32s")
_CHECKSUM: Final = struct.Struct("=I")
_CHECKSUM_AT: Final = _HEADER.size
_ENDED_AT: Final = _CHECKSUM_AT + _CHECKSUM.size  # u32, changed while it runs: not in the sum
_TARGETS_AT: Final = 128
_TARGET: Final = struct.Struct("=BBH16s")  # bytes of the address, zero, port, address
_PAGE: Final = 4096
_NARROW, _WIDE = 1, 3  # words of a place
_MOST_TARGETS: Final = 0xFFFF
_FIRST_BYTES: Final = _PAGE  # of places
_LARGEST_STEP: Final = 1 << 20
_MOST_PLACES: Final = 1 << 24
#: Most bytes of a file that can be one of ours.
MOST_BYTES: Final = _TARGETS_AT + _MOST_TARGETS * _TARGET.size + _PAGE + 8 * _WIDE * _MOST_PLACES
RUN_BYTES, JOB_BYTES = 16, 32

#: Mapped address and port, target address and port.
OpenSession = tuple[bytes, int, bytes, int]


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of the run that made it."""

    run: bytes  # RUN_BYTES, random: all workers of a run have the same
    job: bytes  # JOB_BYTES: what was copied where to, as a hash
    targets: tuple[tuple[bytes, int], ...]
    process: int = 0  # of the run: the parent, with several workers
    started_ns: int = 0  # CLOCK_REALTIME
    namespace: int = 0  # of the network
    worker: int = 0
    ended: bool = False  # its summary was made

    @property
    def words(self) -> int:
        """Words of eight bytes that a session takes."""
        return _WIDE if any(len(address) == 16 for address, _ in self.targets) else _NARROW


def read_header(data: bytes | memoryview) -> Header | None:
    """The header of a file, whose bytes may be anything; None when it is not one."""
    if len(data) < _TARGETS_AT or bytes(data[:8]) != _MAGIC:
        return None
    _, words, count, worker, _, process, started_ns, namespace, run, job = _HEADER.unpack_from(data)
    end = _TARGETS_AT + count * _TARGET.size
    if not 0 < count <= _MOST_TARGETS or len(data) < end:
        return None
    if _CHECKSUM.unpack_from(data, _CHECKSUM_AT)[0] != _sum(data, end):
        return None
    targets = []
    for at in range(_TARGETS_AT, end, _TARGET.size):
        size, _, port, address = _TARGET.unpack_from(data, at)
        if size not in (4, 16) or not port:
            return None
        targets.append((address[:size], port))
    ended = _CHECKSUM.unpack_from(data, _ENDED_AT)[0] != 0
    header = Header(run, job, tuple(targets), process, started_ns, namespace, worker, ended)
    # A time that no clock shows would not be printed either.
    return header if words == header.words and started_ns < 1 << 62 else None


def read_sessions(data: bytes | memoryview, header: Header) -> Iterator[OpenSession]:
    """The sessions in the bytes of a file, as they were written down; `header` is its own."""
    start = _places_at(len(header.targets))
    whole = (len(data) - start) // (8 * header.words) * (8 * header.words)
    if whole <= 0:
        return
    words = array("Q")
    words.frombytes(data[start : start + whole])
    for at in range(0, len(words), header.words):
        session = _decoded(words, at, header.targets)
        if session is not None:
            yield session


def _sum(data: bytes | memoryview, end: int) -> int:
    return zlib.crc32(data[_TARGETS_AT:end], zlib.crc32(data[:_CHECKSUM_AT]))


def _places_at(targets: int) -> int:
    return -(-(_TARGETS_AT + targets * _TARGET.size) // _PAGE) * _PAGE


def _decoded(
    words: Sequence[int], at: int, targets: Sequence[tuple[bytes, int]]
) -> OpenSession | None:
    """The session of the place that begins at a word; None when it is free, or makes no sense."""
    head = words[at]
    number, port = head & 0xFFFF, head >> 16 & 0xFFFF
    if not port or not 0 < number <= len(targets):
        return None
    target, target_port = targets[number - 1]
    if len(target) == 4:
        return (head >> 32).to_bytes(4, "big"), port, target, target_port
    mapped = (words[at + 1] << 64 | words[at + 2]).to_bytes(16, "big")
    return mapped, port, target, target_port


class Ledger:
    """The open file of one worker. Not for several processes at a time.

    A process that is forked from the one that opened it may go on with it, after `resume`.
    """

    __slots__ = (
        "_capacity",  # places that there is room for
        "_fd",
        "_free",  # the first of the free places that were taken before, 0: none
        "_last_number",  # the target asked for last
        "_last_port",
        "_last_target",
        "_map",
        "_numbers",  # target -> its number
        "_places_at",
        "_used",  # places that have been taken since the file was opened
        "_view",  # the places, as words
        "_words",  # of a place
        "count",  # sessions in it
        "header",
        "path",
        "unrecorded",  # sessions that found no room
    )

    def __init__(self, fd: int, path: str, header: Header) -> None:
        """Begin the new, empty file `fd`, which is taken over. Raises: OSError."""
        self.path = path
        self.header = header
        self.count = 0
        self.unrecorded = 0
        self._fd = fd
        self._words = header.words
        self._numbers = {target: number for number, target in enumerate(header.targets, 1)}
        self._last_target, self._last_port, self._last_number = b"", 0, 0
        self._places_at = _places_at(len(header.targets))
        self._capacity = self._used = self._free = 0
        size = self._places_at + _FIRST_BYTES
        # What is mapped must be there: a store into a hole of a full disk would be a SIGBUS.
        os.posix_fallocate(fd, 0, size)
        os.pwrite(fd, _header_bytes(header), 0)
        self._map = mmap.mmap(fd, size)
        self._look(size)

    def _look(self, size: int) -> None:
        """Take the file as it is mapped now, `size` bytes."""
        self._view: Any = memoryview(self._map)[self._places_at :].cast("Q")
        self._capacity = (size - self._places_at) // (8 * self._words)

    def resume(self) -> array[int]:
        """Go on with a file in which a process has written that is no more.

        The places of the sessions that it left open.
        """
        self._remap(os.fstat(self._fd).st_size)
        left = array("I")
        self._free = 0
        self._used = self._capacity
        for place in range(self._capacity, 0, -1):
            if self.is_taken(place):
                left.append(place)
            else:
                self._view[(place - 1) * self._words] = self._free << 32
                self._free = place
        self.count = len(left)
        left.reverse()
        return left

    # --- while it runs ------------------------------------------------------------------------

    def add(self, mapped: bytes, port: int, target: bytes, target_port: int) -> int:
        """Write a session down; its place, 0 when there is no room."""
        place = self._free
        if place:
            self._free = self._view[(place - 1) * self._words] >> 32
            if self._free > self._used:
                self._free = 0
        elif self._used < self._capacity or self._grow():
            self._used += 1
            place = self._used
        else:
            self.unrecorded += 1
            return 0
        at = (place - 1) * self._words
        head = port << 16 | self._number(target, target_port)
        address = high = 0
        for octet in range(len(mapped)):
            if octet == 8:
                high = address
            address = address << 8 & _LOW | mapped[octet]
        if len(mapped) == 4:
            head |= address << 32
        else:
            self._view[at + 1] = high
            self._view[at + 2] = address
        self._view[at] = head  # last: it makes the place a session
        self.count += 1
        return place

    def _number(self, target: bytes, target_port: int) -> int:
        if target is not self._last_target or target_port != self._last_port:
            self._last_number = self._numbers[target, target_port]
            self._last_target, self._last_port = target, target_port
        return self._last_number

    def remove(self, place: int) -> None:
        """Cross a session out."""
        self._view[(place - 1) * self._words] = self._free << 32
        self._free = place
        self.count -= 1

    def is_taken(self, place: int) -> bool:
        """Whether a session stands at a place."""
        at = (place - 1) * self._words
        head = self._view[at]
        return bool(head & 0xFFFF0000 != 0 and 0 < head & 0xFFFF <= len(self._numbers))

    def session(self, place: int) -> OpenSession | None:
        """The session at a place; None when there is none."""
        at = (place - 1) * self._words
        words = [self._view[at + step] for step in range(self._words)]
        return _decoded(words, 0, self.header.targets)

    def _grow(self) -> bool:
        """Make room for more; False when there is none."""
        if self.unrecorded or self._capacity >= _MOST_PLACES:
            return False
        before = len(self._map)
        size = before + min(before - self._places_at, _LARGEST_STEP)
        try:
            os.posix_fallocate(self._fd, 0, size)
            self._remap(size)
        except OSError:
            return False  # and is not tried again
        return True

    def _remap(self, size: int) -> None:
        self._view = None  # it would hold the map where it is
        try:
            self._map.resize(size)
        finally:
            self._look(len(self._map))

    # --- the end ------------------------------------------------------------------------------

    def keep_only(self, places: Container[int]) -> None:
        """The run ends, its sessions are closed: cross all out but these places."""
        for place in range(1, self._used + 1):
            if place not in places and self.is_taken(place):
                self.remove(place)

    def finish(self) -> None:
        """The summary is made: the file goes, or says so where it has sessions yet."""
        self._remap(os.fstat(self._fd).st_size)  # a worker may have made it larger
        _CHECKSUM.pack_into(self._map, _ENDED_AT, 1)
        if not any(self.is_taken(place) for place in range(1, self._capacity + 1)):
            self.discard()

    def discard(self) -> None:
        """Remove the file, where that is still allowed."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def fileno(self) -> int:
        """The descriptor that holds the lock."""
        return self._fd

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        if self._fd >= 0:
            self._view = None
            self._map.close()
            os.close(self._fd)
            self._fd = -1


def _header_bytes(header: Header) -> bytes:
    targets = b"".join(_TARGET.pack(len(a), 0, port, a) for a, port in header.targets)
    fixed = _HEADER.pack(
        _MAGIC,
        header.words,
        len(header.targets),
        header.worker,
        0,
        header.process,
        header.started_ns,
        header.namespace,
        header.run,
        header.job,
    )
    data = bytearray(_TARGETS_AT) + targets
    data[: len(fixed)] = fixed
    _CHECKSUM.pack_into(data, _CHECKSUM_AT, _sum(bytes(data), len(data)))
    return bytes(data)
