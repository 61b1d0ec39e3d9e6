"""Link layers: where the IP header is found, and where nothing is."""

from __future__ import annotations

import struct

import pytest

from tcpcopy.packet import frame as found_in
from tcpcopy.packet import links
from tcpcopy.packet.frame import Frame
from tests.lab import capture_files as make
from tests.lab import encapsulations as wrapped

V4 = make.tcp("198.51.100.7:40000", "10.0.0.1:80", make.ACK, b"data")
V6 = make.tcp("[2001:db8::7]:40000", "[2001:db8::1]:80", make.ACK, b"data")
ARP = bytes(28)
BOTH = pytest.mark.parametrize("packet", [V4, V6], ids=["v4", "v6"])


def look(frame: bytes, link_type: int) -> tuple[bytes | int, Frame]:
    """The IP packet in the frame, or the reason; the frame stands within other bytes."""
    data = b"\xee" * 7 + frame + b"\xee" * 5
    account = Frame()
    start = links.network_offset(data, 7, 7 + len(frame), link_type, account)
    return (data[start : 7 + len(frame)] if start >= 0 else start), account


def found(frame: bytes, link_type: int) -> bytes | int:
    """The same without the account."""
    return look(frame, link_type)[0]


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
    assert found(struct.pack("<I", 7) + V4, 0) == found_in.NOT_IP


@BOTH
@pytest.mark.parametrize("name", wrapped.LINKS)
def test_each_header_of_the_link_layer(packet: bytes, name: str) -> None:
    link_type, make_frame = wrapped.LINKS[name]
    frame = make_frame(packet)
    read, account = look(frame, link_type)
    expected = wrapped.authenticated(packet) if name == "authentication header" else packet
    assert isinstance(read, bytes) and read.startswith(expected)
    assert account.unread == 0
    assert link_type in links.LINK_NAMES


@pytest.mark.parametrize("name", wrapped.LINKS)
def test_cut_anywhere(name: str) -> None:
    """Whatever is missing of link and IP header: it is never looked for outside of the frame."""
    link_type, make_frame = wrapped.LINKS[name]
    frame = make_frame(V4)
    head = len(frame) - len(V4)
    for size in range(len(frame)):
        read = found(frame[:size], link_type)
        assert isinstance(read, bytes) == (size >= head + 20) or name in _WITH_TRAILER, size


# There is more behind the packet, or another packet is looked for.
_WITH_TRAILER = ("macsec in clear", "macsec with channel", "authentication header", "nflog")


@pytest.mark.parametrize("order", ["<", ">"])
def test_netfilter_of_hosts_of_either_byte_order(order: str) -> None:
    assert found(wrapped.nflog(V4, order), 239) == V4


def test_the_byte_counts_of_pktap_are_believed_within_bounds() -> None:
    frame = wrapped.pktap(make.ethernet(V4), 1)
    assert found(struct.pack("<I", 8) + frame[4:], 258) == found_in.NOT_IP
    assert found(struct.pack("<I", 2000) + frame[4:], 258) == found_in.NOT_IP
    assert found(struct.pack("<I", 1000) + frame[4:], 258) == found_in.SHORT
    # Link type 149 is anybody's.
    assert found(struct.pack("<I", 2000) + frame[4:], 149) == found_in.UNKNOWN_LINK
    assert found(wrapped.pktap(V4, 147), 258) == found_in.UNKNOWN_LINK
    # One within the other is followed only so far.
    nested = make.ethernet(V4)
    for _ in range(4):
        nested = wrapped.pktap(nested, 1 if nested[:2] == make.MACS[:2] else 258)
    assert found(nested, 258) == found_in.UNKNOWN_LINK


@pytest.mark.parametrize(
    ("frame", "link_type", "name"),
    [
        (wrapped.shim(0x88E5, b"\x0c\0\0\0\0\1", V4), 1, found_in.MACSEC),
        (make.ethernet(wrapped.mpls(1) + b"\x50" + V4, kind=0x8847), 1, found_in.MPLS),
        (make.ethernet(b"\0\1\0\xff" * 9 + V4, kind=0x8847), 1, found_in.MPLS),
        (make.ethernet(wrapped.nsh(V4, 9), kind=0x894F), 1, found_in.NSH),
        (b"\x00\x3d" + V4, 9, found_in.PPP),
        (b"\x00\x2d" + V4, 9, found_in.PPP),
        (wrapped.wireless(bytes(60), flags=0x41), 105, found_in.WIRELESS_SECRET),
        (wrapped.wireless(wrapped.snap(V4), flags=5), 105, found_in.WIRELESS_PARTS),
        (
            wrapped.wireless(
                wrapped.aggregate(V4) + b"\0" * (-len(wrapped.aggregate(V4)) % 4)
                + wrapped.aggregate(V4),
                quality=0x80,
            ),
            105,
            found_in.WIRELESS_SEVERAL,
        ),
        (
            wrapped.radiotap(wrapped.wireless(wrapped.snap(V4)), b"\x40", 2),
            127,
            found_in.WIRELESS_DAMAGED,
        ),
    ],
)  # fmt: skip
def test_what_is_known_and_cannot_be_read(frame: bytes, link_type: int, name: int) -> None:
    read, account = look(frame, link_type)
    assert (read, account.unread) == (found_in.NOT_IP, name)


@pytest.mark.parametrize("gap", [b"", bytes(8)], ids=["without", "with its 8 bytes"])
def test_wireless_frames_that_the_driver_has_decrypted(gap: bytes) -> None:
    assert found(wrapped.wireless(gap + wrapped.snap(V4), flags=0x41), 105) == V4


def test_what_is_no_ip() -> None:
    no = found_in.NOT_IP
    assert found(make.ethernet(ARP, kind=0x0806), 1) == no
    assert found(make.ethernet(b"\x50" + bytes(40), kind=0x0800), 1) == no
    assert found(make.ethernet(V4, *[0x8100] * 5), 1) == no
    assert found(make.ethernet(bytes(40), kind=38), 1) == no
    assert found(make.ethernet(b"\x11\xa7" + bytes(40), kind=0x8864), 1) == no  # discovery
    assert found(b"\xc0\x21" + bytes(30), 9) == no
    assert (
        found(wrapped.wireless(wrapped.snap(V4))[:0] + b"\x80\0" + bytes(60), 105) == no
    )  # beacon
    assert found(b"\x48\x01" + bytes(40), 105) == no  # no data
    assert found(V4, 147) == found_in.UNKNOWN_LINK


def test_headers_within_one_another_are_bounded() -> None:
    packet = V4
    for _ in range(20):
        packet = struct.pack("!HHHH", 1, 0, 0, 0x893F) + packet
    assert found(make.MACS + b"\x89\x3f" + packet, 1) == found_in.NOT_IP


def test_names() -> None:
    assert links.link_name(1) == "Ethernet"
    assert links.link_name(147) == "link type 147"
    assert len(found_in.UNREAD_NAMES) == found_in.DEEP + 1


def network(*tags: int) -> int:
    """The virtual network of a frame with these VLANs."""
    frame = make.MACS
    for tag in tags:
        frame += struct.pack("!HH", 0x8100, tag)
    return look(frame + b"\x08\0" + V4, 1)[1].network


def test_virtual_networks() -> None:
    assert network() == 0
    assert network(0) == 0 and network(0xE000) == 0  # a priority is no network
    assert network(100) == network(0xE000 | 100) != 0
    different = [network(1), network(2), network(1, 2), network(2, 1), network(1, 1), network(4094)]
    assert len(set(different)) == len(different)
    assert network(0, 100) == network(100)
