"""The JSON report (`--json`): the same figures as the summary, under documented, stable keys.

`FIELDS` documents every key; a test holds it equal to what `to_json` makes. Keys are only ever
added; a change of meaning raises `FORMAT`. Durations end in their unit, times are UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tcpcopy.report import said, udp
from tcpcopy.report.context import Context
from tcpcopy.report.counters import Snapshot
from tcpcopy.report.diagnosis import diagnose
from tcpcopy.report.histogram import Histogram
from tcpcopy.report.outcome import Drop, Outcome
from tcpcopy.report.remedies import errno_name
from tcpcopy.report.verdict import exit_code, headline

FORMAT: Final = 1

_LATENCY = {
    "count": "values measured",
    "mean_ms": "mean",
    "p50_ms": "median",
    "p90_ms": "90th percentile",
    "p99_ms": "99th percentile",
    "p999_ms": "99.9th percentile",
    "max_ms": "largest",
}

#: Every key by its path with what it means. `[]`: an element of a list; `*`: any key of a map.
FIELDS: Final[dict[str, str]] = {
    "format": "version of this layout: 1",
    "version": "version of tcpcopy",
    "compiled": "whether the hot path ran compiled",
    "transport": "tcp, udp or both",
    "mode": "socket, classic, link, local or tunnel",
    "transfers[].online_address": "captured address, empty for any",
    "transfers[].online_port": "captured port",
    "transfers[].target_address": "address replayed to",
    "transfers[].target_port": "port replayed to",
    "started": "start of the run, ISO 8601, null when it never started",
    "duration_s": "running time",
    "final": "whether the run has ended; before, this is a report of how it stands",
    "exit_code": "0: all replayed; 1: losses, or nothing replayed",
    "headline": "the result in one line",
    "sessions.captured": "sessions seen; one connection counts for each target and copy",
    "sessions.live": "not ended yet",
    "sessions.waiting": "of a SYN alone until now, not opened yet",
    "sessions.replayed": "ended with all that was captured delivered",
    "sessions.lost": "ended with something not delivered",
    "sessions.skipped": "left out as asked (-r, -g, -O, --rate-mode drop)",
    "sessions.incomplete": "the client did not complete the handshake: no connection",
    "sessions.established": "accepted by the target",
    "sessions.since_accept": "begun since the target last accepted one",
    "sessions.midstream": "first seen without their SYN",
    "sessions.unread": "beside the captured: left unread at exit, as packets.unread",
    "sessions.peak": "most live at once",
    **{f"sessions.outcomes.{o.name.lower()}": o.description for o in Outcome},
    "syn_flood.attempts": "connection attempts in SYN floods, which never completed",
    "syn_flood.peak": "most of them in one second",
    "syn_flood.rate": "in the last second, 0: there is no flood now",
    "retry.connects": "connects tried again, and those of sessions that went on (--retry)",
    "retry.waited": "times that a session stood in line for a target that refused",
    "retry.waiting": "sessions that do so now",
    "retry.resumed": "sessions cut by the target that went on with a later turn",
    "turns.captured": "turns of client data captured",
    "turns.replayed": "turns sent",
    "turns.missed": "of these, under way when the target cut a session that went on (--retry)",
    "turns.late": "of these, sent later than captured because the target was slower",
    "turns.waits_expired": "of these, sent because the wait for the target's answer ran out",
    "bytes.captured": "client bytes captured, each once",
    "bytes.delivered": "client bytes acknowledged by the target",
    "bytes.answered": "bytes the target answered",
    "bytes.urgent": "urgent bytes left out: no ordinary read of online has seen them",
    "packets.captured": "packets handed over by the capture",
    "packets.used": "of these, used",
    **{f"packets.dropped.{r.name.lower()}": f"not used: {r.description}" for r in Drop},
    "packets.unread": "beside the captured: taken from the network and left unread at exit",
    "packets.sent": "packets sent to the target, retransmissions included",
    "packets.retransmitted": "of these, retransmissions",
    "answers.received": "packets of the target",
    "answers.used": "of these, used",
    **{f"answers.dropped.{r.name.lower()}": f"not used: {r.description}" for r in Drop},
    "files.packets": "packets read from capture files, each pass for itself",
    "files.left_out": "of these, answers and other traffic, which -x does not name",
    "files.bytes_read": "bytes read of them, all passes",
    "files.bytes_total": "bytes to be read, 0 for a pipe",
    "files.passes": "complete passes (-T)",
    "files.problems": "files that could not be read to their end",
    "files.pacing": "how fast they were replayed, empty for live traffic",
    "rate.asked": "what --rate asked for, empty without it",
    "rate.reached": "sessions or requests a second, once the rate was no longer rising",
    "rate.taken": "sessions or requests that were given their time",
    "rate.waited": "of these, those that had to wait for it",
    "tunnels.unwrapped": "packets that came in tunnels and were taken out of them",
    "tunnels.left_out": "live: packets out of tunnels and fragments that -x does not name",
    "tunnels.kept": "live: pieces of packets that did not complete one when they came",
    "tunnels.fragments_lost": "pieces of TCP and of tunnels whose packet never came whole",
    "tunnels.not_read.*": "packets in encapsulations that could not be read, by name",
    "kernel.received": "packets that passed the capture filter, dropped ones included",
    "kernel.dropped": "of these, lost because a capture buffer was full",
    "kernel.skipped": "of kernel.received, frames that are not IP",
    "kernel.rings[].device": "capture device",
    "kernel.rings[].received": "as kernel.received",
    "kernel.rings[].dropped": "as kernel.dropped",
    "kernel.rings[].skipped": "as kernel.skipped",
    "relay.records": "answers received from intercepts",
    "relay.malformed": "of these, not readable",
    "relay.lost": "answers known to be lost on the way",
    "relay.reconnects": "times that a lost connection came back",
    "relay.dropped": "packets that intercept did not inject (tunnel mode)",
    "relay.intercepts[].peer": "address and port of an intercept",
    "relay.intercepts[].connected": "connections up now",
    "relay.intercepts[].connects": "times that a connection came up",
    "relay.intercepts[].records": "as relay.records",
    "relay.intercepts[].malformed": "as relay.malformed",
    "relay.intercepts[].lost": "as relay.lost",
    "relay.intercepts[].reconnects": "as relay.reconnects",
    "relay.intercepts[].dropped": "as relay.dropped",
    "relay.intercepts[].kind": "native, classic, or both; empty: it never connected",
    "relay.intercepts[].tls": "whether it was encrypted",
    "ports.available": "socket mode: local ports from one address to one target",
    "ports.most_used": "of these, most in use at once, those that rest (TIME_WAIT) as well",
    "ports.reused": "connects from a port that still rested",
    "ports.waited": "connects that waited for a local port, an open file or a route",
    "ports.waiting": "of these, those that wait now, or waited at the exit",
    "send_errors.*": "failed sends and connects, by errno name",
    **{f"latency.answer.{k}": f"turn sent to first answer byte: {v}" for k, v in _LATENCY.items()},
    **{f"latency.lag.{k}": f"packet captured to turn sent: {v}" for k, v in _LATENCY.items()},
    **said.FIELDS,
    **udp.FIELDS,
    **{f"udp.latency.answer.{k}": f"datagram sent to answer: {v}" for k, v in _LATENCY.items()},
    **{f"udp.latency.lag.{k}": f"packet captured to taken up: {v}" for k, v in _LATENCY.items()},
    "previous_run.process": "process id of the last run, when it ended without a summary, else 0",
    "previous_run.started": "start of that run, ISO 8601, null when there is none",
    "leftovers.found": "sessions that a killed run or worker left open at the target",
    "leftovers.reset": "of these, reset",
    "leftovers.gone": "of these, those that the target did not know any more",
    "leftovers.superseded": "of these, those whose address and port a new session took",
    "leftovers.unanswered": "of these, those for which the target gave no answer",
    "leftovers.waiting": "of these, not tried yet",
    "leftovers.unrecorded": "sessions of this run that a start after a kill could not reset",
    "memory_bytes": "resident memory",
    "workers_lost": "workers that died (--workers) and were started again",
    "findings[].key": "what was found; an outcome's key for outcomes",
    "findings[].level": "bug, loss (both: exit code 1), warning or note",
    "findings[].count": "how often",
    "findings[].text": "what and why, one line",
    "findings[].remedy[]": "steps that mend it",
    "violations[]": "counts that do not add up; empty unless tcpcopy is at fault",
}


def to_json(snapshot: Snapshot, context: Context) -> dict[str, Any]:
    """The report as plain data for `json.dump`; the keys are those of `FIELDS`."""
    return {
        **_run(snapshot, context),
        "sessions": _sessions(snapshot),
        "syn_flood": {
            "attempts": snapshot.syn_flood_attempts,
            "peak": snapshot.syn_flood_peak,
            "rate": snapshot.syn_flood_rate,
        },
        **_turns(snapshot),
        "bytes": {
            "captured": snapshot.bytes_captured,
            "delivered": snapshot.bytes_delivered,
            "answered": snapshot.answer_bytes,
            "urgent": snapshot.urgent_bytes,
        },
        "packets": {
            "captured": snapshot.packets_captured,
            "used": snapshot.packets_used,
            "dropped": _drops(snapshot.packet_drops),
            "unread": snapshot.packets_unread,
            "sent": snapshot.packets_sent,
            "retransmitted": snapshot.packets_retransmitted,
        },
        "answers": {
            "received": snapshot.answers_received,
            "used": snapshot.answers_used,
            "dropped": _drops(snapshot.answer_drops),
        },
        **_recorded(snapshot, context),
        "tunnels": _tunnels(snapshot),
        "kernel": _kernel(snapshot),
        "relay": _relay(snapshot),
        "ports": _ports(snapshot),
        "send_errors": {
            errno_name(number): count for number, count in sorted(snapshot.send_errors.items())
        },
        "latency": {
            "answer": _latency(snapshot.answer_time),
            "lag": _latency(snapshot.capture_lag),
        },
        "udp": {
            **udp.report(snapshot),
            "latency": {
                "answer": _latency(snapshot.udp_answer_time),
                "lag": _latency(snapshot.udp_lag),
            },
        },
        "said": said.report(snapshot),
        **_left_behind(snapshot, context),
        "memory_bytes": snapshot.memory_bytes,
        "workers_lost": snapshot.workers_lost,
        "findings": _findings(snapshot, context),
        "violations": snapshot.check(),
    }


def _turns(snapshot: Snapshot) -> dict[str, dict[str, int]]:
    """What clients asked, and what came of a target that went away meanwhile."""
    return {
        "retry": {
            "connects": snapshot.connects_retried,
            "waited": snapshot.sessions_waited,
            "waiting": snapshot.sessions_refused,
            "resumed": snapshot.sessions_resumed,
        },
        "turns": {
            "captured": snapshot.turns_captured,
            "replayed": snapshot.turns_replayed,
            "missed": snapshot.turns_missed,
            "late": snapshot.turns_late,
            "waits_expired": snapshot.waits_expired,
        },
    }


def _ports(snapshot: Snapshot) -> dict[str, int]:
    """The local ports of socket mode."""
    ports = snapshot.ports
    return {
        "available": ports.available,
        "most_used": ports.most_used,
        "reused": ports.reused,
        "waited": ports.waited,
        "waiting": ports.waiting,
    }


def _recorded(snapshot: Snapshot, context: Context) -> dict[str, Any]:
    """The keys about capture files and --rate."""
    return {
        "files": {
            "packets": snapshot.file.packets,
            "left_out": snapshot.file.left_out,
            "bytes_read": snapshot.file.bytes_read,
            "bytes_total": snapshot.file.bytes_total,
            "passes": snapshot.file.passes,
            "problems": snapshot.file.problems,
            "pacing": context.pacing,
        },
        "rate": {
            "asked": context.rate,
            "reached": snapshot.rate.reached_milli / 1000,
            "taken": snapshot.rate.taken,
            "waited": snapshot.rate.waited,
        },
    }


def _left_behind(snapshot: Snapshot, context: Context) -> dict[str, Any]:
    """The keys about runs and workers that were killed."""
    counts = snapshot.leftovers
    return {
        "previous_run": {
            "process": context.earlier_process,
            "started": _utc(context.earlier_started_ns),
        },
        "leftovers": {
            "found": counts.found,
            "reset": counts.reset,
            "gone": counts.gone,
            "superseded": counts.superseded,
            "unanswered": counts.unanswered,
            "waiting": counts.waiting,
            "unrecorded": counts.unrecorded,
        },
    }


def _run(snapshot: Snapshot, context: Context) -> dict[str, Any]:
    """The keys at the top: what ran, and what came of it."""
    return {
        "format": FORMAT,
        "version": context.version,
        "compiled": context.is_compiled,
        "transport": context.transport,
        "mode": context.mode,
        "transfers": [
            {
                "online_address": transfer.online_address,
                "online_port": transfer.online_port,
                "target_address": transfer.target_address,
                "target_port": transfer.target_port,
            }
            for transfer in context.transfers
        ],
        "started": _utc(snapshot.started_ns),
        "duration_s": round(snapshot.duration_ns / 1e9, 3),
        "final": context.is_final,
        "exit_code": exit_code(snapshot),
        "headline": headline(snapshot, context),
    }


def _findings(snapshot: Snapshot, context: Context) -> list[dict[str, Any]]:
    return [
        {
            "key": finding.key,
            "level": finding.level,
            "count": finding.count,
            "text": finding.text,
            "remedy": list(finding.remedy),
        }
        for finding in diagnose(snapshot, context)
    ]


def _utc(started_ns: int) -> str | None:
    """ISO 8601 to the millisecond. Integers throughout: a float would round the time."""
    if not started_ns:
        return None
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    started = epoch + timedelta(microseconds=started_ns // 1000)
    return started.isoformat(timespec="milliseconds")


def _sessions(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "captured": snapshot.sessions_captured,
        "live": snapshot.sessions_live,
        "waiting": snapshot.sessions_waiting,
        "replayed": snapshot.sessions_replayed,
        "lost": snapshot.sessions_lost,
        "skipped": snapshot.sessions_skipped,
        "incomplete": snapshot.sessions_incomplete,
        "established": snapshot.sessions_established,
        "since_accept": snapshot.sessions_since_accept,
        "midstream": snapshot.sessions_midstream,
        "unread": snapshot.sessions_unread,
        "peak": snapshot.sessions_peak,
        "outcomes": {outcome.name.lower(): snapshot.outcomes[outcome] for outcome in Outcome},
    }


def _drops(counts: list[int]) -> dict[str, int]:
    return {reason.name.lower(): counts[reason] for reason in Drop}


def _tunnels(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "unwrapped": snapshot.unwrapped,
        "left_out": snapshot.unwrapped_left_out,
        "kept": snapshot.fragments_kept,
        "fragments_lost": snapshot.fragments_lost,
        "not_read": dict(sorted(snapshot.not_read.items())),
    }


def _kernel(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "received": snapshot.kernel_received,
        "dropped": snapshot.kernel_dropped,
        "skipped": snapshot.kernel_skipped,
        "rings": [
            {
                "device": device,
                "received": ring.received,
                "dropped": ring.dropped,
                "skipped": ring.skipped,
            }
            for device, ring in snapshot.rings.items()
        ],
    }


def _relay(snapshot: Snapshot) -> dict[str, Any]:
    total = snapshot.relay_total()
    return {
        "records": total.records,
        "malformed": total.malformed,
        "lost": total.lost,
        "reconnects": total.reconnects,
        "dropped": total.dropped,
        "intercepts": [
            {
                "peer": peer,
                "connected": relay.connected,
                "connects": relay.connects,
                "records": relay.records,
                "malformed": relay.malformed,
                "lost": relay.lost,
                "reconnects": relay.reconnects,
                "dropped": relay.dropped,
                "kind": relay.kind,
                "tls": bool(relay.encrypted),
            }
            for peer, relay in snapshot.relays.items()
        ],
    }


def _latency(histogram: Histogram) -> dict[str, float | int]:
    def milliseconds(nanoseconds: int) -> float:
        return round(nanoseconds / 1e6, 4)

    return {
        "count": histogram.count,
        "mean_ms": milliseconds(histogram.mean),
        "p50_ms": milliseconds(histogram.percentile(50)),
        "p90_ms": milliseconds(histogram.percentile(90)),
        "p99_ms": milliseconds(histogram.percentile(99)),
        "p999_ms": milliseconds(histogram.percentile(99.9)),
        "max_ms": milliseconds(histogram.largest),
    }
