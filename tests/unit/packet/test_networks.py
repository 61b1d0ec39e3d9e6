"""Connections with the same addresses and ports in several networks: told apart, or one."""

from __future__ import annotations

import pytest

from tcpcopy.packet.networks import NetworkTable, realm_bytes
from tcpcopy.packet.segment import Segment, parse
from tests.lab import capture_files as make
from tests.lab.capture_files import ACK, FIN, RST, SYN

CLIENT, SERVER = "10.9.0.2:40000", "10.9.0.1:80"
KEY = b"same"


class Rig:
    """A table that is asked about the packets of one pair of addresses."""

    def __init__(self) -> None:
        self.table = NetworkTable()
        self.segment = Segment()

    def ask(self, network: int, flags: int, seq: int, payload: bytes = b"", *, ack: int = 0,
            server: bool = False, known_seq: int = -1) -> int:  # fmt: skip
        ends = (SERVER, CLIENT) if server else (CLIENT, SERVER)
        packet = make.tcp(*ends, flags, payload, seq=seq, ack=ack)
        assert parse(self.segment, packet, 0, len(packet), len(packet)) == 0
        return self.table.realm(KEY, not server, self.segment, network, known_seq)

    def talk(self, network: int, isn: int, server_isn: int, requests: int = 3) -> list[int]:
        """A whole conversation; the realm of each packet."""
        seq, answer = isn + 1, server_isn + 1
        found = [
            self.ask(network, SYN, isn),
            self.ask(network, SYN | ACK, server_isn, ack=seq, server=True),
            self.ask(network, ACK, seq, ack=answer),
        ]
        for _ in range(requests):
            found.append(self.ask(network, ACK, seq, b"request", ack=answer))
            seq += 7
            found.append(self.ask(network, ACK, answer, b"ok", ack=seq, server=True))
            answer += 2
        found.append(self.ask(network, FIN | ACK, seq, ack=answer))
        return found


def test_one_network_is_one_realm() -> None:
    rig = Rig()
    assert set(rig.talk(7, 1000, 5000)) == {0}
    assert set(rig.talk(7, 3_000_000_000, 9)) == {0}  # the port is used again
    assert rig.table.told_apart == 0


@pytest.mark.parametrize("other", [8, 0], ids=["two VLANs", "one without"])
def test_two_connections_at_the_same_time(other: int) -> None:
    rig = Rig()
    first = [rig.ask(7, SYN, 1000), rig.ask(7, SYN | ACK, 5000, ack=1001, server=True)]
    second = [
        rig.ask(other, SYN, 1 << 30),
        rig.ask(other, SYN | ACK, 99, ack=(1 << 30) + 1, server=True),
    ]
    for turn in range(5):
        first.append(rig.ask(7, ACK, 1001 + turn, b"a", ack=5001))
        second.append(rig.ask(other, ACK, (1 << 30) + 1 + turn, b"b", ack=100))
        first.append(rig.ask(7, ACK, 5001, ack=1002 + turn, server=True))
        second.append(rig.ask(other, ACK, 100, ack=(1 << 30) + 2 + turn, server=True))
    first.append(rig.ask(7, RST, 1006))
    second.append(rig.ask(other, RST, (1 << 30) + 6))
    assert set(first) == {0} and set(second) == {1}
    assert rig.table.told_apart == 1


def test_one_connection_seen_in_two_networks() -> None:
    """Before and after a router on a trunk, or tagged on a device and untagged on another."""
    rig = Rig()
    found = []
    for flags, seq, payload, ack, server in (
        (SYN, 1000, b"", 0, False),
        (SYN | ACK, 5000, b"", 1001, True),
        (ACK, 1001, b"request", 5001, False),
        (ACK, 5001, b"answer", 1008, True),
        (FIN | ACK, 1008, b"", 5007, False),
        (RST, 1009, b"", 0, False),
    ):
        found += [
            rig.ask(network, flags, seq, payload, ack=ack, server=server) for network in (7, 8, 0)
        ]
    assert set(found) == {0} and rig.table.told_apart == 0


