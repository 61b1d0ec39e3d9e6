"""When pure acknowledgements are dropped in the kernel."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.capture.acks import CLOSED_NS, OPEN_NS, SESSIONS_NEEDED, AckFilter, Evidence
from tcpcopy.capture.ring import Ring
from tcpcopy.errors import UsageError

SECOND = 1_000_000_000
WITH, WITHOUT = b"with....", b"without."


class FakeRing:
    """Notes the filter that it was given."""

    def __init__(self, refused: bytes = b"") -> None:
        self.program = WITH
        self.refused = refused

    def set_filter(self, program: bytes) -> None:
        if program == self.refused:
            raise UsageError("-F", None, "the kernel does not take the filter", "make it simpler")
        self.program = program


def made(*rings: FakeRing, far_matters: bool = True) -> AckFilter:
    as_rings: list[Ring] = list(rings)  # type: ignore[arg-type]
    return AckFilter(as_rings, WITH, WITHOUT, far_matters=far_matters)


NEAR = Evidence(client_first=SESSIONS_NEEDED)


def test_dropped_once_clients_are_seen_to_be_near_and_to_speak_first() -> None:
    rings = [FakeRing(), FakeRing()]
    acks = made(*rings)
    assert acks.look(1, Evidence())
    assert acks.look(1 + OPEN_NS, Evidence(client_first=SESSIONS_NEEDED - 1))
    assert [ring.program for ring in rings] == [WITH, WITH]
    assert not acks.look(2 + OPEN_NS, NEAR)
    assert [ring.program for ring in rings] == [WITHOUT, WITHOUT]


def test_let_in_at_once_and_kept_while_they_are_wanted() -> None:
    ring = FakeRing()
    acks = made(ring)
    acks.look(1, Evidence())
    assert not acks.look(2 + OPEN_NS, NEAR)
    assert acks.look(3 + OPEN_NS, NEAR, wanted=True)
    assert ring.program == WITH
    later = Evidence(client_first=900)
    assert acks.look(90 * SECOND, later, wanted=True)
    assert not acks.look(91 * SECOND, later)


def test_not_on_the_first_look() -> None:
    assert made(FakeRing()).look(5, NEAR)


def test_one_server_that_speaks_first_or_one_far_client_keeps_them() -> None:
    for evidence in (
        Evidence(client_first=900, server_first=1),
        Evidence(client_first=900, far=1),
    ):
        acks = made(FakeRing())
        acks.look(1, Evidence())
        assert acks.look(9 * SECOND, evidence)


def test_distance_does_not_matter_where_the_round_trip_time_is_given() -> None:
    acks = made(FakeRing(), far_matters=False)
    acks.look(1, Evidence())
    assert not acks.look(9 * SECOND, Evidence(client_first=900, far=900))


def test_let_in_again_after_a_while_and_judged_by_what_is_new() -> None:
    ring = FakeRing()
    acks = made(ring)
    acks.look(1, Evidence())
    assert not acks.look(SECOND + 1, NEAR)
    assert not acks.look(SECOND + CLOSED_NS, NEAR)
    assert acks.look(SECOND + 1 + CLOSED_NS, NEAR)
    assert ring.program == WITH
    later = SECOND + 1 + CLOSED_NS + OPEN_NS
    assert acks.look(later, NEAR), "no new connection has shown anything"
    assert acks.look(later, Evidence(2 * SESSIONS_NEEDED, 0, 1))
    assert not acks.look(later, Evidence(2 * SESSIONS_NEEDED, 0, 0))


def test_filter_that_the_kernel_refuses_is_not_tried_again() -> None:
    rings = [FakeRing(), FakeRing(refused=WITHOUT)]
    acks = made(*rings)
    acks.look(1, Evidence())
    assert acks.look(9 * SECOND, NEAR)
    assert [ring.program for ring in rings] == [WITH, WITH]
    rings[1].refused = b""
    assert acks.look(99 * SECOND, NEAR)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 40), st.booleans(), st.booleans())))
def test_never_dropped_on_less_than_enough_evidence(
    looks: list[tuple[int, int, bool, bool]],
) -> None:
    ring = FakeRing()
    acks = made(ring)
    now = client = server = far = 0
    opened_at = Evidence()
    for seconds, sessions, speaks, is_far in looks:
        now += seconds * SECOND
        client += sessions
        server += speaks
        far += is_far
        was_open = acks.open
        seen = Evidence(client, server, far)
        assert acks.look(now, seen) == acks.open == (ring.program == WITH)
        if was_open and not acks.open:
            assert client - opened_at.client_first >= SESSIONS_NEEDED
            assert (server, far) == (opened_at.server_first, opened_at.far)
        if acks.open and not was_open:
            opened_at = seen
