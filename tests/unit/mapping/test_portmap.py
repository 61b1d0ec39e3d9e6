"""Places by hash, and the map of single ports that is kept in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.mapping.places import mix
from tcpcopy.mapping.portmap import PortMap


def test_empty() -> None:
    ports = PortMap()
    assert len(ports) == 0
    assert ports.get(0) == 0
    ports.remove(5)
    assert len(ports) == 0


@pytest.mark.parametrize("number", [0, 1, (1 << 48) - 1])
def test_one(number: int) -> None:
    ports = PortMap(seed=7)
    ports.add(number, 65535)
    assert ports.get(number) == 65535
    assert ports.get(number ^ 2) == 0
    assert len(ports) == 1
    ports.remove(number)
    assert ports.get(number) == 0
    assert len(ports) == 0


@given(
    st.integers(0, 1 << 60),
    st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(1, 65535)), max_size=200),
)
def test_map_is_a_dictionary(seed: int, events: list[tuple[bool, int, int]]) -> None:
    ports, model = PortMap(seed), dict[int, int]()
    for adds, number, port in events:
        if not adds:
            ports.remove(number)
            model.pop(number, None)
        elif number not in model:
            ports.add(number, port)
            model[number] = port
        assert len(ports) == len(model)
        assert {n: ports.get(n) for n in range(41) if ports.get(n)} == model


def test_many_come_and_go() -> None:
    """Every part grows several times, and places that were freed are found again."""
    ports = PortMap()
    for number in range(20_000):
        ports.add(number, number % 65535 + 1)
    for number in range(0, 20_000, 2):
        ports.remove(number)
    for number in range(0, 20_000, 4):
        ports.add(number, 9)
    assert len(ports) == 15_000
    for number in range(20_000):
        expected = number % 65535 + 1 if number % 2 else 0 if number % 4 else 9
        assert ports.get(number) == expected


def test_hash_uses_every_bit() -> None:
    """Neighbours fall anywhere: each bit of the key turns about half of the hash's."""
    base = mix(0x0A01000700500050, 0x9C410050, 0)
    assert 0 < base < 1 << 32
    for bit in range(64):
        turned = mix(0x0A01000700500050 ^ 1 << bit, 0x9C410050, 0) ^ base
        assert 6 <= turned.bit_count() <= 26
    for bit in range(32):
        turned = mix(0x0A01000700500050, 0x9C410050 ^ 1 << bit, 0) ^ base
        assert 6 <= turned.bit_count() <= 26


def test_hash_depends_on_the_seed() -> None:
    assert len({mix(1, 2, seed) for seed in range(100)}) == 100
