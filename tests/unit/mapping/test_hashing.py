"""The hash that is the same everywhere."""

from __future__ import annotations

from tcpcopy.mapping.hashing import stable_hash


def test_values_are_pinned() -> None:
    """A change would send clients to other -c addresses after an upgrade."""
    assert [stable_hash(data) for data in (b"", b"\0", b"abc")] == [0, 2904199831, 3505490737]


def test_close_inputs_spread() -> None:
    """Ports in a row fill sixteen cells evenly."""
    cells = [0] * 16
    for port in range(16_000):
        cells[stable_hash(b"\x0a\0\0\1" + port.to_bytes(2, "big")) % 16] += 1
    assert min(cells) > 900 and max(cells) < 1100
