"""A whole engine under any mixture of packets, answers and time: the accounts always close."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.engine.context import EngineConfig
from tests.sim.model import wire
from tests.unit.engine.rig import MS, SECOND
from tests.unit.engine.world import TARGET, TARGET_PORT, Answerer, Caller, World

PORTS = (40000, 40001, 40002)
ISNS = (0, 0x1000, 0xFFFFFFF0)
TEXT = "".join(chr(97 + index % 26) for index in range(400))

CLIENT_EVENTS = st.tuples(
    st.sampled_from(("syn", "ack", "data", "data", "data", "fin", "rst", "again")),
    st.integers(0, 2),  # which client
    st.one_of(st.integers(-2, 300), st.just(70_000)),  # where
    st.integers(1, 60),  # how much
    st.integers(0, 200),  # seen of the server
)
TARGET_EVENTS = st.one_of(
    st.tuples(st.just("settle")),
    st.tuples(st.just("step")),
    st.tuples(st.just("lose")),
    st.tuples(
        st.just("answer"),
        st.integers(0, 2),
        st.integers(0, 63),
        st.integers(-70_000, 70_000),
        st.integers(-300, 300),
        st.integers(0, 100),
    ),
)
TIME_EVENTS = st.tuples(
    st.just("pass"), st.sampled_from((0, 1, MS, 30 * MS, SECOND, 5 * SECOND, 60 * SECOND))
)
EVENTS = st.lists(st.one_of(CLIENT_EVENTS, CLIENT_EVENTS, TARGET_EVENTS, TIME_EVENTS), max_size=50)


@dataclass
class Play:
    """A world with three clients and a target."""

    world: World
    target: Answerer
    callers: list[Caller]

    def do(self, event: tuple[object, ...]) -> None:
        """One event; then everything must add up."""
        kind = event[0]
        if kind == "pass":
            self.world.run_to(self.world.now + event[1])  # type: ignore[operator]
        elif kind == "settle":
            self.target.settle()
        elif kind == "step":
            self.target.step()
        elif kind == "lose":
            self.world.sent()
        elif kind == "answer":
            self.stray(*event[1:])  # type: ignore[arg-type]
        else:
            self.client(*event)  # type: ignore[arg-type]
        self.world.check()

    def stray(self, which: int, flags: int, seq: int, ack: int, size: int) -> None:
        """Any segment of the target, near what it has sent."""
        caller = self.callers[which].blank
        iss = 0
        for session in self.world.sessions():
            if session.mapped_port == caller.source_port:
                iss = session.replayed.iss  # type: ignore[attr-defined]
        self.world.answer(
            wire.Segment(
                TARGET,
                TARGET_PORT,
                caller.source,
                caller.source_port,
                (self.target.isn + 1 + seq) & 0xFFFFFFFF,
                (iss + 1 + ack) & 0xFFFFFFFF,
                flags & ~wire.URG,
                1000,
                bytes(size),
            )
        )

    def client(self, kind: str, which: int, at: int, size: int, seen: int) -> None:
        """Any packet of a client, near what it has sent."""
        caller = self.callers[which]
        if kind == "syn":
            caller.isn = ISNS[at % 3]
            caller.syn(TEXT[:size].encode() if at % 5 == 0 else b"")
        elif kind == "ack":
            caller.give("A", at=at, seen=seen)
        elif kind == "data":
            caller.give("PA", at=at, payload=(TEXT * 3)[:size].encode(), seen=seen)
        elif kind == "fin":
            caller.give("FA", at=at, seen=seen)
        elif kind == "rst":
            caller.give("RA" if seen % 2 else "R", at=at, seen=seen)
        elif caller.last:
            caller.again()


def play(config: EngineConfig, copies: int = 1, ahead: int = 64, acks: bool = False) -> Play:
    """A fresh world; so many sessions are opened ahead, `acks`: their clients can be told."""
    world = World(config, copies=copies)
    world.engine.ahead_most = ahead
    if acks:
        world.engine.note_acks(True, 0)
    return Play(world, Answerer(world, "reply"), [Caller(world, port) for port in PORTS])


CONFIGS = st.builds(
    EngineConfig,
    answer_timeout_ns=st.sampled_from((2 * SECOND, 600 * SECOND)),
    idle_timeout_ns=st.sampled_from((10 * SECOND, 720 * SECOND)),
    hole_timeout_ns=st.just(4 * SECOND),
    linger_ns=st.sampled_from((0, SECOND)),
    rtt_ns=st.sampled_from((0, 0, 20 * MS)),
    wait_for_answers=st.booleans(),
    full_sessions_only=st.booleans(),
    max_sessions=st.sampled_from((0, 0, 2)),
)


@given(
    EVENTS,
    CONFIGS,
    st.sampled_from((1, 1, 2)),
    st.sampled_from((0, 0, 300)),
    st.sampled_from((64, 1, 0)),
    st.booleans(),
)
def test_accounts_close_whatever_happens(
    events: list[tuple[object, ...]],
    config: EngineConfig,
    copies: int,
    most_queued: int,
    ahead: int,
    acks: bool,
) -> None:
    """No exception, no session without an outcome, no packet without a reason, nothing held."""
    stage = play(config, copies, ahead, acks)
    stage.world.engine.max_queued_bytes = most_queued
    for event in events:
        stage.do(event)
    stage.world.engine.close_all()
    stage.world.check_ended()


@given(EVENTS, CONFIGS)
def test_every_session_ends_by_itself(
    events: list[tuple[object, ...]], config: EngineConfig
) -> None:
    """Left alone, each session meets one of its time-outs, and no timer goes round and round."""
    stage = play(config)
    for event in events:
        stage.do(event)
    looks = stage.world.run_to(stage.world.now + 800 * SECOND)
    assert looks < 1000
    stage.world.check_ended()


@given(
    st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
    st.sampled_from((1, 2)),
)
def test_target_reads_what_the_client_sent(
    requests: list[tuple[int, bool]], random: object, copies: int
) -> None:
    """Segments of each turn in any order and some of them twice; a polite target."""
    world = World(copies=copies)
    target = Answerer(world, "answer")
    caller = Caller(world)
    caller.connect()
    said = ""
    for number, (size, twice) in enumerate(requests):
        pieces = [(len(said) + index, chr(97 + (number + index) % 26)) for index in range(size)]
        said += "".join(text for _, text in pieces)
        order = pieces + (pieces if twice else [])
        random.shuffle(order)  # type: ignore[attr-defined]
        for at, text in order:
            caller.give("PA", at=at, payload=text.encode())
        target.settle()
        session = world.sessions()[0]
        caller.seen = session.replayed.received
        world.run_to(world.now + SECOND)
        target.settle()
    caller.said = said.encode()
    caller.fin()
    world.run_to(world.now + 2 * SECOND)
    target.settle()
    assert target.texts() == [said] * copies
    assert world.outcomes() == {"REPLAYED": copies}
    world.check_ended()
