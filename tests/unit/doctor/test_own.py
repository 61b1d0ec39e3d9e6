"""The ordinary handshake on loopback, and the packets that a probe writes."""

from __future__ import annotations

import errno
import os
import socket
import threading

import pytest

from tcpcopy.doctor.observed import Answer
from tcpcopy.doctor.own import OwnProbe
from tcpcopy.doctor.packets import PacketWriter
from tcpcopy.packet.batch import PacketBatch
from tcpcopy.packet.brief import RESET, SYN, read_brief
from tcpcopy.relay.probing import Flow

LOOPBACK = {4: b"\x7f\0\0\1", 6: bytes(15) + b"\1"}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="raw sockets need root")


class Memory:
    """An output that keeps what it is given, or refuses it."""

    def __init__(self, code: int = 0) -> None:
        self.errors: dict[int, int] = {}
        self.packets: list[bytes] = []
        self._code = code

    def send_batch(self, batch: PacketBatch) -> None:
        self.packets += [batch.packet(index) for index in range(batch.count)]
        if self._code:
            self.errors[self._code] = self.errors.get(self._code, 0) + 1


@pytest.mark.parametrize("version", [4, 6])
def test_segments(version: int) -> None:
    memory = Memory()
    writer = PacketWriter(memory)
    address = LOOPBACK[version]
    assert writer.syn(address, 1000, address, 80, 0xFFFFFFFF) == 0
    assert writer.reset(address, 1000, address, 80, 0x100000000) == 0
    syn, reset = (read_brief(packet) for packet in memory.packets)
    assert syn is not None and (syn.kind, syn.seq) == (SYN, 0xFFFFFFFF)
    assert reset is not None and (reset.kind, reset.seq) == (RESET, 0)
    assert (syn.source_port, syn.destination_port) == (1000, 80)


def test_each_refusal_is_told() -> None:
    writer = PacketWriter(Memory(errno.EPERM))
    for _ in range(2):
        assert writer.syn(LOOPBACK[4], 1, LOOPBACK[4], 2, 3) == errno.EPERM


@needs_root
@pytest.mark.parametrize("version", [4, 6])
def test_no_application_hears_of_it(version: int) -> None:
    """Answered, and never accepted."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    host = "127.0.0.1" if version == 4 else "::1"
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
        facts = OwnProbe(Flow(LOOPBACK[version], port, b"", 0), 1_000_000_000).run()
        assert facts.own.answer is Answer.SYN_ACK
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()


@needs_root
def test_closed_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    facts = OwnProbe(Flow(LOOPBACK[4], port, b"", 0), 1_000_000_000).run()
    assert facts.own.answer is Answer.RESET


def test_without_raw_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary connection, where that is allowed; else nothing at all."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr("tcpcopy.doctor.own.OwnAttempt", refuse)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        flow = Flow(LOOPBACK[4], port, b"", 0)
        with pytest.raises(PermissionError):
            OwnProbe(flow, 1_000_000_000, may_connect=False).run()
        accepted = []
        thread = threading.Thread(target=lambda: accepted.append(server.accept()[0]))
        thread.start()
        facts = OwnProbe(flow, 1_000_000_000).run()
        thread.join(5)
        accepted[0].close()
    assert facts.own.answer is Answer.SYN_ACK
    facts = OwnProbe(flow, 1_000_000_000).run()
    assert facts.own.answer is Answer.RESET
