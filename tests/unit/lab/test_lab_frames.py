"""Frames and scripts: seeded content is unique and the same each time."""

from __future__ import annotations

import pytest

from tests.lab import frames, script


def test_content_is_repeatable_and_unique() -> None:
    first, again, other = frames.Content(1), frames.Content(1), frames.Content(2)
    payload = first.payload(3, 4, 100)
    assert len(payload) == 100
    assert payload == again.payload(3, 4, 100)
    others = {other.payload(3, 4, 100), first.payload(4, 4, 100), first.payload(3, 5, 100)}
    assert payload not in others
    assert len(others) == 3


@pytest.mark.parametrize("length", [0, 1, 11, 12, 13, 3_000_000])
def test_content_has_the_length_asked_for(length: int) -> None:
    assert len(frames.Content(1).payload(1, 1, length)) == length


def test_long_content_does_not_repeat_by_segments() -> None:
    """Segments that change places or come twice must change the hash."""
    payload = frames.Content(1).payload(1, 1, 500_000)
    for size in (512, 536, 1448, 1460, 4096, 65536):
        pieces = [payload[i : i + size] for i in range(0, len(payload) - size, size)]
        assert len(set(pieces)) == len(pieces)


def test_request_and_answer_frames() -> None:
    assert frames.request(b"abc", 7, frames.CLOSE_AFTER).hex() == "00000003000000070001616263"
    assert frames.answer(3) == b"\0\0\0\3" + frames.ANSWER_BLOCK[:3]
    assert len(frames.answer(200_000)) == 200_004


def test_ranges_and_addresses() -> None:
    assert script.span("5") == (5, 5)
    assert script.span("0.5-2") == (0.5, 2)
    assert script.ports("20000-20003") == (20000, 20003)
    assert script.addresses("10.0.0.254-10.0.1.1") == [
        "10.0.0.254",
        "10.0.0.255",
        "10.0.1.0",
        "10.0.1.1",
    ]
    assert script.addresses("fd66::9-fd66::a,10.0.0.1") == ["fd66::9", "fd66::a", "10.0.0.1"]


def test_script_is_seeded_by_connection() -> None:
    words = "host 1 --requests 3-9 --request-bytes 10-1000 --think-ms 1-5 --end server"
    options = script.parser().parse_args(words.split())
    steps = script.make(options, 5)
    assert steps == script.make(options, 5)
    assert steps != script.make(options, 6)
    assert 3 <= len(steps) <= 9
    assert all(10 <= step.payload_bytes <= 1000 for step in steps)
    assert [step.flags for step in steps] == [0] * (len(steps) - 1) + [frames.CLOSE_AFTER]
    assert steps[0].gap_ns == 0
    assert all(1e6 <= step.gap_ns <= 5e6 for step in steps[1:])
