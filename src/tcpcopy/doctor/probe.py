"""One handshake with a target, end to end in the mode of the run: which hop fails, and why.

A SYN goes the way of the replay's packets, and its answer comes back the way of theirs. When it
does, the target is asked again (is the connection still there, or did somebody reset it?) and
the half-open connection is reset: no application hears of it. When nothing comes back, the rest of
the time is for telling why: an ordinary SYN from this host's own address, one from the assistant's
address, pings, what this host's devices and the assistant's see.

Not part of the replay: own sockets, own relay connections, its own mapped address and port, no
counts. `ProbeFacts` is what was observed, `causes` says what it means.
"""

from __future__ import annotations

import errno
import random
import select
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from tcpcopy.capture.filters import compile_filter
from tcpcopy.capture.tap import Tap, arp_question, arp_tap
from tcpcopy.deliver.link import LinkSender
from tcpcopy.deliver.raw import RawSender
from tcpcopy.doctor.causes import CHECK, diagnose
from tcpcopy.doctor.finding import Finding, Level
from tcpcopy.doctor.line import RelayLine
from tcpcopy.doctor.observed import Answer, Attempt, ProbeFacts, RelayFacts
from tcpcopy.doctor.own import OwnProbe
from tcpcopy.doctor.packets import Output, PacketWriter, is_neighbour, own_address, send_whole
from tcpcopy.mapping.addresses import format_address, parse_address
from tcpcopy.mapping.transfers import TransferTable
from tcpcopy.packet.batch import PacketBatch
from tcpcopy.packet.brief import ECHO, RESET, SYN, SYN_ACK, Brief, echo_request, read_brief
from tcpcopy.relay.desk import flow_expression, text_of
from tcpcopy.relay.native import RelayTerms
from tcpcopy.relay.probing import Flow, Seen
from tcpcopy.report.context import LINK, LOCAL, SOCKET, TUNNEL, Context, endpoint

_MS: Final = 1_000_000
START_NS: Final = 1_000 * _MS  # of a probe at the start
DOCTOR_NS: Final = 3_000 * _MS
_CONNECT_NS: Final = 1_000 * _MS
_SETTLE_NS: Final = 60 * _MS  # for a reset to get to the target
_ASK_NS: Final = 250 * _MS  # for an answer that is sure to come at once


@dataclass(frozen=True, slots=True)
class ProbeConfig:
    """What to probe: one target, from one mapped address."""

    context: Context  # of the run, for mode and remedies
    flow: Flow  # in socket mode `mapped` is the local address, b"" for any
    intercepts: tuple[tuple[str, int], ...] = ()
    relay: RelayTerms = field(default_factory=RelayTerms)
    relay_names: dict[str, str] = field(default_factory=dict)
    transfers: TransferTable | None = None  # with `output_device`
    output_device: str = ""
    mtu: int = 1500
    tun_device: str = ""  # of local mode: answers come out of it
    limit_ns: int = DOCTOR_NS
    may_connect: bool = True  # in full, where raw sockets are not allowed: the server sees that


def probe(config: ProbeConfig, output: Output | None = None) -> list[Finding]:
    """Probe, and say what was found. Blocks for `limit_ns`, and some more to connect the relay.

    `output` sends packets in the mode's way; made here where it is not given.
    """
    try:
        target = endpoint(format_address(config.flow.target), config.flow.target_port)
        return diagnose(observe(config, output), config.context.only(target))
    except PermissionError:
        text = "not tried: raw sockets need the capability CAP_NET_RAW, which is missing here"
    except OSError as error:
        text = f"not tried: {error.strerror or error}"
    return [Finding(CHECK, Level.NOTE, text)]


def observe(config: ProbeConfig, output: Output | None = None) -> ProbeFacts:
    """Probe, and return what was observed. Raises: PermissionError."""
    if config.context.mode == SOCKET:
        return OwnProbe(config.flow, config.limit_ns, may_connect=config.may_connect).run()
    with ExitStack() as stack:
        if output is None and not config.relay.tunnel:
            try:
                sender = _make_output(config)
            except PermissionError:
                raise
            except OSError as error:
                failed = Attempt(Answer.FAILED, errno=error.errno or errno.EIO)
                return ProbeFacts(config.flow, forged=failed)
            stack.callback(sender.close)
            output = sender
        run = _Run(config, output)
        stack.callback(run.close)
        return run.run()


