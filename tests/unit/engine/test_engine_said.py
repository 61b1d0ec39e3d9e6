"""What the target said, counted by sessions of both kinds of replayed halves."""

from __future__ import annotations

from tcpcopy.engine.context import EngineConfig
from tcpcopy.said.answer import LOOKED_AT, kind_of
from tcpcopy.said.kinds import KINDS, NONE
from tcpcopy.said.tally import Tally
from tests.unit.engine.rig import MS
from tests.unit.engine.test_engine_sockets import Sockets, sockets
from tests.unit.engine.world import Answerer, Caller, World

GET = "GET / HTTP/1.1\r\n\r\n"
FAILED = "HTTP/1.1 500 Internal Server Error\r\n\r\n"


def tally(world: World) -> Tally:
    (found,) = world.counts.said.values()
    return found


def said(world: World) -> dict[str, int]:
    counts = enumerate(tally(world).kind_counts())
    return {KINDS[kind].text if kind else "unseen": count for kind, count in counts if count}


def answer(transport: Sockets, data: bytes) -> None:
    """As `SocketTransport` does: the first bytes are shown where they are wanted."""
    if transport.clients[0].looks:
        transport.clients[0].on_answer(data[:LOOKED_AT])
    transport.answer(len(data))


def test_socket_mode_counts_one_kind_for_each_turn() -> None:
    world, transport = sockets()
    caller = Caller(world)
    caller.connect()
    transport.accept()
    seen = 0
    for status in (b"200", b"404", b"500"):
        caller.say(GET, seen=seen)
        answer(transport, b"HTTP/1.1 " + status + b" x\r\n\r\n")
        answer(transport, b"HTTP/1.1 500 in the body of the answer")
        seen += 56
        world.run_to(world.now + 200 * MS)
    caller.fin(seen=seen + 1)  # online's FIN counts one
    transport.end()
    assert world.outcomes() == {"REPLAYED": 1}
    assert said(world) == {"HTTP 2xx": 1, "HTTP 4xx": 1, "HTTP 5xx": 1}
    received = transport.clients[0].received - 1
    assert (tally(world).sessions, tally(world).bytes_target) == (1, received)


def test_an_interim_answer_is_followed_by_the_one_that_counts() -> None:
    world, transport = sockets()
    caller = Caller(world)
    caller.connect()
    transport.accept()
    caller.say(GET)
    answer(transport, b"HTTP/1.1 100 Continue\r\n\r\n")
    answer(transport, FAILED.encode())
    answer(transport, b"more")
    assert said(world) == {"HTTP 1xx": 1, "HTTP 5xx": 1}


def test_a_greeting_and_the_end_of_a_connection_are_no_answers() -> None:
    world, transport = sockets()
    caller = Caller(world)
    caller.connect()
    transport.accept()
    answer(transport, b"220 mail.example\r\n")
    caller.say("QUIT", seen=18)
    transport.end()
    assert said(world) == {"greeting": 1}


def test_packets_of_the_target_are_looked_at() -> None:
    world = World()
    caller = Caller(world)
    target = Answerer(world, FAILED)
    caller.connect()
    target.settle()
    caller.say(GET)
    target.settle()
    caller.fin(seen=len(FAILED))
    target.settle()
    world.run_to(world.now + 200 * MS)
    assert said(world) == {"HTTP 5xx": 1}


def test_a_kind_that_was_told_stands_for_bytes_that_did_not_come() -> None:
    """As records of the relay: the length of an answer, and what intercept saw of it."""
    for told, expected in ((kind_of(FAILED.encode()), "HTTP 5xx"), (NONE, "unseen")):
        world = World()
        caller = Caller(world)
        target = Answerer(world, FAILED)
        caller.connect()
        target.settle()
        caller.say(GET)
        world.told = told
        target.settle()
        assert said(world) == {expected: 1}


def test_without_waiting_only_whole_sessions_are_compared_by_bytes() -> None:
    world, transport = sockets(EngineConfig(wait_for_answers=False))
    caller = Caller(world)
    caller.connect()
    transport.accept()
    caller.say(GET)
    answer(transport, FAILED.encode())
    caller.say(GET, seen=100)
    world.engine.close_all()
    assert tally(world).sessions == 0


def test_sessions_picked_up_in_mid_stream_are_not_compared_by_bytes() -> None:
    world, transport = sockets()
    caller = Caller(world)
    caller.say(GET)
    transport.accept()
    answer(transport, FAILED.encode())
    caller.say(GET, seen=10)
    world.run_to(world.now + 200 * MS)
    world.engine.close_all()
    assert said(world) == {"HTTP 5xx": 1}
    assert tally(world).sessions == 0
