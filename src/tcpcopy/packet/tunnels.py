"""From an IP packet to the one that it carries: tunnels, and what mirrors wrap frames in.

As `links`: any buffer, nothing allocated, every read checked, loops bounded.

Source: RFC 2003 and 4213 (IP in IP), RFC 3378 (EtherIP), RFC 4023 and 7510 (MPLS in IP and UDP),
RFC 2784 and 2890 (GRE), RFC 2637 (GRE with PPP), RFC 7637 (NVGRE), draft-foschiano-erspan (ERSPAN),
RFC 7348 (VXLAN), draft-ietf-nvo3-vxlan-gpe, RFC 8926 (GENEVE), 3GPP TS 29.281 (GTP-U), RFC 4380
(Teredo), TZSP as Wireshark reads it, RFC 4302 (AH), RFC 8200 (4, extension headers).
"""

from __future__ import annotations

from typing import Any

from tcpcopy.packet import frame as found_in
from tcpcopy.packet.frame import Frame
from tcpcopy.packet.links import ip_at, network_offset, read16, typed

_NOT_IP = found_in.NOT_IP
_SHORT = found_in.SHORT
_VLAN = found_in.VLAN
_VNI = found_in.VNI
_KEY = found_in.KEY
_TUNNEL_ID = found_in.TUNNEL_ID
_GRE = found_in.GRE
_ERSPAN = found_in.ERSPAN
_VXLAN = found_in.VXLAN
_VXLAN_GPE = found_in.VXLAN_GPE
_GENEVE = found_in.GENEVE
_GTP = found_in.GTP
_TEREDO = found_in.TEREDO
_TZSP = found_in.TZSP
_IP_IN_IP = found_in.IP_IN_IP
_ETHER_IP = found_in.ETHER_IP
_L2TP = found_in.L2TP
_ESP = found_in.ESP
_IPCOMP = found_in.IPCOMP
_MPLS = found_in.MPLS

_MOST_EXTENSIONS = 8
_MOST_TAGS = 32  # of TZSP
_TCP, _UDP = 6, 17
_IPV4, _IPV6, _ETHERNET, _NSH_KIND, _MPLS_KIND = 0x0800, 0x86DD, 0x6558, 0x894F, 0x8847
_PPP_KIND = 0x880B
_ERSPAN_KIND, _ERSPAN_THREE = 0x88BE, 0x22EB

_VXLAN_PORT = 4789
_VXLAN_PORT_LINUX = 8472  # the Linux kernel's default, from before there was a registered one
_GPE_PORT = 4790
_GENEVE_PORT = 6081
_GTP_PORT = 2152
_TEREDO_PORT = 3544
_TZSP_PORT = 37008
_MPLS_PORT = 6635
_ESP_PORT = 4500
_L2TP_PORT = 1701

#: UDP ports whose datagrams are taken for tunnels.
UDP_PORTS = (2152, 3544, 4789, 4790, 6081, 6635, 8472, 37008)
#: Numbers of IP protocols that carry packets, or stand before what does.
PROTOCOLS = (4, 41, 47, 97, 137)


def is_tunnel_port(port: int) -> bool:
    """Whether datagrams to a UDP port are taken for a tunnel."""
    return port in (2152, 3544, 4789, 4790, 6081, 6635, 8472, 37008)


def is_tunnel_protocol(protocol: int) -> bool:
    """Whether an IP protocol other than UDP carries packets; AH, which may, counts."""
    return protocol in (4, 41, 47, 51, 97, 137)


