"""Intercept's part of a probe, over a real relay connection on loopback."""

from __future__ import annotations

import os
import select
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tcpcopy.capture.tap import Sighting
from tcpcopy.doctor.line import RelayLine
from tcpcopy.packet.batch import PacketBatch, PacketSink
from tcpcopy.packet.flags import ACK, RST, SYN
from tcpcopy.relay.classic import RelayFault
from tcpcopy.relay.desk import ProbeDesk, as_list, summed_up, without_details
from tcpcopy.relay.native import RelayMode, RelayTerms
from tcpcopy.relay.probing import (
    RESET,
    SYN_ACK,
    Flow,
    Report,
    Seen,
    encode_probe,
    encode_report,
    read_report,
)
from tcpcopy.relay.router import AnswerRouter
from tcpcopy.relay.server import RelayServer

TARGET, MAPPED = b"\x0a\0\0\2", b"\x3e\x87\xc8\1"
FLOW = Flow(TARGET, 8080, MAPPED, 40000)
NONE = Flow(b"\x7f\0\0\1", 1, b"\x7f\0\0\2", 2)  # a flow that nobody has
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="packet sockets need root")


def answer(flags: int, port: int = 40000, device: str = "eth0", leaves: bool = False) -> Sighting:
    batch = PacketBatch(PacketSink(), capacity=2)
    batch.tcp(TARGET, 8080, MAPPED, port, 1, 2, flags, 0, 0, 0, 0, b"", b"", 0, 0)
    return Sighting(device, leaves, batch.packet(0))


def test_what_was_seen_is_summed_up() -> None:
    """By kind, device and direction; other connections are left out."""
    sightings = [
        answer(SYN | ACK),
        answer(SYN | ACK),
        answer(SYN | ACK, leaves=True),
        answer(RST, device="eth1"),
        answer(SYN | ACK, port=41000),
        Sighting("eth0", False, b"junk"),
    ]
    found = set(as_list(Counter(summed_up(sightings, FLOW))))
    assert found == {
        Seen(SYN_ACK, "10.0.0.2", "62.135.200.1", "eth0", False, 2),
        Seen(SYN_ACK, "10.0.0.2", "62.135.200.1", "eth0", True, 1),
        Seen(RESET, "10.0.0.2", "62.135.200.1", "eth1", False, 1),
    }


def desk() -> ProbeDesk:
    return ProbeDesk("tcp", (), lambda: Report(version="9", filter="tcp", received=5))


def test_junk_is_no_probe() -> None:
    assert desk().answer(1, b"junk", 0) is None


def open_soon(most: int) -> bool:
    """Whether at most so many descriptors are open, at once or when the closing ones are gone."""
    until = time.monotonic() + 5
    while len(os.listdir("/proc/self/fd")) > most:
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


@needs_root
def test_watches_are_bounded_and_let_go() -> None:
    """Ever new flows push out the oldest; what nobody asks about again is closed."""
    before = len(os.listdir("/proc/self/fd"))
    clerk = desk()
    for port in range(1, 30):
        flow = Flow(NONE.target, 1, NONE.mapped, port)
        body = clerk.answer(1, encode_probe(flow, watch=True), 0)
        assert body is not None and read_report(body).problem == ""
        assert len(os.listdir("/proc/self/fd")) <= before + 16  # half of them are being closed
    assert open_soon(before + 8)
    clerk.look(11_000_000_000)
    assert open_soon(before)


def test_a_flood_of_questions_costs_little() -> None:
    """Above a number a second each is answered, and nothing is done for it."""
    told = 0

    def state() -> Report:
        nonlocal told
        told += 1
        return Report()

    clerk = ProbeDesk("tcp", (), state)
    for _ in range(1000):
        body = clerk.answer(1, encode_probe(NONE, watch=False), 5)
    assert body is not None and "too often" in read_report(body).problem
    assert told == 32
    body = clerk.answer(1, encode_probe(NONE, watch=False), 1_000_000_010)
    assert body is not None and read_report(body).problem == ""


@needs_root
def test_the_last_question_ends_the_watch() -> None:
    before = len(os.listdir("/proc/self/fd"))
    clerk = desk()
    clerk.answer(1, encode_probe(NONE, watch=True), 0)
    clerk.answer(1, encode_probe(NONE, watch=False), 0)
    assert open_soon(before)


@needs_root
def test_a_filter_that_does_not_go_with_it_is_told() -> None:
    clerk = ProbeDesk("tcp and bogus words", (), Report)
    body = clerk.answer(1, encode_probe(NONE, watch=True), 0)
    assert body is not None and "bogus" in read_report(body).problem
    clerk.close()


# --- over the relay -------------------------------------------------------------------------------


@pytest.fixture
def serve() -> Iterator[Callable[..., RelayServer]]:
    servers = []

    def start(terms: RelayTerms | None = None, *, with_desk: bool = True) -> RelayServer:
        server = RelayServer(AnswerRouter(), host="127.0.0.1", port=0, terms=terms)
        if with_desk:
            server.desk = desk()
        server.open()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


def drive(server: RelayServer, line: RelayLine, done: Callable[[], bool]) -> None:
    until = time.monotonic() + 5
    while not done():
        assert time.monotonic() < until
        server.service(time.monotonic_ns())
        line.service(time.monotonic_ns())
        fd, events = line.wants()
        if fd >= 0:
            poll = select.poll()
            poll.register(fd, events)
            poll.register(server.fileno(), select.POLLIN)
            poll.poll(5)


def connect(server: RelayServer, terms: RelayTerms | None = None) -> RelayLine:
    line = RelayLine("127.0.0.1", server.port, terms or RelayTerms())
    line.start(time.monotonic_ns())
    drive(server, line, lambda: line.is_decided)
    return line


