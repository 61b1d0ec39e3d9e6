"""Virtual time: an event loop of (time, order, call) with integer nanoseconds."""

from __future__ import annotations

import heapq
from collections.abc import Callable

MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000


class Timer:
    """One call that is due; `cancel` makes it never happen."""

    __slots__ = ("call", "due_ns")

    def __init__(self, due_ns: int, call: Callable[[], None]) -> None:
        self.due_ns = due_ns
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Forget the call. Cancelling twice, or after it ran, does nothing."""
        self.call = None


class Clock:
    """Runs calls in order of their time; calls of one time run in the order they were set."""

    __slots__ = ("_heap", "_order", "now_ns")

    def __init__(self, start_ns: int = 0) -> None:
        self.now_ns = start_ns
        self._heap: list[tuple[int, int, Timer]] = []
        self._order = 0

    def at(self, due_ns: int, call: Callable[[], None]) -> Timer:
        """Set `call` for `due_ns`, or for now when that is in the past."""
        timer = Timer(max(due_ns, self.now_ns), call)
        self._order += 1
        heapq.heappush(self._heap, (timer.due_ns, self._order, timer))
        return timer

    def after(self, delay_ns: int, call: Callable[[], None]) -> Timer:
        """Set `call` for `delay_ns` from now."""
        return self.at(self.now_ns + delay_ns, call)

    def next_due_ns(self) -> int | None:
        """Return the time of the next call, or None when nothing is set."""
        heap = self._heap
        while heap and heap[0][2].call is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def step(self) -> bool:
        """Run the next call with the time moved to it; False when nothing is set."""
        if self.next_due_ns() is None:
            return False
        due_ns, _, timer = heapq.heappop(self._heap)
        self.now_ns = due_ns
        call, timer.call = timer.call, None
        if call is not None:
            call()
        return True

    def move_to(self, time_ns: int) -> None:
        """Stand at `time_ns`, which no call set may be due before."""
        due_ns = self.next_due_ns()
        if due_ns is not None and due_ns < time_ns:
            raise AssertionError("the clock would pass over a call")
        self.now_ns = max(self.now_ns, time_ns)

    def run(self, until_ns: int) -> None:
        """Run all calls due by `until_ns`, then stand at that time."""
        while (due_ns := self.next_due_ns()) is not None and due_ns <= until_ns:
            self.step()
        self.now_ns = max(self.now_ns, until_ns)
