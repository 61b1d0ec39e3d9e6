"""The lab itself: what it says about traffic that needs no replay, good and broken."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tcpcopy.demo.netns import Lab, LabError, remove_leftovers
from tests.lab.scenario import ROOT, Scenario, environment, wait_until

KINDS = {
    "short": "--connections 300 --concurrency 50",
    "keep-alive": "--connections 20 --requests 20",
    "pipelined": "--connections 5 --requests 64 --pipeline 16",
    "uploads": "--connections 5 --requests 2 --request-bytes 1000000",
    "reset": "--connections 10 --requests 3 --end rst",
    "server first": "--connections 10 --requests 3 --end server",
    "half-close": "--connections 10 --requests 3 --end half-close --server-delay-ms 10",
}


def both_ways(scenario: Scenario, *arguments: object) -> None:
    """The same load to online and, by itself, to the target."""
    for host in (scenario.lab.online, scenario.lab.target):
        scenario.load(*arguments, to=host.v4)


@pytest.mark.parametrize("kind", KINDS)
def test_same_load_to_both_servers_is_exact(scenario: Scenario, kind: str) -> None:
    """Equal streams match one by one, whatever they look like and however they end."""
    scenario.servers()
    both_ways(scenario, KINDS[kind])
    assert scenario.wait_for_target()
    result = scenario.compare()
    assert result.clean, result
    assert result.exact == int(KINDS[kind].split()[1])


def test_ipv6_and_many_addresses(scenario: Scenario) -> None:
    """Clients come from all of their range, over both families."""
    online, _ = scenario.servers()
    sources = {"v4": "10.66.1.1-10.66.1.50", "v6": "fd66:1::1-fd66:1::32"}
    for version, source in sources.items():
        to = getattr(scenario.lab.online, version)
        scenario.load("--connections", 50, "--source", source, "--source-ports", 20000, to=to)
    peers = {stream.peer for stream in online.stop()}
    assert len(peers) == 100
    assert {port for _, port in peers} == {20000}


def test_broken_streams_are_told_apart(scenario: Scenario) -> None:
    """Lost, short, differently ended and extra streams are each called what they are."""
    scenario.servers()
    target = scenario.lab.target.v4
    scenario.load("--connections 4 --seed 1")
    scenario.load("--connections 3 --seed 1", to=target)  # one is lost
    scenario.load("--connections 2 --seed 2 --end half-close")
    cut = "--cut-last 7 --end half-close"
    scenario.load("--connections 2 --seed 2", cut, to=target)  # both too short
    scenario.load("--connections 5 --seed 3")
    scenario.load("--connections 5 --seed 3 --end rst", to=target)
    scenario.load("--connections 6 --seed 4", to=target)  # never at online
    assert scenario.wait_for_target(3 + 2 + 5 + 6)
    result = scenario.compare()
    assert result.exact == 3, result
    assert (len(result.lost), len(result.corrupt)) == (1, 2), result
    assert (len(result.ended_differently), len(result.extra)) == (5, 6), result
    assert all(b.bytes == a.bytes - 7 for a, b in result.corrupt)


def test_classic_routes_take_the_target_away_from_clients(scenario: Scenario) -> None:
    """Answers to client addresses go to the assistant, which drops them; and back again."""
    scenario.servers()
    lab = scenario.lab
    quick = "--connections 1 --duration 0.5 --tolerate"
    lab.classic()
    assert scenario.load(quick, to=lab.target.v4)["answers"] == 0
    assert scenario.load(quick, "--source", "10.66.1.9", to=lab.target.v4)["answers"] == 0
    assert scenario.load("--connections 1")["answers"] == 1
    lab.classic_off()
    assert scenario.load("--connections 1", to=lab.target.v4)["answers"] == 1
    assert scenario.load("--source", "10.66.1.9", to=lab.target.v4)["answers"] == 1


def test_loss_is_made_and_counted(scenario: Scenario) -> None:
    """A tenth of the packets is lost each way; TCP gets everything through."""
    scenario.servers()
    scenario.lab.lose(10, 10)
    both_ways(scenario, "--connections 20 --requests 5")
    lost = scenario.lab.lost()
    assert min(lost) > 10, lost
    scenario.lab.lose()
    assert scenario.lab.lost() == (0, 0)
    assert scenario.wait_for_target()
    result = scenario.compare()
    assert result.clean, result


def test_bad_link_does_what_it_says(scenario: Scenario) -> None:
    """Loss, second copies, overtaking and delay all happen, and the counts say so."""
    scenario.servers()
    link = scenario.bad_link("--lose 2 --duplicate 5 --reorder 5 --delay-ms 2 --hold-ms 3")
    target = scenario.load("--connections 10 --requests 50", to=scenario.lab.target.v4)
    scenario.load("--connections 10 --requests 50")
    assert target["latency_ms"]["p50"] >= 4, target
    uploads = "--seed 2 --connections 3 --request-bytes 300000"
    both_ways(scenario, uploads)
    assert scenario.wait_for_target()
    link.stop(signal.SIGTERM)
    counts = json.loads(link.output().splitlines()[-1])
    for way in ("to", "from"):
        assert min(counts[way].values()) > 0, counts
    assert counts["refused"] == 0
    result = scenario.compare()
    assert result.clean, result


def test_pause_and_hold_wait_for_the_signal(scenario: Scenario) -> None:
    """Half the requests before the signal, half after; held connections end with FIN after it."""
    online = scenario.serve(scenario.lab.online)
    load = scenario.start_load("--connections 5 --requests 6 --pause-after 3 --end hold")
    load.wait_for("^paused")
    assert [stream.requests for stream in online.snapshot()] == [3] * 5
    load.send_signal(signal.SIGUSR1)
    load.wait_for("^holding")
    assert {stream.ended for stream in online.snapshot()} == {"open"}
    load.send_signal(signal.SIGUSR1)
    scenario.finish_load(load)
    streams = online.stop()
    assert [(s.requests, s.ended) for s in streams] == [(6, "fin")] * 5


def test_ten_thousand_connections_at_once(scenario: Scenario) -> None:
    """Server and client hold them all; each is on record."""
    online = scenario.serve(scenario.lab.online)
    load = scenario.start_load("--connections 10000 --end hold")
    load.wait_for("^holding", 30)
    load.send_signal(signal.SIGUSR1)
    assert scenario.finish_load(load)["answers"] == 10000
    assert wait_until(lambda: online.count() == 10000, 10)


def test_nothing_is_left_after_the_lab(tmp_path: Path) -> None:
    """Programs, also those that became daemons, and namespaces are gone."""
    with Lab(tmp_path) as lab:
        sleeper = "import os, time\nif os.fork() == 0:\n os.setsid(); time.sleep(600)"
        lab.online.start([sys.executable, "-c", sleeper], name="daemon").wait(5)
        pids = lab.online.run("ip", "netns", "pids", lab.online.namespace).split()
        daemons = [pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists()]
        assert daemons
    assert lab.name not in subprocess.check_output(["ip", "netns", "list"], text=True)
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in daemons), 5)


def test_leftovers_of_a_killed_owner_are_removed() -> None:
    """A lab whose owner was killed goes with the next one; a living owner's stays."""
    owner = (
        "import time\nfrom tcpcopy.demo.netns import Lab\nlab = Lab(); lab.build()\n"
        "lab.online.start(['sleep', '600'], name='sleep')\n"
        "print(lab.name, lab.directory, flush=True)\ntime.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", owner],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=ROOT,
    )
    with process:
        assert process.stdout is not None
        name, directory = process.stdout.readline().split()
        assert not [left for left in remove_leftovers() if left.startswith(name)]
        assert Path(directory).is_dir()
        process.kill()
        process.wait()
        time.sleep(0.1)
        removed = [left for left in remove_leftovers() if left.startswith(name)]
    assert len(removed) == 6  # five namespaces and the directory
    assert not Path(directory).exists()
    assert name not in subprocess.check_output(["ip", "netns", "list"], text=True)


def test_program_that_does_not_come_up_is_named(lab: Lab) -> None:
    """The error says which program, on which host, and what it printed last."""
    program = lab.target.start([sys.executable, "-c", "print('no luck'); exit(3)"], name="broken")
    with pytest.raises(LabError, match=r"broken \(target\): ended with 3 before 'ready'\nno luck"):
        program.wait_for("ready")
