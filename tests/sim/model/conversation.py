"""Abstract conversations of a client with the online server, made at random or by Hypothesis.

A `Plan` says what was said, who closed and how, and how the client's TCP looked. From it follow
the captured packets (`capture.render`), the bytes and the ending that the target's application
must see (`expected_*`), and what the target's application does (`script_for`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise
from random import Random

from hypothesis import strategies

from .app import Answer, Finish, Script
from .clock import MICROSECOND, MILLISECOND, SECOND
from .config import near_wrap

ONLINE_IPV4 = bytes((10, 0, 0, 1))
ONLINE_IPV6 = bytes.fromhex("fd000000000000000000000000000001")
ONLINE_PORT = 80


class Ending(Enum):
    """Who ended the conversation, and how."""

    CLIENT_FIN = "client fin"  # after the last answer; the server follows
    HALF_CLOSE = "half close"  # the FIN follows the last request, the last answer follows that
    SIMULTANEOUS = "simultaneous"  # both FINs cross
    SERVER_FIN = "server fin"  # the server after its last answer, then the client
    SERVER_FIN_LATE_DATA = "server fin, late data"  # the client still sends, then closes
    CLIENT_RESET = "client reset"
    SERVER_FIN_CLIENT_RESET = "server fin, client reset"
    FIN_THEN_RESET = "fin then reset"  # full close by a client that is still being answered
    OPEN = "open"  # still open when the capture ends


SERVER_FIRST = frozenset(
    (
        Ending.SIMULTANEOUS,
        Ending.SERVER_FIN,
        Ending.SERVER_FIN_LATE_DATA,
        Ending.SERVER_FIN_CLIENT_RESET,
    )
)
_EXPECTED_ENDS: dict[Ending, frozenset[str | None]] = {
    Ending.CLIENT_FIN: frozenset(("fin",)),
    Ending.HALF_CLOSE: frozenset(("fin",)),
    Ending.SIMULTANEOUS: frozenset(("fin",)),
    Ending.SERVER_FIN: frozenset(("fin",)),
    Ending.SERVER_FIN_LATE_DATA: frozenset(("fin",)),
    Ending.CLIENT_RESET: frozenset(("reset",)),
    Ending.SERVER_FIN_CLIENT_RESET: frozenset(("reset",)),
    Ending.FIN_THEN_RESET: frozenset(("fin", "reset")),
    Ending.OPEN: frozenset((None,)),
}


@dataclass(frozen=True, slots=True)
class Turn:
    """One request and its answer online. Bytes and nanoseconds."""

    request: int
    answer: int  # 0: the server does not answer this one
    think_ns: int = MILLISECOND  # between what went before and the request
    service_ns: int = MILLISECOND  # between the request and the answer
    seen: int = -1  # bytes of the answer acknowledged when the client went on; -1: all

    @property
    def answer_seen(self) -> int:
        """Bytes of the answer that the client had acknowledged when it went on."""
        return self.answer if self.seen < 0 else min(self.seen, self.answer)


@dataclass(frozen=True, slots=True)
class ClientTcp:
    """How the real client's TCP and the online server's looked in the capture."""

    mss: int | None = 1460
    window_scale: int | None = 7
    sack: bool = True
    timestamps: bool = True
    online_timestamps: bool = True  # whether the online server agreed to them
    window: int = 501  # as on the wire after the handshake
    segment_size: int = 1460  # largest payload captured; above the MSS where GRO joined them
    fast_open: bool = False  # data on the SYN (RFC 7413)
    fin_with_data: bool = False
    noise: float = 0.0  # probability per packet of a copy, an overlap, a swap, a probe
    fill_checksums: bool = True  # False: as captured from a local peer


@dataclass(frozen=True, slots=True)
class Plan:
    """One conversation. Addresses are 4 or 16 bytes; `seed` makes content and timing."""

    seed: int
    client: bytes
    client_port: int
    turns: tuple[Turn, ...]
    ending: Ending = Ending.CLIENT_FIN
    greeting: int = 0  # bytes that the server sends first
    late: int = 0  # bytes the client sends after the server's FIN
    start_ns: int = 0
    rtt_ns: int = MILLISECOND
    isn: int = 1_000_000
    server_isn: int = 2_000_000
    tcp: ClientTcp = ClientTcp()
    midstream: bool = False  # captured without the handshake

    @property
    def server(self) -> bytes:
        """The online server's address, of the client's family."""
        return ONLINE_IPV4 if len(self.client) == 4 else ONLINE_IPV6

    @property
    def request_bytes(self) -> int:
        """All bytes the client sends."""
        return sum(turn.request for turn in self.turns) + self.late

    @property
    def expected_data(self) -> bytes:
        """The bytes that the application has to read, online and at the target."""
        return Random(self.seed).randbytes(self.request_bytes)

    @property
    def expected_ends(self) -> frozenset[str | None]:
        """How the application may see the connection end."""
        return _EXPECTED_ENDS[self.ending]

    @property
    def answers_online(self) -> tuple[int, ...]:
        """Bytes the server has sent before turn k (index k), all of them at the last index."""
        totals = [self.greeting]
        for turn in self.turns:
            totals.append(totals[-1] + turn.answer)
        return tuple(totals)


@dataclass(frozen=True, slots=True)
class TargetHabits:
    """How the target's application differs from the online one."""

    answer_factors: tuple[float, ...] = (1.0,)  # one is chosen for each answer; at least 1 byte
    service_ns: tuple[int, int] = (0, 5 * MILLISECOND)  # from, to
    pieces: int = 1  # an answer is written in up to so many pieces
    piece_gap_ns: int = 0  # up to so long between them
    slow_reader: bool = False
    receive_budget_ns: int = 200 * MILLISECOND  # what a slow reader takes, its window wide


