"""A bad cable: carries frames between two devices and loses, doubles, delays, reorders TCP packets.

Run as `python -m tests.lab.badlink DEVICE DEVICE [options]` where both devices are visible; prints
`ready`, and its counts as one JSON line at the end (SIGTERM). Only TCP packets suffer; ARP and
neighbour discovery pass. Python is slow: good for some ten thousand packets a second.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import random
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass, field

_SOL_PACKET = 263
_PACKET_IGNORE_OUTGOING = 23
_SO_RCVBUFFORCE = 33
_ETH_P_ALL = 3
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_LONGEST_FRAME = 65536 + 18


def is_tcp(frame: bytes | memoryview) -> bool:
    """Whether an Ethernet frame holds TCP over IPv4 or IPv6 (without extension headers)."""
    kind = bytes(frame[12:14])
    if kind == _IPV4:
        return len(frame) > 23 and frame[23] == socket.IPPROTO_TCP
    return kind == _IPV6 and len(frame) > 20 and frame[20] == socket.IPPROTO_TCP


def is_syn(frame: bytes | memoryview) -> bool:
    """Whether the TCP packet in an Ethernet frame has the SYN flag."""
    header = 14 + ((frame[14] & 15) * 4 if frame[12:14] == _IPV4 else 40)
    return len(frame) > header + 13 and bool(frame[header + 13] & 2)


@dataclass(slots=True)
class Faults:
    """What happens to the packets of one direction; percentages of packets, times in ms."""

    lose: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0  # held back, so that later ones overtake
    delay_ms: float = 0.0  # every packet, order kept
    syn_delay_ms: float = 0.0  # SYNs, so much more
    hold_ms: float = 2.0  # how long at most a held packet or second copy comes later
    random: random.Random = field(default_factory=random.Random)
    counts: dict[str, int] = field(
        default_factory=lambda: {"packets": 0, "lost": 0, "duplicated": 0, "reordered": 0}
    )

    def plan_ns(self, is_syn: bool = False) -> list[int]:
        """Delays of the copies of the next packet: [] if it is lost, [0] if nothing happens."""
        self.counts["packets"] += 1
        chance = self.random.random
        if chance() * 100 < self.lose:
            self.counts["lost"] += 1
            return []
        base_ns = int((self.delay_ms + self.syn_delay_ms * is_syn) * 1e6)
        first_ns = base_ns
        if chance() * 100 < self.reorder:
            self.counts["reordered"] += 1
            first_ns += self._hold_ns()
        if chance() * 100 < self.duplicate:
            self.counts["duplicated"] += 1
            return [first_ns, base_ns + self._hold_ns()]
        return [first_ns]

    def _hold_ns(self) -> int:
        return int(self.random.uniform(0.1, 1.0) * self.hold_ms * 1e6)


def open_device(name: str) -> socket.socket:
    """A socket that reads and writes the frames of a device, without its own echo."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 32 << 20)
    sock.setblocking(False)
    sock.bind((name, _ETH_P_ALL))
    return sock


class Shuttle:
    """Carries frames between two devices, each direction with its own faults."""

    def __init__(self, first: socket.socket, second: socket.socket, faults: list[Faults]) -> None:
        self.ways = {first: (second, faults[0]), second: (first, faults[1])}
        self.later: list[tuple[int, int, socket.socket, bytes]] = []  # due, order, to, frame
        self.order = itertools.count()
        self.buffer = bytearray(_LONGEST_FRAME)
        self.view = memoryview(self.buffer)
        self.refused = 0  # frames that a device would not take
        self.ending = False

    def run(self) -> None:
        """Until `ending`."""
        while not self.ending:
            timeout = 0.1
            if self.later:
                timeout = max(0.0, min(timeout, (self.later[0][0] - time.monotonic_ns()) / 1e9))
            # Not epoll: its time-outs are whole milliseconds.
            readable, _, _ = select.select(list(self.ways), [], [], timeout)
            for sock in readable:
                self._carry(sock)
            now_ns = time.monotonic_ns()
            while self.later and self.later[0][0] <= now_ns:
                _, _, sock, frame = heapq.heappop(self.later)
                self._send(sock, frame)

    def _carry(self, sock: socket.socket) -> None:
        other, faults = self.ways[sock]
        for _ in range(32):
            try:
                length = sock.recv_into(self.buffer)
            except BlockingIOError:
                return
            frame = self.view[:length]
            if not is_tcp(frame):
                self._send(other, frame)
                continue
            for delay_ns in faults.plan_ns(is_syn(frame)):
                if delay_ns:
                    due_ns = time.monotonic_ns() + delay_ns
                    heapq.heappush(self.later, (due_ns, next(self.order), other, bytes(frame)))
                else:
                    self._send(other, frame)

    def _send(self, sock: socket.socket, frame: bytes | memoryview) -> None:
        try:
            sock.send(frame)
        except OSError:
            self.refused += 1


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A bad cable between two devices")
    parser.add_argument("first", help="device on the switch's side")
    parser.add_argument("second", help="device on the target's side")
    for name in ("lose", "duplicate", "reorder"):
        parser.add_argument(f"--{name}", type=float, default=0.0, help="percent, both ways")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="each way")
    parser.add_argument("--syn-delay-ms", type=float, default=0.0, help="of SYNs, so much more")
    parser.add_argument("--hold-ms", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    options = vars(parser.parse_args(argv))
    devices = [open_device(options.pop(name)) for name in ("first", "second")]
    seed = options.pop("seed")
    faults = [Faults(**options, random=random.Random(seed + way)) for way in (0, 1)]
    shuttle = Shuttle(devices[0], devices[1], faults)

    def end(*_: object) -> None:
        shuttle.ending = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    print("ready", flush=True)
    shuttle.run()
    to_second, to_first = (way.counts for way in faults)
    print(json.dumps({"to": to_second, "from": to_first, "refused": shuttle.refused}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
