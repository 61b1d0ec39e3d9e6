"""What the engine's tests share: a client on a bench, with its clock, its target and its output.

Segments are written by the simulation's own encoder and read by its strict decoder, so that a
packet with a wrong length, checksum or option fails the test that sent it. Offsets are stream
offsets on both sides: byte 0 is the first after the SYN.

What was sent is told in short lines: flags, offset and length, `a` and the offset acknowledged;
SACK blocks and a window when a test asks for them. "PA 0+100 a0" is a first request.
"""

from __future__ import annotations

from dataclasses import replace

from tcpcopy.engine.chunk import CHUNK_COST, DATA, FIN, RST, Chunk, ChunkQueue
from tcpcopy.engine.client import TcpClient
from tcpcopy.engine.context import Context, EngineConfig
from tcpcopy.packet.batch import PacketBatch, PacketSink
from tcpcopy.packet.segment import Segment, parse, parse_options
from tests.sim.model import wire

US = 1_000
MS = 1_000_000
SECOND = 1_000_000_000
START = 5_000 * SECOND  # when a bench opens its connection

CLIENT = bytes((10, 1, 0, 7))
CLIENT_PORT = 40001
TARGET = bytes((10, 9, 0, 3))
TARGET_PORT = 8080
CLIENT6 = bytes.fromhex("20010db8000000000000000000000007")
TARGET6 = bytes.fromhex("20010db8000000010000000000000003")
TARGET_ISS = 0xFFFF_FF00  # wraps soon, so that every longer answer crosses it

_LETTERS = {"F": wire.FIN, "S": wire.SYN, "R": wire.RST, "P": wire.PSH, "A": wire.ACK}


def flag_bits(letters: str) -> int:
    """The flags that `letters` name, for example "PA"."""
    return sum(_LETTERS[letter] for letter in letters)


def flag_letters(bits: int) -> str:
    """The letters of the flags that are set."""
    return "".join(letter for letter in "FSRPA" if bits & _LETTERS[letter])


def relative(number: int, base: int) -> int:
    """The stream offset of sequence number `number`; -1 is the SYN itself."""
    ahead = (number - base - 1) & 0xFFFFFFFF
    return ahead - (1 << 32) if ahead & 0x80000000 else ahead


