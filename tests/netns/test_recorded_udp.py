"""UDP out of files: every datagram of every flow that was recorded, at any speed, in any mode.

Socket mode runs without any capability.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tcpcopy.demo.netns import Host
from tests.lab.datagrams import Record, differences
from tests.lab.real.dnsmasq import Dnsmasq
from tests.lab.real.service import RealServers, find_program, real_servers
from tests.lab.recording import BOTH, UNPRIVILEGED, recording
from tests.lab.scenario import PORT, Replay, Scenario, python, wait_until
from tests.netns.test_udp import UdpServer, check_counts, load, reach

pytestmark = pytest.mark.netns

MODES = ["socket", "packet"]
SPEEDS = [
    "-a 1",
    "--fast",
    "-T 2",
    *(pytest.param(speed, marks=pytest.mark.acceptance) for speed in ("-a 10", "--fast -T 2")),
]


def record(scenario: Scenario, words: str, *, to: str = "", tcp: str = "") -> tuple[Path, Record]:
    """Datagrams (and TCP connections) to online alone: the file, and what online got."""
    server = UdpServer(scenario, scenario.lab.online)
    if to:
        reach(scenario.lab.client, to)
    with recording(scenario, expression=BOTH) as path:
        sent = load(scenario, words, to=to)["sent"]
        if tcp:
            scenario.load(tcp)
    online = server.stop()
    assert sum(map(len, online.values())) == sent, "the online server lost some itself"
    return path, online


def start(scenario: Scenario, mode: str, *arguments: object, to: str = "") -> Replay:
    """Start to replay files; "packet": with the clients' addresses."""
    lab = scenario.lab
    report = lab.directory / f"report-{len(lab.programs)}.json"
    rule = f"{PORT}-{to or lab.target.v4}:{PORT}"
    words = [word for argument in arguments for word in str(argument).split()]
    command = python("tcpcopy.cli", "--json", report, "-x", rule, *words)
    if "--transport" not in words:
        command.append("--udp")
    if mode == "packet":
        lab.classic(None)
        command += ["-s", lab.assistant.v4]
        for address in (lab.target.v4, lab.target.v6):
            reach(lab.online, address)
    else:
        command = [*UNPRIVILEGED, *command]
    return Replay(lab.online.start(command, name="tcpcopy", env=scenario.environment), [], report)


def replayed(
    scenario: Scenario, mode: str, path: Path, *arguments: object, to: str = ""
) -> tuple[Replay, Record]:
    """Replay a file to its end: what the target got. tcpcopy ends by itself."""
    server = UdpServer(scenario, scenario.lab.target)
    replay = start(scenario, mode, "-i", path, *arguments, to=to)
    replay.exit_code = replay.tcpcopy.wait(60)
    return replay, server.stop()


def check(mode: str, replay: Replay, online: Record, target: Record, passes: int = 1) -> None:
    """Everything arrived, in each pass, and the report says so."""
    if mode == "packet":  # the same clients in each pass
        assert online.keys() == target.keys()
        fault = differences({peer: sent * passes for peer, sent in online.items()}, target)
    else:
        fault = differences(online, target, passes)
    assert not fault and replay.exit_code == 0, f"{fault}\n{replay.output}"
    check_counts(replay.report)
    udp, files = replay.report["udp"], replay.report["files"]
    datagrams = sum(map(len, online.values())) * passes
    assert udp["flows"]["captured"] == udp["flows"]["outcomes"]["replayed"] == len(online) * passes
    assert udp["datagrams"]["sent"] == datagrams
    assert files["passes"] == passes and files["bytes_read"] == files["bytes_total"]
    if mode == "socket":
        assert udp["answers"]["received"] == datagrams
        assert udp["flows"]["answered"] == udp["flows"]["captured"]


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("mode", MODES)
def test_every_datagram(scenario: Scenario, mode: str, speed: str) -> None:
    """Small ones, none at all, and those in fragments."""
    sizes = "0,100,20,1472,1473,9000,700"
    path, online = record(scenario, f"--flows 40 --datagrams 3000 --rate 1500 --sizes {sizes}")
    replay, target = replayed(scenario, mode, path, speed)
    check(mode, replay, online, target, 2 if "-T 2" in speed else 1)


