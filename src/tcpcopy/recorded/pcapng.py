"""The pcapng format: sections of either byte order, interfaces with clocks of their own.

Blocks that carry no packets are passed over without being held, however long they are.

Source: draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

from typing import Any, Literal

from tcpcopy.packet.unwrap import Unwrapper
from tcpcopy.recorded.records import Interface, RecordReader, read32

SECTION_MAGIC = b"\x0a\x0d\x0d\x0a"

_PACKET = 1  # as in records.py
_END = 0
_MORE = 2
_MOST_RECORD = 1 << 20
_SECOND_NS = 1_000_000_000
_MOST_SECONDS = 9_000_000_000  # as many nanoseconds fit in 63 bits
_MOST_HIGH = 0x3FFFFFFF  # upper half of a timestamp: the whole stays within 63 bits
_HALF_RANGE: Any = 2**32  # an object, as what is reckoned with it
_MOST_INTERFACES = 65536
_MOST_OPTIONS = 65536  # bytes of an interface's options that are looked at

_SECTION = 0x0A0D0D0A
_INTERFACE = 1
_OLD_PACKET = 2
_SIMPLE_PACKET = 3
_ENHANCED_PACKET = 6
_IF_NAME = 2
_IF_TSRESOL = 9
_IF_TSOFFSET = 14


class PcapngReader(RecordReader):
    """The format that Wireshark and its tools write."""

    __slots__ = (
        "in_section",  # a section header was seen
        "is_big",
        "known",  # interfaces of this section
        "trailer",  # length that the block passed must end with; 0: none is due
    )

    def __init__(
        self, raw: Any, source: Any, head: bytes, capacity: int, unwrapper: Unwrapper
    ) -> None:
        RecordReader.__init__(self, raw, source, head, capacity, unwrapper)
        self.is_big = False
        self.in_section = False
        self.known: list[Interface] = []
        self.trailer = 0

    def is_between_records(self) -> bool:
        """As `RecordReader.is_between_records`."""
        return self.skip_left == 0 and self.trailer == 0

    def parse(self) -> int:
        """As `RecordReader.parse`; one block after the other until a packet comes."""
        while True:
            status = self._pass_rest()
            if status == _MORE:
                return _MORE
            if status == _END:
                return _END
            at = self.position
            left = self.filled - at
            if left < 12:
                self.need = 12
                return _MORE
            kind = read32(self.view, at, self.is_big)
            if kind == _SECTION:  # the same in either byte order
                status = self._section(at)
            elif not self.in_section:
                return self.damage("not a pcapng file")
            else:
                status = self._block(kind, at, left)
            if status != _PACKET or self.data_end > 0:
                return status

    def _pass_rest(self) -> int:
        """Go past what is left of the block before; _PACKET when that is done."""
        while self.skip_left > 0:
            left = self.filled - self.position
            if left == 0:
                self.need = 1
                return _MORE
            if left > self.skip_left:
                left = self.skip_left
            self.position += left
            self.skip_left -= left
        if self.trailer:
            if self.filled - self.position < 4:
                self.need = 4
                return _MORE
            length = read32(self.view, self.position, self.is_big)
            if length != self.trailer:
                return self.damage(
                    f"damaged behind packet {self.packets} (a block of {self.trailer} bytes ends"
                    f" as one of {length}), {self._used()}"
                )
            self.position += 4
            self.trailer = 0
        self.data_end = 0
        return _PACKET

    def _leave(self, at: int, used: int, length: int) -> None:
        """Of a block of `length` bytes at `at`, `used` have been read."""
        self.position = at + used
        self.skip_left = length - used - 4
        self.trailer = length

    def _bad_length(self, length: int) -> int:
        return self.damage(
            f"damaged behind packet {self.packets} (a block of {length} bytes), {self._used()}"
        )

    def _section(self, at: int) -> int:
        order = read32(self.view, at + 8, False)
        if order == 0x1A2B3C4D:
            self.is_big = False
        elif read32(self.view, at + 8, True) == 0x1A2B3C4D:
            self.is_big = True
        else:
            return self.damage(
                f"damaged behind packet {self.packets} (a section of no byte order), {self._used()}"
            )
        length = read32(self.view, at + 4, self.is_big)
        if length < 28 or length & 3:
            return self._bad_length(length)
        self.in_section = True
        self.known = []
        self._leave(at, 12, length)
        return _PACKET

    def _block(self, kind: int, at: int, left: int) -> int:
        length = read32(self.view, at + 4, self.is_big)
        if length < 12 or length & 3:
            return self._bad_length(length)
        if kind in (_ENHANCED_PACKET, _OLD_PACKET):
            if length < 32:
                return self._bad_length(length)
            return self._timed_packet(kind, at, left, length)
        if kind == _SIMPLE_PACKET:
            if length < 16:
                return self._bad_length(length)
            return self._simple_packet(at, left, length)
        if kind == _INTERFACE:
            if length < 20:
                return self._bad_length(length)
            wanted = min(length - 4, _MOST_OPTIONS)
            if left < wanted:
                self.need = wanted
                return _MORE
            self._interface(at, wanted)
            self._leave(at, wanted, length)
            return _PACKET
        self._leave(at, 8, length)
        return _PACKET

    def _timed_packet(self, kind: int, at: int, left: int, length: int) -> int:
        """An enhanced packet block, or the packet block that came before it."""
        if left < 28:
            self.need = 28
            return _MORE
        if kind == _ENHANCED_PACKET:
            number = read32(self.view, at + 8, self.is_big)
        elif self.is_big:
            number = (self.view[at + 8] << 8) | self.view[at + 9]
        else:
            number = (self.view[at + 9] << 8) | self.view[at + 8]
        included = read32(self.view, at + 20, self.is_big)
        if included > length - 32 or included > _MOST_RECORD or number >= len(self.known):
            self.packets += 1
            self.skipped_bad += 1
            self._leave(at, 28, length)
            return _PACKET
        if left < 28 + included:
            self.need = 28 + included
            return _MORE
        self.current = self.known[number]
        self.original = read32(self.view, at + 24, self.is_big)
        self._time(read32(self.view, at + 12, self.is_big), read32(self.view, at + 16, self.is_big))
        self._found(at, 28, included, length)
        return _PACKET

    def _simple_packet(self, at: int, left: int, length: int) -> int:
        """A packet of the first interface, without a time: that of the packet before."""
        self.need = 12
        if left < 12:
            return _MORE
        original = read32(self.view, at + 8, self.is_big)
        included = min(length - 16, original)
        if self.known:
            first = self.known[0]
            if 0 < first.snaplen < included:
                included = first.snaplen
        if not self.known or included > _MOST_RECORD:
            self.packets += 1
            self.skipped_bad += 1
            self._leave(at, 12, length)
            return _PACKET
        if left < 12 + included:
            self.need = 12 + included
            return _MORE
        self.current = self.known[0]
        self.original = original
        self._found(at, 12, included, length)
        return _PACKET

    def _found(self, at: int, header: int, included: int, length: int) -> None:
        self.data_start = at + header
        self.data_end = self.data_start + included
        self._leave(at, header + included, length)

    def _time(self, high: int, low: int) -> int:
        units = self.current.units
        if units == 0 or high > _MOST_HIGH:
            self.timestamp_ns = _far_time(high, low, self.current)
            return 0
        ticks = (high << 32) | low
        seconds = ticks // units + self.current.offset_s
        if seconds < 0 or seconds > _MOST_SECONDS:
            self.timestamp_ns = _far_time(high, low, self.current)
            return 0
        self.timestamp_ns = seconds * _SECOND_NS + (ticks % units) * _SECOND_NS // units
        return 0

    def _interface(self, at: int, wanted: int) -> None:
        """Take in an interface description; `wanted` bytes of the block are there."""
        order: Literal["big", "little"] = "big" if self.is_big else "little"
        block = bytes(self.storage[at : at + wanted])
        link_type = int.from_bytes(block[8:10], order)
        interface = Interface(link_type, int.from_bytes(block[12:16], order))
        place = 16
        while place + 4 <= len(block):
            code = int.from_bytes(block[place : place + 2], order)
            size = int.from_bytes(block[place + 2 : place + 4], order)
            value = block[place + 4 : place + 4 + size]
            if code == 0 or len(value) < size:
                break
            if code == _IF_NAME:
                interface.name = value.decode("utf-8", "replace").rstrip("\0")
            elif code == _IF_TSRESOL and size == 1:
                interface.set_resolution(value[0])
            elif code == _IF_TSOFFSET and size == 8:
                offset_s = int.from_bytes(value, order, signed=True)
                interface.offset_s = max(-_MOST_SECONDS, min(offset_s, _MOST_SECONDS))
            place += 4 + (size + 3) // 4 * 4
        if len(self.known) < _MOST_INTERFACES:
            self.known.append(interface)
            if len(self.interfaces) < _MOST_INTERFACES:
                self.interfaces.append(interface)


def _far_time(high: int, low: int, interface: Interface) -> int:
    """Nanoseconds where 64 bits do not hold the numbers on the way; within what a time can be."""
    second: Any = _SECOND_NS
    ticks = high * _HALF_RANGE + low
    nanoseconds: int = ticks * second // interface.ticks_a_second() + interface.offset_s * second
    latest: int = _MOST_SECONDS * second
    return max(0, min(nanoseconds, latest))
