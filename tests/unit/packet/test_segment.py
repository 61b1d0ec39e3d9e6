"""Parsing: every field of good packets, and the reason why a bad one is none."""

from __future__ import annotations

import pytest

from tcpcopy.packet import flags
from tcpcopy.packet.segment import (
    Segment,
    copy_bytes,
    destination_address,
    flow_key,
    parse,
    parse_options,
    payload,
    source_address,
)
from tests.unit.packet import raw
from tests.unit.packet.raw import (
    DESTINATION,
    DESTINATION6,
    SOURCE,
    SOURCE6,
    ipv4,
    ipv6,
    tcp,
)

PORTS = raw.SOURCE_PORT.to_bytes(2, "big") + raw.DESTINATION_PORT.to_bytes(2, "big")


def parsed(packet: bytes, *, before: bytes = b"", after: bytes = b"") -> tuple[Segment, bytes]:
    """The segment of a good packet that stands anywhere in a buffer, and the buffer."""
    segment = Segment()
    buffer = before + packet + after
    assert parse(segment, buffer, len(before), len(before) + len(packet), len(packet)) == 0
    return segment, buffer


def result(packet: bytes, wire_length: int | None = None) -> int:
    """What the parser says of a packet."""
    length = len(packet) if wire_length is None else wire_length
    return parse(Segment(), packet, 0, len(packet), length)


# --- good packets --------------------------------------------------------------------------


@pytest.mark.parametrize("before", [b"", b"\xff" * 14, b"\x45" * 33])
@pytest.mark.parametrize("after", [b"", b"\xff" * 9])
def test_fields_of_ipv4(before: bytes, after: bytes) -> None:
    segment, buffer = parsed(ipv4(tcp(b"hello")), before=before, after=after)
    assert (segment.source_port, segment.destination_port) == (54321, 443)
    assert (segment.seq, segment.ack) == (raw.SEQ, raw.ACK)
    assert (segment.flags, segment.window) == (0x18, raw.WINDOW)
    assert (segment.payload_length, segment.available) == (5, 5)
    assert payload(segment, buffer, 0) == b"hello"
    assert source_address(segment, buffer) == SOURCE
    assert destination_address(segment, buffer) == DESTINATION
    assert flow_key(segment, buffer) == SOURCE + DESTINATION + PORTS
    assert segment.header_offset == len(before) + 20
    assert segment.payload_offset == len(before) + 40


@pytest.mark.parametrize("before", [b"", b"\xff" * 14])
def test_fields_of_ipv6(before: bytes) -> None:
    segment, buffer = parsed(ipv6(tcp(b"hello")), before=before, after=b"rest")
    assert (segment.source_port, segment.destination_port) == (54321, 443)
    assert (segment.seq, segment.ack) == (raw.SEQ, raw.ACK)
    assert segment.address_size == 16
    assert source_address(segment, buffer) == SOURCE6
    assert destination_address(segment, buffer) == DESTINATION6
    assert flow_key(segment, buffer) == SOURCE6 + DESTINATION6 + PORTS
    assert payload(segment, buffer, 0) == b"hello"


def test_any_buffer_will_do() -> None:
    packet = ipv4(tcp(b"hello"))
    for buffer in (packet, bytearray(packet), memoryview(bytearray(packet))):
        segment = Segment()
        assert parse(segment, buffer, 0, len(packet), len(packet)) == 0
        assert flow_key(segment, buffer) == SOURCE + DESTINATION + PORTS
        assert type(payload(segment, buffer, 0)) is bytes


@pytest.mark.parametrize("size", range(0, 44, 4))
def test_ipv4_options_are_stepped_over(size: int) -> None:
    segment, buffer = parsed(ipv4(tcp(b"hello"), options=b"\x94\x04" + bytes(size)[2:]))
    assert segment.header_offset == 20 + max(size, 4)
    assert payload(segment, buffer, 0) == b"hello"
    assert flow_key(segment, buffer) == SOURCE + DESTINATION + PORTS


@pytest.mark.parametrize("size", range(0, 44, 4))
def test_tcp_options_are_stepped_over(size: int) -> None:
    segment, buffer = parsed(ipv4(tcp(b"hello", options=b"\x01" * size)))
    assert segment.payload_offset == 40 + size
    assert segment.options_end == 40 + size
    assert payload(segment, buffer, 0) == b"hello"


