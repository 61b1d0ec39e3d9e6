"""The queue of chunks: gate, release, what is kept until it is acknowledged."""

from __future__ import annotations

import sys

from tcpcopy.engine.chunk import CHUNK_COST, DATA, FIN, RST, Chunk, ChunkQueue
from tcpcopy.engine.client import TcpClient
from tcpcopy.engine.context import Context, EngineConfig
from tcpcopy.packet.batch import PacketBatch
from tests.unit.engine.rig import CLIENT, TARGET, CollectingSink


def queue_of(*sizes: int) -> tuple[ChunkQueue, list[Chunk]]:
    """A queue with data chunks of these sizes, and the chunks."""
    queue = ChunkQueue()
    chunks = []
    offset = 0
    for size in sizes:
        chunks.append(Chunk(DATA, bytes(size), offset, 0, 0))
        queue.append(chunks[-1])
        offset += size
    return queue, chunks


def test_chunk_knows_where_it_ends() -> None:
    chunk = Chunk(DATA, b"hello", 100, 7, 9)
    assert (chunk.kind, chunk.offset, chunk.end) == (DATA, 100, 105)
    assert (chunk.server_offset, chunk.captured_ns) == (7, 9)
    assert chunk.following is None
    assert Chunk(FIN, b"", 105, 7, 9).end == 105


def test_kinds_are_in_order() -> None:
    """Data are below the two ends: pacing compares."""
    assert 0 < DATA < FIN < RST


def test_empty_queue() -> None:
    queue = ChunkQueue()
    assert (queue.head, queue.gate, queue.tail) == (None, None, None)
    queue.release()
    assert queue.acknowledge(100) == 0
    assert queue.find(0) is None
    assert queue.clear() == 0
    assert (queue.released_end, queue.fin_released, queue.rst_released) == (0, 0, 0)


def test_gate_is_the_first_chunk_not_released() -> None:
    queue, chunks = queue_of(10, 20)
    assert queue.gate is chunks[0]
    queue.release()
    assert queue.gate is chunks[1]
    assert queue.released_end == 10
    queue.release()
    assert queue.gate is None
    assert queue.released_end == 30
    later = Chunk(DATA, b"x", 30, 0, 0)
    queue.append(later)
    assert queue.gate is later


def test_ends_are_released_apart() -> None:
    queue, _ = queue_of(10)
    queue.append(Chunk(FIN, b"", 10, 0, 0))
    queue.append(Chunk(RST, b"", 10, 0, 0))
    queue.release()
    assert (queue.fin_released, queue.rst_released) == (0, 0)
    queue.release()
    assert (queue.fin_released, queue.rst_released) == (1, 0)
    queue.release()
    assert (queue.fin_released, queue.rst_released) == (1, 1)
    assert queue.released_end == 10


def test_only_whole_chunks_are_dropped() -> None:
    queue, chunks = queue_of(10, 20)
    queue.release()
    queue.release()
    assert queue.acknowledge(9) == 0
    assert queue.acknowledge(29) == CHUNK_COST + 10
    assert queue.head is chunks[1]
    assert queue.queued_bytes == CHUNK_COST + 20
    assert queue.acknowledge(30) == CHUNK_COST + 20
    assert queue.head is None and queue.tail is None
    assert queue.queued_bytes == 0


def test_what_is_not_released_is_never_dropped() -> None:
    queue, chunks = queue_of(10, 20)
    queue.release()
    assert queue.acknowledge(1000) == CHUNK_COST + 10
    assert queue.head is queue.gate is chunks[1]


def test_find() -> None:
    queue, chunks = queue_of(10, 20, 30)
    queue.release()
    queue.release()
    assert queue.find(0) is chunks[0]
    assert queue.find(9) is chunks[0]
    assert queue.find(10) is chunks[1]
    assert queue.find(29) is chunks[1]
    assert queue.find(30) is None
    queue.acknowledge(10)
    assert queue.find(9) is None
    assert queue.find(10) is chunks[1]


def test_find_steps_over_the_ends() -> None:
    queue, _ = queue_of(10)
    queue.append(Chunk(FIN, b"", 10, 0, 0))
    queue.release()
    queue.release()
    assert queue.find(10) is None


def test_clear_leaves_an_empty_queue() -> None:
    queue, chunks = queue_of(10, 20)
    queue.release()
    assert queue.clear() == 2 * CHUNK_COST + 30
    assert queue.head is None and queue.gate is None and queue.tail is None
    assert queue.queued_bytes == 0
    assert chunks[0].following is None
    assert queue.clear() == 0


def test_clear_of_a_long_list_does_not_recurse() -> None:
    """Freed from its head a linked list frees itself one frame deeper with each chunk."""
    queue, chunks = queue_of(*[1] * (20 * sys.getrecursionlimit()))
    last = chunks[-1]
    del chunks
    assert queue.clear() == 20 * sys.getrecursionlimit() * (CHUNK_COST + 1)
    assert last.following is None


def test_long_list_that_is_acknowledged_does_not_recurse() -> None:
    queue, chunks = queue_of(*[1] * (20 * sys.getrecursionlimit()))
    del chunks
    while queue.gate is not None:
        queue.release()
    assert queue.acknowledge(queue.released_end) == 20 * sys.getrecursionlimit() * (CHUNK_COST + 1)


def test_client_that_lags_behind_a_long_list_can_be_freed() -> None:
    """Its cursor holds the chunk sent last, and through it everything after it."""
    context = Context(EngineConfig(), PacketBatch(CollectingSink()))
    queue, chunks = queue_of(*[1] * (20 * sys.getrecursionlimit()))
    client = TcpClient(context, queue, CLIENT, 1, TARGET, 2)
    client.cursor = chunks[0]
    del chunks
    queue.clear()
    assert client.linger(0) == 0
    assert client.cursor is None
