"""Live capture against a real kernel: namespaces, veth, offload, loopback, bridge, VLAN tags."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tcpcopy.capture import devices, filters, ring
from tcpcopy.errors import UsageError
from tcpcopy.packet.handler import PacketHandler

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_PORT = 8080
_SERVER, _CLIENT = "10.77.0.1", "10.77.0.2"
_SERVER_V6, _CLIENT_V6 = "fd77::1", "fd77::2"


class Recorder(PacketHandler):
    """Keeps what was handed on: (packet bytes, wire length, timestamp)."""

    __slots__ = ("fail_next", "packets")

    def __init__(self) -> None:
        self.packets: list[tuple[bytes, int, int]] = []
        self.fail_next = False

    def packet(self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int) -> int:
        self.packets.append((bytes(data[start:end]), wire_length, timestamp_ns))
        if self.fail_next:
            self.fail_next = False
            raise RuntimeError("the handler failed")
        return 0


class Tcp:
    """The TCP fields of a captured packet that the tests look at."""

    def __init__(self, packet: bytes) -> None:
        if packet[0] >> 4 == 4:
            header = (packet[0] & 15) * 4
            length = struct.unpack_from("!H", packet, 2)[0]
        else:
            header, length = 40, 40 + struct.unpack_from("!H", packet, 4)[0]
        self.source, self.destination, self.seq = struct.unpack_from("!HHI", packet, header)
        self.flags = packet[header + 13]
        self.payload = packet[header + (packet[header + 12] >> 4) * 4 : length]


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


@contextlib.contextmanager
def _inside(namespace: str) -> Iterator[None]:
    """Run in the namespace: sockets made here stay there."""
    with open("/proc/thread-self/ns/net", "rb") as home:
        with open(f"/run/netns/{namespace}", "rb") as there:
            assert _LIBC.setns(there.fileno(), _CLONE_NEWNET) == 0
        try:
            yield
        finally:
            assert _LIBC.setns(home.fileno(), _CLONE_NEWNET) == 0


@pytest.fixture
def lab() -> Iterator[tuple[str, str]]:
    """Two namespaces, server and client, joined by veth devices `vs` and `vc`."""
    names = (f"C{os.getpid()}s", f"C{os.getpid()}c")
    try:
        for name in names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        server, client = names
        _ip(
            "-n", server, "link", "add", "vs", "type", "veth", "peer", "name", "vc", "netns", client
        )
        for name, device, v4, v6 in (
            (server, "vs", _SERVER, _SERVER_V6),
            (client, "vc", _CLIENT, _CLIENT_V6),
        ):
            _ip("-n", name, "addr", "add", f"{v4}/24", "dev", device)
            _ip("-n", name, "addr", "add", f"{v6}/64", "dev", device, "nodad")
            _ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _program(pure_acks: bool = True, *sources: tuple[bytes, int]) -> bytes:
    wanted = sources or ((b"", _PORT),)
    return filters.compile_filter(filters.expression_for(wanted, [], pure_acks))


def _drain(rings: list[ring.Ring], recorder: Recorder, until: Callable[[], bool]) -> None:
    """Drain until the condition holds and nothing more comes for 100 ms; ten seconds at most."""
    deadline = time.monotonic() + 10
    quiet_since = time.monotonic()
    while time.monotonic() < deadline:
        select.select(rings, [], [], 0.02)
        if sum(one.drain(recorder, 64) for one in rings):
            quiet_since = time.monotonic()
        elif until() and time.monotonic() - quiet_since > 0.1:
            return
    raise AssertionError("what the test waits for did not happen")


class Upload(threading.Thread):
    """Sends `total` bytes over one connection from the client; the server hashes what it reads."""

    def __init__(self, lab: tuple[str, str], total: int, family: int = socket.AF_INET) -> None:
        super().__init__(daemon=True)
        v6 = family == socket.AF_INET6
        self.total = total
        self.done = False
        self.read = hashlib.sha256()
        with _inside(lab[0]):
            self.listener = socket.create_server(
                (_SERVER_V6 if v6 else _SERVER, _PORT), family=family
            )
        with _inside(lab[1]):
            self.client = socket.socket(family, socket.SOCK_STREAM)
        self.address = self.listener.getsockname()

    def run(self) -> None:
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        self.client.connect(self.address)
        block = bytes(i * 7 % 251 for i in range(1 << 18))
        left = self.total
        while left:
            left -= self.client.send(block[:left])
        self.client.close()
        reader.join()
        self.done = True

    def _read(self) -> None:
        connection, _ = self.listener.accept()
        while data := connection.recv(1 << 18):
            self.read.update(data)
        connection.close()
        self.listener.close()


def _stream_of(packets: list[tuple[bytes, int, int]]) -> tuple[bytes, int]:
    """Put captured client packets together by sequence number; also the longest packet."""
    segments = [Tcp(packet) for packet, _, _ in packets]
    (first,) = {segment.seq for segment in segments if segment.flags & 2}
    stream = bytearray()
    for segment in sorted(segments, key=lambda s: (s.seq - first) % (1 << 32)):
        offset = (segment.seq - first - 1) % (1 << 32)
        if segment.payload:
            assert offset <= len(stream), f"a hole at {len(stream)}"
            stream[offset : offset + len(segment.payload)] = segment.payload
    return bytes(stream), max(len(packet) for packet, _, _ in packets)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
@pytest.mark.parametrize("device", ["vs", None], ids=["named", "all"])
def test_upload_with_offload_is_seen_whole(
    lab: tuple[str, str], device: str | None, family: int
) -> None:
    """Each byte of 5 MB sent in segments far above the MTU is captured, and none is cut."""
    recorder = Recorder()
    with _inside(lab[0]):
        rings = ring.open_rings([device] if device else [], _program())
    with contextlib.ExitStack() as stack:
        for one in rings:
            stack.callback(one.close)
        upload = Upload(lab, 5_000_000, family)
        before = time.time_ns()
        upload.start()
        _drain(rings, recorder, lambda: upload.done)
        stream, longest = _stream_of(recorder.packets)
        assert len(stream) == upload.total
        assert hashlib.sha256(stream).digest() == upload.read.digest()
        assert longest > 10_000
        assert sum(one.copied for one in rings) > 0
        assert [one.cut for one in rings] == [0] * len(rings)
        assert sum(one.statistics()[0] for one in rings) == len(recorder.packets)
        assert sum(one.statistics()[1] for one in rings) == 0
        # Own answers go out of the same device: none of them is seen.
        assert {Tcp(packet).destination for packet, _, _ in recorder.packets} == {_PORT}
        assert all(wire == len(packet) for packet, wire, _ in recorder.packets)
        stamps = [stamp for _, _, stamp in recorder.packets]
        assert before <= min(stamps) <= max(stamps) <= time.time_ns()
    # Closed rings still answer.
    assert sum(one.statistics()[0] for one in rings) == len(recorder.packets)
    assert sum(one.drain(recorder, 1) for one in rings) == 0


def _packet(payload: bytes = b"request", port: int = _PORT, destination: str = _SERVER) -> bytes:
    """Return an IPv4 TCP packet from the client, without a TCP checksum: capture does not look."""
    ends = socket.inet_aton(_CLIENT) + socket.inet_aton(destination)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(payload), 1, 0, 64, 6, 0) + ends
    total = sum(struct.unpack("!10H", header))  # a bridge does look at this one
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    header = header[:10] + struct.pack("!H", checksum) + header[12:]
    return header + struct.pack("!HHIIBBHHH", 4000, port, 1, 1, 0x50, 0x18, 999, 0, 0) + payload


def _mac(namespace: str, device: str) -> bytes:
    with _inside(namespace), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as probe:
        probe.bind((device, 0))
        return bytes(probe.getsockname()[4])


class Wire:
    """Sends hand-made frames from the client's device; tests read what the server captures."""

    def __init__(self, lab: tuple[str, str]) -> None:
        self.lab = lab
        self.to = _mac(lab[0], "vs")
        with _inside(lab[1]):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.socket.bind(("vc", 0))

    def send(
        self, packet: bytes, *, tags: bytes = b"", kind: int = 0x0800, to: bytes = b""
    ) -> None:
        """Send one frame; `tags` stand before the Ethernet type."""
        source = self.socket.getsockname()[4]
        self.socket.send((to or self.to) + source + tags + struct.pack("!H", kind) + packet)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def _tag(vlan: int, kind: int = 0x8100) -> bytes:
    return struct.pack("!HH", kind, vlan)


