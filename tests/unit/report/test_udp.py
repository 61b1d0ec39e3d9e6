"""What the reports say about UDP."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tcpcopy.report import status, udp
from tcpcopy.report.counters import Snapshot, merged
from tcpcopy.report.diagnosis import LOSS, diagnose
from tcpcopy.report.flow_outcome import DatagramDrop, FlowOutcome
from tcpcopy.report.summary import exit_code, headline, render, to_json
from tests.unit.report.samples import CLASSIC_CONTEXT, SOCKET_CONTEXT, clean

UDP_CONTEXT = replace(SOCKET_CONTEXT, transport="udp")
BOTH_CONTEXT = replace(SOCKET_CONTEXT, transport="both")


def flows(outcome: FlowOutcome = FlowOutcome.REPLAYED, count: int = 7) -> Snapshot:
    """50 flows with 500 datagrams; `count` of them ended in `outcome`."""
    snapshot = Snapshot(
        started_ns=1,
        duration_ns=5_000_000_000,
        udp_flows_captured=50,
        udp_flows_peak=50,
        udp_flows_answered=40,
        udp_datagrams_captured=500,
        udp_bytes_captured=5000,
        udp_bytes_sent=5000,
        udp_packets_captured=500,
        udp_answers=480,
        udp_answer_bytes=9600,
    )
    snapshot.udp_outcomes[FlowOutcome.REPLAYED] = 50 - count
    snapshot.udp_outcomes[outcome] += count
    snapshot.udp_datagram_drops[0] = snapshot.udp_packet_drops[0] = 500
    assert snapshot.check() == []
    return snapshot


@pytest.mark.parametrize("outcome", FlowOutcome)
def test_each_outcome_shows_and_decides(outcome: FlowOutcome) -> None:
    snapshot = flows(outcome)
    text = render(snapshot, UDP_CONTEXT)
    assert f"  {outcome.description}\n" in text
    assert exit_code(snapshot) == (1 if outcome.is_loss else 0)
    losses = [found for found in diagnose(snapshot, UDP_CONTEXT) if found.level == LOSS]
    assert [found.key for found in losses] == (
        [f"udp_{outcome.name.lower()}"] if outcome.is_loss else []
    )
    assert all(found.remedy and found.count == 7 for found in losses)


@pytest.mark.parametrize(
    ("snapshot", "expected"),
    [
        (flows(), "all 50 UDP flows replayed exactly"),
        (flows(FlowOutcome.REFUSED), "7 of 50 UDP flows LOST (14.00 %)"),
        (flows(FlowOutcome.SKIPPED_SAMPLING, 49),
         "the 1 UDP flow replayed exactly (49 more left out as asked)"),
        (flows(FlowOutcome.SKIPPED_SAMPLING, 50), "NOTHING REPLAYED: all 50 UDP flows left out"),
        (merged([clean(), flows()]), "all 100 sessions and 50 UDP flows replayed exactly"),
        (merged([clean(), flows(FlowOutcome.REFUSED, 15)]),
         "15 of 100 sessions and 50 UDP flows LOST (10.00 %)"),
    ],
)  # fmt: skip
def test_headline(snapshot: Snapshot, expected: str) -> None:
    assert headline(snapshot) == expected


def test_fragments_that_stayed_alone_are_a_loss() -> None:
    snapshot = flows()
    snapshot.udp_packet_drops[0] -= 3
    snapshot.udp_packet_drops[DatagramDrop.FRAGMENT] = 3
    assert exit_code(snapshot) == 1
    assert "3 fragments LOST" in headline(snapshot)
    assert [f.key for f in diagnose(snapshot, UDP_CONTEXT) if f.level == LOSS] == [
        "udp_fragments_lost"
    ]


def test_no_answer_at_all_is_told() -> None:
    snapshot = flows()
    snapshot.udp_answers = snapshot.udp_answer_bytes = snapshot.udp_flows_answered = 0
    assert "udp_no_answers" in [found.key for found in diagnose(snapshot, UDP_CONTEXT)]
    packets = replace(CLASSIC_CONTEXT, transport="udp")
    assert diagnose(snapshot, packets) == [], "packets: answers are not seen, intercept not needed"
    assert exit_code(snapshot) == 0


def test_datagrams_that_may_have_been_merged_are_noted() -> None:
    snapshot = flows()
    snapshot.udp_large = 3
    (found,) = [found for found in diagnose(snapshot, UDP_CONTEXT) if found.key == "udp_large"]
    assert (found.level, found.count) == ("note", 3)
    assert exit_code(snapshot) == 0


def test_sums_that_do_not_close() -> None:
    for name in ("udp_flows_captured", "udp_datagrams_captured", "udp_packets_captured"):
        snapshot = flows()
        setattr(snapshot, name, getattr(snapshot, name) + 1)
        assert len(snapshot.check()) == 1, name


def test_workers_join_and_travel() -> None:
    snapshot = flows()
    snapshot.udp_errors = {1: 2}
    snapshot.udp_lag.record(5)
    joined = merged([snapshot, Snapshot.from_dict(snapshot.to_dict())])
    assert joined.udp_flows_captured == 100
    assert joined.udp_errors == {1: 4}
    assert joined.udp_lag.count == 2
    assert joined.check() == []


def test_tcp_alone_says_nothing_of_udp() -> None:
    assert "UDP" not in render(clean(), SOCKET_CONTEXT)
    assert "datagrams" not in render(clean(), SOCKET_CONTEXT)


def test_udp_alone_says_nothing_of_turns() -> None:
    text = render(flows(), UDP_CONTEXT)
    assert "turns" not in text and "500 sent of 500 captured (100 %), 100/s" in text
    both = render(merged([clean(), flows()]), BOTH_CONTEXT)
    assert "turns" in both and "datagrams" in both


def test_nothing_captured_names_the_protocol() -> None:
    assert "udp dst port 80" in render(Snapshot(), UDP_CONTEXT)
    assert "tcp dst port 80 or udp dst port 80" in render(Snapshot(), BOTH_CONTEXT)
    seen = Snapshot(udp_packets_captured=3)
    seen.udp_packet_drops[DatagramDrop.NO_TRANSFER] = 3
    assert "3 UDP packets captured, but none to a source of -x" in render(seen, UDP_CONTEXT)


def test_report_and_status_have_the_same_figures() -> None:
    snapshot = flows(FlowOutcome.REFUSED)
    report = to_json(snapshot, UDP_CONTEXT)["udp"]
    assert report["flows"]["outcomes"]["refused"] == report["flows"]["lost"] == 7
    assert report["datagrams"] == {
        "captured": 500, "sent": 500, "dropped": {r.name.lower(): 0 for r in DatagramDrop},
    }  # fmt: skip
    now = status.sample(snapshot, 10**9)
    line = status.render(snapshot, now, status.Sample(0, 0, 0, 0))
    assert "flows 50" in line and "500 datagrams/s" in line and "lost 7" in line


def test_every_loss_is_explained() -> None:
    assert set(udp._EXPLAIN) == {outcome for outcome in FlowOutcome if outcome.is_loss}
