"""Follows every TCP connection and UDP flow of recorded traffic, without keeping their bytes.

The table is bounded: connections that have ended are given to the observer and forgotten when it
grows, and when there is no room left, packets of further ones are counted as such.
"""

from __future__ import annotations

from typing import Any

from tcpcopy.engine.captured import FAR_SIGNS, FARTHEST_IN_FLIGHT, MOST_DOUBTS
from tcpcopy.engine.seqnum import add, difference
from tcpcopy.packet import flags
from tcpcopy.packet.checksum import RIGHT, Sums, judge
from tcpcopy.packet.handler import PacketHandler
from tcpcopy.packet.networks import NetworkTable, realm_bytes
from tcpcopy.packet.reassembly import Reassembler
from tcpcopy.packet.segment import Segment, copy_bytes, parse
from tcpcopy.packet.twins import DatagramTwins, Twins
from tcpcopy.recorded import guess
from tcpcopy.recorded.schedule import BACK_NS, FORWARD_NS

_PARSED = flags.PARSED
_FRAGMENT = flags.FRAGMENT
_NOT_TCP = flags.NOT_TCP
_FIN = flags.FIN
_SYN = flags.SYN
_RST = flags.RST
_ACK = flags.ACK
_FIRST_BYTES = guess.FIRST_BYTES
_UNTRIED = -1  # no payload was seen yet, so nothing could be guessed
_MOST_EARLY = 64  # early pieces held for one side
_LINGER_NS = 30_000_000_000  # an ended connection may see late packets for so long
_FIRST_SWEEP = 65536
_SWEEP_AGAIN = 100_000  # packets refused before a full table is swept again
_FAR = FARTHEST_IN_FLIGHT  # sequence numbers so far off belong to something else
_FAR_SIGNS = FAR_SIGNS
_DOUBTS = MOST_DOUBTS
_RIGHT = RIGHT
_PSH = flags.PSH
_URG = flags.URG
# The clock of a file was set, if it goes on by so much at once, or back (recorded.schedule).
_FORWARD_NS = FORWARD_NS
_BACK_NS = BACK_NS


