"""tcpcopy's end with real sockets on loopback: announcing, reading answers, losing connections."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tcpcopy.relay.classic import (
    MESSAGE_BYTES,
    MessageDecoder,
    MessageType,
    RelayFault,
    encode_message,
    encode_version,
)
from tcpcopy.relay.client import RelayClient, Unreachable
from tcpcopy.relay.connection import LiveSession
from tcpcopy.relay.native import RelayMode, RelayTerms
from tcpcopy.relay.sockets import met_itself
from tests.unit.relay.packets import ACK, CLIENT, SYN, TARGET, Collector, answer, batch, record

MS = 1_000_000


def session(port: int) -> LiveSession:
    return CLIENT, port, TARGET, 8080


def ports(messages: list[bytes]) -> list[int]:
    return [int.from_bytes(message[4:6], "big") for message in messages]


class FakeIntercept:
    """A listener that takes connections and keeps what is said on each."""

    def __init__(self, port: int = 0) -> None:
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", port))
        self.listener.listen(16)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.peers: list[socket.socket] = []
        self.decoders: list[MessageDecoder] = []
        self.messages: list[list[bytes]] = []  # of each connection
        self.reading = True

    def poll(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.listener.fileno() >= 0:
                peer, _ = self.listener.accept()
                peer.setblocking(False)
                self.peers.append(peer)
                self.decoders.append(MessageDecoder())
                self.messages.append([])
        for index, peer in enumerate(self.peers):
            with contextlib.suppress(BlockingIOError, ConnectionResetError):
                while self.reading and peer.fileno() >= 0 and (data := peer.recv(65536)):
                    taken = self.decoders[index].feed(data)
                    cut = range(0, len(taken), MESSAGE_BYTES)
                    self.messages[index] += [taken[at : at + MESSAGE_BYTES] for at in cut]

    @property
    def all_messages(self) -> list[bytes]:
        return [message for messages in self.messages for message in messages]

    def close(self) -> None:
        self.listener.close()
        for peer in self.peers:
            peer.close()


class Setting:
    """Fake intercepts and a client, driven together."""

    def __init__(self, intercepts: int, **options: object) -> None:
        self.intercepts = [FakeIntercept() for _ in range(intercepts)]
        self.collector = Collector()
        self.client = RelayClient(
            [("127.0.0.1", intercept.port) for intercept in self.intercepts],
            self.collector,
            **options,  # type: ignore[arg-type]
        )

    def connect(self) -> None:
        assert self.client.connect_all(self.now()) == []
        self.until(lambda: all(len(i.peers) == 2 for i in self.intercepts))

    def now(self) -> int:
        return time.monotonic_ns()

    def step(self) -> None:
        now_ns = self.now()
        self.client.service(now_ns, 99)
        due = self.client.next_deadline_ns()
        if due is not None and due <= now_ns:
            self.client.run_timers(now_ns)
        self.client.flush(now_ns)
        for intercept in self.intercepts:
            intercept.poll()

    def until(self, condition: Callable[[], bool], seconds: float = 5) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it does not happen"
            self.step()
            time.sleep(0.001)

    def close(self) -> None:
        self.client.close()
        for intercept in self.intercepts:
            intercept.close()


Start = Callable[..., Setting]


@pytest.fixture
def start() -> Iterator[Start]:
    """Makes a setting with connected client, and closes it when the test ends."""
    with contextlib.ExitStack() as stack:

        def begin(intercepts: int = 1, **options: object) -> Setting:
            setting = Setting(intercepts, **options)
            stack.callback(setting.close)
            setting.connect()
            return setting

        yield begin


def test_every_intercept_hears_of_every_session_over_its_connections_in_turn(start: Start) -> None:
    """As the C tcpcopy does with -C 2; the version comes first on each connection."""
    setting = start(2)
    assert setting.client.servers_up == 2
    for port in (1, 2, 3, 4):
        assert setting.client.announce(*session(port)) == 2
    setting.client.flush(setting.now())
    setting.until(lambda: all(len(i.all_messages) == 4 for i in setting.intercepts))
    for intercept in setting.intercepts:
        assert sorted(ports(messages) for messages in intercept.messages) == [[1, 3], [2, 4]]
        assert {decoder.version for decoder in intercept.decoders} == {7}  # C takes any above 6
        first = intercept.all_messages[0]
        assert first == encode_message(MessageType.ADD, CLIENT, ports([first])[0], TARGET, 8080)


def test_flush_hands_announcements_to_the_kernel_at_once(start: Start) -> None:
    """The session's SYN is sent next: no poll, no timer in between."""
    setting = start()
    intercept = setting.intercepts[0]
    setting.client.announce(*session(1))
    setting.client.flush(setting.now())
    intercept.poll()
    assert ports(intercept.all_messages) == [1]


