"""Captured packets on their way to the engine: headers parsed, fragments put together, and the
connection found that a packet belongs to where networks have the same addresses.
"""

from __future__ import annotations

from typing import Any

from tcpcopy.engine.context import Context
from tcpcopy.engine.flows import FlowKey, FlowTable
from tcpcopy.engine.session import Session
from tcpcopy.packet import flags
from tcpcopy.packet.handler import PacketHandler
from tcpcopy.packet.networks import NetworkTable
from tcpcopy.packet.reassembly import Reassembler
from tcpcopy.packet.segment import Segment, flow_key, parse

_USED = 0
_MASK = 0xFFFFFFFF  # typed: as a literal it would be a Python object when compiled
_IS_FRAGMENT = flags.FRAGMENT
_TCP, _AUTHENTICATION = 6, 51


class Incoming(PacketHandler):
    """The upper part of the engine: what it does with a packet before a session has it."""

    __slots__ = (
        "by_client",  # the first Session of each captured connection
        "context",
        "key",  # of the captured packet being looked at
        "network",  # of that packet (`PacketHandler.enter`)
        "networks",  # tells connections apart by it; None until there is a packet with one
        "reassembler",  # of fragments; None until one comes
        "segment",  # the segment being looked at
    )

    def set_up_incoming(self, context: Context, seed: int) -> None:
        """In place of `__init__`, which the compiled classes below this one could not pass on."""
        self.context = context
        self.by_client = FlowTable(seed, False)
        self.key = FlowKey()
        self.network = 0
        self.networks: NetworkTable | None = None
        self.reassembler: Reassembler | None = None
        self.segment = Segment()

    def _take_captured(self, data: Any, timestamp_ns: int) -> int:
        """Take the segment that was parsed; 0 or the Drop reason of its packet."""
        raise NotImplementedError

    def enter(self, network: int) -> None:
        """As `PacketHandler.enter`."""
        self.network = network
        if self.networks is None:
            self.networks = NetworkTable()

    def packet(self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int) -> int:
        """Take one captured packet; 0 or its Drop reason, counted either way."""
        self.context.counts.packets_captured += 1
        reason = parse(self.segment, data, start, end, wire_length)
        if reason == _USED:
            reason = self._take_captured(data, timestamp_ns)
        elif reason == _IS_FRAGMENT:
            reason = self._take_fragment(data, start, end, timestamp_ns)
        self.context.counts.capture_drops[reason] += 1
        return reason

    def in_realm(self, session: Session | None, data: Any) -> Session | None:
        """The session of the packet, where others in other networks may have its addresses.

        `session`: the one of its addresses; `key` becomes that of the packet's.
        """
        segment = self.segment
        networks: NetworkTable = self.networks  # type: ignore[assignment]
        known_seq = -1
        if session is not None:
            known_seq = (session.captured_isn + 1 + session.captured_rcv_offset) & _MASK
        key = flow_key(segment, data)
        realm = networks.realm(key, True, segment, self.network, known_seq)
        if realm == 0:
            return session
        self.key.in_realm(segment, data, realm)
        return self.by_client.find(self.key)

    def _take_fragment(self, data: Any, start: int, end: int, timestamp_ns: int) -> int:
        """Keep a fragment; the segment goes on when it is whole.

        A fragment counts as used until its segment is given up.
        """
        if self.reassembler is None:
            self.reassembler = Reassembler((_TCP, _AUTHENTICATION))
        held = self.reassembler
        whole = held.add(data, start, end, timestamp_ns, self.network)
        self._count_given_up()
        if whole is None:
            return _USED
        reason = parse(self.segment, whole, 0, len(whole), len(whole))
        if reason == _USED:
            reason = self._take_captured(whole, timestamp_ns)
        if reason != _USED:  # the others of its fragments, which had been counted as used
            others = held.joined - 1
            self.context.counts.capture_drops[_USED] -= others
            self.context.counts.capture_drops[reason] += others
        return reason

    def _count_given_up(self) -> None:
        held: Any = self.reassembler
        lost: int = held.incomplete + held.alone
        if lost:
            drops = self.context.counts.capture_drops
            drops[_USED] -= lost
            drops[_IS_FRAGMENT] += lost
            held.incomplete = held.alone = 0

    def end_incoming(self) -> None:
        """What comes next, if anything does, is of another capture."""
        if self.reassembler is not None:
            self.reassembler.give_up_all()
            self._count_given_up()
        if self.networks is not None:
            self.networks = NetworkTable()
