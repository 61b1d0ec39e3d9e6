"""A whole engine, one captured connection at a time, and a target that the test plays.

Everything that the engine asks of its surroundings is a small stand-in that is handed in. Packets
go in and come out as bytes; what comes out is decoded strictly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tcpcopy.engine.context import Context, EngineConfig
from tcpcopy.engine.engine import Engine
from tcpcopy.engine.kernel import Transport
from tcpcopy.engine.opening import Opener
from tcpcopy.engine.outcome import Drop, Outcome
from tcpcopy.engine.ports import Announcer, Identities
from tcpcopy.engine.session import Session
from tcpcopy.packet.batch import PacketBatch
from tests.sim.model import wire
from tests.unit.engine.rig import SECOND, CollectingSink, flag_bits, flag_letters

START = 9_000 * SECOND
ONLINE = bytes((10, 2, 0, 1))
ONLINE_PORT = 80
TARGET = bytes((10, 9, 0, 3))
TARGET_PORT = 8080
CLIENT = bytes((10, 1, 0, 7))
CLIENT_PORT = 40001
DROPS = {int(drop): drop for drop in Drop}


@dataclass(frozen=True)
class Target:
    """One transfer's end."""

    target_address: bytes = TARGET
    target_port: int = TARGET_PORT


class Table:
    """-x."""

    def __init__(self, targets: tuple[Target, ...] = (Target(),)) -> None:
        self.targets = targets

    def lookup(self, address: bytes, port: int, /) -> tuple[Target, ...]:
        return self.targets if port == ONLINE_PORT else ()


class Ports:
    """Keeps the client's address and port where they are free, else counts the port up."""

    def __init__(self, *, limit: int = 1000) -> None:
        self.live: set[tuple[bytes, int, bytes, int]] = set()
        self.released: list[tuple[bytes, int, bytes, int]] = []
        self.limit = limit

    def acquire(
        self,
        client_address: bytes,
        client_port: int,
        target_address: bytes,
        target_port: int,
        copy: int,
        now_ns: int,
    ) -> tuple[bytes, int] | None:
        if len(client_address) != len(target_address):
            return None
        port = client_port
        while (client_address, port, target_address, target_port) in self.live:
            port += 1
        if len(self.live) >= self.limit:
            return None
        self.live.add((client_address, port, target_address, target_port))
        return client_address, port

    def release(
        self, address: bytes, port: int, target_address: bytes, target_port: int, now_ns: int
    ) -> bool:
        identity = (address, port, target_address, target_port)
        self.live.remove(identity)
        self.released.append(identity)
        return True


class Sampling:
    """-r, -g: a test says who is let in."""

    def __init__(self, admit: Callable[[int], bool] = lambda port: True) -> None:
        self._admit = admit

    def admit(self, client_address: bytes, client_port: int, *, now_ns: int) -> bool:
        return self._admit(client_port)


