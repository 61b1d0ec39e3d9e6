"""Which connection a packet belongs to when addresses and ports are used in several networks.

VLANs and tunnels may carry the same addresses and ports for different connections. They also show
one connection several times (on a trunk before and after a router, tagged on a device and untagged
on the one above it, by two mirror sessions), and its two directions with different numbers. So the
network alone decides nothing: a packet of a network in which a connection was not seen yet belongs
to it when its numbers fit, and to another connection when they do not. What is told apart gets a
number, the realm, which goes into the connection's key; the first one has realm 0.

Nobody asks before a packet with a network has been seen. Memory is bounded.
"""

from __future__ import annotations

from typing import Any

from tcpcopy.packet import flags
from tcpcopy.packet.segment import Segment

_FIN = flags.FIN
_SYN = flags.SYN
_ACK = flags.ACK
_UNKNOWN = -1
_MOST_CONNECTIONS = 1 << 16  # strands of each of two generations
_MOST_STRANDS = 64  # connections told apart that have the same addresses and ports
_MOST_NETWORKS = 8  # in which one connection is seen
_NEAR = 1 << 24  # sequence numbers of one connection are no further apart, mostly
_HALF = 1 << 31
_MASK = 0xFFFFFFFF


def _distance(number: int, other: int) -> int:
    """How far apart two sequence numbers are, either way."""
    ahead = (number - other) & _MASK
    return ahead if ahead <= _HALF else _MASK - ahead + 1


class Strand:
    """One connection of those with the same addresses and ports."""

    __slots__ = (
        "following",  # the next of them; None: this is the last
        "isn",  # of the two sides, the lower one first; -1: not seen
        "isn_high",
        "network",  # where it was seen first
        "others",  # further networks where it is seen; None without
        "realm",
        "seq",  # what each side sends next, as far as is known; -1: unknown
        "seq_high",
    )

    def __init__(self, network: int, realm: int) -> None:
        self.network = network
        self.realm = realm
        self.isn = self.isn_high = self.seq = self.seq_high = _UNKNOWN
        self.others: list[int] | None = None
        self.following: Strand | None = None

    def knows(self, network: int) -> bool:
        """Whether it was seen in that network."""
        if network == self.network:
            return True
        return self.others is not None and network in self.others

    def add(self, network: int) -> None:
        """It is seen there as well."""
        if self.others is None:
            self.others = []
        if len(self.others) < _MOST_NETWORKS:
            self.others.append(network)

    def fits(self, segment: Segment, from_low: bool) -> bool:
        """Whether the numbers of a segment are those of this connection."""
        isn = self.isn if from_low else self.isn_high
        seq = self.seq if from_low else self.seq_high
        if segment.flags & _SYN and isn >= 0:
            return isn == segment.seq
        if seq >= 0:
            return _distance(segment.seq, seq) <= _NEAR
        other = self.seq_high if from_low else self.seq
        if segment.flags & _ACK and other >= 0:
            return _distance(segment.ack, other) <= _NEAR
        return False

    def take(self, segment: Segment, from_low: bool, network: int) -> None:
        """Account for a segment of this connection."""
        bits = segment.flags
        seq = (segment.seq + segment.payload_length) & _MASK
        if bits & (_SYN | _FIN):
            seq = (seq + 1) & _MASK
        known = self.seq if from_low else self.seq_high
        if bits & _SYN:
            isn = self.isn if from_low else self.isn_high
            if isn != segment.seq and known >= 0:
                if isn >= 0 or _distance(segment.seq, known) > _NEAR:
                    # The ports are used again: whether in all networks is not known.
                    self.isn = self.isn_high = self.seq = self.seq_high = _UNKNOWN
                    self.network = network
                    self.others = None
                known = _UNKNOWN
            if from_low:
                self.isn = segment.seq
            else:
                self.isn_high = segment.seq
        if known < 0 or ((seq - known) & _MASK) < _HALF:
            if from_low:
                self.seq = seq
            else:
                self.seq_high = seq
        if bits & _ACK:
            if from_low and self.seq_high < 0:
                self.seq_high = segment.ack
            elif not from_low and self.seq < 0:
                self.seq = segment.ack


class NetworkTable:
    """The connections of packets with a network, and of those that have their addresses."""

    __slots__ = ("_before", "_now", "_strands", "told_apart")

    def __init__(self) -> None:
        self._now: dict[bytes, Strand] = {}
        self._before: dict[bytes, Strand] = {}
        self._strands = 0  # in `_now`
        self.told_apart = 0  # connections that only their network tells from others

    def __len__(self) -> int:
        """Connections remembered."""
        count = 0
        for table in (self._before, self._now):
            for strand in table.values():
                following: Strand | None = strand
                while following is not None:
                    count += 1
                    following = following.following
        return count

    def realm(
        self, key: bytes, from_low: bool, segment: Segment, network: int, known_seq: int
    ) -> int:
        """The realm of the connection that a packet of `network` belongs to.

        `key`: addresses and ports, the same for both directions; `from_low` tells them apart.
        `known_seq`: what the sender sends next in a connection without a network that was open
        when the table was made; -1: there is none.
        """
        first = self._first(key)
        if first is None:
            first = Strand(network if known_seq < 0 else 0, 0)
            self._put(key, first)
            if known_seq >= 0:
                if from_low:
                    first.seq = known_seq
                else:
                    first.seq_high = known_seq
            else:
                first.take(segment, from_low, network)
                return 0
        if first.following is None and first.network == network:
            first.take(segment, from_low, network)
            return 0
        strand = self._find(first, segment, from_low, network)
        strand.take(segment, from_low, network)
        return strand.realm

    def _first(self, key: bytes) -> Strand | None:
        found: Strand | None = self._now.get(key)
        if found is None:
            found = self._before.get(key)
            if found is not None:
                del self._before[key]
                self._put(key, found)
        return found

    def _put(self, key: bytes, strand: Strand) -> None:
        if self._strands >= _MOST_CONNECTIONS:
            self._before = self._now
            self._now = {}
            self._strands = 0
        self._now[key] = strand
        while strand is not None:
            self._strands += 1
            strand = strand.following  # type: ignore[assignment]

    def _find(self, first: Strand, segment: Segment, from_low: bool, network: int) -> Strand:
        """The connection of the packet among those with its addresses, or a new one."""
        fitting: Strand | None = None
        knowing: Strand | None = None
        last = first
        count = 0
        strand: Strand | None = first
        while strand is not None:
            last = strand
            count += 1
            fits = strand.fits(segment, from_low)
            if strand.knows(network):
                if fits:
                    return strand
                if knowing is None:
                    knowing = strand
            elif fits and fitting is None:
                fitting = strand
            strand = strand.following
        if fitting is not None:
            fitting.add(network)
            return fitting
        if knowing is not None:
            return knowing
        if count >= _MOST_STRANDS:
            last.network = network  # whoever has so many gets the last one's place
            return last
        made = Strand(network, last.realm + 1)
        last.following = made
        self._strands += 1
        self.told_apart += 1
        return made


def realm_bytes(realm: int) -> Any:
    """What a realm other than 0 adds to a connection's key: two bytes."""
    return realm.to_bytes(2, "big")
