"""Answers of the native relay: packed on intercept's end, unpacked on tcpcopy's.

A frame of ANSWERS: u64 time of capture (CLOCK_REALTIME, ns), then records back to back. A record:
u8 IP version, u8 bytes of TCP header, u16 bytes of payload, u32 length of the whole packet without
IP options, u32 ns after the frame's time; both addresses as they stand in the IP header; the TCP
header with all its options; the payload. These twelve bytes stand where the start of an IP header
belongs: the decoder writes that over them, and hands the packet on where it lies.
"""

from __future__ import annotations

from typing import Any

import cython

from tcpcopy.packet.handler import PacketHandler
from tcpcopy.relay.classic import Layout, RelayFault
from tcpcopy.relay.native import FrameType
from tcpcopy.relay.probing import MOST_REPORT_BYTES
from tcpcopy.relay.records import Peer, RecordDecoder, RecordWriter

_ANSWERS = int(FrameType.ANSWERS)
_PING = int(FrameType.PING)
_REPORT = int(FrameType.REPORT)
_CREDIT = int(FrameType.CREDIT)
_DROPPED = int(FrameType.DROPPED)
_FRAME = int(RelayFault.FRAME)
_FRAME_HEADER = 4
_ANSWERS_HEADER = 12  # frame header and time
_RECORD_HEADER = 12
_PING_BYTES = 12  # frame header and one number: so has CREDIT, and DROPPED
_LONGEST_DELTA_NS = 4_000_000_000  # above 31 bits: a typed constant
_MOST_IN_FRAME = 32768
_MOST_REPORT = MOST_REPORT_BYTES
_MOST_REPORTS = 4  # nobody asks without taking them
_HIGHEST_16 = 65535
_SIGN_32 = 1 << 31
_MOST_TIME_NS = 1 << 62  # the year 2116; what is added to it still fits
_MOST_CREDIT = 1 << 62
_MOST_LOST = (1 << 48) - 1  # as many as DROPPED has room for; sums of it stay within a counter
_VERSION_4 = 0x45000000
_VERSION_6 = 0x60000000
_TTL_AND_TCP = 0x40060000


def _put32(view: Any, at: int, value: int) -> None:
    view[at] = cython.cast(cython.uchar, (value >> 24) & 0xFF)
    view[at + 1] = cython.cast(cython.uchar, (value >> 16) & 0xFF)
    view[at + 2] = cython.cast(cython.uchar, (value >> 8) & 0xFF)
    view[at + 3] = cython.cast(cython.uchar, value & 0xFF)


def _read32(view: Any, at: int) -> int:
    high: int = (view[at] << 8) | view[at + 1]
    low: int = (view[at + 2] << 8) | view[at + 3]
    return (high << 16) | low


def _read64(view: Any, at: int, most: int) -> int:
    """A number of 64 bits, `most` (63 bits) where it is more: the other end may say anything."""
    high = _read32(view, at)
    if high >= _SIGN_32:
        return most
    number: int = (high << 32) | _read32(view, at + 4)
    return min(number, most)


