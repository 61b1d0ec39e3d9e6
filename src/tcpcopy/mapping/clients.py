"""`-c` and `-H`: the client addresses that are shown to the target."""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from tcpcopy.errors import UsageError
from tcpcopy.mapping.addresses import (
    IPV4_BYTES,
    is_loopback,
    parse_address,
    unusable_as_peer,
)

_FORM: Final = "write addresses, a network as 62.135.200.x, or CIDR as 62.135.200.0/24"
_MAX_RANGE: Final = 1 << 32  # addresses used of one range; len() cannot say those of an IPv6 /64
_MAX_LOCAL_CHECKS: Final = 1024  # addresses of one range that are asked about
_HOSTS: Final = 254  # of 256 last bytes: 0 and 255 are left out


@dataclass(frozen=True, slots=True)
class _Range:
    """`count` addresses: from `base + first` on, or skipping last bytes 0 and 255 (`octets`)."""

    length: int  # 4 or 16
    base: int
    first: int  # places skipped at the start
    count: int
    octets: bool

    def address(self, index: int) -> bytes:
        place = index + self.first
        if self.octets:
            network, host = divmod(place, _HOSTS)
            place = network << 8 | host + 1
        return (self.base + place).to_bytes(self.length, "big")

    def index(self, address: bytes) -> int:
        """Place of an address in this range, or -1."""
        if len(address) != self.length:
            return -1
        place = int.from_bytes(address, "big") - self.base
        if self.octets:
            host = place & 0xFF
            if host in (0, 255):
                return -1
            place = (place >> 8) * _HOSTS + host - 1
        place -= self.first
        return place if 0 <= place < self.count else -1

    def without(self, index: int) -> Iterator[_Range]:
        """The same addresses without one, as up to two ranges."""
        if index > 0:
            yield _Range(self.length, self.base, self.first, index, self.octets)
        if index < self.count - 1:
            first = self.first + index + 1
            yield _Range(self.length, self.base, first, self.count - index - 1, self.octets)


class AddressPool:
    """A sequence of client addresses; big networks are computed, never held."""

    __slots__ = ("_ranges", "_size", "_starts")

    _ranges: tuple[_Range, ...]
    _starts: list[int]  # index of the first address of each range
    _size: int

    def __init__(self, ranges: Iterable[_Range]) -> None:
        self._ranges = tuple(ranges)
        self._starts = []
        self._size = 0
        for part in self._ranges:
            self._starts.append(self._size)
            self._size += part.count

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < self._size:
            raise IndexError(index)
        place = bisect_right(self._starts, index) - 1
        return self._ranges[place].address(index - self._starts[place])

    def __contains__(self, address: object) -> bool:
        return isinstance(address, bytes) and any(part.index(address) >= 0 for part in self._ranges)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AddressPool) and self._ranges == other._ranges

    def __hash__(self) -> int:
        return hash(self._ranges)

    def __iter__(self) -> Iterator[bytes]:
        for part in self._ranges:
            for index in range(part.count):
                yield part.address(index)

    @property
    def families(self) -> frozenset[int]:
        """Lengths in bytes (4, 16) of the addresses in the pool."""
        return frozenset(part.length for part in self._ranges)

    def only(self, length: int) -> AddressPool:
        """The addresses of one family (4 or 16 bytes), in the same order."""
        return AddressPool(part for part in self._ranges if part.length == length)

    def without(self, addresses: Iterable[bytes]) -> AddressPool:
        """The same pool without some addresses."""
        ranges = list(self._ranges)
        for address in addresses:
            kept: list[_Range] = []
            for part in ranges:
                index = part.index(address)
                kept.extend(part.without(index) if index >= 0 else (part,))
            ranges = kept
        return AddressPool(ranges)

    def first_foreign(self, is_local: Callable[[bytes], bool]) -> bytes | None:
        """First address that is not this host's, or None; of big ranges a sample is asked about."""
        for part in self._ranges:
            step = max(1, part.count // _MAX_LOCAL_CHECKS)
            for index in (*range(0, part.count, step), part.count - 1):
                address = part.address(index)
                if not is_local(address):
                    return address
        return None


def parse_clients(text: str, *, option: str = "-c", exclude: Iterable[bytes] = ()) -> AddressPool:
    """Parse the value of `-c`: a comma list of addresses, `a.b.c.x` and CIDR networks.

    Of IPv4 networks the last bytes 0 and 255 are left out (of ones smaller than /24 the first and
    the last address), of IPv6 networks the first address (the subnet-router anycast address, RFC
    4291 2.6.1); /31, /32, /127 and /128 are taken whole. `exclude` are addresses that no client can
    have: the targets'. Of a range the first 2**32 addresses are used. Raises UsageError.
    """
    items = [item.strip() for item in text.split(",")]
    pool = AddressPool(_parse_item(item, option) for item in items).without(exclude)
    if len(pool) == 0:
        raise UsageError(
            option, text, "leaves no address besides the target's own", "give other addresses"
        )
    return pool


def parse_localhost_replacement(text: str, *, option: str = "-H") -> bytes:
    """Parse the value of `-H`: the address that stands for clients on 127/8 and ::1."""
    hint = "give an address of the online host that the target can answer"
    try:
        address = parse_address(text.strip())
    except ValueError as error:
        raise UsageError(option, text, str(error) if text else "is empty", hint) from None
    problem = "is a loopback address itself" if is_loopback(address) else unusable_as_peer(address)
    if problem:
        raise UsageError(option, text, problem, hint)
    return address


def _parse_item(item: str, option: str) -> _Range:
    if not item:
        raise UsageError(option, item, "an address is empty", _FORM)
    if "*" in item:
        raise UsageError(option, item, "'*' is not understood", "write x for the last number")
    if item.endswith(".x"):
        network = item[:-1] + "0/24"
    elif "/" in item:
        network = item
    else:
        return _single(item, option)
    return _network(item, network, option)


def _single(item: str, option: str) -> _Range:
    try:
        address = parse_address(item)
    except ValueError as error:
        raise UsageError(option, item, str(error), _FORM) from None
    if problem := unusable_as_peer(address):
        raise UsageError(option, item, problem, _FORM)
    return _Range(len(address), int.from_bytes(address, "big"), 0, 1, False)


def _network(item: str, text: str, option: str) -> _Range:
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        raise UsageError(option, item, "is not a network", _FORM) from None
    prefix = text.partition("/")[2]
    if not (prefix.isascii() and prefix.isdigit()) or "%" in text:
        raise UsageError(option, item, "the prefix length is not a number", _FORM)
    network = interface.network
    if interface.ip != network.network_address:
        raise UsageError(
            option, item, f"has bits set beyond /{prefix}", f"did you mean {network}? {_FORM}"
        )
    first = network.network_address.packed
    last = network.broadcast_address.packed
    # No client is in 0/8, in multicast or in the reserved networks.
    if last[0] == 0xFF or (len(first) == IPV4_BYTES and not 0 < first[0] <= last[0] < 224):
        raise UsageError(option, item, "holds addresses that no client can have", _FORM)
    base = int.from_bytes(first, "big")
    size = int(network.num_addresses)
    if len(first) != IPV4_BYTES:
        skipped = 1 if size > 2 else 0
        return _Range(len(first), base, skipped, min(size - skipped, _MAX_RANGE), False)
    if size >= 256:
        return _Range(len(first), base, 0, (size >> 8) * _HOSTS, True)
    if size > 2:
        return _Range(len(first), base, 1, size - 2, False)
    return _Range(len(first), base, 0, size, False)