def test_the_port_is_used_again_and_seen_twice_again() -> None:
    rig = Rig()
    for isn in (1000, 2_000_000_000, 77):
        for network in (7, 8):
            assert rig.ask(network, SYN, isn) == 0
            assert rig.ask(network, ACK, isn + 1, b"request", ack=5) == 0


def test_the_port_is_used_again_by_different_connections() -> None:
    """What was one connection in two networks need not be one the next time."""
    rig = Rig()
    assert rig.ask(7, SYN, 1000) == rig.ask(8, SYN, 1000) == 0
    assert rig.ask(7, SYN, 1 << 30) == 0
    assert rig.ask(8, SYN, 3 << 30) == 1


def test_directions_in_different_networks_are_one_connection() -> None:
    rig = Rig()
    assert rig.ask(7, SYN, 1000) == 0
    assert rig.ask(8, SYN | ACK, 5000, ack=1001, server=True) == 0
    assert rig.ask(7, ACK, 1001, b"request", ack=5001) == 0
    assert rig.ask(8, ACK, 5001, b"answer", ack=1008, server=True) == 0


def test_picked_up_in_mid_stream() -> None:
    rig = Rig()
    assert rig.ask(7, ACK, 1000, b"a", ack=5000) == 0
    assert rig.ask(8, ACK, 1 << 31, b"b", ack=7) == 1
    assert rig.ask(8, ACK, 7, b"answer", ack=(1 << 31) + 1, server=True) == 1
    assert rig.ask(7, ACK, 5000, b"answer", ack=1001, server=True) == 0
    assert rig.ask(7, ACK, 1001, b"a", ack=5006) == 0


def test_a_connection_that_was_open_before_there_was_a_network() -> None:
    """Its session has the key without a realm: it keeps it, and the newcomer gets another."""
    rig = Rig()
    assert rig.ask(7, SYN, 1 << 30, known_seq=1234) == 1
    assert rig.ask(0, ACK, 1234, b"a", ack=5, known_seq=1234) == 0
    assert rig.ask(7, ACK, (1 << 30) + 1, b"b", ack=9, known_seq=1235) == 1
    # The same connection, on a device where it is tagged.
    rig = Rig()
    assert rig.ask(7, ACK, 1234, b"a", ack=5, known_seq=1234) == 0
    assert rig.table.told_apart == 0


def test_sequence_numbers_wrap() -> None:
    rig = Rig()
    assert rig.ask(7, ACK, (1 << 32) - 3, b"abcdef", ack=5) == 0
    assert rig.ask(8, ACK, 3, b"g", ack=5) == 0
    assert rig.ask(8, ACK, (1 << 32) - 3, b"abcdef", ack=5) == 0


def test_bounds() -> None:
    """So many connections are remembered, and so many told apart."""
    rig = Rig()
    realms = {rig.ask(network, SYN, network << 26) for network in range(1, 64)}
    assert realms == set(range(63))
    assert rig.ask(99, SYN, 7) == 63 and rig.ask(100, SYN, 12345) == 63
    table = NetworkTable()
    packet = make.tcp(CLIENT, SERVER, SYN)
    segment = Segment()
    assert parse(segment, packet, 0, len(packet), len(packet)) == 0
    most = 1 << 16
    for number in range(3 * most):
        assert table.realm(number.to_bytes(12, "big"), True, segment, 5, -1) == 0
    assert len(table) <= 2 * most
    # Those told apart are counted, too: few addresses in many networks take no more.
    table = NetworkTable()
    segments = [Segment() for _ in range(8)]
    for network, each in enumerate(segments):
        made = make.tcp(CLIENT, SERVER, SYN, seq=network << 26)
        assert parse(each, made, 0, len(made), len(made)) == 0
    for number in range(3 * most // 8):
        for network, each in enumerate(segments):
            assert table.realm(number.to_bytes(12, "big"), True, each, network, -1) == network
    assert most < len(table) <= 2 * most + 64
    assert realm_bytes(258) == b"\1\2"
