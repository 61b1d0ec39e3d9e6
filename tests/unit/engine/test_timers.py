"""The timer heap, by example; against a model in tests/property/test_engine_parts.py."""

from __future__ import annotations

from tcpcopy.engine.timers import Timed, TimerHeap


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
