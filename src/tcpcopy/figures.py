"""What the parts of a worker have counted, put into a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tcpcopy.capture.ring import Ring
from tcpcopy.engine.unread import Unread
from tcpcopy.mapping.addresses import format_endpoint
from tcpcopy.report.counters import RingCounts, Snapshot
from tcpcopy.report.said import Said
from tcpcopy.said.tally import Tally


def fill_unread(snapshot: Snapshot, unread: Unread) -> None:
    """Put what was left unread into a snapshot."""
    snapshot.packets_unread = unread.packets
    snapshot.sessions_unread = unread.sessions
    snapshot.udp_packets_unread = unread.udp_packets


def fill_rings(snapshot: Snapshot, rings: Iterable[Ring]) -> None:
    """Put what the kernel counted into a snapshot, by device."""
    for ring in rings:
        taken, dropped = ring.statistics()
        counts = snapshot.rings.setdefault(ring.device or "all devices", RingCounts())
        counts.received += taken + dropped
        counts.dropped += dropped
        counts.skipped += ring.skipped


def fill_said(snapshot: Snapshot, tallies: Mapping[tuple[bytes, int], Tally]) -> None:
    """Add what was counted of the targets' answers to a snapshot."""
    for (address, port), tally in tallies.items():
        said = snapshot.said.setdefault(format_endpoint(address, port), Said())
        said.counts = [a + b for a, b in zip(said.counts, tally.kind_counts(), strict=True)]
        said.sessions += tally.sessions
        said.bytes_online += tally.bytes_online
        said.bytes_target += tally.bytes_target
