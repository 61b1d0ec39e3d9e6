"""The loop of one tcpcopy worker: capture, engine, delivery and relay, turn by turn.

A turn: take what the relay brought, drain the capture rings, serve the kernel sockets, run due
timers, send the batch. Then sleep until something comes or is due; when much came, nap instead,
because a wake-up for each packet costs more than the packet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tcpcopy.capture.backlog import Backlog
from tcpcopy.capture.ring import Ring
from tcpcopy.deliver.tun import TunDevice
from tcpcopy.engine.engine import Engine
from tcpcopy.packet.batch import PacketBatch
from tcpcopy.packet.handler import PacketHandler
from tcpcopy.waiting import Waiter, monotonic_ns, nap

if TYPE_CHECKING:
    from tcpcopy.deliver.sockets import SocketTransport
    from tcpcopy.engine.leftovers import Leftovers
    from tcpcopy.recorded.player import Player
    from tcpcopy.relay.client import RelayClient
    from tcpcopy.udp_side import UdpSide

_DRAIN_LIMIT = 512
_OVERFLOW_STEP = 16  # packets, of up to 64 KiB each, between two looks at the backlog's limit
_OVERFLOW_STEPS = 4096
_RELAY_BACKLOG = 256  # so many records at once: there are more
_RELAY_LIMIT = 16384
_BUSY_EVENTS = 8
_NAP_NS = 500_000
_HOUSEKEEPING_NS = 1_000_000_000
_HURRY_NS = 100_000_000
_LONGEST_SLEEP_NS = 1_000_000_000
# A turn that comes so much later than it should: this process stood still.
STANDSTILL_NS = 2_000_000_000
_STANDSTILL = STANDSTILL_NS
_RELAY_UNREAD = 1 << 20  # records after a standstill: no more than all credit lets through
_SOCKET_EVENTS = 512
_SOCKET_ROUNDS = 128


class Loop:
    """Drives what its owner has opened. Not thread-safe."""

    __slots__ = (
        "awaited_ns",  # when the next turn should begin; 0: before the first one
        "backlog",
        "backlog_limit",  # bytes in the backlog above which packets stay in the rings
        "batch",
        "engine",
        "handler",  # takes what is captured: the engine, unless its owner puts another here
        "housekeep",  # called with the time about once a second
        "housekeeping_ns",  # when it is called next
        "hurried_ns",  # not called early again before
        "input_place",  # in `waiter`, of a pipe while its packets are waited for, else -1
        "places",  # of the rings in `waiter`
        "leftovers",  # of a run before, to be reset; None: none
        "player",  # of files, instead of rings; None: none
        "polled",  # the waiter knows what is ready: nothing has been looked at since it returned
        "relay",  # None: none
        "rings",
        "transport",  # of socket mode, else None
        "tun",  # brings answers in local mode, else None
        "tun_place",  # in `waiter`; -1: not waited for
        "udp",  # the UDP half, None: none
        "waiter",
    )

    def __init__(
        self,
        engine: Engine,
        batch: PacketBatch,
        housekeep: Callable[[int], object],
    ) -> None:
        self.awaited_ns = 0
        self.backlog = Backlog()
        self.backlog_limit = 0  # its owner sets it, in the first `housekeep` at the latest
        self.batch = batch
        self.engine = engine
        self.handler: PacketHandler = engine
        self.housekeep = housekeep
        self.housekeeping_ns = 0
        self.hurried_ns = 0
        self.input_place = -1
        self.places: list[int] = []
        self.leftovers: Leftovers | None = None
        self.player: Player | None = None
        self.polled = False
        self.relay: RelayClient | None = None
        self.rings: list[Ring] = []
        self.transport: SocketTransport | None = None
        self.tun: TunDevice | None = None
        self.tun_place = -1
        self.udp: UdpSide | None = None
        self.waiter = Waiter()

    # --- what it drives --------------------------------------------------------------------

    def add_relay(self, relay: RelayClient) -> None:
        """Take answers from it, and let it send."""
        self.relay = relay
        self.waiter.add(relay.fileno())

    def add_transport(self, transport: SocketTransport) -> None:
        """Serve its sockets."""
        self.transport = transport
        self.waiter.add(transport.fileno())

    def add_tun(self, tun: TunDevice) -> None:
        """Take answers from it."""
        self.tun = tun
        self.tun_place = self.waiter.add(tun.fileno())

    def add_udp(self, udp: UdpSide) -> None:
        """Drive it as well; packets come to it by `handler`."""
        self.udp = udp
        if udp.fileno() >= 0:
            self.waiter.add(udp.fileno())

    def add_ring(self, ring: Ring) -> None:
        """Capture from it."""
        self.rings.append(ring)
        self.places.append(self.waiter.add(ring.fileno()))

    def remove_rings(self) -> None:
        """Capture no more."""
        for place in self.places:
            self.waiter.remove(place)
        self.places = []
        self.rings = []

    # --- turns -----------------------------------------------------------------------------

    def run(self, until_ns: int, stop_place: int) -> None:
        """Turn until that time has passed, or the descriptor at `stop_place` has been ready.

        Without traffic it comes back once a second at the latest, and at the end of files.
        """
        while True:
            handled = self.turn()
            if self.engine.now_ns >= until_ns or self.is_done():
                return
            if self.backlog.held_bytes:
                continue
            if handled >= _BUSY_EVENTS:
                nap(_NAP_NS)
                continue
            self.wait()
            if self.waiter.is_ready(stop_place) or self.waited_long():
                return

    def is_done(self) -> bool:
        """Whether files were replayed to their end, and every session of them has ended.

        UDP has no end: of its flows none may still be answered.
        """
        if self.player is None or not self.player.finished or self.engine.context.counts.live:
            return False
        return self.udp is None or self.udp.is_quiet()

    def waited_long(self) -> bool:
        """Whether nothing came in the sleep just ended."""
        return monotonic_ns() - self.engine.now_ns >= _LONGEST_SLEEP_NS

    def turn(self) -> int:
        """One turn; the number of packets and events handled."""
        now_ns = monotonic_ns()
        engine = self.engine
        engine.now_ns = now_ns
        has_stood = self.awaited_ns != 0 and now_ns - self.awaited_ns > _STANDSTILL
        if has_stood:
            self._stand_still(now_ns, now_ns - self.awaited_ns)
        self.awaited_ns = now_ns
        if now_ns >= self.housekeeping_ns:
            self.housekeeping_ns = now_ns + _HOUSEKEEPING_NS
            self.housekeep(now_ns)
        udp: Any = self.udp
        if udp is not None:
            udp.begin(now_ns)
        if self.transport is not None:
            self.transport.now_ns = now_ns  # connects begin before it is served
        handled = 0
        relay: Any = self.relay
        if relay is not None:
            handled += self._take_answers(
                relay, now_ns, _RELAY_UNREAD if has_stood else _RELAY_LIMIT
            )
        if self.tun is not None:
            handled += self._take_local_answers(self.tun, now_ns)
        handled += self._capture()
        if engine.wants_acks and not engine.pure_acks and now_ns >= self.hurried_ns:
            self.hurried_ns = now_ns + _HURRY_NS
            self.housekeep(now_ns)
        if self.transport is not None:
            handled += self._serve_sockets(self.transport, now_ns)
        engine.run_timers()
        if self.leftovers is not None:
            self.leftovers.run(now_ns)
        self.batch.flush()
        if udp is not None:
            handled += udp.end()
        if relay is not None:
            relay.flush(now_ns)
        self.polled = False
        return handled

    def wait(self) -> None:
        """Sleep until something has come or is due."""
        deadline_ns = self.engine.next_deadline_ns()
        if self.relay is not None:
            relay_ns = self.relay.next_deadline_ns()
            if relay_ns is not None and (deadline_ns < 0 or relay_ns < deadline_ns):
                deadline_ns = relay_ns
        if self.player is not None:
            due_ns = self.player.due_ns
            if due_ns >= 0 and (deadline_ns < 0 or due_ns < deadline_ns):
                deadline_ns = due_ns
            self._watch_input(self.player)
        if self.transport is not None:
            lines_ns = self.transport.next_deadline_ns()
            if lines_ns >= 0 and (deadline_ns < 0 or lines_ns < deadline_ns):
                deadline_ns = lines_ns
        if self.udp is not None:
            udp_ns = self.udp.next_deadline_ns()
            if udp_ns >= 0 and (deadline_ns < 0 or udp_ns < deadline_ns):
                deadline_ns = udp_ns
        if self.leftovers is not None:
            leftovers_ns: int = self.leftovers.deadline_ns()
            if deadline_ns < 0 or leftovers_ns < deadline_ns:
                deadline_ns = leftovers_ns
        timeout_ns = _LONGEST_SLEEP_NS
        if deadline_ns >= 0:
            left_ns = deadline_ns - monotonic_ns()
            if left_ns < timeout_ns:
                timeout_ns = left_ns if left_ns > 0 else 0
        self.awaited_ns = self.engine.now_ns + timeout_ns
        self.waiter.wait(timeout_ns)
        self.polled = True

    def _watch_input(self, player: Any) -> None:
        """Be woken by a pipe only while its packets are waited for: it may be full all the time."""
        if self.input_place >= 0 and not player.wants_input:
            self.waiter.remove(self.input_place)
            self.input_place = -1
        elif player.wants_input and self.input_place < 0:
            self.input_place = self.waiter.add(player.stream.fileno())

    def _stand_still(self, now_ns: int, duration_ns: int) -> None:
        """This process was stopped for so long: what came meanwhile is read before all else.

        That time is nobody's silence, and no schedule is caught up with.
        """
        self.engine.context.stand_still(now_ns, duration_ns)
        if self.udp is not None:
            self.udp.engine.stand_still(now_ns, duration_ns)
        if self.player is not None:
            self.player.stand_still(duration_ns)

    def _serve_sockets(self, transport: Any, now_ns: int) -> int:
        """Take what came on all sockets, or timers would run out over answers unread."""
        events: int = transport.service(now_ns)
        total = events
        for _ in range(_SOCKET_ROUNDS):
            if events < _SOCKET_EVENTS:
                break
            events = transport.service(now_ns)
            total += events
        return total

    def _take_answers(self, relay: Any, now_ns: int, limit: int) -> int:
        """Take what the relay brought: all of it, or timers would run out over answers unread."""
        # Always, whatever woke the loop: time has gone by since, and what is decided by it next
        # (is the answer complete, has it been quiet) must not be over answers unread.
        timestamp_ns = now_ns + self.engine.clock_offset_ns
        records: int = relay.service(now_ns, timestamp_ns)
        total = records
        while records >= _RELAY_BACKLOG and total < limit:
            records = relay.service(now_ns, timestamp_ns)
            total += records
        # Only then is it judged who has been silent.
        deadline = relay.next_deadline_ns()
        if deadline is not None and deadline <= now_ns:
            relay.run_timers(now_ns)
        return total

    def _take_local_answers(self, tun: TunDevice, now_ns: int) -> int:
        """Take what came out of the device."""
        timestamp_ns = now_ns + self.engine.clock_offset_ns
        answers: PacketHandler = self.engine.answers
        taken = tun.drain(answers, _RELAY_LIMIT, timestamp_ns)
        if tun.failed and self.tun_place >= 0:
            self.waiter.remove(self.tun_place)  # it would be ready for ever
            self.tun_place = -1
        return taken

    def _capture(self) -> int:
        """Take captured packets; what one turn should not work on is moved to the backlog."""
        if self.player is not None:
            return self.player.play(self.engine.now_ns)
        backlog = self.backlog
        handled = backlog.hand_on(self.handler, _DRAIN_LIMIT)
        for index in range(len(self.rings)):
            ring: Ring = self.rings[index]
            taken = 0
            if not backlog.held_bytes:
                taken = ring.drain(self.handler, _DRAIN_LIMIT)
                handled += taken
                if taken == 0 and self.polled and self.waiter.is_ready(self.places[index]):
                    ring.check_device()
            if backlog.held_bytes or taken == _DRAIN_LIMIT:
                self._set_aside(ring)
        return handled

    def _set_aside(self, ring: Ring) -> None:
        """Move what waits in the ring to the backlog, as far as that may grow."""
        backlog = self.backlog
        for _ in range(_OVERFLOW_STEPS):
            if backlog.held_bytes > self.backlog_limit:
                return  # the ring is the last buffer left; what it drops, the kernel counts
            if ring.drain(backlog, _OVERFLOW_STEP) < _OVERFLOW_STEP:
                return
