"""Connections followed without keeping their bytes: what was there, what is missing."""

from __future__ import annotations

import itertools
import random

import pytest

from tcpcopy.recorded import guess
from tcpcopy.recorded.flows import Flow, FlowTable, Side
from tests.lab import capture_files as make
from tests.lab.capture_files import ACK, FIN, RST, SYN, tcp

CLIENT, SERVER = "198.51.100.7:40000", "10.0.0.1:80"
SECOND = 10**9


class Rig:
    """A table, what it gave up, and a clock."""

    def __init__(self, most: int = 1000) -> None:
        self.given: list[tuple[bytes, Flow]] = []
        self.table = FlowTable(lambda key, flow: self.given.append((key, flow)), most)
        self.now_ns = make.START_NS

    def feed(self, *packets: bytes, captured: int = 1 << 20) -> None:
        """Hand packets on, a millisecond apart, cut to `captured` bytes."""
        for packet in packets:
            self.now_ns += SECOND // 1000
            data = packet[:captured]
            assert self.table.packet(data, 0, len(data), len(packet), self.now_ns) == 0

    def finish(self) -> list[Flow]:
        """All flows."""
        self.table.finish()
        return [flow for _, flow in self.given]

    def sides(self) -> tuple[Side, Side]:
        """Client and server of the only flow; 10.0.0.1 is the lower one."""
        (flow,) = self.finish()
        return flow.high, flow.low


def segment(payload: bytes, seq: int, flags: int = ACK) -> bytes:
    """A segment of the client."""
    return tcp(CLIENT, SERVER, flags, payload, seq=seq)


@pytest.mark.parametrize(
    ("client", "server"),
    [
        (CLIENT, SERVER),
        ("[2001:db8::7]:40000", "[2001:db8::1]:80"),
        ("10.0.0.1:90", "10.0.0.1:80"),
    ],
)
def test_a_whole_conversation(client: str, server: str) -> None:
    rig = Rig()
    packets = make.conversation(client, server)
    rig.feed(*packets)
    sent, got = rig.sides()
    assert (sent.packets, got.packets) == (5, 3)
    assert (sent.bytes, got.bytes) == (18, 19)
    assert (sent.has_syn, sent.has_syn_ack, sent.has_fin) == (True, False, True)
    assert (got.has_syn, got.has_syn_ack, got.has_fin) == (False, True, True)
    assert not sent.misses_bytes() and not got.misses_bytes()
    (key, flow), *_ = rig.given
    assert len(key) == (12 if "." in client else 36)
    assert key[-2:] == int(client.rpartition(":")[2]).to_bytes(2, "big")
    assert flow.has_ended()
    assert flow.last_ns - flow.first_ns == 7 * SECOND // 1000


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_any_order_of_segments(order: tuple[int, ...]) -> None:
    """Bytes are counted once, and nothing is missing at the end."""
    pieces = [segment(b"x" * 10, 101 + 10 * i) for i in range(4)]
    rig = Rig()
    rig.feed(segment(b"", 100, SYN), *[pieces[i] for i in order], *pieces[1:3])
    sent, _ = rig.sides()
    assert sent.bytes == 40
    assert not sent.misses_bytes()


def test_many_overlapping_segments_in_random_order() -> None:
    chance = random.Random(7)
    for _ in range(50):
        cuts = sorted(chance.sample(range(1, 2000), 30))
        pieces = [(a, b) for a, b in itertools.pairwise([0, *cuts, 2000])]
        pieces += [(chance.randrange(1500), chance.randrange(1501, 2000)) for _ in range(5)]
        chance.shuffle(pieces)
        rig = Rig()
        base = 0xFFFFFFFF - 700  # the numbers wrap on the way
        rig.feed(segment(b"", base - 1, SYN))
        rig.feed(*[segment(bytes(b - a), base + a) for a, b in pieces])
        sent, _ = rig.sides()
        assert (sent.bytes, sent.misses_bytes()) == (2000, False)


def test_what_is_missing() -> None:
    opening = [segment(b"", 100, SYN), segment(b"a" * 10, 101)]
    for more, missing in [
        ([], False),
        ([segment(b"b", 120)], True),  # a hole
        ([segment(b"", 111, ACK | FIN)], False),
        ([segment(b"", 120, ACK | FIN)], True),  # its end is further on
        ([tcp(SERVER, CLIENT, ACK, ack=111)], False),
        ([tcp(SERVER, CLIENT, ACK, ack=112)], True),  # the server had more
        ([segment(b"", 111, ACK | FIN), tcp(SERVER, CLIENT, ACK, ack=112)], False),
        ([segment(b"", 111, ACK | FIN), tcp(SERVER, CLIENT, ACK, ack=113)], True),
        ([tcp(SERVER, CLIENT, RST | ACK, ack=5000)], False),  # resets may say anything
        ([segment(b"far off", 0x70000000)], False),
    ]:
        rig = Rig()
        rig.feed(*opening, *more)
        assert rig.sides()[0].misses_bytes() == missing, more


