"""The local ports of socket mode: how many are in use, and which may be used once more.

A port is in use for one target and one local address: the kernel gives the same one to connections
to other targets. After a connection that this side closed first it rests for 60 seconds
(TIME_WAIT). How many are in use is counted from our own connections: those of other programs to the
same target are not seen, and what the kernel says (EADDRNOTAVAIL) decides.

**Use of resting ports.** Where half of the ports are in use, or all, a port of ours that has rested
for a second is bound by its number and connected. The kernel allows that where the old connection
had timestamps (RFC 6191, RFC 7323: the target tells old segments from new ones by them), as it does
for all ports of a host with net.ipv4.tcp_tw_reuse=1. Kernels before 6.18 give a port that was bound
by its number to no other connection of the host meanwhile, so no more than a quarter of all ports
are taken that way. A port whose connection the target has not closed is left to rest.

**Range.** Kernels from 6.3 on take the range of ports from the socket, and from 6.8 on search it in
one go then; without that they look through the whole even half of the range before the first odd
port, for each connect, once those are in use.

Source: ip(7) (ip_local_port_range, ip_local_reserved_ports, IP_LOCAL_PORT_RANGE), tcp(7)
(tcp_tw_reuse), socket(7) (SO_REUSEADDR). Times in nanoseconds, passed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REST_NS: Final = 60_000_000_000  # TIME_WAIT on Linux, whatever tcp_fin_timeout is
READY_NS: Final = 1_000_000_000  # of it: before a port is used again
FULL_NS: Final = 50_000_000  # so long nothing is asked of the kernel after it had none
_REUSE_PERCENT: Final = 50  # of the ports in use, from which on resting ones are used
_MOST_BOUND_PERCENT: Final = 25  # of the ports, that may be bound by their number
_LONGEST_PAUSE_NS: Final = 60_000_000_000
_PORT_BITS: Final = 16
_PORT_MASK: Final = 0xFFFF
_SYSCTLS: Final = Path("/proc/sys/net/ipv4")

Target = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class PortSettings:
    """What the kernel gives out, to sockets that ask for no port."""

    low: int = 32768
    high: int = 60999
    reserved: int = 0  # of these, ports that it leaves alone
    reuses: int = 0  # net.ipv4.tcp_tw_reuse: 1: resting ports again, 2: on the loopback only
    timestamps: bool = True

    @property
    def size(self) -> int:
        """Ports for connections to one target from one address."""
        return max(1, self.high - self.low + 1 - self.reserved)

    def rest_ns(self, target: bytes) -> int:
        """How long the kernel leaves a port alone that was used for a target."""
        if (
            not self.timestamps
            or not self.reuses
            or (self.reuses == 2 and not _is_loopback(target))
        ):
            return REST_NS
        return READY_NS


def read_settings(root: Path = _SYSCTLS) -> PortSettings:
    """The settings of this network namespace; what cannot be read is as Linux has it."""
    usual = PortSettings()
    words = _text(root, "ip_local_port_range").split()
    low, high = (int(words[0]), int(words[1])) if len(words) == 2 else (usual.low, usual.high)
    reuses = _text(root, "tcp_tw_reuse")
    return PortSettings(
        low,
        high,
        count_reserved(_text(root, "ip_local_reserved_ports"), low, high),
        int(reuses) if reuses.isdigit() else 0,
        _text(root, "tcp_timestamps") != "0",
    )


def count_reserved(text: str, low: int, high: int) -> int:
    """Ports of "8080,9000-9005" that lie between two others, both included."""
    count = 0
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit():
            end = int(last) if last.isdigit() else int(first)
            count += max(0, min(end, high) - max(int(first), low) + 1)
    return count


def _text(root: Path, name: str) -> str:
    try:
        return (root / name).read_text().strip()
    except OSError:
        return ""


def _is_loopback(address: bytes) -> bool:
    return address[0] == 127 if len(address) == 4 else address == bytes(15) + b"\1"


class PortUse:
    """The ports from one local address to one target."""

    __slots__ = (
        "_again_ns",  # resting ports are used again from then on
        "_bound",  # those resting that were bound by their number, as `_resting`
        "_pause_ns",  # how long that is put off next
        "_resting",  # TIME_WAIT: time and port in one number, oldest first
        "full_until_ns",  # the kernel had no port, and is not asked before
        "live",  # open sockets
        "opened",  # connects that began, in all
        "ports",
        "rest_ns",
    )

    def __init__(self, ports: LocalPorts, target: bytes) -> None:
        self.ports = ports
        self.rest_ns = ports.settings.rest_ns(target)
        self.live = 0
        self.opened = 0
        self.full_until_ns = 0
        self._resting: deque[int] = deque()
        self._bound: deque[int] | None = None
        self._again_ns = 0
        self._pause_ns = READY_NS

    def in_use(self, now_ns: int) -> int:
        """Ports of live connections and of those that rest."""
        oldest = now_ns - self.rest_ns
        resting = self._resting
        while resting and resting[0] >> _PORT_BITS <= oldest:
            resting.popleft()
        used = self.live + len(resting)
        if self._bound:
            while self._bound and self._bound[0] >> _PORT_BITS <= oldest:
                self._bound.popleft()
                self.ports.bound -= 1
            used += len(self._bound)
        return used

    def is_full(self, now_ns: int) -> bool:
        """Whether the kernel had no port a moment ago."""
        return now_ns < self.full_until_ns

    def take(self, now_ns: int) -> int:
        """A port to bind by its number, which is ours no more; 0: let the kernel choose."""
        ports = self.ports
        if now_ns < self._again_ns or not ports.settings.timestamps:
            return 0
        used = self.in_use(now_ns)
        if used * 100 < _REUSE_PERCENT * ports.settings.size and not self.full_until_ns:
            return 0
        for resting in (self._bound, self._resting):
            if not resting or now_ns - (resting[0] >> _PORT_BITS) < READY_NS:
                continue
            if resting is self._bound:
                ports.bound -= 1
            elif ports.bound * 100 >= _MOST_BOUND_PERCENT * ports.settings.size:
                return 0
            return resting.popleft() & _PORT_MASK
        return 0

    def refused(self, now_ns: int) -> None:
        """The kernel did not connect from a resting port: the target has no timestamps."""
        self._again_ns = now_ns + self._pause_ns
        self._pause_ns = min(2 * self._pause_ns, _LONGEST_PAUSE_NS)

    def begun(self, port: int) -> None:
        """A connect has begun, from the port that `take` gave."""
        self.live += 1
        self.opened += 1
        if port:
            self.ports.bound += 1
            self.ports.reused += 1
            self._pause_ns = READY_NS
        else:
            self.full_until_ns = 0

    def ended(self, port: int, was_bound: bool, now_ns: int) -> None:
        """A socket was closed; its port rests now, 0: it does not."""
        self.live -= 1
        if not port:
            self.ports.bound -= was_bound
            return
        resting = self._resting
        if was_bound:
            if self._bound is None:
                self._bound = deque()
            resting = self._bound
        resting.append(now_ns << _PORT_BITS | port)


class LocalPorts:
    """All of one worker."""

    __slots__ = ("_places", "_uses", "addresses", "bound", "most_used", "reused",
                 "settings", "share")  # fmt: skip

    def __init__(self, addresses: Sequence[bytes] = (), share: int = 1) -> None:
        """`addresses` to connect from; none: the kernel chooses. `share`: so many workers."""
        self.addresses = addresses
        self.share = share
        self.settings = PortSettings()
        self.bound = 0  # ports in use or at rest that were bound by their number
        self.reused = 0
        self.most_used = 0  # towards one target from one address
        self._places: dict[bytes, int] = {}
        self._uses: dict[tuple[bytes, Target], PortUse] = {}

    def set(self, settings: PortSettings) -> None:
        """Other settings are in force."""
        self.settings = settings
        for (_, target), use in self._uses.items():
            use.rest_ns = settings.rest_ns(target[0])

    def use(self, address: bytes, target: bytes, port: int) -> PortUse:
        """The ports from a local address (b"": the kernel's choice) to a target."""
        key = address, (target, port)
        use = self._uses.get(key)
        if use is None:
            use = self._uses[key] = PortUse(self, target)
        return use

    def after(self, address: bytes) -> bytes:
        """The local address whose turn is next."""
        if not self._places:
            self._places = {one: place for place, one in enumerate(self.addresses)}
        return self.addresses[(self._places[address] + 1) % len(self.addresses)]

    def look(self, now_ns: int) -> list[tuple[bytes, Target, int, int]]:
        """For each target: local address that uses most ports, target, that use, connects so far.

        The last is of all local addresses together.
        """
        found: dict[Target, tuple[bytes, int, int]] = {}
        for (address, target), use in self._uses.items():
            # The kernel's clock of a port that rests began somewhat before ours.
            used = min(use.in_use(now_ns), self.settings.size)
            worst, most, opened = found.get(target, (address, -1, 0))
            if used > most:
                worst, most = address, used
            found[target] = worst, most, opened + use.opened
        self.most_used = max([self.most_used, *(most for _, most, _ in found.values())])
        return [(worst, target, most, opened) for target, (worst, most, opened) in found.items()]
