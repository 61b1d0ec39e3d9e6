"""A batch of packets to send: TCP segments and UDP datagrams written into one preallocated buffer.

The engine writes, a `PacketSink` (deliver/, or a test) takes the whole batch at once. Checksums
are computed in full: those of captured packets are not filled in under offload.

A sink that has a device cut segments says so by `largest`. A segment above the path's MSS then
takes one slot: its headers stand there, its payload is not copied but lent until the flush, and
the checksum is that of the pseudo header only, which the device goes on from. Each field of the
headers is what one segment of that length would have; the device derives those of the parts.

Source: RFC 791, RFC 8200 (4.5), RFC 768, RFC 1071, RFC 9293 (3.1), RFC 7323 (2.2, 3.2); for
cutting: virtio specification 1.2 (5.1.6.2), Linux segmentation-offloads.rst.
"""

from __future__ import annotations

from array import array
from typing import Any

import cython

_HEADROOM = 160  # IPv6 header 40 + TCP header 20 + 40 of options, and room to spare


class PacketSink:
    """Takes whole batches; the buffer is reused after the call."""

    __slots__ = ()

    def send_batch(self, batch: PacketBatch) -> None:
        """Send packets 0..batch.count-1; failures are counted by the sink, never raised."""
        raise NotImplementedError