@pytest.mark.parametrize(
    "extensions",
    [
        (raw.hop_by_hop(),),
        (raw.hop_by_hop(3),),
        (raw.routing(),),
        (raw.destination_options(31),),
        (raw.fragment(),),  # an atomic fragment (RFC 6946) is a whole packet
        (raw.hop_by_hop(), raw.destination_options(), raw.routing(), raw.fragment()),
        (raw.destination_options(),) * 8,
    ],
)
def test_ipv6_extensions_are_stepped_over(extensions: tuple[tuple[int, bytes], ...]) -> None:
    packet = ipv6(tcp(b"hello"), extensions=extensions)
    segment, buffer = parsed(packet)
    assert payload(segment, buffer, 0) == b"hello"
    assert flow_key(segment, buffer) == SOURCE6 + DESTINATION6 + PORTS
    assert segment.payload_offset == len(packet) - 5


@pytest.mark.parametrize("bits", [0, 1, 2, 4, 8, 16, 32, 63, 64, 128, 255])
def test_flags_are_the_six_old_ones(bits: int) -> None:
    segment, _ = parsed(ipv4(tcp(flags=bits)))
    assert segment.flags == bits & 63


def test_padding_of_the_frame_is_no_payload() -> None:
    """A frame has at least 46 bytes; what stands behind the packet is not of it."""
    segment = Segment()
    packet = ipv4(tcp(b"a")) + bytes(5)
    assert parse(segment, packet, 0, len(packet), len(packet)) == 0
    assert (segment.payload_length, segment.available) == (1, 1)
    assert payload(segment, packet, 0) == b"a"


def test_payload_from_the_middle() -> None:
    segment, buffer = parsed(ipv4(tcp(b"hello")))
    assert [payload(segment, buffer, skip) for skip in (0, 1, 4, 5, 6, 100)] == [
        b"hello",
        b"ello",
        b"o",
        b"",
        b"",
        b"",
    ]


def test_largest_packet() -> None:
    data = bytes(range(256)) * 256
    segment, buffer = parsed(ipv4(tcp(data[: 65535 - 40])))
    assert segment.payload_length == 65495
    assert payload(segment, buffer, 0) == data[:65495]


def test_length_that_the_header_cannot_say() -> None:
    """Segments merged beyond 64 KiB (BIG TCP) have none; the capture knows how long they were."""
    data = bytes(100_000)
    for packet in (ipv4(tcp(data), total=0), ipv6(tcp(data), length=0)):
        segment, _ = parsed(packet)
        assert segment.payload_length == segment.available == 100_000


def test_segment_is_used_again() -> None:
    segment = Segment()
    six = ipv6(tcp(b"hello"))
    four = ipv4(tcp(b"", flags=2))
    assert parse(segment, six, 0, len(six), len(six)) == 0
    assert parse(segment, four, 0, len(four), len(four)) == 0
    assert (segment.address_size, segment.payload_length, segment.available) == (4, 0, 0)
    assert flow_key(segment, four) == SOURCE + DESTINATION + PORTS


def test_copies_own_their_bytes() -> None:
    buffer = bytearray(b"0123456789")
    copy = copy_bytes(buffer, 2, 3)
    buffer[:] = bytes(10)
    assert copy == b"234"
    assert copy_bytes(buffer, 5, 0) == b""


# --- cut packets ---------------------------------------------------------------------------


@pytest.mark.parametrize("make", [ipv4, ipv6])
def test_every_cut(make: object) -> None:
    """Cut anywhere: short while a header is missing, then a packet with less payload."""
    packet = make(tcp(b"hello", options=b"\x01" * 12))  # type: ignore[operator]
    headers = len(packet) - 5 - 12
    for size in range(len(packet) + 1):
        segment = Segment()
        got = parse(segment, packet[:size], 0, size, len(packet))
        if size < headers:
            assert got == flags.SHORT
            continue
        assert got == flags.PARSED
        assert segment.payload_length == 5
        assert segment.available == max(0, size - len(packet) + 5)
        assert segment.options_end == min(size, len(packet) - 5)
        assert payload(segment, packet[:size], 0) == b"hello"[: segment.available]


