"""Socket mode where this host lacks what a connect needs: every session arrives, and no storm."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.lab.scenario import PORT, Replay, Scenario, wait_until
from tests.netns.test_replay import check

pytestmark = pytest.mark.netns
# As Linux has it: TIME_WAIT lasts 60 s, and its ports are used again on the loopback only.
AS_LINUX = {"net/ipv4/tcp_tw_reuse": "2"}


def cpu_seconds(replay: Replay) -> tuple[float, float]:
    """User and system time of tcpcopy until now. Source: proc(5), stat."""
    stat = Path(f"/proc/{replay.tcpcopy.pid}/stat").read_text()
    fields = stat.rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / ticks, int(fields[12]) / ticks


def few_ports(scenario: Scenario, count: int, **others: str) -> None:
    """So many local ports on online, set up as Linux is."""
    settings = {"net/ipv4/ip_local_port_range": f"20000 {20000 + count - 1}", **AS_LINUX, **others}
    scenario.lab.online.sysctl(settings)


def test_more_connections_than_ports(scenario: Scenario) -> None:
    """Ports that rest after their connection are used again after a second."""
    few_ports(scenario, 300)
    scenario.servers()
    with scenario.replay("socket", "--no-check") as replay:
        scenario.load("--connections 900 --rate 600")
        scenario.wait_for_target(900, 20)
    check(scenario, replay, 900)
    ports = replay.report["ports"]
    assert ports["available"] == 300 and ports["reused"] > 100, ports


@pytest.mark.acceptance
def test_22_000_connections_with_10_000_ports(scenario: Scenario) -> None:
    """At most 4 s of system time, every stream exact."""
    few_ports(scenario, 10_000)
    scenario.servers()
    with scenario.replay("socket", "--no-check") as replay:
        scenario.load("--connections 22000 --concurrency 64", timeout=300)
        scenario.wait_for_target(22_000, 300)
        user, system = cpu_seconds(replay)
    print(f"22,000 connections, 10,000 ports: {user:.2f} s user, {system:.2f} s system time;"
          f" {replay.report['ports']}, {replay.report['duration_s']} s")  # fmt: skip
    check(scenario, replay, 22_000)
    assert system <= 4.0


@pytest.mark.acceptance
def test_22_000_connections_where_no_port_is_used_again(scenario: Scenario) -> None:
    """Without timestamps each port rests for 60 s, so the last sessions wait for two minutes."""
    few_ports(scenario, 10_000, **{"net/ipv4/tcp_timestamps": "0"})
    scenario.servers()
    with scenario.replay("socket", "--no-check") as replay:
        scenario.load("--connections 22000 --concurrency 64", timeout=300)
        scenario.wait_for_target(22_000, 300)
        user, system = cpu_seconds(replay)
    print(f"the same without timestamps: {user:.2f} s user, {system:.2f} s system time;"
          f" {replay.report['ports']}, {replay.report['duration_s']} s")  # fmt: skip
    check(scenario, replay, 22_000)
    assert system <= 4.0


def test_connections_that_wait_for_ports(scenario: Scenario) -> None:
    """More sessions at a time than ports: what has to wait goes on when others end."""
    few_ports(scenario, 200)
    scenario.servers(target=("--delay-ms 1500",))
    with scenario.replay("socket", "--no-check") as replay:
        scenario.load("--connections 500 --concurrency 100 --end server")
        assert wait_until(lambda: "200 of 200 local ports" in replay.output, 10), replay.output
        scenario.wait_for_target(500, 30)
        user, system = cpu_seconds(replay)
    check(scenario, replay, 500)
    report = replay.report
    assert report["ports"]["waited"] >= 250, report["ports"]
    assert report["send_errors"]["EADDRNOTAVAIL"] <= 100, report["send_errors"]
    assert system <= 1.0, (user, system)
    assert "warn  200 of 200 local ports" in replay.output


@pytest.mark.parametrize("family", [4, 6])
def test_several_addresses(scenario: Scenario, family: int) -> None:
    """Each of -c has ports of its own; one that has none left is passed over."""
    lab = scenario.lab
    few_ports(scenario, 100)
    own, other = (lab.online.v4, "10.66.0.12") if family == 4 else (lab.online.v6, "fd66::12")
    lab.online.ip(f"addr add {other}/{'16' if family == 4 else '64 nodad'} dev eth0")
    # A half of the ports of one address is taken by another program.
    taker = (
        "import socket, sys, time\n"
        "held = []\n"
        "for _ in range(50):\n"
        "    one = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)\n"
        "    one.setsockopt(0, 24, 1)  # IP_BIND_ADDRESS_NO_PORT\n"
        "    one.bind((sys.argv[2], 0))\n"
        "    one.connect((sys.argv[1], 8080))\n"
        "    held.append(one)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    target = lab.target.v4 if family == 4 else lab.target.v6
    scenario.serve(lab.online)
    scenario.serve(lab.target, "--delay-ms 1500")
    holder = lab.online.start([sys.executable, "-c", taker, target, own], name="taker")
    holder.wait_for("ready")
    shown = f"{PORT}-{target if family == 4 else f'[{target}]'}:{PORT}"
    arguments = ("--no-check", "-c", f"{own},{other}")
    with scenario.replay("socket", *arguments, transfer=shown) as replay:
        to = lab.online.v6 if family == 6 else ""
        scenario.load("--connections 140 --concurrency 70 --end server", to=to)
        scenario.wait_for_target(140, 20)
    holder.kill()
    check_besides(scenario, replay, 140)
    assert replay.report["ports"]["waited"] == 0, replay.report["ports"]
    assert replay.report["ports"]["most_used"] > 70


def check_besides(scenario: Scenario, replay: Replay, streams: int) -> None:
    """As `check`, but for connections of another program without a byte."""
    result = scenario.compare()
    assert result.exact == streams and not result.lost, result
    assert replay.exit_code == 0 and replay.report["sessions"]["replayed"] == streams
