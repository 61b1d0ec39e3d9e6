"""Asks the kernel about devices, addresses, routes and neighbours: the few requests needed here.

Read from a netlink socket and not from `/sys` or `/proc`, because these show the network namespace
they were mounted in, not always the one this process is in.

Source: rtnetlink(7), linux/rtnetlink.h, linux/if_link.h, linux/neighbour.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # ..., the eighth is the type of the route
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, device, state, flags, type

_ERROR, _DONE = 2, 3
_GET_LINK, _GET_ADDRESS, _GET_ROUTE = 18, 22, 26
_NEW_NEIGHBOUR, _GET_NEIGHBOUR = 28, 30
_REQUEST, _ACKNOWLEDGE, _DUMP, _CREATE = 0x001, 0x004, 0x300, 0x400
_NESTED_OR_ORDER = 0xC000
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK = 1, 3, 4, 5
_IFLA_MASTER, _IFLA_LINK_NETNSID = 10, 37
_IFLA_GSO_SEGMENTS, _IFLA_GSO_BYTES = 40, 41
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_VIA = 1, 4, 5, 18
_NDA_DST, _NDA_LLADDR = 1, 2
_NTF_USE = 0x01
_IFF_LOWER_UP = 0x10000
_RTA_PREFSRC, _RTA_METRICS = 7, 8
_RTAX_MTU = 2
_ROUTE_IS_LOCAL = 2
_LOCAL_TABLE = 255
_SOL_NETLINK, _NETLINK_GET_STRICT_CHK = 270, 12
_ADDRESS_AND_ROUTE_GROUPS = 0x010 | 0x040 | 0x100 | 0x400  # RTMGRP_IPV4_*, RTMGRP_IPV6_*
_MOST_CHANGES = 256  # read in one go
_BUFFER_BYTES = 1 << 16
_LEAST_BYTES = {
    _GET_LINK: _LINK.size,
    _GET_ADDRESS: _ADDRESS.size,
    _GET_ROUTE: _ROUTE.size,
    _GET_NEIGHBOUR: _NEIGHBOUR.size,
}  # of the body of an answer
_MOST_ERRNO = 4095  # MAX_ERRNO
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)


@dataclass(frozen=True, slots=True)
class Link:
    """One network device."""

    index: int
    name: str
    is_up: bool
    master: int  # index of the bridge, bond, ... that it is a port of; 0: none
    parent: int  # index of the device it stands on (VLAN, macvlan), or of a veth's other end; or 0
    kind: int = 0  # ARPHRD_*: what its link layer is
    address: bytes = b""  # its link-layer address
    mtu: int = 0
    gso_bytes: int = 0  # largest frame that it cuts into segments, if it cuts any
    gso_segments: int = 0  # the most segments of one frame
    has_carrier: bool = True  # its other end is there


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address of a device, with the network it is in."""

    address: bytes  # 4 or 16 bytes
    prefix: int  # bits
    device: int


@dataclass(frozen=True, slots=True)
class Route:
    """How packets for an address leave this host; what the kernel refuses has an `error`."""

    error: int = 0  # errno: ENETUNREACH none, EHOSTUNREACH unreachable, EACCES, EINVAL blackhole
    is_local: bool = False  # they stay here
    gateway: bytes = b""  # of either family; b"": reached directly
    device: int = 0  # index
    source: bytes = b""  # the address they are sent from by default
    mtu: int = 0  # of the route; 0: the device's


