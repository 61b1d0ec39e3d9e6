"""Framed server that keeps, for each connection, an account of every byte it read.

Run as `python -m tests.lab.server --port 8080 --records FILE`; prints `ready`. Writes one JSON line
to FILE when a connection ends, one for each open connection on SIGUSR1 (then prints `dumped`) and
at the end (SIGTERM).
The last line of an `id` holds. Fields: see `Connection.record`.
"""

from __future__ import annotations

import argparse
import errno
import gc
import hashlib
import heapq
import itertools
import json
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import frames

_RECEIVE_BYTES = 1 << 18
_FLUSH_NS = 30_000_000
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("qq")
_NO_LINGER = struct.pack("ii", 1, 0)
_CLOSE, _RESET = "close", "reset"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the server treats its clients; all zero: it answers each request at once."""

    delay_ms: float  # before each answer; order is kept
    answer_extra: int  # added to the wanted answer length; may be negative
    never_answer: bool
    greeting: int  # bytes of content of a frame sent first; 0: none
    close_after: int  # close first after so many requests
    reset_after: int
    close_early: int  # close at once when so many bytes were read
    pieces: int  # an answer goes out in so many pieces
    piece_gap_ms: float
    push_every_ms: float  # send frames unasked while reading; requests are not answered then
    push_bytes: int
    kernel_times: bool  # arrivals as the kernel saw them, not as this program got to run


class Connection:
    """One client's connection and its account."""

    __slots__ = (
        "arrivals_ns",
        "closing",
        "ended",
        "failed",
        "flags",
        "garbage",
        "half_closed",
        "head",
        "header",
        "id",
        "last_due_ns",
        "local",
        "opened_ns",
        "out",
        "peer",
        "queue",
        "read_bytes",
        "requests",
        "server_first",
        "sha",
        "skip",
        "sock",
        "wanted",
        "writing",
    )

    def __init__(self, number: int, sock: socket.socket, peer: tuple[Any, ...]) -> None:
        self.id = number
        self.sock = sock
        self.peer = (str(peer[0]).removeprefix("::ffff:"), int(peer[1]))
        self.sha = hashlib.sha256()
        self.head = b""  # first bytes of the stream: says whose it is, even when broken
        self.read_bytes = 0
        self.requests = 0  # read to their last byte
        self.arrivals_ns: list[int] = []  # when each request's first byte was there
        self.opened_ns = time.monotonic_ns()
        self.ended = "open"
        self.server_first = False  # the server closed before the client did
        self.failed = False  # sending failed: the client is gone
        self.garbage = False  # a header made no sense; bytes are still counted
        self.half_closed = False  # the client's FIN came
        self.closing = False  # nothing more is to be sent
        # Request being read: what is left of its payload, or the part of its header so far.
        self.skip = 0
        self.header = bytearray()
        self.wanted = 0
        self.flags = 0
        # To be sent: due times and frames or actions; then bytes that the kernel did not take.
        self.queue: deque[tuple[int, bytes | str]] = deque()
        self.last_due_ns = 0
        self.out = b""
        self.writing = False

    def record(self, closed_ns: int) -> dict[str, Any]:
        """The account: `ended` is what the client did ("fin", "rst"), "open", or "server-closed",
        "server-reset" where the server cut the connection before the client said anything.
        """
        return {
            "id": self.id,
            "peer": self.peer,
            "sha256": self.sha.hexdigest(),
            "bytes": self.read_bytes,
            "requests": self.requests,
            "ended": self.ended,
            "server_first": self.server_first,
            "garbage": self.garbage,
            "head": self.head.hex(),
            "opened_ns": self.opened_ns,
            "closed_ns": closed_ns,
            "arrivals_ns": self.arrivals_ns,
        }


