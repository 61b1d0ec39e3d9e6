"""The bad cable: which packets suffer, and how often."""

from __future__ import annotations

import random

import pytest

from tests.lab.badlink import Faults, is_syn, is_tcp

_MACS = bytes(12)


def faults(**settings: float) -> Faults:
    return Faults(**settings, random=random.Random(1))  # type: ignore[arg-type]


def test_only_tcp_suffers() -> None:
    ipv4 = bytearray(40)
    ipv4[0], ipv4[9] = 0x45, 6
    ipv6 = bytearray(60)
    ipv6[0], ipv6[6] = 0x60, 6
    assert is_tcp(_MACS + b"\x08\x00" + bytes(ipv4))
    assert is_tcp(_MACS + b"\x86\xdd" + bytes(ipv6))
    ipv4[9] = ipv6[6] = 17
    assert not is_tcp(_MACS + b"\x08\x00" + bytes(ipv4))
    assert not is_tcp(_MACS + b"\x86\xdd" + bytes(ipv6))
    assert not is_tcp(_MACS + b"\x08\x06" + bytes(28))
    assert not is_tcp(_MACS + b"\x08\x00")


def test_syn_is_known_by_its_flag() -> None:
    ipv4 = bytearray(40)
    ipv4[0], ipv4[9], ipv4[33] = 0x45, 6, 0x12
    ipv6 = bytearray(60)
    ipv6[0], ipv6[6], ipv6[53] = 0x60, 6, 0x02
    assert is_syn(_MACS + b"\x08\x00" + bytes(ipv4))
    assert is_syn(_MACS + b"\x86\xdd" + bytes(ipv6))
    ipv4[33] = ipv6[53] = 0x10
    assert not is_syn(_MACS + b"\x08\x00" + bytes(ipv4))
    assert not is_syn(_MACS + b"\x86\xdd" + bytes(ipv6))
    assert not is_syn(_MACS + b"\x08\x00" + bytes(ipv4[:30]))


def test_syn_is_delayed_more() -> None:
    link = faults(delay_ms=3, syn_delay_ms=100)
    assert [link.plan_ns(flag) for flag in (True, False)] == [[103_000_000], [3_000_000]]


def test_good_cable_passes_at_once() -> None:
    assert [faults().plan_ns() for _ in range(100)] == [[0]] * 100


def test_delay_is_for_all_and_keeps_order() -> None:
    plans = [faults(delay_ms=3).plan_ns() for _ in range(100)]
    assert plans == [[3_000_000]] * 100


@pytest.mark.parametrize("kind", ["lose", "duplicate", "reorder"])
def test_share_of_each_fault(kind: str) -> None:
    """Ten percent means about ten percent, and the count is what happened."""
    link = faults(**{kind: 10, "hold_ms": 2})
    plans = [link.plan_ns() for _ in range(10_000)]
    happened = {
        "lose": [plan for plan in plans if not plan],
        "duplicate": [plan for plan in plans if len(plan) == 2],
        "reorder": [plan for plan in plans if plan and plan[0]],
    }
    assert 850 < len(happened[kind]) < 1150
    name = {"lose": "lost", "duplicate": "duplicated", "reorder": "reordered"}[kind]
    assert link.counts[name] == len(happened[kind])
    assert link.counts["packets"] == 10_000
    assert sum(len(found) for found in happened.values()) == len(happened[kind])


def test_second_copy_and_held_packet_come_in_bounded_time() -> None:
    link = faults(duplicate=100, reorder=100, delay_ms=1, hold_ms=2)
    for _ in range(1000):
        held, copy = link.plan_ns()
        assert 1_200_000 <= held <= 3_000_000
        assert 1_200_000 <= copy <= 3_000_000
