"""The probe that runs by itself: when, for whom, and what it leaves behind."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tcpcopy.doctor.finding import Finding, Level
from tcpcopy.doctor.probe import START_NS, ProbeConfig
from tcpcopy.doctor.start import Candidate, Sessions, StartProbe
from tcpcopy.mapping.allocator import Allocator
from tcpcopy.mapping.clients import parse_clients
from tcpcopy.relay.probing import Flow
from tcpcopy.report.context import CLASSIC, SOCKET, Context

TARGET = b"\x0a\0\0\2"
CLIENT = b"\xc0\xa8\7\1"
SECOND = 1_000_000_000
FLOW = Flow(TARGET, 8080, b"", 0)
WELL = [Finding("probe", Level.OK, "all is well")]
BAD = [Finding("probe", Level.FAULT, "no route", ("on target: ip route",), "target")]


class Replay:
    """A replay with sessions that are set by hand."""

    def __init__(self) -> None:
        self.clients: dict[bytes, bytes] = {}
        self.failed = self.established = 0
        self.progress = (0, 0, 0)

    def sessions(self) -> Sessions:
        return Sessions(
            lambda: self.clients,
            lambda: self.failed,
            lambda: self.established,
            progress=lambda: self.progress,
        )


class Runs:
    """Stands for the probe: keeps what it was asked, and waits to be let go."""

    def __init__(self, found: list[Finding]) -> None:
        self.asked: list[ProbeConfig] = []
        self.found = found
        self.may_end = threading.Event()

    def __call__(self, config: ProbeConfig) -> list[Finding]:
        self.asked.append(config)
        self.may_end.wait(10)
        return self.found

    def end(self, probe: StartProbe) -> None:
        self.may_end.set()
        thread = probe._thread
        assert thread is not None
        thread.join(10)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = logging.getLogger("tcpcopy")
    before = logger.propagate, logger.level
    logger.propagate = True
    logger.setLevel(logging.INFO)
    yield caplog
    logger.propagate, level = before
    logger.setLevel(level)


def config(mode: str = CLASSIC) -> ProbeConfig:
    return ProbeConfig(Context(mode=mode), FLOW)


def test_an_identity_is_taken_and_given_back(told: pytest.LogCaptureFixture) -> None:
    """As a session's, so that no session has it meanwhile."""
    allocator = Allocator(parse_clients("62.135.200.x"))
    runs, replay = Runs(WELL), Replay()
    pool = parse_clients("62.135.200.x")
    probe = StartProbe([Candidate(config(), pool[0])], allocator, replay.sessions(), run=runs)
    probe.look(SECOND)
    assert allocator.live == 1
    probe.look(2 * SECOND)  # it is still under way
    assert allocator.live == 1
    runs.end(probe)
    probe.look(3 * SECOND)
    assert allocator.live == 0
    (asked,) = runs.asked
    assert asked.flow.mapped[:3] == b"\x3e\x87\xc8" and asked.flow.mapped_port
    assert asked.limit_ns == START_NS
    assert "all is well" in told.text


def test_without_c_the_first_session_is_waited_for() -> None:
    """Only one of the target's family, towards this target, will do."""
    allocator = Allocator()
    runs, replay = Runs(WELL), Replay()
    probe = StartProbe([Candidate(config())], allocator, replay.sessions(), run=runs)
    probe.look(SECOND)
    replay.clients = {b"\x0a\0\0\3": CLIENT, bytes(16): bytes(16)}
    probe.look(2 * SECOND)
    assert not runs.asked
    taken = allocator.acquire(
        client_address=CLIENT, client_port=40000, target_address=TARGET, target_port=8080, copy=0,
        now_ns=0,
    )  # fmt: skip
    assert taken == (CLIENT, 40000)
    replay.clients[TARGET] = CLIENT
    probe.look(3 * SECOND)
    runs.end(probe)
    (asked,) = runs.asked
    assert asked.flow.mapped == CLIENT
    assert asked.flow.mapped_port != 40000


def test_socket_mode_needs_nobody() -> None:
    runs = Runs(WELL)
    probe = StartProbe([Candidate(config(SOCKET))], None, Replay().sessions(), run=runs)
    probe.look(SECOND)
    runs.end(probe)
    assert [asked.flow for asked in runs.asked] == [FLOW]


