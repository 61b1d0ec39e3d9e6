"""What the client sends where a device cuts: several segments in one packet, accounts the same."""

from __future__ import annotations

import pytest

from tests.sim.model import wire
from tests.unit.engine.rig import MS, Bench, established

LARGEST = 60_000


def cutting(largest: int = LARGEST) -> Bench:
    bench = established()
    bench.batch.largest = largest
    return bench


def packets(bench: Bench) -> list[tuple[int, int]]:
    """(payload bytes, part size) of each packet sent since the last call."""
    found = [
        (len(wire.decode(bench.batch.packet(n), verify=False).payload), bench.batch.part_size(n))
        for n in range(bench.batch.count)
    ]
    bench.batch.flush()
    bench.sink.packets.clear()
    return found


def test_as_much_as_the_congestion_window_allows() -> None:
    """Ten segments in one packet, counted as ten; the eleventh waits."""
    bench = cutting()
    sent = bench.counts.segments_sent
    bench.say(50_000)
    assert packets(bench) == [(14_600, 1460)]
    assert bench.counts.segments_sent == sent + 10
    assert bench.client.snd_nxt == 14_600


def test_a_chunk_that_fits_goes_whole_with_its_short_end() -> None:
    bench = cutting()
    bench.say(3000)
    assert packets(bench) == [(3000, 1460)]
    bench.say(1460)
    assert packets(bench) == [(1460, 0)]


def test_whole_segments_up_to_the_targets_window() -> None:
    """A window of 5,000 bytes: three segments; what is left of it is no segment."""
    bench = cutting()
    bench.hear(window=5000)
    bench.say(50_000)
    assert packets(bench) == [(4380, 1460)]


@pytest.mark.parametrize("largest", [1, 1460, 2539])
def test_a_device_that_takes_less_than_two_segments(largest: int) -> None:
    bench = cutting(largest)
    bench.say(4000)
    assert packets(bench) == [(1460, 0), (1460, 0), (1080, 0)]


def test_more_than_one_packet_of_the_largest() -> None:
    bench = cutting(6000)
    bench.say(14_600)
    assert packets(bench) == [(5840, 1460), (5840, 1460), (2920, 1460)]


def test_what_is_lost_is_sent_again_by_the_segment() -> None:
    """The second of ten segments is lost: it alone is sent again, as it was on the wire."""
    bench = cutting()
    bench.say(14_600)
    packets(bench)
    for _ in range(3):
        bench.hear(ack=1460)
    bench.hear(ack=1460)
    assert packets(bench) == [(1460, 0)]
    assert bench.counts.retransmitted == 1
    bench.hear(ack=14_600)
    assert bench.client.snd_una == 14_600


def test_time_out_sends_one_segment() -> None:
    bench = cutting()
    bench.say(14_600)
    packets(bench)
    bench.run_to(3_000 * MS)
    again = packets(bench)
    assert again and set(again) == {(1460, 0)}


def test_round_trip_is_that_of_the_first_segment() -> None:
    """The packet's first segment is timed, not its last, which the target gets later."""
    bench = cutting()
    bench.say(14_600)
    assert bench.client.rtt_offset == 1460
