"""How a worker's run ends: what was captured is replayed for a bounded time, the rest is counted.

In this order: nothing more is captured; what stands in rings, backlog and pipes is worked on; open
sessions have the time that is left; then all are closed. A packet that nobody has looked at by
then is unread, which the report calls a loss.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence

from tcpcopy.capture.filters import REJECT_ALL
from tcpcopy.capture.ring import Ring
from tcpcopy.capture.unwrapping import Unwrapping
from tcpcopy.engine.unread import Unread
from tcpcopy.loop import Loop
from tcpcopy.packet.handler import PacketHandler

EXIT_WAIT_NS = 10_000_000_000
_COUNT_NS = 500_000_000  # for looking at what is left unread; what is then left is only counted
_COUNT_STEP = 512
_LOOK_NS = 20_000_000
_PAUSE_NS = 5_000_000
_BUSY_EVENTS = 8

Stop = Callable[[], bool]
Tick = Callable[[int], object]


class Ending:
    """The end of one loop's run."""

    def __init__(self, loop: Loop, rings: Sequence[Ring], urgent: Stop, tick: Tick) -> None:
        """`urgent()`: nothing is waited for any more. `tick` is called with the time."""
        self._loop = loop
        self._rings = rings
        self._urgent = urgent
        self._tick = tick
        self._until_ns = time.monotonic_ns() + EXIT_WAIT_NS
        self._stood_still_ns = loop.engine.context.stood_still_ns

    def _is_over(self) -> bool:
        engine = self._loop.engine
        stood_still_ns = engine.context.stood_still_ns - self._stood_still_ns
        return self._urgent() or engine.now_ns >= self._until_ns + stood_still_ns

    def read(self, unread: Unread) -> None:
        """Work on what has been captured; `unread` counts what there was no time for."""
        loop = self._loop
        for ring in self._rings:
            ring.set_filter(REJECT_ALL)  # what has been captured is all that will be
        player = loop.player
        if player is not None and not player.config.is_live:
            player.stop()  # a file can be replayed again
        loop.turn()
        while self._is_behind() and not self._is_over():
            if loop.turn() == 0:
                loop.waiter.wait(_PAUSE_NS)
            self._tick(loop.engine.now_ns)
        count_unread(loop, self._rings, unread)
        if player is not None:
            player.stop()

    def _is_behind(self) -> bool:
        if self._loop.backlog.held_bytes:
            return True
        player = self._loop.player
        if player is not None:
            return player.is_behind(self._loop.engine.now_ns)
        poll = select.poll()
        for ring in self._rings:
            poll.register(ring.fileno(), select.POLLIN)
        return any(events & select.POLLIN for _, events in poll.poll(0))

    def wait(self, unfinished: Callable[[], int]) -> None:
        """Give open sessions the time that is left; `unfinished()`: those that have use for it."""
        loop = self._loop
        loop.remove_rings()
        looked_ns = 0
        while not self._is_over():
            handled = loop.turn()
            now_ns = loop.engine.now_ns
            self._tick(now_ns)
            if now_ns - looked_ns > _LOOK_NS:
                looked_ns = now_ns
                if unfinished() == 0:
                    return
            if handled < _BUSY_EVENTS:
                loop.waiter.wait(_PAUSE_NS)


def count_unread(loop: Loop, rings: Sequence[Ring], unread: Unread) -> None:
    """Count what stands in backlog, rings and pipe, and take it from there. Takes a second at most.

    Beyond that time packets are counted without being looked at.
    """
    until_ns = time.monotonic_ns() + _COUNT_NS
    within = loop.handler if isinstance(loop.handler, Unwrapping) else None
    taker: PacketHandler = unread
    if within is not None:  # what is unread is what is in the tunnels
        within.handler = unread
        taker = within
    backlog = loop.backlog
    while len(backlog) and time.monotonic_ns() < until_ns:
        backlog.hand_on(taker, _COUNT_STEP)
    unread.add(len(backlog))
    for ring in rings:
        count_ring(ring, unread, until_ns, within)
    if within is not None:
        within.unwrapper.finish()
    if loop.player is not None:
        loop.player.count_left(unread, until_ns, time.monotonic_ns)


def count_ring(ring: Ring, unread: Unread, until_ns: int, within: Unwrapping | None = None) -> None:
    """Count what stands in a ring, which is looked at until `until_ns`.

    `within`: hands what it finds in packets to `unread`; None: packets are taken as they are.
    """
    while time.monotonic_ns() < until_ns:
        if ring.drain(within or unread, _COUNT_STEP) < _COUNT_STEP:
            break
    unread.add(ring.waiting())