# States of a neighbour (NUD_*).
INCOMPLETE, REACHABLE, STALE, DELAY, PROBE = 0x01, 0x02, 0x04, 0x08, 0x10
FAILED, NO_ARP, PERMANENT = 0x20, 0x40, 0x80
VALID = PERMANENT | NO_ARP | REACHABLE | PROBE | STALE | DELAY  # the kernel sends to its address


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What the kernel knows of a host on a device."""

    state: int  # NUD_*; 0: nothing
    address: bytes  # its link-layer address; b"" when there is none
    destination: bytes = b""  # its IP address, where many are listed
    device: int = 0


def links() -> list[Link]:
    """Return the devices of this network namespace. Raises OSError."""
    return [_link(body) for body in _request(_GET_LINK, _DUMP, _LINK.pack(0, 0, 0, 0, 0))]


def link_named(name: str) -> Link | None:
    """Return one device; None when there is none of that name. Raises OSError."""
    wanted = _attribute(_IFLA_IFNAME, name.encode() + b"\0")
    try:
        for body in _request(_GET_LINK, 0, _LINK.pack(0, 0, 0, 0, 0) + wanted):
            return _link(body)
    except OSError as error:
        # ERANGE, EINVAL: longer than a name can be, or empty.
        if error.errno not in (errno.ENODEV, errno.ERANGE, errno.EINVAL):
            raise
    return None


def _link(body: bytes) -> Link:
    _, kind, index, flags, _ = _LINK.unpack_from(body)
    attributes = _attributes(body[_LINK.size :])
    name = attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "replace")
    parent = _index(attributes, _IFLA_LINK)
    if parent == index or _IFLA_LINK_NETNSID in attributes:
        parent = 0  # stands on nothing, or on a device of another namespace
    return Link(
        index,
        name,
        bool(flags & 1),
        _index(attributes, _IFLA_MASTER),
        parent,
        kind,
        attributes.get(_IFLA_ADDRESS, b""),
        _index(attributes, _IFLA_MTU),
        _index(attributes, _IFLA_GSO_BYTES),
        _index(attributes, _IFLA_GSO_SEGMENTS),
        bool(flags & _IFF_LOWER_UP),
    )


def local_addresses() -> set[bytes]:
    """Return the addresses that the devices here have, 4 or 16 bytes each. Raises OSError."""
    found = set()
    for body in _request(_GET_ADDRESS, _DUMP, _ADDRESS.pack(0, 0, 0, 0, 0)):
        attributes = _attributes(body[_ADDRESS.size :])
        # On a point-to-point device IFA_ADDRESS is the other end.
        address = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS, b"")
        if len(address) in (4, 16):
            found.add(address)
    return found


def local_networks() -> set[tuple[bytes, int]]:
    """Return what is delivered on this host, each address and network with its prefix.

    More than the devices' addresses: local routes as well (127.0.0.0/8, and what somebody added).
    Empty where the kernel does not give the local table alone (before 4.20). Raises OSError.
    """
    found = set()
    for family, size in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
        wanted = _ROUTE.pack(family, 0, 0, 0, _LOCAL_TABLE, 0, 0, _ROUTE_IS_LOCAL, 0)
        try:
            for body in _request(_GET_ROUTE, _DUMP, wanted, strict=True):
                _, prefix, _, _, _, _, _, kind, _ = _ROUTE.unpack_from(body)
                address = _attributes(body[_ROUTE.size :]).get(_RTA_DST, bytes(size))
                if kind == _ROUTE_IS_LOCAL:
                    found.add((address, prefix))
        except OSError as error:
            if error.errno not in (errno.ENOPROTOOPT, errno.ENOENT, errno.EINVAL):
                raise
    return found


class Changes:
    """Tells that addresses or routes of this network namespace may have changed."""

    def __init__(self) -> None:
        """Listen from now on. Raises OSError."""
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        try:
            self._socket.bind((0, _ADDRESS_AND_ROUTE_GROUPS))
        except OSError:
            self._socket.close()
            raise

    def take(self) -> bool:
        """Whether there was a change since the last call."""
        found = False
        for _ in range(_MOST_CHANGES):
            try:
                self._socket.recv(_BUFFER_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more than fit: that is a change, too
                    raise
            found = True
        return found

    def close(self) -> None:
        """Listen no more; may be called twice."""
        self._socket.close()


def delivers_locally(address: bytes) -> bool:
    """Return whether packets for this address (4 or 16 bytes) are delivered on this host.

    Asks for the route, so the whole of 127.0.0.0/8 and local routes of any prefix count.
    Raises ValueError for another length, OSError when the kernel does not answer.
    """
    try:
        for body in _request(_GET_ROUTE, 0, _route_to(address)):
            return int(_ROUTE.unpack_from(body)[7]) == _ROUTE_IS_LOCAL
    except OSError as error:
        if error.errno in _NO_ROUTE:
            return False  # no route, or one that refuses
        raise
    return False


def next_hop(address: bytes, device: int) -> bytes:
    """Return whom packets for an address are handed to on a device: a gateway, or itself.

    4 or 16 bytes; a gateway may be of the other family. A device without a route to an IPv4
    address is taken to reach it directly, as the kernel does with sockets bound to a device.
    Raises OSError: there is no route (ENETUNREACH, EHOSTUNREACH), it refuses (EACCES, EINVAL), or
    the address is this host's own (EADDRNOTAVAIL).
    """
    wanted = _route_to(address) + _attribute(_RTA_OIF, struct.pack("=i", device))
    for body in _request(_GET_ROUTE, 0, wanted):
        if int(_ROUTE.unpack_from(body)[7]) == _ROUTE_IS_LOCAL:
            raise OSError(errno.EADDRNOTAVAIL, "an address of this host")
        attributes = _attributes(body[_ROUTE.size :])
        if _RTA_VIA in attributes:
            return attributes[_RTA_VIA][2:]  # its family comes first
        return attributes.get(_RTA_GATEWAY, address)
    raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))


def interface_addresses() -> list[InterfaceAddress]:
    """Return the addresses of the devices here and their networks. Raises OSError."""
    found = []
    for body in _request(_GET_ADDRESS, _DUMP, _ADDRESS.pack(0, 0, 0, 0, 0)):
        _, prefix, _, _, index = _ADDRESS.unpack_from(body)
        attributes = _attributes(body[_ADDRESS.size :])
        address = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS, b"")
        if len(address) in (4, 16):
            found.append(InterfaceAddress(address, prefix, index))
    return found


def route(address: bytes) -> Route:
    """Return how packets for an address leave this host.

    Raises ValueError for what is no address, OSError when the kernel does not answer.
    """
    try:
        for body in _request(_GET_ROUTE, 0, _route_to(address)):
            found = _attributes(body[_ROUTE.size :])
            metrics = _attributes(found.get(_RTA_METRICS, b""))
            return Route(
                is_local=int(_ROUTE.unpack_from(body)[7]) == _ROUTE_IS_LOCAL,
                gateway=found[_RTA_VIA][2:] if _RTA_VIA in found else found.get(_RTA_GATEWAY, b""),
                device=_index(found, _RTA_OIF),
                source=found.get(_RTA_PREFSRC, b""),
                mtu=_index(metrics, _RTAX_MTU),
            )
    except OSError as error:
        if error.errno not in _NO_ROUTE:
            raise
        return Route(error=error.errno or errno.ENETUNREACH)
    return Route(error=errno.ENETUNREACH)


def neighbours() -> list[Neighbour]:
    """Return the hosts that the kernel knows on its devices. Raises OSError."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for body in _request(_GET_NEIGHBOUR, _DUMP, _NEIGHBOUR.pack(family, 0, 0, 0, 0)):
            _, device, state, _, _ = _NEIGHBOUR.unpack_from(body)
            attributes = _attributes(body[_NEIGHBOUR.size :])
            mac = attributes.get(_NDA_LLADDR, b"")
            found.append(Neighbour(state, mac, attributes.get(_NDA_DST, b""), device))
    return found


