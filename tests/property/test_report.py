"""Laws of the reports: joining has no order, the sums always close, no loss goes unsaid."""

from __future__ import annotations

import json
from dataclasses import fields
from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from tcpcopy.report.context import MODES, Context, TransferInfo
from tcpcopy.report.counters import RelayCounts, RingCounts, Snapshot, merged
from tcpcopy.report.diagnosis import diagnose, is_loss
from tcpcopy.report.histogram import LARGEST, SUB_BUCKETS, Histogram
from tcpcopy.report.log import LineFormatter
from tcpcopy.report.outcome import DROP_SLOTS, OUTCOME_SLOTS, Outcome
from tcpcopy.report.schema import FIELDS
from tcpcopy.report.status import render as render_status
from tcpcopy.report.status import sample
from tcpcopy.report.summary import exit_code, headline, render, to_json
from tests.unit.report.test_log import record_of
from tests.unit.report.test_schema import paths

counts = st.integers(0, 10**9)
durations = st.lists(st.integers(0, LARGEST), max_size=30)
names = st.sampled_from(["eth0", "lo", "10.0.0.4:36524"])


@st.composite
def _slots(draw: st.DrawFn, length: int, first: int = 0) -> list[int]:
    """An array of counts, most of them 0 as in a run."""
    slots = [0] * length
    for slot, count in draw(
        st.dictionaries(st.integers(first, length - 1), counts, max_size=5)
    ).items():
        slots[slot] = count
    return slots


@st.composite
def any_snapshots(draw: st.DrawFn) -> Snapshot:
    """Any figures, whether they add up or not."""
    snapshot = Snapshot()
    for spec in fields(Snapshot):
        if isinstance(getattr(snapshot, spec.name), bool):
            setattr(snapshot, spec.name, draw(st.booleans()))
        elif isinstance(getattr(snapshot, spec.name), int):
            setattr(snapshot, spec.name, draw(counts))
    snapshot.outcomes = draw(_slots(OUTCOME_SLOTS))
    snapshot.packet_drops = draw(_slots(DROP_SLOTS))
    snapshot.answer_drops = draw(_slots(DROP_SLOTS))
    snapshot.send_errors = draw(st.dictionaries(st.integers(1, 133), counts, max_size=3))
    snapshot.rings = draw(st.dictionaries(names, st.builds(RingCounts, counts, counts)))
    relay = st.builds(RelayCounts, counts, counts, counts, counts, counts, counts)
    snapshot.relays = draw(st.dictionaries(names, relay))
    snapshot.answer_time = Histogram.of(draw(durations))
    snapshot.capture_lag = Histogram.of(draw(durations))
    return snapshot


def _part(draw: st.DrawFn, whole: int) -> int:
    return draw(st.integers(0, whole))


@st.composite
def sound_snapshots(draw: st.DrawFn, live: bool = True) -> Snapshot:
    """Figures of a run as it can be: everything adds up."""
    snapshot = Snapshot(started_ns=1, duration_ns=draw(counts), answer_bytes=draw(counts))
    few = st.integers(0, 1000)
    snapshot.outcomes = draw(_slots(OUTCOME_SLOTS, 1))
    snapshot.sessions_live = draw(few) if live else 0
    snapshot.sessions_captured = sum(snapshot.outcomes) + snapshot.sessions_live
    captured = snapshot.sessions_captured
    snapshot.sessions_peak = draw(st.integers(snapshot.sessions_live, captured))
    snapshot.sessions_refused = _part(draw, snapshot.sessions_live)
    snapshot.sessions_established = _part(draw, captured)
    snapshot.sessions_since_accept = _part(draw, captured)
    snapshot.sessions_midstream = _part(draw, captured)
    snapshot.turns_captured = draw(counts)
    snapshot.turns_replayed = _part(draw, snapshot.turns_captured)
    snapshot.turns_missed = _part(draw, snapshot.turns_replayed)
    snapshot.turns_late = _part(draw, snapshot.turns_replayed)
    snapshot.waits_expired = _part(draw, snapshot.turns_replayed)
    snapshot.bytes_captured = draw(counts)
    is_whole = snapshot.sessions_lost == 0 and snapshot.sessions_live == 0
    delivered = snapshot.bytes_captured if is_whole else _part(draw, snapshot.bytes_captured)
    snapshot.bytes_delivered = delivered
    snapshot.packet_drops = draw(_slots(DROP_SLOTS))
    snapshot.packets_captured = sum(snapshot.packet_drops)
    snapshot.answer_drops = draw(_slots(DROP_SLOTS))
    snapshot.answers_received = sum(snapshot.answer_drops)
    snapshot.packets_sent = draw(counts)
    snapshot.packets_retransmitted = _part(draw, snapshot.packets_sent)
    snapshot.send_errors = draw(st.dictionaries(st.integers(1, 133), counts, max_size=3))
    for name in draw(st.sets(names)):
        received = draw(few)
        snapshot.rings[name] = RingCounts(received, _part(draw, received))
    if draw(st.booleans()):
        snapshot.is_over = True
        snapshot.packets_unread, snapshot.sessions_unread = draw(few), draw(few)
        dropped, skipped = draw(few), draw(few)
        read = snapshot.packets_captured + snapshot.packets_unread + skipped
        snapshot.rings = {"eth0": RingCounts(read + dropped, dropped, skipped)}
    return snapshot


