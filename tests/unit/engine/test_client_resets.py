"""Resets: the client's, replayed after all that came before it, and the target's."""

from __future__ import annotations

import pytest

from tcpcopy.engine import replayed
from tcpcopy.engine.outcome import Drop
from tcpcopy.engine.states import State
from tests.unit.engine.rig import MS, SECOND, Bench, established

OUT_OF_WINDOW = int(Drop.OUT_OF_WINDOW)


# --- the client's --------------------------------------------------------------------------


def test_reset_of_an_idle_connection() -> None:
    bench = established()
    bench.reset()
    assert bench.sent() == ["RA 0 a0"]
    assert bench.client.ended == replayed.RESET_SENT
    assert bench.client.state == State.CLOSED


def test_reset_is_repeated_twice_against_loss() -> None:
    bench = established()
    bench.reset()
    bench.sent()
    bench.expect_at(20 * MS, ["RA 0 a0"])
    bench.expect_at(100 * MS, ["RA 0 a0"])
    assert bench.client.deadline_ns() == 0
    bench.expect_silence(10 * SECOND)


def test_reset_waits_until_the_data_before_it_are_acknowledged() -> None:
    """Else the target would drop what its application has not read yet."""
    bench = established()
    bench.say(100)
    bench.reset()
    assert bench.sent() == ["PA 0+100 a0"]
    bench.hear(ack=99)
    assert bench.sent() == []
    bench.hear(ack=100)
    assert bench.sent() == ["RA 100 a0"]
    assert bench.client.ended == replayed.RESET_SENT


def test_reset_waits_while_data_are_lost() -> None:
    bench = established()
    bench.say(100)
    bench.reset()
    bench.sent()
    bench.expect_at(200 * MS, ["PA 0+100 a0"])
    bench.hear(ack=100)
    assert bench.sent() == ["RA 100 a0"]


def test_reset_after_the_fin_waits_for_its_acknowledgement() -> None:
    bench = established()
    bench.say(10)
    bench.finish()
    bench.reset()
    assert bench.sent() == ["PA 0+10 a0", "FA 10 a0"]
    bench.hear(ack=10)
    assert bench.sent() == []
    bench.hear(ack=11)
    assert bench.sent() == ["RA 11 a0"]
    assert bench.client.ended == replayed.RESET_SENT


def test_reset_that_is_not_released_waits() -> None:
    bench = established()
    bench.say(10, release=False)
    bench.reset()  # releases the data only
    assert bench.sent() == ["PA 0+10 a0"]
    bench.hear(ack=10)
    assert bench.sent() == []
    bench.release()
    assert bench.sent() == ["RA 10 a0"]


def test_reset_right_after_the_handshake_completes_it_first() -> None:
    """A target that never saw the handshake's last segment would count no connection."""
    bench = Bench()
    bench.open()
    bench.reset()
    assert bench.sent() == ["S"]
    bench.accept()
    assert bench.sent() == ["A 0 a0", "RA 0 a0"]
    assert bench.client.ended == replayed.RESET_SENT


def test_reset_acknowledges_what_came() -> None:
    bench = established(rtt_ns=50 * MS)
    bench.hear("PA", 0, 100)
    bench.reset()
    assert bench.sent() == ["A 0 a100", "RA 0 a100"]


# --- giving up -----------------------------------------------------------------------------


def test_abort_resets_at_once() -> None:
    bench = established()
    bench.say(100)
    bench.sent()
    bench.client.abort(bench.now)
    assert bench.sent() == ["RA 100 a0"]
    assert bench.client.ended == replayed.RESET_SENT


def test_abort_before_the_handshake_says_nothing() -> None:
    bench = Bench()
    bench.open()
    bench.sent()
    bench.client.abort(bench.now)
    assert bench.client.ended == replayed.RESET_SENT
    bench.expect_silence(10 * SECOND)


def test_abort_after_the_end_changes_nothing() -> None:
    bench = established()
    bench.hear("RA", 0, ack=0)
    bench.client.abort(bench.now)
    assert bench.client.ended == replayed.RESET_BY_TARGET
    assert bench.sent() == []


# --- the target's --------------------------------------------------------------------------


def test_target_resets() -> None:
    bench = established()
    bench.say(100)
    bench.sent()
    assert bench.hear("R", 0) == 0
    assert bench.client.ended == replayed.RESET_BY_TARGET
    assert bench.client.state == State.CLOSED
    assert bench.client.deadline_ns() == 0
    bench.expect_silence(10 * SECOND)


@pytest.mark.parametrize("at", [-1, 0, 1, 65535])
def test_reset_within_the_window_is_taken(at: int) -> None:
    """Answers before it may have been lost by the relay, so it need not be exact."""
    bench = established()
    assert bench.hear("RA", at, ack=0) == 0
    assert bench.client.ended == replayed.RESET_BY_TARGET


@pytest.mark.parametrize("at", [-2, -70_000, 65536, 1 << 30])
def test_reset_out_of_the_window_is_dropped(at: int) -> None:
    bench = established()
    assert bench.hear("RA", at, ack=0) == OUT_OF_WINDOW
    assert bench.client.ended == replayed.RUNNING
    assert bench.sent() == []


def test_reset_with_the_number_that_was_acknowledged_last() -> None:
    """A host that knows of no connection takes its number from our acknowledgement."""
    bench = established(rtt_ns=50 * MS)
    bench.hear("PA", 0, 1000)
    assert bench.client.ack_pending_bytes == 1000
    assert bench.hear("R", 0) == 0
    assert bench.client.ended == replayed.RESET_BY_TARGET


def test_reset_with_an_older_number_is_dropped() -> None:
    bench = established()
    bench.hear("PA", 0, 1000)
    bench.run_to(1 * MS)
    assert bench.hear("R", 0) == OUT_OF_WINDOW
    assert bench.client.ended == replayed.RUNNING


def test_reset_after_the_clients_fin_was_acknowledged_is_no_loss() -> None:
    """Everything has arrived; the target is only impolite."""
    bench = established()
    bench.finish()
    bench.hear(ack=1)
    assert bench.hear("RA", 0, ack=1) == 0
    assert bench.client.ended == replayed.RESET_AT_END


def test_reset_that_acknowledges_the_clients_fin_is_no_loss() -> None:
    bench = established()
    bench.say(100)
    bench.finish()
    assert bench.hear("RA", 0, ack=101) == 0
    assert bench.client.ended == replayed.RESET_AT_END
    assert bench.client.acknowledged == 100


@pytest.mark.parametrize("ack", [0, 50, 99, 102, 5000])
def test_reset_before_all_data_was_acknowledged_is_a_reset(ack: int) -> None:
    """What the target acknowledges beyond what was sent counts for nothing."""
    bench = established()
    bench.say(100)
    bench.finish()
    assert bench.hear("RA", 0, ack=ack) == 0
    assert bench.client.ended == replayed.RESET_BY_TARGET
    assert bench.client.acknowledged == (ack if ack < 100 else 0)


def test_reset_after_the_targets_fin() -> None:
    bench = established()
    bench.hear("FA", 0)
    bench.say(100)
    assert bench.hear("R", 1) == 0
    assert bench.client.ended == replayed.RESET_BY_TARGET
    assert bench.client.target_closed == 1
