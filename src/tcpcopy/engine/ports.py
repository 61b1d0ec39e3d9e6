"""What the engine asks of its surroundings; the copier hands the real ones in, tests their own."""

from __future__ import annotations

from typing import Protocol


class Target(Protocol):
    """Where a session goes: one transfer."""

    @property
    def target_address(self) -> bytes: ...
    @property
    def target_port(self) -> int: ...


class Transfers(Protocol):
    """-x."""

    def lookup(self, address: bytes, port: int, /) -> tuple[Target, ...]:
        """Every target that a connection to `address`:`port` goes to."""
        ...


class Identities(Protocol):
    """-c, -H, -n, -f: which client a session shows to the target."""

    def acquire(
        self,
        client_address: bytes,
        client_port: int,
        target_address: bytes,
        target_port: int,
        copy: int,
        now_ns: int,
    ) -> tuple[bytes, int] | None: ...

    def release(
        self, address: bytes, port: int, target_address: bytes, target_port: int, now_ns: int
    ) -> bool: ...


class Ledger(Protocol):
    """Outlives the process with the sessions that it holds open at the targets."""

    def add(self, mapped: bytes, port: int, target: bytes, target_port: int, /) -> int:
        """Write a session down; its place, 0 when there is no room."""
        ...

    def remove(self, place: int, /) -> None:
        """Cross a session out."""
        ...

    def session(self, place: int, /) -> tuple[bytes, int, bytes, int] | None:
        """What is written at a place; None: nothing that makes sense."""
        ...


class Sampling(Protocol):
    """-r, -g."""

    def admit(self, client_address: bytes, client_port: int, *, now_ns: int) -> bool: ...


class Announcer(Protocol):
    """Tells the intercepts of a session before its SYN is sent."""

    def announce(
        self, mapped: bytes, mapped_port: int, target: bytes, target_port: int, /
    ) -> int: ...

    def withdraw(self, mapped: bytes, mapped_port: int, target: bytes, target_port: int, /) -> None:
        """The session is forgotten; what the target still says of it is of no use."""
        ...
