"""From what a probe observed to its cause: pure functions of `ProbeFacts`.

In the order in which a packet travels: what fails first is the finding, and what lies behind it is
not guessed at. Only where several causes look alike from here are all of them named.
"""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Final

from tcpcopy.doctor.finding import Finding, Level
from tcpcopy.doctor.observed import Answer, Attempt, ProbeFacts, RelayFacts
from tcpcopy.doctor.relay_causes import named, relay_findings
from tcpcopy.relay.probing import ECHO, RESET, SYN_ACK, UNREACHABLE, Flow, Seen
from tcpcopy.report import remedies
from tcpcopy.report.context import LOCAL, SOCKET, TUNNEL, Context, endpoint

CHECK: Final = "probe"
HERE, RELAY, NETWORK, TARGET, ASSISTANT = "this host", "relay", "network", "target", "assistant"


def diagnose(facts: ProbeFacts, context: Context) -> list[Finding]:
    """What the probe found; one OK when all went well."""
    if context.mode == SOCKET:
        return _own_findings(facts, context, facts.own)
    findings = [] if context.mode == LOCAL else relay_findings(facts, context)
    if any(finding.level is Level.FAULT for finding in findings):
        return findings + _target_aside(facts, context)
    if facts.forged.answer is Answer.FAILED:
        return [*findings, _not_sent(facts.forged, context)]
    if facts.forged.answer is Answer.SYN_ACK:
        return findings + _answered(facts, context)
    if facts.forged.answer is Answer.RESET:
        return [*findings, _reset(facts, context)]
    return findings + _unanswered(facts, context)


# --- the ordinary handshake -------------------------------------------------------------------


def _own_findings(facts: ProbeFacts, context: Context, own: Attempt) -> list[Finding]:
    """From this host's own address: all there is in socket mode."""
    where = target_of(facts.flow)
    if own.answer is Answer.SYN_ACK:
        text = f"{where} takes connections from this host ({facts.milliseconds:.1f} ms)"
        return [Finding(CHECK, Level.OK, text)]
    if own.answer is Answer.FAILED:
        return [_not_sent(own, context)]
    return [_own_fault(facts, context, own)]


def _own_fault(facts: ProbeFacts, context: Context, own: Attempt) -> Finding:
    """An ordinary handshake has failed."""
    where = target_of(facts.flow)
    host, port = text_of(facts.flow.target), facts.flow.target_port
    steps: tuple[str, ...]
    if own.answer is Answer.RESET:
        return refused(facts, context)
    if own.answer is Answer.UNREACHABLE:
        text = f"{own.said_by} says that {where} cannot be reached ({icmp_text(own.code, host)})"
        hop = TARGET if own.said_by == host else NETWORK
        steps = (
            f"on {own.said_by}: nft list ruleset (or iptables-save) shows the rule that rejects"
            f" tcp to port {port}; ip route get {host}",
        )
        return Finding(CHECK, Level.FAULT, text, steps, hop)
    if own.reached_device:
        text = f"the answer of {where} reached a device of this host and was dropped here"
        steps = (
            f"on online: nft insert rule inet filter input ip saddr {host} tcp sport {port} accept"
            " (nft list ruleset, iptables-save show the rule that drops it)",
        )
        return Finding(CHECK, Level.FAULT, text, steps, HERE)
    if facts.target_is_alive:
        text = f"{host} is up, but nothing came back from port {port}: its firewall drops the SYN"
        steps = (
            "on target: nft list ruleset (or iptables-save) shows the rule on input;"
            f" iptables -I INPUT -p tcp --dport {port} -j ACCEPT",
            f"on target: tcpdump -ni any 'tcp dst port {port}' shows whether the SYNs arrive",
        )
        return Finding(CHECK, Level.FAULT, text, steps, TARGET)
    text = f"{where} does not answer at all, neither a SYN nor a ping: it is down, or its address"
    text += " is wrong, or a firewall on the way drops everything"
    steps = (
        f"on online: ping -c 3 {host}; ip route get {host}"
        + (f"; ip neigh show {host}" if facts.is_neighbour else f"; traceroute -n {host}"),
        "on target: ip -br address must show it, and its device up",
    )
    return Finding(CHECK, Level.FAULT, text, steps, TARGET)


