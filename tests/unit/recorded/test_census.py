"""Sessions by how much of them is there, and who the servers are."""

from __future__ import annotations

import pytest

from tcpcopy.mapping.addresses import format_endpoint
from tcpcopy.recorded import census as census_module
from tcpcopy.recorded.census import Census, Extent
from tests.lab import capture_files as make
from tests.lab.capture_files import ACK, FIN, RST, SYN, tcp

CLIENT, SERVER = "198.51.100.7:40000", "10.0.0.1:80"
WHOLE = make.conversation()


def taken(*packets: bytes) -> Census:
    """The census of these packets."""
    census = Census()
    for number, packet in enumerate(packets):
        census.table.packet(packet, 0, len(packet), len(packet), make.START_NS + number * 1_000_000)
    census.finish()
    assert census.totals.sessions == sum(census.totals.extents.values())
    return census


def servers(census: Census) -> dict[str, int]:
    """Endpoint to sessions."""
    return {
        format_endpoint(server.address, server.port): server.sessions
        for server in census.servers.values()
    }


def from_client(packets: list[bytes]) -> list[bytes]:
    """What the client sent."""
    return [packet for packet in packets if packet[12] == 198]


def from_server(packets: list[bytes]) -> list[bytes]:
    """What the server sent."""
    return [packet for packet in packets if packet[12] == 10]


@pytest.mark.parametrize(
    ("packets", "extent"),
    [
        (WHOLE, Extent.WHOLE),
        ([*WHOLE[:5], tcp(CLIENT, SERVER, RST, seq=1019)], Extent.WHOLE),
        ([*WHOLE[:5], tcp(SERVER, CLIENT, RST, seq=5020)], Extent.WHOLE),
        (from_client(WHOLE), Extent.WHOLE),
        ([*WHOLE[:3], *WHOLE[4:]], Extent.INCOMPLETE),  # the request was not captured
        (from_server(WHOLE), Extent.INCOMPLETE),
        (WHOLE[2:], Extent.BEGUN_BEFORE),
        (WHOLE[:5], Extent.NOT_ENDED),
        (WHOLE[:3], Extent.NOT_ENDED),
        ([*WHOLE[:5], WHOLE[6]], Extent.NOT_ENDED),  # the client may go on
        (WHOLE[2:5], Extent.MIDDLE),
        (WHOLE[:1] * 3, Extent.UNANSWERED),
        ([WHOLE[0], tcp(SERVER, CLIENT, RST | ACK, seq=0, ack=1001)], Extent.REFUSED),
    ],
)
def test_extents(packets: list[bytes], extent: Extent) -> None:
    census = taken(*packets)
    assert dict(census.totals.extents) == {extent: 1}
    assert servers(census) == {SERVER: 1}


def test_one_sided() -> None:
    census = taken(*from_client(WHOLE))
    assert (census.totals.only_client, census.totals.only_server) == (1, 0)
    census = taken(*from_server(WHOLE))
    assert (census.totals.only_client, census.totals.only_server) == (0, 1)
    census = taken(WHOLE[0])  # an attempt is not one-sided
    assert (census.totals.only_client, census.totals.only_server) == (0, 0)


def test_figures_of_a_server() -> None:
    census = taken(*WHOLE, *make.conversation("198.51.100.8:40000", request=b"POST /x HTTP/1.1"))
    (server,) = census.servers.values()
    assert (server.sessions, server.whole, server.is_certain) == (2, 2, True)
    assert (server.client_packets, server.server_packets) == (10, 6)
    assert (server.client_bytes, server.server_bytes) == (18 + 16, 2 * 19)
    assert server.protocol == "HTTP/1"


def test_protocol_of_a_server_that_speaks_first() -> None:
    greeting = tcp(SERVER, CLIENT, ACK, b"\x4a\0\0\0\x0a8.0.36\0" + bytes(66), seq=5001, ack=1001)
    log_in = tcp(CLIENT, SERVER, ACK, b"\x20\0\0\1whatever", seq=1001, ack=5079)
    (server,) = taken(*WHOLE[:3], greeting, log_in).servers.values()
    assert server.protocol == "MySQL"


@pytest.mark.parametrize(
    ("one", "other", "server"),
    [
        ("10.0.0.1:80", "10.0.0.2:40000", "10.0.0.1:80"),
        ("10.0.0.1:40000", "10.0.0.2:80", "10.0.0.2:80"),
        ("10.0.0.1:6379", "10.0.0.2:5999", "10.0.0.1:6379"),
        ("10.0.0.1:443", "10.0.0.2:3306", "10.0.0.1:443"),
        ("10.0.0.1:20000", "10.0.0.2:40000", "10.0.0.1:20000"),
        ("10.0.0.1:50000", "10.0.0.2:40000", "10.0.0.2:40000"),
    ],
)
def test_server_by_its_port(one: str, other: str, server: str) -> None:
    """Where no SYN says who opened; whoever sends first."""
    for packets in ([tcp(one, other)], [tcp(other, one)], [tcp(one, other), tcp(other, one)]):
        census = taken(*packets)
        assert servers(census) == {server: 1}
        assert not next(iter(census.servers.values())).is_certain


def test_known_servers_decide_first() -> None:
    """A port that a SYN has shown to be a server's, though the other port is lower."""
    known = make.conversation("198.51.100.7:700", "10.0.0.1:50000")
    census = taken(tcp("198.51.100.8:600", "10.0.0.1:50000", ACK, b"x"), *known)
    assert servers(census) == {"10.0.0.1:50000": 2}


def test_udp_servers() -> None:
    census = taken(
        make.udp("198.51.100.7:40000", "10.0.0.1:53", b"a"),
        make.udp("198.51.100.8:40000", "10.0.0.1:53", b"a"),
        make.udp("10.0.0.1:53", "198.51.100.8:40000", b"answer"),
        make.udp("10.0.0.9:53", "198.51.100.9:40000", b"answer only"),
        make.udp("10.0.0.5:50000", "10.0.0.6:50001", b"first"),
        make.udp("10.0.0.6:50001", "10.0.0.5:50000", b"second"),
    )
    assert servers(census) == {"10.0.0.1:53": 2, "10.0.0.9:53": 1, "10.0.0.6:50001": 1}
    assert census.totals.udp_flows == 4
    assert census.totals.sessions == 0


def test_servers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census_module, "_MOST_SERVERS", 3)
    census = taken(*[tcp(CLIENT, f"10.0.0.{n}:80", SYN) for n in range(1, 6)])
    assert len(census.servers) == 3
    assert census.totals.other_servers == 2
    assert census.totals.sessions == 5


def test_fin_of_a_session_begun_before() -> None:
    census = taken(tcp(CLIENT, SERVER, ACK | FIN, seq=7))
    assert dict(census.totals.extents) == {Extent.BEGUN_BEFORE: 1}
