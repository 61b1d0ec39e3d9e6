"""Notes when marked requests arrive at a host, by the kernel's time stamps on its device.

Run as `python -m benchmarks.recorder DEVICE ADDRESS PORT FILE`; prints `ready`. At the end
(SIGTERM) FILE has one JSON object: the request's own words (`s1-17`) to nanoseconds of its first
arrival. Marked are requests that begin with `GET /s`, at the start of a segment. IPv4 only.
"""

from __future__ import annotations

import ctypes
import json
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from tcpcopy.demo.processes import LabError

_ETH_P_IP = 0x0800
_SO_ATTACH_FILTER = 26
_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
_SNAP_BYTES = 160
_TIMESPEC = struct.Struct("qq")
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_IGNORE_OUTGOING = 263, 6, 23

MARK = b"GET /s"


def filter_program(address: str, port: int) -> bytes:
    """Classic BPF on an IPv4 header: a TCP segment to `address:port` that begins with the mark."""
    begin, rest = MARK[:4], MARK[4:]
    lines = [
        (0x30, 0, 0, 9),  # protocol
        (0x15, 0, 17, socket.IPPROTO_TCP),
        (0x28, 0, 0, 6),
        (0x45, 15, 0, 0x1FFF),  # later fragments have no TCP header
        (0x20, 0, 0, 16),  # destination
        (0x15, 0, 13, int.from_bytes(socket.inet_aton(address), "big")),
        (0xB1, 0, 0, 0),  # X = length of the IP header
        (0x48, 0, 0, 2),  # destination port
        (0x15, 0, 10, port),
        (0x50, 0, 0, 12),  # data offset, as the upper four bits
        (0x54, 0, 0, 0xF0),
        (0x74, 0, 0, 2),
        (0x0C, 0, 0, 0),  # A += X
        (0x07, 0, 0, 0),  # X = A: where the data begins
        (0x40, 0, 0, 0),
        (0x15, 0, 3, int.from_bytes(begin, "big")),
        (0x48, 0, 0, 4),
        (0x15, 0, 1, int.from_bytes(rest, "big")),
        (0x06, 0, 0, _SNAP_BYTES),
        (0x06, 0, 0, 0),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def words(packet: bytes) -> str:
    """The request's own words out of a packet that passed the filter: what follows the slash."""
    start = (packet[0] & 15) * 4
    start += (packet[start + 12] >> 4) * 4
    return packet[start + 5 : start + 5 + 40].partition(b" ")[0].decode("ascii", "replace")


def open_socket(device: str, address: str, port: int) -> socket.socket:
    """A packet socket that sees marked requests that come in."""
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    program = ctypes.create_string_buffer(filter_program(address, port))
    lines = (len(program) - 1) // 8
    attached = struct.pack("HxxxxxxP", lines, ctypes.addressof(program))
    tap.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, attached)
    tap.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
    tap.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    tap.settimeout(0.1)
    tap.bind((device, _ETH_P_IP))
    return tap


def arrivals(path: Path) -> dict[str, int]:
    """What a recorder wrote. Raises `LabError` if its own socket lost packets."""
    data = json.loads(path.read_text())
    if data["dropped"]:
        raise LabError(f"the recorder lost {data['dropped']} packets")
    result: dict[str, int] = data["arrivals_ns"]
    return result


def main(argv: Sequence[str]) -> int:
    device, address, port, path = argv[0], argv[1], int(argv[2]), Path(argv[3])
    arrivals_ns: dict[str, int] = {}
    ending = False

    def end(*_: object) -> None:
        nonlocal ending
        ending = True

    signal.signal(signal.SIGTERM, end)
    with open_socket(device, address, port) as tap:
        print("ready", flush=True)
        while True:
            try:
                data, extra, _, _ = tap.recvmsg(_SNAP_BYTES, 64)
            except TimeoutError:
                if ending:  # only when all is read
                    break
                continue
            for _, kind, value in extra:
                if kind == _SO_TIMESTAMPNS:
                    seconds, nanoseconds = _TIMESPEC.unpack_from(value)
                    # A retransmission comes later with the same words.
                    arrivals_ns.setdefault(words(data), seconds * 1_000_000_000 + nanoseconds)
        counts = tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
    dropped = struct.unpack("II", counts)[1]
    path.write_text(json.dumps({"dropped": dropped, "arrivals_ns": arrivals_ns}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