def one_tunnel(data: Any, start: int, frame: Frame) -> int:
    """Where the packet begins that the IP packet at `data[start]` carries; `start` if none.

    The packet is whole, captured up to `frame.end`, and ends at `frame.wire_end`; both are those
    of the inner packet afterwards. The inner header is sound, and the packet fits into the outer
    one. `frame.unread` says what was recognised and could not be read; `frame.network` grows.
    """
    end = frame.end
    if end - start < 20:
        return start
    outer_end = frame.wire_end
    if data[start] >> 4 == 4:
        at = start + (data[start] & 15) * 4
        total = read16(data, start + 2)
        protocol = data[start + 9]
        if at < start + 20:
            return start
    elif data[start] >> 4 == 6:
        if end - start < 40:
            return start
        at = start + 40
        total = read16(data, start + 4)
        if total:
            total += 40
        protocol = data[start + 6]
    else:
        return start
    if total and start + total < outer_end:
        outer_end = start + total
    headers = 0
    while protocol in (0, 43, 44, 51, 60) and headers < _MOST_EXTENSIONS:
        if end - at < 8:
            return start
        headers += 1
        if protocol == 44:
            size = 8
        elif protocol == 51:
            size = (data[at + 1] + 2) * 4
        else:
            size = 8 + data[at + 1] * 8
        protocol = data[at]
        at += size
    if protocol == _TCP:
        return start
    network = frame.network
    if end > outer_end:
        end = outer_end
    inside = _inside(data, protocol, at, end, frame)
    if inside >= 0 and _fits(data, inside, end, outer_end, frame):
        return inside
    frame.network = network
    return start


def _inside(data: Any, protocol: int, at: int, end: int, frame: Frame) -> int:
    """The IP header within what the protocol carries, or the reason why there is none.

    `frame.may_be_cut` tells whether mirrors that cut frames use it.
    """
    frame.may_be_cut = 0
    if protocol == _UDP:
        if end - at < 8:
            return _SHORT
        return _in_datagram(data, read16(data, at + 2), at + 8, end, frame)
    if protocol == 4 or protocol == 41:
        frame.unread = _IP_IN_IP
        inside = ip_at(data, at, end)
    elif protocol == 47:
        return _gre(data, at, end, frame)
    elif protocol == 97:
        frame.unread = _ETHER_IP
        if end - at < 2 or data[at] != 0x30:
            return _NOT_IP
        inside = _carried(data, _ETHERNET, at + 2, end, frame, _ETHER_IP)
    elif protocol == 137:
        inside = typed(data, _MPLS_KIND, at, end, frame)
    else:
        inside = _NOT_IP
        if protocol == 50:
            frame.unread = _ESP
        elif protocol == 108:
            frame.unread = _IPCOMP
        elif protocol == 115:
            frame.unread = _L2TP
    return inside


def _carried(data: Any, kind: int, at: int, end: int, frame: Frame, tunnel: int) -> int:
    """As `links.typed`, within a tunnel whose header has been read.

    What is no IP, as ARP, leaves nothing unread, unless it is another encapsulation.
    """
    frame.unread = 0
    inside = typed(data, kind, at, end, frame)
    if inside != _NOT_IP:
        frame.unread = tunnel  # until it is known to fit
    return inside


def _in_datagram(data: Any, port: int, at: int, end: int, frame: Frame) -> int:
    if port in (_VXLAN_PORT, _VXLAN_PORT_LINUX, _GPE_PORT):
        return _vxlan(data, port, at, end, frame)
    if port == _GENEVE_PORT:
        return _geneve(data, at, end, frame)
    if port == _GTP_PORT:
        return _gtp(data, at, end, frame)
    if port == _TEREDO_PORT:
        return _teredo(data, at, end, frame)
    if port == _TZSP_PORT:
        return _tzsp(data, at, end, frame)
    if port == _MPLS_PORT:
        return typed(data, _MPLS_KIND, at, end, frame)
    if port == _L2TP_PORT and end - at >= 6 and data[at + 1] & 15 == 2 and not data[at] & 0x80:
        frame.unread = _L2TP  # not its control messages
    elif port == _ESP_PORT and end - at >= 8 and (read16(data, at) or read16(data, at + 2)):
        frame.unread = _ESP  # not the exchange of keys
    return _NOT_IP


