"""The captured half under any order, doubling and cutting of one client's segments."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.engine.chunk import CHUNK_COST, DATA, FIN, RST
from tests.unit.engine.feeding import Feed, chunks, stream

MAX_STREAM = 2000


@dataclass(frozen=True)
class Piece:
    """A segment with bytes [start, end) of the stream; `fin` stands behind its last byte."""

    start: int
    end: int
    fin: bool = False


@st.composite
def pieces(draw: st.DrawFn, length: int) -> list[Piece]:
    """Segments that together hold [0, length): cut anyhow, some twice, some overlapping."""
    cuts = sorted(draw(st.sets(st.integers(0, length), max_size=12)) | {0, length})
    found = [Piece(*pair) for pair in itertools.pairwise(cuts)]
    points = st.integers(0, length)
    for first, second in draw(st.lists(st.tuples(points, points), max_size=6)):
        if first != second:
            found.append(Piece(min(first, second), max(first, second)))
    return found


@st.composite
def conversations(draw: st.DrawFn) -> tuple[int, int, list[Piece]]:
    """An initial sequence number, the stream's length, and its segments in any order."""
    isn = draw(st.one_of(st.integers(0, 0xFFFFFFFF), st.integers(0xFFFFF800, 0xFFFFFFFF)))
    length = draw(st.integers(1, MAX_STREAM))
    found = draw(st.permutations(draw(pieces(length))))
    return isn, length, list(found)


def server_offset_of(offset: int) -> int:
    """What the client had seen of the server when it sent the byte at `offset`."""
    return offset // 100 * 70


def feed_all(feed: Feed, found: list[Piece]) -> None:
    """Give the segments to the half, one a microsecond."""
    for piece in found:
        feed.now += 1000
        if piece.end > piece.start:
            feed.data(piece.start, piece.end, server=server_offset_of(piece.start))
        if piece.fin:
            feed.fin(piece.end, server=server_offset_of(piece.end))


def taken(feed: Feed) -> bytes:
    """The stream as it stands in the queue; checks that offsets have no gap."""
    found = b""
    for chunk in chunks(feed.half):
        assert chunk.offset == len(found)
        found += chunk.data
    return found


def payload_of(feed: Feed) -> int:
    return sum(len(chunk.data) for chunk in chunks(feed.half))


def data_chunks(feed: Feed) -> int:
    return sum(chunk.kind == DATA for chunk in chunks(feed.half))


def check_rest(feed: Feed) -> None:
    """Nothing is held, nothing is waited for, and the accounts close."""
    half = feed.half
    assert half.early is None
    assert half.early_bytes == 0
    assert half.stuck_since_ns == 0
    assert half.queued_bytes == half.captured_rcv_offset + CHUNK_COST * data_chunks(feed)
    offsets = [chunk.server_offset for chunk in chunks(half)]
    assert offsets == sorted(offsets)
    times = [chunk.captured_ns for chunk in chunks(half)]
    assert times == sorted(times)


@given(conversations())
def test_any_order_gives_the_stream_once(conversation: tuple[int, int, list[Piece]]) -> None:
    isn, length, found = conversation
    feed = Feed(isn)
    feed_all(feed, found)
    assert taken(feed) == stream(0, length)
    check_rest(feed)


@given(conversations())
def test_fin_in_any_place_ends_the_stream(conversation: tuple[int, int, list[Piece]]) -> None:
    isn, length, found = conversation
    feed = Feed(isn)
    feed_all(feed, [Piece(p.start, p.end, fin=p.end == length) for p in found])
    assert taken(feed) == stream(0, length)
    assert feed.half.captured_end == FIN
    last = feed.half.tail
    assert last is not None and (last.kind, last.offset) == (FIN, length)
    assert [chunk.kind for chunk in chunks(feed.half)].count(FIN) == 1
    check_rest(feed)


