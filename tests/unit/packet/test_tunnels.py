"""Tunnels taken off, fragments put together on the way, and what stays as it is."""

from __future__ import annotations

import struct

import pytest

from tcpcopy.packet import frame as found_in
from tcpcopy.packet.frame import UNREAD_NAMES
from tcpcopy.packet.unwrap import MOST_TUNNELS, Unwrapper
from tests.lab import capture_files as make
from tests.lab import encapsulations as wrapped

V4 = make.tcp("198.51.100.7:40000", "10.0.0.1:80", make.ACK, b"data")
V6 = make.tcp("[2001:db8::7]:40000", "[2001:db8::1]:80", make.ACK, b"data")
ARP = bytes(28)
BOTH = pytest.mark.parametrize("packet", [V4, V6], ids=["v4", "v6"])


class Reader:
    """Hands IP packets to an unwrapper; they stand within other bytes."""

    def __init__(self, strips: bool = True) -> None:
        self.unwrapper = Unwrapper(strips)
        self.networks: list[int] = []

    def read(self, packet: bytes, wire_length: int = 0, now_ns: int = 0) -> bytes | None:
        """The packet found, captured bytes only; None: it is kept."""
        found = self.unwrapper
        found.begin(0)
        data = b"\xee" * 3 + packet + b"\xee" * 5
        wire_length = wire_length or len(packet)
        if not found.take(data, 3, 3 + len(packet), wire_length, now_ns):
            return None
        self.networks.append(found.frame.network)
        assert found.end - found.start <= found.wire_length
        return (found.whole or data)[found.start : found.end]

    @property
    def unread(self) -> dict[str, int]:
        return self.unwrapper.unread_counts()


def inner(packet: bytes) -> bytes | None:
    """What is found in an IP packet."""
    return Reader().read(packet)


@BOTH
@pytest.mark.parametrize("name", [name for name in wrapped.TUNNELS if name != "pbb"])
def test_each_tunnel_is_taken_off(packet: bytes, name: str) -> None:
    outer = wrapped.TUNNELS[name][1](packet)[14:]
    reader = Reader()
    assert reader.read(outer) == packet
    assert reader.unwrapper.tunnelled == 1 and not reader.unread
    assert Reader(strips=False).read(outer) == outer


@pytest.mark.parametrize("name", wrapped.TEREDO)
def test_teredo(name: str) -> None:
    assert inner(wrapped.TEREDO[name][1](V6)[14:]) == V6


@BOTH
@pytest.mark.parametrize("name", [name for name in wrapped.TUNNELS if name != "pbb"])
def test_cut_packets(packet: bytes, name: str) -> None:
    """Lengths on the wire count: what is inside may have been cut; nothing is read beyond it."""
    outer = wrapped.TUNNELS[name][1](packet)[14:]
    head = len(outer) - len(packet)
    enough = head + (20 if packet is V4 else 40)
    for size in range(20, len(outer)):
        reader = Reader()
        read = reader.read(outer[:size], len(outer))
        if size >= enough:
            assert read == outer[head:size], size
            assert reader.unwrapper.wire_length == len(packet)
        else:
            assert (read is not None and outer.startswith(read[:1])) or size >= head, size


def test_so_many_tunnels_and_no_more() -> None:
    packet = V4
    for _ in range(MOST_TUNNELS):
        packet = wrapped.carried_by(4, packet)
    assert inner(packet) == V4
    reader = Reader()
    deeper = wrapped.carried_by(4, packet)
    assert reader.read(deeper) == wrapped.carried_by(4, V4)
    assert reader.unread == {UNREAD_NAMES[found_in.DEEP]: 1}


def test_behind_ipv6_extensions() -> None:
    body = b"\x29\0" + bytes(6) + V6  # destination options, then IPv6
    assert inner(wrapped.carried_by(60, body, v6=True)) == V6


def test_behind_an_authentication_header() -> None:
    head = bytes([4, 4, 0, 0]) + bytes(20)
    assert inner(wrapped.carried_by(51, head + V4)) == V4
    assert inner(wrapped.carried_by(51, head + V4, v6=True)) == V4


@pytest.mark.parametrize(
    "packet",
    [
        V4,
        V6,
        make.udp("192.0.2.1:5", "192.0.2.2:4788", b"\x08" + bytes(7) + make.ethernet(V4)),
        make.vxlan(make.ethernet(ARP, kind=0x0806)),
        wrapped.gre(ARP, 0x88CC),
        wrapped.gre(b"", 0),
        wrapped.pptp(b"\xc0\x21" + bytes(30)),
        wrapped.carried_by(47, b"\x20\x81\x88\x0b" + bytes(8)),  # acknowledges and carries nothing
        wrapped.to_port(2152, b"\x32\1\0\4" + bytes(8)),  # an echo
        wrapped.to_port(6081, b"\0\x80\x65\x58" + bytes(40)),  # a control message
        wrapped.to_port(4500, bytes(40)),  # keys being exchanged
        wrapped.to_port(1701, b"\xc8\2" + bytes(20)),  # control
        make.ip("192.0.2.1", "192.0.2.2", 6, V4, fragment=0)[:19],
        b"\x44" + make.ip("192.0.2.1", "192.0.2.2", 4, V4)[1:],
        b"\x50" + V4[1:],
    ],
)
def test_what_is_no_tunnel_stays(packet: bytes) -> None:
    reader = Reader()
    assert reader.read(packet) == packet
    assert not reader.unread and not reader.unwrapper.tunnelled


