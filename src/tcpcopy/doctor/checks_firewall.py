"""What the packet filter of this host does with the packets of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tcpcopy.doctor import firewall
from tcpcopy.doctor.checks_limits import untracked
from tcpcopy.doctor.finding import Finding, Level
from tcpcopy.doctor.firewall import Hit, Packet
from tcpcopy.doctor.host_facts import NetworkFacts
from tcpcopy.doctor.plan import InterceptPlan, Plan
from tcpcopy.mapping.addresses import format_address, format_endpoint
from tcpcopy.report.context import CLASSIC, LOCAL, SOCKET

_CHECK = "firewall"
_EPHEMERAL = 45678
_LOCAL_DEVICE = "tcpcopy0"  # when not named otherwise


@dataclass(frozen=True, slots=True)
class _Probe:
    """A packet of the run and the hooks it comes by."""

    what: str
    packet: Packet
    hooks: tuple[str, ...]
    exempt: tuple[str, str, bytes, int]  # protocol, d or s, address, port of an exempting rule
    is_invalid: bool = False  # conntrack has seen one direction only
    is_forged: bool = False  # its addresses must stay as they are


def check_firewall(plan: Plan, network: NetworkFacts) -> list[Finding]:
    """Rules that drop, reject, translate or mark what tcpcopy sends, or the target's answers."""
    if network.firewall is None:
        return _unreadable(network)
    findings: list[Finding] = []
    for probe in _probes(plan, network):
        findings += _judge(probe, network)
    findings = list(dict.fromkeys(findings))
    return findings or [Finding(_CHECK, Level.OK, "no rule of this host is in the way")]


def check_relay_firewall(plan: InterceptPlan, network: NetworkFacts) -> list[Finding]:
    """Rules that keep tcpcopies from intercept's port."""
    if network.firewall is None:
        return _unreadable(network)
    packet: dict[str, object] = {
        firewall.PROTOCOL: "tcp",
        firewall.DESTINATION_PORT: plan.port,
        firewall.SOURCE_PORT: _EPHEMERAL,
        firewall.STATE: "new",
    }
    hooks = (firewall.PREROUTING, firewall.INPUT)
    probe = _Probe(
        f"connections of tcpcopy to port {plan.port}", packet, hooks, ("tcp", "d", b"", plan.port)
    )
    findings = list(dict.fromkeys(_judge(probe, network)))
    return findings or [Finding(_CHECK, Level.OK, "no rule of this host is in the way")]


def check_served_here(ports: list[int], network: NetworkFacts) -> list[Finding]:
    """On a target: rules that drop packets of mapped clients."""
    if network.firewall is None:
        return []
    findings: list[Finding] = []
    for port in ports:
        packet: dict[str, object] = {
            firewall.PROTOCOL: "tcp",
            firewall.DESTINATION_PORT: port,
            firewall.SOURCE_PORT: _EPHEMERAL,
            firewall.STATE: "new",
        }
        hooks = (firewall.PREROUTING, firewall.INPUT)
        probe = _Probe(
            f"packets of mapped clients to port {port}", packet, hooks, ("tcp", "d", b"", port)
        )
        findings += _judge(probe, network)
    return list(dict.fromkeys(findings))


def drops_forwarded(network: NetworkFacts) -> bool:
    """Whether it is certain that nothing that arrives for others is passed on (IPv4)."""
    if network.firewall is None:
        return False
    packet: Packet = {firewall.PROTOCOL: "tcp", firewall.STATE: "invalid"}
    found = firewall.hits(network.firewall, firewall.FORWARD, packet)
    return any(hit.is_certain and hit.action in (firewall.DROP, firewall.REJECT) for hit in found)


def _unreadable(network: NetworkFacts) -> list[Finding]:
    text = f"the rules of this host cannot be read: {network.firewall_problem}"
    return [Finding(_CHECK, Level.NOTE, text, (network.here("nft list ruleset"),))]


