"""One tcpcopy worker: what it is made of, opened, run and closed. `loop` has its turns."""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tcpcopy.capture.acks import AckFilter, Evidence
from tcpcopy.capture.filters import REJECT_ALL
from tcpcopy.capture.ring import Ring, open_rings
from tcpcopy.capture_side import fill as fill_encapsulations
from tcpcopy.capture_side import filter_program, own_expression, unwrapping
from tcpcopy.deliver.link import LinkSender
from tcpcopy.deliver.raw import RawSender
from tcpcopy.deliver.sockets import SocketTransport
from tcpcopy.deliver.tunnel import TunnelSender
from tcpcopy.doctor.start import StartProbe
from tcpcopy.engine.context import Context, EngineConfig
from tcpcopy.engine.datagram import ProtocolSwitch
from tcpcopy.engine.engine import Engine
from tcpcopy.engine.kernel import KernelClient
from tcpcopy.engine.opening import Opener
from tcpcopy.errors import UsageError
from tcpcopy.local_side import ALONE, LocalConfig, LocalSide
from tcpcopy.loop import Loop
from tcpcopy.mapping.allocator import Allocator
from tcpcopy.mapping.clients import AddressPool
from tcpcopy.mapping.rate import RateConfig
from tcpcopy.mapping.sampling import Sampler
from tcpcopy.mapping.transfers import TransferTable
from tcpcopy.memory import ResidentMemory, give_back
from tcpcopy.memory_limit import MemoryLimit
from tcpcopy.namespaces import Namespace, inside
from tcpcopy.packet.batch import PacketBatch, PacketSink
from tcpcopy.probe_side import start_probe
from tcpcopy.recorded.datagrams import DatagramReading
from tcpcopy.recorded.player import Player, RecordedConfig, open_feed
from tcpcopy.recorded.stream import open_recorded
from tcpcopy.relay.client import RelayClient, Unreachable
from tcpcopy.relay.native import RelayMode, RelayTerms
from tcpcopy.relay.packet_queue import MAX_PACKET_BYTES
from tcpcopy.relay.tunnel_client import TunnelClient
from tcpcopy.report.context import Context as Setup
from tcpcopy.report.counters import InputCounts, RateCounts, RingCounts, Snapshot
from tcpcopy.udp_side import UdpConfig, UdpSide

_log = logging.getLogger(__name__)

