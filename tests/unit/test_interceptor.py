"""Intercept's loop with made-up rings, and its filter; real capture is tested in tests/netns."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tcpcopy.capture.filters import compile_filter
from tcpcopy.errors import UsageError
from tcpcopy.interceptor import InterceptConfig, Interceptor, cut_to_headers
from tcpcopy.packet.handler import PacketHandler
from tcpcopy.relay.classic import MessageType, encode_message, encode_version
from tcpcopy.relay.native import RelayTerms
from tcpcopy.report.outcome import Drop
from tests.unit.relay.packets import ACK, CLIENT, SYN, TARGET, answer, batch, record


class FakeRing:
    """Hands on what it was given, as `capture.ring.Ring` does."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.dropped = 0
        self.failed: str | None = None
        self.device = "fake0"
        self.rebinds = 0
        self.closed = False
        self.descriptor = os.eventfd(0)

    def fileno(self) -> int:
        return self.descriptor

    def drain(self, handler: PacketHandler, limit: int) -> int:
        now, self.packets = self.packets[:limit], self.packets[limit:]
        for packet in now:
            handler.packet(packet, 0, len(packet), len(packet), 0)
        return len(now)

    def statistics(self) -> tuple[int, int]:
        return 0, self.dropped

    def check_device(self) -> None:
        pass  # it is there

    def rebind(self) -> bool:
        self.rebinds += 1
        self.failed = None
        return True

    def close(self) -> None:
        if not self.closed:
            os.close(self.descriptor)
        self.closed = True


@pytest.fixture
def ring() -> FakeRing:
    return FakeRing()


@pytest.fixture
def interceptor(ring: FakeRing) -> Iterator[Interceptor]:
    """Listens on loopback, captures from the fake ring."""
    interceptor = Interceptor(InterceptConfig(host="127.0.0.1", port=0))
    interceptor.listen()
    interceptor.add_ring(ring)  # type: ignore[arg-type]
    yield interceptor
    interceptor.close()


def tcpcopy(interceptor: Interceptor, *ports: int) -> socket.socket:
    """A connected tcpcopy that has announced sessions, none of it read yet."""
    peer = socket.create_connection(("127.0.0.1", interceptor.server.port), timeout=5)
    hello = encode_version()
    for port in ports:
        hello += encode_message(MessageType.ADD, CLIENT, port, TARGET, 8080)
    peer.sendall(hello)
    return peer


def step_until(interceptor: Interceptor, announced: int) -> None:
    deadline = time.monotonic() + 5
    while interceptor.router.announced < announced:
        assert time.monotonic() < deadline
        interceptor.step(0)


def test_announcements_are_taken_before_packets_and_answers_leave_in_the_same_step(
    interceptor: Interceptor, ring: FakeRing
) -> None:
    with tcpcopy(interceptor) as peer:
        while not interceptor.server.connections:
            interceptor.step(0)
        peer.sendall(encode_message(MessageType.ADD, CLIENT, 7, TARGET, 8080))
        time.sleep(0.05)  # it has arrived, and was not read yet
        packets = [answer(client_port=7, payload=bytes(size)) for size in range(20)]
        ring.packets = list(packets)
        assert interceptor.step(0) == 20
        assert interceptor.router.relayed == 20 and interceptor.router.kept == 0
        records = [record(packet) for packet in packets]
        expected = batch(*records[:16]) + batch(*records[16:])
        assert peer.recv(len(expected), socket.MSG_WAITALL) == expected


def test_filter_cuts_packets_to_headers_and_keeps_its_verdicts() -> None:
    """Only accepted lengths change: same instructions, none accepts more than a record needs."""
    program = compile_filter("ip and (tcp and src port 8080)")
    cut = cut_to_headers(program)
    assert len(cut) == len(program)
    pairs = list(
        zip(struct.iter_unpack("=HBBI", program), struct.iter_unpack("=HBBI", cut), strict=True)
    )
    changed = [(old, new) for old, new in pairs if old != new]
    assert changed
    for old, new in changed:
        assert old[:3] == new[:3] and old[0] == 0x06
        assert 256 <= new[3] < old[3]
    verdicts = [new[3] for _, new in pairs if new[0] == 0x06]
    assert 0 in verdicts, "what was refused stays refused"