def _vxlan(data: Any, port: int, at: int, end: int, frame: Frame) -> int:
    """VXLAN, whose other bits and bytes are reserved or extensions, and VXLAN-GPE."""
    tunnel = _VXLAN_GPE if port == _GPE_PORT else _VXLAN
    frame.unread = tunnel
    if end - at < 8:
        return _SHORT
    bits = data[at]
    if bits & 8:
        frame.enter(_VNI, (read16(data, at + 4) << 8) | data[at + 6])
    elif port != _GPE_PORT:
        return _NOT_IP
    frame.may_be_cut = 1
    if port != _GPE_PORT:
        inside = _carried(data, _ETHERNET, at + 8, end, frame, tunnel)
        if inside >= 0 or not bits & 4:
            return inside
    if bits & 0x31:
        return _NOT_IP  # another version, or management (OAM)
    kind = _gpe_kind(data[at + 3]) if bits & 4 else _ETHERNET
    return _carried(data, kind, at + 8, end, frame, tunnel) if kind else _NOT_IP


def _gpe_kind(number: int) -> int:
    """The EtherType for a next protocol of VXLAN-GPE; 0 for what is not known."""
    if number == 1:
        return _IPV4
    if number == 2:
        return _IPV6
    if number == 3:
        return _ETHERNET
    if number == 4:
        return _NSH_KIND
    return _MPLS_KIND if number == 5 else 0


def _geneve(data: Any, at: int, end: int, frame: Frame) -> int:
    frame.unread = _GENEVE
    if end - at < 8:
        return _SHORT
    if data[at] >> 6:
        return _NOT_IP  # another version
    if data[at + 1] & 0x80:
        frame.unread = 0  # a control message
        return _NOT_IP
    frame.enter(_VNI, (read16(data, at + 4) << 8) | data[at + 6])
    frame.may_be_cut = 1
    size = 8 + (data[at] & 0x3F) * 4
    return _carried(data, read16(data, at + 2), at + size, end, frame, _GENEVE)


def _gtp(data: Any, at: int, end: int, frame: Frame) -> int:
    frame.unread = _GTP
    if end - at < 8:
        return _SHORT
    bits = data[at]
    if bits >> 5 != 1 or not bits & 0x10:
        return _NOT_IP  # another version, or GTP'
    if data[at + 1] != 255:
        frame.unread = 0  # signalling
        return _NOT_IP
    frame.enter(_TUNNEL_ID, (read16(data, at + 4) << 8) | data[at + 6])
    frame.enter(_TUNNEL_ID, data[at + 7])
    size = 8
    if bits & 7:
        if end - at < 12:
            return _SHORT
        following = data[at + 11] if bits & 4 else 0
        size = 12
        headers = 0
        while following:
            if headers == _MOST_EXTENSIONS:
                return _NOT_IP
            if end - at < size + 4:
                return _SHORT
            headers += 1
            length = data[at + size] * 4
            if length == 0 or end - at < size + length:
                return _NOT_IP
            size += length
            following = data[at + size - 1]
    frame.may_be_cut = 1
    return ip_at(data, at + size, end)


def _teredo(data: Any, at: int, end: int, frame: Frame) -> int:
    """IPv6 behind an authentication and an origin, both of which may be left out."""
    frame.unread = _TEREDO
    if end - at >= 4 and data[at] == 0 and data[at + 1] == 1:
        at += 13 + data[at + 2] + data[at + 3]
    if end - at >= 8 and data[at] == 0 and data[at + 1] == 0:
        at += 8
    if end - at < 40 or data[at] >> 4 != 6:
        return _NOT_IP
    return at


def _tzsp(data: Any, at: int, end: int, frame: Frame) -> int:
    frame.unread = _TZSP
    if end - at < 5:
        return _SHORT
    if data[at] != 1:
        return _NOT_IP
    if data[at + 1] > 1:
        frame.unread = 0  # no captured packet
        return _NOT_IP
    kind = read16(data, at + 2)
    at += 4
    tags = 0
    tag = 0
    while tag != 1:
        if tags == _MOST_TAGS:
            return _NOT_IP
        if end - at < 2:
            return _SHORT
        tags += 1
        tag = data[at]
        at += 1
        if tag > 1:
            at += 1 + data[at]
    if kind == 18:
        kind = 105
    elif kind == 126:
        kind = 163
    elif kind != 1 and kind != 119 and kind != 127:
        return _NOT_IP
    frame.may_be_cut = 1
    frame.unread = 0
    inside = network_offset(data, at, end, kind, frame)
    if inside != _NOT_IP:
        frame.unread = _TZSP
    return inside


