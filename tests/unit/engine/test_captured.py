"""The captured half: what becomes of each segment that a client may send.

Every case runs across the end of the sequence space, because `feeding.ISN` stands before it.
"""

from __future__ import annotations

import pytest

from tcpcopy.engine.captured import (
    EARLY_LIMIT_BYTES,
    EARLY_LIMIT_SEGMENTS,
    FARTHEST_IN_FLIGHT,
    MOST_DOUBTS,
    CapturedHalf,
)
from tcpcopy.engine.chunk import CHUNK_COST, FIN, RST
from tcpcopy.engine.outcome import Drop
from tests.unit.engine.feeding import ISN, SERVER_BASE, START, Feed, chunks, stream

DUPLICATE = int(Drop.DUPLICATE)
OUT_OF_WINDOW = int(Drop.OUT_OF_WINDOW)
EARLY_LIMIT = int(Drop.EARLY_LIMIT)
CLOSED = int(Drop.CLOSED_SESSION)
BEHIND_HOLE = int(Drop.BEHIND_HOLE)
USED = 0


# --- in order ------------------------------------------------------------------------------


def test_segments_in_order_become_one_chunk_each() -> None:
    feed = Feed()
    assert feed.data(0, 100) == USED
    assert feed.data(100, 300) == USED
    feed.now += 5
    assert feed.data(300, 301, server=50) == USED
    assert feed.lines() == ["D 0+100 s0 t0", "D 100+200 s0 t0", "D 300+1 s50 t5"]
    assert feed.half.captured_rcv_offset == 301
    assert feed.half.captured_rcv_offset == 301
    assert feed.half.queued_bytes == 3 * CHUNK_COST + 301
    assert feed.half.stuck_since_ns == 0


def test_segment_of_64_kib_is_one_chunk() -> None:
    feed = Feed()
    assert feed.data(0, 65483) == USED
    assert feed.lines() == ["D 0+65483 s0 t0"]


@pytest.mark.parametrize("isn", [0, 1, 0x7FFFFF00, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF])
def test_any_initial_sequence_number(isn: int) -> None:
    feed = Feed(isn)
    for start in range(0, 1000, 100):
        assert feed.data(start, start + 100) == USED
    assert feed.half.captured_rcv_offset == 1000


def test_stream_beyond_four_gibibytes() -> None:
    """Offsets are 64 bits wide: the sequence number wraps, the offset goes on."""
    feed = Feed()
    size = 1 << 20
    block = bytes(size)
    for index in range(4200):
        assert feed.half.take_data(feed.seq(index * size), feed.ack(0), block, START) == USED
        feed.half.release()
        assert feed.half.acknowledge(feed.half.released_end) == CHUNK_COST + size
    assert feed.half.captured_rcv_offset == 4200 << 20
    assert feed.half.take_data(feed.seq(4199 << 20), feed.ack(0), block, START) == DUPLICATE


def test_data_of_the_syn_are_the_first_bytes() -> None:
    feed = Feed()
    assert feed.half.take_syn_data(stream(0, 10), START) == USED
    assert feed.data(10, 20) == USED
    assert feed.lines() == ["D 0+10 s0 t0", "D 10+10 s0 t0"]


def test_data_of_the_syn_that_the_server_did_not_take_come_again() -> None:
    """A server that refuses the cookie acknowledges the SYN alone; the client sends again."""
    feed = Feed()
    feed.half.take_syn_data(stream(0, 10), START)
    assert feed.data(0, 10) == DUPLICATE
    assert feed.data(0, 30) == USED
    assert feed.lines() == ["D 0+10 s0 t0", "D 10+20 s0 t0"]


# --- what is known already -----------------------------------------------------------------


def test_retransmission_is_dropped() -> None:
    feed = Feed()
    feed.data(0, 100)
    assert feed.data(0, 100) == DUPLICATE
    assert feed.data(20, 80) == DUPLICATE
    assert feed.data(99, 100) == DUPLICATE
    assert feed.lines() == ["D 0+100 s0 t0"]
    assert feed.half.captured_rcv_offset == 100


def test_overlap_gives_only_what_is_new() -> None:
    feed = Feed()
    feed.data(0, 100)
    assert feed.data(50, 101) == USED
    assert feed.data(0, 200) == USED
    assert feed.lines() == ["D 0+100 s0 t0", "D 100+1 s0 t0", "D 101+99 s0 t0"]


