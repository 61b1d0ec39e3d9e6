"""--workers: what each of them may use, and what becomes of the counts of one that died."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import count

import pytest

from tcpcopy.copier import Copier
from tcpcopy.copier_config import CopierConfig
from tcpcopy.engine.context import EngineConfig
from tcpcopy.mapping.rate import RateConfig
from tcpcopy.mapping.transfers import TransferTable, parse_transfers
from tcpcopy.report.counters import RelayCounts, Snapshot
from tcpcopy.report.flow_outcome import FlowOutcome
from tcpcopy.report.outcome import Outcome
from tcpcopy.workers import Workers, _after_death

MIB = 1 << 20
SECOND = 1_000_000_000


def config(**fields: object) -> CopierConfig:
    transfers = TransferTable(parse_transfers("8080-127.0.0.2:9090"))
    return replace(CopierConfig(EngineConfig(), transfers), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_together_they_keep_to_the_memory_that_was_given(workers: int) -> None:
    """-m is for all of them; each has a number and a seed of its own."""
    numbers = count(1)
    given = config(memory_bytes=1000 * MIB)
    pool = Workers(given, workers, lambda: next(numbers))
    shares = [pool._share(index) for index in range(workers)]
    assert sum(share.memory_bytes for share in shares) <= 1000 * MIB
    assert min(share.memory_bytes for share in shares) >= 1000 * MIB // workers - 1
    assert [share.share for share in shares] == [(index, workers) for index in range(workers)]
    assert len({share.engine.seed for share in shares}) == workers
    pool.close()


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("is_requests", [False, True])
def test_together_they_keep_to_the_rate(workers: int, is_requests: bool) -> None:
    """--rate is for all of them: in 10 s they take as many slots as one would."""
    rate = RateConfig(Fraction(40), is_requests=is_requests)
    taken = 0
    for index in range(workers):
        copier = Copier(config(rate=rate, share=(index, workers)))
        limit = copier._rate
        assert limit is not None
        assert (copier.engine.context.turn_rate is limit) == is_requests
        start_ns = limit.reserve(SECOND)
        while limit.reserve(SECOND) - start_ns < 10 * SECOND:
            taken += 1
        copier.close()
    assert 400 - workers <= taken <= 400 + workers


def test_what_was_open_in_a_worker_that_died_is_lost_with_it() -> None:
    """Sessions and UDP flows: counted, a loss, and no fault inside tcpcopy."""
    snapshot = Snapshot(
        sessions_captured=10, sessions_live=4, sessions_peak=6,
        udp_flows_captured=8, udp_flows_live=3, udp_flows_peak=5, memory_bytes=77,
        relays={"10.0.0.4:36524": RelayCounts(connected=2, connects=2)},
    )  # fmt: skip
    snapshot.outcomes[Outcome.REPLAYED] = 6
    snapshot.udp_outcomes[FlowOutcome.REPLAYED] = 5
    assert snapshot.check() == []
    after = _after_death(snapshot)
    assert after.check() == []
    assert (after.sessions_live, after.outcomes[Outcome.WORKER_LOST]) == (0, 4)
    assert (after.udp_flows_live, after.udp_outcomes[FlowOutcome.WORKER_LOST]) == (0, 3)
    assert after.sessions_lost == 4 and after.udp_flows_lost == 3
    assert after.outcomes[Outcome.INTERNAL_ERROR] == 0
    assert after.udp_outcomes[FlowOutcome.INTERNAL_ERROR] == 0
    assert after.memory_bytes == 0 and after.relays["10.0.0.4:36524"].connected == 0
