"""The benchmark of relay records runs, and compares like with like."""

from __future__ import annotations

from benchmarks.relay import measure


def test_both_relays_are_measured() -> None:
    found = measure(1, records=3200)
    assert found.keys() == {"classic", "native"}
    assert all(packed > 0 and unpacked > 0 for packed, unpacked, _ in found.values())
    # A count and 64 bytes a record; a header and the answer's own 52.
    assert found["classic"][2] == 64 + 2 * 2 / 32
    assert found["native"][2] == 52 + 12 / 32
