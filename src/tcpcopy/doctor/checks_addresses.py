"""Whether the addresses of -c belong to hosts that exist: these would answer, with resets."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from tcpcopy.capture import rtnetlink
from tcpcopy.doctor.finding import Finding, Level
from tcpcopy.doctor.host_facts import NetworkFacts
from tcpcopy.doctor.plan import Plan
from tcpcopy.mapping.addresses import format_address
from tcpcopy.report.context import LOCAL, SOCKET, prefix_of

_CHECK = "overlap"
_MOST_SHOWN = 5
_OUR_DEVICES = "tcpcopy"
_MOST_REAL_SHARE = 2  # a half of the range or more are real hosts: nothing will work

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def check_overlap(plan: Plan, network: NetworkFacts) -> list[Finding]:
    """The range against own addresses, gateways, neighbours, intercepts and networks seen."""
    if plan.mode == SOCKET or plan.pool is None:
        return _own_addresses(plan)
    pool = plan.pool
    shown = ",".join(plan.client_addresses)
    real: dict[bytes, str] = {}
    for address, what in _real_hosts(plan, network):
        if address in pool:
            real.setdefault(address, what)
    other = "on this host: tcpcopy ... -c with a range that nobody has, such as 198.51.100.0/24"
    if real:
        told = [f"{format_address(a)} ({what})" for a, what in list(real.items())[:_MOST_SHOWN]]
        more = f" and {len(real) - _MOST_SHOWN} more" if len(real) > _MOST_SHOWN else ""
        text = (
            f"-c {shown} holds addresses of real hosts: {', '.join(told)}{more}; they reset"
            " connections that they know nothing of"
        )
        most = len(real) * _MOST_REAL_SHARE >= len(pool)
        return [Finding(_CHECK, Level.FAULT if most else Level.WARNING, text, (other,))]
    for ours, device in _networks(network):
        for theirs in _ranges(plan):
            if theirs.version != ours.version or not theirs.overlaps(ours):
                continue
            if theirs.supernet_of(ours) or plan.mode == LOCAL:  # type: ignore[arg-type]
                text = f"-c {shown} holds the network {ours} of {device}, whose hosts are real"
                return [Finding(_CHECK, Level.WARNING, text, (other,))]
            text = f"-c {shown} is a part of the network {ours} of {device}: nobody may have it"
            return [Finding(_CHECK, Level.NOTE, text)]
    return [Finding(_CHECK, Level.OK, f"-c {shown}: no host with such an address is known here")]


def _own_addresses(plan: Plan) -> list[Finding]:
    if plan.mode == SOCKET or not plan.needs_intercept:
        return []
    text = (
        "no -c: the target sees the clients' own addresses, and needs a route to the assistant"
        " for each network that clients come from"
    )
    step = "on this host: tcpcopy ... -c 198.51.100.0/24 makes one route enough"
    return [Finding(_CHECK, Level.NOTE, text, (step,))]


def _real_hosts(plan: Plan, network: NetworkFacts) -> Iterator[tuple[bytes, str]]:
    for entry in network.addresses:
        if not _is_ours(network, entry.device):
            yield entry.address, "this host"
    for address, _ in plan.intercepts:
        yield address, "intercept"
    for address, _ in plan.targets:
        yield address, "the target"
    for route in network.routes.values():
        if route.gateway:
            yield route.gateway, "a gateway"
    for known in network.neighbours:
        link = network.link(known.device)
        if known.state & rtnetlink.VALID and not known.state & rtnetlink.NO_ARP:
            yield known.destination, f"a neighbour on {link.name if link else 'a device'}"


def _networks(network: NetworkFacts) -> Iterator[tuple[Network, str]]:
    """The networks that this host is in; those of a single address say nothing."""
    for entry in network.addresses:
        found = ipaddress.ip_network((entry.address, entry.prefix), strict=False)
        link = network.link(entry.device)
        if _is_ours(network, entry.device):
            continue
        if found.num_addresses > 1 and not found.is_loopback and not found.is_link_local:
            yield found, link.name if link is not None else "a device"


def _is_ours(network: NetworkFacts, device: int) -> bool:
    """Whether a device is one that tcpcopy makes, whose addresses are those of -c."""
    link = network.link(device)
    return link is not None and link.name.startswith(_OUR_DEVICES)


def _ranges(plan: Plan) -> Iterator[Network]:
    for item in plan.client_addresses:
        try:
            yield ipaddress.ip_network(prefix_of(item), strict=False)
        except ValueError:
            continue
