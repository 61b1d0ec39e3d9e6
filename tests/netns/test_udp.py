"""UDP on whole hosts: every datagram of every flow arrives at the target, once, whole, in order."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest

from tcpcopy.demo.netns import Host
from tcpcopy.demo.processes import Program
from tests.lab import datagrams
from tests.lab.datagrams import Record, differences
from tests.lab.scenario import PORT, Replay, Scenario, python, wait_until

pytestmark = pytest.mark.netns

POOL = "10.99.9.0/24"


class UdpServer:
    """A recording server on one host."""

    def __init__(self, scenario: Scenario, host: Host, port: int = PORT, answer: int = 32) -> None:
        self.records = scenario.lab.directory / f"udp-{host.role}-{port}.json"
        command = python(
            "tests.lab.datagrams", "serve", "--port", port, "--records", self.records,
            "--answer", answer,
        )  # fmt: skip
        self.program: Program = host.start(command, name="udp", env=scenario.environment)
        self.program.wait_for(r"^ready")

    def stop(self) -> Record:
        self.program.stop(signal.SIGTERM)
        return datagrams.load(self.records)


def load(scenario: Scenario, *arguments: object, to: str = "", port: int = PORT) -> dict[str, Any]:
    """Send datagrams from the client to online."""
    words = [word for argument in arguments for word in str(argument).split()]
    command = python("tests.lab.datagrams", "send", to or scenario.lab.online.v4, port, *words)
    program = scenario.lab.client.start(command, name="udp", env=scenario.environment)
    assert program.wait(60) == 0, program.output()
    totals = json.loads(program.output().splitlines()[-1])
    assert isinstance(totals, dict)
    return totals


def start(scenario: Scenario, mode: str, *arguments: object, transfer: str = "") -> Replay:
    """Start tcpcopy for UDP; "packet": with the clients' addresses, or those of `-c`."""
    command: list[object] = ["-x", transfer or f"{PORT}-{scenario.lab.target.v4}:{PORT}"]
    if "--transport" not in arguments:
        command.append("--udp")
    if mode == "packet":
        scenario.lab.classic([POOL] if "-c" in arguments else None)
        command += ["-s", scenario.lab.assistant.v4]
        for address in (scenario.lab.target.v4, scenario.lab.target.v6):
            reach(scenario.lab.online, address)
    return scenario.start_tcpcopy(*command, *arguments)


def reach(host: Host, address: str) -> None:
    """Return when `host` knows the way to `address`, a neighbour: a kernel keeps few packets for
    one that is not found yet, and its own address is not to be used in the first second."""
    probe = f"import socket, sys\nsys.exit(socket.create_connection(('{address}', 9), 5) and 0)"
    assert wait_until(
        lambda: "refused" in host.run("sh", "-c", f'python3 -c "{probe}" 2>&1 || :'), 10
    )


def check_counts(report: dict[str, Any]) -> None:
    """What has to add up in every report."""
    assert report["violations"] == []
    udp = report["udp"]
    assert udp["flows"]["captured"] == sum(udp["flows"]["outcomes"].values())
    sent, dropped = udp["datagrams"]["sent"], udp["datagrams"]["dropped"]
    assert udp["datagrams"]["captured"] == sent + sum(dropped.values())
    assert udp["packets"]["captured"] == udp["packets"]["used"] + sum(
        udp["packets"]["dropped"].values()
    )


def check(replay: Replay, online: Record, target: Record, copies: int) -> None:
    """Everything arrived, and the report says so."""
    assert replay.stop() == 0, replay.output
    fault = differences(online, target, copies)
    assert not fault, f"{fault}\n{replay.output}"
    check_counts(replay.report)
    flows = replay.report["udp"]["flows"]
    assert flows["captured"] == flows["outcomes"]["replayed"] == len(online) * copies
    assert replay.report["udp"]["datagrams"]["sent"] == sum(map(len, online.values())) * copies