def _make_output(config: ProbeConfig) -> RawSender | LinkSender:
    if config.output_device:
        assert config.transfers is not None
        return LinkSender(config.output_device, config.transfers, mtu=config.mtu, cut=False)
    return RawSender()


class _Tunnels:
    """Sends packets through the relay: to the intercept on the target's host, or the only one."""

    def __init__(self, lines: list[RelayLine]) -> None:
        self.errors: dict[int, int] = {}
        self._lines = lines

    def send_batch(self, batch: PacketBatch) -> None:
        for index in range(batch.count):
            packet = batch.packet(index)
            target = packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
            up = [line for line in self._lines if line.is_up]
            theirs = [line for line in up if parse_address(line.host) == target]
            line = (theirs or up)[0]
            code = line.send_packet(packet)
            if code:
                self.errors[code] = self.errors.get(code, 0) + 1


class _Run:
    """One probe under way."""

    def __init__(self, config: ProbeConfig, output: Output | None) -> None:
        """Without an `output` the lines take the packets: they are tunnels."""
        self.config = config
        self.flow = config.flow
        self.lines = [
            RelayLine(host, port, config.relay, config.relay_names.get(host, ""))
            for host, port in config.intercepts
        ]
        self.writer = PacketWriter(output or _Tunnels(self.lines))
        self.seq = random.getrandbits(32)
        self.tap: Tap | None = None
        self.arp: Tap | None = None
        self.own: OwnProbe | None = None
        self.own_address = b""
        self.facts = ProbeFacts(config.flow)
        self.answers: list[Brief] = []  # to the mapped address, as they came back
        self.sent_ns = self.answered_ns = 0
        self.asked_for: list[str] = []
        self.here: list[Seen] = []
        self.left = False
        self.left_as = ""
        self.alive = self.real_host = False

    # --- the course of it -----------------------------------------------------------------------

    def run(self) -> ProbeFacts:
        """All of it; what was observed."""
        limit_ns = self.config.limit_ns
        try:
            self.own_address = own_address(self.flow.target)
        except OSError as error:
            if not self.config.relay.tunnel:
                failed = Attempt(Answer.FAILED, errno=error.errno or errno.ENETUNREACH)
                return self.facts.changed(forged=failed)
        self._open_taps()
        self._connect()
        usable = bool(self._up()) or self.config.context.mode == LOCAL
        started_ns = time.monotonic_ns()
        code = 0
        if usable:
            code = self._knock(limit_ns)
        if not code and not self._answer(SYN_ACK):
            self._find_out(started_ns + limit_ns, limit_ns)
        elif not code:
            self._look_again()
        self._end()
        return self._facts(code)

    def _open_taps(self) -> None:
        try:
            self.tap = Tap(compile_filter(flow_expression(self.flow)))
            self.arp = arp_tap() if len(self.flow.target) == 4 else None
        except OSError:
            if self.config.tun_device:  # its answers are seen by nothing else
                raise

    def _connect(self) -> None:
        """Connect to the intercepts, and let them look."""
        now_ns = time.monotonic_ns()
        for line in self.lines:
            line.start(now_ns)
        wait_ns = _CONNECT_NS * (4 if self.config.relay.native_only else 2)
        self._wait(wait_ns, lambda: all(line.is_decided for line in self.lines))
        for line in self.lines:
            line.give_up("no answer")
        # Announced first: an intercept without a secret looks at no flow of which it does not know
        # that its answers go to the one who asks.
        self._announce(self.flow)
        asked = [line for line in self._up() if line.takes_probes]
        for line in asked:
            line.ask(self.flow, watch=True)
        self._wait(_ASK_NS, lambda: all(line.reports or not line.is_up for line in asked))

    def _up(self) -> list[RelayLine]:
        return [line for line in self.lines if line.is_up]

    def _announce(self, flow: Flow) -> None:
        for line in self._up():
            line.announce(flow)

    def _announce_control(self, flow: Flow) -> None:
        """A native intercept relays nothing that is for its own host, but may say what it saw."""
        for line in self._up():
            if not line.is_native:
                line.announce(flow)

    def _knock(self, limit_ns: int) -> int:
        """Send the SYN, again when nothing comes; 0 or the errno."""
        self.sent_ns = time.monotonic_ns()
        if self._may_overlap():
            # From an address that can be answered: is there a host behind the mapped one?
            self._ping(self.own_address, self.flow.mapped)
        for _ in range(2):
            code = self._syn(self.flow)
            if code:
                return code
            self._wait(limit_ns // 4, lambda: bool(self.answers))
            if self.answers:
                break
        return 0

    def _may_overlap(self) -> bool:
        """Whether the mapped address is one of nobody's, as far as was told."""
        mode = self.config.context.mode
        return bool(self.config.context.client_addresses) and mode not in (LOCAL, TUNNEL)

    def _syn(self, flow: Flow) -> int:
        return self.writer.syn(
            flow.mapped, flow.mapped_port, flow.target, flow.target_port, self.seq
        )

    def _look_again(self) -> None:
        """Is the half-open connection still there? A SYN sent again brings the same number then."""
        self.answered_ns = time.monotonic_ns()
        self._wait(_SETTLE_NS, lambda: False)
        before = len(self.answers)
        self._syn(self.flow)
        self._wait(_ASK_NS, lambda: len(self.answers) > before)

    def _find_out(self, until_ns: int, limit_ns: int) -> None:
        """Nothing came back, or a RST: try by which other ways something does."""
        if self.config.relay.tunnel:  # the target's host has no other way of that kind
            self._wait(until_ns - time.monotonic_ns(), lambda: bool(self.answers))
            return
        self.own = OwnProbe(Flow(self.flow.target, self.flow.target_port, b"", 0), limit_ns)
        self.own.begin()
        for round_number in range(2):
            self.own.send()
            for flow in self._flows_from_assistants():
                if not round_number:
                    self._announce_control(flow)
                self._syn(flow)
            self._ping(self.flow.mapped, self.flow.target)
            self._ping(self.own_address, self.flow.target)
            left_ns = until_ns - time.monotonic_ns()
            self._wait(left_ns // (2 - round_number), lambda: False)

    def _flows_from_assistants(self) -> list[Flow]:
        """Handshakes whose answer is sure to be routed to the assistant: from its own address."""
        flow = self.flow
        found = []
        for line in self._up():
            address = parse_address(line.host)
            if len(address) == len(flow.target):
                found.append(Flow(flow.target, flow.target_port, address, flow.mapped_port))
        return found

    def _ping(self, source: bytes, destination: bytes) -> None:
        if source != destination:
            send_whole(echo_request(source, destination, self.flow.mapped_port), destination)

    def _end(self) -> None:
        """Leave nothing half-open at the target, and hear what the intercepts have seen."""
        flow = self.flow
        if self.sent_ns:
            self.writer.reset(
                flow.mapped, flow.mapped_port, flow.target, flow.target_port, self.seq + 1
            )
        asked = [line for line in self._up() if line.takes_probes]
        had = {line.name: len(line.reports) for line in asked}
        for line in asked:
            line.ask(flow, watch=False)
        self._wait(
            _ASK_NS,
            lambda: all(len(line.reports) > had[line.name] or not line.is_up for line in asked),
        )

    # --- what comes in --------------------------------------------------------------------------

    def _wait(self, duration_ns: int, done: Callable[[], bool]) -> None:
        """Take what comes until `done()`, for so long at most."""
        until_ns = time.monotonic_ns() + duration_ns
        while True:
            now_ns = time.monotonic_ns()
            self._collect(now_ns)
            if done() or now_ns >= until_ns:
                return
            poll = select.poll()
            for line in self.lines:
                descriptor, events = line.wants()
                if descriptor >= 0:
                    poll.register(descriptor, events)
            for tap in (self.tap, self.arp):
                for descriptor in tap.filenos() if tap is not None else ():
                    poll.register(descriptor, select.POLLIN)
            # Short, because a silent intercept is taken for a classic one by the clock.
            poll.poll(max(1, min(20, (until_ns - now_ns) // _MS)))

    def _collect(self, now_ns: int) -> None:
        for line in self.lines:
            line.service(now_ns)
            self._take_answers(line)
        if self.own is not None:
            self.own.collect()
        if self.tap is not None:
            for sighting in self.tap.take():
                brief = read_brief(sighting.data)
                if brief is not None:
                    self._note(brief, sighting.device, sighting.leaves)
                    if self.own is not None:
                        self.own.note(brief, sighting.leaves)
        if self.arp is not None:
            for sighting in self.arp.take():
                question = arp_question(sighting.data)
                if question is not None and question[0] == self.flow.target:
                    self._note_question(question[1])

    def _take_answers(self, line: RelayLine) -> None:
        for brief in line.answers:
            if brief.destination == self.flow.mapped and brief not in self.answers:
                self.answers.append(brief)

    def _note_question(self, address: bytes) -> None:
        if address != self.own_address and len(self.asked_for) < 16:
            self.asked_for += [text_of(address)] * (text_of(address) not in self.asked_for)

    def _note(self, brief: Brief, device: str, leaves: bool) -> None:
        """A packet that was seen on a device of this host."""
        flow = self.flow
        if brief.kind == ECHO:
            if brief.source_port == flow.mapped_port and brief.destination == self.own_address:
                self.alive = self.alive or brief.source == flow.target
                self.real_host = self.real_host or brief.source == flow.mapped
        elif brief.kind == SYN and leaves and brief.destination == flow.target:
            self._note_leaving(brief)
        elif brief.source == flow.target and brief.destination == flow.mapped:
            if self.config.tun_device and device == self.config.tun_device:
                self.answers += [brief] * (brief not in self.answers)
            elif len(self.here) < 16:
                self.here.append(
                    Seen(brief.kind, text_of(flow.target), text_of(flow.mapped), device, leaves)
                )

    def _note_leaving(self, brief: Brief) -> None:
        ports = brief.source_port, brief.destination_port
        if brief.source == self.flow.mapped:
            self.left = True
        elif (
            brief.seq == self.seq
            and ports[1] == self.flow.target_port
            and all(brief.source != flow.mapped for flow in self._flows_from_assistants())
        ):
            self.left_as = text_of(brief.source)

    # --- what it comes to -----------------------------------------------------------------------

    def _answer(self, kind: str) -> bool:
        return any(brief.kind == kind for brief in self.answers)

    def _facts(self, code: int) -> ProbeFacts:
        forged = Attempt(Answer.NOTHING if self.sent_ns else Answer.NOT_TRIED)
        if code:
            forged = Attempt(Answer.FAILED, errno=code)
        elif self._answer(SYN_ACK):
            forged = Attempt(Answer.SYN_ACK)
        elif self._answer(RESET):
            forged = Attempt(Answer.RESET)
        numbers = {brief.seq for brief in self.answers if brief.kind == SYN_ACK}
        is_visible = self.tap is not None and self.config.context.mode not in (LINK, LOCAL, TUNNEL)
        own = self.own.attempt() if self.own is not None else Attempt()
        return self.facts.changed(
            forged=forged,
            own=own,
            target_is_alive=self.alive or own.answer in (Answer.SYN_ACK, Answer.RESET),
            is_neighbour=is_neighbour(self.flow.target),
            left=self.left if is_visible and self.sent_ns else None,
            left_as=self.left_as if not self.left else "",
            here=tuple(self.here),
            real_host=self.real_host if self._may_overlap() else None,
            asked_for=tuple(self.asked_for),
            relays=tuple(self._relay_facts(line) for line in self.lines),
            reset_between=len(numbers) > 1,
            milliseconds=max(0, self.answered_ns - self.sent_ns) / _MS,
        )

    def _relay_facts(self, line: RelayLine) -> RelayFacts:
        mapped = [b for b in line.answers if b.destination == self.flow.mapped]
        others = [b for b in line.answers if b.destination != self.flow.mapped]
        terms = self.config.relay
        report = line.reports[-1] if line.reports else None
        has_neither = not terms.secret and terms.tls is None
        return RelayFacts(
            name=line.name,
            address=line.host,
            is_up=line.is_up,
            is_native=line.is_native,
            problem=line.problem,
            fault=line.fault,
            was_reached=line.was_reached,
            is_open=line.is_native and (has_neither or (report is not None and report.is_open)),
            report=report,
            syn_ack=any(brief.kind == SYN_ACK for brief in mapped),
            reset=any(brief.kind == RESET for brief in mapped),
            not_injected=line.not_injected() if self.config.relay.tunnel else "",
            own_syn_ack=any(brief.kind == SYN_ACK for brief in others),
        )

    def close(self) -> None:
        """Close all that was opened."""
        for line in self.lines:
            line.close()
        for tap in (self.tap, self.arp):
            if tap is not None:
                tap.close()
        if self.own is not None:
            self.own.close()
