"""Pacing: when may the chunk at the gate go to the target?

A turn is consecutive data sent on the same knowledge; a new one begins where the client had
acknowledged more of the server's bytes than before. It waits until the target has answered as far
as the client had been answered, then the client's round-trip time.

"As far" is counted in stream offsets of the online server, while the target may answer more or
less. So two numbers are kept: `drift`, the least surplus of the last few turns (how much more the
target has sent than online had at the same place), and `turn_base`, what had been received when the
turn before was released. An answer is complete when it reaches the offset corrected by the drift,
or has as many bytes as online's answer to this turn had, and was pushed or went quiet. A shorter
one is complete when it has been quiet for longer: a tenth of a second, or little where the targets
have shown that hardly anything follows what they pushed. What follows after all is known by its
length, or seems so by coming sooner than an answer could.

When as many bytes as needed had come before the turn went out, and nothing since, a surplus that
shrank lately is a lead, which is not waited for long; any other surplus is answers that are longer
here, so that an answer is owed. A turn that went without its answer may leave two under way: the
next one waits until the target has been quiet.

Streams in which both sides send freely (HTTP/2, WebSocket, feeds) have no answers in that sense:
they are recognised by their first bytes, when online turns follow each other far faster than a
round trip, which is impossible when each is a reaction, or when several waits in a row ran out and
the target said nothing; then the plain offset is all that counts, less what the target has shown
to say less.

What the client sends in the middle of a write is no reaction to an answer that came meanwhile, and
no new turn: a full segment without PSH shows that more was to follow (RFC 9293, 3.9.1.2).

Every wait has a deadline, and those that run out are counted. Most are in proportion to what online
took, a second at least. A target that has taken all that was sent and stays silent is waited for
half as long each time. What it has not taken is waited for until -t, which the session watches.

Source: DESIGN section 4, "Pacing".
"""

from __future__ import annotations

import cython

from tcpcopy.engine.chunk import FIN, RST, Chunk
from tcpcopy.engine.context import Context
from tcpcopy.engine.replayed import Replayed
from tcpcopy.engine.round_trip import MeasuredHalf

# An answer that was not pushed is taken as complete after this silence: its end is on its way, as
# senders push what empties their queue, and on a busy host the way can take a while.
UNPUSHED_QUIET_NS = 40_000_000
# One that was pushed, but may go on, after this.
QUIET_NS = 5_000_000
# The same for the first answers of a kernel socket, which shows no pushes, and for answers that are
# longer than any before.
FIRST_QUIET_NS = 1_000_000
# An answer shorter than online's is taken as complete after this silence.
SHORT_ANSWER_QUIET_NS = 100_000_000
# Enough was there before the turn went out, by a lead: wait for its answer so many times the usual
# time.
SURPLUS_FACTOR = 4
SURPLUS_MIN_NS = 20_000_000
SURPLUS_MAX_NS = 200_000_000
# A surplus that grew with so many turns in a row is longer answers, not a lead.
GROWING_TURNS = 2
# One that shrank is a lead for so many turns.
LEAD_TURNS = 2
# A turn went before its answer: the target is quiet when it has been so for so many usual times.
BEHIND_FACTOR = 2
# "Generously: many times what the online answer took, at least a second."
WAIT_MIN_NS = 1_000_000_000
# The same for an answer that has begun and is shorter than online's until now.
BEGUN_WAIT_NS = 10_000_000_000
# For a target's greeting: who sends before it may be refused.
GREETING_WAIT_NS = 10_000_000_000
# For its first answer: it may have to start a process for the connection.
FIRST_WAIT_NS = 3_000_000_000
# A silent target is waited for so many times what its answers take.
SILENT_FACTOR = 8
# After so many waits in a row that ran out in silence, the session is a stream.
STREAM_MISSES = 3
# Each of them halves the next wait, so often.
MOST_MISSES = 10
# Whether the target has taken everything is looked at so often once it has been silent for long.
TAKEN_LOOK_NS = 100_000_000
# An answer much shorter than online's is waited for half as long each time, so often.
MOST_TRUST = 8
# One turn in 64 explores.
EXPLORED = 63
# Longer pauses within an answer say no more than this.
LONG_GAP_NS = 1_000_000_000
# Turns so many times faster than the client's round trip are no reactions, if that is no stall of a
# host that was taken for a distance.
STREAM_FACTOR = 4
STREAM_FLOOR_NS = 10_000_000
# A segment of this size without PSH is full (RFC 9293, 3.7.1): its sender had more to send.
WHOLE_SEGMENT = 536

