"""Segments that do not simply go on with a session: whose are they, and would online take them?

- A SYN within an open connection is ignored by online, unless it does not know that connection any
  more (RFC 5961, 4). Which of the two is told by what the client sends next, so the SYN waits.
- An address and port that are used again without a SYN are told by sequence numbers that nothing
  in flight can have.
- A connection seen on both sides of address translation is one.
- Where both ends use ports of `-x`, an answer looks like a request: it belongs to a connection the
  other way round.
- The subflows of an MPTCP connection (RFC 8684) carry one stream in pieces: they are not replayed.
"""

from __future__ import annotations

import hashlib
from typing import Any

import cython

from tcpcopy.engine import seqnum
from tcpcopy.engine.captured import FARTHEST_IN_FLIGHT
from tcpcopy.engine.flows import FlowKey, number
from tcpcopy.engine.half_open import keep_syn, syn_sessions
from tcpcopy.engine.handshakes import Handshakes
from tcpcopy.engine.outcome import Drop, Outcome
from tcpcopy.engine.session import Session
from tcpcopy.packet import flags
from tcpcopy.packet.checksum import RIGHT, Sums, judge
from tcpcopy.packet.segment import (
    MP_CAPABLE,
    MP_JOIN,
    destination_address,
    parse_options,
    source_address,
)
from tcpcopy.packet.twins import Twins

MOST_MULTIPATH = 65_536

CONTESTED = 1  # bits of `Session.special`: a SYN waits that may be of another connection
MULTIPATH = 2  # MPTCP

_CONTESTED = CONTESTED
_MULTIPATH = MULTIPATH
_MP_CAPABLE = MP_CAPABLE
_MP_JOIN = MP_JOIN
_MOST_MULTIPATH = MOST_MULTIPATH
_RIGHT = RIGHT
_MASK = 0xFFFFFFFF  # typed: as a literal it would be a Python object when compiled
_FAR = FARTHEST_IN_FLIGHT
_LONG = 1 << 30
_GO_ON = -1
_USED = 0
_DUPLICATE = int(Drop.DUPLICATE)
_NO_TRANSFER = int(Drop.NO_TRANSFER)
_OUT_OF_WINDOW = int(Drop.OUT_OF_WINDOW)
_NO_ACK = int(Drop.NO_ACK)
_BAD_CHECKSUM = int(Drop.BAD_CHECKSUM)
_STRAY_SYN = int(Drop.STRAY_SYN)
_SEEN_TWICE = int(Drop.SEEN_TWICE)
_ANSWER_SIDE = int(Drop.ANSWER_SIDE)
_SUBFLOW = int(Drop.SUBFLOW)
_IS_MPTCP = int(Outcome.MPTCP)
_SYN = flags.SYN
_RST = flags.RST
_PSH = flags.PSH
_ACK = flags.ACK
_URG = flags.URG


