"""The range of -c against hosts that exist."""

from __future__ import annotations

from tcpcopy.capture import rtnetlink
from tcpcopy.capture.rtnetlink import Neighbour, Route
from tcpcopy.doctor.checks_addresses import check_overlap
from tcpcopy.doctor.finding import Level
from tcpcopy.report.context import CLASSIC, LOCAL, SOCKET
from tests.unit.doctor.made import (
    GATEWAY,
    INTERCEPT,
    TARGET,
    address,
    levels,
    link,
    network,
    plan,
    said,
)


def test_a_range_that_nobody_has() -> None:
    assert levels(check_overlap(plan(), network())) == {"overlap": Level.OK}


def test_hosts_that_are_real() -> None:
    """Own addresses, intercept, gateways and neighbours are named; a few of many are a warning."""
    near = Neighbour(rtnetlink.STALE, b"\2" * 6, address("10.0.0.77"), 2)
    gone = Neighbour(rtnetlink.FAILED, b"", address("10.0.0.78"), 2)
    group = Neighbour(rtnetlink.NO_ARP, b"\2" * 6, address("10.0.0.79"), 2)
    here = network(
        routes={TARGET: Route(device=2, gateway=GATEWAY)}, neighbours=(near, gone, group)
    )
    (found,) = check_overlap(plan(CLASSIC, "10.0.0.x"), here)
    assert found.level is Level.WARNING
    for part in ("10.0.0.1 (this host)", "10.0.0.3 (intercept)", "10.0.0.254 (a gateway)",
                 "10.0.0.77 (a neighbour on eth0)"):  # fmt: skip
        assert part in found.text
    assert "10.0.0.78" not in found.text and "10.0.0.79" not in found.text
    assert "-c with a range that nobody has" in said([found])


def test_a_range_of_nothing_but_real_hosts_cannot_work() -> None:
    (found,) = check_overlap(plan(CLASSIC, "10.0.0.1,10.0.0.3"), network())
    assert found.level is Level.FAULT


def test_a_part_of_a_network_of_this_host() -> None:
    (found,) = check_overlap(plan(CLASSIC, "10.0.0.128/26"), network())
    assert found.level is Level.NOTE and "10.0.0.0/24 of eth0" in found.text
    (found,) = check_overlap(plan(LOCAL, "10.0.0.128/26"), network())
    assert found.level is Level.WARNING, "the device of local mode takes it away from them"


def test_a_network_of_this_host_inside_the_range() -> None:
    away = network(addresses=(rtnetlink.InterfaceAddress(address("10.9.9.9"), 24, 2),))
    clients = plan(CLASSIC, "10.9.0.0/21")  # 10.9.0.0 to 10.9.7.255: not that one
    assert check_overlap(clients, away)[0].level is Level.OK
    (found,) = check_overlap(plan(CLASSIC, "10.9.8.0/22", intercepts=((INTERCEPT, 1),)), away)
    assert found.level is Level.WARNING and "10.9.9.9 (this host)" in found.text


def test_without_a_range() -> None:
    (found,) = check_overlap(plan(CLASSIC, ""), network())
    assert found.level is Level.NOTE and "each network" in found.text
    assert check_overlap(plan(SOCKET, ""), network()) == []
    assert check_overlap(plan(SOCKET, "10.0.0.1"), network()) == [], "its own are meant"


def test_the_device_of_local_mode_has_the_range_itself() -> None:
    """While it runs its addresses are there: they are no hosts."""
    here = network()
    made = rtnetlink.InterfaceAddress(address("198.18.0.1"), 15, 3)
    facts = network(links=(*here.links, link(3, "tcpcopy0")), addresses=(*here.addresses, made))
    found = check_overlap(plan(LOCAL, "198.18.0.0/15"), facts)
    assert levels(found) == {"overlap": Level.OK}
    other = network(links=(*here.links, link(3, "wg0")), addresses=(*here.addresses, made))
    assert levels(check_overlap(plan(LOCAL, "198.18.0.0/15"), other)) == {"overlap": Level.WARNING}
