"""Tunnel mode on whole hosts: packets in the relay connection, injected and answered by TUN."""

from __future__ import annotations

import ipaddress
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from tcpcopy.demo.netns import CLIENT_RANGES, Lab
from tests.lab.datagrams import differences
from tests.lab.scenario import PORT, Replay, Scenario
from tests.netns import test_udp as udp
from tests.netns.test_native_relay import certificate, secret_file
from tests.netns.test_replay import LOADS, check

pytestmark = pytest.mark.netns
LOAD = "--connections 40 --requests 10 --request-bytes 10-20000"
STREAMS = 40
MAPPED = ipaddress.ip_network("198.18.0.0/15")
KEEPING = ("--tun-clients", "keep", "--tun-allow", "10.66.0.3:8080")


def be_a_cloud(lab: Lab) -> None:
    """The network drops what does not come from online's own address; the target is strict, too."""
    everywhere = {f"net/ipv4/conf/{name}/rp_filter": "1" for name in ("all", "default", "eth0")}
    lab.target.sysctl(everywhere)
    lab.bridge.nft(
        "table netdev cloud {\n chain leave {\n"
        f'  type filter hook ingress device "{lab.online.role}" priority 0;\n'
        f"  ip saddr != {lab.online.v4} counter drop\n"
        f"  ip6 saddr != {{ {lab.online.v6}, fe80::/10, :: }} counter drop\n }}\n}}\n"
    )


def dropped_by_the_cloud(lab: Lab) -> int:
    found = re.findall(r"counter packets (\d+)", lab.bridge.run("nft", "list", "ruleset"))
    return sum(map(int, found))


def says(replay: Replay, pattern: str) -> bool:
    return re.search(pattern, replay.intercepts[0].output()) is not None


def peers(scenario: Scenario) -> set[str]:
    """The client addresses that the target saw."""
    return {str(stream.peer[0]) for stream in scenario.target[0].stop()}


@pytest.mark.parametrize("name", ["keep-alive", "uploads", "big answers", "client resets"])
def test_every_stream_arrives(scenario: Scenario, name: str) -> None:
    """The plain scenarios, through a network that lets no forged address pass."""
    words, arguments, streams = LOADS[name]
    be_a_cloud(scenario.lab)
    scenario.servers(arguments)
    with scenario.replay("tunnel") as replay:
        scenario.load(words)
        scenario.wait_for_target(streams, 30)
    assert dropped_by_the_cloud(scenario.lab) == 0
    check(scenario, replay, streams)


def test_default_addresses(scenario: Scenario) -> None:
    """Clients get addresses of the range that both ends take when nothing is said."""
    scenario.servers()
    with scenario.replay("tunnel") as replay:
        scenario.load(LOAD)
        scenario.wait_for_target(STREAMS)
    assert all(ipaddress.ip_address(peer) in MAPPED for peer in peers(scenario))
    check(scenario, replay, STREAMS)
    report = replay.report
    assert report["mode"] == "tunnel"
    (intercept,) = report["relay"]["intercepts"]
    assert (intercept["kind"], intercept["tls"], intercept["dropped"]) == ("native", False, 0)
    assert says(replay, "connected, tunnel")
    assert not left_behind(scenario.lab)


def test_a_range_of_ones_own(scenario: Scenario) -> None:
    scenario.servers()
    words = ("--tun-clients", "10.99.0.0/16", "--tun-device", "replays")
    with scenario.replay("tunnel", mapped="10.99.7.0/24", intercept_arguments=words) as replay:
        scenario.load(LOAD)
        assert "replays" in scenario.lab.target.run("ip", "route", "get", "10.99.7.1")
        scenario.wait_for_target(STREAMS)
    assert all(peer.startswith("10.99.7.") for peer in peers(scenario))
    check(scenario, replay, STREAMS)


