"""Finding sessions by the numbers in packets' headers."""

from __future__ import annotations

from random import Random
from typing import Any

from tcpcopy.engine.context import Context, EngineConfig
from tcpcopy.engine.flows import FlowKey, FlowTable
from tcpcopy.engine.session import Session
from tcpcopy.packet.batch import PacketBatch, PacketSink
from tcpcopy.packet.segment import Segment, flow_key, parse
from tests.sim.model import wire

CONTEXT = Context(EngineConfig(), PacketBatch(PacketSink()))


def key_of(source: bytes, source_port: int, destination: bytes, port: int) -> FlowKey:
    key = FlowKey()
    key.of(source, source_port, destination, port)
    return key


def session_of(key: FlowKey) -> Session:
    session = Session(CONTEXT, 0, None)
    session.captured_addresses, session.captured_ports = key.addresses, key.ports
    session.captured_wide = key.wide
    return session


def parts(key: FlowKey) -> tuple[Any, ...]:
    return key.addresses, key.ports, key.wide


def random_key(random: Random, wide: bool) -> FlowKey:
    size = 16 if wide else 4
    # Few addresses and ports: many keys differ in one number only.
    source = bytes(size - 1) + bytes((random.randrange(8),))
    return key_of(source, 1024 + random.randrange(16), bytes(size), 80 + random.randrange(2))


def test_key_of_a_packet_is_that_of_its_numbers() -> None:
    for size in (4, 16):
        source, destination = bytes(range(size)), bytes(range(100, 100 + size))
        packet = wire.encode(wire.Segment(source, 40001, destination, 80, seq=1, flags=2))
        segment = Segment()
        assert parse(segment, packet, 0, len(packet), len(packet)) == 0
        key = key_of(source, 40001, destination, 80)
        assert session_of(key).captured_client() == (source, 40001)
        in_packet = flow_key(segment, packet)
        assert key.name() == (in_packet if size == 16 else int.from_bytes(in_packet, "big"))


def test_a_key_from_its_name() -> None:
    """Of both families, and told apart by their networks."""
    for size in (4, 16):
        source, destination = bytes(range(200, 200 + size)), bytes(range(100, 100 + size))
        packet = wire.encode(wire.Segment(source, 40001, destination, 80, seq=1, flags=2))
        segment = Segment()
        assert parse(segment, packet, 0, len(packet), len(packet)) == 0
        key = key_of(source, 40001, destination, 80)
        other = key_of(source, 40001, destination, 80)
        other.in_realm(segment, packet, 3)
        assert other.name() != key.name()
        session = session_of(other)
        table = FlowTable(0, False)
        table.add(session)
        found = FlowKey()
        found.named(key.name())
        assert parts(found) == parts(key)
        found.named(other.name())
        assert parts(found) == parts(other) and table.find(found) is session


def test_nothing_is_found_but_what_is_there() -> None:
    table = FlowTable(0, False)
    key = key_of(bytes((10, 0, 0, 1)), 1000, bytes((10, 0, 0, 2)), 80)
    assert table.find(key) is None
    assert len(table) == 0
    session = session_of(key)
    table.add(session)
    assert table.find(key) is session
    for other in (
        key_of(bytes((10, 0, 0, 2)), 1000, bytes((10, 0, 0, 1)), 80),
        key_of(bytes((10, 0, 0, 1)), 80, bytes((10, 0, 0, 2)), 1000),
        key_of(bytes((10, 0, 0, 1)), 1001, bytes((10, 0, 0, 2)), 80),
        key_of(bytes(16), 1000, bytes(16), 80),
    ):
        assert table.find(other) is None
    assert list(table) == [session]


def test_families_are_told_apart_where_their_numbers_agree() -> None:
    """The numbers of an IPv6 key are a hash: a hash that agrees is not enough."""
    wide = key_of(bytes(16), 1000, bytes(16), 80)
    table = FlowTable(0, False)
    table.add(session_of(wide))
    forged = key_of(bytes(4), 1000, bytes(4), 80)
    forged.addresses = wide.addresses
    assert table.find(forged) is None
    other = key_of(bytes(16), 1000, bytes(15) + b"\1", 80)
    other.addresses = wide.addresses
    assert table.find(other) is None
    assert table.find(wide) is not None


def test_replace_and_remove() -> None:
    table = FlowTable(3, False)
    key = key_of(bytes((10, 0, 0, 1)), 1000, bytes((10, 0, 0, 2)), 80)
    first, second = session_of(key), session_of(key)
    table.add(first)
    table.replace(first, second)
    assert table.find(key) is second
    assert not table.remove(first)
    assert table.remove(second)
    assert not table.remove(second)
    assert len(table) == 0 and list(table) == []


def test_table_is_a_dictionary() -> None:
    for seed in range(20):
        random = Random(seed)
        table = FlowTable(seed, False)
        model: dict[tuple[Any, ...], Session] = {}
        for _ in range(3000):
            key = random_key(random, wide=random.random() < 0.3)
            found = table.find(key)
            assert found is model.get(parts(key))
            if found is None:
                model[parts(key)] = session_of(key)
                table.add(model[parts(key)])
            elif random.random() < 0.7:
                assert table.remove(found)
                del model[parts(key)]
            assert len(table) == len(model)
        assert {id(session) for session in table} == {id(session) for session in model.values()}


def test_sessions_come_and_go_while_it_is_walked() -> None:
    """Those that stay are met once each, as when a relay is told of them over many turns."""
    table = FlowTable(0, False)
    random = Random(4)
    sessions = {}
    for number in range(3000):
        key = key_of(random.randbytes(4), 1024 + number, bytes(4), 80)
        sessions[number] = session_of(key)
    for number in range(1000):
        table.add(sessions[number])
    met = []
    for turn, session in enumerate(table):
        met.append(id(session))
        table.add(sessions[1000 + turn])
        if turn == 500:
            for number in range(100):
                table.remove(sessions[number])
    assert len(met) == len(set(met))
    assert {id(sessions[number]) for number in range(100, 1000)} <= set(met)
