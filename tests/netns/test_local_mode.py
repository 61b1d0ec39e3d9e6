"""Local mode: what it makes on the host, what it leaves, whom it refuses, and all kinds of traffic.

The plain scenarios run in local mode in test_replay.py, real servers in test_real_servers.py.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tcpcopy.demo.netns import Lab
from tests.lab.datagrams import differences
from tests.lab.recording import recording
from tests.lab.scenario import LOCAL_PORT, PORT, Scenario, python, wait_until
from tests.netns.test_replay import check
from tests.netns.test_udp import UdpServer, check_counts
from tests.netns.test_workers import workers_of

pytestmark = pytest.mark.netns
TO_LOCAL = f"{PORT}-127.0.0.1:{LOCAL_PORT}"


@pytest.fixture
def scenario(lab: Lab) -> Scenario:
    """The target is a second server of the online host, on 127.0.0.1."""
    return Scenario(lab, one_host=True)


def state(scenario: Scenario) -> str:
    """What routing and devices of the online host look like, but for counters."""
    ip = scenario.lab.online.run
    shown = [("ip", "-o", "link"), ("ip", "rule"), ("ip", "-6", "rule")]
    shown += [
        ("ip", "route", "show", "table", "all"),
        ("ip", "-6", "route", "show", "table", "all"),
    ]
    shown.append(("sh", "-c", "head /proc/sys/net/ipv4/conf/*/r[po]*"))
    # Addresses of the link come when the kernel has tried them, at any time.
    text = "\n".join(ip(*words) for words in shown)
    return "\n".join(line for line in text.splitlines() if "fe80" not in line)


def peers(scenario: Scenario) -> set[str]:
    """Addresses that the target's server saw."""
    return {stream.peer[0].removeprefix("::ffff:") for stream in scenario.target[0].stop()}


@contextmanager
def refused(scenario: Scenario, *arguments: object) -> Iterator[str]:
    """Start tcpcopy with these arguments; what it says when it refuses, in one line."""
    replay = scenario.start_tcpcopy(*arguments, wait=False)
    assert replay.tcpcopy.wait(10) == 2, replay.output
    assert replay.output.count("\n") == 1, replay.output
    yield replay.output


def serve_at(scenario: Scenario, address: str) -> None:
    """A server on online, and the target on another address and port of that host."""
    scenario.serve(scenario.lab.online)
    server = scenario.serve(scenario.lab.online, "--address", address, port=LOCAL_PORT)
    scenario.online.remove(server)
    scenario.target.append(server)


# What is made and what is left.


def test_nothing_is_left(scenario: Scenario) -> None:
    """Device, route and settings are there while it runs, and gone when it ends; nothing else."""
    before = state(scenario)
    scenario.servers()
    with scenario.replay("local") as replay:
        during = state(scenario)
        scenario.load("--connections 20 --requests 3")
        scenario.wait_for_target(20)
    assert "198.18.0.0/15 dev tcpcopy0" in during
    added = [line for line in during.splitlines() if line not in before]
    assert all("tcpcopy0" in line for line in added if "dev" in line), added
    assert during.count("conf/lo/rp_filter <==\n1") == 1
    assert peers(scenario) <= {f"198.{18 + n}.{a}.{b}" for n in (0, 1) for a in range(256)
                               for b in range(1, 255)}  # fmt: skip
    check(scenario, replay, 20)
    assert replay.report["mode"] == "local"
    assert state(scenario) == before


