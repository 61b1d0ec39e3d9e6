"""Feeding a captured half: offsets in, chunks out as short lines."""

from __future__ import annotations

from tcpcopy.engine.captured import CapturedHalf
from tcpcopy.engine.chunk import DATA, FIN, RST, Chunk
from tests.unit.engine.rig import SECOND

ISN = 0xFFFF_FF80  # the stream crosses the end of the sequence space after 127 bytes
SERVER_BASE = 0xFFFF_FFF0  # the server's first byte; its stream wraps after 16
START = 3_000 * SECOND

_KINDS = {DATA: "D", FIN: "F", RST: "R"}


def stream(start: int, end: int) -> bytes:
    """Bytes [start, end) of the client's stream; no two neighbourhoods look alike."""
    return bytes((index * 31 + index // 251 * 7) % 253 for index in range(start, end))


def chunks(half: CapturedHalf) -> list[Chunk]:
    """Everything in the queue, oldest first."""
    found = []
    chunk = half.head
    while chunk is not None:
        found.append(chunk)
        chunk = chunk.following
    return found


class Feed:
    """A captured half whose handshake has been seen."""

    def __init__(self, isn: int = ISN, half: CapturedHalf | None = None) -> None:
        self.half = CapturedHalf() if half is None else half
        self.half.captured_isn = isn
        self.isn = isn
        self.now = START
        self.half.acknowledged_by_client(SERVER_BASE)
        self._told = 0

    def seq(self, offset: int) -> int:
        """The sequence number of stream byte `offset`."""
        return (self.isn + 1 + offset) & 0xFFFFFFFF

    @staticmethod
    def ack(server_offset: int) -> int:
        """The acknowledgement number of a client that has seen so many bytes of the server."""
        return (SERVER_BASE + server_offset) & 0xFFFFFFFF

    def data(self, start: int, end: int, *, server: int = 0, data: bytes | None = None) -> int:
        """A segment with [start, end) of the stream."""
        payload = stream(start, end) if data is None else data
        assert len(payload) == end - start
        return self.half.take_data(self.seq(start), self.ack(server), payload, self.now)

    def fin(self, at: int, *, server: int = 0) -> int:
        """A FIN that stands at stream offset `at`."""
        return self.half.take_fin(self.seq(at), self.ack(server), self.now)

    def rst(self, at: int, *, server: int | None = None) -> int:
        """A RST whose sequence number is that of stream offset `at`, perhaps with an ACK."""
        ack = -1 if server is None else self.ack(server)
        return self.half.take_rst(self.seq(at), ack, self.now)

    def lines(self) -> list[str]:
        """All chunks: kind, offset and length, server bytes acknowledged, time since START."""
        found = []
        for chunk in chunks(self.half):
            line = f"{_KINDS[chunk.kind]} {chunk.offset}"
            if chunk.kind == DATA:
                assert chunk.data == stream(chunk.offset, chunk.end), f"wrong bytes at {line}"
                line += f"+{len(chunk.data)}"
            else:
                assert chunk.data == b"" and chunk.end == chunk.offset
            found.append(f"{line} s{chunk.server_offset} t{chunk.captured_ns - START}")
        return found

    def new(self) -> list[str]:
        """The chunks that came since the last call."""
        lines = self.lines()
        told, self._told = self._told, len(lines)
        return lines[told:]