def test_keep_alive_probe_without_data_is_no_new_byte() -> None:
    """A probe repeats the last byte, often with a made-up value (RFC 9293, 3.8.4)."""
    feed = Feed()
    feed.data(0, 100)
    assert feed.data(99, 100, data=b"\0") == DUPLICATE
    assert feed.lines() == ["D 0+100 s0 t0"]


def test_keep_alive_probe_before_any_data_repeats_the_syn() -> None:
    feed = Feed()
    assert feed.data(-1, 0, data=b"\0") == DUPLICATE
    assert feed.lines() == []
    assert feed.data(0, 10) == USED


def test_segment_far_behind_is_old() -> None:
    feed = Feed()
    feed.data(0, 100)
    assert feed.data(-1_000_000, -1_000_000 + 10, data=bytes(10)) == DUPLICATE
    assert feed.data(-0x40000000, -0x40000000 + 10, data=bytes(10)) == OUT_OF_WINDOW


@pytest.mark.parametrize("ahead", [0x40000000, 0x7FFFFF00])
def test_segment_beyond_any_window_is_no_early_segment(ahead: int) -> None:
    """No window is larger than 1 GiB (RFC 7323, 2.3): this is of an older connection."""
    feed = Feed()
    feed.data(0, 100)
    start = 100 + ahead
    assert feed.data(start, start + 10, data=bytes(10)) == OUT_OF_WINDOW
    assert feed.half.stuck_since_ns == 0
    assert feed.half.early_bytes == 0
    assert feed.data(100, 200) == USED


def test_fin_beyond_any_window_is_no_fin() -> None:
    feed = Feed()
    feed.data(0, 100)
    assert feed.fin(100 + 0x40000000) == OUT_OF_WINDOW
    assert feed.half.stuck_since_ns == 0
    assert feed.data(100, 200) == USED
    assert feed.fin(200) == USED
    assert feed.lines()[-1] == "F 200 s0 t0"


# --- early segments ------------------------------------------------------------------------


def test_early_segment_is_held_until_the_gap_fills() -> None:
    feed = Feed()
    feed.data(0, 100)
    feed.now += 10
    assert feed.data(200, 300) == USED
    assert feed.half.stuck_since_ns == START + 10
    assert feed.half.early_bytes == 100
    assert feed.half.queued_bytes == CHUNK_COST + 100
    feed.now += 10
    assert feed.data(100, 200) == USED
    assert feed.lines() == ["D 0+100 s0 t0", "D 100+100 s0 t20", "D 200+100 s0 t20"]
    assert feed.half.stuck_since_ns == 0
    assert feed.half.early is None
    assert feed.half.early_bytes == 0


def test_first_segments_in_reverse_order() -> None:
    feed = Feed()
    for start in (400, 300, 200, 100):
        assert feed.data(start, start + 100) == USED
    assert feed.lines() == []
    assert feed.data(0, 100) == USED
    assert [line.split()[1] for line in feed.lines()] == [
        "0+100",
        "100+100",
        "200+100",
        "300+100",
        "400+100",
    ]


def test_time_zero_is_a_time() -> None:
    """A capture's clock may read 0: an early segment is held and taken all the same."""
    feed = Feed()
    feed.now = 0
    feed.data(100, 200)
    feed.data(0, 100)
    assert feed.half.captured_rcv_offset == 200


def test_two_gaps_fill_one_after_the_other() -> None:
    feed = Feed()
    feed.data(100, 200)
    feed.now += 1
    feed.data(300, 400)
    feed.now += 1
    feed.data(0, 100)
    assert feed.half.captured_rcv_offset == 200
    # The second gap is a new wait: its time-out starts where the stream last moved.
    assert feed.half.stuck_since_ns == START + 2
    assert feed.half.early_bytes == 100
    feed.data(200, 300)
    assert feed.half.captured_rcv_offset == 400
    assert feed.half.stuck_since_ns == 0


def test_early_double_is_a_duplicate() -> None:
    feed = Feed()
    feed.data(100, 200)
    assert feed.data(100, 200) == DUPLICATE
    assert feed.data(100, 150) == DUPLICATE
    assert feed.half.early_bytes == 100


def test_early_segment_that_grew_replaces_the_shorter_one() -> None:
    feed = Feed()
    feed.data(100, 200)
    assert feed.data(100, 250) == USED
    assert feed.half.early_bytes == 150
    feed.data(0, 100)
    assert [line.split()[1] for line in feed.lines()] == ["0+100", "100+150"]
    assert feed.half.early_bytes == 0