@pytest.mark.parametrize("clients", [(), ("-c", "keep")], ids=["range", "kept"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended(scenario: Scenario, clients: tuple[str, ...], number: int) -> None:
    """SIGTERM leaves nothing. What SIGKILL leaves, rules that lead nowhere, goes with the next run,
    which replays all.
    """
    before = state(scenario)
    scenario.servers()
    first = scenario.start_tcpcopy("-x", TO_LOCAL, "--local", *clients)
    load = scenario.start_load("--connections 5 --requests 30 --think-ms 20-60")
    time.sleep(0.5)
    first.tcpcopy.send_signal(number)
    first.tcpcopy.wait(15)
    left = state(scenario)
    if number == signal.SIGTERM or not clients:
        assert left == before
    else:
        assert "tcpcopy0" not in left and f"sport {LOCAL_PORT}" in left
    scenario.finish_load(load)
    scenario.online[0].stop()
    scenario.target[0].stop()
    scenario.online.clear()
    scenario.target.clear()
    scenario.servers()
    with scenario.replay("local", *clients) as replay:
        scenario.load("--connections 20 --requests 3")
        scenario.wait_for_target(20)
    check(scenario, replay, 20)
    assert state(scenario) == before


def test_two_at_once(scenario: Scenario) -> None:
    """The second is refused the range of the first, and takes another; the first is not touched."""
    scenario.servers()
    with scenario.replay("local") as first:
        with refused(scenario, "-x", TO_LOCAL, "--local") as line:
            assert "-c 198.18.0.0/15" in line and "tcpcopy0" in line and "another range" in line
        with scenario.replay("local", "-c", "10.254.0.0/16") as second:
            assert "10.254.0.0/16 dev tcpcopy1" in state(scenario)
            scenario.load("--connections 20 --requests 3")
            scenario.wait_for_target(40)
        assert "198.18.0.0/15 dev tcpcopy0" in state(scenario)
    assert second.exit_code == 0, second.output
    result = scenario.compare(copies=2)
    assert result.clean and result.exact == 40, result
    assert first.exit_code == 0, first.output


def test_two_that_keep_addresses(scenario: Scenario) -> None:
    """Two towards one target would share the answers: the second is refused, whoever the first."""
    scenario.servers()
    with scenario.replay("local", "-c", "keep") as replay:
        words = ("-x", TO_LOCAL, "--local", "-c", "keep,10.254.0.0/16")
        with refused(scenario, *words) as line:
            assert "another tcpcopy" in line
        scenario.load("--connections 10 --requests 3")
        scenario.wait_for_target(10)
    check(scenario, replay, 10)


# Who the clients are.


def test_clients_keep_their_addresses(scenario: Scenario) -> None:
    """-c keep: the target sees the clients' own addresses and ports; the clients hear nothing."""
    online, target = scenario.servers()
    client = scenario.lab.client
    watch = client.start(
        ["tcpdump", "-ni", "eth0", "--immediate-mode", "-l", f"tcp port {LOCAL_PORT}"], name="watch"
    )
    watch.wait_for("listening on")
    with scenario.replay("local", "-c", "keep") as replay:
        scenario.load("--connections 40 --requests 3 --source 10.66.1.1-10.66.1.5")
        scenario.wait_for_target(40)
    time.sleep(0.3)
    assert sorted(s.peer for s in online.stop()) == sorted(s.peer for s in target.stop())
    watch.stop(signal.SIGINT)
    assert "0 packets captured" in watch.output(), watch.output()
    check(scenario, replay, 40)


def test_clients_of_this_host_cannot_keep_theirs(scenario: Scenario) -> None:
    """-c keep: clients on lo and on an address of this host get one of the range."""
    scenario.servers()
    lab = scenario.lab
    with scenario.replay("local", "-c", "keep") as replay:
        scenario.load("--connections 10 --requests 3", to="127.0.0.1", host=lab.online)
        scenario.load("--connections 10 --requests 3 --seed 2", host=lab.online)
        scenario.load("--connections 10 --requests 3 --seed 3")
        scenario.wait_for_target(30)
    seen = peers(scenario)
    assert lab.client.v4 in seen
    assert all(address.startswith(("198.18.", "198.19.")) for address in seen - {lab.client.v4})
    check(scenario, replay, 30)


def test_other_connections_of_the_target_port(scenario: Scenario) -> None:
    """-c keep diverts what 127.0.0.1:PORT answers, and nothing else of that port."""
    lab = scenario.lab
    scenario.servers()
    other = scenario.serve(lab.online, port=LOCAL_PORT + 1)
    with scenario.replay("local", "-c", "keep") as replay:
        scenario.load("--connections 5", to="127.0.0.1", port=LOCAL_PORT, host=lab.online)
        scenario.load("--connections 5 --seed 3", port=LOCAL_PORT + 1)
        scenario.load("--connections 10 --requests 3 --seed 2")
        scenario.wait_for_target(15)
    assert len(other.stop()) == 5
    assert replay.report["sessions"]["replayed"] == 10
    assert len(scenario.target[0].stop()) == 15


# Where the target is.


def test_same_port_on_another_address(scenario: Scenario) -> None:
    """Online and target on one port of two addresses, captured on all devices, clients on lo, too:
    what is replayed is not captured again.
    """
    lab = scenario.lab
    scenario.serve(lab.online, f"--address {lab.online.v4}")
    records = scenario.serve(lab.online, "--address 127.0.0.1")
    transfer = f"{lab.online.v4}:{PORT}-127.0.0.1:{PORT}"
    with scenario.replay("local", transfer=transfer) as replay:
        scenario.load("--connections 20 --requests 5")
        scenario.load("--connections 20 --requests 5 --seed 2", host=lab.online)
        assert wait_until(lambda: records.count() >= 40, 20)
    report = replay.report["sessions"]
    assert report["captured"] == report["replayed"] == 40, replay.output
    online, target_streams = scenario.online[0].stop(), records.stop()
    assert sorted(s.sha256 for s in online) == sorted(s.sha256 for s in target_streams)


@pytest.mark.parametrize("target", ["[::1]", "[fd66::2]", "10.66.0.2"])
@pytest.mark.parametrize("clients", ["range", "keep"])
def test_other_addresses(scenario: Scenario, target: str, clients: str) -> None:
    """The target on ::1, which the kernel takes from lo alone, and on addresses of a device."""
    lab = scenario.lab
    serve_at(scenario, target.strip("[]"))
    words = ("-c", "keep") if clients == "keep" else ()
    is_v6 = "[" in target
    with scenario.replay("local", *words, transfer=f"{PORT}-{target}:{LOCAL_PORT}") as replay:
        to = lab.online.v6 if is_v6 else lab.online.v4
        scenario.load("--connections 20 --requests 5 --request-bytes 10-40000", to=to)
        scenario.wait_for_target(20)
    seen = peers(scenario)
    if clients == "keep":
        assert seen == {lab.client.v6 if is_v6 else lab.client.v4}
    else:
        wanted = ("fd00:7463:7063:",) if is_v6 else ("198.18.", "198.19.")
        assert all(address.startswith(wanted) for address in seen)
    check(scenario, replay, 20)


def test_v4_clients_of_a_v6_target(scenario: Scenario) -> None:
    """With a range the families need not agree."""
    serve_at(scenario, "::1")
    with scenario.replay("local", transfer=f"{PORT}-[::1]:{LOCAL_PORT}") as replay:
        scenario.load("--connections 20 --requests 5")
        scenario.wait_for_target(20)
    check(scenario, replay, 20)


# Where the traffic comes from, and how it is shared.


@pytest.mark.parametrize("speed", ["-a 1", "--fast"])
def test_files(scenario: Scenario, speed: str) -> None:
    """What was recorded is replayed to a server here."""
    scenario.servers()
    with recording(scenario) as path:
        scenario.load("--connections 200 --requests 3 --concurrency 50")
    replay = scenario.start_tcpcopy("-x", TO_LOCAL, "--local", "-i", path, *speed.split())
    replay.exit_code = replay.tcpcopy.wait(60)
    scenario.wait_for_target(200, 5)
    check(scenario, replay, 200)


@pytest.mark.parametrize("copies", [1, 3])
def test_workers(scenario: Scenario, copies: int) -> None:
    """Two workers: a device for each, with a half of the range."""
    scenario.servers()
    before = state(scenario)
    with scenario.replay("local", "--workers", 2, "-n", copies) as replay:
        during = state(scenario)
        assert "198.18.0.0/16 dev tcpcopy" in during and "198.19.0.0/16 dev tcpcopy" in during
        scenario.load("--connections 300 --requests 5 --concurrency 50")
        scenario.wait_for_target(300 * copies, 30)
    check(scenario, replay, 300, copies=copies)
    assert state(scenario) == before


def test_a_worker_that_is_killed(scenario: Scenario) -> None:
    """Its device goes with it; the one that takes its place has a new one, and goes on."""
    scenario.servers()
    with scenario.replay("local", "--workers", 2) as replay:
        scenario.load("--connections 100 --requests 2")
        scenario.wait_for_target(100)
        os.kill(workers_of(replay)[0], signal.SIGKILL)
        assert wait_until(lambda: len(workers_of(replay)) == 3, 10), replay.output
        time.sleep(0.3)
        scenario.load("--connections 100 --requests 2 --seed 2")
        scenario.wait_for_target(200)
    result = scenario.compare()
    assert result.clean and result.exact == 200, f"{result}\n{replay.output}"


def test_files_without_the_right_to_capture(scenario: Scenario) -> None:
    """CAP_NET_ADMIN alone is enough for a file and a target on 127.0.0.1."""
    scenario.servers()
    with recording(scenario) as path:
        scenario.load("--connections 20 --requests 3")
    prefix = ("setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all", "--no-new-privs")
    words = ("-x", TO_LOCAL, "--local", "-i", path)
    replay = scenario.start_tcpcopy(*words, prefix=prefix)
    replay.exit_code = replay.tcpcopy.wait(60)
    scenario.wait_for_target(20, 5)
    check(scenario, replay, 20)


# UDP. Most often the target is a host of its own, where tcpcopy makes its device: --send-netns.


def send(scenario: Scenario, words: str) -> None:
    """Datagrams from the client to online."""
    command = python("tests.lab.datagrams", "send", scenario.lab.online.v4, PORT, *words.split())
    program = scenario.lab.client.start(command, name="udp", env=scenario.environment)
    assert program.wait(60) == 0, program.output()


@pytest.mark.parametrize("clients", ["range", "keep"])
def test_datagrams_to_a_server_on_all_addresses(scenario: Scenario, clients: str) -> None:
    """It is reached on 127.0.0.1 and answers from another address: the answers are counted."""
    online = UdpServer(scenario, scenario.lab.online)
    target = UdpServer(scenario, scenario.lab.online, LOCAL_PORT)
    words = ("-c", "keep") if clients == "keep" else ()
    with scenario.replay("local", "--udp", *words) as replay:
        send(scenario, "--flows 50 --datagrams 1000 --rate 2000 --sizes 0,10,1472,9000,65507")
        time.sleep(0.3)
    assert not differences(online.stop(), target.stop()), replay.output
    assert replay.exit_code == 0, replay.output
    assert replay.report["udp"]["answers"]["received"] == 1000


@pytest.mark.parametrize("clients", ["range", "keep"])
@pytest.mark.parametrize("copies", [1, 3])
def test_datagrams(scenario: Scenario, clients: str, copies: int) -> None:
    """Each datagram of each flow once for each copy, in order, and each answer counted."""
    scenario.one_host = False
    lab = scenario.lab
    servers = UdpServer(scenario, lab.online), UdpServer(scenario, lab.target)
    words = ("-c", "keep") if clients == "keep" else ()
    with scenario.replay("local", "--udp", "-n", copies, *words) as replay:
        send(scenario, "--flows 200 --datagrams 4000 --rate 2500 --sizes 0,10,1473,65507")
        time.sleep(0.3)
    online, target = servers[0].stop(), servers[1].stop()
    assert not differences(online, target, copies), replay.output
    assert replay.exit_code == 0, replay.output
    check_counts(replay.report)
    sent = sum(map(len, online.values()))
    assert sent == 4000
    assert replay.report["udp"]["answers"]["received"] == sent * copies
    assert replay.report["udp"]["answers"]["bytes"] == sent * copies * 32
    if clients == "keep" and copies == 1:
        assert online.keys() == target.keys()


def test_datagrams_to_a_closed_port(scenario: Scenario) -> None:
    """The host says that nobody listens: each flow is counted as refused."""
    scenario.one_host = False
    server = UdpServer(scenario, scenario.lab.online)
    with scenario.replay("local", "--udp") as replay:
        send(scenario, "--flows 40 --datagrams 400 --rate 1000")
    assert sum(map(len, server.stop().values())) == 400
    assert replay.exit_code == 1
    assert replay.report["udp"]["flows"]["outcomes"]["refused"] == 40


def test_both_transports(scenario: Scenario) -> None:
    """--transport both: one device for all."""
    scenario.one_host = False
    scenario.servers()
    lab = scenario.lab
    servers = UdpServer(scenario, lab.online), UdpServer(scenario, lab.target)
    with scenario.replay("local", "--transport", "both") as replay:
        send(scenario, "--flows 50 --datagrams 1000")
        scenario.load("--connections 50 --requests 10")
        scenario.wait_for_target(50)
    assert not differences(servers[0].stop(), servers[1].stop())
    assert replay.exit_code == 0, replay.output
    assert scenario.compare().exact == 50


# What is refused, and what is said.


def test_ranges_of_real_hosts(scenario: Scenario) -> None:
    """A range that holds an address of this host, or one that it has a route to, is refused."""
    for clients, said in (
        ("10.66.0.0/24", "an address of this host, 10.66.0.2"),
        ("10.66.1.0/28", "has a route to 10.66.0.0/16 already"),
        ("127.5.0.0/16", "has a route to 127.0.0.0/8 already"),
    ):
        with refused(scenario, "-x", TO_LOCAL, "--local", "-c", clients) as line:
            assert said in line and "-c another range" in line, line


def test_targets_of_other_hosts(scenario: Scenario) -> None:
    transfer = f"{PORT}-{scenario.lab.target.v4}:{PORT}"
    with refused(scenario, "-x", transfer, "--local") as line:
        assert "is not an address of this host" in line and "socket mode" in line


def test_without_the_capability(scenario: Scenario) -> None:
    """CAP_NET_RAW is not enough: one line says so, and nothing is left."""
    before = state(scenario)
    prefix = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    replay = scenario.start_tcpcopy("-x", TO_LOCAL, "--local", wait=False, prefix=prefix)
    assert replay.tcpcopy.wait(10) == 2
    assert "CAP_NET_ADMIN" in replay.output and replay.output.count("\n") == 1, replay.output
    assert state(scenario) == before


def test_rules_that_lead_elsewhere(scenario: Scenario) -> None:
    """A rule of the host that comes first would lead answers away: refused, not lost."""
    scenario.lab.online.ip("route add default via 10.66.0.3 table 99", "rule add pref 100 table 99")
    before = state(scenario)
    with refused(scenario, "-x", TO_LOCAL, "--local") as line:
        assert "-c 198.18.0.0/15" in line and "leads it elsewhere" in line
    with refused(scenario, "-x", TO_LOCAL, "--local", "-c", "keep") as line:
        assert "elsewhere than to tcpcopy0" in line
    assert state(scenario) == before


def test_ipv6_is_off_for_new_devices(scenario: Scenario) -> None:
    """As in many containers: the device has it all the same."""
    lab = scenario.lab
    serve_at(scenario, "::1")
    lab.online.sysctl({"net/ipv6/conf/default/disable_ipv6": "1"})
    with scenario.replay("local", transfer=f"{PORT}-[::1]:{LOCAL_PORT}") as replay:
        scenario.load("--connections 10 --requests 3")
        scenario.wait_for_target(10)
    check(scenario, replay, 10)


def test_a_device_of_that_name(scenario: Scenario) -> None:
    """A device that is there is never taken over, not even a TUN device that nobody uses."""
    scenario.lab.online.ip("tuntap add dev mine mode tun")
    with refused(scenario, "-x", TO_LOCAL, "--local", "--local-device", "mine") as line:
        assert "there is a device of that name" in line
    assert "mine" in scenario.lab.online.run("ip", "link")


def test_a_firewall_in_the_way(scenario: Scenario) -> None:
    """A firewall that lets nothing in by new devices: the summary says where to look."""
    scenario.servers()
    scenario.lab.online.nft(
        "table inet filter { chain input { type filter hook input priority 0; policy drop;\n"
        ' iifname { "lo", "eth0" } accept;\n }\n}\n'
    )
    with scenario.replay("local") as replay:
        scenario.load("--connections 3")
    assert replay.report["sessions"]["lost"] == 3, replay.output
    assert "nft insert rule inet filter input iifname 'tcpcopy*' accept" in replay.output


def test_the_device_is_taken_away(scenario: Scenario) -> None:
    """Someone removes the device: no busy loop, sessions end with a true outcome, exit code 1."""
    scenario.servers()
    with scenario.replay("local", "-t", 2) as replay:
        scenario.load("--connections 5")
        scenario.wait_for_target(5)
        scenario.lab.online.ip("link delete tcpcopy0")
        scenario.load("--connections 5 --seed 4")
        pid = replay.tcpcopy.pid
        used = _cpu_ticks(pid)
        time.sleep(3)
        assert _cpu_ticks(pid) - used < 50
    assert replay.exit_code == 1
    assert replay.report["sessions"]["outcomes"]["replayed"] == 5
    assert replay.report["sessions"]["lost"] == 5


def _cpu_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
