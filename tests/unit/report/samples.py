"""Snapshots and contexts that the tests of the reports start from."""

from __future__ import annotations

from dataclasses import replace

from tcpcopy.report.context import CLASSIC, Context, TransferInfo
from tcpcopy.report.counters import RelayCounts, RingCounts, Snapshot
from tcpcopy.report.outcome import Drop, Outcome

SECOND = 1_000_000_000

SOCKET_CONTEXT = Context(
    transfers=(TransferInfo("", 80, "10.0.0.3", 8080),),
    buffer_mib=16,
    memory_mib=512,
    answer_timeout_s=600,
    keep_alive_s=720,
    version="1.2.3",
)
CLASSIC_CONTEXT = replace(
    SOCKET_CONTEXT,
    mode=CLASSIC,
    intercepts=("10.0.0.4:36524",),
    client_addresses=("62.135.200.x",),
    client_pool_size=254,
)


def clean() -> Snapshot:
    """A minute in which 100 sessions were replayed without any trouble."""
    snapshot = Snapshot(
        started_ns=1_700_000_000 * SECOND,
        duration_ns=65 * SECOND,
        sessions_captured=100,
        sessions_peak=20,
        sessions_established=100,
        turns_captured=500,
        turns_replayed=500,
        bytes_captured=40_000,
        bytes_delivered=40_000,
        answer_bytes=9_000_000,
        packets_captured=1_000,
        packets_sent=1_200,
        answers_received=2_000,
        rings={"eth0": RingCounts(received=1_000)},
    )
    snapshot.outcomes[Outcome.REPLAYED] = 97
    snapshot.outcomes[Outcome.CLIENT_RESET] = 3
    snapshot.packet_drops[0] = 990
    snapshot.packet_drops[Drop.DUPLICATE] = 10
    snapshot.answer_drops[0] = 2_000
    return snapshot


def with_outcome(outcome: Outcome, count: int = 7) -> Snapshot:
    """The same, but `count` of the sessions ended in `outcome`."""
    snapshot = clean()
    snapshot.outcomes[Outcome.REPLAYED] -= count
    snapshot.outcomes[outcome] += count
    return snapshot


def unreachable(outcome: Outcome = Outcome.CONNECT_TIMEOUT, count: int = 7) -> Snapshot:
    """A run that never got an answer: `count` sessions, all ended in `outcome`."""
    snapshot = Snapshot(
        sessions_captured=count, sessions_peak=count, packets_captured=count, packets_sent=count
    )
    snapshot.outcomes[outcome] = count
    snapshot.packet_drops[0] = count
    return snapshot


def relay_up(snapshot: Snapshot, peer: str = "10.0.0.4:36524") -> Snapshot:
    """`snapshot` with two healthy connections to an intercept."""
    snapshot.relays[peer] = RelayCounts(connected=2, connects=2)
    return snapshot