def test_early_segments_that_overlap_give_each_byte_once() -> None:
    feed = Feed()
    feed.data(150, 250)
    feed.data(100, 200)
    feed.data(120, 180)
    feed.data(0, 110)
    assert [line.split()[1] for line in feed.lines()] == ["0+110", "110+90", "200+50"]
    assert feed.half.early_bytes == 0
    assert feed.half.captured_rcv_offset == 250


def test_early_segment_overtaken_by_a_larger_retransmission() -> None:
    feed = Feed()
    feed.data(100, 200)
    feed.data(0, 300)
    assert [line.split()[1] for line in feed.lines()] == ["0+300"]
    assert feed.half.early is None
    assert feed.half.early_bytes == 0
    assert feed.half.stuck_since_ns == 0


def test_early_segment_overtaken_to_the_byte_leaves_nothing() -> None:
    feed = Feed()
    feed.data(100, 200)
    feed.data(0, 200)
    assert feed.lines() == ["D 0+200 s0 t0"]
    assert feed.half.early is None


def test_early_segment_keeps_what_the_client_knew_when_it_sent_it() -> None:
    feed = Feed()
    feed.data(100, 200, server=70)
    feed.data(0, 100, server=10)
    assert feed.lines() == ["D 0+100 s10 t0", "D 100+100 s70 t0"]