def test_clients_keep_their_addresses(scenario: Scenario) -> None:
    """-c keep: the target sees the clients, and their answers do not get to them."""
    lab = scenario.lab
    be_a_cloud(lab)
    scenario.servers()
    with scenario.replay("tunnel", "-c", "keep", intercept_arguments=KEEPING) as replay:
        scenario.load(LOAD, "--source", "10.66.1.1-10.66.1.20")
        scenario.wait_for_target(STREAMS)
        # What the target sends otherwise goes where it always went.
        route = f"ip route get {lab.client.v4} from {lab.target.v4} ipproto tcp sport"
        assert "tcpcopy-t0" in lab.target.run(*f"{route} {PORT}".split())
        assert "eth0" in lab.target.run(*f"{route} {PORT + 1}".split())
        assert "eth0" in lab.target.run("ip", "route", "get", lab.client.v4)
    network = ipaddress.ip_network(CLIENT_RANGES[0])
    assert all(ipaddress.ip_address(peer) in network for peer in peers(scenario))
    check(scenario, replay, STREAMS)
    assert not left_behind(lab)


@pytest.mark.parametrize("keep", [False, True], ids=["mapped", "kept"])
def test_ipv6(scenario: Scenario, keep: bool) -> None:
    lab = scenario.lab
    be_a_cloud(lab)
    scenario.servers()
    words: tuple[object, ...] = ()
    if keep:
        words = ("--tun-clients", "keep", "--tun-allow", f"[{lab.target.v6}]:{PORT}")
    with scenario.replay(
        "tunnel",
        *(("-c", "keep") if keep else ()),
        transfer=f"{PORT}-[{lab.target.v6}]:{PORT}",
        intercept_arguments=words,
    ) as replay:
        scenario.load(LOAD, to=lab.online.v6)
        scenario.wait_for_target(STREAMS)
    seen = peers(scenario)
    assert seen == {lab.client.v6} if keep else all(p.startswith("fd00:7463:7063:") for p in seen)
    check(scenario, replay, STREAMS)


@pytest.mark.parametrize("words", [("-n", 3), ("--workers", 2), ("-C", 5)])
def test_options_that_multiply(scenario: Scenario, words: tuple[object, ...]) -> None:
    """Copies, workers and connections: each answer goes back to whom it is for."""
    scenario.servers()
    copies = int(str(words[1])) if words[0] == "-n" else 1
    with scenario.replay("tunnel", *words) as replay:
        scenario.load(LOAD)
        scenario.wait_for_target(STREAMS * copies)
    check(scenario, replay, STREAMS, copies=copies)


def test_tls(scenario: Scenario, tmp_path: Path) -> None:
    """The same inside TLS, up and down."""
    lab = scenario.lab
    ca = certificate(tmp_path, "intercept", lab.target.v4)
    words = ("--tls", "--tls-cert", ca, "--tls-key", tmp_path / "intercept.key")
    scenario.servers()
    load = "--connections 12 --requests 3 --request-bytes 1000000 --answer-bytes 300000"
    with scenario.replay("tunnel", "--tls", "--tls-ca", ca, intercept_arguments=words) as replay:
        scenario.load(load)
        scenario.wait_for_target(12, 30)
    check(scenario, replay, 12)
    assert replay.report["relay"]["intercepts"][0]["tls"]
    assert "native, TLS: " in replay.output


@pytest.mark.parametrize("keep", [False, True], ids=["mapped", "kept"])
def test_intercept_killed_and_back(scenario: Scenario, keep: bool) -> None:
    """The device goes with it and comes with it; live sessions go on, new ones work at once."""
    scenario.servers()
    words = KEEPING if keep else ()
    keeping = ("-c", "keep") if keep else ()
    with scenario.replay("tunnel", *keeping, intercept_arguments=words) as replay:
        load = scenario.start_load("--connections 20 --requests 40 --think-ms 20-60")
        time.sleep(0.7)
        replay.intercepts[0].kill()
        time.sleep(1.5)
        replay.intercepts.append(scenario.start_tunnel_end(*words))
        time.sleep(1.0)
        scenario.load("--connections 30 --seed 3")
        assert scenario.wait_for_target(30, 3)
        scenario.finish_load(load)
        scenario.wait_for_target(50, 30)
    check(scenario, replay, 50)
    assert replay.report["relay"]["reconnects"] >= 1
    assert not left_behind(scenario.lab)


