"""Frames of all encapsulations that are read, written byte by byte from their specifications.

`TUNNELS`, `TEREDO` and `LINKS` have one maker for each member of each kind: it takes an IP packet
and gives a frame of the link type beside it. Whether they are what the
specifications say is checked with another reader (tests/netns/test_encapsulations.py).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from tests.lab.capture_files import MACS, ethernet, ethertype, ip, udp

ETHERNET, PPP, RAW = 1, 9, 101
Maker = Callable[[bytes], bytes]

OUTER = ("192.0.2.1:50000", "192.0.2.2:")
OUTER_V6 = ("[2001:db8:ffff::1]:50000", "[2001:db8:ffff::2]:")


def to_port(port: int, payload: bytes, *, v6: bool = False) -> bytes:
    """An IP packet with UDP to a port of the outer host."""
    source, destination = OUTER_V6 if v6 else OUTER
    return udp(source, f"{destination}{port}", payload)


def carried_by(protocol: int, body: bytes, *, v6: bool = False) -> bytes:
    """An IP packet of that protocol."""
    source, destination = OUTER_V6 if v6 else OUTER
    return ip(source, f"{destination}0", protocol, body)


def shim(kind: int, header: bytes, packet: bytes, following: int = 0) -> bytes:
    """A frame with a header of `kind` before the EtherType of what follows."""
    return (
        MACS
        + struct.pack("!H", kind)
        + header
        + (struct.pack("!H", following or ethertype(packet)) + packet)
    )


def vxlan(frame: bytes, *, flags: int = 8, vni: int = 42, rest: bytes = bytes(4), port: int = 4789,
          v6: bool = False) -> bytes:  # fmt: skip
    """`rest`: the three bytes behind the flags, and the last one."""
    head = bytes([flags]) + rest[:3] + vni.to_bytes(3, "big") + rest[3:]
    return to_port(port, head + frame, v6=v6)


def gpe(payload: bytes, following: int, *, flags: int = 0x0C, port: int = 4790) -> bytes:
    """VXLAN-GPE."""
    return to_port(port, bytes([flags, 0, 0, following, 0, 0, 42, 0]) + payload)


def geneve(payload: bytes, kind: int, options: bytes = b"", *, vni: int = 42, v6: bool = False
           ) -> bytes:  # fmt: skip
    """GENEVE; `options` whole."""
    head = struct.pack("!BBH", len(options) // 4, 0, kind) + vni.to_bytes(3, "big") + b"\0"
    return to_port(6081, head + options + payload, v6=v6)


def gtp(packet: bytes, *, sequence: bool = False, extensions: bytes = b"") -> bytes:
    """GTP-U; `extensions`: each with its length, its content and the type of the next."""
    flags = 0x30 | (2 if sequence else 0) | (4 if extensions else 0)
    more = b""
    if sequence or extensions:
        more = struct.pack("!HBB", 7, 0, 0x85 if extensions else 0) + extensions
    return to_port(
        2152, struct.pack("!BBHI", flags, 255, len(more) + len(packet), 77) + more + packet
    )


def gre(payload: bytes, kind: int, *, checksum: bool = False, key: int | None = None,
        sequence: bool = False, v6: bool = False) -> bytes:  # fmt: skip
    """GRE with the fields that are asked for."""
    flags = (0x8000 if checksum else 0) | (0x2000 if key is not None else 0)
    flags |= 0x1000 if sequence else 0
    head = struct.pack("!HH", flags, kind) + (bytes(4) if checksum else b"")
    head += b"" if key is None else struct.pack("!I", key)
    return carried_by(47, head + (b"\0\0\0\1" if sequence else b"") + payload, v6=v6)


def erspan_two(frame: bytes, vlan: int = 0, session: int = 7) -> bytes:
    """ERSPAN type II."""
    head = struct.pack("!HHI", 0x1000 | vlan, session, 3)
    return gre(head + frame, 0x88BE, sequence=True)


def erspan_three(payload: bytes, *, vlan: int = 0, platform: bool = False, frame_type: int = 0
                 ) -> bytes:  # fmt: skip
    """ERSPAN type III, with its platform part or without."""
    last = (frame_type << 10) | (1 if platform else 0)
    head = struct.pack("!HHIHH", 0x2000 | vlan, 7, 12345, 0, last) + (bytes(8) if platform else b"")
    return gre(head + payload, 0x22EB, sequence=True)


def pptp(packet: bytes, *, short: bool = False, acknowledges: bool = False) -> bytes:
    """GRE with PPP, as PPTP has it."""
    protocol = 0x21 if packet[0] >> 4 == 4 else 0x57
    payload = (bytes([protocol]) if short else b"\xff\3" + struct.pack("!H", protocol)) + packet
    flags = 0x3001 | (0x80 if acknowledges else 0)
    head = struct.pack("!HHHHI", flags, 0x880B, len(payload), 5, 9)
    return carried_by(47, head + (b"\0\0\0\3" if acknowledges else b"") + payload)


def authenticated(packet: bytes) -> bytes:
    """The packet with an authentication header of 24 bytes before what it carries."""
    head = bytes([6, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]) + b"\x49" * 12
    if packet[0] >> 4 == 4:
        total = struct.unpack("!H", packet[2:4])[0] + 24
        return (
            packet[:2]
            + struct.pack("!H", total)
            + packet[4:9]
            + b"\x33"
            + packet[10:20]
            + (head + packet[20:])
        )
    length = struct.unpack("!H", packet[4:6])[0] + 24
    return packet[:4] + struct.pack("!HB", length, 51) + packet[7:40] + head + packet[40:]


def tzsp(kind: int, frame: bytes, tags: bytes = b"\x0a\x01\x30\0\0\x01") -> bytes:
    """TZSP with a tag, padding and the end mark, or those given."""
    return to_port(37008, struct.pack("!BBH", 1, 0, kind) + tags + frame)


def mpls(*labels: int) -> bytes:
    """A label stack."""
    last = len(labels) - 1
    return b"".join(
        struct.pack("!I", label << 12 | (0x100 if place == last else 0) | 64)
        for place, label in enumerate(labels)
    )


def ppp(packet: bytes, *, short: bool = False) -> bytes:
    """Protocol and packet."""
    protocol = 0x21 if packet[0] >> 4 == 4 else 0x57
    return (bytes([protocol]) if short else struct.pack("!H", protocol)) + packet


def pppoe(payload: bytes) -> bytes:
    """A PPPoE session's frame without Ethernet."""
    return struct.pack("!BBHH", 0x11, 0, 7, len(payload)) + payload


