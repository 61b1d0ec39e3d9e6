"""SYNs from addresses that are nobody's, at an even rate: what a SYN flood is on the wire.

Run as `python -m tests.lab.syn_flood HOST PORT --count N --seconds S` where raw sockets may be
opened. Prints "ready" when all are made, waits for SIGUSR1, sends, and prints how long that took.
Nothing ever answers for the addresses that it uses: 100.66.0.0/15, fd68::/64.
"""

from __future__ import annotations

import argparse
import random
import signal
import socket
import struct
import time

NETWORKS = {4: "100.66.0.0/15", 6: "fd68::/64"}
_OPTIONS = bytes.fromhex("020405b40402080a000003e80000000001030307")
_BURST_S = 0.005


def checksum(data: bytes) -> int:
    """The sum of the Internet protocols (RFC 1071); `data` has an even length."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packets(host: str, port: int, count: int, seed: int = 1) -> list[bytes]:
    """`count` SYNs to `host`:`port`, IP header included; each from another address and port."""
    generator = random.Random(seed)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    target = socket.inet_pton(family, host)
    result = []
    for number in range(count):
        if family == socket.AF_INET:
            source = struct.pack(">I", 0x64420000 | (number * 7919) % (1 << 17))
        else:
            source = bytes.fromhex("fd68000000000000") + struct.pack(">Q", number * 7919 + 1)
        size = 20 + len(_OPTIONS)
        head = struct.pack(
            ">HHIIBBHHH",
            1024 + generator.randrange(64000),
            port,
            generator.randrange(1 << 32),
            0,
            size // 4 << 4,
            2,
            64240,
            0,
            0,
        )
        pseudo = source + target + struct.pack(">HH", 6, size)
        tcp = bytearray(head + _OPTIONS)
        tcp[16:18] = struct.pack(">H", checksum(pseudo + bytes(tcp)))
        if family == socket.AF_INET:
            # The kernel fills the checksum of the IP header in.
            ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + size, 0, 0x4000, 64, 6, 0)
        else:
            ip = struct.pack(">IHBB", 0x60000000, size, 6, 64)
        result.append(ip + source + target + bytes(tcp))
    return result


def send(host: str, packets: list[bytes], seconds: float) -> float:
    """Send them evenly over so many seconds; how many it took."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        began = time.monotonic()
        sent = 0
        while sent < len(packets):
            passed = time.monotonic() - began
            due = min(len(packets), int(len(packets) * passed / seconds) + 1)
            for packet in packets[sent:due]:
                raw.sendto(packet, (host, 0))
            sent = due
            time.sleep(_BURST_S)
        return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    made = packets(options.host, options.port, options.count, options.seed)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    print("ready", flush=True)
    signal.sigwait({signal.SIGUSR1})
    print(f"sent {len(made)} in {send(options.host, made, options.seconds):.2f} s", flush=True)


if __name__ == "__main__":
    main()
