"""tcpcopy's end of a tunnel: the relay client that carries the packets, too.

A session keeps to one connection, by its mapped port: its announcement goes ahead of its SYN
there, and its packets do not overtake each other. While that connection is down it goes over
another.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterable
from typing import Any

from tcpcopy.errors import UsageError
from tcpcopy.mapping.addresses import format_endpoint
from tcpcopy.relay.client import BYTES_OF_ONE, RelayClient
from tcpcopy.relay.connection import Connection, Server
from tcpcopy.relay.native import PacketDrop
from tcpcopy.relay.packet_queue import MAX_PACKET_BYTES

_log = logging.getLogger("tcpcopy.relay")
_DROPS = {int(reason): reason.description for reason in PacketDrop}


class TunnelClient(RelayClient):
    """A `RelayClient` whose connections take packets. Not thread-safe."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As `RelayClient`, with `terms` that have a tunnel."""
        super().__init__(*arguments, **options)
        self.errors: dict[int, int] = {}  # errno -> packets that did not get to intercept
        self._by_address = {_packed(server): server for server in self._servers}
        self._told: set[str] = set()  # reasons that were logged
        self._only = self._servers[0] if len(self._servers) == 1 else None

    def check_targets(self, targets: Iterable[tuple[bytes, int]]) -> None:
        """Refuse targets that no intercept is on. Raises: UsageError."""
        for address, port in targets:
            if self._server_of(address) is None:
                raise UsageError(
                    "-x",
                    format_endpoint(address, port),
                    "none of the intercepts of -s has the address of this target",
                    "with several of -s, give each target's own address there",
                )

    def announce(self, mapped: bytes, mapped_port: int, target: bytes, target_port: int) -> int:
        """Queue a session for its target's intercept, ahead of its packets; 1 when it will hear."""
        server = self._server_of(target)
        connection = None if server is None else _pick(server, mapped_port)
        if server is None or connection is None:
            return 0
        if connection.queued_bytes + BYTES_OF_ONE > self._queue_bytes:
            # Told again when there is room, as after a lost connection.
            server.counts.lost += 1
            if server.resumed is None:
                self._resume(server)
            return 0
        return self._queue(server, connection, (mapped, mapped_port, target, target_port))

    def send_packet(self, packet: bytes) -> int:
        """Queue a packet for the tunnel; 0, or the errno it is lost with. Sent by `flush`."""
        if packet[0] >> 4 == 4:
            target, port = packet[16:20], packet[20:22]
        else:
            target, port = packet[24:40], packet[40:42]
        server = self._server_of(target)
        if server is None:
            return errno.EHOSTUNREACH
        connection = _pick(server, int.from_bytes(port, "big"))
        if connection is None or connection.packets is None:
            return errno.ENOTCONN
        if len(packet) > MAX_PACKET_BYTES:
            return errno.EMSGSIZE
        if not connection.packets.put(packet):
            return errno.ENOBUFS
        self._mark(server, connection)
        return 0

    def _heard(self, server: Server, connection: Connection) -> None:
        """Count what intercept did not inject, and say why once for each reason."""
        dropped, reason = connection.take_dropped()
        if not dropped:
            return
        server.counts.dropped += dropped
        why = _DROPS.get(reason, "unknown")  # the other end may say any number
        if why not in self._told:
            self._told.add(why)
            _log.warning("intercept %s drops packets of ours: %s", server.name, why)

    def _close_socket(self, connection: Connection) -> None:
        if connection.packets is not None and connection.packets.packets:
            lost = connection.packets.packets
            self.errors[errno.ECONNRESET] = self.errors.get(errno.ECONNRESET, 0) + lost
        super()._close_socket(connection)

    def _server_of(self, target: bytes) -> Server | None:
        """The intercept on the target's host: the only one, or the one with its address."""
        return self._only or self._by_address.get(target)


def _pick(server: Server, port: int) -> Connection | None:
    """The connection of a session, or the next that is up."""
    connections = server.connections
    first = port % len(connections)
    for place in range(len(connections)):
        connection = connections[(first + place) % len(connections)]
        if connection.up:
            return connection
    return None


def _packed(server: Server) -> bytes:
    return socket.inet_pton(server.family, server.sockaddr[0])
