"""Reads capture files that a test has written down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tcpcopy.recorded.counts import FileCounts
from tcpcopy.recorded.stream import PacketStream, open_recorded
from tests.lab.capture_files import Collector


@dataclass(slots=True)
class Read:
    """All that came out of files."""

    packets: list[tuple[int, bytes, int]]  # (time, IP packet, length on the wire)
    counts: FileCounts
    problems: list[str]

    @property
    def frames(self) -> list[bytes]:
        """The IP packets."""
        return [packet for _, packet, _ in self.packets]

    @property
    def times(self) -> list[int]:
        """Their times."""
        return [time_ns for time_ns, _, _ in self.packets]


def drain(stream: PacketStream) -> list[tuple[int, bytes, int]]:
    """Packet by packet to the end; the time that was announced is the time that comes."""
    collector = Collector()
    while (time_ns := stream.next_ns()) >= 0:
        assert stream.is_ready()
        assert stream.hand_on(collector) == len(collector.packets)
        assert collector.packets[-1][0] == time_ns
    assert stream.hand_on(collector) == 0
    return collector.packets


def read(*paths: Path | str) -> Read:
    """Open, read to the end, close."""
    stream = open_recorded([str(path) for path in paths])
    try:
        return Read(drain(stream), stream.counts, stream.problems)
    finally:
        stream.close()


def read_bytes(folder: Path, content: bytes) -> Read:
    """The same for a file of that content."""
    path = folder / "a.pcap"
    path.write_bytes(content)
    return read(path)
