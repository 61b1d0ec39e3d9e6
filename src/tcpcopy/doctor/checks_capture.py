"""Where packets are captured: devices, filter, ring."""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Sequence

from tcpcopy.capture.devices import short_queue
from tcpcopy.capture.filters import matcher
from tcpcopy.doctor.finding import Finding, Level
from tcpcopy.doctor.host_facts import CAP_NET_ADMIN, NetworkFacts, ProcessFacts
from tcpcopy.doctor.plan import InterceptPlan, Plan
from tcpcopy.mapping.addresses import format_endpoint

_DEVICES, _FILTER, _RING, _QUEUE = "devices", "filter", "ring", "queue"
_LOOPBACK_KIND = 772  # ARPHRD_LOOPBACK
_SYN, _SYN_ACK = 0x02, 0x12
_EPHEMERAL = 45678
_MOST_NAMED = 16  # hosts and ports of a filter that are tried
_CLIENTS = {4: bytes([198, 51, 100, 7]), 16: bytes.fromhex("20010db8") + bytes(11) + b"\x07"}
_SERVERS = {4: bytes([203, 0, 113, 9]), 16: bytes.fromhex("20010db8") + bytes(11) + b"\x09"}


def check_devices(names: Sequence[str], network: NetworkFacts) -> list[Finding]:
    """The devices of -i (none: all): there, up, with a cable."""
    if not names:
        up = [link.name for link in network.links if link.is_up]
        if any(link.is_up and link.kind != _LOOPBACK_KIND for link in network.links):
            return [Finding(_DEVICES, Level.OK, f"all devices, {len(up)} of them up")]
        text = "no device but the loopback is up" if up else "no device is up"
        level = Level.NOTE if up else Level.FAULT
        return [Finding(_DEVICES, level, text, (network.here("ip link set dev DEVICE up"),))]
    findings = []
    usable = 0
    for name in names:
        link = network.named(name)
        if link is None:
            text, step = f"{name}: there is no such device", "ip link"
        elif not link.is_up:
            text, step = f"{name} is down", f"ip link set dev {name} up"
        else:
            usable += 1
            if not link.has_carrier:
                text = f"{name} is up, but has no link: nothing arrives until it does"
                step = network.here(f"ip link show {name}")
                findings.append(Finding(_DEVICES, Level.WARNING, text, (step,)))
            continue
        findings.append(Finding(_DEVICES, Level.WARNING, text, (network.here(step),)))
    if not usable:
        return [Finding(_DEVICES, Level.FAULT, f.text, f.remedy) for f in findings]
    return findings or [Finding(_DEVICES, Level.OK, f"{', '.join(names)}: up")]


def check_capture_filter(plan: Plan) -> list[Finding]:
    """Whether the filter compiles, and lets connections to the ports of -x through."""
    if plan.filter_problem:
        return [Finding(_FILTER, Level.FAULT, f"does not compile: {plan.filter_problem}")]
    size = len(plan.filter_program) // 8
    if plan.filter_text is None:
        return [Finding(_FILTER, Level.OK, f"made from -x, {size} instructions")]
    missed = [
        format_endpoint(address, port)
        for address, port in plan.sources
        if not _lets_clients_through(plan, plan.filter_text, address, port)
    ]
    if not missed:
        return [Finding(_FILTER, Level.OK, f"-F '{plan.filter_text}', {size} instructions")]
    text = f"-F '{plan.filter_text}' lets no client's packet to {', '.join(missed)} through"
    ports = " or ".join(f"dst port {port}" for _, port in plan.sources)
    mend = f"on this host: tcpcopy ... -F '{plan.protocols[0]} and ({ports})', or leave out -F"
    level = Level.FAULT if len(missed) == len(plan.sources) else Level.WARNING
    return [Finding(_FILTER, level, text, (mend,))]


def _lets_clients_through(plan: Plan, expression: str, address: bytes, port: int) -> bool:
    matches = matcher(expression)
    hosts = named_hosts(expression)
    for size in (len(address),) if address else (4, 16):
        clients = [_CLIENTS[size], *(host for host in hosts if len(host) == size)]
        servers = [address] if address else [_SERVERS[size], *clients[1:]]
        if any(
            matches(made_packet(client, _EPHEMERAL, server, port, _SYN, protocol))
            for client in clients
            for server in servers
            for protocol in plan.protocols
        ):
            return True
    return False


