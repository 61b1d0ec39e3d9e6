"""SYN floods that the online server survives: the copy does too, and makes no flood of its own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.account import status_number
from tcpcopy.demo.processes import Program
from tests.lab.compare import Stream
from tests.lab.scenario import PORT, Scenario, python, wait_until
from tests.lab.syn_flood import NETWORKS

pytestmark = pytest.mark.netns


def under_attack(scenario: Scenario, mode: str) -> None:
    """Online answers SYNs with cookies when it is flooded; the attackers' addresses are nobody's.

    What is answered to them goes to the clients' host, and, from the target, to where answers to
    clients go in this mode.
    """
    lab = scenario.lab
    lab.online.sysctl({
        "net/ipv4/tcp_syncookies": "1",
        "net/ipv4/tcp_max_syn_backlog": "128",
        "net/core/somaxconn": "1024",
    })  # fmt: skip
    lab.online.ip(f"route add {NETWORKS[4]} via {lab.client.v4}")
    via = lab.assistant if mode == "classic" else lab.client
    lab.target.ip(f"route add {NETWORKS[4]} via {via.v4}")
    if lab.ipv6:
        lab.online.ip(f"route add {NETWORKS[6]} via {lab.client.v6}")


def start_flood(scenario: Scenario, count: int, seconds: float, to: str = "") -> Program:
    """A flood that is ready and begins with SIGUSR1."""
    command = python(
        "tests.lab.syn_flood", to or scenario.lab.online.v4, PORT,
        "--count", count, "--seconds", seconds,
    )  # fmt: skip
    program = scenario.lab.client.start(command, name="flood", env=scenario.environment)
    program.wait_for(r"^ready", 60)
    return program


def finish_flood(program: Program, timeout: float) -> str:
    """How many SYNs were sent, and in what time."""
    assert program.wait(timeout) == 0
    return program.output().splitlines()[-1]


def split(streams: list[Stream]) -> tuple[list[Stream], list[Stream]]:
    """Connections with data, and those without any."""
    return [s for s in streams if s.bytes], [s for s in streams if not s.bytes]


def processes(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and its children have taken."""
    ticks = 0
    for one in processes(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def most_memory(pid: int) -> int:
    """The most that a process and its children have had resident, in MiB."""
    names = [Path(f"/proc/{one}/status") for one in processes(pid)]
    return sum(status_number(name.read_text(), "VmHWM") for name in names) >> 10


def attack(
    scenario: Scenario,
    mode: str,
    *,
    count: int,
    seconds: float,
    streams: int,
    arguments: tuple[object, ...] = (),
    words: str = "",
    servers: str = "",
    family: int = 4,
) -> dict[str, Any]:
    """Real streams and a flood at the same time; what came of it, and tcpcopy's report."""
    lab = scenario.lab
    under_attack(scenario, mode)
    scenario.servers(servers)
    to = lab.online.v6 if family == 6 else lab.online.v4
    transfer = f"{PORT}-[{lab.target.v6}]:{PORT}" if family == 6 else ""
    rate = streams / (seconds + 1)
    with scenario.replay(mode, *arguments, transfer=transfer) as replay:
        flood = start_flood(scenario, count, seconds, to)
        # Some before the flood, so that the filter may close; most during it.
        scenario.load(f"--connections 60 --seed 2 --requests 2 {words}", to=to)
        time.sleep(2.5)
        pid = replay.tcpcopy.pid
        before, little = cpu_seconds(pid), most_memory(pid)
        load = scenario.start_load(
            f"--connections {streams} --rate {rate} --requests 2 {words}", to=to
        )
        time.sleep(0.5)
        flood.send_signal(signal.SIGUSR1)
        sent = finish_flood(flood, 10 * seconds + 20)
        scenario.finish_load(load, 60)
        expected = streams + 60
        wait_until(lambda: len(split(scenario.target[0].snapshot())[0]) >= expected, 30, 0.2)
        wait_until(lambda: "SYN flood" in replay.output, 10)
        spent, peak = cpu_seconds(pid) - before, most_memory(pid)
        at_target = scenario.target[0].snapshot()
    online, _ = split(scenario.online[0].stop())
    real, empty = split(scenario.target[0].stop())
    wanted = sorted((s.sha256, s.ended) for s in online)
    got = sorted((s.sha256, s.ended) for s in real)
    report = replay.report
    figures = {
        "mode": mode,
        "sent": sent,
        "streams": len(online),
        "exact": sum(1 for one in got if one in set(wanted)) if got == wanted else -1,
        "real at target": len(real),
        "without a client": len(empty),
        "open at target": sum(1 for s in at_target if not s.bytes and s.ended == "open"),
        "cpu s": round(spent, 2),
        "MiB before": little,
        "peak MiB": peak,
        "kernel drops": report["kernel"]["dropped"],
        "captured": report["sessions"]["captured"],
        "incomplete": report["sessions"].get("incomplete"),
        "headline": report["headline"],
    }
    print(figures)
    return figures | {"report": report, "replay": replay, "expected": expected}


def check(found: dict[str, Any], count: int) -> None:
    """Every real stream exact, hardly a connection without a client, and the account of it."""
    report, replay = found["report"], found["replay"]
    assert found["exact"] == found["expected"], found
    assert found["without a client"] <= 100, found
    assert report["violations"] == []
    assert report["sessions"]["lost"] == 0, report["sessions"]
    assert replay.exit_code == (1 if found["kernel drops"] else 0), replay.output
    outcome = report["sessions"]["outcomes"]["handshake_incomplete"]
    assert outcome == report["sessions"]["incomplete"]
    # SYNs of real clients that online's backlog had no room for are sent again.
    assert count * 0.97 <= outcome <= count, found
    assert report["sessions"]["replayed"] == found["expected"]
    assert "SYN flood" in replay.output and "/s whose handshake never complete" in replay.output
    # Not all of a short one: its first and last second may be too little for a flood.
    assert report["syn_flood"]["attempts"] > count / 4
    assert "syn_flood" in {finding["key"] for finding in report["findings"]}


@pytest.mark.parametrize("mode", ["socket", "classic"])
def test_a_flood_leaves_the_replay_alone(scenario: Scenario, mode: str) -> None:
    found = attack(scenario, mode, count=4000, seconds=2, streams=200)
    check(found, 4000)


OTHER_WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "link": ("classic", {"arguments": ("-o", "eth0")}),
    "local": ("local", {}),
    "tunnel": ("tunnel", {}),
    "workers": ("socket", {"arguments": ("--workers", 2)}),
    "IPv6": ("socket", {"family": 6}),
    "server first": ("classic", {"words": "--greeting", "servers": "--greeting 50"}),
    "no acknowledgements": (
        "socket",
        {"arguments": ("-F", f"tcp dst port {PORT} and tcp[13] & 11 != 0")},
    ),
}


@pytest.mark.acceptance
@pytest.mark.parametrize(("way", "mode"), [(way, mode) for way, (mode, _) in OTHER_WAYS.items()])
def test_a_flood_in_every_other_way(scenario: Scenario, way: str, mode: str) -> None:
    found = attack(scenario, mode, count=25_000, seconds=5, streams=540, **OTHER_WAYS[way][1])
    check(found, 25_000)


@pytest.mark.acceptance
@pytest.mark.parametrize(("count", "seconds"), [(25_000, 5), (200_000, 10)])
@pytest.mark.parametrize("mode", ["socket", "classic"])
def test_floods_at_full_size(scenario: Scenario, mode: str, count: int, seconds: int) -> None:
    found = attack(scenario, mode, count=count, seconds=seconds, streams=1140)
    check(found, count)
