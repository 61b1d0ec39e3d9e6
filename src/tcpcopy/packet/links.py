"""From a captured frame to the IP packet in it: link-layer headers and tags.

Works on any buffer, of files and of live capture. Nothing is allocated, every read is checked
against the captured bytes, loops are bounded. What goes on inside of the IP packet is not looked
at: `tunnels` does.

Source: the link types of tcpdump.org/linktypes.html; IEEE 802.1Q, 802.1ad, 802.1ah (PBB), 802.1BR
(E-tag), 802.1AE (MACsec), 802.3 and 802.11; RFC 1042 (SNAP), RFC 1661 and 1662 (PPP), RFC 2516
(PPPoE), RFC 3032 (MPLS), RFC 4385 and 4448 (Ethernet over MPLS), RFC 8300 (NSH); radiotap.org.
"""

from __future__ import annotations

from typing import Any

from tcpcopy.packet import frame as found_in
from tcpcopy.packet.frame import Frame

_NOT_IP = found_in.NOT_IP
_SHORT = found_in.SHORT
_UNKNOWN_LINK = found_in.UNKNOWN_LINK
_VLAN = found_in.VLAN
_SERVICE = found_in.SERVICE
_LABEL = found_in.LABEL
_MACSEC = found_in.MACSEC
_MPLS = found_in.MPLS
_NSH = found_in.NSH
_PPP = found_in.PPP
_WIRELESS_SECRET = found_in.WIRELESS_SECRET
_WIRELESS_PARTS = found_in.WIRELESS_PARTS
_WIRELESS_SEVERAL = found_in.WIRELESS_SEVERAL
_WIRELESS_DAMAGED = found_in.WIRELESS_DAMAGED

_MOST_HEADERS = 12  # tags and shims between the link layer and IP
_MOST_VLANS = 4
_MOST_LABELS = 8  # MPLS labels of one frame
_MOST_LINKS = 3  # link types within one another (PKTAP, radiotap, 802.11)
_MOST_RECORDS = 32  # parts of an NFLOG message
_MOST_WORDS = 16  # of a radiotap bitmap
_LONGEST_PKTAP = 1024

# EtherTypes; those of LLC and PPP are used here as names of what follows.
_IPV4, _IPV6 = 0x0800, 0x86DD
_LLC = 0  # any number up to 1,500 is a length, and LLC follows
_ETHERNET = 0x6558
_PPP_KIND = 0x880B
_MPLS_KIND = 0x8847

LINK_NAMES = {
    0: "BSD loopback",
    1: "Ethernet",
    9: "PPP",
    12: "raw IP",
    14: "raw IP",
    50: "PPP in HDLC frames",
    51: "PPPoE",
    101: "raw IP",
    104: "Cisco HDLC",
    105: "802.11",
    108: "OpenBSD loopback",
    113: "Linux cooked v1",
    119: "802.11 with a Prism header",
    127: "802.11 with radiotap",
    149: "PKTAP",
    163: "802.11 with an AVS header",
    192: "PPI",
    204: "PPP with direction",
    205: "Cisco HDLC with direction",
    228: "raw IPv4",
    229: "raw IPv6",
    239: "NFLOG",
    258: "PKTAP",
    276: "Linux cooked v2",
}


def link_name(link_type: int) -> str:
    """The name of a link type: `Ethernet`, or `link type 147` for one that cannot be read."""
    return LINK_NAMES.get(link_type, f"link type {link_type}")


def read16(data: Any, at: int) -> int:
    """A 16-bit number in network order."""
    number: int = (data[at] << 8) | data[at + 1]
    return number


def _read16_little(data: Any, at: int) -> int:
    number: int = data[at] | (data[at + 1] << 8)
    return number


def _read32_little(data: Any, at: int) -> int:
    high = _read16_little(data, at + 2)
    return (high << 16) | _read16_little(data, at)


def network_offset(data: Any, start: int, end: int, link_type: int, frame: Frame) -> int:
    """Where the IP header stands in the frame `data[start:end]`, or one of the reasons of `frame`.

    `link_type` is the LINKTYPE_ number of the file. Nothing but the version of the IP header has
    been looked at; 20 bytes of it are there. `frame` learns of virtual networks, and of what was
    recognised and cannot be read.
    """
    if link_type == 1:
        if end - start < 14:
            return _SHORT
        return typed(data, read16(data, start + 12), start + 14, end, frame)
    if link_type == 113:
        if end - start < 16:
            return _SHORT
        return typed(data, read16(data, start + 14), start + 16, end, frame)
    if link_type == 276:
        if end - start < 20:
            return _SHORT
        return typed(data, read16(data, start), start + 20, end, frame)
    if link_type in (12, 14, 101, 228, 229):
        return ip_at(data, start, end)
    return _other_link(data, start, end, link_type, frame)


