"""One tcpcopy worker: what it is made of, opened, run and closed. `loop` has its turns."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from tcpcopy.capture.ring import Ring, open_rings
from tcpcopy.capture_side import fill as fill_encapsulations
from tcpcopy.capture_side import unwrapping
from tcpcopy.copier_config import CopierConfig, filter_program, own_expression
from tcpcopy.deliver.link import LinkSender
from tcpcopy.deliver.raw import RawSender
from tcpcopy.deliver.sockets import SocketTransport
from tcpcopy.deliver.tunnel import TunnelSender
from tcpcopy.doctor.start import StartProbe
from tcpcopy.ending import Ending
from tcpcopy.engine.context import Context
from tcpcopy.engine.datagram import ProtocolSwitch
from tcpcopy.engine.engine import Engine
from tcpcopy.engine.kernel import KernelClient
from tcpcopy.engine.opening import Opener
from tcpcopy.engine.unread import Unread
from tcpcopy.errors import UsageError
from tcpcopy.figures import fill_rings, fill_unread
from tcpcopy.handshake_side import HandshakeSide
from tcpcopy.leftover_side import LeftoverSide
from tcpcopy.local_side import ALONE, LocalSide
from tcpcopy.loop import Loop
from tcpcopy.mapping.allocator import Allocator
from tcpcopy.mapping.clients import AddressPool
from tcpcopy.mapping.sampling import Sampler
from tcpcopy.memory import ResidentMemory, give_back, resident_bytes
from tcpcopy.memory_limit import MemoryLimit
from tcpcopy.namespaces import inside
from tcpcopy.packet.batch import PacketBatch, PacketSink
from tcpcopy.packet.twins import DatagramTwins
from tcpcopy.probe_side import SessionStop, start_probe
from tcpcopy.recorded.datagrams import DatagramReading
from tcpcopy.recorded.player import Player, RecordedConfig, open_feed
from tcpcopy.recorded.stream import open_recorded
from tcpcopy.relay.client import RelayClient, Unreachable
from tcpcopy.relay.native import RelayMode, RelayTerms
from tcpcopy.relay.packet_queue import MAX_PACKET_BYTES
from tcpcopy.relay.tunnel_client import TunnelClient
from tcpcopy.report.counters import RateCounts, Snapshot
from tcpcopy.retry_side import RetryLog, fill_retries
from tcpcopy.said_side import fill_said
from tcpcopy.socket_side import SocketWatch
from tcpcopy.udp_side import UdpSide

_log = logging.getLogger(__name__)

_TICK_NS = 50_000_000  # reports are looked at so often while there is traffic
_MIB = 1 << 20


class _NoSink(PacketSink):
    """Socket mode writes no packets."""

    __slots__ = ()


class Copier:
    """Everything of one worker. Not thread-safe."""

    def __init__(self, config: CopierConfig, rings: Sequence[Ring] = ()) -> None:
        """Nothing is opened yet. `rings`: opened already, to capture from instead of own ones."""
        self.config = config
        self.rings = list(rings)
        self.sender: RawSender | LinkSender | TunnelSender | None = None
        self.local: LocalSide | None = None
        if config.local is not None:
            self.local = LocalSide(config.local, config.transfers, config.share, config.engine.mtu)
        self.relay: RelayClient | None = None
        self.transport: SocketTransport | None = None
        self._socket_watch: SocketWatch | None = None
        self.player: Player | None = None
        self.probe: StartProbe | None = None
        self.leftovers: LeftoverSide | None = None
        self._started_ns = time.time_ns()
        self._started_monotonic_ns = time.monotonic_ns()
        self._resident: ResidentMemory | None = None
        self._memory: MemoryLimit | None = None
        self._stood_still_ns = 0  # as logged
        self._unread: Unread | None = None  # packets, once the run has ended
        self._closed = False
        self.engine = self._make_engine()
        self.engine.divide(config.share[1])
        self._handshakes = HandshakeSide(self.engine)
        self.loop = Loop(self.engine, self._batch, self._housekeep)
        self.udp = self._make_udp()
        if self.udp is not None:
            both = ProtocolSwitch(self.udp.engine, self.engine)
            self.loop.handler = both if config.tcp else self.udp.engine
        self._unwrapping = unwrapping(config, self.loop.handler)
        if self._unwrapping is not None:
            self.loop.handler = self._unwrapping
        self._jumps_told: set[str] = set()
        self.stop = SessionStop(self.engine, self._opener, self.udp.engine if self.udp else None)

    # --- opening ---------------------------------------------------------------------------

    def _make_engine(self) -> Engine:
        config = self.config
        sink: PacketSink = _NoSink()
        batch = PacketBatch(sink, mtu=config.engine.mtu)
        context = Context(config.engine, batch)
        self._batch = batch
        sampler = None
        if config.percentage < 100 or config.gradual:
            sampler = Sampler(config.percentage, config.gradual, start_ns=time.monotonic_ns())
        if config.intercepts or self.local is not None:
            opener = Opener(
                config.engine,
                context,
                transfers=config.transfers,
                identities=self._allocator(config.pool)
                if self.local is None
                else self.local.identities(self._allocator),
                sampling=sampler,
                copies=config.copies,
            )
        else:
            self.transport = SocketTransport(
                self._on_transport,
                config.engine.answer_timeout_ns,
                config.engine.connect_timeout_ns,
                config.local_addresses,
                config.share[1],
            )
            self._socket_watch = SocketWatch(self.transport)
            opener = Opener(
                config.engine,
                context,
                transfers=config.transfers,
                identities=None,
                sampling=sampler,
                copies=config.copies,
                transport=self.transport,
                local_addresses=config.local_addresses,
            )
        self._opener = opener
        self._rate = None
        if config.rate is not None:
            self._rate = config.rate.limit(config.share[1])
            opener.rate = config.rate.session_rate(self._rate, config.recorded is not None)
            if config.rate.is_requests:
                context.turn_rate = self._rate
        engine = Engine(config.engine, context, opener, on_bug=_log_bug)
        if engine.retries is not None:
            engine.retries.tell = RetryLog(config.engine.retry_ns // 1_000_000_000)
        return engine

    def _allocator(self, pool: AddressPool | None) -> Allocator:
        config = self.config
        return Allocator(
            pool,
            config.localhost_replacement,
            config.factor,
            config.copies,
            shift=config.port_shift,
            # In local mode each worker has addresses of its own.
            share=config.share if self.local is None else ALONE,
        )

    def _make_udp(self) -> UdpSide | None:
        config = self.config
        if config.udp is None:
            return None
        return UdpSide(
            config.udp,
            config.transfers,
            pool=config.pool,
            localhost_replacement=config.localhost_replacement,
            factor=config.factor,
            percentage=config.percentage,
            gradual=config.gradual,
            local_addresses=config.local_addresses,
            share=config.share,
            # Through a tunnel a datagram goes whole, however large.
            mtu=MAX_PACKET_BYTES if config.relay.tunnel else config.engine.mtu,
            on_bug=_log_bug,
            local=self.local,
        )

    @property
    def resident_bytes(self) -> int:
        """What this process has in memory now."""
        return resident_bytes()

    def _on_transport(self, client: KernelClient) -> None:
        self.engine.transport_event(client)

    def open(self) -> None:
        """Open everything that can fail. Raises: UsageError, with nothing left open."""
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        config = self.config
        self._resident = ResidentMemory()
        self._memory = MemoryLimit(config.memory_bytes, self._resident.bytes, give_back)
        program = filter_program(config) if not self.rings else b""
        if config.recorded is not None:
            self.player = self.loop.player = self._open_recorded(config.recorded)
        if self.local is not None:
            self.local.open()
            self._batch.sink = self.local.sender
            self._batch.largest = self.local.largest
            self.loop.add_tun(self.local.device)
        elif config.intercepts:
            self._open_classic()
        elif self.transport is not None:
            self.loop.add_transport(self.transport)
        if self.udp is not None:
            self._open_udp(self.udp)
        if not self.rings and self.player is None:
            try:
                with inside(config.capture_namespace):
                    self.rings = open_rings(
                        config.devices,
                        program,
                        buffer_bytes=config.buffer_bytes,
                        snaplen=config.snaplen,
                        promiscuous=config.promiscuous,
                        unwraps=config.unwraps and config.filter is None,
                    )
            except PermissionError:
                raise no_privilege() from None
        for ring in self.rings:
            self.loop.add_ring(ring)
        if self.udp is not None and len(config.devices) > 1:
            self.udp.engine.twins = DatagramTwins()  # one may lie above another
        if config.filter is None and config.tcp and self.player is None:
            self._handshakes.switch_acks(
                self.rings,
                filter_program(config),
                filter_program(config, pure_acks=False),
                far_matters=not config.engine.rtt_ns,
            )
        if config.ledger is not None:
            self.leftovers = LeftoverSide(config.ledger, self.engine, self.loop, self.relay)
        # One worker of several is enough: all have the same way.
        if config.checks is not None and config.tcp and config.share[0] == 0:
            identities = self._opener.identities
            self.probe = start_probe(
                config, config.checks, self.engine, identities, self.local, self.relay, self.stop
            )

    def _open_recorded(self, recorded: RecordedConfig) -> Player:
        config = self.config
        sources = config.transfers.sources()
        expression = config.filter
        if expression is None and (recorded.is_live or self.udp is not None):
            expression = own_expression(config)
        udp = None
        if self.udp is not None:
            udp = DatagramReading(
                self.udp.engine,
                self.loop.handler,
                fast=recorded.fast,
                hears_answers=self.udp.hears_answers,
            )
        feed = open_feed((port for _, port in sources), expression)
        player = Player(
            recorded,
            open_recorded(recorded.paths),
            feed,
            self.engine,
            memory_bytes=config.memory_bytes,
            udp=udp,
        )
        if self._rate is not None and config.rate is not None:
            player.limit_rate(self._rate, config.rate.mode, requests=config.rate.is_requests)
        return player

    def _open_udp(self, udp: UdpSide) -> None:
        try:
            udp.open(self.config.output_device, self._tunnel_sender())
        except PermissionError:
            raise no_privilege() from None
        self.loop.add_udp(udp)

    def _tunnel_sender(self) -> TunnelSender | None:
        relay = self.relay
        return TunnelSender(relay, self._before_send) if isinstance(relay, TunnelClient) else None

    def _open_classic(self) -> None:
        config = self.config
        client = TunnelClient if config.relay.tunnel else RelayClient
        relay = client(
            config.intercepts,
            self.engine.answers,
            connections_per_server=config.relay_connections,
            live_sessions=self.engine.live_identities,
            terms=self._relay_terms(),
            names=config.relay_names,
        )
        self.relay = relay
        try:
            self.sender = self._batch.sink = self._make_sender(relay)
        except PermissionError:
            raise no_privilege() from None
        self._opener.announcer = relay
        unreachable = relay.connect_all(time.monotonic_ns())
        if unreachable and not config.lonely:
            raise _no_intercept(unreachable[0], self._needs_ipv6())
        for server in unreachable:
            _log.warning("intercept %s: %s; trying on (-L)", server.server, server.problem)
        self.loop.add_relay(relay)

    def _needs_ipv6(self) -> bool:
        return any(len(address) == 16 for address, _ in self.config.transfers.targets())

    def _relay_terms(self) -> RelayTerms:
        """The classic relay cannot carry IPv6, so it is not fallen back on."""
        terms = self.config.relay
        return replace(terms, mode=RelayMode.NATIVE) if self._needs_ipv6() else terms

    def _make_sender(self, relay: RelayClient) -> RawSender | LinkSender | TunnelSender:
        config = self.config
        if isinstance(relay, TunnelClient):
            relay.check_targets(config.transfers.targets())
        tunnel = self._tunnel_sender()
        if tunnel is not None:
            return tunnel
        if not config.output_device:
            return RawSender(self._before_send)
        return LinkSender(
            config.output_device, config.transfers, self._before_send, mtu=config.engine.mtu
        )

    def _before_send(self) -> None:
        """Announcements leave before the SYNs that they announce."""
        if self.relay is not None:
            self.relay.flush(self.engine.now_ns)

    # --- running ---------------------------------------------------------------------------

    def _tell_clock_jumps(self, player: Player) -> None:
        """Say it once when the clock of a file jumps for the first time, ahead and back."""
        for direction, text in player.clock_jumps():
            if direction not in self._jumps_told:
                self._jumps_told.add(direction)
                _log.warning("the clock of the file %s", text)

    def _housekeep(self, now_ns: int) -> None:
        context = self.engine.context
        stood_still = context.stood_still_ns > self._stood_still_ns
        if stood_still:
            stood_ns = context.stood_still_ns - self._stood_still_ns
            self._stood_still_ns = context.stood_still_ns
            _log.warning(
                "this process stood still for %.1f s: it goes on from there", stood_ns / 1e9
            )
        self._handshakes.look(now_ns, stood_still=stood_still)
        if self.player is not None:
            self._tell_clock_jumps(self.player)
        if self.player is None:  # its times are the loop's already
            self.engine.clock_offset_ns = time.time_ns() - time.monotonic_ns()
        if self._memory is not None:
            self._look_at_memory(self._memory, now_ns)
        if isinstance(self.sender, LinkSender):
            self.sender.look(now_ns)
            self._batch.largest = self.sender.largest
        if self.probe is not None:
            self.probe.look(now_ns)
        if self.leftovers is not None:
            self.leftovers.look()
        if self.local is not None:
            self.local.look()
        if self._socket_watch is not None:
            self._socket_watch.look(now_ns)
        if self.udp is not None:
            short = self._opener.memory_is_short
            self.udp.housekeep(now_ns, self.engine.clock_offset_ns, short)
        for ring in self.rings:
            ring.check_device()
            if ring.failed is not None and ring.rebind():
                _log.warning("device %s is back", ring.device)

    def _look_at_memory(self, memory: MemoryLimit, now_ns: int) -> None:
        engine, backlog = self.engine, self.loop.backlog
        held = engine.context.counts.queued_bytes + backlog.held_bytes
        memory.look(now_ns, held, max(engine.most_queued_bytes, backlog.most_bytes))
        engine.most_queued_bytes = backlog.most_bytes = 0
        self._opener.memory_is_short = memory.is_short
        engine.max_queued_bytes = memory.payload_limit
        self.loop.backlog_limit = memory.backlog_limit

    def run(
        self, stop_fd: int, stopping: Callable[[], bool], tick: Callable[[int], object]
    ) -> None:
        """Copy until `stopping()` or the end of the files; `tick`: with the time now and then.

        `stop_fd` polls readable when `stopping` may have changed.
        """
        place = self.loop.waiter.add(stop_fd)
        while not stopping():
            self.loop.run(time.monotonic_ns() + _TICK_NS, place)
            tick(self.engine.now_ns)
            if self.loop.is_done():
                break
        self.loop.waiter.remove(place)

    def finish(self, urgent: Callable[[], bool], tick: Callable[[int], object]) -> None:
        """Stop capturing and let open work end, for a bounded time; then close all sessions."""
        engine, udp = self.engine, self.udp
        self._handshakes.stop()
        ending = Ending(self.loop, self.rings, urgent, tick)
        self._unread = unread = unread_of(self.config, engine)
        ending.read(unread)
        if self.player is not None:
            self._tell_clock_jumps(self.player)
            for problem in self.player.stream.problems:
                _log.warning("%s", problem)
        if unread.total:
            _log.warning(
                "%d captured packets were left unread, %d sessions begin in them",
                unread.total,
                unread.sessions,
            )
        ending.wait(lambda: engine.unfinished() + (udp.engine.unfinished() if udp else 0))
        engine.now_ns = time.monotonic_ns()
        if self._socket_watch is not None:
            self._socket_watch.stop()
        engine.close_all()
        self._batch.flush()
        if self.leftovers is not None:
            self.leftovers.finish()
        if udp is not None:
            udp.begin(engine.now_ns)
            udp.engine.close_all()

    def close(self) -> None:
        """Close everything; may be called twice."""
        if self._closed:
            return
        self._closed = True
        if self.probe is not None:
            self.probe.close(time.monotonic_ns())
        for ring in self.rings:
            ring.close()
        if self._resident is not None:
            self._resident.close()
        if self.player is not None:
            self.player.stream.close()
        if self.relay is not None:
            self.relay.close()
        if self.transport is not None:
            self.transport.close_all()
        if self.sender is not None:
            self.sender.close()
        if self.local is not None:
            self.local.close()
        if self.udp is not None:
            self.udp.close()

    def _rate_clock_ns(self) -> int:
        return self.engine.context.rate_clock_ns(time.monotonic_ns())

    # --- figures ---------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All counts of this worker, as they are now."""
        counts = self.engine.context.counts
        snapshot = Snapshot(
            started_ns=self._started_ns,
            duration_ns=time.monotonic_ns() - self._started_monotonic_ns,
            sessions_captured=counts.sessions,
            sessions_live=counts.live,
            sessions_peak=counts.peak,
            sessions_established=counts.established,
            sessions_midstream=counts.picked_up,
            outcomes=counts.outcome_counts(),
            turns_captured=counts.turns_captured,
            turns_replayed=counts.turns_replayed,
            turns_late=counts.turns_late,
            bytes_captured=counts.bytes_captured,
            bytes_delivered=counts.bytes_delivered,
            answer_bytes=counts.answer_bytes,
            urgent_bytes=counts.urgent,
            waits_expired=counts.waits_expired,
            packets_captured=counts.packets_captured,
            packet_drops=counts.capture_drop_counts(),
            packets_sent=counts.segments_sent,
            packets_retransmitted=counts.retransmitted,
            answers_received=counts.packets_answered,
            answer_drops=counts.answer_drop_counts(),
            answer_time=counts.answer_time.copy(),
            capture_lag=counts.capture_lag.copy(),
            memory_bytes=self._memory.resident_bytes if self._memory is not None else 0,
        )
        self._handshakes.fill(snapshot)
        if self.sender is not None:
            snapshot.send_errors = dict(self.sender.errors)
        if self.local is not None:
            snapshot.send_errors = dict(self.local.errors)
        if self._socket_watch is not None:
            self._socket_watch.fill(snapshot)
        fill_said(snapshot, counts.said)
        fill_retries(snapshot, counts)
        fill_rings(snapshot, self.rings)
        if self._unread is not None:
            snapshot.is_over = True
            fill_unread(snapshot, self._unread)
        if self.relay is not None:
            snapshot.relays = self.relay.counts()
        if self.udp is not None:
            self.udp.fill(snapshot)
        fill_encapsulations(snapshot, self.rings, self._unwrapping, self.player)
        if self.player is not None:
            snapshot.file = self.player.counts()
        if self.leftovers is not None:
            snapshot.leftovers = self.leftovers.counts()
        if self._rate is not None:
            snapshot.rate = RateCounts(
                taken=self._rate.taken,
                waited=self._rate.waited,
                reached_milli=round(1000 * self._rate.reached(self._rate_clock_ns())),
            )
        return snapshot


