"""What the parts of a worker have counted, put into a snapshot."""

from __future__ import annotations

from collections.abc import Iterable

from tcpcopy.capture.ring import Ring
from tcpcopy.engine.unread import Unread
from tcpcopy.recorded.player import Player
from tcpcopy.report.counters import InputCounts, RingCounts, Snapshot


def file_counts(player: Player) -> InputCounts:
    """What was read of the files."""
    done, total = player.progress()
    return InputCounts(
        packets=player.feed.taken + player.feed.left_out,
        left_out=player.feed.left_out,
        bytes_read=done,
        bytes_total=total,
        passes=player.passes_done,
        problems=len(player.stream.problems),
    )


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
