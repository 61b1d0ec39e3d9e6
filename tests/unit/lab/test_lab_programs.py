"""Server and client against each other on loopback: what is recorded is what happened."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import frames, script
from tests.lab.compare import Stream, load

ROOT = Path(__file__).parents[3]


class Pair:
    """A server on a free port, and clients for it."""

    def __init__(self, directory: Path, arguments: str) -> None:
        self.records = directory / "server"
        self.sent = directory / "client"
        command = [sys.executable, "-m", "tests.lab.server", "--address", "127.0.0.1"]
        self.server = subprocess.Popen(
            [*command, "--port", "0", "--records", str(self.records), *arguments.split()],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self.server.stdout is not None
        self.port = int(self.server.stdout.readline().rsplit(" ", 1)[1])

    def client(self, arguments: str, *, fails: bool = False) -> dict[str, Any]:
        command = [sys.executable, "-m", "tests.lab.client", "127.0.0.1", str(self.port)]
        done = subprocess.run(
            [*command, "--records", str(self.sent), *arguments.split()],
            capture_output=True,
            text=True,
            timeout=30,
            cwd=ROOT,
            check=False,
        )
        assert done.returncode == int(fails), done
        totals = json.loads(done.stdout.splitlines()[-1])
        assert isinstance(totals, dict)
        return totals

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 5)

    def streams(self) -> list[Stream]:
        """Stop the server and read its account."""
        if self.server.poll() is None:
            self.server.send_signal(signal.SIGTERM)
            assert self.server.wait(5) == 0
        return load(self.records)

    def expected(self) -> set[tuple[str, int]]:
        """What the clients say that they sent."""
        lines = [json.loads(line) for line in self.sent.read_text().splitlines()]
        return {(line["sha256"], line["bytes"]) for line in lines}


@pytest.fixture
def pair(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pair]:
    result = Pair(tmp_path, getattr(request, "param", ""))
    yield result
    result.streams()
    assert result.server.stdout is not None
    result.server.stdout.close()


def serving(arguments: str) -> pytest.MarkDecorator:
    """The test's server has these arguments."""
    return pytest.mark.parametrize("pair", [arguments], indirect=True)


LOADS = [
    "--connections 200 --concurrency 20",
    "--connections 5 --requests 30 --pipeline 8",
    "--connections 5 --requests 30 --pipeline 8 --sliding --request-bytes 0-5000",
    "--connections 3 --requests 2 --request-bytes 1000000 --write-bytes 1000",
    "--connections 3 --requests 2 --answer-bytes 1000000",
    "--connections 5 --requests 5 --think-ms 0-5 --think-first",
    "--connections 5 --requests 3 --end half-close --pipeline 3 --server-delay-ms 10",
    "--connections 5 --requests 3 --no-answer",
    "--connections 20 --rate 200",
]


@pytest.mark.parametrize("arguments", LOADS)
def test_server_reads_what_clients_say_they_sent(pair: Pair, arguments: str) -> None:
    totals = pair.client(arguments)
    streams = pair.streams()
    assert {(s.sha256, s.bytes) for s in streams} == pair.expected()
    assert {s.ended for s in streams} == {"fin"}
    assert sum(s.requests for s in streams) == totals["requests"]
    assert all(len(s.arrivals_ns) == s.requests for s in streams)
    if "no-answer" not in arguments:
        assert totals["answers"] == totals["requests"]


@pytest.mark.parametrize(("end", "recorded"), [("fin", "fin"), ("rst", "rst"), ("server", "fin")])
def test_how_the_client_ended_is_recorded(pair: Pair, end: str, recorded: str) -> None:
    pair.client(f"--connections 10 --requests 2 --end {end}")
    streams = pair.streams()
    assert [s.ended for s in streams] == [recorded] * 10
    assert {s.server_first for s in streams} == {end == "server"}


def test_reset_is_seen_even_when_sending_finds_it_first(pair: Pair) -> None:
    """A reset that comes before the answer is written must not pass as FIN."""
    for _ in range(20):
        sock = pair.connect()
        delayed = 20 << frames.DELAY_SHIFT
        sock.sendall(frames.request(b"x" * 100, 500_000, delayed) * 3)
        time.sleep(0.002)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    time.sleep(0.1)
    assert [(s.bytes, s.ended) for s in pair.streams()] == [(330, "rst")] * 20


def test_fin_before_delayed_answers_is_fin(pair: Pair) -> None:
    """A client that closes and then resets (it reads no more) ended with its FIN."""
    with pair.connect() as sock:
        sock.sendall(frames.request(b"x" * 100, 10, 30 << frames.DELAY_SHIFT) * 3)
    time.sleep(0.1)
    assert [(s.requests, s.ended) for s in pair.streams()] == [(3, "fin")]