def test_early_bytes_have_a_limit() -> None:
    feed = Feed()
    size = 1 << 20
    for index in range(EARLY_LIMIT_BYTES // size):
        start = 100 + index * size
        assert feed.half.take_data(feed.seq(start), feed.ack(0), bytes(size), START) == USED
    end = 100 + EARLY_LIMIT_BYTES
    assert feed.half.early_bytes == EARLY_LIMIT_BYTES
    assert feed.half.take_data(feed.seq(end), feed.ack(0), b"x", START) == EARLY_LIMIT
    assert feed.half.early_bytes == EARLY_LIMIT_BYTES


def test_early_segments_have_a_limit() -> None:
    feed = Feed()
    for index in range(EARLY_LIMIT_SEGMENTS):
        assert feed.half.take_data(feed.seq(2 + 2 * index), feed.ack(0), b"x", START) == USED
    last = 2 + 2 * EARLY_LIMIT_SEGMENTS
    assert feed.half.take_data(feed.seq(last), feed.ack(0), b"x", START) == EARLY_LIMIT
    assert feed.half.early_bytes == EARLY_LIMIT_SEGMENTS


# --- FIN -----------------------------------------------------------------------------------


def test_fin_after_the_data() -> None:
    feed = Feed()
    feed.data(0, 100)
    feed.now += 3
    assert feed.fin(100, server=40) == USED
    assert feed.lines() == ["D 0+100 s0 t0", "F 100 s40 t3"]
    assert feed.half.captured_end == FIN
    assert feed.half.stuck_since_ns == 0


def test_fin_without_data() -> None:
    feed = Feed()
    assert feed.fin(0) == USED
    assert feed.lines() == ["F 0 s0 t0"]


def test_fin_again_is_a_duplicate() -> None:
    feed = Feed()
    feed.fin(0)
    assert feed.fin(0) == DUPLICATE
    assert feed.lines() == ["F 0 s0 t0"]


def test_early_fin_waits_for_the_data_before_it() -> None:
    feed = Feed()
    feed.data(0, 100)
    feed.now += 10
    assert feed.fin(200) == USED
    assert feed.half.captured_end == 0
    assert feed.half.stuck_since_ns == START + 10
    assert feed.fin(200) == DUPLICATE
    feed.now += 10
    feed.data(100, 200)
    assert feed.lines() == ["D 0+100 s0 t0", "D 100+100 s0 t20", "F 200 s0 t20"]
    assert feed.half.captured_end == FIN
    assert feed.half.stuck_since_ns == 0


def test_early_fin_after_early_data() -> None:
    feed = Feed()
    feed.data(100, 200)
    feed.fin(200)
    feed.data(0, 100)
    assert [line[:7] for line in feed.lines()] == ["D 0+100", "D 100+1", "F 200 s"]
    assert feed.half.stuck_since_ns == 0


def test_partly_filled_gap_before_an_early_fin_is_waited_for() -> None:
    feed = Feed()
    feed.fin(200)
    feed.now += 7
    feed.data(0, 100)
    assert feed.half.captured_end == 0
    assert feed.half.stuck_since_ns == START + 7


def test_fin_behind_the_stream_is_none() -> None:
    feed = Feed()
    feed.data(0, 100)
    assert feed.fin(50) == OUT_OF_WINDOW
    assert feed.half.captured_end == 0
    assert feed.data(100, 200) == USED


def test_data_beyond_the_fin_are_none() -> None:
    feed = Feed()
    feed.data(0, 100)
    feed.fin(200)
    assert feed.data(150, 201) == OUT_OF_WINDOW
    assert feed.data(150, 200) == USED
    feed.data(100, 150)
    assert feed.half.captured_end == FIN
    assert feed.data(200, 201) == CLOSED


def test_retransmission_after_the_fin_is_a_duplicate() -> None:
    feed = Feed()
    feed.data(0, 100)
    feed.fin(100)
    assert feed.data(0, 100) == DUPLICATE


# --- RST -----------------------------------------------------------------------------------


def test_rst_after_the_data() -> None:
    feed = Feed()
    feed.data(0, 100)
    feed.now += 4
    assert feed.rst(100) == USED
    assert feed.lines() == ["D 0+100 s0 t0", "R 100 s0 t4"]
    assert feed.half.captured_end == RST
    assert feed.rst(100) == DUPLICATE
    assert feed.data(100, 200) == CLOSED
    assert feed.fin(100) == DUPLICATE


def test_rst_after_the_fin_ends_what_waits_for_the_server() -> None:
    feed = Feed()
    feed.fin(0)
    assert feed.rst(1) == USED
    assert feed.lines() == ["F 0 s0 t0", "R 0 s0 t0"]


def test_rst_of_a_client_whose_probe_is_one_behind() -> None:
    feed = Feed()
    feed.data(0, 100)
    assert feed.rst(99) == USED


@pytest.mark.parametrize("at", [98, -500, 100 + 0x40000000])
def test_rst_out_of_the_window_is_none(at: int) -> None:
    """A blind reset must not end the replay (RFC 5961, 3)."""
    feed = Feed()
    feed.data(0, 100)
    assert feed.rst(at) == OUT_OF_WINDOW
    assert feed.data(100, 200) == USED
    assert feed.half.captured_end == 0


def test_rst_knows_all_that_the_client_had_seen() -> None:
    feed = Feed()
    feed.data(0, 100)
    feed.half.acknowledged_by_client(feed.ack(90))
    feed.rst(100)
    assert feed.lines()[-1] == "R 100 s90 t0"


def test_rst_with_an_acknowledgement_tells_of_the_last_bytes_seen() -> None:
    """The turn that the RST begins waits for the answer that the client had before it reset."""
    feed = Feed()
    feed.data(0, 100)
    feed.rst(100, server=90)
    assert feed.lines()[-1] == "R 100 s90 t0"


def test_rst_over_a_gap_leaves_the_gap() -> None:
    feed = Feed()
    feed.data(100, 200)
    assert feed.rst(200) == USED
    assert feed.lines() == []
    assert feed.half.stuck_since_ns == START
    feed.data(0, 100)
    assert feed.lines() == ["D 0+100 s0 t0", "D 100+100 s0 t0", "R 200 s0 t0"]
    assert feed.half.stuck_since_ns == 0


def test_rst_inside_the_window_is_ignored_when_the_client_goes_on() -> None:
    """Online answers with a challenge and goes on (RFC 5961, 3.2)."""
    feed = Feed()
    feed.data(0, 100)
    assert feed.rst(160) == USED
    feed.data(100, 130)
    assert feed.half.captured_end == 0
    assert feed.half.stuck_since_ns == 0
    feed.data(130, 160)  # the RST does not come back where the stream reaches its number
    assert feed.half.captured_end == 0


def test_rst_behind_bytes_that_never_come_ends_what_is_there() -> None:
    feed = Feed()
    feed.data(0, 100)
    assert feed.rst(600) == USED
    assert feed.half.stuck_since_ns == START
    assert feed.half.tear_captured(feed.now) == 0
    assert feed.lines() == ["D 0+100 s0 t0", "R 100 s0 t0"]
    assert feed.data(100, 200) == CLOSED


def test_acknowledgement_behind_bytes_never_seen_is_a_gap() -> None:
    feed = Feed()
    feed.data(0, 100)
    assert feed.half.take_ack(feed.seq(101), feed.ack(5), feed.now) == USED  # may be the FIN
    assert feed.half.stuck_since_ns == 0
    assert feed.half.take_ack(feed.seq(600), feed.ack(5), feed.now) == USED
    assert feed.half.stuck_since_ns == START
    feed.data(100, 600)
    assert feed.half.stuck_since_ns == 0
    assert feed.half.signs is None


def test_a_stray_acknowledgement_is_forgotten_when_the_client_stays_where_it_was() -> None:
    feed = Feed()
    feed.data(0, 100)
    feed.half.take_ack(feed.seq(600), feed.ack(5), feed.now)
    for _ in range(MOST_DOUBTS):
        assert feed.half.stuck_since_ns == START
        feed.half.take_ack(feed.seq(100), feed.ack(5), feed.now)
    assert feed.half.stuck_since_ns == 0


def test_the_client_is_elsewhere_when_far_segments_come_again() -> None:
    far = FARTHEST_IN_FLIGHT + 1000
    feed = Feed()
    feed.data(0, 100)
    assert feed.data(far, far + 10, data=bytes(10)) == OUT_OF_WINDOW
    assert feed.half.stuck_since_ns == 0
    assert feed.fin(far + 10) == OUT_OF_WINDOW
    assert feed.half.stuck_since_ns == START


def test_torn_stream_takes_nothing_more() -> None:
    feed = Feed()
    feed.data(0, 100)
    feed.data(200, 300)
    assert feed.half.tear_captured(feed.now) == 100
    assert feed.data(100, 200) == feed.fin(100) == feed.rst(100) == BEHIND_HOLE
    assert feed.lines() == ["D 0+100 s0 t0"]


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0), (1, 0, 2)])
def test_urgent_byte_is_no_part_of_the_stream(order: tuple[int, ...]) -> None:
    feed = Feed()
    pieces = [(0, b"abc"), (3, b"\xff"), (4, b"def")]
    for index in order:
        at, data = pieces[index]
        if index == 1:
            feed.half.take_urgent(feed.seq(3))
        feed.data(at, at + len(data), data=data)
    feed.fin(7)
    assert b"".join(chunk.data for chunk in chunks(feed.half)) == b"abcdef"
    assert feed.half.captured_end == FIN
    assert feed.half.early is None


