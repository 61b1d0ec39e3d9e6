"""What is taken out of tunnels goes on when -x names it; all else goes straight on."""

from __future__ import annotations

from typing import Any

import pytest

from tcpcopy.capture import filters
from tcpcopy.capture.backlog import Backlog
from tcpcopy.capture.unwrapping import Unwrapping
from tcpcopy.packet.handler import PacketHandler
from tests.lab import capture_files as make
from tests.lab import encapsulations as wrapped
from tests.unit.capture.test_capture_filters import passes

CLIENT, SERVER = "10.9.0.2:40000", "10.9.0.1:80"
TCP = make.tcp(CLIENT, SERVER, make.ACK, b"data")
SOURCES = [(bytes((10, 9, 0, 1)), 80)]
EXPRESSION = filters.expression_for(SOURCES, [(bytes((10, 9, 0, 7)), 80)])


class Recorder(PacketHandler):
    """Keeps what it is given, and the network that it was in."""

    def __init__(self) -> None:
        self.network = 0
        self.packets: list[tuple[bytes, int, int]] = []

    def enter(self, network: int) -> None:
        self.network = network

    def packet(self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int) -> int:
        self.packets.append((bytes(data[start:end]), wire_length, self.network))
        return 7


class Rig:
    """Unwrapping before a recorder."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.unwrapping = Unwrapping(self.recorder, [80, 4789], filters.matcher(EXPRESSION))

    def give(self, packet: bytes, network: int = 0) -> int:
        data = b"\xee" * 4 + packet + b"\xee" * 3
        self.unwrapping.enter(network)
        said = self.unwrapping.packet(data, 4, 4 + len(packet), len(packet), 1)
        self.unwrapping.enter(0)
        assert self.recorder.network == 0
        return said

    @property
    def packets(self) -> list[bytes]:
        return [packet for packet, _, _ in self.recorder.packets]


def test_what_is_in_no_tunnel_goes_on_as_it_is() -> None:
    rig = Rig()
    others = [
        TCP,
        make.tcp(CLIENT, "10.9.0.1:81", make.ACK, b"the kernel has let it through"),
        make.udp(CLIENT, "10.9.0.1:53", b"question"),
        b"\x45",
    ]
    assert [rig.give(packet) for packet in others] == [7] * len(others)
    assert rig.packets == others
    assert rig.give(TCP, network=5) == 7 and rig.recorder.packets[-1][2] == 5


@pytest.mark.parametrize("name", [name for name in wrapped.TUNNELS if name != "pbb"])
def test_tunnels_are_taken_off(name: str) -> None:
    rig = Rig()
    assert rig.give(wrapped.TUNNELS[name][1](TCP)[14:]) == 7
    assert rig.packets == [TCP] and rig.recorder.packets[0][1] == len(TCP)


def test_networks_are_those_of_device_and_tunnel() -> None:
    rig = Rig()
    packet = wrapped.vxlan(make.ethernet(TCP), vni=9)
    for network in (0, 5, 6):
        rig.give(packet, network)
    found = [network for _, _, network in rig.recorder.packets]
    assert len({0, *found}) == 4


def test_what_is_not_named_is_left_out() -> None:
    rig = Rig()
    for inner in (
        make.tcp("10.9.0.1:80", "10.9.0.2:40000", make.ACK, b"answer"),
        make.tcp(CLIENT, "10.9.0.1:81", make.ACK, b"other port"),
        make.tcp(CLIENT, "10.9.0.9:80", make.ACK, b"other host"),
        make.tcp(CLIENT, "10.9.0.7:80", make.ACK, b"the target"),
        make.udp(CLIENT, "10.9.0.1:80", b"no TCP"),
        make.ip(CLIENT, SERVER, 1, bytes(30)),
    ):
        assert rig.give(wrapped.gre(inner, 0x0800)) == 0
    assert rig.packets == [] and rig.unwrapping.left_out == 6
    assert rig.unwrapping.unwrapper.tunnelled == 6


def test_fragments_are_kept_until_the_packet_is_whole() -> None:
    rig = Rig()
    long = make.tcp(CLIENT, SERVER, make.ACK, bytes(2000))
    parts = wrapped.fragments(wrapped.vxlan(make.ethernet(long)), 800)
    assert [rig.give(part) for part in parts] == [0] * (len(parts) - 1) + [7]
    assert rig.packets == [long]


def test_the_filter_lets_tunnels_through_and_their_fragments() -> None:
    program = filters.compile_filter(filters.tunnels_expression())
    assert not passes(program, TCP)
    assert not passes(program, make.udp(CLIENT, "10.9.0.1:53", b"question"))
    for name in wrapped.TUNNELS:
        if name != "pbb":
            frame = wrapped.TUNNELS[name][1](make.tcp(CLIENT, SERVER, make.ACK, bytes(2000)))
            for part in wrapped.fragments(frame[14:], 800):
                assert passes(program, part), name
    whole = filters.compile_filter(f"{EXPRESSION} or {filters.tunnels_expression()}")
    assert passes(whole, TCP)


def test_the_backlog_keeps_networks() -> None:
    backlog, recorder = Backlog(), Recorder()
    for network in (0, 5, 0, 6):
        backlog.enter(network)
        backlog.packet(TCP, 0, len(TCP), len(TCP), 1)
    assert backlog.hand_on(recorder, 9) == 4
    assert [network for _, _, network in recorder.packets] == [0, 5, 0, 6]
    assert recorder.network == 0
