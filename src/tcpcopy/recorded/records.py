"""Reads the packets of one capture file, in constant memory: what both formats have in common.

A reader holds a window of the file, parses records in place and lends the packets out of it. It
never raises on what a file contains: damage ends the file with a text in `problem`, and what
stood before it has been used.

Source: draft-ietf-opsawg-pcap; the pcap formats that libpcap reads.
"""

from __future__ import annotations

from typing import Any, Literal

from tcpcopy.packet import frame as found_in
from tcpcopy.packet.handler import PacketHandler
from tcpcopy.packet.links import network_offset
from tcpcopy.packet.unwrap import Unwrapper

READY = 1  # an IP packet can be handed on
ENDED = 0
NOT_YET = 2  # the pipe has nothing at the moment

_READY = READY
_ENDED = ENDED
_NOT_YET = NOT_YET
_PACKET = 1  # what `parse` says: a packet was found
_END = 0  # nothing more can be read
_MORE = 2  # `need` bytes from `position` on are wanted

_NOT_IP = found_in.NOT_IP
_SHORT = found_in.SHORT
_MOST_RECORD = 1 << 20  # bytes of the longest packet believed; libpcap's limit is a quarter of it
_SECOND_NS = 1_000_000_000
_MOST_UNITS = 4_000_000_000  # a fraction of a second times 10**9 still fits in 63 bits


class Interface:
    """One interface of a capture: how its packets are to be read, and how many there were."""

    __slots__ = (
        "cut",  # packets of which not all bytes were captured
        "link_type",
        "name",  # "" if the file does not say
        "offset_s",  # seconds to be added to its timestamps
        "packets",
        "resolution",  # as in the file: 6 for 10**-6 s, 0x80 + 10 for 2**-10 s
        "snaplen",  # 0: no limit
        "units",  # of a timestamp in a second; 0: more than can be reckoned with in 64 bits
    )

    def __init__(self, link_type: int, snaplen: int, name: str = "") -> None:
        self.link_type = link_type
        self.snaplen = snaplen
        self.name = name
        self.offset_s = 0
        self.packets = 0
        self.cut = 0
        self.set_resolution(6)

    def set_resolution(self, resolution: int) -> None:
        """Take over the unit of the timestamps; `resolution` is that of pcapng's if_tsresol."""
        self.resolution = resolution
        ticks = self.ticks_a_second()
        self.units = ticks if ticks <= _MOST_UNITS else 0

    def ticks_a_second(self) -> Any:
        """How many units of a timestamp make a second."""
        power = self.resolution & 0x7F
        base: Any = 2 if self.resolution & 0x80 else 10
        return base**power


class RecordReader:
    """One open capture file. Subclasses say how a record looks."""

    __slots__ = (
        "capacity",  # bytes of the window
        "current",  # Interface of the packet
        "data_end",  # where the packet's captured bytes end
        "data_start",  # where its frame begins
        "filled",  # bytes of the window that are filled
        "first_ns",  # of the first packet; -1 before it
        "handed",  # records with IP in them
        "interfaces",  # all of the file
        "is_parsed",  # a packet was parsed that `advance` has not looked at
        "last_ns",  # the latest time of a packet
        "need",  # bytes wanted from `position` on, after _MORE
        "original",  # bytes of the frame on the wire
        "packets",  # records parsed
        "position",  # where the next record begins
        "problem",  # the damage that ended the file; "" if there was none
        "raw",  # RawSource: for bytes_read, fileno, close
        "skip_left",  # bytes to pass over before the next record
        "skipped_bad",  # packets that are damaged, the file around them is not
        "skipped_link",  # of a link type that cannot be read
        "skipped_not_ip",
        "skipped_short",
        "source",  # Source of the bytes
        "storage",  # the window
        "timestamp_ns",
        "unwrapper",  # finds the packet to hand on
        "view",  # the window, as it is lent
        "writable",
    )

    def __init__(
        self, raw: Any, source: Any, head: bytes, capacity: int, unwrapper: Unwrapper
    ) -> None:
        """`head` are the bytes that were read from `source` already."""
        self.raw = raw
        self.source = source
        self.capacity = capacity
        self.storage = bytearray(capacity)
        self.writable = memoryview(self.storage)
        self.view = self.storage
        self.writable[: len(head)] = head
        self.filled = len(head)
        self.position = 0
        self.need = 0
        self.skip_left = 0
        self.is_parsed = False
        self.unwrapper = unwrapper
        self.problem = ""
        self.current = Interface(0, 0)  # none yet
        self.interfaces: list[Interface] = []
        self.data_start = self.data_end = 0
        self.original = 0
        self.timestamp_ns = 0
        self.first_ns = self.last_ns = -1
        self.packets = self.handed = 0
        self.skipped_bad = self.skipped_link = self.skipped_not_ip = self.skipped_short = 0

    def parse(self) -> int:
        """Parse the record at `position`: _PACKET, _END or _MORE (and `need`)."""
        raise NotImplementedError

    def is_between_records(self) -> bool:
        """Whether the file may end here, all that was filled being used."""
        return self.skip_left == 0

    def advance(self, wait: bool) -> int:
        """Go to the next IP packet: READY, ENDED, or NOT_YET unless `wait`."""
        while True:
            status = self.next_record(wait)
            if status != _READY:
                return status
            self.is_parsed = False
            if self._find_packet():
                return _READY

    def next_record(self, wait: bool) -> int:
        """Go to the next record, whatever it carries; stays there until `advance`."""
        while not self.is_parsed:
            status = self.parse()
            if status == _PACKET:
                self._count()
                self.is_parsed = True
            elif status == _END:
                return _ENDED
            else:
                status = self._fill(wait)
                if status != _READY:
                    return status
        return _READY

    def hand_on(self, handler: PacketHandler) -> int:
        """Give the packet to `handler`; what that returned."""
        found = self.unwrapper
        network = found.frame.network
        if network:
            handler.enter(network)
        if found.whole is None:
            result = handler.packet(
                self.view, found.start, found.end, found.wire_length, self.timestamp_ns
            )
        else:
            result = handler.packet(
                found.whole, found.start, found.end, found.wire_length, self.timestamp_ns
            )
        if network:
            handler.enter(0)
        return result

    def close(self) -> None:
        """Close the file. Fragments that wait for the rest may have it in the file after this."""
        self.raw.close()

    def damage(self, what: str) -> int:
        """End the file here: _END."""
        if not self.problem:
            self.problem = what
        self.filled = self.position
        return _END

    def _count(self) -> None:
        captured = self.data_end - self.data_start
        if self.original < captured:
            self.original = captured  # some writers leave it zero
        self.packets += 1
        self.current.packets += 1
        if captured < self.original:
            self.current.cut += 1
        if self.first_ns < 0:
            self.first_ns = self.timestamp_ns
        if self.timestamp_ns > self.last_ns:
            self.last_ns = self.timestamp_ns

    def _find_packet(self) -> bool:
        found = self.unwrapper
        found.begin(0)
        start = network_offset(
            self.view, self.data_start, self.data_end, self.current.link_type, found.frame
        )
        if start < 0:
            found.note_unread()
            if start == _NOT_IP:
                self.skipped_not_ip += 1
            elif start == _SHORT:
                self.skipped_short += 1
            else:
                self.skipped_link += 1
            return False
        self.handed += 1
        wire_length = self.original - (start - self.data_start)
        return found.take(self.view, start, self.data_end, wire_length, self.timestamp_ns)

    def _fill(self, wait: bool) -> int:
        """Read on, until something came: _READY, _ENDED or _NOT_YET."""
        if self.problem:
            return _ENDED
        if not wait and not self.raw.has_bytes():
            return _NOT_YET
        left = self.filled - self.position
        if self.position:
            self.writable[:left] = self.writable[self.position : self.filled]
            self.position = 0
            self.filled = left
        if self.need > self.capacity:
            self._grow()
        count = self.source.readinto(self.writable[left : self.capacity])
        if count > 0:
            self.filled += count
            return _READY
        if self.source.problem:
            self.problem = f"{self.source.problem}, {self._used()}"
        elif left or not self.is_between_records():
            self.problem = f"cut off in packet {self.packets + 1}, {self._used()}"
        return _ENDED

    def _grow(self) -> None:
        """A larger window; records are bounded, so it is, too."""
        self.capacity = self.need
        storage = bytearray(self.capacity)
        storage[: self.filled] = self.storage[: self.filled]
        self.storage = storage
        self.writable = memoryview(storage)
        self.view = storage

    def _used(self) -> str:
        return f"{self.packets} packet{'' if self.packets == 1 else 's'} used"


