"""What the reports say about UDP: rows of the summary, keys of the report, findings.

Pure functions of a snapshot; nothing is said where no UDP was to be copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any, Final

from tcpcopy.report import remedies
from tcpcopy.report.context import SOCKET, Context
from tcpcopy.report.counters import Snapshot
from tcpcopy.report.flow_outcome import DatagramDrop, FlowOutcome
from tcpcopy.report.text import byte_size, number, per_cent, plural, rate

#: As a finding is made of them: key, level, count, text, remedy.
Found = tuple[str, str, int, str, tuple[str, ...]]

#: Keys of the report, as `schema.FIELDS` has them.
FIELDS: Final[dict[str, str]] = {
    "udp.flows.captured": "UDP flows seen; one counts for each target and copy",
    "udp.flows.live": "not ended yet",
    "udp.flows.peak": "most live at once",
    "udp.flows.answered": "flows that the target answered (socket and local mode)",
    "udp.flows.lost": "ended with a datagram not sent, or refused",
    "udp.flows.skipped": "left out as asked (-r, -g)",
    **{f"udp.flows.outcomes.{o.name.lower()}": o.description for o in FlowOutcome},
    "udp.datagrams.captured": "datagrams of these flows",
    "udp.datagrams.sent": "of these, sent",
    **{f"udp.datagrams.dropped.{r.name.lower()}": f"not sent: {r.description}"
       for r in DatagramDrop},
    "udp.bytes.captured": "payload of the datagrams captured",
    "udp.bytes.sent": "payload of the datagrams sent",
    "udp.packets.captured": "UDP packets handed over by the capture, fragments included",
    "udp.packets.used": "of these, used",
    **{f"udp.packets.dropped.{r.name.lower()}": f"not used: {r.description}" for r in DatagramDrop},
    "udp.packets.unread": "beside the captured: taken from the network and left unread at exit",
    "udp.packets.fragments": "of the captured, IP fragments",
    "udp.packets.joined": "datagrams put together from fragments",
    "udp.packets.large": "of the captured, longer than 1,500 bytes and not in fragments",
    "udp.answers.received": "datagrams of the target (socket and local mode)",
    "udp.answers.bytes": "their payload",
    "udp.answers.refusals": "ICMP errors that came back (socket and local mode)",
    "udp.errors.*": "what the system refused, by errno name",
}  # fmt: skip


def report(snapshot: Snapshot) -> dict[str, Any]:
    """The part of the report under `udp`, but for the latencies."""
    return {
        "flows": {
            "captured": snapshot.udp_flows_captured,
            "live": snapshot.udp_flows_live,
            "peak": snapshot.udp_flows_peak,
            "answered": snapshot.udp_flows_answered,
            "lost": snapshot.udp_flows_lost,
            "skipped": snapshot.udp_flows_skipped,
            "outcomes": _by_name(FlowOutcome, snapshot.udp_outcomes),
        },
        "datagrams": {
            "captured": snapshot.udp_datagrams_captured,
            "sent": snapshot.udp_datagrams_sent,
            "dropped": _by_name(DatagramDrop, snapshot.udp_datagram_drops),
        },
        "bytes": {"captured": snapshot.udp_bytes_captured, "sent": snapshot.udp_bytes_sent},
        "packets": {
            "captured": snapshot.udp_packets_captured,
            "used": snapshot.udp_packet_drops[0],
            "dropped": _by_name(DatagramDrop, snapshot.udp_packet_drops),
            "unread": snapshot.udp_packets_unread,
            "fragments": snapshot.udp_fragments,
            "joined": snapshot.udp_joined,
            "large": snapshot.udp_large,
        },
        "answers": {
            "received": snapshot.udp_answers,
            "bytes": snapshot.udp_answer_bytes,
            "refusals": snapshot.udp_refusals,
        },
        "errors": {
            remedies.errno_name(code): count for code, count in sorted(snapshot.udp_errors.items())
        },
    }


def _by_name(members: type[IntEnum], counts: list[int]) -> dict[str, int]:
    return {member.name.lower(): counts[member] for member in members}


def rows(snapshot: Snapshot, context: Context) -> list[tuple[str, str]]:
    """Rows of the summary's block of figures."""
    if context.transport == "tcp":
        return []
    seconds = snapshot.duration_ns / 1e9
    sent, captured = snapshot.udp_datagrams_sent, snapshot.udp_datagrams_captured
    speed = f", {rate(sent / seconds)}/s" if seconds > 0 else ""
    share = f" ({per_cent(sent, captured)}){speed}" if captured else ""
    found = [
        ("datagrams", f"{number(sent)} sent of {number(captured)} captured{share}"
         + _reasons(snapshot.udp_datagram_drops)),
        ("datagram bytes", f"{byte_size(snapshot.udp_bytes_sent)} sent of"
         f" {byte_size(snapshot.udp_bytes_captured)} captured"),
        ("UDP captured", f"{plural(snapshot.udp_packets_captured, 'packet')}:"
         f" {number(snapshot.udp_packet_drops[0])} used" + _reasons(snapshot.udp_packet_drops)),
    ]  # fmt: skip
    if snapshot.udp_joined:
        text = f"{number(snapshot.udp_joined)} put together from {number(snapshot.udp_fragments)}"
        found.append(("fragments", f"{text} fragments"))
    if context.hears_answers:
        found.append((
            "UDP answers",
            f"{plural(snapshot.udp_answers, 'datagram')}, {byte_size(snapshot.udp_answer_bytes)},"
            f" to {number(snapshot.udp_flows_answered)} of"
            f" {plural(snapshot.udp_flows_captured, 'flow')}",
        ))  # fmt: skip
    return found


