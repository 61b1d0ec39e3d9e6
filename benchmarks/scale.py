"""What an open session costs, and what many of them cost each packet: one engine, no network.

Runs in the interpreter of the build that is measured: `python benchmarks/scale.py --sessions N`
prints one JSON object (see `Figures`). The engine is put together as in classic mode, with the real
`Allocator`; a sink counts what it sends, and clients and target are made up here: handshake, one
request of 100 bytes and one answer of 200, time stamps on all of it.

Client and target keep three integers for a session, allocated before memory is looked at.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import struct
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tcpcopy.engine.context import Context, EngineConfig
from tcpcopy.engine.engine import Engine
from tcpcopy.engine.opening import Opener
from tcpcopy.mapping.allocator import Allocator
from tcpcopy.packet.batch import PacketBatch, PacketSink

ONLINE = bytes((10, 2, 0, 1))
TARGET = bytes((10, 9, 0, 3))
ONLINE_PORT, TARGET_PORT = 80, 8080
REQUEST, ANSWER = 100, 200  # bytes
HOT = 100  # sessions of the fixed set
CHUNK = 20_000  # sessions that get a request before the first of them gets its answer
OPENED_AT_ONCE = 1_000  # less than CHUNK: what waits for an answer is no idle session's memory
MEASURED = 200_000  # packets of each kind, at least

_MS = 1_000_000
_SYN, _SYN_ACK, _ACK, _PSH_ACK = 0x02, 0x12, 0x10, 0x18
_SYN_OPTIONS = bytes.fromhex("020405b40402080a00000001000000000103030a")
_OPTIONS = bytes.fromhex("0101080a0000000100000001")
_HEADERS = struct.Struct("!BBHHHBBHIIHHIIBBHHH")  # IPv4 and TCP without options
_ONLINE_NUMBER, _TARGET_NUMBER = int.from_bytes(ONLINE, "big"), int.from_bytes(TARGET, "big")
_ISN, _SERVER_ISN = 1_000_000, 3_000_000_000


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run found; times are CPU nanoseconds of the engine alone."""

    sessions: int
    session_bytes: float  # growth of resident memory for each, after the first answer
    request_ns: float  # a captured request, sent on; over all sessions in random order
    answer_ns: float  # an answer of the target, the same
    timer_ns: float  # a session whose delayed acknowledgement is due, the same
    hot_request_ns: float  # the same, with the packets on the same hundred sessions
    hot_answer_ns: float
    hot_timer_ns: float
    idle_timers_ns: float  # a call of run_timers with nothing due
    open_ns: float  # a SYN: the session made and its own SYN sent
    close_ns: float  # a RST of the client's, replayed
    pause_ms: float  # longest single packet while the sessions were opened
    wave_growth: float  # resident memory in the last wave of sessions, by that in the second


@dataclass(frozen=True)
class _Target:
    target_address: bytes = TARGET
    target_port: int = TARGET_PORT


class _Transfers:
    def __init__(self) -> None:
        self._targets = (_Target(),)

    def lookup(self, address: bytes, port: int, /) -> tuple[_Target, ...]:
        return self._targets


class _Everyone:
    def admit(self, client_address: bytes, client_port: int, *, now_ns: int) -> bool:
        return True


class _CountingSink(PacketSink):
    """Takes what is sent and counts it."""

    packets = 0

    def send_batch(self, batch: PacketBatch) -> None:
        self.packets += batch.count
        batch.count = 0


def resident_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def client_of(number: int) -> tuple[int, int]:
    """Address, as an integer, and port of a session's client: one session a client."""
    return 0x0B000000 + number, 1024 + number * 7919 % 60_000