class PcapReader(RecordReader):
    """The format that tcpdump writes, in either byte order, with micro- or nanoseconds."""

    __slots__ = ("fraction_ns", "is_big", "record_header", "swaps_lengths")

    def __init__(
        self, raw: Any, source: Any, head: bytes, capacity: int, unwrapper: Unwrapper
    ) -> None:
        """`head` begins with the 24 bytes of the file's header. Raises: ValueError."""
        RecordReader.__init__(self, raw, source, head, capacity, unwrapper)
        magic = head[:4]
        self.is_big = magic[0] == 0xA1
        order: Literal["big", "little"] = "big" if self.is_big else "little"
        number = int.from_bytes(magic, order)
        if number not in (0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34):
            raise ValueError(magic)
        self.fraction_ns = 1 if number == 0xA1B23C4D else 1000
        # A variant of Linux 2.x days has 8 more bytes in front of each packet, as libpcap knows.
        self.record_header = 24 if number == 0xA1B2CD34 else 16
        major = int.from_bytes(head[4:6], order)
        minor = int.from_bytes(head[6:8], order)
        # Versions before 2.3 had the two lengths the other way round (libpcap, sf-pcap.c).
        self.swaps_lengths = (major == 2 and minor < 3) or major == 543
        snaplen = int.from_bytes(head[16:20], order)
        self.current = Interface(int.from_bytes(head[20:24], order) & 0xFFFF, snaplen)
        self.interfaces.append(self.current)
        self.position = 24

    def parse(self) -> int:
        """As `RecordReader.parse`."""
        at = self.position
        left = self.filled - at
        if left < self.record_header:
            self.need = self.record_header
            return _MORE
        included = read32(self.view, at + 8, self.is_big)
        original = read32(self.view, at + 12, self.is_big)
        if self.swaps_lengths and included > original:
            included, original = original, included
        if included > _MOST_RECORD:
            return self.damage(
                f"damaged in packet {self.packets + 1} (a length of {included}), {self._used()}"
            )
        size = self.record_header + included
        if left < size:
            self.need = size
            return _MORE
        self.timestamp_ns = (
            read32(self.view, at, self.is_big) * _SECOND_NS
            + read32(self.view, at + 4, self.is_big) * self.fraction_ns
        )
        self.data_start = at + self.record_header
        self.data_end = self.position = at + size
        self.original = original
        return _PACKET


def read32(data: Any, at: int, is_big: bool) -> int:
    """A 32-bit number in the byte order of the file."""
    if is_big:
        high = (data[at] << 8) | data[at + 1]
        low = (data[at + 2] << 8) | data[at + 3]
    else:
        high = (data[at + 3] << 8) | data[at + 2]
        low = (data[at + 1] << 8) | data[at]
    number: int = (high << 16) | low
    return number