contexts = st.builds(
    Context,
    mode=st.sampled_from(MODES),
    transfers=st.sampled_from(
        [(), (TransferInfo("", 443, "10.0.0.3", 8080), TransferInfo("::1", 80, "::2", 1))]
    ),
    intercepts=st.sampled_from([(), ("10.0.0.4:36524", "[::1]:36524")]),
    client_addresses=st.sampled_from([(), ("62.135.200.x", "10.0.0.0/8")]),
    client_pool_size=st.integers(0, 5000),
    buffer_mib=st.integers(0, 4096),
    session_limit=st.integers(0, 10**6),
)


# --- joining ----------------------------------------------------------------------------------


@given(any_snapshots(), any_snapshots())
def test_merge_is_commutative(one: Snapshot, other: Snapshot) -> None:
    assert one.merge(other) == other.merge(one)


@given(any_snapshots(), any_snapshots(), any_snapshots())
def test_merge_is_associative(one: Snapshot, two: Snapshot, three: Snapshot) -> None:
    assert one.merge(two).merge(three) == one.merge(two.merge(three)) == merged([one, two, three])


@given(any_snapshots())
def test_empty_is_neutral_and_merging_changes_neither(one: Snapshot) -> None:
    before = one.to_dict()
    assert one.merge(Snapshot()) == one == Snapshot().merge(one)
    assert one.to_dict() == before


@given(any_snapshots())
def test_snapshot_comes_back_from_json(one: Snapshot) -> None:
    assert Snapshot.from_dict(json.loads(json.dumps(one.to_dict()))) == one


@given(st.lists(sound_snapshots(), max_size=4))
def test_workers_that_add_up_add_up_together(workers: list[Snapshot]) -> None:
    assert merged(workers).check() == []


# --- the sums ---------------------------------------------------------------------------------

#: Every total that an equation of `check` holds fast: changed alone, it must be noticed.
BOUND = (
    "sessions_captured", "sessions_live", "packets_captured", "answers_received",
)  # fmt: skip
BOUND_SLOTS = ("outcomes", "packet_drops", "answer_drops")


@given(sound_snapshots())
def test_sound_figures_add_up(snapshot: Snapshot) -> None:
    assert snapshot.check() == []


@given(sound_snapshots(), st.sampled_from(BOUND), st.integers(-5, 5))
def test_changed_total_is_noticed(snapshot: Snapshot, name: str, by: int) -> None:
    assume(by != 0)
    setattr(snapshot, name, getattr(snapshot, name) + by)
    assert snapshot.check() != []


@given(sound_snapshots(), st.sampled_from(BOUND_SLOTS), st.data())
def test_changed_slot_is_noticed(snapshot: Snapshot, name: str, data: st.DataObject) -> None:
    slots = getattr(snapshot, name)
    slot = data.draw(st.integers(0, len(slots) - 1))
    slots[slot] += data.draw(st.sampled_from([-1, 1]))
    assert snapshot.check() != []


