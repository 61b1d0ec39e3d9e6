"""The client receives: every byte of the target is answered for, and only lengths are known."""

from __future__ import annotations

import pytest

from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.outcome import Drop
from tcpcopy.engine.receiver import (
    ACK_DELAY_NS,
    DELAYED_ACK_GRID_NS,
    DELAYED_ACK_NS,
    MAX_EARLY_RANGES,
)
from tcpcopy.engine.sender import PING_PONG_NS
from tcpcopy.engine.states import State
from tests.unit.engine.rig import MS, SECOND, START, US, Bench, established

DUPLICATE = int(Drop.DUPLICATE)
OUT_OF_WINDOW = int(Drop.OUT_OF_WINDOW)
MSS = 1460


# --- when to acknowledge -------------------------------------------------------------------


def test_answer_is_acknowledged_after_a_moment() -> None:
    bench = established()
    bench.hear("PA", 0, 100)
    bench.expect_at(ACK_DELAY_NS, ["A 0 a100"])
    assert bench.client.deadline_ns() == 0


def test_two_full_segments_are_acknowledged_at_once() -> None:
    """RFC 9293 (3.8.6.3)."""
    bench = established()
    bench.hear("A", 0, MSS)
    assert bench.sent() == []
    bench.hear("A", MSS, MSS)
    assert bench.sent() == ["A 0 a2920"]
    bench.expect_silence(1 * SECOND)


def test_request_that_follows_carries_the_acknowledgement() -> None:
    bench = established()
    bench.hear("PA", 0, 100)
    bench.run_to(ACK_DELAY_NS - 1)
    bench.say(5)
    assert bench.sent() == ["PA 0+5 a100"]
    bench.hear("A", 100, ack=5)
    bench.expect_silence(1 * SECOND)


def test_acknowledgement_waits_for_the_clients_round_trip_time() -> None:
    bench = established(rtt_ns=50 * MS)
    bench.run_to(10 * MS)
    bench.hear("A", 0, MSS)
    bench.hear("A", MSS, MSS)
    bench.hear("PA", 2 * MSS, 100)
    bench.expect_at(60 * MS, [f"A 0 a{2 * MSS + 100}"])
    bench.expect_silence(1 * SECOND)


def test_bytes_that_come_later_are_acknowledged_a_round_trip_later_at_the_latest() -> None:
    bench = established(rtt_ns=50 * MS)
    bench.hear("A", 0, 100)
    bench.run_to(50 * MS)
    assert bench.sent() == ["A 0 a100"]
    bench.run_to(60 * MS)
    bench.hear("A", 100, 100)
    bench.expect_at(110 * MS, ["A 0 a200"])


def test_what_was_acknowledged_already_is_not_acknowledged_again() -> None:
    """A second number that says the same is a duplicate acknowledgement to the target."""
    bench = established(rtt_ns=50 * MS)
    bench.hear("A", 0, 100)
    bench.run_to(40 * MS)
    bench.hear("A", 100, 100)
    bench.expect_at(50 * MS, ["A 0 a200"])
    bench.expect_silence(1 * SECOND)


@pytest.mark.parametrize("rtt_ns", [0, 999_999])
def test_round_trip_below_the_delay_is_the_delay(rtt_ns: int) -> None:
    bench = established(rtt_ns=rtt_ns)
    bench.hear("PA", 0, 10)
    bench.expect_at(ACK_DELAY_NS, ["A 0 a10"])


def ping_pong(rtt_ns: int = 0) -> Bench:
    """A session whose client has reacted to what it received."""
    bench = established(rtt_ns=rtt_ns)
    bench.say(5)
    assert bench.sent() == ["PA 0+5 a0"]
    bench.hear("A", 0, ack=5)
    return bench


def test_client_that_reacts_quickly_delays_its_acknowledgements() -> None:
    bench = ping_pong()
    bench.run_to(10 * MS)
    bench.hear("PA", 0, 100, ack=5)
    deadline = bench.client.deadline_ns() - START
    assert 10 * MS + DELAYED_ACK_NS <= deadline <= 10 * MS + DELAYED_ACK_NS + DELAYED_ACK_GRID_NS
    bench.expect_at(deadline, ["A 5 a100"])


def test_delayed_acknowledgements_of_many_sessions_fall_together() -> None:
    deadlines = set()
    for at in range(0, 8 * MS, 100 * US):
        bench = ping_pong()
        bench.run_to(at)
        bench.hear("PA", 0, 100, ack=5)
        deadlines.add(bench.client.deadline_ns())
    assert len(deadlines) <= 2


