"""Local ports: how many are in use, which are used again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tcpcopy.deliver.ports import (
    READY_NS,
    REST_NS,
    LocalPorts,
    PortSettings,
    PortUse,
    count_reserved,
    read_settings,
)
from tests.unit.engine.rig import MS, SECOND

TARGET = bytes((10, 0, 0, 3))
START = 100 * SECOND
TEN = PortSettings(20000, 20009)
HUNDRED = PortSettings(20000, 20099)


def ports(settings: PortSettings = TEN, *addresses: bytes) -> tuple[LocalPorts, PortUse]:
    made = LocalPorts(addresses)
    made.set(settings)
    return made, made.use(addresses[0] if addresses else b"", TARGET, 80)


def test_settings(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == PortSettings()
    assert PortSettings().size == 28232
    for name, text in (
        ("ip_local_port_range", "20000\t29999\n"),
        ("ip_local_reserved_ports", "8080,20000-20009,29999,40000\n"),
        ("tcp_tw_reuse", "2\n"),
        ("tcp_timestamps", "0\n"),
    ):
        (tmp_path / name).write_text(text)
    found = read_settings(tmp_path)
    assert found == PortSettings(20000, 29999, 11, 2, False)
    assert found.size == 9989


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("5", 0), ("10", 1), ("20", 1), ("1-10", 1), ("1-99,15", 12)]
)
def test_reserved_ports_within_the_range(text: str, count: int) -> None:
    assert count_reserved(text, 10, 20) == count


@pytest.mark.parametrize(
    ("reuses", "timestamps", "target", "rest"),
    [
        (0, True, TARGET, REST_NS),
        (1, True, TARGET, READY_NS),
        (1, False, TARGET, REST_NS),
        (2, True, TARGET, REST_NS),
        (2, True, bytes((127, 0, 0, 1)), READY_NS),
        (2, True, bytes(15) + b"\1", READY_NS),
        (2, True, bytes(16), REST_NS),
    ],
)
def test_how_long_the_kernel_lets_a_port_rest(
    reuses: int, timestamps: bool, target: bytes, rest: int
) -> None:
    settings = replace(TEN, reuses=reuses, timestamps=timestamps)
    assert settings.rest_ns(target) == rest


def test_in_use_are_live_connections_and_ports_that_rest() -> None:
    _, use = ports()
    for _ in range(4):
        use.begun(0)
    assert use.in_use(START) == 4
    use.ended(20001, False, START)
    use.ended(0, False, START)  # the target closed first, or it was reset
    assert use.in_use(START) == 3
    assert use.in_use(START + REST_NS - 1) == 3
    assert use.in_use(START + REST_NS) == 2


def test_resting_ports_are_used_again_when_half_of_all_are_in_use() -> None:
    made, use = ports()
    for port in (20001, 20002):
        use.begun(0)
        use.ended(port, False, START)
    late = START + READY_NS
    assert use.take(late) == 0, "the kernel has enough"
    for _ in range(3):
        use.begun(0)
    assert use.take(late - 1) == 0, "it has rested for too short"
    assert use.take(late) == 20001, "the one that has rested for longest"
    use.begun(20001)
    assert (made.reused, made.bound) == (1, 1)
    assert use.in_use(late) == 5


def test_no_more_than_a_quarter_of_the_ports_is_bound_by_number() -> None:
    made, use = ports()
    for port in range(20000, 20008):
        use.begun(0)
        use.ended(port, False, START)
    late = START + READY_NS
    taken = []
    for _ in range(5):
        port = use.take(late)
        if port:
            use.begun(port)
            taken.append(port)
    assert taken == [20000, 20001, 20002]
    # One of them is used once more rather than a fourth.
    use.ended(20001, True, late)
    assert use.take(late + READY_NS - 1) == 0
    assert use.take(late + READY_NS) == 20001
    use.begun(20001)
    use.ended(0, True, late)  # reset: free at once
    assert made.bound == 2
    use.ended(20002, True, late)
    assert use.in_use(late + REST_NS) == 1 and made.bound == 1, "and at rest no longer"


def test_when_the_kernel_has_none_resting_ports_are_used() -> None:
    _, use = ports(HUNDRED)
    use.begun(0)
    use.ended(20001, False, START)
    late = START + READY_NS
    assert use.take(late) == 0
    use.full_until_ns = late + 50 * MS
    assert use.is_full(late) and not use.is_full(late + 50 * MS)
    assert use.take(late) == 20001
    use.begun(0)
    assert not use.full_until_ns, "it has some again"


def test_target_without_timestamps_is_asked_less_and_less() -> None:
    _, use = ports()
    for port in range(20000, 20008):
        use.begun(0)
        use.ended(port, False, START)
    now = START + READY_NS
    for pause in (1, 2, 4):
        assert use.take(now)
        use.refused(now)
        assert use.take(now + pause * SECOND - 1) == 0
        now += pause * SECOND
    port = use.take(now)
    use.begun(port)
    use.refused(now)
    assert use.take(now + READY_NS), "after a success the pause is short again"


def test_host_without_timestamps_uses_no_port_again() -> None:
    _, use = ports(replace(TEN, timestamps=False))
    for port in range(20000, 20008):
        use.begun(0)
        use.ended(port, False, START)
    assert use.take(START + READY_NS) == 0


def test_addresses_take_turns_and_count_apart() -> None:
    first, second = bytes((10, 0, 0, 8)), bytes((10, 0, 0, 9))
    made, use = ports(TEN, first, second)
    assert made.after(first) == second and made.after(second) == first
    use.begun(0)
    use.begun(0)
    made.use(second, TARGET, 80).begun(0)
    made.use(first, TARGET, 81).begun(0)
    assert made.look(START) == [(first, (TARGET, 80), 2, 3), (first, (TARGET, 81), 1, 1)]
    assert made.most_used == 2
    use.ended(0, False, START)
    use.ended(0, False, START)
    made.look(START)
    assert made.most_used == 2, "the most there ever were"


def test_settings_that_change_hold_for_what_rests() -> None:
    made, use = ports()
    use.begun(0)
    use.ended(20001, False, START)
    made.set(replace(TEN, reuses=1))
    assert use.in_use(START + READY_NS) == 0
