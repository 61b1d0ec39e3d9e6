"""The engine of UDP: all flows of one worker. Sans-I/O, beside the TCP engine and as it.

Feed captured packets (`packet`) and answers (`answered`, `refused`), `flush` what is to be sent,
`run_timers`, ask for `next_deadline_ns`. A datagram is sent when it is captured, one for one: there
is nothing to wait for, because only the application knows what answers what. `now_ns` is set by
the owner before it feeds.

Memory is bounded: beyond `max_flows` live legs, or when memory is short, the flow that has been
quiet for longest ends before its time, or a new one is left out. That costs no datagram.

Source: RFC 768, RFC 4787 (4.3, idle time of a flow).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cython

from tcpcopy.engine.flow import DatagramCounts, DatagramOutput, Flow, FlowList, Leg
from tcpcopy.engine.ports import Sampling, Transfers
from tcpcopy.packet import flags
from tcpcopy.packet.handler import PacketHandler
from tcpcopy.packet.reassembly import Reassembler
from tcpcopy.packet.segment import (
    Segment,
    destination_address,
    flow_key,
    parse_udp,
    payload_start,
    source_address,
)
from tcpcopy.packet.twins import DatagramTwins
from tcpcopy.report.flow_outcome import DatagramDrop, FlowOutcome
from tcpcopy.said.answer import is_dns_query

IDLE_NS = 30_000_000_000
MAX_ENTRIES = 1 << 20
LEAST_IDLE_NS = 10_000_000  # a flow that was used since is not ended for want of room
MOST_ASKED = 65_536
AWAIT_NS = 1_000_000_000  # for answers, at exit

_DNS_LEAST = 17  # bytes of the shortest question
_MOST_ASKED = MOST_ASKED
_USUAL_PAYLOAD = 1472  # what a packet of 1,500 bytes carries
_USED = 0
_IS_FRAGMENT = flags.FRAGMENT
_CUT = int(DatagramDrop.CUT)
_NO_TRANSFER = int(DatagramDrop.NO_TRANSFER)
_FRAGMENT = int(DatagramDrop.FRAGMENT)
_FRAGMENT_ALONE = int(DatagramDrop.FRAGMENT_ALONE)
_SEEN_TWICE = int(DatagramDrop.SEEN_TWICE)
_ANSWER_SIDE = int(DatagramDrop.ANSWER_SIDE)
_SKIPPED_FLOW = int(DatagramDrop.SKIPPED_FLOW)
_SHED_FLOW = int(DatagramDrop.SHED_FLOW)
_BUG = int(DatagramDrop.INTERNAL_ERROR)
_SKIPPED_SAMPLING = int(FlowOutcome.SKIPPED_SAMPLING)
_SHED_MEMORY = int(FlowOutcome.SHED_MEMORY)
_SHED_FLOWS = int(FlowOutcome.SHED_FLOWS)
_SEND_FAILED = int(FlowOutcome.SEND_FAILED)
_INTERNAL_ERROR = int(FlowOutcome.INTERNAL_ERROR)
_AGAIN = -1


@dataclass(frozen=True, slots=True)
class DatagramConfig:
    """Settings of the UDP engine."""

    idle_ns: int = IDLE_NS
    copies: int = 1  # -n
    max_flows: int = MAX_ENTRIES  # live legs
    max_entries: int = MAX_ENTRIES  # flows remembered, those left out included


class DatagramEngine(PacketHandler):
    """All UDP flows of one worker; takes the captured packets itself."""

    __slots__ = (
        "asked",  # flow keys of clients whose own port is one of -x: they spoke first
        "asked_before",  # the generation before that
        "clock_offset_ns",  # CLOCK_REALTIME minus the clock of `now_ns`
        "copies",
        "counts",
        "counts_lag",  # whether packets have a time at which they should have come
        "file_ns",  # capture time of the packet fed last, where it is out of a file; -1: live
        "flows",  # flow key of the client's packets -> Flow
        "idle_ns",
        "max_entries",
        "max_flows",
        "memory_is_short",  # set by the owner: new flows are left out
        "most_legs",  # of a flow so far
        "now_ns",
        "open_legs",  # legs that are not left out
        "on_bug",  # called with the text of a trace when a flow trips over our own bug
        "order",  # the same flows, quietest first
        "output",
        "reassembler",
        "resumed_ns",  # when the last standstill of this process ended, 0: there was none
        "sampling",
        "segment",
        "shut",  # set by the owner: the outcome of all new flows; 0: they are let in
        "stood_still_ns",  # how long all standstills took
        "transfers",
        "twins",  # tells what was seen twice; None: each datagram is captured once
    )

    def __init__(
        self,
        config: DatagramConfig,
        output: DatagramOutput,
        counts: DatagramCounts,
        *,
        transfers: Transfers,
        sampling: Sampling,
        on_bug: Callable[[str], object] = print,
    ) -> None:
        self.output = output
        self.counts = counts
        self.transfers = transfers
        self.sampling = sampling
        self.on_bug = on_bug
        self.copies = config.copies
        self.idle_ns = config.idle_ns
        self.max_entries = config.max_entries
        self.max_flows = config.max_flows
        self.memory_is_short = False
        self.shut = 0
        self.counts_lag = True
        self.file_ns = -1
        self.most_legs = config.copies
        self.flows: dict[bytes, Flow] = {}
        self.order = FlowList()
        self.reassembler = Reassembler((_UDP, _AUTHENTICATION))
        self.segment = Segment()
        self.now_ns = 0
        self.resumed_ns = 0
        self.stood_still_ns = 0
        self.open_legs = 0
        self.clock_offset_ns = 0
        self.asked: set[bytes] = set()
        self.asked_before: set[bytes] = set()
        self.twins: DatagramTwins | None = None

    # --- captured packets ------------------------------------------------------------------

    def packet(self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int) -> int:
        """Take one captured packet; 0 or its DatagramDrop reason, counted either way."""
        self.counts.packets += 1
        reason = parse_udp(self.segment, data, start, end, wire_length)
        if reason == _USED:
            if self.segment.payload_length > _USUAL_PAYLOAD:
                self.counts.large += 1
            reason = self._take(data, timestamp_ns)
        elif reason == _IS_FRAGMENT:
            reason = self._take_fragment(data, start, end, timestamp_ns)
        self.counts.packet_drops[reason] += 1
        return reason

    def _take(self, data: Any, timestamp_ns: int) -> int:
        segment = self.segment
        twins = self.twins
        if twins is not None:
            captured_ns = timestamp_ns if self.file_ns < 0 else self.file_ns
            if twins.is_seen(segment, data, captured_ns):
                return _SEEN_TWICE
        key = flow_key(segment, data)
        flow: Flow | None = self.flows.get(key)
        try:
            if flow is None:
                if self._is_answer(key, data):
                    return _ANSWER_SIDE
                flow = self._open(key, data)
                if flow is None:
                    return _NO_TRANSFER
            else:
                self.order.touch(flow, self.now_ns)
            self._send(flow, data)
        except Exception:
            self.on_bug(traceback.format_exc())
            return _BUG
        if self.counts_lag:
            self.counts.lag.record(max(0, self.now_ns + self.clock_offset_ns - timestamp_ns))
        return _USED

    def _send(self, flow: Flow, data: Any) -> None:
        """Send the datagram on every leg, or count why not."""
        counts = self.counts
        length = self.segment.payload_length
        leg = flow.legs
        while leg is not None:
            counts.datagrams += leg.weight
            counts.bytes_captured += length * leg.weight
            if leg.outcome:
                counts.datagram_drops[leg.reason] += leg.weight
            elif length > self.segment.available:
                leg.dropped += 1
                counts.datagram_drops[_CUT] += 1
            else:
                self._send_leg(leg, data, length)
            leg = leg.following

    def _send_leg(self, leg: Leg, data: Any, length: int) -> None:
        try:
            if leg.sent == 0 and leg.queued == 0:
                leg.is_dns = is_dns_query(payload_start(self.segment, data, 0, _DNS_LEAST))
            self.output.send(leg, data, self.segment.payload_offset, length)
        except Exception:
            self.on_bug(traceback.format_exc())
            leg.dropped += 1
            self.counts.datagram_drops[_BUG] += 1

    def _take_fragment(self, data: Any, start: int, end: int, timestamp_ns: int) -> int:
        """Keep a fragment; the datagram goes on when it is whole.

        A fragment counts as used until its datagram is given up.
        """
        counts = self.counts
        counts.fragments += 1
        whole = self.reassembler.add(data, start, end, self._fragment_clock_ns())
        self._count_given_up()
        if whole is None:
            return _USED
        reason = parse_udp(self.segment, whole, 0, len(whole), len(whole))
        if reason == _USED:
            counts.joined += 1
            reason = self._take(whole, timestamp_ns)
        if reason != _USED:  # the others of its fragments, which had been counted as used
            others = self.reassembler.joined - 1
            counts.packet_drops[_USED] -= others
            counts.packet_drops[reason] += others
        return reason

    def _fragment_clock_ns(self) -> int:
        """What fragments wait by: in a file that is read faster, their identifiers come again."""
        return self.now_ns - self.stood_still_ns if self.file_ns < 0 else self.file_ns

    def _count_given_up(self) -> None:
        held = self.reassembler
        drops = self.counts.packet_drops
        if held.incomplete or held.alone:
            drops[_USED] -= held.incomplete + held.alone
            drops[_FRAGMENT] += held.incomplete
            drops[_FRAGMENT_ALONE] += held.alone
            held.incomplete = held.alone = 0

    # --- flows -----------------------------------------------------------------------------

    def _is_answer(self, key: bytes, data: Any) -> bool:
        """Whether a datagram between two ports of -x is an answer: who spoke first is the client.

        That outlives the flow, which ends when it is quiet.
        """
        segment = self.segment
        size = segment.address_size
        if not self.transfers.lookup(key[:size], segment.source_port):
            return False
        reverse = key[size : 2 * size] + key[:size] + key[2 * size + 2 :]
        reverse += key[2 * size : 2 * size + 2]
        if reverse in self.asked or reverse in self.asked_before:
            return True
        if len(self.asked) >= _MOST_ASKED:
            self.asked_before = self.asked
            self.asked = set()
        self.asked.add(key)
        return False

    def _open(self, key: bytes, data: Any) -> Flow | None:
        """A new flow, with a leg for each target and copy; None when -x does not name it."""
        segment = self.segment
        address = destination_address(segment, data)
        targets = self.transfers.lookup(address, segment.destination_port)
        if not targets:
            return None
        client = source_address(segment, data)
        if len(self.flows) >= self.max_entries or (self.memory_is_short and self.flows):
            self._end_oldest()
        flow = Flow(key, self.now_ns)
        number = cython.cast(cython.int, len(targets) * self.copies)
        self.counts.seen += number
        if number > self.most_legs:
            self.most_legs = number
        if not self.sampling.admit(client, segment.source_port, now_ns=self.now_ns):
            self._leave_out(flow, _SKIPPED_SAMPLING, _SKIPPED_FLOW, number)
        elif self.memory_is_short or self.shut:
            self._leave_out(flow, self.shut or _SHED_MEMORY, _SHED_FLOW, number)
        else:
            last: Leg | None = None
            for target in targets:
                for copy in range(self.copies):
                    leg = Leg(flow, target.target_address, target.target_port)
                    self._open_leg(leg, client, segment.source_port, copy)
                    if last is None:
                        flow.legs = leg
                    else:
                        last.following = leg
                    last = leg
        self.flows[key] = flow
        self.order.add(flow)
        return flow

    def _leave_out(self, flow: Flow, outcome: int, reason: int, number: int) -> None:
        leg = Leg(flow, b"", 0)
        leg.weight = number
        leg.outcome = outcome
        leg.reason = reason
        flow.legs = leg
        self._count_live(number)

    def _count_live(self, number: int) -> None:
        counts = self.counts
        counts.live += number
        if counts.live > counts.peak:
            counts.peak = counts.live

    def _open_leg(self, leg: Leg, client: bytes, client_port: int, copy: int) -> None:
        self._count_live(1)
        outcome = _SHED_FLOWS
        try:
            if self.open_legs < self.max_flows or self._make_room():
                outcome = self.output.open(leg, client, client_port, copy)
                if outcome == _AGAIN and self._make_room():
                    outcome = self.output.open(leg, client, client_port, copy)
                if outcome == _AGAIN:
                    outcome = _SEND_FAILED
        except Exception:
            self.on_bug(traceback.format_exc())
            outcome = _INTERNAL_ERROR
        leg.outcome = outcome
        leg.reason = _SHED_FLOW
        if outcome == 0:
            self.open_legs += 1

    def _make_room(self) -> bool:
        """End the flow that was quiet for longest, if it was quiet for a while."""
        oldest = self.order.oldest
        if oldest is None or self.now_ns - oldest.last_ns < LEAST_IDLE_NS:
            return False
        self._end(oldest)
        return True

    def _end_oldest(self) -> None:
        oldest = self.order.oldest
        if oldest is not None:
            self._end(oldest)

    def _end(self, flow: Flow) -> None:
        """Count the outcomes of the flow and forget it."""
        self.order.remove(flow)
        if self.flows.get(flow.key) is flow:  # not one of a pass that has ended
            del self.flows[flow.key]
        counts = self.counts
        leg = flow.legs
        while leg is not None:
            following = leg.following
            leg.flow = None  # an answer that is still found when it closes touches no list
            leg.following = None
            try:
                if leg.queued:
                    self.output.flush()
                if not leg.outcome:
                    self.open_legs -= 1
                    self.output.close(leg)
            except Exception:
                self.on_bug(traceback.format_exc())
            counts.outcomes[leg.final_outcome()] += leg.weight
            counts.live -= leg.weight
            leg = following
        flow.legs = None

    # --- answers ---------------------------------------------------------------------------

    def answered(self, leg: Leg, length: int) -> None:
        """The target has sent a datagram with `length` bytes."""
        self.counts.answer(leg, length, self.now_ns)
        if leg.flow is not None:
            self.order.touch(leg.flow, self.now_ns)

    # --- time ------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what waits."""
        self.output.flush()

    def next_deadline_ns(self) -> int:
        """When `run_timers` is wanted next, -1: not by itself."""
        oldest = self.order.oldest
        return -1 if oldest is None else self._idle_since_ns(oldest) + self.idle_ns

    def run_timers(self) -> int:
        """End the flows that have been idle until `now_ns`; how many."""
        count = 0
        while True:
            oldest = self.order.oldest
            if oldest is None or self.now_ns - self._idle_since_ns(oldest) < self.idle_ns:
                break
            self._end(oldest)
            count += 1
        if len(self.reassembler):
            self.reassembler.expire(self._fragment_clock_ns())
            self._count_given_up()
        return count

    def _idle_since_ns(self, flow: Flow) -> int:
        """What comes while this process stands still has not been read: that is no silence."""
        return flow.last_ns if flow.last_ns > self.resumed_ns else self.resumed_ns

    def stand_still(self, now_ns: int, duration_ns: int) -> None:
        """This process goes on at `now_ns` after so long."""
        self.resumed_ns = now_ns
        self.stood_still_ns += duration_ns

    def unfinished(self) -> int:
        """Flows that may still be answered: asked a short time ago, and not answered since."""
        count = 0
        flow = self.order.newest
        while flow is not None and self.now_ns - flow.last_ns < AWAIT_NS:
            leg = flow.legs
            while leg is not None:
                count += leg.sent_ns != 0
                leg = leg.following
            flow = flow.older
        return count

    def would_open(self, packet: bytes, wire_length: int) -> bool:
        """Whether the packet begins a flow, or may."""
        reason = parse_udp(self.segment, packet, 0, len(packet), wire_length)
        if reason == _USED:
            return flow_key(self.segment, packet) not in self.flows
        return reason == _IS_FRAGMENT

    def end_pass(self, hears_answers: bool) -> None:
        """A file has ended, which may begin anew: what comes now is of new flows.

        Those that may be answered still end later, as ever; without answers all end now, so that
        the same clients can be shown again.
        """
        self.output.flush()
        flow = self.order.oldest
        while flow is not None:
            newer = flow.newer
            if not hears_answers or flow.is_left_out():
                self._end(flow)
            flow = newer
        self.flows.clear()
        if self.twins is not None:
            self.twins.forget_all()
        self.reassembler.give_up_all()
        self._count_given_up()

    def close_all(self) -> None:
        """End every flow."""
        self.output.flush()
        while self.order.oldest is not None:
            self._end(self.order.oldest)
        self.reassembler.give_up_all()
        self._count_given_up()


