"""The floor's copy: the same segment, addressed to the target; nothing else counts as one."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.builds import MODES, Build
from benchmarks.copier import LINK_MODES
from benchmarks.floor.copying import CopyHandler, Nowhere, make_sender
from benchmarks.floor.scenario import Floor
from benchmarks.metrics import METRICS
from tcpcopy.mapping.transfers import TransferTable
from tcpcopy.packet.batch import PacketBatch
from tests.sim.model import wire

CLIENT, ONLINE, TARGET = bytes((10, 0, 0, 5)), bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
SEGMENT = wire.Segment(
    CLIENT, 40_000, ONLINE, 80, seq=7, ack=9, flags=0x18, window=500, payload=b"request"
)


def test_copy_is_addressed_to_the_target() -> None:
    batch = PacketBatch(Nowhere())
    handler = CopyHandler(batch, TARGET, 8080)
    packet = wire.encode(SEGMENT)
    assert handler.packet(packet, 0, len(packet), len(packet), 1) == 0
    copy = wire.decode(batch.packet(0))  # with its checksums verified
    assert copy == replace(SEGMENT, destination=TARGET, destination_port=8080)


def test_what_is_no_segment_is_left_out() -> None:
    batch = PacketBatch(Nowhere())
    assert CopyHandler(batch, TARGET, 8080).packet(b"\x45" + bytes(30), 0, 31, 31, 1) == 1
    assert batch.count == 0


def test_nothing_is_sent_where_only_the_capture_counts() -> None:
    batch = PacketBatch(make_sender("none", "eth0", TransferTable(())))
    batch.tcp(CLIENT, 1, TARGET, 2, 0, 0, 2, 0, 0, 0, 0, b"", b"", 0, 0)
    batch.flush()
    assert batch.count == 0 and not batch.sink.errors  # type: ignore[attr-defined]


def test_modes() -> None:
    """The C pair has one; frames are sent with and without the device cutting segments."""
    ours = Build("compiled", (), (), {})
    assert ours.modes == MODES and set(LINK_MODES) < set(MODES)
    assert Build("c", (), (), {}, is_c=True).modes == ("classic",)


def test_floor_measures_what_has_a_name() -> None:
    assert {name for columns in Floor.tables for name in columns} <= METRICS.keys()
    assert len(set(Floor.own_modes)) == 6
