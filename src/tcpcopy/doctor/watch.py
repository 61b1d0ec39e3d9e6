"""When many sessions fail in the same way: tells once, and again when it changes or comes back.

Pure: counts and times are passed in, an outcome to explain comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tcpcopy.report.counters import Snapshot
from tcpcopy.report.outcome import OUTCOME_SLOTS, Outcome

_SECOND_NS: Final = 1_000_000_000
LEAST: Final = 20  # sessions, before anything is said of them
SHARE_PERCENT: Final = 80  # of them that ended alike
SILENCE_NS: Final = 10 * _SECOND_NS  # without any answer, before that is said
PAUSE_NS: Final = 60 * _SECOND_NS  # between two words


@dataclass(frozen=True, slots=True)
class Failing:
    """What is to be explained."""

    outcome: Outcome
    count: int  # sessions that ended so, or wait in vain
    of: int  # sessions looked at


class Silence:
    """Sessions that wait in vain: begun since the last answer of any kind, which is long ago."""

    __slots__ = ("_answered", "_begun", "_since_ns")

    def __init__(self) -> None:
        self._answered = 0  # when last looked at
        self._begun = 0  # at the last answer
        self._since_ns = -1  # enough sessions wait; -1: they do not

    def look(self, begun: int, live: int, answered: int, now_ns: int) -> int:
        """How many wait in vain; 0 as long as that may be nothing.

        `begun` and `answered` only grow: sessions, and whatever shows that the target answers.
        """
        if answered != self._answered:
            self._answered, self._begun = answered, begun
        waiting = min(live, begun - self._begun)
        if waiting < LEAST:
            self._since_ns = -1
            return 0
        if self._since_ns < 0:
            self._since_ns = now_ns
        return waiting if now_ns - self._since_ns >= SILENCE_NS else 0


class FailureWatch:
    """Looks at the sessions that ended since it last had enough of them. Not thread-safe.

    With nothing answered any more sessions do not end for minutes: what waits in vain counts, too.
    """

    __slots__ = ("_before", "_quiet_until_ns", "_silence", "_told")

    def __init__(self) -> None:
        self._before = [0] * OUTCOME_SLOTS  # outcomes when last judged
        self._told: Outcome | None = None  # None: all is well, or nothing was said yet
        self._quiet_until_ns = 0  # nothing is said before
        self._silence = Silence()

    def look(self, snapshot: Snapshot, now_ns: int) -> Failing | None:
        """What is to be explained now, if anything; call every few seconds.

        `now_ns` is of any monotonic clock.
        """
        found = (
            self._ended_alike(snapshot)
            or self._refused(snapshot)
            or self._in_vain(snapshot, now_ns)
        )
        if found is None or found.outcome == self._told or now_ns < self._quiet_until_ns:
            return None
        self._told = found.outcome
        self._quiet_until_ns = now_ns + PAUSE_NS
        return found

    def _ended_alike(self, snapshot: Snapshot) -> Failing | None:
        ended = {
            outcome: snapshot.outcomes[outcome] - self._before[outcome]
            for outcome in Outcome
            if not outcome.is_skip and not outcome.is_attempt
        }
        total = sum(ended.values())
        if total < LEAST:
            return None
        self._before = list(snapshot.outcomes)
        outcome = max(ended, key=lambda one: ended[one])
        if outcome.is_loss and ended[outcome] * 100 >= total * SHARE_PERCENT:
            return Failing(outcome, ended[outcome], total)
        self._told = None  # well again: the next time is news
        return None

    def _refused(self, snapshot: Snapshot) -> Failing | None:
        """Sessions that are tried again (--retry): why is worth telling while they wait."""
        waiting = snapshot.sessions_refused
        return Failing(Outcome.REFUSED, waiting, waiting) if waiting >= LEAST else None

    def _in_vain(self, snapshot: Snapshot, now_ns: int) -> Failing | None:
        # What ends in another way was answered, too: by a reset, or by this host.
        otherwise = snapshot.sessions_lost - snapshot.outcomes[Outcome.CONNECT_TIMEOUT]
        answered = snapshot.sessions_established + snapshot.answers_to_sessions + otherwise
        none = snapshot.sessions_skipped + snapshot.sessions_incomplete + snapshot.sessions_waiting
        begun = snapshot.sessions_captured - none
        # What waits on this host asked nobody: why it waits is told where it does.
        live = snapshot.sessions_live - snapshot.ports.waiting - snapshot.sessions_refused
        waiting = self._silence.look(begun, live, answered, now_ns)
        return Failing(Outcome.CONNECT_TIMEOUT, waiting, waiting) if waiting else None


class AnswerWatch:
    """Intercept's: sessions are announced, and not one answer was ever seen. Told once."""

    __slots__ = ("_is_over", "_since_ns")

    def __init__(self) -> None:
        self._is_over = False  # an answer was seen, or it was told
        self._since_ns = -1  # enough sessions were announced; -1: not yet

    def look(self, announced: int, answers: int, now_ns: int) -> bool:
        """Whether to tell it now, from the totals since the start."""
        if self._is_over or announced < LEAST:
            return False
        if answers:
            self._is_over = True
            return False
        if self._since_ns < 0:
            self._since_ns = now_ns
        self._is_over = now_ns - self._since_ns >= SILENCE_NS
        return self._is_over
