"""A server host: listens, finds the connection of a segment, resets what belongs to none.

Reading list: RFC 9293 3.10.7.1 and 3.10.7.2, RFC 6191.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from random import Random

from .clock import Clock
from .config import ServerConfig
from .connection import Connection
from .transmit import Application, State
from .wire import ACK, RST, SEQUENCE_MASK, SYN, Segment, decode, encode

Key = tuple[bytes, int, bytes, int]


class Admission(Enum):
    """What the server does with a new SYN."""

    ACCEPT = "accept"
    REFUSE = "refuse"  # RST, as a closed port does
    IGNORE = "ignore"  # no answer, as a full queue or a firewall


@dataclass(slots=True)
class ServerCounts:
    """What a server saw; plain totals."""

    received: int = 0
    sent: int = 0
    syns: int = 0
    resets_sent: int = 0
    strangers: int = 0  # segments of no connection, RSTs and SYNs left out


class Server:
    """Takes packets by `receive`, hands its own to `transmit`."""

    def __init__(
        self,
        clock: Clock,
        random: Random,
        config: ServerConfig,
        ports: frozenset[int],
        transmit: Callable[[bytes], None],
        on_established: Callable[[Connection], Application],
        admit: Callable[[Segment], Admission] = lambda syn: Admission.ACCEPT,
    ) -> None:
        self._clock = clock
        self._random = random
        self._config = config
        self._ports = ports
        self._transmit = transmit
        self._on_established = on_established
        self._admit = admit
        self._identification = random.getrandbits(16)
        self._connections: dict[Key, Connection] = {}  # not yet CLOSED, or the last of its key
        self.listening = True
        self.all_connections: list[Connection] = []  # every one there was, in order
        self.counts = ServerCounts()

    def receive(self, packet: bytes) -> None:
        """Take one packet off the wire.

        Raises: WireError when the packet is malformed or a checksum is wrong.
        """
        segment = decode(packet)
        self.counts.received += 1
        connection = self._connections.get(segment.key)
        syn = segment.flags & (SYN | ACK | RST) == SYN
        alive = connection is not None and connection.state is not State.CLOSED
        if connection is not None and alive and not (syn and connection.may_be_replaced(segment)):
            connection.receive(segment)
            return
        if segment.flags & RST:
            return
        if syn:
            self.counts.syns += 1
            self._open(segment, connection)
        else:
            self.counts.strangers += 1
            self._reset(segment)

    def crash(self) -> None:
        """Forget all connections without a word and stop listening."""
        for connection in self._connections.values():
            connection.vanish()
        self.listening = False

    def _open(self, syn: Segment, before: Connection | None) -> None:
        admission = self._admit(syn) if self.listening else Admission.REFUSE
        if syn.destination_port not in self._ports:
            admission = Admission.REFUSE
        if admission is Admission.REFUSE:
            self._reset(syn)
        if admission is not Admission.ACCEPT:
            return
        initial = None
        if before is not None and before.state is State.TIME_WAIT:
            sender = before.sender  # as Linux: TIME-WAIT's SND.NXT and a little
            initial = (sender.wire(sender.snd_max) + 65537) & SEQUENCE_MASK
            before.vanish()
        connection = Connection(
            self._clock,
            self._random,
            self._config,
            syn,
            self._send,
            self._on_established,
            initial,
        )
        connection.strict = before is None
        self._connections[syn.key] = connection
        self.all_connections.append(connection)

    def _reset(self, segment: Segment) -> None:
        """RFC 9293 3.10.7.1: the answer of a closed port."""
        self.counts.resets_sent += 1
        answer = Segment(
            segment.destination,
            segment.destination_port,
            segment.source,
            segment.source_port,
            0,
        )
        if segment.flags & ACK:
            answer.seq, answer.flags = segment.ack, RST
        else:
            answer.ack = (segment.seq + segment.length) & SEQUENCE_MASK
            answer.flags = RST | ACK
        self._send(answer)

    def _send(self, segment: Segment) -> None:
        self.counts.sent += 1
        self._identification += 1
        self._transmit(encode(segment, identification=self._identification))
