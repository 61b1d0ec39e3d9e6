"""A target that goes away: connects are tried again, and a session that was cut goes on.

Both engines end a replayed half in the same few ways, so this stands above them. When a half was
refused, or got no answer to its connect, the session gets another half, which is not opened yet;
what its client sends waits in its queue. While a target refuses, its sessions stand in one line:
one of them, the prober, tries after 50 ms, then after twice as long, up to a second. When the
target accepts it, the others follow, one each 100 us. Nobody waits for longer than `--retry` after
its first refusal; then it ends as it would have ended at once.

A session that the target cuts (RST, or FIN while its client goes on) loses the turn that was under
way, which may have been carried out and is not sent again. It is parked until the next turn is
captured, and goes on with that on another connection, as one that is picked up in mid-stream. When
no turn follows, it ends as it would have ended at once.

    (refused) -> WAITING -> OPENING -> UP        UP -> PARKED -> WAITING   (cut)
                    ^----------'  refused again

The session's own timer drives all of it: `Session.opens_ns` says when it is to connect, and a half
that is tried again has a deadline no later than the end of `--retry`. All times kept here are by
`Context.rate_clock_ns`, which stands still while this process does.

Source: DESIGN section 5; RFC 9293 (3.10.7.4), RFC 6191 (a port used again).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tcpcopy.engine import chunk as chunks
from tcpcopy.engine.context import Context, EngineConfig
from tcpcopy.engine.opening import Opener
from tcpcopy.engine.outcome import Outcome
from tcpcopy.engine.session import Session
from tcpcopy.engine.timers import Timers

FIRST_DELAY_NS: Final = 50_000_000
LONGEST_DELAY_NS: Final = 1_000_000_000
FOLLOW_NS: Final = 100_000  # between two sessions that follow when the target is back
MOST_FRUITLESS: Final = 3  # connections in a row that were cut before the target said anything
MOST_SHORT: Final = 20  # the same within their first turn: a log-in that fails, for example

PARKED: Final = 1
WAITING: Final = 2
OPENING: Final = 3
UP: Final = 4

Target = tuple[bytes, int]
# A target begins to refuse (True) or is back (False), and how many sessions had waited for it.
Teller = Callable[[Target, bool, int], object]

_MASK: Final = 0xFFFFFFFF
_REFUSALS: Final = (int(Outcome.REFUSED), int(Outcome.CONNECT_TIMEOUT))
_CUTS: Final = (int(Outcome.RESET), int(Outcome.CLOSED_EARLY))
_STILL_OPEN: Final = (
    int(Outcome.IDLE_TIMEOUT),
    int(Outcome.IDLE_COMPLETE),
    int(Outcome.OPEN_AT_EXIT),
    int(Outcome.OPEN_COMPLETE),
)
_WHOLE: Final = (
    int(Outcome.REPLAYED),
    int(Outcome.CLIENT_RESET),
    int(Outcome.RESET_AT_END),
    int(Outcome.UNANSWERED),
    int(Outcome.IDLE_COMPLETE),
    int(Outcome.OPEN_COMPLETE),
)


class Retry:
    """What a session that was refused or cut is up to; `Session.retry`, None for all others."""

    __slots__ = (
        "accepted",  # the target had accepted one of its connections
        "fruitless",  # connections in a row on which the target said nothing before it cut them
        "line",  # the line it stands in, or None
        "missed",  # turns that the last cut cost
        "outcome",  # how it ends when nothing more comes of it
        "resumed",  # connections on which it went on with a later turn
        "short",  # connections in a row that were cut within their first turn
        "state",
        "until_ns",  # when it is given up, 0: it has not been refused since it last was up
    )

    def __init__(self) -> None:
        self.accepted = False
        self.fruitless = 0
        self.line: Line | None = None
        self.missed = 0
        self.outcome = 0
        self.resumed = 0
        self.short = 0
        self.state = WAITING
        self.until_ns = 0

    @property
    def is_parked(self) -> bool:
        """Whether it wants no connection until its client sends something more."""
        return self.state == PARKED


class Line:
    """The sessions that wait for one target."""

    __slots__ = ("delay_ns", "prober", "target", "waited", "waiting")

    def __init__(self, target: Target) -> None:
        self.delay_ns = FIRST_DELAY_NS
        self.prober: Session | None = None
        self.target = target
        self.waited = 0  # sessions that have stood here
        self.waiting: dict[Session, None] = {}  # in order, without the prober


class Retries:
    """All sessions of one engine that were refused or cut."""

    __slots__ = (
        "_context", "_opener", "_resumes", "_retry_ns", "_timers", "lines", "tell",
    )  # fmt: skip

    def __init__(
        self, config: EngineConfig, context: Context, opener: Opener, timers: Timers
    ) -> None:
        """`config.retry_ns` is above 0. With -O a session that was cut does not go on."""
        self._context = context
        self._opener = opener
        self._resumes = not config.full_sessions_only
        self._retry_ns = config.retry_ns
        self._timers = timers
        self.lines: dict[Target, Line] = {}
        self.tell: Teller | None = None  # set by the owner

    # --- what the engine asks ----------------------------------------------------------------

    def holds(self, session: Session, now_ns: int) -> bool:
        """Whether a new session has to wait, because its target refuses others."""
        if not self.lines:
            return False
        line = self.lines.get(_target(session))
        if line is None:
            return False
        retry = session.retry = Retry()
        retry.outcome = int(Outcome.REFUSED)
        clock_ns = self._context.rate_clock_ns(now_ns)
        retry.until_ns = clock_ns + self._retry_ns
        self._stand_in_line(session, retry, clock_ns)
        return True

    def connect(self, session: Session, now_ns: int) -> int:
        """A session's time to connect has come: it does, or waits (0), or ends (its outcome)."""
        retry: Retry | None = session.retry
        if retry is None:
            if not self.holds(session, now_ns):
                self._open(session, now_ns)
            return 0
        clock_ns = self._context.rate_clock_ns(now_ns)
        if retry.until_ns and retry.until_ns <= clock_ns:
            return retry.outcome
        line = self.lines.get(_target(session))
        if line is not None and line.prober is not session:
            if retry.until_ns == 0:
                retry.until_ns = clock_ns + self._retry_ns
            self._stand_in_line(session, retry, clock_ns)
            return 0
        retry.state = OPENING
        self._context.counts.connects_retried += 1
        self._open(session, now_ns)
        if retry.until_ns:
            session.replayed.connect_by(now_ns + retry.until_ns - clock_ns)
        return 0

    def _open(self, session: Session, now_ns: int) -> None:
        session.opens_ns = 0
        self._opener.announce(session)
        session.replayed.open(now_ns)

    def step(self, session: Session, outcome: int, now_ns: int) -> int:
        """A session has ended so, or (0) something has happened to it; 0: it goes on."""
        if outcome in _REFUSALS:
            return self._refused(session, outcome, now_ns)
        if outcome in _CUTS:
            return self._cut(session, outcome, now_ns)
        retry: Retry | None = session.retry
        if outcome or retry is None:
            return outcome
        if retry.state == PARKED:
            return self._look_for_turn(session, retry, now_ns)
        if retry.state == OPENING and session.replayed.established:
            self._accepted(session, retry, now_ns)
        return 0

    def settle(self, session: Session, outcome: int, now_ns: int) -> int:
        """A session that has a `Retry` ends as `outcome`; what it is counted as."""
        retry: Retry = session.retry
        session.retry = None
        self._leave(session, retry, now_ns)
        if retry.state != UP:
            session.replayed.abort(now_ns)
            return retry.outcome if outcome in _STILL_OPEN else outcome
        if retry.resumed and outcome in _WHOLE:
            return int(Outcome.GONE_ON)
        return outcome

    # --- refused -----------------------------------------------------------------------------

    def _refused(self, session: Session, outcome: int, now_ns: int) -> int:
        context = self._context
        clock_ns = context.rate_clock_ns(now_ns)
        retry: Retry | None = session.retry
        if retry is None:
            retry = session.retry = Retry()
        if retry.outcome == 0:
            retry.outcome = outcome
        if retry.until_ns == 0:
            is_timeout = outcome == int(Outcome.CONNECT_TIMEOUT)
            tried_ns = context.connect_timeout_ns if is_timeout else 0
            retry.until_ns = clock_ns - tried_ns + self._retry_ns
        if retry.until_ns <= clock_ns:
            return retry.outcome
        self._opener.replace(session, now_ns)
        self._stand_in_line(session, retry, clock_ns)
        return 0

    def _stand_in_line(self, session: Session, retry: Retry, clock_ns: int) -> None:
        target = _target(session)
        line = self.lines.get(target)
        if line is None:
            line = self.lines[target] = Line(target)
            if self.tell is not None:
                self.tell(target, True, 0)
        retry.state = WAITING
        if retry.line is not line:
            retry.line = line
            line.waited += 1
            self._context.counts.retry_waited += 1
            self._context.counts.retry_waiting += 1
        if line.prober is None:
            line.prober = session
        if line.prober is session:
            self._probe_later(line, session, clock_ns)
        else:
            line.waiting[session] = None
            session.opens_ns = retry.until_ns

    def _probe_later(self, line: Line, session: Session, clock_ns: int) -> None:
        session.opens_ns = min(clock_ns + line.delay_ns, session.retry.until_ns)
        line.delay_ns = min(2 * line.delay_ns, LONGEST_DELAY_NS)

    def _accepted(self, session: Session, retry: Retry, now_ns: int) -> None:
        line = retry.line
        retry.state = UP
        retry.until_ns = 0
        retry.line = None
        if retry.accepted:
            self._context.counts.established -= 1  # it was counted before it was cut
        if retry.resumed == 0:
            session.retry = None
        if line is not None:
            self._context.counts.retry_waiting -= 1
            self._let_follow(line, session, now_ns)

    def _let_follow(self, line: Line, prober: Session, now_ns: int) -> None:
        """The target is back: those who waited connect in order, a moment apart."""
        if self.lines.get(line.target) is line:
            del self.lines[line.target]
        clock_ns = self._context.rate_clock_ns(now_ns)
        others = [session for session in (line.prober, *line.waiting) if session is not None]
        line.prober = None
        line.waiting = {}
        delay_ns = 0
        for session in others:
            if session is prober:
                continue
            retry: Retry = session.retry
            retry.line = None
            self._context.counts.retry_waiting -= 1
            if retry.state == WAITING:
                delay_ns += FOLLOW_NS
                session.opens_ns = clock_ns + delay_ns
                retry.until_ns = max(retry.until_ns, session.opens_ns + LONGEST_DELAY_NS)
                self._timers.schedule(session, now_ns + delay_ns, now_ns)
        if self.tell is not None:
            self.tell(line.target, False, line.waited)

    def _leave(self, session: Session, retry: Retry, now_ns: int) -> None:
        """The session has ended: somebody else probes, if it did."""
        line = retry.line
        if line is None:
            return
        self._context.counts.retry_waiting -= 1
        line.waiting.pop(session, None)
        if line.prober is not session:
            return
        line.prober = None
        following = next(iter(line.waiting), None)
        if following is None:
            self.lines.pop(line.target, None)
            return
        del line.waiting[following]
        line.prober = following
        clock_ns = self._context.rate_clock_ns(now_ns)
        self._probe_later(line, following, clock_ns)
        wait_ns = max(0, following.opens_ns - clock_ns)
        self._timers.schedule(following, now_ns + wait_ns, now_ns)

    # --- cut ---------------------------------------------------------------------------------

    def _cut(self, session: Session, outcome: int, now_ns: int) -> int:
        if not self._resumes or session.fin_released or session.rst_released:
            return outcome
        half = session.replayed
        if session.retry is not None and session.retry.state == OPENING:
            self._accepted(session, session.retry, now_ns)  # and cut at once
        retry: Retry | None = session.retry
        heard = half.received - half.target_closed
        fruitless = 0 if heard else 1 + (retry.fruitless if retry is not None else 0)
        short = 0 if session.turn_count > 1 else 1 + (retry.short if retry is not None else 0)
        if fruitless >= MOST_FRUITLESS or short >= MOST_SHORT:
            return outcome
        missed = _turns_under_way(session, heard)
        if self._skip_to_turn(session) is None and _is_over(session):
            return outcome
        if retry is None:
            retry = session.retry = Retry()
        retry.accepted = True
        retry.fruitless = fruitless
        retry.short = short
        retry.missed = missed
        retry.outcome = outcome
        retry.state = PARKED
        retry.until_ns = 0
        self._opener.replace(session, now_ns)
        return self._look_for_turn(session, retry, now_ns)

    def _look_for_turn(self, session: Session, retry: Retry, now_ns: int) -> int:
        """Go on with the next turn when there is one."""
        chunk = self._skip_to_turn(session)
        if chunk is None:
            return retry.outcome if _is_over(session) else 0
        counts = self._context.counts
        if session.turn_count:
            retry.resumed += 1
            counts.sessions_resumed += retry.resumed == 1
            counts.turns_missed += retry.missed
            retry.missed = 0
            _begin_at(session, chunk)
        pause_ns = FIRST_DELAY_NS << retry.fruitless if retry.fruitless else 0
        session.opens_ns = self._context.rate_clock_ns(now_ns) + pause_ns + 1
        session.replayed.begin_at(session.released_end)
        retry.state = WAITING
        return 0

    def _skip_to_turn(self, session: Session) -> Any:
        """Drop what belongs to turns that were under way; the chunk that begins the next, or None.

        None also when the client's FIN or RST is next.
        """
        while (
            session.gate is not None
            and session.gate.kind == chunks.DATA
            and session.turn_count > 0
            and session.gate.server_offset <= session.turn_offset
        ):
            session.release()
        self._context.counts.queued_bytes -= session.acknowledge(session.released_end)
        chunk = session.gate
        return chunk if chunk is not None and chunk.kind == chunks.DATA else None


