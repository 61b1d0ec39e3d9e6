"""The network around a TUN device: what makes it up, its routes, and the rules that lead to it.

All by netlink, which needs no writable /proc/sys and no `ip` command. Everything but rules
vanishes with the device. Rules of a run that was killed are told by their table, whose number
holds the index of the device that it was for: when there is no such device, the run is dead.

Source: rtnetlink(7), linux/fib_rules.h, linux/if_link.h, linux/ip.h.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tcpcopy.capture import rtnetlink

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

TABLE_BASE: Final = 0x74630000  # of the routing tables that rules lead to; the index is added
PRIORITY: Final = 29_795  # of rules: after `local`, before `main` and what VPNs put before it
_MARK: Final = 116  # who made a rule or route, as `ip` shows it (FRA_PROTOCOL, rtm_protocol)

_LINK = struct.Struct("=BxHiII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_RULE = struct.Struct("=BBBBBxxBI")  # family, dst_len, src_len, tos, table, action, flags
_TX_DROPPED = struct.Struct("=56xQ")  # the eighth of struct rtnl_link_stats64
_GET_LINK = 18
_NEW_LINK, _NEW_ROUTE, _DELETE_ROUTE, _GET_ROUTE = 16, 24, 25, 26
_NEW_RULE, _DELETE_RULE, _GET_RULE = 32, 33, 34
_ACKNOWLEDGE, _DUMP, _CREATE, _EXCLUSIVE = 0x004, 0x300, 0x400, 0x200
_UP: Final = 1
_IFLA_MTU, _IFLA_STATS64, _IFLA_AF_SPEC = 4, 23, 26
_IFLA_INET_CONF, _IFLA_INET6_ADDR_GEN_MODE = 1, 8
_DEVCONF_ROUTE_LOCALNET: Final = 26
_RTA_PRIORITY, _BLACKHOLE = 6, 6
_LAST: Final = 0x7FFFFFFF  # the metric of a route behind all others
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_TABLE = 1, 2, 4, 15
_RTA_IP_PROTO, _RTA_SPORT = 27, 28
_FRA_SRC, _FRA_PRIORITY, _FRA_TABLE = 2, 6, 15
_FRA_PROTOCOL, _FRA_IP_PROTO, _FRA_SPORT_RANGE = 21, 22, 23
_TABLE_MAIN: Final = 254
_SCOPE_LINK, _UNICAST, _TO_TABLE = 253, 1, 1
_DEFAULT_BITS: Final = 1  # a default route may be given as two halves, as VPNs do
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True, slots=True)
class Server:
    """A server whose answers go into the device, wherever they are for.

    A UDP server that listens on all addresses has none yet when its answer is routed, so of UDP
    all answers of the port count, whatever address of this host they are sent from.
    """

    address: bytes  # 4 or 16
    port: int
    protocol: int = socket.IPPROTO_TCP

    @property
    def source(self) -> bytes:
        """The address that its answers are routed for; b"": any."""
        return self.address if self.protocol == socket.IPPROTO_TCP else b""


@dataclass(frozen=True, slots=True)
class Route:
    """A route of this host."""

    network: Network
    table: int
    device: int  # index; 0: none, or several

    @property
    def device_name(self) -> str:
        """The name of the device, "" when there is none."""
        try:
            return socket.if_indextoname(self.device) if self.device else ""
        except OSError:
            return ""


def set_up_link(index: int, *, mtu: int, route_localnet: bool) -> None:
    """Bring a device up, without addresses of its own. Raises OSError.

    `route_localnet`: 127.0.0.0/8 may be reached through it. Settings of other devices and of all
    together are left as they are.
    """
    families = b""
    if route_localnet:
        conf = rtnetlink.attribute(_DEVCONF_ROUTE_LOCALNET, struct.pack("=I", 1))
        inet = rtnetlink.attribute(_IFLA_INET_CONF, conf)
        families += rtnetlink.attribute(socket.AF_INET, inet)
    up = _LINK.pack(0, 0, index, _UP, _UP)
    attributes = rtnetlink.attribute(_IFLA_MTU, struct.pack("=I", mtu))
    if families:
        attributes += rtnetlink.attribute(_IFLA_AF_SPEC, families)
    # No link-local address, or it would ask for routers. A host without IPv6 knows no such thing.
    silent = rtnetlink.attribute(_IFLA_INET6_ADDR_GEN_MODE, b"\x01")
    quiet = rtnetlink.attribute(_IFLA_AF_SPEC, rtnetlink.attribute(socket.AF_INET6, silent))
    with contextlib.suppress(OSError):
        _change(_NEW_LINK, 0, _LINK.pack(0, 0, index, 0, 0) + quiet)
    _change(_NEW_LINK, 0, up + attributes)


def dropped_by(index: int) -> int:
    """Packets that a device was to send and had no room for. Raises OSError."""
    for body in rtnetlink.request(_GET_LINK, 0, _LINK.pack(0, 0, index, 0, 0)):
        counts = rtnetlink.attributes(body[_LINK.size :]).get(_IFLA_STATS64, b"")
        if len(counts) >= _TX_DROPPED.size:
            return int(_TX_DROPPED.unpack_from(counts)[0])
    return 0


def turn_ipv6_on(name: str) -> None:
    """Let a device have IPv6 where new devices have none. Raises OSError when it cannot be."""
    path = f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6"
    with open(path) as file:
        if file.read().strip() == "0":
            return
    with open(path, "w") as file:
        file.write("0")


def add_route(network: Network, index: int, table: int = _TABLE_MAIN) -> None:
    """Route a network to a device. Raises OSError (EEXIST: there is one of the very network)."""
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    small = table if table < 256 else 0
    header = _ROUTE.pack(family, network.prefixlen, 0, 0, small, _MARK, _SCOPE_LINK, _UNICAST, 0)
    body = header + rtnetlink.attribute(_RTA_OIF, struct.pack("=i", index))
    body += rtnetlink.attribute(_RTA_TABLE, struct.pack("=I", table))
    if network.prefixlen:
        body += rtnetlink.attribute(_RTA_DST, network.network_address.packed)
    _change(_NEW_ROUTE, _CREATE | _EXCLUSIVE, body)


def lead_answers(servers: Iterable[Server], index: int) -> None:
    """Let what these servers send to other hosts leave by a device. Raises OSError.

    What they send to addresses of this host is not touched: the table `local` comes first.
    """
    table = TABLE_BASE + index
    servers = tuple(servers)
    for length in {len(server.address) for server in servers}:
        family = socket.AF_INET if length == 4 else socket.AF_INET6
        _remove_nowhere(table)  # of another device that had this index
        _change(_NEW_ROUTE, _CREATE | _EXCLUSIVE, _nowhere(family, table))
        add_route(ipaddress.ip_network("0.0.0.0/0" if length == 4 else "::/0"), index, table)
    for server in servers:
        _change(_NEW_RULE, _CREATE | _EXCLUSIVE, _rule(server, table))


def _nowhere(family: int, table: int) -> bytes:
    """A route for when the device is gone and the rules are not, as after a kill.

    What is sent then must not get to those who have the clients' addresses.
    """
    header = _ROUTE.pack(family, 0, 0, 0, 0, _MARK, 0, _BLACKHOLE, 0)
    attributes = rtnetlink.attribute(_RTA_TABLE, struct.pack("=I", table))
    return header + attributes + rtnetlink.attribute(_RTA_PRIORITY, struct.pack("=I", _LAST))


def _remove_nowhere(table: int) -> None:
    for family in _FAMILIES:
        with contextlib.suppress(OSError):  # there was none
            _change(_DELETE_ROUTE, 0, _nowhere(family, table))


def _rule(server: Server, table: int) -> bytes:
    family = socket.AF_INET if len(server.address) == 4 else socket.AF_INET6
    ports = struct.pack("=HH", server.port, server.port)
    source = rtnetlink.attribute(_FRA_SRC, server.source) if server.source else b""
    return (
        _RULE.pack(family, 0, len(server.source) * 8, 0, 0, _TO_TABLE, 0)
        + source
        + rtnetlink.attribute(_FRA_PRIORITY, struct.pack("=I", PRIORITY))
        + rtnetlink.attribute(_FRA_TABLE, struct.pack("=I", table))
        + rtnetlink.attribute(_FRA_PROTOCOL, bytes([_MARK]))
        + rtnetlink.attribute(_FRA_IP_PROTO, bytes([server.protocol]))
        + rtnetlink.attribute(_FRA_SPORT_RANGE, ports)
    )


def remove_rules(index: int) -> None:
    """Remove the rules that lead to a device; those that cannot be removed stay, silently."""
    with contextlib.suppress(OSError):
        for table, body in _own_rules():
            if table == TABLE_BASE + index:
                with contextlib.suppress(OSError):
                    _change(_DELETE_RULE, 0, body)
        _remove_nowhere(TABLE_BASE + index)


def remove_leftovers() -> int:
    """Remove the rules of runs that were killed; how many. Raises OSError.

    They lead to tables of devices that are gone. Those of runs that live are left alone.
    """
    present = {link.index for link in rtnetlink.links()}
    removed = 0
    for table, body in _own_rules():
        if table - TABLE_BASE not in present:
            _change(_DELETE_RULE, 0, body)
            _remove_nowhere(table)
            removed += 1
    return removed


def leading_rules(server: Server) -> list[int]:
    """Indexes of the devices that answers of a server are led to by rules made here."""
    same = _rule(server, 0)
    found = []
    for table, body in _own_rules():
        present = rtnetlink.attributes(body[_RULE.size :])
        wanted = rtnetlink.attributes(same[_RULE.size :])
        keys = (_FRA_SRC, _FRA_IP_PROTO, _FRA_SPORT_RANGE)
        if body[0] == same[0] and all(present.get(key) == wanted.get(key) for key in keys):
            found.append(table - TABLE_BASE)
    return found


def _own_rules() -> list[tuple[int, bytes]]:
    """The rules made here: table, and the message that names each."""
    found = []
    for family in _FAMILIES:
        with contextlib.suppress(OSError):  # a host without IPv6
            for body in list(rtnetlink.request(_GET_RULE, _DUMP, _RULE.pack(family, *[0] * 6))):
                attributes = rtnetlink.attributes(body[_RULE.size :])
                table = _number(attributes.get(_FRA_TABLE, b""))
                if attributes.get(_FRA_PROTOCOL) == bytes([_MARK]) and table >= TABLE_BASE:
                    found.append((table, body))
    return found


def routes() -> Iterator[Route]:
    """All routes of this host, of all tables and both families. Raises OSError."""
    for family in _FAMILIES:
        header = _ROUTE.pack(family, *[0] * 8)
        for body in list(rtnetlink.request(_GET_ROUTE, _DUMP, header)):
            length = 4 if family == socket.AF_INET else 16
            found = rtnetlink.attributes(body[_ROUTE.size :])
            fields = _ROUTE.unpack_from(body)
            address = found.get(_RTA_DST, bytes(length))
            if len(address) != length or fields[1] > 8 * length:
                raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
            network = ipaddress.ip_network((address, fields[1]), strict=False)
            table = _number(found.get(_RTA_TABLE, b"")) or fields[4]
            yield Route(network, table, _number(found.get(_RTA_OIF, b"")))


def overlap(networks: Iterable[Network], known: Sequence[Route]) -> tuple[Network, Route] | None:
    """The first network that shares addresses with a route, and that route; None when none does.

    Default routes share nothing, nor do halves of them.
    """
    for network in networks:
        for route in known:
            if route.network.version != network.version:
                continue
            if route.network.prefixlen > _DEFAULT_BITS and route.network.overlaps(network):
                return network, route
    return None


def device_towards(address: bytes, server: Server | None = None) -> int:
    """Index of the device that packets for an address leave by, 0: none. Raises OSError.

    `server`: those that it sends.
    """
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    source = b"" if server is None else server.source
    body = _ROUTE.pack(family, len(address) * 8, len(source) * 8, 0, 0, 0, 0, 0, 0)
    body += rtnetlink.attribute(_RTA_DST, address)
    if server is not None:
        body += rtnetlink.attribute(_RTA_SRC, source) if source else b""
        body += rtnetlink.attribute(_RTA_IP_PROTO, bytes([server.protocol]))
        body += rtnetlink.attribute(_RTA_SPORT, struct.pack("!H", server.port))
    try:
        for answer in rtnetlink.request(_GET_ROUTE, 0, body):
            return _number(rtnetlink.attributes(answer[_ROUTE.size :]).get(_RTA_OIF, b""))
    except OSError as error:
        if error.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL):
            raise
    return 0


def _change(kind: int, flags: int, body: bytes) -> None:
    for _ in rtnetlink.request(kind, _ACKNOWLEDGE | flags, body):
        pass


def _number(raw: bytes) -> int:
    return int(struct.unpack("=I", raw)[0]) if len(raw) == 4 else 0
