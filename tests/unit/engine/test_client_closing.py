"""The client closes: FIN first, last and at once, and what comes after the end."""

from __future__ import annotations

import pytest

from tcpcopy.engine import replayed
from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.outcome import Drop
from tcpcopy.engine.states import State
from tests.unit.engine.rig import MS, SECOND, Bench, established

DUPLICATE = int(Drop.DUPLICATE)
BAD_STATE = int(Drop.BAD_STATE)


def state(bench: Bench) -> State:
    """The client's state, by name in failures."""
    return State(bench.client.state)


def fin_wait_1(**arguments: int) -> Bench:
    """The client has sent 10 bytes and its FIN; nothing is acknowledged."""
    bench = established(**arguments)  # type: ignore[arg-type]
    bench.say(10)
    bench.finish()
    assert bench.sent() == ["PA 0+10 a0", "FA 10 a0"]
    return bench


def fin_wait_2(config: EngineConfig | None = None) -> Bench:
    """The target has acknowledged the client's FIN."""
    bench = established(config)
    bench.finish()
    assert bench.sent() == ["FA 0 a0"]
    bench.hear(ack=1)
    assert state(bench) is State.FIN_WAIT_2
    return bench


def close_wait() -> Bench:
    """The target has closed, and that is acknowledged."""
    bench = established()
    bench.hear("FA", 0)
    assert bench.sent() == ["A 0 a1"]
    assert state(bench) is State.CLOSE_WAIT
    return bench


# --- the client first ----------------------------------------------------------------------


def test_client_first() -> None:
    bench = fin_wait_1()
    assert state(bench) is State.FIN_WAIT_1
    bench.hear(ack=11)
    assert state(bench) is State.FIN_WAIT_2
    assert bench.client.fin_acknowledged == 1
    assert bench.client.ended == replayed.RUNNING
    bench.hear("FA", 0, ack=11)
    assert bench.sent() == ["A 11 a1"]
    assert bench.client.ended == replayed.CLOSED
    assert state(bench) is State.CLOSED
    assert bench.client.deadline_ns() == 0


def test_client_first_and_the_target_acknowledges_with_its_fin() -> None:
    bench = fin_wait_1()
    bench.hear("FA", 0, ack=11)
    assert bench.sent() == ["A 11 a1"]
    assert bench.client.ended == replayed.CLOSED


def test_client_first_and_the_target_still_answers() -> None:
    bench = fin_wait_1()
    bench.hear(ack=11)
    bench.hear("PA", 0, 500, ack=11)
    bench.run_to(1 * MS)
    assert bench.sent() == ["A 11 a500"]
    bench.hear("FPA", 500, 20, ack=11)
    assert bench.sent() == ["A 11 a521"]
    assert bench.client.ended == replayed.CLOSED
    assert bench.counts.answer_bytes == 520


def test_target_acknowledges_the_data_but_not_the_fin() -> None:
    bench = fin_wait_1()
    bench.hear(ack=10)
    assert state(bench) is State.FIN_WAIT_1
    assert bench.client.fin_acknowledged == 0
    bench.expect_at(200 * MS, ["FA 10 a0"])


def test_nothing_is_sent_after_the_fin() -> None:
    bench = fin_wait_2()
    bench.client.transmit(bench.now)
    bench.expect_silence(59 * SECOND)


def test_target_that_never_closes_is_left_after_the_close_time_out() -> None:
    bench = fin_wait_2(EngineConfig(close_timeout_ns=2 * SECOND))
    bench.run_to(2 * SECOND - 1)
    assert bench.client.ended == replayed.RUNNING
    assert bench.sent() == []
    bench.run_to(2 * SECOND)
    assert bench.client.ended == replayed.CLOSED
    assert bench.sent() == ["RA 1 a0"]


def test_target_that_still_sends_is_not_left() -> None:
    bench = fin_wait_2(EngineConfig(close_timeout_ns=2 * SECOND))
    bench.run_to(1500 * MS)
    bench.hear("PA", 0, 10, ack=1)
    bench.run_to(3500 * MS - 1)
    assert bench.client.ended == replayed.RUNNING
    bench.run_to(3500 * MS)
    assert bench.client.ended == replayed.CLOSED


# --- the target first ----------------------------------------------------------------------


def test_target_first() -> None:
    bench = close_wait()
    bench.finish()
    assert bench.sent() == ["FA 0 a1"]
    assert state(bench) is State.LAST_ACK
    assert bench.client.ended == replayed.RUNNING
    bench.hear("A", 1, ack=1)
    assert bench.client.ended == replayed.CLOSED
    assert bench.client.fin_acknowledged == 1
    assert bench.client.deadline_ns() == 0


def test_target_first_and_data_still_to_send() -> None:
    bench = close_wait()
    bench.say(100)
    bench.finish()
    assert bench.sent() == ["PA 0+100 a1", "FA 100 a1"]
    bench.hear("A", 1, ack=100)
    assert state(bench) is State.LAST_ACK
    bench.hear("A", 1, ack=101)
    assert bench.client.ended == replayed.CLOSED
    assert bench.counts.bytes_delivered == 100


