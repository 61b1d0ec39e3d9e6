"""The addresses that are intercept's host itself: what is sent to them is for no mapped client."""

from __future__ import annotations

from collections.abc import Iterable

_LOOPBACK = 127  # the first byte of IPv4's
_V6_LOOPBACK = bytes(15) + b"\1"


class OwnAddresses:
    """Addresses and networks that packets are delivered for here; loopback always is one."""

    __slots__ = (
        "_addresses",  # IPv4 as numbers, IPv6 as bytes
        "_networks",  # bytes of an address, its number, mask
    )

    def __init__(
        self, addresses: Iterable[bytes] = (), networks: Iterable[tuple[bytes, int]] = ()
    ) -> None:
        """Addresses of 4 and 16 bytes, networks with the bits of their prefix."""
        self._addresses: set[int | bytes] = {_V6_LOOPBACK}
        self._networks: list[tuple[int, int, int]] = []
        for address in addresses:
            self._addresses.add(_number(address) if len(address) == 4 else address)
        for address, prefix in networks:
            bits = 8 * len(address)
            mask = (1 << bits) - (1 << (bits - prefix))
            self._networks.append((len(address), _number(address) & mask, mask))

    def has_v4(self, address: int) -> bool:
        """Whether an IPv4 address, as a number, is this host's."""
        if address >> 24 == _LOOPBACK or address in self._addresses:
            return True
        return bool(self._networks) and self._is_in_network(4, address)

    def has_v6(self, address: bytes) -> bool:
        """Whether an IPv6 address is."""
        if address in self._addresses:
            return True
        return bool(self._networks) and self._is_in_network(16, _number(address))

    def _is_in_network(self, size: int, address: int) -> bool:
        return any(
            length == size and address & mask == network for length, network, mask in self._networks
        )


def _number(address: bytes) -> int:
    return int.from_bytes(address, "big")
