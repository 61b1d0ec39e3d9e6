"""Local mode without a device: which ranges are refused, and how workers share one."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.deliver.tunnet import Network, Route, overlap
from tcpcopy.errors import UsageError
from tcpcopy.local_side import LocalConfig, check_range, part_of, resolvers
from tcpcopy.mapping.addresses import parse_address
from tcpcopy.mapping.clients import parse_clients

RANGE = ipaddress.ip_network("198.18.0.0/15")
RANGE6 = ipaddress.ip_network("fd00:7463:7063::/48")
ORDINARY = ("0.0.0.0/0", "10.0.0.0/24", "127.0.0.0/8", "::/0", "fe80::/64", "fd00::/64")


def known(*networks: str) -> tuple[Route, ...]:
    return tuple(Route(ipaddress.ip_network(text), 254, 0) for text in networks)


def config(*networks: Network) -> LocalConfig:
    return LocalConfig(networks, parse_clients(",".join(map(str, networks))))


def test_an_ordinary_host() -> None:
    """Default routes, also given as halves, are no overlap."""
    routes = known(*ORDINARY, "0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1")
    check_range((RANGE, RANGE6), own=[parse_address("10.0.0.2")], known=routes)


@pytest.mark.parametrize(
    "route", ["198.18.0.0/15", "198.19.7.0/24", "198.18.0.1/32", "198.0.0.0/8", "192.0.0.0/2"]
)
def test_a_route_into_the_range_or_around_it(route: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_range((RANGE6, RANGE), own=(), known=known(*ORDINARY, route))
    assert caught.value.option == "-c" and caught.value.value == RANGE
    assert f"has a route to {route} already" in caught.value.problem
    assert "another range" in caught.value.hint


def test_the_mend_keeps_what_was_asked_for() -> None:
    for keeps, said in ((False, "as -c 10.254.0.0/16"), (True, "as -c keep,10.254.0.0/16")):
        with pytest.raises(UsageError) as caught:
            check_range((RANGE,), own=(), known=known("198.18.0.0/16"), keeps=keeps)
        assert caught.value.hint.endswith(said)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("own", "an address of this host, 198.18.3.4"),
        ("targets", "the target 198.18.3.4"),
        ("sources", "the captured address 198.18.3.4"),
        ("resolvers", "the name server 198.18.3.4 of /etc/resolv.conf"),
    ],
)
def test_addresses_of_real_hosts(what: str, said: str) -> None:
    addresses = [parse_address("10.0.0.2"), parse_address("fd00::1"), parse_address("198.18.3.4")]
    given_addresses: dict[str, Any] = {"own": [], what: addresses}
    with pytest.raises(UsageError) as caught:
        check_range((RANGE, RANGE6), known=known(*ORDINARY), **given_addresses)
    assert caught.value.problem == f"holds {said}"


@given(st.integers(0, 2**32 - 1), st.integers(2, 32), st.integers(0, 2**32 - 1), st.integers(2, 32))
def test_overlap_is_what_it_says(one: int, one_bits: int, two: int, two_bits: int) -> None:
    """Two networks overlap exactly when one holds the first address of the other."""
    network = ipaddress.ip_network((one, one_bits), strict=False)
    other = ipaddress.ip_network((two, two_bits), strict=False)
    found = overlap([network], [Route(other, 254, 0)])
    expected = network.network_address in other or other.network_address in network
    assert (found is not None) == expected


def test_name_servers(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# nameserver 1.1.1.1\nnameserver 10.0.0.53\nnameserver fe80::1%eth0\n"
                    "nameserver\nnameserver nonsense\nsearch example.org\n")  # fmt: skip
    assert resolvers(str(path)) == [parse_address("10.0.0.53"), parse_address("fe80::1")]
    assert resolvers(str(tmp_path / "none")) == []


@pytest.mark.parametrize("count", [2, 3, 5, 64])
def test_workers_have_parts_of_their_own(count: int) -> None:
    """No address is two workers', all are of the range, and a part's pool is the part."""
    parts = [part_of(config(RANGE, RANGE6), (index, count)) for index in range(count)]
    for number, whole in enumerate((RANGE, RANGE6)):
        networks = [shared[number] for shared, _ in parts]
        assert all(part.subnet_of(whole) for part in networks)  # type: ignore[arg-type]
        assert all(
            not one.overlaps(other) for i, one in enumerate(networks) for other in networks[:i]
        )
    for shared, pool in parts:
        addresses = [ipaddress.ip_address(pool[i]) for i in (0, len(pool) // 2, len(pool) - 1)]
        assert all(any(address in network for network in shared) for address in addresses)


def test_one_worker_has_all() -> None:
    whole = config(RANGE)
    assert part_of(whole, (0, 1)) == ((RANGE,), whole.pool)


def test_a_range_too_small_for_the_workers() -> None:
    with pytest.raises(UsageError, match="is too small for 4 workers"):
        part_of(config(ipaddress.ip_network("10.254.1.0/24")), (0, 4))
