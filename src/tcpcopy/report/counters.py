"""Every figure of a run in one plain object: joins over workers, travels as JSON, checks itself.

A worker fills a `Snapshot` from the engine's own counts and hands it on; nothing here counts a
second time. The log, the status line, the summary and the JSON report all render this object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tcpcopy.report.flow_outcome import (
    DATAGRAM_DROP_SLOTS,
    FLOW_OUTCOME_SLOTS,
    DatagramDrop,
    FlowOutcome,
)
from tcpcopy.report.histogram import Histogram
from tcpcopy.report.outcome import DROP_SLOTS, OUTCOME_SLOTS, Drop, Outcome
from tcpcopy.report.said import Said


@dataclass(slots=True)
class RingCounts:
    """What the kernel counted for one capture ring (PACKET_STATISTICS, summed over the reads)."""

    received: int = 0  # packets that passed the filter, those dropped included
    dropped: int = 0  # of these, packets that found the ring full
    skipped: int = 0  # of these, frames that are not IP


@dataclass(slots=True)
class RelayCounts:
    """The relay connections to one intercept."""

    connected: int = 0  # connections that are up now
    connects: int = 0  # times that a connection came up
    reconnects: int = 0  # of these, times that a lost one came back
    records: int = 0  # answers received, malformed ones included
    malformed: int = 0  # of these, answers that could not be read
    lost: int = 0  # answers known to be lost (a connection broke, a queue was full)
    dropped: int = 0  # packets that intercept did not inject (tunnel mode)
    native: int = 0  # of `connects`, those with the native relay
    encrypted: int = 0  # of `connects`, those with TLS

    @property
    def kind(self) -> str:
        """What was spoken: "native", "classic", both of them, or "" before it was known."""
        if not self.connects:
            return ""
        if not self.native:
            return "classic"
        return "native" if self.native == self.connects else "native and classic"


@dataclass(slots=True)
class InputCounts:
    """What was read of capture files (`-i FILE`); all 0 for a live capture."""

    packets: int = 0  # IP packets read, each pass for itself
    left_out: int = 0  # of these, other traffic: what a live capture would not have seen
    bytes_read: int = 0  # of all passes
    bytes_total: int = 0  # that there are to read; 0: nobody knows
    passes: int = 0  # complete ones
    problems: int = 0  # files that could not be read to their end


@dataclass(slots=True)
class PortCounts:
    """What connects of socket mode met on this host: local ports, and waiting; else all 0."""

    available: int = 0  # local ports from one address to one target
    most_used: int = 0  # at once, towards one target from one address; those that rest as well
    reused: int = 0  # connects from a port that still rested (TIME_WAIT)
    waited: int = 0  # connects that waited for a port, an open file, a route
    waiting: int = 0  # of these, those that wait now


@dataclass(slots=True)
class RateCounts:
    """What `--rate` came to."""

    taken: int = 0  # sessions, or requests, that were given their time
    waited: int = 0  # of these, those that had to wait for it
    reached_milli: int = 0  # thousandths per second, once the rate was no longer rising


@dataclass(slots=True)
class LeftoverCounts:
    """Sessions that a killed run or worker left open at the target, and what became of them."""

    found: int = 0
    reset: int = 0
    gone: int = 0  # the target did not know them any more
    superseded: int = 0  # a new session took their address and port
    unanswered: int = 0  # the target was asked several times, in vain
    unrecorded: int = 0  # sessions of this run for which there was no room: not among `found`

    @property
    def waiting(self) -> int:
        """Those of which nothing has become yet."""
        return self.found - self.reset - self.gone - self.superseded - self.unanswered


@dataclass(slots=True)
class Snapshot:
    """The counts of one worker, or of all, since the start. All are totals unless noted.

    Arrays are indexed by `Outcome` and `Drop`; slot 0 of the drop arrays counts packets used.
    Counts are never negative. `check()` names the identities that hold between them.
    """

    # Time.
    started_ns: int = 0  # CLOCK_REALTIME of the start; 0: not started
    duration_ns: int = 0  # since then
    is_over: bool = False  # all that was captured is counted: nothing more is read

    # Sessions. One captured connection counts once for each target and copy (-x, -n).
    sessions_captured: int = 0
    sessions_live: int = 0  # now; 0 at exit
    sessions_waiting: int = 0  # now, of the captured: SYN seen, not opened yet; 0 at exit
    sessions_peak: int = 0  # most live at once (joined: the sum of the workers' peaks)
    sessions_established: int = 0  # of the captured, those that the target accepted
    sessions_since_accept: int = 0  # of the captured, those begun since it last accepted one
    sessions_resumed: int = 0  # of the captured, those cut by the target that went on
    sessions_waited: int = 0  # times that one stood in line for a target that refused
    sessions_refused: int = 0  # now, of the live: those that stand in line for such a target
    connects_retried: int = 0  # connects tried again, and those of sessions that went on
    sessions_midstream: int = 0  # of the captured, those first seen without their SYN
    sessions_unread: int = 0  # beside the captured: those whose SYN was left unread at exit
    outcomes: list[int] = field(default_factory=lambda: [0] * OUTCOME_SLOTS)

    # SYN floods: connection attempts that come fast and never complete their handshake.
    syn_flood_rate: int = 0  # attempts of the last second, while there is one (joined: the sum)
    syn_flood_peak: int = 0  # most of a second (joined: the sum of the workers' peaks)
    syn_flood_attempts: int = 0  # in all of them

    # What they carry; sessions that were skipped or shed do not count here.
    turns_captured: int = 0
    turns_replayed: int = 0  # handed to the replayed side
    turns_missed: int = 0  # of these, under way when the target cut a session that went on
    turns_late: int = 0  # of these, sent later than captured because the target was slower
    bytes_captured: int = 0  # of client data, each byte once
    bytes_delivered: int = 0  # of these, acknowledged by the target
    answer_bytes: int = 0  # that the target sent, each byte once
    said: dict[str, Said] = field(default_factory=dict)  # by target, "address:port"
    urgent_bytes: int = 0  # of TCP's urgent data, which are no part of a stream and are not sent
    waits_expired: int = 0  # turns sent because their wait for the target's answer ran out

    # Packets.
    packets_captured: int = 0
    packets_unread: int = 0  # beside the captured: left unread at exit
    packet_drops: list[int] = field(default_factory=lambda: [0] * DROP_SLOTS)
    packets_sent: int = 0  # to the target, retransmissions included
    packets_retransmitted: int = 0
    answers_received: int = 0  # packets of the target
    answer_drops: list[int] = field(default_factory=lambda: [0] * DROP_SLOTS)
    send_errors: dict[int, int] = field(default_factory=dict)  # errno: failed sends or connects

    # Beside the engine.
    rings: dict[str, RingCounts] = field(default_factory=dict)  # by device
    relays: dict[str, RelayCounts] = field(default_factory=dict)  # by intercept, "address:port"
    file: InputCounts = field(default_factory=InputCounts)
    rate: RateCounts = field(default_factory=RateCounts)
    unwrapped: int = 0  # packets taken out of tunnels
    unwrapped_left_out: int = 0  # live: what was found in tunnels or fragments is not named by -x
    fragments_kept: int = 0  # live: pieces that did not complete a packet when they came
    fragments_lost: int = 0  # pieces of TCP and tunnels that never came whole
    not_read: dict[str, int] = field(default_factory=dict)  # encapsulation -> packets
    ports: PortCounts = field(default_factory=PortCounts)
    leftovers: LeftoverCounts = field(default_factory=LeftoverCounts)
    memory_bytes: int = 0  # resident now
    workers_lost: int = 0  # workers that died; what each did since it last told is not counted

    # Durations in nanoseconds.
    answer_time: Histogram = field(default_factory=Histogram)  # turn sent to first answer byte
    capture_lag: Histogram = field(default_factory=Histogram)  # packet captured to turn sent

    # UDP. A flow, and each of its datagrams, counts once for each target and copy (-x, -n).
    udp_flows_captured: int = 0
    udp_flows_live: int = 0  # now; 0 at exit
    udp_flows_peak: int = 0  # most live at once
    udp_flows_answered: int = 0  # of the captured, those that the target answered
    udp_outcomes: list[int] = field(default_factory=lambda: [0] * FLOW_OUTCOME_SLOTS)
    udp_datagrams_captured: int = 0
    udp_datagram_drops: list[int] = field(default_factory=lambda: [0] * DATAGRAM_DROP_SLOTS)
    udp_bytes_captured: int = 0  # payload of the datagrams captured
    udp_bytes_sent: int = 0
    udp_packets_captured: int = 0
    udp_packets_unread: int = 0  # beside the captured: left unread at exit
    udp_packet_drops: list[int] = field(default_factory=lambda: [0] * DATAGRAM_DROP_SLOTS)
    udp_fragments: int = 0  # of the packets captured
    udp_joined: int = 0  # datagrams put together from them
    udp_large: int = 0  # of the packets captured, longer than 1,500 bytes
    udp_answers: int = 0  # datagrams of the target (socket and local mode)
    udp_answer_bytes: int = 0
    udp_refusals: int = 0  # ICMP errors that came back (socket and local mode)
    udp_errors: dict[int, int] = field(default_factory=dict)  # errno: what met it
    udp_answer_time: Histogram = field(default_factory=Histogram)  # datagram sent to answer
    udp_lag: Histogram = field(default_factory=Histogram)  # packet captured to taken up

    # --- figures derived from the above -------------------------------------------------------

    @property
    def sessions_ended(self) -> int:
        return sum(self.outcomes)

    @property
    def sessions_lost(self) -> int:
        """Sessions of which something did not reach the target."""
        return sum(self.outcomes[outcome] for outcome in Outcome if outcome.is_loss)

    @property
    def sessions_skipped(self) -> int:
        """Sessions left out because the user asked for it."""
        return sum(self.outcomes[outcome] for outcome in Outcome if outcome.is_skip)

    @property
    def sessions_incomplete(self) -> int:
        """Connection attempts that never became a connection."""
        return sum(self.outcomes[outcome] for outcome in Outcome if outcome.is_attempt)

    @property
    def sessions_replayed(self) -> int:
        """Sessions of which all that was captured reached the target."""
        none = self.sessions_lost + self.sessions_skipped + self.sessions_incomplete
        return self.sessions_ended - none

    @property
    def udp_flows_lost(self) -> int:
        """Flows of which some datagram did not reach the target."""
        return sum(self.udp_outcomes[outcome] for outcome in FlowOutcome if outcome.is_loss)

    @property
    def udp_flows_skipped(self) -> int:
        """Flows left out because the user asked for it."""
        return sum(self.udp_outcomes[outcome] for outcome in FlowOutcome if outcome.is_skip)

    @property
    def udp_datagrams_sent(self) -> int:
        return self.udp_datagram_drops[0]

    @property
    def udp_fragments_lost(self) -> int:
        """Fragments of datagrams to a source of -x that stayed incomplete."""
        return self.udp_packet_drops[DatagramDrop.FRAGMENT]

    @property
    def has_connected(self) -> bool:
        """Whether any session got as far as exchanging data, or at least a connection."""
        return bool(self.sessions_established or self.bytes_delivered or self.answer_bytes)

    @property
    def packets_used(self) -> int:
        return self.packet_drops[0]

    @property
    def answers_to_sessions(self) -> int:
        """Answers but for those that belong to none, as what the target says to a probe does."""
        drops = self.answer_drops
        return self.answers_received - drops[Drop.NO_SESSION] - drops[Drop.NOT_TCP]

    @property
    def has_answered(self) -> bool:
        """Whether the target said anything at all to a session."""
        return bool(self.has_connected or self.answers_to_sessions)

    @property
    def answers_used(self) -> int:
        return self.answer_drops[0]

    @property
    def all_unread(self) -> int:
        """Packets that were captured, and that nobody had looked at when the run ended."""
        return self.packets_unread + self.udp_packets_unread

    @property
    def kernel_skipped(self) -> int:
        """Frames that passed the filter and are not IP."""
        return sum(ring.skipped for ring in self.rings.values())

    @property
    def kernel_received(self) -> int:
        return sum(ring.received for ring in self.rings.values())

    @property
    def kernel_dropped(self) -> int:
        """Packets lost to tcpcopy because a capture ring was full."""
        return sum(ring.dropped for ring in self.rings.values())

    def relay_total(self) -> RelayCounts:
        """The sum over all intercepts."""
        total = RelayCounts()
        for relay in self.relays.values():
            _add_fields(total, relay)
        return total

    # --- joining ------------------------------------------------------------------------------

    def merge(self, other: Snapshot) -> Snapshot:
        """A new snapshot with the counts of both; the order does not matter.

        Counts are added. The start is the earlier of the two, the duration the longer; it is over
        when both are.
        """
        joined = Snapshot()
        for source in (self, other):
            joined._add(source)
        return joined

    def _add(self, other: Snapshot) -> None:
        starts = [start for start in (self.started_ns, other.started_ns) if start]
        started_ns = min(starts, default=0)
        duration_ns = max(self.duration_ns, other.duration_ns)
        over = [one.is_over for one in (self, other) if one.started_ns or one.is_over]
        _add_fields(self, other)
        self.started_ns = started_ns
        self.is_over = bool(over) and all(over)
        self.duration_ns = duration_ns

    # --- checking -----------------------------------------------------------------------------

    def check(self) -> list[str]:
        """Every identity that does not hold, one line each; empty when the counts add up.

        A line here is always a bug of this program, never of the traffic.
        """
        broken = self._check_shapes()
        if broken:
            return broken  # sums over arrays of the wrong length would only mislead
        equal = [
            ("sessions captured", self.sessions_captured,
             "sessions ended, live and waiting",
             self.sessions_ended + self.sessions_live + self.sessions_waiting),
            ("packets captured", self.packets_captured,
             "packets used and dropped", sum(self.packet_drops)),
            ("answers received", self.answers_received,
             "answers used and dropped", sum(self.answer_drops)),
            ("UDP flows captured", self.udp_flows_captured,
             "UDP flows ended and live", sum(self.udp_outcomes) + self.udp_flows_live),
            ("UDP datagrams captured", self.udp_datagrams_captured,
             "datagrams sent and dropped", sum(self.udp_datagram_drops)),
            ("UDP packets captured", self.udp_packets_captured,
             "packets used and dropped", sum(self.udp_packet_drops)),
        ]  # fmt: skip
        equal += self._input()
        if self.sessions_live == 0 and self.sessions_lost == 0:
            equal.append(
                ("no session lost and none live, but bytes captured", self.bytes_captured,
                 "bytes delivered", self.bytes_delivered)
            )  # fmt: skip
        if self.leftovers.waiting < 0:
            found = self.leftovers.found
            broken.append(
                f"sessions left open that were handled {found - self.leftovers.waiting} are more"
                f" than those found {found}"
            )
        for one, first, other, second in equal:
            if first != second:
                broken.append(f"{one} {first} differs from {other} {second}")
        for part, whole in _PARTS:
            if getattr(self, part) > getattr(self, whole):
                broken.append(
                    f"{_words(part)} {getattr(self, part)} is more than"
                    f" {_words(whole)} {getattr(self, whole)}"
                )
        for device, ring in self.rings.items():
            for name in ("dropped", "skipped"):
                if getattr(ring, name) > ring.received:
                    broken.append(
                        f"ring {device}: {name} {getattr(ring, name)} is more than received"
                        f" {ring.received}"
                    )
        for peer, relay in self.relays.items():
            for part, whole in _RELAY_PARTS:
                if getattr(relay, part) > getattr(relay, whole):
                    broken.append(
                        f"relay {peer}: {part} {getattr(relay, part)} is more than"
                        f" {whole} {getattr(relay, whole)}"
                    )
        return broken

    def _input(self) -> list[tuple[str, int, str, int]]:
        """What came in, and what became of it: pairs of counts that are equal, with their names."""
        equal = []
        captured = self.packets_captured + self.udp_packets_captured
        if self.file.packets:
            equal.append(
                ("packets read from files", self.file.packets,
                 "packets captured, unread and left out",
                 captured + self.all_unread + self.file.left_out)
            )  # fmt: skip
        # While it runs some are on their way, and a worker that died has not told all it had read.
        if self.rings and self.is_over and not self.workers_lost:
            equal.append(
                ("packets received by the kernel", self.kernel_received,
                 "packets captured, dropped by it, unread, not IP, left out and kept as pieces",
                 captured + self.kernel_dropped + self.all_unread + self.kernel_skipped
                 + self.unwrapped_left_out + self.fragments_kept)
            )  # fmt: skip
        return equal

    def _check_shapes(self) -> list[str]:
        broken = []
        for name, slots in _ARRAYS:
            length = len(getattr(self, name))
            if length != slots:
                broken.append(f"{_words(name)} has {length} slots instead of {slots}")
        if self.outcomes and self.outcomes[0]:
            broken.append(f"outcomes: {self.outcomes[0]} sessions ended without an outcome")
        for name, value in _numbers(self):
            if value < 0:
                broken.append(f"{name} is negative: {value}")
        return broken

    # --- as data ------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able data that `from_dict` takes back; for workers, not for users."""
        data: dict[str, Any] = {}
        for spec in fields(self):
            value = getattr(self, spec.name)
            if isinstance(value, Histogram):
                value = value.to_dict()
            elif isinstance(value, _PLAIN):
                value = _plain(value)
            elif isinstance(value, list):
                value = list(value)
            elif isinstance(value, dict):
                value = {str(key): _plain(item) for key, item in value.items()}
            data[spec.name] = value
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Snapshot:
        """What `to_dict` gave. Raises: KeyError, TypeError, ValueError when it is not that."""
        twin = cls()
        for spec in fields(cls):
            value = data[spec.name]
            if spec.name in _HISTOGRAMS:
                value = Histogram.from_dict(value)
            elif spec.name in _GROUPS:
                value = _GROUPS[spec.name](**value)
            elif spec.name in ("send_errors", "udp_errors"):
                value = {int(number): count for number, count in value.items()}
            elif spec.name == "rings":
                value = {device: RingCounts(**ring) for device, ring in value.items()}
            elif spec.name == "said":
                value = {target: Said.from_dict(said) for target, said in value.items()}
            elif spec.name == "relays":
                value = {peer: RelayCounts(**relay) for peer, relay in value.items()}
            elif isinstance(value, list):
                value = list(value)
            setattr(twin, spec.name, value)
        return twin


