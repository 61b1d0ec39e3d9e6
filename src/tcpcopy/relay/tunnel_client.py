"""tcpcopy's end of a tunnel: the relay client that carries the packets, too.

A session keeps to one connection, by its mapped port: its announcement goes ahead of its SYN
there, and its packets do not overtake each other. While that connection is down it goes over
another.
"""

from __future__ import annotations

import errno
from typing import Any

from tcpcopy.relay.client import _BYTES_OF_ONE, RelayClient, _Server
from tcpcopy.relay.connection import Connection
from tcpcopy.relay.packet_queue import MAX_PACKET_BYTES


class TunnelClient(RelayClient):
    """A `RelayClient` whose connections take packets. Not thread-safe."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As `RelayClient`, with `terms` that have a tunnel."""
        super().__init__(*arguments, **options)
        self._by_address = {_packed(server): server for server in self._servers}
        self._only = self._servers[0] if len(self._servers) == 1 else None

    def announce(self, mapped: bytes, mapped_port: int, target: bytes, target_port: int) -> int:
        """Queue a session for its target's intercept, ahead of its packets; 1 when it will hear."""
        server = self._server_of(target)
        connection = None if server is None else _pick(server, mapped_port)
        if server is None or connection is None:
            return 0
        if connection.queued_bytes + _BYTES_OF_ONE > self._queue_bytes:
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

    def _server_of(self, target: bytes) -> _Server | None:
        """The intercept on the target's host: the only one, or the one with its address."""
        return self._only or self._by_address.get(target)


def _pick(server: _Server, port: int) -> Connection | None:
    """The connection of a session, or the next that is up."""
    connections = server.connections
    first = port % len(connections)
    for place in range(len(connections)):
        connection = connections[(first + place) % len(connections)]
        if connection.up:
            return connection
    return None


def _packed(server: _Server) -> bytes:
    import socket

    return socket.inet_pton(server.family, server.sockaddr[0])