def test_answers_come_from_any_connection(start: Start) -> None:
    setting = start()
    packets = [answer(client_port=port, payload=bytes(port)) for port in range(1, 9)]
    for number, packet in enumerate(packets):
        setting.intercepts[0].peers[number % 2].sendall(batch(record(packet)))
    setting.until(lambda: len(setting.collector.packets) == 8)
    assert sorted(setting.collector.packets) == sorted((p[:40], len(p), 99) for p in packets)
    (counts,) = setting.client.counts().values()
    assert (counts.connected, counts.records, counts.malformed, counts.lost) == (2, 8, 0, 0)


def test_unreachable_intercepts_are_named() -> None:
    """For one clear line about -s at start."""
    closed = FakeIntercept()
    closed.close()
    setting = Setting(1)
    client = RelayClient(
        [("127.0.0.1", setting.intercepts[0].port), ("127.0.0.1", closed.port)], Collector()
    )
    unreachable = client.connect_all(time.monotonic_ns())
    assert unreachable == [Unreachable(f"127.0.0.1:{closed.port}", "Connection refused")]
    assert client.servers_up == 1
    client.close()
    setting.close()


def test_intercept_that_does_not_answer_is_waited_for_no_longer_than_asked() -> None:
    """A listener with a full backlog drops SYNs, as a host that is down does."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = []
    for _ in range(3):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    client = RelayClient([listener.getsockname()], Collector())
    began = time.monotonic()
    (unreachable,) = client.connect_all(time.monotonic_ns(), 200 * MS)
    assert 0.15 < time.monotonic() - began < 2
    assert unreachable.problem == "no answer"
    client.close()
    for one in (listener, *fillers):
        one.close()


def test_intercept_that_comes_back_hears_of_live_sessions_within_a_second(start: Start) -> None:
    """After a second's absence; new sessions are announced too, the version comes first."""
    live = [session(port) for port in range(1, 2001)]
    setting = start(live_sessions=lambda: list(live))
    port = setting.intercepts[0].port
    setting.until(lambda: len(setting.intercepts[0].all_messages) == 2000)
    setting.intercepts.pop().close()
    setting.until(lambda: setting.client.servers_up == 0)
    assert setting.client.announce(*session(3000)) == 0
    live.append(session(3000))
    away = time.monotonic() + 1
    while time.monotonic() < away:
        setting.step()
        time.sleep(0.005)
    back = FakeIntercept(port)
    setting.intercepts = [back]
    setting.until(lambda: len(back.all_messages) >= 2001, seconds=1)
    setting.until(lambda: len(back.peers) == 2, seconds=1)
    assert sorted(ports(back.all_messages)) == [*range(1, 2001), 3000]
    (counts,) = setting.client.counts().values()
    assert counts.reconnects == 2
    assert counts.connected == 2


def test_sessions_of_one_lost_connection_move_to_the_other(start: Start) -> None:
    """The intercept has forgotten them; waiting for the reconnection would cost answers."""
    live = [session(port) for port in range(1, 11)]
    setting = start(live_sessions=lambda: list(live))
    intercept = setting.intercepts[0]
    setting.until(lambda: len(intercept.all_messages) == 10)
    intercept.messages = [[], []]
    intercept.listener.close()  # no reconnection
    intercept.peers[0].close()
    setting.until(lambda: len(intercept.messages[1]) == 10, seconds=1)
    assert sorted(ports(intercept.messages[1])) == [*range(1, 11)]
    assert setting.client.servers_up == 1


def test_intercept_that_reads_too_slowly_costs_no_memory_and_hears_it_later(start: Start) -> None:
    live: list[LiveSession] = []
    setting = start(queue_bytes=1400, live_sessions=lambda: list(live))
    intercept = setting.intercepts[0]
    intercept.reading = False
    port = 0
    while not any(counts.lost for counts in setting.client.counts().values()):
        port = port % 65535 + 1
        setting.client.announce(*session(port))
        setting.client.flush(setting.now())
    live += [session(port) for port in range(60000, 60500)]
    setting.client.announce(*session(59999))
    setting.step()
    assert setting.client.next_deadline_ns() is None, "nothing to do until it reads: no busy loop"
    intercept.reading = True
    setting.until(lambda: {*ports(intercept.all_messages)} >= {*range(60000, 60500)})
    assert not any(decoder.fault for decoder in intercept.decoders)