def left_behind(lab: Lab) -> str:
    """What of a device, its routes and rules is on the target."""
    run = lab.target.run
    found = run("ip", "-o", "link") + run("ip", "route", "show", "table", "all")
    found += run("ip", "rule") + run("ip", "-6", "rule")
    known = ("tcpcopy-t0", "blackhole", "sport")
    return "".join(line for line in found.splitlines() if any(word in line for word in known))


def test_device_removed_by_somebody(scenario: Scenario) -> None:
    """It is made again, and sessions go on."""
    scenario.servers()
    with scenario.replay("tunnel") as replay:
        load = scenario.start_load("--connections 20 --requests 40 --think-ms 20-60")
        time.sleep(0.5)
        scenario.lab.target.ip("link del tcpcopy-t0")
        time.sleep(1)
        scenario.load("--connections 20 --seed 4")
        scenario.finish_load(load)
        scenario.wait_for_target(40, 20)
    check(scenario, replay, 40)
    assert says(replay, "device tcpcopy-t0 is gone; making it again")
    assert says(replay, "device tcpcopy-t0 is back")


def test_intercept_that_stands_still(scenario: Scenario) -> None:
    """Stopped for a while: what waits is sent then, and every stream is exact."""
    scenario.servers()
    with scenario.replay("tunnel") as replay:
        load = scenario.start_load("--connections 20 --requests 60 --think-ms 20-60")
        time.sleep(0.5)
        replay.intercepts[0].send_signal(signal.SIGSTOP)
        scenario.load("--connections 12 --requests 2 --request-bytes 1000000 --seed 4")
        time.sleep(2)
        replay.intercepts[0].send_signal(signal.SIGCONT)
        scenario.finish_load(load)
        scenario.wait_for_target(32, 30)
    check(scenario, replay, 32)


def test_device_in_a_container(scenario: Scenario) -> None:
    """--netns: the device is where the target's server is, tcpcopies connect elsewhere."""
    lab = scenario.lab
    scenario.servers()
    words = ("--netns", lab.target.namespace, "--listen-netns", "host")
    intercept = scenario.start_tunnel_end(*words, host=lab.assistant)
    replay = scenario.start_tcpcopy(
        "-x", f"{PORT}-{lab.target.v4}:{PORT}", "--via", "tunnel", "-s", lab.assistant.v4,
        "--secret-file", scenario.secret,
    )  # fmt: skip
    replay.intercepts = [intercept]
    scenario.load(LOAD)
    scenario.wait_for_target(STREAMS)
    assert "tcpcopy-t0" in left_behind(lab)
    replay.stop()
    check(scenario, replay, STREAMS)
    assert not left_behind(lab)


@pytest.mark.parametrize(("transport", "keep"), [("udp", False), ("udp", True), ("both", False)])
def test_udp(scenario: Scenario, transport: str, keep: bool) -> None:
    """Datagrams of all sizes arrive as they were sent, and no answer gets to a client."""
    be_a_cloud(scenario.lab)
    online = udp.UdpServer(scenario, scenario.lab.online, PORT)
    target = udp.UdpServer(scenario, scenario.lab.target, PORT)
    if transport == "both":
        scenario.servers()
    words = ("-c", "keep") if keep else ()
    both = ("--tun-clients", "keep", "--tun-allow", "10.66.0.3:8080,10.66.0.99:8080")
    lab = scenario.lab
    lab.bridge.nft(
        "table netdev watch {\n chain arrive {\n"
        f'  type filter hook ingress device "{lab.target.role}" priority 1;\n'
        "  ip protocol udp counter\n }\n}\n"
    )
    with scenario.replay(
        "tunnel", "--transport", transport, *words, intercept_arguments=both if keep else ()
    ) as replay:
        if transport == "both":
            scenario.load(LOAD)
        load = "--flows 30 --datagrams 300 --rate 500 --sizes 20,100,1200,9000,60000"
        udp.load(scenario, load, to=scenario.lab.online.v4, port=PORT)
        if transport == "both":
            scenario.wait_for_target(STREAMS)
        time.sleep(0.5)
    sent, arrived = online.stop(), target.stop()
    assert not differences(sent, arrived, 1), replay.output
    assert dropped_by_the_cloud(lab) == 0, "packets of either kind"
    if keep:
        assert sent.keys() == arrived.keys()
    else:
        assert all(ipaddress.ip_address(peer.split()[0]) in MAPPED for peer in arrived)
    assert replay.exit_code == 0, replay.output
    if transport == "both":
        check(scenario, replay, STREAMS)


