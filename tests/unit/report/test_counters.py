"""The snapshot: what it derives, that it joins, and that no broken sum goes unnoticed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tcpcopy.report.counters import RelayCounts, RingCounts, Snapshot, drops_of, merged
from tcpcopy.report.outcome import DROP_SLOTS, OUTCOME_SLOTS, Drop, Outcome
from tests.unit.report.samples import SECOND, clean, relay_up, with_outcome


def test_empty_and_clean_add_up() -> None:
    assert Snapshot().check() == []
    assert clean().check() == []


def test_derived_figures() -> None:
    snapshot = clean()
    snapshot.outcomes[Outcome.REPLAYED] -= 12
    snapshot.outcomes[Outcome.REFUSED] = 5
    snapshot.outcomes[Outcome.SKIPPED_SAMPLING] = 4
    snapshot.outcomes[Outcome.IDLE_COMPLETE] = 3
    assert snapshot.sessions_lost == 5
    assert snapshot.sessions_skipped == 4
    assert snapshot.sessions_replayed == 85 + 3 + 3
    assert snapshot.sessions_ended == 100
    assert (snapshot.packets_used, snapshot.answers_used) == (990, 2_000)


def test_kernel_and_relay_totals_are_sums() -> None:
    snapshot = Snapshot()
    snapshot.rings = {"eth0": RingCounts(10, 2), "lo": RingCounts(5, 1)}
    snapshot.relays = {"a:1": RelayCounts(1, 3, 2, 90, 4, 5), "b:1": RelayCounts(2, 2, 0, 10, 0, 1)}
    assert (snapshot.kernel_received, snapshot.kernel_dropped) == (15, 3)
    assert snapshot.relay_total() == RelayCounts(3, 5, 2, 100, 4, 6)
    assert snapshot.relays["a:1"].records == 90  # the sum is a new object


def _set(**values: int) -> Callable[[Snapshot], None]:
    def change(snapshot: Snapshot) -> None:
        for name, value in values.items():
            assert hasattr(snapshot, name)
            setattr(snapshot, name, value)

    return change


def _slot(name: str, slot: int, value: int) -> Callable[[Snapshot], None]:
    def change(snapshot: Snapshot) -> None:
        getattr(snapshot, name)[slot] = value

    return change


def _ring(received: int, dropped: int) -> Callable[[Snapshot], None]:
    return lambda snapshot: snapshot.rings.update(eth0=RingCounts(received, dropped))


def _relay(counts: RelayCounts) -> Callable[[Snapshot], None]:
    return lambda snapshot: snapshot.relays.update(peer=counts)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_set(sessions_captured=101),
         "sessions captured 101 differs from sessions ended, live and waiting 100"),
        (_set(sessions_live=1),
         "sessions captured 100 differs from sessions ended, live and waiting 101"),
        (_set(sessions_waiting=1),
         "sessions captured 100 differs from sessions ended, live and waiting 101"),
        (_set(packets_captured=1_001),
         "packets captured 1001 differs from packets used and dropped 1000"),
        (_slot("packet_drops", Drop.CUT, 1),
         "packets captured 1000 differs from packets used and dropped 1001"),
        (_set(answers_received=1_999),
         "answers received 1999 differs from answers used and dropped 2000"),
        (_set(bytes_delivered=39_999),
         "no session lost and none live, but bytes captured 40000 differs from"
         " bytes delivered 39999"),
        (_set(bytes_delivered=40_001), "bytes delivered 40001 is more than bytes captured 40000"),
        (_set(turns_replayed=501), "turns replayed 501 is more than turns captured 500"),
        (_set(turns_late=501), "turns late 501 is more than turns replayed 500"),
        (_set(waits_expired=501), "waits expired 501 is more than turns replayed 500"),
        (_set(packets_retransmitted=1_201),
         "packets retransmitted 1201 is more than packets sent 1200"),
        (_set(sessions_established=101),
         "sessions established 101 is more than sessions captured 100"),
        (_set(sessions_midstream=101),
         "sessions midstream 101 is more than sessions captured 100"),
        (_set(sessions_peak=101), "sessions peak 101 is more than sessions captured 100"),
        (_slot("outcomes", 0, 1), "outcomes: 1 sessions ended without an outcome"),
        (_set(answer_bytes=-1), "answer bytes is negative: -1"),
        (_slot("answer_drops", Drop.FOREIGN, -1), "answer drops 17 is negative: -1"),
        (_ring(5, 6), "ring eth0: dropped 6 is more than received 5"),
        (lambda s: s.rings.update(eth0=RingCounts(5, 0, 6)),
         "ring eth0: skipped 6 is more than received 5"),
        (_ring(5, -1), "rings eth0 dropped is negative: -1"),
        (_relay(RelayCounts(records=1, malformed=2)),
         "relay peer: malformed 2 is more than records 1"),
        (_relay(RelayCounts(connected=2, connects=1)),
         "relay peer: connected 2 is more than connects 1"),
        (_relay(RelayCounts(reconnects=1)), "relay peer: reconnects 1 is more than connects 0"),
        (lambda s: s.outcomes.append(0),
         f"outcomes has {OUTCOME_SLOTS + 1} slots instead of {OUTCOME_SLOTS}"),
        (lambda s: s.packet_drops.pop(),
         f"packet drops has {DROP_SLOTS - 1} slots instead of {DROP_SLOTS}"),
        (lambda s: s.send_errors.update({1: -4}), "send errors 1 is negative: -4"),
    ],
)  # fmt: skip
def test_each_broken_identity_is_named(change: Callable[[Snapshot], None], expected: str) -> None:
    """One change to a snapshot that adds up gives its line (and what follows from it)."""
    snapshot = clean()
    change(snapshot)
    assert expected in snapshot.check()


def over() -> Snapshot:
    """A run that has ended: 1,700 packets came, and 1,000 of them were worked on."""
    snapshot = clean()
    snapshot.is_over = True
    snapshot.packets_unread, snapshot.sessions_unread, snapshot.udp_packets_unread = 500, 40, 60
    snapshot.rings = {"eth0": RingCounts(1_500, 90, 0), "lo": RingCounts(200, 0, 50)}
    return snapshot


def test_packets_in_tunnels_and_pieces_are_accounted_for() -> None:
    snapshot = over()
    snapshot.rings["eth0"].received += 30
    snapshot.unwrapped_left_out = 20
    assert len(snapshot.check()) == 1
    snapshot.fragments_kept = 10
    assert snapshot.check() == []


def test_at_the_end_all_that_the_kernel_received_is_accounted_for() -> None:
    snapshot = over()
    assert snapshot.check() == []
    snapshot.rings["lo"].received += 1
    assert snapshot.check() == [
        "packets received by the kernel 1701 differs from packets captured, dropped by it, unread,"
        " not IP, left out and kept as pieces 1700"
    ]


@pytest.mark.parametrize("change", [_set(is_over=False), _set(workers_lost=1)])
def test_what_is_on_its_way_or_died_with_a_worker_is_not_missed(
    change: Callable[[Snapshot], None],
) -> None:
    """Packets stand in rings while it runs; a worker that died has not told what it had read."""
    snapshot = over()
    snapshot.rings["lo"].received += 10
    change(snapshot)
    assert snapshot.check() == []


def test_joined_it_is_over_when_all_are() -> None:
    """A snapshot of nothing (a worker that has not told any) does not matter."""
    assert over().merge(over()).is_over
    assert over().merge(Snapshot()).is_over and Snapshot().merge(over()).is_over
    assert not over().merge(clean()).is_over and not clean().merge(over()).is_over
    assert not Snapshot().merge(Snapshot()).is_over
    assert Snapshot.from_dict(over().to_dict()) == over()
    assert over().merge(over()).check() == []


def test_live_may_not_exceed_the_peak() -> None:
    snapshot = clean()
    snapshot.sessions_captured, snapshot.sessions_live = 121, 21
    assert snapshot.check() == ["sessions live 21 is more than sessions peak 20"]


def test_undelivered_bytes_are_fine_where_a_loss_or_a_live_session_has_them() -> None:
    lossy = with_outcome(Outcome.RESET, 1)
    lossy.bytes_delivered -= 10
    assert lossy.check() == []
    live = clean()
    live.bytes_delivered -= 10
    live.sessions_live = 1
    live.sessions_captured += 1
    assert live.check() == []


def test_merge_adds_and_leaves_both_alone() -> None:
    one, other = relay_up(clean()), relay_up(clean(), "10.0.0.5:36524")
    other.rings = {"eth0": RingCounts(4, 1), "lo": RingCounts(2, 0)}
    other.send_errors = {1: 2}
    one.send_errors = {1: 1, 101: 5}
    other.answer_time.record(1000)
    other.started_ns -= 5 * SECOND
    joined = one.merge(other)
    assert joined.sessions_captured == 200
    assert joined.outcomes[Outcome.REPLAYED] == 194
    assert joined.rings == {"eth0": RingCounts(1_004, 1), "lo": RingCounts(2, 0)}
    assert set(joined.relays) == {"10.0.0.4:36524", "10.0.0.5:36524"}
    assert joined.send_errors == {1: 3, 101: 5}
    assert joined.answer_time.count == 1
    assert joined.started_ns == other.started_ns
    assert joined.duration_ns == 65 * SECOND
    joined.rings["eth0"].dropped = 99
    joined.outcomes[1] = 0
    assert one.rings["eth0"].dropped == 0
    assert one.outcomes[Outcome.REPLAYED] == 97
    assert one.answer_time.count == 0


def test_worker_that_has_not_started_does_not_move_the_start() -> None:
    assert clean().merge(Snapshot()).started_ns == clean().started_ns
    assert Snapshot().merge(clean()).started_ns == clean().started_ns


def test_merged_of_none_one_and_many() -> None:
    assert merged([]) == Snapshot()
    assert merged([clean()]) == clean()
    assert merged(iter([clean(), clean(), clean()])).sessions_captured == 300


def test_through_json() -> None:
    snapshot = relay_up(clean())
    snapshot.send_errors = {1: 5}
    snapshot.capture_lag.record(5_000)
    assert Snapshot.from_dict(json.loads(json.dumps(snapshot.to_dict()))) == snapshot


def test_to_dict_shares_nothing() -> None:
    snapshot = clean()
    snapshot.to_dict()["outcomes"][1] = 0
    assert snapshot.outcomes[1] == 97


def test_drops_largest_first() -> None:
    snapshot = clean()
    snapshot.packet_drops[Drop.NOT_TCP] = 11
    assert drops_of(snapshot.packet_drops) == [(Drop.NOT_TCP, 11), (Drop.DUPLICATE, 10)]