def check_answer_filter(plan: InterceptPlan) -> list[Finding]:
    """Whether intercept's filter compiles, and can let a server's answers through."""
    expression = plan.filter_text
    if not expression:
        text = "none: all TCP packets are looked at"
        step = "on this host: intercept ... -F 'tcp and src port PORT' saves work"
        return [Finding(_FILTER, Level.NOTE, text, (step,))]
    if plan.filter_problem:
        return [Finding(_FILTER, Level.FAULT, f"-F does not compile: {plan.filter_problem}")]
    matches = matcher(expression)
    ports = named_ports(expression)
    pairs = _pairs(expression)
    if any(
        matches(made_packet(server, port, client, _EPHEMERAL, _SYN_ACK))
        for port in (*ports, 80)
        for client, server in pairs
    ):
        return [Finding(_FILTER, Level.OK, f"-F '{expression}' can match answers")]
    shown = " or ".join(f"src port {port}" for port in ports) or "src port PORT"
    mend = f"on this host: intercept ... -F 'tcp and {f'({shown})' if ports[1:] else shown}'"
    if any(
        matches(made_packet(client, _EPHEMERAL, server, port, _SYN))
        for port in ports
        for client, server in pairs
    ):
        text = f"-F '{expression}' matches what is sent to the server, not what it answers"
        return [Finding(_FILTER, Level.FAULT, text, (mend,))]
    text = f"-F '{expression}' matches no answer that was tried"
    return [Finding(_FILTER, Level.WARNING, text, (mend,))]


def _pairs(expression: str) -> list[tuple[bytes, bytes]]:
    """Addresses of client and server that a filter might be about."""
    hosts = named_hosts(expression)
    pairs = []
    for size in (4, 16):
        own = [host for host in hosts if len(host) == size]
        pairs += [(c, s) for c in [_CLIENTS[size], *own] for s in [_SERVERS[size], *own]]
    return pairs


def named_ports(expression: str) -> list[int]:
    """The port numbers that stand in a filter expression, as far as they are written as such."""
    found = re.findall(r"\bport(?:range)?\s+((?:\d+(?:-\d+)?(?:\s+or\s+)?)+)", expression)
    numbers = [int(text) for part in found for text in re.findall(r"\d+", part)]
    named = {"http": 80, "https": 443, "domain": 53, "mysql": 3306}
    numbers += [named[word] for word in re.findall(r"\bport\s+([a-z]+)", expression)
                if word in named]  # fmt: skip
    return [n for n in dict.fromkeys(numbers) if 0 < n < 65536][:_MOST_NAMED]


def named_hosts(expression: str) -> list[bytes]:
    """An address of each host and network that stands in a filter expression."""
    hosts = []
    for word in re.findall(r"[0-9A-Fa-f.:]+(?:/\d+)?", expression):
        try:
            network = ipaddress.ip_network(word, strict=False)
        except ValueError:
            continue
        if "." in word or ":" in word:
            size = network.num_addresses
            hosts.append(network[1 if size > 1 else 0].packed)
    return list(dict.fromkeys(hosts))[:_MOST_NAMED]


def made_packet(
    source: bytes,
    source_port: int,
    destination: bytes,
    destination_port: int,
    flags: int,
    protocol: str = "tcp",
) -> bytes:
    """An IP packet with a TCP or UDP header and no payload; checksums are left empty."""
    if protocol == "udp":
        number, body = 17, struct.pack("!HHHH", source_port, destination_port, 9, 0) + b"?"
    else:
        number = 6
        body = struct.pack("!HHIIBBHHH", source_port, destination_port, 1, 1, 0x50, flags,
                           65535, 0, 0)  # fmt: skip
    if len(source) == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0x4000, 64, number, 0)
    else:
        head = struct.pack("!IHBB", 0x60000000, len(body), number, 64)
    return head + source + destination + body


def check_ring(plan: Plan, network: NetworkFacts) -> list[Finding]:
    """Whether the capture buffers can be had."""
    if network.ring_problem and not network.capture_problem:
        text = f"the capture buffer of {plan.buffer_bytes >> 20} MiB: {network.ring_problem}"
        return [Finding(_RING, Level.FAULT, text, ("on this host: tcpcopy ... -B 8",))]
    return []


def check_queue(buffer_bytes: int, process: ProcessFacts, network: NetworkFacts) -> list[Finding]:
    """Whether packets above a frame of the ring have the room that was asked for."""
    limit = network.number("net/core/rmem_max", buffer_bytes)
    told = "" if process.has(CAP_NET_ADMIN) else short_queue(2 * limit, buffer_bytes)
    if not told or network.capture_problem:
        return []
    text = told.partition(":")[0]
    step = f"on this host: sysctl -w net.core.rmem_max={buffer_bytes}"
    return [Finding(_QUEUE, Level.WARNING, text, (step,))]
