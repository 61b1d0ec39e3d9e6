"""What `tcpcopy inspect` says about capture files, as text and as data.

Both render one `Findings`; neither counts.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tcpcopy.mapping.addresses import format_endpoint
from tcpcopy.recorded.census import MOST_FLOWS, Census, Extent, Server
from tcpcopy.recorded.counts import FileCounts
from tcpcopy.recorded.files import STANDARD_INPUT
from tcpcopy.recorded.flows import FlowTable
from tcpcopy.recorded.stream import PacketStream
from tcpcopy.report.text import byte_size, clock, number, per_cent, plural

_SHOWN_FILES = 10
_SHOWN_SERVERS = 15
_SHOWN_COMMANDS = 3
_LONGEST_COMMAND = 400
_ENCRYPTED = ("TLS", "SSH")  # a target agrees upon other keys than the online server did


@dataclass(slots=True)
class Findings:
    """All that was found in one or several files."""

    paths: tuple[str, ...]
    files: list[FileCounts]  # in the order of their first packets
    counts: FileCounts  # of all files together
    census: Census
    most_flows: int
    is_interrupted: bool = False  # the user did not want the rest

    @property
    def tcp_servers(self) -> list[Server]:
        """Those with most sessions first."""
        return self._servers(False)

    @property
    def udp_servers(self) -> list[Server]:
        """Those with most flows first."""
        return self._servers(True)

    def _servers(self, is_udp: bool) -> list[Server]:
        found = [server for server in self.census.servers.values() if server.is_udp == is_udp]
        return sorted(found, key=lambda s: (-s.sessions, -s.client_bytes, s.port, s.address))


@dataclass(frozen=True, slots=True)
class Suggestion:
    """An `-x` that fits: a port that clients sent data to."""

    port: int
    sessions: int
    servers: int
    protocol: str
    transfer: str  # "80-127.0.0.1:8080"


def inspect(
    stream: PacketStream, paths: Sequence[str], *, most_flows: int = MOST_FLOWS
) -> Findings:
    """Read a stream to its end, or to Ctrl-C; `paths` as the user gave them."""
    census = Census(most_flows)
    is_interrupted = False
    try:
        stream.hand_on_all(census.table)
    except KeyboardInterrupt:  # how a `tcpdump -w - | tcpcopy inspect -` is ended
        is_interrupted = True
    census.finish()
    return Findings(
        tuple(paths), stream.file_counts, stream.counts, census, most_flows, is_interrupted
    )


def suggestions(findings: Findings) -> list[Suggestion]:
    """Ports that clients sent data to, those with most sessions first; encrypted ones last."""
    ports: dict[int, list[Server]] = {}
    for server in findings.tcp_servers:
        if server.client_bytes:
            ports.setdefault(server.port, []).append(server)
    made = [
        Suggestion(
            port,
            sum(server.sessions for server in servers),
            len(servers),
            max(servers, key=lambda server: server.client_bytes).protocol,
            f"{port}-127.0.0.1:{_target_port(port)}",
        )
        for port, servers in ports.items()
    ]
    return sorted(made, key=lambda s: (s.protocol in _ENCRYPTED, -s.sessions, s.port))


def _target_port(port: int) -> int:
    """A port for a test server that needs no privilege: 80 -> 8080, 443 -> 8443."""
    if port == 80:
        return 8080
    return port + 8000 if port < 1024 else port


def command(findings: Findings, suggestion: Suggestion) -> str:
    """The command that replays a port's sessions, to be pasted into a shell."""
    # What came through standard input is gone: it stands for a file of the same.
    files = ",".join("FILE" if path == STANDARD_INPUT else path for path in findings.paths)
    if len(files) > _LONGEST_COMMAND:
        files = f"{findings.paths[0]},..."
    return f"tcpcopy -i {shlex.quote(files)} -x {suggestion.transfer}"


