"""Replay on whole hosts: what online's application read, the target's application reads.

Each scenario runs in each mode, with the framed server that records a hash of every stream. In
local mode the target is a second server of the online host.
"""

from __future__ import annotations

import hashlib
import signal
import time

import pytest

from tests.lab.scenario import ALL_MODES, Replay, Scenario
from tests.lab.script import sent

pytestmark = pytest.mark.netns
MODES = ("socket", "classic")

# name: (load, servers' arguments, streams)
LOADS = {
    "keep-alive": ("--connections 50 --requests 200", "", 50),
    "one request each": ("--connections 2000 --concurrency 100", "", 2000),
    "pipelining": ("--connections 20 --requests 160 --pipeline 16", "", 20),
    "sliding window": ("--connections 10 --requests 100 --pipeline 8 --sliding", "", 10),
    "uploads": ("--connections 12 --requests 2 --request-bytes 1000000", "", 12),
    "big answers": ("--connections 12 --requests 2 --answer-bytes 1000000", "", 12),
    "think times": ("--connections 20 --requests 8 --think-ms 1-50", "", 20),
    "half-close": ("--connections 20 --requests 3 --end half-close --server-delay-ms 20", "", 20),
    "client resets": ("--connections 20 --requests 3 --end rst", "", 20),
    "server closes first": ("--connections 20 --requests 3 --end server", "", 20),
    "server speaks first": ("--connections 20 --requests 3 --greeting", "--greeting 50", 20),
    "no answers": ("--connections 10 --requests 20 --no-answer", "", 10),
    "two-way streams": (
        "--connections 10 --requests 100 --two-way --think-ms 1-5",
        "--push-every-ms 3",
        10,
    ),
}


def check(scenario: Scenario, replay: Replay, streams: int, *, copies: int = 1) -> None:
    """Every stream exact, ended as the client ended it, counted as replayed; nothing else."""
    result = scenario.compare(copies=copies)
    assert result.clean, f"{result}\n{replay.output}"
    assert result.exact == streams * copies, result
    report = replay.report
    assert replay.exit_code == 0, replay.output
    assert report["sessions"]["replayed"] == streams * copies, report["sessions"]


@pytest.mark.parametrize("mode", ALL_MODES)
@pytest.mark.parametrize("name", LOADS)
def test_every_stream_arrives(scenario: Scenario, mode: str, name: str) -> None:
    """The plain scenarios, on a network without faults."""
    load, arguments, streams = LOADS[name]
    scenario.servers(arguments)
    with scenario.replay(mode) as replay:
        scenario.load(load)
        scenario.wait_for_target(streams, 30)
    check(scenario, replay, streams)


@pytest.mark.parametrize("mode", ALL_MODES)
def test_connections_without_a_byte(scenario: Scenario, mode: str) -> None:
    """A client that connects and closes is replayed as just that."""
    scenario.servers()
    with scenario.replay(mode) as replay:
        scenario.load("--connections 10 --requests 0")
        scenario.wait_for_target(10)
    assert [s.ended for s in scenario.target[0].stop()] == ["fin"] * 10
    assert replay.report["sessions"]["replayed"] == 10


@pytest.mark.parametrize("mode", ALL_MODES)
def test_short_connections_at_full_speed(scenario: Scenario, mode: str) -> None:
    """20,000 connections of one request each, as fast as the client can."""
    scenario.servers()
    with scenario.replay(mode) as replay:
        scenario.load("--connections 20000 --concurrency 100", timeout=120)
        scenario.wait_for_target(20000, 60)
    check(scenario, replay, 20000)


@pytest.mark.parametrize("mode", ALL_MODES)
@pytest.mark.parametrize("greeting", [False, True], ids=["client first", "server first"])
def test_pure_acknowledgements_are_captured_where_they_matter(
    scenario: Scenario, mode: str, greeting: bool
) -> None:
    """Near clients that speak first: the kernel drops them, and every stream still arrives."""
    scenario.servers("--greeting 50" if greeting else "")
    load = "--connections {} --concurrency 20 --requests 2" + " --greeting" * greeting
    with scenario.replay(mode) as replay:
        scenario.load(load.format(100))
        time.sleep(2.5)  # the evidence is looked at once a second
        scenario.load(load.format(1500))
        scenario.wait_for_target(1600, 60)
    check(scenario, replay, 1600)
    captured = replay.report["packets"]["captured"]
    # SYN, two requests, FIN; and at least the acknowledgements that end handshake and connection.
    assert (captured >= 1600 * 6) if greeting else (captured <= 100 * 12 + 1500 * 5)


@pytest.mark.parametrize("mode", ALL_MODES)
def test_ten_thousand_open_at_once(scenario: Scenario, mode: str) -> None:
    """10,000 connections opened, held, and used while all are open."""
    scenario.servers()
    with scenario.replay(mode) as replay:
        load = scenario.start_load(
            "--connections 10000 --requests 2 --pause-after 1 --rate 2500"
            " --source 10.66.1.1-10.66.1.4"
        )
        load.wait_for("paused", 60)
        load.send_signal(signal.SIGUSR1)
        scenario.finish_load(load, 60)
        scenario.wait_for_target(10000, 60)
    check(scenario, replay, 10000)
    assert replay.report["sessions"]["peak"] >= 9000


