"""Sessions that a killed run or worker left open at the target: reset, without a new connection.

The numbers of such a session are not known. A SYN from its address and port tells them: a target
that has the connection acknowledges what it expects next (a challenge ACK, RFC 5961, 4.2), and a
RST with just that number ends it, as RFC 9293 (3.5.1) has it for a half-open connection. A target
that has none answers with a SYN-ACK, which is reset before any application hears of it, or a RST.

Sans-I/O, as the rest of the engine. A new session with the same address and port wins: nothing is
sent for the old one any more, whose connection the new session's SYN brings to light by itself.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tcpcopy.engine.context import SECOND_NS, Context
from tcpcopy.engine.flows import FlowKey, FlowTable
from tcpcopy.engine.ports import Announcer, Ledger
from tcpcopy.engine.syn import initial_number, syn_options
from tcpcopy.packet import flags
from tcpcopy.packet.segment import Segment

_MASK = 0xFFFFFFFF
# Sessions tried in a second: older kernels send 1,000 challenge ACKs in it, of all connections.
_SECOND = 500
_STEP_NS = 20_000_000
_MOST_ASKED = 2_000
# Linux answers an odd segment of one connection twice a second at the most.
_TRY_AGAIN_NS = (SECOND_NS, 2 * SECOND_NS, 4 * SECOND_NS, 4 * SECOND_NS)
_RST_GAPS_NS = (20_000_000, 80_000_000)  # a RST is never acknowledged: it is repeated against loss
_MSS, _WINDOW = 536, 64240
_NOTHING = b""
_GONE, _RESET, _SUPERSEDED, _UNANSWERED = "gone", "reset", "superseded", "unanswered"


class _Asked:
    """A session whose target was asked."""

    __slots__ = ("became", "due_ns", "iss", "place", "repeats", "rst", "session", "tries")

    def __init__(self, place: int, session: tuple[bytes, int, bytes, int]) -> None:
        self.place = place
        self.session = session
        self.became = _UNANSWERED  # as far as is known: name of its count
        self.due_ns = 0  # when something is to be done about it
        self.iss = 0
        self.rst = 0  # number of the RST that was sent, once it was answered
        self.repeats = 0  # of it
        self.tries = 0  # SYNs sent


class Leftovers:
    """Resets the sessions at some places of a ledger. `found` is the sum of the other counts."""

    __slots__ = (
        "_announcer",
        "_asked",
        "_ledger",
        "_by_answer",
        "_can_send",
        "_context",
        "_due",
        "_key",
        "_next_ns",
        "_number",
        "_waiting",
        "found",
        "gone",
        "reset",
        "superseded",
        "unanswered",
    )

    def __init__(
        self,
        context: Context,
        by_answer: FlowTable,
        announcer: Announcer | None,
        ledger: Ledger,
        places: Sequence[int],
        can_send: Callable[[], bool] = lambda: True,
    ) -> None:
        """`by_answer` are the live sessions, `announcer` hears of a session before its SYN.

        Nothing is sent while `can_send` says no.
        """
        self._context = context
        self._by_answer = by_answer
        self._can_send = can_send
        self._announcer = announcer
        self._ledger = ledger
        self._waiting = iter(places)
        self._asked: dict[Any, _Asked] = {}  # by the name of the target's packets
        self._due: list[tuple[int, int, Any]] = []  # heap: time, number, name
        self._number = 0
        self._key = FlowKey()
        self._next_ns = 0
        self.found = len(places)
        self.gone = 0  # the target did not know the connection (any more)
        self.reset = 0
        self.superseded = 0  # a new session took its address and port
        self.unanswered = 0

    @property
    def waiting(self) -> int:
        """Sessions of which nothing has become yet."""
        return self.found - self.gone - self.reset - self.superseded - self.unanswered

    def places(self) -> Iterator[int]:
        """The places of those that wait; the last call: the run ends."""
        yield from (asked.place for asked in self._asked.values())
        yield from self._waiting

    def deadline_ns(self) -> int:
        """When `run` is wanted next."""
        return self._next_ns

    def run(self, now_ns: int) -> int:
        """Do what is due; how many packets were sent."""
        if now_ns < self._next_ns:
            return 0
        if not self._can_send():
            self._next_ns = now_ns + SECOND_NS
            return 0
        self._next_ns = now_ns + _STEP_NS
        sent = 0
        while self._due and self._due[0][0] <= now_ns:
            due_ns, _, name = heapq.heappop(self._due)
            asked = self._asked.get(name)
            if asked is not None and asked.due_ns == due_ns:
                sent += self._go_on(name, asked, now_ns)
        for _ in range(_SECOND * _STEP_NS // SECOND_NS):
            if len(self._asked) >= _MOST_ASKED:
                break
            place = next(self._waiting, 0)
            if not place:
                break
            sent += self._begin(place, now_ns)
        return sent

    def take(self, segment: Segment, name: object, now_ns: int) -> bool:
        """Take a target's packet that belongs to no session; False when it is none of these."""
        asked = self._asked.get(name)
        if asked is None:
            return False
        if segment.flags & flags.RST:
            if asked.became == _UNANSWERED:  # else it answers nothing of ours
                asked.became = _GONE
                self._conclude(name, asked)
        elif segment.flags & flags.ACK:
            is_new = segment.flags & flags.SYN and segment.ack == asked.iss + 1 & _MASK
            if asked.became != _RESET:
                asked.became = _GONE if is_new else _RESET
            asked.rst, asked.repeats = segment.ack, 0
            self._send(asked, asked.rst, flags.RST, 0, _NOTHING)
            self._wait(name, asked, now_ns + _RST_GAPS_NS[0])
        return True

    # --- one session --------------------------------------------------------------------------

    def _begin(self, place: int, now_ns: int) -> int:
        session = self._ledger.session(place)
        if session is None:
            self.gone += 1  # somebody else has written there
            return 0
        asked = _Asked(place, session)
        name = self._name(asked)
        if name in self._asked:
            self._drop(asked, _SUPERSEDED)  # written down twice
            return 0
        self._asked[name] = asked
        return self._go_on(name, asked, now_ns)

    def _go_on(self, name: object, asked: _Asked, now_ns: int) -> int:
        """Send what is to be sent next, or be done with it; packets sent."""
        if self._is_live(asked):
            asked.became = _SUPERSEDED
        elif asked.became != _UNANSWERED:
            if asked.repeats < len(_RST_GAPS_NS):
                asked.repeats += 1
                self._send(asked, asked.rst, flags.RST, 0, _NOTHING)
                self._wait(name, asked, now_ns + _RST_GAPS_NS[asked.repeats - 1])
                return 1
        elif asked.tries < len(_TRY_AGAIN_NS):
            self._send_syn(asked, now_ns)
            self._wait(name, asked, now_ns + _TRY_AGAIN_NS[asked.tries])
            asked.tries += 1
            return 1
        self._conclude(name, asked)
        return 0

    def _wait(self, name: object, asked: _Asked, due_ns: int) -> None:
        asked.due_ns = due_ns
        self._number += 1  # names of IPv4 and IPv6 have no order
        heapq.heappush(self._due, (due_ns, self._number, name))

    def _conclude(self, name: object, asked: _Asked) -> None:
        """Nothing more is to be done."""
        del self._asked[name]
        if self._announcer is not None and not self._is_live(asked):
            self._announcer.withdraw(*asked.session)
        self._drop(asked, asked.became)

    def _drop(self, asked: _Asked, count: str) -> None:
        setattr(self, count, getattr(self, count) + 1)
        self._ledger.remove(asked.place)

    def _name(self, asked: _Asked) -> object:
        mapped, port, target, target_port = asked.session
        self._key.of(target, target_port, mapped, port)
        return self._key.name()

    def _is_live(self, asked: _Asked) -> bool:
        self._name(asked)
        return self._by_answer.find(self._key) is not None

    def _send_syn(self, asked: _Asked, now_ns: int) -> None:
        mapped, port, target, target_port = asked.session
        context = self._context
        ports = port << 16 | target_port
        asked.iss = initial_number(mapped, target, ports, context.seed, now_ns)
        if self._announcer is not None:  # again each time: the relay may have been lost meanwhile
            self._announcer.announce(*asked.session)
        clock = (now_ns // 1_000_000 + context.seed) & _MASK
        options = syn_options(_MSS, 1, 1, clock, 0)
        self._send(asked, asked.iss, flags.SYN, _WINDOW, options)
        if asked.tries:
            context.counts.retransmitted += 1

    def _send(self, asked: _Asked, seq: int, what: int, window: int, options: bytes) -> None:
        mapped, port, target, target_port = asked.session
        self._context.batch.tcp(
            mapped,
            port,
            target,
            target_port,
            seq,
            0,
            what,
            window,
            0,
            0,
            0,
            options,
            _NOTHING,
            0,
            0,
        )
        self._context.counts.segments_sent += 1
