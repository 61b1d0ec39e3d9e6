"""How far away the client is: from the handshake, echoes of the server's clock, and reactions."""

from __future__ import annotations

import pytest

from tcpcopy.engine.context import Context, EngineConfig
from tcpcopy.engine.round_trip import ECHO_FLOOR_NS, MAX_RTT_NS, RTT_FLOOR_NS, MeasuredHalf
from tcpcopy.packet.batch import PacketBatch
from tcpcopy.packet.segment import Segment
from tests.unit.engine.rig import MS, SECOND, CollectingSink

START = 5_000 * SECOND
SERVER_CLOCK = 0xFFFFFFF0  # wraps soon


class Far:
    """A captured half; times are nanoseconds since its SYN, the server's clock runs with them."""

    def __init__(self, *, rtt_ns: int = 0, speed: float = 1.0, ticks_per_s: int = 1000) -> None:
        config = EngineConfig(rtt_ns=rtt_ns, speed=speed)
        self.half = MeasuredHalf(Context(config, PacketBatch(CollectingSink())))
        self.half.syn_ns = START
        self.ticks_per_s = ticks_per_s
        self.speed = speed

    def segment(self, echoed_ns: int | None) -> Segment:
        """One that echoes what the server's clock showed then."""
        segment = Segment()
        if echoed_ns is not None:
            segment.timestamp_present = 1
            ticks = echoed_ns * self.ticks_per_s // SECOND
            segment.timestamp_echo = (SERVER_CLOCK + ticks) & 0xFFFFFFFF
        return segment

    def shaken(self, rtt_ns: int, *, timestamps: bool = True) -> Far:
        """The handshake took so long."""
        at = START + int(rtt_ns / self.speed)
        told = self.half.note_handshake(self.segment(0 if timestamps else None), at)
        assert told == (RTT_FLOOR_NS <= rtt_ns <= MAX_RTT_NS)
        return self

    def sends(self, at_ns: int, *, echo_of_ns: int) -> None:
        """The client's segment arrives, which echoes what the server had sent then."""
        assert self.half.wants_options()
        self.half.note_echo(self.segment(echo_of_ns), START + int(at_ns / self.speed))


@pytest.mark.parametrize(
    ("took_ns", "rtt_ns"),
    [
        (RTT_FLOOR_NS - 1, 0),
        (RTT_FLOOR_NS, RTT_FLOOR_NS),
        (MAX_RTT_NS, MAX_RTT_NS),
        (MAX_RTT_NS + 1, 0),
    ],
)
def test_handshake_tells_first(took_ns: int, rtt_ns: int) -> None:
    far = Far().shaken(took_ns, timestamps=False)
    assert far.half.rtt_ns == far.half.client_rtt_ns == rtt_ns
    assert not far.half.wants_options()


def test_echo_of_a_later_segment_corrects_a_slow_handshake() -> None:
    """It took 300 ms (a radio woke up); later the client answers in 60."""
    far = Far().shaken(300 * MS)
    far.sends(1_060 * MS, echo_of_ns=1_000 * MS)
    assert far.half.rtt_ns == far.half.client_rtt_ns == 60 * MS


def test_thinking_is_no_distance() -> None:
    far = Far().shaken(50 * MS)
    far.sends(10 * SECOND, echo_of_ns=2 * SECOND)
    assert far.half.rtt_ns == 50 * MS


def test_what_is_within_a_tick_is_no_correction() -> None:
    far = Far().shaken(50 * MS)
    far.sends(1_049 * MS, echo_of_ns=1_000 * MS)
    assert far.half.rtt_ns == 50 * MS


def test_round_trip_never_falls_below_a_tick() -> None:
    far = Far().shaken(50 * MS)
    far.sends(1_000 * MS, echo_of_ns=1_000 * MS)
    assert far.half.rtt_ns == far.half.client_rtt_ns == 1 * MS


@pytest.mark.parametrize("ticks_per_s", [100, 250])
def test_slow_clock_corrects_nothing(ticks_per_s: int) -> None:
    far = Far(ticks_per_s=ticks_per_s).shaken(300 * MS)
    far.sends(2 * SECOND, echo_of_ns=1_940 * MS)
    assert far.half.rtt_ns == 300 * MS


@pytest.mark.parametrize("ticks_per_s", [10_000, 1_000_000])
def test_fast_clock_is_found_out(ticks_per_s: int) -> None:
    far = Far(ticks_per_s=ticks_per_s).shaken(300 * MS)
    far.sends(2 * SECOND, echo_of_ns=1_940 * MS)
    assert far.half.rtt_ns == 300 * MS
    assert not far.half.wants_options()


def test_near_client_needs_no_echo() -> None:
    far = Far().shaken(ECHO_FLOOR_NS - 1)
    assert not far.half.wants_options()


def test_segment_without_timestamps_tells_nothing() -> None:
    far = Far().shaken(300 * MS)
    far.half.note_echo(far.segment(None), START + SECOND)
    assert far.half.rtt_ns == 300 * MS


def test_recorded_four_times_as_fast() -> None:
    """What is put back is as fast as the file is shown; what is known is as captured."""
    far = Far(speed=4.0).shaken(400 * MS)
    assert (far.half.rtt_ns, far.half.client_rtt_ns) == (100 * MS, 400 * MS)
    far.sends(1_080 * MS, echo_of_ns=1_000 * MS)
    assert (far.half.rtt_ns, far.half.client_rtt_ns) == (20 * MS, 80 * MS)


def test_asked_for_is_put_back_whatever_is_seen() -> None:
    far = Far(rtt_ns=200 * MS).shaken(300 * MS)
    far.sends(1_060 * MS, echo_of_ns=1_000 * MS)
    far.half.note_reaction(10 * MS)
    assert (far.half.rtt_ns, far.half.client_rtt_ns) == (200 * MS, 60 * MS)


@pytest.mark.parametrize(
    ("gap_ns", "rtt_ns"),
    [(400 * MS, 300 * MS), (100 * MS, 100 * MS), (RTT_FLOOR_NS - 1, 0)],
)
def test_reaction_contains_a_round_trip(gap_ns: int, rtt_ns: int) -> None:
    far = Far().shaken(300 * MS, timestamps=False)
    far.half.note_reaction(gap_ns)
    assert far.half.rtt_ns == rtt_ns
