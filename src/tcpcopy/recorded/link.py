"""From a captured frame to the IP packet in it: link-layer headers, tags and tunnels.

Works on any buffer, of files and of live capture. Nothing is allocated, every read is checked
against the captured bytes, loops are bounded.

Source: the link types of tcpdump.org/linktypes.html; IEEE 802.1Q and 802.1ad; RFC 2516 (PPPoE),
RFC 3032 (MPLS), RFC 2784 and 2890 (GRE), RFC 2003 and 4213 (IP in IP), RFC 7348 (VXLAN).
"""

from __future__ import annotations

from typing import Any

NOT_IP = -1  # ARP, LLC and whatever else is no IP
SHORT = -2  # cut within the headers, or empty
UNKNOWN_LINK = -3  # a link type that cannot be read

_NOT_IP = NOT_IP
_SHORT = SHORT
_UNKNOWN_LINK = UNKNOWN_LINK

_MOST_TAGS = 4  # VLAN tags of one frame
_MOST_LABELS = 8  # MPLS labels of one frame
_MOST_EXTENSIONS = 8  # IPv6 extension headers
_MOST_TUNNELS = 2  # levels taken off by `inner_packet`
_VXLAN_PORT = 4789
_VXLAN_PORT_LINUX = 8472  # the Linux kernel's default, from before there was a registered one

LINK_NAMES = {
    0: "BSD loopback",
    1: "Ethernet",
    9: "PPP",
    12: "raw IP",
    14: "raw IP",
    101: "raw IP",
    108: "OpenBSD loopback",
    113: "Linux cooked v1",
    228: "raw IPv4",
    229: "raw IPv6",
    276: "Linux cooked v2",
}


def link_name(link_type: int) -> str:
    """The name of a link type: `Ethernet`, or `link type 147` for one that cannot be read."""
    return LINK_NAMES.get(link_type, f"link type {link_type}")


def _read16(data: Any, at: int) -> int:
    number: int = (data[at] << 8) | data[at + 1]
    return number


def network_offset(data: Any, start: int, end: int, link_type: int) -> int:
    """Where the IP header stands in the frame `data[start:end]`, or one of the reasons above.

    `link_type` is the LINKTYPE_ number of the file. Nothing but the version of the IP header has
    been looked at; 20 bytes of it are there.
    """
    if link_type == 1:
        if end - start < 14:
            return _SHORT
        return _typed(data, _read16(data, start + 12), start + 14, end)
    if link_type == 113:
        if end - start < 16:
            return _SHORT
        return _typed(data, _read16(data, start + 14), start + 16, end)
    if link_type == 276:
        if end - start < 20:
            return _SHORT
        return _typed(data, _read16(data, start), start + 20, end)
    if link_type in (12, 14, 101, 228, 229):
        return _ip(data, start, end)
    if link_type in (0, 108):
        return _loopback(data, start, end)
    if link_type == 9:
        if end - start >= 2 and data[start] == 0xFF and data[start + 1] == 3:
            start += 2
        return _ppp(data, start, end)
    return _UNKNOWN_LINK


def _ip(data: Any, at: int, end: int) -> int:
    """`at`, if an IP header begins there."""
    if end - at < 20:
        return _SHORT
    version = data[at] >> 4
    if version == 4 or version == 6:
        return at
    return _NOT_IP


def _typed(data: Any, kind: int, at: int, end: int) -> int:
    """The IP header behind an EtherType `kind` whose payload begins at `at`."""
    tags = 0
    while kind in (0x8100, 0x88A8, 0x9100, 0x9200):
        if end - at < 4:
            return _SHORT
        if tags == _MOST_TAGS:
            return _NOT_IP
        kind = _read16(data, at + 2)
        at += 4
        tags += 1
    if kind == 0x0800 or kind == 0x86DD:
        return _ip(data, at, end)
    if kind == 0x8864:
        if end - at < 6:
            return _SHORT
        return _ppp(data, at + 6, end)
    if kind == 0x8847 or kind == 0x8848:
        return _labelled(data, at, end)
    if kind <= 1500 and end - at >= 8 and _is_snap(data, at):
        kind = _read16(data, at + 6)
        if kind == 0x0800 or kind == 0x86DD:
            return _ip(data, at + 8, end)
    return _NOT_IP


def _is_snap(data: Any, at: int) -> bool:
    """Whether LLC and SNAP headers that carry an EtherType stand there (RFC 1042)."""
    if data[at] != 0xAA or data[at + 1] != 0xAA or data[at + 2] != 3:
        return False
    return not (data[at + 3] or data[at + 4] or data[at + 5])


