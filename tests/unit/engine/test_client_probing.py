"""Zero windows: the probe timer, and what the target may do with a probe."""

from __future__ import annotations

import pytest

from tcpcopy.engine import replayed
from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.states import State
from tests.unit.engine.rig import MS, SECOND, START, Bench, established


def closed(size: int = 300, *, sent: int = 100) -> Bench:
    """A bench with `size` bytes released, `sent` of them acknowledged, and the window shut."""
    bench = established(window=sent)
    bench.say(size)
    assert bench.sent() == ([f"A 0+{sent} a0"] if sent else [])
    if sent:
        bench.hear(ack=sent, window=0)
    assert bench.sent() == []
    return bench


def test_probe_is_one_byte_after_the_time_out() -> None:
    bench = closed()
    assert bench.client.probing == 1
    bench.expect_at(200 * MS, ["A 100+1 a0"])


def test_window_shut_from_the_start_is_probed() -> None:
    bench = closed(sent=0)
    bench.expect_at(200 * MS, ["A 0+1 a0"])


def test_probes_back_off() -> None:
    bench = closed()
    at = 0
    for wait in (200, 400, 800, 1600):
        at += wait
        bench.expect_at(at * MS, ["A 100+1 a0"])


def test_no_probe_without_data_to_send() -> None:
    bench = established(window=100)
    bench.say(100)
    bench.sent()
    bench.hear(ack=100, window=0)
    assert bench.client.deadline_ns() == 0
    bench.expect_silence(60 * SECOND)


def test_window_that_opens_before_the_probe() -> None:
    bench = closed()
    bench.run_to(199 * MS)
    bench.hear(ack=100, window=1000)
    assert bench.sent() == ["PA 100+200 a0"]
    assert bench.client.probing == 0
    bench.hear(ack=300)
    bench.expect_silence(10 * SECOND)


def test_probe_that_is_refused_and_the_window_that_opens() -> None:
    bench = closed()
    bench.run_to(200 * MS)
    bench.sent()
    assert bench.hear(ack=100, window=0) == 0
    assert bench.sent() == []
    bench.hear(ack=100, window=1000)
    assert bench.sent() == ["PA 100+200 a0"]
    bench.hear(ack=300, window=1000)
    assert bench.client.acknowledged == 300
    bench.expect_silence(10 * SECOND)


def test_probe_that_is_accepted_and_the_window_stays_shut() -> None:
    """Byte by byte, then: each is progress."""
    bench = closed()
    at = 200 * MS
    for offset in (100, 101, 102):
        bench.expect_at(at, [f"A {offset}+1 a0"])
        bench.hear(ack=offset + 1, window=0)
        assert bench.client.backoff == 0
        at += 200 * MS
    bench.hear(ack=103, window=1000)
    assert bench.sent() == ["PA 103+197 a0"]


def test_probe_that_is_accepted_and_opens_the_window() -> None:
    bench = closed()
    bench.run_to(200 * MS)
    bench.sent()
    bench.hear(ack=101, window=1000)
    assert bench.sent() == ["PA 101+199 a0"]


def test_window_update_that_crosses_an_accepted_probe() -> None:
    """The update acknowledges less than the probe; the byte is sent again, and that is harmless."""
    bench = closed()
    bench.run_to(200 * MS)
    assert bench.sent() == ["A 100+1 a0"]
    bench.hear(ack=100, window=1000)
    assert bench.sent() == ["PA 100+200 a0"]
    assert bench.hear(ack=101, window=1000) == 0
    assert bench.client.snd_una == 101
    assert bench.hear(ack=300, window=1000) == 0
    assert bench.client.acknowledged == 300
    bench.expect_silence(10 * SECOND)


def test_acceptance_of_a_probe_that_was_taken_back() -> None:
    """The window opens and shuts again before anything went out, then the probe is acknowledged."""
    bench = established(window=100)
    bench.say(100)
    bench.sent()
    bench.say(200)
    bench.hear(ack=100, window=0)
    bench.run_to(200 * MS)
    assert bench.sent() == ["A 100+1 a0"]
    bench.client.cwnd = 0  # keeps the opening from being used
    bench.hear(ack=100, window=50)
    bench.hear(ack=100, window=0)
    assert bench.sent() == []
    assert bench.client.snd_nxt == 100
    assert bench.hear(ack=101, window=0) == 0
    assert (bench.client.snd_una, bench.client.snd_nxt) == (101, 101)


def test_answers_to_probes_are_no_duplicate_acknowledgements() -> None:
    bench = closed()
    bench.run_to(200 * MS)
    for _ in range(5):
        bench.hear(ack=100, window=0)
    assert bench.client.duplicate_acks == 0
    assert bench.client.recover == -1
    assert bench.sent() == ["A 100+1 a0"]


def test_probe_of_the_last_byte_and_the_fin_behind_it() -> None:
    bench = established(window=100)
    bench.say(101)
    bench.finish()
    assert bench.sent() == ["A 0+100 a0"]
    bench.hear(ack=100, window=0)
    bench.expect_at(200 * MS, ["PA 100+1 a0"])
    assert bench.client.state == State.ESTABLISHED
    bench.hear(ack=101, window=0)
    assert bench.sent() == ["FA 101 a0"]
    assert bench.client.state == State.FIN_WAIT_1
    bench.hear(ack=102, window=0)
    assert bench.client.fin_acknowledged == 1


def test_data_released_while_the_window_is_shut_wait() -> None:
    bench = closed()
    bench.say(50)
    bench.finish()
    assert bench.sent() == []
    bench.hear(ack=100, window=1000)
    assert bench.sent() == ["PA 100+200 a0", "PA 300+50 a0", "FA 350 a0"]


def test_window_that_shuts_with_data_out() -> None:
    """They are in flight: the retransmission timer runs, and turns to probing when they are in."""
    bench = established(window=1000)
    bench.say(1500)
    assert bench.sent() == ["A 0+1000 a0"]
    bench.hear(ack=0, window=0)
    assert bench.client.probing == 0
    bench.expect_at(200 * MS, ["A 0+1000 a0"])
    bench.hear(ack=1000, window=0)
    assert bench.client.probing == 1
    bench.expect_at(400 * MS, ["A 1000+1 a0"])


@pytest.mark.parametrize("window", [1, 99, 1000])
def test_any_open_window_ends_the_probing(window: int) -> None:
    bench = closed()
    bench.run_to(200 * MS)
    bench.sent()
    bench.hear(ack=100, window=window)
    assert (bench.client.probing, bench.client.backoff) == (0, 0)
    bench.sent()
    assert sum(len(segment.payload) for segment in bench.seen) == min(window, 200)


def test_target_that_keeps_its_window_shut_is_given_up_after_the_answer_time_out() -> None:
    bench = established(EngineConfig(answer_timeout_ns=5 * SECOND), window=0)
    bench.say(10)
    while bench.client.ended == replayed.RUNNING and bench.now < bench.client.deadline_ns():
        bench.run_to(bench.client.deadline_ns() - START)
        bench.hear(ack=0, window=0)
    assert bench.client.ended == replayed.ANSWER_TIMEOUT
