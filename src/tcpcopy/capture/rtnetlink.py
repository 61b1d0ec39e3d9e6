"""Asks the kernel about devices, addresses and routes: the few requests that capture needs.

Read from a netlink socket and not from `/sys` or `/proc`, because these show the network namespace
they were mounted in, not always the one this process is in.

Source: rtnetlink(7), linux/rtnetlink.h, linux/if_link.h.
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

_ERROR, _DONE = 2, 3
_GET_LINK, _GET_ADDRESS, _GET_ROUTE = 18, 22, 26
_REQUEST, _DUMP = 0x001, 0x300
_NESTED_OR_ORDER = 0xC000
_IFLA_IFNAME, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINK_NETNSID = 3, 5, 10, 37
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST = 1
_ROUTE_IS_LOCAL = 2
_BUFFER_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Link:
    """One network device."""

    index: int
    name: str
    is_up: bool
    master: int  # index of the bridge, bond, ... that it is a port of; 0: none
    parent: int  # index of the device it stands on (VLAN, macvlan), or of a veth's other end; or 0


def links() -> list[Link]:
    """Return the devices of this network namespace. Raises OSError."""
    found = []
    for body in _request(_GET_LINK, _DUMP, _LINK.pack(0, 0, 0, 0, 0)):
        _, _, index, flags, _ = _LINK.unpack_from(body)
        attributes = _attributes(body[_LINK.size :])
        name = attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "replace")
        master = _index(attributes, _IFLA_MASTER)
        parent = _index(attributes, _IFLA_LINK)
        if parent == index or _IFLA_LINK_NETNSID in attributes:
            parent = 0  # stands on nothing, or on a device of another namespace
        found.append(Link(index, name, bool(flags & 1), master, parent))
    return found


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


def delivers_locally(address: bytes) -> bool:
    """Return whether packets for this address (4 or 16 bytes) are delivered on this host.

    Asks for the route, so the whole of 127.0.0.0/8 and local routes of any prefix count.
    Raises ValueError for another length, OSError when the kernel does not answer.
    """
    if len(address) not in (4, 16):
        raise ValueError(f"not an address: {address!r}")
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    route = _ROUTE.pack(family, len(address) * 8, 0, 0, 0, 0, 0, 0, 0)
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(address), _RTA_DST) + address
    try:
        for body in _request(_GET_ROUTE, 0, route + attribute):
            return int(_ROUTE.unpack_from(body)[7]) == _ROUTE_IS_LOCAL
    except OSError as error:
        if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL):
            return False  # no route, or one that refuses
        raise
    return False


def _request(kind: int, flags: int, body: bytes) -> Iterator[bytes]:
    """Send one request and yield the body of each message of the answer."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
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
                if answered == _ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
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