EXIT_WAIT_NS = 10_000_000_000
_TICK_NS = 50_000_000  # reports are looked at so often while there is traffic
_LOOK_NS = 20_000_000
_PAUSE_NS = 5_000_000
_BUSY_EVENTS = 8
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class CopierConfig:
    """What one worker is to do; checked already."""

    engine: EngineConfig
    transfers: TransferTable
    devices: tuple[str, ...] = ()
    capture_namespace: Namespace | None = None  # None: the one this process is in
    filter: str | None = None
    buffer_bytes: int = 32 * _MIB
    snaplen: int = 65535
    promiscuous: bool = False
    unwraps: bool = False  # tunnels and tags of switches are taken off what is captured
    intercepts: tuple[tuple[str, int], ...] = ()  # none: socket mode
    output_device: str = ""  # classic mode: send frames on it; "": raw sockets
    relay_connections: int = 2
    lonely: bool = False
    local: LocalConfig | None = None  # local mode
    relay: RelayTerms = field(default_factory=RelayTerms)
    relay_names: Mapping[str, str] = field(default_factory=dict)  # address of -s: name given
    pool: AddressPool | None = None
    localhost_replacement: bytes | None = None
    copies: int = 1
    factor: int = 0
    port_shift: int = 0
    percentage: int = 100
    gradual: bool = False
    memory_bytes: int = 1024 * _MIB
    local_addresses: tuple[bytes, ...] = field(default=())
    share: tuple[int, int] = (0, 1)  # this worker, and how many there are
    recorded: RecordedConfig | None = None  # files instead of devices
    rate: RateConfig | None = None
    tcp: bool = True  # whether TCP is copied
    udp: UdpConfig | None = None  # UDP as well, or alone
    checks: Setup | None = None  # the run, for the probe at the start; None: none is wanted


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
        self.player: Player | None = None
        self.probe: StartProbe | None = None
        self._ack_filter: AckFilter | None = None
        self._started_ns = time.time_ns()
        self._started_monotonic_ns = time.monotonic_ns()
        self._resident: ResidentMemory | None = None
        self._memory: MemoryLimit | None = None
        self._closed = False
        self.engine = self._make_engine()
        self.loop = Loop(self.engine, self._batch, self._housekeep)
        self.udp = self._make_udp()
        if self.udp is not None:
            both = ProtocolSwitch(self.udp.engine, self.engine)
            self.loop.handler = both if config.tcp else self.udp.engine
        self._unwrapping = None
        if config.unwraps and config.recorded is None:
            self._unwrapping = unwrapping(config, self.loop.handler)
            self.loop.handler = self._unwrapping

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
            self.transport = SocketTransport(self._on_transport, config.engine.answer_timeout_ns)
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
        return Engine(config.engine, context, opener, on_bug=_log_bug)

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
        if config.filter is None and config.tcp and self.player is None:
            self._ack_filter = AckFilter(
                self.rings,
                filter_program(config),
                filter_program(config, pure_acks=False),
                far_matters=not config.engine.rtt_ns,
            )
        # One worker of several is enough: all have the same way.
        if config.checks is not None and config.tcp and config.share[0] == 0:
            identities = self._opener.identities
            self.probe = start_probe(
                config, config.checks, self.engine, identities, self.local, self.relay
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

    def _housekeep(self, now_ns: int) -> None:
        if self._ack_filter is not None:
            counts = self.engine.context.counts
            evidence = Evidence(counts.client_first, counts.server_first, counts.far)
            self.engine.pure_acks = self._ack_filter.look(now_ns, evidence)
        if self.player is None:  # its times are the loop's already
            self.engine.clock_offset_ns = time.time_ns() - time.monotonic_ns()
        if self._memory is not None:
            self._look_at_memory(self._memory, now_ns)
        if isinstance(self.sender, LinkSender):
            self.sender.look(now_ns)
            self._batch.largest = self.sender.largest
        if self.probe is not None:
            self.probe.look(now_ns)
        if self.local is not None:
            self.local.look()
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
        loop, engine = self.loop, self.engine
        self._ack_filter = None
        for ring in self.rings:
            ring.set_filter(REJECT_ALL)  # what has been captured is all that will be
        if self.player is not None:
            self.player.stop()
            for problem in self.player.stream.problems:
                _log.warning("%s", problem)
        until_ns = time.monotonic_ns() + EXIT_WAIT_NS
        loop.turn()
        while loop.backlog.held_bytes or self._left_in_rings():
            loop.turn()
            if urgent() or engine.now_ns >= until_ns:
                _log.warning("%d captured packets were left unread", len(loop.backlog))
                break
        loop.remove_rings()
        looked_ns = 0
        while not urgent() and engine.now_ns < until_ns:
            handled = loop.turn()
            tick(engine.now_ns)
            if engine.now_ns - looked_ns > _LOOK_NS:
                looked_ns = engine.now_ns
                if engine.unfinished() == 0 and not (self.udp and self.udp.engine.unfinished()):
                    break
            if handled < _BUSY_EVENTS:
                loop.waiter.wait(_PAUSE_NS)
        engine.now_ns = time.monotonic_ns()
        engine.close_all()
        self._batch.flush()
        if self.udp is not None:
            self.udp.begin(engine.now_ns)
            self.udp.engine.close_all()

    def _left_in_rings(self) -> bool:
        poll = select.poll()
        for ring in self.rings:
            poll.register(ring.fileno(), select.POLLIN)
        return bool(poll.poll(0))

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
            sessions_since_accept=counts.sessions - counts.begun_at_accept,
            sessions_midstream=counts.picked_up,
            outcomes=counts.outcome_counts(),
            turns_captured=counts.turns_captured,
            turns_replayed=counts.turns_replayed,
            turns_late=counts.turns_late,
            bytes_captured=counts.bytes_captured,
            bytes_delivered=counts.bytes_delivered,
            answer_bytes=counts.answer_bytes,
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
        if self.sender is not None:
            snapshot.send_errors = dict(self.sender.errors)
        if self.local is not None:
            snapshot.send_errors = dict(self.local.errors)
        if self.transport is not None:
            snapshot.send_errors = dict(self.transport.errors)
        for ring in self.rings:
            received, dropped = ring.statistics()
            name = ring.device or "all devices"
            ring_counts = snapshot.rings.setdefault(name, RingCounts())
            ring_counts.received += received
            ring_counts.dropped += dropped
        if self.relay is not None:
            snapshot.relays = self.relay.counts()
        if self.udp is not None:
            self.udp.fill(snapshot)
        fill_encapsulations(snapshot, self.rings, self._unwrapping, self.player)
        if self.player is not None:
            snapshot.file = file_counts(self.player)
        if self._rate is not None:
            snapshot.rate = RateCounts(
                taken=self._rate.taken,
                waited=self._rate.waited,
                reached_milli=round(1000 * self._rate.reached(time.monotonic_ns())),
            )
        return snapshot


def file_counts(player: Player) -> InputCounts:
    """What was read of the files."""
    done, total = player.progress()
    return InputCounts(
        packets=player.feed.taken + player.feed.left_out,
        left_out=player.feed.left_out,
        bytes_read=done,
        bytes_total=total,
        passes=player.passes_done,
        problems=len(player.stream.problems),
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


__all__ = [
    "EXIT_WAIT_NS",
    "Copier",
    "CopierConfig",
    "filter_program",
    "no_privilege",
    "own_expression",
]
