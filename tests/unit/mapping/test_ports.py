"""Bitmaps of ports: find, take, cool down."""

from __future__ import annotations

import pytest

from tcpcopy.mapping.ports import ManyPorts, PortRange


def test_range_size_and_bounds() -> None:
    assert PortRange().size == 64512
    assert PortRange(1, 65535).size == 65535
    assert PortRange(5000, 5000).size == 1
    for first, last in ((0, 10), (10, 9), (1, 65536)):
        with pytest.raises(ValueError, match="1 to 65535"):
            PortRange(first, last)


@pytest.mark.parametrize(("first", "last"), [(60000, 65535), (1000, 1300), (5000, 5000), (1, 256)])
def test_all_of_the_range_is_found_once(first: int, last: int) -> None:
    space = ManyPorts(PortRange(first, last))
    start = (first + last) // 2
    found = []
    while port := space.find(start):
        assert space.take(port)
        found.append(port)
    assert found == [*range(start, last + 1), *range(first, start)]
    assert len(space) == last - first + 1


def test_ports_outside_the_range_can_be_taken_but_are_not_found() -> None:
    space = ManyPorts(PortRange(2000, 2001))
    assert space.take(80) and not space.take(80)
    assert space.take(2000)
    assert space.find(2000) == 2001
    assert space.take(2001)
    assert space.find(2000) == 0


def test_cooling_ports_are_avoided_then_free() -> None:
    space = ManyPorts(PortRange(2000, 2001))
    space.take(2000)
    assert space.release(2000, 50)
    assert not space.take(2000)
    assert space.find(2000) == 2001
    space.expire(49)
    assert not space.take(2000)
    space.expire(50)
    assert space.empty
    assert space.take(2000)


def test_oldest_first() -> None:
    space = ManyPorts(PortRange(2000, 2002))
    for port in (2000, 2001, 2002):
        space.take(port)
    for port, until_ns in ((2001, 10), (2000, 20), (2002, 20)):
        space.release(port, until_ns)
    assert space.find(2000) == 0
    assert [space.take_oldest() for _ in range(4)] == [2001, 2000, 2002, 0]
    space.expire(100)  # they are live again: nothing to free
    assert len(space) == 3


def test_only_live_ports_are_released() -> None:
    space = ManyPorts(PortRange())
    assert not space.release(2000, 5)
    space.take(2000)
    assert space.release(2000, 5)
    assert not space.release(2000, 9)
    space.expire(5)
    assert space.empty


def test_expiry_is_bounded_in_one_call() -> None:
    space = ManyPorts(PortRange())
    for port in range(2000, 2600):
        space.take(port)
        space.release(port, 1)
    space.expire(1)
    assert len(space) == 344
    space.expire(1)
    space.expire(1)
    assert space.empty


def test_a_full_range_is_open_again_after_expiry() -> None:
    space = ManyPorts(PortRange(2000, 2001))
    for port in (2000, 2001):
        space.take(port)
    assert space.find(2000) == 0
    space.release(2001, 10)
    assert space.find(2000) == 0
    space.expire(10)
    assert space.find(2000) == 2001