_GROUPS: dict[str, Callable[..., Any]] = {
    "file": InputCounts,
    "leftovers": LeftoverCounts,
    "ports": PortCounts,
    "rate": RateCounts,
}

#: A count, and the count of which it is a part.
_PARTS = (
    ("sessions_established", "sessions_captured"),
    ("sessions_since_accept", "sessions_captured"),
    ("sessions_midstream", "sessions_captured"),
    ("sessions_resumed", "sessions_captured"),
    ("sessions_refused", "sessions_live"),
    ("sessions_live", "sessions_peak"),
    ("sessions_peak", "sessions_captured"),
    ("syn_flood_rate", "syn_flood_peak"),
    ("syn_flood_peak", "syn_flood_attempts"),
    ("turns_replayed", "turns_captured"),
    ("turns_missed", "turns_replayed"),
    ("turns_late", "turns_replayed"),
    ("waits_expired", "turns_replayed"),
    ("bytes_delivered", "bytes_captured"),
    ("packets_retransmitted", "packets_sent"),
    ("udp_flows_answered", "udp_flows_captured"),
    ("udp_flows_live", "udp_flows_peak"),
    ("udp_flows_peak", "udp_flows_captured"),
    ("udp_bytes_sent", "udp_bytes_captured"),
    ("udp_fragments", "udp_packets_captured"),
    ("udp_joined", "udp_fragments"),
    ("udp_large", "udp_packets_captured"),
)
_RELAY_PARTS = (
    ("connected", "connects"),
    ("reconnects", "connects"),
    ("malformed", "records"),
)
_ARRAYS = (
    ("outcomes", OUTCOME_SLOTS),
    ("packet_drops", DROP_SLOTS),
    ("answer_drops", DROP_SLOTS),
    ("udp_outcomes", FLOW_OUTCOME_SLOTS),
    ("udp_datagram_drops", DATAGRAM_DROP_SLOTS),
    ("udp_packet_drops", DATAGRAM_DROP_SLOTS),
)
_PLAIN = InputCounts | RateCounts | PortCounts | LeftoverCounts
_HISTOGRAMS = ("answer_time", "capture_lag", "udp_answer_time", "udp_lag")