# --- what is refused at the start ----------------------------------------------------------------


def start(scenario: Scenario, *words: object) -> Replay:
    lab = scenario.lab
    transfer = f"{PORT}-{lab.target.v4}:{PORT}"
    return scenario.start_tcpcopy("-x", transfer, "-s", lab.target.v4, *words, wait=False)


@pytest.mark.parametrize("case", ["another secret", "no tunnel there", "no tunnel here"])
def test_ends_that_do_not_fit(scenario: Scenario, tmp_path: Path, case: str) -> None:
    """One line that says what to do, and exit code 2; at intercept a line in the log."""
    lab = scenario.lab
    words: list[object] = ["--via", "tunnel", "--secret-file", scenario.secret]
    if case == "no tunnel there":
        intercept = scenario.start_intercept("--secret-file", scenario.secret)
        replay = scenario.start_tcpcopy(
            "-x", f"{PORT}-{lab.target.v4}:{PORT}", "-s", lab.assistant.v4, *words, wait=False
        )
        expected, logged = "it has no tunnel: run intercept --tun on the target", ""
    else:
        intercept = scenario.start_tunnel_end()
        if case == "another secret":
            words[-1] = secret_file(tmp_path, "something else altogether", "other")
            expected, logged = "the secret is wrong", "its secret is not the one of this intercept"
        else:
            words = words[2:]
            expected, logged = "it runs with --tun: give --via tunnel", ""
        replay = start(scenario, *words)
    assert replay.tcpcopy.wait(15) == 2
    lines = replay.output.strip().splitlines()
    assert len(lines) == 1 and expected in lines[0], replay.output
    assert logged in intercept.output()


@pytest.mark.parametrize(
    ("command", "words", "expected"),
    [
        ("intercept", "--tun", "--tun: needs a shared secret"),
        ("intercept", "--tun --secret-file {secret} -i eth0", "-i eth0: is of no use with --tun"),
        ("intercept", "--tun-allow 10.0.0.1", "--tun-allow 10.0.0.1: is of no use without --tun"),
        (
            "intercept",
            "--tun --secret-file {secret} --tun-clients keep",
            "--tun-clients keep: needs the ports",
        ),
        (
            "intercept",
            "--tun --secret-file {secret} --tun-clients 10.66.0.0/16",
            "--tun-clients 10.66.0.0/16: this host has a route to 10.66.0.0/16",
        ),
        ("tcpcopy", "--via tunnel -s 10.66.0.3", "--via tunnel: needs a shared secret"),
        ("tcpcopy", "--via tunnel --secret-file {secret}", "--via tunnel: needs -s"),
        ("tcpcopy", "--via air -s 10.66.0.3", "--via air: is no way to the target"),
        (
            "tcpcopy",
            "--via tunnel -s 10.66.0.3 --secret-file {secret} -o eth0",
            "-o eth0: sends frames",
        ),
    ],
)
def test_one_line_for_what_is_wrong(
    scenario: Scenario, command: str, words: str, expected: str
) -> None:
    host = scenario.lab.target if command == "intercept" else scenario.lab.online
    module = "tcpcopy.intercept_cli" if command == "intercept" else "tcpcopy.cli"
    given = words.format(secret=scenario.secret).split()
    if command == "tcpcopy":
        given += ["-x", f"{PORT}-10.66.0.3:{PORT}"]
    program = host.start(
        [sys.executable, "-m", module, *given], name=command, env=scenario.environment
    )
    assert program.wait(15) == 2, program.output()
    (line,) = program.output().strip().splitlines()
    assert line.startswith(f"{command}: {expected}"), line
    assert "tcpcopy-t0" not in scenario.lab.target.run("ip", "-o", "link")


