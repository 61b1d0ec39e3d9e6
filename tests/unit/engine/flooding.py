"""Worlds in which a SYN alone may not be enough, and those who send nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from tcpcopy.engine.context import EngineConfig
from tests.unit.engine.rig import SECOND
from tests.unit.engine.world import Caller, World


def world_of(config: EngineConfig | None = None, ahead: int = 1, **arguments: object) -> World:
    """A world that sees acknowledgements and opens so many sessions ahead."""
    world = World(config, **arguments)  # type: ignore[arg-type]
    world.engine.note_acks(True, 0)
    world.engine.ahead_most = ahead
    return world


def strangers(world: World, first: int = 1, count: int = 10_000) -> Iterator[Caller]:
    """Clients that send nothing but a SYN."""
    for number in range(first, first + count):
        address = bytes((10, 200 + (number >> 16), number >> 8 & 255, number & 255))
        yield Caller(world, 20000 + number % 40000, isn=number * 77, address=address)


def flood(world: World, seconds: int, rate: int = 300, first: int = 1) -> None:
    """SYNs of nobody, evenly over so many seconds."""
    attackers = strangers(world, first)
    begin = world.now
    for index in range(seconds * rate):
        world.run_to(begin + index * SECOND // rate)
        assert next(attackers).syn() == 0
    world.run_to(begin + seconds * SECOND)