class PacketBatch:
    """Slots of equal size in one buffer; flushes itself into its sink when full.

    Packet `i` stands at `i * slot_size`, `lengths[i]` bytes long. With `sizes[i]` above zero it is
    to be cut into segments of so many payload bytes, and `payloads[i]` goes on where it ends.
    """

    __slots__ = (
        "buffer",  # bytearray of capacity * slot_size bytes
        "capacity",  # slots
        "count",  # packets in the batch now; 0 after a flush
        "datagrams",  # UDP datagrams written, the identification of the last one
        "identification",  # IPv4 identification of the next packet
        "lent",  # whether `payloads` holds any
        "largest",  # payload bytes that one packet may have if it is cut later; 0: none is cut
        "lengths",  # array of capacity ints; without what `payloads` adds
        "payload_at",  # array of capacity ints: where in `payloads` the payload begins
        "payload_lengths",  # array of capacity ints: bytes that `payloads` adds
        "payloads",  # for each slot the bytes object that holds the payload of a packet to be cut
        "sink",
        "sizes",  # array of capacity ints: payload of each part; 0: the packet goes as it is
        "slot_size",
        "view",  # the buffer, typed
    )

    def __init__(self, sink: PacketSink, capacity: int = 64, mtu: int = 1500) -> None:
        self.sink = sink
        self.capacity = capacity
        self.slot_size = mtu + _HEADROOM
        self.buffer = bytearray(self.capacity * self.slot_size)
        self.view = memoryview(self.buffer)
        self.lengths = array("i", bytes(4 * capacity))
        self.sizes = array("i", bytes(4 * capacity))
        self.payload_at = array("i", bytes(4 * capacity))
        self.payload_lengths = array("i", bytes(4 * capacity))
        self.payloads: list[bytes | None] = [None] * capacity
        self.lent = 0
        self.largest = 0
        self.count = 0
        self.datagrams = 0
        self.identification = 1

    def flush(self) -> None:
        """Hand what is in the batch to the sink, if anything."""
        if self.count > 0:
            self.sink.send_batch(self)
            self.count = 0
            if self.lent:
                self.lent = 0
                self.payloads = [None] * self.capacity

    def part_size(self, index: int) -> int:
        """Payload bytes of each part that packet `index` is to be cut into; 0: it is whole."""
        return self.sizes[index]

    def packet(self, index: int) -> bytes:
        """A copy of packet `index`, for tests and traces."""
        at = index * self.slot_size
        head = bytes(self.buffer[at : at + self.lengths[index]])
        payload = self.payloads[index]
        if not self.sizes[index] or payload is None:
            return head
        start = self.payload_at[index]
        return head + payload[start : start + self.payload_lengths[index]]

    def tcp(
        self,
        source: bytes,
        source_port: int,
        destination: bytes,
        destination_port: int,
        seq: int,
        ack: int,
        flags: int,
        window: int,
        timestamp_present: int,
        timestamp_value: int,
        timestamp_echo: int,
        options: bytes,
        payload: bytes,
        payload_at: int,
        payload_length: int,
        segment_size: int = 0,
    ) -> None:
        """Append one TCP segment with `payload[payload_at : payload_at + payload_length]`.

        `options` is padded to a multiple of four already; with `timestamp_present` the timestamps
        option (12 bytes with its padding) goes before it. `payload_length` must fit the MTU, or
        be at most `largest` with a `segment_size`: the payload bytes of each part it is cut into.
        """
        if self.count == self.capacity:
            self.flush()
        start = self.count * self.slot_size
        address_size = len(source)
        header = 20 if address_size == 4 else 40
        at = start + header
        view = self.view
        options_length = len(options)
        tcp_header = 20 + options_length + (12 if timestamp_present else 0)
        tcp_length = tcp_header + payload_length
        _put16(view, at, source_port)
        _put16(view, at + 2, destination_port)
        _put32(view, at + 4, seq)
        _put32(view, at + 8, ack)
        _put16(view, at + 12, (tcp_header >> 2) << 12 | flags)
        _put16(view, at + 14, window)
        _put32(view, at + 16, 0)  # checksum, urgent pointer
        write = at + 20
        if timestamp_present:
            _put_timestamps(view, write, timestamp_value, timestamp_echo)
            write += 12
        if options_length:
            _put_bytes(view, write, options, 0, options_length)
            write += options_length
        self._put_payload(write, payload, payload_at, payload_length, segment_size)
        self.lengths[self.count] = cython.cast(
            cython.int, header + (tcp_header if segment_size else tcp_length)
        )
        if address_size == 4:
            _put_ipv4(view, start, 20 + tcp_length, self.identification, source, destination)
            parts = (payload_length + segment_size - 1) // segment_size if segment_size else 1
            self.identification = (self.identification + parts) & 0xFFFF
            total = checksum_add(view, start + 12, 8, 6 + tcp_length)
        else:
            _put_ipv6(view, start, tcp_length, source, destination)
            total = checksum_add(view, start + 8, 32, 6 + tcp_length)
        if segment_size:
            _put16(view, at + 16, checksum_fold(total) ^ 0xFFFF)
        else:
            _put16(view, at + 16, checksum_fold(checksum_add(view, at, tcp_length, total)))
        self.count += 1

    def _put_payload(
        self, write: int, payload: bytes, payload_at: int, payload_length: int, segment_size: int
    ) -> None:
        """Copy the payload of the packet that is being written to `write`, or note that it is lent.

        Noted, it is kept alive.
        """
        self.sizes[self.count] = cython.cast(cython.int, segment_size)
        if segment_size:
            self.payloads[self.count] = payload
            self.payload_at[self.count] = cython.cast(cython.int, payload_at)
            self.payload_lengths[self.count] = cython.cast(cython.int, payload_length)
            self.lent = 1
        elif payload_length:
            _put_bytes(self.view, write, payload, payload_at, payload_length)

    def udp(
        self,
        source: bytes,
        source_port: int,
        destination: bytes,
        destination_port: int,
        data: Any,
        at: int,
        length: int,
        mtu: int,
    ) -> int:
        """Append one UDP datagram with `data[at : at + length]`; how many packets it became.

        It is cut into fragments where it does not fit the MTU (no more than that of the batch).
        The caller has seen to it that there is room (`datagram_packets`).
        """
        self.datagrams += 1
        if self.datagrams & 0xFFFF == 0:
            self.datagrams += 1  # the kernel fills in an IPv4 identification of 0 by itself
        address_size = len(source)
        header = 20 if address_size == 4 else 40
        udp_length = 8 + length
        whole = header + udp_length <= mtu
        room = udp_length if whole else _fragment_bytes(address_size, mtu)
        done = 0  # bytes of UDP header and payload written
        packets = 0
        view = self.view
        while done < udp_length:
            piece = min(room, udp_length - done)
            start = self.count * self.slot_size
            write = start + header
            if not whole and address_size == 16:
                _put_ipv6_fragment(view, write, done, done + piece < udp_length, self.datagrams)
                write += 8
            begin = write
            skip = 0
            if done == 0:
                _put16(view, write, source_port)
                _put16(view, write + 2, destination_port)
                _put16(view, write + 4, udp_length)
                _put16(view, write + 6, 0)
                skip = 8
            if piece > skip:
                _put_data(view, write + skip, data, at + done + skip - 8, piece - skip)
            if address_size == 4:
                flags = 0 if done + piece == udp_length else 0x2000
                _put_ipv4(view, start, write - start + piece, 0, source, destination)
                _set_ipv4_udp(view, start, self.datagrams, flags | (done >> 3))
            else:
                _put_ipv6(view, start, write - start - 40 + piece, source, destination)
                view[start + 6] = 17 if whole else 44
            if done == 0:
                total = _pseudo_header(view, start, address_size, udp_length)
                total = checksum_add(view, begin, 8, total)
                total = checksum_add(data, at, length, total) if length else total
                checksum = checksum_fold(total)
                # RFC 768: a sum of 0 goes as its other form, 0 means "not computed".
                _put16(view, begin + 6, checksum if checksum else 0xFFFF)
            self.lengths[self.count] = cython.cast(cython.int, write - start + piece)
            self.count += 1
            packets += 1
            done += piece
        return packets


