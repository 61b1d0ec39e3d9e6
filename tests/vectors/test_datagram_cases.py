"""Captures of UDP that once went wrong (tests/cases/udp), replayed to a socket on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tcpcopy.recorded.inspect import inspect, to_json
from tcpcopy.recorded.stream import open_recorded

CASES = Path(__file__).resolve().parents[1] / "cases" / "udp"
NAMES = sorted(path.stem for path in CASES.glob("*.pcap"))


def replay(name: str, port: int, folder: Path) -> tuple[list[str], dict[str, Any], str]:
    """What the server received, the JSON report, and what was printed."""
    report = folder / "report.json"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.2)  # all has been sent by then
        target = f"{port}-127.0.0.1:{server.getsockname()[1]}"
        command = [sys.executable, "-m", "tcpcopy", "--udp", "-i", str(CASES / f"{name}.pcap")]
        command += ["--fast", "-x", target, "--json", str(report)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        received = []
        try:
            while True:
                received.append(server.recv(2048).decode())
        except TimeoutError:
            pass
    return received, json.loads(report.read_text()), run.stdout + run.stderr


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str, tmp_path: Path) -> None:
    expected = json.loads((CASES / f"{name}.expected.json").read_text())
    received, report, said = replay(name, expected["port"], tmp_path)
    assert sorted(received) == expected["datagrams"], said
    assert report["violations"] == []
    found = to_json(inspect(open_recorded([str(CASES / f"{name}.pcap")]), [name]))
    (server,) = found["udp_servers"]
    assert server["client_packets"] == len(expected["datagrams"])


def test_there_are_cases() -> None:
    assert len(NAMES) >= 2
