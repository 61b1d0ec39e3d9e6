"""A SYN flood in a file: the same in the file's own time, however fast it is replayed."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from tests.unit.recorded.tape import SECOND, Stage, Tape

ATTEMPTS, RATE, CLIENTS = 1500, 300, 20


def attacked() -> Tape:
    """Five seconds of a flood, with real clients in it; one of them answers late."""
    tape = Tape()
    for index in range(ATTEMPTS):
        tape.now = index * SECOND // RATE
        tape.caller(1024 + index, isn=index * 1009).syn()
        if index % (ATTEMPTS // CLIENTS) == 0:
            client = tape.caller(50000 + index)
            client.syn()
            tape.now += SECOND // RATE // 2
            client.give("A")
            client.say(f"client {index}")
            client.fin(seen=2)
    return tape


@pytest.mark.parametrize(
    "how", [{}, {"speed": Fraction(20)}, {"fast": True}, {"speed": Fraction(5), "passes": 2}]
)
def test_every_client_is_replayed_and_the_flood_is_counted(how: dict[str, Any]) -> None:
    stage = Stage(attacked(), **how)
    stage.run()
    stage.check()
    passes = how.get("passes", 1)
    assert stage.world.outcomes() == {
        "REPLAYED": CLIENTS * passes,
        "HANDSHAKE_INCOMPLETE": ATTEMPTS * passes,
    }
    texts = [text for text in stage.target.texts() if text]
    assert len(set(texts)) == CLIENTS
    if "fast" not in how:  # here the whole file passes in no time, which has no rate
        assert stage.world.engine.flood.attempts > ATTEMPTS / 2
        assert stage.world.engine.flood.peak == pytest.approx(RATE, abs=2)