def datagram_packets(address_size: int, length: int, mtu: int) -> int:
    """How many packets `PacketBatch.udp` makes of a payload of `length` bytes."""
    header = 20 if address_size == 4 else 40
    if header + 8 + length <= mtu:
        return 1
    room = _fragment_bytes(address_size, mtu)
    return (8 + length + room - 1) // room


def _fragment_bytes(address_size: int, mtu: int) -> int:
    """What a fragment carries at most; a multiple of eight."""
    return (mtu - (20 if address_size == 4 else 48)) >> 3 << 3


def _pseudo_header(view: Any, start: int, address_size: int, udp_length: int) -> int:
    """Sum of the addresses of the IP header at `start`, the protocol and the length."""
    if address_size == 4:
        return checksum_add(view, start + 12, 8, 17 + udp_length)
    return checksum_add(view, start + 8, 32, 17 + udp_length)


def _set_ipv4_udp(view: Any, at: int, identification: int, fragment: int) -> None:
    """Make the IPv4 header at `at` one of UDP; routers on the way may cut it."""
    _put16(view, at + 4, identification)
    _put16(view, at + 6, fragment)
    view[at + 9] = 17
    _put16(view, at + 10, 0)
    _put16(view, at + 10, checksum_fold(checksum_add(view, at, 20, 0)))


def _put_ipv6_fragment(view: Any, at: int, offset: int, more: int, identification: int) -> None:
    view[at] = 17
    view[at + 1] = 0
    _put16(view, at + 2, offset | (1 if more else 0))  # the offset counts eights, from bit 3 up
    _put32(view, at + 4, identification)


def _put_data(view: Any, at: int, data: Any, data_at: int, length: int) -> None:
    if cython.compiled:
        memcpy(  # type: ignore[name-defined]  # noqa: F821
            cython.address(view[at]), cython.address(data[data_at]), length
        )
    else:
        view[at : at + length] = data[data_at : data_at + length]


def _put16(view: Any, at: int, value: int) -> None:
    view[at] = cython.cast(cython.uchar, (value >> 8) & 0xFF)
    view[at + 1] = cython.cast(cython.uchar, value & 0xFF)