def test_default_filter_leaves_out_the_relay_itself() -> None:
    config = InterceptConfig(port=12345)
    assert Interceptor(config).filter_expression == "tcp and not tcp dst port 12345"
    config = InterceptConfig(filter="src host 1.2.3.4")
    assert Interceptor(config).filter_expression == "src host 1.2.3.4"


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (InterceptConfig(filter="bogus words"), "-F 'bogus words': "),
        (InterceptConfig(devices=("nope0",)), "-i nope0: there is no such device; "),
        (InterceptConfig(host="192.0.2.1", port=0), "-b 192.0.2.1: not an address of this host; "),
    ],
)
def test_bad_usage_is_refused_with_nothing_left_open(config: InterceptConfig, line: str) -> None:
    if config.host and os.geteuid() != 0:
        pytest.skip("needs the right to capture to get as far")
    before = set(os.listdir("/proc/self/fd"))
    interceptor = Interceptor(config)
    with pytest.raises(UsageError) as error:
        interceptor.open()
    assert str(error.value).startswith(line)
    interceptor.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_run_serves_until_told_to_stop(interceptor: Interceptor, ring: FakeRing) -> None:
    """Idle it wakes rarely; the descriptor of the signals wakes it at once."""
    read_fd, write_fd = os.pipe()
    rounds = 0

    def stopping() -> bool:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            os.write(write_fd, b"x")
        return rounds > 3

    began = time.monotonic()
    interceptor.run(read_fd, stopping)
    assert 0.3 < time.monotonic() - began < 3  # two idle rounds of a quarter of a second
    os.close(read_fd)
    os.close(write_fd)


def test_housekeeping_brings_a_device_back(
    interceptor: Interceptor, ring: FakeRing, caplog: pytest.LogCaptureFixture
) -> None:
    ring.failed = "device fake0 is gone"
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"x")
    rounds = iter([False, True])
    with caplog.at_level(logging.INFO, "tcpcopy"):
        interceptor.run(read_fd, lambda: next(rounds))
    assert ring.rebinds == 1
    assert "device fake0 is back" in caplog.text
    os.close(read_fd)
    os.close(write_fd)


def test_report_tells_counts_and_losses_once(
    interceptor: Interceptor, ring: FakeRing, caplog: pytest.LogCaptureFixture
) -> None:
    peer = tcpcopy(interceptor, 7)
    step_until(interceptor, 1)
    ring.packets = [
        answer(client_port=7),
        answer(client_port=8),
        answer(client_port=9, flags=SYN | ACK),
    ]
    ring.dropped = 5
    interceptor.step(0)
    with caplog.at_level(logging.INFO, "tcpcopy"):
        interceptor.report()
        interceptor.report()
    text = caplog.text
    assert text.count("answers 3: relayed 1, early 1 (sent 0, expired 0), unused 1;") == 1
    assert "unused: 1 an answer for no session" in text
    assert "5 answers lost by the kernel" in text
    peer.close()


def test_close_closes_the_rings(ring: FakeRing) -> None:
    interceptor = Interceptor(InterceptConfig())
    interceptor.add_ring(ring)  # type: ignore[arg-type]
    interceptor.close()
    interceptor.close()
    assert ring.closed


# --- whoever connects -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "is_open"),
    [
        ({}, True),
        ({"host": "10.0.0.3"}, True),
        ({"host": "127.0.0.1"}, False),
        ({"host": "::1"}, False),
        ({"allowed": (ipaddress.ip_network("10.0.0.0/24"),)}, False),
        ({"relay": RelayTerms(secret=b"x" * 16)}, False),
        ({"relay": RelayTerms(tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))}, True),
    ],
)
def test_what_is_open(change: dict[str, Any], is_open: bool) -> None:
    assert InterceptConfig(**change).is_open is is_open


def test_nothing_for_this_host_is_relayed(interceptor: Interceptor, ring: FakeRing) -> None:
    """Its addresses are known before anybody can connect; refused, counted, and said."""
    here = bytes([127, 0, 0, 1])
    peer = tcpcopy(interceptor)
    peer.sendall(encode_message(MessageType.ADD, here, 9, TARGET, 8080))
    until = time.monotonic() + 5
    while not interceptor.router.announced:
        assert time.monotonic() < until
        interceptor.step(0)
    ring.packets = [answer(client=here, client_port=9, flags=flags) for flags in (SYN | ACK, ACK)]
    interceptor.step(0)
    assert interceptor.router.drops[Drop.OWN_ADDRESS] == 2
    assert (interceptor.router.refused_own, interceptor.router.sessions) == (1, 0)
    peer.close()