def _ppp(data: Any, at: int, end: int) -> int:
    if end - at < 2:
        return _SHORT
    protocol = _read16(data, at)
    if protocol == 0x0021 or protocol == 0x0057:
        return _ip(data, at + 2, end)
    return _NOT_IP


def _labelled(data: Any, at: int, end: int) -> int:
    """Behind an MPLS label stack, which does not say what it carries."""
    labels = 0
    while labels < _MOST_LABELS:
        if end - at < 4:
            return _SHORT
        is_last = data[at + 2] & 1
        at += 4
        if is_last:
            return _ip(data, at, end)
        labels += 1
    return _NOT_IP


def _loopback(data: Any, at: int, end: int) -> int:
    """Behind an address family of 4 bytes, in the byte order of the host that captured."""
    if end - at < 4:
        return _SHORT
    if data[at] == 0 and data[at + 1] == 0:
        family = _read16(data, at + 2)
    else:
        family = data[at] | (data[at + 1] << 8)
    # 2 is IPv4 everywhere, IPv6 is 10, 24, 28 or 30 by the system.
    if family in (2, 10, 24, 28, 30):
        return _ip(data, at + 4, end)
    return _NOT_IP


def inner_packet(data: Any, start: int, end: int) -> int:
    """Where the innermost IP packet of the IP packet at `data[start]` begins.

    Takes off up to two tunnels (VXLAN, GRE, IP in IP). `start` itself when it is no tunnel, is a
    fragment, or what is inside is not an IP packet that fits into it.
    """
    at = start
    tunnels = 0
    while tunnels < _MOST_TUNNELS:
        inside = one_tunnel(data, at, end)
        if inside == at:
            return at
        at = inside
        tunnels += 1
    return at


def one_tunnel(data: Any, start: int, end: int) -> int:
    """As `inner_packet`, one tunnel only."""
    if end - start < 20:
        return start
    version = data[start] >> 4
    if version == 4:
        at = start + (data[start] & 15) * 4
        outer_end = start + _read16(data, start + 2)
        protocol = data[start + 9]
        if at < start + 20 or _read16(data, start + 6) & 0x3FFF:
            return start
    elif version == 6:
        if end - start < 40:
            return start
        at = start + 40
        outer_end = at + _read16(data, start + 4)
        protocol = data[start + 6]
        extensions = 0
        while protocol in (0, 43, 60) and extensions < _MOST_EXTENSIONS:
            if end - at < 8:
                return start
            protocol = data[at]
            at += 8 + data[at + 1] * 8
            extensions += 1
    else:
        return start
    inside = _NOT_IP
    if protocol == 4 or protocol == 41:
        inside = _ip(data, at, end)
    elif protocol == 47:
        inside = _gre(data, at, end)
    elif protocol == 17:
        inside = _vxlan(data, at, end)
    if inside >= 0 and _fits(data, inside, end, outer_end):
        return inside
    return start


def _gre(data: Any, at: int, end: int) -> int:
    if end - at < 4:
        return _NOT_IP
    flags = data[at]
    if data[at + 1] & 7 or flags & 0x40:
        return _NOT_IP  # another version (PPTP), or source routes
    kind = _read16(data, at + 2)
    at += 4
    if flags & 0x80:
        at += 4  # checksum
    if flags & 0x20:
        at += 4  # key
    if flags & 0x10:
        at += 4  # sequence number
    if kind == 0x0800 or kind == 0x86DD:
        return _ip(data, at, end)
    if kind == 0x6558 and end - at >= 14:
        return _typed(data, _read16(data, at + 12), at + 14, end)
    return _NOT_IP


def _vxlan(data: Any, at: int, end: int) -> int:
    if end - at < 8 + 8 + 14:
        return _NOT_IP
    port = _read16(data, at + 2)
    if port != _VXLAN_PORT and port != _VXLAN_PORT_LINUX:
        return _NOT_IP
    if not data[at + 8] & 8 or data[at + 15]:
        return _NOT_IP  # no network identifier, or the reserved byte is used
    at += 8 + 8
    return _typed(data, _read16(data, at + 12), at + 14, end)


def _fits(data: Any, at: int, end: int, outer_end: int) -> bool:
    """Whether the header at `at` is sound and its packet ends within what carries it.

    Lengths on the wire are compared: the captured bytes may end earlier.
    """
    if data[at] >> 4 == 4:
        header = (data[at] & 15) * 4
        total = _read16(data, at + 2)
        return 20 <= header <= total and at + total <= outer_end
    if end - at < 40:
        return False
    return at + 40 + _read16(data, at + 4) <= outer_end