class Side:
    """One end of a flow: what it sent."""

    __slots__ = (
        "bytes",  # payload, each byte once
        "doubts",  # segments that stand before what `rst_seq` and `shown_seq` show
        "far",  # segments in a row that are farther off than anything in flight
        "cut",  # payload bytes that were on the wire and are not in the file
        "early",  # (from, to) of segments behind a gap; None without
        "fin_seq",  # sequence number of its FIN, -1 without
        "guessed",  # protocol, a number of guess.NAMES; -1 before its first payload
        "has_ack",  # a segment with ACK set was seen
        "has_fin",
        "has_rst",
        "has_syn",  # SYN alone: this side opens
        "has_syn_ack",
        "isn",  # sequence number of its SYN, -1 without
        "next_seq",  # what comes next, -1 before anything came
        "other_ack",  # the most that the other side has acknowledged, -1 without
        "packets",
        "right_sum",  # a segment had a right checksum
        "rst_seq",  # of a RST that does not stand at the next byte, -1 without
        "shown_seq",  # all before was sent, by a bare acknowledgement; -1: not shown
        "urgent_seq",  # of an urgent byte that has not been reached, -1 without
    )

    def __init__(self) -> None:
        self.bytes = 0
        self.doubts = self.far = 0
        self.right_sum = False
        self.rst_seq = self.shown_seq = self.urgent_seq = -1
        self.cut = 0
        self.early: list[tuple[int, int]] | None = None
        self.fin_seq = -1
        self.guessed = _UNTRIED
        self.has_ack = self.has_fin = self.has_rst = self.has_syn = self.has_syn_ack = False
        self.isn = -1
        self.next_seq = -1
        self.other_ack = -1
        self.packets = 0

    def misses_bytes(self) -> bool:
        """Whether bytes of this side are not in the file, between its first and its last one."""
        if self.cut or self.early or self.rst_seq >= 0 or self.far >= _FAR_SIGNS:
            return True
        if self.next_seq < 0:
            return False
        end = self.next_seq
        if self.fin_seq >= 0:
            if difference(self.fin_seq, end) > 0:
                return True
            end = add(end, 1)
        elif self.shown_seq >= 0 and difference(self.shown_seq, end) > 0:
            return True
        return self.other_ack >= 0 and difference(self.other_ack, end) > 0

    def take(self, segment: Segment, data: Any) -> None:
        """Account for a segment that this side sent."""
        bits = segment.flags
        length = segment.payload_length
        seq = segment.seq
        if bits & _ACK:
            self.has_ack = True
        if bits & _RST:
            self._take_rst(seq)
            return  # its payload is no data
        if not bits & (_ACK | _SYN):
            return  # the other end drops it
        if bits & _SYN:
            self.isn = seq
            if bits & _ACK:
                self.has_syn_ack = True
            else:
                self.has_syn = True
            seq = add(seq, 1)
            if self.next_seq < 0:
                self.next_seq = seq
        if self.next_seq < 0:
            if length == 1 and not bits & (_PSH | _FIN):
                self.next_seq = add(seq, 1)  # a keep-alive: its byte is none of the stream
                return
            self.next_seq = seq
        if bits & _URG:
            urgent = data[segment.header_offset + 18] << 8 | data[segment.header_offset + 19]
            if difference(add(seq, urgent - 1), self.next_seq) >= 0:
                self.urgent_seq = add(seq, urgent - 1)
        if length == 0 and not bits & (_SYN | _FIN):
            self._take_ack(seq)
        if length > 0:
            if self.guessed == _UNTRIED and segment.available > 0:
                self._guess(segment, data)
            self._take_payload(seq, length, segment.available)
        if bits & _FIN and -_FAR <= difference(add(seq, length), self.next_seq) <= _FAR:
            self.has_fin = True
            self.fin_seq = add(seq, length)
            if self.fin_seq == self.next_seq:
                self.rst_seq = self.shown_seq = -1  # none of the stream stood behind it
                self.early = None

    def _take_rst(self, seq: int) -> None:
        """A RST counts where it stands at the next byte (engine.captured has the rules)."""
        ahead = 0 if self.next_seq < 0 else difference(seq, self.next_seq)
        if -1 <= ahead <= 0 or (self.has_fin and ahead == 1):
            self.has_rst = True
        elif 0 < ahead <= _FAR and not self.has_fin:
            self.rst_seq = seq
            self.doubts = 0

    def _take_ack(self, seq: int) -> None:
        """A segment without data: it may show bytes that are not there, or that there are none."""
        ahead = difference(seq, self.next_seq)
        if ahead < -_FAR or ahead > _FAR:
            self.far += 1
        elif ahead > 1:
            if not self.has_fin:
                self.shown_seq = seq
                self.doubts = 0
        else:
            self._doubt()

    def _doubt(self) -> None:
        self.far = 0
        if self.rst_seq >= 0 or self.shown_seq >= 0:
            self.doubts += 1
            if self.doubts >= _DOUBTS:
                self.rst_seq = self.shown_seq = -1

    def _go_on(self) -> None:
        """New data have come in order."""
        self._doubt()
        if self.rst_seq >= 0:
            self.has_rst = self.has_rst or self.rst_seq == self.next_seq
            self.rst_seq = -1
        if self.urgent_seq >= 0 and difference(self.next_seq, self.urgent_seq) > 0:
            self.bytes -= 1  # no ordinary read sees it
            self.urgent_seq = -1

    def is_reset(self) -> bool:
        """Whether it was ended by a RST, where that stands right or where bytes are missing."""
        return self.has_rst or self.rst_seq >= 0

    def _guess(self, segment: Segment, data: Any) -> None:
        first = min(segment.available, _FIRST_BYTES)
        self.guessed = guess.by_stream(
            copy_bytes(data, segment.payload_offset, first), segment.payload_length
        )

    def _take_payload(self, seq: int, length: int, available: int) -> None:
        ahead = difference(seq, self.next_seq)
        if ahead > _FAR or ahead < -_FAR:
            self.far += 1
            return
        if ahead + length <= 0:
            return  # seen before
        if available < length:
            self.cut += length - available
        if ahead > 0:
            self._keep_early(seq, length)
            return
        self.bytes += ahead + length
        self.next_seq = add(self.next_seq, ahead + length)
        if self.early:
            self._join()
        self._go_on()

    def _keep_early(self, seq: int, length: int) -> None:
        if self.early is None:
            self.early = []
        if len(self.early) < _MOST_EARLY:
            self.early.append((seq, add(seq, length)))

    def _join(self) -> None:
        """Take in the early segments that the gap before has been filled for."""
        joined = True
        while joined and self.early:
            joined = False
            for piece in self.early:
                if difference(piece[0], self.next_seq) > 0:
                    continue
                new = difference(piece[1], self.next_seq)
                if new > 0:
                    self.bytes += new
                    self.next_seq = piece[1]
                self.early.remove(piece)
                joined = True
                break


