"""Intercept's part of a probe: what it sees of one flow, with its filter and without.

A watch lasts as long as the asking goes on, a few seconds at most, and there are only few at a
time; its sockets queue a bounded number of packets, which are read when it is asked again.

Who asks may be anybody where there is neither a secret nor a certificate: then only what
`probing` says is told, of a flow that the asking host has announced.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from tcpcopy.capture.filters import REJECT_ALL, compile_filter
from tcpcopy.capture.tap import Sighting, Tap
from tcpcopy.errors import UsageError
from tcpcopy.namespaces import Namespace, inside
from tcpcopy.packet.brief import ECHO, RESET, SYN_ACK, UNREACHABLE, Brief, read_brief
from tcpcopy.relay.probing import Flow, Report, Seen, encode_report, read_probe

_MOST_WATCHES: Final = 4
_LONGEST_NS: Final = 10_000_000_000
_MOST_KINDS: Final = 64
_SECOND_NS: Final = 1_000_000_000
_MOST_A_SECOND: Final = 32  # PROBEs of all tcpcopies that cost anything


def flow_expression(flow: Flow) -> str:
    """A pcap expression for the flow, whatever its client's address, and for ICMP about it."""
    size = len(flow.target)
    host = text_of(flow.target)
    tcp = f"host {host} and tcp port {flow.target_port} and tcp port {flow.mapped_port}"
    icmp = "icmp[0] == 0 or icmp[0] == 3 or icmp[0] == 11"
    if size == 16:
        icmp = "icmp6 and (ip6[40] == 1 or ip6[40] == 3 or ip6[40] == 129)"
    return f"({tcp}) or ({icmp})"


def text_of(address: bytes) -> str:
    """The address as text."""
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def concerns(brief: Brief, flow: Flow) -> bool:
    """Whether the packet is an answer to the flow's client, whatever its address."""
    if brief.kind == ECHO:
        return brief.source == flow.target and brief.source_port == flow.mapped_port
    if brief.kind == UNREACHABLE:
        return brief.destination == flow.target and brief.source_port in (
            flow.mapped_port,
            0x0800,  # of a ping, type and code stand where ports would
            0x8000,
        )
    ports = {brief.source_port, brief.destination_port}
    return ports == {flow.target_port, flow.mapped_port}


def summed_up(sightings: Sequence[Sighting], flow: Flow) -> Counter[Seen]:
    """How often each kind of packet of the flow was seen; `count` of the keys is 1."""
    found: Counter[Seen] = Counter()
    for sighting in sightings:
        brief = read_brief(sighting.data)
        if brief is None or not concerns(brief, flow):
            continue
        kind = brief.kind if brief.kind in (SYN_ACK, RESET, ECHO, UNREACHABLE) else "other"
        source, destination = brief.source, brief.destination
        if kind == UNREACHABLE:  # who says so, of whose packet
            source, destination = brief.reporter, brief.source
        seen = Seen(kind, text_of(source), text_of(destination), sighting.device, sighting.leaves)
        if seen in found or len(found) < _MOST_KINDS:
            found[seen] += 1
    return found


def as_list(counts: Counter[Seen]) -> tuple[Seen, ...]:
    """The kinds with their counts."""
    return tuple(replace(seen, count=count) for seen, count in counts.items())


def without_details(report: Report, flow: Flow) -> Report:
    """What a host that is not known may hear of a flow whose answers it gets."""
    target, mapped = text_of(flow.target), text_of(flow.mapped)
    is_v4 = len(flow.target) == 4
    left = sum(
        seen.count
        for seen in report.seen
        if (seen.kind, seen.source, seen.destination, seen.leaves)
        == (SYN_ACK, target, mapped, True)
    )
    return Report(
        is_open=True,
        forwards_v4=report.forwards_v4 if is_v4 else None,
        forwards_v6=None if is_v4 else report.forwards_v6,
        seen=(Seen(SYN_ACK, target, mapped, "", True, left),) if left else (),
    )