def _probes(plan: Plan, network: NetworkFacts) -> Iterator[_Probe]:
    if plan.mode == LOCAL:
        yield from _local_probes(plan)
    if plan.mode not in (SOCKET, CLASSIC):
        yield from _relay_probes(plan, network)
        return
    for address, port in plan.targets:
        shown = format_endpoint(address, port)
        route = network.routes.get(address)
        link = network.link(route.device) if route is not None else None
        for protocol in plan.protocols:
            packet: dict[str, object] = {
                firewall.PROTOCOL: protocol,
                firewall.DESTINATION: address,
                firewall.DESTINATION_PORT: port,
                firewall.SOURCE_PORT: _EPHEMERAL,
                firewall.STATE: "new",
            }
            if link is not None:
                packet[firewall.DEVICE_OUT] = link.name
            if plan.pool is not None and (family := plan.pool.only(len(address))):
                packet[firewall.SOURCE] = family[0]
            elif plan.mode == SOCKET and route is not None and route.source:
                packet[firewall.SOURCE] = route.source
            hooks = (firewall.OUTPUT, firewall.POSTROUTING)
            exempt = (protocol, "d", address, port)
            forged = plan.mode == CLASSIC
            what = f"what is sent to the target {shown}"
            yield _Probe(what, packet, hooks, exempt, is_forged=forged)
            if forged and protocol == "tcp":
                # Conntrack sees the SYN and never the answer: to it, all that follows is invalid.
                later = packet | {firewall.STATE: "invalid"}
                what = f"data for the target {shown}"
                yield _Probe(what, later, hooks, exempt, is_invalid=True)
            if plan.mode == SOCKET:
                yield _answer(protocol, address, port, packet, network)
    yield from _relay_probes(plan, network)


def _local_probes(plan: Plan) -> Iterator[_Probe]:
    """Copies that come in by the device of local mode, and the answers that leave by it."""
    for address, port in plan.targets:
        request: dict[str, object] = {
            firewall.DESTINATION: address,
            firewall.DESTINATION_PORT: port,
            firewall.SOURCE_PORT: _EPHEMERAL,
            firewall.DEVICE_IN: _LOCAL_DEVICE,
            firewall.STATE: "new",
        }
        answer: dict[str, object] = {
            firewall.SOURCE: address,
            firewall.SOURCE_PORT: port,
            firewall.DESTINATION_PORT: _EPHEMERAL,
            firewall.DEVICE_OUT: _LOCAL_DEVICE,
            firewall.STATE: "established",
        }
        family = plan.pool.only(len(address)) if plan.pool is not None else None
        if family:
            request[firewall.SOURCE] = answer[firewall.DESTINATION] = family[0]
        shown = format_endpoint(address, port)
        for protocol in plan.protocols:
            request = {**request, firewall.PROTOCOL: protocol}
            answer = {**answer, firewall.PROTOCOL: protocol}
            hooks = (firewall.PREROUTING, firewall.INPUT)
            what = f"what is sent to the target {shown}"
            yield _Probe(what, request, hooks, (protocol, "d", address, port), is_forged=True)
            hooks = (firewall.OUTPUT, firewall.POSTROUTING)
            what = f"answers of the target {shown}"
            yield _Probe(what, answer, hooks, (protocol, "s", address, port))


def _answer(
    protocol: str, address: bytes, port: int, request: Packet, network: NetworkFacts
) -> _Probe:
    packet: dict[str, object] = {
        firewall.PROTOCOL: protocol,
        firewall.SOURCE: address,
        firewall.SOURCE_PORT: port,
        firewall.DESTINATION_PORT: _EPHEMERAL,
        firewall.STATE: "established",
    }
    if isinstance(own := request.get(firewall.SOURCE), bytes):
        packet[firewall.DESTINATION] = own
    if firewall.DEVICE_OUT in request:
        packet[firewall.DEVICE_IN] = request[firewall.DEVICE_OUT]
    shown = format_endpoint(address, port)
    hooks = (firewall.PREROUTING, firewall.INPUT)
    return _Probe(f"answers of the target {shown}", packet, hooks, (protocol, "s", address, port))