class Newcomers(Handshakes):
    """The part of the engine that decides whose a segment is."""

    __slots__ = (
        "judges_sums",  # checksums are looked at: packets are out of files
        "multipath",  # open MPTCP connections, by name: token or -1, server, key
        "sums",
        "twins",
    )

    def set_up_newcomers(self, judges_sums: bool) -> None:
        """See `Timed.set_up_timed`."""
        self.judges_sums = judges_sums
        self.multipath: dict[object, tuple[int, bytes, tuple[int, int, bytes | None]]] = {}
        self.sums = Sums()
        self.twins = Twins()

    def end_newcomers(self) -> None:
        """What comes next is read from the beginning: nothing seen before tells whose it is."""
        self.end_handshakes()
        self.ended.forget_all()
        self.end_incoming()
        self.twins.forget_all()
        self.multipath = {}

    # --- given by the subclass -------------------------------------------------------------

    def _detach(self, head: Session) -> None:
        raise NotImplementedError

    def _settle(self, session: Session, outcome: int) -> None:
        raise NotImplementedError

    def _take_first(
        self, before: Session | None, data: Any, is_syn: bool, timestamp_ns: int
    ) -> int:
        raise NotImplementedError

    def _judge(self, session: Session, data: Any, timestamp_ns: int) -> int:
        """A segment that is not quite a usual one: _GO_ON when it is taken like those."""
        segment = self.segment
        if self.judges_sums and (segment.payload_length > 0 or not session.right_sum):
            reason = self._judge_sum(session, data)
            if reason != _GO_ON:
                return reason
        if session.special & _MULTIPATH:
            self._note_multipath(data)
        if session.special & _CONTESTED:
            reason = self._settle_contest(session, data, timestamp_ns)
            if reason != _GO_ON:
                return reason
        if segment.flags & (_ACK | _RST) == 0:
            return _NO_ACK
        if segment.flags & _URG:
            last = number(data, segment.header_offset + 18, 2) - 1
            sibling: Session | None = session
            while sibling is not None:
                sibling.take_urgent((segment.seq + last) & _MASK)
                sibling = sibling.sibling
        return _GO_ON

    # --- checksums -------------------------------------------------------------------------

    def _judge_sum(self, session: Session, data: Any) -> int:
        """_GO_ON, or the reason to drop the segment: its checksum is wrong."""
        segment = self.segment
        found = judge(segment, data)
        if self.sums.is_wrong(found, session.right_sum != 0, segment.payload_length):
            return _BAD_CHECKSUM
        if found == _RIGHT:
            session.right_sum = 1
        return _GO_ON

    # --- a SYN within an open connection ---------------------------------------------------

    def _contest(self, name: object, head: Session, data: Any, timestamp_ns: int) -> int:
        """A SYN with another number came for the open connection of `head`: let it wait."""
        counts = self.context.counts
        waiting = self.half_open.find(name) if counts.waiting != 0 else None
        if waiting is not None:
            self._parse_syn(waiting)
            if self.syn_segment.seq == self.segment.seq:
                return _DUPLICATE
            self._drop_contender(name, waiting)
        sessions = self.opener.count_of(self.segment, data)
        if sessions == 0:
            return _NO_TRANSFER
        captured_ns = max(0, timestamp_ns - self.clock_offset_ns)
        counts.sessions += sessions
        self._wait(name, keep_syn(self.segment, data, captured_ns, sessions), sessions)
        session: Session | None = head
        while session is not None:
            session.special = cython.cast(cython.uchar, session.special | _CONTESTED)
            session = session.sibling
        return _USED

    def _settle_contest(self, head: Session, data: Any, timestamp_ns: int) -> int:
        """What the client sends tells which connection is open; _GO_ON: that of `head`."""
        segment = self.segment
        name = self.key.name()
        session: Session | None = head
        while session is not None:
            session.special = cython.cast(cython.uchar, session.special & ~_CONTESTED)
            session = session.sibling
        syn = self.half_open.find(name) if self.context.counts.waiting != 0 else None
        if syn is None:
            return _GO_ON
        self._parse_syn(syn)
        next_byte = (head.captured_isn + 1 + head.captured_rcv_offset) & _MASK
        to_old = abs(seqnum.difference(segment.seq, next_byte))
        to_new = abs(seqnum.difference(segment.seq, (self.syn_segment.seq + 1) & _MASK))
        if to_old < to_new:
            self._drop_contender(name, syn)
            return _GO_ON
        if not segment.flags & _RST:
            self._detach(head)
        return self._take_of_waiting(name, data, timestamp_ns)

    def _drop_contender(self, name: object, syn: bytes) -> None:
        """A SYN that waited was none of a connection."""
        counts = self.context.counts
        sessions = syn_sessions(syn)
        self.half_open.take(name)
        counts.waiting -= sessions
        counts.sessions -= sessions
        counts.capture_drops[_USED] -= 1
        counts.capture_drops[_STRAY_SYN] += 1

    # --- ports used again ------------------------------------------------------------------

    def _is_elsewhere(self, ended: int) -> bool:
        """Whether data cannot be of the connection that has ended (`Ended.find`)."""
        segment = self.segment
        if segment.payload_length == 0 or segment.flags & (_ACK | _RST | _SYN) != _ACK:
            return False
        size = self.ended.size(ended)
        if size < 0 or size > _LONG:
            return False
        ahead = seqnum.difference(segment.seq, ended >> 8 & _MASK)
        return ahead < -_FAR or ahead > size + _FAR

    def _use_again(self, data: Any, timestamp_ns: int) -> int:
        """Data fit nowhere: the connection that has ended, of which sessions are left, may have
        been followed by one whose SYN was not captured.
        """
        segment = self.segment
        head = self.by_client.find(self.key)
        if head is None or head.captured_end == 0 or segment.flags & _RST:
            return _OUT_OF_WINDOW
        next_byte = (head.captured_isn + 1 + head.captured_rcv_offset) & _MASK
        if abs(seqnum.difference(segment.seq, next_byte)) <= _FAR:
            return _OUT_OF_WINDOW
        self._detach(head)
        return self._take_first(None, data, False, timestamp_ns)

    # --- picked up in mid-stream -----------------------------------------------------------

    def _judge_pick_up(self, name: object, data: Any) -> int:
        """Whether data of an unknown connection are worth a session: _GO_ON, or why not."""
        segment = self.segment
        if not segment.flags & _ACK:
            return _NO_ACK
        if segment.payload_length == 1 and not segment.flags & _PSH:
            return _DUPLICATE  # a keep-alive: its byte is none of the stream
        if self._is_answer(data):
            return _ANSWER_SIDE
        if self.opener.count_of(segment, data) != 0 and self.twins.is_seen(segment, data):
            self.ended.add(name, _SEEN_TWICE, segment.seq)
            return _SEEN_TWICE
        return _GO_ON

    def _is_answer(self, data: Any) -> bool:
        """Whether there is a connection the other way round."""
        segment = self.segment
        source = source_address(segment, data)
        if not self.opener.transfers.lookup(source, segment.source_port):
            return False
        key = FlowKey()
        key.of(
            destination_address(segment, data),
            segment.destination_port,
            source,
            segment.source_port,
        )
        if self.by_client.find(key) is not None:
            return True
        name = key.name()
        return self.half_open.find(name) is not None or self.ended.find(name) != 0

    # --- SYNs of one connection ------------------------------------------------------------

    def _judge_syn(self, name: object, data: Any, sessions: int) -> int:
        """Whether a SYN begins a connection of its own: _GO_ON, or why not."""
        segment = self.segment
        if self.twins.is_seen(segment, data):
            self.ended.add(name, _SEEN_TWICE, segment.seq)
            return _SEEN_TWICE
        parse_options(segment, data)
        if segment.multipath == _MP_JOIN:
            counts = self.context.counts
            counts.sessions += sessions
            counts.outcomes[_IS_MPTCP] += sessions
            self.ended.add(name, _SUBFLOW, segment.seq)
            self._give_up_multipath(data)
            return _SUBFLOW
        if segment.multipath == _MP_CAPABLE:
            if len(self.multipath) >= _MOST_MULTIPATH:
                del self.multipath[next(iter(self.multipath))]
            server = destination_address(segment, data) + self._server_port()
            key = self.key
            self.multipath[name] = (-1, server, (key.addresses, key.ports, key.wide))
        return _GO_ON

    def _server_port(self) -> bytes:
        return bytes((self.segment.destination_port >> 8, self.segment.destination_port & 255))

    def _note_multipath(self, data: Any) -> None:
        """A segment of an MPTCP connection: the first ones carry the keys of both ends."""
        segment = self.segment
        parse_options(segment, data)
        if segment.multipath != _MP_CAPABLE or segment.multipath_size < 20:
            return
        name = self.key.name()
        known = self.multipath.get(name)
        if known is None or known[0] >= 0:
            return
        at = segment.multipath_at
        server_key = bytes(data[at + 12 : at + 20])
        if data[at + 2] & 15:
            digest = hashlib.sha256(server_key).digest()
        else:
            digest = hashlib.sha1(server_key, usedforsecurity=False).digest()
        self.multipath[name] = (int.from_bytes(digest[:4], "big"), known[1], known[2])

    def _give_up_multipath(self, data: Any) -> None:
        """A subflow joins (its SYN was parsed last): the connection it belongs to is in pieces.

        It is found by its token, or by its server where its keys were not captured.
        """
        segment = self.segment
        token = -1
        if segment.multipath_size >= 8:
            token = number(data, segment.multipath_at + 4, 4)
        server = destination_address(segment, data) + self._server_port()
        found = [name for name, known in self.multipath.items() if known[0] == token]
        if not found:
            found = [
                name
                for name, known in self.multipath.items()
                if known[0] < 0 and known[1] == server
            ]
        for name in found:
            key = FlowKey()
            key.addresses, key.ports, key.wide = self.multipath.pop(name)[2]
            head = self.by_client.find(key)
            if head is not None and head.special & _MULTIPATH:
                self._end_multipath(head)

    def _end_multipath(self, head: Session) -> None:
        session: Session | None = head
        while session is not None:
            sibling = session.sibling
            try:
                self._settle(session, session.give_up(_IS_MPTCP, self.now_ns))
            except Exception:
                self._bug(session)
            session = sibling
