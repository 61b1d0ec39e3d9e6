"""The text that is printed when a run ends; `to_json` has the same figures as data.

Both render a `Snapshot`, neither counts.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from tcpcopy.report import said, udp
from tcpcopy.report.context import Context
from tcpcopy.report.counters import Snapshot, drops_of
from tcpcopy.report.diagnosis import Finding, diagnose
from tcpcopy.report.histogram import Histogram
from tcpcopy.report.outcome import Outcome
from tcpcopy.report.schema import to_json
from tcpcopy.report.text import byte_size, clock, duration, number, per_cent, plural, rate
from tcpcopy.report.verdict import exit_code, headline

__all__ = ["exit_code", "headline", "render", "to_json"]

_MARKS = {"bug": "BUG ", "loss": "LOSS", "warning": "warn", "note": "note"}


def render(snapshot: Snapshot, context: Context, width: int = 100) -> str:
    """The summary at exit: several lines of at most `width` columns, with a final newline.

    Commands in remedies are never broken, so that they can be copied; those lines may be longer.
    """
    lines = [f"tcpcopy: {headline(snapshot, context)}", ""]
    lines += _figures(snapshot, context)
    lines += ["", *_outcomes(snapshot)] if snapshot.sessions_captured else []
    flows = udp.outcomes(snapshot)
    lines += ["", *_counted(flows)] if flows else []
    findings = diagnose(snapshot, context)
    if findings:
        lines += ["", *_findings(findings, width)]
    return "\n".join(lines) + "\n"


def _figures(snapshot: Snapshot, context: Context) -> list[str]:
    """The aligned block of what went in and what came out."""
    seconds = snapshot.duration_ns / 1e9
    rows: list[tuple[str, str]] = []
    transfers = ", ".join(f"{t.online_port} -> {t.target}" for t in context.transfers)
    rows.append(("mode", f"{context.mode}{', ' if transfers else ''}{transfers}"))
    rows.append(("time", clock(snapshot.duration_ns)))
    if snapshot.file.packets:
        rows += _of_files(snapshot, context)
    if context.rate:
        reached = f"{rate(snapshot.rate.reached_milli / 1000)}/s reached"
        rows.append(("rate", f"{context.rate}: {reached}, {number(snapshot.rate.waited)} waited"))
    rows += udp.rows(snapshot, context)
    rows += _tcp_rows(snapshot, seconds) if context.transport != "udp" else []
    if snapshot.unwrapped:
        left_out = snapshot.unwrapped_left_out
        rest = f", {number(left_out)} of other traffic" if left_out else ""
        rows.append(("in tunnels", f"{plural(snapshot.unwrapped, 'packet')}{rest}"))
    if snapshot.packets_sent:
        rows.append((
            "sent",
            f"{plural(snapshot.packets_sent, 'packet')},"
            f" {number(snapshot.packets_retransmitted)} of them again",
        ))  # fmt: skip
    if snapshot.answers_received:
        rows.append((
            "answers",
            f"{plural(snapshot.answers_received, 'packet')}: {number(snapshot.answers_used)} used"
            + _reasons(snapshot.answer_drops),
        ))  # fmt: skip
    rows += said.rows(snapshot)
    if not context.files:
        rows.append(("kernel", f"{number(snapshot.kernel_dropped)} packets dropped"))
    if snapshot.all_unread:
        rows.append((
            "unread",
            f"{plural(snapshot.all_unread, 'captured packet')} at exit,"
            f" {plural(snapshot.sessions_unread, 'session')} in them",
        ))  # fmt: skip
    if snapshot.relays:
        total = snapshot.relay_total()
        rows.append((
            "relay",
            f"{total.kind}{', TLS' if total.encrypted else ''}{': ' if total.kind else ''}"
            f"{number(total.records)} answers, {number(total.lost)} lost,"
            f" {number(total.malformed)} malformed, {plural(total.reconnects, 'reconnect')}",
        ))  # fmt: skip
    for label, histogram in (
        ("answer time", snapshot.answer_time),
        ("capture lag", snapshot.capture_lag),
        ("UDP answer time", snapshot.udp_answer_time),
        ("UDP lag", snapshot.udp_lag),
    ):
        if histogram.count:
            of = f", of {plural(histogram.count, 'answer')}" if "answer" in label else ""
            rows.append((label, _percentiles(histogram) + of))
    return _aligned(rows)


def _of_files(snapshot: Snapshot, context: Context) -> list[tuple[str, str]]:
    """What was read, and how it was replayed."""
    counts = snapshot.file
    size = byte_size(counts.bytes_read)
    if counts.bytes_total:
        size += f" of {byte_size(counts.bytes_total)}"
    passes = f", {counts.passes} of {context.passes} passes" if context.passes > 1 else ""
    problems = f", {plural(counts.problems, 'problem')} (see the log)" if counts.problems else ""
    return [
        ("files", f"{size} read{passes}: {plural(counts.packets, 'packet')},"
                  f" {number(counts.left_out)} of other traffic or answers{problems}"),
        ("replayed", context.pacing),
    ]  # fmt: skip


def _tcp_rows(snapshot: Snapshot, seconds: float) -> list[tuple[str, str]]:
    return [
        ("turns", _of(snapshot.turns_replayed, snapshot.turns_captured, seconds)),
        (
            "client bytes",
            f"{byte_size(snapshot.bytes_delivered)} delivered of"
            f" {byte_size(snapshot.bytes_captured)} captured"
            f" ({per_cent(snapshot.bytes_delivered, snapshot.bytes_captured)})",
        ),
        ("answer bytes", byte_size(snapshot.answer_bytes)),
        *_retry_row(snapshot),
        (
            "captured",
            f"{plural(snapshot.packets_captured, 'packet')}: {number(snapshot.packets_used)} used"
            + _reasons(snapshot.packet_drops),
        ),
    ]


def _retry_row(snapshot: Snapshot) -> list[tuple[str, str]]:
    """What a target that went away came to; nothing when it did not."""
    if not snapshot.connects_retried + snapshot.sessions_waited:
        return []
    text = f"{plural(snapshot.connects_retried, 'connect')} tried again"
    if snapshot.sessions_resumed:
        text += (
            f", {plural(snapshot.sessions_resumed, 'session')} gone on with after a cut,"
            f" {plural(snapshot.turns_missed, 'turn')} missing in them"
        )
    return [("retry", text)]


def _of(part: int, whole: int, seconds: float) -> str:
    speed = f", {rate(part / seconds)}/s" if seconds > 0 else ""
    share = f" ({per_cent(part, whole)}){speed}" if whole else ""
    return f"{number(part)} replayed of {number(whole)} captured{share}"


def _reasons(counts: list[int]) -> str:
    """`, 12 nothing new (…), 3 not TCP`, or nothing."""
    return "".join(f", {number(count)} {reason.description}" for reason, count in drops_of(counts))


def _percentiles(histogram: Histogram) -> str:
    middle, high = histogram.percentile(50), histogram.percentile(99)
    return f"p50 {duration(middle)}, p99 {duration(high)}, most {duration(histogram.largest)}"


def _outcomes(snapshot: Snapshot) -> list[str]:
    """One row for each outcome that occurred: count, share, what it means."""
    shown = [(outcome.description, snapshot.outcomes[outcome]) for outcome in Outcome]
    shown.append(("still live", snapshot.sessions_live))
    counted = [(text, count) for text, count in shown if count]
    return _counted([*counted, ("sessions captured", snapshot.sessions_captured)])


def _counted(counted: list[tuple[str, int]]) -> list[str]:
    """Rows of counts with their share of the last one, which is the total."""
    wide = max(len(number(count)) for _, count in counted)
    total = counted[-1][1]
    return [
        f"  {number(count):>{wide}}  {per_cent(count, total):>8}  {text}" for text, count in counted
    ]


def _findings(findings: Iterable[Finding], width: int) -> list[str]:
    """Each finding wrapped, its steps below it."""
    lines: list[str] = []
    for finding in findings:
        mark = _MARKS[finding.level]
        lines += textwrap.wrap(
            finding.text,
            max(40, width),
            initial_indent=f"{mark}  ",
            subsequent_indent="      ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        # The steps may hold commands, which must survive copying: never broken.
        lines += [f"      - {step}" for step in finding.remedy]
    return lines


def _aligned(rows: list[tuple[str, str]]) -> list[str]:
    wide = max(len(label) for label, _ in rows)
    return [f"  {label:<{wide}}  {text}" for label, text in rows]
