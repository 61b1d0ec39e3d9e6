"""Parse one IPv4/IPv6 + TCP packet into a reusable `Segment`, without allocating.

Every read is bounds-checked against the bytes captured; lengths come from the IP header, so that
a packet of which only the headers were captured (relay records) still says how long it was.

Source: RFC 791, RFC 8200 (extension headers), RFC 4302 (AH), RFC 9293 (3.1), RFC 7323, RFC 2018.
"""

from __future__ import annotations

from typing import Any

import cython

from tcpcopy.packet import flags

_PARSED = flags.PARSED
_NOT_IP = flags.NOT_IP
_SHORT = flags.SHORT
_BAD_HEADER = flags.BAD_HEADER
_FRAGMENT = flags.FRAGMENT
_NOT_TCP = flags.NOT_TCP
_MAX_SACK_BLOCKS = 4
_TCP = 6
# What `Segment.multipath` says of an MPTCP option (RFC 8684, 3): its subtype, and one more.
MP_CAPABLE = 1
MP_JOIN = 2
_UDP = 17
_AUTHENTICATION = 51


class Segment:
    """One parsed TCP segment; offsets point into the buffer that was parsed."""

    __slots__ = (
        "ack",  # acknowledgement number, 32 bits
        "address_offset",  # where the source address starts; the destination follows it
        "address_size",  # 4 or 16
        "available",  # payload bytes that were captured, <= payload_length
        "destination_port",
        "flags",
        "header_offset",  # where the TCP header starts
        "mss",  # 0: option absent
        "multipath",  # subtype of the MPTCP option, and one more; 0: option absent
        "multipath_at",  # where that option starts
        "multipath_size",
        "options_end",  # end of the TCP options, cut to what was captured
        "payload_length",  # payload bytes on the wire
        "payload_offset",
        "sack_count",  # number of SACK blocks parsed, at most MAX_SACK_BLOCKS
        "sack_end_0",
        "sack_end_1",
        "sack_end_2",
        "sack_end_3",
        "sack_permitted",
        "sack_start_0",
        "sack_start_1",
        "sack_start_2",
        "sack_start_3",
        "seq",  # sequence number, 32 bits
        "source_port",
        "timestamp_echo",
        "timestamp_present",
        "timestamp_value",
        "window",  # as in the header, unscaled
        "window_scale",  # -1: option absent
    )

    def __init__(self) -> None:
        self.ack = 0
        self.address_offset = 0
        self.address_size = 4
        self.available = 0
        self.destination_port = 0
        self.flags = 0
        self.header_offset = 0
        self.options_end = 0
        self.payload_length = 0
        self.payload_offset = 0
        self.seq = 0
        self.source_port = 0
        self.window = 0
        self.clear_options()

    def clear_options(self) -> None:
        """Forget the options of the segment parsed before."""
        self.mss = 0
        self.multipath = 0
        self.multipath_at = self.multipath_size = 0
        self.window_scale = -1
        self.sack_permitted = 0
        self.sack_count = 0
        self.timestamp_present = 0
        self.timestamp_value = 0
        self.timestamp_echo = 0
        self.sack_start_0 = self.sack_start_1 = self.sack_start_2 = self.sack_start_3 = 0
        self.sack_end_0 = self.sack_end_1 = self.sack_end_2 = self.sack_end_3 = 0


def _read16(data: Any, at: int) -> int:
    number: int = (data[at] << 8) | data[at + 1]
    return number


def _read32(data: Any, at: int) -> int:
    high = (data[at] << 8) | data[at + 1]
    low = (data[at + 2] << 8) | data[at + 3]
    number: int = (high << 16) | low
    return number


def parse(segment: Segment, data: Any, start: int, end: int, wire_length: int) -> int:
    """Fill `segment` from the packet at `data[start:end]`; PARSED or the reason why not.

    `wire_length` is used where the IP header gives no length (segments merged beyond 64 KiB).
    Options are not looked at; call `parse_options` when they are wanted.
    """
    return _parse_ip(segment, data, start, end, wire_length, _TCP)


