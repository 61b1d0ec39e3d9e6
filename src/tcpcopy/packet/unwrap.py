"""Takes an IP packet out of the tunnels it is in, and puts the fragments on the way together.

What comes out of files (`recorded.records`) and of rings (`capture.unwrapping`) goes through the
same `Unwrapper`, so that both find the same packet in the same frame.
"""

from __future__ import annotations

from typing import Any

from tcpcopy.packet import frame as found_in
from tcpcopy.packet.frame import UNREAD_NAMES, UNREAD_SLOTS, Frame
from tcpcopy.packet.links import read16
from tcpcopy.packet.reassembly import Reassembler
from tcpcopy.packet.tunnels import PROTOCOLS, is_tunnel_port, is_tunnel_protocol, one_tunnel

MOST_TUNNELS = 4  # levels taken off

_MOST_TUNNELS = MOST_TUNNELS
_DEEP = found_in.DEEP
_MOST_STEPS = 16  # tunnels and fragments within one another
_TCP, _UDP, _AUTHENTICATION, _FRAGMENT = 6, 17, 51, 44
#: Protocols whose fragments are put together: TCP, and what carries packets.
JOINED = (_TCP, _UDP, _AUTHENTICATION, *PROTOCOLS)


class Unwrapper:
    """Looks at one packet after the other. Not thread-safe.

    Fragments of TCP and of tunnels are put together here, those of UDP that is no tunnel are not.
    """

    __slots__ = (
        "end",  # of the packet found: where its captured bytes end
        "fragments",  # pieces of TCP and of tunnels that came
        "frame",  # of the packet at hand; the owner begins it anew for each
        "joined",  # packets put together from them
        "lost",  # pieces of what stayed incomplete
        "reassembler",
        "start",  # of the packet found
        "strips_tunnels",  # else only fragments of TCP are put together
        "tunnelled",  # packets that came out of a tunnel
        "unread",  # packets by encapsulation that could not be read (frame.UNREAD_NAMES)
        "whole",  # the packet found stands in this, if it was in fragments; else None
        "wire_length",  # of the packet found, on the wire
    )

    def __init__(self, strips_tunnels: bool, beside: Unwrapper | None = None) -> None:
        """`beside`: one that sees other parts of the same traffic; fragments may be in both."""
        self.frame = Frame()
        self.strips_tunnels = strips_tunnels
        self.reassembler: Reassembler = (
            Reassembler(JOINED) if beside is None else beside.reassembler
        )
        self.start = self.end = self.wire_length = 0
        self.whole: bytes | None = None
        self.fragments = self.joined = self.lost = self.tunnelled = 0
        self.unread = [0] * UNREAD_SLOTS

    def begin(self, network: int) -> None:
        """The next packet is of a frame in this virtual network (0: none)."""
        self.frame.network = network
        self.frame.unread = 0

    def note_unread(self) -> None:
        """Count what the frame at hand was found to be and could not be read as."""
        if self.frame.unread:
            self.unread[self.frame.unread] += 1
            self.frame.unread = 0

    def take(self, data: Any, start: int, end: int, wire_length: int, now_ns: int) -> bool:
        """Find the packet in the IP packet `data[start:end]`; False: it is kept, as a fragment.

        It stands in `data`, or in `whole` where that is not None. `now_ns`: time of the capture.
        """
        self.whole = None
        if is_plain_tcp(data, start, end):
            self.start = start
            self.end = end
            self.wire_length = wire_length
            return True
        return self._take_other(data, start, end, wire_length, now_ns)

    def _take_other(self, data: Any, start: int, end: int, wire_length: int, now_ns: int) -> bool:
        frame = self.frame
        frame.end = end
        frame.wire_end = start + wire_length
        tunnels = 0
        for _ in range(_MOST_STEPS):
            if is_plain_tcp(data, start, frame.end):
                break
            protocol = fragment_of(data, start, frame.end)
            if protocol >= 0:
                if not self._wants(data, start, frame.end, protocol):
                    break
                whole = self._join(data, start, frame.end, now_ns)
                if whole is None:
                    return False
                data = self.whole = whole
                start = 0
                frame.end = frame.wire_end = len(whole)
                continue
            if not self.strips_tunnels:
                break
            end = frame.end
            wire_end = frame.wire_end
            inside = one_tunnel(data, start, frame)
            if inside == start:
                break
            if tunnels == _MOST_TUNNELS:
                frame.unread = _DEEP
                frame.end = end
                frame.wire_end = wire_end
                break
            tunnels += 1
            start = inside
        self.note_unread()
        if tunnels:
            self.tunnelled += 1
        self.start = start
        self.end = frame.end
        self.wire_length = frame.wire_end - start
        return True

    def _wants(self, data: Any, start: int, end: int, protocol: int) -> bool:
        """Whether a fragment is to be put together here; all of a datagram's, or none."""
        if protocol in (_TCP, _AUTHENTICATION):
            return True
        if not self.strips_tunnels:
            return False
        if protocol != _UDP:
            return is_tunnel_protocol(protocol)
        # The first one has the port. Those that come before it are not known to belong to it.
        at = first_fragment_payload(data, start, end)
        if at >= 0:
            return end - at >= 4 and is_tunnel_port(read16(data, at + 2))
        return self.reassembler.holds(data, start, end, self.frame.network)

    def _join(self, data: Any, start: int, end: int, now_ns: int) -> bytes | None:
        held = self.reassembler
        self.fragments += 1
        whole = held.add(data, start, end, now_ns, self.frame.network)
        self.count_lost()
        if whole is not None:
            self.joined += 1
        return whole

    def count_lost(self) -> None:
        """Take over what the reassembler has given up."""
        held = self.reassembler
        lost = held.incomplete + held.alone
        if lost:
            self.lost += lost
            held.incomplete = held.alone = 0

    def finish(self) -> None:
        """Nothing more will come: what is still incomplete is lost."""
        self.reassembler.give_up_all()
        self.count_lost()

    def unread_counts(self) -> dict[str, int]:
        """The packets of encapsulations that could not be read, by name, none of them 0."""
        return {UNREAD_NAMES[kind]: count for kind, count in enumerate(self.unread) if count}