def neighbour(address: bytes, device: int) -> Neighbour:
    """Return what the kernel knows of a neighbour; state 0 when nothing. Raises OSError."""
    try:
        for body in _request(_GET_NEIGHBOUR, 0, _neighbour(address, device, 0, 0)):
            state = int(_NEIGHBOUR.unpack_from(body)[2])
            found = _attributes(body[_NEIGHBOUR.size :])
            return Neighbour(state, found.get(_NDA_LLADDR, b""))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
    return Neighbour(0, b"")


def ask_for_neighbour(address: bytes, device: int) -> None:
    """Let the kernel find out a neighbour's link-layer address, as if it had a packet for it.

    Returns at once. Needs CAP_NET_ADMIN. Raises OSError.
    """
    body = _neighbour(address, device, 0, _NTF_USE)
    for _ in _request(_NEW_NEIGHBOUR, _CREATE | _ACKNOWLEDGE, body):
        pass


def verify_neighbour(address: bytes, device: int) -> None:
    """Let the kernel ask a neighbour that it knows whether it is still there.

    Packets go on to the known address meanwhile. Needs CAP_NET_ADMIN. Raises OSError.
    """
    body = _neighbour(address, device, PROBE, 0)
    for _ in _request(_NEW_NEIGHBOUR, _ACKNOWLEDGE, body):
        pass


def _family(address: bytes) -> int:
    if len(address) not in (4, 16):
        raise ValueError(f"not an address: {address!r}")
    return socket.AF_INET if len(address) == 4 else socket.AF_INET6


def _route_to(address: bytes) -> bytes:
    route = _ROUTE.pack(_family(address), len(address) * 8, 0, 0, 0, 0, 0, 0, 0)
    return route + _attribute(_RTA_DST, address)


def _neighbour(address: bytes, device: int, state: int, flags: int) -> bytes:
    header = _NEIGHBOUR.pack(_family(address), device, state, flags, 0)
    return header + _attribute(_NDA_DST, address)


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def _request(kind: int, flags: int, body: bytes, *, strict: bool = False) -> Iterator[bytes]:
    """Send one request and yield the body of each message of the answer. Raises OSError.

    A body has at least the header that goes with the request. `strict`: the kernel goes by all
    that stands in the request's header, or refuses.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        if strict:
            netlink.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        netlink.bind((0, 0))
        netlink.settimeout(5.0)
        netlink.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, 1, 0) + body)
        while True:
            answer = netlink.recv(_BUFFER_BYTES)
            at = 0
            while at + _HEADER.size <= len(answer):
                length, answered, _, _, _ = _HEADER.unpack_from(answer, at)
                if answered == _DONE or length < _HEADER.size:
                    return
                payload = answer[at + _HEADER.size : at + length]
                if len(payload) < (4 if answered == _ERROR else _LEAST_BYTES.get(kind, 0)):
                    raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
                if answered == _ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    if not 0 <= code <= _MOST_ERRNO:
                        code = errno.EBADMSG
                    if code:
                        raise OSError(code, os.strerror(code))
                    return
                yield payload
                at += (length + 3) & ~3
            if not flags & _DUMP:
                return


def _attributes(data: bytes) -> dict[int, bytes]:
    """Return the attributes of a message by type."""
    found = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & ~_NESTED_OR_ORDER] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


def _index(attributes: dict[int, bytes], kind: int) -> int:
    raw = attributes.get(kind, b"")
    return int(struct.unpack("=i", raw)[0]) if len(raw) == 4 else 0


# For the modules that change something: the same framing, other messages.
attribute = _attribute
attributes = _attributes
request = _request