def unread_of(config: CopierConfig, engine: Engine | None = None) -> Unread:
    """What counts the packets that a worker has not read; `engine`: its own, if it still runs."""
    sampling = None
    if engine is not None:
        sampling = engine.opener.sampling
    elif config.percentage < 100:
        sampling = Sampler(config.percentage)
    return Unread(
        config.transfers,
        config.copies,
        engine=engine,
        sampling=sampling,
        now_ns=time.monotonic_ns(),
        with_tcp=config.tcp,
        with_udp=config.udp is not None,
    )


def _no_intercept(first: Unreachable, needs_ipv6: bool) -> UsageError:
    if not first.refused:
        problem = f"intercept cannot be reached ({first.problem})"
        return UsageError(
            "-s", first.server, problem, "start intercept there first, or give -L to wait for it"
        )
    problem = f"intercept is there, but {first.problem}"
    if needs_ipv6:
        problem += ", and IPv6 targets need the native one"
    return UsageError("-s", first.server, problem, "see docs/relay.md, and intercept's log")


def no_privilege() -> UsageError:
    """What to raise when the kernel does not let this process capture or send."""
    return UsageError(
        "capture",
        None,
        "capturing and raw sockets need the capability CAP_NET_RAW",
        "run it as root, or give it the capability (setcap cap_net_raw+ep on the interpreter)",
    )


def _log_bug(text: str) -> None:
    _log.error("a session was ended by an error inside tcpcopy:\n%s", text)
