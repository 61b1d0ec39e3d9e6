"""Numbers as people read them."""

from __future__ import annotations

import pytest

from tcpcopy.report.text import byte_size, clock, duration, number, per_cent, plural, rate


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 B"), (999, "999 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"),
        (10 * 1024, "10 KiB"), (1024**2 - 1, "1 MiB"), (1024**2, "1 MiB"),
        (94 * 1024**2 + 200_000, "94.2 MiB"), (5 * 1024**4, "5 TiB"), (1024**6, "1024 PiB"),
    ],
)  # fmt: skip
def test_byte_size(value: int, shown: str) -> None:
    assert byte_size(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"), (0.04, "0"), (0.5, "0.5"), (9.94, "9.9"), (9.96, "10"), (77, "77"),
        (999.4, "999"), (999.5, "1k"), (12_345, "12.3k"), (4_500_000, "4.5M"),
    ],
)  # fmt: skip
def test_rate(value: float, shown: str) -> None:
    assert rate(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 ns"), (850, "850 ns"), (999, "999 ns"), (1_000, "1 us"), (12_340, "12.3 us"),
        (4_567_000, "4.57 ms"), (999_600_000, "1 s"), (1_250_000_000, "1.25 s"),
        (90_000_000_000, "90 s"), (5_000_000_000_000, "5000 s"),
    ],
)  # fmt: skip
def test_duration(value: int, shown: str) -> None:
    assert duration(value) == shown


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (0, 0, "0 %"), (0, 5, "0 %"), (5, 5, "100 %"), (1, 3, "33.33 %"),
        (1, 1_000_000, "<0.01 %"), (999_999, 1_000_000, ">99.99 %"),
        (1240, 1170, "105.98 %"), (100_001, 100_000, ">100 %"), (300, 100, "300.00 %"),
    ],
)  # fmt: skip
def test_per_cent_is_never_rounded_to_all_or_none(part: int, whole: int, shown: str) -> None:
    assert per_cent(part, whole) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (7.9, "0:07"), (727, "12:07"), (3727, "1:02:07")]
)
def test_clock(seconds: float, shown: str) -> None:
    assert clock(int(seconds * 1e9)) == shown


def test_numbers_and_plurals() -> None:
    assert number(1234567) == "1,234,567"
    assert plural(1, "session") == "1 session"
    assert plural(0, "session") == "0 sessions"
    assert plural(1200, "address", "addresses") == "1,200 addresses"
