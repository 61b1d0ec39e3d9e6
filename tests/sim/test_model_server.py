"""The server model's TCP, segment by segment: what RFC 9293, 5961, 7323 and 2018 ask of it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from tests.sim.model import harness
from tests.sim.model.clock import MILLISECOND, SECOND, Clock
from tests.sim.model.config import ServerConfig
from tests.sim.model.connection import Connection
from tests.sim.model.server import Server
from tests.sim.model.wire import ACK, FIN, PSH, RST, SEQUENCE_MASK, SYN, Segment, decode, encode

CLIENT = bytes((192, 0, 2, 7))


class Quiet:
    """An application that reads nothing by itself and remembers how it ended."""

    def __init__(self) -> None:
        self.end: str | None = None

    def readable(self) -> None:
        pass

    def ended(self, how: str) -> None:
        self.end = how


class Dialogue:
    """Talks to a server in segments, with sequence numbers relative to both sides."""

    def __init__(self, config: ServerConfig | None = None, *, isn: int = 0xFFFFFFF0) -> None:
        plain = ServerConfig(window_scale=None, timestamps=False, sack=False)
        self.clock = Clock()
        self.out: list[bytes] = []
        self.isn = isn
        self.server_isn = 0
        self.applications: list[Quiet] = []
        self.server = Server(
            self.clock,
            Random(3),
            config or plain,
            frozenset((80,)),
            self.out.append,
            self.on_established,
        )

    def on_established(self, connection: object) -> Quiet:
        self.applications.append(Quiet())
        return self.applications[-1]

    def send(
        self,
        flags: int,
        seq: int = 1,
        ack: int = 1,
        payload: bytes = b"",
        adjust: Callable[[Segment], None] = lambda segment: None,
        port: int = 80,
    ) -> list[Segment]:
        """Send one segment; return the answers, relative, without waiting."""
        segment = Segment(
            CLIENT,
            4000,
            harness.TARGET_IPV4,
            port,
            (self.isn + seq) & SEQUENCE_MASK,
            (self.server_isn + ack) & SEQUENCE_MASK if flags & ACK else 0,
            flags,
            65_535,
            payload,
        )
        adjust(segment)
        self.server.receive(encode(segment))
        return self.answers()

    def answers(self) -> list[Segment]:
        segments = [decode(packet) for packet in self.out]
        self.out.clear()
        for segment in segments:
            if segment.flags & SYN:
                self.server_isn = segment.seq
            segment.seq = (segment.seq - self.server_isn) & SEQUENCE_MASK
            segment.ack = (segment.ack - self.isn) & SEQUENCE_MASK
        return segments

    def wait(self, delay_ns: int) -> list[Segment]:
        self.clock.run(self.clock.now_ns + delay_ns)
        return self.answers()

    def connect(self) -> None:
        (syn_ack,) = self.send(SYN, seq=0)
        assert (syn_ack.flags, syn_ack.ack) == (SYN | ACK, 1)
        assert self.send(ACK) == []

    @property
    def connection(self) -> Connection:
        return self.server.all_connections[-1]

    @property
    def state(self) -> str:
        return str(self.connection.state.value)


def flags_of(segments: list[Segment]) -> list[int]:
    return [segment.flags for segment in segments]


def test_closed_port_and_stray_segments_are_reset() -> None:
    """RFC 9293 3.10.7.1: the RST's numbers are those that the sender will accept."""
    dialogue = Dialogue()
    (answer,) = dialogue.send(SYN, seq=0, port=81)
    assert (answer.flags, answer.ack) == (RST | ACK, 1)
    (answer,) = dialogue.send(ACK, seq=5, ack=77)
    assert (answer.flags, answer.seq) == (RST, 77)
    (answer,) = dialogue.send(FIN, seq=5, payload=b"xyz")
    assert (answer.flags, answer.ack) == (RST | ACK, 9)
    assert dialogue.send(RST, seq=5) == []


def test_syn_ack_is_sent_again_with_backoff_and_given_up() -> None:
    """Five times, each after twice the time; also at once for a repeated SYN."""
    dialogue = Dialogue()
    dialogue.send(SYN, seq=0)
    assert flags_of(dialogue.send(SYN, seq=0)) == [SYN | ACK]
    assert flags_of(dialogue.wait(SECOND)) == [SYN | ACK]
    assert dialogue.wait(SECOND) == []
    assert flags_of(dialogue.wait(SECOND)) == [SYN | ACK]
    assert len(dialogue.wait(200 * SECOND)) == 3
    assert dialogue.state == "CLOSED" and dialogue.applications == []


