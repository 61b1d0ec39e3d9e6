"""The timer heap, by example; against a model in tests/property/test_engine_parts.py."""

from __future__ import annotations

from tcpcopy.engine.timers import MOVED_AT_ONCE, Timed, TimerHeap, Timers
from tests.unit.engine.rig import SECOND


def heap_of(*deadlines: int) -> tuple[TimerHeap, list[Timed]]:
    """A heap with items of these deadlines."""
    heap, items = TimerHeap(), [Timed() for _ in deadlines]
    for item, deadline in zip(items, deadlines, strict=True):
        heap.schedule(item, deadline)
    return heap, items


def test_empty() -> None:
    heap = TimerHeap()
    assert heap.next_deadline_ns() == -1
    assert len(heap) == 0
    assert heap.items() == []


def test_item_knows_whether_it_waits() -> None:
    item = Timed()
    assert item.heap_index == -1
    heap = TimerHeap()
    heap.schedule(item, 5)
    assert item.heap_index == 0
    assert item.deadline_ns == 5
    heap.remove(item)
    assert item.heap_index == -1


def test_first_is_the_earliest() -> None:
    heap, items = heap_of(30, 10, 20)
    assert heap.first() is items[1]
    assert heap.next_deadline_ns() == 10


def test_deadlines_move_both_ways() -> None:
    heap, items = heap_of(30, 10, 20)
    heap.schedule(items[1], 40)
    assert heap.first() is items[2]
    heap.schedule(items[0], 5)
    assert heap.first() is items[0]
    assert len(heap) == 3


def test_same_deadline_again_changes_nothing() -> None:
    heap, items = heap_of(10, 20)
    heap.schedule(items[0], 10)
    assert heap.first() is items[0]
    assert len(heap) == 2


def test_removing_what_does_not_wait() -> None:
    heap, items = heap_of(10)
    heap.remove(Timed())
    heap.remove(items[0])
    heap.remove(items[0])
    assert len(heap) == 0


def test_removal_from_the_middle_keeps_the_order() -> None:
    """The last item takes the place; it may have to rise as well as to sink."""
    heap, items = heap_of(1, 100, 2, 110, 120, 3, 4)
    heap.remove(items[3])
    order = []
    while len(heap):
        order.append(heap.next_deadline_ns())
        heap.remove(heap.first())
    assert order == [1, 2, 3, 4, 100, 120]


def test_view_is_a_copy() -> None:
    heap, items = heap_of(1, 2)
    heap.items().clear()
    assert len(heap) == 2
    assert set(map(id, heap.items())) == set(map(id, items))


def test_times_before_zero_and_far_away() -> None:
    heap, items = heap_of(1 << 62, -5, 0)
    assert heap.first() is items[1]
    assert heap.next_deadline_ns() == -5


# --- near and far ------------------------------------------------------------------------------

FAR = 100 * SECOND


def drained(timers: Timers, now_ns: int) -> list[Timed]:
    """What is due at a time, taken out."""
    found = []
    timers.advance(now_ns)
    while (item := timers.first_due(now_ns)) is not None:
        timers.remove(item)
        found.append(item)
    return found


def test_far_deadline_is_not_in_the_heap() -> None:
    timers, item = Timers(), Timed()
    timers.schedule(item, FAR, 0)
    assert item.heap_index == -1
    assert timers.items() == [item]
    assert FAR - 2 * SECOND < timers.next_deadline_ns() <= FAR
    timers.remove(item)
    assert timers.next_deadline_ns() == -1
    assert len(timers) == 0


def test_far_deadline_comes_in_time() -> None:
    timers, item = Timers(), Timed()
    timers.schedule(item, FAR, 0)
    looked_ns = timers.next_deadline_ns()
    assert drained(timers, looked_ns - 1) == []
    assert drained(timers, looked_ns) == ([item] if looked_ns == FAR else [])
    assert timers.next_deadline_ns() == FAR
    assert drained(timers, FAR - 1) == []
    assert drained(timers, FAR) == [item]


def test_near_and_back_again() -> None:
    """Each request brings its session near; it goes back to the slot that it never left."""
    timers, item = Timers(), Timed()
    timers.schedule(item, FAR, 0)
    slot, index = item.far_slot, item.far_index
    timers.schedule(item, SECOND // 10, 0)
    assert item.heap_index == 0
    assert len(timers) == 1
    assert timers.next_deadline_ns() == SECOND // 10
    timers.schedule(item, FAR + 5 * SECOND, SECOND)
    assert item.heap_index == -1
    assert (item.far_slot, item.far_index) == (slot, index)
    assert timers.next_deadline_ns() <= FAR
    assert drained(timers, FAR) == []  # looked at, and put where it belongs now
    assert item.far_slot > slot or item.heap_index == 0
    assert drained(timers, FAR + 5 * SECOND) == [item]


def test_far_deadline_that_becomes_earlier() -> None:
    timers, item, other = Timers(), Timed(), Timed()
    timers.schedule(item, FAR, 0)
    timers.schedule(other, FAR, 0)
    timers.schedule(item, FAR // 2, 0)
    assert timers.next_deadline_ns() <= FAR // 2
    assert drained(timers, FAR // 2) == [item]
    assert drained(timers, FAR) == [other]


def test_leaving_a_slot_keeps_the_others() -> None:
    timers, items = Timers(), [Timed() for _ in range(5)]
    for item in items:
        timers.schedule(item, FAR, 0)
    timers.remove(items[1])
    timers.remove(items[4])
    timers.remove(items[0])
    assert {id(i) for i in timers.items()} == {id(items[2]), id(items[3])}
    assert {id(i) for i in drained(timers, FAR)} == {id(items[2]), id(items[3])}
    assert timers.next_deadline_ns() == -1


def test_much_that_comes_near_is_looked_at_in_pieces() -> None:
    timers, items = Timers(), [Timed() for _ in range(3 * MOVED_AT_ONCE)]
    for item in items:
        timers.schedule(item, FAR, 0)
    calls = 0
    found = 0
    while found < len(items):
        assert timers.next_deadline_ns() <= FAR
        found += len(drained(timers, FAR))
        calls += 1
    assert calls == 3
