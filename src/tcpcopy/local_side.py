"""Local mode: the target is a server of this host, reached through a TUN device.

The device owns the mapped addresses: what the engine writes goes into the host by it, and what the
server sends to them comes out of it. Clients that keep their addresses need rules instead, by
which the server's answers, and nothing else, take the way to the device.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tcpcopy.capture.devices import is_local_address, local_addresses
from tcpcopy.deliver.raw import RawSender
from tcpcopy.deliver.tun import TunDevice
from tcpcopy.deliver.tunnet import (
    Network,
    Route,
    Server,
    device_towards,
    leading_rules,
    overlap,
    remove_leftovers,
    routes,
)
from tcpcopy.errors import UsageError
from tcpcopy.mapping.addresses import IPV4_BYTES, format_address, is_loopback
from tcpcopy.mapping.allocator import Allocator
from tcpcopy.mapping.clients import AddressPool, parse_clients
from tcpcopy.mapping.kept import KeptIdentities
from tcpcopy.mapping.transfers import TransferTable

_log = logging.getLogger(__name__)

DEVICE: Final = "tcpcopy%d"  # the first number that is free
RANGES: Final = ("198.18.0.0/15", "fd00:7463:7063::/48")  # RFC 2544 (benchmarks), RFC 4193
ALONE: Final = (0, 1)  # for allocators: addresses are shared with no other worker
_LEAST_BITS: Final = 8  # of each worker's part of a network
_RESOLVERS: Final = "/etc/resolv.conf"
_ANOTHER: Final = "give -c another range, whose addresses nobody has, as -c {}10.254.0.0/16"
_ELSEWHERE: Final = {4: "192.0.2.1", 6: "2001:db8::1"}  # RFC 5737, RFC 3849: nobody's


@dataclass(frozen=True, slots=True)
class LocalConfig:
    """What local mode is to do; checked as far as the words go."""

    networks: tuple[Network, ...]  # of the mapped addresses; with `keeps` of clients on this host
    pool: AddressPool  # the addresses of these
    device: str = DEVICE
    keeps: bool = False  # other hosts' clients keep their addresses
    protocols: tuple[int, ...] = (6,)  # what is copied: IPPROTO_TCP, IPPROTO_UDP


class LocalSide:
    """The device of one worker, and what is sent to it. Not thread-safe."""

    def __init__(
        self, config: LocalConfig, transfers: TransferTable, share: tuple[int, int], mtu: int
    ) -> None:
        """Nothing is opened yet. `share`: this worker, and how many there are."""
        self.networks, self.pool = part_of(config, share)
        self._config = config
        self._targets = tuple(transfers.targets())
        self._sources = tuple(address for address, _ in transfers.sources() if address)
        self._mtu = mtu
        self._device: TunDevice | None = None
        self._raw: RawSender | None = None
        self._told = False  # that the device is gone
        self._told_of_loss = False
        self._received = 0  # answers when it was last looked at

    @property
    def device(self) -> TunDevice:
        """The device; open."""
        assert self._device is not None
        return self._device

    @property
    def sends_by_device(self) -> bool:
        """Whether packets go to the targets by the device, as answers come."""
        return self._raw is None

    @property
    def sender(self) -> TunDevice | RawSender:
        """What takes packets to the targets."""
        return self.device if self._raw is None else self._raw

    def identities(
        self, make: Callable[[AddressPool | None], Allocator]
    ) -> Allocator | KeptIdentities:
        """Who gives sessions their addresses; `make` gives an allocator for a pool, or for none."""
        if not self._config.keeps:
            return make(self.pool)
        return KeptIdentities(make(None), make(self.pool), is_local_address)

    def open(self) -> None:
        """Make the device. Raises: UsageError, OSError; nothing is left behind then."""
        config = self._config
        servers = tuple(
            Server(address, port, protocol)
            for address, port in (self._targets if config.keeps else ())
            for protocol in config.protocols
        )
        remove_leftovers()
        targets = [address for address, _ in self._targets]
        check_range(
            self.networks,
            own=local_addresses(),
            known=tuple(routes()),
            targets=targets,
            sources=self._sources,
            resolvers=resolvers(_RESOLVERS),
            keeps=config.keeps,
        )
        for server in servers:
            if leading_rules(server):
                raise UsageError(
                    "-c",
                    "keep",
                    "another tcpcopy that runs here keeps addresses towards "
                    f"{format_address(server.address)}:{server.port}",
                    "end it, or leave out `keep`",
                )
        self._device = TunDevice(
            config.device,
            mtu=self._mtu,
            networks=self.networks,
            servers=servers,
            reaches_loopback=any(is_loopback(address) for address in targets),
        )
        try:
            self._check_ways(servers)
            # The kernel takes packets for ::1 from the device lo alone (RFC 4291, 2.5.3).
            if any(is_loopback(address) and len(address) != IPV4_BYTES for address in targets):
                self._raw = RawSender()
        except BaseException:
            self.close()
            raise

    def _check_ways(self, servers: Iterable[Server]) -> None:
        """Refuse to run where rules of this host's routing lead answers elsewhere."""
        device = self.device
        for network in self.networks:
            address = network[1 if network.num_addresses > 1 else 0].packed
            if device_towards(address) != device.index:
                raise UsageError(
                    "-c",
                    network,
                    f"a rule of this host leads it elsewhere than to {device.name}",
                    f"see `ip rule` and `ip route get {format_address(address)}`",
                )
        for server in servers:
            elsewhere = ipaddress.ip_address(_ELSEWHERE[4 if len(server.address) == 4 else 6])
            if device_towards(elsewhere.packed, server) != device.index:
                raise UsageError(
                    "-c",
                    "keep",
                    "a rule of this host leads the target's answers elsewhere than to "
                    f"{device.name}",
                    "see `ip rule`; or leave out `keep`",
                )

    def look(self) -> None:
        """Say it, once, when the device is gone or loses answers; to be called every second."""
        device = self._device
        if device is None:
            return
        if not device.failed and not self._told_of_loss and device.received != self._received:
            self._received = device.received
            with contextlib.suppress(OSError):
                if lost := device.dropped():
                    self._told_of_loss = True
                    _log.warning(
                        "--local: %d answers found no room in the queue of %s and were lost; TCP "
                        "sends them again, UDP answers are missing in the counts",
                        lost,
                        device.name,
                    )
        if device.failed and not self._told:
            self._told = True
            _log.error(
                "--local: the device %s is gone (%s); nothing is answered any more: start again",
                device.name,
                os.strerror(device.failed),
            )

    def close(self) -> None:
        """Remove the device; may be called twice."""
        if self._device is not None:
            self._device.close()
        if self._raw is not None:
            self._raw.close()

    @property
    def errors(self) -> dict[int, int]:
        """errno -> packets not sent."""
        return {} if self._device is None else self.sender.errors

    @property
    def largest(self) -> int:
        """Most payload bytes of a segment that is taken whole, 0: they are to be cut."""
        return self.device.largest if self._raw is None else 0


