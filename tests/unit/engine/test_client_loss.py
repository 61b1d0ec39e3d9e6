"""Loss: the retransmission timer, duplicate acknowledgements, SACK.

Benches that are opened in no time have a time-out of 200 ms, the floor.
"""

from __future__ import annotations

import pytest

from tcpcopy.engine import replayed
from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.sender import MAX_RTO_NS
from tests.unit.engine.rig import MS, SECOND, Bench, established

MSS = 1460


def sending(segments: int, *, sack: bool = False, scale: int | None = None) -> Bench:
    """A bench with so many full segments out, each a chunk of its own."""
    bench = established(sack=sack, scale=scale)
    for _ in range(segments):
        bench.say(MSS)
    assert len(bench.sent()) == segments
    return bench


def segment(index: int) -> str:
    """How full segment `index` looks when it is sent."""
    return f"PA {MSS * index}+{MSS} a0"


# --- the timer -----------------------------------------------------------------------------


def test_time_out_is_exact() -> None:
    bench = established()
    bench.say(100)
    bench.sent()
    bench.expect_at(200 * MS, ["PA 0+100 a0"])
    assert bench.counts.retransmitted == 1


def test_time_out_doubles() -> None:
    bench = established()
    bench.say(100)
    bench.sent()
    at = 0
    for wait in (200, 400, 800, 1600, 3200):
        at += wait
        bench.expect_at(at * MS, ["PA 0+100 a0"])


def test_time_out_has_an_upper_end() -> None:
    bench = established(EngineConfig(answer_timeout_ns=10_000 * SECOND))
    bench.say(100)
    bench.sent()
    bench.run_to(1000 * SECOND)
    bench.sent()
    first = bench.client.rto_deadline_ns
    bench.run_to(first - 5_000 * SECOND + 1)
    assert bench.client.rto_deadline_ns - first == MAX_RTO_NS


def test_progress_ends_the_doubling() -> None:
    bench = sending(2)
    bench.run_to(700 * MS)
    assert bench.sent() == [segment(0)] * 2
    bench.hear(ack=MSS)
    assert bench.client.backoff == 0
    assert bench.sent() == [segment(1)]
    bench.expect_at(900 * MS, [segment(1)])


def test_timer_starts_anew_with_each_acknowledgement_of_something() -> None:
    """RFC 6298 (5.3)."""
    bench = sending(2)
    bench.run_to(150 * MS)
    bench.hear(ack=MSS)
    assert bench.client.rto_deadline_ns == bench.now + bench.client.rto_ns
    bench.hear(ack=2 * MSS)
    bench.expect_silence(10 * SECOND)


def test_duplicate_acknowledgement_does_not_move_the_timer() -> None:
    bench = sending(6)
    bench.run_to(150 * MS)
    bench.hear(ack=0)
    bench.expect_at(200 * MS, [segment(0)])


def test_what_was_sent_twice_is_no_sample() -> None:
    """Karn's rule: the time from the first sending would count the time-out in."""
    bench = sending(1)
    bench.run_to(300 * MS)
    bench.hear(ack=MSS)
    assert bench.client.srtt_ns == 0
    assert bench.client.rto_ns == 200 * MS


def test_what_is_first_sent_between_two_time_outs_is_no_sample_either() -> None:
    """It is sent again by the second time-out, so its acknowledgement tells nothing."""
    bench = established()
    bench.say(10)
    bench.run_to(200 * MS)
    assert bench.sent() == ["PA 0+10 a0"] * 2
    bench.say(100)
    assert bench.sent() == ["PA 10+100 a0"]
    bench.run_to(600 * MS)
    assert bench.sent() == ["PA 0+10 a0"]
    bench.hear(ack=10)
    assert bench.sent() == ["PA 10+100 a0"]
    bench.run_to(610 * MS)
    bench.hear(ack=110)
    assert bench.client.srtt_ns == 0