def snap(packet: bytes) -> bytes:
    """LLC and SNAP."""
    return b"\xaa\xaa\3\0\0\0" + struct.pack("!H", ethertype(packet)) + packet


def wireless(payload: bytes, *, flags: int = 1, quality: int | None = None, padded: bool = False
             ) -> bytes:  # fmt: skip
    """An 802.11 data frame."""
    addresses = b"\2\0\0\0\0\1\2\0\0\0\0\2\2\0\0\0\0\3"
    head = bytes([0x08 if quality is None else 0x88, flags, 0, 0]) + addresses + bytes(2)
    head += b"\2\0\0\0\0\4" if flags & 3 == 3 else b""
    head += b"" if quality is None else bytes([quality, 0])
    return head + (bytes(-len(head) % 4) if padded else b"") + payload


def radiotap(frame: bytes, fields: bytes = b"", present: int = 0, words: int = 1) -> bytes:
    """A radiotap header with `words` bitmaps, the first of them with `present`."""
    bitmaps = struct.pack("<I", present | (0x80000000 if words > 1 else 0))
    bitmaps += b"".join(
        struct.pack("<I", 0x20000000 | (0x80000000 if left else 0))
        for left in reversed(range(words - 1))
    )
    return struct.pack("<BBH", 0, 0, 4 + len(bitmaps) + len(fields)) + bitmaps + fields + frame


def aggregate(packet: bytes) -> bytes:
    """One subframe of an 802.11 aggregate."""
    body = snap(packet)
    return MACS + struct.pack("!H", len(body)) + body