OPEN = 0  # the chunk may go
ON_PROGRESS = -1  # nothing but progress of the target can open the gate

_UNPUSHED_QUIET = UNPUSHED_QUIET_NS
_QUIET = QUIET_NS
_FIRST_QUIET = FIRST_QUIET_NS
_SHORT_QUIET = SHORT_ANSWER_QUIET_NS
_SURPLUS_FACTOR = SURPLUS_FACTOR
_SURPLUS_MIN = SURPLUS_MIN_NS
_SURPLUS_MAX = SURPLUS_MAX_NS
_GROWING = GROWING_TURNS
_LEAD = LEAD_TURNS
_BEHIND_FACTOR = BEHIND_FACTOR
_WAIT_MIN = WAIT_MIN_NS
_MOST_TRUST = MOST_TRUST
_EXPLORED = EXPLORED
_BRIEFLY, _AT_LENGTH = 1, 2  # how long the gate waited after a shorter answer
_BEGUN_WAIT = BEGUN_WAIT_NS
_GREETING_WAIT = GREETING_WAIT_NS
_FIRST_WAIT = FIRST_WAIT_NS
_SILENT_FACTOR = SILENT_FACTOR
_STREAM_MISSES = STREAM_MISSES
_MOST_MISSES = MOST_MISSES
_TAKEN_LOOK = TAKEN_LOOK_NS
_LONG_GAP = LONG_GAP_NS
_STREAM_FACTOR = STREAM_FACTOR
_STREAM_FLOOR = STREAM_FLOOR_NS
_WHOLE_SEGMENT = WHOLE_SEGMENT
_OPEN = OPEN
_P = ord("P")
_G = ord("G")
_ON_PROGRESS = ON_PROGRESS
_FIN = FIN
_RST = RST


