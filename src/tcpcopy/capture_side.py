"""What is taken off captured packets before a worker's engine has them, and its counts."""

from __future__ import annotations

from collections.abc import Iterable

from tcpcopy.capture.filters import matcher
from tcpcopy.capture.ring import Ring
from tcpcopy.capture.unwrapping import Unwrapping
from tcpcopy.copier_config import CopierConfig, own_expression
from tcpcopy.packet.handler import PacketHandler
from tcpcopy.recorded.player import Player
from tcpcopy.report.counters import Snapshot


def unwrapping(config: CopierConfig, handler: PacketHandler) -> Unwrapping | None:
    """What stands before `handler` where live packets come in tunnels, else None."""
    if not config.unwraps or config.recorded is not None:
        return None
    ports = {port for _, port in config.transfers.sources()}
    return Unwrapping(handler, ports, matcher(own_expression(config)))


def fill(
    snapshot: Snapshot,
    rings: Iterable[Ring],
    within: Unwrapping | None,
    player: Player | None = None,
) -> None:
    """Put what is known of encapsulations and fragments into a snapshot."""
    for ring in rings:
        _add(snapshot, ring.unread_counts())
    if within is not None:
        snapshot.unwrapped += within.unwrapper.tunnelled
        snapshot.unwrapped_left_out += within.left_out
        snapshot.fragments_kept += within.kept
        snapshot.fragments_lost += within.unwrapper.lost
        _add(snapshot, within.unwrapper.unread_counts())
    if player is not None:
        counts = player.stream.counts
        snapshot.unwrapped += counts.tunnelled
        snapshot.fragments_lost += counts.lost_fragments
        _add(snapshot, counts.unread)


def _add(snapshot: Snapshot, unread: dict[str, int]) -> None:
    for name, count in unread.items():
        snapshot.not_read[name] = snapshot.not_read.get(name, 0) + count
