"""Joins conversations, an engine, faulty links and a server model, and says what came of it.

The engine under test is wrapped in an adapter that implements `Engine`. Captured packets go to
`ONLINE_IPV4` or `ONLINE_IPV6` port 80; the adapter has to map them as `target_of` says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Protocol

from .app import Record, Script, ScriptedApplication
from .capture import Captured, render
from .clock import SECOND, Clock
from .config import WELL_BEHAVED, ServerConfig, random_config
from .connection import Connection
from .conversation import (
    SAME_HABITS,
    Plan,
    TargetHabits,
    random_habits,
    random_workload,
    script_for,
)
from .link import Faults, Link, TraceEntry
from .server import Admission, Server
from .transmit import State
from .wire import Segment, cut_answer

TARGET_IPV4 = bytes((10, 0, 1, 1))
TARGET_IPV6 = bytes.fromhex("fd000000000000000000000000000002")
TARGET_PORT = 8080
SPIN_LIMIT = 1000  # calls of run_timers without the time moving


NO_FAULTS = Faults()
UNLIMITED_FAULTS = Faults(mtu=None)  # answers may have been joined by the receiving card


class Engine(Protocol):
    """The five verbs. Packets begin with the network header; times are nanoseconds."""

    def feed_captured(self, packet: bytes, now_ns: int) -> None:
        """A packet of a real client to the online server."""

    def feed_answer(self, packet: bytes, now_ns: int) -> None:
        """A packet of the target, whole or as the record of a header-only relay."""

    def run_timers(self, now_ns: int) -> None:
        """Do what is due at `now_ns`."""

    def next_deadline_ns(self) -> int | None:
        """Return when `run_timers` has to be called next; None: never."""

    def drain(self) -> list[bytes]:
        """Return the packets to send to the target, and forget them."""


def target_of(online: bytes) -> tuple[bytes, int]:
    """Return the target's address and port for an online address."""
    return (TARGET_IPV4 if len(online) == 4 else TARGET_IPV6), TARGET_PORT


@dataclass(frozen=True, slots=True)
class Conditions:
    """Everything around the engine. Frozen, so that a failure can print it."""

    to_target: Faults = NO_FAULTS
    from_target: Faults = UNLIMITED_FAULTS
    server: ServerConfig = WELL_BEHAVED
    habits: TargetHabits = SAME_HABITS
    cut_answers: bool = False  # the engine gets header-only records
    timer_lateness_ns: int = 0  # run_timers is called up to so late
    linger_ns: int = 600 * SECOND  # virtual time after the last captured packet


@dataclass(slots=True)
class Replay:
    """One connection that the target saw established."""

    connection: Connection
    record: Record
    script: Script


