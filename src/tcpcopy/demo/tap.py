"""Measures a server's latency where both servers can be measured alike: on the network device.

Run as `python -m tcpcopy.demo.tap DEVICE ADDRESS PORT`; prints `ready`, and one JSON line at the
end (SIGTERM). A latency is the time from a request's first packet in to the first byte of the
answer out, by the kernel's time stamps. Only clients whose port is a multiple of four are looked
at. IPv4, one request at a time on each connection.
"""

from __future__ import annotations

import ctypes
import json
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence

_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26
_SO_TIMESTAMPNS = 35
_SNAP_BYTES = 128
_TIMESPEC = struct.Struct("qq")
_IPV4_TCP = struct.Struct(">BxHxxxxxxxx4s4s")


def filter_program(port: int) -> bytes:
    """Classic BPF on an IPv4 header: TCP to or from `port`, the other port a multiple of four."""
    lines = [
        (0x30, 0, 0, 0),  # first byte of the header
        (0x54, 0, 0, 0xF0),
        (0x15, 0, 14, 0x40),  # version 4, or reject
        (0x30, 0, 0, 9),
        (0x15, 0, 12, socket.IPPROTO_TCP),
        (0x28, 0, 0, 6),
        (0x45, 10, 0, 0x1FFF),  # later fragments have no ports
        (0xB1, 0, 0, 0),  # header length
        (0x48, 0, 0, 0),  # source port
        (0x15, 0, 2, port),
        (0x48, 0, 0, 2),
        (0x05, 0, 0, 3),
        (0x48, 0, 0, 2),  # destination port
        (0x15, 0, 3, port),
        (0x48, 0, 0, 0),
        (0x54, 0, 0, 3),  # the client's port
        (0x15, 1, 0, 0),
        (0x06, 0, 0, 0),  # reject
        (0x06, 0, 0, _SNAP_BYTES),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in lines)


class Latencies:
    """Pairs requests with the first byte of their answers."""

    def __init__(self, address: str, port: int) -> None:
        self.address = socket.inet_aton(address)
        self.port = port
        self.asked_ns: dict[tuple[bytes, int], int] = {}  # client: when its request came
        self.values_ns: list[int] = []

    def packet(self, data: bytes, timestamp_ns: int) -> None:
        """One IPv4 TCP packet, from its IP header on; may be cut after the TCP header."""
        first, total, source, destination = _IPV4_TCP.unpack_from(data)
        start = (first & 15) * 4
        source_port, destination_port = struct.unpack_from(">HH", data, start)
        if total - start - (data[start + 12] >> 4) * 4 <= 0:
            return  # no payload
        # Online's device also carries the replayed requests out, from the same clients' addresses.
        if destination_port == self.port and destination == self.address:
            self.asked_ns.setdefault((source, source_port), timestamp_ns)
        elif source_port == self.port and source == self.address:
            asked_ns = self.asked_ns.pop((destination, destination_port), None)
            if asked_ns is not None:
                self.values_ns.append(timestamp_ns - asked_ns)

    def summary(self) -> dict[str, float | int | None]:
        """Number of latencies seen, and p50 and p99 in milliseconds (None without any)."""
        ordered = sorted(self.values_ns)

        def percentile(share: float) -> float | None:
            return ordered[int((len(ordered) - 1) * share)] / 1e6 if ordered else None

        return {"count": len(ordered), "p50_ms": percentile(0.5), "p99_ms": percentile(0.99)}


def open_tap(device: str, port: int) -> socket.socket:
    """A packet socket that sees the sampled packets of both directions."""
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    program = ctypes.create_string_buffer(filter_program(port))
    lines = (len(program) - 1) // 8
    attached = struct.pack("HxxxxxxP", lines, ctypes.addressof(program))
    tap.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, attached)
    tap.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    tap.settimeout(0.1)
    tap.bind((device, _ETH_P_ALL))
    return tap


def main(argv: Sequence[str]) -> int:
    device, address, port = argv[0], argv[1], int(argv[2])
    latencies = Latencies(address, port)
    ending = False

    def end(*_: object) -> None:
        nonlocal ending
        ending = True

    signal.signal(signal.SIGTERM, end)
    with open_tap(device, port) as tap:
        print("ready", flush=True)
        while not ending:
            try:
                data, extra, _, _ = tap.recvmsg(_SNAP_BYTES, 64)
            except TimeoutError:
                continue
            timestamp_ns = time.time_ns()
            for _, kind, value in extra:
                if kind == _SO_TIMESTAMPNS:
                    seconds, nanoseconds = _TIMESPEC.unpack_from(value)
                    timestamp_ns = seconds * 1_000_000_000 + nanoseconds
            latencies.packet(data, timestamp_ns)
    print(json.dumps(latencies.summary()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
