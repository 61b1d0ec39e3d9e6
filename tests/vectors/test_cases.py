"""Captures that once went wrong (tests/cases), replayed to a server on loopback: what it read."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tcpcopy.recorded.inspect import inspect, to_json
from tcpcopy.recorded.stream import open_recorded

CASES = Path(__file__).resolve().parents[1] / "cases"
NAMES = sorted(path.stem for path in CASES.glob("*.pcap"))


class Server:
    """Reads each connection to its end, answers `ok` to each read, and keeps what it read."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.streams: list[bytes] = []
        self.threads: list[threading.Thread] = []
        self.accepting = threading.Thread(target=self._accept)
        self.accepting.start()

    def _accept(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            if self.port == 0:
                connection.close()
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            thread.start()
            self.threads.append(thread)

    def _serve(self, connection: socket.socket) -> None:
        received = b""
        connection.settimeout(30)
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                received += data
                connection.sendall(b"ok\n")
        self.streams.append(received)

    def stop(self) -> list[bytes]:
        """What was read, once all connections have ended."""
        address = self.listener.getsockname()
        self.port = 0
        socket.create_connection(address).close()  # wakes `accept`
        self.accepting.join(30)
        self.listener.close()
        for thread in self.threads:
            thread.join(30)
        return sorted(self.streams)


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server that is stopped whatever comes."""
    server = Server()
    try:
        yield server
    finally:
        if server.port:
            server.stop()


def replay(name: str, options: list[str], folder: Path) -> tuple[list[bytes], dict[str, Any], str]:
    """What the server read, the JSON report, and what was printed."""
    path = folder / "report.json"
    with serving() as server:
        command = [
            *(sys.executable, "-m", "tcpcopy", "-i", CASES / f"{name}.pcap", "--fast"),
            *("-x", f"80-127.0.0.1:{server.port}", "--json", path, *options),
        ]
        run = subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"COLUMNS": "100"},
        )
        streams = server.stop()
    said = run.stdout + run.stderr
    assert path.exists(), said
    return streams, json.loads(path.read_text()) | {"status": run.returncode}, said


def test_every_case_says_what_is_right() -> None:
    assert {path.name.removesuffix(".expected.json") for path in CASES.glob("*.json")} == set(NAMES)
    assert len(NAMES) >= 16


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str, tmp_path: Path) -> None:
    expected = json.loads((CASES / f"{name}.expected.json").read_text())
    streams, report, said = replay(name, expected.get("options", []), tmp_path)
    wanted = sorted(stream.encode("latin-1") for stream in expected["streams"])
    assert streams == wanted, said
    outcomes = {key: count for key, count in report["sessions"]["outcomes"].items() if count}
    assert outcomes == expected["outcomes"], said
    assert report["status"] == report["exit_code"] == expected["exit_code"], said
    assert report["violations"] == []
    assert sum(report["packets"]["dropped"].values()) + report["packets"]["used"] == (
        report["packets"]["captured"]
    )


@pytest.mark.parametrize("name", NAMES)
def test_inspect_sees_the_same_sessions(name: str) -> None:
    """What is replayed is what `tcpcopy inspect` shows."""
    expected = json.loads((CASES / f"{name}.expected.json").read_text())
    if set(expected["outcomes"]) != {"replayed"}:
        pytest.skip("not all of it can be replayed")
    path = str(CASES / f"{name}.pcap")
    found = to_json(inspect(open_recorded([path]), [path]))
    assert found["sessions"]["total"] == found["sessions"]["whole"] == len(expected["streams"])
    (server,) = found["tcp_servers"]
    assert server["client_bytes"] == sum(len(stream) for stream in expected["streams"])