@pytest.mark.parametrize("mode", MODES)
def test_ipv6_and_the_longest(scenario: Scenario, mode: str) -> None:
    lab = scenario.lab
    words = "--flows 10 --datagrams 200 --rate 300 --sizes 0,1452,1453,65507,9000,8"
    path, online = record(scenario, words, to=lab.online.v6)
    replay, target = replayed(scenario, mode, path, "--fast", to=f"[{lab.target.v6}]")
    check(mode, replay, online, target)


@pytest.mark.parametrize("mode", MODES)
def test_many_flows_as_fast_as_answered(scenario: Scenario, mode: str) -> None:
    words = "--flows 1000 --datagrams 20000 --rate 20000 --source 10.66.1.1-10.66.1.50"
    path, online = record(scenario, words)
    replay, target = replayed(scenario, mode, path, "--fast")
    check(mode, replay, online, target)


@pytest.mark.parametrize("speed", ["-a 1", "-a 10", "--fast", "-T 2"])
def test_tcp_in_the_same_file(scenario: Scenario, speed: str) -> None:
    scenario.servers()
    path, online = record(
        scenario, "--flows 30 --datagrams 1000 --rate 2000", tcp="--connections 50 --requests 10"
    )
    passes = 2 if "-T 2" in speed else 1
    replay, target = replayed(scenario, "socket", path, "--transport both", speed)
    scenario.wait_for_target(50 * passes, 10)
    check("socket", replay, online, target, passes)
    result = scenario.compare(copies=passes)
    assert result.clean and result.exact == 50 * passes, f"{result}\n{replay.output}"
    files, report = replay.report["files"], replay.report
    taken = report["packets"]["captured"] + report["udp"]["packets"]["captured"]
    assert files["packets"] == files["left_out"] + taken


