"""The client sends: segments as the client cut them, both windows, the accounts of what is out."""

from __future__ import annotations

import pytest

from tcpcopy.engine.chunk import CHUNK_COST
from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.states import State
from tests.unit.engine.rig import MS, SECOND, Bench, established


def out(bench: Bench) -> int:
    """Payload bytes sent since the last call."""
    bench.sent()
    return sum(len(segment.payload) for segment in bench.seen)


# --- segments ------------------------------------------------------------------------------


def test_a_chunk_that_fits_is_one_segment_with_push() -> None:
    bench = established()
    bench.say(1460)
    assert bench.sent() == ["PA 0+1460 a0"]


def test_a_long_chunk_is_cut_and_its_end_is_pushed() -> None:
    bench = established()
    bench.say(3000)
    assert bench.sent() == ["A 0+1460 a0", "A 1460+1460 a0", "PA 2920+80 a0"]


def test_two_chunks_are_never_joined() -> None:
    """The target sees requests cut as the client cut them."""
    bench = established()
    bench.say(10, release=False)
    bench.say(20, release=False)
    bench.queue.release()
    bench.release()
    assert bench.sent() == ["PA 0+10 a0", "PA 10+20 a0"]


def test_nothing_is_sent_before_it_is_released() -> None:
    bench = established()
    bench.say(10, release=False)
    bench.client.transmit(bench.now)
    bench.expect_silence(10 * SECOND)
    bench.release()
    assert bench.sent() == ["PA 0+10 a0"]


def test_nothing_is_sent_twice_without_need() -> None:
    bench = established()
    bench.say(10)
    assert bench.sent() == ["PA 0+10 a0"]
    bench.client.transmit(bench.now)
    bench.client.transmit(bench.now)
    assert bench.sent() == []


def test_later_chunks_follow_earlier_ones_that_are_gone() -> None:
    bench = established()
    for size in (10, 20, 30):
        start = len(bench.stream)
        bench.say(size)
        assert bench.sent() == [f"PA {start}+{size} a0"]
        bench.hear(ack=start + size)
        assert bench.queue.head is None
    assert bench.counts.bytes_delivered == 60
    assert bench.counts.queued_bytes == 0


def test_a_segment_acknowledges_what_came() -> None:
    bench = established()
    bench.hear("PA", 0, 700)
    bench.say(10)
    assert bench.sent() == ["PA 0+10 a700"]
    assert bench.client.ack_deadline_ns == 0


def test_stream_over_the_end_of_the_sequence_space() -> None:
    bench = opened_just_before_the_wrap()
    assert (bench.client.iss + 1) & 0xFFFFFFFF == 0xFFFFFF9C
    bench.say(300)
    assert bench.sent() == ["PA 0+300 a0"]
    bench.hear(ack=100)
    assert bench.client.acknowledged == 100
    bench.hear(ack=300)
    assert bench.client.acknowledged == 300
    assert bench.client.rto_deadline_ns == 0


def opened_just_before_the_wrap() -> Bench:
    """A connection whose first byte is number 2**32 - 100."""
    probe = Bench()
    probe.open()
    seed = (0xFFFFFF9B - probe.client.iss) & 0xFFFFFFFF
    return established(EngineConfig(seed=seed))


def test_batch_flushes_itself_and_nothing_is_missing() -> None:
    bench = Bench(capacity=2)
    bench.open()
    bench.accept()
    bench.say(1460 * 7)
    assert bench.sent() == [
        "S",
        *(f"A {1460 * index}+1460 a0" for index in range(6)),
        "PA 8760+1460 a0",
    ]


# --- the target's window -------------------------------------------------------------------


def test_window_is_never_exceeded() -> None:
    bench = established(window=3000)
    bench.say(10_000)
    assert bench.sent() == ["A 0+1460 a0", "A 1460+1460 a0"]
    bench.hear(ack=1460, window=3000)
    assert bench.sent() == ["A 2920+1460 a0"]
    bench.hear(ack=4380, window=10_000)
    assert bench.sent() == ["A 4380+1460 a0", "A 5840+1460 a0", "A 7300+1460 a0", "PA 8760+1240 a0"]


def test_window_to_the_byte() -> None:
    bench = established(window=1460)
    bench.say(2920)
    assert bench.sent() == ["A 0+1460 a0"]
    bench.hear(ack=1460, window=1459)
    assert bench.sent() == ["A 1460+1459 a0"]
    bench.hear(ack=2919, window=1)
    assert bench.sent() == ["PA 2919+1 a0"]


def test_part_of_a_segment_goes_only_into_an_empty_pipe() -> None:
    """Else a small window makes small segments for ever (RFC 9293, 3.8.6.2.1)."""
    bench = established(window=2000)
    bench.say(4000)
    assert bench.sent() == ["A 0+1460 a0"]
    bench.hear(ack=0, window=2100)
    assert bench.sent() == []
    bench.hear(ack=1460, window=1000)
    assert bench.sent() == ["A 1460+1000 a0"]


def test_window_that_shrinks_under_what_is_out() -> None:
    bench = established(window=4000)
    bench.say(4000)
    assert len(bench.sent()) == 3
    bench.say(1000)
    bench.hear(ack=1460, window=100)
    assert bench.sent() == []
    bench.hear(ack=4000, window=100)
    assert bench.sent() == ["A 4000+100 a0"]


