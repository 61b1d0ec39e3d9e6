"""Targets: whole engines, fed with any packets, any answers and time, as a worker feeds them."""

from __future__ import annotations

import errno
import struct
from dataclasses import replace

from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.datagram import DatagramConfig, DatagramEngine
from tcpcopy.engine.flow import DatagramCounts
from tcpcopy.mapping.allocator import Allocator
from tcpcopy.mapping.clients import parse_clients
from tcpcopy.mapping.sampling import Sampler
from tests.fuzz import packets
from tests.fuzz.target import Target, exact, joined, pieces
from tests.sim.model import wire
from tests.unit.engine.rig import MS, SECOND
from tests.unit.engine.test_datagram import Recorder, Table
from tests.unit.engine.test_engine_sockets import Sockets
from tests.unit.engine.world import ONLINE, ONLINE_PORT, TARGET, TARGET_PORT, Caller, World
from tests.unit.engine.world import Target as Goal

_CONFIGS = (
    EngineConfig(),
    EngineConfig(hole_timeout_ns=4 * SECOND, answer_timeout_ns=2 * SECOND, rtt_ns=20 * MS),
    EngineConfig(wait_for_answers=False, max_sessions=2, linger_ns=0),
    EngineConfig(full_sessions_only=True, mss=536, mtu=600),
)
_V6_GOAL = Goal(bytes.fromhex("20010db8000000000000000000000003"), TARGET_PORT)
_SHAPED = struct.Struct("!BBhiHB")  # which, flags, seq, ack, window, options; then the payload
_CAPTURED, _ANSWERED, _SHAPED_ANSWER, _PASSED, _HEARD = range(5)
_KINDS = 5
_ERRORS = (errno.ECONNREFUSED, errno.ECONNRESET, errno.ETIMEDOUT, errno.EADDRNOTAVAIL, errno.EPIPE)
_STEPS = (0, MS, 30 * MS, SECOND, 5 * SECOND, 60 * SECOND)


def _engine(data: bytes) -> None:
    """The first byte: settings. Events: packets of clients, packets of the target, time.

    Whatever they are, every packet has a reason, every session an outcome, what is sent is sound,
    and nothing is left.
    """
    first = data[0] if data else 0
    sockets = Sockets() if first & 8 else None
    identities = Allocator(copies=2, pool=parse_clients("62.135.200.x") if first & 32 else None)
    world = World(
        _CONFIGS[first & 3],
        ports=identities,
        targets=(_V6_GOAL if first & 16 else Goal(),),
        copies=2 if first & 4 else 1,
        transport=sockets,
    )
    for kind, what in pieces(data[1:]):
        view = exact(what)
        length = len(what) + (3000 if kind & 64 else 0)
        if kind % _KINDS == _CAPTURED:
            world.engine.packet(view, 0, len(what), length, world.engine.now_ns)
        elif kind % _KINDS == _ANSWERED:
            world.engine.answers.packet(view, 0, len(what), length, 0)
        elif kind % _KINDS == _SHAPED_ANSWER:
            _answer(world, what)
        elif kind % _KINDS == _PASSED:
            world.run_to(world.now + _STEPS[len(what) % len(_STEPS)])
        elif sockets is not None:
            _hear(world, sockets, what)
        world.sent()
        world.check()
    world.engine.close_all()
    world.sent()
    world.check_ended()
    assert identities.live == 0


def _answer(world: World, what: bytes) -> None:
    """A packet of the target that fits one of the sessions, but for what the input says."""
    sessions = world.sessions()
    if not sessions or len(what) < _SHAPED.size:
        return
    which, bits, seq, ack, window, size = _SHAPED.unpack_from(what)
    client = sessions[which % len(sessions)].replayed
    if not hasattr(client, "iss"):
        return
    size = size % 11 * 4
    rest = what[_SHAPED.size :]
    options, rest = rest[:size], rest[size:]
    options += bytes(-len(options) % 4)
    header = struct.pack(
        "!HHIIBBHI",
        client.target_port,
        client.port,
        (0xFFFF_FF00 + seq) & 0xFFFFFFFF,
        (client.iss + 1 + ack) & 0xFFFFFFFF,
        (20 + len(options)) << 2,
        bits,
        window,
        0,
    )
    tcp = header + options + rest
    if len(client.address) == 4:
        ip = struct.pack("!BBHIBBH", 0x45, 0, 20 + len(tcp), 0, 64, 6, 0)
    else:
        ip = struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64)
    packet = ip + client.target_address + client.address + tcp
    world.engine.answers.packet(exact(packet), 0, len(packet), len(packet), 0)


def _hear(world: World, sockets: Sockets, what: bytes) -> None:
    """Something comes back on a socket; `Sockets` plays the kernel."""
    if not sockets.clients or len(what) < 3:
        return
    number = what[0] % len(sockets.clients)
    client, now_ns = sockets.clients[number], world.engine.now_ns
    if sockets.closed[number] in ("closed", "reset"):
        return
    kind = what[1] % 5
    if kind == 0:
        client.on_connected(0, now_ns)
    elif kind == 1:
        client.on_received(what[2] + 1, now_ns)
    elif kind == 2:
        client.on_end(now_ns)
    elif kind == 3:
        client.on_error(_ERRORS[what[2] % len(_ERRORS)], now_ns)
    else:
        client.on_writable(now_ns)
    world.engine.transport_event(client)