@pytest.mark.parametrize(
    ("packet", "kind"),
    [
        (make.udp("192.0.2.1:5", "192.0.2.2:4789", bytes(8) + make.ethernet(V4)), found_in.VXLAN),
        (wrapped.gpe(V4, 9), found_in.VXLAN_GPE),
        (wrapped.gpe(V4, 1, flags=0x1C), found_in.VXLAN_GPE),
        (wrapped.gre(make.ethernet(V4[:-1]), 0x6558), found_in.GRE),  # longer inside than outside
        (make.vxlan(make.ethernet(b"\x41" + V4[1:])), found_in.VXLAN),  # a header of 4 bytes
        (make.vxlan(make.ethernet(V6[:30])), found_in.VXLAN),
        (wrapped.to_port(6081, b"\x40\0\x65\x58" + bytes(40)), found_in.GENEVE),
        (wrapped.to_port(6081, b"\0\0"), found_in.GENEVE),
        (wrapped.to_port(2152, b"\x50\xff" + bytes(40)), found_in.GTP),
        (wrapped.gtp(V4, extensions=b"\0\0\0\0"), found_in.GTP),
        (wrapped.to_port(3544, bytes(60)), found_in.TEREDO),
        (wrapped.tzsp(9, make.ethernet(V4)), found_in.TZSP),
        (wrapped.tzsp(1, make.ethernet(V4), b"\0" * 40), found_in.TZSP),
        (wrapped.gre(V4, 0x7777), found_in.GRE),
        (wrapped.carried_by(47, b"\0\1\x08\0" + V4), found_in.GRE),  # another version
        (wrapped.carried_by(47, b"\x40\0\x08\0" + V4), found_in.GRE),  # source routes
        (wrapped.carried_by(47, b""), found_in.GRE),
        (wrapped.gre(b"\x30" + bytes(60), 0x88BE, sequence=True), found_in.ERSPAN),
        (wrapped.erspan_three(V4, frame_type=5), found_in.ERSPAN),
        (wrapped.carried_by(4, b"\x50" + V4[1:]), found_in.IP_IN_IP),
        (wrapped.carried_by(97, b"\x20\0" + make.ethernet(V4)), found_in.ETHER_IP),
        (wrapped.carried_by(50, bytes(60)), found_in.ESP),
        (wrapped.carried_by(50, bytes(60), v6=True), found_in.ESP),
        (wrapped.to_port(4500, b"\0\0\0\1" + bytes(40)), found_in.ESP),
        (wrapped.carried_by(108, bytes(60)), found_in.IPCOMP),
        (wrapped.carried_by(115, bytes(60)), found_in.L2TP),
        (wrapped.to_port(1701, b"\0\2" + bytes(40)), found_in.L2TP),
        (wrapped.vxlan(wrapped.shim(0x88E5, b"\x0c\0\0\0\0\1", V4)), found_in.MACSEC),
        (wrapped.pptp(V4)[:32] + b"\xff\3\0\xfd" + V4, found_in.PPP),
    ],
)  # fmt: skip
def test_what_is_known_and_cannot_be_read(packet: bytes, kind: int) -> None:
    reader = Reader()
    assert reader.read(packet) == packet
    assert reader.unread == {UNREAD_NAMES[kind]: 1}
    assert reader.networks == [0]


def without_length(packet: bytes) -> bytes:
    """The packet as its sender's kernel shows it before it is cut into segments."""
    return packet[:2] + b"\0\0" + packet[4:] if packet is V4 else packet[:4] + b"\0\0" + packet[6:]


@BOTH
@pytest.mark.parametrize("name", ["vxlan", "geneve", "gre ip", "erspan 2", "ip in ip", "gtp-u"])
def test_an_inner_packet_without_a_length(packet: bytes, name: str) -> None:
    reader = Reader()
    bare = without_length(packet)
    outer = wrapped.TUNNELS[name][1](bare)[14:]
    assert reader.read(outer) == bare
    assert reader.unwrapper.wire_length == len(packet)
    # Padding of the frame belongs to nobody.
    assert reader.read(outer + bytes(9)) == bare
    assert reader.unwrapper.wire_length == len(packet)


def test_an_outer_packet_without_a_length() -> None:
    reader = Reader()
    outer = make.vxlan(make.ethernet(without_length(V4)))
    assert reader.read(outer[:2] + b"\0\0" + outer[4:]) == without_length(V4)
    assert reader.unwrapper.wire_length == len(V4)


