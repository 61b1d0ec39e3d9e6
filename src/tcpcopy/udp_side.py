"""The UDP half of a worker: engine, output and counts joined; the copier's loop calls it.

Beside the TCP half and independent of it: own flows, sender and counts. With `--transport both`
a switch in front of the two engines tells the packets apart; without UDP none of this is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tcpcopy.deliver.datagrams import DatagramSockets
from tcpcopy.deliver.link import LinkSender
from tcpcopy.deliver.raw import RawSender
from tcpcopy.deliver.tun import TunDatagrams
from tcpcopy.deliver.tunnel import TunnelSender
from tcpcopy.engine.answered import AnsweredOutput, DatagramAnswers
from tcpcopy.engine.datagram import DatagramConfig, DatagramEngine
from tcpcopy.engine.flow import DatagramCounts
from tcpcopy.engine.forged import LEAST_CAPACITY, PacketOutput
from tcpcopy.local_side import ALONE, LocalSide
from tcpcopy.mapping.allocator import Allocator
from tcpcopy.mapping.clients import AddressPool
from tcpcopy.mapping.sampling import Sampler
from tcpcopy.mapping.transfers import TransferTable
from tcpcopy.packet.batch import PacketBatch, PacketSink
from tcpcopy.report.counters import Snapshot
from tcpcopy.said_side import fill_said

# At the end of a file, after what went or came last: more answers than one may be on their way.
_QUIET_NS = 100_000_000
_LARGEST_PACKET = 65_535
_PORT_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"


@dataclass(frozen=True, slots=True)
class UdpConfig:
    """What the UDP half of a worker is to do; checked already."""

    engine: DatagramConfig
    forges: bool = False  # packets with client addresses; else kernel sockets
    port_shift: int = 0


class _NoSink(PacketSink):
    """Stands in the batch until `open`."""

    __slots__ = ()


class UdpSide:
    """Everything of a worker that is about UDP. Not thread-safe."""

    def __init__(
        self,
        config: UdpConfig,
        transfers: TransferTable,
        *,
        pool: AddressPool | None,
        localhost_replacement: bytes | None,
        factor: int,
        percentage: int,
        gradual: bool,
        local_addresses: tuple[bytes, ...],
        share: tuple[int, int],
        mtu: int,
        on_bug: Callable[[str], object],
        local: LocalSide | None = None,
    ) -> None:
        """Nothing is opened yet."""
        self.counts = DatagramCounts()
        self.sockets: DatagramSockets | None = None
        self.packets: PacketOutput | None = None
        self.sender: RawSender | LinkSender | TunDatagrams | TunnelSender | None = None
        self._local = local
        self._transfers = transfers
        if local is not None:
            # Whole datagrams: a later fragment has no port by which its way back could be known.
            mtu = _LARGEST_PACKET
        self._mtu = mtu
        output: DatagramSockets | PacketOutput
        if config.forges:

            def allocator(pool: AddressPool | None) -> Allocator:
                return Allocator(
                    pool,
                    localhost_replacement,
                    factor,
                    config.engine.copies,
                    # A client that speaks again after a silence is to look the same.
                    0,
                    shift=config.port_shift,
                    share=share if local is None else ALONE,
                )

            batch = PacketBatch(_NoSink(), LEAST_CAPACITY, mtu)
            if local is None:
                self.packets = PacketOutput(batch, self.counts, allocator(pool), mtu)
            else:
                self.packets = AnsweredOutput(batch, self.counts, local.identities(allocator), mtu)
            output = self.packets
        else:
            output = self.sockets = DatagramSockets(self.counts, self._on_answer, local_addresses)
        self._output = output
        self.engine = DatagramEngine(
            config.engine,
            output,
            self.counts,
            transfers=transfers,
            sampling=Sampler(percentage, gradual, start_ns=time.monotonic_ns()),
            on_bug=on_bug,
        )
        self._on_answer_of = self.engine.answered

    def _on_answer(self, leg: object, length: int) -> None:
        self._on_answer_of(leg, length)  # type: ignore[arg-type]

    def open(self, output_device: str, tunnel: TunnelSender | None = None) -> None:
        """Open what sends packets, unless it is a tunnel that is open already.

        Raises: UsageError, OSError (PermissionError).
        """
        if self.packets is None:
            return
        if self._local is not None:
            self.sender = self._open_local(self._local)
        elif tunnel is not None:
            self.sender = tunnel
        elif output_device:
            self.sender = LinkSender(output_device, self._transfers, None, mtu=self._mtu)
        else:
            self.sender = RawSender()
        self.sender.failures = self.packets.failures
        self.packets.batch.sink = self.sender

    def _open_local(self, local: LocalSide) -> RawSender | TunDatagrams:
        assert isinstance(self.packets, AnsweredOutput)
        answers = DatagramAnswers(self.packets, self.counts, self.engine.answered)
        local.device.others = answers
        return TunDatagrams(local.device) if local.sends_by_device else RawSender()

    @property
    def hears_answers(self) -> bool:
        """Whether what the target answers comes here."""
        return self.sockets is not None or self._local is not None

    def fileno(self) -> int:
        """What polls readable when the target has answered; -1: nothing does."""
        return -1 if self.sockets is None else self.sockets.fileno()

    def begin(self, now_ns: int) -> None:
        """A turn of the loop begins."""
        self.engine.now_ns = now_ns
        self._output.now_ns = now_ns

    def end(self) -> int:
        """The turn ends: send, take answers, run timers; events handled."""
        self.engine.flush()
        handled = 0
        if self.sockets is not None:
            handled = self.sockets.service()
        self.engine.run_timers()
        return handled

    def next_deadline_ns(self) -> int:
        """When a turn is wanted next, -1: not by itself."""
        return self.engine.next_deadline_ns()

    def is_quiet(self) -> bool:
        """Whether no answer is to be expected any more."""
        newest = self.engine.order.newest
        if newest is None:
            return True
        quiet_ns = self.engine.now_ns - newest.last_ns
        return quiet_ns >= _QUIET_NS and self.engine.unfinished() == 0

    def housekeep(self, now_ns: int, clock_offset_ns: int, memory_is_short: bool) -> None:
        """To be called every second."""
        self.engine.clock_offset_ns = clock_offset_ns
        self.engine.memory_is_short = memory_is_short
        if isinstance(self.sender, LinkSender):
            self.sender.look(now_ns)

    def close(self) -> None:
        """Close what is open; may be called twice."""
        if self.sockets is not None:
            self.sockets.close_all()
        if self.sender is not None:
            self.sender.close()

    def fill(self, snapshot: Snapshot) -> None:
        """Put the counts into a snapshot."""
        counts = self.counts
        snapshot.udp_flows_captured = counts.seen
        snapshot.udp_flows_live = counts.live
        snapshot.udp_flows_peak = counts.peak
        snapshot.udp_flows_answered = counts.answered
        snapshot.udp_outcomes = counts.outcome_counts()
        snapshot.udp_datagrams_captured = counts.datagrams
        snapshot.udp_datagram_drops = counts.datagram_drop_counts()
        snapshot.udp_bytes_captured = counts.bytes_captured
        snapshot.udp_bytes_sent = counts.bytes_sent
        snapshot.udp_packets_captured = counts.packets
        snapshot.udp_packet_drops = counts.packet_drop_counts()
        snapshot.udp_fragments = counts.fragments
        snapshot.udp_joined = counts.joined
        snapshot.udp_large = counts.large
        snapshot.udp_answers = counts.answers
        snapshot.udp_answer_bytes = counts.answer_bytes
        snapshot.udp_refusals = counts.refusals
        snapshot.udp_errors = dict(counts.errors)
        snapshot.udp_answer_time = counts.answer_time.copy()
        snapshot.udp_lag = counts.lag.copy()
        fill_said(snapshot, counts.said)


def ports_to_send_from() -> int:
    """How many ports the kernel gives to sockets of one address that ask for none."""
    with open(_PORT_RANGE) as file:
        first, last = map(int, file.read().split())
    return max(1, last - first + 1)