def refused(facts: ProbeFacts, context: Context) -> Finding:
    """Nothing listens there."""
    where = target_of(facts.flow)
    text = f"{where} is up and refuses: nothing listens on the port"
    return Finding(CHECK, Level.FAULT, text, named(remedies.listening(context)), TARGET)


def _not_sent(attempt: Attempt, context: Context) -> Finding:
    """The kernel of this host did not take the SYN."""
    name = remedies.errno_text(attempt.errno)
    text = f"the SYN did not leave this host: {name}"
    return Finding(
        CHECK,
        Level.FAULT,
        text,
        (f"on online: {remedies.send_error(attempt.errno, context)}",),
        HERE,
    )


def _target_aside(facts: ProbeFacts, context: Context) -> list[Finding]:
    """The target by itself, where the way of the mode is broken already."""
    if facts.own.answer in (Answer.NOT_TRIED, Answer.SYN_ACK):
        return []
    return _own_findings(facts, context, facts.own)


# --- an answer came back ----------------------------------------------------------------------


def _answered(facts: ProbeFacts, context: Context) -> list[Finding]:
    """The SYN-ACK came back: is there anything that will end the sessions all the same?"""
    flow = facts.flow
    way = {LOCAL: "the TUN device", TUNNEL: "the tunnel"}.get(context.mode, "the relay")
    text = f"handshake with {target_of(flow)} from {text_of(flow.mapped)} complete by {way}"
    findings = [Finding(CHECK, Level.OK, f"{text} ({facts.milliseconds:.1f} ms)")]
    forwarding = _forwarding(facts, context)
    if facts.reset_between:
        findings[0] = forwarding or _someone_resets(facts, context)
        if findings[0].level is not Level.FAULT:
            text = f"{target_of(flow)} was reset behind our back: {findings[0].text}"
            findings[0] = replace(findings[0], level=Level.FAULT, text=text)
    elif forwarding is not None:
        findings.append(forwarding)
    elif facts.real_host and context.client_addresses:
        findings.append(_overlap(facts, context, Level.WARNING))
    return findings


def _forwarding(facts: ProbeFacts, context: Context) -> Finding | None:
    """The assistant passes the answers on."""
    is_v6 = len(facts.flow.mapped) == 16
    name = "net.ipv6.conf.all.forwarding" if is_v6 else "net.ipv4.ip_forward"
    for relay in facts.up():
        report = relay.report
        if report is None or not (report.forwards_v6 if is_v6 else report.forwards_v4):
            continue
        seen = any(s.leaves and s.kind == SYN_ACK for s in _to_mapped(facts, report.seen))
        text = f"the assistant {relay.address} forwards ({name} is on)"
        text += ", and has passed the answer on" if seen else ""
        text += ": what the target answers travels on to the real clients, which reset it"
        steps = (f"on assistant {relay.address}: sysctl -w {name}=0",)
        # Where clients have addresses of nobody's it is our sessions alone that suffer.
        harms = (seen or facts.reset_between) and not context.client_addresses
        level = Level.FAULT if seen else Level.WARNING
        return Finding(CHECK, level, text, steps, ASSISTANT, harms_clients=harms)
    return None


def _someone_resets(facts: ProbeFacts, context: Context) -> Finding:
    if facts.real_host:
        return _overlap(facts, context, Level.FAULT)
    text = f"somebody who got the target's answer to {text_of(facts.flow.mapped)} reset it"
    steps = (
        f"on target: tcpdump -ni any 'tcp port {facts.flow.target_port} and tcp[13] & 4 != 0'"
        " -e shows by its MAC address who sends the resets",
        *(f"on assistant {relay.address}: sysctl -w net.ipv4.ip_forward=0" for relay in facts.up()),
    )
    return Finding(CHECK, Level.FAULT, text, steps, NETWORK)


