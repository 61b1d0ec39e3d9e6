"""Replays a recorded stream: gives its packets to an engine when they are due.

Read ahead as little as possible: one packet. When the engine has too much to do (the target is
slower than the schedule, or there is none: `--fast`), reading waits, so that a file of any size
needs the same memory. What waits keeps its due time: it is late, and catches up.

Sans-I/O but for reading the stream; the time is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from tcpcopy.capture.filters import compile_filter
from tcpcopy.engine.engine import Engine
from tcpcopy.mapping.rate import DROP, PACE, QUEUE_NS, RateLimit
from tcpcopy.packet.handler import PacketHandler
from tcpcopy.recorded.datagrams import DatagramReading
from tcpcopy.recorded.feed import Feed
from tcpcopy.recorded.schedule import ONE, Schedule
from tcpcopy.recorded.stream import PacketStream
from tcpcopy.report.counters import InputCounts

#: The speed at which `--fast` shows the file's times to the engine: no wait of a client is left,
#: and the engine still knows how long online took.
FAST_SPEED: Final = Fraction(10_000)
_FAST_GAP_NS: Final = 1_000_000  # what is longer at that speed is left out: 10 s of the file
#: Sessions that `--fast` has under way at once, beside those that wait for their client.
FAST_BUSY: Final = 512
PACED_BUSY: Final = 1 << 16
_MOST_QUEUED: Final = 64 << 20
_PACKETS_AT_ONCE: Final = 512
_LOOK_AT_ONCE: Final = 4096  # packets of other traffic
_LOOK_AGAIN_NS: Final = 20_000_000
_SOON_NS: Final = 100_000_000  # what comes through a pipe is not quite on time
_REQUESTS_AHEAD_NS: Final = 100_000_000  # kept in hand by --rate-mode pace

_HELD, _NOTHING_YET, _MORE, _ENDED = range(4)


@dataclass(frozen=True, slots=True)
class RecordedConfig:
    """What of which files is replayed, and how fast; checked already."""

    paths: tuple[str, ...]  # "-": standard input
    speed: Fraction = ONE  # -a
    longest_gap_ns: int | None = None  # -I
    passes: int = 1  # -T
    fast: bool = False  # as fast as answers allow: `speed` and `longest_gap_ns` do not count

    @property
    def is_live(self) -> bool:
        """Whether what is sent can come back in: through a pipe from tcpdump, not in a file."""
        return "-" in self.paths

    @property
    def engine_speed(self) -> Fraction:
        """How much faster than it was captured the engine sees the client's side pass."""
        return FAST_SPEED if self.fast else self.speed