def test_client_that_takes_its_time_acknowledges_soon() -> None:
    """Its kernel would be in no hurry to delay: nothing shows that a request follows."""
    bench = established()
    bench.run_to(PING_PONG_NS)
    bench.say(5)
    bench.hear("PA", 0, 100, ack=5)
    assert bench.sent() == ["PA 0+5 a0"]
    bench.expect_at(PING_PONG_NS + ACK_DELAY_NS, ["A 5 a100"])


def test_second_segment_and_fin_end_the_delay() -> None:
    bench = ping_pong()
    bench.hear("PA", 0, MSS, ack=5)
    bench.hear("A", MSS, MSS, ack=5)
    assert bench.sent() == [f"A 5 a{2 * MSS}"]
    bench.hear("PA", 2 * MSS, 100, ack=5)
    assert bench.sent() == []
    bench.hear("FA", 2 * MSS + 100, ack=5)
    assert bench.sent() == [f"A 5 a{2 * MSS + 101}"]


def test_long_round_trip_is_the_delay() -> None:
    bench = ping_pong(rtt_ns=70 * MS)
    bench.hear("PA", 0, 100, ack=5)
    bench.expect_at(70 * MS, ["A 5 a100"])


def test_early_segment_does_not_wait_for_the_delay() -> None:
    bench = ping_pong(rtt_ns=5 * MS)
    bench.hear("PA", 0, 100, ack=5)
    bench.hear("PA", 200, 100, ack=5)
    bench.expect_at(5 * MS, ["A 5 a100"])


# --- out of order --------------------------------------------------------------------------


def test_early_segment_is_answered_at_once_and_counted_when_the_gap_fills() -> None:
    bench = established()
    bench.hear("A", 100, 50)
    assert bench.sent() == ["A 0 a0"]
    assert bench.client.received == 0
    assert bench.counts.answer_bytes == 0
    bench.hear("A", 0, 100)
    assert bench.client.received == 150
    assert bench.counts.answer_bytes == 150
    bench.expect_at(ACK_DELAY_NS, ["A 0 a150"])


def test_early_segment_is_answered_a_round_trip_later_when_there_is_one() -> None:
    bench = established(rtt_ns=30 * MS)
    bench.hear("A", 100, 50)
    bench.expect_at(30 * MS, ["A 0 a0"])
    bench.expect_silence(1 * SECOND)


def test_sack_tells_what_came_early() -> None:
    bench = established(sack=True)
    bench.hear("A", 100, 50)
    assert bench.sent() == ["A 0 a0 sack 100-150"]
    bench.hear("A", 150, 50)
    assert bench.sent() == ["A 0 a0 sack 100-200"]
    bench.hear("A", 0, 100)
    bench.expect_at(ACK_DELAY_NS, ["A 0 a200"])


def test_newest_block_comes_first() -> None:
    """RFC 2018 (4): the block with the segment that triggered the acknowledgement."""
    bench = established(sack=True)
    for at in (100, 300, 500, 700, 900):
        bench.hear("A", at, 50)
    assert bench.sent()[-1] == "A 0 a0 sack 900-950 sack 100-150 sack 300-350"
    bench.hear("A", 550, 50)
    assert bench.sent() == ["A 0 a0 sack 500-600 sack 100-150 sack 300-350"]


def test_three_blocks_and_the_timestamps_fill_the_header() -> None:
    bench = established(sack=True, timestamp=(5, 5))
    for at in (100, 300, 500, 700):
        bench.hear("A", at, 50)
    assert len(bench.sent()[-1].split("sack")) == 4
    assert bench.seen[-1].timestamp is not None
    assert bench.seen[-1].options_length == 40


def test_data_segments_carry_no_blocks() -> None:
    bench = established(sack=True)
    bench.hear("A", 100, 50)
    bench.sent()
    bench.say(10)
    assert bench.sent() == ["PA 0+10 a0"]


def test_answers_that_overlap_count_once() -> None:
    bench = established()
    bench.hear("A", 0, 100)
    bench.hear("A", 50, 100)
    bench.hear("A", 0, 150)
    assert bench.client.received == 150
    assert bench.counts.answer_bytes == 150


def test_early_ranges_that_overlap_and_touch_become_one() -> None:
    bench = established()
    for at, size in ((100, 50), (200, 50), (150, 50), (240, 60), (120, 10)):
        bench.hear("A", at, size)
    assert bench.client.early == [(100, 300)]
    bench.hear("A", 0, 150)
    assert bench.client.received == 300
    assert bench.client.early is None


def test_gaps_fill_in_any_order() -> None:
    bench = established()
    for at in (400, 200, 100, 300):
        bench.hear("A", at, 50)
    for at in (150, 350, 250):
        bench.hear("A", at, 50)
    assert bench.client.received == 0
    bench.hear("A", 0, 100)
    assert bench.client.received == 450
    assert bench.counts.answer_bytes == 450