def test_intercept_that_sends_garbage_is_left_and_tried_again(start: Start) -> None:
    setting = start()
    intercept = setting.intercepts[0]
    intercept.peers[0].sendall(b"\xff\xff\xff\xff")
    setting.until(lambda: setting.client.faults[RelayFault.NOT_A_RECORD] == 1)
    setting.until(lambda: len(intercept.peers) == 3)
    intercept.peers[1].sendall(batch(record(answer())))
    setting.until(lambda: len(setting.collector.packets) == 1)


def test_connection_to_itself_is_told() -> None:
    """An attempt at a port in the range for clients can get that very port as its own."""
    with socket.socket() as alone:
        alone.bind(("127.0.0.1", 0))
        alone.connect(alone.getsockname())
        assert met_itself(alone)
    intercept = FakeIntercept()
    with socket.create_connection(("127.0.0.1", intercept.port)) as normal:
        assert not met_itself(normal)
    intercept.close()


def test_retries_keep_their_distance(start: Start) -> None:
    """No busy loop while an intercept is away: 50 ms at first, no more than 500 ms later."""
    setting = start()
    setting.intercepts[0].close()
    setting.intercepts = []
    setting.until(lambda: setting.client.servers_up == 0)
    waits = []
    now_ns = setting.now()
    for _ in range(16):
        due = setting.client.next_deadline_ns()
        assert due is not None
        waits.append(max(0, due - now_ns) // MS)
        now_ns = max(now_ns, due)
        setting.client.run_timers(now_ns)
        time.sleep(0.002)
        setting.client.service(now_ns, 0)
    assert max(waits) <= 500
    assert sum(waits) >= 1000


def test_nothing_stays_open_after_close() -> None:
    before = set(os.listdir("/proc/self/fd"))
    setting = Setting(3)
    setting.connect()
    setting.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_version_and_messages_are_the_c_programs(start: Start) -> None:
    """The raw bytes of a connection, as in the captured conversation."""
    setting = start()
    intercept = setting.intercepts[0]
    intercept.reading = False
    setting.client.announce(*session(1))
    setting.client.announce(*session(2))
    setting.client.flush(setting.now())
    time.sleep(0.05)
    said = sorted(peer.recv(1000) for peer in intercept.peers)
    add = [encode_message(MessageType.ADD, *session(port)) for port in (1, 2)]
    # `connect` has let the fake intercept read the version already, or not.
    assert [data.removeprefix(encode_version()) for data in said] == add


# --- builds of the C intercept -----------------------------------------------------------------


def syn_ack(port: int) -> bytes:
    return batch(record(answer(client_port=port, flags=SYN | ACK)))


def test_an_intercept_that_hands_out_in_turn_is_found_out(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """Answers come over connections that did not announce them; then nothing is announced."""
    setting = start()
    (intercept,) = setting.intercepts
    for port in (1, 2):
        setting.client.announce(*session(port))
    setting.client.flush(setting.now())
    setting.until(lambda: len(intercept.all_messages) == 2)
    first = next(index for index, said in enumerate(intercept.messages) if ports(said) == [1])
    intercept.peers[first].sendall(syn_ack(2))
    intercept.peers[1 - first].sendall(syn_ack(1))
    setting.until(lambda: setting.client.is_single)
    assert len(setting.collector.packets) == 2
    assert any("--single" in line for line in caplog.messages)
    assert setting.client.announce(*session(3)) == 1
    setting.client.flush(setting.now())
    setting.step()
    assert len(intercept.all_messages) == 2
    # Later all connections are made anew: it forgets those that a probe had.
    setting.client.run_timers(setting.now() + 10_000 * MS)
    setting.until(lambda: len(intercept.peers) == 4)
    setting.until(lambda: setting.client.servers_up == 1)


def test_an_intercept_that_answers_where_it_was_asked_is_none_of_these(start: Start) -> None:
    setting = start()
    (intercept,) = setting.intercepts
    for port in range(1, 41):
        setting.client.announce(*session(port))
    setting.client.flush(setting.now())
    setting.until(lambda: len(intercept.all_messages) == 40)
    for peer, messages in zip(intercept.peers, intercept.messages, strict=True):
        for port in ports(messages):
            peer.sendall(syn_ack(port))
    setting.until(lambda: len(setting.collector.packets) == 40)
    assert not setting.client.is_single


def test_told_so_nothing_is_announced(start: Start) -> None:
    setting = start(terms=RelayTerms(RelayMode.CLASSIC, single=True))
    (intercept,) = setting.intercepts
    assert setting.client.announce(*session(1)) == 1
    setting.client.flush(setting.now())
    setting.until(lambda: [d.version for d in intercept.decoders] == [6, 6])
    assert not intercept.all_messages
    intercept.peers[0].sendall(syn_ack(1))
    setting.until(lambda: len(setting.collector.packets) == 1)
