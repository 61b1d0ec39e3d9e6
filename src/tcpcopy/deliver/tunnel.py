"""Deliver whole packets through the relay connection to the target's intercept (tunnel mode).

Nothing leaves this host but what the relay sends: no raw socket, no forged address. A packet that
the tunnel has no room for is counted by its errno and costs nothing else; TCP sends it again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tcpcopy.packet.batch import PacketBatch, PacketSink


class Tunnel(Protocol):
    """Where packets go in; `relay.tunnel_client.TunnelClient` is one."""

    errors: dict[int, int]  # errno -> packets that were lost

    def send_packet(self, packet: bytes) -> int:
        """Queue a packet; 0, or the errno that it is lost with."""


class TunnelSender(PacketSink):
    """Sends IPv4 and IPv6 packets through a tunnel. Needs no privilege."""

    def __init__(self, tunnel: Tunnel, after: Callable[[], object]) -> None:
        """`after` is called when a batch is queued: what is announced goes ahead of it."""
        self.after = after
        self.errors = tunnel.errors  # those that were queued and then lost are in it, too
        self.failures: list[tuple[int, int]] | None = None  # place in its batch, errno
        self._tunnel = tunnel

    def send_batch(self, batch: PacketBatch) -> None:
        """Send every packet of the batch."""
        for index in range(batch.count):
            code = self._tunnel.send_packet(batch.packet(index))
            if code:
                self.errors[code] = self.errors.get(code, 0) + 1
                if self.failures is not None:
                    self.failures.append((index, code))
        self.after()

    def close(self) -> None:
        """Nothing is open here."""
