"""Flags are those of the header; the handler is a shape to fill."""

from __future__ import annotations

import pytest

from tcpcopy.packet import flags
from tcpcopy.packet.handler import PacketHandler
from tests.sim.model import wire


def test_flags_are_those_of_the_header() -> None:
    for name in ("FIN", "SYN", "RST", "PSH", "ACK", "URG"):
        assert getattr(flags, name) == getattr(wire, name)


def test_results_of_the_parser_differ() -> None:
    names = ("PARSED", "NOT_IP", "SHORT", "BAD_HEADER", "FRAGMENT", "NOT_TCP")
    assert [getattr(flags, name) for name in names] == list(range(6))


class Lengths(PacketHandler):
    """A handler that a test fills."""

    def packet(
        self, data: object, start: int, end: int, wire_length: int, timestamp_ns: int
    ) -> int:
        return end - start


def test_handler() -> None:
    with pytest.raises(NotImplementedError):
        PacketHandler().packet(b"", 0, 0, 0, 0)
    assert Lengths().packet(b"abc", 1, 3, 2, 0) == 2