def test_what_mends_it_is_logged(told: pytest.LogCaptureFixture) -> None:
    runs = Runs(BAD)
    probe = StartProbe([Candidate(config(SOCKET))], None, Replay().sessions(), run=runs)
    probe.look(SECOND)
    runs.end(probe)
    probe.close(2 * SECOND)  # the run ends: what is known is told
    assert "no route" in told.text and "ip route" in told.text
    assert any(record.levelno == logging.ERROR for record in told.records)


def test_again_when_many_fail(told: pytest.LogCaptureFixture) -> None:
    """Not sooner than a minute after the last one, and not for a few."""
    runs, replay = Runs(WELL), Replay()
    probe = StartProbe([Candidate(config(SOCKET))], None, replay.sessions(), run=runs)
    probe.look(SECOND)
    runs.end(probe)
    probe.look(2 * SECOND)
    replay.failed = 1000
    probe.look(30 * SECOND)
    assert len(runs.asked) == 1
    probe.look(62 * SECOND)
    runs.end(probe)
    probe.look(63 * SECOND)
    assert len(runs.asked) == 2
    assert "1000 sessions could not be connected" in told.text
    replay.failed, replay.established = 1100, 5000  # most of them work
    probe.look(130 * SECOND)
    replay.failed = 1105
    probe.look(132 * SECOND)
    assert len(runs.asked) == 2


def test_again_when_nothing_is_answered_any_more(told: pytest.LogCaptureFixture) -> None:
    """Sessions that wait do not fail for minutes."""
    runs, replay = Runs(BAD), Replay()
    probe = StartProbe([Candidate(config(SOCKET))], None, replay.sessions(), run=runs)
    probe.look(SECOND)
    runs.end(probe)
    replay.progress = (100, 10, 5000)
    probe.look(2 * SECOND)
    probe.look(70 * SECOND)
    replay.progress = (130, 40, 5000)
    probe.look(71 * SECOND)
    assert len(runs.asked) == 1
    probe.look(82 * SECOND)
    runs.end(probe)
    probe.look(83 * SECOND)
    assert len(runs.asked) == 2
    assert "30 sessions wait for an answer of the target" in told.text


def to_targets(*targets: bytes, client: bytes = b"") -> list[Candidate]:
    return [
        Candidate(replace(config(), flow=Flow(target, 8080, b"", 0)), client) for target in targets
    ]


def test_each_target_in_turn() -> None:
    """One that has no session yet keeps the others from nothing."""
    runs, replay = Runs(WELL), Replay()
    second, third = b"\x0a\0\0\3", b"\x0a\0\0\4"
    probe = StartProbe(to_targets(TARGET, second, third), Allocator(), replay.sessions(), run=runs)
    replay.clients = {third: CLIENT, second: CLIENT}
    runs.may_end.set()
    for number in range(1, 6):
        probe.look(number * SECOND)
        if probe._thread is not None:
            runs.end(probe)
    assert [asked.flow.target for asked in runs.asked] == [second, third]
    replay.clients[TARGET] = CLIENT
    probe.look(6 * SECOND)
    runs.end(probe)
    probe.look(7 * SECOND)
    probe.look(8 * SECOND)
    assert [asked.flow.target for asked in runs.asked] == [second, third, TARGET]
    assert {asked.flow.mapped for asked in runs.asked} == {CLIENT}


@pytest.mark.parametrize("bad", [0, 1, None])
def test_which_of_several_targets_it_is(told: pytest.LogCaptureFixture, bad: int | None) -> None:
    """When many fail all are probed again; one that is well is not said to be well by now."""
    second = b"\x0a\0\0\3"
    runs, replay = Runs(WELL), Replay()
    runs.may_end.set()
    probe = StartProbe(to_targets(TARGET, second, client=CLIENT), None, replay.sessions(), run=runs)
    now = 0
    for number in (2, 4):
        while len(runs.asked) < number or probe._thread is not None:
            now += SECOND
            wrong = bad is not None and len(runs.asked) == 2 + bad
            runs.found = BAD if wrong else WELL
            probe.look(now)
            if probe._thread is not None:
                runs.end(probe)
        replay.failed = 50
    assert [asked.flow.target for asked in runs.asked] == [TARGET, second] * 2
    assert told.text.count("50 sessions could not be connected") == 1
    assert told.text.count("but now") == (1 if bad is None else 0)
    assert told.text.count("no route") == (0 if bad is None else 1)


def test_an_error_of_its_own_harms_nobody(told: pytest.LogCaptureFixture) -> None:
    def fails(_: ProbeConfig) -> list[Finding]:
        raise ValueError("bug")

    probe = StartProbe([Candidate(config(SOCKET))], None, Replay().sessions(), run=fails)
    probe.look(SECOND)
    assert probe._thread is not None
    probe._thread.join(10)
    probe.look(2 * SECOND)
    assert "error of its own" in told.text