def _captured(rings: list[ring.Ring]) -> list[bytes]:
    recorder = Recorder()
    _drain(rings, recorder, lambda: True)
    return [packet for packet, _, _ in recorder.packets]


@contextlib.contextmanager
def _rings(namespace: str, names: list[str], **options: Any) -> Iterator[list[ring.Ring]]:
    program = options.pop("program", _program())
    with _inside(namespace):
        rings = ring.open_rings(names, program, **options)
    try:
        yield rings
    finally:
        for one in rings:
            one.close()


@pytest.mark.parametrize("names", [["lo"], []], ids=["named", "all"])
def test_loopback_shows_each_packet_once(lab: tuple[str, str], names: list[str]) -> None:
    """A request over `lo` of many small writes: no packet of the client is seen twice."""
    with _rings(lab[0], names) as rings:
        with _inside(lab[0]):
            listener = socket.create_server(("127.0.0.1", _PORT))
            client = socket.create_connection(("127.0.0.1", _PORT))
        served, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(50):
            client.send(b"%05d" % number)
        assert served.recv(250, socket.MSG_WAITALL) == b"".join(b"%05d" % n for n in range(50))
        packets = _captured(rings)
        with_data = [Tcp(packet).payload for packet in packets]
        assert b"".join(with_data) == b"".join(b"%05d" % number for number in range(50))
        assert len([packet for packet in packets if Tcp(packet).flags & 2]) == 1
        for one in (client, served, listener):
            one.close()


