"""The table of SYNs that wait: bounded in entries and bytes, and no session goes uncounted."""

from __future__ import annotations

import pytest

from tcpcopy.engine.half_open import (
    MOST_BYTES,
    MOST_WAITING,
    SYN_OFFSET,
    HalfOpen,
    keep_syn,
    syn_sessions,
    syn_time,
)
from tcpcopy.packet.segment import Segment, parse
from tests.sim.model import wire


def kept(packet: bytes, start: int = 0, time_ns: int = 5, sessions: int = 1) -> bytes:
    segment = Segment()
    assert parse(segment, packet, start, len(packet), len(packet) - start) == 0
    return keep_syn(segment, packet, time_ns, sessions)


def syn(address: bytes = bytes((10, 0, 0, 1)), payload: bytes = b"") -> bytes:
    target = bytes((10, 0, 0, 2)) if len(address) == 4 else bytes(15) + b"\2"
    return wire.encode(
        wire.Segment(address, 4000, target, 80, 77, 0, wire.SYN, 1000, payload, mss=1400)
    )


@pytest.mark.parametrize("address", [bytes((10, 0, 0, 1)), bytes(15) + b"\1"])
@pytest.mark.parametrize("payload", [b"", b"early data"])
def test_a_syn_is_kept_whole_and_read_again(address: bytes, payload: bytes) -> None:
    packet = syn(address, payload)
    found = kept(b"xx" + packet + b"", 2, 9_000_000_000_000, 1023)
    assert (syn_time(found), syn_sessions(found)) == (9_000_000_000_000, 1023)
    assert found[SYN_OFFSET:] == packet


def test_what_stands_behind_the_packet_is_not_kept() -> None:
    packet = syn()
    segment = Segment()
    data = packet + bytes(6)  # padding of a short frame
    assert parse(segment, data, 0, len(data), len(data)) == 0
    assert keep_syn(segment, data, 1, 1)[SYN_OFFSET:] == packet


def test_found_and_taken_in_both_generations() -> None:
    table = HalfOpen()
    one, two = kept(syn(), sessions=2), kept(syn(), time_ns=6)
    assert table.oldest() is None
    assert table.put("one", one, 2) == 0
    assert table.turn() == 0
    assert table.put("two", two, 1) == 0
    assert table.find("one") == one and table.find("two") == two and table.find("x") is None
    assert (len(table), table.oldest()) == (2, one)
    assert table.take("one") == one
    assert table.take("two") == two
    assert table.take("two") is None
    assert (len(table), table.clear()) == (0, 0)


def test_what_expires_is_told_in_sessions() -> None:
    table = HalfOpen()
    table.put("one", kept(syn(), sessions=3), 3)
    table.put("two", kept(syn(), sessions=3), 3)
    assert table.turn() == 0
    table.put("three", kept(syn(), sessions=1), 1)
    table.take("two")
    assert table.turn() == 3
    assert [name for name, _ in table.items()] == ["three"]
    assert table.clear() == 1


@pytest.mark.parametrize("workers", [1, 4, 10_000])
def test_no_more_than_so_many_entries(workers: int) -> None:
    table = HalfOpen()
    table.divide(workers)
    entry = kept(syn())
    most = max(2048, MOST_WAITING // workers)
    pushed_out = sum(table.put(number, entry, 1) for number in range(3 * most))
    assert most // 2 <= len(table) <= most
    assert pushed_out + len(table) == 3 * most
    assert table.find(3 * most - 1) is not None and table.find(0) is None


def test_no_more_than_so_many_bytes() -> None:
    table = HalfOpen()
    entry = kept(syn(payload=bytes(1400)))
    for number in range(30_000):
        table.put(number, entry, 1)
    held = sum(len(one) for _, one in table.items())
    assert MOST_BYTES / 2 - len(entry) <= held <= MOST_BYTES + 2 * len(entry)