def _overlap(facts: ProbeFacts, context: Context, level: Level) -> Finding:
    mapped = text_of(facts.flow.mapped)
    steps: tuple[str, ...]
    if context.client_addresses:
        text = f"a real host has the address {mapped} of -c {','.join(context.client_addresses)}"
        steps = ("on online: give -c a range that no host has, such as -c 62.135.200.x",)
    else:
        text = f"the real client {mapped} gets the target's answers"
        steps = ()
    if level is Level.FAULT:
        text += ": it gets the target's answers, and resets the connections"
    return Finding(CHECK, level, text, (*steps, *_route_steps(facts, context)), NETWORK)


def _reset(facts: ProbeFacts, context: Context) -> Finding:
    """A RST came back."""
    if facts.own.answer is not Answer.SYN_ACK:
        return refused(facts, context)
    mapped = text_of(facts.flow.mapped)
    text = f"{target_of(facts.flow)} takes connections of this host, but resets those from {mapped}"
    text += ": its firewall rejects them"
    port = facts.flow.target_port
    steps = (
        f"on target: nft list ruleset (or iptables-save) shows the rule;"
        f" iptables -I INPUT -p tcp --dport {port} -j ACCEPT",
    )
    return Finding(CHECK, Level.FAULT, text, steps, TARGET)


# --- nothing came back ------------------------------------------------------------------------


def _unanswered(facts: ProbeFacts, context: Context) -> list[Finding]:
    """Nothing came back to tcpcopy: how far did it get?"""
    if facts.own.answer not in (Answer.SYN_ACK, Answer.NOT_TRIED):
        # Not even an ordinary connection works: that comes first.
        return _own_findings(facts, context, facts.own)
    if context.mode == LOCAL:
        return [_local_silent(facts)]
    if context.mode == TUNNEL:
        return [_tunnel_silent(facts)]
    at_assistant = _at_assistant(facts, context)
    if at_assistant is not None:
        return [at_assistant]
    strayed = _came_here(facts, context)
    if strayed is not None:
        return [strayed]
    if facts.left_as:
        return [_translated(facts)]
    if facts.left is False:
        return [_kept_here(facts)]
    return [_beyond(facts, context)]


def _at_assistant(facts: ProbeFacts, context: Context) -> Finding | None:
    """The answer reached the assistant, but not tcpcopy."""
    steps: tuple[str, ...]
    for relay, report in facts.reports():
        rejected = [s for s in _to_mapped(facts, report.seen) if s.kind == UNREACHABLE]
        if rejected:
            return _rejected(facts, rejected[0].source)
        arrived = [s for s in _to_mapped(facts, report.seen) if s.kind in (SYN_ACK, RESET)]
        if not arrived:
            continue
        if _to_mapped(facts, report.passed):
            return _not_relayed(facts, relay)
        if all(seen.kind == RESET for seen in arrived):
            return refused(facts, context)
        came_in = sorted({seen.device for seen in arrived if not seen.leaves})
        if report.devices and came_in and not set(came_in) & set(report.devices):
            text = f"the answers reach the assistant {relay.address} on {', '.join(came_in)},"
            text += f" but its intercept captures on {', '.join(report.devices)} only (-i)"
            steps = (f"on assistant {relay.address}: start intercept with -i {came_in[0]}",)
        else:
            text = f"the answers reach the assistant {relay.address}, but its intercept's"
            text += f" -F '{report.filter}' leaves them out"
            wanted = f"tcp and src port {facts.flow.target_port}"
            steps = (f"on assistant {relay.address}: start intercept with -F '{wanted}'",)
        return Finding(CHECK, Level.FAULT, text, steps, ASSISTANT)
    return None