class CollectingSink(PacketSink):
    """Keeps a copy of every packet that is sent."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []

    def send_batch(self, batch: PacketBatch) -> None:
        self.packets.extend(batch.packet(index) for index in range(batch.count))


def parsed(packet: bytes) -> Segment:
    """The packet as the engine sees it."""
    segment = Segment()
    assert parse(segment, packet, 0, len(packet), len(packet)) == 0
    parse_options(segment, packet)
    return segment


class Bench:
    """A `TcpClient` with its queue, towards a target that the test plays."""

    def __init__(
        self,
        config: EngineConfig | None = None,
        *,
        rtt_ns: int = 0,
        capacity: int = 64,
        v6: bool = False,
    ) -> None:
        self.config = config or EngineConfig()
        self.sink = CollectingSink()
        self.batch = PacketBatch(self.sink, capacity=capacity, mtu=self.config.mtu)
        self.context = Context(self.config, self.batch)
        self.counts = self.context.counts
        self.queue = ChunkQueue()
        self.local, self.remote = (CLIENT6, TARGET6) if v6 else (CLIENT, TARGET)
        self.client = TcpClient(
            self.context, self.queue, self.local, CLIENT_PORT, self.remote, TARGET_PORT
        )
        self.client.rtt_ns = rtt_ns
        self.now = START
        self.stream = b""  # everything the client ever said
        self.target = wire.Segment(
            self.remote, TARGET_PORT, self.local, CLIENT_PORT, TARGET_ISS, window=65535
        )
        self.timestamps: tuple[int, int] | None = None  # on every segment of the target
        self.seen: list[wire.Segment] = []  # what the last `sent` told of

    # --- the client's side -----------------------------------------------------------------

    def open(self) -> None:
        """Send the SYN."""
        self.client.open(self.now)

    def say(self, size: int, *, release: bool = True) -> None:
        """One more chunk of `size` bytes, different from all around it."""
        offset = len(self.stream)
        data = bytes((offset + index) * 7 % 251 for index in range(size))
        self.stream += data
        self.queue.append(Chunk(DATA, data, offset, 0, self.now))
        self.context.counts.queued_bytes += CHUNK_COST + size
        if release:
            self.release()

    def finish(self) -> None:
        """The client's FIN."""
        self.queue.append(Chunk(FIN, b"", len(self.stream), 0, self.now))
        self.release()

    def reset(self) -> None:
        """The client's RST."""
        self.queue.append(Chunk(RST, b"", len(self.stream), 0, self.now))
        self.release()

    def release(self) -> None:
        """Pacing lets the next chunk through."""
        self.queue.release()
        self.client.transmit(self.now)

    # --- the target's side -----------------------------------------------------------------

    def hear(
        self,
        letters: str = "A",
        at: int = 0,
        size: int = 0,
        *,
        ack: int = 0,
        window: int | None = None,
        sack: tuple[tuple[int, int], ...] = (),
        timestamp: tuple[int, int] | None = None,
    ) -> int:
        """The target sends `size` bytes from its offset `at`; returns the Drop reason."""
        iss = self.client.iss
        segment = replace(
            self.target,
            seq=(TARGET_ISS + 1 + at) & 0xFFFFFFFF,
            ack=(iss + 1 + ack) & 0xFFFFFFFF if "A" in letters else 0,
            flags=flag_bits(letters),
            payload=bytes(size),
            sack_blocks=tuple(
                ((iss + 1 + left) & 0xFFFFFFFF, (iss + 1 + right) & 0xFFFFFFFF)
                for left, right in sack
            ),
            timestamp=timestamp or self.timestamps,
        )
        if window is not None:
            segment = replace(segment, window=window)
        return self.feed(segment)

    def accept(
        self,
        *,
        mss: int | None = 1460,
        scale: int | None = None,
        sack: bool = False,
        timestamp: tuple[int, int] | None = None,
        window: int | None = None,
    ) -> int:
        """The target's SYN-ACK; only what is named is offered."""
        return self.feed(
            replace(
                self.target,
                seq=TARGET_ISS,
                ack=(self.client.iss + 1) & 0xFFFFFFFF,
                flags=wire.SYN | wire.ACK,
                mss=mss,
                window_scale=scale,
                sack_permitted=sack,
                timestamp=timestamp,
                window=self.target.window if window is None else window,
            )
        )

    def feed(self, segment: wire.Segment) -> int:
        """Any segment, to the client; then the session lets it go on."""
        result = self.client.take_segment(parsed(wire.encode(segment)), self.now)
        self.client.transmit(self.now)
        return result

    # --- time and output -------------------------------------------------------------------

    def run_to(self, after_start_ns: int) -> None:
        """Let time pass until START + `after_start_ns`, each timer at its own time."""
        end = START + after_start_ns
        assert end >= self.now, "time does not go back"
        for _ in range(10_000):
            deadline = self.client.deadline_ns()
            if deadline == 0 or deadline > end:
                self.now = end
                return
            self.now = max(self.now, deadline)
            self.client.run_timers(self.now)
            self.client.transmit(self.now)
        raise AssertionError("timers do not end")

    def sent(self) -> list[str]:
        """What was sent since the last call, in short lines; payloads are checked on the way."""
        self.batch.flush()
        packets, self.sink.packets = self.sink.packets, []
        self.seen = [wire.decode(packet) for packet in packets]
        return [self._line(segment) for segment in self.seen]

    def _line(self, segment: wire.Segment) -> str:
        assert segment.key == (self.local, CLIENT_PORT, self.remote, TARGET_PORT)
        letters = flag_letters(segment.flags)
        if "S" in letters:
            assert segment.seq == self.client.iss and not segment.payload
            return letters
        offset = relative(segment.seq, self.client.iss)
        line = f"{letters} {offset}"
        if segment.payload:
            end = offset + len(segment.payload)
            assert segment.payload == self.stream[offset:end], f"wrong bytes in {line}"
            line += f"+{len(segment.payload)}"
        if "A" in letters:
            line += f" a{relative(segment.ack, TARGET_ISS)}"
        for left, right in segment.sack_blocks:
            line += f" sack {relative(left, TARGET_ISS)}-{relative(right, TARGET_ISS)}"
        return line

    def expect_at(self, after_start_ns: int, lines: list[str]) -> None:
        """Exactly `lines` are sent at that time, and nothing until just before it."""
        self.run_to(after_start_ns - 1)
        assert self.sent() == []
        self.run_to(after_start_ns)
        assert self.sent() == lines

    def expect_silence(self, after_start_ns: int) -> None:
        """Nothing is sent until then."""
        self.run_to(after_start_ns)
        assert self.sent() == []


def established(
    config: EngineConfig | None = None,
    *,
    rtt_ns: int = 0,
    connect_ns: int = 0,
    scale: int | None = None,
    sack: bool = False,
    timestamp: tuple[int, int] | None = None,
    window: int = 65535,
    mss: int | None = 1460,
    quiet: bool = True,
    v6: bool = False,
) -> Bench:
    """A bench in ESTABLISHED, `connect_ns` after START; the handshake is over and forgotten.

    The round-trip time of the handshake is `connect_ns`, so the retransmission time-out is
    200 ms and that (RFC 6298, 2.2 with the floor).
    """
    bench = Bench(config, rtt_ns=rtt_ns, v6=v6)
    bench.target = replace(bench.target, window=window)
    bench.open()
    assert bench.sent() == ["S"]
    bench.run_to(connect_ns)
    assert bench.accept(mss=mss, scale=scale, sack=sack, timestamp=timestamp) == 0
    bench.timestamps = timestamp
    if quiet:
        bench.client.send_ack(bench.now)
        assert bench.sent() == ["A 0 a0"]
    return bench
