"""Tells why, while a run goes on: when many sessions fail in the same way.

What the summary would say of these sessions, and what is wrong with this host by then: the checks
are made again, in a thread of their own, so that replay does not wait for them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from tcpcopy.doctor.finding import Finding, Level, serious, word
from tcpcopy.doctor.watch import Failing, FailureWatch
from tcpcopy.report.context import Context
from tcpcopy.report.counters import Snapshot
from tcpcopy.report.diagnosis import diagnose
from tcpcopy.report.outcome import Outcome
from tcpcopy.threads import start_beside

_log = logging.getLogger("tcpcopy.doctor")
_INTERVAL_NS: Final = 2_000_000_000

Say = Callable[[str], object]


def tell(findings: Sequence[Finding], also: Say | None = None) -> None:
    """Log what is serious, with what mends it; each line goes to `also` as well."""
    for finding in serious(findings):
        level = logging.ERROR if finding.level is Level.FAULT else logging.WARNING
        hop = f" [{finding.hop}]" if finding.hop else ""
        lines = [f"check: {finding.check}{hop}: {finding.text}"]
        lines += [f"check:     {step}" for step in finding.remedy]
        for line in lines:
            _log.log(level, "%s", line)
        if also is not None:
            also(f"{word(finding.level)}: {finding.check}{hop}: {finding.text}")
            for step in finding.remedy:
                also(f"    {step}")


def unread(findings: Sequence[Finding]) -> list[str]:
    """What could not be looked at: a process that runs has given up the right to some of it."""
    notes = [finding for finding in findings if finding.level is Level.NOTE]
    return [f"check: {note.check}: {note.text}" for note in notes]


def checked(check: Callable[[], list[Finding]]) -> list[Finding]:
    """What a check finds; nothing when it fails itself, which must not matter to a run."""
    try:
        return check()
    except Exception as error:
        _log.debug("the check of this host failed: %r", error)
        return []


class Alarm:
    """Watches a run. Its methods are for the loop's thread."""

    __slots__ = ("_check", "_context", "_due_ns", "_found", "_thread", "_watch")

    def __init__(self, context: Context, check: Callable[[], list[Finding]]) -> None:
        """`context` is the run as the summary knows it, `check` checks this host."""
        self._context = context
        self._check = check
        self._watch = FailureWatch()
        self._due_ns = 0
        self._thread: threading.Thread | None = None
        self._found: list[Finding] = []

    def is_due(self, now_ns: int) -> bool:
        """Whether `look` has something to do: ask before making a snapshot, which costs more."""
        return now_ns >= self._due_ns

    def look(self, snapshot: Snapshot, now_ns: int) -> None:
        """Tell what there is to tell; returns at once."""
        self._due_ns = now_ns + _INTERVAL_NS
        if self._thread is not None:
            if self._thread.is_alive():
                return
            self._thread = None
            tell(self._found)
            for line in unread(self._found):
                _log.info("%s", line)
        failing = self._watch.look(snapshot, now_ns)
        if failing is not None:
            for line in explain(failing, snapshot, self._context):
                _log.warning("%s", line)
            self._thread = start_beside("checks", self._work)

    def _work(self) -> None:
        self._found = checked(self._check)


def explain(failing: Failing, snapshot: Snapshot, context: Context) -> list[str]:
    """What to say of sessions that fail alike: the summary's words, a line each."""
    outcomes = list(snapshot.outcomes)
    count = max(1, outcomes[failing.outcome])
    if failing.outcome in (Outcome.CONNECT_TIMEOUT, Outcome.REFUSED):
        count = max(count, failing.count)  # those that wait have not ended
    outcomes[failing.outcome] = count
    found = diagnose(replace(snapshot, outcomes=outcomes), context)
    lines = [
        f"{failing.count} of the last {failing.of} sessions failed alike:"
        f" {failing.outcome.description}"
    ]
    for finding in found:
        if finding.key == failing.outcome.name.lower():
            lines += [finding.text, *(f"    {step}" for step in finding.remedy)]
    return lines
