"""Sends packets of many connections, as fast as it can or so many a second; nobody answers.

`python -m benchmarks.floor.blast TARGET PORT SIZE RATE SECONDS`, rate 0: flat out. Prints the
number of packets sent. SIZE is that of the IP packet.
"""

from __future__ import annotations

import sys
import time

from tcpcopy.deliver.link import LinkSender
from tcpcopy.mapping.addresses import parse_address
from tcpcopy.mapping.transfers import TransferTable, parse_transfers
from tcpcopy.packet.batch import PacketBatch

_CONNECTIONS = 1000
_BATCH = 50
_STEP_S = 0.001


def batches(target: str, port: int, size: int, device: str = "eth0") -> list[PacketBatch]:
    """One packet of each connection, in batches that are full."""
    sender = LinkSender(device, TransferTable(parse_transfers(f"1-{target}:{port}")))
    address, data = parse_address(target), bytes(index % 251 for index in range(size - 40))
    found = []
    for first in range(0, _CONNECTIONS, _BATCH):
        batch = PacketBatch(sender, capacity=_BATCH)
        for number in range(first, first + _BATCH):
            source = parse_address(f"10.66.1.{1 + number % 200}")
            batch.tcp(
                source, 20_000 + number, address, port, number, 1, 0x18, 500, 0, 0, 0, b"",
                data, 0, len(data),
            )  # fmt: skip
        found.append(batch)
    return found


def main() -> None:
    """Send for a time."""
    target, port, size, rate, seconds = sys.argv[1], *map(float, sys.argv[2:])
    ready = batches(target, int(port), int(size))
    began = time.monotonic()
    sent = turn = 0
    while (now := time.monotonic()) < began + seconds:
        if rate and sent > (now - began) * rate:
            time.sleep(_STEP_S)
            continue
        batch = ready[turn % len(ready)]
        batch.sink.send_batch(batch)
        sent += batch.count
        turn += 1
    print(sent, flush=True)


if __name__ == "__main__":
    main()
