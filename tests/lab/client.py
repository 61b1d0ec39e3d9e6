"""Load clients for the framed server, with an account of what each connection sent.

Run as `python -m tests.lab.client HOST PORT [options]` (see `script.parser`). Each stream is seeded
and unique. Prints one JSON line of totals at the end; exit status 1 if a connection failed.
`--end hold` prints "holding" when all are open and served: SIGUSR1 then ends them with FIN, SIGTERM
leaves it to the kernel. `--pause-after` prints "paused" and goes on after SIGUSR1.
"""

from __future__ import annotations

import argparse
import errno
import gc
import hashlib
import heapq
import json
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from typing import Any

from tests.lab import frames, script

_IP_BIND_ADDRESS_NO_PORT = 24
_NO_LINGER = struct.pack("ii", 1, 0)
_RECEIVE_BYTES = 1 << 18
_MOST_TOGETHER = 1 << 16


class Connection:
    """One connection: its script and how far it has got."""

    __slots__ = (
        "answered",
        "awaited",
        "connected",
        "ended",
        "error",
        "greeted",
        "head",
        "header",
        "local",
        "next_ns",
        "number",
        "out",
        "pause_at",
        "paused",
        "pending",
        "read_bytes",
        "sent_bytes",
        "sent_requests",
        "sha",
        "skip",
        "sock",
        "steps",
        "writing",
    )

    def __init__(self, number: int, steps: list[script.Step], sock: socket.socket) -> None:
        self.number = number
        self.steps = steps
        self.sock = sock
        self.local: tuple[str, int] = ("", 0)
        self.connected = False
        self.greeted = False  # the server's first frame is here, or none is waited for
        self.pause_at = 0  # after so many requests, wait for the signal; 0: do not (any more)
        self.paused = False
        self.next_ns = 0  # no request before this time
        # Sent so far, and what the kernel has not taken of it.
        self.sent_requests = 0
        self.sent_bytes = 0
        self.sha = hashlib.sha256()
        self.head = b""
        self.out = memoryview(b"")
        self.writing = True  # EPOLLOUT is watched; so it begins, for the connect
        # Answers asked for and read; when those not here yet were asked for.
        self.awaited = 0
        self.answered = 0
        self.pending: deque[int] = deque()
        self.read_bytes = 0
        self.skip = 0  # of the frame being read, what is still to come
        self.header = b""
        self.ended = ""  # "fin", "open": decided, and only the server's end is waited for
        self.error = ""

    def record(self, ended: str) -> dict[str, Any]:
        """The account of this end; fields as the server's where they mean the same."""
        return {
            "id": self.number,
            "local": self.local,
            "sha256": self.sha.hexdigest(),
            "bytes": self.sent_bytes,
            "requests": self.sent_requests,
            "answers": self.answered,
            "answer_bytes": self.read_bytes,
            "ended": ended,
            "error": self.error,
            "head": self.head.hex(),
        }