def test_headers_of_a_relay_record() -> None:
    """64 bytes, zero-padded: the IP header says how long the packet was."""
    packet = ipv4(tcp(bytes(1000), options=b"\x01" * 12))
    record = packet[:52] + bytes(12)
    segment = Segment()
    assert parse(segment, record, 0, 64, 64) == 0
    assert segment.payload_length == 1000
    assert segment.available == 12
    assert segment.options_end == 52


# --- packets that are none -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (b"", flags.SHORT),
        (bytes(19), flags.SHORT),
        (bytes(20), flags.NOT_IP),
        (ipv4(tcp(), version=5), flags.NOT_IP),
        (ipv4(tcp(), version=0), flags.NOT_IP),
        (ipv4(tcp(), version=15), flags.NOT_IP),
        (ipv4(tcp(), header=16), flags.BAD_HEADER),
        (ipv4(tcp(), header=0), flags.BAD_HEADER),
        (ipv4(tcp()[:4], header=60), flags.BAD_HEADER),
        (ipv4(tcp(), protocol=17), flags.NOT_TCP),
        (ipv4(tcp(), protocol=0), flags.NOT_TCP),
        (ipv4(tcp(), fragment=0x2000), flags.FRAGMENT),
        (ipv4(tcp(), fragment=0x0001), flags.FRAGMENT),
        (ipv4(tcp(), fragment=0x6001), flags.FRAGMENT),
        (ipv4(tcp(), fragment=0x0000), flags.PARSED),
        (ipv4(tcp(), fragment=0x8000), flags.PARSED),
        (ipv4(tcp(header=16)), flags.BAD_HEADER),
        (ipv4(tcp(header=0)), flags.BAD_HEADER),
        (ipv4(tcp(header=24)), flags.BAD_HEADER),
        (ipv4(tcp(header=60)), flags.BAD_HEADER),
        (ipv4(tcp(), total=39), flags.BAD_HEADER),
        (ipv4(tcp(), total=20), flags.BAD_HEADER),
        (ipv4(tcp(), total=1), flags.BAD_HEADER),
        (ipv4(tcp(), total=40), flags.PARSED),
        (ipv6(tcp(header=60)), flags.BAD_HEADER),
        (ipv6(tcp(), length=19), flags.BAD_HEADER),
        (ipv6(tcp(), length=20), flags.PARSED),
        (ipv6(b"", extensions=((17, bytes(7)),)), flags.NOT_TCP),
        (ipv6(b"", extensions=((58, bytes(7)),)), flags.NOT_TCP),
        (ipv6(b"", extensions=((59, b""),)), flags.NOT_TCP),
        (ipv6(tcp(), extensions=(raw.fragment(offset=1),)), flags.FRAGMENT),
        (ipv6(tcp(), extensions=(raw.fragment(more=True),)), flags.FRAGMENT),
        (ipv6(tcp(), extensions=(raw.destination_options(),) * 9), flags.BAD_HEADER),
        (ipv6(tcp(), extensions=((0, b"\xff" + bytes(6)),)), flags.SHORT),
    ],
)
def test_reasons(packet: bytes, expected: int) -> None:
    assert result(packet) == expected


@pytest.mark.parametrize("wire_length", [-100, 0, 1, 39])
def test_length_of_the_capture_that_cannot_be(wire_length: int) -> None:
    assert result(ipv4(tcp(), total=0), wire_length) == flags.BAD_HEADER


def test_packet_longer_than_its_buffer_claims_its_length() -> None:
    segment = Segment()
    packet = ipv4(tcp(b"hello"), total=1500)
    assert parse(segment, packet, 0, len(packet), len(packet)) == 0
    assert segment.payload_length == 1460
    assert segment.available == 5


# --- options -------------------------------------------------------------------------------


MSS = b"\x02\x04\x05\xb4"
SCALE = b"\x03\x03\x07"
SACK_OK = b"\x04\x02"
TIMESTAMP = b"\x08\x0a\x01\x02\x03\x04\xf1\xf2\xf3\xf4"


def options_of(options: bytes) -> Segment:
    """The options of a packet, after another packet with all of them was parsed."""
    segment = Segment()
    for each in (MSS + SACK_OK + TIMESTAMP + b"\x01" + SCALE, options):
        packet = ipv4(tcp(b"payload", options=each))
        assert parse(segment, packet, 0, len(packet), len(packet)) == 0
        parse_options(segment, packet)
    return segment


