"""The TCP client against anything a target may send, and against a lossy but honest target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.engine import replayed
from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.states import State
from tests.sim.model import wire
from tests.unit.engine.rig import (
    MS,
    SECOND,
    START,
    TARGET_ISS,
    Bench,
    established,
    flag_letters,
    relative,
)

OPEN_STATES = (State.ESTABLISHED, State.FIN_WAIT_1, State.CLOSING, State.CLOSE_WAIT, State.LAST_ACK)


# --- anything at all ---------------------------------------------------------------------------

OFFSETS = st.one_of(st.integers(-5, 4000), st.sampled_from((-(1 << 31), 1 << 30, 65535, 65536)))
EVENTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("hear"),
            st.sampled_from(("A", "A", "A", "PA", "FA", "RA", "R", "S", "SA", "P", "F")),
            st.one_of(st.integers(-2, 400), OFFSETS),
            st.one_of(st.integers(0, 100), st.just(1460)),
            st.one_of(st.just(None), OFFSETS),
            st.sampled_from((None, 0, 0, 1, 500, 65535)),
            st.lists(st.tuples(OFFSETS, OFFSETS), max_size=3),
        ),
        st.tuples(st.just("say"), st.integers(1, 4000), st.booleans()),
        st.tuples(st.just("release")),
        st.tuples(st.just("pass"), st.sampled_from((1, MS, 50 * MS, 250 * MS, 3 * SECOND))),
        st.tuples(st.sampled_from(("finish", "reset", "accept"))),
    ),
    max_size=40,
)


class Watched:
    """A bench whose invariants are looked at after every event."""

    def __init__(self, rtt_ns: int, sack: bool, handshake: bool) -> None:
        config = EngineConfig(answer_timeout_ns=20 * SECOND, close_timeout_ns=20 * SECOND)
        if handshake:
            self.bench = established(config, rtt_ns=rtt_ns, sack=sack)
        else:
            self.bench = Bench(config, rtt_ns=rtt_ns)
            self.bench.open()
        self.sack = sack
        self.ended = False
        self.received = 0
        self.top = 0  # highest offset ever sent

    def do(self, event: tuple[object, ...]) -> None:
        bench, kind = self.bench, event[0]
        window_end = bench.client.snd_una + bench.client.snd_wnd
        if kind == "hear":
            _, letters, at, size, ack, window, sack = event
            bench.hear(
                str(letters),
                at,  # type: ignore[arg-type]
                size,  # type: ignore[arg-type]
                ack=bench.client.snd_nxt if ack is None else ack,  # type: ignore[arg-type]
                window=window,  # type: ignore[arg-type]
                sack=tuple(sack),  # type: ignore[arg-type]
            )
        elif kind == "say" and not self.ended:
            bench.say(event[1], release=bool(event[2]))  # type: ignore[arg-type]
        elif kind == "release":
            bench.release()
        elif kind == "pass":
            bench.run_to(bench.now - START + event[1])  # type: ignore[operator]
        elif kind == "finish" and not self.ended:
            bench.finish()
            self.ended = True
        elif kind == "reset" and not self.ended:
            bench.reset()
            self.ended = True
        elif kind == "accept":
            bench.accept(sack=self.sack)
        self.check_sent(window_end)
        self.check_state()

    def check_sent(self, window_before: int) -> None:
        client = self.bench.client
        window_end = max(window_before, client.snd_una + client.snd_wnd)
        self.bench.sent()  # decodes strictly, compares each payload with the stream
        for segment in self.bench.seen:
            if not segment.payload:
                continue
            start = relative(segment.seq, client.iss)
            end = start + len(segment.payload)
            assert end <= self.bench.queue.released_end
            if end > self.top:
                assert end <= window_end or len(segment.payload) == 1
                self.top = end

    def check_state(self) -> None:
        bench, client = self.bench, self.bench.client
        assert 0 <= client.snd_una <= client.snd_nxt <= bench.queue.released_end + 1
        assert client.received >= self.received
        self.received = client.received
        assert bench.counts.bytes_delivered == client.acknowledged
        assert bench.counts.queued_bytes == bench.queue.queued_bytes
        assert (client.ended == replayed.RUNNING) == (client.state != State.CLOSED)
        assert client.deadline_ns() == 0 or client.deadline_ns() > bench.now
        for ranges, floor in ((client.sacked, client.snd_una), (client.early, client.received)):
            last = floor
            for start, end in ranges or ():
                assert last <= start < end
                last = end
        if client.ended != replayed.RUNNING or client.state not in OPEN_STATES:
            return
        if client.snd_nxt > client.snd_una or client.snd_nxt < bench.queue.released_end:
            assert client.rto_deadline_ns > 0, "something waits, and no timer runs"
        if client.ack_pending_bytes > 0:
            assert client.ack_deadline_ns > 0, "an acknowledgement is owed, and no timer runs"


@given(EVENTS, st.sampled_from((0, 30 * MS)), st.booleans(), st.booleans())
def test_no_segment_breaks_the_client(
    events: list[tuple[object, ...]], rtt_ns: int, sack: bool, handshake: bool
) -> None:
    watched = Watched(rtt_ns, sack, handshake)
    for event in events:
        watched.do(event)


@given(EVENTS, st.sampled_from((0, 30 * MS)))
def test_every_connection_comes_to_an_end(events: list[tuple[object, ...]], rtt_ns: int) -> None:
    """Whatever came before: with data out and a silent target, the time-outs end it."""
    watched = Watched(rtt_ns, True, True)
    for event in events:
        watched.do(event)
    bench = watched.bench
    while bench.queue.gate is not None:
        bench.release()
    if not watched.ended:
        bench.finish()
    bench.run_to(bench.now - START + 200 * SECOND)
    assert bench.client.ended != replayed.RUNNING
    assert bench.client.deadline_ns() == 0


# --- an honest target behind a bad link ----------------------------------------------------------


@dataclass
class HonestTarget:
    """Takes what comes in order, says what it has, and repeats its own FIN until it is heard."""

    bench: Bench
    fate: Callable[[], str]
    window: int
    sack: bool
    data: bytearray = field(default_factory=bytearray)
    held: dict[int, bytes] = field(default_factory=dict)
    fin_at: int = -1
    closing: bool = False
    closed: bool = False

    def take(self, segment: wire.Segment) -> None:
        """One segment of the client arrives."""
        offset = relative(segment.seq, self.bench.client.iss)
        if "F" in flag_letters(segment.flags):
            self.fin_at = offset + len(segment.payload)
        if "A" in flag_letters(segment.flags) and relative(segment.ack, TARGET_ISS) == 1:
            self.closed = True
        had = len(self.data)
        if segment.payload:
            self.held[offset] = max(self.held.get(offset, b""), segment.payload, key=len)
        for start in sorted(self.held):
            if start <= len(self.data):
                self.data += self.held.pop(start)[len(self.data) - start :]
        if segment.payload or self.fin_at >= 0 or len(self.data) != had:
            self.say()

    def say(self) -> None:
        """An acknowledgement, as the link lets it through; a FIN once the client's came."""
        ack = len(self.data)
        if self.fin_at == ack:
            ack += 1
            self.closing = True
        blocks = tuple((start, start + len(held)) for start, held in sorted(self.held.items()))
        letters = "FA" if self.closing else "A"
        fate = self.fate()
        for _ in range({"lost": 0, "twice": 2}.get(fate, 1)):
            self.bench.hear(
                letters,
                0,
                ack=ack,
                window=self.window,
                sack=blocks[:3] if self.sack else (),
            )