def warnings(findings: Findings) -> list[str]:
    """What stands in the way of an exact replay, each with what to do about it."""
    counts, census = findings.counts, findings.census
    totals, table = census.totals, census.table
    found = [f"{file.path}: {problem}" for file in findings.files for problem in file.problems]
    if findings.is_interrupted:
        found.append("interrupted: this is what was read until then")
    if counts.packets == 0:
        found.append("there is not a single packet in it")
    elif not census.table.tcp_packets and not census.table.udp_packets:
        found.append("there is nothing that could be replayed: no TCP and no UDP packets")
    for reason, count in counts.skipped.items():
        if reason.startswith("link type"):
            found.append(f"{plural(count, 'packet')} of a {reason}")
    if totals.cut_bytes:
        limit = f" (snap length {counts.snaplen})" if counts.snaplen else ""
        found.append(
            f"{byte_size(totals.cut_bytes)} of what clients sent in {plural(totals.cut, 'session')}"
            f" were cut off when this was recorded{limit}; those cannot be replayed exactly: record"
            " with -s 0"
        )
    missing = totals.missing_bytes
    if missing:
        found.append(
            f"bytes of the client are missing in {plural(missing, 'session')}: packets were lost"
            " while this was recorded; a larger buffer (tcpdump -B) or a narrower filter helps"
        )
    if totals.only_server:
        found.append(
            f"of {plural(totals.only_server, 'session')} only the server's side was recorded:"
            " there is nothing to replay; record what goes to the server, too"
        )
    partial = totals.extents[Extent.BEGUN_BEFORE] + totals.extents[Extent.MIDDLE]
    if partial:
        found.append(
            f"{plural(partial, 'session')} began before the first packet: log-ins and what else"
            " came first is not there; -O leaves them out"
        )
    found += _protocol_warnings(findings)
    found += _judged(table)
    lost = counts.lost_fragments + table.lost
    if lost:
        found.append(
            f"{plural(lost, 'IP fragment')} of packets that are not there whole: what they carry is"
            " missing"
        )
    for name, count in counts.unread.items():
        found.append(
            f"{plural(count, 'packet')} of {name}: what is in them is not in these figures"
        )
    if table.refused:
        found.append(
            f"more than {number(findings.most_flows)} connections at once:"
            f" {plural(table.refused, 'packet')} of further ones are not in these figures"
        )
    return found


def _judged(table: FlowTable) -> list[str]:
    """What was not taken for what it seems, and what a replay makes of it."""
    found = []
    if table.jumps_forward:
        found.append(
            f"the clock jumps ahead by more than an hour {plural(table.jumps_forward, 'time')}: a"
            " replay cuts each of those waits to a second (-I SECONDS keeps what is shorter)"
        )
    if table.jumps_back:
        found.append(
            f"the clock goes back {plural(table.jumps_back, 'time')}: a replay goes on at once, and"
            " keeps the pauses after that"
        )
    if table.seen_twice:
        found.append(
            f"{plural(table.seen_twice, 'connection or datagram', 'connections or datagrams')} seen"
            " on another device as well: counted once, as the one that came first"
        )
    if table.not_taken:
        found.append(
            f"{plural(table.not_taken, 'segment')} with a wrong checksum: the other end has dropped"
            " those, and so does a replay"
        )
    return found


def _protocol_warnings(findings: Findings) -> list[str]:
    encrypted = sum(server.protocols["TLS"] for server in findings.tcp_servers)
    if not encrypted:
        return []
    return [
        f"{plural(encrypted, 'session')} of TLS: keys are agreed upon anew in each connection, so"
        " a target cannot read what was recorded; record behind the TLS terminator"
    ]