def test_last_fin_is_sent_again() -> None:
    bench = close_wait()
    bench.finish()
    bench.sent()
    bench.expect_at(200 * MS, ["FA 0 a1"])


def test_target_that_resets_instead_of_acknowledging_the_last_fin() -> None:
    bench = close_wait()
    bench.finish()
    bench.hear("RA", 1, ack=0)
    assert bench.client.ended == replayed.RESET_AT_END


# --- both at once --------------------------------------------------------------------------


@pytest.mark.parametrize("rtt_ns", [0, 40 * MS])
def test_simultaneous_close(rtt_ns: int) -> None:
    """The target's FIN is acknowledged before the connection is let go, whatever the round trip."""
    bench = fin_wait_1(rtt_ns=rtt_ns)
    bench.hear("FA", 0, ack=0)
    assert state(bench) is State.CLOSING
    assert bench.client.ended == replayed.RUNNING
    bench.hear("A", 1, ack=11)
    assert bench.client.ended == replayed.CLOSED
    assert bench.sent() == ["A 11 a1"]


def test_simultaneous_close_with_our_fin_lost() -> None:
    bench = fin_wait_1()
    bench.hear("FA", 0, ack=0)
    assert bench.sent() == ["A 11 a1"]
    bench.expect_at(200 * MS, ["PA 0+10 a1"])
    bench.hear("A", 1, ack=10)
    assert bench.sent() == ["FA 10 a1"]
    assert state(bench) is State.CLOSING
    bench.hear("A", 1, ack=11)
    assert bench.client.ended == replayed.CLOSED


# --- after the end -------------------------------------------------------------------------


def lingering() -> Bench:
    """Closed in good order; the session is over."""
    bench = fin_wait_1()
    bench.hear("FA", 0, ack=11)
    bench.sent()
    assert bench.client.linger(bench.now) == 0
    bench.run_to(10 * MS)
    return bench


def after(bench: Bench, letters: str, at: int, size: int = 0, ack: int = 0) -> int:
    """A late segment; the session is gone, so nothing is transmitted after it."""
    bench.client.queue = bench.queue
    return bench.hear(letters, at, size, ack=ack)


def test_fin_that_comes_again_after_the_end_is_acknowledged() -> None:
    """Our last ACK was lost: without an answer the target would stay in LAST-ACK."""
    bench = lingering()
    assert after(bench, "FA", 0, ack=11) == DUPLICATE
    assert bench.sent() == ["A 11 a1"]
    assert after(bench, "FA", 0, ack=11) == DUPLICATE
    assert bench.sent() == []
    bench.run_to(15 * MS)
    after(bench, "FA", 0, ack=11)
    assert bench.sent() == ["A 11 a1"]


def test_pure_acknowledgement_after_the_end_is_not_answered() -> None:
    bench = lingering()
    assert after(bench, "A", 1, ack=11) == DUPLICATE
    assert bench.sent() == []


def test_reset_after_the_end_is_not_answered() -> None:
    bench = lingering()
    assert after(bench, "RA", 1, ack=11) == BAD_STATE
    assert bench.sent() == []


def test_segment_after_a_reset_is_reset() -> None:
    bench = established()
    bench.reset()
    bench.sent()
    bench.client.linger(bench.now)
    bench.run_to(10 * MS)
    assert after(bench, "PA", 0, 100, ack=0) == BAD_STATE
    assert bench.sent() == ["R 0"]
    bench.run_to(15 * MS - 1)
    assert after(bench, "PA", 0, 100, ack=0) == BAD_STATE
    assert bench.sent() == []
    bench.run_to(15 * MS)
    assert after(bench, "PA", 0, 100, ack=0) == BAD_STATE
    assert bench.sent() == ["R 0"]


def test_syn_ack_after_the_connect_time_out_is_reset() -> None:
    bench = Bench(EngineConfig(connect_timeout_ns=SECOND // 2))
    bench.open()
    bench.sent()
    bench.run_to(600 * MS)
    assert bench.client.linger(bench.now) == 0
    bench.client.queue = bench.queue
    assert bench.accept() == BAD_STATE
    assert bench.sent() == ["R 0"]


@pytest.mark.parametrize(
    ("ended", "forgotten"),
    [
        (replayed.CLOSED, 0),
        (replayed.RESET_SENT, 0),
        (replayed.CONNECT_TIMEOUT, 0),
        (replayed.ANSWER_TIMEOUT, 0),
        (replayed.REFUSED, 1),
        (replayed.RESET_BY_TARGET, 1),
    ],
)
def test_what_need_not_be_kept(ended: int, forgotten: int) -> None:
    """A target that has reset the connection will not speak of it again."""
    bench = established()
    bench.client.ended = ended
    assert bench.client.linger(bench.now) == forgotten
    assert bench.client.cursor is None
    assert bench.client.queue is None