def parse_udp(segment: Segment, data: Any, start: int, end: int, wire_length: int) -> int:
    """As `parse`, for a UDP datagram: ports, addresses and payload; the other fields stay.

    What is not UDP gives NOT_TCP, "another protocol". Source: RFC 768, RFC 2675 (4).
    """
    return _parse_ip(segment, data, start, end, wire_length, _UDP)


def _parse_ip(
    segment: Segment, data: Any, start: int, end: int, wire_length: int, protocol: int
) -> int:
    if end - start < 20:
        return _SHORT
    version = data[start] >> 4
    if version == 4:
        return _parse_v4(segment, data, start, end, wire_length, protocol)
    if version == 6:
        return _parse_v6(segment, data, start, end, wire_length, protocol)
    return _NOT_IP


def _parse_v4(
    segment: Segment, data: Any, start: int, end: int, wire_length: int, protocol: int
) -> int:
    header = (data[start] & 15) * 4
    if header < 20 or end - start < header:
        return _BAD_HEADER
    if _read16(data, start + 6) & 0x3FFF:  # more fragments, or an offset
        return _FRAGMENT
    at = start + header
    following = data[start + 9]
    while following != protocol:
        if following != _AUTHENTICATION:
            return _NOT_TCP
        if end - at < 12:
            return _SHORT
        following = data[at]
        at += (data[at + 1] + 2) * 4  # which is at least 8, so that this ends
    total = _read16(data, start + 2)
    if total == 0:
        total = wire_length
    segment.address_offset = start + 12
    segment.address_size = 4
    if protocol == _UDP:
        return _parse_udp(segment, data, at, end, start + total)
    return _parse_tcp(segment, data, at, end, start + total)


def _parse_v6(
    segment: Segment, data: Any, start: int, end: int, wire_length: int, protocol: int
) -> int:
    if end - start < 40:
        return _SHORT
    total = _read16(data, start + 4)
    total = 40 + total if total else wire_length
    segment.address_offset = start + 8
    segment.address_size = 16
    following = data[start + 6]
    at = start + 40
    hops = 0
    while following != protocol:
        # Hop-by-hop, routing and destination options share one shape (RFC 8200, 4.2).
        if following == 44:
            if end - at < 8:
                return _SHORT
            if _read16(data, at + 2) & 0xFFF9:  # offset, or more fragments
                return _FRAGMENT
            following = data[at]
            at += 8
        elif following in (0, 43, 60):
            if end - at < 8:
                return _SHORT
            following = data[at]
            at += 8 + data[at + 1] * 8
        elif following == _AUTHENTICATION:
            if end - at < 12:
                return _SHORT
            following = data[at]
            at += (data[at + 1] + 2) * 4
        else:
            return _NOT_TCP
        hops += 1
        if hops > 8:
            return _BAD_HEADER
    if protocol == _UDP:
        return _parse_udp(segment, data, at, end, start + total)
    return _parse_tcp(segment, data, at, end, start + total)


def _parse_tcp(segment: Segment, data: Any, at: int, end: int, packet_end: int) -> int:
    if end - at < 20:
        return _SHORT
    header = (data[at + 12] >> 4) * 4
    if header < 20 or at + header > packet_end:
        return _BAD_HEADER
    segment.header_offset = at
    segment.source_port = _read16(data, at)
    segment.destination_port = _read16(data, at + 2)
    segment.seq = _read32(data, at + 4)
    segment.ack = _read32(data, at + 8)
    segment.flags = data[at + 13] & 0x3F
    segment.window = _read16(data, at + 14)
    segment.payload_offset = at + header
    segment.payload_length = packet_end - at - header
    segment.options_end = min(at + header, end)
    available = min(end, packet_end) - at - header
    segment.available = available if available > 0 else 0
    return _PARSED


def _parse_udp(segment: Segment, data: Any, at: int, end: int, packet_end: int) -> int:
    if end - at < 8:
        return _SHORT
    length = _read16(data, at + 4)
    if length == 0:
        length = packet_end - at  # longer than the field can say
    if length < 8 or at + length > packet_end:
        return _BAD_HEADER
    segment.header_offset = at
    segment.source_port = _read16(data, at)
    segment.destination_port = _read16(data, at + 2)
    segment.payload_offset = at + 8
    segment.payload_length = length - 8
    available = min(end, at + length) - at - 8
    segment.available = available if available > 0 else 0
    return _PARSED


