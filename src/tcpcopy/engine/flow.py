"""UDP flows: what is kept of one, what is counted of all, and what sends their datagrams.

A flow is what one client address and port sends to one online address and port. Each of its legs
is the replay towards one target, once for each copy. Flows hang in one list, the one that was
quiet for longest first: all have the same idle time, so that list is the order of their ends.
"""

from __future__ import annotations

from array import array
from typing import Any

from tcpcopy.report.flow_outcome import (
    DATAGRAM_DROP_SLOTS,
    FLOW_OUTCOME_SLOTS,
    DatagramDrop,
    FlowOutcome,
)
from tcpcopy.report.histogram import Histogram
from tcpcopy.said.answer import dns_kind
from tcpcopy.said.kinds import DNS
from tcpcopy.said.tally import Tally

_DNS = DNS
_SEND_ERROR = int(DatagramDrop.SEND_ERROR)
_REPLAYED = int(FlowOutcome.REPLAYED)
_REFUSED = int(FlowOutcome.REFUSED)
_INCOMPLETE = int(FlowOutcome.INCOMPLETE)
_SEND_FAILED = int(FlowOutcome.SEND_FAILED)


class Leg:
    """A flow towards one target, one copy of it; or what stands for all that were left out."""

    __slots__ = (
        "address",  # mapped (packets) or local (sockets, b"": the kernel's choice) address
        "answers",  # datagrams of the target
        "connection",  # the socket, in socket mode
        "dropped",  # datagrams that were not sent
        "flow",  # None once it has ended
        "following",  # the next leg of the flow
        "handle",  # descriptor, -1: none
        "is_dns",  # its first datagram asked a DNS server something
        "outcome",  # left out from the start so; 0: live
        "port",  # mapped port, 0: none
        "queued",  # datagrams that wait in the output; 0 after its flush
        "reason",  # DatagramDrop of its datagrams while `outcome` is set
        "refused",  # ICMP errors that said so
        "sent",  # datagrams
        "sent_ns",  # when the last one was sent, 0 when it has been answered
        "target_address",
        "target_port",
        "weight",  # captured flows (targets times copies) that it stands for
    )

    def __init__(self, flow: Flow, target_address: bytes, target_port: int) -> None:
        self.flow: Flow | None = flow
        self.target_address = target_address
        self.target_port = target_port
        self.address = b""
        self.port = 0
        self.handle = -1
        self.is_dns = 0
        self.connection: Any = None
        self.following: Leg | None = None
        self.answers = self.dropped = self.queued = self.refused = self.sent = self.sent_ns = 0
        self.outcome = 0
        self.reason = 0
        self.weight = 1

    def final_outcome(self) -> int:
        """What it comes to when it ends now."""
        if self.outcome:
            return self.outcome
        if self.refused:
            return _REFUSED
        if self.dropped:
            return _INCOMPLETE if self.sent else _SEND_FAILED
        return _REPLAYED


class Flow:
    """What one client sends to one online address and port."""

    __slots__ = (
        "key",
        "last_ns",  # when a datagram went either way
        "legs",  # the first of them
        "newer",  # in the list by `last_ns`
        "older",
    )

    def __init__(self, key: bytes, now_ns: int) -> None:
        self.key = key
        self.last_ns = now_ns
        self.legs: Leg | None = None
        self.newer: Flow | None = None
        self.older: Flow | None = None

    def is_left_out(self) -> bool:
        """Whether nothing of it is sent anywhere."""
        leg = self.legs
        while leg is not None and leg.outcome:
            leg = leg.following
        return leg is None


class FlowList:
    """Flows in the order of their last datagram."""

    __slots__ = ("newest", "oldest")

    def __init__(self) -> None:
        self.newest: Flow | None = None
        self.oldest: Flow | None = None

    def add(self, flow: Flow) -> None:
        """Put a flow that is in no list at the end."""
        flow.older = self.newest
        flow.newer = None
        if self.newest is None:
            self.oldest = flow
        else:
            self.newest.newer = flow
        self.newest = flow

    def remove(self, flow: Flow) -> None:
        """Take a flow out."""
        if flow.older is None:
            self.oldest = flow.newer
        else:
            flow.older.newer = flow.newer
        if flow.newer is None:
            self.newest = flow.older
        else:
            flow.newer.older = flow.older
        flow.older = None
        flow.newer = None

    def touch(self, flow: Flow, now_ns: int) -> None:
        """A datagram of the flow has just gone."""
        flow.last_ns = now_ns
        if flow is not self.newest:
            self.remove(flow)
            self.add(flow)