def is_plain_tcp(data: Any, start: int, end: int) -> bool:
    """Whether there is nothing to be done: TCP right behind the IP header, and no fragment."""
    if end - start < 20:
        return False
    if data[start] >> 4 == 4:
        is_piece = data[start + 6] & 0x3F or data[start + 7]
        return bool(data[start + 9] == _TCP and not is_piece)
    return bool(data[start + 6] == _TCP and data[start] >> 4 == 6)


def fragment_of(data: Any, start: int, end: int) -> int:
    """The protocol of an IP packet that is a fragment; -1 when it is none."""
    if end - start < 20:
        return -1
    if data[start] >> 4 == 4:
        if data[start + 6] & 0x3F or data[start + 7]:
            return int(data[start + 9])
        return -1
    at = _fragment_header(data, start, end)
    return int(data[at]) if at >= 0 else -1


def first_fragment_payload(data: Any, start: int, end: int) -> int:
    """Where the payload of a first fragment begins; -1 for later ones."""
    if data[start] >> 4 == 4:
        if data[start + 6] & 0x1F or data[start + 7]:
            return -1
        size = (data[start] & 15) * 4
        return start + size if size >= 20 else -1
    at = _fragment_header(data, start, end)
    return at + 8 if at >= 0 and not read16(data, at + 2) & 0xFFF8 else -1


def _fragment_header(data: Any, start: int, end: int) -> int:
    """Where the fragment header of an IPv6 packet stands; -1 without, or if it cuts nothing."""
    if end - start < 48 or data[start] >> 4 != 6:
        return -1
    following = data[start + 6]
    at = start + 40
    for _ in range(8):
        if end - at < 8:
            return -1
        if following == _FRAGMENT:
            return at if read16(data, at + 2) & 0xFFF9 else -1
        if following not in (0, 43, 60):
            return -1
        following = data[at]
        at += 8 + data[at + 1] * 8
    return -1
