"""From counts to causes: what went wrong, why most likely, and what mends it.

Pure functions of a snapshot and its context. Every loss gets exactly one finding of level
"loss", so that exit code, summary and JSON report cannot disagree.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

from tcpcopy.report import leftovers, remedies, said, udp
from tcpcopy.report.context import LOCAL, SOCKET, TUNNEL, Context
from tcpcopy.report.counters import Snapshot, drops_of
from tcpcopy.report.outcome import Drop, Outcome
from tcpcopy.report.text import byte_size, number, plural
from tcpcopy.report.verdict import wanted

#: Levels, most serious first. "bug": our own counts contradict each other.
BUG, LOSS, WARNING, NOTE = "bug", "loss", "warning", "note"
LEVELS = (BUG, LOSS, WARNING, NOTE)

# Connects in vain since the target accepted one, to call it gone: so many, and this part of all.
_LEAST_MISSING = 20
_MISSING_PERCENT = 80
_NEARLY_PERCENT = 80  # of the local ports in use at once


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth telling: how often, what and why, and the steps that mend it."""

    key: str  # stable, lower case; the outcome's name for outcomes
    level: str  # one of LEVELS
    count: int
    text: str  # one line, the count in it
    remedy: tuple[str, ...] = ()  # one step each, in the order to try them


def diagnose(snapshot: Snapshot, context: Context) -> list[Finding]:
    """Every finding, most serious first, then by count.

    A loss is: a session with an outcome that is one, packets that the kernel dropped before
    tcpcopy saw them (nobody knows what was in them), packets left unread at exit, and a run that
    replayed nothing at all.
    """
    findings = _broken_counts(snapshot)
    findings += _nothing_replayed(snapshot, context)
    findings += _kernel_drops(snapshot, context)
    findings += _left_unread(snapshot, context)
    findings += _dead_workers(snapshot)
    for outcome, explain in _EXPLAIN.items():
        count = snapshot.outcomes[outcome]
        if count:
            text, remedy = explain(snapshot, context, count)
            findings.append(Finding(outcome.name.lower(), LOSS, count, text, remedy))
    findings += _relay_troubles(snapshot, context)
    findings += _warnings(snapshot, context)
    findings += [Finding(*found) for found in udp.findings(snapshot, context)]
    findings += [Finding(*found) for found in said.findings(snapshot)]
    findings += [Finding(*found) for found in leftovers.findings(snapshot, context)]
    return sorted(findings, key=lambda finding: (LEVELS.index(finding.level), -finding.count))


def is_loss(finding: Finding) -> bool:
    """Whether a run with this finding ends with exit code 1."""
    return finding.level in (BUG, LOSS)


# --- losses that are no outcome of a session --------------------------------------------------


def _broken_counts(snapshot: Snapshot) -> list[Finding]:
    return [
        Finding(
            "counts", BUG, 1, f"the counts do not add up: {line}",
            ("this is a fault in tcpcopy: please report it with the JSON report and the log",),
        )
        for line in snapshot.check()
    ]  # fmt: skip


def _nothing_replayed(snapshot: Snapshot, context: Context) -> list[Finding]:
    if snapshot.sessions_captured + snapshot.udp_flows_captured + snapshot.all_unread == 0:
        text, remedy = _why_nothing_captured(snapshot, context)
        return [Finding("nothing_captured", LOSS, 0, f"no session captured: {text}", remedy)]
    if wanted(snapshot) == 0 and not snapshot.all_unread:
        count = snapshot.sessions_skipped + snapshot.udp_flows_skipped
        if not count:
            return [_no_handshake(snapshot)]
        remedy = ("sample more (-r, -g), run longer, or take sessions begun earlier (no -O)",)
        text = f"nothing replayed: {plural(count, 'session')} captured, left out as asked"
        return [Finding("nothing_replayed", LOSS, count, text, remedy)]
    return []


