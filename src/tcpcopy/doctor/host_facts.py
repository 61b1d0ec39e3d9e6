"""What was read of a host, as plain values: the checks look at nothing else.

Made by `host.HostReader`, or by hand in a test; everything may be left at its default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tcpcopy.capture.rtnetlink import InterfaceAddress, Link, Neighbour, Route
from tcpcopy.doctor.firewall import Firewall

# Source: linux/capability.h.
CAP_NET_ADMIN, CAP_NET_RAW = 12, 13


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """This process, its limits, and what no network namespace has of its own."""

    is_root: bool = False
    capabilities: int = 0  # in force, as a bit mask
    bounding: int = (1 << 64) - 1  # that it could be given
    interpreter: str = "/usr/bin/python3"  # that runs this
    open_files: int = 1 << 20  # most open files
    memory_limit: int = 0  # bytes that its control group may have; 0: no limit
    memory_total: int = 0  # bytes of the host; 0: not known
    memory_available: int = 0
    has_tun: bool = True  # /dev/net/tun can be opened
    clock_resolution_ns: int = 1
    clock_source: str = "tsc"
    is_synchronised: bool | None = None  # the clock is kept right by NTP; None: not known

    def has(self, capability: int) -> bool:
        """Whether a capability is in force."""
        return bool(self.capabilities >> capability & 1)

    def may_have(self, capability: int) -> bool:
        """Whether it could be given to this process by the file's capabilities."""
        return bool(self.bounding >> capability & 1)


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """One network namespace."""

    enter: str = ""  # what runs a command in it: "ip netns exec web "; "": it is this one
    links: tuple[Link, ...] = ()
    addresses: tuple[InterfaceAddress, ...] = ()
    routes: Mapping[bytes, Route] = field(default_factory=dict)  # by the address asked for
    neighbours: tuple[Neighbour, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)  # "net/ipv4/ip_forward"; those read
    conntrack: tuple[int, int] | None = None  # entries, most entries; None: not there
    firewall: Firewall | None = None  # None: it could not be read
    firewall_problem: str = ""  # why
    new_connections: int = -1  # to servers of this host, each second; -1: not measured
    listening: frozenset[int] = frozenset()  # ports of TCP servers
    capture_problem: str = ""  # why no packet socket can be opened
    raw_problem: str = ""  # why no raw socket can be opened
    ring_problem: str = ""  # why the capture ring cannot be opened
    bind_problem: str = ""  # why the relay's address cannot be listened on

    def link(self, index: int) -> Link | None:
        """The device with an index."""
        return next((link for link in self.links if link.index == index), None)

    def named(self, name: str) -> Link | None:
        """The device of a name."""
        return next((link for link in self.links if link.name == name), None)

    def own(self) -> frozenset[bytes]:
        """The addresses of the devices."""
        return frozenset(entry.address for entry in self.addresses)

    def number(self, name: str, default: int = 0) -> int:
        """A sysctl as a number; `default` when it was not read."""
        text = self.sysctls.get(name, "")
        return int(text) if text.lstrip("-").isdecimal() else default

    def here(self, command: str) -> str:
        """A remedy to be typed on this host, in this namespace."""
        return f"on this host: {self.enter}{command}"