def run(
    scenario: Scenario,
    mode: str,
    load_words: str,
    *arguments: object,
    copies: int = 1,
    to: str = "",
    transfer: str = "",
) -> tuple[Record, Record]:
    """Servers, load, replay, comparison."""
    servers = UdpServer(scenario, scenario.lab.online), UdpServer(scenario, scenario.lab.target)
    if to:
        reach(scenario.lab.client, to)
    replay = start(scenario, mode, *arguments, transfer=transfer)
    totals = load(scenario, load_words, to=to)
    replay.stop()
    time.sleep(0.2)
    online, target = servers[0].stop(), servers[1].stop()
    assert sum(map(len, online.values())) == totals["sent"], "the online server lost some itself"
    check(replay, online, target, copies)
    if mode == "socket":
        answers = replay.report["udp"]["answers"]
        assert answers["received"] == totals["sent"] * copies
        assert answers["bytes"] == totals["sent"] * copies * 32
    return online, target


@pytest.mark.parametrize("mode", ["socket", "packet"])
def test_many_flows(scenario: Scenario, mode: str) -> None:
    """20,000 datagrams of 1,000 flows."""
    online, target = run(
        scenario, mode, "--flows 1000 --datagrams 20000 --source 10.66.1.1-10.66.1.50"
    )
    assert len(online) == 1000
    if mode == "packet":
        assert online.keys() == target.keys(), "clients keep their addresses and ports"


@pytest.mark.parametrize("mode", ["socket", "packet"])
def test_three_copies(scenario: Scenario, mode: str) -> None:
    """-n 3: each flow three times, each copy a client of its own."""
    _, target = run(scenario, mode, "--flows 200 --datagrams 4000 --rate 2500", "-n", 3, copies=3)
    assert len(target) == 600


@pytest.mark.parametrize("mode", ["socket", "packet"])
@pytest.mark.parametrize("family", [4, 6])
def test_all_sizes(scenario: Scenario, mode: str, family: int) -> None:
    """From nothing to the longest there is; what is longer than the MTU travels in fragments."""
    lab = scenario.lab
    sizes = "0,1,1472,1473,9000,65507,8,1452,1453,2000"
    run(
        scenario,
        mode,
        f"--flows 10 --datagrams 200 --rate 300 --sizes {sizes}",
        to=lab.online.v6 if family == 6 else "",
        transfer=f"{PORT}-[{lab.target.v6}]:{PORT}" if family == 6 else "",
    )


def test_small_mtu(scenario: Scenario) -> None:
    """-M 576: fragments within it, the datagrams whole at the target."""
    run(
        scenario, "packet", "--flows 5 --datagrams 100 --rate 200 --sizes 65507,548,549,3000",
        "-M", 576,
    )  # fmt: skip


def test_ipv4_clients_to_an_ipv6_target(scenario: Scenario) -> None:
    transfer = f"{PORT}-[{scenario.lab.target.v6}]:{PORT}"
    run(scenario, "socket", "--flows 50 --datagrams 1000", transfer=transfer)


def test_colliding_clients_of_a_pool(scenario: Scenario) -> None:
    """-c: 300 clients with the same ports on one mapped address: none shares its port."""
    words = "--flows 600 --datagrams 6000 --source 10.66.1.1-10.66.1.250 --first-port 5000"
    _, target = run(scenario, "packet", words, "-c", "10.99.9.7")
    assert len(target) == 600
    assert {peer.split()[0] for peer in target} == {"10.99.9.7"}


@pytest.mark.parametrize("family", [4, 6])
def test_packets_on_a_device(scenario: Scenario, family: int) -> None:
    """-o: frames past the IP layer, fragments too."""
    lab = scenario.lab
    run(
        scenario,
        "packet",
        "--flows 50 --datagrams 1000 --sizes 10,1472,9000",
        "-o",
        "eth0",
        to=lab.online.v6 if family == 6 else "",
        transfer=f"{PORT}-[{lab.target.v6}]:{PORT}" if family == 6 else "",
    )