class ProtocolSwitch(PacketHandler):
    """Hands UDP packets to one handler and all others to another."""

    __slots__ = ("others", "udp")

    def __init__(self, udp: PacketHandler, others: PacketHandler) -> None:
        self.udp = udp
        self.others = others

    def enter(self, network: int) -> None:
        """As `PacketHandler.enter`. Flows of UDP are the same in all networks."""
        self.others.enter(network)

    def packet(self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int) -> int:
        """Hand the packet on; what its handler says."""
        if is_udp(data, start, end):
            return self.udp.packet(data, start, end, wire_length, timestamp_ns)
        return self.others.packet(data, start, end, wire_length, timestamp_ns)


def is_udp(data: Any, start: int, end: int) -> int:
    """Whether the packet carries UDP, in fragments or not, behind up to 8 IPv6 extensions."""
    if end - start < 20:
        return 0
    if data[start] >> 4 == 4:
        if data[start + 9] == _AUTHENTICATION:
            at = start + (data[start] & 15) * 4
            return _is_udp_behind(data, _AUTHENTICATION, at, end)
        return 1 if data[start + 9] == _UDP else 0
    if end - start < 40:
        return 0
    return _is_udp_behind(data, data[start + 6], start + 40, end)


def _is_udp_behind(data: Any, following: int, at: int, end: int) -> int:
    """Whether UDP follows the headers at `at`, the first of which is named by `following`."""
    hops = 0
    while following in (0, 43, 44, _AUTHENTICATION, 60) and end - at >= 8 and hops < 8:
        if following == _AUTHENTICATION:
            size = (data[at + 1] + 2) * 4
        else:
            size = 8 if following == 44 else 8 + data[at + 1] * 8
        following = data[at]
        at += size
        hops += 1
    return 1 if following == _UDP else 0


_UDP = 17
_AUTHENTICATION = 51
