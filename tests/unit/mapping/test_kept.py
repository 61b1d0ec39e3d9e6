"""Clients that keep their addresses, and those that cannot."""

from __future__ import annotations

from tcpcopy.mapping.addresses import parse_address
from tcpcopy.mapping.allocator import Allocator
from tcpcopy.mapping.clients import parse_clients
from tcpcopy.mapping.kept import KeptIdentities

TARGET = parse_address("127.0.0.1")
OWN = parse_address("10.0.0.1")
CLIENT = parse_address("203.0.113.7")
POOL = parse_clients("198.18.0.0/15")


def identities(asked: list[bytes] | None = None) -> KeptIdentities:
    def is_own(address: bytes) -> bool:
        if asked is not None:
            asked.append(address)
        return address == OWN

    return KeptIdentities(Allocator(), Allocator(POOL), is_own)


def acquire(kept: KeptIdentities, client: bytes, port: int) -> tuple[bytes, int]:
    found = kept.acquire(client, port, TARGET, 80, 0, 0)
    assert found is not None
    return found


def test_other_hosts_keep_theirs() -> None:
    assert acquire(identities(), CLIENT, 5000) == (CLIENT, 5000)


def test_clients_of_this_host_get_others() -> None:
    """Loopback and an own address, always the same one for each, with their ports."""
    kept = identities()
    found = {client: acquire(kept, client, 5000) for client in (OWN, TARGET)}
    assert all(address in POOL and port == 5000 for address, port in found.values())
    assert acquire(kept, OWN, 5001) == (found[OWN][0], 5001)


def test_what_is_released_can_be_had_again() -> None:
    kept = identities()
    for client in (CLIENT, OWN):
        address, port = acquire(kept, client, 5000)
        assert kept.release(address, port, TARGET, 80, 0)
        assert not kept.release(address, port, TARGET, 80, 0)


def test_two_never_share_one() -> None:
    kept = identities()
    seen = {acquire(kept, client, 5000) for client in (CLIENT, OWN) for _ in range(50)}
    assert len(seen) == 100


def test_an_address_is_asked_about_once() -> None:
    asked: list[bytes] = []
    kept = identities(asked)
    for port in range(5000, 5010):
        acquire(kept, CLIENT, port)
    acquire(kept, TARGET, 5000)
    assert asked == [CLIENT]
