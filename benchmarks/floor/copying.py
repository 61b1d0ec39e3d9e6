"""The least that copying a packet takes: parse it, address it to the target, put it into the batch.

Compiled apart by `benchmarks.floor.build`: it is no part of the package. Runs as a program too:
`python -c 'import copying; copying.main()' WAY DEVICE SOURCE TARGET REPORT` captures on a device
what goes to SOURCE (address:port) and sends it on to TARGET by WAY: `raw` (raw socket), `frames`
(AF_PACKET past the queueing discipline) or `none`. Prints `ready`; ends at SIGTERM with a report.
"""

from __future__ import annotations

import json
import select
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tcpcopy.capture.filters import compile_filter
from tcpcopy.capture.ring import open_rings
from tcpcopy.deliver.link import LinkSender
from tcpcopy.deliver.raw import RawSender
from tcpcopy.mapping.transfers import TransferTable, parse_transfers
from tcpcopy.packet.batch import PacketBatch, PacketSink
from tcpcopy.packet.handler import PacketHandler
from tcpcopy.packet.segment import Segment, parse, payload, source_address

_DRAIN_LIMIT = 512  # as in tcpcopy's own loop, and so is the nap
_BUSY_PACKETS = 8
_NAP_S = 0.0005
_NOTHING = b""


class Nowhere(PacketSink):
    """Sends nothing: what is left is the capture and the work on each packet."""

    __slots__ = ()

    errors: Final[Mapping[int, int]] = {}

    def send_batch(self, batch: PacketBatch) -> None:
        """Forget the packets."""


class CopyHandler(PacketHandler):
    """Puts each captured TCP segment into a batch, addressed to the target."""

    __slots__ = ("batch", "segment", "target", "target_port")

    def __init__(self, batch: PacketBatch, target: bytes, target_port: int) -> None:
        self.batch = batch
        self.segment = Segment()
        self.target = target
        self.target_port = target_port

    def packet(self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int) -> int:
        """Copy one packet."""
        segment = self.segment
        if parse(segment, data, start, end, wire_length) != 0:
            return 1
        content = payload(segment, data, 0)
        self.batch.tcp(
            source_address(segment, data),
            segment.source_port,
            self.target,
            self.target_port,
            segment.seq,
            segment.ack,
            segment.flags,
            segment.window,
            0,
            0,
            0,
            _NOTHING,
            content,
            0,
            len(content),
        )
        return 0


def make_sender(way: str, device: str, rule: TransferTable) -> RawSender | LinkSender | Nowhere:
    """What sends the batches."""
    if way == "raw":
        return RawSender()
    return LinkSender(device, rule) if way == "frames" else Nowhere()


def main() -> None:
    """Copy until SIGTERM."""
    way, device, source, target, report = sys.argv[1:]
    host, _, port = source.partition(":")
    rule = TransferTable(parse_transfers(f"{source}-{target}"))
    sender = make_sender(way, device, rule)
    batch = PacketBatch(sender)
    handler = CopyHandler(batch, *next(iter(rule)).target)
    program = compile_filter(f"tcp and dst host {host} and dst port {port}")
    ring = open_rings([device], program, buffer_bytes=32 << 20)[0]
    ending: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: ending.append(number))
    poll = select.poll()
    poll.register(ring.fileno(), select.POLLIN)
    print("ready", flush=True)
    copied = 0
    while not ending:
        handled = ring.drain(handler, _DRAIN_LIMIT)
        batch.flush()
        copied += handled
        if handled >= _BUSY_PACKETS:
            time.sleep(_NAP_S)
        else:
            poll.poll(100)
    errors = sum(sender.errors.values())
    figures = {"copied": copied, "dropped": ring.statistics()[1], "errors": errors}
    Path(report).write_text(json.dumps(figures))