def _no_handshake(snapshot: Snapshot) -> Finding:
    count = snapshot.sessions_incomplete + snapshot.sessions_waiting
    return Finding(
        "nothing_replayed", LOSS, count,
        f"nothing replayed: {plural(count, 'session')} captured, none of which completed its"
        " handshake",
        ("see whether the online server accepts connections: its answers pass by the capture",
         "capture the clients' packets on the host where the server runs, all of them (-i, -F)"),
    )  # fmt: skip


def _why_nothing_captured(snapshot: Snapshot, context: Context) -> tuple[str, tuple[str, ...]]:
    ports = context.online_ports or (0,)
    protocols = ("tcp", "udp") if context.transport == "both" else (context.transport,)
    expression = " or ".join(f"{what} dst port {port}" for what in protocols for port in ports)
    devices = ", ".join(context.devices) or "all devices"
    if snapshot.not_read and not snapshot.packets_captured:
        return f"what came is in {remedies.named_encapsulations(snapshot)}, which is not read", (
            "record or mirror the packets without it",
        )
    if context.files and not snapshot.packets_captured:
        named = " ".join(context.files)
        ports_text = ", ".join(map(str, ports))
        return f"none of {plural(snapshot.file.packets, 'packet')} goes to port {ports_text}", (
            f"tcpcopy inspect {named} shows what is in it, and which -x would fit",
        )
    if snapshot.packets_captured:
        reasons = drops_of(snapshot.packet_drops)
        shown = ", ".join(f"{number(count)} {reason.description}" for reason, count in reasons)
        seen = plural(snapshot.packets_captured, "packet")
        steps = []
        if snapshot.packet_drops[Drop.NO_TRANSFER]:
            steps.append("compare the address and port in -x with those that the clients connect to"
                         f" (tcpdump -ni any '{expression}')")  # fmt: skip
        steps.append("let clients open connections, or send on open ones, while tcpcopy runs")
        return f"{seen} captured, but none that begins one ({shown or 'no reason'})", tuple(steps)
    if snapshot.udp_packets_captured:
        seen = plural(snapshot.udp_packets_captured, "UDP packet")
        step = f"compare the address and port in -x with tcpdump -ni any '{expression}'"
        return f"{seen} captured, but none to a source of -x", (step,)
    if snapshot.kernel_dropped:
        return "the kernel dropped every packet", remedies.bigger_buffer(context)
    names = f"port {', '.join(map(str, ports))}"
    steps = [
        f"on this host: tcpdump -ni any -c 5 '{expression}' must show the clients' packets",
    ]
    if context.devices:
        steps.append(f"they must come in by {devices} (-i); clients on this host come in by lo")
    if context.filter_text:
        steps.append(f"they must pass -F '{context.filter_text}'")
    steps.append("the port in -x must be the one on which the packets reach this host (for a"
                 " published container port, the container's own)")  # fmt: skip
    return f"no packet to {names} seen on {devices}", tuple(steps)


def _kernel_drops(snapshot: Snapshot, context: Context) -> list[Finding]:
    dropped = snapshot.kernel_dropped
    if not dropped:
        return []
    share = 100 * dropped / max(1, snapshot.kernel_received)
    rings = ", ".join(
        f"{device} {number(ring.dropped)}"
        for device, ring in snapshot.rings.items()
        if ring.dropped
    )
    text = (
        f"{plural(dropped, 'packet')} ({share:.2g} %) dropped by the kernel, the capture buffer"
        f" was full ({rings})"
    )
    return [Finding("kernel_dropped", LOSS, dropped, text, remedies.bigger_buffer(context))]


def _left_unread(snapshot: Snapshot, context: Context) -> list[Finding]:
    count = snapshot.all_unread
    if not count:
        return []
    begun = snapshot.sessions_unread
    what = f", and with them {plural(begun, 'session')} of which nothing was replayed"
    waited = f"{context.exit_wait_s} s after the stop" if context.exit_wait_s else "at exit"
    text = (
        f"{plural(count, 'captured packet')} left unread {waited}{what if begun else ''}: tcpcopy"
        " was behind the traffic, and a stop ends the work after 10 s, a second one at once"
    )
    remedy = (
        "stop the clients first, and tcpcopy once its log shows no new sessions; stop it once only",
        "if it falls behind all the time: --workers 2 or more, or replay less: -r",
    )
    return [Finding("packets_unread", LOSS, count, text, remedy)]


