"""Results as markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.metrics import METRICS
from benchmarks.numbers import Run, Spread, column, paired_ratios, spread

#: What a ratio says something about: costs, and how fast online still is.
RATIOS = (
    "together_us", "own_us", "tcpcopy_us", "intercept_us", "online_per_s", "to_target",
    "delay_p50_ms", "delay_p99_ms",
    "tcpcopy_mb", "intercept_mb", "tcpcopy_own_mb", "intercept_own_mb",
    "tcpcopy_peak_mb", "intercept_peak_mb",
    "tcpcopy_idle_us", "intercept_idle_us",
    "tcpcopy_session_bytes", "intercept_session_bytes",
    "scale_session_bytes", "scale_request_ns", "scale_answer_ns", "scale_timer_ns",
)  # fmt: skip
MISSING = "–"


def number(value: float, decimals: int) -> str:
    """A value with so many decimals and groups of thousands."""
    return f"{value:,.{decimals}f}"


def cell(values: Spread | None, decimals: int) -> str:
    """Median, and the minimum before it where there were several runs: "min / median"."""
    if values is None:
        return MISSING
    middle = number(values.median, decimals)
    return middle if values.count == 1 else f"{number(values.minimum, decimals)} / {middle}"


def ratio_cell(ratios: Spread | None) -> str:
    """Median of the rounds' ratios, and their range where there were several."""
    if ratios is None:
        return MISSING
    if ratios.count == 1:
        return f"{ratios.median:.2f}"
    return f"{ratios.median:.2f} ({ratios.minimum:.2f} to {ratios.maximum:.2f})"


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with its columns aligned in the text as well."""
    lines = [list(headings), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]

    def text(line: Sequence[str]) -> str:
        return "| " + " | ".join(w.ljust(n) for w, n in zip(line, widths, strict=True)) + " |"

    rule = "| " + " | ".join("-" * width for width in widths) + " |"
    return "\n".join([text(lines[0]), rule, *map(text, lines[1:])])


def results(columns: Sequence[str], runs: Mapping[str, Sequence[Run]]) -> str:
    """One row for each variant: "minimum / median" over its rounds.

    Columns and variants of which nothing was measured are left out.
    """
    used = [
        name
        for name in columns
        if any(spread(column(measured, name)) is not None for measured in runs.values())
    ]
    rows = [
        [variant, *(cell(spread(column(measured, m)), METRICS[m].decimals) for m in used)]
        for variant, measured in runs.items()
        if any(spread(column(measured, name)) is not None for name in used)
    ]
    return markdown(["build, mode", *(METRICS[name].heading.strip() for name in used)], rows)


def ratios(columns: Sequence[str], runs: Mapping[str, Sequence[Run]], reference: str) -> str:
    """One row for each other variant: its values by the reference's of the same round."""
    used = [
        name
        for name in columns
        if name in RATIOS and spread(column(runs[reference], name)) is not None
    ]
    rows = []
    for variant, measured in runs.items():
        if variant == reference:
            continue
        cells = [
            ratio_cell(spread(paired_ratios(column(measured, m), column(runs[reference], m))))
            for m in used
        ]
        if any(text != MISSING for text in cells):
            rows.append([f"{variant} : {reference}", *cells])
    if not rows:
        return ""
    return markdown(["ratio", *(METRICS[name].heading.strip() for name in used)], rows)