class NativeDecoder(RecordDecoder):
    """Unpacks the frames of an intercept; `records.RecordDecoder` has the calls.

    Each answer goes to the handler as an IPv4 header of 20 or an IPv6 header of 40 bytes, the TCP
    header with all options, and as much payload as was asked for. Not thread-safe.
    """

    __slots__ = (
        "_body",  # bytes of the current frame of ANSWERS that are still to come
        "captured_ns",  # intercept's clock (CLOCK_REALTIME) when the last answer was captured
        "consumed",  # bytes of the stream unpacked, from the first on
        "reports",  # bodies of the last REPORTs that came
        "packet_credit",  # offset up to which intercept takes frames of PACKETS
        "told_dropped",  # packets that intercept did not inject
        "told_reason",  # why not the last of these: a `PacketDrop`, or what the other end said
        "told_lost",  # answers that intercept could not send, as it says
        "_base_ns",  # time of the current frame
    )

    def __init__(self, handler: PacketHandler, buffer_bytes: int = 65536) -> None:
        RecordDecoder.__init__(self, handler, Layout.BATCHED, buffer_bytes)
        self._base_ns = 0
        self._body = 0
        self.captured_ns = 0
        self.consumed = 0
        self.reports: list[bytes] = []
        self.packet_credit = 0
        self.told_dropped = 0
        self.told_reason = 0
        self.told_lost = 0

    def _unpack(self, timestamp_ns: int) -> int:
        handed = 0
        while not self.fault:
            if self._body == 0:
                if not self._begin_frame():
                    break
                continue
            if not self._take_record(timestamp_ns):
                break
            handed += 1
        return handed

    def _begin_frame(self) -> int:
        """Read a frame's header; 0 when more bytes are needed or the stream is at fault."""
        available = self._filled - self._start
        if available < _FRAME_HEADER:
            return 0
        view = self._view
        at = self._start
        kind = view[at]
        length = (view[at + 2] << 8) | view[at + 3]
        if length == _PING_BYTES - _FRAME_HEADER and kind in (_PING, _CREDIT, _DROPPED):
            if available < _PING_BYTES:
                return 0
            if kind == _PING:
                self.told_lost = _read64(view, at + 4, _MOST_LOST)
            elif kind == _CREDIT:
                self.packet_credit = _read64(view, at + 4, _MOST_CREDIT)
            else:
                number = _read32(view, at + 4)
                self.told_reason = cython.cast(cython.int, number >> 16)
                self.told_dropped = ((number & _HIGHEST_16) << 32) | _read32(view, at + 8)
        elif kind == _ANSWERS and length > _ANSWERS_HEADER - _FRAME_HEADER + _RECORD_HEADER:
            if available < _ANSWERS_HEADER:
                return 0
            self._base_ns = _read64(view, at + 4, _MOST_TIME_NS)
            self._body = length - (_ANSWERS_HEADER - _FRAME_HEADER)
            self.batches += 1
        elif kind == _REPORT and length <= _MOST_REPORT:
            if available < _FRAME_HEADER + length:
                return 0
            at += _FRAME_HEADER
            if len(self.reports) < _MOST_REPORTS:
                self.reports.append(bytes(self._buffer[at : at + length]))
            self._start += _FRAME_HEADER + length
            self.consumed += _FRAME_HEADER + length
            return 1
        else:
            self.fault = _FRAME
            return 0
        self._start += _ANSWERS_HEADER  # as long as a ping
        self.consumed += _ANSWERS_HEADER
        return 1

    def take_reports(self) -> list[bytes]:
        """The REPORTs that came since the last call."""
        taken = self.reports
        self.reports = []
        return taken

    def _take_record(self, timestamp_ns: int) -> int:
        """Hand the next record on, an IP header's start written over its own; 1 when done.

        0 when more bytes are needed or the stream is at fault.
        """
        available = self._filled - self._start
        if self._body <= _RECORD_HEADER:
            self.fault = _FRAME
            return 0
        if available < _RECORD_HEADER:
            return 0
        view = self._view
        at = self._start
        version = view[at]
        addresses = 32 if version == 6 else 8
        network = addresses + (8 if version == 6 else 12)
        transport = view[at + 1]
        payload = (view[at + 2] << 8) | view[at + 3]
        size = _RECORD_HEADER + addresses + transport + payload
        total = _read32(view, at + 4)
        if (
            (version != 4 and version != 6)
            or transport < 20
            or transport > 60
            or transport & 3
            or size > self._body
            or size > len(self._view)
            or total < network + transport + payload
        ):
            self.fault = _FRAME
            return 0
        if available < size:
            return 0
        if (view[at + _RECORD_HEADER + addresses + 12] >> 4) << 2 != transport:
            self.fault = _FRAME
            return 0
        self.captured_ns = self._base_ns + _read32(view, at + 8)
        self.records += 1
        self._start += size
        self._body -= size
        self.consumed += size
        end = at + size
        if version == 4:
            _put32(view, at, _VERSION_4 | (total if total <= _HIGHEST_16 else 0))
            _put32(view, at + 4, 0)
            _put32(view, at + 8, _TTL_AND_TCP)
        else:
            at += 4
            _put32(view, at, _VERSION_6)
            length = total - 40
            _put32(view, at + 4, ((length if length <= _HIGHEST_16 else 0) << 16) | 0x0640)
        self._handler.packet(view, at, end, total, timestamp_ns)
        return 1


