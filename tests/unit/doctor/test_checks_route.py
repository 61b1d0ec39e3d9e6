"""Routes, next hops and packet sizes."""

from __future__ import annotations

import errno

import pytest

from tcpcopy.capture import rtnetlink
from tcpcopy.capture.rtnetlink import Neighbour, Route
from tcpcopy.doctor.checks_route import check_routes, destinations
from tcpcopy.doctor.finding import Level
from tcpcopy.report.context import CLASSIC, LINK, LOCAL, SOCKET
from tests.unit.doctor.made import (
    GATEWAY,
    INTERCEPT,
    LO,
    OWN,
    TARGET,
    address,
    levels,
    link,
    network,
    plan,
    said,
)

FINE = Route(device=2, source=OWN)


def to_target(**changes: object) -> dict[bytes, Route]:
    values: dict[str, object] = {"device": 2, "source": OWN, **changes}
    return {TARGET: Route(**values), INTERCEPT: FINE}  # type: ignore[arg-type]


def test_all_is_well() -> None:
    assert levels(check_routes(plan(), network())) == {"route": Level.OK, "relay_route": Level.OK}
    assert levels(check_routes(plan(SOCKET), network())) == {"route": Level.OK}
    assert check_routes(plan(LOCAL), network()) == []
    assert destinations(plan()) == [TARGET, INTERCEPT]


@pytest.mark.parametrize(
    ("code", "text", "command"),
    [
        (errno.ENETUNREACH, "there is no route", "ip route add 10.0.0.2 via GATEWAY"),
        (errno.EINVAL, "a blackhole route", "ip route show match 10.0.0.2"),
        (errno.EHOSTUNREACH, "unreachable", "ip route show match 10.0.0.2"),
        (errno.EACCES, "prohibits", "ip route show match 10.0.0.2"),
    ],
)
def test_no_route(code: int, text: str, command: str) -> None:
    found = check_routes(plan(), network(routes=to_target(error=code)))
    assert levels(found)["route"] is Level.FAULT
    assert text in said(found) and command in said(found)


def test_no_route_to_intercept() -> None:
    routes = {TARGET: FINE, INTERCEPT: Route(error=errno.ENETUNREACH)}
    found = check_routes(plan(), network(routes=routes))
    assert levels(found) == {"route": Level.OK, "relay_route": Level.FAULT}
    assert "relay_route" not in levels(check_routes(plan(transport="udp"), network(routes=routes)))


def test_ipv6_commands() -> None:
    target = address("fd00::2")
    lost = network(routes={target: Route(error=errno.ENETUNREACH)})
    found = check_routes(plan(SOCKET, "", targets=((target, 80),)), lost)
    assert "ip -6 route add fd00::2 via GATEWAY" in said(found)


def test_the_device_has_no_link() -> None:
    unplugged = network(links=(LO, link(has_carrier=False)))
    assert levels(check_routes(plan(), unplugged))["route"] is Level.WARNING


def test_a_next_hop_that_does_not_answer() -> None:
    via = to_target(gateway=GATEWAY)
    for state, level in ((rtnetlink.FAILED, Level.WARNING), (rtnetlink.REACHABLE, None)):
        known = (Neighbour(state, b"", GATEWAY, 2),)
        found = check_routes(plan(), network(routes=via, neighbours=known))
        assert levels(found).get("next_hop") is level
    elsewhere = (Neighbour(rtnetlink.FAILED, b"", GATEWAY, 7),)
    found = check_routes(plan(), network(routes=via, neighbours=elsewhere))
    assert "next_hop" not in levels(found)


def test_packets_that_do_not_fit() -> None:
    small = network(links=(LO, link(mtu=1400)))
    found = check_routes(plan(CLASSIC), small)
    assert levels(found)["mtu"] is Level.WARNING and "-M 1400" in said(found)
    assert "mtu" not in levels(check_routes(plan(SOCKET), small)), "the kernel cuts them"
    assert "mtu" not in levels(check_routes(plan(mtu=1400), small))
    found = check_routes(plan(), network(routes=to_target(mtu=1280)))
    assert "-M 1280" in said(found)


def test_a_target_on_this_host() -> None:
    here = network(routes={**to_target(is_local=True)})
    assert levels(check_routes(plan(), here))["target_here"] is Level.NOTE
    assert "target_here" not in levels(check_routes(plan(SOCKET), here))
    loopback = address("127.0.0.1")
    inside = network(routes={loopback: Route(is_local=True, device=1), INTERCEPT: FINE})
    found = check_routes(plan(targets=((loopback, 80),)), inside)
    assert levels(found)["target_here"] is Level.FAULT


def test_frames_need_their_device_and_no_route() -> None:
    nowhere = network(routes={TARGET: Route(error=errno.ENETUNREACH), INTERCEPT: FINE})
    frames = plan(LINK, output_device="eth0", intercepts=((INTERCEPT, 1),))
    assert levels(check_routes(frames, nowhere)) == {"route": Level.OK, "relay_route": Level.OK}
    down = network(links=(LO, link(is_up=False)))
    assert levels(check_routes(frames, down))["route"] is Level.FAULT
