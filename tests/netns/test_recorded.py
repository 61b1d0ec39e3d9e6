"""Replay of recorded traffic on whole hosts: tcpdump on online, then the file, byte for byte.

Socket mode runs without any capability: nothing may be captured or forged there.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tests.lab.compare import Stream
from tests.lab.real.nginx import Nginx, wrk_script
from tests.lab.real.redis import Redis
from tests.lab.real.service import RealServers, check_report, find_program, real_servers
from tests.lab.recording import recording, replay_files, start_replay
from tests.lab.scenario import PORT, Replay, Scenario, python, wait_until
from tests.lab.script import sent
from tests.netns.test_replay import LOADS, MODES, check

pytestmark = pytest.mark.netns


def record(scenario: Scenario, load: str, servers: str = "", timeout: float = 60.0) -> Path:
    """Run a load against online alone; the file with its traffic."""
    scenario.servers(servers)
    with recording(scenario) as path:
        scenario.load(load, timeout=timeout)
    return path


AT_SPEEDS = ("keep-alive", "think times")


def each_load() -> list[ParameterSet]:
    """Every load as fast as answers allow, two at other speeds; `make acceptance` has all."""
    return [
        pytest.param(
            name,
            speed,
            id=f"{name}-{speed}",
            marks=[pytest.mark.acceptance] if speed != "--fast" and name not in AT_SPEEDS else [],
        )
        for name in LOADS
        for speed in ("-a 1", "-a 10", "--fast")
    ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "speed"), each_load())
def test_every_stream_arrives(scenario: Scenario, mode: str, name: str, speed: str) -> None:
    """The scenarios of live replay, out of a file."""
    load, servers, streams = LOADS[name]
    path = record(scenario, load, servers)
    replay = replay_files(scenario, mode, "-i", path, *speed.split())
    assert scenario.wait_for_target(streams, 10), replay.output
    check(scenario, replay, streams)
    files = replay.report["files"]
    assert files["bytes_read"] == files["bytes_total"] == path.stat().st_size
    assert files["packets"] == files["left_out"] + replay.report["packets"]["captured"]


@pytest.mark.parametrize("mode", MODES)
def test_short_connections_as_fast_as_answers_allow(scenario: Scenario, mode: str) -> None:
    """20,000 connections of one request each."""
    path = record(scenario, "--connections 20000 --concurrency 100", timeout=120)
    replay = replay_files(scenario, mode, "-i", path, "--fast", timeout=120)
    scenario.wait_for_target(20000, 10)
    check(scenario, replay, 20000)


def gaps(streams: list[Stream]) -> dict[str, list[float]]:
    """Seconds between the requests of each stream, by its content."""
    return {stream.sha256: [gap / 1e9 for gap in stream.gaps_ns] for stream in streams}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("speed", [0.5, 1.0, 4.0])
def test_waits_are_as_recorded_times_the_speed(scenario: Scenario, mode: str, speed: float) -> None:
    path = record(scenario, "--connections 20 --requests 6 --think-ms 100-400")
    replay = replay_files(scenario, mode, "-i", path, "-a", speed)
    scenario.wait_for_target(20, 10)
    online = gaps(scenario.online[0].stop())
    target = gaps(scenario.target[0].stop())
    assert replay.exit_code == 0 and online.keys() == target.keys()
    # The last gap ends with the connection, not with a request.
    off = [
        abs(there - here / speed)
        for key in online
        for here, there in zip(online[key], target[key], strict=True)
    ]
    off.sort()
    assert off[len(off) // 2] < 0.01 and off[-1] < 0.25, off[-10:]


def test_a_schedule_that_is_repeated_does_not_drift(scenario: Scenario) -> None:
    """-T 5: the first request of each pass comes a whole number of file lengths after the first."""
    path = record(scenario, "--connections 3 --requests 6 --think-ms 20-60")
    replay = replay_files(scenario, "socket", "-i", path, "-T", 5, "-a", 1)
    scenario.wait_for_target(15, 10)
    check_passes(scenario, replay, 3, 5)
    starts = sorted(stream.arrivals_ns[0] for stream in scenario.target[0].stop())[::3]
    lengths = [(b - starts[0]) / n for n, b in enumerate(starts[1:], 1)]
    assert max(lengths) - min(lengths) < 20_000_000, lengths


def check_passes(scenario: Scenario, replay: Replay, streams: int, passes: int) -> None:
    """Every stream as often as there are passes; `stop` may be called again afterwards."""
    assert replay.exit_code == 0, replay.output
    report = replay.report
    assert report["sessions"]["captured"] == streams * passes == report["sessions"]["replayed"]
    assert report["files"]["passes"] == passes
    result = scenario.compare(copies=passes)
    assert result.clean and result.exact == streams * passes, f"{result}\n{replay.output}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("speed", ["-a 1", "--fast"])
def test_passes(scenario: Scenario, mode: str, speed: str) -> None:
    """Three times the same file: the same ports and numbers, and new sessions each time."""
    path = record(scenario, "--connections 200 --requests 4 --think-ms 0-30")
    replay = replay_files(scenario, mode, "-i", path, "-T", 3, *speed.split())
    scenario.wait_for_target(600, 10)
    check_passes(scenario, replay, 200, 3)


def test_long_gaps_are_cut(scenario: Scenario) -> None:
    path = record(scenario, "--connections 2 --requests 3 --think-ms 3000-3000")
    replay = replay_files(scenario, "socket", "-i", path, "-I", "50.5")
    scenario.wait_for_target(2, 10)
    check(scenario, replay, 2)
    assert replay.report["duration_s"] < 3


def part_of_sessions(scenario: Scenario, words: str) -> tuple[Path, Path]:
    """Record in two files, the second of which begins in the middle of all sessions."""
    scenario.servers()
    with recording(scenario, "first.pcap") as first:
        load = scenario.start_load(words)
        load.wait_for("paused")
    with recording(scenario, "second.pcap") as second:
        load.send_signal(signal.SIGUSR1)
        scenario.finish_load(load)
    return first, second


HALVES = "--connections 20 --requests 6 --pause-after 2"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("words", ["-a 1", "--fast", "-T 2"])
def test_a_file_that_begins_in_mid_session(scenario: Scenario, mode: str, words: str) -> None:
    """All requests from there on arrive, in each pass."""
    _, second = part_of_sessions(scenario, HALVES)
    replay = replay_files(scenario, mode, "-i", second, *words.split())
    passes = 2 if "-T" in words else 1
    scenario.wait_for_target(20 * passes, 10)
    expected = sorted(hashlib.sha256(sent(HALVES, n, 2)).hexdigest() for n in range(20))
    found = sorted(s.sha256 for s in scenario.target[0].stop())
    assert found == sorted(expected * passes), replay.output
    assert replay.report["sessions"]["midstream"] == 20 * passes
    assert replay.exit_code == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("words", ["-a 1", "--fast", "-T 2"])
def test_a_file_that_ends_in_mid_session(scenario: Scenario, mode: str, words: str) -> None:
    """All that it has arrives and is answered; the connections are closed then, not reset."""
    first, _ = part_of_sessions(scenario, HALVES)
    replay = replay_files(scenario, mode, "-i", first, *words.split())
    passes = 2 if "-T" in words else 1
    scenario.wait_for_target(20 * passes, 10)
    head = "--connections 20 --requests 2"
    expected = sorted(hashlib.sha256(sent(head, n)).hexdigest() for n in range(20))
    found = scenario.target[0].stop()
    assert sorted(s.sha256 for s in found) == sorted(expected * passes), replay.output
    assert {s.ended for s in found} == {"fin"}
    assert replay.report["sessions"]["outcomes"]["open_complete"] == 20 * passes
    assert replay.exit_code == 0


def test_files_in_the_wrong_order(scenario: Scenario) -> None:
    """Two files of the same connections, the later one first: one replay, in order of time."""
    first, second = part_of_sessions(scenario, HALVES)
    replay = replay_files(scenario, "socket", "-i", second, "-i", first, "-I", 100)
    scenario.wait_for_target(20, 10)
    check(scenario, replay, 20)


def test_standard_input(scenario: Scenario) -> None:
    """tcpdump -w - | tcpcopy -i -: live traffic, through a pipe, by way of another program."""
    scenario.servers()
    report = scenario.lab.directory / "report.json"
    rule = f"{PORT}-{scenario.lab.target.v4}:{PORT}"
    ours = " ".join(map(str, python("tcpcopy.cli", "--json", report, "-i", "-", "-x", rule)))
    shell = f"tcpdump -i eth0 --immediate-mode -B 65536 -U -s 0 -w - 'tcp port {PORT}' | {ours}"
    program = scenario.lab.online.start(["sh", "-c", shell], name="pipe", env=scenario.environment)
    program.wait_for(r"\bready\b")
    load = "--connections 50 --requests 20 --think-ms 0-20"
    scenario.load(load)
    assert scenario.wait_for_target(50, 20), program.output()
    result = scenario.compare()
    assert result.clean and result.exact == 50, result
    os.killpg(program.pid, signal.SIGINT)  # Ctrl-C goes to both
    program.wait(15)
    text = program.output()
    assert "all 50 sessions replayed exactly" in text, text


def test_a_signal_ends_a_replay(scenario: Scenario) -> None:
    """Ctrl-C in the middle: a summary of what was done, and nothing is left running."""
    path = record(scenario, "--connections 10 --requests 30 --think-ms 100-100")
    replay = start_replay(scenario, "socket", "-i", path)
    replay.tcpcopy.wait_for(r"\bready\b")
    assert not wait_until(lambda: not replay.tcpcopy.alive, 1)
    assert replay.stop() == 0, replay.output
    report = replay.report
    assert 0 < report["turns"]["replayed"] < 300
    assert report["sessions"]["outcomes"]["open_complete"] == 10
    assert not report["violations"]


def test_a_target_that_is_down(scenario: Scenario) -> None:
    """Each session has a true outcome, and the run ends."""
    path = record(scenario, "--connections 20 --requests 3")
    scenario.target[0].stop()
    replay = replay_files(scenario, "socket", "-i", path, "--fast", "--retry", 1)
    assert replay.exit_code == 1
    assert replay.report["sessions"]["outcomes"]["refused"] == 20


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("missing.pcap", "no such file"),
        (".", "is a directory"),
        ("/dev/null", "is empty"),
    ],
)
def test_bad_files_are_one_line(scenario: Scenario, argument: str, line: str) -> None:
    path = scenario.lab.directory / argument
    replay = replay_files(scenario, "socket", "-i", path)
    assert replay.exit_code == 2
    assert replay.output.count("\n") == 1 and line in replay.output, replay.output
    assert replay.output.startswith(f"tcpcopy: -i {path}"), replay.output


# -- the rate ---------------------------------------------------------------------------------


def opened_per_second(streams: list[Stream], skip: int = 20) -> float:
    """How many streams began in a second, without the first and the last few."""
    begun = sorted(stream.opened_ns for stream in streams)[skip:-skip]
    return (len(begun) - 1) * 1e9 / (begun[-1] - begun[0])


@pytest.mark.parametrize("words", ["--rate-mode queue", "--rate-mode pace", "--fast"])
def test_rate_of_sessions_of_a_file(scenario: Scenario, words: str) -> None:
    path = record(scenario, "--connections 3000 --concurrency 50")
    replay = replay_files(scenario, "socket", "-i", path, "--rate", "400sessions", *words.split())
    scenario.wait_for_target(3000, 10)
    streams = list(scenario.target[0].snapshot())
    assert opened_per_second(streams) == pytest.approx(400, rel=0.02)
    assert replay.report["rate"]["reached"] == pytest.approx(400, rel=0.02)
    assert replay.report["rate"]["taken"] == 3000
    check(scenario, replay, 3000)


@pytest.mark.parametrize("mode", MODES)
def test_rate_of_live_sessions(scenario: Scenario, mode: str) -> None:
    """1,500 connections at once: all are replayed, 300 a second."""
    scenario.servers()
    with scenario.replay(mode, "--rate", "300sessions", "--rate-mode", "queue") as replay:
        scenario.load("--connections 1500 --concurrency 100")
        scenario.wait_for_target(1500, 30)
    streams = list(scenario.target[0].stop())
    assert opened_per_second(streams) == pytest.approx(300, rel=0.02)
    assert replay.report["rate"]["reached"] == pytest.approx(300, rel=0.02)
    check(scenario, replay, 1500)


@pytest.mark.parametrize("mode", MODES)
def test_rate_of_live_requests(scenario: Scenario, mode: str) -> None:
    """Requests of many sessions take turns; each session keeps its order."""
    scenario.servers()
    with scenario.replay(mode, "--rate", "1000requests") as replay:
        scenario.load("--connections 40 --requests 100")
        scenario.wait_for_target(40, 30)
    arrivals = sorted(t for s in scenario.target[0].stop() for t in s.arrivals_ns[:-1])
    middle = arrivals[100:-300]  # at the end there are too few sessions to use every slot
    reached = (len(middle) - 1) * 1e9 / (middle[-1] - middle[0])
    assert reached == pytest.approx(1000, rel=0.02)
    check(scenario, replay, 40)


def test_rate_that_drops_live_sessions(scenario: Scenario) -> None:
    """What is too much is left out, whole sessions, and counted."""
    scenario.servers()
    with scenario.replay("socket", "--rate", "100sessions", "--rate-mode", "drop") as replay:
        scenario.load("--connections 2000 --rate 1000 --requests 2")
        wait_until(lambda: scenario.target[0].count() >= 190, 10)
    result = scenario.compare()
    report = replay.report
    skipped = report["sessions"]["outcomes"]["skipped_rate"]
    assert result.exact == 2000 - skipped and not (result.corrupt or result.extra), result
    assert report["sessions"]["captured"] == 2000 and replay.exit_code == 0
    assert report["rate"]["reached"] == pytest.approx(100, rel=0.02)
    assert 180 <= result.exact <= 250


# -- real servers -----------------------------------------------------------------------------


@pytest.fixture
def real(scenario: Scenario) -> Iterator[RealServers]:
    """Pairs of real servers in `lab`."""
    with real_servers(scenario) as real:
        yield real


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("words", ["-a 1", "--fast"])
def test_nginx_out_of_a_file(scenario: Scenario, real: RealServers, mode: str, words: str) -> None:
    """wrk at full speed, on connections that are kept and that are closed."""
    online, target = real.start(Nginx, answers=False)
    wrk = find_program("wrk", "wrk")
    url = f"http://{online.host.v4}:{PORT}/"
    with recording(scenario) as path:
        for close in (False, True):
            script = wrk_script(real.directory, close=close)
            real.client(wrk, "-t", 1, "-c", 30, "-d", "1s", "-s", script, url)
    replay = replay_files(scenario, mode, "-i", path, *words.split())
    wait_until(lambda: target.progress() >= online.progress(), 10, 0.05)
    assert replay.exit_code == 0, replay.output
    assert online.progress() > 2000
    assert online.sessions() == target.sessions(), replay.output
    check_report(replay)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("words", ["-a 1", "--fast"])
def test_redis_out_of_a_file(scenario: Scenario, real: RealServers, mode: str, words: str) -> None:
    """redis-benchmark, pipelined and not: the same commands, the same data."""
    online, target = real.start(Redis)
    benchmark = [find_program("redis-benchmark", "redis-tools"), "-h", online.host.v4, "-p", PORT]
    options = ["-q", "-c", "20", "-r", "1000", "-t", "set,get,incr,lpush,sadd,hset,mset"]
    with recording(scenario) as path:
        real.client(*benchmark, *options, "-n", 2000)
        real.client(*benchmark, *options, "-n", 10000, "-P", 16)
    replay = replay_files(scenario, mode, "-i", path, *words.split())
    wait_until(lambda: target.progress() >= online.progress(), 10, 0.05)
    assert replay.exit_code == 0, replay.output
    assert online.calls()["set"] >= 12000
    assert online.calls() == target.calls()
    assert online.keys() == target.keys() > 1000
    assert online.digest() == target.digest()
    check_report(replay)
