"""Answers of UDP targets find their legs, ICMP errors too, and junk finds none."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.engine.answered import AnsweredOutput, DatagramAnswers
from tcpcopy.engine.flow import DatagramCounts, Flow, Leg
from tcpcopy.engine.forged import LEAST_CAPACITY
from tcpcopy.mapping.allocator import Allocator
from tcpcopy.mapping.clients import parse_clients
from tcpcopy.packet.batch import PacketBatch, PacketSink

FAMILIES = {
    4: ("10.254.0.0/16", "127.0.0.1", "10.0.0.1"),
    6: ("fd01::/64", "::1", "fd00::1"),
}


class _Sink(PacketSink):
    def send_batch(self, batch: PacketBatch) -> None:
        pass


class World:
    """One output with one leg, and what came of answers."""

    def __init__(self, family: int = 4) -> None:
        pool, target, self.other = FAMILIES[family]
        self.counts = DatagramCounts()
        self.found: list[tuple[Leg, int]] = []
        batch = PacketBatch(_Sink(), LEAST_CAPACITY, 1500)
        allocator = Allocator(parse_clients(pool), cooldown_ns=0)
        self.output = AnsweredOutput(batch, self.counts, allocator, 1500)
        self.answers = DatagramAnswers(
            self.output, self.counts, lambda leg, length: self.found.append((leg, length))
        )
        self.leg = self.open(target)

    def open(self, target: str, port: int = 53) -> Leg:
        leg = Leg(Flow(b"key", 0), ipaddress.ip_address(target).packed, port)
        assert self.output.open(leg, b"\x01\x02\x03\x04", 5000, 0) == 0
        return leg

    def feed(self, packet: bytes) -> int:
        return self.answers.packet(packet, 0, len(packet), len(packet), 0)


def ip(
    source: bytes, destination: bytes, protocol: int, payload: bytes, fragment: int = 0
) -> bytes:
    """An IP packet; `fragment`: offset and flag as they stand in the header."""
    if len(source) == 4:
        length = 20 + len(payload)
        head = struct.pack("!BBHHHBBH", 0x45, 0, length, 7, fragment, 64, protocol, 0)
        return head + source + destination + payload
    if fragment:
        payload = struct.pack("!BBHI", protocol, 0, fragment, 7) + payload
        protocol = 44
    head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64)
    return head + source + destination + payload


def udp(source: int, destination: int, length: int) -> bytes:
    return struct.pack("!HHHH", source, destination, 8 + length, 0)


def answer(leg: Leg, length: int, fragment: int = 0) -> bytes:
    return ip(leg.target_address, leg.address, 17, udp(leg.target_port, leg.port, length), fragment)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer(family: int) -> None:
    """Its length is that of the datagram, of which no more than the headers need be there."""
    world = World(family)
    assert world.feed(answer(world.leg, 30_000)) == 0
    assert world.found == [(world.leg, 30_000)]


@pytest.mark.parametrize("family", FAMILIES)
def test_fragments(family: int) -> None:
    """The first fragment stands for the datagram; the others count nothing."""
    world = World(family)
    more, later = (0x2000, 0x20B9) if family == 4 else (0x0001, 0x05A9)
    assert world.feed(answer(world.leg, 3000, more)) == 0
    assert world.feed(answer(world.leg, 3000, later)) != 0
    assert world.found == [(world.leg, 3000)]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_from_another_address(family: int) -> None:
    """A server on all addresses answers from one of the kernel's choice: its port tells it."""
    world = World(family)
    leg = world.leg
    other = ipaddress.ip_address(world.other).packed
    assert world.feed(ip(other, leg.address, 17, udp(53, leg.port, 9))) == 0
    assert world.feed(ip(other, leg.address, 17, udp(54, leg.port, 9))) != 0
    assert world.found == [(leg, 9)]


def test_two_targets_of_one_port() -> None:
    """The address tells them apart, where it is there."""
    world = World()
    second = world.open("127.0.0.2")
    for leg in (second, world.leg):
        world.feed(answer(leg, 1))
    assert world.found == [(second, 1), (world.leg, 1)]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_error(family: int) -> None:
    """ICMP tells with the packet that it is about that nobody took it."""
    world = World(family)
    leg = world.leg
    sent = ip(leg.address, leg.target_address, 17, udp(leg.port, 53, 10))
    protocol, kind = (1, 3) if family == 4 else (58, 1)
    error = ip(leg.target_address, leg.address, protocol, bytes([kind, 3]) + bytes(6) + sent)
    assert world.feed(error) == 0
    assert (leg.refused, world.counts.refusals, world.found) == (1, 1, [])
    echo = ip(leg.target_address, leg.address, protocol, bytes(8) + sent)
    assert world.feed(echo) != 0 and leg.refused == 1


def test_a_leg_that_is_closed_is_not_found() -> None:
    world = World()
    packet = answer(world.leg, 1)
    world.output.close(world.leg)
    assert world.feed(packet) != 0
    assert world.output.legs == {} and world.output.by_port == {}


@given(st.binary(max_size=120), st.sampled_from(sorted(FAMILIES)))
def test_any_bytes(junk: bytes, family: int) -> None:
    """Whatever comes, also with sound beginnings, is no exception."""
    world = World(family)
    sound = answer(world.leg, 5)
    leg = world.leg
    inner = ip(leg.target_address, leg.address, 1 if family == 4 else 58, junk)
    for packet in (junk, sound[: len(junk)] + junk, sound[: len(junk)], inner):
        world.feed(packet)