SAME_HABITS = TargetHabits()


def random_habits(random: Random) -> TargetHabits:
    """Return a target that may be slower, shorter, longer and slow to read."""
    return TargetHabits(
        answer_factors=random.choice(((1.0,), (1.0,), (0.3, 1.0), (1.0, 2.5), (0.1, 1.0, 9.0))),
        service_ns=(0, random.choice((0, MILLISECOND, 50 * MILLISECOND))),
        pieces=random.choice((1, 1, 2, 5)),
        piece_gap_ns=random.choice((0, MILLISECOND, 20 * MILLISECOND)),
        slow_reader=random.random() < 0.2,
    )


def script_for(plan: Plan, random: Random, habits: TargetHabits = SAME_HABITS) -> Script:
    """Return what the target's application does when `plan` is replayed to it."""
    answers = []
    if plan.greeting and not plan.midstream:
        answers.append(_answer(0, plan.greeting, random, habits))
    read = 0
    for turn in plan.turns:
        read += turn.request
        last = turn is plan.turns[-1]
        if turn.answer or last:
            answer = _answer(read, turn.answer, random, habits)
            if last and plan.ending in (Ending.HALF_CLOSE, Ending.FIN_THEN_RESET):
                answer = replace(answer, after_fin=True)
            answers.append(answer)
    finish = Finish.AFTER_LAST_ANSWER if plan.ending in SERVER_FIRST else Finish.ON_CLIENT_FIN
    script = Script(tuple(answers), finish)
    if habits.slow_reader and plan.request_bytes:
        reads = random.randint(1, 20)
        return replace(
            script,
            read_chunk=-(-plan.request_bytes // reads),
            read_interval_ns=random.randrange(1, habits.receive_budget_ns // (reads + 1)),
        )
    return script


def _answer(after_bytes: int, length: int, random: Random, habits: TargetHabits) -> Answer:
    if not length:
        return Answer(after_bytes, ())
    length = max(1, int(length * random.choice(habits.answer_factors)))
    count = min(random.randint(1, habits.pieces), length)
    cuts = sorted(random.sample(range(1, length), count - 1)) if count > 1 else []
    pieces: list[tuple[int, int]] = []
    for start, end in pairwise((0, *cuts, length)):
        if pieces:
            delay_ns = random.randint(0, habits.piece_gap_ns)
        else:
            delay_ns = random.randint(*habits.service_ns)
        pieces.append((delay_ns, end - start))
    return Answer(after_bytes, tuple(pieces))


def random_size(random: Random, largest: int) -> int:
    """Return a size of 1 to `largest` bytes, small ones and the edges of segments more often."""
    size = random.choice(
        (
            1,
            random.randint(1, 100),
            random.randint(1, 3000),
            random.choice((535, 536, 1447, 1448, 1449, 1459, 1460, 1461, 2896, 2920)),
            random.randint(1, largest),
        )
    )
    return min(size, largest)


def random_tcp(random: Random) -> ClientTcp:
    """Return any client."""
    timestamps = random.random() < 0.6
    return ClientTcp(
        mss=random.choice((None, 536, 1220, 1400, 1460, 1460, 8960)),
        window_scale=random.choice((None, 0, 7, 8, 14)),
        sack=random.random() < 0.7,
        timestamps=timestamps,
        online_timestamps=timestamps and random.random() < 0.9,
        window=random.choice((1, 229, 501, 29_200, 65_535)),
        segment_size=random.choice((1, 100, 536, 1448, 1460, 8948, 32_000, 65_000)),
        fast_open=random.random() < 0.05,
        fin_with_data=random.random() < 0.3,
        noise=random.choice((0.0, 0.0, 0.1, 0.4)),
        fill_checksums=random.random() < 0.8,
    )


def random_turn(random: Random, largest: int) -> Turn:
    """Return a turn; some have no answer, or go on before the whole answer was seen."""
    answer = 0 if random.random() < 0.1 else random_size(random, largest)
    return Turn(
        request=random_size(random, largest),
        answer=answer,
        think_ns=random.choice((0, 100 * MICROSECOND, 5 * MILLISECOND, SECOND)),
        service_ns=random.choice((50 * MICROSECOND, MILLISECOND, 30 * MILLISECOND)),
        seen=random.randint(0, answer) if random.random() < 0.15 else -1,
    )


def random_plan(
    random: Random,
    *,
    client: bytes = bytes((192, 0, 2, 1)),
    client_port: int = 40_000,
    start_ns: int = 0,
    largest: int = 20_000,
) -> Plan:
    """Return any conversation; requests and answers are up to `largest` bytes each."""
    tcp = random_tcp(random)
    largest = min(largest, tcp.segment_size * 200)  # bounds the packets of one turn
    ending = random.choice(tuple(Ending))
    greeting = random_size(random, largest) if random.random() < 0.2 else 0
    return Plan(
        seed=random.getrandbits(48),
        client=client,
        client_port=client_port,
        turns=tuple(random_turn(random, largest) for _ in range(random.choice((0, 1, 1, 2, 3, 8)))),
        ending=ending,
        greeting=greeting,
        late=random_size(random, largest) if ending is Ending.SERVER_FIN_LATE_DATA else 0,
        start_ns=start_ns,
        rtt_ns=random.choice((50 * MICROSECOND, MILLISECOND, 40 * MILLISECOND)),
        isn=near_wrap(random),
        server_isn=near_wrap(random),
        tcp=replace(tcp, fast_open=False) if greeting else tcp,
    )


def random_address(random: Random, *, ipv6: bool) -> bytes:
    """Return a client's address."""
    if ipv6:
        return bytes.fromhex("fd01") + random.randbytes(14)
    return bytes((192, 168, random.randrange(256), random.randrange(1, 255)))


def random_workload(
    random: Random, count: int, *, largest: int = 20_000, ipv6: float = 0.3
) -> list[Plan]:
    """Return `count` conversations of different clients that begin within a second."""
    endpoints: set[tuple[bytes, int]] = set()
    plans: list[Plan] = []
    while len(plans) < count:
        endpoint = (
            random_address(random, ipv6=random.random() < ipv6),
            random.randrange(1024, 65_536),
        )
        if endpoint in endpoints:
            continue
        endpoints.add(endpoint)
        plans.append(
            random_plan(
                random,
                client=endpoint[0],
                client_port=endpoint[1],
                start_ns=random.randrange(SECOND),
                largest=largest,
            )
        )
    return plans


def turns(largest: int) -> strategies.SearchStrategy[Turn]:
    """Hypothesis: turns that shrink to one small request and answer."""
    durations = strategies.sampled_from((0, 100 * MICROSECOND, 5 * MILLISECOND, SECOND))
    return strategies.builds(
        Turn,
        request=strategies.integers(1, largest),
        answer=strategies.integers(0, largest),
        think_ns=durations,
        service_ns=durations,
        seen=strategies.one_of(strategies.just(-1), strategies.integers(0, largest)),
    )


def plans(largest: int = 3000, most_turns: int = 4) -> strategies.SearchStrategy[Plan]:
    """Hypothesis: conversations that shrink towards plain ones without noise."""
    numbers = strategies.one_of(
        strategies.integers(0, 0xFFFFFFFF), strategies.integers(0xFFFFFF00, 0xFFFFFFFF)
    )
    tcp = strategies.builds(
        ClientTcp,
        mss=strategies.sampled_from((1460, 536, None)),
        window_scale=strategies.sampled_from((7, 0, None, 14)),
        sack=strategies.booleans(),
        timestamps=strategies.booleans(),
        online_timestamps=strategies.booleans(),
        segment_size=strategies.sampled_from((1460, 65_000, 100, 33)),
        fin_with_data=strategies.booleans(),
        noise=strategies.sampled_from((0.0, 0.2, 0.5)),
    )
    return strategies.builds(
        Plan,
        seed=strategies.integers(0, 1 << 32),
        client=strategies.sampled_from((bytes((192, 0, 2, 1)), bytes.fromhex("fd" * 16))),
        client_port=strategies.integers(1024, 65_535),
        turns=strategies.lists(turns(largest), max_size=most_turns).map(tuple),
        ending=strategies.sampled_from(Ending),
        greeting=strategies.sampled_from((0, 0, 1, largest)),
        rtt_ns=strategies.sampled_from((MILLISECOND, 50 * MICROSECOND, 40 * MILLISECOND)),
        isn=numbers,
        server_isn=numbers,
        tcp=tcp,
    ).map(with_late_data)


def with_late_data(plan: Plan) -> Plan:
    """Give a plan that ends in late data some of it."""
    if plan.ending is Ending.SERVER_FIN_LATE_DATA:
        return replace(plan, late=1 + plan.seed % 3000)
    return plan