def test_early_ranges_are_bounded_and_the_lowest_are_kept() -> None:
    bench = established(scale=7)
    for index in range(MAX_EARLY_RANGES + 20):
        bench.hear("A", 100 + 20 * index, 10)
    assert bench.client.early is not None
    assert len(bench.client.early) == MAX_EARLY_RANGES
    assert bench.client.early[0] == (100, 110)


def test_answer_beyond_the_window_is_not_held() -> None:
    bench = established()
    bench.hear("A", 65536, 10)
    assert bench.client.early is None
    assert bench.sent() == ["A 0 a0"]
    bench.hear("A", 65535, 10)
    assert bench.client.early == [(65535, 65545)]


def test_window_is_scaled_as_announced() -> None:
    bench = established(scale=5)
    assert bench.client.rcv_wscale == 7
    bench.hear("A", 65535 << 7, 10)
    assert bench.client.early is not None
    bench.hear("A", (65535 << 7) + 30, 10)
    assert len(bench.client.early) == 1


# --- doubles and probes --------------------------------------------------------------------


def test_retransmission_of_the_target_is_acknowledged_at_once() -> None:
    """Our acknowledgement was lost."""
    bench = established()
    bench.hear("PA", 0, 100)
    bench.run_to(1 * MS)
    assert bench.sent() == ["A 0 a100"]
    bench.hear("PA", 0, 100)
    assert bench.sent() == ["A 0 a100"]
    assert bench.counts.answer_bytes == 100


def test_keep_alive_without_data_is_answered() -> None:
    bench = established()
    bench.hear("PA", 0, 100)
    bench.run_to(1 * SECOND)
    bench.sent()
    assert bench.hear("A", 99, 0) == 0
    assert bench.sent() == ["A 0 a100"]


def test_keep_alive_with_a_byte_is_answered() -> None:
    bench = established()
    bench.hear("PA", 0, 100)
    bench.run_to(1 * SECOND)
    bench.sent()
    assert bench.hear("A", 99, 1) == 0
    assert bench.sent() == ["A 0 a100"]
    assert bench.client.received == 100


def test_keep_alive_before_any_answer_is_answered() -> None:
    bench = established()
    bench.run_to(1 * SECOND)
    bench.hear("A", -1, 0)
    assert bench.sent() == ["A 0 a0"]


def test_pure_acknowledgement_is_not_answered() -> None:
    bench = established()
    bench.say(10)
    bench.sent()
    bench.hear(ack=10)
    bench.expect_silence(10 * SECOND)


def test_syn_in_the_middle_is_challenged() -> None:
    """RFC 5961 (4.2); once in five milliseconds."""
    bench = established()
    bench.run_to(10 * MS)
    assert bench.hear("S", 3000) == DUPLICATE
    assert bench.hear("S", 3000) == DUPLICATE
    assert bench.sent() == ["A 0 a0"]
    assert bench.client.state == State.ESTABLISHED


def test_segment_without_an_acknowledgement_is_no_segment() -> None:
    bench = established()
    bench.run_to(10 * MS)
    assert bench.hear("P", 0, 10) == int(Drop.BAD_STATE)
    assert bench.client.received == 0


# --- what pacing hears ---------------------------------------------------------------------


def test_push_is_the_newest_data() -> None:
    bench = established()
    bench.hear("A", 0, 100)
    assert bench.client.pushed == 0
    bench.hear("PA", 100, 100)
    assert bench.client.pushed == 1
    bench.hear("A", 200, 100)
    assert bench.client.pushed == 0


def test_a_double_is_no_news() -> None:
    """But what comes behind a gap is a sign of life, and the answer is not complete."""
    bench = established()
    bench.run_to(1 * MS)
    bench.hear("PA", 0, 100)
    heard = bench.client.last_receive_ns
    assert heard == bench.now
    bench.run_to(2 * MS)
    bench.hear("A", 0, 100)
    assert bench.client.last_receive_ns == heard
    assert bench.client.pushed == 1
    bench.hear("A", 300, 100)
    assert bench.client.last_receive_ns == bench.now
    assert bench.client.pushed == 0


def test_answer_beyond_four_gibibytes() -> None:
    """Offsets are 64 bits wide."""
    bench = established(scale=14)
    client = bench.client
    step = 1 << 29
    for index in range(10):
        assert client.take_payload(index * step, step, False, True, bench.now) == 1
    assert client.received == 10 * step
    bench.sent()
    client.send_ack(bench.now)
    assert bench.sent() == [f"A 0 a{(10 * step) - (1 << 32)}"]
    bench.hear("PA", 10 * step, 7)
    assert client.received == 10 * step + 7
    assert bench.counts.answer_bytes == 10 * step + 7


# --- timestamps ----------------------------------------------------------------------------