def test_times_are_as_recorded(scenario: Scenario) -> None:
    """-a 2: the pauses between datagrams are half as long."""
    path, online = record(scenario, "--flows 1 --datagrams 100 --rate 50")
    replay, target = replayed(scenario, "socket", path, "-a", 2)
    check("socket", replay, online, target)
    (there,), (here,) = (list(record.values()) for record in (online, target))
    off = sorted(abs((b[2] - here[0][2]) * 2 - (a[2] - there[0][2]))
                 for a, b in zip(there, here, strict=True))  # fmt: skip
    assert off[len(off) // 2] < 10_000_000 and off[-1] < 200_000_000, off[-5:]


def test_more_flows_than_ports(scenario: Scenario) -> None:
    """Reading waits until a flow has been quiet: none is left out."""
    path, online = record(scenario, "--flows 900 --datagrams 900 --rate 1e9")
    scenario.lab.online.sysctl({"net/ipv4/ip_local_port_range": "40000 40199"})
    replay, target = replayed(scenario, "socket", path, "--fast")
    assert replay.exit_code == 0, replay.output
    # Ports are used again: a flow is no longer told by them.
    assert sorted(d[:2] for f in online.values() for d in f) == sorted(
        d[:2] for f in target.values() for d in f
    )
    check_counts(replay.report)
    flows = replay.report["udp"]["flows"]
    assert flows["outcomes"]["replayed"] == 900 and flows["peak"] <= 200


def test_a_target_that_is_silent(scenario: Scenario) -> None:
    """--fast does not wait for answers that never come."""
    path, online = record(scenario, "--flows 50 --datagrams 5000 --rate 20000")
    server = UdpServer(scenario, scenario.lab.target, answer=-1)
    replay = start(scenario, "socket", "-i", path, "--fast")
    assert replay.tcpcopy.wait(20) == 0, replay.output
    assert not differences(online, server.stop())
    check_counts(replay.report)
    assert replay.report["duration_s"] < 4


def test_a_target_that_is_down(scenario: Scenario) -> None:
    path, online = record(scenario, "--flows 20 --datagrams 200")
    replay = start(scenario, "socket", "-i", path, "--fast")
    assert replay.tcpcopy.wait(20) == 1, replay.output
    check_counts(replay.report)
    assert replay.report["udp"]["flows"]["outcomes"]["refused"] == len(online)


def test_the_server_that_was_recorded(scenario: Scenario) -> None:
    """Nothing that is sent gets into a file: it may be the target."""
    lab = scenario.lab
    path, online = record(scenario, "--flows 20 --datagrams 400")
    server = UdpServer(scenario, lab.online)
    replay = start(scenario, "socket", "-i", path, to=lab.online.v4)
    assert replay.tcpcopy.wait(20) == 0, replay.output
    assert not differences(online, server.stop())


def test_a_signal_ends_a_replay(scenario: Scenario) -> None:
    path, _ = record(scenario, "--flows 5 --datagrams 300 --rate 100")
    server = UdpServer(scenario, scenario.lab.target)
    replay = start(scenario, "socket", "-i", path)
    replay.tcpcopy.wait_for(r"\bready\b")
    assert not wait_until(lambda: not replay.tcpcopy.alive, 1)
    assert replay.stop() == 0, replay.output
    check_counts(replay.report)
    udp = replay.report["udp"]
    assert udp["flows"]["outcomes"]["replayed"] == udp["flows"]["captured"] == 5
    assert 0 < udp["datagrams"]["sent"] == sum(map(len, server.stop().values())) < 300


def receive_errors(host: Host) -> int:
    """Datagrams that found no room in their socket's buffer. Source: RFC 4113, Linux snmp.c."""
    names, values = (
        line.split()[1:]
        for line in host.run("cat", "/proc/net/snmp").splitlines()
        if line.startswith("Udp:")
    )
    return int(values[names.index("RcvbufErrors")])


# -- a real server ----------------------------------------------------------------------------


@pytest.fixture
def real(scenario: Scenario) -> Iterator[RealServers]:
    """Pairs of real servers in `lab`."""
    with real_servers(scenario) as real:
        yield real


@pytest.mark.parametrize("speed", ["-a 1", "-a 10", "--fast"])
@pytest.mark.parametrize("mode", MODES)
def test_dns_out_of_a_file(scenario: Scenario, real: RealServers, mode: str, speed: str) -> None:
    """dig and dnsperf against online, recorded: the target's query log comes to be the same."""
    find_program("dig", "bind9-dnsutils")
    find_program("dnsperf", "dnsperf")
    lab = real.lab
    online, target = real.start(Dnsmasq)
    draw = random.Random(4)
    names = [f"host{draw.randrange(10_000)}.example" for _ in range(3000)]
    questions = real.directory / "questions"
    questions.write_text("".join(f"{name} {draw.choice(('A', 'AAAA'))}\n" for name in names))
    with recording(scenario, expression=BOTH) as path:
        server = ("-p", str(PORT), f"@{lab.online.v4}")
        for name in ("one.example", "two.example"):
            assert real.client("dig", *server, "+short", name).split() == ["10.1.2.3"]
        out = real.client(
            "dnsperf", "-s", lab.online.v4, "-p", PORT, "-d", questions, "-c", 20, "-n", 1,
            "-Q", 2000,
        )  # fmt: skip
        assert "Queries lost:         0" in out, out
    assert wait_until(lambda: online.progress() == 3002, 10)
    replay = start(scenario, mode, "-i", path, speed)
    assert replay.tcpcopy.wait(60) == 0, replay.output
    overrun = receive_errors(lab.target)
    wait_until(lambda: target.progress() + overrun >= 3002, 5)
    missing = online.queries() - target.queries()
    assert not target.queries() - online.queries()
    # dnsmasq asks for no larger buffer: what comes faster than it reads, its kernel throws away.
    assert missing.total() == overrun, replay.output
    if speed == "-a 1" or (mode, speed) == ("socket", "--fast"):
        assert not overrun, replay.output
    check_counts(replay.report)
    udp = replay.report["udp"]
    assert udp["datagrams"]["sent"] == 3002
    if mode == "socket":
        assert udp["answers"]["received"] == 3002 - overrun
