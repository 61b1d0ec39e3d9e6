"""What socket mode tells of ports and lines while it runs."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tcpcopy import socket_side
from tcpcopy.deliver.lines import Line
from tcpcopy.deliver.ports import PortSettings
from tcpcopy.deliver.sockets import SocketTransport
from tcpcopy.report.counters import PortCounts, Snapshot
from tcpcopy.socket_side import SocketWatch
from tests.unit.engine.rig import SECOND

TARGET = bytes((10, 0, 0, 3))
START = 1000 * SECOND
SETTINGS = PortSettings(20000, 20099)


class World:
    def __init__(self, workers: int = 1, addresses: tuple[bytes, ...] = ()) -> None:
        self.transport = SocketTransport(lambda client: None, 600 * SECOND, workers=workers)
        self.transport.ports.addresses = addresses
        self.watch = SocketWatch(self.transport)
        address = addresses[0] if addresses else b""
        self.use = self.transport.ports.use(address, TARGET, 80)
        self.now = START

    def connect(self, count: int) -> None:
        for _ in range(count):
            self.use.begun(0)

    def look(self, after_s: int = 1) -> None:
        self.now += after_s * SECOND
        self.watch.look(self.now)


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_side, "read_settings", lambda: SETTINGS)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    caplog.set_level(logging.INFO, logger="tcpcopy")
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Handler()
    logging.getLogger("tcpcopy.socket_side").addHandler(handler)
    yield lines
    logging.getLogger("tcpcopy.socket_side").removeHandler(handler)


def test_four_fifths_of_the_ports(said: list[str]) -> None:
    world = World()
    world.look()
    world.connect(79)
    world.look()
    assert said == []
    world.connect(1)
    world.look()
    assert said[0].startswith("80 of 100 local ports towards 10.0.0.3:80 are in use (80 %); 1 new")
    assert "100 ports are enough for 1/s" in said[0]
    text = "\n".join(said)
    for mend in ("ip_local_port_range", "-c", "tcp_tw_reuse=1"):
        assert mend in text
    said.clear()
    world.connect(20)
    world.look(100)
    assert said == [], "told once"
    for _ in range(60):
        world.use.ended(0, False, world.now)
    world.look()
    world.connect(60)
    world.look()
    assert said[0].startswith("100 of 100"), "and again when it comes back"


def test_a_part_of_the_workers_and_one_of_several_addresses(said: list[str]) -> None:
    own = bytes((10, 0, 0, 8))
    world = World(workers=4, addresses=(own, bytes((10, 0, 0, 9))))
    world.connect(19)
    world.look()
    assert said == []
    world.connect(1)
    world.look()
    assert said[0].startswith("80 of 100 local ports towards 10.0.0.3:80 are in use (80 %)")
    assert "from 10.0.0.8;" in said[0] and "200 ports are enough for 3/s" in said[0]
    snapshot = Snapshot()
    world.watch.fill(snapshot)
    assert snapshot.ports == PortCounts(available=25, most_used=20)


def test_lines_are_told_and_their_end(said: list[str]) -> None:
    world = World()
    lines = world.transport.lines
    line = lines.lines[(TARGET, 80)] = Line((TARGET, 80), errno.ENETUNREACH, START)
    line.waited = 7
    world.watch.look(START + SECOND - 1)
    assert said == [], "a moment is nothing"
    world.look(1)
    assert said[0].startswith("no connect to 10.0.0.3:80 can begin: ENETUNREACH (Network is unr")
    assert "ip route get 10.0.0.3" in said[1]
    said.clear()
    world.look(1)
    assert said == []
    lines.lines.clear()
    world.look(2)
    assert said == ["10.0.0.3:80 is within reach again, after 4 s; 7 sessions waited"]


def test_line_of_the_process(said: list[str]) -> None:
    world = World()
    line = Line(None, errno.EMFILE, START)
    world.transport.lines.lines[None] = line
    world.look(2)
    assert said[0].startswith("no connect to any target can begin: EMFILE")
    assert "ulimit -n" in said[1]
    world.transport.lines.lines.clear()
    world.look()
    assert "connects go on" in said[2]


def test_settings_that_change_are_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.look()
    assert world.transport.ports.settings == SETTINGS
    wider = replace(SETTINGS, high=29999)
    monkeypatch.setattr(socket_side, "read_settings", lambda: wider)
    world.look()
    assert world.transport.ports.settings == wider