def _gre(data: Any, at: int, end: int, frame: Frame) -> int:
    frame.unread = _GRE
    if end - at < 4:
        return _SHORT
    bits = data[at]
    version = data[at + 1] & 7
    kind = read16(data, at + 2)
    size = 4
    if bits & 0x80:
        size += 4  # checksum
    key = size
    if bits & 0x20:
        size += 4
    if bits & 0x10:
        size += 4  # sequence number
    if version == 1 and kind == _PPP_KIND:
        if data[at + 1] & 0x80:
            size += 4  # acknowledgement
        if not bits & 0x10:
            frame.unread = 0  # an acknowledgement alone
            return _NOT_IP
    elif version or bits & 0x40:
        return _NOT_IP  # source routes
    if end - at < size:
        return _SHORT
    if kind in (_ERSPAN_KIND, _ERSPAN_THREE):
        return _erspan(data, kind, bits & 0x10, at + size, end, frame)
    if bits & 0x20 and version == 0:
        # NVGRE has its network in the upper 24 bits, and a hash in the others.
        frame.enter(_KEY, (read16(data, at + key) << 8) | data[at + key + 2])
        if kind != _ETHERNET:
            frame.enter(_KEY, data[at + key + 3])
    at += size
    if kind == 0x883E:  # WCCP: from version 2 on with a header of 4 bytes
        if end - at >= 1 and data[at] >> 4 != 4:
            at += 4
        kind = _IPV4
    elif kind in (0, 0x2000, 0x2001, 0x9000, 0x88CC, 0x0806):
        frame.unread = 0  # a keep-alive, and what devices tell one another
        return _NOT_IP
    inside = _carried(data, kind, at, end, frame, _GRE)
    if inside == _NOT_IP and kind != _ETHERNET and kind != _PPP_KIND and frame.unread == 0:
        frame.unread = _GRE  # of what it carries nothing is known
    return inside


def _erspan(data: Any, kind: int, has_sequence: int, at: int, end: int, frame: Frame) -> int:
    """ERSPAN I has no header, II has 8 bytes behind a sequence number, III has 12 or 20."""
    frame.unread = _ERSPAN
    frame.may_be_cut = 1
    is_three = kind == _ERSPAN_THREE
    if not is_three and not has_sequence:
        return _carried(data, _ETHERNET, at, end, frame, _ERSPAN)
    size = 12 if is_three else 8
    if end - at < size:
        return _SHORT
    if data[at] >> 4 != (2 if is_three else 1):
        return _NOT_IP
    kind = _ETHERNET
    if is_three:
        if data[at + 11] & 1:
            size += 8
        carried = (data[at + 10] >> 2) & 31
        if carried == 2:
            kind = _IPV4
        elif carried:
            return _NOT_IP
    number = read16(data, at) & 0xFFF
    if number:
        frame.enter(_VLAN, number)
    return _carried(data, kind, at + size, end, frame, _ERSPAN)


def _fits(data: Any, at: int, end: int, outer_end: int, frame: Frame) -> bool:
    """Whether the header at `at` is sound and its packet ends within what carries it.

    Lengths on the wire are compared: the captured bytes may end earlier. A packet without a length
    (segments merged by the sender's kernel) is as long as there is room. Mirrors may cut what they
    carry: then it is as long as it says, and the captured bytes end where the outer ones do.
    """
    if data[at] >> 4 == 4:
        header = (data[at] & 15) * 4
        total = read16(data, at + 2)
        if total == 0:
            total = outer_end - at
        if header < 20 or total < header:
            return False
    else:
        if end - at < 40:
            return False
        total = read16(data, at + 4)
        total = total + 40 if total or data[at + 6] == 59 else outer_end - at
        if total < 40:
            return False
    if at + total > outer_end and not frame.may_be_cut:
        return False
    frame.unread = 0
    frame.wire_end = at + total
    frame.end = end if end < at + total else at + total
    return True
