"""Targets: packets and frames, as they come from a ring or out of a file."""

from __future__ import annotations

import struct
from dataclasses import replace

from tcpcopy.packet import flags
from tcpcopy.packet.brief import read_brief
from tcpcopy.packet.frame import UNREAD_SLOTS
from tcpcopy.packet.links import LINK_NAMES, network_offset
from tcpcopy.packet.networks import NetworkTable
from tcpcopy.packet.reassembly import Reassembler
from tcpcopy.packet.segment import (
    Segment,
    destination_address,
    flow_key,
    parse,
    parse_options,
    parse_udp,
    payload,
    source_address,
)
from tcpcopy.packet.unwrap import Unwrapper
from tests.fuzz.target import Target, exact, joined, pieces
from tests.lab import capture_files as make
from tests.lab import encapsulations
from tests.sim.model import wire

_LINKS = (*sorted(LINK_NAMES), 147)
_BASE = wire.Segment(bytes([10, 1, 0, 7]), 40001, bytes([10, 2, 0, 1]), 80, 0xFFFF_FF00, window=502)
_ENDS_V6 = (
    bytes.fromhex("20010db8000000000000000000000007"),
    bytes.fromhex("20010db8000000000000000000000003"),
)
_SYN = replace(
    _BASE, flags=wire.SYN, mss=1460, window_scale=14, sack_permitted=True, timestamp=(7, 0)
)
_DATA = replace(
    _BASE, flags=wire.ACK | wire.PSH, ack=9, payload=b"GET / HTTP/1.1\r\n\r\n", timestamp=(8, 7),
    sack_blocks=((100, 200), (300, 400)),
)  # fmt: skip


def _v6(segment: wire.Segment) -> bytes:
    source, destination = _ENDS_V6
    return wire.encode(replace(segment, source=source, destination=destination))


def segments() -> list[bytes]:
    """Whole packets of both families."""
    found = [_SYN, _DATA, replace(_BASE, flags=wire.FIN | wire.ACK), replace(_BASE, flags=wire.RST)]
    packets = [wire.encode(s) for s in found] + [_v6(s) for s in found]
    v6 = _v6(_DATA)
    packets.append(v6[:6] + b"\0" + v6[7:40] + b"\6\0" + bytes(6) + v6[40:])  # a hop-by-hop header
    packets.append(make.udp("10.0.0.1:53", "10.0.0.2:5000", b"answer"))
    return [*packets, make.udp("[2001:db8::1]:53", "[2001:db8::7]:5000", b"answer")]


