"""The plainest engine that can replay: proves conversations, harness and server model sound.

No pacing: what has been captured in order is sent as soon as the connection stands. It shows
that a failure of the real engine in the same run is the engine's.
"""

from __future__ import annotations

from random import Random

from .client import Client, ClientConfig
from .harness import target_of
from .wire import ACK, FIN, RST, SEQUENCE_MASK, SYN, Segment, decode, decode_cut, encode


class _Session:
    """One captured connection and its replay."""

    __slots__ = ("aborting", "client", "early", "fin", "initial", "next")

    def __init__(self, client: Client, initial: int) -> None:
        self.client = client
        self.initial = initial
        self.next = 1  # position of the next captured byte
        self.early: dict[int, bytes] = {}
        self.fin: int | None = None
        self.aborting: int | None = None  # position of the RST


class ReferenceEngine:
    """Implements `harness.Engine`."""

    def __init__(
        self, random: Random, config: ClientConfig | None = None, *, cut_answers: bool = False
    ) -> None:
        self._random = random
        self._config = config or ClientConfig()
        self._cut = cut_answers
        self._outbox: list[Segment] = []
        self._sessions: dict[tuple[bytes, int], _Session] = {}

    def feed_captured(self, packet: bytes, now_ns: int) -> None:
        """Take a packet of the real client."""
        segment = decode(packet, verify=False)
        key = (segment.source, segment.source_port)
        session = self._sessions.get(key)
        if segment.flags & SYN and (
            session is None or (session.client.end is not None and session.initial != segment.seq)
        ):
            client = Client(
                self._random,
                self._config,
                key,
                target_of(segment.destination),
                self._outbox,
                check_answers=not self._cut,
            )
            session = self._sessions[key] = _Session(client, segment.seq)
            client.open(now_ns)
        if session is not None:
            self._captured(session, segment, now_ns)

    def feed_answer(self, packet: bytes, now_ns: int) -> None:
        """Take a packet of the target, or its record."""
        segment = decode_cut(packet) if self._cut else decode(packet)
        session = self._sessions.get((segment.destination, segment.destination_port))
        if session is not None:
            session.client.receive(segment, now_ns)
            self._proceed(session, now_ns)

    def run_timers(self, now_ns: int) -> None:
        """Run what is due."""
        for session in self._sessions.values():
            session.client.run_timers(now_ns)

    def next_deadline_ns(self) -> int | None:
        """Return when `run_timers` has to be called."""
        deadlines = [session.client.deadline_ns for session in self._sessions.values()]
        return min((due_ns for due_ns in deadlines if due_ns is not None), default=None)

    def drain(self) -> list[bytes]:
        """Return the packets to send."""
        packets = [encode(segment) for segment in self._outbox]
        self._outbox.clear()
        return packets

    def client_of(self, address: bytes, port: int) -> Client:
        """Return the client TCP that replays, or last replayed, this captured endpoint."""
        return self._sessions[address, port].client

    def _captured(self, session: _Session, segment: Segment, now_ns: int) -> None:
        distance = (segment.seq - session.initial - session.next) & SEQUENCE_MASK
        position = session.next + (distance - (1 << 32) if distance >> 31 else distance)
        if segment.flags & SYN:
            position += 1
        if segment.flags & RST:
            session.aborting = position
        elif segment.flags & (ACK | SYN):
            end = position + len(segment.payload)
            if end > session.next:
                known = session.early.get(position, b"")
                if len(segment.payload) > len(known):
                    session.early[position] = segment.payload
            if segment.flags & FIN:
                session.fin = end
        self._proceed(session, now_ns)

    def _proceed(self, session: _Session, now_ns: int) -> None:
        client = session.client
        for position in sorted(session.early):
            if position > session.next:
                break
            new = session.early.pop(position)[session.next - position :]
            if new:
                session.next += len(new)
                client.send(new, now_ns)
        if session.fin == session.next:
            session.next += 1
            client.finish(now_ns)
        if client.end is None and session.aborting == session.next and client.all_acknowledged:
            client.abort(now_ns)