def _dead_workers(snapshot: Snapshot) -> list[Finding]:
    lost = snapshot.workers_lost
    if not lost:
        return []
    text = (
        f"{plural(lost, 'worker')} died and {'was' if lost == 1 else 'were'} started again: the"
        " sessions open there are lost, and what happened in the last second is not counted"
    )
    return [Finding("workers_lost", LOSS, lost, text, remedies.WORKER_DIED)]


# --- outcomes ---------------------------------------------------------------------------------

_Explained = tuple[str, tuple[str, ...]]


def _refused(snapshot: Snapshot, context: Context, count: int) -> _Explained:
    where = ", ".join(context.targets) or "the target"
    if snapshot.has_connected:
        text = (
            f"{plural(count, 'session')} refused by the target, others not: {where} did not listen"
            " for a part of the run (down, restarted), or one of several does not"
        )
    else:
        text = f"{plural(count, 'session')} refused by the target: nothing listens on {where}"
    return text, remedies.listening(context)


def _reset(snapshot: Snapshot, context: Context, count: int) -> _Explained:
    text = f"{plural(count, 'session')} reset by the target"
    steps = ["see the log of the target's server for the reason, and whether it was restarted"]
    if context.needs_intercept:
        text += ", or by real clients that got its answers"
        steps += remedies.routes(context)
        steps.append("on the assistant: sysctl -w net.ipv4.ip_forward=0, so that no answer travels"
                     " on to a real client")  # fmt: skip
    return text, (*steps, *_midstream_hint(snapshot), *remedies.protocol_hints(context))


def _closed_early(snapshot: Snapshot, context: Context, count: int) -> _Explained:
    text = (f"{plural(count, 'session')} closed by the target before all client data was sent: it"
            " answered with an error, or keeps connections open for less")  # fmt: skip
    steps = (
        "compare the error log of the target's server, and its keep-alive limits (time and"
        " requests) and log-in settings, with those of the online server",
    )
    return text, (*steps, *_midstream_hint(snapshot), *remedies.protocol_hints(context))


def _midstream_hint(snapshot: Snapshot) -> tuple[str, ...]:
    if not snapshot.sessions_midstream:
        return ()
    seen = plural(snapshot.sessions_midstream, "session")
    return (f"{seen} picked up in the middle: protocols that log in end them; -O leaves them out",)


def _connect_timeout(snapshot: Snapshot, context: Context, count: int) -> _Explained:
    who = plural(count, "session")
    where = ", ".join(context.targets) or "the target"
    if snapshot.has_answered and _went_missing(snapshot, count):
        text = f"{who} without an answer to the connect; {where} answered others, but none since:"
        text += " it, its route or a rule of a firewall changed meanwhile"
        return text, (*_handshake(context), *remedies.overload(context))
    if not context.uses_relay:
        if snapshot.has_answered:
            text = f"{who} without an answer to the connect; {where} answered others: overloaded"
            return text, remedies.overload(context)
        text = f"{who} without an answer to the connect: {where} cannot be reached"
        if context.mode in (SOCKET, LOCAL):
            return text, _handshake(context)
        return text, (*remedies.listening(context), *remedies.overload(context))
    if snapshot.has_answered:
        text = f"{who} without an answer to the connect; {where} answered others: it is overloaded"
        text += ", or packets are lost"
        if context.mode == TUNNEL:
            return text, remedies.overload(context)
        return text, (*remedies.overload(context), *remedies.routes(context))
    down = _peers_down(snapshot, context)
    if down and len(down) == len(context.intercepts):
        text = f"{who} without an answer to the connect: no connection to intercept"
        return text, remedies.relay_down(context, down)
    text = f"{who} without an answer to the connect: no answer of {where} reached tcpcopy at all"
    return text, _handshake(context)