class World:
    """An engine with its surroundings. Times are nanoseconds since START."""

    def __init__(
        self,
        config: EngineConfig | None = None,
        *,
        targets: tuple[Target, ...] = (Target(),),
        ports: Identities | None = None,
        admit: Callable[[int], bool] = lambda port: True,
        copies: int = 1,
        announcer: Announcer | None = None,
        transport: Transport | None = None,
        local_addresses: tuple[bytes, ...] = (),
    ) -> None:
        self.config = config or EngineConfig()
        self.sink = CollectingSink()
        self.batch = PacketBatch(self.sink, mtu=self.config.mtu)
        self.context = Context(self.config, self.batch)
        self.counts = self.context.counts
        self.bugs: list[str] = []
        self.ports = Ports() if ports is None else ports
        self.opener = Opener(
            self.config,
            self.context,
            transfers=Table(targets),
            identities=None if transport is not None else self.ports,
            sampling=Sampling(admit),
            copies=copies,
            announcer=announcer,
            transport=transport,
            local_addresses=local_addresses,
        )
        self.engine = Engine(self.config, self.context, self.opener, on_bug=self.bugs.append)
        self.engine.now_ns = START
        self.expect_bugs = False

    @property
    def now(self) -> int:
        """Nanoseconds since START."""
        return self.engine.now_ns - START

    # --- in --------------------------------------------------------------------------------

    def capture(self, packet: bytes, *, wire_length: int | None = None) -> Drop | int:
        """One captured packet; 0 or the Drop reason."""
        length = len(packet) if wire_length is None else wire_length
        reason = self.engine.packet(packet, 0, len(packet), length, self.engine.now_ns)
        return DROPS[reason] if reason else 0

    def answer(self, segment: wire.Segment) -> Drop | int:
        """One packet of the target; 0 or the Drop reason."""
        packet = wire.encode(segment)
        reason = self.engine.answers.packet(packet, 0, len(packet), len(packet), 0)
        return DROPS[reason] if reason else 0

    def run_to(self, after_start_ns: int) -> int:
        """Let time pass, each deadline at its own time; how many looks were taken."""
        end = START + after_start_ns
        assert end >= self.engine.now_ns, "time does not go back"
        looks = 0
        for _ in range(100_000):
            deadline = self.engine.next_deadline_ns()
            if deadline < 0 or deadline > end:
                self.engine.now_ns = end
                looks += self.engine.run_timers()
                return looks
            self.engine.now_ns = max(self.engine.now_ns, deadline)
            looks += self.engine.run_timers()
        raise AssertionError("timers do not end")

    # --- out -------------------------------------------------------------------------------

    def sent(self) -> list[wire.Segment]:
        """What was sent since the last call."""
        self.batch.flush()
        packets, self.sink.packets = self.sink.packets, []
        return [wire.decode(packet) for packet in packets]

    def lines(self) -> list[str]:
        """What was sent since the last call: source port, flags, payload."""
        return [
            f"{segment.source_port} {flag_letters(segment.flags)}"
            + (f" {segment.payload.decode('latin-1')}" if segment.payload else "")
            for segment in self.sent()
        ]

    def outcomes(self) -> dict[str, int]:
        """Sessions by outcome, those that are not zero."""
        counts = self.counts.outcome_counts()
        assert counts[0] == 0
        return {outcome.name: counts[outcome] for outcome in Outcome if counts[outcome]}

    def drops(self, answers: bool = False) -> dict[str, int]:
        """Packets by reason, those that are not zero; without those used."""
        counts = self.counts.answer_drop_counts() if answers else self.counts.capture_drop_counts()
        return {drop.name: counts[drop] for drop in Drop if counts[drop]}

    def sessions(self) -> list[Session]:
        """The sessions that run, in the order of their mapped ports."""
        return sorted(self.engine.sessions(), key=lambda session: session.mapped_port)

    def check(self) -> None:
        """The accounts close whatever happened."""
        counts = self.counts
        assert self.expect_bugs or not self.bugs, self.bugs[0]
        assert sum(counts.capture_drop_counts()) == counts.packets_captured
        assert sum(counts.answer_drop_counts()) == counts.packets_answered
        assert counts.live == len(self.sessions())
        assert sum(counts.outcome_counts()) + counts.live + counts.waiting == counts.sessions
        held = sum(s.queued_bytes + s.early_bytes for s in self.sessions())
        assert counts.queued_bytes == held

    def check_ended(self) -> None:
        """All sessions have ended, and nothing of them is left."""
        self.check()
        assert self.counts.live == 0
        assert self.counts.queued_bytes == 0
        self.run_to(self.now + 10 * SECOND)
        assert self.engine.next_deadline_ns() == -1
        assert not self.engine.by_client and not self.engine.by_answer
        if isinstance(self.ports, Ports):
            assert not self.ports.live