def render(findings: Findings, width: int = 100) -> str:
    """The report: aligned text with a final newline; only commands are longer than `width`."""
    counts = findings.counts
    totals = findings.census.totals
    named = findings.paths[0] if len(findings.paths) == 1 else f"{len(findings.paths)} files"
    lines = [
        f"tcpcopy inspect: {named}: {plural(counts.packets, 'packet')},"
        f" {plural(totals.sessions, 'TCP session')}, {plural(totals.udp_flows, 'UDP flow')}",
        "",
        *_rows(_figures(findings)),
    ]
    if len(findings.files) > 1:
        lines += ["", *_file_lines(findings.files)]
    if totals.sessions:
        lines += ["", *_session_lines(findings)]
    lines += _server_lines("TCP servers", "sessions", findings.tcp_servers)
    lines += _server_lines("UDP servers", "flows", findings.udp_servers)
    lines += _command_lines(findings)
    found = warnings(findings)
    if found:
        lines.append("")
    for text in found:
        lines += textwrap.wrap(
            text,
            max(40, width),
            initial_indent="warn  ",
            subsequent_indent="      ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines) + "\n"


def _figures(findings: Findings) -> list[tuple[str, str]]:
    counts, table = findings.counts, findings.census.table
    rows = []
    if len(findings.files) == 1:
        rows.append(("format", _format(counts_of=findings.files[0])))
    links = ", ".join(
        f"{name}" if len(counts.links) == 1 else f"{name} ({plural(packets, 'packet')})"
        for name, packets in counts.links.items()
    )
    rows.append(("link type", links or "none"))
    if counts.first_ns >= 0:
        rows.append(("time", _span(counts.first_ns, counts.last_ns)))
    skipped = "".join(f", {number(n)} {reason}" for reason, n in counts.skipped.items())
    rows.append(("packets", f"{number(counts.packets)}: {number(counts.handed_on)} IP{skipped}"))
    if counts.cut:
        limit = f" (snap length {counts.snaplen})" if counts.snaplen else ""
        rows.append(("cut", f"{plural(counts.cut, 'packet')}{limit}"))
    if counts.tunnelled:
        rows.append(("in tunnels", f"{plural(counts.tunnelled, 'packet')}, shown without them"))
    parts = [("TCP", table.tcp_packets), ("UDP", table.udp_packets), ("other", table.other)]
    fragments, joined = counts.fragments + table.fragments, counts.joined + table.joined
    parts += [("fragments", fragments), ("damaged or cut in the headers", table.bad)]
    carried = ", ".join(f"{number(count)} {name}" for name, count in parts if count)
    rows.append(("IP carries", carried or "nothing"))
    if fragments:
        rows.append(("put together", plural(joined, "packet")))
    if counts.unread:
        named = ", ".join(f"{number(n)} {name}" for name, n in counts.unread.items())
        rows.append(("not read", named))
    return rows


def _format(counts_of: FileCounts) -> str:
    packed = f" in {counts_of.compression}" if counts_of.compression else ""
    return f"{counts_of.format}{packed}"


def _span(first_ns: int, last_ns: int) -> str:
    return f"{_time(first_ns)} to {_time(last_ns)} UTC ({clock(last_ns - first_ns)})"


def _time(time_ns: int) -> str:
    """`2026-11-22 16:50:42.123`; a number of seconds where the calendar ends."""
    seconds, rest = divmod(time_ns, 10**9)
    try:
        day = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        day = f"{seconds} s"
    return f"{day}.{rest // 10**6:03}"


def _rows(rows: list[tuple[str, str]]) -> list[str]:
    wide = max(len(label) for label, _ in rows)
    return [f"  {label:<{wide}}  {text}" for label, text in rows]


def _table(rows: list[list[str]], right: set[int]) -> list[str]:
    """Columns as wide as they need; those of `right` are set to the right."""
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(wide[column]) if column in right else cell.ljust(wide[column])
            for column, cell in enumerate(row)
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines


def _file_lines(files: list[FileCounts]) -> list[str]:
    rows = [["file", "format", "packets", "from", "to"]]
    for file in files[:_SHOWN_FILES]:
        span = [_time(file.first_ns), _time(file.last_ns)] if file.first_ns >= 0 else ["-", "-"]
        rows.append([file.path, _format(file), number(file.packets), *span])
    lines = _table(rows, {2})
    if len(files) > _SHOWN_FILES:
        lines.append(f"  and {plural(len(files) - _SHOWN_FILES, 'more file')}")
    return lines


def _session_lines(findings: Findings) -> list[str]:
    totals = findings.census.totals
    rows = [
        [number(totals.extents[extent]), per_cent(totals.extents[extent], totals.sessions),
         extent.value]
        for extent in Extent
        if totals.extents[extent]
    ]  # fmt: skip
    rows.append([number(totals.sessions), "100 %", "TCP sessions"])
    for count, text in (
        (totals.only_client, "only the client's side was recorded"),
        (totals.only_server, "only the server's side was recorded"),
    ):
        if count:
            rows.append([number(count), per_cent(count, totals.sessions), f"of them: {text}"])
    return _table(rows, {0, 1})


def _server_lines(title: str, counted: str, servers: list[Server]) -> list[str]:
    if not servers:
        return []
    rows = [[title, counted, "whole", "client packets", "client bytes", "server bytes", "protocol"]]
    for server in servers[:_SHOWN_SERVERS]:
        guessed = "" if server.is_certain or server.is_udp else " (by its port)"
        rows.append([
            format_endpoint(server.address, server.port) + guessed,
            number(server.sessions),
            number(server.whole),
            number(server.client_packets),
            byte_size(server.client_bytes),
            byte_size(server.server_bytes),
            server.protocol,
        ])  # fmt: skip
    if servers[0].is_udp:
        rows = [[*row[:2], *row[3:]] for row in rows]
    lines = ["", *_table(rows, set(range(1, len(rows[0]) - 1)))]
    if len(servers) > _SHOWN_SERVERS:
        lines.append(f"  and {number(len(servers) - _SHOWN_SERVERS)} more (--json has all)")
    return lines


def _command_lines(findings: Findings) -> list[str]:
    made = suggestions(findings)
    if not made:
        return []
    lines = ["", "  to replay it to a test server of your own, without root or a second host:"]
    for suggestion in made[:_SHOWN_COMMANDS]:
        servers = f" of {suggestion.servers} servers" if suggestion.servers > 1 else ""
        known = f", {suggestion.protocol}" if suggestion.protocol != "unknown" else ""
        lines += [
            f"    {command(findings, suggestion)}"
            f"  # {plural(suggestion.sessions, 'session')}{servers}{known}"
        ]
    return lines


def to_json(findings: Findings) -> dict[str, Any]:
    """The same as data; times are nanoseconds since the epoch, null without a packet."""
    census = findings.census
    totals, table = census.totals, census.table
    return {
        "files": [_file_json(file) for file in findings.files],
        "packets": {
            **_packets_json(findings.counts),
            "tcp": table.tcp_packets,
            "udp": table.udp_packets,
            "other": table.other,
            "fragments": findings.counts.fragments + table.fragments,
            "joined": findings.counts.joined + table.joined,
            "fragments_lost": findings.counts.lost_fragments + table.lost,
            "bad_headers": table.bad,
            "not_followed": table.refused,
            "wrong_checksum": table.not_taken,
            "seen_twice": table.seen_twice,
            "clock_jumps_forward": table.jumps_forward,
            "clock_jumps_back": table.jumps_back,
        },
        "sessions": {
            "total": totals.sessions,
            **{extent.name.lower(): totals.extents[extent] for extent in Extent},
            "only_client_side": totals.only_client,
            "only_server_side": totals.only_server,
            "client_bytes_missing": totals.missing_bytes,
            "client_bytes_cut": totals.cut,
        },
        "udp_flows": totals.udp_flows,
        "tcp_servers": [_server_json(server) for server in findings.tcp_servers],
        "udp_servers": [_server_json(server) for server in findings.udp_servers],
        "commands": [command(findings, suggestion) for suggestion in suggestions(findings)],
        "warnings": warnings(findings),
    }


def _file_json(file: FileCounts) -> dict[str, Any]:
    return {
        "path": file.path,
        "format": file.format,
        "compression": file.compression,
        **_packets_json(file),
        "problems": file.problems,
    }


def _packets_json(counts: FileCounts) -> dict[str, Any]:
    return {
        "packets": counts.packets,
        "ip": counts.handed_on,
        "skipped": counts.skipped,
        "cut": counts.cut,
        "snaplen": counts.snaplen,
        "in_tunnels": counts.tunnelled,
        "not_read": counts.unread,
        "link_types": counts.links,
        "first_ns": counts.first_ns if counts.first_ns >= 0 else None,
        "last_ns": counts.last_ns if counts.last_ns >= 0 else None,
    }


def _server_json(server: Server) -> dict[str, Any]:
    made: dict[str, Any] = {
        "endpoint": format_endpoint(server.address, server.port),
        "flows" if server.is_udp else "sessions": server.sessions,
        "client_packets": server.client_packets,
        "client_bytes": server.client_bytes,
        "server_packets": server.server_packets,
        "server_bytes": server.server_bytes,
        "protocols": dict(server.protocols),
    }
    if not server.is_udp:
        made["whole"] = server.whole
        made["by_syn"] = server.is_certain
    return made