@given(sound_snapshots(), st.data())
def test_part_above_its_whole_is_noticed(snapshot: Snapshot, data: st.DataObject) -> None:
    part, whole = data.draw(
        st.sampled_from(
            [
                ("sessions_established", "sessions_captured"),
                ("sessions_since_accept", "sessions_captured"),
                ("sessions_midstream", "sessions_captured"),
                ("sessions_peak", "sessions_captured"),
                ("turns_replayed", "turns_captured"),
                ("turns_missed", "turns_replayed"),
                ("turns_late", "turns_replayed"),
                ("waits_expired", "turns_replayed"),
                ("bytes_delivered", "bytes_captured"),
                ("packets_retransmitted", "packets_sent"),
            ]
        )
    )
    setattr(snapshot, part, getattr(snapshot, whole) + 1)
    assert any("is more than" in line for line in snapshot.check())


# --- the histogram ----------------------------------------------------------------------------


@given(st.lists(st.integers(0, LARGEST), min_size=1, max_size=200), st.floats(0, 100))
def test_percentile_is_within_a_bucket_of_the_true_one(values: list[int], percent: float) -> None:
    percent = round(percent, 3)
    rank = max(1, -(-round(percent * 1000) * len(values) // 100_000))
    true = sorted(values)[rank - 1]
    found = Histogram.of(values).percentile(percent)
    assert abs(found - true) <= true / SUB_BUCKETS


@given(durations, durations)
def test_joined_histogram_is_that_of_all_values(one: list[int], other: list[int]) -> None:
    joined = Histogram.of(one)
    joined.add(Histogram.of(other))
    assert joined == Histogram.of([*other, *one])
    assert joined.count == len(one) + len(other)


@given(durations)
def test_percentiles_rise(values: list[int]) -> None:
    histogram = Histogram.of(values)
    found = [histogram.percentile(q) for q in (0, 1, 10, 50, 90, 99, 99.9, 100)]
    assert all(low <= high for low, high in pairwise(found))
    assert [found[0], found[-1]] == [min(values, default=0), max(values, default=0)]


# --- what is said -----------------------------------------------------------------------------


@given(sound_snapshots(), contexts)
def test_summary_mentions_each_loss(snapshot: Snapshot, context: Context) -> None:
    text = render(snapshot, context)
    for outcome in Outcome:
        count = snapshot.outcomes[outcome]
        assert (f"%  {outcome.description}\n" in text) == (count > 0)
    for finding in diagnose(snapshot, context):
        assert finding.text.split()[0] in text
        assert all(f"      - {step}\n" in text for step in finding.remedy)
    lost = {finding.key for finding in diagnose(snapshot, context) if is_loss(finding)}
    for outcome in Outcome:
        if outcome.is_loss and snapshot.outcomes[outcome]:
            assert outcome.name.lower() in lost
    if snapshot.kernel_dropped:
        assert "kernel_dropped" in lost


@given(any_snapshots() | sound_snapshots() | sound_snapshots(live=False), contexts)
def test_exit_code_findings_and_headline_agree(snapshot: Snapshot, context: Context) -> None:
    is_good = exit_code(snapshot) == 0
    assert is_good == (not any(map(is_loss, diagnose(snapshot, context))))
    if "exactly" in headline(snapshot):
        assert is_good
        assert snapshot.sessions_live == 0
        assert snapshot.bytes_delivered == snapshot.bytes_captured


@given(any_snapshots() | sound_snapshots(), contexts)
def test_report_has_documented_keys_only_and_is_json(snapshot: Snapshot, context: Context) -> None:
    report = to_json(snapshot, context)
    assert set(paths(report)) <= set(FIELDS)
    assert json.loads(json.dumps(report)) == report


@given(any_snapshots(), st.integers(0, 10**12), st.integers(1, 200))
def test_status_line_fits_and_is_one_line(snapshot: Snapshot, now_ns: int, width: int) -> None:
    now = sample(snapshot, now_ns)
    before = sample(Snapshot(), 0)
    line = render_status(snapshot, now, before, width)
    assert len(line) <= width
    assert line.isprintable()
    assert render_status(snapshot, now, before, 1000).startswith(line[: line.find("  ")])


@given(st.text())
def test_one_event_is_one_line_in_the_log(message: str) -> None:
    assert len(LineFormatter().format(record_of(message)).splitlines()) == 1