def test_frames_cut_at_every_byte(pair: Pair) -> None:
    data = frames.request(b"abc", 5) + frames.request(b"", 0) + frames.request(b"z" * 9, 1)
    with pair.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for value in data:
            sock.sendall(bytes([value]))
            time.sleep(0.001)
        sock.shutdown(socket.SHUT_WR)
        answers = b"".join(iter(lambda: sock.recv(100), b""))
    assert answers == frames.answer(5) + frames.answer(0) + frames.answer(1)
    assert [(s.requests, len(s.arrivals_ns)) for s in pair.streams()] == [(3, 3)]


def test_garbage_is_counted_and_hashed_to_its_end(pair: Pair) -> None:
    with pair.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(10) == b""
    (stream,) = pair.streams()
    assert (stream.garbage, stream.bytes, stream.requests) == (True, 18, 0)


@serving("--greeting 30")
def test_server_speaks_first(pair: Pair) -> None:
    totals = pair.client("--connections 5 --requests 2 --greeting")
    assert totals["read_bytes"] == 5 * (34 + 2 * 204)


@serving("--delay-ms 30")
def test_delay(pair: Pair) -> None:
    """Each answer waits, pipelined ones together; order and time hold."""
    totals = pair.client("--connections 3 --requests 4 --pipeline 4")
    assert 30 <= totals["latency_ms"]["p50"] < 100


@serving("--answer-extra -50 --pieces 3 --piece-gap-ms 5")
def test_shorter_answer_in_pieces(pair: Pair) -> None:
    totals = pair.client("--connections 4 --requests 2")
    assert totals["read_bytes"] == 4 * 2 * 154
    assert totals["latency_ms"]["p50"] >= 10


@serving("--close-after 2")
def test_server_closes_first(pair: Pair) -> None:
    pair.client("--connections 4 --requests 5 --tolerate")
    pair.client("--connections 1 --requests 5", fails=True)
    assert {(s.server_first, s.ended) for s in pair.streams()} == {(True, "fin")}


@serving("--reset-after 2")
def test_server_resets(pair: Pair) -> None:
    pair.client("--connections 4 --requests 5 --tolerate")
    streams = pair.streams()
    assert {(s.server_first, s.ended, s.requests) for s in streams} == {(True, "server-reset", 2)}


@serving("--close-early 150")
def test_server_closes_in_the_middle_of_a_request(pair: Pair) -> None:
    pair.client("--connections 4 --requests 5 --tolerate")
    streams = pair.streams()
    assert {(s.server_first, s.ended) for s in streams} == {(True, "server-closed")}


@serving("--never-answer")
def test_server_never_answers(pair: Pair) -> None:
    totals = pair.client("--connections 4 --requests 5 --duration 0.1")
    assert (totals["requests"], totals["answers"]) == (4, 0)
    assert [s.requests for s in pair.streams()] == [1] * 4


@serving("--push-every-ms 2 --push-bytes 50")
def test_both_sides_send_freely(pair: Pair) -> None:
    totals = pair.client("--connections 4 --requests 30 --two-way --think-ms 1-3")
    assert totals["requests"] == 120
    assert totals["answers"] > 20
    assert {s.requests for s in pair.streams()} == {30}


@serving("--kernel-times")
def test_kernel_times_show_the_gaps(pair: Pair) -> None:
    pair.client("--connections 20 --requests 5 --think-ms 20")
    for stream in pair.streams():
        assert abs(stream.arrivals_ns[0] - time.time_ns()) < 60e9
        assert all(19e6 < gap < 60e6 for gap in stream.gaps_ns)


def test_snapshot_shows_open_connections(pair: Pair) -> None:
    with pair.connect() as sock:
        sock.sendall(frames.request(b"abc", 5))
        assert sock.recv(100)
        pair.server.send_signal(signal.SIGUSR1)
        assert pair.server.stdout is not None
        assert pair.server.stdout.readline() == "dumped 1 open\n"
        assert [(s.requests, s.ended) for s in load(pair.records)] == [(1, "open")]
    time.sleep(0.05)
    assert [(s.requests, s.ended) for s in pair.streams()] == [(1, "fin")]


def test_source_port_is_used_again_at_once(pair: Pair) -> None:
    pair.client("--connections 20 --concurrency 1 --end rst --source-ports 23456")
    assert {s.peer[1] for s in pair.streams()} == {23456}


def test_what_a_connection_sends_can_be_told_beforehand(pair: Pair) -> None:
    words = "--connections 3 --requests 4-6 --request-bytes 20-2000 --seed 9"
    pair.client(words)
    sent = [script.sent(words, number) for number in range(3)]
    hashes = {hashlib.sha256(stream).hexdigest() for stream in sent}
    assert {s.sha256 for s in pair.streams()} == hashes
    late = script.sent(words, 1, first=2)
    assert 0 < len(late) < len(sent[1])
    assert sent[1].endswith(late)


def test_refused_connections_are_failures(pair: Pair) -> None:
    pair.streams()
    totals = pair.client("--connections 3", fails=True)
    assert totals["failures"] == {"connect: ECONNREFUSED": 3}
