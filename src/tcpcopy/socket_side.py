"""What socket mode tells of this host's limits while it runs: local ports that run out, connects
that wait in line.
"""

from __future__ import annotations

import logging
import os

from tcpcopy.deliver.lines import Line, Target
from tcpcopy.deliver.ports import REST_NS, read_settings
from tcpcopy.deliver.sockets import SocketTransport
from tcpcopy.mapping.addresses import format_address
from tcpcopy.report.context import Context, TransferInfo, endpoint
from tcpcopy.report.counters import PortCounts, Snapshot
from tcpcopy.report.remedies import errno_name, local_ports, ports_text, send_error

_log = logging.getLogger(__name__)
_SECOND_NS = 1_000_000_000
_PAUSE_NS = 60 * _SECOND_NS  # between two warnings of the same
_NEARLY_PERCENT = 80  # of the ports
_WELL_PERCENT = 60
_LEAST_WAIT_NS = _SECOND_NS  # of a line, before it is told


class SocketWatch:
    """Looks at a transport once a second. Not thread-safe."""

    __slots__ = ("_full", "_left", "_lines", "_looked_ns", "_opened", "_told_ns", "_transport")

    def __init__(self, transport: SocketTransport) -> None:
        self._transport = transport
        self._left: int | None = None  # connects that waited when the run ended
        self._looked_ns = 0
        self._opened: dict[Target, int] = {}  # connects when last looked at
        self._full: set[Target] = set()  # targets whose ports have been told to run out
        self._lines: dict[Target | None, tuple[Line, bool]] = {}  # those told, by ROUTE or not
        self._told_ns: dict[object, int] = {}

    def look(self, now_ns: int) -> None:
        """Take over changed settings, and log what is worth it."""
        ports = self._transport.ports
        settings = read_settings()
        if settings != ports.settings:
            ports.set(settings)
        seconds = (now_ns - self._looked_ns) / _SECOND_NS if self._looked_ns else 0.0
        self._looked_ns = now_ns
        for address, target, used, opened in ports.look(now_ns):
            rate = (opened - self._opened.get(target, 0)) / seconds if seconds > 0 else 0.0
            self._opened[target] = opened
            self._look_at_ports(address, target, used, rate, now_ns)
        self._look_at_lines(now_ns)

    def _look_at_ports(
        self, address: bytes, target: Target, used: int, rate: float, now_ns: int
    ) -> None:
        ports = self._transport.ports
        percent = 100 * used * ports.share / ports.settings.size
        if percent < _WELL_PERCENT:
            self._full.discard(target)
        if percent < _NEARLY_PERCENT or target in self._full or self._is_told(target, now_ns):
            return
        self._full.add(target)
        text = ports_text(used * ports.share, ports.settings.size, _name(target))
        if address:
            text += f" from {format_address(address)}"
        number = max(1, len(ports.addresses)) * ports.settings.size
        enough = number * _SECOND_NS // REST_NS
        _log.warning(
            "%s; %d new connections/s, and %d ports are enough for %d/s when each rests for 60 s"
            " after its connection (TIME_WAIT)", text, round(rate * ports.share), number, enough,
        )  # fmt: skip
        for step in local_ports():
            _log.warning("    %s", step)

    def _look_at_lines(self, now_ns: int) -> None:
        lines = self._transport.lines.lines
        for key, (line, was_route) in list(self._lines.items()):
            if lines.get(key) is not line or line.is_out_of_reach != was_route:
                del self._lines[key]
                seconds = (now_ns - line.since_ns) / _SECOND_NS
                what = f"{_name(key)} is within reach again" if was_route else "connects go on"
                _log.info("%s, after %.0f s; %d sessions waited", what, seconds, line.waited)
        for key, line in lines.items():
            if key in self._lines or now_ns - line.since_ns < _LEAST_WAIT_NS or not line.error:
                continue
            self._lines[key] = line, line.is_out_of_reach
            if self._is_told((key, line.error), now_ns):
                continue
            where = _name(key) if key is not None else "any target"
            _log.warning(
                "no connect to %s can begin: %s (%s); %d sessions wait, one of them is tried now"
                " and then", where, errno_name(line.error), os.strerror(line.error),
                len(line.clients) + len(line.trying),
            )  # fmt: skip
            _log.warning("    %s", send_error(line.error, _context(key)))

    def _is_told(self, what: object, now_ns: int) -> bool:
        """Whether it was told less than a minute ago; from now on it was."""
        before = self._told_ns.get(what)
        if before is not None and now_ns - before < _PAUSE_NS:
            return True
        self._told_ns[what] = now_ns
        return False

    def stop(self) -> None:
        """The sessions are closed next: what waits now will never begin."""
        self._left = self._transport.lines.waiting

    def fill(self, snapshot: Snapshot) -> None:
        """Put the counts into a snapshot."""
        transport = self._transport
        ports, lines = transport.ports, transport.lines
        snapshot.send_errors = dict(transport.errors)
        snapshot.ports = PortCounts(
            available=ports.settings.size // ports.share,
            most_used=ports.most_used,
            reused=ports.reused,
            waited=lines.waited,
            waiting=lines.waiting if self._left is None else self._left,
        )


def _name(target: Target | None) -> str:
    return "" if target is None else endpoint(format_address(target[0]), target[1])


def _context(target: Target | None) -> Context:
    """The part of the run that a remedy is about."""
    if target is None:
        return Context()
    return Context(transfers=(TransferInfo("", 0, format_address(target[0]), target[1]),))
