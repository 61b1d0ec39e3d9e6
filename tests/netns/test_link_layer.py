"""Replay at the link layer (-o): frames on a device, past routing and firewall, on whole hosts."""

from __future__ import annotations

import subprocess
import time

import pytest

from tcpcopy.demo.netns import Host, Lab
from tcpcopy.demo.processes import LabError
from tests.lab.scenario import PORT, Replay, Scenario, wait_until
from tests.netns.test_replay import LOADS, check

pytestmark = pytest.mark.netns
OUT = ("-o", "eth0")
LOAD = "--connections 20 --requests 10"
LONG_LOAD = "--connections 20 --requests 60 --think-ms 30-60"
NEW_MAC = "02:00:00:00:00:77"


def mac_of(host: Host, device: str = "eth0") -> str:
    return host.run("ip", "-br", "link", "show", device).split()[2]


@pytest.mark.parametrize("name", LOADS)
def test_every_stream_arrives(scenario: Scenario, name: str) -> None:
    """The plain scenarios; the report names the mode and no packet failed."""
    load, arguments, streams = LOADS[name]
    scenario.servers(arguments)
    with scenario.replay("classic", *OUT) as replay:
        scenario.load(load)
        scenario.wait_for_target(streams, 30)
    check(scenario, replay, streams)
    assert replay.report["mode"] == "link"
    assert replay.report["send_errors"] == {}


def test_loss(scenario: Scenario) -> None:
    """10 % of the packets lost in both directions."""
    scenario.servers()
    with scenario.replay("classic", *OUT) as replay:
        scenario.lab.lose(10, 10)
        scenario.load("--connections 100 --requests 10")
        scenario.load("--connections 300 --concurrency 50 --seed 7")
        scenario.wait_for_target(400, 60)
    check(scenario, replay, 400)
    assert replay.report["packets"]["retransmitted"] > 0


@pytest.mark.parametrize("link_layer", [False, True])
def test_firewall_of_the_online_host(scenario: Scenario, link_layer: bool) -> None:
    """A rule that drops what online sends to the target stops raw packets, but no frames."""
    scenario.servers()
    scenario.lab.online.nft(
        "table inet wall {\n chain out {\n  type filter hook output priority 0;\n"
        f"  ip daddr {scenario.lab.target.v4} tcp dport {PORT} drop\n }}\n}}\n"
    )
    with scenario.replay("classic", "-t", 2, *(OUT if link_layer else ())) as replay:
        scenario.load(LOAD)
        scenario.wait_for_target(20, 5 if link_layer else 1)
    if link_layer:
        check(scenario, replay, 20)
    else:
        assert scenario.target[0].stop() == []
        assert replay.report["send_errors"]["EPERM"] > 0


def add_router(lab: Lab) -> str:
    """A router between online and a second network of the target; the target's address there."""
    router = Host(lab, "router", 9)
    # Not from within a host: what is mounted there is seen there only.
    subprocess.run(["ip", "netns", "add", router.namespace], check=True)
    lab.hosts = (*lab.hosts, router)  # type: ignore[assignment]  # so that it is removed
    lab.bridge.ip(
        f"link add router type veth peer name eth0 netns {router.namespace}",
        "link set router master br0 up",
    )
    router.ip(
        f"link add eth1 type veth peer name eth1 netns {lab.target.namespace}",
        "link set eth0 up",
        "link set eth1 up",
        f"addr add {router.v4}/16 dev eth0",
        "addr add 10.77.0.1/24 dev eth1",
    )
    quiet = {f"net/ipv4/conf/{name}/rp_filter": "0" for name in ("all", "eth0", "eth1")}
    router.sysctl({"net/ipv4/ip_forward": "1", **quiet})
    # The target answers ARP for an address on the device that has it only: no way but the router's.
    lab.target.sysctl({"net/ipv4/conf/all/arp_ignore": "1", **quiet})
    lab.target.ip("addr add 10.77.0.3/24 dev eth1", "link set eth1 up")
    lab.online.ip(f"route add 10.77.0.0/24 via {router.v4}")
    return "10.77.0.3"


def test_through_a_router(scenario: Scenario) -> None:
    """The next hop is the gateway of the route to the target."""
    scenario.servers()
    address = add_router(scenario.lab)
    with scenario.replay("classic", *OUT, transfer=f"{PORT}-{address}:{PORT}") as replay:
        scenario.load(LOAD)
        scenario.load("--connections 3 --request-bytes 300000 --seed 4")
        scenario.wait_for_target(23)
    check(scenario, replay, 23)


def test_given_addresses(scenario: Scenario) -> None:
    """@MAC on both sides of -x: no look-up (the table lies here), and the sender's is shown."""
    scenario.servers()
    lab = scenario.lab
    lie = f"neigh replace {lab.target.v4} lladdr 02:00:00:00:00:99 dev eth0 nud permanent"
    lab.online.ip(lie)
    dump = lab.target.start(
        ["tcpdump", "-i", "eth0", "-nn", "-e", "-c", "10", f"tcp dst port {PORT}"], name="tcpdump"
    )
    dump.wait_for("listening", 10)
    transfer = f"{PORT}@02:00:00:00:00:55-{lab.target.v4}:{PORT}@{mac_of(lab.target)}"
    with scenario.replay("classic", *OUT, transfer=transfer) as replay:
        scenario.load(LOAD)
        scenario.wait_for_target(20)
    check(scenario, replay, 20)
    assert wait_until(lambda: not dump.alive, 5)  # it ends with its tenth packet
    frames = [line for line in dump.output().splitlines() if f"{lab.target.v4}.{PORT}:" in line]
    assert frames
    assert all(f"02:00:00:00:00:55 > {mac_of(lab.target)}" in line for line in frames), frames