def _rejected(facts: ProbeFacts, said_by: str) -> Finding:
    """ICMP about the forged SYN came to the assistant."""
    mapped, port = text_of(facts.flow.mapped), facts.flow.target_port
    is_target = said_by == text_of(facts.flow.target)
    who = "the target's firewall" if is_target else said_by
    text = f"{who} rejects packets from {mapped} to {target_of(facts.flow)} (ICMP says so)"
    steps = (
        f"on {'target' if is_target else said_by}: nft list ruleset (or iptables-save) shows the"
        f" rule; iptables -I INPUT -s {mapped} -p tcp --dport {port} -j ACCEPT",
    )
    return Finding(CHECK, Level.FAULT, text, steps, TARGET if is_target else NETWORK)


def _not_relayed(facts: ProbeFacts, relay: RelayFacts) -> Finding:
    text = f"intercept on {relay.address} captured the answer, but the relay did not bring it back"
    steps = (
        f"on assistant {relay.address}: intercept's log says what it did with answers (`unused`),"
        " and whether sessions are refused (--max-sessions); a target behind address translation"
        " needs --dnat, clients behind one -D",
    )
    return Finding(CHECK, Level.FAULT, text, steps, RELAY)


def _came_here(facts: ProbeFacts, context: Context) -> Finding | None:
    """The target's answer to the mapped address came to this host instead."""
    if not any(seen.kind == SYN_ACK for seen in facts.here):
        return None
    mapped = text_of(facts.flow.mapped)
    device = facts.here[0].device
    text = f"the target answers, but sends what is for {mapped} to this host (seen on {device}):"
    text += " its route does not lead to the assistant"
    return Finding(CHECK, Level.FAULT, text, _route_steps(facts, context), TARGET)


def _translated(facts: ProbeFacts) -> Finding:
    mapped = text_of(facts.flow.mapped)
    text = f"the SYN from {mapped} left this host as one from {facts.left_as}: address translation"
    host, port = text_of(facts.flow.target), facts.flow.target_port
    steps = (
        f"on online: iptables -t nat -I POSTROUTING -p tcp -d {host} --dport {port} -j ACCEPT"
        " (nft list ruleset shows the masquerade or snat rule), or send with -o DEVICE",
    )
    return Finding(CHECK, Level.FAULT, text, steps, HERE)


def _kept_here(facts: ProbeFacts) -> Finding:
    host = text_of(facts.flow.target)
    text = f"the SYN to {target_of(facts.flow)} was taken by the kernel but left by no device"
    steps = (
        f"on online: nft list ruleset and tc filter show dev DEVICE show what drops it;"
        f" ip neigh show {host}: its MAC address must be known",
    )
    return Finding(CHECK, Level.FAULT, text, steps, HERE)


def _local_silent(facts: ProbeFacts) -> Finding:
    port = facts.flow.target_port
    text = f"{target_of(facts.flow)} takes ordinary connections, but not those from"
    text += f" {text_of(facts.flow.mapped)}: this host's firewall drops what comes in by the TUN"
    text += " device"
    steps = (
        f"on this host: nft list ruleset (or iptables-save) shows the rule on input; iptables -I"
        f" INPUT -i tcpcopy+ -p tcp --dport {port} -j ACCEPT",
    )
    return Finding(CHECK, Level.FAULT, text, steps, HERE)


