"""What all sessions share: settings as they were given, counts that start at zero."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from tcpcopy.engine import replayed
from tcpcopy.engine.context import Context, EngineConfig
from tcpcopy.engine.counts import Counts
from tcpcopy.engine.outcome import DROP_SLOTS, OUTCOME_SLOTS, Drop, Outcome
from tcpcopy.engine.replayed import Replayed
from tcpcopy.packet.batch import PacketBatch
from tcpcopy.report.histogram import Histogram
from tests.unit.engine.rig import SECOND, CollectingSink

SHARED = (
    "answer_timeout_ns",
    "close_timeout_ns",
    "connect_timeout_ns",
    "hole_timeout_ns",
    "idle_timeout_ns",
    "linger_ns",
    "mss",
    "mtu",
    "rtt_ns",
    "seed",
    "wait_for_answers",
)


def test_settings_reach_the_sessions() -> None:
    numbers = [name for name in SHARED if name != "wait_for_answers"]
    given: dict[str, Any] = {name: number for number, name in enumerate(numbers, 1001)}
    batch = PacketBatch(CollectingSink())
    context = Context(EngineConfig(**given, wait_for_answers=False), batch)
    for name, number in given.items():
        assert getattr(context, name) == number, name
    assert context.wait_for_answers == 0
    assert context.batch is batch


def test_every_setting_is_used_somewhere() -> None:
    """What is not shared belongs to the opener or to the engine."""
    names = {field.name for field in fields(EngineConfig)}
    assert names - set(SHARED) - {"paced", "recorded", "speed"} == {
        "full_sessions_only", "max_sessions", "retry_ns",
    }  # fmt: skip


def test_a_file_brings_its_own_clock() -> None:
    """What is about the client passes as fast as the file, what is about the target does not."""
    batch = PacketBatch(CollectingSink())
    live = Context(EngineConfig(), batch)
    fast = Context(EngineConfig(recorded=True, speed=10.0), batch)
    slow = Context(EngineConfig(recorded=True, speed=0.5, paced=False), batch)
    for name in ("hole_timeout_ns", "idle_timeout_ns", "remember_ns"):
        assert getattr(fast, name) * 10 == getattr(live, name) == getattr(slow, name) // 2, name
    assert (live.wait_factor, fast.wait_factor, slow.wait_factor) == (10, 100, 5)
    assert (live.recorded, fast.recorded) == (0, 1) and (live.paced, slow.paced) == (1, 0)
    for name in ("answer_timeout_ns", "close_timeout_ns", "connect_timeout_ns"):
        assert getattr(fast, name) == getattr(live, name), name


def test_times_are_those_of_the_c_program() -> None:
    """-t is 600 s with TCPCopy 1.3.0 too; -k is longer, so that -t is what ends a silent target."""
    config = EngineConfig()
    assert config.answer_timeout_ns == 600 * SECOND
    assert config.idle_timeout_ns > config.answer_timeout_ns


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        EngineConfig().mtu = 1  # type: ignore[misc]


def test_counts_start_at_zero() -> None:
    counts = Counts()
    assert counts.outcome_counts() == [0] * OUTCOME_SLOTS
    assert counts.capture_drop_counts() == [0] * DROP_SLOTS
    assert counts.answer_drop_counts() == [0] * DROP_SLOTS
    for name in Counts.__slots__:
        value = getattr(counts, name, 0)
        if isinstance(value, int):
            assert value == 0, name
        elif isinstance(value, Histogram):
            assert value.count == 0, name


def test_copies_of_counts_stay() -> None:
    counts = Counts()
    before = counts.outcome_counts()
    counts.count_outcome(int(Outcome.REFUSED))
    assert before == [0] * OUTCOME_SLOTS
    assert counts.outcome_counts()[Outcome.REFUSED] == 1
    assert sum(counts.outcome_counts()) == 1


def test_arrays_have_room_for_every_member() -> None:
    assert max(Outcome) == OUTCOME_SLOTS - 1
    assert max(Drop) == DROP_SLOTS - 1


# --- the replayed half as sessions see it ----------------------------------------------------


def test_endings_differ() -> None:
    endings = [
        replayed.RUNNING,
        replayed.CLOSED,
        replayed.REFUSED,
        replayed.RESET_BY_TARGET,
        replayed.RESET_SENT,
        replayed.CONNECT_TIMEOUT,
        replayed.ANSWER_TIMEOUT,
        replayed.SEND_FAILED,
    ]
    assert endings == list(range(8))


def test_new_half_runs_and_has_nothing() -> None:
    half = Replayed()
    assert half.ended == replayed.RUNNING
    assert half.undelivered() == 0
    for name in ("acknowledged", "established", "fin_acknowledged", "received", "target_closed"):
        assert getattr(half, name) == 0


@pytest.mark.parametrize(
    "call", ["open", "transmit", "abort", "run_timers", "linger", "deadline_ns"]
)
def test_half_without_a_way_to_the_target_says_so(call: str) -> None:
    half = Replayed()
    arguments = () if call == "deadline_ns" else (1,)
    with pytest.raises(NotImplementedError):
        getattr(half, call)(*arguments)