def test_new_samples_smooth_the_time_out() -> None:
    """RFC 6298 (2.3): srtt and rttvar of 100 ms, then 180 ms."""
    bench = established(connect_ns=100 * MS)
    bench.say(10)
    bench.run_to(280 * MS)
    bench.hear(ack=10)
    assert bench.client.srtt_ns == 110 * MS
    assert bench.client.rttvar_ns == 50 * MS + (80 * MS - 50 * MS) // 4
    assert bench.client.rto_ns == 110 * MS + 4 * 57_500_000


def test_time_out_sends_one_segment_and_each_acknowledgement_more() -> None:
    """The window starts at one segment again; all that was out counts as lost (RFC 5681, 3.1)."""
    bench = sending(6)
    bench.run_to(200 * MS)
    assert bench.sent() == [segment(0)]
    bench.hear(ack=MSS)
    assert bench.sent() == [segment(1), segment(2)]
    bench.hear(ack=2 * MSS)
    assert bench.sent() == [segment(3), segment(4)]
    bench.hear(ack=3 * MSS)
    assert bench.sent() == [segment(5)]
    bench.hear(ack=6 * MSS)
    assert bench.client.recover == -1
    bench.expect_silence(10 * SECOND)


def test_window_after_a_time_out_grows_with_each_acknowledgement() -> None:
    """Slow start, two segments for an acknowledgement at most (RFC 3465)."""
    bench = sending(8)
    bench.run_to(200 * MS)
    bench.hear(ack=MSS)
    assert bench.client.cwnd == 2 * MSS
    bench.hear(ack=5 * MSS)
    assert bench.client.cwnd == 4 * MSS


def test_what_was_never_sent_is_not_sent_again() -> None:
    """The window ended in the middle of a chunk, and so does its repetition."""
    bench = established(window=1000)
    bench.say(1500)
    assert bench.sent() == ["A 0+1000 a0"]
    bench.hear(ack=400, window=600)
    bench.expect_at(200 * MS, ["A 400+600 a0"])


def test_time_out_halves_the_threshold() -> None:
    bench = sending(8)
    bench.run_to(200 * MS)
    assert bench.client.ssthresh == 4 * MSS
    assert bench.client.cwnd == MSS


def test_fin_is_sent_again() -> None:
    bench = established()
    bench.say(10)
    bench.finish()
    assert bench.sent() == ["PA 0+10 a0", "FA 10 a0"]
    bench.hear(ack=10)
    bench.expect_at(200 * MS, ["FA 10 a0"])
    bench.expect_at(600 * MS, ["FA 10 a0"])
    bench.hear(ack=11)
    bench.client.state_deadline_ns = 0
    bench.expect_silence(10 * SECOND)


def test_data_and_fin_lost_together() -> None:
    bench = established()
    bench.say(10)
    bench.finish()
    bench.sent()
    bench.expect_at(200 * MS, ["PA 0+10 a0"])
    bench.hear(ack=10)
    assert bench.sent() == ["FA 10 a0"]


def test_target_that_acknowledges_nothing_is_given_up_after_the_answer_time_out() -> None:
    bench = established(EngineConfig(answer_timeout_ns=3 * SECOND))
    bench.say(100)
    bench.sent()
    bench.run_to(3 * SECOND - 1)
    assert bench.client.ended == replayed.RUNNING
    bench.run_to(3100 * MS)
    # The timer looks at 0.2, 0.6, 1.4, 3.0 s.
    assert bench.client.ended == replayed.ANSWER_TIMEOUT
    assert bench.sent()[-1].startswith("RA 100")


def test_silence_before_the_data_does_not_count_as_no_progress() -> None:
    bench = established(EngineConfig(answer_timeout_ns=3 * SECOND))
    bench.run_to(100 * SECOND)
    bench.say(100)
    bench.sent()
    bench.run_to(102 * SECOND)
    assert bench.client.ended == replayed.RUNNING


# --- duplicate acknowledgements ------------------------------------------------------------