def test_tagged_frames_on_a_named_device(lab: tuple[str, str]) -> None:
    """One tag the kernel takes off, the second and third stand before the IP header."""
    packets = [_packet(b"%d tags" % tags) for tags in range(4)]
    with _rings(lab[0], ["vs"]) as rings, Wire(lab) as wire:
        wire.send(packets[0])
        wire.send(packets[1], tags=_tag(5))
        wire.send(packets[2], tags=_tag(7, 0x88A8) + _tag(5))
        wire.send(_packet(port=1), tags=_tag(7, 0x88A8) + _tag(5))
        assert _captured(rings) == packets[:3]
    with _rings(lab[0], ["vs"], program=filters.compile_filter("len >= 0")) as rings:
        with Wire(lab) as wire:
            wire.send(packets[3], tags=_tag(7, 0x88A8) + _tag(6) + _tag(5))
            wire.send(b"\x45" + bytes(59), kind=0x88B5)  # no IP, though it looks like it
            wire.send(_tag(5)[2:], tags=_tag(7, 0x88A8), kind=0x8100)  # ends inside a tag
            recorder = Recorder()
            _drain(rings, recorder, lambda: rings[0].statistics()[0] >= 3)
        handed = [(packet, wire) for packet, wire, _ in recorder.packets if b"tags" in packet]
        assert handed == [(packets[3], len(packets[3]))]
        assert rings[0].skipped >= 2


def test_tags_and_headers_that_look_alike(lab: tuple[str, str]) -> None:
    """A tag that begins like IPv4, and an IPv4 length that looks like a type behind a tag."""
    for name, device in zip(lab, ("vs", "vc"), strict=True):
        _ip("-n", name, "link", "set", device, "mtu", "9000")
    jumbo = _packet(bytes(5000))
    looks_tagged = _packet(bytes(0x0800 - 40))
    with _rings(lab[0], ["vs"]) as rings, Wire(lab) as wire:
        # Priority 2 and VLAN 1285: the tag's first byte is that of an IPv4 header.
        wire.send(_packet(), tags=_tag(7, 0x88A8) + _tag(0x4505))
        wire.send(jumbo, tags=_tag(7, 0x88A8) + _tag(0x4505))
        wire.send(looks_tagged)
        assert _captured(rings) == [_packet(), jumbo, looks_tagged]
        assert rings[0].copied == 2
        assert (rings[0].cut, rings[0].skipped) == (0, 0)