class Caller:
    """One client of the online server: makes the packets that are captured."""

    def __init__(
        self,
        world: World,
        port: int = CLIENT_PORT,
        *,
        isn: int = 0xFFFF_FFF0,
        address: bytes = CLIENT,
    ) -> None:
        self.world = world
        self.isn = isn
        self.server_isn = 0x7000_0000
        self.said = b""
        self.seen = 0  # server bytes acknowledged
        self.blank = wire.Segment(address, port, ONLINE, ONLINE_PORT, 0, window=502)
        self.last = b""  # the newest packet

    def packet(
        self,
        letters: str,
        *,
        at: int | None = None,
        payload: bytes = b"",
        seen: int | None = None,
        **options: Any,
    ) -> bytes:
        """A packet whose first byte stands at stream offset `at` (the next one when not given)."""
        if seen is not None:
            self.seen = seen
        offset = len(self.said) if at is None else at
        fields = {name: getattr(self.blank, name) for name in ("window",)} | options
        self.last = wire.encode(
            wire.Segment(
                self.blank.source,
                self.blank.source_port,
                self.blank.destination,
                self.blank.destination_port,
                (self.isn + 1 + offset) & 0xFFFFFFFF,
                (self.server_isn + 1 + self.seen) & 0xFFFFFFFF if "A" in letters else 0,
                flag_bits(letters),
                payload=payload,
                **fields,
            ),
            fill_checksums=False,
        )
        return self.last

    def give(self, letters: str, **arguments: object) -> Drop | int:
        """Make a packet and have it captured."""
        return self.world.capture(self.packet(letters, **arguments))  # type: ignore[arg-type]

    def syn(self, payload: bytes = b"", **options: Any) -> Drop | int:
        """The SYN, with usual options unless others are named."""
        usual: dict[str, object] = {"mss": 1460, "window_scale": 7, "sack_permitted": True}
        return self.give("S", at=-1, payload=payload, **(usual | options))

    def connect(self, **options: Any) -> None:
        """SYN and the acknowledgement that ends the handshake."""
        assert self.syn(**options) == 0
        assert self.give("A") == 0

    def say(self, text: str, *, seen: int | None = None) -> Drop | int:
        """New data, after so many bytes of the server have been seen."""
        payload = text.encode()
        result = self.give("PA", payload=payload, seen=seen)
        self.said += payload
        return result

    def again(self) -> Drop | int:
        """The newest packet once more."""
        return self.world.capture(self.last)

    def fin(self, *, seen: int | None = None) -> Drop | int:
        """The client closes."""
        return self.give("FA", seen=seen)

    def rst(self, *, seen: int | None = None) -> Drop | int:
        """The client resets."""
        return self.give("RA", seen=seen)


class Answerer:
    """A polite target: accepts, acknowledges, answers each push with `reply`, closes when asked."""

    def __init__(self, world: World, reply: str = "", *, isn: int = 0x3333_0000) -> None:
        self.world = world
        self.reply = reply.encode()
        self.isn = isn
        self.heard: dict[tuple[bytes, int, bytes, int], bytes] = {}  # by four-tuple of the client
        self.told: dict[tuple[bytes, int, bytes, int], int] = {}
        self.reset: list[int] = []  # mapped ports of connections that the client has reset
        self.deaf: set[int] = set()  # mapped ports that get no answer at all

    def step(self) -> int:
        """Answer everything that was sent; how many packets that were."""
        segments = self.world.sent()
        for segment in segments:
            if segment.source_port not in self.deaf:
                self._take(segment)
        return len(segments)

    def settle(self) -> None:
        """Until nobody has anything to say."""
        while self.step():
            pass

    def _take(self, segment: wire.Segment) -> None:
        letters, key = flag_letters(segment.flags), segment.key
        if "S" in letters:
            self.heard[key], self.told[key] = b"", 0
            self.tell(segment, "SA", seq=self.isn, ack=segment.seq + 1, mss=1460)
            return
        if "R" in letters:
            self.reset.append(segment.source_port)
            return
        self.heard[key] += segment.payload
        if not segment.payload and "F" not in letters:
            return
        ack = segment.seq + len(segment.payload) + ("F" in letters)
        seq = self.isn + 1 + self.told[key]
        reply = self.reply if "P" in letters else b""
        self.told[key] += len(reply)
        self.tell(segment, "FA" if "F" in letters else "PA", seq=seq, ack=ack, payload=reply)

    def tell(
        self,
        to: wire.Segment,
        letters: str,
        *,
        seq: int,
        ack: int,
        payload: bytes = b"",
        mss: int | None = None,
    ) -> Drop | int:
        """One packet of the target, in answer to `to`."""
        return self.world.answer(
            wire.Segment(
                to.destination,
                to.destination_port,
                to.source,
                to.source_port,
                seq & 0xFFFFFFFF,
                ack & 0xFFFFFFFF,
                flag_bits(letters),
                65535,
                payload,
                mss=mss,
            )
        )

    def texts(self) -> list[str]:
        """What the connections have said, in the order in which they were opened."""
        return [heard.decode() for heard in self.heard.values()]


def reasons(results: Iterable[Drop | int]) -> list[str]:
    """Names of Drop reasons, "" for used."""
    return [result.name if isinstance(result, Drop) else "" for result in results]
