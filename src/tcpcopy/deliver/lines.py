"""Connects that cannot begin now wait in line: in order, one try at a time, tried ever less often.

There is one line for each target, and one for what the whole process lacks. As long as somebody
stands in a line, whoever comes next for it stands behind. The first is tried after 100 ms, then
after twice as long, up to a second; when a try begins well, those behind follow at once.

What is waited for, by the error of `connect` (at once, or later by SO_ERROR):

| error | means | line | how long |
| --- | --- | --- | --- |
| EADDRNOTAVAIL, EADDRINUSE | local ports used up, local address away | target | lack_ns |
| EMFILE, ENFILE, ENOBUFS, ENOMEM, EAGAIN | no open file, no kernel memory | process | lack_ns |
| ENETUNREACH, EHOSTUNREACH, EHOSTDOWN, ENONET | no route, no ARP, ICMP | target | route_ns |
| ENETDOWN, ENODEV | the device is down or gone | target | route_ns |
| EACCES, EPERM, EINVAL | a route or rule prohibits, rejects, swallows | target | route_ns |

Routes, devices and rules are away for a moment when they are changed; the last row is that as well
(a default route of type blackhole or unreachable is what is left when a better one goes). All other
errors end the session: ECONNREFUSED and ECONNRESET are the target's word, ETIMEDOUT is a connect
that was tried for long enough, ECONNABORTED is somebody's who ended the socket on this host.

A connect that begins well says nothing of the way to the target: without an answer to ARP it fails
three seconds later. So the line of a target out of reach goes on when the target has said something
to the one that is tried (accepted or refused), and until then one more is tried each time.

Time is passed in; all of it is in nanoseconds.
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from tcpcopy.engine.kernel import KernelClient

FIRST_DELAY_NS: Final = 100_000_000
LONGEST_DELAY_NS: Final = 1_000_000_000
AT_ONCE: Final = 64  # connects of a line in one turn of the loop

PROCESS_ERRORS: Final = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN)
)
PORT_ERRORS: Final = frozenset((errno.EADDRNOTAVAIL, errno.EADDRINUSE))
ROUTE_ERRORS: Final = frozenset(
    (
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.ENETDOWN,
        errno.ENODEV,
        errno.EACCES,
        errno.EPERM,
        errno.EINVAL,
    )
)
MENDED_BY_WAITING: Final = PROCESS_ERRORS | PORT_ERRORS | ROUTE_ERRORS
_SAID_BY_TARGET: Final = (errno.ECONNREFUSED, errno.ECONNRESET)

Target = tuple[bytes, int]


class Line:
    """Who waits for the same."""

    __slots__ = ("clients", "delay_ns", "error", "key", "next_ns", "since_ns", "trying", "waited")

    def __init__(self, key: Target | None, error: int, now_ns: int) -> None:
        self.key = key
        self.clients: OrderedDict[KernelClient, None] = OrderedDict()  # those that are not tried
        self.trying: set[KernelClient] = set()  # connects begun, to a target out of reach
        self.error = error  # the last one met; 0: the way is free again
        self.since_ns = now_ns  # when it began with an error of that kind
        self.delay_ns = FIRST_DELAY_NS
        self.next_ns = 0  # when the next is tried
        self.waited = 0  # clients that have come here, for the log

    @property
    def is_out_of_reach(self) -> bool:
        """Whether it is the way to the target that is missing."""
        return self.error in ROUTE_ERRORS

    def back_off(self, now_ns: int) -> None:
        """The next try is due after a while, and after a longer one each time."""
        self.next_ns = now_ns + self.delay_ns
        self.delay_ns = min(2 * self.delay_ns, LONGEST_DELAY_NS)

    def go_on(self, now_ns: int) -> None:
        """What was waited for is there."""
        self.delay_ns = FIRST_DELAY_NS
        self.next_ns = now_ns


class Lines:
    """The lines of one worker."""

    __slots__ = ("_connect", "_held", "_lack_ns", "_next_ns", "_opened_ns", "_route_ns", "lines",
                 "waited")  # fmt: skip

    def __init__(
        self, connect: Callable[[KernelClient, int], int], lack_ns: int, route_ns: int
    ) -> None:
        """`connect(client, now_ns)` begins to connect: 0, or a negative errno.

        `lack_ns` is how long a connect may wait for what this host lacks, `route_ns` for the way.
        """
        self._connect = connect
        self._lack_ns = lack_ns
        self._route_ns = route_ns
        self._held: dict[KernelClient, Line] = {}
        self._opened_ns: dict[KernelClient, int] = {}  # of those held: when they came
        self._next_ns = 0
        self.lines: dict[Target | None, Line] = {}  # None: of the process
        self.waited = 0  # sessions that have waited, since the start

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return len(self._held)

    def open(self, client: KernelClient, now_ns: int) -> int:
        """Begin to connect, or wait; a negative errno of what no waiting mends."""
        if self.lines:
            line = self.lines.get(None) or self.lines.get(_target(client))
            if line is not None:
                self._join(line, client, now_ns)
                return 0
        result = self._connect(client, now_ns)
        if result < 0 and self.failed(client, -result, now_ns):
            return 0
        return result

    def failed(self, client: KernelClient, error: int, now_ns: int) -> bool:
        """A connect has failed; whether the client waits now. It has no handle any more."""
        if error not in MENDED_BY_WAITING:
            if error in _SAID_BY_TARGET:
                self.answered(client, now_ns)
            self.leave(client)
            return False
        key = None if error in PROCESS_ERRORS else _target(client)
        line = self.lines.get(key)
        if line is None:
            line = self.lines[key] = Line(key, error, now_ns)
        held = self._held.get(client)
        if held is line:
            line.trying.discard(client)
            line.clients[client] = None
            line.clients.move_to_end(client, last=False)  # it keeps its place
        else:
            if held is not None:
                self._take_out(held, client)
            self._join(line, client, now_ns)
        if (error in ROUTE_ERRORS) != line.is_out_of_reach:
            line.since_ns = now_ns
            line.delay_ns = FIRST_DELAY_NS
            self._let_go(line)
        line.error = error
        if line.next_ns <= now_ns:
            line.back_off(now_ns)
        self._next_ns = min(self._next_ns or line.next_ns, line.next_ns)
        return True

    def answered(self, client: KernelClient, now_ns: int) -> None:
        """The target has accepted or refused a connect: it is within reach."""
        line = self._held.get(client)
        if line is None:
            return
        self.leave(client)
        if line.is_out_of_reach:
            line.error = 0
            self._let_go(line)
            line.go_on(now_ns)
            self._next_ns = now_ns

    def leave(self, client: KernelClient) -> None:
        """It waits no more."""
        line = self._held.pop(client, None)
        if line is not None:
            del self._opened_ns[client]
            self._take_out(line, client)

    def waits_until_ns(self, client: KernelClient) -> int:
        """Until when it may wait; 0: it does not."""
        line = self._held.get(client)
        if line is None:
            return 0
        opened_ns = self._opened_ns[client]
        if line.is_out_of_reach:
            return max(opened_ns, line.since_ns) + self._route_ns
        return opened_ns + self._lack_ns

    def next_deadline_ns(self) -> int:
        """When `run` is wanted; -1: nobody waits."""
        return self._next_ns if self.lines else -1

    def run(self, now_ns: int) -> list[tuple[KernelClient, int]]:
        """Try those whose turn it is: each that waits no more, with 0 or its negative errno."""
        done: list[tuple[KernelClient, int]] = []
        if not self.lines or now_ns < self._next_ns:
            return done
        for line in list(self.lines.values()):
            if line.next_ns <= now_ns:
                self._serve(line, now_ns, done)
        self._next_ns = min((line.next_ns for line in self.lines.values()), default=0)
        return done

    def _serve(self, line: Line, now_ns: int, done: list[tuple[KernelClient, int]]) -> None:
        for _ in range(AT_ONCE):
            client = next(iter(line.clients), None)
            if client is None:
                line.next_ns = now_ns + LONGEST_DELAY_NS
                return
            result = self._connect(client, now_ns)
            if result < 0:
                if not self.failed(client, -result, now_ns):
                    done.append((client, result))
                elif self._held[client] is line:
                    return
                continue
            if line.is_out_of_reach:
                del line.clients[client]
                line.trying.add(client)
                line.back_off(now_ns)
                return
            self.leave(client)
            line.go_on(now_ns)
            done.append((client, 0))

    def _join(self, line: Line, client: KernelClient, now_ns: int) -> None:
        if client not in self._held:
            self._opened_ns[client] = now_ns
            self.waited += 1
        self._held[client] = line
        line.clients[client] = None
        line.waited += 1

    def _let_go(self, line: Line) -> None:
        """Connects that were tried go on by themselves."""
        for client in line.trying:
            del self._held[client]
            del self._opened_ns[client]
        line.trying.clear()

    def _take_out(self, line: Line, client: KernelClient) -> None:
        line.clients.pop(client, None)
        line.trying.discard(client)
        if not line.clients and not line.trying:
            del self.lines[line.key]


def _target(client: KernelClient) -> Target:
    return client.target_address, client.target_port