def merged(snapshots: Iterable[Snapshot]) -> Snapshot:
    """All snapshots joined; an empty one when there are none."""
    joined = Snapshot()
    for snapshot in snapshots:
        joined._add(snapshot)
    return joined


def _words(name: str) -> str:
    return name.replace("_", " ")


def _plain(value: object) -> object:
    if isinstance(value, Said):
        return value.to_dict()
    if isinstance(value, RingCounts | RelayCounts | _PLAIN):
        return {spec.name: getattr(value, spec.name) for spec in fields(value)}
    return value


def _numbers(snapshot: Snapshot) -> Iterable[tuple[str, int]]:
    """Every number of a snapshot with a name for it, arrays and maps opened up."""
    for spec in fields(snapshot):
        value = getattr(snapshot, spec.name)
        name = _words(spec.name)
        if isinstance(value, int):
            yield name, value
        elif isinstance(value, _PLAIN):
            for part in fields(value):
                yield f"{name} {part.name}", getattr(value, part.name)
        elif isinstance(value, list):
            for index, count in enumerate(value):
                yield f"{name} {index}", count
        elif isinstance(value, dict):
            for key, item in value.items():
                if isinstance(item, int):
                    yield f"{name} {key}", item
                else:
                    for part in fields(item):
                        number = getattr(item, part.name)
                        least = min(number) if isinstance(number, list) else number
                        yield f"{name} {key} {part.name}", least


def _add_fields(into: Any, other: Any) -> None:
    """Add every field of `other` to the same field of `into`, a dataclass of the same type."""
    for spec in fields(into):
        mine, theirs = getattr(into, spec.name), getattr(other, spec.name)
        if isinstance(mine, Histogram):
            mine.add(theirs)
        elif isinstance(mine, list):
            setattr(into, spec.name, [a + b for a, b in zip(mine, theirs, strict=True)])
        elif isinstance(mine, dict):
            for key, item in theirs.items():
                if isinstance(item, int):
                    mine[key] = mine.get(key, 0) + item
                else:
                    _add_fields(mine.setdefault(key, type(item)()), item)
        elif isinstance(mine, _PLAIN):
            _add_fields(mine, theirs)
        else:
            setattr(into, spec.name, mine + theirs)


def drops_of(counts: list[int]) -> list[tuple[Drop, int]]:
    """The reasons with a count above 0, the largest count first."""
    found = [(reason, counts[reason]) for reason in Drop if counts[reason]]
    return sorted(found, key=lambda pair: -pair[1])