def test_more_flows_than_ports(scenario: Scenario) -> None:
    """Flows that were quiet end for new ones; every datagram arrives all the same."""
    scenario.lab.online.sysctl({"net/ipv4/ip_local_port_range": "40000 40199"})
    servers = UdpServer(scenario, scenario.lab.online), UdpServer(scenario, scenario.lab.target)
    replay = start(scenario, "socket")
    load(scenario, "--flows 1000 --datagrams 1000 --rate 1500")
    assert replay.stop() == 0, replay.output
    # Ports are used again and again: a flow is no longer told by them.
    online, target = (sorted(d[:2] for f in s.stop().values() for d in f) for s in servers)
    assert online == target and len(online) == 1000
    check_counts(replay.report)
    flows = replay.report["udp"]["flows"]
    assert flows["outcomes"]["replayed"] == 1000 and flows["peak"] <= 200


def test_more_flows_than_ports_counted(scenario: Scenario) -> None:
    """Where none is quiet for long enough, what is left out is counted."""
    scenario.lab.online.sysctl({"net/ipv4/ip_local_port_range": "40000 40019"})
    server = UdpServer(scenario, scenario.lab.target)
    UdpServer(scenario, scenario.lab.online)
    replay = start(scenario, "socket")
    load(scenario, "--flows 500 --datagrams 500 --rate 1e9")
    code = replay.stop()
    check_counts(replay.report)
    udp = replay.report["udp"]
    assert udp["flows"]["captured"] == 500
    assert udp["flows"]["peak"] <= 500
    assert sum(map(len, server.stop().values())) == udp["datagrams"]["sent"]
    assert code == (1 if udp["flows"]["outcomes"]["shed_flows"] else 0)


@pytest.mark.parametrize("mode", ["socket", "packet"])
def test_sampling(scenario: Scenario, mode: str) -> None:
    """-r 30: a part of the flows, and of these every datagram (the C program ignores -r)."""
    servers = UdpServer(scenario, scenario.lab.online), UdpServer(scenario, scenario.lab.target)
    replay = start(scenario, mode, "-r", 30)
    load(scenario, "--flows 500 --datagrams 5000")
    assert replay.stop() == 0, replay.output
    online, target = (datagrams.sequences(server.stop()) for server in servers)
    assert not target - online, "what arrives is as it was sent"
    check_counts(replay.report)
    outcomes = replay.report["udp"]["flows"]["outcomes"]
    assert outcomes["skipped_sampling"] + outcomes["replayed"] == 500
    assert target.total() == outcomes["replayed"]
    assert 90 <= target.total() <= 210
    sent = sum(len(flow) * count for flow, count in target.items())
    assert replay.report["udp"]["datagrams"]["sent"] == sent


def test_gradually(scenario: Scenario) -> None:
    """-g: next to nothing in the first seconds; a flow left out stays left out."""
    servers = UdpServer(scenario, scenario.lab.online), UdpServer(scenario, scenario.lab.target)
    replay = start(scenario, "socket", "-g")
    load(scenario, "--flows 1000 --datagrams 4000 --rate 2000")
    replay.stop()
    servers[0].stop()
    outcomes = replay.report["udp"]["flows"]["outcomes"]
    assert outcomes["replayed"] + outcomes["skipped_sampling"] == 1000
    assert 1 <= len(servers[1].stop()) == outcomes["replayed"] <= 60
    check_counts(replay.report)


def test_closed_port(scenario: Scenario) -> None:
    """Nothing listens at the target: ICMP says so, and each flow is counted as refused."""
    server = UdpServer(scenario, scenario.lab.online)
    replay = start(scenario, "socket")
    load(scenario, "--flows 40 --datagrams 400 --rate 1000")
    assert replay.stop() == 1
    assert sum(map(len, server.stop().values())) == 400
    check_counts(replay.report)
    udp = replay.report["udp"]
    assert udp["flows"]["outcomes"]["refused"] == 40
    assert udp["datagrams"]["sent"] == 400
    assert 40 <= udp["answers"]["refusals"] <= 400
    assert "refused by the target" in replay.output
    assert "ss -lun" in replay.output