def test_scaled_window_counts_in_full() -> None:
    bench = established(scale=7, window=65535)
    bench.hear(window=500)  # 64000 bytes
    bench.client.cwnd = 1 << 30
    bench.say(100_000)
    assert out(bench) == 64000 // 1460 * 1460


def test_acknowledgement_with_a_new_window_is_no_duplicate() -> None:
    bench = established(window=1460)
    bench.say(5000)
    bench.sent()
    for window in (1461, 1462, 1463, 1464):
        bench.hear(ack=0, window=window)
    assert bench.client.duplicate_acks == 0
    assert bench.sent() == []


def test_fin_needs_no_window() -> None:
    bench = established(window=100)
    bench.say(100)
    bench.finish()
    assert bench.sent() == ["PA 0+100 a0", "FA 100 a0"]


def test_fin_waits_for_the_data_before_it() -> None:
    bench = established(window=100)
    bench.say(150)
    bench.finish()
    assert bench.sent() == ["A 0+100 a0"]
    assert bench.client.state == State.ESTABLISHED
    bench.hear(ack=100, window=100)
    assert bench.sent() == ["PA 100+50 a0", "FA 150 a0"]


# --- the congestion window -----------------------------------------------------------------


def test_first_flight_is_ten_segments() -> None:
    """RFC 6928."""
    bench = established()
    bench.say(30_000)
    assert out(bench) == 10 * 1460


def test_slow_start_doubles_each_round_trip() -> None:
    bench = established(scale=7)
    bench.hear(window=65535)
    bench.say(200_000)
    assert out(bench) == 14600
    bench.hear(ack=14600, window=65535)
    assert out(bench) == 2 * 14600
    bench.hear(ack=3 * 14600, window=65535)
    assert out(bench) == 4 * 14600


def test_congestion_avoidance_grows_by_a_segment_each_round_trip() -> None:
    bench = established()
    client = bench.client
    client.ssthresh = client.cwnd = 14600
    bench.say(60_000)
    bench.sent()
    for index in range(1, 11):
        bench.hear(ack=1460 * index)
    assert 14600 + 1300 < client.cwnd <= 14600 + 1460


# --- accounts ------------------------------------------------------------------------------


def test_delivered_bytes_are_those_acknowledged() -> None:
    bench = established()
    bench.say(1000)
    bench.sent()
    assert (bench.counts.bytes_delivered, bench.counts.queued_bytes) == (0, CHUNK_COST + 1000)
    bench.hear(ack=400)
    assert (bench.counts.bytes_delivered, bench.client.acknowledged) == (400, 400)
    assert bench.counts.queued_bytes == CHUNK_COST + 1000  # a chunk is kept whole
    bench.hear(ack=1000)
    assert (bench.counts.bytes_delivered, bench.counts.queued_bytes) == (1000, 0)


def test_time_of_the_newest_acknowledgement() -> None:
    bench = established()
    assert bench.client.acknowledged_ns == 0
    bench.say(10)
    bench.run_to(30 * MS)
    bench.hear(ack=10)
    assert bench.client.acknowledged_ns == bench.now
    bench.run_to(60 * MS)
    bench.hear(ack=10)
    assert bench.client.acknowledged_ns == bench.now - 30 * MS


def test_fin_is_no_byte_delivered() -> None:
    bench = established()
    bench.say(10)
    bench.finish()
    bench.hear(ack=11)
    assert bench.counts.bytes_delivered == 10
    assert bench.client.acknowledged == 10
    assert bench.client.fin_acknowledged == 1


def test_idle_means_no_timer() -> None:
    bench = established()
    bench.say(10)
    assert bench.client.rto_deadline_ns > 0
    bench.hear(ack=10)
    assert (bench.client.rto_deadline_ns, bench.client.deadline_ns()) == (0, 0)
    assert bench.client.snd_una == bench.client.snd_nxt == 10


def test_segments_are_counted() -> None:
    bench = established()
    before = bench.counts.segments_sent
    bench.say(3000)
    assert bench.counts.segments_sent == before + 3
    assert bench.counts.retransmitted == 0


def test_acknowledgement_of_what_was_never_sent() -> None:
    """RFC 9293 (3.10.7.4): answer with an ACK, drop it; at most one in five milliseconds."""
    bench = established()
    bench.say(10)
    bench.sent()
    assert bench.hear(ack=11) != 0
    assert bench.sent() == ["A 10 a0"]
    bench.hear(ack=5000)
    assert bench.sent() == []
    assert bench.client.snd_una == 0
    bench.run_to(5 * MS)
    bench.hear(ack=11)
    assert bench.sent() == ["A 10 a0"]


def test_acknowledgement_from_the_past_moves_nothing() -> None:
    bench = established(window=5000)
    bench.say(1000)
    bench.hear(ack=1000, window=5000)
    bench.say(1000)
    bench.sent()
    assert bench.hear(ack=500, window=1) == 0
    assert bench.client.snd_una == 1000
    assert bench.client.snd_wnd == 5000


@pytest.mark.parametrize("piece", [1, 7, 100, 1459, 1461])
def test_bytes_are_right_whatever_the_cut(piece: int) -> None:
    """`Bench.sent` compares each payload with the client's stream."""
    bench = established(window=5000)
    total = 0
    for _ in range(20):
        bench.say(piece)
    while total < len(bench.stream):
        lines = bench.sent()
        assert lines
        total = bench.client.snd_nxt
        bench.hear(ack=total, window=5000)
    assert bench.counts.bytes_delivered == 20 * piece
