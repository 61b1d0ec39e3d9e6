"""Intercept's loop: answers of the target in from the capture rings, out to the tcpcopies.

The target's route sends its answers to mapped clients to this host, which is not their end: they
arrive here addressed to a foreign IP address and must not be forwarded. One thread does the work:
it takes what the tcpcopies announce, then packets, then sends records. Only the rings that are no
longer needed are closed by threads of their own, because closing one takes the kernel long.
"""

from __future__ import annotations

import ipaddress
import logging
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tcpcopy.capture import devices
from tcpcopy.capture.filters import compile_filter
from tcpcopy.capture.ring import ALL_PROTOCOLS, IPV4, IPV6, Ring
from tcpcopy.doctor.watch import AnswerWatch
from tcpcopy.namespaces import Namespace, inside
from tcpcopy.own_addresses import OwnAddressWatch
from tcpcopy.relay.classic import (
    DEFAULT_PORT,
    MAX_BATCH,
    MAX_PAYLOAD_BYTES,
    Layout,
    RelayFault,
)
from tcpcopy.relay.desk import ProbeDesk
from tcpcopy.relay.native import STANDSTILL_NS, RelayMode, RelayTerms
from tcpcopy.relay.peers import Network, Peers
from tcpcopy.relay.probing import Report
from tcpcopy.relay.router import AnswerRouter
from tcpcopy.relay.server import RelayServer
from tcpcopy.report.outcome import Drop
from tcpcopy.tunnel_end import TunnelConfig, TunnelEnd
from tcpcopy.version import VERSION
from tcpcopy.waiting import Waiter, monotonic_ns, nap

_log = logging.getLogger("tcpcopy.intercept")
_MS: Final = 1_000_000
_SECOND_NS: Final = 1_000 * _MS
# Both headers with all their options, and 128 bytes of payload for the layouts that carry it.
_SNAPLEN: Final = 256
_FILTER_BYTES: Final = _SNAPLEN + 8
_FRAME_BYTES: Final = 512  # a ring frame: that, and what the kernel puts before it
# Packets of a ring before what they gave is sent: an answer must not wait for the next thousand.
_DRAIN_LIMIT: Final = 512
# A wake-up for each packet costs more than the packet: nap when a drain brought this many.
_BUSY_PACKETS: Final = 4
_NAP_NS: Final = 500_000
_HOUSEKEEPING_NS: Final = 250 * _MS
_REPORT_NS: Final = 60 * _SECOND_NS
# After a standstill announcements come in pieces: nothing is too old before they have been read.
_CATCH_UP_NS: Final = 5 * _SECOND_NS
_FORWARDING: Final = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
_INSTRUCTION: Final = struct.Struct("=HBBI")
_RETURN_CONSTANT: Final = 0x06


@dataclass(slots=True)
class InterceptConfig:
    """What intercept was asked to do."""

    devices: tuple[str, ...] = ()  # none: all
    capture_namespace: Namespace | None = None  # None, as is the next: the one this process is in
    listen_namespace: Namespace | None = None
    filter: str = ""  # pcap expression; "": all TCP but the relay's own
    host: str = ""  # to listen on; "": all addresses
    port: int = DEFAULT_PORT
    batch_records: int = MAX_BATCH
    layout: Layout | None = None  # None: batches, or what a C tcpcopy turns out to take
    early_limit: int = 65536  # sessions of which answers are kept until they are announced
    session_limit: int = 524_288
    replaced_address: bytes = b""  # answers to this address ...
    original_address: bytes = b""  # ... are handled as if sent to this one
    ignore_target: bool = False  # sessions are known without the target's address
    protected: bool = False
    relay: RelayTerms = field(default_factory=RelayTerms)
    allowed: tuple[Network, ...] = ()  # networks of tcpcopies; none: all
    peer_limit: int = 64  # tcpcopy hosts
    peer_session_limit: int = 524_288  # of one of them
    buffer_bytes: int = 16 << 20  # of each capture ring
    tunnel: TunnelConfig | None = None  # a TUN device instead of rings
    watches: bool = True  # tells when no answer ever comes

    @property
    def is_open(self) -> bool:
        """Whether hosts may connect that neither prove who they are nor are named (--allow)."""
        is_loopback = bool(self.host) and ipaddress.ip_address(self.host).is_loopback
        return not (self.relay.knows_peers or self.allowed or is_loopback)


