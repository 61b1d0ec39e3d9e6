"""Intercept's end of a tunnel: packets out of the relay into a TUN device, if they may.

Whoever knows the secret may put packets into this host, so each is looked at first: one whole TCP
segment or UDP datagram, for an address and port that are allowed, from an address whose answers
lead back into the device. What is not is dropped and counted by its reason. Nothing is queued: the
device takes a packet or not.

Source: RFC 768, RFC 791, RFC 8200, RFC 9293 (3.1).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any

from tcpcopy.deliver.tun import TunDevice
from tcpcopy.packet.segment import copy_bytes
from tcpcopy.relay.native import PacketDrop

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_BROKEN = int(PacketDrop.BROKEN)
_NOT_IP = int(PacketDrop.NOT_IP)
_BAD_HEADER = int(PacketDrop.BAD_HEADER)
_OPTIONS = int(PacketDrop.OPTIONS)
_FRAGMENT = int(PacketDrop.FRAGMENT)
_NOT_TCP = int(PacketDrop.NOT_TCP)
_SOURCE = int(PacketDrop.SOURCE)
_DESTINATION = int(PacketDrop.DESTINATION)
_DEVICE = int(PacketDrop.DEVICE)
_DROP_SLOTS = max(PacketDrop) + 1
_MOST_REMEMBERED = 65536
# Addresses that no client has: this host itself, many at once, nobody.
_NEVER = tuple(
    ipaddress.ip_network(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/127", "ff00::/8", "fe80::/10")
)


class Injector:
    """Puts the packets of tunnels into a device. Not thread-safe."""

    __slots__ = (
        "_allowed",  # destination address: its ports, or None for all
        "_device",
        "_fixed",  # what `_allowed` holds was given, and does not change with the host
        "_known",  # source address: whether it may be one
        "_local",  # addresses of this host
        "_sources",  # networks of clients; empty: any that a client can have
        "drops",  # packets by PacketDrop
        "injected",  # packets that the device took
        "reason",  # PacketDrop of the last that was dropped
    )

    def __init__(
        self,
        device: TunDevice,
        *,
        sources: Sequence[Network] = (),
        destinations: Iterable[tuple[bytes, int]] = (),
    ) -> None:
        """`destinations`: address and port, 0 for all; none: what `set_local` gives.

        `sources`: the networks whose addresses lead to the device; none: all do.
        """
        self._allowed: dict[bytes, set[int] | None] = {}
        for address, port in destinations:
            ports = self._allowed.setdefault(address, set())
            if not port:
                self._allowed[address] = None
            elif ports is not None:
                ports.add(port)
        self._device = device
        self._fixed = bool(self._allowed)
        self._known: dict[bytes, bool] = {}
        self._local: set[bytes] = set()
        self._sources = tuple(sources)
        self.drops = [0] * _DROP_SLOTS
        self.injected = 0
        self.reason = 0

    def set_device(self, device: TunDevice) -> None:
        """From now on packets go into this one."""
        self._device = device

    def set_local(self, addresses: set[bytes]) -> None:
        """The addresses that this host has now: no client's, and allowed if none were given."""
        if addresses == self._local:
            return
        self._local = set(addresses)
        self._known.clear()
        if not self._fixed:
            self._allowed = {a: None for a in addresses if not _is_never(a)}

    def inject(self, body: Any) -> int:
        """Put the packets of a frame into the device; how many were dropped.

        `body`: packets, each behind its length (u16).
        """
        at = 0
        end = len(body)
        dropped = 0
        while at < end:
            length = 0
            reason = _BROKEN
            if at + 2 <= end:
                length = (body[at] << 8) | body[at + 1]
                at += 2
                if length <= end - at:
                    reason = self._check(body, at, length)
            if not reason and self._device.send(body, at, at + length):
                reason = _DEVICE
            if reason:
                self.drops[reason] += 1
                self.reason = reason
                dropped += 1
                if at + length > end or not length:
                    break  # where the next begins cannot be told
            else:
                self.injected += 1
            at += length
        return dropped

    def _check(self, body: Any, at: int, length: int) -> int:
        """0 when the packet at `body[at : at + length]` may pass, else its PacketDrop."""
        if length < 28:
            return _BROKEN
        version = body[at] >> 4
        if version == 4:
            if body[at] != 0x45:
                return _OPTIONS if body[at] > 0x45 else _BAD_HEADER
            if (body[at + 6] & 0x3F) | body[at + 7]:
                return _FRAGMENT
            total = (body[at + 2] << 8) | body[at + 3]
            protocol = body[at + 9]
            network = 20
        elif version == 6:
            if length < 48:
                return _BROKEN
            total = 40 + ((body[at + 4] << 8) | body[at + 5])
            protocol = body[at + 6]
            network = 40
        else:
            return _NOT_IP
        if total != length:
            return _BAD_HEADER
        tcp = at + network
        if protocol == 6:
            if length < network + 20:
                return _BAD_HEADER
            header = (body[tcp + 12] >> 4) << 2
            if header < 20 or header > length - network:
                return _BAD_HEADER
        elif protocol == 17:
            if ((body[tcp + 4] << 8) | body[tcp + 5]) != length - network:
                return _BAD_HEADER
        elif version == 6:
            return _other_protocol(protocol)
        else:
            return _NOT_TCP
        size = 4 if version == 4 else 16
        target = tcp - size
        port = (body[tcp + 2] << 8) | body[tcp + 3]
        if not self._is_allowed(copy_bytes(body, target, size), port):
            return _DESTINATION
        if not self._is_client(copy_bytes(body, target - size, size)):
            return _SOURCE
        return 0

    def _is_allowed(self, address: bytes, port: int) -> bool:
        if address not in self._allowed:
            return False
        ports = self._allowed[address]
        return ports is None or port in ports

    def _is_client(self, address: bytes) -> bool:
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            known = address not in self._local and not _is_never(address)
            if known and self._sources:
                number = ipaddress.ip_address(address)
                known = any(number in network for network in self._sources)
            self._known[address] = known
        return known


def _is_never(address: bytes) -> bool:
    number = ipaddress.ip_address(address)
    return any(number in network for network in _NEVER)


def _other_protocol(protocol: int) -> int:
    """What a header of IPv6 that is neither TCP's nor UDP's makes of a packet."""
    if protocol == 44:
        return _FRAGMENT
    return _OPTIONS if protocol in (0, 43, 50, 51, 60, 135, 139, 140) else _NOT_TCP
