"""Counts captured packets that nobody will work on any more: what is left when a run ends.

Only headers are looked at. A SYN to a source of -x is a connection of which nothing was replayed,
unless its session has begun: the client sent it again, or it ended lately.
"""

from __future__ import annotations

from typing import Any

import cython

from tcpcopy.engine.datagram import is_udp
from tcpcopy.engine.engine import Engine
from tcpcopy.engine.flows import FlowKey
from tcpcopy.engine.ports import Sampling, Transfers
from tcpcopy.packet import flags
from tcpcopy.packet.handler import PacketHandler
from tcpcopy.packet.segment import Segment, destination_address, flow_key, parse, source_address

_PARSED = 0
_FIN = flags.FIN
_SYN = flags.SYN
_RST = flags.RST
_ACK = flags.ACK


class Unread(PacketHandler):
    """Takes packets in place of an engine and counts them."""

    __slots__ = (
        "_copies",
        "_counted",  # FlowKey.name of each connection counted -> its initial number
        "_engine",  # whose sessions have begun; None: nobody knows
        "_key",
        "_network",  # of the packet at hand (`PacketHandler.enter`)
        "_now_ns",
        "_only_udp",
        "_sampling",
        "_segment",
        "_transfers",
        "_with_udp",
        "packets",  # all but UDP
        "sessions",  # that would have begun: one for each target and copy
        "udp_packets",
    )

    def __init__(
        self,
        transfers: Transfers,
        copies: int,
        *,
        engine: Engine | None = None,
        sampling: Sampling | None = None,
        now_ns: int = 0,
        with_tcp: bool = True,
        with_udp: bool = False,
    ) -> None:
        """`sampling`: clients that it leaves out begin no session. The last two: what is copied."""
        self._copies = copies
        self._counted: dict[object, int] = {}
        self._engine = engine
        self._key = FlowKey()
        self._network = 0
        self._now_ns = now_ns
        self._only_udp = with_udp and not with_tcp
        self._sampling = sampling
        self._segment = Segment()
        self._transfers = transfers
        self._with_udp = with_udp
        self.packets = 0
        self.sessions = 0
        self.udp_packets = 0

    @property
    def total(self) -> int:
        """All packets counted."""
        return self.packets + self.udp_packets

    def add(self, packets: int) -> None:
        """Count packets that could not be looked at."""
        if self._only_udp:
            self.udp_packets += packets
        else:
            self.packets += packets

    def enter(self, network: int) -> None:
        """As `PacketHandler.enter`."""
        self._network = network

    def packet(self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int) -> int:
        """Count the packet; always 0."""
        if self._with_udp and (self._only_udp or is_udp(data, start, end)):
            self.udp_packets += 1
            return 0
        self.packets += 1
        segment = self._segment
        if parse(segment, data, start, end, wire_length) != _PARSED:
            return 0
        if segment.flags & (_SYN | _ACK | _RST | _FIN) == _SYN:
            self._take_syn(data)
        return 0

    def _take_syn(self, data: Any) -> None:
        segment, key = self._segment, self._key
        targets = self._transfers.lookup(
            destination_address(segment, data), segment.destination_port
        )
        if not targets:
            return
        key.read(segment, data)
        engine = self._engine
        if engine is not None and engine.networks is not None:
            realm = engine.networks.realm(flow_key(segment, data), True, segment, self._network, -1)
            if realm:
                key.in_realm(segment, data, realm)
        name = key.name()
        if self._counted.get(name) == segment.seq or self._has_begun(name):
            return
        self._counted[name] = segment.seq
        sampling = self._sampling
        if sampling is not None and not sampling.admit(
            source_address(segment, data), segment.source_port, now_ns=self._now_ns
        ):
            return
        self.sessions += cython.cast(cython.int, len(targets)) * self._copies

    def _has_begun(self, name: object) -> bool:
        engine = self._engine
        if engine is None:
            return False
        session = engine.by_client.find(self._key)
        if session is not None and session.captured_isn == self._segment.seq:
            return True
        if engine.half_open.find(name) is not None:
            return True
        return engine.ended.knows(name, self._segment.seq)
