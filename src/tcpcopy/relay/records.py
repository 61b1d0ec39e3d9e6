"""Records of the classic relay: unpacked on tcpcopy's end, packed and queued on intercept's.

A record is the start of an answer of the target: 20 bytes of IPv4 header, the TCP header with at
most 24 bytes of options, zeros up to 64 bytes. Its lengths are the original packet's. Where that
does not fit, both C programs leave a header that points beyond the record: longer TCP options are
cut with the data offset kept, IP options are left out with their header length kept. The decoder
mends both, so that what it hands on is a well-formed header with the true payload length; the
writer does as C does with TCP options, and leaves IP options out of the lengths, too.

Source: TCPCopy 1.3.0 (`tc_router.c: router_update`, `tc_combine.c`, `tc_socket.c`).
"""

from __future__ import annotations

import errno
import os
from typing import Any

import cython

from tcpcopy.packet.handler import PacketHandler
from tcpcopy.relay.classic import (
    MAX_BATCH,
    MAX_PAYLOAD_BATCH,
    MAX_PAYLOAD_BYTES,
    MAX_TRANSPORT_BYTES,
    PAYLOAD_RECORD_BYTES,
    RECORD_BYTES,
    Layout,
    RelayFault,
)

_RECORD_BYTES = RECORD_BYTES
_PAYLOAD_RECORD_BYTES = PAYLOAD_RECORD_BYTES
_MAX_BATCH = MAX_BATCH
_MAX_PAYLOAD_BATCH = MAX_PAYLOAD_BATCH
_MAX_TRANSPORT_BYTES = MAX_TRANSPORT_BYTES
_MAX_PAYLOAD_BYTES = MAX_PAYLOAD_BYTES
_EAGAIN = errno.EAGAIN
_EINTR = errno.EINTR
_DOUBTFUL_BYTES = 32768
_READS = 8  # buffers in one go: other connections wait
_NONE = int(RelayFault.NONE)
_BATCH_COUNT = int(RelayFault.BATCH_COUNT)
_NOT_A_RECORD = int(RelayFault.NOT_A_RECORD)
# What is known of the layout: values of RecordDecoder._batched and _record.
_UNKNOWN = -1
_FIRST_SEEN = 0  # of _record only: 64 bytes are handed on, whether more belong to it is open


def _put8(view: Any, at: int, value: int) -> None:
    view[at] = cython.cast(cython.uchar, value & 0xFF)


def _put16(view: Any, at: int, value: int) -> None:
    view[at] = cython.cast(cython.uchar, (value >> 8) & 0xFF)
    view[at + 1] = cython.cast(cython.uchar, value & 0xFF)


