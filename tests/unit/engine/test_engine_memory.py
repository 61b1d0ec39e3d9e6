"""What has ended is freed at once, without the garbage collector."""

from __future__ import annotations

import errno
import gc
from collections.abc import Iterator

import pytest

from tcpcopy.engine.chunk import Chunk
from tcpcopy.engine.client import TcpClient
from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.kernel import KernelClient
from tcpcopy.engine.session import Session
from tests.unit.engine.rig import SECOND
from tests.unit.engine.test_engine_sockets import sockets
from tests.unit.engine.world import Answerer, Caller, World

KINDS = (Session, TcpClient, KernelClient, Chunk)


def alive() -> dict[str, int]:
    """Objects of the engine that exist, by class; without those that are none."""
    found: dict[str, int] = {}
    for item in gc.get_objects():
        if isinstance(item, KINDS):
            name = type(item).__name__
            found[name] = found.get(name, 0) + 1
    return found


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    """Cycles are not broken for us; what earlier tests left is gone first."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_sessions_that_ended_in_every_way() -> None:
    before = alive()
    world = World(EngineConfig(idle_timeout_ns=20 * SECOND, hole_timeout_ns=SECOND), copies=2)
    target = Answerer(world, "OK")
    for number, end in enumerate(("fin", "rst", "hole", "idle", "deaf", "early") * 3):
        caller = Caller(world, 40000 + 10 * number)
        if end == "deaf":
            target.deaf |= {caller.blank.source_port, caller.blank.source_port + 1}
        caller.connect()
        for _ in range(5):
            caller.say("request", seen=caller.seen)
            target.settle()
            caller.seen += 2
        if end == "fin":
            caller.fin()
        elif end == "rst":
            caller.rst()
        elif end == "hole":
            caller.give("PA", at=1000, payload=b"late")
        target.settle()
    assert alive()["Session"] == before.get("Session", 0) + world.counts.live + len(
        [item for item in world.engine.timers.items() if item.lingers]  # type: ignore[attr-defined]
    )
    for _ in range(40):
        world.run_to(world.now + SECOND)
        target.settle()
    world.check_ended()
    assert alive() == before


def test_sessions_with_kernel_sockets() -> None:
    before = alive()
    world, transport = sockets()
    for number in range(4):
        caller = Caller(world, 40000 + number)
        caller.connect()
        if number < 3:
            transport.accept(number)
            caller.say("request")
        if number == 0:
            caller.fin()
            transport.end(number)
        elif number == 1:
            caller.rst()
        elif number == 2:
            transport.fail(errno.ECONNRESET, number)
        else:
            transport.accept(number, error=errno.ECONNREFUSED)
    world.check_ended()
    transport.clients.clear()
    del caller
    assert alive() == before


def test_sessions_at_exit() -> None:
    before = alive()
    world = World()
    target = Answerer(world)
    for number in range(5):
        caller = Caller(world, 40000 + number)
        caller.connect()
        caller.say("x" * 5000)
        if number % 2:
            target.settle()
    world.engine.close_all()
    world.run_to(5 * SECOND)
    world.check_ended()
    assert alive() == before


def test_acknowledged_chunks() -> None:
    before = alive()
    world = World()
    target = Answerer(world)
    caller = Caller(world)
    caller.connect()
    for _ in range(200):
        caller.say("request")
        target.settle()
    held = alive().get("Chunk", 0) - before.get("Chunk", 0)
    assert held <= 2, f"{held} chunks are held that the target has acknowledged"