def test_no_options() -> None:
    segment = options_of(b"")
    assert (segment.mss, segment.window_scale, segment.sack_permitted) == (0, -1, 0)
    assert (segment.timestamp_present, segment.timestamp_value, segment.timestamp_echo) == (0, 0, 0)
    assert segment.sack_count == 0


def test_options_of_a_syn() -> None:
    segment = options_of(MSS + SACK_OK + TIMESTAMP + b"\x01" + SCALE)
    assert (segment.mss, segment.window_scale, segment.sack_permitted) == (1460, 7, 1)
    assert segment.timestamp_present == 1
    assert (segment.timestamp_value, segment.timestamp_echo) == (0x01020304, 0xF1F2F3F4)


@pytest.mark.parametrize(("sent", "used"), [(0, 0), (14, 14), (15, 14), (255, 14)])
def test_window_scale_is_limited(sent: int, used: int) -> None:
    """RFC 7323 (2.3)."""
    assert options_of(bytes((3, 3, sent))).window_scale == used


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_sack_blocks(count: int) -> None:
    blocks = [(0xFFFFFF00 + index, 0x10 + index) for index in range(count)]
    body = b"".join(a.to_bytes(4, "big") + b.to_bytes(4, "big") for a, b in blocks)
    segment = options_of(b"\x01\x01\x05" + bytes((2 + len(body),)) + body)
    assert segment.sack_count == count
    starts = [
        segment.sack_start_0,
        segment.sack_start_1,
        segment.sack_start_2,
        segment.sack_start_3,
    ]
    ends = [segment.sack_end_0, segment.sack_end_1, segment.sack_end_2, segment.sack_end_3]
    assert list(zip(starts, ends, strict=True)) == blocks + [(0, 0)] * (4 - count)


def test_options_end_with_the_end() -> None:
    assert options_of(b"\x00" + MSS).mss == 0
    assert options_of(b"\x01\x01\x01\x01" + MSS).mss == 1460


def test_unknown_options_are_passed_over() -> None:
    segment = options_of(b"\x1e\x06abcd" + b"\x22\x02" + MSS)
    assert segment.mss == 1460


@pytest.mark.parametrize(
    "damaged",
    [
        b"\x02\x00\x05\xb4",  # no length
        b"\x02\x01\x05\xb4",  # a length that holds not even itself
        b"\x02\x05\x05\xb4",  # longer than the header
        b"\x02\xff\x05\xb4",
        b"\x01\x01\x01\x02",  # cut before its length
        b"\x08\x0a\x01\x02",  # cut in its value
        b"\x05\x0a\x01\x02",
    ],
)
def test_damaged_options_end_the_list(damaged: bytes) -> None:
    segment = options_of(SACK_OK + b"\x01\x01" + damaged)
    assert segment.sack_permitted == 1
    assert (segment.mss, segment.timestamp_present, segment.sack_count) == (0, 0, 0)


@pytest.mark.parametrize(
    "odd",
    [
        b"\x02\x03\x05",
        b"\x02\x06\x05\xb4\x05\xb4",
        b"\x03\x02",
        b"\x03\x04\x07\x07",
        b"\x04\x03\x00",
        b"\x08\x09" + bytes(7),
        b"\x05\x09" + bytes(7),
    ],
)
def test_options_of_another_length_are_other_options(odd: bytes) -> None:
    segment = options_of(odd + TIMESTAMP)
    assert (segment.mss, segment.window_scale, segment.sack_permitted) == (0, -1, 0)
    assert segment.sack_count == 0
    assert segment.timestamp_value == 0x01020304


@pytest.mark.parametrize("size", range(41))
def test_options_cut_by_the_capture(size: int) -> None:
    """What was captured whole is read, nothing behind it is."""
    packet = ipv4(tcp(b"x" * 50, options=MSS + SACK_OK + TIMESTAMP + b"\x01" + SCALE))
    segment = Segment()
    end = 40 + min(size, 20)
    assert parse(segment, packet, 0, end, len(packet)) == 0
    parse_options(segment, packet)
    assert (segment.mss > 0) == (size >= 4)
    assert segment.sack_permitted == (size >= 6)
    assert segment.timestamp_present == (size >= 16)
    assert (segment.window_scale == 7) == (size >= 20)