def _other_link(data: Any, start: int, end: int, link_type: int, frame: Frame) -> int:
    """As `network_offset`; some link types carry frames of another one."""
    links = 0
    while links < _MOST_LINKS:
        links += 1
        if link_type == 258 or link_type == 149:
            # 149 is for private use; Apple's tcpdump writes PKTAP with it.
            if end - start < 12:
                return _SHORT
            size = _read32_little(data, start)
            if size < 12 or size > _LONGEST_PKTAP:
                return _NOT_IP if link_type == 258 else _UNKNOWN_LINK
            if _read32_little(data, start + 4) != 1:
                return _NOT_IP  # not a packet
            link_type = _small(_read32_little(data, start + 8))
            start += size
        elif link_type == 192:
            if end - start < 8:
                return _SHORT
            size = _read16_little(data, start + 2)
            if size < 8:
                return _NOT_IP
            link_type = _small(_read32_little(data, start + 4))
            start += size
        else:
            return _last_link(data, start, end, link_type, frame)
        if start > end:
            return _SHORT
        if link_type in (1, 12, 14, 101):
            if link_type != 1:
                return ip_at(data, start, end)
            if end - start < 14:
                return _SHORT
            return typed(data, read16(data, start + 12), start + 14, end, frame)
    return _UNKNOWN_LINK


def _small(number: int) -> int:
    """A link type; -1 for what is none."""
    return number if number < 65536 else -1


def _last_link(data: Any, start: int, end: int, link_type: int, frame: Frame) -> int:
    if link_type in (0, 108):
        return _loopback(data, start, end)
    if link_type == 9:
        return typed(data, _PPP_KIND, start, end, frame)
    if link_type in (50, 104, 205, 204):
        if link_type > 200:
            start += 1
        return _serial(data, start, end, link_type, frame)
    if link_type == 51:
        return typed(data, 0x8864, start, end, frame)
    if link_type == 239:
        return _netfilter(data, start, end)
    if link_type == 105:
        return _wireless(data, start, end, False, frame)
    if link_type == 127:
        return _radiotap(data, start, end, frame)
    if link_type == 119 or link_type == 163:
        return _old_wireless(data, start, end, frame)
    return _UNKNOWN_LINK


def ip_at(data: Any, at: int, end: int) -> int:
    """`at`, if an IP header begins there, else the reason."""
    if end - at < 20:
        return _SHORT
    version = data[at] >> 4
    if version == 4 or version == 6:
        return at
    return _NOT_IP


def typed(data: Any, kind: int, at: int, end: int, frame: Frame) -> int:
    """The IP header behind an EtherType `kind` whose payload begins at `at`, or the reason."""
    headers = tags = 0
    while headers < _MOST_HEADERS:
        headers += 1
        if kind in (_IPV4, _IPV6):
            return ip_at(data, at, end)
        if kind in (0x8100, 0x88A8, 0x9100, 0x9200):
            if end - at < 4:
                return _SHORT
            if tags == _MOST_VLANS:
                return _NOT_IP
            tags += 1
            if read16(data, at) & 0xFFF:  # 0 is a priority and no network
                frame.enter(_VLAN, read16(data, at) & 0xFFF)
            kind = read16(data, at + 2)
            at += 4
            continue
        size = _shim(data, kind, at, end, frame)
        if size < 0:
            return size
        kind = frame.kind
        at += size
    return _NOT_IP