def _put32(view: Any, at: int, value: int) -> None:
    view[at] = cython.cast(cython.uchar, (value >> 24) & 0xFF)
    view[at + 1] = cython.cast(cython.uchar, (value >> 16) & 0xFF)
    view[at + 2] = cython.cast(cython.uchar, (value >> 8) & 0xFF)
    view[at + 3] = cython.cast(cython.uchar, value & 0xFF)


def _put_timestamps(view: Any, at: int, value: int, echo: int) -> None:
    _put32(view, at, 0x0101080A)  # two bytes of padding, kind, length
    _put32(view, at + 4, value)
    _put32(view, at + 8, echo)


def _put_bytes(view: Any, at: int, source: bytes, source_at: int, length: int) -> None:
    if cython.compiled:
        memcpy(  # type: ignore[name-defined]  # noqa: F821
            cython.address(view[at]), cython.cast("const char*", source) + source_at, length
        )
    else:
        view[at : at + length] = source[source_at : source_at + length]


def _put_ipv4(
    view: Any, at: int, total_length: int, identification: int, source: bytes, destination: bytes
) -> None:
    view[at] = 0x45
    view[at + 1] = 0
    _put16(view, at + 2, total_length)
    _put16(view, at + 4, identification)
    _put16(view, at + 6, 0x4000)  # do not fragment
    view[at + 8] = 64
    view[at + 9] = 6
    _put16(view, at + 10, 0)
    _put_bytes(view, at + 12, source, 0, 4)
    _put_bytes(view, at + 16, destination, 0, 4)
    _put16(view, at + 10, checksum_fold(checksum_add(view, at, 20, 0)))


def _put_ipv6(view: Any, at: int, length: int, source: bytes, destination: bytes) -> None:
    _put16(view, at, 0x6000)
    _put16(view, at + 2, 0)
    _put16(view, at + 4, length)
    view[at + 6] = 6
    view[at + 7] = 64
    _put_bytes(view, at + 8, source, 0, 16)
    _put_bytes(view, at + 24, destination, 0, 16)


def checksum_add(view: Any, at: int, length: int, total: int) -> int:
    """Add `length` bytes at `view[at]` to a running one's complement sum (RFC 1071)."""
    if cython.compiled:
        return _checksum_add_words(view, at, length, total)
    if length & 1:
        total += view[at + length - 1] << 8
        length -= 1
    words = memoryview(bytes(view[at : at + length])).cast("H")
    swapped = sum(words)
    # The machine is little-endian where it matters little: the sum may be byte-swapped as a whole.
    while swapped >> 16:
        swapped = (swapped & 0xFFFF) + (swapped >> 16)
    return total + (((swapped & 0xFF) << 8) | (swapped >> 8) if _LITTLE else swapped)


def _checksum_add_words(view: Any, at: int, length: int, total: int) -> int:
    """Compiled only: sums 32-bit words in machine order, then swaps once."""
    pointer = cython.cast("const unsigned char*", cython.address(view[at]))
    wide = 0
    word = 0
    half = 0
    left = length
    while left >= 4:
        memcpy(cython.address(word), pointer, 4)  # type: ignore[name-defined]  # noqa: F821
        wide += word
        pointer += 4
        left -= 4
    if left >= 2:
        memcpy(cython.address(half), pointer, 2)  # type: ignore[name-defined]  # noqa: F821
        wide += half
        pointer += 2
        left -= 2
    while wide >> 16:
        wide = (wide & 0xFFFF) + (wide >> 16)
    if _LITTLE:
        wide = ((wide & 0xFF) << 8) | (wide >> 8)
    if left:
        wide += cython.cast("unsigned int", pointer[0]) << 8
    total += cython.cast("long long", wide)
    return total


def checksum_fold(total: int) -> int:
    """The 16-bit complement of a running sum."""
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


_LITTLE = memoryview(b"\x01\x00").cast("H")[0] == 1