class _Watch:
    """The taps on one flow, and what they have seen."""

    def __init__(
        self, flow: Flow, expression: str, devices: Sequence[str], until_ns: int, *, is_open: bool
    ) -> None:
        """`is_open`: only the flow itself is looked at, not what passes the filter of it."""
        self.flow = flow
        self.until_ns = until_ns
        self.problem = ""
        self.seen: Counter[Seen] = Counter()
        self.passed: Counter[Seen] = Counter()
        self._taps: list[Tap] = []
        try:
            self._taps.append(Tap(compile_filter(flow_expression(flow))))
            if is_open:
                return
            compile_filter(expression)  # complains of what was typed, not of the below
            self._taps.append(Tap(_program_of_both(flow, expression), devices))
        except OSError as error:
            self.problem = error.strerror or str(error)
        except UsageError as error:
            self.problem = str(error)

    def look(self) -> None:
        for tap, counts in zip(self._taps, (self.seen, self.passed), strict=False):
            sightings = tap.take()
            if counts is self.passed:  # the rings do not see what leaves either
                sightings = [sighting for sighting in sightings if not sighting.leaves]
            counts.update(summed_up(sightings, self.flow))

    def close(self) -> None:
        for tap in self._taps:
            tap.close()


def _program_of_both(flow: Flow, expression: str) -> bytes:
    """What passes the filter of the flow's packets; the two are right, taken by themselves."""
    try:
        return compile_filter(f"({flow_expression(flow)}) and ({expression})")
    except UsageError:
        return REJECT_ALL  # libpcap refuses to make a filter that nothing passes


class ProbeDesk:
    """Answers the PROBEs of native tcpcopies. Not thread-safe."""

    def __init__(
        self,
        expression: str,
        devices: Sequence[str],
        state: Callable[[], Report],
        namespace: Namespace | None = None,
        *,
        is_open: bool = False,
    ) -> None:
        """`state()`: the part of the report that is about no flow. `expression`: the filter.

        `is_open`: who asks is not known, and gets no details.
        """
        self._devices = [name for name in devices if name != "any"]
        if len(self._devices) < len(devices):
            self._devices = []
        self._expression = expression
        self._is_open = is_open
        self._namespace = namespace
        self._state = state
        self._watches: dict[tuple[int, Flow], _Watch] = {}
        self._asked = 0  # in the second that ends then
        self._second_ends_ns = 0

    def answer(
        self,
        connection: int,
        body: bytes,
        now_ns: int,
        holds: Callable[[Flow], bool] = lambda _: False,
    ) -> bytes | None:
        """The body of the REPORT; None when it was no PROBE.

        `connection` tells them apart; `holds`: whether its host has announced that flow.
        """
        asked = read_probe(body)
        if asked is None:
            return None
        if now_ns >= self._second_ends_ns:
            self._second_ends_ns = now_ns + _SECOND_NS
            self._asked = 0
        self._asked += 1
        if self._asked > _MOST_A_SECOND:
            busy = Report(problem="it is asked too often")
            return encode_report(Report(is_open=True) if self._is_open else busy)
        flow, goes_on = asked
        watch = self._watches.get((connection, flow))
        if self._is_open and not holds(flow):
            if watch is not None:
                self._drop((connection, flow))
            return encode_report(Report(is_open=True))
        report = self._state()
        if watch is None and goes_on:
            while len(self._watches) >= _MOST_WATCHES:
                self._drop(next(iter(self._watches)))
            with inside(self._namespace):
                watch = _Watch(
                    flow,
                    self._expression,
                    self._devices,
                    now_ns + _LONGEST_NS,
                    is_open=self._is_open,
                )
            self._watches[connection, flow] = watch
        if watch is not None:
            watch.look()
            report = replace(
                report,
                seen=as_list(watch.seen),
                passed=as_list(watch.passed),
                problem=watch.problem,
            )
            if not goes_on:
                self._drop((connection, flow))
        return encode_report(without_details(report, flow) if self._is_open else report)

    def look(self, now_ns: int) -> None:
        """Let go of what nobody asked about again; call about once a second."""
        for key in [key for key, watch in self._watches.items() if watch.until_ns <= now_ns]:
            self._drop(key)

    def close(self) -> None:
        """Let go of all."""
        for key in list(self._watches):
            self._drop(key)

    def _drop(self, key: tuple[int, Flow]) -> None:
        self._watches.pop(key).close()