def part_of(config: LocalConfig, share: tuple[int, int]) -> tuple[tuple[Network, ...], AddressPool]:
    """The networks and the pool of one worker: with several, each has a part of each network."""
    index, count = share  # each client goes to one worker, by its address and port
    if count == 1:
        return config.networks, config.pool
    bits = (count - 1).bit_length()
    for network in config.networks:
        if network.max_prefixlen - network.prefixlen - bits < _LEAST_BITS:
            raise UsageError(
                "-c", network, f"is too small for {count} workers", "give a larger network"
            )
    parts: list[Network] = []
    for network in config.networks:
        if isinstance(network, ipaddress.IPv4Network):
            parts += list(network.subnets(bits))[index : index + 1]
        else:
            parts += list(network.subnets(bits))[index : index + 1]
    return tuple(parts), parse_clients(",".join(map(str, parts)))


def check_range(
    networks: Iterable[Network],
    *,
    own: Iterable[bytes],
    known: Sequence[Route],
    targets: Iterable[bytes] = (),
    sources: Iterable[bytes] = (),
    resolvers: Iterable[bytes] = (),
    keeps: bool = False,
) -> None:
    """Refuse networks that hold addresses of real hosts, as far as this host knows any.

    `own` are this host's addresses, `known` its routes; `keeps`: -c says so. Raises: UsageError.
    """
    networks = tuple(networks)
    another = _ANOTHER.format("keep," if keeps else "")
    for addresses, what in (
        (targets, "the target {}"),
        (sources, "the captured address {}"),
        (own, "an address of this host, {}"),
        (resolvers, f"the name server {{}} of {_RESOLVERS}"),
    ):
        for address in addresses:
            for network in networks:
                if ipaddress.ip_address(address) in network:
                    held = what.format(format_address(address))
                    raise UsageError("-c", network, f"holds {held}", another)
    found = overlap(networks, known)
    if found is not None:
        network, route = found
        raise UsageError(
            "-c",
            network,
            f"this host has a route to {route.network} already{_owner(route)}",
            another,
        )


def _owner(route: Route) -> str:
    return f" (device {route.device_name})" if route.device_name else ""


def resolvers(path: str) -> list[bytes]:
    """Addresses of the name servers in a resolv.conf; none when it cannot be read."""
    found = []
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                found.append(ipaddress.ip_address(words[1].partition("%")[0]).packed)
            except ValueError:
                continue
    return found
