"""IPv6 in socket mode: each family to each, in mid-stream, and the forms of -x that name it."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import time

import pytest

from tcpcopy.demo.netns import Lab
from tests.lab.scenario import PORT, Scenario, environment, python
from tests.lab.script import sent
from tests.netns.test_replay import check

pytestmark = pytest.mark.netns
LOAD = "--connections 20 --requests 5 --request-bytes 10-20000"
STREAMS = 20


def address_of(lab: Lab, role: str, family: int) -> str:
    """An address of a host, as an option has it."""
    host = getattr(lab, role)
    return f"[{host.v6}]" if family == 6 else str(host.v4)


@pytest.mark.parametrize("target", [4, 6])
@pytest.mark.parametrize("client", [4, 6])
@pytest.mark.parametrize("workers", [1, 2])
def test_each_family_to_each(scenario: Scenario, client: int, target: int, workers: int) -> None:
    lab = scenario.lab
    scenario.servers()
    transfer = f"{PORT}-{address_of(lab, 'target', target)}:{PORT}"
    with scenario.replay("socket", "--workers", workers, transfer=transfer) as replay:
        scenario.load(LOAD, to=address_of(lab, "online", client).strip("[]"))
        scenario.wait_for_target()
    peer = {stream.peer[0] for stream in scenario.target[0].snapshot()}
    assert peer == {lab.online.v6 if target == 6 else lab.online.v4}
    check(scenario, replay, STREAMS)


@pytest.mark.parametrize("target", [4, 6])
def test_both_families_at_once(scenario: Scenario, target: int) -> None:
    lab = scenario.lab
    scenario.servers()
    transfer = f"{PORT}-{address_of(lab, 'target', target)}:{PORT}"
    with scenario.replay("socket", transfer=transfer) as replay:
        loads = [
            scenario.start_load(f"{LOAD} --seed {seed}", to=to)
            for seed, to in enumerate((lab.online.v4, lab.online.v6), 1)
        ]
        for load in loads:
            scenario.finish_load(load)
        scenario.wait_for_target()
    check(scenario, replay, 2 * STREAMS)


@pytest.mark.parametrize("target", [4, 6])
def test_picked_up_in_mid_stream(scenario: Scenario, target: int) -> None:
    """Connections that were open before: from their next request on, as with IPv4."""
    lab = scenario.lab
    scenario.servers()
    words = f"--connections {STREAMS} --requests 6 --pause-after 2"
    load = scenario.start_load(words, to=lab.online.v6)
    load.wait_for("paused")
    transfer = f"{PORT}-{address_of(lab, 'target', target)}:{PORT}"
    with scenario.replay("socket", transfer=transfer) as replay:
        load.send_signal(signal.SIGUSR1)
        scenario.finish_load(load)
        scenario.wait_for_target()
    assert replay.exit_code == 0, replay.output
    sessions = replay.report["sessions"]
    assert sessions["captured"] == sessions["replayed"] == sessions["midstream"] == STREAMS
    expected = sorted(hashlib.sha256(sent(words, n, 2)).hexdigest() for n in range(STREAMS))
    assert sorted(stream.sha256 for stream in scenario.target[0].stop()) == expected


def test_one_source_address_only(scenario: Scenario) -> None:
    """[IPv6]:port before the dash: what goes to the host's other addresses is not copied."""
    lab = scenario.lab
    lab.online.ip("addr add fd66::22/64 dev eth0 nodad")
    online = scenario.serve(lab.online)
    target = scenario.serve(lab.target)
    transfer = f"[{lab.online.v6}]:{PORT}-[{lab.target.v6}]:{PORT}"
    with scenario.replay("socket", transfer=transfer) as replay:
        for to in (lab.online.v4, "fd66::22"):
            scenario.load("--connections 5 --seed 2", to=to)
        scenario.load(LOAD, to=lab.online.v6)
        scenario.wait_for_target(STREAMS)
    time.sleep(0.1)
    assert len(online.stop()) == STREAMS + 10
    assert len(target.stop()) == STREAMS
    sessions = replay.report["sessions"]
    assert sessions["captured"] == sessions["replayed"] == STREAMS


def test_clients_on_loopback(scenario: Scenario) -> None:
    """-x [::1]:80-[...]:80: clients on online itself, each packet seen once."""
    lab = scenario.lab
    scenario.servers()
    transfer = f"[::1]:{PORT}-[{lab.target.v6}]:{PORT}"
    with scenario.replay("socket", transfer=transfer) as replay:
        scenario.load(LOAD, to="::1", host=lab.online)
        scenario.wait_for_target()
    check(scenario, replay, STREAMS)


def test_target_on_loopback(scenario: Scenario) -> None:
    lab = scenario.lab
    scenario.serve(lab.online)
    scenario.target.append(scenario.serve(lab.online, port=8081))
    scenario.online.pop()
    with scenario.replay("socket", transfer=f"{PORT}-[::1]:8081") as replay:
        scenario.load(LOAD, to=lab.online.v6)
        scenario.wait_for_target()
    check(scenario, replay, STREAMS)


@pytest.mark.parametrize(
    ("transfer", "problem"),
    [
        ("80-[fe80::1]:8080", "fe80::1 is a link-local address, of which each device has its own"),
        ("80-[fe80::1%eth0]:8080", "an address with a scope cannot be matched against packets"),
        ("[fe80::1%eth0]:80-10.66.0.3:8080", "an address with a scope cannot be matched"),
        ("80-fd66::3:8080", "an IPv6 address needs brackets"),
    ],
)
def test_forms_that_are_refused(lab: Lab, transfer: str, problem: str) -> None:
    done = subprocess.run(
        lab.online.command(python("tcpcopy.cli", "-x", transfer)),
        capture_output=True, text=True, timeout=20, check=False, env=environment(),
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done
    assert done.stderr.startswith(f"tcpcopy: -x {transfer}: ") and problem in done.stderr


def test_captured_by_a_link_local_address(scenario: Scenario) -> None:
    """Clients on the same link may use the server's: it is copied like any other."""
    lab = scenario.lab
    scenario.servers()
    shown = lab.online.run("ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "link")
    own = shown.split()[3].partition("/")[0]
    transfer = f"[{own}]:{PORT}-[{lab.target.v6}]:{PORT}"
    with scenario.replay("socket", transfer=transfer) as replay:
        scenario.load(LOAD, to=f"{own}%eth0")
        scenario.wait_for_target()
    check(scenario, replay, STREAMS)


@pytest.mark.parametrize("mode", ["socket", "classic"])
def test_packets_of_big_tcp(scenario: Scenario, mode: str) -> None:
    """Clients' packets of up to half a megabyte, as they come where BIG TCP is set up."""
    lab = scenario.lab
    for host in (lab.client, lab.online, lab.bridge):
        devices = [name for name in host.run("ls", "/sys/class/net").split() if name != "lo"]
        sizes = ("gso_max_size", "gro_max_size")
        host.ip(*(f"link set dev {device} {size} 500000" for device in devices for size in sizes))
    scenario.servers()
    with scenario.replay(mode, transfer=f"{PORT}-[{lab.target.v6}]:{PORT}") as replay:
        scenario.load("--connections 6 --requests 3 --request-bytes 3000000", to=lab.online.v6)
        scenario.wait_for_target(6, 30)
    result = scenario.compare()
    assert result.clean and result.exact == 6, f"{result}\n{replay.output}"
    packets, client_bytes = replay.report["packets"], replay.report["bytes"]
    assert replay.exit_code == 0 and client_bytes["captured"] > 50_000_000
    assert packets["captured"] < client_bytes["captured"] // 65_536, "the kernel made none"