def _went_missing(snapshot: Snapshot, count: int) -> bool:
    """Whether the target went silent, rather than answering some and others not."""
    since = snapshot.sessions_since_accept
    return since >= _LEAST_MISSING and since * 100 >= count * _MISSING_PERCENT


def _handshake(context: Context) -> tuple[str, ...]:
    """What to look at, hop by hop, when no answer comes."""
    if context.mode == SOCKET:
        return remedies.reach_socket(context)
    if context.mode == LOCAL:
        return remedies.handshake_local(context)
    if context.mode == TUNNEL:
        return remedies.handshake_tunnel(context)
    if context.uses_relay:
        return remedies.handshake_classic(context)
    return remedies.listening(context)


def _answer_timeout(snapshot: Snapshot, context: Context, count: int) -> _Explained:
    limit = f" for {context.answer_timeout_s} s (-t)" if context.answer_timeout_s else " (-t)"
    text = f"{plural(count, 'session')} accepted by the target, which then stopped answering{limit}"
    steps = ["see whether the target's server hangs or waits for something that is missing there"]
    if context.uses_relay and snapshot.relay_total().lost:
        steps.insert(0, f"{number(snapshot.relay_total().lost)} answers lost on the relay: run"
                        " intercept near tcpcopy, narrow its -F")  # fmt: skip
    larger = f"-t {context.answer_timeout_s * 2}" if context.answer_timeout_s else "a larger -t"
    steps.append(f"if it is only slow: {larger}")
    return text, tuple(steps)


def _unanswered(snapshot: Snapshot, context: Context, count: int) -> _Explained:
    text = f"{plural(count, 'session')} delivered and answered nothing, where online answered"
    return text, ("see whether the target's server hangs, waits for something that is missing"
                  " there, or speaks another protocol on that port",)  # fmt: skip


def _idle_timeout(snapshot: Snapshot, context: Context, count: int) -> _Explained:
    limit = f" for {context.keep_alive_s} s (-k)" if context.keep_alive_s else " (-k)"
    text = f"{plural(count, 'session')} idle{limit} while data was still to be delivered"
    larger = f"-k {context.keep_alive_s * 2}" if context.keep_alive_s else "a larger -k"
    return text, (f"give them longer: {larger}",)


def _capture_hole(snapshot: Snapshot, context: Context, count: int) -> _Explained:
    text = f"{plural(count, 'session')} with a part of the client's data not captured"
    if snapshot.kernel_dropped:
        text += f": the kernel dropped {plural(snapshot.kernel_dropped, 'packet')}"
        return text, remedies.bigger_buffer(context)
    if snapshot.packet_drops[Drop.CUT]:
        if context.files:
            return f"{text}: packets were cut when they were recorded", remedies.RECORD_ANEW
        text += f": {plural(snapshot.packet_drops[Drop.CUT], 'packet')} cut"
        return text, remedies.cut_packets(context)
    pieces = snapshot.packet_drops[Drop.FRAGMENT] + snapshot.fragments_lost
    if pieces:
        fragments = plural(pieces, "IP fragment")
        text += f": {fragments} of packets that did not come whole"
        return text, ("capture where all fragments pass, or behind what puts them together",)
    if context.files:
        return f"{text}: packets are missing in the file", remedies.RECORD_ANEW
    text += ", though the kernel dropped nothing: it took another way than the capture sees"
    steps = ["capture on all devices (no -i): clients' packets may come in by more than one"]
    if context.filter_text:
        steps.append(f"the filter may pass a part only: -F '{context.filter_text}'")
    steps.append("ip -s link and ethtool -S DEVICE show packets that the device itself lost")
    return text, tuple(steps)


def _gone_on(snapshot: Snapshot, context: Context, count: int) -> _Explained:
    text = f"{plural(count, 'session')} cut by the target, gone on with on another connection:"
    text += f" {plural(snapshot.turns_missed, 'turn')} under way then not known to be carried out"
    return text, ("the target's server was restarted, or closes connections that online keeps:"
                  " see its log, and compare its time-outs",)  # fmt: skip


