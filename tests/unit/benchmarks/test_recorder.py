"""The recorder's filter, run by the kernel, and what it reads out of packets."""

from __future__ import annotations

import ctypes
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.recorder import arrivals, filter_program, words
from tcpcopy.demo.netns import LabError

ADDRESS, PORT = "10.66.0.2", 8080


def packet(
    payload: bytes,
    *,
    address: str = ADDRESS,
    port: int = PORT,
    protocol: int = socket.IPPROTO_TCP,
    fragment: int = 0,
    ip_options: int = 0,
    tcp_options: int = 0,
) -> bytes:
    """An IPv4 TCP packet; options in words of four bytes."""
    ip = struct.pack(
        ">BBHHHBBH4s4s", 0x45 + ip_options, 0, 0, 0, fragment, 64, protocol, 0,
        socket.inet_aton("10.66.0.5"), socket.inet_aton(address),
    )  # fmt: skip
    tcp = struct.pack(">HHIIBBHHH", 40000, port, 1, 1, (5 + tcp_options) << 4, 0x18, 100, 0, 0)
    return ip + bytes(4 * ip_options) + tcp + bytes(4 * tcp_options) + payload


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a pipe for datagrams, the second one behind the filter."""
    program = ctypes.create_string_buffer(filter_program(ADDRESS, PORT))
    attached = struct.pack("HxxxxxxP", (len(program) - 1) // 8, ctypes.addressof(program))
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        far.setsockopt(socket.SOL_SOCKET, 26, attached)  # SO_ATTACH_FILTER
        far.setblocking(False)
        yield near, far


MARKED = b"GET /s1-17 HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("data", "passes"),
    [
        (packet(MARKED), True),
        (packet(MARKED, tcp_options=3), True),
        (packet(MARKED, ip_options=2, tcp_options=10), True),
        (packet(b"GET /n1-18 HTTP/1.1\r\n"), False),
        (packet(b"POST /s1-18 HTTP/1.1\r\n"), False),
        (packet(b"GET "), False),
        (packet(b""), False),
        (packet(MARKED, port=80), False),
        (packet(MARKED, address="10.66.0.3"), False),
        (packet(MARKED, protocol=socket.IPPROTO_UDP), False),
        (packet(MARKED, fragment=100), False),
    ],
)
def test_filter_passes_marked_requests(
    pair: tuple[socket.socket, socket.socket], data: bytes, passes: bool
) -> None:
    near, far = pair
    near.send(data)
    if passes:
        assert words(far.recv(2048)) == "s1-17"
    else:
        with pytest.raises(BlockingIOError):
            far.recv(2048)


def test_words_of_a_cut_packet() -> None:
    assert words(packet(MARKED, ip_options=1, tcp_options=2)) == "s1-17"
    assert words(packet(b"GET /s1-9")) == "s1-9"


def test_a_recorder_that_lost_packets_is_no_measurement(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.json"
    path.write_text(json.dumps({"dropped": 0, "arrivals_ns": {"s1": 5}}))
    assert arrivals(path) == {"s1": 5}
    path.write_text(json.dumps({"dropped": 3, "arrivals_ns": {"s1": 5}}))
    with pytest.raises(LabError, match="lost 3"):
        arrivals(path)