def test_wrong_ack_in_syn_received_is_reset() -> None:
    """RFC 9293 3.10.7.4, fifth check, SYN-RECEIVED."""
    dialogue = Dialogue()
    dialogue.send(SYN, seq=0)
    (answer,) = dialogue.send(ACK, ack=2)
    assert (answer.flags, answer.seq, dialogue.state) == (RST, 2, "SYN_RECEIVED")


def test_data_out_of_order_across_the_wrap() -> None:
    """The sequence numbers wrap within the first bytes; early bytes wait."""
    dialogue = Dialogue()
    dialogue.connect()
    (answer,) = dialogue.send(ACK, seq=11, payload=b"later")
    assert answer.ack == 1
    (answer,) = dialogue.send(ACK | PSH, seq=1, payload=b"0123456789la")
    assert answer.ack == 16
    assert dialogue.connection.read() == b"0123456789later"
    assert dialogue.connection.violations == []


def test_half_close_by_the_client_then_last_ack() -> None:
    """CLOSE-WAIT can still send; LAST-ACK repeats its FIN; CLOSED answers with RST."""
    dialogue = Dialogue()
    dialogue.connect()
    assert [answer.ack for answer in dialogue.send(FIN | ACK, payload=b"abc")] == [5]
    assert dialogue.state == "CLOSE_WAIT"
    dialogue.connection.write(b"answer")
    assert [answer.payload for answer in dialogue.answers()] == [b"answer"]
    dialogue.connection.shutdown()
    assert flags_of(dialogue.answers()) == [FIN | ACK]
    assert dialogue.state == "LAST_ACK"
    (again,) = dialogue.wait(1100 * MILLISECOND)
    assert again.payload == b"answer" and again.flags & FIN
    assert dialogue.send(ACK, seq=5, ack=8) == []
    assert dialogue.state == "CLOSED"
    assert flags_of(dialogue.send(ACK, seq=5, ack=8)) == [RST]


def test_server_first_close_and_time_wait() -> None:
    """FIN-WAIT-1, -2, TIME-WAIT; a repeated FIN is acknowledged; then 2 MSL."""
    dialogue = Dialogue()
    dialogue.connect()
    dialogue.connection.shutdown()
    assert flags_of(dialogue.answers()) == [FIN | ACK]
    assert dialogue.state == "FIN_WAIT_1"
    dialogue.send(ACK, ack=2)
    assert dialogue.state == "FIN_WAIT_2"
    assert [answer.ack for answer in dialogue.send(ACK, ack=2, payload=b"late")] == [5]
    assert [answer.ack for answer in dialogue.send(FIN | ACK, seq=5, ack=2)] == [6]
    assert dialogue.state == "TIME_WAIT"
    assert [answer.ack for answer in dialogue.send(FIN | ACK, seq=5, ack=2)] == [6]
    dialogue.wait(59 * SECOND)
    assert dialogue.state == "TIME_WAIT"
    dialogue.wait(2 * SECOND)
    assert dialogue.state == "CLOSED"


def test_simultaneous_close() -> None:
    """FINs cross: CLOSING, then TIME-WAIT."""
    dialogue = Dialogue()
    dialogue.connect()
    dialogue.connection.shutdown()
    dialogue.answers()
    dialogue.send(FIN | ACK)
    assert dialogue.state == "CLOSING"
    dialogue.send(ACK, seq=2, ack=2)
    assert dialogue.state == "TIME_WAIT"


@pytest.mark.parametrize(("step", "accepted"), [(-100, False), (100_000, True)])
def test_time_wait_takes_a_new_syn_only_when_it_is_newer(step: int, accepted: bool) -> None:
    """RFC 9293 3.6.1: a sequence number above the old ones makes a new connection."""
    dialogue = Dialogue()
    dialogue.connect()
    dialogue.connection.shutdown()
    dialogue.send(FIN | ACK, ack=2)
    answers = dialogue.send(SYN, seq=step)
    assert flags_of(answers) == ([SYN | ACK] if accepted else [ACK])
    assert len(dialogue.server.all_connections) == 1 + accepted


def test_time_wait_goes_by_timestamps_where_both_have_them() -> None:
    """RFC 6191: a newer timestamp is enough, an older one forbids."""
    dialogue = Dialogue(ServerConfig(sack=False))

    def stamp(value: int) -> Callable[[Segment], None]:
        def adjust(segment: Segment) -> None:
            echo = dialogue.connection._timestamp() if segment.flags & ACK else 0
            segment.timestamp = (value, echo)

        return adjust

    dialogue.send(SYN, seq=0, adjust=stamp(50))
    dialogue.send(ACK, adjust=stamp(51))
    dialogue.connection.shutdown()
    dialogue.send(FIN | ACK, ack=2, adjust=stamp(52))
    assert dialogue.state == "TIME_WAIT"
    assert flags_of(dialogue.send(SYN, seq=100_000, adjust=stamp(20)))[-1] == ACK
    assert flags_of(dialogue.send(SYN, seq=-100, adjust=stamp(60))) == [SYN | ACK]