def _shed_memory(snapshot: Snapshot, context: Context, count: int) -> _Explained:
    now = f" of {byte_size(context.memory_mib << 20)}" if context.memory_mib else ""
    text = f"{plural(count, 'session')} not taken on or broken off: the memory limit{now} was near"
    larger = f"-m {context.memory_mib * 2} (now {context.memory_mib})"
    return text, (
        f"allow more memory: {larger if context.memory_mib else 'a larger -m'}",
        "or replay less: -r; a target that lags behind makes data wait in memory",
    )


def _shed_sessions(snapshot: Snapshot, context: Context, count: int) -> _Explained:
    now = f" ({number(context.session_limit)})" if context.session_limit else ""
    text = f"{plural(count, 'session')} not taken on: the limit of live sessions{now} was reached"
    if context.mode == SOCKET:
        return text, ("allow more open files, one for each session: ulimit -n 1048576 before the"
                      " start", "or replay less: -r")  # fmt: skip
    return text, ("raise the limit of live sessions, or replay less: -r",)


def _no_address(snapshot: Snapshot, context: Context, count: int) -> _Explained:
    text = f"{plural(count, 'session')} not taken on: no client address and port was free"
    if not context.client_pool_size:
        return text, ("give client addresses of their own, enough for all: -c a.b.c.x",)
    # At worst all the sessions that found none would have been live at the peak.
    together = snapshot.sessions_peak + count
    enough = max(-(-together // max(1, context.ports_per_address)), context.client_pool_size + 1)
    have = plural(context.client_pool_size, "address", "addresses")
    return text, (
        f"widen -c {','.join(context.client_addresses)}: it has {have},"
        f" {number(enough)} are surely enough",
    )


def _send_failed(snapshot: Snapshot, context: Context, count: int) -> _Explained:
    text = f"{plural(count, 'session')} could not be sent from this host"
    shown = _errors_text(snapshot)
    if not shown:
        return text, ("see the log for the first one",)
    return f"{text}: {shown}", _errors_remedy(snapshot, context)


def _internal_error(snapshot: Snapshot, context: Context, count: int) -> _Explained:
    text = f"{plural(count, 'session')} ended by an error inside tcpcopy"
    return text, ("this is a fault in tcpcopy: please report it with the trace in the log",)


def _open_at_exit(snapshot: Snapshot, context: Context, count: int) -> _Explained:
    lacking = _errors_text(snapshot)
    if snapshot.ports.waiting and lacking:
        text = f"{plural(count, 'session')} open at exit with data not delivered, of which"
        text += f" {number(snapshot.ports.waiting)} waited to be sent from this host: {lacking}"
        return text, _errors_remedy(snapshot, context)
    if not snapshot.has_answered:
        text, remedy = _connect_timeout(snapshot, context, count)
        return text.replace("to the connect", "to the connect until the exit", 1), remedy
    waited = f", {context.exit_wait_s} s after the stop" if context.exit_wait_s else ""
    text = f"{plural(count, 'session')} open at exit with data not delivered{waited}"
    return text, ("the target lags behind the online server, or was waited for at the exit;"
                  " compare the answer times, or stop the clients before tcpcopy",)  # fmt: skip


def _shed_rate(snapshot: Snapshot, context: Context, count: int) -> _Explained:
    text = f"{plural(count, 'session')} not taken on: as many waited for --rate as may wait"
    return text, ("more came than --rate lets through: raise it, or leave sessions out on purpose:"
                  " --rate-mode drop, or -r",)  # fmt: skip


def _worker_lost(snapshot: Snapshot, context: Context, count: int) -> _Explained:
    text = f"{plural(count, 'session')} open in a worker that died: they ended with it"
    return text, remedies.WORKER_DIED


def _mptcp(snapshot: Snapshot, context: Context, count: int) -> _Explained:
    return (
        f"{plural(count, 'session')} of MPTCP with several subflows: each carries a part of one"
        " stream, and they are not put together",
        ("capture behind what ends MPTCP (a proxy), or let online take plain TCP for that time",),
    )


def _shed_forwarded(snapshot: Snapshot, context: Context, count: int) -> _Explained:
    text = f"{plural(count, 'session')} not taken on or broken off: the assistant passes the"
    text += " target's answers on to the real clients, which must not get them"
    where = f"on the assistant {' and '.join(context.assistants)}".rstrip()
    names = dict.fromkeys(remedies.forwarding_name(target) for target in context.targets)
    return text, (
        f"{where}: sysctl -w {' '.join(f'{name}=0' for name in names or ('net.ipv4.ip_forward',))},"
        " and in /etc/sysctl.d for the next start; tcpcopy asks every ten seconds and goes on then",
        "or give sessions addresses that are nobody's: -c 62.135.200.x, and the route for them",
    )


_EXPLAIN: dict[Outcome, Callable[[Snapshot, Context, int], _Explained]] = {
    Outcome.REFUSED: _refused,
    Outcome.RESET: _reset,
    Outcome.CLOSED_EARLY: _closed_early,
    Outcome.CONNECT_TIMEOUT: _connect_timeout,
    Outcome.ANSWER_TIMEOUT: _answer_timeout,
    Outcome.UNANSWERED: _unanswered,
    Outcome.GONE_ON: _gone_on,
    Outcome.IDLE_TIMEOUT: _idle_timeout,
    Outcome.CAPTURE_HOLE: _capture_hole,
    Outcome.MPTCP: _mptcp,
    Outcome.SHED_MEMORY: _shed_memory,
    Outcome.SHED_SESSIONS: _shed_sessions,
    Outcome.NO_ADDRESS: _no_address,
    Outcome.SEND_FAILED: _send_failed,
    Outcome.INTERNAL_ERROR: _internal_error,
    Outcome.OPEN_AT_EXIT: _open_at_exit,
    Outcome.SHED_RATE: _shed_rate,
    Outcome.WORKER_LOST: _worker_lost,
    Outcome.SHED_FORWARDED: _shed_forwarded,
}


# --- worth knowing, but no loss by themselves -------------------------------------------------


def _peers_down(snapshot: Snapshot, context: Context) -> list[str]:
    """The intercepts that there never was a connection to."""
    return [
        peer
        for peer in context.intercepts
        if peer not in snapshot.relays or not snapshot.relays[peer].connects
    ]


def _relay_troubles(snapshot: Snapshot, context: Context) -> list[Finding]:
    findings = []
    total = snapshot.relay_total()
    down = _peers_down(snapshot, context) if context.uses_relay else []
    if down:
        text = f"no connection to intercept {', '.join(down)}"
        remedy = remedies.relay_down(context, down)
        findings.append(Finding("relay_down", WARNING, len(down), text, remedy))
    if total.reconnects:
        times = plural(total.reconnects, "time")
        findings.append(Finding(
            "relay_reconnects", WARNING, total.reconnects,
            f"the relay broke and came back {times}: intercept was restarted, or the network",
            ("see the log of intercept",),
        ))  # fmt: skip
    if total.lost:
        findings.append(Finding(
            "relay_lost", WARNING, total.lost,
            f"{plural(total.lost, 'answer')} lost on the relay; retransmission made up for them"
            " where no session is counted as lost",
            ("run intercept near tcpcopy, narrow its -F, raise its buffer",),
        ))  # fmt: skip
    if total.dropped:
        findings.append(Finding(
            "relay_dropped", WARNING, total.dropped,
            f"intercept did not inject {plural(total.dropped, 'packet')}: the logs say why",
            remedies.not_injected(context),
        ))  # fmt: skip
    if total.malformed:
        findings.append(Finding(
            "relay_malformed", WARNING, total.malformed,
            f"{plural(total.malformed, 'answer')} of intercept not understood",
            ("use intercept of a matching version, built without extra options",),
        ))  # fmt: skip
    return findings


def _warnings(snapshot: Snapshot, context: Context) -> list[Finding]:
    findings = []
    own_errors = snapshot.send_errors.keys() - _SAID_BY_TARGET
    if own_errors and not snapshot.outcomes[Outcome.SEND_FAILED]:
        findings.append(Finding(
            "send_errors", WARNING, sum(snapshot.send_errors[error] for error in own_errors),
            f"sending failed at times, and was made up for: {_errors_text(snapshot)}"
            + _waited(snapshot),
            _errors_remedy(snapshot, context),
        ))  # fmt: skip
    ports = snapshot.ports
    if ports.most_used * 100 >= ports.available * _NEARLY_PERCENT and ports.available:
        findings.append(Finding(
            "ports", WARNING, ports.most_used,
            remedies.ports_text(ports.most_used, ports.available).replace(" are ", " were "),
            remedies.local_ports(),
        ))  # fmt: skip
    findings += _syn_flood(snapshot)
    if snapshot.waits_expired:
        findings.append(Finding(
            "waits_expired", NOTE, snapshot.waits_expired,
            f"{plural(snapshot.waits_expired, 'turn')} sent before the target had answered as the"
            " online server had: it answers less, or in other pieces",
        ))  # fmt: skip
    if snapshot.sessions_midstream:
        findings.append(Finding(
            "midstream", NOTE, snapshot.sessions_midstream,
            f"{plural(snapshot.sessions_midstream, 'session')} picked up in the middle: replayed"
            " from the first data seen",
            ("-O leaves them out",),
        ))  # fmt: skip
    if snapshot.not_read:
        findings.append(Finding(
            "encapsulations_unread", WARNING, sum(snapshot.not_read.values()),
            f"{remedies.named_encapsulations(snapshot)} not read: what is in them is not replayed",
            ("mirror or record without it, or decrypt before",),
        ))  # fmt: skip
    malformed = sum(snapshot.packet_drops[reason] for reason in _UNREADABLE)
    if malformed:
        findings.append(Finding(
            "packets_unreadable", NOTE, malformed,
            f"{plural(malformed, 'captured packet')} not readable as TCP over IP",
        ))  # fmt: skip
    return findings


def _waited(snapshot: Snapshot) -> str:
    waited = snapshot.ports.waited
    return f"; {plural(waited, 'connect')} waited for it" if waited else ""


def _syn_flood(snapshot: Snapshot) -> list[Finding]:
    if not snapshot.syn_flood_attempts:
        return []
    return [
        Finding(
            "syn_flood", WARNING, snapshot.syn_flood_attempts,
            f"SYN flood: {plural(snapshot.syn_flood_attempts, 'connection attempt')} at up to"
            f" {number(snapshot.syn_flood_peak)}/s whose handshake never completed; not replayed",
            ("nothing is lost by it; see docs/reading-the-summary.md, \"SYN floods\"",),
        )
    ]  # fmt: skip


#: The target's answer to a connection of socket mode: the outcome of its session tells it.
_SAID_BY_TARGET = {errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT}
_UNREADABLE = (Drop.NOT_IP, Drop.SHORT, Drop.BAD_HEADER, Drop.FRAGMENT, Drop.BAD_OPTION)


def _errors_by_count(snapshot: Snapshot) -> list[tuple[int, int]]:
    own = [pair for pair in snapshot.send_errors.items() if pair[0] not in _SAID_BY_TARGET]
    return sorted(own, key=lambda pair: (-pair[1], pair[0]))


def _errors_text(snapshot: Snapshot) -> str:
    return ", ".join(
        f"{remedies.errno_text(error)} {plural(count, 'time')}"
        for error, count in _errors_by_count(snapshot)
    )


def _errors_remedy(snapshot: Snapshot, context: Context) -> tuple[str, ...]:
    return tuple(
        f"{remedies.errno_name(error)}: {remedies.send_error(error, context)}"
        for error, _ in _errors_by_count(snapshot)
    )