def _target(session: Session) -> Target:
    target: Any = session.target
    return target.target_address, target.target_port


def _is_over(session: Session) -> bool:
    """Whether no data of the client can come that are not in the queue."""
    return bool(session.captured_end or session.cut)


def _turns_under_way(session: Session, heard: int) -> int:
    """Turns that were sent and of which it is not known that the target took and answered them."""
    if session.turn_count == 0:
        return 0
    turns = 0
    offset = -1
    chunk = session.head
    while chunk is not None and chunk is not session.gate:
        if chunk.server_offset > offset:
            turns += 1
            offset = chunk.server_offset
        chunk = chunk.following
    return max(turns, int(heard <= session.turn_base), session.turn_count - session.turns_heard)


def _begin_at(session: Session, chunk: Any) -> None:
    """Count the server's bytes from where the client sent `chunk`, and begin pacing anew."""
    base = chunk.server_offset
    while chunk is not None:
        chunk.server_offset -= base
        chunk = chunk.following
    if session.early is not None:
        session.early = [(at, data, max(0, ack - base), ns) for at, data, ack, ns in session.early]
    if session.server_base >= 0:
        session.server_base = (session.server_base + base) & _MASK
        session.server_seen -= base
    session.previous_turn_offset -= base
    session.answer_started_ns = 0
    session.behind = session.guessed = session.paused = session.shorter = 0
    session.drift = session.excess = session.level = session.owed = 0
    session.growing = session.lead = session.steady = session.misses = 0
    session.reached_ns = 0
    session.surplus_0 = session.surplus_1 = session.surplus_2 = session.surplus_3 = 0
    session.turn_base = session.turn_count = session.turn_offset = session.turns_heard = 0