def test_resets_count_only_with_the_exact_number() -> None:
    """RFC 5961 3.2: exact resets, in the window a challenge ACK, else nothing."""
    dialogue = Dialogue()
    dialogue.connect()
    assert dialogue.send(RST, seq=0) == []
    assert flags_of(dialogue.send(RST, seq=2)) == [ACK]
    assert dialogue.send(RST, seq=3) == []  # challenges are limited
    assert dialogue.state == "ESTABLISHED"
    assert dialogue.send(RST, seq=1) == []
    assert (dialogue.applications[0].end, dialogue.state) == ("reset", "CLOSED")


def test_syn_within_a_connection_gets_a_challenge_ack() -> None:
    """RFC 5961 4.2, whatever its number."""
    dialogue = Dialogue()
    dialogue.connect()
    (answer,) = dialogue.send(SYN, seq=500)
    assert (answer.flags, answer.ack, dialogue.state) == (ACK, 1, "ESTABLISHED")


def test_keep_alive_probes_are_answered() -> None:
    """Both kinds, without a byte and with one of garbage, and neither is a violation."""
    dialogue = Dialogue()
    dialogue.connect()
    assert [answer.ack for answer in dialogue.send(ACK, seq=0)] == [1]
    assert [answer.ack for answer in dialogue.send(ACK, seq=0, payload=b"\xff")] == [1]
    assert dialogue.connection.violations == [] and dialogue.connection.receiver.unread == 0


def test_window_closes_is_probed_and_opens() -> None:
    """A probe of one byte is refused while the window is zero; reading sends an update."""
    config = ServerConfig(window_scale=None, timestamps=False, sack=False, receive_buffer=10)
    dialogue = Dialogue(config)
    dialogue.connect()
    (answer,) = dialogue.send(ACK, payload=b"0123456789")
    assert (answer.ack, answer.window) == (11, 0)
    (answer,) = dialogue.send(ACK, seq=11, payload=b"x")
    assert (answer.ack, answer.window) == (11, 0)
    assert dialogue.connection.read(2) == b"01"
    assert dialogue.answers() == []  # two bytes are too few to tell (3.8.6.2.2)
    assert dialogue.connection.read(8) == b"23456789"
    assert [answer.window for answer in dialogue.answers()] == [10]
    assert dialogue.connection.violations == []
    dialogue.send(ACK, seq=11, payload=b"x" * 12)
    assert "beyond the announced window" in dialogue.connection.violations[0]
    assert dialogue.connection.read() == b"x" * 10


def test_server_respects_the_peers_window_and_probes_it() -> None:
    """Nothing beyond the window; one byte on the persist timer; all when it opens."""
    dialogue = Dialogue()
    dialogue.connect()

    def window(size: int) -> Callable[[Segment], None]:
        return lambda segment: setattr(segment, "window", size)

    dialogue.send(ACK, adjust=window(4))
    dialogue.connection.write(b"0123456789")
    assert [answer.payload for answer in dialogue.answers()] == [b"0123"]
    assert dialogue.send(ACK, ack=5, adjust=window(0)) == []
    probe = dialogue.wait(2 * SECOND)[0]
    assert probe.payload == b"4"
    opened = dialogue.send(ACK, ack=5, adjust=window(100))
    assert b"".join(answer.payload for answer in opened) == b"456789"


def test_server_retransmits_fast_and_on_time_out() -> None:
    """Three duplicate ACKs bring the first segment at once; else the timer does."""
    config = ServerConfig(mss=100, window_scale=None, timestamps=False, sack=False)
    dialogue = Dialogue(config)
    (syn_ack,) = dialogue.send(SYN, seq=0, adjust=lambda segment: setattr(segment, "mss", 100))
    assert syn_ack.mss == 100
    dialogue.send(ACK)
    dialogue.connection.write(bytes(500))
    assert [answer.seq for answer in dialogue.answers()] == [1, 101, 201, 301, 401]
    assert [dialogue.send(ACK) for _ in range(2)] == [[], []]
    assert [answer.seq for answer in dialogue.send(ACK)] == [1]
    assert [answer.seq for answer in dialogue.wait(1100 * MILLISECOND)] == [1]


