"""Capture at a switch's mirror port: the online host is elsewhere, frames are for others."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tcpcopy.demo.netns import Host, Lab
from tcpcopy.demo.processes import Program
from tests.lab.scenario import PORT, ROOT, Replay, Scenario, python, wait_until
from tests.netns.test_replay import check

pytestmark = pytest.mark.netns
LOAD = "--connections 30 --requests 20 --think-ms 1-5"
MIRROR = ("-i", "eth0", "--promiscuous")
ONLY_RAW = ("setpriv", "--bounding-set", "-all,+net_raw")


def add_mirror(lab: Lab) -> Host:
    """One more host, on a switch that now floods every frame to every port."""
    mirror = Host(lab, "mirror", 8)
    subprocess.run(["ip", "netns", "add", mirror.namespace], check=True)
    lab.hosts = (*lab.hosts, mirror)  # type: ignore[assignment]  # so that it is removed
    lab.bridge.ip(
        "link set br0 type bridge ageing_time 0",
        f"link add mirror type veth peer name eth0 netns {mirror.namespace}",
        "link set mirror master br0 up",
    )
    mirror.ip("link set lo up", "link set eth0 up", f"addr add {mirror.v4}/16 dev eth0")
    mirror.sysctl({f"net/ipv4/conf/{name}/rp_filter": "0" for name in ("all", "eth0")})
    return mirror


def promiscuity(host: Host) -> int:
    found = json.loads(host.run("ip", "-d", "-j", "link", "show", "eth0"))
    return int(found[0]["promiscuity"])


def start(scenario: Scenario, host: Host, *words: object, before: tuple[str, ...] = ()) -> Replay:
    """Start tcpcopy on a host that is not online."""
    report = Path(scenario.lab.directory, "mirror-report.json")
    command = [*before, *python("tcpcopy.cli", "--json", report), *map(str, words)]
    program: Program = host.start(command, name="tcpcopy", env=scenario.environment)
    program.wait_for(r"\bready\b", 20)
    return Replay(program, [], report)


def rule(scenario: Scenario, source: str = "") -> str:
    lab = scenario.lab
    return f"{source or lab.online.v4}:{PORT}-{lab.target.v4}:{PORT}"


@pytest.mark.parametrize("before", [(), ONLY_RAW], ids=["root", "CAP_NET_RAW only"])
def test_socket_mode(scenario: Scenario, before: tuple[str, ...]) -> None:
    """Sessions to the online host, seen from elsewhere, arrive exactly, and nothing else does."""
    mirror = add_mirror(scenario.lab)
    scenario.servers()
    replay = start(scenario, mirror, "-x", rule(scenario), *MIRROR, before=before)
    assert promiscuity(mirror) == 1
    scenario.load(LOAD)
    scenario.wait_for_target(30, 30)
    replay.stop()
    assert promiscuity(mirror) == 0
    check(scenario, replay, 30)


def test_guide(scenario: Scenario) -> None:
    """The command of docs/mirror-port.md, with the addresses of these hosts."""
    lab = scenario.lab
    mirror = add_mirror(lab)
    scenario.servers()
    text = (ROOT / "docs" / "mirror-port.md").read_text()
    line, tunnels = re.findall(r"^tcpcopy (-x .*)$", text, flags=re.M)
    assert tunnels.endswith(" --decapsulate")  # tests/netns/test_encapsulations.py
    places = {
        "10.0.0.1:80-": f"{lab.online.v4}:{PORT}-",
        "10.0.0.2:8080": f"{lab.target.v4}:{PORT}",
        "eth1": "eth0",
    }
    for written, here in places.items():
        assert written in line
        line = line.replace(written, here)
    replay = start(scenario, mirror, *line.split())
    scenario.load(LOAD)
    scenario.wait_for_target(30, 30)
    replay.stop()
    check(scenario, replay, 30)


def test_any_host(scenario: Scenario) -> None:
    """A rule without an address means any host's port, but not the target's: no loop, although
    the mirror port shows the replay's own frames as well."""
    mirror = add_mirror(scenario.lab)
    scenario.servers()
    transfer = f"{PORT}-{scenario.lab.target.v4}:{PORT}"
    replay = start(scenario, mirror, "-x", transfer, *MIRROR)
    scenario.load(LOAD)
    scenario.wait_for_target(30, 30)
    replay.stop()
    check(scenario, replay, 30)


@pytest.mark.parametrize("words", [(), ("-o", "eth0"), ("--workers", 2)], ids=str)
def test_classic_mode(scenario: Scenario, words: tuple[object, ...]) -> None:
    lab = scenario.lab
    mirror = add_mirror(lab)
    scenario.servers()
    lab.classic()
    intercept = scenario.start_intercept()
    relay = ("-s", lab.assistant.v4)
    replay = start(scenario, mirror, "-x", rule(scenario), *relay, *MIRROR, *words)
    replay.intercepts = [intercept]
    scenario.load(LOAD)
    scenario.wait_for_target(30, 30)
    replay.stop()
    check(scenario, replay, 30)


def test_device_is_left_as_it_was_even_after_kill(scenario: Scenario) -> None:
    mirror = add_mirror(scenario.lab)
    replay = start(scenario, mirror, "-x", rule(scenario), *MIRROR, "--workers", 2)
    assert promiscuity(mirror) == 2
    replay.tcpcopy.stop(signal.SIGKILL)
    assert wait_until(lambda: promiscuity(mirror) == 0, 5)


def test_not_unless_asked(scenario: Scenario) -> None:
    mirror = add_mirror(scenario.lab)
    replay = start(scenario, mirror, "-x", rule(scenario), "-i", "eth0")
    assert promiscuity(mirror) == 0
    replay.stop()