def _reasons(counts: list[int]) -> str:
    found = [(reason, counts[reason]) for reason in DatagramDrop if counts[reason]]
    found.sort(key=lambda pair: -pair[1])
    return "".join(f", {number(count)} {reason.description}" for reason, count in found)


def outcomes(snapshot: Snapshot) -> list[tuple[str, int]]:
    """What flows came to, with the total last; nothing without flows."""
    if not snapshot.udp_flows_captured:
        return []
    shown = [(outcome.description, snapshot.udp_outcomes[outcome]) for outcome in FlowOutcome]
    shown.append(("still live", snapshot.udp_flows_live))
    counted = [(text, count) for text, count in shown if count]
    return [*counted, ("UDP flows captured", snapshot.udp_flows_captured)]


# --- findings ---------------------------------------------------------------------------------

_LOSS, _WARNING, _NOTE = "loss", "warning", "note"


def findings(snapshot: Snapshot, context: Context) -> Iterable[Found]:
    """What is worth telling; every outcome of a flow that is a loss has one of level "loss"."""
    for outcome, explain in _EXPLAIN.items():
        count = snapshot.udp_outcomes[outcome]
        if count:
            text, remedy = explain(snapshot, context)
            key = f"udp_{outcome.name.lower()}"
            yield key, _LOSS, count, f"{plural(count, 'UDP flow')} {text}", remedy
    lost = snapshot.udp_fragments_lost
    if lost:
        yield (
            "udp_fragments_lost", _LOSS, lost,
            f"{plural(lost, 'fragment')} captured of datagrams that stayed incomplete: their other"
            " fragments did not come this way",
            (*remedies.RECORD_ANEW, "with them: udp and ip[6:2] & 0x1fff != 0 or ip6[6] == 44")
            if context.files else
            ("capture on all devices (no -i), with a larger buffer (-B); ip -s link and nstat -az"
             " IpReasmFails show whether this host missed them, too",),
        )  # fmt: skip
    if context.hears_answers and snapshot.udp_datagrams_sent and not snapshot.udp_answers:
        yield (
            "udp_no_answers", _WARNING, snapshot.udp_datagrams_sent,
            f"no answer to any of {plural(snapshot.udp_datagrams_sent, 'datagram')}: UDP does not"
            " say whether they arrived",
            (*_server(context), "a protocol without answers, or an answer to another port, looks"
             " the same from here"),
        )  # fmt: skip
    if snapshot.udp_large:
        yield (
            "udp_large", _NOTE, snapshot.udp_large,
            f"{plural(snapshot.udp_large, 'datagram')} of more than a usual packet captured in one"
            " piece: right on loopback and on links with large packets; on others the kernel has"
            " merged several, and they were sent as one",
            ("ethtool -K DEVICE rx-udp-gro-forwarding off, and no UDP_GRO in online's server, for"
             " the time of the copy",),
        )  # fmt: skip
    other = snapshot.udp_packet_drops[DatagramDrop.FRAGMENT_ALONE]
    if other:
        text = f"{plural(other, 'later fragment')} of other UDP traffic seen, and passed over"
        yield "udp_other_fragments", _NOTE, other, text, ()