@dataclass(slots=True)
class Result:
    """What came of one run."""

    plans: Sequence[Plan]
    seed: int
    conditions: Conditions
    replays: list[list[Replay]]  # by index of the plan
    strangers: list[Connection] = field(default_factory=list)  # established, of no plan
    violations: list[str] = field(default_factory=list)
    trace: list[TraceEntry] = field(default_factory=list)
    lost_reset_peers: set[tuple[bytes, int]] = field(default_factory=set)  # as the target sees
    end_ns: int = 0
    packets_to_target: int = 0
    server: Server | None = None

    def problems(self, index: int, *, copies: int = 1) -> list[str]:
        """Return what is wrong with plan `index` where it has to be replayed exactly."""
        plan = self.plans[index]
        replays = self.replays[index]
        found = []
        # A RST that overtakes the handshake's last ACK, or is all that comes through, leaves the
        # target's application without a connection: no client can help that.
        unseen = not plan.request_bytes and "reset" in plan.expected_ends
        if len(replays) != copies and not (unseen and self.conditions.to_target.faulty):
            found.append(f"{len(replays)} connections at the target instead of {copies}")
        if not replays:
            found.extend(self.violations)
        for replay in replays:
            found.extend(replay.connection.violations)
            found.extend(data_problems(bytes(replay.record.data), plan.expected_data))
            ends = plan.expected_ends
            opening = replay.connection.opening
            if (opening.source, opening.source_port) in self.lost_reset_peers and "reset" in ends:
                ends |= {None, "timeout"}  # a RST is sent once; lost, the target cannot know
            if replay.record.end not in ends:
                wanted = " or ".join(sorted(str(end) for end in ends))
                found.append(f"ended by {replay.record.end} instead of {wanted}")
        return found

    def check_exact(self, *, copies: int = 1) -> None:
        """Raise AssertionError with a report unless every conversation was replayed exactly."""
        for index in range(len(self.plans)):
            found = self.problems(index, copies=copies)
            if found:
                raise AssertionError(self.report(index, found))
        self.check_sound()

    def check_sound(self) -> None:
        """Raise AssertionError for violations of TCP, strangers, and bytes never captured.

        Holds in every run, also where the target misbehaves.
        """
        for index, replays in enumerate(self.replays):
            expected = self.plans[index].expected_data
            found = [text for replay in replays for text in replay.connection.violations]
            for replay in replays:
                data = bytes(replay.record.data)
                if not expected.startswith(data):
                    found.extend(data_problems(data, expected))
            if found:
                raise AssertionError(self.report(index, found))
        if self.violations or self.strangers:
            peers = [
                f"{connection.opening.source.hex()}:{connection.opening.source_port}"
                for connection in self.strangers
            ]
            raise AssertionError(f"seed {self.seed}: {self.violations} strangers {peers}")

    def report(self, index: int, found: Sequence[str], lines: int = 80) -> str:
        """Return all there is to know about one conversation that failed."""
        plan = self.plans[index]
        text = [f"seed {self.seed}, conversation {index}: " + "; ".join(found[:5])]
        text.append(f"plan: {plan}")
        text.append(f"conditions: {self.conditions}")
        peers = {plan.client + plan.client_port.to_bytes(2, "big")}
        for replay in self.replays[index]:
            opening = replay.connection.opening
            peers.add(opening.source + opening.source_port.to_bytes(2, "big"))
            record = replay.record
            text.append(f"script: {replay.script}")
            text.append(
                f"target: state {replay.connection.state.value} read {len(record.data)} "
                f"wrote {record.written} end {record.end}"
            )
        chosen = [entry for entry in self.trace if _peer_of(entry) in peers]
        text.extend(str(entry) for entry in chosen[: lines // 2])
        if len(chosen) > lines:
            text.append(f"... {len(chosen) - lines} packets between")
        text.extend(str(entry) for entry in chosen[lines // 2 :][-lines // 2 :])
        return "\n".join(text)


def _peer_of(entry: TraceEntry) -> bytes:
    """Return address and port of the client's side of a traced packet."""
    packet = entry.packet
    outward = entry.link != "answers"
    if packet[0] >> 4 == 6:
        address = packet[8:24] if outward else packet[24:40]
        return address + (packet[40:42] if outward else packet[42:44])
    address = packet[12:16] if outward else packet[16:20]
    start = (packet[0] & 15) * 4
    return address + packet[start if outward else start + 2 :][:2]


def data_problems(data: bytes, expected: bytes) -> list[str]:
    """Return a line that says how `data` differs from `expected`; empty when it does not."""
    if data == expected:
        return []
    common = next(
        (at for at, (left, right) in enumerate(zip(data, expected, strict=False)) if left != right),
        min(len(data), len(expected)),
    )
    return [f"read {len(data)} bytes instead of {len(expected)}, alike up to {common}"]


Identify = Callable[[bytes, int, int], "int | None"]
Event = tuple[int, Callable[[Server], None]]


class _Run:
    """One run; see `run`."""

    def __init__(
        self,
        plans: Sequence[Plan],
        engine: Engine,
        seed: int,
        conditions: Conditions,
        identify: Identify | None,
        admit: Callable[[Segment], Admission],
        scripts: Callable[[int, Script], Script],
        events: Sequence[Event],
    ) -> None:
        self.events = events
        self.engine = engine
        self.random = Random(seed)
        self.clock = Clock()
        self.conditions = conditions
        self.identify = identify or self.by_client
        self.scripts = scripts
        self.result = Result(plans, seed, conditions, [[] for _ in plans])
        self.established: dict[tuple[bytes, int], int] = {}
        trace = self.result.trace
        self.server = Server(
            self.clock,
            self.random,
            conditions.server,
            frozenset((TARGET_PORT,)),
            lambda packet: self.answers.send(packet),
            self.on_established,
            admit,
        )
        self.result.server = self.server
        self.answers = Link(
            "answers", self.clock, self.random, conditions.from_target, self.answer, trace
        )
        self.to_target = Link(
            "target", self.clock, self.random, conditions.to_target, self.server.receive, trace
        )
        self.clients: dict[tuple[bytes, int], list[int]] = {}
        for index, plan in enumerate(plans):
            self.clients.setdefault((plan.client, plan.client_port), []).append(index)

    def by_client(self, address: bytes, port: int, ordinal: int) -> int | None:
        """The connection's client address and port name the plan, in order of their use."""
        indexes = self.clients.get((address, port), [])
        return indexes[ordinal] if ordinal < len(indexes) else None

    def on_established(self, connection: Connection) -> ScriptedApplication:
        opening = connection.opening
        peer = (opening.source, opening.source_port)
        ordinal = self.established.get(peer, 0)
        self.established[peer] = ordinal + 1
        index = self.identify(*peer, ordinal)
        script = Script()
        if index is None:
            self.result.strangers.append(connection)
        else:
            script = script_for(self.result.plans[index], self.random, self.conditions.habits)
            script = self.scripts(index, script)
        application = ScriptedApplication(self.clock, connection, script)
        if index is not None:
            self.result.replays[index].append(Replay(connection, application.record, script))
        return application

    def captured(self, packet: bytes) -> None:
        self.result.trace.append(TraceEntry(self.clock.now_ns, "online", "captured", packet))
        self.engine.feed_captured(packet, self.clock.now_ns)
        self.pump()

    def answer(self, packet: bytes) -> None:
        if self.conditions.cut_answers:
            packet = cut_answer(packet)
        self.engine.feed_answer(packet, self.clock.now_ns)
        self.pump()

    def pump(self) -> None:
        for packet in self.engine.drain():
            self.result.packets_to_target += 1
            self.to_target.send(packet)

    def run(self, captured: Sequence[Captured], until_ns: int) -> Result:
        for time_ns, call in self.events:
            self.clock.at(time_ns, lambda call=call: call(self.server))  # type: ignore[misc]
        for time_ns, packet in captured:
            self.clock.at(time_ns, lambda packet=packet: self.captured(packet))  # type: ignore[misc]
        spins = 0
        while True:
            due_ns = self.clock.next_due_ns()
            deadline_ns = self.engine.next_deadline_ns()
            if deadline_ns is not None and self.conditions.timer_lateness_ns:
                deadline_ns += self.conditions.timer_lateness_ns
            times = [time_ns for time_ns in (due_ns, deadline_ns) if time_ns is not None]
            if not times or min(times) > until_ns:
                break
            if deadline_ns is None or (due_ns is not None and due_ns < deadline_ns):
                self.clock.step()
                continue
            spins = 0 if deadline_ns > self.clock.now_ns else spins + 1
            if spins > SPIN_LIMIT:
                raise AssertionError(f"seed {self.result.seed}: the engine's deadline stands still")
            self.clock.move_to(deadline_ns)
            self.engine.run_timers(self.clock.now_ns)
            self.pump()
        self.result.end_ns = self.clock.now_ns
        for flow in self.to_target.lost_resets:
            length = (len(flow) - 4) // 2
            port = int.from_bytes(flow[2 * length : 2 * length + 2], "big")
            self.result.lost_reset_peers.add((flow[:length], port))
        for connection in self.server.all_connections:
            if connection.application is None:
                self.result.violations.extend(connection.violations)
        return self.result


def run(
    plans: Sequence[Plan],
    engine: Engine,
    seed: int,
    conditions: Conditions | None = None,
    *,
    captured: Sequence[Captured] | None = None,
    identify: Identify | None = None,
    admit: Callable[[Segment], Admission] = lambda syn: Admission.ACCEPT,
    scripts: Callable[[int, Script], Script] = lambda index, script: script,
    events: Sequence[Event] = (),
) -> Result:
    """Replay `plans` by `engine` to a model server until nothing is left to do.

    `captured` takes the place of what the plans render to (holes, reused ports). `identify` maps
    (address, port, how many of that pair before) of a connection at the target to the index of
    its plan, None for a stranger; by default the client's own address and port. `scripts` may
    change what the target's application does for a plan; `admit` decides on each SYN. `events` are
    (time in ns, call with the server): a crash, a start.

    Raises: WireError for a malformed packet of the engine, AssertionError for an engine that
    asks for its timers without end.
    """
    conditions = conditions or Conditions()
    if captured is None:
        captured = sorted(entry for plan in plans for entry in render(plan))
    last_ns = max((time_ns for time_ns, _ in captured), default=0)
    runner = _Run(plans, engine, seed, conditions, identify, admit, scripts, events)
    return runner.run(captured, last_ns + conditions.linger_ns)


def alive(result: Result) -> list[Connection]:
    """Return the target's connections that neither closed nor stand in TIME-WAIT."""
    server = result.server
    if server is None:
        return []
    over = (State.CLOSED, State.TIME_WAIT)
    return [connection for connection in server.all_connections if connection.state not in over]


def random_faults(random: Random, *, worst_loss: float = 0.2) -> Faults:
    """Return a link that loses, doubles and disorders up to some measure."""
    delay_ns = random.choice((10_000, 200_000, 5_000_000, 50_000_000))
    return Faults(
        delay_ns=delay_ns,
        jitter_ns=random.choice((0, 0, delay_ns // 4, delay_ns * 2)),
        loss=random.choice((0.0, 0.0, 0.02, 0.05, worst_loss)),
        duplication=random.choice((0.0, 0.0, 0.02, 0.2)),
    )


def random_case(
    random: Random, count: int, *, largest: int = 5000, worst_loss: float = 0.2
) -> tuple[list[Plan], Conditions]:
    """Return `count` conversations and any conditions under which they end in time.

    Requests and answers are up to `largest` bytes each, fewer where the window is tiny.
    """
    server = random_config(random)
    plans = random_workload(random, count, largest=min(largest, 20 * server.receive_buffer))
    conditions = Conditions(
        to_target=random_faults(random, worst_loss=worst_loss),
        from_target=replace(random_faults(random, worst_loss=worst_loss), mtu=None),
        server=server,
        habits=random_habits(random),
        cut_answers=random.random() < 0.5,
        timer_lateness_ns=random.choice((0, 0, 1_000_000)),
    )
    return plans, conditions