def _relay_probes(plan: Plan, network: NetworkFacts) -> Iterator[_Probe]:
    for address, port in plan.intercepts if plan.needs_intercept else ():
        packet: dict[str, object] = {
            firewall.PROTOCOL: "tcp",
            firewall.DESTINATION: address,
            firewall.DESTINATION_PORT: port,
            firewall.SOURCE_PORT: _EPHEMERAL,
            firewall.STATE: "new",
        }
        route = network.routes.get(address)
        if route is not None and (link := network.link(route.device)) is not None:
            packet[firewall.DEVICE_OUT] = link.name
        what = f"the connection to intercept {format_endpoint(address, port)}"
        hooks = (firewall.OUTPUT, firewall.POSTROUTING)
        yield _Probe(what, packet, hooks, ("tcp", "d", address, port))


def _judge(probe: _Probe, network: NetworkFacts) -> Iterator[Finding]:
    assert network.firewall is not None
    packet = dict(probe.packet)
    for hook in probe.hooks:
        for hit in firewall.hits(network.firewall, hook, packet):
            if hit.action == firewall.NAT and not probe.is_forged:
                continue  # the answers are translated back
            if probe.is_invalid and _of_all(hit, hook, packet, network):
                continue  # said of the first packet
            yield _found(probe, hit, network)
            if hit.is_certain and hit.action in (firewall.DROP, firewall.REJECT):
                return


def _of_all(hit: Hit, hook: str, packet: Packet, network: NetworkFacts) -> bool:
    """Whether the same happens to the first packet of a connection."""
    assert network.firewall is not None
    first = {**packet, firewall.STATE: "new"}
    return hit in firewall.hits(network.firewall, hook, first)


def _found(probe: _Probe, hit: Hit, network: NetworkFacts) -> Finding:
    doing = {
        firewall.DROP: "drops",
        firewall.REJECT: "rejects",
        firewall.NAT: "changes the client addresses of",
        firewall.MARK: "marks, so that it may take another route,",
    }[hit.action]
    if not hit.is_certain:
        doing = {
            firewall.DROP: "may drop",
            firewall.REJECT: "may reject",
            firewall.NAT: "may change the client addresses of",
        }.get(hit.action, doing)
    rule = "its policy" if hit.text.startswith("policy") else f"rule {hit.text}"
    why = " (conntrack takes it for invalid: it never sees an answer)" if probe.is_invalid else ""
    text = f"{hit.where}: {rule} {doing} {probe.what}{why}"
    is_fault = hit.is_certain and hit.action != firewall.MARK
    remedy: tuple[str, ...] = (network.here(_exemption(probe, hit)),)
    if hit.action == firewall.MARK:
        remedy = (network.here("ip rule show"),)
    elif probe.is_invalid:
        address, port = probe.exempt[2:]
        remedy += (network.here(untracked(address, port)),)
    return Finding(_CHECK, Level.FAULT if is_fault else Level.NOTE, text, remedy)


def _exemption(probe: _Probe, hit: Hit) -> str:
    """The command that lets the packets pass by the rule: one rule before it."""
    protocol, side, address, port = probe.exempt
    if hit.chain.is_iptables:
        program, _, table = hit.chain.table.partition(" ")
        end = f"-{side} {format_address(address)} " if address else ""
        return (
            f"{program} -t {table} -I {hit.chain.name} {end}-p {protocol} --{side}port {port}"
            " -j ACCEPT"
        )
    family = "ip6" if len(address) == 16 else "ip"
    end = f"{family} {side}addr {format_address(address)} " if address else ""
    return (
        f"nft insert rule {hit.chain.table} {hit.chain.name} {end}{protocol} {side}port {port}"
        " accept"
    )
