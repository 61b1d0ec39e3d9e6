"""The arithmetic of the suite: percentiles, shares, ratios of alternating runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

#: What one run measured: metric name to value (see `metrics.METRICS`); a name that is missing, or
#: None, was not measured.
Run = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Spread:
    """Values of one metric over the rounds."""

    minimum: float
    median: float
    maximum: float
    count: int


def spread(values: Sequence[float | None]) -> Spread | None:
    """Minimum, median and maximum of the values that are there; None when none is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(min(known), median(known), max(known), len(known))


def column(runs: Sequence[Run], metric: str) -> list[float | None]:
    """One metric of each run, in order."""
    return [run.get(metric) for run in runs]


def paired_ratios(
    values: Sequence[float | None], references: Sequence[float | None]
) -> list[float | None]:
    """Each round's value divided by the reference of the same round.

    Runs of one round stand next to each other in time, so a machine that is slower for a while
    slows both. None where one of them is missing or the reference is zero.
    """
    return [
        value / reference if value is not None and reference else None
        for value, reference in zip(values, references, strict=False)
    ]


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` (0 to 1) of all are not above; None without any.

    `ordered` is sorted, rising. This is the nearest-rank definition: no value is made up.
    """
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def per(amount: float | None, count: float | None) -> float | None:
    """`amount / count`, None when either is missing or the count is zero."""
    return amount / count if amount is not None and count else None


def total(*amounts: float | None) -> float | None:
    """Sum of the amounts that are there; None when none is."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None


def added_delays_ms(online_ns: Mapping[str, int], target_ns: Mapping[str, int]) -> list[float]:
    """Milliseconds from arrival at online to arrival at the target, sorted.

    Both map a request's own words to the kernel's time stamp of its first arrival; requests that
    only one of them has are left out.
    """
    return sorted(
        (target_ns[request] - arrived_ns) / 1e6
        for request, arrived_ns in online_ns.items()
        if request in target_ns
    )
