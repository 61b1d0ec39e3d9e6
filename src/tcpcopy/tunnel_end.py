"""The target's end of tunnels: a TUN device, what may go into it, and what comes out of it.

`intercept --tun` has one instead of capture rings. Packets of tcpcopies are injected by the relay
server; the answers that the host sends to clients leave by the device and go to the router, as
captured ones do.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tcpcopy.capture import rtnetlink
from tcpcopy.deliver.tun import TunDevice
from tcpcopy.deliver.tunnet import Server, overlap, routes
from tcpcopy.errors import UsageError
from tcpcopy.local_side import RANGES
from tcpcopy.mapping.addresses import format_endpoint, is_loopback
from tcpcopy.namespaces import Namespace, inside
from tcpcopy.relay.injection import Injector, Network
from tcpcopy.relay.native import PacketDrop
from tcpcopy.relay.router import AnswerRouter

_log = logging.getLogger("tcpcopy.intercept")

DEFAULT_DEVICE: Final = "tcpcopy-t0"
#: Where clients come from when nothing else is said.
DEFAULT_CLIENTS: Final = tuple(ipaddress.ip_network(text) for text in RANGES)
_TUN: Final = "--tun"


@dataclass(frozen=True, slots=True)
class TunnelConfig:
    """What the target's end of tunnels was asked to do."""

    device: str = DEFAULT_DEVICE
    clients: tuple[Network, ...] = DEFAULT_CLIENTS  # none: any, told by the ports of `allowed`
    allowed: tuple[tuple[bytes, int], ...] = ()  # address and port, 0 for all; none: this host's


class TunnelEnd:
    """The device and its injector. Not thread-safe."""

    def __init__(self, config: TunnelConfig, namespace: Namespace | None) -> None:
        """Make the device in the namespace. Raises: UsageError."""
        self.config = config
        self._namespace = namespace
        self._reported: tuple[int, ...] = ()
        self._problem = ""  # that keeps a lost device from being made again
        self._said_gone = False
        with inside(namespace):
            self._refuse_overlap()
            self.device = self._make()
            self.injector = Injector(
                self.device, sources=config.clients, destinations=config.allowed
            )
            self.injector.set_local(rtnetlink.local_addresses())

    def _make(self) -> TunDevice:
        config = self.config
        networks = config.clients if _has_ipv6() else [n for n in config.clients if n.version == 4]
        return TunDevice(
            config.device,
            networks=networks,
            servers=() if config.clients else servers_of(config.allowed),
            reaches_loopback=any(is_loopback(address) for address, _ in config.allowed),
            option=_TUN,
        )

    def _refuse_overlap(self) -> None:
        found = overlap(self.config.clients, list(routes()))
        if found is not None:
            network, route = found
            raise UsageError(
                "--tun-clients",
                network,
                f"this host has a route to {route.network}, whose hosts it would no longer reach",
                "give a range that is not used, the same as -c of tcpcopy",
            )

    def drain(self, router: AnswerRouter, limit: int) -> int:
        """Hand answers on; how many."""
        return self.device.drain(router, limit, time.time_ns())

    def reopen(self) -> bool:
        """Make the device again that somebody has removed; whether it is there."""
        if not self._said_gone:
            self._said_gone = True
            _log.warning("device %s is gone; making it again", self.config.device)
        try:
            with inside(self._namespace):
                self.device.close()
                self.device = self._make()
        except (UsageError, OSError) as error:
            if str(error) != self._problem:
                self._problem = str(error)
                _log.error("device %s: %s", self.config.device, error)
            return False
        self.injector.set_device(self.device)
        self._said_gone = False
        self._problem = ""
        _log.warning("device %s is back", self.device.name)
        return True

    def look(self) -> None:
        """Now and then: this host's addresses, which may come and go."""
        with inside(self._namespace):
            try:
                self.injector.set_local(rtnetlink.local_addresses())
            except OSError as error:
                _log.warning("cannot read this host's addresses: %s", error.strerror)

    def log_start(self) -> None:
        """Log what may come through tunnels."""
        config = self.config
        allowed = ", ".join(
            format_endpoint(address, port) if port else format_endpoint(address, 0)[:-2]
            for address, port in config.allowed
        )
        clients = ", ".join(str(network) for network in config.clients)
        _log.info(
            "tunnels end in device %s: for %s, from %s",
            self.device.name,
            allowed or "every address of this host but loopback",
            clients or "any address",
        )
        if not config.clients:
            _log.warning("answers from %s to other hosts all go into the tunnel", allowed)

    def report(self) -> None:
        """Log the counts, unless nothing has changed since the last time."""
        injector = self.injector
        figures = (injector.injected, *injector.drops)
        if figures == self._reported:
            return
        self._reported = figures
        _log.info("packets of tunnels: %d injected", injector.injected)
        if any(injector.drops):
            kinds = [
                f"{injector.drops[reason]} {reason.description}"
                for reason in PacketDrop
                if injector.drops[reason]
            ]
            _log.warning("packets of tunnels dropped: %s", ", ".join(kinds))

    def close(self) -> None:
        """Remove the device; may be called twice."""
        with inside(self._namespace):
            self.device.close()


def servers_of(allowed: Iterable[tuple[bytes, int]]) -> tuple[Server, ...]:
    """The servers whose answers have to be led into the device: one for each rule."""
    found: dict[tuple[int, bytes, int, int], Server] = {}
    for address, port in allowed:
        for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
            server = Server(address, port, protocol)
            found.setdefault((len(address), server.source, port, protocol), server)
    return tuple(found.values())


def _has_ipv6() -> bool:
    return any(len(address) == 16 for address in rtnetlink.local_addresses())
