"""What is logged of findings, at the start and while sessions fail."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from tcpcopy.doctor.alarm import Alarm, checked, explain, tell
from tcpcopy.doctor.finding import Finding, Level
from tcpcopy.doctor.watch import Failing
from tcpcopy.report.context import Context, TransferInfo
from tcpcopy.report.counters import Snapshot
from tcpcopy.report.outcome import OUTCOME_SLOTS, Outcome

SECOND = 1_000_000_000
FAULT = Finding("route", Level.FAULT, "there is no route", ("on this host: ip route add",))
WARNING = Finding("mtu", Level.WARNING, "too large")
CONTEXT = Context(transfers=(TransferInfo("", 80, "10.0.0.2", 8080),))


def refused(count: int) -> Snapshot:
    outcomes = [0] * OUTCOME_SLOTS
    outcomes[Outcome.REFUSED] = count
    return Snapshot(sessions_captured=count, outcomes=outcomes)


def wait_for(alarm: Alarm, snapshot: Snapshot, now_ns: int, caplog: pytest.LogCaptureFixture,
             text: str) -> None:  # fmt: skip
    until = time.monotonic() + 5
    while text not in caplog.text:
        assert time.monotonic() < until, caplog.text
        time.sleep(0.01)
        alarm.look(snapshot, now_ns)


def test_all_is_well_and_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    said: list[str] = []
    tell([Finding("route", Level.OK, "by eth0"), Finding("clock", Level.NOTE, "x")], said.append)
    assert caplog.records == [] and said == []


def test_the_worst_first_with_what_mends_it(caplog: pytest.LogCaptureFixture) -> None:
    said: list[str] = []
    tell([WARNING, FAULT], said.append)
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.ERROR, "check: route: there is no route"),
        (logging.ERROR, "check:     on this host: ip route add"),
        (logging.WARNING, "check: mtu: too large"),
    ]
    assert said == [
        "fault: route: there is no route",
        "    on this host: ip route add",
        "warning: mtu: too large",
    ]


def test_a_check_that_fails_finds_nothing() -> None:
    def broken() -> list[Finding]:
        raise OSError("no more files")

    assert checked(broken) == []
    assert checked(lambda: [FAULT]) == [FAULT]


def test_failures_are_explained_once(caplog: pytest.LogCaptureFixture) -> None:
    checks = 0

    def check() -> list[Finding]:
        nonlocal checks
        checks += 1
        return [FAULT]

    alarm = Alarm(CONTEXT, check)
    alarm.look(refused(10), 0)
    assert caplog.records == []
    alarm.look(refused(30), 3 * SECOND)
    assert "30 of the last 30 sessions failed alike: refused by the target" in caplog.text
    assert "nothing listens on 10.0.0.2:8080" in caplog.text
    assert "ss -ltn 'sport = :8080'" in caplog.text
    wait_for(alarm, refused(30), 6 * SECOND, caplog, "there is no route")
    for second in range(100, 1000, 100):
        alarm.look(refused(30 + second), second * SECOND)
    assert checks == 1 and caplog.text.count("failed alike") == 1


def test_replay_does_not_wait_for_a_check(caplog: pytest.LogCaptureFixture) -> None:
    go_on = threading.Event()

    def slow() -> list[Finding]:
        go_on.wait(10)
        return [WARNING]

    alarm = Alarm(CONTEXT, slow)
    before = time.monotonic()
    alarm.look(refused(30), 0)
    alarm.look(refused(30), 3 * SECOND)
    assert time.monotonic() - before < 2
    go_on.set()
    wait_for(alarm, refused(30), 6 * SECOND, caplog, "too large")


def test_it_is_due_now_and_then() -> None:
    alarm = Alarm(CONTEXT, list)
    assert alarm.is_due(0)
    alarm.look(refused(0), 0)
    assert not alarm.is_due(SECOND) and alarm.is_due(2 * SECOND)


def test_those_that_still_wait_are_explained_as_ended() -> None:
    waiting = Snapshot(sessions_captured=40, sessions_live=40)
    lines = explain(Failing(Outcome.CONNECT_TIMEOUT, 40, 40), waiting, CONTEXT)
    assert lines[0].startswith("40 of the last 40 sessions failed alike: the target did not answer")
    assert "40 sessions without an answer to the connect: 10.0.0.2:8080 cannot be reached" in lines
    assert any("nc -vz" in line for line in lines)


@pytest.mark.parametrize("outcome", [o for o in Outcome if o.is_loss], ids=lambda o: o.name)
def test_every_loss_is_explained(outcome: Outcome) -> None:
    outcomes = [0] * OUTCOME_SLOTS
    outcomes[outcome] = 25
    snapshot = Snapshot(sessions_captured=25, outcomes=outcomes)
    first, *rest = explain(Failing(outcome, 25, 25), snapshot, CONTEXT)
    assert first.endswith(outcome.description) and rest