def test_cut_payload() -> None:
    rig = Rig()
    rig.feed(segment(b"", 100, SYN), segment(b"a" * 500, 101), captured=96)
    sent, _ = rig.sides()
    assert (sent.bytes, sent.cut, sent.misses_bytes()) == (500, 444, True)


def test_ports_used_again() -> None:
    rig = Rig()
    rig.feed(*make.conversation(isn=1000), *make.conversation(isn=900_000))
    assert [flow.high.bytes for flow in rig.finish()] == [18, 18]


def test_syn_sent_again_is_the_same_connection() -> None:
    packets = make.conversation()
    rig = Rig()
    rig.feed(packets[0], packets[0], *packets[1:])
    assert len(rig.finish()) == 1


def test_connection_that_was_open_before() -> None:
    """A SYN with the same ports later on is another one."""
    packets = make.conversation()
    rig = Rig()
    rig.feed(packets[3], packets[4], *packets)
    assert [flow.high.has_syn for flow in rig.finish()] == [False, True]


def test_udp() -> None:
    rig = Rig()
    question = bytes.fromhex("123401000001000000000000") + b"\3www\0\0\1\0\1"
    rig.feed(
        make.udp("198.51.100.7:5353", "10.0.0.1:53", question),
        make.udp("10.0.0.1:53", "198.51.100.7:5353", question + b"more"),
        make.udp("[2001:db8::7]:5000", "[2001:db8::1]:6000", b"abc"),
        make.ip("198.51.100.7", "10.0.0.1", 17, b"\0\1\0\1"),  # too short
        make.ip("198.51.100.7", "10.0.0.1", 1, bytes(20)),
    )
    assert (rig.table.udp_packets, rig.table.other) == (3, 2)
    dns, other = rig.finish()
    assert dns.is_udp and not dns.first_from_low
    assert (dns.high.bytes, dns.low.bytes) == (len(question), len(question) + 4)
    assert guess.NAMES[dns.high.guessed] == "DNS"
    assert (other.high.bytes, other.low.packets) == (3, 0)


def test_udp_length_that_cannot_be() -> None:
    rig = Rig()
    for length in (0, 7, 8, 60000):
        body = b"\0\5\0\6" + length.to_bytes(2, "big") + b"\0\0abc"
        rig.feed(make.ip("198.51.100.7", "10.0.0.1", 17, body))
    (flow,) = rig.finish()
    assert (flow.high.bytes, flow.high.cut) == (60000 - 8, 60000 - 8 - 3)


def test_what_is_neither() -> None:
    rig = Rig()
    rig.feed(
        make.ip("198.51.100.7", "10.0.0.1", 6, bytes(30), fragment=0x2000),
        make.ip("198.51.100.7", "10.0.0.1", 6, bytes(10)),
        b"\x4f" + segment(b"", 1)[1:30],
    )
    assert (rig.table.fragments, rig.table.bad, rig.table.tcp_packets) == (1, 2, 0)
    assert rig.finish() == []


def client(number: int) -> str:
    """An address of its own for each connection."""
    return f"198.51.{number >> 8}.{number & 255}:40000"


def test_full_table_refuses_and_counts() -> None:
    rig = Rig(most=10)
    for number in range(15):
        rig.feed(tcp(client(number), SERVER, SYN))
    assert rig.table.refused == 5
    assert len(rig.finish()) == 10


def test_what_has_ended_makes_room() -> None:
    """But only when nothing late can come any more."""
    rig = Rig(most=10)
    for number in range(10):
        rig.feed(*make.conversation(client(number)))
    rig.feed(tcp(client(10), SERVER, SYN))
    assert rig.table.refused == 1
    rig.table.refused = 100_000  # a full table is swept every so often
    rig.now_ns += 31 * SECOND
    rig.feed(tcp(client(11), SERVER, SYN))
    assert rig.table.refused == 100_000
    assert (len(rig.given), len(rig.table.tcp)) == (10, 1)
    assert len(rig.finish()) == 11


def test_each_flow_is_given_once() -> None:
    rig = Rig(most=20)
    chance = random.Random(3)
    for _ in range(3000):
        rig.now_ns += chance.randrange(SECOND)
        rig.feed(*make.conversation(client(chance.randrange(60)), isn=chance.randrange(1 << 32)))
    followed = sum(flow.low.packets + flow.high.packets for flow in rig.finish())
    assert followed + rig.table.refused == 8 * 3000
    assert rig.table.tcp == {} and rig.table.udp == {}