def _shim(data: Any, kind: int, at: int, end: int, frame: Frame) -> int:
    """Bytes of the header that the EtherType `kind` names, or the reason why it leads nowhere.

    `frame.kind` is the EtherType of what follows it.
    """
    if kind == _MPLS_KIND or kind == 0x8848:
        return _labels(data, at, end, frame)
    if kind == _PPP_KIND:
        return _ppp_header(data, at, end, frame)
    if kind == 0x88E5:
        return _macsec(data, at, end, frame)
    if kind == 0x894F:
        return _service_header(data, at, end, frame)
    if kind <= 1500:
        return _llc(data, at, end, frame)
    size = 0
    if kind == 0x8864 or kind == 0x8926:  # PPPoE, VN-tag
        size = 6
    elif kind == 0x893F or kind == 0x8909:  # E-tag, Cisco's security group tag
        size = 8
    elif kind == _ETHERNET:
        size = 14
    elif kind == 0x88E7:  # PBB: service identifier, then the customer's frame
        size = 18
    if size == 0:
        return _NOT_IP
    if end - at < size:
        return _SHORT
    frame.kind = read16(data, at + size - 2)
    if kind == 0x88E7:
        frame.enter(_SERVICE, (data[at + 1] << 16) | read16(data, at + 2))
    elif kind == 0x8864:
        if data[at + 1]:
            return _NOT_IP  # of the discovery
        frame.kind = _PPP_KIND
    return size


def _macsec(data: Any, at: int, end: int, frame: Frame) -> int:
    if end - at < 8:
        return _SHORT
    if data[at] & 0x0C:  # encrypted, or changed
        frame.unread = _MACSEC
        return _NOT_IP
    size = 16 if data[at] & 0x20 else 8  # with the secure channel's identifier
    if end - at < size:
        return _SHORT
    frame.kind = read16(data, at + size - 2)
    return size


def _labels(data: Any, at: int, end: int, frame: Frame) -> int:
    """An MPLS label stack, which does not say what it carries."""
    labels = 0
    size = 0
    while labels < _MOST_LABELS:
        if end - at - size < 5:
            return _SHORT
        labels += 1
        size += 4
        if data[at + size - 2] & 1:
            frame.enter(_LABEL, (read16(data, at + size - 4) << 4) | (data[at + size - 2] >> 4))
            version = data[at + size] >> 4
            if version == 4 or version == 6:
                frame.kind = _IPV4
                return size
            if version == 0:  # the control word of a pseudowire, which is Ethernet as a rule
                frame.kind = _ETHERNET
                return size + 4
            break
    frame.unread = _MPLS
    return _NOT_IP


def _service_header(data: Any, at: int, end: int, frame: Frame) -> int:
    if end - at < 8:
        return _SHORT
    size = (data[at + 1] & 0x3F) * 4
    following = data[at + 3]
    if data[at] >> 6 or data[at] & 0x20 or size < 8 or following not in (1, 2, 3, 5):
        frame.unread = _NSH
        return _NOT_IP
    if following <= 2:
        frame.kind = _IPV4
    else:
        frame.kind = _ETHERNET if following == 3 else _MPLS_KIND
    return size if end - at >= size else _SHORT


def _ppp_header(data: Any, at: int, end: int, frame: Frame) -> int:
    """Address and control, which may be left out, and the protocol, which may be one byte."""
    size = 0
    if end - at >= 2 and data[at] == 0xFF and data[at + 1] == 3:
        size = 2
    if end - at < size + 2:
        return _SHORT
    if data[at + size] & 1:
        protocol = data[at + size]
        size += 1
    else:
        protocol = read16(data, at + size)
        size += 2
    if protocol == 0x21 or protocol == 0x57:
        frame.kind = _IPV4
        return size
    if protocol == 0x0281 or protocol == 0x0283:
        frame.kind = _MPLS_KIND
        return size
    if protocol in (0x2D, 0x2F, 0x3D, 0x53, 0x55, 0xFB, 0xFD):
        frame.unread = _PPP
    return _NOT_IP


def _llc(data: Any, at: int, end: int, frame: Frame) -> int:
    if end - at < 8:
        return _NOT_IP
    if data[at] == 6 and data[at + 1] == 6 and data[at + 2] == 3:
        frame.kind = _IPV4  # IP without SNAP
        return 3
    if data[at] != 0xAA or data[at + 1] != 0xAA or data[at + 2] != 3:
        return _NOT_IP
    if data[at + 3] or data[at + 4] or (data[at + 5] and data[at + 5] != 0xF8):
        return _NOT_IP  # no EtherType
    frame.kind = read16(data, at + 6)
    return 8 if frame.kind > 1500 else _NOT_IP


def _loopback(data: Any, at: int, end: int) -> int:
    """Behind an address family of 4 bytes, in the byte order of the host that captured."""
    if end - at < 4:
        return _SHORT
    if data[at] == 0 and data[at + 1] == 0:
        family = read16(data, at + 2)
    else:
        family = data[at] | (data[at + 1] << 8)
    # 2 is IPv4 everywhere, IPv6 is 10, 24, 28 or 30 by the system.
    if family in (2, 10, 24, 28, 30):
        return ip_at(data, at + 4, end)
    return _NOT_IP


