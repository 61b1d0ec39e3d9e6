"""The way to targets and intercepts: routes, devices, next hops, packet sizes."""

from __future__ import annotations

import errno

from tcpcopy.capture import rtnetlink
from tcpcopy.doctor.finding import Finding, Level
from tcpcopy.doctor.host_facts import NetworkFacts
from tcpcopy.doctor.plan import Plan
from tcpcopy.mapping.addresses import IPV4_BYTES, format_address, is_loopback
from tcpcopy.report.context import CLASSIC, LINK, SOCKET

_ROUTE, _RELAY_ROUTE, _MTU, _NEXT_HOP = "route", "relay_route", "mtu", "next_hop"
_LOCAL_TARGET = "target_here"
_REFUSALS = {
    errno.ENETUNREACH: "there is no route",
    errno.EHOSTUNREACH: "a route says that it is unreachable",
    errno.EACCES: "a route prohibits it",
    errno.EINVAL: "a blackhole route swallows its packets",
}


def check_routes(plan: Plan, network: NetworkFacts) -> list[Finding]:
    """Routes to all targets and intercepts, in the namespace that is sent from."""
    findings: list[Finding] = []
    for address in dict.fromkeys(address for address, _ in plan.targets):
        if plan.mode in (SOCKET, CLASSIC):
            findings += _way(_ROUTE, "the target", address, network)
        if plan.mode in (CLASSIC, LINK):
            findings += _target_here(plan, address, network)
            findings += _sizes(plan, address, network)
    for address in dict.fromkeys(address for address, _ in plan.intercepts):
        if plan.needs_intercept:
            findings += _way(_RELAY_ROUTE, "intercept", address, network)
    if plan.mode == LINK:
        findings += _output_device(plan, network)
    return findings


def _way(check: str, who: str, address: bytes, network: NetworkFacts) -> list[Finding]:
    route = network.routes.get(address)
    shown = format_address(address)
    if route is None:
        return []
    if route.error:
        why = _REFUSALS.get(route.error, "there is no usable route")
        steps = [network.here(f"ip {_six(address)}route get {shown}")]
        if route.error == errno.ENETUNREACH:
            steps.insert(0, network.here(f"ip {_six(address)}route add {shown} via GATEWAY"))
        else:
            listed = network.here(f"ip {_six(address)}route show match {shown}")
            steps.insert(0, f"{listed}, and delete the route that does it")
        return [Finding(check, Level.FAULT, f"{who} {shown}: {why}", tuple(steps))]
    link = network.link(route.device)
    name = link.name if link is not None else f"device {route.device}"
    via = f" via {format_address(route.gateway)}" if route.gateway else ""
    if link is not None and not (link.is_up and link.has_carrier):
        text = f"{who} {shown} is reached by {name}, which has no link"
        step = network.here(f"ip link set dev {name} up")
        return [Finding(check, Level.WARNING, text, (step,))]
    text = f"{who} {shown}: " + ("this host" if route.is_local else f"by {name}{via}")
    return [Finding(check, Level.OK, text), *_next_hop(who, address, route, name, network)]


def _next_hop(
    who: str, address: bytes, route: rtnetlink.Route, name: str, network: NetworkFacts
) -> list[Finding]:
    """A neighbour that was asked for and did not answer; one never asked for is no news."""
    hop = route.gateway or address
    for known in network.neighbours:
        if known.destination != hop or known.device != route.device:
            continue
        if known.state & rtnetlink.FAILED:
            protocol = "ARP" if len(hop) == IPV4_BYTES else "neighbour discovery"
            text = f"{format_address(hop)}, the way to {who}, did not answer {protocol} on {name}"
            step = network.here(f"ip neigh show {format_address(hop)} dev {name}")
            return [Finding(_NEXT_HOP, Level.WARNING, text, (step,))]
    return []


def _target_here(plan: Plan, address: bytes, network: NetworkFacts) -> list[Finding]:
    """A target on this host, whose answers to mapped addresses must leave it all the same."""
    route = network.routes.get(address)
    if route is None or not route.is_local:
        return []
    shown = format_address(address)
    leave_out = "on this host: tcpcopy ... without -s connects to it (socket mode)"
    if is_loopback(address):
        text = f"the target {shown} is the loopback address: its answers cannot leave this host"
        return [Finding(_LOCAL_TARGET, Level.FAULT, text, (leave_out,))]
    text = f"the target {shown} is this host: its answers need a route to the assistant here"
    return [Finding(_LOCAL_TARGET, Level.NOTE, text, (leave_out,))]


def _sizes(plan: Plan, address: bytes, network: NetworkFacts) -> list[Finding]:
    """Packets of -M must fit the way: the IP layer does not cut what is sent raw."""
    route = network.routes.get(address)
    if route is None or route.error:
        return []
    link = network.named(plan.output_device) if plan.output_device else network.link(route.device)
    largest = route.mtu or (link.mtu if link is not None else 0)
    if not 0 < largest < plan.mtu:
        return []
    text = (
        f"the way to the target {format_address(address)} takes packets of {largest} bytes,"
        f" {plan.mtu} are allowed (-M)"
    )
    step = f"on this host: tcpcopy ... -M {largest}"
    return [Finding(_MTU, Level.WARNING, text, (step,))]


def _output_device(plan: Plan, network: NetworkFacts) -> list[Finding]:
    name = plan.output_device
    link = network.named(name)
    if link is None or not link.is_up:
        text = f"-o {name}: the device is {'down' if link is not None else 'not there'}"
        step = network.here(f"ip link set dev {name} up")
        return [Finding(_ROUTE, Level.FAULT, text, (step,))]
    return [Finding(_ROUTE, Level.OK, f"frames leave by {name} (-o)")]


def _six(address: bytes) -> str:
    return "" if len(address) == IPV4_BYTES else "-6 "


def destinations(plan: Plan) -> list[bytes]:
    """The addresses whose routes matter."""
    ends = (*plan.targets, *plan.intercepts)
    return list(dict.fromkeys(address for address, _ in ends))