class RecordDecoder:
    """Unpacks records out of a byte stream, however it is cut, in a buffer of fixed size.

    Each usable record goes to `handler.packet(buffer, start, end, wire_length, timestamp_ns)`:
    IPv4 header of 20 bytes at `start`, TCP header up to `end` (at most 64 bytes in all, padding
    and payload left out), `wire_length` the IPv4 total length of header and original payload.
    With `Layout.AUTO` the layout is told from the first byte and from what follows the first
    record, which is handed on at once: it starts alike in all layouts. Not thread-safe.
    """

    __slots__ = (
        "_batched",  # 1, 0 or _UNKNOWN
        "_buffer",  # bytearray that the unread bytes stand in
        "_filled",  # bytes of the buffer that are in use
        "_handler",
        "_record",  # bytes of a record, _UNKNOWN or _FIRST_SEEN
        "_remaining",  # records of the current batch that are still to come
        "_start",  # first unread byte; <= _filled
        "_view",  # the buffer, as C sees it
        "batches",  # batches begun; bare records count one each
        "fault",  # a RelayFault number; not 0: the stream is lost and input is ignored
        "malformed",  # records that stood where they should but could not be read
        "records",  # records received, the malformed ones included
    )

    def __init__(
        self, handler: PacketHandler, layout: Layout = Layout.AUTO, buffer_bytes: int = 65536
    ) -> None:
        self._buffer = bytearray(max(buffer_bytes, 4 * PAYLOAD_RECORD_BYTES))
        self._view = self._buffer
        self._handler = handler
        self._start = 0
        self._filled = 0
        self._remaining = 0
        self._batched = _UNKNOWN
        self._record = _UNKNOWN
        if layout is not Layout.AUTO:
            self._batched = int(layout.is_batched)
            self._record = layout.record_bytes
        self.batches = 0
        self.fault = _NONE
        self.malformed = 0
        self.records = 0

    def hand_to(self, handler: PacketHandler) -> None:
        """Give what comes from now on to another handler."""
        self._handler = handler

    @property
    def layout(self) -> Layout:
        """The layout as far as it is known: AUTO until record size and batching are both told."""
        if self._batched == _UNKNOWN or self._record <= 0:
            return Layout.AUTO
        if not self._batched:
            return Layout.BARE
        return Layout.BATCHED if self._record == RECORD_BYTES else Layout.BATCHED_PAYLOAD

    def space(self) -> memoryview:
        """The free end of the buffer, never empty: receive into it, then call `received`."""
        self._compact()
        return memoryview(self._buffer)[self._filled :]

    def _compact(self) -> None:
        if self._start:
            unread = self._filled - self._start
            if unread:
                self._buffer[:unread] = self._buffer[self._start : self._filled]
            self._start = 0
            self._filled = unread

    def received(self, count: int, timestamp_ns: int) -> int:
        """Unpack what `count` bytes put into `space()` complete; return the records handed on.

        Never raises for what the bytes are: look at `fault`, and close the connection when set.
        """
        if self.fault:
            return 0
        self._filled += count
        return self._unpack(timestamp_ns)

    def read(self, descriptor: int, timestamp_ns: int) -> int:
        """Read what a socket that does not block has, and unpack it; a bounded number of buffers.

        Returns 1 when there may be more later, 0 at its end, or a negative errno that says that
        the connection is broken. Look at `fault` afterwards, and at the counts.
        """
        for _ in range(_READS):
            self._compact()
            room = len(self._buffer) - self._filled
            count = self._read_once(descriptor, room)
            if count <= 0:
                if count == -_EAGAIN or count == -_EINTR:
                    return 1
                return count
            self.received(count, timestamp_ns)
            if count < room or self.fault:
                break
        return 1

    def _read_once(self, descriptor: int, room: int) -> int:
        if cython.compiled:
            return read_into(  # type: ignore[name-defined,no-any-return]  # noqa: F821
                descriptor, cython.address(self._view[self._filled]), room
            )
        try:
            return os.readv(descriptor, [memoryview(self._buffer)[self._filled :]])
        except OSError as error:
            return -(error.errno or errno.EIO)

    def feed(self, data: Any, timestamp_ns: int) -> int:
        """Unpack from a buffer of any length; return the records handed on."""
        rest = memoryview(data)
        handed = 0
        while rest and not self.fault:
            free = self.space()
            count = min(len(free), len(rest))
            free[:count] = rest[:count]
            free.release()
            handed += self.received(count, timestamp_ns)
            rest = rest[count:]
        return handed

    def _unpack(self, timestamp_ns: int) -> int:
        handed = 0
        while not self.fault:
            if self._record == _FIRST_SEEN:
                if not self._tell_record_bytes():
                    break
                continue
            if self._remaining == 0 and not self._begin_batch():
                break
            needed = _RECORD_BYTES if self._record == _UNKNOWN else self._record
            if self._filled - self._start < needed:
                break
            handed += self._hand_on(self._start, timestamp_ns)
            self._start += needed
            self._remaining -= 1
            if self._record == _UNKNOWN:
                self._record = _FIRST_SEEN
        return handed

    def _begin_batch(self) -> int:
        """Read the count; 0 when more bytes are needed or the stream is at fault."""
        available = self._filled - self._start
        if available == 0:
            return 0
        if self._batched == _UNKNOWN:
            # A count is at most 16, its first byte 0; a record starts with IP version 4.
            first = self._view[self._start]
            if first != 0 and first >> 4 != 4:
                self.fault = _NOT_A_RECORD
                return 0
            self._batched = 1 if first == 0 else 0
            if not self._batched:
                self._record = _RECORD_BYTES
        count = 1
        if self._batched:
            if available < 2:
                return 0
            count = (self._view[self._start] << 8) | self._view[self._start + 1]
            if not 1 <= count <= self._largest_batch():
                self.fault = _BATCH_COUNT
                return 0
            self._start += 2
        self.batches += 1
        self._remaining = count
        return 1

    def _largest_batch(self) -> int:
        return _MAX_PAYLOAD_BATCH if self._record == _PAYLOAD_RECORD_BYTES else _MAX_BATCH

    def _tell_record_bytes(self) -> int:
        """Tell 64 from 192 bytes by what follows the first 64; 0 when more must arrive first.

        In either layout the bytes waited for are bound to come, so nothing is held up: the next
        record (and its count before it), or the rest of the first one.
        """
        at = self._start
        counted = 2 if self._remaining == 0 else 0
        if self._filled - at < counted + _RECORD_BYTES:
            return 0
        follows = self._is_record(at + counted)
        if counted:
            count = (self._view[at] << 8) | self._view[at + 1]
            follows = follows and 1 <= count <= _MAX_BATCH
        if follows:
            self._record = _RECORD_BYTES
            return 1
        if self._remaining >= _MAX_PAYLOAD_BATCH:  # one of the batch is read already
            self.fault = _BATCH_COUNT
            return 0
        rest = _PAYLOAD_RECORD_BYTES - _RECORD_BYTES
        if self._filled - at < rest:
            return 0
        self._start += rest
        self._record = _PAYLOAD_RECORD_BYTES
        return 1

    def _is_record(self, at: int) -> int:
        """Whether 64 bytes at `at` look like an IPv4 and a TCP header."""
        view = self._view
        first = view[at]
        total = (view[at + 2] << 8) | view[at + 3]
        headers = 20 + ((view[at + 32] >> 4) << 2)
        return (
            first >> 4 == 4
            and first & 15 >= 5
            and view[at + 9] == 6
            and headers >= 40
            and total >= headers
        )

    def _hand_on(self, at: int, timestamp_ns: int) -> int:
        """Mend the record's lengths and give it to the handler; returns 1 if it was usable."""
        view = self._view
        self.records += 1
        if view[at] >> 4 != 4:
            self.records -= 1
            self.fault = _NOT_A_RECORD
            return 0
        network = (view[at] & 15) << 2
        transport = (view[at + 32] >> 4) << 2
        total = (view[at + 2] << 8) | view[at + 3]
        if network < 20 or transport < 20 or view[at + 9] != 6 or total < network + transport:
            self.malformed += 1
            return 0
        if network > 20:
            total -= network - 20
            view[at] = 0x45
        if transport > _MAX_TRANSPORT_BYTES:
            total -= transport - _MAX_TRANSPORT_BYTES
            transport = _MAX_TRANSPORT_BYTES
            _put8(view, at + 32, (view[at + 32] & 15) | (_MAX_TRANSPORT_BYTES << 2))
            self._cut_options(at + 40, at + 20 + _MAX_TRANSPORT_BYTES)
        _put16(view, at + 2, total)
        self._handler.packet(view, at, at + 20 + transport, total, timestamp_ns)
        return 1

    def _cut_options(self, at: int, end: int) -> None:
        """End the option list before the option that `end` cuts; keep whole SACK blocks of it."""
        view = self._view
        while at < end:
            kind = view[at]
            if kind == 0:
                break
            if kind == 1:
                at += 1
                continue
            size = view[at + 1] if at + 1 < end else 0
            if size < 2:
                break
            if at + size > end:
                blocks = (end - at - 2) >> 3
                if kind == 5 and blocks > 0:  # RFC 2018 (3): 8 bytes each, the newest first
                    _put8(view, at + 1, 2 + (blocks << 3))
                    at += 2 + (blocks << 3)
                break
            at += size
        while at < end:
            view[at] = 0
            at += 1


