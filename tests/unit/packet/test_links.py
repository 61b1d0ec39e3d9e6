"""Link layers and tunnels: where the IP header is found, and where nothing is."""

from __future__ import annotations

import struct

import pytest

from tcpcopy.packet import links as link
from tests.lab import capture_files as make

V4 = make.tcp("198.51.100.7:40000", "10.0.0.1:80", make.ACK, b"data")
V6 = make.tcp("[2001:db8::7]:40000", "[2001:db8::1]:80", make.ACK, b"data")
ARP = bytes(28)
BOTH = pytest.mark.parametrize("packet", [V4, V6], ids=["v4", "v6"])


def found(frame: bytes, link_type: int) -> bytes | int:
    """The IP packet in the frame, or the reason; the frame stands within other bytes."""
    data = b"\xee" * 7 + frame + b"\xee" * 5
    start = link.network_offset(data, 7, 7 + len(frame), link_type)
    return data[start : 7 + len(frame)] if start >= 0 else start


def inner(packet: bytes) -> bytes:
    """What `inner_packet` leaves of an IP packet that stands within other bytes."""
    data = b"\xee" * 3 + packet
    return data[link.inner_packet(data, 3, len(data)) :]


@BOTH
@pytest.mark.parametrize("tags", [(), (0x8100,), (0x88A8, 0x8100), (0x9100, 0x8100)])
def test_ethernet_with_vlan_tags(packet: bytes, tags: tuple[int, ...]) -> None:
    assert found(make.ethernet(packet, *tags), 1) == packet


@BOTH
def test_linux_cooked(packet: bytes) -> None:
    kind = struct.pack("!H", make.ethertype(packet))
    v1 = struct.pack("!HHH8s", 0, 1, 6, b"\2\0\0\0\0\1") + kind
    v2 = kind + struct.pack("!HIHBB8s", 0, 3, 1, 0, 6, b"\2\0\0\0\0\1")
    assert found(v1 + packet, 113) == packet
    assert found(v2 + packet, 276) == packet
    tag = struct.pack("!H", 100) + kind
    assert found(v1[:14] + b"\x81\0" + tag + packet, 113) == packet
    assert found(b"\x81\0" + v2[2:] + tag + packet, 276) == packet


@BOTH
@pytest.mark.parametrize("link_type", [12, 14, 101, 228, 229])
def test_raw_ip(packet: bytes, link_type: int) -> None:
    assert found(packet, link_type) == packet


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("family", [2, 10, 24, 28, 30])
@pytest.mark.parametrize("link_type", [0, 108])
def test_bsd_loopback(order: str, family: int, link_type: int) -> None:
    packet = V4 if family == 2 else V6
    assert found(struct.pack(order + "I", family) + packet, link_type) == packet


def test_loopback_of_another_family() -> None:
    assert found(struct.pack("<I", 7) + V4, 0) == link.NOT_IP


@BOTH
def test_ppp_pppoe_mpls_snap(packet: bytes) -> None:
    protocol = b"\x00\x21" if packet is V4 else b"\x00\x57"
    assert found(protocol + packet, 9) == packet
    assert found(b"\xff\x03" + protocol + packet, 9) == packet
    assert found(make.ethernet(b"\x11\0\0\7\0\0" + protocol + packet, kind=0x8864), 1) == packet
    labels = b"\0\1\0\xff" + b"\0\1\1\xff"
    assert found(make.ethernet(labels + packet, kind=0x8847), 1) == packet
    snap = b"\xaa\xaa\3\0\0\0" + struct.pack("!H", make.ethertype(packet))
    assert found(make.ethernet(snap + packet, kind=8 + len(packet)), 1) == packet


def test_what_is_no_ip() -> None:
    assert found(make.ethernet(ARP, kind=0x0806), 1) == link.NOT_IP
    assert found(make.ethernet(b"\x50" + bytes(40), kind=0x0800), 1) == link.NOT_IP
    assert found(make.ethernet(V4, *[0x8100] * 5), 1) == link.NOT_IP
    assert found(make.ethernet(b"\0\1\0\xff" * 9 + V4, kind=0x8847), 1) == link.NOT_IP
    assert found(make.ethernet(bytes(40), kind=38), 1) == link.NOT_IP
    assert found(b"\xc0\x21" + bytes(30), 9) == link.NOT_IP
    assert found(V4, 147) == link.UNKNOWN_LINK


