"""Deadlines of many sessions: what is due soon in one intrusive heap, the rest in coarse slots.

Most sessions wait for nothing but their idle time-out. They stand in slots of about a second, where
putting one costs the same however many there are; so the heap holds what had traffic a moment ago,
and a packet's work does not grow with the sessions that are open. An item knows its place, so
moving it does not search. No walk over all sessions, ever: a slot is gone over when it is due.
"""

from __future__ import annotations

from heapq import heappop, heappush

import cython

SLOT_SHIFT = 30  # a slot is 2**30 ns, somewhat above a second
NEAR_NS = 4 << SLOT_SHIFT  # what is due before that goes into the heap
MOVED_AT_ONCE = 1024  # items of due slots that one call of `advance` looks at

_SLOT_SHIFT = SLOT_SHIFT
_NEAR = NEAR_NS
_MOVED_AT_ONCE = MOVED_AT_ONCE


class Timed:
    """Something with a next deadline."""

    __slots__ = (
        "deadline_ns",  # when it wants to be called; meaningless while it does not wait
        "far_index",  # place in its slot; meaningless without one
        "far_slot",  # its slot, 0 without one
        "heap_index",  # place in the heap, -1 while not in one
    )

    def __init__(self) -> None:
        self.set_up_timed()

    def set_up_timed(self) -> None:
        """What `__init__` does; each class of the engine has one, a C call when compiled."""
        self.deadline_ns = 0
        self.far_index = 0
        self.far_slot = 0
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


class Timers:
    """The heap for what is due soon, slots for the rest.

    An item that leaves a slot for the heap keeps its place in the slot, and takes it again when it
    has nothing near any more: going to and fro, as each request does, moves nothing there.
    """

    __slots__ = (
        "_due",  # the slots that there are, as a heap of numbers
        "_far",  # slot -> its items; those that all left are dropped when their turn comes
        "_near",
    )

    def __init__(self) -> None:
        self._due: list[int] = []
        self._far: dict[int, list[Timed]] = {}
        self._near = TimerHeap()

    def __len__(self) -> int:
        return len(self.items())

    def items(self) -> list[Timed]:
        """A copy of everything that waits, in no order."""
        found = self._near.items()
        for items in self._far.values():
            found.extend(item for item in items if item.heap_index < 0)
        return found

    def next_deadline_ns(self) -> int:
        """When to look again: not after the earliest deadline. -1 when nothing waits."""
        near = self._near.next_deadline_ns()
        while self._due and not self._far[self._due[0]]:
            del self._far[heappop(self._due)]
        if self._due:
            far: int = self._due[0] << _SLOT_SHIFT
            if near < 0 or far < near:
                return far
        return near

    def schedule(self, item: Timed, deadline_ns: int, now_ns: int) -> None:
        """Let `item` wait for `deadline_ns`, and for nothing else."""
        if deadline_ns - now_ns < _NEAR:
            self._near.schedule(item, deadline_ns)
            return
        if item.heap_index >= 0:
            self._near.remove(item)
        item.deadline_ns = deadline_ns
        slot = cython.cast(cython.uint, deadline_ns >> _SLOT_SHIFT)
        if item.far_slot != 0:
            if item.far_slot <= slot:
                return  # one look too early costs less than moving it now
            self._leave(item)
        self._enter(item, slot)

    def remove(self, item: Timed) -> None:
        """Take `item` out, if it is in."""
        self._near.remove(item)
        if item.far_slot != 0:
            self._leave(item)

    def first_due(self, now_ns: int) -> Timed | None:
        """What is due at `now_ns`, the earliest first; None when nothing is."""
        deadline = self._near.next_deadline_ns()
        if deadline < 0 or deadline > now_ns:
            return None
        return self._near.first()

    def advance(self, now_ns: int) -> None:
        """Bring what comes near out of the slots: some of it, when that is much."""
        budget = _MOVED_AT_ONCE
        while self._due and self._due[0] << _SLOT_SHIFT <= now_ns and budget > 0:
            slot: int = self._due[0]
            items = self._far[slot]
            while items and budget > 0:
                budget -= 1
                item = items.pop()
                item.far_slot = 0
                if item.heap_index < 0:
                    self.schedule(item, item.deadline_ns, now_ns)
            if not items:
                del self._far[slot]
                heappop(self._due)

    def _enter(self, item: Timed, slot: int) -> None:
        items = self._far.get(slot)
        if items is None:
            items = self._far[slot] = []
            heappush(self._due, slot)
        item.far_slot = slot
        item.far_index = cython.cast(cython.uint, len(items))
        items.append(item)

    def _leave(self, item: Timed) -> None:
        """Take `item` out of its slot."""
        items = self._far[item.far_slot]
        item.far_slot = 0
        last = items.pop()
        if last is not item:
            items[item.far_index] = last
            last.far_index = item.far_index