class Peer:
    """One tcpcopy host, as intercept counts what it holds."""

    __slots__ = (
        "address",
        "limit",  # most sessions
        "own",  # sessions refused, because their client is this host itself
        "refused",  # sessions that would have been more
        "sessions",  # in the router's table
        "taken",  # sessions refused, because they are another host's
    )

    def __init__(self, address: str = "", limit: int = 1 << 40) -> None:
        self.address = address
        self.limit = limit
        self.own = 0
        self.refused = 0
        self.sessions = 0
        self.taken = 0


class RecordWriter:
    """Packs answers into batches in a bounded buffer, for one relay connection.

    The buffer holds whole batches only: a record that finds it full is counted in `lost`. What is
    in it is right at any time, so `pending` may be sent whenever the socket takes it. Not
    thread-safe.
    """

    __slots__ = (
        "_batch_at",  # where the count of the open batch stands; -1: none is open
        "_batch_count",  # records in the open batch
        "_batch_records",  # records after which a batch is closed
        "_batched",  # 1: batches with a count, 0: bare records
        "_buffer",
        "_counts",  # of batches, that the stream has until now
        "_doubtful",  # records sent since the first of `repeats`
        "_filled",  # end of what is packed
        "_limit",  # most bytes that the buffer grows to
        "_record",  # bytes of a record
        "_sent",  # start of what is not sent yet
        "_view",  # the buffer, as C sees it
        "closed",  # the connection is gone: routes to it lead nowhere
        "identity",  # the owner's number for the connection
        "lost",  # records that found the buffer full
        "peer",  # Peer: whose connection it is
        "queued",  # the owner's mark: it knows that there is something to send
        "records",  # records packed
        "repeats",  # answers that should have got a session on, and had to come again
        "unsure",  # it is not known whether this tcpcopy reads batches
        "went_bare",  # it was found not to
    )

    def __init__(
        self,
        identity: int = 0,
        batch_records: int = MAX_BATCH,
        limit_bytes: int = 4 << 20,
        layout: Layout = Layout.BATCHED,
        peer: Peer | None = None,
    ) -> None:
        self._record = layout.record_bytes
        self._batched = int(layout.is_batched)
        self._batch_records = max(1, min(batch_records, layout.max_batch))
        self._limit = max(limit_bytes, self._record + 2)
        self._buffer = bytearray(min(self._limit, 64 * self._record))
        self._view = self._buffer
        self._batch_at = -1
        self._batch_count = 0
        self._counts = 0
        self._doubtful = bytearray()
        self._filled = 0
        self._sent = 0
        self.closed = False
        self.identity = identity
        self.lost = 0
        self.peer = Peer() if peer is None else peer
        self.queued = False
        self.records = 0
        self.repeats = 0
        self.unsure = False
        self.went_bare = False

    @property
    def pending_bytes(self) -> int:
        return self._filled - self._sent

    @property
    def sendable_bytes(self) -> int:
        """What of it may be sent."""
        return self.sendable()

    def sendable(self) -> int:
        """The same."""
        return self._filled - self._sent

    @property
    def pending_records(self) -> int:
        """How many records are not sent yet, near enough (the counts between them aside)."""
        return self.pending_bytes // self._record

    def append(
        self,
        data: Any,
        start: int,
        end: int,
        destination: int = -1,
        wire_length: int = 0,
        timestamp_ns: int = 0,
    ) -> int:
        """Pack the answer at `data[start:end]`; 1 when done, 0 when the buffer is full.

        The caller has checked it: IPv4 header, then TCP header, both whole within `end`, and a
        total length of at least both. Payload bytes are taken if the layout has room for them all
        and they were captured. `destination`, if not -1, replaces the destination address.
        """
        at = self._reserve()
        if at < 0:
            self.lost += 1
            return 0
        view = self._view
        network = (data[start] & 15) << 2
        tcp = start + network
        transport = (data[tcp + 12] >> 4) << 2
        total = (data[start + 2] << 8) | data[start + 3]
        for offset in range(20):
            view[at + offset] = data[start + offset]
        if network > 20:
            view[at] = 0x45
            _put16(view, at + 2, total - network + 20)
        if destination >= 0:
            _put16(view, at + 16, destination >> 16)
            _put16(view, at + 18, destination & 0xFFFF)
        copied = min(transport, _MAX_TRANSPORT_BYTES)
        payload = total - network - transport
        if (
            self._record == _PAYLOAD_RECORD_BYTES
            and transport == copied
            and payload <= _MAX_PAYLOAD_BYTES
            and tcp + transport + payload <= end
        ):
            copied += payload
        at += 20
        for offset in range(copied):
            view[at + offset] = data[tcp + offset]
        for offset in range(copied, self._record - 20):
            view[at + offset] = 0
        self.records += 1
        if self.repeats and self.unsure and len(self._doubtful) < _DOUBTFUL_BYTES:
            self._doubtful += self._buffer[at - 20 : at - 20 + self._record]
        return 1

    def write(self, descriptor: int) -> int:
        """Send what may be sent to a socket: 1 when that was all, 0 when it takes no more now.

        A negative errno says that the connection is broken.
        """
        self._batch_at = -1
        room: int = self.sendable()
        while room:
            count = self._write_once(descriptor, room)
            if count < 0:
                if count == -_EINTR:
                    continue
                return 0 if count == -_EAGAIN else count
            self.sent(count)
            room = self.sendable()
        return 1

    def _write_once(self, descriptor: int, room: int) -> int:
        if cython.compiled:
            return write_from(  # type: ignore[name-defined,no-any-return]  # noqa: F821
                descriptor, cython.address(self._view[self._sent]), room
            )
        try:
            return os.write(descriptor, memoryview(self._buffer)[self._sent : self._sent + room])
        except OSError as error:
            return -(error.errno or errno.EIO)

    def pending(self) -> memoryview:
        """What is to be sent. Closes the open batch; release it before the next call here."""
        self._batch_at = -1
        return memoryview(self._buffer)[self._sent : self._filled]

    def sent(self, count: int) -> None:
        """The first `count` bytes of `pending` are in the kernel's hands."""
        self._sent += count
        if self._sent >= self._filled:
            self._sent = self._filled = 0

    def close(self) -> None:
        """Forget what is pending; nothing is packed any more."""
        self.closed = True
        self._sent = self._filled = 0
        self._batch_at = -1
        self._buffer = bytearray()
        self._view = self._buffer
        self._limit = 0

    def understood(self) -> None:
        """The tcpcopy reads batches."""
        self.unsure = False
        self._doubtful = bytearray()

    def go_bare(self) -> None:
        """From batches of records of 64 bytes to bare ones, in the midst of the stream.

        Who reads bare records has taken the counts for parts of them, and the C program stands
        still as long as one is not whole: zeros fill it up. What was sent since the first doubt
        comes again; what was sent before comes again from the target, and twice would be wrong.
        """
        over = 2 * self._counts % _RECORD_BYTES
        room = _RECORD_BYTES - over if over else 0
        more = bytes(room) + self._doubtful
        if self._filled + len(more) > len(self._view) and not self._make_room(len(more)):
            return  # it does not read at all
        for at in range(len(more)):
            self._view[self._filled + at] = more[at]
        self._filled += len(more)
        self._batch_at = -1
        self._batched = 0
        self.understood()
        self.went_bare = True

    def _reserve(self) -> int:
        """Room for one record, its batch's count brought up to date; -1 when there is none."""
        counted = 2 if self._batched and self._batch_at < 0 else 0
        if self._filled + counted + self._record > len(self._view) and not self._make_room(
            counted + self._record
        ):
            return -1
        if counted:
            self._batch_at = self._filled
            self._batch_count = 0
            self._counts += 1
            self._filled += 2
        if self._batched:
            self._batch_count += 1
            _put16(self._view, self._batch_at, self._batch_count)
            if self._batch_count >= self._batch_records:
                self._batch_at = -1
        at = self._filled
        self._filled += self._record
        return at

    def _make_room(self, needed: int) -> int:
        """Move what is pending to the front, or grow up to the limit; 0 when neither helps."""
        pending = self._filled - self._sent
        size = len(self._buffer)
        if pending > size >> 1 and size < self._limit:
            size = min(self._limit, 2 * size)
        elif self._sent < size >> 2:  # moving much to win little would cost a slow reader dear
            return 0
        if pending + needed > size:
            return 0
        fresh = bytearray(size)
        fresh[:pending] = self._buffer[self._sent : self._filled]
        if self._batch_at >= 0:
            self._batch_at -= self._sent
        self._buffer = fresh
        self._view = fresh
        self._sent = 0
        self._filled = pending
        return 1