class NativeWriter(RecordWriter):
    """Packs answers into frames in a bounded buffer, for one native connection.

    What may be sent is bounded by the credit that tcpcopy grants: an offset of the stream. Not
    thread-safe.
    """

    __slots__ = (
        "_base_ns",  # time of the open frame
        "_packed",  # bytes of the stream packed, from the first on
        "_payload_limit",  # payload bytes of an answer that are wanted
        "allowed",  # offset of the stream up to which may be sent
        "offset",  # of the first byte not sent
    )

    def __init__(
        self,
        identity: int = 0,
        limit_bytes: int = 4 << 20,
        peer: Peer | None = None,
        *,
        window: int = 0,
        payload_bytes: int = 0,
    ) -> None:
        RecordWriter.__init__(self, identity, 1, limit_bytes, Layout.BATCHED, peer)
        self._base_ns = 0
        self._packed = 0
        self._payload_limit = payload_bytes
        self.allowed = window
        self.offset = 0

    def sendable(self) -> int:
        """What is pending and covered by credit."""
        covered = min(self._filled - self._sent, self.allowed - self.offset)
        return covered if covered > 0 else 0

    @property
    def pending_records(self) -> int:
        """How many records are not sent yet, from their average length."""
        return self.pending_bytes * self.records // max(1, self._packed)

    def grant(self, offset: int) -> None:
        """tcpcopy takes the stream up to this offset; what was granted is not taken back."""
        if offset > self.allowed:
            self.allowed = offset

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

        The caller has checked it: IPv4 or IPv6 header, then TCP header, all whole within `end`.
        `destination`, if not -1, replaces the IPv4 destination address.
        """
        version = data[start] >> 4
        if version == 4:
            network = (data[start] & 15) << 2
            total = (data[start + 2] << 8) | data[start + 3]
            addresses = start + 12
            address_bytes = 8
            whole = total - network + 20
        else:
            network = 40
            total = (data[start + 4] << 8) | data[start + 5]
            total = total + 40 if total else wire_length
            addresses = start + 8
            address_bytes = 32
            whole = total
        tcp = start + network
        transport = (data[tcp + 12] >> 4) << 2
        payload = min(self._payload_limit, total - network - transport, end - tcp - transport)
        payload = max(payload, 0)
        size = _RECORD_HEADER + address_bytes + transport + payload
        at = self._reserve_record(size, timestamp_ns)
        if at < 0:
            self.lost += 1
            return 0
        out = self._view
        out[at] = cython.cast(cython.uchar, version)
        out[at + 1] = cython.cast(cython.uchar, transport)
        out[at + 2] = cython.cast(cython.uchar, 0)
        out[at + 3] = cython.cast(cython.uchar, payload)
        _put32(out, at + 4, whole)
        _put32(out, at + 8, timestamp_ns - self._base_ns)
        at += _RECORD_HEADER
        for offset in range(address_bytes):
            out[at + offset] = data[addresses + offset]
        if destination >= 0 and version == 4:
            _put32(out, at + 4, destination)
        at += address_bytes
        for offset in range(transport + payload):
            out[at + offset] = data[tcp + offset]
        self.records += 1
        return 1

    def ping(self, lost: int) -> int:
        """Say that this end is there, and how many answers were lost until now."""
        return self._tell(_PING, lost)  # without room, there is enough to be heard of

    def credit(self, offset: int) -> int:
        """Say up to which offset frames of PACKETS are taken; 0: there is no room to say it."""
        return self._tell(_CREDIT, offset)

    def dropped(self, reason: int, packets: int) -> int:
        """Say how many packets were not injected until now, and the last reason; 0: no room."""
        return self._tell(_DROPPED, ((reason & 0x7FFF) << 48) | min(packets, _MOST_LOST))

    def _tell(self, kind: int, number: int) -> int:
        """A frame with one number."""
        self._batch_at = -1
        if self._filled + _PING_BYTES > len(self._view) and not self._make_room(_PING_BYTES):
            return 0
        view = self._view
        at = self._filled
        _put32(view, at, (kind << 24) | (_PING_BYTES - _FRAME_HEADER))
        _put32(view, at + 4, number >> 32)
        _put32(view, at + 8, number)
        self._filled += _PING_BYTES
        self._packed += _PING_BYTES
        return 1

    def put_frame(self, frame: bytes) -> int:
        """Let a whole frame go behind what is packed; 1 when done, 0 when the buffer is full."""
        self._batch_at = -1
        size = len(frame)
        if self._filled + size > len(self._view) and not self._make_room(size):
            return 0
        at = self._filled
        view = self._view
        for offset in range(size):
            view[at + offset] = cython.cast(cython.uchar, frame[offset])
        self._filled += size
        self._packed += size
        return 1

    def pending(self) -> memoryview:
        """What is to be sent. Closes the open frame; release it before the next call here."""
        self._batch_at = -1
        return memoryview(self._buffer)[self._sent : self._sent + self.sendable_bytes]

    def sent(self, count: int) -> None:
        """The first `count` bytes of `pending` are in the kernel's hands."""
        self.offset += count
        self._sent += count
        if self._sent >= self._filled:
            self._sent = self._filled = 0

    def _reserve_record(self, size: int, timestamp_ns: int) -> int:
        """Room for a record, its frame's length brought up to date; -1 when there is none."""
        delta = timestamp_ns - self._base_ns
        if self._batch_at >= 0 and (
            self._filled - self._batch_at > _MOST_IN_FRAME or delta < 0 or delta > _LONGEST_DELTA_NS
        ):
            self._batch_at = -1
        needed = size + (_ANSWERS_HEADER if self._batch_at < 0 else 0)
        if self._filled + needed > len(self._view) and not self._make_room(needed):
            return -1
        view = self._view
        if self._batch_at < 0:
            self._batch_at = self._filled
            self._base_ns = timestamp_ns
            _put32(view, self._filled, _ANSWERS << 24)
            _put32(view, self._filled + 4, timestamp_ns >> 32)
            _put32(view, self._filled + 8, timestamp_ns)
            self._filled += _ANSWERS_HEADER
        at = self._filled
        self._filled += size
        self._packed += needed
        length = self._filled - self._batch_at - _FRAME_HEADER
        view[self._batch_at + 2] = cython.cast(cython.uchar, (length >> 8) & 0xFF)
        view[self._batch_at + 3] = cython.cast(cython.uchar, length & 0xFF)
        return at
