"""What the parts of a worker have counted, put into a snapshot."""

from __future__ import annotations

from collections.abc import Iterable

from tcpcopy.capture.ring import Ring
from tcpcopy.engine.unread import Unread
from tcpcopy.report.counters import RingCounts, Snapshot


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
