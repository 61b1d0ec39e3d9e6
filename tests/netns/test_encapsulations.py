"""Encapsulations on a live device, as mirrors bring them, and what another reader makes of them."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import capture_files as make
from tests.lab import encapsulations as wrapped
from tests.lab.capture_files import ACK, FIN, PSH, SYN
from tests.lab.encapsulations import ETHERNET, LINKS, TEREDO, TUNNELS, Maker
from tests.lab.reader import Server, serving

pytestmark = pytest.mark.netns
FULL = pytest.mark.acceptance  # what is at its full size, or in unit tests as well

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
SERVER, SERVER_V6 = "10.9.0.1", "[fd00::1]"
CLIENT, CLIENT_V6 = "10.9.0.2", "[fd00::2]"
PLAIN: Maker = make.ethernet


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Sockets and threads that are made here stay in the namespace."""
    with open("/proc/thread-self/ns/net", "rb") as home:
        with open(f"/run/netns/{namespace}", "rb") as there:
            assert _LIBC.setns(there.fileno(), _CLONE_NEWNET) == 0
        try:
            yield
        finally:
            assert _LIBC.setns(home.fileno(), _CLONE_NEWNET) == 0


class Port:
    """A host with a device `mirror`, the frames that come in there, and a target on loopback."""

    def __init__(self, folder: Path) -> None:
        self.namespace = f"E{os.getpid()}"
        self.folder = folder
        self.sender: socket.socket | None = None
        self.server: Server | None = None

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    def open(self, stack: contextlib.ExitStack) -> None:
        name = self.namespace
        self.ip("netns", "add", name)
        stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
        self.ip("-n", name, "link", "set", "lo", "up")
        self.ip("-n", name, "link", "add", "mirror", "address", "02:00:00:00:00:01",
                "type", "veth", "peer", "name", "switch")  # fmt: skip
        for device in ("mirror", "switch"):
            self.ip("-n", name, "link", "set", device, "mtu", "9000", "up")
        with inside(name):
            self.sender = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
            self.sender.bind(("switch", 0))
            self.server = stack.enter_context(serving())

    def send(self, *frames: bytes) -> None:
        assert self.sender is not None
        for frame in frames:
            self.sender.send(frame)

    @contextlib.contextmanager
    def tcpcopy(self, *words: object) -> Iterator[dict[str, Any]]:
        """tcpcopy while the body runs; what is yielded is its report afterwards."""
        assert self.server is not None
        report = self.folder / "report.json"
        log = self.folder / "log"
        command = ["ip", "netns", "exec", self.namespace, sys.executable, "-m", "tcpcopy"]
        command += ["-x", f"80-127.0.0.1:{self.server.port}", "--json", report, "-l", log, *words]  # type: ignore[list-item]
        found: dict[str, Any] = {}
        log.write_text("")
        with subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            try:
                deadline = time.monotonic() + 60
                while "ready" not in log.read_text():
                    assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                    time.sleep(0.02)
                yield found
            finally:
                process.send_signal(signal.SIGINT)
                said = process.communicate(timeout=60)[0]
        found |= json.loads(report.read_text()) | {"said": said}
        assert found["violations"] == []

    def wait_for(self, count: int) -> list[bytes]:
        """The streams that the target has read, once there are so many."""
        assert self.server is not None
        deadline = time.monotonic() + 60
        while len(self.server.streams) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)  # for those that should not come
        return sorted(self.server.streams)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    found = Port(tmp_path)
    with contextlib.ExitStack() as stack:
        found.open(stack)
        yield found


def connection(number: int, text: bytes, *, v6: bool = False, isn: int = 1000) -> list[bytes]:
    """What a client sends, and what is answered, in a connection of one request."""
    client = f"{CLIENT_V6 if v6 else CLIENT}:{40000 + number}"
    server = f"{SERVER_V6 if v6 else SERVER}:80"
    return [
        make.tcp(client, server, SYN, seq=isn),
        make.tcp(server, client, SYN | ACK, seq=5000, ack=isn + 1),
        make.tcp(client, server, ACK, seq=isn + 1, ack=5001),
        make.tcp(client, server, ACK | PSH, text, seq=isn + 1, ack=5001),
        make.tcp(server, client, ACK | PSH, b"ok\n", seq=5001, ack=isn + 1 + len(text)),
        make.tcp(client, server, ACK | FIN, seq=isn + 1 + len(text), ack=5004),
    ]


