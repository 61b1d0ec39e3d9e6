"""Deliver UDP through ordinary kernel sockets: one for each leg of a flow, connected to its target.

Datagrams are gathered in an arena during a turn of the loop and sent at its end, those of one
socket in one system call. Answers are counted and thrown away without being copied. An ICMP error
comes back as an error of the next call on its socket, which has not sent anything then: that call
is made again. A socket that no route leads from is connected when the next datagram comes: what
comes meanwhile is lost, and counted with the error.

Source: udp(7), ip(7) (IP_MTU_DISCOVER), ipv6(7), recv(2) (MSG_TRUNC), sendmmsg(2), epoll(7).
"""

from __future__ import annotations

import errno
import select
import socket
from array import array
from collections.abc import Callable
from typing import Any

import cython

from tcpcopy.deliver.lines import ROUTE_ERRORS
from tcpcopy.engine.flow import DatagramCounts, DatagramOutput, Leg
from tcpcopy.report.flow_outcome import FlowOutcome

_SEND_FAILED = int(FlowOutcome.SEND_FAILED)
_AGAIN = -1
_ARENA_BYTES = 1 << 20
_MOST_QUEUED = 256
_EVENTS_AT_ONCE = 512
_ANSWERS_AT_ONCE = 256  # of one socket: the others have their turn
_TRIES = 4  # each may meet one more ICMP error
_WAIT_MS = 5  # for room in the socket's buffer, before a datagram is given up
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_IPV6_V6ONLY = 26
_PMTUDISC_DONT = 0
# What another flow's end mends.
_WANTING = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EADDRINUSE, errno.EADDRNOTAVAIL)
)
_E_AGAIN = errno.EAGAIN
_E_NO_BUFFERS = errno.ENOBUFS
_E_INTERRUPTED = errno.EINTR
_E_TOO_LONG = errno.EMSGSIZE
_E_REFUSED = errno.ECONNREFUSED
_E_UNCONNECTED = errno.EDESTADDRREQ