def test_all_devices_means_what_this_host_receives(lab: tuple[str, str]) -> None:
    """Frames to another link address or of a VLAN that is not ours are not for this host."""
    with _rings(lab[0], []) as rings, _rings(lab[0], ["vs"]) as named, Wire(lab) as wire:
        wire.send(_packet(b"elsewhere"), to=bytes.fromhex("020000000099"))
        wire.send(_packet(b"tagged"), tags=_tag(5))
        wire.send(_packet(b"priority tag"), tags=_tag(0))
        wire.send(_packet(b"ours"))
        assert _captured(rings) == [_packet(b"priority tag"), _packet(b"ours")]
        # The named device is a mirror port if one likes: it shows them all.
        assert len(_captured(named)) == 4


def test_vlan_device_and_its_parent(lab: tuple[str, str]) -> None:
    """With all devices captured, a packet of a VLAN is seen once: on the VLAN device."""
    arguments = ["link", "add", "link", "vs", "name", "vs5", "type", "vlan", "id", "5"]
    made = subprocess.run(["ip", "-n", lab[0], *arguments], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("this kernel has no VLAN devices")
    _ip("-n", lab[0], "link", "set", "vs5", "up")
    with (
        _rings(lab[0], []) as everything,
        _rings(lab[0], ["vs"]) as parent,
        _rings(lab[0], ["vs5"]) as vlan,
        Wire(lab) as wire,
    ):
        wire.send(_packet(), tags=_tag(5))
        assert _captured(everything) == _captured(parent) == _captured(vlan) == [_packet()]
    with _inside(lab[0]):
        assert devices.overlapping(["vs", "vs5"]) == [("vs", "vs5")]


def test_bridge_and_its_port(lab: tuple[str, str]) -> None:
    """With all devices captured, a packet for a bridge with two ports is seen once."""
    server = lab[0]
    _ip("-n", server, "link", "add", "br0", "type", "bridge")
    _ip("-n", server, "link", "set", "br0", "address", _mac(server, "vs").hex(":"))
    _ip("-n", server, "link", "add", "p0", "type", "veth", "peer", "name", "p1")
    for name in ("vs", "p0"):
        _ip("-n", server, "link", "set", name, "master", "br0")
    for name in ("p0", "p1", "br0"):
        _ip("-n", server, "link", "set", name, "up")
    with (
        _rings(server, []) as everything,
        _rings(server, ["vs", "br0"]) as both,
        Wire(lab) as wire,
    ):
        time.sleep(0.2)  # ports of a bridge that has just been made
        wire.send(_packet(b"for the bridge"))
        # An unknown address is flooded to the other port, and leaves this host by it.
        wire.send(_packet(b"switched"), to=bytes.fromhex("020000000099"))
        assert _captured(everything) == [_packet(b"for the bridge")]
        assert [_captured([one]) for one in both] == [
            [_packet(b"for the bridge"), _packet(b"switched")],
            [_packet(b"for the bridge")],
        ]
    with _inside(server):
        assert devices.overlapping(["br0", "vs", "p1"]) == [("vs", "br0")]
        assert devices.overlapping(["p0", "p1"]) == []


def test_full_ring_is_counted(lab: tuple[str, str]) -> None:
    """A ring of two frames keeps two packets; the kernel's drops are reported, and add up."""
    with _rings(lab[0], ["vs"], buffer_bytes=4096) as rings, Wire(lab) as wire:
        for number in range(10):
            wire.send(_packet(b"%d" % number))
        assert rings[0].statistics() == (2, 8)
        assert _captured(rings) == [_packet(b"0"), _packet(b"1")]
        for number in range(10, 13):
            wire.send(_packet(b"%d" % number))
        assert rings[0].statistics() == (4, 9)
        assert _captured(rings) == [_packet(b"10"), _packet(b"11")]
        assert rings[0].statistics() == rings[0].statistics() == (4, 9)


def test_without_room_for_copies_packets_are_cut_and_counted(lab: tuple[str, str]) -> None:
    """The queue for large packets full: cut, with the true length, and counted."""
    recorder = Recorder()
    with _rings(lab[0], ["vs"], buffer_bytes=1 << 20) as rings:
        upload = Upload(lab, 5_000_000)
        upload.start()
        upload.join(10)  # nothing is read before the queue, of some 30 large packets, is full
        _drain(rings, recorder, lambda: upload.done)
        received, dropped = rings[0].statistics()
        assert received == len(recorder.packets)
        assert dropped == 0 or received == (1 << 20) // ring.FRAME_BYTES
        cut = [packet for packet, wire, _ in recorder.packets if len(packet) < wire]
        assert 0 < len(cut) == rings[0].cut
        assert {len(packet) for packet in cut} == {ring.FRAME_BYTES - 80}
        # Those that were queued are whole: cut ones before, between and after do not mix them up.
        whole = [packet for packet, wire, _ in recorder.packets if len(packet) == wire]
        assert rings[0].copied == len([p for p in whole if len(p) > ring.FRAME_BYTES - 80]) > 0
        pattern = bytes(i * 7 % 251 for i in range(1 << 18)) * 21
        first = min(Tcp(packet).seq for packet in whole if Tcp(packet).flags & 2)
        for segment in map(Tcp, whole):
            at = segment.seq - first - 1
            assert segment.payload == pattern[at : at + len(segment.payload)] or not segment.payload


@contextlib.contextmanager
def _without_net_admin() -> Iterator[None]:
    """Take CAP_NET_ADMIN from this thread's effective capabilities for a while."""
    header = struct.pack("=Ii", 0x20080522, 0)
    held = ctypes.create_string_buffer(24)
    assert _LIBC.capget(header, held) == 0
    sets = list(struct.unpack("=6I", held.raw))
    try:
        assert _LIBC.capset(header, struct.pack("=6I", sets[0] & ~(1 << 12), *sets[1:])) == 0
        yield
    finally:
        assert _LIBC.capset(header, held) == 0


def test_capture_with_cap_net_raw_alone(lab: tuple[str, str]) -> None:
    """All works but the size of the queue for large packets, and `queue_bytes` says so."""
    with _inside(lab[0]), _without_net_admin():
        (one,) = ring.open_rings(["vs"], _program())
    with contextlib.closing(one), _rings(lab[0], ["vs"]) as (privileged,), Wire(lab) as wire:
        with open("/proc/sys/net/core/rmem_max", encoding="ascii") as limit:
            assert one.queue_bytes == min(2 * int(limit.read()), 2 * ring.DEFAULT_BUFFER_BYTES)
        assert privileged.queue_bytes == 2 * ring.DEFAULT_BUFFER_BYTES
        wire.send(_packet())
        assert _captured([one]) == _captured([privileged]) == [_packet()]


def test_snaplen_is_no_loss(lab: tuple[str, str]) -> None:
    """Packets shortened on purpose keep their length and are not counted as cut."""
    recorder = Recorder()
    with _rings(lab[0], ["vs"], snaplen=96) as rings:
        upload = Upload(lab, 1_000_000)
        upload.start()
        _drain(rings, recorder, lambda: upload.done)
        assert rings[0].cut == 0
    assert max(len(packet) for packet, _, _ in recorder.packets) == 96
    assert max(wire for _, wire, _ in recorder.packets) > 10_000


def test_a_handler_that_fails_loses_nothing_else(lab: tuple[str, str]) -> None:
    """The exception comes out of `drain`, the frame goes back, the next call goes on behind it."""
    recorder = Recorder()
    with _rings(lab[0], ["vs"], buffer_bytes=4096) as rings, Wire(lab) as wire:
        for turn in range(5):  # several rounds of a ring of two frames
            wire.send(_packet(b"bad %d" % turn))
            wire.send(_packet(b"good %d" % turn))
            recorder.fail_next = True
            with pytest.raises(RuntimeError, match="the handler failed"):
                rings[0].drain(recorder, 10)
            assert rings[0].drain(recorder, 10) == 1
        payloads = [Tcp(packet).payload for packet, _, _ in recorder.packets]
        assert payloads == [b"%s %d" % (kind, n) for n in range(5) for kind in (b"bad", b"good")]
        assert rings[0].statistics() == (10, 0)


def test_limit_of_a_drain(lab: tuple[str, str]) -> None:
    recorder = Recorder()
    with _rings(lab[0], ["vs"]) as rings, Wire(lab) as wire:
        for number in range(5):
            wire.send(_packet(b"%d" % number))
        assert [rings[0].drain(recorder, 2) for _ in range(4)] == [2, 2, 1, 0]


def test_device_that_goes_down_and_comes_back(lab: tuple[str, str]) -> None:
    """Counted, does not poll ready for ever, and capture goes on."""
    with _rings(lab[0], ["vs"]) as rings, Wire(lab) as wire:
        one = rings[0]
        _ip("-n", lab[0], "link", "set", "vs", "down")
        assert select.select(rings, [], [], 1)[0] == rings
        assert one.drain(Recorder(), 8) == 0
        one.check_device()
        assert (one.device_downs, one.failed) == (1, None)
        assert select.select(rings, [], [], 0.05)[0] == []
        _ip("-n", lab[0], "link", "set", "vs", "up")
        time.sleep(0.1)
        wire.send(_packet())
        assert _captured(rings) == [_packet()]
        assert (one.device_downs, one.failed) == (1, None)


@pytest.mark.parametrize("down_first", [False, True])
def test_device_that_goes_away_and_is_made_anew(lab: tuple[str, str], down_first: bool) -> None:
    """The owner is told why; `rebind` fails while there is no such device, then goes on."""
    make = ("-n", lab[0], "link", "add", "p0", "type", "veth", "peer", "name", "p1")
    _ip(*make)
    _ip("-n", lab[0], "link", "set", "p0", "up")
    _ip("-n", lab[0], "link", "set", "p1", "up")
    with _rings(lab[0], ["p0"]) as rings:
        one = rings[0]
        if down_first:
            _ip("-n", lab[0], "link", "set", "p0", "down")
            one.check_device()
            assert one.failed is None
        _ip("-n", lab[0], "link", "del", "p0")
        one.check_device()
        assert one.failed == "device p0 is gone"
        assert one.device_downs == 1
        with _inside(lab[0]):
            assert not one.rebind()
            assert one.failed == "device p0: No such device"
            _ip(*make)
            _ip("-n", lab[0], "link", "set", "p0", "up")
            _ip("-n", lab[0], "link", "set", "p1", "up")
            assert one.rebind()
            assert one.failed is None
            with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as sender:
                sender.bind(("p1", 0x0800))
                sender.sendto(_packet(), ("p1", 0x0800, 0, 0, b"\xff" * 6))
        assert _packet() in _captured(rings)


def test_filter_can_be_changed(lab: tuple[str, str]) -> None:
    """Nothing passes REJECT_ALL; another program takes its place while the ring runs."""
    with _rings(lab[0], ["vs"], program=filters.REJECT_ALL) as rings, Wire(lab) as wire:
        wire.send(_packet(b"too early"))
        assert _captured(rings) == []
        rings[0].set_filter(_program())
        wire.send(_packet(b"in time"))
        assert _captured(rings) == [_packet(b"in time")]
        rings[0].set_filter(_program(False))
        wire.send(_packet(b""))
        wire.send(_packet(b"data"))
        assert _captured(rings) == [_packet(b"data")]


def test_what_cannot_be_opened(lab: tuple[str, str]) -> None:
    """Refused in one line, and no descriptor is left."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UsageError, match="-i nosuch: there is no such device"):
        ring.open_rings(["lo", "nosuch"], _program())
    with pytest.raises(UsageError, match="-B 1048576: no capture buffer"):
        ring.Ring("lo", _program(), buffer_bytes=1 << 40)
    with pytest.raises(UsageError, match="-F: the kernel does not take the filter"):
        ring.Ring("lo", b"\xff" * 8)
    with pytest.raises(ValueError, match="open_rings"):
        ring.Ring(None, _program())
    assert len(os.listdir("/proc/self/fd")) == before
