"""Large segments handed to the device whole (-o): as frames, on whole hosts, and when refused."""

from __future__ import annotations

import json
import socket
import subprocess
import time

import pytest

from tcpcopy.capture import rtnetlink
from tcpcopy.deliver.offload import largest_payload
from tcpcopy.packet.batch import PacketBatch
from tests.lab.scenario import Scenario, wait_until
from tests.netns.test_link_layer import OUT
from tests.netns.test_link_sender import (
    SOURCE,
    SOURCE6,
    TARGET,
    TARGET6,
    Wire,
    namespace,
    put,
    sending,
    wire,
)
from tests.netns.test_replay import check
from tests.netns.test_several_devices import bridge
from tests.sim.model import wire as tcp

pytestmark = pytest.mark.netns
__all__ = ["namespace", "wire"]
DATA = bytes(index * 31 % 253 for index in range(60_000))


def offload(device: str, **features: str) -> None:
    words = [word for pair in features.items() for word in pair]
    subprocess.run(["ethtool", "-K", device, *words], check=True, capture_output=True)


def put_large(batch: PacketBatch, target: bytes = TARGET, length: int = 60_000) -> None:
    source = SOURCE if len(target) == 4 else SOURCE6
    batch.tcp(
        source, 1234, target, 8080, 1, 2, 0x18, 500, 0, 0, 0, b"", DATA, 0, length, 1400
    )  # fmt: skip


def largest(device: str) -> int:
    link = rtnetlink.link_named(device)
    assert link is not None
    return largest_payload(link)


def test_what_a_device_can(wire: Wire) -> None:
    """Asked without ethtool, and followed when it changes."""
    assert 60_000 < largest(wire.left) < 65_500
    offload(wire.left, tso="off")
    assert largest(wire.left) == 0
    assert largest_payload(rtnetlink.Link(9, "nowhere", True, 0, 0)) == 0


def test_large_frames_among_others(wire: Wire) -> None:
    """A packet, a large one of each family, a packet: whole at the other end, in order."""
    with sending(wire) as sender:
        assert sender.cuts and sender.largest > 60_000
        batch = PacketBatch(sender)
        put(batch, payload=b"first")
        put_large(batch)
        put_large(batch, TARGET6)
        put(batch, payload=b"last")
        batch.flush()
        assert batch.largest == sender.largest
        frames = wire.frames(4)
        assert sender.errors == {} and sender.packets == 4
    payloads = [tcp.decode(frame[14:], verify=False).payload for frame in frames]
    assert payloads == [b"first", DATA, DATA, b"last"]
    for frame in (frames[0], frames[3]):
        tcp.decode(frame[14:])


def port_states(bridge: str) -> list[str]:
    """The kernel learns of a carrier in its own time, and a port forwards nothing before."""
    links = json.loads(
        subprocess.run(
            ["ip", "-details", "-json", "link", "show", "master", bridge],
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
    )
    return [link["linkinfo"]["info_slave_data"]["state"] for link in links]


def test_cut_on_the_way(wire: Wire) -> None:
    """The receiving end of the cable as a bridge's port, out to a wire that cuts: real segments."""
    subprocess.run(
        ["ip", "-batch", "-"],
        input="link add br0 type bridge forward_delay 0\nlink set br0 up\n"
        f"link set {wire.right} master br0\n"
        "link add out0 type veth peer name out1\nlink set out0 master br0 up\nlink set out1 up\n",
        text=True,
        check=True,
    )
    offload("out0", tso="off", gso="off", tx="off", sg="off")
    assert wait_until(lambda: port_states("br0") == ["forwarding"] * 2, 5), port_states("br0")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0) as reader:
        reader.bind(("out1", 0x0003))
        with sending(wire) as sender:
            batch = PacketBatch(sender)
            put_large(batch)
            put_large(batch, TARGET6)
            batch.flush()
            frames = Wire("", "", reader).frames(86)
    for family in (b"\x08\x00", b"\x86\xdd"):
        segments = [tcp.decode(f[14:]) for f in frames if f[12:14] == family]  # sums verified
        assert [len(s.payload) for s in segments] == [1400] * 42 + [1200]
        assert b"".join(s.payload for s in segments) == DATA
        assert [s.flags for s in segments] == [0x10] * 42 + [0x18]