# --- what the client had seen of the server ------------------------------------------------


def test_first_acknowledgement_is_the_base() -> None:
    half = CapturedHalf()
    half.captured_isn = ISN
    assert half.acknowledged_by_client(SERVER_BASE) == 0
    assert half.server_base == SERVER_BASE
    assert half.acknowledged_by_client((SERVER_BASE + 100) & 0xFFFFFFFF) == 100
    assert half.server_seen == 100


def test_acknowledgement_number_zero_is_a_number() -> None:
    half = CapturedHalf()
    assert half.acknowledged_by_client(0) == 0
    assert half.server_base == 0
    assert half.acknowledged_by_client(70) == 70


def test_older_acknowledgement_says_what_it_says_and_takes_nothing_back() -> None:
    half = Feed().half
    assert half.acknowledged_by_client(Feed.ack(500)) == 500
    assert half.acknowledged_by_client(Feed.ack(200)) == 200
    assert half.acknowledged_by_client(Feed.ack(1)) == 1
    assert half.server_seen == 500
    assert half.acknowledged_by_client(Feed.ack(501)) == 501


def test_acknowledgement_before_the_base_counts_nothing() -> None:
    half = Feed().half
    assert half.acknowledged_by_client(Feed.ack(-10)) == 0
    assert half.server_seen == 0


def test_server_stream_beyond_four_gibibytes() -> None:
    half = Feed().half
    step = 1 << 30
    for index in range(1, 9):
        assert half.acknowledged_by_client(Feed.ack(index * step)) == index * step
    assert half.server_seen == 8 << 30


def test_knowledge_does_not_shrink_along_the_stream() -> None:
    """A reordered segment carries an old acknowledgement; its turn is not older for that."""
    feed = Feed()
    feed.data(0, 100, server=50)
    feed.data(100, 200, server=20)
    assert feed.lines() == ["D 0+100 s50 t0", "D 100+100 s50 t0"]


def test_a_duplicate_still_tells_what_the_client_has_seen() -> None:
    feed = Feed()
    feed.data(0, 100)
    assert feed.data(0, 100, server=80) == DUPLICATE
    assert feed.half.server_seen == 80