class Player:
    """One replay of a stream into an engine, whose clock offset must be 0."""

    __slots__ = (
        "_busy_limit",
        "_bytes_before",  # read in the passes before
        "_engine",
        "_handler",  # takes the packets: the engine, or what stands before it
        "_paused_ns",  # for so long the clock of the file has stood still (--rate-mode pace, stops)
        "_queued_limit",
        "_rate",
        "_rate_mode",
        "_rate_of_requests",
        "_schedule",
        "_taken_before",  # packets taken in the passes before
        "_udp",  # None: no UDP is replayed
        "config",
        "due_ns",  # when `play` has something to do next; 0: at once, -1: not by itself
        "feed",
        "finished",  # all passes have been read
        "passes_done",
        "stream",
        "wants_input",  # a pipe is empty: `play` again when it is readable
    )

    def __init__(
        self,
        config: RecordedConfig,
        stream: PacketStream,
        feed: Feed,
        engine: Engine,
        *,
        memory_bytes: int,
        udp: DatagramReading | None = None,
    ) -> None:
        """`engine` is that of TCP, which keeps the clock of the file also when `udp` is alone."""
        self.config = config
        self.stream = stream
        self.feed = feed
        self._engine = engine
        self._handler: PacketHandler = engine if udp is None else udp.handler
        self._udp = udp
        self._schedule = Schedule(
            config.engine_speed, None if config.fast else config.longest_gap_ns
        )
        self._busy_limit = FAST_BUSY if config.fast else PACED_BUSY
        self._queued_limit = min(_MOST_QUEUED, memory_bytes // 8)
        self._paused_ns = 0
        self._rate: RateLimit | None = None
        self._rate_mode = ""
        self._rate_of_requests = False
        self._taken_before = 0
        self._bytes_before = 0
        self.due_ns = 0
        self.finished = False
        self.passes_done = 0
        self.wants_input = False

    def limit_rate(self, rate: RateLimit, mode: str, *, requests: bool) -> None:
        """Let reading follow a rate: it waits while too much waits for its slots."""
        self._rate = rate
        self._rate_mode = mode
        self._rate_of_requests = requests

    def play(self, now_ns: int) -> int:
        """Hand on what is due; how many packets. Sets `due_ns`, `wants_input`, `finished`."""
        engine, feed, schedule = self._engine, self.feed, self._schedule
        handler, udp = self._handler, self._udp
        count = 0
        self.due_ns = 0
        self.wants_input = False
        read_ns = engine.context.capture_ns if self.config.fast else now_ns
        while count < _PACKETS_AT_ONCE:
            found = self._look()
            if found != _HELD:
                if found != _MORE:
                    self.due_ns = -1
                self.wants_input = found == _NOTHING_YET
                break
            timestamp_ns = feed.timestamp_ns
            due_ns = self._due_ns(timestamp_ns, now_ns)
            if due_ns + self._paused_ns > now_ns:
                self.due_ns = due_ns + self._paused_ns
                read_ns -= self._paused_ns
                break
            wait_ns = self._wait_ns(now_ns)
            if wait_ns:
                self.due_ns = now_ns + wait_ns
                read_ns = due_ns
                if self._rate_mode == PACE and self._rate_ahead_ns(now_ns) > 0:
                    self._paused_ns = now_ns - due_ns
                break
            if udp is not None:
                udp.take(timestamp_ns)
            feed.hand_on(handler, due_ns)
            schedule.take(timestamp_ns)
            read_ns = due_ns
            count += 1
        # All that is due before has been taken; in a file that is late, time is late, too.
        engine.context.capture_ns = read_ns
        return count

    def stand_still(self, duration_ns: int) -> None:
        """This process stood still for so long: a file goes on as late, a pipe catches up."""
        if not self.config.is_live:
            self._paused_ns += duration_ns

    def stop(self) -> None:
        """Play nothing more."""
        self.finished = True
        self.due_ns = -1
        self.wants_input = False

    def is_behind(self, now_ns: int) -> bool:
        """Whether packets have come through a pipe that should have been played by now, or soon."""
        if not self.config.is_live or self.finished:
            return False
        return self._look() == _HELD and self._held_due_ns(now_ns) <= now_ns + _SOON_NS

    def count_left(self, handler: PacketHandler, until_ns: int, clock: Callable[[], int]) -> None:
        """Give what has come through a pipe and is late to `handler`, no later than `until_ns`."""
        now_ns = clock()
        if not self.config.is_live or self.finished:
            return
        while now_ns < until_ns and self._look() == _HELD and self._held_due_ns(now_ns) <= now_ns:
            self.feed.hand_on(handler, self.feed.timestamp_ns)
            now_ns = clock()

    def _held_due_ns(self, now_ns: int) -> int:
        return self._due_ns(self.feed.timestamp_ns, now_ns) + self._paused_ns

    def clock_jumps(self) -> list[tuple[str, str]]:
        """Which ways the clock of the file has jumped, and what that means for the replay."""
        found = []
        if self._schedule.jumps_forward:
            found.append((
                "ahead",
                "jumps ahead by more than an hour: that wait is cut to a second; -I SECONDS keeps"
                " pauses up to so long, however long",
            ))  # fmt: skip
        if self._schedule.jumps_back:
            found.append((
                "back",
                "goes back (captures joined in another order, or a clock that was set): what"
                " follows is sent at once, with its own pauses",
            ))  # fmt: skip
        return found

    def counts(self) -> InputCounts:
        """What was read of the files."""
        done, total = self.progress()
        return InputCounts(
            packets=self.feed.taken + self.feed.left_out,
            left_out=self.feed.left_out,
            bytes_read=done,
            bytes_total=total,
            passes=self.passes_done,
            problems=len(self.stream.problems),
        )

    def progress(self) -> tuple[int, int]:
        """Bytes read and bytes to read, over all passes; (bytes, 0) when the end is unknown."""
        total = self.stream.total_bytes * self.config.passes
        done = self._bytes_before + (0 if self._is_over else self.stream.bytes_read)
        return (min(done, total) if total else done), total

    @property
    def _is_over(self) -> bool:
        return self.passes_done == self.config.passes

    def _due_ns(self, timestamp_ns: int, now_ns: int) -> int:
        due_ns = self._schedule.due_ns(timestamp_ns, now_ns)
        latest_ns = now_ns + _FAST_GAP_NS
        if self.config.fast and due_ns > latest_ns:
            self._schedule.shift(latest_ns - due_ns)
            return latest_ns
        return due_ns

    def _look(self) -> int:
        """See that the feed holds the next packet to be replayed."""
        feed, stream = self.feed, self.stream
        if self.finished:
            return _ENDED
        for _ in range(_LOOK_AT_ONCE):
            if feed.is_full:
                return _HELD
            if not stream.is_ready():
                return _NOTHING_YET
            if stream.next_ns() >= 0:
                stream.hand_on(feed)
            elif not self._next_pass():
                return _ENDED
        return _HELD if feed.is_full else _MORE

    def _next_pass(self) -> bool:
        """The stream has ended: begin it anew when it is to be; whether there is more."""
        self._engine.end_pass()
        if self._udp is not None:
            self._udp.end_pass()
        self.passes_done += 1
        self._bytes_before += self.stream.bytes_read
        if self._is_over or self.feed.taken == self._taken_before:
            self.finished = True
            return False
        self._taken_before = self.feed.taken
        self._schedule.next_pass()
        self.stream.rewind()
        return True

    def _wait_ns(self, now_ns: int) -> int:
        """How long reading has to wait for the engines, at most; 0: not at all."""
        if self._udp is not None:
            feed = self.feed
            wait_ns = self._udp.wait_ns(feed.held(), feed.held_wire_length(), now_ns)
            if wait_ns:
                return wait_ns
        ahead_ns = self._rate_ahead_ns(now_ns)
        if ahead_ns > 0:
            return ahead_ns
        engine = self._engine
        counts, opener = engine.context.counts, engine.opener
        if counts.busy == 0:
            return 0  # nothing would come of waiting
        if (
            counts.busy >= self._busy_limit
            or counts.queued_bytes >= self._queued_limit
            or (opener.max_sessions and counts.live >= opener.max_sessions)
            or opener.memory_is_short
        ):
            return _LOOK_AGAIN_NS
        return 0

    def _rate_ahead_ns(self, now_ns: int) -> int:
        """How long reading has to wait for the rate."""
        if self._rate is None or self._rate_mode == DROP:
            return 0
        ahead_ns = self._rate.ahead_ns(self._engine.context.rate_clock_ns(now_ns))
        if self._rate_mode != PACE:
            return max(0, ahead_ns - QUEUE_NS)
        return max(0, ahead_ns - (_REQUESTS_AHEAD_NS if self._rate_of_requests else 0))


def open_feed(ports: Iterable[int], expression: str | None) -> Feed:
    """What lets through packets to `ports`, or those of a pcap expression. Raises: UsageError."""
    return Feed(ports, None if expression is None else _matcher(expression))


def _matcher(expression: str) -> Callable[[bytes, int], bool]:
    import cypcap

    compile_filter(expression)  # refuses, in our words, what would be refused for a live capture
    program = cypcap.compile(
        cypcap.DatalinkType.RAW, 0x40000, expression, True, cypcap.NETMASK_UNKNOWN
    )

    def matches(packet: bytes, wire_length: int) -> bool:
        header = cypcap.Pkthdr(ts=0, caplen=len(packet), len=max(wire_length, len(packet)))
        return bool(program.offline_filter(header, packet))

    return matches
