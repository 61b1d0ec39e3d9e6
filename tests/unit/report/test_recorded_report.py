"""What the reports say about a replay of files, and about --rate."""

from __future__ import annotations

from dataclasses import replace

from tcpcopy.report.context import Context
from tcpcopy.report.counters import InputCounts, RateCounts, Snapshot, merged
from tcpcopy.report.diagnosis import diagnose
from tcpcopy.report.flow_outcome import DatagramDrop, FlowOutcome
from tcpcopy.report.outcome import Drop, Outcome
from tcpcopy.report.status import render, sample
from tcpcopy.report.summary import render as summary
from tcpcopy.report.summary import to_json

SECOND = 1_000_000_000
FILES = Context(files=("a.pcap",), passes=3, pacing="as recorded")


def replayed() -> Snapshot:
    found = Snapshot(sessions_captured=4, packets_captured=30, duration_ns=10 * SECOND)
    found.outcomes[Outcome.REPLAYED] = 4
    found.packet_drops[0] = 30
    found.file = InputCounts(
        packets=70, left_out=40, bytes_read=500, bytes_total=2000, passes=1, problems=1
    )
    return found


def test_summary_says_what_was_read() -> None:
    text = summary(replayed(), FILES)
    assert "500 B of 1.95 KiB read, 1 of 3 passes: 70 packets, 40 of other traffic" in text
    assert "1 problem (see the log)" in text
    assert "as recorded" in text
    assert "kernel" not in text


def test_counts_of_a_file_add_up() -> None:
    found = replayed()
    assert found.check() == []
    found.file.left_out += 1
    assert found.check() == [
        "packets read from files 70 differs from packets captured, unread and left out 71"
    ]


def test_json_and_travel() -> None:
    found = replayed()
    found.rate = RateCounts(taken=9, waited=3, reached_milli=499_500)
    data = to_json(found, Context(files=("a.pcap",), rate="at most 500 sessions/s (queue)"))
    assert data["files"]["left_out"] == 40 and data["files"]["passes"] == 1
    assert data["rate"] == {
        "asked": "at most 500 sessions/s (queue)", "reached": 499.5, "taken": 9, "waited": 3,
    }  # fmt: skip
    twin = Snapshot.from_dict(found.to_dict())
    assert twin == found
    assert merged([found, twin]).rate == RateCounts(18, 6, 999_000)
    assert merged([found, twin]).file.packets == 140


def test_rate_stands_in_the_summary() -> None:
    found = replayed()
    found.rate = RateCounts(taken=9, waited=3, reached_milli=400_000)
    text = summary(found, Context(rate="at most 400 sessions/s (queue)"))
    assert "at most 400 sessions/s (queue): 400/s reached, 3 waited" in text


def test_nothing_in_the_file_for_a_transfer() -> None:
    found = Snapshot()
    found.file = InputCounts(packets=40, left_out=40)
    (finding,) = diagnose(found, FILES)
    assert finding.text == "no session captured: none of 40 packets goes to port 0"
    assert finding.remedy[0].startswith("tcpcopy inspect a.pcap")


def test_what_a_file_lacks_is_recorded_anew() -> None:
    for drop in (None, Drop.CUT):
        found = Snapshot(sessions_captured=1)
        found.outcomes[Outcome.CAPTURE_HOLE] = 1
        if drop is not None:
            found.packets_captured = found.packet_drops[drop] = 1
            found.file = InputCounts(packets=1)
        (finding,) = diagnose(found, FILES)
        assert "tcpdump -s 0" in finding.remedy[-1]


def test_progress_bar_and_time_left() -> None:
    found = replayed()
    now = sample(found, SECOND)
    wide = render(found, now, now, 120)
    assert wide.startswith("[#####...............]  25 %  0:30 left  0:10  ")
    assert render(found, now, now).startswith("25 %  0:30 left  0:10  ")
    assert render(found, now, now, 24) == "25 %  0:10  lost 0"
    found.file.bytes_total = 0  # a pipe
    assert render(found, now, now).startswith("0:10  ")
    found.file.bytes_read = found.file.bytes_total = 2000
    assert "left" not in render(found, now, now, 120)


def test_udp_packets_are_packets_of_the_file() -> None:
    found = replayed()
    found.udp_packets_captured = found.udp_packet_drops[0] = 5
    found.file.packets += 5
    assert found.check() == []


def test_cut_datagrams_want_another_recording() -> None:
    """-S is of live captures: what a file lacks is not mended by it."""
    found = replayed()
    found.udp_flows_captured = found.udp_outcomes[FlowOutcome.INCOMPLETE] = 1
    found.udp_datagram_drops[DatagramDrop.CUT] = found.udp_datagrams_captured = 3
    found.udp_packet_drops[DatagramDrop.FRAGMENT] = 2
    context = replace(FILES, transport="udp")
    told = {finding.key: finding for finding in diagnose(found, context)}
    cut = told["udp_incomplete"]
    assert "3 datagrams cut when they were recorded" in cut.text
    for key in ("udp_incomplete", "udp_fragments_lost"):
        assert "tcpdump -s 0" in " ".join(told[key].remedy)
        assert "-S" not in " ".join(told[key].remedy)
