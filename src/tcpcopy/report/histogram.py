# cython: annotation_typing=False
# (the C types stand in the .pxd; an `int` annotation would contradict them)
"""A histogram of durations with buckets of even relative width, cheap to fill and to join.

Each power of two is cut into 32 buckets, so a percentile is off by at most one part in 32 of
itself (half of that on average); values below 64 are exact. The layout is fixed, so histograms
of several workers join by adding bucket for bucket and no figure depends on the order.
Source: the bucket layout of HdrHistogram (hdrhistogram.org), with 5 bits of precision.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from typing import Final

#: Buckets in each power of two.
SUB_BUCKETS: Final = 32
_SUB_BITS: Final = 5
_LINEAR: Final = 64  # values below this have a bucket each
_TOP_BITS: Final = 48
#: Larger values are counted as this one (2**48 - 1 ns are three days).
LARGEST: Final = (1 << _TOP_BITS) - 1
SLOTS: Final = _LINEAR + (_TOP_BITS - _SUB_BITS - 1) * SUB_BUCKETS


def bucket_of(value: int) -> int:
    """The bucket that counts `value` (0 to LARGEST)."""
    shift = 0
    while value >= 1 << 14:  # two steps instead of bit_length(), which C integers do not have
        value >>= 8
        shift += 8
    while value >= 64:
        value >>= 1
        shift += 1
    return (shift << 5) + value


def bucket_bounds(bucket: int) -> tuple[int, int]:
    """The smallest and the largest value that `bucket` counts."""
    if bucket < _LINEAR:
        return bucket, bucket
    shift = (bucket >> _SUB_BITS) - 1
    low = (bucket - (shift << _SUB_BITS)) << shift
    return low, low + (1 << shift) - 1


class Histogram:
    """Counts of integer values from 0 up, normally nanoseconds.

    Not thread-safe. 11 KiB each. Values (64 bits, signed) outside 0 to LARGEST count as the
    nearest of the two.
    """

    __slots__ = ("_view", "buckets", "count", "largest", "smallest", "total")

    def __init__(self) -> None:
        self.buckets = array("Q", bytes(8 * SLOTS))  # one count for each bucket, SLOTS of them
        self._view = memoryview(self.buckets)  # the same memory, typed when compiled
        self.count = 0  # values recorded
        self.total = 0  # their sum
        self.smallest = 0  # 0 while empty
        self.largest = 0  # 0 while empty

    def record(self, value: int) -> None:
        """Count one value."""
        if value < 0:
            value = 0
        elif value >> 48:  # _TOP_BITS; a named constant would be a Python object when compiled
            value = LARGEST
        if self.count == 0 or value < self.smallest:
            self.smallest = value
        if value > self.largest:
            self.largest = value
        self.count += 1
        self.total += value
        self._view[bucket_of(value)] += 1

    def percentile(self, percent: float) -> int:
        """The value that `percent` (0 to 100) of the recorded values do not exceed; 0 when empty.

        The middle of the bucket in which it lies, never outside what was recorded. 0 and 100
        give the smallest and the largest value exactly.
        """
        if self.count == 0 or percent <= 0:
            return self.smallest
        # The nearest rank, in integers: a float product would be off for large counts.
        rank = min(self.count, max(1, -(-round(percent * 1000) * self.count // 100_000)))
        if rank == self.count:
            return self.largest
        seen = 0
        for bucket, count in enumerate(self.buckets):
            seen += count
            if seen >= rank:
                low, high = bucket_bounds(bucket)
                return min(self.largest, max(self.smallest, (low + high) // 2))
        raise AssertionError("histogram count exceeds its buckets")

    @property
    def mean(self) -> int:
        """The mean of the recorded values (exact, rounded down); 0 when empty."""
        return self.total // self.count if self.count else 0

    def add(self, other: Histogram) -> None:
        """Count everything that `other` has counted."""
        if other.count == 0:
            return
        if self.count == 0 or other.smallest < self.smallest:
            self.smallest = other.smallest
        self.largest = max(self.largest, other.largest)
        self.count += other.count
        self.total += other.total
        for bucket, count in enumerate(other.buckets):
            if count:
                self.buckets[bucket] += count

    def copy(self) -> Histogram:
        """An independent copy."""
        twin = Histogram()
        twin.add(self)
        return twin

    def to_pairs(self) -> list[list[int]]:
        """`[bucket, count]` of every bucket in use, for JSON; `total` and ends travel beside it."""
        return [[bucket, count] for bucket, count in enumerate(self.buckets) if count]

    def to_dict(self) -> dict[str, object]:
        """Plain data that `from_dict` takes back without loss."""
        return {
            "total": self.total,
            "smallest": self.smallest,
            "largest": self.largest,
            "buckets": self.to_pairs(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Histogram:
        """What `to_dict` gave. Raises: KeyError, TypeError, ValueError when it is not that."""
        twin = cls()
        pairs = data["buckets"]
        if not isinstance(pairs, list):
            raise TypeError("histogram buckets: not a list")
        for bucket, count in pairs:
            if not 0 <= bucket < SLOTS:
                raise ValueError(f"histogram bucket {bucket}: not one of {SLOTS}")
            twin.buckets[bucket] += count
            twin.count += count
        twin.total = _integer(data["total"])
        twin.smallest = _integer(data["smallest"])
        twin.largest = _integer(data["largest"])
        return twin

    @classmethod
    def of(cls, values: Iterable[int]) -> Histogram:
        """A histogram of `values`."""
        twin = cls()
        for value in values:
            twin.record(value)
        return twin

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return (
            self.buckets == other.buckets
            and self.total == other.total
            and self.smallest == other.smallest
            and self.largest == other.largest
        )

    __hash__ = None  # type: ignore[assignment]  # it changes, so it cannot be a key

    def __repr__(self) -> str:
        middle, high = self.percentile(50), self.percentile(99)
        return f"Histogram(count={self.count}, p50={middle}, p99={high}, largest={self.largest})"


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"not an integer: {value!r}")
    return value