def test_a_relay_that_is_down_is_waited_for() -> None:
    """With -L: that it is down is said by others."""
    up = False
    runs = Runs(WELL)
    sessions = replace(Replay().sessions(), can_connect=lambda: up)
    probe = StartProbe([Candidate(config(SOCKET))], None, sessions, run=runs)
    probe.look(SECOND)
    assert not runs.asked
    up = True
    probe.look(2 * SECOND)
    runs.end(probe)
    assert len(runs.asked) == 1
    assert not runs.asked[0].may_connect  # at the start no server is to see anything


def test_no_address_of_the_family() -> None:
    """A range of the other family gives none: nothing is probed, nothing is asked again."""
    allocator = Allocator(parse_clients("62.135.200.x"))
    runs = Runs(WELL)
    flow = Flow(bytes(15) + b"\2", 8080, b"", 0)
    candidate = Candidate(replace(config(), flow=flow), CLIENT)
    probe = StartProbe([candidate], allocator, Replay().sessions(), run=runs)
    probe.look(SECOND)
    probe.look(2 * SECOND)
    assert not runs.asked


# --- the assistant passes answers on --------------------------------------------------------------

HARM = Finding("probe", Level.FAULT, "it forwards", ("sysctl",), "assistant", harms_clients=True)


class Stops:
    """What sessions were told, and what asking brings."""

    def __init__(self) -> None:
        self.told: list[bool] = []
        self.asked: list[ProbeConfig] = []
        self.forwards: bool | None = True

    def ask(self, config: ProbeConfig) -> bool | None:
        self.asked.append(config)
        return self.forwards


def stopped(found: list[Finding]) -> tuple[StartProbe, Runs, Stops]:
    """A probe that has found that, at two seconds."""
    runs, replay, stops = Runs(found), Replay(), Stops()
    replay.clients = {TARGET: CLIENT}
    probe = StartProbe(
        [Candidate(config())],
        Allocator(),
        replay.sessions(),
        run=runs,
        ask=stops.ask,
        stop=stops.told.append,
    )
    probe.look(SECOND)
    runs.end(probe)
    probe.look(2 * SECOND)
    return probe, runs, stops


def finish(probe: StartProbe, now_ns: int) -> None:
    thread = probe._thread
    assert thread is not None
    thread.join(10)
    probe.look(now_ns)


def test_sessions_are_stopped_and_asked_for_until_it_is_mended(
    told: pytest.LogCaptureFixture,
) -> None:
    """Every ten seconds, with the same flow and without a probe; then all begins anew."""
    probe, runs, stops = stopped([HARM])
    assert stops.told == [True]
    assert "no session is opened any more" in told.text and "it forwards" in told.text
    for forwards in (True, None):
        stops.forwards = forwards
        began = len(stops.asked)
        probe.look((11 + 10 * began) * SECOND)
        assert len(stops.asked) == began
        probe.look((12 + 10 * began) * SECOND)
        finish(probe, (12 + 10 * began) * SECOND + 1)
        assert len(stops.asked) == began + 1
        assert stops.told == [True]
    stops.forwards = False
    probe.look(40 * SECOND)
    finish(probe, 41 * SECOND)
    assert stops.told == [True, False]
    assert "sessions are opened again" in told.text
    assert len(runs.asked) == 1
    probe.look(42 * SECOND)
    finish(probe, 43 * SECOND)
    assert len(runs.asked) == 2  # whether it is well now
    assert {asked.flow for asked in stops.asked} == {runs.asked[0].flow}


def test_a_fault_that_harms_no_client_stops_nothing() -> None:
    for found in (BAD, WELL, [replace(HARM, harms_clients=False)]):
        _, _, stops = stopped(found)
        assert stops.told == []


def test_half_as_many_failures_as_connections_are_worth_a_probe() -> None:
    """Established, and reset at once: counted as both."""
    runs, replay = Runs(WELL), Replay()
    probe = StartProbe([Candidate(config(SOCKET))], None, replay.sessions(), run=runs)
    probe.look(SECOND)
    runs.end(probe)
    probe.look(2 * SECOND)
    replay.failed, replay.established = 30, 61
    probe.look(70 * SECOND)
    assert len(runs.asked) == 1
    replay.failed, replay.established = 60, 100
    probe.look(72 * SECOND)
    assert len(runs.asked) == 2
