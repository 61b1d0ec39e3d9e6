"""-c and -H."""

from __future__ import annotations

import sys

import pytest

from tcpcopy.errors import UsageError
from tcpcopy.mapping.addresses import format_address, parse_address
from tcpcopy.mapping.clients import AddressPool, parse_clients, parse_localhost_replacement


def texts(pool: AddressPool) -> list[str]:
    return [format_address(address) for address in pool]


def test_x_is_1_to_254() -> None:
    """As the C program: 0 and 255 are left out."""
    pool = parse_clients("62.135.200.x")
    assert texts(pool) == [f"62.135.200.{last}" for last in range(1, 255)]
    assert texts(parse_clients("62.135.200.0/24")) == texts(pool)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.7", ["10.0.0.7"]),
        ("10.0.0.7, 10.0.0.1", ["10.0.0.7", "10.0.0.1"]),
        ("10.0.0.8/30", ["10.0.0.9", "10.0.0.10"]),
        ("10.0.0.8/31", ["10.0.0.8", "10.0.0.9"]),
        ("10.0.0.8/32", ["10.0.0.8"]),
        ("2001:db8::7", ["2001:db8::7"]),
        ("2001:db8::4/126", ["2001:db8::5", "2001:db8::6", "2001:db8::7"]),
        ("2001:db8::4/127", ["2001:db8::4", "2001:db8::5"]),
        ("10.0.0.255", ["10.0.0.255"]),
    ],
)
def test_parse(text: str, expected: list[str]) -> None:
    assert texts(parse_clients(text)) == expected


def test_big_ranges_are_computed() -> None:
    pool = parse_clients("10.0.0.0/8,2001:db8::/64,10.0.0.7")
    assert len(pool) == 65536 * 254 + (1 << 32) + 1
    assert format_address(pool[0]) == "10.0.0.1"
    assert format_address(pool[254]) == "10.0.1.1"
    assert format_address(pool[65536 * 254 - 1]) == "10.255.255.254"
    assert format_address(pool[65536 * 254]) == "2001:db8::1"
    assert format_address(pool[len(pool) - 1]) == "10.0.0.7"
    assert pool.families == {4, 16}
    assert len(pool.only(4)) == 65536 * 254 + 1
    assert pool.only(16).families == {16}
    assert len(parse_clients("2001:db8::/32")) < sys.maxsize


def test_places_and_members_agree() -> None:
    pool = parse_clients("10.0.2.0/23,10.9.0.8/29,2001:db8::/120")
    addresses = list(pool)
    assert [pool[index] for index in range(len(pool))] == addresses
    assert len(set(addresses)) == len(addresses) == 508 + 6 + 255
    assert all(address in pool for address in addresses)
    for text in ("10.0.1.254", "10.0.2.0", "10.0.2.255", "10.0.4.1", "10.9.0.8", "2001:db8::1:0"):
        assert parse_address(text) not in pool
    assert "10.0.2.1" not in pool


@pytest.mark.parametrize("index", [-1, 254, 1 << 70])
def test_places_outside(index: int) -> None:
    with pytest.raises(IndexError):
        parse_clients("10.0.0.x")[index]


def test_targets_are_left_out() -> None:
    """As the C program: a client cannot have the target's address."""
    exclude = [parse_address(text) for text in ("10.0.0.1", "10.0.0.100", "10.0.0.254", "10.0.1.1")]
    pool = parse_clients("10.0.0.x,10.0.0.100", exclude=exclude)
    assert len(pool) == 251
    addresses = list(pool)
    assert [pool[index] for index in range(251)] == addresses
    assert not set(exclude) & set(addresses)
    assert not any(address in pool for address in exclude)
    assert format_address(pool[0]) == "10.0.0.2" and format_address(pool[250]) == "10.0.0.253"


def test_nothing_left_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^-c 10\.0\.0\.1: leaves no address"):
        parse_clients("10.0.0.1", exclude=[parse_address("10.0.0.1")])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", ""),
        ("10.0.0.1,", ""),
        ("nonsense", "nonsense"),
        ("10.0.0.1,10.0.0.256", "10.0.0.256"),
        ("10.0.0.*", "10.0.0.*"),
        ("10.0.x.x", "10.0.x.x"),
        ("10.0.x.1", "10.0.x.1"),
        ("x", "x"),
        (".x", ".x"),
        ("10.0.0.0/33", "10.0.0.0/33"),
        ("10.0.0.0/-1", "10.0.0.0/-1"),
        ("10.0.0.0/", "10.0.0.0/"),
        ("10.0.0.0/255.255.255.0", "10.0.0.0/255.255.255.0"),
        ("10.0.0.1/24", "10.0.0.1/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("0.0.0.0", "0.0.0.0"),
        ("128.0.0.0/1", "128.0.0.0/1"),
        ("224.0.0.x", "224.0.0.x"),
        ("224.0.0.1", "224.0.0.1"),
        ("ff02::/64", "ff02::/64"),
        ("::/0", "::/0"),
        ("::", "::"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("fe80::%eth0/64", "fe80::%eth0/64"),
    ],
)
def test_refused(text: str, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_clients(text)
    assert (caught.value.option, caught.value.value) == ("-c", part)
    assert "\n" not in str(caught.value)


def test_host_bits_name_the_network() -> None:
    with pytest.raises(UsageError, match=r"did you mean 10\.0\.0\.0/24"):
        parse_clients("10.0.0.1/24")


def test_first_foreign() -> None:
    own = {parse_address("10.0.0.1"), parse_address("10.0.0.2")}
    assert parse_clients("10.0.0.1,10.0.0.2").first_foreign(own.__contains__) is None
    foreign = parse_clients("10.0.0.1,10.0.0.0/29").first_foreign(own.__contains__)
    assert foreign == parse_address("10.0.0.3")


def test_first_foreign_of_a_big_range_is_bounded() -> None:
    asked: list[bytes] = []

    def is_local(address: bytes) -> bool:
        asked.append(address)
        return True

    pool = parse_clients("10.0.0.0/8")
    assert pool.first_foreign(is_local) is None
    assert len(asked) < 1100
    assert asked[0] == pool[0] and asked[-1] == pool[len(pool) - 1]


def test_localhost_replacement() -> None:
    assert parse_localhost_replacement("10.0.0.1") == parse_address("10.0.0.1")
    assert parse_localhost_replacement("2001:db8::1") == parse_address("2001:db8::1")


@pytest.mark.parametrize(
    "text", ["", "nonsense", "127.0.0.1", "::1", "0.0.0.0", "10.0.0.x", "10.0.0.0/24", "224.0.0.1"]
)
def test_localhost_replacement_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_localhost_replacement(text)
    assert (caught.value.option, caught.value.value) == ("-H", text)
