"""Our client and our server together on loopback: what they announce, lose, refuse, and resume."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tcpcopy.errors import UsageError
from tcpcopy.relay import native
from tcpcopy.relay.classic import MessageType, RelayFault, encode_message
from tcpcopy.relay.client import RelayClient
from tcpcopy.relay.connection import LiveSession
from tcpcopy.relay.handshake import Kind
from tcpcopy.relay.native import RelayMode, RelayTerms
from tcpcopy.relay.peers import Peers
from tcpcopy.relay.records import Peer, RecordWriter
from tcpcopy.relay.router import AnswerRouter
from tcpcopy.relay.security import read_secret
from tcpcopy.relay.server import RelayServer
from tcpcopy.report.outcome import Drop
from tests.unit.relay.packets import (
    ACK,
    CLIENT,
    CLIENT_V6,
    SYN,
    TARGET,
    TARGET_V6,
    Collector,
    answer,
    answer_v6,
)

SECOND = 1_000_000_000
PLAIN = RelayTerms()
SECRET = RelayTerms(secret=b"a secret that is shared")


def session(port: int) -> LiveSession:
    return CLIENT, port, TARGET, 8080


def session_v6(port: int) -> LiveSession:
    return CLIENT_V6, port, TARGET_V6, 8080


class Pair:
    """An intercept's end and a tcpcopy's, driven together; `ahead_ns` moves their clock."""

    def __init__(self, theirs: RelayTerms = PLAIN, port: int = 0, **options: object) -> None:
        self.ahead_ns = 0
        self.router = AnswerRouter()
        self.server = RelayServer(
            self.router,
            host="127.0.0.1",
            port=port,
            terms=theirs,
            **options,  # type: ignore[arg-type]
        )
        self.server.open()
        self.live: list[LiveSession] = []
        self.collector = Collector()
        self.clients: list[RelayClient] = []

    def client(self, terms: RelayTerms = PLAIN, **options: object) -> RelayClient:
        client = RelayClient(
            [("127.0.0.1", self.server.port)],
            self.collector,
            live_sessions=lambda: self.live,
            terms=terms,
            **options,  # type: ignore[arg-type]
        )
        self.clients.append(client)
        for connection_server, connection in client._all():
            client._connect(connection_server, connection, self.now(), SECOND)
        return client

    def now(self) -> int:
        return time.monotonic_ns() + self.ahead_ns

    def step(self) -> None:
        self.router.now_ns = self.now()
        self.server.service(self.now())
        for client in self.clients:
            client.service(self.now(), 99)
            due = client.next_deadline_ns()
            if due is not None and due <= self.now():
                client.run_timers(self.now())
            client.flush(self.now())

    def until(self, condition: Callable[[], bool], seconds: float = 5) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it does not happen"
            self.step()
            time.sleep(0.001)

    def up(self, client: RelayClient) -> None:
        self.until(lambda: client.counts()[self.name].connected == 2)

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def answer(self, packet: bytes) -> int:
        return self.router.packet(packet, 0, len(packet), len(packet), 5)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.server.close()


Start = Callable[..., Pair]


@pytest.fixture
def start() -> Iterator[Start]:
    """Makes pairs, and closes them when the test ends."""
    with contextlib.ExitStack() as stack:

        def begin(theirs: RelayTerms = PLAIN, **options: object) -> Pair:
            pair = Pair(theirs, **options)  # type: ignore[arg-type]
            stack.callback(pair.close)
            return pair

        yield begin


@pytest.mark.parametrize("terms", [RelayTerms(), SECRET], ids=["plain", "secret"])
def test_sessions_of_both_families(start: Start, terms: RelayTerms) -> None:
    """Announced, answered, removed; what comes then is dropped at intercept."""
    pair = start(terms)
    client = pair.client(terms)
    pair.up(client)
    assert client.kinds() == {pair.name: Kind.NATIVE}
    for port in (1, 2, 3):
        assert client.announce(*session(port)) == client.announce(*session_v6(port)) == 1
    pair.until(lambda: pair.router.announced == 6)
    packets = [answer(client_port=2, payload=b"abc"), answer_v6(client_port=3, flags=SYN | ACK)]
    assert [pair.answer(packet) for packet in packets] == [0, 0]
    pair.until(lambda: len(pair.collector.packets) == 2)
    assert sorted(wire_length for _, wire_length, _ in pair.collector.packets) == [43, 60]
    client.withdraw(*session(2))
    client.withdraw(*session_v6(3))
    pair.ahead_ns += SECOND
    pair.until(lambda: pair.answer(packets[0]) == Drop.CLOSED_SESSION)
    pair.until(lambda: pair.answer(packets[1]) == Drop.CLOSED_SESSION)
    assert pair.router.sessions == 6
    client.announce(*session(2))
    pair.until(lambda: pair.answer(packets[0]) == 0)


def test_early_answers_of_ipv6(start: Start) -> None:
    pair = start()
    client = pair.client()
    pair.up(client)
    early = answer_v6(flags=SYN | ACK)
    assert pair.answer(early) == 0 and pair.router.kept == 1
    assert pair.answer(answer_v6(flags=ACK)) == Drop.FOREIGN
    client.announce(*session_v6(40001))
    pair.until(lambda: pair.collector.headers == [early])
    assert pair.router.early_sent == 1


def test_lost_connections_come_back_with_their_sessions(start: Start) -> None:
    """Intercept is gone for a while; what lives is announced again, of both families."""
    pair = start()
    client = pair.client()
    pair.up(client)
    pair.live = [session(port) for port in range(1, 2000)] + [session_v6(7)]
    port = pair.server.port
    pair.server.close()
    deadline = time.monotonic() + 5
    while client.servers_up:
        assert time.monotonic() < deadline
        client.service(pair.now(), 99)
    again = start(port=port)
    again.clients, again.live = [client], pair.live
    pair.clients = []
    again.until(lambda: again.router.sessions == 2000)
    # The other connection may have come up a little later.
    again.up(client)
    assert client.counts()[again.name].reconnects == 2


def test_slow_reader_loses_counted_answers(start: Start) -> None:
    """No credit, no room: lost at intercept, told to tcpcopy when it reads again."""
    pair = start(buffer_bytes=64 << 10)
    client = pair.client()
    pair.up(client)
    client.announce(*session(1))
    pair.until(lambda: pair.router.announced == 1)
    packet = answer(client_port=1, payload=b"x")
    while pair.router.lost < 1000:
        for _ in range(1000):
            pair.answer(packet)
        pair.server.flush()
    router = pair.router
    assert router.answers == router.relayed + router.lost
    assert router.relayed * 40 < native.WINDOW_BYTES + (128 << 10)
    pair.until(lambda: len(pair.collector.packets) == router.relayed, 20)
    pair.ahead_ns += 3 * SECOND
    pair.server.run_timers(pair.now())
    pair.ahead_ns += 3 * SECOND
    pair.server.run_timers(pair.now())
    pair.until(lambda: client.counts()[pair.name].lost == router.lost)
    # Credit has come: all is well again.
    router_lost = router.lost
    assert pair.answer(packet) == 0 and router.lost == router_lost


def test_half_dead_peers_are_noticed(start: Start) -> None:
    """Either end that hears nothing for ten seconds gives up; pings keep an idle one alive."""
    pair = start()
    client = pair.client()
    pair.up(client)
    for _ in range(20):
        pair.ahead_ns += SECOND
        for _ in range(5):
            pair.step()
            time.sleep(0.002)
        pair.server.run_timers(pair.now())
    assert client.counts()[pair.name].connected == 2 and not any(pair.server.faults)
    for _ in range(8):
        pair.ahead_ns += SECOND
        pair.server.run_timers(pair.now())
    assert not any(pair.server.faults)
    for _ in range(3):
        pair.ahead_ns += SECOND
        pair.server.run_timers(pair.now())
    assert pair.server.faults[RelayFault.SILENT] == 2 and pair.server.connections == 0


def test_silent_intercept_is_given_up(start: Start) -> None:
    pair = start()
    client = pair.client()
    pair.up(client)
    for _ in range(8):
        pair.ahead_ns += SECOND
        client.run_timers(pair.now())
    assert client.servers_up == 1
    for _ in range(3):
        pair.ahead_ns += SECOND
        client.run_timers(pair.now())
    assert client.servers_up == 0 and client.faults[RelayFault.SILENT] == 2


def test_a_standstill_of_ones_own_is_nobodys_silence(start: Start) -> None:
    """Either end is stopped for 20 s, and then reads: nothing is lost, the connections stay."""
    pair = start()
    client = pair.client()
    pair.up(client)
    client.announce(*session(1))
    pair.until(lambda: pair.router.announced == 1)
    for _ in range(3):
        pair.answer(answer(client_port=1, payload=b"x"))
    pair.server.flush()
    pair.server.run_timers(pair.now())
    pair.ahead_ns += 20 * SECOND
    # Whichever comes first, the look at the clock or what has come meanwhile.
    client.run_timers(pair.now())
    pair.server.run_timers(pair.now())
    assert not any(pair.server.faults) and not any(client.faults)
    pair.until(lambda: len(pair.collector.packets) == 3)
    counts = client.counts()[pair.name]
    assert (counts.connected, counts.connects, counts.lost) == (2, 2, 0)
    # From there on silence counts again.
    for _ in range(11):
        pair.ahead_ns += SECOND
        client.run_timers(pair.now())
    assert client.faults[RelayFault.SILENT] == 2


def test_a_handshake_that_a_standstill_interrupts_goes_on(start: Start) -> None:
    """Neither end gives the other up for it, and no native intercept is taken for a classic one."""
    pair = start()
    client = pair.client()
    until = time.monotonic() + 5
    while not all(connection.handshake for _, connection in client._all()):
        assert time.monotonic() < until
        client.service(pair.now(), 99)  # connected, and it has said what it speaks
    while len(pair.server._in_handshake) < 2:
        assert time.monotonic() < until
        pair.server._accept(pair.now())
    pair.server.run_timers(pair.now())
    pair.ahead_ns += 20 * SECOND
    pair.server.run_timers(pair.now())
    client.run_timers(pair.now())
    assert not any(pair.server.faults)
    pair.until(lambda: client.counts()[pair.name].connected == 2)
    assert client.counts()[pair.name].connects == 2 == client.counts()[pair.name].native


@pytest.mark.parametrize(
    ("ours", "theirs", "fault"),
    [
        (SECRET, RelayTerms(secret=b"another that differs"), RelayFault.SECRET_WRONG),
        (RelayTerms(), SECRET, RelayFault.SECRET_MISSING),
        (RelayTerms(RelayMode.CLASSIC), SECRET, RelayFault.CLASSIC),
    ],
)
def test_refusals_are_counted_and_logged_once(
    start: Start,
    ours: RelayTerms,
    theirs: RelayTerms,
    fault: RelayFault,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pair = start(theirs)
    client = pair.client(ours)
    pair.until(lambda: pair.server.faults[fault] >= 2)
    assert client.servers_up == 0 or ours.mode is RelayMode.CLASSIC
    assert pair.server.accepted == 0
    lines = [r.getMessage() for r in caplog.records if "refused" in r.getMessage()]
    assert lines == [f"tcpcopy 127.0.0.1 refused: {fault.description}"]


def test_old_classic_stays_possible(start: Start) -> None:
    """Either end told to speak classic; IPv6 sessions are then told to nobody."""
    for ours, theirs in ((RelayMode.CLASSIC, RelayMode.AUTO), (RelayMode.AUTO, RelayMode.CLASSIC)):
        pair = start(RelayTerms(theirs))
        client = pair.client(RelayTerms(ours))
        pair.up(client)
        assert client.kinds() == {pair.name: Kind.CLASSIC}
        assert client.announce(*session(1)) == 1
        assert client.announce(*session_v6(1)) == 0
        pair.until(lambda: pair.router.announced == 1)  # noqa: B023
        pair.answer(answer(client_port=1))
        pair.until(lambda: len(pair.collector.packets) == 1)  # noqa: B023


def test_hello_that_comes_late_is_waited_for_the_next_time(start: Start) -> None:
    """A native intercept that was too busy: taken for a classic one, then found out."""
    pair = start()
    client = pair.client()
    deadline = time.monotonic() + 5
    while client.servers_up == 0:  # the server is left alone
        assert time.monotonic() < deadline
        client.service(pair.now(), 99)
        client.run_timers(pair.now())
        time.sleep(0.01)
    assert client.kinds() == {pair.name: Kind.CLASSIC}
    pair.until(lambda: client.kinds()[pair.name] == Kind.NATIVE)


def test_silent_connections_make_room(start: Start) -> None:
    """More than the handshake has room for: the oldest goes, a tcpcopy still gets in."""
    pair = start()
    crowd = []
    for _ in range(400):
        peer = socket.create_connection(("127.0.0.1", pair.server.port))
        crowd.append(peer)
        pair.server.service(pair.now())
    client = pair.client()
    pair.up(client)
    assert pair.server.crowded_out >= 144 and pair.server.connections == 2
    for peer in crowd:
        peer.close()


def test_a_crowd_of_one_host_only_crowds_out_itself(start: Start) -> None:
    pair = start()
    slow = socket.create_connection(("127.0.0.1", pair.server.port))
    slow.sendall(native.OPENING[:9])
    crowd = []
    for _ in range(300):
        peer = socket.socket()
        peer.bind(("127.0.0.2", 0))
        peer.connect(("127.0.0.1", pair.server.port))
        crowd.append(peer)
        pair.server.service(pair.now())
    slow.sendall(native.OPENING[9:])
    slow.settimeout(0.01)
    said = b""

    def answered() -> bool:
        nonlocal said
        with contextlib.suppress(TimeoutError):
            said += slow.recv(100)
        return len(said) == 40

    pair.until(answered)
    assert pair.server.crowded_out >= 40
    for peer in (slow, *crowd):
        peer.close()


def test_sessions_of_a_peer_are_limited(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    pair = start(peers=Peers(sessions=10))
    client = pair.client()
    pair.up(client)
    for port in range(1, 21):
        client.announce(*(session(port) if port % 2 else session_v6(port)))
    pair.until(lambda: pair.router.announced == 20)
    assert (pair.router.sessions, pair.router.refused) == (10, 10)
    pair.server.run_timers(pair.now())
    pair.server.run_timers(pair.now())
    said = [r.getMessage() for r in caplog.records if "--max-sessions" in r.getMessage()]
    assert len(said) == 1 and said[0].startswith("session of tcpcopy 127.0.0.1 refused")
    client.announce(*session(1))  # again: it has that already
    pair.until(lambda: pair.router.announced == 21)
    assert pair.router.refused == 10
    client.close()
    pair.clients = []
    pair.until(lambda: pair.server.connections == 0)
    pair.router.sweep(pair.now())
    pair.server.run_timers(pair.now())
    assert not pair.server.peers._peers


def test_one_host_does_not_keep_others_out(start: Start) -> None:
    """All connections are taken by one host: another gets its share."""
    pair = start(connection_limit=8)
    crowd = []
    for _ in range(12):
        peer = socket.create_connection(
            ("127.0.0.1", pair.server.port), source_address=("127.0.0.2", 0)
        )
        peer.sendall(bytes(6) + b"\0\6" + bytes(6))
        crowd.append(peer)
    pair.until(lambda: pair.server.accepted + pair.server.refused == 12)
    assert pair.server.connections == 8
    client = pair.client()
    pair.up(client)
    assert (pair.server.connections, pair.server.crowded_out) == (8, 2)
    for peer in crowd:
        peer.close()


def test_one_host_does_not_push_out_the_sessions_of_others() -> None:
    router = AnswerRouter(session_limit=100)
    greedy, modest = RecordWriter(1, peer=Peer("a")), RecordWriter(2, peer=Peer("b"))

    def add(writer: RecordWriter, port: int) -> None:
        router.messages(writer, encode_message(MessageType.ADD, CLIENT, port, TARGET, 80))

    for port in range(1, 11):
        add(modest, port)
    for port in range(1000, 1500):
        add(greedy, port)
    assert (modest.peer.sessions, greedy.peer.sessions) == (10, 90)
    assert greedy.peer.refused == 410 and router.evicted == 0
    for port in range(11, 60):
        add(modest, port)
    assert router.sessions == 100 and router.evicted == 49


def test_log_of_connections_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    peers = Peers()
    for _ in range(500):
        peers.log("10.0.0.1", "something %s", 1)
    assert len(caplog.records) == 66
    peers.look(60 * SECOND)
    peers.log("10.0.0.1", "something %s", 1)
    assert len(caplog.records) == 67


def test_who_may_connect() -> None:
    everybody = Peers(limit=2)
    assert everybody.is_allowed("203.0.113.9")
    some = Peers(allowed=[ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::5")])
    assert [some.is_allowed(a) for a in ("10.1.1.1", "11.0.0.1", "fd00::5", "fd00::6")] == [
        True, False, True, False,
    ]  # fmt: skip
    assert some.is_allowed("::ffff:10.2.3.4") and some.is_allowed("fd00::5%eth0")
    everybody.connected("1.1.1.1")
    everybody.connected("2.2.2.2")
    everybody.connected("2.2.2.2")
    assert everybody.has_room("1.1.1.1") and not everybody.has_room("3.3.3.3")
    everybody.closed("2.2.2.2")
    assert everybody.count == 2
    everybody.closed("2.2.2.2")
    assert everybody.has_room("3.3.3.3")


def test_too_many_peers(start: Start) -> None:
    pair = start(peers=Peers(limit=1))
    pair.up(pair.client())
    with socket.create_connection(
        ("127.0.0.1", pair.server.port), source_address=("127.0.0.2", 0)
    ) as other:
        other.sendall(bytes(6) + b"\0\6" + bytes(6))
        pair.until(lambda: pair.server.refused == 1)
        assert other.recv(1) == b""


def test_log_of_refusals_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    peers = Peers()
    for number in range(3000):
        peers.log_refusal(f"10.0.{number >> 8}.{number & 255}", "because", 0)
    assert len(peers._refused) == 1024
    peers.log_refusal("10.0.11.183", "because", 59 * SECOND)
    peers.log_refusal("10.0.11.183", "because", 60 * SECOND)
    assert sum("10.0.11.183" in r.getMessage() for r in caplog.records) == 2


@pytest.mark.parametrize(
    ("text", "mode", "problem"),
    [
        (b"0123456789abcdef\n", 0o600, ""),
        (b"  0123456789abcdef  ", 0o400, ""),
        (b"0123456789abcde\n", 0o600, "the secret has 15 characters"),
        (b"", 0o600, "the secret has 0 characters"),
        (b"x" * 5000, 0o600, "is too long"),
        (b"0123456789abcdef\n", 0o640, "others than its owner may read"),
        (b"0123456789abcdef\n", 0o604, "others than its owner may read"),
        (b"0123456789abcdef\n", 0o420, "others than its owner may read"),
    ],
)
def test_secret_files(tmp_path: Path, text: bytes, mode: int, problem: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(text)
    path.chmod(mode)
    if not problem:
        assert read_secret("--secret-file", str(path)) == b"0123456789abcdef"
        return
    with pytest.raises(UsageError) as caught:
        read_secret("--secret-file", str(path))
    assert str(caught.value).startswith(f"--secret-file {path}: {problem}")


def test_secret_files_that_are_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", Path("/dev/zero")):
        with pytest.raises(UsageError):
            read_secret("--secret-file", str(path))