def pktap(frame: bytes, link: int, size: int = 108) -> bytes:
    """Apple's header for frames of any link type."""
    head = struct.pack("<III", size, 1, link) + b"en0".ljust(24, b"\0")
    return head.ljust(size, b"\0") + frame


def nflog(packet: bytes, order: str = "<") -> bytes:
    """A netfilter message: a prefix of the rule and a time before the packet."""
    parts = [(10, b"rule\0"), (3, bytes(16)), (9, packet)]
    body = b"".join(
        struct.pack(order + "HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
        for kind, value in parts
    )
    return bytes([2 if packet[0] >> 4 == 4 else 10, 0, 0, 0]) + body


def nsh(payload: bytes, following: int) -> bytes:
    """A network service header with fixed metadata."""
    return struct.pack("!BBBB", 0, 0x46, 1, following) + bytes(20) + payload


_OPTION = struct.pack("!HBB", 0x0102, 0x80, 1) + b"abcd"  # a critical one, 4 bytes long
_TEREDO_ORIGIN = b"\0\0\x12\x34" + b"\xff\xfe\xfd\xfc"
_TEREDO_AUTHENTICATION = b"\0\1\2\3ABabc" + bytes(8) + b"\0"


def _over(make: Maker, *, v6: bool = False) -> tuple[int, Maker]:
    """An IP packet made by `make`, in Ethernet."""
    return ETHERNET, lambda packet: ethernet(make(packet))


def _link(number: int, make: Maker) -> tuple[int, Maker]:
    return number, make


#: Tunnels: those that need the packet to be in another one.
TUNNELS: dict[str, tuple[int, Maker]] = {
    "vxlan": _over(lambda p: vxlan(ethernet(p))),
    "vxlan over ipv6": _over(lambda p: vxlan(ethernet(p), v6=True)),
    "vxlan, linux": _over(lambda p: vxlan(ethernet(p), port=8472)),
    "vxlan, tagged inside": _over(lambda p: vxlan(ethernet(p, 0x8100))),
    "vxlan, reserved bits": _over(lambda p: vxlan(ethernet(p), flags=0x8, rest=b"\0\0\0\xff")),
    "vxlan, group policy": _over(lambda p: vxlan(ethernet(p), flags=0x88, rest=b"\x48\x12\x34\0")),
    "vxlan, all reserved": _over(
        lambda p: vxlan(ethernet(p), flags=0xFF, rest=b"\xff\xff\xff\xff")
    ),
    "vxlan-gpe ip": _over(lambda p: gpe(p, 1 if p[0] >> 4 == 4 else 2)),
    "vxlan-gpe ethernet": _over(lambda p: gpe(ethernet(p), 3)),
    "vxlan-gpe nsh": _over(lambda p: gpe(nsh(p, 1 if p[0] >> 4 == 4 else 2), 4)),
    "geneve": _over(lambda p: geneve(ethernet(p), 0x6558)),
    "geneve, options": _over(lambda p: geneve(ethernet(p), 0x6558, _OPTION * 3)),
    "geneve, most options": _over(lambda p: geneve(ethernet(p), 0x6558, (_OPTION * 32)[:252])),
    "geneve ip over ipv6": _over(lambda p: geneve(p, ethertype(p), _OPTION, v6=True)),
    "gtp-u": _over(gtp),
    "gtp-u, sequence": _over(lambda p: gtp(p, sequence=True)),
    "gtp-u, extensions": _over(lambda p: gtp(p, extensions=b"\1\0\5\x85\1\0\6\0")),
    "gre ip": _over(lambda p: gre(p, ethertype(p))),
    "gre ip over ipv6": _over(lambda p: gre(p, ethertype(p), v6=True)),
    "gre, all fields": _over(lambda p: gre(p, ethertype(p), checksum=True, key=9, sequence=True)),
    "nvgre": _over(lambda p: gre(ethernet(p), 0x6558, key=0x2A01)),
    "gre mpls": _over(lambda p: gre(mpls(100) + p, 0x8847)),
    "gre wccp": _over(lambda p: gre(b"\1\2\3\4" + p, 0x883E)),
    "erspan 1": _over(lambda p: gre(ethernet(p), 0x88BE)),
    "erspan 2": _over(lambda p: erspan_two(ethernet(p))),
    "erspan 2, vlan": _over(lambda p: erspan_two(ethernet(p, 0x8100), vlan=100)),
    "erspan 3": _over(lambda p: erspan_three(ethernet(p))),
    "erspan 3, platform": _over(lambda p: erspan_three(ethernet(p), vlan=5, platform=True)),
    "erspan 3, ip": _over(lambda p: erspan_three(p, frame_type=2)),
    "pptp": _over(pptp),
    "pptp, short protocol": _over(lambda p: pptp(p, short=True, acknowledges=True)),
    "ip in ip": _over(lambda p: carried_by(4 if p[0] >> 4 == 4 else 41, p)),
    "ip in ipv6": _over(lambda p: carried_by(4 if p[0] >> 4 == 4 else 41, p, v6=True)),
    "etherip": _over(lambda p: carried_by(97, b"\x30\0" + ethernet(p))),
    "mpls in ip": _over(lambda p: carried_by(137, mpls(16, 17) + p)),
    "mpls in udp": _over(lambda p: to_port(6635, mpls(16) + p)),
    "tzsp": _over(lambda p: tzsp(1, ethernet(p))),
    "tzsp, wireless": _over(lambda p: tzsp(18, wireless(snap(p)), b"\1")),
    "vxlan in erspan": _over(lambda p: erspan_two(ethernet(vxlan(ethernet(p))))),
    "pbb": _link(
        ETHERNET, lambda p: shim(0x88E7, b"\0\0\0\x64", ethernet(p)[14:])[:18] + ethernet(p)
    ),
}
#: IPv6 alone.
TEREDO: dict[str, tuple[int, Maker]] = {
    "teredo": _over(lambda p: to_port(3544, p)),
    "teredo, origin": _over(lambda p: to_port(3544, _TEREDO_ORIGIN + p)),
    "teredo, both": _over(lambda p: to_port(3544, _TEREDO_AUTHENTICATION + _TEREDO_ORIGIN + p)),
}
#: Headers of the link layer, and link types.
LINKS: dict[str, tuple[int, Maker]] = {
    "vlan": _link(ETHERNET, lambda p: ethernet(p, 0x8100)),
    "qinq": _link(ETHERNET, lambda p: ethernet(p, 0x88A8, 0x8100)),
    "pppoe": _link(ETHERNET, lambda p: ethernet(pppoe(ppp(p)), kind=0x8864)),
    "pppoe, short protocol": _link(
        ETHERNET, lambda p: ethernet(pppoe(ppp(p, short=True)), kind=0x8864)
    ),
    "mpls": _link(ETHERNET, lambda p: ethernet(mpls(100, 200) + p, kind=0x8847)),
    "mpls pseudowire": _link(
        ETHERNET, lambda p: ethernet(mpls(100) + bytes(4) + ethernet(p), kind=0x8847)
    ),
    "e-tag": _link(ETHERNET, lambda p: shim(0x893F, b"\0\0\0\1\0\0", p)),
    "vn-tag": _link(ETHERNET, lambda p: shim(0x8926, b"\0\x01\0\x02", p)),
    "security group": _link(ETHERNET, lambda p: shim(0x8909, b"\1\1\0\1\0\5", p)),
    "macsec in clear": _link(ETHERNET, lambda p: shim(0x88E5, b"\0\0\0\0\0\1", p) + bytes(16)),
    "macsec with channel": _link(
        ETHERNET, lambda p: shim(0x88E5, b"\x20\0\0\0\0\1" + bytes(8), p) + bytes(16)
    ),
    "nsh": _link(ETHERNET, lambda p: ethernet(nsh(p, 1 if p[0] >> 4 == 4 else 2), kind=0x894F)),
    "snap": _link(ETHERNET, lambda p: ethernet(snap(p), kind=len(snap(p)))),
    "ppp": _link(9, ppp),
    "ppp, all of it": _link(9, lambda p: b"\xff\3" + ppp(p)),
    "ppp, short protocol": _link(9, lambda p: ppp(p, short=True)),
    "ppp in hdlc": _link(50, lambda p: b"\xff\3" + ppp(p)),
    "cisco in ppp": _link(50, lambda p: struct.pack("!BBH", 0x0F, 0, ethertype(p)) + p),
    "pppoe alone": _link(51, lambda p: pppoe(ppp(p))),
    "cisco hdlc": _link(104, lambda p: struct.pack("!BBH", 0x0F, 0, ethertype(p)) + p),
    "ppp, direction": _link(204, lambda p: b"\0\xff\3" + ppp(p)),
    "cisco hdlc, direction": _link(
        205, lambda p: b"\0" + struct.pack("!BBH", 0x8F, 0, ethertype(p)) + p
    ),
    "wireless": _link(105, lambda p: wireless(snap(p))),
    "wireless, four addresses": _link(105, lambda p: wireless(snap(p), flags=3)),
    "wireless, quality": _link(105, lambda p: wireless(snap(p), quality=0)),
    "wireless, aggregate of one": _link(105, lambda p: wireless(aggregate(p), quality=0x80)),
    "radiotap": _link(127, lambda p: radiotap(wireless(snap(p)))),
    "radiotap, flags": _link(127, lambda p: radiotap(wireless(snap(p)), b"\0", 2)),
    "radiotap, padded": _link(
        127, lambda p: radiotap(wireless(snap(p), quality=0, padded=True), b"\x20", 2)
    ),
    "radiotap, time and padded": _link(
        127,
        lambda p: radiotap(wireless(snap(p), quality=0, padded=True), bytes(8) + b"\x20", 3),
    ),
    "radiotap, more bitmaps": _link(
        127,
        lambda p: radiotap(
            wireless(snap(p), quality=0, padded=True), bytes(4) + bytes(8) + b"\x20", 3, 2
        ),
    ),
    "prism": _link(
        119, lambda p: struct.pack("<II", 0x44, 144).ljust(144, b"\0") + wireless(snap(p))
    ),
    "avs": _link(
        163, lambda p: struct.pack("!II", 0x80211001, 64).ljust(64, b"\0") + wireless(snap(p))
    ),
    "ppi": _link(192, lambda p: struct.pack("<BBHI", 0, 0, 8, 105) + wireless(snap(p))),
    "nflog": _link(239, nflog),
    "pktap ethernet": _link(258, lambda p: pktap(ethernet(p), 1)),
    "pktap raw": _link(258, lambda p: pktap(p, 12, 156)),
    "pktap loopback": _link(
        258, lambda p: pktap(struct.pack("<I", 2 if p[0] >> 4 == 4 else 30) + p, 0)
    ),
    "pktap radiotap": _link(258, lambda p: pktap(radiotap(wireless(snap(p))), 127)),
    "pktap, old number": _link(149, lambda p: pktap(ethernet(p), 1)),
    "authentication header": _link(ETHERNET, lambda p: ethernet(authenticated(p))),
}  # fmt: skip


def fragments(packet: bytes, size: int = 1480, number: int = 777) -> list[bytes]:
    """An IP packet of either family cut into fragments with `size` bytes of payload each.

    The packet itself where that is one.
    """
    is_v4 = packet[0] >> 4 == 4
    head, body = (packet[:20], packet[20:]) if is_v4 else (packet[:40], packet[40:])
    size = size // 8 * 8
    made: list[bytes] = []
    if len(body) <= size:
        return [packet]
    for at in range(0, len(body), size):
        piece = body[at : at + size]
        more = at + size < len(body)
        if is_v4:
            field = at // 8 | (0x2000 if more else 0)
            length = struct.pack("!HHH", 20 + len(piece), number, field)
            made.append(head[:2] + length + head[8:] + piece)
        else:
            extension = struct.pack("!BBHI", head[6], 0, at | (1 if more else 0), number)
            length = struct.pack("!HB", 8 + len(piece), 44)
            made.append(head[:4] + length + head[7:] + extension + piece)
    return made