def live_kinds() -> list[tuple[str, bool, Maker]]:
    """All that a device brings in Ethernet frames, for either family."""
    kinds = [
        (name, v6, maker)
        for name, (link, maker) in (TUNNELS | LINKS).items()
        for v6 in (False, True)
        if link == ETHERNET and name != "snap"  # the kernel hands that on under another type
    ]
    return kinds + [(name, True, maker) for name, (_, maker) in TEREDO.items()]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("-i", "mirror", "--promiscuous"), id="promiscuous"),
        pytest.param(
            ("-i", "mirror", "--decapsulate", "--workers", "2"),
            id="decapsulate, workers",
            marks=FULL,
        ),
    ],
)
def test_every_kind_live(port: Port, words: tuple[str, ...]) -> None:
    kinds = live_kinds()
    texts = [
        f"GET /{name}/{'v6' if v6 else 'v4'} HTTP/1.1\r\n\r\n".encode() for name, v6, _ in kinds
    ]
    with port.tcpcopy(*words) as report:
        for number, (_, v6, maker) in enumerate(kinds):
            port.send(*map(maker, connection(number, texts[number], v6=v6)))
        streams = port.wait_for(len(kinds))
    assert streams == sorted(texts), report["said"]
    assert report["exit_code"] == 0
    assert report["sessions"]["outcomes"]["replayed"] == len(kinds)
    # Answers in tunnels are other traffic, and so are pure acknowledgements once they are left out.
    assert report["tunnels"]["unwrapped"] >= 6 * sum(name in TUNNELS for name, _, _ in kinds)
    assert report["tunnels"]["not_read"] == {}


def test_the_host_is_the_end_of_a_mirror_session(port: Port) -> None:
    """All devices: tunnels that end at this host's own address, as clouds mirror."""
    port.ip("-n", port.namespace, "addr", "add", "192.0.2.2/24", "dev", "mirror")
    kinds = [kind for kind in live_kinds() if kind[0] in ("vxlan", "geneve, options", "erspan 2")]
    with port.tcpcopy("--decapsulate") as report:
        for number, (name, v6, maker) in enumerate(kinds):
            port.send(*map(maker, connection(number, name.encode(), v6=v6)))
        streams = port.wait_for(len(kinds))
    assert streams == sorted(name.encode() for name, _, _ in kinds), report["said"]


@FULL
def test_tunnels_are_left_alone_unless_asked_for(port: Port) -> None:
    with port.tcpcopy("-i", "mirror") as report:
        port.send(*map(TUNNELS["vxlan"][1], connection(1, b"within")))
        port.send(*map(PLAIN, connection(2, b"beside")))
        assert port.wait_for(1) == [b"beside"], report
    assert report["packets"]["captured"] <= 4 and report["tunnels"]["unwrapped"] == 0


@FULL
def test_what_is_not_named_stays_out(port: Port) -> None:
    """Other ports and the target's own traffic are not copied, out of tunnels as otherwise."""
    maker = TUNNELS["vxlan"][1]
    assert port.server is not None
    to_target = make.tcp(f"{CLIENT}:1", f"127.0.0.1:{port.server.port}", SYN, seq=5)
    elsewhere = make.tcp(f"{CLIENT}:1", f"{SERVER}:81", SYN, seq=5)
    with port.tcpcopy("-i", "mirror", "--decapsulate") as report:
        port.send(maker(to_target), maker(elsewhere), *map(maker, connection(1, b"wanted")))
        assert port.wait_for(1) == [b"wanted"]
    assert report["tunnels"]["left_out"] >= 4
    assert report["sessions"]["captured"] == 1


def test_what_cannot_be_read_is_named_with_its_count(port: Port) -> None:
    unknown = make.ethernet(wrapped.to_port(6081, b"\x40\0\x65\x58" + bytes(60)))
    secret = wrapped.shim(0x88E5, b"\x0c\0\0\0\0\1", bytes(60), 0x800)
    with port.tcpcopy("-i", "mirror", "--decapsulate") as report:
        port.send(*[unknown] * 40, *[secret] * 3, *map(PLAIN, connection(1, b"read")))
        port.wait_for(1)
    assert report["tunnels"]["not_read"] == {"GENEVE": 40, "MACsec (encrypted)": 3}
    (text,) = [f["text"] for f in report["findings"] if f["key"] == "encapsulations_unread"]
    assert text.startswith("40 packets of GENEVE, 3 packets of MACsec (encrypted) not read")
    assert text in " ".join(report["said"].split())


def tagged(vlan: int) -> Maker:
    """Frames of a VLAN."""
    return lambda packet: make.MACS + struct.pack("!HHH", 0x8100, vlan, 0x0800) + packet


