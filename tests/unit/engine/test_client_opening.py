"""The client opens: SYN, its repetition, what may come back, and what both sides agree on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tcpcopy.engine import replayed
from tcpcopy.engine.client import TcpClient
from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.outcome import Drop
from tcpcopy.engine.states import State
from tcpcopy.engine.syn import initial_number
from tests.sim.model import wire
from tests.unit.engine.rig import (
    CLIENT,
    MS,
    SECOND,
    START,
    TARGET,
    TARGET_ISS,
    Bench,
    established,
)

BAD_ACK = int(Drop.BAD_ACK)
BAD_STATE = int(Drop.BAD_STATE)


def opened(config: EngineConfig | None = None, *, rtt_ns: int = 0) -> Bench:
    """A bench in SYN-SENT; the SYN is out."""
    bench = Bench(config, rtt_ns=rtt_ns)
    bench.open()
    assert bench.sent() == ["S"]
    return bench


def syn_of(bench: Bench) -> wire.Segment:
    """The SYN that `bench` sends."""
    bench.open()
    assert bench.sent() == ["S"]
    return bench.seen[0]


# --- the SYN -------------------------------------------------------------------------------


def test_syn_carries_the_usual_options() -> None:
    syn = syn_of(Bench())
    assert (syn.mss, syn.window_scale, syn.sack_permitted) == (1460, 7, True)
    assert syn.timestamp is not None and syn.timestamp[1] == 0
    assert (syn.window, syn.ack, syn.flags) == (64240, 0, wire.SYN)


@pytest.mark.parametrize("port", [1, 32767, 32768, 65535])
def test_both_ports_count_for_the_initial_number(port: int) -> None:
    """Ports with their highest bit set are numbers like any other, in both builds."""
    bench = Bench()
    client = TcpClient(bench.context, bench.queue, CLIENT, port, TARGET, 65535)
    client.open(START)
    seed = bench.context.seed
    assert client.iss == initial_number(CLIENT, TARGET, port << 16 | 65535, seed, START)


@pytest.mark.parametrize("sack", [False, True])
@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("scale", [-1, 0, 14])
@pytest.mark.parametrize("mss", [536, 65495])
def test_syn_carries_the_clients_own_options(
    mss: int, scale: int, timestamps: bool, sack: bool
) -> None:
    bench = Bench()
    client = bench.client
    client.syn_mss = mss
    client.syn_wscale = scale
    client.syn_timestamps = timestamps
    client.syn_sack = sack
    client.syn_window = 4321
    syn = syn_of(bench)
    assert syn.mss == mss
    assert syn.window_scale == (None if scale < 0 else scale)
    assert (syn.timestamp is not None) == timestamps
    assert syn.sack_permitted == sack
    assert syn.window == 4321
    assert syn.options_length % 4 == 0


def test_initial_sequence_number_moves_with_time() -> None:
    first, second = Bench(), Bench()
    second.now += 4_000_000
    assert (syn_of(second).seq - syn_of(first).seq) & 0xFFFFFFFF == 1000


def test_initial_sequence_number_differs_by_connection_and_seed() -> None:
    plain, other_port, seeded = Bench(), Bench(), Bench(EngineConfig(seed=12345))
    other_port.client.port += 1
    other_port.open()
    iss = syn_of(plain).seq
    assert other_port.client.iss != iss
    assert syn_of(seeded).seq == (iss + 12345) & 0xFFFFFFFF


def test_syn_is_repeated_with_growing_gaps() -> None:
    bench = opened()
    bench.expect_at(1 * SECOND, ["S"])
    bench.expect_at(3 * SECOND, ["S"])
    bench.expect_at(7 * SECOND, ["S"])
    bench.expect_at(15 * SECOND, ["S"])
    assert bench.counts.retransmitted == 4
    assert bench.client.state == State.SYN_SENT


def test_connect_time_out_is_exact_and_silent() -> None:
    bench = opened(EngineConfig(connect_timeout_ns=2 * SECOND))
    bench.run_to(2 * SECOND - 1)
    assert bench.client.ended == replayed.RUNNING
    bench.run_to(2 * SECOND)
    assert bench.client.ended == replayed.CONNECT_TIMEOUT
    assert bench.client.state == State.CLOSED
    assert bench.client.deadline_ns() == 0
    assert bench.sent() == ["S"]  # of the first second


def test_syn_after_a_clock_that_began_at_zero() -> None:
    bench = Bench()
    bench.now = 0
    bench.open()
    assert bench.client.deadline_ns() == SECOND


# --- the answer ----------------------------------------------------------------------------


def test_syn_ack_is_acknowledged_a_moment_later() -> None:
    """A request that is sent meanwhile carries the acknowledgement instead."""
    bench = opened()
    bench.run_to(3 * MS)
    assert bench.accept() == 0
    assert bench.client.state == State.ESTABLISHED
    assert bench.client.established == 1
    assert bench.counts.established == 1
    bench.expect_at(4 * MS, ["A 0 a0"])
    assert bench.client.deadline_ns() == 0


def test_syn_ack_is_acknowledged_after_the_clients_round_trip_time() -> None:
    bench = opened(rtt_ns=40 * MS)
    bench.run_to(3 * MS)
    bench.accept()
    bench.expect_at(43 * MS, ["A 0 a0"])


def test_request_released_before_the_handshake_goes_with_its_last_segment() -> None:
    bench = opened()
    bench.say(100)
    assert bench.sent() == []
    bench.run_to(1 * MS)
    bench.accept()
    assert bench.sent() == ["PA 0+100 a0"]
    bench.expect_silence(50 * MS)


def test_refused() -> None:
    bench = opened()
    assert bench.hear("RA", -1, ack=0) == 0
    assert bench.client.ended == replayed.REFUSED
    assert bench.client.state == State.CLOSED
    assert bench.client.deadline_ns() == 0
    assert bench.sent() == []


@pytest.mark.parametrize(("letters", "ack"), [("RA", 1), ("RA", -1), ("R", 0)])
def test_reset_that_does_not_acknowledge_the_syn_is_ignored(letters: str, ack: int) -> None:
    bench = opened()
    assert bench.hear(letters, -1, ack=ack) == BAD_ACK
    assert bench.client.ended == replayed.RUNNING
    assert bench.sent() == []


def test_target_that_still_knows_an_older_connection_is_reset_and_asked_again() -> None:
    """RFC 9293 (3.5.2); a target in TIME-WAIT answers a SYN it cannot take with an ACK."""
    bench = opened()
    assert bench.hear("A", 7000, ack=5000) == BAD_ACK
    assert bench.sent() == ["R 5000", "S"]
    # Once in five milliseconds: two hosts must not answer each other without end.
    bench.run_to(5 * MS - 1)
    assert bench.hear("A", 7000, ack=5000) == BAD_ACK
    assert bench.sent() == []
    bench.run_to(5 * MS)
    assert bench.hear("A", 7000, ack=5000) == BAD_ACK
    assert bench.sent() == ["R 5000", "S"]
    bench.accept()
    assert bench.client.state == State.ESTABLISHED


def test_syn_ack_of_an_older_connection_does_not_establish() -> None:
    bench = opened()
    assert bench.hear("SA", -1, ack=99) == BAD_ACK
    assert bench.client.state == State.SYN_SENT
    assert bench.sent() == ["R 99", "S"]


def test_syn_without_an_acknowledgement_is_not_taken() -> None:
    bench = opened()
    assert bench.hear("S", -1) == BAD_ACK
    assert bench.sent() == []


def test_acknowledgement_without_a_syn_does_not_establish() -> None:
    bench = opened()
    assert bench.hear("A", 0, ack=0) == BAD_STATE
    assert bench.client.established == 0
    assert bench.sent() == []


def test_first_segment_of_the_target_sets_the_receive_sequence() -> None:
    bench = established()
    assert bench.client.irs == TARGET_ISS
    bench.hear("PA", 0, 300)
    assert bench.client.received == 300


# --- what was agreed on --------------------------------------------------------------------


def test_scale_is_used_when_both_offer_it() -> None:
    bench = established(scale=9, window=1000)
    assert (bench.client.snd_wscale, bench.client.rcv_wscale) == (9, 7)
    assert bench.client.snd_wnd == 1000  # never scaled on a SYN (RFC 7323, 2.2)
    bench.hear(window=1000)
    assert bench.client.snd_wnd == 512_000


def test_scale_is_not_used_when_the_target_does_not_offer_it() -> None:
    bench = established(scale=None)
    assert (bench.client.snd_wscale, bench.client.rcv_wscale) == (0, 0)


def test_scale_is_not_used_when_the_client_did_not_offer_it() -> None:
    bench = Bench()
    bench.client.syn_wscale = -1
    bench.open()
    bench.accept(scale=9)
    assert (bench.client.snd_wscale, bench.client.rcv_wscale) == (0, 0)
    bench.hear(window=1000)
    assert bench.client.snd_wnd == 1000


def test_timestamps_are_on_every_segment_when_both_offer_them() -> None:
    bench = established(timestamp=(777, 1))
    bench.say(10)
    bench.finish()
    assert bench.sent() == ["PA 0+10 a0", "FA 10 a0"]
    assert [segment.timestamp for segment in bench.seen] == [(START // MS, 777)] * 2


def test_timestamps_stay_away_when_the_target_does_not_offer_them() -> None:
    bench = established(timestamp=None)
    bench.say(10)
    bench.sent()
    assert bench.seen[0].timestamp is None


def test_timestamps_stay_away_when_the_client_did_not_offer_them() -> None:
    bench = Bench()
    bench.client.syn_timestamps = False
    bench.open()
    bench.accept(timestamp=(777, 0))
    bench.say(10)
    bench.sent()
    assert all(segment.timestamp is None for segment in bench.seen)


@pytest.mark.parametrize("offered", [False, True])
@pytest.mark.parametrize("asked", [False, True])
def test_sack_is_used_when_both_offer_it(asked: bool, offered: bool) -> None:
    bench = Bench()
    bench.client.syn_sack = asked
    bench.open()
    bench.accept(sack=offered)
    bench.client.send_ack(bench.now)
    bench.sent()
    bench.hear("A", 100, 50)
    expected = " sack 100-150" if asked and offered else ""
    assert bench.sent() == [f"A 0 a0{expected}"]


@pytest.mark.parametrize(
    ("mss", "mtu", "timestamp", "expected"),
    [
        (1460, 1500, None, 1460),
        (1460, 1500, (1, 0), 1448),
        (None, 1500, None, 536),  # RFC 9293 (3.7.1)
        (536, 1500, None, 536),
        (8960, 1500, None, 1460),
        (8960, 9000, None, 8960),
        (1460, 576, (1, 0), 524),
        (10, 1500, None, 48),  # no useful host offers less; keeps segments moving
    ],
)
def test_largest_segment(
    mss: int | None, mtu: int, timestamp: tuple[int, int] | None, expected: int
) -> None:
    bench = established(EngineConfig(mtu=mtu), mss=mss, timestamp=timestamp)
    assert bench.client.mss == expected
    bench.say(expected + 1)
    assert bench.sent() == [f"A 0+{expected} a0", f"PA {expected}+1 a0"]


def test_largest_segment_leaves_room_for_the_ipv6_header() -> None:
    bench = established(mss=1460, v6=True)
    assert bench.client.mss == 1440


def test_packets_of_a_full_segment_fill_the_mtu_and_no_more() -> None:
    for v6 in (False, True):
        bench = established(timestamp=(1, 0), v6=v6)
        bench.say(5000)
        bench.batch.flush()
        assert max(len(packet) for packet in bench.sink.packets) == 1500
        bench.sent()


# --- the first round-trip time -------------------------------------------------------------


@pytest.mark.parametrize(
    ("connect_ns", "expected_rto_ns"),
    [
        (10 * MS, 210 * MS),  # RFC 6298 (2.2) with Linux's floor under the variance
        (100 * MS, 300 * MS),
        (400 * MS, 1200 * MS),
    ],
)
def test_handshake_sets_the_time_out(connect_ns: int, expected_rto_ns: int) -> None:
    bench = established(connect_ns=connect_ns)
    assert bench.client.rto_ns == expected_rto_ns
    bench.say(10)
    bench.sent()
    bench.expect_at(connect_ns + expected_rto_ns, ["PA 0+10 a0"])


def test_handshake_with_a_repeated_syn_is_no_sample() -> None:
    """Nobody knows which SYN was answered (Karn's rule)."""
    bench = opened()
    bench.run_to(1 * SECOND)
    assert bench.sent() == ["S"]
    bench.run_to(1001 * MS)
    bench.accept()
    assert bench.client.srtt_ns == 0
    assert bench.client.rto_ns == 1 * SECOND
    assert bench.client.backoff == 0


def test_syn_ack_again_is_acknowledged_again() -> None:
    """Our acknowledgement was lost: the target repeats its SYN-ACK."""
    bench = established()
    bench.run_to(1 * SECOND)
    assert bench.accept() == int(Drop.DUPLICATE)
    assert bench.sent() == ["A 0 a0"]
    assert bench.client.state == State.ESTABLISHED


def test_syn_ack_with_data_is_established_and_its_data_come_again() -> None:
    """Data of a SYN-ACK (RFC 7413) are not counted: they are not acknowledged, and sent again."""
    bench = opened()
    iss = bench.client.iss
    segment = replace(
        bench.target, seq=TARGET_ISS, ack=iss + 1, flags=wire.SYN | wire.ACK, payload=b"hello"
    )
    assert bench.feed(segment) == 0
    bench.client.send_ack(bench.now)
    assert bench.sent() == ["A 0 a0"]
    bench.hear("PA", 0, 5)
    assert bench.client.received == 5


def test_addresses_and_ports_are_the_mapped_ones() -> None:
    bench = opened()
    assert bench.seen[0].source == CLIENT
    assert bench.seen[0].key == (bench.local, 40001, bench.remote, 8080)
