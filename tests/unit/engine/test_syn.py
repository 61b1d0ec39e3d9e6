"""Initial sequence numbers and the options of a SYN."""

from __future__ import annotations

import pytest

from tcpcopy.engine.syn import initial_number, syn_options

TIMESTAMPS = bytes([8, 10, 0x81, 0x02, 0x03, 0x04, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("sack", "timestamps", "scale", "expected"),
    [
        (1, 1, 7, bytes([2, 4, 5, 0xB4, 4, 2]) + TIMESTAMPS + bytes([1, 3, 3, 7])),
        (1, 1, -1, bytes([2, 4, 5, 0xB4, 4, 2]) + TIMESTAMPS),
        (0, 1, 14, bytes([2, 4, 5, 0xB4, 1, 1]) + TIMESTAMPS + bytes([1, 3, 3, 14])),
        (1, 0, 0, bytes([2, 4, 5, 0xB4, 4, 2, 1, 1, 1, 3, 3, 0])),
        (0, 0, -1, bytes([2, 4, 5, 0xB4])),
        (0, 0, 2, bytes([2, 4, 5, 0xB4, 1, 3, 3, 2])),
    ],
)
def test_options_are_those_of_the_client(
    sack: int, timestamps: int, scale: int, expected: bytes
) -> None:
    assert syn_options(1460, sack, timestamps, 0x81020304, scale) == expected


def test_numbers_go_up_with_the_clock() -> None:
    ends = (b"\x0a\0\0\1", b"\x0a\0\0\2", 5000 << 16 | 80, 77)
    first = initial_number(*ends, 4_000_000)
    assert (initial_number(*ends, 8_000_000) - first) % 2**32 == 1000


@pytest.mark.parametrize("size", [4, 16])
def test_each_pair_of_ends_has_numbers_of_its_own(size: int) -> None:
    source, target = bytes(range(size)), bytes(range(100, 100 + size))
    numbers = {
        initial_number(source, target, 5000 << 16 | 80, 7, 0),
        initial_number(target, source, 5000 << 16 | 80, 7, 0),
        initial_number(source, target, 5001 << 16 | 80, 7, 0),
        initial_number(source, target, 5000 << 16 | 80, 8, 0),
        initial_number(source[:-1] + b"\xff", target, 5000 << 16 | 80, 7, 0),
    }
    assert len(numbers) == 5
    assert all(0 <= number < 2**32 for number in numbers)
