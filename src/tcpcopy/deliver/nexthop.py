"""Whom a frame for each target is addressed to: what `-x` says, or what the kernel's tables give.

Frames sent on a device pass by the kernel's routing and its neighbour table, so both are looked up
here: the route to the target on that device, then the neighbour that it leads to. Nor does the
kernel notice that a neighbour is in use, so an unknown one is asked for, and one in use is verified
now and then. Looked up again every second and, when packets are being lost, more often: a handful
of netlink requests, fewer than following every change of every table on the host would be.

Source: rtnetlink(7), arp(7), RFC 826, RFC 4861 (7.3).
"""

from __future__ import annotations

import errno
import logging
import struct
import time
from collections.abc import Callable
from typing import Protocol

from tcpcopy.capture import rtnetlink
from tcpcopy.errors import UsageError
from tcpcopy.mapping.addresses import format_address, format_endpoint
from tcpcopy.mapping.transfers import TransferTable

_log = logging.getLogger(__name__)

ENTRY = struct.Struct("=iH2s16s14s2x")  # struct tcpcopy_hop in link.pxd
_ETHERNET, _LOOPBACK = 1, 772  # ARPHRD_*
_MAC_BYTES = 6
_ETHERTYPES = {4: b"\x08\x00", 16: b"\x86\xdd"}  # by length of the address
_VERIFY_NS = 5_000_000_000  # a neighbour in use; DELAY_FIRST_PROBE_TIME of RFC 4861
# For the first look-up: the kernel asks three times, one second apart, and over IPv6 not before
# the device's own address has proved to be no duplicate.
_START_NS = 3_500_000_000
_START_PAUSE_S = 0.02


class Tables(Protocol):
    """The kernel's tables; `tcpcopy.capture.rtnetlink`, or a test's."""

    def link_named(self, name: str) -> rtnetlink.Link | None: ...
    def next_hop(self, address: bytes, device: int) -> bytes: ...
    def neighbour(self, address: bytes, device: int) -> rtnetlink.Neighbour: ...
    def ask_for_neighbour(self, address: bytes, device: int) -> None: ...
    def verify_neighbour(self, address: bytes, device: int) -> None: ...


class Hop:
    """Where the frames for one target go."""

    __slots__ = (
        "address",  # of the target, 4 or 16 bytes
        "error",  # errno that packets are lost with; 0: none are
        "mac",  # destination of the frames; b"" until it is known
        "mac_is_given",  # by -x: nothing is looked up
        "port",
        "problem",  # why packets are lost; "" when error is 0
        "source_mac",  # given by -x; b"": the device's
        "verified_ns",  # when the neighbour was last asked whether it is still there
        "via",  # next hop: the gateway, or the target
    )

    def __init__(self, address: bytes, port: int, mac: bytes, source_mac: bytes) -> None:
        self.address = address
        self.port = port
        self.mac = mac
        self.mac_is_given = bool(mac)
        self.source_mac = source_mac
        self.via = address
        self.error = errno.EHOSTUNREACH
        self.problem = "not looked up yet"
        self.verified_ns = 0

    def __str__(self) -> str:
        target = format_endpoint(self.address, self.port)
        if self.via == self.address:
            return f"the target {target}"
        return f"the next hop {format_address(self.via)} of the target {target}"


