"""What recorded traffic consists of: sessions by how much of them there is, servers, protocols.

Takes the flows that `flows.FlowTable` gives up and adds them up; holds a bounded number of servers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from tcpcopy.recorded import guess
from tcpcopy.recorded.flows import Flow, FlowTable, Side

MOST_FLOWS = 1_000_000
_MOST_SERVERS = 20_000
# Ports on which servers listen though they are not below 1024.
_SERVER_PORTS = frozenset(
    (
        *(1433, 1521, 1883, 2181, 3000, 3306, 3389, 4222, 4789, 5000, 5353, 5432, 5672, 5900, 6379),
        *(8000, 8080, 8081, 8086, 8443, 8472, 8888, 9000, 9042, 9090, 9092, 9200, 11211, 27017),
    )
)
_EPHEMERAL = 32768  # where Linux begins to number client ports


class Extent(Enum):
    """How much of a TCP session is in the files. Each session has exactly one."""

    WHOLE = "whole"
    INCOMPLETE = "begin and end are there, client bytes in between are missing"
    BEGUN_BEFORE = "begun before the first packet of the files"
    NOT_ENDED = "not ended with the files"
    MIDDLE = "neither begin nor end is there"
    UNANSWERED = "attempts without an answer"
    REFUSED = "refused by the server"


@dataclass(slots=True)
class Server:
    """One address and port that clients talk to. `sessions` are flows for UDP."""

    address: bytes
    port: int
    is_udp: bool
    is_certain: bool = False  # a SYN said so; else guessed from the ports
    sessions: int = 0
    whole: int = 0
    client_packets: int = 0
    client_bytes: int = 0  # payload, what was sent again counted once
    server_packets: int = 0
    server_bytes: int = 0
    protocols: Counter[str] = field(default_factory=Counter)

    @property
    def protocol(self) -> str:
        """What most of its sessions look like."""
        known = [(n, name) for name, n in self.protocols.items() if name != guess.NAMES[0]]
        return max(known)[1] if known else guess.NAMES[0]


@dataclass(slots=True)
class Totals:
    """TCP sessions and UDP flows, added up."""

    sessions: int = 0
    extents: Counter[Extent] = field(default_factory=Counter)
    only_client: int = 0  # sessions of which nothing of the server was recorded
    only_server: int = 0
    cut: int = 0  # sessions in which the snap length cut off client bytes
    cut_bytes: int = 0
    missing_bytes: int = 0  # others in which client bytes are missing
    udp_flows: int = 0
    other_servers: int = 0  # sessions and flows of servers beyond the number held


class Census:
    """Adds up flows. `table` is the packet handler that feeds it; call `finish` at the end."""

    __slots__ = ("servers", "table", "totals")

    def __init__(self, most_flows: int = MOST_FLOWS) -> None:
        self.table = FlowTable(self._ended, most_flows)
        self.servers: dict[tuple[bytes, int, bool], Server] = {}
        self.totals = Totals()

    def finish(self) -> None:
        """Add up what has not ended."""
        self.table.finish()

    def _ended(self, key: bytes, flow: Flow) -> None:
        size = len(key) // 4 * 2  # without what tells it from others of its addresses
        low, high = key[:size], key[size : 2 * size]
        certain = False if flow.is_udp else _opened_by_low(flow)
        if certain is None or flow.is_udp:
            low_is_client = self._guess_low_is_client(low, high, flow)
        else:
            low_is_client = certain
        client, server = (flow.low, flow.high) if low_is_client else (flow.high, flow.low)
        end = high if low_is_client else low
        entry = self._server(end, flow.is_udp)
        if flow.is_udp:
            self.totals.udp_flows += 1
        else:
            self._add_session(client, server, entry)
        if entry is None:
            self.totals.other_servers += 1
            return
        entry.is_certain = entry.is_certain or (not flow.is_udp and certain is not None)
        entry.sessions += 1
        entry.client_packets += client.packets
        entry.client_bytes += client.bytes
        entry.server_packets += server.packets
        entry.server_bytes += server.bytes
        number = client.guessed if client.guessed > guess.UNKNOWN else server.guessed
        if number >= guess.UNKNOWN:
            entry.protocols[guess.NAMES[number]] += 1

    def _add_session(self, client: Side, server: Side, entry: Server | None) -> None:
        totals = self.totals
        missing = client.misses_bytes()
        extent = _extent(client, server, missing)
        totals.sessions += 1
        totals.extents[extent] += 1
        totals.cut += client.cut > 0
        totals.cut_bytes += client.cut
        totals.missing_bytes += missing and not client.cut
        if extent not in (Extent.UNANSWERED, Extent.REFUSED):
            totals.only_client += server.packets == 0
            totals.only_server += client.packets == 0
        if entry is not None:
            entry.whole += extent is Extent.WHOLE

    def _server(self, end: bytes, is_udp: bool) -> Server | None:
        address, port = end[:-2], int.from_bytes(end[-2:], "big")
        name = (address, port, is_udp)
        entry = self.servers.get(name)
        if entry is None and len(self.servers) < _MOST_SERVERS:
            entry = self.servers[name] = Server(address, port, is_udp)
        return entry

    def _guess_low_is_client(self, low: bytes, high: bytes, flow: Flow) -> bool:
        """For flows of which no SYN is there: by servers seen, else by the ports."""
        ports = []
        for end in (low, high):
            entry = self.servers.get((end[:-2], int.from_bytes(end[-2:], "big"), flow.is_udp))
            ports.append((end, entry is not None and (entry.is_certain or flow.is_udp)))
        if ports[0][1] != ports[1][1]:
            return ports[1][1]
        low_rank = _server_rank(int.from_bytes(low[-2:], "big"))
        high_rank = _server_rank(int.from_bytes(high[-2:], "big"))
        if low_rank != high_rank:
            return high_rank < low_rank
        if flow.is_udp:
            return flow.first_from_low
        if low[-2:] == high[-2:]:
            return flow.first_from_low
        return int.from_bytes(high[-2:], "big") <= int.from_bytes(low[-2:], "big")


def _opened_by_low(flow: Flow) -> bool | None:
    """Whether the lower side is the client, None when no SYN says so."""
    if flow.low.has_syn or flow.high.has_syn_ack:
        return True
    if flow.high.has_syn or flow.low.has_syn_ack:
        return False
    return None


def _server_rank(port: int) -> int:
    """The smaller, the more likely a server listens there."""
    if port < 1024:
        return 0
    if port in _SERVER_PORTS:
        return 1
    return 2 if port < _EPHEMERAL else 3


def _extent(client: Side, server: Side, missing: bool) -> Extent:
    if client.packets == 0 and server.has_syn_ack and (server.has_fin or server.has_rst):
        return Extent.INCOMPLETE
    begun = client.has_syn or (client.packets == 0 and server.has_syn_ack)
    ended = client.has_fin or client.is_reset() or server.has_rst
    if client.has_syn and client.bytes == 0 and not server.has_syn_ack:
        if server.has_rst and not client.has_ack:
            return Extent.REFUSED
        if server.packets == 0 and not client.has_ack:
            return Extent.UNANSWERED
    if begun and ended:
        return Extent.INCOMPLETE if missing else Extent.WHOLE
    if begun:
        return Extent.NOT_ENDED
    return Extent.BEGUN_BEFORE if ended else Extent.MIDDLE
