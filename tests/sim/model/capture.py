"""Turns a plan into the packets of the client as the online host captures them.

Only the direction client to online server, in order of arrival. With noise the arrival is
disorderly (copies, overlaps, early and late segments, probes), but nothing is missing.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from .clock import MICROSECOND, MILLISECOND, SECOND
from .config import near_wrap
from .conversation import ONLINE_PORT, Ending, Plan, random_plan
from .wire import ACK, FIN, PSH, RST, SEQUENCE_MASK, SYN, Segment, encode

Captured = tuple[int, bytes]  # (arrival in ns, packet)


def render(plan: Plan) -> list[Captured]:
    """Return the packets of `plan` in order of arrival; the same plan gives the same packets."""
    return _Renderer(plan).render()


def turn_starts(plan: Plan) -> list[int]:
    """Return when the first byte of each turn was captured, in nanoseconds."""
    renderer = _Renderer(plan)
    renderer.render()
    return renderer.turn_starts


def successor(plan: Plan, random: Random, *, gap_ns: int = MILLISECOND) -> Plan:
    """Return another conversation of the same client address and port, `gap_ns` after `plan`.

    Its initial sequence number lies ahead of all that was sent before, as a real client's does.
    """
    sent = plan.request_bytes + 2
    follower = random_plan(
        random,
        client=plan.client,
        client_port=plan.client_port,
        start_ns=render(plan)[-1][0] + gap_ns,
    )
    isn = (plan.isn + sent + random.randrange(1, 1 << 20)) & SEQUENCE_MASK
    return replace(follower, isn=isn)


def with_hole(captured: list[Captured], plan: Plan, random: Random) -> list[Captured]:
    """Return `captured` without any packet that has one byte of data, chosen at random.

    The plan needs at least one byte of requests.
    """
    position = 1 + random.randrange(plan.request_bytes)
    return [entry for entry in captured if not _covers(entry[1], plan, position)]


def _covers(packet: bytes, plan: Plan, position: int) -> bool:
    start = 40 if packet[0] >> 4 == 6 else 20
    header = packet[start + 12] >> 4 << 2
    length = len(packet) - start - header
    seq = int.from_bytes(packet[start + 4 : start + 8], "big")
    first = (seq - plan.isn + (1 if packet[start + 13] & SYN else 0)) & SEQUENCE_MASK
    return first <= position < first + length


class _Renderer:
    """Walks through a plan. Positions: 0 is a SYN, 1 the first byte of either side."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.random = Random(plan.seed ^ 0x5EED)
        self.data = plan.expected_data
        self.entries: list[tuple[int, int, bytes]] = []
        self.now_ns = plan.start_ns  # the latest arrival so far
        self.sent = 1  # position of the client's next byte
        self.told = 1  # position of the server's next byte
        self.acked = 1  # what the client acknowledges
        self.ts_base = near_wrap(self.random)
        self.ts_server = near_wrap(self.random)
        self.timestamps = plan.tcp.timestamps and plan.tcp.online_timestamps
        self.turn_starts: list[int] = []
        self.fast_opened = 0  # bytes that went with the SYN and were taken

    def render(self) -> list[Captured]:
        plan = self.plan
        if not plan.midstream:
            self.handshake()
        if plan.greeting and not plan.midstream:
            self.answered(plan.greeting, plan.greeting, 100 * MICROSECOND)
        half_close = plan.ending in (Ending.HALF_CLOSE, Ending.FIN_THEN_RESET)
        for index, turn in enumerate(plan.turns):
            self.now_ns += turn.think_ns
            last = index == len(plan.turns) - 1
            self.request(turn.request, fin=last and half_close)
            if last and plan.ending is Ending.FIN_THEN_RESET:
                break
            if turn.answer:
                self.answered(turn.answer, turn.answer_seen, turn.service_ns)
            if not (last and half_close):
                self.keep_alive()
        self.finish()
        self.entries.sort()
        return [(time_ns, packet) for time_ns, _, packet in self.entries]

    # Single packets.

    def noisy(self) -> bool:
        return self.plan.tcp.noise > 0 and self.random.random() < self.plan.tcp.noise

    def emit(self, time_ns: int, flags: int, position: int, payload: bytes = b"") -> None:
        plan = self.plan
        segment = Segment(
            plan.client,
            plan.client_port,
            plan.server,
            ONLINE_PORT,
            (plan.isn + position) & SEQUENCE_MASK,
            flags=flags,
            window=plan.tcp.window,
            payload=payload,
        )
        if flags & ACK:
            segment.ack = (plan.server_isn + self.acked) & SEQUENCE_MASK
        ticks = time_ns // MILLISECOND
        if flags & SYN:
            segment.window = 65_535
            segment.mss = plan.tcp.mss
            segment.window_scale = plan.tcp.window_scale
            segment.sack_permitted = plan.tcp.sack
            if plan.tcp.timestamps:
                segment.timestamp = ((self.ts_base + ticks) & SEQUENCE_MASK, 0)
            if payload:
                segment.other_options = ((34, b"cookie42"),)
        elif self.timestamps:
            echo = (self.ts_server + ticks) & SEQUENCE_MASK
            segment.timestamp = ((self.ts_base + ticks) & SEQUENCE_MASK, echo)
        packet = encode(
            segment,
            fill_checksums=plan.tcp.fill_checksums,
            identification=len(self.entries),
        )
        self.entries.append((time_ns, len(self.entries), packet))

    def acknowledge(self, time_ns: int) -> None:
        self.emit(time_ns, ACK, self.sent)

    def keep_alive(self) -> None:
        """A probe of the client while nothing happens, with or without a byte of garbage."""
        if self.noisy():
            self.now_ns += MILLISECOND
            garbage = b"\xa5" if self.random.random() < 0.5 else b""
            self.emit(self.now_ns, ACK, self.sent - 1, garbage)

    # Stretches of the conversation.

    def handshake(self) -> None:
        plan = self.plan
        early = b""
        if plan.tcp.fast_open and plan.turns:
            room = min(plan.turns[0].request, (plan.tcp.mss or 536) - 60)
            early = self.data[: self.random.randint(1, room)]
            if self.random.random() < 0.7:
                self.fast_opened = len(early)  # else the server took the SYN only
        self.emit(self.now_ns, SYN, 0, early)
        if self.noisy():
            self.now_ns += SECOND
            self.emit(self.now_ns, SYN, 0)
        self.sent += self.fast_opened
        self.now_ns += plan.rtt_ns
        if self.noisy():
            self.acknowledge(self.now_ns + self.random.randrange(MILLISECOND))  # late
        if not self.noisy() or not plan.turns:
            self.acknowledge(self.now_ns)

    def answered(self, length: int, seen: int, service_ns: int) -> None:
        """The server sends `length` bytes; the client acknowledges `seen` before it goes on."""
        start = self.told
        self.told += length
        time_ns = self.now_ns + service_ns + self.plan.rtt_ns
        for _ in range(self.random.randrange(4)):
            self.acked = max(self.acked, start + self.random.randint(0, seen))
            self.acknowledge(time_ns)
            if self.noisy():
                self.acknowledge(time_ns)
            time_ns += self.random.randrange(100 * MICROSECOND)
        self.acked = max(self.acked, start + seen)
        if self.random.random() < 0.5:
            self.acknowledge(time_ns)
        self.now_ns = time_ns

    def request(self, length: int, *, fin: bool) -> None:
        """Send the next `length` bytes, less what went with the SYN; leave `now_ns` behind them."""
        start = self.sent
        end = start + length
        if self.fast_opened:
            end -= self.fast_opened
            self.fast_opened = 0
        self.turn_starts.append(self.now_ns)
        time_ns = self.now_ns
        latest_ns = time_ns
        with_data = fin and self.plan.tcp.fin_with_data and end > start
        while self.sent < end:
            size = self.plan.tcp.segment_size
            if size > 1460:
                size = self.random.randint(1460, size)
            position = self.sent
            self.sent = min(position + size, end)
            flags = ACK | (PSH if self.sent == end else 0)
            if with_data and self.sent == end:
                flags |= FIN
            latest_ns = max(latest_ns, self.data_segment(time_ns, flags, position))
            time_ns += self.random.randrange(1, 50 * MICROSECOND)
        if fin and not with_data:
            self.emit(time_ns, FIN | ACK, self.sent)
        self.now_ns = max(latest_ns, time_ns)
        if fin:
            self.sent += 1
            if self.noisy():
                self.emit(self.now_ns + MILLISECOND, FIN | ACK, self.sent - 1)

    def data_segment(self, time_ns: int, flags: int, position: int) -> int:
        """Emit bytes `position` to `self.sent` with noise; return the latest arrival."""
        payload = self.data[position - 1 : self.sent - 1]
        if not self.noisy():
            self.emit(time_ns, flags, position, payload)
            return time_ns
        kind = self.random.randrange(4)
        later_ns = time_ns + self.random.randrange(1, 300 * MICROSECOND)
        if kind == 0:  # twice
            self.emit(time_ns, flags, position, payload)
            self.emit(later_ns, flags, position, payload)
        elif kind == 1:  # overtaken by what follows
            self.emit(later_ns, flags, position, payload)
        elif kind == 2:  # lost before the capture, sent again
            later_ns += 2 * self.plan.rtt_ns
            self.emit(later_ns, flags, position, payload)
        else:  # sent again with other borders
            self.emit(time_ns, flags, position, payload)
            low = max(1, position - self.random.randint(0, 3000))
            high = self.sent - self.random.randint(0, len(payload) - 1)
            low = max(low, high - 60_000)
            self.emit(later_ns, ACK, low, self.data[low - 1 : high - 1])
        return later_ns

    def finish(self) -> None:
        plan = self.plan
        ending = plan.ending
        if ending is Ending.OPEN:
            return
        if ending in (Ending.HALF_CLOSE, Ending.FIN_THEN_RESET):
            self.finish_half_closed()
            return
        if ending in (
            Ending.SERVER_FIN,
            Ending.SERVER_FIN_LATE_DATA,
            Ending.SERVER_FIN_CLIENT_RESET,
        ):
            self.server_fin()
        if plan.late:
            self.now_ns += MILLISECOND
            self.request(plan.late, fin=False)
        self.now_ns += self.random.choice((1, MILLISECOND, SECOND))
        if ending in (Ending.CLIENT_RESET, Ending.SERVER_FIN_CLIENT_RESET):
            self.reset()
            return
        if ending in (Ending.CLIENT_FIN, Ending.SIMULTANEOUS) and self.random.random() < 0.8:
            self.acked = self.told
        self.emit(self.now_ns, FIN | ACK, self.sent)
        self.sent += 1
        if self.noisy():
            self.emit(self.now_ns + 200 * MILLISECOND, FIN | ACK, self.sent - 1)
        if ending in (Ending.CLIENT_FIN, Ending.SIMULTANEOUS):
            self.server_fin()

    def finish_half_closed(self) -> None:
        if not self.plan.turns:
            self.emit(self.now_ns, FIN | ACK, self.sent)
            self.sent += 1
        if self.plan.ending is Ending.FIN_THEN_RESET:
            self.now_ns += self.plan.rtt_ns + MILLISECOND
            self.reset()
        else:
            self.server_fin()

    def server_fin(self) -> None:
        """The server closes; the client acknowledges it, at once or with what it sends next."""
        self.told += 1
        self.now_ns += self.plan.rtt_ns + 100 * MICROSECOND
        self.acked = self.told
        if self.random.random() < 0.7:
            self.acknowledge(self.now_ns)

    def reset(self) -> None:
        flags = RST | ACK if self.random.random() < 0.5 else RST
        for _ in range(1 + 2 * self.noisy()):
            self.emit(self.now_ns, flags, self.sent)
            self.now_ns += MILLISECOND
