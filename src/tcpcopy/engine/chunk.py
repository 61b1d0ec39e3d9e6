"""What the client sent, in order, waiting to be sent again: chunks in one linked list.

A chunk is what one captured segment added to the stream, or the client's FIN or RST. It waits at
the gate until pacing releases it, then belongs to the replayed half until the target has
acknowledged it.
"""

from __future__ import annotations

from tcpcopy.engine.timers import Timed

DATA = 1
FIN = 2
RST = 3

# Resident memory of a chunk besides its payload, measured.
CHUNK_COST = 144

_DATA = DATA
_FIN = FIN
_COST = CHUNK_COST


class Chunk:
    """One piece of the client's stream, or the way it ended."""

    __slots__ = (
        "captured_ns",  # when it was captured, monotonic
        "data",  # bytes; b"" for FIN and RST
        "end",  # stream offset after its last byte; a FIN counts none here
        "following",  # the next Chunk, or None
        "kind",  # DATA, FIN or RST
        "offset",  # stream offset of its first byte
        "server_offset",  # server bytes that the client had acknowledged when it sent this
    )

    def __init__(
        self, kind: int, data: bytes, offset: int, server_offset: int, captured_ns: int
    ) -> None:
        self.kind = kind
        self.data = data
        self.offset = offset
        self.end = offset + len(data)
        self.server_offset = server_offset
        self.captured_ns = captured_ns
        self.following: Chunk | None = None


def make_chunk(kind: int, data: bytes, offset: int, server_offset: int, captured_ns: int) -> Chunk:
    """`Chunk(...)` without its numbers becoming Python objects on the way."""
    chunk = Chunk.__new__(Chunk)
    chunk.kind = kind
    chunk.data = data
    chunk.offset = offset
    chunk.end = offset + len(data)
    chunk.server_offset = server_offset
    chunk.captured_ns = captured_ns
    chunk.following = None
    return chunk


class ChunkQueue(Timed):
    """The chunks of one session, oldest first."""

    __slots__ = (
        "fin_released",  # the FIN may be sent; released_end is then final
        "gate",  # the first chunk not released; None when all are
        "head",  # the oldest chunk not fully acknowledged by the target
        "queued_bytes",  # memory that the data take: payload, and CHUNK_COST for each chunk
        "released_end",  # stream offset up to which data may be sent
        "rst_released",  # the RST may be sent
        "tail",  # the newest chunk
    )

    def __init__(self) -> None:
        self.set_up_queue()

    def set_up_queue(self) -> None:
        """See `Timed.set_up_timed`."""
        self.set_up_timed()
        self.head: Chunk | None = None
        self.gate: Chunk | None = None
        self.tail: Chunk | None = None
        self.queued_bytes = 0
        self.released_end = 0
        self.fin_released = 0
        self.rst_released = 0

    def append(self, chunk: Chunk) -> None:
        """Add the newest chunk."""
        if self.tail is None:
            self.head = chunk
        else:
            self.tail.following = chunk
        self.tail = chunk
        if self.gate is None:
            self.gate = chunk
        if chunk.kind == _DATA:
            self.queued_bytes += chunk.end - chunk.offset + _COST

    def release(self) -> None:
        """Let the chunk at the gate go."""
        chunk = self.gate
        if chunk is None:
            return
        if chunk.kind == _DATA:
            self.released_end = chunk.end
        elif chunk.kind == _FIN:
            self.fin_released = 1
        else:
            self.rst_released = 1
        self.gate = chunk.following

    def acknowledge(self, offset: int) -> int:
        """Drop released data that ends at or before `offset`; by how much `queued_bytes` shrank."""
        dropped = 0
        while self.head is not None and self.head is not self.gate:
            if self.head.end > offset:
                break
            if self.head.kind == _DATA:
                dropped += self.head.end - self.head.offset + _COST
            self.head = self.head.following
        if self.head is None:
            self.tail = None
        self.queued_bytes -= dropped
        return dropped

    def find(self, offset: int) -> Chunk | None:
        """The released data chunk that holds stream byte `offset`, or None."""
        chunk = self.head
        while chunk is not None and chunk is not self.gate:
            if chunk.end > offset:
                return chunk if chunk.offset <= offset else None
            chunk = chunk.following
        return None

    def at_or_after(self, cursor: Chunk | None, offset: int) -> Chunk | None:
        """The chunk that holds `offset`, looked for from `cursor` on; marks are stepped over."""
        while cursor is not None and cursor.end <= offset:
            cursor = cursor.following
        return self.find(offset) if cursor is None else cursor

    def clear(self) -> int:
        """Drop everything, one chunk at a time (a long list must not recurse); as `acknowledge`."""
        dropped = self.queued_bytes
        chunk = self.head
        self.head = self.gate = self.tail = None
        while chunk is not None:
            after = chunk.following
            chunk.following = None
            chunk = after
        self.queued_bytes = 0
        return dropped