@pytest.mark.parametrize("with_desk", [True, False])
def test_a_question_is_answered(serve: Callable[..., RelayServer], with_desk: bool) -> None:
    """Always: also where there is nothing to say."""
    server = serve(with_desk=with_desk)
    line = connect(server)
    assert line.is_up and line.is_native and line.takes_probes
    for count in (1, 2):
        line.ask(NONE, watch=count == 1)
        drive(server, line, lambda count=count: len(line.reports) == count)  # type: ignore[misc]
    assert line.reports[-1].filter == ("tcp" if with_desk else "")
    line.close()


def test_a_probe_is_a_peer_as_any(serve: Callable[..., RelayServer]) -> None:
    """Answers to what it announced come to it."""
    server = serve()
    line = connect(server)
    line.announce(FLOW)
    drive(server, line, lambda: server.router.sessions == 1)
    packet = answer(SYN | ACK).data
    server.router.packet(packet, 0, len(packet), len(packet), 1)
    server.flush()
    drive(server, line, lambda: bool(line.answers))
    assert line.answers[0].kind == SYN_ACK
    assert (line.answers[0].source, line.answers[0].destination) == (TARGET, MAPPED)
    line.close()
    drive(server, line, lambda: server.connections == 0)


def test_classic_intercept(serve: Callable[..., RelayServer]) -> None:
    """It says nothing, and is not asked."""
    server = serve(RelayTerms(RelayMode.CLASSIC))
    line = connect(server)
    assert line.is_up and not line.is_native and not line.takes_probes
    line.ask(NONE, watch=True)
    assert line.wants()[1] == select.POLLIN
    line.close()


@pytest.mark.parametrize(
    ("theirs", "ours", "fault", "problem"),
    [
        (
            RelayTerms(secret=b"a" * 32),
            RelayTerms(secret=b"b" * 32),
            RelayFault.SECRET_WRONG,
            "the secret is wrong",
        ),
        (RelayTerms(secret=b"a" * 32), RelayTerms(), RelayFault.SECRET_MISSING, "wants a secret"),
        (RelayTerms(), RelayTerms(secret=b"b" * 32), RelayFault.SECRET_MISSING, "has no secret"),
        (
            RelayTerms(RelayMode.CLASSIC),
            RelayTerms(RelayMode.NATIVE),
            RelayFault.CLASSIC,
            "speaks the classic relay only",
        ),
    ],
)
def test_terms_that_do_not_fit(
    serve: Callable[..., RelayServer],
    theirs: RelayTerms,
    ours: RelayTerms,
    fault: RelayFault,
    problem: str,
) -> None:
    line = connect(serve(theirs), ours)
    assert not line.is_up
    assert (line.fault, line.was_reached) == (fault, True)
    assert problem in line.problem


def test_nobody_listens(serve: Callable[..., RelayServer]) -> None:
    server = serve()
    line = RelayLine("127.0.0.1", 1, RelayTerms())
    line.start(time.monotonic_ns())
    drive(server, line, lambda: line.is_decided)
    assert (line.is_up, line.was_reached) == (False, False)
    assert "refused" in line.problem


# --- for those whom nobody knows ------------------------------------------------------------------


def test_what_may_be_told_of_ones_own_flow() -> None:
    """Whether its answers travel on: no filter, no device, no other address, no other family."""
    report = Report(
        version="9",
        filter="tcp",
        devices=("eth0",),
        received=7,
        dropped=1,
        forwards_v4=True,
        forwards_v6=False,
        seen=(
            Seen(SYN_ACK, "10.0.0.2", "62.135.200.1", "eth0", True, 2),
            Seen(SYN_ACK, "10.0.0.2", "62.135.200.1", "eth1", True, 1),
            Seen(SYN_ACK, "10.0.0.2", "62.135.200.1", "eth0", False, 5),
            Seen(SYN_ACK, "10.0.0.2", "10.9.9.9", "eth0", True, 4),
            Seen(RESET, "10.0.0.2", "62.135.200.1", "eth0", True, 4),
        ),
        passed=(Seen(SYN_ACK, "10.0.0.2", "62.135.200.1", "eth0", False, 5),),
        problem="bogus filter",
    )
    told = Report(
        is_open=True,
        forwards_v4=True,
        seen=(Seen(SYN_ACK, "10.0.0.2", "62.135.200.1", "", True, 3),),
    )
    assert without_details(report, FLOW) == told
    assert read_report(encode_report(told)) == told
    for word in (b"eth", b"tcp", b"10.9.9.9", b"filter", b"version", b"v6"):
        assert word not in encode_report(told)
    assert encode_report(Report(is_open=True)) == b'{"open": true}'


@needs_root
def test_an_open_desk_looks_at_flows_of_the_one_who_asks() -> None:
    """Nothing is told, and nothing looked at, of a flow that its host has not announced."""
    before = len(os.listdir("/proc/self/fd"))
    clerk = ProbeDesk("tcp", (), lambda: Report(filter="tcp", forwards_v4=True), is_open=True)
    question = encode_probe(NONE, watch=True)
    for asks in (clerk.answer(1, question, 0), clerk.answer(1, question, 0, lambda _: False)):
        assert asks == b'{"open": true}'
    assert open_soon(before)
    found = clerk.answer(1, question, 0, lambda flow: flow == NONE)
    assert found is not None and read_report(found) == Report(is_open=True, forwards_v4=True)
    assert clerk.answer(1, question, 0, lambda _: False) == b'{"open": true}'  # it was taken away
    assert open_soon(before)
    for _ in range(40):
        found = clerk.answer(1, question, 0, lambda _: True)
    assert found == b'{"open": true}'
    clerk.close()