def test_third_duplicate_sends_the_missing_segment() -> None:
    bench = sending(6)
    bench.hear(ack=0)
    bench.hear(ack=0)
    assert bench.sent() == []
    bench.hear(ack=0)
    assert bench.sent() == [segment(0)]
    assert bench.counts.retransmitted == 1


def test_more_duplicates_send_it_once_only() -> None:
    bench = sending(6)
    for _ in range(6):
        bench.hear(ack=0)
    assert bench.sent() == [segment(0)]


def test_recovery_ends_with_all_that_was_out() -> None:
    bench = sending(6)
    for _ in range(3):
        bench.hear(ack=0)
    assert bench.client.recover == 6 * MSS
    bench.hear(ack=6 * MSS)
    assert bench.client.recover == -1
    assert bench.client.cwnd == bench.client.ssthresh == 3 * MSS
    assert bench.client.duplicate_acks == 0


def test_partial_acknowledgement_sends_the_next_hole() -> None:
    """NewReno (RFC 6582, 3.2)."""
    bench = sending(8)
    for _ in range(3):
        bench.hear(ack=0)
    assert bench.sent() == [segment(0)]
    bench.hear(ack=3 * MSS)
    assert bench.sent() == [segment(3)]
    bench.hear(ack=5 * MSS)
    assert bench.sent() == [segment(5)]
    bench.hear(ack=8 * MSS)
    assert bench.sent() == []
    bench.expect_silence(10 * SECOND)


@pytest.mark.parametrize(("in_flight", "needed"), [(1, 1), (2, 1), (3, 2), (4, 3), (6, 3)])
def test_early_retransmit_with_little_in_flight(in_flight: int, needed: int) -> None:
    """RFC 5827: as many duplicates as can come at all."""
    bench = sending(in_flight)
    for _ in range(needed - 1):
        bench.hear(ack=0)
    assert bench.sent() == []
    bench.hear(ack=0)
    assert bench.sent() == [segment(0)]


def test_duplicates_with_data_are_the_targets_answer() -> None:
    bench = sending(6)
    for index in range(5):
        bench.hear("PA", 100 * index, 100, ack=0)
    assert bench.client.duplicate_acks == 0
    assert all("+" not in line for line in bench.sent())


def test_duplicates_without_anything_out_are_keep_alives() -> None:
    bench = established()
    for _ in range(5):
        bench.hear(ack=0)
    assert bench.sent() == []
    assert bench.client.duplicate_acks == 0


def test_fast_retransmission_that_is_lost_too_is_left_to_the_timer() -> None:
    bench = sending(6)
    for _ in range(3):
        bench.hear(ack=0)
    assert bench.sent() == [segment(0)]
    bench.expect_at(200 * MS, [segment(0)])


# --- SACK ----------------------------------------------------------------------------------


def test_sacked_segments_are_not_sent_again() -> None:
    bench = sending(8, sack=True)
    bench.hear(ack=0, sack=((MSS, 2 * MSS),))
    bench.hear(ack=0, sack=((3 * MSS, 4 * MSS), (MSS, 2 * MSS)))
    assert bench.sent() == []
    bench.hear(ack=0, sack=((3 * MSS, 5 * MSS), (MSS, 2 * MSS)))
    assert bench.sent() == [segment(0)]
    bench.hear(ack=0, sack=((3 * MSS, 6 * MSS), (MSS, 2 * MSS)))
    assert bench.sent() == [segment(2)]
    bench.hear(ack=0, sack=((3 * MSS, 8 * MSS), (MSS, 2 * MSS)))
    assert bench.sent() == []
    bench.hear(ack=8 * MSS)
    assert bench.client.sacked is None
    bench.expect_silence(10 * SECOND)


def test_what_stands_above_all_blocks_is_not_held_to_be_lost() -> None:
    bench = sending(8, sack=True)
    for end in (2, 3, 4):
        bench.hear(ack=0, sack=((MSS, end * MSS),))
    assert bench.sent() == [segment(0)]
    for _ in range(3):
        bench.hear(ack=0, sack=((MSS, 4 * MSS),))
    assert bench.sent() == []