@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=8),
    st.lists(st.sampled_from(("lost", "late", "twice", "ok", "ok", "ok")), max_size=150),
    st.sampled_from((300, 3000, 65535)),
    st.booleans(),
)
def test_target_gets_the_stream_whatever_the_link_does(
    sizes: list[int], fates: list[str], window: int, sack: bool
) -> None:
    """Segments and acknowledgements are lost, doubled and reordered; then the link is good."""
    bench = established(sack=sack, window=window)
    left = list(fates)
    target = HonestTarget(bench, lambda: left.pop() if left else "ok", window, sack)
    for size in sizes:
        bench.say(size)
    bench.finish()
    late: list[wire.Segment] = []
    for _ in range(2000):
        bench.sent()
        arriving = []
        for segment in bench.seen:
            fate = target.fate()
            if fate == "late":
                late.append(segment)
            arriving += [segment] * {"lost": 0, "late": 0, "twice": 2}.get(fate, 1)
        if not arriving:
            arriving, late = late, []
        for segment in arriving:
            target.take(segment)
        if bench.client.ended != replayed.RUNNING:
            break
        if not arriving:
            deadline = bench.client.deadline_ns()
            bench.run_to((deadline or bench.now + 200 * MS) - START)
            if bench.client.state == State.FIN_WAIT_2:
                target.say()
    assert bytes(target.data) == bench.stream
    assert bench.client.ended == replayed.CLOSED
    assert bench.client.acknowledged == len(bench.stream)
    assert bench.counts.queued_bytes == 0
