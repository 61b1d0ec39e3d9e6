"""The engine's small parts against models: sequence numbers, the timer heap, the chunk queue."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.engine import seqnum
from tcpcopy.engine.chunk import CHUNK_COST, DATA, Chunk, ChunkQueue
from tcpcopy.engine.timers import Timed, TimerHeap

NUMBERS = st.one_of(
    st.integers(0, 0xFFFFFFFF),
    st.sampled_from((0, 1, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF)),
)


# --- sequence numbers ------------------------------------------------------------------------


@given(NUMBERS, st.integers(-(1 << 40), 1 << 40))
def test_sum_is_a_sequence_number(number: int, count: int) -> None:
    assert seqnum.add(number, count) == (number + count) % (1 << 32)


@given(NUMBERS, st.integers(-(1 << 31), (1 << 31) - 1))
def test_difference_undoes_the_sum(number: int, count: int) -> None:
    assert seqnum.difference(seqnum.add(number, count), number) == count


@given(NUMBERS, NUMBERS)
def test_difference_is_the_shorter_way(left: int, right: int) -> None:
    ahead = seqnum.difference(left, right)
    assert -(1 << 31) <= ahead < 1 << 31
    assert (right + ahead) % (1 << 32) == left
    if ahead != -(1 << 31):
        assert seqnum.difference(right, left) == -ahead


@given(NUMBERS, NUMBERS, NUMBERS)
def test_a_window_keeps_its_order_across_the_wrap(base: int, first: int, second: int) -> None:
    """Within half the space the order of numbers is that of their offsets."""
    first %= 1 << 30
    second %= 1 << 30
    left, right = seqnum.add(base, first), seqnum.add(base, second)
    assert (seqnum.difference(left, right) > 0) == (first > second)


# --- timers ------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("schedule", "schedule", "remove", "pop")),
            st.integers(0, 15),
            st.integers(0, 50),
        ),
        max_size=120,
    )
)
def test_heap_is_a_sorted_list(events: list[tuple[str, int, int]]) -> None:
    heap = TimerHeap()
    items = [Timed() for _ in range(16)]
    model: dict[int, int] = {}
    for kind, which, deadline in events:
        item = items[which]
        if kind == "schedule":
            heap.schedule(item, deadline)
            model[which] = deadline
        elif kind == "remove":
            heap.remove(item)
            model.pop(which, None)
        elif model:
            first = heap.first()
            number = items.index(first)
            assert model[number] == min(model.values())
            heap.remove(first)
            del model[number]
        assert heap.next_deadline_ns() == min(model.values(), default=-1)
        assert len(heap) == len(heap.items()) == len(model)
        for number, item in enumerate(items):
            assert (item.heap_index >= 0) == (number in model)
            if number in model:
                assert item.deadline_ns == model[number]
                assert heap.items()[item.heap_index] is item


@given(st.lists(st.integers(0, 1 << 62), min_size=1, max_size=200))
def test_everything_comes_out_in_order(deadlines: list[int]) -> None:
    heap = TimerHeap()
    for deadline in deadlines:
        heap.schedule(Timed(), deadline)
    found = []
    while len(heap):
        found.append(heap.next_deadline_ns())
        heap.remove(heap.first())
    assert found == sorted(deadlines)


# --- the queue ---------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("append", "append", "release", "release", "acknowledge", "find")),
            st.integers(1, 60),
            st.integers(0, 100),
        ),
        max_size=80,
    )
)
def test_queue_against_a_list(events: list[tuple[str, int, int]]) -> None:
    """What is released and not acknowledged is found by its offset, nothing else is."""
    queue = ChunkQueue()
    sizes: list[int] = []  # all chunks ever
    released = gone = end = acknowledged = 0
    for kind, size, share in events:
        if kind == "append":
            queue.append(Chunk(DATA, bytes(size), end, 0, 0))
            sizes.append(size)
            end += size
        elif kind == "release":
            queue.release()
            released = min(released + 1, len(sizes))
            assert queue.released_end == sum(sizes[:released])
        elif kind == "acknowledge":
            acknowledged = max(acknowledged, queue.released_end * share // 100)
            dropped = 0
            while gone < released and sum(sizes[: gone + 1]) <= acknowledged:
                dropped += CHUNK_COST + sizes[gone]
                gone += 1
            assert queue.acknowledge(acknowledged) == dropped
        else:
            offset = end * share // 100
            chunk = queue.find(offset)
            if sum(sizes[:gone]) <= offset < queue.released_end:
                assert chunk is not None and chunk.offset <= offset < chunk.end
            else:
                assert chunk is None
        assert queue.queued_bytes == sum(CHUNK_COST + size for size in sizes[gone:])
        assert (queue.head is None) == (gone == len(sizes))
        assert (queue.gate is None) == (released == len(sizes))
        assert (queue.tail is None) == (queue.head is None)
    assert queue.clear() == sum(CHUNK_COST + size for size in sizes[gone:])
    assert (queue.head, queue.gate, queue.tail, queue.queued_bytes) == (None, None, None, 0)