def test_blocks_of_more_than_two_segments_tell_a_loss_at_once() -> None:
    """RFC 6675 (4): so much beyond the hole cannot be reordering."""
    bench = sending(8, sack=True)
    bench.hear(ack=0, sack=((MSS, 4 * MSS),))
    assert bench.sent() == [segment(0)]


def test_time_out_keeps_to_the_holes() -> None:
    bench = sending(4, sack=True)
    bench.hear(ack=0, sack=((MSS, 2 * MSS),))
    bench.run_to(200 * MS)
    assert bench.sent() == [segment(0)]
    bench.hear(ack=2 * MSS)
    assert bench.sent() == [segment(2), segment(3)]


def test_blocks_above_an_acknowledgement_are_kept() -> None:
    bench = sending(6, sack=True)
    bench.hear(ack=0, sack=((3 * MSS, 4 * MSS), (MSS, 2 * MSS)))
    bench.run_to(200 * MS)
    assert bench.sent() == [segment(0)]
    bench.hear(ack=2 * MSS)
    assert bench.client.sacked == [(3 * MSS, 4 * MSS)]
    assert bench.sent() == [segment(2), segment(4)]


def test_second_time_out_forgets_the_blocks() -> None:
    """The target may have dropped what it had acknowledged so (RFC 2018, 8)."""
    bench = sending(4, sack=True)
    bench.hear(ack=0, sack=((MSS, 4 * MSS),))
    bench.run_to(200 * MS)
    bench.sent()
    bench.run_to(600 * MS)
    assert bench.client.sacked is None
    assert bench.sent() == [segment(0)]
    bench.hear(ack=MSS)
    assert bench.sent() == [segment(1), segment(2)]


def test_blocks_that_cannot_be() -> None:
    """Empty, inverted, beyond what was sent, already acknowledged (D-SACK, RFC 2883)."""
    bench = sending(4, sack=True)
    bench.hear(ack=2 * MSS)
    for block in (
        (3 * MSS, 3 * MSS),
        (4 * MSS, 3 * MSS),
        (3 * MSS, 5 * MSS),
        (0, MSS),
        (MSS, 2 * MSS),
    ):
        assert bench.client.take_sack(*block) == 0
        bench.hear(ack=2 * MSS, sack=(block,))
    assert bench.client.sacked is None


def test_blocks_merge() -> None:
    client = sending(8, sack=True).client
    assert client.take_sack(2000, 3000) == 1
    assert client.take_sack(4000, 5000) == 1
    assert client.take_sack(2500, 2800) == 0
    assert client.sacked == [(2000, 3000), (4000, 5000)]
    assert client.take_sack(3000, 3500) == 1
    assert client.sacked == [(2000, 3500), (4000, 5000)]
    assert client.take_sack(3400, 4100) == 1
    assert client.sacked == [(2000, 5000)]


def test_block_that_begins_before_the_oldest_byte_counts_from_there() -> None:
    bench = sending(4, sack=True)
    bench.hear(ack=MSS)
    assert bench.client.take_sack(0, 3 * MSS) == 1
    assert bench.client.sacked == [(MSS, 3 * MSS)]


def test_blocks_are_ignored_when_they_were_not_agreed_on() -> None:
    bench = sending(4, sack=False)
    bench.hear(ack=0, sack=((MSS, 4 * MSS),))
    assert bench.client.sacked is None


def test_sacked_bytes_are_no_longer_in_flight() -> None:
    """Else the window stands still in a long recovery."""
    bench = sending(10, sack=True)
    bench.say(MSS)
    assert bench.sent() == []
    bench.hear(ack=0, sack=((MSS, 2 * MSS),))
    assert bench.sent() == [segment(10)]


def test_single_sack_news_counts_as_a_duplicate_even_with_a_new_window() -> None:
    bench = sending(6, sack=True)
    bench.hear(ack=0, window=60_000, sack=((MSS, 2 * MSS),))
    assert bench.client.duplicate_acks == 1
