"""Deadlines: one intrusive binary heap, so that no walk over the sessions is ever needed.

A `Timed` knows its place in the heap; moving or removing it costs O(log n) without a search.
"""

from __future__ import annotations


class Timed:
    """Something with a next deadline."""

    __slots__ = (
        "deadline_ns",  # when it wants to be called; meaningless while not in a heap
        "heap_index",  # place in the heap, -1 while not in one
    )

    def __init__(self) -> None:
        self.deadline_ns = 0
        self.heap_index = -1


class TimerHeap:
    """Earliest deadline first."""

    __slots__ = ("_items",)

    def __init__(self) -> None:
        self._items: list[Timed] = []

    def __len__(self) -> int:
        return len(self._items)

    def items(self) -> list[Timed]:
        """A copy of everything in the heap, in no order."""
        return list(self._items)

    def next_deadline_ns(self) -> int:
        """The earliest deadline, or -1 when nothing waits."""
        if not self._items:
            return -1
        return self._items[0].deadline_ns

    def first(self) -> Timed:
        """What is due first; the heap must not be empty."""
        return self._items[0]

    def schedule(self, item: Timed, deadline_ns: int) -> None:
        """Put `item` into the heap, or move it."""
        index = item.heap_index
        if index < 0:
            item.deadline_ns = deadline_ns
            index = len(self._items)
            item.heap_index = index
            self._items.append(item)
            self._up(index)
        elif deadline_ns < item.deadline_ns:
            item.deadline_ns = deadline_ns
            self._up(index)
        elif deadline_ns > item.deadline_ns:
            item.deadline_ns = deadline_ns
            self._down(index)

    def remove(self, item: Timed) -> None:
        """Take `item` out, if it is in."""
        index = item.heap_index
        if index < 0:
            return
        item.heap_index = -1
        last = self._items.pop()
        if last is item:
            return
        self._items[index] = last
        last.heap_index = index
        self._up(index)
        self._down(last.heap_index)

    def _up(self, index: int) -> None:
        items = self._items
        item: Timed = items[index]
        while index > 0:
            parent = (index - 1) >> 1
            above: Timed = items[parent]
            if above.deadline_ns <= item.deadline_ns:
                break
            items[index] = above
            above.heap_index = index
            index = parent
        items[index] = item
        item.heap_index = index

    def _down(self, index: int) -> None:
        items = self._items
        size = len(items)
        item: Timed = items[index]
        while True:
            child = 2 * index + 1
            if child >= size:
                break
            below: Timed = items[child]
            if child + 1 < size:
                right: Timed = items[child + 1]
                if right.deadline_ns < below.deadline_ns:
                    below = right
                    child += 1
            if item.deadline_ns <= below.deadline_ns:
                break
            items[index] = below
            below.heap_index = index
            index = child
        items[index] = item
        item.heap_index = index