def _dialogues() -> list[bytes]:
    """Clients that say something, a target that answers, and the end of both."""
    caller = Caller(World(), 40001)
    syn = caller.packet("S", at=-1, mss=1460, window_scale=7, sack_permitted=True, timestamp=(5, 0))
    first = caller.packet("PA", at=0, payload=b"GET /1 HTTP/1.1\r\n\r\n")
    second = caller.packet("PA", at=18, payload=b"GET /2 HTTP/1.1\r\n\r\n", seen=5)
    fin = caller.packet("FA", at=36, seen=10)
    opened = _SHAPED.pack(0, 0x12, -1, 0, 65535, 2) + bytes([2, 4, 5, 180, 3, 3, 14, 0])
    reply = _SHAPED.pack(0, 0x18, 0, 18, 500, 0) + b"reply"
    events = [
        (_CAPTURED, syn),
        (_SHAPED_ANSWER, opened),
        (_CAPTURED, first),
        (_SHAPED_ANSWER, reply),
        (_CAPTURED, second),
        (_SHAPED_ANSWER, _SHAPED.pack(0, 0x10, 5, 36, 0, 0)),
        (_PASSED, b"..."),
        (_SHAPED_ANSWER, _SHAPED.pack(0, 0x18, 5, 36, 500, 0) + b"reply"),
        (_CAPTURED, fin),
        (_SHAPED_ANSWER, _SHAPED.pack(0, 0x11, 10, 37, 500, 0)),
        (_PASSED, b"....."),
    ]
    heard = [
        (_CAPTURED, syn),
        (_CAPTURED, first),
        (_HEARD, b"\0\0\0"),
        (_HEARD, b"\0\1\5"),
        (_CAPTURED, second),
        (_HEARD, b"\0\1\5"),
        (_CAPTURED, fin),
        (_HEARD, b"\0\2\0"),
    ]
    v6 = wire.Segment(
        bytes.fromhex("20010db8000000000000000000000007"),
        40001,
        bytes.fromhex("20010db8000000000000000000000001"),
        ONLINE_PORT,
        77,
        5,
        wire.ACK,
        500,
    )
    words = [
        (_CAPTURED, wire.encode(replace(v6, flags=wire.SYN, mss=1440, seq=76))),
        (_CAPTURED, wire.encode(replace(v6, payload=b"hello"))),
        (_SHAPED_ANSWER, opened),
        (_SHAPED_ANSWER, reply),
        (_CAPTURED, wire.encode(v6)),
    ]
    lost = [(_CAPTURED, second), (_CAPTURED, first), (_PASSED, b"...."), (_CAPTURED, syn)]
    odd = [(_CAPTURED, packet) for packet in packets.segments()]
    found = [bytes([settings]) + joined(*events) for settings in (0, 1, 2, 3, 4, 32)]
    found += [b"\x08" + joined(*heard), b"\x0c" + joined(*heard), b"\x10" + joined(*words)]
    found += [b"\1" + joined(*lost), b"\0" + joined(*odd), b"\2" + joined(*events, *lost, *events)]
    return found  # fmt: skip


def _datagrams(data: bytes) -> None:
    """UDP: datagrams, fragments, anything; every packet and datagram has a reason."""
    counts = DatagramCounts()
    bugs: list[str] = []
    engine = DatagramEngine(
        DatagramConfig(max_flows=4, max_entries=6, copies=1 + (data[:1] > b"\x7f")),
        Recorder(counts),
        counts,
        transfers=Table(),
        sampling=Sampler(),
        on_bug=bugs.append,
    )
    for kind, what in pieces(data[1:]):
        if kind & 3 == 3:
            engine.now_ns += len(what) * SECOND
            engine.run_timers()
            continue
        length = len(what) + (3000 if kind & 64 else 0)
        engine.packet(exact(what), 0, len(what), length, engine.now_ns)
        assert not bugs, bugs[0]
        assert sum(counts.packet_drop_counts()) == counts.packets
    engine.close_all()
    assert not bugs, bugs[0]
    assert sum(counts.packet_drop_counts()) == counts.packets


def _datagram_inputs() -> list[bytes]:
    udp = [(0, packet) for packet in packets.segments()]
    parts = [(0, part) for part in packets.fragments()]
    return [
        b"\0" + joined(*udp, (3, bytes(40)), *udp),
        b"\xff" + joined(*parts, *udp, *parts[::-1]),
    ]


_ENDS = (ONLINE + struct.pack("!H", ONLINE_PORT), TARGET + struct.pack("!H", TARGET_PORT))

TARGETS = (
    Target("engine", _engine, _dialogues, words=_ENDS),
    Target("datagrams", _datagrams, _datagram_inputs, words=(struct.pack("!H", 53),)),
)
