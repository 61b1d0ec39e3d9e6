"""Facts and plans made by hand."""

from __future__ import annotations

import ipaddress
from typing import Any

from tcpcopy.capture.rtnetlink import InterfaceAddress, Link, Route
from tcpcopy.doctor.finding import Finding, Level
from tcpcopy.doctor.firewall import Firewall
from tcpcopy.doctor.host_facts import NetworkFacts, ProcessFacts
from tcpcopy.doctor.plan import Plan
from tcpcopy.mapping.clients import parse_clients
from tcpcopy.report.context import CLASSIC

ALL_RIGHTS = (1 << 41) - 1
ETHERNET, LOOPBACK = 1, 772


def address(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


TARGET, INTERCEPT, OWN, GATEWAY = map(address, ("10.0.0.2", "10.0.0.3", "10.0.0.1", "10.0.0.254"))


def link(index: int = 2, name: str = "eth0", **changes: Any) -> Link:
    values: dict[str, Any] = {"is_up": True, "master": 0, "parent": 0, "kind": ETHERNET}
    return Link(index, name, **{**values, "mtu": 1500, **changes})


LO = link(1, "lo", kind=LOOPBACK, mtu=65536)


def network(**changes: Any) -> NetworkFacts:
    """A host with one device and nothing wrong."""
    values: dict[str, Any] = {
        "links": (LO, link()),
        "addresses": (
            InterfaceAddress(address("127.0.0.1"), 8, 1),
            InterfaceAddress(OWN, 24, 2),
        ),
        "routes": {
            TARGET: Route(device=2, source=OWN),
            INTERCEPT: Route(device=2, source=OWN),
        },
        "sysctls": {
            "net/ipv4/ip_forward": "0",
            "net/ipv4/ip_local_port_range": "32768\t60999",
            "net/core/rmem_max": str(1 << 30),
        },
        "firewall": Firewall(),
    }
    return NetworkFacts(**{**values, **changes})


def process(**changes: Any) -> ProcessFacts:
    """A process of root with all it wants."""
    return ProcessFacts(**{"is_root": True, "capabilities": ALL_RIGHTS, **changes})


def plan(mode: str = CLASSIC, clients: str = "62.135.200.x", **changes: Any) -> Plan:
    """A plan; `clients` is -c, "" for none."""
    values: dict[str, Any] = {
        "mode": mode,
        "sources": ((b"", 80),),
        "targets": ((TARGET, 8080),),
        "intercepts": ((INTERCEPT, 36524),) if mode == CLASSIC else (),
        "pool": parse_clients(clients) if clients else None,
        "client_addresses": tuple(clients.split(",")) if clients else (),
    }
    return Plan(**{**values, **changes})


def levels(findings: list[Finding]) -> dict[str, Level]:
    """The worst level of each check."""
    found: dict[str, Level] = {}
    for finding in findings:
        found[finding.check] = max(finding.level, found.get(finding.check, Level.OK))
    return found


def said(findings: list[Finding]) -> str:
    """All texts and remedies."""
    return "\n".join("\n".join((finding.text, *finding.remedy)) for finding in findings)
