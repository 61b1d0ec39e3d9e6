"""Real clients among SYNs of nobody, in any order: accounts close, and no client loses a byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.outcome import Outcome
from tests.unit.engine.rig import MS, SECOND
from tests.unit.engine.world import Answerer, Caller, Target, World

CLIENTS = 4
#: What each client does, in this order; Hypothesis interleaves them and puts other things between.
STEPS = ("syn", "ack", "data", "data", "fin")
BETWEEN = st.one_of(
    st.tuples(st.just("attack"), st.integers(1, 400)),
    st.tuples(st.just("pass"), st.sampled_from((MS, 40 * MS, SECOND, 4 * SECOND))),
    st.tuples(st.just("again"), st.integers(0, CLIENTS - 1)),
    st.tuples(st.just("acks"), st.booleans()),
    st.tuples(st.just("reset"), st.integers(0, 50)),
)


@st.composite
def plays(draw: st.DrawFn) -> list[tuple[str, int]]:
    """An interleaving of all clients' steps and of what happens between."""
    left = [number for number in range(CLIENTS) for _ in STEPS]
    order = draw(st.permutations(left))
    events: list[tuple[str, int]] = []
    for number in order:
        events += draw(st.lists(BETWEEN, max_size=2))
        events.append(("step", number))
    return events


class Play:
    """A world, its real clients, and attackers."""

    def __init__(self, ahead: int, most: int, copies: int, targets: int) -> None:
        every = tuple(Target(target_port=8080 + number) for number in range(targets))
        self.world = World(EngineConfig(), copies=copies, targets=every)
        self.world.engine.ahead_most = ahead
        self.world.engine.half_open.most = most
        self.target = Answerer(self.world, "reply")
        self.clients = [Caller(self.world, 50000 + 100 * n, isn=1 << n) for n in range(CLIENTS)]
        self.begun = [0] * CLIENTS
        self.attackers: list[Caller] = []
        self.attempts = 0

    def do(self, event: tuple[str, int]) -> None:
        kind, value = event
        if kind == "step":
            self.step(value)
        elif kind == "attack":
            self.attack(value)
        elif kind == "pass":
            self.pass_time(value)
        elif kind == "acks":
            self.world.engine.note_acks(bool(value), self.world.engine.now_ns)
        elif kind == "reset" and self.attackers:
            self.attackers.pop(value % len(self.attackers)).give("R")
        elif kind == "again" and self.clients[value].last:
            self.clients[value].again()
        self.target.settle()
        self.world.check()

    def step(self, number: int) -> None:
        client = self.clients[number]
        what = STEPS[self.begun[number]]
        self.begun[number] += 1
        if what == "syn":
            client.syn()
        elif what == "ack":
            client.give("A")
        elif what == "data":
            client.say(f"client {number} turn {self.begun[number]}.")
        else:
            client.fin()

    def attack(self, count: int) -> None:
        """So many SYNs at once, a third of them from ports that attacked before."""
        for _ in range(count):
            self.attempts += 1
            number = self.attempts if self.attempts % 3 else self.attempts // 3
            caller = Caller(
                self.world, 1024 + number % 40000, isn=self.attempts * 1001,
                address=bytes((10, 200, number >> 8 & 255, number & 255)),
            )  # fmt: skip
            caller.syn()
            self.attackers = [*self.attackers[-50:], caller]

    def pass_time(self, nanoseconds: int) -> None:
        """In pieces, so that the target answers in time."""
        end = self.world.now + nanoseconds
        while self.world.now < end:
            self.world.run_to(min(end, self.world.now + 100 * MS))
            self.target.settle()


@given(
    plays(),
    st.sampled_from((0, 1, 3, 64)),
    st.sampled_from((100_000, 100_000, 200)),
    st.sampled_from((1, 1, 2)),
    st.sampled_from((1, 1, 2)),
)
def test_no_client_loses_a_byte(
    events: list[tuple[str, int]], ahead: int, most: int, copies: int, targets: int
) -> None:
    stage = Play(ahead, most, copies, targets)
    for event in events:
        stage.do(event)
    # Far beyond every wait of a handshake, and short of the idle time-out of what is open.
    stage.pass_time(20 * SECOND)
    stage.world.run_to(stage.world.now + 100 * SECOND)
    stage.target.settle()
    texts = stage.target.texts()
    for number in range(CLIENTS):
        whole = f"client {number} turn 3.client {number} turn 4."
        assert texts.count(whole) == copies * targets, (number, texts)
    stage.world.engine.close_all()
    stage.world.check_ended()
    counts = stage.world.counts
    incomplete = counts.outcome_counts()[Outcome.HANDSHAKE_INCOMPLETE]
    assert counts.waiting == 0 == len(stage.world.engine.half_open)
    assert counts.sessions - incomplete <= (CLIENTS + 64 + 513) * copies * targets
    assert counts.bytes_captured == counts.bytes_delivered
