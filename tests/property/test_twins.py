"""Checksums judged, and packets seen twice: whatever is in them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.packet.checksum import RIGHT, UNFILLED, WRONG, Sums, judge
from tcpcopy.packet.segment import Segment, parse, parse_udp
from tcpcopy.packet.twins import WINDOW_NS, DatagramTwins, Twins
from tests.lab import capture_files as make

ENDS = st.sampled_from(
    (("198.51.100.7:40000", "10.0.0.1:80"), ("[2001:db8::7]:40000", "[2001:db8::1]:80"))
)


def _parsed(packet: bytes) -> Segment:
    segment = Segment()
    assert parse(segment, packet, 0, len(packet), len(packet)) == 0
    return segment


@given(ENDS, st.binary(max_size=70), st.data())
def test_a_wrong_bit_is_a_wrong_checksum(
    ends: tuple[str, str], payload: bytes, data: st.DataObject
) -> None:
    packet = bytearray(make.tcp(*ends, make.ACK, payload, seq=7))
    segment = _parsed(bytes(packet))
    field = segment.header_offset + 16
    packet[field : field + 2] = b"\0\0"
    assert judge(segment, bytes(packet)) in (UNFILLED, RIGHT)
    total = sum(
        packet[at] << (8 if (at - segment.header_offset) % 2 == 0 else 0)
        for at in range(segment.header_offset, len(packet))
    )
    pseudo = sum(
        packet[segment.address_offset + at] << (8 if at % 2 == 0 else 0)
        for at in range(2 * segment.address_size)
    )
    pseudo += 6 + len(packet) - segment.header_offset

    def folded(number: int) -> int:
        while number >> 16:
            number = (number & 0xFFFF) + (number >> 16)
        return number

    packet[field : field + 2] = folded(pseudo).to_bytes(2, "big")
    assert judge(segment, bytes(packet)) in (UNFILLED, RIGHT)
    packet[field : field + 2] = (folded(pseudo + total) ^ 0xFFFF).to_bytes(2, "big")
    assert judge(segment, bytes(packet)) == RIGHT
    at = data.draw(st.integers(segment.header_offset, len(packet) - 1))
    packet[at] ^= 1 << data.draw(st.integers(0, 7))
    assert judge(segment, bytes(packet)) != RIGHT


@given(st.lists(st.sampled_from((RIGHT, UNFILLED, WRONG)), max_size=80))
def test_a_capture_whose_sums_are_wrong_is_not_judged(found: list[int]) -> None:
    sums = Sums()
    dropped = sum(sums.is_wrong(one, True, 100) for one in found)
    assert dropped <= found.count(WRONG)
    assert dropped <= (found.count(RIGHT) + 4) // 4
    assert not any(Sums().is_wrong(one, False, 100) for one in found)


def _again(packet: bytes, hops: int, destination: bytes) -> bytes:
    """An IPv4 packet on its way on: another destination, a lower time to live."""
    return packet[:8] + bytes((hops,)) + packet[9:16] + destination + packet[20:]


@given(st.integers(0, 0xFFFF_FFFF), st.integers(1, 0xFFFF))
def test_a_connection_is_seen_twice_only_by_its_numbers(seq: int, number: int) -> None:
    syn = bytearray(make.tcp("198.51.100.7:40000", "10.0.0.1:80", make.SYN, seq=seq))
    syn[4:6] = number.to_bytes(2, "big")
    twins = Twins()
    assert not twins.is_seen(_parsed(bytes(syn)), bytes(syn))
    assert not twins.is_seen(_parsed(bytes(syn)), bytes(syn))  # sent again
    further = _again(bytes(syn), syn[8] - 1, b"\x0a\x09\x09\x09")
    assert twins.is_seen(_parsed(further), further)
    equal = _again(bytes(syn), syn[8], b"\x0a\x09\x09\x09")
    assert not twins.is_seen(_parsed(equal), equal)  # another server, asked directly
    other = bytearray(further)
    other[24:28] = ((seq + 1) & 0xFFFF_FFFF).to_bytes(4, "big")
    assert not twins.is_seen(_parsed(bytes(other)), bytes(other))


@given(st.binary(max_size=40), st.integers(0, 0xFFFF), st.integers(0, 3 * WINDOW_NS))
def test_a_datagram_is_seen_twice_only_by_its_number(
    payload: bytes, number: int, later_ns: int
) -> None:
    packet = bytearray(make.udp("198.51.100.7:40000", "10.0.0.1:53", payload))
    packet[4:6] = number.to_bytes(2, "big")
    data = bytes(packet)
    segment = Segment()
    assert parse_udp(segment, data, 0, len(data), len(data)) == 0
    twins = DatagramTwins()
    assert not twins.is_seen(segment, data, 10**18)
    seen = twins.is_seen(segment, data, 10**18 + later_ns)
    if number == 0 or later_ns > 2 * WINDOW_NS:
        assert not seen
    elif later_ns <= WINDOW_NS:
        assert seen