class DatagramSockets(DatagramOutput):
    """Opens and serves the sockets of one worker."""

    __slots__ = (
        "_by_fd",
        "_group_lengths",  # of the datagrams that go in one call
        "_group_offsets",
        "_lengths",  # of the datagrams in the arena
        "_legs",
        "_offsets",
        "_opened",
        "_poll",
        "_queued",  # datagrams in the arena
        "_scratch",
        "_used",  # bytes of the arena
        "_view",
        "arena",
        "counts",
        "local_addresses",
        "now_ns",  # set by the owner
        "on_answer",  # called with a leg and the length of each answer
    )

    def __init__(
        self,
        counts: DatagramCounts,
        on_answer: Callable[[Leg, int], object],
        local_addresses: tuple[bytes, ...] = (),
    ) -> None:
        """`local_addresses`: to send from, in turn; else the kernel chooses."""
        self.counts = counts
        self.on_answer = on_answer
        self.local_addresses = local_addresses
        self.now_ns = 0
        self.arena = bytearray(_ARENA_BYTES)
        self._view = memoryview(self.arena)
        self._offsets = array("i", bytes(4 * _MOST_QUEUED))
        self._lengths = array("i", bytes(4 * _MOST_QUEUED))
        self._group_offsets = array("i", bytes(4 * _MOST_QUEUED))
        self._group_lengths = array("i", bytes(4 * _MOST_QUEUED))
        self._legs: list[Leg | None] = []
        self._queued = 0
        self._used = 0
        self._opened = 0
        self._by_fd: dict[int, Leg] = {}
        self._poll = select.epoll()
        self._scratch = bytearray(1)

    def fileno(self) -> int:
        """Readable when `service` has something to do."""
        return self._poll.fileno()

    # --- sockets ---------------------------------------------------------------------------

    def open(self, leg: Leg, client_address: bytes, client_port: int, copy: int) -> int:
        """Make the socket of the leg, connected if the target is within reach."""
        try:
            self._open(leg)
        except OSError as error:
            code = error.errno or errno.EIO
            if code in _WANTING:
                return _AGAIN
            self.counts.error(code)
            return _SEND_FAILED
        return 0

    def _open(self, leg: Leg) -> None:
        is_v4 = len(leg.target_address) == 4
        family = socket.AF_INET if is_v4 else socket.AF_INET6
        connection = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            # As from most servers' own sockets, what is longer than the path takes is cut.
            if is_v4:
                connection.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
            else:
                connection.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT)
            if self.local_addresses:
                address = self.local_addresses[self._opened % len(self.local_addresses)]
                connection.bind((socket.inet_ntop(family, address), 0))
                self._opened += 1
            code = connection.connect_ex(_target(leg))
            if code and code not in ROUTE_ERRORS:
                raise OSError(code, "connect")
            fd = connection.fileno()
            self._poll.register(fd, select.EPOLLIN)
        except OSError:
            connection.close()
            raise
        leg.connection = connection
        leg.handle = fd
        self._by_fd[fd] = leg

    def close(self, leg: Leg) -> None:
        """Close the socket, after what has come to it is counted."""
        if leg.handle < 0:
            return
        self._receive(leg)
        del self._by_fd[leg.handle]
        leg.handle = -1
        leg.connection.close()
        leg.connection = None

    # --- sending ---------------------------------------------------------------------------

    def send(self, leg: Leg, data: Any, at: int, length: int) -> int:
        """Keep the datagram for `flush`."""
        if self._queued == _MOST_QUEUED or self._used + length > _ARENA_BYTES:
            self.flush()
        if length:
            _copy(self._view, self._used, data, at, length)
        self._offsets[self._queued] = cython.cast(cython.int, self._used)
        self._lengths[self._queued] = cython.cast(cython.int, length)
        self._legs.append(leg)
        self._used += length
        self._queued += 1
        leg.queued += 1
        return 0

    def flush(self) -> None:
        """Send what is kept: for each socket in order, one call for all of its datagrams."""
        for first in range(self._queued):
            leg: Leg | None = self._legs[first]
            if leg is None:
                continue
            self._group_offsets[0] = self._offsets[first]
            self._group_lengths[0] = self._lengths[first]
            size = 1
            place = first + 1
            while size < leg.queued:
                if self._legs[place] is leg:
                    self._group_offsets[size] = self._offsets[place]
                    self._group_lengths[size] = self._lengths[place]
                    self._legs[place] = None
                    size += 1
                place += 1
            leg.queued = 0
            self._send_group(leg, size)
        self._legs.clear()
        self._queued = 0
        self._used = 0

    def _send_group(self, leg: Leg, size: int) -> None:
        done = 0
        tries = 0
        while done < size:
            result = self._send_from(leg, done, size)
            if result > 0:
                for index in range(done, done + result):
                    self.counts.sent(leg, self._group_lengths[index], self.now_ns)
                done += result
                tries = 0
                continue
            code = -result
            tries += 1
            if code == _E_UNCONNECTED:
                code = leg.connection.connect_ex(_target(leg))
                tries = tries if code == 0 else _TRIES
            elif code == _E_REFUSED:
                self.counts.refused(leg)
            elif code in (_E_AGAIN, _E_NO_BUFFERS):
                self._wait(leg)
            # An error may be the echo of an earlier datagram: this one has not been tried then.
            if tries < _TRIES and code != _E_TOO_LONG:
                continue
            self.counts.failed(leg, code)
            done += 1
            tries = 0

    def _send_from(self, leg: Leg, at: int, size: int) -> int:
        """Send the group's datagrams from `at` on; how many went, or a negative errno."""
        if cython.compiled:
            return send_datagrams(  # type: ignore[name-defined,no-any-return]  # noqa: F821
                leg.handle,
                cython.address(self._view[0]),
                cython.address(self._group_offsets[0]),
                cython.address(self._group_lengths[0]),
                at,
                size,
            )
        offset = self._group_offsets[at]
        try:
            leg.connection.send(self._view[offset : offset + self._group_lengths[at]])
        except OSError as error:
            return -(error.errno or errno.EIO)
        return 1

    def _wait(self, leg: Leg) -> None:
        poll = select.poll()
        poll.register(leg.handle, select.POLLOUT)
        poll.poll(_WAIT_MS)

    # --- answers ---------------------------------------------------------------------------

    def service(self) -> int:
        """Count what has come; the number of sockets looked at."""
        try:
            events = self._poll.poll(0, _EVENTS_AT_ONCE)
        except InterruptedError:
            return 0
        for fd, _ in events:
            leg = self._by_fd.get(fd)
            if leg is not None:
                self._receive(leg)
        number: int = cython.cast(cython.int, len(events))
        return number

    def _receive(self, leg: Leg) -> None:
        """Count answers and errors that wait at the socket."""
        for _ in range(_ANSWERS_AT_ONCE):
            result = self._receive_one(leg)
            if result >= 0:
                self.on_answer(leg, result)
                continue
            code = -result
            if code == _E_AGAIN:
                return
            if code != _E_INTERRUPTED:
                # Whatever ICMP said: the target did not take a datagram.
                self.counts.refused(leg)
                if code != _E_REFUSED:
                    self.counts.error(code)

    def _receive_one(self, leg: Leg) -> int:
        """Length of the next answer, or a negative errno."""
        if cython.compiled:
            return receive_length(leg.handle)  # type: ignore[name-defined,no-any-return]  # noqa: F821
        try:
            length: int = leg.connection.recv_into(self._scratch, 1, socket.MSG_TRUNC)
        except OSError as error:
            return -(error.errno or errno.EIO)
        return length

    def close_all(self) -> None:
        """Close what is still open."""
        for leg in self._by_fd.values():
            leg.connection.close()
        self._by_fd.clear()
        self._poll.close()


def _target(leg: Leg) -> tuple[str, int]:
    family = socket.AF_INET if len(leg.target_address) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, leg.target_address), leg.target_port


def _copy(view: Any, at: int, data: Any, data_at: int, length: int) -> None:
    if cython.compiled:
        memcpy(  # type: ignore[name-defined]  # noqa: F821
            cython.address(view[at]), cython.address(data[data_at]), length
        )
    else:
        view[at : at + length] = data[data_at : data_at + length]