class Client:
    """Opens connections up to the wanted concurrency and drives them all in one loop."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        # The scope of a link-local address ("fe80::1%eth0") stands apart in what is connected to.
        self.server = socket.getaddrinfo(options.host, options.port, self.family)[0][4]
        self.content = frames.Content(options.seed)
        self.epoll = select.epoll()
        self.live: dict[int, Connection] = {}
        self.timers: list[tuple[int, int, int]] = []  # due, connection number, descriptor
        self.buffer = bytearray(_RECEIVE_BYTES)
        self.view = memoryview(self.buffer)
        self.total: int = options.connections
        self.concurrency: int = options.concurrency or self.total
        self.begin_ns = time.monotonic_ns()
        self.end_ns = self.begin_ns + int(options.duration * 1e9) if options.duration else 0
        self.started = self.done = self.held = self.paused = 0
        self.requests = self.answers = self.sent_bytes = self.read_bytes = 0
        self.failures: dict[str, int] = {}
        self.latencies_ns: list[int] = []
        self.lines: list[str] = []
        self.announced = False
        self.time_over = False
        self.stopping = False
        self.resume = False  # SIGUSR1 came

    # -- the loop -----------------------------------------------------------------------------

    def run(self) -> None:
        """Until all connections are done, or `stopping`."""
        while not self.stopping and self.done < self.total:
            self._open_more()
            self._announce()
            for descriptor, events in self.epoll.poll(self._timeout_s(), 1024):
                connection = self.live.get(descriptor)
                if connection is None:
                    continue
                if not connection.connected:
                    self._connected(connection)
                elif events & select.EPOLLOUT and self._push(connection):
                    self._advance(connection)
                if events & ~select.EPOLLOUT and descriptor in self.live and connection.connected:
                    self._receive(connection)
            self._run_timers()
        for connection in list(self.live.values()):
            self._finish(connection, "open")

    def _timeout_s(self) -> float:
        now_ns = time.monotonic_ns()
        due = [now_ns + 100_000_000]
        if self.timers:
            due.append(self.timers[0][0])
        if self.options.rate and self.started < self.total:
            due.append(self.begin_ns + int(self.started * 1e9 / self.options.rate))
        return max(0, min(due) - now_ns) / 1e9

    def _run_timers(self) -> None:
        now_ns = time.monotonic_ns()
        if self.end_ns and now_ns > self.end_ns:
            self._time_over(now_ns)
        while self.timers and self.timers[0][0] <= now_ns:
            _, number, descriptor = heapq.heappop(self.timers)
            waiting = self.live.get(descriptor)
            if waiting is not None and waiting.number == number:
                self._advance(waiting)

    def _time_over(self, now_ns: int) -> None:
        """First: no new requests, held connections end. Half a second later: no more waiting."""
        self.options.impatient = self.time_over
        self.end_ns = 0 if self.time_over else now_ns + 500_000_000
        self.time_over = True
        self.total = self.started
        for connection in list(self.live.values()):
            if connection.ended == "open":
                self._finish(connection, "fin")
                continue
            if not connection.connected and self.options.impatient:
                self._fail(connection, "connect", errno.ETIMEDOUT)
                continue
            del connection.steps[connection.sent_requests :]
            self._advance(connection)

    def _announce(self) -> None:
        waiting = self.held + self.paused
        if waiting and waiting + self.done == self.total and not self.announced:
            self.announced = True
            print("holding" if self.held else "paused", flush=True)
        if self.resume:
            self.resume = self.announced = False
            self.paused = 0
            for connection in list(self.live.values()):
                if connection.ended == "open":
                    self._finish(connection, "fin")
                elif connection.paused:
                    connection.paused = False
                    connection.pause_at = 0
                    self._advance(connection)

    # -- opening ------------------------------------------------------------------------------

    def _open_more(self) -> None:
        allowed = self.total
        if self.options.rate:
            seconds = (time.monotonic_ns() - self.begin_ns) / 1e9
            allowed = min(allowed, int(seconds * self.options.rate) + 1)
        for _ in range(64):  # then a look after those that are open
            if self.started >= allowed or len(self.live) >= self.concurrency:
                return
            self._open(self.started)
            self.started += 1

    def _open(self, number: int) -> None:
        sock = socket.socket(self.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(number, script.make(self.options, number), sock)
        connection.greeted = not self.options.greeting
        connection.pause_at = self.options.pause_after
        try:
            self._bind(sock, number)
            code = sock.connect_ex(self.server)
        except OSError as error:
            code = error.errno or errno.EINVAL
        self.live[sock.fileno()] = connection
        self.epoll.register(sock, select.EPOLLIN | select.EPOLLOUT)
        if code not in (0, errno.EINPROGRESS):
            self._fail(connection, "connect", code)

    def _bind(self, sock: socket.socket, number: int) -> None:
        sources: list[str] = self.options.source
        low, high = self.options.source_ports
        source = sources[number % len(sources)] if sources else ""
        if low:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            turn = number // len(sources) if sources else number
            sock.bind((source, low + turn % (high - low + 1)))
        elif source:
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source, 0))

    def _connected(self, connection: Connection) -> None:
        code = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(connection, "connect", code)
            return
        connection.connected = True
        local = connection.sock.getsockname()
        connection.local = (local[0], local[1])
        self._plan_next(connection)
        self._advance(connection)

    # -- sending ------------------------------------------------------------------------------

    def _plan_next(self, connection: Connection) -> None:
        """The pause before the next request begins now."""
        if connection.sent_requests < len(connection.steps):
            gap_ns = connection.steps[connection.sent_requests].gap_ns
            connection.next_ns = time.monotonic_ns() + gap_ns if gap_ns else 0
            if gap_ns:
                timer = (connection.next_ns, connection.number, connection.sock.fileno())
                heapq.heappush(self.timers, timer)

    def _may_send(self, connection: Connection) -> bool:
        options = self.options
        in_flight = connection.awaited - connection.answered
        if in_flight and not options.two_way:
            step = connection.steps[connection.sent_requests]
            if not options.sliding or in_flight >= options.pipeline or step.gap_ns:
                return False
        if connection.pause_at and connection.pause_at == connection.sent_requests:
            if not in_flight:
                connection.paused = True
                self.paused += 1
            return False
        return connection.next_ns <= time.monotonic_ns()

    def _advance(self, connection: Connection) -> None:
        """Send what may be sent now; end the connection when its script is over."""
        while connection.connected and connection.greeted and not connection.out:
            if connection.sent_requests >= len(connection.steps):
                self._script_over(connection)
                break
            if connection.paused or not self._may_send(connection):
                break
            self._take_requests(connection)
            if not self._push(connection):
                return
        if connection.sock.fileno() >= 0:
            self._watch(connection)

    def _take_requests(self, connection: Connection) -> None:
        """Put the next request, or as many as pipelining wants together, into `out`."""
        options = self.options
        together = bytearray()
        while connection.sent_requests < len(connection.steps):
            step = connection.steps[connection.sent_requests]
            if together and (step.gap_ns or len(together) > _MOST_TOGETHER):
                break
            if together and connection.pause_at == connection.sent_requests:
                break
            payload = self.content.payload(
                connection.number, connection.sent_requests, step.payload_bytes
            )
            together += frames.request(payload, step.answer_bytes, step.flags)
            connection.sent_requests += 1
            if options.two_way or step.flags & frames.NO_ANSWER:
                self._plan_next(connection)
                break
            connection.awaited += 1
            connection.pending.append(time.monotonic_ns())
            if connection.awaited - connection.answered >= options.pipeline:
                break
        if options.cut_last and connection.sent_requests == len(connection.steps):
            del together[-options.cut_last :]
        connection.sha.update(together)
        connection.sent_bytes += len(together)
        if len(connection.head) < 32:
            connection.head = (connection.head + together[:32])[:32]
        connection.out = memoryview(bytes(together))

    def _push(self, connection: Connection) -> bool:
        """Hand `out` to the kernel; False if the connection is over with that."""
        limit: int = self.options.write_bytes
        try:
            while connection.out:
                part = connection.out[:limit] if limit else connection.out
                connection.out = connection.out[connection.sock.send(part) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(connection, "send", error.errno or 0)
            return False
        return True

    def _watch(self, connection: Connection) -> None:
        writing = bool(connection.out)
        if writing != connection.writing:
            connection.writing = writing
            events = select.EPOLLIN | (select.EPOLLOUT if writing else 0)
            self.epoll.modify(connection.sock, events)

    # -- receiving ----------------------------------------------------------------------------

    def _receive(self, connection: Connection) -> None:
        try:
            count = connection.sock.recv_into(self.buffer)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(connection, "receive", error.errno or 0)
            return
        if not count:
            self._server_ended(connection)
            return
        connection.read_bytes += count
        self._parse(connection, count)
        self._advance(connection)

    def _server_ended(self, connection: Connection) -> None:
        if not self.options.tolerate:
            sent_all = connection.sent_requests == len(connection.steps) and not connection.out
            if self.options.end not in ("server", "half-close") or not sent_all:
                connection.error = "closed by the server"
            elif connection.answered < connection.awaited and not self.options.cut_last:
                connection.error = "answer missing"
        self._finish(connection, "fin")

    def _parse(self, connection: Connection, count: int) -> None:
        position = 0
        while position < count:
            if connection.skip:
                step = min(connection.skip, count - position)
                connection.skip -= step
                position += step
            else:
                step = min(frames.ANSWER.size - len(connection.header), count - position)
                connection.header += bytes(self.view[position : position + step])
                position += step
                if len(connection.header) < frames.ANSWER.size:
                    return
                (connection.skip,) = frames.ANSWER.unpack(connection.header)
                connection.header = b""
            if not connection.skip:
                self._answered(connection)

    def _answered(self, connection: Connection) -> None:
        if not connection.greeted:
            connection.greeted = True
            self._plan_next(connection)
            return
        connection.answered += 1
        if connection.pending:
            self.latencies_ns.append(time.monotonic_ns() - connection.pending.popleft())
        if connection.answered == connection.awaited:
            self._plan_next(connection)

    # -- ending -------------------------------------------------------------------------------

    def _script_over(self, connection: Connection) -> None:
        """All is sent: end as the options say, when it is time."""
        options = self.options
        if connection.ended:
            return
        if options.end == "half-close":
            connection.ended = "fin"
            connection.sock.shutdown(socket.SHUT_WR)
        elif connection.answered < connection.awaited and not options.impatient:
            return
        elif options.end == "hold":
            connection.ended = "open"
            self.held += 1
        elif options.end == "rst":
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._finish(connection, "rst")
        elif options.end == "fin":
            self._finish(connection, "fin")

    def _fail(self, connection: Connection, where: str, code: int) -> None:
        if not self.options.tolerate:
            connection.error = f"{where}: {errno.errorcode.get(code, str(code))}"
        self._finish(connection, "failed")

    def _finish(self, connection: Connection, ended: str) -> None:
        del self.live[connection.sock.fileno()]
        connection.sock.close()
        if connection.ended == "open":
            self.held -= 1
        self.done += 1
        self.requests += connection.sent_requests
        self.answers += connection.answered
        self.sent_bytes += connection.sent_bytes
        self.read_bytes += connection.read_bytes
        if connection.error:
            self.failures[connection.error] = self.failures.get(connection.error, 0) + 1
        if self.options.records:
            self.lines.append(json.dumps(connection.record(ended)))

    def totals(self) -> dict[str, Any]:
        """What is printed at the end; latencies in milliseconds, from send to whole answer."""
        ordered = sorted(self.latencies_ns)
        latencies = {
            name: ordered[int((len(ordered) - 1) * share)] / 1e6
            for name, share in (("p50", 0.5), ("p99", 0.99))
            if ordered
        }
        return {
            "connections": self.done,
            "failed": sum(self.failures.values()),
            "failures": self.failures,
            "requests": self.requests,
            "answers": self.answers,
            "sent_bytes": self.sent_bytes,
            "read_bytes": self.read_bytes,
            "seconds": round((time.monotonic_ns() - self.begin_ns) / 1e9, 3),
            "latency_ms": latencies,
        }


def main(argv: list[str] | None = None) -> int:
    options = script.parser().parse_args(argv)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    client = Client(options)

    def stop(*_: object) -> None:
        client.stopping = True

    def resume(*_: object) -> None:
        client.resume = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGUSR1, resume)
    gc.disable()  # nothing here is cyclic; a collection would be a pause in the think times
    client.run()
    if options.records:
        options.records.write_text("".join(line + "\n" for line in client.lines))
    totals = client.totals()
    print(json.dumps(totals), flush=True)
    return 1 if totals["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