def test_vlan_device(scenario: Scenario) -> None:
    """A VLAN device as output puts its tag on the frames."""
    scenario.servers()
    lab = scenario.lab
    for host, address in ((lab.online, "10.78.0.2/24"), (lab.target, "10.78.0.3/24")):
        try:
            host.ip("link add link eth0 name eth0.7 type vlan id 7")
        except LabError as error:
            pytest.skip(f"no VLAN devices: {error}")
        host.ip("link set eth0.7 up", f"addr add {address} dev eth0.7")
        host.sysctl({"net/ipv4/conf/eth0.7/rp_filter": "0"})
    with scenario.replay("classic", "-o", "eth0.7", transfer=f"{PORT}-10.78.0.3:{PORT}") as replay:
        scenario.load(LOAD)
        scenario.wait_for_target(20)
    check(scenario, replay, 20)


def test_device_that_stands_on_another(scenario: Scenario) -> None:
    """A bridge as output: the frame goes on through the device below it."""
    scenario.servers()
    lab = scenario.lab
    lab.online.ip(
        "link add br7 type bridge forward_delay 0",
        "link set br7 up",
        f"addr flush dev eth0 to {lab.online.v4}",
        "link set eth0 master br7",
        f"addr add {lab.online.v4}/16 dev br7",
        f"route add 10.66.1.0/24 via {lab.client.v4}",
    )
    lab.online.sysctl({"net/ipv4/conf/br7/rp_filter": "0"})
    with scenario.replay("classic", "-o", "br7", "-i", "br7") as replay:
        scenario.load(LOAD)
        scenario.wait_for_target(20)
    check(scenario, replay, 20)


@pytest.mark.parametrize("silent", [False, True], ids=["announced", "silent"])
def test_target_changes_its_address(scenario: Scenario, silent: bool) -> None:
    """A new MAC address of the target in mid-run is followed, whether online hears of it or not."""
    scenario.servers()
    lab = scenario.lab
    if silent:  # only what online itself asks for is heard
        lab.online.nft(
            "table netdev deaf {\n chain arrive {\n"
            '  type filter hook ingress device "eth0" priority 0;\n'
            f"  ether saddr {NEW_MAC} arp operation request drop\n }}\n}}\n"
        )
    with scenario.replay("classic", *OUT) as replay:
        load = scenario.start_load(LONG_LOAD)
        time.sleep(1)
        lab.target.ip(f"link set eth0 address {NEW_MAC}")
        scenario.finish_load(load)
        scenario.wait_for_target(20, 30)
    check(scenario, replay, 20)
    assert f"{NEW_MAC}" in replay.output, replay.output


def test_target_out_of_reach_for_a_while(scenario: Scenario) -> None:
    """Without its neighbour tcpcopy lives on, says so, counts, and makes up for it later."""
    scenario.servers()
    lab = scenario.lab
    with scenario.replay("classic", *OUT) as replay:
        load = scenario.start_load(LONG_LOAD)
        time.sleep(0.5)
        lab.bridge.ip(f"link set {lab.target.role} nomaster")
        lab.online.ip(f"neigh del {lab.target.v4} dev eth0")
        assert wait_until(lambda: "are lost: no answer to ARP" in replay.output, 5), replay.output
        lab.bridge.ip(f"link set {lab.target.role} master br0")
        assert wait_until(lambda: "can be reached again" in replay.output, 10), replay.output
        scenario.finish_load(load)
        scenario.wait_for_target(20, 30)
    check(scenario, replay, 20)
    assert replay.report["send_errors"]["EHOSTUNREACH"] > 0


def refused(scenario: Scenario, transfer: str, *arguments: str) -> str:
    """The line that tcpcopy ends with, exit code 2."""
    lab = scenario.lab
    replay: Replay = scenario.start_tcpcopy(
        "-x", transfer, "-s", lab.assistant.v4, *arguments, wait=False
    )
    assert wait_until(lambda: not replay.tcpcopy.alive, 10)
    assert replay.stop() == 2
    return replay.output.strip()


def test_next_hop_that_does_not_answer(scenario: Scenario) -> None:
    line = refused(scenario, f"{PORT}-10.66.0.77:{PORT}", *OUT)
    assert line == (
        f"tcpcopy: -o eth0: the target 10.66.0.77:{PORT} cannot be reached on it (no answer to "
        "ARP); choose another device, or give the MAC address to send to with -x "
        f"...-10.66.0.77:{PORT}@aa:bb:cc:dd:ee:ff"
    )


def test_target_on_this_host(scenario: Scenario) -> None:
    line = refused(scenario, f"{PORT}-{scenario.lab.online.v4}:8081", *OUT)
    assert "cannot be reached on it (it is an address of this host);" in line


def test_device_that_is_not_ethernet(scenario: Scenario) -> None:
    scenario.lab.online.ip("tuntap add dev tun0 mode tun", "link set tun0 up")
    line = refused(scenario, f"{PORT}-{scenario.lab.target.v4}:{PORT}", "-o", "tun0")
    assert line.startswith("tcpcopy: -o tun0: is not an Ethernet device;")


def test_packets_larger_than_the_device_takes(scenario: Scenario) -> None:
    line = refused(scenario, f"{PORT}-{scenario.lab.target.v4}:{PORT}", *OUT, "-M", "9000")
    assert line.endswith("-M 9000: is more than the device of -o (eth0) takes; give -M 1500")