class NextHops:
    """The hops of all targets on one device. Not thread-safe."""

    __slots__ = ("_may_ask", "_tables", "device", "hops", "index", "link", "mac", "mtu")

    def __init__(self, device: str, transfers: TransferTable, tables: Tables = rtnetlink) -> None:
        """Nothing is looked up yet. Raises UsageError when MAC addresses of `-x` contradict."""
        self.device = device
        self.hops = _hops(transfers)
        self.index = 0  # of the device; 0: there is none
        self.mac = bytes(_MAC_BYTES)  # the device's
        self.mtu = 0
        self.link: rtnetlink.Link | None = None  # the device as last seen; None: never
        self._tables = tables
        self._may_ask = True

    def open(
        self,
        now_ns: Callable[[], int] = time.monotonic_ns,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        """Look all hops up for the first time, within 3.5 seconds.

        Raises UsageError: the device does not serve, or a next hop is not found; OSError.
        """
        self._check_device()
        until_ns = now_ns() + _START_NS
        while True:
            self.look(now_ns(), in_use=False, quiet=True)
            lost = next((hop for hop in self.hops if hop.error), None)
            if lost is None:
                return
            if now_ns() >= until_ns or lost.error != errno.EHOSTUNREACH:
                break
            pause(_START_PAUSE_S)
        raise UsageError(
            "-o",
            self.device,
            f"{lost} cannot be reached on it ({lost.problem})",
            "choose another device, or give the MAC address to send to with -x "
            f"...-{format_endpoint(lost.address, lost.port)}@aa:bb:cc:dd:ee:ff",
        )

    def _check_device(self) -> None:
        link = self._tables.link_named(self.device)
        hint = "give an Ethernet device that leads to the target, or leave out -o"
        if link is None:
            raise UsageError("-o", self.device, "there is no such device", hint)
        if link.kind == _LOOPBACK:
            problem = "is the loopback device: frames sent on it do not reach local sockets"
            raise UsageError("-o", self.device, problem, hint)
        if link.kind != _ETHERNET or len(link.address) != _MAC_BYTES:
            raise UsageError("-o", self.device, "is not an Ethernet device", hint)
        if not link.is_up:
            hint = f"ip link set dev {self.device} up"
            raise UsageError("-o", self.device, "the device is down", hint)
        self._take(link)

    def _take(self, link: rtnetlink.Link) -> None:
        self.link = link
        self.index = link.index
        self.mac = link.address
        self.mtu = link.mtu

    def look(self, now_ns: int, *, in_use: bool, quiet: bool = False) -> None:
        """Look everything up again; what changed for the worse or back is logged.

        `in_use`: packets were sent of late, so that the neighbours are worth verifying.
        """
        before = [(hop.error, hop.mac) for hop in self.hops]
        try:
            link = self._tables.link_named(self.device)
        except OSError as error:  # no answer, no memory: what is known stays
            _log.debug("looking up %s: %s", self.device, error)
            return
        if link is not None:
            self._take(link)
        for hop in self.hops:
            if link is None:
                _lose(hop, errno.ENODEV, "the device is gone")
            elif not link.is_up:
                _lose(hop, errno.ENETDOWN, "the device is down")
            elif hop.mac_is_given:
                hop.error = 0
            else:
                self._look_up(hop, now_ns, in_use)
        if not quiet:
            for hop, (code, mac) in zip(self.hops, before, strict=True):
                self._tell(hop, code, mac)

    def _look_up(self, hop: Hop, now_ns: int, in_use: bool) -> None:
        tables = self._tables
        try:
            hop.via = tables.next_hop(hop.address, self.index)
            known = tables.neighbour(hop.via, self.index)
        except TimeoutError:  # no answer: what is known stays
            return
        except OSError as error:
            own = error.errno == errno.EADDRNOTAVAIL
            problem = "it is an address of this host" if own else f"no route: {error.strerror}"
            _lose(hop, errno.ENETUNREACH, problem)
            return
        if known.state & rtnetlink.VALID and len(known.address) == _MAC_BYTES:
            hop.mac = known.address
            hop.error = 0
            hop.problem = ""
            idle = known.state == rtnetlink.STALE
            asked = now_ns - hop.verified_ns < _VERIFY_NS
            if in_use and (idle or (known.state == rtnetlink.REACHABLE and not asked)):
                hop.verified_ns = now_ns
                self._ask(tables.verify_neighbour, hop.via)
            return
        protocol = "ARP" if len(hop.via) == 4 else "neighbour discovery"
        _lose(hop, errno.EHOSTUNREACH, f"no answer to {protocol}")
        if known.state != rtnetlink.INCOMPLETE:
            self._ask(tables.ask_for_neighbour, hop.via)
        if not self._may_ask:
            hop.problem = f"not in the neighbour table, and to send {protocol} needs CAP_NET_ADMIN"

    def _ask(self, request: Callable[[bytes, int], None], via: bytes) -> None:
        if not self._may_ask:
            return
        try:
            request(via, self.index)
        except PermissionError:
            self._may_ask = False
            _log.warning(
                "-o %s: neighbours cannot be asked for their MAC addresses without CAP_NET_ADMIN; "
                "the kernel's neighbour table is taken as it is",
                self.device,
            )
        except OSError as error:  # it has gone meanwhile, or the table is full: see next time
            _log.debug("neighbour %s: %s", format_address(via), error)

    def _tell(self, hop: Hop, error_before: int, mac_before: bytes) -> None:
        if hop.error and hop.error != error_before:
            _log.warning("-o %s: packets to %s are lost: %s", self.device, hop, hop.problem)
        elif error_before and not hop.error:
            _log.warning(
                "-o %s: %s can be reached again, at %s", self.device, hop, hop.mac.hex(":")
            )
        elif hop.mac != mac_before and not hop.error:
            _log.info("-o %s: %s is at %s now", self.device, hop, hop.mac.hex(":"))

    def header(self, hop: Hop) -> bytes:
        """Return the Ethernet header of the frames for a hop; 14 bytes."""
        destination = hop.mac or bytes(_MAC_BYTES)
        return destination + (hop.source_mac or self.mac) + _ETHERTYPES[len(hop.address)]

    def table(self) -> bytes:
        """Return all hops as an array of `struct tcpcopy_hop`."""
        return b"".join(
            ENTRY.pack(
                hop.error,
                len(hop.address),
                hop.port.to_bytes(2, "big"),
                hop.address,
                self.header(hop),
            )
            for hop in self.hops
        )


def _lose(hop: Hop, error: int, problem: str) -> None:
    hop.error = error
    hop.problem = problem


def _hops(transfers: TransferTable) -> list[Hop]:
    """One hop for each target. What reaches the sender is a packet, not the rule it came by."""
    hops: dict[tuple[bytes, int], Hop] = {}
    for transfer in transfers:
        mac, source_mac = transfer.target_mac or b"", transfer.source_mac or b""
        hop = hops.get(transfer.target)
        if hop is None:
            hops[transfer.target] = Hop(*transfer.target, mac, source_mac)
        elif (hop.mac, hop.source_mac) != (mac, source_mac):
            raise UsageError(
                "-x",
                str(transfer),
                "the same target is given with other MAC addresses before",
                "with -o, give all transfers of a target the same",
            )
    return list(hops.values())