class Interceptor:
    """Rings, router and relay server of one intercept process. Not thread-safe."""

    def __init__(self, config: InterceptConfig) -> None:
        """Nothing is opened yet."""
        self.config = config
        self.router = AnswerRouter(
            session_limit=config.session_limit,
            early_limit=config.early_limit,
            replaced_address=config.replaced_address,
            original_address=config.original_address,
            ignore_target=config.ignore_target,
        )
        self.server = RelayServer(
            self.router,
            host=config.host,
            port=config.port,
            batch_records=config.batch_records,
            layout=config.layout or Layout.BATCHED,
            finds_layout=config.layout is None,
            shows_quiet=bool(config.filter) or not config.is_open,
            protected=config.protected,
            terms=config.relay,
            peers=Peers(
                allowed=config.allowed,
                limit=config.peer_limit,
                sessions=config.peer_session_limit,
            ),
        )
        self.rings: list[Ring] = []
        self.tunnel: TunnelEnd | None = None
        self._places: list[int] = []  # of the rings, with the waiter
        self._waiter = Waiter()
        self._closed = False
        self._kernel_dropped = 0
        self._resumed_ns = 0  # when the last standstill of this process ended; 0: there was none
        self._server_place = -1
        self._tunnel_place = -1  # of the device, with the waiter; -1: it is gone
        self._reported: tuple[int, ...] = ()
        self._watch = AnswerWatch()
        self._own: OwnAddressWatch | None = None

    @property
    def filter_expression(self) -> str:
        """The filter in use."""
        if self.config.filter:
            return self.config.filter
        return f"tcp and not tcp dst port {self.config.port}"

    def open(self) -> None:
        """Listen and start to capture. Raises: UsageError, with nothing left open."""
        config = self.config
        if config.tunnel is not None:
            self._open_tunnel(config.tunnel)
            return
        try:
            compile_filter(self.filter_expression)  # complains of what was typed, not of the below
            family = "ip" if config.relay.mode is RelayMode.CLASSIC else "(ip or ip6)"
            program = cut_to_headers(compile_filter(f"{family} and ({self.filter_expression})"))
            with inside(config.capture_namespace):
                names: list[str | None] = [*devices.check_devices(config.devices)]
                devices.check_privilege()
            with inside(config.listen_namespace):
                self.listen()
            with inside(config.capture_namespace):
                self._open_rings(names or [None], program)
        except BaseException:
            self.close()
            raise

    def _open_tunnel(self, tunnel: TunnelConfig) -> None:
        try:
            with inside(self.config.listen_namespace):
                self.listen()
            self.tunnel = TunnelEnd(tunnel, self.config.capture_namespace)
            self.server.injector = self.tunnel.injector
            self._tunnel_place = self._waiter.add(self.tunnel.device.fileno())
        except BaseException:
            self.close()
            raise

    def _open_rings(self, names: Sequence[str | None], program: bytes) -> None:
        wanted = [(name, ALL_PROTOCOLS) for name in names if name is not None]
        every = [(None, IPV4), (None, IPV6)]
        if self.config.relay.mode is RelayMode.CLASSIC:
            every.pop()
        for name, protocol in wanted or every:
            ring = Ring(
                name,
                program,
                buffer_bytes=self.config.buffer_bytes,
                snaplen=_SNAPLEN,
                protocol=protocol,
                frame_bytes=_FRAME_BYTES,
            )
            self.add_ring(ring)

    def listen(self) -> None:
        """Let tcpcopies connect. Raises: UsageError."""
        config = self.config
        self._own = OwnAddressWatch(config.capture_namespace)
        self.router.set_own(self._own.current)
        self.server.desk = ProbeDesk(
            self.filter_expression,
            config.devices,
            self._state,
            config.capture_namespace,
            is_open=not config.relay.knows_peers,
        )
        self.server.open()
        self._server_place = self._waiter.add(self.server.fileno())

    def add_ring(self, ring: Ring) -> None:
        """Take answers from this ring, too."""
        self.rings.append(ring)
        self._places.append(self._waiter.add(ring.fileno()))

    def stay_where_captured(self) -> None:
        """Move to the captured namespace for good: to come and go takes CAP_SYS_ADMIN.

        Connections are accepted by a socket that is open already. Raises: UsageError.
        """
        if self.config.capture_namespace is not None:
            self.config.capture_namespace.enter()

    def log_start(self) -> None:
        """Log what is captured and where tcpcopies connect to, and what is wrong with the host."""
        config = self.config
        shown = ",".join(config.devices) or "all devices"
        if self.tunnel is not None:
            self.tunnel.log_start()
        else:
            _log.info("capturing '%s' on %s", self.filter_expression, shown)
        if not config.filter and self.tunnel is None:
            _log.info("no -F given: a filter such as 'tcp and src port 80' saves work")
        _log.info("listening on %s port %d", config.host or "all addresses", self.server.port)
        self._warn_of_peers()
        if self.tunnel is not None:
            return
        with inside(config.capture_namespace):
            for lower, upper in devices.overlapping(config.devices):
                _log.warning("-i %s,%s: packets are seen on both; name one of them", lower, upper)

    def _warn_of_peers(self) -> None:
        """What is given to whoever connects."""
        config = self.config
        if config.is_open:
            _log.warning(
                "the relay is open: whoever reaches port %d of %s may have the headers of answers "
                "that this host captures; --secret-file FILE (here and at tcpcopy) or --allow "
                "ADDRESS closes it, -b ADDRESS narrows it",
                self.server.port, config.host or "any address of this host",
            )  # fmt: skip
        if config.layout is Layout.BATCHED_PAYLOAD and not config.allowed:
            _log.warning(
                "--relay-format batched-payload gives up to %d bytes of each answer's payload to "
                "any C tcpcopy that connects: --allow ADDRESS lets in only those named",
                MAX_PAYLOAD_BYTES,
            )
        if self._own is not None and config.replaced_address:
            address = int.from_bytes(config.replaced_address, "big")
            if self._own.current.has_v4(address):
                _log.warning("-D: answers to an address of this host itself are relayed, headers")

    def run(self, stop_fd: int, stopping: Callable[[], bool]) -> None:
        """Serve until `stopping()`; `stop_fd` polls readable when that may have changed."""
        stop_place = self._waiter.add(stop_fd)
        housekeeping_ns = report_ns = looked_ns = monotonic_ns()
        report_ns += _REPORT_NS
        handed = 0
        while not stopping():
            if _BUSY_PACKETS <= handed < _DRAIN_LIMIT:
                nap(_NAP_NS)
                polled = False
            else:
                self._waiter.wait(_HOUSEKEEPING_NS if handed < _DRAIN_LIMIT else 0)
                polled = True
            now_ns = monotonic_ns()
            if now_ns - looked_ns > STANDSTILL_NS:
                self._stand_still(now_ns, now_ns - looked_ns)
                polled = False  # what is ready was found out before
            looked_ns = now_ns
            handed = self.step(now_ns, polled)
            if now_ns >= housekeeping_ns:
                housekeeping_ns = now_ns + _HOUSEKEEPING_NS
                self._housekeeping(now_ns)
            if now_ns >= report_ns:
                report_ns = now_ns + _REPORT_NS
                self.report()
        self._waiter.remove(stop_place)

    def step(self, now_ns: int, polled: bool = False) -> int:
        """Take announcements, then packets, then send; returns the packets handed on.

        `polled`: the waiter knows what is ready.
        """
        self.router.now_ns = now_ns
        if not polled or self._waiter.is_ready(self._server_place):
            self.server.service(now_ns)
        handed = 0
        for ring, place in zip(self.rings, self._places, strict=True):
            taken = ring.drain(self.router, _DRAIN_LIMIT)
            handed += taken
            if taken == 0 and polled and self._waiter.is_ready(place):
                ring.check_device()
        if self.tunnel is not None:
            handed += self._drain_tunnel(self.tunnel)
        self.server.flush()
        return handed

    def _drain_tunnel(self, tunnel: TunnelEnd) -> int:
        handed = tunnel.drain(self.router, _DRAIN_LIMIT)
        if tunnel.device.failed and self._tunnel_place >= 0:
            self._waiter.remove(self._tunnel_place)  # it would be ready for ever
            self._tunnel_place = -1
        return handed

    def close(self) -> None:
        """Close everything; may be called twice."""
        for ring in self.rings:
            ring.close()
        if self.tunnel is not None:
            self.tunnel.close()
        if not self._closed:
            self._closed = True
            self.server.close()
        if self._own is not None:
            self._own.close()
        self.router.clear()

    def kernel_dropped(self) -> int:
        """Answers that the kernel had no room for, on all rings."""
        return sum(ring.statistics()[1] for ring in self.rings)

    def _state(self) -> Report:
        """What a tcpcopy that probes is told of this intercept."""
        counts = [ring.statistics() for ring in self.rings]
        with inside(self.config.capture_namespace):
            forwards_v4, forwards_v6 = (_forwards(name) for name in _FORWARDING)
        return Report(
            version=VERSION,
            filter=self.filter_expression,
            devices=tuple(name for name in self.config.devices if name != "any"),
            received=sum(taken + dropped for taken, dropped in counts),
            dropped=sum(dropped for _, dropped in counts),
            forwards_v4=forwards_v4,
            forwards_v6=forwards_v6,
        )

    def report(self) -> None:
        """Log the counts, unless nothing has changed since the last time."""
        if self.tunnel is not None:
            self.tunnel.report()
        router, server = self.router, self.server
        dropped = self.kernel_dropped()
        lost = server.lost_records()
        unused = sum(router.drops)
        bad = (
            server.refused,
            sum(server.faults),
            router.refused,
            router.refused_own,
            router.refused_taken,
            server.payload_refused,
        )
        figures = (router.answers, router.announced, server.accepted, dropped, lost, *bad)
        if figures == self._reported:
            return
        self._reported = figures
        _log.info(
            "answers %d: relayed %d, early %d (sent %d, expired %d), unused %d; "
            "sessions %d now, %d announced, %d pushed out; tcpcopy connections %d now, %d accepted",
            router.answers,
            router.relayed,
            router.kept,
            router.early_sent,
            router.early_expired,
            unused,
            router.sessions,
            router.announced,
            router.evicted,
            server.connections,
            server.accepted,
        )
        if unused:
            reasons = sorted(((router.drops[d], d.description) for d in Drop), reverse=True)
            _log.info("unused: %s", ", ".join(f"{n} {text}" for n, text in reasons if n))
        if lost:
            _log.warning(
                "%d answers lost on the way to tcpcopy: it reads too slowly or broke", lost
            )
        if dropped:
            _log.warning("%d answers lost by the kernel: narrow -F, or raise -B", dropped)
        self._report_refused()
        if any(server.faults) or server.refused:
            kinds = [f"{server.faults[f]} {f.description}" for f in RelayFault if server.faults[f]]
            _log.warning(
                "relay connections refused %d, dropped: %s", server.refused, ", ".join(kinds) or 0
            )

    def _stand_still(self, now_ns: int, duration_ns: int) -> None:
        _log.warning(
            "this process stood still for %.1f s: it goes on from there", duration_ns / 1e9
        )
        self._resumed_ns = now_ns

    def _report_refused(self) -> None:
        router = self.router
        for count, text in (
            (router.refused, "sessions refused: their tcpcopy had --max-sessions"),
            (router.refused_taken, "sessions refused: they are another tcpcopy's, and live"),
            (router.refused_own, "sessions refused: their client is an address of this host"),
            (
                self.server.payload_refused,
                "connections asked for payload, which takes a secret or a certificate",
            ),
        ):
            if count:
                _log.warning("%d %s", count, text)

    def _housekeeping(self, now_ns: int) -> None:
        if not self._resumed_ns or now_ns - self._resumed_ns >= _CATCH_UP_NS:
            self.router.sweep(now_ns)
        if self._own is not None and self._own.look(now_ns):
            gone = self.router.set_own(self._own.current)
            if gone:
                _log.warning("%d sessions let go: their clients are addresses of this host", gone)
        self.server.run_timers(now_ns)
        if self.tunnel is not None:
            self.tunnel.look()
            if self._tunnel_place < 0 and self.tunnel.reopen():
                self._tunnel_place = self._waiter.add(self.tunnel.device.fileno())
        for ring in self.rings:
            ring.check_device()
            if ring.failed is not None and ring.rebind():
                _log.warning("device %s is back", ring.device)
        dropped = self.kernel_dropped()
        if dropped > self._kernel_dropped and not self._kernel_dropped:
            _log.warning("the kernel drops answers: narrow -F, or raise -B")
        self._kernel_dropped = dropped
        announced, answers = self.router.announced, self.router.answers
        if self.config.watches and self._watch.look(announced, answers, now_ns):
            shown = ",".join(self.config.devices) or "any"
            _log.warning(
                "%d sessions announced, and no answer seen on device %s that passes '%s': on the "
                "target, `ip route get CLIENT` must say that its answers come by this host; here, "
                "`tcpdump -ni any '%s'` must show them",
                announced, shown, self.filter_expression, self.filter_expression,
            )  # fmt: skip


def cut_to_headers(program: bytes) -> bytes:
    """The filter program with all it accepts cut to what a record is made from.

    Without it the kernel copies whole packets, and those larger than a ring frame twice.
    """
    cut = []
    for code, jump_true, jump_false, k in _INSTRUCTION.iter_unpack(program):
        if code == _RETURN_CONSTANT:
            k = min(k, _FILTER_BYTES)
        cut.append(_INSTRUCTION.pack(code, jump_true, jump_false, k))
    return b"".join(cut)


def _forwards(name: str) -> bool | None:
    """Whether this host passes packets on; None where that cannot be read."""
    try:
        return Path("/proc/sys/net", name).read_text().strip() != "0"
    except OSError:
        return None
