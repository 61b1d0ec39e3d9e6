"""Several devices of -i, also such as show the same packets: each session once, exact; -B, -S."""

from __future__ import annotations

import pytest

from tcpcopy.demo.netns import Lab
from tcpcopy.demo.processes import LabError
from tests.lab.scenario import PORT, Scenario
from tests.netns.test_replay import check

pytestmark = pytest.mark.netns
MODES = ("socket", "classic")
SHORT = "--connections 1500 --concurrency 60"
LONG = "--connections 30 --requests 40 --think-ms 0-3"
UPLOADS = "--connections 6 --requests 2 --request-bytes 400000"
BOTH = ("-i", "br7,eth0")


def bridge(lab: Lab) -> None:
    """Online's address on a bridge, its device the bridge's port: packets show on both."""
    lab.online.ip(
        "link add br7 type bridge forward_delay 0",
        "link set br7 up",
        f"addr flush dev eth0 to {lab.online.v4}",
        "link set eth0 master br7",
        f"addr add {lab.online.v4}/16 dev br7",
        f"route add 10.66.1.0/24 via {lab.client.v4}",
    )
    lab.online.sysctl({"net/ipv4/conf/br7/rp_filter": "0"})


@pytest.mark.parametrize("words", [(), ("--workers", 2), ("-n", 2)], ids=str)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "load",
    [
        pytest.param(SHORT, id="short"),
        pytest.param(LONG, id="long", marks=pytest.mark.acceptance),
        pytest.param(UPLOADS, id="uploads", marks=pytest.mark.acceptance),
    ],
)
def test_packets_seen_twice(
    scenario: Scenario, load: str, mode: str, words: tuple[object, ...]
) -> None:
    """A bridge and its port: no session twice, none spoilt, and tcpcopy says so at the start."""
    bridge(scenario.lab)
    scenario.servers()
    streams = int(load.split()[1])
    copies = 2 if "-n" in words else 1
    with scenario.replay(mode, *BOTH, *words) as replay:
        scenario.load(load)
        scenario.wait_for_target(streams * copies, 40)
    check(scenario, replay, streams, copies=copies)
    assert replay.report["sessions"]["captured"] == streams * copies
    assert replay.report["sessions"]["midstream"] == 0
    assert replay.output.count("packets are seen on both") == 1


@pytest.mark.parametrize("mode", MODES)
def test_think_times_are_kept(scenario: Scenario, mode: str) -> None:
    """Neither round-trip times nor pauses are spoilt by packets that come twice."""
    bridge(scenario.lab)
    scenario.servers("--kernel-times")
    with scenario.replay(mode, *BOTH) as replay:
        scenario.load("--connections 20 --requests 40 --think-ms 2-40 --rate 100", timeout=60)
        scenario.wait_for_target(20, 30)
    check(scenario, replay, 20)
    pacing = scenario.compare().pacing_ms()
    assert pacing.p50 <= 0.5, pacing


def test_vlan_and_its_parent(scenario: Scenario) -> None:
    """The tagged frame on the parent, the same without its tag on the VLAN device."""
    lab = scenario.lab
    for host, address in ((lab.online, "10.78.0.2/24"), (lab.client, "10.78.0.5/24")):
        try:
            host.ip("link add link eth0 name eth0.7 type vlan id 7")
        except LabError as error:
            pytest.skip(f"no VLAN devices: {error}")
        host.ip("link set eth0.7 up", f"addr add {address} dev eth0.7")
    scenario.servers()
    with scenario.replay("socket", "-i", "eth0,eth0.7") as replay:
        scenario.load(LONG, to="10.78.0.2")
        scenario.load("--connections 5 --seed 3")
        scenario.wait_for_target(35)
    check(scenario, replay, 35)
    assert "-i eth0,eth0.7: packets are seen on both" in replay.output


def test_two_devices_of_their_own(scenario: Scenario) -> None:
    """Clients of two networks, one on each device; a third device is not captured."""
    lab = scenario.lab
    for number in (1, 2):
        lab.online.ip(
            f"link add side{number} type veth peer name side{number} netns {lab.client.namespace}",
            f"link set side{number} up",
            f"addr add 10.8{number}.0.2/24 dev side{number}",
        )
        lab.client.ip(f"link set side{number} up", f"addr add 10.8{number}.0.5/24 dev side{number}")
    scenario.servers()
    with scenario.replay("socket", "-i", "eth0", "-i", "side1") as replay:
        scenario.load(LONG)
        scenario.load("--connections 7 --seed 3", to="10.81.0.2")
        scenario.load("--connections 9 --seed 4", to="10.82.0.2")
        scenario.wait_for_target(37)
    assert replay.exit_code == 0, replay.output
    assert replay.report["sessions"]["captured"] == replay.report["sessions"]["replayed"] == 37
    assert len(scenario.target[0].stop()) == 37


@pytest.mark.parametrize("words", [("-B", 4), ("-B", 64), ("-S", 65535), ("-S", 262144)], ids=str)
def test_buffer_and_snaplen(scenario: Scenario, words: tuple[object, ...]) -> None:
    scenario.servers()
    with scenario.replay("classic", "-i", "eth0,lo", *words) as replay:
        scenario.load(UPLOADS)
        scenario.load("--connections 20 --seed 8")
        scenario.wait_for_target(26, 30)
    check(scenario, replay, 26)
    assert replay.report["kernel"]["dropped"] == 0


def test_snaplen_that_cuts(scenario: Scenario) -> None:
    """Sessions with longer packets end as what they are, a hole; the others are exact."""
    scenario.servers()
    with scenario.replay("socket", "-i", "eth0", "-S", 400) as replay:
        scenario.load("--connections 10 --request-bytes 2000")
        scenario.load("--connections 10 --seed 5 --request-bytes 100")
        scenario.wait_for_target(10, 5)
        outcome = replay.stop()
    assert outcome == 1
    sessions = replay.report["sessions"]
    assert sessions["captured"] == 20
    assert sessions["replayed"] == 10, sessions


@pytest.mark.parametrize("load", [SHORT, LONG, UPLOADS], ids=["short", "long", "uploads"])
def test_workers_with_frames(scenario: Scenario, load: str) -> None:
    """--workers and -o: each worker has its own socket and looks the next hop up itself."""
    scenario.servers()
    streams = int(load.split()[1])
    with scenario.replay("classic", "-o", "eth0", "--workers", 2) as replay:
        scenario.load(load)
        scenario.wait_for_target(streams, 40)
    check(scenario, replay, streams)
    assert replay.report["mode"] == "link"
    assert replay.report["send_errors"] == {}


def test_worker_with_frames_that_has_no_next_hop(scenario: Scenario) -> None:
    """What one worker refuses is one line, as without workers."""
    words = ("-x", f"{PORT}-10.66.0.77:{PORT}", "-s", scenario.lab.assistant.v4, "-o", "eth0")
    scenario.start_intercept()
    replay = scenario.start_tcpcopy(*words, "--workers", 2, wait=False)
    assert replay.tcpcopy.wait(20) == 2
    lines = replay.output.splitlines()
    assert len(lines) == 1 and "cannot be reached on it (no answer to ARP)" in lines[0], lines