class PacedHalf(MeasuredHalf):
    """A captured half with its gate."""

    __slots__ = (
        "answer_gap_ns",  # the target's longest pause within an answer lately, at most a second
        "answer_last_ns",  # when the target last sent something new
        "answer_started_ns",  # when the target began to answer the last turn, 0: not yet
        "answer_usual_ns",  # smoothed time from a turn's release to its answer, 0: none yet
        "behind",  # the last released turn went before the target had answered the one before
        "drift",  # least surplus of the last turns, bytes; negative when target says less
        "excess",  # how much longer than online's the last answer was
        "expired",  # the gate last looked at opened because a wait ran out
        "growing",  # turns in a row with which the surplus grew, at most GROWING_TURNS
        "guessed",  # the gate last looked at opened though an answer may be under way
        "lead",  # turns for which a surplus is a lead, at most LEAD_TURNS
        "level",  # surplus when the last answers were as long as online's
        "missed",  # the gate last looked at opens because the target stays silent
        "misses",  # waits in a row that ran out in silence, at most MOST_MISSES
        "owed",  # the last released turn went before that many bytes were received, 0: it did not
        "paused",  # the answer to the last turn went on after it had seemed complete
        "previous_turn_ns",  # when the newest captured turn began
        "previous_turn_offset",  # the server offset it was sent on
        "reached_ns",  # when the chunk at the gate was first seen to be answered, 0: not yet
        "shorter",  # the gate last looked at waits after a shorter answer: briefly, at length
        "steady",  # an answer was as long as online's, and none shorter since
        "streaming",  # both sides send freely
        "surplus_0",  # surplus when the last turns were released, a window of four
        "surplus_1",
        "surplus_2",
        "surplus_3",
        "trust",  # shorter answers that were complete, at most MOST_TRUST
        "turn_base",  # server bytes received when the last turn was released
        "turn_captured_ns",  # when the last released turn had been captured
        "turn_count",  # turns released
        "turn_ends",  # the last released turn was the client's FIN or RST
        "turn_offset",  # server offset that the last released turn was sent on
        "turn_released_ns",  # when the last turn was released
        "unfinished",  # the newest captured segment is not the end of what the client was writing
    )

    def __init__(self, context: Context) -> None:
        self.set_up_paced(context)

    def set_up_paced(self, context: Context) -> None:
        """See `Timed.set_up_timed`."""
        self.set_up_measured(context)
        self.answer_gap_ns = 0
        self.answer_last_ns = 0
        self.answer_started_ns = 0
        self.answer_usual_ns = 0
        self.behind = 0
        self.drift = 0
        self.excess = 0
        self.expired = 0
        self.growing = 0
        self.guessed = 0
        self.lead = 0
        self.level = 0
        self.missed = 0
        self.misses = 0
        self.owed = 0
        self.paused = 0
        self.previous_turn_ns = 0
        self.previous_turn_offset = 0
        self.reached_ns = 0
        self.shorter = 0
        self.steady = 0
        self.streaming = 0
        self.surplus_0 = self.surplus_1 = self.surplus_2 = self.surplus_3 = 0
        self.trust = 0
        self.turn_base = 0
        self.turn_captured_ns = 0
        self.turn_count = 0
        self.turn_ends = 0
        self.turn_offset = 0
        self.turn_released_ns = 0
        self.unfinished = 0

    def note_turn(self, chunk: Chunk) -> int:
        """Look at a chunk just captured: does it begin a turn, does it show a free stream?"""
        first = self.previous_turn_ns == 0
        if self.unfinished and not first and chunk.kind < _FIN:
            # Written before the client could have reacted to what it had received meanwhile.
            chunk.server_offset = self.previous_turn_offset
        self.unfinished = 0
        if not first and chunk.server_offset <= self.previous_turn_offset:
            return 0
        if not first and chunk.kind < _FIN:
            self._note_pace(chunk.captured_ns - self.previous_turn_ns)
        if first:
            self._sniff(chunk.data)
        self.previous_turn_ns = chunk.captured_ns
        self.previous_turn_offset = chunk.server_offset
        if chunk.kind < _FIN:
            self.context.counts.turns_captured += 1
        return 0

    def note_segment_end(self, length: int, pushed: int) -> int:
        """The newest segment had so much payload, and PSH or not."""
        whole = length >= _WHOLE_SEGMENT and self.early is None
        self.unfinished = cython.cast(cython.uchar, whole and not pushed)
        return 0

    def _note_pace(self, gap_ns: int) -> None:
        """A turn came so long after the one before: a reaction, or far too fast for one."""
        as_captured = cython.cast(cython.double, gap_ns) * self.context.speed
        if (
            self.client_rtt_ns >= _STREAM_FLOOR
            and as_captured * _STREAM_FACTOR < self.client_rtt_ns
        ):
            self.streaming = 1
        else:
            self.note_reaction(gap_ns)

    def _sniff(self, data: bytes) -> None:
        if len(data) < 4 or (data[0] != _P and data[0] != _G):
            return
        if data[:4] == b"PRI " or (data[:4] == b"GET " and b"pgrade: websocket" in data):
            self.streaming = 1

    def note_answer(self, now_ns: int) -> int:
        """The target has sent something new."""
        if self.answer_started_ns != 0:
            gap = now_ns - self.answer_last_ns
            if gap > self.answer_gap_ns:
                self.answer_gap_ns = cython.cast(cython.uint, min(gap, _LONG_GAP))
            if self.shorter and gap > self._shortest_quiet():
                self.paused = 1
        self.answer_last_ns = now_ns
        self.misses >>= 1
        if self.answer_started_ns == 0:
            self.answer_started_ns = now_ns
            if self.turn_count == 0 or self.turn_ends:
                return 0  # a greeting answers nothing, and what follows a FIN is the target's end
            if self.behind:
                return 0  # it may well be the answer to the turn before
            sample = now_ns - self.turn_released_ns
            if self.owed > 0 and max(2 * sample, _QUIET) < self.answer_usual_ns:
                self.behind = 1  # so soon: it may be the rest of what had seemed complete
            if self.answer_usual_ns == 0:
                self.answer_usual_ns = sample
            self.answer_usual_ns += (sample - self.answer_usual_ns) // 8
            self.context.note_answer_time(sample)
        return 0

    def gate_opens_ns(self, replayed: Replayed, now_ns: int) -> int:
        """OPEN, a time to look again, or ON_PROGRESS; there must be a chunk at the gate."""
        chunk = self.gate
        self.expired = 0
        self.guessed = 0
        self.missed = 0
        self.shorter = 0
        if chunk is None or not replayed.established:
            return _ON_PROGRESS
        if chunk.server_offset <= self.turn_offset:
            return _OPEN  # the same turn
        if not self.context.wait_for_answers or replayed.target_closed:
            return _OPEN
        received = replayed.received
        if received == self.owed and received > 0:
            self.owed = 0
            self.behind = 1  # to the byte what was owed: the answer had not been complete
            self.paused = 1
            self.trust = 0
        answered = received - self.turn_base
        expected = chunk.server_offset - self.turn_offset
        if self.streaming:
            needed = chunk.server_offset + (self.drift if self.drift < 0 else 0)
            if received >= needed:
                return self._when_answered(replayed, 0, 0, now_ns)
            if answered > 0:
                return self._when_short(replayed, answered, expected, now_ns)
        elif answered > 0:
            needed = chunk.server_offset + self.drift
            if received >= needed or answered >= expected:
                return self._when_answered(replayed, answered, expected, now_ns)
            return self._when_short(replayed, answered, expected, now_ns)
        return self._when_silent(chunk, replayed, now_ns)

    def _when_answered(self, replayed: Replayed, answered: int, expected: int, now_ns: int) -> int:
        quiet = 0 if self.streaming else self._end_quiet(replayed, answered, expected)
        if not replayed.pushed and quiet < _UNPUSHED_QUIET:
            quiet = _UNPUSHED_QUIET
        if quiet < self.rtt_ns:
            quiet = self.rtt_ns
        opens = replayed.last_receive_ns + quiet
        if opens > now_ns:
            if self.reached_ns == 0:
                self.reached_ns = now_ns
            # A target that goes on and on: each byte of it would move the moment of silence.
            bound = self.reached_ns + quiet + self._longest_quiet_wait()
            if bound < opens:
                opens = bound
                self.expired = 1
                self.missed = 1
        return self._open_at(opens, now_ns)

    def _longest_quiet_wait(self) -> int:
        """How long a target that has said enough may go on before it counts as one that pushes."""
        if self.steady:
            return self._brief_wait()
        bound = self._longest_wait()
        return bound if self.streaming or bound > _BEGUN_WAIT else _BEGUN_WAIT

    def _end_quiet(self, replayed: Replayed, answered: int, expected: int) -> int:
        """How long the target must be quiet for what it pushed to be the end of its answer."""
        quiet = 0
        if answered < expected + self.excess:
            quiet = _QUIET  # the last answers were longer than online's: more may come
        elif answered > expected + self.excess:
            quiet = _FIRST_QUIET  # longer than known; large ones are pushed more than once
        elif replayed.coarse and 0 < self.turn_count <= 2 and self._data_waits():
            quiet = _FIRST_QUIET  # nothing is known yet of how this target answers
        return max(quiet, self._both_quiet()) if self.behind else quiet

    def _both_quiet(self) -> int:
        """The same when the answer to the turn before may be under way, too."""
        return min(max(_QUIET, self.answer_usual_ns * _BEHIND_FACTOR), _SURPLUS_MAX)

    def _data_waits(self) -> bool:
        return self.gate is not None and self.gate.kind < _FIN

    def _when_short(self, replayed: Replayed, answered: int, expected: int, now_ns: int) -> int:
        quiet = self._short_quiet(replayed.pushed, answered * 2 < expected)
        if self.steady and replayed.received >= self.turn_offset + expected:
            # All that online had said has come: what it is short of had come before the turn.
            quiet = min(quiet, self._brief_wait())
        if self.behind:
            quiet = max(quiet, self._both_quiet())
        if quiet < self.rtt_ns:
            quiet = self.rtt_ns
        opens = replayed.last_receive_ns + quiet
        if replayed.pushed:
            self.shorter = _BRIEFLY if quiet < _SHORT_QUIET else _AT_LENGTH
        bound = self._longest_wait()
        if bound < _BEGUN_WAIT and not self.streaming:
            bound = _BEGUN_WAIT  # it does come, only slowly
        bound += self.answer_started_ns
        if bound < opens:
            opens = bound
            self.expired = 1
            self.shorter = 0
        return self._open_at(opens, now_ns)

    def _short_quiet(self, pushed: int, is_less_than_half: bool) -> int:
        """How long the target must be quiet for its shorter answer to be complete.

        Longer than the pauses that it makes; long, until such answers are known to be complete. One
        that is much shorter than online's may be a first part, the more so the fewer there were.
        """
        quiet = 4 * self.answer_usual_ns
        if pushed and self.context.pauses.are_rare() and not self._explores():
            quiet = self._shortest_quiet()
        elif quiet < _SHORT_QUIET:
            quiet = _SHORT_QUIET
        if quiet < 4 * self.answer_gap_ns:
            quiet = 4 * self.answer_gap_ns
        if is_less_than_half and quiet < _WAIT_MIN >> self.trust:
            quiet = _WAIT_MIN >> self.trust
        return quiet if quiet < _WAIT_MIN else _WAIT_MIN

    def _shortest_quiet(self) -> int:
        return min(max(4 * self.answer_usual_ns, _FIRST_QUIET), _QUIET)

    def _explores(self) -> bool:
        """Now and then a session waits for long, or pauses that begin would not be seen."""
        return (self.turn_count ^ self.captured_isn) & _EXPLORED == 0

    def _when_silent(self, chunk: Chunk, replayed: Replayed, now_ns: int) -> int:
        """The target has said nothing since the last turn (or too little of a free stream)."""
        self.missed = 1
        if replayed.received >= chunk.server_offset:
            # Enough had come before that turn went out. Its own answer may still be coming.
            self.guessed = 1
            return self._open_at(self.turn_released_ns + self._surplus_wait(), now_ns)
        if replayed.acknowledged < self.released_end and not replayed.coarse:
            return _ON_PROGRESS  # what the target has not got, it cannot answer
        since = self.turn_released_ns
        if since < chunk.captured_ns:
            since = chunk.captured_ns
        if since < replayed.acknowledged_ns:
            since = replayed.acknowledged_ns
        if since < self.context.resumed_ns:
            since = self.context.resumed_ns  # nobody's silence: this process stood still
        self.expired = 1
        self.guessed = cython.cast(cython.uchar, self.turn_count > 0)
        opens = since + self._silent_wait(chunk, replayed.received)
        if opens <= now_ns and not self.streaming and replayed.undelivered() > 0:
            return now_ns + _TAKEN_LOOK  # it is still in the kernel's buffer
        return self._open_at(opens, now_ns)

    def _silent_wait(self, chunk: Chunk, received: int) -> int:
        """How long a target that has taken all that was sent may owe an answer."""
        if self.streaming:
            wait = self._longest_wait()
        elif chunk.kind >= _FIN and chunk.server_offset + self.drift - received == 1:
            return _WAIT_MIN  # only the server's FIN is missing: it closes later here
        else:
            wait = self._longest_wait()
            least = _WAIT_MIN
            if self.turn_count == 0:
                least = _GREETING_WAIT
            elif self.answer_usual_ns == 0:
                least = _FIRST_WAIT
            if wait < least:
                wait = least
            usual = max(self.answer_usual_ns, self.context.answer_usual_ns)
            if wait < usual * _SILENT_FACTOR:
                wait = usual * _SILENT_FACTOR
        return max(wait >> self.misses, _QUIET, self.rtt_ns)

    def _open_at(self, opens: int, now_ns: int) -> int:
        return _OPEN if opens <= now_ns else opens

    def _surplus_wait(self) -> int:
        if self.lead or self.steady:
            return self._brief_wait()
        self.expired = 1
        wait = self._longest_wait() if self._data_waits() else _WAIT_MIN
        return max(wait >> self.misses, _SURPLUS_MIN)

    def _brief_wait(self) -> int:
        """Some times what the target's answers take, and never long."""
        wait = self.answer_usual_ns * _SURPLUS_FACTOR
        least = _QUIET if self.steady else _SURPLUS_MIN
        if wait < least:
            return least
        return wait if wait < _SURPLUS_MAX else _SURPLUS_MAX

    def _longest_wait(self) -> int:
        chunk = self.gate
        if chunk is None or self.turn_count == 0:
            return _WAIT_MIN
        wait = (chunk.captured_ns - self.turn_captured_ns) * self.context.wait_factor
        return wait if wait > _WAIT_MIN else _WAIT_MIN

    def release_gate(self, replayed: Replayed, now_ns: int) -> int:
        """Let the chunk at the gate go, and settle the turn's account if it begins one."""
        chunk = self.gate
        if chunk is None:
            return 0
        if chunk.server_offset > self.turn_offset or self.turn_count == 0:
            self._settle(chunk, replayed, now_ns)
        self.release()
        return 0

    def _settle(self, chunk: Chunk, replayed: Replayed, now_ns: int) -> None:
        if self.expired:
            self.context.counts.waits_expired += 1
            self.expired = 0
        if self.missed:
            self._note_miss()
        self.reached_ns = 0
        self.behind = self.guessed
        self.guessed = 0
        if self.paused:
            self.context.pauses.note(1)
        elif self.shorter == _AT_LENGTH:
            self.context.pauses.note(0)
        self.paused = 0
        self.owed = 0
        if self.shorter:
            self.owed = chunk.server_offset + self.drift
            if self.trust < _MOST_TRUST:
                self.trust += 1
        self.answer_gap_ns -= self.answer_gap_ns >> 3  # one hiccup is not for ever
        received = replayed.received
        if self.turn_count > 0 or chunk.server_offset > 0:
            self._note_surplus(received - chunk.server_offset)
        self.turn_count += 1
        self.turn_base = received
        self.turn_offset = chunk.server_offset
        self.turn_released_ns = now_ns
        self.turn_captured_ns = chunk.captured_ns
        self.answer_started_ns = 0
        self.turn_ends = cython.cast(cython.uchar, chunk.kind >= _FIN)
        if chunk.kind < _FIN:
            self._count_turn(now_ns - chunk.captured_ns)

    def _note_miss(self) -> None:
        """The turn goes though the target said nothing for all the time that it was given."""
        self.missed = 0
        if self.misses < _MOST_MISSES:
            self.misses += 1
        if self.misses >= _STREAM_MISSES:
            self.streaming = 1

    def _count_turn(self, lag_ns: int) -> None:
        counts = self.context.counts
        counts.turns_replayed += 1
        if not self.context.paced:
            return
        if lag_ns > _QUIET:
            counts.turns_late += 1
        counts.capture_lag.record(lag_ns if lag_ns > 0 else 0)

    def _note_surplus(self, surplus: int) -> None:
        """The drift is the least of the last four surpluses, so that a lead is not a drift."""
        growth = surplus - self.surplus_0
        self._note_steady(surplus, growth)
        if growth < 0 and self.surplus_0 > 0:
            self.lead = cython.cast(cython.uchar, _LEAD)
        elif self.lead > 0:
            self.lead -= 1
        if growth <= 0:
            self.growing = 0
        elif self.growing < _GROWING:
            self.growing += 1
        # A greeting that is longer here tells nothing of answers: it often names versions and ids.
        self.excess = growth if growth > 0 and self.turn_count > 0 else 0
        if self.turn_count <= 1:
            self.surplus_1 = self.surplus_2 = self.surplus_3 = surplus
        else:
            self.surplus_3 = self.surplus_2
            self.surplus_2 = self.surplus_1
            self.surplus_1 = self.surplus_0
        self.surplus_0 = surplus
        least = surplus
        if self.surplus_1 < least:
            least = self.surplus_1
        if self.surplus_2 < least:
            least = self.surplus_2
        if self.surplus_3 < least:
            least = self.surplus_3
        self.drift = surplus if self.growing >= _GROWING else least

    def _note_steady(self, surplus: int, growth: int) -> None:
        """Are answers exactly as long as online's? What goes beyond may be pushed by the target."""
        if growth == 0 and self.turn_count > 0:
            self.level = surplus
            self.steady = 1
        elif surplus < self.level:
            self.steady = 0