def _server(context: Context) -> tuple[str, ...]:
    transfer = remedies.first_transfer(context)
    return (
        f"on the target: ss -lun 'sport = :{transfer.target_port}' must show a server on"
        f" {transfer.target_address} or on all addresses; tcpdump -ni any 'udp dst port"
        f" {transfer.target_port}' shows whether datagrams arrive{remedies.others(context)}",
    )


_Explained = tuple[str, tuple[str, ...]]


def _refused(snapshot: Snapshot, context: Context) -> _Explained:
    where = ", ".join(context.targets) or "the target"
    how = "at times" if snapshot.udp_answers else f"nothing listens on {where}"
    seen = plural(snapshot.udp_refusals, "ICMP error")
    return f"refused by the target ({seen}): {how}", _server(context)


def _incomplete(snapshot: Snapshot, context: Context) -> _Explained:
    cut = snapshot.udp_datagram_drops[DatagramDrop.CUT]
    if cut and context.files:
        text = f"with datagrams not sent: {plural(cut, 'datagram')} cut when they were recorded"
        return text, remedies.RECORD_ANEW
    if cut:
        return f"with datagrams not sent: {plural(cut, 'datagram')} cut", remedies.cut_packets(
            context
        )
    return f"with datagrams not sent: {_errors(snapshot)}", _mends(snapshot, context)


def _send_failed(snapshot: Snapshot, context: Context) -> _Explained:
    return f"could not be sent from this host: {_errors(snapshot)}", _mends(snapshot, context)


def _errors(snapshot: Snapshot) -> str:
    pairs = sorted(snapshot.udp_errors.items(), key=lambda pair: (-pair[1], pair[0]))
    texts = [f"{remedies.errno_text(code)} {plural(count, 'time')}" for code, count in pairs]
    return ", ".join(texts) or "see the log"


def _mends(snapshot: Snapshot, context: Context) -> tuple[str, ...]:
    steps = tuple(
        f"{remedies.errno_name(code)}: {remedies.send_error(code, context)}"
        for code in sorted(snapshot.udp_errors)
    )
    return steps or ("see the log for the first one",)


def _shed_memory(snapshot: Snapshot, context: Context) -> _Explained:
    larger = f"-m {context.memory_mib * 2} (now {context.memory_mib})"
    step = f"allow more memory: {larger if context.memory_mib else 'a larger -m'}"
    return "not taken on: the memory limit was near", (step, "or replay less: -r")


def _shed_flows(snapshot: Snapshot, context: Context) -> _Explained:
    text = "not taken on: too many were live, and none had been quiet for a while"
    if context.mode != SOCKET:
        return text, ("replay less: -r",)
    return text, (
        "each flow takes an open file and a local port: ulimit -n 1048576 before the start, sysctl"
        " -w net.ipv4.ip_local_port_range='1024 65535'",
        "or replay less: -r; or send packets without sockets: -c with addresses of their own",
    )


def _no_address(snapshot: Snapshot, context: Context) -> _Explained:
    text = "not taken on: no client address and port of the target's family was free"
    return text, ("give client addresses of the target's family, enough for all: -c",)


def _internal_error(snapshot: Snapshot, context: Context) -> _Explained:
    text = "ended by an error inside tcpcopy"
    return text, ("this is a fault in tcpcopy: please report it with the trace in the log",)


def _worker_lost(snapshot: Snapshot, context: Context) -> _Explained:
    return "open in a worker that died: they ended with it", remedies.WORKER_DIED


def _shed_forwarded(snapshot: Snapshot, context: Context) -> _Explained:
    return (
        "the assistant passes answers on to the real clients",
        ("what is said of sessions that were not taken on for it (shed_forwarded) mends it",),
    )


_EXPLAIN: dict[FlowOutcome, Callable[[Snapshot, Context], _Explained]] = {
    FlowOutcome.REFUSED: _refused,
    FlowOutcome.INCOMPLETE: _incomplete,
    FlowOutcome.SEND_FAILED: _send_failed,
    FlowOutcome.SHED_MEMORY: _shed_memory,
    FlowOutcome.SHED_FLOWS: _shed_flows,
    FlowOutcome.NO_ADDRESS: _no_address,
    FlowOutcome.INTERNAL_ERROR: _internal_error,
    FlowOutcome.WORKER_LOST: _worker_lost,
    FlowOutcome.SHED_FORWARDED: _shed_forwarded,
}
