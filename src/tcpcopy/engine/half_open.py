"""SYNs that wait for a sign of life: what is kept of a connection before it is worth a session.

Each is a `bytes`: when its SYN was captured, how many sessions it will be, and the SYN from its
network header on. They stand in two generations by the name of their flow. When the younger one is
full or old enough, the older one has expired as a whole: nothing is done for each of them, and no
more than `MOST_WAITING` entries and `MOST_BYTES` are held, whatever comes.
"""

from __future__ import annotations

from typing import Any

from tcpcopy.engine.flows import number
from tcpcopy.packet.segment import Segment, copy_bytes

# All workers together. A SYN takes about 250 bytes.
MOST_WAITING = 65_536
# Of all that waits: SYNs may carry data (RFC 7413).
MOST_BYTES = 16 << 20

SYN_OFFSET = 12  # where the packet begins in a kept SYN
_SYN_OFFSET = SYN_OFFSET
_IPV4_ADDRESSES = 12  # where the addresses stand in their header
_IPV6_ADDRESSES = 8


def keep_syn(segment: Segment, data: Any, captured_ns: int, sessions: int) -> bytes:
    """What is kept of the SYN that was parsed last; `captured_ns` and `sessions` are positive."""
    before = _IPV4_ADDRESSES if segment.address_size == 4 else _IPV6_ADDRESSES
    start = segment.address_offset - before
    size = segment.payload_offset + segment.available - start
    if segment.available == 0:
        size = segment.options_end - start
    head: bytes = captured_ns.to_bytes(8, "big") + sessions.to_bytes(4, "big")
    return head + copy_bytes(data, start, size)


def syn_time(syn: bytes) -> int:
    """When a kept SYN was captured, ns."""
    return number(syn, 0, 8)


def syn_sessions(syn: bytes) -> int:
    """How many sessions a kept SYN will be: one for each target and copy."""
    return number(syn, 8, 4)


class HalfOpen:
    """The SYNs that wait, by the name of their flow (`FlowKey.name`)."""

    __slots__ = (
        "bytes_young",
        "most",  # entries of one generation
        "most_bytes",
        "old",
        "sessions_old",  # how many sessions all of `old` will be
        "sessions_young",
        "young",
    )

    def __init__(self) -> None:
        self.young: dict[object, bytes] = {}
        self.old: dict[object, bytes] = {}
        self.bytes_young = 0
        self.sessions_young = 0
        self.sessions_old = 0
        self.most = 0
        self.most_bytes = 0
        self.divide(1)

    def divide(self, workers: int) -> None:
        """Hold no more than the share of one of so many workers."""
        self.most = max(1024, MOST_WAITING // 2 // workers)
        self.most_bytes = max(1 << 20, MOST_BYTES // 2 // workers)

    def __len__(self) -> int:
        return len(self.young) + len(self.old)

    def put(self, name: object, syn: bytes, sessions: int) -> int:
        """Let a SYN wait that does not; how many sessions were pushed out for it."""
        pushed_out = 0
        if len(self.young) >= self.most or self.bytes_young >= self.most_bytes:
            pushed_out = self.turn()
        self.young[name] = syn
        self.bytes_young += len(syn)
        self.sessions_young += sessions
        return pushed_out

    def find(self, name: object) -> bytes | None:
        """The SYN that waits under this name, or None."""
        syn = self.young.get(name)
        return syn if syn is not None else self.old.get(name)

    def take(self, name: object) -> bytes | None:
        """As `find`, and it waits no longer."""
        syn = self.young.pop(name, None)
        if syn is not None:
            self.bytes_young -= len(syn)
            self.sessions_young -= syn_sessions(syn)
            return syn
        syn = self.old.pop(name, None)
        if syn is not None:
            self.sessions_old -= syn_sessions(syn)
        return syn

    def turn(self) -> int:
        """The older generation has waited long enough; how many sessions it would have been."""
        expired = self.sessions_old
        self.old = self.young
        self.sessions_old = self.sessions_young
        self.young = {}
        self.sessions_young = 0
        self.bytes_young = 0
        return expired

    def clear(self) -> int:
        """Nothing waits any more; how many sessions it would have been."""
        return self.turn() + self.turn()

    def oldest(self) -> bytes | None:
        """The SYN that began to wait first, or None."""
        for syn in self.old.values():
            return syn
        for syn in self.young.values():
            return syn
        return None

    def items(self) -> list[tuple[object, bytes]]:
        """All that wait, the oldest first."""
        return [*self.old.items(), *self.young.items()]
