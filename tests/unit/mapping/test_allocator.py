"""Mapped addresses and ports: what is kept, what is shared out, what is never shared."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

import tcpcopy
from tcpcopy.mapping.addresses import format_address, parse_address
from tcpcopy.mapping.allocator import Allocator, preferred_port
from tcpcopy.mapping.clients import parse_clients

SECOND = 1_000_000_000
CLIENT = parse_address("10.0.0.7")
CLIENT6 = parse_address("2001:db8::7")
TARGET = parse_address("10.9.0.1")
TARGET6 = parse_address("2001:db8::1")
LOCALHOST = parse_address("127.0.0.1")


def acquire(
    allocator: Allocator,
    port: int,
    *,
    client: bytes = CLIENT,
    target: bytes = TARGET,
    target_port: int = 80,
    copy: int = 0,
    now_ns: int = 0,
) -> tuple[str, int] | None:
    found = allocator.acquire(
        client_address=client,
        client_port=port,
        target_address=target,
        target_port=target_port,
        copy=copy,
        now_ns=now_ns,
    )
    return None if found is None else (format_address(found[0]), found[1])


def release(allocator: Allocator, address: str, port: int, now_ns: int = 0) -> bool:
    return allocator.release(parse_address(address), port, TARGET, 80, now_ns=now_ns)


@pytest.mark.parametrize(
    ("port", "copy", "factor", "shift", "expected"),
    [
        (40000, 0, 0, 100, 40000),
        (40000, 1, 0, 0, 40032),
        (40000, 2, 0, 0, 40096),
        (40000, 3, 0, 100, 40260),
        (65535, 1, 0, 0, 1056),
        (40000, 0, 1, 0, 42048),
        (40000, 0, 1, 100, 42148),
        (65000, 0, 1, 0, 3072),
        (40000, 1, 1, 0, 42080),
        (40000, 0, 1023, 0, (1024 + (1023 << 11)) & 0xFFFF),
    ],
)
def test_preferred_port_as_the_c_program(
    port: int, copy: int, factor: int, shift: int, expected: int
) -> None:
    assert preferred_port(port, copy, factor, shift) == expected


def test_client_keeps_address_and_port() -> None:
    allocator = Allocator()
    assert acquire(allocator, 40000) == ("10.0.0.7", 40000)
    assert acquire(allocator, 80) == ("10.0.0.7", 80)
    assert acquire(allocator, 40000, client=CLIENT6, target=TARGET6) == ("2001:db8::7", 40000)
    assert allocator.live == 3


def test_reused_port_gets_another_on_the_same_address() -> None:
    allocator = Allocator()
    acquire(allocator, 40000)
    again = acquire(allocator, 40000)
    assert again is not None
    assert again[0] == "10.0.0.7" and again[1] != 40000 and again[1] >= 1024


def test_targets_are_apart() -> None:
    allocator = Allocator()
    other = parse_address("10.9.0.2")
    for target, target_port in ((TARGET, 80), (TARGET, 81), (other, 80)):
        found = acquire(allocator, 40000, target=target, target_port=target_port)
        assert found == ("10.0.0.7", 40000)


def test_family_of_the_target_is_needed() -> None:
    assert acquire(Allocator(), 40000, target=TARGET6) is None
    assert acquire(Allocator(parse_clients("10.1.0.x")), 40000, target=TARGET6) is None
    both = Allocator(parse_clients("10.1.0.1,2001:db8::99"))
    assert acquire(both, 40000, target=TARGET6) == ("2001:db8::99", 40000)
    assert acquire(both, 40000, client=CLIENT6) == ("10.1.0.1", 40000)
    assert both.live == 2


@pytest.mark.parametrize("client", ["127.0.0.1", "127.3.3.3", "::1"])
def test_localhost_clients_are_replaced(client: str) -> None:
    allocator = Allocator(localhost_replacement=parse_address("10.0.0.1"))
    assert acquire(allocator, 40000, client=parse_address(client)) == ("10.0.0.1", 40000)
    assert acquire(allocator, 40000) == ("10.0.0.7", 40000)


def test_localhost_clients_of_a_localhost_target_stay() -> None:
    """As the C program: -H is for targets elsewhere."""
    allocator = Allocator(localhost_replacement=parse_address("10.0.0.1"))
    found = acquire(allocator, 40000, client=LOCALHOST, target=LOCALHOST)
    assert found == ("127.0.0.1", 40000)


def test_pool_address_of_a_client_stays_and_clients_spread() -> None:
    allocator = Allocator(parse_clients("10.1.0.x"))
    first = acquire(allocator, 40000)
    assert first is not None and first[1] == 40000
    for port in range(40001, 40100):
        assert acquire(allocator, port) == (first[0], port)
    used = set()
    for last in range(200):
        found = acquire(allocator, 50000, client=bytes((10, 0, 1, last)))
        assert found is not None
        used.add(found[0])
    assert len(used) > 100


def test_same_ports_squeezed_into_one_pool_address() -> None:
    allocator = Allocator(parse_clients("10.1.0.1"))
    found = {acquire(allocator, 40000, client=bytes((10, 0, 1, last))) for last in range(200)}
    assert len(found) == 200 and None not in found
    assert {address for address, _ in found} == {"10.1.0.1"}  # type: ignore[misc]
    assert all(1024 <= port <= 65535 for _, port in found)  # type: ignore[misc]


def test_full_address_spills_to_the_next_and_then_nothing_is_left() -> None:
    allocator = Allocator(parse_clients("10.1.0.1,10.1.0.2,10.1.0.3"), ports=(2000, 2001))
    found = [acquire(allocator, port) for port in (2000, 2001, 2000, 2001, 2000, 2001)]
    assert None not in found and len(set(found)) == 6
    home = found[0]
    assert home is not None
    order = [pair[0] for pair in found[::2] if pair is not None]
    last = (int(home[0][-1]) - 1 + 1) % 3 + 1
    assert order[:2] == [home[0], f"10.1.0.{last}"] and len(set(order)) == 3
    assert acquire(allocator, 2000) is None
    assert allocator.live == 6
    assert release(allocator, order[2], 2000)
    assert acquire(allocator, 2001) == (order[2], 2000)


def test_copies_shift_and_never_collide() -> None:
    allocator = Allocator(copies=3)
    found = [acquire(allocator, 40000, copy=copy) for copy in range(3)]
    assert found == [("10.0.0.7", 40000), ("10.0.0.7", 40032), ("10.0.0.7", 40096)]
    other = [acquire(allocator, 40032, copy=copy) for copy in range(3)]
    assert len({*found, *other}) == 6 and None not in other
    with pytest.raises(ValueError, match="copy 3 of 3"):
        acquire(allocator, 40000, copy=3)


def test_copies_spread_over_the_pool() -> None:
    allocator = Allocator(parse_clients("10.1.0.x"), copies=100)
    found = {acquire(allocator, 40000, copy=copy) for copy in range(100)}
    assert len(found) == 100
    assert len({address for address, _ in found}) > 50  # type: ignore[misc]


def test_factor_and_shift_are_preferred_ports() -> None:
    assert acquire(Allocator(factor=1, shift=5), 40000) == ("10.0.0.7", 42053)
    # 1023 sends every port to 64512 or, with a shift, below 1024: the search takes over.
    found = acquire(Allocator(factor=1023, shift=511), 40000)
    assert found is not None and found[1] >= 1024
    assert acquire(Allocator(factor=1), 0) == ("10.0.0.7", 2048)


def test_port_0_is_never_given() -> None:
    found = acquire(Allocator(), 0)
    assert found is not None and found[1] >= 1024


@pytest.mark.parametrize("sessions", [1, 40])
def test_released_ports_cool_down(sessions: int) -> None:
    """A list holds one session, a bitmap forty."""
    allocator = Allocator()
    for port in range(40000, 40000 + sessions):
        assert acquire(allocator, port) == ("10.0.0.7", port)
    assert release(allocator, "10.0.0.7", 40000, now_ns=5)
    early = acquire(allocator, 40000, now_ns=60 * SECOND + 4)
    assert early is not None and early[1] != 40000
    assert acquire(allocator, 40000, now_ns=60 * SECOND + 5) == ("10.0.0.7", 40000)


def test_cooling_goes_on_when_an_address_gets_many_sessions() -> None:
    """The list of a few ports becomes a bitmap."""
    allocator = Allocator()
    acquire(allocator, 39999)
    assert release(allocator, "10.0.0.7", 39999, now_ns=5)
    for port in range(40000, 40040):
        assert acquire(allocator, port, now_ns=6) == ("10.0.0.7", port)
    early = acquire(allocator, 39999, now_ns=60 * SECOND + 4)
    assert early is not None and early[1] != 39999
    assert acquire(allocator, 39999, now_ns=60 * SECOND + 5) == ("10.0.0.7", 39999)


@pytest.mark.parametrize("sessions", [3, 40])
def test_oldest_cooling_port_is_used_rather_than_none(sessions: int) -> None:
    allocator = Allocator(ports=(2000, 2000 + sessions - 1))
    for port in range(2000, 2000 + sessions):
        acquire(allocator, port)
    for now_ns, port in enumerate((2002, 2000, 2001)):
        assert release(allocator, "10.0.0.7", port, now_ns=now_ns)
    found = [acquire(allocator, 2000, now_ns=9) for _ in range(4)]
    assert found == [("10.0.0.7", 2002), ("10.0.0.7", 2000), ("10.0.0.7", 2001), None]


def test_next_pool_address_before_a_cooling_port() -> None:
    allocator = Allocator(parse_clients("10.1.0.1,10.1.0.2"), ports=(2000, 2000))
    first = acquire(allocator, 2000)
    assert first is not None and release(allocator, *first)
    second = acquire(allocator, 2000)
    assert second is not None and second[0] != first[0]
    assert acquire(allocator, 2000) == first
    assert acquire(allocator, 2000) is None


@pytest.mark.parametrize("sessions", [1, 40])
def test_no_cooldown(sessions: int) -> None:
    allocator = Allocator(cooldown_ns=0)
    for port in range(40000, 40000 + sessions):
        acquire(allocator, port)
    assert release(allocator, "10.0.0.7", 40000)
    assert acquire(allocator, 40000) == ("10.0.0.7", 40000)
    assert allocator.live == sessions


@pytest.mark.parametrize("sessions", [1, 40])
def test_only_what_is_held_is_released(sessions: int) -> None:
    """A second release must not free what another session holds by then."""
    allocator = Allocator()
    assert not release(allocator, "10.0.0.7", 40000)
    for port in range(40000, 40000 + sessions):
        acquire(allocator, port)
    assert not release(allocator, "10.0.0.7", 39999)
    assert release(allocator, "10.0.0.7", 40000)
    assert not release(allocator, "10.0.0.7", 40000)
    assert not release(allocator, "10.0.0.8", 40001)
    assert allocator.live == sessions - 1


def test_sixty_thousand_ports_on_one_address() -> None:
    """All clients come with one port and are found another without a walk over the taken ones."""
    allocator = Allocator(parse_clients("10.1.0.1"))
    found = set()
    for client in range(64512):
        pair = acquire(allocator, 40000, client=(client + 1).to_bytes(4, "big"))
        assert pair is not None
        found.add(pair[1])
    assert found == set(range(1024, 65536))
    assert acquire(allocator, 40000) is None
    assert release(allocator, "10.1.0.1", 1024)
    assert acquire(allocator, 50000) == ("10.1.0.1", 1024)


def test_memory_of_sessions_with_their_own_address() -> None:
    tracemalloc.start()
    allocator = Allocator()
    for client in range(20_000):
        acquire(allocator, 40000, client=(client + (10 << 24)).to_bytes(4, "big"))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / 20_000 < 260  # measured 226: key, list, port, dictionary entry


def test_released_addresses_are_forgotten() -> None:
    """Clients that come once leave nothing behind, however many there were."""
    allocator = Allocator()
    now_ns = 0
    for client in range(20_000):
        now_ns += SECOND // 20
        address = (client + (10 << 24)).to_bytes(4, "big")
        pair = acquire(allocator, 40000, client=address, now_ns=now_ns)
        assert pair is not None and release(allocator, *pair, now_ns=now_ns)
    assert allocator.live == 0
    # 60 s of cool-down at 20 a second, and at most two parts of 1/32 of it.
    assert 1200 <= allocator.remembered <= 1300


def test_bitmaps_are_forgotten() -> None:
    allocator = Allocator()
    for port in range(40000, 41000):
        acquire(allocator, port)
    for port in range(40000, 41000):
        release(allocator, "10.0.0.7", port, now_ns=1)
    other = parse_address("10.0.0.8")
    for second in range(200):
        acquire(allocator, 1024 + second, client=other, now_ns=(63 + second) * SECOND)
    assert allocator.remembered == 1


SCRIPT = """
from tcpcopy.mapping.allocator import Allocator
from tcpcopy.mapping.clients import parse_clients
allocator = Allocator(parse_clients("10.1.0.0/16"), factor=3, copies=2)
for client in range(50):
    for copy in (0, 1):
        print(allocator.acquire(client_address=bytes((10, 0, client % 5, 1)), client_port=40000,
            target_address=bytes((10, 9, 0, 1)), target_port=80, copy=copy, now_ns=client))
"""


def test_results_do_not_depend_on_the_process() -> None:
    """Python's salted hash has no part in them."""
    source = Path(tcpcopy.__file__).parents[1]
    outputs = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(source)}
        outputs.add(
            subprocess.run(
                [sys.executable, "-c", SCRIPT],
                env=environment,
                capture_output=True,
                check=True,
                text=True,
            ).stdout
        )
    assert len(outputs) == 1
    assert len(set(outputs.pop().splitlines())) == 100
