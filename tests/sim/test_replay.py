"""The engine against the model server, in virtual time: exact or a true outcome, and always ended.

Thousands of random conversations with loss, reordering, duplication, tiny and zero windows, numbers
near the wrap, all ways to end, targets that are slower and answer more or less. `TCPCOPY_SIM_RUNS`
says how many runs of five conversations each (the soak does more).
"""

from __future__ import annotations

import os
from dataclasses import replace
from random import Random

import pytest

from tcpcopy.engine.context import EngineConfig
from tests.sim.adapter import EngineUnderTest
from tests.sim.model import harness
from tests.sim.model.clock import MILLISECOND, SECOND
from tests.sim.model.harness import Conditions
from tests.sim.model.link import Faults
from tests.sim.model.server import Admission

RUNS = int(os.environ.get("TCPCOPY_SIM_RUNS", "200"))
BATCHES = 10
CONFIG = EngineConfig(answer_timeout_ns=400 * SECOND)


def finish(engine: EngineUnderTest) -> None:
    """End what is still open, as at exit, and let what lingers go."""
    engine.engine.close_all()
    engine.run_timers(engine.engine.now_ns + 10 * SECOND)
    engine.check_ended()


@pytest.mark.parametrize("worst_loss", [0.05, 0.2])
@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_conversations_are_exact(batch: int, worst_loss: float) -> None:
    """Whatever the conversation and the network, the target's application reads the same bytes."""
    for run in range(RUNS // BATCHES // 2):
        seed = int(worst_loss * 100) * 1_000_000 + batch * 10_000 + run
        plans, conditions = harness.random_case(Random(seed), 5, worst_loss=worst_loss)
        config = replace(CONFIG, seed=seed, retry_ns=run % 2 * 10 * SECOND)  # it must not matter
        engine = EngineUnderTest(config, largest=run % 2 * 65_000)
        result = harness.run(plans, engine, seed, conditions)
        result.check_exact()
        assert all(session.is_delivered() for session in engine.live()), f"seed {seed}"
        finish(engine)
        lost = set(engine.outcomes()) - {"REPLAYED", "CLIENT_RESET", "OPEN_COMPLETE"}
        assert not lost, f"seed {seed}: {engine.outcomes()}"


@pytest.mark.parametrize("seed", range(20))
def test_copies_are_exact(seed: int) -> None:
    """-n 3: each conversation arrives three times, on connections of its own."""
    plans, conditions = harness.random_case(Random(seed), 4)
    owner: dict[tuple[bytes, int], int] = {}
    engine = EngineUnderTest(replace(CONFIG, seed=seed), copies=3)
    for_plan = {(plan.client, plan.client_port): i for i, plan in enumerate(plans)}

    def identify(address: bytes, port: int, ordinal: int) -> int | None:
        return owner.get((address, port), for_plan.get((address, port)))

    original = engine.feed_captured

    def feed(packet: bytes, now_ns: int) -> None:
        original(packet, now_ns)
        for session in engine.live():
            if session.captured_ports:
                owner[session.mapped_client()] = for_plan[session.captured_client()]

    engine.feed_captured = feed  # type: ignore[method-assign]
    result = harness.run(plans, engine, seed, conditions, identify=identify)
    result.check_exact(copies=3)
    finish(engine)


@pytest.mark.parametrize("seed", range(10))
def test_refusing_target(seed: int) -> None:
    """A closed port: every session is refused, and none sends a byte."""
    plans, conditions = harness.random_case(Random(seed), 5, worst_loss=0.02)
    engine = EngineUnderTest(replace(CONFIG, seed=seed))
    result = harness.run(plans, engine, seed, conditions, admit=lambda syn: Admission.REFUSE)
    result.check_sound()
    finish(engine)
    assert set(engine.outcomes()) == {"REFUSED"}


@pytest.mark.parametrize("seed", range(10))
def test_silent_target(seed: int) -> None:
    """SYNs that nobody answers: a connect time-out each, within the time allowed."""
    plans, conditions = harness.random_case(Random(seed), 5)
    engine = EngineUnderTest(replace(CONFIG, seed=seed))
    result = harness.run(plans, engine, seed, conditions, admit=lambda syn: Admission.IGNORE)
    result.check_sound()
    finish(engine)
    assert set(engine.outcomes()) == {"CONNECT_TIMEOUT"}


@pytest.mark.parametrize("seed", range(20))
def test_targets_that_reset_or_close_early(seed: int) -> None:
    """The outcome tells of it, nothing but a prefix was read, and every session ends."""
    random = Random(seed)
    plans, conditions = harness.random_case(random, 5, worst_loss=0.02)
    cut = random.randrange(1, 500)
    resets = random.random() < 0.5
    engine = EngineUnderTest(replace(CONFIG, seed=seed))
    result = harness.run(
        plans,
        engine,
        seed,
        conditions,
        scripts=lambda index, script: (
            replace(script, reset_after=cut) if resets else replace(script, close_after=cut)
        ),
    )
    result.check_sound()
    finish(engine)


@pytest.mark.parametrize("seed", range(10))
def test_network_that_breaks_for_good(seed: int) -> None:
    """Everything is lost from some time on: each session still ends, with a true outcome."""
    plans, conditions = harness.random_case(Random(seed), 5, worst_loss=0.0)
    dead = Faults(loss=1.0)
    config = replace(CONFIG, seed=seed, answer_timeout_ns=20 * SECOND)
    engine = EngineUnderTest(config)
    result = harness.run(plans, engine, seed, replace(conditions, to_target=dead), events=())
    result.check_sound()
    finish(engine)
    assert set(engine.outcomes()) == {"CONNECT_TIMEOUT"}


def test_bytes_on_the_wire_are_bounded() -> None:
    """Without faults nothing is sent twice, and few packets beyond what the client sent."""
    for seed in range(30):
        plans, _ = harness.random_case(Random(seed), 5)
        engine = EngineUnderTest(replace(CONFIG, seed=seed))
        conditions = Conditions(
            to_target=Faults(delay_ns=MILLISECOND),
            from_target=Faults(delay_ns=MILLISECOND, mtu=None),
        )
        result = harness.run(plans, engine, seed, conditions)
        result.check_exact()
        assert engine.context.counts.retransmitted == 0, f"seed {seed}"


def test_segments_cut_by_the_device_are_the_same() -> None:
    """With and without it: the same packets on the wire but for identifications, and as many."""
    cut = 0
    for seed in range(20):
        conditions = Conditions(
            to_target=Faults(delay_ns=MILLISECOND),
            from_target=Faults(delay_ns=MILLISECOND, mtu=None),
        )
        sent = []
        for largest in (0, 65_000):
            plans, _ = harness.random_case(Random(seed), 5)
            engine = EngineUnderTest(replace(CONFIG, seed=seed), largest=largest)
            harness.run(plans, engine, seed, conditions).check_exact()
            sent.append(engine.context.counts.segments_sent)
            cut += engine.sink.cut
        assert sent[0] == sent[1], f"seed {seed}"
    assert cut > 20