def echo(bench: Bench) -> int:
    """What the next segment echoes."""
    bench.sent()
    bench.client.send_ack(bench.now)
    bench.sent()
    assert bench.seen[-1].timestamp is not None
    return bench.seen[-1].timestamp[1]


def test_newest_timestamp_in_order_is_echoed() -> None:
    bench = established(timestamp=(1000, 0))
    assert echo(bench) == 1000
    bench.hear("PA", 0, 10, timestamp=(1005, 0))
    assert echo(bench) == 1005
    bench.hear("A", 10, timestamp=(1010, 0))
    assert echo(bench) == 1010


def test_timestamp_of_an_early_segment_is_not_echoed() -> None:
    """RFC 7323 (4.3): the echo measures the segment that is missing, not one after it."""
    bench = established(timestamp=(1000, 0))
    bench.hear("A", 50, 10, timestamp=(1005, 0))
    assert echo(bench) == 1000


def test_timestamp_of_an_old_segment_is_not_echoed() -> None:
    """RFC 7323 (4.3, step 2): TSval must not be before TS.Recent; a late double is."""
    bench = established(timestamp=(1000, 0))
    bench.hear("PA", 0, 10, timestamp=(1005, 0))
    bench.hear("PA", 0, 10, timestamp=(1001, 0))
    assert echo(bench) == 1005


def test_timestamps_wrap() -> None:
    bench = established(timestamp=(0xFFFFFFFE, 0))
    bench.hear("PA", 0, 10, timestamp=(3, 0))
    assert echo(bench) == 3


def test_own_timestamps_are_milliseconds_and_a_seed() -> None:
    bench = established(EngineConfig(seed=77), timestamp=(1, 0))
    bench.sent()
    bench.client.send_ack(bench.now)
    bench.sent()
    first = bench.seen[-1].timestamp
    bench.run_to(250 * MS)
    bench.client.send_ack(bench.now)
    bench.sent()
    second = bench.seen[-1].timestamp
    assert first is not None and second is not None
    assert first[0] == (5_000_000 + 77) & 0xFFFFFFFF
    assert second[0] - first[0] == 250


# --- the target's FIN ----------------------------------------------------------------------


def test_fin_counts_one_and_is_no_answer_byte() -> None:
    bench = established()
    bench.hear("FPA", 0, 100)
    assert bench.client.received == 101
    assert bench.client.target_closed == 1
    assert bench.client.pushed == 1
    assert bench.counts.answer_bytes == 100
    assert bench.client.state == State.CLOSE_WAIT
    assert bench.sent() == ["A 0 a101"]


def test_fin_waits_for_the_clients_round_trip_time() -> None:
    bench = established(rtt_ns=30 * MS)
    bench.hear("FA", 0)
    bench.expect_at(30 * MS, ["A 0 a1"])


def test_early_fin_counts_when_the_data_before_it_are_there() -> None:
    bench = established()
    bench.hear("FA", 100)
    assert bench.client.target_closed == 0
    assert bench.client.state == State.ESTABLISHED
    assert bench.sent() == ["A 0 a0"]
    bench.hear("A", 0, 100)
    assert bench.client.received == 101
    assert bench.client.target_closed == 1
    assert bench.counts.answer_bytes == 100
    assert bench.client.state == State.CLOSE_WAIT


def test_fin_again_is_acknowledged_again() -> None:
    bench = established()
    bench.hear("FA", 0)
    assert bench.sent() == ["A 0 a1"]
    bench.hear("FA", 0)
    assert bench.sent() == ["A 0 a1"]
    assert bench.client.received == 1


@pytest.mark.parametrize("at", [-5000, 70_000, 1 << 30])
def test_fin_of_another_connection_is_none(at: int) -> None:
    """An older connection of the same pair of ends; its FIN must not end the new one's answer."""
    bench = established()
    bench.hear("PA", 0, 100)
    bench.hear("FA", at)
    bench.hear("PA", 100, 60_000)
    bench.hear("PA", 60_100, 40_000)
    bench.hear("PA", 100_100, 10)
    assert bench.client.target_closed == 0
    assert bench.client.received == bench.counts.answer_bytes == 100_110
    bench.hear("FA", 100_110)
    assert bench.client.target_closed == 1
    assert bench.counts.answer_bytes == 100_110


def test_fin_with_data_that_were_there_already() -> None:
    bench = established()
    bench.hear("PA", 0, 100)
    bench.hear("FPA", 0, 100)
    assert bench.client.received == 101
    assert bench.counts.answer_bytes == 100


def test_client_goes_on_after_the_targets_fin() -> None:
    bench = established()
    bench.hear("FA", 0)
    bench.sent()
    bench.say(10)
    assert bench.sent() == ["PA 0+10 a1"]
    bench.hear("A", 1, ack=10)
    assert bench.client.acknowledged == 10