def test_idle_flows_end_and_come_back(scenario: Scenario) -> None:
    """--flow-timeout 1: a client that was silent is a new flow, with its own address again."""
    servers = UdpServer(scenario, scenario.lab.online), UdpServer(scenario, scenario.lab.target)
    replay = start(scenario, "packet", "--flow-timeout", 1)
    for seed in (1, 2):
        load(scenario, f"--flows 20 --datagrams 60 --first-port 6000 --seed {seed}")
        time.sleep(2.5)
    replay.stop()
    online, target = servers[0].stop(), servers[1].stop()
    assert not differences(online, target)
    assert online.keys() == target.keys()
    assert replay.report["udp"]["flows"]["captured"] == 40


def test_datagrams_keep_their_times(scenario: Scenario) -> None:
    """Sent when they were captured: the pause between two of a flow is what it was."""
    servers = UdpServer(scenario, scenario.lab.online), UdpServer(scenario, scenario.lab.target)
    replay = start(scenario, "socket")
    load(scenario, "--flows 1 --datagrams 100 --rate 100")
    replay.stop()
    online, target = (next(iter(server.stop().values())) for server in servers)
    delays = sorted(
        there - here for (_, _, here), (_, _, there) in zip(online, target, strict=True)
    )
    assert delays[len(delays) // 2] < 5_000_000, delays
    assert delays[-1] < 100_000_000, delays


def test_tcp_and_udp_at_once(scenario: Scenario) -> None:
    """--transport both: one tcpcopy, both kinds of traffic on the same port."""
    scenario.servers()
    servers = UdpServer(scenario, scenario.lab.online), UdpServer(scenario, scenario.lab.target)
    with scenario.replay("socket", "--transport", "both") as replay:
        totals = load(scenario, "--flows 50 --datagrams 1000")
        scenario.load("--connections 50 --requests 10")
        scenario.wait_for_target(30)
    online, target = servers[0].stop(), servers[1].stop()
    assert totals["sent"] == 1000
    assert not differences(online, target)
    assert replay.exit_code == 0, replay.output
    result = scenario.compare()
    assert result.clean and result.exact == 50, result
    assert "all 50 sessions and 50 UDP flows replayed exactly" in replay.output
    check_counts(replay.report)


def test_both_with_client_addresses(scenario: Scenario) -> None:
    """--transport both with -s: classic mode for TCP, packets for UDP."""
    scenario.servers()
    servers = UdpServer(scenario, scenario.lab.online), UdpServer(scenario, scenario.lab.target)
    with scenario.replay("classic", "--transport", "both") as replay:
        load(scenario, "--flows 50 --datagrams 1000")
        scenario.load("--connections 20 --requests 10")
        scenario.wait_for_target(30)
    online, target = servers[0].stop(), servers[1].stop()
    assert not differences(online, target)
    assert online.keys() == target.keys()
    assert replay.exit_code == 0, replay.output
    assert scenario.compare().exact == 20


def test_clients_on_this_host(scenario: Scenario) -> None:
    """-H: what came in by loopback, also longer than any MTU, is shown under another address."""
    lab = scenario.lab
    servers = UdpServer(scenario, lab.online), UdpServer(scenario, lab.target)
    replay = start(scenario, "packet", "-H", "10.66.1.77", "-f", 2)
    command = python(
        "tests.lab.datagrams", "send", "127.0.0.1", PORT, "--flows", 5, "--datagrams", 100,
        "--sizes", "10,1472,30000", "--rate", 500,
    )  # fmt: skip
    program = lab.online.start(command, name="udp", env=scenario.environment)
    assert program.wait(30) == 0, program.output()
    assert replay.stop() == 0, replay.output
    online, target = servers[0].stop(), servers[1].stop()
    assert not differences(online, target)
    assert {peer.split()[0] for peer in target} == {"10.66.1.77"}
    assert not {p.split()[1] for p in online} & {p.split()[1] for p in target}, "-f shifts ports"


def test_two_targets(scenario: Scenario) -> None:
    """-x with two transfers of one source."""
    lab = scenario.lab
    online = UdpServer(scenario, lab.online)
    targets = [UdpServer(scenario, lab.target, port) for port in (8081, 8082)]
    transfer = ",".join(f"{PORT}-{lab.target.v4}:{port}" for port in (8081, 8082))
    replay = start(scenario, "socket", transfer=transfer)
    load(scenario, "--flows 20 --datagrams 400")
    assert replay.stop() == 0, replay.output
    sent = online.stop()
    for target in targets:
        assert not differences(sent, target.stop())


def test_filter_narrows(scenario: Scenario) -> None:
    """-F: only what the filter lets through is replayed."""
    servers = UdpServer(scenario, scenario.lab.online), UdpServer(scenario, scenario.lab.target)
    replay = start(scenario, "packet", "-F", f"udp dst port {PORT} and src host 10.66.1.2")
    load(scenario, "--flows 30 --datagrams 300 --source 10.66.1.1-10.66.1.3")
    assert replay.stop() == 0, replay.output
    online, target = servers[0].stop(), servers[1].stop()
    assert {peer.split()[0] for peer in target} == {"10.66.1.2"}
    assert len(target) == 10
    assert all(datagrams_ == target[peer] or len(datagrams_) == len(target[peer])
               for peer, datagrams_ in online.items() if peer in target)  # fmt: skip


@pytest.mark.parametrize("family", [4, 6])
def test_workers(scenario: Scenario, family: int) -> None:
    """--workers 2: flows are shared out, fragments find the worker of their flow."""
    lab = scenario.lab
    source = "10.66.1.1-10.66.1.50" if family == 4 else "fd66:1::1-fd66:1::50"
    run(
        scenario,
        "packet",
        f"--flows 100 --datagrams 2000 --rate 2000 --sizes 10,1472,3000 --source {source}",
        "--workers",
        2,
        to=lab.online.v6 if family == 6 else "",
        transfer=f"{PORT}-[{lab.target.v6}]:{PORT}" if family == 6 else "",
    )


def test_memory_is_bounded(scenario: Scenario) -> None:
    """A flood of new flows: memory stays within -m, and the counts add up."""
    UdpServer(scenario, scenario.lab.target)
    UdpServer(scenario, scenario.lab.online)
    replay = start(scenario, "packet", "-m", 90, "-B", 8)
    flood = f"""
import random, socket, struct
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
target = socket.inet_aton("{scenario.lab.online.v4}")
draw = random.Random(1)
for number in range(300000):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 32, 0, 0, 64, 17, 0, draw.randbytes(4), target)
    raw.sendto(head + struct.pack("!HHHH", 1024 + number % 60000, {PORT}, 12, 0) + b"abcd",
               ("{scenario.lab.online.v4}", 0))
"""
    (scenario.lab.directory / "flood.py").write_text(flood)
    for host in (scenario.lab.online, scenario.lab.target):
        host.ip("route add 0.0.0.0/0 dev lo")  # answers to nobody
    script = str(scenario.lab.directory / "flood.py")
    program = scenario.lab.client.start(["python3", script], name="flood")
    assert program.wait(60) == 0, program.output()
    assert wait_until(lambda: replay.tcpcopy.alive, 1)
    time.sleep(1)
    replay.stop()
    check_counts(replay.report)
    assert replay.report["memory_bytes"] < 130 << 20
    assert replay.report["udp"]["flows"]["captured"] > 100_000
