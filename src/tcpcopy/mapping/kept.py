"""Clients that keep their addresses, but for those that cannot: this host's own.

An answer to an address of this host never leaves it, so a client with one gets an address out of
a pool instead, always the same one.
"""

from __future__ import annotations

from collections.abc import Callable

from tcpcopy.mapping.addresses import is_loopback
from tcpcopy.mapping.allocator import Allocator


class KeptIdentities:
    """Two allocators in one: `kept` for other hosts' clients, `own` for those on this host.

    `is_own` tells whether an address is this host's. No address of the pool of `own` may be a
    client's. Not safe for use by several threads.
    """

    __slots__ = ("_is_own", "_kept", "_known", "_own")

    _MOST_KNOWN = 1 << 16

    def __init__(self, kept: Allocator, own: Allocator, is_own: Callable[[bytes], bool]) -> None:
        self._kept = kept
        self._own = own
        self._is_own = is_own
        self._known: dict[bytes, bool] = {}  # what was asked already

    def acquire(
        self,
        client_address: bytes,
        client_port: int,
        target_address: bytes,
        target_port: int,
        copy: int,
        now_ns: int,
    ) -> tuple[bytes, int] | None:
        """As `Allocator.acquire` does."""
        allocator = self._own if self._stays(client_address) else self._kept
        return allocator.acquire(
            client_address, client_port, target_address, target_port, copy, now_ns
        )

    def release(
        self, address: bytes, port: int, target_address: bytes, target_port: int, now_ns: int
    ) -> bool:
        """As `Allocator.release` does."""
        first, second = self._own, self._kept
        return first.release(address, port, target_address, target_port, now_ns) or second.release(
            address, port, target_address, target_port, now_ns
        )

    def _stays(self, address: bytes) -> bool:
        if is_loopback(address):
            return True
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= self._MOST_KNOWN:
                self._known.clear()
            known = self._known[address] = self._is_own(address)
        return known