@pytest.mark.parametrize("link_type", [0, 1, 9, 12, 108, 113, 276])
def test_cut_anywhere_in_the_headers(link_type: int) -> None:
    """Whatever is missing of link and IP header: it is never looked for outside of the frame."""
    heads = {
        0: struct.pack("<I", 2),
        1: make.ethernet(V4, 0x8100)[:18],
        9: b"\xff\3\0\x21",
        12: b"",
        108: struct.pack(">I", 2),
        113: bytes(14) + b"\x08\0",
        276: b"\x08\0" + bytes(18),
    }
    frame = heads[link_type] + V4
    assert found(frame, link_type) == V4
    for size in range(len(heads[link_type]) + 20):
        assert found(frame[:size], link_type) in (link.SHORT, link.NOT_IP), size


def test_names() -> None:
    assert link.link_name(1) == "Ethernet"
    assert link.link_name(147) == "link type 147"


@BOTH
def test_each_tunnel_is_taken_off(packet: bytes) -> None:
    frame = make.ethernet(packet)
    number = 4 if packet is V4 else 41
    assert inner(make.vxlan(frame)) == packet
    assert inner(make.vxlan(frame, 8472)) == packet
    assert inner(make.vxlan(make.ethernet(packet, 0x8100))) == packet
    for key in (False, True):
        for sequence in (False, True):
            kind = make.ethertype(packet)
            assert inner(make.gre(packet, kind, key=key, sequence=sequence)) == packet
            assert inner(make.gre(frame, 0x6558, key=key, sequence=sequence)) == packet
    assert inner(make.ip("192.0.2.1", "192.0.2.2", number, packet)) == packet
    assert inner(make.ip("[2001:db8::1]", "[2001:db8::2]", number, packet)) == packet


def test_two_tunnels_and_no_more() -> None:
    twice = make.vxlan(make.ethernet(make.gre(V4, 0x0800)))
    assert inner(twice) == V4
    three = make.ip("192.0.2.1", "192.0.2.2", 4, twice)
    assert inner(three) == make.gre(V4, 0x0800)
    assert link.one_tunnel(twice, 0, len(twice)) == len(twice) - len(make.gre(V4, 0x0800))


def test_behind_ipv6_extensions() -> None:
    body = b"\x29\0" + bytes(6) + V6  # destination options, then IPv6
    assert inner(make.ip("[2001:db8::1]", "[2001:db8::2]", 60, body)) == V6


@pytest.mark.parametrize(
    "packet",
    [
        V4,
        V6,
        make.udp("192.0.2.1:5", "192.0.2.2:4790", b"\x08" + bytes(7) + make.ethernet(V4)),
        make.udp("192.0.2.1:5", "192.0.2.2:4789", bytes(8) + make.ethernet(V4)),
        make.udp("192.0.2.1:5", "192.0.2.2:4789", b"\x08" + bytes(6) + b"\1" + make.ethernet(V4)),
        make.vxlan(make.ethernet(ARP, kind=0x0806)),
        make.vxlan(make.ethernet(V4[:-1])),  # longer inside than outside
        make.vxlan(make.ethernet(b"\x41" + V4[1:])),  # a header of 4 bytes
        make.vxlan(make.ethernet(V6[:-1])),
        make.gre(V4, 0x880B),
        make.gre(V4, 0x88BE),
        make.ip("192.0.2.1", "192.0.2.2", 47, b"\0\1\x08\0" + V4),  # PPTP's version
        make.ip("192.0.2.1", "192.0.2.2", 47, b"\x40\0\x08\0" + V4),  # source routes
        make.ip("192.0.2.1", "192.0.2.2", 4, V4, fragment=0x2000),
        make.ip("192.0.2.1", "192.0.2.2", 4, V4, fragment=0x0010),
        make.ip("192.0.2.1", "192.0.2.2", 4, b"\x50" + V4[1:]),
        make.ip("192.0.2.1", "192.0.2.2", 47, b""),
        b"\x44" + make.ip("192.0.2.1", "192.0.2.2", 4, V4)[1:],
        V4[:19],
        b"\x50" + V4[1:],
    ],
)
def test_what_is_no_tunnel_stays(packet: bytes) -> None:
    assert inner(packet) == packet


def test_tunnel_of_a_cut_packet() -> None:
    """Lengths on the wire count: what is inside may have been cut."""
    packet = make.vxlan(make.ethernet(V4))[:-6]
    assert inner(packet) == V4[:-6]
