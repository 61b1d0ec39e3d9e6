"""-r and -g."""

from __future__ import annotations

import pytest

from tcpcopy.mapping.sampling import Sampler

SECOND = 1_000_000_000
CLIENT = b"\x0a\0\0\1"


def share(sampler: Sampler, now_ns: int = 0) -> float:
    admitted = sum(sampler.admit(CLIENT, port, now_ns=now_ns) for port in range(10_000))
    return admitted / 100


def test_everything_by_default() -> None:
    assert share(Sampler()) == 100


@pytest.mark.parametrize("percentage", [1, 30, 99])
def test_share_is_the_percentage(percentage: int) -> None:
    assert share(Sampler(percentage)) == pytest.approx(percentage, abs=1.5)


def test_higher_percentage_keeps_what_lower_admits() -> None:
    low, high = Sampler(30), Sampler(31)
    for port in range(10_000):
        assert high.admit(CLIENT, port, now_ns=0) >= low.admit(CLIENT, port, now_ns=0)


def test_ipv6_clients() -> None:
    sampler = Sampler(50)
    admitted = sum(
        sampler.admit(bytes(8) + client.to_bytes(8, "big"), 5, now_ns=0) for client in range(2000)
    )
    assert admitted == pytest.approx(1000, abs=120)


def test_gradual_grows_one_percent_each_second() -> None:
    sampler = Sampler(gradual=True)
    assert sampler.percentage(5 * SECOND) == 1
    assert sampler.percentage(6 * SECOND - 1) == 1
    assert sampler.percentage(6 * SECOND) == 2
    assert share(sampler, 54 * SECOND) == pytest.approx(50, abs=1.5)
    assert sampler.percentage(103 * SECOND) == 99
    assert sampler.percentage(104 * SECOND) == 100
    assert share(sampler, 1000 * SECOND) == 100


def test_gradual_stops_at_the_percentage() -> None:
    sampler = Sampler(30, gradual=True, start_ns=0)
    assert sampler.percentage(0) == 1
    assert sampler.percentage(28 * SECOND) == 29
    assert sampler.percentage(29 * SECOND) == 30
    assert sampler.percentage(500 * SECOND) == 30


def test_a_clock_before_the_start_is_the_start() -> None:
    assert Sampler(gradual=True, start_ns=10).percentage(0) == 1


@pytest.mark.parametrize("percentage", [0, -1, 101])
def test_percentage_out_of_range(percentage: int) -> None:
    with pytest.raises(ValueError, match="1 to 100"):
        Sampler(percentage)