def parse_options(segment: Segment, data: Any) -> None:
    """Read the TCP options of the segment that was parsed last; damaged ones are passed over."""
    segment.clear_options()
    at = segment.header_offset + 20
    end = segment.options_end
    while at < end:
        kind = data[at]
        if kind == 0:
            return
        if kind == 1:
            at += 1
            continue
        if at + 1 >= end:
            return
        size = data[at + 1]
        if size < 2 or at + size > end:
            return
        if kind == 8 and size == 10:
            segment.timestamp_present = 1
            segment.timestamp_value = _read32(data, at + 2)
            segment.timestamp_echo = _read32(data, at + 6)
        elif kind == 2 and size == 4:
            segment.mss = _read16(data, at + 2)
        elif kind == 3 and size == 3:
            segment.window_scale = cython.cast(cython.int, min(data[at + 2], 14))  # RFC 7323 (2.3)
        elif kind == 4 and size == 2:
            segment.sack_permitted = 1
        elif kind == 5:
            _parse_sack(segment, data, at, size)
        elif kind == 30 and size >= 3 and segment.multipath == 0:
            segment.multipath = 1 + (data[at + 2] >> 4)
            segment.multipath_at = at
            segment.multipath_size = cython.cast(cython.int, size)
        at += size


def _parse_sack(segment: Segment, data: Any, at: int, size: int) -> None:
    count = (size - 2) // 8
    segment.sack_count = cython.cast(cython.int, min(count, _MAX_SACK_BLOCKS))
    if count > 0:
        segment.sack_start_0 = _read32(data, at + 2)
        segment.sack_end_0 = _read32(data, at + 6)
    if count > 1:
        segment.sack_start_1 = _read32(data, at + 10)
        segment.sack_end_1 = _read32(data, at + 14)
    if count > 2:
        segment.sack_start_2 = _read32(data, at + 18)
        segment.sack_end_2 = _read32(data, at + 22)
    if count > 3:
        segment.sack_start_3 = _read32(data, at + 26)
        segment.sack_end_3 = _read32(data, at + 30)


def copy_bytes(data: Any, at: int, size: int) -> bytes:
    """A bytes object of `size` bytes from `data[at]`; the caller has checked the bounds."""
    if cython.compiled:
        return PyBytes_FromStringAndSize(  # type: ignore[name-defined,no-any-return]  # noqa: F821
            cython.cast("const char*", cython.address(data[at])), size
        )
    return bytes(data[at : at + size])


def flow_key(segment: Segment, data: Any) -> bytes:
    """Source and destination address, source and destination port: 12 or 36 bytes."""
    size = 2 * segment.address_size
    if segment.header_offset == segment.address_offset + size:
        return copy_bytes(data, segment.address_offset, size + 4)  # no IP options between
    return copy_bytes(data, segment.address_offset, size) + copy_bytes(
        data, segment.header_offset, 4
    )


def source_address(segment: Segment, data: Any) -> bytes:
    """The source address, 4 or 16 bytes in network order."""
    return copy_bytes(data, segment.address_offset, segment.address_size)


def destination_address(segment: Segment, data: Any) -> bytes:
    """The destination address, 4 or 16 bytes in network order."""
    return copy_bytes(data, segment.address_offset + segment.address_size, segment.address_size)


def payload(segment: Segment, data: Any, skip: int) -> bytes:
    """The captured payload bytes from `skip` on; b"" when nothing is left."""
    if segment.available <= skip:
        return b""
    return copy_bytes(data, segment.payload_offset + skip, segment.available - skip)


def payload_start(segment: Segment, data: Any, skip: int, most: int) -> bytes:
    """The captured payload bytes from `skip` on, `most` of them at most."""
    size = segment.available - skip
    if size <= 0:
        return b""
    return copy_bytes(data, segment.payload_offset + skip, min(size, most))