def _tunnel_silent(facts: ProbeFacts) -> Finding:
    """The tunnel is there, and nothing came out of it."""
    mapped, port = text_of(facts.flow.mapped), facts.flow.target_port
    steps: tuple[str, ...]
    for relay in facts.up():
        if relay.not_injected:
            text = f"intercept {relay.name} does not inject the SYN: {relay.not_injected}"
            steps = (f"on target: start intercept with a --tun-clients that has {mapped}, and a"
                     f" --tun-allow that has {target_of(facts.flow)}",)  # fmt: skip
            return Finding(CHECK, Level.FAULT, text, steps, ASSISTANT)
    for _, report in facts.reports():
        strayed = [seen for seen in _to_mapped(facts, report.seen) if seen.kind == SYN_ACK]
        if strayed:
            text = f"the target's answer to {mapped} left by {strayed[0].device}, not by the tunnel"
            steps = (f"on target: ip rule; ip route get {mapped} must say the device of --tun",)
            return Finding(CHECK, Level.FAULT, text, steps, TARGET)
    text = f"{target_of(facts.flow)} does not answer what intercept injects: a firewall there"
    text += " drops what comes in by the TUN device, or intercept is on another host"
    steps = (
        "on target: nft list ruleset (or iptables-save) shows the rule on input; iptables -I INPUT"
        f" -i tcpcopy+ -p tcp --dport {port} -j ACCEPT",
        f"on target: ip -br address must show {text_of(facts.flow.target)}",
    )
    return Finding(CHECK, Level.FAULT, text, steps, TARGET)


def _beyond(facts: ProbeFacts, context: Context) -> Finding:
    """It left, the target takes ordinary connections, and nothing was seen of an answer."""
    reports = facts.reports()
    passes = any(relay.own_syn_ack for relay in facts.relays) or any(
        seen.kind == SYN_ACK and seen.destination == relay.address
        for relay, report in reports
        for seen in report.seen
    )
    if passes:
        if any(
            seen.kind == ECHO for _, report in reports for seen in _to_mapped(facts, report.seen)
        ):
            return _filtered_at_target(facts)
        if facts.real_host:
            return _overlap(facts, context, Level.FAULT)
        return _no_route(facts, context)
    silent = facts.without_details()
    if silent:
        if facts.real_host:
            return _overlap(facts, context, Level.FAULT)
        if text_of(facts.flow.mapped) in facts.asked_for:  # so it has answered
            return _no_route(facts, context)
        return _not_told(facts, context, silent[0])
    return _forged_dropped(facts, context, known=bool(facts.up()))


def _not_told(facts: ProbeFacts, context: Context, relay: RelayFacts) -> Finding:
    """The assistant may know, but tells nobody whom it does not know."""
    mapped, port = text_of(facts.flow.mapped), facts.flow.target_port
    text = f"{target_of(facts.flow)} answers this host's own address, but no answer to {mapped}"
    text += " came back: its route for them is missing or does not lead to the assistant"
    text += f" {relay.address}, or a firewall or reverse path filtering (rp_filter) there drops"
    text += " what has another host's address, or intercept's -F or -i leaves the answers out"
    text += " (intercept is open: without a secret it does not say what it sees)"
    steps = list(_route_steps(facts, context))
    if len(facts.flow.target) == 4:
        steps.append("on target: sysctl -w net.ipv4.conf.all.rp_filter=0, and the same for the"
                     " device that the packets come in by")  # fmt: skip
    steps += [
        f"on target: tcpdump -ni any 'tcp port {port} and host {mapped}' shows the copied SYNs and"
        " its answers; if not, the network drops them, or nft list ruleset shows what does",
        f"on assistant {relay.address}: intercept -i DEVICE -F 'tcp and src port {port}', with the"
        " device that the answers come in by",
        "on online and assistant: give both programs --secret-file FILE, and this says which it is",
    ]
    return Finding(CHECK, Level.FAULT, text, tuple(steps), TARGET)


def _filtered_at_target(facts: ProbeFacts) -> Finding:
    """Its pings to the mapped address come to the assistant, its TCP does not."""
    mapped, port = text_of(facts.flow.mapped), facts.flow.target_port
    text = f"the target's route for {mapped} is right (a ping's answer came to the assistant), but"
    text += f" its firewall drops TCP from there to port {port}"
    steps = (
        f"on target: nft list ruleset (or iptables-save) shows the rule; iptables -I INPUT -s"
        f" {mapped} -p tcp --dport {port} -j ACCEPT",
    )
    return Finding(CHECK, Level.FAULT, text, steps, TARGET)