class DatagramCounts:
    """Totals since the start. Flows and datagrams count once for each target and copy."""

    __slots__ = (
        "answer_bytes",
        "answer_time",  # histogram: datagram sent to first answer, ns
        "answered",  # flows that the target answered
        "answers",  # datagrams of the targets
        "bytes_captured",  # payload of `datagrams`
        "bytes_sent",
        "datagram_drops",  # array by DatagramDrop; slot 0: sent
        "datagrams",  # captured
        "errors",  # errno -> datagrams or flows that it was met with
        "fragments",  # captured
        "joined",  # datagrams put together from fragments
        "lag",  # histogram: captured to taken, ns
        "large",  # packets with more than 1,500 bytes, not in fragments
        "live",
        "outcomes",  # array by FlowOutcome
        "packet_drops",  # array by DatagramDrop; slot 0: used
        "packets",  # captured
        "peak",
        "refusals",  # ICMP errors seen
        "said",  # what each target said in DNS, by its address and port
        "seen",  # flows captured
    )

    def __init__(self) -> None:
        self.outcomes = array("q", bytes(8 * FLOW_OUTCOME_SLOTS))
        self.packet_drops = array("q", bytes(8 * DATAGRAM_DROP_SLOTS))
        self.datagram_drops = array("q", bytes(8 * DATAGRAM_DROP_SLOTS))
        self.answer_time = Histogram()
        self.lag = Histogram()
        self.errors: dict[int, int] = {}
        self.said: dict[tuple[bytes, int], Tally] = {}
        self.answer_bytes = self.answered = self.answers = 0
        self.bytes_captured = self.bytes_sent = 0
        self.datagrams = self.fragments = self.joined = 0
        self.large = 0
        self.live = self.packets = self.peak = self.refusals = self.seen = 0

    def sent(self, leg: Leg, length: int, now_ns: int) -> None:
        """A datagram has left."""
        leg.sent += 1
        leg.sent_ns = now_ns
        self.datagram_drops[0] += 1
        self.bytes_sent += length

    def failed(self, leg: Leg, error: int) -> None:
        """A datagram could not be sent."""
        leg.dropped += 1
        self.datagram_drops[_SEND_ERROR] += 1
        self.error(error)

    def error(self, number: int) -> None:
        """The system has refused something."""
        self.errors[number] = self.errors.get(number, 0) + 1

    def refused(self, leg: Leg) -> None:
        """An ICMP error has come back for the leg."""
        leg.refused += 1
        self.refusals += 1

    def answer(self, leg: Leg, length: int, now_ns: int) -> None:
        """The target has sent a datagram."""
        if leg.answers == 0:
            self.answered += 1
        leg.answers += 1
        self.answers += 1
        self.answer_bytes += length
        if leg.sent_ns:
            self.answer_time.record(now_ns - leg.sent_ns)
            leg.sent_ns = 0

    def note_dns(self, leg: Leg, header: bytes) -> None:
        """The target has answered in DNS; `header`: the first 12 bytes of its datagram."""
        key = (leg.target_address, leg.target_port)
        tally = self.said.get(key)
        if tally is None:
            tally = self.said[key] = Tally()
        tally.note(_DNS, dns_kind(header), False)

    def outcome_counts(self) -> list[int]:
        """A copy, indexed by FlowOutcome."""
        return list(self.outcomes)

    def packet_drop_counts(self) -> list[int]:
        """A copy, indexed by DatagramDrop; slot 0 is the packets used."""
        return list(self.packet_drops)

    def datagram_drop_counts(self) -> list[int]:
        """A copy, indexed by DatagramDrop; slot 0 is the datagrams sent."""
        return list(self.datagram_drops)


class DatagramOutput:
    """Sends the datagrams of legs, by packets or by sockets, and tells the counts."""

    __slots__ = ()

    def open(self, leg: Leg, client_address: bytes, client_port: int, copy: int) -> int:
        """Make the leg ready; 0, a FlowOutcome why not, or -1: try again when a flow has ended."""
        raise NotImplementedError

    def send(self, leg: Leg, data: Any, at: int, length: int) -> int:
        """Send `data[at : at + length]`, at the latest with `flush`; `data` is lent for the call.

        What became of it is told to the counts. 0; never raises for the network's sake.
        """
        raise NotImplementedError

    def flush(self) -> None:
        """Send what waits."""
        raise NotImplementedError

    def close(self, leg: Leg) -> None:
        """The leg has ended; nothing of it waits."""
        raise NotImplementedError