def fragments() -> list[bytes]:
    """The parts of one datagram of each family, in order."""
    data = struct.pack("!HHHH", 5000, 53, 48, 0) + bytes(range(40))
    found = []
    for start, more in ((0, 1), (16, 1), (32, 0)):
        piece = data[start : start + 16] if more else data[start:]
        found.append(make.ip("10.0.0.1", "10.2.0.1", 17, piece, fragment=more << 13 | start // 8))
        header = struct.pack("!BBHI", 17, 0, start | more, 77)
        found.append(make.ip("[2001:db8::7]", "[2001:db8::1]", 44, header + piece))
    return found


def tunnels() -> list[bytes]:
    """IP packets that carry others."""
    inside = make.conversation()[3]
    return [
        make.vxlan(make.ethernet(inside, 0x8100)),
        make.gre(inside, 0x0800, key=True, sequence=True),
        make.gre(make.ethernet(inside), 0x6558),
        make.ip("192.0.2.1", "192.0.2.2", 4, inside),
        make.ip("[2001:db8::2]", "[2001:db8::3]", 41, segments()[5]),
        make.vxlan(make.ethernet(make.gre(inside, 0x0800))),
    ]


def frames() -> list[bytes]:
    """A link type (as its place in the list), then a frame of it."""
    packet, v6 = make.conversation()[3], segments()[5]
    ppp = b"\x11\0\0\1" + struct.pack("!H", len(packet) + 2) + b"\0\x21" + packet
    found = {
        1: [
            make.ethernet(packet, 0x8100, 0x88A8),
            make.ethernet(v6),
            make.ethernet(ppp, kind=0x8864),
            make.ethernet(b"\0\1\x01\x40" + packet, kind=0x8847),
            make.ethernet(b"\xaa\xaa\3\0\0\0\x08\0" + packet, kind=len(packet) + 8),
        ],
        0: [b"\2\0\0\0" + packet, b"\0\0\0\x1e" + v6],
        9: [b"\xff\3\0\x21" + packet],
        101: [packet],
        113: [bytes(14) + b"\x08\0" + packet],
        276: [b"\x86\xdd" + bytes(18) + v6],
    }
    return [bytes([_LINKS.index(kind)]) + frame for kind, all_ in found.items() for frame in all_]


def _encapsulated() -> list[bytes]:
    """As `frames`, with all that is read on the way."""
    packet = make.conversation()[3]
    found = [bytes([_LINKS.index(101)]) + tunnel for tunnel in tunnels()]
    for link, make_frame in (*encapsulations.LINKS.values(), *encapsulations.TUNNELS.values()):
        found.append(bytes([_LINKS.index(link)]) + make_frame(packet))
    return found


def _errors() -> list[bytes]:
    """ICMP errors that quote a packet, and the reply to a ping."""
    quoted, quoted_v6 = segments()[0], segments()[4]
    return [
        make.ip("10.0.0.9", "10.1.0.7", 1, b"\3\1" + bytes(6) + quoted[:28]),
        make.ip("10.0.0.9", "10.1.0.7", 1, b"\0\0\0\0\0\7\0\1tcpcopy probe"),
        make.ip("[2001:db8::9]", "[2001:db8::7]", 58, b"\1\0" + bytes(6) + quoted_v6[:48]),
    ]


def _segment(data: bytes) -> None:
    """Parser and options: what is found lies within the packet; odd lengths on the wire."""
    view = exact(data)
    segment = Segment()
    for length in (len(data), len(data) + 3000, 0):
        if parse(segment, view, 0, len(data), length) == flags.PARSED:
            parse_options(segment, view)
            assert 20 <= segment.header_offset + 20 <= segment.options_end <= len(data)
            # Where options are cut the payload begins behind the end, and none of it is there.
            assert segment.available == 0 or segment.available <= len(data) - segment.payload_offset
            assert segment.window_scale <= 14
            assert len(flow_key(segment, view)) in (12, 36)
            assert len(source_address(segment, view)) == len(destination_address(segment, view))
            assert len(payload(segment, view, 0)) == segment.available
        if parse_udp(segment, view, 0, len(data), length) == flags.PARSED:
            assert segment.payload_offset + segment.available <= len(data)
            assert len(payload(segment, view, 0)) == segment.available


def _brief(data: bytes) -> None:
    found = read_brief(data)
    assert found is None or len(found.source) in (4, 16)


def _reassembly(data: bytes) -> None:
    """Whatever the kind of an event says is the time that passes before it, in seconds."""
    held = Reassembler((6, 17, 51))
    now_ns = count = done = 0
    for kind, packet in pieces(data):
        now_ns += (kind & 15) * 1_000_000_000
        if not packet or not _is_fragment(packet):
            continue
        count += 1
        whole = held.add(exact(packet), 0, len(packet), now_ns)
        if whole is not None:
            done += held.joined
            _segment(whole)
    held.give_up_all()
    assert held.held_bytes == 0 and len(held) == 0
    assert done + held.incomplete + held.alone == count


def _is_fragment(packet: bytes) -> bool:
    return parse_udp(Segment(), packet, 0, len(packet), len(packet)) == flags.FRAGMENT


def _link(data: bytes) -> None:
    """Any frame of any link type: the header found lies within, and so does what it carries."""
    if not data:
        return
    view = exact(data[1:])
    size = len(view)
    found = Unwrapper(True)
    found.begin(0)
    at = network_offset(view, 0, size, _LINKS[data[0] % len(_LINKS)], found.frame)
    assert 0 <= found.frame.unread < UNREAD_SLOTS
    found.note_unread()
    if at < 0:
        return
    assert at + 20 <= size
    if found.take(view, at, size, size - at, 0):
        assert found.start >= 0 and found.start + 20 <= found.end
        assert found.end - found.start <= found.wire_length
        if found.whole is None:
            assert at <= found.start and found.end <= size
        else:
            assert found.end <= len(found.whole)


def _unwrap(data: bytes) -> None:
    """A row of packets as a ring brings them, fragments among them: what is found lies within.

    Whatever the kind of an event says is the time that passes before it, in seconds.
    """
    found = Unwrapper(True)
    segment = Segment()
    networks = NetworkTable()
    now_ns = pieces_kept = 0
    for kind, packet in pieces(data):
        now_ns += (kind & 15) * 1_000_000_000
        if len(packet) < 20:
            continue
        view = exact(packet)
        found.begin(kind >> 4)
        if not found.take(view, 0, len(packet), len(packet), now_ns):
            pieces_kept += 1
            continue
        inside = exact(found.whole) if found.whole is not None else view
        assert found.start + 20 <= found.end <= len(inside)
        status = parse(segment, inside, found.start, found.end, found.wire_length)
        if status == flags.PARSED:
            key = flow_key(segment, inside)
            network = found.frame.network
            first = networks.realm(key, True, segment, network, -1)
            assert 0 <= first < 64
            assert networks.realm(key, True, segment, network, -1) == first
    found.finish()
    assert found.reassembler.held_bytes == 0
    assert found.fragments - found.joined <= pieces_kept + found.joined
    assert found.lost <= found.fragments


TARGETS = (
    Target("segment", _segment, segments),
    Target("brief", _brief, lambda: segments() + _errors()),
    Target(
        "reassembly",
        _reassembly,
        lambda: [joined(*((0, part) for part in fragments())),
                 joined(*((9, part) for part in reversed(fragments())))],
    ),
    Target("link", _link, lambda: frames() + _encapsulated()),
    Target(
        "unwrap",
        _unwrap,
        lambda: [
            joined(*((16, packet) for packet in tunnels())),
            joined(*((0, part) for part in encapsulations.fragments(tunnels()[0], 24))),
        ],
    ),
)  # fmt: skip