def _no_route(facts: ProbeFacts, context: Context) -> Finding:
    """It answers forged packets, if its answer's way is known to lead to the assistant."""
    mapped = text_of(facts.flow.mapped)
    assistants = [relay.address for relay in facts.up()]
    text = f"the target's answers to {mapped} do not come to the assistant"
    text += f" {' or '.join(assistants)}: its route for them is missing, or leads elsewhere"
    strange = [a for a in facts.asked_for if a not in (*assistants, text_of(facts.flow.target))]
    if mapped in strange:
        text += " (it looks for the address itself on its network: no route via the assistant)"
    elif strange:
        text += f" (it looks for {strange[0]} on its network)"
    steps = list(_route_steps(facts, context))
    steps.append(
        f"on target: if the route is right, a firewall there drops packets from {mapped}:"
        " nft list ruleset"
    )
    return Finding(CHECK, Level.FAULT, text, tuple(steps), TARGET)


def _forged_dropped(facts: ProbeFacts, context: Context, *, known: bool) -> Finding:
    """Packets of other hosts' addresses bring nothing, ordinary ones do."""
    mapped, port = text_of(facts.flow.mapped), facts.flow.target_port
    text = f"{target_of(facts.flow)} answers this host's own address, but no packet with another"
    text += " host's address"
    steps = []
    if len(facts.flow.target) == 4:
        text += f" ({mapped}, nor the assistant's): reverse path filtering on the target"
        text += " (rp_filter), or the network drops forged addresses"
        steps.append(
            "on target: sysctl -w net.ipv4.conf.all.rp_filter=0, and the same for the device that"
            " the packets come in by (nstat -az TcpExtIPReversePathFilter counts what it drops)"
        )
    else:
        text += ": the network or the target's firewall drops forged addresses"
    if not known or not facts.reports():
        text += "; or its answers do not come to the assistant (intercept says nothing of what it"
        text += " sees, being a C program or an older one)"
        steps += _route_steps(facts, context)
    steps.append(
        f"on target: tcpdump -ni any 'tcp dst port {port}' shows the copied SYNs; if not, the"
        " network drops them: use -c with addresses that may be sent from online, or leave out -s"
        " (socket mode)"
    )
    return Finding(CHECK, Level.FAULT, text, tuple(steps), TARGET)


# --- texts ------------------------------------------------------------------------------------


def _route_steps(facts: ProbeFacts, context: Context) -> tuple[str, ...]:
    """The route on the target, and how to see it."""
    steps = remedies.routes(context)
    if len(facts.flow.mapped) == 16:
        steps = [step.replace("ip route", "ip -6 route") for step in steps]
        for assistant in context.assistants:
            if ":" not in assistant:  # the relay may be of the other family
                steps = [
                    step.replace(f"via {assistant}", f"via IPV6_ADDRESS_OF_{assistant}")
                    for step in steps
                ]
    return named(steps)


def _to_mapped(facts: ProbeFacts, seen: tuple[Seen, ...]) -> list[Seen]:
    mapped = text_of(facts.flow.mapped)
    return [item for item in seen if item.destination == mapped]


def target_of(flow: Flow) -> str:
    """The target as `address:port`."""
    return endpoint(text_of(flow.target), flow.target_port)


def text_of(address: bytes) -> str:
    """The address as text."""
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


_ICMP_V4: Final = {
    0x0300: "network unreachable",
    0x0301: "host unreachable",
    0x0303: "port unreachable",
    0x0309: "network prohibited",
    0x030A: "host prohibited",
    0x030D: "prohibited by a filter",
    0x0B00: "time to live exceeded",
}
_ICMP_V6: Final = {
    0x0100: "no route",
    0x0101: "prohibited by a filter",
    0x0103: "address unreachable",
    0x0104: "port unreachable",
    0x0300: "hop limit exceeded",
}


def icmp_text(code: int, host: str) -> str:
    """What an ICMP type and code say; `host` tells the family."""
    names = _ICMP_V6 if ":" in host else _ICMP_V4
    return names.get(code, f"ICMP type {code >> 8}, code {code & 255}")