class Flow:
    """A TCP connection or a UDP flow, both directions; `low` has the smaller address and port."""

    __slots__ = (
        "first_from_low",  # who sent the first packet
        "first_ns",
        "high",
        "is_twin",  # seen on the other side of address translation already
        "is_udp",
        "last_ns",
        "low",
        "syn_seq",  # of a SYN that came while it was open, and waits to be told; -1 without
    )

    def __init__(self, is_udp: bool, first_from_low: bool, first_ns: int) -> None:
        self.is_twin = False
        self.is_udp = is_udp
        self.syn_seq = -1
        self.first_from_low = first_from_low
        self.first_ns = first_ns
        self.last_ns = first_ns
        self.low = Side()
        self.high = Side()

    def has_ended(self) -> bool:
        """Whether nothing more than late packets can follow."""
        if self.low.has_rst or self.high.has_rst:
            return True
        low_done = self.low.has_fin or self.low.packets == 0
        return low_done and (self.high.has_fin or self.high.packets == 0)


class FlowTable(PacketHandler):
    """Takes packets as a handler. Gives each flow to `ended(key, flow)` once, some at `finish`.

    `key` is address and port of the lower side, then of the higher: 12 or 36 bytes, and two more
    where another connection has the same in another network.
    """

    __slots__ = (
        "bad",  # packets with IP or TCP headers that are damaged or cut
        "ended",
        "fragments",  # pieces of UDP; those of TCP come put together
        "most",  # flows held at once
        "network",  # of the packet at hand (`PacketHandler.enter`)
        "networks",  # tells connections apart by it; None until there is a packet with one
        "joined",  # datagrams put together from fragments
        "lost",  # fragments of datagrams that stayed incomplete
        "other",  # packets of other protocols
        "reassembler",  # of UDP
        "jumps_back",  # of the clock
        "jumps_forward",
        "last_ns",  # time of the packet before, -1 before the first
        "not_taken",  # segments that the other end drops: wrong checksum
        "refused",  # packets of flows that there was no room for
        "scratch",
        "seen_twice",  # connections, and packets of UDP, seen on another device as well
        "segment",
        "sums",
        "sweep_at",
        "twins",
        "datagram_twins",
        "tcp",  # key -> Flow
        "tcp_packets",
        "udp",
        "udp_packets",
    )

    def __init__(self, ended: Any, most: int) -> None:
        self.ended = ended
        self.most = most
        self.sweep_at = min(most, _FIRST_SWEEP)
        self.segment = Segment()
        self.scratch = bytearray(36)
        self.tcp: dict[bytes, Flow] = {}
        self.udp: dict[bytes, Flow] = {}
        self.network = 0
        self.networks: NetworkTable | None = None
        self.reassembler = Reassembler((17,))
        self.bad = self.fragments = self.joined = self.lost = self.other = self.refused = 0
        self.tcp_packets = self.udp_packets = 0
        self.jumps_back = self.jumps_forward = self.not_taken = self.seen_twice = 0
        self.last_ns = -1
        self.sums = Sums()
        self.twins = Twins()
        self.datagram_twins = DatagramTwins()

    def enter(self, network: int) -> None:
        """As `PacketHandler.enter`."""
        self.network = network
        if self.networks is None:
            self.networks = NetworkTable()

    def packet(self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int) -> int:
        """As `PacketHandler.packet`; always 0."""
        self._note_time(timestamp_ns)
        status = parse(self.segment, data, start, end, wire_length)
        if status == _PARSED:
            self.tcp_packets += 1
            self._take_tcp(data, timestamp_ns)
        elif status == _NOT_TCP:
            self._take_udp(data, start, end, timestamp_ns)
        elif status == _FRAGMENT:
            self._take_fragment(data, start, end, timestamp_ns)
        else:
            self.bad += 1
        return 0

    def _take_fragment(self, data: Any, start: int, end: int, timestamp_ns: int) -> None:
        self.fragments += 1
        whole = self.reassembler.add(data, start, end, timestamp_ns, self.network)
        self._count_lost()
        if whole is not None:
            self.joined += 1
            self._take_udp(whole, 0, len(whole), timestamp_ns)

    def _count_lost(self) -> None:
        held = self.reassembler
        self.lost += held.incomplete + held.alone
        held.incomplete = held.alone = 0

    def finish(self) -> None:
        """Give what is left to `ended`: connections whose opener is known come first."""
        self.reassembler.give_up_all()
        self._count_lost()
        self._give_all(self.tcp, True)
        self._give_all(self.tcp, False)
        self._give_all(self.udp, False)

    def _note_time(self, timestamp_ns: int) -> None:
        if self.last_ns >= 0:
            ahead = timestamp_ns - self.last_ns
            self.jumps_back += ahead < -_BACK_NS
            self.jumps_forward += ahead > _FORWARD_NS
            if -_BACK_NS <= ahead < 0:
                return
        self.last_ns = timestamp_ns

    def _give(self, key: bytes, flow: Flow) -> None:
        """A flow has ended."""
        if flow.is_twin:
            self.seen_twice += 1
        else:
            self.ended(key, flow)

    def _take_tcp(self, data: Any, timestamp_ns: int) -> None:
        segment = self.segment
        from_low = self._fill_key(data)
        key = copy_bytes(self.scratch, 0, 2 * segment.address_size + 4)
        flow = self.tcp.get(key)
        if self.networks is not None:
            key = self._in_realm(key, flow, from_low)
            flow = self.tcp.get(key)
        syn_seq = -1
        if flow is not None and self._is_another(flow, from_low):
            syn_seq = flow.syn_seq
            del self.tcp[key]
            self._give(key, flow)
            flow = None
        if flow is None:
            if not self._has_room(timestamp_ns):
                self.refused += 1
                return
            flow = Flow(False, from_low, timestamp_ns)
            self.tcp[key] = flow
            if segment.flags & (_SYN | _ACK) != _SYN | _ACK:
                flow.is_twin = self.twins.is_seen(segment, data)
            if syn_seq >= 0:
                self._note_syn(flow, from_low, syn_seq)
        side = flow.low if from_low else flow.high
        side.packets += 1
        if timestamp_ns > flow.last_ns:
            flow.last_ns = timestamp_ns
        found = judge(segment, data)
        if self.sums.is_wrong(found, side.right_sum, segment.payload_length):
            self.not_taken += 1
            return
        if found == _RIGHT:
            side.right_sum = True
        if flow.syn_seq >= 0 and segment.flags & (_SYN | _ACK) == _SYN:
            return  # which connection it is of is told by what comes next
        side.take(segment, data)
        if segment.flags & _ACK and not segment.flags & _RST:
            other = flow.high if from_low else flow.low
            if other.other_ack < 0 or difference(segment.ack, other.other_ack) > 0:
                other.other_ack = segment.ack

    def _in_realm(self, key: bytes, flow: Flow | None, from_low: bool) -> bytes:
        """The key of the connection, where others in other networks may have its addresses.

        `flow`: the one of its addresses, if there is one.
        """
        known_seq = -1
        if flow is not None:
            known_seq = flow.low.next_seq if from_low else flow.high.next_seq
        networks: NetworkTable = self.networks  # type: ignore[assignment]
        realm = networks.realm(key, from_low, self.segment, self.network, known_seq)
        return key + realm_bytes(realm) if realm else key

    def _is_another(self, flow: Flow, from_low: bool) -> bool:
        """Whether the segment is of a connection that has the ports of `flow` again."""
        segment = self.segment
        side = flow.low if from_low else flow.high
        if not segment.flags & _SYN:
            return self._is_elsewhere(flow, side)
        if segment.flags & _ACK:
            # The server has taken the SYN that came while the connection seemed open.
            return flow.syn_seq >= 0 and segment.ack == add(flow.syn_seq, 1)
        if side.isn == segment.seq:
            return False  # sent again
        if side.has_fin or flow.has_ended():
            flow.syn_seq = -1
            return True
        if side.packets == 0:
            return False
        if flow.syn_seq >= 0 or side.has_ack or side.bytes:
            flow.syn_seq = segment.seq  # what comes next tells: online ignores stray ones
            return False
        return True  # its own SYN is all that was there

    def _is_elsewhere(self, flow: Flow, side: Side) -> bool:
        """Whether the numbers of a segment without SYN are those of another connection."""
        segment = self.segment
        if side.next_seq < 0 or not segment.flags & _ACK or segment.flags & _RST:
            return False
        to_old = abs(difference(segment.seq, side.next_seq))
        if flow.syn_seq >= 0 and side.isn != flow.syn_seq and (side.has_syn or side.isn < 0):
            if abs(difference(segment.seq, add(flow.syn_seq, 1))) < to_old:
                return True
            flow.syn_seq = -1
            return False
        has_ended = side.has_fin or flow.has_ended()
        return has_ended and segment.payload_length > 0 and to_old > _FAR

    def _note_syn(self, flow: Flow, from_low: bool, seq: int) -> None:
        """The connection begins with a SYN that was seen, of the side that is not the server."""
        is_answer = self.segment.flags & _SYN != 0
        side = flow.high if from_low == is_answer else flow.low
        side.packets = 1
        side.isn = seq
        side.has_syn = True
        side.next_seq = add(seq, 1)

    def _take_udp(self, data: Any, start: int, end: int, timestamp_ns: int) -> None:
        segment = self.segment
        at = self._udp_header(data, start, end)
        if at < 0 or end - at < 8:
            self.other += 1
            return
        self.udp_packets += 1
        segment.header_offset = at
        segment.source_port = (data[at] << 8) | data[at + 1]
        segment.destination_port = (data[at + 2] << 8) | data[at + 3]
        length = ((data[at + 4] << 8) | data[at + 5]) - 8
        segment.payload_offset = at + 8
        segment.available = max(0, min(length, end - at - 8))
        if self.datagram_twins.is_seen(segment, data, timestamp_ns):
            self.seen_twice += 1
            return
        from_low = self._fill_key(data)
        key = copy_bytes(self.scratch, 0, 2 * segment.address_size + 4)
        flow = self.udp.get(key)
        if flow is None:
            if not self._has_room(timestamp_ns):
                self.refused += 1
                return
            flow = Flow(True, from_low, timestamp_ns)
            self.udp[key] = flow
        side = flow.low if from_low else flow.high
        side.packets += 1
        if timestamp_ns > flow.last_ns:
            flow.last_ns = timestamp_ns
        if length <= 0:
            return
        side.bytes += length
        available = min(length, end - at - 8)
        side.cut += length - available
        if side.guessed == _UNTRIED and available > 0:
            side.guessed = guess.by_datagram(
                copy_bytes(data, at + 8, min(available, _FIRST_BYTES)),
                length,
                min(segment.source_port, segment.destination_port),
            )

    def _udp_header(self, data: Any, start: int, end: int) -> int:
        """Where the UDP header stands, -1 if this is something else; addresses are noted."""
        segment = self.segment
        if data[start] >> 4 == 4:
            segment.address_offset = start + 12
            segment.address_size = 4
            kind = data[start + 9]
            at = start + (data[start] & 15) * 4
        else:
            segment.address_offset = start + 8
            segment.address_size = 16
            kind = data[start + 6]
            at = start + 40
        extensions = 0
        while kind in (0, 43, 44, 51, 60) and end - at >= 8 and extensions < 8:
            size = 8 + data[at + 1] * 8
            if kind == 51:
                size = (data[at + 1] + 2) * 4
            elif kind == 44:
                size = 8
            kind = data[at]
            at += size
            extensions += 1
        return at if kind == 17 else -1

    def _fill_key(self, data: Any) -> bool:
        """Put the key into `scratch`; whether the sender is the lower side."""
        segment = self.segment
        size = segment.address_size
        source = segment.address_offset
        ports = segment.header_offset
        order = 0
        i = 0
        while i < size and order == 0:
            order = data[source + i] - data[source + size + i]
            i += 1
        if order == 0:
            order = segment.source_port - segment.destination_port
        low = 0 if order <= 0 else size + 2
        high = size + 2 - low
        i = 0
        while i < size:
            self.scratch[low + i] = data[source + i]
            self.scratch[high + i] = data[source + size + i]
            i += 1
        self.scratch[low + size] = data[ports]
        self.scratch[low + size + 1] = data[ports + 1]
        self.scratch[high + size] = data[ports + 2]
        self.scratch[high + size + 1] = data[ports + 3]
        return order <= 0

    def _has_room(self, now_ns: int) -> bool:
        if len(self.tcp) + len(self.udp) < self.sweep_at:
            return True
        if self.sweep_at < self.most or self.refused % _SWEEP_AGAIN == 0:
            self._sweep(now_ns)
            held = len(self.tcp) + len(self.udp)
            self.sweep_at = min(self.most, max(_FIRST_SWEEP, 2 * held))
        return len(self.tcp) + len(self.udp) < self.most

    def _sweep(self, now_ns: int) -> None:
        """Give up what has ended, and UDP flows that are quiet."""
        for table in (self.tcp, self.udp):
            for key, flow in list(table.items()):
                quiet = now_ns - flow.last_ns > _LINGER_NS
                if quiet and (flow.is_udp or flow.has_ended()):
                    del table[key]
                    self._give(key, flow)

    def _give_all(self, table: dict[bytes, Flow], only_opened: bool) -> None:
        for key, flow in list(table.items()):
            low, high = flow.low, flow.high
            opened = low.has_syn or high.has_syn or low.has_syn_ack or high.has_syn_ack
            if not only_opened or opened:
                del table[key]
                self._give(key, flow)
