"""What the targets said, as the engines counted it, put into a snapshot."""

from __future__ import annotations

from collections.abc import Mapping

from tcpcopy.mapping.addresses import format_endpoint
from tcpcopy.report.counters import Snapshot
from tcpcopy.report.said import Said
from tcpcopy.said.tally import Tally


def fill_said(snapshot: Snapshot, tallies: Mapping[tuple[bytes, int], Tally]) -> None:
    """Add what was counted of the targets' answers to a snapshot."""
    for (address, port), tally in tallies.items():
        said = snapshot.said.setdefault(format_endpoint(address, port), Said())
        said.counts = [a + b for a, b in zip(said.counts, tally.kind_counts(), strict=True)]
        said.sessions += tally.sessions
        said.bytes_online += tally.bytes_online
        said.bytes_target += tally.bytes_target
