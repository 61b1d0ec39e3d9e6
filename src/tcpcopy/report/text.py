"""Numbers as people read them; pure functions without locale."""

from __future__ import annotations


def number(value: int) -> str:
    """`12,345`."""
    return f"{value:,}"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 session`, `12,000 sessions`."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def per_cent(part: int, whole: int) -> str:
    """`2.5 %`; never 100 % or 0 % unless it is exactly that, and above 100 where `part` is more."""
    if whole == 0:
        return "0 %"
    share = 100 * part / whole
    if part == whole or part == 0:
        return f"{share:.0f} %"
    if share < 0.01:
        return "<0.01 %"
    if 99.99 < share < 100:
        return ">99.99 %"
    if 100 < share < 100.01:
        return ">100 %"
    return f"{share:.2f} %"


def byte_size(value: int) -> str:
    """`999 B`, `1.5 KiB`, `12 MiB`."""
    return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"))


def rate(value: float) -> str:
    """A number a second, short: `0`, `0.5`, `950`, `12.3k`, `4.5M`."""
    if value >= 999.5:
        return _scaled(value, 1000, ("", "k", "M", "G", "T")).replace(" ", "")
    return f"{value:.0f}" if value >= 9.95 or value < 0.05 else f"{value:.1f}"


def duration(nanoseconds: int) -> str:
    """A latency: `850 ns`, `12.3 us`, `4.57 ms`, `1.25 s`."""
    value = float(nanoseconds)
    for unit in ("ns", "us", "ms"):
        if value < 999.5:
            return f"{_figures(value)} {unit}"
        value /= 1000
    return f"{_figures(value)} s"


def clock(nanoseconds: int) -> str:
    """A running time: `0:07`, `12:07`, `1:02:07`."""
    seconds = nanoseconds // 1_000_000_000
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    unit = 0
    while value >= base - 0.5 and unit < len(units) - 1:
        value /= base
        unit += 1
    return f"{value:.0f} {units[0]}" if unit == 0 else f"{_figures(value)} {units[unit]}"


def _figures(value: float) -> str:
    """Three figures, without a trailing `.0`."""
    if value >= 99.95:
        return f"{value:.0f}"
    if value >= 9.995:
        return f"{value:.1f}".removesuffix(".0")
    return f"{value:.2f}".rstrip("0").rstrip(".")