class Server:
    """One listening port, one loop."""

    def __init__(self, address: str, port: int, records: Path, behaviour: Behaviour) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = socket.create_server(
            (address, port), family=family, backlog=65535, dualstack_ipv6=address == "::"
        )
        self.listener.setblocking(False)
        if behaviour.kernel_times:
            # Inherited by what is accepted. The kernel begins to stamp packets a little after the
            # first socket asks for it, so not only then.
            self.listener.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self.port: int = self.listener.getsockname()[1]
        self.behaviour = behaviour
        self.connections: dict[int, Connection] = {}
        self.numbers = itertools.count(1)
        self.timers: list[tuple[int, int, int]] = []  # due, connection id, descriptor
        self.pushes: list[tuple[int, int, int]] = []
        self.epoll = select.epoll()
        self.epoll.register(self.listener, select.EPOLLIN)
        self.buffer = bytearray(_RECEIVE_BYTES)
        self.view = memoryview(self.buffer)
        self.records = records.open("a")
        self.lines: list[str] = []
        self.flushed_ns = 0
        self.ending = False
        self.dump_wanted = False

    def run(self) -> None:
        """Serve until `ending`; then account for what is open."""
        listener = self.listener.fileno()
        while not self.ending:
            for descriptor, events in self.epoll.poll(self._timeout_s(), 1024):
                if descriptor == listener:
                    self._accept()
                    continue
                connection = self.connections.get(descriptor)
                if connection is None:
                    continue
                if events & select.EPOLLHUP and connection.half_closed:
                    self._end(connection, connection.ended)  # gone while answers waited
                    continue
                if events & select.EPOLLOUT:
                    self._send(connection)
                if events & ~select.EPOLLOUT and connection.sock.fileno() >= 0:
                    self._receive(connection)
            self._run_timers()
            if self.dump_wanted:
                self.dump_wanted = False
                self._account_open()
                print(f"dumped {len(self.connections)} open", flush=True)
            if self.lines and time.monotonic_ns() - self.flushed_ns > _FLUSH_NS:
                self._flush()
        self._account_open()
        self.records.close()

    def _timeout_s(self) -> float:
        timeout = 0.03 if self.lines else 0.1
        for heap in (self.timers, self.pushes):
            if heap:
                timeout = min(timeout, (heap[0][0] - time.monotonic_ns()) / 1e9)
        return max(0.0, timeout)

    def _account_open(self) -> None:
        now_ns = time.monotonic_ns()
        for connection in self.connections.values():
            self.lines.append(json.dumps(connection.record(now_ns)))
        self._flush()

    def _flush(self) -> None:
        if self.lines:
            self.records.write("\n".join(self.lines) + "\n")
            self.records.flush()
            self.lines.clear()
        self.flushed_ns = time.monotonic_ns()

    def _accept(self) -> None:
        behaviour = self.behaviour
        for _ in range(256):
            try:
                sock, peer = self.listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    print(f"cannot accept: {error.strerror}", flush=True)
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(next(self.numbers), sock, peer)
            descriptor = sock.fileno()
            self.connections[descriptor] = connection
            self.epoll.register(descriptor, select.EPOLLIN)
            if behaviour.greeting:
                self._enqueue(connection, connection.opened_ns, frames.answer(behaviour.greeting))
            if behaviour.push_every_ms:
                due_ns = connection.opened_ns + int(behaviour.push_every_ms * 1e6)
                heapq.heappush(self.pushes, (due_ns, connection.id, descriptor))

    def _receive(self, connection: Connection) -> None:
        try:
            if self.behaviour.kernel_times:
                count, extra, _, _ = connection.sock.recvmsg_into([self.buffer], 64)
                now_ns = time.time_ns()  # the clock of the kernel's stamps, should one be missing
                for _, kind, data in extra:
                    if kind == _SO_TIMESTAMPNS:
                        seconds, nanoseconds = _TIMESPEC.unpack_from(data)
                        now_ns = seconds * 1_000_000_000 + nanoseconds
            else:
                count = connection.sock.recv_into(self.buffer)
                now_ns = time.monotonic_ns()
        except BlockingIOError:
            return
        except OSError:
            self._client_ended(connection, "rst")
            return
        if not count:
            self._client_ended(connection, "rst" if connection.failed else "fin")
            return
        connection.sha.update(self.view[:count])
        connection.read_bytes += count
        if len(connection.head) < 32:
            connection.head += bytes(self.view[: min(count, 32 - len(connection.head))])
        self._parse(connection, count, now_ns)
        early = self.behaviour.close_early
        if early and connection.read_bytes >= early and connection.sock.fileno() >= 0:
            connection.server_first = True
            self._end(connection, "server-closed")

    def _client_ended(self, connection: Connection, how: str) -> None:
        if connection.ended == "open":
            connection.ended = how
        connection.half_closed = True
        if how == "fin" and (connection.queue or connection.out) and not connection.failed:
            # It may still read: what was asked for is answered, then the end.
            self.epoll.modify(connection.sock.fileno(), select.EPOLLOUT if connection.out else 0)
            connection.writing = bool(connection.out)
            return
        self._end(connection, connection.ended)

    def _parse(self, connection: Connection, count: int, now_ns: int) -> None:
        """Walk the frames in `buffer[:count]`; each complete request is acted on."""
        position = 0
        header_bytes = frames.REQUEST.size
        while position < count and not connection.garbage:
            if connection.skip:
                step = min(connection.skip, count - position)
                connection.skip -= step
                position += step
                if not connection.skip:
                    self._requested(connection)
                continue
            header = connection.header
            if not header:
                connection.arrivals_ns.append(now_ns)
            step = min(header_bytes - len(header), count - position)
            header += self.view[position : position + step]
            position += step
            if len(header) < header_bytes:
                return
            connection.skip, connection.wanted, connection.flags = frames.REQUEST.unpack(header)
            header.clear()
            if connection.skip > frames.LONGEST_PAYLOAD:
                connection.garbage = True
            elif not connection.skip:
                self._requested(connection)

    def _requested(self, connection: Connection) -> None:
        connection.requests += 1
        behaviour, flags = self.behaviour, connection.flags
        now_ns = time.monotonic_ns()
        delay_ms = behaviour.delay_ms + (flags >> frames.DELAY_SHIFT)
        due_ns = max(now_ns + int(delay_ms * 1e6), connection.last_due_ns)
        if connection.closing:
            return
        silent = behaviour.never_answer or behaviour.push_every_ms or flags & frames.NO_ANSWER
        if not silent:
            whole = frames.answer(max(0, connection.wanted + behaviour.answer_extra))
            pieces = max(1, behaviour.pieces)
            size = -(-len(whole) // pieces)
            for start in range(0, len(whole), size):
                self._enqueue(connection, due_ns, whole[start : start + size])
                due_ns += int(behaviour.piece_gap_ms * 1e6) if pieces > 1 else 0
        if flags & frames.RESET_AFTER or connection.requests == behaviour.reset_after:
            self._enqueue(connection, due_ns, _RESET)
        elif flags & frames.CLOSE_AFTER or connection.requests == behaviour.close_after:
            self._enqueue(connection, due_ns, _CLOSE)

    def _enqueue(self, connection: Connection, due_ns: int, what: bytes | str) -> None:
        connection.last_due_ns = due_ns
        connection.queue.append((due_ns, what))
        if len(connection.queue) > 1:
            return  # the one before it is waited for, or the kernel takes no more
        if due_ns <= time.monotonic_ns():
            if not connection.writing:
                self._send(connection)
        else:
            heapq.heappush(self.timers, (due_ns, connection.id, connection.sock.fileno()))

    def _send(self, connection: Connection) -> None:
        """Send what is due, in order; wait for the kernel or the time where there is more."""
        now_ns = time.monotonic_ns()
        queue = connection.queue
        try:
            while True:
                if connection.out:
                    sent = connection.sock.send(connection.out)
                    connection.out = connection.out[sent:]
                    if connection.out:
                        raise BlockingIOError
                if not queue:
                    break
                due_ns, what = queue[0]
                if due_ns > now_ns:
                    timer = (due_ns, connection.id, connection.sock.fileno())
                    heapq.heappush(self.timers, timer)
                    break
                queue.popleft()
                if isinstance(what, bytes):
                    connection.out = what
                elif not self._close_first(connection, what):
                    return
        except BlockingIOError:
            self._watch(connection, writing=True)
            return
        except OSError as error:
            # ECONNRESET is told only once: to the send here or to a receive later.
            if error.errno == errno.ECONNRESET:
                connection.failed = True
            connection.closing = True
            connection.out = b""
            queue.clear()
        if connection.half_closed and not queue:
            self._end(connection, connection.ended)
            return
        self._watch(connection, writing=False)

    def _watch(self, connection: Connection, *, writing: bool) -> None:
        if connection.writing != writing:
            connection.writing = writing
            reading = 0 if connection.half_closed else select.EPOLLIN
            self.epoll.modify(
                connection.sock.fileno(), reading | (select.EPOLLOUT if writing else 0)
            )

    def _close_first(self, connection: Connection, how: str) -> bool:
        """Close or reset from this side; False if the connection is over with that."""
        connection.server_first = not connection.half_closed
        connection.closing = True
        connection.queue.clear()
        if how == _RESET:
            linger = (socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            connection.sock.setsockopt(*linger)
            self._end(connection, "server-reset")
            return False
        connection.sock.shutdown(socket.SHUT_WR)
        return True

    def _end(self, connection: Connection, how: str) -> None:
        descriptor = connection.sock.fileno()
        if descriptor < 0:
            return
        connection.ended = how
        self.lines.append(json.dumps(connection.record(time.monotonic_ns())))
        if len(self.lines) > 500:
            self._flush()
        del self.connections[descriptor]
        connection.sock.close()

    def _run_timers(self) -> None:
        now_ns = time.monotonic_ns()
        while self.timers and self.timers[0][0] <= now_ns:
            _, number, descriptor = heapq.heappop(self.timers)
            connection = self.connections.get(descriptor)
            if connection is not None and connection.id == number and not connection.writing:
                self._send(connection)
        while self.pushes and self.pushes[0][0] <= now_ns:
            due_ns, number, descriptor = heapq.heappop(self.pushes)
            connection = self.connections.get(descriptor)
            if connection is None or connection.id != number or connection.closing:
                continue
            if not connection.writing:  # a reader that is slow gets fewer
                self._enqueue(connection, now_ns, frames.answer(self.behaviour.push_bytes))
            next_ns = due_ns + int(self.behaviour.push_every_ms * 1e6)
            heapq.heappush(self.pushes, (max(next_ns, now_ns), number, descriptor))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Framed server of the lab")
    parser.add_argument("--address", default="::")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--answer-extra", type=int, default=0)
    parser.add_argument("--never-answer", action="store_true")
    parser.add_argument("--greeting", type=int, default=0)
    parser.add_argument("--close-after", type=int, default=0)
    parser.add_argument("--reset-after", type=int, default=0)
    parser.add_argument("--close-early", type=int, default=0)
    parser.add_argument("--pieces", type=int, default=1)
    parser.add_argument("--piece-gap-ms", type=float, default=2.0)
    parser.add_argument("--push-every-ms", type=float, default=0.0)
    parser.add_argument("--push-bytes", type=int, default=100)
    parser.add_argument("--kernel-times", action="store_true")
    return parser


def main(argv: list[str] | None = None) -> int:
    options = vars(_parser().parse_args(argv))
    address, port, records = (options.pop(key) for key in ("address", "port", "records"))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = Server(address, port, records, Behaviour(**options))

    def end(*_: object) -> None:
        server.ending = True

    def dump(*_: object) -> None:
        server.dump_wanted = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGUSR1, dump)
    gc.disable()  # no cycles here; a collection would be a pause that pacing tests would see
    print(f"ready on port {server.port}", flush=True)
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