@pytest.mark.parametrize("name", ["vxlan", "geneve", "erspan 1", "erspan 2", "tzsp"])
def test_mirrors_that_cut_what_they_carry(name: str) -> None:
    """The inner packet is as long as it says, and what is missing is known to be missing."""
    reader = Reader()
    cut = wrapped.TUNNELS[name][1](V4)[14:]
    make_it = wrapped.TUNNELS[name][1]
    outer = make_it(V4[:-3])[14:]
    assert len(outer) == len(cut) - 3
    assert reader.read(outer + bytes(7)) == V4[:-3]
    assert reader.unwrapper.wire_length == len(V4)


def networks(*packets: bytes) -> list[int]:
    """The virtual networks of packets in tunnels."""
    reader = Reader()
    for packet in packets:
        assert reader.read(packet) == V4
    return reader.networks


def test_virtual_networks() -> None:
    frame = make.ethernet(V4)
    one, same, two, tagged = networks(
        wrapped.vxlan(frame, vni=1),
        wrapped.vxlan(frame, vni=1, flags=0xFF),
        wrapped.vxlan(frame, vni=2),
        wrapped.vxlan(make.ethernet(V4, 0x8100), vni=1),
    )
    assert one == same and len({0, one, two, tagged}) == 4
    assert networks(wrapped.carried_by(4, V4), wrapped.gre(V4, 0x0800)) == [0, 0]
    nvgre = networks(*(wrapped.gre(frame, 0x6558, key=key) for key in (0x2A01, 0x2A02, 0x2B01)))
    assert nvgre[0] == nvgre[1] != nvgre[2]  # the last byte is a hash of the flow
    keys = networks(*(wrapped.gre(V4, 0x0800, key=key) for key in (0x2A01, 0x2A02)))
    assert keys[0] != keys[1]
    spans = networks(*(wrapped.erspan_two(frame, vlan=vlan) for vlan in (0, 5, 6)))
    assert spans[0] == 0 and len(set(spans)) == 3
    sessions = networks(*(wrapped.erspan_two(frame, vlan=5, session=n) for n in (1, 2)))
    assert sessions[0] == sessions[1]  # of the mirror, not of what it shows


LONG = make.tcp("198.51.100.7:40000", "10.0.0.1:80", make.ACK, bytes(range(256)) * 11)
LONG_V6 = make.tcp("[2001:db8::7]:40000", "[2001:db8::1]:80", make.ACK, bytes(range(256)) * 11)


@pytest.mark.parametrize("packet", [LONG, LONG_V6], ids=["v4", "v6"])
@pytest.mark.parametrize("strips", [True, False])
def test_fragments_of_tcp_are_put_together(packet: bytes, strips: bool) -> None:
    parts = wrapped.fragments(packet)
    for order in (parts, parts[::-1]):
        reader = Reader(strips)
        assert [reader.read(part) for part in order[:-1]] == [None] * (len(parts) - 1)
        whole = reader.read(order[-1])
        assert whole is not None and whole[-2816:] == packet[-2816:]
        assert reader.unwrapper.wire_length == len(packet)
        assert (reader.unwrapper.fragments, reader.unwrapper.joined) == (len(parts), 1)


@pytest.mark.parametrize("name", ["vxlan", "geneve", "gre ip", "erspan 2", "ip in ip"])
def test_fragments_of_a_tunnel(name: str) -> None:
    """What a mirror adds makes packets too long for its own network."""
    outer = wrapped.TUNNELS[name][1](LONG)[14:]
    reader = Reader()
    *kept, whole = [reader.read(part) for part in wrapped.fragments(outer)]
    assert whole == LONG and kept == [None] * len(kept)
    # With the packet itself in fragments as well.
    inside = [wrapped.TUNNELS[name][1](part)[14:] for part in wrapped.fragments(LONG, number=1)]
    found = [reader.read(part) for packet in inside for part in wrapped.fragments(packet, 800)]
    assert [packet for packet in found if packet is not None] == [LONG]


def test_fragments_of_udp_that_is_no_tunnel_are_left_alone() -> None:
    packet = make.udp("198.51.100.7:40000", "10.0.0.1:53", bytes(3000))
    reader = Reader()
    parts = wrapped.fragments(packet)
    assert [reader.read(part) for part in parts] == parts
    assert reader.unwrapper.fragments == 0


def test_fragments_of_another_network_are_others() -> None:
    parts = wrapped.fragments(LONG)
    reader = Reader()
    reader.unwrapper.begin(5)
    for part in parts[:-1]:
        assert not reader.unwrapper.take(part, 0, len(part), len(part), 0)
    assert reader.read(parts[-1]) is None
    reader.unwrapper.finish()
    assert reader.unwrapper.lost == len(parts)


def test_fragments_that_overlap_are_lost() -> None:
    """RFC 5722: all of the packet goes, for IPv4 as on Linux, too."""
    parts = wrapped.fragments(LONG, 800)
    moved = bytearray(parts[1])
    moved[6:8] = struct.pack("!H", 0x2000 | 90)
    reader = Reader()
    found = [reader.read(part) for part in (parts[0], bytes(moved), *parts[1:])]
    assert found == [None] * len(found)
    reader.unwrapper.finish()
    assert reader.unwrapper.lost == len(found)