class Bench:
    """An engine, `sessions` clients and their target."""

    def __init__(self, sessions: int) -> None:
        self.sessions = sessions
        self.isn = _ISN
        self.now_ns = 9_000_000_000_000
        self.rounds = array("I", bytes(4 * sessions))  # requests that each has sent
        self.iss = array("I", bytes(4 * sessions))  # what the engine began its sequence with
        self.order = array("I", range(sessions))
        size = 256 * min(sessions, CHUNK)
        self.packets = bytearray(size)
        self.view = memoryview(self.packets)
        self.ends = array("I", bytes(4 * min(sessions, CHUNK)))
        self.spent_ns = 0  # of the last `feed`
        self.longest_ns = 0
        self.sink = _CountingSink()
        self.batch = PacketBatch(self.sink, mtu=1500)
        config = EngineConfig()
        context = Context(config, self.batch)
        opener = Opener(
            config,
            context,
            transfers=_Transfers(),
            identities=Allocator(),
            sampling=_Everyone(),
        )
        self.engine = Engine(config, context, opener)
        self.counts = context.counts
        self._tick(0)

    def _tick(self, by_ns: int) -> None:
        self.now_ns += by_ns
        self.engine.now_ns = self.now_ns

    # --- packets ---------------------------------------------------------------------------

    def _put(
        self, place: int, source: tuple[int, int], destination: tuple[int, int],
        seq: int, ack: int, flags: int, options: bytes, payload: int,
    ) -> None:  # fmt: skip
        at = place * 256
        header = 20 + len(options)
        total = 20 + header + payload
        _HEADERS.pack_into(
            self.packets, at, 0x45, 0, total, 0, 0, 64, 6, 0, source[0], destination[0],
            source[1], destination[1], seq & 0xFFFFFFFF, ack & 0xFFFFFFFF,
            header // 4 << 4, flags, 60_000, 0, 0,
        )  # fmt: skip
        self.packets[at + 40 : at + 20 + header] = options
        self.ends[place] = at + total

    def _to_online(
        self, place: int, number: int, seq: int, ack: int, flags: int, size: int
    ) -> None:
        options = _SYN_OPTIONS if flags == _SYN else _OPTIONS
        online = (_ONLINE_NUMBER, ONLINE_PORT)
        self._put(place, client_of(number), online, self.isn + seq, ack, flags, options, size)

    def _from_target(self, place: int, number: int, seq: int, ack: int, flags: int) -> None:
        options = _SYN_OPTIONS if flags == _SYN_ACK else _OPTIONS
        target = (_TARGET_NUMBER, TARGET_PORT)
        size = 0 if flags == _SYN_ACK else ANSWER
        self._put(
            place, target, client_of(number), _SERVER_ISN + seq, self.iss[number] + ack,
            flags, options, size,
        )  # fmt: skip

    def put_requests(self, numbers: Sequence[int]) -> None:
        """The next request of each, which acknowledges all answers before it."""
        for place, number in enumerate(numbers):
            done = self.rounds[number]
            ack = _SERVER_ISN + 1 + done * ANSWER
            self._to_online(place, number, 1 + done * REQUEST, ack, _PSH_ACK, REQUEST)

    def put_answers(self, numbers: Sequence[int]) -> None:
        """The target's answer to the last request of each."""
        for place, number in enumerate(numbers):
            done = self.rounds[number]
            self._from_target(
                place, number, 1 + done * ANSWER, 1 + (done + 1) * REQUEST, _PSH_ACK
            )  # fmt: skip
            self.rounds[number] = done + 1

    # --- feeding ---------------------------------------------------------------------------

    def feed(self, count: int, handler: Any, cut: int = 0) -> int:
        """Hand `count` packets over; the CPU nanoseconds that took.

        Of a target's packet only `cut` bytes are there, as in a relay's record.
        """
        packet, data, ends, clock = handler.packet, self.view, self.ends, self.now_ns
        began = time.thread_time_ns()
        for place in range(count):
            at, end = place * 256, ends[place]
            packet(data, at, at + cut if cut else end, end - at, clock)
        return time.thread_time_ns() - began

    def feed_timed(self, count: int, handler: Any) -> int:
        """The same, with an eye on each packet."""
        packet, data, ends, clock = handler.packet, self.view, self.ends, self.now_ns
        total = 0
        for place in range(count):
            began = time.thread_time_ns()
            packet(data, place * 256, ends[place], 0, clock)
            taken = time.thread_time_ns() - began
            total += taken
            if taken > self.longest_ns:
                self.longest_ns = taken
        return total

    def overhead_ns(self) -> float:
        """Of a packet that is refused at once: the loop, the call and the buffer."""
        count = min(self.sessions, CHUNK)
        packet, data, clock = self.engine.packet, self.view, self.now_ns
        began = time.thread_time_ns()
        for place in range(count):
            packet(data, place * 256, place * 256 + 10, 10, clock)
        return (time.thread_time_ns() - began) / count

    def open(self) -> float:
        """Open every session: handshake, a request, an answer. CPU nanoseconds for each SYN."""
        spent = 0
        for first in range(0, self.sessions, OPENED_AT_ONCE):
            numbers = self.order[first : first + OPENED_AT_ONCE]
            count = len(numbers)
            for at in range(0, count, self.batch.capacity):
                part = numbers[at : at + self.batch.capacity]
                for place, number in enumerate(part):
                    self._to_online(place, number, 0, 0, _SYN, 0)
                self.batch.flush()
                spent += self.feed_timed(len(part), self.engine)
                for place, number in enumerate(part):
                    sent = self.batch.packet(place)
                    self.iss[number] = int.from_bytes(sent[24:28], "big")
            self._tick(100_000)
            for place, number in enumerate(numbers):
                self.rounds[number] = 0
                self._from_target(place, number, 0, 1, _SYN_ACK)
            self.feed(count, self.engine.answers, cut=60)
            self.round(numbers)
        return spent / self.sessions

    def round(self, numbers: Sequence[int]) -> tuple[int, int, int]:
        """A request and an answer on each session; CPU of requests, answers and timers."""
        count = len(numbers)
        self.put_requests(numbers)
        requests = self.feed(count, self.engine)
        self._tick(_MS // 2)
        self.put_answers(numbers)
        answers = self.feed(count, self.engine.answers, cut=64)
        self._tick(100 * _MS)  # longer than any acknowledgement is delayed
        began = time.thread_time_ns()
        self.engine.run_timers()
        return requests, answers, time.thread_time_ns() - began

    def rounds_over(self, numbers: Sequence[int]) -> list[float]:
        """Nanoseconds for each packet and due session, over enough rounds on these sessions.

        `numbers` are gone through in order, again and again, in pieces of at most CHUNK.
        """
        spent, packets = [0, 0, 0], 0
        while packets < MEASURED:
            for first in range(0, len(numbers), CHUNK):
                part = numbers[first : first + CHUNK]
                for place, value in enumerate(self.round(part)):
                    spent[place] += value
                packets += len(part)
                if packets >= MEASURED:
                    break
        return [value / packets for value in spent]

    def idle_timers_ns(self) -> float:
        """A call of run_timers while nothing is due."""
        self.engine.run_timers()
        run_timers, calls = self.engine.run_timers, 20_000
        began = time.thread_time_ns()
        for _ in range(calls):
            run_timers()
        return (time.thread_time_ns() - began) / calls

    def close(self) -> float:
        """The client's RST on every session, and all forgotten. CPU nanoseconds for each RST."""
        spent = 0
        for first in range(0, self.sessions, CHUNK):
            numbers = self.order[first : first + CHUNK]
            for place, number in enumerate(numbers):
                done = self.rounds[number]
                ack = _SERVER_ISN + 1 + done * ANSWER
                self._to_online(place, number, 1 + done * REQUEST, ack, 0x14, 0)
            spent += self.feed(len(numbers), self.engine)
            self._tick(50 * _MS)
            self.engine.run_timers()
        self._tick(5_000 * _MS)
        while self.engine.run_timers():
            pass
        if self.counts.live:
            raise RuntimeError(f"{self.counts.live} sessions are left")
        self.isn += 1_000_000  # the next connections on these ports are others
        for _ in range(3):  # what is remembered of ended connections is forgotten
            self._tick(130_000 * _MS)
            self.engine.run_timers()
        return spent / self.sessions


def measure(sessions: int, seed: int, waves: int) -> Figures:
    """Open, measure, close; further waves show whether memory grows."""
    bench = Bench(sessions)
    random.Random(seed).shuffle(bench.order)
    gc.collect()
    gc.disable()  # as tcpcopy does
    before = resident_bytes()
    open_ns = bench.open()
    session_bytes = (resident_bytes() - before) / sessions
    if bench.counts.live != sessions or bench.counts.turns_replayed != sessions:
        raise RuntimeError(f"{bench.counts.turns_replayed} requests of {sessions} were replayed")
    overhead = bench.overhead_ns()
    spread = bench.rounds_over(bench.order)
    hot = bench.rounds_over(bench.order[:HOT])
    idle = bench.idle_timers_ns()
    sizes = [resident_bytes()]
    close_ns = bench.close()
    for _ in range(waves):
        bench.open()
        sizes.append(resident_bytes())
        bench.close()
    growth = sizes[-1] / sizes[min(1, waves)]
    return Figures(
        sessions, session_bytes, spread[0] - overhead, spread[1] - overhead, spread[2],
        hot[0] - overhead, hot[1] - overhead, hot[2], idle, open_ns, close_ns - overhead,
        bench.longest_ns / _MS, growth,
    )  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--waves", type=int, default=0)
    options = parser.parse_args(argv)
    print(json.dumps(asdict(measure(options.sessions, options.seed, options.waves))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