def test_device_that_stops_cutting(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    """Switched off behind our back: refused, counted; the next look brings it in order."""
    with sending(wire) as sender:
        batch = PacketBatch(sender)
        offload(wire.left, tso="off")
        put_large(batch)
        batch.flush()
        assert sender.errors and not caplog.messages
        assert batch.largest == sender.largest == 0
        sender.look(time.monotonic_ns())
        assert not sender.cuts
        put(batch, payload=b"small")
        batch.flush()
        assert wire.frames(1)[0].endswith(b"small")
        offload(wire.left, tso="on")
        sender.look(time.monotonic_ns())
        put_large(batch)
        batch.flush()
        assert len(wire.frames(1)[0]) > 60_000
        assert batch.largest == sender.largest > 0


def test_device_that_never_takes_them(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    """It says that it cuts and does not: three times, one line, and no more of them."""
    with sending(wire) as sender:
        batch = PacketBatch(sender)
        for _ in range(3):
            sender.look(time.monotonic_ns())
            offload(wire.left, tso="off")
            put_large(batch)
            batch.flush()
            offload(wire.left, tso="on")
        sender.look(time.monotonic_ns())
        assert sender.largest == 0 and not sender.cuts
        put(batch, payload=b"small")
        batch.flush()
        assert wire.frames(1)[0].endswith(b"small")
    assert [m for m in caplog.messages if "does not cut large segments" in m] == caplog.messages
    assert len(caplog.messages) == 1


UPLOADS = "--connections 12 --requests 2 --request-bytes 1000000"


def test_uploads_are_sent_whole(scenario: Scenario) -> None:
    """Few packets reach the target, in which there is every byte; counts are of segments."""
    scenario.servers()
    before = packets_to(scenario)
    with scenario.replay("classic", *OUT) as replay:
        scenario.load(UPLOADS)
        scenario.wait_for_target(12, 30)
    received = packets_to(scenario) - before
    check(scenario, replay, 12)
    assert replay.report["packets"]["sent"] > 24_000_000 // 1460
    assert received < replay.report["packets"]["sent"] / 4
    assert replay.report["send_errors"] == {}


def packets_to(scenario: Scenario) -> int:
    table = scenario.lab.target.run("cat", "/proc/net/dev")
    line = next(line for line in table.splitlines() if "eth0:" in line)
    return int(line.split(":")[1].split()[1])


@pytest.mark.parametrize("percent", [2, 10])
def test_uploads_over_a_bad_cable(scenario: Scenario, percent: int) -> None:
    """Cut into real segments on the way, of which some are lost, doubled, out of order."""
    scenario.servers()
    scenario.bad_link(f"--lose {percent} --duplicate 2 --reorder 2")
    with scenario.replay("classic", *OUT) as replay:
        scenario.load("--connections 6 --requests 2 --request-bytes 300000")
        scenario.wait_for_target(6, 60)
    check(scenario, replay, 6)
    assert replay.report["packets"]["retransmitted"] > 0


def test_offload_switched_off_in_mid_run(scenario: Scenario) -> None:
    """Frames that the device refuses are sent again, cut: every byte arrives."""
    scenario.servers()
    with scenario.replay("classic", *OUT) as replay:
        load = scenario.start_load(
            "--connections 8 --requests 30 --request-bytes 200000 --think-ms 20-60"
        )
        time.sleep(1)
        scenario.lab.online.run("ethtool", "-K", "eth0", "tso", "off")
        scenario.finish_load(load)
        scenario.wait_for_target(8, 30)
    check(scenario, replay, 8)


def test_uploads_through_a_bridge_of_the_host(scenario: Scenario) -> None:
    """A bridge as output device takes large segments; its port passes them on."""
    bridge(scenario.lab)
    scenario.servers()
    with scenario.replay("classic", "-o", "br7", "-i", "br7") as replay:
        scenario.load(UPLOADS)
        scenario.wait_for_target(12, 30)
    check(scenario, replay, 12)
    assert replay.report["send_errors"] == {}