def test_sack_blocks_newest_first_and_duplicates() -> None:
    """RFC 2018 section 4 and RFC 2883."""
    dialogue = Dialogue(ServerConfig(window_scale=None, timestamps=False))
    permit: Callable[[Segment], None] = lambda segment: setattr(  # noqa: E731
        segment, "sack_permitted", True
    )
    dialogue.send(SYN, seq=0, adjust=permit)
    dialogue.send(ACK)

    def blocks(answers: list[Segment]) -> list[tuple[int, int]]:
        isn = dialogue.isn
        return [
            ((left - isn) & SEQUENCE_MASK, (right - isn) & SEQUENCE_MASK)
            for left, right in answers[-1].sack_blocks
        ]

    assert blocks(dialogue.send(ACK, seq=11, payload=b"b" * 10)) == [(11, 21)]
    assert blocks(dialogue.send(ACK, seq=31, payload=b"d" * 10)) == [(31, 41), (11, 21)]
    assert blocks(dialogue.send(ACK, seq=11, payload=b"b" * 10)) == [
        (11, 21),
        (11, 21),
        (31, 41),
    ]
    assert blocks(dialogue.send(ACK, seq=21, payload=b"c" * 10)) == [(11, 41)]
    assert dialogue.send(ACK, seq=1, payload=b"a" * 10)[-1].ack == 41


def test_timestamps_are_strict() -> None:
    """Without the option a segment is dropped, an old one is refused, RFC 7323 3.2 and 5.3."""
    dialogue = Dialogue(ServerConfig(sack=False))

    def stamp(value: int, echo: int | None = None) -> Callable[[Segment], None]:
        def adjust(segment: Segment) -> None:
            segment.timestamp = (value, dialogue.connection._timestamp() if echo is None else echo)

        return adjust

    dialogue.send(SYN, seq=0, adjust=lambda segment: setattr(segment, "timestamp", (50, 0)))
    dialogue.send(ACK, adjust=stamp(51))
    assert dialogue.send(ACK, payload=b"abc") == []
    assert "no timestamp" in dialogue.connection.violations[0]
    (answer,) = dialogue.send(ACK, payload=b"abc", adjust=stamp(49))
    assert answer.ack == 1
    (answer,) = dialogue.send(ACK, payload=b"abc", adjust=stamp(52))
    assert answer.ack == 4 and answer.timestamp is not None and answer.timestamp[0:] != (0, 0)
    assert answer.timestamp[1] == 52
    assert len(dialogue.connection.violations) == 1
    dialogue.send(ACK, seq=4, adjust=stamp(53, echo=12345))
    assert "never sent" in dialogue.connection.violations[1]


@pytest.mark.parametrize(
    ("flags", "seq", "ack", "payload", "problem"),
    [
        (ACK, 4, 2, b"", "acknowledged 2, sent up to 1"),
        (ACK, 1, 1, b"x" * 1461, "exceed the MSS"),
        (ACK, 1, 1, b"cba", "sent again differ"),
        (FIN, 4, 1, b"", "neither ACK, SYN nor RST"),
        (SYN | ACK, 0, 1, b"", "SYN-ACK from a client"),
    ],
)
def test_violations_are_noted(flags: int, seq: int, ack: int, payload: bytes, problem: str) -> None:
    """What no correct client sends is written down."""
    dialogue = Dialogue()
    dialogue.connect()
    dialogue.send(ACK, payload=b"abc")
    assert dialogue.connection.violations == []
    dialogue.send(flags, seq, ack, payload)
    assert any(problem in text for text in dialogue.connection.violations)


def test_full_close_resets_unread_and_later_data() -> None:
    """RFC 1122 4.2.2.13."""
    dialogue = Dialogue()
    dialogue.connect()
    dialogue.send(ACK, payload=b"unread")
    dialogue.connection.close()
    assert flags_of(dialogue.answers()) == [RST | ACK]
    dialogue = Dialogue()
    dialogue.connect()
    dialogue.connection.close()
    assert flags_of(dialogue.answers()) == [FIN | ACK]
    assert flags_of(dialogue.send(ACK, ack=2, payload=b"late")) == [RST | ACK]


def test_keep_alive_probes_only_while_nothing_is_outstanding() -> None:
    """An idle connection is probed below SND.NXT; one that waits for an ACK retransmits."""
    config = ServerConfig(
        window_scale=None, timestamps=False, sack=False, keep_alive_ns=5 * SECOND, push=False
    )
    dialogue = Dialogue(config)
    dialogue.connect()
    (probe,) = dialogue.wait(5 * SECOND)
    assert (probe.seq, probe.flags, probe.payload) == (0, ACK, b"")
    dialogue.send(ACK)
    dialogue.connection.write(b"x")
    sent = [*dialogue.answers(), *dialogue.wait(20 * SECOND)]
    assert len(sent) > 3 and {segment.payload for segment in sent} == {b"x"}