@pytest.mark.parametrize("kind", ["VLANs", pytest.param("VLAN and none", marks=FULL), "VNIs"])
def test_same_addresses_in_two_networks(port: Port, kind: str) -> None:
    """Two connections at the same time, and a third one that is seen in both networks."""
    first, second = {
        "VLANs": (tagged(10), tagged(20)),
        "VLAN and none": (tagged(10), PLAIN),
        "VNIs": tuple(
            lambda packet, vni=vni: make.ethernet(wrapped.vxlan(make.ethernet(packet), vni=vni))
            for vni in (7, 8)
        ),
    }[kind]
    with port.tcpcopy("-i", "mirror", "--decapsulate") as report:
        pairs = zip(
            connection(1, b"request a"), connection(1, b"request b", isn=3 << 29), strict=True
        )
        for one, other in pairs:
            port.send(first(one), second(other))
        for packet in connection(2, b"seen twice"):
            port.send(first(packet), second(packet))
        streams = port.wait_for(3)
    assert streams == [b"request a", b"request b", b"seen twice"], report["said"]
    assert report["exit_code"] == 0


LONG = b"".join(b"%07d\n" % number for number in range(400))


@pytest.mark.parametrize(
    "words",
    [
        pytest.param((), id="one"),
        pytest.param(("--workers", "2"), id="workers", marks=FULL),
    ],
)
def test_fragments_of_tcp(port: Port, words: tuple[str, ...]) -> None:
    """Without any option; in order, backwards and doubled."""
    families = (False,) if words else (False, True)  # see docs/recorded-traffic.md
    orders = (lambda parts: parts, lambda parts: parts[::-1], lambda parts: [*parts, *parts])
    expected = []
    with port.tcpcopy("-i", "mirror", *words) as report:
        for number, (v6, order) in enumerate((v6, o) for v6 in families for o in orders):
            text = LONG + str(number).encode()
            expected.append(text)
            for place, packet in enumerate(connection(number, text, v6=v6)):
                parts = wrapped.fragments(packet, 1000, number * 10 + place)
                port.send(*map(PLAIN, order(parts)))
        streams = port.wait_for(len(expected))
    assert streams == sorted(expected), report["said"]
    assert report["exit_code"] == 0


def test_fragments_of_a_mirror(port: Port) -> None:
    """A mirror's header makes full packets too long for its own network."""
    names = ("vxlan", "geneve", "erspan 2", "gre ip", "gtp-u")
    with port.tcpcopy("-i", "mirror", "--decapsulate") as report:
        for number, name in enumerate(names):
            for place, packet in enumerate(connection(number, LONG + name.encode())):
                outer = TUNNELS[name][1](packet)[14:]
                parts = wrapped.fragments(outer, 1400, 10 * number + place)
                port.send(*map(PLAIN, parts))
        streams = port.wait_for(len(names))
    assert streams == sorted(LONG + name.encode() for name in names), report["said"]
    assert report["exit_code"] == 0


# Wireshark 4.0 does not know the Linux port of VXLAN, the frame type "IP" of ERSPAN III, Cisco HDLC
# with a direction, and takes a pseudowire's control word for something else.
UNKNOWN_TO_WIRESHARK = {
    "vxlan, linux", "erspan 3, ip", "mpls pseudowire", "cisco hdlc, direction",
}  # fmt: skip


@FULL
def test_frames_are_what_the_specifications_say(tmp_path: Path) -> None:
    """The frames of these tests, as Wireshark reads them: the same payload behind the same port."""
    by_link: dict[int, list[tuple[str, bytes]]] = defaultdict(list)
    for table, families in ((TUNNELS, (False, True)), (LINKS, (False, True)), (TEREDO, (True,))):
        for name, (link, maker) in table.items():
            if name not in UNKNOWN_TO_WIRESHARK:
                for v6 in families:
                    by_link[link].append((name, maker(connection(7, b"payload", v6=v6)[3])))
    path = tmp_path / "frames.pcap"
    for link, frames in by_link.items():
        timed = [(make.START_NS + place, frame) for place, (_, frame) in enumerate(frames)]
        path.write_bytes(make.pcap(timed, link=link))
        command = ["tshark", "-n", "-r", str(path), "-T", "fields"]
        for field in ("tcp.srcport", "tcp.dstport", "tcp.payload"):
            command += ["-e", field]
        read = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for (name, _), line in zip(frames, read.splitlines(), strict=True):
            assert line.split("\t") == ["40007", "80", b"payload".hex()], (link, name)