def _serial(data: Any, at: int, end: int, link_type: int, frame: Frame) -> int:
    """HDLC frames: Cisco's have an address and an EtherType, those of PPP begin with FF 03."""
    if end - at < 4:
        return _SHORT
    if link_type != 204 and (data[at] == 0x0F or data[at] == 0x8F):
        return typed(data, read16(data, at + 2), at + 4, end, frame)
    return typed(data, _PPP_KIND, at, end, frame)


def _netfilter(data: Any, at: int, end: int) -> int:
    """NFLOG: a list of parts, in the byte order of the host; one of them is the packet."""
    if end - at < 4:
        return _SHORT
    at += 4
    records = 0
    while records < _MOST_RECORDS and end - at >= 4:
        records += 1
        if data[at + 3] == 0:  # numbers of parts are small: this tells the byte order
            size = _read16_little(data, at)
            kind = data[at + 2]
        else:
            size = read16(data, at)
            kind = data[at + 3]
        if size < 4:
            return _NOT_IP
        if kind == 9:
            return ip_at(data, at + 4, min(end, at + size))
        at += (size + 3) & 0xFFFC
    return _SHORT if end - at < 4 else _NOT_IP


def _radiotap(data: Any, at: int, end: int, frame: Frame) -> int:
    if end - at < 8:
        return _SHORT
    size = _read16_little(data, at + 2)
    if data[at] or size < 8:
        return _NOT_IP
    if size > end - at:
        return _SHORT
    has_time = data[at + 4] & 1
    has_flags = data[at + 4] & 2
    place = 4
    words = 0
    while place + 4 <= size and words < _MOST_WORDS:
        words += 1
        place += 4
        if not data[at + place - 1] & 0x80:
            break
    if has_time:
        place = ((place + 7) & 0xFFF8) + 8
    is_padded = False
    if has_flags and place < size:
        if data[at + place] & 0x40:
            frame.unread = _WIRELESS_DAMAGED
            return _NOT_IP
        is_padded = data[at + place] & 0x20 != 0
    return _wireless(data, at + size, end, is_padded, frame)


def _old_wireless(data: Any, at: int, end: int, frame: Frame) -> int:
    """Behind a Prism header, or the AVS header that came after it."""
    if end - at < 8:
        return _SHORT
    if data[at] == 0x80 and data[at + 1] == 0x21 and data[at + 2] == 0x10:
        size = read16(data, at + 6)  # AVS, in network order
    else:
        size = _read16_little(data, at + 4)
        if size == 0:
            size = read16(data, at + 6)
    if size < 8:
        return _NOT_IP
    return _wireless(data, at + size, end, False, frame)


def _wireless(data: Any, at: int, end: int, is_padded: bool, frame: Frame) -> int:
    """The IP packet in an 802.11 data frame."""
    if end - at < 24:
        return _SHORT if end > at and data[at] & 0x0F == 8 else _NOT_IP
    control = data[at]
    bits = data[at + 1]
    if control & 0x0F != 8 or control & 0x40:
        return _NOT_IP  # management, control, or data frames without data
    size = 24
    if bits & 3 == 3:
        size += 6  # a fourth address
    is_aggregate = False
    if control & 0x80:
        if end - at < size + 2:
            return _SHORT
        is_aggregate = data[at + size] & 0x80 != 0
        size += 6 if bits & 0x80 else 2
    if is_padded:
        size = (size + 3) & 0xFFFC
    if bits & 4 or data[at + 22] & 15:
        frame.unread = _WIRELESS_PARTS
        return _NOT_IP
    at += size
    if bits & 0x40:
        # Some drivers leave the mark on what they have decrypted, with or without its 8 bytes.
        if end - at >= 16 and data[at] != 0xAA and _llc(data, at + 8, end, frame) > 0:
            at += 8
        elif _llc(data, at, end, frame) < 0:
            frame.unread = _WIRELESS_SECRET
            return _NOT_IP
    if is_aggregate:
        if end - at < 14:
            return _SHORT
        size = 14 + read16(data, at + 12)
        if end - at >= ((size + 3) & 0x1FFFC) + 14:
            frame.unread = _WIRELESS_SEVERAL
            return _NOT_IP
        at += 14
    return typed(data, _LLC, at, end, frame)