# --- what intercept does not let in --------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "here", "reason"),
    [
        (("--tun-allow", "10.66.0.3:81"), (), "for an address or port that --tun-allow"),
        ((), ("-c", "10.99.0.0/16"), "from a client address that --tun-clients"),
        ((), ("-c", "keep"), "from a client address that --tun-clients"),
    ],
)
def test_packets_that_may_not(
    scenario: Scenario, there: tuple[object, ...], here: tuple[object, ...], reason: str
) -> None:
    """Nothing gets to the server, and both ends say why."""
    scenario.servers()
    with scenario.replay("tunnel", *here, intercept_arguments=there) as replay:
        scenario.load("--connections 5")
        time.sleep(1.5)
        listening = scenario.lab.target.run("ss", "-Htn", "sport", "=", f":{PORT}")
    assert not listening.strip() and not scenario.target[0].stop()
    assert says(replay, f"packets of tunnels dropped: \\d+ {reason}")
    assert f"drops packets of ours: {reason}" in replay.output
    report = replay.report
    assert replay.exit_code == 1 and report["relay"]["dropped"] > 0
    assert report["sessions"]["lost"] == 5, report["sessions"]


def test_random_bytes_behind_the_handshake(scenario: Scenario, tmp_path: Path) -> None:
    """Connections that know the secret and send rubbish are dropped; others are served on."""
    scenario.servers()
    attacker = tmp_path / "attacker.py"
    attacker.write_text(_ATTACKER)
    with scenario.replay("tunnel") as replay:
        load = scenario.start_load("--connections 20 --requests 40 --think-ms 10-30")
        attack = scenario.lab.client.start(
            [sys.executable, str(attacker), scenario.lab.target.v4, str(scenario.secret)],
            name="attacker",
            env=scenario.environment,
        )
        assert attack.wait(40) == 0, attack.output()
        scenario.finish_load(load)
        scenario.wait_for_target(20, 20)
    check(scenario, replay, 20)
    assert replay.intercepts[0].output().count("Traceback") == 0
    assert says(replay, "packets of tunnels dropped: ")


_ATTACKER = '''
"""Joins with the secret, then sends rubbish: as frames of packets, as frames, as bytes."""
import os, random, socket, sys
from tcpcopy.relay import native
from tcpcopy.relay.handshake import ClientHandshake, Kind
from tcpcopy.relay.native import FrameType, RelayTerms

host, secret = sys.argv[1], open(sys.argv[2]).read().strip().encode()
rng = random.Random(7)


def joined():
    shake = ClientHandshake(RelayTerms(secret=secret, tunnel=True), os.urandom(32))
    connection = socket.create_connection((host, 36524))
    connection.sendall(shake.opening())
    while not shake.over:
        connection.sendall(shake.feed(connection.recv(4096)))
    assert shake.kind == Kind.NATIVE, shake.problem
    return connection


for turn in range(60):
    connection = joined()
    try:
        for _ in range(20):
            if turn % 3 == 0:
                body = rng.randbytes(rng.randrange(1, 3000))
                connection.sendall(native.frame(FrameType.PACKETS, body))
            elif turn % 3 == 1:
                packet = bytes([0x45]) + rng.randbytes(rng.randrange(1, 1500))
                body = len(packet).to_bytes(2, "big") + packet
                connection.sendall(native.frame(FrameType.PACKETS, body))
            else:
                connection.sendall(rng.randbytes(500))
    except OSError:
        assert turn % 3 == 2
    connection.close()
print("done")
'''
