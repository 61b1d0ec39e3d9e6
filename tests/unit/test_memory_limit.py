"""What a memory limit leaves, with made-up figures of resident memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.memory_limit import MemoryLimit

LIMIT = 1000
SECOND = 1_000_000_000


class Machine:
    """A process whose resident memory never shrinks, unless `trimmable` bytes are given back."""

    def __init__(self, resident: int = 100) -> None:
        self.now = 0
        self.resident = resident
        self.trimmable = 0
        self.trims = 0
        self.limit = MemoryLimit(LIMIT, lambda: self.resident, self._give_back)

    def _give_back(self) -> None:
        self.trims += 1
        self.resident -= self.trimmable
        self.trimmable = 0

    def look(self, held: int, most_held: int = 0) -> MemoryLimit:
        self.now += SECOND
        self.limit.look(self.now, held, most_held)
        return self.limit


def test_what_is_left_is_shared_out() -> None:
    limit = Machine(200).look(0)
    assert (limit.payload_limit, limit.backlog_limit, limit.is_short) == (400, 200, False)
    assert limit.resident_bytes == 200


def test_what_is_held_does_not_shrink_what_may_be_held() -> None:
    limit = Machine(200 + 400).look(400)
    assert limit.payload_limit == 400


def test_sessions_shrink_it() -> None:
    """What is resident and not held is sessions: less is left for their payload."""
    limit = Machine(600).look(0)
    assert limit.payload_limit == 200
    limit = Machine(990).look(0)
    assert limit.is_short
    assert limit.payload_limit == LIMIT // 8 // 2  # some, in any case


def test_short_near_the_limit() -> None:
    machine = Machine(900)
    assert not machine.look(700).is_short
    machine.resident = 901
    assert machine.look(700).is_short


def test_what_a_burst_leaves_behind_is_free() -> None:
    """Payload is gone, its memory stays resident: it is no reason to leave sessions out."""
    machine = Machine(950)
    assert machine.look(800).is_short
    limit = machine.look(10)
    assert not limit.is_short
    assert limit.payload_limit == (LIMIT - 150) // 2
    machine.resident = 960  # more than ever: what was free has been used up
    assert machine.look(10).is_short


def test_a_burst_between_two_looks() -> None:
    machine = Machine(100)
    assert not machine.look(0).is_short
    machine.resident = 950
    assert not machine.look(0, most_held=800).is_short


def test_free_pages_are_given_back_first() -> None:
    """At most each ten seconds, and only near the limit."""
    machine = Machine(800)
    machine.look(0)
    assert machine.trims == 0
    machine.resident, machine.trimmable = 950, 400
    limit = machine.look(0)
    assert (machine.trims, limit.is_short, limit.resident_bytes) == (1, False, 550)
    machine.resident, machine.trimmable = 950, 0
    for _ in range(9):
        assert machine.look(0).is_short
    assert machine.trims == 1
    machine.look(0)
    assert machine.trims == 2


@given(
    st.lists(
        st.tuples(st.integers(0, 400), st.integers(0, 400), st.integers(0, 100)),
        min_size=1,
        max_size=50,
    )
)
def test_never_beyond_what_it_has_been(steps: list[tuple[int, int, int]]) -> None:
    """Whatever is held, freed and taken: not short only below the limit or where it has been."""
    machine = Machine(50)
    others, most = 50, 0
    for held, peak, more in steps:
        others += more
        machine.resident = max(machine.resident, others + max(held, peak))
        limit = machine.look(held, max(held, peak))
        if machine.resident > LIMIT - LIMIT // 10 and machine.resident > most:
            assert limit.is_short or max(held, peak) > held
        most = max(most, machine.resident)
        assert others + held <= most
        assert limit.is_short or others + held <= LIMIT
        assert 0 < limit.backlog_limit < limit.payload_limit <= LIMIT