@given(conversations(), st.data())
def test_whole_and_split_feeding_agree(
    conversation: tuple[int, int, list[Piece]], data: st.DataObject
) -> None:
    """Each segment cut into smaller ones (as GSO does) gives the same bytes at the same places."""
    isn, _, found = conversation
    whole, split = Feed(isn), Feed(isn)
    feed_all(whole, found)
    for piece in found:
        at = piece.start
        while at < piece.end:
            size = data.draw(st.integers(1, piece.end - at))
            feed_all(split, [Piece(at, at + size)])
            at += size
    assert taken(whole) == taken(split)
    check_rest(split)


@given(conversations(), st.data())
def test_keep_alive_probes_add_nothing(
    conversation: tuple[int, int, list[Piece]], data: st.DataObject
) -> None:
    isn, length, found = conversation
    feed = Feed(isn)
    for piece in found:
        feed_all(feed, [piece])
        if data.draw(st.booleans()):
            at = feed.half.captured_rcv_offset
            assert feed.data(at - 1, at, data=b"\xff") != 0
    assert taken(feed) == stream(0, length)
    check_rest(feed)


@given(conversations(), st.data())
def test_what_is_missing_stays_missing(
    conversation: tuple[int, int, list[Piece]], data: st.DataObject
) -> None:
    """Against a model: the stream is known up to the first byte that no segment brought."""
    isn, _, found = conversation
    feed = Feed(isn)
    known: set[int] = set()
    prefix = 0
    for piece in found:
        if data.draw(st.booleans()):
            continue
        feed_all(feed, [piece])
        known.update(range(piece.start, piece.end))
        while prefix in known:
            prefix += 1
        assert feed.half.captured_rcv_offset == prefix
        assert (feed.half.stuck_since_ns != 0) == (len(known) > prefix)
        assert (feed.half.early_bytes > 0) == (len(known) > prefix)
    assert taken(feed) == stream(0, prefix)


@given(conversations(), st.integers(0, 12))
def test_reset_ends_everything(conversation: tuple[int, int, list[Piece]], place: int) -> None:
    isn, _, found = conversation
    feed = Feed(isn)
    feed_all(feed, found[:place])
    at = feed.half.captured_rcv_offset
    waited = feed.half.stuck_since_ns
    assert feed.rst(at) == 0
    before = taken(feed)
    for piece in found[place:]:
        assert feed.data(piece.start, piece.end) != 0
    assert taken(feed) == before == stream(0, at)
    assert feed.half.captured_end == RST
    assert feed.half.stuck_since_ns == waited


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("data", "fin", "rst", "ack", "release", "acknowledge")),
            st.integers(0, 0xFFFFFFFF),
            st.integers(0, 0xFFFFFFFF),
            st.integers(1, 300),
        ),
        max_size=40,
    )
)
def test_no_segment_breaks_the_accounts(events: list[tuple[str, int, int, int]]) -> None:
    """Any numbers at all: no exception, no negative account, no byte twice."""
    feed = Feed(0x1000)
    half = feed.half
    dropped = 0
    for kind, seq, ack, size in events:
        feed.now += 1
        # Half of the numbers are brought near the window, where they can do harm.
        near = (half.captured_isn + 1 + half.captured_rcv_offset + seq % 400 - 200) & 0xFFFFFFFF
        seq = near if seq % 2 else seq
        if kind == "data":
            half.take_data(seq, ack, bytes(size), feed.now)
        elif kind == "fin":
            half.take_fin(seq, ack, feed.now)
        elif kind == "rst":
            half.take_rst(seq, ack if ack % 2 else -1, feed.now)
        elif kind == "ack":
            before = half.server_seen
            assert 0 <= half.acknowledged_by_client(ack) <= half.server_seen
            assert half.server_seen >= before
        elif kind == "release":
            half.release()
        else:
            before = payload_of(feed)
            half.acknowledge(half.released_end)
            dropped += before - payload_of(feed)
        held = sum(len(item[1]) for item in half.early or ())
        assert half.early_bytes == held
        payload = payload_of(feed)
        assert payload == half.captured_rcv_offset - dropped >= 0
        assert half.queued_bytes == payload + CHUNK_COST * data_chunks(feed)
        ends = [chunk.kind for chunk in chunks(half) if chunk.kind in (FIN, RST)]
        assert len(ends) == len(set(ends))