@pytest.mark.parametrize("mode", ALL_MODES)
def test_picked_up_in_mid_stream(scenario: Scenario, mode: str) -> None:
    """Connections opened before tcpcopy starts: all requests from then on arrive."""
    words = "--connections 20 --requests 6 --pause-after 2"
    scenario.servers()
    load = scenario.start_load(words)
    load.wait_for("paused")
    with scenario.replay(mode) as replay:
        load.send_signal(signal.SIGUSR1)
        scenario.finish_load(load)
        scenario.wait_for_target(20)
    expected = sorted(hashlib.sha256(sent(words, n, 2)).hexdigest() for n in range(20))
    assert sorted(s.sha256 for s in scenario.target[0].stop()) == expected
    assert replay.report["sessions"]["midstream"] == 20
    assert replay.exit_code == 0


@pytest.mark.parametrize("mode", ALL_MODES)
def test_full_sessions_only(scenario: Scenario, mode: str) -> None:
    """-O: what began before the capture is left out and counted so."""
    scenario.servers()
    load = scenario.start_load("--connections 5 --requests 4 --pause-after 2")
    load.wait_for("paused")
    with scenario.replay(mode, "-O") as replay:
        load.send_signal(signal.SIGUSR1)
        scenario.finish_load(load)
        scenario.load("--connections 7 --seed 9")
        scenario.wait_for_target(7)
    assert len(scenario.target[0].stop()) == 7
    assert replay.report["sessions"]["outcomes"]["skipped_partial"] == 5


@pytest.mark.parametrize("mode", ALL_MODES)
def test_target_slower_than_online(scenario: Scenario, mode: str) -> None:
    """A target that takes 50 ms longer for each answer gets every request, after its answer."""
    scenario.servers(target=("--delay-ms 50",))
    with scenario.replay(mode) as replay:
        scenario.load("--connections 50 --requests 10 --think-ms 0-10")
        scenario.wait_for_target(50, 30)
    gaps = [gap for s in scenario.target[0].stop() for gap in s.gaps_ns]
    assert min(gaps) >= 49_000_000
    check(scenario, replay, 50)


@pytest.mark.parametrize("mode", ALL_MODES)
@pytest.mark.parametrize("extra", [-150, 37, 5000])
def test_target_answers_more_or_less(scenario: Scenario, mode: str, extra: int) -> None:
    """Answers of another length at a slower target: still one request after one answer."""
    scenario.servers(target=("--delay-ms 20", f"--answer-extra={extra}"))
    with scenario.replay(mode) as replay:
        scenario.load("--connections 20 --requests 12 --think-ms 0-3")
        scenario.wait_for_target(20, 30)
    gaps = [gap for s in scenario.target[0].stop() for gap in s.gaps_ns]
    assert min(gaps) >= 19_000_000
    check(scenario, replay, 20)


@pytest.mark.parametrize("mode", ALL_MODES)
def test_target_that_answers_more_stalls(scenario: Scenario, mode: str) -> None:
    """It stops before the second answers for as long as five take: nothing goes ahead."""
    scenario.servers(target=("--delay-ms 100", "--answer-extra=5000"))
    with scenario.replay(mode) as replay:
        scenario.load("--connections 20 --requests 12")
        target = scenario.target[0]
        time.sleep(0.15)
        target.program.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        target.program.send_signal(signal.SIGCONT)
        scenario.wait_for_target(20, 30)
    gaps = [gap for s in target.stop() for gap in s.gaps_ns]
    assert min(gaps) >= 99_000_000
    assert max(gaps) >= 500_000_000
    check(scenario, replay, 20)


@pytest.mark.parametrize("mode", MODES)
def test_far_clients_whose_handshake_was_slow(scenario: Scenario, mode: str) -> None:
    """40 ms away, but 240 for the handshake (a radio woke up): the replay does not fall behind."""
    scenario.servers()
    scenario.bad_link("--delay-ms 20", "--syn-delay-ms 100", host=scenario.lab.client)
    with scenario.replay(mode) as replay:
        scenario.load("--connections 10 --requests 20")
        scenario.wait_for_target(10, 30)
    check(scenario, replay, 10)
    lag = replay.report["latency"]["lag"]
    assert lag["p99_ms"] <= 100, "each turn waited for the handshake's time again"


@pytest.mark.parametrize("mode", ALL_MODES)
def test_pacing_keeps_think_times(scenario: Scenario, mode: str) -> None:
    """Gaps between a connection's requests: p50 within 0.5 ms of online's, p99 within 5 ms."""
    scenario.servers("--kernel-times")
    with scenario.replay(mode) as replay:
        # So many that one stall of the machine, which meets 20 gaps, is not one in a hundred.
        scenario.load("--connections 20 --requests 160 --think-ms 2-40 --rate 100", timeout=60)
        scenario.wait_for_target(20, 30)
    check(scenario, replay, 20)
    pacing = scenario.compare().pacing_ms()
    assert pacing.p50 <= 0.5, pacing
    assert pacing.p99 <= 5.0, pacing
